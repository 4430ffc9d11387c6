"""The wire between a client and an nsqd: each fault, over real sockets."""

import asyncio
import json
import logging
import socket
import ssl
import struct
import threading
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trustme
from helpers import PATIENCE
from rawclient import RawClient
from store.stores import until

from nsqlite import Broker
from nsqlite.testing import FaultyStore, ManualClock, MemoryStore, nsqd
from nsqlite.testing.faults import Put
from nsqlite.testing.faultywire import Cutter, Lane, name_of
from nsqlite.wire.commands import (
    MAGIC,
    Cls,
    Dpub,
    Fin,
    Identify,
    Mpub,
    Nop,
    Pub,
    Rdy,
    Req,
    Sub,
    Touch,
)
from nsqlite.wire.frames import CLOSE_WAIT, ERROR, HEARTBEAT, MESSAGE, OK, RESPONSE, frame

OK_FRAME = (RESPONSE, b"OK")
BEAT = (RESPONSE, b"_heartbeat_")


@pytest.fixture
def server() -> Iterator[nsqd]:
    with nsqd(clock=ManualClock()) as server:
        yield server


@pytest.fixture
def client(server: nsqd) -> Iterator[RawClient]:
    with RawClient(server.tcp_address) as client:
        client.identify("a")
        yield client


def count(server: nsqd, topic: str = "orders") -> int:
    """Return how many messages were published."""
    found = server.broker.topics.get(topic)
    return 0 if found is None else found.stats().message_count


def bodies(server: nsqd) -> list[bytes]:
    """Return what waits in the topic, to which nobody has subscribed before."""
    found = server.broker.topic("orders").channel("looking").peek()
    return [one.body for one in found]


# Without faults


def test_without_faults_all_is_as_ever(server: nsqd, client: RawClient) -> None:
    """What a client sends and is sent passes, before a fault, with one, and after it."""
    for faults in (0, 1, 0):
        if faults:
            server.faults.lose("AUTH")
        assert client.pub(b"1") == b"OK"
        server.faults.clear()
    client.sub(3)
    messages = [client.message() for _ in "123"]
    client.fin(messages[0])
    client.send(Cls())
    assert (RESPONSE, b"CLOSE_WAIT") == client.next()
    assert () == server.faults.injected


# Lost


def test_a_lost_fin_is_none(server: nsqd, client: RawClient) -> None:
    """Of three FINs in one write the second is lost: its message times out, and comes again."""
    client.pub(b"1", b"2", b"3")
    client.waiting()
    server.settle()
    client.waiting()
    client.sub(3)
    messages = [client.message() for _ in "123"]
    server.faults.lose("FIN", nth=2)
    client.send(Fin([message.id.decode() for message in messages]))
    server.settle()
    channel = server.broker.topic("orders").channel("billing")
    assert 1 == channel.in_flight_count
    assert ["FIN"] == [one.what for one in server.faults.injected]
    server.advance(60)
    frames = [data for kind, data in client.waiting() if kind == MESSAGE]
    assert [messages[1].id] == [data[10:26] for data in frames]


@pytest.mark.parametrize(
    ("name", "command"), [("REQ", Req), ("TOUCH", lambda name, _: Touch(name))]
)
def test_a_lost_answer_is_none(
    server: nsqd, client: RawClient, name: str, command: Callable[[str, int], Req]
) -> None:
    """A REQ or TOUCH that is lost does nothing."""
    client.pub(b"1")
    client.sub()
    message = client.message()
    server.faults.lose("REQ" if name == "REQ" else "TOUCH")
    server.advance(30)
    client.send(command(message.id.decode(), 0))
    server.settle()
    stats = server.broker.topic("orders").channel("billing").stats()
    assert (1, 0) == (stats.in_flight_count, stats.requeue_count)
    server.advance(29.999)
    assert 0 == server.broker.topic("orders").channel("billing").stats().timeout_count
    server.advance(0.001)
    assert 1 == server.broker.topic("orders").channel("billing").stats().timeout_count


def test_a_lost_ok_leaves_what_was_published(server: nsqd, client: RawClient) -> None:
    """The client hears nothing, and the message is there."""
    server.faults.lose("OK", nth=2)
    client.send(Pub("orders", [b"1", b"2", b"3"]))
    server.settle()
    assert [OK_FRAME] * 2 == client.waiting()
    assert 3 == count(server)


def test_a_lost_pub_is_none(server: nsqd, client: RawClient) -> None:
    """A PUB that is lost is neither published nor answered."""
    server.faults.lose("PUB", nth=1)
    client.send(Pub("orders", [b"1", b"2"]))
    server.settle()
    assert [OK_FRAME] == client.waiting()
    assert [b"2"] == bodies(server)


def test_heartbeats_stop(server: nsqd, client: RawClient) -> None:
    """Lost heartbeats are those of all connections, until the fault is removed."""
    with server.faults.lose("heartbeat"):
        server.advance(30)
        assert [] == client.waiting()
    client.send(Nop())
    server.advance(30)
    assert [BEAT] == client.waiting()


# Delayed


def test_a_delayed_fin_comes_too_late(server: nsqd, client: RawClient) -> None:
    """A FIN that comes after the time-out is answered so, and what is behind it comes with it."""
    client.pub(b"1")
    client.sub()
    message = client.message()
    server.faults.delay("FIN", 90, times=1)
    client.send(Nop(), Fin([message.id.decode()]), Pub("others", [b"x"]))
    server.advance(89)
    assert 0 == count(server, "others")
    server.advance(1)
    channel = server.broker.topic("orders").channel("billing")
    assert (1, 0) == (channel.stats().timeout_count, channel.in_flight_count)
    assert 1 == count(server, "others")


def test_a_delayed_ok_holds_back_what_follows(server: nsqd, client: RawClient) -> None:
    """An OK comes by the clock, and the next one behind it, as does the end of the connection."""
    server.faults.delay("OK", 5, nth=2)
    client.send(Pub("orders", [b"1", b"2", b"3"]))
    client.socket.shutdown(socket.SHUT_WR)
    server.settle()
    assert [OK_FRAME] == client.waiting()
    server.advance(4.9)
    assert [] == client.waiting()
    server.advance(0.1)
    assert [OK_FRAME, OK_FRAME] == [client.next(), client.next()]
    assert client.is_over()


def test_several_are_delayed(server: nsqd, client: RawClient) -> None:
    """Each of several delayed commands has its time."""
    server.faults.delay("PUB", 1, nth=1)
    server.faults.delay("PUB", 3, nth=1)
    client.send(Pub("orders", [b"1", b"2"]))
    found = []
    for _ in range(4):
        server.settle()
        found.append(count(server))
        server.advance(1)
    assert [0, 1, 1, 2] == found


def test_the_end_comes_behind_what_is_delayed(server: nsqd, client: RawClient) -> None:
    """A client that says its last has it done, and its answer."""
    server.faults.delay("PUB", 5)
    client.send(Pub("orders", [b"1"]))
    client.socket.shutdown(socket.SHUT_WR)
    server.settle()
    assert [] == client.waiting()
    server.advance(5)
    assert OK_FRAME == client.next()
    assert client.is_over()


def test_what_was_cut_short_is_told_behind_what_is_delayed(server: nsqd, client: RawClient) -> None:
    """A command that ends in its middle is refused when its turn has come."""
    server.faults.delay("PUB", 5, nth=1)
    client.send(Pub("orders", [b"1"]))
    client.socket.sendall(Pub("orders", [b"12345"]).encode()[:-2])
    client.socket.shutdown(socket.SHUT_WR)
    server.advance(5)
    assert OK_FRAME == client.next()
    assert (ERROR, b"E_BAD_MESSAGE PUB failed to read message body") == client.next()
    assert client.is_over()


def test_a_client_that_goes_has_nothing_come_later(server: nsqd, client: RawClient) -> None:
    """What is delayed when a connection is closed is not done."""
    server.faults.delay("PUB", 5)
    client.send(Pub("orders", [b"1"]))
    server.settle()
    server.disconnect()
    server.advance(10)
    assert "orders" not in server.broker.topics


# Failed


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("PUB", Pub("orders", [b"2"])),
        ("MPUB", Mpub("orders", [b"2", b"3"])),
        ("DPUB", Dpub("orders", 100, b"2")),
    ],
)
def test_a_pub_fails(
    server: nsqd, client: RawClient, name: Put, command: Pub | Mpub | Dpub
) -> None:
    """It publishes nothing, is answered in its turn, and ends the connection."""
    client.pub(b"0")
    fault = server.faults.fail(name, "no space left", client_id="a", nth=2 if name == "PUB" else 1)
    client.send(Pub("orders", [b"1"]), command, Pub("orders", [b"4"]))
    assert OK_FRAME == client.next()
    assert (ERROR, f"E_{name}_FAILED {name} failed no space left".encode()) == client.next()
    assert client.is_over()
    assert [b"0", b"1"] == bodies(server)
    assert 1 == fault.count
    with RawClient(server.tcp_address) as other:
        other.send(command)
        assert OK_FRAME == other.next()


def test_an_error_that_was_not_injected_is_as_ever(server: nsqd, client: RawClient) -> None:
    """Another error has its own text."""
    server.faults.fail("PUB")
    client.sub()
    client.send(Fin(["0123456789abcdef"]), Pub("orders", [b"1"]))
    assert b"E_FIN_FAILED FIN 0123456789abcdef failed ID not in flight" == client.next()[1]
    assert b"E_PUB_FAILED PUB failed fault injected" == client.next()[1]


def test_an_error_of_the_client_is_as_ever(server: nsqd, client: RawClient) -> None:
    """What a client does wrong is answered as without a fault."""
    server.faults.fail("PUB")
    assert b"E_INVALID invalid command FOO" == client.ask(_Raw(b"FOO\n"))


class _Raw(bytes):
    def encode(self) -> bytes:
        return self


def test_a_pub_fails_in_a_store_in_its_turn(tmp_path: Path) -> None:
    """It is answered behind those that are still being stored."""
    with nsqd(data_path=tmp_path) as server, RawClient(server.tcp_address) as client:
        server.faults.fail("PUB", nth=3)
        client.send(Pub("orders", [b"1", b"2", b"3"]))
        assert [OK_FRAME, OK_FRAME] == [client.next(), client.next()]
        assert (ERROR, b"E_PUB_FAILED PUB failed fault injected") == client.next()


# Closed


def test_a_connection_is_dropped_after_some_frames(server: nsqd, client: RawClient) -> None:
    """It ends behind the frame, and the next connection has as many."""
    server.faults.drop(after=2)
    client.send(Pub("orders", [b"1", b"2", b"3"]))
    assert [OK_FRAME, OK_FRAME] == [client.next(), client.next()]
    with pytest.raises(EOFError):
        client.next()
    with RawClient(server.tcp_address) as other:
        other.send(Pub("orders", [b"4", b"5", b"6"]))
        assert [OK_FRAME, OK_FRAME] == [other.next(), other.next()]
        assert other.is_over()
    server.settle()
    assert () == server.connections


def test_a_message_is_cut_in_its_middle(server: nsqd, client: RawClient) -> None:
    """The client has the first half of a frame, and then the end; the message stays in flight."""
    client.pub(b"1")
    server.faults.cut("message")
    client.sub()
    data = b""
    while more := client.socket.recv(1000):
        data += more
    assert 0 < len(data) < 35
    server.advance(60)
    assert 1 == server.broker.topic("orders").channel("billing").stats().timeout_count


def test_what_is_sent_to_a_dropped_client_is_nothing(server: nsqd, client: RawClient) -> None:
    """A connection that was dropped while a frame was late sends no more behind that."""
    server.faults.delay("OK", 5, nth=1)
    server.faults.drop(after=1)
    client.send(Pub("orders", [b"1"]))
    server.settle()
    client.send(Pub("orders", [b"2"]))
    server.settle()
    assert 2 == count(server)
    server.advance(5)
    assert OK_FRAME == client.next()
    assert client.is_over()


def test_connections_are_refused(server: nsqd) -> None:
    """One that is refused is reset before a byte is read, and the next one is served."""
    server.faults.refuse(times=1)
    with pytest.raises(ConnectionError), RawClient(server.tcp_address) as client:
        while True:
            client.send(Nop())
    with RawClient(server.tcp_address) as client:
        assert client.pub(b"1") == b"OK"
    assert [("refuse", "accept")] == [one[:2] for one in server.faults.injected]


def test_connections_to_a_path_are_refused(tmp_path: Path) -> None:
    """The same with a unix socket."""
    path = str(tmp_path / "a")
    with nsqd(tcp_address=path) as server, socket.socket(socket.AF_UNIX) as client:
        assert (path, -1) == (server.host, server.port)
        with server.faults.refuse():
            client.connect(path)
            assert b"" == client.recv(1)
        with socket.socket(socket.AF_UNIX) as other:
            other.connect(path)
            other.sendall(MAGIC + Pub("orders", [b"1"]).encode())
            assert OK == other.recv(100)


# Slow


def test_a_client_is_read_slowly(server: nsqd, client: RawClient) -> None:
    """By the clock so many bytes are read in a second, until the fault is removed."""
    size = len(Pub("orders", [b"1" * 36]).encode())
    assert 51 == size
    fault = server.faults.slow(510)
    client.send(Pub("orders", [b"1" * 36] * 20))
    found = []
    for _ in range(4):
        server.settle()
        found.append(count(server))
        server.advance(0.1)
    assert [1, 2, 3, 4] == found
    fault.remove()
    server.advance(1)
    assert 20 == count(server)


def test_a_slow_client_can_be_struck(server: nsqd, client: RawClient) -> None:
    """Other faults see what is read slowly, and one that goes meanwhile leaves nothing."""
    server.faults.slow(10_000)
    server.faults.lose("PUB", nth=1)
    client.send(Pub("orders", [b"1" * 400, b"2" * 400, b"3" * 400]))
    server.advance(1)
    client.send(Pub("orders", [b"1" * 4000]))
    server.settle()
    assert 2 == count(server)
    client.socket.close()
    server.disconnect()
    server.advance(1)


def test_a_held_up_client_goes_on(server: nsqd, client: RawClient) -> None:
    """Where the nsqd wants no more for a while, as one does that is not read, it reads on later."""
    server.faults.lose("AUTH")
    body = b"x" * 100_000
    for _ in range(100):
        server.broker.topic("orders").channel("billing")
        server.broker.topic("orders").put(body)
    client.sub(100)
    got = [client.message() for _ in range(100)]
    client.send(Fin([message.id.decode() for message in got]))
    assert client.pub(b"1", topic="others") == b"OK"
    server.settle()
    assert 0 == server.broker.topic("orders").channel("billing").in_flight_count


# What cannot be seen


def test_a_fault_that_is_set_in_the_middle_of_a_command_waits_for_its_end(
    server: nsqd, client: RawClient
) -> None:
    """The command passes as it is, and the next one is struck."""
    whole = Pub("orders", [b"1"]).encode()
    client.socket.sendall(whole[:-3])
    server.settle()
    server.faults.lose("PUB")
    client.socket.sendall(whole[-3:])
    assert OK_FRAME == client.next()
    client.send(Pub("orders", [b"2"]), Cls())
    server.settle()
    assert 1 == count(server)


@pytest.mark.parametrize("before", [False, True])
def test_compression_is_not_struck(
    server: nsqd, caplog: pytest.LogCaptureFixture, *, before: bool
) -> None:
    """Nothing is lost of what is compressed, which is logged once."""
    if before:
        server.faults.lose("PUB")
    with caplog.at_level(logging.WARNING, "nsqlite"), RawClient(server.tcp_address) as client:
        client.send(Identify(json.dumps({"feature_negotiation": True, "deflate": True}).encode()))
        (size,) = struct.unpack(">I", client.exactly(4))
        assert json.loads(client.exactly(size)[4:])["deflate"]
        if not before:
            server.faults.lose("PUB")
        packer = zlib.compressobj(wbits=-15)
        unpacker = zlib.decompressobj(wbits=-15)

        def heard(size: int) -> bytes:
            data = b""
            while len(data) < size:
                data += unpacker.decompress(client.socket.recv(1000))
            return data

        assert OK == heard(len(OK))
        for _ in "12":
            data = packer.compress(Pub("orders", [b"1"]).encode())
            client.socket.sendall(data + packer.flush(zlib.Z_SYNC_FLUSH))
            assert OK == heard(len(OK))
    texts = [record.getMessage() for record in caplog.records]
    assert 1 == len([text for text in texts if "has TLS or compression" in text])
    assert () == server.faults.injected


@pytest.mark.parametrize("good", [True, False])
def test_tls_is_not_struck(tmp_path: Path, *, good: bool) -> None:
    """Nothing is lost of what is encrypted, and a handshake that fails ends the connection."""
    authority = trustme.CA()
    made = authority.issue_cert("localhost")
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    cert.write_bytes(made.cert_chain_pems[0].bytes())
    key.write_bytes(made.private_key_pem.bytes())
    with (
        nsqd(tls_cert=str(cert), tls_key=str(key)) as server,
        RawClient(server.tcp_address) as client,
    ):
        server.faults.lose("PUB")
        assert json.loads(client.identify("a", tls_v1=True))["tls_v1"]
        if not good:
            client.socket.sendall(b"no handshake" * 20)
            assert client.is_over()
            return
        context = ssl.create_default_context()
        authority.configure_trust(context)
        with context.wrap_socket(client.socket, server_hostname="localhost") as client.socket:
            assert OK_FRAME == client.next()
            assert client.pub(b"1") == b"OK"
        assert () == server.faults.injected


def test_what_is_compressed_is_read_slowly(server: nsqd) -> None:
    """A connection whose commands cannot be seen can be slow all the same."""
    with RawClient(server.tcp_address) as client:
        client.send(Identify(json.dumps({"feature_negotiation": True, "deflate": True}).encode()))
        server.settle()
        server.faults.slow(100)
        packer = zlib.compressobj(wbits=-15)
        data = packer.compress(Pub("orders", [b"1"]).encode()) + packer.flush(zlib.Z_SYNC_FLUSH)
        client.socket.sendall(data)
        server.settle()
        assert 0 == count(server)
        server.advance(1)
        assert 1 == count(server)


def test_the_end_waits_for_the_store() -> None:
    """A client that says its last while what it has published is stored has its answer."""
    gate = threading.Event()
    gate.set()

    def fault(_: str) -> None:
        if threading.current_thread().name != "nsqlite.testing.nsqd":
            assert gate.wait(PATIENCE)

    with (
        Broker(store=FaultyStore(MemoryStore(), fault)) as broker,
        nsqd(broker=broker) as server,
        RawClient(server.tcp_address) as client,
    ):
        assert client.pub(b"1") == b"OK"
        try:
            gate.clear()
            client.send(Dpub("orders", 1000, b"1"))
            client.socket.shutdown(socket.SHUT_WR)
            until(lambda: [one for one in server.connections if one._eof])
        finally:
            gate.set()
        assert OK_FRAME == client.next()
        assert client.is_over()


# The parts

SENT = MAGIC + b"".join(
    command.encode()
    for command in (
        Identify(b"{}"),
        Sub("orders", "billing"),
        Rdy(5),
        Fin(["0123456789abcdef"]),
        Pub("orders", [b"1\n2"]),
        Mpub("orders", [b"1", b"22"]),
        Dpub("orders", 5, b"PUB orders\n"),
        Nop(),
    )
)
NAMES = ["", "IDENTIFY", "SUB", "RDY", "FIN", "PUB", "MPUB", "DPUB", "NOP"]


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
@pytest.mark.parametrize("tail", [b"", b"PUB orders\n\0\0\0\x05123"])
def test_commands_are_cut(size: int, tail: bytes) -> None:
    """However they come, commands are told apart, and nothing is added or lost."""
    cutter = Cutter(100, begun=False)
    data = SENT + tail
    found = [one for at in range(0, len(data), size) for one in cutter.feed(data[at : at + size])]
    assert NAMES == [name for name, _ in found]
    assert SENT == b"".join(part for _, part in found)
    assert tail == cutter.rest()
    assert b"" == cutter.rest()


@pytest.mark.parametrize(
    "data",
    [
        b"PUB orders\n\0\0\0\x65",
        b"PUB orders\n\xff\xff\xff\xff",
        b"x" * 16384,
    ],
    ids=["large", "negative", "long"],
)
def test_what_cannot_be_cut_is_left_to_the_nsqd(data: bytes) -> None:
    """A body that is too large and a line that is too long pass, and so does all behind them."""
    cutter = Cutter(100, begun=True)
    assert [("FIN", b"FIN 1\r\n"), ("", b"FUN\n")] == cutter.feed(b"FIN 1\r\nFUN\n")
    assert [("", data)] == cutter.feed(data)
    assert [("", b"FIN 1\n")] == cutter.feed(b"FIN 1\n")


async def _lane(clock: ManualClock) -> list[str]:
    done: list[str] = []
    lane = Lane(clock, asyncio.get_running_loop(), lambda: done.append("changed"))
    lane.push(lambda: done.append("a"))
    lane.push(lambda: done.append("b"), 5)
    lane.push(lambda: done.append("c"))
    lane.push(lambda: done.append("d"), 9)
    assert lane.waits
    for _ in range(3):
        clock._advance(4)
        done.append(str(clock.monotonic_ns()))
    lane.push(lambda: done.append("e"), 1)
    lane.clear()
    clock._advance(4)
    return done


def test_a_lane_keeps_the_order() -> None:
    """What is late comes in its time, what follows behind it, and nothing when it is cleared."""
    done = asyncio.run(_lane(ManualClock()))
    assert ["a", "changed", "4", "b", "c", "8", "d", "changed", "12", "changed"] == done


def test_frames_have_names() -> None:
    """A frame is called by its type, a response by its text."""
    frames = {
        "OK": OK,
        "CLOSE_WAIT": CLOSE_WAIT,
        "heartbeat": HEARTBEAT,
        "response": frame(RESPONSE, b"{}"),
        "error": frame(ERROR, b"OK"),
        "message": frame(MESSAGE, b"OK"),
    }
    found = [name_of(struct.unpack_from(">I", data, 4)[0], data) for data in frames.values()]
    assert list(frames) == found
