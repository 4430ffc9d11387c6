"""Flags in the forms that programs in Go take: -a x, -a=x, --a x, --a=x.

The rule: a flag that Go's own parser takes is taken, and what it refuses is refused in its words;
so whatever starts nsqd starts this.  But for what is no flag, as the `false` of `--snappy false`:
Go stops there and ignores the rest, and here it is refused.

    >>> parse(["--size=5", "-v"], {"size": Kind.WHOLE, "v": Kind.SWITCH})
    [('size', 5), ('v', True)]

Next: cli/nsqd.py
"""

import enum
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from nsqlite.options import SECOND, nearest
from nsqlite.wire.go import duration, quoted


class Kind(enum.Enum):
    """What a flag takes."""

    TEXT = "string"
    WHOLE = "int"
    DURATION = "duration"
    SWITCH = "bool"
    WORD = "value"
    """A text, which only stands behind `=`; without one it is "true"."""


class BadFlag(Exception):
    """A command line is refused; the text says why, as Go would."""


class HelpAsked(Exception):
    """Help is asked for, in front of whatever else stands there."""


TRUE: Final = ("1", "t", "T", "TRUE", "true", "True")
FALSE: Final = ("0", "f", "F", "FALSE", "false", "False")

HELP: Final = ("h", "help")

_WHOLE: Final = re.compile(
    "([+-]?)(?:0[xX]((?:_?[0-9a-fA-F])+)|0[bB]((?:_?[01])+)|0[oO]?((?:_?[0-7])+)"
    "|(0|[1-9](?:_?[0-9])*))"
)
"""Go's whole numbers: their sign, and digits to the bases 16, 2, 8 and 10."""

_BASES: Final = (16, 2, 8, 10)

_LIMIT: Final = 1 << 63

_LONGEST: Final = 64
"""Digits of a number of 64 bits at the most."""

_NUMBER: Final = re.compile(
    r"[+-]?(?:(?:[0-9](?:_?[0-9])*)?\.?(?:[0-9](?:_?[0-9])*)?(?:[eE][+-]?[0-9](?:_?[0-9])*)?"
    "|inf|infinity)|nan",
    re.IGNORECASE,
)


class _OutOfRange(ValueError):
    """A number is none that Go has."""


def parse(arguments: Sequence[str], kinds: Mapping[str, Kind]) -> list[tuple[str, Any]]:
    """Return the flags of a command line, in order, each with its value; durations in seconds.

    Args:
        arguments: the command line, without the program.
        kinds: what each flag takes.

    Raises:
        BadFlag: a flag is unknown, its value missing or wrong, or something else stands there.
        HelpAsked: `-h` or `-help` stands there, and is none of the flags.
    """
    found: list[tuple[str, Any]] = []
    left = list(reversed(arguments))
    while left and len(left[-1]) > 1 and left[-1].startswith("-"):
        argument = left.pop()
        if argument == "--":
            break
        name, equals, value = argument.removeprefix("-").removeprefix("-").partition("=")
        if not name or name.startswith("-"):
            raise BadFlag(f"bad flag syntax: {argument}")
        kind = _kind_of(name, kinds)
        if kind in {Kind.SWITCH, Kind.WORD}:
            value = value if equals else "true"
        elif not equals:
            if not left:
                raise BadFlag(f"flag needs an argument: -{name}")
            value = left.pop()
        found.append((name, _value(name, kind, value)))
    if left:
        raise BadFlag(f"unexpected argument: {left[-1]}{_meant(found, kinds, left[-1])}")
    return found


def _kind_of(name: str, kinds: Mapping[str, Kind]) -> Kind:
    """Return what a flag takes.

    Raises:
        BadFlag: there is no such flag.
        HelpAsked: it asks for help.
    """
    kind = kinds.get(name)
    if kind is not None:
        return kind
    if name in HELP:
        raise HelpAsked
    raise BadFlag(f"flag provided but not defined: -{name}{nearest(name, kinds)}")


def _meant(found: list[tuple[str, Any]], kinds: Mapping[str, Kind], text: str) -> str:
    """Return what may be meant by what is no flag."""
    name = found[-1][0] if found else ""
    switches = kinds.get(name) in {Kind.SWITCH, Kind.WORD}
    return f" (did you mean -{name}={text}?)" if switches else ""


def _value(name: str, kind: Kind, text: str) -> Any:
    """Return the value of a flag.

    Raises:
        BadFlag: it is none of the kind.
    """
    what = f"invalid value {quoted(text)} for flag -{name}"
    if kind is Kind.SWITCH:
        what = f"invalid boolean value {quoted(text)} for -{name}"
    try:
        return READERS[kind](text)
    except _OutOfRange:
        raise BadFlag(f"{what}: value out of range") from None
    except ValueError:
        raise BadFlag(f"{what}: parse error") from None


def switch(text: str) -> bool:
    """Return what one of Go's texts for yes and no stands for, as its `strconv.ParseBool`.

    Raises:
        ValueError: it is none.
    """
    if text not in TRUE + FALSE:
        raise ValueError(text)
    return text in TRUE


def whole(text: str) -> int:
    """Return one of Go's whole numbers, as its `strconv.ParseInt` with the base 0.

    Raises:
        ValueError: it is none, or has no place in 64 bits.
    """
    found = _WHOLE.fullmatch(text)
    if found is None:
        raise ValueError(text)
    sign, *written = found.groups()
    base, digits = next((base, one) for base, one in zip(_BASES, written, strict=True) if one)
    digits = digits.replace("_", "").lstrip("0") or "0"
    size = int(digits, base) if len(digits) <= _LONGEST else _LIMIT + 1
    if size >= _LIMIT + (sign == "-"):
        raise _OutOfRange(text)
    return -size if sign == "-" else size


def number(text: str) -> float:
    """Return one of Go's numbers, as its `strconv.ParseFloat`, but for hexadecimal ones.

    Raises:
        ValueError: it is none, or has no place in 64 bits.
    """
    if not _NUMBER.fullmatch(text):
        raise ValueError(text)
    found = float(text)
    if math.isinf(found) and "i" not in text.lower():
        raise _OutOfRange(text)
    return found


def seconds(text: str) -> float:
    """Return one of Go's durations in seconds.

    Raises:
        ValueError: it is none.
    """
    return duration(text) / SECOND


READERS: Final[dict[Kind, Callable[[str], Any]]] = {
    Kind.TEXT: str,
    Kind.WHOLE: whole,
    Kind.DURATION: seconds,
    Kind.SWITCH: switch,
    Kind.WORD: str,
}
"""What reads the value of a flag, by its kind."""
