"""A simulation: a scenario, played under thousands of schedules of faults and interleavings.

The rule: whatever could go otherwise in a run is a choice, each choice has an undisturbed outcome,
and the same choices make the same run.

    a choice                      the alternatives
    who goes on                   any other actor that can, or a slot that gets a message
    which message comes           one further behind (reorder)
    nobody can go on              the clock jumps beyond the next deadline
    a handler works or waits      takes twice as long; beyond its time-out; its consumer is dropped
    a handler puts                the disk is full; its consumer is dropped after the put
    a handler has returned        its consumer dies before FIN, and the message comes twice

The objects are those of a program: a `FakeBroker`, its topics and channels, and what a `Worker` is
made of, so that retries, backoff, dead letters, middleware and limits are what they always are.
Only the threads are others (turns.py), and the clock, on which a wait gives others the turn.

Next: testing/memorystorage.py
"""

import logging
from collections import Counter
from collections.abc import (
    AsyncGenerator,
    Awaitable,
    Callable,
    Coroutine,
    Generator,
    Iterable,
    Iterator,
)
from contextlib import contextmanager
from functools import partial
from inspect import CORO_CREATED, getcoroutinestate, unwrap
from itertools import zip_longest
from threading import get_ident
from types import FunctionType
from typing import (
    TYPE_CHECKING,
    Any,
    Final,
    NamedTuple,
    NoReturn,
    Self,
    TypeVar,
    Unpack,
    cast,
)

import attrs

from nsqlite.clock import NEVER, Alarm, Loop, Semaphore
from nsqlite.errors import Closed, InvalidName, InvalidOption, StoreFull
from nsqlite.events import Event, Kind
from nsqlite.message import T
from nsqlite.options import SECOND, Seconds, TopicOptions, nanoseconds, whole
from nsqlite.testing.anyfault import whole_seed
from nsqlite.testing.brokerfaults import FaultyTopic
from nsqlite.testing.fakebroker import FakeBroker
from nsqlite.testing.idle import never
from nsqlite.testing.manualclock import ManualClock
from nsqlite.testing.simulation.schedule import Choices, Pairs, Schedule, shrunk
from nsqlite.testing.simulation.story import (
    FAULT_KINDS,
    Deadlock,
    FaultKind,
    NeverIdle,
    NotAwaited,
    NotRepeatable,
    NotScheduled,
    SimulationFailed,
    StaleReplay,
    Step,
    short,
)
from nsqlite.testing.simulation.turns import (
    NOTHING,
    PLACE,
    Actor,
    Dropped,
    Place,
    Pool,
    Turns,
    at_once,
)
from nsqlite.topic import Topic

if TYPE_CHECKING:
    from nsqlite.persistence import TopicPersistence
    from nsqlite.testing.simulation.loop import SimLoop
    from nsqlite.testing.simulation.workers import SimWorker
    from nsqlite.worker import App, Worker
    from nsqlite.worker.plan import WorkerOptions

R = TypeVar("R")

MARGIN: Final = SECOND
"""How much later than a time-out is too late."""

_WINDOW: Final = 3
"""From how many messages at the head of a channel a reorder chooses."""

SHRINKS: Final = 500
"""How many smaller schedules are tried of one that fails."""

log: Final = logging.getLogger("nsqlite")


class SimClock(ManualClock):
    """A manual clock on which a wait gives others the turn."""

    def __init__(self, simulation: "Simulation") -> None:
        super().__init__()
        self.simulation: Final = simulation

    def wait(self, semaphore: Semaphore, moment: int | None, who: str) -> bool:
        """See `Clock.wait`."""
        return self.simulation._wait(semaphore, moment, who)

    def _run(self, limit: Seconds, call: str, done: Callable[[], bool] = never) -> NoReturn:  # noqa: ARG002
        """Refuse it; see `ManualClock`."""
        raise self.simulation._refused(call)

    def _runs(self, timeout: int | None) -> bool:  # noqa: ARG002
        """Return whether some do that the schedule does not run; else who joins gives turns."""
        return bool(self._runners())


class SimTopic(FaultyTopic[T]):
    """A topic whose puts are where others get the turn, and where faults strike."""

    __slots__ = ()

    def put(self, body: T, delay: Seconds | None = None, timeout: Seconds | None = None) -> str:
        """See `Topic.put`."""
        put = super().put
        return _simulation(self)._put(self.name, short(body), lambda: put(body, delay, timeout))

    def put_many(
        self, bodies: Iterable[T], *, delay: Seconds | None = None, timeout: Seconds | None = None
    ) -> list[str]:
        """See `Topic.put_many`."""
        put, batch = super().put_many, list(bodies)
        what = f"{len(batch)} messages"
        return _simulation(self)._put(
            self.name, what, lambda: put(batch, delay=delay, timeout=timeout)
        )


def _simulation(topic: Topic[Any]) -> "Simulation":
    clock = topic._clock
    assert isinstance(clock, SimClock)
    return clock.simulation


class SimBroker(FakeBroker):
    """A fake broker whose topics are those of a simulation."""

    def _new_topic(
        self, name: str, kept: "TopicPersistence | None", options: TopicOptions
    ) -> SimTopic[Any]:
        """See `Broker`."""
        return SimTopic(self.faults, name, home=self, persistence=kept, **options)

    def _standing(self, call: str, *, raise_first: bool = False) -> NoReturn:  # noqa: ARG002
        """Refuse it; see `FakeBroker`."""
        assert isinstance(self.clock, SimClock)
        raise self.clock.simulation._refused(call)


class _Move(NamedTuple):
    """What could happen next: `go` does it, and returns the actor that goes on, if one does."""

    go: Callable[[], Actor | None]
    what: str
    kind: FaultKind | None


@attrs.frozen(kw_only=True)
class Settings:
    """What a simulation was told.

    Attributes:
        faults: what may go wrong.
        max_faults: how often in one run.
        limit: how many steps a run may take.
    """

    faults: frozenset[str] = FAULT_KINDS
    max_faults: int = 3
    limit: int = 10_000


class Simulation:
    """One run of a scenario.

    Threads: only what it runs itself.

    Attributes:
        broker: a `FakeBroker` on its clock, with its history.
        clock: moves on when nobody can do anything before the next deadline.
    """

    def __init__(self, choices: Choices, settings: Settings, pool: Pool) -> None:
        """Begin; the calling thread is to play the scenario."""
        self.clock: Final = SimClock(self)
        self.broker: Final = SimBroker(clock=self.clock, observers=(self._hear,))
        self._choices: Final = choices
        self._settings: Final = settings
        self._turns: Final = Turns(pool, self._decide)
        self._loop: SimLoop | None = None
        self._workers: Final[list[SimWorker]] = []
        self._apps: Final[list[App]] = []
        self._works: Final[list[tuple[Place | None, int, Coroutine[Any, Any, None]]]] = []
        self._steps: Final[list[Step]] = []
        self._struck: Final[Counter[str]] = Counter()
        self._decisions = 0
        self._last: Actor | None = None
        self._in_loop = False
        self._is_over = False

    # What a scenario calls

    def worker(
        self,
        topic: str,
        channel: str,
        handler: Callable[..., Any],
        **options: "Unpack[WorkerOptions]",
    ) -> "Worker":
        """Have a channel's messages handled, as by a `Worker` that was started.

        Its `stats` and `join` can be used; it ends with the run.

        Args:
            topic: the topic's name.
            channel: the channel's name.
            handler: called with each message, a plain or a coroutine function.
            options: as for `Worker`.  A jitter without a seed has the seed 0 here.

        Raises:
            InvalidName, InvalidOption: as for `Broker.topic`, `Topic.channel` and `Worker`.
        """
        from nsqlite.worker import Worker  # noqa: PLC0415 - loads asyncio

        worker = Worker(self.broker.topic(topic).channel(channel), handler, **options)
        self._employ(worker)
        return worker

    def start(self, app: "App") -> None:
        """Bind an app, as it is, to the broker, and have its handlers called.

        Raises:
            InvalidOption, Closed: as for `App.running`.
        """
        app._require_unbound()
        self._apps.append(app)
        app._bind(self.broker)
        for worker in app.workers:
            self._employ(worker)

    def _employ(self, worker: "Worker") -> None:
        from nsqlite.testing.simulation.workers import SimWorker  # noqa: PLC0415 - loads asyncio

        self._workers.append(SimWorker(self, worker))

    def spawn(self, function: Callable[[], object], name: str = "") -> None:
        """Have a plain function run beside the scenario, as a thread of a program would.

        What it raises fails the run.

        Raises:
            InvalidOption: it is none; in a handler this fails the run.
            Closed: the run is over.
        """
        self._require_running()
        with self._misuse():
            _require_plain("function", function, 0, _PLAIN)
        name = name or getattr(function, "__name__", "an actor")
        self._turns.add(Actor(name, lambda: _require_run("function", function, function())))

    def put(self, topic: str, body: Any, delay: Seconds | None = None) -> str:
        """Publish a message to a topic of the broker; see `Topic.put`.

        Raises:
            InvalidName, InvalidOption: as there; in a handler they fail the run.
        """
        with self._misuse():
            return self.broker.topic(topic).put(body, delay)

    def work(self, seconds: Seconds = 0.0) -> Awaitable[None]:
        """Let so much time pass for the caller, while others go on.

        In a handler this is where it can be slow, time out, or be dropped.  A coroutine function
        awaits it, else the run fails; a plain function need not.

        Raises:
            InvalidOption: the number is negative or not finite; in a handler it fails the run.
            Closed: the run is over.
        """
        self._require_running()
        with self._misuse():
            step = nanoseconds("seconds", seconds)
        if self._in_loop:
            work = self._work_in_loop(step)
            self._works.append((PLACE.get(), step, work))
            return work
        step = self._begin_work(step)
        self._sleep(step, f"works for {step / SECOND:g} s")
        return NOTHING

    @contextmanager
    def _misuse(self) -> Iterator[None]:
        """Fail the run if a handler calls with what can never be right: no retry helps there."""
        try:
            yield
        except (InvalidName, InvalidOption) as error:
            if PLACE.get() is not None:
                self._turns.fail(error)
            raise

    def _require_awaited(self) -> None:
        """Fail the run if the handler that has just ended did not await what `work` returned."""
        place = PLACE.get()
        its = [(step, work) for caller, step, work in self._works if caller is place]
        self._works[:] = [one for one in self._works if one[0] is not place]
        for step, work in its:
            begun = getcoroutinestate(work) != CORO_CREATED
            if not begun and not self._require_loop().has_task(work):
                work.close()
                self._turns.fail(NotAwaited(self._who(), step / SECOND))

    async def _work_in_loop(self, step: int) -> None:
        assert self._loop is not None
        await self._loop.sleep(self._begin_work(step))

    def run(self, app: "App | None" = None) -> None:
        """Run until nothing is left to do for the workers, their retries and deferrals included.

        What lies in channels without a worker stays there.

        Args:
            app: started first; see `start`.

        Raises:
            Deadlock: nobody can go on.
            NeverIdle: it takes too many steps.
            Closed: the run is over.
        """
        self._require_running()
        if app is not None:
            self.start(app)
        self._turns.wait("", self._is_idle)

    def _require_running(self) -> None:
        if self._is_over:
            raise Closed("the simulation", "over")

    # What its parts call

    def _refused(self, call: str) -> NotScheduled:
        """Fail the run for a call that would have handlers run, and return the error."""
        error = NotScheduled(call)
        self._turns.fail(error)  # a handler that raises it would only be tried again
        return error

    def _tell(self, what: str, *, who: str = "", struck: bool = False) -> None:
        """Add a step to the story."""
        self._steps.append(Step(self.clock._elapsed / SECOND, who or self._who(), what, struck))

    def _who(self) -> str:
        place = PLACE.get()
        return self._turns.current.name if place is None else place.name

    def _hear(self, event: Event) -> None:
        """Tell of what nobody does."""
        if event.kind == Kind.TIMED_OUT:
            self._tell(f"{short(event.body)} times out", who=f"{event.topic}:{event.channel}")

    def _strike(self, *kinds: FaultKind) -> FaultKind | None:
        """Choose whether one of these faults strikes now."""
        possible = [kind for kind in kinds if self._may_strike(kind)]
        chosen = self._choices.choose(1 + len(possible))
        if not chosen:
            return None
        self._struck[possible[chosen - 1]] += 1
        return possible[chosen - 1]

    def _may_strike(self, kind: str) -> bool:
        settings = self._settings
        return kind in settings.faults and self._struck.total() < settings.max_faults

    def _begin_work(self, step: int) -> int:
        """Return how long something takes, in nanoseconds.

        Raises:
            Dropped: not so long.
        """
        place = PLACE.get()
        if place is None:
            return step
        kinds: list[FaultKind] = ["slow"] if step else []
        kinds += ["time out"] if place.expires else []
        kind = self._strike(*kinds, "drop")
        if kind == "slow":
            self._tell(
                f"is slow: takes {2 * step / SECOND:g} s instead of {step / SECOND:g} s",
                struck=True,
            )
            return 2 * step
        if kind == "time out":
            step += place.expires + MARGIN
            self._tell(f"is stuck: takes {step / SECOND:g} s", struck=True)
        if kind == "drop":
            self._drop()
        return step

    def _drop(self) -> None:
        error = Dropped()
        if not self._in_loop:
            self._turns.current.cancellation = error
        raise error

    def _sleep(self, step: int, why: str) -> None:
        """Give others the turn for so many nanoseconds."""
        moment = self.clock._elapsed + step
        self._wait_until(moment if step else NEVER, why, lambda: self.clock._elapsed >= moment)

    def _wait_until(self, moment: int, why: str, can_go: Callable[[], bool]) -> None:
        """Give others the turn; have the clock stop at a moment on its way, `NEVER` for none."""
        alarm = None if moment == NEVER else self._alarm(moment)
        try:
            self._turns.wait(why, can_go)
        finally:
            if alarm is not None:
                alarm.cancel()

    def _alarm(self, moment: int) -> Alarm:
        """Have the clock stop at a moment on its way."""
        return self.clock.alarm(_NO_LOOP, moment, _do_nothing)

    def _switch(self) -> None:
        """Let others have the turn, if the schedule says so."""
        if not self._in_loop:
            self._last = self._turns.current
            self._turns.wait("", at_once)

    def _wait(self, semaphore: Semaphore, moment: int | None, who: str) -> bool:
        """See `Clock.wait`."""
        if get_ident() != self._turns.current.thread:
            raise self._blocked(f"{who}, in a thread that is none of the simulation's: see `spawn`")
        if self._in_loop:
            raise self._blocked(f"{who} blocks the event loop in which it was called: await it")
        due = NEVER if moment is None else moment
        woken = False

        def can_go() -> bool:
            nonlocal woken
            woken = woken or semaphore.acquire(False)
            return woken or self.clock._elapsed >= due

        if not can_go():
            self._tell(f"waits in {who}")
        self._wait_until(due, who, can_go)
        return woken

    def _blocked(self, why: str) -> Deadlock:
        """Fail the run for a wait that nobody would end, and return the error."""
        error = Deadlock([why])
        self._turns.fail(error)
        return error

    def _put(self, topic: str, what: str, put: Callable[[], R]) -> R:
        """Put, with a turn for others before it and after it."""
        handles = PLACE.get() is not None
        if handles and self._strike("fill disk"):
            self._tell(f"puts {what} to {topic}, and the disk is full", struck=True)
            raise StoreFull("of the simulation", "the disk is full")
        self._switch()
        put_ = put()
        self._tell(f"puts {what} to {topic}")
        if handles and self._strike("drop"):
            self._drop()
        self._switch()
        return put_

    def _require_loop(self) -> "SimLoop":
        """Return the event loop of its coroutines."""
        if self._loop is None:
            from nsqlite.testing.simulation.loop import SimLoop  # noqa: PLC0415 - loads asyncio

            self._loop = SimLoop(self.clock, self._turns.fail)
        return self._loop

    # What happens next

    def _is_idle(self) -> bool:
        others = len(self._turns.actors) > 1 or (self._loop is not None and self._loop.is_busy())
        return not others and all(worker.is_idle() for worker in self._workers)

    def _decide(self) -> Actor:
        """Let things happen until an actor is to go on; return it."""
        token = PLACE.set(None)  # what happens is not done by whoever decides
        try:
            return self._next()
        finally:
            PLACE.reset(token)

    def _next(self) -> Actor:
        while True:
            self._decisions += 1
            if self._decisions > self._settings.limit:
                raise NeverIdle(self._settings.limit, self._left())
            for worker in self._workers:
                worker.look()
            moves = self._moves()
            if moves:
                actor = self._move(moves)
                if actor is not None or self._turns.main.cancellation is not None:
                    return actor or self._turns.main
            elif not self._let_time_pass():
                raise Deadlock(self._waiting())

    def _move(self, moves: list[_Move]) -> Actor | None:
        """Let one of several things happen."""
        chosen = self._choices.choose(len(moves))
        move = moves[chosen]
        self._last = None
        if chosen and move.kind is not None:
            self._struck[move.kind] += 1
        if chosen and move.what:
            self._tell(move.what, who="schedule", struck=True)
        return move.go()

    def _moves(self) -> list[_Move]:
        """Return what could happen next; the first is what usually does."""
        moves = [self._turn_of(actor) for actor in self._able()]
        if self._loop is not None and self._loop.is_busy():
            moves.append(_Move(self._go_round, "the event loop goes round first", None))
        reorders = self._may_strike("reorder")
        for worker in self._workers:
            for place in range(min(worker.ready(), _WINDOW if reorders else 1)):
                kind: FaultKind | None = "reorder" if place else None
                what = f"{worker.name} gets {worker.shown(place)} first"
                moves.append(_Move(partial(worker.deliver, place), what, kind))
        return moves

    def _let_time_pass(self) -> bool:
        """Move on to the next deadline, or far beyond it; return False if there is none."""
        if any(worker.is_at_work() for worker in self._workers) and self._strike("jump"):
            step = max(worker.timeout for worker in self._workers) + MARGIN
            self._tell(f"the clock jumps by {step / SECOND:g} s", who="schedule", struck=True)
            self.clock._advance(step)
            return True
        return self.clock.advance_to_next() is not None

    def _able(self) -> list[Actor]:
        """Return the actors that can go on: the one that had the turn, then who waits longest."""
        able = [actor for actor in self._turns.actors if actor.can_go()]
        able.sort(key=lambda actor: (actor is not self._last, actor.turn))
        return able

    def _turn_of(self, actor: Actor) -> _Move:
        return _Move(lambda: actor, f"{actor.name} goes on first", None)

    def _go_round(self) -> None:
        assert self._loop is not None
        self._in_loop = True
        try:
            self._loop.run_once()
        finally:
            self._in_loop = False

    def _waiting(self) -> list[str]:
        """Return who waits for what."""
        waiting = [f"{one.name} waits in {one.why}" for one in self._turns.actors if one.why]
        puts = [
            topic._wait_in_words(putter)
            for topic in self.broker.topics.values()
            for putter in topic._monitor.putters
        ]
        return [*waiting, *puts, *self._left()]

    def _left(self) -> list[str]:
        return list(filter(None, (worker.left() for worker in self._workers)))

    def _close(self) -> None:
        """End what still runs."""
        self._turns.close()
        if not self._turns.lost:
            self._in_loop = True  # nobody gets the turn any more
            if self._loop is not None:
                self._loop.end()
            for _, _, work in self._works:
                work.close()  # what was dropped did not come to await it
            for worker in self._workers:
                worker.end()
            self.broker.close()
        for app in self._apps:
            app._forget()
        self._is_over = True


def _do_nothing() -> None:
    """Stand for what a moment is needed for."""


_NO_LOOP: Final = cast("Loop", None)
"""The event loop of a manual clock's alarm that belongs to none."""


@attrs.frozen(kw_only=True)
class Simulated:
    """What a simulation has played, none of which failed.

    Attributes:
        schedules: how many.
        different: how many of them were not the same as another one.
        choices: how many choices there were in all.
        struck: how often each kind of fault has struck.
    """

    schedules: int
    different: int
    choices: int
    struck: Counter[str]


class _Run(NamedTuple):
    """One run that is over.

    Attributes:
        made: what was chosen.
        choices: how many choices there were.
        steps: what happened.
        struck: which faults have struck.
        error: why it failed, None if it did not.
    """

    made: Pairs
    choices: int
    steps: tuple[Step, ...]
    struck: Counter[str]
    error: BaseException | None


class _Player:
    """Plays a scenario again and again.

    Threads: the one that made it.
    """

    def __init__(self, scenario: Callable[[Simulation], object], settings: Settings) -> None:
        self._scenario: Final = scenario
        self._settings: Final = settings
        self._pool: Final = Pool()
        self._is_lost = False
        self._silent = True

    def __enter__(self) -> Self:
        """Log nothing of what is only tried."""
        log.addFilter(self._passes)
        return self

    def __exit__(self, *_raised: object) -> None:
        """End the threads."""
        log.removeFilter(self._passes)
        self._pool.close(wait=not self._is_lost)

    def _passes(self, _record: logging.LogRecord) -> bool:
        return not self._silent

    def play(self, choices: Choices, *, silent: bool = True) -> _Run:
        """Play one schedule.

        Raises:
            BaseException: the scenario was interrupted, as by Ctrl-C.
        """
        __tracebackhide__ = True
        self._silent = silent
        simulation = Simulation(choices, self._settings, self._pool)
        try:
            error = self._error(simulation)
        finally:
            self._silent = True  # that it ends what it has left is no news
            simulation._close()
            self._is_lost = self._is_lost or simulation._turns.lost
        steps, struck = tuple(simulation._steps), simulation._struck
        return _Run(dict(choices.made), choices.count, steps, struck, error)

    def _error(self, simulation: Simulation) -> BaseException | None:
        """Return why a run fails, if it does.

        Raises:
            InvalidOption: the scenario has only made a coroutine or a generator.
        """
        __tracebackhide__ = True
        try:
            result = self._scenario(simulation)
        except BaseException as error:
            cancellation = simulation._turns.main.cancellation
            if cancellation is not None:
                return cancellation
            if not isinstance(error, Exception):
                raise
            traceback = error.__traceback__
            return error.with_traceback(traceback and traceback.tb_next)
        _require_run("scenario", self._scenario, result)
        return simulation._turns.main.cancellation

    def repeat(self, run: _Run, *, silent: bool = True) -> _Run:
        """Play what a run chose, and return that run; its error tells if it is not the same."""
        __tracebackhide__ = True
        again = self.play(Choices(run.made), silent=silent)
        before, now = map(_course, (run, again))
        for one, other in zip_longest(before, now, fillvalue="the end"):
            if one != other:
                return again._replace(error=NotRepeatable(one, other))
        return again

    def smallest(self, run: _Run, most: int) -> tuple[_Run, int]:
        """Return the smallest run found to fail in the same way, and how many were tried."""
        kind = type(run.error)

        def fails(pairs: Pairs) -> Pairs | None:
            tried = self.play(Choices(pairs))
            return tried.made if type(tried.error) is kind else None

        pairs, count = shrunk(run.made, fails, most)
        smallest = self.play(Choices(pairs))
        return (smallest if smallest.error is not None else run), count


def _course(run: _Run) -> list[str]:
    """Return what must be the same when the same is chosen."""
    error = run.error
    return [*map(str, run.steps), "no error" if error is None else type(error).__name__]


def simulate(
    scenario: Callable[[Simulation], object],
    *,
    schedules: int = 1000,
    seed: int = 0,
    faults: Iterable[FaultKind] = FAULT_KINDS,
    max_faults: int = 3,
    limit: int = 10_000,
    replay: str | Schedule | None = None,
) -> Simulated:
    """Play a scenario under many schedules of faults and interleavings, and fail if one fails.

    What a handler raises is a failure of its message alone, as in every worker; but an
    `AssertionError` fails the run.

        def scenario(sim):
            stock = {"tea": 10}

            def sell(message):
                stock["tea"] -= 1

            sim.worker("orders", "billing", sell)
            sim.put("orders", "one tea")
            sim.run()
            assert stock["tea"] == 9

        nsqlite.testing.simulate(scenario)

    The first schedule is the undisturbed one, the others are drawn.  When one fails, smaller ones
    are tried, and `SimulationFailed` tells what happened under the smallest that fails with the
    same kind of exception, and the line that plays it again.

    Handlers run in threads, one at a time: others get the turn only where it works
    (`Simulation.work`), puts, answers, or waits on the broker's clock.  So what it does between
    these is never interrupted, and what blocks otherwise, as a lock or a socket, blocks the run.
    Coroutine functions run in an event loop of the simulation, on its clock; sockets, executors and
    subprocesses are not there.  Whatever else decides, as chance without a seed, the time of day or
    a thread, makes a run that cannot be repeated, and is reported as that where it is noticed.

    Args:
        scenario: called with a `Simulation` for each run; makes all that it uses anew, and raises
            if what must hold does not.
        schedules: how many to play.
        seed: what they are drawn from: the same seed draws the same ones.
        faults: what may go wrong; see `FaultKind`.  None at all leaves the interleavings.
        max_faults: how many faults may strike in one run.
        limit: how many steps a run may take.
        replay: play this one schedule, as a failure has shown it, and no other.  If it does not
            fail, and a choice of it cannot be made, that is a failure, too (`Schedule.exact`).

    Returns:
        What was played.

    Raises:
        SimulationFailed: the scenario has failed; its cause is what it raised.
        InvalidOption: an argument is of the wrong kind or out of its range, or the scenario has
            only made a coroutine or a generator.
    """
    __tracebackhide__ = True
    _require_plain("scenario", scenario, 1, f"{_PLAIN} of a Simulation")
    settings = Settings(
        faults=_checked(faults),
        max_faults=whole("max_faults", max_faults, 0),
        limit=whole("limit", limit, 1),
    )
    whole("schedules", schedules, 1)
    whole_seed(seed)
    with _Player(scenario, settings) as player:
        if replay is not None:
            schedule = replay if isinstance(replay, Schedule) else Schedule(replay)
            run, found = _replayed(player, scenario, schedule)
            result = _summary([run])
        else:
            result, run, found = _search(player, scenario, schedules, seed)
    if run.error is not None:
        if not isinstance(run.error, StaleReplay):
            schedule = Schedule.of(run.made)
        line = _line(scenario, settings, schedule)
        found += f": {type(run.error).__name__}: {run.error}"
        raise SimulationFailed(found, schedule, run.steps, line) from run.error
    return result


def _replayed(
    player: _Player, scenario: Callable[[Simulation], object], schedule: Schedule
) -> tuple[_Run, str]:
    """Play one schedule; return the run, and what was found."""
    __tracebackhide__ = True
    choices = Choices(schedule.pairs)
    run = player.play(choices, silent=False)
    missed = choices.missed() if schedule.exact else ""
    if not missed:
        return run, f"{_name(scenario)} fails"
    if run.error is not None:
        return run, f"{_name(scenario)} fails, though {missed}"
    return run._replace(error=StaleReplay(missed)), f"{_name(scenario)} does not fail"


def _require_plain(option: str, function: object, count: int, expected: str) -> None:
    from nsqlite.worker.handler import is_plain  # noqa: PLC0415 - loads asyncio

    if not is_plain(function, count):
        raise InvalidOption(option, function, expected)


_PLAIN: Final = "a plain function"


def _require_run(option: str, function: object, result: object) -> None:
    """Check that what a function has returned does not have to be run yet."""
    if isinstance(result, Coroutine | Generator | AsyncGenerator):
        if not isinstance(result, AsyncGenerator):
            result.close()
        raise InvalidOption(option, function, f"{_PLAIN} that returns no coroutine or generator")


def _checked(faults: object) -> frozenset[str]:
    wanted = [faults] if isinstance(faults, str) else faults
    if not isinstance(wanted, Iterable):
        raise InvalidOption("faults", faults, f"some of {', '.join(_NAMES)}")
    kinds = list(wanted)
    for fault in kinds:
        if fault not in _NAMES:
            raise InvalidOption("faults", fault, f"one of {', '.join(_NAMES)}{_nearest(fault)}")
    return frozenset(kinds)


_NAMES: Final = sorted(FAULT_KINDS)


def _nearest(fault: object) -> str:
    """Return which fault may be meant, by its name or by a word of it."""
    by_word = {word: name for name in _NAMES for word in (*name.split(), name)}
    from difflib import get_close_matches  # noqa: PLC0415 - errors may be slow, importing must not

    near = get_close_matches(str(fault), by_word, 1)
    return f" (did you mean {by_word[near[0]]!r}?)" if near else ""


def _name(scenario: Callable[[Simulation], object]) -> str:
    return str(getattr(scenario, "__name__", type(scenario).__name__))


def _what(scenario: Callable[[Simulation], object]) -> str:
    """Return what a scenario is, and where."""
    function: Any = scenario.func if isinstance(scenario, partial) else scenario
    function = unwrap(getattr(function, "__func__", function))
    if not isinstance(function, FunctionType):
        function = type(function).__call__
    code = getattr(function, "__code__", None)
    where = "" if code is None else f" at {code.co_filename}:{code.co_firstlineno}"
    return f"{function.__qualname__}{where}"


def _line(scenario: Callable[[Simulation], object], settings: Settings, schedule: Schedule) -> str:
    """Return what plays a schedule again, where the scenario has its name.

    Of one that has none, or has it only in another function, it says where it is.
    """
    has_name = isinstance(scenario, FunctionType) and _name(scenario).isidentifier()
    is_global = has_name and "<locals>" not in scenario.__qualname__
    usual = Settings()
    options = [f"replay={str(schedule)!r}"]
    if settings.faults != usual.faults:
        options.append(f"faults={sorted(settings.faults)}")
    if settings.max_faults != usual.max_faults:
        options.append(f"max_faults={settings.max_faults}")
    if settings.limit != usual.limit:
        options.append(f"limit={settings.limit}")
    name = _name(scenario) if has_name else "scenario"
    comment = "" if is_global else f"  # scenario: {_what(scenario)}"
    return f"nsqlite.testing.simulate({name}, {', '.join(options)}){comment}"


def _search(
    player: _Player, scenario: Callable[[Simulation], object], schedules: int, seed: int
) -> tuple[Simulated, _Run, str]:
    """Play schedules until one fails; return what was played, the last run, and what was found."""
    __tracebackhide__ = True
    runs: list[_Run] = []
    for number in range(schedules):
        drawn = Choices(None, f"{seed}/{number}", runs[0].choices) if number else Choices({})
        run = player.play(drawn)
        if run.error is None and not number:
            run = player.repeat(run)
        runs.append(run._replace(steps=()))
        if isinstance(run.error, NotRepeatable):
            return _summary(runs), run, f"{_name(scenario)} cannot be played again"
        if run.error is not None:
            smallest, tried = player.smallest(run, SHRINKS)
            last = player.repeat(smallest, silent=False)
            found = f"{_name(scenario)} fails undisturbed"
            if last.made:
                found = (
                    f"{_name(scenario)} fails under schedule {number + 1} of {schedules} (seed"
                    f" {seed}), and under {Schedule.of(last.made)}, the smallest of {tried + 1}"
                )
            return _summary(runs), last, found
    return _summary(runs), run, ""


def _summary(runs: list[_Run]) -> Simulated:
    return Simulated(
        schedules=len(runs),
        different=len({Schedule.of(run.made) for run in runs}),
        choices=sum(run.choices for run in runs),
        struck=sum((run.struck for run in runs), Counter()),
    )
