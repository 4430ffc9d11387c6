"""The pytest plugin: its fixtures, its mark, what it finds left behind, and what it loads."""

import importlib
import inspect
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent
from typing import Final, TypeAlias, get_args

import pytest

import nsqlite
from nsqlite.options import TopicOptions
from nsqlite.testing import FakeBroker, leaks
from nsqlite.testing.fakebroker import Mode

pytestmark = pytest.mark.nsqlite(leaks=False)
"""What is left behind in a run within a test is that run's concern."""

Run: TypeAlias = Callable[..., pytest.RunResult]

SAYS: Final = "@pytest.mark.nsqlite"

AUTOLOAD: Final = "PYTEST_DISABLE_PLUGIN_AUTOLOAD"

ROOT: Final = Path(nsqlite.__file__).parent.parent


@pytest.fixture
def run(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Return what runs pytest on a test file, with this plugin and no other, loaded anew."""
    monkeypatch.setenv(AUTOLOAD, "1")
    monkeypatch.delitem(sys.modules, "pytest_nsqlite")

    def run(source: str, *arguments: str, imports: str = "nsqlite, pytest") -> pytest.RunResult:
        pytester.makepyfile(test_it=f"import {imports}\n{dedent(source)}")
        return pytester.runpytest_inprocess(
            *(*arguments, "-p", "pytest_nsqlite", "-p", "no:cacheprovider")
        )

    return run


def left_behind(result: pytest.RunResult) -> list[str]:
    """Return the lines that tell of what was left behind, without what differs in each run."""
    lines = [line for line in result.outlines if re.match(r"  [a-z]+: .* made at ", line)]
    return [re.sub(r"<[^>]*>|/\S*/|\b[0-9a-f]{16}\b", "_", line).strip() for line in lines]


ORDER: Final = """
@pytest.fixture
def consumer():
    topic = nsqlite.Topic("orders")
    consumer = nsqlite.Consumer(topic.channel("billing"))
    topic.put(b"order 1")
    return consumer
"""

HELD: Final = """
@pytest.fixture(scope="module")
def held():
    topic = nsqlite.Topic("orders")
    consumer = nsqlite.Consumer(topic.channel("billing"))
    topic.put(b"order 1")
    yield consumer.get(timeout=0)
"""


# The fixtures


def test_a_broker_and_its_clock(run: Run) -> None:
    """A test gets a fake broker on a manual clock, which is closed at its end."""
    result = run("""
        brokers = []

        def test_first(fake_broker, manual_clock):
            assert manual_clock is fake_broker.clock
            channel = fake_broker.topic("orders").channel("billing")
            fake_broker.topic("orders").put(b"order 1", delay=5)
            manual_clock.advance(5)
            assert channel.depth == 1
            brokers.append(fake_broker)

        def test_second(fake_broker):
            assert brokers[0] is not fake_broker
            with pytest.raises(nsqlite.Closed):
                brokers[0].topic("orders")
    """)
    result.assert_outcomes(passed=2)


def test_apps_run_until_the_end(run: Run) -> None:
    """Several apps get workers on the broker, which are stopped at the end of the test."""
    result = run("""
        apps = [nsqlite.App(), nsqlite.App()]
        for name, app in zip(("a", "b"), apps):
            app.handler("orders", name)(print)

        def test_first(run_app, fake_broker):
            assert apps == [run_app(app) for app in apps]
            assert [True, True] == [app.workers[0].running for app in apps]
            assert apps[0].broker is fake_broker

        def test_second():
            assert [[], []] == [app.workers for app in apps]
    """)
    result.assert_outcomes(passed=2)


def test_an_address_that_serves_the_broker(run: Run) -> None:
    """The nsqd of a test serves its broker on its clock, at an address that is gone afterwards."""
    result = run("""
        import socket

        servers = []

        def test_first(nsqd, fake_broker, manual_clock):
            assert (nsqd.broker, nsqd.clock) == (fake_broker, manual_clock)
            socket.create_connection((nsqd.host, nsqd.port)).close()
            servers.append(nsqd)

        def test_second():
            with pytest.raises(nsqlite.Closed):
                servers[0].tcp_address
    """)
    result.assert_outcomes(passed=2)


def test_the_mark_chooses(run: Run) -> None:
    """The nearest mark wins, option by option."""
    result = run("""
        pytestmark = pytest.mark.nsqlite(mode="real", broker={"msg_timeout": 5})

        @pytest.mark.nsqlite(mode="inline", clock={"autojump": True}, nsqd={"max_rdy_count": 7})
        def test_it(fake_broker, nsqd):
            assert (fake_broker.mode, fake_broker.options.msg_timeout) == ("inline", 5)
            assert fake_broker.clock.autojump
            assert nsqd._nsqd.options.max_rdy_count == 7
    """)
    result.assert_outcomes(passed=1)


def test_an_address_with_files(run: Run) -> None:
    """With a data path an nsqd has a broker of its own, on the same clock."""
    result = run("""
        import tempfile

        @pytest.mark.nsqlite(nsqd={"data_path": tempfile.mkdtemp()})
        def test_it(nsqd, fake_broker):
            assert nsqd.broker is not fake_broker
            assert nsqd.clock is fake_broker.clock
    """)
    result.assert_outcomes(passed=1)


def test_an_option_of_the_broker_given_to_the_address(run: Run) -> None:
    """What holds for the broker is not taken for its address, which would not heed it."""
    result = run("""
        @pytest.mark.nsqlite(nsqd={"msg_timeout": 5})
        def test_it(nsqd): ...
    """)
    result.assert_outcomes(errors=1)
    text = "@pytest.mark.nsqlite: give msg_timeout to the broker: broker={'msg_timeout': ...}"
    result.stdout.fnmatch_lines([text])


WRONG: Final = "an option must be one of mode, broker, clock, nsqd, leaks"

NAMES: Final = "brokers, messages, servers, stores, waits, workers, all, none"


OF_CLOCK: Final = "option must be one of autojump, patience, start"

OF_BROKER: Final = "option must be one of " + ", ".join(
    sorted(
        inspect.signature(FakeBroker).parameters.keys() - {"mode", "clock", "options"}
        | TopicOptions.__annotations__.keys()
    )
)


@pytest.mark.parametrize(
    ("mark", "text"),
    [
        (
            'mod="real"',
            f"{SAYS}: {WRONG} (did you mean 'mode'?), not 'mod'",
        ),
        (
            "zzz=1",
            f"{SAYS}: {WRONG}, not 'zzz'",
        ),
        ('"real"', "the mark nsqlite takes options by name: *"),
        ("leaks=5", f"{SAYS}: leaks must be True, False or names of {NAMES}, not 5"),
        (
            'leaks=["store"]',
            f"{SAYS}: leaks must be one of {NAMES} (did you mean 'stores'?), not 'store'",
        ),
        ("leaks=[5]", f"{SAYS}: leaks must be one of {NAMES}, not 5"),
        (
            'mode="inlin"',
            f"{SAYS}: mode must be one of * (did you mean 'inline'?), not 'inlin'",
        ),
        ("broker=5", f"{SAYS}: broker must be a dict of its options, not 5"),
        ("nsqd={5: 5}", f"{SAYS}: nsqd must be a dict of its options, not {{5: 5}}"),
        (
            'broker={"mode": "real"}',
            f"{SAYS}: mode is no option of broker but of the mark itself: mode=...",
        ),
        (
            'broker={"msg_timeot": 5}',
            f"{SAYS}: broker: {OF_BROKER} (did you mean 'msg_timeout'?), not 'msg_timeot'",
        ),
        (
            'broker={"msg_timeout": "5"}',
            f"{SAYS}: broker: msg_timeout must be a finite number of seconds, *, not '5'",
        ),
        (
            'clock={"jump": True}',
            f"{SAYS}: clock: {OF_CLOCK} (did you mean 'autojump'?), not 'jump'",
        ),
        (
            'clock={"patience": 0}',
            f"{SAYS}: clock: patience must be a finite number of seconds, above 0, not 0",
        ),
        (
            'nsqd={"data_path": "/nowhere/at/all"}',
            f"{SAYS}: nsqd: /nowhere/at/all: there is no such directory",
        ),
        (
            'nsqd={"max_rdy": 3}',
            f"{SAYS}: nsqd: option must be one of * (did you mean 'max_rdy_count'?), not 'max_rdy'",
        ),
    ],
)
def test_a_mark_that_says_what_there_is_not(run: Run, mark: str, text: str) -> None:
    """Its test does not run, and the nearest option is named, in a line and without a traceback."""
    result = run(f"@pytest.mark.nsqlite({mark})\ndef test_it(nsqd): ...")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines([text.replace("[", "[[]")])
    for more in ("E *", "During handling *"):
        result.stdout.no_fnmatch_line(more)


def test_what_is_no_app(run: Run) -> None:
    """Only an app can be run."""
    result = run("def test_it(run_app): run_app(5)")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["E *InvalidOption: app must be an App, not 5"])


def test_it_knows_what_it_does_not_load() -> None:
    """Its names of modes and of kinds of leaks are those of the package."""
    plugin = importlib.import_module("pytest_nsqlite")
    assert (get_args(Mode), leaks.KINDS) == (plugin.MODES, plugin.KINDS)


def test_what_pytest_shows_of_it(run: Run) -> None:
    """The fixtures and the mark are described."""
    shown = run("", "--fixtures").stdout.str()
    for name in ("fake_broker", "manual_clock", "run_app", "nsqd"):
        assert re.search(rf"^{name} -- .*\n    An?|The `?nsqlite", shown, re.MULTILINE)
    run("", "--markers").stdout.fnmatch_lines([f"{MARK}mode='captured', *"])


def test_a_failed_assertion_ends_in_the_test(run: Run) -> None:
    """Its own line is the last that is shown, and what happened is in the error."""
    result = run("""
        def test_it(fake_broker):
            fake_broker.topic("orders").put(b"order 1")
            fake_broker.history.assert_published("orders", body=b"order 2")
    """)
    result.assert_outcomes(failed=1)
    [line] = [line for line in result.outlines if line.startswith(">")]
    assert 'fake_broker.history.assert_published("orders", body=b"order 2")' == line[1:].strip()
    text = "at least 1 published to orders with body b'order 2', found 0 of 1"
    result.stdout.fnmatch_lines(
        [f"E *AssertionError: expected {text}", "*test_it.py:5: AssertionError"]
    )


# What is left behind

KINDS: Final = {
    "messages": (
        "def test_it(consumer):\n    consumer.get(timeout=0)",
        "messages: _ with b'order 1', attempt 1, in flight in _, made at _test_it.py:6",
    ),
    "waits": (
        """
import threading

def test_it():
    consumer = nsqlite.Consumer(nsqlite.Topic("orders").channel("billing"))
    threading.Thread(target=lambda: consumer.get(), daemon=True, name="other").start()
    while not consumer.channel._queue.waiters.threads: pass
""",
        "waits: thread 'other' waits at _test_it.py:15 in get of _, made at _test_it.py:14",
    ),
    "workers": (
        "def test_it(consumer):\n    nsqlite.Worker(consumer.channel, print).start()",
        "workers: _, made at _test_it.py:11",
    ),
    "stores": (
        "def test_it(tmp_path):\n    nsqlite.Broker(store=nsqlite.SQLite(tmp_path / 'jobs.db'))",
        "stores: _, not closed, made at _test_it.py:11",
    ),
    "servers": (
        "def test_it():\n    nsqlite.testing.nsqd().__enter__()",
        "servers: _, not stopped, made at _test_it.py:11",
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_left_behind_fails_its_test(run: Run, kind: str) -> None:
    """The test that leaves something behind has an error that says what, and where it was made."""
    test, line = KINDS[kind]
    result = run(f"{ORDER}\n{test}\ndef test_next(): ...")
    result.assert_outcomes(passed=2, errors=1)
    assert [line] == left_behind(result)
    result.stdout.fnmatch_lines([f"ERROR test_it.py::test_it - Failed: left behind: {kind}"])


def test_what_is_left_of_the_broker_of_a_fixture(run: Run) -> None:
    """What the end of the fake broker settles is found before."""
    result = run("""
        def test_it(fake_broker):
            consumer = nsqlite.Consumer(fake_broker.topic("orders").channel("billing"))
            fake_broker.topic("orders").put(b"order 1")
            consumer.get()
            nsqlite.Worker(fake_broker.topic("mails").channel("send"), print).start()
    """)
    result.assert_outcomes(passed=1, errors=1)
    assert [
        "messages: _ with b'order 1', attempt 1, in flight in _, made at _test_it.py:4",
        "workers: _, made at _test_it.py:7",
    ] == left_behind(result)


def test_a_failure_is_not_hidden(run: Run) -> None:
    """Of a test that fails it is told in a section more."""
    result = run(f"{ORDER}\ndef test_it(consumer):\n    consumer.get(timeout=0)\n    assert 0")
    result.assert_outcomes(failed=1)
    assert [KINDS["messages"][1]] == left_behind(result)
    result.stdout.fnmatch_lines(["*- Captured nsqlite leaks teardown -*"])


def test_a_failure_of_the_end_is_not_hidden(run: Run) -> None:
    """Of a test whose fixture fails at its end it is told in a section more."""
    result = run(f"""{ORDER}
@pytest.fixture
def failing():
    yield
    raise LookupError

def test_it(failing, consumer):
    consumer.get(timeout=0)
""")
    result.assert_outcomes(passed=1, errors=1)
    assert [KINDS["messages"][1]] == left_behind(result)


@pytest.mark.parametrize("xdist", [[], ["-p", "xdist.plugin", "-n", "1"]])
def test_a_failure_of_the_setup_is_not_hidden(run: Run, xdist: list[str]) -> None:
    """Of a test whose fixture fails it is told in a section of that error, or of the last one."""
    result = run(
        f"""{ORDER}
@pytest.fixture
def failing(consumer):
    consumer.get(timeout=0)
    raise LookupError

@pytest.fixture
def ending():
    yield
    raise LookupError

@pytest.fixture
def fine():
    raise LookupError

def test_it(failing): ...
def test_twice(ending, failing): ...
def test_fine(fine): ...
""",
        *xdist,
    )
    result.assert_outcomes(errors=4)
    assert [KINDS["messages"][1]] * 2 == left_behind(result)
    told = [line.strip("_ ") for line in result.outlines if re.search(r"ERROR at| leaks ", line)]
    sections = ["setup of test_it", "", "setup of test_twice", "teardown of test_twice", ""]
    assert [*sections, "setup of test_fine"] == [line.partition("ERROR at ")[2] for line in told]


CHOICES: Final = f"""{ORDER}
def test_message(consumer):
    consumer.get(timeout=0)

def test_broker():
    nsqlite.Broker()
"""


@pytest.mark.parametrize(
    ("setting", "arguments", "kinds"),
    [
        (None, [], {"messages"}),
        ("none", [], set()),
        ("all", [], {"messages", "brokers"}),
        ("stores brokers", [], {"brokers"}),
        ("none", ["--nsqlite-leaks=messages"], {"messages"}),
        (None, ["--nsqlite-leaks=stores,brokers"], {"brokers"}),
        ("stores,brokers", [], {"brokers"}),
    ],
)
def test_what_counts_can_be_chosen(
    run: Run,
    pytester: pytest.Pytester,
    setting: str | None,
    arguments: list[str],
    kinds: set[str],
) -> None:
    """The settings choose kinds for all tests, the command line in place of the file."""
    if setting is not None:
        pytester.makeini(f"[pytest]\nnsqlite_leaks = {setting}")
    found = left_behind(run(CHOICES, *arguments))
    assert kinds == {line.partition(":")[0] for line in found}


def test_a_test_can_choose(run: Run) -> None:
    """The mark chooses kinds for one test, or has it left alone."""
    result = run(f"""{ORDER}
@pytest.mark.nsqlite(leaks=False)
def test_off(fake_broker, consumer):
    consumer.get(timeout=0)

@pytest.mark.nsqlite(leaks="stores")
def test_other(consumer):
    consumer.get(timeout=0)

@pytest.mark.nsqlite(leaks=["brokers"])
def test_broker(consumer):
    nsqlite.Broker()
""")
    result.assert_outcomes(passed=3, errors=1)
    assert ["brokers: _, not closed, made at _test_it.py:20"] == left_behind(result)


def test_a_kind_that_there_is_not(run: Run, pytester: pytest.Pytester) -> None:
    """A setting is refused before the first test; it is told which there are, and which is near."""
    result = run("def test_it(): ...", "--nsqlite-leaks=store")
    assert (pytest.ExitCode.USAGE_ERROR, []) == (result.ret, result.outlines)
    near = f"must be one of {NAMES} (did you mean 'stores'?), not 'store'"
    assert [f"ERROR: --nsqlite-leaks {near}"] == list(filter(None, result.errlines))
    pytester.makeini("[pytest]\nnsqlite_leaks = all ; or none")
    result = run("def test_it(): ...")
    text = f"ERROR: nsqlite_leaks must be one of {NAMES}, not ';'"
    assert [text] == list(filter(None, result.errlines))


def test_what_a_wider_fixture_makes_is_left_until_its_end(run: Run) -> None:
    """It is no leak of a test before, and one of the last that uses it if it stays."""
    result = run(f"""{HELD}
@pytest.fixture(scope="module")
def finished():
    topic = nsqlite.Topic("orders")
    consumer = nsqlite.Consumer(topic.channel("billing"))
    topic.put(b"order 2")
    with consumer.get(timeout=0) as message:
        yield message

def test_first(held, finished): ...
def test_second(held, finished): ...
""")
    result.assert_outcomes(passed=2, errors=1)
    assert ["messages: _ with b'order 1', attempt 1, in flight in _, made at _test_it.py:6"] == (
        left_behind(result)
    )
    result.stdout.fnmatch_lines(["ERROR test_it.py::test_second - *"])


def test_a_wider_fixture_and_its_last_test(run: Run) -> None:
    """Both are told of if both leave something behind, whether or not the test fails."""
    for end in ("pass", "assert 0"):
        result = run(f"""{HELD}
def test_first(): ...

def test_it(held):
    topic = nsqlite.Topic("mails")
    consumer = nsqlite.Consumer(topic.channel("send"))
    topic.put(b"mail 1")
    consumer.get(timeout=0)
    {end}
""")
        assert [
            "messages: _ with b'order 1', attempt 1, in flight in _, made at _test_it.py:6",
            "messages: _ with b'mail 1', attempt 1, in flight in _, made at _test_it.py:14",
        ] == left_behind(result)


def test_a_wider_fixture_of_a_test_that_is_left_alone(run: Run) -> None:
    """Where nothing counts nothing is noted."""
    result = run("""
        @pytest.fixture(scope="module")
        def worker():
            worker = nsqlite.Worker(nsqlite.Topic("orders").channel("billing"), print).start()
            yield
            worker.stop()

        @pytest.mark.nsqlite(leaks=False)
        def test_first(worker): ...

        def test_second(worker): ...
    """)
    result.assert_outcomes(passed=2)


def test_as_long_as_nobody_has_imported_it(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is noted in a run that has not loaded nsqlite."""
    monkeypatch.delitem(sys.modules, "nsqlite")
    source = """
        import sys

        def test_it(request):
            assert request.config.pluginmanager.get_plugin("nsqlite leaks")._tracker is None
            assert "nsqlite" not in sys.modules
    """
    run(source, imports="pytest").assert_outcomes(passed=1)


def test_a_block_fails_at_its_line(run: Run) -> None:
    """What `no_leaks` raises ends in the test, and shows no line of nsqlite."""
    result = run(f"""{ORDER}
def test_it(consumer):
    with nsqlite.testing.no_leaks():
        nsqlite.Worker(consumer.channel, print).start()
""")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["test_it.py:11: AssertionError"])
    result.stdout.no_fnmatch_line("*leaks.py*")


# With others


def test_with_unittest(run: Run) -> None:
    """A test of unittest is looked at as well."""
    result = run(f"""{ORDER}
import unittest

class TestOrders(unittest.TestCase):
    def test_it(self):
        nsqlite.Worker(nsqlite.Topic("orders").channel("billing"), print).start()
""")
    result.assert_outcomes(passed=1, errors=1)
    assert ["workers: _, made at _test_it.py:14"] == left_behind(result)


def test_with_xdist(run: Run) -> None:
    """The processes of pytest-xdist use it, and tell what is left behind."""
    result = run(
        f"{ORDER}\ndef test_it(consumer, fake_broker, nsqd):\n    consumer.get(timeout=0)",
        *("-p", "xdist.plugin", "-n", "1"),
    )
    result.assert_outcomes(passed=1, errors=1)
    assert [KINDS["messages"][1]] == left_behind(result)


ASYNC: Final = """
async def test_it(fake_broker, manual_clock, run_app, nsqd):
    orders = fake_broker.topic("orders")
    consumer = nsqlite.aio.Consumer(orders.channel("billing"))
    await nsqlite.aio.put(orders, b"order 1", delay=5)
    manual_clock.advance(5)
    with await consumer.get(timeout=0) as message:
        assert message.body == b"order 1"
    app = nsqlite.App()

    @app.handler("mails", "send")
    async def send(message): ...

    assert run_app(app).workers[0].running

async def test_leak(fake_broker):
    orders = fake_broker.topic("orders")
    consumer = nsqlite.aio.Consumer(orders.channel("billing"))
    orders.put(b"order 1")
    await consumer.get()
"""


@pytest.mark.parametrize(
    ("mark", "arguments"),
    [
        ("pytest.mark.asyncio", ["pytest_asyncio.plugin", "--asyncio-mode=strict"]),
        ("()", ["pytest_asyncio.plugin", "--asyncio-mode=auto"]),
        ("pytest.mark.anyio", ["anyio"]),
    ],
)
@pytest.mark.parametrize("mode", ["captured", "inline", "real"])
def test_in_an_event_loop(
    run: Run, pytester: pytest.Pytester, mark: str, arguments: list[str], mode: str
) -> None:
    """Tests that are coroutine functions use the fixtures, and are looked at."""
    if "asyncio" in arguments[0]:
        pytester.makeini("[pytest]\nasyncio_default_fixture_loop_scope = function")
    source = f"""
pytestmark = [pytest.mark.nsqlite(mode={mode!r}), *[{mark}]]
{ASYNC}
@pytest.fixture
def anyio_backend():
    return "asyncio"
""".replace("*[()]", "*()")
    result = run(source, "-p", *arguments)
    result.assert_outcomes(passed=2, errors=1)
    assert ["messages: _ with b'order 1', attempt 1, in flight in _, made at _test_it.py:21"] == (
        left_behind(result)
    )


LOOPS: Final = {
    "strict": ("pytest.mark.asyncio", ["pytest_asyncio.plugin", "--asyncio-mode=strict"]),
    "auto": ("pytest.mark.nsqlite", ["pytest_asyncio.plugin", "--asyncio-mode=auto"]),
    "anyio": ("pytest.mark.anyio", ["anyio"]),
}
"""A mark, and the plugin that runs coroutine functions, by what that is."""

TASKS: Final = """
import asyncio
pytestmark = {mark}
fixture = {fixture}

@pytest.fixture
def anyio_backend():
    return "asyncio"

@fixture
async def started():
    consumer = nsqlite.aio.Consumer(nsqlite.Topic("orders").channel("billing"))
    waits = asyncio.create_task(consumer.get())
    await asyncio.sleep(0)
    yield
    waits.cancel()

@fixture
async def used():
    yield

def begin(coroutine):
    return asyncio.create_task(coroutine, name="other")

@pytest.mark.nsqlite(mode="real")
async def test_fine(started, run_app):
    consumer = nsqlite.aio.Consumer(nsqlite.Topic("orders").channel("billing"))
    waits = begin(consumer.get())
    await asyncio.sleep(0)
    waits.cancel()
    app = nsqlite.App()

    @app.handler("mails", "send")
    async def send(message): ...

    run_app(app)

async def handle(message): ...

async def test_waits():
    consumer = nsqlite.aio.Consumer(nsqlite.Topic("orders").channel("billing"))
    begin(consumer.get())
    await asyncio.sleep(0)

async def test_works(used):
    nsqlite.Worker(nsqlite.Topic("orders").channel("billing"), handle).start()
    await asyncio.sleep(0)

@pytest.mark.nsqlite(leaks="messages")
async def test_other(used):
    nsqlite.Worker(nsqlite.Topic("orders").channel("billing"), handle).start()
    begin(nsqlite.aio.Consumer(nsqlite.Topic("orders").channel("billing")).get())
    await asyncio.sleep(0)

@pytest.mark.nsqlite(leaks=False)
async def test_off(used, run_app):
    nsqlite.Worker(nsqlite.Topic("orders").channel("billing"), handle).start()
    run_app(nsqlite.App())
"""


@pytest.mark.parametrize("plugin", LOOPS)
def test_what_a_test_leaves_in_its_loop(run: Run, pytester: pytest.Pytester, plugin: str) -> None:
    """Tasks that wait and workers are found before the loop is closed, after its fixtures."""
    mark, arguments = LOOPS[plugin]
    if plugin != "anyio":
        pytester.makeini("[pytest]\nasyncio_default_fixture_loop_scope = function")
    fixture = "pytest.fixture" if plugin == "anyio" else "__import__('pytest_asyncio').fixture"
    result = run(TASKS.format(mark=mark, fixture=fixture), "-p", *arguments)
    result.assert_outcomes(passed=5, errors=2)
    assert [
        "waits: task 'other' waits in get of _, made at _test_it.py:42",
        "workers: _, made at _test_it.py:47",
    ] == left_behind(result)


def test_a_loop_that_stays_open(run: Run, pytester: pytest.Pytester) -> None:
    """What waits in it is told once, after each test."""
    pytester.makeini("[pytest]\nasyncio_default_fixture_loop_scope = function")
    mark = "pytest.mark.asyncio(loop_scope='module')"
    source = TASKS.format(
        mark=mark, fixture="__import__('pytest_asyncio').fixture(loop_scope='module')"
    )
    result = run(source, "-p", "pytest_asyncio.plugin", "-k", "waits")
    result.assert_outcomes(passed=1, errors=1)
    assert ["waits: task 'other' waits in get of _, made at _test_it.py:42"] == left_behind(result)


APPS: Final = """
import asyncio
pytestmark = [pytest.mark.nsqlite(mode="real"), {mark}]
ended = []

@pytest.fixture
def anyio_backend():
    return "asyncio"

def start(run_app, fake_broker, turns=1000):
    app = nsqlite.App()

    @app.handler("mails", "send")
    async def send(message):
        for _ in range(turns):
            await asyncio.sleep(0)
        ended.append(message)

    run_app(app)
    fake_broker.topic("mails").put(b"mail 1")

@pytest.mark.parametrize("number", range(8))
async def test_idle(number, run_app, fake_broker):
    start(run_app, fake_broker, 0)
    await fake_broker.until_idle()

async def test_at_work(fake_broker, run_app):
    start(run_app, fake_broker)
    await asyncio.sleep(0)

@pytest.mark.nsqlite(leaks=False)
async def test_unwatched(fake_broker, run_app):
    start(run_app, fake_broker)
    await asyncio.sleep(0)

@pytest.mark.parametrize("number", range(8))
async def test_own_worker(number, fake_broker):
    async def send(message): ...

    async with nsqlite.Worker(fake_broker.topic("mails").channel("send"), send):
        fake_broker.topic("mails").put(b"mail 1")
        await fake_broker.until_idle()

async def test_last():
    assert 10 == len(ended)

@pytest.mark.nsqlite(clock={{"patience": 0.2}})
async def test_too_long(fake_broker, run_app):
    start(run_app, fake_broker, 1_000_000_000)
    await asyncio.sleep(0)
"""


@pytest.mark.parametrize("plugin", [*LOOPS, "module"])
def test_an_app_is_stopped_in_its_loop(run: Run, pytester: pytest.Pytester, plugin: str) -> None:
    """Its handlers may end before the loop is closed, and no error is logged where they do."""
    module = ("pytest.mark.asyncio(loop_scope='module')", LOOPS["strict"][1])
    mark, arguments = {**LOOPS, "module": module}[plugin]
    if plugin != "anyio":
        pytester.makeini("[pytest]\nasyncio_default_fixture_loop_scope = function")
    result = run(APPS.format(mark=mark), "-rA", "-p", *arguments)
    result.assert_outcomes(passed=20)
    errors = [line for line in result.outlines if re.match(r"ERROR +nsqlite", line)]
    text = " has not ended after 0 s and is cancelled in mails:send-1"
    assert [text] == [line[line.index(" has not") :] for line in errors]


def test_a_loop_of_another_library(run: Run) -> None:
    """Where no loop of asyncio runs there is none to look at."""
    result = run("""
        def test_it(request):
            check = request.config.pluginmanager.get_plugin("nsqlite leaks")
            with pytest.raises(StopIteration):
                check.end_loop().send(None)
    """)
    result.assert_outcomes(passed=1)


def test_a_loop_of_a_fixture(run: Run) -> None:
    """A loop that a fixture makes is looked at, unless it is closed, before that fixture ends."""
    result = run("""
        import asyncio

        @pytest.fixture
        def closed():
            loop = asyncio.new_event_loop()
            loop.close()
            return loop

        @pytest.fixture
        def loop():
            loop = asyncio.new_event_loop()
            yield loop
            loop.run_until_complete(cancel_all())
            loop.close()

        async def cancel_all():
            tasks = asyncio.all_tasks() - {asyncio.current_task()}
            for task in tasks: task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

        @pytest.fixture
        def runner():
            with asyncio.Runner() as runner:
                runner.get_loop()
                yield runner
                runner.close()

        def test_it(loop, closed, runner):
            runner.close()

            async def leave():
                consumer = nsqlite.aio.Consumer(nsqlite.Topic("orders").channel("billing"))
                asyncio.create_task(consumer.get(), name="other")
                await asyncio.sleep(0)

            loop.run_until_complete(leave())
    """)
    result.assert_outcomes(passed=1, errors=1)
    assert ["waits: task 'other' waits in get of _, made at _test_it.py:34"] == left_behind(result)


# What it loads


MARK: Final = "@pytest.mark.nsqlite("


def python(*arguments: str, **environment: str) -> str:
    """Return what an interpreter of its own prints."""
    done = subprocess.run(  # noqa: S603 - our own interpreter
        [sys.executable, *arguments],
        capture_output=True,
        check=False,
        cwd=ROOT,
        text=True,
        timeout=60,
        env=environment,
    )
    assert (0, "") == (done.returncode, done.stderr)
    return done.stdout


def test_it_loads_nothing(tmp_path: Path) -> None:
    """Tests that use nothing of nsqlite have nothing of it loaded."""
    file = tmp_path / "test_it.py"
    file.write_text(
        "import sys\n"
        "def test_it():\n"
        "    assert [] == [name for name in sys.modules if name.partition('.')[0] == 'nsqlite']\n"
    )
    where = ("-c", str(tmp_path / "none.ini"), "--rootdir", str(tmp_path))
    (tmp_path / "none.ini").write_text("[pytest]")
    output = python(
        "-m", "pytest", "-q", "-p", "pytest_nsqlite", *where, str(file), **{AUTOLOAD: "1"}
    )
    assert "1 passed" in output


def test_it_is_installed_with_the_package() -> None:
    """The package names it to pytest, and can be told not to load it by that name."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    assert {"nsqlite": "pytest_nsqlite"} == project["project"]["entry-points"]["pytest11"]
    wheel = project["tool"]["hatch"]["build"]["targets"]["wheel"]
    place = "nsqlite/testing/plugin"
    assert ("", [".", place]) == (wheel["sources"][place], wheel["dev-mode-dirs"])


def test_it_can_be_turned_off(tmp_path: Path) -> None:
    """It is loaded where the package is installed, unless it is turned off by its name."""
    metadata = tmp_path / "installed-1.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: installed\nVersion: 1\n")
    (metadata / "entry_points.txt").write_text("[pytest11]\nnsqlite = pytest_nsqlite\n")
    names = ("--markers", "-c", str(tmp_path / "none.ini"), "-p", "no:asyncio")
    (tmp_path / "none.ini").write_text("[pytest]")
    path = f"{tmp_path}:{ROOT}:{ROOT}/nsqlite/testing/plugin"
    assert MARK in python("-m", "pytest", *names, PYTHONPATH=path)
    assert MARK not in python("-m", "pytest", *names, "-p", "no:nsqlite", PYTHONPATH=path)


def test_many_brokers_cost_little(run: Run) -> None:
    """Five hundred tests make as many brokers, without a thread, and without growing memory."""
    result = run("""
        import gc, threading

        seen = {}
        before = threading.active_count()  # other tests may have left some

        @pytest.mark.parametrize("number", range(500))
        def test_it(fake_broker, number):
            fake_broker.topic("orders").put(b"order 1")
            if number in (100, 499):
                gc.collect()
                seen[number] = sum(isinstance(one, nsqlite.Broker) for one in gc.get_objects())
                assert threading.active_count() <= before
            if number == 499:
                assert seen[499] <= seen[100]
    """)
    result.assert_outcomes(passed=500)
