"""A new channel of the same name is a new one: it gets only what is published from then on.

It prints:

    live gets reading 3
"""

import nsqlite
from nsqlite.testing import FakeBroker

broker = FakeBroker()
readings = broker.topic("readings")
readings.channel("archive")

# Somebody looks on, and leaves.
first = nsqlite.Consumer(readings.channel("live#ephemeral"), name="ann")
readings.put("reading 1")
first.get().fin()
first.close()

# Nobody looks on when this is published.
readings.put("reading 2")

# Now somebody does again.
second = nsqlite.Consumer(readings.channel("live#ephemeral"), name="bob")
readings.put("reading 3")
came = [message.body for message in second.get_many(10)]
print("live gets", ", ".join(came))
