"""What is published into a store: one batch a turn, answers in order, nothing acknowledged lost."""

import asyncio
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Self

import pytest
from aio.loops import in_loop, turns, until
from helpers import PATIENCE, GoingClock, bodies
from store.processes import another_process, said

from nsqlite import Broker, SQLite, StoreFull, aio
from nsqlite.server.connection import BEHIND, BUSY, PIECE, UNSTORED
from nsqlite.server.publishing import Publishing
from nsqlite.testing import FaultyStore, MemoryStore
from nsqlite.topic import Topic
from nsqlite.wire.commands import MAGIC, Dpub, Fin, Identify, Mpub, Nop, Pub, Rdy, Sub
from nsqlite.wire.compression import Deflate
from nsqlite.wire.frames import Frames
from server.clients import OPTIONS, Anybody, Client, Place, served

WHERE: Final = "/where/nobody/looks/jobs.db"


class Shelf:
    """A broker whose store is in memory, and fails or waits when it is told to.

    Attributes:
        full: each write fails, as on a full disk.
        broker: the broker; `Any`, as are all that it makes.
    """

    def __init__(self, **options: Any) -> None:
        """Begin; by default the store is written by its own thread alone."""
        store = MemoryStore(**{"sync": "full", "sync_timeout": 3600, **options})
        self.full = False
        self._gate: threading.Event | None = None
        self.broker: Any = Broker(
            clock=GoingClock(patience=20), store=FaultyStore(store, self._fault), **OPTIONS
        )

    def _fault(self, point: str) -> None:
        if point.startswith("before write"):
            if self._gate is not None:
                assert self._gate.wait(PATIENCE), "nobody lets it go on"
            if self.full:
                raise StoreFull(WHERE, "the disk is full")

    @contextmanager
    def held(self) -> Iterator[None]:
        """Have nothing written until the end of the block."""
        self.broker.flush()  # what is about to be written would take the rest with it
        gate = self._gate = threading.Event()
        try:
            yield
        finally:
            self._gate = None
            gate.set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.full = False
        self.broker.close()


async def known(place: Place, *names: str) -> Client:
    """Return a client that has published to topics, so that they are there."""
    client = await place.connect()
    for name in names or ("t",):
        await client.publish(b"first", topic=name)
    return client


def left(place: Place, topic: str = "t") -> list[Any]:
    """Take out all that a topic holds."""
    return bodies(place.broker.topic(topic).channel("left"))


# Batches


@in_loop
async def test_what_comes_in_one_turn_is_one_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """What several clients publish in one turn of the loop is stored together."""
    real = Topic._publish_stored
    batches: list[int] = []

    def counted(topic: Topic[Any], store: Any, batch: list[Any], *rest: Any, **more: Any) -> None:
        batches.append(len(batch))
        real(topic, store, batch, *rest, **more)

    monkeypatch.setattr(Topic, "_publish_stored", counted)
    with Shelf() as shelf:
        async with served(shelf.broker) as place:
            clients = [await known(place) for _ in range(5)]
            batches.clear()
            for number, client in enumerate(clients):
                await client.send(Pub("t", [b"%d" % number]), Mpub("t", [b"x", b"y"]))
            for client in clients:
                await client.ok(2)
            assert [15] == batches
            stats = (await place.connection(clients[0])).stats()
            assert [{"topic": "t", "count": 4}] == stats["pub_counts"]
            assert 20 == len(left(place))


@in_loop
async def test_one_that_is_refused_refuses_no_other() -> None:
    """Where only some of what came together finds room, each client is told of its own."""
    with Shelf() as shelf:
        shelf.broker.topic("t").channel("left", max_depth=3, when_full="raise")
        async with served(shelf.broker) as place:
            small, large, other = [await place.connect() for _ in range(3)]
            await small.send(Pub("t", [b"a"]))
            await large.send(Mpub("t", [b"b", b"c", b"d", b"e"]))
            await other.send(Pub("t", [b"f"]))
            await small.ok()
            await other.ok()
            assert (await large.refused()).startswith("E_MPUB_FAILED MPUB failed ")
            assert [b"a", b"f"] == sorted(left(place))


@in_loop
async def test_answers_keep_their_order() -> None:
    """An answer that needs no store waits for those before it; messages and heartbeats do not."""
    with Shelf() as shelf:
        async with served(shelf.broker) as place:
            client = await known(place)
            consumer = await place.consumer(9, "t#ephemeral", "c#ephemeral")
            await known(place, "t#ephemeral")
            await consumer.message()
            with shelf.held():
                await client.send(
                    Pub("t", [b"a"]),
                    Identify(b'{"feature_negotiation":true}'),
                    Dpub("t", 5, b"later"),
                    Identify(b"{}"),
                    Mpub("t", [b"b", b"c"]),
                    Pub("t#ephemeral", [b"x"]),
                )
                assert b"x" == (await consumer.message()).body
                await place.advance(30)
                await client.heartbeat()
            await client.ok()
            assert "1.3.0" == json.loads(await client.answer())["version"]
            await client.ok(4)
            await client.quiet()
            assert sorted([b"first", b"a", b"b", b"c", b"later"]) == sorted(left(place))


@in_loop
async def test_failed_fins_wait_for_their_turn() -> None:
    """An error that ends nothing stands between the answers where it belongs."""
    with Shelf() as shelf:
        async with served(shelf.broker) as place:
            client = await place.consumer(0)
            await client.publish(b"x")
            with shelf.held():
                await client.send(Pub("t", [b"a"]), Fin(["0" * 16]), Pub("t", [b"b"]))
                await turns()
            await client.ok()
            assert (await client.error()).endswith("ID not in flight")
            await client.ok()


@in_loop
async def test_deferred_messages_are_stored_too() -> None:
    """A DPUB is answered when it is stored, and comes when it is due."""
    with Shelf() as shelf:
        async with served(shelf.broker) as place:
            client = await place.consumer(5)
            await client.send(
                Dpub("t", 3000, b"c"),
                Dpub("t", 0, b"a"),
                Dpub("t", 1000, b"b"),
                Dpub("new", 0, b"x"),
            )
            frames = [await client.frame() for _ in range(5)]
            assert 4 == frames.count((0, b"OK"))
            assert [b"a"] == [data[26:] for kind, data in frames if kind == 2]
            await place.advance(1)
            assert b"b" == (await client.message()).body
            await place.advance(2)
            assert b"c" == (await client.message()).body
            stats = (await place.connection(client)).stats()
            expected = [{"topic": "new", "count": 1}, {"topic": "t", "count": 3}]
            assert expected == stats["pub_counts"]


@pytest.mark.parametrize("when_full", ["raise", "wait"])
@in_loop
async def test_a_deferred_message_that_finds_no_room(when_full: str) -> None:
    """A DPUB without delay is refused where there is no room, and holds up nobody."""
    with Shelf() as shelf:
        shelf.broker.topic("t").channel("left", max_depth=1, when_full=when_full)
        async with served(shelf.broker) as place:
            client = await place.connect()
            await client.send(Dpub("t", 0, b"a"))
            await client.ok()
            await client.send(Dpub("t", 0, b"b"))
            assert (await client.refused()).startswith("E_DPUB_FAILED DPUB failed ")


# A store that fails


@pytest.mark.parametrize("command", [Pub("t", [b"x"]), Mpub("t", [b"x"]), Dpub("t", 0, b"x")])
@pytest.mark.parametrize("new", [False, True])
@in_loop
async def test_what_cannot_be_stored_is_not_acknowledged(
    command: Any, new: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """An error of the store ends the connection, and tells a client nothing of the machine."""
    with Shelf() as shelf:
        async with served(shelf.broker) as place:
            client = await place.connect() if new else await known(place)
            shelf.full = True
            await client.send(command, command, Nop())
            name = type(command).__name__.upper()
            error = f"E_{name}_FAILED {name} failed the store cannot be written"
            assert error == await client.refused()
            shelf.full = False
            assert 0 == left(place).count(b"x")
    assert WHERE in caplog.text


@in_loop
async def test_a_batch_whose_topic_cannot_be_stored(caplog: pytest.LogCaptureFixture) -> None:
    """Where an MPUB is looked at before its bodies come, its topic may not be made, either."""
    with Shelf() as shelf:
        async with served(shelf.broker, auth=Anybody()) as place:
            client = await place.connect()
            await client.authorise()
            await client.send(Mpub("t", [b"x", b"y"]), Mpub("t", [b"z"]))
            await client.ok(2)
            shelf.full = True
            await client.send(b"MPUB new\n")
            error = "E_MPUB_FAILED MPUB failed the store cannot be written"
            assert error == await client.refused()
    assert WHERE in caplog.text


@pytest.mark.parametrize("known_topic", [False, True])
@in_loop
async def test_a_channel_that_cannot_be_stored(known_topic: bool) -> None:
    """A SUB whose channel cannot be made fails as a whole."""
    with Shelf() as shelf:
        async with served(shelf.broker) as place:
            client = await known(place) if known_topic else await place.connect()
            shelf.full = True
            await client.send(Sub("t", "c"), Rdy(1))
            error = "E_SUB_FAILED SUB failed the store cannot be written"
            assert error == await client.refused()
            shelf.full = False
            again = await place.consumer()
            await known(place)
            assert b"first" == (await again.message()).body


@in_loop
async def test_an_error_ends_what_comes_behind_it() -> None:
    """When several things of a client cannot be stored it is told of the first, and others too."""
    with Shelf() as shelf:
        async with served(shelf.broker) as place:
            client = await known(place, "t", "u", "v")
            other = await known(place, "u")
            with shelf.held():
                await client.send(Pub("t", [b"a"]), Pub("u", [b"b"]), Pub("v", [b"c"]), Nop())
                await other.send(Pub("u", [b"d"]), Pub("t", [b"e"]), b"ASDF\n")
                await turns()
                shelf.full = True
            error = "E_PUB_FAILED PUB failed the store cannot be written"
            assert error == await client.refused()
            assert error == await other.refused()
            shelf.full = False
            third = await known(place, "t")
            await third.publish(b"f")
            assert {b"first", b"f"} == set(left(place))


@in_loop
async def test_deliveries_that_cannot_be_counted(caplog: pytest.LogCaptureFixture) -> None:
    """Where deliveries are counted first, one that cannot be is none, and its client is closed."""
    with Shelf(attempts="durable", sync="normal") as shelf:
        async with served(shelf.broker) as place:
            client = await place.consumer(0)
            await client.publish(b"x")
            shelf.full = True
            await client.send(Rdy(1))
            await client.over()
            shelf.full = False
            again = await place.consumer()
            assert 1 == (await again.message()).attempts
    assert "a delivery failed" in caplog.text
    assert "Traceback" not in caplog.text


@in_loop
async def test_a_fault_in_what_takes_time_ends_one_connection(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A bug in what the store is asked for shows in the log, and tells the client nothing."""

    async def fail(*_: object) -> None:
        raise RuntimeError("a bug")

    with Shelf() as shelf:
        async with served(shelf.broker) as place:
            client, other = await place.connect(), await place.connect()
            with monkeypatch.context() as patch:
                patch.setattr(shelf.broker._persistence, "run", fail)
                await client.send(Pub("new", [b"x"]), Nop())
                await client.over()
            await other.publish(b"x", topic="new")
    assert "a bug" in caplog.text


# A store that takes its time


@in_loop
async def test_new_topics_and_channels_hold_up_nobody() -> None:
    """What is to be made first by a slow store holds back that client alone."""
    with Shelf() as shelf:
        async with served(shelf.broker) as place:
            publisher, consumer, other = [await place.connect() for _ in range(3)]
            with shelf.held():
                await publisher.send(Pub("new", [b"a"]), Pub("new", [b"b"]), Mpub("newer", [b"c"]))
                await consumer.send(Sub("t", "c"), Rdy(5))
                connection = await place.connection(publisher)
                await until(lambda: connection._held & BUSY)
                await other.quiet()
                await place.advance(30)
                for client in (publisher, consumer, other):
                    await client.heartbeat()
                    await client.send(Nop())
                await other.quiet()
                assert connection._held & BUSY
            await publisher.ok(3)
            await consumer.ok()
            await known(place)
            assert b"first" == (await consumer.message()).body
            assert [b"a", b"b"] == left(place, "new")


@in_loop
async def test_silence_does_not_count_while_the_store_takes_its_time() -> None:
    """A client that waits for the store is not closed for saying nothing, then or right after."""
    with Shelf() as shelf:
        async with served(shelf.broker) as place:
            client = await place.connect()
            connection = await place.connection(client)
            await place.advance(1)
            await client.quiet()
            with shelf.held():
                await client.send(Pub("new", [b"a"]))
                await until(lambda: connection._held & BUSY)
                await place.advance(64)
            await client.heartbeat()
            await client.heartbeat()
            await client.ok()
            await place.advance(50)
            await client.heartbeat()
            await client.quiet()


@in_loop
async def test_what_waits_for_the_store_is_bounded() -> None:
    """Who publishes more than the store can take is read no more until it has."""
    with Shelf() as shelf:
        async with served(shelf.broker) as place:
            client = await known(place)
            connection = await place.connection(client)
            body = bytes(100_000)
            with shelf.held():
                sending = asyncio.ensure_future(client.send(Pub("t", [body] * 400)))
                await until(lambda: connection._held & BEHIND)
                await turns(50)
                assert connection._unstored < UNSTORED + (1 << 20)
                assert not sending.done()
            await client.ok(400)
            await sending
            await client.quiet()
            assert 0 == connection._unstored
            assert 401 == len(left(place))


@in_loop
async def test_a_bomb_for_the_store_is_bounded() -> None:
    """A little that decompresses to much is taken as the store takes it."""
    with Shelf() as shelf:
        async with served(shelf.broker) as place:
            await known(place)
            client = await place.connect()
            await client.compress()
            connection = await place.connection(client)
            with shelf.held():
                await client.send(Pub("t", [bytes(100_000)] * 400))
                await until(lambda: connection._held & BEHIND)
                await turns(50)
                assert connection._unstored < UNSTORED + 4 * PIECE + 100_000
            await client.ok(400)
            await client.quiet()
            assert 401 == len(left(place))


@pytest.mark.parametrize("how", ["close", "reset"])
@in_loop
async def test_who_goes_before_it_is_stored(how: str) -> None:
    """What a client published before it went is stored all the same."""
    with Shelf() as shelf:
        async with served(shelf.broker) as place:
            client, maker = await known(place), await place.connect()
            with shelf.held():
                await client.send(Pub("t", [b"a"]), Dpub("t", 0, b"b"))
                await maker.send(Pub("new", [b"c"]))
                await turns(20)
                getattr(client, how)()
                getattr(maker, how)()
                await turns(20)
            await until(lambda: not place.service.connections)
            await until(lambda: 3 == place.broker.topic("t").depth)
            assert [b"a", b"b", b"first"] == sorted(left(place))


@in_loop
async def test_who_sends_no_more_waits_for_its_answers() -> None:
    """A client that has said all gets each answer before it is closed."""
    with Shelf() as shelf:
        async with served(shelf.broker) as place:
            client, cut = await known(place), await known(place)
            with shelf.held():
                await client.send(Pub("t", [b"a"]), Pub("t", [b"b"]))
                await cut.send(Pub("t", [b"c"]), b"PUB t\n\0")
                for one in (client, cut):
                    one.socket.shutdown(socket.SHUT_WR)
                await turns(20)
                assert 2 == len(place.service.connections)
            await client.ok(2)
            await client.over()
            await cut.ok()
            await cut.over()
            await until(lambda: not place.service.connections)


@in_loop
async def test_a_fatal_error_waits_for_the_answers_before_it() -> None:
    """What was published before an error is answered before that."""
    with Shelf() as shelf:
        async with served(shelf.broker) as place:
            client = await known(place)
            with shelf.held():
                await client.send(Pub("t", [b"a"]), b"ASDF\n", Pub("t", [b"b"]))
                await turns(20)
            await client.ok()
            assert "E_INVALID invalid command ASDF" == await client.refused()
            assert [b"first", b"a"] == left(place)


@in_loop
async def test_an_upgrade_waits_for_the_answers_before_it() -> None:
    """What was published before IDENTIFY is answered before the layer changes."""
    with Shelf() as shelf:
        async with served(shelf.broker) as place:
            client = await known(place)
            with shelf.held():
                said = b'{"feature_negotiation":true,"deflate":true}'
                await client.send(Pub("t", [b"a"]), Identify(said))
                await turns(20)
            assert b"OK" == await client.exact()
            assert json.loads(await client.exact())["deflate"]
            client.layer = Deflate(6)
            await client.ok()
            await client.quiet()


@in_loop
async def test_sub_finds_a_channel_that_has_just_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    """When a channel goes in the moment in which it is joined, the store makes another."""
    with Shelf() as shelf:
        async with served(shelf.broker) as place:
            client = await known(place)
            real = aio.Consumer
            struck: list[Any] = []

            def joined(channel: Any, **options: Any) -> Any:
                if not struck:
                    struck.append(channel)
                    place.broker.topic("t").delete()
                return real(channel, **options)

            monkeypatch.setattr(aio, "Consumer", joined)
            await client.subscribe(window=1)
            await (await known(place)).publish(b"x")
            assert b"first" == (await client.message()).body


@in_loop
async def test_a_backlog_in_the_file_comes_out() -> None:
    """What does not fit memory is read when its turn has come, in order."""
    with Shelf(mem_queue_size=10) as shelf:
        async with served(shelf.broker) as place:
            client = await place.consumer(7)
            publisher = await place.connect()
            expected = [b"%d" % number for number in range(500)]
            for at in range(0, 500, 50):
                await publisher.publish(*expected[at : at + 50])
            found: list[bytes] = []
            while len(found) < 500:
                message = await client.message()
                found.append(message.body)
                await client.finish(message)
            assert sorted(expected) == sorted(found)


# By itself


def test_a_loop_that_is_closed_is_told_nothing() -> None:
    """What is stored after the end of a loop is stored, and nobody is told."""
    with Shelf() as shelf:
        topic = shelf.broker.topic("t")
        told: list[Any] = []
        loop = asyncio.new_event_loop()

        async def publish() -> None:
            Publishing(asyncio.get_running_loop()).publish(topic, [b"x"], told.append)
            await turns()

        with shelf.held():
            loop.run_until_complete(publish())
            loop.close()
        asyncio.run(until(lambda: topic.depth))
        assert [] == told
        assert [b"x"] == bodies(topic.channel("c"))


@in_loop
async def test_who_is_told_may_be_told_by_its_own_thread() -> None:
    """A store that is done at once tells in the loop, one that takes time does so later."""
    with Shelf(sync="normal") as shelf:
        topic = shelf.broker.topic("t")
        publishing = Publishing(asyncio.get_running_loop())
        told: list[Any] = []
        publishing.publish(topic, [b"a"], told.append)
        publishing.publish(topic, [b"b", b"c"], told.append)
        assert [] == told
        await until(lambda: 2 == len(told))
        assert [None, None] == told
        shelf.full = True
        publishing.publish(topic, [b"d"], told.append)
        await until(lambda: 3 == len(told))
        assert isinstance(told[2], StoreFull)
        shelf.full = False
        shelf.broker.flush()
        assert [b"a", b"b", b"c"] == bodies(topic.channel("c"))


# Processes


@in_loop
async def test_a_restart_carries_on(tmp_path: Path) -> None:
    """What was in flight at the end comes again with its id, its attempts counted."""
    with Broker(store=SQLite(tmp_path / "jobs.db")) as broker:
        async with served(broker) as place:
            client = await place.consumer(1)
            await client.publish(b"a", b"b")
            first = await client.message()
    with Broker(store=SQLite(tmp_path / "jobs.db")) as broker:
        async with served(broker) as place:
            client = await place.consumer(5)
            again = await client.messages(2)
            assert [b"a", b"b"] == sorted(one.body for one in again)
            assert first._replace(attempts=2) in again


SERVER: Final = """
import asyncio, sys
from nsqlite import Broker, SQLite
from nsqlite.server.listener import listen, port_of
from nsqlite.server.tcp import TCPService

async def main():
    listener = listen("127.0.0.1:0")
    with Broker(store=SQLite(sys.argv[1])) as broker:
        await TCPService(broker, listener).start()
        print("mine", flush=True)
        print(port_of(listener), flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


class Publisher:
    """A client in a thread, which publishes until its server is gone.

    Attributes:
        acknowledged: the bodies that the server has said OK to.
        sent: all.
    """

    def __init__(self, number: int, port: int, enough: threading.Semaphore) -> None:
        self.acknowledged: set[bytes] = set()
        self.sent: set[bytes] = set()
        self._number: Final = number
        self._enough: Final = enough
        self._socket: Final = socket.create_connection(("127.0.0.1", port), PATIENCE)
        self.thread: Final = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        frames = Frames()
        waiting: list[list[bytes]] = []
        with self._socket:
            self._socket.sendall(MAGIC)
            try:
                for turn in range(1_000_000):
                    waiting += self._publish(turn)
                    while waiting and (turn % 5 or len(waiting) > 20):
                        data = self._socket.recv(1 << 16)
                        if not data:
                            return
                        for frame in frames.feed(data):
                            assert (0, b"OK") == frame
                            self.acknowledged.update(waiting.pop(0))
                            self._enough.release()
            except ConnectionError:
                return

    def _publish(self, turn: int) -> list[list[bytes]]:
        """Publish in one of several ways; return what will be answered together."""
        bodies = [b"%d %d %d" % (self._number, turn, part) for part in range(3)]
        self.sent.update(bodies)
        topic = f"t{turn % 3}"
        if turn % 3:
            self._socket.sendall(Pub(topic, bodies).encode())
            return [[body] for body in bodies]
        if turn % 2:
            self._socket.sendall(Mpub(topic, bodies).encode())
            return [bodies]
        self._socket.sendall(b"".join(Dpub(topic, 1, body).encode() for body in bodies))
        return [[body] for body in bodies]


@pytest.mark.parametrize("count", [50, pytest.param(5000, marks=pytest.mark.soak)])
def test_nothing_acknowledged_is_lost_by_a_kill(tmp_path: Path, count: int) -> None:
    """A server that is killed in the middle of publishing clients has kept what it said OK to."""
    path = tmp_path / "jobs.db"
    enough = threading.Semaphore(0)
    with another_process(SERVER, str(path)) as server:
        port = int(said(server))
        publishers = [Publisher(number, port, enough) for number in range(4)]
        for _ in range(count):
            assert enough.acquire(timeout=PATIENCE)
        server.kill()
        for publisher in publishers:
            publisher.thread.join(PATIENCE)
            assert not publisher.thread.is_alive()
    with Broker(store=SQLite(path), clock=GoingClock(start=2_000_000_000.0)) as broker:
        found: list[Any] = [
            body for name in ("t0", "t1", "t2") for body in bodies(broker.topic(name).channel("c"))
        ]
    acknowledged = set().union(*(publisher.acknowledged for publisher in publishers))
    assert len(acknowledged) >= count
    assert set() == acknowledged - set(found)
    assert set() == set(found) - set().union(*(publisher.sent for publisher in publishers))
    assert len(found) == len(set(found))
