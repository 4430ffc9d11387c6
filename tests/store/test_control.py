"""The owner's end of a control socket: who may ask, what is answered, and its end."""

import errno
import logging
import os
import socket
import stat
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from helpers import PATIENCE, Call

import nsqlite
from nsqlite.store import control, controllines, tail
from nsqlite.store.attach import attach
from nsqlite.store.codec import Coder
from nsqlite.store.control import Control, listener, too_long
from nsqlite.store.controllines import JSONLines, address
from nsqlite.store.database import Database
from nsqlite.store.operations import Operations
from nsqlite.testing import MemoryStore
from store.processes import in_child, needs_fork


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return where a store's file is to be."""
    return tmp_path / "jobs.db"


@pytest.fixture
def broker(path: Path) -> Iterator[nsqlite.Broker]:
    """Own a file, and listen."""
    with nsqlite.Broker(store=nsqlite.SQLite(path, control=True)) as broker:
        broker.topic("orders").channel("billing")
        yield broker


def connected(path: Path) -> JSONLines:
    """Connect as a process of this user does, and read the greeting."""
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(PATIENCE)
    connection.connect(address(str(path)))
    line = JSONLines(connection)
    greeting = line.receive()
    assert {"nsqlite": "control", "version": 1, "pid": os.getpid()} == greeting
    return line


def threads() -> list[str]:
    return [
        thread.name for thread in threading.enumerate() if thread.name.startswith("nsqlite control")
    ]


@pytest.mark.usefixtures("broker")
def test_the_socket_is_its_users_alone(path: Path) -> None:
    """It is a socket beside the file, with mode 0600, as long as the file is open."""
    mode = Path(address(str(path))).stat().st_mode
    assert (True, 0o600) == (stat.S_ISSOCK(mode), stat.S_IMODE(mode))


def test_it_is_gone_with_the_owner(path: Path, broker: nsqlite.Broker) -> None:
    """After `close` there is neither the socket nor a thread; a second close does nothing."""
    with connected(path):
        assert len(threads()) == 2
        broker.close()
        broker.close()
        assert not threads()
    assert [path] == list(path.parent.iterdir())


def test_without_control_there_is_no_socket(path: Path) -> None:
    """Nobody listens who was not told to."""
    with nsqlite.Broker(store=nsqlite.SQLite(path)):
        assert not Path(address(str(path))).exists()
        assert not threads()
    with nsqlite.Broker(store=MemoryStore()):
        assert not threads()


def test_requests_are_answered_in_their_order(path: Path, broker: nsqlite.Broker) -> None:
    """Also if several are sent before the first answer is read."""
    with connected(path) as line:
        for number in range(3):
            told = [{"body": str(number)}]
            line.send({"call": "put", "topic": "orders", "bodies": told})
        answers = [line.receive() for _ in range(3)]
    ids = [answer["result"][0] for answer in answers if answer is not None]
    assert ids == [info.id for info in broker.topic("orders").channel("billing").peek()]


def test_refusals_are_answered(path: Path, broker: nsqlite.Broker) -> None:
    """And the connection goes on."""
    assert broker.topics
    with connected(path) as line:
        line.send({"call": "pause", "topic": "tea"})
        line.send({"call": "stats"})
        first, second = line.receive(), line.receive()
    assert first == {"error": {"kind": "InvalidOption", "facts": ["topic", "tea", "one of orders"]}}
    assert second is not None
    assert "result" in second


def test_a_failure_of_ours_is_answered_and_logged(
    path: Path,
    broker: nsqlite.Broker,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It ends no thread."""

    def fail() -> None:
        raise LookupError("tea")

    monkeypatch.setattr(broker, "stats", fail, raising=False)
    with attach(path) as attached:
        with pytest.raises(nsqlite.StoreError, match="its owner has failed: LookupError: tea"):
            attached.stats()
        attached.topic("orders").pause()
    assert "a request has failed" in caplog.text


@pytest.mark.usefixtures("broker")
def test_garbage_ends_the_connection(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It is logged, and others are served."""
    with connected(path) as line:
        line._connection.sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert line.receive() is None
    assert "a connection was ended: a line is no JSON" in caplog.text
    with connected(path) as line:
        line.send({"call": "stats"})
        assert line.receive() is not None


@pytest.mark.usefixtures("broker")
def test_another_users_process_is_refused(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It gets no word."""
    monkeypatch.setattr(controllines, "peer_uid", lambda _connection: os.geteuid() + 1)
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(PATIENCE)
        connection.connect(address(str(path)))
        assert not connection.recv(100)
    assert "a connection was refused: the process at its other end" in caplog.text


def test_a_system_without_room_for_a_connection(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Too many open files, or threads: it is logged, and the next connection is taken."""
    monkeypatch.setattr(control, "GRACE", 0.01)
    broker = nsqlite.Broker(store=nsqlite.SQLite(path, control=True))
    database: Any = broker._persistence
    real = database._control._listener
    fails = [OSError(errno.EMFILE, "Too many open files")]

    class Failing:
        """A listener that fails once."""

        def fileno(self) -> int:
            return int(real.fileno())

        def accept(self) -> Any:
            if fails:
                raise fails.pop()
            return real.accept()

        def close(self) -> None:
            real.close()

    database._control._listener = Failing()
    with connected(path):
        assert "a connection cannot be accepted" in caplog.text
    started = threading.Thread.start

    def start(_thread: threading.Thread) -> None:
        monkeypatch.setattr(threading.Thread, "start", started)
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(PATIENCE)
        connection.connect(address(str(path)))
        assert not connection.recv(100)
    assert "a connection was refused: can't start new thread" in caplog.text
    with connected(path):
        pass
    broker.close()


def test_what_a_killed_owner_has_left_is_replaced(path: Path) -> None:
    """A socket that nobody listens on; but no file of another kind."""
    left = listener(str(path), address(str(path)))
    left.close()
    assert Path(address(str(path))).exists()
    with nsqlite.Broker(store=nsqlite.SQLite(path, control=True)), connected(path):
        pass
    Path(address(str(path))).write_text("mine", "utf-8")
    with pytest.raises(nsqlite.StoreError, match=r"jobs.db-control is there and is no socket"):
        nsqlite.Broker(store=nsqlite.SQLite(path, control=True))
    assert "mine" == Path(address(str(path))).read_text("utf-8")
    nsqlite.Broker(store=nsqlite.SQLite(path)).close()  # it was closed, and nothing is locked


def test_a_path_that_is_too_long_for_a_socket(tmp_path: Path) -> None:
    """It is told of with its length."""
    path = tmp_path / ("x" * 120)
    with pytest.raises(nsqlite.StoreError, match=r"has \d+ bytes, and the system takes about 100"):
        nsqlite.Broker(store=nsqlite.SQLite(path, control=True))
    assert "has 3 bytes" in too_long("tea")
    with pytest.raises(nsqlite.NoOwner, match="cannot be used: AF_UNIX path too long"):
        attach(path).stats()


def test_a_socket_that_cannot_be_made(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the system refuses is told in words; a signal leaves no descriptor open."""

    def fail(_path: Path, _mode: int) -> None:
        raise failure

    failure: BaseException = PermissionError(errno.EACCES, "Permission denied")
    monkeypatch.setattr(Path, "chmod", fail)
    with pytest.raises(nsqlite.StoreError, match="-control cannot be made: permission"):
        listener(str(path), address(str(path)))
    failure = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        nsqlite.Broker(store=nsqlite.SQLite(path, control=True))


def test_the_option_is_checked(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is a bool; where there are no such sockets it says so."""
    with pytest.raises(nsqlite.InvalidOption, match="control must be True or False, not 1"):
        nsqlite.SQLite(path, control=1)  # type: ignore[arg-type]
    monkeypatch.setattr(controllines, "has_sockets", lambda: False)
    with pytest.raises(nsqlite.InvalidOption, match="this system has no unix sockets"):
        nsqlite.SQLite(path, control=True)
    nsqlite.SQLite(path, control=False)


def test_a_waiting_put_is_answered_when_the_owner_closes(
    path: Path, broker: nsqlite.Broker
) -> None:
    """As that nothing was done."""
    topic = broker.topic("full")
    topic.channel("small", max_depth=1, when_full="wait")
    waits = threading.Event()
    topic.observe(lambda _event: waits.set(), kinds=["waiting"])
    topic.put(b"tea")
    with attach(path) as attached:
        call = Call(lambda: attached.topic("full").put(b"milk"))
        assert waits.wait(PATIENCE)
        broker.close()
        problem = call.result()
    assert type(problem) is nsqlite.NoOwner
    assert "its owner is closing it" in str(problem)


def test_a_client_that_reads_nothing_holds_no_close_up(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After some time its connection is ended, whatever is not read."""
    monkeypatch.setattr(control, "GRACE", 0.01)
    broker = nsqlite.Broker(store=nsqlite.SQLite(path, control=True))
    topic = broker.topic("orders")
    with connected(path) as line:
        line.send({"call": "tail"})
        assert {"result": None} == line.receive()
        for _ in range(20):
            topic.put(b"x" * 100_000)
        broker.close()
    assert not threads()


def test_a_slow_reader_misses_events(
    path: Path, broker: nsqlite.Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """How many, is told; the program does not wait for it."""
    monkeypatch.setattr(tail, "UNREAD", 2)
    goes_on = threading.Event()
    first = threading.Event()
    told = Control._told

    def wait(of: Control, event: nsqlite.Event) -> dict[str, Any]:
        first.set()
        assert goes_on.wait(PATIENCE)
        return told(of, event)

    monkeypatch.setattr(Control, "_told", wait)
    with connected(path) as line:
        line.send({"call": "tail", "kinds": ["published"], "topic": "orders"})
        assert {"result": None} == line.receive()
        topic = broker.topic("orders")
        topic.put(b"0")
        assert first.wait(PATIENCE)
        topic.put_many([b"1", b"2"])
        for _ in range(4):
            topic.put(b"more")
        goes_on.set()
        lines = [line.receive() for _ in range(4)]
    assert [4] == [one["missed"] for one in lines if one is not None and "missed" in one]
    assert lines[3] == {"missed": 4}


def test_a_tail_whose_reader_is_gone_ends(path: Path, broker: nsqlite.Broker) -> None:
    """At once, though nothing happens."""
    before = len(broker._observers)
    with connected(path) as line:
        line.send({"call": "tail", "topic": "orders"})
        assert {"result": None} == line.receive()
        assert before + 1 == len(broker._observers)
        names = [thread for thread in threading.enumerate() if thread.name in threads()]
    for thread in names:
        if thread is not listening(broker):
            thread.join(PATIENCE)
    assert (before, 1) == (len(broker._observers), len(threads()))


def listening(broker: nsqlite.Broker) -> threading.Thread:
    database: Any = broker._persistence
    thread: threading.Thread = database._control._thread
    return thread


def test_a_reader_of_events_has_nothing_more_to_say(path: Path, broker: nsqlite.Broker) -> None:
    """What it asks is not answered, and garbage ends it."""
    assert broker.topics
    with connected(path) as line:
        line.send({"call": "tail"})
        assert {"result": None} == line.receive()
        line.send({"call": "ping"})
        line._connection.sendall(b"tea\n")
        assert {"end": True} == line.receive()
        assert line.receive() is None


@pytest.mark.parametrize(
    ("request_", "text"),
    [
        ({"topic": "a b"}, "topic name 'a b'"),
        ({"topic": ["orders"]}, "topic name"),
        ({"kinds": ["x"]}, "kind of event"),
    ],
)
def test_what_cannot_be_followed(
    path: Path, broker: nsqlite.Broker, request_: dict[str, Any], text: str
) -> None:
    """It is answered as any other request."""
    assert broker.topics
    with connected(path) as line:
        line.send({"call": "tail", **request_})
        answer = line.receive()
        assert answer is not None
        assert text in str(controllines.error_of(answer["error"], "jobs.db"))


def test_another_owners_socket_is_left_alone(path: Path) -> None:
    """As where the file was removed, and somebody has made another."""
    first = nsqlite.Broker(store=nsqlite.SQLite(path, control=True))
    for one in path.parent.iterdir():
        one.unlink()
    with nsqlite.Broker(store=nsqlite.SQLite(path, control=True)) as second:
        with suppress(nsqlite.StoreError):
            first.close(force=True)
        with attach(path) as attached:
            attached.topic("orders").put(b"tea")
        assert 1 == second.topic("orders").depth


def test_a_signal_as_the_socket_goes(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The broker can be closed after that."""
    broker = nsqlite.Broker(store=nsqlite.SQLite(path, control=True))
    broker.topic("orders").put(b"tea")

    def interrupt(_path: Path) -> None:
        monkeypatch.undo()
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "unlink", interrupt)
    with pytest.raises(KeyboardInterrupt):
        broker.close()
    broker.close()
    assert not threads()
    assert [path] == list(path.parent.iterdir())


def test_no_thread_to_listen_with(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The broker is not made, and nothing stays open."""
    start = threading.Thread.start

    def fail(thread: threading.Thread) -> None:
        if "control" in thread.name:
            raise RuntimeError("can't start new thread")
        start(thread)

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", fail)
        with pytest.raises(RuntimeError, match="can't start"):
            nsqlite.Broker(store=nsqlite.SQLite(path, control=True))
    nsqlite.Broker(store=nsqlite.SQLite(path, control=True)).close()


@pytest.mark.parametrize("call", ["pause", "empty"])
def test_what_comes_as_the_owner_closes(
    path: Path, broker: nsqlite.Broker, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """It was not done; or a part of it may be. A topic that is closed alone is told of as that."""

    def closed(_topic: Any) -> None:
        raise nsqlite.Closed("topic 'orders'")

    kind, text = {
        "pause": (nsqlite.NoOwner, "its owner is closing it"),
        "empty": (nsqlite.Unanswered, "a part may be done"),
    }[call]
    monkeypatch.setattr(nsqlite.Topic, call, closed)
    with attach(path) as attached:
        with pytest.raises(nsqlite.Closed, match="topic 'orders' is closed"):
            getattr(attached.topic("orders"), call)()
        monkeypatch.setattr(broker, "_closed", True)
        with pytest.raises(kind, match=text):
            getattr(attached.topic("orders"), call)()
        monkeypatch.setattr(broker, "_closed", False)


def test_a_clock_that_jumps_does_not_wait_for_it(path: Path) -> None:
    """Its threads have nothing to do unless they are asked."""
    clock = nsqlite.testing.ManualClock(autojump=True, patience=1000)
    store = nsqlite.SQLite(path, control=True)
    with nsqlite.Broker(clock=clock, store=store) as broker, connected(path) as line:
        line.send({"call": "ping"})
        assert {"result": None} == line.receive()
        consumer = nsqlite.Consumer(broker.topic("orders").channel("billing"))
        with pytest.raises(nsqlite.Empty):
            consumer.get(timeout=3600)
        assert 1_700_003_600 == clock.time()


@pytest.mark.nsqlite(leaks=False)  # it keeps such a broker
def test_a_forgotten_broker_listens_no_more(path: Path) -> None:
    """Its socket does not keep it."""
    broker = nsqlite.Broker(store=nsqlite.SQLite(path, control=True))
    database: Any = broker._persistence
    with attach(path) as attached:
        attached.connect()
        with pytest.warns(ResourceWarning, match="was forgotten"):
            del broker
        with pytest.raises(nsqlite.NoOwner, match="closing it"):
            database._known_broker(lambda: None)
        database.close()
        with pytest.raises(nsqlite.NoOwner):
            attached.stats()


@needs_fork
def test_the_child_of_a_fork_leaves_the_socket_to_its_parent(
    path: Path, broker: nsqlite.Broker
) -> None:
    """Its end of each connection is closed; the parent's goes on."""
    with attach(path) as attached:
        attached.connect()

        def child() -> None:
            database: Any = broker._persistence
            assert database._control._listener.fileno() == -1
            with pytest.raises(nsqlite.StoreInUse):
                broker.topic("orders").put(b"tea")
            assert attached.topic("orders").put(b"from the child")  # the parent answers

        in_child(child)
        assert 1 == broker.topic("orders").channel("billing").depth
        attached.topic("orders").put(b"from the parent")


def test_what_a_child_lets_go_of(path: Path) -> None:
    """Every descriptor is closed, and nothing ends for the parent."""
    made = Control(str(path), Operations(nsqlite.Broker, Coder(None)))
    mine, other = socket.socketpair()
    shared = mine.dup()  # as the parent has it
    connection = control._Connection(made, JSONLines(mine))
    made._connections[connection] = None
    made.abandon()
    assert [-1] * 4 == [one.fileno() for one in (made._listener, made._waker, made._woken, mine)]
    with shared, other:
        shared.sendall(b"on")
        assert b"on" == other.recv(10)


def test_a_database_lets_go_of_it_in_a_child() -> None:
    """Of its socket, and of its storage."""
    asked: list[str] = []
    stub: Any = SimpleNamespace(
        journal=SimpleNamespace(over=None),
        where="jobs.db",
        _pid=1,
        _control=SimpleNamespace(abandon=lambda: asked.append("control")),
        _storage=SimpleNamespace(abandon=lambda: asked.append("storage")),
    )
    Database._abandon(stub)
    assert ["control", "storage"] == asked


def test_nothing_is_logged_in_a_plain_life(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Who connects and leaves is no news."""
    caplog.set_level(logging.DEBUG, "nsqlite")
    with nsqlite.Broker(store=nsqlite.SQLite(path, control=True)), attach(path) as attached:
        attached.stats()
    assert not caplog.records
