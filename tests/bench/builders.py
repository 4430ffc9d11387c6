"""The work of those who build on the core: messages by id, and a callback when one is ready.

The rule: what is measured does what the first row or that of batches does, in these words.

Next: stores.py
"""

from typing import Any

from loops import BATCH, BODY, topic_with
from timing import Loop


def _opened() -> tuple[Any, Any]:
    topic, [consumer] = topic_with()
    return topic, consumer


def one_by_id() -> Loop:
    """Put one, take it, finish it by its id."""
    topic, consumer = _opened()

    def loop(rounds: int) -> None:
        for _ in range(rounds):
            topic.put(BODY)
            [message] = consumer.take(1)
            consumer.fin_ids([message.id])

    return loop


def nothing_to_take() -> Loop:
    """Take where there is nothing."""
    _, consumer = _opened()

    def loop(rounds: int) -> None:
        for _ in range(rounds):
            consumer.take(1)

    return loop


def in_batches() -> Loop:
    """Publish, take and finish in batches; a round is one message."""
    topic, consumer = _opened()
    bodies = [BODY] * BATCH

    def loop(rounds: int) -> None:
        for _ in range(rounds // BATCH):
            topic.publish(bodies)
            consumer.fin_ids([message.id for message in consumer.take(BATCH)])

    return loop


def called_back() -> Loop:
    """Ask to be called, put one, and when called take it and finish it."""
    topic, consumer = _opened()

    def called() -> None:
        for message in consumer.take(1):
            consumer.fin(message)

    def loop(rounds: int) -> None:
        for _ in range(rounds):
            consumer.when_ready(called)
            topic.put(BODY)

    return loop
