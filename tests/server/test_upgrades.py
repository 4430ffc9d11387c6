"""TLS, Deflate and Snappy on real connections: how they come on, what passes them, how they end."""

import asyncio
import gc
import itertools
import json
import logging
import ssl
import tracemalloc
import zlib
from collections.abc import Awaitable, Callable
from contextlib import suppress
from random import Random
from typing import Any, Final, TypeAlias

import pytest
import snappy
from aio.loops import turns, until
from helpers import PATIENCE
from rawclient import Encoded

from nsqlite.server import connection
from nsqlite.server.connection import HIGH_WATER, PIECE, STALLED
from nsqlite.wire.authorisation import Authorisations
from nsqlite.wire.commands import (
    MAGIC,
    Auth,
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
from nsqlite.wire.frames import MESSAGE, delivered
from server.wireclient import (
    HEARTBEAT,
    OK,
    Authority,
    Client,
    FramedSnappy,
    RawDeflate,
    Served,
    error,
    harmless,
    serving,
)

LAYERS: Final = ("tls", "deflate", "snappy", "tls+deflate", "tls+snappy")
COMPRESSED: Final = tuple(name for name in LAYERS if name != "tls")

each_layer = pytest.mark.parametrize("layers", LAYERS)
each_compressed = pytest.mark.parametrize("layers", COMPRESSED)
with_and_without = pytest.mark.parametrize("layers", ["", *LAYERS])

NOISE: Final = Random(1)

NEGOTIATES: Final = b'{"feature_negotiation": true, "tls_v1": true}'


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(autouse=True)
def no_fault(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> Any:
    """See to it that no test leaves a fault in the log, and none waits long for a silent client."""
    caplog.set_level(logging.INFO, "nsqlite")
    monkeypatch.setattr(connection, "GRACE", 0.02)
    yield
    assert harmless(caplog)


def run(main: Callable[[], Awaitable[None]]) -> None:
    async def whole() -> None:
        async with asyncio.timeout(3 * PATIENCE):
            await main()

    asyncio.run(whole())


# How they come on


def test_one_ok_for_each_layer_in_order(authority: Authority) -> None:
    """JSON as it is, OK by TLS, OK by TLS and Deflate; each as soon as the layer is there."""

    async def main() -> None:
        async with serving(tls=authority.server()) as served:
            client = await served.raw()
            await client.identify(tls_v1=True, deflate=True)
            assert client.reply["tls_v1"]
            assert client.reply["deflate"]
            assert not client.reply["snappy"]
            await turns(20)
            assert not client.has(), "nothing comes before the client's part"
            assert not served.connection(client)._session.secure
            await client.shake(authority.client())
            assert OK == await client.frame()
            client.codec = RawDeflate()
            assert OK == await client.frame()
            await turns(20)
            assert not client.has()

    run(main)


def test_the_first_bytes_by_snappy() -> None:
    """They are those of NSQ's example: the identifier, and one chunk as it is."""

    async def main() -> None:
        async with serving() as served:
            client = await served.raw()
            await client.identify(snappy=True)
            await until(lambda: client.has() or client._read)
            while len(client._read) < 28:
                client.take(await client.get())
            head = bytes.fromhex("ff060000734e61507059")
            assert client._read.startswith(head)
            assert OK[1] in snappy.StreamDecompressor().decompress(bytes(client._read))

    run(main)


def test_the_first_bytes_by_deflate() -> None:
    """They are a stream without a head that a flush has ended."""

    async def main() -> None:
        async with serving() as served:
            client = await served.raw()
            await client.identify(deflate=True, deflate_level=1)
            while not client._read:
                client.take(await client.get())
            assert client._read.endswith(b"\0\0\xff\xff")
            plain = zlib.decompressobj(-15).decompress(bytes(client._read))
            assert b"\0\0\0\6\0\0\0\0OK" == plain

    run(main)


def test_none_without_negotiation(authority: Authority) -> None:
    """A client that does not read the answer gets no layer; nor one whose node has none."""

    async def main() -> None:
        async with serving(tls=authority.server()) as served:
            client = await served.raw()
            await client.send(Identify(b'{"tls_v1": true, "deflate": true}'), Pub("t", [b"x"]))
            assert [OK, OK] == await client.frames(2)
        async with serving(limits={"deflate": False, "snappy": False}) as served:
            client = await served.raw()
            await client.identify(tls_v1=True, deflate=True, snappy=True)
            assert [] == [n for n in ("tls_v1", "deflate", "snappy") if client.reply[n]]
            await client.send(Pub("t", [b"x"]))
            assert OK == await client.frame()

    run(main)


def test_not_both_compressions() -> None:
    """A client that asks for both is refused."""

    async def main() -> None:
        async with serving() as served:
            client = await served.raw()
            asked = {"feature_negotiation": True, "deflate": True, "snappy": True}
            await client.send(Identify(json.dumps(asked).encode()))
            text = "E_IDENTIFY_FAILED cannot enable both deflate and snappy compression"
            assert [error(text)] == await client.rest()

    run(main)


@each_layer
def test_what_stands_behind_identify_is_lost(authority: Authority, layers: str) -> None:
    """Bytes in the same read as an IDENTIFY that leads to a layer are dropped, as by nsqd."""

    async def main() -> None:
        async with serving(tls=authority.server()) as served:
            client = await served.raw()
            flags = {"tls_v1" if name == "tls" else name: True for name in layers.split("+")}
            body = json.dumps({"feature_negotiation": True} | flags).encode()

            async def identify(**_: Any) -> dict[str, Any]:
                await client.send(Identify(body), Pub("lost", [b"x"]), b"and rubbish\n")
                client.reply = json.loads((await client.frame())[1])
                return client.reply

            client.identify = identify  # type: ignore[method-assign]
            await client.upgrade(layers, authority.client())
            await client.send(Pub("t", [b"x"]))
            assert OK == await client.frame()
            assert (0, 1) == (served.depth("lost"), served.depth("t"))

    run(main)


def test_what_stands_behind_a_plain_identify_is_done() -> None:
    """Without a layer to come nothing is lost."""

    async def main() -> None:
        async with serving() as served:
            client = await served.raw()
            await client.send(Identify(b'{"feature_negotiation": true}'), Pub("t", [b"x"]))
            assert json.loads((await client.frame())[1])["max_rdy_count"] == 2500
            assert OK == await client.frame()

    run(main)


@each_layer
def test_byte_by_byte(authority: Authority, layers: str) -> None:
    """It does not matter how a layer's bytes are cut, from the magic bytes on."""

    async def main() -> None:
        async with serving(tls=authority.server()) as served:
            client = await served.raw()
            put = client.put

            async def slowly(data: bytes, step: int = 0) -> None:
                await put(data, step or 1)

            client.put = slowly  # type: ignore[method-assign]
            await client.upgrade(layers, authority.client())
            await client.send(Sub("t", "c"), Rdy(5), Pub("t", [b"one", b"two"]))
            found = await client.frames(5)
            assert 3 == found.count(OK)
            names = [delivered(data).id.decode() for kind, data in found if kind == MESSAGE]
            assert 2 == len(names)
            await client.send(Fin(names), Mpub("t", [b"x", b"y"]))
            found = await client.frames(3)
            assert 2 == sum(kind == MESSAGE for kind, _ in found)
            await client.send(Cls())
            assert (0, b"CLOSE_WAIT") == await client.frame()

    run(main)


@each_layer
def test_big_blocks(authority: Authority, layers: str) -> None:
    """Megabytes pass in both directions, in order, with nothing lost."""

    async def main() -> None:
        async with serving(tls=authority.server()) as served:
            client = await served.client(layers, authority.client())
            sizes = [1, 16383, 16384, 65535, 65536, 65537, 1 << 20, 300_000]
            bodies = [bytes([number]) * size for number, size in enumerate(sizes)]
            bodies += [number.to_bytes(4) * 50 for number in range(5000)]
            await client.send(Mpub("t", bodies[:8]), Mpub("t", bodies[8:]))
            assert [OK, OK] == await client.frames(2)
            await client.send(Sub("t", "c"), Rdy(2500))
            assert OK == await client.frame()
            got = {}
            for _ in bodies:
                kind, data = await client.frame()
                assert MESSAGE == kind
                message = delivered(data)
                got[message.body] = message.id.decode()
                if len(got) % 1000 == 0:
                    await client.send(Fin(list(got.values())[-1000:]))
            assert list(got) == bodies
            channel = served.broker.topic("t").channel("c")
            await until(lambda: channel.stats().in_flight_count == len(bodies) % 1000)

    run(main)


@with_and_without
def test_heartbeats_and_what_says_nothing(authority: Authority, layers: str) -> None:
    """Heartbeats pass each layer, an answer keeps the connection, and silence ends it."""

    async def main() -> None:
        async with serving(tls=authority.server()) as served:
            client = await served.client(layers, authority.client(), heartbeat_interval=1000)
            for _ in range(5):
                served.clock.advance(1)
                assert HEARTBEAT == await client.frame()
                await client.send(Nop())
                await until(lambda: served.connection(client)._last == served.clock.monotonic_ns())
            served.clock.advance(1)
            assert HEARTBEAT == await client.frame()
            served.clock.advance(1)
            assert [HEARTBEAT] == await client.rest()
            await served.until_over(client)

    run(main)


@each_layer
def test_all_commands(authority: Authority, layers: str) -> None:
    """Each command does what it does without a layer."""

    async def main() -> None:
        async with serving(tls=authority.server()) as served:
            client = await served.client(layers, authority.client())
            await client.send(Sub("t", "c"), Rdy(1), Dpub("t", 1500, b"later"))
            assert [OK, OK] == await client.frames(2)
            served.clock.advance(1.5)
            name = delivered((await client.frame())[1]).id.decode()
            await client.send(Touch(name), Req(name, 0))
            message = delivered((await client.frame())[1])
            assert (2, b"later") == (message.attempts, message.body)
            await client.send(Fin([name]), Fin([name]), Cls())
            text = f"E_FIN_FAILED FIN {name} failed ID not in flight"
            assert [error(text), (0, b"CLOSE_WAIT")] == await client.frames(2)
            await client.send(b"WHAT\n")
            assert [error("E_INVALID invalid command WHAT")] == await client.rest()
            await served.until_over(client)

    run(main)


def test_what_stands_behind_a_handshake_is_done(authority: Authority) -> None:
    """A client that does not wait for the OK of TLS loses nothing, as with nsqd."""

    async def main() -> None:
        async with serving(tls=authority.server()) as served:
            client = await served.raw()
            await client.identify(tls_v1=True)
            await client.shake(authority.client(), Pub("t", [b"x", b"y"]).encode())
            assert [OK] * 3 == await client.frames(3)
            assert 2 == served.depth("t")

    run(main)


# Handshakes that fail


def too_old(authority: Authority) -> ssl.SSLContext:
    context = authority.client()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    return context


def strange(_: Authority) -> ssl.SSLContext:
    return ssl.create_default_context()


async def over_and_fine(served: Served, client: Client) -> None:
    """Make sure that a connection is over, and another client is served."""
    await client.rest()
    await served.until_over(client)
    assert not [one for one in served.service.connections if one is served.connection(client)]
    await served.is_fine()


@pytest.mark.parametrize(
    "data", [b"PUB t\n\0\0\0\1x", b"\x16\x03\x01\xff\xff" + b"\0" * 70_000, b"\0", b"  V2" * 50_000]
)
def test_bytes_that_are_no_handshake(authority: Authority, data: bytes) -> None:
    """They end the connection, whatever they are."""

    async def main() -> None:
        async with serving(tls=authority.server()) as served:
            client = await served.raw()
            await client.identify(tls_v1=True)
            try:
                await client.put(data)
            except ConnectionError:
                pass
            if data == b"\0":
                client.half_close()
            await over_and_fine(served, client)
            assert 0 == served.depth("t")

    run(main)


@pytest.mark.parametrize("made", [too_old, strange], ids=["too old", "by nobody"])
def test_a_client_that_does_not_agree(
    authority: Authority, made: Callable[[Authority], ssl.SSLContext]
) -> None:
    """A version that is too old, or a certificate that the client does not take."""

    async def main() -> None:
        async with serving(tls=authority.server(min_version="tls1.3")) as served:
            client = await served.raw()
            await client.identify(tls_v1=True)
            with pytest.raises((ssl.SSLError, ConnectionError)):
                await client.shake(made(authority))
            await over_and_fine(served, client)

    run(main)


@pytest.mark.parametrize("most", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_client_without_a_certificate(authority: Authority, most: ssl.TLSVersion) -> None:
    """It is refused where one is required, also if it thinks that all is well by then."""

    async def main() -> None:
        policy = {"client_auth_policy": "require-verify", "root_ca_file": authority.roots}
        async with serving(tls=authority.server(**policy), tls_required=True) as served:
            client = await served.raw()
            await client.identify(tls_v1=True)
            context = authority.client()
            context.maximum_version = most
            try:
                await client.shake(context)
                await client.send(Pub("t", [b"x"]))
            except (ssl.SSLError, ConnectionError):
                pass
            await over_and_stopped(served, client)
            assert 0 == served.depth("t")
            good = await served.client("tls", authority.client("shop"))
            await good.send(Pub("t", [b"x"]))
            assert OK == await good.frame()

    run(main)


async def over_and_stopped(served: Served, client: Client) -> None:
    try:
        await client.rest()
    except ssl.SSLError:  # the alert
        pass
    await served.until_over(client)


def hello(authority: Authority) -> bytes:
    """Return the first bytes of a client's handshake."""
    out = ssl.MemoryBIO()
    tls = authority.client().wrap_bio(ssl.MemoryBIO(), out, server_hostname="localhost")
    with pytest.raises(ssl.SSLWantReadError):
        tls.do_handshake()
    return out.read()


@pytest.mark.parametrize("part", [0, 1, 100, None])
def test_a_handshake_that_takes_too_long(
    authority: Authority, part: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ends after some seconds; no heartbeat disturbs it until then."""
    monkeypatch.setattr(connection, "HANDSHAKE", 0.05)

    async def main() -> None:
        async with serving(tls=authority.server()) as served:
            client = await served.raw()
            await client.identify(tls_v1=True, heartbeat_interval=1000)
            with suppress(ConnectionError):  # it is closed with what it has not read
                await client.put(hello(authority)[:part])
                await turns(20)
                served.clock.advance(1)
                while data := await client.get():
                    assert b"_heartbeat_" not in data
            await over_and_fine(served, client)

    run(main)


def test_a_slow_handshake_is_not_disturbed(authority: Authority) -> None:
    """No heartbeat comes in its middle, nor between it and the OKs; later they come again."""

    async def main() -> None:
        async with serving(tls=authority.server()) as served:
            client = await served.raw()
            await client.identify(tls_v1=True, snappy=True, heartbeat_interval=1000)
            served.clock.advance(1)
            await turns(20)
            served.clock.advance(2.5)
            await turns(20)
            await client.shake(authority.client())
            assert OK == await client.frame()
            client.codec = FramedSnappy()
            assert OK == await client.frame()
            served.clock.advance(1)
            assert HEARTBEAT == await client.frame()
            served.clock.advance(0.5)
            await client.send(Pub("t", [b"x"]))
            assert OK == await client.frame()

    run(main)


# Commands without TLS where it is required


@pytest.mark.parametrize(
    "command",
    [
        Sub("t", "c"),
        Pub("t", [b"x"]),
        Mpub("t", [b"x"]),
        Dpub("t", 1, b"x"),
        Rdy(1),
        Fin(["0" * 16]),
        Req("0" * 16, 1),
        Touch("0" * 16),
        Cls(),
        Nop(),
        Auth(b"tea"),
        b"WHAT\n",
        b"\n",
    ],
    ids=lambda command: command.__class__.__name__,
)
def test_tls_is_required(authority: Authority, command: Encoded | bytes) -> None:
    """Every command but IDENTIFY is refused, after an IDENTIFY without TLS, too."""

    async def main() -> None:
        async with serving(tls=authority.server(), tls_required=True) as served:
            data = command if isinstance(command, bytes) else command.encode()
            name = data.split(b"\n")[0].split(b" ")[0].decode()
            refused = error(f"E_INVALID cannot {name} in current state (TLS required)")
            client = await served.raw()
            await client.send(data)
            assert [refused] == await client.rest()
            client = await served.raw()
            await client.send(Identify(b"{}"), Identify(b"{}"), data)
            assert [OK, OK, refused] == await client.rest()
            assert 0 == served.depth("t")

    run(main)


@pytest.mark.parametrize("layers", ["tls", "tls+deflate", "tls+snappy"])
def test_what_is_required_is_there(authority: Authority, layers: str) -> None:
    """By TLS all commands are done."""

    async def main() -> None:
        async with serving(tls=authority.server(), tls_required=True) as served:
            client = await served.client(layers, authority.client())
            await client.send(Nop(), Pub("t", [b"x", b"y"]), Mpub("t", [b"z"]))
            assert [OK, OK, OK] == await client.frames(3)
            info = served.connection(client).tls_info
            assert info is not None
            assert "TLS1.3" == info.version

    run(main)


class Asked:
    """An auth server that allows all."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, bool, str, bytes]] = []

    async def ask(
        self, remote_ip: str, *, tls: bool, common_name: str, secret: bytes
    ) -> Authorisations:
        self.asked.append((remote_ip, tls, common_name, secret))
        entry = {"topic": ".*", "channels": [".*"], "permissions": ["publish", "subscribe"]}
        return Authorisations.parse(json.dumps({"ttl": 60, "authorizations": [entry]}).encode())


@pytest.mark.parametrize("layers", ["", "deflate", "tls", "tls+snappy"])
def test_the_auth_server_is_told_of_tls(authority: Authority, layers: str) -> None:
    """It hears whether there is TLS, and the common name of the client's certificate."""

    async def main() -> None:
        asked = Asked()
        policy = {"client_auth_policy": "require", "root_ca_file": authority.roots}
        async with serving(tls=authority.server(**policy), auth=asked) as served:
            client = await served.client(layers, authority.client("shop"))
            await client.send(Auth(b"tea"), Pub("t", [b"x"]))
            assert b"permission_count" in (await client.frame())[1]
            assert OK == await client.frame()
        secure = "tls" in layers
        assert [("127.0.0.1", secure, "shop" if secure else "", b"tea")] == asked.asked

    run(main)


# Compressed streams that are much, or bad


def one_read(layers: str, data: bytes) -> bytes:
    """Return what a codec makes of many bytes."""
    made = (RawDeflate() if "deflate" in layers else FramedSnappy()).pack(data)
    assert len(made) < 1 << 18
    return made


@each_compressed
def test_others_are_served_between_pieces(authority: Authority, layers: str) -> None:
    """A read that makes megabytes is done a piece at a time, and others have their turn."""

    async def main() -> None:
        async with serving(tls=authority.server()) as served:
            client = await served.client(layers, authority.client())
            other = await served.client()
            many = Pub("t", [b"a" * 2000] * 1000).encode()
            await client.send(many)
            await other.send(Pub("u", [b"x"]))
            seen = []
            while served.depth("t") < 1000:
                await asyncio.sleep(0)
                seen.append((served.depth("t"), served.depth("u")))
            assert 1 == served.depth("u")
            steps = [there - here for (here, _), (there, _) in itertools.pairwise(seen)]
            assert max(steps) <= PIECE // 2000 + 40
            assert [] != [depth for depth, served_by_then in seen if depth < 500 and served_by_then]
            assert [OK] * 1000 == await client.frames(1000)

    run(main)


def test_small_pieces_of_snappy_count_together() -> None:
    """Chunks that are not so large that one is a piece do not keep others waiting, either."""

    async def main() -> None:
        async with serving() as served:
            client = await served.client("snappy")
            assert client.codec is not None
            batch = Pub("t", [b"a" * 2000] * 20).encode()
            data = b"".join(client.codec.pack(batch) for _ in range(60))
            await client.put(data)
            steps = []
            before = 0
            while before < 1200:
                await asyncio.sleep(0)
                steps.append(served.depth("t") - before)
                before += steps[-1]
            assert max(steps[1:]) <= 40
            assert [OK] * 1200 == await client.frames(1200)

    run(main)


def test_a_command_that_takes_time_in_the_middle_of_a_piece() -> None:
    """What follows it in the same piece, and in the pieces behind, waits for it, in order."""

    async def main() -> None:
        asked = Asked()
        async with serving(auth=asked) as served:
            client = await served.client("deflate")
            many: list[Encoded] = [
                Auth(b"tea"),
                *[Pub("t", [bytes([n % 250]) * 500]) for n in range(1000)],
            ]
            await client.send(*many)
            assert b"permission_count" in (await client.frame())[1]
            assert [OK] * 1000 == await client.frames(1000)
            await client.send(Sub("t", "c"), Rdy(1000))
            assert OK == await client.frame()
            found = [delivered(data).body for _, data in await client.frames(1000)]
            assert [bytes([n % 250]) * 500 for n in range(1000)] == found

    run(main)


def test_a_read_more_than_was_wanted() -> None:
    """A loop that reads once more before it pauses does not change the order."""

    async def main() -> None:
        async with serving() as served:
            client = await served.client("deflate")
            ours = served.connection(client)
            bodies = [b"%05d" % number * 100 for number in range(2000)]
            for at in range(0, 2000, 500):
                ours.received(client.wrapped(Pub("t", bodies[at : at + 500]).encode()))
            assert 0 < served.depth("t") < 500
            assert [OK] * 2000 == await client.frames(2000)
            await client.send(Sub("t", "c"), Rdy(2000))
            assert OK == await client.frame()
            assert bodies == [delivered(data).body for _, data in await client.frames(2000)]

    run(main)


LINE: Final = b"NOP " + b"x" * 16_000 + b"\n"


@each_compressed
def test_a_bomb_takes_little_memory(authority: Authority, layers: str) -> None:
    """What makes a thousand times as much is never there as a whole, nor in others' way."""

    async def main() -> None:
        async with serving(tls=authority.server()) as served:
            client = await served.client(layers, authority.client())
            lines = 2000 if "deflate" in layers else 200
            data = client.wrapped(LINE * lines + Pub("t", [b"x"]).encode())
            assert len(data) < 1 << 18
            gc.collect()
            tracemalloc.start()
            await client.put(data)
            other = await served.client()
            await other.send(Pub("u", [b"x"]))
            assert OK == await other.frame()
            assert 0 == served.depth("t"), "the other one has not waited for all of it"
            assert OK == await client.frame()
            _, most = tracemalloc.get_traced_memory()
            tracemalloc.stop()
            assert most < 3_000_000, f"{len(LINE) * lines} bytes took {most}"

    run(main)


@each_compressed
def test_a_bomb_without_end(authority: Authority, layers: str) -> None:
    """As long as it goes on others are served, and it is read only as fast as it is done."""

    async def main() -> None:
        async with serving(tls=authority.server()) as served:
            client = await served.client(layers, authority.client())

            async def explode() -> None:
                lines = LINE * 100
                while True:
                    await client.send(lines)
                    await asyncio.sleep(0)

            bomb = asyncio.create_task(explode())
            for _ in range(5):
                await served.is_fine()
            ours = served.connection(client)
            assert ours._session.pending <= PIECE + len(LINE)
            bomb.cancel()
            await asyncio.wait([bomb])
            client.reset()
            await served.until_over(client)

    run(main)


@each_compressed
def test_a_line_without_end(authority: Authority, layers: str) -> None:
    """Zeros without end are a line that is too long, which ends the connection at once."""

    async def main() -> None:
        async with serving(tls=authority.server()) as served:
            client = await served.client(layers, authority.client())
            size = 1 << 27 if "deflate" in layers else 1 << 21
            await client.send(b"\0" * size)
            await over_and_fine(served, client)

    run(main)


def test_a_bomb_of_answers() -> None:
    """A client that does not read its answers has no more of its bomb done."""

    async def main() -> None:
        async with serving() as served:
            client = await served.client("snappy", buffer=4096)
            ours = served.connection(client)
            asked = Identify(b'{"feature_negotiation": true}').encode() * 2000
            sent = 0
            while not ours._held & STALLED and sent < 50_000:
                await client.send(asked)
                sent += 2000
                await turns(3)
            before = ours._session.pending
            await turns(50)
            assert before == ours._session.pending
            transport = ours._transport
            assert transport is not None
            assert transport.get_write_buffer_size() < HIGH_WATER + (1 << 21)
            answered = 0
            while answered < sent:
                await client.frame()
                answered += 1

    run(main)


@each_compressed
def test_what_comes_in_spite_of_a_stall_is_done_later(authority: Authority, layers: str) -> None:
    """Pieces that a client's not reading has stopped go on when it reads."""

    async def main() -> None:
        async with serving(tls=authority.server()) as served:
            client = await served.client(layers, authority.client(), buffer=4096)
            ours = served.connection(client)
            await client.send(Sub("full", "c"), Rdy(2500))
            assert OK == await client.frame()
            served.broker.topic("full").publish([NOISE.randbytes(30_000) for _ in range(400)])
            await until(lambda: ours._held)
            await client.send(Pub("t", [b"a" * 2000] * 500), Pub("t", [b"b"]))
            await turns(50)
            before = served.depth("t")
            found: list[tuple[int, bytes]] = []
            while sum(one == OK for one in found) < 501:
                found.append(await client.frame())
            assert before < 501 == served.depth("t")

    run(main)


GARBAGE: Final = {
    "deflate": [
        b"\xff" * 100,
        b"\x07" + b"\0" * 50,
        RawDeflate().pack(b"NOP\n")[:-4] + b"\xfe" * 9,
    ],
    "snappy": [
        b"\xff" * 100,
        b"PUB t\n\0\0\0\1x",
        snappy.StreamCompressor().add_chunk(b"NOP\n")[:-1] + b"?",
        b"\x02\0\0\0",
        b"\xff\x06\0\0sNaPpY\0\xff\xff\xff",
    ],
}


@pytest.mark.parametrize("secure", ["", "tls+"])
@pytest.mark.parametrize("name", ["deflate", "snappy"])
@pytest.mark.parametrize("end", ["", "half", "reset"])
def test_garbage(authority: Authority, secure: str, name: str, end: str) -> None:
    """Bytes that are not compressed as agreed end the connection; what came before is done."""

    async def main() -> None:
        async with serving(tls=authority.server()) as served:
            for number, garbage in enumerate(GARBAGE[name]):
                client = await served.client(secure + name, authority.client())
                topic = f"t{number}"
                await client.send(Pub(topic, [b"x"]))
                assert OK == await client.frame()
                client.codec = None
                await client.send(garbage)
                if end == "half":
                    client.half_close()
                if end == "reset":
                    client.reset()
                else:
                    assert [] == await client.rest()
                await served.until_over(client)
                assert 1 == served.depth(topic)
            await served.is_fine()

    run(main)


def test_the_end_of_a_deflate_stream() -> None:
    """A client that ends its stream has said all that it can say."""

    async def main() -> None:
        async with serving() as served:
            client = await served.client("deflate")
            made = zlib.compressobj(wbits=-15)
            data = made.compress(Pub("t", [b"x"]).encode()) + made.flush(zlib.Z_FINISH)
            await client.put(data)
            assert OK == await client.frame()
            await client.put(b"more")
            assert [] == await client.rest()

    run(main)


# Ends


Phase: TypeAlias = Callable[[Served, Client, Authority], Awaitable[None]]


async def nothing(_: Served, __: Client, ___: Authority) -> None: ...


async def has_begun(_: Served, client: Client, __: Authority) -> None:
    await client.put(MAGIC)


async def in_identify(_: Served, client: Client, __: Authority) -> None:
    await client.put(MAGIC + Identify(NEGOTIATES).encode()[:-5])


async def before_the_handshake(_: Served, client: Client, __: Authority) -> None:
    await client.put(MAGIC)
    await client.identify(tls_v1=True, deflate=True)


async def in_the_handshake(_: Served, client: Client, authority: Authority) -> None:
    await client.put(MAGIC)
    await client.identify(tls_v1=True, deflate=True)
    await client.put(hello(authority))
    await client.get()


async def half_a_hello(_: Served, client: Client, authority: Authority) -> None:
    await client.put(MAGIC)
    await client.identify(tls_v1=True, deflate=True)
    await client.put(hello(authority)[:100])
    await turns(20)


def after(layers: str) -> Phase:
    async def phase(_: Served, client: Client, authority: Authority) -> None:
        await client.put(MAGIC)
        await client.upgrade(layers, authority.client())

    return phase


def consuming(layers: str) -> Phase:
    async def phase(served: Served, client: Client, authority: Authority) -> None:
        await client.put(MAGIC)
        await client.upgrade(layers, authority.client())
        await client.send(Sub("t", "c"), Rdy(10))
        assert OK == await client.frame()
        served.broker.topic("t").put(b"x")
        assert MESSAGE == (await client.frame())[0]

    return phase


def in_a_command(layers: str) -> Phase:
    async def phase(_: Served, client: Client, authority: Authority) -> None:
        await client.put(MAGIC)
        await client.upgrade(layers, authority.client())
        data = client.wrapped(Pub("t", [b"x" * 100]).encode())
        await client.put(data[:-1] if "+" in layers else data)

    return phase


def failed(layers: str) -> Phase:
    async def phase(_: Served, client: Client, authority: Authority) -> None:
        await client.put(MAGIC)
        await client.upgrade(layers, authority.client())
        await client.send(b"WHAT\n")
        assert error("E_INVALID invalid command WHAT") == await client.frame()

    return phase


def stalled(layers: str) -> Phase:
    async def phase(served: Served, client: Client, authority: Authority) -> None:
        await client.put(MAGIC)
        await client.upgrade(layers, authority.client())
        await stall(served, client)

    return phase


async def stall(served: Served, client: Client) -> None:
    """Have a client not read what it is sent."""
    await client.send(Sub("t", "c"), Rdy(2500))
    assert OK == await client.frame()
    served.broker.topic("t").publish([NOISE.randbytes(30_000 - n) for n in range(400)])
    await until(lambda: served.connection(client)._held)


PHASES: Final = {
    "nothing": nothing,
    "magic": has_begun,
    "half an IDENTIFY": in_identify,
    "before the handshake": before_the_handshake,
    "half a hello": half_a_hello,
    "in the handshake": in_the_handshake,
    "TLS": after("tls"),
    "Deflate": after("deflate"),
    "both": after("tls+deflate"),
    "Snappy": after("tls+snappy"),
    "consuming by TLS": consuming("tls"),
    "consuming by both": consuming("tls+deflate"),
    "half a command by TLS": in_a_command("tls"),
    "half a command by both": in_a_command("tls+snappy"),
    "after an error": failed("snappy"),
    "after an error by TLS": failed("tls+deflate"),
    "stalled": stalled("deflate"),
    "stalled by TLS": stalled("tls"),
    "stalled by both": stalled("tls+snappy"),
}

each_phase = pytest.mark.parametrize("phase", PHASES)


def close(client: Client) -> None:
    client.close()


def good_bye(client: Client) -> None:
    """Say by TLS that it is over, and wait for nothing."""
    client.end.send(client.good_bye())
    client.half_close()


@each_phase
@pytest.mark.parametrize("end", [Client.half_close, close, Client.reset, good_bye])
def test_a_client_that_goes(
    authority: Authority, phase: str, end: Callable[[Client], None]
) -> None:
    """Whenever it goes, and however, its connection is over, once, and others are served."""

    async def main() -> None:
        async with serving(tls=authority.server()) as served:
            client = await served.raw(buffer=4096, magic=False)
            await PHASES[phase](served, client, authority)
            end(client)
            if "stalled" in phase and end in (Client.half_close, good_bye):
                for _ in range(3):  # it is not read from before it reads
                    served.clock.advance(30)
                    await turns(20)
            await served.until_over(client)
            await served.is_fine()

    run(main)


@each_phase
def test_a_service_that_stops(authority: Authority, phase: str) -> None:
    """Whatever its connections are at, they are over when it has stopped, at once."""

    async def main() -> None:
        async with serving(tls=authority.server()) as served:
            loop = asyncio.get_running_loop()
            client = await served.raw(buffer=4096, magic=False)
            await PHASES[phase](served, client, authority)
            begun = loop.time()
            await served.service.stop()
            assert loop.time() - begun < 1  # TLS itself waits for 30 s, and a full buffer for ever
            assert served.is_over(client)
            assert not served.service.connections

    run(main)


@pytest.mark.parametrize("layers", ["tls", "tls+deflate"])
def test_tls_says_good_bye(authority: Authority, layers: str) -> None:
    """A client can tell a service that stops from a connection that somebody has cut."""

    async def main() -> None:
        async with serving(tls=authority.server()) as served:
            client = await served.client(layers, authority.client())
            await served.service.stop()
            assert [] == await client.rest()
            assert client.heard_good_bye

    run(main)


@each_phase
def test_silence_in_each_phase(
    authority: Authority, phase: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client that goes on with nothing is given up, wherever it has stopped."""
    monkeypatch.setattr(connection, "HANDSHAKE", 0.1)

    async def main() -> None:
        async with serving(tls=authority.server()) as served:
            client = await served.raw(buffer=4096, magic=False)
            await PHASES[phase](served, client, authority)
            await turns(20)
            for _ in range(4):
                served.clock.advance(30)
                await turns(20)
            await served.until_over(client)

    run(main)


@with_and_without
def test_an_error_is_the_last_that_a_client_reads(authority: Authority, layers: str) -> None:
    """It comes by the layers, behind all answers, though more was sent behind what is wrong."""

    async def main() -> None:
        async with serving(tls=authority.server()) as served:
            client = await served.client(layers, authority.client())
            await client.send(Pub("t", [b"x"]), b"WHAT\n", Pub("t", [b"y" * 1000] * 1000))
            wrong = error("E_INVALID invalid command WHAT")
            assert [OK, wrong] == await client.rest()
            client.close()
            await served.until_over(client)

    run(main)


@with_and_without
def test_a_client_that_stays_after_an_error(authority: Authority, layers: str) -> None:
    """It is not waited for longer than a second."""

    async def main() -> None:
        async with serving(tls=authority.server()) as served:
            client = await served.client(layers, authority.client())
            await client.send(b"WHAT\n")
            assert error("E_INVALID invalid command WHAT") == await client.frame()
            served.clock.advance(1)
            await served.until_over(client)

    run(main)


@with_and_without
def test_half_close_with_answers_to_come(authority: Authority, layers: str) -> None:
    """What was sent before the end of a client's stream is done and answered."""

    async def main() -> None:
        async with serving(tls=authority.server()) as served:
            client = await served.client(layers, authority.client())
            await client.send(Pub("t", [b"x"] * 100))
            client.half_close()
            assert [OK] * 100 == await client.rest()
            await served.until_over(client)
            assert 100 == served.depth("t")

    run(main)


@with_and_without
def test_half_a_command_at_the_end(authority: Authority, layers: str) -> None:
    """What is wrong with it is said, by TLS to a client that ends by TLS's own word."""

    async def main() -> None:
        async with serving(tls=authority.server()) as served:
            client = await served.client(layers, authority.client())
            await client.send(Pub("t", [b"x"]), b"PUB t\n\0\0\0\2x")
            await until(lambda: served.depth("t"))
            await client.put(client.good_bye())
            client.half_close()
            text = "E_BAD_MESSAGE PUB failed to read message body"
            assert [OK, error(text)] == await client.rest()
            await served.until_over(client)

    run(main)


# A client that does not read


@with_and_without
def test_a_client_that_does_not_read(authority: Authority, layers: str) -> None:
    """It is given no more than so much; when it reads it gets all, in order."""

    async def main() -> None:
        async with serving(tls=authority.server()) as served:
            client = await served.client(layers, authority.client(), buffer=4096)
            await stall(served, client)
            await turns(50)
            ours = served.connection(client)
            transport = ours._transport
            assert transport is not None
            assert transport.get_write_buffer_size() < HIGH_WATER + (1 << 18)
            assert len(ours._unsent) > 100
            await served.is_fine()
            bodies: list[int] = []
            while len(bodies) < 400:
                kind, data = await client.frame()
                if kind == MESSAGE:
                    bodies.append(len(delivered(data).body))
            assert [30_000 - n for n in range(400)] == bodies
            await client.send(Pub("t2", [b"x"]))
            assert OK == await client.frame()

    run(main)


def test_tls_for_a_client_that_has_read_nothing(
    authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    """One that asks for TLS with so many answers unread is not upgraded but closed."""

    async def main() -> None:
        long = {"topology_region": "x" * 3000, "tls": True}
        async with serving(tls=authority.server(), limits=long) as served:
            client = await served.raw(buffer=4096)
            asked = Identify(b'{"feature_negotiation": true}').encode() * 2000
            await client.put(asked + Identify(NEGOTIATES).encode())
            await turns(5)
            while not client.heard_good_bye and (data := await client.get()):
                client.take(data)
            await served.until_over(client)
            await served.is_fine()
        assert "closing: it has TLS begin and does not read" in caplog.text

    run(main)


# Twice


@each_layer
def test_a_second_identify_changes_no_layer(authority: Authority, layers: str) -> None:
    """Whatever comes of it, nothing is harmed; without wishes it is answered as ever."""

    async def main() -> None:
        async with serving(tls=authority.server()) as served:
            client = await served.client(layers, authority.client())
            await client.send(Identify(b"{}"), Pub("t", [b"x"]))
            assert [OK, OK] == await client.frames(2)
            flags = {"tls_v1" if name == "tls" else name: True for name in layers.split("+")}
            body = json.dumps({"feature_negotiation": True} | flags).encode()
            await client.send(Identify(body))
            if "tls" in layers:
                assert [error("E_IDENTIFY_FAILED IDENTIFY failed TLS is there already")] == (
                    await client.rest()
                )
            else:
                await until(client.has)
                client.close()
            await served.until_over(client)
            await served.is_fine()

    run(main)


def test_without_sockets_left(authority: Authority) -> None:
    """Hundreds of handshakes that end in each way leave nothing behind."""

    async def main() -> None:
        async with serving(tls=authority.server()) as served:
            first = hello(authority)
            for number in range(60):
                client = await served.raw()
                await client.identify(tls_v1=True, deflate=True)
                await client.put(first[: number * 9])
                (client.close, client.reset, client.half_close)[number % 3]()
            await until(lambda: not served.service.connections)

    run(main)
