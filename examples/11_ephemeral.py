"""Ephemeral: a channel goes with its last consumer.

A channel whose name ends with #ephemeral goes with its last consumer.  It is for who looks on for a
while: a dashboard, a tail of a log.  When nobody looks any more, no messages pile up.  A topic of
such a name goes with its last channel.

Watch the last consumer close.  The channel and all that it held are gone, and that is meant; it is
logged, since nsqlite drops nothing silently.

It prints:

    ann sees reading 1
    channels: archive, live#ephemeral
    channels: archive
    archive still has 2 readings

Try it:

1. Create the channel again.  Does it get what was published while there was none?
2. Make the topic ephemeral, "readings#ephemeral".  What must happen until it is gone?

Next: 12_order.py
"""

import logging

import nsqlite
from nsqlite.testing import FakeBroker

logging.getLogger("nsqlite").setLevel(logging.ERROR)  # the loss is meant
broker = FakeBroker()
readings = broker.topic("readings")
archive = readings.channel("archive")
live = readings.channel("live#ephemeral")
ann = nsqlite.Consumer(live, name="ann")
bob = nsqlite.Consumer(live, name="bob")

# Both channels get what is published, and Ann looks at the first reading.
readings.put_many(["reading 1", "reading 2"])
with ann.get() as message:
    print("ann sees", message.body)

# Ann leaves.  Does the channel go?
ann.close()
print("channels:", ", ".join(sorted(readings.channels)))

# Bob, the last one, leaves too.  What becomes of reading 2?
bob.close()
print("channels:", ", ".join(sorted(readings.channels)))

# The archive is not ephemeral.  It has no consumer, and never had one, and keeps everything.
print("archive still has", archive.depth, "readings")
