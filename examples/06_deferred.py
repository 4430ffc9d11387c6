"""Deferred: a message is delivered later.

`put` with a delay publishes a message that becomes ready after so many seconds; `req` with a delay
does the same for one that is being worked on.

Watch the deferred count.  A deferred message is neither ready nor in flight, so the depth does not
count it and nobody gets it, until it is due.

It prints:

    0.0 s  depth 1, deferred 2
    0.0 s  got tea, attempt 1; not now, requeue it for 4 s later
    0.0 s  depth 0, deferred 3
    2.5 s  got milk, attempt 1
    4.0 s  got tea, attempt 2
    7.5 s  got sugar, attempt 1

Next: 07_pause_and_empty.py
"""

import nsqlite
from nsqlite.testing import ManualClock


def main() -> None:
    """Let a clock that is moved by hand jump from one due message to the next."""
    clock = ManualClock(start=0)
    topic: nsqlite.Topic[str] = nsqlite.Topic("orders", clock=clock)
    channel = topic.channel("kitchen")
    consumer = nsqlite.Consumer(channel)

    def say(text: str) -> None:
        print(f"{clock.time():.1f} s  {text}")

    topic.put("sugar", delay=7.5)
    topic.put("milk", delay=2.5)
    topic.put("tea")
    say(f"depth {channel.depth}, deferred {channel.deferred_count}")

    message = consumer.get()
    say(f"got {message.body}, attempt {message.attempts}; not now, requeue it for 4 s later")
    message.req(delay=4)
    say(f"depth {channel.depth}, deferred {channel.deferred_count}")

    while channel.deferred_count:
        clock.advance_to_next()
        with consumer.get() as message:
            say(f"got {message.body}, attempt {message.attempts}")


if __name__ == "__main__":
    main()
