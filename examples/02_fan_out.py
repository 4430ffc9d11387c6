"""Fan out: the topic gives each message to every channel it has.

Channels are independent: what one of them has finished, the others still have.

Watch when each channel is created.  A topic without channels holds what is published, and its first
channel gets that.  A later channel gets only what is published after its creation.

It prints:

    billing gets order 1, order 2, order 3, order 4
    audit gets order 2, order 3, order 4
    latecomer gets order 4

Next: 03_competing_consumers.py
"""

import nsqlite


def consume(channel: nsqlite.Channel[str]) -> None:
    """Get and finish all that is ready in a channel."""
    consumer = nsqlite.Consumer(channel)
    messages = consumer.get_many(100)
    print(channel.name, "gets", ", ".join(message.body for message in messages))
    consumer.fin_many(messages)


def main() -> None:
    """Publish four messages while channels come."""
    topic: nsqlite.Topic[str] = nsqlite.Topic("orders")
    topic.put("order 1")  # no channel yet: the topic holds it
    billing = topic.channel("billing")
    audit = topic.channel("audit")
    topic.put("order 2")
    topic.put("order 3")
    latecomer = topic.channel("latecomer")
    topic.put("order 4")

    for channel in billing, audit, latecomer:
        consume(channel)


if __name__ == "__main__":
    main()
