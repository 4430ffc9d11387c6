"""Message ids in NSQ's form (NSQ semantics §4)."""

import re
import threading
from collections.abc import Callable
from itertools import pairwise
from typing import Final

import pytest
from helpers import PATIENCE, Call
from hypothesis import given
from hypothesis import strategies as st

from nsqlite import Broker, ClockOutOfRange, Consumer, Empty, Topic
from nsqlite.ids import BLOCK, BLOCKS, EPOCH, TICKS, GuidFactory, Ids
from nsqlite.testing import ManualClock

NOW: Final = 1_700_000_000_000_000_000
"""The moment of the specification's example."""

TICK: Final = 1 << 20
"""A tick in nanoseconds."""

LAST: Final = ((EPOCH + TICKS) << 20) - 1
"""The last moment that ids can tell, in November 2085."""

PER_TICK: Final = 4096
"""How many ids a node makes in a tick."""


def take(ids: Ids, now: int) -> str:
    """Take an id as a put does."""
    if now >= ids.until or ids.used == BLOCK:
        ids.renew(now)
    ids.used += 1
    return ids.prefix + ids.suffixes[ids.used - 1]


def block_of(factory: GuidFactory, now: int) -> list[str]:
    prefix, suffixes, _until = factory.block(now)
    return [prefix + suffix for suffix in suffixes]


def fields(guid: str) -> tuple[int, int, int]:
    """Return an id's tick since the epoch, node and sequence, as nsqd puts them together."""
    number = int(guid, 16)
    return number >> 22, number >> 12 & 1023, number & 4095


# The form


def test_the_specifications_example() -> None:
    """The id of NSQ's example is the example's."""
    ids = Ids(GuidFactory(248))
    assert "135950b8448f8005" == [take(ids, NOW) for _ in range(6)][5]


def test_a_topics_ids_are_the_examples() -> None:
    """A topic of that node at that moment gives the example's id to its sixth message."""
    topic = Topic("orders", node_id=248, clock=ManualClock(NOW / 10**9))
    assert "135950b8448f8005" == topic.put_many([b"x"] * 5 + [b"sixth"])[5]


@given(now=st.integers(EPOCH << 20, LAST), node=st.integers(0, 1023))
def test_an_id_is_tick_node_and_sequence(now: int, node: int) -> None:
    """An id has 16 lower-case hex characters: 41 bits of time, 10 of node, 12 of sequence."""
    guids = block_of(GuidFactory(node), now)
    assert all(re.fullmatch("[0-9a-f]{16}", guid) for guid in guids)
    assert [((now >> 20) - EPOCH, node, n) for n in range(BLOCK)] == list(map(fields, guids))


def test_a_block_lasts_for_its_tick() -> None:
    """A block tells when its tick ends."""
    _, _, until = GuidFactory(0).block(NOW)
    assert NOW < until <= NOW + TICK
    assert until % TICK == 0


def test_a_tick_has_4096_ids() -> None:
    """The blocks of a tick go through its 4096 sequence numbers, each once and in order."""
    factory = GuidFactory(0)
    guids = [guid for _ in range(BLOCKS) for guid in block_of(factory, NOW)]
    assert list(range(PER_TICK)) == [fields(guid)[2] for guid in guids]
    assert 1 == len({fields(guid)[0] for guid in guids})


# Never again, never waiting


def test_a_tick_that_is_used_up_is_followed_by_the_next() -> None:
    """While time stands the ids go on with the ticks to come, and no tick is left out."""
    ids = Ids(GuidFactory(1))
    guids = [take(ids, NOW) for _ in range(3 * PER_TICK + 1)]
    first = (NOW >> 20) - EPOCH
    expected = [(first + n // PER_TICK, 1, n % PER_TICK) for n in range(3 * PER_TICK + 1)]
    assert expected == list(map(fields, guids))


def test_ids_ascend_while_time_goes_back() -> None:
    """While time goes back by a second at each message every id is above the one before."""
    ids = Ids(GuidFactory(1))
    guids = [take(ids, NOW - n * 10**9) for n in range(500)]
    assert all(one < other for one, other in pairwise(guids))


def test_before_2010_ids_begin_with_the_epoch() -> None:
    """A clock that shows a time before NSQ's epoch gives ids of its first ticks."""
    ids = Ids(GuidFactory(5))
    guids = [take(ids, now) for now in (0, 1, TICK, (EPOCH << 20) - 1)]
    assert [(0, 5, n) for n in range(BLOCK)][: len(guids)] == list(map(fields, guids))
    assert (1, 5, 0) == fields(take(ids, (EPOCH + 1) << 20))


def test_a_new_tick_begins_a_new_block() -> None:
    """When time has come to the next tick an id has that tick's time and the sequence 0."""
    ids = Ids(GuidFactory(1))
    first = take(ids, NOW)
    until = ids.until
    last = take(ids, until - 1)
    new = take(ids, until)
    tick = fields(first)[0]
    assert [(tick, 1, 0), (tick, 1, 1), (tick + 1, 1, 0)] == list(map(fields, [first, last, new]))


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(-3 * TICK, 3 * TICK)), max_size=300))
def test_no_id_comes_twice(takes: list[tuple[int, int]]) -> None:
    """However time goes and whichever topic takes one, no id of a factory comes twice."""
    factory = GuidFactory(1)
    topics = [Ids(factory) for _ in range(3)]
    now = NOW
    guids: list[str] = []
    for topic, step in takes:
        now += step
        guids += [take(topics[topic], now) for _ in range(70 if step % 2 else 1)]
    assert len(guids) == len(set(guids))


def test_topics_of_a_broker_share_no_id() -> None:
    """Two topics of a broker, which in nsqd may repeat each other's ids, never do."""
    broker = Broker(clock=ManualClock())
    topics = [broker.topic("a"), broker.topic("b")]
    guids = [topic.put(b"x") for _ in range(200) for topic in topics]
    guids += [guid for topic in topics for guid in topic.put_many([b"x"] * 5000)]
    assert 10_400 == len(set(guids))


def test_threads_share_no_id() -> None:
    """Threads that take blocks at the same time get different ones, and together all of them."""
    factory = GuidFactory(1)
    start = threading.Barrier(4)

    def work() -> list[str]:
        start.wait(PATIENCE)
        ids = Ids(factory)
        return [take(ids, NOW) for _ in range(100 * BLOCK)]

    calls = [Call(work) for _ in range(4)]
    guids = [guid for call in calls for guid in call.result()]
    first = ((NOW >> 20) - EPOCH) * PER_TICK
    expected = [divmod(first + n, PER_TICK) for n in range(400 * BLOCK)]
    assert [(tick, 1, sequence) for tick, sequence in expected] == sorted(map(fields, guids))


# Clocks for which there are no ids


def test_the_last_id_is_a_number_of_63_bits() -> None:
    """The ids end with the highest positive number that a database and NSQ have."""
    factory = GuidFactory(1023)
    guids = [guid for _ in range(BLOCKS) for guid in block_of(factory, LAST)]
    assert f"{(1 << 63) - 1:016x}" == guids[-1]
    with pytest.raises(ClockOutOfRange) as info:
        factory.block(LAST)
    assert LAST / 10**9 == info.value.now
    assert (
        "the wall clock shows 3657284431 s since 1970, but it has been beyond 3657284431 s (in"
        " November 2085) before, where message ids end: begin a new store"
    ) == str(info.value)


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        (
            LAST + 1,
            (
                "the wall clock shows 3657284431 s since 1970, but message ids end at 3657284431 s"
                " (in November 2085): set it right"
            ),
        ),
        (
            9 * 10**18,
            (
                "the wall clock shows 9000000000 s since 1970, but message ids end at 3657284431 s"
                " (in November 2085): set it right"
            ),
        ),
        (
            -3 * 10**9,
            "the wall clock shows -3 s since 1970, but message ids begin at 0: set it right",
        ),
    ],
)
def test_a_clock_that_shows_no_time_of_ids(now: int, expected: str) -> None:
    """A clock beyond what ids can tell is an error that names it, and no id is taken."""
    factory, untouched = GuidFactory(1), GuidFactory(1)
    ids = Ids(factory)
    for _ in "12":
        with pytest.raises(ClockOutOfRange) as info:
            ids.take(now)
        assert expected == str(info.value)
    assert take(Ids(untouched), NOW) == take(ids, NOW)


def test_ids_that_are_used_up() -> None:
    """After the last id of a file there is none, although the clock is right by now."""
    factory = GuidFactory(0)
    factory.start_after((1 << 63) - 1)
    with pytest.raises(ClockOutOfRange, match="begin a new store"):
        factory.block(NOW)


@pytest.mark.parametrize("start", [4e9, 9e9])
def test_nothing_is_put_while_the_clock_is_wrong(start: float) -> None:
    """A put whose clock shows no time of ids raises, puts nothing, and others go on as before."""
    clock = ManualClock(start)
    broker = Broker(clock=clock)
    topic = broker.topic("orders")
    channel = topic.channel("billing")
    puts: list[Callable[[], object]] = [
        lambda: topic.put(b"x"),
        lambda: topic.put(b"x", delay=1),
        lambda: topic.put_many([b"x"] * 300),
        lambda: topic.publish([b"x"], lambda _problem: None),
    ]
    for put in puts:
        with pytest.raises(ClockOutOfRange):
            put()
    assert (0, 0) == (topic.stats().message_count, channel.depth)
    clock.advance(1)
    with Consumer(channel) as consumer, pytest.raises(Empty):
        consumer.get(timeout=0)
    topic._check()


# After another factory


def test_ids_begin_behind_those_of_another_factory() -> None:
    """A factory that is told of an id gives only higher ones, and none of the same tick."""
    earlier = block_of(GuidFactory(1023), NOW)[-1]
    factory = GuidFactory(0)
    factory.start_after(int(earlier, 16))
    later = block_of(factory, NOW - TICK)
    assert later[0] > earlier
    assert fields(earlier)[0] + 1 == fields(later[0])[0]
    assert 0 == fields(later[0])[2]


def test_ids_that_are_ahead_stay_so() -> None:
    """A factory that is told of an earlier id goes on where it is."""
    factory = GuidFactory(0)
    first = block_of(factory, NOW)
    factory.start_after(int(first[0], 16) - (5 << 22))
    assert fields(first[0])[0] == fields(block_of(factory, NOW)[0])[0]
    factory.start_after(0)
    assert fields(first[0])[0] == fields(block_of(factory, NOW)[0])[0]
