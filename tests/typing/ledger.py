"""Durability: a file, a codec of one's own, and a store that fails in a test."""

import tempfile
from pathlib import Path
from typing import Any, assert_type

import attrs

import nsqlite
from nsqlite import Broker, Consumer, SQLite, StoreFull, Topic
from nsqlite.store import Codec, StoreOptions, Undecodable
from nsqlite.testing import FaultyStore, MemoryStore


@attrs.frozen
class Entry:
    """A line of the ledger."""

    account: str
    cents: int


def encode(body: Any) -> bytes:
    """Write an entry."""
    if not isinstance(body, Entry):
        raise TypeError(body)
    return f"{body.account} {body.cents}".encode()


def decode(data: bytes) -> Entry:
    """Read an entry."""
    account, cents = data.decode().split()
    return Entry(account, int(cents))


ENTRIES = Codec("entries", encode, decode)
ON_DISK: StoreOptions = {"sync": "full", "mem_queue_size": 100, "codec": ENTRIES}


def open_ledger(file: Path) -> tuple[Broker, Topic[Entry]]:
    """Open the ledger."""
    broker = Broker(store=SQLite(file, **ON_DISK))
    topic: Topic[Entry] = broker.topic("ledger")
    return broker, topic


def book(file: Path) -> None:
    """Book an entry."""
    broker, topic = open_ledger(file)
    with broker:
        topic.channel("balance")
        topic.put(Entry("ann", 500))
        broker.flush()
        assert_type(broker.health, str)


def balance(file: Path) -> int:
    """Add up what is booked."""
    broker, topic = open_ledger(file)
    consumer = Consumer(topic.channel("balance"))
    with broker, consumer.get(timeout=0) as message:
        assert not isinstance(message.body, Undecodable)
        return message.body.cents


def survives_a_full_disk() -> bool:
    """Test what happens without room."""
    full = False

    def fault(point: str) -> None:
        if full and point.startswith("before write"):
            raise StoreFull("ledger.db", "the disk is full")

    with Broker(store=FaultyStore(MemoryStore(codec=ENTRIES), fault)) as broker:
        topic = broker.topic("ledger")
        full = True
        try:
            topic.put(Entry("ann", 500))
        except StoreFull:
            return topic.depth == 0
        finally:
            full = False
        return False


def main() -> None:
    """Book and read."""
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "ledger.db"
        book(file)
        assert balance(file) == 500
    assert survives_a_full_disk()


def mistakes() -> None:
    """What a type checker is to refuse; never called."""
    SQLite("ledger.db", codec=5)  # error: arg-type, reportArgumentType
    SQLite("ledger.db", sync="ful")  # error: arg-type, reportArgumentType
    SQLite("ledger.db", synk="full")  # error: call-arg, reportCallIssue
    SQLite()  # error: call-arg, reportCallIssue
    Broker(store="ledger.db")  # error: arg-type, reportArgumentType
    Codec("entries", decode, encode)  # error: arg-type, arg-type, reportArgumentType
    nsqlite.store.Codek()  # error: attr-defined, reportAttributeAccessIssue


if __name__ == "__main__":
    main()
