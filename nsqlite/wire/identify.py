"""IDENTIFY: what a client says of itself and asks for, and what then holds (NSQ wire §4, §5).

The rule: what a client asks for is checked as a whole, in NSQ's order, before any of it holds, and
the answer tells what holds.

    >>> limits = Limits(tls=True)
    >>> who = negotiate(b'{"feature_negotiation": true, "snappy": true, "tls_v1": true}', limits)
    >>> who.snappy, who.tls, who.deflate, who.heartbeat_interval
    (True, True, False, 30000)
    >>> negotiate(b'{"heartbeat_interval": 5}', limits)
    Traceback (most recent call last):
    nsqlite.wire.identify.Refused: E_BAD_BODY IDENTIFY heartbeat interval (5) is invalid

Next: wire/compression.py
"""

import json
import re
from typing import Any, Final

import attrs

from nsqlite.wire.go import compact_json

NSQ_VERSION: Final = "1.3.0"
"""The version of nsqd whose protocol is spoken."""

HEARTBEAT_INTERVAL: Final = 30_000
"""Milliseconds between heartbeats of a client that asks for none of its own."""

OUTPUT_BUFFER_SIZE: Final = 16_384
"""Bytes in the output buffer of a client that asks for none of its own."""

DEFLATE_LEVEL: Final = 6
"""How hard Deflate works for a client that does not say."""

_SHORTEST_HEARTBEAT: Final = 1_000
_SHORTEST_MSG_TIMEOUT: Final = 1_000
_SMALLEST_BUFFER: Final = 64
_MOST_SAMPLES: Final = 99

_OFF: Final = -1  # how a client says that it wants none of something

_SURROGATE: Final = re.compile("[\ud800-\udfff]")

_OTHER: Final = object()
"""Stands for a number that is no integer, or one of more digits than any field takes."""

_DIGITS: Final = 20  # those of the longest integer, with its sign

_TEXT: Final = (str, 0)
_FLAG: Final = (bool, 0)
_INT64: Final = (int, 1 << 63)
_INT32: Final = (int, 1 << 31)

_KEYS: Final = {
    "client_id": _TEXT,
    "hostname": _TEXT,
    "user_agent": _TEXT,
    "feature_negotiation": _FLAG,
    "heartbeat_interval": _INT64,
    "output_buffer_timeout": _INT64,
    "output_buffer_size": _INT64,
    "sample_rate": _INT32,
    "msg_timeout": _INT64,
    "tls_v1": _FLAG,
    "deflate": _FLAG,
    "deflate_level": _INT64,
    "snappy": _FLAG,
    "topology_region": _TEXT,
    "topology_zone": _TEXT,
}
"""What a client can say: the kind of each value, and that the integers stay below."""


class Refused(Exception):
    """A client's IDENTIFY is refused; the connection ends with that.

    Attributes:
        text: the whole text of the error frame.
    """

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text


@attrs.frozen(kw_only=True)
class Limits:
    """What a node allows its clients, and tells them; times are in milliseconds.

    Attributes:
        max_rdy_count: the widest window of a consumer.
        version: the version of nsqd whose protocol is spoken.
        max_msg_timeout: the most that a client may ask for, and that touches make of it.
        msg_timeout: how long a message is in flight if the client does not say.
        max_heartbeat_interval: the longest a client may ask for.
        max_output_buffer_size: in bytes.
        min_output_buffer_timeout: the shortest a client may ask for.
        max_output_buffer_timeout: the longest.
        output_buffer_timeout: what holds if the client does not say.
        tls: whether the node has a certificate.
        deflate: whether it compresses by Deflate.
        max_deflate_level: how hard at the most, 1 to 9.
        snappy: whether it compresses by Snappy.
        auth_required: whether clients must tell a secret.
        topology_region: where the node is.
        topology_zone: where in its region.
    """

    max_rdy_count: int = 2_500
    version: str = NSQ_VERSION
    max_msg_timeout: int = 900_000
    msg_timeout: int = 60_000
    max_heartbeat_interval: int = 60_000
    max_output_buffer_size: int = 65_536
    min_output_buffer_timeout: int = 25
    max_output_buffer_timeout: int = 30_000
    output_buffer_timeout: int = 250
    tls: bool = False
    deflate: bool = True
    max_deflate_level: int = 6
    snappy: bool = True
    auth_required: bool = False
    topology_region: str = ""
    topology_zone: str = ""


@attrs.frozen(kw_only=True)
class Identity:
    """Who a client is and what holds for it; before IDENTIFY, and without it, the defaults.

    Attributes:
        limits: those of its node.
        client_id: what it calls itself, before IDENTIFY its address.
        hostname: the same.
        user_agent: its library, in its own words.
        feature_negotiation: whether it reads the answer, and so has asked for the rest.
        heartbeat_interval: milliseconds, 0 for no heartbeats.
        output_buffer_timeout: milliseconds until what was written is sent, 0 for no such time.
        output_buffer_size: bytes, 1 for no buffer.
        sample_rate: percent of the messages that it gets; 0 for all.
        msg_timeout: milliseconds that a message is in flight.
        tls: whether TLS is to follow.
        deflate: whether Deflate is to follow.
        deflate_level: how hard it works, if it does.
        snappy: whether Snappy is to follow.
        topology_region: where it is.
        topology_zone: where in its region.
    """

    limits: Limits = attrs.field(factory=Limits, repr=False)
    client_id: str = ""
    hostname: str = ""
    user_agent: str = ""
    feature_negotiation: bool = False
    heartbeat_interval: int = HEARTBEAT_INTERVAL
    output_buffer_timeout: int = attrs.field()
    output_buffer_size: int = OUTPUT_BUFFER_SIZE
    sample_rate: int = 0
    msg_timeout: int = attrs.field()
    tls: bool = False
    deflate: bool = False
    deflate_level: int = DEFLATE_LEVEL
    snappy: bool = False
    topology_region: str = ""
    topology_zone: str = ""

    @output_buffer_timeout.default
    def _output_buffer_timeout(self) -> int:
        return self.limits.output_buffer_timeout

    @msg_timeout.default
    def _msg_timeout(self) -> int:
        return self.limits.msg_timeout

    def reply(self) -> bytes:
        """Return the answer to IDENTIFY: ``OK``, or JSON for a client that negotiates."""
        if not self.feature_negotiation:
            return b"OK"
        limits = self.limits
        return compact_json(
            {
                "max_rdy_count": limits.max_rdy_count,
                "version": limits.version,
                "max_msg_timeout": limits.max_msg_timeout,
                "msg_timeout": self.msg_timeout,
                "tls_v1": self.tls,
                "deflate": self.deflate,
                "deflate_level": self.deflate_level,
                "max_deflate_level": limits.max_deflate_level,
                "snappy": self.snappy,
                "sample_rate": self.sample_rate,
                "auth_required": limits.auth_required,
                "output_buffer_size": self.output_buffer_size,
                "output_buffer_timeout": self.output_buffer_timeout,
                "topology_region": limits.topology_region,
                "topology_zone": limits.topology_zone,
            }
        )


def negotiate(body: bytes, limits: Limits, before: Identity | None = None) -> Identity:
    """Return what holds for a client after its IDENTIFY.

    Args:
        body: what it sent.
        limits: those of the node.
        before: what held until now; times and sizes that it does not name stay as they were.

    Raises:
        Refused: it is no JSON, of the wrong types, or asks for what cannot be.
    """
    said = _said(body)
    held = before or Identity(limits=limits)
    heartbeat = _heartbeat(said.get("heartbeat_interval", 0), held)
    size, timeout = _output_buffer(said, held)
    sample_rate = said.get("sample_rate", 0)
    if not 0 <= sample_rate <= _MOST_SAMPLES:
        raise _invalid("sample rate", sample_rate)
    msg_timeout = said.get("msg_timeout", 0) or held.msg_timeout
    if said.get("msg_timeout") and not (
        _SHORTEST_MSG_TIMEOUT <= msg_timeout <= limits.max_msg_timeout
    ):
        raise _invalid("msg timeout", msg_timeout)
    return Identity(
        limits=limits,
        client_id=said.get("client_id", ""),
        hostname=said.get("hostname", ""),
        user_agent=said.get("user_agent", ""),
        heartbeat_interval=heartbeat,
        output_buffer_size=size,
        output_buffer_timeout=timeout,
        sample_rate=sample_rate,
        msg_timeout=msg_timeout,
        topology_region=said.get("topology_region", ""),
        topology_zone=said.get("topology_zone", ""),
        **_features(said, limits),
    )


def _heartbeat(asked: int, held: Identity) -> int:
    """Return the milliseconds between heartbeats, 0 for none."""
    if asked == _OFF:
        return 0
    if asked == 0:
        return held.heartbeat_interval
    if not _SHORTEST_HEARTBEAT <= asked <= held.limits.max_heartbeat_interval:
        raise _invalid("heartbeat interval", asked)
    return asked


def _output_buffer(said: dict[str, Any], held: Identity) -> tuple[int, int]:
    """Return the bytes of the output buffer and the milliseconds that they wait in it."""
    limits = held.limits
    timeout = said.get("output_buffer_timeout", 0)
    low, high = limits.min_output_buffer_timeout, limits.max_output_buffer_timeout
    if timeout not in (_OFF, 0) and not low <= timeout <= high:
        raise _invalid("output buffer timeout", timeout)
    size = said.get("output_buffer_size", 0)
    if size not in (_OFF, 0) and not _SMALLEST_BUFFER <= size <= limits.max_output_buffer_size:
        raise _invalid("output buffer size", size)
    if size == _OFF:
        return 1, 0
    waits = 0 if timeout == _OFF else timeout or held.output_buffer_timeout
    return size or held.output_buffer_size, waits


def _features(said: dict[str, Any], limits: Limits) -> dict[str, Any]:
    """Return what follows the answer, for a client that negotiates."""
    if not said.get("feature_negotiation"):
        return {}
    deflate = limits.deflate and said.get("deflate", False)
    snappy = limits.snappy and said.get("snappy", False)
    if deflate and snappy:
        raise Refused("E_IDENTIFY_FAILED cannot enable both deflate and snappy compression")
    level = said.get("deflate_level", 0) if deflate else 0
    return {
        "feature_negotiation": True,
        "tls": limits.tls and said.get("tls_v1", False),
        "deflate": deflate,
        "deflate_level": min(level if level > 0 else DEFLATE_LEVEL, limits.max_deflate_level),
        "snappy": snappy,
    }


def _invalid(what: str, value: int) -> Refused:
    return Refused(f"E_BAD_BODY IDENTIFY {what} ({value}) is invalid")


# The body, as Go decodes JSON into a structure


def _said(body: bytes) -> dict[str, Any]:
    """Return the values of the keys that are known, by their names."""
    said = {}
    for key, value in _pairs(body):
        name = key.lower()
        if name in _KEYS and value is not None:
            said[name] = _checked(value, *_KEYS[name])
    return said


def _pairs(body: bytes) -> tuple[tuple[str, Any], ...]:
    """Return the keys and values of an object, in their order; ``null`` has none."""
    try:
        found = json.loads(
            body.decode("utf-8", "replace"),
            object_pairs_hook=tuple,
            parse_int=_integer,
            parse_float=_no_integer,
            parse_constant=_no_json,
        )
    except (ValueError, RecursionError):
        raise _undecoded() from None
    if found is None:
        return ()
    if not isinstance(found, tuple):
        raise _undecoded()
    return found


def _checked(value: Any, kind: type, end: int) -> Any:
    """Return a value if it is of the kind that its key takes."""
    is_right = value.__class__ is kind  # so that a bool is no int
    if not is_right or (kind is int and not -end <= value < end):
        raise _undecoded()
    return _SURROGATE.sub("\ufffd", value) if kind is str else value


def _integer(digits: str) -> object:
    return int(digits) if len(digits) <= _DIGITS else _OTHER


def _no_integer(_digits: str) -> object:
    return _OTHER


def _no_json(constant: str) -> object:
    raise ValueError(constant)


def _undecoded() -> Refused:
    return Refused("E_BAD_BODY IDENTIFY failed to decode JSON body")
