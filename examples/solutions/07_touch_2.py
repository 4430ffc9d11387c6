"""Touches cannot make one delivery longer than `max_msg_timeout`: 15 s here.

It prints:

     6 s  in flight
    12 s  in flight
    15 s  timed out
"""

import nsqlite
from nsqlite.testing import FakeBroker, ManualClock

clock = ManualClock(start=0)
broker = FakeBroker(clock=clock, msg_timeout=10, max_msg_timeout=15)
parcels = broker.topic("parcels")
ann = nsqlite.Consumer(parcels.channel("packing"), name="ann")
parcels.put("parcel")
parcel = ann.get()

# She touches the parcel at 6 s and at 12 s.
for _ in range(2):
    clock.advance(6)
    parcel.touch()
    print(f"{clock.time():2.0f} s  {parcel.state}")

# The second touch could give her no more than 3 s.
clock.advance_to_next()
print(f"{clock.time():2.0f} s  {parcel.state}")
