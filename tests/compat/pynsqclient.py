"""A program that uses pynsq, with its Reader and Writer; see `driving`.

Its seconds are those of the clock, unless it is started with a number: then so many times as many
go by for the Reader, which waits 15 before it connects again, and cannot be told to wait less.
"""

import asyncio
import sys
import time
import types
from typing import Any

import nsq
from tornado.ioloop import IOLoop

from compat.driving import body_of, numbered, serve, tell

OPTIONS = {"heartbeat": "heartbeat_interval", "secret": "auth_secret"}


def hurry(times: float) -> None:
    """Let time go by faster for what waits in the loop, and for readers."""
    call_later = IOLoop.call_later
    IOLoop.call_later = lambda loop, delay, *call, **more: call_later(  # type: ignore[method-assign]
        loop, delay / times, *call, **more
    )
    nsq.reader.time = types.SimpleNamespace(time=lambda: time.time() * times)


def options_of(asked: dict[str, Any]) -> dict[str, Any]:
    """Return pynsq's options for those that all programs have."""
    options = {OPTIONS.get(name, name): value for name, value in asked.items()}
    authority = options.pop("tls", None)
    if authority:
        options.update(tls_v1=True, tls_options={"ca_certs": authority})
    return options


class Telling(nsq.client.Client):  # type: ignore[misc]  # it has no types
    """What tells what it hears."""

    def heartbeat(self, conn: Any) -> None:  # noqa: ARG002 - pynsq's
        """Tell of a heartbeat."""
        tell(self.name, "heartbeat")

    def _on_connection_auth_response(self, conn: Any, data: Any, **more: Any) -> None:
        super()._on_connection_auth_response(conn, data, **more)
        tell(self.name, "auth", said=str(data))

    def _on_connection_error(self, conn: Any, error: Any, **more: Any) -> None:
        super()._on_connection_error(conn, error, **more)
        tell(self.name, "error", text=str(error))


class Writer(Telling, nsq.Writer):  # type: ignore[misc]  # it has no types
    """One that tells when it is connected."""

    def _on_connection_ready(self, conn: Any, **more: Any) -> None:
        super()._on_connection_ready(conn, **more)
        tell(self.name, "ready")


class Reader(Telling, nsq.Reader):  # type: ignore[misc]  # it has no types
    """One that tells what it hears."""


class Program:
    """What is asked for, by its name."""

    def __init__(self) -> None:
        self.writers: dict[str, Writer] = {}
        self.readers: dict[str, Reader] = {}
        self.messages: dict[tuple[str, str], Any] = {}

    async def writer(self, name: str, port: int, **asked: Any) -> None:
        """Make a writer, which connects, now and again."""
        options = options_of(asked)
        self.writers[name] = Writer(
            [f"127.0.0.1:{port}"], reconnect_interval=0.05, name=name, **options
        )

    def _published(self, call: str, name: str, *what: Any) -> "asyncio.Future[str]":
        future = asyncio.get_running_loop().create_future()

        def called_back(_conn: Any, data: Any) -> None:
            if isinstance(data, nsq.Error):
                future.set_exception(data)
            else:
                future.set_result(data.decode())

        getattr(self.writers[name], call)(*what, callback=called_back)
        return future

    async def pub(self, name: str, topic: str, body: str) -> str:
        """Publish a message."""
        return await self._published("pub", name, topic, body_of(body))

    async def mpub(self, name: str, topic: str, bodies: list[str]) -> str:
        """Publish several."""
        return await self._published("mpub", name, topic, [body_of(body) for body in bodies])

    async def dpub(self, name: str, topic: str, delay: int, body: str) -> str:
        """Publish one for later."""
        return await self._published("dpub", name, topic, delay, body_of(body))

    async def flood(self, name: str, topic: str, first: int, count: int) -> list[int]:
        """Publish many, one by one, without waiting; return the numbers that were taken."""
        bodies = numbered(first, count)
        answers = [self._published("pub", name, topic, body) for body in bodies]
        taken = await asyncio.gather(*answers, return_exceptions=True)
        return [first + place for place, said in enumerate(taken) if said == "OK"]

    async def reader(
        self, name: str, port: int, topic: str, channel: str, window: int, **asked: Any
    ) -> None:
        """Make a reader, which tells of each message, and finishes it unless it is to be kept."""
        keep = asked.pop("keep", False)

        def handle(message: Any) -> bool:
            told = {"body": message.body, "attempts": message.attempts, "id": message.id}
            tell(name, "message", **told, timestamp=message.timestamp)
            if keep:
                message.enable_async()
                self.messages[name, message.body.decode("latin-1")] = message
            return True

        self.readers[name] = Reader(
            topic,
            channel,
            handle,
            name=name,
            nsqd_tcp_addresses=[f"127.0.0.1:{port}"],
            max_in_flight=window,
            max_backoff_duration=1,
            **options_of(asked),
        )

    async def fin(self, name: str, body: str) -> None:
        """Finish a message that was kept."""
        self.messages.pop((name, body)).finish()

    async def req(self, name: str, body: str, delay: int, *, backoff: bool) -> None:
        """Requeue one; the delay is in milliseconds."""
        self.messages.pop((name, body)).requeue(time_ms=delay, backoff=backoff)

    async def touch(self, name: str, body: str) -> None:
        """Touch one."""
        self.messages[name, body].touch()


if len(sys.argv) > 1:
    hurry(float(sys.argv[1]))
asyncio.run(serve(Program()))
