"""Requeue: a message whose work fails is delivered again.

When the `with` block of a message raises, the message is requeued, and the exception goes on.
`attempts` counts the deliveries, the present one included.

Watch the message that can never succeed.  It goes to the end of the queue and would come again for
ever; so the consumer looks at the attempts, and finishes it without doing the work.

It prints:

    '7', attempt 1: twice that is 14
    'seven', attempt 1: failed, so it is requeued
    '8', attempt 1: twice that is 16
    'seven', attempt 2: failed, so it is requeued
    'seven', attempt 3: failed, so it is requeued
    'seven', attempt 4: given up
    3 finished, 3 requeued

Next: 05_timeout_broken.py
"""

import nsqlite

MAX_ATTEMPTS = 3


def work(message: nsqlite.Message[str]) -> str:
    """Double a number, or give up; return what came of it."""
    with message:
        if message.attempts > MAX_ATTEMPTS:
            return "given up"
        return f"twice that is {2 * int(message.body)}"


def main() -> None:
    """Double three numbers, one of which is none."""
    topic: nsqlite.Topic[str] = nsqlite.Topic("numbers")
    channel = topic.channel("doubles")
    consumer = nsqlite.Consumer(channel)
    topic.put_many(["7", "seven", "8"])

    while channel.depth:
        message = consumer.get()
        try:
            outcome = work(message)
        except ValueError:
            outcome = "failed, so it is requeued"
        print(f"{message.body!r}, attempt {message.attempts}: {outcome}")

    (stats,) = channel.stats().clients
    print(f"{stats.finish_count} finished, {stats.requeue_count} requeued")


if __name__ == "__main__":
    main()
