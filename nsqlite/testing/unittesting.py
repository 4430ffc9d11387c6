"""A fake broker for tests that are written with `unittest`.

The rule: what a test asks for is made when it asks, and nothing of it is left at its end.

Next: testing/plugin/pytest_nsqlite.py
"""

from collections.abc import Iterable
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar, Final

from nsqlite.errors import Closed, InvalidOption
from nsqlite.testing.address import nsqd
from nsqlite.testing.fakebroker import FakeBroker, Mode
from nsqlite.testing.idle import running_loop
from nsqlite.testing.leaks import Tracker, chosen, told
from nsqlite.testing.manualclock import ManualClock

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop
    from unittest import TestCase

    from nsqlite.worker.app import App
else:  # whoever uses this has loaded it, and nobody else has to
    TestCase = object


class AppBlock:
    """The block in which an app works on the broker of a test.

    Coroutine functions run in the loop of the test, if it begins in one; then its end has them
    stopped in that loop, though the test is over.  There the handlers at work have the app's time,
    but of real time no more than the patience of the clock, which nobody moves any more.

    Attributes:
        loop: in which tasks of the app run that are not stopped yet; None if there is none.
    """

    def __init__(self, app: "App", broker: FakeBroker) -> None:
        """Make it; nothing runs before the block.

        Raises:
            InvalidOption: it is no app.
        """
        from nsqlite.worker.app import App  # noqa: PLC0415 - whoever has one has loaded it

        if not isinstance(app, App):
            raise InvalidOption("app", app, "an App")
        self.loop: AbstractEventLoop | None = None
        self._app: Final = app
        self._broker: Final = broker
        self._running: Final = app.running(broker)
        self._is_over = False

    def __enter__(self) -> "App":
        """Start the workers."""
        self._running.__enter__()
        if self._broker.mode == "real":
            self.loop = running_loop()
        return self._app

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop the workers, unless that is done, in their loop if that can run."""
        loop = self.loop
        if self._is_over:
            return
        if loop is None or loop.is_closed() or loop.is_running() or running_loop() is not None:
            self._running.__exit__(kind, error, traceback)
        else:
            loop.run_until_complete(self.end())

    async def end(self) -> None:
        """Stop the workers, in their loop."""
        import asyncio  # noqa: PLC0415 - who has a loop has loaded it

        self._is_over = True
        self.loop = None
        workers = self._app.workers
        stopping = self._running.__aexit__(None, None, None)
        try:
            await asyncio.wait_for(stopping, self._broker.clock.patience)
        except TimeoutError:
            await asyncio.gather(*(worker._stop_async(0) for worker in workers))


class NSQLiteMixin(TestCase):
    """Gives a `unittest.TestCase` a fake broker, and has it leave nothing behind.

        class OrderTest(nsqlite.testing.NSQLiteMixin, unittest.TestCase):
            def test_order_is_billed(self):
                self.run_app(app)
                self.broker.topic("orders").put(b"order 1")
                self.broker.run_until_idle()

    It must stand before the class of `unittest`, which may be `IsolatedAsyncioTestCase`, too.  A
    `setUp` of your own must call ``super().setUp()``.

    Attributes:
        mode: how handlers run; see `FakeBroker`.
        leaks: what no test must leave behind; see `no_leaks`.
        nsqd_options: for `nsqd`.
    """

    mode: ClassVar[Mode] = "captured"
    leaks: ClassVar[bool | str | Iterable[str]] = True
    nsqd_options: ClassVar[dict[str, Any]] = {}

    _broker: FakeBroker | None = None
    _nsqd: nsqd | None = None
    _tracker: Tracker | None = None

    def __init_subclass__(cls, **options: Any) -> None:
        """Require its place among the bases.

        Raises:
            TypeError: it stands after the class of `unittest`, whose `setUp` calls no other.
        """
        from unittest import TestCase as Case  # noqa: PLC0415 - whoever has a base of it has it

        super().__init_subclass__(**options)
        bases = cls.__mro__
        if Case in bases[: bases.index(NSQLiteMixin)]:
            raise TypeError(
                f"NSQLiteMixin must stand before the class of unittest:"
                f" class {cls.__name__}(NSQLiteMixin, ...)"
            )

    def setUp(self) -> None:
        """Begin to take note of what is made."""
        super().setUp()
        tracker = self._tracker = Tracker(chosen(self.leaks))
        tracker.begin()
        self.addCleanup(self._end, tracker)  # the first, so the last that is called

    def _end(self, tracker: Tracker) -> None:
        found = tracker.end()
        if found:
            self.fail(told(found))

    @property
    def broker(self) -> FakeBroker:
        """The test's broker, made when it is first asked for, and closed at the end.

        Raises:
            Closed: a `setUp` has not called ``super().setUp()``.
        """
        if self._tracker is None:
            raise Closed(type(self).__name__, "not set up: its setUp must call super().setUp()")
        if self._broker is None:
            self._broker = FakeBroker(mode=self.mode)
            self.addCleanup(self._close, self._tracker, self._broker)
        return self._broker

    def _close(self, tracker: Tracker, broker: FakeBroker) -> None:
        tracker.end_broker(broker)
        broker.close(force=True)

    @property
    def clock(self) -> ManualClock:
        """The clock of `broker` and `nsqd`."""
        return self.broker.clock

    @property
    def nsqd(self) -> nsqd:
        """A real NSQ address that serves `broker`, begun when it is first asked for."""
        if self._nsqd is None:
            self._nsqd = self.enterContext(nsqd(broker=self.broker, **self.nsqd_options))
        return self._nsqd

    def run_app(self, app: "App") -> "App":
        """Start an app's workers on `broker`, and return it; they are stopped at the end."""
        return self.enterContext(AppBlock(app, self.broker))
