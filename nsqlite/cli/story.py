"""`python -m nsqlite story`: the life of one message, from a store's file, a recording, or both.

The rule: a store tells where the message is now, and a recording how it came there; neither is
changed, and what nobody can know any more is said to be so.

Of a message that is in no channel any more a store forgets all.

Next: cli/overview.py
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from nsqlite.cli.failure import CommandFailed
from nsqlite.cli.pages import COPIES, FOUND
from nsqlite.cli.snapshot import Reader, reading
from nsqlite.cli.timeline import headline, timeline_of
from nsqlite.clock import SYSTEM
from nsqlite.errors import InvalidMessage, NSQLiteError, shown
from nsqlite.events import Kind
from nsqlite.ids import EPOCH, checked_id
from nsqlite.options import SECOND
from nsqlite.store.attach import attach
from nsqlite.store.backup import MAGIC
from nsqlite.store.known import Known, known_as
from nsqlite.store.owner import has_owner
from nsqlite.store.paths import full_path
from nsqlite.store.statements import read_channels, read_topics
from nsqlite.store.storage import StoredChannel, StoredTopic
from nsqlite.timeline import Recorded, read_recording
from nsqlite.timeline.parts import letter_of
from nsqlite.timeline.words import date, span

PATIENCE: Final = 5.0
"""Seconds that the owner has to answer."""

GONE: Final = "is no more: it was finished, or taken out"
"""What is known of a channel that has done with a message."""

UNKNOWN: Final = (
    "What is in flight counts as ready here, since a process has the file that does not answer."
)


def story(path: str, id: str, record: str | None) -> Iterator[str]:  # noqa: A002 - NSQ's word for it
    """Yield the life of a message, line by line.

    Args:
        path: the file of a store, or a recording.
        id: the message's.
        record: a recording, beside a store.

    Raises:
        CommandFailed: it is no id, or nothing is known of it.
        StoreError: the store cannot be read.
        RecordingError: a recording cannot be read.
    """
    try:
        checked_id(id)
    except InvalidMessage as error:
        raise CommandFailed(str(error)) from None
    places = list(of_store(path, id)) if _is_store(path) else None
    recording = path if places is None else record
    recorded = None if recording is None else read_recording(recording)
    told = [] if recorded is None else list(of_recording(recorded, id))
    put = date((((int(id, 16) >> 22) + EPOCH) << 20) / SECOND)
    if not places and not told:
        missing = "" if places is None else ": it was never put there, or all have done with it"
        raise CommandFailed(f"{path} knows no message {id}{missing}; by its id it is of {put}")
    if places is not None:
        letters = [] if recorded is None else list(of_letters(path, recorded, id))
        why = "" if letters else ": all have done with it"
        yield from places or [f"{path} has it no more{why}."]
        yield from letters
        yield from [""] if told else []
    yield from told


def _is_store(path: str) -> bool:
    """Return whether a file is one of SQLite's; whose it is will be seen."""
    try:
        with Path(path).open("rb") as file:
            return file.read(len(MAGIC)) == MAGIC
    except OSError:  # to read it as a recording tells why
        return False


# From a recording


def of_recording(recorded: Recorded, name: str) -> Iterator[str]:
    """Yield what a recording tells of a message, run by run; nothing if it tells nothing."""
    for place, run in enumerate(recorded.runs):
        if any(event.id == name for event in run.events):
            yield headline(recorded, place)
            yield timeline_of(run, None, 0).story(name)


# From a store


def of_store(path: str, name: str) -> Iterator[str]:
    """Yield what a store tells of a message; nothing if it has no such message.

    Raises:
        StoreError: it cannot be read.
    """
    found = _find(path, name)
    if found is not None:
        topic, message, places = found
        yield from _of_message(topic, name, message)
        yield from _of_places(path, topic.name, name, places)


def of_letters(path: str, recorded: Recorded, name: str) -> Iterator[str]:
    """Yield where the dead letters of a message are: one for each channel that gave it up.

    Args:
        path: the file of the store.
        recorded: what was recorded beside it, which knows them.
        name: the message's id.

    Raises:
        StoreError: the store cannot be read.
    """
    for event in recorded.events:
        letter = letter_of(event.body) if event.kind == Kind.PUBLISHED else None
        if letter is not None and event.id is not None and letter.id == name:
            dead = f"message {event.id} of topic {event.topic}"
            found = _find(path, event.id)
            if found is None:
                yield f"{letter.channel} gave it up: it became {dead}, which is no more either."
            else:
                yield f"{letter.channel} gave it up: it is {dead} now."
                yield from _of_places(path, event.topic, event.id, found[2])


def _find(path: str, name: str) -> tuple[StoredTopic, Any, dict[str, str]] | None:
    """Return the topic of a message, its row, and where it is; None if the store has it not.

    Raises:
        StoreError: it cannot be read.
    """
    with _Finder(path) as finder:
        return finder.find(int(name, 16))


def _of_message(topic: StoredTopic, name: str, message: Any) -> Iterator[str]:
    """Yield what was put, and when."""
    _, timestamp, _, _, codec, data, _ = message
    made = "" if codec is None else f" ({codec})"
    yield f"message {name} of topic {topic.name}: {shown(data)}{made}"
    age = span((SYSTEM.time_ns() - timestamp) / SECOND)
    yield f"It was put at {date(timestamp / SECOND)}, {age} ago."


def _of_places(path: str, topic: str, name: str, places: dict[str, str]) -> Iterator[str]:
    """Yield where it is: as the owner of the file says, else as the file does."""
    request = {"call": "find", "topic": topic, "id": name}
    told: dict[str, dict[str, Any]] | None = None
    try:
        with attach(path, timeout=PATIENCE) as attached:
            told = attached.perform(request)
    except NSQLiteError:
        is_unknown = has_owner(full_path(path))
    if told is None:
        yield from (f"{_where(channel)} {state}." for channel, state in places.items())
        yield from [UNKNOWN] if is_unknown else []
        return
    for channel in {**told, **places}:
        state = f"is {_state(told[channel])}" if channel in told else GONE
        yield f"{_where(channel)} {state}."


def _where(channel: str) -> str:
    return f"In {channel} it" if channel else "In the topic, paused or without channels, it"


def _state(told: dict[str, Any]) -> str:
    """Return where the owner of a file says that a message is."""
    parts = [told["state"]]
    if told["client_id"] is not None:
        parts.append(f"with consumer {told['client_id']}")
    if told["due_in"] is not None:
        parts.append(f"for {span(told['due_in'])} more")
    parts.append(f"attempts {told['attempts']}")
    return ", ".join(parts)


class _Finder(Reader):
    """A file in which a message is looked for, in one transaction."""

    def find(self, identity: int) -> tuple[StoredTopic, Any, dict[str, str]] | None:
        """Return the topic of a message, its row, and where it is, by the names of channels."""
        with reading(self._path):
            self._connection.execute("BEGIN")
            partitions = self._partitions()
            topics = read_topics(self._connection)
            channels = read_channels(self._connection)
        for topic in topics:
            message = self._message(topic.number, partitions[topic.number], identity)
            if message is not None:
                mine = [channel for channel in channels if channel.topic == topic.number]
                known = known_as(topic, partitions[topic.number], {c.number: c.since for c in mine})
                return topic, message, dict(self._places(known, mine, message))
        return None

    def _message(self, topic: int, partition: int, identity: int) -> Any:
        values = {"topic": topic, "after": identity - 1, "last": identity}
        with reading(self._path):
            return self._connection.execute(FOUND[partition], values).fetchone()

    def _places(
        self, known: Known, channels: list[StoredChannel], message: Any
    ) -> Iterator[tuple[str, str]]:
        """Go through where a message is, or is no more, as the file has it."""
        identity, _, due, only, _, _, _ = message
        if only is None and identity > known.upto:
            yield "", f"is {_kept(0, due)}"
            return
        for channel in channels:
            if identity > channel.since and only in {None, channel.number}:
                with reading(self._path):
                    values = (identity, identity, channel.topic)
                    rows = self._connection.execute(COPIES, values).fetchall()
                copies = {row[0]: row[2:] for row in rows if row[1] is not None}
                attempts, again, gone = copies.get(channel.number, (0, None, 0))
                until = due if again is None else again
                yield channel.name, GONE if gone else f"is {_kept(attempts, until)}"


def _kept(attempts: int, due: int | None) -> str:
    """Return in what state a file has a message."""
    left = 0 if due is None else (due - SYSTEM.time_ns()) / SECOND
    state = f"deferred for {span(left)} more" if left > 0 else "ready"
    return f"{state}, attempts {attempts}"
