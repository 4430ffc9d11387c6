"""What `nsqlite.testing.clients` makes of a handler is what its client makes of it by a socket."""

import asyncio
import importlib
import inspect
import json
from collections import Counter, defaultdict
from contextlib import suppress
from typing import Any

import attrs
import pytest

import nsqlite
from compat.behaviours import AGAIN, LAST, TABLES, Behaviours, look_at, taken
from compat.clients import started, until
from nsqlite import testing
from nsqlite.events import Event, Kind
from nsqlite.testing import FakeBroker
from nsqlite.timeline import Recorder


@attrs.frozen
class Outcome:
    """What became of a message.

    Attributes:
        touches: how often it was touched.
        answers: what it was answered, each time: what, after how many seconds it comes again, and
            whether the client slows down.
        seen: what a handler found in it, each time.
    """

    touches: int
    answers: list[tuple[str, float, bool]]
    seen: list[list[Any]]


def prepare(broker: nsqlite.Broker, behaviours: Behaviours) -> None:
    """Publish a message for each behaviour, and deliver it so often that its next attempt comes."""
    topic = broker.topic("orders")
    consumer = nsqlite.Consumer(topic.channel("billing"))
    held = []
    for body, (attempt, _) in behaviours.items():
        if attempt > 1:
            topic.put(body)
            for _ in range(attempt - 2):
                consumer.get(timeout=0).req()
            held.append(consumer.get(timeout=0))
    for message in held:
        message.req()
    topic.put_many([body for body, (attempt, _) in behaviours.items() if attempt == 1])
    consumer.close()


def answering(recorder: Recorder) -> list[Event]:
    """Return the events that have answered messages, in their order."""
    return [event for event in recorder.events if event.kind in (Kind.FINISHED, Kind.REQUEUED)]


def answers_of(recorder: Recorder) -> list[tuple[bytes, str, float]]:
    """Return what has answered messages, in its order, each with its delay."""
    return [
        (event.body, str(event.kind), round((event.due or event.time) - event.time, 3))
        for event in answering(recorder)
    ]


def outcomes(recorder: Recorder, slows: list[bool], seen: list[list[Any]]) -> dict[str, Outcome]:
    """Put together what became of each message."""
    found: dict[str, Outcome] = defaultdict(lambda: Outcome(0, [], []))
    for (body, kind, delay), slow in zip(answers_of(recorder), slows, strict=True):
        found[body.decode()].answers.append((kind, delay, slow))
    for one in seen:
        found[one[-1]].seen.append(one)
    touched = Counter(event.body for event in recorder.events if event.kind == Kind.TOUCHED)
    return {
        body: attrs.evolve(found[body], touches=touched[body.encode()]) for body in sorted(found)
    }


def by_adapter(library: str) -> dict[str, Outcome]:
    """Call the handlers as `nsqlite.testing.clients` has them called."""
    client = importlib.import_module(f"nsqlite.testing.clients.{library}")
    behaviours = TABLES[library]()
    broker = FakeBroker()
    prepare(broker, behaviours)
    recorder = broker.history.recorder
    recorder.clear()
    told: list[list[Any]] = []
    messages: dict[tuple[bytes, int], Any] = {}

    def call(function: Any) -> Any:
        def handle(*given: Any, **named: Any) -> Any:
            message = named.get("message") or given[-1]
            told.append(look_at(message))
            messages[message.body, message.attempts] = message
            return function(*given, **named)

        async def handle_async(message: Any) -> Any:
            return await handle(message)

        return client.handler(handle_async if inspect.iscoroutinefunction(function) else handle)

    consumer = nsqlite.Consumer(broker.topic("orders").channel("billing"))

    def answer_all() -> None:
        while consumer.channel.depth:
            message = consumer.get(timeout=0)
            with suppress(Exception):
                result = call(taken(behaviours, message.body))(message)
                if inspect.iscoroutine(result):
                    asyncio.run(result)

    answer_all()
    broker.topic("orders").put(AGAIN)
    answer_all()
    consumer.close()
    answered = [(event.body, event.attempts) for event in answering(recorder)]
    slows = [one in messages and messages[one].answer.backoff for one in answered]
    return outcomes(recorder, slows, told)


def by_client(library: str, nsqd: testing.nsqd) -> dict[str, Outcome]:
    """Have a program with the client call the handlers, over a socket."""
    behaviours = TABLES[library]()
    prepare(nsqd.broker, behaviours)
    recorder = Recorder()
    nsqd.broker.observe(recorder)
    program = started("behaviours", library, str(nsqd.port))
    until(lambda: (LAST, "finished", 0.0) in answers_of(recorder))
    nsqd.broker.topic("orders").put(AGAIN)  # behind what is ready, having come back
    until(lambda: (AGAIN, "finished", 0.0) in answers_of(recorder))
    told: dict[str, list[Any]] = {"seen": [], "slows": []}
    assert program.stdout is not None
    while len(told["slows"]) < len(answers_of(recorder)):  # it tells after it has answered
        ((what, value),) = json.loads(program.stdout.readline()).items()
        told[what].append(value)
    program.kill()
    program.communicate()
    return outcomes(recorder, **told)


@pytest.mark.parametrize("library", TABLES)
def test_a_handler_means_the_same_with_and_without_its_client(
    library: str, nsqd: testing.nsqd
) -> None:
    """Answers, their order of touches, delays, backoff, and what a handler sees are equal."""
    expected, actual = by_client(library, nsqd), by_adapter(library)
    assert expected == actual
