"""Competing consumers: they share a channel's messages.

A channel gives each of its messages to one of its consumers.  `max_in_flight` is how many messages
a consumer may hold unanswered.  With 1 it gets the next one only when it has answered the last, so
a slow consumer leaves the work to the others.

Watch order 2.  Its consumer closes without an answer, so the message goes back to the head of the
queue and another consumer gets it, as its second attempt.  So does nsqlite's
`close`; NSQ takes nothing back when a client leaves, and the message waits for its time-out.

It prints:

    quick gets order 1, attempt 1
    slow gets order 2, attempt 1
    slow gets nothing, for it holds order 2
    quick gets order 3, attempt 1
    quick gets order 2, attempt 2

Try it:

1. Give slow a `max_in_flight` of 2.  Which orders does it hold when it closes?
2. Give quick a channel of its own, "copies".  How many orders does each of the two get then?

Next: 04_at_least_once_broken.py
"""

import nsqlite
from nsqlite.testing import FakeBroker

broker = FakeBroker()
orders = broker.topic("orders")
billing = orders.channel("billing")
quick = nsqlite.Consumer(billing, max_in_flight=1, name="quick")
slow = nsqlite.Consumer(billing, max_in_flight=1, name="slow")


def get(consumer: nsqlite.Consumer[str]) -> nsqlite.Message[str]:
    """Get the next message and print who got it."""
    message = consumer.get()
    attempt = f"attempt {message.attempts}"
    print(f"{consumer.name} gets {message.body}, {attempt}")
    return message


# Two consumers share a channel.  How often is each order delivered?
orders.put_many(["order 1", "order 2", "order 3"])
first, second = get(quick), get(slow)

# Slow asks for more before it has answered.  Its window is 1.  What does it get?
try:
    slow.get(timeout=0)
except nsqlite.WindowFull:
    print(f"slow gets nothing, for it holds {second.body}")

# Quick has finished, so it may have the next one.
first.fin()
get(quick).fin()

# Slow closes without an answer.  What becomes of order 2?
slow.close()

# It is ready again, and whoever asks gets it.  Which attempt is that?
get(quick).fin()
