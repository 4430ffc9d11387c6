"""If Ann dies before her work, Bob does it: at least once holds here, too.

It prints:

    bob charges order 1, attempt 2
    charges: order 1
"""

import nsqlite
from nsqlite.testing import FakeBroker

broker = FakeBroker()
orders = broker.topic("orders")
billing = orders.channel("billing")
ann = nsqlite.Consumer(billing, name="ann")
bob = nsqlite.Consumer(billing, name="bob")
charges: list[str] = []
done: set[str] = set()
orders.put("order 1")

# Ann gets the order and dies before she has charged anybody; it waits for its time-out.
ann.get()
ann.close(give_back=False)
broker.clock.advance(60)

# Its id is not among those that are done, so Bob charges.
message = bob.get()
if message.id not in done:
    charges.append(message.body)
    done.add(message.id)
    print(f"bob charges {message.body}, attempt {message.attempts}")
message.fin()
print("charges:", ", ".join(charges))
