"""The errors: their tree, their fields and their texts."""

import copy
import inspect
import pickle
import queue
import re
from collections.abc import Callable
from typing import Final

import pytest

import nsqlite
from nsqlite import InvalidName, InvalidOption, errors

CASES: Final[list[tuple[errors.NSQLiteError, dict[str, object], str]]] = [
    (
        errors.InvalidName("topic", "a b"),
        {"kind": "topic", "name": "a b"},
        (
            "topic name 'a b' is not valid: use 1 to 64 of the characters"
            " . a-z A-Z 0-9 _ - and, if it is ephemeral, end with #ephemeral (counted)"
        ),
    ),
    (
        errors.InvalidOption("msg_timeout", -1, "a finite number of seconds, above 0"),
        {
            "option": "msg_timeout",
            "value": -1,
            "expected": "a finite number of seconds, above 0",
        },
        "msg_timeout must be a finite number of seconds, above 0, not -1",
    ),
    (
        errors.InvalidMessage("the body is empty"),
        {"problem": "the body is empty", "index": None},
        "the body is empty",
    ),
    (
        errors.InvalidMessage("the body is empty", 0),
        {"problem": "the body is empty", "index": 0},
        "message 0: the body is empty",
    ),
    (
        errors.NotCopyable("<Topic>"),
        {"what": "<Topic>"},
        (
            "<Topic> cannot be copied or pickled, since other threads know it too: pass it on"
            " as it is; to another process send the names, or a message's body"
        ),
    ),
    (
        errors.RecordingError("jobs.rec", "it is no file"),
        {"where": "jobs.rec", "problem": "it is no file"},
        "recording jobs.rec: it is no file",
    ),
    (
        errors.NotAsyncio("get"),
        {"call": "get"},
        (
            "get() needs a running event loop of asyncio (trio and curio have other ones):"
            " use asyncio.run(), or nsqlite.Consumer in a thread"
        ),
    ),
    (
        errors.MissingExtra("snappy", "python-snappy", "snappy"),
        {"what": "snappy", "package": "python-snappy", "extra": "snappy"},
        "snappy needs python-snappy, which is not installed: pip install 'nsqlite[snappy]'",
    ),
    (
        errors.TooManyConsumers("orders", "billing", 2),
        {"topic": "orders", "channel": "billing", "limit": 2},
        "consumers for orders:billing exceeds limit of 2",
    ),
    (
        errors.NotInFlight("0123456789abcdef", "timed out"),
        {"id": "0123456789abcdef", "reason": "timed out"},
        "message 0123456789abcdef: ID not in flight (timed out)",
    ),
    (
        errors.NotInFlight("0123456789abcdef", "not owner"),
        {"id": "0123456789abcdef", "reason": "not owner"},
        "message 0123456789abcdef: client does not own message",
    ),
    (
        errors.Empty("billing", ""),
        {"channel": "billing", "why": ""},
        "no message came on channel 'billing' in time",
    ),
    (
        errors.Empty("billing", "it is paused"),
        {"channel": "billing", "why": "it is paused"},
        "no message came on channel 'billing' in time: it is paused",
    ),
    (
        errors.WindowFull("billing", 3),
        {"channel": "billing", "why": "", "max_in_flight": 3},
        (
            "the consumer of channel 'billing' holds max_in_flight=3 messages:"
            " fin() or req() one first"
        ),
    ),
    (
        errors.WindowFull("billing", 0),
        {"channel": "billing", "why": "", "max_in_flight": 0},
        "the window of the consumer of channel 'billing' is 0: rdy() opens it",
    ),
    (
        errors.Full("orders:billing", 2, 5),
        {"where": "orders:billing", "size": 2, "max_depth": 5},
        "orders:billing has no room for 2 more: max_depth=5",
    ),
    (
        errors.Full("orders", 5, 5),
        {"where": "orders", "size": 5, "max_depth": 5},
        "orders has no room for 5 more: max_depth=5",
    ),
    (
        errors.Full("orders", 6, 5),
        {"where": "orders", "size": 6, "max_depth": 5},
        "a batch of 6 can never fit orders: max_depth=5",
    ),
    (
        errors.Full("orders", 6),
        {"where": "orders", "size": 6, "max_depth": None},
        "other puts to orders wait in front of this one",
    ),
    (
        errors.Closed("topic 'orders'"),
        {"what": "topic 'orders'", "how": "closed"},
        "topic 'orders' is closed",
    ),
    (
        errors.Closed("topic 'orders'", "deleted"),
        {"what": "topic 'orders'", "how": "deleted"},
        "topic 'orders' is deleted",
    ),
    (
        errors.StoreError("jobs.db", "it is torn"),
        {"where": "jobs.db", "problem": "it is torn"},
        "store jobs.db: it is torn",
    ),
    (
        errors.StoreFull("jobs.db", "the disk is full"),
        {"where": "jobs.db", "problem": "the disk is full"},
        "store jobs.db: the disk is full",
    ),
    (
        errors.StoreForeign("jobs.db", "it is no SQLite file"),
        {"where": "jobs.db", "problem": "it is no SQLite file"},
        "store jobs.db: it is no SQLite file",
    ),
    (
        errors.StoreDamaged("jobs.db", "it is damaged"),
        {"where": "jobs.db", "problem": "it is damaged"},
        "store jobs.db: it is damaged",
    ),
    (
        errors.StoreInUse("jobs.db", 7, "process 7 has it"),
        {"where": "jobs.db", "pid": 7, "problem": "process 7 has it"},
        "store jobs.db: process 7 has it",
    ),
    (
        errors.NoOwner("jobs.db", "no process listens for it"),
        {"where": "jobs.db", "problem": "no process listens for it"},
        "store jobs.db: no process listens for it",
    ),
    (
        errors.Unanswered("jobs.db", "its owner went away"),
        {"where": "jobs.db", "problem": "its owner went away"},
        "store jobs.db: its owner went away",
    ),
    (
        errors.CannotListen("127.0.0.1:4150", "address already in use"),
        {"address": "127.0.0.1:4150", "problem": "address already in use"},
        "listen (127.0.0.1:4150) failed - address already in use",
    ),
    (
        errors.Reentered("get"),
        {"call": "get", "instead": None},
        (
            "get() was called by a signal handler or destructor inside another call on the same"
            " topic, and cannot answer there: set a flag and call it later"
        ),
    ),
    (
        errors.Reentered("join", "await join_async()"),
        {"call": "join", "instead": "await join_async()"},
        "join() would wait here for its own end: await join_async()",
    ),
    (
        errors.ClockOutOfRange(-1.5, "but message ids begin at 0: set it right"),
        {"now": -1.5, "problem": "but message ids begin at 0: set it right"},
        ("the wall clock shows -2 s since 1970, but message ids begin at 0: set it right"),
    ),
    (
        errors.ClockStandsStill("get() on channel 'billing'", 2.5),
        {"waiter": "get() on channel 'billing'", "next_deadline": 2.5, "elsewhere": ()},
        (
            "get() on channel 'billing' waits for ever: every thread that uses its clock waits on"
            " it, nobody moves it, and the next deadline is 2.5 s ahead; call advance() from"
            " another thread, or make the clock with autojump=True"
        ),
    ),
    (
        errors.StillBusy("drain()", "10 messages", "one more of them"),
        {"call": "drain()", "limit": "10 messages", "following": "one more of them"},
        (
            "drain() has no end: after 10 messages there is one more of them; end what goes on, or"
            " give it a higher limit"
        ),
    ),
    (
        errors.ClockStandsStill("stop() of worker 'a'", None, ("a-1", "a-2")),
        {"waiter": "stop() of worker 'a'", "next_deadline": None, "elsewhere": ("a-1", "a-2")},
        (
            "stop() of worker 'a' waits for ever: every thread that uses its clock waits on it but"
            " for a-1, a-2, nobody moves it, and there is no deadline to wait for; call advance()"
            " from another thread, or make the clock with autojump=True"
        ),
    ),
]
"""Every error in each of its forms, with its fields and its text."""

STANDARD: Final[dict[type, str]] = {
    ValueError: "ValueError",
    TypeError: "TypeError",
    RuntimeError: "RuntimeError",
    queue.Empty: "queue.Empty",
    queue.Full: "queue.Full",
}
"""The standard library's errors that ours are too."""


def kind(case: object) -> str:
    return type(case).__name__ if isinstance(case, errors.NSQLiteError) else ""


def tree() -> list[type[errors.NSQLiteError]]:
    """Return every class of the module, in the order of its definition."""
    return [
        value
        for value in vars(errors).values()
        if inspect.isclass(value) and issubclass(value, errors.NSQLiteError)
    ]


def branches(base: type[errors.NSQLiteError], indent: str = "") -> list[tuple[str, str]]:
    """Draw what is below a class: each line's beginning, and its base of the standard library."""
    lines = []
    below = [error for error in tree() if base in error.__bases__]
    for error in below:
        last = error is below[-1]
        standard = [STANDARD[other] for other in error.__bases__ if other is not base]
        lines.append((f"{indent}{'`' if last else '|'}-- {error.__name__}", " ".join(standard)))
        lines += branches(error, indent + ("    " if last else "|   "))
    return lines


def drawn() -> list[tuple[str, str]]:
    """Read the tree in the module's docstring, without the explanations."""
    line = re.compile(r" {4}([|` ]*-- \w+)(?: +\(([\w.]+)\))? +\S.*")
    found = map(line.fullmatch, (errors.__doc__ or "").splitlines())
    return [(match[1], match[2] or "") for match in found if match]


def test_the_docstring_shows_the_tree() -> None:
    """The tree that the docstring draws is the real one."""
    assert branches(errors.NSQLiteError) == drawn()


def test_every_error_is_tried_here() -> None:
    """Each error but the base has a case in this file."""
    assert set(tree()) - {errors.NSQLiteError} == {type(error) for error, _, _ in CASES}


def test_every_error_is_public() -> None:
    """Each error can be caught by its name in the package."""
    assert tree() == [getattr(nsqlite, error.__name__) for error in tree()]
    assert {error.__name__ for error in tree()} <= set(nsqlite.__all__)


def test_every_error_names_its_fields() -> None:
    """Each error's docstring has the fields it has, in the order in which it takes them."""
    for error in tree()[1:]:
        fields = re.findall(r"^ {4}(\w+): ", inspect.getdoc(error) or "", re.MULTILINE)
        parameters = list(inspect.signature(error).parameters)
        assert sorted(parameters) == sorted(fields), error


def facts(error: errors.NSQLiteError) -> dict[str, object]:
    """Return what an error carries, by the public names."""
    return {name: getattr(error, name) for name in (key.lstrip("_") for key in vars(error))}


@pytest.mark.parametrize(("error", "fields", "text"), CASES, ids=kind)
def test_an_error_has_fields(
    error: errors.NSQLiteError, fields: dict[str, object], text: str
) -> None:
    """An error carries its facts as fields, and nothing else."""
    assert text
    assert fields == facts(error)


@pytest.mark.parametrize(("error", "fields", "text"), CASES, ids=kind)
def test_an_error_has_a_text(
    error: errors.NSQLiteError, fields: dict[str, object], text: str
) -> None:
    """An error builds its text from its fields."""
    assert fields
    assert text == str(error)


@pytest.mark.parametrize(("error", "fields", "text"), CASES, ids=kind)
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_an_error_survives_pickling(
    error: errors.NSQLiteError, fields: dict[str, object], text: str, protocol: int
) -> None:
    """An error that was pickled has the same type, fields, arguments and text."""
    again = pickle.loads(pickle.dumps(error, protocol))  # noqa: S301 - our own pickle
    assert (type(error), error.args, fields) == (type(again), again.args, facts(again))
    assert text == str(again)


@pytest.mark.parametrize(("error", "fields", "text"), CASES, ids=kind)
@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy])
def test_an_error_survives_copying(
    error: errors.NSQLiteError,
    fields: dict[str, object],
    text: str,
    duplicate: Callable[[errors.NSQLiteError], errors.NSQLiteError],
) -> None:
    """An error that was copied has the same type, fields, arguments and text."""
    again = duplicate(error)
    assert (type(error), error.args, fields) == (type(again), again.args, facts(again))
    assert text == str(again)


@pytest.mark.parametrize(
    ("standard", "ours"),
    [
        (queue.Empty, {"Empty", "WindowFull"}),
        (queue.Full, {"Full"}),
        (ValueError, {"InvalidMessage", "InvalidName", "InvalidOption"}),
    ],
)
def test_users_catch_what_they_know(standard: type[Exception], ours: set[str]) -> None:
    """Where the standard library has the error, ours is one of those too."""
    assert ours == {error.__name__ for error in tree() if issubclass(error, standard)}


def test_one_base_catches_all() -> None:
    """Every error is an `NSQLiteError`, and that is no more than an `Exception`."""
    assert (Exception,) == errors.NSQLiteError.__bases__
    assert all(isinstance(error, nsqlite.NSQLiteError) for error, _, _ in CASES)


def test_a_value_is_shown_however_bad_it_is() -> None:
    """An error's text is short and there, whatever was given."""

    class Broken:
        def __repr__(self) -> str:
            raise ZeroDivisionError

    assert "n must be one, not <Broken>" == str(InvalidOption("n", Broken(), "one"))
    assert "n must be one, not <int>" == str(InvalidOption("n", 10**5000, "one"))
    text = str(InvalidName("topic", "x" * 10_000))
    assert len(text) < 400
    assert "xxx..." in text


def test_what_cannot_be_printed_becomes_an_escape() -> None:
    """A text becomes one line of what can be printed; one that is, stays as it is."""
    assert "tea é" == errors.printable("tea é")
    assert r"a\x00\n\u202eé" == errors.printable("a\0\n\u202eé")


def test_an_empty_shows_why() -> None:
    """The repr of an Empty has its text, not where that comes from."""
    error = nsqlite.Empty("billing", lambda: "it is paused")
    assert repr(error) == f"Empty('billing', {str(error)!r})"
