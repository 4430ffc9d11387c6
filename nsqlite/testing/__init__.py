"""For tests: a clock that is moved by hand, stores without a disk, and what a store must do.

Next: testing/bystanders.py
"""

from nsqlite.testing.faultystorage import FaultyStorage, FaultyStore
from nsqlite.testing.manualclock import ManualClock
from nsqlite.testing.memorystorage import MemoryStorage
from nsqlite.testing.memorystore import MemoryStore
from nsqlite.testing.storagecontract import StorageContract

__all__ = [
    "FaultyStorage",
    "FaultyStore",
    "ManualClock",
    "MemoryStorage",
    "MemoryStore",
    "StorageContract",
]
