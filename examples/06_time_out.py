"""Time-out: slow work is done twice.

A message that is not answered within `msg_timeout` seconds is delivered again: its consumer may be
dead.  This one is only slow.

Watch both consumers pack the same parcel, and the first one's `fin` come too late.

It prints:

     0 s  ann gets the parcel, attempt 1
     6 s  bob gets nothing
    12 s  bob gets the parcel, attempt 2
    12 s  ann cannot finish it: timed out

Next: 07_touch.py
"""

import nsqlite
from nsqlite.testing import FakeBroker, ManualClock

clock = ManualClock(start=0)
broker = FakeBroker(clock=clock, msg_timeout=10)
parcels = broker.topic("parcels")
packing = parcels.channel("packing")
ann = nsqlite.Consumer(packing, name="ann")
bob = nsqlite.Consumer(packing, name="bob")


def say(text: str) -> None:
    """Print something with the time."""
    print(f"{clock.time():2.0f} s  {text}")


def try_get(consumer: nsqlite.Consumer[str]) -> None:
    """Get and pack what is ready, and say what that was."""
    got = "nothing"
    for message in consumer.take(1):
        got = f"the {message.body}, attempt {message.attempts}"
        message.fin()
    say(f"{consumer.name} gets {got}")


# A message may be in flight for 10 s here.  Ann gets one.
parcels.put("parcel")
parcel = ann.get()
say(f"ann gets the parcel, attempt {parcel.attempts}")

# She works for 6 s, and Bob asks for work.  What does he get?
clock.advance(6)
try_get(bob)

# She works for 6 s more, and he asks again.  What does he get now?
clock.advance(6)
try_get(bob)

# Ann has packed the parcel, and wants to finish it.  May she?
try:
    parcel.fin()
    say("ann finishes it")
except nsqlite.NotInFlight as late:
    say(f"ann cannot finish it: {late.reason}")
