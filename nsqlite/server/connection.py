"""A client of nsqd: what it sends is done, in order, and what it subscribed to is sent.

The rule: everything here runs in the event loop's thread, and nothing waits: what takes time, as a
look at the auth server, leaves the commands that follow unread until it is done.

    bytes --(decompressed)--> Session --commands--> _act --answers--> written once a read
    channel --take--> frames --(compressed)--> written at once, as much as the client reads

A connection takes its messages, it is not handed them: when its window opens, when it has answered
some, when its client reads again, and when the channel tells it that there are some
(`Consumer.when_ready`).  So no task, future or event stands for a message.

Answers are in the order of the commands.  One that waits for the store holds back those behind it,
but no messages and no heartbeats.

Next: server/tcp.py
"""

import asyncio
import logging
import socket
import weakref
from asyncio import Transport
from collections import deque
from collections.abc import Callable, Coroutine, Iterator
from contextlib import suppress
from functools import partial
from itertools import islice
from random import random
from threading import get_ident
from typing import Any, Final, Protocol

from nsqlite import aio
from nsqlite.aio.waiting import call_soon
from nsqlite.broker import Broker
from nsqlite.clock import NEVER, Clock
from nsqlite.errors import Closed, NSQLiteError, StoreError, TooManyConsumers
from nsqlite.message import Message
from nsqlite.names import is_ephemeral
from nsqlite.options import MILLISECOND, SECOND
from nsqlite.server.alarms import LoopAlarm
from nsqlite.server.auth import AuthFailed
from nsqlite.server.listener import joined
from nsqlite.server.publishing import Publishing
from nsqlite.server.tls import TLSInfo, common_name, tls_info
from nsqlite.topic import AT_ONCE, Topic
from nsqlite.wire.authorisation import Authorisations
from nsqlite.wire.commands import (
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
from nsqlite.wire.compression import BadCompression, Compression, Deflate, Snappy
from nsqlite.wire.frames import (
    CLOSE_WAIT,
    ERROR,
    HEARTBEAT,
    OK,
    RESPONSE,
    frame,
    message_head,
)
from nsqlite.wire.identify import Identity, Limits, Refused, negotiate
from nsqlite.wire.session import Session, SessionLimits

log: Final = logging.getLogger("nsqlite")

BATCH: Final = 500
"""How many messages are taken at once at most."""

CHUNK: Final = 1 << 17
"""How many bytes of messages are taken at once, about."""

HIGH_WATER: Final = 1 << 18
"""How many bytes wait for a client that does not read before it is given no more."""

UNSTORED: Final = 1 << 23
"""How many bytes may wait for the store before no more commands are read; with 1 KiB for each."""

PIECE: Final = 1 << 16
"""How many decompressed bytes are looked at before others have their turn."""

TICKS: Final = 25
"""In how many ticks of the clock, 0.25 s, what is due for all connections is done together: many
at once cost a loop less than one after the other."""

HANDSHAKE: Final = 5.0
"""Real seconds that a client may take for its part of a TLS handshake."""

ASKED: Final = 100
"""How many consumers are asked at most whether a message is theirs that is not the client's: one
that answers for messages that are not its own is not to keep all others waiting."""

LINGER: Final = SECOND
"""How long what a client still sends is read off after an error, so that it sees the error."""

GRACE: Final = 1.0
"""Real seconds that a client has to answer where a clock was moved by hand, by hours perhaps."""

BUSY: Final = 1
STALLED: Final = 2
BEHIND: Final = 4
PIECES: Final = 8
"""Why no more is read: a command takes time, the client does not read, the store has not answered,
there is more to be decompressed."""


_PUTS: Final[set[asyncio.Task[None]]] = set()


class Asker(Protocol):
    """What asks the auth servers."""

    async def ask(
        self, remote_ip: str, *, tls: bool, common_name: str, secret: bytes
    ) -> Authorisations:
        """Return what a client may do; see `nsqlite.server.auth.AuthClient`."""
        ...


class Host(Protocol):
    """What a connection needs of its server."""

    @property
    def broker(self) -> Broker:
        """Where it publishes and subscribes."""
        ...

    @property
    def clock(self) -> Clock:
        """What heartbeats and deadlines are measured by."""
        ...

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """Where it runs."""
        ...

    @property
    def thread(self) -> int:
        """The thread of that, by its number."""
        ...

    @property
    def limits(self) -> Limits:
        """What an IDENTIFY may ask for."""
        ...

    @property
    def session_limits(self) -> SessionLimits:
        """What other commands may ask for."""
        ...

    @property
    def unknown(self) -> Identity:
        """What holds for a client that has not said who it is."""
        ...

    def buffer(self) -> memoryview:
        """Return where a connection reads.

        Where they read one after the other it is the same for all.  asyncio's own way would have
        256 KiB mapped and unmapped again for each read, which takes longer than the read.
        """
        ...

    @property
    def publishing(self) -> Publishing:
        """What gathers messages for the store."""
        ...

    @property
    def auth(self) -> Asker | None:
        """What asks the auth servers; None if there are none."""
        ...

    @property
    def tls(self) -> Any:
        """The `ssl.SSLContext`; None without a certificate."""
        ...

    def encode(self, body: object) -> bytes | None:
        """Return a body that is not bytes as what a client gets; None if it cannot be had."""
        ...

    @property
    def handshake_timeout(self) -> int:
        """How long a client may take for the magic bytes, in nanoseconds."""
        ...

    def opened(self, connection: "Connection", transport: Transport) -> bool:
        """Take note of a connection; return False if it is not let in."""
        ...

    def subscribed(self, connection: "Connection") -> None:
        """Take note that a connection has joined a channel."""
        ...

    def closed(self, connection: "Connection") -> None:
        """Take note that a connection is over."""
        ...


class Connection(asyncio.BufferedProtocol):
    """A client, from accept to the end.

    Attributes:
        number: its own, never used twice by a server.
        identity: who the client is, and what was agreed on.
        remote_address: where it comes from, ``ip:port``, or the path of a unix socket.
        connect_ts: since when, in whole seconds since the epoch.
        consumer: what it takes messages with; None before SUB.
        pub_counts: how many messages it has published, by topic.
        authorisations: what it may do; None before AUTH.
    """

    __slots__ = (
        "_alarm",
        "_allowed_until",
        "_beat",
        "_buffer",
        "_compressed",
        "_ended",
        "_eof",
        "_held",
        "_host",
        "_interval",
        "_last",
        "_layer",
        "_linger",
        "_out",
        "_raw",
        "_secret",
        "_session",
        "_stalled_at",
        "_task",
        "_topic",
        "_transport",
        "_unanswered",
        "_unsent",
        "_unstored",
        "_wait",
        "_waiting",
        "authorisations",
        "connect_ts",
        "consumer",
        "identity",
        "number",
        "pub_counts",
        "remote_address",
        "sampled",
    )

    def __init__(self, host: Host, number: int) -> None:
        """Begin.

        Args:
            host: the server.
            number: see the class.
        """
        self.number: Final = number
        self.identity: Identity = host.unknown
        self.remote_address: str = ""
        self.connect_ts: Final = host.clock.time_ns() // SECOND
        self.consumer: aio.Consumer[Any] | None = None
        self.sampled: int = 0
        self.pub_counts: Final[dict[str, int]] = {}
        self.authorisations: Authorisations | None = None
        self._secret = b""
        self._allowed_until = 0
        self._host: Final = host
        self._buffer: Final = host.buffer()
        self._session: Final = Session(host.session_limits)
        self._transport: Transport | None = None
        self._raw: Transport | None = None  # the same without TLS
        self._layer: Compression | None = None
        self._compressed: deque[Iterator[bytes]] | None = None
        self._out: Final[list[bytes]] = []
        self._unanswered: Final[deque[_Answer]] = deque()
        self._unsent: list[Message[Any]] = []
        self._topic: Topic[Any] | None = None
        self._held = 0
        self._task: asyncio.Task[None] | None = None
        self._ended = False
        self._eof = False
        self._linger = False
        self._waiting = False
        self._unstored = 0
        self._wait: Callable[[], None] | None = None
        self._alarm: LoopAlarm | None = None
        self._interval = self.identity.heartbeat_interval * MILLISECOND
        self._last = host.clock.monotonic_ns()
        self._beat = self._last + self._interval
        self._stalled_at = NEVER

    # From the loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin, if the server lets it in."""
        assert isinstance(transport, Transport)
        self._transport = self._raw = transport
        self.remote_address = _address_of(transport)
        if not self._host.opened(self, transport):
            transport.abort()
            return
        transport.set_write_buffer_limits(HIGH_WATER)
        _set_nodelay(transport)
        self._alarm_at(self._last + self._host.handshake_timeout, self._look)

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - the loop's
        """Return where the loop puts what it reads."""
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Take what was read, before the next connection reads."""
        self.received(bytes(self._buffer[:nbytes]))

    def received(self, data: bytes) -> None:
        """Do what the client asks for."""
        if self._ended:
            return  # it is read off, so that the client sees why
        if self._compressed is not None and self._layer is not None:
            self._compressed.append(self._layer.decompress(data, PIECE))
            if not self._held & PIECES:
                self._take_pieces()
            return
        self._session.feed(data)
        if not self._held & BUSY:
            self._go_on()

    def eof_received(self) -> bool:
        """End, once all is answered; say what is wrong with a command that was cut short."""
        if self._ended:
            return False
        self._eof = True
        if not (self._held & BUSY or self._unanswered):
            refusal = self._session.end()
            if refusal is None:
                return False
            self._fail(refusal.text)
        self._end()
        if self._transport is None or self._session.secure:
            return False  # TLS has no end of one direction alone
        return not self._transport.is_closing()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - the loop's
        """Leave the channel; what was sent and not answered stays in flight, as in nsqd."""
        if self._transport is None:
            return
        self._transport = None
        self._ended = True
        self._call_off()
        if self._task is not None:
            self._task.cancel()
        self._leave()
        self._out.clear()
        self._unanswered.clear()
        self._host.closed(self)

    def _leave(self) -> None:
        """Take no more messages, and give back those that were not sent."""
        consumer = self.consumer
        if consumer is not None:
            consumer._monitor.call(consumer._return, self._unsent)
            self._unsent = []
            consumer.close(give_back=False)

    def pause_writing(self) -> None:
        """Give the client no more, and read no more, until it reads."""
        self._stalled_at = self._host.clock.monotonic_ns()
        self._hold(STALLED)

    def resume_writing(self) -> None:
        """Go on."""
        self._stalled_at = NEVER
        self._release(STALLED)
        self._deliver()
        self._flush()
        self._take_more()

    def _hold(self, why: int) -> None:
        """Read no more for a while."""
        if not self._held and self._transport is not None:
            self._transport.pause_reading()
        self._held |= why

    def _release(self, why: int) -> None:
        """Read on, if nothing else is against it."""
        if self._held & why:
            self._held &= ~why
            if not self._held and self._transport is not None and not self._transport.is_closing():
                self._last = self._host.clock.monotonic_ns()  # what it said was not read
                self._transport.resume_reading()

    # Commands

    def _take_pieces(self) -> None:
        """Do what was sent in a compressed form, a piece at a time."""
        pieces = self._compressed
        assert pieces is not None
        self._release(PIECES)
        size = 0
        while pieces and not (self._ended or self._held):
            try:
                piece = next(pieces[0], None)
            except BadCompression as error:
                self._drop(f"what it sent cannot be decompressed: {error}")
                return
            if piece is None:
                pieces.popleft()
                continue
            self._session.feed(piece)
            self._go_on()
            size += len(piece)
            if size >= PIECE:
                self._take_more()
                return

    def _take_more(self) -> None:
        """Go on with what was sent in a compressed form, when others have had their turn."""
        if self._compressed and not (self._ended or self._held):
            self._hold(PIECES)
            self._host.loop.call_soon(self._take_pieces)

    def _go_on(self) -> None:
        """Do the commands that are there, send what there is for the client, and write once."""
        heard = False
        for command in self._session.commands():
            heard = True
            if self._host.auth is None or self._is_allowed(command):
                _ACTS[command.__class__](self, command)
            if self._ended or self._held & BUSY:
                break
        if heard:
            self._last = self._host.clock.monotonic_ns()
        self._deliver()
        self._flush()

    def _later(self, work: Coroutine[Any, Any, None]) -> None:
        """Read no commands until something is done that takes time."""
        self._hold(BUSY)
        # not by the loop: an eager one would have it run before it is known here
        self._task = asyncio.Task(self._work(work), loop=self._host.loop)

    async def _work(self, work: Coroutine[Any, Any, None]) -> None:
        me = self._task
        try:
            await work
        except Exception:
            log.exception("a connection of %s was ended", self.remote_address)
            self._drop("it failed")
        if self._task is not me:
            return  # there is more to be done first
        self._task = None
        if self._transport is None:
            return
        self._release(BUSY)
        if not self._ended:
            self._go_on()
            self._take_more()
        self._flush()

    def _again(self, command: Command) -> None:
        """Do a command for which something had to be done first."""
        if self._transport is not None and not self._ended:
            _ACTS[command.__class__](self, command)

    # Answers

    def _answer(self, data: bytes) -> None:
        """Answer a command, behind the answers before."""
        if self._unanswered:
            self._unanswered.append(_Answer(data))
        else:
            self._out.append(data)

    def _flush(self) -> None:
        """Write what there is to be written."""
        if not self._out or self._transport is None:
            return
        data = b"".join(self._out)
        self._out.clear()
        if self._layer is not None:
            data = self._layer.compress(data)
        self._transport.write(data)

    def _fail(self, text: str | bytes) -> None:
        """Answer with an error, and end; without one if the text is empty."""
        data = text if isinstance(text, bytes) else text.encode()
        if data:
            self._answer(frame(ERROR, data))
        self._end()

    def _end(self) -> None:
        """Do nothing more, and close when all is answered."""
        self._ended = True
        self._leave()
        if not self._unanswered:
            self._finish()

    def _finish(self) -> None:
        """Close; what still comes is read off for a while, so that the client sees the answer."""
        self._flush()
        transport = self._transport
        if transport is None or self._linger:
            return
        self._call_off()
        self._linger = True
        try:
            if transport.can_write_eof() and not self._eof:
                transport.write_eof()
            else:  # nothing more will come; or by TLS, which waits for the client to say so, too
                transport.close()
        except OSError:  # the client is gone, and the loop is about to tell
            transport.abort()
            return
        self._held &= ~(BUSY | BEHIND | PIECES)
        if not self._held and not transport.is_closing():
            transport.resume_reading()
        self._alarm_at(self._host.clock.monotonic_ns() + LINGER, self.shut)

    def _drop(self, why: str) -> None:
        """Close without a word to the client."""
        log.info("client(%s): closing: %s", self.remote_address, why)
        self.shut()

    def shut(self) -> None:
        """Close, whatever the client has not read yet: it stays in flight."""
        is_told = self._ended or self._eof
        self._ended = True
        if self._waiting and self._wait is not None:
            self._wait()  # else each of many that close would look through all that wait
            self._waiting = False
        if self._transport is None or self._raw is None:
            return
        if self._session.secure and not is_told:
            self._transport.close()  # tells the client, for whose answer it would wait
        self._raw.abort()  # TLS, once it is closing, would do nothing

    # Time

    def _alarm_at(self, moment: int, callback: Callable[[], None]) -> None:
        """Have something done at a moment, in the loop, whoever moves the clock."""
        self._alarm = LoopAlarm(self._host.clock, self._host.loop, moment, callback)

    def _call_off(self) -> None:
        """Set no alarm."""
        if self._alarm is not None:
            self._alarm.cancel()

    def _set_alarm(self) -> None:
        """See to it that the next heartbeat, or the end of patience, is not missed."""
        if self._interval:
            moment = self._last + 2 * self._interval
            if moment <= self._host.clock.monotonic_ns() or moment > self._beat:
                moment = self._beat
            tick = TICKS * self._host.clock.resolution
            self._alarm_at(moment + -moment % tick, self._look)

    def _look(self) -> None:
        """Send a heartbeat if it is time, or close a connection that says nothing."""
        if self._ended:
            return
        now = self._host.clock.monotonic_ns()
        interval = self._interval
        late = now >= self._last + 2 * interval and not self._held
        if late or not self._session.begun:
            last = self._last if late else NEVER
            if not getattr(self._host.clock, "by_hand", False):
                self._give_up(last)
                return
            self._host.loop.call_later(GRACE, self._give_up, last)
        if now - self._stalled_at >= interval:
            self._drop("it reads nothing")
            return
        if now >= self._beat:
            self._beat += interval * (1 + (now - self._beat) // interval)
            if not self._held & STALLED:
                self._out.append(HEARTBEAT)
                self._flush()
        self._set_alarm()

    def _give_up(self, last: int) -> None:
        """Close the connection if the client has not begun, or said nothing since a moment."""
        if self._ended:
            return
        if not self._session.begun:
            self._drop("it has not begun")
        elif self._last == last:
            self._drop("it has said nothing for two heartbeats")

    # What each command does

    def _refused(self, command: Refusal) -> None:
        self._fail(command.text)

    def _nop(self, command: Nop) -> None:
        pass

    def _identify(self, command: Identify) -> None:
        try:
            identity = negotiate(command.body, self._host.limits, self.identity)
        except Refused as refused:
            self._fail(refused.text)
            return
        if identity.tls and self._session.secure:
            self._fail("E_IDENTIFY_FAILED IDENTIFY failed TLS is there already")
            return
        self.identity = identity
        self._session.heartbeats = identity.heartbeat_interval > 0
        self._interval = identity.heartbeat_interval * MILLISECOND
        self._begin_time()
        self._answer(frame(RESPONSE, identity.reply()))
        if identity.tls or identity.deflate or identity.snappy:
            self._later(self._upgrade(identity))

    def _begin_time(self) -> None:
        """Count heartbeats, and the client's silence, from now on."""
        self._call_off()
        self._last = self._host.clock.monotonic_ns()
        self._beat = self._last + self._interval
        self._set_alarm()

    async def _upgrade(self, identity: Identity) -> None:
        """Put what follows into TLS, and compress it (NSQ wire §6)."""
        if self._unanswered:  # what was published before is still being stored
            await self._unanswered[-1].until_written(self._host.loop)
        self._flush()
        self._session.drop()
        if identity.tls and not await self._secure():
            return
        if identity.deflate or identity.snappy:
            self._layer = Deflate(identity.deflate_level) if identity.deflate else Snappy()
            self._compressed = deque()
            self._out.append(OK)
            self._flush()

    async def _secure(self) -> bool:
        """Put what follows into TLS; return False, the connection being over, if that fails."""
        host = self._host
        assert self._raw is not None
        if self._held & STALLED:  # of which TLS would hear the end alone
            self._drop("it has TLS begin and does not read")
            return False
        self._call_off()  # a heartbeat would stand in the middle of the handshake
        try:
            transport = await host.loop.start_tls(
                self._raw, self, host.tls, server_side=True, ssl_handshake_timeout=HANDSHAKE
            )
        except OSError as error:  # ssl.SSLError and the time-out are some, too
            log.info("client(%s): closing: TLS failed: %s", self.remote_address, error)
            transport = None
        if transport is None:  # or it was closed meanwhile, of which only TLS has heard
            self._ended = True
            self.connection_lost(None)
            return False
        self._transport = transport
        transport.set_write_buffer_limits(HIGH_WATER)
        self._session.secure = True
        self._out.append(OK)
        self._flush()
        self._begin_time()
        return True

    def _auth(self, command: Auth) -> None:
        if self.authorisations is not None:
            self._fail("E_INVALID AUTH already set")
        elif self._host.auth is None:
            self._fail("E_AUTH_DISABLED AUTH disabled")
        else:
            self._secret = command.secret
            self._later(self._authorise())

    async def _authorise(self) -> None:
        if await self._ask():
            found = self.authorisations
            assert found is not None
            if not found.count:
                self._fail("E_UNAUTHORIZED AUTH no authorizations found")
            else:
                self._answer(frame(RESPONSE, found.reply()))

    async def _ask(self) -> bool:
        """Ask the auth server what the client may do; end the connection if that fails."""
        host = self._host
        assert host.auth is not None
        try:
            self.authorisations = await host.auth.ask(
                self.ip_address,
                tls=self._session.secure,
                common_name=self._common_name(),
                secret=self._secret,
            )
        except AuthFailed as error:
            log.warning("client(%s): AUTH failed: %s", self.remote_address, error)
            self._fail("E_AUTH_FAILED AUTH failed")
            return False
        self._allowed_until = host.clock.monotonic_ns() + self.authorisations.ttl * SECOND
        return True

    def _common_name(self) -> str:
        """Return the name in the client's certificate; empty without one."""
        if self._transport is None or not self._session.secure:
            return ""
        return common_name(self._transport.get_extra_info("ssl_object"))

    def _is_allowed(self, command: Command) -> bool:
        """Say whether a command may be done now; answer if it may not be, or ask first."""
        if isinstance(command, Sub):
            name, topic, channel = "SUB", command.topic, command.channel
        elif isinstance(command, Pub | MpubBegun | Dpub):
            name = command.__class__.__name__.removesuffix("Begun").upper()
            topic, channel = command.topic, ""
        else:
            return True
        found = self.authorisations
        if found is None:
            self._fail(f"E_AUTH_FIRST AUTH required before {name}")
        elif self._host.clock.monotonic_ns() >= self._allowed_until:
            self._later(self._ask_again(command))
        elif not found.allows(name, topic, channel):
            self._fail(f'E_UNAUTHORIZED AUTH failed for {name} on "{topic}" "{channel}"')
        else:
            return True
        return False

    async def _ask_again(self, command: Command) -> None:
        if await self._ask() and self._is_allowed(command):
            self._again(command)

    # Publishing

    def _has_topic(self, name: str, command: Command, channel: str | None = None) -> bool:
        """Say whether a topic is there, or can be had without waiting for the store.

        Else it is made, and the command is done after that.
        """
        topic = self._topic
        if topic is not None and topic.name == name and not topic.deleted and channel is None:
            return True
        broker = self._host.broker
        topic = broker._live(name)
        if topic is None:
            if broker._persistence is not None and not is_ephemeral(name):
                self._later(self._make(name, channel, command))
                return False
            topic = broker._reach(name)
        if channel is not None and channel not in topic._channels and topic._store is not None:
            self._later(self._make(name, channel, command))
            return False
        self._topic = topic
        return True

    async def _make(self, name: str, channel: str | None, command: Command) -> None:
        """Have a topic or channel made by the store's thread, and then do a command."""
        broker = self._host.broker
        assert broker._persistence is not None

        def make() -> None:
            topic = broker._reach(name)
            if channel is not None:
                topic.channel(channel)

        try:
            await broker._persistence.run(make, "topic")
        except NSQLiteError as error:
            self._fail_to(command, error)
        else:
            self._again(command)

    def _fail_to(self, command: Command, error: NSQLiteError) -> None:
        """Answer that a command has failed, and end."""
        name = command.__class__.__name__.removesuffix("Begun").upper()
        if isinstance(error, TooManyConsumers):
            where = f"{error.topic}:{error.channel}"
            cause = f"consumers for {where} exceeds limit of {error.limit}"
        elif isinstance(error, Closed):
            cause = "exiting"
        elif isinstance(error, StoreError):
            cause = "the store cannot be written"  # and not where it is
            log.error("client(%s): %s failed: %s", self.remote_address, name, error)
        else:
            cause = str(error)
        self._fail(f"E_{name}_FAILED {name} failed {cause}")

    def _pub(self, command: Pub) -> None:
        self._publish(command, command.topic, command.bodies, len(command.bodies))

    def _mpub(self, command: Mpub) -> None:
        self._publish(command, command.topic, command.bodies, 1)

    def _mpub_begun(self, command: MpubBegun) -> None:
        try:
            self._has_topic(command.topic, command)
        except NSQLiteError:
            pass  # the MPUB itself will tell

    def _publish(self, command: Pub | Mpub, name: str, bodies: list[bytes], count: int) -> None:
        """Publish messages, all of them or none, and answer so many times."""
        answer = OK if count == 1 else OK * count
        try:
            if not self._has_topic(name, command):
                return
            topic = self._topic
            assert topic is not None
            if topic._store is not None:
                size = sum(map(len, bodies))
                stored = partial(self._stored, self._promise(answer, size), command)
                self._host.publishing.publish(topic, bodies, stored)
                return
            topic.publish(bodies)
        except NSQLiteError as error:
            self._fail_to(command, error)
            return
        self._answer(answer)
        self._count(name, len(bodies))

    def _count(self, name: str, count: int) -> None:
        """Count what the client has published."""
        self.pub_counts[name] = self.pub_counts.get(name, 0) + count

    def _dpub(self, command: Dpub) -> None:
        delay = command.delay / 1000
        try:
            if not self._has_topic(command.topic, command):
                return
            topic = self._topic
            assert topic is not None
            if topic._store is None:
                topic.put(command.body, delay, AT_ONCE)
                self._answer(OK)
                self._count(topic.name, 1)
                return
        except NSQLiteError as error:
            self._fail_to(command, error)
            return
        stored = partial(self._stored, self._promise(OK, len(command.body)), command)
        put = self._put_later(topic, command.body, delay, stored)
        task = self._host.loop.create_task(put)
        _PUTS.add(task)  # a loop keeps none of its tasks alive
        task.add_done_callback(_PUTS.discard)

    async def _put_later(
        self, topic: Topic[Any], body: bytes, delay: float, stored: Callable[..., None]
    ) -> None:
        try:
            await aio.put(topic, body, delay=delay, timeout=0)
        except NSQLiteError as error:
            stored(error)
        else:
            stored(None)

    def _promise(self, data: bytes, size: int) -> "_Answer":
        """Have the answers that follow wait for one that is still to come, of so many bytes."""
        answer = _Answer(b"", data, size + 1024)
        self._unanswered.append(answer)
        self._unstored += answer.size
        if self._unstored >= UNSTORED:
            self._hold(BEHIND)
        return answer

    def _stored(
        self, answer: "_Answer", command: Pub | Mpub | Dpub, problem: BaseException | None
    ) -> None:
        """Take note that something is stored, or why it is not; and answer what can be answered."""
        self._unstored -= answer.size
        if self._transport is None or (self._ended and answer not in self._unanswered):
            return  # nobody is left to be told, or an error before it has ended all
        if problem is None:
            answer.data = answer.promised
            count = len(command.bodies) if not isinstance(command, Dpub) else 1
            self._count(command.topic, count)
        else:
            error = problem if isinstance(problem, NSQLiteError) else Closed("the topic")
            unanswered = list(self._unanswered)
            self._unanswered.clear()
            self._unanswered.extend(unanswered[: unanswered.index(answer)])
            self._fail_to(command, error)
        self._settle_answers()

    def _settle_answers(self) -> None:
        """Write the answers that nothing holds back any more."""
        unanswered = self._unanswered
        while unanswered and unanswered[0].data:
            answer = unanswered.popleft()
            self._out.append(answer.data)
            if answer.written is not None:
                answer.written.set_result(None)
        if self._unstored < UNSTORED // 2:
            self._release(BEHIND)
        if self._ended and not unanswered:
            self._finish()
        else:
            self._flush()
            self._take_more()

    # Consuming

    def _sub(self, command: Sub) -> None:
        try:
            consumer = self._joined(command)
        except NSQLiteError as error:
            self._fail_to(command, error)
            return
        if consumer is None:
            return
        consumer._by_id = {}  # it answers by ids alone, and nothing is in flight yet
        self.consumer = consumer
        self._answer(OK)
        self._host.subscribed(self)

    def _joined(self, command: Sub) -> aio.Consumer[Any] | None:
        """Return a consumer of the channel; once more if an ephemeral one has just gone."""
        try:
            return self._join(command)
        except Closed:
            return self._join(command)

    def _join(self, command: Sub) -> aio.Consumer[Any] | None:
        """Return a consumer of the channel; None if that is to be made first."""
        if not self._has_topic(command.topic, command, command.channel):
            return None
        assert self._topic is not None
        identity = self.identity
        return aio.Consumer(
            self._topic.channel(command.channel),
            max_in_flight=0,
            msg_timeout=identity.msg_timeout / 1000,
            name=identity.client_id or None,
        )

    def _rdy(self, command: Rdy) -> None:
        assert self.consumer is not None
        self.consumer.rdy(command.window)

    def _fin(self, command: Fin) -> None:
        assert self.consumer is not None
        for name in self.consumer.fin_ids(command.ids):
            self._answer_failed("FIN", name)

    def _req(self, command: Req) -> None:
        assert self.consumer is not None
        for name in self.consumer.req_ids([command.id], command.delay / 1000):
            self._answer_failed("REQ", name)

    def _touch(self, command: Touch) -> None:
        assert self.consumer is not None
        for name in self.consumer.touch_ids([command.id]):
            self._answer_failed("TOUCH", name)

    def _answer_failed(self, call: str, name: str) -> None:
        """Answer that a message is not this client's, which ends nothing."""
        assert self.consumer is not None
        others = [one._by_id for one in islice(self.consumer.channel._consumers(), ASKED)]
        found = [known[name] for known in others if known and name in known]
        held = any(message in message._page for message in found)  # some may be over
        cause = "client does not own message" if held else "ID not in flight"
        text = f"E_{call}_FAILED {call} {name} failed {cause}"
        self._answer(frame(ERROR, text.encode("latin-1")))

    def _cls(self, command: Cls) -> None:  # noqa: ARG002 - as the others
        assert self.consumer is not None
        self.consumer.rdy(0)
        self._answer(CLOSE_WAIT)

    def _deliver(self) -> None:
        """Take what there is for the client, and write it, as long as it reads."""
        consumer = self.consumer
        if consumer is None or self._ended:
            return
        if self._held & STALLED:
            consumer._monitor.call(consumer._decline)  # what this was told of the next one is
            return
        try:
            self._send_unsent()
            if not self._unsent:
                self._take(consumer)
        except Closed:
            self._drop("its channel is closed or deleted")
        except StoreError as error:
            log.error("client(%s): a delivery failed: %s", self.remote_address, error)  # noqa: TRY400
            self._drop("the store cannot be written")

    def _take(self, consumer: aio.Consumer[Any]) -> None:
        """Take messages and write them; what there is more comes in the loop's next turn."""
        others = self._others(consumer)
        most = BATCH
        if others:  # each of them is to get its share
            most = min(BATCH, -(-len(consumer._queue.ready) // (others + 1)) or 1)
        batch = consumer.take(most)
        count = len(batch)
        self._unsent = batch if not self.identity.sample_rate else self._sampled(batch)
        self._send_unsent()
        if others and count == most:
            self._host.loop.call_soon(self._deliver)  # they have taken theirs by then
        elif not (self._waiting or self._unsent):
            self._waiting = True
            self._wait = consumer.when_ready(self._ready)

    def _others(self, consumer: aio.Consumer[Any]) -> int:
        """Return how many others were told of what is ready, and have not taken it yet."""
        told = consumer._queue.waiters.notified
        return len(told) - (weakref.ref(consumer) in told) if told else 0

    def _send_unsent(self) -> None:
        """Write messages that were taken, until the client has more than it reads."""
        messages = self._unsent
        sent = 0
        while sent < len(messages) and not self._held & STALLED:
            sent = self._send(messages, sent)
            self._flush()
        if sent:
            del messages[:sent]

    def _send(self, messages: list[Message[Any]], begin: int) -> int:
        """Have messages written, about a chunk of them; return how many there were by then."""
        write = self._out.append
        size = 0
        at = begin
        for at in range(begin, len(messages)):
            body, timestamp, prefix, suffix, attempts = messages[at]._record
            if body.__class__ is not bytes:
                body = self._host.encode(body)
                if body is None:
                    continue  # it stays in flight, and times out
            write(message_head(len(body), timestamp, attempts + 1, (prefix + suffix).encode()))
            write(body)
            size += len(body)
            if size > CHUNK:
                break
        return at + 1

    def _sampled(self, batch: list[Message[Any]]) -> list[Message[Any]]:
        """Keep as many of a batch as the client asked for, in percent; the others are dropped."""
        rate = self.identity.sample_rate / 100
        kept = [message for message in batch if random() < rate]  # noqa: S311 - a sample
        chosen = set(kept)
        dropped = [message for message in batch if message not in chosen]
        if dropped:
            assert self.consumer is not None
            self.sampled += len(dropped)
            self.consumer.fin_ids([message.id for message in dropped])
        return kept

    def _ready(self) -> None:
        """Take note that there is something to take; called by any thread."""
        host = self._host
        if get_ident() != host.thread:
            call_soon(host.loop, self._ready)
            return
        self._waiting = False
        host.loop.call_soon(self._deliver)

    # Looking

    @property
    def ip_address(self) -> str:
        """Its IP address; the path of a unix socket as it is."""
        return self.remote_address.rpartition(":")[0].strip("[]") or self.remote_address

    @property
    def state(self) -> int:
        """By nsqd's numbers: 0 at first, 3 when it has subscribed, 4 after CLS."""
        return self._session.state

    def stats(self) -> dict[str, Any]:
        """Return what `/stats` tells of it, with nsqd's keys in nsqd's order (NSQ http §3)."""
        identity = self.identity
        consumer = None if self.consumer is None else self.consumer.stats()
        tls = self.tls_info
        address = self.ip_address
        told: dict[str, Any] = {
            "client_id": identity.client_id if self._is_known else address,
            "hostname": identity.hostname if self._is_known else address,
            "version": "V2",
            "remote_address": self.remote_address,
            "state": self.state,
            "ready_count": 0 if consumer is None else consumer.ready_count,
            "in_flight_count": 0 if consumer is None else consumer.in_flight_count,
            "message_count": 0 if consumer is None else consumer.message_count - self.sampled,
            "finish_count": 0 if consumer is None else consumer.finish_count - self.sampled,
            "requeue_count": 0 if consumer is None else consumer.requeue_count,
            "connect_ts": self.connect_ts,
            "sample_rate": identity.sample_rate,
            "deflate": identity.deflate,
            "snappy": identity.snappy,
            "user_agent": identity.user_agent,
        }
        if self.authorisations is not None:
            told["authed"] = True
            if self.authorisations.identity:
                told["auth_identity"] = self.authorisations.identity
            if self.authorisations.identity_url:
                told["auth_identity_url"] = self.authorisations.identity_url
        told["topology_zone"] = identity.topology_zone
        told["topology_region"] = identity.topology_region
        if self.pub_counts:
            counts = sorted(self.pub_counts.items())
            told["pub_counts"] = [{"topic": name, "count": count} for name, count in counts]
        return told | {
            "tls": tls is not None,
            "tls_cipher_suite": tls.cipher_suite if tls else "",
            "tls_version": tls.version if tls else "",
            "tls_negotiated_protocol": tls.negotiated_protocol if tls else "",
            "tls_negotiated_protocol_is_mutual": tls is not None
            and tls.negotiated_protocol_is_mutual,
        }

    @property
    def _is_known(self) -> bool:
        """Whether it has said who it is."""
        return self.identity is not self._host.unknown

    @property
    def tls_info(self) -> TLSInfo | None:
        """What its TLS is; None without."""
        transport = self._transport
        if transport is None or not self._session.secure:
            return None
        return tls_info(transport.get_extra_info("ssl_object"))


class _Answer:
    """An answer that is still to be written.

    Attributes:
        data: what is written; empty as long as it is not known.
        promised: what that will be if all goes well.
        size: bytes that it waits for.
        written: done when it is written; None if nobody waits for that.
    """

    __slots__ = ("data", "promised", "size", "written")

    def __init__(self, data: bytes, promised: bytes = b"", size: int = 0) -> None:
        self.data = data
        self.size: Final = size
        self.promised: Final = promised
        self.written: asyncio.Future[None] | None = None

    async def until_written(self, loop: asyncio.AbstractEventLoop) -> None:
        """Wait until it is written."""
        self.written = loop.create_future()
        await self.written


def _set_nodelay(transport: Transport) -> None:
    """Have each write sent at once; asyncio does it for listeners of its own making alone."""
    sock = transport.get_extra_info("socket")
    if sock.family in {socket.AF_INET, socket.AF_INET6}:
        with suppress(OSError):  # some systems refuse it when the client is gone already
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _address_of(transport: Transport) -> str:
    """Return where a connection comes from."""
    peer = transport.get_extra_info("peername")
    if not isinstance(peer, tuple):
        return str(transport.get_extra_info("sockname") or "@")
    return joined(*peer[:2])


_ACTS: Final[dict[type, Callable[[Connection, Any], None]]] = {
    Identify: Connection._identify,
    Auth: Connection._auth,
    Sub: Connection._sub,
    Rdy: Connection._rdy,
    Fin: Connection._fin,
    Req: Connection._req,
    Touch: Connection._touch,
    Cls: Connection._cls,
    Nop: Connection._nop,
    Pub: Connection._pub,
    Mpub: Connection._mpub,
    MpubBegun: Connection._mpub_begun,
    Dpub: Connection._dpub,
    Refusal: Connection._refused,
}
"""What does a command, by its class."""
