"""What every fault has that a test sets, on a wire or in a broker: when it strikes, and its end.

The rule: chance has a seed of its own in each fault, so that the same things in the same order are
struck again.

Next: testing/brokerfaults.py
"""

from collections.abc import Mapping
from random import Random
from types import TracebackType
from typing import Any, Final, Generic, Self, TypedDict, TypeVar

from nsqlite.errors import InvalidOption
from nsqlite.lock import make_lock
from nsqlite.options import unknown_option, whole


class Chance(TypedDict, total=False):
    """Which of the things that a fault can strike it does strike; by default all.

    nth: only the n-th that comes, counted from 1 since the fault was set.
    times: no more than so many.
    probability: each with this probability, 0 to 1.
    """

    nth: int
    times: int
    probability: float


class AnyFault:
    """Something that goes wrong until it is removed; in a ``with`` statement, until its end.

    Threads: any.

    Attributes:
        name: what it does, in words.
        count: how often it has struck.
    """

    def __init__(self, faults: "AnyFaults[Any, Any]", name: str) -> None:
        self.name = name
        self.count: int = 0
        self._faults: Final = faults
        self._random: Final = Random(f"{faults.seed}/{faults._number()}")  # noqa: S311 - chance with a seed
        self._seen = 0
        self._nth: int | None = None
        self._times: int | None = None
        self._probability = 1.0

    def _choose(self, options: Mapping[str, Any], known: type, *own: str) -> None:
        """Take note of what it strikes.

        Args:
            options: what is said of that.
            known: the TypedDict of all that can be.
            own: the names of what else the call takes, for an error.
        """
        for name in options:
            if name not in known.__annotations__:
                raise unknown_option("option", name, [*own, *known.__annotations__])
        if "nth" in options:
            self._nth = whole("nth", options["nth"], 1)
        if "times" in options:
            self._times = whole("times", options["times"], 1)
        probability = options.get("probability", 1.0)
        if not isinstance(probability, int | float) or not 0 <= probability <= 1:
            raise InvalidOption("probability", probability, "a number from 0 to 1")
        self._probability = probability

    def _is_due(self) -> bool:
        """Return whether it is to strike what has come now; one thread at a time."""
        if self._times is not None and self.count >= self._times:
            return False
        self._seen += 1
        if self._nth is not None and self._seen != self._nth:
            return False
        return self._probability >= 1 or self._random.random() < self._probability

    def _count(self) -> None:
        """Take note that it strikes."""
        self.count += 1

    def remove(self) -> None:
        """Have it strike no more; what it has delayed stays delayed."""
        self._faults._remove(self)

    def __enter__(self) -> Self:
        """Begin a block at whose end it is removed."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Remove it."""
        self.remove()

    def __repr__(self) -> str:
        """Show what it does, and how often it has struck."""
        return f"<Fault {self.name!r} count={self.count}>"


F = TypeVar("F", bound=AnyFault)
I = TypeVar("I")  # noqa: E741 - what was injected


class AnyFaults(Generic[F, I]):
    """Faults that are set, in the order in which they were.

    Threads: any.

    Attributes:
        seed: what chance begins with.
    """

    def __init__(self, seed: int = 0) -> None:
        """Begin without any; `seed`: see the class."""
        self.seed: Final = whole_seed(seed)
        self._set: tuple[F, ...] = ()
        self._made = 0
        self._lock: Final = make_lock(rank=2)  # guards these; nothing is called inside
        self._injected: Final[list[I]] = []

    def clear(self) -> None:
        """Remove all."""
        with self._lock:
            self._set = ()

    def _number(self) -> int:
        """Return the number of a new fault."""
        with self._lock:
            self._made += 1
            return self._made

    def _add(self, fault: F) -> F:
        with self._lock:
            self._set = (*self._set, fault)
        return fault

    def _remove(self, fault: AnyFault) -> None:
        with self._lock:
            self._set = tuple(one for one in self._set if one is not fault)

    @property
    def active(self) -> tuple[F, ...]:
        """Those that are set, in the order in which they were."""
        return self._set

    @property
    def injected(self) -> tuple[I, ...]:
        """What was struck, the oldest first."""
        return tuple(self._injected)

    def __repr__(self) -> str:
        """Show those that are set."""
        return f"<{type(self).__name__} {[fault.name for fault in self._set]}>"


def whole_seed(seed: object) -> int:
    """Return what chance begins with.

    Raises:
        InvalidOption: it is no whole number.
    """
    if not isinstance(seed, int):
        raise InvalidOption("seed", seed, "a whole number")
    return seed


def checked(what: str, known: frozenset[str]) -> frozenset[str]:
    """Return what can be struck as a set.

    Raises:
        InvalidOption: it cannot be, or not in this way.
    """
    if what not in tuple(known):  # compared: it may have no hash
        raise unknown_option("what", what, known)
    return frozenset({what})
