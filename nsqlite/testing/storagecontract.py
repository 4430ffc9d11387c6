"""What every storage must do, as tests: for those who write one.

The rule: a test says what `nsqlite.store.Storage` promises, and looks only through its calls.

    class TestMine(nsqlite.testing.StorageContract):
        def make(self):
            return MyStorage(self.path)  # the same contents each time, empty at first

pytest collects the tests of such a class.  Each test begins with empty contents, so `self.path`
comes from a fixture or `setup_method` of the class.

Next: __main__.py
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Final, TypeAlias

from nsqlite.store.store import (
    GONE,
    Batch,
    Copy,
    Found,
    Row,
    Storage,
    StoredChannel,
    StoredTopic,
)

HIGHEST: Final = (1 << 63) - 1
"""The highest id that there can be."""

MANY: Final = 2500
"""More messages than a storage can be expected to handle in one step."""

ENOUGH: Final = 100_000
"""So many calls of `tidy` must do."""

LARGE: Final = 10 << 20
"""Bytes of a large body."""

Topics: TypeAlias = dict[int, StoredTopic]


class _Interrupted(Exception):
    """What is thrown into the middle of a write."""


class _Interrupting(list[Row]):
    """Rows that come to no end: after the last one they throw."""

    def __iter__(self) -> Iterator[Row]:
        """Go through the rows, then throw."""
        yield from super().__iter__()
        raise _Interrupted


class _InterruptingCopies(dict[int, Copy]):
    """Copies that throw when they are looked at."""

    def items(self) -> Any:
        """Throw."""
        raise _Interrupted

    __iter__ = keys = values = items


def _row(
    identity: int,
    data: bytes = b"x",
    *,
    due: int | None = None,
    only: int | None = None,
    codec: str | None = None,
) -> Row:
    """Return a message, whose timestamp follows from its id."""
    return identity, identity // 2, due, only, codec, data


def _topic(*channels: StoredChannel, number: int = 1, **fields: Any) -> StoredTopic:
    """Return a topic of a name of its own."""
    return StoredTopic(number=number, name=f"topic{number}", channels=list(channels), **fields)


def _channel(number: int, **fields: Any) -> StoredChannel:
    """Return a channel of a name of its own."""
    return StoredChannel(number=number, name=f"channel{number}", **fields)


def _ids(found: list[Found]) -> list[int]:
    return [one[0] for one in found]


def _pages(storage: Storage, channel: int | None) -> list[list[int]]:
    """Return the ids of all that a channel has in order, and of two parts of it."""
    bounds = ((0, 9), (1, 2), (0, 1))
    return [_ids(storage.read(1, channel, after, upto, -1)) for after, upto in bounds]


def _ready(storage: Storage, channel: int | None, topic: int = 1, after: int = 0) -> list[int]:
    """Return the ids of what a channel has in order."""
    return _ids(storage.read(topic, channel, after, HIGHEST, -1))


def _apart(storage: Storage, channel: int | None, topic: int = 1, after: int = 0) -> list[int]:
    """Return the ids of what a channel has apart."""
    return sorted(_ids(storage.read_apart(topic, channel, after, HIGHEST)))


def _counts(topic: StoredTopic) -> tuple[int, dict[int, int]]:
    """Return how many messages the topic and its channels hold."""
    return topic.held, {channel.number: channel.held for channel in topic.channels}


def _tidied(storage: Storage) -> None:
    """Have a storage do all that keeps it small."""
    storage.copy_log()
    for _ in range(ENOUGH):
        if not storage.tidy():
            return
    raise AssertionError("tidy() has always more to do")


def _replace(topic: StoredTopic, new: StoredChannel) -> None:
    """Give a topic a channel in the place of the one of its number, if there is one."""
    rest = [channel for channel in topic.channels if channel.number != new.number]
    topic.channels = [*rest, new]


class StorageContract:
    """The tests; see the module."""

    def make(self) -> Storage:
        """Open the storage of this test, with what was written to it before.

        A storage that was closed or abandoned by then is not used any more.
        """
        raise NotImplementedError

    @contextmanager
    def opened(self) -> Iterator[tuple[Storage, Topics]]:
        """Open it and load what it has, by number; close it at the end."""
        storage = self.make()
        try:
            yield storage, {topic.number: topic for topic in storage.load()}
        finally:
            storage.close()

    def given(self, *batches: Batch) -> None:
        """Open it, write and close it."""
        with self.opened() as (storage, _):
            for batch in batches:
                storage.write(batch)

    def after(self, write: Callable[[Storage], object]) -> Iterator[Storage]:
        """Write; go through the storage as it is at once, tidied, and opened again."""
        with self.opened() as (storage, _):
            write(storage)
            yield storage
            _tidied(storage)
            yield storage
        with self.opened() as (storage, _):
            yield storage

    # Topics and channels

    def test_a_new_storage_is_empty(self) -> None:
        """There is no topic in the beginning, also when it is opened again."""
        for _ in range(2):
            with self.opened() as (_storage, topics):
                assert topics == {}

    def test_topics_and_channels_come_back(self) -> None:
        """What is kept of topics and channels is the same when it is loaded."""
        first = _topic(_channel(4, paused=True, since=7), _channel(9), handed=12, last=12)
        second = _topic(number=6, paused=True, handed=3, last=HIGHEST)
        self.given(Batch(topics=[first, second]))
        with self.opened() as (_, topics):
            for topic in topics.values():
                topic.channels.sort(key=lambda channel: channel.number)
            assert {1: first, 6: second} == topics

    def test_an_account_replaces_the_one_before(self) -> None:
        """A topic is as the last batch says; a channel is added to those that it had."""
        later = _topic(_channel(4, since=5), _channel(5, paused=True), handed=9, last=9)
        self.given(Batch(topics=[_topic(_channel(4), paused=True)]), Batch(topics=[later]))
        with self.opened() as (_, topics):
            topics[1].channels.sort(key=lambda channel: channel.number)
            assert {1: later} == topics

    def test_the_highest_numbers_are_kept(self) -> None:
        """They are those of all topics and channels that ever were, deleted or not."""

        def write(storage: Storage) -> None:
            storage.write(Batch(topics=[_topic(_channel(9), _channel(3), number=4)]))
            last = HIGHEST // 2  # higher than the messages that are left
            new = _topic(number=5, handed=last, last=last)
            storage.write(Batch(topics=[_topic(_channel(8), number=2), new]))
            storage.write(Batch(topics=[_topic(_channel(3), number=4)], gone_channels=[(4, 9)]))
            storage.write(Batch(rows=[(5, [_row(70)]), (4, [_row(60)])]))
            storage.write(Batch(gone_topics=[5, 4]))

        with self.opened() as (storage, _):
            assert storage.highest() == (0, 0, 0)
        for storage in self.after(write):
            assert storage.highest()[:2] == (5, 9)
            assert storage.highest()[2] >= HIGHEST // 2

    def test_names_are_the_topics(self) -> None:
        """Channels of two topics may have the same name."""
        topics = [
            StoredTopic(number=n, name=f"t{n}", channels=[StoredChannel(number=n, name="same")])
            for n in (1, 2)
        ]
        self.given(Batch(topics=topics))
        with self.opened() as (_, found):
            assert {1: topics[0], 2: topics[1]} == found

    def test_many_topics(self) -> None:
        """Two hundred topics keep their messages apart."""
        numbers = range(1, 201)
        topics = [_topic(_channel(number), number=number) for number in numbers]
        rows = [(number, [_row(number)]) for number in numbers]
        self.given(Batch(topics=topics, rows=rows))
        with self.opened() as (storage, found):
            assert set(numbers) == set(found)
            ready = [_ready(storage, number, number) for number in numbers]
        assert [[number] for number in numbers] == ready

    # Messages

    def test_a_message_is_there_as_it_was_written(self) -> None:
        """Each field of a message comes back, at once and later."""
        rows = [_row(3, b"plain"), _row(5, b"{}", codec="json"), _row(9, b"\x00\xff")]

        def write(storage: Storage) -> None:
            storage.write(Batch(topics=[_topic(_channel(7))]))
            for row in rows:
                storage.write_row(1, row)

        for storage in self.after(write):
            assert storage.read(1, 7, 0, HIGHEST, -1) == [
                (3, 1, None, None, b"plain", 0),
                (5, 2, None, "json", b"{}", 0),
                (9, 4, None, None, b"\x00\xff", 0),
            ]

    def test_the_three_ways_to_write_messages_are_one(self) -> None:
        """One row, several rows, and a batch with rows leave the same."""

        def write(storage: Storage) -> None:
            storage.write(Batch(topics=[_topic(_channel(7)), _topic(_channel(8), number=2)]))
            storage.write_row(1, _row(1))
            storage.write_rows(1, [_row(2), _row(3)])
            storage.write(Batch(rows=[(1, [_row(4)]), (2, [_row(5)])]))

        for storage in self.after(write):
            assert (_ready(storage, 7), _ready(storage, 8, 2)) == ([1, 2, 3, 4], [5])

    def test_a_new_topic_and_its_messages_go_in_one_batch(self) -> None:
        """A batch that makes a topic and a channel may hold their messages."""
        batch = Batch(topics=[_topic(_channel(7))], rows=[(1, [_row(1), _row(2, due=5)])])
        for storage in self.after(lambda storage: storage.write(batch)):
            assert (_ready(storage, 7), _apart(storage, 7)) == ([1], [2])

    def test_rows_that_are_written_twice_are_there_once(self) -> None:
        """A message whose id is known changes nothing."""

        def write(storage: Storage) -> None:
            storage.write(Batch(topics=[_topic(_channel(7))]))
            for _ in range(2):
                storage.write_row(1, _row(1))
                storage.write_rows(1, [_row(1), _row(2)])
                storage.write(Batch(rows=[(1, [_row(2), _row(3)])]))

        for storage in self.after(write):
            assert _ready(storage, 7) == [1, 2, 3]
        with self.opened() as (_, topics):
            assert _counts(topics[1]) == (0, {7: 3})

    def test_the_highest_ids(self) -> None:
        """Ids go up to the highest number of 63 bits, and times too."""
        rows = [_row(HIGHEST - 1), _row(HIGHEST, due=HIGHEST)]
        batch = Batch(topics=[_topic(_channel(7))], rows=[(1, rows)])
        for storage in self.after(lambda storage: storage.write(batch)):
            assert _ready(storage, 7) == [HIGHEST - 1]
            assert storage.read_apart(1, 7, 0, HIGHEST) == [
                (HIGHEST, HIGHEST // 2, HIGHEST, None, b"x", 0)
            ]
        with self.opened() as (_, topics):
            assert (topics[1].handed, topics[1].last) == (HIGHEST, HIGHEST)

    def test_bodies_of_every_size(self) -> None:
        """Bodies of 1 byte up to 10 MB come back byte for byte."""
        sizes = [1, 2, 1000, 2047, 2048, 2049, 65_536, 1 << 20, LARGE]
        bodies = {n: (b"%d," % n) * (size // 2) + b"!" for n, size in enumerate(sizes, 1)}

        def write(storage: Storage) -> None:
            storage.write(Batch(topics=[_topic(_channel(7))]))
            storage.write_rows(1, [_row(identity, data) for identity, data in bodies.items()])

        for storage in self.after(write):
            assert bodies == {one[0]: one[4] for one in storage.read(1, 7, 0, HIGHEST, -1)}

    # Reading

    def test_messages_are_read_in_the_order_of_their_ids(self) -> None:
        """The order in which they were written does not count."""
        batch = Batch(topics=[_topic(_channel(7))], rows=[(1, [_row(n) for n in (5, 1, 9, 3)])])
        for storage in self.after(lambda storage: storage.write(batch)):
            assert _ready(storage, 7) == [1, 3, 5, 9]

    def test_a_page_is_what_was_asked_for(self) -> None:
        """It begins after an id, ends with another, and has no more messages than its limit."""
        batch = Batch(topics=[_topic(_channel(7))], rows=[(1, [_row(n) for n in range(1, 10)])])
        for storage in self.after(lambda storage: storage.write(batch)):
            assert _ids(storage.read(1, 7, 2, 6, 10)) == [3, 4, 5, 6]
            assert _ids(storage.read(1, 7, 2, 6, 2)) == [3, 4]
            assert _ids(storage.read(1, 7, 9, HIGHEST, 10)) == []
            assert _ids(storage.read(1, 7, 2, 6, 0)) == []

    def test_a_limit_below_zero_is_none(self) -> None:
        """A page without a limit has all messages."""
        rows = [_row(n) for n in range(1, MANY + 1)]
        batch = Batch(topics=[_topic(_channel(7))], rows=[(1, rows)])
        for storage in self.after(lambda storage: storage.write(batch)):
            assert len(_ready(storage, 7)) == MANY

    def test_what_waits_is_read_apart(self) -> None:
        """A message that is due at a time is not among those in order, whenever that is."""
        rows = [_row(1), _row(2, due=1), _row(3, due=HIGHEST), _row(4)]
        batch = Batch(topics=[_topic(_channel(7))], rows=[(1, rows)])
        for storage in self.after(lambda storage: storage.write(batch)):
            assert _ready(storage, 7) == [1, 4]
            found = sorted(storage.read_apart(1, 7, 0, HIGHEST))
            assert found == [(2, 1, 1, None, b"x", 0), (3, 1, HIGHEST, None, b"x", 0)]
            assert _apart(storage, 7, after=2) == [3]
            assert _ids(storage.read_apart(1, 7, 0, 2)) == [2]

    def test_what_is_meant_for_one_channel_is_read_apart_there_alone(self) -> None:
        """No other channel, and not the topic, has a message that is meant for one only."""
        rows = [_row(1), _row(2, only=7), _row(3, only=8, due=5)]
        batch = Batch(topics=[_topic(_channel(7), _channel(8))], rows=[(1, rows)])
        for storage in self.after(lambda storage: storage.write(batch)):
            assert (_ready(storage, 7), _ready(storage, 8)) == ([1], [1])
            assert (_apart(storage, 7), _apart(storage, 8)) == ([2], [3])
            assert _ids(storage.read_apart(1, 7, 0, 1)) == [2], "above upto, but its own"
        with self.opened() as (_, topics):
            assert _counts(topics[1]) == (0, {7: 2, 8: 2})

    def test_a_channel_holds_nothing_up_to_where_it_begins(self) -> None:
        """Messages with ids up to its `since` are not those of a channel."""
        old = Batch(topics=[_topic(_channel(7))], rows=[(1, [_row(1), _row(2, due=9)])])
        new = _topic(_channel(7, held=2), _channel(8, since=2), handed=2, last=2)
        later = Batch(topics=[new], rows=[(1, [_row(3), _row(4, due=9)])])
        self.given(old, later)
        with self.opened() as (storage, topics):
            assert _counts(topics[1]) == (0, {7: 4, 8: 2})
            assert (_ready(storage, 7), _ready(storage, 8, after=2)) == ([1, 3], [3])
            assert (_apart(storage, 7), _apart(storage, 8, after=2)) == ([2, 4], [4])

    # What becomes of messages in channels

    def test_attempts_are_kept_for_each_channel(self) -> None:
        """Deliveries are those of one channel, and the last number that was written."""

        def write(storage: Storage) -> None:
            rows = [_row(1), _row(2), _row(3)]
            storage.write(Batch(topics=[_topic(_channel(7), _channel(8))], rows=[(1, rows)]))
            storage.write_attempts(1, 7, [(1, 1)])
            storage.write_attempts(1, 7, [(1, 2), (2, 1), (3, 5)])
            storage.write(Batch(copies=[(1, 8, {2: (65_535, None)})]))

        for storage in self.after(write):
            for channel, attempts in ((7, [2, 1, 5]), (8, [0, 65_535, 0])):
                assert attempts == [one[5] for one in storage.read(1, channel, 0, HIGHEST, -1)]

    def test_what_was_requeued_for_later_is_apart(self) -> None:
        """A message that waits in one channel is in order in another."""

        def write(storage: Storage) -> None:
            rows = [_row(1), _row(2)]
            storage.write(Batch(topics=[_topic(_channel(7), _channel(8))], rows=[(1, rows)]))
            storage.write(Batch(copies=[(1, 7, {1: (3, 99)})]))

        for storage in self.after(write):
            assert (_ready(storage, 7), _ready(storage, 8)) == ([2], [1, 2])
            assert storage.read_apart(1, 7, 0, HIGHEST) == [(1, 0, 99, None, b"x", 3)]
            assert storage.read_apart(1, 8, 0, HIGHEST) == []

    def test_what_was_requeued_stays_apart(self) -> None:
        """A copy without a time is one that waits no more, and keeps the time that it had."""

        def write(storage: Storage) -> None:
            rows = [_row(1), _row(2)]
            storage.write(Batch(topics=[_topic(_channel(7))], rows=[(1, rows)]))
            storage.write(Batch(copies=[(1, 7, {1: (3, 99), 2: (3, 99)})]))
            storage.write(Batch(copies=[(1, 7, {1: (4, None)})]))
            storage.write_attempts(1, 7, [(2, 4)])

        for storage in self.after(write):
            assert sorted(
                (one[0], one[2], one[5]) for one in storage.read_apart(1, 7, 0, HIGHEST)
            ) == [(1, 99, 4), (2, 99, 4)]
            assert _ready(storage, 7) == []

    def test_what_had_to_wait_stays_apart(self) -> None:
        """A message that was put with a delay is apart when it was delivered, too."""

        def write(storage: Storage) -> None:
            rows = [_row(1, due=50), _row(2, due=50)]
            storage.write(Batch(topics=[_topic(_channel(7))], rows=[(1, rows)]))
            storage.write(Batch(copies=[(1, 7, {1: (1, None), 2: (1, 80)})]))

        for storage in self.after(write):
            assert sorted(
                (one[0], one[2], one[5]) for one in storage.read_apart(1, 7, 0, HIGHEST)
            ) == [(1, 50, 1), (2, 80, 1)]
            assert _ready(storage, 7) == []

    def test_what_a_channel_has_done_with_is_gone_from_it(self) -> None:
        """Whatever it was, in order, waiting, or meant for it alone."""

        def write(storage: Storage) -> None:
            rows = [_row(1), _row(2), _row(3, due=9), _row(4, only=7), _row(5)]
            storage.write(Batch(topics=[_topic(_channel(7), _channel(8))], rows=[(1, rows)]))
            storage.write(Batch(copies=[(1, 7, {2: (1, 77)})]))
            done: dict[int, Copy] = dict.fromkeys([1, 2, 3, 4], GONE)
            topic = _topic(_channel(7, held=1), _channel(8, held=4), handed=5, last=5)
            storage.write(Batch(topics=[topic], copies=[(1, 7, done)]))

        for storage in self.after(write):
            assert (_ready(storage, 7), _apart(storage, 7)) == ([5], [])
            assert (_ready(storage, 8), _apart(storage, 8)) == ([1, 2, 5], [3])
        with self.opened() as (_, topics):
            assert _counts(topics[1]) == (0, {7: 1, 8: 4})

    def test_a_page_is_what_lies_between_two_ids(self) -> None:
        """What was written of the topic and its channels does not say what is read."""
        topic = _topic(_channel(7), paused=True)
        self.given(Batch(topics=[topic], rows=[(1, [_row(1), _row(2), _row(3, only=7)])]))
        with self.opened() as (storage, _):
            pages = list(map(partial(_pages, storage), (None, 7, 8)))
            apart = [_ids(storage.read_apart(1, 7, 0, 0)), storage.read_apart(1, 8, 0, 9)]
        assert pages == [[[1, 2], [2], [1]]] * 3
        assert apart == [[3], []]

    def test_a_message_is_forgotten_when_the_last_has_done_with_it(self) -> None:
        """Until then it is there for those who have not, in whatever order they finish."""
        channels = [_channel(number, held=2) for number in (7, 8, 9)]
        self.given(
            Batch(topics=[_topic(*channels, handed=2, last=2)], rows=[(1, [_row(1), _row(2)])])
        )
        left = [7, 8, 9]
        for number in (8, 9, 7):
            left.remove(number)
            channels = [_channel(n, held=1 + (n in left)) for n in (7, 8, 9)]
            topic = _topic(*channels, handed=2, last=2)
            self.given(Batch(topics=[topic], copies=[(1, number, {1: GONE})]))
            expected = [[1, 2] if n in left else [2] for n in (7, 8, 9)]
            with self.opened() as (storage, _):
                assert expected == [_ready(storage, 7), _ready(storage, 8), _ready(storage, 9)]
        assert self.left() == [2]

    def test_a_message_of_one_batch_can_be_done_with_by_all(self) -> None:
        """Copies of several channels in one batch count together."""
        self.given(
            Batch(topics=[_topic(_channel(7), _channel(8))], rows=[(1, [_row(1), _row(2)])]),
            Batch(
                topics=[_topic(_channel(7, held=1), _channel(8), handed=2, last=2)],
                copies=[(1, 7, {1: GONE}), (1, 8, {1: GONE, 2: GONE})],
            ),
        )
        assert self.left() == [2]

    def test_what_is_meant_for_one_channel_is_forgotten_when_that_has_done(self) -> None:
        """The other channels need not have done with it."""
        topic = _topic(_channel(7), _channel(8), handed=1, last=1)
        self.given(
            Batch(topics=[_topic(_channel(7), _channel(8))], rows=[(1, [_row(1, only=7)])]),
            Batch(topics=[topic], copies=[(1, 7, {1: GONE})]),
        )
        assert self.left(only=7) == []

    def test_only_those_that_hold_a_message_keep_it(self) -> None:
        """A channel that began after a message does not keep it from being forgotten."""
        topic = _topic(_channel(7), _channel(8, since=2, held=1), handed=3, last=3)
        self.given(
            Batch(topics=[_topic(_channel(7))], rows=[(1, [_row(1), _row(2)])]),
            Batch(topics=[topic], rows=[(1, [_row(3)])], copies=[(1, 7, {1: GONE, 3: GONE})]),
        )
        assert self.left() == [2, 3]

    def left(self, topic: int = 1, only: int = 0) -> list[int]:
        """Return what has not been forgotten of a topic once all is tidy.

        A channel that begins with the first message finds it; so does one of the number for which
        messages are meant.
        """
        number = only or 1000
        with self.opened() as (storage, topics):
            _tidied(storage)
            _replace(topics[topic], _channel(number))
            storage.write(Batch(topics=[topics[topic]]))
            return sorted(_ready(storage, number, topic) + _apart(storage, number, topic))

    def test_sixty_four_channels(self) -> None:
        """A message stays until the last of 64 channels has done with it."""
        *numbers, last = range(1, 65)
        channels = [_channel(number) for number in (*numbers, last)]
        self.given(Batch(topics=[_topic(*channels)], rows=[(1, [_row(1), _row(2)])]))
        for number in numbers:
            self.given(Batch(copies=[(1, number, {1: GONE, 2: GONE})]))
        self.given(Batch(copies=[(1, last, {1: GONE})]))
        with self.opened() as (storage, _):
            assert [[]] * len(numbers) == [_ready(storage, number) for number in numbers]
            assert _ready(storage, last) == [2]
        assert self.left() == [2]

    # What the topic itself holds

    def test_a_topic_without_channels_holds_its_messages(self) -> None:
        """Those with an id above the one up to which it handed them on."""

        def write(storage: Storage) -> None:
            topic = _topic(handed=2, last=4, held=2)
            storage.write(Batch(topics=[topic], rows=[(1, [_row(3), _row(4, due=9)])]))
            storage.write_rows(1, [_row(5), _row(6, due=9)])

        for storage in self.after(write):
            assert _ready(storage, None, after=2) == [3, 5]
            assert _apart(storage, None, after=2) == [4, 6]
        with self.opened() as (_, topics):
            assert (topics[1].held, topics[1].handed, topics[1].last) == (4, 2, 6)

    def test_a_topic_that_is_paused_holds_what_is_put(self) -> None:
        """Its channels hold what they had before, and nothing that is not handed on."""

        def write(storage: Storage) -> None:
            rows = [_row(1), _row(2, due=9)]
            storage.write(Batch(topics=[_topic(_channel(7))], rows=[(1, rows)]))
            topic = _topic(_channel(7, held=2), paused=True, handed=2, last=2)
            storage.write(Batch(topics=[topic]))
            storage.write_rows(1, [_row(3), _row(4), _row(5, due=9)])

        for storage in self.after(write):
            assert (_ready(storage, None, after=2), _apart(storage, None, after=2)) == ([3, 4], [5])
            assert _ids(storage.read(1, 7, 0, 2, -1)) == [1]
            assert _ids(storage.read_apart(1, 7, 0, 2)) == [2]
        with self.opened() as (_, topics):
            assert _counts(topics[1]) == (3, {7: 2})
            assert (topics[1].handed, topics[1].last) == (2, 5)

    def test_a_paused_topic_lets_pass_what_is_meant_for_one_channel(self) -> None:
        """Such a message is the channel's at once, and never the topic's."""
        topic = _topic(_channel(7), paused=True)
        for storage in self.after(
            lambda storage: storage.write(Batch(topics=[topic], rows=[(1, [_row(1, only=7)])]))
        ):
            assert (_apart(storage, 7), _apart(storage, None)) == ([1], [])
        with self.opened() as (_, topics):
            assert _counts(topics[1]) == (0, {7: 1})

    def test_what_the_topic_held_goes_to_its_channels(self) -> None:
        """When `handed` rises the channels hold it, and it stays until they have done with it."""
        self.given(
            Batch(topics=[_topic()], rows=[(1, [_row(1), _row(2), _row(3, due=9)])]),
            Batch(topics=[_topic(_channel(7, held=3), handed=3, last=3)]),
        )
        with self.opened() as (storage, topics):
            assert _counts(topics[1]) == (0, {7: 3})
            assert (_ready(storage, 7), _apart(storage, 7)) == ([1, 2], [3])
        self.given(Batch(topics=[_topic(_channel(7, held=2), handed=3, last=3)]))
        assert self.left() == [1, 2, 3]

    def test_what_the_topic_itself_has_done_with_is_gone(self) -> None:
        """A topic that held a message and dropped it has no channel to finish it."""
        self.given(
            Batch(topics=[_topic()], rows=[(1, [_row(1), _row(2), _row(3)])]),
            Batch(topics=[_topic(last=3, held=2)], copies=[(1, None, {1: GONE})]),
        )
        with self.opened() as (storage, topics):
            assert (topics[1].held, _ready(storage, None)) == (2, [2, 3])

    def test_a_topic_can_be_emptied(self) -> None:
        """What it does not hold any more, and nobody else, is forgotten."""
        rows = [_row(n) for n in range(1, MANY + 1)]
        self.given(
            Batch(topics=[_topic()], rows=[(1, rows)]),
            Batch(topics=[_topic(handed=MANY, last=MANY)], emptied=[(1, 0, MANY)], unheld={1}),
        )
        with self.opened() as (_, topics):
            assert _counts(topics[1]) == (0, {})
        assert self.left() == []

    def test_a_paused_topic_can_be_emptied(self) -> None:
        """Its channels keep what they had, and what is theirs alone; they get none of the rest."""
        old = _topic(_channel(7), handed=1, last=1, paused=True)
        new = _topic(_channel(7, held=2), handed=4, last=4, paused=True)
        rows = [_row(1), _row(2), _row(3, only=7), _row(4, due=9)]
        batch = Batch(topics=[new], emptied=[(1, 1, 4)], unheld={1})
        self.given(Batch(topics=[_topic(_channel(7))], rows=[(1, rows[:1])]))
        self.given(Batch(topics=[old], rows=[(1, rows[1:])]), batch, batch)
        with self.opened() as (storage, topics):
            assert _counts(topics[1]) == (0, {7: 2})
            assert (_ready(storage, 7), _apart(storage, 7)) == ([1], [3])
            storage.write(Batch(topics=[_topic(_channel(7, held=2), handed=4, last=4)]))
            assert (_ready(storage, 7), _apart(storage, 7)) == ([1], [3])
        assert self.left() == [1]

    # Counts

    def test_counts_are_those_of_the_account_and_what_came_later(self) -> None:
        """Messages above the account's `last` are counted, those up to it are not again."""
        topic = _topic(_channel(7, held=2), _channel(8, held=1), handed=2, last=2)
        self.given(
            Batch(topics=[_topic(_channel(7), _channel(8))], rows=[(1, [_row(1), _row(2)])]),
            Batch(topics=[topic], rows=[(1, [_row(3)])], copies=[(1, 8, {1: GONE})]),
            Batch(rows=[(1, [_row(4), _row(5, due=9), _row(6, only=8)])]),
        )
        for _ in range(2):
            with self.opened() as (_, topics):
                assert _counts(topics[1]) == (0, {7: 5, 8: 5})
                assert (topics[1].handed, topics[1].last) == (6, 6)

    def test_the_highest_id_stays_when_its_message_has_gone(self) -> None:
        """`last` never falls, so that no id is given twice."""
        self.given(
            Batch(topics=[_topic(_channel(7))], rows=[(1, [_row(8)])]),
            Batch(topics=[_topic(_channel(7), handed=8, last=8)], copies=[(1, 7, {8: GONE})]),
        )
        with self.opened() as (_, topics):
            assert (topics[1].handed, topics[1].last) == (8, 8)

    # What is deleted

    def test_a_channel_that_is_deleted_lets_go_of_its_messages(self) -> None:
        """What another one still holds stays; what nobody does is forgotten."""
        rows = [_row(n) for n in range(1, MANY + 1)]
        kept: dict[int, Copy] = {n: GONE for n in range(1, MANY + 1) if n % 3}
        count = MANY - len(kept)
        both = _topic(_channel(7, held=MANY), _channel(8, held=count), handed=MANY, last=MANY)
        one = _topic(_channel(8, held=count), handed=MANY, last=MANY)
        self.given(
            Batch(topics=[_topic(_channel(7), _channel(8))], rows=[(1, rows)]),
            Batch(topics=[both], copies=[(1, 8, kept)]),
            Batch(topics=[one], gone_channels=[(1, 7)], unheld={1}),
        )
        with self.opened() as (_, topics):
            assert (0, {8: count}) == _counts(topics[1])
        assert [n for n in range(1, MANY + 1) if n not in kept] == self.left()

    def test_what_was_meant_for_a_deleted_channel_is_forgotten(self) -> None:
        """Also if its id is above all that the topic has handed on."""
        self.given(
            Batch(topics=[_topic(_channel(7), _channel(8))], rows=[(1, [_row(1, only=7)])]),
            Batch(topics=[_topic(_channel(8))], gone_channels=[(1, 7)], unheld={1}),
        )
        assert self.left(only=7) == []

    def test_a_channel_can_be_made_again_in_the_batch_that_deletes_it(self) -> None:
        """It has its old name, a new number, and none of the old messages."""
        again = StoredChannel(number=9, name="channel7", since=1)
        topic = _topic(again, handed=1, last=1)
        self.given(
            Batch(topics=[_topic(_channel(7))], rows=[(1, [_row(1)])]),
            Batch(topics=[topic], gone_channels=[(1, 7)], rows=[(1, [_row(2)])], unheld={1}),
        )
        with self.opened() as (storage, topics):
            assert _counts(topics[1]) == (0, {9: 1})
            assert _ready(storage, 9, after=1) == [2]
        assert self.left() == [2]

    def test_a_topic_that_is_deleted_is_not_there_again(self) -> None:
        """Neither at once nor later, and the others are as they were."""
        rows = [_row(n) for n in range(1, MANY + 1)]
        topics = [_topic(_channel(7)), _topic(_channel(8), number=2)]
        self.given(
            Batch(topics=topics, rows=[(1, rows), (2, [_row(MANY + 1)])]), Batch(gone_topics=[1])
        )
        with self.opened() as (storage, found):
            assert {2} == set(found)
            _tidied(storage)
        with self.opened() as (storage, found):
            assert {2} == set(found)
            assert _ready(storage, 8, 2) == [MANY + 1]

    def test_a_topic_can_be_made_again_in_the_batch_that_deletes_it(self) -> None:
        """It has its old name, a new number, and none of the old messages."""
        again = StoredTopic(number=2, name="topic1", channels=[_channel(8)])
        self.given(
            Batch(topics=[_topic(_channel(7))], rows=[(1, [_row(1)])]),
            Batch(topics=[again], gone_topics=[1], rows=[(2, [_row(2)])]),
        )
        for _ in range(2):
            with self.opened() as (storage, topics):
                assert {2} == set(topics)
                assert _ready(storage, 8, 2) == [2]
                _tidied(storage)

    # Writing

    def test_a_batch_that_is_written_twice_is_written_once(self) -> None:
        """Whatever it holds: accounts, rows, copies, what is deleted."""
        batches = [
            Batch(
                topics=[
                    _topic(_channel(7), _channel(8)),
                    _topic(_channel(9), number=2),
                ],
                rows=[(1, [_row(1), _row(2), _row(3, due=4)]), (2, [_row(4)])],
            ),
            Batch(
                topics=[_topic(_channel(7, held=1), _channel(8, held=2), handed=3, last=3)],
                copies=[(1, 7, {1: GONE, 2: (2, 8), 3: GONE}), (1, 8, {3: GONE})],
            ),
            Batch(
                topics=[_topic(_channel(8, held=2), handed=3, last=3)],
                gone_channels=[(1, 7)],
                gone_topics=[2],
                unheld={1},
            ),
        ]
        with self.opened() as (storage, _):
            for batch in batches:
                storage.write(batch)
                storage.write(batch)
            _tidied(storage)
            storage.write(batches[-1])
            _tidied(storage)
        with self.opened() as (storage, topics):
            assert {1} == set(topics)
            assert _counts(topics[1]) == (0, {8: 2})
            assert (_ready(storage, 8), _apart(storage, 8)) == ([1, 2], [])
        assert self.left() == [1, 2]

    def test_a_batch_that_is_interrupted_has_changed_nothing(self) -> None:
        """What is thrown into the middle of a write leaves all as it was; it can be made again."""
        old = _topic(_channel(7, held=2), _channel(8, held=2), handed=2, last=2)
        new = _topic(_channel(8, held=1), _channel(9, since=2), handed=2, last=2, paused=True)

        def batch() -> Batch:
            return Batch(
                topics=[new, _topic(number=2)],
                gone_channels=[(1, 7)],
                rows=[(2, [_row(5)]), (1, [_row(3)])],
                copies=[(1, 8, {1: GONE})],
                unheld={1},
            )

        def write(storage: Storage) -> None:
            first, second = batch(), batch()
            first.rows.append((1, _Interrupting()))
            second.copies.append((1, 8, _InterruptingCopies()))
            _interrupt(lambda: storage.write(first))
            _interrupt(lambda: storage.write(second))

        self.given(Batch(topics=[old], rows=[(1, [_row(1), _row(2)])]))
        for storage in self.after(write):
            assert (_ready(storage, 7), _ready(storage, 8)) == ([1, 2], [1, 2])
            assert storage.highest()[:2] == (1, 8)
        with self.opened() as (storage, topics):
            topics[1].channels.sort(key=lambda channel: channel.number)
            assert topics == {1: old}
            write(storage)
            storage.write(batch())
        with self.opened() as (storage, topics):
            assert _counts(topics[1]) == (1, {8: 1, 9: 0})
            assert _ids(storage.read(1, 8, 0, 2, -1)) == [2]
            assert (_ready(storage, None, 1, 2), _ready(storage, None, 2)) == ([3], [5])

    def test_rows_that_are_interrupted_are_not_written(self) -> None:
        """Several rows are written all or none."""

        def write(storage: Storage) -> None:
            storage.write(Batch(topics=[_topic(_channel(7))]))
            storage.write_row(1, _row(1))
            _interrupt(lambda: storage.write_rows(1, _Interrupting([_row(2), _row(3)])))
            storage.write_row(1, _row(4))

        for storage in self.after(write):
            assert _ready(storage, 7) == [1, 4]

    def test_an_empty_batch_changes_nothing(self) -> None:
        """It can be written at any time."""
        self.given(Batch(), Batch(topics=[_topic(_channel(7))], rows=[(1, [_row(1)])]), Batch())
        with self.opened() as (storage, topics):
            assert _counts(topics[1]) == (0, {7: 1})
            assert _ready(storage, 7) == [1]

    def test_what_was_written_survives_who_wrote_it(self) -> None:
        """A storage that was left without being closed has lost nothing."""
        storage = self.make()
        assert storage.load() == []
        storage.write(Batch(topics=[_topic(_channel(7))], rows=[(1, [_row(1), _row(2)])]))
        storage.write_row(1, _row(3))
        storage.write_attempts(1, 7, [(1, 4)])
        storage.write(Batch(copies=[(1, 7, {2: GONE})]))
        storage.abandon()
        with self.opened() as (storage, topics):
            assert {1} == set(topics)
            assert [(one[0], one[5]) for one in storage.read(1, 7, 0, HIGHEST, -1)] == [
                (1, 4),
                (3, 0),
            ]

    def test_upkeep_changes_nothing_that_can_be_read(self) -> None:
        """Also when it comes between the writes, and more often than needed."""
        with self.opened() as (storage, _):
            storage.write(Batch(topics=[_topic(_channel(7), _channel(8))]))
            for identity in range(1, 200):
                storage.write_row(1, _row(identity, b"x" * 1000))
                storage.write(Batch(copies=[(1, 7, {identity: GONE})]))
                storage.copy_log()
                storage.tidy()
            assert ([], list(range(1, 200))) == (_ready(storage, 7), _ready(storage, 8))
        with self.opened() as (storage, _):
            assert ([], list(range(1, 200))) == (_ready(storage, 7), _ready(storage, 8))


def _interrupt(call: Callable[[], object]) -> None:
    """Make a call that is interrupted."""
    try:
        call()
    except Exception:
        return
    raise AssertionError("a write was interrupted and did not say so")
