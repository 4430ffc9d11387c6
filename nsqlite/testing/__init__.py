"""For tests: a clock moved by hand, an nsqd, stores without a disk, what a store must do.

Next: testing/bystanders.py
"""

from nsqlite.testing.address import nsqd
from nsqlite.testing.faults import Fault, FaultOptions, Faults, Injected
from nsqlite.testing.faultystorage import FaultyStorage, FaultyStore
from nsqlite.testing.manualclock import ManualClock
from nsqlite.testing.memorystorage import MemoryStorage
from nsqlite.testing.memorystore import MemoryStore
from nsqlite.testing.storagecontract import StorageContract

__all__ = [
    "Fault",
    "FaultOptions",
    "Faults",
    "FaultyStorage",
    "FaultyStore",
    "Injected",
    "ManualClock",
    "MemoryStorage",
    "MemoryStore",
    "StorageContract",
    "nsqd",
]
