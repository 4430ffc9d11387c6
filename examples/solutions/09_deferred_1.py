"""What is due at the same moment comes in the order in which it was deferred.

It prints:

    milk, sugar
"""

import nsqlite
from nsqlite.testing import FakeBroker, ManualClock

clock = ManualClock(start=0)
broker = FakeBroker(clock=clock)
orders = broker.topic("orders")
cook = nsqlite.Consumer(orders.channel("kitchen"), name="cook")
orders.put("milk", delay=5)
orders.put("sugar", delay=5)

# Both are due after 5 s.
clock.advance(5)
messages = cook.get_many(2)
print(", ".join(message.body for message in messages))
cook.fin_many(messages)
