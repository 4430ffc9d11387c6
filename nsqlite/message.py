"""A message, as one delivery of one record.

The rule: an object answers for one delivery only.  It is in flight exactly while it lies in its
page of the channel's timer wheel; what took it out of there has decided its outcome, and a stale
object can do nothing.

    in flight --fin--> finished          --close of its consumer--> returned
              --req--> requeued          --empty, delete, close---> dropped
              --time-out--> timed out    --move--> finished

What waits in a queue is no object but a record: a tuple, which the garbage collector soon leaves
alone, shared by all channels, and replaced when a delivery failed by one that counts it.

Next: waiting.py
"""

import enum
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Generic, Literal, NoReturn, Protocol, Self, TypeAlias

from nsqlite.errors import NotCopyable, NotInFlight, printable, shown
from nsqlite.monitor import logger
from nsqlite.options import Seconds
from nsqlite.timerwheel import Page

if TYPE_CHECKING:
    from typing_extensions import TypeVar

    T = TypeVar("T", default=Any)
else:
    from typing import TypeVar

    T = TypeVar("T")

_SHOWN: Final = 60

Record: TypeAlias = tuple[T, int, str, str, int]
"""Body, timestamp, the two parts of the id, deliveries so far."""


Where = Literal["ready", "in flight", "deferred"]
"""Where a message of a channel is."""


class State(enum.StrEnum):
    """What became of a delivery; a member equals its text."""

    IN_FLIGHT = "in flight"
    FINISHED = "finished"
    REQUEUED = "requeued"
    TIMED_OUT = "timed out"
    RETURNED = "returned"
    DROPPED = "dropped"


REASONS: Final = {
    State.FINISHED: "answered",
    State.REQUEUED: "answered",
    State.TIMED_OUT: "timed out",
    State.RETURNED: "given back",
    State.DROPPED: "dropped",
}
"""Why an answer comes too late, as `NotInFlight.reason` puts it."""


class Uncopyable:
    """An object that other threads know, too: a copy would be something else.

    Neither it nor its subclasses can be copied or pickled.
    """

    __slots__ = ()

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        """Refuse `copy.copy`, `copy.deepcopy` and `pickle`.

        Raises:
            NotCopyable: always.
        """
        raise NotCopyable(self)


class Owner(Protocol):
    """What a message needs of the consumer that it was delivered to."""

    @property
    def requeue_delay(self) -> float:
        """Seconds of delay when the `with` block of a message fails."""
        ...

    @property
    def client_id(self) -> int:
        """Its number."""
        ...

    def fin(self, message: "Message[Any]") -> None:
        """Finish it."""
        ...

    def req(self, message: "Message[Any]", delay: Seconds = 0) -> None:
        """Requeue it."""
        ...

    def touch(self, message: "Message[Any]") -> None:
        """Give it its whole time again."""
        ...


class Message(Uncopyable, Generic[T]):
    """One delivery of a message to one consumer.

    `Consumer.get` makes them.  The body is the object that was published, not a copy: two channels
    give the same object, so a consumer that changes it changes what the others see.

    As a context manager it finishes the message when the block succeeds and requeues it, after the
    consumer's `requeue_delay`, when the block raises; the exception goes on.  A message that was
    answered inside the block is left as it is.

    It is this one delivery, and can be neither copied nor pickled.

    Threads: any may answer, touch and read it.
    """

    __slots__ = ("_consumer", "_outcome", "_page", "_record", "_since")

    if TYPE_CHECKING:
        _record: Record[T]
        _consumer: Any  # an Owner; the channel knows more of it than this file may
        _page: Page["Message[T]"]
        _since: int  # when it was delivered, if it was touched
        _outcome: State  # of what was not finished

    @property
    def body(self) -> T:
        """What was published, the object itself."""
        return self._record[0]

    @property
    def id(self) -> str:
        """16 hex characters, the same in all channels (NSQ semantics §4)."""
        return self._record[2] + self._record[3]

    @property
    def timestamp(self) -> int:
        """When it was published, in nanoseconds since the epoch."""
        return self._record[1]

    @property
    def attempts(self) -> int:
        """How often this channel has delivered it, this delivery counted: 1 or more."""
        return self._record[4] + 1

    @property
    def state(self) -> State:
        """What has become of this delivery."""
        page = self._page
        while self not in page:
            if page is self._page:  # else it was touched meanwhile
                return getattr(self, "_outcome", State.FINISHED)
            page = self._page
        return State.IN_FLIGHT

    def fin(self) -> None:
        """Finish it: its channel forgets it.

        Raises:
            NotInFlight: it was answered already or has timed out; nothing has changed.
        """
        self._consumer.fin(self)

    def req(self, delay: Seconds = 0) -> None:
        """Requeue it: its channel delivers it again.

        Args:
            delay: seconds until then; more than `max_req_timeout` counts as that.

        Raises:
            NotInFlight: it was answered already or has timed out; nothing has changed.
            InvalidOption: the delay is negative or no finite number; nothing has changed.
        """
        self._consumer.req(self, delay)

    def touch(self) -> None:
        """Ask for the whole time-out again, counted from now.

        Raises:
            NotInFlight: it was answered already or has timed out; nothing has changed.
        """
        self._consumer.touch(self)

    def _refusal(self) -> NotInFlight:
        """Return the error that tells why this delivery is over."""
        return NotInFlight(self.id, REASONS[self.state])

    def __enter__(self) -> Self:
        """Begin a block that answers it."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Answer it, unless the block has.

        Raises:
            NotInFlight: the block succeeded, but the message had timed out or was taken back.
        """
        if self.state in (State.FINISHED, State.REQUEUED):
            return
        if kind is None:
            self.fin()
            return
        try:
            self.req(self._consumer.requeue_delay)
        except NotInFlight as late:
            # As text: who keeps the record must not keep what the errors know.
            logger().warning("%s; its handler failed with %s", str(late), shown(error))

    def __repr__(self) -> str:
        """Show id, attempts, state and the beginning of the body."""
        if not hasattr(self, "_page"):
            return "<Message never delivered>"
        body = shown(self.body)
        if len(body) > _SHOWN:
            body = body[: _SHOWN - 3] + "..."
        return f"<Message {self.id} attempts={self.attempts} {self.state}: {body}>"

    def _repr_html_(self) -> str:
        """Show it in a notebook: its id, its state, its attempts and its body."""
        from html import escape  # noqa: PLC0415 - keeps importing fast

        if not hasattr(self, "_page"):
            return f"<pre>{escape(repr(self))}</pre>"
        facts = (self.id, self.state, str(self.attempts), shown(self.body))
        rows = (
            f'<tr><th style="text-align:left;padding-right:1em">{name}</th>'
            f'<td style="text-align:left">{escape(printable(fact))}</td></tr>'
            for name, fact in zip(("id", "state", "attempts", "body"), facts, strict=True)
        )
        return f"<table>{''.join(rows)}</table>"


def was_delivered(message: object) -> bool:
    """Return whether something is a message that a consumer has got."""
    return isinstance(message, Message) and hasattr(message, "_page")


def counted(message: Message[T]) -> Record[T]:
    """Return the record of a message that counts this delivery."""
    body, timestamp, prefix, suffix, attempts = message._record
    return body, timestamp, prefix, suffix, attempts + 1
