"""Pause: hold messages back, where they are.

`pause` holds messages back, and `empty` drops them.  A paused channel takes messages but delivers
none.  A paused topic holds what is published and gives none of it to its channels.  `empty` drops
what a channel has, what is in flight included.

Watch where the messages are: held by the topic, ready in the channel, in flight, or gone.

It prints:

    channel paused: there is nothing to get
    channel unpaused: got order 1
    topic paused: it holds 2
    topic unpaused: it holds 0
    channel emptied: order 1 is dropped

Try it:

1. Pause a channel while a message of it is in flight.  May its consumer finish it?
2. Pause one of two channels.  What does the other one get?

Next: 11_ephemeral.py
"""

import nsqlite
from nsqlite.testing import FakeBroker

broker = FakeBroker()
orders = broker.topic("orders")
billing = orders.channel("billing")
ann = nsqlite.Consumer(billing, name="ann")

# The channel is paused, and then something is published.  Does the channel get it?
billing.pause()
orders.put("order 1")

# It does.  Does Ann?
try:
    ann.get(timeout=0)
except nsqlite.Empty:
    print("channel paused: there is nothing to get")

# The channel goes on.
billing.unpause()
message = ann.get()
print(f"channel unpaused: got {message.body}")

# Now the whole topic is paused, and two messages are published.  Where are they?
orders.pause()
orders.put_many(["order 2", "order 3"])
print(f"topic paused: it holds {orders.depth}")

# The topic goes on, and hands on what it held.
orders.unpause()
print(f"topic unpaused: it holds {orders.depth}")

# The channel is emptied.  Ann still works on order 1.  Is that dropped, too?
billing.empty()
print(f"channel emptied: {message.body} is {message.state}")
