"""nsqd: a broker, and NSQ's protocols on sockets for it.

The rule: what can fail is done first: the certificates are read, the data path is locked, then the
sockets are bound, then one service after the other starts; and if one of it fails, nothing of it is
left.

    async def main():
        nsqd = NSQD(NSQDOptions(data_path="/var/lib/nsqd"))
        await nsqd.run()  # until SIGTERM or SIGINT

Next: timeline/__init__.py
"""

import logging
import os
import socket
import ssl
from collections.abc import Collection
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

import attrs

from nsqlite import aio
from nsqlite.broker import Broker
from nsqlite.clock import Clock, checked_clock
from nsqlite.errors import InvalidOption, MissingExtra, StoreError
from nsqlite.options import SECOND, Seconds, as_seconds
from nsqlite.origin import note
from nsqlite.server.connection import Connection
from nsqlite.server.listener import address_of, listen, port_of
from nsqlite.server.node import Node, Service
from nsqlite.server.options import NSQDOptions
from nsqlite.server.tcp import TCPService
from nsqlite.server.tls import client_context, server_context
from nsqlite.wire.compression import has_snappy
from nsqlite.wire.identify import NSQ_VERSION, Limits
from nsqlite.wire.session import SessionLimits

if TYPE_CHECKING:
    from nsqlite.server.http import HTTPService

log: Final = logging.getLogger("nsqlite")

FILE: Final = "nsqlite.db"
"""The file in a data path."""

LEVELS: Final = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warn": logging.WARNING,
    "error": logging.ERROR,
    "fatal": logging.CRITICAL,
}
"""nsqd's levels as Python's."""


class BadDataPath(StoreError):
    """A data path is no directory, or none that can be written.

    Attributes:
        where: the data path.
        problem: what is wrong, in words.
    """

    def __str__(self) -> str:
        return f"{self.where}: {self.problem}"


class NSQD:
    """An nsqd: what real NSQ clients can talk to.

    It is used once: after `stop` a new one carries on, on the same data path.

    Threads: all in the loop where it is started, but `shutdown`, and all of its broker.

    Attributes:
        hostname: the machine's.
        clock: what all of it takes the time from.
        start_time: when it was made, in whole seconds since the epoch.
        version: the version of NSQ that it is for its clients.
    """

    version: Final = NSQ_VERSION

    def __init__(
        self,
        options: NSQDOptions | None = None,
        *,
        broker: Broker | None = None,
        clock: Clock | None = None,
    ) -> None:
        """Make it; nothing is opened before `start`.

        Args:
            options: NSQ's by default.
            broker: what to serve, which stays open after that; its options hold in place of these
                of the same name, and its `node_id` is the id.  By default `start` makes one, with a
                store if the options have a data path.
            clock: the system's by default, or the broker's.

        Raises:
            InvalidOption: there is a clock or a data path besides the broker, which has its own; or
                the clock is none.
        """
        options = options or NSQDOptions()
        for name, given in (("clock", clock), ("data_path", options.data_path)):
            if broker is not None and given is not None:
                raise InvalidOption(name, given, "None with a broker, which has its own")
        self._options = options if broker is None else _with_those_of(options, broker)
        self.hostname: Final = socket.gethostname()
        self.clock: Final = checked_clock(clock if broker is None else broker.clock)
        self.start_time: Final = self.clock.time_ns() // SECOND
        self._broker = broker
        self._closing: _Closing | None = None
        self._node: Final = Node("nsqd", grace=options.stop_timeout)
        self._added: Final[list[tuple[Service, Seconds | None]]] = []
        self._begun = False
        self._listener: socket.socket | None = None
        self._tcp: TCPService | None = None
        self._http: HTTPService | None = None
        self._https: HTTPService | None = None
        note(self)

    # Its life

    def add(self, service: Service, *, grace: Seconds | None = None) -> None:
        """Have a service of your own started after nsqd's, and stopped before them; see `Node`."""
        self._added.append((service, grace))

    async def start(self) -> None:
        """Lock the data path, bind the sockets, and serve; a second call does nothing.

        If it fails nothing is left, and it is over: make a new one.

        Raises:
            BadDataPath: the data path is no directory, or none that can be written.
            StoreInUse: another nsqd has it, of another process or of this one.
            StoreError: what is in it cannot be read.
            CannotListen: an address cannot be had.
            BadTLS: a certificate cannot be used.
            MissingExtra: an option needs a package that is not installed.
            Closed: it was stopped.
            BaseException: what a service of your own has raised.
        """
        if self._begun:
            await self._node.start()  # which waits, if that is under way
            return
        self._begun = True
        async with AsyncExitStack() as undo:
            undo.push_async_callback(self._node.stop)
            tls = _server_tls(self._options)
            auth = self._asker()
            if self._broker is None:
                self._broker = self._opened()
                self._closing = _Closing(self._broker)
                undo.push_async_callback(self._closing.stop)
            self._listener = undo.enter_context(listen(self._options.tcp_address))
            self._tcp = self._make_tcp(self._broker, self._listener, tls, auth)
            self._bind_http(undo, tls)
            self._tell_ports()
            self._add_services()
            await self._node.start()
            undo.pop_all()

    def _opened(self) -> Broker:
        """Return a broker of its own."""
        options = self._options
        store = None
        if options.data_path is not None:
            from nsqlite.store.sqlite import SQLite  # noqa: PLC0415 - in memory none is needed

            most = max(1, options.mem_queue_size)
            store = SQLite(_file_in(options.data_path), mem_queue_size=most)
        return Broker(clock=self.clock, store=store, **options.for_broker())

    def _asker(self) -> Any:
        """Return what asks the auth servers, if there are some."""
        options = self._options
        if not options.auth_http_addresses:
            return None
        from nsqlite.server.auth import AuthClient  # noqa: PLC0415 - few need it

        return AuthClient(
            options.auth_http_addresses,
            options.auth_http_request_method,
            as_seconds(options.http_client_connect_timeout),
            as_seconds(options.http_client_request_timeout),
            client_context(
                root_ca_file=options.tls_root_ca_file, min_version=options.tls_min_version
            ),
        )

    def _make_tcp(
        self, broker: Broker, listener: socket.socket, tls: ssl.SSLContext | None, auth: Any
    ) -> TCPService:
        options = self._options
        return TCPService(
            broker,
            listener,
            limits=limits_of(options, tls=tls is not None),
            session_limits=SessionLimits(
                max_msg_size=broker.options.max_msg_size,
                max_body_size=options.max_body_size,
                max_rdy_count=options.max_rdy_count,
                max_req_timeout=round(broker.options.max_req_timeout * 1000),
                tls_required=options.requires_tls(),
            ),
            auth=auth,
            tls=tls,
            max_connections=options.max_connections,
            max_connections_per_address=options.max_connections_per_address,
            handshake_timeout=options.handshake_timeout,
            own_user_only=options.own_user_only,
        )

    def _bind_http(self, undo: AsyncExitStack, tls: ssl.SSLContext | None) -> None:
        """Bind the addresses of the HTTP API, if there are any."""
        options = self._options
        plain = options.http_address
        secure = options.https_address if tls is not None else ""
        if not (plain or secure):
            return
        try:
            from nsqlite.server.http import HTTPService  # noqa: PLC0415 - loads aiohttp
        except ImportError:
            what = 'the HTTP API (http_address="" is none)'
            raise MissingExtra(what, "aiohttp", "server") from None
        most = options.max_connections
        if plain:
            self._http = HTTPService(self, plain, max_connections=most)
            undo.push_async_callback(self._http.stop)
            self._http.bind()
        if secure:
            self._https = HTTPService(self, secure, tls, max_connections=most)
            undo.push_async_callback(self._https.stop)
            self._https.bind()

    def _tell_ports(self) -> None:
        """Have the ports that clients are told be the real ones, unless they are others."""
        options = self._options
        self._options = attrs.evolve(
            options,
            broadcast_tcp_port=options.broadcast_tcp_port or max(self.tcp_port, 0),
            broadcast_http_port=options.broadcast_http_port or max(self.http_port, 0),
        )

    def _add_services(self) -> None:
        """Have the node start what there is, in nsqd's order."""
        assert self._tcp is not None
        if self._closing is not None:
            self._node.add(self._closing, grace=CLOSING)
        self._node.add(self._tcp)
        for service in (self._http, self._https):
            if service is not None:
                self._node.add(service)
        if self._options.statsd_address:
            from nsqlite.server.statsd import StatsdService  # noqa: PLC0415 - few need it

            self._node.add(StatsdService(self))
        for added, grace in self._added:
            self._node.add(added, grace=grace)

    async def wait(self) -> None:
        """Wait until `shutdown`; see `Node.wait`."""
        await self._node.wait()

    def shutdown(self) -> None:
        """Have `wait` return, and `run` stop; any thread, or a signal handler, may call it."""
        self._node.shutdown()

    async def stop(self) -> None:
        """Stop serving, and write and close what is its own; a second call does nothing.

        What clients hold stays in flight; with a data path it comes again, its attempts counted.
        """
        self._begun = True
        await self._node.stop()

    async def run(self) -> None:
        """Start, serve until `shutdown`, SIGTERM or SIGINT, and stop; see `Node.run`.

        A second signal ends the process at once.
        """
        await self._node.run(self.start)

    async def __aenter__(self) -> Self:
        """Start it for a block, which stops it."""
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop it."""
        await self.stop()

    # What it is

    @property
    def broker(self) -> Broker:
        """What it serves; its own is there once it has started."""
        if self._broker is None:
            raise InvalidOption("broker", None, "there: start() makes it")
        return self._broker

    @property
    def options(self) -> NSQDOptions:
        """Its options, with what `configure` has changed."""
        return self._options

    def configure(self, **changes: Any) -> None:
        """Change options that can be changed while it runs.

        These are `log_level`, which is that of the logger ``nsqlite`` from then on, and
        `nsqlookupd_tcp_addresses`.

        Raises:
            InvalidOption: an option cannot be changed, or is out of its range; nothing has changed.
        """
        for name, value in changes.items():
            if name not in CHANGEABLE:
                raise InvalidOption(name, value, f"as it is: only {', '.join(CHANGEABLE)} change")
        self._options = attrs.evolve(self._options, **changes)
        if "log_level" in changes:
            log.setLevel(LEVELS[self._options.log_level])

    @property
    def connections(self) -> Collection[Connection]:
        """The clients of the TCP address."""
        return () if self._tcp is None else self._tcp.connections

    @property
    def health(self) -> str:
        """See `Broker.health`."""
        return self.broker.health

    @property
    def broadcast_address(self) -> str:
        """Where clients find it."""
        return self._options.broadcast_address

    @property
    def tcp_address(self) -> str | None:
        """Where clients connect: host and real port, or a path; None where they cannot."""
        listener = self._heard()
        return None if listener is None else address_of(listener)

    @property
    def http_address(self) -> str | None:
        """Where its HTTP API is; None where there is none."""
        return None if self._http is None else self._http.address

    @property
    def https_address(self) -> str | None:
        """Where its HTTPS API is; None where there is none."""
        return None if self._https is None else self._https.address

    @property
    def tcp_port(self) -> int:
        """The port of `tcp_address`: -1 for a unix socket, 0 if there is none."""
        listener = self._heard()
        return 0 if listener is None else port_of(listener)

    @property
    def http_port(self) -> int:
        """The port of `http_address`: -1 for a unix socket, 0 if there is none."""
        return 0 if self._http is None else self._http.port

    def __repr__(self) -> str:
        """Show where it is."""
        return f"<NSQD {self.tcp_address or 'not served'}>"

    def _heard(self) -> socket.socket | None:
        """Return the socket of the TCP address, unless it is closed."""
        listener = self._listener
        return None if listener is None or listener.fileno() < 0 else listener


CHANGEABLE: Final = ("log_level", "nsqlookupd_tcp_addresses")
"""The options that can be changed while it runs."""

CLOSING: Final = 60.0
"""Seconds that a store has to write all when nsqd stops."""


class _Closing:
    """Closes a broker when all that uses it has stopped."""

    name = "broker"

    def __init__(self, broker: Broker) -> None:
        self._broker: Final = broker
        self._told = False  # to close

    async def start(self) -> None:
        """Do nothing: it is open."""

    async def stop(self) -> None:
        """Close it, also where it cannot be written, so that the data path is free again."""
        if self._told:
            return
        self._told = True
        log.info("NSQ: closing topics")
        try:
            await aio.close(self._broker)
        except StoreError as error:
            log.error("NSQ: what was not stored is lost: %s", error)  # noqa: TRY400 - no fault of ours
            await aio.close(self._broker, force=True)


def _with_those_of(options: NSQDOptions, broker: Broker) -> NSQDOptions:
    """Return options with those of a broker in their place."""
    found = broker.options._asdict()
    names = {field.name for field in attrs.fields(NSQDOptions)} & found.keys()
    return attrs.evolve(options, id=broker.options.node_id, **{name: found[name] for name in names})


def _file_in(data_path: str) -> str:
    """Return the file in a data path.

    Raises:
        BadDataPath: there is no such directory, or nothing can be made in it.
    """
    path = Path(data_path)
    if not path.is_dir():
        problem = "it is no directory" if path.exists() else "there is no such directory"
        raise BadDataPath(data_path, problem)
    if not os.access(path, os.W_OK | os.X_OK):
        raise BadDataPath(data_path, "permission denied")
    return str(path / FILE)


def _server_tls(options: NSQDOptions) -> ssl.SSLContext | None:
    """Return what makes TLS connections; None without a certificate."""
    return server_context(
        cert=options.tls_cert,
        key=options.tls_key,
        root_ca_file=options.tls_root_ca_file,
        client_auth_policy=options.tls_client_auth_policy,
        min_version=options.tls_min_version,
    )


def limits_of(options: NSQDOptions, *, tls: bool = False) -> Limits:
    """Return what an IDENTIFY may ask for."""
    return Limits(
        max_rdy_count=options.max_rdy_count,
        max_msg_timeout=_ms(options.max_msg_timeout),
        msg_timeout=_ms(options.msg_timeout),
        max_heartbeat_interval=_ms(options.max_heartbeat_interval),
        max_output_buffer_size=options.max_output_buffer_size,
        min_output_buffer_timeout=_ms(options.min_output_buffer_timeout),
        max_output_buffer_timeout=_ms(options.max_output_buffer_timeout),
        output_buffer_timeout=_ms(options.output_buffer_timeout),
        tls=tls,
        deflate=options.deflate,
        max_deflate_level=options.max_deflate_level,
        snappy=options.snappy and has_snappy(),
        auth_required=bool(options.auth_http_addresses),
        topology_region=options.topology_region,
        topology_zone=options.topology_zone,
    )


def _ms(time: Seconds) -> int:
    """Return a time in whole milliseconds."""
    return round(as_seconds(time) * 1000)
