"""What nsqd sends: frames, made and read (NSQ wire §2).

The rule: a frame is its size, its type and its data, and a frame is read only when all of it is
there.

    size 4 | type 4 | data              size counts the type and the data
    a message's data: timestamp 8 | attempts 2 | id 16 | body

Next: wire/commands.py
"""

from collections.abc import Iterator
from struct import Struct
from typing import Final, NamedTuple

RESPONSE: Final = 0
ERROR: Final = 1
MESSAGE: Final = 2
"""The types of frames."""

MOST_ATTEMPTS: Final = 0xFFFF
"""What a frame says of any number of attempts that is larger; nsqd begins with 0 again."""

_HEAD: Final = Struct(">iI")
_MESSAGE_HEAD: Final = Struct(">IIqH16s")
_MESSAGE_DATA: Final = Struct(">qH16s")
_LEAST: Final = 4
_MOST: Final = 1 << 30


def frame(kind: int, data: bytes) -> bytes:
    """Return a frame."""
    return _HEAD.pack(len(data) + 4, kind) + data


OK: Final = frame(RESPONSE, b"OK")
CLOSE_WAIT: Final = frame(RESPONSE, b"CLOSE_WAIT")
HEARTBEAT: Final = frame(RESPONSE, b"_heartbeat_")


def message_head(size: int, timestamp: int, attempts: int, name: bytes) -> bytes:
    """Return what stands before the body in the frame of a message.

    Args:
        size: of the body.
        timestamp: in nanoseconds since the epoch.
        attempts: this delivery counted.
        name: its id, 16 bytes.
    """
    attempts = min(attempts, MOST_ATTEMPTS)
    return _MESSAGE_HEAD.pack(size + 30, MESSAGE, timestamp, attempts, name)


class Delivered(NamedTuple):
    """A message as a client reads it."""

    timestamp: int
    """In nanoseconds since the epoch."""
    attempts: int
    id: bytes
    body: bytes


def delivered(data: bytes) -> Delivered:
    """Return the message of a frame's data.

    Raises:
        BadFrame: it is too short.
    """
    if len(data) < _MESSAGE_DATA.size:
        raise BadFrame(f"a message of {len(data)} bytes is too short")
    timestamp, attempts, name = _MESSAGE_DATA.unpack_from(data)
    return Delivered(timestamp, attempts, name, data[_MESSAGE_DATA.size :])


class BadFrame(Exception):
    """What was read is no frame."""


class Frames:
    """Cuts what a client reads into frames.

    It keeps a frame that is not complete, and no more than that.
    """

    __slots__ = ("_have", "_need", "_parts")

    def __init__(self) -> None:
        """Begin with nothing."""
        self._parts: list[bytes] = []
        self._have = 0
        self._need = _HEAD.size

    def feed(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """Take bytes that were read; return the frames that are complete now, type and data.

        Raises:
            BadFrame: a size is none.
        """
        self._parts.append(data)
        self._have += len(data)
        if self._have < self._need:
            return iter(())
        whole = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        found: list[tuple[int, bytes]] = []
        at = 0
        self._need = _HEAD.size
        while len(whole) - at >= _HEAD.size:
            size, kind = _HEAD.unpack_from(whole, at)
            if not _LEAST <= size <= _MOST:
                raise BadFrame(f"a frame of {size} bytes")
            end = at + 4 + size
            if end > len(whole):
                self._need = end - at
                break
            found.append((kind, whole[at + 8 : end]))
            at = end
        self._parts = [whole[at:]] if at < len(whole) else []
        self._have = len(whole) - at
        return iter(found)
