"""A client of nsqd for tests: a socket, and NSQ's commands and frames as they are."""

import json
import socket
from collections import deque
from types import TracebackType
from typing import Any, Protocol, Self

from helpers import PATIENCE

from nsqlite.wire.commands import MAGIC, Fin, Identify, Pub, Rdy, Sub
from nsqlite.wire.frames import MESSAGE, Delivered, Frames, delivered


class Encoded(Protocol):
    """A command."""

    def encode(self) -> bytes: ...


class RawClient:
    """A connection to an nsqd, which begins with the magic bytes."""

    def __init__(self, address: str) -> None:
        host, _, port = address.rpartition(":")
        self.socket = socket.create_connection((host, int(port)), PATIENCE)
        self._frames = Frames()
        self._read: deque[tuple[int, bytes]] = deque()
        self.socket.sendall(MAGIC)

    def send(self, *commands: Encoded) -> None:
        self.socket.sendall(b"".join(command.encode() for command in commands))

    def next(self) -> tuple[int, bytes]:
        """Return the next frame, its type and data."""
        while not self._read:
            data = self.socket.recv(1 << 16)
            if not data:
                raise EOFError
            self._read.extend(self._frames.feed(data))
        return self._read.popleft()

    def exactly(self, count: int) -> bytes:
        """Return the next bytes, which are no frames, or not to be read beyond."""
        data = self.socket.recv(count, socket.MSG_WAITALL)
        assert len(data) == count
        return data

    def message(self) -> Delivered:
        kind, data = self.next()
        assert kind == MESSAGE, data
        return delivered(data)

    def ask(self, *commands: Encoded) -> bytes:
        """Send commands, and return the data of the next frame."""
        self.send(*commands)
        return self.next()[1]

    def identify(self, client_id: str, **asked: Any) -> bytes:
        body = {"client_id": client_id, "feature_negotiation": True} | asked
        return self.ask(Identify(json.dumps(body).encode()))

    def pub(self, *bodies: bytes, topic: str = "orders") -> bytes:
        return self.ask(Pub(topic, list(bodies)))

    def sub(self, window: int = 1, topic: str = "orders", channel: str = "billing") -> None:
        assert self.ask(Sub(topic, channel)) == b"OK"
        self.send(Rdy(window))

    def fin(self, message: Delivered) -> None:
        self.send(Fin([message.id.decode()]))

    def waiting(self) -> list[tuple[int, bytes]]:
        """Return the frames that have come by now."""
        self.socket.setblocking(False)
        try:
            while data := self.socket.recv(1 << 16):
                self._read.extend(self._frames.feed(data))
        except BlockingIOError:
            pass
        finally:
            self.socket.settimeout(PATIENCE)
        found = list(self._read)
        self._read.clear()
        return found

    def is_over(self) -> bool:
        """Return whether the connection ends, when what is left of it is read."""
        try:
            while self.socket.recv(1 << 16):
                pass
        except ConnectionResetError:
            pass
        return True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.socket.close()
