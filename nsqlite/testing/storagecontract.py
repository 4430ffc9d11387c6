"""What every storage must do, as tests: for those who write one.

The rule: a test says what `nsqlite.store.Storage` promises, and looks only through its calls.

    class TestMine(nsqlite.testing.StorageContract):
        def make(self):
            return MyStorage(self.path)  # the same contents each time, empty at first

        def restored(self, path):
            return MyStorage(path)

pytest collects the tests of such a class.  Each test begins with empty contents, so `self.path`
comes from a fixture or `setup_method` of the class.

Next: __main__.py
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import product
from operator import itemgetter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, TypeAlias

import attrs

from nsqlite.errors import StoreError
from nsqlite.store.storage import (
    FIRST,
    GONE,
    PAGE_BYTES,
    Batch,
    Copy,
    Found,
    Row,
    Storage,
    StoredChannel,
    StoredTopic,
    cut,
)

HIGHEST: Final = (1 << 63) - 1
"""The highest id that there can be."""

MANY: Final = 2500
"""More messages than a storage can be expected to handle in one step."""

ENOUGH: Final = 100_000
"""So many calls of `tidy` must do."""

LARGE: Final = 10 << 20
"""Bytes of a large body."""

Told: TypeAlias = tuple[StoredTopic, list[StoredChannel]]


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


def _topic(*channels: StoredChannel, number: int = 1, **fields: Any) -> Told:
    """Return a topic of a name of its own, and its channels."""
    topic = StoredTopic(number=number, name=f"topic{number}", **fields)
    return topic, [attrs.evolve(channel, topic=number) for channel in channels]


def _channel(number: int, **fields: Any) -> StoredChannel:
    """Return a channel of a name of its own, of any topic."""
    return StoredChannel(number=number, topic=0, name=f"channel{number}", **fields)


def _batch(*told: Told, **fields: Any) -> Batch:
    """Return a batch with topics and their channels."""
    topics = {topic.number: topic for topic, _ in told}
    channels = {channel.number: channel for _, some in told for channel in some}
    return Batch(topics=topics, channels=channels, **fields)


def _told(topic: int, channel: StoredChannel) -> dict[int, StoredChannel]:
    """Return a channel of a topic as a batch tells of it."""
    return {channel.number: attrs.evolve(channel, topic=topic)}


def _rows(first: int, last: int) -> list[Row]:
    """Return messages with all ids from one up to another, but for that."""
    return [_row(identity) for identity in range(first, last)]


def _ids(found: list[Found]) -> list[int]:
    return [one[0] for one in found]


def _pages(storage: Storage, channel: int | None) -> list[list[int]]:
    """Return the ids of all that a channel has in order, and of two parts of it."""
    bounds = ((0, 9), (1, 2), (0, 1))
    return [_ids(storage.read(1, channel, after, upto, -1)) for after, upto in bounds]


def _ready(storage: Storage, channel: int | None, topic: int = 1, after: int = 0) -> list[int]:
    """Return the ids of what a channel has in order."""
    return _ids(storage.read(topic, channel, after, HIGHEST, -1))


def _read_apart(
    storage: Storage, topic: int, channel: int | None, after: int, upto: int
) -> list[Found]:
    """Return what comes not in the order of ids, but sorted by them; and count what waits."""
    waiting = storage.read_deferred(topic, channel, (after, upto), FIRST, -1)
    assert storage.count_deferred(topic, channel, (after, upto)) == len(waiting)
    return sorted(waiting + storage.read_apart(topic, channel, after, upto), key=itemgetter(0))


def _apart(storage: Storage, channel: int | None, topic: int = 1, after: int = 0) -> list[int]:
    """Return the ids of what a channel has apart."""
    return sorted(_ids(_read_apart(storage, topic, channel, after, HIGHEST)))


def _tidied(storage: Storage) -> None:
    """Have a storage do all that keeps it small."""
    storage.copy_log()
    for _ in range(ENOUGH):
        if not storage.tidy():
            return
    raise AssertionError("tidy() has always more to do")


class _Scene:
    """A topic of one kind, with messages of every kind, and who holds which of them.

    Attributes:
        number: its number, of which the ids and the numbers of its channels are made.
        topic: makes it.
        copies: what its channels have done with.
        held: the ids that each channel holds, and None, the topic itself.
    """

    def __init__(self, number: int, paused: bool, channels: int, handed: int) -> None:
        self.number: Final = number
        base = number * 100
        plain = [(base + n, None) for n in range(1, 10)]
        alone = [(base + n, base + 1 + n % 2) for n in range(10, 14)]
        rows = [
            _row(one, only=only, due=9 if one % 3 == 0 else None) for one, only in plain + alone
        ]
        since = {base + 1 + n: base + n * 2 for n in range(channels)}
        self._handed: Final = base + handed
        flows = bool(channels) and not paused
        self._upto: Final = HIGHEST if flows else self._handed
        told = [_channel(channel, since=first) for channel, first in since.items()]
        topic = _topic(*told, number=number, paused=paused, handed=self._handed)
        self.topic: Final = _batch(topic, rows={number: rows})
        own = [] if flows else [one for one, _ in plain if one > self._handed]
        self.held: Final[dict[int | None, list[int]]] = {None: own}
        self.copies: Final = Batch()
        for channel, first in since.items():
            all_held = [one for one, _ in plain if first < one <= self._upto]
            all_held += [one for one, only in alone if only == channel and one > first]
            gone: dict[int, Copy] = {one: GONE for one in all_held if (one + channel) % 3 == 1}
            self.copies.copies[number, channel] = gone
            self.held[channel] = [one for one in all_held if one not in gone]
        self._since: Final = since

    def found(self, storage: Storage) -> dict[int | None, list[int]]:
        """Return what a storage has for each channel and the topic itself."""
        places: list[tuple[int | None, int, int]] = [
            (channel, since, self._upto) for channel, since in self._since.items()
        ]
        if self._upto == self._handed:
            places.append((None, self._handed, HIGHEST))
        found: dict[int | None, list[int]] = {None: []}
        for channel, after, upto in places:
            page = storage.read(self.number, channel, after, upto, -1)
            apart = _read_apart(storage, self.number, channel, after, upto)
            assert all(one[6] for one in page + apart), "all are intact"
            found[channel] = sorted(_ids(page + apart))
        return found


_CHANGES: Final[list[tuple[Callable[[Storage, int, int], object], int]]] = [
    (lambda one, number, first: one.write_row(number, _row(first + 3)), 3),
    (lambda one, number, first: one.write_row(number, _row(first + 3, due=5)), 3),
    (lambda one, number, first: one.write_rows(number, [_row(first + 3), _row(first + 4)]), 4),
    (lambda one, number, first: one.write_rows(number, _rows(first + 3, first + 203)), 202),
    (lambda one, number, first: one.write_attempts(number, number, [(first + 1, 1)]), 2),
    (
        lambda one, number, first: one.write_attempts(
            number, number, [(first + 1, 1), (first + 2, 1)]
        ),
        2,
    ),
    (lambda one, number, _: one.write(_batch(_topic(number=number))), 2),
    (lambda one, number, _: one.write(Batch(channels=_told(number, _channel(number)))), 2),
    (lambda one, number, _: one.write(Batch(channels=_told(number, _channel(99)))), 4),
    (lambda one, number, _: one.write(Batch(gone_channels={number: number})), 0),
    (lambda one, number, first: one.write(Batch(rows={number: [_row(first + 3)]})), 3),
    (
        lambda one, number, first: one.write(Batch(copies={(number, number): {first + 1: GONE}})),
        1,
    ),
    (lambda one, number, _: one.write(Batch(unheld={number})), 2),
    (lambda one, number, first: one.write(Batch(emptied=[(number, first + 1, first + 9)])), 1),
]
"""What makes a topic with one channel and two messages uncounted; and how many are held then."""


class StorageContract:
    """The tests; see the module."""

    def make(self) -> Storage:
        """Open the storage of this test, with what was written to it before.

        A storage that was closed or abandoned by then is not used any more.
        """
        raise NotImplementedError

    def restored(self, path: str) -> Storage:
        """Open the copy that `backup` has written to a path."""
        raise NotImplementedError

    @contextmanager
    def opened(self) -> Iterator[Storage]:
        """Open it and load what it has; close it at the end."""
        storage = self.make()
        try:
            storage.load()
            yield storage
        finally:
            storage.close()

    def loaded(self) -> tuple[dict[int, StoredTopic], dict[int, StoredChannel]]:
        """Return the topics and channels that it has when it is opened, by number."""
        storage = self.make()
        try:
            topics, channels = storage.load()
        finally:
            storage.close()
        return {one.number: one for one in topics}, {one.number: one for one in channels}

    def numbers(self) -> tuple[set[int], set[int]]:
        """Return the numbers of the topics and channels that it has when it is opened."""
        topics, channels = self.loaded()
        return set(topics), set(channels)

    def given(self, *batches: Batch) -> None:
        """Open it, write and close it."""
        with self.opened() as storage:
            for batch in batches:
                storage.write(batch)

    def after(self, write: Callable[[Storage], object]) -> Iterator[Storage]:
        """Write; go through the storage as it is at once, tidied, and opened again."""
        with self.opened() as storage:
            write(storage)
            yield storage
            _tidied(storage)
            yield storage
        with self.opened() as storage:
            yield storage

    # Topics and channels

    def test_a_new_storage_is_empty(self) -> None:
        """There is no topic in the beginning, also when it is opened again."""
        for _ in range(2):
            assert self.loaded() == ({}, {})

    def test_topics_and_channels_come_back(self) -> None:
        """What is kept of topics and channels is the same when it is loaded."""
        first = _topic(_channel(4, paused=True, since=7), _channel(9), handed=12)
        second = _topic(number=6, paused=True, handed=3)
        batch = _batch(first, second)
        self.given(batch)
        assert self.loaded() == (batch.topics, batch.channels)

    def test_a_batch_replaces_what_was_written_before(self) -> None:
        """A topic or channel is as the last batch says; others stay as they were."""
        later = _batch(_topic(_channel(4, since=5), _channel(5, paused=True), handed=9))
        self.given(_batch(_topic(_channel(4), _channel(3), paused=True)), later)
        other = attrs.evolve(_channel(3), topic=1)
        assert self.loaded() == (later.topics, {**later.channels, 3: other})

    def test_a_channel_can_be_told_of_without_its_topic(self) -> None:
        """Each of them changes for itself."""
        self.given(_batch(_topic(_channel(4), handed=2)))
        channel = attrs.evolve(_channel(4, since=3), topic=1)
        self.given(Batch(channels={4: channel}))
        topics, channels = self.loaded()
        assert (topics[1].handed, channels) == (2, {4: channel})

    def test_the_highest_numbers_are_kept(self) -> None:
        """They are those of all topics and channels that ever were, deleted or not."""

        def write(storage: Storage) -> None:
            storage.write(_batch(_topic(_channel(9), _channel(3), number=4)))
            storage.write(_batch(_topic(_channel(8), number=2), _topic(number=5), highest=300))
            storage.write(Batch(gone_channels={9: 4}, highest=200))
            storage.write(Batch(rows={5: [_row(70)], 4: [_row(60)]}))
            storage.write(Batch(gone_topics={5: None, 4: None}))

        with self.opened() as storage:
            assert storage.highest() == (0, 0, 0)
        for storage in self.after(write):
            assert storage.highest() == (5, 9, 300)

    def test_the_highest_id_is_that_of_the_messages_too(self) -> None:
        """Also where no batch told of it."""

        def write(storage: Storage) -> None:
            storage.write(_batch(_topic(), _topic(number=2), highest=5))
            storage.write_row(2, _row(HIGHEST - 1))
            storage.write_row(1, _row(7))

        for storage in self.after(write):
            assert storage.highest() == (2, 0, HIGHEST - 1)
            assert (storage.last(1), storage.last(2), storage.last(3)) == (7, HIGHEST - 1, 0)

    def test_names_are_the_topics(self) -> None:
        """Channels of two topics may have the same name."""
        batch = _batch(*(_topic(_channel(n), number=n) for n in (1, 2)))
        for channel in batch.channels.values():
            channel.name = "same"
        self.given(batch)
        assert self.loaded() == (batch.topics, batch.channels)

    def test_many_topics(self) -> None:
        """Two hundred topics keep their messages apart."""
        numbers = range(1, 201)
        topics = [_topic(_channel(number), number=number) for number in numbers]
        self.given(_batch(*topics, rows={number: [_row(number)] for number in numbers}))
        with self.opened() as storage:
            assert {storage.count(number) == (0, {number: 1}) for number in numbers} == {True}
            ready = [_ready(storage, number, number) for number in numbers]
        assert [[number] for number in numbers] == ready

    # Messages

    def test_a_message_is_there_as_it_was_written(self) -> None:
        """Each field of a message comes back, at once and later."""
        rows = [_row(3, b"plain"), _row(5, b"{}", codec="json"), _row(9, b"\x00\xff")]

        def write(storage: Storage) -> None:
            storage.write(_batch(_topic(_channel(7))))
            for row in rows:
                storage.write_row(1, row)

        for storage in self.after(write):
            assert storage.read(1, 7, 0, HIGHEST, -1) == [
                (3, 1, None, None, b"plain", 0, True),
                (5, 2, None, "json", b"{}", 0, True),
                (9, 4, None, None, b"\x00\xff", 0, True),
            ]

    def test_the_three_ways_to_write_messages_are_one(self) -> None:
        """One row, several rows, and a batch with rows leave the same."""

        def write(storage: Storage) -> None:
            storage.write(_batch(_topic(_channel(7)), _topic(_channel(8), number=2)))
            storage.write_row(1, _row(1))
            storage.write_rows(1, [_row(2), _row(3)])
            storage.write(Batch(rows={1: [_row(4)], 2: [_row(5)]}))

        for storage in self.after(write):
            assert (_ready(storage, 7), _ready(storage, 8, 2)) == ([1, 2, 3, 4], [5])

    def test_a_new_topic_and_its_messages_go_in_one_batch(self) -> None:
        """A batch that makes a topic and a channel may hold their messages."""
        batch = _batch(_topic(_channel(7)), rows={1: [_row(1), _row(2, due=5)]})
        for storage in self.after(lambda storage: storage.write(batch)):
            assert (_ready(storage, 7), _apart(storage, 7)) == ([1], [2])

    def test_rows_that_are_written_twice_are_there_once(self) -> None:
        """A message whose id is known changes nothing."""

        def write(storage: Storage) -> None:
            storage.write(_batch(_topic(_channel(7))))
            for _ in range(2):
                storage.write_row(1, _row(1))
                storage.write_rows(1, [_row(1), _row(2)])
                storage.write(Batch(rows={1: [_row(2), _row(3)]}))

        for storage in self.after(write):
            assert _ready(storage, 7) == [1, 2, 3]
        with self.opened() as storage:
            assert storage.count(1) == (0, {7: 3})

    def test_the_highest_ids(self) -> None:
        """Ids go up to the highest number of 63 bits, and times too."""
        rows = [_row(HIGHEST - 1), _row(HIGHEST, due=HIGHEST)]
        batch = _batch(_topic(_channel(7)), rows={1: rows})
        for storage in self.after(lambda storage: storage.write(batch)):
            assert _ready(storage, 7) == [HIGHEST - 1]
            assert _read_apart(storage, 1, 7, 0, HIGHEST) == [
                (HIGHEST, HIGHEST // 2, HIGHEST, None, b"x", 0, True)
            ]
            assert storage.last(1) == HIGHEST

    def test_bodies_of_every_size(self) -> None:
        """Bodies of 1 byte up to 10 MB come back byte for byte."""
        sizes = [1, 2, 1000, 2047, 2048, 2049, 65_536, 1 << 20, LARGE]
        bodies = {n: (b"%d," % n) * (size // 2) + b"!" for n, size in enumerate(sizes, 1)}

        def write(storage: Storage) -> None:
            storage.write(_batch(_topic(_channel(7))))
            storage.write_rows(1, [_row(identity, data) for identity, data in bodies.items()])

        for storage in self.after(write):
            assert bodies == {one[0]: one[4] for one in storage.read(1, 7, 0, HIGHEST, -1)}

    # Reading

    def test_messages_are_read_in_the_order_of_their_ids(self) -> None:
        """The order in which they were written does not count."""
        batch = _batch(_topic(_channel(7)), rows={1: [_row(n) for n in (5, 1, 9, 3)]})
        for storage in self.after(lambda storage: storage.write(batch)):
            assert _ready(storage, 7) == [1, 3, 5, 9]

    def test_a_page_is_what_was_asked_for(self) -> None:
        """It begins after an id, ends with another, and has no more messages than its limit."""
        batch = _batch(_topic(_channel(7)), rows={1: [_row(n) for n in range(1, 10)]})
        for storage in self.after(lambda storage: storage.write(batch)):
            assert _ids(storage.read(1, 7, 2, 6, 10)) == [3, 4, 5, 6]
            assert _ids(storage.read(1, 7, 2, 6, 2)) == [3, 4]
            assert _ids(storage.read(1, 7, 9, HIGHEST, 10)) == []
            assert _ids(storage.read(1, 7, 2, 6, 0)) == []

    def test_a_page_has_not_much_more_than_its_bytes(self) -> None:
        """One message more than these tells that there is more, where a limit was given."""
        data = b"x" * (PAGE_BYTES // 3)
        rows = [_row(n, data) for n in range(1, 9)] + [_row(n, data, due=n) for n in range(9, 16)]
        batch = _batch(_topic(_channel(7)), rows={1: rows})
        for storage in self.after(lambda storage: storage.write(batch)):
            for limit, expected in ((2, 2), (4, 4), (5, 5), (100, 5), (-1, 8)):
                assert len(storage.read(1, 7, 0, HIGHEST, limit)) == expected, limit
                waiting = storage.read_deferred(1, 7, (0, HIGHEST), FIRST, limit)
                assert len(waiting) == min(expected, 7), limit
            page, more = cut(storage.read(1, 7, 0, HIGHEST, 100), 100)
            assert (_ids(page), more) == ([1, 2, 3, 4], True)
            page, more = cut(storage.read(1, 7, page[-1][0], HIGHEST, 100), 100)
            assert (_ids(page), more) == ([5, 6, 7, 8], False)

    def test_a_limit_below_zero_is_none(self) -> None:
        """A page without a limit has all messages."""
        rows = [_row(n) for n in range(1, MANY + 1)]
        batch = _batch(_topic(_channel(7)), rows={1: rows})
        for storage in self.after(lambda storage: storage.write(batch)):
            assert len(_ready(storage, 7)) == MANY

    def test_what_waits_is_read_apart(self) -> None:
        """A message that is due at a time is not among those in order, whenever that is."""
        rows = [_row(1), _row(2, due=1), _row(3, due=HIGHEST), _row(4)]
        batch = _batch(_topic(_channel(7)), rows={1: rows})
        for storage in self.after(lambda storage: storage.write(batch)):
            assert _ready(storage, 7) == [1, 4]
            found = sorted(_read_apart(storage, 1, 7, 0, HIGHEST))
            assert found == [(2, 1, 1, None, b"x", 0, True), (3, 1, HIGHEST, None, b"x", 0, True)]
            assert _apart(storage, 7, after=2) == [3]
            assert _ids(_read_apart(storage, 1, 7, 0, 2)) == [2]

    def test_what_waits_is_read_in_the_order_in_which_it_is_due(self) -> None:
        """However it came to wait, page by page, those of the same moment by their ids."""
        rows = [_row(n, due=20 - n) for n in range(1, 8)] + [_row(n) for n in (8, 9, 10)]
        rows += [_row(11, due=16), _row(12, only=7, due=15), _row(13, only=8, due=15)]

        def write(storage: Storage) -> None:
            storage.write(_batch(_topic(_channel(7), _channel(8)), rows={1: rows}))
            requeued: dict[int, Copy] = {5: (1, 18), 6: (2, None), 7: GONE, 8: (1, 16), 9: (1, 2)}
            storage.write(Batch(copies={(1, 7): {**requeued, 12: (1, 14)}}))

        for storage in self.after(write):
            read = partial(storage.read_deferred, 1, 7, (0, HIGHEST))
            everything = [9, 6, 12, 4, 8, 11, 3, 2, 5, 1]
            assert _ids(read(FIRST, -1)) == _ids(read(FIRST, 10)) == everything
            assert [one[2] for one in read(FIRST, -1)] == [2, 14, 14, 16, 16, 16, 17, 18, 18, 19]
            assert [one[5] for one in read(FIRST, 4)] == [1, 2, 1, 0]
            for n in range(11):
                assert _ids(read(FIRST, n)) == everything[:n]
            for first, one in enumerate(read(FIRST, -1), 1):
                due, identity = one[2], one[0]
                assert due is not None
                assert _ids(read((due, identity), 3)) == everything[first : first + 3]
            assert _ids(read((16, 0), 2)) == [4, 8]
            assert _ids(storage.read_deferred(1, 7, (3, 8), FIRST, -1)) == [6, 12, 4, 8, 5]
            places = [(1, 7, (3, 8)), (1, 8, (0, HIGHEST)), (5, 7, (0, HIGHEST))]
            assert [storage.count_deferred(*place) for place in places] == [5, 9, 0]

    def test_what_is_meant_for_one_channel_is_found(self) -> None:
        """Those above an id, whatever has become of them, but not what was forgotten."""
        rows = [_row(n, only=7) for n in (1, 2, 4, 5)] + [_row(3, only=7, due=9)]
        rows += [_row(6), _row(7, only=8), _row(8, due=9)]
        self.given(_batch(_topic(_channel(7), _channel(8)), rows={1: rows}))
        with self.opened() as storage:
            found = [sorted(storage.alone(1, 7, above)) for above in (0, 2, 5)]
            assert found == [[1, 2, 3, 4, 5], [3, 4, 5], []]
            assert storage.alone(1, 9, 0) == storage.alone(5, 7, 0) == []

    def test_what_is_meant_for_one_channel_is_read_apart_there_alone(self) -> None:
        """No other channel, and not the topic, has a message that is meant for one only."""
        rows = [_row(1), _row(2, only=7), _row(3, only=8, due=5)]
        batch = _batch(_topic(_channel(7), _channel(8)), rows={1: rows})
        for storage in self.after(lambda storage: storage.write(batch)):
            assert (_ready(storage, 7), _ready(storage, 8)) == ([1], [1])
            assert (_apart(storage, 7), _apart(storage, 8)) == ([2], [3])
            assert _ids(_read_apart(storage, 1, 7, 0, 1)) == [2], "above upto, but its own"
        with self.opened() as storage:
            assert storage.count(1) == (0, {7: 2, 8: 2})

    def test_a_message_is_found_by_its_id(self) -> None:
        """As the channel, or the topic, has it; not if it is gone there, or for another one."""
        rows = [_row(1), _row(2, only=7), _row(3, due=5), _row(4), _row(5)]
        copies: dict[tuple[int, int], dict[int, Copy]] = {(1, 7): {4: (3, 9), 5: GONE}}
        batch = _batch(_topic(_channel(7), _channel(8)), rows={1: rows}, copies=copies)
        for storage in self.after(lambda storage: storage.write(batch)):
            found = {
                channel: [storage.find(1, channel, identity) for identity in range(1, 7)]
                for channel in (7, 8, None)
            }
            told = {
                channel: [[(one[0], one[2], one[5]) for one in some] for some in each]
                for channel, each in found.items()
            }
            assert told == {
                7: [[(1, None, 0)], [(2, None, 0)], [(3, 5, 0)], [(4, 9, 3)], [], []],
                8: [[(1, None, 0)], [], [(3, 5, 0)], [(4, None, 0)], [(5, None, 0)], []],
                None: [[(1, None, 0)], [], [(3, 5, 0)], [(4, None, 0)], [(5, None, 0)], []],
            }
            assert found[7][0][0][4] == _row(1)[5], "its bytes"
            assert storage.find(2, 7, 1) == []

    def test_a_channel_holds_nothing_up_to_where_it_begins(self) -> None:
        """Messages with ids up to its `since` are not those of a channel."""
        old = _batch(_topic(_channel(7)), rows={1: [_row(1), _row(2, due=9)]})
        new = _topic(_channel(7), _channel(8, since=2), handed=2)
        later = _batch(new, rows={1: [_row(3), _row(4, due=9)]})
        self.given(old, later)
        with self.opened() as storage:
            assert storage.count(1) == (0, {7: 4, 8: 2})
            assert (_ready(storage, 7), _ready(storage, 8, after=2)) == ([1, 3], [3])
            assert (_apart(storage, 7), _apart(storage, 8, after=2)) == ([2, 4], [4])

    # What becomes of messages in channels

    def test_attempts_are_kept_for_each_channel(self) -> None:
        """Deliveries are those of one channel, and the last number that was written."""

        def write(storage: Storage) -> None:
            rows = [_row(1), _row(2), _row(3)]
            storage.write(_batch(_topic(_channel(7), _channel(8)), rows={1: rows}))
            storage.write_attempts(1, 7, [(1, 1)])
            storage.write_attempts(1, 7, [(1, 2), (2, 1), (3, 5)])
            storage.write(Batch(copies={(1, 8): {2: (65_535, None)}}))

        for storage in self.after(write):
            for channel, attempts in ((7, [2, 1, 5]), (8, [0, 65_535, 0])):
                assert attempts == [one[5] for one in storage.read(1, channel, 0, HIGHEST, -1)]

    def test_what_was_requeued_for_later_is_apart(self) -> None:
        """A message that waits in one channel is in order in another."""

        def write(storage: Storage) -> None:
            rows = [_row(1), _row(2)]
            storage.write(_batch(_topic(_channel(7), _channel(8)), rows={1: rows}))
            storage.write(Batch(copies={(1, 7): {1: (3, 99)}}))

        for storage in self.after(write):
            assert (_ready(storage, 7), _ready(storage, 8)) == ([2], [1, 2])
            assert _read_apart(storage, 1, 7, 0, HIGHEST) == [(1, 0, 99, None, b"x", 3, True)]
            assert _read_apart(storage, 1, 8, 0, HIGHEST) == []

    def test_what_was_requeued_stays_apart(self) -> None:
        """A copy without a time is one that waits no more, and keeps the time that it had."""

        def write(storage: Storage) -> None:
            rows = [_row(1), _row(2)]
            storage.write(_batch(_topic(_channel(7)), rows={1: rows}))
            storage.write(Batch(copies={(1, 7): {1: (3, 99), 2: (3, 99)}}))
            storage.write(Batch(copies={(1, 7): {1: (4, None)}}))
            storage.write_attempts(1, 7, [(2, 4)])

        for storage in self.after(write):
            assert sorted(
                (one[0], one[2], one[5]) for one in _read_apart(storage, 1, 7, 0, HIGHEST)
            ) == [(1, 99, 4), (2, 99, 4)]
            assert _ready(storage, 7) == []

    def test_no_wait_becomes_longer_as_the_clock_is_set_back(self) -> None:
        """What waits does so as long as was left, or was asked for; and then goes on as usual."""
        with self.opened() as storage:
            rows = [_row(1), _row(2), (3, 1000, 1300, None, None, b"x"), _row(4), _row(5)]
            storage.write(_batch(_topic(_channel(7), _channel(8)), rows={1: rows}))
            storage.write(Batch(copies={(1, 7): {4: GONE, 5: (1, None)}}))
            storage.write(Batch(copies={(1, 7): {1: (1, 1100)}}, now=1000))
            storage.write(Batch(copies={(1, 7): {2: (1, 900)}}, now=990))
        for now, dues in (
            (1000, {1: 1100, 2: 900, 3: 1300}),
            (1050, {1: 1100, 2: 900, 3: 1300}),
            (400, {1: 500, 2: 300, 3: 700}),
            (450, {1: 500, 2: 300, 3: 700}),
            (1200, {1: 500, 2: 300, 3: 700}),
        ):
            with self.opened() as storage:
                storage.set_clock(now)
                found = _read_apart(storage, 1, 7, 0, HIGHEST)
                assert dues == {one[0]: one[2] for one in found}, (now, found)

    def test_what_was_put_later_than_now_counts_as_put_now(self) -> None:
        """Also where nothing was ever requeued."""
        rows: list[Row] = [(1, 1000, 1300, None, None, b"x"), (2, 300, 900, None, None, b"x")]
        self.given(_batch(_topic(_channel(7)), rows={1: rows}))
        with self.opened() as storage:
            storage.set_clock(400)
            found = _read_apart(storage, 1, 7, 0, HIGHEST)
            assert [one[:3] for one in found] == [(1, 400, 700), (2, 300, 900)]
            assert all(one[6] for one in found)

    def test_what_had_to_wait_stays_apart(self) -> None:
        """A message that was put with a delay is apart when it was delivered, too."""

        def write(storage: Storage) -> None:
            rows = [_row(1, due=50), _row(2, due=50)]
            storage.write(_batch(_topic(_channel(7)), rows={1: rows}))
            storage.write(Batch(copies={(1, 7): {1: (1, None), 2: (1, 80)}}))

        for storage in self.after(write):
            assert sorted(
                (one[0], one[2], one[5]) for one in _read_apart(storage, 1, 7, 0, HIGHEST)
            ) == [(1, 50, 1), (2, 80, 1)]
            assert _ready(storage, 7) == []

    def test_what_a_channel_has_done_with_is_gone_from_it(self) -> None:
        """Whatever it was, in order, waiting, or meant for it alone."""

        def write(storage: Storage) -> None:
            rows = [_row(1), _row(2), _row(3, due=9), _row(4, only=7), _row(5)]
            storage.write(_batch(_topic(_channel(7), _channel(8)), rows={1: rows}))
            storage.write(Batch(copies={(1, 7): {2: (1, 77)}}))
            done: dict[int, Copy] = dict.fromkeys([1, 2, 3, 4], GONE)
            topic = _topic(_channel(7), _channel(8), handed=5)
            storage.write(_batch(topic, copies={(1, 7): done}))

        for storage in self.after(write):
            assert (_ready(storage, 7), _apart(storage, 7)) == ([5], [])
            assert (_ready(storage, 8), _apart(storage, 8)) == ([1, 2, 5], [3])
        with self.opened() as storage:
            assert storage.count(1) == (0, {7: 1, 8: 4})

    def test_a_page_is_what_lies_between_two_ids(self) -> None:
        """What was written of the topic and its channels does not say what is read."""
        topic = _topic(_channel(7), paused=True)
        self.given(_batch(topic, rows={1: [_row(1), _row(2), _row(3, only=7)]}))
        with self.opened() as storage:
            pages = list(map(partial(_pages, storage), (None, 7, 8)))
            apart = [_ids(_read_apart(storage, 1, 7, 0, 0)), _read_apart(storage, 1, 8, 0, 9)]
        assert pages == [[[1, 2], [2], [1]]] * 3
        assert apart == [[3], []]

    def test_a_message_is_forgotten_when_the_last_has_done_with_it(self) -> None:
        """Until then it is there for those who have not, in whatever order they finish."""
        channels = [_channel(number) for number in (7, 8, 9)]
        self.given(_batch(_topic(*channels, handed=2), rows={1: [_row(1), _row(2)]}))
        left = [7, 8, 9]
        for number in (8, 9, 7):
            left.remove(number)
            self.given(Batch(copies={(1, number): {1: GONE}}))
            expected = [[1, 2] if n in left else [2] for n in (7, 8, 9)]
            with self.opened() as storage:
                assert expected == [_ready(storage, 7), _ready(storage, 8), _ready(storage, 9)]
        assert self.left() == [2]

    def test_a_message_of_one_batch_can_be_done_with_by_all(self) -> None:
        """Copies of several channels in one batch count together."""
        self.given(
            _batch(_topic(_channel(7), _channel(8)), rows={1: [_row(1), _row(2)]}),
            Batch(copies={(1, 7): {1: GONE}, (1, 8): {1: GONE, 2: GONE}}),
        )
        assert self.left() == [2]

    def test_what_is_meant_for_one_channel_is_forgotten_when_that_has_done(self) -> None:
        """The other channels need not have done with it."""
        topic = _topic(_channel(7), _channel(8), handed=1)
        self.given(
            _batch(_topic(_channel(7), _channel(8)), rows={1: [_row(1, only=7)]}),
            _batch(topic, copies={(1, 7): {1: GONE}}),
        )
        assert self.left(only=7) == []

    def test_only_those_that_hold_a_message_keep_it(self) -> None:
        """A channel that began after a message does not keep it from being forgotten."""
        topic = _topic(_channel(7), _channel(8, since=2), handed=3)
        self.given(
            _batch(_topic(_channel(7)), rows={1: [_row(1), _row(2)]}),
            _batch(topic, rows={1: [_row(3)]}, copies={(1, 7): {1: GONE, 3: GONE}}),
        )
        assert self.left() == [2, 3]

    def left(self, topic: int = 1, only: int = 0) -> list[int]:
        """Return what has not been forgotten of a topic once all is tidy.

        A channel that begins with the first message finds it; so does one of the number for which
        messages are meant.
        """
        number = only or 1000
        with self.opened() as storage:
            _tidied(storage)
            channel = attrs.evolve(_channel(number), topic=topic)
            storage.write(Batch(channels={number: channel}))
            return sorted(_ready(storage, number, topic) + _apart(storage, number, topic))

    def test_sixty_four_channels(self) -> None:
        """A message stays until the last of 64 channels has done with it."""
        *numbers, last = range(1, 65)
        channels = [_channel(number) for number in (*numbers, last)]
        self.given(_batch(_topic(*channels), rows={1: [_row(1), _row(2)]}))
        for number in numbers:
            self.given(Batch(copies={(1, number): {1: GONE, 2: GONE}}))
        self.given(Batch(copies={(1, last): {1: GONE}}))
        with self.opened() as storage:
            assert [[]] * len(numbers) == [_ready(storage, number) for number in numbers]
            assert _ready(storage, last) == [2]
        assert self.left() == [2]

    # What the topic itself holds

    def test_a_topic_without_channels_holds_its_messages(self) -> None:
        """Those with an id above the one up to which it handed them on."""

        def write(storage: Storage) -> None:
            topic = _topic(handed=2)
            storage.write(_batch(topic, rows={1: [_row(3), _row(4, due=9)]}))
            storage.write_rows(1, [_row(5), _row(6, due=9)])

        for storage in self.after(write):
            assert _ready(storage, None, after=2) == [3, 5]
            assert _apart(storage, None, after=2) == [4, 6]
        with self.opened() as storage:
            assert storage.count(1) == (4, {})

    def test_a_topic_that_is_paused_holds_what_is_put(self) -> None:
        """Its channels hold what they had before, and nothing that is not handed on."""

        def write(storage: Storage) -> None:
            rows = [_row(1), _row(2, due=9)]
            storage.write(_batch(_topic(_channel(7)), rows={1: rows}))
            topic = _topic(_channel(7), paused=True, handed=2)
            storage.write(_batch(topic))
            storage.write_rows(1, [_row(3), _row(4), _row(5, due=9)])

        for storage in self.after(write):
            assert (_ready(storage, None, after=2), _apart(storage, None, after=2)) == ([3, 4], [5])
            assert _ids(storage.read(1, 7, 0, 2, -1)) == [1]
            assert _ids(_read_apart(storage, 1, 7, 0, 2)) == [2]
        with self.opened() as storage:
            assert storage.count(1) == (3, {7: 2})

    def test_a_paused_topic_lets_pass_what_is_meant_for_one_channel(self) -> None:
        """Such a message is the channel's at once, and never the topic's."""
        topic = _topic(_channel(7), paused=True)
        for storage in self.after(
            lambda storage: storage.write(_batch(topic, rows={1: [_row(1, only=7)]}))
        ):
            assert (_apart(storage, 7), _apart(storage, None)) == ([1], [])
        with self.opened() as storage:
            assert storage.count(1) == (0, {7: 1})

    def test_what_the_topic_held_goes_to_its_channels(self) -> None:
        """When `handed` rises the channels hold it, and it stays until they have done with it."""
        self.given(
            _batch(_topic(), rows={1: [_row(1), _row(2), _row(3, due=9)]}),
            _batch(_topic(_channel(7), handed=3)),
        )
        with self.opened() as storage:
            assert storage.count(1) == (0, {7: 3})
            assert (_ready(storage, 7), _apart(storage, 7)) == ([1, 2], [3])
        self.given(_batch(_topic(_channel(7), handed=3)))
        assert self.left() == [1, 2, 3]

    def test_what_the_topic_itself_has_done_with_is_gone(self) -> None:
        """A topic that held a message and dropped it has no channel to finish it."""
        self.given(
            _batch(_topic(), rows={1: [_row(1), _row(2), _row(3)]}),
            _batch(_topic(), copies={(1, None): {1: GONE}}),
        )
        with self.opened() as storage:
            assert (storage.count(1), _ready(storage, None)) == ((2, {}), [2, 3])

    def test_a_topic_can_be_emptied(self) -> None:
        """What it does not hold any more, and nobody else, is forgotten."""
        rows = [_row(n) for n in range(1, MANY + 1)]
        self.given(
            _batch(_topic(), rows={1: rows}),
            _batch(_topic(handed=MANY), emptied=[(1, 0, MANY)], unheld={1}),
        )
        with self.opened() as storage:
            assert storage.count(1) == (0, {})
        assert self.left() == []

    def test_a_paused_topic_can_be_emptied(self) -> None:
        """Its channels keep what they had, and what is theirs alone; they get none of the rest."""
        old = _topic(_channel(7), handed=1, paused=True)
        new = _topic(_channel(7), handed=4, paused=True)
        rows = [_row(1), _row(2), _row(3, only=7), _row(4, due=9)]
        batch = _batch(new, emptied=[(1, 1, 4)], unheld={1})
        self.given(_batch(_topic(_channel(7)), rows={1: rows[:1]}))
        self.given(_batch(old, rows={1: rows[1:]}), batch, batch)
        with self.opened() as storage:
            assert storage.count(1) == (0, {7: 2})
            assert (_ready(storage, 7), _apart(storage, 7)) == ([1], [3])
            storage.write(_batch(_topic(_channel(7), handed=4)))
            assert (_ready(storage, 7), _apart(storage, 7)) == ([1], [3])
        assert self.left() == [1]

    # Counts

    def test_who_holds_a_message_follows_from_the_rows(self) -> None:
        """Whether a topic is paused, where a channel begins, for whom it is meant, what is gone."""
        kinds = enumerate(product((False, True), (0, 1, 2), (0, 3, 20)), 1)
        scenes = [_Scene(number, *kind) for number, kind in kinds]

        def write(storage: Storage) -> None:
            for scene in scenes:
                storage.write(scene.topic)
                storage.write(scene.copies)

        for storage in self.after(write):
            for scene in scenes:
                assert scene.found(storage) == scene.held
                own, held = storage.count(scene.number)
                assert (own, *held.values()) == tuple(map(len, scene.held.values()))

    def test_counts_that_were_told_are_loaded(self) -> None:
        """Nothing is counted then, and what was told is also what is counted."""
        topic = _topic(_channel(7, held=2), _channel(8, held=1), counted=True)
        batch = _batch(topic, rows={1: [_row(1), _row(2)]}, copies={(1, 8): {2: GONE}})
        self.given(batch)
        for _ in range(2):
            assert self.loaded() == (batch.topics, batch.channels)
            with self.opened() as storage:
                assert storage.count(1) == (0, {7: 2, 8: 1})

    def test_any_write_makes_a_topic_uncounted(self) -> None:
        """One row, several rows, attempts, or anything of it in a batch that does not count it."""
        for number, (write, count) in enumerate(_CHANGES, 1):
            topic = _topic(_channel(number, held=2), number=number, counted=True)
            first = number * MANY
            self.given(_batch(topic, rows={number: [_row(first + 1), _row(first + 2)]}))
            for _ in range(2):
                with self.opened() as storage:
                    write(storage, number, first)
                    assert sum(storage.count(number)[1].values()) == count
            assert not self.loaded()[0][number].counted
            with self.opened() as storage:
                assert sum(storage.count(number)[1].values()) == count

    def test_other_topics_stay_counted(self) -> None:
        """And so does one of which a batch says so."""
        topics = [_topic(number=number, held=1, counted=True) for number in (1, 2)]
        self.given(
            _batch(*topics, rows={1: [_row(1)], 2: [_row(2)]}),
            _batch(_topic(held=2, counted=True), rows={1: [_row(3)]}),
        )
        topics_now, _ = self.loaded()
        assert [(one.held, one.counted) for one in topics_now.values()] == [(2, True), (1, True)]

    # Written and done with in one batch

    def test_what_is_gone_in_every_channel_need_not_be_written(self) -> None:
        """A batch may hold a message and that all have done with it, for any number of channels."""
        for number, count in enumerate((1, 2, 3, 64), 1):
            channels = range(number * 100, number * 100 + count)
            ids = range(number * MANY, number * MANY + 50)
            rows = [_row(identity, due=5 if identity % 5 else None) for identity in ids]
            gone: dict[int, Copy] = dict.fromkeys(ids[:-1], GONE)
            copies = {(number, channel): gone for channel in channels}
            copies[number, channels[-1]] = {**gone, ids[7]: (3, None), ids[8]: (4, 77)}
            topic = _topic(*map(_channel, channels), number=number)
            for _ in range(2):
                self.given(_batch(topic, rows={number: rows}, copies=copies))
                with self.opened() as storage:
                    held = dict.fromkeys(channels, 1) | {channels[-1]: 3}
                    assert storage.count(number) == (0, held)
            assert self.left(number) == [ids[7], ids[8], ids[-1]]

    def test_what_is_meant_for_one_channel_needs_only_that(self) -> None:
        """It is not written if that one has done with it, and is if only others have."""
        copies: dict[tuple[int, int | None], dict[int, Copy]] = {
            (1, 7): {1: GONE},
            (1, 8): {2: GONE},
        }
        self.given(
            _batch(
                _topic(_channel(7), _channel(8)),
                rows={1: [_row(1, only=7), _row(2, only=7), _row(3, only=8)]},
                copies=copies,
            )
        )
        with self.opened() as storage:
            assert storage.count(1) == (0, {7: 1, 8: 1})
            assert (_apart(storage, 7), _apart(storage, 8)) == ([2], [3])

    def test_a_topic_may_have_done_with_what_it_was_given(self) -> None:
        """What the topic itself held and dropped in one batch is not there."""
        self.given(_batch(_topic(), rows={1: [_row(1), _row(2)]}, copies={(1, None): {1: GONE}}))
        with self.opened() as storage:
            assert (storage.count(1), _ready(storage, None)) == ((1, {}), [2])

    def test_a_row_that_is_known_is_gone_too(self) -> None:
        """A batch may tell of a message that was written before, and that all have done with it."""
        self.given(_batch(_topic(_channel(7))))
        with self.opened() as storage:
            storage.write_row(1, _row(1))
            storage.write(Batch(rows={1: [_row(1), _row(2)]}, copies={(1, 7): {1: GONE}}))
            assert (storage.count(1), _ready(storage, 7)) == ((0, {7: 1}), [2])

    # What is not there

    def test_a_batch_may_tell_of_what_is_gone_in_it(self) -> None:
        """Topics and channels that are gone in the same batch are left out, with all of theirs."""
        batch = _batch(
            _topic(_channel(7), _channel(8)),
            _topic(_channel(9), number=2),
            rows={1: [_row(1)], 2: [_row(2)]},
            copies={(1, 7): {1: (1, 5)}, (2, 9): {2: (1, 5)}},
            gone_channels={7: 1},
            gone_topics={2: None},
            unheld={1, 2},
            emptied=[(2, 0, 9)],
        )
        for _ in range(2):
            self.given(batch)
            assert ({1}, {8}) == self.numbers()
            with self.opened() as storage:
                _tidied(storage)
                assert storage.count(1) == (0, {8: 1})
                assert storage.highest() == (2, 9, 1)

    def test_there_is_no_place_for_messages_of_no_topic(self) -> None:
        """Nothing is written then; nor is anything read, or counted."""
        writes: list[Callable[[Storage], object]] = [
            lambda storage: storage.write_row(5, _row(1)),
            lambda storage: storage.write_rows(5, [_row(1), _row(2)]),
            lambda storage: storage.write(_batch(_topic(), rows={5: [_row(1)]})),
            lambda storage: storage.write(
                Batch(channels=_batch(_topic(_channel(7), number=5)).channels)
            ),
        ]
        with self.opened() as storage:
            for write in writes:
                _refused(partial(write, storage))
            assert (
                storage.read(5, 7, 0, HIGHEST, -1) == _read_apart(storage, 5, 7, 0, HIGHEST) == []
            )
            assert storage.count(5) == (0, {})
        assert self.loaded() == ({}, {})

    def test_what_became_of_messages_that_are_gone_is_nothing(self) -> None:
        """Attempts and copies of no message, no channel or no topic leave nothing."""

        def write(storage: Storage) -> None:
            storage.write(_batch(_topic(_channel(7), _channel(8)), rows={1: [_row(1)]}))
            storage.write(Batch(copies={(1, 7): {1: GONE, 2: GONE, 3: (1, 9)}, (1, 6): {1: GONE}}))
            storage.write(Batch(copies={(4, 6): {1: GONE}}, gone_channels={5: 4}, unheld={4}))
            for number, channel in ((1, 7), (1, 6), (4, 7)):
                storage.write_attempts(number, channel, [(1, 5), (2, 1)])
                storage.write_attempts(number, channel, [(3, 1)])
            storage.write_rows(1, [_row(2), _row(3)])

        for storage in self.after(write):
            assert storage.count(1) == (0, {7: 2, 8: 3})
            assert _ready(storage, 7) == [2, 3]
            assert [one[5] for one in storage.read(1, 8, 0, HIGHEST, -1)] == [0, 0, 0]

    # Backup

    def test_a_backup_is_another_storage(self) -> None:
        """It has what was written until then, and neither knows what the other writes later."""
        batch = _batch(_topic(_channel(7)), rows={1: [_row(1), _row(2, due=5)]}, highest=9)
        with TemporaryDirectory() as directory, self.opened() as storage:
            path = str(Path(directory, "copy"))
            storage.write(batch)
            storage.write_row(1, _row(3))
            storage.backup(path)
            storage.write_row(1, _row(4))
            copy = self.restored(path)
            try:
                topics, channels = copy.load()
                assert topics == [*batch.topics.values()]
                assert channels == [*batch.channels.values()]
                assert copy.highest() == (1, 7, 9)
                assert (_ready(copy, 7), _apart(copy, 7)) == ([1, 3], [2])
                copy.write_row(1, _row(5))
                assert _ready(copy, 7) == [1, 3, 5]
            finally:
                copy.close()
            assert _ready(storage, 7) == [1, 3, 4]

    def test_a_backup_replaces_nothing(self) -> None:
        """Where there is something already it is refused, and that stays as it is."""
        with TemporaryDirectory() as directory, self.opened() as storage:
            path = str(Path(directory, "copy"))
            storage.write(_batch(_topic(_channel(7)), rows={1: [_row(1)]}))
            storage.backup(path)
            storage.write_row(1, _row(2))
            _refused(partial(storage.backup, path))
            assert _ready(storage, 7) == [1, 2]
            copy = self.restored(path)
            try:
                copy.load()
                assert _ready(copy, 7) == [1]
            finally:
                copy.close()

    # What is deleted

    def test_a_channel_that_is_deleted_lets_go_of_its_messages(self) -> None:
        """What another one still holds stays; what nobody does is forgotten."""
        rows = [_row(n) for n in range(1, MANY + 1)]
        kept: dict[int, Copy] = {n: GONE for n in range(1, MANY + 1) if n % 3}
        count = MANY - len(kept)
        both = _topic(_channel(7), _channel(8), handed=MANY)
        one = _topic(_channel(8), handed=MANY)
        self.given(
            _batch(_topic(_channel(7), _channel(8)), rows={1: rows}),
            _batch(both, copies={(1, 8): kept}),
            _batch(one, gone_channels={7: 1}, unheld={1}),
        )
        with self.opened() as storage:
            assert (0, {8: count}) == storage.count(1)
        assert [n for n in range(1, MANY + 1) if n not in kept] == self.left()

    def test_what_was_meant_for_a_deleted_channel_is_forgotten(self) -> None:
        """Also if its id is above all that the topic has handed on."""
        self.given(
            _batch(_topic(_channel(7), _channel(8)), rows={1: [_row(1, only=7)]}),
            _batch(_topic(_channel(8)), gone_channels={7: 1}, unheld={1}),
        )
        assert self.left(only=7) == []

    def test_a_channel_can_be_made_again_in_the_batch_that_deletes_it(self) -> None:
        """It has its old name, a new number, and none of the old messages."""
        topic = _topic(attrs.evolve(_channel(9, since=1), name="channel7"))
        self.given(
            _batch(_topic(_channel(7)), rows={1: [_row(1)]}),
            _batch(topic, gone_channels={7: 1}, rows={1: [_row(2)]}, unheld={1}),
        )
        with self.opened() as storage:
            assert storage.count(1) == (0, {9: 1})
            assert _ready(storage, 9, after=1) == [2]
        assert self.left() == [2]

    def test_a_topic_that_is_deleted_is_not_there_again(self) -> None:
        """Neither at once nor later, and the others are as they were."""
        rows = [_row(n) for n in range(1, MANY + 1)]
        topics = [_topic(_channel(7)), _topic(_channel(8), number=2)]
        self.given(
            _batch(*topics, rows={1: rows, 2: [_row(MANY + 1)]}), Batch(gone_topics={1: None})
        )
        assert {2} == set(self.loaded()[0])
        with self.opened() as storage:
            _tidied(storage)
        assert ({2}, {8}) == self.numbers()
        with self.opened() as storage:
            assert _ready(storage, 8, 2) == [MANY + 1]

    def test_a_topic_can_be_made_again_in_the_batch_that_deletes_it(self) -> None:
        """It has its old name, a new number, and none of the old messages."""
        again = _topic(_channel(8), number=2)
        again[0].name = "topic1"
        self.given(
            _batch(_topic(_channel(7)), rows={1: [_row(1)]}),
            _batch(again, gone_topics={1: None}, rows={2: [_row(2)]}),
        )
        for _ in range(2):
            assert {2} == set(self.loaded()[0])
            with self.opened() as storage:
                assert _ready(storage, 8, 2) == [2]
                _tidied(storage)

    # Writing

    def test_a_batch_that_is_written_twice_is_written_once(self) -> None:
        """Whatever it holds: topics, rows, copies, what is deleted."""
        batches = [
            _batch(
                _topic(_channel(7), _channel(8)),
                _topic(_channel(9), number=2),
                rows={1: [_row(1), _row(2), _row(3, due=4)], 2: [_row(4)]},
            ),
            _batch(
                _topic(_channel(7), _channel(8), handed=3),
                copies={(1, 7): {1: GONE, 2: (2, 8), 3: GONE}, (1, 8): {3: GONE}},
            ),
            _batch(
                _topic(_channel(8), handed=3),
                gone_channels={7: 1},
                gone_topics={2: None},
                unheld={1},
            ),
        ]
        with self.opened() as storage:
            for batch in batches:
                storage.write(batch)
                storage.write(batch)
            _tidied(storage)
            storage.write(batches[-1])
            _tidied(storage)
        assert ({1}, {8}) == self.numbers()
        with self.opened() as storage:
            assert storage.count(1) == (0, {8: 2})
            assert (_ready(storage, 8), _apart(storage, 8)) == ([1, 2], [])
        assert self.left() == [1, 2]

    def test_a_batch_that_is_interrupted_has_changed_nothing(self) -> None:
        """What is thrown into the middle of a write leaves all as it was; it can be made again."""
        old = _topic(_channel(7), _channel(8), handed=2)
        new = _topic(_channel(8), _channel(9, since=2), handed=2, paused=True)

        def batch() -> Batch:
            return _batch(
                new,
                _topic(number=2),
                gone_channels={7: 1},
                rows={2: [_row(5)], 1: [_row(3)]},
                copies={(1, 8): {1: GONE}},
                unheld={1},
            )

        def write(storage: Storage) -> None:
            first, second = batch(), batch()
            first.rows[1] = _Interrupting()
            second.copies[1, 9] = _InterruptingCopies({3: GONE})
            _interrupt(lambda: storage.write(first))
            _interrupt(lambda: storage.write(second))

        self.given(_batch(old, rows={1: [_row(1), _row(2)]}))
        for storage in self.after(write):
            assert (_ready(storage, 7), _ready(storage, 8)) == ([1, 2], [1, 2])
            assert storage.highest()[:2] == (1, 8)
        first = _batch(old)
        assert self.loaded() == (first.topics, first.channels)
        with self.opened() as storage:
            write(storage)
            storage.write(batch())
        with self.opened() as storage:
            assert storage.count(1) == (1, {8: 1, 9: 0})
            assert _ids(storage.read(1, 8, 0, 2, -1)) == [2]
            assert (_ready(storage, None, 1, 2), _ready(storage, None, 2)) == ([3], [5])

    def test_rows_that_are_interrupted_are_not_written(self) -> None:
        """Several rows are written all or none."""

        def write(storage: Storage) -> None:
            storage.write(_batch(_topic(_channel(7))))
            storage.write_row(1, _row(1))
            _interrupt(lambda: storage.write_rows(1, _Interrupting([_row(2), _row(3)])))
            storage.write_row(1, _row(4))

        for storage in self.after(write):
            assert _ready(storage, 7) == [1, 4]

    def test_an_empty_batch_changes_nothing(self) -> None:
        """It can be written at any time."""
        self.given(Batch(), _batch(_topic(_channel(7)), rows={1: [_row(1)]}), Batch())
        with self.opened() as storage:
            assert storage.count(1) == (0, {7: 1})
            assert _ready(storage, 7) == [1]

    def test_what_was_written_survives_who_wrote_it(self) -> None:
        """A storage that was left without being closed has lost nothing."""
        storage = self.make()
        assert storage.load() == ([], [])
        storage.write(_batch(_topic(_channel(7)), rows={1: [_row(1), _row(2)]}))
        storage.write_row(1, _row(3))
        storage.write_attempts(1, 7, [(1, 4)])
        storage.write(Batch(copies={(1, 7): {2: GONE}}))
        storage.abandon()
        with self.opened() as storage:
            assert [(one[0], one[5]) for one in storage.read(1, 7, 0, HIGHEST, -1)] == [
                (1, 4),
                (3, 0),
            ]

    def test_upkeep_changes_nothing_that_can_be_read(self) -> None:
        """Also when it comes between the writes, and more often than needed."""
        with self.opened() as storage:
            storage.write(_batch(_topic(_channel(7), _channel(8))))
            for identity in range(1, 200):
                storage.write_row(1, _row(identity, b"x" * 1000))
                storage.write(Batch(copies={(1, 7): {identity: GONE}}))
                storage.copy_log()
                storage.tidy()
            assert ([], list(range(1, 200))) == (_ready(storage, 7), _ready(storage, 8))
        with self.opened() as storage:
            assert ([], list(range(1, 200))) == (_ready(storage, 7), _ready(storage, 8))


def _interrupt(call: Callable[[], object]) -> None:
    """Make a call that is interrupted."""
    try:
        call()
    except Exception:
        return
    raise AssertionError("a write was interrupted and did not say so")


def _refused(call: Callable[[], object]) -> None:
    """Make a call that the storage refuses."""
    try:
        call()
    except StoreError:
        return
    raise AssertionError("what cannot be done was not refused")
