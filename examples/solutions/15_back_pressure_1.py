"""After 5 s the publisher gets the error `Full`, and nothing was put anywhere.

It prints:

    refused after 5 s, depth 2
"""

import nsqlite
from nsqlite.testing import FakeBroker, ManualClock

clock = ManualClock(start=0, autojump=True)  # moves on if all wait
broker = FakeBroker(clock=clock)
numbers = broker.topic("numbers")
channel = numbers.channel("all", max_depth=2, when_full="wait")
numbers.put_many([1, 2])

# The channel is full, and nobody consumes.
try:
    numbers.put(3, timeout=5)
except nsqlite.Full:
    print(f"refused after {clock.time():.0f} s, depth {channel.depth}")
