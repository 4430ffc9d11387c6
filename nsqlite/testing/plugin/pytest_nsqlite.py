"""The pytest plugin of nsqlite: fixtures for a broker on a clock moved by hand, and a leak check.

It is installed beside the package, so that pytest, which loads every plugin that is installed,
loads nothing of nsqlite by it: that comes when a fixture is asked for, or a test imports it.  It
also lets a measurement of coverage begin before nsqlite is loaded.

Next: testing/clients/__init__.py
"""

import sys
from collections.abc import AsyncIterator, Callable, Generator, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from difflib import get_close_matches
from inspect import isasyncgenfunction, iscoroutinefunction, signature
from typing import TYPE_CHECKING, Any, Final, NoReturn, TypeVar

import pytest

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

    from nsqlite import App
    from nsqlite.testing import FakeBroker, ManualClock
    from nsqlite.testing import nsqd as NSQD  # noqa: N812 - beside a fixture of this name
    from nsqlite.testing.leaks import Tracker
    from nsqlite.testing.unittesting import AppBlock

T = TypeVar("T")

OPTIONS: Final = ("mode", "broker", "clock", "nsqd", "leaks")
"""What the mark takes."""

MODES: Final = ("captured", "inline", "real")
"""How handlers run; as `nsqlite.testing.fakebroker.Mode`, which is not loaded for it."""

KINDS: Final = ("messages", "waits", "workers", "stores", "servers", "brokers")
"""What can be left behind; as `nsqlite.testing.leaks.KINDS`, which is not loaded for it."""

TURNS: Final = 10
"""Turns of a loop in which a task that was cancelled, or a worker that was stopped, ends."""

LOOP: Final = "_nsqlite_loop"
"""The fixture that looks at an event loop before it is closed."""

SECTION: Final = "nsqlite leaks"
"""What is left behind by a test that has failed."""

MARK: Final = (
    "nsqlite(mode='captured', broker={}, clock={}, nsqd={}, leaks=True): options for nsqlite's"
    " fixtures and its leak check: how handlers run ('captured', 'inline' or 'real'); options of"
    " FakeBroker, ManualClock and nsqlite.testing.nsqd; and what a test must not leave behind"
    " (False for no check, or names as in nsqlite_leaks)."
)

LEAKS: Final = (
    "what a test must not leave behind: names of messages, waits, workers, stores, servers (these"
    " by default), brokers (those in memory, too); or all, or none"
)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add what can be chosen for all tests."""
    parser.addini("nsqlite_leaks", LEAKS, type="args", default=None)
    group = parser.getgroup("nsqlite")
    group.addoption("--nsqlite-leaks", metavar="NAMES", help=f"{LEAKS}; in place of nsqlite_leaks")


def pytest_configure(config: pytest.Config) -> None:
    """Register the mark, and the leak check."""
    config.addinivalue_line("markers", MARK)
    usual = _usual(config)
    config.pluginmanager.register(LeakCheck(config, usual), "nsqlite leaks")


def _usual(config: pytest.Config) -> bool | list[str]:
    """Return what counts in a test that says nothing else."""
    given = config.getoption("--nsqlite-leaks")
    what = "--nsqlite-leaks" if given else "nsqlite_leaks"
    names = _names(given or " ".join(config.getini("nsqlite_leaks") or ()))
    wrong = _wrong_leaks(what, names)
    if wrong:
        raise pytest.UsageError(wrong)
    return names or True


# What the mark says


def _names(given: str) -> list[str]:
    return given.replace(",", " ").split()


def _one_of(what: str, name: object, known: Iterable[str]) -> str:
    """Return what is wrong with a name, which is not among those that are known."""
    near = get_close_matches(name, known, 1) if isinstance(name, str) else []
    meant = "".join(f" (did you mean {one!r}?)" for one in near)
    return f"{what} must be one of {', '.join(known)}{meant}, not {name!r}"


def _wrong_leaks(what: str, given: Any) -> str:
    """Return what is wrong with a choice of kinds; empty if nothing is."""
    if isinstance(given, bool):
        return ""
    known = (*sorted(KINDS), "all", "none")
    if not isinstance(given, Iterable):
        return f"{what} must be True, False or names of {', '.join(known)}, not {given!r}"
    names = _names(given) if isinstance(given, str) else given
    wrong = (_one_of(what, name, known) for name in names if name not in known)
    return next(wrong, "")


def _wrong_options(name: str, given: Any) -> str:
    """Return what is wrong with the options of a thing; empty if nothing is."""
    if not isinstance(given, Mapping) or not all(isinstance(one, str) for one in given):
        return f"{name} must be a dict of its options, not {given!r}"
    for one in ("mode", "clock") if name == "broker" else ():
        if one in given:
            return f"{one} is no option of broker but of the mark itself: {one}=..."
    return ""


def _wrong_value(name: str, given: Any) -> str:
    """Return what is wrong with an option of the mark; empty if nothing is."""
    if name not in OPTIONS:
        return _one_of("an option", name, OPTIONS)
    if name == "leaks":
        return _wrong_leaks(name, given)
    if name == "mode":
        return "" if given in MODES else _one_of(name, given, MODES)
    return _wrong_options(name, given)


def _require_right(mark: pytest.Mark) -> None:
    """Fail a test whose mark says what there is not."""
    if mark.args:
        pytest.fail(f"the mark nsqlite takes options by name: {MARK}", pytrace=False)
    for name, given in mark.kwargs.items():
        wrong = _wrong_value(name, given)
        if wrong:
            _fail(wrong)


def _fail(wrong: object) -> NoReturn:
    pytest.fail(f"@pytest.mark.nsqlite: {wrong}", pytrace=False)


def _require_known(name: str, options: Iterable[str], known: Iterable[str]) -> None:
    """Fail a test whose mark names options that there are not."""
    from nsqlite.options import unknown_option  # noqa: PLC0415 - it is loaded already

    for one in options:
        if one not in known:
            _fail(f"{name}: {unknown_option('option', one, known)}")


def _made(name: str, make: Callable[[], T]) -> T:
    """Make something with options of the mark; fail the test if they are wrong."""
    from nsqlite import NSQLiteError  # noqa: PLC0415 - it is loaded already

    try:
        return make()
    except (NSQLiteError, TypeError) as error:
        wrong = f"{name}: {error}"
    _fail(wrong)  # out here, so that pytest does not tell of the error, too


def _option(node: pytest.Item, name: str, default: Any) -> Any:
    """Return an option of the marks of a test, of which the nearest wins."""
    given = [mark.kwargs[name] for mark in node.iter_markers("nsqlite") if name in mark.kwargs]
    return given[0] if given else default


# The fixtures


@pytest.fixture
def fake_broker(request: pytest.FixtureRequest) -> "Iterator[FakeBroker]":
    """An `nsqlite.testing.FakeBroker`: a broker on a clock moved by hand, closed after the test.

    Its workers call their handlers when the test says `fake_broker.run_until_idle()`; choose
    another way, or options, by ``@pytest.mark.nsqlite(mode="real", broker={"msg_timeout": 5})``.
    """
    from nsqlite.options import DEFAULTS  # noqa: PLC0415 - only who asks has them
    from nsqlite.testing import FakeBroker, ManualClock  # noqa: PLC0415 - as above

    check = _check(request)
    check.begin(request.node)
    given = _option(request.node, "clock", {})
    _require_known("clock", given, signature(ManualClock).parameters)
    clock = _made("clock", lambda: ManualClock(**given))
    mode = _option(request.node, "mode", "captured")
    options = _option(request.node, "broker", {})
    _require_known("broker", options, ("observers", "seed", "store", *DEFAULTS._fields))
    broker = _made("broker", lambda: FakeBroker(mode=mode, clock=clock, **options))
    yield broker
    check.end_broker(broker)
    broker.close(force=True)


@pytest.fixture
def manual_clock(fake_broker: "FakeBroker") -> "ManualClock":
    """The `nsqlite.testing.ManualClock` of `fake_broker`, and of `nsqd`.

    Give it options by ``@pytest.mark.nsqlite(clock={"autojump": True})``.
    """
    return fake_broker.clock


@pytest.fixture
def run_app(
    request: pytest.FixtureRequest, fake_broker: "FakeBroker"
) -> "Iterator[Callable[[App], App]]":
    """A function that starts the workers of an `nsqlite.App` on `fake_broker`, and returns the app.

    They run until the end of the test, and each app has its own.
    """
    from nsqlite.testing.unittesting import AppBlock  # noqa: PLC0415 - only who asks has it

    check = _check(request)
    with ExitStack() as apps:

        def run(app: "App") -> "App":
            with check.nothing_noted():  # all of it is stopped here
                block = AppBlock(app, fake_broker)
                apps.enter_context(block)
            check.apps.append(block)
            return app

        yield run


@pytest.fixture
def nsqd(request: pytest.FixtureRequest, fake_broker: "FakeBroker") -> "Iterator[NSQD]":
    """An `nsqlite.testing.nsqd`: a real NSQ address of this test's own, which serves `fake_broker`.

    It is on the clock of that, so move time by `nsqd.advance(seconds)`.  Give it options by
    ``@pytest.mark.nsqlite(nsqd={"http": True})``; those that a broker has, as `msg_timeout`, by
    ``broker={...}``.  With a `data_path` it has a broker of its own.
    """
    from nsqlite.testing import nsqd  # noqa: PLC0415 - only who asks has it

    options = _option(request.node, "nsqd", {})
    if "data_path" in options:
        options = {"clock": fake_broker.clock, **options}
    else:
        options = {"broker": fake_broker, **options}
        for name in options.keys() & fake_broker.options._asdict().keys():
            _fail(f"give {name} to the broker: broker={{{name!r}: ...}}")
    with ExitStack() as stack:
        yield _made("nsqd", lambda: stack.enter_context(nsqd(**options)))


@pytest.fixture(name=LOOP)
async def _loop(request: pytest.FixtureRequest) -> AsyncIterator[None]:
    """Look at the loop of anyio's plugin, which is closed after the last asynchronous fixture."""
    yield
    await _check(request).end_loop()


# The leak check


def _check(request: pytest.FixtureRequest) -> "LeakCheck":
    check: LeakCheck = request.config.stash[CHECK]
    return check


class LeakCheck:
    """Fails a test that leaves something behind; see `nsqlite.testing.no_leaks`.

    What a fixture of a wider scope makes is looked at when that is over.  It does nothing as long
    as nobody has imported nsqlite.

    Attributes:
        apps: what `run_app` has started in this test.
    """

    def __init__(self, config: pytest.Config, usual: bool | list[str]) -> None:
        """Begin without a test."""
        config.stash[CHECK] = self
        self._usual: Final = usual
        self._tracker: Tracker | None = None  # of what is made now
        self._wider: Final[dict[object, Tracker]] = {}  # by the fixtures that have made it
        self._over: Final[list[Tracker]] = []  # of fixtures that are over
        self._has_failed = False
        self._failed_setups: Final[dict[str, pytest.TestReport]] = {}  # of tests that are not over
        self.apps: Final[list[AppBlock]] = []

    def begin(self, item: pytest.Item) -> None:
        """Begin to take note for a test, unless that is done."""
        if self._tracker is not None:
            return
        from nsqlite.testing.leaks import Tracker, chosen  # noqa: PLC0415 - it is loaded already

        kinds = chosen(_option(item, "leaks", self._usual))
        if kinds:
            self._tracker = Tracker(kinds)
            self._tracker.begin()

    def end_broker(self, broker: "FakeBroker") -> None:
        """Look at a broker that is about to be closed."""
        if self._tracker is not None:
            self._tracker.end_broker(broker)

    @contextmanager
    def nothing_noted(self) -> Iterator[None]:
        """Take no note of what is made in a block."""
        tracker = self._tracker
        if tracker is None:
            yield
            return
        tracker.pause()
        try:
            yield
        finally:
            tracker.resume()

    async def end_loop(self) -> None:
        """Stop the apps of the running loop, and look at it; it may be closed next."""
        import asyncio  # noqa: PLC0415 - only where there may be a loop

        loop = asyncio._get_running_loop()
        if loop is None:  # it is another library's
            return
        for app in self.apps:
            if app.loop is loop:
                await app.end()
        for _ in range(TURNS):
            await asyncio.sleep(0)
        for tracker in self._ending():
            tracker.end_loop(loop)

    def _ending(self) -> "list[Tracker]":
        """Return the trackers of the test that ends, and of fixtures that have ended with it."""
        return self._over if self._tracker is None else [*self._over, self._tracker]

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        """Begin before the fixtures."""
        self._has_failed = False
        for mark in item.iter_markers("nsqlite"):
            _require_right(mark)
        if "nsqlite" in sys.modules:
            self.begin(item)
        is_needed = self._tracker is not None or "run_app" in getattr(item, "fixturenames", ())
        if is_needed and isinstance(item, pytest.Function) and _is_anyios(item):
            item.fixturenames.append(LOOP)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self) -> Generator[None, Any, Any]:
        """Take note of a failure, which is not to be hidden by another one."""
        report = yield
        self._has_failed |= report.failed
        return report

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Have what is left behind shown with a failed setup, for which pytest has no more to show.

        With pytest-xdist this is called where the reports of its processes come together.
        """
        if report.when == "setup" and report.failed:
            self._failed_setups[report.nodeid] = report
        elif report.when == "teardown":
            setup = self._failed_setups.pop(report.nodeid, None)
            if setup is not None and report.passed:
                setup.sections += [one for one in report.sections if SECTION in one[0]]

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_fixture_setup(
        self, fixturedef: pytest.FixtureDef[Any], request: pytest.FixtureRequest
    ) -> Generator[None, object, object]:
        """Put aside what a fixture makes that stays when the test is over, and look at its loop."""
        tracker = self._tracker
        if tracker is not None and fixturedef.scope != "function":
            made = yield from self._set_up_wider(tracker, fixturedef)
        else:
            if (
                LOOP in request.fixturenames
                and fixturedef.argname != LOOP
                and _is_async(fixturedef)
            ):
                request.getfixturevalue(LOOP)  # so that it ends after this one
            made = yield
        if _loop_of(made) is not None:
            fixturedef.addfinalizer(lambda: self._end_fixture(made))
        return made

    def _end_fixture(self, made: object) -> None:
        """Look at a loop before the fixture that has made it closes it."""
        loop = _loop_of(made)
        if loop is not None and (self.apps or self._ending()):
            loop.run_until_complete(self.end_loop())

    def _set_up_wider(
        self, tracker: "Tracker", fixturedef: pytest.FixtureDef[Any]
    ) -> Generator[None, object, object]:
        wider = self._wider[fixturedef] = type(tracker)(tracker.kinds)
        tracker.pause()
        wider.begin()
        self._tracker = wider
        try:
            return (yield)
        finally:
            wider.pause()
            tracker.resume()
            self._tracker = tracker

    def pytest_fixture_post_finalizer(self, fixturedef: pytest.FixtureDef[Any]) -> None:
        """Look at what a fixture has made, at the end of the test after which it ends."""
        if fixturedef in self._wider:
            self._over.append(self._wider.pop(fixturedef))

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_teardown(self, item: pytest.Item) -> Generator[None, None, None]:
        """Look after the fixtures."""
        try:
            yield
        except BaseException:
            self._has_failed = True
            self._end(item)
            raise
        self._end(item)

    def _end(self, item: pytest.Item) -> None:
        leaks = [leak for one in self._ending() for leak in one.end()]
        self._tracker = None
        self._over.clear()
        self.apps.clear()
        if not leaks:
            return
        from nsqlite.testing.leaks import told  # noqa: PLC0415 - it is loaded already

        if self._has_failed:
            item.add_report_section("teardown", SECTION, told(leaks))
        else:
            pytest.fail(told(leaks), pytrace=False)


def _is_async(fixturedef: pytest.FixtureDef[Any]) -> bool:
    return iscoroutinefunction(fixturedef.func) or isasyncgenfunction(fixturedef.func)


def _is_anyios(item: pytest.Function) -> bool:
    """Return whether anyio's plugin runs a test in a loop, which nobody looks at yet."""
    names = item.fixturenames
    return "anyio_backend" in names and LOOP not in names and iscoroutinefunction(item.function)


def _loop_of(made: object) -> "AbstractEventLoop | None":
    """Return the open loop that a fixture has made, or its runner, as pytest-asyncio's has."""
    asyncio = sys.modules.get("asyncio")
    runner, loop = (getattr(asyncio, name, ()) for name in ("Runner", "AbstractEventLoop"))
    found: Any = getattr(made, "_loop", None) if isinstance(made, runner) else made
    return found if isinstance(found, loop) and not found.is_closed() else None


CHECK: Final = pytest.StashKey[LeakCheck]()
