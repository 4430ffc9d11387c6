"""What is left behind: found, told with where it was made, and stopped or closed."""

import asyncio
import gc
import os
import re
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from store.stores import until

import nsqlite
from nsqlite import Broker, Closed, Consumer, InvalidOption, SQLite, Topic, Worker, aio
from nsqlite.errors import shown
from nsqlite.origin import Place
from nsqlite.testing import FakeBroker, leaks, no_leaks, nsqd, track
from nsqlite.testing.leaks import Tracker, chosen, told
from nsqlite.waiting import ThreadWaiter

pytestmark = pytest.mark.nsqlite(leaks=False)
"""What is left behind here is found here."""

HERE: Final = Path(__file__).name


def plain(text: object) -> str:
    """Return a text without what differs in each run."""
    return re.sub(r"<[^>]*>|/\S*/|:\d+\b|\b[0-9a-f]{16}\b", "_", str(text)).replace(HERE, "HERE")


def found(leave: Callable[[], object], choice: Any = leaks.USUAL) -> str:
    """Return what `no_leaks` says of what is left behind."""
    with pytest.raises(AssertionError) as error, no_leaks(choice):
        leave()
    return plain(error.value)


def holder() -> Consumer[Any]:
    """Return a consumer that holds a message."""
    topic = Topic("orders")
    consumer = Consumer(topic.channel("billing"))
    topic.put(b"order 1")
    consumer.get(timeout=0)
    return consumer


def test_nothing_is_left_behind(tmp_path: Path) -> None:
    """What was finished, stopped and closed is no leak, nor is what was there before."""
    before = holder()
    with no_leaks("all"):
        topic = Topic("orders")
        consumer = Consumer(topic.channel("billing"))
        topic.put(b"order 1")
        consumer.get(timeout=0).fin()
        with Worker(topic.channel("audit"), print) as worker:
            worker.join()
        with Broker(store=SQLite(tmp_path / "jobs.db")), Broker(), nsqd():
            pass
    assert before.in_flight_count == 1


def test_a_message_in_flight() -> None:
    """It is told with its body and its consumer, and goes back to its channel."""
    kept: list[Consumer[Any]] = []
    text = found(lambda: kept.append(holder()))
    assert (
        "left behind: messages\n"
        "  messages: _ with b'order 1', attempt 1, in flight in _, made at _HERE_"
    ) == text
    assert (True, 1) == (kept[0].closed, kept[0].channel.depth)


def test_a_message_that_is_garbage() -> None:
    """The collector takes nothing away that holds a message."""

    def leave() -> None:
        holder()
        gc.collect()

    assert "left behind: messages" in found(leave)


def test_what_was_handed_and_not_taken_is_no_leak() -> None:
    """A message that a waiting call has not claimed yet was not delivered."""
    topic = Topic("orders")
    tracker = Tracker(chosen("messages"))
    tracker.begin()
    consumer = Consumer(topic.channel("billing"))
    waiter = consumer._waiter()
    consumer._monitor.run(consumer.channel._receive, consumer, nsqlite.Message(), waiter)
    topic.put(b"order 1")
    assert ([], 1) == (tracker.end(), len(consumer._queue.waiters.handed))


def started(call: Callable[[], object], begun: Callable[[], object]) -> threading.Thread:
    """Return a thread that waits in a call."""
    thread = threading.Thread(target=call, name="other", daemon=True)
    thread.start()
    until(lambda: bool(begun()))
    return thread


@pytest.mark.parametrize("call", ["get", "put", "join"])
def test_a_thread_that_waits(call: str) -> None:
    """It is told where it waits and for what, and its call is ended without a word."""
    threads = []

    def leave() -> None:
        topic = Topic("orders", max_depth=1)
        consumer = Consumer(topic.channel("billing"))
        monitor = topic._monitor
        if call == "get":
            threads.append(started(lambda: bool(consumer.get()), consumer._queue.waiters.everybody))
            return
        topic.put(b"order 1")
        if call == "put":
            threads.append(started(lambda: topic.put(b"order 2"), monitor.putters.copy))
        else:
            threads.append(started(topic.join, monitor.joins.copy))

    at = "" if call == "join" else " at _HERE_"
    text = f"left behind: waits\n  waits: thread 'other' waits{at} in {call} of _, made at _HERE_"
    assert text == found(leave)
    assert not threads[0].is_alive()


def test_two_threads_that_wait() -> None:
    """Each is told of by its own name."""

    def leave() -> None:
        consumer = Consumer(Topic("orders").channel("billing"))
        for name in ("first", "second"):
            thread = started(consumer.get, consumer._queue.waiters.everybody)
            thread.name = name
        until(lambda: len(consumer._queue.waiters.everybody()) == 2)

    assert ["'first'", "'second'"] == re.findall("thread ('[^']*')", found(leave))


def test_a_thread_that_ends_otherwise_says_so() -> None:
    """Only that a call was ended is not told."""
    heard: list[Any] = []

    def fail() -> None:
        try:
            consumer.get()
        except Closed:
            raise LookupError from None

    before, threading.excepthook = threading.excepthook, heard.append
    try:
        tracker = Tracker(chosen("waits"))
        tracker.begin()
        consumer = Consumer(Topic("orders").channel("billing"))
        started(fail, consumer._queue.waiters.everybody)
        assert 1 == len(tracker.end())
    finally:
        threading.excepthook = before
    assert [LookupError] == [one.exc_type for one in heard]


def test_a_task_that_waits() -> None:
    """It is told by its name and where it waits; its loop may not even run."""
    loop = asyncio.new_event_loop()

    async def wait(consumer: aio.Consumer[Any]) -> None:
        await consumer.get()

    def leave() -> None:
        channel = Topic("orders").channel("billing")
        consumers.append(aio.Consumer(channel))
        tasks.append(loop.create_task(wait(consumers[0]), name="other"))
        loop.run_until_complete(asyncio.sleep(0))

    consumers: list[aio.Consumer[Any]] = []
    tasks: list[asyncio.Task[None]] = []
    text = "left behind: waits\n  waits: task 'other' waits at _HERE_ in get of _, made at _HERE_"
    assert text == found(leave)
    with pytest.raises(Closed):
        loop.run_until_complete(tasks[0])
    loop.close()


def test_a_task_that_is_gone() -> None:
    """A call whose task nobody has any more is told of all the same."""
    loop = asyncio.new_event_loop()

    def leave() -> None:
        consumers.append(aio.Consumer(Topic("orders").channel("billing")))
        coroutine = consumers[0].get()
        coroutines.append(coroutine)
        loop.call_soon(coroutine.send, None)
        loop.run_until_complete(asyncio.sleep(0))

    consumers: list[aio.Consumer[Any]] = []
    coroutines: list[Any] = []
    text = "left behind: waits\n  waits: a task waits in get of _, made at _HERE_"
    assert text == found(leave)
    coroutines[0].close()
    loop.close()


def test_a_call_that_was_woken_waits_no_more() -> None:
    """A call that has its answer is no leak, though its thread has not gone on yet."""
    with no_leaks("waits"):
        topic = Topic("orders")
        waiter: ThreadWaiter[Any] = ThreadWaiter(topic._monitor)
        topic._monitor.joins[waiter] = lambda: True
        topic._monitor.run(topic._monitor.notify_joins)
        assert [waiter] == list(topic._monitor.joins)


def test_a_callback_is_no_wait() -> None:
    """Who only asked to be told of a message leaves nothing behind."""
    with no_leaks():
        Consumer(Topic("orders").channel("billing")).when_ready(print)


def test_a_worker_that_runs() -> None:
    """It is told by its name, without what its slots do, and is stopped."""
    workers: list[Worker] = []
    text = found(lambda: workers.append(Worker(Topic("o").channel("b"), print).start()))
    assert "left behind: workers\n  workers: _, made at _HERE_" == text
    assert not workers[0].running


def test_a_store_that_is_open(tmp_path: Path) -> None:
    """It is told of though its broker is garbage, and closed."""
    text = found(lambda: Broker(store=SQLite(tmp_path / "jobs.db")))
    assert "left behind: stores\n  stores: _, not closed, made at _HERE_" == text
    Broker(store=SQLite(tmp_path / "jobs.db")).close()


def test_a_broker_in_memory() -> None:
    """It counts only if that is asked for."""
    with no_leaks():
        Broker()
    text = "left behind: brokers\n  brokers: _, not closed, made at _HERE_"
    assert text == found(Broker, ["brokers"])


def test_a_server_that_serves() -> None:
    """It is told with its address, and stopped."""
    servers: list[nsqd] = []
    text = found(lambda: servers.append(nsqd().__enter__()))
    assert "left behind: servers\n  servers: _, not stopped, made at _HERE_" == text
    servers[0].__exit__(None, None, None)


def test_what_the_block_raises_is_not_hidden() -> None:
    """What is left behind is told in a note."""
    with pytest.raises(LookupError) as error, no_leaks():
        kept = holder()
        raise LookupError
    assert ["left behind: messages"] == [note.split("\n")[0] for note in error.value.__notes__]
    assert kept.closed
    with pytest.raises(LookupError) as error, no_leaks():
        raise LookupError
    assert not hasattr(error.value, "__notes__")


def test_a_function_that_leaves_nothing() -> None:
    """Each call of a function, or a coroutine function, that is decorated is a block."""

    @no_leaks()
    def leave(count: int) -> list[Consumer[Any]]:
        return [holder() for _ in range(count)]

    @no_leaks("messages")
    async def leave_async(count: int) -> list[Consumer[Any]]:
        await asyncio.sleep(0)
        return leave(count)

    assert ("leave", []) == (leave.__name__, leave(0))
    assert [] == asyncio.run(leave_async(0))
    kept: list[Consumer[Any]] = []

    @no_leaks()
    async def keep() -> None:
        await asyncio.sleep(0)
        kept.append(holder())

    for _ in range(2):
        with pytest.raises(AssertionError, match="left behind: messages"):
            asyncio.run(keep())
    with pytest.raises(AssertionError, match="left behind: messages"):
        no_leaks()(lambda: kept.append(holder()))()
    assert [True, True, True] == [one.closed for one in kept]


def test_what_no_call_can_be_looked_at_of() -> None:
    """At what does its work after the call, or is no function, it is refused."""

    def generate() -> Iterator[None]:
        yield

    async def generate_async() -> AsyncIterator[None]:
        yield

    class Orders: ...

    cases: list[Any] = [generate, generate_async, Orders, 5]
    for one in cases:
        with pytest.raises(InvalidOption) as error:
            no_leaks()(one)
        assert (
            "function must be a plain or a coroutine function"
            f" (elsewhere write `with no_leaks():` inside), not {shown(one)}"
        ) == str(error.value)


def test_a_block_of_async_with() -> None:
    """It is told that a plain `with` is meant."""

    async def leave() -> None:
        async with no_leaks():  # type: ignore[call-arg]
            pass

    text = "no_leaks() is for a plain `with`, in a coroutine function, too"
    with pytest.raises(TypeError, match=f"^{re.escape(text)}$"):
        asyncio.run(leave())


def test_a_loop_that_is_about_to_be_closed() -> None:
    """Its tasks that wait and its workers are found, once, and nothing else."""

    def get(consumer: Consumer[Any]) -> None:
        with pytest.raises(Closed):
            consumer.get()

    async def leave(trackers: list[Tracker]) -> None:
        consumer = aio.Consumer(Topic("orders").channel("billing"))
        other = Consumer(Topic("orders").channel("billing"))
        thread = threading.Thread(target=get, args=(other,))
        thread.start()
        until(lambda: bool(other.channel._queue.waiters.threads))
        task = asyncio.create_task(consumer.get())
        workers = [
            Worker(Topic("orders").channel("audit"), handler).start() for handler in (print, later)
        ]
        await asyncio.sleep(0)
        for tracker in trackers:
            tracker.end_loop(asyncio.get_running_loop())
        found = [[leak.kind for leak in tracker._found] for tracker in trackers]
        assert [["waits", "workers"], []] == found
        task.cancel()
        workers[0].stop()
        await aio.stop(workers[1])
        other.close()
        thread.join()

    async def later(message: object) -> None: ...

    trackers = [Tracker(chosen(True)), Tracker(chosen("messages"))]
    for tracker in trackers:
        tracker.begin()
    asyncio.run(leave(trackers))
    assert [["waits", "workers"], []] == [[one.kind for one in each.end()] for each in trackers]


def test_a_broker_that_is_about_to_be_closed() -> None:
    """What is of it is found, and nothing else; so a fixture finds it before it closes."""
    tracker = Tracker(chosen("all"))
    tracker.begin()
    with Broker() as broker, Broker() as other:
        both = [Consumer(one.topic("orders").channel("billing")) for one in (broker, other)]
        for consumer in both:
            consumer.channel._parent.put(b"order 1")  # type: ignore[attr-defined]
            consumer.get(timeout=0)
        tracker.end_broker(broker)
        assert [True, False] == [consumer.closed for consumer in both]
    assert ["messages"] == [leak.kind for leak in tracker.end()]


def test_what_is_made_in_a_pause_does_not_count() -> None:
    """A tracker that pauses takes no note, and ends as it is."""
    tracker = Tracker(chosen("all"))
    tracker.begin()
    tracker.pause()
    kept = holder()
    assert [] == tracker.end()
    assert not kept.closed


def test_what_counts() -> None:
    """Kinds are chosen by name, alone or several, and the nearest is named for a wrong one."""
    every = frozenset(leaks.KINDS)
    assert (every - {"brokers"}, frozenset()) == (chosen(True), chosen(False))
    assert (every, frozenset()) == (chosen("all"), chosen(["none"]))
    assert {"waits", "stores"} == chosen("waits, stores") == chosen(iter(("stores", "waits")))
    names = "True, False or names of all, brokers, messages, none, servers, stores, waits, workers"
    for value in (5, (5,)):
        with pytest.raises(InvalidOption) as error:
            no_leaks(value)  # type: ignore[arg-type]
        assert f"leaks must be {names}, not {value}" == str(error.value)
    with pytest.raises(InvalidOption) as error:
        chosen("worker")
    assert (
        "leaks must be one of all, brokers, messages, none, servers, stores, waits, workers"
        " (did you mean 'workers'?), not 'worker'"
    ) == str(error.value)


def test_it_is_told_by_kind() -> None:
    """Each leak has a line, and the kinds stand first."""
    place = Place("shop.py", 12)
    leak = leaks.Leak("waits", "a task", place)
    assert "left behind: waits\n  waits: a task\n  waits: a task" == told([leak, leak])


def test_ten_thousand_brokers() -> None:
    """They take no thread, and what is noted of them goes with them."""
    tracker = Tracker(chosen(True))
    tracker.begin()
    for _ in range(1000):
        with FakeBroker() as broker:
            broker.topic("orders").put(b"order 1")
    del broker
    gc.collect()
    assert {} == tracker._made
    assert [] == tracker.end()


# At the end of a program


def warned(program: str) -> list[str]:
    """Return what a program warns of when it ends."""
    done = subprocess.run(  # noqa: S603 - our own program
        [sys.executable, "-W", "always::ResourceWarning", "-c", program],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "PYTHONPATH": str(Path(nsqlite.__file__).parent.parent)},
    )
    assert (0, "") == (done.returncode, done.stdout)
    said = re.findall(r": ResourceWarning: (?!Enable)(.*)", done.stderr)
    return sorted(map(plain, said))


PROGRAM: Final = """
import nsqlite
{track}
topic = nsqlite.Topic("orders")
consumer = nsqlite.Consumer(topic.channel("billing"))
topic.put(b"order 1")
message = consumer.get()
worker = nsqlite.Worker(topic.channel("audit"), print).start()
broker = nsqlite.Broker(store=nsqlite.SQLite({path!r}))
"""


def test_a_program_that_ends(tmp_path: Path) -> None:
    """Open stores and running workers warn, and if that was asked for all the rest, with where."""
    program = PROGRAM.format(path=str(tmp_path / "jobs.db"), track="")
    assert [
        "the broker of _jobs.db was not closed by the end of the program",
        "worker 'orders:audit' still ran at the end of the program",
    ] == warned(program)
    program = PROGRAM.format(path=str(tmp_path / "jobs.db"), track="nsqlite.testing.track()")
    assert [
        "left behind: _ with b'order 1', attempt 1, in flight in _, made at __",
        "the broker of _jobs.db was not closed by the end of the program, made at __",
        "worker 'orders:audit' still ran at the end of the program, made at __",
    ] == warned(program)


def test_tracking_can_end() -> None:
    """Then nothing is warned of."""
    program = "import nsqlite; nsqlite.testing.track()(); nsqlite.Topic('orders')"
    assert [] == warned(program)
    stop = track()
    kept = holder()
    stop()
    assert not kept.closed


def test_a_warning_stands_at_the_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """It names the program's file and line, as those of the interpreter do."""
    calls: list[Callable[[], None]] = []
    monkeypatch.setattr(leaks.atexit, "register", calls.append)  # type: ignore[attr-defined]
    stop = track()
    kept = holder()
    stop()
    with pytest.warns(ResourceWarning, match=r"left behind: .* with b'order 1'") as record:
        calls[0]()
    assert (__file__, False) == (record[0].filename, kept.closed)
