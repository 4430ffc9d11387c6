r"""Go's forms of texts, numbers, durations and JSON, in which nsqd reads and writes.

The rule: what is read here is what Go would read, and what is written is as Go would write it, to
the byte.

    >>> quoted(b"tea\xff")
    '"tea\\xff"'
    >>> duration("1h2m3.5s")
    3723500000000
    >>> duration_text(250_000_000)
    '250ms'
    >>> compact_json({"topic": "a & b"})
    b'{"topic":"a \\u0026 b"}'

Next: wire/frames.py
"""

import json
import re
from decimal import Decimal
from typing import Any, Final

_WRAP: Final = 1 << 64
_LONGEST: Final = 1 << 63

_DIGITS: Final = 64
"""So many last digits decide on a number modulo 2**64, since that divides 10**64."""

_ESCAPES: Final = {
    '"': '\\"',
    "\\": "\\\\",
    "\a": "\\a",
    "\b": "\\b",
    "\f": "\\f",
    "\n": "\\n",
    "\r": "\\r",
    "\t": "\\t",
    "\v": "\\v",
}

_UNITS: Final = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,  # U+00B5, the micro sign
    "μs": 1_000,  # U+03BC, the Greek letter
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60_000_000_000,
    "h": 3_600_000_000_000,
}

_PART: Final = re.compile(r"([0-9]*)(?:\.([0-9]*))?([^0-9.]*)")

_FRACTION: Final = 18
"""Digits behind a point that count; more say nothing of a nanosecond."""

_SURROGATE: Final = re.compile("[\ud800-\udfff]")

_SAME: Final = {str, int, bool, type(None)}
"""What `json` writes as Go does, but for the characters below."""

_MARKUP: Final = (
    ("<", "\\u003c"),
    (">", "\\u003e"),
    ("&", "\\u0026"),
    ("\u2028", "\\u2028"),
    ("\u2029", "\\u2029"),
)

_WHOLE: Final = 1e21
"""From here on Go writes a float with an exponent."""


# Texts and numbers


def quoted(text: bytes | str) -> str:
    r"""Return a text in quotes, as Go's `strconv.Quote`; what is no UTF-8 becomes ``\x..``."""
    if not isinstance(text, str):
        text = text.decode("utf-8", "surrogateescape")
    if text.isprintable() and '"' not in text and "\\" not in text:
        return f'"{text}"'
    return f'"{"".join(map(_escaped, text))}"'


def _escaped(character: str) -> str:
    """Return how a character stands between Go's quotes."""
    if (escape := _ESCAPES.get(character)) is not None:
        return escape
    if character.isprintable():
        return character
    number = ord(character)
    if number < 0x20 or number == 0x7F:  # noqa: PLR2004 - ASCII's control characters
        return f"\\x{number:02x}"
    if 0xDC80 <= number <= 0xDCFF:  # noqa: PLR2004 - what `surrogateescape` makes of a byte
        return f"\\x{number - 0xDC00:02x}"
    if 0xD800 <= number <= 0xDFFF:  # noqa: PLR2004 - half a character
        return "\\ufffd"
    return f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"  # noqa: PLR2004 - 16 bits


def decimal(param: bytes) -> int | None:
    """Return the number that digits stand for, modulo 2**64, as NSQ reads them; None if not digits.

    No digit at all is 0.
    """
    if not param:
        return 0
    if not param.isdigit():
        return None
    return int(param[-_DIGITS:]) % _WRAP


# Durations


def duration(text: str) -> int:
    """Return the nanoseconds of a duration such as ``1h2m3.5s``, as Go's `time.ParseDuration`.

    Raises:
        ValueError: it is none; the text says why.
    """
    rest = text[1:] if text[:1] in {"-", "+"} else text
    if rest == "0":
        return 0
    if not rest:
        raise ValueError(f"time: invalid duration {quoted(text)}")
    total = place = 0
    while place < len(rest):
        found = _PART.match(rest, place)
        assert found is not None  # the pattern matches what is empty, too
        total += _part(text, *found.groups(default=""))
        place = found.end()
    negative = text[0] == "-"
    if total > (_LONGEST if negative else _LONGEST - 1):
        raise ValueError(f"time: invalid duration {quoted(text)}")
    return -total if negative else total


def _part(text: str, digits: str, fraction: str, unit: str) -> int:
    """Return the nanoseconds of a number and its unit, a part of the whole text."""
    if not digits and not fraction:
        raise ValueError(f"time: invalid duration {quoted(text)}")
    if not unit:
        raise ValueError(f"time: missing unit in duration {quoted(text)}")
    if unit not in _UNITS:
        raise ValueError(f"time: unknown unit {quoted(unit)} in duration {quoted(text)}")
    digits = digits.lstrip("0")
    if len(digits) > len(str(_LONGEST)):
        raise ValueError(f"time: invalid duration {quoted(text)}")
    size = _UNITS[unit]
    fraction = fraction[:_FRACTION]
    behind = int(float(fraction or "0") * (size / 10 ** len(fraction)))  # as Go: no exact division
    return int(digits or "0") * size + behind


def duration_text(ns: int) -> str:
    """Return a duration as Go's `Duration.String`: ``1h2m3.5s``, ``250ms``, ``0s``."""
    if ns < 0:
        return f"-{duration_text(-ns)}"
    if ns == 0:
        return "0s"
    for unit in ("ns", "µs", "ms"):
        if ns < 1_000 * _UNITS[unit]:
            return f"{_shortest(ns, _UNITS[unit])}{unit}"
    hours, rest = divmod(ns, _UNITS["h"])
    minutes, rest = divmod(rest, _UNITS["m"])
    seconds = f"{_shortest(rest, _UNITS['s'])}s"
    if hours:
        return f"{hours}h{minutes}m{seconds}"
    return f"{minutes}m{seconds}" if minutes else seconds


def _shortest(ns: int, unit: int) -> str:
    """Return a number of units, without zeros at its end."""
    whole, rest = divmod(ns, unit)
    fraction = f"{rest:0{len(str(unit)) - 1}}".rstrip("0") if rest else ""
    return f"{whole}.{fraction}" if fraction else str(whole)


# JSON


def compact_json(obj: Any) -> bytes:
    """Return a value as Go's `encoding/json` writes it.

    No spaces, the characters of markup escaped, UTF-8 kept, no ``.0`` behind a whole number.  Keys
    stay in their order, as those of Go's structs.  A float nearer to 0 than 0.0001 has Python's
    form, which is another one of the same number.

    Raises:
        ValueError: it holds a NaN or an infinity.
        TypeError: it holds what JSON has no form for.
    """
    text = json.dumps(_plain(obj), ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for character, escape in _MARKUP:
        text = text.replace(character, escape)
    try:
        return text.encode()
    except UnicodeEncodeError:  # half a character
        return _SURROGATE.sub(r"\\ufffd", text).encode()


def _plain(value: Any) -> Any:
    """Return a value with ints for its whole floats."""
    kind = value.__class__
    if kind in _SAME:
        return value
    if kind is dict:
        return {key: v if v.__class__ in _SAME else _plain(v) for key, v in value.items()}
    if kind is list or kind is tuple:
        return [v if v.__class__ in _SAME else _plain(v) for v in value]
    if kind is float and abs(value) < _WHOLE and value.is_integer():
        return int(Decimal(repr(value)))  # the shortest digits that say it, then zeros
    return value
