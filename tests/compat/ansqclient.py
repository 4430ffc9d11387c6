"""A program that uses ansq: its Writer, and its connections for what is read; see `driving`."""

import asyncio
from typing import Any

from ansq import ConnectionFeatures, ConnectionOptions, open_connection
from ansq.http.writer import NSQDHTTPWriter
from ansq.tcp.connection import NSQConnection
from ansq.tcp.types import NSQErrorSchema, NSQMessage, TCPConnection
from ansq.tcp.writer import Writer, create_writer

from compat.driving import body_of, numbered, serve, tell


def options_of(name: str, asked: dict[str, Any]) -> ConnectionOptions:
    """Return ansq's options for those that all programs have."""

    async def hear(_connection: TCPConnection) -> None:
        tell(name, "heartbeat")

    features = {}
    if "heartbeat" in asked:
        features["heartbeat_interval"] = asked["heartbeat"] * 1000
    if "msg_timeout" in asked:
        features["msg_timeout"] = asked["msg_timeout"] * 1000
    return ConnectionOptions(features=ConnectionFeatures(**features), on_heartbeat=hear)


class Refused(Exception):
    """What the server answers is an error."""


def text_of(answer: Any) -> str:
    """Return an answer as a text; raise one that is an error."""
    if isinstance(answer, NSQErrorSchema):
        raise Refused(answer.text)
    return str(answer.text)


class Program:
    """What is asked for, by its name."""

    def __init__(self) -> None:
        self.writers: dict[str, Writer | NSQConnection] = {}
        self.connections: dict[str, NSQConnection] = {}
        self.messages: dict[tuple[str, str], NSQMessage] = {}
        self.tasks: set[asyncio.Task[None]] = set()

    async def writer(self, name: str, port: int, **asked: Any) -> None:
        """Make a writer; with a secret it is a connection, as a Writer of ansq does not AUTH."""
        options = options_of(name, asked)
        if "secret" in asked:
            connection = await open_connection("127.0.0.1", port, connection_options=options)
            said = text_of(await connection.auth(asked["secret"]))
            tell(name, "auth", said=said)
            self.writers[name] = connection
        else:
            self.writers[name] = await create_writer([f"127.0.0.1:{port}"], options)
        tell(name, "ready")

    async def pub(self, name: str, topic: str, body: str) -> str:
        """Publish a message."""
        return text_of(await self.writers[name].pub(topic, body_of(body)))

    async def mpub(self, name: str, topic: str, bodies: list[str]) -> str:
        """Publish several."""
        return text_of(await self.writers[name].mpub(topic, *map(body_of, bodies)))

    async def dpub(self, name: str, topic: str, delay: int, body: str) -> str:
        """Publish one for later."""
        return text_of(await self.writers[name].dpub(topic, body_of(body), delay))

    async def flood(self, name: str, topic: str, first: int, count: int) -> list[int]:
        """Publish many, one by one, without waiting; return the numbers that were taken."""
        writer = self.writers[name]
        answers = [writer.pub(topic, body) for body in numbered(first, count)]
        taken = await asyncio.gather(*answers, return_exceptions=True)
        return [
            first + place
            for place, said in enumerate(taken)
            if not isinstance(said, BaseException | NSQErrorSchema)
        ]

    async def reader(
        self, name: str, port: int, topic: str, channel: str, window: int, **asked: Any
    ) -> None:
        """Make a reader, which tells of each message, and finishes it unless it is to be kept."""
        keep = asked.pop("keep", False)
        options = options_of(name, asked)
        connection = await open_connection("127.0.0.1", port, connection_options=options)
        if "secret" in asked:
            tell(name, "auth", said=text_of(await connection.auth(asked["secret"])))
        await connection.subscribe(topic, channel, window)
        self.connections[name] = connection

        async def read() -> None:
            async for message in connection.messages():
                body = message.body.decode("latin-1")
                told = {"attempts": message.attempts, "id": message.id}
                tell(name, "message", body=body, timestamp=message.timestamp, **told)
                if keep:
                    self.messages[name, body] = message
                else:
                    await message.fin()

        self.tasks.add(asyncio.create_task(read()))

    async def http(self, name: str, port: int, call: str, arguments: list[str]) -> Any:
        """Make a call by HTTP."""
        del name
        client = NSQDHTTPWriter("127.0.0.1", port)
        try:
            return await getattr(client, call)(*arguments)
        finally:
            await client.close()

    async def fin(self, name: str, body: str) -> None:
        """Finish a message that was kept."""
        await self.messages.pop((name, body)).fin()

    async def req(self, name: str, body: str, delay: int, *, backoff: bool) -> None:  # noqa: ARG002
        """Requeue one; the delay is in milliseconds; ansq knows no backoff."""
        await self.messages.pop((name, body)).req(delay)

    async def touch(self, name: str, body: str) -> None:
        """Touch one."""
        await self.messages[name, body].touch()


asyncio.run(serve(Program()))
