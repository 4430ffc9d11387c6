"""`import`: what comes back as it was, and what is refused without a trace."""

import contextlib
import io
import itertools
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from storefiles import change, counts, drained, fill, told_of, write

import nsqlite
from nsqlite import StoreError, StoreInUse
from nsqlite.cli.export import export
from nsqlite.cli.failure import CommandFailed
from nsqlite.cli.lines import MessageLine
from nsqlite.cli.load import BATCH, Loaded, load

HEADER: dict[str, Any] = {"nsqlite": 1}
TOPIC: dict[str, Any] = {"kind": "topic", "name": "orders"}
PAUSED: dict[str, Any] = {"kind": "topic", "name": "orders", "paused": True}
BILLING: dict[str, Any] = {"kind": "channel", "topic": "orders", "name": "billing"}
AUDIT: dict[str, Any] = {"kind": "channel", "topic": "orders", "name": "audit"}
END: dict[str, Any] = {"kind": "end"}


def message(number: int, *channels: str, topic: str = "orders", **more: Any) -> dict[str, Any]:
    """Return a message's line."""
    return {
        "kind": "message",
        "topic": topic,
        "id": f"{number:016x}",
        "timestamp": number,
        "body": str(number),
        "channels": [{"name": name, **more} for name in channels],
    }


def copied(path: Path, new: Path) -> Loaded:
    """Export a file and import it as another one."""
    out = path.with_suffix(".jsonl")
    export(str(path), str(out), wanted=False)
    return load(str(new), str(out), wanted=False)


def refusal(path: Path, *lines: dict[str, Any]) -> str:
    """Return why lines are refused."""
    source = write(path.with_suffix(".jsonl"), *lines)
    with pytest.raises(CommandFailed) as caught:
        load(str(path), str(source), wanted=False)
    source.unlink()
    return str(caught.value)


@contextmanager
def without_room() -> Iterator[None]:
    """Have a file that cannot become any larger."""
    connect: Callable[..., sqlite3.Connection] = sqlite3.connect

    def narrow(*arguments: Any, **options: Any) -> sqlite3.Connection:
        connection = connect(*arguments, **options)
        connection.execute("PRAGMA max_page_count = 60")
        return connection

    patch = pytest.MonkeyPatch()
    patch.setattr(sqlite3, "connect", narrow)
    try:
        yield
    finally:
        patch.undo()


def test_what_is_exported_comes_back(tmp_path: Path) -> None:
    """An imported file tells the same lines, counts the same and delivers the same messages."""
    path, new = tmp_path / "jobs.db", tmp_path / "new.db"
    fill(path)
    assert Loaded(4, 5, 12) == copied(path, new)
    assert told_of(path) == told_of(new)
    assert ["jobs.db", "jobs.jsonl", "new.db"] == sorted(one.name for one in tmp_path.iterdir())
    assert counts(path) == counts(new)
    assert told_of(path) == told_of(new)
    assert drained(path) == drained(new)


def test_ids_go_on_after_those_that_were_imported(tmp_path: Path) -> None:
    """What is put afterwards has a higher id than what was imported."""
    path = tmp_path / "jobs.db"
    source = write(tmp_path / "in", HEADER, TOPIC, message((1 << 62) + 5), END)
    load(str(path), str(source), wanted=None)
    with nsqlite.Broker(store=nsqlite.SQLite(path)) as broker:
        assert (1 << 62) + 5 < int(broker.topic("orders").put(b"tea"), 16)


def test_a_long_queue_comes_back(tmp_path: Path) -> None:
    """A hundred thousand messages come back, those of slow and quick channels as they were."""
    path, new = tmp_path / "jobs.db", tmp_path / "new.db"
    with nsqlite.Broker(store=nsqlite.SQLite(path)) as broker:
        orders = broker.topic("orders")
        orders.channel("slow")
        quick = nsqlite.Consumer(orders.channel("quick"))
        for _ in range(100):
            orders.put_many([b"tea"] * 1000)
        quick.fin_many(quick.get_many(60_000, timeout=1))
        quick.close()
        orders.channel("late")
        orders.put_many([b"jam"] * 10)
        held = broker.topic("held")
        held.put_many([b"eggs"] * 10)
    assert Loaded(2, 3, 100_020) == copied(path, new)
    export(str(new), str(tmp_path / "new.jsonl"), wanted=False)
    assert (tmp_path / "jobs.jsonl").read_bytes() == (tmp_path / "new.jsonl").read_bytes()
    found = counts(new)
    assert counts(path) == found
    assert (10, 0, False) == found["orders:late"]
    assert (100_010, 0, False) == found["orders:slow"]


def test_it_adds_to_a_file(tmp_path: Path) -> None:
    """A file that has other topics keeps them as they were, and gets what is imported."""
    path = tmp_path / "jobs.db"
    with nsqlite.Broker(store=nsqlite.SQLite(path)) as broker:
        broker.topic("old").channel("c")
        broker.topic("old").put(b"tea")
        broker.topic("gone").put_many([b"gone"] * 3000)
        broker.topic("gone").delete()
    before = told_of(path)
    source = write(tmp_path / "in", HEADER, TOPIC, BILLING, message(5, "billing"), END)
    assert Loaded(1, 1, 1) == load(str(path), str(source), wanted=None)
    assert before[:-1] == [line for line in told_of(path) if "orders" not in repr(line)][:-1]
    assert {"old": (0, False), "old:c": (1, 0, False), "orders": (0, False)} == {
        name: count for name, count in counts(path).items() if name != "orders:billing"
    }


def test_it_reads_stdin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without a file to read it reads stdin, and the bar counts its bytes."""
    path = tmp_path / "jobs.db"
    source = write(tmp_path / "in", HEADER, TOPIC, *(message(i) for i in range(1, 1500)), END)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(source.read_bytes())))
    assert Loaded(1, 0, 1499) == load(str(path), None, wanted=True)
    assert f"{source.stat().st_size:,} bytes" in capsys.readouterr().err
    assert {"orders": (1499, False)} == counts(path)


def test_it_reads_a_pipe(tmp_path: Path) -> None:
    """What has no size, like a pipe, is read as well."""
    reader, writer = os.pipe()
    source = write(tmp_path / "in", HEADER, TOPIC, message(1), END)
    os.write(writer, source.read_bytes())
    os.close(writer)
    with os.fdopen(reader) as pipe, pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdin", pipe)
        assert Loaded(1, 0, 1) == load(str(tmp_path / "jobs.db"), None, wanted=False)


def test_what_the_topic_holds(tmp_path: Path) -> None:
    """What has no channel goes to all of a topic that queues, and is held by one that does not."""
    path = tmp_path / "jobs.db"
    lines = [BILLING, AUDIT, message(1), message(2, "audit", due=1 << 62), {**message(3), "due": 7}]
    load(str(path), str(write(tmp_path / "in", HEADER, TOPIC, *lines, END)), wanted=None)
    assert {"orders:billing": (2, 0, False), "orders:audit": (2, 1, False)} == {
        name: count for name, count in counts(path).items() if ":" in name
    }
    other = tmp_path / "other.db"
    lines[3] = message(2, "audit")
    load(str(other), str(write(tmp_path / "in", HEADER, PAUSED, *lines, END)), wanted=None)
    found = counts(other)
    assert (2, True) == found["orders"]
    assert [(0, 0, False), (1, 0, False)] == [found[f"orders:{n}"] for n in ("billing", "audit")]
    assert [("", 1), ("audit", 2), ("", 3)] == [
        ("".join(held.name for held in line.channels or ()), line.id)
        for line in told_of(other)
        if isinstance(line, MessageLine)
    ]


def test_attempts_and_dues_are_each_channels_own(tmp_path: Path) -> None:
    """What differs between the channels of a message is kept for each."""
    path = tmp_path / "jobs.db"
    first = message(1)
    first["channels"] = [
        {"name": "audit", "attempts": 3, "due": 9},
        {"name": "billing", "attempts": 0, "due": 8},
    ]
    second = message(2, "audit", "billing", attempts=2, due=1 << 61)
    lines = [HEADER, TOPIC, AUDIT, BILLING, first, second, message(3, "audit"), END]
    load(str(path), str(write(tmp_path / "in", *lines)), wanted=None)
    new = tmp_path / "new.db"
    copied(path, new)
    assert told_of(path) == told_of(new)
    [one, two, three] = [line for line in told_of(path) if isinstance(line, MessageLine)]
    assert [(3, 9), (0, 8)] == [(held.attempts, held.due) for held in one.channels or ()]
    assert [(2, 1 << 61)] * 2 == [(held.attempts, held.due) for held in two.channels or ()]
    assert [("audit", 0)] == [(held.name, held.attempts) for held in three.channels or ()]


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (
            [],
            'line 1 is missing: the last one must be {"kind": "end"}, so the input was cut off',
        ),
        (
            [HEADER, TOPIC],
            'line 3 is missing: the last one must be {"kind": "end"}, so the input was cut off',
        ),
        ([TOPIC], 'line 1: the first line, and no other, must be {"nsqlite": 1}'),
        ([HEADER, HEADER], 'line 2: the first line, and no other, must be {"nsqlite": 1}'),
        ([HEADER, END, TOPIC], "line 3: nothing may follow the end line"),
        ([{"nsqlite": 2}], "line 1: nsqlite: this one reads format 1, and not 2"),
        (
            [HEADER, {"kind": "x"}],
            "line 2: kind must be one of topic, channel, message, end, not 'x'",
        ),
        ([HEADER, TOPIC, TOPIC], "line 3: topic orders was told of before"),
        ([HEADER, BILLING], "line 2: topic orders has no line of its own before this one"),
        ([HEADER, message(1)], "line 2: topic orders has no line of its own before this one"),
        (
            [HEADER, TOPIC, BILLING, BILLING],
            "line 4: channel billing of topic orders was told of before",
        ),
        (
            [HEADER, TOPIC, message(1), BILLING],
            "line 4: the channels of topic orders must come before its messages",
        ),
        ([HEADER, TOPIC, message(1, "billing")], "line 3: topic orders has no channel billing"),
        (
            [HEADER, TOPIC, message(2), message(1)],
            (
                "line 4: message 0000000000000001 must come before 0000000000000002: those of a"
                " topic are in the order of their ids, and none is there twice"
            ),
        ),
        (
            [HEADER, TOPIC, {"kind": "topic", "name": "t"}, message(1), message(1, topic="t")],
            "line 5: message 0000000000000001 is in another topic too, in line 4",
        ),
        (
            [HEADER, PAUSED, BILLING, AUDIT, message(1), message(2, "billing", "audit")],
            (
                "line 6: message 0000000000000002 comes after one that topic orders holds itself,"
                " so no more than one channel can hold it"
            ),
        ),
    ],
)
def test_what_is_wrong_is_told_with_its_line(
    lines: list[dict[str, Any]], expected: str, tmp_path: Path
) -> None:
    """A line that does not fit those before it is told, and no file is made."""
    path = tmp_path / "jobs.db"
    assert expected == refusal(path, *lines)
    assert [] == list(tmp_path.iterdir())


def test_late_failures_leave_no_file(tmp_path: Path) -> None:
    """Where much is imported and then a line is wrong, no file is left, nor anything beside it."""
    messages = [message(number) for number in range(1, 2 * BATCH + 10)]
    path = tmp_path / "jobs.db"
    assert refusal(path, HEADER, TOPIC, *messages, {}) == f"line {2 * BATCH + 12}: kind is missing"
    assert [] == list(tmp_path.iterdir())


def test_failures_leave_a_file_as_it_was(tmp_path: Path) -> None:
    """A file that was there before loses what was imported into it, and nothing else."""
    path = tmp_path / "jobs.db"
    fill(path)
    change(path, "UPDATE topic SET name = 'old' WHERE name = 'orders'")
    before = told_of(path)
    messages = [message(number) for number in range(1, 2 * BATCH + 10)]
    assert refusal(path, HEADER, TOPIC, *messages, {}) == f"line {2 * BATCH + 12}: kind is missing"
    assert before == told_of(path)
    source = write(tmp_path / "in", HEADER, TOPIC, *messages, END)
    assert Loaded(1, 0, 2 * BATCH + 9) == load(str(path), str(source), wanted=None)


def test_nothing_is_taken_back_before_anything_was_written(tmp_path: Path) -> None:
    """A first line that is wrong leaves a file that was there before as it was."""
    path = tmp_path / "jobs.db"
    fill(path)
    before = told_of(path)
    assert "line 1: kind is missing" == refusal(path, {})
    assert before == told_of(path)


def test_a_topic_that_is_there_is_refused(tmp_path: Path) -> None:
    """A topic of the same name is not mixed with what is imported."""
    path = tmp_path / "jobs.db"
    fill(path)
    text = "line 2: topic orders is in the file already: import into another file"
    assert text == refusal(path, HEADER, TOPIC)


def test_an_id_that_is_there_is_refused(tmp_path: Path) -> None:
    """An id that another topic of the file has is found, in the file or in what was imported."""
    path, out = tmp_path / "jobs.db", tmp_path / "out"
    fill(path)
    before = told_of(path)
    ids = [line.id for line in before if isinstance(line, MessageLine)]
    text = "message {:016x} is in another topic of the file already: import into another file"
    new = {"kind": "topic", "name": "new"}
    low, high = message(1, topic="new"), message(max(ids), topic="new")
    assert f"line 4: {text.format(max(ids))}" == refusal(path, HEADER, new, low, high, END)
    assert before == told_of(path)
    many = [message(number) for number in range(1, BATCH + 2)]
    lines = [HEADER, TOPIC, *many, new, message(7, topic="new"), END]
    assert f"line {BATCH + 5}: {text.format(7)}" == refusal(tmp_path / "other.db", *lines)
    assert not out.exists()


def test_what_was_deleted_can_be_imported_again(tmp_path: Path) -> None:
    """Nothing that is left of a deleted topic stands in the way of the same topic, imported."""
    path, out = tmp_path / "jobs.db", tmp_path / "out"
    fill(path)
    before = told_of(path)
    export(str(path), str(out), wanted=False)
    with nsqlite.Broker(store=nsqlite.SQLite(path, codec="json")) as broker:
        for topic in list(broker.topics.values()):
            topic.delete()
    assert Loaded(4, 5, 12) == load(str(path), str(out), wanted=None)
    assert before == told_of(path)


def test_a_file_in_use_is_refused(tmp_path: Path) -> None:
    """While somebody has the file nothing is imported into it."""
    path = tmp_path / "jobs.db"
    source = write(tmp_path / "in", HEADER, END)
    with (
        nsqlite.Broker(store=nsqlite.SQLite(path)),
        pytest.raises(StoreInUse, match="it is in use by another broker of this process"),
    ):
        load(str(path), str(source), wanted=None)


def test_what_cannot_be_read_is_told(tmp_path: Path) -> None:
    """An input that is not there is told in a line, and no file is made."""
    path = tmp_path / "jobs.db"
    with pytest.raises(CommandFailed) as caught:
        load(str(path), str(tmp_path / "none"), wanted=None)
    assert f"cannot read {tmp_path / 'none'}: No such file or directory" == str(caught.value)
    assert not path.exists()


def test_stdin_that_cannot_be_read_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error of stdin is told as one."""

    class Broken(io.BytesIO):
        def __next__(self) -> bytes:
            raise OSError(5, "Input/output error")

    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(Broken()))
    with pytest.raises(CommandFailed) as caught:
        load(str(tmp_path / "jobs.db"), None, wanted=None)
    assert "cannot read stdin: Input/output error" == str(caught.value)
    assert [] == list(tmp_path.iterdir())


def test_a_full_disk_leaves_nothing(tmp_path: Path) -> None:
    """Where the file cannot become larger, all is taken back."""
    path, old = tmp_path / "jobs.db", tmp_path / "old.db"
    fill(old)
    change(old, "UPDATE topic SET name = 'old' WHERE name = 'orders'")
    before = told_of(old)
    many = (message(number) for number in range(1, 20_000))
    source = str(write(tmp_path / "in", HEADER, TOPIC, *many, END))
    for file in (path, old):
        with without_room(), pytest.raises(nsqlite.StoreFull, match="the disk is full"):
            load(str(file), source, wanted=None)
    assert not path.exists()
    assert before == told_of(old)


def test_only_the_right_input_is_taken_over(tmp_path: Path) -> None:
    """What is taken over changes nothing that others have in the file, and keeps its numbers."""
    path = tmp_path / "jobs.db"
    fill(path)
    change(path, "CREATE TABLE mine (x)", "INSERT INTO mine VALUES (7)")
    change(path, "UPDATE topic SET name = 'old' WHERE name = 'orders'")
    inode = path.stat().st_ino
    source = write(tmp_path / "in", HEADER, TOPIC, BILLING, message(1, "billing"), END)
    load(str(path), str(source), wanted=False)
    assert inode == path.stat().st_ino
    with contextlib.closing(sqlite3.connect(path)) as connection:
        assert [(7,)] == connection.execute("SELECT x FROM mine").fetchall()
        for table in ("topic", "channel"):
            [numbers] = connection.execute(f"SELECT max({table}) FROM highest")  # noqa: S608 - ours
            assert numbers == connection.execute(f"SELECT max(number) FROM {table}").fetchone()  # noqa: S608 - ours


def test_a_file_behind_a_symlink_is_locked(tmp_path: Path) -> None:
    """A symlink leads to the file itself: one in use is refused, another one added to."""
    path, link = tmp_path / "jobs.db", tmp_path / "link.db"
    link.symlink_to(path.name)
    source = write(tmp_path / "in", HEADER, TOPIC, message(1), END)
    with nsqlite.Broker(store=nsqlite.SQLite(path)), pytest.raises(StoreInUse):
        load(str(link), str(source), wanted=False)
    load(str(link), str(source), wanted=False)
    assert {"orders": (1, False)} == counts(path)
    assert link.is_symlink()


def test_an_interrupt_takes_all_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who presses Ctrl-C finds nothing imported."""

    class Interrupted(io.BytesIO):
        lines = itertools.chain(
            write(tmp_path / "in", HEADER, TOPIC, *(message(i) for i in range(1, 1500)))
            .read_bytes()
            .splitlines()
        )

        def __next__(self) -> bytes:
            for line in self.lines:
                return line
            raise KeyboardInterrupt

    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(Interrupted()))
    path = tmp_path / "jobs.db"
    with pytest.raises(KeyboardInterrupt):
        load(str(path), None, wanted=None)
    assert ["in"] == [one.name for one in tmp_path.iterdir()]


def test_a_file_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    """A directory that is not there is told."""
    source = write(tmp_path / "in", HEADER, END)
    with pytest.raises(StoreError, match="cannot write beside it: its directory is not there"):
        load(str(tmp_path / "none" / "jobs.db"), str(source), wanted=None)


def test_a_closed_stdin_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the program was started without stdin, an import from it fails and makes no file."""
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(CommandFailed, match=r"^cannot read stdin: it is closed$"):
        load(str(tmp_path / "new.db"), None, wanted=False)
    assert [] == list(tmp_path.iterdir())


def test_a_name_that_no_file_can_have_is_told(tmp_path: Path) -> None:
    """A name that is too long is told of the file."""
    source = write(tmp_path / "in", {"nsqlite": 1})
    long = str(tmp_path / ("a" * 300))
    with pytest.raises(StoreError) as caught:
        load(long, str(source), wanted=False)
    reason = "the name is too long, with what is appended to it: shorten it"
    assert f"store {long}: cannot write beside it: {reason}" == str(caught.value)


COMMAND = (sys.executable, "-W", "error", "-m", "nsqlite", "import")

STOPPING = """
import sqlite3, sys
from nsqlite.__main__ import main

connect = sqlite3.connect
point, count, *arguments = sys.argv[1:]
left = int(count)

def reach(what):
    global left
    if what.startswith(point):
        left -= 1
        if not left:
            print("there", flush=True)
            sys.stdin.read()

def traced(*arguments, **options):
    connection = connect(*arguments, **options)
    connection.set_trace_callback(reach)
    return connection

sqlite3.connect = traced
sys.addaudithook(lambda event, _details: reach(event))
sys.exit(main(arguments))
"""
"""Runs a command and, where it has come to a statement of SQL or a call of the system, waits."""


def killed_at(point: str, count: int, path: Path, source: Path) -> bool:
    """Kill an import where it comes to something for so manieth a time; return whether it did."""
    with subprocess.Popen(  # noqa: S603 - our own interpreter
        [sys.executable, "-c", STOPPING, point, str(count), "import", str(path), "-i", str(source)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        is_there = process.stdout.readline() == "there\n"
        process.kill()
    return is_there


def many(topic: str = "orders") -> list[dict[str, Any]]:
    """Return lines of more than two batches."""
    told = {"kind": "topic", "name": topic}
    messages = [message(number, topic=topic) for number in range(1, 2 * BATCH + 10)]
    return [HEADER, told, *messages, END]


@pytest.mark.parametrize(
    ("point", "count"),
    [
        ("COMMIT", 1),
        ("COMMIT", 2),
        ("COMMIT", 3),
        ("PRAGMA journal_mode = DELETE", 1),
        ("os.link", 1),
        ("os.remove", 7),
    ],
)
def test_a_kill_leaves_no_new_file_or_all_of_it(tmp_path: Path, point: str, count: int) -> None:
    """An import into a new file that is killed leaves none, or a whole one; and can be repeated."""
    path = tmp_path / "jobs.db"
    source = write(tmp_path / "in", *many())
    assert killed_at(point, count, path, source)
    if path.exists():
        assert "os.remove" == point
    else:
        assert {"in", "jobs.db-partial"} <= {one.name for one in tmp_path.iterdir()}
        load(str(path), str(source), wanted=False)
        assert {"in", "jobs.db"} == {one.name for one in tmp_path.iterdir()}
    assert {"orders": (2 * BATCH + 9, False)} == counts(path)


@pytest.mark.parametrize(
    ("point", "count"),
    [
        ("COMMIT", 3),
        ("ATTACH", 1),
        ("INSERT INTO main.", 1),
        ("INSERT INTO main.", 3),
        ("UPDATE main.highest", 1),
    ],
)
def test_a_kill_leaves_a_file_as_it_was(tmp_path: Path, point: str, count: int) -> None:
    """An import that is killed before the last commit has changed nothing; and can be repeated."""
    path = tmp_path / "jobs.db"
    fill(path)
    before = told_of(path)
    source = write(tmp_path / "in", *many("new"))
    assert killed_at(point, count, path, source)
    assert before == told_of(path)
    assert Loaded(1, 0, 2 * BATCH + 9) == load(str(path), str(source), wanted=False)
    assert {"in", "jobs.db"} == {one.name for one in tmp_path.iterdir()}
    assert (2 * BATCH + 9, False) == counts(path)["new"]


def test_a_kill_after_the_commit_leaves_all(tmp_path: Path) -> None:
    """An import that is killed as it puts things away has added all."""
    path = tmp_path / "jobs.db"
    fill(path)
    source = write(tmp_path / "in", *many("new"))
    assert killed_at("os.remove", 7, path, source)
    assert (2 * BATCH + 9, False) == counts(path)["new"]


@pytest.mark.parametrize("is_new", [True, False])
@pytest.mark.parametrize(
    ("number", "status"),
    [(signal.SIGINT, 130), (signal.SIGTERM, -signal.SIGTERM), (signal.SIGHUP, -signal.SIGHUP)],
)
def test_a_signal_leaves_nothing(
    tmp_path: Path, number: signal.Signals, status: int, *, is_new: bool
) -> None:
    """A signal in the middle of the input leaves all as it was, and nothing beside it."""
    path = tmp_path / "jobs.db"
    if not is_new:
        fill(path)
    before = None if is_new else told_of(path)
    lines = write(tmp_path / "in", *many("new")[:-1]).read_bytes()
    with subprocess.Popen(  # noqa: S603 - our own interpreter
        [*COMMAND, str(path)], stdin=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdin is not None
        process.stdin.write(lines)  # more than a pipe takes, so it has read much of it
        process.stdin.flush()
        assert (tmp_path / "jobs.db-partial").exists()
        process.send_signal(number)
        process.stdin.close()  # if the signal came as it began to read, nothing else wakes it
        assert process.stderr is not None
        assert b"" == process.stderr.read()
    assert status == process.returncode
    assert [] == [one for one in tmp_path.iterdir() if one.name not in ("in", "jobs.db")]
    assert path.exists() is not is_new
    assert is_new or before == told_of(path)
