"""Without a delay all attempts come at once: whatever is wrong has no time to be mended.

It prints:

    0 s  seven, attempt 1
    0 s  8, attempt 1
    0 s  seven, attempt 2
    0 s  seven, attempt 3
"""

import nsqlite
from nsqlite.testing import FakeBroker, ManualClock

clock = ManualClock(start=0)
broker = FakeBroker(clock=clock)
numbers = broker.topic("numbers")
doubles = numbers.channel("doubles")
ann = nsqlite.Consumer(doubles, name="ann")
numbers.put_many(["seven", "8"])

# What is requeued goes to the end of the queue, and is ready again.
while doubles.depth:
    message = ann.get()
    now = f"{clock.time():.0f} s"
    print(f"{now}  {message.body}, attempt {message.attempts}")
    if message.body == "seven" and message.attempts < 3:
        message.req()
    else:
        message.fin()
