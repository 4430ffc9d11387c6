"""A recording keeps the last moments of a program in a file, and never disturbs it."""

import json
import logging
import os
import re
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import attrs
import pytest
from helpers import Call

import nsqlite
from nsqlite import Event, InvalidOption, Kind, RecordingError
from nsqlite.testing import ManualClock
from nsqlite.timeline import Excerpt, GivenUp, Recorder, Recording, read_recording
from nsqlite.timeline.recording import SMALLEST
from nsqlite.worker.deadletter import DeadLetter

FULL: Final = Event(
    kind=Kind.TIMED_OUT,
    time=1_700_000_000.25,
    topic="orders",
    channel="billing",
    id="18a6e5b294400000",
    body=b"order 1",
    attempts=2,
    client_id=3,
    due=1_700_000_000.5,
    count=4,
    consumer="till",
)
"""An event of which each field says something."""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return where a recording is to be."""
    return tmp_path / "jobs.rec"


def put(body: object) -> Event:
    return Event(Kind.PUBLISHED, 1.0, "orders", id="18a6e5b294400000", body=body)


def bodies(path: Path) -> list[Any]:
    return [event.body for event in read_recording(path).events]


def problem(path: Path) -> str:
    with pytest.raises(RecordingError) as info:
        read_recording(path)
    return info.value.problem


@contextmanager
def file_limit(size: int) -> Iterator[None]:
    """Let no file of this process grow beyond a size, as a full disk would."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


# What is kept


def test_events_are_read_as_they_were_told(path: Path) -> None:
    """What a broker tells is read as the same events, in the same order."""
    recorder = Recorder()
    with Recording(path) as recording:
        topic = nsqlite.Topic("orders", clock=ManualClock(), observers=[recorder, recording])
        consumer = nsqlite.Consumer(topic.channel("billing", max_depth=2), name="till")
        topic.put(b"order 1", delay=1)
        topic.put({"order": 2})
        consumer.get(timeout=0).req(delay=3)
        topic.close()
    assert recorder.events == read_recording(path).events
    assert 0 == read_recording(path).forgotten


def test_every_field_is_kept(path: Path) -> None:
    """An event is read with all that it said."""
    with Recording(path) as recording:
        recording(FULL)
    assert (FULL,) == read_recording(path).events


@pytest.mark.parametrize(
    "body", [b"tea", "tea", "é".encode(), b"\xff\0", None, 7, 1.5, True, [1, {"a": None}], ""]
)
def test_a_body_is_kept(path: Path, body: object) -> None:
    """Bytes, and what JSON can say, are read as they were."""
    with Recording(path) as recording:
        recording(put(body))
    assert [body] == bodies(path)


class Wrong:
    """A body whose own code fails."""

    def __repr__(self) -> str:
        raise LookupError


CIRCLE: Final[list[Any]] = []
CIRCLE.append(CIRCLE)


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"x" * 11, "b'xxxxxxxxxxx'... (11 bytes)"),
        ("x" * 11, "'xxxxxxxxxxx'... (11 characters)"),
        (list(range(9)), "[0, 1, 2, 3, 4, 5, 6, 7, 8]"),
        ({1, 2}, "{1, 2}"),
        (CIRCLE, "[[...]]"),
        (Wrong(), "<Wrong>"),
    ],
)
def test_an_excerpt_of_a_body_is_kept(path: Path, body: object, text: str) -> None:
    """Of what is too long, or no JSON, there is the beginning of its `repr`."""
    with Recording(path, body_size=10) as recording:
        recording(put(body))
    [found] = bodies(path)
    assert isinstance(found, Excerpt)
    assert (text, text) == (found.text, repr(found))


def test_a_dead_letter_is_kept(path: Path) -> None:
    """Of a dead letter, and one of a dead letter, there is what failed, where and why."""
    letter = DeadLetter(
        body={1},
        topic="orders",
        channel="billing",
        id="0a",
        attempts=2,
        error="x" * 300,
        timestamp=0,
    )
    with Recording(path) as recording:
        recording(put(letter))
        recording(put(attrs.evolve(letter, body=letter, error="\n", error_type="KeyError")))
    once, twice = bodies(path)
    assert isinstance(once, GivenUp)
    assert ("orders", "billing", "0a", 2) == (once.topic, once.channel, once.id, once.attempts)
    assert ("x" * 199 + "…", "{1}") == (once.error, once.body)
    assert (r"KeyError: \n", repr(once)[:199]) == (twice.error, twice.body[:199])
    line = path.read_bytes()
    path.write_bytes(line.replace(b'"orders", "channel"', b'5, "channel"'))
    assert [] == bodies(path)


def test_runs_are_told_apart(path: Path) -> None:
    """A file goes on where it ended, and tells which program has recorded what."""
    for number in (1, 2):
        with Recording(path) as recording:
            recording(put(number))
            [*_, run] = read_recording(path).runs
            assert not run.closed
    first, second = read_recording(path).runs
    assert (True, True) == (first.closed, second.closed)
    assert ([1], [2]) == ([e.body for e in first.events], [e.body for e in second.events])
    assert (os.getpid(), nsqlite.__version__) == (second.pid, second.version)
    assert first.begun < second.begun
    assert 0 == read_recording(path).forgotten


def test_a_closed_recording_takes_nothing_more(path: Path) -> None:
    """What happens after `close` is not recorded, and a second `close` does nothing."""
    recording = Recording(path)
    assert f"<Recording {path}>" == repr(recording)
    recording.close()
    size = path.stat().st_size
    recording.close()
    recording(put(1))
    assert size == path.stat().st_size
    assert f"<Recording {path} closed>" == repr(recording)


# Its bounds


def test_it_is_bounded(path: Path) -> None:
    """The newest events are kept in two halves of no more than the size, in one run."""
    with Recording(path, size=SMALLEST) as recording:
        for number in range(200):
            recording(put(number))
    sizes = [file.stat().st_size for file in (path, path.with_name("jobs.rec.1"))]
    assert all(size <= SMALLEST // 2 for size in sizes)
    kept = bodies(path)
    assert list(range(200 - len(kept), 200)) == kept
    assert 200 - len(kept) == read_recording(path).forgotten
    assert 1 == len(read_recording(path).runs)


def test_an_event_may_be_larger(path: Path) -> None:
    """An event that alone exceeds half of the size is kept; the one before with it."""
    with Recording(path, size=SMALLEST, body_size=5000) as recording:
        for number in range(3):
            recording(put(str(number) * 4000))
    assert ["1" * 4000, "2" * 4000] == bodies(path)


def test_it_goes_on_from_its_older_half(path: Path) -> None:
    """A program that was killed between the renaming and the new file leaves a recording."""
    with Recording(path) as recording:
        recording(put(1))
    path.rename(path.with_name("jobs.rec.1"))
    assert [1] == bodies(path)
    with Recording(path) as recording:
        recording(put(2))
    assert [1, 2] == bodies(path)
    assert 0 == read_recording(path).forgotten


def test_sizes_are_checked(path: Path) -> None:
    """A size out of its range is refused, and no file is made."""
    with pytest.raises(
        InvalidOption, match=r"^size must be a whole number of at least 4096, not 9$"
    ):
        Recording(path, size=9)
    text = "^body_size must be a whole number from 0 to 1048576, not -1$"
    with pytest.raises(InvalidOption, match=text):
        Recording(path, body_size=-1)
    assert not path.exists()


# What befalls the file


def test_a_full_disk_is_logged_once(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """What has no room is missing, which is logged once; the rest is there."""
    with Recording(path) as recording:
        recording(put(1))
        with file_limit(path.stat().st_size + 20):
            recording(put(2))
            recording(put(3))
        recording(put(4))
    assert [1, 4] == bodies(path)
    recorded = read_recording(path)
    assert (0, 2) == (recorded.forgotten, recorded.lost)
    assert ((1, 2),) == recorded.runs[0].lost
    [record] = caplog.records
    problem = "No space left on device"
    assert logging.WARNING == record.levelno
    assert f"recording {path}: {problem}; what happens until it can be written will be missing" == (
        record.getMessage()
    )


def test_a_file_that_cannot_be_begun_anew(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Where there is no room for the first lines of a new file, it is tried again."""
    with Recording(path) as recording:
        recording(put(1))
        path.unlink()
        with file_limit(3):
            recording(put(2))
        assert not path.exists()
        recording(put(3))
    assert [3] == bodies(path)
    assert 1 == len(caplog.records)


def test_a_removed_file_is_made_anew(path: Path) -> None:
    """What happens after the file was removed is recorded into a new one."""
    with Recording(path) as recording:
        recording(put(1))
        path.unlink()
        recording(put(2))
    assert [2] == bodies(path)
    assert 1 == read_recording(path).forgotten


def test_a_removed_folder(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Without its folder nothing is recorded, until it is there again."""
    path = tmp_path / "folder" / "jobs.rec"
    path.parent.mkdir()
    with Recording(path) as recording:
        path.unlink()
        path.parent.rmdir()
        recording(put(1))
        path.parent.mkdir()
        recording(put(2))
        path.unlink()
        path.parent.rmdir()
    path.parent.mkdir()
    with Recording(path) as recording:
        recording(put(3))
    size = path.stat().st_size
    with file_limit(size), pytest.raises(RecordingError, match=r"written: File too large$"):
        Recording(path)
    assert [3] == bodies(path)
    assert 1 == len(caplog.records)


def test_what_cannot_be_read_is_missing(path: Path) -> None:
    """The events of lines that were cut off, or are none of ours, are lost."""
    with Recording(path) as recording:
        recording(put(1))
        recording(put(2))
    lines = path.read_bytes().split(b"\n")
    others = [b"[1]", b'{"n": 2, "kind": "eaten", "time": 1, "topic": "a"}', b'{"n": 3, "ki']
    path.write_bytes(b"\n".join([*lines[:3], *others]))
    assert [1] == bodies(path)
    with Recording(path) as recording:
        recording(put(4))
    assert [1, 4] == bodies(path)
    recorded = read_recording(path)
    assert (0, [((1, 1),), ()]) == (recorded.forgotten, [run.lost for run in recorded.runs])


def test_where_events_are_missing(path: Path) -> None:
    """It is known before which events others are missing, also before the end of a closed run."""
    with Recording(path) as recording:
        for number in range(1, 5):
            recording(put(number))
    with Recording(path) as recording:
        for number in range(5, 8):
            recording(put(number))
    lines = path.read_bytes().split(b"\n")
    kept = [line for line in lines if not re.match(rb'{"n": [1367],', line)]
    path.write_bytes(b"\n".join(kept))
    recorded = read_recording(path)
    assert [2, 4, 5] == bodies(path)
    assert [((0, 1), (1, 1)), ((1, 2),)] == [run.lost for run in recorded.runs]
    assert (0, 5 - 1) == (recorded.forgotten, recorded.lost)


def test_events_that_are_missing_at_the_end_of_a_run(path: Path) -> None:
    """The end of a closed run tells how many are missing before it, and the next goes on there."""
    with Recording(path) as recording:
        recording(put(1))
        with file_limit(path.stat().st_size + 20):
            recording(put(2))
            recording(put(3))
    with Recording(path) as recording:
        recording(put(4))
    recorded = read_recording(path)
    assert [1, 4] == bodies(path)
    assert [((1, 2),), ()] == [run.lost for run in recorded.runs]
    assert '"n": 4' in path.read_text("utf-8")


def test_a_file_that_is_begun_anew_while_it_is_read(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who reads while one file takes the other's place misses nothing in between."""
    exists = Path.exists
    with Recording(path, size=SMALLEST) as recording:
        numbers = iter(range(1000))

        def fill() -> None:
            """Write until the file is begun anew."""
            before = path.stat().st_ino
            while path.stat().st_ino == before:
                recording(put(next(numbers)))

        def hook(where: Path) -> bool:
            """Have that happen once between the two reads."""
            if where == path:
                monkeypatch.undo()
                fill()
            return exists(where)

        fill()
        monkeypatch.setattr(Path, "exists", hook)
        recorded = read_recording(path)
        assert exists is Path.exists
        last = next(numbers) - 1
    assert (0, last) == (recorded.lost, recorded.events[-1].body)


def test_events_that_an_older_nsqlite_wrote(path: Path) -> None:
    """Where no line tells the number to come, what is before the first event is not kept."""
    with Recording(path) as recording:
        for number in range(1, 5):
            recording(put(number))
    with Recording(path) as recording:
        recording(put(5))
    text = re.sub(r', "next": \d+', "", path.read_text("utf-8"))
    lines = [line for line in text.split("\n") if not re.match('{"n": [124],', line)]
    path.write_text("\n".join(lines), "utf-8")
    recorded = read_recording(path)
    assert [3, 5] == bodies(path)
    assert (2, [((1, 1),), ()]) == (recorded.forgotten, [run.lost for run in recorded.runs])


def test_an_event_within_an_event(path: Path) -> None:
    """What a signal handler causes while an event is written may be before it in the file."""
    with Recording(path) as recording:
        for number in range(1, 4):
            recording(put(number))
    head, run, *events, end = path.read_bytes().split(b"\n")
    path.write_bytes(b"\n".join([head, run, events[1], events[0], events[2], end]))
    assert ([1, 2, 3], 0) == (bodies(path), read_recording(path).lost)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("n", "7"),
        ("n", None),
        ("kind", "sung"),
        ("kind", []),
        ("time", "now"),
        ("time", float("nan")),
        ("time", 10**400),
        ("topic", ""),
        ("topic", 5),
        ("topic", "\ud800"),
        ("channel", {}),
        ("id", None),
        ("id", 5),
        ("body", 5),
        ("body", "\ud800"),
        ("body_base64", "?"),
        ("attempts", "two"),
        ("client_id", 1.5),
        ("due", "later"),
        ("due", -1e300),
        ("count", -1),
        ("consumer", 5),
    ],
)
def test_an_event_with_a_wrong_field_is_missing(path: Path, field: str, value: object) -> None:
    """A line whose fields are not those of an event counts as gone, whatever is in it."""
    line = {"n": 2, "kind": "published", "time": 5.0, "topic": "orders", "id": "0a", field: value}
    if value is None:
        del line[field]
    with Recording(path) as recording:
        recording(Event(Kind.CREATED, 1.0, "orders"))
        with path.open("a") as file:
            file.write(f"\n{json.dumps(line)}")
        recording(Event(Kind.DELETED, 9.0, "orders"))
    assert ["created", "deleted"] == [str(event.kind) for event in read_recording(path).events]
    lines = path.read_bytes().split(b"\n")
    path.write_bytes(b"\n".join(lines[:-2]))  # that line is now the last one
    with Recording(path) as recording:
        recording(Event(Kind.CREATED, 1.0, "mails"))
    assert "mails" == read_recording(path).events[-1].topic


@pytest.mark.parametrize("line", ['{"run": 5}', '{"run": [], "time": 1, "nsqlite": "1"}'])
def test_a_run_with_a_wrong_field_is_none(path: Path, line: str) -> None:
    """A line that is not that of a run begins none; its numbers may go back."""
    with Recording(path) as recording:
        recording(Event(Kind.CREATED, 1.0, "orders"))
        with path.open("a") as file:
            file.write(f'\n{line}\n{{"n": 0, "kind": "deleted", "time": 1.0, "topic": "orders"}}')
    recorded = read_recording(path)
    assert [2] == [len(run.events) for run in recorded.runs]
    assert 0 == recorded.forgotten


def test_events_without_a_run(path: Path) -> None:
    """Events before which no run is told are left out."""
    path.write_text('{"nsqlite": "recording", "version": 1}\n{"n": 1, "kind": "due"}\n', "utf-8")
    assert ((), 0) == (read_recording(path).runs, read_recording(path).forgotten)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"tea", "it is no recording of nsqlite"),
        (b"SQLite format 3\0" * 100, "it is no recording of nsqlite"),
        (b'{"nsqlite": 1}\n', "it is no recording of nsqlite"),
        (
            b'{"nsqlite": "recording", "version": 2}\n',
            "a later nsqlite wrote it (version 2; this one knows 1)",
        ),
    ],
)
def test_a_foreign_file_is_left_alone(path: Path, content: bytes, text: str) -> None:
    """What is no recording is neither read nor written."""
    path.write_bytes(content)
    assert text == problem(path)
    with pytest.raises(RecordingError) as info:
        Recording(path)
    assert f"recording {path}: {text}" == str(info.value)
    assert content == path.read_bytes()


def test_an_empty_file(path: Path) -> None:
    """A file without anything cannot be read, and can be recorded into."""
    path.touch()
    assert "it is empty: nothing was recorded" == problem(path)
    with Recording(path) as recording:
        recording(put(1))
    assert [1] == bodies(path)


def test_what_is_no_file(tmp_path: Path) -> None:
    """A file that is not there, or is none, is told in one line."""
    assert "there is no such file" == problem(tmp_path / "nothing")
    assert "it cannot be read: Is a directory" == problem(tmp_path)
    assert "it is no file" == problem(Path(os.devnull))
    text = f"recording {tmp_path / 'a' / 'b'}: it cannot be written: No such file or directory"
    with pytest.raises(RecordingError, match=text):
        Recording(tmp_path / "a" / "b")


# Other threads and processes


def test_threads_write_whole_lines(path: Path) -> None:
    """Events of several threads are all there, each whole."""
    with Recording(path) as recording:

        def write() -> None:
            for number in range(100):
                recording(put(number))

        threads = [threading.Thread(target=write) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted([*range(100)] * 4) == sorted(bodies(path))
    assert 0 == read_recording(path).forgotten


def test_two_recordings_of_one_file(path: Path, tmp_path: Path) -> None:
    """A second recording of one file is refused, by whatever name, until the first is closed."""
    other = tmp_path / "other.rec"
    other.symlink_to(path)
    with Recording(path):
        with pytest.raises(RecordingError) as info:
            Recording(other)
        assert f"recording {other}: this process is recording into it already" == str(info.value)
    with Recording(other) as recording:
        recording(put(1))
    assert 2 == len(read_recording(path).runs)


def test_a_message_may_be_handled_before_it_is_recorded(path: Path) -> None:
    """Another thread may have a message, and its get return, before the file has the put."""
    found: list[object] = []

    def slow(event: Event) -> None:
        if event.kind == Kind.PUBLISHED:
            found.append(Call(lambda: consumer.get(timeout=0).body).result())
            found.extend(bodies(path)[-1:])

    with Recording(path) as recording:
        topic = nsqlite.Topic[str]("orders", observers=[slow, recording])
        consumer = nsqlite.Consumer(topic.channel("billing"))
        topic.put("tea")
    assert ["tea", None] == found
    assert ["published", "delivered"] == [str(e.kind) for e in read_recording(path).events[-2:]]


CHILD: Final = """
import os, signal, sys
import nsqlite
from nsqlite.timeline import Recording

topic = nsqlite.Topic("orders", observers=[Recording(sys.argv[1])])
topic.put(b"the last words")
print("ready", flush=True)
sys.stdin.readline()
"""


def test_a_killed_process_has_recorded_all(path: Path) -> None:
    """After `kill -9` everything is there; while it ran, no other process could record there."""
    environment = {**os.environ, "PYTHONPATH": str(Path(nsqlite.__file__).parent.parent)}
    with subprocess.Popen(  # noqa: S603 - our own interpreter
        [sys.executable, "-c", CHILD, path],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert b"ready\n" == process.stdout.readline()
        text = f"recording {path}: it cannot be written: another process is recording into it"
        with pytest.raises(RecordingError) as info:
            Recording(path)
        process.send_signal(signal.SIGKILL)
    assert text == str(info.value)
    [run] = read_recording(path).runs
    assert (process.pid, False) == (run.pid, run.closed)
    assert b"the last words" == run.events[-1].body
    with Recording(path) as recording:
        recording(put(1))
    assert [process.pid, os.getpid()] == [run.pid for run in read_recording(path).runs]


def test_the_child_of_a_fork_records_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a process with another number neither events nor the end are written."""
    recording = Recording(path)
    recording(put(1))
    with monkeypatch.context() as child:
        child.setattr(os, "getpid", lambda: 1)
        recording(put(2))
        recording.close()
    [run] = read_recording(path).runs
    assert ([1], False) == (bodies(path), run.closed)
