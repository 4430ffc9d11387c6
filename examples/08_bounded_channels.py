"""Bounded channels: what `put` does when a channel is full.

`max_depth` is how many messages may be ready in a channel, and `when_full` says what happens beyond
that.  Without a bound a channel takes whatever comes.

Watch who pays when the consumer is too slow.  With "raise" the publisher gets the error `Full`,
with "drop oldest" the oldest messages are lost, with "wait" the publisher waits for room.

It prints:

    raise: refused [3, 4, 5], dropped 0, consumed [1, 2]
    drop oldest: refused [], dropped 3, consumed [4, 5]
    wait: refused [], dropped 0, consumed [1, 2, 3, 4, 5]

Next: 09_threads.py
"""

import threading
from typing import Literal

import nsqlite


def publish(topic: nsqlite.Topic[int], refused: list[int]) -> None:
    """Publish 1 to 5, then close the topic behind them."""
    for number in range(1, 6):
        try:
            topic.put(number)
        except nsqlite.Full:
            refused.append(number)
    topic.close(drain=True)


def show(when_full: Literal["raise", "drop oldest", "wait"]) -> None:
    """Publish to a channel that takes two messages; consume what came through."""
    topic: nsqlite.Topic[int] = nsqlite.Topic("numbers")
    channel = topic.channel("all", max_depth=2, when_full=when_full)
    refused: list[int] = []
    publisher = threading.Thread(target=publish, args=(topic, refused))
    publisher.start()
    if when_full != "wait":
        publisher.join()  # so that nothing is consumed meanwhile
    consumed = []
    for message in nsqlite.Consumer(channel):
        with message:
            consumed.append(message.body)
    dropped = channel.stats().dropped_count
    print(f"{when_full}: refused {refused}, dropped {dropped}, consumed {consumed}")


def main() -> None:
    """Show three of the policies."""
    show("raise")
    show("drop oldest")
    show("wait")


if __name__ == "__main__":
    main()
