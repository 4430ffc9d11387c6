"""Two puts make two messages with two ids; a key of the order itself, in the body, helps.

It prints:

    by message id: 2 charges
    by order number: 1 charge
"""

import nsqlite
from nsqlite.testing import FakeBroker

broker = FakeBroker()
orders = broker.topic("orders")
ann = nsqlite.Consumer(orders.channel("billing"), name="ann")

# A publisher does not know whether its first put has come through, so it puts again.
orders.put({"order": 1})
orders.put({"order": 1})

# To the queue these are two messages.
messages = ann.get_many(2)
ids = {message.id for message in messages}
print("by message id:", len(ids), "charges")

# To the shop they are one order.
numbers = {message.body["order"] for message in messages}
print("by order number:", len(numbers), "charge")
ann.fin_many(messages)
