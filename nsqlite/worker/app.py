"""An app: the handlers of a program, run together until it is told to stop.

The rule: the handlers' channels exist from the moment they are declared, so nothing published
before `run` is missed; and whatever ends `run`, every worker is stopped.

Next: store/__init__.py
"""

import logging
import signal
import threading
from collections.abc import Callable
from contextlib import ExitStack
from types import FrameType, TracebackType
from typing import Any, Final, Never, Self, TypeVar, Unpack

from nsqlite import aio
from nsqlite.broker import Broker
from nsqlite.clock import held_semaphore, release
from nsqlite.errors import Closed, InvalidOption
from nsqlite.options import Seconds, as_seconds, nanoseconds, unknown_option
from nsqlite.topic import Topic
from nsqlite.worker.handler import Handler
from nsqlite.worker.plan import WorkerOptions
from nsqlite.worker.stats import WorkerStats
from nsqlite.worker.worker import Worker, check_names

log: Final = logging.getLogger("nsqlite")

H = TypeVar("H", bound=Handler)


class App:
    """Handlers of a broker's channels, and the workers that call them.

        app = nsqlite.App(broker)

        @app.handler("orders", "billing", concurrency=4)
        def bill(message): ...

        app.run()

    A program with its own event loop, or its own way to end, uses it as a context manager instead,
    plain or asynchronous: the workers are started at the beginning of the block and stopped at its
    end.

    Threads: any thread, a handler or a signal handler may call `stop`; all else is for one thread.

    Attributes:
        broker: whose topics and channels are meant.
        workers: those that run now.
    """

    def __init__(self, broker: Broker, *, timeout: Seconds = 30.0, **unknown: Never) -> None:
        """Make an app without handlers.

        Args:
            broker: whose topics and channels are meant.
            timeout: seconds that handlers at work have when the app stops.
            unknown: nothing else; the error names the option that there is.

        Raises:
            InvalidOption: the broker is not a `Broker`, the timeout is not a number of seconds, or
                an option is unknown.
        """
        for name in unknown:
            raise unknown_option("option", name, ("timeout",))
        if not isinstance(broker, Broker):
            raise InvalidOption("broker", broker, "a Broker")
        nanoseconds("timeout", timeout)
        self.broker: Final = broker
        self.workers: list[Worker] = []
        self._last: list[Worker] = []  # those of the last run
        self._timeout: Final = as_seconds(timeout)
        self._factories: Final[list[Callable[[], Worker]]] = []
        self._semaphore: Final = held_semaphore()
        self._signals = 0
        self._stopping = False

    def handler(
        self,
        topic: str,
        channel: str,
        *,
        dead_letter: str | Topic[Any] | None = None,
        **options: Unpack[WorkerOptions],
    ) -> Callable[[H], H]:
        """Declare the handler of a channel; a decorator.  The channel is created at once.

        Args:
            topic: the topic's name.
            channel: the channel's name.
            dead_letter: the topic of its dead letters, or that topic's name.
            options: as for `Worker`.

        Returns:
            A function that takes the handler and returns it as it is.

        Raises:
            InvalidName, InvalidOption, Closed: as for `Broker.topic`, `Topic.channel` and `Worker`.
            Closed: the app is running.
        """
        check_names(options)
        if self.workers:
            raise Closed("the app", "running already: declare its handlers before")
        source = self.broker.topic(topic).channel(channel)
        if isinstance(dead_letter, str):
            dead_letter = self.broker.topic(dead_letter)

        def declare(handler: H) -> H:
            def make() -> Worker:
                return Worker(source, handler, dead_letter=dead_letter, **options)

            make()  # tells at once what is wrong with the options
            self._factories.append(make)
            return handler

        return declare

    def run(self) -> None:
        """Work until SIGINT or SIGTERM comes, or `stop` is called; then stop the workers.

        After a second signal it does not wait for the handlers.  Signals are caught only if this
        is called in the main thread; their earlier handlers are restored at the end.  It also ends
        when all channels are drained (`close(drain=True)`), and when a worker ends for another
        reason, which nobody else would notice.

        Raises:
            InvalidOption: there is no handler.
            Closed: a worker has ended because its channel was closed or deleted.
            BaseException: a handler raised it, and it is not an `Exception`, like `SystemExit`.
        """
        if not self._factories:
            expected = "at least one, declared with @app.handler(topic, channel)"
            raise InvalidOption("handlers", self._factories, expected)
        self._signals = 0
        with ExitStack() as stack:
            if threading.current_thread() is threading.main_thread():
                for number in (signal.SIGINT, signal.SIGTERM):
                    before = signal.signal(number, self._on_signal)
                    stack.callback(signal.signal, number, before)
            stack.enter_context(self)
            self._notice_end()  # of one that came before somebody listened
            self._semaphore.acquire()
            why = self._why_ended()
        if why is not None:
            raise why

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
        """Tell `run` to end, without waiting for it."""
        release(self._semaphore)

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        """Stop at the first signal, at once at the second.  A signal handler: it takes no lock."""
        self._signals += 1
        release(self._semaphore)
        if self._signals > 1 and self._stopping:
            raise KeyboardInterrupt(signal.Signals(number).name)

    def __enter__(self) -> Self:
        """Start the workers."""
        if self.workers:
            raise Closed("the app", "running already")
        self.workers = [make() for make in self._factories]
        try:
            for worker in self.workers:
                worker.when_over = self._notice_end
                worker.start()
        except BaseException:
            self._stop(0)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop the workers, all at the same time."""
        self._stop(self._timeout)

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
        self._semaphore.acquire(blocking=False)  # a stop more is none for the next run

    def _stop_each(self, timeout: float) -> None:
        self._begin_stop(timeout)
        for worker in self.workers:
            worker.stop(timeout)

    def _begin_stop(self, timeout: float) -> None:
        for worker in self.workers:
            worker.begin_stop(timeout)

    async def __aenter__(self) -> Self:
        """Start the workers; coroutine functions run in this loop."""
        return self.__enter__()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop the workers, all at the same time, and let the loop go on meanwhile."""
        try:
            self._begin_stop(self._timeout)
            for worker in self.workers:
                await aio.stop(worker, self._timeout)
        except BaseException:
            self._begin_stop(0)
            raise
        finally:
            self._forget()
