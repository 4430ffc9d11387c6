"""The public surface: every public name and signature, as a list that a reviewer sees change.

The list is `tests/surface.txt`; after a change that is meant, write it anew:

    python tests/test_surface.py
"""

import difflib
import importlib
import inspect
import re
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from types import ModuleType, NoneType, UnionType
from typing import Any, Final, Literal, Union, get_args, get_origin, is_typeddict

import attrs
import pytest

import nsqlite
from nsqlite.testing import ManualClock
from nsqlite.timeline import Recorder

LIST: Final = Path(__file__).with_name("surface.txt")
MODULES: Final = (
    "nsqlite",
    "nsqlite.aio",
    "nsqlite.worker",
    "nsqlite.store",
    "nsqlite.server",
    "nsqlite.timeline",
    "nsqlite.testing",
    "nsqlite.testing.clients",
)

MADE_ELSEWHERE: Final = {
    nsqlite.Channel: "by Topic.channel",
    nsqlite.Message: "by a consumer's get",
    nsqlite.store.Database: "by opening a store",
    nsqlite.testing.BrokerFault: "by BrokerFaults",
    nsqlite.testing.BrokerFaults: "by FakeBroker",
    nsqlite.testing.Fault: "by Faults",
    nsqlite.timeline.Course: "by Timeline",
    nsqlite.timeline.Gap: "by Timeline",
    nsqlite.timeline.Lane: "by Timeline",
    nsqlite.timeline.Life: "by Timeline",
    nsqlite.timeline.Note: "by Timeline",
    nsqlite.timeline.Span: "by Timeline",
    nsqlite.timeline.Stay: "by Timeline",
    nsqlite.timeline.Step: "by Timeline",
    nsqlite.testing.Faults: "by nsqd",
    nsqlite.testing.Simulated: "by simulate",
    nsqlite.testing.Simulation: "by simulate",
    nsqlite.testing.SimulationFailed: "by simulate",
    nsqlite.timeline.Excerpt: "by read_recording",
    nsqlite.timeline.GivenUp: "by read_recording",
    nsqlite.timeline.Recorded: "by read_recording",
    nsqlite.timeline.Run: "by read_recording",
}
"""Classes that no user calls, with who makes them."""

OPAQUE: Final = {
    nsqlite.store.Database: "it is only passed on",
}
"""Classes of which a user needs no attribute, with the reason."""


def is_ours(value: object) -> bool:
    """Return whether the package defines a class or function."""
    return getattr(value, "__module__", "").partition(".")[0] == "nsqlite"


# The list


@attrs.frozen(repr=False)
class Text:
    """What stands in a signature as it is."""

    text: str

    def __repr__(self) -> str:
        return self.text


def shown(annotation: Any) -> Text:
    """Return a type in words that are the same on every CPython, and without modules."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin in {Union, UnionType}:
        return Text(" | ".join(map(repr, map(shown, arguments))))
    if isinstance(annotation, list):
        return Text(f"[{', '.join(map(repr, map(shown, annotation)))}]")
    if origin is Literal:
        return Text(f"Literal[{', '.join(map(repr, arguments))}]")
    if arguments:
        return Text(f"{named(origin)}[{', '.join(map(repr, map(shown, arguments)))}]")
    return Text("None" if annotation is NoneType else named(annotation))


def named(annotation: Any) -> str:
    for name in ("__name__", "__forward_arg__", "_name"):
        if isinstance(text := getattr(annotation, name, None), str):
            return text
    return "..." if annotation is ... else str(annotation)


def signature_of(value: Callable[..., object]) -> str:
    signature = inspect.signature(value)
    empty = inspect.Parameter.empty
    parameters = [
        parameter.replace(
            annotation=empty if (kind := parameter.annotation) is empty else shown(kind),
            default=default if is_plain(default := parameter.default) else Text("..."),
        )
        for parameter in signature.parameters.values()
    ]
    returns = empty if inspect.isclass(value) else shown(signature.return_annotation)
    return str(signature.replace(parameters=parameters, return_annotation=returns))


def is_plain(default: object) -> bool:
    """Return whether a default is shown as it is."""
    return default in (inspect.Parameter.empty, None, ()) or isinstance(default, int | float | str)


def attributes_of(cls: type) -> dict[str, str]:
    """Return what the docstrings of a class and its bases say under ``Attributes:``."""
    found: dict[str, str] = {}
    for base in filter(is_ours, inspect.getmro(cls)):
        _, _, rest = inspect.cleandoc(base.__doc__ or "").partition("Attributes:\n")
        section = re.match(r"(?: {4}.*\n?)*", rest)
        assert section
        for names, text in re.findall(r"^ {4}(\w+(?:, \w+)*): (.*)", section[0], re.MULTILINE):
            found |= dict.fromkeys(names.split(", "), text)
    return found


def members_of(cls: type) -> list[str]:
    """Return the public names of a class: those that it shows, and those that it documents."""
    if is_typeddict(cls):
        return sorted(cls.__annotations__)
    bases = list(filter(is_ours, inspect.getmro(cls)))
    of_dir = {name for name in dir(cls) for base in bases if name in vars(base)}
    names = of_dir | set(attributes_of(cls))
    return sorted(name for name in names if not name.startswith(("_", "test_")))


def describe_member(cls: type, name: str) -> str:
    value = inspect.getattr_static(cls, name, None)
    full = f"{cls.__name__}.{name}"
    if is_typeddict(cls):
        return f"{full}: {shown(cls.__annotations__[name])}"
    if isinstance(value, property):
        assert value.fget
        return f"{full} -> {shown(inspect.signature(value.fget).return_annotation)}"
    return describe_function(full, value) if inspect.isfunction(value) else full


def describe_function(name: str, value: Callable[..., object]) -> str:
    word = "async " if inspect.iscoroutinefunction(value) else ""
    return f"{word}{name}{signature_of(value)}"


def describe_class(name: str, cls: type) -> Iterator[str]:
    own = any("__init__" in vars(base) for base in filter(is_ours, inspect.getmro(cls)))
    made = own and cls not in MADE_ELSEWHERE and not getattr(cls, "_is_protocol", False)
    base = f" is a {cls.__mro__[1].__name__}" if issubclass(cls, Exception) else ""
    yield f"  class {name}{signature_of(cls) if made else ''}{base}"
    if cls not in OPAQUE:
        yield from (f"    {describe_member(cls, member)}" for member in members_of(cls))


def describe(module: ModuleType) -> Iterator[str]:
    """Describe the names of a module, and those of the package only there."""
    yield module.__name__
    for name in sorted(module.__all__):
        value = getattr(module, name)
        if module is not nsqlite and name in nsqlite.__all__ and getattr(nsqlite, name) is value:
            yield f"  {name} = nsqlite.{name}"
        elif inspect.isclass(value):
            yield from describe_class(name, value)
        elif inspect.isfunction(value):
            yield f"  {describe_function(name, value)}"
        elif inspect.ismodule(value) or isinstance(value, str):
            yield f"  {name}"
        else:
            yield f"  {name}: {shown(value)}"


def surface() -> str:
    """Return the whole public surface as text."""
    blocks = ["\n".join(describe(importlib.import_module(name))) for name in MODULES]
    return "\n\n".join(blocks) + "\n"


def public_classes() -> list[type]:
    values = [
        getattr(module, name)
        for module in map(importlib.import_module, MODULES)
        for name in module.__all__
    ]
    classes = {value for value in values if inspect.isclass(value) and value not in OPAQUE}
    return sorted(classes, key=lambda cls: (cls.__module__, cls.__name__))


def test_the_public_surface_is_as_listed() -> None:
    """The modules and classes show the names and signatures of the list, and no others."""
    listed, found = LIST.read_text("utf-8").splitlines(), surface().splitlines()
    changes = "\n".join(difflib.unified_diff(listed, found, "listed", "found", n=0, lineterm=""))
    assert not changes, changes


def test_what_is_taken_in_seconds_can_be_a_timedelta() -> None:
    """What else is a float is no span of time, or is told and not taken."""
    floats = set(re.findall(r"(\w+): float(?! \| timedelta)", LIST.read_text("utf-8")))
    taken = {"start", "end", "factor", "rate", "probability", "bytes_per_second"}
    told = {"age", "due_in", "held_back_for", "next_deadline", "now", "seconds"}
    assert taken | told == floats


# What it says


@pytest.mark.parametrize(
    "cls", public_classes(), ids=lambda cls: f"{cls.__module__}.{cls.__name__}"
)
def test_what_a_class_shows_is_documented(cls: type) -> None:
    """Each public name of a class has a docstring, or stands under ``Attributes:``."""
    known = set(attributes_of(cls))
    for base in filter(is_typeddict, public_classes()):  # it has no bases at run time
        if is_typeddict(cls) and set(members_of(base)) <= set(members_of(cls)):
            known |= set(re.findall(r"^ *(\w+): ", base.__doc__ or "", re.MULTILINE))
    bare = []
    for name in members_of(cls):
        value = inspect.getattr_static(cls, name, None)
        documented = isinstance(value, property | staticmethod | classmethod) or inspect.isfunction(
            value
        )
        if name not in known and not (documented and value.__doc__) and not isinstance(value, cls):
            bare.append(name)
    assert [] == bare


@pytest.fixture
def objects() -> Iterator[list[object]]:
    """Return an object of each class that a user holds."""
    clock = ManualClock()
    recorder = Recorder()
    with (
        nsqlite.Broker(clock=clock, observers=[recorder]) as broker,
        closing(broker.topic("orders")) as topic,
    ):
        channel = topic.channel("billing")
        consumer = nsqlite.Consumer(channel)
        topic.put(b"order 1")
        message = consumer.get(timeout=0)
        yield [
            *(broker, topic, channel, consumer, message, recorder.events[0], clock),
            *(nsqlite.aio.Consumer(channel), nsqlite.Worker(channel, print), nsqlite.App()),
            *(nsqlite.TimerWheel[str](1), topic.stats(), nsqlite.SQLite("jobs.db")),
        ]
        message.fin()


def test_an_object_shows_what_its_class_says(objects: list[object]) -> None:
    """An object has no public attribute beside those of the list, as one set by `__init__`."""
    more = {
        f"{type(value).__name__}.{name}"
        for value in objects
        if is_ours(type(value))
        for name in dir(value)
        if not name.startswith("_") and name not in members_of(type(value))
        if not (isinstance(value, tuple) and hasattr(tuple, name))  # which an event is
    }
    assert set() == more


if __name__ == "__main__":
    LIST.write_text(surface(), "utf-8")
