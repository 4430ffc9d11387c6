"""Eleven seconds after her touch Ann has lost the parcel, and Bob has it.

It prints:

    touched at 6 s
    at 17 s Ann's parcel is timed out
    bob gets attempt 2
"""

import nsqlite
from nsqlite.testing import FakeBroker, ManualClock

clock = ManualClock(start=0)
broker = FakeBroker(clock=clock, msg_timeout=10)
parcels = broker.topic("parcels")
packing = parcels.channel("packing")
ann = nsqlite.Consumer(packing, name="ann")
bob = nsqlite.Consumer(packing, name="bob")
parcels.put("parcel")
parcel = ann.get()

# The touch gives her 10 s from now on, until 16 s.
clock.advance(6)
parcel.touch()
print(f"touched at {clock.time():.0f} s")

# She works for 11 s.
clock.advance(11)
print(f"at {clock.time():.0f} s Ann's parcel is {parcel.state}")
print("bob gets attempt", bob.get().attempts)
