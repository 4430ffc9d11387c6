"""A connection to nsqd as a client may use it: bytes in, commands out, in order (NSQ wire §1, §4).

The rule: `_command` reads one command, checks it in nsqd's order, and is all there is to know of
the protocol; `_finishes` and `_publishes` are fast forms of it for what comes in great numbers, and
the tests prove them equal.

What needs more than the bytes to be judged, as whether a message is in flight, is the server's.
What is kept of a command that is not complete is bounded by the limits, and is joined only when the
rest is there, so that no number of small pieces makes it slow.

Next: wire/identify.py
"""

import re
from collections.abc import Callable, Iterator
from struct import Struct
from typing import Any, Final

import attrs

from nsqlite.names import is_name
from nsqlite.wire.commands import (
    MAGIC,
    Auth,
    Cls,
    Command,
    Dpub,
    Fin,
    Identify,
    Mpub,
    MpubBegun,
    Nop,
    Pub,
    Rdy,
    Refusal,
    Req,
    Sub,
    Touch,
)
from nsqlite.wire.go import decimal, quoted

INIT: Final = 0
SUBSCRIBED: Final = 3
CLOSING: Final = 4
"""The states of a connection, by nsqd's numbers."""

LONGEST_LINE: Final = 16384
"""The most bytes of a command's line, its end counted."""

FEW: Final = 64
"""So many pieces are kept as they came; those behind them are put together, as each takes more
memory than the two or three bytes that may be in it."""

ID_SIZE: Final = 16

_size_at: Final = Struct(">i").unpack_from

_FINISHES: Final = re.compile(rb"(?:FIN [^ \r\n]{16}\n)+")


@attrs.frozen(kw_only=True)
class SessionLimits:
    """What a session may ask for; the defaults are nsqd's.

    Attributes:
        max_msg_size: the most bytes of a message.
        max_body_size: the most bytes of the body of an MPUB, IDENTIFY or AUTH.
        max_rdy_count: the largest window.
        max_req_timeout: the longest delay of a DPUB, in milliseconds.
        tls_required: whether nothing but IDENTIFY is allowed without TLS.
        announces: whether `MpubBegun` comes before the body of an MPUB is read, so that what the
            client may do is looked at first.
    """

    max_msg_size: int = 1048576
    max_body_size: int = 5242880
    max_rdy_count: int = 2500
    max_req_timeout: int = 3600_000
    tls_required: bool = False
    announces: bool = False


class _Incomplete(Exception):
    """The next command is not all there.

    Attributes:
        need: how many bytes of it are needed at least.
        at_end: what is wrong if nothing more comes; empty if nothing is to be said of it.
    """

    def __init__(self, need: int, at_end: bytes = b"") -> None:
        super().__init__()
        self.need = need
        self.at_end = at_end


class _Refused(Exception):
    """The next command cannot be done.

    Attributes:
        text: the data of the error frame.
    """

    def __init__(self, text: bytes) -> None:
        super().__init__()
        self.text = text


class _Batch:
    """An MPUB of which not all bodies are there yet.

    Attributes:
        topic: the topic.
        left: how many bodies are still to come.
        bodies: those that are there.
        size: how many bytes were read of it.
    """

    __slots__ = ("bodies", "left", "size", "topic")

    def __init__(self, topic: str, count: int) -> None:
        self.topic: Final = topic
        self.left = count
        self.bodies: Final[list[bytes]] = []
        self.size = 4


class Session:
    """The protocol of one connection, the server's side.

    Attributes:
        state: `INIT`, `SUBSCRIBED` or `CLOSING`.
        heartbeats: whether the client has left them on; set when it is known.
        secure: whether the connection has TLS; set by whoever makes it so.
        over: whether a command was refused; nothing is read after that.
    """

    __slots__ = (
        "_at",
        "_batch",
        "_data",
        "_header",
        "_limits",
        "_magic",
        "_more",
        "_need",
        "_plain",
        "_size",
        "_topic",
        "heartbeats",
        "over",
        "secure",
        "state",
    )

    def __init__(self, limits: SessionLimits, *, plain: bool = False) -> None:
        """Begin.

        Args:
            limits: what the client may ask for.
            plain: read each command by itself, without the fast forms; for tests.
        """
        self.state: int = INIT
        self.heartbeats: bool = True
        self.secure: bool = False
        self.over: bool = False
        self._limits: Final = limits
        self._plain: Final = plain
        self._data = b""
        self._at = 0  # what is before is read
        self._more: list[Any] = []  # what has come since: bytes, and one bytearray at the end
        self._size = 0  # of what is not read
        self._need = len(MAGIC)
        self._magic = False
        self._batch: _Batch | None = None
        self._header = b""  # the line of the last PUB, and its topic
        self._topic = ""

    def feed(self, data: bytes) -> None:
        """Take bytes that the client sent."""
        more = self._more
        if len(more) < FEW:
            more.append(data)
        elif len(more) == FEW:
            more.append(bytearray(data))
        else:
            more[-1] += data
        self._size += len(data)

    @property
    def pending(self) -> int:
        """How many bytes are kept of what is not read yet."""
        return self._size

    @property
    def begun(self) -> bool:
        """Whether the client has sent the magic bytes."""
        return self._magic

    def drop(self) -> None:
        """Forget what was not read: the bytes after this are in another layer (NSQ wire §6)."""
        self._data, self._at, self._more, self._size, self._need = b"", 0, [], 0, 1

    def commands(self) -> Iterator[Command]:
        """Read the commands that are there.

        Whoever stops in the middle calls it again, and gets those that follow.  After a `Refusal`
        there are none.
        """
        while not self.over and self._size >= self._need:
            self._join()
            try:
                command = self._next()
            except _Incomplete as missing:
                self._need = missing.need
                return
            except _Refused as refused:
                command = Refusal(refused.text)
                self.over = True
                if self._batch is not None and not self._limits.announces:
                    yield MpubBegun(self._batch.topic)  # nsqd has made the topic by now
            yield command

    def end(self) -> Refusal | None:
        """Return what is wrong with a command that was cut short, if nothing more will come."""
        if self.over or not (self._size or self._batch):
            return None
        self._join()
        try:
            self._next()
        except _Incomplete as missing:
            if missing.at_end:
                return Refusal(missing.at_end)
        except _Refused:
            pass
        return None

    def _join(self) -> None:
        """Have what is not read in one piece."""
        if self._more:
            if self._at < len(self._data):
                self._more.insert(0, self._data[self._at :])
            self._data = self._more[0] if len(self._more) == 1 else b"".join(self._more)
            self._at = 0
            self._more = []

    def _next(self) -> Command:
        """Read the next command, or several that are alike.

        Raises:
            _Incomplete: it is not all there.
            _Refused: it cannot be done.
        """
        if self._batch is not None:
            command: Command = self._bodies(self._batch, self._at)
        elif not self._magic:
            command = self._begin()
        else:
            found = None if self._plain else self._alike()
            command = found or self._command()
        self._need = 1
        return command

    def _moved(self, at: int) -> None:
        """Have all that is before a place read."""
        self._size -= at - self._at
        self._at = at

    def _begin(self) -> Command:
        data, at = self._data, self._at
        if self._size < len(MAGIC):
            raise _Incomplete(len(MAGIC))
        if data[at : at + len(MAGIC)] != MAGIC:
            raise _Refused(b"E_BAD_PROTOCOL")
        self._magic = True
        self._moved(at + len(MAGIC))
        self._need = 1
        if not self._size:
            raise _Incomplete(1)
        return self._next()

    # Fast forms

    def _alike(self) -> Command | None:
        """Read commands in a row that are alike; None if the next one is to be read by itself."""
        if self._limits.tls_required and not self.secure:
            return None
        data, at = self._data, self._at
        if data.startswith(b"FIN ", at):
            return self._finishes(data, at)
        if data.startswith(b"PUB ", at):
            return self._publishes(data, at)
        return None

    def _finishes(self, data: bytes, at: int) -> Command | None:
        found = _FINISHES.match(data, at)
        if found is None or self.state == INIT:
            return None
        end = found.end()
        self._moved(end)
        return Fin(data[at + 4 : end - 1].decode("latin-1").split("\nFIN "))

    def _publishes(self, data: bytes, at: int) -> Command | None:
        header = self._header
        if not header or not data.startswith(header, at):
            header = data[at : data.find(b"\n", at) + 1]
            name = header[4:-1]
            if not 0 < len(name) <= LONGEST_LINE or not is_name(name.decode("latin-1")):
                return None
            self._header = header
            self._topic = name.decode()
        bodies: list[bytes] = []
        add = bodies.append
        least = len(header) + 4
        most = self._limits.max_msg_size
        whole = len(data)
        while (begin := at + least) < whole:
            (size,) = _size_at(data, begin - 4)
            end = begin + size
            if not 0 < size <= most or end > whole:
                break
            add(data[begin:end])
            at = end
            if not data.startswith(header, at):
                break
        if not bodies:
            return None
        self._moved(at)
        return Pub(self._topic, bodies)

    # One command

    def _command(self) -> Command:
        """Read the next command."""
        data, at = self._data, self._at
        end = data.find(b"\n", at, at + LONGEST_LINE)
        if end < 0:
            if self._size >= LONGEST_LINE:
                raise _Refused(b"")
            raise _Incomplete(self._size + 1)
        line = data[at:end]
        if line.endswith(b"\r"):
            line = line[:-1]
        params = line.split(b" ")
        name = params[0]
        if self._limits.tls_required and not self.secure and name != b"IDENTIFY":
            text = b"E_INVALID cannot %b in current state (TLS required)"
            raise _Refused(text % name)
        reader = _READERS.get(name)
        if reader is None:
            raise _Refused(b"E_INVALID invalid command %b" % name)
        return reader(self, params, end + 1)

    def _require_state(self, params: list[bytes], *states: int) -> None:
        if self.state not in states:
            raise _Refused(b"E_INVALID cannot %b in current state" % params[0])

    def _require_params(self, params: list[bytes], count: int, text: bytes = b"params") -> None:
        if len(params) <= count:
            text = b"E_INVALID %b insufficient number of %b" % (params[0], text)
            raise _Refused(text)

    def _require_heartbeats(self) -> None:
        if not self.heartbeats:
            raise _Refused(b"E_INVALID cannot SUB with heartbeats disabled")

    def _topic_of(self, params: list[bytes], prefix: bytes = b"") -> str:
        name = params[1].decode("latin-1")
        if not is_name(name):
            text = f"E_BAD_TOPIC {params[0].decode()} topic name {quoted(params[1])} is not valid"
            raise _Refused(prefix + text.encode())
        return name

    def _identify(self, params: list[bytes], at: int) -> Command:
        self._require_state(params, INIT)
        return Identify(self._body(params[0], at))

    def _auth(self, params: list[bytes], at: int) -> Command:
        self._require_state(params, INIT)
        if len(params) != 1:
            raise _Refused(b"E_INVALID AUTH invalid number of parameters")
        return Auth(self._body(params[0], at))

    def _body(self, name: bytes, at: int) -> bytes:
        """Read the body of an IDENTIFY or AUTH."""
        size = self._sized(at, b"E_BAD_BODY %b failed to read body size" % name)
        most = self._limits.max_body_size
        if size > most:
            raise _Refused(b"E_BAD_BODY %b body too big %d > %d" % (name, size, most))
        if size <= 0:
            raise _Refused(b"E_BAD_BODY %b invalid body size %d" % (name, size))
        return self._read(at + 4, size, b"E_BAD_BODY %b failed to read body" % name)

    def _sized(self, at: int, at_end: bytes) -> int:
        """Return the size that stands at a place."""
        if at + 4 > len(self._data):
            raise _Incomplete(at + 4 - self._at, at_end)
        size: int = _size_at(self._data, at)[0]
        return size

    def _read(self, at: int, size: int, at_end: bytes) -> bytes:
        """Return the last part of a command, which is read with that."""
        end = at + size
        if end > len(self._data):
            raise _Incomplete(end - self._at, at_end)
        self._moved(end)
        return self._data[at:end]

    def _sub(self, params: list[bytes], at: int) -> Command:
        self._require_state(params, INIT)
        self._require_heartbeats()
        self._require_params(params, 2, b"parameters")
        topic = self._topic_of(params)
        channel = params[2].decode("latin-1")
        if not is_name(channel):
            text = f"E_BAD_CHANNEL SUB channel name {quoted(params[2])} is not valid"
            raise _Refused(text.encode())
        self.state = SUBSCRIBED
        self._moved(at)
        return Sub(topic, channel)

    def _rdy(self, params: list[bytes], at: int) -> Command:
        if self.state == CLOSING:
            return self._nop(params, at)
        self._require_state(params, SUBSCRIBED)
        text = params[1] if len(params) > 1 else b"1"
        count = decimal(text)
        if count is None:
            raise _Refused(b"E_INVALID RDY could not parse count %b" % text)
        if count >= 1 << 63:
            count -= 1 << 64  # as it is in nsqd
        most = self._limits.max_rdy_count
        if not 0 <= count <= most:
            raise _Refused(b"E_INVALID RDY count %d out of range 0-%d" % (count, most))
        self._moved(at)
        return Rdy(count)

    def _id_of(self, params: list[bytes], count: int) -> str:
        self._require_state(params, SUBSCRIBED, CLOSING)
        self._require_params(params, count)
        if len(params[1]) != ID_SIZE:
            raise _Refused(b"E_INVALID invalid message ID")
        return params[1].decode("latin-1")

    def _fin(self, params: list[bytes], at: int) -> Command:
        name = self._id_of(params, 1)
        self._moved(at)
        return Fin([name])

    def _touch(self, params: list[bytes], at: int) -> Command:
        name = self._id_of(params, 1)
        self._moved(at)
        return Touch(name)

    def _req(self, params: list[bytes], at: int) -> Command:
        name = self._id_of(params, 2)
        delay = self._timeout_of(params)
        self._moved(at)
        return Req(name, delay)

    def _timeout_of(self, params: list[bytes]) -> int:
        delay = decimal(params[2])
        if delay is None:
            text = b"E_INVALID %b could not parse timeout %b"
            raise _Refused(text % (params[0], params[2]))
        return delay

    def _cls(self, params: list[bytes], at: int) -> Command:
        self._require_state(params, SUBSCRIBED)
        self.state = CLOSING
        self._moved(at)
        return Cls()

    def _nop(self, params: list[bytes], at: int) -> Command:  # noqa: ARG002 - as the others
        self._moved(at)
        return Nop()

    def _pub(self, params: list[bytes], at: int) -> Command:
        self._require_params(params, 1, b"parameters")
        topic = self._topic_of(params)
        return Pub(topic, [self._message(params[0], at)])

    def _dpub(self, params: list[bytes], at: int) -> Command:
        self._require_params(params, 2, b"parameters")
        topic = self._topic_of(params)
        delay = self._timeout_of(params)
        most = self._limits.max_req_timeout
        if delay > most:
            raise _Refused(b"E_INVALID DPUB timeout %d out of range 0-%d" % (delay, most))
        return Dpub(topic, delay, self._message(params[0], at))

    def _message(self, name: bytes, at: int) -> bytes:
        """Read the body of a PUB or DPUB."""
        size = self._sized(at, b"E_BAD_MESSAGE %b failed to read message body size" % name)
        if size <= 0:
            raise _Refused(b"E_BAD_MESSAGE %b invalid message body size %d" % (name, size))
        most = self._limits.max_msg_size
        if size > most:
            raise _Refused(b"E_BAD_MESSAGE %b message too big %d > %d" % (name, size, most))
        return self._read(at + 4, size, b"E_BAD_MESSAGE %b failed to read message body" % name)

    # A batch

    def _mpub(self, params: list[bytes], at: int) -> Command:
        self._require_params(params, 1, b"parameters")
        topic = self._topic_of(params, b"E_BAD_TOPIC ")  # nsqd says it twice
        self._batch = _Batch(topic, -1)
        self._moved(at)
        if self._limits.announces:
            return MpubBegun(topic)
        return self._bodies(self._batch, at)

    def _bodies(self, batch: _Batch, at: int) -> Command:
        """Read what has come of the bodies of an MPUB."""
        if batch.left < 0:
            at = self._read_count(batch, at)
        data = self._data
        whole = len(data)
        add = batch.bodies.append
        most = self._limits.max_msg_size
        limit = at + self._limits.max_body_size - batch.size
        left = batch.left
        begun = at
        while left:
            begin = at + 4
            if begin > whole:
                break
            (size,) = _size_at(data, at)
            end = begin + size
            if not 0 < size <= most or end > limit:
                raise self._bad_body(batch, size, end - limit)
            if end > whole:
                break
            add(data[begin:end])
            at = end
            left -= 1
        batch.size += at - begun
        batch.left = left
        self._moved(at)
        if left:
            raise self._missing_body(batch, at)
        self._batch = None
        return Mpub(batch.topic, batch.bodies)

    def _read_count(self, batch: _Batch, at: int) -> int:
        """Read the size of an MPUB and the number of its bodies; return where they begin."""
        total = self._sized(at, b"E_BAD_BODY MPUB failed to read body size")
        most = self._limits.max_body_size
        if total <= 0:
            raise _Refused(b"E_BAD_BODY MPUB invalid body size %d" % total)
        if total > most:
            raise _Refused(b"E_BAD_BODY MPUB body too big %d > %d" % (total, most))
        count = self._sized(at + 4, b"E_BAD_BODY MPUB failed to read message count")
        if not 0 < count <= (most - 4) // 5:
            raise _Refused(b"E_BAD_BODY MPUB invalid message count %d" % count)
        batch.left = count
        self._moved(at + 8)
        return at + 8

    def _bad_body(self, batch: _Batch, size: int, over: int) -> _Refused:
        """Return what is wrong with the next body of a batch."""
        most = self._limits.max_msg_size
        if size <= 0:
            index = len(batch.bodies)
            return _Refused(b"E_BAD_MESSAGE MPUB invalid message(%d) body size %d" % (index, size))
        if size > most:
            return _Refused(b"E_BAD_MESSAGE MPUB message too big %d > %d" % (size, most))
        # Its size was said to be less, which nsqd does not look at, nor at how much it takes.
        most = self._limits.max_body_size
        return _Refused(b"E_BAD_BODY MPUB body too big %d > %d" % (most + over, most))

    def _missing_body(self, batch: _Batch, at: int) -> _Incomplete:
        """Return what is missing of the next body of a batch."""
        if at + 4 > len(self._data):
            text = b"E_BAD_MESSAGE MPUB failed to read message(%d) body size"
            return _Incomplete(4, text % len(batch.bodies))
        size: int = _size_at(self._data, at)[0]
        return _Incomplete(4 + size, b"E_BAD_MESSAGE MPUB failed to read message body")


_READERS: Final[dict[bytes, Callable[[Session, list[bytes], int], Command]]] = {
    b"IDENTIFY": Session._identify,
    b"AUTH": Session._auth,
    b"SUB": Session._sub,
    b"RDY": Session._rdy,
    b"FIN": Session._fin,
    b"REQ": Session._req,
    b"TOUCH": Session._touch,
    b"CLS": Session._cls,
    b"NOP": Session._nop,
    b"PUB": Session._pub,
    b"MPUB": Session._mpub,
    b"DPUB": Session._dpub,
}
"""What reads the rest of a command, by its name."""
