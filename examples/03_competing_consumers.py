"""Competing consumers: a channel gives each of its messages to one of its consumers.

`max_in_flight` is how many messages a consumer may hold unanswered.  With 1 it gets the next one
only when it has answered the last, so a slow consumer leaves the work to the others.

Watch order 2.  Its consumer closes without an answer, so the message goes back to the head of the
queue and another consumer gets it, as its second attempt.

It prints:

    quick gets order 1, attempt 1
    slow  gets order 2, attempt 1
    slow  gets nothing, for it holds order 2
    quick gets order 3, attempt 1
    slow  closes
    quick gets order 2, attempt 2
    quick gets order 4, attempt 1

Next: 04_requeue_and_attempts.py
"""

import nsqlite


def get(name: str, consumer: nsqlite.Consumer[str]) -> nsqlite.Message[str]:
    """Get the next message and print who got it."""
    message = consumer.get()
    print(f"{name:<5} gets {message.body}, attempt {message.attempts}")
    return message


def main() -> None:
    """Let two consumers share four messages."""
    topic: nsqlite.Topic[str] = nsqlite.Topic("orders")
    channel = topic.channel("billing")
    quick = nsqlite.Consumer(channel, max_in_flight=1)
    slow = nsqlite.Consumer(channel, max_in_flight=1)
    topic.put_many(["order 1", "order 2", "order 3", "order 4"])

    message = get("quick", quick)
    held = get("slow", slow)
    try:
        slow.get(timeout=0)
    except nsqlite.WindowFull:
        print(f"slow  gets nothing, for it holds {held.body}")
    message.fin()
    get("quick", quick).fin()
    slow.close()
    print("slow  closes")
    while channel.depth:
        get("quick", quick).fin()


if __name__ == "__main__":
    main()
