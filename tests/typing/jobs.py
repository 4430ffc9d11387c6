"""Workers with plain handlers: what these decide, middleware, dead letters."""

import logging
import time
from datetime import timedelta
from functools import wraps
from typing import Any, assert_type

import nsqlite
from nsqlite import Backoff, DeadLetter, Drop, Message, Requeue, Retry, TakeOver, Worker
from nsqlite.worker import Handler, Middleware, Outcome, logged, timed


def resize(message: Message[str]) -> None:
    """Return: finished; raise: requeued."""
    if message.body == "broken.png":
        raise ValueError(message.body)


def decide(message: Message[str]) -> Outcome | None:
    """Return or raise a decision."""
    if message.body == "later.png":
        return Requeue(delay=5, backoff=False)
    if message.body == "other.png":
        return TakeOver()
    if message.attempts > 1:
        raise Drop("seen already")
    return None


def wait(message: Message[str], error: BaseException) -> float | None:
    """Say when to try again."""
    return None if isinstance(error, OSError) else 1.0 * message.attempts


def wait_longer(message: Message[str], error: BaseException) -> nsqlite.Seconds | None:
    """Say it with a span of time."""
    return None if isinstance(error, OSError) else timedelta(minutes=message.attempts)


class Resizer:
    """A handler with a state."""

    def __init__(self) -> None:
        """Begin at nothing."""
        self.count = 0

    def __call__(self, message: Message[str]) -> int:
        """Count."""
        self.count += len(message.body) > 0
        return self.count


def retried(times: int) -> Middleware:
    """Try a plain handler several times before it fails."""

    def around(handler: Handler) -> Handler:
        @wraps(handler)
        def handle(message: Message[Any]) -> object:
            for _ in range(times - 1):
                try:
                    return handler(message)
                except ValueError:
                    message.touch()
            return handler(message)

        return handle

    return around


def give_up(message: Message[str], error: BaseException | None) -> None:
    """Tell what was given up."""
    logging.getLogger("jobs").debug("%s: %r", message.body, error)


def report(message: Message[Any], seconds: float) -> None:
    """Tell what took long."""
    if seconds > 1:
        logging.getLogger("jobs").warning("%s took %.1f s", message.id, seconds)


def is_image(letter: DeadLetter) -> bool:
    """Choose what to try again."""
    return str(letter.body).endswith(".png")


def main() -> None:
    """Work on jobs until there are none."""
    logging.disable()  # it fails on purpose
    broker = nsqlite.Broker()
    jobs, dead = broker.topic("jobs"), broker.topic("jobs.dead")
    channel, letters = jobs.channel("resize"), dead.channel("letters")
    resizer = Resizer()
    jobs.put_many(["a.png", "broken.png"])
    worker = Worker(
        channel,
        resize,
        concurrency=2,
        retry=Retry(max_attempts=1, give_up_on=OSError, backoff=Backoff()),
        dead_letter="jobs.dead",
        on_give_up=give_up,
        middleware=[logged(logging.getLogger("jobs"), logging.DEBUG), timed(report), retried(2)],
    )
    with worker as entered:
        assert_type(entered, Worker)
        assert_type(worker.join(timeout=10), bool)
    assert_type(worker.running, bool)
    assert_type(nsqlite.redrive(letters, broker, where=is_image, rate=100), int)
    with Worker(channel, resizer, retry=Retry(delay=wait)) as second:
        second.join()
    assert resizer.count == 1
    with Worker(channel, decide, retry=Retry.nsq(backoff=None)):
        time.monotonic()
    minute = timedelta(minutes=1)
    backoff = Backoff(max_duration=minute)
    assert_type(backoff.max_duration, float)
    retry = Retry(delay=wait_longer, max_delay=minute, backoff=backoff)
    third = Worker(channel, decide, retry=retry, time_limit=minute)
    third.stop(minute)
    assert_type(Requeue(minute).delay, float | None)
    app = nsqlite.App(timeout=minute)
    app.handler("jobs", "resize", time_limit=minute)(resize)
    broker.close()


def mistakes(channel: nsqlite.Channel[str]) -> None:
    """What a type checker is to refuse; never called."""

    def no_message() -> None: ...

    def two(message: Message[str], more: int) -> None: ...

    def measure(message: Message[bytes]) -> None: ...

    app = nsqlite.App()
    app.handler("jobs", "resize", concurrency=2, retry=Retry(), time_limit=5.0, name="resizer")
    app.handler("jobs", "resize", concurrency="4")  # error: arg-type, reportArgumentType
    app.handler("jobs", "resize", dead_letter=4)  # error: arg-type, reportArgumentType
    app.handler("jobs", "resize", concurency=4)  # error: call-arg, reportCallIssue
    Worker(channel, measure)  # error: arg-type, reportArgumentType
    Worker(channel, no_message)  # error: arg-type, reportArgumentType
    Worker(channel, two)  # error: arg-type, reportArgumentType
    Worker(channel, resize, concurency=4)  # error: arg-type, reportArgumentType
    Worker(channel, resize, concurrency="4")  # error: arg-type, reportArgumentType
    Worker(channel, resize, dead_letter=channel)  # error: arg-type, reportArgumentType
    Worker(channel, resize, retry=5)  # error: arg-type, reportArgumentType
    Worker(channel, resize, middleware=logged)  # error: arg-type, reportArgumentType
    Retry(delay="1 s")  # error: arg-type, reportArgumentType
    Retry(max_delay="1 s")  # error: arg-type, reportArgumentType
    Backoff(multiplier="1 s")  # error: arg-type, reportArgumentType
    Requeue(backoff=5)  # error: arg-type, reportArgumentType
    Requeue(5, False)  # error: call-arg, reportCallIssue
    nsqlite.redrive(channel, "jobs")  # error: arg-type, reportArgumentType
    nsqlite.redrive(channel)  # error: call-arg, reportCallIssue
    with Worker(channel, resize) as worker:
        worker.jion()  # error: attr-defined, reportAttributeAccessIssue


if __name__ == "__main__":
    main()
