"""A broker for tests: on a clock moved by hand, with its history, and with its workers in hand.

The rule: what a test asks for is done when the call returns, and nothing else.

    captured    a worker starts no thread and no task; its handler is called when the test asks
    inline      as captured, and a put calls the handlers at once, in the caller
    real        threads and tasks, as in a program

Next: testing/leaks.py
"""

from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any, Final, Literal, Unpack, get_args

from nsqlite.broker import Broker, Store
from nsqlite.errors import InvalidOption, StillBusy
from nsqlite.events import Observer
from nsqlite.message import Message
from nsqlite.options import Seconds, TopicOptions
from nsqlite.persistence import TopicPersistence
from nsqlite.testing.brokerfaults import BrokerFaults, FaultyTopic
from nsqlite.testing.bystanders import Watch
from nsqlite.testing.history import History
from nsqlite.testing.idle import Run, Runner, at_work, never, note_patience, pause
from nsqlite.testing.manualclock import LIMIT, ManualClock
from nsqlite.timeline.recorder import Recorder

Mode = Literal["captured", "inline", "real"]
"""How handlers run: when a test asks, at once in the caller of `put`, or as in a program."""

_TURNS: Final[dict[Mode, Literal["asked", "at once"]]] = {
    "captured": "asked",
    "inline": "at once",
}
"""When the handlers of a worker run that runs in the caller."""


_GOES_ON: Final = 10
"""Workers that go from one message to the next are given so many times a clock's patience."""


def _is_over(watch: Watch, run: Run) -> bool:
    """Return whether all were given their time that work on by themselves."""
    watch.waited += run.waited // _GOES_ON
    run.waited = 0
    return watch.is_over


class FakeBroker(Broker):
    """A `Broker` on a `ManualClock`, which records what happens, and runs handlers in the caller.

    With the mode ``"captured"`` a worker of this broker, and so an `App`, starts neither threads
    nor tasks.  Its handler is called when the test asks, in the test's own thread, one message at a
    time: by `run_until_idle`, `drain`, `run_one`, `Worker.drain`, and whatever joins: a worker, a
    channel, a topic, the broker, also by `nsqlite.aio.join`.  `App.run` ends when nothing is left.
    While a coroutine function waits in `nsqlite.aio`, or for the clock, the other handlers have
    their turn, and the worker's own has it again if it has a slot left.  One that still waits when
    the call has what it was made for is cancelled, and its message goes back.  A plain function
    that waits for another worker's handler needs the mode ``"inline"`` or ``"real"``.  A worker
    that is stopped puts back what was taken over (`TakeOver`) at once.

    With ``"inline"`` a put calls the handlers, before it returns; so does whatever else makes a
    message ready, as a requeue without a delay, or the clock that is moved.  A handler that puts to
    another channel has that handled inside of its put; one that puts to its own, when a slot is
    free: when it has returned.  What a handler raises is settled as ever, and never comes out of
    the put, which has taken place.  Work that has no end is left after 100,000 messages, with an
    error in the log; so is a coroutine function that waits for the clock, or for what does not
    come, which is cancelled.  Of several threads that put at the same time one may call the handler
    for the others, whose puts may return before.  Where an event loop runs, a coroutine function is
    not called by the put, nor is any by the thread of a store or a server: that is left to
    `until_idle` and the like.

    With ``"real"`` all is as in a program, but for the clock and the history.

    A plain function is called by the thread that asks, a coroutine function in a task of the event
    loop that runs there, or where none runs in a loop of the call's own.

    At the end of its block the broker stops the workers that still run.

    >>> import nsqlite
    >>> with FakeBroker() as broker:
    ...     orders = broker.topic("orders")
    ...     bodies = []
    ...     worker = nsqlite.Worker(orders.channel("billing"), lambda m: bodies.append(m.body))
    ...     with worker:
    ...         id = orders.put(b"order 1", delay=3600)
    ...         seconds = broker.run_until_idle()
    >>> bodies, seconds
    ([b'order 1'], 3600.0)
    """

    clock: ManualClock
    _own_options = (*Broker._own_options, "mode", "seed")

    def __init__(
        self,
        *,
        mode: Mode = "captured",
        clock: ManualClock | None = None,
        observers: Iterable[Observer] = (),
        store: Store | None = None,
        seed: int = 0,
        **options: Unpack[TopicOptions],
    ) -> None:
        """Make it.

        Args:
            mode: how its workers run; see the class.
            clock: one that others use, too; its own by default.
            observers: who hears of the events of all topics, besides `history`.
            store: what keeps its messages; None has them in memory alone.
            seed: what chance in `faults` begins with.
            options: see `nsqlite.options.TopicOptions`.

        Raises:
            InvalidOption: there is no such mode, or as for `Broker`.
            StoreError: the store cannot be opened.
        """
        if mode not in get_args(Mode):
            raise InvalidOption("mode", mode, f"one of {', '.join(map(repr, get_args(Mode)))}")
        self.mode: Final = mode
        self.faults: Final = BrokerFaults(self, seed)
        self.history: Final = History(Recorder(), self)
        self._workers: Final[list[Any]] = []
        super().__init__(
            clock=ManualClock() if clock is None else clock,
            observers=(self.history.recorder, self.faults._hear, *observers),
            store=store,
            **options,
        )
        self.clock._add_host(self)

    def _new_topic(
        self, name: str, kept: TopicPersistence | None, options: TopicOptions
    ) -> FaultyTopic[Any]:
        """See `Broker`."""
        return FaultyTopic(self.faults, name, home=self, persistence=kept, **options)

    # Running

    def run_until_idle(self, limit: Seconds = LIMIT, *, raise_first: bool = False) -> float:
        """Call handlers, and move the clock from deadline to deadline, until nothing is left.

        A broker that is closed has nothing left but what it drains.

        Args:
            limit: no further than so many seconds.
            raise_first: raise the first error of a handler of this broker, after its message was
                settled; what is left stays.  One of before the call is raised at once, as by
                `Worker.join`.

        Returns:
            By how many seconds the clock has moved.

        Raises:
            StillBusy, Reentered, InvalidOption, BaseException: see `ManualClock.run_until_idle`.
                In the mode "real" also what has ended a worker though no handler should raise it,
                and `StillBusy` where a handler does not end though the clock has nothing for it.
        """
        run = self._run(limit, "run_until_idle()", raise_first=raise_first)
        run.require_no_loop()
        run.run()
        watch = self.clock._watch_all()
        while (more := self._left(run, raise_first)) and not _is_over(watch, run):
            self.clock._pause(watch.next_pause(to_jump=True))
            run.run()
        self._require_idle("run_until_idle()", more, raise_first)
        return run.seconds

    async def until_idle(self, limit: Seconds = LIMIT, *, raise_first: bool = False) -> float:
        """Do the same in an event loop, which goes on meanwhile.

        Raises:
            StillBusy, NotAsyncio, InvalidOption, BaseException: see `run_until_idle`, and
                `ManualClock.until_idle`.

        Cancellation:
            The handler at work is cancelled, and its message goes back, its attempts as before.
        """
        run = self._run(limit, "until_idle()", raise_first=raise_first)
        await run.run_async()
        watch = self.clock._watch_all()
        while (more := self._left(run, raise_first)) and not _is_over(watch, run):
            await pause(watch.next_pause(to_jump=True))
            await run.run_async()
        self._require_idle("until_idle()", more, raise_first)
        return run.seconds

    def run_one(self) -> bool:
        """Call one handler, with the next message that is ready; the clock stands.

        So a test, or a lesson, goes on step by step: each worker has its turn, in the order in
        which they were started.

        Where that handler waits in nsqlite for another one, that is called, too.

        Returns:
            Whether there was one.

        Raises:
            InvalidOption: the mode is "real", in which handlers run by themselves.
            StillBusy: a coroutine function waits for something that does not come, as for the clock
                to move.
            Reentered: called in an event loop, and the handler is to be awaited.
            BaseException: the handler raised it, and it is not an `Exception`.
        """
        return self._standing("run_one()").call_one()

    def drain(self, *, raise_first: bool = False) -> int:
        """Call handlers with all that is ready, and what becomes ready meanwhile; the clock stands.

        Args:
            raise_first: see `run_until_idle`.

        Returns:
            How many messages were handled.

        Raises:
            StillBusy: they were more than 100,000, or as for `run_one`.
            InvalidOption, Reentered, BaseException: as for `run_one`.
        """
        run = self._standing("drain()", raise_first=raise_first)
        run.call_all()
        self._raise_error(raise_first)
        return run.handled

    def _run(self, limit: Seconds, call: str, *, raise_first: bool) -> Run:
        """Return what calls handlers, and moves the clock."""
        return self.clock._run(limit, call, self._has_failed if raise_first else never)

    def _standing(self, call: str, *, raise_first: bool = False) -> Run:
        """Return what calls handlers, and moves no clock."""
        if self.mode == "real":
            expected = f"'captured' or 'inline' for {call}: call run_until_idle()"
            raise InvalidOption("mode", self.mode, expected)
        clock = self.clock
        done = self._has_failed if raise_first else never
        instead = "await nsqlite.aio.join(broker, timeout=0), which handles all that is ready"
        return Run(clock, clock._elapsed, call, instead, done=done, timed=True)

    def _errors(self) -> list[BaseException]:
        """Return the first error of each handler that had one."""
        return [error for worker in self._workers if (error := worker._error()) is not None]

    def _has_failed(self) -> bool:
        return bool(self._errors())

    def _raise_error(self, raise_first: bool) -> None:
        for error in self._errors() if raise_first else ():
            raise error

    def _at_work(self) -> list[tuple[Any, Message[Any]]]:
        """Return what handlers work on by themselves, each with the worker."""
        if self.mode != "real":
            return []
        workers = [worker for worker in self._workers.copy() if worker.running]
        return [(worker, message) for worker in workers for message in worker._at_work()]

    def _left(self, run: Run, raise_first: bool) -> str:
        """Return in words who works on by itself, and may wait for something in real time."""
        went_on = run.went_on() if self.mode == "real" else []
        if raise_first and self._has_failed():
            return ""
        for worker, message in self._at_work():
            return at_work(f"worker {worker.name!r}", message)
        return " and ".join(f"more for {name}" for name in went_on)

    def _require_idle(self, call: str, left: str, raise_first: bool) -> None:
        """Check that the threads and tasks of its workers have done all, and none has ended so.

        Raises:
            StillBusy: something is left.
            BaseException: it has ended a worker, or it is wanted.
        """
        self._raise_error(raise_first)
        ended = [worker.broken for worker in self._workers if self.mode == "real"]
        for error in filter(None, ended):
            raise error
        if left:
            busy = StillBusy(call, f"up to {self.clock.patience:g} s of real time", left)
            note_patience(busy, self.clock.patience)
            raise busy

    # What its workers ask; see `nsqlite.worker.caller.Host`

    def _take_on(self, worker: Any) -> Literal["asked", "at once"] | None:
        self._workers.append(worker)
        for known in self._workers.copy():  # other threads may start some, too
            if known is not worker and known._is_over():
                self._forget(known)
        return _TURNS.get(self.mode)

    def _forget(self, worker: Any) -> None:
        with suppress(ValueError):  # another thread has
            self._workers.remove(worker)

    def _serve(self, is_over: Callable[[], bool]) -> bool:
        if self.mode == "real":
            return False
        self.clock.meanwhile(is_over, None, "app.run()")
        return True

    def _runners(self) -> list[Runner]:
        if self.mode == "real":
            return []
        return [worker._runner for worker in self._workers if worker.running]

    def _counts(self) -> dict[str, int]:
        counts: dict[str, int] = {}
        for worker in self._workers.copy() if self.mode == "real" else ():
            name = f"worker {worker.name!r}"
            counts[name] = counts.get(name, 0) + worker._begun()
        return counts

    # Its end

    def close(self, *, drain: bool = False, force: bool = False) -> int:
        """Stop its workers, unless they are to drain it, and close it; see `Broker.close`.

        What is thrown away is counted, and not logged.
        """
        if not drain:
            for worker in self._workers:
                worker.stop()
        return super().close(drain=drain, force=force)

    async def _close_async(self, *, drain: bool = False, force: bool = False) -> int:
        if not drain:
            for worker in self._workers:
                await worker._stop_async(30.0)
        return await super()._close_async(drain=drain, force=force)
