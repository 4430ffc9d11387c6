"""Durable: what is in the file survives a `kill -9`.

With `store=nsqlite.SQLite(path)` a broker keeps its messages in one file.  A message is in it when
`put` returns; that it was finished is written a little later, at the latest with `flush`.

Watch the child, which prints each id that `put` returns and is killed in the middle of that.  No
acknowledged order is lost, and the one that was in flight comes again, its attempts counted.

It prints:

    the child was killed by signal 9
    acknowledged orders that are lost: 0
    the first that comes is order 2, attempt 2

Next: 13_web_app.py
"""

import itertools
import subprocess
import sys
import tempfile

import nsqlite


def child(path: str) -> None:
    """Begin with two orders, finish one, and publish until the end."""
    broker = nsqlite.Broker(store=nsqlite.SQLite(path))
    topic = broker.topic("orders")
    billing = nsqlite.Consumer(topic.channel("billing"))
    topic.put_many([b"order 1", b"order 2"])
    billing.get_many(2)[0].fin()  # and never finish the other
    broker.flush()
    for number in itertools.count(3):
        print(topic.put(b"order %d" % number), flush=True)


def main(path: str) -> None:
    """Kill the child, and look at what it leaves."""
    command, acknowledged = [sys.executable, __file__, path], set()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603
        for line in process.stdout or ():
            acknowledged.add(line.strip())
            if len(acknowledged) == 100:
                process.kill()
    print(f"the child was killed by signal {-process.returncode}")
    with nsqlite.Broker(store=nsqlite.SQLite(path)) as broker:
        billing = nsqlite.Consumer(broker.topic("orders").channel("billing"))
        kept = {message.id: message for message in billing.get_many(10_000)}
    print(f"acknowledged orders that are lost: {len(acknowledged - set(kept))}")
    first = kept[min(kept)]  # order 1 is finished
    print(f"the first that comes is {first.body.decode()}, attempt {first.attempts}")


if __name__ == "__main__" and sys.argv[1:]:
    child(sys.argv[1])
elif __name__ == "__main__":
    with tempfile.TemporaryDirectory() as directory:
        main(f"{directory}/orders.db")
