"""Publish messages and consume them.

A topic takes messages, a channel keeps them, a consumer gets them.  A message that was delivered is
in flight until its consumer finishes it.

Watch the two counts: `get` moves a message from the depth to those in flight, and only `fin` makes
the channel forget it.  A `with` block does that by itself.

It prints:

    two published    depth 2, in flight 0
    got b'order 1'   depth 1, in flight 1
    finished it      depth 1, in flight 0
    got b'order 2'   depth 0, in flight 1
    left the block   depth 0, in flight 0

Next: 02_fan_out.py
"""

import nsqlite


def show(what: str, channel: nsqlite.Channel[bytes]) -> None:
    """Print what was done and where the channel's messages are now."""
    print(f"{what:<16} depth {channel.depth}, in flight {channel.in_flight_count}")


def main() -> None:
    """Consume two messages, one step at a time."""
    topic: nsqlite.Topic[bytes] = nsqlite.Topic("orders")
    channel = topic.channel("billing")
    consumer = nsqlite.Consumer(channel)

    topic.put(b"order 1")
    topic.put(b"order 2")
    show("two published", channel)

    message = consumer.get()
    show(f"got {message.body!r}", channel)
    message.fin()
    show("finished it", channel)

    with consumer.get() as message:
        show(f"got {message.body!r}", channel)
    show("left the block", channel)


if __name__ == "__main__":
    main()
