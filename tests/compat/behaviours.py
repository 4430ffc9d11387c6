"""What a handler can do with its message in each client, and programs that do it with a client.

A program reads all messages of ``orders`` on ``billing`` and does with each what its body names.
It tells of each message that a handler has seen, and of each answer whether it slows down.
"""

import asyncio
import sys
from collections.abc import Callable
from typing import Any

from compat.driving import say

LAST = b"last"
"""The body after which nothing comes."""

AGAIN = b"again"
"""What stands for what is done with a message that comes again."""

MANY = 100
"""How many messages a program may hold."""

Behaviours = dict[bytes, tuple[int, Any]]
"""At which attempt a handler is called, and the handler, by the body of its message."""


def each(does: object) -> Behaviours:
    """Return what an object's methods do, by their names; all at the first attempt."""
    names = [name for name, value in vars(type(does)).items() if callable(value)]
    methods = {name: getattr(does, name) for name in names if name not in {"__init__", "last"}}
    return {name.replace("_", " ").encode(): (1, method) for name, method in methods.items()}


def taken(behaviours: Behaviours, body: bytes) -> Any:
    """Return what is done with a message, which is done once."""
    return behaviours.pop(body, behaviours[AGAIN])[1]


def look_at(message: Any) -> list[Any]:
    """Return what a handler finds in its message, but for the id."""
    kinds = [type(value).__name__ for value in (message.id, message.body, message.timestamp)]
    return [*kinds, len(message.id), message.timestamp, message.attempts, message.body.decode()]


class Pynsq:
    """What handlers of pynsq do."""

    def __init__(self) -> None:
        self.later: list[Callable[[], object]] = []

    def returns_true(self, _message: Any) -> bool:
        return True

    def returns_false(self, _message: Any) -> bool:
        return False

    def returns_one(self, _message: Any) -> int:
        return 1

    def returns_none(self, _message: Any) -> None:
        return None

    def returns_text(self, _message: Any) -> str:
        return "true"

    def raises(self, _message: Any) -> bool:
        raise LookupError

    def finishes(self, message: Any) -> None:
        message.finish()

    def finishes_and_raises(self, message: Any) -> None:
        message.finish()
        raise LookupError

    def finishes_and_returns_false(self, message: Any) -> bool:
        message.finish()
        return False

    def finishes_twice(self, message: Any) -> None:
        message.finish()
        message.finish()

    def requeues(self, message: Any) -> None:
        message.requeue()

    def requeues_for_seconds(self, message: Any) -> None:
        message.requeue(delay=5)

    def requeues_for_a_fraction(self, message: Any) -> None:
        message.requeue(delay=1.5)  # pynsq takes no notice of it

    def requeues_at_once(self, message: Any) -> None:
        message.requeue(delay=0)

    def requeues_for_milliseconds(self, message: Any) -> None:
        message.requeue(time_ms=2500)

    def requeues_without_backoff(self, message: Any) -> None:
        message.requeue(delay=5, backoff=False)

    def touches(self, message: Any) -> bool:
        message.touch()
        message.touch()
        return True

    def answers_later(self, message: Any) -> None:
        message.enable_async()
        self.later.append(message.finish)

    def requeues_later(self, message: Any) -> bool:
        message.enable_async()
        self.later.append(lambda: message.requeue(delay=7, backoff=False))
        return False

    def raises_though_asynchronous(self, message: Any) -> None:
        message.enable_async()
        raise LookupError

    async def awaits_and_returns_true(self, _message: Any) -> bool:
        await asyncio.sleep(0)
        return True

    async def awaits_and_returns_none(self, _message: Any) -> None:
        await asyncio.sleep(0)

    async def awaits_and_raises(self, _message: Any) -> bool:
        await asyncio.sleep(0)
        raise LookupError

    async def awaits_and_requeues(self, message: Any) -> bool:
        await asyncio.sleep(0)
        message.requeue(delay=3, backoff=False)
        return True

    def last(self, _message: Any) -> bool:
        for answer in self.later:
            answer()
        return True


def of_pynsq() -> Behaviours:
    """Return what handlers of pynsq do, one after the other."""
    does = Pynsq()
    return {
        **each(does),
        b"raises at the last attempt": (5, does.raises),
        b"requeues at the third attempt": (3, does.requeues),
        b"comes too often": (6, does.raises),
        LAST: (1, does.last),
        AGAIN: (0, does.finishes),
    }


class Gnsq:
    """What handlers of gnsq do."""

    def __init__(self) -> None:
        from gnsq.errors import NSQRequeueMessage  # noqa: PLC0415 - only where it is used

        self.requeue = NSQRequeueMessage
        self.later: list[Callable[[], object]] = []

    def returns(self, _consumer: Any, message: Any) -> None:
        assert message.body

    def returns_false(self, _consumer: Any, message: Any) -> bool:
        return not message.body

    def raises(self, _consumer: Any, message: Any) -> None:
        raise LookupError(message)

    def raises_requeue(self, _consumer: Any, message: Any) -> None:
        assert message.body
        raise self.requeue

    def raises_requeue_without_backoff(self, _consumer: Any, message: Any) -> None:
        assert message.body
        raise self.requeue(backoff=False)

    def finishes(self, _consumer: Any, message: Any) -> None:
        message.finish()

    def finishes_and_raises(self, _consumer: Any, message: Any) -> None:
        message.finish()
        raise LookupError

    def finishes_twice(self, _consumer: Any, message: Any) -> None:
        message.finish()
        message.finish()

    def requeues(self, _consumer: Any, message: Any) -> None:
        message.requeue()

    def requeues_for_milliseconds(self, _consumer: Any, message: Any) -> None:
        message.requeue(2500)

    def requeues_without_backoff(self, _consumer: Any, message: Any) -> None:
        message.requeue(time_ms=2500, backoff=False)

    def requeues_for_a_fraction(self, _consumer: Any, message: Any) -> None:
        message.requeue(0.5)  # gnsq raises

    def touches(self, _consumer: Any, message: Any) -> None:
        message.touch()
        message.touch()

    def answers_later(self, _consumer: Any, message: Any) -> None:
        message.enable_async()
        self.later.append(message.finish)

    def requeues_later(self, _consumer: Any, message: Any) -> None:
        message.enable_async()
        self.later.append(lambda: message.requeue(7000, backoff=False))

    def raises_though_asynchronous(self, _consumer: Any, message: Any) -> None:
        message.enable_async()
        raise LookupError

    def never_answers(self, _consumer: Any, message: Any) -> None:
        message.enable_async()

    def last(self, _consumer: Any, message: Any) -> None:
        assert message.body
        for answer in self.later:
            answer()


def of_gnsq() -> Behaviours:
    """Return what handlers of gnsq do, one after the other."""
    does = Gnsq()
    return {
        **each(does),
        b"raises at the last attempt": (5, does.raises),
        b"comes too often": (6, does.raises),
        LAST: (1, does.last),
        AGAIN: (0, does.finishes),
    }


class Ansq:
    """What handlers of ansq do; what they raise is their program's."""

    async def finishes(self, message: Any) -> None:
        assert message.can_be_processed
        await message.fin()
        assert message.is_processed

    async def finishes_twice(self, message: Any) -> None:
        await message.fin()
        await message.fin()

    async def requeues(self, message: Any) -> None:
        await message.req()

    async def requeues_for_milliseconds(self, message: Any) -> None:
        await message.req(2500)

    async def requeues_at_once(self, message: Any) -> None:
        await message.req(0)

    async def touches(self, message: Any) -> None:
        await message.touch()
        await message.touch()
        await message.fin()

    async def returns(self, _message: Any) -> bool:
        return True

    async def raises(self, _message: Any) -> None:
        raise LookupError

    async def last(self, message: Any) -> None:
        await message.fin()


def of_ansq() -> Behaviours:
    """Return what handlers of ansq do, one after the other."""
    does = Ansq()
    return {
        **each(does),
        b"requeues at the sixth attempt": (6, does.requeues),
        LAST: (1, does.last),
        AGAIN: (0, does.finishes),
    }


def run_pynsq(port: int) -> None:
    """Do what handlers of pynsq do, with pynsq."""
    import nsq  # noqa: PLC0415 - only where it is used

    behaviours = of_pynsq()

    class Reader(nsq.Reader):  # type: ignore[misc]  # it has no types
        def _on_backoff_resume(self, success: bool | None, **_more: Any) -> None:
            say(slows=success is False)

    def handle(message: Any) -> Any:
        say(seen=look_at(message))
        return taken(behaviours, message.body)(message)

    address = f"127.0.0.1:{port}"
    Reader(
        "orders", "billing", handle, nsqd_tcp_addresses=[address], max_in_flight=MANY, max_tries=5
    )
    nsq.run()


def run_gnsq(port: int) -> None:
    """Do what handlers of gnsq do, with gnsq."""
    import gnsq  # noqa: PLC0415 - only where it is used

    behaviours = of_gnsq()

    class Consumer(gnsq.Consumer):  # type: ignore[misc]  # it has no types
        def _finish_message(self, conn: Any, backoff: bool) -> None:
            say(slows=backoff)
            super()._finish_message(conn, False)

    def handle(consumer: Any, message: Any) -> None:
        say(seen=look_at(message))
        taken(behaviours, message.body)(consumer, message=message)

    address = f"127.0.0.1:{port}"
    Consumer("orders", "billing", [address], message_handler=handle, max_in_flight=MANY).start()


def run_ansq(port: int) -> None:
    """Do what handlers of ansq do, with ansq."""
    from ansq import open_connection  # noqa: PLC0415 - only where it is used

    behaviours = of_ansq()

    async def run() -> None:
        connection = await open_connection("127.0.0.1", port)
        await connection.subscribe("orders", "billing", MANY)
        async for message in connection.messages():
            say(seen=look_at(message))
            try:
                await taken(behaviours, message.body)(message)
            except Exception as error:
                sys.stderr.write(f"{error!r}\n")
            if message.is_processed:
                say(slows=False)

    asyncio.run(run())


TABLES: dict[str, Callable[[], Behaviours]] = {
    "pynsq": of_pynsq,
    "gnsq": of_gnsq,
    "ansq": of_ansq,
}

if __name__ == "__main__":
    {"pynsq": run_pynsq, "gnsq": run_gnsq, "ansq": run_ansq}[sys.argv[1]](int(sys.argv[2]))
