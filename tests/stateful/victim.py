"""A program that works at random on a store's file until it is killed, and tells what it does.

    python victim.py FILE {"seed": 1, "store": {"sync": "normal"}, ...}

The rule: a line is written before every act, and another after it; so whoever reads them knows what
has happened, what may have happened, and that nothing else has.

    ["b", number, what, topic, channel, keys, delay, to, nanoseconds since the epoch]
    ["e", number, whether it went through, what it returned, nanoseconds since the epoch]
"""

import json
import logging
import os
import random
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from itertools import count
from typing import Any, Final

import nsqlite
from nsqlite.testing import FaultyStore

WORK: Final = "work"
LONELY: Final = "lonely"  # never has a channel
DEAD: Final = "dead"
SIDE: Final = "side"

DELAYS: Final = (None, None, None, None, 0.02, 50, 500)


def die(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class Alarm(logging.Handler):
    """Ends the process if an error is logged."""

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno >= logging.ERROR:
            tell("error", logging.Formatter().format(record)[-3000:])
            os._exit(1)


def tell(*line: Any) -> None:
    os.write(1, json.dumps(line).encode() + b"\n")


class Victim:
    """The broker, and what its threads do."""

    def __init__(self, path: str, orders: dict[str, Any]) -> None:
        self.orders = orders
        self.left = orders["acts"]
        self.numbers = count()
        self.keys = count(orders["first"])
        self.fuse = orders.get("fuse", 0)
        at_statement = orders.get("at") == "statement"
        store: Any = nsqlite.SQLite(path, **orders["store"])
        if self.fuse and not at_statement:
            store = FaultyStore(store, self.burn)
        self.broker = nsqlite.Broker(store=store, msg_timeout=orders["msg_timeout"])
        if at_statement:
            keeper: Any = self.broker._persistence
            keeper._storage._writer._connection.set_trace_callback(self.burn)

    def burn(self, point: str) -> None:
        """Die at the point, or the statement, whose turn it is."""
        if point.startswith(self.orders["at"]) or self.orders["at"] == "statement":
            self.fuse -= 1
            if not self.fuse:
                die()

    # Telling

    def act(
        self,
        call: Callable[[], Any],
        what: str,
        topic: str = "",
        channel: str = "",
        *,
        keys: list[str] | None = None,
        delay: float | None = None,
        to: str = "",
    ) -> Any:
        """Do something, and tell of it before and after; return what it returned."""
        number = next(self.numbers)
        tell("b", number, what, topic, channel, keys or [], delay, to, time.time_ns())
        try:
            result = call()
        except (nsqlite.NotInFlight, nsqlite.Closed, nsqlite.Empty):
            tell("e", number, False, None, time.time_ns())
            return None
        returned = result if isinstance(result, str | list | None) else None
        if what == "get":
            returned = [[m.body.decode(), m.id, m.attempts] for m in result]
        tell("e", number, True, returned, time.time_ns())
        return result

    def key(self) -> str:
        return f"k{next(self.keys)}"

    # Acting

    def begin(self) -> None:
        """Make what has to be there."""
        for topic, channel in ((WORK, "a"), (WORK, "b"), (DEAD, "x"), (DEAD, "y")):
            self.channel(topic, channel)
        for channel in ("p", "q"):
            self.channel(SIDE, channel)
        self.act(partial(self.broker.topic, LONELY), "topic", LONELY)

    def channel(self, topic: str, channel: str) -> None:
        self.act(lambda: self.broker.topic(topic).channel(channel), "channel", topic, channel)

    def produce(self, chance: random.Random) -> None:
        topic = chance.choice([*[WORK] * 6, LONELY, LONELY, SIDE])
        keys = [self.key() for _ in range(chance.choice([1, 1, 1, 2, 12]))]
        bodies = [key.encode() for key in keys]
        delay = chance.choice(DELAYS)

        def put() -> list[str]:
            place = self.broker.topic(topic)
            if len(bodies) == 1:
                return [place.put(bodies[0], delay=delay)]
            return place.put_many(bodies, delay=delay)

        self.act(put, "put", topic, keys=keys, delay=delay)
        if chance.random() < 0.05:
            self.broker.topic("any#ephemeral").put(b"x")

    def consume(self, chance: random.Random, consumers: list[nsqlite.Consumer[Any]]) -> None:
        consumer = chance.choice([consumers[0], consumers[0], *consumers])
        topic, channel = consumer.channel.topic_name, consumer.channel.name
        many = chance.choice([1, 1, 5])
        get = partial(consumer.get_many, many, timeout=0)
        if many == 1:
            batch = self.act(lambda: [consumer.get(timeout=0)], "get", topic, channel)
        else:
            batch = self.act(get, "get", topic, channel)
        for message in batch or []:
            self.answer(chance, consumer, message)

    def answer(
        self,
        chance: random.Random,
        consumer: nsqlite.Consumer[Any],
        message: nsqlite.Message[Any],
    ) -> None:
        where = consumer.channel.topic_name, consumer.channel.name
        key = message.body.decode()
        how = chance.random()
        if how < 0.1:
            return
        if how < 0.3:
            delay = chance.choice([0, 0, 0.02, 300])
            self.act(partial(message.req, delay=delay), "req", *where, keys=[key], delay=delay)
        elif how < 0.5 and where[0] == WORK:
            new = f"{key}|{where[1]}"
            target, to = chance.choice([(DEAD, ""), (SIDE, "p")])
            topic = self.broker.topic(target)
            place = topic.channel(to) if to else topic
            move = partial(consumer.move, message, place, new.encode())
            self.act(move, "move", *where, keys=[key, new], to=f"{target}:{to}")
        elif how < 0.6:
            with suppress(nsqlite.NotInFlight):
                message.touch()
            self.act(partial(consumer.fin_many, [message]), "fin", *where, keys=[key])
        else:
            self.act(message.fin, "fin", *where, keys=[key])

    def steer(self, chance: random.Random) -> None:
        """Do one of the things that are rarely done."""
        how = chance.choice(
            [self.flush] * 2
            + [self.pause, self.pause_channel, self.empty, self.empty_lonely]
            + [self.come_or_go] * 3
            + [self.delete_lonely, self.pass_by]
        )
        how(chance)

    def flush(self, _: random.Random) -> None:
        self.act(self.broker.flush, "flush")

    def pause(self, chance: random.Random) -> None:
        work = self.broker.topic(WORK)
        self.act(work.pause, "pause", WORK)
        if chance.random() < 0.8:
            self.act(work.unpause, "unpause", WORK)

    def pause_channel(self, chance: random.Random) -> None:
        channel = self.broker.topic(WORK).channel("a")
        self.act(channel.pause, "pause", WORK, "a")
        if chance.random() < 0.8:
            self.act(channel.unpause, "unpause", WORK, "a")

    def come_or_go(self, chance: random.Random) -> None:
        work = self.broker.topic(WORK)
        if "c" in work.channels and chance.random() < 0.5:
            self.act(work.channel("c").delete, "delete", WORK, "c")
        else:
            self.channel(WORK, "c")

    def empty(self, chance: random.Random) -> None:
        work = self.broker.topic(WORK)
        channel = chance.choice(["b", *(["c"] if "c" in work.channels else [])])
        self.act(work.channel(channel).empty, "empty", WORK, channel)

    def empty_lonely(self, _: random.Random) -> None:
        self.act(self.broker.topic(LONELY).empty, "empty", LONELY)

    def delete_lonely(self, _: random.Random) -> None:
        self.act(self.broker.topic(LONELY).delete, "delete", LONELY)
        self.act(partial(self.broker.topic, LONELY), "topic", LONELY)

    def pass_by(self, _: random.Random) -> None:
        """Have a consumer whose channel is kept nowhere."""
        work = self.broker.topic(WORK)
        self.act(work.unpause, "unpause", WORK)
        with nsqlite.Consumer(work.channel("e#ephemeral")) as consumer, suppress(nsqlite.Empty):
            consumer.get(timeout=0).fin()

    # The threads

    def run(self) -> None:
        self.begin()
        topics = {name: self.broker.topic(name) for name in (WORK, DEAD, SIDE)}
        a, b, x, p = (
            nsqlite.Consumer(topics[topic].channel(channel))
            for topic, channel in ((WORK, "a"), (WORK, "b"), (DEAD, "x"), (SIDE, "p"))
        )
        steps: list[Callable[[random.Random], None]] = [
            self.produce,
            self.produce,
            lambda chance: self.consume(chance, [a, x]),
            lambda chance: self.consume(chance, [b, p]),
            self.steer,
        ]
        threads = [
            threading.Thread(target=self.work, args=(step, random.Random(self.orders["seed"] + n)))
            for n, step in enumerate(steps)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.broker._check()
        self.act(self.broker.close, "close")

    def work(self, step: Callable[[random.Random], None], chance: random.Random) -> None:
        try:
            while self.left > 0:
                self.left -= 1
                step(chance)
        except BaseException:
            tell("error", traceback.format_exc()[-3000:])
            os._exit(1)


if __name__ == "__main__":
    logging.getLogger("nsqlite").addHandler(Alarm())
    Victim(sys.argv[1], json.loads(sys.argv[2])).run()
