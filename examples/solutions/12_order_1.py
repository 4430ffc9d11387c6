"""If nothing fails the messages come as they were put, and both ways agree.

It prints:

    came: 1, 2, 3
    last one wins: version 3
    highest number wins: version 3
"""

import nsqlite
from nsqlite.testing import FakeBroker

broker = FakeBroker()
prices = broker.topic("prices")
ann = nsqlite.Consumer(prices.channel("shop"), name="ann")
prices.put_many([1, 2, 3])

# Nothing is requeued, times out or is deferred.
messages = ann.get_many(3)
came = [message.body for message in messages]
ann.fin_many(messages)
print("came:", ", ".join(map(str, came)))
print("last one wins: version", came[-1])
print("highest number wins: version", max(came))
