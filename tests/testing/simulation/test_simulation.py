"""What a simulation finds, what it prints, and what it leaves alone."""

import asyncio
import logging
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from functools import partial
from typing import Any, Final

import hypothesis
import pytest

import nsqlite
from nsqlite.clock import held_semaphore
from nsqlite.errors import Closed, InvalidName, InvalidOption, StoreFull
from nsqlite.message import Message
from nsqlite.options import SECOND
from nsqlite.testing import (
    FakeBroker,
    Schedule,
    Simulation,
    SimulationFailed,
    schedules,
    simulate,
)
from nsqlite.testing.simulation.story import (
    FAULT_KINDS,
    Deadlock,
    FaultKind,
    NeverIdle,
    NotAwaited,
    NotRepeatable,
    NotScheduled,
    StaleReplay,
)

Scenario = Callable[[Simulation], object]


def failure(scenario: Scenario, **options: Any) -> SimulationFailed:
    """Return how a scenario fails."""
    with pytest.raises(SimulationFailed) as caught:
        simulate(scenario, **options)
    return caught.value


def replayed(failed: SimulationFailed, **names: Scenario) -> SimulationFailed:
    """Return what the line does that a failure has printed."""
    with pytest.raises(SimulationFailed) as caught:
        exec(str(failed).splitlines()[-1].strip(), {"nsqlite": nsqlite, **names})  # noqa: S102 - it is what a user does
    return caught.value


def at(scenario: Any) -> str:
    """Return what a line says of a scenario that is not found by its name everywhere."""
    code = scenario.__code__
    return f"{scenario.__qualname__} at {__file__}:{code.co_firstlineno}"


# Four bugs


def counts_twice(sim: Simulation) -> None:
    """A handler that is not idempotent."""
    sold: list[int] = []

    def sell(message: Message[int]) -> None:
        sold.append(message.body)

    sim.worker("orders", "billing", sell)
    for number in range(3):
        sim.put("orders", number)
    sim.run()
    assert [0, 1, 2] == sorted(sold)


def counts_once(sim: Simulation) -> None:
    sold: dict[str, int] = {}

    def sell(message: Message[int]) -> None:
        sold.setdefault(message.id, message.body)

    sim.worker("orders", "billing", sell)
    for number in range(3):
        sim.put("orders", number)
    sim.run()
    assert [0, 1, 2] == sorted(sold.values())


def trusts_the_order(sim: Simulation) -> None:
    """A handler that takes the last message for the newest."""
    price = {"tea": 0}

    def change(message: Message[int]) -> None:
        price["tea"] = message.body

    sim.worker("prices", "shop", change)
    for number in range(1, 4):
        sim.put("prices", number)
    sim.run()
    assert 3 == price["tea"]


def knows_the_newest(sim: Simulation) -> None:
    price = {"tea": 0}

    def change(message: Message[int]) -> None:
        price["tea"] = max(price["tea"], message.body)

    sim.worker("prices", "shop", change)
    for number in range(1, 4):
        sim.put("prices", number)
    sim.run()
    assert 3 == price["tea"]


def slow_work(sim: Simulation, *, touches: bool) -> None:
    busy: set[int] = set()

    def export(message: Message[int]) -> None:
        assert message.body not in busy, f"two handlers export {message.body}"
        busy.add(message.body)
        try:
            for _ in range(2):
                sim.work(25)
                if touches:
                    message.touch()
        finally:
            busy.remove(message.body)

    options: Any = {"concurrency": 2, "auto_touch": False, "msg_timeout": 60}
    sim.worker("exports", "disk", export, **options)
    sim.put("exports", 1)
    sim.run()


def never_touches(sim: Simulation) -> None:
    """A handler that usually needs a little less time than it has."""
    slow_work(sim, touches=False)


def touches(sim: Simulation) -> None:
    slow_work(sim, touches=True)


SLOW: Final[tuple[FaultKind, ...]] = ("slow", "deliver twice", "drop", "reorder", "fill disk")
"""All but those after which no handler can prevent that its message comes to a second one."""


def pages(sim: Simulation, *, room: int) -> None:
    channel = sim.broker.topic("pages").channel("crawler", max_depth=room)
    seen: set[str] = set()

    def crawl(message: Message[str]) -> None:
        sim.work(1)
        if message.body not in seen and len(message.body) < 3:
            for link in "ab":
                sim.put("pages", message.body + link)
        seen.add(message.body)

    sim.worker("pages", "crawler", crawl, concurrency=2)
    sim.put("pages", "")
    sim.run()
    assert 0 == channel.depth


def waits_for_itself(sim: Simulation) -> None:
    """A handler that puts to a full channel which only it empties."""
    pages(sim, room=2)


def has_room(sim: Simulation) -> None:
    pages(sim, room=100)


class TestTheFourBugs:
    def test_it_finds_a_handler_that_is_not_idempotent(self) -> None:
        """One message that comes twice is enough."""
        failed = failure(counts_twice)
        assert ["dies after its work, before FIN of 0"] == [
            step.what for step in failed.steps if step.struck
        ]
        assert replayed(failed, counts_twice=counts_twice).steps == failed.steps

    def test_it_finds_a_handler_that_trusts_the_order(self) -> None:
        """One message that comes before another is enough."""
        failed = failure(trusts_the_order)
        assert 1 == len([step for step in failed.steps if step.struck])
        assert replayed(failed, trusts_the_order=trusts_the_order).steps == failed.steps

    def test_it_finds_a_missing_touch(self) -> None:
        """A handler that is slow once has its message given to another one."""
        failed = failure(never_touches, faults=SLOW)
        assert ["is slow: takes 50 s instead of 25 s"] == [
            step.what for step in failed.steps if step.struck
        ]
        assert replayed(failed, never_touches=never_touches).steps == failed.steps

    def test_it_finds_a_deadlock(self) -> None:
        """It tells who waits for room that nobody will make."""
        failed = failure(waits_for_itself)
        assert str(failed.__cause__).startswith(
            "nobody can go on: put() would wait here for its own end: pages:crawler is full"
            " (max_depth=2), and who could make room are handlers of its messages that wait to put"
            " there"
        )
        assert failed.schedule == Schedule()
        assert replayed(failed, waits_for_itself=waits_for_itself).steps == failed.steps

    @pytest.mark.parametrize(
        ("scenario", "faults"),
        [
            (counts_once, FAULT_KINDS),
            (knows_the_newest, FAULT_KINDS),
            (touches, SLOW),
            (has_room, FAULT_KINDS),
        ],
    )
    def test_what_is_fixed_holds(self, scenario: Scenario, faults: tuple[FaultKind, ...]) -> None:
        """A thousand schedules find nothing, and faults did strike in them."""
        played = simulate(scenario, faults=faults)
        assert 1000 == played.schedules
        assert played.struck["drop"] + played.struck["deliver twice"] > 100


def one_message(sim: Simulation, handler: Callable[[Message[Any]], object], **options: Any) -> None:
    """Have a handler called with one message."""
    sim.worker("orders", "billing", handler, **options)
    sim.put("orders", "a tea")
    sim.run()


class TestWhatAFailureShows:
    def test_it_is_a_story_and_a_line(self) -> None:
        """The cause is what the scenario raised; its traceback begins there."""

        def scenario(sim: Simulation) -> None:
            calls: list[int] = []
            one_message(sim, lambda message: calls.append(message.attempts))
            if calls != [1]:
                raise LookupError(calls)

        failed = failure(scenario)
        found = "scenario fails under schedule 3 of 1000 (seed 0), and under 1:1, the smallest of 3"
        assert "\n".join(
            [
                f"{found}: LookupError: [1, 2]",
                "",
                "   1.     0.000 s   main: puts 'a tea' to orders",
                "   2.     0.000 s   orders:billing-1: gets 'a tea', attempt 1",
                "   3.     0.000 s ! orders:billing-1: dies after its work, before FIN of 'a tea'",
                "   4.     0.000 s   orders:billing-1: gets 'a tea', attempt 2",
                "   5.     0.000 s   orders:billing: finishes 'a tea'",
                "",
                "To play it again:",
                f"    nsqlite.testing.simulate(scenario, replay='1:1')  # scenario: {at(scenario)}",
            ]
        ) == str(failed)
        cause = failed.__cause__
        assert isinstance(cause, LookupError)
        assert cause.__traceback__ is not None
        assert cause.__traceback__.tb_frame.f_code is scenario.__code__

    def test_the_line_has_what_differs_from_the_defaults(self) -> None:
        """So it plays the same run."""

        def scenario(_sim: Simulation) -> None:
            raise LookupError

        failed = failure(scenario, faults=["deliver twice", "drop"], max_faults=1, limit=9)
        assert (
            "nsqlite.testing.simulate(scenario, replay='', faults=['deliver twice', 'drop'],"
            f" max_faults=1, limit=9)  # scenario: {at(scenario)}"
        ) == failed.line
        assert str(failed).startswith("scenario fails undisturbed: LookupError: ")

    def test_the_line_says_where_a_scenario_is_that_has_no_name(self) -> None:
        """A lambda, a bound method, a partial or any other callable: the user puts it there."""

        class Shop:
            def check(self, _sim: Simulation) -> None:
                raise LookupError

            def __call__(self, sim: Simulation) -> None:
                self.check(sim)

        nameless: Any = lambda sim: Shop().check(sim)  # noqa: E731 - for the test
        line = "nsqlite.testing.simulate(scenario, replay='')  # scenario:"
        for scenario, place in [
            (nameless, at(nameless)),
            (Shop().check, at(Shop.check)),
            (partial(Shop.check, Shop()), at(Shop.check)),
            (Shop(), at(Shop.__call__)),
            (partial(int, "none"), "type.__call__"),
        ]:
            with pytest.raises(SimulationFailed) as caught:
                simulate(scenario, replay="")
            assert f"{line} {place}" == caught.value.line

    def test_the_line_of_a_function_of_a_module_can_be_pasted(self) -> None:
        """It has a name."""
        failed = failure(counts_twice, faults=["deliver twice"])
        line = "nsqlite.testing.simulate(counts_twice, replay='5:1', faults=['deliver twice'])"
        assert line == failed.line

    def test_a_replay_says_only_that_it_fails(self) -> None:
        """A schedule may be given instead of its text; one that holds is played once."""
        failed = failure(counts_twice, replay=failure(counts_twice).schedule)
        assert str(failed).startswith("counts_twice fails: AssertionError")
        assert 1 == simulate(counts_twice, replay="").schedules

    def test_the_worker_logs_only_in_the_run_that_is_shown(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        """What was only tried is silent."""

        def scenario(sim: Simulation) -> None:
            one_message(
                sim, lambda message: [][message.attempts], retry=nsqlite.Retry(max_attempts=2)
            )
            assert 1 == sim.broker.topic("orders").channel("billing").depth

        with caplog.at_level(logging.ERROR):
            failure(scenario)
        assert [True] == ["is given up" in record.getMessage() for record in caplog.records]


class TestStaleReplays:
    def test_a_choice_that_was_never_reached_fails(self) -> None:
        """Else a scenario that has changed would seem to be mended."""
        failed = failure(counts_once, replay="99:1")
        assert isinstance(failed.__cause__, StaleReplay)
        assert str(failed).startswith(
            "counts_once does not fail: StaleReplay: choice 99 was never reached, there were 10:"
            " the scenario has changed, or the line is of another one"
        )
        assert "nsqlite.testing.simulate(counts_once, replay='99:1')" == failed.line

    def test_a_choice_that_could_not_be_made_fails(self) -> None:
        """As that of a fault that cannot strike there."""
        failed = failure(counts_once, replay="0:99", faults=["drop"])
        assert (
            "choice 0 could not be 99, its last alternative is 1: the scenario has changed, or the"
            " line is of another one"
        ) == str(failed.__cause__)

    def test_a_failure_of_the_scenario_comes_first(self) -> None:
        """It says that it may be another one, and its line is what was played."""
        failed = failure(counts_twice, replay=f"{failure(counts_twice).schedule} 99:1")
        assert str(failed).startswith("counts_twice fails, though choice 99 was never reached, ")
        assert failure(counts_twice).schedule == failed.schedule

    def test_what_is_not_exact_may_choose_what_is_not_there(self) -> None:
        """As what Hypothesis draws."""
        assert 1 == simulate(counts_once, replay=Schedule("99:1", exact=False)).schedules


class TestSeeds:
    def test_the_same_seed_finds_the_same(self) -> None:
        """Another one plays other schedules."""
        played = [simulate(counts_once, schedules=50, seed=seed) for seed in (1, 1, 2)]
        assert played[0] == played[1]
        assert played[0] != played[2]

    def test_no_faults_leave_the_interleavings(self) -> None:
        """They are no faults."""

        def scenario(sim: Simulation) -> None:
            order: list[str] = []
            sim.spawn(lambda: order.append("a"), "a")
            sim.spawn(lambda: order.append("b"))
            sim.run()
            assert ["a", "b"] == order

        failed = failure(scenario, faults=())
        assert ["<lambda> goes on first"] == [step.what for step in failed.steps]
        assert "nsqlite.testing.simulate(scenario, replay='0:1', faults=[])  #" in failed.line

    @pytest.mark.parametrize("kind", sorted(FAULT_KINDS))
    def test_each_fault_strikes(self, kind: FaultKind) -> None:
        """It alone if it is asked for, and no more often than it may."""

        def scenario(sim: Simulation) -> None:
            def handler(message: Message[Any]) -> None:
                sim.work(1)
                if message.body != "again":
                    sim.put("orders", "again")

            sim.put("orders", 0)
            sim.put("orders", 1)
            sim.worker("orders", "billing", handler, auto_touch=False)
            sim.run()

        played = simulate(scenario, faults=[kind], max_faults=1)
        assert {kind} == set(played.struck)
        assert 50 < played.struck[kind] <= 1000
        assert 1 < played.different < 20


class TestFaults:
    def test_a_full_disk_is_what_the_handler_gets(self) -> None:
        """It has put nothing, and the message is tried again."""

        def scenario(sim: Simulation) -> None:
            errors: list[str] = []
            sim.broker.topic("mails").channel("send")

            def bill(_message: Message[Any]) -> None:
                try:
                    sim.broker.topic("mails").put_many(["a", "b"])
                except StoreFull as error:
                    errors.append(str(error))
                    raise

            one_message(sim, bill)
            assert 2 == sim.broker.topic("mails").channel("send").depth
            assert not errors, errors

        failed = failure(scenario, faults=["fill disk"])
        assert str(failed.__cause__).startswith("['store of the simulation: the disk is full']")
        assert "puts 2 messages to mails, and the disk is full" in str(failed)

    def test_a_time_out_gives_the_message_to_another_slot(self) -> None:
        """Where the worker does not touch it by itself."""

        def scenario(sim: Simulation) -> None:
            calls: list[int] = []

            def export(message: Message[Any]) -> None:
                calls.append(message.attempts)
                sim.work()

            one_message(sim, export, auto_touch=False)
            assert [1] == calls

        failed = failure(scenario, faults=["time out"])
        assert [
            "is stuck: takes 61 s",
            "'a tea' times out",
        ] == [step.what for step in failed.steps[2:4]]

    def test_a_clock_that_jumps_does_so_too(self) -> None:
        """By a little more than the longest time-out."""

        def scenario(sim: Simulation) -> None:
            begun = sim.clock.time()
            one_message(sim, lambda _message: sim.work(1))
            assert sim.clock.time() == begun + 1

        failed = failure(scenario, faults=["jump"])
        assert ["    0.000 s ! schedule: the clock jumps by 61 s"] == [
            str(step) for step in failed.steps if step.struck
        ]

    @pytest.mark.parametrize("kind", ["time out", "jump"])
    def test_two_busy_slots_pay_twice(self, kind: FaultKind) -> None:
        """The first one that is free takes the message while its handler still works."""

        def scenario(sim: Simulation) -> None:
            paid: list[int] = []

            def pay(message: Message[int]) -> None:
                if message.body not in paid:
                    sim.work(5)
                    paid.append(message.body)

            sim.worker("orders", "billing", pay, concurrency=2, auto_touch=False)
            for number in range(2):
                sim.put("orders", number)
            sim.run()
            assert len(paid) == len(set(paid))

        failed = failure(scenario, faults=[kind])
        assert isinstance(failed.__cause__, AssertionError)

    def test_a_dropped_handler_gets_no_further(self) -> None:
        """Not even in its `finally`; its message comes again, one attempt more."""

        def scenario(sim: Simulation) -> None:
            done: list[object] = []

            def bill(message: Message[Any]) -> None:
                try:
                    sim.work(1)
                    done.append(message.attempts)
                finally:
                    sim.work(1)
                    done.append("end")

            one_message(sim, bill)
            assert [1, "end"] == done

        failed = failure(scenario, faults=["drop"], max_faults=1)
        assert str(failed.__cause__).startswith("assert [1, 'end'] == [2, 'end']")


class TestActors:
    def test_a_put_that_waits_for_room_lets_others_go_on(self) -> None:
        """In the scenario, in an actor, with a time-out or without."""

        def scenario(sim: Simulation) -> None:
            handled: list[int] = []
            topic = sim.broker.topic("orders")
            topic.channel("billing", max_depth=1)

            def publish() -> None:
                for number in range(3):
                    topic.put(number)
                with pytest.raises(nsqlite.Full):
                    topic.put_many([4, 5], timeout=0.5)

            def bill(message: Message[int]) -> None:
                sim.work(1)
                handled.append(message.body)

            sim.worker("orders", "billing", bill)
            sim.spawn(publish)
            topic.put(3, timeout=60)
            sim.run()
            assert {0, 1, 2, 3} == set(handled)

        assert 100 == simulate(scenario, schedules=100, faults=["slow"]).schedules

    def test_a_circle_of_two_channels_is_a_deadlock(self) -> None:
        """It is told who waits for room, and what is left to do."""

        def scenario(sim: Simulation) -> None:
            for name in "ab":
                sim.broker.topic(name).channel("x", max_depth=1)

            def pass_on(message: Message[str]) -> None:
                for _ in range(2):
                    sim.put(message.body, "b" if message.body == "a" else "a")

            sim.worker("a", "x", pass_on)
            sim.worker("b", "x", pass_on)
            sim.worker("idle", "x", pass_on)
            sim.put("a", "b")
            sim.run()

        failed = failure(scenario)
        assert isinstance(failed.__cause__, Deadlock)
        assert (
            "a:x-1 waits in put() to topic 'b'",
            "b:x-1 waits in put() to topic 'a'",
            "put to a waits for room in a:x for 0 s: max_depth=1, 1 ready, 1 in flight, 1 consumer",
            "put to b waits for room in b:x for 0 s: max_depth=1, 1 ready, 1 in flight, 1 consumer",
            "a:x has 1 ready, 1 in flight, 0 deferred, 1 of its 1 slots at work",
            "b:x has 1 ready, 1 in flight, 0 deferred, 1 of its 1 slots at work",
        ) == failed.__cause__.waiting

    def test_a_run_that_never_ends_is_ended(self) -> None:
        """After so many steps, with what is left to do."""

        def scenario(sim: Simulation) -> None:
            one_message(sim, lambda _message: nsqlite.Requeue(1, counted=False))

        failed = failure(scenario, limit=50)
        assert (
            "not idle after 50 steps: orders:billing has 1 ready, 0 in flight, 0 deferred, 0 of its"
            " 1 slots at work"
        ) == str(failed.__cause__)

    def test_an_actor_that_never_ends_is_told_of(self) -> None:
        """Though no worker has anything to do."""

        def scenario(sim: Simulation) -> None:
            def spin() -> None:
                while True:
                    sim.work(1)

            sim.spawn(spin)
            sim.run()

        failed = failure(scenario, limit=50)
        assert isinstance(failed.__cause__, NeverIdle)
        assert "not idle after 50 steps: it still runs" == str(failed.__cause__)

    def test_no_thread_is_left(self) -> None:
        """Nor is one left that waits for ever."""

        def scenario(sim: Simulation) -> None:
            one_message(
                sim, lambda _message: sim.broker.topic("x").channel("y").join() or sim.work(9)
            )
            sim.spawn(lambda: nsqlite.Consumer(sim.broker.topic("x").channel("y")).get())
            sim.work(1)

        before = threading.active_count()
        simulate(scenario, schedules=20)
        assert threading.active_count() <= before

    @pytest.mark.parametrize("error", [Deadlock, NeverIdle, LookupError, KeyboardInterrupt])
    def test_no_thread_is_left_after_a_failure(self, error: type[BaseException]) -> None:
        """Whatever the run has failed with, and though an actor still waits."""

        def scenario(sim: Simulation) -> None:
            consumer = nsqlite.Consumer(sim.broker.topic("x").channel("y"))
            sim.spawn(lambda: consumer.get(timeout=None if error is Deadlock else 1e6))
            sim.work(1)
            if error is NeverIdle:
                one_message(sim, lambda _message: nsqlite.Requeue(1, counted=False))
            if error is Deadlock:
                sim.run()
            raise error

        before = threading.active_count()
        with pytest.raises((SimulationFailed, KeyboardInterrupt)) as caught:
            simulate(scenario, limit=50)
        assert error is type(caught.value.__cause__ or caught.value)
        assert before >= threading.active_count()

    def test_a_thread_of_its_own_cannot_wait_on_the_clock(self) -> None:
        """It and the run are told what can."""

        def scenario(sim: Simulation) -> None:
            errors: list[BaseException] = []

            def wait() -> None:
                try:
                    nsqlite.Consumer(sim.broker.topic("x").channel("y")).get(timeout=1)
                except Deadlock as error:
                    errors.append(error)

            thread = threading.Thread(target=wait)
            thread.start()
            thread.join()
            assert 1 == len(errors)

        assert (
            "nobody can go on: get() on channel 'y' of topic 'x', in a thread that is none of the"
            " simulation's: see `spawn`"
        ) == str(failure(scenario, schedules=1).__cause__)

    def test_a_plain_function_may_await_its_work(self) -> None:
        """There is nothing left to wait for."""

        async def wait(sim: Simulation) -> None:
            await sim.work(1)

        def scenario(sim: Simulation) -> None:
            with pytest.raises(StopIteration):
                wait(sim).send(None)
            assert 1_000_000_000 == sim.clock.monotonic_ns()

        simulate(scenario, schedules=1)

    def test_a_release_without_a_wait_costs_no_turn(self) -> None:
        """A wait whose end has come already."""

        def scenario(sim: Simulation) -> None:
            semaphore = threading.Lock()
            assert sim.clock.wait(semaphore, None, "a test")
            assert not sim.clock.wait(semaphore, 0, "a test")

        simulate(scenario, schedules=1)


class Interrupted:
    """A lock whose first wait is interrupted by a signal."""

    def __init__(self, *, stuck: bool = False) -> None:
        self.lock = held_semaphore()
        self.stuck = stuck
        self.waits = 0

    def acquire(self, timeout: float = -1) -> bool:
        self.waits += 1
        if self.waits == 1:
            raise KeyboardInterrupt
        return not self.stuck and self.lock.acquire(timeout=timeout)

    def release(self) -> None:
        self.lock.release()


def generated(_sim: Simulation) -> Iterator[None]:
    """Would not run."""
    yield


async def awaited(_sim: Simulation) -> None:
    """Would not run."""


async def generated_async(_sim: Simulation) -> AsyncIterator[None]:
    """Would not run."""
    yield


class TestWhatFails:
    def test_what_an_actor_raises_fails_the_run(self) -> None:
        """Also if it is none of `Exception`, and if the scenario swallows it."""

        def scenario(sim: Simulation) -> None:
            def leave() -> None:
                raise SystemExit(3)

            sim.spawn(leave)
            try:
                sim.run()
            except SystemExit:
                pass

        assert isinstance(failure(scenario).__cause__, SystemExit)

    def test_an_assertion_in_a_handler_fails_the_run(self) -> None:
        """It is not tried again."""

        def bill(message: Message[Any]) -> None:
            raise AssertionError(message.attempts)

        failed = failure(lambda sim: one_message(sim, bill))
        assert failed.__cause__ is not None
        assert (1,) == failed.__cause__.args

    def test_what_a_handler_ends_its_worker_with_fails_the_run(self) -> None:
        """As `SystemExit` does."""

        def bill(_message: Message[Any]) -> None:
            raise SystemExit(3)

        failed = failure(lambda sim: one_message(sim, bill))
        assert isinstance(failed.__cause__, SystemExit)
        assert [
            "puts 'a tea' to orders",
            "gets 'a tea', attempt 1",
            "raises SystemExit(3)",
        ] == [step.what for step in failed.steps]

    def test_what_a_coroutine_ends_its_worker_with_fails_the_run(self) -> None:
        """It is told, too."""

        async def bill(_message: Message[Any]) -> None:
            raise SystemExit(3)

        failed = failure(lambda sim: one_message(sim, bill))
        assert isinstance(failed.__cause__, SystemExit)
        assert "raises SystemExit(3)" == failed.steps[-1].what

    @pytest.mark.parametrize("raised", [None, nsqlite.Requeue(1)])
    def test_work_that_is_not_awaited_fails_the_run(self, raised: Exception | None) -> None:
        """For no time has passed, and nobody else had the turn."""

        def scenario(sim: Simulation) -> None:
            async def bill(_message: Message[Any]) -> None:
                work: Any = sim.work
                work(1.5)
                if raised is not None:
                    raise raised

            one_message(sim, bill)

        failed = failure(scenario)
        assert isinstance(failed.__cause__, NotAwaited)
        assert (
            "the handler in orders:billing-1 did not await sim.work(1.5): in a coroutine, await"
            " sim.work(1.5)"
        ) == str(failed.__cause__)

    def test_work_may_be_awaited_elsewhere(self) -> None:
        """Later, by `gather`, or by a task that has not begun when the handler returns."""

        def scenario(sim: Simulation) -> None:
            async def bill(_message: Message[Any]) -> None:
                later = sim.work(1)
                await asyncio.gather(sim.work(1), sim.work(2))
                await later
                tasks.append(asyncio.ensure_future(sim.work(1)))

            tasks: list[object] = []
            one_message(sim, bill)

        assert 20 == simulate(scenario, schedules=20).schedules

    @pytest.mark.parametrize("faults", [("slow",), FAULT_KINDS])
    def test_wrong_use_of_it_in_a_handler_fails_the_run(self, faults: Any) -> None:
        """It is not tried again; whatever the handler catches."""

        def scenario(sim: Simulation) -> None:
            def bill(_message: Message[Any]) -> None:
                with suppress(InvalidOption):
                    sim.work("x")  # type: ignore[arg-type]  # for the test

            one_message(sim, bill)

        failed = failure(scenario, faults=faults)
        assert isinstance(failed.__cause__, InvalidOption)
        assert "seconds must be a finite number of seconds, at least 0, not 'x'" == str(
            failed.__cause__
        )

    def test_a_wrong_name_in_a_handler_fails_the_run(self) -> None:
        """In the scenario it may be caught."""

        def scenario(sim: Simulation) -> None:
            with pytest.raises(InvalidName):
                sim.put("no name", 1)
            one_message(sim, lambda _message: sim.put("no name", 1))

        failed = failure(scenario)
        assert isinstance(failed.__cause__, InvalidName)
        assert ["gets 'a tea', attempt 1"] == [
            one.what for one in failed.steps if "gets" in one.what
        ]

    def test_what_interrupts_the_scenario_goes_on(self) -> None:
        """It is no failure."""

        def scenario(_sim: Simulation) -> None:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            simulate(scenario)

    def test_what_interrupts_a_wait_goes_on_too(self) -> None:
        """Then another thread has the turn, and gives it back before it ends."""

        def scenario(sim: Simulation) -> None:
            sim._turns.main.go = Interrupted()  # type: ignore[misc, assignment]  # as a signal would
            sim.spawn(lambda: sim.work(1))
            sim.run()

        before = threading.active_count()
        with pytest.raises(KeyboardInterrupt):
            simulate(scenario)
        assert before >= threading.active_count()

    def test_a_thread_that_is_stuck_is_not_waited_for(self) -> None:
        """After an interrupt; it ends when it can."""
        go = threading.Event()

        def scenario(sim: Simulation) -> None:
            sim._turns.main.go = Interrupted(stuck=True)  # type: ignore[misc, assignment]  # for the test
            sim.spawn(go.wait)
            sim.run()

        with pytest.raises(KeyboardInterrupt):
            simulate(scenario)
        left = [one for one in threading.enumerate() if one.name == "simulation"]
        go.set()
        for thread in left:
            thread.join()
        assert 1 == len(left)

    def test_chance_is_noticed_in_the_undisturbed_run(self) -> None:
        """It tells the first step that is not the same."""
        numbers = iter(range(100))

        def scenario(sim: Simulation) -> None:
            sim.put("orders", next(numbers))

        failed = failure(scenario)
        assert isinstance(failed.__cause__, NotRepeatable)
        assert (
            "the same choices made another run: the scenario must be played anew by each call, and"
            " use no time, no chance without a seed and no thread of its own; before:     0.000 s  "
            " main: puts 0 to orders; now:     0.000 s   main: puts 1 to orders"
        ) == str(failed.__cause__)

    def test_chance_is_noticed_in_a_run_that_failed(self) -> None:
        """When it is played again and holds."""
        runs = iter(range(100))

        def scenario(_sim: Simulation) -> None:
            assert next(runs) != 5

        failed = failure(scenario)
        assert isinstance(failed.__cause__, NotRepeatable)
        assert ("AssertionError", "no error") == (failed.__cause__.before, failed.__cause__.now)

    def test_it_refuses_what_is_no_scenario(self) -> None:
        """A coroutine function would never run."""

        async def scenario(_sim: Simulation) -> None: ...

        with pytest.raises(InvalidOption) as caught:
            simulate(scenario)
        assert ("scenario", scenario) == (caught.value.option, caught.value.value)

    def test_it_refuses_a_generator_function(self) -> None:
        """As a scenario, and as an actor."""
        with pytest.raises(InvalidOption) as caught:
            simulate(generated)
        text = "scenario must be a plain function of a Simulation, not <function generated"
        assert str(caught.value).startswith(text)
        failed = failure(lambda sim: sim.spawn(partial(generated, sim)))
        text = "function must be a plain function, not functools.partial(<function generated"
        assert str(failed.__cause__).startswith(text)

    @pytest.mark.parametrize("made", [generated, awaited, generated_async])
    def test_it_refuses_what_has_run_nothing(self, made: Callable[[Simulation], object]) -> None:
        """A scenario or an actor has only made a coroutine or a generator."""
        with pytest.raises(InvalidOption) as caught:
            simulate(lambda sim: [made(sim)][0])
        expected = "a plain function that returns no coroutine or generator, not <function "
        assert str(caught.value).startswith(f"scenario must be {expected}")

        def scenario(sim: Simulation) -> None:
            sim.spawn(lambda: [made(sim)][0])
            sim.run()

        failed = failure(scenario)
        assert str(failed.__cause__).startswith(f"function must be {expected}")

    def test_what_a_scenario_returns_is_no_matter_else(self) -> None:
        """Also what `work` returns, which a plain function need not await."""
        assert 1 == simulate(lambda sim: sim.work(1), schedules=1).schedules

    def test_it_refuses_what_is_no_fault(self) -> None:
        """And a number that is none."""
        with pytest.raises(InvalidOption) as caught:
            simulate(counts_once, faults="deliver_twice")  # type: ignore[arg-type]  # for the test
        expected = (
            "faults must be one of deliver twice, drop, fill disk, jump, reorder, slow, time out"
            " (did you mean 'deliver twice'?), not 'deliver_twice'"
        )
        assert expected == str(caught.value)
        with pytest.raises(InvalidOption):
            simulate(counts_once, schedules=0)
        for seed in ("x", None, [1]):
            with pytest.raises(InvalidOption) as caught:
                simulate(counts_once, seed=seed)  # type: ignore[arg-type]  # for the test
            assert f"seed must be a whole number, not {seed!r}" == str(caught.value)

    @pytest.mark.parametrize(
        ("given", "meant"),
        [
            ("twize", " (did you mean 'deliver twice'?)"),
            ("disk full", " (did you mean 'fill disk'?)"),
            ("timeout", " (did you mean 'time out'?)"),
            ("xyz", ""),
            (1, ""),
            (None, ""),
            ([], ""),
        ],
    )
    def test_it_names_the_faults(self, given: Any, meant: str) -> None:
        """With the nearest, by its name, or by a word of it."""
        with pytest.raises(InvalidOption) as caught:
            simulate(counts_once, faults=[given])
        assert str(caught.value).endswith(f"time out{meant}, not {given!r}")

    @pytest.mark.parametrize("given", [5, None])
    def test_it_takes_several_faults(self, given: Any) -> None:
        """One name alone is one of them."""
        with pytest.raises(InvalidOption) as caught:
            simulate(counts_once, faults=given)
        names = "deliver twice, drop, fill disk, jump, reorder, slow, time out"
        assert f"faults must be some of {names}, not {given}" == str(caught.value)

    @pytest.mark.parametrize(
        ("call", "name"),
        [
            (lambda broker: broker.run_until_idle(), "run_until_idle()"),
            (lambda broker: broker.clock.run_until_idle(), "run_until_idle()"),
            (lambda broker: asyncio.run(broker.until_idle()), "until_idle()"),
            (lambda broker: broker.drain(), "drain()"),
            (lambda broker: broker.run_one(), "run_one()"),
        ],
    )
    def test_what_calls_handlers_in_a_test_is_refused(
        self, call: Callable[[FakeBroker], object], name: str
    ) -> None:
        """It would call none of the simulation's; in a handler it is not tried again."""
        expected = f"{name} runs nothing in a simulation, where the schedule decides: sim.run()"
        scenarios: list[Scenario] = [
            lambda sim: call(sim.broker),
            lambda sim: one_message(sim, lambda _message: call(sim.broker)),
        ]
        for scenario in scenarios:
            failed = failure(scenario)
            assert isinstance(failed.__cause__, NotScheduled)
            assert expected == str(failed.__cause__)

    def test_a_join_with_a_timeout_lets_handlers_go_on(self) -> None:
        """And ends when it is idle, or the time is over."""

        def scenario(sim: Simulation) -> None:
            topic = sim.broker.topic("orders")
            channel = topic.channel("billing")
            topic.put("a tea")
            assert not channel.join(timeout=2)
            assert 2 == sim.clock._elapsed // SECOND
            sim.worker("orders", "billing", lambda _message: sim.work(1))
            assert topic.join(timeout=2)
            assert 3 == sim.clock._elapsed // SECOND

        simulate(scenario, faults=[], schedules=20)

    def test_a_run_that_is_over_does_no_more(self) -> None:
        """What would run something says so."""
        kept: list[Simulation] = []
        simulate(kept.append, schedules=1)
        calls: list[Callable[[], object]] = [
            lambda: kept[0].work(1),
            lambda: kept[0].spawn(print),
            kept[0].run,
        ]
        for call in calls:
            with pytest.raises(Closed, match="the simulation is over"):
                call()


app: Final = nsqlite.App()


@app.handler(
    "orders",
    "billing",
    dead_letter="orders.dead",
    retry=nsqlite.Retry(max_attempts=3, backoff=nsqlite.Backoff()),
)
def bill(message: Message[int]) -> None:
    """Puts what another handler gets; fails on one message."""
    if message.body == 1:
        raise LookupError("no such customer")
    app.broker.topic("mails").put(message.body)


@app.handler("mails", "send", concurrency=2)
async def send(message: Message[int]) -> None:
    """Takes a moment."""
    await asyncio.sleep(1)
    sent[message.body] += 1


sent: Final[Counter[int]] = Counter()


def shop(sim: Simulation) -> None:
    """An app, as it is."""
    sent.clear()
    sim.start(app)
    for number in range(3):
        sim.put("orders", number)
    sim.run()
    letters = sim.broker.topic("orders.dead").channel("letters").peek(10)
    assert 1 in [letter.body.body for letter in letters]
    assert {0, 1, 2} == set(sent) | {letter.body.body for letter in letters}


class TestApps:
    def test_an_app_is_simulated_as_it_is(self) -> None:
        """With retries, backoff, dead letters and coroutines; it can run again afterwards."""
        assert 300 == simulate(shop, schedules=300).schedules
        with pytest.raises(Closed):
            _ = app.broker

    def test_one_that_runs_goes_on(self) -> None:
        """It is refused, and left to the broker that it works on."""
        with FakeBroker() as broker, app.running(broker):
            before = app.workers
            assert isinstance(failure(shop).__cause__, Closed)
            assert (broker, before) == (app.broker, app.workers)

    def test_run_starts_it(self) -> None:
        """What was put before is handled."""

        def scenario(sim: Simulation) -> None:
            sim.put("orders", 0)
            sim.run(app)
            assert sim.broker.topic("orders").idle

        assert 20 == simulate(scenario, schedules=20).schedules

    def test_it_can_be_called_in_a_running_loop(self) -> None:
        """Which it blocks; its own loop is another one."""

        async def main() -> None:
            assert 5 == simulate(shop, schedules=5).schedules
            await asyncio.sleep(0)

        asyncio.run(main())

    def test_a_bug_in_it_is_found(self) -> None:
        """A mail that is sent twice."""

        def scenario(sim: Simulation) -> None:
            shop(sim)
            assert sent[0] < 2

        assert 1 == len(failure(scenario).schedule.pairs)


class TestHypothesis:
    def test_hypothesis_finds_and_shrinks_it(self) -> None:
        """Its example is the schedule."""
        found: list[Schedule] = []

        @hypothesis.settings(database=None, deadline=None, max_examples=500)
        @hypothesis.seed(1)
        @hypothesis.given(schedules())
        def play(schedule: Schedule) -> None:
            found.append(schedule)
            simulate(counts_twice, replay=schedule)

        with pytest.raises(SimulationFailed):
            play()
        assert 1 == len(found[-1].pairs)
