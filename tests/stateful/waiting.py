"""A slow, obvious channel with tasks that wait for it, to compare the real one with.

The rule: everything is a list that is gone through, and a task is a generator that yields where it
waits.  There is no lock, wheel, semaphore or event loop; `agenda` says who goes on at the loop's
next turn, in which order.

Times are integer nanoseconds since the model began.
"""

from collections import Counter
from collections.abc import Generator
from itertools import count
from typing import Final

import attrs

MAX_MSG_TIMEOUT: Final = 9_000_000_000


class Nothing(Exception):
    """A get comes to nothing; the text names the error."""


class Cancelled(BaseException):
    """A task is cancelled."""


@attrs.define(eq=False)
class Copy:
    """A message of the channel; attempts are those that count already."""

    body: int
    attempts: int = 0


@attrs.define(eq=False)
class Reader:
    """A consumer; `waiters` are its gets that wait, in the order in which they came."""

    timeout: int
    window: int
    held: int = 0
    over: bool = False
    waiters: list["Getter"] = attrs.field(factory=list)

    def is_full(self) -> bool:
        return self.held >= self.window


@attrs.define(eq=False)
class Flight:
    """A delivery; `seen` if its caller has it."""

    copy: Copy
    reader: Reader
    since: int
    due: int
    order: int
    seen: bool = False


Waiting = Generator[int | None, None, list[Flight]]
"""What yields until when it sleeps, None for ever, and returns what it got."""


@attrs.define(eq=False)
class Getter:
    """A task that gets.

    `asleep` says whether it waits, and `called` whether it is to go on; `outcome` is what it
    returned, or the name of what it raised.
    """

    reader: Reader
    run: Waiting | None = None
    started: bool = False
    asleep: bool = False
    called: bool = False
    cancelled: bool = False
    hand: Flight | None = None
    outcome: list[Flight] | str | None = None


class Model:
    """A channel, its consumers and the tasks that get from them."""

    def __init__(self) -> None:
        """Begin at 0 with nothing."""
        self.now = 0
        self.paused = False
        self.ready: list[Copy] = []
        self.returned: list[tuple[int, int]] = []
        self.deferred: list[tuple[int, int, Copy]] = []
        self.flying: list[Flight] = []
        self.line: list[Getter] = []
        self.parked: list[Getter] = []
        self.agenda: list[Getter] = []
        self.alarms: list[tuple[int, int, Getter]] = []
        self.finished: list[int] = []
        self.reached: Counter[int] = Counter()  # deliveries that came to a caller, by body
        self.unseen: Counter[int] = Counter()  # those that count, but were too late for that
        self._order = count()

    # Messages

    def put(self, bodies: list[int], delay: int) -> None:
        for body in bodies:
            if delay:
                self.deferred.append((self.now + delay, next(self._order), Copy(body)))
            else:
                self.ready.append(Copy(body))
        self.feed()

    def fin(self, flight: Flight) -> None:
        self.land(flight)
        self.finished.append(flight.copy.body)
        self.settled(flight.reader)

    def req(self, flight: Flight, delay: int) -> None:
        self.land(flight)
        flight.copy.attempts += 1
        if delay:
            self.deferred.append((self.now + delay, next(self._order), flight.copy))
        else:
            self.ready.append(flight.copy)
        self.settled(flight.reader)

    def touch(self, flight: Flight) -> None:
        due = min(self.now + flight.reader.timeout, flight.since + MAX_MSG_TIMEOUT)
        if due != flight.due:
            flight.due, flight.order = due, next(self._order)

    def settled(self, reader: Reader) -> None:
        self.unpark(reader)
        self.feed()

    def land(self, flight: Flight) -> None:
        self.flying.remove(flight)
        flight.reader.held -= 1

    def give_back(self, flight: Flight, attempts: int) -> None:
        if flight in self.flying:
            self.land(flight)
            self.count(flight, attempts)
            while self.returned and self.returned[:1] != [
                (c.body, c.attempts) for c in self.ready[:1]
            ]:
                self.returned.pop(0)
            place = sum(body < flight.copy.body for body, _ in self.returned)
            self.ready.insert(place, flight.copy)
            self.returned.insert(place, (flight.copy.body, flight.copy.attempts))
            self.unpark(flight.reader)

    def withdraw(self, flight: Flight) -> bool:
        """Take back what a getter was handed and has not seen yet; say whether that was so."""
        for getter in flight.reader.waiters:
            if getter.hand is flight:
                getter.hand = None
                return True
        return False

    def count(self, flight: Flight, attempts: int) -> None:
        """Count a delivery that is over, if it was one."""
        flight.copy.attempts += attempts
        if not flight.seen:
            self.unseen[flight.copy.body] += attempts

    def by_deadline(self) -> list[Flight]:
        return sorted(self.flying, key=lambda flight: (flight.due, flight.order))

    # The line

    def deliver(self, reader: Reader) -> Flight:
        due = self.now + reader.timeout
        flight = Flight(self.ready.pop(0), reader, self.now, due, next(self._order))
        self.flying.append(flight)
        reader.held += 1
        return flight

    def feed(self) -> None:
        """Hand what is ready to those in line, past those who could not take it."""
        while self.line and self.ready and not self.paused:
            getter = self.line.pop(0)
            if getter.reader.is_full():
                self.parked.append(getter)
            else:
                getter.hand = self.deliver(getter.reader)
                self.ring(getter)

    def unpark(self, reader: Reader) -> None:
        self.line += [getter for getter in self.parked if getter.reader is reader]
        self.parked = [getter for getter in self.parked if getter.reader is not reader]

    def leave(self, getter: Getter) -> None:
        for line in (self.line, self.parked):
            if getter in line:
                line.remove(getter)

    def ring(self, getter: Getter) -> None:
        if getter.asleep:
            self.call(getter)

    def call(self, getter: Getter) -> None:
        """Have a task go on at the next turn, if it does not yet."""
        if not getter.called:
            getter.called = True
            self.agenda.append(getter)

    # Consumers

    def rdy(self, reader: Reader, window: int) -> None:
        reader.window = window
        self.unpark(reader)
        self.feed()

    def close(self, reader: Reader, give_back: bool) -> None:
        if reader.over:
            return
        reader.over = True
        for getter in reader.waiters:
            self.ring(getter)
            self.leave(getter)
        self.feed()
        if give_back:
            for flight in reversed(self.by_deadline()):
                if flight.reader is reader:
                    self.give_back(flight, 0 if self.withdraw(flight) else 1)
        self.feed()

    def pause(self, paused: bool) -> None:
        self.paused = paused
        self.feed()

    # Getting

    def receive(self, getter: Getter) -> Flight | None:
        reader = getter.reader
        if getter.hand is not None:
            return getter.hand
        if reader.over:
            raise Nothing("Closed")
        if self.ready and not self.paused and not reader.is_full():
            self.leave(getter)
            return self.deliver(reader)
        if getter not in self.line and getter not in self.parked:
            (self.parked if reader.is_full() else self.line).append(getter)
        return None

    def nothing(self, reader: Reader) -> Nothing:
        return Nothing("WindowFull" if reader.is_full() and reader.window < 100 else "Empty")

    def get(self, getter: Getter, limit: int | None) -> Waiting:
        return [(yield from self.wait(getter, limit))]

    def wait(self, getter: Getter, limit: int | None) -> Generator[int | None, None, Flight]:
        reader = getter.reader
        deadline = None if limit is None else self.now + limit
        reader.waiters.append(getter)
        try:
            while True:
                flight = self.receive(getter)
                if flight is None and deadline is not None and self.now >= deadline:
                    self.leave(getter)
                    self.feed()
                    raise self.nothing(reader)
                if flight is None:
                    yield deadline
                    flight = getter.hand
                getter.hand = None
                if flight is not None and flight in self.flying:
                    return flight
        except Cancelled:
            self.leave(getter)
            if getter.hand is not None:
                self.give_back(getter.hand, 0)
            self.feed()
            raise
        finally:
            self.leave(getter)
            reader.waiters.remove(getter)

    def get_many(self, getter: Getter, n: int, limit: int | None, linger: int) -> Waiting:
        batch: list[Flight] = []
        reader = getter.reader
        try:
            self.grab(batch, reader, n)
            if not batch:
                batch.append((yield from self.wait(getter, limit)))
                self.grab(batch, reader, n)
            deadline = self.now + linger
            while len(batch) < n and not reader.is_full() and self.now < deadline:
                batch.append((yield from self.wait(getter, deadline - self.now)))
                self.grab(batch, reader, n)
        except Nothing:
            batch = [flight for flight in batch if flight in self.flying]
            if not batch:
                raise
        except Cancelled:
            for flight in reversed(batch):
                self.give_back(flight, 0)
            self.feed()
            raise
        return batch

    def grab(self, batch: list[Flight], reader: Reader, n: int) -> None:
        if reader.over:
            raise Nothing("Closed")
        while self.ready and not self.paused and len(batch) < n and not reader.is_full():
            batch.append(self.deliver(reader))

    # Tasks

    def start(self, getter: Getter, run: Waiting) -> None:
        getter.run = run
        self.call(getter)

    def cancel(self, getter: Getter) -> None:
        if getter.outcome is None:
            getter.cancelled = True
            self.call(getter)

    def turn(self) -> None:
        """Let those go on who can."""
        agenda, self.agenda = self.agenda, []
        for getter in agenda:
            self.resume(getter)

    def resume(self, getter: Getter) -> None:
        assert getter.run is not None
        self.alarms = [alarm for alarm in self.alarms if alarm[2] is not getter]
        getter.asleep = getter.called = False
        if getter.cancelled and not getter.started:
            getter.outcome = "CancelledError"
            return
        try:
            moment = getter.run.throw(Cancelled()) if getter.cancelled else next(getter.run)
            getter.started = getter.asleep = True
            if moment is not None:
                self.alarms.append((moment, next(self._order), getter))
        except StopIteration as over:
            getter.outcome = flights = over.value
            for flight in flights:
                flight.seen = True
                self.reached[flight.copy.body] += flight in self.flying
        except Nothing as nothing:
            getter.outcome = str(nothing)
        except Cancelled:
            getter.outcome = "CancelledError"

    # Time

    def advance(self, step: int) -> None:
        target = self.now + step
        while True:
            moments = [flight.due for flight in self.flying]
            moments += [due for due, _, _ in self.deferred]
            moments += [moment for moment, _, _ in self.alarms]
            self.now = min([moment for moment in moments if moment > self.now], default=target)
            self.now = min(self.now, target)
            self.fall_due()
            if self.now == target:
                return

    def fall_due(self) -> None:
        """Have everything happen that is due."""
        for flight in self.by_deadline():
            if flight.due <= self.now and self.withdraw(flight):
                self.give_back(flight, 0)
            elif flight.due <= self.now:
                self.land(flight)
                self.count(flight, 1)
                self.ready.append(flight.copy)
                self.unpark(flight.reader)
        for deferral in sorted(self.deferred, key=lambda found: found[:2]):
            if deferral[0] <= self.now:
                self.deferred.remove(deferral)
                self.ready.append(deferral[2])
        self.feed()
        for moment, _, getter in self.alarms:
            if moment <= self.now:
                self.ring(getter)
