"""Middleware: what stands around a handler, in which order, and the two examples of it."""

import asyncio
import functools
import logging
from typing import Any

import pytest

from nsqlite import Consumer, Message, Requeue, Topic
from nsqlite.testing import ManualClock
from nsqlite.worker import Handler, Middleware, logged, timed
from nsqlite.worker.middleware import is_coroutine, wrap
from worker.scenes import KINDS, Failure, failing, nothing, of_kind


async def awaited(_message: Message[Any]) -> str:
    return "awaited"


class Plain:
    """An object that is called."""

    def __call__(self, _message: Message[Any]) -> None: ...

    async def method(self, _message: Message[Any]) -> None: ...


class Awaited:
    """An object that is called and awaited."""

    async def __call__(self, _message: Message[Any]) -> None: ...


def a_message(body: object = b"order") -> Message[Any]:
    """Return a message that was delivered."""
    topic = Topic("orders", clock=ManualClock())
    consumer = Consumer(topic.channel("billing"))
    topic.put(body)
    return consumer.get(timeout=0)


def called(handler: Handler, message: Message[Any]) -> Any:
    """Call a handler of either kind, and return what it returns."""
    result = handler(message)
    return asyncio.run(result) if is_coroutine(handler) else result


# Kinds of handlers


@pytest.mark.parametrize(
    "handler",
    [
        awaited,
        Awaited(),
        Plain().method,
        functools.partial(awaited),
        functools.partial(Awaited()),
        functools.partial(functools.partial(awaited)),
    ],
)
def test_what_is_awaited(handler: Handler) -> None:
    """Coroutine functions, objects and methods like one, and partials of these are awaited."""
    assert is_coroutine(handler)


@pytest.mark.parametrize(
    "handler", [nothing, Plain(), print, Plain, functools.partial(nothing), lambda _message: None]
)
def test_what_is_not_awaited(handler: Handler) -> None:
    """Plain functions, objects, classes and partials of these are not awaited."""
    assert not is_coroutine(handler)


# Order


def telling(name: str, told: list[str]) -> Middleware:
    def around(handler: Handler) -> Handler:
        def handle(message: Message[Any]) -> Any:
            told.append(f"{name} begins")
            result = handler(message)
            told.append(f"{name} ends")
            return result

        return handle

    return around


def test_the_first_is_outermost() -> None:
    """The first middleware begins first and ends last."""
    told: list[str] = []
    handler = wrap(lambda _: told.append("work"), (telling("a", told), telling("b", told)))
    handler(a_message())
    assert ["a begins", "b begins", "work", "b ends", "a ends"] == told


def test_without_middleware_a_handler_stays() -> None:
    """A handler that nothing stands around is the handler itself."""
    assert wrap(nothing, ()) is nothing


# Logging


@pytest.mark.parametrize("kind", KINDS)
def test_logged_tells_of_success(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    """`logged` logs a message before and after it is handled, and returns what its handler did."""
    log = logging.getLogger("shop")
    message = a_message()
    verdict = Requeue()
    handler = logged(log)(of_kind(kind, lambda _: verdict))
    with caplog.at_level(logging.INFO, "shop"):
        assert called(handler, message) is verdict
    expected = [
        ("shop", logging.INFO, f"message {message.id}, attempt 1"),
        ("shop", logging.INFO, f"message {message.id} is handled"),
    ]
    assert expected == caplog.record_tuples


@pytest.mark.parametrize("kind", KINDS)
def test_logged_tells_of_failure(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    """`logged` logs a failure as an error, whatever its own level is, and lets it go on."""
    log = logging.getLogger("shop")
    message = a_message(b"bad")
    handler = logged(log, logging.DEBUG)(of_kind(kind, failing))
    with caplog.at_level(logging.DEBUG, "shop"), pytest.raises(Failure):
        called(handler, message)
    expected = [
        ("shop", logging.DEBUG, f"message {message.id}, attempt 1"),
        ("shop", logging.ERROR, f"message {message.id} failed: Failure(b'bad')"),
    ]
    assert expected == [record for record in caplog.record_tuples if record[0] == "shop"]


# Timing


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("fails", [False, True])
def test_timed_tells_how_long_it_took(kind: str, *, fails: bool) -> None:
    """`timed` tells of each message how many seconds its handler took, failed or not."""
    clock = ManualClock()
    told: list[tuple[Message[Any], float]] = []

    def work(message: Message[Any]) -> str:
        clock.advance(2.5)
        if fails:
            failing(message)
        return "done"

    message = a_message()
    handler = timed(lambda *told_: told.append(told_), clock)(of_kind(kind, work))
    if fails:
        with pytest.raises(Failure):
            called(handler, message)
    else:
        assert "done" == called(handler, message)
    assert [(message, 2.5)] == told


def test_timed_measures_each_message_for_itself() -> None:
    """Messages that are handled at the same time are measured apart, and then forgotten."""
    clock = ManualClock()
    told: list[tuple[Any, float]] = []
    inner = a_message("inner")

    def work(message: Message[Any]) -> None:
        clock.advance(1)
        if message is not inner:
            handler(inner)
            clock.advance(1)

    around = timed(lambda message, seconds: told.append((message.body, seconds)), clock)
    handler = around(work)
    handler(a_message("outer"))
    assert [("inner", 1), ("outer", 3)] == told


@pytest.mark.parametrize("kind", KINDS)
def test_the_examples_keep_kind_and_name(kind: str) -> None:
    """`logged` and `timed` around a handler are of its kind, and named like it."""
    handler = of_kind(kind, nothing)
    for around in (logged(logging.getLogger("shop")), timed(print)):
        wrapped = around(handler)
        assert is_coroutine(handler) is is_coroutine(wrapped)
        assert handler.__name__ == wrapped.__name__
