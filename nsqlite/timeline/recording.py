"""A bounded file of recorded events, so that the last moments of a program can be looked at.

The rule: an event is with the operating system before the observer returns, so `kill -9` loses
none that was told; and whatever befalls the file, the program that is recorded goes on.

    {"nsqlite": "recording", "version": 1}
    {"run": 4711, "time": 1776359466.1, "nsqlite": "0.14.0", "next": 1}
    {"n": 1, "kind": "published", "time": 1776359466.4, "topic": "orders",
     "id": "18a6e5b294400000", "body": "order 1"}
    {"n": 2, "kind": "finished", ...}
    {"closed": 1776359470.2, "next": 3}

The fields are those of an `Event`, but for those that say nothing.  Bytes are a `body` if they are
UTF-8, else a `body_base64`; what JSON can say is a `json`; of a dead letter there is a `letter`, as
`GivenUp` has it; of all else, and of what is long, there is the `repr`, cut short.  A run is a
program's, from when it opened the file to `closed`, or to where it was killed.  `n` counts on over
all of them, and `next` is the one to come: those before the first are older than what the file
keeps, and those that are missing in between are lost.

A line begins with the end of the one before, so that one which was cut off spoils no other.  Where
the file has half of the size that it may have it is renamed, ``jobs.rec`` to ``jobs.rec.1``, of
which the one before goes, and the file begins anew.

Costs: 8 us for an event with 200 bytes, of which 2 are those of the operating system.  There is
no fsync: a loss of power may lose the last moments.

Next: testing/__init__.py
"""

import base64
import errno
import json
import os
import stat
import threading
from collections.abc import Iterator
from contextlib import suppress
from operator import itemgetter
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, TypeAlias, TypeGuard
from weakref import WeakValueDictionary

import attrs

from nsqlite._version import __version__
from nsqlite.clock import SYSTEM
from nsqlite.errors import RecordingError, shown
from nsqlite.events import Event, Kind
from nsqlite.monitor import logger
from nsqlite.options import SECOND, whole
from nsqlite.timeline.parts import GivenUp, letter_of

VERSION: Final = 1
"""The number of what is told above."""

SIZE: Final = 64 << 20
"""Bytes that a recording may have unless it is told otherwise."""

ENDING: Final = 64
"""Bytes that are left for the last line."""

SMALLEST: Final = 1 << 12
"""Bytes that it must be allowed."""

BODY: Final = 1000
"""Bytes of a body that are kept whole unless it is told otherwise."""

LARGEST_BODY: Final = 1 << 20

LATEST: Final = 1e11
"""Seconds since the epoch of the latest moment that is believed: some 3,000 years."""

Fields: TypeAlias = dict[str, Any]
"""A line, as JSON has it."""

_HEAD: Final = {"nsqlite": "recording", "version": VERSION}
_PLAIN: Final = Event._field_defaults
_open_lock: Final = threading.Lock()
_open_ones: Final = WeakValueDictionary[str, "Recording"]()
"""Those of this process, by where their files really are; the lock is held to change it."""

_encode: Final = json.JSONEncoder().encode


@attrs.frozen(repr=False)
class Excerpt:
    """What a recording has of a body that it did not keep whole, or could not.

    Attributes:
        text: the beginning of its `repr`.
    """

    text: str

    def __repr__(self) -> str:
        """Show it as the body would have been."""
        return self.text


@attrs.frozen(kw_only=True)
class Run:
    """What one program has recorded.

    Attributes:
        pid: its process.
        begun: when it opened the recording, in seconds since the epoch.
        version: of its nsqlite.
        events: what happened, the oldest first.
        closed: whether it closed the recording; else it was killed, or is running.
        lost: where events are missing: pairs of after how many of those above, and how many.
    """

    pid: int
    begun: float
    version: str
    events: tuple[Event, ...] = ()
    closed: bool = False
    lost: tuple[tuple[int, int], ...] = ()


@attrs.frozen
class Recorded:
    """What is in a recording.

    Attributes:
        runs: of the programs that have recorded into it, the oldest first.
        forgotten: how many events there were before the first: the file keeps no older ones.
    """

    runs: tuple[Run, ...]
    forgotten: int

    @property
    def events(self) -> tuple[Event, ...]:
        """What happened in all runs, the oldest first."""
        return tuple(event for run in self.runs for event in run.events)

    @property
    def lost(self) -> int:
        """How many events are missing in between, as far as later ones show it."""
        return sum(count for run in self.runs for _, count in run.lost)


class Recording:
    """An observer that writes what it hears to a file; see `read_recording`.

    A file that is there goes on.  What the file cannot take is missing in it, logged once as a
    warning, and never an error of the program.  In the child of a fork it writes nothing.

        >>> import nsqlite, tempfile
        >>> path = tempfile.mkdtemp() + "/jobs.rec"
        >>> with Recording(path) as recording:
        ...     id = nsqlite.Topic("orders", observers=[recording]).put(b"order 1")
        >>> [str(event.kind) for event in read_recording(path).events]
        ['created', 'published']

    What it has been told is in the file, whatever kills the process.  It is told after the topic's
    lock is released, in the topic's order, by the thread that caused the event, or by one that is
    telling just then.  So `kill -9` may lose the end of a topic's events: in a program of one
    thread those of the call under way; with several also those of calls that have just returned,
    and of messages that another thread has already got, which may be at work on them.

    As a context manager it closes itself at the end of the block.

    Threads: any.

    Attributes:
        path: where the file is; beside it, with ``.1`` behind its name, lies the older half.
        size: how many bytes both may have.
        body_size: of how many bytes a body is kept whole.
    """

    def __init__(
        self, path: str | os.PathLike[str], *, size: int = SIZE, body_size: int = BODY
    ) -> None:
        """Open a recording, or begin one.

        Args:
            path: where the file is, or is to be.
            size: see the class; 4 KiB or more.  A single event may be larger than half of it.
            body_size: see the class; 1 MiB at most.

        Raises:
            InvalidOption: a size is out of its range.
            RecordingError: the file is no recording, or cannot be written, or another process, or
                another recording of this one, is recording into it.
        """
        self.path: Final = str(Path(path).absolute())
        self.size: Final = whole("size", size, SMALLEST)
        self.body_size: Final = whole("body_size", body_size, 0, LARGEST_BODY)
        self._pid: Final = os.getpid()
        # An observer may be called inside of another call of it, by a signal handler:
        self._lock: Final = threading.RLock()
        self._file: int | None = None
        self._closed = False
        self._fails = False
        self._run: Final = {"run": self._pid, "time": _now(), "nsqlite": __version__}
        self._real_path: Final = os.path.realpath(self.path)
        with _open_lock:
            self._require_alone()
            self._number = _last_number(self.path)
            try:
                self._open(self._number + 1)
            except OSError as error:
                problem = f"it cannot be written: {_problem_of(error)}"
                raise RecordingError(self.path, problem) from None
            _open_ones[self._real_path] = self

    def _require_alone(self) -> None:
        """Check that no other one of this process has the file: to the system they are the same.

        Raises:
            RecordingError: there is one.
        """
        other = _open_ones.get(self._real_path)
        if other is not None and not other._closed and other._pid == self._pid:
            raise RecordingError(self.path, "this process is recording into it already")

    def __call__(self, event: Event) -> None:
        """Write an event."""
        if os.getpid() != self._pid:
            return
        text = _as_text(event, self.body_size)  # without the lock: a body's `repr` may do anything
        with self._lock:
            if not self._closed:
                self._number += 1
                self._write_if_possible(f'\n{{"n": {self._number}, {text}'.encode("ascii"))

    def close(self) -> None:
        """Write that it ends here, and close the file.  What happens later is not recorded."""
        with self._lock:
            if not self._closed:
                self._closed = True
                with suppress(OSError):
                    self._write(_line({"closed": _now(), "next": self._number + 1}))
                self._let_go()

    def _write_if_possible(self, line: bytes) -> None:
        """Write a line; if that cannot be, say so, but not for each."""
        try:
            self._make_room(len(line))
            self._write(line)
        except OSError as error:
            if not self._fails:
                text = "recording %s: %s; what happens until it can be written will be missing"
                logger().warning(text, self.path, _problem_of(error))
            self._fails = True
        else:
            self._fails = False

    def _make_room(self, length: int) -> None:
        """Begin the file anew if it is full, or was removed, or could not be begun."""
        if self._file is not None:
            status = os.fstat(self._file)
            if status.st_nlink and status.st_size + length <= self.size // 2 - ENDING:
                return
        self._let_go()
        with suppress(FileNotFoundError):
            Path(self.path).replace(_older(self.path))
        self._open(self._number)

    def _open(self, number: int) -> None:
        """Open the file, and write of what it is, and who records from which event on."""
        self._file = file = _opened(self.path)
        is_new = not os.fstat(file).st_size
        head = _encode(_HEAD).encode("ascii") if is_new else b""
        try:
            self._write(head + _line({**self._run, "next": number}))
        except OSError:
            self._let_go()
            if is_new:
                Path(self.path).unlink()  # there is a part of the first line at most
            raise

    def _write(self, line: bytes) -> None:
        if self._file is None or os.getpid() != self._pid:
            return
        if os.write(self._file, line) < len(line):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _let_go(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            os.close(file)

    def __enter__(self) -> Self:
        """Begin a block that closes it."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close it."""
        self.close()

    def __repr__(self) -> str:
        """Show where it is."""
        return f"<Recording {self.path}{' closed' if self._closed else ''}>"


def read_recording(path: str | os.PathLike[str]) -> Recorded:
    """Return what is in a recording, also while a program is writing it.

    The event of a line that cannot be read, as of one that was cut off, is lost.

    Raises:
        RecordingError: it is not there, is no recording, or cannot be read.
    """
    found: list[_Found] = []
    for fields in _lines(os.fspath(path)):
        if "run" in fields:
            if not all(is_right(fields.get(name)) for name, is_right in _RUN.items()):
                continue
            one = _Found({name: fields[name] for name in _RUN}, _next(fields))
            if not found or found[-1].fields != one.fields:  # else the file was begun anew
                found.append(one)
        elif found and "closed" in fields:
            found[-1].closed, found[-1].end = True, _next(fields)
        elif found and (event := _event_of(fields)) is not None:
            found[-1].events.append((fields["n"], event))
    return _recorded(found)


# Reading


@attrs.define(eq=False)
class _Found:
    """A run that is being read.

    Attributes:
        fields: who it is.
        begin: the number of its first event; None if an older nsqlite did not tell.
        end: that of the one that would have been its next, where it tells.
        closed: whether it was closed.
        events: each with its number.
    """

    fields: Fields
    begin: int | None
    end: int | None = None
    closed: bool = False
    events: list[tuple[int, Event]] = attrs.Factory(list)

    def first(self) -> int | None:
        """Return the number of its first event, as far as it is known."""
        return self.events[0][0] if self.begin is None and self.events else self.begin


def _recorded(found: list[_Found]) -> Recorded:
    """Return runs, with what is missing in them."""
    begins = [one.first() for one in found]
    expected = next((begin for begin in begins if begin is not None), 1)
    forgotten = max(expected - 1, 0)
    runs = []
    for one, following in zip(found, [*begins, None][1:], strict=True):
        one.events.sort(key=itemgetter(0))  # a signal handler may have come in between
        known = [(number, number + 1) for number, _ in one.events]
        end = max(one.end or 0, following or 0)
        known += [(end, end)]
        lost = []
        for place, (number, after) in enumerate(known):
            if number > expected:
                lost.append((place, number - expected))
            expected = max(expected, after)
        runs.append(
            Run(
                pid=one.fields["run"],
                begun=one.fields["time"],
                version=one.fields["nsqlite"],
                events=tuple(event for _, event in one.events),
                closed=one.closed,
                lost=tuple(lost),
            )
        )
    return Recorded(tuple(runs), forgotten)


def _next(fields: Fields) -> int | None:
    """Return the number of the event to come, if a line tells it."""
    number = fields.get("next")
    return number if _is_number(number) else None


def _lines(path: str) -> Iterator[Fields]:
    """Go through the lines of both halves that can be read.

    Raises:
        RecordingError: see `read_recording`.
    """
    older, newer = _halves(path)
    for content in filter(None, (older, newer)):
        head, *lines = content.split(b"\n")
        _check_head(path, head)
        yield from filter(None, map(_parsed, lines))
    if not older and not newer:
        raise RecordingError(path, "it is empty: nothing was recorded")


def _halves(path: str) -> tuple[bytes, bytes]:
    """Return what is in both files, the older first; if one becomes the other meanwhile, again."""
    while True:
        before = _identity(path)
        older = _content(_older(path)) if Path(_older(path)).exists() else b""
        newer = _content(path) if not older or Path(path).exists() else b""
        if _identity(path) == before:
            return older, newer


def _identity(path: str) -> tuple[int, int] | None:
    """Return which file it is; None if there is none."""
    try:
        status = Path(path).stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _content(path: str) -> bytes:
    """Return what is in a file."""
    try:
        with Path(path).open("rb") as file:
            if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                return file.read()
    except FileNotFoundError:
        raise RecordingError(path, "there is no such file") from None
    except OSError as error:
        raise RecordingError(path, f"it cannot be read: {_problem_of(error)}") from None
    raise RecordingError(path, "it is no file")


def _check_head(path: str, line: bytes) -> None:
    """Check that a file is a recording which this one can read."""
    fields = _parsed(line[:1000])
    if fields is None or fields.get("nsqlite") != "recording":
        raise RecordingError(path, "it is no recording of nsqlite")
    if fields.get("version") != VERSION:
        wrote = f"a later nsqlite wrote it (version {fields.get('version')}"
        raise RecordingError(path, f"{wrote}; this one knows {VERSION})")


def _parsed(line: bytes) -> Fields | None:
    """Return a line; None if it was cut off, or is something else."""
    try:
        fields = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return fields if isinstance(fields, dict) else None


def _is_name(value: object) -> bool:
    return isinstance(value, str) and value != "" and value.isprintable()


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_moment(value: object) -> bool:
    """Return whether it counts seconds since the epoch, no more of them than a calendar has."""
    return isinstance(value, int | float) and abs(value) < LATEST


def _is_number(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and 0 <= value < 1 << 64


_RUN: Final = {"run": _is_number, "time": _is_moment, "nsqlite": _is_name}
"""What the fields of a run must be."""

_EVENT: Final = {
    "n": _is_number,
    "kind": _is_name,
    "time": _is_moment,
    "topic": _is_name,
    "channel": _is_name,
    "id": _is_name,
    "attempts": _is_number,
    "client_id": _is_number,
    "due": _is_moment,
    "count": _is_number,
    "consumer": _is_text,
}
"""What the fields of an event must be, as far as it has them."""

_NEEDED: Final = frozenset({"n", "kind", "time", "topic"})
"""Those that every event has."""


def _event_of(fields: Fields) -> Event | None:
    """Return the event of a line; None if it is none."""
    if _NEEDED - fields.keys():
        return None
    if not all(_EVENT[name](value) for name, value in fields.items() if name in _EVENT):
        return None
    told = {name: fields[name] for name in Event._fields if name in fields}
    try:
        told["kind"] = kind = Kind(fields["kind"])
        told["body"] = _body_of(fields)
    except (TypeError, ValueError):
        return None
    return None if kind == Kind.PUBLISHED and "id" not in fields else Event(**told)


def _body_of(fields: Fields) -> Any:
    """Return the body that a line has.

    Raises:
        TypeError: it is no text where it should be, or no letter.
        ValueError: it is no base64.
    """
    if "body" in fields:
        return str.encode(fields["body"])
    if "body_base64" in fields:
        return base64.b64decode(fields["body_base64"], validate=True)
    if "letter" in fields:
        return GivenUp(**fields["letter"])
    return Excerpt(str(fields["repr"])) if "repr" in fields else fields.get("json")


# Writing


def _as_text(event: Event, body_size: int) -> str:
    """Return an event as its line has it, after the number."""
    fields = {
        name: value
        for name, value in zip(event._fields, event, strict=True)
        if name != "body" and value != _PLAIN.get(name)
    }
    text = _encode(fields)[1:-1]
    return f"{text}{'}' if event.body is None else f', {_body(event.body, body_size)}'}"


def _body(body: object, most: int) -> str:
    """Return a body as a line ends with it."""
    if isinstance(body, bytes):
        if len(body) > most:
            return _excerpt(f"{shown(body[:100])}... ({len(body)} bytes)")
        try:
            return f'"body": {_encode(body.decode())}}}'
        except UnicodeDecodeError:
            return f'"body_base64": {_encode(base64.b64encode(body).decode("ascii"))}}}'
    if isinstance(body, str) and len(body) > most:
        return _excerpt(f"{shown(body[:100])}... ({len(body)} characters)")
    try:
        text = _encode(body)
    except Exception:  # it is no JSON, or its own code raises
        return _letter(body) or _excerpt(shown(body))
    return _excerpt(shown(body)) if len(text) > most else f'"json": {text}}}'


def _letter(body: object) -> str:
    """Return a dead letter as a line ends with it; nothing of what is none."""
    letter = letter_of(body)
    return "" if letter is None else f'"letter": {_encode(attrs.asdict(letter))}}}'


def _excerpt(text: str) -> str:
    return f'"repr": {_encode(text)}}}'


def _line(fields: Fields) -> bytes:
    return f"\n{_encode(fields)}".encode("ascii")


def _opened(path: str) -> int:
    """Open a file to write at its end, which no other process does.

    Raises:
        OSError: it cannot be.
    """
    from nsqlite.store.filelocks import lock_byte  # noqa: PLC0415 - loads all of the store

    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    try:
        lock_byte(file)
    except OSError:
        os.close(file)
        raise OSError(errno.EBUSY, "another process is recording into it") from None
    return file


def _last_number(path: str) -> int:
    """Return the number of the last event that a recording knows of; 0 if there is none.

    Raises:
        RecordingError: there is something else.
    """
    for half in (path, _older(path)):
        content = _content(half) if Path(half).exists() else b""
        if content:
            _check_head(half, content.partition(b"\n")[0])
        for line in reversed(content.split(b"\n")):
            fields = _parsed(line) or {}
            number, after = fields.get("n"), _next(fields)
            if _is_number(number):
                return number
            if after is not None:
                return max(after - 1, 0)
    return 0


def _older(path: str) -> str:
    return f"{path}.1"


def _now() -> float:
    return SYSTEM.time_ns() / SECOND


def _problem_of(error: OSError) -> str:
    return error.strerror or str(error)
