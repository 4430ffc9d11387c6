"""A TCP service on a loopback address, and clients of it, in one event loop."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from struct import pack
from typing import Any, Final

from aio.loops import turns, until
from helpers import GoingClock
from rawclient import Encoded

from nsqlite import Broker
from nsqlite.server.connection import Connection
from nsqlite.server.listener import listen
from nsqlite.server.tcp import TCPService
from nsqlite.testing import ManualClock
from nsqlite.wire.authorisation import Authorisations
from nsqlite.wire.commands import MAGIC, Auth, Fin, Identify, Mpub, Nop, Pub, Rdy, Sub
from nsqlite.wire.compression import Deflate
from nsqlite.wire.frames import ERROR, MESSAGE, RESPONSE, Delivered, Frames, delivered

OPTIONS: Final[dict[str, Any]] = {"max_req_timeout": 3600.0}
"""What nsqd's options say otherwise than a broker's."""


class Anybody:
    """An auth server that lets everybody do everything."""

    async def ask(self, remote_ip: str, **_: object) -> Authorisations:
        """Return what a client may do."""
        assert remote_ip == "127.0.0.1"
        return Authorisations.parse(
            b'{"ttl": 3600, "authorizations": [{"topic": ".*", "channels": [".*"],'
            b' "permissions": ["subscribe", "publish"]}]}'
        )


class Client:
    """A client: it sends commands, and waits for the frames that it gets.

    Attributes:
        socket: its end.
        address: its own, as the server sees it.
        layer: what it compresses with, if it does.
    """

    def __init__(self, sock: socket.socket) -> None:
        self.socket: Final = sock
        self.loop: Final = asyncio.get_running_loop()
        host, port = sock.getsockname()[:2]
        self.address: Final = f"{host}:{port}"
        self.layer: Deflate | None = None
        self._frames: Final = Frames()
        self._read: Final[list[tuple[int, bytes]]] = []

    async def send(self, *commands: Encoded | bytes) -> None:
        """Send commands in one piece."""
        parts = [one if isinstance(one, bytes) else one.encode() for one in commands]
        data = b"".join(parts)
        await self.loop.sock_sendall(
            self.socket, data if self.layer is None else self.layer.compress(data)
        )

    async def frame(self) -> tuple[int, bytes]:
        """Return the next frame."""
        while not self._read:
            data = await self.loop.sock_recv(self.socket, 1 << 16)
            if not data:
                raise EOFError
            if self.layer is not None:
                data = b"".join(self.layer.decompress(data, 1 << 20))
            self._read.extend(self._frames.feed(data))
        return self._read.pop(0)

    async def answer(self) -> bytes:
        """Return the next frame, which is an answer."""
        kind, data = await self.frame()
        assert RESPONSE == kind, data[:200]
        return data

    async def ok(self, count: int = 1) -> None:
        """Wait until commands are answered, each with OK."""
        for _ in range(count):
            assert b"OK" == await self.answer()

    async def error(self) -> str:
        """Return the next frame, which is an error."""
        kind, data = await self.frame()
        assert ERROR == kind, data[:200]
        return data.decode("latin-1")

    async def heartbeat(self) -> None:
        """Wait for a heartbeat."""
        assert b"_heartbeat_" == await self.answer()

    async def message(self) -> Delivered:
        """Return the next frame, which is a message."""
        kind, data = await self.frame()
        assert MESSAGE == kind, data[:200]
        return delivered(data)

    async def messages(self, count: int) -> list[Delivered]:
        """Return so many messages."""
        return [await self.message() for _ in range(count)]

    async def bodies(self, count: int) -> list[bytes]:
        """Return the bodies of so many messages."""
        return [message.body for message in await self.messages(count)]

    async def over(self) -> None:
        """Wait until the server has closed, and nothing came before that."""
        assert [] == self._read
        with suppress(ConnectionError):
            assert b"" == await self.loop.sock_recv(self.socket, 1)

    async def refused(self) -> str:
        """Return an error that is the end of the connection."""
        error = await self.error()
        await self.over()
        self.close()
        return error

    async def quiet(self) -> None:
        """Have all be done that was sent, and see that nothing comes of it but one answer."""
        await self.send(Pub("quiet#ephemeral", [b"x"]))
        await self.ok()
        assert [] == self._read

    async def identify(self, **said: Any) -> Any:
        """Say who it is, and return the answer."""
        said = {"feature_negotiation": True, **said}
        await self.send(Identify(json.dumps(said).encode()))
        return json.loads(await self.answer())

    async def exact(self) -> bytes:
        """Return the data of the next frame, and read no byte behind it."""
        data = b""
        size = 4
        while len(data) < size:
            data += await self.loop.sock_recv(self.socket, size - len(data))
            size = 4 + int.from_bytes(data[:4], "big")
        return data[8:]

    async def compress(self) -> None:
        """Have all compressed from now on."""
        await self.send(Identify(b'{"feature_negotiation":true,"deflate":true}'))
        assert json.loads(await self.exact())["deflate"]
        self.layer = Deflate(6)
        await self.ok()

    async def authorise(self) -> None:
        """Tell a secret that is good for everything."""
        await self.send(Auth(b"secret"))
        assert 1 == json.loads(await self.answer())["permission_count"]

    async def subscribe(
        self, topic: str = "t", channel: str = "c", window: int | None = None
    ) -> None:
        """Join a channel, and open a window."""
        await self.send(Sub(topic, channel), *([] if window is None else [Rdy(window)]))
        await self.ok()

    async def publish(self, *bodies: bytes, topic: str = "t") -> None:
        """Publish messages in one piece."""
        await self.send(Mpub(topic, list(bodies)))
        await self.ok()

    async def finish(self, *messages: Delivered) -> None:
        """Finish messages."""
        await self.send(Fin([message.id.decode() for message in messages]))

    def reset(self) -> None:
        """Close as a machine does that has been switched off and on again."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, pack("ii", 1, 0))
        self.socket.close()

    def close(self) -> None:
        """Close."""
        self.socket.close()


class Place:
    """A broker, its TCP service, and clients.

    Attributes:
        clock: what time it is.
        broker: the broker; `Any`, as is all that it makes.
        service: the service.
    """

    def __init__(self, broker: Broker | None = None, **options: Any) -> None:
        self.clock: Final = GoingClock(patience=20) if broker is None else broker.clock
        self.broker: Any = broker or Broker(clock=self.clock, **OPTIONS)
        self._listener: Final = listen("127.0.0.1:0")
        self.where: Final = self._listener.getsockname()
        self.service: Final = TCPService(self.broker, self._listener, **options)
        self.clients: Final[list[Client]] = []

    async def connect(
        self, *, magic: bytes = MAGIC, small: bool = False, let_in: bool = True
    ) -> Client:
        """Return a new client; the server has read what it sends.

        Args:
            magic: what it sends first.
            small: it has little room for what it does not read.
            let_in: whether the server lets it in.
        """
        sock = socket.socket()
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if small:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        try:
            await asyncio.get_running_loop().sock_connect(sock, self.where)
        except OSError:
            sock.close()
            raise
        client = Client(sock)
        self.clients.append(client)
        if let_in:
            session = (await self.connection(client))._session
            await client.send(magic)
            await until(lambda: session.begun or session.over or session.pending >= len(magic))
        return client

    async def consumer(
        self, window: int | None = 1, topic: str = "t", channel: str = "c", **said: Any
    ) -> Client:
        """Return a client that has subscribed."""
        client = await self.connect()
        if said:
            await client.identify(**said)
        await client.subscribe(topic, channel, window)
        return client

    async def connection(self, client: Client) -> Connection:
        """Return the server's end of a client."""
        while True:
            for one in self.service.connections:
                if one.remote_address == client.address:
                    return one
            await turns(1)

    async def advance(self, seconds: float) -> None:
        """Move the clock, and have done what is to be done then."""
        assert isinstance(self.clock, ManualClock)
        self.clock.advance(seconds)
        await turns()

    async def beat(self, *clients: Client, seconds: float = 30) -> None:
        """Move the clock to the next heartbeat, which clients answer."""
        await self.advance(seconds)
        for client in clients:
            await client.heartbeat()
            await client.send(Nop())
        for client in clients:
            await client.quiet()

    @property
    def channel(self) -> Any:
        """Return the channel that most tests use."""
        return self.broker.topic("t").channel("c")


@asynccontextmanager
async def served(broker: Broker | None = None, **options: Any) -> AsyncIterator[Place]:
    """Serve a broker, and look after it whether all is as it must be."""
    place = Place(broker, **options)
    await place.service.start()
    try:
        yield place
        place.broker._check()
    finally:
        await place.service.stop()
        for client in place.clients:
            client.close()
        if broker is None:
            place.broker.close()
    assert [] == list(place.service.connections)
    assert {} == place.service._readers
    await turns()
