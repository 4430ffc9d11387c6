"""Middleware: what stands around a handler, in which order, and the two examples of it."""

import asyncio
import functools
import logging
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from nsqlite import Consumer, Drop, InvalidOption, Message, Requeue, Topic
from nsqlite.testing import ManualClock
from nsqlite.worker import Handler, Middleware, logged, timed
from nsqlite.worker.middleware import is_coroutine, is_generator, name_of, wrap
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


class Shop:
    """Handlers that are no plain functions."""

    def bill(self, _message: Message[Any]) -> None: ...

    def __call__(self, _message: Message[Any]) -> None: ...


def test_a_handler_has_a_name() -> None:
    """A function is named as where it stands, another object like its class."""
    names = [
        name_of(handler) for handler in (failing, Shop().bill, Shop(), functools.partial(failing))
    ]
    assert ["failing", "Shop.bill", "Shop", "partial"] == names


def generated(_message: Message[Any]) -> Iterator[None]:
    yield


async def generated_async(_message: Message[Any]) -> AsyncIterator[None]:
    yield


class Generating:
    """An object whose call makes a generator."""

    def __call__(self, _message: Message[Any]) -> Iterator[None]:
        yield


@pytest.mark.parametrize(
    "handler",
    [
        generated,
        generated_async,
        Generating(),
        functools.partial(generated),
        functools.partial(Generating()),
    ],
)
def test_what_only_makes_a_generator(handler: Handler) -> None:
    """Generator functions of both kinds, objects like one and partials of these are found."""
    assert is_generator(handler)


@pytest.mark.parametrize("handler", [nothing, awaited, Plain(), Awaited(), print, Generating])
def test_what_makes_no_generator(handler: Handler) -> None:
    """Other functions and objects, and a class of such objects, make no generator."""
    assert not is_generator(handler)


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


@pytest.mark.parametrize("middleware", [None, 1, logged, timed(print), nothing])
def test_middleware_is_several(middleware: Any) -> None:
    """A middleware by itself, or what is none at all, is refused."""
    with pytest.raises(InvalidOption) as info:
        wrap(nothing, middleware)
    expected = ("middleware", middleware, "several functions of a handler")
    assert expected == (info.value.option, info.value.value, info.value.expected)


@pytest.mark.parametrize("around", [None, 1, "logged"])
def test_middleware_can_be_called(around: Any) -> None:
    """Among several, what cannot be called is refused."""
    with pytest.raises(InvalidOption) as info:
        wrap(nothing, (telling("a", []), around))
    expected = ("middleware", around, "a function of a handler")
    assert expected == (info.value.option, info.value.value, info.value.expected)


@pytest.mark.parametrize("around", [lambda _handler: None, lambda _handler: 1, timed])
def test_middleware_returns_a_handler(around: Any) -> None:
    """What returns no handler is refused, as `timed` is that nobody has called."""
    with pytest.raises(InvalidOption) as info:
        wrap(nothing, [around])
    expected = ("middleware", around, "a function that returns a handler")
    assert expected == (info.value.option, info.value.value, info.value.expected)


def test_logged_that_nobody_has_called_is_refused() -> None:
    """`logged` by itself finds that a handler is no logger."""
    without_a_call: Any = logged
    with pytest.raises(InvalidOption) as info:
        wrap(nothing, [without_a_call])
    assert ("logger", nothing) == (info.value.option, info.value.value)


def test_middleware_may_come_from_an_iterator() -> None:
    """Several may be anything that can be gone through, once."""
    told: list[str] = []
    handler = wrap(nothing, (telling(name, told) for name in "ab"))
    handler(a_message())
    assert ["a begins", "b begins", "b ends", "a ends"] == told


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


@pytest.mark.parametrize("kind", KINDS)
def test_logged_tells_of_a_verdict(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    """`logged` logs a verdict that is raised as what it is, no failure, and lets it go on."""
    log = logging.getLogger("shop")
    message = a_message()

    def drop(_message: Message[Any]) -> None:
        raise Drop("too old")

    handler = logged(log)(of_kind(kind, drop))
    with caplog.at_level(logging.INFO, "shop"), pytest.raises(Drop):
        called(handler, message)
    expected = [
        ("shop", logging.INFO, f"message {message.id}, attempt 1"),
        ("shop", logging.INFO, f"message {message.id} is decided: drop: too old"),
    ]
    assert expected == caplog.record_tuples


def test_logged_takes_an_adapter(caplog: pytest.LogCaptureFixture) -> None:
    """A logger may be an adapter of one."""
    log = logging.LoggerAdapter(logging.getLogger("shop"), {})
    with caplog.at_level(logging.INFO, "shop"):
        logged(log)(nothing)(a_message())
    assert 2 == len(caplog.records)


@pytest.mark.parametrize("logger", [None, "shop", nothing])
def test_logged_needs_a_logger(logger: Any) -> None:
    """What is no logger is refused."""
    with pytest.raises(InvalidOption) as info:
        logged(logger)
    expected = ("logger", logger, "a logging.Logger")
    assert expected == (info.value.option, info.value.value, info.value.expected)


# Timing


@pytest.mark.parametrize("report", [None, "report", 1.5])
def test_timed_needs_a_report(report: Any) -> None:
    """What cannot be called is refused."""
    with pytest.raises(InvalidOption) as info:
        timed(report)
    expected = ("report", report, "a function of a message and seconds")
    assert expected == (info.value.option, info.value.value, info.value.expected)


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
