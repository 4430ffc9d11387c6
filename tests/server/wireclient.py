"""A TCP service on loopback, and a client of it that keeps each byte in its hands."""

import asyncio
import gc
import json
import logging
import socket
import ssl
import zlib
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final, Protocol, Self

import pytest
import snappy
import trustme
from aio.loops import turns, until
from helpers import PATIENCE
from rawclient import Encoded

from nsqlite import Broker, aio
from nsqlite.server.connection import Asker, Connection
from nsqlite.server.tcp import TCPService
from nsqlite.server.tls import server_context
from nsqlite.testing import ManualClock
from nsqlite.wire.commands import MAGIC, Identify
from nsqlite.wire.frames import ERROR, RESPONSE
from nsqlite.wire.identify import Limits
from nsqlite.wire.session import SessionLimits

OK: Final = (RESPONSE, b"OK")
HEARTBEAT: Final = (RESPONSE, b"_heartbeat_")


def error(text: str) -> tuple[int, bytes]:
    return ERROR, text.encode()


class Authority:
    """Who signs certificates, and contexts with them."""

    def __init__(self, folder: Path) -> None:
        self.authority = trustme.CA()
        self.roots = str(folder / "roots.pem")
        self.cert = str(folder / "cert.pem")
        self.key = str(folder / "key.pem")
        made = self.authority.issue_cert("localhost")
        self.authority.cert_pem.write_to_path(self.roots)
        made.cert_chain_pems[0].write_to_path(self.cert)
        made.private_key_pem.write_to_path(self.key)

    def server(self, **options: Any) -> ssl.SSLContext:
        found = server_context(cert=self.cert, key=self.key, **options)
        assert found is not None
        return found

    def client(self, name: str | None = None) -> ssl.SSLContext:
        """Return what a client makes connections with; with a certificate if it has a name."""
        made = ssl.create_default_context()
        self.authority.configure_trust(made)
        if name is not None:
            cert = self.authority.issue_cert("client@example.org", common_name=name)
            cert.configure_cert(made)
        return made


class Codec(Protocol):
    """A client's compression."""

    def pack(self, data: bytes) -> bytes: ...

    def unpack(self, data: bytes) -> bytes: ...


class RawDeflate:
    """Deflate in zlib's own words."""

    def __init__(self) -> None:
        self._out = zlib.compressobj(6, zlib.DEFLATED, -15)
        self._in = zlib.decompressobj(-15)

    def pack(self, data: bytes) -> bytes:
        return self._out.compress(data) + self._out.flush(zlib.Z_SYNC_FLUSH)

    def unpack(self, data: bytes) -> bytes:
        return self._in.decompress(data)


class FramedSnappy:
    """Snappy in python-snappy's own words."""

    def __init__(self) -> None:
        self._out = snappy.StreamCompressor()
        self._in = snappy.StreamDecompressor()

    def pack(self, data: bytes) -> bytes:
        made: bytes = self._out.add_chunk(data)
        return made

    def unpack(self, data: bytes) -> bytes:
        made: bytes = self._in.decompress(data)
        return made


CODECS: Final[dict[str, Callable[[], Codec]]] = {"deflate": RawDeflate, "snappy": FramedSnappy}


class Client:
    """A client on a socket, which sends and reads what a test says and nothing else."""

    def __init__(self, end: socket.socket) -> None:
        self.end = end
        self.codec: Codec | None = None
        self.tls: ssl.SSLObject | None = None
        self.reply: dict[str, Any] = {}
        self.heard_good_bye = False
        self.port = 0 if end.family != socket.AF_INET else end.getsockname()[1]
        self._loop = asyncio.get_running_loop()
        self._in = ssl.MemoryBIO()
        self._out = ssl.MemoryBIO()
        self._read = bytearray()  # what came, without TLS
        self._unpacked = bytearray()  # and without compression

    @classmethod
    async def connect(cls, port: int, *, buffer: int = 0, magic: bool = True) -> Self:
        end = socket.socket()
        end.setblocking(False)
        end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if buffer:
            end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(end, ("127.0.0.1", port))
        found = cls(end)
        if magic:
            await found.put(MAGIC)
        return found

    # Out

    async def put(self, data: bytes, step: int = 0) -> None:
        """Send bytes as they are, in so large pieces, each read by itself."""
        if not step:
            async with asyncio.timeout(PATIENCE):
                await self._loop.sock_sendall(self.end, data)
            return
        for at in range(0, len(data), step):
            await self._loop.sock_sendall(self.end, data[at : at + step])
            await turns(2)

    def wrapped(self, data: bytes) -> bytes:
        """Return what is sent for some bytes."""
        if self.codec is not None:
            data = self.codec.pack(data)
        if self.tls is not None:
            self.tls.write(data)
            data = self._out.read()
        return data

    async def send(self, *commands: Encoded | bytes, step: int = 0) -> None:
        data = b"".join(one if isinstance(one, bytes) else one.encode() for one in commands)
        await self.put(self.wrapped(data), step)

    # In

    async def get(self) -> bytes:
        """Read bytes as they are; none at the end."""
        async with asyncio.timeout(PATIENCE):
            return await self._loop.sock_recv(self.end, 1 << 16)

    def has(self) -> bool:
        """Say whether there is something to read, or it is the end."""
        try:
            self.end.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return False
        return True

    def take(self, data: bytes) -> None:
        """Take what was read."""
        if self.tls is None:
            self._read += data
            return
        self._in.write(data)
        try:
            while piece := self.tls.read(1 << 16):
                self._read += piece
        except ssl.SSLWantReadError:
            return
        except ssl.SSLZeroReturnError:  # where the client has said good-bye as well
            pass
        self.heard_good_bye = True

    def cut(self) -> tuple[int, bytes] | None:
        """Return the next frame; None if it is not all there.

        What is behind it stays as it is: that can be compressed, if this tells that it will be.
        """
        if self.codec is not None and self._read:
            self._unpacked += self.codec.unpack(bytes(self._read))
            self._read.clear()
        data = self._read if self.codec is None else self._unpacked
        end = 4 + int.from_bytes(data[:4], "big")
        if len(data) < 8 or len(data) < end:
            return None
        found = int.from_bytes(data[4:8], "big"), bytes(data[8:end])
        del data[:end]
        return found

    async def frame(self) -> tuple[int, bytes]:
        """Read a frame."""
        while (found := self.cut()) is None:
            data = await self.get()
            assert data, "the server has closed"
            self.take(data)
        return found

    async def frames(self, count: int) -> list[tuple[int, bytes]]:
        return [await self.frame() for _ in range(count)]

    async def rest(self) -> list[tuple[int, bytes]]:
        """Read all frames until the server closes, and close."""
        try:
            while not self.heard_good_bye and (data := await self.get()):
                self.take(data)
        except ConnectionError:
            pass
        self.close()
        return list(iter(self.cut, None))

    # Layers

    async def identify(self, **asked: Any) -> dict[str, Any]:
        """Send IDENTIFY and read its answer, in JSON."""
        body = json.dumps({"feature_negotiation": True} | asked).encode()
        await self.send(Identify(body))
        kind, data = await self.frame()
        assert kind == RESPONSE, data
        self.reply = json.loads(data)
        return self.reply

    async def shake(self, context: ssl.SSLContext, behind: bytes = b"") -> None:
        """Do the client's part of a handshake, with what is sent behind it at once."""
        tls = context.wrap_bio(self._in, self._out, server_hostname="localhost")
        while True:
            try:
                tls.do_handshake()
            except ssl.SSLWantReadError:
                await self.put(self._out.read())
                data = await self.get()
                if not data:
                    raise ConnectionResetError from None
                self._in.write(data)
            except ssl.SSLError:
                await self.put(self._out.read())
                raise
            else:
                break
        if behind:
            tls.write(behind)
        await self.put(self._out.read())
        self.tls = tls

    async def upgrade(
        self, layers: str, context: ssl.SSLContext | None = None, **asked: Any
    ) -> None:
        """Negotiate layers, as "tls+deflate", and put them on."""
        wanted = layers.split("+") if layers else []
        flags = {"tls_v1" if name == "tls" else name: True for name in wanted}
        await self.identify(**(flags | asked))
        assert flags.items() <= self.reply.items()
        if "tls" in wanted:
            assert context is not None
            await self.shake(context)
            assert OK == await self.frame()
        for name in wanted:
            if name in CODECS:
                self.codec = CODECS[name]()
                assert OK == await self.frame()

    # The end

    def good_bye(self) -> bytes:
        """Return what is sent to say by TLS that this is the end; nothing without TLS."""
        if self.tls is not None:
            with suppress(ssl.SSLWantReadError):
                self.tls.unwrap()
        return self._out.read()

    def half_close(self) -> None:
        self.end.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """Close at once, without the usual good-bye."""
        self.end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.end.close()

    def close(self) -> None:
        self.end.close()


class WatchedService(TCPService):
    """A TCP service that counts the ends of its connections."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.begun: list[Connection] = []
        self.ends: Counter[Connection] = Counter()

    def opened(self, connection: Connection, transport: asyncio.Transport) -> bool:
        self.begun.append(connection)
        return super().opened(connection, transport)

    def closed(self, connection: Connection) -> None:
        self.ends[connection] += 1
        super().closed(connection)


class Served:
    """A service of a test, and what has happened in its loop."""

    def __init__(self, service: WatchedService, clock: ManualClock, port: int) -> None:
        self.service = service
        self.clock = clock
        self.port = port
        self.broker = service.broker
        self.clients: list[Client] = []
        self.told: list[dict[str, Any]] = []

    async def client(
        self,
        layers: str = "",
        context: ssl.SSLContext | None = None,
        *,
        buffer: int = 0,
        **asked: Any,
    ) -> Client:
        """Return a client that has the layers."""
        found = await self.raw(buffer=buffer)
        await found.upgrade(layers, context, **asked)
        return found

    async def raw(self, *, buffer: int = 0, magic: bool = True) -> Client:
        """Return a client that has said no more than the magic bytes, if these."""
        count = len(self.service.begun)
        found = await Client.connect(self.port, buffer=buffer, magic=magic)
        self.clients.append(found)
        await until(lambda: len(self.service.begun) > count)
        return found

    def connection(self, client: Client) -> Connection:
        """Return the server's side of a client."""
        return self.service.begun[self.clients.index(client)]

    def is_over(self, client: Client) -> bool:
        return self.service.ends[self.connection(client)] > 0

    async def until_over(self, client: Client) -> None:
        await until(lambda: self.is_over(client))

    def depth(self, topic: str) -> int:
        """Return how many messages a topic was given; 0 if there is none."""
        found = self.broker._topics.get(topic)
        return 0 if found is None else found.stats().message_count

    async def is_fine(self) -> None:
        """Make sure that another client is served."""
        async with asyncio.timeout(PATIENCE):
            other = await self.raw()
            await other.send(b"PUB fine\n\0\0\0\1x")
            assert OK == await other.frame()


@asynccontextmanager
async def serving(
    *,
    auth: Asker | None = None,
    tls: ssl.SSLContext | None = None,
    store: Any = None,
    limits: dict[str, Any] | None = None,
    **session: Any,
) -> AsyncIterator[Served]:
    """Serve, and see to it that nothing is left of it and that nothing went wrong unseen."""
    loop = asyncio.get_running_loop()
    clock = ManualClock()
    broker = Broker(clock=clock, store=store)
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    service = WatchedService(
        broker,
        listener,
        auth=auth,
        tls=tls,
        limits=Limits(
            **{"tls": tls is not None, "auth_required": auth is not None, **(limits or {})}
        ),
        session_limits=SessionLimits(**session),
    )
    served = Served(service, clock, listener.getsockname()[1])
    loop.set_exception_handler(lambda _, context: served.told.append(context))
    await service.start()
    try:
        yield served
    finally:
        await asyncio.wait_for(service.stop(), PATIENCE)
        for client in served.clients:
            client.close()
        await aio.close(broker)
    others = [task for task in asyncio.all_tasks() if "Connection." in repr(task.get_coro())]
    await asyncio.wait_for(asyncio.gather(*others, return_exceptions=True), PATIENCE)
    gc.collect()
    await turns(3)
    assert [] == served.told
    assert not service.connections
    assert [] == [count for count in service.ends.values() if count != 1]
    assert set(service.begun) == set(service.ends)


def harmless(caplog: pytest.LogCaptureFixture) -> bool:
    """Say whether no log tells of a fault in the server."""
    return [] == [
        one.getMessage()
        for one in caplog.records
        if one.exc_info or one.levelno >= logging.ERROR or one.name == "asyncio"
    ]
