"""What an operator does to a file that is not in use, command by command."""

import io
import json
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from helpers import bodies

import nsqlite
from nsqlite.__main__ import main
from nsqlite.cli import operate
from nsqlite.cli.operate import SHOWN


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Make a file with two messages of a channel, one that waits, and a dead letter."""
    path = tmp_path / "jobs.db"
    with nsqlite.Broker(store=nsqlite.SQLite(path, codec="json")) as broker:
        orders, dead = broker.topic("orders"), broker.topic("dead")
        channel, letters = orders.channel("billing"), dead.channel("letters")
        assert letters.depth == 0
        orders.put(b"bad")

        def fail(_message: nsqlite.Message[Any]) -> None:
            raise LookupError("no such customer")

        retry = nsqlite.Retry(max_attempts=1)
        with nsqlite.Worker(
            channel, fail, retry=retry, dead_letter=dead, tracebacks="never"
        ) as worker:
            worker.join()
        orders.channel("audit").empty()
        orders.put_many([b"tea", {"cake": 1}])
        orders.put(b"\xff\0", delay=1000)
    return path


Result = tuple[int, list[str], str]


@pytest.fixture
def call(path: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    """Return what calls a command, and returns its status, its lines and what it complains of."""

    def run(command: str, *arguments: str) -> Result:
        try:
            status = main([command, str(path), *arguments])
        except SystemExit as ending:
            status = int(ending.code or 0)
        out, err = capsys.readouterr()
        return status, out.splitlines(), err.replace(str(path), "FILE")

    return run


def done(result: Result) -> list[str]:
    """Return the lines of a command that did what it was to do."""
    status, lines, complaint = result
    assert (0, "") == (status, complaint)
    return lines


def failed(result: Result) -> str:
    """Return the complaint of a command that could not."""
    status, lines, complaint = result
    assert (1, []) == (status, lines)
    return complaint.removeprefix("python -m nsqlite ").removesuffix("\n")


def test_messages_are_shown(call: Any) -> None:
    """`peek` shows what is ready and then what waits, by lines or as JSON."""
    lines = done(call("peek", "orders", "billing"))
    assert [["ready", "0", "b'tea'"], ["ready", "0", "b'{\"cake\":1}'"]] == [
        line.split()[1:] for line in lines[:2]
    ]
    assert lines[2].split()[1:4] == ["deferred", "0", "in"]
    assert lines[2].endswith("b'\\xff\\x00'")
    told = [json.loads(line) for line in done(call("peek", "orders", "billing", "--json"))]
    assert ["tea", '{"cake":1}', None] == [one.get("body") for one in told]
    assert [None, "json", None] == [one.get("codec") for one in told]
    assert "/wA=" == told[2]["body_base64"]
    assert {"id", "state", "attempts", "age", "due_in", "client_id", "body"} == told[0].keys()
    assert 1 == len(done(call("peek", "orders", "billing", "-n", "1")))
    assert "peek: n must be" in failed(call("peek", "orders", "billing", "-n", "-1"))


def test_dead_letters_are_shown(call: Any) -> None:
    """A dead letter shows where it failed, and how."""
    [line] = done(call("peek", "dead", "letters"))
    assert line.endswith("  orders:billing LookupError: no such customer b'bad'")
    [text] = done(call("peek", "dead", "letters", "--json"))
    told = json.loads(text)
    assert "bad" == told["body"]
    assert ("LookupError", "no such customer") == (
        told["letter"]["error_type"],
        told["letter"]["error"],
    )


def test_a_message_is_put(path: Path, call: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """`put` prints the id; the body is an argument, or stdin."""
    [first] = done(call("put", "orders", "milk"))
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"\xfe\n" + b"x" * 200)))
    [second] = done(call("put", "orders", "--delay", "50"))
    found = done(call("find", "orders", second))
    assert ["audit", "billing"] == sorted(line.split()[0] for line in found)
    assert found[0].endswith("...")
    assert SHOWN == len(found[0].partition("b'")[2]) + len("b'")
    with nsqlite.Broker(store=nsqlite.SQLite(path)) as broker:
        info = broker.topic("orders").channel("audit").find(first)
        assert info is not None
        assert b"milk" == info.body
    assert "put: the body is empty" in failed(call("put", "orders", ""))
    monkeypatch.setattr(sys, "stdin", None)
    assert "put: stdin is closed" == failed(call("put", "orders"))


@pytest.mark.parametrize("control", [True, False])
def test_a_json_body_is_put(path: Path, call: Any, control: bool) -> None:
    """As the program's own puts have it; what is no JSON is refused."""
    with ExitStack() as stack:
        store = nsqlite.SQLite(path, control=True, codec="json")
        if control:
            stack.enter_context(nsqlite.Broker(store=store))
        [name] = done(call("put", "orders", '{"milk": 2}', "--json"))
        assert "cannot be put into this store" in failed(call("put", "orders", "{", "--json"))
    with nsqlite.Broker(store=store) as broker:
        info = broker.topic("orders").channel("audit").find(name)
        assert info is not None
        assert {"milk": 2} == info.body


def test_stdin_that_cannot_be_read(call: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error of the system is told in a line."""

    class Broken:
        """A stdin that cannot be read."""

        @property
        def buffer(self) -> Any:
            raise OSError(5, "Input/output error")

    monkeypatch.setattr(sys, "stdin", Broken())
    assert "put: stdin cannot be read: Input/output error" == failed(call("put", "orders"))


def test_a_message_is_found_and_taken_out(path: Path, call: Any) -> None:
    """`find` tells where it is, `discard` takes it out of one channel."""
    name = json.loads(done(call("peek", "orders", "billing", "--json"))[0])["id"]
    told = [json.loads(line) for line in done(call("find", "orders", name, "--json"))]
    assert [("audit", "ready"), ("billing", "ready")] == sorted(
        (one["channel"], one["state"]) for one in told
    )
    assert [] == done(call("discard", "orders", "billing", name))
    text = f"channel orders:billing has no message {name} that is not in flight"
    assert f"discard: {text}" == failed(call("discard", "orders", "billing", name))
    assert 1 == len(done(call("find", "orders", name)))
    done(call("discard", "orders", "audit", name))
    assert f"find: topic 'orders' has no message {name}" == failed(call("find", "orders", name))
    assert "find: expected an id of 16 hex" in failed(call("find", "orders", "tea"))
    with nsqlite.Broker(store=nsqlite.SQLite(path, codec="json")) as broker:
        assert [{"cake": 1}] == bodies(broker.topic("orders").channel("billing"))


def test_what_a_topic_holds_is_found(call: Any, path: Path) -> None:
    """A message that no channel has yet is the topic's own."""
    with nsqlite.Broker(store=nsqlite.SQLite(path)) as broker:
        name = broker.topic("new").put(b"held")
    [line] = done(call("find", "new", name))
    assert ["-", name, "ready"] == line.split()[:3]


def test_letters_go_home(path: Path, call: Any) -> None:
    """`redrive` puts dead letters back, and says how many."""
    assert ["1 message"] == done(call("redrive", "dead", "letters"))
    assert ["0 messages"] == done(call("redrive", "dead", "letters"))
    with nsqlite.Broker(store=nsqlite.SQLite(path, codec="json")) as broker:
        assert b"bad" in bodies(broker.topic("orders").channel("billing"))
    problem = "a dead letter is a DeadLetter, not a bytes"
    assert f"redrive: {problem}" == failed(call("redrive", "orders", "audit"))


def test_channels_and_topics_are_steered(path: Path, call: Any) -> None:
    """They are paused, unpaused, emptied and deleted, also after a restart."""
    assert [] == done(call("pause", "orders", "billing")) == done(call("pause", "orders"))
    with nsqlite.Broker(store=nsqlite.SQLite(path)) as broker:
        orders = broker.topic("orders")
        assert (True, True) == (orders.paused, orders.channel("billing").paused)
    assert [] == done(call("unpause", "orders", "billing")) == done(call("unpause", "orders"))
    assert ["3 messages"] == done(call("empty", "orders", "billing"))
    assert ["0 messages"] == done(call("empty", "orders"))
    assert ["3 messages"] == done(call("delete", "orders", "audit"))
    assert ["0 messages"] == done(call("delete", "orders"))
    with nsqlite.Broker(store=nsqlite.SQLite(path)) as broker:
        assert ["dead"] == list(broker.topics)


def test_nothing_is_made_that_is_not_there(tmp_path: Path, path: Path, call: Any) -> None:
    """A file, topic or channel that is not there is told of, with those that are."""
    there = "topic must be one of dead, orders, not 'order'"
    assert f"pause: {there}" == failed(call("pause", "order"))
    assert f"put: {there}" == failed(call("put", "order", "milk"))
    text = "channel of topic 'orders' must be one of audit, billing, not 'bill'"
    assert f"peek: {text}" == failed(call("peek", "orders", "bill"))
    path.rename(tmp_path / "other.db")
    assert "empty: store FILE: there is no such file" == failed(call("empty", "orders"))
    assert ["other.db"] == [one.name for one in tmp_path.iterdir()]
    with nsqlite.Broker(store=nsqlite.SQLite(path)) as broker:
        broker.topic("bare")
    text = "channel of topic 'bare' must be one that is there, and there is none, not 'bill'"
    assert f"peek: {text}" == failed(call("peek", "bare", "bill"))


def test_what_the_store_refuses_is_told(call: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that is full is told of as for every command."""

    def fail(*_given: Any, **_more: Any) -> str:
        raise nsqlite.StoreFull("jobs.db", "the disk is full")

    monkeypatch.setattr(nsqlite.Topic, "put_many", fail)
    assert "put: store jobs.db: the disk is full" == failed(call("put", "orders", "milk"))


NOBODY = (
    "no process listens for it: open it with nsqlite.SQLite(path, control=True), or by"
    " `nsqlite run`"
)


def test_a_file_in_use_is_left_alone(
    path: Path, call: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who has it open is named, and how it could be asked."""
    monkeypatch.setattr(operate, "PATIENCE", 0.01)
    with nsqlite.Broker(store=nsqlite.SQLite(path)):
        complaint = failed(call("empty", "orders", "billing"))
    text = "it is in use by another broker of this process: close that first"
    text = f"{text} (after waiting 0.01 s)"
    assert f"empty: store FILE: {text}; it cannot be asked: {NOBODY}" == complaint
    assert "tail: store FILE: no process listens for it: open it with" in failed(call("tail"))


def test_what_is_missed_is_told(path: Path, call: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a line of its own."""
    told = [{"missed": 7}, {"line": "an event"}]
    monkeypatch.setattr(nsqlite.Attached, "events", lambda *_given: iter(told))
    assert ["7 events were missed", "an event"] == done(call("tail"))
    assert path.exists()


def test_an_owner_that_comes_as_the_command_does(
    path: Path, call: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is asked after all."""
    monkeypatch.setattr(operate, "PATIENCE", 0.01)
    asked: list[int] = []
    connect = nsqlite.Attached.connect

    def once(attached: nsqlite.Attached) -> None:
        asked.append(1)
        if len(asked) == 1:
            raise nsqlite.NoOwner("jobs.db", "not yet")
        connect(attached)

    monkeypatch.setattr(nsqlite.Attached, "connect", once)
    with nsqlite.Broker(store=nsqlite.SQLite(path, control=True)) as broker:
        assert [] == done(call("pause", "orders"))
        assert broker.topic("orders").paused


def test_its_owner_is_asked(path: Path, call: Any) -> None:
    """Where the file's owner listens each command is carried out by that."""
    store = nsqlite.SQLite(path, control=True, codec="json")
    with nsqlite.Broker(store=store) as broker:
        orders = broker.topic("orders")
        billing = orders.channel("billing")
        broker.topic("odd#ephemeral").channel("any").topic_name  # noqa: B018 - makes them
        broker.topic("odd#ephemeral").put({1, 2})
        assert 3 == len(done(call("peek", "orders", "billing")))
        [line] = done(call("peek", "odd#ephemeral", "any"))
        assert line.endswith("{1, 2}")
        [letter] = done(call("peek", "dead", "letters"))
        assert letter.endswith("  orders:billing LookupError: no such customer b'bad'")
        [name] = done(call("put", "orders", "milk"))
        found = billing.find(name)
        assert found is not None
        assert b"milk" == found.body
        assert 2 == len(done(call("find", "orders", name)))
        assert [] == done(call("discard", "orders", "billing", name))
        assert billing.find(name) is None
        assert ["1 message"] == done(call("redrive", "dead", "letters"))
        assert [] == done(call("pause", "orders", "billing"))
        assert billing.paused
        assert ["4 messages"] == done(call("empty", "orders", "billing"))
        there = "topic must be one of dead, odd#ephemeral, orders, not 'order'"
        assert f"put: {there}" == failed(call("put", "order", "milk"))
        assert "tail: kind of event must be one of" in failed(call("tail", "--kind", "x"))


def test_what_happens_is_followed(
    path: Path, call: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`tail` shows events of a topic, a channel, or kinds, until the owner closes the file."""
    broker = nsqlite.Broker(store=nsqlite.SQLite(path, control=True))
    said: list[str] = []

    def follow(text: str) -> None:
        said.append(text)
        if len(said) == 2:
            broker.close()

    monkeypatch.setattr("nsqlite.cli.commands.say", follow)
    observe = nsqlite.Broker.observe

    def put(home: nsqlite.Broker, *given: Any, **more: Any) -> Any:
        stop = observe(home, *given, **more)
        home.topic("dead").put(b"other")
        home.topic("orders").put(b"tea")
        home.topic("orders").put(b"milk")
        return stop

    monkeypatch.setattr(nsqlite.Broker, "observe", put)
    assert [] == done(call("tail", "orders", "--kind", "published", "--json"))
    assert ["tea", "milk"] == [json.loads(line)["body"] for line in said]
    assert "line" not in json.loads(said[0])
    assert not capsys.readouterr().out
