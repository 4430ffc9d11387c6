"""A signal at any place of any public call leaves no lock held and loses no message.

Each call is made in each of many states, and struck once at every place where CPython can let a
signal in (see strikes.py).  What is there afterwards must be what is there without the call, or
what is there with it: a put is everywhere or nowhere, a batch or a move is done or not, a get has
handed out a message that is still in flight, or nothing.  Both are found by trying.  What is
allowed besides has a name here: `PIECEWISE` and `counted`.

The default run takes each call in the plain state and a few calls in each other state; the whole
product runs by `pytest -m soak tests/stateful/test_strikes.py`.
"""

import asyncio
import contextlib
import logging
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from functools import partial, reduce
from operator import and_, or_
from typing import Any, Final

import pytest

from nsqlite import Consumer, NSQLiteError, Reentered, aio
from stateful.scenes import Facts, Scene, Stuck, end_helper
from stateful.strikes import CHECKS, MAY_LOOK, Run, strike, strike_also, throw

Act = Callable[[Scene], object]


@pytest.fixture(scope="module", autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    """End the thread that checks."""
    yield
    end_helper()


# The states


def getters(scene: Scene, many: int) -> Scene:
    """Have threads wait in `get`."""
    for _ in range(many):
        consumer = Consumer(scene.channel)
        scene.sleeps(consumer.get, scene.there, consumer.close)
    return scene


def bounded(policy: str, depth: int = 2) -> Scene:
    return Scene(max_depth=depth, when_full=policy)


def after(act: Act, **options: Any) -> Scene:
    """Return a scene to which something was done."""
    scene = Scene(**options)
    act(scene)
    return scene


def paused_topic(scene: Scene) -> None:
    """Have the topic hold two messages."""
    scene.topic.pause()
    scene.topic.put_many(["p0", "p1"])
    scene.topic.put_many(["d0", "d1"], delay=40)
    scene.topic.put("d2", delay=70)


def putter() -> Scene:
    """Have a thread wait for room."""
    scene = bounded("wait")
    scene.sleeps(
        lambda: scene.topic.put("w0"), lambda: scene.channel.closed or scene.channel.depth < 2
    )
    return scene


def joiner(of: str) -> Scene:
    """Have a thread wait until all is done; one message is left."""
    scene = Scene(ready=0)
    scene.channel.empty()
    scene.topic.put("h0")
    scene.held = [scene.consumer.get(timeout=0)]
    scene.sleeps(
        lambda: getattr(scene, of).join(),
        lambda: getattr(scene, of).closed or scene.topic.idle,
    )
    return scene


def teller(ready: int = 0, **options: Any) -> Scene:
    """Have two consumers wait to be told that there is something."""
    scene = Scene(ready=ready, **options)
    scene.told()
    scene.told()
    return scene


def aio_getter() -> Scene:
    """Have a task wait in `get`; its loop stands still meanwhile."""
    scene = Scene(ready=0)
    consumer = aio.Consumer(scene.channel)
    scene.suspended(consumer.get, scene.there, consumer.close)
    return scene


def aio_putter() -> Scene:
    """Have a task wait for room."""
    scene = bounded("wait")
    scene.suspended(
        lambda: aio.put(scene.topic, "w0"),
        lambda: scene.channel.closed or scene.channel.depth < 2,
        lambda: None,
    )
    return scene


STATES: Final[dict[str, Callable[[], Scene]]] = {
    "plain": Scene,
    "nothing ready": partial(Scene, ready=0),
    "a getter waits": lambda: getters(Scene(ready=0), 1),
    "two getters wait": lambda: getters(Scene(ready=0), 2),
    "two channels": partial(Scene, channels=2),
    "three channels": partial(Scene, channels=3),
    "two channels, a getter waits": lambda: getters(Scene(ready=0, channels=2), 1),
    "bounded": partial(bounded, "wait", 10),
    "full: wait": partial(bounded, "wait"),
    "full: raise": partial(bounded, "raise"),
    "full: drop newest": partial(bounded, "drop newest"),
    "full: drop oldest": partial(bounded, "drop oldest"),
    "full, two channels": partial(Scene, channels=2, max_depth=2, when_full="drop oldest"),
    "a put waits": putter,
    "observed": partial(Scene, observed=True),
    "observed, a getter waits": lambda: getters(Scene(ready=0, observed=True), 1),
    "a delay is over": lambda: after(lambda scene: scene.clock.advance(51), blind=True),
    "a time-out is over": lambda: after(lambda scene: scene.clock.advance(61), blind=True),
    "the channel is paused": lambda: after(lambda scene: scene.channel.pause()),
    "the channel is paused, a getter waits": lambda: getters(
        after(lambda scene: scene.channel.pause()), 1
    ),
    "the topic is paused": lambda: after(paused_topic),
    "the topic is paused, a getter waits": lambda: getters(after(paused_topic, ready=0), 1),
    "the channel drains": lambda: after(lambda scene: scene.channel.close(drain=True)),
    "the topic drains": lambda: after(lambda scene: scene.topic.close(drain=True)),
    "the topic is closed": lambda: after(lambda scene: scene.topic.close()),
    "join of the channel waits": partial(joiner, "channel"),
    "join of the topic waits": partial(joiner, "topic"),
    "two wait to be told": teller,
    "one was told, one waits to be": partial(teller, 1),
    "two wait to be told, bounded": partial(teller, max_depth=10),
    "a task waits in get": aio_getter,
    "a task waits in put": aio_putter,
    "a window is full": partial(Scene, max_in_flight=3),
    "a window has room": partial(Scene, max_in_flight=5),
    "its own time-out": partial(Scene, msg_timeout=7.0),
    "latency is measured": partial(Scene, e2e_processing_latency_percentiles=(0.99, 0.5)),
}

# The calls


def running(call: Callable[[], Any], *script: Callable[[], object]) -> Any:
    """Make a call in an event loop, which plays a script meanwhile."""
    loop = asyncio.new_event_loop()

    async def main() -> Any:
        task = asyncio.ensure_future(call())
        for part in (*script, None):
            for _ in range(3):
                await asyncio.sleep(0)
            if not task.done() and part is not None:
                part()
        if not task.done():
            raise Stuck
        return await task

    try:
        return loop.run_until_complete(main())
    finally:
        for task in asyncio.all_tasks(loop):  # where a strike broke off the script
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                loop.run_until_complete(task)
        loop.close()


CALLS: Final[dict[str, Act]] = {
    "put": lambda s: s.topic.put("new"),
    "put bytes": lambda s: s.topic.put(b"new"),
    "put at once": lambda s: s.topic.put("new", timeout=0),
    "put later": lambda s: s.topic.put("new", delay=5),
    "put many": lambda s: s.topic.put_many(["n0", "n1"]),
    "put many at once": lambda s: s.topic.put_many(["n0", "n1"], timeout=0),
    "put many later": lambda s: s.topic.put_many(["n0", "n1"], delay=5),
    "put waits": lambda s: s.topic.put("new", timeout=9),
    "get": lambda s: s.consumer.get(timeout=0),
    "get waits": lambda s: s.consumer.get(timeout=9),
    "get in vain": lambda s: s.consumer.get(timeout=2),
    "get many": lambda s: s.consumer.get_many(2, timeout=0),
    "get many lingers": lambda s: s.consumer.get_many(3, timeout=9, linger=1),
    "iterate": lambda s: next(iter(s.consumer), None),
    "take": lambda s: s.consumer.take(2),
    "when ready": lambda s: s.consumer.when_ready(lambda: None),
    "publish": lambda s: s.topic.publish(["n0", "n1"]),
    "fin ids": lambda s: s.consumer.fin_ids([message.id for message in s.held]),
    "req ids": lambda s: s.consumer.req_ids([s.held[0].id]),
    "touch ids": lambda s: s.consumer.touch_ids([message.id for message in s.held]),
    "depth of the topic": lambda s: s.topic.depth,
    "fin": lambda s: s.held[0].fin(),
    "fin many": lambda s: s.consumer.fin_many(s.held),
    "fin and get": lambda s: s.consumer._finish_and_get(s.held[0], s.clock.monotonic_ns()),
    "req": lambda s: s.held[0].req(),
    "req later": lambda s: s.held[0].req(delay=5),
    "touch": lambda s: s.held[0].touch(),
    "a with block": lambda s: s.held[0].__exit__(None, None, None),
    "move to a topic": lambda s: s.consumer.move(s.held[0], s.other),
    "move to a channel": lambda s: s.consumer.move(s.held[0], s.dead),
    "move within": lambda s: s.consumer.move(s.held[0], s.topic, "moved"),
    "pause the channel": lambda s: s.channel.pause(),
    "unpause the channel": lambda s: s.channel.unpause(),
    "empty the channel": lambda s: s.channel.empty(),
    "delete the channel": lambda s: s.channel.delete(),
    "close the channel": lambda s: s.channel.close(),
    "drain the channel": lambda s: s.channel.close(drain=True),
    "join the channel": lambda s: s.channel.join(timeout=0),
    "find": lambda s: s.channel.find(s.held[0].id),
    "discard": lambda s: s.channel.discard((s.channel.peek() or s.channel.in_flight())[0].id),
    "join waits": lambda s: s.channel.join(timeout=9),
    "pause the topic": lambda s: s.topic.pause(),
    "unpause the topic": lambda s: s.topic.unpause(),
    "empty the topic": lambda s: s.topic.empty(),
    "delete the topic": lambda s: s.topic.delete(),
    "close the topic": lambda s: s.topic.close(),
    "drain the topic": lambda s: s.topic.close(drain=True),
    "join the topic": lambda s: s.topic.join(timeout=0),
    "new channel": lambda s: s.topic.channel("new"),
    "old channel": lambda s: s.topic.channel("c"),
    "new consumer": lambda s: Consumer(s.channel),
    "close the consumer": lambda s: s.consumer.close(),
    "leave what it holds": lambda s: s.consumer.close(give_back=False),
    "open the window": lambda s: s.consumer.rdy(None),
    "shut the window": lambda s: s.consumer.rdy(0),
    "stats": lambda s: (s.broker.stats(), s.consumer.stats(), s.consumer.in_flight_count),
    "look": lambda s: (s.channel.peek(), s.channel.in_flight(), s.channel.deferred()),
    "count": lambda s: (s.channel.depth, s.channel.in_flight_count, s.channel.deferred_count),
    "observe": lambda s: s.topic.observe(lambda _event: None),
    "observe all": lambda s: s.broker.observe(lambda _event: None)(),
    "new topic": lambda s: s.broker.topic("new"),
    "topics": lambda s: s.broker.topics,
    "join the broker": lambda s: s.broker.join(timeout=0),
    "close the broker": lambda s: s.broker.close(),
    "advance to a delay": lambda s: s.clock.advance(50),
    "advance to a time-out": lambda s: s.clock.advance(60),
    "advance to next": lambda s: s.clock.advance_to_next(),
    "await put": lambda s: running(lambda: aio.put(s.topic, "new", timeout=0)),
    "await put many": lambda s: running(lambda: aio.put_many(s.topic, ["n0"], timeout=0)),
    "await get": lambda s: running(lambda: aio.Consumer(s.channel).get(timeout=3), *s.clock.script),
}

SCRIPTS: Final[dict[str, Callable[[Scene], list[Callable[[], object]]]]] = {
    "put waits": lambda s: [lambda: Consumer(s.channel).get(timeout=0)],
    "get waits": lambda s: [lambda: s.topic.put("late", timeout=0), s.consumer.close],
    "get in vain": lambda s: [lambda: s.clock.advance(2)],
    "get many lingers": lambda s: [
        lambda: s.topic.put("late", timeout=0),
        lambda: s.clock.advance(1),
        lambda: s.clock.advance(9),
    ],
    "iterate": lambda s: [lambda: s.topic.put("late", timeout=0), s.consumer.close],
    "join waits": lambda s: [s.channel.empty, lambda: s.clock.advance(9)],
    "await get": lambda s: [
        lambda: s.topic.put("late", timeout=0),
        lambda: s.clock.advance(3),
    ],
}
"""What others do while a call waits."""

HALVES: Final[dict[str, list[tuple[Act, Act]]]] = {
    "get many lingers": [
        (lambda s: s.consumer.get_many(2, timeout=0), lambda s: s.consumer.get(timeout=0))
    ],
}
"""Calls that do their work bit by bit, as what comes in between finds them."""

PIECEWISE: Final = {
    "empty the channel",
    "delete the channel",
    "close the channel",
    "drain the channel",
    "empty the topic",
    "delete the topic",
    "close the topic",
    "drain the topic",
    "close the broker",
}
"""Calls that drop messages or end things: a strike may find some gone and others not yet."""

TELLING: Final[dict[str, list[str]]] = {
    "nothing ready": ["get waits", "get many lingers", "get in vain", "await get"],
    "a getter waits": ["put", "put many", "req", "close the consumer"],
    "two getters wait": ["put many"],
    "two channels": ["put", "put many", "put later"],
    "three channels": ["put"],
    "two channels, a getter waits": ["put"],
    "bounded": ["put", "get"],
    "full: wait": ["put waits", "put at once"],
    "full: raise": ["put many"],
    "full: drop newest": ["put"],
    "full: drop oldest": ["put many"],
    "full, two channels": ["put"],
    "a put waits": ["get", "fin and get"],
    "observed": ["put", "fin"],
    "observed, a getter waits": ["put"],
    "a delay is over": ["get", "put"],
    "a time-out is over": ["get", "fin many"],
    "the channel is paused": ["put", "get"],
    "the channel is paused, a getter waits": ["unpause the channel"],
    "the topic is paused": ["put many", "close the topic", "unpause the topic"],
    "the topic is paused, a getter waits": ["unpause the topic"],
    "the channel drains": ["fin", "get"],
    "the topic drains": ["fin many"],
    "the topic is closed": ["put"],
    "join of the channel waits": ["fin", "move to a topic"],
    "join of the topic waits": ["fin"],
    "two wait to be told": ["put", "put many", "publish", "req", "close the channel"],
    "one was told, one waits to be": ["take", "get", "close the consumer"],
    "two wait to be told, bounded": ["put"],
    "a task waits in get": ["put", "put many"],
    "a task waits in put": ["get"],
    "a window is full": ["fin", "get in vain", "fin and get"],
    "a window has room": ["get many"],
    "its own time-out": ["get", "touch"],
    "latency is measured": ["fin", "fin many"],
}
"""What is called in the other states in the default run."""

OUTER: Final[dict[str, list[str]]] = {
    "plain": [
        *("put", "put many", "put later", "get", "fin", "fin many", "req", "move to a topic"),
        *("count", "depth of the topic", "take", "fin ids", "publish", "fin and get"),
    ],
    "nothing ready": ["get waits"],
    "a getter waits": ["put", "await get"],
    "bounded": ["put"],
    "the channel drains": ["fin"],
    "one was told, one waits to be": ["put"],
}
"""What handlers call into in the default run."""

NESTED: Final[dict[str, Act]] = {
    "put": lambda s: s.topic.put("nested", timeout=0),
    "fin": lambda s: s.held[-1].fin(),
    "close": lambda s: s.topic.close(),
}
"""What a signal handler calls in the middle of another call."""


# The proof


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    """Keep no warning of what was thrown away, thousands of times."""
    caplog.set_level(logging.CRITICAL, "nsqlite")


def scene_of(state: str, call: str) -> Scene:
    scene = STATES[state]()
    if call in SCRIPTS:
        scene.clock.script = SCRIPTS[call](scene)
    return scene


def tried(state: str, call: str, *acts: Act) -> tuple[Facts, set[str]]:
    """Return what is there after some acts without a signal, and how each of them ended."""
    scene = scene_of(state, call)
    outcomes = set()
    for act in acts:
        try:
            act(scene)
            outcomes.add("returned")
        except (NSQLiteError, Stuck) as error:
            outcomes.add(type(error).__name__)
    facts, faults = scene.settle()
    assert [] == faults, f"without a signal: {state}, {call}"
    return facts, outcomes


def part(number: int) -> Act:
    """Return what plays so many parts of the script."""

    def play(scene: Scene) -> None:
        for _ in range(number):
            scene.clock.play()

    return play


def differences(facts: Facts, allowed: Facts) -> list[str]:
    """Return what is not as it should be."""
    found = []
    for where in facts.keys() | allowed.keys():
        values, expected = facts.get(where), allowed.get(where)
        if isinstance(values, dict) and isinstance(expected, dict):
            found += [
                f"{where} {name}: {values[name]}, not {expected[name]}"
                for name in values
                if values[name] != expected[name]
            ]
        elif values != expected:
            found.append(f"{where}: {values}, not {expected}")
    return found


def counted(before: Facts, done: Facts) -> Facts:
    """Return what is there if nothing was put, but counted; which `TopicStats` says can be."""
    return {
        where: {**values, "count": done[where]["count"]} if where in done else values
        for where, values in before.items()
    }


def between(facts: Facts, known: list[Facts]) -> list[str]:
    """Return what is neither as in one of several accounts nor on the way between them."""
    found = []
    for where, values in facts.items():
        for name, value in values.items():
            others = [each[where][name] for each in known if where in each]
            if isinstance(value, list):
                counts = [Counter(other) for other in others]
                fewest = reduce(and_, counts, counts[0])
                ok = fewest <= Counter(value) <= reduce(or_, counts)
            elif name == "depth":
                ok = min(others) <= value <= max(others)
            else:
                ok = value in others
            if not ok:
                found.append(f"{where} {name}: {value}, not one of {others}")
    return found


def told(state: str, call: str, run: Run[Scene], faults: list[str]) -> list[str]:
    """Return what went wrong in a run as one text, or nothing."""
    text = "; ".join(faults)
    return [f"{state}, {call}: {run.place} ({run.outcome}): {text}"] if faults else []


def struck_runs(
    state: str, call: str, hit: Act, often: int, *, all_moments: bool
) -> Iterator[Run[Scene]]:
    """Yield the runs of a struck call, and see to it that they were struck where they can be."""
    runs = strike(
        partial(scene_of, state, call),
        CALLS[call],
        hit,
        drop=Scene.settle,
        often=often,
        all_moments=all_moments,
    )
    yield next(runs)
    for run in runs:
        assert run.place is not None
        assert run.place.rpartition(" ")[2] in CHECKS | MAY_LOOK, run.place
        yield run


def prove(
    state: str, call: str, often: int = sys.maxsize, *, all_moments: bool = False
) -> tuple[int, list[str]]:
    """Throw from each place of a call; return how many places there are and what went wrong."""
    runs = struck_runs(state, call, lambda _scene: throw(), often, all_moments=all_moments)
    first = next(runs)
    parts = len(SCRIPTS[call](first.scene)) if call in SCRIPTS else 0
    done, faults = first.scene.settle()
    assert [] == faults, f"without a signal: {state}, {call}"
    before = [tried(state, call, part(number))[0] for number in range(parts + 1)]
    count, wrong = 0, []
    for run in runs:
        count += 1
        facts, faults = run.scene.settle()
        if run.outcome not in {"Struck", first.outcome}:
            faults.append(str(run.error))
        if not faults:
            if run.outcome == "Struck" and call in PIECEWISE:
                # an emptied channel has room for a put that waits
                emptied = tried(state, call, CALLS["empty the channel"])[0]
                faults = between(facts, [before[0], done, emptied])
            else:
                allowed = [done]
                if run.outcome == "Struck":
                    allowed += [*before, counted(before[0], done)]
                faults = min([differences(facts, each) for each in allowed], key=len)
        wrong += told(state, call, run, faults)
    return count, wrong


def call_inside(inner: Act, scene: Scene) -> None:
    """Be a signal handler that makes a call."""
    try:
        inner(scene)
    except Reentered:
        scene.refused = True
    except NSQLiteError:
        pass


def prove_nested(
    state: str, call: str, *, nested: str, often: int = sys.maxsize
) -> tuple[int, list[str]]:
    """Make a call at each place of another; return how many places and what went wrong."""
    act, inner = CALLS[call], NESTED[nested]
    runs = struck_runs(state, call, partial(call_inside, inner), often, all_moments=False)
    first = next(runs)
    parts = len(SCRIPTS[call](first.scene)) if call in SCRIPTS else 0
    alone, faults = first.scene.settle()
    assert [] == faults, f"without a signal: {state}, {call}"
    orders = [
        tried(state, call, inner, act),
        tried(state, call, act, inner),
        tried(state, call, act, lambda scene: scene.channel.depth, inner),
        *(tried(state, call, first_part, inner, rest) for first_part, rest in HALVES.get(call, ())),
        # or in the middle of a wait
        *(tried(state, call, part(number + 1), inner, act) for number in range(parts)),
    ]
    outcomes = {first.outcome}.union(*(ends for _, ends in orders))
    outcomes |= {"Closed"} if nested == "close" else set()  # by who finds it closed on the way
    outcomes |= {"Empty"} if "WindowFull" in outcomes else set()  # and it is full no more
    count, wrong = 0, []
    for run in runs:
        count += 1
        facts, faults = run.scene.settle()
        if run.outcome not in outcomes:
            faults.append(str(run.error))
        if run.scene.refused and nested != "put":
            faults.append("refused")
        if not faults:
            allowed = [alone] if run.scene.refused else [facts for facts, _ in orders]
            faults = min([differences(facts, each) for each in allowed], key=len)
        wrong += told(state, call, run, faults)
    return count, wrong


def prove_all(
    which: Callable[[str, str], tuple[int, list[str]]], state: str, calls: Iterable[str]
) -> None:
    """Prove that several calls can be struck, and print at how many places they were."""
    total, all_wrong = 0, []
    for call in calls:
        count, wrong = which(state, call)
        assert count > 0, f"{state}, {call}: no place was struck"
        total += count
        all_wrong += wrong
    print(f"{state}: {total} strikes")
    assert [] == all_wrong


@pytest.mark.parametrize("call", CALLS)
def test_each_call_in_the_plain_state(call: str) -> None:
    """Wherever a call is broken off, it was made or it was not."""
    prove_all(partial(prove, often=1), "plain", [call])


@pytest.mark.parametrize("state", TELLING)
def test_some_calls_in_each_other_state(state: str) -> None:
    """Wherever a call is broken off, it was made or it was not, whatever else is going on."""
    prove_all(partial(prove, often=1), state, TELLING[state])


@pytest.mark.parametrize("nested", NESTED)
@pytest.mark.parametrize("state", OUTER)
def test_a_call_in_the_middle_of_another(state: str, nested: str) -> None:
    """A call that a handler makes at any place is made before the other one or after it."""
    prove_all(partial(prove_nested, nested=nested, often=1), state, OUTER[state])


@pytest.mark.soak
@pytest.mark.parametrize("state", STATES)
def test_each_call_in_each_state(state: str) -> None:
    """Wherever a call is broken off, and as often as it comes by there, it was made or was not."""
    prove_all(prove, state, CALLS)


@pytest.mark.soak
@pytest.mark.parametrize("nested", NESTED)
@pytest.mark.parametrize("state", STATES)
def test_a_call_in_the_middle_of_each_other(state: str, nested: str) -> None:
    """A call that a handler makes at any place is made before the other one or after it."""
    prove_all(partial(prove_nested, nested=nested, often=1), state, CALLS)


# The harness


@strike_also
def passing(numbers: list[int]) -> list[int]:
    """Pass by places of every kind."""
    for number in [*numbers]:
        try:
            numbers.append(number)
        finally:
            numbers.append(len(numbers) * 10**30 // 10**29)
    return sorted(numbers, key=negative)


@strike_also
def negative(number: int) -> int:
    return -number


def test_where_signals_come_in() -> None:
    """A signal comes in as a function begins or a loop goes round, or after C code."""
    places = [
        {str(run.place) for run in strike(lambda: [1, 2], passing, all_moments=each)} - {"None"}
        for each in (False, True)
    ]
    assert places[0] == places[1]
    names = {place.rpartition(" ")[2] for place in places[0]}
    assert {"RESUME", "CALL", "JUMP_BACKWARD", "BINARY_OP"} <= names <= CHECKS | MAY_LOOK


@pytest.mark.parametrize("call", ["put", "fin"])
def test_no_place_is_left_out(call: str) -> None:
    """A signal before any instruction comes in at one of the places that are struck anyway."""
    places = [
        {run.place for run in strike(partial(scene_of, "plain", call), CALLS[call], **options)}
        for options in ({}, {"often": 1}, {"all_moments": True})
    ]
    assert places[0] == places[1] == places[2]


def test_a_strike_is_found_out() -> None:
    """What a broken call leaves behind is told: here a message that was taken and forgotten."""

    @strike_also
    def lose(scene: Scene) -> None:
        scene.consumer.get(timeout=0).fin()
        scene.topic.put("r0")

    CALLS["lose"] = lose
    try:
        count, wrong = prove("plain", "lose")
    finally:
        del CALLS["lose"]
    assert 0 < len(wrong) < count
