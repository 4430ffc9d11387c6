"""A schedule of a simulation: at which of its choices something else happens than usual.

The rule: a schedule is a few pairs of a place and a number, and wherever it says nothing the choice
is 0, the undisturbed course.  So to disturb less, and earlier, is to be smaller, and any smaller
schedule can be played, too.

    "5:1 12:3"    at choice 5 the first alternative, at choice 12 the third, nothing else

`shrunk` is delta debugging on these pairs.

Next: testing/simulation/turns.py
"""

from collections.abc import Callable, Iterator, Mapping
from random import Random
from typing import TYPE_CHECKING, Any, Final, Self, TypeAlias

from nsqlite.errors import InvalidOption
from nsqlite.options import whole

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

Pairs: TypeAlias = Mapping[int, int]
"""What is chosen at which place, where that is not 0."""

_DISTURBED: Final = (1, 2, 3, 5)
"""How many choices of a run are not 0 on average, in one schedule or another."""

USUAL: Final = 20
"""How many choices a run is taken to have of which nothing is known."""

_FURTHER: Final = 16
"""By less than so many places a choice is tried later when an earlier one was taken out."""

_LONGEST: Final = 100
"""The places that Hypothesis chooses from, and 4 are the alternatives."""


class Schedule:
    """What is to happen otherwise than usual in a simulation, and at which of its choices.

    Two with the same text are equal.  It says nothing without its scenario.

    Attributes:
        pairs: what is chosen at which place, where that is not 0; in their order.
        exact: whether a run must make all these choices, else `simulate` fails.
    """

    __slots__ = ("exact", "pairs")

    def __init__(self, text: str = "", *, exact: bool = True) -> None:
        """Read it from what a failure shows.

        Args:
            text: pairs as ``"5:1 12:3"``; empty for the undisturbed course.
            exact: False to leave out what a run cannot choose, as for those that Hypothesis draws.

        Raises:
            InvalidOption: it is none, or `exact` is no bool.
        """
        if not isinstance(exact, bool):
            raise InvalidOption("exact", exact, "True or False")
        self.pairs: Pairs = _parsed(text)
        self.exact: Final = exact

    @classmethod
    def of(cls, pairs: Pairs, *, exact: bool = True) -> Self:
        """Return the schedule of these pairs."""
        schedule = cls(exact=exact)
        schedule.pairs = _ordered(pairs)
        return schedule

    def __eq__(self, other: object) -> bool:
        """Return whether both say the same."""
        return isinstance(other, Schedule) and self.pairs == other.pairs

    def __hash__(self) -> int:
        """Return the hash of what it says."""
        return hash(str(self))

    def __str__(self) -> str:
        """Return what it can be read from."""
        return " ".join(f"{place}:{value}" for place, value in self.pairs.items())

    def __repr__(self) -> str:
        """Return what makes it."""
        exact = "" if self.exact else ", exact=False"
        return f"nsqlite.testing.Schedule({str(self)!r}{exact})"


def _parsed(text: object) -> Pairs:
    pairs: dict[int, int] = {}
    for pair in text.split() if isinstance(text, str) else [text]:
        place, colon, value = str(pair).partition(":")
        if not (colon and place.isdecimal() and value.isdecimal()):
            raise InvalidOption("replay", text, 'pairs of a choice and its outcome, as "5:1 12:3"')
        pairs[int(place)] = int(value)
    return _ordered(pairs)


def _ordered(pairs: Pairs) -> Pairs:
    """Return pairs in the order of their places, without those that say nothing."""
    return {place: pairs[place] for place in sorted(pairs) if pairs[place]}


class Choices:
    """The choices of one run, in their order.

    Attributes:
        count: how many there were.
        made: those that were not 0.
    """

    __slots__ = ("_pairs", "_random", "_rate", "count", "made")

    def __init__(self, pairs: Pairs | None, seed: str = "", usual: int = USUAL) -> None:
        """Begin.

        Args:
            pairs: what to choose; None to draw it.
            seed: what it is drawn from.
            usual: how many choices such a run has.
        """
        self.count: int = 0
        self.made: Final[dict[int, int]] = {}
        self._pairs: Final = pairs
        self._random: Final = Random(seed)  # noqa: S311 - chance with a seed
        self._rate: Final = self._random.choice(_DISTURBED) / max(usual, 2 * max(_DISTURBED))

    def choose(self, count: int) -> int:
        """Return a number below `count`; where there is nothing to choose from it is no choice."""
        if count == 1:
            return 0
        place, self.count = self.count, self.count + 1
        if self._pairs is not None:
            value = min(self._pairs.get(place, 0), count - 1)
        elif self._random.random() < self._rate:
            value = self._random.randrange(1, count)
        else:
            return 0
        if value:
            self.made[place] = value
        return value

    def missed(self) -> str:
        """Return in words which of the pairs the run has not chosen; empty if it has them all."""
        return "; ".join(
            f"choice {place} was never reached, there were {self.count}"
            if place >= self.count
            else f"choice {place} could not be {value}, its last alternative is {self.made[place]}"
            for place, value in (self._pairs or {}).items()
            if self.made.get(place) != value
        )


Run: TypeAlias = Callable[[Pairs], Pairs | None]
"""Plays a schedule, and returns what was really chosen if it fails, None if it does not."""


def shrunk(pairs: Pairs, run: Run, most: int) -> tuple[Pairs, int]:
    """Return the smallest schedule that is found to fail, too, and how many were tried.

    Fewer pairs are smaller than more, then lower numbers, then earlier places.

    Args:
        pairs: one that fails.
        run: plays one.
        most: how many to try at most.
    """
    best, tried = dict(pairs), {_key(pairs)}
    count = 0
    candidates = _smaller(best)
    while count < most and (candidate := next(candidates, None)) is not None:
        if _key(candidate) in tried or _size(candidate) >= _size(best):
            continue
        tried.add(_key(candidate))
        count += 1
        made = run(candidate)
        if made is not None and _size(made) < _size(best):
            best = dict(made)
            candidates = _smaller(best)
    return best, count


def _key(pairs: Pairs) -> tuple[tuple[int, int], ...]:
    return tuple(sorted(pairs.items()))


def _size(pairs: Pairs) -> tuple[int, int, int]:
    return len(pairs), sum(pairs.values()), sum(pairs)


def _smaller(pairs: Pairs) -> Iterator[dict[int, int]]:
    """Return schedules that are smaller, those first that are so by much."""
    places = sorted(pairs)
    many = len(places)
    size = many
    while size:
        for start in range(0, many, size):
            yield {place: pairs[place] for place in places[:start] + places[start + size :]}
        size //= 2
    for place in places:
        yield from (dict(pairs) | {place: value} for value in range(1, pairs[place]))
    for index, place in enumerate(places):
        before = places[index - 1] + 1 if index else 0
        for step in _steps(place - before):
            moved = places[index:]
            yield {at: pairs[at] for at in places[:index]} | {at - step: pairs[at] for at in moved}
            yield {at - step if at == place else at: pairs[at] for at in places}

    yield from _fewer_and_later(pairs)


def _fewer_and_later(pairs: Pairs) -> Iterator[dict[int, int]]:
    """Return schedules with a pair less, and the ones behind it a little later.

    Without it there may be other choices in between: what it has called off.
    """
    for gone in sorted(pairs):
        rest = {place: value for place, value in pairs.items() if place != gone}
        for first in [place for place in sorted(rest) if place > gone]:
            for step in range(1, _FURTHER):
                yield {at + step if at >= first else at: value for at, value in rest.items()}


def _steps(most: int) -> Iterator[int]:
    """Return by how much a place could be earlier: all the way, half of it, and so on, then 1."""
    while most > 1:
        yield most
        most //= 2
    yield from range(1, most + 1)


def schedules(*, max_disturbances: int = 4) -> "SearchStrategy[Schedule]":
    """Return a strategy of Hypothesis that draws schedules, for `simulate(..., replay=schedule)`.

        @hypothesis.given(nsqlite.testing.schedules())
        def test_stock(schedule):
            nsqlite.testing.simulate(scenario, replay=schedule)

    Hypothesis then looks for one that fails, makes it smaller and keeps it in its database.  It
    knows nothing of what a choice means: it also draws places after the end of the run, which do
    nothing, and numbers beyond the last alternative, which mean that one (so they are not
    `exact`); and the places move when an earlier choice changes the course.  So it needs more runs
    than `simulate` for the same bug.

    Args:
        max_disturbances: how many choices are not 0 at most.

    Raises:
        ImportError: Hypothesis is not installed.
        InvalidOption: `max_disturbances` is no whole number of at least 0.
    """
    whole("max_disturbances", max_disturbances, 0)
    from hypothesis import strategies  # noqa: PLC0415 - it is optional, and slow to load

    places: Any = strategies.integers(0, _LONGEST)
    pairs = strategies.dictionaries(places, strategies.integers(1, 4), max_size=max_disturbances)
    return pairs.map(lambda drawn: Schedule.of(drawn, exact=False))
