"""The rows of the table: what is compared with what, and what it must come to.

The rule: a row's bounds stand in `BOUNDS` alone; what a row measures besides is a note.

Next: storerows.py
"""

from collections.abc import Callable, Iterator
from tempfile import TemporaryDirectory
from typing import Final

import awaits
import crews
import deferrals
import handover
import imports
import loops
import memory
from table import Bound, Line, ratio_line
from timing import Run, Scale, compare, run_of

BOUNDS: Final = {
    "one": Bound(1.2, 1.0),
    "batch": Bound(0.42, 0.3),
    "ready": Bound(1.15, 1.05),
    "flight": Bound(2, 1.3),
    "fanout": Bound(0.9, 0.75),
    "threads": Bound(1.0, 0.8),
    "await": Bound(2.6, 2.0),
    "subscribers": Bound(2.8, 2.2),
    "bridge": Bound(0.7, 0.45),
    "worker": Bound(0.8, 0.5),
    "crowd": Bound(1.5, 1.1),
    "deferred": Bound(2, 1.2),
    "memory": Bound(200, 130),
    "copies": Bound(1.5, 1.2),
    "import": Bound(1.5, 1.2),
}

_QUEUE = "queue.Queue put+get"


def _row_one(scale: Scale, times: float = 1) -> Run:
    """Return the measurement that other rows are compared with."""
    return run_of(lambda: loops.with_in_flight(scale.outstanding), scale.messages, times=times)


def _queue(scale: Scale) -> Run:
    return run_of(lambda: loops.queue_plain(scale.outstanding), scale.messages)


def floor(scale: Scale) -> Iterator[Line]:
    """What the least that a queue must do takes."""
    least = run_of(lambda: loops.floor(scale.outstanding), scale.messages)
    queue = run_of(lambda: loops.queue_keeping(scale.outstanding), scale.messages)
    work = "a tuple through a deque, in and out of a dict"
    yield ratio_line("floor", work, _QUEUE, compare(least, queue, scale.pairs))
    work = f"put, get, fin, {scale.outstanding:,} in flight"
    yield ratio_line("floor", work, "the floor", compare(_row_one(scale), least, scale.pairs))


def one(scale: Scale) -> Iterator[Line]:
    """One message at a time in one thread."""
    count = scale.outstanding
    queue = run_of(lambda: loops.queue_keeping(count), scale.messages)
    result = compare(_row_one(scale), queue, scale.pairs)
    work = f"put, get, fin, {count:,} in flight"
    yield ratio_line("one", work, _QUEUE, result, bound=BOUNDS["one"])
    ready = run_of(lambda: loops.with_ready(count), scale.messages)
    result = compare(ready, _queue(scale), scale.pairs)
    yield ratio_line("one", f"put, get, fin, {count:,} ready", _QUEUE, result)


def batch(scale: Scale) -> Iterator[Line]:
    """A thousand at a time in one thread."""
    result = compare(run_of(loops.in_batches, scale.messages), _queue(scale), scale.pairs)
    work = f"put_many, get_many, fin_many, {loops.BATCH:,} each"
    yield ratio_line("batch", work, _QUEUE, result, bound=BOUNDS["batch"])


def ready(scale: Scale) -> Iterator[Line]:
    """A large backlog behind the first row."""
    loop = loops.with_in_flight(scale.outstanding, ready=scale.many)
    result = compare(run_of(lambda: loop, scale.messages), _row_one(scale), scale.pairs)
    work = f"row one, {scale.many:,} ready"
    yield ratio_line("ready", work, "row one", result, bound=BOUNDS["ready"])


def flight(scale: Scale) -> Iterator[Line]:
    """Much in flight in the first row; and what it took to bring it there."""
    small = run_of(loops.fill, scale.messages)
    large = run_of(loops.fill, scale.many)
    filling = compare(large, small, 1)
    loop = loops.with_in_flight(scale.many, msg_timeout=loops.LONGEST)
    result = compare(run_of(lambda: loop, scale.messages), _row_one(scale), scale.pairs)
    work = f"row one, {scale.many:,} in flight"
    yield ratio_line("flight", work, "row one", result, bound=BOUNDS["flight"])
    work = f"put and get until {scale.many:,} are in flight"
    yield ratio_line("flight", work, f"until {scale.messages:,} are", filling)


def fanout(scale: Scale) -> Iterator[Line]:
    """One put, four channels."""
    rounds = scale.messages // 4
    ours = run_of(lambda: loops.fanned_out(4, scale.outstanding), rounds)
    result = compare(ours, _row_one(scale, times=4), scale.pairs)
    work = "put to 4 channels, get and fin in each"
    yield ratio_line("fanout", work, "4 x row one", result, bound=BOUNDS["fanout"])


def threads(scale: Scale) -> Iterator[Line]:
    """From one thread to another."""
    ours = run_of(handover.stream, scale.messages, waits=True)
    theirs = run_of(handover.stream_queue, scale.messages, waits=True)
    result = compare(ours, theirs, scale.pairs)
    work = f"{scale.messages:,} from one thread to another"
    yield ratio_line("threads", work, "queue.Queue", result, bound=BOUNDS["threads"])
    ours = run_of(handover.ping_pong, scale.trips, waits=True)
    theirs = run_of(handover.ping_pong_queue, scale.trips, waits=True)
    result = compare(ours, theirs, scale.pairs)
    work = "a message to another thread and back"
    yield ratio_line("threads", work, "queue.Queue", result, bound=BOUNDS["threads"])


def awaited(scale: Scale) -> Iterator[Line]:
    """One message at a time in one task."""
    ours, theirs = run_of(awaits.alone, scale.messages), run_of(awaits.alone_queue, scale.messages)
    result = compare(ours, theirs, scale.pairs)
    work = "await put, get, fin, one at a time"
    yield ratio_line("await", work, "asyncio.Queue put+get", result, bound=BOUNDS["await"])


def subscribers(scale: Scale) -> Iterator[Line]:
    """One put, four channels, one task."""
    rounds = scale.messages // 4
    ours = run_of(lambda: awaits.subscribers(4), rounds)
    theirs = run_of(lambda: awaits.subscribers_queue(4), rounds)
    result = compare(ours, theirs, scale.pairs)
    work = "await put, get and fin in 4 channels"
    bound = BOUNDS["subscribers"]
    yield ratio_line("subscribers", work, "4 x asyncio.Queue", result, bound=bound)


def bridge(scale: Scale) -> Iterator[Line]:
    """From a thread to a task."""
    ours = run_of(awaits.bridge, scale.messages, waits=True)
    theirs = run_of(awaits.bridge_queue, scale.messages, waits=True)
    result = compare(ours, theirs, scale.pairs)
    work = f"{scale.messages:,} from a thread to a task"
    yield ratio_line("bridge", work, "call_soon_threadsafe", result, bound=BOUNDS["bridge"])


def worker(scale: Scale) -> Iterator[Line]:
    """An empty handler in four threads."""
    ours = run_of(lambda: crews.worker(4), scale.deferred, waits=True)
    theirs = run_of(lambda: crews.pool(4), scale.deferred, waits=True)
    result = compare(ours, theirs, scale.long_pairs)
    work = f"an empty handler in 4 threads, {scale.deferred:,}"
    yield ratio_line("worker", work, "ThreadPoolExecutor", result, bound=BOUNDS["worker"])


def crowd(scale: Scale) -> Iterator[Line]:
    """One message to the first of many who wait."""
    many = scale.outstanding * 10
    ours = run_of(lambda: awaits.crowd(many), scale.messages // 4)
    theirs = run_of(lambda: awaits.crowd(10), scale.messages // 4)
    result = compare(ours, theirs, scale.pairs)
    work = f"one message while {many:,} tasks wait"
    yield ratio_line("crowd", work, "while 10 wait", result, bound=BOUNDS["crowd"])


def deferred(scale: Scale) -> Iterator[Line]:
    """Deferred in random order, then all due; the wheel itself is judged."""
    count = scale.deferred
    spans = {"a minute": 60, "an hour": 3600}
    for words, span in spans.items():
        heap = deferrals.through_heap(count, span)
        wheel = deferrals.through_wheel(count, span)
        result = compare(wheel, heap, scale.long_pairs)
        bound = BOUNDS["deferred"] if span == 60 else None
        work = f"TimerWheel, {count:,} over {words}"
        yield ratio_line("deferred", work, "heapq push and pop", result, bound=bound)
    for words, span in spans.items():
        heap = deferrals.through_heap(count, span)
        topic = deferrals.through_topic(count, span)
        result = compare(topic, heap, max(1, scale.long_pairs // 2))
        work = f"put with a delay, {count:,} over {words}, ready"
        yield ratio_line("deferred", work, "heapq push and pop", result)


def memory_of_one(scale: Scale) -> Iterator[Line]:
    """What a ready message takes beyond its body."""
    ours = memory.beyond_body(scale.traced, 1)
    yield Line(
        name="memory",
        work=f"a ready message beyond its body, of {scale.traced:,}",
        ours=ours,
        unit="B",
        judged=ours,
        bound=BOUNDS["memory"],
        absolute=True,
    )


def copies(scale: Scale) -> Iterator[Line]:
    """What the copies of four channels take, beyond the bodies."""
    ours = memory.beyond_body(scale.traced, 4)
    theirs = memory.beyond_body(scale.traced, 1)
    yield Line(
        name="copies",
        work="ready in 4 channels, beyond the body",
        against="ready in 1 channel",
        ours=ours,
        theirs=theirs,
        unit="B",
        judged=ours / theirs,
        bound=BOUNDS["copies"],
    )


def import_of_it(scale: Scale) -> Iterator[Line]:
    """The import in a new interpreter; the statement alone is judged."""
    against = "what it is built on"
    with TemporaryDirectory() as cache:
        ours, theirs = imports.whole(imports.OURS, cache), imports.whole(imports.THEIRS, cache)
        result = compare(ours, theirs, scale.pairs)
        work = "python -c 'import nsqlite', start to end"
        yield ratio_line("import", work, against, result, unit="ms")
        ours = imports.statement_alone(imports.OURS, cache)
        theirs = imports.statement_alone(imports.THEIRS, cache)
        result = compare(ours, theirs, scale.pairs)
        bound = BOUNDS["import"]
        yield ratio_line("import", "the statement alone", against, result, bound=bound, unit="ms")


ROWS: Final[dict[str, Callable[[Scale], Iterator[Line]]]] = {
    "floor": floor,
    "one": one,
    "batch": batch,
    "ready": ready,
    "flight": flight,
    "fanout": fanout,
    "threads": threads,
    "await": awaited,
    "subscribers": subscribers,
    "bridge": bridge,
    "worker": worker,
    "crowd": crowd,
    "deferred": deferred,
    "memory": memory_of_one,
    "copies": copies,
    "import": import_of_it,
}
