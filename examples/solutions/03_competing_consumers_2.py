"""Consumers of two channels do not compete: each channel has all orders.

It prints:

    slow gets order 1, order 2, order 3
    quick gets order 1, order 2, order 3
"""

import nsqlite
from nsqlite.testing import FakeBroker

broker = FakeBroker()
orders = broker.topic("orders")
slow = nsqlite.Consumer(orders.channel("billing"), name="slow")
quick = nsqlite.Consumer(orders.channel("copies"), name="quick")
orders.put_many(["order 1", "order 2", "order 3"])

# Each of them has a channel of its own.
for consumer in slow, quick:
    messages = consumer.get_many(10)
    bodies = [message.body for message in messages]
    print(consumer.name, "gets", ", ".join(bodies))
    consumer.fin_many(messages)
