"""What others write for nsqlite: a clock and a storage of their own."""

from collections.abc import Callable
from typing import assert_type

import nsqlite
from nsqlite import Broker, Clock, Consumer, Topic, TopicOptions
from nsqlite.clock import Alarm, Loop, Semaphore, Timed
from nsqlite.store import Batch, Found, Row, Storage, StoredChannel, StoredTopic
from nsqlite.testing import FaultyStore, ManualClock, MemoryStorage, StorageContract


class FastClock:
    """A clock that goes a thousand times as fast as another."""

    resolution = 1

    def __init__(self, clock: Clock) -> None:
        """Take the other clock."""
        self._clock = clock

    def monotonic_ns(self) -> int:
        """See `nsqlite.Clock`."""
        return self._clock.monotonic_ns() * 1000

    def time_ns(self) -> int:
        """See `nsqlite.Clock`."""
        return self._clock.time_ns() * 1000

    def wait(self, semaphore: Semaphore, moment: int | None, who: str) -> bool:
        """See `nsqlite.Clock`."""
        return self._clock.wait(semaphore, None if moment is None else moment // 1000, who)

    def alarm(self, loop: Loop, moment: int, callback: Callable[[], object]) -> Alarm:
        """See `nsqlite.Clock`."""
        return self._clock.alarm(loop, moment // 1000, callback)

    def attach(self, timed: Timed) -> Callable[[int], object]:
        """See `nsqlite.Clock`."""
        return self._clock.attach(timed)


class Frozen:
    """Half a clock."""

    resolution = 1

    def monotonic_ns(self) -> int:
        """Stand still."""
        return 0


class CountingStorage:
    """A storage that counts what it writes."""

    def __init__(self, storage: Storage) -> None:
        """Wrap a storage."""
        self._storage = storage
        self.written = 0

    def load(self) -> tuple[list[StoredTopic], list[StoredChannel]]:
        """See `Storage`."""
        return self._storage.load()

    def count(self, topic: int) -> tuple[int, dict[int, int]]:
        """See `Storage`."""
        return self._storage.count(topic)

    def last(self, topic: int) -> int:
        """See `Storage`."""
        return self._storage.last(topic)

    def set_clock(self, now: int) -> None:
        """See `Storage`."""
        self._storage.set_clock(now)

    def copy_all(self) -> None:
        """See `Storage`."""
        self._storage.copy_all()

    def backup(self, path: str) -> None:
        """See `Storage`."""
        self._storage.backup(path)

    def highest(self) -> tuple[int, int, int]:
        """See `Storage`."""
        return self._storage.highest()

    def write_row(self, number: int, row: Row) -> None:
        """See `Storage`."""
        self.written += 1
        self._storage.write_row(number, row)

    def write_rows(self, number: int, rows: list[Row]) -> None:
        """See `Storage`."""
        self.written += len(rows)
        self._storage.write_rows(number, rows)

    def write_attempts(self, number: int, channel: int, copies: list[tuple[int, int]]) -> None:
        """See `Storage`."""
        self._storage.write_attempts(number, channel, copies)

    def write(self, batch: Batch) -> None:
        """See `Storage`."""
        self._storage.write(batch)

    def read(
        self, topic: int, channel: int | None, after: int, upto: int, limit: int
    ) -> list[Found]:
        """See `Storage`."""
        return self._storage.read(topic, channel, after, upto, limit)

    def read_apart(self, topic: int, channel: int | None, after: int, upto: int) -> list[Found]:
        """See `Storage`."""
        return self._storage.read_apart(topic, channel, after, upto)

    def read_deferred(
        self,
        topic: int,
        channel: int | None,
        between: tuple[int, int],
        behind: tuple[int, int],
        limit: int,
    ) -> list[Found]:
        """See `Storage`."""
        return self._storage.read_deferred(topic, channel, between, behind, limit)

    def count_deferred(self, topic: int, channel: int | None, between: tuple[int, int]) -> int:
        """See `Storage`."""
        return self._storage.count_deferred(topic, channel, between)

    def find(self, topic: int, channel: int | None, identity: int) -> list[Found]:
        """See `Storage`."""
        return self._storage.find(topic, channel, identity)

    def alone(self, topic: int, channel: int, above: int) -> list[int]:
        """See `Storage`."""
        return self._storage.alone(topic, channel, above)

    def copy_log(self) -> None:
        """See `Storage`."""
        self._storage.copy_log()

    def tidy(self) -> bool:
        """See `Storage`."""
        return self._storage.tidy()

    def close(self) -> None:
        """See `Storage`."""
        self._storage.close()

    def abandon(self) -> None:
        """See `Storage`."""
        self._storage.abandon()


class TestCountingStorage(StorageContract):
    """What every storage must do."""

    def make(self) -> Storage:
        """Make it."""
        return CountingStorage(MemoryStorage())


def make_topic(name: str, **options: object) -> Topic[bytes]:
    """Pass options on, as an application's own factory does."""
    known: TopicOptions = {"msg_timeout": 5, "max_msg_size": 100}
    assert not options
    return Topic(name, **known)


def main() -> None:
    """Use them."""
    manual = ManualClock(start=1_000_000)  # a thousand times as much is in 2001
    clock = FastClock(manual)
    topic = Topic[str]("fast", clock=clock)
    consumer = Consumer(topic.channel("c"))
    topic.put("late", delay=10)
    manual.advance(0.01)
    assert_type(consumer.get(timeout=0).body, str)

    storage = CountingStorage(MemoryStorage())
    storage.write(Batch(topics={1: StoredTopic(number=1, name="orders")}))
    storage.write_rows(1, [(1, 0, None, None, None, b"order 1")])
    assert storage.written == 1
    assert make_topic("plain").options.max_msg_size == 100


def mistakes() -> None:
    """What a type checker is to refuse; never called."""
    Broker(clock=Frozen())  # error: arg-type, reportArgumentType
    CountingStorage(Frozen())  # error: arg-type, reportArgumentType
    FaultyStore(MemoryStorage(), print)  # error: arg-type, reportArgumentType
    nsqlite.testing.MemoryStoraje()  # error: attr-defined, reportAttributeAccessIssue
    bad: TopicOptions = {"msg_timeot": 5}  # error: typeddict-unknown-key, reportAssignmentType
    Topic("t", **bad)


if __name__ == "__main__":
    main()
