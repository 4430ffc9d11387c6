"""What a client may do, as an auth server has answered (NSQ wire §8).

The rule: an answer holds as a whole or is refused as a whole, and what it does not allow is
forbidden.

    >>> allowed = Authorisations.parse(
    ...     b'{"ttl": 60, "identity": "shop", "authorizations": [{"topic": "^orders$",'
    ...     b' "channels": [".*"], "permissions": ["publish"]}]}'
    ... )
    >>> allowed.allows("PUB", "orders"), allowed.allows("SUB", "orders", "billing")
    (True, False)
    >>> allowed.reply()
    b'{"identity":"shop","identity_url":"","permission_count":1}'

To publish, a regular expression of a channel must match the empty text, as in nsqd: ``.*`` does.

Next: server/__init__.py
"""

import json
import re
from typing import Any, Final, Self, TypeVar

import attrs

from nsqlite.wire.go import compact_json, quoted

T = TypeVar("T")

PERMISSIONS: Final = frozenset({"subscribe", "publish"})

_REMEMBERED: Final = 1_000
"""Answers of `allows` that are kept; with more they are forgotten, and found again."""

_LONGEST: Final = 1 << 63


class BadAuthorisation(ValueError):
    """An auth server's answer is refused; the text says why, and holds no secret."""


@attrs.frozen
class Authorisation:
    """One entry of an answer.

    Attributes:
        topic: matches the topics that it is about.
        channels: one of them matches the channel, or, for who publishes, the empty text.
        permissions: "subscribe", "publish", both or none.
    """

    topic: re.Pattern[str]
    channels: tuple[re.Pattern[str], ...]
    permissions: frozenset[str]

    def allows(self, permission: str, topic: str, channel: str) -> bool:
        """Say whether it gives a permission for a topic and channel."""
        return (
            permission in self.permissions
            and self.topic.search(topic) is not None
            and any(pattern.search(channel) for pattern in self.channels)
        )


@attrs.frozen(kw_only=True)
class Authorisations:
    """An auth server's answer.

    Attributes:
        ttl: seconds from the answer on for which it holds; the server is asked again then.
        identity: who the client is.
        identity_url: where more is told of it.
        entries: what it may do.
    """

    ttl: int
    identity: str = ""
    identity_url: str = ""
    entries: tuple[Authorisation, ...] = ()
    _known: dict[tuple[str, str, str], bool] = attrs.field(
        factory=dict, init=False, repr=False, eq=False
    )

    @classmethod
    def parse(cls, answer: bytes) -> Self:
        """Read an answer.

        Raises:
            BadAuthorisation: it is no JSON, of the wrong types, names a permission that nobody
                knows, has a bad regular expression, or holds for no time.
        """
        told = _decoded(answer)
        entries = tuple(map(_entry, _each(told, "authorizations", dict)))
        ttl = _value(told, "ttl", int, 0)
        if not 0 < ttl < _LONGEST:
            raise BadAuthorisation(f"invalid TTL {ttl} (must be >0)")
        return cls(
            ttl=ttl,
            identity=_value(told, "identity", str, ""),
            identity_url=_value(told, "identity_url", str, ""),
            entries=entries,
        )

    @property
    def count(self) -> int:
        """How many entries there are; a client with none is refused."""
        return len(self.entries)

    def allows(self, command: str, topic: str, channel: str = "") -> bool:
        """Say whether `SUB`, or a command that publishes, which has no channel, is allowed."""
        asked = ("subscribe" if command == "SUB" else "publish", topic, channel)
        found = self._known.get(asked)
        if found is None:
            found = any(entry.allows(*asked) for entry in self.entries)
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            self._known[asked] = found
        return found

    def reply(self) -> bytes:
        """Return the answer to AUTH."""
        return compact_json(
            {
                "identity": self.identity,
                "identity_url": self.identity_url,
                "permission_count": self.count,
            }
        )


def _decoded(answer: bytes) -> dict[str, Any]:
    """Return the object of an answer, its keys in small letters, without those of nothing."""
    try:
        found = json.loads(answer.decode("utf-8", "replace"), object_pairs_hook=_without_nothing)
    except (ValueError, RecursionError):
        raise BadAuthorisation("the answer is no JSON") from None
    if not isinstance(found, dict):
        raise BadAuthorisation("the answer is no object")
    return found


def _without_nothing(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    return {key.lower(): value for key, value in pairs if value is not None}


def _entry(told: dict[str, Any]) -> Authorisation:
    """Return an entry of an answer."""
    permissions = frozenset(_each(told, "permissions", str))
    for unknown in sorted(permissions - PERMISSIONS):
        raise BadAuthorisation(f"unknown permission {quoted(unknown)}")
    return Authorisation(
        _pattern("topic", _value(told, "topic", str, "")),
        tuple(_pattern("channel", text) for text in _each(told, "channels", str)),
        permissions,
    )


def _pattern(what: str, text: str) -> re.Pattern[str]:
    """Return the regular expression of a topic or channel.

    Python's, for Go's: what both have means the same for the characters of a name.  It is the auth
    server's, which is trusted, so nothing guards against one that takes for ever.
    """
    problem = "classes as [[:alpha:]] are Go's alone: write a-zA-Z"
    if "[[:" not in text:
        try:
            return re.compile(text)
        except re.error as error:
            problem = str(error)
    raise BadAuthorisation(f"unable to compile {what} {quoted(text)}: {problem}")


def _value(told: dict[str, Any], key: str, kind: type[T], default: T) -> T:
    """Return the value of a key, which is of one kind."""
    found = told.get(key, default)
    if found.__class__ is not kind:
        raise BadAuthorisation(f"{key} is of the wrong type")
    result: T = found
    return result


def _each(told: dict[str, Any], key: str, kind: type[T]) -> list[T]:
    """Return the values of a key, which has a list of one kind."""
    found: list[Any] = _value(told, key, list, [])
    if any(value.__class__ is not kind for value in found):
        raise BadAuthorisation(f"{key} holds what is of the wrong type")
    return found
