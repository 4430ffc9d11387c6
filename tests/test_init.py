"""The package: its public names, what is loaded late, its types and its version."""

import ast
import importlib
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, assert_type

import attrs
import pytest

import nsqlite
from nsqlite import Broker, Channel, Consumer, Message, Topic
from nsqlite.testing import ManualClock

PACKAGE: Final = Path(nsqlite.__file__).parent


@attrs.frozen
class Order:
    """What a user publishes."""

    number: int


# Names


def test_the_public_names_are_those_of_all() -> None:
    """What the package takes from its modules is what it shows, and nothing else."""
    tree = ast.parse((PACKAGE / "__init__.py").read_text("utf-8"))
    names = [
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("nsqlite")
        for alias in node.names
    ]
    assert sorted(names) == sorted(nsqlite.__all__)


def test_the_fixed_names_are_public() -> None:
    """The names that are promised to stay are there."""
    fixed = {
        *("Topic", "Channel", "Consumer", "Message", "Broker", "TimerWheel", "NSQLiteError"),
        *("Empty", "Full", "Closed", "NotInFlight"),
        *("InvalidName", "InvalidMessage", "InvalidOption"),
    }
    assert set() == fixed - set(nsqlite.__all__)


def test_every_public_name_can_be_imported() -> None:
    """A star import brings each public name."""
    names: dict[str, object] = {}
    exec("from nsqlite import *", names)  # noqa: S102 - a star import, as a user may write it
    assert set(nsqlite.__all__) <= set(names)


def test_every_public_class_says_where_it_is() -> None:
    """Each public class has a docstring and belongs to a module of the package."""
    values = [getattr(nsqlite, name) for name in nsqlite.__all__]
    classes = [value for value in values if isinstance(value, type)]
    assert [] == [cls for cls in classes if not cls.__doc__ or not vars(cls).get("__module__")]
    assert {"nsqlite"} == {cls.__module__.partition(".")[0] for cls in classes}


def test_what_is_not_there_is_said_as_usual() -> None:
    """An attribute that the package does not have gives Python's own error."""
    name = "Queue"
    with pytest.raises(AttributeError) as info:
        getattr(nsqlite, name)
    assert "module 'nsqlite' has no attribute 'Queue'" == str(info.value)


@pytest.mark.parametrize(("wrong", "right"), [("Topicc", "Topic"), ("Workr", "Worker")])
def test_a_misspelled_name_is_told_the_nearest(wrong: str, right: str) -> None:
    """A name that is nearly one of the package's, loaded or not, is refused with a suggestion."""
    done = subprocess.run(  # noqa: S603 - our own interpreter
        [sys.executable, "-W", "error", "-c", f"import nsqlite; nsqlite.{wrong}"],
        capture_output=True,
        check=False,
        cwd=PACKAGE.parent,
        text=True,
        timeout=60,
    )
    error = done.stderr.splitlines()[-1]
    start = f"AttributeError: module 'nsqlite' has no attribute '{wrong}'"
    assert f"{start}. Did you mean: '{right}'?" == error


# Loaded late


def test_the_tools_for_tests_are_loaded_late() -> None:
    """`nsqlite.testing` is loaded when it is first asked for, and then without what is heavy."""
    program = (
        "import sys, nsqlite\n"
        "print('nsqlite.testing' in sys.modules)\n"
        "print(nsqlite.testing.ManualClock.__name__)\n"
        "print(sys.modules['nsqlite.testing'] is nsqlite.testing)\n"
        "heavy = {'asyncio', 'socket', 'sqlite3', 'ssl', 'aiohttp', 'pytest', 'hypothesis'}\n"
        "print(*heavy & set(sys.modules))\n"
    )
    done = subprocess.run(  # noqa: S603 - our own interpreter
        [sys.executable, "-W", "error", "-c", program],
        capture_output=True,
        check=False,
        cwd=PACKAGE.parent,
        text=True,
        timeout=60,
    )
    assert (["False", "ManualClock", "True"], "") == (done.stdout.split(), done.stderr)


@pytest.mark.parametrize("name", nsqlite._LAZY)
def test_what_is_loaded_late_is_public(name: str) -> None:
    """Each name of the list of what is loaded late is public, and a module or of its module."""
    assert name in nsqlite.__all__
    module = nsqlite._LAZY[name]
    load = vars(nsqlite)["__getattr__"]  # which a type checker does not see
    if module:
        of_module = importlib.import_module(f"nsqlite.{module}")
        assert getattr(of_module, name) is load(name) is getattr(nsqlite, name)
        assert name in of_module.__all__
    else:
        assert f"nsqlite.{name}" == load(name).__name__


def test_what_a_type_checker_is_told_is_loaded_late() -> None:
    """The names that stand under TYPE_CHECKING are those of the list, each from its module."""
    tree = ast.parse((PACKAGE / "__init__.py").read_text("utf-8"))
    [block] = [
        node
        for node in tree.body
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    ]
    told = {
        alias.name: (node.module or "").removeprefix("nsqlite").removeprefix(".")
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert nsqlite._LAZY == told


@pytest.mark.parametrize("name", ["aio", "worker", "Worker"])
def test_asyncio_is_loaded_late(name: str) -> None:
    """What needs asyncio is loaded when it is first asked for, and not before."""
    program = (
        "import sys, nsqlite\n"
        "print('asyncio' in sys.modules, 'nsqlite.aio' in sys.modules)\n"
        f"nsqlite.{name}\n"
        "print('asyncio' in sys.modules, 'nsqlite.aio' in sys.modules)\n"
    )
    done = subprocess.run(  # noqa: S603 - our own interpreter
        [sys.executable, "-W", "error", "-c", program],
        capture_output=True,
        check=False,
        cwd=PACKAGE.parent,
        text=True,
        timeout=60,
    )
    assert (["False", "False", "True", "True"], "") == (done.stdout.split(), done.stderr)


# Types


def test_a_topic_of_orders_gives_messages_of_orders() -> None:
    """A type checker knows what a message carries from what its topic was said to carry."""
    topic = Topic[Order]("orders", clock=ManualClock())
    channel = topic.channel("billing")
    consumer = Consumer(channel)
    assert_type(topic, Topic[Order])
    assert_type(channel, Channel[Order])
    assert_type(consumer, Consumer[Order])
    topic.put_many(Order(number) for number in range(4))
    message = consumer.get(timeout=0)
    assert_type(message, Message[Order])
    assert_type(message.body, Order)
    with consumer.get(timeout=0) as entered:
        assert_type(entered, Message[Order])
    batch = consumer.get_many(1, timeout=0)
    assert_type(batch, list[Message[Order]])
    messages = iter(consumer)
    assert_type(messages, Iterator[Message[Order]])
    bodies = [message.body, entered.body, batch[0].body, next(messages).body]
    assert [Order(number) for number in range(4)] == bodies


def test_a_topic_of_orders_takes_orders() -> None:
    """A type checker finds a body that is none of the topic's."""
    topic = Topic[Order]("orders")
    topic.put("no order")  # type: ignore[arg-type]  # wrong on purpose
    topic.put_many(["no order"])  # type: ignore[list-item]  # wrong on purpose
    assert 2 == topic.depth


def test_a_plain_topic_needs_no_annotation() -> None:
    """A topic that says nothing of its bodies carries anything."""
    topic = Topic("orders")
    assert_type(topic, Topic[Any])
    topic.put(b"bytes")
    topic.put(Order(1))
    consumer = Consumer(topic.channel("billing"))
    assert_type(consumer.get(timeout=0), Message[Any])
    assert Order(1) == consumer.get(timeout=0).body


def test_a_brokers_topic_is_what_it_is_said_to_be() -> None:
    """A topic of a broker carries anything, and can be said to carry one thing."""
    broker = Broker()
    assert_type(broker.topic("orders"), Topic[Any])
    topic: Topic[Order] = broker.topic("orders")
    assert_type(Consumer(topic.channel("billing")), Consumer[Order])
    assert topic is broker.topics["orders"]


def test_the_types_are_there_for_users() -> None:
    """The package tells type checkers that it is typed."""
    assert (PACKAGE / "py.typed").is_file()


# Version


def test_the_version_is_what_is_built() -> None:
    """The package shows the version that the build finds in its file."""
    project = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text("utf-8"))
    found = project["tool"]["hatch"]["version"]
    text = (PACKAGE.parent / found["path"]).read_text("utf-8")
    assert [nsqlite.__version__] == re.findall(found["pattern"], text)
    assert re.fullmatch(r"\d+\.\d+\.\d+", nsqlite.__version__)


def test_the_installed_command_is_that_of_the_module() -> None:
    """The command `nsqlite` does what `python -m nsqlite` does."""
    project = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text("utf-8"))
    assert {"nsqlite": "nsqlite.__main__:main"} == project["project"]["scripts"]


def test_what_is_not_loaded_yet_is_listed() -> None:
    """Whoever lists the package, or completes a name in a shell, finds all of it."""
    assert set(nsqlite.__all__) <= set(dir(nsqlite))
