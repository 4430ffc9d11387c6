"""Commands as bytes: those that NSQ's protocol shows, and each read back as it was."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nsqlite.wire.commands import (
    MAGIC,
    Auth,
    Cls,
    Command,
    Dpub,
    Fin,
    Identify,
    Mpub,
    Nop,
    Pub,
    Rdy,
    Req,
    Sub,
    Touch,
)
from nsqlite.wire.session import CLOSING, INIT, SUBSCRIBED, Session, SessionLimits
from wire.exact import Exact

ID = "135950b8448f8005"

EXAMPLES: dict[str, tuple[bytes, str]] = {
    "the magic bytes and IDENTIFY": (
        MAGIC + Identify(b'{"client_id":"c1","hostname":"h1","feature_negotiation":true}').encode(),
        (
            "20 20 56 32"
            "49 44 45 4e 54 49 46 59 0a 00 00 00 3d 7b 22 63 6c 69 65 6e 74 5f 69 64 22 3a 22 63"
            "31 22"
            "2c 22 68 6f 73 74 6e 61 6d 65 22 3a 22 68 31 22 2c 22 66 65 61 74 75 72 65 5f 6e 65"
            "67 6f"
            "74 69 61 74 69 6f 6e 22 3a 74 72 75 65 7d"
        ),
    ),
    "SUB": (Sub("t", "ch").encode(), "53 55 42 20 74 20 63 68 0a"),
    "RDY": (Rdy(100).encode(), "52 44 59 20 31 30 30 0a"),
    "NOP": (Nop().encode(), "4e 4f 50 0a"),
    "PUB": (Pub("t", [b"hi"]).encode(), "50 55 42 20 74 0a 00 00 00 02 68 69"),
    "DPUB": (
        Dpub("t", 1500, b"hi").encode(),
        "44 50 55 42 20 74 20 31 35 30 30 0a 00 00 00 02 68 69",
    ),
    "MPUB": (
        Mpub("t", [b"a", b"bcd"]).encode(),
        "4d 50 55 42 20 74 0a 00 00 00 10 00 00 00 02 00 00 00 01 61 00 00 00 03 62 63 64",
    ),
    "FIN": (
        Fin([ID]).encode(),
        "46 49 4e 20 31 33 35 39 35 30 62 38 34 34 38 66 38 30 30 35 0a",
    ),
    "REQ": (
        Req(ID, 0).encode(),
        "52 45 51 20 31 33 35 39 35 30 62 38 34 34 38 66 38 30 30 35 20 30 0a",
    ),
    "TOUCH": (
        Touch(ID).encode(),
        "54 4f 55 43 48 20 31 33 35 39 35 30 62 38 34 34 38 66 38 30 30 35 0a",
    ),
    "CLS": (Cls().encode(), "43 4c 53 0a"),
    "AUTH": (Auth(b"secret").encode(), "41 55 54 48 0a 00 00 00 06 73 65 63 72 65 74"),
}
"""The commands of NSQ wire §10."""


@pytest.mark.parametrize("name", EXAMPLES)
def test_worked_examples(name: str) -> None:
    """The commands that the protocol's text shows are made so."""
    made, text = EXAMPLES[name]
    assert bytes.fromhex(text) == made


NAMES: Any = st.from_regex(r"[.a-zA-Z0-9_-]{1,64}", fullmatch=True)
IDS: Any = st.text(
    st.characters(max_codepoint=255, exclude_characters=" \r\n"), min_size=16, max_size=16
)
BODIES: Any = st.binary(min_size=1, max_size=50)
MILLISECONDS: Any = st.integers(0, 3600_000)

INITIAL: Any = st.one_of(st.builds(Identify, BODIES), st.builds(Auth, BODIES))
PUBLISHED: Any = st.one_of(
    st.builds(Pub, NAMES, st.lists(BODIES, min_size=1, max_size=5)),
    st.builds(Mpub, NAMES, st.lists(BODIES, min_size=1, max_size=5)),
    st.builds(Dpub, NAMES, MILLISECONDS, BODIES),
    st.just(Nop()),
)
ANSWERED: Any = st.one_of(
    st.builds(Fin, st.lists(IDS, min_size=1, max_size=5)),
    st.builds(Req, IDS, MILLISECONDS),
    st.builds(Touch, IDS),
)


def read(session: Session, command: Command) -> Exact:
    session.feed(command.encode())  # type: ignore[union-attr]  # none that has no bytes
    return Exact(session.commands())


@given(st.one_of(INITIAL, PUBLISHED))
def test_a_command_is_read_as_it_was_made(command: Command) -> None:
    """What a client makes is what the server reads, before SUB."""
    session = Session(SessionLimits())
    session.feed(MAGIC)
    assert [command] == read(session, command)
    assert INIT == session.state


@given(
    NAMES,
    NAMES,
    st.lists(st.one_of(PUBLISHED, ANSWERED, st.builds(Rdy, st.integers(0, 2500)))),
    st.lists(st.one_of(PUBLISHED, ANSWERED)),
)
def test_a_consumer_is_read_as_it_was_made(
    topic: str, channel: str, before: list[Command], after: list[Command]
) -> None:
    """What a client makes is what the server reads, after SUB and after CLS."""
    session = Session(SessionLimits())
    session.feed(MAGIC)
    assert [Sub(topic, channel)] == read(session, Sub(topic, channel))
    assert SUBSCRIBED == session.state
    for command in before:
        assert [command] == read(session, command)
    assert [Cls()] == read(session, Cls())
    assert CLOSING == session.state
    for command in after:
        assert [command] == read(session, command)


def test_a_secret_is_shown_nowhere() -> None:
    """What a command looks like in a log tells nothing of a secret."""
    assert "Auth(secret=<6 bytes>)" == repr(Auth(b"secret")) == str(Auth(b"secret"))
