"""When the block raises, order 2 is requeued: ready again, and its next attempt is the second.

It prints:

    in the block: attempt 1
    after it: depth 1, in flight 0
    it comes again: attempt 2
"""

import contextlib

import nsqlite
from nsqlite.testing import FakeBroker

broker = FakeBroker()
orders = broker.topic("orders")
billing = orders.channel("billing")
ann = nsqlite.Consumer(billing, name="ann")
orders.put("order 2")

# The work fails, and the exception leaves the block.
with contextlib.suppress(RuntimeError), ann.get() as message:
    print("in the block: attempt", message.attempts)
    raise RuntimeError("no paper")
depth, in_flight = billing.depth, billing.in_flight_count
print(f"after it: depth {depth}, in flight {in_flight}")

# It is delivered again.
print("it comes again: attempt", ann.get().attempts)
