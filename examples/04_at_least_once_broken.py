"""At least once, broken: a consumer dies before FIN.

The channel cannot know whether a consumer died before its work or after it.  If it took the message
for done, work would be lost; so it delivers the message again: at least once, never "exactly once".
Here a consumer dies between its work and FIN.  Her message stays in flight until it times out, as
in NSQ; only a consumer of nsqlite that says `close()` gives back at once what it holds.

Watch the list of charges.  No message was published twice, and no consumer has made a mistake.

It prints:

    ann charges order 1, attempt 1
    ready: 0
    bob charges order 1, attempt 2
    charges: order 1, order 1

Next: 05_at_least_once_fixed.py
"""

import nsqlite
from nsqlite.testing import FakeBroker

broker = FakeBroker()
orders = broker.topic("orders")
billing = orders.channel("billing")
ann = nsqlite.Consumer(billing, name="ann")
bob = nsqlite.Consumer(billing, name="bob")
charges: list[str] = []  # what customers have paid


def charge(message: nsqlite.Message[str], who: str) -> None:
    """Take the money for an order."""
    print(f"{who} charges {message.body}, attempt {message.attempts}")
    charges.append(message.body)


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
