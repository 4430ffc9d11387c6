"""No: what one channel refuses no channel gets, so that the publisher may try again.

It prints:

    bounded has 2, free has 2
    second try: bounded has 2, free has 3
"""

import nsqlite
from nsqlite.testing import FakeBroker

broker = FakeBroker()
numbers = broker.topic("numbers")
bounded = numbers.channel("bounded", max_depth=2, when_full="raise")
free = numbers.channel("free")
numbers.put_many([1, 2])

# The bounded channel has no room for a third one.
try:
    numbers.put(3)
except nsqlite.Full:
    print(f"bounded has {bounded.depth}, free has {free.depth}")

# Somebody makes room, and the publisher tries again: no channel gets it twice.
nsqlite.Consumer(bounded, name="ann").get().fin()
numbers.put(3)
print(f"second try: bounded has {bounded.depth}, free has {free.depth}")
