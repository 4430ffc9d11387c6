"""What is in flight may be finished: a pause stops deliveries, and nothing else.

It prints:

    in flight 1
    finished: in flight 0
"""

import nsqlite
from nsqlite.testing import FakeBroker

broker = FakeBroker()
orders = broker.topic("orders")
billing = orders.channel("billing")
ann = nsqlite.Consumer(billing, name="ann")
orders.put("order 1")
message = ann.get()

# The channel is paused while she works.
billing.pause()
print("in flight", billing.in_flight_count)

# She may finish it.
message.fin()
print("finished: in flight", billing.in_flight_count)
