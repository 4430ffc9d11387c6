"""In a paused channel it becomes ready when it is due, and nobody gets it.

It prints:

    after 5 s: depth 1, deferred 0
    the cook gets nothing
    unpaused: the cook gets sugar
"""

import nsqlite
from nsqlite.testing import FakeBroker, ManualClock

clock = ManualClock(start=0)
broker = FakeBroker(clock=clock)
orders = broker.topic("orders")
kitchen = orders.channel("kitchen")
cook = nsqlite.Consumer(kitchen, name="cook")
orders.put("sugar", delay=5)
kitchen.pause()

# Time goes on in a paused channel.
clock.advance(5)
depth, deferred = kitchen.depth, kitchen.deferred_count
print(f"after 5 s: depth {depth}, deferred {deferred}")

# But it delivers nothing.
if not cook.take(1):
    print("the cook gets nothing")
kitchen.unpause()
print("unpaused: the cook gets", cook.get().body)
