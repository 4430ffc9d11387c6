"""nsqd's TCP service: it listens, and keeps its connections.

The rule: a connection is known from its accept to its end, so none is missed when the service
stops.

Next: server/stats.py
"""

import asyncio
import logging
import socket
import sys
from collections import Counter
from collections.abc import Callable, Collection
from contextlib import suppress
from threading import get_ident
from typing import Any, Final

import attrs

from nsqlite.aio.waiting import call_soon
from nsqlite.broker import Broker
from nsqlite.clock import Clock
from nsqlite.errors import InvalidMessage
from nsqlite.events import Event, Kind
from nsqlite.options import Seconds, nanoseconds
from nsqlite.server.connection import Asker, Connection, Host
from nsqlite.server.listener import BACKLOG, address_of
from nsqlite.server.publishing import Publishing
from nsqlite.wire.identify import Identity, Limits
from nsqlite.wire.session import SessionLimits

log: Final = logging.getLogger("nsqlite")


class TCPService:
    """A listener for NSQ's TCP protocol, and its connections.

    Attributes:
        name: what logs call it.
        broker: where clients publish and subscribe.
        clock: what heartbeats and deadlines are measured by.
        limits: what an IDENTIFY may ask for.
        session_limits: what other commands may ask for.
        unknown: what holds for a client that has not said who it is.
        auth: what asks the auth servers; None if there are none.
        tls: the `ssl.SSLContext`; None without a certificate.
        max_connections: how many there may be; 0 for any number.
        max_connections_per_address: how many of one IP address; 0 for any number.
        handshake_timeout: how long a client may take for the magic bytes, in nanoseconds.
        own_user_only: whether a unix socket is only for this process's user, and the system's.
        factory: what makes a connection, of this and its number; a test may set another.
    """

    name = "TCP"

    def __init__(
        self,
        broker: Broker,
        listener: socket.socket,
        *,
        limits: Limits | None = None,
        session_limits: SessionLimits | None = None,
        auth: Asker | None = None,
        tls: Any = None,
        max_connections: int = 0,
        max_connections_per_address: int = 0,
        handshake_timeout: Seconds = 5.0,
        own_user_only: bool = False,
    ) -> None:
        """Make it; nothing is served before `start`.

        Args:
            broker: where clients publish and subscribe.
            listener: a socket that is bound.
            limits: see the class; NSQ's by default.
            session_limits: see the class; NSQ's by default.  With an `auth` an MPUB is judged
                before its body, whatever they say.
            auth: see the class.
            tls: see the class.
            max_connections: see the class.
            max_connections_per_address: see the class.
            handshake_timeout: in seconds.
            own_user_only: see the class.
        """
        self.broker: Final = broker
        self.clock: Final[Clock] = broker.clock
        self.limits: Final = limits or Limits()
        self.session_limits: Final = attrs.evolve(
            session_limits or SessionLimits(), announces=auth is not None
        )
        self.unknown: Final = Identity(limits=self.limits)
        self.auth: Final = auth
        self.tls: Final = tls
        self.max_connections: Final = max_connections
        self.max_connections_per_address: Final = max_connections_per_address
        self.handshake_timeout: Final = nanoseconds("handshake_timeout", handshake_timeout)
        self.own_user_only: Final = own_user_only
        self._addresses: Final[Counter[str]] = Counter()
        self.factory: Callable[[Host, int], asyncio.BaseProtocol] = Connection
        self._buffer: Final = memoryview(bytearray(READ))
        self.thread: int = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._publishing: Publishing | None = None
        self._listener: Final = listener
        self._server: asyncio.Server | None = None
        self._connections: Final[dict[Connection, None]] = {}
        self._readers: Final[dict[tuple[str, str], dict[Connection, None]]] = {}
        self._count = 0
        self._to_json: Callable[[object], tuple[Any, bytes, str | None]] | None = None
        self._unobserve: Callable[[], None] | None = None
        self._empty: asyncio.Event | None = None

    # Its life

    async def start(self) -> None:
        """Begin to serve."""
        self._loop = asyncio.get_running_loop()
        self.thread = get_ident()
        self._publishing = Publishing(self._loop)
        ends = (Kind.DELETED, Kind.CLOSED)
        self._unobserve = self.broker.observe(self._hear, kinds=ends)
        log.info("TCP: listening on %s", address_of(self._listener))
        self._server = await self._loop.create_server(
            self._made, sock=self._listener, backlog=BACKLOG
        )

    async def stop(self) -> None:
        """Close the listener and all connections, and wait for their ends."""
        if self._server is None or self._unobserve is None:
            self._listener.close()
            return
        await self._stop_listening(self._server)
        self._unobserve()
        for connection in list(self._connections):
            connection.shut()
        if self._connections:
            self._empty = asyncio.Event()
            await self._empty.wait()

    async def _stop_listening(self, server: asyncio.Server) -> None:
        """Accept no more, and have begun what is accepted: else asyncio forgets it, still open."""
        for listener in server.sockets:
            with suppress(NotImplementedError):  # as on Windows
                self.loop.remove_reader(listener)
        for _ in range(BEGINNING):
            await asyncio.sleep(0)
        server.close()

    @property
    def connections(self) -> Collection[Connection]:
        """Those that are open."""
        return self._connections.keys()

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """Where it runs."""
        assert self._loop is not None
        return self._loop

    @property
    def publishing(self) -> Publishing:
        """What gathers messages for the store."""
        assert self._publishing is not None
        return self._publishing

    def _made(self) -> asyncio.BaseProtocol:
        self._count += 1
        return self.factory(self, self._count)

    # What it is to its connections

    def buffer(self) -> memoryview:
        """Return where a connection reads; on Windows, where all read at once, each its own."""
        return self._buffer if sys.platform != "win32" else memoryview(bytearray(READ // 16))

    def encode(self, body: object) -> bytes | None:
        """Return a body that is not bytes, as an app in this process puts, as a client gets it.

        That is text as UTF-8, and anything else as JSON.

        Returns:
            None if it cannot be written as JSON, which is logged.
        """
        if isinstance(body, bytes | bytearray):
            return bytes(body)
        if isinstance(body, str):
            return body.encode("utf-8", "replace")
        if self._to_json is None:
            from nsqlite.store.codec import Coder, checked_codec  # noqa: PLC0415 - loads the store

            self._to_json = Coder(checked_codec("json")).encode
        try:
            return self._to_json(body)[1]
        except InvalidMessage as error:
            log.warning("TCP: a message cannot be sent: %s", error)
            return None

    def opened(self, connection: Connection, transport: asyncio.Transport) -> bool:
        """Take note of a connection; return False if it is not let in."""
        if self._server is None or not self._server.is_serving():
            return False
        problem = self._problem(connection, transport)
        if problem:
            log.warning("TCP: refused client(%s): %s", connection.remote_address, problem)
            return False
        self._connections[connection] = None
        self._addresses[connection.ip_address] += 1
        log.info("TCP: new client(%s)", connection.remote_address)
        return True

    def _problem(self, connection: Connection, transport: asyncio.Transport) -> str:
        """Return why a connection is not let in; empty if it is."""
        most = self.max_connections
        if most and len(self._connections) >= most:
            return f"max_connections is {most}"
        most = self.max_connections_per_address
        if most and self._addresses[connection.ip_address] >= most:
            return f"max_connections_per_address is {most}"
        if self.own_user_only and not isinstance(transport.get_extra_info("peername"), tuple):
            from nsqlite.store.controllines import require_own_user  # noqa: PLC0415 - as above

            try:
                require_own_user(transport.get_extra_info("socket"))
            except OSError as error:  # or the system does not tell
                return f"own_user_only, and {error}"
        return ""

    def subscribed(self, connection: Connection) -> None:
        """Take note that a connection has joined a channel."""
        assert connection.consumer is not None
        channel = connection.consumer.channel
        self._readers.setdefault((channel.topic_name, channel.name), {})[connection] = None

    def closed(self, connection: Connection) -> None:
        """Take note that a connection is over."""
        if self._connections.pop(connection, False) is False:
            return
        log.info("TCP: closed client(%s)", connection.remote_address)
        self._addresses[connection.ip_address] -= 1
        if not self._addresses[connection.ip_address]:
            del self._addresses[connection.ip_address]
        if connection.consumer is not None:
            channel = connection.consumer.channel
            key = (channel.topic_name, channel.name)
            readers = self._readers.get(key, {})
            readers.pop(connection, None)
            if not readers:
                self._readers.pop(key, None)
        if self._empty is not None and not self._connections:
            self._empty.set()

    def _hear(self, event: Event) -> None:
        """Close the connections of a channel that is over; called by any thread."""
        if event.channel is not None:
            key = (event.topic, event.channel)
            if get_ident() == self.thread:
                self.loop.call_soon(self._shut, key)
            else:
                call_soon(self.loop, lambda: self._shut(key))

    def _shut(self, key: tuple[str, str]) -> None:
        for connection in list(self._readers.get(key, ())):
            if connection.consumer is not None and connection.consumer.closed:
                connection.shut()


READ: Final = 1 << 18
"""How many bytes are read at once at most."""

BEGINNING: Final = 3
"""How many turns of the loop a connection takes from its accept to its beginning."""
