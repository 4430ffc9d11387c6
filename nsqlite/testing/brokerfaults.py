"""What is to go wrong in a broker of a test, in process, and what did.

The rule: whatever strikes, what must always hold of a topic still holds: a put that fails has put
nothing, and a message is in one place.

A fault strikes where the program does something, in its own call: a put is struck when it would be
admitted, whichever way it came; an answer when it arrives, so after the handler's work.  What comes
of a put or a delivery (another order, a jump of the clock) follows the event that tells of it.

    broker = nsqlite.testing.FakeBroker()
    broker.faults.fail("put", nth=2)
    with broker.faults.lose("FIN"):
        ...

Next: testing/snapshots.py
"""

import weakref
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, TypeAlias, Unpack, get_args

from nsqlite.broker import Broker
from nsqlite.channel import Channel
from nsqlite.clock import NEVER
from nsqlite.errors import InvalidOption, StoreError, StoreFull
from nsqlite.events import Event, Kind
from nsqlite.fanout import FanOut
from nsqlite.message import Message, Record, T, counted, was_delivered
from nsqlite.names import check_name
from nsqlite.options import SECOND, Options, Seconds, as_seconds, nanoseconds
from nsqlite.queue import Holder, Moved, Queue
from nsqlite.testing.anyfault import AnyFault, AnyFaults, Chance, checked
from nsqlite.testing.manualclock import ManualClock
from nsqlite.topic import Admitted, Topic

if TYPE_CHECKING:
    from nsqlite.persistence import PendingWrite, TopicPersistence

Answer = Literal["FIN", "REQ", "TOUCH"]
"""What a consumer answers; `fin` and `fin_many`, `req`, `touch`."""

Step = Literal["published", "delivered"]
"""What happens to a message before it is answered."""

ErrorSource: TypeAlias = Exception | Callable[[], Exception]
"""An error, or what makes one, as its class."""

PUT: Final = frozenset({"put"})
ANSWERS: Final = frozenset(get_args(Answer))
STEPS: Final = frozenset(get_args(Step))
FIN: Final = frozenset({"FIN"})
LAST: Final = ANSWERS - {"TOUCH"}
"""The answers that end a delivery."""

_ERROR: Final = "an Exception, or a class or function of one"

_STEPS: Final[dict[Kind, Step]] = {Kind.PUBLISHED: "published", Kind.DELIVERED: "delivered"}


class BrokerFaultOptions(Chance, total=False):
    """Which of the things that a fault can strike it does strike; by default all.

    topic: only in the topic of this name.
    channel: only in channels of this name; not for a put, which is for all channels of its topic.
    """

    topic: str
    channel: str


class Struck(NamedTuple):
    """A fault that struck.

    Attributes:
        fault: its name, as ``"lose FIN"``.
        what: what it struck: ``"put"``, ``"FIN"``, ``"REQ"``, ``"TOUCH"``, ``"published"`` or
            ``"delivered"``.
        nth: the how manieth it was of those that the fault could strike.
        topic: the topic's name.
        channel: the channel's; None for a put or what was published.
        body: the message's; of a batch the first one's.
        time: when, in seconds since the epoch.
        replay: the line that strikes the same again, if the same things come in the same order.
    """

    fault: str
    what: str
    nth: int
    topic: str
    channel: str | None
    body: Any
    time: float
    replay: str


class BrokerFault(AnyFault):
    """Something that goes wrong until it is removed; in a ``with`` statement, until its end.

    Threads: any.

    Attributes:
        name: what it does, in words.
        count: how often it has struck.
    """

    def __init__(
        self,
        faults: "BrokerFaults",
        call: str,
        said: tuple[str, ...],
        whats: frozenset[str],
        act: Callable[..., Any],
    ) -> None:
        of = f" {next(iter(whats))}" if len(whats) == 1 else ""
        super().__init__(faults, call.replace("_", " ") + of)
        self._call: Final = call
        self._said: Final = said
        self._whats: Final = whats
        self._act: Final = act
        self._topic: str | None = None
        self._channel: str | None = None
        self._strikes_once = False  # each message of a channel
        self._struck: Final[set[tuple[str, str | None, str]]] = set()

    def _concerns(self, what: str, topic: str, channel: str | None) -> bool:
        """Return whether it can strike something."""
        return (
            what in self._whats
            and self._topic in {None, topic}
            and self._channel in {None, channel}
        )

    def _replay(self) -> str:
        """Return the call that strikes what was seen last, and nothing else."""
        return self._line(self._seen)

    def _line(self, nth: int | None) -> str:
        """Return the call that sets it, to strike this one alone, or all."""
        names = {"nth": nth, "topic": self._topic, "channel": self._channel}
        given = [f"{name}={value!r}" for name, value in names.items() if value is not None]
        return f"faults.{self._call}({', '.join([*self._said, *given])})"


class BrokerFaults(AnyFaults[BrokerFault, Struck]):
    """The faults of a `FakeBroker`.

    Each counts all that it could strike from when it was set; where several could strike the same
    put or answer, the one does that was set first.  They cost nothing as long as none is set.

    Threads: any.

    Attributes:
        seed: what chance begins with.
    """

    def __init__(self, broker: Broker, seed: int = 0) -> None:
        """Begin without any.

        Args:
            broker: whose they are.
            seed: see the class.
        """
        super().__init__(seed)
        self._broker: Final = weakref.ref(broker)

    # Puts: `put`, `put_many` (one put), `publish`, those of `nsqlite.aio`, and moves

    def fail(
        self,
        what: Literal["put"] = "put",
        error: ErrorSource | None = None,
        **which: Unpack[BrokerFaultOptions],
    ) -> BrokerFault:
        """Have a put, or a move to another topic or channel, raise an error and do nothing.

        A put that was called inside another call of its topic, and so is made later, is spared.

        Args:
            what: ``"put"``.
            error: what it raises, or a class or function that makes it; a `StoreError` by default.
            which: see `BrokerFaultOptions`.
        """
        if error is not None:
            _require_error(error)
        said = (repr(what),) if error is None else (repr(what), _text(error))
        made = error or StoreError(self._where, "fault injected")
        return self._set_up("fail", said, checked(what, PUT), which, lambda: _made(made))

    def fill_disk(self, **which: Unpack[BrokerFaultOptions]) -> BrokerFault:
        """Have a put raise `StoreFull` as if there were no room on the disk; also without a store.

        It does not touch the store of a broker that has one: for what becomes of answers that
        cannot be written, see `FaultyStore`.
        """
        full = StoreFull(self._where, "the disk is full")
        return self._set_up("fill_disk", (), PUT, which, lambda: full)

    def delay(
        self, what: Literal["put"], seconds: Seconds, **which: Unpack[BrokerFaultOptions]
    ) -> BrokerFault:
        """Have what is put come so many seconds later, as if it had been deferred; not a move.

        The put itself returns at once: for one that takes long let the clock `jump`.
        """
        wait = nanoseconds("seconds", seconds)
        said = repr(what), repr(as_seconds(seconds))
        return self._set_up("delay", said, checked(what, PUT), which, lambda: wait)

    # Answers

    def lose(self, what: Answer, **which: Unpack[BrokerFaultOptions]) -> BrokerFault:
        """Have an answer get lost on its way: its consumer believes that it was made.

        The message stays in flight, and times out: one whose FIN is lost a whole `msg_timeout`
        later, also if it is a worker's.
        """
        whats = checked(what, ANSWERS)
        return self._set_up("lose", (repr(what),), whats, which, FaultyQueue._lose)

    def deliver_twice(self, **which: Unpack[BrokerFaultOptions]) -> BrokerFault:
        """Have a message that its consumer has finished come again at once, to any consumer.

        One that came again by this fault is spared by it from then on.
        """
        fault = self._set_up("deliver_twice", (), FIN, which, FaultyQueue._deliver_twice)
        fault._strikes_once = True
        return fault

    def time_out(
        self, what: Answer | None = None, **which: Unpack[BrokerFaultOptions]
    ) -> BrokerFault:
        """Have a message time out just before its answer, which so comes too late: `NotInFlight`.

        Args:
            what: the answer; None for a FIN or REQ.
            which: see `BrokerFaultOptions`.
        """
        whats, said = _last(what)
        return self._set_up("time_out", said, whats, which, FaultyQueue._time_out_now)

    def drop(
        self,
        what: Answer | None = None,
        *,
        reconnect: bool = True,
        **which: Unpack[BrokerFaultOptions],
    ) -> BrokerFault:
        """Have a consumer lose its connection just before it answers: `NotInFlight`.

        All that it holds goes back to the head of the queue, the deliveries counted, as with
        `close`.  NSQ would have it wait for its time-out.

        Args:
            what: the answer; None for a FIN or REQ.
            reconnect: it goes on like a client that connects anew; else it is closed for ever, and
                a worker ends with it.
            which: see `BrokerFaultOptions`.
        """
        if not isinstance(reconnect, bool):
            raise InvalidOption("reconnect", reconnect, "True or False")
        whats, said = _last(what)
        if reconnect:
            return self._set_up("drop", said, whats, which, FaultyQueue._drop)
        said = (*said, "reconnect=False")
        return self._set_up("drop", said, whats, which, FaultyQueue._drop_for_ever)

    # What follows

    def reorder(self, **which: Unpack[BrokerFaultOptions]) -> BrokerFault:
        """Have all that is ready in a topic's channels come in another order, drawn with the seed.

        It strikes when a message was published.
        """
        return self._set_up("reorder", (), checked("published", STEPS), which, self._shuffle)

    def jump(
        self, seconds: Seconds, what: Step = "delivered", **which: Unpack[BrokerFaultOptions]
    ) -> BrokerFault:
        """Have the clock move on by so many seconds when a message was published or delivered."""
        nanoseconds("seconds", seconds)
        step = as_seconds(seconds)
        said = repr(step), repr(what)
        return self._set_up("jump", said, checked(what, STEPS), which, lambda *_: self._move(step))

    def _set_up(
        self,
        call: str,
        said: tuple[str, ...],
        whats: frozenset[str],
        which: BrokerFaultOptions,
        act: Callable[..., Any],
    ) -> BrokerFault:
        """Set a fault.

        Args:
            call: the method that was called.
            said: what it was given, but for `which`.
            whats: what it strikes.
            which: see `BrokerFaultOptions`.
            act: does it; what it is given and returns depends on what it strikes.
        """
        fault = BrokerFault(self, call, said, whats, act)
        code = getattr(type(self), call).__code__
        own = code.co_varnames[1 : code.co_argcount + code.co_kwonlyargcount]
        fault._choose(which, BrokerFaultOptions, *own)
        if "topic" in which:
            check_name("topic", which["topic"])
        if "channel" in which:
            if not whats.isdisjoint({"put", "published"}):
                expected = "left out: what is put is for all channels"
                raise InvalidOption("channel", which["channel"], expected)
            check_name("channel", which["channel"])
        fault._topic = which.get("topic")
        fault._channel = which.get("channel")
        return self._add(fault)

    # Looking

    def replay(self) -> str:
        """Return the lines that strike again what was struck, each fault by its `nth`.

        They stand for the faults that were set, if the same things come in the same order: whatever
        seed and probability have chosen, these say it outright.
        """
        return "\n".join(struck.replay for struck in self._injected)

    @property
    def _home(self) -> Broker:
        broker = self._broker()
        assert broker is not None, "faults are set while there is the broker"
        return broker

    @property
    def _where(self) -> str:
        """What an error names as the store."""
        persistence = self._home._persistence
        return "in memory" if persistence is None else persistence.where

    # Striking

    def _due(self, what: str, topic: str, channel: str | None, id_: str = "") -> list[BrokerFault]:
        """Return the faults that are to strike something; each that could has seen it."""
        message = topic, channel, id_
        return [
            fault
            for fault in self._set
            if fault._concerns(what, topic, channel)
            and fault._is_due()
            and message not in fault._struck
        ]

    def _note(
        self, fault: BrokerFault, what: str, topic: str, channel: str | None, body: object
    ) -> None:
        """Take note that a fault strikes."""
        fault._count()
        now = self._home.clock.time_ns() / SECOND
        given = fault.name, what, fault._seen, topic, channel, body, now, fault._replay()
        self._injected.append(Struck(*given))

    def _hit(
        self, what: str, topic: str, channel: str | None, body: object, id_: str = ""
    ) -> BrokerFault | None:
        """Return the fault that strikes a put or an answer, None if none does."""
        if not self._set:
            return None
        with self._lock:
            due = self._due(what, topic, channel, id_)
            if due:
                self._note(due[0], what, topic, channel, body)
                due[0]._struck.update({(topic, channel, id_)} if due[0]._strikes_once else ())
        return due[0] if due else None

    def _hear(self, event: Event) -> None:
        """Do what is to follow an event; an observer of the broker."""
        step = _STEPS.get(event.kind) if self._set else None
        if step is None:
            return
        with self._lock:
            due = self._set_off(step, event)
        for fault in due:
            fault._act(fault, event)

    def _set_off(self, step: Step, event: Event) -> list[BrokerFault]:
        """Return those that follow an event; all count before one of them acts and causes more."""
        due = self._due(step, event.topic, event.channel)
        for fault in due:
            self._note(fault, step, event.topic, event.channel, event.body)
        return due

    def _move(self, seconds: float) -> None:
        clock = self._home.clock
        assert isinstance(clock, ManualClock)
        clock.advance(seconds)

    def _shuffle(self, fault: BrokerFault, event: Event) -> None:
        """Have what is ready in the channels of a topic come in another order."""
        topic = self._home._live(event.topic)
        if topic is not None:
            topic._monitor.call(_shuffle, topic._fan, fault)


def _last(what: Answer | None) -> tuple[frozenset[str], tuple[str, ...]]:
    """Return which answers are struck, and how that is said."""
    return (LAST, ()) if what is None else (checked(what, ANSWERS), (repr(what),))


def _require_error(error: object) -> None:
    """Check what is to be raised, as far as can be told before it is made."""
    is_source = issubclass(error, Exception) if isinstance(error, type) else callable(error)
    if not is_source and not isinstance(error, Exception):
        raise InvalidOption("error", error, _ERROR)


def _made(error: ErrorSource) -> Exception:
    """Return an error that is to be raised; one that tells of it where a function makes none."""
    made: object = error if isinstance(error, Exception) else error()
    return made if isinstance(made, Exception) else InvalidOption("error", made, _ERROR)


def _text(error: ErrorSource) -> str:
    """Return an error as a program has it."""
    return error.__name__ if isinstance(error, type) else repr(error)


def _shuffle(fan: FanOut[Any], fault: BrokerFault) -> None:
    """Have what is ready in each channel come in an order that it had not, if it is several."""
    for queue in fan.queues:
        ready = queue.ready
        before = list(ready)
        after = fault._random.sample(before, len(before))
        if after == before:
            after = [*after[1:], *after[:1]]
        queue.returned.clear()
        ready.clear()
        ready.extend(after)


class FaultyQueue(Queue[T]):
    """A channel's queue whose answers can be struck."""

    __slots__ = ("_faults",)

    def __init__(self, faults: BrokerFaults, *given: Any) -> None:
        """Begin empty; what else is `given` see `Queue`."""
        self._faults: Final = faults
        super().__init__(*given)

    def follow(self) -> None:
        """See `Queue`."""
        super().follow()
        self.on_finished = self._finish_again

    def _finish_again(self, messages: Sequence[Message[T]]) -> None:
        """Take note that `Consumer.fin` has taken a message out, or have `finish` do all of it.

        What it has taken out is put back for that.

        Raises:
            NotInFlight: its answer has come too late.
        """
        if not self._faults._set:
            self._tell_finished(messages)
            return
        [message] = messages
        owner: Holder = message._consumer
        due = self.timeouts.due(self._now() + owner._timeout)
        self.expect(due)
        page = self.timeouts.page(due)
        # One piece:
        owner._allowed -= 1
        message._page = page
        page[message] = due
        self._monitor.perform(self.finish, owner, messages)

    def let_go(self, messages: Sequence[Message[T]]) -> None:
        """See `Queue`; what a fault has taken away was not finished."""
        super().let_go([message for message in messages if not hasattr(message, "_outcome")])

    def finish(self, owner: Holder, messages: Sequence[Message[T]]) -> None:
        """See `Queue`."""
        super().finish(owner, [one for one in messages if not self._is_struck("FIN", owner, one)])

    def requeue(
        self, owner: Holder, message: Message[T], delay: int, now: int, *, counts: bool = True
    ) -> None:
        """See `Queue`."""
        if not self._is_struck("REQ", owner, message):
            super().requeue(owner, message, delay, now, counts=counts)

    def touch(self, owner: Holder, message: Message[T], now: int) -> None:
        """See `Queue`."""
        if not self._is_struck("TOUCH", owner, message):
            super().touch(owner, message, now)

    def _is_struck(self, answer: Answer, owner: Holder, message: Message[T]) -> bool:
        """Strike an answer if that is due; return whether it is lost."""
        is_due = was_delivered(message) and message in message._page
        if not is_due or message._consumer is not owner:
            return False  # it is refused anyway
        topic, channel = self.names
        fault = self._faults._hit(answer, topic, channel, message.body, message.id)
        return fault is not None and fault._act(self, owner, message)

    def _lose(self, owner: Holder, message: Message[T]) -> bool:
        if message._page[message] >= NEVER:
            self.let_expire(owner, message, self._now())
        return True

    def _deliver_twice(self, owner: Holder, message: Message[T]) -> bool:
        self._time_out_now(owner, message)
        return True

    def _time_out_now(self, _owner: Holder, message: Message[T]) -> bool:
        now = self._now()
        self._move_deadline(message, now - now % self.timeouts.resolution)
        self.sweep()
        return False

    def _drop(self, owner: Holder, _message: Message[T]) -> bool:
        handed = self.waiters.handed
        mine = [message for message in self.timeouts if message._consumer is owner]
        never = {message for message in mine if handed.pop(message, None) is not None}
        self.give_back((one, one._record if one in never else counted(one)) for one in mine)
        self.feed()
        return False

    def _drop_for_ever(self, owner: Any, message: Message[T]) -> bool:
        owner.close()  # is put off until the lock is free
        return self._drop(owner, message)


class FaultyTopic(Topic[T]):
    """A fake broker's topic, of which puts and answers can be struck.

    All puts take the way of `_try`.
    """

    __slots__ = ("_faults",)

    def __init__(self, faults: BrokerFaults, name: str, **given: Any) -> None:
        """Make it; what else is `given` see `Topic`."""
        self._faults: Final = faults
        super().__init__(name, **given)

    def _make_queue(self, name: str, options: Options, answered: Callable[[], None]) -> Queue[T]:
        """See `Topic`."""
        names = self.name, name
        given = names, options, self._clock, self._monitor, self._room, answered
        return FaultyQueue(self._faults, *given)

    def _way(self, record: Record[T]) -> tuple[None, Any]:
        """See `Topic`."""
        return None, record

    def _reserve_plain(self, store: "TopicPersistence", pending: "PendingWrite[T]") -> bool:  # noqa: ARG002
        """See `Topic`."""
        return False

    def _put_late(self, *_given: Any) -> None:
        """See `Topic`."""

    def _put_now(self, records: Admitted[T], size: int, due: int | None) -> None:
        """See `Topic`; its caller has the ids already, so it is spared."""
        self._require_open()
        if records:
            super()._admit(records, size, due)

    def _admit(
        self, records: Admitted[T], size: int, due: int | None, moved: Moved | None = None
    ) -> None:
        """See `Topic`."""
        body = records[0][0] if isinstance(records, list) else records.bodies[0]
        later = self._strike(body)
        if later and moved is None:
            due = (self._now() if due is None else due) + later
        super()._admit(records, size, due, moved)

    def _prepare_alone(
        self, channel: Channel[T], body: T, moved: Moved
    ) -> tuple[Callable[[], None], Callable[[], str]]:
        """See `Topic`."""
        publish, conclude = super()._prepare_alone(channel, body, moved)

        def strike_and_publish() -> None:
            self._strike(body)
            publish()

        return strike_and_publish, conclude

    def _log_thrown(self, thrown: int) -> None:
        """See `Topic`; that a test is over which has left messages is no news."""
        if not self._faults._home._closed:
            super()._log_thrown(thrown)

    def _strike(self, body: object) -> int:
        """Strike a put if that is due; return for how long its messages wait."""
        fault = self._faults._hit("put", self.name, None, body)
        outcome: Any = 0 if fault is None else fault._act()
        if isinstance(outcome, int):
            return outcome
        raise self._monitor.refuse(outcome)
