"""An app with plain and async handlers, run by a loop that is somebody else's."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from typing import assert_type

import nsqlite
from nsqlite import App, Broker, Message

app = App(timeout=5)
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
    async with Broker(msg_timeout=30) as broker, app.running(broker) as running:
        assert_type(broker, Broker)
        yield running


async def serve() -> None:
    """Stand for the server."""
    async with lifespan() as running:
        assert_type(running, App)
        running.broker.topic("mails").put("ann@example.org")
        assert_type(await nsqlite.aio.join(running.broker, timeout=10), bool)
        for worker in running.workers:
            assert_type(worker, nsqlite.Worker)
            assert_type(await nsqlite.aio.join(worker, raise_first=True), bool)
        await nsqlite.aio.flush(running.broker)


async def work(broker: Broker) -> int:
    """Work without the block."""
    worker = nsqlite.Worker(broker.topic("mails").channel("count"), count).start()
    await nsqlite.aio.stop(worker, timeout=5)
    return await nsqlite.aio.close(broker)


def main() -> None:
    """Send a mail."""
    asyncio.run(serve())
    assert sent == ["ann@example.org"]
    assert_type(asyncio.run(work(Broker())), int)
    with app.running(Broker()) as running:
        assert_type(running, App)


def mistakes() -> None:
    """What a type checker is to refuse; never called."""

    def no_message() -> None: ...

    app.handler("mails")(send)  # error: call-arg, reportCallIssue
    app.handler("mails", "send")(no_message)  # error: type-var, reportArgumentType
    App("mails")  # error: arg-type, reportArgumentType
    App(Broker())  # error: arg-type, reportArgumentType
    app.run()  # error: call-arg, reportCallIssue
    app.running("mails")  # error: arg-type, reportArgumentType
    app.runn()  # error: attr-defined, reportAttributeAccessIssue
    count(Message[str])  # error: arg-type, reportArgumentType


if __name__ == "__main__":
    main()
