"""`give_up_on` names errors that no second attempt can mend; a handler may also raise `GiveUp`.

It prints:

    attempts 1, left in the channel: 0
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
    """Fail in a way that will not change."""
    attempts.append(message.attempts)
    raise ValueError(f"{message.body} is no food")


# One attempt is enough.
retry = nsqlite.Retry(give_up_on=ValueError)
with nsqlite.Worker(kitchen, cook, retry=retry):
    orders.put("soap")
    broker.run_until_idle()
print(f"attempts {len(attempts)}, left in the channel: {kitchen.depth}")
