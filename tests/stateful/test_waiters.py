"""Tasks that wait do, turn by turn, what the slow model's do; threads and loops lose nothing.

The random steps come at every moment: between two turns of the loop tasks are started, cancelled
and rung, consumers closed, windows changed and the clock moved, so a task is found in every state
in which it can be: not begun, asleep, rung, handed a message whose time may be over, cancelled.
"""

import asyncio
import random
import threading
from collections import Counter
from functools import partial
from typing import Any, Final

import attrs
import pytest
from helpers import PATIENCE, Call

import nsqlite
from nsqlite import Channel, Closed, Message, NotInFlight, Topic, aio
from nsqlite.options import SECOND
from nsqlite.testing import ManualClock
from stateful.waiting import MAX_MSG_TIMEOUT, Flight, Getter, Model, Reader

NO_LIMIT: Final = 1000
"""A window that is never full here; the model's for None."""

SEEDS: Final = 700
STEPS: Final = 30
PARTS: Final = 10

MESSAGES: Final = 600
"""Of each producer in a race."""


@attrs.define(eq=False)
class Delivery:
    """A message that a task returned, and the model's."""

    message: Message[int]
    flight: Flight


class Twins:
    """A real channel and its model, with a random hand that uses both."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.clock = ManualClock(0)
        self.topic: Topic[int] = Topic(
            "orders", clock=self.clock, msg_timeout=3, max_msg_timeout=MAX_MSG_TIMEOUT / SECOND
        )
        self.channel = self.topic.channel("billing")
        self.model = Model()
        self.readers: list[tuple[aio.Consumer[int], Reader]] = []
        self.getters: list[tuple[asyncio.Task[Any], Getter]] = []
        self.deliveries: list[Delivery] = []
        self.bodies = 0
        self.cancelled: Counter[str] = Counter()  # how often a task was in which state
        for _ in range(3):
            self.join()

    # Steps

    async def step(self) -> None:
        """Do something, and compare."""
        steps = {
            self.get: 8,
            self.cancel: 4,
            self.put: 7,
            self.answer: 6,
            self.window: 2,
            self.advance: 3,
            self.close: 0.7,
            self.pause: 0.7,
        }
        [what] = self.chance.choices(list(steps), list(steps.values()))
        what()
        self.compare()
        for _ in range(self.chance.choice([0, 0, 1, 1, 2])):
            await self.turn()

    async def turn(self) -> None:
        """Let the loop go round once."""
        await asyncio.sleep(0)
        self.model.turn()
        self.compare()

    def join(self) -> None:
        timeout = self.chance.choice([2, 3, 4])
        window = self.chance.choice([1, 1, 2, NO_LIMIT])
        consumer = aio.Consumer(
            self.channel,
            msg_timeout=timeout,
            max_in_flight=None if window == NO_LIMIT else window,
        )
        self.readers.append((consumer, Reader(timeout * SECOND, window)))

    def get(self) -> None:
        consumer, reader = self.chance.choice(self.readers)
        timeout = self.chance.choice([None, None, 0.5, 1, 3])
        limit = None if timeout is None else int(timeout * SECOND)
        getter = Getter(reader)
        if self.chance.random() < 0.7:
            task: asyncio.Task[Any] = asyncio.ensure_future(consumer.get(timeout))
            run = self.model.get(getter, limit)
        else:
            n = self.chance.randint(1, 4)
            linger = self.chance.choice([0, 0.5, 1])
            task = asyncio.ensure_future(consumer.get_many(n, timeout, linger=linger))
            run = self.model.get_many(getter, n, limit, int(linger * SECOND))
        self.getters.append((task, getter))
        self.model.start(getter, run)

    def cancel(self) -> None:
        under_way = [(task, getter) for task, getter in self.getters if not task.done()]
        for task, getter in self.chance.sample(under_way, min(len(under_way), 1)):
            self.cancelled[self.state_of(getter)] += 1
            task.cancel()
            self.model.cancel(getter)

    def state_of(self, getter: Getter) -> str:
        """Return in which state a task is that is not over."""
        if not getter.started:
            return "not begun"
        if getter.hand is not None:
            return "handed" if getter.hand in self.model.flying else "handed too late"
        if getter.called:
            return "rung"
        return "in line" if getter in self.model.line else "parked"

    def put(self) -> None:
        delay = self.chance.choice([None, None, None, 0.5, 2])
        fresh = list(range(self.bodies, self.bodies + self.chance.choice([1, 1, 1, 2, 4])))
        self.bodies += len(fresh)
        if len(fresh) == 1:
            self.topic.put(fresh[0], delay=delay)
        else:
            self.topic.put_many(fresh, delay=delay)
        self.model.put(fresh, int((delay or 0) * SECOND))

    def answer(self) -> None:
        if not self.deliveries:
            return
        delivery = self.deliveries[self.chance.randrange(len(self.deliveries))]
        message, flight = delivery.message, delivery.flight
        how = self.chance.choice(["fin", "fin", "req", "later", "touch"])
        in_flight = flight in self.model.flying
        try:
            if how == "fin":
                message.fin()
            elif how == "touch":
                message.touch()
            else:
                message.req(1.5 if how == "later" else 0)
        except NotInFlight:
            assert not in_flight
            return
        assert in_flight
        if how == "fin":
            self.model.fin(flight)
        elif how == "touch":
            self.model.touch(flight)
        else:
            self.model.req(flight, SECOND * 3 // 2 if how == "later" else 0)

    def window(self) -> None:
        consumer, reader = self.chance.choice(self.readers)
        window = self.chance.choice([0, 1, 2, 3, NO_LIMIT])
        consumer.rdy(None if window == NO_LIMIT else window)
        self.model.rdy(reader, window)

    def advance(self) -> None:
        step = self.chance.choice([0.25, 0.5, 1, 2, 5])
        self.clock.advance(step)
        self.model.advance(int(step * SECOND))

    def close(self) -> None:
        consumer, reader = self.readers.pop(self.chance.randrange(len(self.readers)))
        give_back = self.chance.random() < 0.5
        consumer.close(give_back=give_back)
        self.model.close(reader, give_back)
        self.join()

    def pause(self) -> None:
        paused = not self.model.paused
        if paused:
            self.channel.pause()
        else:
            self.channel.unpause()
        self.model.pause(paused)

    # Comparing

    def compare(self) -> None:
        """Check that both are the same, and that no message is lost, doubled or miscounted."""
        self.topic._check()
        self.reap()
        model, channel = self.model, self.channel
        ready = channel.peek(1000)
        assert [(c.body, c.attempts) for c in model.ready] == self.seen(ready)
        flying = channel.in_flight(1000)
        assert [(f.copy.body, f.copy.attempts + 1) for f in model.by_deadline()] == self.seen(
            flying
        )
        later = channel.deferred(1000)
        deferred = sorted(model.deferred, key=lambda found: found[:2])
        assert [(c.body, c.attempts) for _, _, c in deferred] == self.seen(later)
        line = channel._queue.waiters
        assert [getter.reader for getter in model.line] == [
            self.reader_of(waiter.owner) for waiter in line.able
        ]
        assert len(model.parked) == sum(len(parked) for parked in line.parked.values())
        places = Counter(info.body for info in (*ready, *flying, *later))
        places.update(model.finished)
        assert Counter(range(self.bodies)) == places
        for info in (*ready, *later):
            assert model.reached[info.body] + model.unseen[info.body] == info.attempts

    def reap(self) -> None:
        """Compare what the tasks have come to, and keep what they got."""
        for task, getter in self.getters.copy():
            assert task.done() is (getter.outcome is not None)
            if not task.done():
                continue
            self.getters.remove((task, getter))
            if isinstance(getter.outcome, str):
                assert getter.outcome == self.failure(task)
                continue
            found = task.result()
            messages = found if isinstance(found, list) else [found]
            flights = getter.outcome or []
            assert [f.copy.body for f in flights] == [message.body for message in messages]
            for message, flight in zip(messages, flights, strict=True):
                if flight in self.model.flying:
                    assert flight.copy.attempts + 1 == message.attempts
                self.deliveries.append(Delivery(message, flight))

    def failure(self, task: asyncio.Task[Any]) -> str:
        """Return the name of what a task raised."""
        if task.cancelled():
            return "CancelledError"
        return type(task.exception()).__name__

    def reader_of(self, consumer: Any) -> Reader:
        [found] = [reader for known, reader in self.readers if known is consumer]
        return found

    def seen(self, infos: list[nsqlite.MessageInfo]) -> list[tuple[Any, int]]:
        return [(info.body, info.attempts) for info in infos]

    async def end(self) -> None:
        """Cancel whatever waits, in random order, finish all there is, and look what is left."""
        self.chance.shuffle(self.getters)
        for task, getter in self.getters:
            task.cancel()
            self.model.cancel(getter)
        while self.model.agenda:
            await self.turn()
        if self.model.paused:
            self.pause()
        for consumer, reader in self.readers:
            consumer.close()
            self.model.close(reader, True)
        self.clock.advance(20)
        self.model.advance(20 * SECOND)
        self.readers.clear()
        self.compare()
        left = [message.body for message in drained(self.channel)]
        assert Counter(range(self.bodies)) == Counter([*left, *self.model.finished])
        line, guard = self.channel._queue.waiters, self.topic._monitor
        assert (0, 0, 0) == (len(line.able), len(line.parked), guard.waiting)
        assert (0, 0, {}) == (len(guard.woken), len(guard.joins), self.clock._sleeps)


def drained(channel: Channel[int]) -> list[Message[int]]:
    """Get and finish whatever is ready."""
    if not channel.depth:
        return []
    with nsqlite.Consumer(channel) as consumer:
        messages = consumer.get_many(1000, timeout=0)
        consumer.fin_many(messages)
    return messages


@pytest.mark.parametrize("part", range(PARTS))
def test_tasks_do_what_the_model_does(part: int) -> None:
    """Random steps on a channel, its consumers and its tasks are followed by the model exactly."""

    async def main() -> Counter[str]:
        cancelled: Counter[str] = Counter()
        for seed in range(part, SEEDS, PARTS):
            twins = Twins(seed)
            for _ in range(STEPS):
                await twins.step()
            await twins.end()
            cancelled += twins.cancelled
        return cancelled

    cancelled = asyncio.run(main())
    states = {"not begun", "in line", "parked", "rung", "handed", "handed too late"}
    assert states - {"handed too late"} <= set(cancelled) <= states


# In real time


class Race:
    """A topic with two channels, and what became of its messages in each."""

    def __init__(self) -> None:
        self.topic: Topic[int] = Topic("orders")
        self.channels = [
            self.topic.channel("wide"),
            self.topic.channel("narrow", max_depth=20),
        ]
        self.finished: dict[str, list[int]] = {channel.name: [] for channel in self.channels}
        self.requeued: dict[str, Counter[int]] = {
            channel.name: Counter() for channel in self.channels
        }
        self.wrong: list[Message[int]] = []
        self.all_put = threading.Semaphore(0)

    def answer(self, channel: Channel[int], message: Message[int], chance: random.Random) -> None:
        """Finish a message or requeue it; nobody else has it meanwhile."""
        requeued = self.requeued[channel.name]
        body = message.body
        if message.attempts != requeued[body] + 1:
            self.wrong.append(message)
        if chance.random() < 0.1:
            requeued[body] += 1
            message.req(chance.choice([0, 0.001]))
        else:
            self.finished[channel.name].append(body)
            message.fin()

    def produce(self, part: int) -> None:
        """Put a part of the messages, waiting for room."""
        for body in range(part, MESSAGES * 3, 3):
            self.topic.put(body)
        self.all_put.release()

    async def produce_patiently(self, part: int) -> None:
        """Put a part of the messages in batches, waiting for room; some puts are cancelled."""
        chance = random.Random(part)
        left = list(range(part, MESSAGES * 3, 3))
        while left:
            batch = left[: chance.randint(1, 3)]
            task = asyncio.ensure_future(aio.put_many(self.topic, batch))
            if chance.random() < 0.2:
                await asyncio.sleep(0)
                task.cancel()
            try:
                await task
            except asyncio.CancelledError:
                continue
            del left[: len(batch)]
        self.all_put.release()

    def consume(self, channel: Channel[int]) -> None:
        """Answer messages in a thread until the channel is closed."""
        chance = random.Random(channel.name)
        with nsqlite.Consumer(channel, max_in_flight=1) as consumer:
            for message in consumer:
                self.answer(channel, message, chance)

    async def consume_fickly(self, channel: Channel[int], number: int) -> None:
        """Answer messages in a task until the channel is closed; many gets are cancelled."""
        chance = random.Random(number)
        async with aio.Consumer(channel, max_in_flight=chance.choice([1, None])) as consumer:
            while True:
                task = asyncio.ensure_future(consumer.get())
                if chance.random() < 0.5:
                    for _ in range(chance.randrange(5)):
                        await asyncio.sleep(0)
                    task.cancel()
                try:
                    message = await task
                except asyncio.CancelledError:
                    continue
                except Closed:
                    return
                self.answer(channel, message, chance)

    async def loop(self, number: int) -> None:
        """Do all that one loop has to do."""
        work = [
            self.consume_fickly(channel, 10 * number + which)
            for which, channel in enumerate(self.channels * 2)
        ]
        if number == 0:
            work.append(self.produce_patiently(2))
        await asyncio.gather(*work)


def test_threads_and_two_loops() -> None:
    """Threads and two loops race: each channel sees each message finished once, none too often."""
    race = Race()
    consumers = [Call(partial(race.consume, channel)) for channel in race.channels]
    consumers += [Call(partial(asyncio.run, race.loop(number))) for number in range(2)]
    producers = [Call(partial(race.produce, part)) for part in range(2)]
    for _ in range(3):
        assert race.all_put.acquire(timeout=PATIENCE)
    race.topic._check()
    assert race.topic.join(PATIENCE)
    race.topic.close()
    for call in (*producers, *consumers):
        assert call.result() is None
    everything = list(range(3 * MESSAGES))
    for channel in race.channels:
        assert everything == sorted(race.finished[channel.name])
        stats = channel.stats()
        assert (3 * MESSAGES, 0, 0) == (stats.message_count, stats.timeout_count, stats.depth)
        assert sum(race.requeued[channel.name].values()) == stats.requeue_count
    assert [] == race.wrong
    race.topic._check()
    assert (0, 0) == (race.topic._monitor.waiting, len(race.topic._monitor.woken))
