"""Turns: one at a time runs, and none is left."""

import threading
from collections.abc import Callable, Iterator

import pytest

from nsqlite.clock import held_semaphore
from nsqlite.testing.simulation.turns import Actor, Pool, Turns, Unwound


class Stage:
    """Turns in which whoever can goes on, the one first that came first."""

    def __init__(self) -> None:
        self.pool = Pool()
        self.turns = Turns(self.pool, self.decide)
        self.told: list[object] = []

    def decide(self) -> Actor:
        others = [*self.turns.actors][::-1]
        return next(actor for actor in others if actor.can_go())

    def begin(self, call: Callable[[], object]) -> None:
        self.turns.add(Actor(f"actor {len(self.turns.actors)}", call))

    def wait(self) -> None:
        self.turns.wait("a test", lambda: True)


@pytest.fixture
def stage() -> Iterator[Stage]:
    stage = Stage()
    yield stage
    stage.turns.close()
    stage.pool.close(wait=True)
    assert not [one for one in threading.enumerate() if one.name == "simulation"]


def names(stage: Stage) -> list[str]:
    return [actor.name for actor in stage.turns.actors]


class TestTurns:
    def test_an_actor_runs_in_a_thread_of_its_own(self, stage: Stage) -> None:
        """The one that waits goes on when it has ended."""
        stage.begin(lambda: stage.told.append(threading.get_ident()))
        stage.wait()
        assert stage.told != [threading.get_ident()]
        assert ["main"] == names(stage)

    def test_what_does_not_wait_needs_one_thread(self, stage: Stage) -> None:
        """The next actor begins where the last has ended."""
        for _ in range(3):
            stage.begin(lambda: stage.told.append(threading.get_ident()))
        stage.wait()
        assert 3 == len(stage.told)
        assert 1 == len(set(stage.told))

    def test_a_thread_is_used_again(self, stage: Stage) -> None:
        """For an actor that comes later."""
        for _ in range(2):
            stage.begin(lambda: stage.told.append(threading.get_ident()))
            stage.wait()
        assert 1 == len(set(stage.told))

    def test_who_waits_goes_on_when_it_can(self, stage: Stage) -> None:
        """And not before."""

        def first() -> None:
            stage.turns.wait("the second", lambda: "second" in stage.told)
            stage.told.append("first")

        def second() -> None:
            stage.told.append("second")

        stage.begin(second)
        stage.begin(first)
        stage.wait()
        assert ["second", "first"] == stage.told

    def test_what_an_actor_raises_comes_to_the_main_one(self, stage: Stage) -> None:
        """The first that is raised; whoever else waits is ended by `close`."""

        def fail() -> None:
            raise LookupError("first")

        stage.begin(fail)
        with pytest.raises(LookupError, match="first"):
            stage.wait()
        stage.turns.fail(LookupError("second"))
        with pytest.raises(LookupError, match="first"):
            stage.wait()

    def test_what_deciding_raises_comes_to_the_main_one(self, stage: Stage) -> None:
        """Whoever decided."""
        stage.begin(lambda: stage.turns.wait("nothing", lambda: False))
        with pytest.raises(StopIteration):
            stage.turns.wait("nothing", lambda: False)

    def test_close_ends_those_that_wait(self, stage: Stage) -> None:
        """Each wait of theirs raises, one more in their `finally`, too."""

        def stubborn() -> None:
            try:
                stage.turns.wait("nothing", lambda: False)
            finally:
                try:
                    stage.turns.wait("nothing", lambda: False)
                except Unwound:
                    stage.told.append("unwound")
                    stage.begin(lambda: stage.told.append("too late"))

        for _ in range(2):
            stage.begin(stubborn)
        stage.wait()
        stage.begin(lambda: stage.told.append("never begun"))
        stage.turns.close()
        assert ["unwound", "unwound"] == stage.told

    def test_a_thread_that_is_interrupted_has_lost_the_turn(self, stage: Stage) -> None:
        """It gets it back at the end, when the other one waits or has ended."""

        class Interrupted:
            def __init__(self) -> None:
                self.lock = held_semaphore()

            def acquire(self, timeout: float | None = None) -> bool:
                if timeout is None:
                    raise KeyboardInterrupt
                return self.lock.acquire()

            def release(self) -> None:
                self.lock.release()

        stage.turns.main.go = Interrupted()  # type: ignore[misc, assignment]  # as a signal would
        stage.begin(lambda: None)
        with pytest.raises(KeyboardInterrupt):
            stage.wait()
        assert stage.turns.lost
        stage.turns.close()
        assert not stage.turns.lost
