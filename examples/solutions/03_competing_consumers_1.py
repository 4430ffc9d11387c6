"""With a window of 2 slow holds two orders; when it closes, both go back and come again.

It prints:

    slow holds order 2, order 3
    quick gets order 2, attempt 2
    quick gets order 3, attempt 2
"""

import nsqlite
from nsqlite.testing import FakeBroker

broker = FakeBroker()
orders = broker.topic("orders")
billing = orders.channel("billing")
quick = nsqlite.Consumer(billing, max_in_flight=1, name="quick")
slow = nsqlite.Consumer(billing, max_in_flight=2, name="slow")
orders.put_many(["order 1", "order 2", "order 3"])
first = quick.get()

# Slow may hold two.
held = slow.get_many(2)
print("slow holds", ", ".join(message.body for message in held))

# It closes, and they go back to the head of the queue, in their order.
first.fin()
slow.close()
for _ in held:
    with quick.get() as message:
        print(f"quick gets {message.body}, attempt {message.attempts}")
