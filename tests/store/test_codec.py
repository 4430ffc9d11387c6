"""Bodies to bytes and back."""

import json
import math
from pathlib import Path
from typing import Any

import attrs
import pytest
from helpers import bodies

from nsqlite import Broker, InvalidMessage, InvalidOption, SQLite
from nsqlite.store import Codec, Undecodable
from nsqlite.store.codec import KNOWN, LETTER, Coder, checked_codec
from nsqlite.testing import MemoryStore
from nsqlite.worker import DeadLetter

REVERSED = Codec("reversed", lambda body: body[::-1].encode(), lambda data: data.decode()[::-1])
ALL = [None, KNOWN["json"], KNOWN["pickle"], REVERSED]


def letter(body: Any) -> DeadLetter:
    return DeadLetter(
        body=body,
        topic="orders",
        channel="billing",
        id="0123456789abcdef",
        attempts=5,
        error='LookupError("no\nsuch")',
        timestamp=1_700_000_000_000_000_000,
    )


# Which codec


@pytest.mark.parametrize("name", ["json", "pickle"])
def test_a_codec_by_its_name(name: str) -> None:
    """Two codecs are known by their names."""
    codec = checked_codec(name)
    assert codec is KNOWN[name]
    assert codec.name == name


def test_a_codec_of_your_own() -> None:
    """Two functions and a name are a codec, and none is none."""
    assert REVERSED is checked_codec(REVERSED)
    assert None is checked_codec(None)


@pytest.mark.parametrize("name", ["", "x" * 33, "ü", "json", "pickle", LETTER, 5, None])
def test_bad_names_of_codecs(name: Any) -> None:
    """A codec's name is a text that is not too long, and not that of another."""
    with pytest.raises(InvalidOption) as info:
        Codec(name, str.encode, bytes.decode)
    expected = "of 1 to 32 ASCII characters and none of json, pickle, letter"
    assert str(InvalidOption("the name of a codec", name, expected)) == str(info.value)


@pytest.mark.parametrize(
    ("encode", "decode", "wrong"),
    [(1, 2, "encode"), (None, bytes.decode, "encode"), (str.encode, "utf-8", "decode")],
)
def test_a_codec_has_two_functions(encode: Any, decode: Any, wrong: str) -> None:
    """What cannot be called is refused when the codec is made."""
    with pytest.raises(InvalidOption) as info:
        Codec("x", encode, decode)
    assert (wrong, "a function of one argument") == (info.value.option, info.value.expected)


@pytest.mark.parametrize("given", ["yaml", 3, json, ["json"]])
def test_what_is_no_codec(given: object) -> None:
    """Anything else is refused."""
    with pytest.raises(InvalidOption) as info:
        checked_codec(given)
    expected = "one of 'json', 'pickle', or an nsqlite.store.Codec"
    assert str(InvalidOption("codec", given, expected)) == str(info.value)


# There and back


@pytest.mark.parametrize("codec", ALL)
def test_bytes_need_no_codec(codec: Codec | None) -> None:
    """Bytes are kept as they are, whatever the codec."""
    coder = Coder(codec)
    body = b"\x00\n{not json"
    kept, data, name = coder.encode(body)
    assert (body, body, None) == (kept, data, name)
    assert body == coder.decode(name, data)


@pytest.mark.parametrize(
    ("codec", "body", "back", "data"),
    [
        (
            "json",
            {"a": [1, 2.5, None, "ü"]},
            {"a": [1, 2.5, None, "ü"]},
            b'{"a":[1,2.5,null,"\\u00fc"]}',
        ),
        ("json", (1, 2), [1, 2], b"[1,2]"),
        ("json", {1: 2}, {"1": 2}, b'{"1":2}'),
        ("json", None, None, b"null"),
        ("json", "", "", b'""'),
    ],
)
def test_json(codec: str, body: object, back: object, data: bytes) -> None:
    """A consumer gets what comes back from JSON, not what was put."""
    coder = Coder(checked_codec(codec))
    assert (back, data, codec) == coder.encode(body)
    assert back == coder.decode(codec, data)


@pytest.mark.parametrize("body", [(1, {2, 3}), None, "text", bytearray(b"x"), math.inf, Path("a")])
def test_pickle(body: object) -> None:
    """What can be pickled comes back as its own type, and is another object if it can change."""
    coder = Coder(KNOWN["pickle"])
    kept, data, name = coder.encode(body)
    for back in (kept, coder.decode(name, data)):
        assert body == back
        assert type(body) is type(back)
    assert not isinstance(body, bytearray) or kept is not body


def test_your_own() -> None:
    """A codec of one's own is called for what is no bytes."""
    coder = Coder(REVERSED)
    assert ("abc", b"cba", "reversed") == coder.encode("abc")
    assert "abc" == coder.decode("reversed", b"cba")


class Bytes(bytes):
    """A kind of bytes."""


def test_a_kind_of_bytes_is_no_bytes() -> None:
    """What would come back as plain bytes goes through the codec."""
    body = Bytes(b"x")
    kept, _, name = Coder(KNOWN["pickle"]).encode(body)
    assert (Bytes, "pickle") == (type(kept), name)
    with pytest.raises(InvalidMessage):
        Coder(KNOWN["json"]).encode(body)


# What is refused


def test_what_is_no_bytes_needs_a_codec() -> None:
    """A store without a codec refuses anything but bytes, and says what to do."""
    with pytest.raises(InvalidMessage) as info:
        Coder(None).encode("text")
    problem = "a store without a codec keeps bytes, not str: give it codec='json'"
    assert problem == info.value.problem


@pytest.mark.parametrize("body", [{1, 2}, math.nan, math.inf, object, b"x".__class__, [b"bytes"]])
def test_what_json_cannot_keep(body: object) -> None:
    """What is no JSON is refused, with the reason."""
    with pytest.raises(InvalidMessage) as info:
        Coder(KNOWN["json"]).encode(body)
    assert info.value.problem.startswith("codec 'json' cannot keep ")
    assert isinstance(info.value.__cause__, TypeError | ValueError)


def test_what_pickle_cannot_keep() -> None:
    """What cannot be pickled is refused, with the reason."""
    with pytest.raises(InvalidMessage) as info:
        Coder(KNOWN["pickle"]).encode(lambda: None)
    assert info.value.problem.startswith("codec 'pickle' cannot keep <function ")


def test_a_body_that_does_not_come_back() -> None:
    """A codec that cannot read its own bytes fails the put, and not the consumer."""

    def fail(data: bytes) -> object:
        raise LookupError(data)

    with pytest.raises(InvalidMessage) as info:
        Coder(Codec("mine", str.encode, fail)).encode("text")
    assert "codec 'mine' cannot keep 'text': LookupError(b'text')" == info.value.problem


def test_a_codec_that_makes_no_bytes() -> None:
    """What a codec makes is bytes."""
    make: Any = str
    wrong = Codec("mine", make, make)
    with pytest.raises(InvalidMessage) as info:
        Coder(wrong).encode(5)
    assert "codec 'mine' made str of a body, not bytes" == info.value.problem


@pytest.mark.parametrize("codec", [None, "json", "pickle"])
def test_a_refused_body_changes_nothing(codec: Any, tmp_path: Path) -> None:
    """A put that is refused has put nothing, alone or among others."""

    def unkept() -> None: ...

    bad = unkept if codec else "text"
    with Broker(store=SQLite(tmp_path / "jobs.db", codec=codec)) as broker:
        topic = broker.topic("orders")
        channel = topic.channel("billing")
        topic.put(b"1")
        with pytest.raises(InvalidMessage):
            topic.put(bad)
        with pytest.raises(InvalidMessage) as info:
            topic.put_many([b"2", bad])
        assert 1 == info.value.index
        assert (1, 1) == (channel.depth, topic.stats().message_count)
    with Broker(store=SQLite(tmp_path / "jobs.db", codec=codec)) as broker:
        assert [b"1"] == bodies(broker.topic("orders").channel("billing"))


# What cannot be read any more


def test_what_needs_another_codec() -> None:
    """Bytes of a codec that the store was not given are kept, and told as what they are."""
    for codec in (None, KNOWN["json"], REVERSED):
        body = Coder(codec).decode("pickle", b"\x80")
        assert Undecodable("pickle", b"\x80", "the store was opened without codec='pickle'") == body


def test_what_its_codec_cannot_read() -> None:
    """Bytes that the codec cannot make a body of are kept, with the reason."""
    body = Coder(KNOWN["json"]).decode("json", b"{")
    assert isinstance(body, Undecodable)
    assert ("json", b"{") == (body.codec, body.data)
    assert body.problem.startswith("JSONDecodeError(")


@pytest.mark.parametrize("name", [None, "json", LETTER])
def test_what_is_damaged(name: str | None) -> None:
    """What is not as it was written is not read, but kept as it is."""
    coder = Coder(None)
    body = coder.decode(name, b"1", intact=False)
    kind = f"damaged {name or 'bytes'}"
    assert body == Undecodable(kind, b"1", "its checksum is wrong: the file is damaged")
    again, data, codec = coder.encode(body)
    assert (again, data, codec) == (body, b"1", kind)
    moved = coder.decode(codec, data)
    assert (moved.codec, moved.data) == (kind, b"1")
    assert moved.problem.startswith("it was damaged before it was moved")
    assert kind == coder.decode(codec, data, intact=False).codec


def test_it_is_delivered_like_any_other() -> None:
    """A store that is opened without its codec delivers all the same, and loses nothing."""
    store = MemoryStore(codec="json")
    with Broker(store=store) as broker:
        broker.topic("orders").put({"a": 1})
    other = MemoryStore()
    other.contents.tables = store.contents.tables
    with Broker(store=other) as broker:
        [body] = [info.body for info in broker.topic("orders").channel("billing").peek()]
        assert Undecodable("json", b'{"a":1}', "the store was opened without codec='json'") == body
    store.contents.tables = other.contents.tables
    with Broker(store=store) as broker:
        assert [{"a": 1}] == bodies(broker.topic("orders").channel("billing"))


# Dead letters


@pytest.mark.parametrize(
    ("codec", "body"),
    [
        (None, b"\nbytes\n"),
        ("json", b"\nbytes\n"),
        ("json", {"a": [1]}),
        ("pickle", (1, {2})),
        (REVERSED, "text"),
    ],
)
def test_a_dead_letter_comes_back(codec: Any, body: object) -> None:
    """A dead letter is kept by any codec that keeps its body, and comes back whole."""
    coder = Coder(checked_codec(codec))
    kept, data, name = coder.encode(letter(body))
    assert LETTER == name
    assert letter(body) == kept == coder.decode(name, data)


def test_a_dead_letter_of_another_version() -> None:
    """What one of an earlier version lacks is empty; what a later one has besides is left out."""
    whole = attrs.evolve(letter(b"x"), error_type="LookupError", traceback="in work")
    _, data, name = Coder(None).encode(whole)
    assert whole == Coder(None).decode(name, data)
    head, _, body = data.partition(b"\n")
    fields = json.loads(head)
    old = {key: fields[key] for key in fields if key not in ("error_type", "traceback")}
    assert letter(b"x") == Coder(None).decode(name, json.dumps(old).encode() + b"\n" + body)
    new = json.dumps({**fields, "mood": "bad"}).encode()
    assert whole == Coder(None).decode(name, new + b"\n" + body)


def test_the_body_of_a_dead_letter_is_what_comes_back() -> None:
    """What a codec does to a body is seen in a dead letter too."""
    kept, _, _ = Coder(KNOWN["json"]).encode(letter((1, 2)))
    assert letter([1, 2]) == kept


def test_a_dead_letter_whose_body_cannot_be_kept() -> None:
    """It is refused as its body would be."""
    with pytest.raises(InvalidMessage) as info:
        Coder(None).encode(letter("text"))
    problem = "a store without a codec keeps bytes, not str: give it codec='json'"
    assert problem == info.value.problem


def test_a_dead_letter_in_a_dead_letter() -> None:
    """What fails as a dead letter is one again."""
    coder = Coder(None)
    twice = letter(letter(b"x"))
    kept, data, name = coder.encode(twice)
    assert twice == kept == coder.decode(name, data)


def test_a_dead_letter_without_its_codec() -> None:
    """It is a dead letter still; its body is told as what cannot be read."""
    _, data, name = Coder(KNOWN["json"]).encode(letter({"a": 1}))
    back = Coder(None).decode(name, data)
    problem = "the store was opened without codec='json'"
    assert letter(Undecodable("json", b'{"a":1}', problem)) == back


def test_what_is_no_dead_letter() -> None:
    """Bytes that are said to be a dead letter and are none are told as what they are."""
    body = Coder(None).decode(LETTER, b"nonsense")
    assert isinstance(body, Undecodable)
    assert (LETTER, b"nonsense") == (body.codec, body.data)


def test_what_only_has_its_name() -> None:
    """A class of another module that is called so is none."""

    class DeadLetter:
        """No letter."""

    with pytest.raises(InvalidMessage):
        Coder(None).encode(DeadLetter())


def test_what_cannot_be_read_can_be_moved() -> None:
    """The bytes of a body whose codec is missing are kept as they are, under its name."""
    body = Undecodable("mine", b"1", "no such codec")
    assert (body, b"1", "mine") == Coder(None).encode(body)
