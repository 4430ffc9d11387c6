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

from typing import Any, Final, Literal, NamedTuple, Unpack, get_args

from nsqlite.clock import Clock
from nsqlite.errors import InvalidOption
from nsqlite.options import SECOND, Seconds, nanoseconds, whole
from nsqlite.testing.anyfault import AnyFault, AnyFaults, Chance, checked

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


class FaultOptions(Chance, total=False):
    """Which of the things that a fault can strike it does strike; by default all.

    client_id: only on connections of the client that calls itself so in its IDENTIFY.
    next_connection: only on the next connection that is made.
    """

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


class Fault(AnyFault):
    """Something that goes wrong until it is removed; in a ``with`` statement, until its end.

    Threads: any.

    Attributes:
        name: what it does, in words.
        count: how often it has struck.
    """

    def __init__(self, faults: "Faults", action: str, whats: frozenset[str]) -> None:
        super().__init__(faults, action)
        self._action: Final = action
        self._whats: Final = whats
        self._client_id: str | None = None
        self._next_connection = False
        self._connection: int | None = None
        self._delay = 0
        self._after = 0
        self._sent: Final[dict[int, int]] = {}  # frames, by the connection's number
        self._rate = 0.0
        self._slowed: Final[dict[int, bool]] = {}  # whether it struck, by the connection's number
        self._cause = ""

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
        is_due = self._is_due()
        if is_due:
            self._count()
        return is_due


class Faults(AnyFaults[Fault, Injected]):
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
        super().__init__(seed)
        self._clock: Final = clock

    # Setting them

    def lose(self, what: Command | Frame, **which: Unpack[FaultOptions]) -> Fault:
        """Have a command not reach the nsqd, or a frame not reach the client.

        ``lose("heartbeat")`` stops the heartbeats.
        """
        return self._set_up("lose", checked(what, COMMANDS | FRAMES), which)

    def delay(
        self, what: Command | Frame, seconds: Seconds, **which: Unpack[FaultOptions]
    ) -> Fault:
        """Have a command or frame come later, by the nsqd's clock.

        What follows it in the same direction comes behind it, as on a slow network.  What is on
        its way when the nsqd ends the connection is lost.
        """
        delay = nanoseconds("seconds", seconds)
        return self._set_up("delay", checked(what, COMMANDS | FRAMES), which, _delay=delay)

    def fail(
        self, what: Put, cause: str = "fault injected", **which: Unpack[FaultOptions]
    ) -> Fault:
        """Have a PUB, MPUB or DPUB fail: nothing is published, and the connection ends with that.

        As in NSQ the answer is ``E_PUB_FAILED PUB failed CAUSE``, behind the answers before it.
        """
        return self._set_up("fail", checked(what, PUTS), which, _cause=cause)

    def cut(self, what: Frame | None = None, **which: Unpack[FaultOptions]) -> Fault:
        """Have the connection close in the middle of a frame; None is any frame."""
        return self._set_up("cut", FRAMES if what is None else checked(what, FRAMES), which)

    def drop(self, *, after: int, **which: Unpack[FaultOptions]) -> Fault:
        """Have each connection close when it was sent so many frames since the fault was set."""
        return self._set_up("drop", SENT, which, _after=whole("after", after, 1))

    def slow(self, bytes_per_second: float, **which: Unpack[FaultOptions]) -> Fault:
        """Have the nsqd read slowly, by its clock, so that what a client sends is held up."""
        if not bytes_per_second > 0:
            raise InvalidOption("bytes_per_second", bytes_per_second, "a number above 0")
        return self._set_up("slow", READ, which, _rate=bytes_per_second)

    def refuse(self, **which: Unpack[FaultOptions]) -> Fault:
        """Have new connections closed before a byte is read."""
        if "client_id" in which:
            raise InvalidOption("client_id", which["client_id"], "left out: nobody has said it yet")
        return self._set_up("refuse", ACCEPT, which)

    def _set_up(
        self, action: str, whats: frozenset[str], which: FaultOptions, **amount: Any
    ) -> Fault:
        fault = Fault(self, action, whats)
        fault._choose(which, FaultOptions)
        fault._client_id = which.get("client_id")
        fault._next_connection = which.get("next_connection", False)
        if len(whats) == 1 and not whats & (ACCEPT | SENT | READ):
            fault.name = f"{action} {next(iter(whats))}"
        vars(fault).update(amount)
        return self._add(fault)

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
