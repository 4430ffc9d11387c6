"""Fan out: every channel gets every message.

The topic gives each message to all channels that it has.  They are independent: what one of them
has finished, the others still have.

Watch when each channel is created.  A topic without channels holds what is published, and its first
channel gets that.  A later channel gets only what is published after its creation.

It prints:

    the topic holds 1 message
    billing gets order 1, order 2, order 3
    audit gets order 2, order 3
    latecomer gets order 3

Try it:

1. Create all three channels before the first put.  What does each of them get?
2. Delete billing before anybody consumes.  What do the other channels lose?

Next: 03_competing_consumers.py
"""

import nsqlite
from nsqlite.testing import FakeBroker

broker = FakeBroker()
orders = broker.topic("orders")


def consume(channel: nsqlite.Channel[str]) -> None:
    """Get and finish all that is ready in a channel."""
    consumer = nsqlite.Consumer(channel, name=f"reader of {channel.name}")
    messages = consumer.get_many(100)
    bodies = [message.body for message in messages]
    print(channel.name, "gets", ", ".join(bodies))
    consumer.fin_many(messages)


# The topic has no channel yet.  Is the message lost?
orders.put("order 1")
print("the topic holds", orders.depth, "message")

# The first channel comes, then a second one.  Who gets order 1?
billing = orders.channel("billing")
audit = orders.channel("audit")

# Now there are two channels.  How many copies of order 2 will there be?
orders.put("order 2")

# Another channel comes late, and one more message after it.
latecomer = orders.channel("latecomer")
orders.put("order 3")

# Billing finishes all that it has.  Do the other channels still have theirs?
consume(billing)

# They have: a channel knows nothing of what becomes of a message in another one.
consume(audit)
consume(latecomer)
