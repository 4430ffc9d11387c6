"""What the tests of `nsqlite.aio` use: turns of a loop, loops elsewhere, what is left behind."""

import asyncio
import functools
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, ParamSpec, Self

from helpers import PATIENCE, TellingManualClock

from nsqlite import Topic

P = ParamSpec("P")


def in_loop(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """Have a test run in a loop of its own."""

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        asyncio.run(asyncio.wait_for(test(*args, **kwargs), PATIENCE))

    return run


class LastMoment(TellingManualClock):
    """A manual clock that does something when it is next read without a lock.

    So it comes between a look at the clock and what follows from it.
    """

    def __init__(self) -> None:
        super().__init__(patience=100)
        self._surprise: Callable[[], object] | None = None
        self._topic: Topic[Any] | None = None

    def surprise(self, topic: Topic[Any], surprise: Callable[[], object]) -> None:
        """Do this when the time is next read without the topic's lock."""
        self._topic, self._surprise = topic, surprise

    def _monotonic_ns(self) -> int:
        surprise = self._surprise
        if surprise is not None and self._topic and not self._topic._lock.owned():
            self._surprise = None
            surprise()
        return super()._monotonic_ns()


async def turns(count: int = 5) -> None:
    """Let the loop go round, so that whoever can go on does."""
    for _ in range(count):
        await asyncio.sleep(0)


async def until(condition: Callable[[], object]) -> None:
    """Let the loop go round until something has come true, which sockets or threads bring about."""
    loop = asyncio.get_running_loop()
    end = loop.time() + PATIENCE
    while not condition():
        assert loop.time() < end, "it does not become so"
        await turns(1)


async def begin(coroutine: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
    """Start a task, and return it when it waits or is over."""
    task = asyncio.ensure_future(coroutine)
    await turns()
    return task


async def outcome(task: asyncio.Task[Any]) -> Any:
    """Return what a task returned or raised."""
    return (await asyncio.gather(task, return_exceptions=True))[0]


def timers(loop: asyncio.AbstractEventLoop) -> int:
    """Return how many timers a loop has set."""
    handles: list[asyncio.TimerHandle] = vars(loop)["_scheduled"]
    return sum(not handle.cancelled() for handle in handles)


class Elsewhere:
    """An event loop that runs in a thread of its own."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.run(cancel_all())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive(), "the loop hangs"
        self.loop.close()

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Run a coroutine in the loop, and return what it returns."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(PATIENCE)

    def begin(self, coroutine: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Start a task, and return it when it waits or is over."""
        task: asyncio.Task[Any] = self.run(begin(coroutine))
        return task

    def outcome(self, task: asyncio.Task[Any]) -> Any:
        """Return what a task returned or raised."""
        return self.run(outcome(task))

    @contextmanager
    def stuck(self) -> Iterator[None]:
        """Have the loop do nothing for the time of the block."""
        begun, over = threading.Event(), threading.Event()

        def stick() -> None:
            begun.set()
            over.wait(PATIENCE)

        self.loop.call_soon_threadsafe(stick)
        assert begun.wait(PATIENCE)
        try:
            yield
        finally:
            over.set()


async def cancel_all() -> None:
    """Cancel every other task of the loop."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)


def abandoned(start: Callable[[], Coroutine[Any, Any, Any]]) -> asyncio.Task[Any]:
    """Return a task that waits for ever, for its loop is closed."""
    loop = asyncio.new_event_loop()
    task: asyncio.Task[Any] = loop.run_until_complete(begin(start()))
    loop.close()
    vars_of: Any = task
    vars_of._log_destroy_pending = False  # asyncio would log that it was destroyed, as it was
    return task


def traces(topic: Topic[Any]) -> dict[str, int]:
    """Check a topic, and return how much of those who waited is left in it, where there is any."""
    topic._check()
    monitor = topic._monitor
    found = {
        "woken": len(monitor.woken),
        "joins": len(monitor.joins),
        "waiting": monitor.waiting,
        "putters": len(monitor.putters),
        "after": monitor.after,
    }
    for name, channel in topic.channels.items():
        waiters = channel._queue.waiters
        found[f"{name}: able"] = len(waiters.able)
        found[f"{name}: parked"] = len(waiters.parked)
        found[f"{name}: threads"] = len(waiters.threads)
        found[f"{name}: watcher"] = waiters.watcher is not None
        found[f"{name}: handed"] = len(waiters.handed)
        found[f"{name}: notified"] = len(waiters.notified)
        for loop, timer in waiters.timers.items():
            assert isinstance(loop, asyncio.AbstractEventLoop)
            if not loop.is_closed():
                found[f"{name}: {timer}"] = len(timer.waiters)
    return {what: count for what, count in found.items() if count}
