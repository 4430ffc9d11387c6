"""Every exception that nsqlite raises, by what the caller should do about it.

The rule: each error carries its facts as fields and builds its text from them, and the call that
raised it has changed nothing.  Where the standard library has an error that its users already
catch, ours is one of those too.

    NSQLiteError
    |-- InvalidName        (ValueError)   fix your call: a topic or channel name
    |-- InvalidOption      (ValueError)   fix your call: an option, a delay, a timeout
    |-- InvalidMessage     (ValueError)   fix your call: a body, or what is no message
    |-- NotCopyable        (TypeError)    fix your call: pass the object itself, or what is in it
    |-- NotAsyncio         (RuntimeError) fix your call: `await` it in an event loop of asyncio
    |-- MissingExtra                      install what it names: an extra of nsqlite
    |-- TooManyConsumers                  fix your call: max_channel_consumers is reached
    |-- NotInFlight                       too late: the message is no longer this delivery's
    |-- Empty              (queue.Empty)  nothing now: no message came in time
    |   `-- WindowFull                    nothing now: answer something first
    |-- Full               (queue.Full)   nothing now: a bounded queue has no room
    |-- Closed                            over: consumer, channel, topic or broker
    |-- StoreError                        the disk: what a store could not do
    |   |-- StoreFull                     the disk: make room, and it goes on by itself
    |   |-- StoreForeign                  fix your call: not a file of this version of nsqlite
    |   |-- StoreDamaged                  the disk: the file is damaged, get your backup
    |   |-- StoreInUse                    not here: another process has it, or you are its fork
    |   |-- NoOwner                       nowhere: no process answers for it; nothing was done
    |   `-- Unanswered                    unknown: its owner went away, or is busy; look there
    |-- RecordingError                    the disk: a recording that cannot be begun, or read
    |-- CannotListen                      the system: the address is in use, or cannot be had
    |-- Reentered                         not here: called inside another call of the same thread
    |-- ClockOutOfRange                   the wall clock: set it right, and put again
    |-- ClockStandsStill                  a test waits on a clock that nobody moves
    `-- StillBusy                         a test waits for the end of work that has none

Next: names.py
"""

import queue
from collections.abc import Callable
from typing import Final

_SHOWN: Final = 200


def shown(value: object) -> str:
    """Return what an error shows of a value that was given: its repr, if it has one, cut short."""
    try:
        text = repr(value)
    except Exception:
        text = f"<{type(value).__name__}>"
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}..."


def printable(text: str) -> str:
    """Return a text with what cannot be printed as escapes: one line, whatever is in it."""
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else ascii(one)[1:-1] for one in text)


class NSQLiteError(Exception):
    """The base of every error that nsqlite raises."""


class InvalidName(NSQLiteError, ValueError):
    """A topic or channel name breaks NSQ's rule (NSQ semantics §2).

    Attributes:
        kind: ``"topic"`` or ``"channel"``.
        name: what was given.
    """

    def __init__(self, kind: str, name: object) -> None:
        super().__init__(kind, name)
        self.kind = kind
        self.name = name

    def __str__(self) -> str:
        return (
            f"{self.kind} name {shown(self.name)} is not valid: use 1 to 64 of the characters"
            " . a-z A-Z 0-9 _ - and, if it is ephemeral, end with #ephemeral (counted)"
        )


class InvalidOption(NSQLiteError, ValueError):
    """An option, delay or timeout is of the wrong type or out of its range.

    Attributes:
        option: its name.
        value: what was given.
        expected: what it takes, in words.
    """

    def __init__(self, option: str, value: object, expected: str) -> None:
        super().__init__(option, value, expected)
        self.option = option
        self.value = value
        self.expected = expected

    def __str__(self) -> str:
        return f"{self.option} must be {self.expected}, not {shown(self.value)}"


class InvalidMessage(NSQLiteError, ValueError):
    """A body has a size that NSQ refuses, or what was given is no message at all.

    Attributes:
        index: the body's place in its batch, or None if there was no batch.
        problem: what is wrong, in words.
    """

    def __init__(self, problem: str, index: int | None = None) -> None:
        super().__init__(problem, index)
        self.problem = problem
        self.index = index

    def __str__(self) -> str:
        return self.problem if self.index is None else f"message {self.index}: {self.problem}"


class NotCopyable(NSQLiteError, TypeError):
    """A topic, channel, consumer, broker or message was to be copied or pickled.

    Attributes:
        what: its repr.
    """

    def __init__(self, what: object) -> None:
        text = what if isinstance(what, str) else shown(what)
        super().__init__(text)
        self.what = text

    def __str__(self) -> str:
        return (
            f"{self.what} cannot be copied or pickled, since other threads know it too: pass it on"
            " as it is; to another process send the names, or a message's body"
        )


class NotAsyncio(NSQLiteError, RuntimeError):
    """A call of `nsqlite.aio` was awaited where no event loop of asyncio runs.

    Attributes:
        call: the name of the call.
    """

    def __init__(self, call: str) -> None:
        super().__init__(call)
        self.call = call

    def __str__(self) -> str:
        return (
            f"{self.call}() needs a running event loop of asyncio (trio and curio have other ones):"
            " use asyncio.run(), or nsqlite.Consumer in a thread"
        )


class MissingExtra(NSQLiteError):
    """Something needs a package that comes with an extra of nsqlite, and is not installed.

    Attributes:
        what: what needs it, in words.
        package: the package.
        extra: the extra that brings it.
    """

    def __init__(self, what: str, package: str, extra: str) -> None:
        super().__init__(what, package, extra)
        self.what = what
        self.package = package
        self.extra = extra

    def __str__(self) -> str:
        return (
            f"{self.what} needs {self.package}, which is not installed:"
            f" pip install 'nsqlite[{self.extra}]'"
        )


class TooManyConsumers(NSQLiteError):
    """A channel has as many consumers as ``max_channel_consumers`` allows (NSQ semantics §15).

    Attributes:
        topic: the topic's name.
        channel: the channel's name.
        limit: the value of ``max_channel_consumers``.
    """

    def __init__(self, topic: str, channel: str, limit: int) -> None:
        super().__init__(topic, channel, limit)
        self.topic = topic
        self.channel = channel
        self.limit = limit

    def __str__(self) -> str:
        return f"consumers for {self.topic}:{self.channel} exceeds limit of {self.limit}"


class NotInFlight(NSQLiteError):
    """The message cannot be answered or touched through this object any more.

    Attributes:
        id: the message's id.
        reason: ``"answered"``, ``"timed out"``, ``"not owner"`` (it was delivered to another
            consumer), ``"given back"`` (its consumer was closed), ``"dropped"`` (emptied, deleted
            or closed meanwhile), or ``"unknown"`` (an id that is not in flight).
    """

    def __init__(self, id: str, reason: str) -> None:  # noqa: A002 - NSQ's word for it
        super().__init__(id, reason)
        self.id = id
        self.reason = reason

    def __str__(self) -> str:
        if self.reason == "not owner":
            return f"message {self.id}: client does not own message"
        return f"message {self.id}: ID not in flight ({self.reason})"


class Empty(NSQLiteError, queue.Empty):
    """No message came within the timeout.

    Attributes:
        channel: the channel's name.
        why: what the channel has instead, in words: it is paused, so many messages are in flight or
            deferred; empty if there is nothing.  As it is when this is first asked for.
    """

    def __init__(self, channel: str, why: str | Callable[[], str] = "") -> None:
        self.channel = channel
        self._why = why

    @property
    def why(self) -> str:
        """What the channel has instead; see the class."""
        why = self._why
        if not isinstance(why, str):
            why = self._why = why()
        return why

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.channel, self.why)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.channel!r}, {str(self)!r})"

    def __str__(self) -> str:
        text = f"no message came on channel {self.channel!r} in time"
        return f"{text}: {self.why}" if self.why else text


class WindowFull(Empty):
    """The timeout passed while the consumer held ``max_in_flight`` unanswered messages.

    Attributes:
        channel: the channel's name.
        max_in_flight: the consumer's window.
    """

    def __init__(self, channel: str, max_in_flight: int) -> None:
        super().__init__(channel)
        self.max_in_flight = max_in_flight

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.channel, self.max_in_flight)

    def __str__(self) -> str:
        if self.max_in_flight == 0:
            return f"the window of the consumer of channel {self.channel!r} is 0: rdy() opens it"
        return (
            f"the consumer of channel {self.channel!r} holds max_in_flight={self.max_in_flight}"
            " messages: fin() or req() one first"
        )


class Full(NSQLiteError, queue.Full):
    """A bounded queue has no room for the whole put; nothing was put anywhere.

    Attributes:
        where: the full queue, as ``topic`` or ``topic:channel``.
        size: how many messages the put had.
        max_depth: the queue's bound; None if other puts wait in front of this one.
    """

    def __init__(self, where: str, size: int, max_depth: int | None = None) -> None:
        super().__init__(where, size, max_depth)
        self.where = where
        self.size = size
        self.max_depth = max_depth

    def __str__(self) -> str:
        if self.max_depth is None:
            return f"other puts to {self.where} wait in front of this one"
        if self.size > self.max_depth:
            return f"a batch of {self.size} can never fit {self.where}: max_depth={self.max_depth}"
        return f"{self.where} has no room for {self.size} more: max_depth={self.max_depth}"


class Closed(NSQLiteError):
    """The consumer, channel, topic or broker is over, or a worker was used already.

    Attributes:
        what: which one, in words.
        how: ``"closed"``, ``"deleted"``, ``"draining"``; of a worker ``"started already"`` or
            ``"stopped"``.
    """

    def __init__(self, what: str, how: str = "closed") -> None:
        super().__init__(what, how)
        self.what = what
        self.how = how

    def __str__(self) -> str:
        return f"{self.what} is {self.how}"


class StoreError(NSQLiteError):
    """A store could not be opened, read or written; the call has changed nothing.

    Attributes:
        where: the store's file.
        problem: what is wrong, in words.
    """

    def __init__(self, where: str, problem: str) -> None:
        super().__init__(where, problem)
        self.where = where
        self.problem = problem

    def __str__(self) -> str:
        return f"store {self.where}: {self.problem}"


class StoreFull(StoreError):
    """There is no room on the disk; when there is again, the store goes on by itself.

    Attributes:
        where: the store's file.
        problem: what is wrong, in words.
    """


class StoreForeign(StoreError):
    """The file is not one of nsqlite's, or was written by a later version.

    Attributes:
        where: the store's file.
        problem: what is wrong, in words.
    """


class StoreDamaged(StoreError):
    """The file is damaged: what is read from it cannot be trusted.

    Attributes:
        where: the store's file.
        problem: what is wrong, in words.
    """


class StoreInUse(StoreError):
    """The file has an owner already, and it is not this process.

    Attributes:
        where: the store's file.
        pid: the number of the owner's process; None if it is not known, or means nothing here, as
            that of another container or machine.
        problem: what is wrong, in words.
    """

    def __init__(self, where: str, pid: int | None, problem: str) -> None:
        super().__init__(where, problem)
        self.args: tuple[object, ...] = (where, pid, problem)
        self.pid = pid


class NoOwner(StoreError):
    """No process answers for the file on its control socket; nothing was done.

    The call can be made again when there is one.

    Attributes:
        where: the store's file.
        problem: what is wrong, in words.
    """


class Unanswered(StoreError):
    """The file's owner was asked and did not answer: it may have done it, or may yet.

    Attributes:
        where: the store's file.
        problem: what is wrong, in words.
    """


class RecordingError(NSQLiteError):
    """A recording of events cannot be begun or read; nothing was written.

    Attributes:
        where: its file.
        problem: what is wrong, in words.
    """

    def __init__(self, where: str, problem: str) -> None:
        super().__init__(where, problem)
        self.where = where
        self.problem = problem

    def __str__(self) -> str:
        return f"recording {self.where}: {self.problem}"


class CannotListen(NSQLiteError):
    """An address cannot be listened on; nothing was left open or made.

    Attributes:
        address: which one, as it was given.
        problem: why not, in the system's words.
    """

    def __init__(self, address: str, problem: str) -> None:
        super().__init__(address, problem)
        self.address = address
        self.problem = problem

    def __str__(self) -> str:
        return f"listen ({self.address}) failed - {self.problem}"


class Reentered(NSQLiteError):
    """A signal handler or destructor called in the middle of another call of its own thread.

    Calls that need no answer (``put``, ``fin``, ``req``, ``touch``, ``close``, ...) are made as
    soon as the interrupted call is done; those that must answer at once raise this.  So does a
    call that would wait for its own caller to finish, as a handler that joins its worker, or that
    waits for room in its own full channel.

    Attributes:
        call: the name of the refused call.
        instead: what to do instead, in words; None for a call inside another call.
    """

    def __init__(self, call: str, instead: str | None = None) -> None:
        super().__init__(call, instead)
        self.call = call
        self.instead = instead

    def __str__(self) -> str:
        if self.instead is not None:
            return f"{self.call}() would wait here for its own end: {self.instead}"
        return (
            f"{self.call}() was called by a signal handler or destructor inside another call on the"
            " same topic, and cannot answer there: set a flag and call it later"
        )


class ClockOutOfRange(NSQLiteError):
    """The wall clock shows a time for which there are no message ids; nothing was put.

    Attributes:
        now: what it shows, in seconds since 1970.
        problem: why that does not do, in words.
    """

    def __init__(self, now: float, problem: str) -> None:
        super().__init__(now, problem)
        self.now = now
        self.problem = problem

    def __str__(self) -> str:
        return f"the wall clock shows {self.now:.0f} s since 1970, {self.problem}"


class ClockStandsStill(NSQLiteError):
    """Every thread that uses a manual clock waits on it, so nobody is left to move it.

    Attributes:
        waiter: who waits, in words.
        next_deadline: seconds from now to the next deadline on that clock, or None.
        elsewhere: the names of threads that use it, but are busy elsewhere and did not come back,
            as those of handlers that are stuck.
    """

    def __init__(
        self, waiter: str, next_deadline: float | None, elsewhere: tuple[str, ...] = ()
    ) -> None:
        super().__init__(waiter, next_deadline, elsewhere)
        self.waiter = waiter
        self.next_deadline = next_deadline
        self.elsewhere = elsewhere

    def __str__(self) -> str:
        when = (
            "there is no deadline to wait for"
            if self.next_deadline is None
            else f"the next deadline is {self.next_deadline:g} s ahead"
        )
        but = f" but for {', '.join(self.elsewhere)}" if self.elsewhere else ""
        return (
            f"{self.waiter} waits for ever: every thread that uses its clock waits on it{but},"
            f" nobody moves it, and {when}; call advance() from another thread, or make the clock"
            " with autojump=True"
        )


class StillBusy(NSQLiteError):
    """Work goes on beyond a limit, as that of a handler that always puts or requeues.

    Attributes:
        call: who waited for its end, in words.
        limit: how long or how much that was, in words.
        following: what is next, in words.
    """

    def __init__(self, call: str, limit: str, following: str) -> None:
        super().__init__(call, limit, following)
        self.call = call
        self.limit = limit
        self.following = following

    def __str__(self) -> str:
        return (
            f"{self.call} has no end: after {self.limit} there is {self.following}; end what goes"
            " on, or give it a higher limit"
        )
