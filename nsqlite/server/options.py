"""The options of an nsqd, by the names of its configuration (NSQ semantics §20).

The rule: options that were made are in their ranges and fit together; what a file or an address is
good for is found out when the nsqd starts.

Next: server/nsqd.py
"""

import os
import re
import socket
import zlib
from collections.abc import Iterable
from hashlib import md5
from typing import Any, Final, Literal, get_args

import attrs
from attrs.converters import optional

from nsqlite.errors import InvalidOption
from nsqlite.options import (
    CENTURY,
    LONGEST,
    Seconds,
    TopicOptions,
    as_seconds,
    make_options,
    nanoseconds,
    whole,
)
from nsqlite.options import DEFAULTS as OF_BROKER
from nsqlite.server.listener import host_and_port
from nsqlite.server.node import GRACE
from nsqlite.server.tls import MIN_VERSION, POLICIES, VERSIONS

LogLevel = Literal["debug", "info", "warn", "error", "fatal"]
TLSRequired = Literal["false", "true", "tcp-https"]

HOUR: Final = 3600.0

NODES: Final = 1024
"""How many numbers there are for nodes."""

PORTS: Final = 1 << 16

LARGEST: Final = (1 << 31) - 1
"""The most bytes that NSQ's protocol can tell of."""


def default_id(hostname: str) -> int:
    """Return the number of a node that was given none: nsqd's for a machine of the same name."""
    digest = md5(hostname.encode("utf-8", "surrogateescape"), usedforsecurity=False).digest()
    return zlib.crc32(digest) % NODES


def _own_id() -> int:
    return default_id(socket.gethostname())


# What converts and checks a field; what is of the wrong type stays as it is until it is checked.


def _as_path(given: str | os.PathLike[str]) -> str:
    return os.fspath(given) if isinstance(given, os.PathLike) else given


def _as_texts(given: Iterable[str]) -> tuple[str, ...]:
    return tuple(given) if isinstance(given, list) else given  # type: ignore[return-value]


def _as_falling(given: Iterable[float]) -> tuple[float, ...]:
    """Return percentiles as nsqd has them, the largest first."""
    try:
        return tuple(sorted(given, reverse=True)) if isinstance(given, list | tuple) else given  # type: ignore[return-value]
    except TypeError:  # they are no numbers
        return given  # type: ignore[return-value]


def _text(_: object, field: "attrs.Attribute[Any]", value: object) -> None:
    if not isinstance(value, str):
        raise InvalidOption(field.name, value, "a text")


def _given_text(_: object, field: "attrs.Attribute[Any]", value: object) -> None:
    if not isinstance(value, str) or not value:
        raise InvalidOption(field.name, value, "a text that is not empty")


def _directory(_: object, field: "attrs.Attribute[Any]", value: object) -> None:
    if value is not None and (not isinstance(value, str) or not value):
        raise InvalidOption(field.name, value, "the path of a directory, or None")


def _texts(_: object, field: "attrs.Attribute[Any]", value: object) -> None:
    fits = isinstance(value, tuple) and all(isinstance(one, str) and one for one in value)
    if not fits:
        raise InvalidOption(field.name, value, "a list of texts, none of them empty")


def _udp(_: object, field: "attrs.Attribute[Any]", value: object) -> None:
    where = host_and_port(value) if isinstance(value, str) else None
    host, port = where or ("", "")
    fits = re.fullmatch("[0-9]{1,5}", port) and 0 < int(port) < PORTS
    if value != "" and not (host and fits):
        raise InvalidOption(field.name, value, "host:port, or '' for nowhere")


def _flag(_: object, field: "attrs.Attribute[Any]", value: object) -> None:
    if not isinstance(value, bool):
        raise InvalidOption(field.name, value, "True or False")


def _switch(default: bool) -> Any:
    return attrs.field(default=default, validator=_flag)


def _word(default: str, known: Iterable[str]) -> Any:
    """Return a field that is one of several texts."""
    names = tuple(known)

    def check(_: object, field: "attrs.Attribute[Any]", value: object) -> None:
        if value not in names:
            raise InvalidOption(field.name, value, f"one of {', '.join(map(repr, names))}")

    return attrs.field(default=default, validator=check)


def _time(default: float, low: float = 0, high: float = LONGEST) -> Any:
    """Return a field that is a number of seconds."""

    def check(_: object, field: "attrs.Attribute[Any]", value: object) -> None:
        nanoseconds(field.name, value, low, high)

    return attrs.field(default=default, converter=as_seconds, validator=check)


def _within(low: int, high: int | None) -> Any:
    """Return what checks a whole number."""

    def check(_: object, field: "attrs.Attribute[Any]", value: object) -> None:
        whole(field.name, value, low, high)

    return check


def _count(default: int, low: int = 0, high: int | None = None) -> Any:
    """Return a field that is a whole number."""
    return attrs.field(default=default, validator=_within(low, high))


@attrs.frozen(kw_only=True)
class NSQDOptions:
    """What can be chosen of an nsqd; the defaults are NSQ's, but for those that are marked.

    All times are in seconds, or `datetime.timedelta`.

    Attributes:
        id: the node's number, 0 to 1023, part of every message id; by default one that comes of the
            host's name.
        tcp_address: where clients connect, ``host:port``, or the path of a unix socket; port 0 is
            any that is free.  127.0.0.1:4150, where nsqd has 0.0.0.0.
        http_address: where the HTTP API is; empty for none.  127.0.0.1:4151, where nsqd has
            0.0.0.0.
        https_address: the same with TLS; used where there is a certificate.  127.0.0.1:4152, where
            nsqd has 0.0.0.0.
        broadcast_address: the name under which clients are told to find it; the host's by default.
        broadcast_tcp_port: the port that they are told; 0 for the real one.
        broadcast_http_port: the same for HTTP; statsd is told it, too.
        nsqlookupd_tcp_addresses: kept and told; nothing registers there yet.
        data_path: a directory that keeps the messages; None has them in memory alone.
        mem_queue_size: so many ready messages of a channel are in memory where there is a data
            path, and the rest in its file; 0 is as 1.
        max_bytes_per_file: only told, as the next four: what they tune in nsqd is not here.
        sync_every: only told.
        sync_timeout: only told.
        queue_scan_worker_pool_max: only told.
        queue_scan_selection_count: only told.
        msg_timeout: until an unanswered message is delivered again.
        max_msg_timeout: the most that a client may ask for, and that touches make of it.
        max_msg_size: bytes of a message.
        max_body_size: bytes of an MPUB.
        max_req_timeout: the longest delay.
        max_heartbeat_interval: the longest that a client may ask for.
        max_rdy_count: the largest window.
        max_output_buffer_size: bytes; only negotiated, as messages are sent at once.
        min_output_buffer_timeout: only negotiated.
        max_output_buffer_timeout: only negotiated.
        output_buffer_timeout: only negotiated.
        max_channel_consumers: how many a channel takes, 0 for any number.
        max_connections: how many clients there may be at once on each address, 0 for any number.
            Not one of nsqd's, as the next four.
        max_connections_per_address: how many of one IP address, 0 for any number.
        handshake_timeout: how long a client may take for its first four bytes.
        own_user_only: whether a unix socket is only for this process's user, and the system's.
        stop_timeout: how long each part may take to end.
        e2e_processing_latency_percentiles: which to report, each above 0 and at most 1; kept with
            the largest first.
        e2e_processing_latency_window_time: over how long.
        tls_cert: the file of the certificate.
        tls_key: the file of its key.
        tls_root_ca_file: the file of the certificates against which clients are verified.
        tls_client_auth_policy: what is asked of clients: nothing, ``require`` or
            ``require-verify``.
        tls_required: ``true``, ``tcp-https`` or ``false``; a policy makes ``true`` of the last.
        tls_min_version: the least version; tls1.2, where nsqd has tls1.0.
        deflate: whether clients may use it.
        max_deflate_level: 1 to 9.
        snappy: whether clients may use it, if python-snappy is installed.
        auth_http_addresses: the auth servers.
        auth_http_request_method: ``get`` or ``post``.
        http_client_connect_timeout: of requests to them.
        http_client_request_timeout: of requests to them.
        statsd_address: where figures are sent, ``host:port``; empty for nowhere.
        statsd_prefix: what stands before their names; ``%s`` is the node's address.
        statsd_interval: how often.
        statsd_mem_stats: whether memory is told, too.
        statsd_udp_packet_size: bytes of a datagram.
        statsd_exclude_ephemeral: whether ephemeral topics and channels are left out.
        topology_region: where the node is; told to clients.
        topology_zone: where in its region.
        enable_experiment: only told: there are none.
        log_level: what is logged.
        log_prefix: what stands before each line.

    Raises:
        InvalidOption: one is out of its range, or two do not fit together.
    """

    id: int = attrs.field(factory=_own_id, validator=_within(0, NODES - 1))
    tcp_address: str = attrs.field(default="127.0.0.1:4150", validator=_given_text)
    http_address: str = attrs.field(default="127.0.0.1:4151", validator=_text)
    https_address: str = attrs.field(default="127.0.0.1:4152", validator=_text)
    broadcast_address: str = attrs.field(factory=socket.gethostname, validator=_text)
    broadcast_tcp_port: int = _count(0, 0, PORTS - 1)
    broadcast_http_port: int = _count(0, 0, PORTS - 1)
    nsqlookupd_tcp_addresses: tuple[str, ...] = attrs.field(
        default=(), converter=_as_texts, validator=_texts
    )
    data_path: str | None = attrs.field(
        default=None, converter=optional(_as_path), validator=_directory
    )
    mem_queue_size: int = _count(10000)
    max_bytes_per_file: int = _count(104857600)
    sync_every: int = _count(2500)
    sync_timeout: Seconds = _time(2.0)
    queue_scan_worker_pool_max: int = _count(4)
    queue_scan_selection_count: int = _count(20)
    msg_timeout: Seconds = _time(60.0, 0.001)
    max_msg_timeout: Seconds = _time(900.0, 0.001)
    max_msg_size: int = _count(1048576, 1, LARGEST)
    max_body_size: int = _count(5242880, 9, LARGEST)
    max_req_timeout: Seconds = _time(HOUR, 0, CENTURY)
    max_heartbeat_interval: Seconds = _time(60.0, 1)
    max_rdy_count: int = _count(2500, 1)
    max_output_buffer_size: int = _count(65536, 64)
    min_output_buffer_timeout: Seconds = _time(0.025)
    max_output_buffer_timeout: Seconds = _time(30.0)
    output_buffer_timeout: Seconds = _time(0.25)
    max_channel_consumers: int = _count(0)
    max_connections: int = _count(65536)
    max_connections_per_address: int = _count(0)
    handshake_timeout: Seconds = _time(5.0, 0.001)
    own_user_only: bool = _switch(False)
    stop_timeout: Seconds = _time(GRACE)
    e2e_processing_latency_percentiles: tuple[float, ...] = attrs.field(
        default=(), converter=_as_falling
    )
    e2e_processing_latency_window_time: Seconds = _time(600.0, 0.001)
    tls_cert: str = attrs.field(default="", converter=_as_path, validator=_text)
    tls_key: str = attrs.field(default="", converter=_as_path, validator=_text)
    tls_root_ca_file: str = attrs.field(default="", converter=_as_path, validator=_text)
    tls_client_auth_policy: str = _word("", POLICIES)
    tls_required: TLSRequired = _word("false", get_args(TLSRequired))
    tls_min_version: str = _word(MIN_VERSION, VERSIONS)
    deflate: bool = _switch(True)
    max_deflate_level: int = _count(6, 1, 9)
    snappy: bool = _switch(True)
    auth_http_addresses: tuple[str, ...] = attrs.field(
        default=(), converter=_as_texts, validator=_texts
    )
    auth_http_request_method: Literal["get", "post"] = _word("get", ("get", "post"))
    http_client_connect_timeout: Seconds = _time(2.0, 0.001)
    http_client_request_timeout: Seconds = _time(5.0, 0.001)
    statsd_address: str = attrs.field(default="", validator=_udp)
    statsd_prefix: str = attrs.field(default="nsq.%s", validator=_text)
    statsd_interval: Seconds = _time(60.0, 1)
    statsd_mem_stats: bool = _switch(True)
    statsd_udp_packet_size: int = _count(508, 1, 65507)
    statsd_exclude_ephemeral: bool = _switch(False)
    topology_region: str = attrs.field(default="", validator=_text)
    topology_zone: str = attrs.field(default="", validator=_text)
    enable_experiment: tuple[str, ...] = attrs.field(
        default=(), converter=_as_texts, validator=_texts
    )
    log_level: LogLevel = _word("info", get_args(LogLevel))
    log_prefix: str = attrs.field(default="[nsqd] ", validator=_text)

    def __attrs_post_init__(self) -> None:
        """Check what must fit together."""
        make_options(OF_BROKER, **self.for_broker())
        if bool(self.tls_cert) != bool(self.tls_key):
            missing, given = ("tls_key", "tls_cert") if self.tls_cert else ("tls_cert", "tls_key")
            raise InvalidOption(missing, "", f"given, as {given} is")
        for name, without in (("tls_client_auth_policy", ""), ("tls_required", "false")):
            value = getattr(self, name)
            if value != without and not self.tls_cert:
                expected = f"{without!r} where there is no tls_cert and tls_key"
                raise InvalidOption(name, value, expected)
        if self.tls_client_auth_policy and self.tls_required == "false":
            object.__setattr__(self, "tls_required", "true")  # as in nsqd

    def requires_tls(self) -> bool:
        """Say whether clients must have TLS, as they must where certificates are asked of them."""
        return self.tls_required != "false"

    def for_broker(self) -> TopicOptions:
        """Return those that are the broker's."""
        return {
            "node_id": self.id,
            "msg_timeout": self.msg_timeout,
            "max_msg_timeout": self.max_msg_timeout,
            "max_req_timeout": self.max_req_timeout,
            "max_msg_size": self.max_msg_size,
            "max_channel_consumers": self.max_channel_consumers,
            "e2e_processing_latency_percentiles": self.e2e_processing_latency_percentiles,
            "e2e_processing_latency_window_time": self.e2e_processing_latency_window_time,
        }
