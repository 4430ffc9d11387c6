"""An app: the handlers of a program, declared without a broker and run with one.

The rule: what is wrong with a handler is told where it is declared, which opens no file; the
channels of all handlers exist before the first message is delivered; and whatever ends the work,
every worker is stopped.

Next: store/__init__.py
"""

import logging
import signal
import threading
from collections.abc import Callable
from contextlib import ExitStack
from types import FrameType, TracebackType
from typing import Final, Never, TypeVar, Unpack

from nsqlite import aio
from nsqlite.broker import Broker
from nsqlite.clock import held_semaphore, release
from nsqlite.errors import Closed, InvalidOption
from nsqlite.names import check_name
from nsqlite.options import Seconds, as_seconds, nanoseconds, unknown_option
from nsqlite.worker.caller import Host
from nsqlite.worker.handler import Handler
from nsqlite.worker.middleware import wrap
from nsqlite.worker.plan import WorkerOptions, check_handler, check_options
from nsqlite.worker.stats import WorkerStats
from nsqlite.worker.worker import Worker

log: Final = logging.getLogger("nsqlite")

H = TypeVar("H", bound=Handler)

BIND: Final = "app.run(broker) or app.running(broker)"
"""How an app gets its broker, for errors."""


class App:
    """Handlers of channels, and the workers that call them while the app has a broker.

        app = nsqlite.App()

        @app.handler("orders", "billing", concurrency=4)
        def bill(message): ...

        app.run(nsqlite.Broker(store=nsqlite.SQLite("jobs.db")))

    A program with its own event loop, or its own way to end, uses `running` instead of `run`.  An
    app can be run again and again, also with another broker, but not twice at a time.

    What is published while it runs is not missed.  What was published before is in the channels of
    these names if they existed: a store keeps them from the first run on.  A topic that had no
    channel hands what it holds to the first one.

    Threads: any thread, a handler or a signal handler may call `stop`; all else is for one thread.

    Attributes:
        workers: those that run now.
    """

    def __init__(self, *wrong: Never, timeout: Seconds = 30.0, **unknown: Never) -> None:
        """Make an app without handlers.

        Args:
            wrong: nothing; the error says where a broker goes.
            timeout: seconds that handlers at work have when the app stops.
            unknown: nothing else; the error names the option that there is.

        Raises:
            InvalidOption: a broker is given, the timeout is not a number of seconds, or an option
                is unknown.
        """
        if wrong:
            raise InvalidOption("broker", wrong[0], f"given to {BIND}")
        for name in unknown:
            raise unknown_option("option", name, ("timeout",))
        nanoseconds("timeout", timeout)
        self.workers: list[Worker] = []
        self._last: list[Worker] = []  # those of the last run
        self._broker: Broker | None = None
        self._timeout: Final = as_seconds(timeout)
        self._factories: Final[list[Callable[[Broker], Worker]]] = []
        self._declared: Final[set[tuple[str, str]]] = set()
        self._semaphore: Final = held_semaphore()
        self._signals = 0
        self._stopping = False

    @property
    def broker(self) -> Broker:
        """The broker that it runs with, as for a handler that publishes.

        Raises:
            Closed: it does not run.
        """
        if self._broker is None:
            raise Closed("the app", f"without a broker: it gets one by {BIND}")
        return self._broker

    def handler(
        self, topic: str, channel: str, **options: Unpack[WorkerOptions]
    ) -> Callable[[H], H]:
        """Declare the handler of a channel; a decorator.

        It makes neither topic nor channel.  What only a broker can tell is checked when the app
        gets one: whether `msg_timeout` is within the broker's `max_msg_timeout`, and whether the
        topic of the dead letters is of the same store.

        Args:
            topic: the topic's name.
            channel: the channel's name.
            options: as for `Worker`.

        Returns:
            A function that takes the handler and returns it as it is.

        Raises:
            InvalidName, InvalidOption: as for `Broker.topic`, `Topic.channel` and `Worker`; or the
                channel has a handler already.
            Closed: the app is running.
        """
        check_name("topic", topic)
        check_name("channel", channel)
        check_options(options)
        if options.get("dead_letter") == topic:
            raise InvalidOption("dead_letter", topic, "another topic than the handler's")
        if self._broker is not None:
            raise Closed("the app", "running already: declare its handlers before")
        middleware = options.pop("middleware", ())

        def declare(handler: H) -> H:
            check_handler(handler)
            self._require_first(topic, channel)
            wrapped = wrap(handler, middleware)

            def make(broker: Broker) -> Worker:
                return Worker(broker.topic(topic).channel(channel), wrapped, **options)

            self._declared.add((topic, channel))
            self._factories.append(make)
            return handler

        return declare

    def _require_first(self, topic: str, channel: str) -> None:
        """Check that a channel has no handler yet.

        Raises:
            InvalidOption: it has one, and each would get a part of its messages.
        """
        if (topic, channel) in self._declared:
            expected = "one without a handler yet (concurrency= has one run several times)"
            raise InvalidOption("channel", f"{topic}:{channel}", expected)

    def _require_handlers(self) -> None:
        """Check that there is something to run.

        Raises:
            InvalidOption: there is no handler.
        """
        if not self._factories:
            expected = "at least one, declared with @app.handler(topic, channel)"
            raise InvalidOption("handlers", self._factories, expected)

    def run(self, broker: Broker) -> None:
        """Work until SIGINT or SIGTERM comes, or `stop` is called; then stop the workers.

        After a second signal it does not wait for the handlers.  Signals are caught only if this
        is called in the main thread; their earlier handlers are restored at the end.  It also ends
        when all channels are drained (`close(drain=True)`), and when a worker ends for another
        reason, which nobody else would notice.  The broker stays open.  On a broker that has its
        workers run in the caller, as `nsqlite.testing.FakeBroker`, it ends when nothing is left to
        do.

        Args:
            broker: whose topics and channels the handlers are for; see `running`.

        Raises:
            InvalidOption: there is no handler, or it is not a broker; and as for `running`.
            Closed: a worker has ended because its channel was closed or deleted; or the app is
                running already.
            BaseException: a handler raised it, and it is not an `Exception`, like `SystemExit`.
        """
        running = self.running(broker)
        self._require_handlers()
        self._require_unbound()
        self._signals = 0
        with ExitStack() as stack:
            if threading.current_thread() is threading.main_thread():
                for number in (signal.SIGINT, signal.SIGTERM):
                    before = signal.signal(number, self._on_signal)
                    stack.callback(signal.signal, number, before)
            stack.enter_context(running)
            self._notice_end()  # of one that came before somebody listened
            if not (isinstance(broker, Host) and broker._serve(self._is_to_end)):
                self._semaphore.acquire()
            why = self._why_ended()
        if why is not None:
            raise why

    def running(self, broker: Broker) -> "Running":
        """Return a context manager, plain or asynchronous, in whose block the app works.

            async with app.running(broker):
                ...

        At its beginning the channels of all handlers are created where they are not there, then the
        workers are started; at its end they are stopped.  In `async with` coroutine functions run
        in this loop.  It catches no signals.  A worker that ends by itself does not end the block:
        ask `app.workers`.

        Args:
            broker: whose topics and channels the handlers are for; it stays open.

        Returns:
            What gives the app, for `as`.  The block raises at its beginning `Closed` if the app or
            its broker does not allow it, `InvalidOption` if a handler's options do not fit the
            broker, `TooManyConsumers` and `StoreError`; then no worker runs.

        Raises:
            InvalidOption: it is no broker.
        """
        if not isinstance(broker, Broker):
            raise InvalidOption("broker", broker, "a Broker")
        return Running(self, broker)

    def _why_ended(self) -> BaseException | None:
        """Return why a worker has ended that should not have."""
        return next(filter(None, (worker._why_ended() for worker in self.workers)), None)

    def _notice_end(self) -> None:
        """End `run` if a worker has ended that should not have, or all have."""
        workers = self.workers
        if self._why_ended() is not None or (workers and all(w._is_over() for w in workers)):
            release(self._semaphore)

    def stats(self) -> tuple[WorkerStats, ...]:
        """Return a snapshot of each worker, in the order of their declaration.

        Between two runs it tells of the last one.
        """
        return tuple(worker.stats() for worker in self.workers or self._last)

    def stop(self) -> None:
        """Tell `run` to end, without waiting for it; between two runs, the next one."""
        release(self._semaphore)

    def _is_to_end(self) -> bool:
        """Return whether `run` is to end."""
        return not self._semaphore.locked()

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        """Stop at the first signal, at once at the second.  A signal handler: it takes no lock."""
        self._signals += 1
        release(self._semaphore)
        if self._signals > 1 and self._stopping:
            raise KeyboardInterrupt(signal.Signals(number).name)

    def _require_unbound(self) -> None:
        if self._broker is not None:
            raise Closed("the app", "running already")

    def _begin(self, broker: Broker) -> None:
        """Bind it to a broker, and start the workers when all channels are there."""
        self._require_unbound()
        try:
            self._bind(broker)
            for worker in self.workers:
                worker.when_over = self._notice_end
                worker.start()
        except BaseException:
            self._stop(0)
            raise

    def _bind(self, broker: Broker) -> None:
        """Make the workers, on a broker; `_forget` takes it back."""
        self._broker = broker
        self.workers = [make(broker) for make in self._factories]

    def _stop(self, timeout: float) -> None:
        """Stop all workers; they share the time, and a second signal takes it from them."""
        try:
            self._stopping = True  # from here on a signal may throw
            self._stop_each(0 if self._signals > 1 else timeout)
            self._stopping = False
        except BaseException as error:
            self._stopping = False
            self._stop_each(0)
            if self._signals <= 1 or not isinstance(error, KeyboardInterrupt):
                raise
            log.warning("a second signal: the handlers at work were left behind")
        finally:
            self._forget()

    def _forget(self) -> None:
        self._last = self.workers
        self.workers = []
        self._broker = None
        self._semaphore.acquire(blocking=False)  # a stop more is none for the next run

    def _stop_each(self, timeout: float) -> None:
        self._begin_stop(timeout)
        for worker in self.workers:
            worker.stop(timeout)

    def _begin_stop(self, timeout: float) -> None:
        for worker in self.workers:
            worker.begin_stop(timeout)

    async def _stop_async(self) -> None:
        """Stop all workers, and let the loop go on meanwhile; when it is cancelled, at once."""
        try:
            self._begin_stop(self._timeout)
            for worker in self.workers:
                await aio.stop(worker, self._timeout)
        except BaseException:
            self._begin_stop(0)
            raise
        finally:
            self._forget()


class Running:
    """The block in which an app works; made by `App.running`.

    Threads: one at a time.
    """

    __slots__ = ("_app", "_broker")

    def __init__(self, app: App, broker: Broker) -> None:
        """Take what works, and with what; nothing happens before the block."""
        self._app: Final = app
        self._broker: Final = broker

    def __enter__(self) -> App:
        """Create the channels, and start the workers."""
        self._app._begin(self._broker)
        return self._app

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop the workers, all at the same time."""
        self._app._stop(self._app._timeout)

    async def __aenter__(self) -> App:
        """Start the workers; coroutine functions run in this loop."""
        return self.__enter__()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop the workers, all at the same time, and let the loop go on meanwhile."""
        await self._app._stop_async()
