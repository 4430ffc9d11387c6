"""The other channel gets and delivers everything: channels are independent.

It prints:

    billing has 1, delivers nothing
    audit delivers order 1
"""

import nsqlite
from nsqlite.testing import FakeBroker

broker = FakeBroker()
orders = broker.topic("orders")
billing, audit = orders.channel("billing"), orders.channel("audit")
ann = nsqlite.Consumer(billing, name="ann")
eve = nsqlite.Consumer(audit, name="eve")

# Only billing is paused.
billing.pause()
orders.put("order 1")
assert not ann.take(1)
print(f"billing has {billing.depth}, delivers nothing")

# Eve's channel knows nothing of it.
with eve.get() as message:
    print("audit delivers", message.body)
