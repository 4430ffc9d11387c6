"""A worker: give it a handler, and it does the rest.

A handler that returns finishes its message.  One that raises has it requeued, with a delay that
grows with each attempt.  In a program a worker has threads or tasks; on this broker it calls its
handler when it is asked to: `drain` for what is there, `run_until_idle` for all that will come.

Watch "flour", which fails at its first two attempts.  Nobody waits for it.

It prints:

    handled 3
    run until idle: 3 s later
    milk 1, flour 1, butter 1, flour 2, flour 3

Try it:

1. Have the handler raise for ever.  After how many attempts is the message given up, and when?
2. Let "flour" fail with an error that no retry can mend.  How does a worker give up at once?

Next: 14_dead_letters.py
"""

import logging

import nsqlite
from nsqlite.testing import FakeBroker

logging.getLogger("nsqlite").setLevel(logging.CRITICAL)  # meant to fail
broker = FakeBroker()
orders = broker.topic("orders")
kitchen = orders.channel("kitchen")
calls: list[str] = []


def cook(message: nsqlite.Message[str]) -> None:
    """Use an ingredient, or fail."""
    calls.append(f"{message.body} {message.attempts}")
    if message.body == "flour" and message.attempts < 3:
        raise LookupError("no flour left")


# Three messages for a worker that tries again after 1 s, 2 s, 4 s and so on.
retry = nsqlite.Retry(delay=1, factor=2, jitter=False)
worker = nsqlite.Worker(kitchen, cook, retry=retry, name="cook")
worker.start()
orders.put_many(["milk", "flour", "butter"])

# It handles what is there.  Flour fails.  Does butter have to wait for it?
print("handled", worker.drain())

# Now time flies until nothing is left to do.  How many seconds is that?
print(f"run until idle: {broker.run_until_idle():g} s later")

# So often, and in this order, the handler was called.
print(", ".join(calls))
worker.stop()
