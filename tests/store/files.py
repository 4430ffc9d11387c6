"""What the tests of a file have in common: a topic with two channels, and looks into it."""

from operator import itemgetter

from nsqlite.store import GONE, Batch, Copy, Found, Row, Storage, StoredChannel, StoredTopic
from nsqlite.store.sqlitefile import SQLiteFile
from nsqlite.store.storage import FIRST

HIGHEST = (1 << 63) - 1


def made(*, counted: bool = False) -> Batch:
    """Return a batch that makes the topic, or tells of it again."""
    topic = StoredTopic(number=1, name="orders", counted=counted)
    names = {1: "billing", 2: "audit"}
    channels = {n: StoredChannel(number=n, topic=1, name=name) for n, name in names.items()}
    return Batch(topics={1: topic}, channels=channels)


def new_topic(number: int, *channels: int) -> Batch:
    """Return a batch that makes another topic, with channels of these numbers."""
    return Batch(
        topics={number: StoredTopic(number=number, name=f"t{number}")},
        channels={n: StoredChannel(number=n, topic=number, name=f"c{n}") for n in channels},
    )


def row(identity: int, data: bytes = b"x") -> Row:
    return identity, identity, None, None, None, data


def ready(file: SQLiteFile, channel: int = 1) -> list[int]:
    return [one[0] for one in file.read(1, channel, 0, HIGHEST, -1)]


def read_apart(
    file: Storage, topic: int, channel: int | None, after: int, upto: int
) -> list[Found]:
    """Return what comes not in the order of ids, but sorted by them."""
    waiting = file.read_deferred(topic, channel, (after, upto), FIRST, -1)
    assert len(waiting) == file.count_deferred(topic, channel, (after, upto))
    return sorted(waiting + file.read_apart(topic, channel, after, upto), key=itemgetter(0))


def finish(file: SQLiteFile, identities: list[int]) -> None:
    """Have both channels be done with messages."""
    done: dict[int, Copy] = dict.fromkeys(identities, GONE)
    file.write(Batch(copies={(1, 1): done, (1, 2): done}))


def tidy(file: SQLiteFile) -> None:
    file.copy_log()
    while file.tidy():
        file.copy_log()


def count(file: SQLiteFile, table: str) -> int:
    [number] = file._writer._connection.execute(f"SELECT count(*) FROM {table}").fetchone()  # noqa: S608 - ours
    return int(number)
