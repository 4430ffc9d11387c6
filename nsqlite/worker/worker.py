"""A worker: a handler that is called with the messages of a channel.

The rule: a message is taken only when there is a slot for it, is answered once, and is never lost,
however a handler fails and however the worker ends.

    returns --> finished           raises --> requeued, later and later; the others go on
                                   raises at the last attempt --> dead letters

Next: worker/app.py
"""

import atexit
import logging
import os
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from types import TracebackType
from typing import Any, Final, Never, Self, TypeAlias, TypeVar

from nsqlite import aio
from nsqlite.aio.publish import join_until as aio_join_until
from nsqlite.aio.publish import until
from nsqlite.channel import Channel
from nsqlite.consumer import AnyConsumer, Consumer
from nsqlite.errors import Closed, InvalidOption, Reentered
from nsqlite.lock import make_lock
from nsqlite.message import Message, T
from nsqlite.options import MOST_HANDLED, Seconds, nanoseconds, timeout_ns, whole
from nsqlite.origin import made_at, note
from nsqlite.topic import Topic
from nsqlite.waiting import join_until
from nsqlite.worker.caller import CallerRunner, Host, Turn, needs_await
from nsqlite.worker.handler import is_coroutine, name_of
from nsqlite.worker.middleware import Middleware, wrap
from nsqlite.worker.plan import (
    GiveUp,
    Plan,
    Tracebacks,
    check_handler,
    check_options,
    dead_letters,
)
from nsqlite.worker.retry import Retry
from nsqlite.worker.stats import WorkerStats
from nsqlite.worker.tasks import GRACE, TaskRunner, soon
from nsqlite.worker.threads import ThreadRunner

log: Final = logging.getLogger("nsqlite")

Runner: TypeAlias = ThreadRunner | TaskRunner | CallerRunner

C = TypeVar("C", bound=AnyConsumer[Any])

_DEFAULT_RETRY: Final = Retry()


class Worker:
    """Calls a handler with each message of a channel, in several slots at a time.

    A handler is called with the `Message`.  When it returns, the message is finished.  When it
    raises an `Exception`, the message alone waits and is tried again, as `retry` says.  It can
    decide otherwise: see `nsqlite.Requeue`, `Drop` and `TakeOver`; or answer the message itself.
    An exception that is not an `Exception`, like `SystemExit`, ends the worker; the message is
    requeued.

    A plain function runs in threads that the worker starts.  A coroutine function runs in tasks, in
    the event loop that is running when the worker is started, or else in a loop of its own.  A test
    can have both run in the caller: see `drain`, and `nsqlite.testing.FakeBroker`.

    A handler should not put to its own channel where that may be full and waits (`when_full`): if
    all slots do, without a timeout, nobody is left to make room.  The last of them gets `Reentered`
    then, if nobody else has a consumer of that channel; one that is left alone later gets it when
    its wait is logged next.  Other circles cannot be seen, and wait for ever: of coroutines, which
    somebody may cancel; over several channels; by way of a thread or task that a handler has begun;
    or with slots that wait for room in `max_in_flight`.  A put that waits for 10 s is logged, with
    the channel's name, and again whenever it has waited twice as long; and `Broker.health` shows
    it.

    As a context manager, plain or asynchronous, it starts at the beginning and stops at the end.
    A worker is used once.  After a fork the child has none; it may start it anew, or `stop` it,
    which lets go of the parent's messages there.  In a loop `nsqlite.aio.join` and `stop` wait for
    it.

    Threads: any, for all methods.

    Attributes:
        channel: where its messages come from.
        name: what log records, threads and tasks call it.
        when_over: called when it has come to its end, however that came; by a thread of its own.
    """

    def __init__(
        self,
        channel: Channel[T],
        handler: Callable[[Message[T]], Any],
        *,
        concurrency: int = 1,
        retry: Retry = _DEFAULT_RETRY,
        dead_letter: Topic[Any] | str | None = None,
        on_give_up: GiveUp | None = None,
        msg_timeout: Seconds | None = None,
        auto_touch: bool = True,
        time_limit: Seconds | None = None,
        prefetch: int = 0,
        max_in_flight: int | None = None,
        middleware: Iterable[Middleware] = (),
        tracebacks: Tracebacks = "once",
        name: str | None = None,
        **unknown: Never,
    ) -> None:
        """Make a worker; it takes no message before `start`.

        Args:
            channel: where its messages come from.
            handler: called with each message.
            concurrency: how many messages it works on at a time, each in a thread or task.
            retry: when a failed message is tried again, and after how many attempts it is given
                up.  One that arrives with more is given up without calling the handler.
            dead_letter: the topic where messages go that are given up, as `DeadLetter`, or its
                name in the broker of the channel, which creates it; without it they are finished.
            on_give_up: a plain function, called with a message that is given up, and its error or
                None: before it is finished, or after it was moved to the dead letters.
            msg_timeout: seconds until a message that was taken over (`TakeOver`) and not answered
                is delivered again; without `auto_touch` any that is not answered.  None for the
                channel's.
            auto_touch: let no message time out while the worker has it, however long its handler
                takes, so that no message is handled twice at the same time.  Without this, a
                handler has to touch its message, as in NSQ's clients.
            time_limit: seconds that a handler may take; None for no limit.  One that is a coroutine
                function is cancelled then, and its message has failed with a `TimeoutError`; one
                in a thread is reported in the log and in `stats`, and goes on.
            prefetch: how many messages more than the one it works on a slot may take at a time;
                they wait behind it, and with `auto_touch=False` their time runs.
            max_in_flight: how many messages the worker may hold, those taken over included; by
                default as many as its slots take.
            middleware: functions that wrap the handler, the outermost first.
            tracebacks: log the traceback of a failed message ``"once"`` for each different error,
                ``"always"``, at every attempt, or ``"never"``.
            name: what log records, threads, tasks and its consumer are called; by default the
                topic's and the channel's.
            unknown: nothing else; the error names the option that is nearest.

        Raises:
            InvalidOption: an argument is unknown, of the wrong kind or out of its range; or the
                dead letters' topic is named, and the channel's topic has no broker.
            InvalidName, Closed, StoreError: that topic cannot be made; see `Broker.topic`.
        """
        given: dict[str, Any] = {
            "concurrency": concurrency,
            "retry": retry,
            "dead_letter": dead_letter,
            "on_give_up": on_give_up,
            "msg_timeout": msg_timeout,
            "auto_touch": auto_touch,
            "time_limit": time_limit,
            "prefetch": prefetch,
            "max_in_flight": max_in_flight,
            "tracebacks": tracebacks,
            "name": name,
        }
        check_options({**unknown, **given})
        if not isinstance(channel, Channel):
            raise InvalidOption("channel", channel, "what Topic.channel(name) returns")
        check_handler(handler)
        if msg_timeout is not None:
            nanoseconds("msg_timeout", msg_timeout, 0, channel.options.max_msg_timeout, above=True)
        self.channel: Final = channel
        self.name: Final = name or f"{channel.topic_name}:{channel.name}"
        handler = wrap(handler, middleware)
        given |= {"name": self.name, "dead_letter": dead_letters(channel, dead_letter)}
        self._plan: Final = Plan(channel=channel, handler=handler, **given)
        self.when_over: Callable[[], object] = lambda: None
        self._started = False
        self._told_to_stop = False
        self._runner: Runner | None = None
        self._inherited: AnyConsumer[Any] | None = None  # the parent's, in the child of a fork
        self._made: Final = note(self)

    # Its life

    def start(self) -> Self:
        """Begin to work, and return the worker itself.

        Raises:
            Closed: the channel is closed or deleted, or the worker was started before.
            TooManyConsumers: the channel has `max_channel_consumers` already.
        """
        with _starting:
            started, self._started = self._started, True
        if started:
            raise Closed(f"worker {self.name!r}", "started already")
        try:
            runner = self._runner = self._make_runner(self._ask_host())
        except BaseException:
            self._started = False  # it could not even begin
            raise
        runner.supervisor.when_over = self.when_over
        for worker in _running.copy():
            if not worker.running:
                _running.discard(worker)
        _running.add(self)
        many = f"{self._plan.concurrency} {runner.kind}"
        log.info("%s: started %s in %s", self.name, name_of(self._plan.handler), many)
        runner.start()
        return self

    def _ask_host(self) -> Turn | None:
        """Return how it is to run in the caller; None if it is not."""
        home = self.channel._parent._home
        return home._take_on(self) if isinstance(home, Host) else None

    def _make_runner(self, turn: Turn | None) -> Runner:
        """Join the channel, and return what calls the handler."""
        plan = self._plan
        if turn is not None:
            return CallerRunner(plan, self._join_channel(Consumer), turn)
        if is_coroutine(plan.handler):
            return TaskRunner(plan, self._join_channel(aio.Consumer))
        return ThreadRunner(plan, self._join_channel(Consumer))

    def _join_channel(self, kind: Callable[..., C]) -> C:
        """Return a consumer of this kind."""
        if self._inherited is not None:
            self._inherited.close()
            self._inherited = None
        plan = self._plan
        consumer = kind(
            self.channel,
            max_in_flight=plan.window,
            msg_timeout=plan.msg_timeout,
            name=plan.name,
        )
        if plan.auto_touch:
            consumer._keep()
        return consumer

    def stop(self, timeout: Seconds = 30.0) -> None:
        """Take no more messages, and wait until the handlers at work have ended.

        It waits for what was taken over (`TakeOver`), too.  What is not answered in time goes back
        to the head of the queue, its attempts as before: to be stopped is no failure.  A handler
        that has not ended by then is told of in the log and not waited for: its task is cancelled,
        its thread is left behind.

        Called by a handler, in the loop in which the handlers run, or by a signal handler in the
        middle of another call, it does not wait.  A second call can only shorten the time.  An
        exception thrown into it, as by Ctrl-C, makes the rest of it immediate.

        Args:
            timeout: seconds for the handlers at work, on the channel's clock.

        Raises:
            InvalidOption: the timeout is negative or no finite number; nothing has changed.
        """
        self.begin_stop(timeout)
        runner = self._runner
        if runner is None or runner.is_inside() or self._holds_a_lock():
            return
        try:
            runner.wait()
        except BaseException:
            runner.supervisor.stop(0)
            raise
        _running.discard(self)

    def begin_stop(self, timeout: Seconds = 30.0) -> None:
        """Stop like `stop`, and do not wait for the end."""
        limit = nanoseconds("timeout", timeout)
        self._told_to_stop = True
        if self._runner is not None:
            self._runner.supervisor.stop(limit)
        elif self._inherited is not None:
            self._inherited.close()

    def _holds_a_lock(self) -> bool:
        """Return whether the calling thread is inside a call that the worker may wait for."""
        dead = self._plan.dead_letter
        monitors = [self.channel._monitor] + ([] if dead is None else [dead._monitor])
        return any(monitor.lock.owned() for monitor in monitors)

    async def _stop_async(self, timeout: Seconds) -> None:
        """See `nsqlite.aio.stop`."""
        self.begin_stop(timeout)
        runner = self._runner
        if runner is None or runner.is_slot():
            return
        try:
            await self._await_end(runner)
        except BaseException:
            runner.supervisor.stop(0)
            raise
        _running.discard(self)

    async def _await_end(self, runner: Runner) -> None:
        monitor, clock = self.channel._monitor, self.channel._clock
        moment = clock.monotonic_ns() + runner.supervisor.time_left()
        over = await until(monitor, clock, runner.is_over, moment) or await soon(
            monitor, clock, runner.is_over
        )
        if isinstance(runner, CallerRunner):
            if not over:
                runner.give_up()
            return
        if not over and isinstance(runner, TaskRunner) and not runner.is_inside():
            runner.give_up()  # its loop is blocked
        elif isinstance(runner, ThreadRunner):
            runner.wait()  # no longer than they need to end
        else:
            runner.join_thread(GRACE if await soon(monitor, clock, runner.is_gone) else 0)

    @property
    def running(self) -> bool:
        """Whether it was started and has not ended."""
        return self._runner is not None and not self._runner.is_over()

    def __enter__(self) -> Self:
        """Start."""
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop."""
        self.stop()

    async def __aenter__(self) -> Self:
        """Start."""
        return self.start()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop."""
        await self._stop_async(30.0)

    # In the caller

    def drain(self, limit: int = MOST_HANDLED, *, raise_first: bool = False) -> int:
        """Call the handler with all messages that are ready, here and now, and return.

        For a worker that was not started, and for one that runs in the caller anyway, as on a
        `nsqlite.testing.FakeBroker`.  It starts no thread.  What becomes of the messages is what
        would in a running worker: they are finished, requeued, given up or moved.  It waits for
        nothing, so what is deferred, or held back by a `backoff`, stays; but what becomes ready
        meanwhile, as by a handler that puts to its own channel or requeues without a delay, is
        handled, too.

        One handler is called at a time.  One that is a coroutine function is run in an event loop
        of this call's own; in a loop that is running await `nsqlite.aio.drain` instead.  A
        `time_limit` ends it as ever; a plain function that took longer is told of in the log.

        A worker that was not started joins the channel for the time of the call.  So its backoff
        begins anew each time, `stats` tells nothing of it afterwards, an ephemeral channel goes
        with it, and what was taken over (`TakeOver`) stays in flight until it is answered or times
        out.

        Args:
            limit: how many messages to handle at most.
            raise_first: raise the first error of the handler, after its message was settled, with
                the handler's own traceback; what is left stays.

        Returns:
            How many messages were handled.

        Raises:
            StillBusy: there is one more than the limit; it stays in the channel.  Or, on a clock
                moved by hand, a coroutine function waits for something that does not come; it is
                cancelled, and its message goes back.
            Closed: the worker runs in threads or tasks, or is stopped; or the channel is over.
            TooManyConsumers: the channel has `max_channel_consumers` already.
            InvalidOption: the limit is no whole number of at least 1.
            Reentered: called by its handler, or in an event loop, where it would have to wait.
            BaseException: the handler raised it, and it is not an `Exception`, like `SystemExit`;
                the message was requeued, and a worker that was started is over.
        """
        whole("limit", limit, 1)
        if needs_await(self._plan.handler):
            raise Reentered("drain", "await nsqlite.aio.drain(worker)")
        with self._called() as runner:
            return runner.drain(limit, raise_first=raise_first)

    async def _drain_async(self, limit: int, *, raise_first: bool) -> int:
        """See `nsqlite.aio.drain`."""
        whole("limit", limit, 1)
        with self._called() as runner:
            return await runner.drain_async(limit, raise_first=raise_first)

    @contextmanager
    def _called(self) -> Iterator[CallerRunner]:
        """Give what runs the handler in the caller; a worker that was not started joins for that.

        Raises:
            Closed: it runs in another way, or is stopped.
            Reentered: called by its handler.
        """
        runner = self._runner
        if isinstance(runner, CallerRunner) and not runner.is_over():
            if runner.is_slot():
                raise Reentered("drain", "call it outside of the worker's handlers")
            yield runner
            return
        with _starting:
            started, self._started = self._started, True
        if started:
            how = "stopped" if self._is_over() else "started, and works by itself: join it"
            raise Closed(f"worker {self.name!r}", how)
        try:
            made = self._runner = CallerRunner(self._plan, self._join_channel(Consumer))
            with closing(made):
                yield made
        finally:
            self._runner = None
            self._started = False

    # Waiting for it

    def join(self, timeout: Seconds | None = None, *, raise_first: bool = False) -> bool:
        """Wait until nothing is ready, in flight or deferred in the channel, nor worked on.

        Args:
            timeout: in seconds; None waits for ever.
            raise_first: raise the first error of a handler as soon as there is one.

        Returns:
            False if the timeout passed first.

        Raises:
            Closed: the channel was closed or deleted meanwhile, or the worker stopped before.
            InvalidOption: the timeout is negative or no finite number.
            Reentered: called by a handler, or in the loop in which the handlers run.
        """
        runner = self._runner
        if runner is not None and runner.is_inside():
            raise Reentered("join", "await nsqlite.aio.join(worker), outside of its handlers")
        limit = timeout_ns(timeout)
        done = self._failed if raise_first else self._done
        who = f"join() of worker {self.name!r}"
        with self._joining():
            over = join_until(self.channel._monitor, self.channel._clock, done, limit, who)
        return self._joined(over, raise_first=raise_first)

    @contextmanager
    def _joining(self) -> Iterator[None]:
        """Have the slots tell when they are free."""
        runner = self._runner
        if runner is None:
            yield
            return
        with _starting:
            runner.supervisor.joiners += 1
        try:
            yield
        finally:
            with _starting:
                runner.supervisor.joiners -= 1

    async def _join_async(self, timeout: Seconds | None, *, raise_first: bool) -> bool:
        """See `nsqlite.aio.join`."""
        runner = self._runner
        if runner is not None and runner.is_slot():
            raise Reentered("join", "call it outside of the worker's handlers")
        limit = timeout_ns(timeout)
        done = self._failed if raise_first else self._done
        clock = self.channel._clock
        moment = None if limit is None else clock.monotonic_ns() + limit
        who = f"join() of worker {self.name!r}"
        with self._joining():
            over = await aio_join_until(self.channel._monitor, clock, done, moment, who)
        return self._joined(over, raise_first=raise_first)

    def _done(self) -> bool:
        return (self.channel._done() and self._is_idle()) or self._is_over()

    def _is_idle(self) -> bool:
        return self._runner is None or self._runner.supervisor.is_idle()

    def _is_over(self) -> bool:
        """Return whether it was started and has ended."""
        return self._runner is not None and self._runner.is_over()

    def _at_work(self) -> list[Message[Any]]:
        """Return the messages that its handler works on."""
        slots = () if self._runner is None else self._runner.supervisor.slots
        return [message for slot in slots if (message := slot.message) is not None]

    def _begun(self) -> int:
        """Return for how many messages its handler was called."""
        slots = () if self._runner is None else self._runner.supervisor.slots
        return sum(slot.count for slot in slots)

    def _failed(self) -> bool:
        return self._error() is not None or self._done()

    def _joined(self, over: bool, *, raise_first: bool) -> bool:
        error = self._error()
        if raise_first and error is not None:
            raise error
        if over and not self.channel._done():
            raise Closed(f"worker {self.name!r}", "stopped")
        return self.channel._joined(over)

    @property
    def broken(self) -> BaseException | None:
        """What ended it though no handler should raise it, like `SystemExit`; None if nothing."""
        return None if self._runner is None else self._runner.supervisor.broken

    def _why_ended(self) -> BaseException | None:
        """Return why it has ended; None if it has not, was stopped, or its channel was drained."""
        broken, channel = self.broken, self.channel
        if broken is not None:
            return broken
        if not self._is_over() or self._told_to_stop or channel._queue.draining:
            return None
        why = "" if channel._over is None else f": {channel._title} is {channel._over}"
        return Closed(f"worker {self.name!r}", f"over{why}")

    def stats(self) -> WorkerStats:
        """Return a snapshot of what it has done and does; costs its hot path nothing."""
        if self._runner is None:
            return WorkerStats(name=self.name, state="new")
        return self._runner.supervisor.stats()

    def _error(self) -> BaseException | None:
        return None if self._runner is None else self._runner.supervisor.settler.error

    def __repr__(self) -> str:
        """Show its name, handler and state, and what holds it back."""
        told = self.stats()
        held = ""
        if told.held_back_for:
            held = f", held back for {told.held_back_for:.3g} s: {told.held_back_by}"
        return f"<Worker {self.name!r} of {name_of(self._plan.handler)} {told.state}{held}>"


_running: Final[set[Worker]] = set()
# Protects `Worker._started` and `Supervisor.joiners`; nothing is called inside:
_starting: Final = make_lock(rank=2)


def _forget_all() -> None:
    """In the child of a fork: the threads and loops of the workers are gone."""
    for worker in _running:
        runner, worker._runner = worker._runner, None
        worker._inherited = None if runner is None else runner.supervisor.consumer
        worker._started = False
    _running.clear()


if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(after_in_child=_forget_all)


@atexit.register
def _stop_all() -> None:
    """Stop what still runs when the interpreter ends, so that nothing ends without a word."""
    left = [worker for worker in list(_running) if worker.running]
    for worker in left:
        log.warning("worker %r still runs at the end of the program", worker.name)
        worker.stop(0)
    for worker in left:
        text = f"worker {worker.name!r} still ran at the end of the program{made_at(worker._made)}"
        warnings.warn(text, ResourceWarning, stacklevel=1, source=worker)
