"""A topic's monitor: its lock, who waits, and what is done after the lock is released.

The rule: what belongs to a topic changes only under its lock, and no user code runs while the lock
is held.  What has to run user code (observers, wake-ups of event loops, the destructors of dropped
bodies) is collected under the lock and done after it.

How a reader can check the rest:

*Signals.*  CPython runs a signal handler when a function begins, when a loop goes round and when a
call of C code has returned; nowhere else, so not when a Python function has.  So a few plain
statements that end in one call are one piece: an exception thrown by a handler finds them done or
not begun, and comments say where that is meant.  An operation of several pieces runs in `perform`;
if it is interrupted it leaves `state` at `INTERRUPTED`, and `recover` completes it, right after the
lock or before the next operation.  What an operation refuses, having changed nothing, it raises by
way of `refuse`; all else that comes out of it is an interruption.

What follows the lock (`settle`) is called in place wherever calls are made under the lock, in a
`finally`, guarded by a `try` that has it made again: a function for both could be struck as it
begins, and somebody would sleep on.  It is looked for when the lock has been released: until then a
handler's or destructor's own `settle` does nothing.

*Re-entry.*  A handler or destructor may come in while its own thread holds the lock, which lets the
same thread in again.  The hot lines of put, get and fin make their calls first, then look, then
change; so a nested call is as good as one made between two others.  While an operation of several
pieces is under way (`BUSY`) a nested call is put off (`call`) or refused (`Reentered`).

Next: timerwheel.py
"""

from collections import deque
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar, TypeVarTuple

from nsqlite.errors import NSQLiteError, Reentered
from nsqlite.events import MESSAGES, Event, Kind, Subscription
from nsqlite.lock import ensure, make_lock

E = TypeVar("E", bound=NSQLiteError)
R = TypeVar("R")
Ts = TypeVarTuple("Ts")

if TYPE_CHECKING:
    from logging import Logger

QUIET: Final = 0
"""No operation of several pieces is under way."""

BUSY: Final = 1
"""One is; whoever finds this holding the lock is inside of it."""

INTERRUPTED: Final = 2
"""One was interrupted and is to be completed."""

NOTHING: Final[frozenset[Kind]] = frozenset()
"""What is wanted where nobody observes."""

NO_EVENTS: Final[deque[Event]] = deque(maxlen=0)
"""The events of a topic that nobody has observed yet; it can hold none."""

_CALLS: Final = {
    "_receive": "get",
    "keep": "get",
    "_create": "channel",
    "_join": "Consumer",
    "_is_idle": "idle",
    "_list_deferred": "deferred",
    "_perform_both": "move",
    "look": "join",
    "require": "move",
}
"""What the user called, where the operation has another name."""


class Blocked(Protocol):
    """A blocked call, as a monitor knows it.

    Attributes:
        owner: of a put that waits without a limit, the thread, by its number, or the task.
    """

    owner: Any

    def notify(self) -> None:
        """Have it look again; the lock is held, and no user code runs."""
        ...


class Wakeable(Protocol):
    """A blocked call that is woken by code of others, as an event loop's, so after the lock."""

    def wake(self) -> None:
        """Wake it; twice is once."""
        ...


class Monitor:
    """A topic's lock, the calls that wait, and the effects that are due after the lock.

    Attributes:
        lock: held by whoever reads or changes the topic or anything of its channels.
        state: `QUIET`, `BUSY` or `INTERRUPTED`.
        after: there is something to do after the lock; see `settle`.  Set when what is to be done
            has been noted, not before: another thread may be settling at that moment.
        recover: completes what was interrupted; the topic's, and may be made twice.
        waiting: how many getters in the topic's channels could take a message, so not those whose
            window is full.
        watched: whether anybody observes messages.
        wanted: the kinds of events that anybody observes.
        observers: who is told.
        events: what they are to be told after the lock; who adds one under it sets `after`.
        room_until: how many messages the topic may have accepted before a put has to look whether
            bounded channels have room: whatever makes a message ready but a put sets it to 0, so
            that a look is due; it is negative while somebody looks.  To look at each put costs put,
            get and fin 0.2 us.
        putters: the blocked puts, each with how many messages it has, and since when it waits,
            first come first.
        wants_room: whether the first of them is to be told when there is room; not if it was told
            and has not looked since.  So one get tells it, and not all those that come before the
            thread of the put has its turn, hundreds.
        joins: the blocked joins, each with the condition it waits for.
        woken: who is to be woken after the lock; see `wake_later`.
        trash: what was dropped, to be forgotten after the lock; see `discard`.
    """

    __slots__ = (
        "__weakref__",
        "_calls",
        "_logs",
        "_telling",
        "after",
        "events",
        "joins",
        "lock",
        "observers",
        "putters",
        "recover",
        "room_until",
        "state",
        "trash",
        "waiting",
        "wanted",
        "wants_room",
        "watched",
        "woken",
    )

    def __init__(self) -> None:
        """Make the monitor of a new topic."""
        self.lock: Final = make_lock(rank=1)
        self.state: int = QUIET
        self.after: bool = False
        self.recover: Callable[[], None] = _nothing
        self.waiting: int = 0
        self.watched: bool = False
        self.wanted: frozenset[Kind] = NOTHING
        self.observers: tuple[Subscription, ...] = ()
        self.room_until: int = 0
        self.putters: dict[Blocked, tuple[int, int]] = {}
        self.wants_room: bool = False
        self.joins: dict[Blocked, Callable[[], bool]] = {}
        self.trash: list[object] = []
        self.woken: dict[Wakeable, None] = {}
        # An empty deque takes 760 bytes; these two are short when they are used at all.
        self._calls: list[Callable[[], object]] = []
        self._logs: list[Callable[[], None]] = []
        self.events: deque[Event] = NO_EVENTS
        self._telling = False

    # Operations

    def run(self, operation: Callable[[*Ts], R], *args: *Ts) -> R:
        """Run an operation alone under the lock, then do what it left for after the lock.

        Raises:
            Reentered: the calling thread is inside another operation.
        """
        if self.state == BUSY and self.lock.owned():
            raise self._reentered(operation)
        if self._calls:
            self.settle()  # what was put off comes before what is called now
        try:
            with self.lock:
                return self.perform(operation, *args)
        finally:
            if self.after:
                try:
                    self.settle()
                except BaseException:  # a signal; a waiter may still need waking
                    ensure(self.settle)
                    raise

    def read(self, reading: Callable[[*Ts], R], *args: *Ts) -> R:
        """Read something under the lock, inside of an operation too, then do what is left."""
        try:
            with self.lock:
                return reading(*args)
        finally:
            if self.after:
                try:
                    self.settle()
                except BaseException:
                    ensure(self.settle)
                    raise

    def call(self, operation: Callable[[*Ts], R], *args: *Ts) -> R | None:
        """Run an operation like `run`, or, inside another one, as soon as that is done.

        Returns:
            What the operation returned; None if it was put off, and what it then raises is logged.
        """
        if self.state == BUSY and self.lock.owned():
            self.put_off(partial(operation, *args))
            return None
        return self.run(operation, *args)

    def perform(self, operation: Callable[[*Ts], R], *args: *Ts) -> R:
        """Run an operation of several pieces.  The lock is held.

        Raises:
            Reentered: the calling thread is inside another one.
        """
        before = self.state
        if before == BUSY:
            raise self._reentered(operation)
        try:
            self.state = BUSY
            if before == INTERRUPTED:
                self.recover()
            result = operation(*args)
            self.state = QUIET
        except BaseException:
            if self.state == BUSY:
                self.state = INTERRUPTED
                self.after = True
            raise
        return result

    def refuse(self, error: E) -> E:
        """Return the error that an operation is about to raise, having changed nothing.

        Whatever else comes out of an operation was thrown in by a signal, and interrupts it.
        """
        self.state = QUIET
        return error

    def _reentered(self, operation: Callable[..., object]) -> Reentered:
        name = getattr(operation, "__name__", "call")
        return Reentered(_CALLS.get(name, name.strip("_")))

    def require_free(self, call: str) -> None:
        """Check that the calling thread may sleep.

        Raises:
            Reentered: it is inside another call and holds the lock.
        """
        if self.lock.owned():
            raise Reentered(call)

    # After the lock

    def put_off(self, operation: Callable[[], object]) -> None:
        """Have an operation made when the lock is next free.  Takes no lock."""
        self._calls.append(operation)
        self.after = True

    def discard(self, *dropped: object) -> None:
        """Forget something after the lock, since its destructor may be user code."""
        self.trash.extend(dropped)
        self.after = True

    def settle(self) -> None:
        """Do what was left for after the lock; a caller of this thread that holds it does so."""
        if self.lock.owned():
            return
        try:
            self._settle_all()
        except BaseException:
            self.after = True
            raise

    def _settle_all(self) -> None:
        while self.after:
            self.after = False  # before it looks: what comes meanwhile sets it again
            if self._calls or self.state == INTERRUPTED:
                self._make_calls()
            if self.woken:
                for call in list(self.woken):
                    self._wake(call)
            if self.trash:
                with self.lock:
                    trash, self.trash = self.trash, []
                trash.clear()
            if self._logs:
                self._log()
            if self.events and not self._telling:
                self._tell()
                if self.events:  # another thread has left its own to this one in the last moment
                    self.after = True

    def _make_calls(self) -> None:
        """Run the operations that were put off, and complete one that was interrupted."""
        while self._calls or self.state == INTERRUPTED:
            with self.lock:
                self.perform(self._catch_up)

    def _catch_up(self) -> None:
        """Make the oldest operation that was put off.  A signal may have it made twice."""
        if self._calls:
            operation = self._calls[0]
            try:
                operation()
            except Exception as error:
                self.log_later("a call made inside another call failed", error=error)
            self.discard(self._calls.pop(0))  # what it holds is forgotten after the lock

    # Observers

    def observe(self, observers: tuple[Subscription, ...]) -> None:
        """Tell these observers from now on.  The lock is held."""
        if observers and self.events is NO_EVENTS:
            self.events = deque()
        self.observers = observers
        wanted = NOTHING  # the same for all topics without observers: an empty set takes 216 bytes
        for observer in observers:
            wanted |= observer.kinds
        self.wanted = wanted
        self.watched = not wanted.isdisjoint(MESSAGES)

    def _tell(self) -> None:
        """Tell the events in their order; one thread does it, the others leave theirs to it."""
        mine = False
        try:
            with self.lock:
                if not self._telling:
                    self._telling = mine = True
            if mine:
                self._tell_all(self.events)
        finally:
            if mine:
                self._telling = False

    def _tell_all(self, events: deque[Event]) -> None:
        while events:
            event = events.popleft()
            for observer in self.observers:
                if event[0] in observer.kinds:  # its kind; by name it takes 0.1 us more
                    try:
                        observer.tell(event)
                    except Exception:
                        text = "observer %r failed on %s"
                        logger().exception(text, observer.tell, event.kind)

    def log_later(self, text: str, *args: object, error: Exception | None = None) -> None:
        """Have something logged after the lock, as an error or else a warning."""
        self._logs.append(partial(_log, error, text, *args))
        self.after = True

    def _log(self) -> None:
        while True:
            try:
                tell = self._logs.pop(0)
            except IndexError:
                return
            tell()

    # Those who wait

    def wake_later(self, call: Wakeable) -> None:
        """Have a blocked call woken after the lock.  The lock is held."""
        self.woken[call] = None
        self.after = True

    def _wake(self, call: Wakeable) -> None:
        """Wake one; of several threads the one that takes it off the list does so.

        It is listed again if a signal strikes, so that at worst it is woken twice, and never sleeps
        on.
        """
        try:
            if self.woken.pop(call, self) is None:
                call.wake()
        except BaseException as error:
            self.woken[call] = None  # before another one can strike
            if not isinstance(error, Exception) or _wakes(call):
                raise  # what a signal has thrown in
            self.woken.pop(call, None)

    def notify_joins(self) -> None:
        """Wake the joins whose condition has come true.  The lock is held."""
        for call, done in list(self.joins.items()):
            if done():
                call.notify()

    def forget_waiters(self) -> None:
        """In the child of a fork: the other threads are gone, and so is what they wanted."""
        for call in (*self.putters, *self.joins):
            call.notify()  # one of them may be this thread's
        self.putters.clear()
        self.joins.clear()
        self.woken.clear()
        self.waiting = 0
        self._telling = False
        self.events.clear()
        self._logs.clear()


def logger() -> "Logger":
    """Return the logger of nsqlite; to import `logging` is left to the first who logs.

    It would be an eighth of what `import nsqlite` takes beyond what that is built on.
    """
    from logging import getLogger  # noqa: PLC0415 - see above

    return getLogger("nsqlite")


def _log(error: Exception | None, text: str, *args: object) -> None:
    if error is None:
        logger().warning(text, *args)
    else:
        logger().error(text, *args, exc_info=error)


def _nothing() -> None:
    """Recover nothing: the topic is still being made."""


def _wakes(call: Wakeable) -> bool:
    """Say whether one can be woken at a second try; what fails twice is the loop's fault."""
    try:
        call.wake()
    except Exception:
        logger().exception("%r could not be woken", call)
        return False
    return True


def run_both(one: Monitor, other: Monitor, operation: Callable[[], R]) -> R:
    """Run an operation alone under the locks of two topics, for `Consumer.move`.

    It never waits for one while it holds the other.  A fixed order would not do: a signal handler
    may want the first one while its thread holds the second.

    Raises:
        Reentered: the calling thread is inside another operation of one of them.
    """
    if one is other:
        return one.run(operation)
    if any(monitor.state == BUSY and monitor.lock.owned() for monitor in (one, other)):
        raise Reentered("move")
    try:
        return _attempt_until(one, other, operation)
    finally:
        ensure(one.settle)
        ensure(other.settle)


def _attempt_until(one: Monitor, other: Monitor, operation: Callable[[], R]) -> R:
    """Run an operation under two locks, as soon as both are free."""
    while (done := _attempt(one, other, operation)) is None:
        one, other = other, one  # wait for the one that was taken, holding neither
    return done[0]


def _perform_both(one: Monitor, other: Monitor, operation: Callable[[], R]) -> R:
    """Run an operation of two topics; both locks are held, and `one` is busy."""
    try:
        return other.perform(operation)
    except BaseException:
        if QUIET in {one.state, other.state}:  # one of both refused it, having changed nothing
            one.state = other.state = QUIET
        raise


def _attempt(one: Monitor, other: Monitor, operation: Callable[[], R]) -> tuple[R] | None:
    """Run an operation under two locks if the second is free; else change nothing."""
    with one.lock:
        if other.lock.owned():  # by this thread, so it need not wait
            with other.lock:
                return (one.perform(_perform_both, one, other, operation),)
        try:
            try:
                if other.lock.attempt():
                    return (one.perform(_perform_both, one, other, operation),)
            finally:
                ensure(partial(_give_back, other))
        except BaseException:
            ensure(partial(_give_back, other))  # a signal may strike as `ensure` begins
            raise
    return None


def _give_back(monitor: Monitor) -> None:
    if monitor.lock.owned():
        monitor.lock.__exit__(None, None, None)
