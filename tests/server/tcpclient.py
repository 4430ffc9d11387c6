"""A client of NSQ's TCP protocol that sends commands, and shows what comes back."""

import asyncio
import json
import struct
from types import TracebackType
from typing import Any, Protocol, Self

from rawclient import Encoded

from nsqlite.server.listener import host_and_port
from nsqlite.wire.commands import MAGIC, Fin, Identify, Pub, Rdy, Sub
from nsqlite.wire.frames import MESSAGE, Delivered, delivered


class Node(Protocol):
    """What can be connected to."""

    @property
    def tcp_address(self) -> str | None: ...


class Client:
    """A connection, for the time of a block."""

    def __init__(self, node: Node) -> None:
        self._node = node

    async def __aenter__(self) -> Self:
        address = self._node.tcp_address
        assert address is not None
        where = host_and_port(address)
        if where is None:
            made = await asyncio.open_unix_connection(address)
        else:
            made = await asyncio.open_connection(*where)
        self.reader, self.writer = made
        self.writer.write(MAGIC)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.writer.close()

    def send(self, *commands: Encoded) -> None:
        """Send commands."""
        self.writer.write(b"".join(command.encode() for command in commands))

    async def frame(self) -> tuple[int, bytes]:
        """Return the next frame, its type and data."""
        size, kind = struct.unpack(">II", await self.reader.readexactly(8))
        return kind, await self.reader.readexactly(size - 4)

    async def ask(self, *commands: Encoded) -> bytes:
        """Send commands, and return what the next frame holds."""
        self.send(*commands)
        return (await self.frame())[1]

    async def identify(self, **asked: Any) -> dict[str, Any]:
        """Say who it is, and return what was agreed on."""
        body = json.dumps({"feature_negotiation": True} | asked).encode()
        found: dict[str, Any] = json.loads(await self.ask(Identify(body)))
        return found

    async def put(self, topic: str, *bodies: bytes) -> None:
        """Publish messages, one after the other."""
        for body in bodies:
            assert await self.ask(Pub(topic, [body])) == b"OK"

    async def subscribe(self, topic: str, channel: str, window: int = 1) -> None:
        """Join a channel, and have messages come."""
        assert await self.ask(Sub(topic, channel)) == b"OK"
        self.send(Rdy(window))

    async def message(self) -> Delivered:
        """Return the next message; what comes before it is a heartbeat."""
        kind, data = await self.frame()
        while data == b"_heartbeat_":
            kind, data = await self.frame()
        assert kind == MESSAGE, data
        return delivered(data)

    def finish(self, message: Delivered) -> None:
        """Finish a message."""
        self.send(Fin([message.id.decode("latin-1")]))

    async def end(self) -> bytes:
        """Return what still comes until the connection is closed."""
        return await self.reader.read()
