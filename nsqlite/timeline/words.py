"""Bodies, spans of time and names in plain words, for a timeline.

The rule: what a body holds is shown and never trusted: in a label there is no control character,
none that turns the direction of writing, and no line end.

Next: timeline/parts.py
"""

from codecs import getincrementaldecoder
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Final

from nsqlite.errors import printable, shown

BODY: Final = 200
"""How many characters are shown of a body."""

LONGEST: Final = 24
"""How many characters a label has at most."""

MINUTE: Final = 60
HOUR: Final = 60 * MINUTE
DAY: Final = 24 * HOUR

EXACT: Final = 5e-7
"""In seconds, how exact a float is that counts them since the epoch."""

UNITS: Final = ((DAY, "d", HOUR, "h"), (HOUR, "h", MINUTE, "min"), (MINUTE, "min", 1, "s"))
"""How long spans of time are told: in a unit and the next smaller one."""


def shortened(text: str, longest: int) -> str:
    """Return a text of at most so many characters; the last says that there were more."""
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


def plain(body: object) -> str:
    """Return a body as a reader knows it: text as it is, also in bytes, other things as errors do.

    It is printable, and cut short.
    """
    text = None
    if isinstance(body, bytes | bytearray):
        text = _decoded(bytes(body[: 4 * BODY]))
    elif isinstance(body, str):
        text = body
    if text is None:
        text = shown(body)
    return shortened(printable(text[: BODY + 1]), BODY)


def _decoded(body: bytes) -> str | None:
    """Return the text that the bytes are; None if they are none.  The last may have been cut."""
    try:
        return getincrementaldecoder("utf-8")().decode(body)
    except UnicodeDecodeError:
        return None


def label(body: object) -> str:
    """Return a few characters by which a reader knows a body."""
    return shortened(" ".join(plain(body).split()), LONGEST) or "(empty)"


def span(seconds: float) -> str:
    """Return a span of time in words, to three digits or to the second.

    >>> [span(seconds) for seconds in (0.000003, 0.00025, 0.5, 10, 90, 7200, 90000)]
    ['3 µs', '0.25 ms', '0.5 s', '10 s', '1 min 30 s', '2 h', '1 d 1 h']
    """
    seconds = abs(seconds)
    if seconds < 0.0001:  # noqa: PLR2004 - as below; a float since the epoch knows no parts of it
        return f"{seconds * 1e6:.0f} µs" if seconds > EXACT else "0 s"
    if seconds < 0.01:  # noqa: PLR2004 - of less a reader thinks in thousandths
        return f"{seconds * 1000:.3g} ms"
    if round(seconds, 1) < MINUTE:
        return f"{seconds:.3g} s"
    size, unit, smaller, rest = next(
        one for one in UNITS if round(seconds / one[2]) * one[2] >= one[0]
    )
    whole, left = divmod(round(seconds / smaller), size // smaller)
    return f"{whole} {unit} {left} {rest}" if left else f"{whole} {unit}"


def number(count: int, noun: str) -> str:
    """Return how many there are: ``1 message``, ``2 messages``."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def listed(names: list[str], most: int = 4) -> str:
    """Return names in a row, as in ``billing, audit and 3 more``."""
    if len(names) > most:
        names = [*names[: most - 1], f"{len(names) - most + 1} more"]
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def date(seconds: float) -> str:
    """Return a moment, in seconds since the epoch, as a date and a time of its day in UTC."""
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (OverflowError, ValueError, OSError):
        return f"{seconds:.0f} s"  # what no calendar has


def offset(seconds: float, decimals: int) -> str:
    """Return how long after the beginning something was: ``2.5``, ``3:02.5``, ``1:00:00.0``."""
    minutes, rest = divmod(round(seconds, decimals), MINUTE)
    if not minutes:
        return f"{rest:.{decimals}f}"
    hours, minute = divmod(int(minutes), 60)
    ahead = f"{hours}:{minute:02d}" if hours else f"{minute}"
    return f"{ahead}:{rest:0{decimals + 3}.{decimals}f}"


def decimals(seconds: Iterable[float]) -> int:
    """Return how many decimals tell spans of time apart: 1, 3 or 6."""
    spans = list(seconds)
    for places in (1, 3):
        if all(abs(one - round(one, places)) < EXACT for one in spans):
            return places
    return 3 if max(spans, default=0) > MINUTE else 6
