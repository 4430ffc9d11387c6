"""What is to go wrong between an nsqd of a test and its clients, and what did.

The rule: a fault strikes what it was told to, in the order in which that comes; chance has a seed
of its own in each fault, so that the same things in the same order are struck again.

    with nsqlite.testing.nsqd() as nsqd:
        nsqd.faults.fail("PUB", nth=2)
        nsqd.faults.lose("OK", probability=0.1)
        with nsqd.faults.lose("heartbeat"):
            ...

Next: testing/faultywire.py
"""

import threading
from random import Random
from types import TracebackType
from typing import Any, Final, Literal, NamedTuple, Self, TypedDict, Unpack, get_args

from nsqlite.clock import Clock
from nsqlite.errors import InvalidOption
from nsqlite.options import SECOND, Seconds, nanoseconds, unknown_option, whole

Put = Literal["PUB", "MPUB", "DPUB"]
"""The commands that publish."""

Command = Literal[
    "IDENTIFY", "AUTH", "SUB", "RDY", "FIN", "REQ", "TOUCH", "CLS", "NOP", "PUB", "MPUB", "DPUB"
]
"""What a client sends."""

Frame = Literal["OK", "CLOSE_WAIT", "heartbeat", "response", "error", "message"]
"""What a client is sent; ``"response"`` is one that is none of the three before, as JSON."""

PUTS: Final = frozenset(get_args(Put))
COMMANDS: Final = frozenset(get_args(Command))
FRAMES: Final = frozenset(get_args(Frame))

ACCEPT: Final = frozenset({"accept"})
SENT: Final = frozenset({"sent"})
READ: Final = frozenset({"read"})
"""What else can be struck: a new connection, one that was sent so many frames, one that is read."""


class FaultOptions(TypedDict, total=False):
    """Which of the things that a fault can strike it does strike; by default all.

    nth: only the n-th that comes, counted from 1 since the fault was set.
    times: no more than so many.
    probability: each with this probability, 0 to 1.
    client_id: only on connections of the client that calls itself so in its IDENTIFY.
    next_connection: only on the next connection that is made.
    """

    nth: int
    times: int
    probability: float
    client_id: str
    next_connection: bool


class Injected(NamedTuple):
    """A fault that struck.

    Attributes:
        fault: its name, as ``"lose FIN"``.
        what: what it struck: a command or frame, or ``"accept"``, ``"sent"`` or ``"read"`` of a
            connection.
        connection: the connection's number; the first of an nsqd is 1.
        client_id: what the client calls itself; empty before its IDENTIFY.
        time: when, in seconds since the epoch, by the nsqd's clock.
    """

    fault: str
    what: str
    connection: int
    client_id: str
    time: float


class Fault:
    """Something that goes wrong until it is removed; in a ``with`` statement, until its end.

    Threads: any.

    Attributes:
        name: what it does, in words.
        count: how often it has struck.
    """

    def __init__(self, faults: "Faults", action: str, whats: frozenset[str], number: int) -> None:
        self.name = action
        self.count: int = 0
        self._faults: Final = faults
        self._action: Final = action
        self._whats: Final = whats
        self._random: Final = Random(f"{faults.seed}/{number}")  # noqa: S311 - chance with a seed
        self._seen = 0
        self._nth: int | None = None
        self._times: int | None = None
        self._probability = 1.0
        self._client_id: str | None = None
        self._next_connection = False
        self._connection: int | None = None
        self._delay = 0
        self._after = 0
        self._sent: Final[dict[int, int]] = {}  # frames, by the connection's number
        self._rate = 0.0
        self._slowed: Final[dict[int, bool]] = {}  # whether it struck, by the connection's number
        self._cause = ""

    def _choose(self, options: FaultOptions) -> None:
        """Take note of what it strikes."""
        for name in options:
            if name not in FaultOptions.__annotations__:
                raise unknown_option("option", name, FaultOptions.__annotations__)
        if "nth" in options:
            self._nth = whole("nth", options["nth"], 1)
        if "times" in options:
            self._times = whole("times", options["times"], 1)
        probability = options.get("probability", 1.0)
        if not 0 <= probability <= 1:
            raise InvalidOption("probability", probability, "a number from 0 to 1")
        self._probability = probability
        self._client_id = options.get("client_id")
        self._next_connection = options.get("next_connection", False)

    def _concerns(self, what: str, number: int, client_id: str) -> bool:
        """Return whether it can strike something on a connection."""
        return (
            what in self._whats
            and (self._client_id is None or self._client_id == client_id)
            and (not self._next_connection or self._connection == number)
            and (not self._after or self._is_after(number))
        )

    def _is_after(self, number: int) -> bool:
        """Count a frame, and return whether a connection has had as many as it is to have."""
        self._sent[number] = sent = self._sent.get(number, 0) + 1
        return sent == self._after

    def _strikes(self) -> bool:
        """Return whether it strikes what has come now; in the loop's thread."""
        if self._times is not None and self.count >= self._times:
            return False
        self._seen += 1
        if self._nth is not None and self._seen != self._nth:
            return False
        if self._probability < 1 and self._random.random() >= self._probability:
            return False
        self.count += 1
        return True

    def remove(self) -> None:
        """Have it strike no more; what it has delayed stays delayed."""
        self._faults._remove(self)

    def __enter__(self) -> Self:
        """Begin a block at whose end it is removed."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Remove it."""
        self.remove()

    def __repr__(self) -> str:
        """Show what it does, and how often it has struck."""
        return f"<Fault {self.name!r} count={self.count}>"


class Faults:
    """The faults of an nsqd.

    They act on connections that are there as well as on new ones.  Where several could strike, the
    one does that was set first.

    Commands and frames are seen as long as a connection has neither TLS nor compression; with one
    of these nothing but `refuse` and, with compression, `slow` strikes, which is logged.

    Threads: any.

    Attributes:
        seed: what chance begins with.
    """

    def __init__(self, clock: Clock, seed: int = 0) -> None:
        """Begin without any.

        Args:
            clock: what a delay is measured by.
            seed: see the class.
        """
        self.seed: Final = seed
        self._clock: Final = clock
        self._set: tuple[Fault, ...] = ()
        self._made = 0
        self._lock: Final = threading.Lock()
        self._injected: Final[list[Injected]] = []

    # Setting them

    def lose(self, what: Command | Frame, **which: Unpack[FaultOptions]) -> Fault:
        """Have a command not reach the nsqd, or a frame not reach the client.

        ``lose("heartbeat")`` stops the heartbeats.
        """
        return self._add("lose", _checked(what, COMMANDS | FRAMES), which)

    def delay(
        self, what: Command | Frame, seconds: Seconds, **which: Unpack[FaultOptions]
    ) -> Fault:
        """Have a command or frame come later, by the nsqd's clock.

        What follows it in the same direction comes behind it, as on a slow network.  What is on
        its way when the nsqd ends the connection is lost.
        """
        delay = nanoseconds("seconds", seconds)
        return self._add("delay", _checked(what, COMMANDS | FRAMES), which, _delay=delay)

    def fail(
        self, what: Put, cause: str = "fault injected", **which: Unpack[FaultOptions]
    ) -> Fault:
        """Have a PUB, MPUB or DPUB fail: nothing is published, and the connection ends with that.

        As in NSQ the answer is ``E_PUB_FAILED PUB failed CAUSE``, behind the answers before it.
        """
        return self._add("fail", _checked(what, PUTS), which, _cause=cause)

    def cut(self, what: Frame | None = None, **which: Unpack[FaultOptions]) -> Fault:
        """Have the connection close in the middle of a frame; None is any frame."""
        return self._add("cut", FRAMES if what is None else _checked(what, FRAMES), which)

    def drop(self, *, after: int, **which: Unpack[FaultOptions]) -> Fault:
        """Have each connection close when it was sent so many frames since the fault was set."""
        return self._add("drop", SENT, which, _after=whole("after", after, 1))

    def slow(self, bytes_per_second: float, **which: Unpack[FaultOptions]) -> Fault:
        """Have the nsqd read slowly, by its clock, so that what a client sends is held up."""
        if not bytes_per_second > 0:
            raise InvalidOption("bytes_per_second", bytes_per_second, "a number above 0")
        return self._add("slow", READ, which, _rate=bytes_per_second)

    def refuse(self, **which: Unpack[FaultOptions]) -> Fault:
        """Have new connections closed before a byte is read."""
        if "client_id" in which:
            raise InvalidOption("client_id", which["client_id"], "left out: nobody has said it yet")
        return self._add("refuse", ACCEPT, which)

    def clear(self) -> None:
        """Remove all."""
        with self._lock:
            self._set = ()

    def _add(self, action: str, whats: frozenset[str], which: FaultOptions, **amount: Any) -> Fault:
        with self._lock:
            self._made += 1
            fault = Fault(self, action, whats, self._made)
        fault._choose(which)
        if len(whats) == 1 and not whats & (ACCEPT | SENT | READ):
            fault.name = f"{action} {next(iter(whats))}"
        vars(fault).update(amount)
        with self._lock:
            self._set = (*self._set, fault)
        return fault

    def _remove(self, fault: Fault) -> None:
        with self._lock:
            self._set = tuple(one for one in self._set if one is not fault)

    # Looking

    @property
    def active(self) -> tuple[Fault, ...]:
        """Those that are set, in the order in which they were."""
        return self._set

    @property
    def injected(self) -> tuple[Injected, ...]:
        """What was struck, the oldest first."""
        return tuple(self._injected)

    def __repr__(self) -> str:
        """Show those that are set."""
        return f"<Faults {[fault.name for fault in self._set]}>"

    # For the wires, in the loop's thread

    def _met(self, number: int) -> None:
        """Take note of a new connection."""
        for fault in self._set:
            if fault._next_connection and fault._connection is None:
                fault._connection = number

    def _hit(self, what: str, number: int, client_id: str) -> Fault | None:
        """Return the fault that strikes something, None if none does.

        Args:
            what: see `Injected`.
            number: of the connection.
            client_id: the client's.
        """
        for fault in self._set:
            if fault._concerns(what, number, client_id) and fault._strikes():
                self._note(fault, what, number, client_id)
                return fault
        return None

    def _rate(self, number: int, client_id: str) -> float:
        """Return how many bytes a second are read of a connection, 0 for as many as there are.

        What strikes it once strikes until it is removed.
        """
        for fault in self._set:
            if fault._concerns("read", number, client_id):
                if number not in fault._slowed:
                    fault._slowed[number] = fault._strikes()
                    if fault._slowed[number]:
                        self._note(fault, "read", number, client_id)
                if fault._slowed[number]:
                    return fault._rate
        return 0.0

    def _note(self, fault: Fault, what: str, number: int, client_id: str) -> None:
        now = self._clock.time_ns() / SECOND
        self._injected.append(Injected(fault.name, what, number, client_id, now))


def _checked(what: str, known: frozenset[str]) -> frozenset[str]:
    """Return what can be struck as a set.

    Raises:
        InvalidOption: it cannot be, or not in this way.
    """
    if what not in known:
        raise unknown_option("what", what, known)
    return frozenset({what})
