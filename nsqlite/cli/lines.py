"""The lines of an export: JSON, one object a line.

The rule: a line says all that it means and nothing else; what is missing, unknown or out of its
range is an error that names it, so nothing is ever taken half.

    {"nsqlite": 1}
    {"kind": "topic", "name": "orders", "paused": false}
    {"kind": "channel", "topic": "orders", "name": "billing", "paused": false}
    {"kind": "message", "topic": "orders", "id": "18a6e5b294400000",
     "timestamp": 1776359466455793664, "body": "order 1",
     "channels": [{"name": "billing", "attempts": 1, "due": null}]}
    {"kind": "end"}

The first line is the number of this format.  A topic comes before its channels, and these before
its messages, which come in the order of their ids.  `channels` are those that still hold a message;
null says that the topic itself holds it, being paused or without channels.  `due` is until when a
message waits; `timestamp` and `due` are nanoseconds since the epoch.  A `due` beside `channels`,
rather than in them, is that of a message that the topic holds.  A body that is no UTF-8 is there as
`body_base64`.  One that a codec has made has `codec`, its name.  The last line tells a whole export
from one that was cut off.

Next: cli/snapshot.py
"""

import base64
import binascii
import json
import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Final, TypeAlias

import attrs

from nsqlite.errors import InvalidName, shown
from nsqlite.names import check_name, is_ephemeral
from nsqlite.store.controllines import in_json
from nsqlite.store.storage import name_of

FORMAT: Final = 1
"""The number of the format told above."""

LARGEST: Final = (1 << 63) - 1
"""The largest number that a file keeps."""

_REQUIRED: Final = object()
_WHOLE: Final = f"a whole number from 0 to {LARGEST}"
_ID: Final = re.compile("[0-9a-f]{16}")
_LONGEST_CODEC: Final = 32


class BrokenLine(ValueError):
    """A line is none of an export; its text says what is wrong."""


@attrs.frozen
class HeaderLine:
    """The first line: the number of the format."""

    nsqlite: int = FORMAT


@attrs.frozen
class TopicLine:
    """A topic: its name, and whether it is paused."""

    name: str
    paused: bool


@attrs.frozen
class ChannelLine:
    """A channel: its topic's name, its own, and whether it is paused."""

    topic: str
    name: str
    paused: bool


@attrs.frozen
class Held:
    """A message in a channel.

    Attributes:
        name: the channel's.
        attempts: deliveries so far.
        due: until when it waits, in nanoseconds since the epoch; None if it is ready.
    """

    name: str
    attempts: int
    due: int | None


@attrs.frozen(kw_only=True)
class MessageLine:
    """A message.

    Attributes:
        topic: the name of its topic.
        id: the number that its id's 16 characters are.
        timestamp: when it was put, in nanoseconds since the epoch.
        data: the bytes of its body.
        codec: the name of what made them, None if the body is bytes.
        channels: those that hold it; None if the topic itself does.
        due: if the topic itself holds it: until when it waits, None if it is ready.
    """

    topic: str
    id: int
    timestamp: int
    data: bytes
    codec: str | None = None
    channels: tuple[Held, ...] | None = None
    due: int | None = None


@attrs.frozen
class EndLine:
    """The last line."""


Line: TypeAlias = HeaderLine | TopicLine | ChannelLine | MessageLine | EndLine
"""What a line can be."""


def to_text(line: Line) -> str:
    """Return a line in its ASCII characters, without the end of a line."""
    if isinstance(line, MessageLine):
        fields = _fields_of_message(line)
    elif isinstance(line, HeaderLine):
        fields = attrs.asdict(line)
    else:
        kind = type(line).__name__.removesuffix("Line").lower()
        fields = {"kind": kind, **attrs.asdict(line)}
    return json.dumps(fields)


def _fields_of_message(line: MessageLine) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "kind": "message",
        "topic": line.topic,
        "id": name_of(line.id),
        "timestamp": line.timestamp,
    }
    fields |= in_json(line.data, line.codec)
    if line.due is not None:
        fields["due"] = line.due
    held = line.channels
    fields["channels"] = held and [
        {"name": one.name, "attempts": one.attempts, "due": one.due} for one in held
    ]
    return fields


def from_text(text: bytes) -> Line:
    """Return what a line says.

    Raises:
        BrokenLine: it says nothing that an export can say.
    """
    try:
        given = json.loads(text.decode())
    except UnicodeDecodeError:
        raise BrokenLine("it is no UTF-8") from None
    except (ValueError, RecursionError) as error:
        raise BrokenLine(f"it is no JSON ({error})") from None
    fields = _Fields(given, "")
    if "nsqlite" in given:
        return HeaderLine(_header(fields))
    kind = fields.take("kind", str, "a text")
    if kind not in _KINDS:
        raise BrokenLine(f"kind must be one of {', '.join(_KINDS)}, not {shown(kind)}")
    line = _KINDS[kind](fields)
    fields.end()
    return line


class _Fields:
    """The keys of an object, each to be taken once."""

    __slots__ = ("_left", "_where")

    def __init__(self, given: object, where: str) -> None:
        """Begin with all of them.

        Args:
            given: what stands there, of any type.
            where: what it is a part of, for errors; empty for a line.
        """
        if not isinstance(given, dict):
            raise BrokenLine(f"{where or 'it'} must be an object, not {shown(given)}")
        self._left: Final[dict[str, Any]] = dict(given)
        self._where: Final = f"{where}." if where else ""

    def __contains__(self, key: str) -> bool:
        """Say whether a key is there."""
        return key in self._left

    def take(self, key: str, kind: type, expected: str, default: object = _REQUIRED) -> Any:
        """Take what a key has; a default of None allows null too."""
        value = self._left.pop(key, default)
        if value is _REQUIRED:
            raise BrokenLine(f"{self._where}{key} is missing")
        if type(value) is not kind and not (value is None and default is None):
            raise self.wrong(key, expected, value)
        return value

    def take_whole(self, key: str, default: object = _REQUIRED) -> Any:
        """Take a whole number that a file can keep."""
        value = self.take(key, int, _WHOLE, default)
        if value is not None and not 0 <= value <= LARGEST:
            raise self.wrong(key, _WHOLE, value)
        return value

    def take_name(self, key: str, kind: str) -> str:
        """Take the name of a topic or channel."""
        name: str = self.take(key, str, f"the name of a {kind}")
        problem = _problem_of(kind, name)
        if problem is not None:
            raise BrokenLine(f"{self._where}{key}: {problem}")
        return name

    def wrong(self, key: str, expected: str, value: object) -> BrokenLine:
        """Return the error of a value."""
        return BrokenLine(f"{self._where}{key} must be {expected}, not {shown(value)}")

    def end(self) -> None:
        """Check that all were taken."""
        if self._left:
            raise BrokenLine(f"{self._where}{next(iter(self._left))} is no key that belongs here")


@lru_cache(1024)  # the same few names are in every line
def _problem_of(kind: str, name: str) -> str | None:
    """Return what is wrong with a name, None if nothing is."""
    try:
        check_name(kind, name)
    except InvalidName as error:
        return str(error)
    return f"{kind} {name} is ephemeral, so no file keeps it" if is_ephemeral(name) else None


def _header(fields: _Fields) -> int:
    """Return the number of the format; a later one may have more keys."""
    number: int = fields.take("nsqlite", int, "the number of a format")
    if number != FORMAT:
        raise BrokenLine(f"nsqlite: this one reads format {FORMAT}, and not {number}")
    fields.end()
    return number


def _topic(fields: _Fields) -> TopicLine:
    return TopicLine(
        fields.take_name("name", "topic"), fields.take("paused", bool, "true or false", False)
    )


def _channel(fields: _Fields) -> ChannelLine:
    return ChannelLine(
        fields.take_name("topic", "topic"),
        fields.take_name("name", "channel"),
        fields.take("paused", bool, "true or false", False),
    )


def _message(fields: _Fields) -> MessageLine:
    codec = fields.take("codec", str, "the name of a codec", None)
    if codec is not None and not 1 <= len(codec) <= _LONGEST_CODEC:
        raise fields.wrong("codec", f"of 1 to {_LONGEST_CODEC} characters", codec)
    line = MessageLine(
        topic=fields.take_name("topic", "topic"),
        id=_id(fields),
        timestamp=fields.take_whole("timestamp"),
        data=_data(fields),
        codec=codec,
        channels=_channels(fields),
        due=fields.take_whole("due", None),
    )
    if line.channels and line.due is not None:
        raise BrokenLine("due belongs into each of the channels, as there are some")
    return line


def _id(fields: _Fields) -> int:
    expected = "16 hex digits, from 0000000000000001 to 7fffffffffffffff"
    text = fields.take("id", str, expected)
    if not _ID.fullmatch(text) or not 1 <= int(text, 16) <= LARGEST:
        raise fields.wrong("id", expected, text)
    return int(text, 16)


def _data(fields: _Fields) -> bytes:
    if ("body" in fields) == ("body_base64" in fields):
        raise BrokenLine("one of body and body_base64 must be there, and only one")
    try:
        if "body" in fields:
            body: str = fields.take("body", str, "a text")
            return body.encode()
        return base64.b64decode(fields.take("body_base64", str, "a text"), validate=True)
    except UnicodeEncodeError:
        raise BrokenLine("body has half a character, which is no UTF-8") from None
    except (binascii.Error, ValueError) as error:
        if isinstance(error, BrokenLine):
            raise
        raise BrokenLine(f"body_base64 is no base64 ({error})") from None


def _channels(fields: _Fields) -> tuple[Held, ...] | None:
    given = fields.take("channels", list, "a list or null", None)
    held = []
    for index, one in enumerate(given or ()):
        inner = _Fields(one, f"channels[{index}]")
        held.append(
            Held(
                inner.take_name("name", "channel"),
                inner.take_whole("attempts", 0),
                inner.take_whole("due", None),
            )
        )
        inner.end()
    names = [one.name for one in held]
    if len(set(names)) < len(names):
        raise BrokenLine("channels has a channel twice")
    return tuple(held) or None


def _end(_fields: _Fields) -> EndLine:
    return EndLine()


_KINDS: Final[dict[str, Callable[[_Fields], Line]]] = {
    "topic": _topic,
    "channel": _channel,
    "message": _message,
    "end": _end,
}
