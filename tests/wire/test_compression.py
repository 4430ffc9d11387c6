"""Compression: what goes in comes out, and nothing bad or too big comes in."""

import random
import sys
import tracemalloc
import zlib
from collections.abc import Callable
from typing import Any

import pytest
import snappy
from hypothesis import given
from hypothesis import strategies as st

from nsqlite.errors import MissingExtra
from nsqlite.wire.compression import (
    BLOCK,
    BadCompression,
    Compression,
    Deflate,
    Snappy,
    has_snappy,
)

OK = bytes.fromhex("00000006 00000000 4f4b")
IDENTITY = bytes.fromhex("ff060000 734e61507059")
PLAIN_OK = bytes.fromhex("010e0000 26982bcf 00000006 00000000 4f4b")

KINDS = pytest.mark.parametrize("make", [lambda: Deflate(6), Snappy], ids=["deflate", "snappy"])


def joined(layer: Compression, data: bytes, limit: int = BLOCK) -> bytes:
    return b"".join(layer.decompress(data, limit))


def chunk(kind: int, body: bytes) -> bytes:
    return bytes([kind]) + len(body).to_bytes(3, "little") + body


def compressed(data: bytes) -> bytes:
    """Return the chunks of some bytes, without the identifier."""
    maker = snappy.StreamCompressor()
    maker.add_chunk(b"x")
    made: bytes = maker.add_chunk(data)
    return made


# To the byte


def test_the_first_ok_in_snappy() -> None:
    """The worked example 11 of NSQ's protocol, both ways."""
    layer = Snappy()
    assert IDENTITY + PLAIN_OK == layer.compress(OK)
    assert PLAIN_OK == layer.compress(OK)
    assert OK + OK == joined(Snappy(), IDENTITY + PLAIN_OK + PLAIN_OK)


def test_the_first_ok_in_deflate() -> None:
    """The worked example 12, which is one of the forms in which it can be sent."""
    stored = bytes.fromhex("000a00f5ff 00000006 00000000 4f4b 000000ffff")
    assert OK == joined(Deflate(6), stored)
    made = Deflate(6).compress(OK)
    assert OK == zlib.decompressobj(-15).decompress(made)
    assert made.endswith(b"\x00\x00\xff\xff")


def test_snappy_of_text_is_shorter() -> None:
    """What can be compressed is sent as compressed chunks."""
    data = b"order 1, " * 20_000
    made = Snappy().compress(data)
    assert 0 == made[len(IDENTITY)]
    assert len(made) < len(data) // 10
    assert data == joined(Snappy(), made)


@pytest.mark.parametrize("level", range(1, 10))
def test_the_levels_of_deflate(level: int) -> None:
    """Each can be read by the same reader."""
    assert OK * 100 == joined(Deflate(1), Deflate(level).compress(OK * 100))


# However it is cut


@KINDS
def test_nothing_is_nothing(make: Callable[[], Compression]) -> None:
    """No bytes make none, and leave the streams as they are."""
    here, there = make(), make()
    assert b"" == here.compress(b"")
    assert b"" == joined(there, b"")
    assert OK == joined(there, here.compress(OK))


@KINDS
@given(st.lists(st.binary(max_size=3_000)), st.randoms(use_true_random=False), st.integers(1, 99))
def test_what_goes_in_comes_out(
    make: Callable[[], Compression], parts: list[bytes], rng: random.Random, limit: int
) -> None:
    """In any pieces, and each part as soon as it is there."""
    here, there = make(), make()
    for part in parts:
        made = here.compress(part)
        found = b""
        while made:
            cut = rng.randint(1, len(made))
            found += joined(there, made[:cut], limit)
            made = made[cut:]
        assert part == found


@KINDS
def test_a_reader_that_stops_in_the_middle(make: Callable[[], Compression]) -> None:
    """The next call goes on where it stopped."""
    here, there = make(), make()
    data = random.Random(1).randbytes(300_000)
    pieces = there.decompress(here.compress(data), BLOCK)
    first = next(pieces)
    del pieces
    assert data[: len(first)] == first
    assert data[len(first) :] + OK == joined(there, here.compress(OK))


# Bombs and rubbish


@KINDS
def test_a_bomb_is_read_in_pieces(make: Callable[[], Compression]) -> None:
    """What grows a thousandfold never takes more than the limit at a time."""
    size = 50 << 20
    bomb = make().compress(bytes(size))
    there = make()
    tracemalloc.start()
    try:
        found = 0
        for piece in there.decompress(bomb, BLOCK):
            assert len(piece) <= BLOCK
            found += len(piece)
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert size == found
    assert most < len(bomb) * 3 + BLOCK * 8


@pytest.mark.parametrize("limit", [1, 10, 257, 258, 259])
def test_deflate_by_its_limit(limit: int) -> None:
    """Pieces are as long as the limit, also where that ends with the input."""
    pieces = list(Deflate(6).decompress(Deflate(6).compress(bytes(2_580)), limit))
    assert bytes(2_580) == b"".join(pieces)
    assert {limit} == {len(piece) for piece in pieces[:-1]}


def test_small_chunks_of_snappy_are_taken_together() -> None:
    """As many as the limit allows, and one at least."""
    data = IDENTITY + PLAIN_OK * 10
    assert [OK * 10] == list(Snappy().decompress(data, BLOCK))
    assert [OK * 3, OK * 3, OK * 3, OK] == list(Snappy().decompress(data, 34))
    assert [OK] * 10 == list(Snappy().decompress(data, 1))


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"\xff\xff\xff", "invalid block type"),
        (b"\x00\x0a\x00\x00\x00" + OK, "invalid stored block lengths"),
    ],
)
def test_bad_deflate(data: bytes, problem: str) -> None:
    """What is not Deflate is told of."""
    layer = Deflate(6)
    with pytest.raises(BadCompression, match=problem):
        joined(layer, data)


@pytest.mark.parametrize("cut", [None, 1, 1_000])
def test_bytes_behind_the_end_of_deflate(cut: int | None) -> None:
    """A stream may end; nothing can come after that."""
    maker = zlib.compressobj(6, zlib.DEFLATED, -15)
    whole = maker.compress(OK) + maker.flush()
    assert OK == joined(Deflate(6), whole)
    assert OK == joined(Deflate(6), whole, len(OK))
    layer = Deflate(6)
    data = whole + b"more"
    found = joined(layer, data[:-4] if cut else b"")
    with pytest.raises(BadCompression, match="behind the end"):
        for piece in layer.decompress(data[-4:] if cut else data, BLOCK):
            found += piece
    assert OK == found


BAD: dict[str, tuple[bytes, str]] = {
    "no identifier": (PLAIN_OK, "no stream identifier"),
    "padding first": (chunk(0xFE, b"abc"), "no stream identifier"),
    "other identifier": (chunk(0xFF, b"sNaPpX"), "identifier that is none"),
    "short identifier": (chunk(0xFF, b"sNaPp"), "identifier that is none"),
    "long identifier": (chunk(0xFF, b"sNaPpYY"), "identifier that is none"),
    "bad later identifier": (IDENTITY + chunk(0xFF, b""), "identifier that is none"),
    "unknown kind": (IDENTITY + chunk(0x02, b""), "the unknown kind 2"),
    "last unknown kind": (IDENTITY + chunk(0x7F, b"x"), "the unknown kind 127"),
    "bad checksum": (IDENTITY + PLAIN_OK[:-1] + b"!", "checksum"),
    "bad checksum, compressed": (
        IDENTITY + (made := bytearray(compressed(bytes(1_000))))[:4] + b"\0\0\0\0" + made[8:],
        "checksum",
    ),
    "no checksum": (IDENTITY + chunk(0x01, b"abc"), "without a checksum"),
    "no checksum, compressed": (IDENTITY + chunk(0x00, b""), "without a checksum"),
    "no size": (IDENTITY + chunk(0x00, b"\0\0\0\0"), "without its size"),
    "endless size": (IDENTITY + chunk(0x00, b"\0\0\0\0" + b"\x80" * 9), "without its size"),
    "rubbish": (IDENTITY + chunk(0x00, b"\0\0\0\0\x05\xff\xff\xff"), "corrupt"),
    "too big": (IDENTITY + chunk(0x00, b"\0\0\0\0\x81\x80\x04\0"), "makes 65537 bytes"),
    "huge": (IDENTITY + chunk(0x00, b"\0\0\0\0\xff\xff\xff\xff\x0f"), "makes 4294967295 bytes"),
    "too big, plain": (IDENTITY + chunk(0x01, bytes(4 + 65_537)), "makes 65537 bytes"),
    "too long": (IDENTITY + b"\x00\xff\xff\xff", "a chunk of 16777215 bytes"),
    "too long to skip": (IDENTITY + b"\xfe\xff\xff\xff", "a chunk of 16777215 bytes"),
}


@pytest.mark.parametrize(("data", "problem"), BAD.values(), ids=BAD)
def test_bad_snappy(data: bytes, problem: str) -> None:
    """What is wrong is told of, as soon as it is seen."""
    layer = Snappy()
    with pytest.raises(BadCompression, match=problem):
        joined(layer, data)


def test_what_came_before_the_bad_is_good() -> None:
    """The chunks in front of it come out first."""
    pieces = Snappy().decompress(IDENTITY + PLAIN_OK * 2 + chunk(0x02, b""), BLOCK)
    assert OK * 2 == next(pieces)
    with pytest.raises(BadCompression):
        next(pieces)


def test_what_is_skipped_in_snappy() -> None:
    """Padding, kinds to come, and identifiers again; none of them makes anything."""
    noise = chunk(0xFE, bytes(70_000)) + chunk(0x80, b"x") + IDENTITY + chunk(0xFD, b"")
    layer = Snappy()
    assert [] == list(layer.decompress(IDENTITY + noise, BLOCK))
    assert [OK] == list(layer.decompress(noise + PLAIN_OK + noise, BLOCK))


def test_the_longest_chunks_of_snappy() -> None:
    """A whole block is taken, as it is or compressed."""
    for block in (random.Random(1).randbytes(BLOCK), bytes(BLOCK)):
        assert block == joined(Snappy(), IDENTITY + compressed(block))


@KINDS
@given(st.binary(), st.integers(1, 999))
def test_any_bytes(make: Callable[[], Compression], data: bytes, limit: int) -> None:
    """They are read or refused, and nothing else is raised."""
    layer = make()
    try:
        joined(layer, data, limit)
        joined(layer, IDENTITY + data, limit)
    except BadCompression:
        pass


# Without python-snappy


def test_snappy_is_an_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who has not installed it is told how to."""
    assert has_snappy()
    nothing: Any = None
    monkeypatch.setitem(sys.modules, "snappy", nothing)
    assert not has_snappy()
    with pytest.raises(MissingExtra, match=r"pip install 'nsqlite\[snappy\]'"):
        Snappy()
