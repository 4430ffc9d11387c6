"""It fails again as often as before, and is a dead letter again: there is one, as before.

It prints:

    dead letters: 1
    put back: 1, dead letters: 0
    dead letters: 1
"""

import logging

import nsqlite
from nsqlite.testing import FakeBroker

logging.getLogger("nsqlite").setLevel(logging.CRITICAL)  # meant to fail
broker = FakeBroker()
orders, dead = broker.topic("orders"), broker.topic("orders.dead")
kitchen, letters = orders.channel("kitchen"), dead.channel("letters")


def cook(message: nsqlite.Message[str]) -> None:
    """Fail, whatever comes."""
    raise ValueError(f"{message.body} is no food")


retry = nsqlite.Retry(max_attempts=3)
worker = nsqlite.Worker(kitchen, cook, retry=retry, dead_letter=dead)
worker.start()
orders.put("soap")
broker.run_until_idle()
print("dead letters:", letters.depth)

# Nothing was mended.
count = nsqlite.redrive(letters, broker)
print(f"put back: {count}, dead letters: {letters.depth}")
broker.run_until_idle()
print("dead letters:", letters.depth)
worker.stop()
