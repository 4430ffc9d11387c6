"""An app with plain and async handlers, run by a loop that is somebody else's."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from typing import assert_type

import nsqlite
from nsqlite import App, Broker, Message

app = App(Broker(msg_timeout=30), timeout=5)
sent: list[str] = []


@app.handler("mails", "send", concurrency=4, dead_letter="mails.dead")
async def send(message: Message[str]) -> None:
    """Send a mail."""
    await asyncio.sleep(0)
    sent.append(message.body)


@app.handler("mails", "count")
def count(message: Message[str]) -> int:
    """Count letters."""
    return len(message.body)


@contextlib.asynccontextmanager
async def lifespan() -> AsyncGenerator[App, None]:
    """Work while a server serves."""
    async with app as running:
        yield running


async def serve() -> None:
    """Stand for the server."""
    async with lifespan() as running:
        assert_type(running, App)
        running.broker.topic("mails").put("ann@example.org")
        assert_type(await nsqlite.aio.join(running.broker, timeout=10), bool)
        for worker in running.workers:
            assert_type(worker, nsqlite.Worker)
            assert worker.running


def main() -> None:
    """Send a mail."""
    asyncio.run(serve())
    assert sent == ["ann@example.org"]
    app.broker.close()


def mistakes() -> None:
    """What a type checker is to refuse; never called."""

    def no_message() -> None: ...

    app.handler("mails")(send)  # error: call-arg, reportCallIssue
    app.handler("mails", "send")(no_message)  # error: type-var, reportArgumentType
    App("mails")  # error: arg-type, reportArgumentType
    app.runn()  # error: attr-defined, reportAttributeAccessIssue
    count(Message[str])  # error: arg-type, reportArgumentType


if __name__ == "__main__":
    main()
