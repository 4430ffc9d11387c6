"""For tests: a clock moved by hand, an nsqd, stores without a disk, what a store must do.

Next: testing/bystanders.py
"""

from nsqlite.testing.address import nsqd
from nsqlite.testing.anyfault import Chance
from nsqlite.testing.brokerfaults import BrokerFault, BrokerFaultOptions, BrokerFaults, Struck
from nsqlite.testing.fakebroker import FakeBroker
from nsqlite.testing.faults import Fault, FaultOptions, Faults, Injected
from nsqlite.testing.faultystorage import FaultyStorage, FaultyStore
from nsqlite.testing.history import Events, History
from nsqlite.testing.leaks import no_leaks, track
from nsqlite.testing.manualclock import ManualClock
from nsqlite.testing.memorystorage import MemoryStorage
from nsqlite.testing.memorystore import MemoryStore
from nsqlite.testing.simulation import (
    Schedule,
    Simulated,
    Simulation,
    SimulationFailed,
    schedules,
    simulate,
)
from nsqlite.testing.snapshots import Snapshot, snapshot
from nsqlite.testing.storagecontract import StorageContract
from nsqlite.testing.unittesting import NSQLiteMixin

__all__ = [
    "BrokerFault",
    "BrokerFaultOptions",
    "BrokerFaults",
    "Chance",
    "Events",
    "FakeBroker",
    "Fault",
    "FaultOptions",
    "Faults",
    "FaultyStorage",
    "FaultyStore",
    "History",
    "Injected",
    "ManualClock",
    "MemoryStorage",
    "MemoryStore",
    "NSQLiteMixin",
    "Schedule",
    "Simulated",
    "Simulation",
    "SimulationFailed",
    "Snapshot",
    "StorageContract",
    "Struck",
    "no_leaks",
    "nsqd",
    "schedules",
    "simulate",
    "snapshot",
    "track",
]
