"""Publish and consume: from a topic through a channel to a consumer.

A topic takes messages, a channel keeps them, a consumer gets them.  A message that was delivered is
in flight until its consumer finishes it.

Watch the two counts: `get` moves a message from the depth to those in flight, and only `fin` makes
the channel forget it.  A `with` block does that by itself.

It prints:

    two published    depth 2, in flight 0
    got order 1      depth 1, in flight 1
    finished it      depth 1, in flight 0
    left the block   depth 0, in flight 0

Try it:

1. Raise an exception inside the `with` block.  Where is order 2 then, and what are its attempts?
2. Get both messages, and finish order 2 before order 1.  May a consumer do that?

Next: 02_fan_out.py
"""

import nsqlite
from nsqlite.testing import FakeBroker

broker = FakeBroker()  # its clock is moved by hand: no lesson has to wait
orders = broker.topic("orders")
billing = orders.channel("billing")
ann = nsqlite.Consumer(billing, name="ann")


def show(what: str) -> None:
    """Print what was done and where the channel's messages are now."""
    counts = f"depth {billing.depth}, in flight {billing.in_flight_count}"
    print(f"{what:<16} {counts}")


# Two messages are published.  Nobody has asked for them yet.  Where are they?
orders.put("order 1")
orders.put("order 2")
show("two published")

# Ann gets a message.  It is delivered, but not done.  Has the channel forgotten it?
message = ann.get()
show(f"got {message.body}")

# She has done the work, and says so: FIN, in the words of NSQ.
message.fin()
show("finished it")

# A `with` block finishes its message at its end.
with ann.get() as message:
    assert message.state == "in flight"
show("left the block")
