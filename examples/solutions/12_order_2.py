"""They are delivered in order, and done in another one: as soon as two work, order is chance.

It prints:

    delivered: 1, 2
    done: 2, 1
"""

import nsqlite
from nsqlite.testing import FakeBroker

broker = FakeBroker()
prices = broker.topic("prices")
shop = prices.channel("shop")
ann = nsqlite.Consumer(shop, name="ann")
bob = nsqlite.Consumer(shop, name="bob")
prices.put_many([1, 2])

# Each of them gets one.
first, second = ann.get(), bob.get()
print(f"delivered: {first.body}, {second.body}")

# Bob is quicker.
done: list[int] = []
for message in second, first:
    done.append(message.body)
    message.fin()
print("done:", ", ".join(map(str, done)))
