"""Pause and empty: hold messages back, or drop them.

A paused channel takes messages but delivers none.  A paused topic holds what is published and gives
none of it to its channels.  `empty` drops what a channel has, what is in flight included.

Watch where the messages are: held by the topic, ready in the channel, in flight, or gone.

It prints:

    channel paused     topic 0, ready 1, in flight 0
        so there is nothing to get
    channel unpaused   topic 0, ready 0, in flight 1
    topic paused       topic 2, ready 0, in flight 1
    topic unpaused     topic 0, ready 2, in flight 1
    channel emptied    topic 0, ready 0, in flight 0
        so order 1 was dropped, its fin would raise NotInFlight

Next: 08_bounded_channels.py
"""

import nsqlite


def main() -> None:
    """Pause the channel, pause the topic, and empty the channel."""
    topic: nsqlite.Topic[str] = nsqlite.Topic("orders")
    channel = topic.channel("billing")
    consumer = nsqlite.Consumer(channel)

    def show(what: str) -> None:
        counts = f"ready {channel.depth}, in flight {channel.in_flight_count}"
        print(f"{what:<18} topic {topic.depth}, {counts}")

    channel.pause()
    topic.put("order 1")
    show("channel paused")
    try:
        consumer.get(timeout=0)
    except nsqlite.Empty:
        print("    so there is nothing to get")
    channel.unpause()
    message = consumer.get()
    show("channel unpaused")

    topic.pause()
    topic.put_many(["order 2", "order 3"])
    show("topic paused")
    topic.unpause()
    show("topic unpaused")

    channel.empty()
    show("channel emptied")
    print(f"    so {message.body} was {message.state}, its fin would raise NotInFlight")


if __name__ == "__main__":
    main()
