"""The rows of the table: what is compared with what, and what it must come to.

The rule: a row is two timed callables, its text and its bounds; a row without a bound is a note.

"Row one" is put, get and fin of one message at a time, where nothing is unusual; whatever has a
thread beside it runs on a clock of the benchmark's own, and then so does row one.

Next: storerows.py
"""

import sys
from collections.abc import Callable
from typing import Final

import awaits
import builders
import crews
import deferrals
import handover
import imports
import loops
import memory
import topics
from handclock import MILLISECOND, HandClock
from table import Bound, Measured, Row, Yardstick
from timing import Loop, Run, Scale, run_of

from nsqlite import WhenFull

RING: Final = 1000
FEW: Final = 100
NEWER: Final = sys.version_info >= (3, 12)


# How a loop is measured


def each(make: Callable[[], Loop]) -> Measured:
    """Measure it over so many messages."""
    return lambda scale: run_of(make, scale.messages)


def threads(make: Callable[[], Loop]) -> Measured:
    """Measure it over so many messages in real time."""
    return lambda scale: run_of(make, scale.messages, waits=True)


def trips(make: Callable[[], Loop]) -> Measured:
    """Measure it over so many round trips in real time."""
    return lambda scale: run_of(make, scale.trips, waits=True)


def bounded(when_full: WhenFull) -> Measured:
    """Measure row one with a bound, and room there."""
    return each(lambda: loops.plain(max_depth=1000, when_full=when_full))


def taking(*, drains: bool) -> Measured:
    """Measure get and fin, while the topic drains or not."""
    return lambda scale: run_of(lambda: loops.taking(scale.messages, drains=drains), scale.messages)


def hops(make: Callable[[], Loop]) -> Measured:
    """Measure it over a quarter of so many messages, as each takes long."""
    return lambda scale: run_of(make, scale.messages // 4)


def copies(make: Callable[[], Loop]) -> Measured:
    """Measure for each of four copies a loop that makes four in a round."""
    return lambda scale: run_of(make, scale.messages // 4, times=1 / 4)


def ring(scale: Scale) -> Run:
    """Measure a hop of a message round the ring of tasks."""
    laps = max(1, scale.messages // 4 // RING)
    return run_of(lambda: awaits.ring(RING, laps), RING * laps)


def making(scale: Scale) -> Run:
    """Measure the making of an eighth of the topics of a large broker."""
    count = scale.topics // 8
    return run_of(lambda: topics.making(count), count)


def lines_of(make: Callable[[int, int], Loop], scale: Scale) -> Run:
    """Measure it over the lines of a file, with four threads."""
    count = scale.many // 5
    return run_of(lambda: make(count, 4), count, waits=True)


def figure(measured: Callable[[Scale], float]) -> Measured:
    """Measure what is no time."""
    return lambda scale: lambda: measured(scale)


# What it is compared with

ONE: Final = Yardstick("row one", each(loops.plain))
ONE_THERE: Final = Yardstick("row one, same clock", each(lambda: loops.plain(clock=HandClock())))
QUEUE: Final = Yardstick("queue.Queue put+get", each(loops.queue_one_by_one))
AWAIT: Final = Yardstick("asyncio.Queue put+get", each(awaits.alone_queue))
HOP: Final = Yardstick("asyncio.Queue so", hops(awaits.ping_pong_queue))
HAND_OFF: Final = Yardstick("queue.Queue to 1 thread", threads(lambda: crews.by_hand(1)))
NOTHING: Final = Yardstick("Queue.get_nowait", each(loops.queue_nothing_to_get))


def heap(span: int) -> Yardstick:
    """Compare with a heap over so many seconds."""
    text = "heapq push and pop"
    return Yardstick(text, lambda scale: deferrals.through_heap(scale.deferred, span))


# The rows

CORE: Final = (
    Row("put/one", "put, get, fin, one at a time", each(loops.plain), QUEUE, Bound(1.25, 1.05)),
    Row("put/raise", 'so, max_depth=1000, "raise"', bounded("raise"), QUEUE, Bound(1.4, 1.15)),
    Row("put/wait", 'so, max_depth=1000, "wait"', bounded("wait"), QUEUE, Bound(1.4, 1.15)),
    Row(
        "put/newest",
        'so, max_depth=1000, "drop newest"',
        bounded("drop newest"),
        QUEUE,
        Bound(1.4, 1.15),
    ),
    Row(
        "put/oldest",
        'so, max_depth=1000, "drop oldest"',
        bounded("drop oldest"),
        QUEUE,
        Bound(1.4, 1.15),
    ),
    Row(
        "put/timeout",
        "so, the consumer's own msg_timeout",
        each(loops.own_timeout),
        ONE,
        Bound(1.3, 1.1),
    ),
    Row(
        "put/join",
        "so, while a join of the channel waits",
        each(lambda: loops.beside_a_join(of_topic=False)),
        ONE_THERE,
        Bound(1.3, 1.1),
    ),
    Row(
        "put/join-topic",
        "so, while a join of the topic waits",
        each(lambda: loops.beside_a_join(of_topic=True)),
        ONE_THERE,
        Bound(1.3, 1.1),
    ),
    Row(
        "put/drain",
        "get, fin, while draining",
        taking(drains=True),
        Yardstick("the same, not draining", taking(drains=False)),
        Bound(1.3, 1.1),
    ),
    Row(
        "put/getter",
        "so, a getter waits, its window full",
        each(loops.beside_a_getter),
        ONE_THERE,
        Bound(1.3, 1.1),
    ),
    Row(
        "put/getter-beside",
        "so, a getter waits in another channel, paused",
        each(lambda: loops.beside_a_channel(waits=True)),
        Yardstick("so, nobody waits there", each(lambda: loops.beside_a_channel(waits=False))),
        Bound(1.3, 1.1),
    ),
    Row(
        "put/20ms",
        "so, each 20 ms",
        each(lambda: loops.visited(20 * MILLISECOND)),
        Yardstick("so, time stands still", each(lambda: loops.visited(0))),
        Bound(1.3, 1.1),
    ),
    Row(
        "put/percentiles",
        "so, with 2 latency percentiles",
        each(lambda: loops.plain(e2e_processing_latency_percentiles=(0.5, 0.99))),
        ONE,
        Bound(2, 1.5),
    ),
    Row("put/observer", "so, an observer does nothing", each(loops.observed), ONE, Bound(3, 2)),
    Row(
        "batch/1000",
        "put_many, get_many, fin_many, 1,000 each",
        each(loops.in_batches),
        QUEUE,
        Bound(0.42, 0.34),
    ),
    Row(
        "fanout/4",
        "put to 4 channels, get, fin, each copy",
        each(lambda: loops.fanned_out(4)),
        QUEUE,
        Bound(0.85, 0.7),
    ),
    Row(
        "fanout/256",
        "put to 256 channels, get, fin, each copy",
        each(lambda: loops.fanned_out(256)),
        QUEUE,
        Bound(0.85, 0.7),
    ),
    Row(
        "threads/ping-pong",
        "a message to another thread and back",
        trips(handover.ping_pong),
        Yardstick("queue.Queue so", trips(handover.ping_pong_queue)),
        Bound(1.15, 1.0),
        by_best=True,
    ),
    Row(
        "threads/stream",
        "from one thread to another",
        threads(handover.stream),
        Yardstick("queue.Queue so", threads(handover.stream_queue)),
        Bound(1.15, 1.0),
        by_best=True,
    ),
    Row(
        "threads/8+8",
        "8 producers, 8 consumers",
        threads(lambda: handover.crowd(8)),
        Yardstick("queue.Queue so", threads(lambda: handover.crowd_queue(8))),
        Bound(1.1, 1.0),
        by_best=True,
    ),
    Row(
        "await/one",
        "await put, get, fin, one at a time",
        each(awaits.alone),
        AWAIT,
        Bound(3 if NEWER else 2.4, 1.9),
    ),
    Row(
        "await/bounded",
        "so, max_depth=1000",
        each(lambda: awaits.alone(max_depth=1000)),
        AWAIT,
        Bound(3 if NEWER else 2.9, 1.9),
    ),
    Row(
        "await/ping-pong",
        "to another task and back, each hop",
        hops(awaits.ping_pong),
        HOP,
        Bound(2.2, 1.7),
    ),
    Row("await/ring", f"round {RING:,} waiting tasks, each hop", ring, HOP, Bound(2.5, 1.7)),
    Row(
        "await/subscribers",
        "one put to 4 waiting tasks, each copy",
        copies(lambda: awaits.subscribers(4)),
        Yardstick("asyncio.Queue so", copies(lambda: awaits.subscribers_queue(4))),
        Bound(2.6, 2.0),
    ),
    Row(
        "await/gathered",
        "one put, 4 channels, got in one task, each copy",
        copies(lambda: awaits.gathered(4)),
        Yardstick("asyncio.Queue so", copies(lambda: awaits.gathered_queue(4))),
        Bound(2.6, 2.0),
    ),
    Row(
        "worker/thread",
        "put, an empty handler in a thread",
        threads(lambda: crews.worker(1)),
        HAND_OFF,
        Bound(1.3, 1.1),
        by_best=True,
    ),
    Row(
        "worker/threads",
        "so, in 4 threads",
        threads(lambda: crews.worker(4)),
        HAND_OFF,
        Bound(1.6, 1.3),
        by_best=True,
    ),
    Row(
        "worker/task",
        "put, an empty handler in a task",
        each(crews.worker_async),
        Yardstick("asyncio.Queue so", each(crews.by_hand_async)),
        Bound(4, 3),
    ),
    Row(
        "worker/lines",
        "each line of a file, bounded, in 4 threads",
        lambda scale: lines_of(crews.lines, scale),
        Yardstick("queue.Queue so", lambda scale: lines_of(crews.lines_by_hand, scale)),
        Bound(3, 2),
        by_best=True,
        slow=True,
    ),
    Row(
        "delay/minute",
        "put(delay=) and due, over a minute",
        lambda scale: deferrals.at_once(scale.deferred, 60),
        heap(60),
        Bound(2.2, 1.8),
        slow=True,
    ),
    Row(
        "delay/hour",
        "put(delay=) and due, over an hour",
        lambda scale: deferrals.at_once(scale.deferred, 3600),
        heap(3600),
        Bound(4, 2.5),
        slow=True,
    ),
    Row(
        "delay/manual",
        "so, a minute, ManualClock as it comes",
        lambda scale: deferrals.as_it_comes(scale.deferred, 60),
        heap(60),
        Bound(4, 2.5),
        slow=True,
    ),
    Row(
        "delay/ticks",
        "so, a minute, looked at each 10 ms",
        lambda scale: deferrals.tick_by_tick(scale.deferred, 60),
        heap(60),
        slow=True,
    ),
    Row(
        "delay/hour-ticks",
        "so, an hour, looked at each 10 ms",
        lambda scale: deferrals.tick_by_tick(scale.deferred, 3600),
        heap(3600),
        slow=True,
    ),
    Row(
        "due/in-flight",
        "a million time out together, each, the call",
        lambda scale: deferrals.together(scale.many, in_flight=True),
        ONE,
        Bound(0.1, 0.05),
        slow=True,
    ),
    Row(
        "due/deferred",
        "a million deferred are due together, each, the call",
        lambda scale: deferrals.together(scale.many, in_flight=False),
        ONE,
        Bound(0.1, 0.05),
        slow=True,
    ),
    Row(
        "empty/get", "get(timeout=0), nothing", each(loops.nothing_to_get), NOTHING, Bound(1.3, 1.0)
    ),
    Row(
        "empty/get_many",
        "get_many(timeout=0), nothing",
        each(loops.nothing_to_get_many),
        NOTHING,
        Bound(1.3, 1.0),
    ),
    Row(
        "memory/ready",
        "a ready message beyond its body",
        figure(lambda scale: memory.of_messages(scale.traced)[0]),
        None,
        Bound(130, 110),
        unit="B",
    ),
    Row(
        "memory/in-flight",
        "in flight besides",
        figure(lambda scale: memory.of_messages(scale.traced)[1]),
        None,
        Bound(160, 110),
        unit="B",
    ),
    Row(
        "topic/memory",
        "a topic with a channel and a consumer",
        figure(lambda scale: memory.of_topics(scale.topics // 8)),
        None,
        Bound(9000, 7000),
        unit="B",
    ),
    Row("topic/make", "time to make these", making, None, Bound(90e-6, 60e-6)),
    Row(
        "topic/known",
        "broker.topic(known name)",
        each(topics.known_topic),
        None,
        Bound(1.5e-6, 0.7e-6),
    ),
    Row(
        "topic/known-channel",
        "topic.channel(known name)",
        each(topics.known_channel),
        None,
        Bound(1.5e-6, 0.7e-6),
    ),
    Row(
        "topic/another",
        "the 4,000th topic on a ManualClock",
        lambda scale: run_of(lambda: topics.making_after(scale.topics - FEW, FEW), FEW),
        Yardstick("the first", lambda _: run_of(lambda: topics.making_after(0, FEW), FEW)),
        Bound(1.5, 1.1),
        slow=True,
    ),
    Row(
        "topic/stop",
        "a stop of advance, 1,000 topics",
        lambda _: run_of(lambda: topics.stopping(1000, FEW), FEW),
        Yardstick("with one", lambda _: run_of(lambda: topics.stopping(1, FEW), FEW)),
        Bound(5, 1.1),
        slow=True,
    ),
    Row(
        "import/nsqlite",
        "a process that imports it, less one that does not",
        lambda _: imports.process(imports.OURS),
        Yardstick("what it is built on", lambda _: imports.process(imports.THEIRS)),
        Bound(1.4, 1.25),
        unit="ms",
    ),
)
"""What must be reached."""


BUILD: Final = (
    Row("build/nothing", "take(1), nothing", each(builders.nothing_to_take), NOTHING),
    Row("build/one", "put, take(1), fin_ids", each(builders.one_by_id), ONE),
    Row("build/batch", "publish, take, fin_ids, 1,000 each", each(builders.in_batches), QUEUE),
    Row("build/when_ready", "when_ready, put, take(1), fin", each(builders.called_back), ONE),
)
"""What those who build on the core use: notes."""

OTHERS: Final = (
    Row(
        "other/ready",
        "row one, a million ready",
        lambda scale: run_of(lambda: loops.behind(scale.many), scale.messages),
        ONE,
        Bound(1.15, 1.05),
        slow=True,
    ),
    Row(
        "other/in-flight",
        "row one, a million in flight",
        lambda scale: run_of(lambda: loops.among(scale.many), scale.messages),
        ONE,
        Bound(2, 1.3),
        slow=True,
    ),
    Row(
        "other/bridge",
        "from a thread to a task",
        threads(awaits.bridge),
        Yardstick("call_soon_threadsafe", threads(awaits.bridge_queue)),
        Bound(0.7, 0.45),
    ),
    Row(
        "other/worker",
        "an empty handler in 4 threads",
        threads(lambda: crews.worker(4)),
        Yardstick("ThreadPoolExecutor", threads(lambda: crews.pool(4))),
        Bound(0.8, 0.5),
    ),
    Row(
        "other/crowd",
        "one message while 10,000 tasks wait",
        each(lambda: awaits.crowd(10_000)),
        Yardstick("while 10 wait", each(lambda: awaits.crowd(10))),
        Bound(1.5, 1.1),
        slow=True,
    ),
)
"""What was reached before and is not in the table; measured only if it is named."""

ROWS: Final = {row.name: row for row in (*CORE, *BUILD, *OTHERS)}
GROUPS: Final = tuple(dict.fromkeys(row.group for row in ROWS.values()))
"""The names of the groups, in their order."""
