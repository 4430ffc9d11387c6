"""The table, a line at a time.

The rule: the median is judged, or for some rows the best, against the bound that must be kept; a
line without a bound is a note.

Next: handclock.py
"""

from collections.abc import Callable
from statistics import median
from typing import Literal, TypeAlias

import attrs
from timing import Comparison, Run, Scale, compare

Measured: TypeAlias = Callable[[Scale], Run]
"""Returns what measures something at a scale."""

Unit = Literal["us", "ms", "s", "B", "MiB", "%", ""]

_SCALES: dict[Unit, float] = {
    "us": 1e6,
    "ms": 1e3,
    "s": 1,
    "B": 1,
    "MiB": 1 / (1 << 20),
    "%": 100,
    "": 1,
}
_FORMAT = "{:<19} {:<50} {:<22} {:>11} {:>9} {:>7} {:>6} {:>6} {:>5} {:>5}  {}"


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
        best: the ratio of the best runs, or our best figure, if there are several.
        bound: None for a note.
        absolute: our figure itself is judged; it and its bounds are shown in the unit.
        by_best: the best is judged.
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
    by_best: bool = False

    @property
    def mark(self) -> str:
        """Whether the bound is kept."""
        if self.bound is None:
            return "note"
        if self.by_best and self.best is not None:
            return "ok" if self.best <= self.bound.must else "MISS"
        return "ok" if self.judged <= self.bound.must else "MISS"

    def __str__(self) -> str:
        places = 0 if self.absolute and self.unit in ("B", "MiB") else 2
        bounds = ".0f" if places == 0 else ".3g"
        scale = _SCALES[self.unit] if self.absolute else 1
        return _FORMAT.format(
            self.name,
            self.work,
            self.against,
            show(self.ours, self.unit),
            "" if self.theirs is None else show(self.theirs, self.unit),
            f"{self.judged * scale:.{places}f}",
            "" if self.least is None else f"{self.least:.2f}",
            "" if self.best is None else f"{self.best * scale:.{places}f}",
            "" if self.bound is None else f"{self.bound.must * scale:{bounds}}",
            "" if self.bound is None else f"{self.bound.hope * scale:{bounds}}",
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
    by_best: bool = False,
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
        by_best=by_best,
    )


@attrs.frozen
class Yardstick:
    """What others are compared with.

    Attributes:
        text: how it is called in the table.
        measured: measures it.
    """

    text: str
    measured: Measured


@attrs.frozen
class Row:
    """A row of the table: two timed callables and what is said of them.

    Attributes:
        name: its group, a slash and its own name.
        work: what is done.
        ours: measures it.
        against: what it is compared with; None if our figure itself is judged, by the best.
        bound: what must be kept; None for a note.
        unit: how the figures are shown.
        by_best: the ratio of the best runs is judged, not the median; so there are twice as many.
        slow: a run takes long, so there are fewer.
    """

    name: str
    work: str
    ours: Measured
    against: Yardstick | None
    bound: Bound | None = None
    unit: Unit = attrs.field(default="us", kw_only=True)
    by_best: bool = attrs.field(default=False, kw_only=True)
    slow: bool = attrs.field(default=False, kw_only=True)

    @property
    def group(self) -> str:
        """What it is named by together with others."""
        return self.name.partition("/")[0]

    def line(self, scale: Scale) -> Line:
        """Measure it."""
        pairs = scale.long_pairs if self.slow else scale.pairs * (1 + self.by_best)
        ours = self.ours(scale)
        if self.against is not None:
            return ratio_line(
                self.name,
                self.work,
                self.against.text,
                compare(ours, self.against.measured(scale), pairs),
                bound=self.bound,
                unit=self.unit,
                by_best=self.by_best,
            )
        figures = [ours() for _ in range(1 if self.unit == "B" else pairs)]
        return Line(
            name=self.name,
            work=self.work,
            ours=median(figures),
            unit=self.unit,
            judged=median(figures),
            best=min(figures),
            bound=self.bound,
            absolute=True,
            by_best=True,
        )
