"""Without dead letters it is finished, and a line in the log is all that is left of it.

It prints:

    left in the channel: 0
    given up, says the log: True
"""

import io
import logging

import nsqlite
from nsqlite.testing import FakeBroker

log = logging.getLogger("nsqlite")
said = io.StringIO()
log.addHandler(logging.StreamHandler(said))
broker = FakeBroker()
orders = broker.topic("orders")
kitchen = orders.channel("kitchen")


def cook(message: nsqlite.Message[str]) -> None:
    """Fail, whatever comes."""
    raise ValueError(f"{message.body} is no food")


# Three attempts, and no topic for dead letters.
with nsqlite.Worker(kitchen, cook, retry=nsqlite.Retry(max_attempts=3)):
    orders.put("soap")
    broker.run_until_idle()
print("left in the channel:", kitchen.depth)
print("given up, says the log:", "given up" in said.getvalue())
