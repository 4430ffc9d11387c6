"""It is finished once and requeued once; the channel counts it as one message.

It prints:

    attempt 1: failed
    attempt 2: twice that is 14
    messages 1, requeued 1, finished 1
"""

import nsqlite
from nsqlite.testing import FakeBroker

broker = FakeBroker()
numbers = broker.topic("numbers")
doubles = numbers.channel("doubles")
ann = nsqlite.Consumer(doubles, name="ann")
known: dict[str, int] = {}
numbers.put("seven")

# Nobody has told Ann yet what "seven" is.
message = ann.get()
if message.body not in known:
    print("attempt 1: failed")
    message.req()

# Now she knows.
known["seven"] = 7
with ann.get() as message:
    twice = 2 * known[message.body]
    print(f"attempt {message.attempts}: twice that is {twice}")

# What the statistics say of it.
stats = doubles.stats()
count, requeued = stats.message_count, stats.requeue_count
finished = stats.clients[0].finish_count
print(f"messages {count}, requeued {requeued}, finished {finished}")
