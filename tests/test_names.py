"""Topic and channel names: NSQ's rule (NSQ semantics §2)."""

import re
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nsqlite import Broker, InvalidName, Topic
from nsqlite.names import MAX_LENGTH, check_name, is_ephemeral

GOOD: Final = [
    "a",
    "orders",
    "Orders.2-b_C",
    "0",
    ".",
    "..",
    "-",
    "_",
    "a" * 64,
    "a#ephemeral",
    "a" * 54 + "#ephemeral",
]

BAD: Final[list[object]] = [
    "",
    "a" * 65,
    "a" * 55 + "#ephemeral",
    "#ephemeral",
    "a#ephemeral#ephemeral",
    "a#ephemeral.b",
    "a#Ephemeral",
    "a#",
    "test:ephemeral",
    "a b",
    " a",
    "a ",
    "a$",
    "a/b",
    "*",
    "orders\n",
    "orders#ephemeral\n",
    "\norders",
    "a\0",
    "caf\N{LATIN SMALL LETTER E WITH ACUTE}",
    "\N{ARABIC-INDIC DIGIT ONE}",
    b"orders",
    bytearray(b"orders"),
    None,
    1,
    True,
    ["orders"],
]


def shown(value: object) -> str:
    return (
        ascii(value) if len(ascii(value)) < 30 else f"{type(value).__name__} of {len(ascii(value))}"
    )


def text(kind: str, name: object) -> str:
    return (
        f"{kind} name {name!r} is not valid: use 1 to 64 of the characters"
        " . a-z A-Z 0-9 _ - and, if it is ephemeral, end with #ephemeral (counted)"
    )


@pytest.mark.parametrize("name", GOOD, ids=shown)
def test_a_good_name_is_returned(name: str) -> None:
    """A name that NSQ allows comes back as it is."""
    assert name is check_name("topic", name)


@pytest.mark.parametrize("kind", ["topic", "channel"])
@pytest.mark.parametrize("name", BAD, ids=shown)
def test_a_bad_name_is_refused(kind: str, name: object) -> None:
    """A name that NSQ does not allow, or that is no str, is refused with the rule."""
    with pytest.raises(InvalidName) as info:
        check_name(kind, name)
    assert (kind, name) == (info.value.kind, info.value.name)
    assert text(kind, name) == str(info.value)


@pytest.mark.parametrize("name", BAD, ids=shown)
def test_nothing_exists_under_a_bad_name(name: object) -> None:
    """No topic, alone or a broker's, and no channel comes to be under a bad name."""
    broker = Broker()
    topic = broker.topic("orders")
    for call, kind in [(Topic, "topic"), (broker.topic, "topic"), (topic.channel, "channel")]:
        with pytest.raises(InvalidName) as info:
            call(name)  # type: ignore[operator]  # of several calls
        assert text(kind, name) == str(info.value)
    assert (["orders"], []) == (list(broker.topics), list(topic.channels))


@given(st.text(max_size=70) | st.from_regex(r"[.a-zA-Z0-9_-]{0,70}(#ephemeral)?\n?"))
def test_the_rule_is_nsqs(name: str) -> None:
    """A name is good exactly if Go's regular expression and NSQ's length say so."""
    good = re.match(r"^[.a-zA-Z0-9_-]+(#ephemeral)?\Z", name) and len(name.encode()) <= 64
    try:
        accepted = check_name("topic", name) == name
    except InvalidName:
        accepted = False
    assert bool(good) == accepted


def test_the_longest_name_has_64_characters() -> None:
    """The constant says what the rule says."""
    assert 64 == MAX_LENGTH


@pytest.mark.parametrize(
    ("name", "ephemeral"),
    [("a#ephemeral", True), ("a", False), ("ephemeral", False), ("a.ephemeral", False)],
)
def test_the_end_makes_a_name_ephemeral(name: str, *, ephemeral: bool) -> None:
    """A name is ephemeral if it ends with #ephemeral."""
    assert ephemeral is is_ephemeral(name)
