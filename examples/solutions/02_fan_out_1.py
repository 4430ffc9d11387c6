"""A channel that is there before the first put gets everything that is published.

It prints:

    billing has 3
    audit has 3
    latecomer has 3
"""

from nsqlite.testing import FakeBroker

broker = FakeBroker()
orders = broker.topic("orders")
names = ["billing", "audit", "latecomer"]
channels = [orders.channel(name) for name in names]

# All three channels are there.
orders.put_many(["order 1", "order 2", "order 3"])
for channel in channels:
    print(channel.name, "has", channel.depth)
