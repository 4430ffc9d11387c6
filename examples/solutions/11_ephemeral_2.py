"""An ephemeral topic goes with its last channel, and that goes by itself with its last consumer.

It prints:

    topics: readings#ephemeral
    topics: none
"""

import nsqlite
from nsqlite.testing import FakeBroker

broker = FakeBroker()
readings = broker.topic("readings#ephemeral")
ann = nsqlite.Consumer(readings.channel("live#ephemeral"), name="ann")
print("topics:", ", ".join(broker.topics))

# The consumer closes, so the channel goes, and so the topic.
ann.close()
print("topics:", ", ".join(broker.topics) or "none")
