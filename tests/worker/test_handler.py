"""Handlers: of which kind a function is, how many arguments it takes, and what it is called."""

import functools
from collections.abc import AsyncIterator, Iterator
from typing import Any
from unittest import mock

import pytest

from nsqlite import Message
from nsqlite.worker import Handler
from nsqlite.worker.handler import accepts, is_coroutine, is_generator, is_plain, name_of
from worker.scenes import failing, nothing


async def awaited(_message: Message[Any]) -> str:
    return "awaited"


class Plain:
    """An object that is called."""

    def __call__(self, _message: Message[Any]) -> None: ...

    async def method(self, _message: Message[Any]) -> None: ...


class Awaited:
    """An object that is called and awaited."""

    async def __call__(self, _message: Message[Any]) -> None: ...


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


# What they can be called with


def no_argument() -> None: ...


def two(_one: object, _other: object) -> None: ...


def named(*, _message: object) -> None: ...


def with_more(_message: object, _more: int = 1, *, _most: int = 2) -> None: ...


def any_number(*_messages: object) -> None: ...


@functools.wraps(no_argument)
def wrapper(_message: object) -> None: ...


class Silent:
    """A function that does not tell how it is called."""

    __signature__ = 5

    def __call__(self) -> None: ...


@pytest.mark.parametrize(
    "function",
    [
        nothing,
        awaited,
        Plain(),
        Plain().method,
        with_more,
        any_number,
        wrapper,
        functools.partial(two, 1),
        print,
        [].append,
        mock.Mock(),
        Silent(),
    ],
)
def test_what_can_be_called_with_a_message(function: Any) -> None:
    """What takes one argument is accepted, and so is what tells nothing of itself."""
    assert accepts(function, 1)


@pytest.mark.parametrize(
    "function", [no_argument, two, named, functools.partial(with_more, 1, 2), [].clear]
)
def test_what_cannot_be_called_with_a_message(function: Any) -> None:
    """What takes no argument, or needs more or others, is found out."""
    assert not accepts(function, 1)


def test_what_may_be_given_more() -> None:
    """What needs more is accepted where others may give it, and what takes none is not."""
    accepted = [accepts(function, 1, or_more=True) for function in (two, no_argument, named)]
    assert [True, False, False] == accepted


@pytest.mark.parametrize(
    ("function", "plain"),
    [
        (nothing, True),
        (awaited, False),
        (Awaited(), False),
        (generated, False),
        (two, False),
        ("nothing", False),
    ],
)
def test_what_is_plain(function: object, plain: bool) -> None:
    """A plain function can be called with so many arguments, and then has run."""
    assert plain is is_plain(function, 1)
