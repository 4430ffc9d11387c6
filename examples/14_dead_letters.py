"""Dead letters: what is given up is kept.

After `max_attempts` a worker gives a message up.  With `dead_letter=` it then goes to another
topic, as a `DeadLetter` that tells where it came from, how often it was tried, and what was raised.

Watch "soap".  It is moved in one piece: at no moment it is in both topics, or in none.  When the
cause is mended, `redrive` puts it back into the channel where it failed.

It prints:

    cooked: milk
    soap failed in orders:kitchen, attempts 3: soap is no food
    put back: 1
    cooked: milk, soap

Try it:

1. Leave `dead_letter` out.  What becomes of soap after its last attempt?
2. Redrive before the cause is mended.  How many dead letters are there then?

Next: 15_back_pressure.py
"""

import logging

import nsqlite
from nsqlite.testing import FakeBroker

logging.getLogger("nsqlite").setLevel(logging.CRITICAL)  # meant to fail
broker = FakeBroker()
orders, dead = broker.topic("orders"), broker.topic("orders.dead")
kitchen, letters = orders.channel("kitchen"), dead.channel("letters")
food = {"milk", "butter"}
cooked: list[str] = []


def cook(message: nsqlite.Message[str]) -> None:
    """Use an ingredient, if it is food."""
    if message.body not in food:
        raise ValueError(f"{message.body} is no food")
    cooked.append(message.body)


# A worker that tries three times, and a message that will never succeed.
retry = nsqlite.Retry(max_attempts=3, jitter=False)
worker = nsqlite.Worker(kitchen, cook, retry=retry, dead_letter=dead)
worker.start()
orders.put_many(["milk", "soap"])

# The worker has all the time it wants.  Where is soap in the end?
broker.run_until_idle()
print("cooked:", ", ".join(cooked))

# It is a dead letter.  What does that tell?
letter = letters.peek()[0].body
where = f"{letter.topic}:{letter.channel}, attempts {letter.attempts}"
print(f"{letter.body} failed in {where}: {letter.error}")

# The cause is mended: in this kitchen soap is food from now on.  And soap is put back.
food.add("soap")
print("put back:", nsqlite.redrive(letters, broker))

# The worker gets it again, as a new message.
broker.run_until_idle()
print("cooked:", ", ".join(cooked))
worker.stop()
