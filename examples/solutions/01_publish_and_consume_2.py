"""A consumer may finish what it holds in any order.

It prints:

    finished order 2, in flight 1
    finished order 1, in flight 0
"""

import nsqlite
from nsqlite.testing import FakeBroker

broker = FakeBroker()
orders = broker.topic("orders")
billing = orders.channel("billing")
ann = nsqlite.Consumer(billing, name="ann")
orders.put_many(["order 1", "order 2"])

# She holds both, and finishes the second one first.
first, second = ann.get_many(2)
second.fin()
print(f"finished {second.body}, in flight {billing.in_flight_count}")

# The other one was not touched by that.
first.fin()
print(f"finished {first.body}, in flight {billing.in_flight_count}")
