"""A connection between a client and an nsqd on which faults strike.

The rule: it stands between the loop's transport and the nsqd's connection, and these know nothing
of it; as long as no fault is set it hands on what it is given, as it is.

    transport --bytes--> FaultyWire --commands that are left--> Connection
    transport <--frames that are left-- FaultyTransport <--bytes-- Connection

A command that is to fail is put in place by one that nsqd does not know: so it is answered in its
turn, and ends the connection as a failed PUB does; the text of that answer is then put right.

Next: testing/address.py
"""

import asyncio
import logging
import socket
from asyncio import AbstractEventLoop, BaseTransport, Transport
from collections import deque
from collections.abc import Callable
from functools import partial
from struct import Struct, pack
from typing import Any, Final

from nsqlite.broker import Broker
from nsqlite.clock import Clock
from nsqlite.options import SECOND
from nsqlite.server.alarms import LoopAlarm
from nsqlite.server.connection import Connection, Host
from nsqlite.server.nsqd import NSQD
from nsqlite.server.options import NSQDOptions
from nsqlite.server.tcp import TCPService
from nsqlite.testing.faults import COMMANDS, Fault, Faults
from nsqlite.wire.commands import MAGIC
from nsqlite.wire.frames import CLOSE_WAIT, ERROR, HEARTBEAT, MESSAGE, OK, Frames, frame
from nsqlite.wire.session import LONGEST_LINE

log: Final = logging.getLogger("nsqlite")

SIZED: Final = frozenset({b"IDENTIFY", b"AUTH", b"PUB", b"MPUB", b"DPUB"})
"""The commands with a body."""

SMALL: Final = 4096
"""How many bytes the system keeps for an nsqd that reads slowly, about."""

_size_at: Final = Struct(">i").unpack_from

_QUICKACK: Final = getattr(socket, "TCP_QUICKACK", None)  # Linux has it
_NAMES: Final = {OK: "OK", CLOSE_WAIT: "CLOSE_WAIT", HEARTBEAT: "heartbeat"}
_RESET: Final = pack("ii", 1, 0)


class Cutter:
    """Cuts what a client sends into commands, which it does not understand."""

    def __init__(self, most: int, *, begun: bool) -> None:
        """Begin.

        Args:
            most: bytes of a body; what has more is not cut any further, nor what follows.
            begun: whether the magic bytes were sent already.
        """
        self._most: Final = most
        self._begun = begun
        self._lost = False
        self._kept = b""

    def feed(self, data: bytes) -> list[tuple[str, bytes]]:
        """Return the commands that are complete by now, each with its name.

        What is none has an empty name.
        """
        data = self._kept + data
        at = 0
        found = []
        while at < len(data) and (one := self._next(data, at)) is not None:
            name, end = one
            found.append((name, data[at:end]))
            at = end
        self._kept = data[at:]
        return found

    def rest(self) -> bytes:
        """Return what was left of the last command, and forget it."""
        kept, self._kept = self._kept, b""
        return kept

    def _next(self, data: bytes, at: int) -> tuple[str, int] | None:
        """Return the name of a command and where it ends; None if it is not all there."""
        if self._lost:
            return "", len(data)
        if not self._begun:
            self._begun = len(data) - at >= len(MAGIC)
            return ("", at + len(MAGIC)) if self._begun else None
        end = data.find(b"\n", at, at + LONGEST_LINE) + 1
        if not end:
            return self._give_up(data) if len(data) - at >= LONGEST_LINE else None
        word = data[at:end].split(b" ", 1)[0].rstrip()
        name = word.decode("latin-1")
        if word in SIZED:
            size = _size_at(data, end)[0] if end + 4 <= len(data) else 0
            if not 0 <= size <= self._most:
                return self._give_up(data)
            end += 4 + size
        return (name if name in COMMANDS else "", end) if end <= len(data) else None

    def _give_up(self, data: bytes) -> tuple[str, int]:
        """Leave it to the nsqd to say what is wrong."""
        self._lost = True
        return "", len(data)


class Lane:
    """What goes in one direction, in order, some of it later."""

    def __init__(
        self, clock: Clock, loop: AbstractEventLoop, changed: Callable[[], object]
    ) -> None:
        """Begin with nothing.

        Args:
            clock: what delays are measured by.
            loop: where all is done.
            changed: called when something begins or ends to wait.
        """
        self._clock: Final = clock
        self._loop: Final = loop
        self._changed: Final = changed
        self._waiting: Final[deque[tuple[int, Callable[[], object]]]] = deque()
        self._alarm: LoopAlarm | None = None

    @property
    def waits(self) -> bool:
        """Whether something waits."""
        return bool(self._waiting)

    def push(self, action: Callable[[], object], delay: int = 0) -> None:
        """Do something after all before it was done, and so many nanoseconds from now."""
        if not (delay or self._waiting):
            action()
            return
        self._waiting.append((self._clock.monotonic_ns() + delay, action))
        if len(self._waiting) == 1:
            self._set_alarm()
            self._changed()

    def _set_alarm(self) -> None:
        self._alarm = LoopAlarm(self._clock, self._loop, self._waiting[0][0], self._go_on)

    def _go_on(self) -> None:
        """Do what has waited long enough."""
        while self._waiting and self._waiting[0][0] <= self._clock.monotonic_ns():
            self._waiting.popleft()[1]()
        if self._waiting:
            self._set_alarm()
        else:
            self._changed()

    def clear(self) -> None:
        """Forget what waits."""
        self._waiting.clear()
        if self._alarm is not None:
            self._alarm.cancel()


class FaultyWire(asyncio.BufferedProtocol):
    """What the loop's transport takes for the nsqd's connection.

    Attributes:
        connection: the nsqd's.
    """

    def __init__(self, faults: Faults, host: Host, number: int) -> None:
        """Begin.

        Args:
            faults: what strikes.
            host: the server.
            number: the connection's.
        """
        self.connection: Final = Connection(host, number)
        self._faults: Final = faults
        self._host: Final = host
        self._real: Transport | None = None
        self._buffer: memoryview | None = None  # its own, if it is slow
        self._rate = 0.0
        self._pause: LoopAlarm | None = None  # until it reads on
        self._paused = False  # by the nsqd
        self._cutter: Cutter | None = None
        self._frames: Final = Frames()
        self._in: Final = Lane(host.clock, host.loop, self._set_reading)
        self._out: Final = Lane(host.clock, host.loop, lambda: None)
        self._failing: Final[dict[bytes, bytes]] = {}
        self._quick = False
        self._over = False
        self._warned = False

    def _hit(self, what: str) -> Fault | None:
        return self._faults._hit(what, self.connection.number, self.connection.identity.client_id)

    def _is_sealed(self) -> bool:
        """Return whether it has TLS or compression, under which nothing can be seen."""
        identity = self.connection.identity
        if not (identity.tls or identity.deflate or identity.snappy):
            return False
        if self._faults.active and not self._warned:
            self._warned = True
            text = "faults: client(%s) has TLS or compression, and is not struck"
            log.warning(text, self.connection.remote_address)
        return True

    # From the loop

    def connection_made(self, transport: BaseTransport) -> None:
        """Have the nsqd have it, unless it is refused."""
        assert isinstance(transport, Transport)
        self._real = transport
        self._faults._met(self.connection.number)
        sock = transport.get_extra_info("socket")
        is_tcp = sock.family in {socket.AF_INET, socket.AF_INET6}
        self._quick = is_tcp and _QUICKACK is not None
        if self._hit("accept"):
            if is_tcp:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            transport.abort()
        else:
            self.connection.connection_made(FaultyTransport(self, transport))

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the nsqd."""
        self._forget()
        self.connection.connection_lost(exc)

    def _forget(self) -> None:
        """Have nothing come later."""
        self._in.clear()
        self._out.clear()
        if self._pause is not None:
            self._pause.cancel()

    def pause_writing(self) -> None:
        """Tell the nsqd."""
        self.connection.pause_writing()

    def resume_writing(self) -> None:
        """Tell the nsqd."""
        self.connection.resume_writing()

    def get_buffer(self, sizehint: int) -> memoryview:
        """Return where the loop puts what it reads."""
        connection = self.connection
        self._rate = self._faults._rate(connection.number, connection.identity.client_id)
        if not self._rate:
            self._buffer = None
            return connection.get_buffer(sizehint)
        if self._buffer is None:
            self._buffer = memoryview(bytearray(max(1, min(SMALL, int(self._rate / 10)))))
            self._transport.get_extra_info("socket").setsockopt(
                socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL
            )
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Take what was read, and have the client's system know at once that it was.

        Without an answer the system would wait with that for 40 ms; and that of a client with Nagle
        sends nothing more until it knows.
        """
        self._received(nbytes)
        if self._quick:
            sock = self._transport.get_extra_info("socket")
            sock.setsockopt(socket.IPPROTO_TCP, _QUICKACK, 1)

    def _received(self, nbytes: int) -> None:
        if self._buffer is None and not (self._in.waits or self._sees_commands()):
            self.connection.buffer_updated(nbytes)
            return
        data = bytes((self._buffer or self.connection.get_buffer(-1))[:nbytes])
        if self._buffer is not None:
            self._read_later(nbytes)
        if self._sees_commands():
            assert self._cutter is not None
            self._take(self._cutter.feed(data))
        else:
            self._in.push(partial(self._feed, self._rest() + data))

    def _sees_commands(self) -> bool:
        """Return whether commands can be told apart, and are."""
        if self._is_sealed():
            return False
        if self._cutter is None and self._faults.active:
            session = self.connection._session
            if session.pending:
                return False  # this is the rest of a command
            limits = self._host.session_limits
            most = max(limits.max_body_size, limits.max_msg_size)
            self._cutter = Cutter(most, begun=session.begun)
        return self._cutter is not None

    def _rest(self) -> bytes:
        return b"" if self._cutter is None else self._cutter.rest()

    def _take(self, commands: list[tuple[str, bytes]]) -> None:
        """Have the nsqd have commands, but for what strikes them."""
        run: list[bytes] = []
        for name, data in commands:
            fault = self._hit(name) if name else None
            if fault is None:
                run.append(data)
            elif fault._action == "fail":
                marker = b"FAULT%d" % (len(self._failing) + 1)
                text = f"E_{name}_FAILED {name} failed {fault._cause}"
                self._failing[marker] = text.encode()
                run.append(marker + b"\n")
            elif fault._action == "delay":
                self._in.push(partial(self._feed, b"".join(run)))
                self._in.push(partial(self._feed, data), fault._delay)
                run.clear()
        self._in.push(partial(self._feed, b"".join(run)))

    def _feed(self, data: bytes) -> None:
        """Have the nsqd read."""
        left = memoryview(data)
        while left:
            buffer = self.connection.get_buffer(len(left))
            count = min(len(buffer), len(left))
            buffer[:count] = left[:count]
            left = left[count:]
            self.connection.buffer_updated(count)

    def eof_received(self) -> bool:
        """Tell the nsqd, when it has had all before; it closes what is to be closed."""
        rest = self._rest()
        if rest:
            self._in.push(partial(self._feed, rest))
        self._in.push(self._end)
        return True

    def _end(self) -> None:
        if not self.connection.eof_received():
            self.close()

    # How fast it reads

    def _read_later(self, nbytes: int) -> None:
        """Read no more for as long as it takes to read so many bytes."""
        clock = self._host.clock
        moment = clock.monotonic_ns() + round(nbytes / self._rate * SECOND)
        self._pause = LoopAlarm(clock, self._host.loop, moment, self._read_on)
        self._set_reading()

    def _read_on(self) -> None:
        self._pause = None
        self._set_reading()

    def set_paused(self, *, paused: bool) -> None:
        """Take note that the nsqd wants no more, or does."""
        self._paused = paused
        self._set_reading()

    def _set_reading(self) -> None:
        """Read, unless something is against it."""
        if self._paused or self._pause is not None or self._in.waits:
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()

    @property
    def _transport(self) -> Transport:
        assert self._real is not None
        return self._real

    # From the nsqd

    def write(self, data: bytes) -> None:
        """Have the client have frames, but for what strikes them."""
        if self._over:
            return
        if self._is_sealed() or not (self._faults.active or self._failing):
            self._out.push(partial(self._transport.write, data))
            return
        run: list[bytes] = []
        for kind, body in self._frames.feed(data):
            if not self._send(run, kind, body):
                self._over = True
                break
        self._flush(run)
        if self._over:
            self._out.push(self._transport.close)

    def _send(self, run: list[bytes], kind: int, body: bytes) -> bool:
        """Send a frame, with those before it; return whether the connection goes on."""
        data = self._right(kind, body)
        fault = self._hit(name_of(kind, data))
        action = "" if fault is None else fault._action
        if action == "lose":
            return True
        if action == "cut":
            run.append(data[: len(data) // 2])
            return False
        if fault is None:
            run.append(data)
        else:
            self._flush(run)
            self._out.push(partial(self._transport.write, data), fault._delay)
        return self._hit("sent") is None

    def _right(self, kind: int, body: bytes) -> bytes:
        """Return a frame; with the right text if it is the answer to what was to fail."""
        if kind == ERROR:
            for marker, text in self._failing.items():
                if marker in body.split():
                    body = text
        return frame(kind, body)

    def _flush(self, run: list[bytes]) -> None:
        """Send what was gathered."""
        if run:
            self._out.push(partial(self._transport.write, b"".join(run)))
            run.clear()

    def write_eof(self) -> None:
        """End what is sent, after all before."""
        self._out.push(self._transport.write_eof)

    def close(self) -> None:
        """Close, after all before was sent."""
        self._over = True
        self._out.push(self._transport.close)

    def abort(self) -> None:
        """Close at once."""
        self._forget()
        self._transport.abort()

    @property
    def is_closing(self) -> bool:
        """Whether it is about to close."""
        return self._over or self._transport.is_closing()


class FaultyTransport(Transport):
    """What the nsqd's connection takes for the loop's transport."""

    _start_tls_compatible = True  # asyncio asks for this

    def __init__(self, wire: FaultyWire, real: Transport) -> None:
        """Begin.

        Args:
            wire: what acts.
            real: what is asked.
        """
        super().__init__()
        self._wire: Final = wire
        self._real: Final = real

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Return what is known of the connection."""
        return self._real.get_extra_info(name, default)

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Have TLS read, of which nothing can be seen."""
        self._real.set_protocol(protocol)

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """See `asyncio.WriteTransport`."""
        self._real.set_write_buffer_limits(high, low)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send frames."""
        self._wire.write(bytes(data))

    def can_write_eof(self) -> bool:
        """Say whether the end can be told."""
        return self._real.can_write_eof()

    def write_eof(self) -> None:
        """Tell the end."""
        self._wire.write_eof()

    def pause_reading(self) -> None:
        """Read no more."""
        self._wire.set_paused(paused=True)

    def resume_reading(self) -> None:
        """Read on."""
        self._wire.set_paused(paused=False)

    def is_closing(self) -> bool:
        """Say whether it is about to close."""
        return self._wire.is_closing

    def close(self) -> None:
        """Close when all is sent."""
        self._wire.close()

    def abort(self) -> None:
        """Close at once."""
        self._wire.abort()

    def _force_close(self, error: Exception | None) -> None:
        """Close at once; for TLS that has failed."""
        self._real._force_close(error)  # type: ignore[attr-defined]  # every one of asyncio has it


class FaultyNSQD(NSQD):
    """An nsqd whose connections faults can strike."""

    def __init__(
        self,
        faults: Faults,
        options: NSQDOptions,
        *,
        broker: Broker | None = None,
        clock: Clock | None = None,
    ) -> None:
        """Make it.

        Args:
            faults: what strikes.
            options: see `NSQD`, as the rest.
            broker: what to serve.
            clock: what it takes the time from.
        """
        super().__init__(options, broker=broker, clock=clock)
        self._faults: Final = faults

    def _make_tcp(self, *given: Any) -> TCPService:
        """Make the service whose connections they are."""
        service = super()._make_tcp(*given)
        service.factory = partial(FaultyWire, self._faults)
        return service


def name_of(kind: int, data: bytes) -> str:
    """Return what a frame is called.

    Args:
        kind: its type.
        data: all of it.
    """
    if kind == MESSAGE:
        return "message"
    return "error" if kind == ERROR else _NAMES.get(data, "response")
