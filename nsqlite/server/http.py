"""nsqd's endpoints: publishing, topics and channels, what it tells of itself, its options.

The rule: what is asked for is checked in nsqd's order and answered with its codes, and only the
request that needs the store waits for it.

What may wait for the store is done by the store's thread; of what is published the store tells when
it is stored.

Next: server/options.py
"""

import json
import logging
import re
import ssl
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, Final, Protocol, TypeVar

from nsqlite import aio
from nsqlite.aio.waiting import Done
from nsqlite.broker import Broker
from nsqlite.channel import Channel
from nsqlite.errors import Closed, InvalidMessage, InvalidName, InvalidOption, NSQLiteError
from nsqlite.names import check_name, is_ephemeral
from nsqlite.options import MILLISECOND, SECOND, Seconds, as_seconds
from nsqlite.server import debug
from nsqlite.server.stats import StatsSource, Wanted, as_text, collect, health_of
from nsqlite.server.web import Call, CutShort, Endpoint, Handler, Problem, Typed, Web
from nsqlite.topic import Topic
from nsqlite.wire.go import quoted

log: Final = logging.getLogger("nsqlite")

R = TypeVar("R")

FLAGS: Final = {"true": True, "1": True, "false": False, "0": False}
"""What can be given for yes or no."""

LEVELS: Final = {"debug": 1, "info": 2, "warn": 3, "error": 4, "fatal": 5}
"""How much is logged, with the numbers by which it is told."""

TLS_REQUIRED: Final = {"false": 0, "tcp-https": 1, "true": 2}
"""What `tls_required` can be, with the numbers by which it is told."""

TLS_VERSIONS: Final = {"ssl3.0": 768, "tls1.0": 769, "tls1.1": 770, "tls1.2": 771, "tls1.3": 772}
"""What `tls_min_version` can be, with the numbers by which it is told."""

PLAIN_OPTIONS: Final = frozenset(
    {
        "id",
        "tcp_address",
        "http_address",
        "https_address",
        "broadcast_address",
        "broadcast_tcp_port",
        "broadcast_http_port",
        "data_path",
        "mem_queue_size",
        "max_bytes_per_file",
        "sync_every",
        "max_msg_size",
        "max_body_size",
        "max_rdy_count",
        "max_output_buffer_size",
        "max_channel_consumers",
        "queue_scan_worker_pool_max",
        "queue_scan_selection_count",
        "tls_cert",
        "tls_key",
        "tls_root_ca_file",
        "tls_client_auth_policy",
        "deflate",
        "max_deflate_level",
        "snappy",
        "auth_http_request_method",
        "statsd_address",
        "statsd_prefix",
        "statsd_mem_stats",
        "statsd_udp_packet_size",
        "statsd_exclude_ephemeral",
        "topology_region",
        "topology_zone",
        "log_prefix",
    }
)
"""Options that are told as they are."""

TIMES: Final = frozenset(
    {
        "sync_timeout",
        "msg_timeout",
        "max_msg_timeout",
        "max_req_timeout",
        "max_heartbeat_interval",
        "max_output_buffer_timeout",
        "min_output_buffer_timeout",
        "output_buffer_timeout",
        "e2e_processing_latency_window_time",
        "http_client_connect_timeout",
        "http_client_request_timeout",
        "statsd_interval",
    }
)
"""Options that are told in nanoseconds."""

LISTS: Final = frozenset(
    {
        "nsqlookupd_tcp_addresses",
        "e2e_processing_latency_percentiles",
        "auth_http_addresses",
        "enable_experiment",
    }
)
"""Options that are told as lists."""

WORDS: Final[Mapping[str, Mapping[str, int]]] = {
    "log_level": LEVELS,
    "tls_required": TLS_REQUIRED,
    "tls_min_version": TLS_VERSIONS,
}
"""Options that are words, and are told by their numbers."""

EXITING: Final = (503, "EXITING")
"""What is answered to who publishes where that cannot be done, whatever the reason."""

FAILED: Final = (500, "INTERNAL_ERROR")
"""What is answered where something went wrong here."""

_LINES: Final = re.compile(rb"[^\n]+")
_INTEGER: Final = re.compile(r"[+-]?[0-9]{1,40}")
_SIZE: Final = 4
_LEAST: Final = 5
"""Bytes of a message of one byte, with its size."""


class Options(Protocol):
    """The options that matter here beside those that are only told; times are in seconds."""

    @property
    def max_msg_size(self) -> int:
        """Bytes that a message may have."""
        ...

    @property
    def max_body_size(self) -> int:
        """Bytes that several may have."""
        ...

    @property
    def max_req_timeout(self) -> Seconds:
        """The longest delay."""
        ...

    @property
    def max_heartbeat_interval(self) -> Seconds:
        """The longest that a client may ask for."""
        ...

    @property
    def max_output_buffer_size(self) -> int:
        """The most that a client may ask for."""
        ...

    @property
    def max_output_buffer_timeout(self) -> Seconds:
        """The longest that a client may ask for."""
        ...

    @property
    def max_deflate_level(self) -> int:
        """How hard it compresses at the most."""
        ...

    @property
    def tls_required(self) -> str:
        """Whether clients must use TLS: one of `TLS_REQUIRED`."""
        ...

    @property
    def topology_region(self) -> str:
        """Where it is."""
        ...

    @property
    def topology_zone(self) -> str:
        """Where in its region."""
        ...


class Daemon(StatsSource, Protocol):
    """What is served."""

    @property
    def options(self) -> Options:
        """Its options; they may change."""
        ...

    @property
    def tcp_port(self) -> int:
        """Its real port: -1 for a unix socket, 0 if it has none."""
        ...

    @property
    def https_address(self) -> str | None:
        """Where it really serves HTTPS."""
        ...

    def configure(self, **changes: Any) -> None:
        """Change options.

        Raises:
            InvalidOption: one is out of its range; nothing has changed.
        """
        ...


class HTTPService:
    """nsqd's HTTP API at one address, from `start` until `stop`; a service of a node.

    Attributes:
        name: what a log calls it, ``HTTP`` or ``HTTPS``.
    """

    def __init__(
        self,
        daemon: Daemon,
        address: str,
        tls: ssl.SSLContext | None = None,
        *,
        max_connections: int = 0,
    ) -> None:
        """Make it; nothing is open yet.

        Args:
            daemon: what is served.
            address: host and port, or the path of a unix socket.
            tls: for HTTPS.
            max_connections: how many there may be at once, 0 for any number.
        """
        self._daemon: Final = daemon
        self._metrics: Any = None
        refuse = self._refusal if tls is None else _nothing
        self._web: Final = Web(
            address,
            self._endpoints(),
            daemon.clock,
            tls=tls,
            refuse=refuse,
            max_connections=max_connections,
        )
        self.name: Final = self._web.name

    @property
    def address(self) -> str | None:
        """Where it listens, None where it does not."""
        return self._web.address

    @property
    def port(self) -> int:
        """Its port: -1 for a unix socket, 0 where it does not listen."""
        return self._web.port

    def bind(self) -> None:
        """Listen: who connects waits until `start`.  A second call does nothing.

        Raises:
            CannotListen: the address cannot be had.
        """
        self._web.bind()

    async def start(self) -> None:
        """Serve whoever connects.  A second call does nothing.

        Raises:
            CannotListen: the address cannot be had.
        """
        await self._web.start()

    async def stop(self) -> None:
        """Close all; requests that are being answered are not waited for."""
        await self._web.stop()

    def _endpoints(self) -> Iterable[Endpoint]:
        topic: dict[str, Handler] = {
            "create": self._create_topic,
            "delete": partial(self._change_topic, Topic.delete),
            "empty": self._empty_topic,
            "pause": partial(self._change_topic, Topic.pause),
            "unpause": partial(self._change_topic, Topic.unpause),
        }
        channel: dict[str, Handler] = {
            "create": self._create_channel,
            "delete": partial(self._change_channel, Channel.delete),
            "empty": partial(self._change_channel, Channel.empty),
            "pause": partial(self._change_channel, Channel.pause),
            "unpause": partial(self._change_channel, Channel.unpause),
        }
        return [
            Endpoint("GET", "/ping", self._ping, plain=True),
            Endpoint("GET", "/info", self._info),
            Endpoint("GET", "/stats", self._stats),
            Endpoint("POST", "/pub", self._pub),
            Endpoint("POST", "/mpub", self._mpub),
            *(Endpoint("POST", f"/topic/{name}", call) for name, call in topic.items()),
            *(Endpoint("POST", f"/channel/{name}", call) for name, call in channel.items()),
            Endpoint("GET", "/config/:opt", self._option),
            Endpoint("PUT", "/config/:opt", self._set_option),
            Endpoint("GET", "/metrics", self._tell_metrics, plain=True),
            *_inside(),
        ]

    def _refusal(self) -> bytes | None:
        """Return what is said to who does not use TLS, if that is required."""
        daemon = self._daemon
        if daemon.options.tls_required != "true":
            return None
        port = (daemon.https_address or "").rpartition(":")[2] or "0"
        return f'{{"message": "TLS_REQUIRED", "https_port": {port}}}'.encode()

    # What it tells of itself

    async def _ping(self, call: Call) -> str:  # noqa: ARG002 - as the others
        health = health_of(self._daemon)
        if health != "OK":
            raise Problem(500, health)
        return health

    async def _info(self, call: Call) -> dict[str, Any]:  # noqa: ARG002 - as the others
        daemon = self._daemon
        options = daemon.options
        return {
            "version": daemon.version,
            "broadcast_address": daemon.broadcast_address,
            "hostname": daemon.hostname,
            "http_port": daemon.http_port,
            "tcp_port": daemon.tcp_port,
            "start_time": daemon.start_time,
            "max_heartbeat_interval": _ns(options.max_heartbeat_interval),
            "max_output_buffer_size": options.max_output_buffer_size,
            "max_output_buffer_timeout": _ns(options.max_output_buffer_timeout),
            "max_deflate_level": options.max_deflate_level,
            "topology_zone": options.topology_zone,
            "topology_region": options.topology_region,
        }

    async def _stats(self, call: Call) -> str | dict[str, Any]:
        query = call.query
        wanted = Wanted(
            topic=query.get("topic", ""),
            channel=query.get("channel", ""),
            clients=FLAGS.get(query.get("include_clients", ""), True),
            memory=FLAGS.get(query.get("include_mem", ""), True),
        )
        await self._read_all()
        found = collect(self._daemon, wanted)
        if query.get("format") == "json":
            return found
        return as_text(found, self._daemon.clock.time_ns())

    async def _read_all(self) -> None:
        """Have the topics made that only the store has yet."""
        broker = self._daemon.broker
        if broker._stored_names():
            await _done(broker, "topic", lambda: broker.topics)

    async def _tell_metrics(self, call: Call) -> Typed:
        from nsqlite.server.metrics import Metrics  # noqa: PLC0415 - loads prometheus_client

        await self._read_all()
        if self._metrics is None:
            self._metrics = Metrics(self._daemon)
        return Typed(*self._metrics.answer(call.request.headers.get("Accept", "")))

    # Publishing

    async def _pub(self, call: Call) -> str:
        options = self._daemon.options
        body = await call.body(options.max_msg_size, "MSG_TOO_BIG")
        if not body:
            raise Problem(400, "MSG_EMPTY")
        topic = await self._topic(call.query)
        deferral = call.query.get("defer")
        delay = 0 if deferral is None else _delay_of(deferral, options)
        if delay:
            await _published(aio.put(topic, body, delay / 1_000))
        else:
            await _published(_publish(topic, [body]))
        return "OK"

    async def _mpub(self, call: Call) -> str:
        options = self._daemon.options
        size = call.request.content_length
        if size is not None and size > options.max_body_size:
            raise Problem(413, "BODY_TOO_BIG")
        topic = await self._topic(call.query)
        if _is_binary(call.query):
            bodies = await _binary_bodies(call, options)
        else:
            body = await call.body(options.max_body_size, "BODY_TOO_BIG")
            bodies = _LINES.findall(body)
            if any(len(one) > options.max_msg_size for one in bodies):
                raise Problem(413, "MSG_TOO_BIG")
        await _published(_publish(topic, bodies))
        return "OK"

    async def _topic(self, query: Mapping[str, str]) -> Topic[Any]:
        """Return the topic that is asked for, which is made if it is not there.

        Raises:
            Problem: there can be none.
        """
        name = _given(query, "topic")
        broker = self._daemon.broker
        topic = broker._live(name)
        if topic is None:
            _check("topic", name, "INVALID_TOPIC")
            make = partial(broker._reach, name)
            topic = await _done(broker, "topic", make, name=name, failed=EXITING)
        return topic

    # Topics and channels

    async def _create_topic(self, call: Call) -> None:
        await self._topic(call.query)

    async def _change_topic(self, change: Callable[[Topic[Any]], object], call: Call) -> None:
        """Do something with a topic, whose name is not looked at."""
        topic = await self._known_topic(_given(call.query, "topic"))
        await _done(self._daemon.broker, "topic", partial(change, topic), name=topic.name)

    async def _empty_topic(self, call: Call) -> None:
        _check("topic", _given(call.query, "topic"), "INVALID_TOPIC")
        await self._change_topic(Topic.empty, call)

    async def _known_topic(self, name: str) -> Topic[Any]:
        """Return a topic.

        Raises:
            Problem: it is not there.
        """
        broker = self._daemon.broker
        topic = broker._live(name)
        if topic is None and name in broker._stored_names():
            topic = await _done(broker, "topic", partial(broker._find, name))
        if topic is None:
            raise Problem(404, "TOPIC_NOT_FOUND")
        return topic

    async def _place(self, query: Mapping[str, str]) -> tuple[Topic[Any], str]:
        """Return the topic of a channel, and the channel's name.

        Raises:
            Problem: the topic is not there, or a name is none.
        """
        name = _given(query, "topic")
        _check("topic", name, "INVALID_ARG_TOPIC")
        channel = _given(query, "channel")
        _check("channel", channel, "INVALID_ARG_CHANNEL")
        return await self._known_topic(name), channel

    async def _create_channel(self, call: Call) -> None:
        topic, name = await self._place(call.query)
        make = partial(topic.channel, name)
        await _done(self._daemon.broker, "topic", make, name=topic.name)

    async def _change_channel(self, change: Callable[[Channel[Any]], object], call: Call) -> None:
        """Do something with a channel."""
        topic, name = await self._place(call.query)
        channel = topic.channels.get(name)
        if channel is None:
            raise Problem(404, "CHANNEL_NOT_FOUND")
        await _done(self._daemon.broker, "channel", partial(change, channel), name=topic.name)

    # Options

    async def _option(self, call: Call) -> Any:
        return option_of(self._daemon.options, call.value)

    async def _set_option(self, call: Call) -> Any:
        size = self._daemon.options.max_msg_size
        body = await call.body(size, "INVALID_VALUE")
        if not body:
            raise Problem(413, "INVALID_VALUE")
        if call.value not in _WRITABLE:
            raise Problem(400, "INVALID_OPTION")
        try:
            self._daemon.configure(**{call.value: _WRITABLE[call.value](body)})
        except (ValueError, RecursionError):  # InvalidOption, and what is wrong with JSON
            raise Problem(400, "INVALID_VALUE") from None
        return option_of(self._daemon.options, call.value)


# Of a query


def _given(query: Mapping[str, str], name: str) -> str:
    """Return a parameter.

    Raises:
        Problem: it is not there.
    """
    value = query.get(name)
    if value is None:
        raise Problem(400, f"MISSING_ARG_{name.upper()}")
    return value


def _check(kind: str, name: str, code: str) -> None:
    """Check a name.

    Raises:
        Problem: NSQ does not allow it.
    """
    try:
        check_name(kind, name)
    except InvalidName:
        raise Problem(400, code) from None


def _delay_of(text: str, options: Options) -> int:
    """Return a delay in milliseconds.

    Raises:
        Problem: it is none, or out of its range.
    """
    longest = _ns(options.max_req_timeout)
    delay = int(text) if _INTEGER.fullmatch(text) else -1
    if not 0 <= delay * MILLISECOND <= longest:
        raise Problem(400, "INVALID_DEFER")
    return delay


def _is_binary(query: Mapping[str, str]) -> bool:
    """Return whether a body has sizes instead of lines."""
    value = query.get("binary")
    if value is None:
        return False
    known = FLAGS.get(value)
    if known is None:
        log.warning("deprecated value %s used for /mpub binary param", quoted(value[:40]))
        return True
    return known


async def _binary_bodies(call: Call, options: Options) -> list[bytes]:
    """Return the messages of a body that has their sizes.

    Raises:
        Problem: it is not what it should be.
    """
    try:
        body = await call.body(options.max_body_size, "BODY_TOO_BIG")
    except CutShort as cut:
        body = cut.part
    return split(body, options.max_msg_size, options.max_body_size)


def split(body: bytes, max_msg_size: int, max_body_size: int) -> list[bytes]:
    """Return messages that stand one behind the other, with their count and sizes before them.

    What is behind the last of them is not looked at.

    Raises:
        Problem: there are not so many, or one has no size that it may have.
    """
    count = int.from_bytes(body[:_SIZE], signed=True) if len(body) >= _SIZE else 0
    if not 0 < count <= (max_body_size - _SIZE) // _LEAST:
        raise Problem(413, "BAD_BODY")
    bodies: list[bytes] = []
    place = _SIZE
    for _ in range(count):
        begin = place + _SIZE
        size = int.from_bytes(body[place:begin], signed=True)
        place = begin + size
        if not 0 < size <= max_msg_size or place > len(body):
            raise Problem(413, "BAD_MESSAGE")
        bodies.append(body[begin:place])
    return bodies


# With a store


async def _done(
    broker: Broker,
    what: str,
    task: Callable[[], R],
    *,
    name: str = "",
    failed: tuple[int, str] = FAILED,
) -> R:
    """Have something done that may wait for the store, by the store's thread if there is one.

    Args:
        broker: whose store it is.
        what: to what it is done, a topic or a channel.
        task: what is done.
        name: the topic's; one that is ephemeral is in no store.
        failed: status and code of what is answered where the store has failed.

    Raises:
        Problem: it could not be done.
    """
    store = broker._persistence
    results: list[R] = []
    try:
        if store is None or is_ephemeral(name):
            return task()
        await store.run(lambda: results.append(task()), what)
    except Closed as error:
        if error.how == "deleted":
            raise Problem(404, f"{what.upper()}_NOT_FOUND") from None
        raise Problem(*EXITING) from None
    except NSQLiteError as error:
        log.error("HTTP: a %s could not be changed: %s", what, error)  # noqa: TRY400 - no fault of ours
        raise Problem(*failed) from None
    return results[0]


async def _publish(topic: Topic[Any], bodies: list[bytes]) -> None:
    """Publish messages, all of them or none, and wait until they are stored."""
    if topic._store is None:
        topic.publish(bodies)
        return
    done = Done("publish")
    topic.publish(bodies, done.tell)
    await done.future


async def _published(publishing: Any) -> None:
    """Wait until something is published.

    Raises:
        Problem: it is refused.
    """
    try:
        await publishing
    except InvalidMessage:
        raise Problem(413, "MSG_TOO_BIG") from None
    except InvalidOption:
        raise Problem(400, "INVALID_DEFER") from None
    except NSQLiteError as error:
        if not isinstance(error, Closed):
            log.error("HTTP: messages were not published: %s", error)  # noqa: TRY400 - no fault of ours
        raise Problem(*EXITING) from None


# Options


def option_of(options: Any, name: str) -> Any:
    """Return an option as it is told.

    Raises:
        Problem: there is none of the name.
    """
    if name in PLAIN_OPTIONS:
        return getattr(options, name)
    if name in TIMES:
        return _ns(getattr(options, name))
    if name in LISTS:
        return list(getattr(options, name))
    if name in WORDS:
        return WORDS[name][getattr(options, name)]
    raise Problem(400, "INVALID_OPTION")


def _addresses(body: bytes) -> tuple[str, ...]:
    """Return a list of texts that is given as JSON.

    Raises:
        ValueError: it is none.
    """
    found = json.loads(body)
    if found is not None and not isinstance(found, list):
        raise ValueError("it is no list")
    if not all(isinstance(one, str) for one in found or ()):
        raise ValueError("it is no list of texts")
    return tuple(found or ())


def _level(body: bytes) -> str:
    """Return how much is logged, which is given as a word.

    Raises:
        ValueError: there is no such level.
    """
    word = body.decode().lower()
    if word not in LEVELS:
        raise ValueError("there is no such level")
    return word


_WRITABLE: Final[Mapping[str, Callable[[bytes], Any]]] = {
    "nsqlookupd_tcp_addresses": _addresses,
    "log_level": _level,
}


def _ns(time: Seconds) -> int:
    """Return a time in nanoseconds."""
    return round(as_seconds(time) * SECOND)


def _nothing() -> None:
    """Refuse nothing."""


# Its inside


def _inside() -> Iterable[Endpoint]:
    """Return the endpoints that show what a daemon is doing."""
    pages = {
        "": debug.index,
        "cmdline": debug.cmdline,
        "symbol": debug.symbol,
        "goroutine": debug.stacks,
        "threadcreate": debug.threads,
        "heap": debug.heap,
        "block": debug.nothing,
        "profile": debug.nothing,
    }
    for name, page in pages.items():
        yield Endpoint("GET", f"/debug/pprof/{name}", partial(_show, page), plain=True)
    yield Endpoint("POST", "/debug/pprof/symbol", partial(_show, debug.symbol), plain=True)
    yield Endpoint("PUT", "/debug/setblockrate", _set_block_rate, plain=True)
    yield Endpoint("POST", "/debug/freememory", _free_memory, plain=True)


async def _show(page: Callable[[], str], call: Call) -> str:  # noqa: ARG001 - as the others
    return page()


async def _set_block_rate(call: Call) -> None:
    try:
        debug.checked_rate(call.query.get("rate", ""))
    except ValueError as error:
        raise Problem(400, f"invalid block rate : {error}") from None


async def _free_memory(call: Call) -> None:  # noqa: ARG001 - as the others
    debug.free_memory()
