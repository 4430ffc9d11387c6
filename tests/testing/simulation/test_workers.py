"""The workers of a simulation are what workers always are."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

import nsqlite
from nsqlite.errors import NotInFlight, Reentered
from nsqlite.message import Message
from nsqlite.testing import Simulation, SimulationFailed, simulate

Scenario = Callable[[Simulation], object]


def undisturbed(scenario: Scenario) -> list[str]:
    """Play a scenario once, and return the steps that it took."""
    with pytest.raises(SimulationFailed) as caught:
        simulate(lambda sim: _stop(scenario, sim), replay="")
    assert isinstance(caught.value.__cause__, _Stop), caught.value
    return [f"{step.who}: {step.what}" for step in caught.value.steps]


class _Stop(Exception):
    pass


def _stop(scenario: Scenario, sim: Simulation) -> None:
    scenario(sim)
    raise _Stop


def test_answers_of_a_handler_are_told() -> None:
    """Each is where others get the turn."""

    def scenario(sim: Simulation) -> None:
        def handler(message: Message[int]) -> None:
            message.touch()
            if message.attempts == 1:
                message.req(2)
            elif message.attempts == 2:
                message.req()
            else:
                message.fin()

        sim.worker("a", "b", handler, msg_timeout=5)
        sim.put("a", 1)
        sim.run()

    assert [
        "main: puts 1 to a",
        "a:b-1: gets 1, attempt 1",
        "a:b-1: touches 1",
        "a:b-1: requeues for 2 s 1",
        "a:b-1: gets 1, attempt 2",
        "a:b-1: touches 1",
        "a:b-1: requeues 1",
        "a:b-1: gets 1, attempt 3",
        "a:b-1: touches 1",
        "a:b-1: finishes 1",
    ] == undisturbed(scenario)


def test_what_is_given_up_is_moved() -> None:
    """After its attempts; a jitter without a seed has one here."""

    def scenario(sim: Simulation) -> None:
        def handler(_message: Message[int]) -> None:
            raise LookupError("none")

        retry = nsqlite.Retry(max_attempts=2, seed=7, backoff=nsqlite.Backoff(seed=7))
        worker = sim.worker("a", "b", handler, retry=retry, dead_letter="dead")
        sim.put("a", 1)
        sim.run()
        stats = worker.stats()
        assert (stats.failed, stats.retried, stats.given_up) == (2, 1, 1)

    assert "a:b: moves to dead 1" == undisturbed(scenario)[-1]


def test_a_message_with_too_many_attempts_is_given_up_before_its_handler() -> None:
    """As one whose consumer died in its last attempt."""

    def scenario(sim: Simulation) -> None:
        given_up: list[object] = []

        def tell(_message: Message[int], error: BaseException | None) -> None:
            given_up.append(error)

        options: Any = {"retry": nsqlite.Retry(max_attempts=1), "on_give_up": tell}
        sim.worker("a", "b", lambda _message: None, **options)
        sim.put("a", 1)
        sim.run()
        assert not given_up

    with pytest.raises(SimulationFailed) as caught:
        simulate(scenario, faults=["deliver twice"])
    assert "a:b-1: gets 1, attempt 2" in str(caught.value.steps[-2])


def test_a_worker_that_is_paused_or_stopped_gets_nothing() -> None:
    """Until the channel is unpaused; `stop` waits for the handlers, `join` for the messages."""

    def scenario(sim: Simulation) -> None:
        worker = sim.worker("a", "b", lambda _message: sim.work(1))
        channel = worker.channel
        channel.pause()
        sim.put("a", 1)
        sim.work(3)
        assert 1 == channel.depth
        channel.unpause()
        assert worker.join()
        sim.put("a", 2)
        sim.work(0.5)
        worker.stop()
        sim.put("a", 3)
        sim.work(1)
        assert (channel.depth, worker.running, worker.stats().state) == (1, False, "stopped")

    assert ["a:b: finishes 2", "main: puts 3 to a"] == undisturbed(scenario)[-2:]


def test_a_handler_cannot_join_its_worker() -> None:
    """Plain or coroutine function."""

    def scenario(sim: Simulation) -> None:
        errors: list[BaseException] = []

        def plain(_message: Message[int]) -> None:
            try:
                workers[0].join()
            except Reentered as error:
                errors.append(error)

        async def coroutine(_message: Message[int]) -> None:
            try:
                await nsqlite.aio.join(workers[1])
            except Reentered as error:
                errors.append(error)

        workers = [sim.worker("a", "b", plain), sim.worker("a", "c", coroutine)]
        sim.put("a", 1)
        sim.run()
        assert 2 == len(errors)

    undisturbed(scenario)


def test_a_coroutine_works_puts_and_waits_on_the_clock() -> None:
    """With what asyncio has: `sleep`, `gather`, `timeout`."""

    def scenario(sim: Simulation) -> None:
        topic = sim.broker.topic("a")
        topic.channel("b", max_depth=1)
        done: list[object] = []

        async def handler(message: Message[int]) -> None:
            await asyncio.gather(sim.work(1), asyncio.sleep(2))
            if message.body < 3:
                await nsqlite.aio.put(topic, message.body + 1)
            try:
                async with asyncio.timeout(1):
                    await asyncio.sleep(60)
            except TimeoutError:
                done.append(message.body)

        sim.worker("a", "b", handler, concurrency=2)
        sim.put("a", 1)
        sim.run()
        assert [1, 2, 3] == done

    assert "a:b-1: puts 2 to a" == undisturbed(scenario)[2]


def test_a_coroutine_that_takes_too_long_is_cancelled() -> None:
    """And has failed with a `TimeoutError`; one in a thread goes on."""

    def scenario(sim: Simulation) -> None:
        async def slow(message: Message[int]) -> None:
            if message.attempts == 1:
                await sim.work(60)

        options: Any = {"time_limit": 5, "retry": nsqlite.Retry(jitter=False)}
        sim.worker("a", "b", slow, **options)
        sim.worker("a", "c", lambda _message: sim.work(60), **options)
        sim.put("a", 1)
        sim.run()

    told = undisturbed(scenario)
    late = "raises TimeoutError('test_a_coroutine_that_takes_too_long_is_cancelled.<locals>"
    assert told[3].startswith(f"a:b-1: {late}.scenario.<locals>.slow took longer than time_limit=5")
    assert "a:c: finishes 1" == told[-1]


def test_a_coroutine_that_fails_is_tried_again() -> None:
    """Also if what it awaits was cancelled."""

    def scenario(sim: Simulation) -> None:
        async def handler(message: Message[int]) -> None:
            if message.attempts == 1:
                raise LookupError
            if message.attempts == 2:
                raise asyncio.CancelledError

        sim.worker("a", "b", handler)
        sim.put("a", 1)
        sim.run()

    assert ["a:b-1: gets 1, attempt 3", "a:b: finishes 1"] == undisturbed(scenario)[-2:]


def test_a_coroutine_is_dropped_as_a_plain_function_is() -> None:
    """Its message comes again."""

    def scenario(sim: Simulation) -> None:
        done: list[int] = []

        async def handler(message: Message[int]) -> None:
            await sim.work(1)
            done.append(message.attempts)

        sim.worker("a", "b", handler)
        sim.put("a", 1)
        sim.run()
        assert [1] == done

    with pytest.raises(SimulationFailed) as caught:
        simulate(scenario, faults=["drop"])
    assert "is dropped in the middle of 1" in [step.what for step in caught.value.steps]


def test_a_put_that_would_block_the_loop_is_told_of() -> None:
    """It is to be awaited."""

    def scenario(sim: Simulation) -> None:
        sim.broker.topic("a").channel("b", max_depth=1)

        async def handler(_message: Message[int]) -> None:
            for number in range(3):
                sim.put("a", number)

        sim.worker("a", "b", handler, retry=nsqlite.Retry(max_attempts=1))
        sim.put("a", 1)
        sim.run()

    with pytest.raises(SimulationFailed) as caught:
        simulate(scenario)
    assert (
        "nobody can go on: put() to topic 'a' blocks the event loop in which it was called: await"
        " it"
    ) == str(caught.value.__cause__)


def test_a_late_answer_is_an_error_in_the_handler() -> None:
    """A touch after the message has timed out."""

    def scenario(sim: Simulation) -> None:
        late: list[str] = []

        def handler(message: Message[int]) -> None:
            sim.work(70 if message.attempts == 1 else 1)
            try:
                message.touch()
            except NotInFlight as error:
                late.append(error.reason)
                raise

        sim.worker("a", "b", handler, auto_touch=False)
        sim.put("a", 1)
        sim.run()
        assert ["timed out"] == late

    assert "a:b: 1 times out" in undisturbed(scenario)


def test_a_dropped_handler_may_have_answered() -> None:
    """Then its message does not come again."""

    def scenario(sim: Simulation) -> None:
        calls: list[int] = []

        def handler(message: Message[int]) -> None:
            message.fin()
            calls.append(message.attempts)
            sim.work(1)
            calls.append(0)

        sim.worker("a", "b", handler)
        sim.put("a", 1)
        sim.run()
        assert [1, 0] == calls

    with pytest.raises(SimulationFailed) as caught:
        simulate(scenario, faults=["drop"])
    assert "assert [1, 0] == [1]" in str(caught.value)


def test_a_coroutine_that_waits_at_the_end_is_cancelled() -> None:
    """As `asyncio.run` does; its message stays in flight."""
    cancelled: list[bool] = []

    def scenario(sim: Simulation) -> None:
        async def handler(_message: Message[int]) -> None:
            try:
                await asyncio.Event().wait()
            finally:
                cancelled.append(True)

        sim.worker("a", "b", handler)
        sim.put("a", 1)
        sim.work(1)

    undisturbed(scenario)
    assert [True] == cancelled


def test_a_worker_ends_with_its_run() -> None:
    """Whatever it has left to do."""
    workers: list[nsqlite.Worker] = []

    def scenario(sim: Simulation) -> None:
        workers.append(sim.worker("a", "b", lambda _message: sim.work(60)))
        sim.put("a", 1)
        sim.work(1)
        assert workers[0].running

    undisturbed(scenario)
    assert [False] == [worker.running for worker in workers]
