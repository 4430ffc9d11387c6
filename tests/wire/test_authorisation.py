"""Authorisation: what an auth server's answer allows, and which answers are none."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nsqlite.wire import authorisation
from nsqlite.wire.authorisation import Authorisations, BadAuthorisation


def entry(topic: str = ".*", channels: Any = (".*",), permissions: Any = ("publish",)) -> Any:
    return {"topic": topic, "channels": channels, "permissions": permissions}


def answer(*entries: Any, **others: Any) -> bytes:
    return json.dumps({"ttl": 60, "authorizations": entries, **others}).encode()


def test_an_answer() -> None:
    """Who the client is, for how long that holds, and how many entries there are."""
    found = Authorisations.parse(
        answer(entry(), entry(), identity="shop <1>", identity_url="http://shop")
    )
    assert (60, "shop <1>", "http://shop", 2) == (
        found.ttl,
        found.identity,
        found.identity_url,
        found.count,
    )
    assert (
        b'{"identity":"shop \\u003c1\\u003e","identity_url":"http://shop","permission_count":2}'
        == found.reply()
    )


@pytest.mark.parametrize(
    "told",
    [
        b'{"ttl": 1}',
        b' {"TTL": 1, "authorizations": null, "identity": null, "more": [1.5, NaN]}\n',
        b'{"ttl": 0, "ttl": 1}',
    ],
)
def test_an_answer_that_allows_nothing(told: bytes) -> None:
    """It is one; the client is told that it has no authorisations."""
    found = Authorisations.parse(told)
    assert Authorisations(ttl=1) == found
    assert 0 == found.count
    assert not found.allows("PUB", "orders")


@pytest.mark.parametrize(
    ("one", "yes", "no"),
    [
        # the entry, what it allows, what it does not
        (
            entry("^orders$", ["^billing$"], ["subscribe"]),
            [("SUB", "orders", "billing")],
            [("SUB", "orders", "other"), ("SUB", "my.orders", "billing"), ("PUB", "orders", "")],
        ),
        (
            entry("orders", ["bill"], ["subscribe"]),  # nothing says where a name ends
            [("SUB", "my.orders.eu", "billing")],
            [("SUB", "order", "bill")],
        ),
        (
            entry("orders", [".*"], ["publish"]),
            [("PUB", "orders", ""), ("MPUB", "orders", ""), ("DPUB", "orders", "")],
            [("SUB", "orders", "billing"), ("PUB", "bills", "")],
        ),
        (entry(permissions=["publish"], channels=[]), [], [("PUB", "orders", "")]),
        (entry(permissions=["publish"], channels=["^x$"]), [], [("PUB", "orders", "")]),
        (entry(permissions=["publish"], channels=["^x$", "^$"]), [("PUB", "orders", "")], []),
        (entry(permissions=[]), [], [("PUB", "orders", ""), ("SUB", "orders", "x")]),
        (
            entry(permissions=["publish", "subscribe"]),
            [("PUB", "orders", ""), ("SUB", "orders", "x")],
            [],
        ),
        # without a topic, any; without channels or permissions, none
        ({"channels": [""], "permissions": ["publish"]}, [("PUB", "orders", "")], []),
        ({"topic": "", "permissions": ["publish"]}, [], [("PUB", "orders", "")]),
        ({"TOPIC": "x", "Channels": [""], "permissions": ["publish"]}, [("PUB", "x", "")], []),
        ({}, [], [("PUB", "orders", ""), ("SUB", "orders", "x")]),
    ],
)
def test_what_an_entry_allows(
    one: Any, yes: list[tuple[str, str, str]], no: list[tuple[str, str, str]]
) -> None:
    """A permission, a topic and a channel that match; for who publishes an empty one."""
    found = Authorisations.parse(answer(one))
    for _ in range(2):  # the second time it is remembered
        assert [] == [asked for asked in yes if not found.allows(*asked)]
        assert [] == [asked for asked in no if found.allows(*asked)]


def test_one_entry_must_allow_all() -> None:
    """What two entries give together is not enough."""
    found = Authorisations.parse(
        answer(entry("a", ["x"], ["subscribe"]), entry("b", ["y"], ["subscribe"]))
    )
    assert found.allows("SUB", "a", "x")
    assert found.allows("SUB", "b", "y")
    assert not found.allows("SUB", "a", "y")


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that asks for thousands of topics takes no more memory for it."""
    monkeypatch.setattr(authorisation, "_REMEMBERED", 3)
    found = Authorisations.parse(answer(entry("[02468]$")))
    for number in range(20):
        assert (number % 2 == 0) == found.allows("PUB", f"orders{number}")
        assert len(found._known) <= 3


@pytest.mark.parametrize(
    ("told", "problem"),
    [
        (b"", "the answer is no JSON"),
        (b"no", "the answer is no JSON"),
        (b"[" * 100_000, "the answer is no JSON"),
        (b'{"ttl": 1} 2', "the answer is no JSON"),
        (b'{"ttl": ' + b"9" * 10_000 + b"}", "the answer is no JSON"),
        (b"[]", "the answer is no object"),
        (b"null", "the answer is no object"),
        (b"{}", "invalid TTL 0 (must be >0)"),
        (answer(ttl=0), "invalid TTL 0 (must be >0)"),
        (answer(ttl=-1), "invalid TTL -1 (must be >0)"),
        (answer(ttl=1 << 63), f"invalid TTL {1 << 63} (must be >0)"),
        (answer(ttl="60"), "ttl is of the wrong type"),
        (answer(ttl=60.0), "ttl is of the wrong type"),
        (answer(ttl=True), "ttl is of the wrong type"),
        (answer(identity=1), "identity is of the wrong type"),
        (answer(identity_url=[]), "identity_url is of the wrong type"),
        (answer(authorizations={}), "authorizations is of the wrong type"),
        (answer(1), "authorizations holds what is of the wrong type"),
        (answer({"topic": 1}), "topic is of the wrong type"),
        (answer({"channels": "x"}), "channels is of the wrong type"),
        (answer({"channels": [1]}), "channels holds what is of the wrong type"),
        (answer({"permissions": "publish"}), "permissions is of the wrong type"),
        (answer({"permissions": [None]}), "permissions holds what is of the wrong type"),
        (answer(entry(permissions=["publish", "own\n"])), 'unknown permission "own\\n"'),
        (answer(entry(permissions=["Publish"])), 'unknown permission "Publish"'),
        (
            answer(entry(topic="(a")),
            'unable to compile topic "(a": missing ), unterminated subpattern at position 0',
        ),
        (
            answer(entry(channels=["", "[[:alpha:]]"])),
            (
                'unable to compile channel "[[:alpha:]]": '
                "classes as [[:alpha:]] are Go's alone: write a-zA-Z"
            ),
        ),
    ],
    ids=lambda value: value[:40] if isinstance(value, bytes) else "",
)
def test_a_bad_answer(told: bytes, problem: str) -> None:
    """It is refused as a whole, whatever it allows."""
    with pytest.raises(BadAuthorisation) as info:
        Authorisations.parse(told)
    assert problem == str(info.value)


@given(st.binary())
def test_any_bytes_are_an_answer_or_refused(told: bytes) -> None:
    """Nothing else is raised."""
    with pytest.raises(BadAuthorisation):
        Authorisations.parse(told)
