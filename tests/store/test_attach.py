"""The topics of a store that another process has open, and what can go wrong on the way there."""

import copy
import json
import os
import socket
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import nsqlite
from nsqlite.store import attach as attaching
from nsqlite.store import controllines
from nsqlite.store.attach import Attached
from nsqlite.store.control import listener
from nsqlite.store.controllines import address


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return where a store's file is to be."""
    return tmp_path / "jobs.db"


@pytest.fixture
def broker(path: Path) -> Iterator[nsqlite.Broker]:
    """Own a file, and listen."""
    store = nsqlite.SQLite(path, control=True, codec="json")
    with nsqlite.Broker(store=store) as broker:
        broker.topic("orders").channel("billing")
        yield broker


@pytest.fixture
def attached(path: Path) -> Iterator[Attached]:
    """Be attached to it."""
    with nsqlite.attach(path, codec="json") as attached:
        yield attached


def test_messages_are_put(broker: nsqlite.Broker, attached: Attached) -> None:
    """One, many, later; into a topic that is there or not; any body that the codec takes."""
    topic = attached.topic("orders")
    ids = [topic.put(b"tea"), *topic.put_many(["milk", {"cake": 1}])]
    late = topic.put("late", delay=timedelta(seconds=100))
    channel = broker.topic("orders").channel("billing")
    assert [*zip(ids, [b"tea", "milk", {"cake": 1}], strict=True)] == [
        (info.id, info.body) for info in channel.peek()
    ]
    assert [late] == [info.id for info in channel.deferred()]
    attached.topic("new").put("held")
    assert 1 == broker.topic("new").depth


def test_what_is_refused_there_is_refused_here(broker: nsqlite.Broker, attached: Attached) -> None:
    """With the same error; all or none."""
    topic = attached.topic("orders")
    broker.topic("orders").channel("small", max_depth=1, when_full="raise")
    with pytest.raises(nsqlite.Full) as full:
        topic.put_many(["tea", "milk"])
    assert ("orders:small", 2, 1) == (full.value.where, full.value.size, full.value.max_depth)
    with pytest.raises(nsqlite.InvalidMessage, match=r"codec 'json' cannot keep \{1\}"):
        topic.put({1})
    for delay in (-1, float("nan"), "1"):
        with pytest.raises(nsqlite.InvalidOption, match="delay"):
            topic.put(b"tea", delay=delay)  # type: ignore[arg-type]
    with pytest.raises(nsqlite.InvalidName, match="topic name 'a b'"):
        attached.topic("a b")
    with pytest.raises(nsqlite.InvalidName, match="channel name ''"):
        topic.channel("")
    with pytest.raises(nsqlite.InvalidOption, match="channel of topic 'orders' must be one of"):
        topic.channel("audit").peek()
    assert 0 == broker.topic("orders").channel("billing").depth


def test_the_codec_is_the_owners(broker: nsqlite.Broker, path: Path) -> None:
    """Another one is told of, and nothing is put."""
    pickled = nsqlite.attach(path, codec="pickle")
    with (
        pytest.raises(nsqlite.InvalidMessage, match="of codec 'pickle' cannot be"),
        pickled,
    ):
        pickled.topic("orders").put("tea")
    with nsqlite.attach(path) as attached:
        with pytest.raises(nsqlite.InvalidMessage, match="give it codec='json'"):
            attached.topic("orders").put("tea")
        broker.topic("orders").put("tea")
        [info] = attached.topic("orders").channel("billing").peek()
        assert isinstance(info.body, nsqlite.store.Undecodable)


def test_messages_are_looked_at(broker: nsqlite.Broker, attached: Attached) -> None:
    """As in the owner's process, with their bodies."""
    home = broker.topic("orders")
    first, second = home.put_many([b"tea", {"cake": 1}])
    late = home.put("late", delay=100)
    topic, channel = attached.topic("orders"), attached.topic("orders").channel("billing")
    assert [b"tea", {"cake": 1}, "late"] == [info.body for info in channel.peek()]
    assert [first] == [info.id for info in channel.peek(1)]
    here, there = channel.find(late), home.channel("billing").find(late)
    assert here is not None
    assert there is not None
    assert (here.state, here.body, here.attempts) == (there.state, there.body, there.attempts)
    assert here.due_in == pytest.approx(there.due_in, abs=1)
    assert {"billing"} == set(topic.find(second))
    assert channel.discard(late)
    assert not channel.discard(late)
    assert channel.find(late) is None
    assert "billing" == attached.stats()["topics"][0]["channels"][0]["channel_name"]


def test_dead_letters_are_letters(broker: nsqlite.Broker, attached: Attached) -> None:
    """With their fields; and can be put back.  What is in memory alone has its repr."""
    letter = nsqlite.DeadLetter(
        body={"a": 1},
        topic="orders",
        channel="billing",
        id="1",
        attempts=2,
        error="no",
        timestamp=3,
    )
    broker.topic("dead").channel("letters")
    broker.topic("dead").put(letter)
    letters = attached.topic("dead").channel("letters")
    assert [letter] == [info.body for info in letters.peek()]
    assert 1 == letters.redrive()
    broker.topic("odd#ephemeral").channel("any")
    broker.topic("odd#ephemeral").put({1})
    assert ["{1}"] == [info.body for info in attached.topic("odd#ephemeral").channel("any").peek()]


def test_topics_and_channels_are_steered(broker: nsqlite.Broker, attached: Attached) -> None:
    """Each by itself."""
    home = broker.topic("orders")
    home.put(b"tea")
    topic, channel = attached.topic("orders"), attached.topic("orders").channel("billing")
    channel.pause()
    assert (False, True) == (home.paused, home.channel("billing").paused)
    topic.pause()
    channel.unpause()
    assert (True, False) == (home.paused, home.channel("billing").paused)
    topic.unpause()
    assert 1 == channel.empty()
    assert 0 == topic.empty()
    assert 0 == channel.delete()
    assert 0 == topic.delete()
    assert "orders" not in broker.topics


def test_events_are_followed(broker: nsqlite.Broker, attached: Attached) -> None:
    """From the first that is asked for until the owner closes; of a topic, a channel, of kinds."""
    follows = attached.events("orders", "billing", ["delivered", "closed"])
    consumer = nsqlite.Consumer(broker.topic("orders").channel("billing"))
    found: list[Any] = []
    subscribed = threading.Event()
    observe = broker.observe

    def noticing(*given: Any, **more: Any) -> Any:
        stop = observe(*given, **more)
        subscribed.set()
        return stop

    home: Any = broker
    home.observe = noticing
    follower = threading.Thread(target=lambda: found.extend(follows))
    follower.start()
    assert subscribed.wait(10)
    broker.topic("other").put(b"other")
    broker.topic("orders").put({"cake": 1})
    consumer.get().fin()
    broker.close()
    follower.join()
    assert ["delivered", "closed"] == [event["kind"] for event in found]
    assert ('{"cake":1}', "json", 1) == (
        found[0]["body"],
        found[0]["codec"],
        found[0]["attempts"],
    )
    assert "delivered   orders/billing" in found[0]["line"]


def test_a_kind_that_there_is_not(broker: nsqlite.Broker, attached: Attached) -> None:
    """It is told of at the first event that is asked for."""
    assert broker.topics
    with pytest.raises(nsqlite.InvalidOption, match="kind of event must be one of"):
        next(attached.events(kinds=["tea"]))


def test_it_does_not_matter_who_starts_first(path: Path) -> None:
    """Nobody is asked before the first call; nobody there is told with what to do."""
    attached = nsqlite.attach(path, codec="json")
    topic = attached.topic("orders")
    with pytest.raises(nsqlite.NoOwner, match="no process listens for it: open it with"):
        topic.put("tea")
    assert not path.exists()
    store = nsqlite.SQLite(path, control=True, codec="json")
    with nsqlite.Broker(store=store):
        topic.put("tea")
    with pytest.raises(nsqlite.NoOwner):
        topic.put("milk")
    with nsqlite.Broker(store=store) as broker:
        topic.put("milk")  # a new owner is connected to
        assert 2 == broker.topic("orders").depth
    attached.close()
    assert f"<Attached to '{path}'>" == repr(attached)
    assert f"<AttachedTopic 'orders' of '{path}'>" == repr(topic)
    assert f"<AttachedChannel orders:billing of '{path}'>" == repr(topic.channel("billing"))


def test_calls_at_the_same_time_do_not_wait_for_each_other(
    broker: nsqlite.Broker, attached: Attached
) -> None:
    """A put that waits for room holds nobody else up."""
    home = broker.topic("full")
    small = home.channel("small", max_depth=1, when_full="wait")
    waits = threading.Event()
    home.observe(lambda _event: waits.set(), kinds=["waiting"])
    home.put("tea")
    putter = threading.Thread(target=lambda: attached.topic("full").put("milk"))
    putter.start()
    assert waits.wait(10)
    attached.topic("orders").put("meanwhile")
    small.empty()
    putter.join()
    assert 1 == small.depth
    assert 2 == len(attached._idle)


def test_a_child_uses_no_connection_of_its_parents(
    broker: nsqlite.Broker, attached: Attached
) -> None:
    """It closes its end of those that it has inherited."""
    attached.connect()
    _, line = attached._idle.pop()
    attached._idle.append((os.getpid() + 1, line))
    attached.topic("orders").put("tea")
    assert 1 == broker.topic("orders").channel("billing").depth
    assert -1 == line._connection.fileno()


Answer = Callable[[socket.socket], None]


def greeting(**other: Any) -> bytes:
    return json.dumps({"nsqlite": "control", "version": 1, "pid": 1, **other}).encode() + b"\n"


@pytest.fixture
def owner(path: Path) -> Iterator[Callable[[Answer], None]]:
    """Return what plays an owner once, by a function of the connection."""
    listening = listener(str(path), address(str(path)))
    threads: list[threading.Thread] = []

    def play(answer: Answer) -> None:
        def run() -> None:
            connection, _ = listening.accept()
            with connection:
                answer(connection)

        thread = threading.Thread(target=run)
        thread.start()
        threads.append(thread)

    with listening:
        yield play
        for thread in threads:
            thread.join(10)
            assert not thread.is_alive()


@pytest.mark.parametrize(
    ("first", "kind", "text"),
    [
        (b"", nsqlite.NoOwner, "its owner is closing it"),
        (b"tea\n", nsqlite.NoOwner, "cannot be used: a line is no JSON"),
        (b'{"nsqlite": 1}\n', nsqlite.StoreError, "speaks version None of the control protocol"),
        (greeting(version=2), nsqlite.StoreError, "speaks version 2 .* and this process 1"),
    ],
)
def test_who_does_not_greet(
    owner: Any, attached: Attached, first: bytes, kind: type[Exception], text: str
) -> None:
    """Nothing is asked of it."""
    owner(lambda connection: connection.sendall(first))
    with pytest.raises(kind, match=text) as told:
        attached.stats()
    assert type(told.value) is kind


def test_an_owner_that_dies_before_it_answers(owner: Any, attached: Attached) -> None:
    """It may have done what it was asked for."""

    def die(connection: socket.socket) -> None:
        connection.sendall(greeting())
        connection.recv(1000)

    owner(die)
    with pytest.raises(nsqlite.Unanswered, match="may have done it, or not"):
        attached.topic("orders").put("tea")

    def garble(connection: socket.socket) -> None:
        die(connection)
        connection.sendall(b"tea\n")

    owner(garble)
    with pytest.raises(nsqlite.Unanswered, match="a line is no JSON"):
        attached.topic("orders").put("tea")


def test_an_owner_that_takes_too_long(
    path: Path, owner: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a greeting nothing was asked for yet; in an answer it may do it still."""
    monkeypatch.setattr(attaching, "CONNECTING", 0.05)
    done = threading.Event()
    attached = nsqlite.attach(path, timeout=0.05)

    def stand(connection: socket.socket) -> None:
        connection.sendall(greeting())
        assert done.wait(10)

    owner(stand)
    with pytest.raises(nsqlite.Unanswered, match="did not answer in time"):
        attached.stats()
    done.set()
    done.clear()
    owner(lambda _connection: done.wait(10))
    with pytest.raises(nsqlite.NoOwner, match=r"has not taken a connection for 0.05 s"):
        attached.stats()
    done.set()


def test_an_owner_that_dies_as_it_is_asked(
    owner: Any, attached: Attached, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What could not be sent was not done."""

    def fail(_line: controllines.JSONLines, _told: Any) -> None:
        raise failure

    failure: BaseException = BrokenPipeError(32, "Broken pipe")

    monkeypatch.setattr(controllines.JSONLines, "send", fail)
    owner(lambda connection: connection.sendall(greeting()))
    with pytest.raises(nsqlite.NoOwner, match="its owner went away"):
        attached.stats()
    failure = KeyboardInterrupt()
    owner(lambda connection: connection.sendall(greeting()))
    with pytest.raises(KeyboardInterrupt):
        attached.stats()


def test_another_users_owner_is_not_asked(
    owner: Any, attached: Attached, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its process might be anybody's."""
    monkeypatch.setattr(os, "geteuid", lambda: 1)  # not root, who may ask anybody's
    monkeypatch.setattr(controllines, "peer_uid", lambda _connection: 2)
    owner(lambda _connection: None)
    with pytest.raises(nsqlite.NoOwner, match="another user's"):
        attached.stats()


def test_a_system_without_unix_sockets(attached: Attached, monkeypatch: pytest.MonkeyPatch) -> None:
    """It says so."""
    monkeypatch.setattr(attaching, "has_sockets", lambda: False)
    with pytest.raises(nsqlite.NoOwner, match="this system has no unix sockets"):
        attached.stats()


def test_an_error_of_a_signal_handler_comes_out(
    owner: Any, attached: Attached, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What looks like the system's is not taken for that: nothing is asked for twice."""
    failures: list[OSError] = [TimeoutError("an alarm"), OSError("another")]

    def fail(_line: controllines.JSONLines, *_told: Any) -> None:
        raise failures.pop()

    owner(lambda connection: connection.sendall(greeting()) or connection.recv(1000))
    with monkeypatch.context() as patch:
        patch.setattr(controllines.JSONLines, "send", fail)
        with pytest.raises(OSError, match="another"):
            attached.stats()
    owner(lambda connection: connection.sendall(greeting()) or connection.recv(1000))
    attached._idle.append((os.getpid(), attached._connect(1)))
    monkeypatch.setattr(controllines.JSONLines, "receive", fail)
    with pytest.raises(TimeoutError, match="an alarm"):
        attached.stats()
    assert not attached._idle


def test_root_may_ask_anybodys_owner(
    owner: Any, attached: Attached, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others ask their own, and root's."""
    owner(lambda connection: connection.sendall(greeting()))
    monkeypatch.setattr(controllines, "peer_uid", lambda _connection: 4711)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    line = attached._connect(1)
    line.close()
    monkeypatch.setattr(os, "geteuid", lambda: 1)
    owner(lambda _connection: None)
    with pytest.raises(nsqlite.NoOwner, match="another user's"):
        attached._connect(1)


def test_few_connections_are_kept(
    broker: nsqlite.Broker, attached: Attached, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A burst of calls leaves no more behind."""
    assert broker.topics
    monkeypatch.setattr(attaching, "IDLE", 1)
    first, second = attached._connect(1), attached._connect(1)
    for line in (first, second):
        line.send({"call": "ping"})
        assert attached._ended(line) is None
    assert 1 == len(attached._idle)


def test_many_connect_at_a_time(broker: nsqlite.Broker, attached: Attached) -> None:
    """Whoever finds no room in the queue of connections waits for it."""
    topic = attached.topic("orders")
    errors: list[BaseException] = []

    def put() -> None:
        try:
            topic.put("tea")
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=put) for _ in range(200)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [] == errors
    assert 200 == broker.topic("orders").channel("billing").depth


def test_what_is_no_batch(attached: Attached) -> None:
    """It is refused as by `Topic.put_many`, before anybody is asked; a bad body has its place."""
    topic = attached.topic("orders")
    for given in ("abc", b"abc", 5, None):
        with pytest.raises(nsqlite.InvalidMessage, match="put_many takes several bodies"):
            topic.put_many(given)  # type: ignore[arg-type]
    with pytest.raises(nsqlite.InvalidMessage, match="message 1: codec 'json' cannot keep"):
        topic.put_many(["tea", {1}])


def test_what_is_too_long(
    broker: nsqlite.Broker, attached: Attached, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A request or an answer is refused with what to do; nothing was done."""
    monkeypatch.setattr(controllines, "LONGEST_LINE", 1000)
    topic = attached.topic("orders")
    with pytest.raises(nsqlite.InvalidMessage, match="are too much for one request or answer"):
        topic.put(b"x" * 1000)
    for _ in range(3):
        topic.put(b"x" * 500)
    with pytest.raises(nsqlite.InvalidMessage, match="ask for less at a time"):
        topic.channel("billing").peek()
    assert 1 == len(topic.channel("billing").peek(1))
    assert 3 == broker.topic("orders").channel("billing").depth


def test_it_is_what_it_was_where_the_process_goes(
    path: Path, broker: nsqlite.Broker, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A path is that of the moment when this was made; a copy of this is none."""
    monkeypatch.chdir(tmp_path)
    with nsqlite.attach(path.name) as attached:
        monkeypatch.chdir("/")
        attached.topic("orders").put(b"tea")
        attached.connect()
        with pytest.raises(nsqlite.NotCopyable):
            copy.copy(attached)
    assert 1 == broker.topic("orders").depth + broker.topic("orders").channel("billing").depth


def test_connect_asks_the_owner(broker: nsqlite.Broker, attached: Attached) -> None:
    """Also where a connection is open."""
    attached.connect()
    broker.close()
    with pytest.raises(nsqlite.NoOwner):
        attached.connect()


def test_an_owner_that_is_killed_while_events_are_followed(owner: Any, attached: Attached) -> None:
    """That is no end of them."""

    def die(connection: socket.socket) -> None:
        connection.sendall(greeting())
        connection.recv(1000)
        connection.sendall(b'{"result": null}\n{"line": "first"}\n')

    owner(die)
    follows = attached.events()
    assert {"line": "first"} == next(follows)
    with pytest.raises(nsqlite.NoOwner, match="its owner went away"):
        next(follows)
    owner(lambda connection: connection.sendall(greeting()) or connection.recv(1000))
    with pytest.raises(nsqlite.NoOwner, match="its owner went away"):
        next(attached.events())


def test_options_are_checked(path: Path) -> None:
    """At once, though nobody is asked yet."""
    for timeout in (0, -1, "1"):
        with pytest.raises(nsqlite.InvalidOption, match="timeout"):
            nsqlite.attach(path, timeout=timeout)  # type: ignore[arg-type]
    with pytest.raises(nsqlite.InvalidOption, match="codec"):
        nsqlite.attach(path, codec="yaml")
    with pytest.raises(nsqlite.InvalidOption, match="path"):
        nsqlite.attach(":memory:")
