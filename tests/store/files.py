"""What the tests of a file have in common: a topic with two channels, and looks into it."""

from nsqlite.store import GONE, Batch, Copy, Row, StoredChannel, StoredTopic
from nsqlite.store.sqlitefile import SQLiteFile

HIGHEST = (1 << 63) - 1


def topic(held: int = 0, last: int = 0, since: int = 0) -> StoredTopic:
    return StoredTopic(
        number=1,
        name="orders",
        handed=last,
        last=last,
        channels=[
            StoredChannel(number=1, name="billing", held=held, since=since),
            StoredChannel(number=2, name="audit", held=held, since=since),
        ],
    )


def row(identity: int, data: bytes = b"x") -> Row:
    return identity, identity, None, None, None, data


def ready(file: SQLiteFile, channel: int = 1) -> list[int]:
    return [one[0] for one in file.read(1, channel, 0, HIGHEST, -1)]


def finish(file: SQLiteFile, identities: list[int]) -> None:
    """Have both channels be done with messages."""
    done: dict[int, Copy] = dict.fromkeys(identities, GONE)
    last = topic(last=max(identities))
    file.write(Batch(topics=[last], copies=[(1, 1, done), (1, 2, done)]))


def tidy(file: SQLiteFile) -> None:
    file.copy_log()
    while file.tidy():
        file.copy_log()


def count(file: SQLiteFile, table: str) -> int:
    [number] = file._writer._connection.execute(f"SELECT count(*) FROM {table}").fetchone()  # noqa: S608 - ours
    return int(number)
