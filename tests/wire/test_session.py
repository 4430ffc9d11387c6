"""A session: each error text of NSQ's protocol, each command in each state, any way of cutting.

`Session(limits, plain=True)` reads each command by itself, and is what the other is compared with.
"""

import itertools
import tracemalloc
from collections.abc import Iterable, Iterator
from struct import pack
from typing import Any, Final

import pytest
from hypothesis import example, given
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
    MpubBegun,
    Nop,
    Pub,
    Rdy,
    Refusal,
    Req,
    Sub,
    Touch,
)
from nsqlite.wire.session import (
    CLOSING,
    INIT,
    LONGEST_LINE,
    SUBSCRIBED,
    Session,
    SessionLimits,
)
from wire.exact import Exact

ID: Final = "135950b8448f8005"
SMALL: Final = SessionLimits(max_msg_size=20, max_body_size=64, max_req_timeout=9000)
SECURED: Final = SessionLimits(tls_required=True)


def size(number: int) -> bytes:
    return pack(">i", number)


def sized(body: bytes) -> bytes:
    return size(len(body)) + body


def session_in(state: int, limits: SessionLimits = SMALL, *, plain: bool = False) -> Session:
    """Return a session that has come to a state."""
    session = Session(limits, plain=plain)
    session.feed(MAGIC)
    if state != INIT:
        session.feed(b"SUB t c\n")
    if state == CLOSING:
        session.feed(b"CLS\n")
    assert not any(isinstance(command, Refusal) for command in session.commands())
    assert state == session.state
    return session


def read(session: Session, data: bytes) -> Exact:
    session.feed(data)
    return Exact(session.commands())


# Every error

ERRORS: Final[list[tuple[int, bytes, str]]] = [
    # Any command
    (INIT, b"ASDF\n", "E_INVALID invalid command ASDF"),
    (INIT, b"\n", "E_INVALID invalid command "),
    (INIT, b"\r\n", "E_INVALID invalid command "),
    (INIT, b" PUB t\n", "E_INVALID invalid command "),
    (INIT, b"pub t\n", "E_INVALID invalid command pub"),
    (INIT, b"PUBLISH t\n", "E_INVALID invalid command PUBLISH"),
    (INIT, b"PUB\tt\n", "E_INVALID invalid command PUB\tt"),
    (SUBSCRIBED, b"ASDF 1 2\n", "E_INVALID invalid command ASDF"),
    # IDENTIFY
    (SUBSCRIBED, b"IDENTIFY\n", "E_INVALID cannot IDENTIFY in current state"),
    (CLOSING, b"IDENTIFY\n", "E_INVALID cannot IDENTIFY in current state"),
    (INIT, b"IDENTIFY\n" + size(65), "E_BAD_BODY IDENTIFY body too big 65 > 64"),
    (INIT, b"IDENTIFY\n" + size(2**31 - 1), "E_BAD_BODY IDENTIFY body too big 2147483647 > 64"),
    (INIT, b"IDENTIFY\n" + size(0), "E_BAD_BODY IDENTIFY invalid body size 0"),
    (INIT, b"IDENTIFY\n" + size(-1), "E_BAD_BODY IDENTIFY invalid body size -1"),
    (INIT, b"IDENTIFY\n" + size(-(2**31)), "E_BAD_BODY IDENTIFY invalid body size -2147483648"),
    # AUTH
    (SUBSCRIBED, b"AUTH x\n", "E_INVALID cannot AUTH in current state"),
    (CLOSING, b"AUTH\n" + sized(b"s"), "E_INVALID cannot AUTH in current state"),
    (INIT, b"AUTH x\n" + size(65), "E_INVALID AUTH invalid number of parameters"),
    (INIT, b"AUTH \n", "E_INVALID AUTH invalid number of parameters"),
    (INIT, b"AUTH\n" + size(65), "E_BAD_BODY AUTH body too big 65 > 64"),
    (INIT, b"AUTH\n" + size(0), "E_BAD_BODY AUTH invalid body size 0"),
    (INIT, b"AUTH\n" + size(-3), "E_BAD_BODY AUTH invalid body size -3"),
    # SUB
    (SUBSCRIBED, b"SUB\n", "E_INVALID cannot SUB in current state"),
    (SUBSCRIBED, b"SUB t c\n", "E_INVALID cannot SUB in current state"),
    (CLOSING, b"SUB t c\n", "E_INVALID cannot SUB in current state"),
    (INIT, b"SUB\n", "E_INVALID SUB insufficient number of parameters"),
    (INIT, b"SUB $\n", "E_INVALID SUB insufficient number of parameters"),
    (INIT, b"SUB $ $\n", 'E_BAD_TOPIC SUB topic name "$" is not valid'),
    (INIT, b"SUB  c\n", 'E_BAD_TOPIC SUB topic name "" is not valid'),
    (INIT, b"SUB t#x c\n", 'E_BAD_TOPIC SUB topic name "t#x" is not valid'),
    (INIT, b"SUB t $\n", 'E_BAD_CHANNEL SUB channel name "$" is not valid'),
    (INIT, b"SUB t \n", 'E_BAD_CHANNEL SUB channel name "" is not valid'),
    (
        INIT,
        b"SUB t " + b"c" * 65 + b"\n",
        f'E_BAD_CHANNEL SUB channel name "{"c" * 65}" is not valid',
    ),
    (INIT, b'SUB "\x00\xff c\n', r'E_BAD_TOPIC SUB topic name "\"\x00\xff" is not valid'),
    (INIT, "SUB t é\n".encode(), 'E_BAD_CHANNEL SUB channel name "é" is not valid'),
    # RDY
    (INIT, b"RDY x\n", "E_INVALID cannot RDY in current state"),
    (SUBSCRIBED, b"RDY x\n", "E_INVALID RDY could not parse count x"),
    (SUBSCRIBED, b"RDY -1\n", "E_INVALID RDY could not parse count -1"),
    (SUBSCRIBED, b"RDY +1\n", "E_INVALID RDY could not parse count +1"),
    (SUBSCRIBED, b"RDY 1.0\n", "E_INVALID RDY could not parse count 1.0"),
    (SUBSCRIBED, b"RDY 2501\n", "E_INVALID RDY count 2501 out of range 0-2500"),
    (SUBSCRIBED, b"RDY %d\n" % (2**64 - 1), "E_INVALID RDY count -1 out of range 0-2500"),
    # FIN, TOUCH, REQ
    (INIT, b"FIN\n", "E_INVALID cannot FIN in current state"),
    (INIT, b"FIN 135950b8448f8005\n", "E_INVALID cannot FIN in current state"),
    (INIT, b"TOUCH\n", "E_INVALID cannot TOUCH in current state"),
    (INIT, b"REQ\n", "E_INVALID cannot REQ in current state"),
    (SUBSCRIBED, b"FIN\n", "E_INVALID FIN insufficient number of params"),
    (SUBSCRIBED, b"TOUCH\n", "E_INVALID TOUCH insufficient number of params"),
    (SUBSCRIBED, b"REQ\n", "E_INVALID REQ insufficient number of params"),
    (SUBSCRIBED, b"REQ 1\n", "E_INVALID REQ insufficient number of params"),
    (SUBSCRIBED, b"FIN 135950b8448f800\n", "E_INVALID invalid message ID"),
    (SUBSCRIBED, b"FIN 135950b8448f80055\n", "E_INVALID invalid message ID"),
    (SUBSCRIBED, b"FIN 135950b8 448f8005\n", "E_INVALID invalid message ID"),
    (SUBSCRIBED, b"FIN \n", "E_INVALID invalid message ID"),
    (SUBSCRIBED, b"TOUCH x\n", "E_INVALID invalid message ID"),
    (SUBSCRIBED, b"REQ x y\n", "E_INVALID invalid message ID"),
    (CLOSING, b"REQ x y\n", "E_INVALID invalid message ID"),
    (SUBSCRIBED, b"REQ 135950b8448f8005 y\n", "E_INVALID REQ could not parse timeout y"),
    (SUBSCRIBED, b"REQ 135950b8448f8005 -1\n", "E_INVALID REQ could not parse timeout -1"),
    # CLS
    (INIT, b"CLS\n", "E_INVALID cannot CLS in current state"),
    (CLOSING, b"CLS\n", "E_INVALID cannot CLS in current state"),
    # PUB
    (INIT, b"PUB\n", "E_INVALID PUB insufficient number of parameters"),
    (INIT, b"PUB \n", 'E_BAD_TOPIC PUB topic name "" is not valid'),
    (INIT, b"PUB a/b\n" + size(-1), 'E_BAD_TOPIC PUB topic name "a/b" is not valid'),
    (INIT, b"PUB t\n" + size(0), "E_BAD_MESSAGE PUB invalid message body size 0"),
    (INIT, b"PUB t\n" + size(-1), "E_BAD_MESSAGE PUB invalid message body size -1"),
    (INIT, b"PUB t\n" + size(21), "E_BAD_MESSAGE PUB message too big 21 > 20"),
    (SUBSCRIBED, b"PUB t\n" + size(21), "E_BAD_MESSAGE PUB message too big 21 > 20"),
    # DPUB
    (INIT, b"DPUB\n", "E_INVALID DPUB insufficient number of parameters"),
    (INIT, b"DPUB $\n", "E_INVALID DPUB insufficient number of parameters"),
    (INIT, b"DPUB $ x\n", 'E_BAD_TOPIC DPUB topic name "$" is not valid'),
    (INIT, b"DPUB t x\n", "E_INVALID DPUB could not parse timeout x"),
    (INIT, b"DPUB t -1\n", "E_INVALID DPUB could not parse timeout -1"),
    (INIT, b"DPUB t 9001\n", "E_INVALID DPUB timeout 9001 out of range 0-9000"),
    (
        INIT,
        b"DPUB t %d\n" % (2**64 - 1),
        "E_INVALID DPUB timeout 18446744073709551615 out of range 0-9000",
    ),
    (INIT, b"DPUB t 0\n" + size(0), "E_BAD_MESSAGE DPUB invalid message body size 0"),
    (INIT, b"DPUB t 9000\n" + size(-9), "E_BAD_MESSAGE DPUB invalid message body size -9"),
    (INIT, b"DPUB t \n" + size(21), "E_BAD_MESSAGE DPUB message too big 21 > 20"),
    # MPUB; the code stands twice
    (INIT, b"MPUB\n", "E_INVALID MPUB insufficient number of parameters"),
    (INIT, b"MPUB $\n", 'E_BAD_TOPIC E_BAD_TOPIC MPUB topic name "$" is not valid'),
]

BATCHES: Final[list[tuple[bytes, str]]] = [
    (size(0), "E_BAD_BODY MPUB invalid body size 0"),
    (size(-1), "E_BAD_BODY MPUB invalid body size -1"),
    (size(65), "E_BAD_BODY MPUB body too big 65 > 64"),
    (size(64) + size(0), "E_BAD_BODY MPUB invalid message count 0"),
    (size(64) + size(-1), "E_BAD_BODY MPUB invalid message count -1"),
    (size(64) + size(13), "E_BAD_BODY MPUB invalid message count 13"),
    (size(64) + size(12) + size(0), "E_BAD_MESSAGE MPUB invalid message(0) body size 0"),
    (size(64) + size(2) + size(-1), "E_BAD_MESSAGE MPUB invalid message(0) body size -1"),
    (
        size(64) + size(2) + sized(b"x") + size(0),
        "E_BAD_MESSAGE MPUB invalid message(1) body size 0",
    ),
    (size(64) + size(2) + size(21), "E_BAD_MESSAGE MPUB message too big 21 > 20"),
    # nsqd reads on, and takes as much as there are messages
    (
        size(9) + size(3) + 2 * sized(bytes(20)) + size(9),
        "E_BAD_BODY MPUB body too big 65 > 64",
    ),
]


@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize(("state", "sent", "text"), ERRORS)
def test_every_refusal(state: int, sent: bytes, text: str, plain: bool) -> None:
    """What cannot be done is refused with nsqd's text, and nothing is read after that."""
    session = session_in(state, plain=plain)
    assert [Refusal(text.encode())] == read(session, sent)
    assert session.over
    assert [] == read(session, b"NOP\n")
    assert session.end() is None


@pytest.mark.parametrize("state", [INIT, SUBSCRIBED, CLOSING])
@pytest.mark.parametrize(("batch", "text"), BATCHES)
def test_every_refusal_of_a_batch(state: int, batch: bytes, text: str) -> None:
    """Nsqd has made the topic of an MPUB before it looks at what follows the line."""
    session = session_in(state)
    assert [MpubBegun("t"), Refusal(text.encode())] == read(session, b"MPUB t\n" + batch)
    announcing = SessionLimits(max_msg_size=20, max_body_size=64, announces=True)
    session = session_in(state, announcing)
    assert [MpubBegun("t")] == read(session, b"MPUB t\n")
    assert [Refusal(text.encode())] == read(session, batch)


def test_heartbeats_are_needed_to_subscribe() -> None:
    """A client without heartbeats cannot subscribe, which is looked at before its parameters."""
    session = session_in(INIT)
    session.heartbeats = False
    text = b"E_INVALID cannot SUB with heartbeats disabled"
    assert [Refusal(text)] == read(session, b"SUB\n")
    session = session_in(SUBSCRIBED)
    session.heartbeats = False
    assert [Refusal(b"E_INVALID cannot SUB in current state")] == read(session, b"SUB\n")


@pytest.mark.parametrize("name", ["NOP", "PUB t", "SUB t c", "FIN", "AUTH", "RDY", "MPUB", "ASDF"])
def test_tls_may_be_required(name: str) -> None:
    """Where TLS is required nothing but IDENTIFY is done without it, whatever it is."""
    word = name.split(" ", maxsplit=1)[0]
    text = f"E_INVALID cannot {word} in current state (TLS required)".encode()
    assert [Refusal(text)] == read(session_in(INIT, SECURED), f"{name}\n".encode())
    session = session_in(INIT, SECURED)
    body = b"{}"
    assert [Identify(body)] == read(session, Identify(body).encode())
    session.secure = True
    assert [Pub("t", [b"x"]), Nop()] == read(session, Pub("t", [b"x"]).encode() + b"NOP\n")


@pytest.mark.parametrize("magic", [b"  V1", b"GET ", b"\0\0\0\0", b"  v2", b" V2 "])
def test_other_magic_bytes_are_refused(magic: bytes) -> None:
    """What does not begin as the protocol does is refused at the fourth byte."""
    session = Session(SMALL)
    assert [] == read(session, magic[:3])
    assert not session.begun
    assert [Refusal(b"E_BAD_PROTOCOL")] == read(session, magic[3:])
    assert [] == read(session, MAGIC + b"NOP\n")


def test_a_session_that_has_not_begun_ends_without_a_word() -> None:
    """Too few magic bytes are no error."""
    for cut in range(5):
        session = Session(SMALL)
        assert [] == read(session, MAGIC[:cut])
        assert (cut == 4) == session.begun
        assert session.end() is None


def test_a_line_that_is_too_long_ends_all_without_a_word() -> None:
    """A line has 16 KiB at the most, its end counted."""
    longest = b"NOP " + b"x" * (LONGEST_LINE - 5)
    assert [Nop(), Nop()] == read(session_in(INIT), longest + b"\nNOP\n")
    assert [] == read(session_in(INIT), longest)
    assert [Refusal(b"")] == read(session_in(INIT), longest + b"x\n")
    assert [Refusal(b"")] == read(session_in(INIT), longest + b"x")
    session = session_in(INIT)
    for byte in longest:
        assert [] == read(session, bytes([byte]))
    assert [Refusal(b"")] == read(session, b"x")


# What is done

FINE: Final[list[tuple[int, bytes, Command]]] = [
    (INIT, b"NOP\r\n", Nop()),
    (INIT, b"NOP surplus\n", Nop()),
    (INIT, b"IDENTIFY\n" + sized(b"x" * 64), Identify(b"x" * 64)),
    (INIT, b"IDENTIFY surplus\r\n" + sized(b"{}"), Identify(b"{}")),
    (INIT, b"AUTH\r\n" + sized(b"\n"), Auth(b"\n")),
    (INIT, b"SUB t c surplus\n", Sub("t", "c")),
    (INIT, b"SUB t#ephemeral c#ephemeral\r\n", Sub("t#ephemeral", "c#ephemeral")),
    (SUBSCRIBED, b"RDY\n", Rdy(1)),
    (SUBSCRIBED, b"RDY \n", Rdy(0)),
    (SUBSCRIBED, b"RDY 0\n", Rdy(0)),
    (SUBSCRIBED, b"RDY 002500 surplus\r\n", Rdy(2500)),
    (SUBSCRIBED, b"RDY %d\n" % 2**64, Rdy(0)),
    (CLOSING, b"RDY x\n", Nop()),
    (SUBSCRIBED, b"FIN 0123456789abcdef\r\n", Fin(["0123456789abcdef"])),
    (SUBSCRIBED, b"FIN ---------------- surplus\n", Fin(["-" * 16])),
    (SUBSCRIBED, b"FIN \xff\0\r3456789abcdef\n", Fin(["\xff\0\r3456789abcdef"])),
    (CLOSING, b"TOUCH 0123456789abcdef surplus\n", Touch("0123456789abcdef")),
    (SUBSCRIBED, b"REQ 0123456789abcdef \n", Req("0123456789abcdef", 0)),
    (SUBSCRIBED, b"REQ 0123456789abcdef 007 surplus\r\n", Req("0123456789abcdef", 7)),
    (CLOSING, b"REQ 0123456789abcdef %d\n" % (2**64 + 5), Req("0123456789abcdef", 5)),
    (INIT, b"PUB t surplus\r\n" + sized(b"x" * 20), Pub("t", [b"x" * 20])),
    (CLOSING, b"PUB t\r\n" + sized(b"x"), Pub("t", [b"x"])),
    (INIT, b"DPUB t 9000 surplus\r\n" + sized(b"x"), Dpub("t", 9000, b"x")),
    (INIT, b"DPUB t \n" + sized(b"x"), Dpub("t", 0, b"x")),
    (INIT, b"MPUB t surplus\r\n" + size(9) + size(1) + sized(b"x"), Mpub("t", [b"x"])),
]


@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize(("state", "sent", "command"), FINE)
def test_what_is_read_leniently(state: int, sent: bytes, command: Command, plain: bool) -> None:
    """A carriage return, surplus parameters and odd numbers are read as nsqd reads them."""
    session = session_in(state, plain=plain)
    assert [command, Nop()] == read(session, sent + b"NOP\n")
    assert 0 == session.pending
    assert session.end() is None


@pytest.mark.parametrize("total", [1, 4, 5, 13, 14, 15, 64])
def test_the_total_of_a_batch_is_not_looked_at(total: int) -> None:
    """An MPUB goes as far as its bodies, whatever it says of itself; what follows is read on."""
    batch = size(total) + size(2) + sized(b"a") + sized(b"bc")
    assert [Mpub("t", [b"a", b"bc"]), Nop()] == read(
        session_in(INIT), b"MPUB t\n" + batch + b"NOP\n"
    )


def test_a_wrong_count_of_a_batch_is_followed() -> None:
    """A count that is too small leaves the rest to be read as a command, as in nsqd."""
    session = session_in(INIT)
    batch = size(14) + size(1) + sized(b"a") + sized(b"\nx")
    text = b"E_INVALID invalid command \0\0\0\x02"
    assert [Mpub("t", [b"a"]), Refusal(text)] == read(session, b"MPUB t\n" + batch)


def test_a_batch_counts_up_to_the_most() -> None:
    """As many of the shortest messages as fit a body are taken."""
    session = session_in(INIT)
    batch = size(64) + size(12) + 12 * sized(b"x")
    assert [Mpub("t", [b"x"] * 12)] == read(session, b"MPUB t\n" + batch)


def test_the_default_limits_are_those_of_nsqd() -> None:
    """The most messages of a batch follow from the size of its body."""
    for count, text in ((1048576, b"invalid message count 1048576"), (1048575, b"")):
        session = session_in(INIT, SessionLimits())
        found = read(session, b"MPUB t\n" + size(5242880) + size(count))
        refusal = [MpubBegun("t"), Refusal(b"E_BAD_BODY MPUB " + text)]
        assert (refusal if text else []) == found


# Every state and every command

SENT: Final[dict[str, bytes]] = {
    "IDENTIFY": Identify(b"{}").encode(),
    "AUTH": Auth(b"s").encode(),
    "SUB": b"SUB t c\n",
    "RDY": b"RDY 5\n",
    "FIN": Fin([ID]).encode(),
    "REQ": Req(ID, 1).encode(),
    "TOUCH": Touch(ID).encode(),
    "CLS": b"CLS\n",
    "NOP": b"NOP\n",
    "PUB": Pub("t", [b"x"]).encode(),
    "MPUB": Mpub("t", [b"x"]).encode(),
    "DPUB": Dpub("t", 1, b"x").encode(),
}

DONE: Final[dict[str, Command]] = {
    "IDENTIFY": Identify(b"{}"),
    "AUTH": Auth(b"s"),
    "SUB": Sub("t", "c"),
    "RDY": Rdy(5),
    "FIN": Fin([ID]),
    "REQ": Req(ID, 1),
    "TOUCH": Touch(ID),
    "CLS": Cls(),
    "NOP": Nop(),
    "PUB": Pub("t", [b"x"]),
    "MPUB": Mpub("t", [b"x"]),
    "DPUB": Dpub("t", 1, b"x"),
}

ALLOWED: Final = {
    INIT: {"IDENTIFY", "AUTH", "SUB", "NOP", "PUB", "MPUB", "DPUB"},
    SUBSCRIBED: {"RDY", "FIN", "REQ", "TOUCH", "CLS", "NOP", "PUB", "MPUB", "DPUB"},
    CLOSING: {"FIN", "REQ", "TOUCH", "NOP", "PUB", "MPUB", "DPUB"},
}


def modelled(state: int, name: str) -> tuple[Command, int]:
    """Return what becomes of a command in a state, and the state after it (NSQ wire §3)."""
    if state == CLOSING and name == "RDY":
        return Nop(), state
    if name not in ALLOWED[state]:
        return Refusal(f"E_INVALID cannot {name} in current state".encode()), state
    return DONE[name], {"SUB": SUBSCRIBED, "CLS": CLOSING}.get(name, state)


@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize("name", SENT)
@pytest.mark.parametrize("state", ALLOWED)
def test_every_command_in_every_state(state: int, name: str, plain: bool) -> None:
    """Each command is done or refused by the state, and leads to the next."""
    session = session_in(state, plain=plain)
    command, after = modelled(state, name)
    assert [command] == read(session, SENT[name])
    assert after == session.state
    assert isinstance(command, Refusal) == session.over


@given(st.lists(st.sampled_from(sorted(SENT)), max_size=12))
def test_any_commands_in_a_row(names: list[str]) -> None:
    """Many commands in one read are done as the model says, up to the first that is refused."""
    session = session_in(INIT)
    expected: list[Command] = []
    state = INIT
    for name in names:
        command, state = modelled(state, name)
        expected.append(command)
        if isinstance(command, Refusal):
            break
    session.feed(b"".join(SENT[name] for name in names))
    assert expected == Exact(expanded(session.commands()))
    assert state == session.state


# Cut short

CUT: Final[list[tuple[bytes, dict[int, str]]]] = [
    (
        Identify(b"{}").encode(),
        {
            9: "",
            13: "E_BAD_BODY IDENTIFY failed to read body size",
            15: "E_BAD_BODY IDENTIFY failed to read body",
        },
    ),
    (
        Auth(b"secret").encode(),
        {
            5: "",
            9: "E_BAD_BODY AUTH failed to read body size",
            15: "E_BAD_BODY AUTH failed to read body",
        },
    ),
    (
        Pub("t", [b"hi"]).encode(),
        {
            6: "",
            10: "E_BAD_MESSAGE PUB failed to read message body size",
            12: "E_BAD_MESSAGE PUB failed to read message body",
        },
    ),
    (
        Dpub("t", 1, b"hi").encode(),
        {
            9: "",
            13: "E_BAD_MESSAGE DPUB failed to read message body size",
            15: "E_BAD_MESSAGE DPUB failed to read message body",
        },
    ),
    (
        Mpub("t", [b"a", b"bcd"]).encode(),
        {
            7: "",
            11: "E_BAD_BODY MPUB failed to read body size",
            15: "E_BAD_BODY MPUB failed to read message count",
            19: "E_BAD_MESSAGE MPUB failed to read message(0) body size",
            20: "E_BAD_MESSAGE MPUB failed to read message body",
            24: "E_BAD_MESSAGE MPUB failed to read message(1) body size",
            27: "E_BAD_MESSAGE MPUB failed to read message body",
        },
    ),
    (b"SUB t c\n", {8: ""}),
]
"""Commands, each with the places at which what is missing changes."""


@pytest.mark.parametrize("announces", [False, True])
@pytest.mark.parametrize("bytewise", [False, True])
@pytest.mark.parametrize(("sent", "parts"), CUT)
def test_every_cut(sent: bytes, parts: dict[int, str], bytewise: bool, announces: bool) -> None:
    """A command that ends in the middle is refused for what is missing of it."""
    assert len(sent) == max(parts)
    limits = SessionLimits(announces=announces)
    for cut in range(len(sent)):
        session = session_in(INIT, limits)
        pieces = [sent[at : at + 1] for at in range(cut)] if bytewise else [sent[:cut]]
        found = [command for piece in pieces for command in read(session, piece)]
        assert (announces and b"MPUB" in sent and cut >= 7) == bool(found)
        text = next(text for end, text in parts.items() if cut < end)
        assert (Refusal(text.encode()) if text else None) == session.end()
    session = session_in(INIT, limits)
    read(session, sent)
    assert session.end() is None


def test_an_end_says_nothing_of_what_was_refused() -> None:
    """After a refusal, or where a command would be refused anyway, nothing more is said."""
    session = session_in(INIT)
    session.feed(b"ASDF\n")
    assert session.end() is None
    session = session_in(INIT)
    session.feed(b"NOP\nPUB t\n")
    assert session.end() is None  # what is there is to be read first


def test_what_is_in_another_layer_is_dropped() -> None:
    """After an upgrade nothing is left of what came before it."""
    session = session_in(INIT)
    session.feed(b"NOP\nPUB t\n\0\0\0\x05ab")
    commands = session.commands()
    assert Nop() == next(commands)
    session.feed(b"c")
    session.drop()
    assert 0 == session.pending
    assert [] == list(commands)
    assert [Nop()] == read(session, b"NOP\n")


def test_who_stops_in_the_middle_gets_the_rest_later() -> None:
    """Commands are read one at a time, so what one of them needs may be seen to first."""
    session = session_in(INIT)
    session.feed(b"NOP\nSUB t c\nRDY 1\n")
    assert Nop() == next(session.commands())
    session.feed(b"RDY 2\n")
    assert Sub("t", "c") == next(session.commands())
    assert [Rdy(1), Rdy(2)] == Exact(session.commands())


# Any way of cutting: the fast forms and the plain one


def expanded(commands: Iterable[Command]) -> Iterator[Command]:
    """Return commands with those that stand for several taken apart."""
    for command in commands:
        if isinstance(command, Fin):
            yield from (Fin([name]) for name in command.ids)
        elif isinstance(command, Pub):
            yield from (Pub(command.topic, [body]) for body in command.bodies)
        else:
            yield command


TOPICS: Any = st.sampled_from(["t", "u", "t.long-name_1#ephemeral"])
BODIES: Any = st.binary(min_size=1, max_size=20)
IDS: Any = st.sampled_from([ID, "0" * 16, "f" * 15 + "\xff"])

COMMANDS: Any = st.one_of(
    st.builds(Pub, TOPICS, st.lists(BODIES, min_size=1, max_size=4)).map(Pub.encode),
    st.builds(Fin, st.lists(IDS, min_size=1, max_size=4)).map(Fin.encode),
    st.builds(Mpub, TOPICS, st.lists(BODIES, min_size=1, max_size=2)).map(Mpub.encode),
    st.builds(Dpub, TOPICS, st.integers(0, 9000), BODIES).map(Dpub.encode),
    st.builds(Req, IDS, st.integers(0, 99)).map(Req.encode),
    st.sampled_from(
        [
            b"NOP\n",
            b"RDY 3\n",
            b"CLS\n",
            b"FIN 0123456789abcdef\r\n",
            b"FIN 0123456789abcde\r\n",
            b"FIN 0123456789abcdef more\n",
            b"FIN 01234567 9abcdef\n",
            b"FIN 0123456789abcdefg\n",
            b"PUB t\r\n\0\0\0\x01x",
            b"PUB t more\n\0\0\0\x01x",
            b"PUB t \n\0\0\0\x01x",
            b"PUB  t\n\0\0\0\x01x",
            b"PUB $\n\0\0\0\x01x",
            b"PUB\n\0\0\0\x01x",
            b"PUB t\n\0\0\0\0",
            b"PUB t\n\0\0\0\x15",
            b"PUB t\n\xff\xff\xff\xff",
            b"PUB t\n\0\0",
            b"PUB " + b"t" * 65 + b"\n",
        ]
    ),
)

STREAMS: Any = st.lists(COMMANDS, max_size=12).map(b"".join)

CUTS: Any = st.lists(st.integers(0, 400), max_size=12)


def pieces(stream: bytes, cuts: list[int]) -> list[bytes]:
    places = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    return [stream[a:b] for a, b in itertools.pairwise(places)]


def run(session: Session, parts: Iterable[bytes]) -> tuple[Exact, Refusal | None]:
    """Feed a session, and return what it has read, taken apart, and what is wrong at the end."""
    found = Exact()
    for part in parts:
        session.feed(part)
        found += expanded(session.commands())
        assert session.pending <= bound(session._limits) + len(part)
    return found, session.end()


def bound(limits: SessionLimits) -> int:
    """Return how many bytes of a command that is not complete are kept at the most."""
    return LONGEST_LINE + 4 + max(limits.max_msg_size, limits.max_body_size)


@pytest.mark.parametrize("state", [INIT, SUBSCRIBED])
@given(stream=STREAMS, cuts=CUTS)
@example(stream=b"PUB t\n\0\0\0\x01aPUB t\n\0\0\0\x01b", cuts=[3, 11, 12, 18])
def test_any_cuts_make_no_difference(state: int, stream: bytes, cuts: list[int]) -> None:
    """However a stream comes, the commands are those of one read at a time from the whole."""
    expected = run(session_in(state, plain=True), [stream])
    assert expected == run(session_in(state), [stream])
    assert expected == run(session_in(state), pieces(stream, cuts))
    assert expected == run(session_in(state), (bytes([byte]) for byte in stream))
    assert expected == run(session_in(state, plain=True), pieces(stream, cuts))


@given(st.binary(max_size=200), CUTS)
def test_random_bytes_raise_nothing(stream: bytes, cuts: list[int]) -> None:
    """Whatever comes is a command, is refused or is waited for."""
    run(Session(SMALL), pieces(stream, cuts))
    expected = run(session_in(SUBSCRIBED, plain=True), [stream])
    assert expected == run(session_in(SUBSCRIBED), pieces(stream, cuts))


CHANGES: Any = st.lists(st.tuples(st.integers(0, 300), st.binary(max_size=3)), max_size=5)


@given(STREAMS, CHANGES, CUTS)
def test_spoilt_streams_raise_nothing(
    stream: bytes, changes: list[tuple[int, bytes]], cuts: list[int]
) -> None:
    """Commands in which bytes are wrong are read alike in whatever pieces they come."""
    for place, with_what in changes:
        stream = stream[:place] + with_what + stream[place + len(with_what) :]
    expected = run(session_in(SUBSCRIBED, plain=True), [stream])
    assert expected == run(session_in(SUBSCRIBED), pieces(stream, cuts))


def test_a_topic_that_was_published_to_is_known_by_its_whole_line() -> None:
    """The line of the last PUB is known; one that begins alike is another."""
    session = session_in(INIT)
    stream = [Pub(name, [b"x"]) for name in ("tea", "te", "tea", "teapot", "teapot", "t")]
    found = read(session, b"".join(one.encode() for one in stream))
    assert stream == Exact(expanded(found))
    assert 5 == len(found)


# What it costs


class Counting(Session):
    """A session that counts the bytes that it puts together."""

    __slots__ = ("joined",)

    def __init__(self, limits: SessionLimits) -> None:
        super().__init__(limits)
        self.joined = 0

    def _join(self) -> None:
        if self._more:
            self.joined += self._size
        super()._join()


@pytest.mark.parametrize("step", [1, 7, 1000])
@pytest.mark.parametrize(
    "command",
    [
        Identify(bytes(100_000)),
        Pub("t", [bytes(100_000)]),
        Dpub("t", 1, bytes(100_000)),
        Mpub("t", [bytes(50_000), bytes(50_000)]),
        Mpub("t", [b"x"] * 10_000),
    ],
    ids=["IDENTIFY", "PUB", "DPUB", "MPUB", "MPUB of many"],
)
def test_small_pieces_are_put_together_once(command: Any, step: int) -> None:
    """What is joined is no more than a few times what came, in however small pieces."""
    session = Counting(SessionLimits())
    session.feed(MAGIC)
    stream = command.encode()
    found = Exact()
    for at in range(0, len(stream), step):
        found += read(session, stream[at : at + step])
    assert [command] == found
    assert session.joined <= 3 * len(stream) + 20 * LONGEST_LINE // step


def test_small_pieces_take_no_more_memory_than_large_ones() -> None:
    """A body that comes two bytes at a time takes about its size while it is waited for."""
    session = session_in(INIT, SessionLimits())
    body = memoryview(bytes(600_000))
    session.feed(b"PUB t\n" + size(len(body) + 1))
    tracemalloc.start()
    try:
        for at in range(0, len(body), 2):
            session.feed(bytes(body[at : at + 2]))
            assert [] == list(session.commands())
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert most < 2 * len(body)
    assert [Pub("t", [bytes(len(body)) + b"x"])] == read(session, b"x")
