"""Frames, byte for byte as NSQ's protocol shows them, and read back in any pieces."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nsqlite.wire import frames
from nsqlite.wire.frames import BadFrame, Delivered, Frames, delivered, frame, message_head

ID = b"135950b8448f8005"

EXAMPLES = {
    "OK": (frames.OK, "00 00 00 06 00 00 00 00 4f 4b"),
    "a heartbeat": (
        frames.HEARTBEAT,
        "00 00 00 0f 00 00 00 00 5f 68 65 61 72 74 62 65 61 74 5f",
    ),
    "the answer to CLS": (
        frames.CLOSE_WAIT,
        "00 00 00 0e 00 00 00 00 43 4c 4f 53 45 5f 57 41 49 54",
    ),
    "a message": (
        message_head(2, 1_700_000_000_000_000_000, 1, ID) + b"hi",
        (
            "00 00 00 20 00 00 00 02 17 97 9c fe 36 2a 00 00 00 01"
            "31 33 35 39 35 30 62 38 34 34 38 66 38 30 30 35 68 69"
        ),
    ),
    "an error that ends nothing": (
        frame(frames.ERROR, b"E_FIN_FAILED FIN %b failed ID not in flight" % ID),
        (
            "00 00 00 3d 00 00 00 01 45 5f 46 49 4e 5f 46 41 49 4c 45 44 20 46 49 4e 20 31 33 35"
            "39 35"
            "30 62 38 34 34 38 66 38 30 30 35 20 66 61 69 6c 65 64 20 49 44 20 6e 6f 74 20 69 6e"
            "20 66"
            "6c 69 67 68 74"
        ),
    ),
    "an error": (
        frame(frames.ERROR, b"E_INVALID invalid command ASDF"),
        (
            "00 00 00 22 00 00 00 01 45 5f 49 4e 56 41 4c 49 44 20 69 6e 76 61 6c 69 64 20 63 6f"
            "6d 6d"
            "61 6e 64 20 41 53 44 46"
        ),
    ),
    "other magic bytes": (
        frame(frames.ERROR, b"E_BAD_PROTOCOL"),
        "00 00 00 12 00 00 00 01 45 5f 42 41 44 5f 50 52 4f 54 4f 43 4f 4c",
    ),
}
"""The frames of NSQ wire §10."""


@pytest.mark.parametrize("name", EXAMPLES)
def test_worked_examples(name: str) -> None:
    """The frames that the protocol's text shows are made so."""
    made, text = EXAMPLES[name]
    assert bytes.fromhex(text) == made


def test_a_message_is_read_as_it_was_made() -> None:
    """What stands in a message's frame is there again."""
    made = message_head(2, 1_700_000_000_000_000_000, 3, ID) + b"hi"
    [(kind, data)] = Frames().feed(made)
    assert frames.MESSAGE == kind
    assert Delivered(1_700_000_000_000_000_000, 3, ID, b"hi") == delivered(data)


def test_attempts_end_at_the_most_that_a_frame_can_say() -> None:
    """Of a message that was delivered more often than fits a frame says the most that fits."""
    for attempts in (0xFFFF, 0x10000, 10**9):
        [(_, data)] = Frames().feed(message_head(1, 0, attempts, ID) + b"x")
        assert 0xFFFF == delivered(data).attempts


def test_a_message_that_is_too_short_is_none() -> None:
    """A message has at least its time, its attempts and its id."""
    assert b"" == delivered(bytes(26)).body
    with pytest.raises(BadFrame, match="a message of 25 bytes is too short"):
        delivered(bytes(25))


@pytest.mark.parametrize("size", [-1, 0, 3, (1 << 30) + 1, 0x48545450])
def test_a_size_that_is_none_is_refused(size: int) -> None:
    """What is no frame, as the answer of an HTTP server, is refused before it is waited for."""
    with pytest.raises(BadFrame, match=f"a frame of {size} bytes"):
        Frames().feed(size.to_bytes(4, "big", signed=True) + bytes(4))


SENT = st.lists(st.tuples(st.integers(0, 3), st.binary(max_size=40)), max_size=8)


@given(SENT, st.data())
def test_frames_are_the_same_in_any_pieces(
    sent: list[tuple[int, bytes]], data: st.DataObject
) -> None:
    """However a stream is cut, its frames come out, each as soon as it is complete."""
    stream = b"".join(frame(kind, body) for kind, body in sent)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=10)))
    reader = Frames()
    found: list[tuple[int, bytes]] = []
    for begin, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        found += reader.feed(stream[begin:end])
        whole = [one for at, one in ends(sent) if at <= end]
        assert whole == found
    assert sent == found
    found += reader.feed(frame(0, b"tail"))
    assert (0, b"tail") == found[-1]


@given(SENT)
def test_frames_are_the_same_byte_by_byte(sent: list[tuple[int, bytes]]) -> None:
    """A stream may come in single bytes."""
    reader = Frames()
    stream = b"".join(frame(kind, body) for kind, body in sent)
    assert sent == [one for byte in stream for one in reader.feed(bytes([byte]))]


def ends(sent: list[tuple[int, bytes]]) -> list[tuple[int, tuple[int, bytes]]]:
    """Return frames, each with the place in the stream behind it."""
    at = 0
    found = []
    for kind, body in sent:
        at += 8 + len(body)
        found.append((at, (kind, body)))
    return found


@given(st.lists(st.binary(max_size=30), max_size=5))
def test_whatever_comes_is_a_frame_or_is_refused(pieces: list[bytes]) -> None:
    """Random bytes raise nothing but `BadFrame`."""
    reader = Frames()
    try:
        for piece in pieces:
            assert all(0 <= kind < 1 << 32 for kind, _ in reader.feed(piece))
    except BadFrame:
        pass
