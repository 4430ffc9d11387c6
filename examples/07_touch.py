"""Touch: slow work keeps its message.

A consumer that needs longer than the time-out touches its message.  `touch` gives a message its
whole `msg_timeout` again, counted from now.  Touch it after each piece of work, and let no piece
take longer than the time-out.

Watch Bob get nothing, and Ann finish in time.  Only one line of the code is new.

It prints:

     0 s  ann gets the parcel, attempt 1
     6 s  bob gets nothing
    12 s  bob gets nothing
    12 s  ann finishes it

Try it:

1. Touch the parcel at 6 s, then work for 11 s without a touch.  Who has the parcel then?
2. Make `max_msg_timeout` 15 and touch every 6 s.  When does the parcel time out all the same?

Next: 08_requeue_and_retry.py
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
parcel.touch()
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
