"""A node: what starts and stops when, in which order, and what becomes of errors."""

import asyncio
import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from aio.loops import begin, in_loop, outcome, turns
from helpers import PATIENCE, Call

import nsqlite
from nsqlite import Closed, InvalidOption, NotAsyncio
from nsqlite.server.node import GRACE, SIGNALS, Node
from nsqlite.testing import ManualClock

PROGRAM = """
import asyncio, sys
from nsqlite.server.node import Node

class Slow:
    name = "slow"

    async def start(self):
        print("begun", flush=True)

    async def stop(self):
        print("stopping", flush=True)
        if "slow" in sys.argv:
            await asyncio.sleep(1000)

node = Node(grace=1000)
node.add(Slow())
asyncio.run(node.run())
"""


class Scene:
    """A node, and services that tell what happens to them."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.node = Node("nsqd", clock=self.clock)
        self.told: list[str] = []

    def add(self, *names: str, **options: Any) -> "list[Part]":
        """Add services."""
        parts = [Part(self, name, **options) for name in names]
        for part in parts:
            self.node.add(part)
        return parts


async def nothing() -> None:
    pass


async def fail() -> None:
    raise OSError("the disk is full")


async def hang() -> None:
    await asyncio.Event().wait()


async def ignore_a_cancel() -> None:
    try:
        await hang()
    except asyncio.CancelledError:
        await hang()


class Part:
    """A service."""

    def __init__(
        self,
        scene: Scene,
        name: str,
        start: Callable[[], Any] = nothing,
        stop: Callable[[], Any] = nothing,
    ) -> None:
        self.name = name
        self.calls = start, stop
        self._scene = scene

    async def start(self) -> None:
        self._scene.told.append(f"start {self.name}")
        await self.calls[0]()

    async def stop(self) -> None:
        self._scene.told.append(f"stop {self.name}")
        await self.calls[1]()


@pytest.fixture
def scene() -> Iterator[Scene]:
    """Give a scene, and check that the signals are afterwards what they were."""
    before = [signal.getsignal(number) for number in SIGNALS]
    yield Scene()
    assert before == [signal.getsignal(number) for number in SIGNALS]


# Start and stop


@in_loop
async def test_services_start_in_order_and_stop_in_reverse() -> None:
    """Each service starts after those before it, and stops before them."""
    scene = Scene()
    parts = scene.add("a", "b")
    assert tuple(parts) == scene.node.services
    async with scene.node as node:
        assert node is scene.node
        assert ["start a", "start b"] == scene.told
    assert ["start a", "start b", "stop b", "stop a"] == scene.told


@in_loop
async def test_both_are_idempotent() -> None:
    """A second start or stop does nothing, or waits for the first; none comes after the end."""
    scene = Scene()
    gate = asyncio.Event()
    scene.add("a", start=gate.wait, stop=gate.wait)
    starts = [await begin(scene.node.start()) for _ in range(2)]
    assert ["start a"] == scene.told
    gate.set()
    assert [None, None] == [await outcome(task) for task in starts]
    await scene.node.start()
    gate.clear()
    stops = [await begin(scene.node.stop()) for _ in range(2)]
    assert ["start a", "stop a"] == scene.told
    gate.set()
    assert [None, None] == [await outcome(task) for task in stops]
    await scene.node.stop()
    assert ["start a", "stop a"] == scene.told
    with pytest.raises(Closed, match=r"^nsqd is stopped$"):
        await scene.node.start()


@in_loop
async def test_one_that_was_never_started() -> None:
    """To stop it is to say that it will not start."""
    scene = Scene()
    scene.add("a")
    await scene.node.stop()
    with pytest.raises(Closed, match=r"^nsqd is stopped$"):
        await scene.node.start()
    assert [] == scene.told


@in_loop
async def test_a_service_that_cannot_start() -> None:
    """Those that have started are stopped in reverse, and its error is raised."""
    scene = Scene()
    scene.add("a", "b")
    scene.add("c", start=fail)
    scene.add("d")
    with pytest.raises(OSError, match=r"^the disk is full$"):
        await scene.node.start()
    assert ["start a", "start b", "start c", "stop b", "stop a"] == scene.told
    await scene.node.wait()
    with pytest.raises(Closed, match=r"^nsqd is stopped$"):
        await scene.node.start()


@in_loop
async def test_a_start_that_is_cancelled() -> None:
    """What has started is stopped, and whoever waits as well learns that it is stopped."""
    scene = Scene()
    scene.add("a")
    scene.add("b", start=hang)
    first, second, third = [await begin(scene.node.start()) for _ in range(3)]
    third.cancel()
    assert isinstance(await outcome(third), asyncio.CancelledError)
    assert ["start a", "start b"] == scene.told
    first.cancel()
    assert isinstance(await outcome(first), asyncio.CancelledError)
    assert "nsqd is stopped" == str(await outcome(second))
    assert ["start a", "start b", "stop a"] == scene.told


@in_loop
async def test_a_stop_during_the_start() -> None:
    """The start is given up, and what has started is stopped."""
    scene = Scene()
    scene.add("a")
    scene.add("b", start=hang)
    starting = await begin(scene.node.start())
    await scene.node.stop()
    assert "nsqd is stopped" == str(await outcome(starting))
    assert ["start a", "start b", "stop a"] == scene.told


@in_loop
async def test_a_start_that_takes_no_notice() -> None:
    """A service that starts although it is cancelled is stopped, and no other starts."""
    scene = Scene()
    gate = asyncio.Event()

    async def start() -> None:
        try:
            await gate.wait()
        except asyncio.CancelledError:
            await gate.wait()

    scene.add("a", start=start)
    scene.add("b")
    starting = await begin(scene.node.start())
    stopping = await begin(scene.node.stop())
    gate.set()
    assert None is await outcome(stopping)
    assert "nsqd is stopped" == str(await outcome(starting))
    assert ["start a", "stop a"] == scene.told


@in_loop
async def test_a_start_that_does_not_end(caplog: pytest.LogCaptureFixture) -> None:
    """It is left behind when the time is over, and the others are stopped."""
    scene = Scene()
    scene.add("a")
    scene.add("b", start=ignore_a_cancel)
    starting = await begin(scene.node.start())
    stopping = await begin(scene.node.stop())
    scene.clock.advance(GRACE)
    assert None is await outcome(stopping)
    assert ["start a", "start b", "stop a"] == scene.told
    assert ["nsqd: its start cannot be given up"] == caplog.messages
    starting.cancel()
    assert isinstance(await outcome(starting), BaseException)


@in_loop
async def test_a_service_that_cannot_stop(caplog: pytest.LogCaptureFixture) -> None:
    """Its error is logged, and the others are stopped."""

    async def give_up() -> None:
        raise asyncio.CancelledError

    scene = Scene()
    scene.add("a")
    scene.add("b", stop=fail)
    scene.add("c", stop=give_up)
    await scene.node.start()
    await scene.node.stop()
    assert ["stop c", "stop b", "stop a"] == scene.told[3:]
    assert ["nsqd: b cannot stop: the disk is full"] == caplog.messages
    assert caplog.records[0].exc_info
    assert logging.ERROR == caplog.records[0].levelno


@in_loop
async def test_a_service_that_takes_too_long(caplog: pytest.LogCaptureFixture) -> None:
    """It is cancelled and left behind when its time is over; it has its own, or the node's."""
    scene = Scene()
    scene.add("a", stop=hang)
    scene.node.add(Part(scene, "b", stop=ignore_a_cancel), grace=30)
    await scene.node.start()
    stopping = await begin(scene.node.stop())
    scene.clock.advance(29.9)
    await turns()
    assert ["stop b"] == scene.told[2:]
    scene.clock.advance(0.1)
    await turns()
    assert ["stop b", "stop a"] == scene.told[2:]
    scene.clock.advance(GRACE)
    assert None is await outcome(stopping)
    assert [
        "nsqd: b has not stopped in 30 s",
        "nsqd: a has not stopped in 5 s",
    ] == caplog.messages


@in_loop
async def test_a_late_error_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """What a service raises that was left behind is told."""

    async def stop() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await fail()

    scene = Scene()
    scene.add("a", stop=stop)
    await scene.node.start()
    stopping = await begin(scene.node.stop())
    scene.clock.advance(GRACE)
    await outcome(stopping)
    await turns()
    assert ["nsqd: a has not stopped in 5 s", "nsqd: a cannot stop: the disk is full"] == (
        caplog.messages
    )


@in_loop
async def test_a_stop_that_is_cancelled() -> None:
    """It goes on all the same."""
    scene = Scene()
    gate = asyncio.Event()
    scene.add("a")
    scene.add("b", stop=gate.wait)
    await scene.node.start()
    stopping = await begin(scene.node.stop())
    stopping.cancel()
    assert isinstance(await outcome(stopping), asyncio.CancelledError)
    gate.set()
    await scene.node.stop()
    assert ["stop b", "stop a"] == scene.told[2:]


# Services


@pytest.mark.parametrize("given", [Part, object(), None])
def test_only_a_service_is_added(scene: Scene, given: Any) -> None:
    """What cannot start and stop is refused."""
    with pytest.raises(InvalidOption, match=r"^service must be an object with a name, start\(\)"):
        scene.node.add(given)


def test_a_grace_is_a_number_of_seconds(scene: Scene) -> None:
    """A grace that is none is refused, and nothing is added."""
    with pytest.raises(InvalidOption, match=r"^grace must be"):
        Node(grace=-1)
    with pytest.raises(InvalidOption, match=r"^grace must be"):
        scene.node.add(Part(scene, "a"), grace=-1)
    assert () == scene.node.services


@in_loop
async def test_no_service_is_added_later() -> None:
    """When it is started, it takes no more services."""
    scene = Scene()
    async with scene.node:
        with pytest.raises(Closed, match=r"^nsqd is started already$"):
            scene.add("a")
    with pytest.raises(Closed, match=r"^nsqd is stopped$"):
        scene.add("a")


@in_loop
async def test_its_repr() -> None:
    """It shows its phase, and its services."""
    scene = Scene()
    scene.add("a", "b")
    assert "<Node 'nsqd' not started services=[a, b]>" == repr(scene.node)
    async with scene.node:
        assert "<Node 'nsqd' started already services=[a, b]>" == repr(scene.node)


def test_it_needs_a_loop(scene: Scene) -> None:
    """Without a loop, whatever is to be awaited says so."""
    for call in (scene.node.start, scene.node.wait, scene.node.stop):
        coroutine = call()
        with pytest.raises(NotAsyncio):
            coroutine.send(None)


# Waiting


@in_loop
async def test_a_shutdown_ends_the_wait() -> None:
    """It can be called before, by whoever, and again."""
    scene = Scene()
    async with scene.node:
        waiting = await begin(scene.node.wait())
        Call(scene.node.shutdown).result()
        assert None is await outcome(waiting)
        scene.node.shutdown()
        await scene.node.wait()
    early = Node()
    early.shutdown()
    await early.run()


@in_loop
async def test_a_stop_ends_the_wait() -> None:
    """Whoever waits for a node that is stopped waits no more."""
    scene = Scene()
    waiting = await begin(scene.node.wait())
    await scene.node.stop()
    assert None is await outcome(waiting)


def test_a_shutdown_when_the_loop_is_gone(scene: Scene) -> None:
    """It does nothing then."""
    asyncio.run(scene.node.start())
    scene.node.shutdown()


@in_loop
async def test_a_service_that_fails(caplog: pytest.LogCaptureFixture) -> None:
    """The wait ends with its error when all is stopped; a second error changes nothing."""
    scene = Scene()
    scene.add("a", "b")
    await scene.node.start()
    waiting = await begin(scene.node.wait())
    error = OSError("accept failed")
    scene.node.fail(error)
    scene.node.fail(ValueError("another"))
    assert error is await outcome(waiting)
    assert ["stop b", "stop a"] == scene.told[2:]
    assert ["nsqd: accept failed"] == caplog.messages
    assert logging.CRITICAL == caplog.records[0].levelno
    with pytest.raises(OSError, match=r"^accept failed$"):
        await scene.node.wait()


@in_loop
async def test_what_fails_while_it_stops() -> None:
    """An error that comes when it stops is none of the node's."""
    scene = Scene()
    await scene.node.start()
    await scene.node.stop()
    scene.node.fail(OSError("accept failed"))
    await scene.node.wait()


# Running


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_ends_it(scene: Scene, number: signal.Signals) -> None:
    """SIGINT and SIGTERM stop it, also when they come while the loop sleeps."""
    main = threading.main_thread().ident
    assert main is not None

    async def start() -> None:
        # The loop sleeps when this is done, unless it has heard of the signal before:
        threading.Timer(0, signal.pthread_kill, (main, number)).start()

    scene.add("a")
    scene.add("b", start=start)
    asyncio.run(asyncio.wait_for(scene.node.run(), PATIENCE))
    assert ["start a", "start b", "stop b", "stop a"] == scene.told


def test_a_signal_while_it_starts(scene: Scene) -> None:
    """It starts, and then stops."""

    async def start() -> None:
        signal.raise_signal(signal.SIGTERM)
        assert all(signal.getsignal(number) is signal.SIG_DFL for number in SIGNALS)

    scene.add("a", start=start)
    scene.add("b")
    asyncio.run(scene.node.run())
    assert ["start a", "start b", "stop b", "stop a"] == scene.told


def test_a_loop_that_handles_no_signals(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """On Windows a loop cannot; the signals are caught all the same."""

    def refuse(*_: object) -> None:
        raise NotImplementedError

    async def start() -> None:
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(asyncio.SelectorEventLoop, "add_signal_handler", refuse)
    scene.add("a", start=start)
    asyncio.run(scene.node.run())
    assert ["start a", "stop a"] == scene.told


def test_handlers_that_are_not_pythons(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """A handler that Python does not know cannot be put back: the system's is."""
    before = [signal.getsignal(number) for number in SIGNALS]
    with monkeypatch.context() as patched:
        patched.setattr(signal, "getsignal", lambda _number: None)
        scene.node.shutdown()
        asyncio.run(scene.node.run())
    try:
        assert signal.SIG_DFL is signal.getsignal(signal.SIGTERM)
    finally:
        for number, handler in zip(SIGNALS, before, strict=True):
            signal.signal(number, handler)


def test_another_thread(scene: Scene) -> None:
    """Outside of the main thread it runs and catches no signals."""
    before = [signal.getsignal(number) for number in SIGNALS]
    seen: list[object] = []

    async def start() -> None:
        seen.extend(signal.getsignal(number) for number in SIGNALS)
        scene.node.shutdown()

    scene.add("a", start=start)
    Call(lambda: asyncio.run(scene.node.run())).result()
    assert before == seen
    assert ["start a", "stop a"] == scene.told


@in_loop
async def test_a_run_that_is_cancelled() -> None:
    """All is stopped."""
    scene = Scene()
    scene.add("a")
    running = await begin(scene.node.run())
    running.cancel()
    assert isinstance(await outcome(running), asyncio.CancelledError)
    assert ["start a", "stop a"] == scene.told


@in_loop
async def test_a_run_that_fails() -> None:
    """A service that cannot start ends it, and so does one that fails."""
    scene = Scene()
    scene.add("a")
    scene.add("b", start=fail)
    with pytest.raises(OSError, match=r"^the disk is full$"):
        await scene.node.run()
    assert ["start a", "start b", "stop a"] == scene.told
    scene = Scene()
    scene.add("a")
    scene.node.fail(OSError("accept failed"))
    with pytest.raises(OSError, match=r"^accept failed$"):
        await scene.node.run()
    assert ["start a", "stop a"] == scene.told


@pytest.mark.parametrize("how", ["", "slow"])
@pytest.mark.parametrize("number", SIGNALS)
def test_a_second_signal(how: str, number: signal.Signals) -> None:
    """The first one stops it, and the second ends the process, at whatever it is."""
    with subprocess.Popen(  # noqa: S603 - our own interpreter
        [sys.executable, "-W", "error", "-c", PROGRAM, how],
        env={**os.environ, "PYTHONPATH": str(Path(nsqlite.__file__).parent.parent)},
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert "begun\n" == process.stdout.readline()
        process.send_signal(number)
        assert "stopping\n" == process.stdout.readline()
        if how:
            process.send_signal(number)
        process.communicate(timeout=PATIENCE)
    assert (-number if how else 0) == process.returncode
