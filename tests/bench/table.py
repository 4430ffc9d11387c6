"""The table of ratios, a line at a time.

The rule: the median is judged, against the bound that must be kept; a line without a bound is a
note.

Next: loops.py
"""

from typing import Literal

import attrs
from timing import Comparison

Unit = Literal["us", "ms", "s", "B", "MiB", ""]

_SCALES: dict[Unit, float] = {"us": 1e6, "ms": 1e3, "s": 1, "B": 1, "MiB": 1 / (1 << 20), "": 1}
_FORMAT = "{:<9} {:<50} {:<20} {:>9} {:>9} {:>7} {:>6} {:>6} {:>5} {:>5}  {}"


@attrs.frozen
class Bound:
    """What a figure must not exceed, and what is hoped for."""

    must: float
    hope: float


@attrs.frozen(kw_only=True)
class Line:
    """A line of the table.

    Attributes:
        name: the row that it belongs to.
        work: what was done.
        against: what it is compared with.
        ours: our figure in seconds or bytes, or a number.
        theirs: the comparison's, if there is one.
        unit: how the two are shown.
        judged: what the bound is about: the ratio, or our figure itself.
        least: the least of the ratios, if there are several.
        best: the ratio of the best runs, if there are several.
        bound: None for a note.
        absolute: our figure itself is judged; it and its bounds are shown in the unit.
    """

    name: str
    work: str
    against: str = ""
    ours: float
    theirs: float | None = None
    unit: Unit = "us"
    judged: float
    least: float | None = None
    best: float | None = None
    bound: Bound | None = None
    absolute: bool = False

    @property
    def mark(self) -> str:
        """Whether the bound is kept."""
        if self.bound is None:
            return "note"
        return "ok" if self.judged <= self.bound.must else "MISS"

    def __str__(self) -> str:
        places = 0 if self.absolute and self.unit in ("B", "MiB") else 2
        scale = _SCALES[self.unit] if self.absolute else 1
        return _FORMAT.format(
            self.name,
            self.work,
            self.against,
            show(self.ours, self.unit),
            "" if self.theirs is None else show(self.theirs, self.unit),
            f"{self.judged * scale:.{places}f}",
            "" if self.least is None else f"{self.least:.2f}",
            "" if self.best is None else f"{self.best:.2f}",
            "" if self.bound is None else f"{self.bound.must * scale:.3g}",
            "" if self.bound is None else f"{self.bound.hope * scale:.3g}",
            self.mark,
        )


HEAD = _FORMAT.format(
    *("row", "work", "compared with", "ours", "theirs"),
    *("median", "least", "best", "must", "hope", "mark"),
)


def show(value: float, unit: Unit) -> str:
    """Return seconds, bytes or a number as they are printed."""
    return f"{value * _SCALES[unit]:.{0 if unit in ('B', 'MiB') else 2}f} {unit}".rstrip()


def ratio_line(
    name: str,
    work: str,
    against: str,
    comparison: Comparison,
    *,
    bound: Bound | None = None,
    unit: Unit = "us",
) -> Line:
    """Return the line of a comparison."""
    return Line(
        name=name,
        work=work,
        against=against,
        ours=comparison.ours,
        theirs=comparison.theirs,
        unit=unit,
        judged=comparison.ratio,
        least=comparison.least,
        best=comparison.best,
        bound=bound,
    )
