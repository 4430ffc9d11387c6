"""A worker: give it a handler, and it does the rest.

A handler that returns finishes its message.  One that raises has it requeued, with a delay that
grows; after `max_attempts` the message is given up, and goes to the dead letters if there are any.

Watch "flour" and "soap".  The first fails once and is handled at its second attempt, while the
others go on.  The second fails for ever; its dead letter tells where it came from and why.

It prints:

    4 messages took 7 attempts
    soap is given up after 3 attempts in orders:kitchen: soap is no food

Next: 12_survive_kill.py
"""

import logging
import threading

import nsqlite

FAILURES = {"flour": 1, "soap": 9}
lock = threading.Lock()
attempts: list[str] = []


def cook(message: nsqlite.Message[str]) -> None:
    """Use an ingredient, or fail."""
    with lock:  # two threads call this
        attempts.append(message.body)
    if message.attempts <= FAILURES.get(message.body, 0):
        raise ValueError(f"{message.body} is no food")


def main() -> None:
    """Let two threads handle four messages."""
    topic: nsqlite.Topic[str] = nsqlite.Topic("orders")
    dead: nsqlite.Topic[nsqlite.DeadLetter] = nsqlite.Topic("orders.dead")
    worker = nsqlite.Worker(
        topic.channel("kitchen"),
        cook,
        concurrency=2,
        retry=nsqlite.Retry(max_attempts=3, delay=0.01),
        dead_letter=dead,
    )
    topic.put_many(["milk", "flour", "soap", "butter"])
    logging.getLogger("nsqlite").setLevel(logging.CRITICAL)  # the failures are meant
    with worker:
        worker.join()
    print(f"{len(set(attempts))} messages took {len(attempts)} attempts")
    soap = nsqlite.Consumer(dead.channel("letters")).get(timeout=0).body
    where = f"{soap.topic}:{soap.channel}"
    print(f"{soap.body} is given up after {soap.attempts} attempts in {where}: {soap.error}")


if __name__ == "__main__":
    main()
