"""A real NSQ address for a test: an nsqd of its own, on a free port, in this process.

The rule: whoever has the address can connect, whoever has left the block finds nothing of it, and
what went wrong in the nsqd is raised there.

    with nsqlite.testing.nsqd() as nsqd:
        client = SomeNSQClient(nsqd.tcp_address)
        ...
        assert nsqd.broker.topic("orders").message_count == 1

It loads asyncio, and all that it serves with, when the first one is made.

Next: testing/unittesting.py
"""

import errno
import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar

from nsqlite.broker import Broker
from nsqlite.clock import Clock, checked_clock
from nsqlite.errors import Closed, InvalidOption, NSQLiteError, Reentered
from nsqlite.options import Seconds, nanoseconds, unknown_option
from nsqlite.origin import look_at_threads
from nsqlite.testing.faults import Faults
from nsqlite.testing.idle import until_quiet
from nsqlite.testing.manualclock import ManualClock

if TYPE_CHECKING:
    import asyncio

    from nsqlite.server.connection import Connection
    from nsqlite.server.nsqd import NSQD

log: Final = logging.getLogger("nsqlite")

T = TypeVar("T")

LOOPBACK: Final = "127.0.0.1:0"
"""Any free port of this machine; the system keeps it for the socket from the moment it is told."""

STOPPING: Final = 90.0
"""Real seconds that the thread may take to end: more than all services and a store may."""

_SERVER: Final = Path(__file__).parent.parent / "server"

EXHAUSTED: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
"""The errors of a socket that are not the client's doing."""


class nsqd:  # noqa: N801 - a context manager that reads as a call, as `contextlib.suppress`
    """An nsqd for the time of a ``with`` or ``async with`` statement.

    With ``with`` it runs in a thread of its own; with ``async with`` in the caller's loop.  The
    thread is a daemon, so that a test that dies does not keep the interpreter.

        >>> import socket
        >>> from nsqlite.wire.commands import MAGIC, Pub
        >>> with nsqd() as nsq, socket.create_connection((nsq.host, nsq.port)) as client:
        ...     client.sendall(MAGIC + Pub("orders", [b"order 1"]).encode())
        ...     answer = client.recv(100)
        ...     nsq.broker.topic("orders").depth
        1

    On a `ManualClock` time-outs, heartbeats, deferrals and delays happen when the clock is moved:
    best by `advance`, after which all that was due by then is on its way to the clients.  One with
    ``autojump`` flies on whenever nobody does anything, which clients in threads of their own, or
    other processes, take for years without a message.

    Leaving the block, closed connections included, is as for `NSQD.stop`.  What was raised in the
    nsqd, unless a client has caused it, is raised there: by itself, or several as an
    `ExceptionGroup`; where the block raises already, it is added as notes.

    Threads: any, but where it is said.

    Attributes:
        clock: what all of it takes the time from.
        faults: what is to go wrong between it and its clients: `lose`, `delay`, `fail`, `cut`,
            `drop`, `slow` and `refuse`; see `Faults`.
    """

    def __init__(
        self,
        *,
        clock: Clock | None = None,
        http: bool = False,
        data_path: str | Path | None = None,
        broker: Broker | None = None,
        seed: int = 0,
        **options: Any,
    ) -> None:
        """Make it; nothing is opened before the block.

        Args:
            clock: the system's by default, or the broker's.
            http: whether it has an HTTP address, which needs ``nsqlite[server]`` and takes long to
                load.
            data_path: a directory that keeps the messages; None has them in memory.
            broker: one to serve, which stays open; by default it has its own.
            seed: what chance in `faults` begins with.
            options: any of `nsqlite.server.NSQDOptions`, as ``msg_timeout=5``.  A `tcp_address`
                with a port is for one that comes back where another was.

        Raises:
            InvalidOption: an option is unknown, out of its range, or cannot go with another.
        """
        from nsqlite.server.options import NSQDOptions  # noqa: PLC0415 - see the module
        from nsqlite.testing.faultywire import FaultyNSQD  # noqa: PLC0415

        if not isinstance(broker, Broker | None):
            raise InvalidOption("broker", broker, "a Broker, or None for its own")
        known = NSQDOptions.__annotations__.keys()
        for name in options.keys() - known:
            raise unknown_option("option", name, known | {"clock", "http", "broker", "seed"})
        given = {
            "tcp_address": LOOPBACK,
            "http_address": LOOPBACK if http else "",
            "https_address": LOOPBACK if http else "",
            "data_path": None if data_path is None else str(data_path),
        }
        self.clock: Final[Clock] = checked_clock(clock if broker is None else broker.clock)
        self.faults: Final = Faults(self.clock, seed)
        self._nsqd: Final[NSQD] = FaultyNSQD(
            self.faults, NSQDOptions(**(given | options)), broker=broker, clock=clock
        )
        self._http: Final = http
        self._thread: _Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._number = 0  # of the thread of the loop
        self._begun: Final = threading.Event()
        self._entered = False
        self._over = False
        self._failure: BaseException | None = None
        self._errors: Final[list[BaseException]] = []

    # In a thread of its own

    def __enter__(self) -> Self:
        """Start it in a thread of its own, and return when it can be used.

        Raises:
            Closed: it was used already.
            NSQLiteError: see `NSQD.start`.
        """
        self._enter()
        self._thread = _Thread(self._run, self.clock)
        try:
            self._thread.start()
            self._begun.wait()
        except BaseException:
            self._nsqd.shutdown()
            raise
        if self._failure is not None:
            self._thread.join()
            self._over = True
            raise self._failure
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop it, and raise what went wrong in it; see the class."""
        thread = self._thread
        assert thread is not None
        self._nsqd.shutdown()
        thread.join(STOPPING)
        self._over = True
        if thread.is_alive():
            raise TimeoutError(f"{self!r} does not end: its thread is {thread.where()}")
        self._raise(error)

    def _run(self) -> None:
        """Serve; in the thread."""
        import asyncio  # noqa: PLC0415 - see the module

        with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
            loop = runner.get_loop()
            loop.set_exception_handler(self._hear)
            try:
                runner.run(self._serve())
            except BaseException as error:
                self._errors.append(error)
                self._failure = error
            finally:
                self._begun.set()

    async def _serve(self) -> None:
        await self._start()
        self._begun.set()
        try:
            await self._nsqd.wait()
        finally:
            await self._stop()

    # In the caller's loop

    async def __aenter__(self) -> Self:
        """Start it in the caller's loop.

        Raises:
            Closed: it was used already.
            NSQLiteError: see `NSQD.start`.
        """
        self._enter()
        await self._start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop it, and raise what went wrong in it; see the class."""
        try:
            await self._stop()
        finally:
            self._over = True
        self._raise(error)

    # Both

    def _enter(self) -> None:
        if self._entered:
            raise Closed("nsqlite.testing.nsqd", "used already: make a new one")
        self._entered = True

    async def _start(self) -> None:
        import asyncio  # noqa: PLC0415 - see the module

        self._loop = asyncio.get_running_loop()
        self._number = threading.get_ident()
        await self._nsqd.start()
        log.addFilter(self._hear_log)

    async def _stop(self) -> None:
        try:
            await self._nsqd.stop()
        finally:
            log.removeFilter(self._hear_log)

    # What goes wrong

    def _hear(self, _: object, context: dict[str, Any]) -> None:
        """Take note of what a callback of the loop has raised, or what the loop complains of."""
        self._note(context.get("exception") or RuntimeError(context["message"]))

    def _hear_log(self, record: logging.LogRecord) -> bool:
        """Take note of an error that the nsqd has caught and logged; let it be logged."""
        is_mine = record.thread == self._number and Path(record.pathname).parent == _SERVER
        error = record.exc_info[1] if record.exc_info else None
        if is_mine and record.levelno >= logging.ERROR and error is not None:
            self._note(error)
        return True

    def _note(self, error: BaseException) -> None:
        is_clients = isinstance(error, OSError) and error.errno not in EXHAUSTED
        if not (is_clients or error in self._errors):
            self._errors.append(error)

    def _raise(self, error: BaseException | None) -> None:
        """Raise what went wrong, or add it to what the block raises."""
        errors = self._errors
        if error is not None:
            for one in errors:
                error.add_note(f"in the nsqd: {type(one).__name__}: {one}")
        elif len(errors) == 1:
            raise errors[0]
        elif errors:
            raise BaseExceptionGroup("in the nsqd", errors)

    # Where it is

    @property
    def tcp_address(self) -> str:
        """Where clients connect: ``127.0.0.1:PORT``."""
        return self._require(self._nsqd.tcp_address)

    @property
    def host(self) -> str:
        """The host of `tcp_address`; its path if it is a unix socket."""
        address = self.tcp_address
        return address if self.port < 0 else address.rpartition(":")[0].strip("[]")

    @property
    def port(self) -> int:
        """The port of `tcp_address`; -1 for a unix socket."""
        self._require(self._nsqd.tcp_address)
        return self._nsqd.tcp_port

    @property
    def http_address(self) -> str:
        """Where its HTTP API is.

        Raises:
            InvalidOption: it was made without ``http=True``.
        """
        if not self._http:
            raise InvalidOption("http", False, "True for an HTTP address, which takes long to load")
        return self._require(self._nsqd.http_address)

    def _require(self, address: str | None) -> str:
        if address is None:
            raise Closed("nsqlite.testing.nsqd", "not started: use it in a with statement")
        return address

    @property
    def broker(self) -> Broker:
        """What it serves: to put, to look, to assert; any thread may."""
        return self._nsqd.broker

    @property
    def connections(self) -> tuple["Connection", ...]:
        """Its connections, the oldest first."""
        return self._do(lambda: tuple(self._nsqd.connections), "connections")

    def disconnect(self, client_id: str | None = None) -> int:
        """Close connections at once, as if the network had failed.

        Args:
            client_id: only those of the client that calls itself so; None closes all.

        Returns:
            How many.
        """

        def close() -> int:
            found = [
                connection
                for connection in self._nsqd.connections
                if client_id in {None, connection.identity.client_id}
            ]
            for connection in found:
                connection.shut()
            return len(found)

        return self._do(close, "disconnect")

    def _do(self, call: Callable[[], T], name: str) -> T:
        """Return what a function returns that is called in the loop."""
        loop = self._loop
        if loop is None or self._over:
            raise Closed("nsqlite.testing.nsqd", "over" if self._over else "not started")
        if threading.get_ident() == self._number:
            return call()
        future: Future[T] = Future()

        def answer() -> None:
            try:
                future.set_result(call())
            except BaseException as error:
                future.set_exception(error)

        try:
            loop.call_soon_threadsafe(answer)
        except RuntimeError:
            raise Closed(f"the loop of {name}") from None
        return future.result()

    # Time

    def settle(self) -> None:
        """Wait until the nsqd has done what there is to do now.

        What clients in this machine have sent by now is done, and what it has caused, and what was
        due by the nsqd's clock, is sent.  What a client or a handler does with it then is not
        waited for.

        Raises:
            Reentered: it was called in the nsqd's own loop: there await `settled`.
        """
        self._require_other_thread("settle")
        self._do_all()

    async def settled(self) -> None:
        """The same as `settle`, in the loop of an ``async with``: other tasks go on meanwhile."""
        from nsqlite import aio  # noqa: PLC0415 - see the module

        await until_quiet(self._loop)
        if self.broker._persistence is None:
            return
        for _ in "12":  # what was stored may cause more that is to be stored
            try:
                await aio.flush(self.broker)
            except NSQLiteError:  # it is closed, or cannot be written, which the clients have heard
                return
            await until_quiet(self._loop)

    def advance(self, seconds: Seconds) -> None:
        """Move the clock, a `ManualClock`, on by so many seconds.

        It stops at every deadline on the way, and has the nsqd do what is due there before it goes
        on: so each heartbeat and each redelivery is sent in its time.  What clients have sent
        before is done first.

        In an ``async with`` move the clock, and await `settled`.

        Raises:
            InvalidOption: the number is negative or not finite, or the clock is moved by nobody.
            Reentered: it was called in the nsqd's own loop.
        """
        clock = self.clock
        if not isinstance(clock, ManualClock):
            raise InvalidOption("clock", clock, "a ManualClock, to be moved")
        self._require_other_thread("advance")
        step = nanoseconds("seconds", seconds)
        self._do_all()
        target = clock._elapsed + step
        while clock._elapsed < (moment := clock._next()) <= target:
            clock._advance(moment - clock._elapsed)
            self._do_all()
        clock._advance(max(0, target - clock._elapsed))
        self._do_all()

    def _do_all(self) -> None:
        import asyncio  # noqa: PLC0415 - see the module

        loop = self._do(asyncio.get_running_loop, "settle")
        asyncio.run_coroutine_threadsafe(self.settled(), loop).result()

    def _require_other_thread(self, call: str) -> None:
        if threading.get_ident() == self._number:
            raise Reentered(call, "move the clock if need be, and await settled()")

    def __repr__(self) -> str:
        """Show where it is."""
        state = "over" if self._over else self._nsqd.tcp_address or "not started"
        return f"<nsqlite.testing.nsqd {state}>"


class _Thread(threading.Thread):
    """The thread of an nsqd; a daemon, since an interpreter must end whose test has died."""

    def __init__(self, target: Callable[[], None], clock: Clock) -> None:
        super().__init__(target=target, name="nsqlite.testing.nsqd", daemon=True)
        self._jumps: Final = bool(getattr(clock, "autojump", False))

    @property
    def at_rest(self) -> bool | None:
        """Whether it waits for its sockets, and so does not count; see `testing.bystanders`.

        With a clock that jumps it is looked at as the others are: what a client has sent may be on
        its way.
        """
        return True if not self._jumps and self.where().startswith("in selectors ") else None

    def where(self) -> str:
        """Return where it is."""
        return look_at_threads(self._where)

    def _where(self, frames: dict[int, FrameType]) -> str:
        frame = frames.get(self.ident or 0)
        if frame is None:
            return "nowhere"
        module = frame.f_globals.get("__name__")
        return f"in {module} line {frame.f_lineno}, {frame.f_code.co_name}"
