"""Scenes in which a call can be struck, and the account of what is there afterwards.

The rule: a scene is the same each time it is made, and is looked at in one order: first who was
woken, without touching anything; then what is where; then whether all of it can still be got.

All but the struck call is made by one other thread, so a lock that was left held is found out.
"""

import asyncio
import contextlib
import queue
import threading
from collections.abc import Callable, Coroutine
from functools import cache
from typing import Any, Final

from helpers import PATIENCE

import nsqlite
from nsqlite import Broker, Channel, Closed, Consumer, Empty, NSQLiteError, Topic
from nsqlite.testing import ManualClock
from stateful.strikes import strike_also

Facts = dict[str, Any]
"""What is where, by topic and channel."""

BOUND: Final = PATIENCE / 4


class Helper:
    """A thread that makes calls for another."""

    def __init__(self) -> None:
        self._calls: queue.SimpleQueue[Callable[[], Any] | None] = queue.SimpleQueue()
        self._answers: queue.SimpleQueue[tuple[Any, BaseException | None]] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def end(self) -> None:
        """Have the thread end; a clock that jumps by itself in another test would wait for it."""
        self._calls.put(None)
        self._thread.join(PATIENCE)

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            answer: tuple[Any, BaseException | None]
            try:
                answer = call(), None
            except BaseException as error:
                answer = None, error
            self._answers.put(answer)
            del call, answer

    def do(self, call: Callable[[], Any]) -> Any:
        """Make a call; return or raise what it does, or `TimeoutError` if it does not end."""
        self._calls.put(call)
        try:
            value, error = self._answers.get(timeout=BOUND)
        except queue.Empty:
            _helper.cache_clear()
            raise TimeoutError("a lock is held") from None
        if error is not None:
            raise error
        return value


@cache
def _helper() -> Helper:
    return Helper()


def end_helper() -> None:
    """Have the thread for calls aside end, if there is one."""
    if _helper.cache_info().currsize:
        _helper().end()
        _helper.cache_clear()


def aside(call: Callable[[], Any]) -> Any:
    """Make a call in another thread; `TimeoutError` means that it does not end."""
    return _helper().do(call)


class Stuck(Exception):
    """The struck thread waits, and nothing is left to come."""


class Cue:
    """A semaphore for the struck thread: instead of its sleep the script's next part is played."""

    def __init__(self, stage: "Stage", semaphore: Any) -> None:
        self._stage = stage
        self._semaphore = semaphore
        self.release = semaphore.release

    @strike_also
    def acquire(self, blocking: bool = True, timeout: float = -1) -> Any:  # noqa: ARG002, FBT002 - a Semaphore's
        if self._semaphore.acquire(blocking=False):
            return True
        self._stage.play()
        return self._semaphore.acquire(blocking=False)


class Sleeper:
    """A call in a thread of its own, which sleeps until the test lets it look whether it is rung.

    Attributes:
        ought: says whether something is there for which it should have been woken.
        end: gives up what it waits for; None if that goes with the broker alone.
    """

    def __init__(
        self,
        stage: "Stage",
        call: Callable[[], Any],
        ought: Callable[[], bool],
        end: Callable[[], object] | None = None,
    ) -> None:
        self.ought = ought
        self.end = end
        self.outcome: Any = None
        self.over = False
        self._stage = stage
        self._call = call
        self._semaphore: Any = None
        self._news: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self._go: queue.SimpleQueue[None] = queue.SimpleQueue()
        threading.Thread(target=self._run, daemon=True).start()
        self._hear()

    def _run(self) -> None:
        self._stage.sleepers[threading.get_ident()] = self
        try:
            self.outcome = self._call()
        except BaseException as error:
            self.outcome = error
        del self._stage.sleepers[threading.get_ident()]
        self._news.put(True)

    def _hear(self) -> None:
        self.over = self._news.get(timeout=BOUND)

    def sleep(self, semaphore: Any) -> None:
        """Sleep, as the sleeper."""
        self._semaphore = semaphore
        self._news.put(False)
        self._go.get()

    def look(self) -> None:
        """Let it look; it sleeps on if nobody has rung."""
        if not self.over and self._semaphore.acquire(blocking=False):
            self._semaphore.release()
            self._go.put(None)
            self._hear()

    def forget(self) -> None:
        """Do nothing: it is over when the broker is."""


class Task:
    """A call that waits in an event loop, which runs only when the test lets it look."""

    def __init__(
        self,
        call: Callable[[], Coroutine[Any, Any, Any]],
        ought: Callable[[], bool],
        end: Callable[[], object],
    ) -> None:
        self.ought = ought
        self.end = end
        self._loop = asyncio.new_event_loop()
        self._task = self._loop.create_task(call())
        self.look()

    @property
    def over(self) -> bool:
        return self._task.done()

    @property
    def outcome(self) -> Any:
        return self._task.exception() or self._task.result()

    def look(self) -> None:
        for _ in range(4):
            self._loop.run_until_complete(asyncio.sleep(0))

    def forget(self) -> None:
        """Close the loop."""
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError, Exception):
            self._loop.run_until_complete(self._task)
        self._loop.close()


class Told:
    """A function that waits to be called when there is something for a consumer."""

    def __init__(self, consumer: Consumer[Any], ought: Callable[[], bool]) -> None:
        self.ought = ought
        self.end = consumer.close
        self.over = False
        consumer.when_ready(self._call)

    def _call(self) -> None:
        self.over = True

    def look(self) -> None:
        """Do nothing: it is called where somebody else goes on."""

    def forget(self) -> None:
        """Do nothing: it is over when its consumer is."""


class Stage(ManualClock):
    """A clock whose sleepers the tests hold in their hands.

    Attributes:
        script: what happens, part by part, while the struck thread waits.
        sleepers: the other threads that may wait, by their number.
    """

    def __init__(self, *, blind: bool) -> None:
        super().__init__(patience=1000)
        self.script: list[Callable[[], object]] = []
        self.sleepers: dict[int, Sleeper] = {}
        self._blind = blind

    def attach(self, timed: Any) -> Callable[[int], object]:
        """Take note of what has deadlines, unless time is to pass without that anybody looks."""
        return int if self._blind else super().attach(timed)

    def play(self) -> None:
        """Play the next part of the script."""
        if not self.script:
            raise Stuck
        with contextlib.suppress(NSQLiteError):
            aside(self.script.pop(0))

    def wait(self, semaphore: Any, *rest: Any, **options: Any) -> bool:
        """See `nsqlite.Clock`."""
        sleeper = self.sleepers.get(threading.get_ident())
        if sleeper is None:
            semaphore = Cue(self, semaphore)
        else:
            sleeper.sleep(semaphore)
        return super().wait(semaphore, *rest, **options)


class Scene:
    """A broker with a topic `t`, its channel `c` and a consumer that holds three messages.

    Two more are ready and one is deferred.  A topic `u` with a channel `d` stands by.
    """

    def __init__(
        self,
        *,
        blind: bool = False,
        ready: int = 2,
        channels: int = 1,
        msg_timeout: float | None = None,
        max_in_flight: int | None = None,
        observed: bool = False,
        **options: Any,
    ) -> None:
        self.clock = Stage(blind=blind)
        self.heard: list[str] = []
        observers = [lambda event: self.heard.append(event.kind)] if observed else []
        self.broker = Broker(clock=self.clock, observers=observers)
        self.topic: Topic[Any] = self.broker.topic("t", **options)
        self.channel: Channel[Any] = self.topic.channel("c")
        self.channels = [self.channel]
        for number in range(2, channels + 1):
            self.channels.append(self.topic.channel(f"c{number}"))
        self.other: Topic[Any] = self.broker.topic("u")
        self.dead: Channel[Any] = self.other.channel("d")
        self.channels.append(self.dead)
        self.consumer: Consumer[Any] = Consumer(
            self.channel, msg_timeout=msg_timeout, max_in_flight=max_in_flight
        )
        self.held: list[nsqlite.Message[Any]] = []
        for body in ("h0", "h1", "h2"):
            self.topic.put(body)
            self.held.append(self.consumer.get(timeout=0))
            for channel in self.channels[1:-1]:
                with Consumer(channel) as consumer:
                    consumer.get(timeout=0).fin()
        for number in range(ready):
            self.topic.put(f"r{number}")
        self.topic.put("later", delay=50)
        self.waiting: list[Sleeper | Task | Told] = []
        self.refused = False

    # Who waits

    def sleeps(
        self,
        call: Callable[[], Any],
        ought: Callable[[], bool],
        end: Callable[[], object] | None = None,
    ) -> None:
        """Have a call wait in another thread."""
        self.waiting.append(Sleeper(self.clock, call, ought, end))

    def suspended(
        self,
        call: Callable[[], Coroutine[Any, Any, Any]],
        ought: Callable[[], bool],
        end: Callable[[], object],
    ) -> None:
        """Have a call wait in an event loop."""
        self.waiting.append(Task(call, ought, end))

    def told(self) -> None:
        """Have a consumer wait to be told."""
        self.waiting.append(Told(Consumer(self.channel), self._untold))

    def _untold(self) -> bool:
        """Say whether there is more than those who were told have been told of, or it is over."""
        told = sum(isinstance(one, Told) and one.over for one in self.waiting)
        return self.channel.closed or (self.channel.depth > told and not self.channel.paused)

    def there(self) -> bool:
        """Say whether channel `c` has what a getter waits for, or is over."""
        return self.channel.closed or (self.channel.depth > 0 and not self.channel.paused)

    # The account

    def settle(self) -> tuple[Facts, list[str]]:
        """Return what is there and what is wrong; the scene is over then."""
        faults: list[str] = []
        for one in self.waiting:
            one.look()
        asleep = [one for one in self.waiting if not one.over]
        facts: Facts = {}
        try:
            if self.waiting:
                self._settle_with_waiting(asleep, facts, faults)
            else:
                aside(lambda: self._settle_alone(facts, faults))
        except Exception as error:
            faults.append(f"{type(error).__name__}: {error}")
        for one in self.waiting:
            one.forget()
        return facts, faults

    def _settle_alone(self, facts: Facts, faults: list[str]) -> None:
        self._look([], facts, faults)
        self._drain(facts)
        self._end(faults)

    def _settle_with_waiting(
        self, asleep: "list[Sleeper | Task | Told]", facts: Facts, faults: list[str]
    ) -> None:
        aside(lambda: self._look(asleep, facts, faults))
        self._go_on()
        aside(lambda: self._drain(facts))
        self._go_on()
        aside(lambda: self._drain(facts))  # also what a put brought that found room now
        aside(lambda: self._end(faults))
        self._go_on()
        if not all(one.over for one in self.waiting):
            faults.append("somebody sleeps on although all is closed")

    def _go_on(self) -> None:
        for one in self.waiting:
            one.look()

    def _look(self, asleep: "list[Sleeper | Task | Told]", facts: Facts, faults: list[str]) -> None:
        """Look who should have been woken, what is there, and have those who get give up."""
        self.clock.script.clear()
        self._check(faults)
        # To look may be what tells one of them.
        if any(one.ought() and not (isinstance(one, Told) and one.over) for one in asleep):
            faults.append("somebody sleeps on")
        if self.channel.paused and not self.channel.closed:
            with contextlib.suppress(Empty, Closed):
                faults.append(f"paused, and gives {self.consumer.get(timeout=0)!r}")
        self._note(facts)
        for one in self.waiting:
            if one.end is not None:
                one.end()

    def _end(self, faults: list[str]) -> None:
        """Use what is left, and close it."""
        self._use(faults)
        self._check(faults)
        self.broker.close()

    def _check(self, faults: list[str]) -> None:
        for topic in (self.topic, self.other):
            try:
                topic._check()
            except Exception as error:
                faults.append(f"_check of {topic.name}: {type(error).__name__}: {error}")

    def _note(self, facts: Facts) -> None:
        """Note what is there."""
        for topic in (self.topic, self.other):
            stats = topic.stats()
            facts[topic.name] = {
                "known": topic.name in self.broker.topics,
                "closed": topic.closed,
                "paused": topic.paused,
                "depth": topic.depth,
                "channels": sorted(topic.channels),
                "count": stats.message_count,
            }
        for channel in self._all_channels():
            numbers = channel.stats()
            shown = [*channel.peek(1000), *channel.in_flight(1000), *channel.deferred(1000)]
            assert len(shown) == len({info.id for info in shown}), "an id is there twice"
            facts[f"{channel.topic_name}:{channel.name}"] = {
                "closed": channel.closed,
                "paused": channel.paused,
                "bodies": sorted(str(info.body) for info in shown),
                "got": [],
                "count": numbers.message_count,
                "requeued": numbers.requeue_count,
                "dropped": numbers.dropped_count,
                "finished": sum(client.finish_count for client in numbers.clients),
            }

    def _all_channels(self) -> list[Channel[Any]]:
        created = [*self.topic.channels.values(), *self.other.channels.values()]
        return [*self.channels, *(each for each in created if each not in self.channels)]

    def _drain(self, facts: Facts) -> None:
        """Get and finish everything."""
        for topic in (self.topic, self.other):
            with contextlib.suppress(Closed):
                topic.unpause()
        self.clock.advance(4000)
        for channel in self._all_channels():
            with contextlib.suppress(Closed):
                channel.unpause()
            facts[f"{channel.topic_name}:{channel.name}"]["got"] += sorted(self._get_all(channel))

    def _get_all(self, channel: Channel[Any]) -> list[str]:
        got: list[str] = []
        consumer = self.consumer
        with contextlib.suppress(Closed):
            consumer = Consumer(channel)
        if consumer.channel is channel:
            with contextlib.suppress(Empty, Closed):
                consumer.rdy(None)
                while True:
                    batch = consumer.get_many(1000, timeout=0)
                    got += [str(message.body) for message in batch]
                    consumer.fin_many(batch)
        return got

    def _use(self, faults: list[str]) -> None:
        """Check that what is put now is got at once."""
        for topic in (self.topic, self.other):
            with contextlib.suppress(Closed):
                topic.put("probe", timeout=0)
                for name, channel in topic.channels.items():
                    if not channel.closed and self._get_all(channel) != ["probe"]:
                        faults.append(f"{topic.name}:{name} does not deliver")
