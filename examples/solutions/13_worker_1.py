"""By default it is given up after its fifth attempt: here 1 + 2 + 4 + 8 s after the first one.

It prints:

    15 s later, attempts: 5
    left in the channel: 0
"""

import logging

import nsqlite
from nsqlite.testing import FakeBroker

logging.getLogger("nsqlite").setLevel(logging.CRITICAL)  # meant to fail
broker = FakeBroker()
orders = broker.topic("orders")
kitchen = orders.channel("kitchen")
attempts: list[int] = []


def cook(message: nsqlite.Message[str]) -> None:
    """Fail, whatever comes."""
    attempts.append(message.attempts)
    raise LookupError("the kitchen is closed")


# Time flies until it is given up.
retry = nsqlite.Retry(delay=1, factor=2, jitter=False)
with nsqlite.Worker(kitchen, cook, retry=retry):
    orders.put("flour")
    seconds = broker.run_until_idle()
print(f"{seconds:g} s later, attempts: {attempts[-1]}")
print("left in the channel:", kitchen.depth)
