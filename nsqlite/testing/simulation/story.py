"""What a simulation tells: the faults that there are, the steps of a run, and why it fails.

The rule: a failure is enough to understand it: what happened, in order, and what plays it again.

Next: testing/simulation/loop.py
"""

from collections.abc import Iterable
from typing import Final, Literal, NamedTuple, get_args

from nsqlite.errors import NSQLiteError, shown
from nsqlite.testing.simulation.schedule import Schedule

FaultKind = Literal["reorder", "deliver twice", "drop", "slow", "time out", "fill disk", "jump"]
"""What can go wrong in a simulation; those that `BrokerFaults` has, too, have its names.

reorder: a message comes that is not the next.
deliver twice: a consumer dies after its work and before FIN, so its message comes again.
drop: a consumer is dropped in the middle of its message: at `work`, or after a put.
slow: `work` takes twice as long.
time out: `work` takes longer than the message has; not where the worker touches it by itself.
fill disk: a handler's put raises `StoreFull`, and has put nothing.
jump: while a handler works the clock jumps, by a little more than the longest `msg_timeout`; its
    message times out where the worker does not touch it by itself.
"""

FAULT_KINDS: Final[frozenset[FaultKind]] = frozenset(get_args(FaultKind))


class Deadlock(NSQLiteError):
    """Nobody in a simulation can go on, and no deadline is left.

    Attributes:
        waiting: who waits for what, a line each.
    """

    def __init__(self, waiting: Iterable[str]) -> None:
        self.waiting: Final = tuple(waiting)
        super().__init__(self.waiting)

    def __str__(self) -> str:
        return "nobody can go on: " + "; ".join(self.waiting)


class NeverIdle(NSQLiteError):
    """A run of a simulation did not come to an end.

    Attributes:
        limit: after how many steps it was ended.
        left: what was still to do, a line each.
    """

    def __init__(self, limit: int, left: Iterable[str]) -> None:
        self.limit: Final = limit
        self.left: Final = tuple(left)
        super().__init__(limit, self.left)

    def __str__(self) -> str:
        return f"not idle after {self.limit} steps: " + ("; ".join(self.left) or "it still runs")


class NotRepeatable(NSQLiteError):
    """The same choices have made another run: something chooses that the simulation does not know.

    Attributes:
        before: the first step that differs, as it was.
        now: what came instead.
    """

    def __init__(self, before: str, now: str) -> None:
        super().__init__(before, now)
        self.before: Final = before
        self.now: Final = now

    def __str__(self) -> str:
        return (
            "the same choices made another run: the scenario must be played anew by each call, and"
            " use no time, no chance without a seed and no thread of its own;"
            f" before: {self.before}; now: {self.now}"
        )


class StaleReplay(NSQLiteError):
    """A replay does not fail, and not all of its choices could be made.

    Attributes:
        missed: which, in words.
    """

    def __init__(self, missed: str) -> None:
        super().__init__(missed)
        self.missed: Final = missed

    def __str__(self) -> str:
        return f"{self.missed}: the scenario has changed, or the line is of another one"


class NotAwaited(NSQLiteError):
    """A coroutine function has called `Simulation.work` without `await`, so no time has passed.

    Attributes:
        who: the slot whose handler did it.
        seconds: what it gave to `work`.
    """

    def __init__(self, who: str, seconds: float) -> None:
        super().__init__(who, seconds)
        self.who: Final = who
        self.seconds: Final = seconds

    def __str__(self) -> str:
        call = f"sim.work({self.seconds:g})"
        return f"the handler in {self.who} did not await {call}: in a coroutine, await {call}"


class NotScheduled(NSQLiteError):
    """A call that has handlers run, where the schedule of a simulation decides which do.

    Attributes:
        call: what was called.
    """

    def __init__(self, call: str) -> None:
        super().__init__(call)
        self.call: Final = call

    def __str__(self) -> str:
        return f"{self.call} runs nothing in a simulation, where the schedule decides: sim.run()"


_AT_AN_END: Final = 40
"""How many steps of a long story its text shows at its beginning, and at its end."""

_WIDTH: Final = 100
"""How many columns a step has in the text of a story."""

_SHOWN: Final = 40
"""How many columns a body or an error has in a step."""


def short(value: object) -> str:
    """Return what a step shows of a body or an error."""
    return _cut(shown(value), _SHOWN)


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width - 1]}…"


class Step(NamedTuple):
    """One thing that happened in a run.

    Attributes:
        time: seconds since its beginning.
        who: who did it.
        what: what, in words.
        struck: whether it is a fault, or a turn that went to somebody else than usual.
    """

    time: float
    who: str
    what: str
    struck: bool

    def __str__(self) -> str:
        return f"{self.time:9.3f} s {'!' if self.struck else ' '} {self.who}: {self.what}"


class SimulationFailed(AssertionError):
    """A scenario fails under a schedule; the cause is what it raised.

    Attributes:
        schedule: the smallest that was found.
        steps: what happened under it, all of it; the text leaves out the middle of a long story.
        line: what plays it again.
    """

    def __init__(self, found: str, schedule: Schedule, steps: tuple[Step, ...], line: str) -> None:
        super().__init__(found, schedule, steps, line)
        self._found: Final = found
        self.schedule: Final = schedule
        self.steps: Final = steps
        self.line: Final = line

    def __str__(self) -> str:
        story = "\n".join(_story(self.steps))
        return f"{self._found}\n\n{story}\n\nTo play it again:\n    {self.line}"


def _story(steps: tuple[Step, ...]) -> list[str]:
    """Return the lines of a story; of a long one those at its beginning and its end."""
    more = len(steps) - 2 * _AT_AN_END
    if more <= 1:
        return _numbered(steps, 1)
    begin, end = steps[:_AT_AN_END], steps[-_AT_AN_END:]
    left_out = f"      … {more:,} more steps, see .steps …"
    return [*_numbered(begin, 1), left_out, *_numbered(end, _AT_AN_END + more + 1)]


def _numbered(steps: tuple[Step, ...], first: int) -> list[str]:
    return [_cut(f"{number:4}. {step}", _WIDTH) for number, step in enumerate(steps, first)]
