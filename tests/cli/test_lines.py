"""The lines of an export, and all that is no such line."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nsqlite import InvalidName
from nsqlite.cli.lines import (
    LARGEST,
    BrokenLine,
    ChannelLine,
    EndLine,
    HeaderLine,
    Held,
    Line,
    MessageLine,
    TopicLine,
    from_text,
    to_text,
)

NAMES = st.from_regex(r"[.a-zA-Z0-9_-]{1,64}", fullmatch=True)
WHOLE = st.integers(0, LARGEST)
HELD = st.lists(
    st.builds(Held, NAMES, WHOLE, st.none() | WHOLE), min_size=1, unique_by=lambda h: h.name
)
PARTS: dict[str, Any] = {
    "topic": NAMES,
    "id": st.integers(1, LARGEST),
    "timestamp": WHOLE,
    "data": st.binary() | st.text().map(str.encode),
    "codec": st.none() | st.text(min_size=1, max_size=32),
}
LINES = st.one_of(
    st.just(HeaderLine()),
    st.builds(TopicLine, NAMES, st.booleans()),
    st.builds(ChannelLine, NAMES, NAMES, st.booleans()),
    st.builds(MessageLine, **PARTS, channels=HELD.map(tuple)),
    st.builds(MessageLine, **PARTS, due=st.none() | WHOLE),
    st.just(EndLine()),
)

MESSAGE: dict[str, Any] = {
    "kind": "message",
    "topic": "orders",
    "id": "00000000000000ff",
    "timestamp": 5,
    "body": "tea",
}


def problem(**changes: Any) -> str:
    """Return what is said of a message's line that is right but for this; `...` takes a key out."""
    fields = {key: value for key, value in {**MESSAGE, **changes}.items() if value is not ...}
    with pytest.raises(BrokenLine) as caught:
        from_text(json.dumps(fields).encode())
    return str(caught.value)


@given(LINES)
def test_what_is_written_can_be_read(line: Line) -> None:
    """Every line comes back as it was, and is one line of ASCII."""
    text = to_text(line)
    assert text.isascii()
    assert "\n" not in text
    assert line == from_text(f"{text}\n".encode())


def test_a_body_is_a_text_where_it_can_be() -> None:
    """UTF-8 stands there as text, all else as base64; a codec is named."""
    text = MessageLine(topic="t", id=255, timestamp=5, data="tee\0ü".encode(), codec="json")
    assert {
        "kind": "message",
        "topic": "t",
        "id": "00000000000000ff",
        "timestamp": 5,
        "body": "tee\0ü",
        "codec": "json",
        "channels": None,
    } == json.loads(to_text(text))
    held = MessageLine(
        topic="t", id=1, timestamp=5, data=b"\xff", channels=(Held("c", 2, None), Held("d", 0, 7))
    )
    assert {
        "kind": "message",
        "topic": "t",
        "id": "0000000000000001",
        "timestamp": 5,
        "body_base64": "/w==",
        "channels": [
            {"name": "c", "attempts": 2, "due": None},
            {"name": "d", "attempts": 0, "due": 7},
        ],
    } == json.loads(to_text(held))


def test_what_may_be_left_out() -> None:
    """A line needs no key that has a plain value."""
    assert TopicLine("t", False) == from_text(b'{"kind": "topic", "name": "t"}')
    assert ChannelLine("t", "c", False) == from_text(
        b'{"kind": "channel", "topic": "t", "name": "c"}'
    )
    bare = MessageLine(topic="orders", id=255, timestamp=5, data=b"tea")
    assert bare == from_text(json.dumps(MESSAGE).encode())
    assert bare == from_text(json.dumps({**MESSAGE, "channels": [], "due": None}).encode())
    [held] = from_text(json.dumps({**MESSAGE, "channels": [{"name": "c"}]}).encode()).channels or ()  # type: ignore[union-attr]  # it is a message's
    assert Held("c", 0, None) == held


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"", "it is no JSON (Expecting value: line 1 column 1 (char 0))"),
        (b"\n", "it is no JSON (Expecting value: line 2 column 1 (char 1))"),
        (b'{"kind": "end"', "it is no JSON (Expecting ',' delimiter: line 1 column 15 (char 14))"),
        (b"\xff", "it is no UTF-8"),
        (b"7", "it must be an object, not 7"),
        (b'"nsqlite"', "it must be an object, not 'nsqlite'"),
        (b"{}", "kind is missing"),
        (b'{"kind": null}', "kind must be a text, not None"),
        (
            b'{"kind": "letter"}',
            "kind must be one of topic, channel, message, end, not 'letter'",
        ),
        (b'{"kind": "end", "x": 1}', "x is no key that belongs here"),
        (b'{"nsqlite": 2, "y": 1}', "nsqlite: this one reads format 1, and not 2"),
        (b'{"nsqlite": true}', "nsqlite must be the number of a format, not True"),
        (b'{"nsqlite": 1, "y": 1}', "y is no key that belongs here"),
        (b'{"kind": "topic"}', "name is missing"),
        (b'{"kind": "topic", "name": 7}', "name must be the name of a topic, not 7"),
        (
            b'{"kind": "topic", "name": "a b"}',
            f"name: {InvalidName('topic', 'a b')}",
        ),
        (
            b'{"kind": "topic", "name": "t#ephemeral"}',
            "name: topic t#ephemeral is ephemeral, so no file keeps it",
        ),
        (
            b'{"kind": "topic", "name": "t", "paused": 1}',
            "paused must be true or false, not 1",
        ),
        (b'{"kind": "channel", "name": "c"}', "topic is missing"),
    ],
)
def test_what_is_no_line_is_told(text: bytes, expected: str) -> None:
    """What is wrong with a line is told, with the key, what it takes and what it has."""
    with pytest.raises(BrokenLine) as caught:
        from_text(text)
    assert expected == str(caught.value)


def test_deep_nesting_is_no_crash() -> None:
    """What is nested too deeply to be read is a broken line."""
    with pytest.raises(BrokenLine, match="it is no JSON"):
        from_text(b"[" * 200_000)


@pytest.mark.parametrize("identity", ["ff", "00000000000000FF", "0" * 16, "8000000000000000"])
def test_a_broken_id_is_told(identity: str) -> None:
    """An id has 16 hex digits, is not 0 and fits a file."""
    expected = "id must be 16 hex digits, from 0000000000000001 to 7fffffffffffffff"
    assert f"{expected}, not {identity!r}" == problem(id=identity)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"id": ...}, "id is missing"),
        ({"timestamp": ...}, "timestamp is missing"),
        (
            {"timestamp": -1},
            f"timestamp must be a whole number from 0 to {LARGEST}, not -1",
        ),
        (
            {"timestamp": True},
            f"timestamp must be a whole number from 0 to {LARGEST}, not True",
        ),
        (
            {"due": LARGEST + 1},
            f"due must be a whole number from 0 to {LARGEST}, not {LARGEST + 1}",
        ),
        ({"body": ...}, "one of body and body_base64 must be there, and only one"),
        ({"body_base64": ""}, "one of body and body_base64 must be there, and only one"),
        ({"body": None}, "body must be a text, not None"),
        ({"body": "\ud800"}, "body has half a character, which is no UTF-8"),
        ({"body": ..., "body_base64": 1}, "body_base64 must be a text, not 1"),
        (
            {"body": ..., "body_base64": "A"},
            (
                "body_base64 is no base64 (Invalid base64-encoded string: number of data characters"
                " (1) cannot be 1 more than a multiple of 4)"
            ),
        ),
        (
            {"body": ..., "body_base64": "\xe4"},
            "body_base64 is no base64 (string argument should contain only ASCII characters)",
        ),
        ({"codec": 1}, "codec must be the name of a codec, not 1"),
        ({"codec": ""}, "codec must be of 1 to 32 characters, not ''"),
        ({"codec": "x" * 33}, f"codec must be of 1 to 32 characters, not {'x' * 33!r}"),
        ({"channels": {}}, "channels must be a list or null, not {}"),
        ({"channels": ["c"]}, "channels[0] must be an object, not 'c'"),
        ({"channels": [{}]}, "channels[0].name is missing"),
        (
            {"channels": [{"name": "c"}, {"name": "d", "attempts": None}]},
            f"channels[1].attempts must be a whole number from 0 to {LARGEST}, not None",
        ),
        ({"channels": [{"name": "c", "x": 1}]}, "channels[0].x is no key that belongs here"),
        (
            {"channels": [{"name": "c#ephemeral"}]},
            "channels[0].name: channel c#ephemeral is ephemeral, so no file keeps it",
        ),
        ({"channels": [{"name": "c"}, {"name": "c"}]}, "channels has a channel twice"),
        (
            {"channels": [{"name": "c"}], "due": 1},
            "due belongs into each of the channels, as there are some",
        ),
    ],
)
def test_a_broken_message_is_told(changes: dict[str, Any], expected: str) -> None:
    """What is wrong with a message is told, with the key, what it takes and what it has."""
    assert expected == problem(**changes)
