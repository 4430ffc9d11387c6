"""At least once, fixed: an idempotent handler.

An idempotent handler may get a message twice, and does its work once.

The handler remembers the ids of what it has done: a message keeps its id when it comes again.  Here
they are in a set, and noted after the work; in a program they are in a table that is written in the
same transaction as the work, so that there is never one without the other.

Watch Bob.  He gets the message as before, sees that the work is done, and only finishes it.

It prints:

    ann charges order 1, attempt 1
    ready: 0
    charges: order 1

Try it:

1. Ann dies before she has charged.  Is the customer charged at all, and by whom?
2. A publisher puts the same order twice.  Does the set of ids help?  What would?

Next: 06_time_out.py
"""

import nsqlite
from nsqlite.testing import FakeBroker

broker = FakeBroker()
orders = broker.topic("orders")
billing = orders.channel("billing")
ann = nsqlite.Consumer(billing, name="ann")
bob = nsqlite.Consumer(billing, name="bob")
charges: list[str] = []  # what customers have paid
done: set[str] = set()  # the ids of the messages whose work is done


def charge(message: nsqlite.Message[str], who: str) -> None:
    """Take the money for an order."""
    if message.id in done:
        return
    print(f"{who} charges {message.body}, attempt {message.attempts}")
    charges.append(message.body)
    done.add(message.id)


# Ann gets an order and charges the customer.  She has not said FIN yet.
orders.put("order 1")
message = ann.get()
charge(message, "ann")

# Now her process dies, which closes her connection.  May Bob have the message?
ann.close(give_back=False)  # as a client of NSQ leaves
print("ready:", billing.depth)

# NSQ takes nothing back from her: the message waits for its time-out, 60 s after its delivery.
broker.clock.advance(60)

# Bob gets it.  How often has the customer paid in the end?
again = bob.get()
charge(again, "bob")
again.fin()
print("charges:", ", ".join(charges))
