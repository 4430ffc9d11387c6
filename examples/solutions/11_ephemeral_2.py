"""The archive must be deleted: an ephemeral topic goes with its last channel, and not before.

It prints:

    channels: archive
    topics: readings#ephemeral
    topics: none
"""

import nsqlite
from nsqlite.testing import FakeBroker

broker = FakeBroker()
readings = broker.topic("readings#ephemeral")
archive = readings.channel("archive")
live = readings.channel("live#ephemeral")
ann = nsqlite.Consumer(live, name="ann")
bob = nsqlite.Consumer(live, name="bob")

# Both consumers close, so their channel goes.  The archive stays, and the topic with it.
ann.close()
bob.close()
print("channels:", ", ".join(readings.channels))
print("topics:", ", ".join(broker.topics))

# A channel that is not ephemeral goes only when somebody deletes it.  It was the last one.
archive.delete()
print("topics:", ", ".join(broker.topics) or "none")
