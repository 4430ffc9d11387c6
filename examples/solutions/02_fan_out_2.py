"""A channel that is deleted takes its own copies with it; the other channels lose nothing.

It prints:

    thrown away with billing: 3
    audit has 2
    latecomer has 1
"""

import logging

from nsqlite.testing import FakeBroker

logging.getLogger("nsqlite").setLevel(logging.ERROR)  # the loss is meant
broker = FakeBroker()
orders = broker.topic("orders")
orders.put("order 1")
billing, audit = orders.channel("billing"), orders.channel("audit")
orders.put("order 2")
latecomer = orders.channel("latecomer")
orders.put("order 3")

# Nobody has consumed anything when billing is deleted.
print("thrown away with billing:", billing.delete())
print("audit has", audit.depth)
print("latecomer has", latecomer.depth)
