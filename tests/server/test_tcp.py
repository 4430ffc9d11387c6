"""The TCP service: who is let in, what is left of who has gone, and how it ends."""

import asyncio
import gc
import logging
import os
import socket
from contextlib import suppress
from pathlib import Path

import pytest
from aio.loops import in_loop, turns, until
from helpers import GoingClock
from store.processes import descriptors

from nsqlite import Broker
from nsqlite.server import tcp
from nsqlite.server.alarms import LoopAlarm
from nsqlite.server.connection import Connection
from nsqlite.server.listener import listen
from nsqlite.server.tcp import TCPService
from nsqlite.store import controllines
from nsqlite.wire.commands import MAGIC, Nop, Pub, Rdy, Sub
from nsqlite.wire.session import Session
from server.clients import Client, Place, served
from server.test_connection import stalled
from server.test_publishing import Shelf

# Who is let in


@in_loop
async def test_no_more_connections_than_there_may_be(caplog: pytest.LogCaptureFixture) -> None:
    """With a limit of connections those beyond it are closed at once; who goes makes room."""
    async with served(max_connections=2) as place:
        first, second = await place.connect(), await place.connect()
        third = await place.connect(let_in=False)
        await third.over()
        await first.quiet()
        await second.quiet()
        assert 2 == len(place.service.connections)
        first.close()
        await until(lambda: 1 == len(place.service.connections))
        await (await place.connect()).quiet()
    assert f"TCP: refused client({third.address}): max_connections is 2" in caplog.text


@in_loop
async def test_no_more_connections_of_one_address_than_there_may_be(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """An address may have a limit, which counts those that are open."""
    async with served(max_connections_per_address=1) as place:
        first = await place.connect()
        second = await place.connect(let_in=False)
        await second.over()
        first.reset()
        await until(lambda: not place.service.connections)
        await (await place.connect()).quiet()
    assert "max_connections_per_address is 1" in caplog.text


@pytest.mark.parametrize("mine", [True, False])
@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="there are no unix sockets")
@in_loop
async def test_a_unix_socket_may_be_its_users_alone(
    mine: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a unix socket the other end may have to be of the same user, or the system's."""
    uid = os.geteuid()
    monkeypatch.setattr(controllines, "peer_uid", lambda _: uid if mine else uid + 7)
    clock = GoingClock(patience=20)
    with Broker(clock=clock) as broker:
        path = str(tmp_path / "s")
        service = TCPService(broker, listen(path), own_user_only=True)
        await service.start()
        sock = socket.socket(socket.AF_UNIX)
        sock.setblocking(False)
        loop = asyncio.get_running_loop()
        with sock:
            await loop.sock_connect(sock, path)
            await loop.sock_sendall(sock, MAGIC + Pub("t", [b"x"]).encode())
            if mine:
                assert b"OK" == (await loop.sock_recv(sock, 100))[8:]
                [connection] = service.connections
                assert path == connection.remote_address == connection.ip_address
                assert path == connection.stats()["client_id"]
            else:
                with suppress(ConnectionError):
                    assert b"" == await loop.sock_recv(sock, 100)
        await service.stop()


@in_loop
async def test_addresses_of_ipv6() -> None:
    """A client by IPv6 is shown as nsqd shows it."""
    try:
        listener = listen("[::1]:0")
    except OSError:
        pytest.skip("there is no IPv6")
    with Broker(clock=GoingClock(patience=20)) as broker:
        service = TCPService(broker, listener)
        await service.start()
        with socket.socket(socket.AF_INET6) as sock:
            sock.setblocking(False)
            loop = asyncio.get_running_loop()
            await loop.sock_connect(sock, listener.getsockname())
            await until(lambda: service.connections)
            [connection] = service.connections
            assert f"[::1]:{sock.getsockname()[1]}" == connection.remote_address
            assert "::1" == connection.ip_address
        await service.stop()


@in_loop
async def test_numbers_are_never_used_twice() -> None:
    """Each connection has a number of its own, also after others have gone."""
    async with served() as place:
        seen = []
        for _ in range(3):
            client = await place.connect()
            seen.append((await place.connection(client)).number)
            client.close()
            await until(lambda: not place.service.connections)
        assert [1, 2, 3] == seen


# What goes on


@in_loop
async def test_one_that_is_slow_holds_up_nobody() -> None:
    """Many that send a byte now and then, or nothing, do not keep others from being served."""
    async with served() as place:
        slow = [await place.connect(magic=MAGIC[: number % 4]) for number in range(40)]
        slow += [await place.connect() for _ in range(40)]
        for number, client in enumerate(slow[40:]):
            await client.send(b"PUB t\n\0\0\1\0" + bytes(number))
        busy = await place.consumer(5)
        for number in range(20):
            await busy.publish(b"%d" % number, topic="u")
        assert 81 == len(place.service.connections)
        await place.advance(5)
        await until(lambda: 41 == len(place.service.connections))
        await place.advance(25)
        await busy.heartbeat()
        await busy.quiet()
        await place.advance(30)
        await until(lambda: 1 == len(place.service.connections))
        await busy.heartbeat()
        await busy.quiet()


@in_loop
async def test_random_bytes_end_one_connection_at_a_time() -> None:
    """Whatever somebody sends, others are served."""
    async with served() as place:
        good = await place.connect()
        for seed in (b"\0" * 100, b"\xff" * 100, bytes(range(256)), b"GET / HTTP/1.1\r\n\r\n"):
            for magic in (b"", MAGIC):
                client = await place.connect(magic=magic)
                await client.send(seed)
                client.socket.shutdown(socket.SHUT_WR)
                await until(lambda: 1 == len(place.service.connections))
                await good.quiet()


async def come_and_go(place: Place, count: int) -> None:
    """Connect so many clients, each of which leaves in another way."""
    for number in range(count):
        client = await place.connect()
        place.clients.clear()
        if number % 4 == 0:
            await client.send(Sub("t", "c#ephemeral"), Rdy(5), Pub("t", [b"x"]))
            await client.frame()
        if number % 4 == 1:
            await client.send(b"PUB t\n\0\0\1\0xxx")
        if number % 4 == 2:
            await client.send(Nop(), b"ASDF\n")
            await client.error()
        if number % 2:
            client.reset()
        else:
            client.close()
    await until(lambda: not place.service.connections)
    place.broker.topic("t").delete()


def known(*kinds: type) -> list[object]:
    """Return the objects of some kinds that nobody has forgotten."""
    gc.collect()
    return [one for one in gc.get_objects() if isinstance(one, kinds)]


@pytest.mark.parametrize("count", [100, pytest.param(10_000, marks=pytest.mark.soak)])
def test_nothing_is_left_of_who_has_gone(count: int) -> None:
    """Clients that come and go leave no object, no descriptor, no timer and no task."""

    async def run() -> None:
        async with served() as place:
            await come_and_go(place, 20)
            await turns()
            open_before = descriptors()
            await come_and_go(place, count)
            await turns()
            assert len(open_before) == len(descriptors())
            assert [] == known(Connection, Session, LoopAlarm)
            assert 1 == len(asyncio.all_tasks())
            assert {} == place.service._readers
            assert not place.service._addresses.total()

    asyncio.run(run())


# Its end


@in_loop
async def test_stop_waits_for_nobody() -> None:
    """It stops at once, whatever its clients do: idle, stalled, half-open, after an error."""
    async with served() as place:
        reading = await stalled(place)
        half = await place.connect()
        half.socket.shutdown(socket.SHUT_WR)
        failed = await place.consumer(channel="other")
        await failed.send(b"ASDF\n")
        await failed.error()
        silent, begun = await place.connect(magic=b""), await place.connect()
        await begun.send(b"PUB t\n\0\0")
        await place.connection(reading)
        stop = asyncio.ensure_future(place.service.stop())
        await turns(20)
        assert stop.done()
        for client in (half, failed, silent, begun):
            await client.over()
        assert [] == list(place.service.connections)
        assert 0 == place.channel.stats().client_count
        with pytest.raises(ConnectionError):
            await place.connect()


@in_loop
async def test_who_begins_after_the_end_is_not_let_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the loop cannot stop to accept without closing, as on Windows, nobody is let in."""

    def remove_reader(_: object) -> bool:
        raise NotImplementedError

    monkeypatch.setattr(tcp, "BEGINNING", 0)
    async with served() as place:
        with monkeypatch.context() as patch:
            patch.setattr(asyncio.get_running_loop(), "remove_reader", remove_reader)
            sock = socket.create_connection(place.where)
            await until(lambda: place.service._count)
            await place.service.stop()
        sock.setblocking(False)
        late = Client(sock)
        await late.over()
        late.close()


@in_loop
async def test_stop_does_not_wait_for_the_store() -> None:
    """What clients wait for from a slow store is done, and their connections are closed."""
    with Shelf() as shelf:
        async with served(shelf.broker) as place:
            making, joining, publishing = [await place.connect() for _ in range(3)]
            await publishing.publish(b"first", topic="u")
            with shelf.held():
                await making.send(Pub("t", [b"x"]))
                await joining.send(Sub("t", "c"))
                await publishing.send(Pub("u", [b"y"]))
                await turns(20)
                stop = asyncio.ensure_future(place.service.stop())
                await turns(20)
                assert stop.done()
            assert 0 == len(place.service.connections)
            await until(lambda: 2 == place.broker.topic("u").depth)


@in_loop
async def test_a_connection_may_be_shut_again() -> None:
    """A connection that is shut says nothing more, and is shut once."""
    async with served() as place:
        client = await place.connect()
        connection = await place.connection(client)
        connection.shut()
        await place.advance(30)
        await client.over()
        connection.shut()
        assert connection.tls_info is None


@in_loop
async def test_stop_leaves_messages_in_flight() -> None:
    """What clients had is in flight still, as a store would find it."""
    async with served() as place:
        client = await place.consumer(1)
        await client.publish(b"a", b"b")
        await client.message()
        await place.service.stop()
        assert (1, 1) == (place.channel.depth, place.channel.in_flight_count)


@in_loop
async def test_stop_may_be_called_again_and_before_the_start() -> None:
    """A service that was never started closes its socket; one that has stopped stays so."""
    with Broker() as broker:
        listener = listen("127.0.0.1:0")
        service = TCPService(broker, listener)
        await service.stop()
        assert -1 == listener.fileno()
    async with served() as place:
        await place.connect()
        await place.service.stop()
        await place.service.stop()


@pytest.mark.parametrize("count", range(5))
@in_loop
async def test_who_comes_in_the_moment_of_the_end_is_not_let_in(count: int) -> None:
    """A connection that was accepted and not begun yet is closed at the end, too."""
    async with served() as place:
        sock = socket.create_connection(place.where)
        sock.setblocking(False)
        await turns(count)
        await place.service.stop()
        late = Client(sock)
        await late.over()
        late.close()


@in_loop
async def test_what_happens_to_channels_after_the_end_is_no_matter() -> None:
    """After it has stopped nothing that happens in the broker is heard."""
    async with served() as place:
        await place.consumer()
        await place.service.stop()
        await asyncio.to_thread(place.channel.delete)


@in_loop
async def test_logs_tell_where_it_listens(caplog: pytest.LogCaptureFixture) -> None:
    """The log has the line that nsqd's users look for."""
    caplog.set_level(logging.INFO, "nsqlite")
    async with served() as place:
        assert f"TCP: listening on 127.0.0.1:{place.where[1]}" in caplog.messages
