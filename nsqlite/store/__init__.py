"""Durability: what `put` returned for is in a file, and there again after the process has died.

    >>> import nsqlite, tempfile
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     store = nsqlite.SQLite(f"{directory}/jobs.db", codec="json")
    ...     with nsqlite.Broker(store=store) as broker:
    ...         broker.health
    'OK'

Next: store/storage.py
"""

from nsqlite.store.codec import Codec, Undecodable
from nsqlite.store.database import Database
from nsqlite.store.storage import (
    GONE,
    Batch,
    Copy,
    Found,
    Row,
    Storage,
    StoredChannel,
    StoredTopic,
)
from nsqlite.store.terms import StoreOptions

__all__ = [
    "GONE",
    "Batch",
    "Codec",
    "Copy",
    "Database",
    "Found",
    "Row",
    "Storage",
    "StoreOptions",
    "StoredChannel",
    "StoredTopic",
    "Undecodable",
]
