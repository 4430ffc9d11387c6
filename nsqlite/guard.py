"""The one lock of a topic, shared by its channels and consumers.

The rule: what belongs to a topic changes only under its lock, and no user code runs while the lock
is held.  What has to run user code (observers, the destructors of dropped bodies) is collected
under the lock and done after it.

How a reader can check the rest:

*Signals.*  A message moves by plain assignments that end in the one call which completes the move.
CPython lets no handler in between them (see lock.py), so an exception thrown by a handler finds the
message here or there.  An operation of several steps is marked by `broken` while it is under way;
if it was interrupted, `mend` completes it, at once or before the next operation.

*Re-entry.*  A signal handler or destructor may come in while its own thread holds the lock, which
lets the same thread in again.  The short paths of put, get and fin make their calls first, then
look, then change; so a nested call is as good as one made between two others.  All else goes
through `Guard.run`, which sets `busy`; then a nested call is put off (`Guard.call`) or refused
(`Reentered`).

Next: both.py
"""

import logging
from collections import OrderedDict, deque
from collections.abc import Callable
from functools import partial
from typing import Any, Final, Protocol, TypeVar, TypeVarTuple

from nsqlite.errors import NSQLiteError, Reentered
from nsqlite.lock import insist, make_section
from nsqlite.observe import Event, Observer

E = TypeVar("E", bound=NSQLiteError)
R = TypeVar("R")
Ts = TypeVarTuple("Ts")

log: Final = logging.getLogger("nsqlite")


_CALLS: Final = {
    "_receive": "get",
    "_grab_ready": "get_many",
    "_create": "channel",
    "_join": "Consumer",
    "look": "join",
    "require": "move",
    "_list_deferred": "deferred",
}
"""What the user called, where the operation has another name."""


class Sleeper(Protocol):
    """A blocked call: whoever changes what it waits for rings it."""

    def ring(self) -> None:
        """Wake it."""
        ...


class Remote(Protocol):
    """A call that waits in an event loop: to wake it runs the loop's code, so after the lock."""

    def wake(self) -> None:
        """Wake it; twice is once."""
        ...


class Guard:
    """A topic's lock, what is put off until it is free, and what makes the short paths wrong.

    Attributes:
        lock: held by whoever reads or changes the topic or anything of its channels.
        busy: an operation of several steps is under way in the thread that holds the lock.
        wary: put and get must go the long way: busy, or something is to be done after the lock.
        alert: so must fin: for this, or for a join that it may be the end of.
        broken: an operation was begun and not ended; `mend` completes it.
        mend: completes what a signal has interrupted; the topic's, and may be made twice.
        waiting: how many getters stand in the lines of the topic's channels.
        short_path: how put hands on a record when all is calm; None if that is never right.
        waiting_path: the same while somebody waits in line.
        push: one of them; None while it is not calm.
        watched: whether anybody observes.
        joiners: the blocked joins, each with the condition it waits for.
        rung: who waits in an event loop and is to be woken after the lock.
        trash: what was dropped, to be forgotten after the lock.
    """

    __slots__ = (
        "__weakref__",
        "_events",
        "_logs",
        "_observers",
        "_pending",
        "_telling",
        "_waking",
        "alert",
        "broken",
        "busy",
        "joiners",
        "lock",
        "mend",
        "push",
        "rung",
        "short_path",
        "trash",
        "waiting",
        "waiting_path",
        "wary",
        "watched",
    )

    def __init__(self) -> None:
        """Make the lock of a new topic."""
        self.lock = make_section(rank=1)
        self.broken = False
        self.mend: Callable[[], None] = lambda: None
        self.busy = False
        self.wary = False
        self.alert = False
        self.waiting = 0
        self.short_path: Callable[[Any], None] | None = None
        self.waiting_path: Callable[[Any], None] | None = None
        self.push: Callable[[Any], None] | None = None
        self.watched = False
        self.joiners: OrderedDict[Sleeper, Callable[[], bool]] = OrderedDict()
        self.rung: deque[Remote] = deque()
        self.trash: list[object] = []
        self._pending: deque[Callable[[], object]] = deque()
        self._events: deque[Event] = deque()
        self._logs: deque[Callable[[], None]] = deque()
        self._observers: tuple[Observer, ...] = ()
        self._telling = False
        self._waking = False

    def run(self, operation: Callable[[*Ts], R], *args: *Ts) -> R:
        """Make an operation alone under the lock, then do what it left for after the lock.

        Raises:
            Reentered: the calling thread is inside another operation.
        """
        if self.busy and self.lock.owned():
            raise Reentered(_CALLS.get(operation.__name__, operation.__name__.strip("_")))
        if self._pending:
            self.settle()  # what was put off comes before what is called now
        try:
            with self.lock:
                return self.perform(operation, *args)
        finally:
            if (
                self._pending
                or self._events
                or self.trash
                or self.rung
                or self.broken
                or self._logs
            ):
                if self.rung:
                    insist(self.settle)  # or somebody would sleep on
                else:
                    self.settle()

    def call(self, operation: Callable[[*Ts], R], *args: *Ts) -> R | None:
        """Make an operation like `run`, or, inside another one, as soon as that is done.

        Returns:
            What the operation returned; None if it was put off, and what it then raises is logged.
        """
        if self.busy and self.lock.owned():
            self.put_off(lambda: operation(*args))
            return None
        return self.run(operation, *args)

    def require_free(self, call: str) -> None:
        """Check that the calling thread may sleep.

        Raises:
            Reentered: it is inside another call and holds the lock.
        """
        if self.lock.owned():
            raise Reentered(call)

    def put_off(self, operation: Callable[[], object]) -> None:
        """Have an operation made when the lock is next free.  Takes no lock."""
        self._pending.append(operation)
        self.wary = self.alert = True
        self.push = None

    def perform(self, operation: Callable[[*Ts], R], *args: *Ts) -> R:
        """Make an operation with `busy` set.  The lock is held."""
        try:
            self.stir()
            if self.broken:
                self.mend()
            self.broken = True
            result = operation(*args)
            self.broken = False
        finally:
            self.calm_down()
        return result

    def refuse(self, error: E) -> E:
        """Return the error that an operation is about to raise, having changed nothing.

        Whatever else comes out of an operation was thrown in by a signal, and leaves it broken.
        """
        self.broken = False
        return error

    def stir(self) -> None:
        """Begin something of several steps: no short path is right.  The lock is held."""
        self.busy = self.wary = self.alert = True
        self.push = None

    def calm_down(self) -> None:
        """Let the short paths go on if nothing is against it.  The lock is held."""
        self.busy = False
        self.wary = self.watched or self.broken or len(self.trash) > 0 or len(self.rung) > 0
        self.alert = self.wary or len(self.joiners) > 0
        if self.wary:
            self.push = None
        else:
            self.push = self.waiting_path if self.waiting else self.short_path
        if self._pending:  # looked at last: put_off() appends first
            self.wary = self.alert = True
            self.push = None

    # After the lock

    def settle(self) -> None:
        """Do what was left for after the lock; a caller of this thread that holds it does so."""
        if self.lock.owned():
            self.wary = self.alert = True
            self.push = None
            return
        while self._pending or self.broken:
            with self.lock:
                self.perform(self._catch_up)
        if self.rung:
            self._wake()
        if self.trash:
            with self.lock:
                trash, self.trash = self.trash, []
                self.calm_down()
            trash.clear()
        if self._logs:
            self._log()
        if self._events:
            self._tell()

    def _catch_up(self) -> None:
        """Make the oldest operation that was put off.  A signal may have it made twice."""
        if self._pending:
            operation = self._pending[0]
            try:
                operation()
            except Exception as error:
                self.log_later("a call made inside another call failed", error=error)
            self.trash.append(self._pending.popleft())  # what it holds is forgotten after the lock

    # Observers

    def observe(self, observers: tuple[Observer, ...]) -> None:
        """Tell these observers from now on.  The lock is held."""
        self._observers = observers
        self.watched = bool(observers)

    @property
    def observers(self) -> tuple[Observer, ...]:
        """Who is told."""
        return self._observers

    def emit(self, event: Event) -> None:
        """Have an event told after the lock.  The lock is held and somebody observes."""
        self._events.append(event)

    def _tell(self) -> None:
        """Tell the events in their order; one thread does it, the others leave theirs to it."""
        mine = False
        try:
            while True:
                with self.lock:
                    if self._telling and not mine:
                        return
                    if not self._events:
                        self._telling = mine = False
                        return
                    self._telling = mine = True
                    event = self._events.popleft()
                for observer in self._observers:
                    try:
                        observer(event)
                    except Exception:
                        shown = observer.func if isinstance(observer, partial) else observer
                        log.exception("observer %r failed on %s", shown, event.kind)
        finally:
            if mine:
                self._telling = False

    def log_later(self, text: str, *args: object, error: Exception | None = None) -> None:
        """Have something logged after the lock, as an error or else a warning."""
        level = logging.WARNING if error is None else logging.ERROR
        self._logs.append(partial(log.log, level, text, *args, exc_info=error))

    def _log(self) -> None:
        while True:
            try:
                tell = self._logs.popleft()
            except IndexError:
                return
            tell()

    # Those who wait

    def _wake(self) -> None:
        """Wake who waits in event loops; one thread does it, the others leave theirs to it.

        Each stays listed until it has been woken, so a signal that strikes makes at worst somebody
        wake twice, and none sleep on.
        """
        mine = False
        try:
            while True:
                with self.lock:
                    if self._waking and not mine:
                        return
                    if mine:
                        self.rung.popleft()
                    self._waking = mine = len(self.rung) > 0
                    if not mine:
                        self.calm_down()
                        return
                    sleeper = self.rung[0]
                try:
                    sleeper.wake()
                except Exception:
                    if self._wakes(sleeper):
                        raise  # what a signal has thrown in
        finally:
            if mine:
                self._waking = False

    def _wakes(self, sleeper: Remote) -> bool:
        """Say whether one can be woken at a second try; what fails twice is the loop's fault."""
        try:
            sleeper.wake()
        except Exception:
            log.exception("%r could not be woken", sleeper)
            return False
        return True

    def ring_joiners(self) -> None:
        """Wake the joins whose condition has come true.  The lock is held."""
        for sleeper, done in list(self.joiners.items()):
            if done():
                sleeper.ring()

    def forget_waiters(self) -> None:
        """In the child of a fork: the other threads are gone, and so is what they wanted."""
        for sleeper in self.joiners:
            sleeper.ring()
        self.joiners.clear()
        self.rung.clear()
        self.waiting = 0
        self._telling = False
        self._waking = False
        self._events.clear()
        self._logs.clear()
