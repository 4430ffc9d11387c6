"""Order: it is not promised.

Messages come as they were put, until one of them has to come again.  A requeued message goes to the
end of the queue, a deferred one comes when it is due, and of two consumers one is quicker.  So
whoever needs an order must write it into the messages.

Watch the price.  The first consumer takes what comes last for the newest; the second one looks at
the number in the message, and lets nothing older replace what it has.

It prints:

    came: 1, 3, 2
    last one wins: version 2
    highest number wins: version 3

Try it:

1. Let nothing fail.  Do the two ways agree then?
2. Let two consumers take the messages, and the first one finish last.  In which order is it done?

Next: 13_worker.py
"""

import nsqlite
from nsqlite.testing import FakeBroker

broker = FakeBroker()
prices = broker.topic("prices")
shop = prices.channel("shop")
ann = nsqlite.Consumer(shop, name="ann")
came: list[int] = []

# The price of an article changes three times; each message has its version.
prices.put_many([1, 2, 3])

# Version 1 comes first.
with ann.get() as message:
    came.append(message.body)

# Version 2 fails, and is requeued.  Which version comes next?
ann.get().req()

# It went to the end of the queue: version 3 overtakes it.
with ann.get() as message:
    came.append(message.body)
with ann.get() as message:
    came.append(message.body)
print("came:", ", ".join(map(str, came)))

# What does the shop show, if the last message wins?  And if the highest version wins?
print("last one wins: version", came[-1])
print("highest number wins: version", max(came))
