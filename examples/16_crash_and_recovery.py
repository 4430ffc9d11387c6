"""Crash and recovery: a file survives kill -9.

With `store=nsqlite.SQLite(path)` a broker keeps its messages in one file.  A message is in it when
`put` returns; that it was finished is written a little later, at the latest with `flush`.

Watch the program that is killed while it publishes.  No order is lost whose `put` has returned, and
the one that was in flight comes again, its attempts counted.

It prints:

    the program was killed by signal 9
    acknowledged orders that are lost: 0
    the first that comes is order 2, attempt 2

Try it:

1. Kill it before it flushes.  Which order may come again though it was finished?
2. Defer an order before the program is killed.  Is its delay over after the restart?

Next: 17_real_client.py
"""

import subprocess
import sys
import tempfile

import nsqlite

PROGRAM = """
import itertools, sys, nsqlite

broker = nsqlite.Broker(store=nsqlite.SQLite(sys.argv[1]))
orders = broker.topic("orders")
billing = nsqlite.Consumer(orders.channel("billing"))
orders.put_many([b"order 1", b"order 2"])
billing.get_many(2)[0].fin()  # and never finish the other
broker.flush()
for number in itertools.count(3):
    id = orders.put(b"order %d" % number)
    print(id, flush=True)  # acknowledged: it is in the file
"""

# The program runs in a process of its own, and publishes until it is killed.
directory = tempfile.TemporaryDirectory()
path = f"{directory.name}/orders.db"
command = [sys.executable, "-c", PROGRAM, path]
process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)  # noqa: S603 - our own
assert process.stdout

# Ten ids have come from it when it is killed, in the middle of what it does.
acknowledged = {process.stdout.readline().strip() for _ in range(10)}
process.kill()
acknowledged |= {line.strip() for line in process.stdout}
process.communicate()
print("the program was killed by signal", -process.returncode)

# Another broker opens the file.  Which orders has it lost?
broker = nsqlite.Broker(store=nsqlite.SQLite(path))
orders = broker.topic("orders")
billing = nsqlite.Consumer(orders.channel("billing"), name="billing")
kept: dict[str, nsqlite.Message[bytes]] = {}
while billing.channel.depth:
    kept |= {message.id: message for message in billing.get_many(1000)}
print("acknowledged orders that are lost:", len(acknowledged - set(kept)))

# Order 1 was finished, order 2 was in flight.  Which one comes first, and as which attempt?
first = kept[min(kept)]
order = first.body.decode()
print(f"the first that comes is {order}, attempt {first.attempts}")
broker.close()
directory.cleanup()
