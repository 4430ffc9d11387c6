"""Back-pressure: who pays if consumers are too slow.

`max_depth` is how many messages may be ready in a channel, and `when_full` says what happens beyond
that.  Without a bound a channel takes whatever comes, until the memory is full.

Watch the third message.  With "raise" the publisher gets the error `Full`, with "drop oldest" the
oldest message is lost, with "wait" the publisher waits until there is room: that is back-pressure.
In NSQ no publisher waits or is refused: what is too much for the memory goes to disk.

It prints:

    raise: refused 3
    raise: consumed 1, 2
    drop-oldest: consumed 2, 3
    wait: consumed 1
    wait: consumed 2, 3

Try it:

1. Wait for room with a timeout of 5 s, and nobody consumes.  What does the publisher get, and when?
2. Bound one of two channels, with "raise".  Does the other one get what was refused?

Next: 16_crash_and_recovery.py
"""

import threading

import nsqlite
from nsqlite.testing import FakeBroker

broker = FakeBroker()
numbers = broker.topic("numbers")


def consume(channel: nsqlite.Channel[int]) -> None:
    """Get and finish what is ready, and print it."""
    consumer = nsqlite.Consumer(channel, name="ann")
    messages = consumer.get_many(10)
    bodies = [str(message.body) for message in messages]
    print(f"{channel.name}: consumed", ", ".join(bodies))
    consumer.fin_many(messages)


# A channel that takes two messages, and refuses a third one.
strict = numbers.channel("raise", max_depth=2, when_full="raise")
numbers.put_many([1, 2])
try:
    numbers.put(3)
except nsqlite.Full:
    print("raise: refused 3")

# Somebody consumes after all.  Is 3 among what comes?
consume(strict)
strict.delete()

# The next channel drops.  Which two of the three messages stay?
lossy = numbers.channel("drop-oldest", max_depth=2, when_full="drop oldest")
numbers.put_many([1, 2])
numbers.put(3)
consume(lossy)
lossy.delete()

# The last one makes the publisher wait.  It is full, and a thread publishes 3.
patient = numbers.channel("wait", max_depth=2, when_full="wait")
numbers.put_many([1, 2])
publisher = threading.Thread(target=numbers.put, args=[3])
publisher.start()

# A message is taken.  What does the thread do now?
ann = nsqlite.Consumer(patient, name="ann")
with ann.get() as message:
    print("wait: consumed", message.body)
publisher.join()
consume(patient)
