"""Message ids in NSQ's form (NSQ semantics §4)."""

import re
import threading
from itertools import pairwise
from typing import Final

from helpers import PATIENCE, Call
from hypothesis import given
from hypothesis import strategies as st

from nsqlite import Broker, Topic
from nsqlite.ids import BLOCK, BLOCKS, EPOCH, GuidFactory, Ids
from nsqlite.testing import ManualClock

NOW: Final = 1_700_000_000_000_000_000
"""The moment of the specification's example."""

TICK: Final = 1 << 20
"""A tick in nanoseconds."""

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


@given(now=st.integers(EPOCH << 20, 1 << 62), node=st.integers(0, 1023))
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
    guids = [take(ids, now) for now in (0, 1, TICK, (EPOCH << 20) - 1, -(10**18))]
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


def test_an_id_has_16_characters_at_any_time() -> None:
    """The ids of a far future are as long as today's."""
    assert 16 == len(Topic("orders", clock=ManualClock(9e9)).put(b"x"))


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
