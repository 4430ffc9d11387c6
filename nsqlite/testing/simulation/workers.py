"""The workers of a simulation: what gives a slot a message, and calls its handler.

The rule: a slot takes a message when the schedule says so; what becomes of it is then decided by
what every worker is made of, its supervisor and settler.

Next: testing/simulation/simulation.py
"""

import weakref
from asyncio import CancelledError, Task
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Protocol, cast

import attrs

from nsqlite.channel import Channel
from nsqlite.clock import NEVER, Alarm
from nsqlite.consumer import SAME, Consumer
from nsqlite.errors import Reentered, shown
from nsqlite.message import Message, State, T
from nsqlite.options import Seconds
from nsqlite.testing.manualclock import ManualClock
from nsqlite.testing.simulation.loop import SimLoop
from nsqlite.testing.simulation.story import Deadlock, FaultKind, short
from nsqlite.testing.simulation.turns import NOTHING, PLACE, Actor, Dropped, Place, Turns, Unwound
from nsqlite.topic import Topic
from nsqlite.worker import Worker
from nsqlite.worker.handler import is_coroutine
from nsqlite.worker.plan import Plan
from nsqlite.worker.retry import Retry
from nsqlite.worker.supervisor import Slot, Supervisor

if TYPE_CHECKING:
    from nsqlite.worker.worker import Runner


class Stage(Protocol):
    """What a worker needs of the simulation that it is in; see `Simulation`."""

    @property
    def clock(self) -> ManualClock:
        """Its clock."""
        ...

    @property
    def _turns(self) -> Turns:
        """Who has the turn."""
        ...

    def _alarm(self, moment: int) -> Alarm:
        """Have the clock stop at a moment on its way."""
        ...

    def _require_loop(self) -> SimLoop:
        """Return the event loop of its coroutines."""
        ...

    def _strike(self, *kinds: FaultKind) -> FaultKind | None:
        """Choose whether one of these faults strikes now."""
        ...

    def _switch(self) -> None:
        """Let others have the turn, if the schedule says so."""
        ...

    def _tell(self, what: str, *, who: str = "", struck: bool = False) -> None:
        """Add a step to the story."""
        ...

    def _require_awaited(self) -> None:
        """Fail the run if the handler that has just ended did not await what it had to."""
        ...


class SimConsumer(Consumer[T]):
    """A consumer whose answers by a handler are where others get the turn."""

    __slots__ = ("_stage",)

    def __init__(self, stage: Stage, channel: Channel[T], **options: Any) -> None:
        """Join a channel; see `Consumer`."""
        self._stage: Final = stage
        super().__init__(channel, **options)

    def fin(self, message: Message[T]) -> None:
        """See `Consumer.fin`."""
        self._answer(message, "finishes", partial(super().fin, message))

    def req(self, message: Message[T], delay: Seconds = 0) -> None:
        """See `Consumer.req`."""
        wait = f" for {delay:g} s" if delay else ""
        self._answer(message, f"requeues{wait}", partial(super().req, message, delay))

    def touch(self, message: Message[T]) -> None:
        """See `Consumer.touch`."""
        self._answer(message, "touches", partial(super().touch, message))

    def move(self, message: Message[T], to: Topic[Any] | Channel[Any], body: Any = SAME) -> str:
        """See `Consumer.move`."""
        moved: list[str] = []
        move = partial(super().move, message, to, body)
        self._answer(message, f"moves to {to.name}", lambda: moved.append(move()))
        return moved[0]

    def _answer(self, message: Message[T], what: str, answer: Callable[[], object]) -> None:
        place = PLACE.get()
        if place is not None:
            self._stage._switch()
        answer()
        who = (self.name or "") if place is None else place.name
        self._stage._tell(f"{what} {short(message.body)}", who=who)


class SimWorker:
    """What runs a `Worker` in a simulation; for the worker it is its runner.

    Attributes:
        kind: what its slots are, in a word.
        name: the worker's.
        timeout: nanoseconds that a message has.
        supervisor: see `nsqlite.worker.supervisor`.
    """

    kind: Final = "turns"

    def __init__(self, stage: Stage, worker: Worker) -> None:
        """Join the channel; the worker counts as started."""
        plan = _seeded(worker._plan)
        options: Final[dict[str, Any]] = {
            "max_in_flight": plan.window,
            "msg_timeout": plan.msg_timeout,
            "name": plan.name,
        }
        consumer: SimConsumer[Any] = SimConsumer(stage, worker.channel, **options)
        if plan.auto_touch:
            consumer._keep()
        self.name: Final = plan.name
        self.timeout: Final = consumer._timeout
        self.supervisor: Final = Supervisor(
            plan, consumer, overdue="left behind", wake=self._wake, cut=self._cut
        )
        self._stage: Final = stage
        self._plan: Final = plan
        self._consumer: Final = consumer
        self._queue: Final = consumer.channel._queue
        self._is_coroutine: Final = is_coroutine(plan.handler)
        self._actors: Final[dict[Slot, Actor]] = {}
        self._tasks: Final[dict[Slot, Task[None]]] = {}
        self._woken = True
        self._moment = NEVER
        self._alarm: Alarm | None = None
        consumer._find_crew = weakref.WeakMethod(self._crew)
        worker._started = True
        worker._runner = cast("Runner", self)

    # What a worker asks of its runner

    def is_inside(self) -> bool:
        """Return whether a handler calls."""
        return self.is_slot()

    def is_slot(self) -> bool:
        """Return whether a handler calls."""
        return PLACE.get() is not None

    def is_over(self) -> bool:
        """Return whether it takes no more."""
        return self.supervisor.over.is_set()

    def wait(self) -> None:
        """Wait for the end, in `Worker.stop`."""
        self._stage._turns.wait(f"stop() of worker {self.name!r}", self.is_over)

    def end(self) -> None:
        """End it with the run."""
        if not self.is_over():
            self.supervisor.stop(0)
            self.supervisor.finish()

    def _crew(self) -> set[object]:
        """Return who takes messages: the threads of those at work, and the slots that are free."""
        actors = self._actors
        return {actors[slot].thread if slot in actors else slot for slot in self.supervisor.slots}

    # What the simulation asks

    def _wake(self) -> None:
        self._woken = True

    def look(self) -> None:
        """Act if a moment of the supervisor has come."""
        clock = self._stage.clock
        stopping = self.supervisor.stopping
        if self._woken or stopping or clock._elapsed >= self._moment:
            self._woken = False
            for slot in self.supervisor.slots:
                slot.over = stopping and slot.message is None
            moment = None if self.is_over() else self.supervisor.act()
            self._set(NEVER if moment is None else moment)
            if moment is None and not self.is_over():
                self.supervisor.finish()

    def _set(self, moment: int) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        self._moment = moment
        self._alarm = None if moment == NEVER else self._stage._alarm(moment)

    def ready(self) -> int:
        """Return from how many messages one could come now."""
        queue = self._queue
        if queue.paused or self.supervisor.stopping or self._consumer._is_full():
            return 0
        return len(queue.ready) if self._free() is not None else 0

    def shown(self, place: int) -> str:
        """Return the body of a ready message in words."""
        return short(self._queue.ready[place][0])

    def is_at_work(self) -> bool:
        """Return whether a handler is at work."""
        return not self.supervisor.is_idle()

    def is_idle(self) -> bool:
        """Return whether there is nothing to do, and will not be."""
        return self.supervisor.is_idle() and self._consumer.channel._done()

    def left(self) -> str:
        """Return in words what is not done."""
        if self.is_idle():
            return ""
        queue = self._queue
        at_work = sum(slot.message is not None for slot in self.supervisor.slots)
        return (
            f"{self.name} has {len(queue.ready)} ready, {len(queue.timeouts)} in flight,"
            f" {queue.deferred.count} deferred, {at_work} of its {len(self.supervisor.slots)} slots"
            " at work"
        )

    def _free(self) -> Slot | None:
        return next((slot for slot in self.supervisor.slots if slot.message is None), None)

    def deliver(self, place: int) -> Actor | None:
        """Give a slot a ready message; return the actor that runs its handler, if one does."""
        slot = self._free()
        assert slot is not None
        if place:
            self._prefer(place)
        [message] = self._consumer.take(1)
        self._tell(slot, f"gets {short(message.body)}, attempt {message.attempts}")
        if self.supervisor.begin(slot, message) is None:
            return None
        if self._is_coroutine:
            loop = self._stage._require_loop()
            self._tasks[slot] = loop.create_task(self._serve_task(slot, message), name=slot.name)
            return None
        self._actors[slot] = actor = Actor(slot.name, partial(self._serve, slot, message))
        return self._stage._turns.add(actor)

    def _prefer(self, place: int) -> None:
        """Have a message come that is not the next."""
        ready = self._queue.ready
        with self._consumer._lock:
            record = ready[place]
            del ready[place]
            ready.appendleft(record)

    # What a slot does

    def _serve(self, slot: Slot, message: Message[Any]) -> None:
        """Call a plain function."""
        token = PLACE.set(self._place(slot))
        try:
            result = self._plan.handler(message)
        except Dropped:
            self._lose(slot, message, "is dropped in the middle of")
        except Unwound:
            raise
        except Exception as error:
            self._failed(slot, error)
        except BaseException as error:
            self._tell(slot, f"raises {shown(error)}")
            raise
        else:
            self._returned(slot, message, None if result is NOTHING else result)
        finally:
            PLACE.reset(token)
            del self._actors[slot]

    async def _serve_task(self, slot: Slot, message: Message[Any]) -> None:
        """Await a coroutine function."""
        PLACE.set(self._place(slot))
        try:
            result = await self._plan.handler(message)
        except Dropped:
            self._lose(slot, message, "is dropped in the middle of")
        except CancelledError as error:
            if slot.late:
                self._tasks[slot].uncancel()
                self._failed(slot, self.supervisor.late_error())
            elif self._tasks[slot].cancelling():
                raise
            else:
                self._failed(slot, error)  # what it awaited was cancelled
        except Exception as error:
            self._stage._require_awaited()
            self._failed(slot, error)
        except BaseException as error:
            self._tell(slot, f"raises {shown(error)}")
            raise
        else:
            self._stage._require_awaited()
            self._returned(slot, message, result)
        finally:
            del self._tasks[slot]

    def _place(self, slot: Slot) -> Place:
        return Place(slot.name, 0 if self._plan.auto_touch else self.timeout)

    def _failed(self, slot: Slot, error: BaseException) -> None:
        self._tell(slot, f"raises {shown(error)}")
        PLACE.set(None)
        if isinstance(error, Reentered):
            self._stage._turns.fail(_deadlock(error))
        elif isinstance(error, AssertionError):
            self._stage._turns.fail(error)
        else:
            self.supervisor.failed(slot, error)

    def _returned(self, slot: Slot, message: Message[Any], result: object) -> None:
        """Settle a message, unless its consumer dies before."""
        if message.state is State.IN_FLIGHT and self._stage._strike("deliver twice"):
            self._lose(slot, message, "dies after its work, before FIN of")
            return
        PLACE.set(None)
        self.supervisor.succeeded(slot, result, more=False)

    def _lose(self, slot: Slot, message: Message[Any], how: str) -> None:
        """Have a message come again whose consumer is gone."""
        PLACE.set(None)
        if message.state is State.IN_FLIGHT:
            Consumer.req(self._consumer, message)
        self._tell(slot, f"{how} {short(message.body)}", struck=True)
        self.supervisor._free(slot)

    def _tell(self, slot: Slot, what: str, *, struck: bool = False) -> None:
        self._stage._tell(what, who=slot.name, struck=struck)

    def _cut(self, slot: Slot) -> bool:
        """End a coroutine that takes longer than `time_limit`."""
        task = self._tasks.get(slot)
        return task is not None and task.cancel()


def _deadlock(error: Reentered) -> Deadlock:
    """Return the deadlock that a put has found in its own channel."""
    found = Deadlock([str(error)])
    found.__cause__ = error
    return found


def _seeded(plan: Plan) -> Plan:
    """Return a plan whose jitter can be repeated."""
    retry = plan.retry
    backoff = retry.backoff
    if backoff is not None and backoff.seed is None:
        backoff = attrs.evolve(backoff, seed=0)
    seed = 0 if retry.seed is None else retry.seed
    seeded: Retry = attrs.evolve(retry, seed=seed, backoff=backoff)
    return attrs.evolve(plan, retry=seeded)
