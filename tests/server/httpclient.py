"""A client of HTTP that sends bytes as they are given, and shows what comes back."""

import asyncio
import json
import ssl
from collections.abc import Mapping
from types import TracebackType
from typing import Any, NamedTuple, Self


class Reply(NamedTuple):
    """An answer.

    Attributes:
        status: its number.
        headers: by their names in small letters.
        body: what stands behind them.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def closes(self) -> bool:
        """Whether the server has said that it closes the connection."""
        return self.headers.get("connection") == "close"


class Client:
    """A connection, for the time of a block."""

    def __init__(self, address: str, tls: ssl.SSLContext | None = None) -> None:
        self._address = address
        self._tls = tls

    async def __aenter__(self) -> Self:
        if "/" in self._address:
            made = await asyncio.open_unix_connection(self._address)
        else:
            host, _, port = self._address.rpartition(":")
            made = await asyncio.open_connection(host.strip("[]"), int(port), ssl=self._tls)
        self.reader, self.writer = made
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.writer.close()

    def send(self, data: bytes) -> None:
        """Send bytes."""
        self.writer.write(data)

    async def reply(self, *, head: bool = False) -> Reply:
        """Return the next answer; with `head` one of which only the head comes."""
        lines = (await self.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines[1:] if line)
        exact = dict(line.split(": ", 1) for line in lines[1:] if line)
        headers |= {name.lower(): value for name, value in exact.items()}
        size = 0 if head else int(headers.get("content-length", 0))
        return Reply(int(lines[0].split(" ")[1]), headers, await self.reader.readexactly(size))

    async def ask(self, method: str, path: str, body: bytes | None = None, head: str = "") -> Reply:
        """Send a request, and return its answer."""
        size = "" if body is None else f"Content-Length: {len(body)}\r\n"
        text = f"{method} {path} HTTP/1.1\r\nHost: nsqd\r\n{size}{head}\r\n"
        self.send(text.encode() + (body or b""))
        return await self.reply(head=method == "HEAD")

    async def rest(self) -> bytes:
        """Return what comes until the server closes the connection."""
        try:
            return await self.reader.read()
        except (ConnectionResetError, BrokenPipeError):  # the second: a send has found it closed
            return b""
