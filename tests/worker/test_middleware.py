"""Middleware: what stands around a handler, in which order, and the two examples of it."""

import asyncio
import logging
from typing import Any

import pytest

from nsqlite import Consumer, Drop, InvalidOption, Message, Requeue, Topic
from nsqlite.testing import ManualClock
from nsqlite.worker import Handler, Middleware, logged, timed
from nsqlite.worker.handler import is_coroutine
from nsqlite.worker.middleware import wrap
from worker.scenes import KINDS, Failure, failing, nothing, of_kind


def a_message(body: object = b"order") -> Message[Any]:
    """Return a message that was delivered, and is finished."""
    topic = Topic("orders", clock=ManualClock())
    consumer = Consumer(topic.channel("billing"))
    topic.put(body)
    message = consumer.get(timeout=0)
    message.fin()
    return message


def called(handler: Handler, message: Message[Any]) -> Any:
    """Call a handler of either kind, and return what it returns."""
    result = handler(message)
    return asyncio.run(result) if is_coroutine(handler) else result


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


@pytest.mark.parametrize("around", [None, 1, "logged", lambda: nothing])
def test_middleware_can_be_called(around: Any) -> None:
    """Among several, what cannot be called with a handler is refused."""
    with pytest.raises(InvalidOption) as info:
        wrap(nothing, (telling("a", []), around))
    expected = ("middleware", around, "a function of a handler")
    assert expected == (info.value.option, info.value.value, info.value.expected)


@pytest.mark.parametrize(
    "around", [lambda _handler: None, lambda _handler: 1, lambda _handler: lambda: None, timed]
)
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


def test_a_handler_without_middleware_takes_a_message_alone() -> None:
    """A handler that needs more than a message needs a middleware that gives it."""

    def bill(_message: Message[Any], currency: str) -> str:
        return currency

    handler: Any = bill
    with pytest.raises(InvalidOption) as info:
        wrap(handler, ())
    expected = ("handler", bill, "a function of one message, no generator")
    assert expected == (info.value.option, info.value.value, info.value.expected)
    assert "EUR" == wrap(handler, [lambda _: lambda message: bill(message, "EUR")])(a_message())


# Logging


@pytest.mark.parametrize("kind", KINDS)
def test_logged_tells_of_success(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    """`logged` logs a message before and after it is handled, and returns what its handler did."""
    log = logging.getLogger("shop")
    message = a_message()
    outcome = Requeue()
    handler = logged(log)(of_kind(kind, lambda _: outcome))
    with caplog.at_level(logging.INFO, "shop"):
        assert called(handler, message) is outcome
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
def test_logged_tells_of_a_outcome(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    """`logged` logs a outcome that is raised as what it is, no failure, and lets it go on."""
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


@pytest.mark.parametrize("level", ["INFO", None, -1, True])
def test_logged_needs_a_level(level: Any) -> None:
    """What is no number of a level is refused."""
    with pytest.raises(InvalidOption) as info:
        logged(logging.getLogger("shop"), level)
    assert f"level must be a whole number of at least 0, not {level!r}" == str(info.value)


# Timing


@pytest.mark.parametrize("report", [None, "report", 1.5, asyncio.sleep])
def test_timed_needs_a_report(report: Any) -> None:
    """What cannot be called, and what nobody would await, is refused."""
    with pytest.raises(InvalidOption) as info:
        timed(report)
    expected = ("report", report, "a function of a message and seconds")
    assert expected == (info.value.option, info.value.value, info.value.expected)


def test_timed_needs_a_clock() -> None:
    """What is no clock is refused."""
    clock: Any = 5
    with pytest.raises(InvalidOption) as info:
        timed(print, clock)
    assert ("clock", 5) == (info.value.option, info.value.value)


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
