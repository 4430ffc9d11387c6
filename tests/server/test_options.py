"""nsqd's options: defaults, ranges, what must fit together, and the broker's among them."""

import re
import socket
from datetime import timedelta
from pathlib import Path
from typing import Any

import attrs
import pytest

from nsqlite import Broker, InvalidOption
from nsqlite.server.options import NSQDOptions, default_id

NSQ: dict[str, Any] = {
    "broadcast_tcp_port": 0,
    "broadcast_http_port": 0,
    "nsqlookupd_tcp_addresses": (),
    "mem_queue_size": 10000,
    "max_bytes_per_file": 104857600,
    "sync_every": 2500,
    "sync_timeout": 2,
    "queue_scan_worker_pool_max": 4,
    "queue_scan_selection_count": 20,
    "msg_timeout": 60,
    "max_msg_timeout": 900,
    "max_msg_size": 1048576,
    "max_body_size": 5242880,
    "max_req_timeout": 3600,
    "max_heartbeat_interval": 60,
    "max_rdy_count": 2500,
    "max_output_buffer_size": 65536,
    "min_output_buffer_timeout": 0.025,
    "max_output_buffer_timeout": 30,
    "output_buffer_timeout": 0.25,
    "max_channel_consumers": 0,
    "e2e_processing_latency_percentiles": (),
    "e2e_processing_latency_window_time": 600,
    "tls_cert": "",
    "tls_key": "",
    "tls_root_ca_file": "",
    "tls_client_auth_policy": "",
    "tls_required": "false",
    "deflate": True,
    "max_deflate_level": 6,
    "snappy": True,
    "auth_http_addresses": (),
    "auth_http_request_method": "get",
    "http_client_connect_timeout": 2,
    "http_client_request_timeout": 5,
    "statsd_address": "",
    "statsd_prefix": "nsq.%s",
    "statsd_interval": 60,
    "statsd_mem_stats": True,
    "statsd_udp_packet_size": 508,
    "statsd_exclude_ephemeral": False,
    "topology_region": "",
    "topology_zone": "",
    "enable_experiment": (),
    "log_level": "info",
    "log_prefix": "[nsqd] ",
}
"""nsqd's own defaults."""

OURS: dict[str, Any] = {
    "id": default_id(socket.gethostname()),
    "broadcast_address": socket.gethostname(),
    "tcp_address": "127.0.0.1:4150",
    "http_address": "127.0.0.1:4151",
    "https_address": "127.0.0.1:4152",
    "data_path": None,
    "tls_min_version": "tls1.2",
    "max_connections": 65536,
    "max_connections_per_address": 0,
    "handshake_timeout": 5.0,
    "own_user_only": False,
    "stop_timeout": 5,
}
"""Defaults that are the machine's, or differ from nsqd's, or that nsqd does not have."""

FILES: Any = {"tls_cert": "node.crt", "tls_key": "node.key"}

TEXTS = "a list of texts, none of them empty"
NUMBERS = "a tuple of numbers, each above 0 and at most 1"
NO_TLS = "where there is no tls_cert and tls_key"
UDP = "host:port, or '' for nowhere"
TIME = "a finite number of seconds, at least"


def refusal(**given: Any) -> str:
    with pytest.raises(InvalidOption) as info:
        NSQDOptions(**given)
    return str(info.value)


def test_the_defaults() -> None:
    """They are nsqd's, but for a few."""
    assert NSQ | OURS == attrs.asdict(NSQDOptions())


def test_the_docstring_names_every_option() -> None:
    """Each option stands in the docstring, in the order of the fields."""
    listed = re.findall(r"^ {4,8}([a-z]\w+): ", NSQDOptions.__doc__ or "", re.MULTILINE)
    assert [field.name for field in attrs.fields(NSQDOptions)] == listed


@pytest.mark.parametrize(
    ("host", "expected"), [("", 812), ("nsqd-1", 958), ("caf\udce9", 194), ("localhost", 16)]
)
def test_a_node_has_an_id_by_its_name(host: str, expected: int) -> None:
    """It is nsqd's for a machine of the same name."""
    assert expected == default_id(host)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"id": 1024}, "id must be a whole number from 0 to 1023, not 1024"),
        ({"id": -1}, "id must be a whole number from 0 to 1023, not -1"),
        ({"id": "7"}, "id must be a whole number from 0 to 1023, not '7'"),
        ({"id": True}, "id must be a whole number from 0 to 1023, not True"),
        ({"tcp_address": ""}, "tcp_address must be a text that is not empty, not ''"),
        ({"tcp_address": 4150}, "tcp_address must be a text that is not empty, not 4150"),
        ({"http_address": None}, "http_address must be a text, not None"),
        ({"log_prefix": b""}, "log_prefix must be a text, not b''"),
        ({"data_path": ""}, "data_path must be the path of a directory, or None, not ''"),
        ({"data_path": 5}, "data_path must be the path of a directory, or None, not 5"),
        ({"tls_cert": 1}, "tls_cert must be a text, not 1"),
        ({"deflate": 1}, "deflate must be True or False, not 1"),
        ({"snappy": "false"}, "snappy must be True or False, not 'false'"),
        ({"max_deflate_level": 0}, "max_deflate_level must be a whole number from 1 to 9, not 0"),
        ({"max_deflate_level": 10}, "max_deflate_level must be a whole number from 1 to 9, not 10"),
        ({"max_rdy_count": 0}, "max_rdy_count must be a whole number of at least 1, not 0"),
        ({"max_msg_size": 1 << 31}, "max_msg_size must be a whole number from 1 to 2147483647"),
        ({"max_body_size": 8}, "max_body_size must be a whole number from 9 to 2147483647, not 8"),
        ({"max_output_buffer_size": 63}, "max_output_buffer_size must be a whole number of at lea"),
        ({"broadcast_tcp_port": 65536}, "broadcast_tcp_port must be a whole number from 0 to 655"),
        ({"statsd_udp_packet_size": 0}, "statsd_udp_packet_size must be a whole number from 1 to"),
        ({"mem_queue_size": -1}, "mem_queue_size must be a whole number of at least 0, not -1"),
        ({"auth_http_addresses": "a:1"}, f"auth_http_addresses must be {TEXTS}, not 'a:1'"),
        ({"auth_http_addresses": 5}, f"auth_http_addresses must be {TEXTS}, not 5"),
        ({"nsqlookupd_tcp_addresses": [""]}, f"nsqlookupd_tcp_addresses must be {TEXTS}, not ('"),
        ({"enable_experiment": [7]}, f"enable_experiment must be {TEXTS}, not (7,)"),
        (
            {"e2e_processing_latency_percentiles": "0.5"},
            f"e2e_processing_latency_percentiles must be {NUMBERS}, not '0.5'",
        ),
        (
            {"e2e_processing_latency_percentiles": [0.5, "x"]},
            f"e2e_processing_latency_percentiles must be {NUMBERS}, not (0.5, 'x')",
        ),
        (
            {"e2e_processing_latency_percentiles": (0.5, 1.5)},
            f"e2e_processing_latency_percentiles must be {NUMBERS}, not (1.5, 0.5)",
        ),
        (
            {"e2e_processing_latency_percentiles": [0]},
            f"e2e_processing_latency_percentiles must be {NUMBERS}, not (0,)",
        ),
        (
            {"e2e_processing_latency_percentiles": [float("nan")]},
            f"e2e_processing_latency_percentiles must be {NUMBERS}, not (nan,)",
        ),
        ({"msg_timeout": 0}, f"msg_timeout must be {TIME} 0.001"),
        ({"msg_timeout": True}, f"msg_timeout must be {TIME} 0.001"),
        ({"msg_timeout": "60s"}, f"msg_timeout must be {TIME} 0.001"),
        ({"max_req_timeout": -1}, f"max_req_timeout must be {TIME} 0"),
        ({"max_req_timeout": float("nan")}, f"max_req_timeout must be {TIME} 0"),
        ({"max_req_timeout": 4e9}, f"max_req_timeout must be {TIME} 0 and at most 3155760000"),
        ({"max_heartbeat_interval": 0.5}, f"max_heartbeat_interval must be {TIME} 1"),
        ({"statsd_interval": 0.1}, f"statsd_interval must be {TIME} 1"),
        ({"sync_timeout": 1e300}, f"sync_timeout must be {TIME} 0"),
        ({"msg_timeout": 1000}, "msg_timeout must be a finite number of seconds, above 0 and at "),
        ({"max_msg_timeout": 59}, "msg_timeout must be a finite number of seconds, above 0 and a"),
        ({"tls_client_auth_policy": "ask"}, "tls_client_auth_policy must be one of '', 'require',"),
        ({"tls_required": "yes"}, "tls_required must be one of 'false', 'true', 'tcp-https', not"),
        ({"tls_required": True}, "tls_required must be one of 'false', 'true', 'tcp-https', not"),
        ({"tls_min_version": []}, "tls_min_version must be one of 'ssl3.0', 'tls1.0', 'tls1.1', "),
        ({"auth_http_request_method": "put"}, "auth_http_request_method must be one of 'get', 'p"),
        ({"log_level": 7}, "log_level must be one of 'debug', 'info', 'warn', 'error', 'fatal'"),
        ({"tls_required": "true"}, f"tls_required must be 'false' {NO_TLS}, not 'true'"),
        ({"tls_required": "tcp-https"}, f"tls_required must be 'false' {NO_TLS}, not 'tcp-http"),
        (
            {"tls_client_auth_policy": "require"},
            f"tls_client_auth_policy must be '' {NO_TLS}, not 'require'",
        ),
        ({"tls_cert": "node.crt"}, "tls_key must be given, as tls_cert is, not ''"),
        ({"tls_key": "node.key"}, "tls_cert must be given, as tls_key is, not ''"),
        ({"statsd_address": "statsd"}, f"statsd_address must be {UDP}, not 'statsd'"),
        ({"statsd_address": "statsd:"}, f"statsd_address must be {UDP}, not 'statsd:'"),
        ({"statsd_address": ":8125"}, f"statsd_address must be {UDP}, not ':8125'"),
        ({"statsd_address": "statsd:0"}, f"statsd_address must be {UDP}, not 'statsd:0'"),
        ({"statsd_address": "statsd:65536"}, f"statsd_address must be {UDP}, not 'statsd:65536'"),
        ({"statsd_address": "statsd:udp"}, f"statsd_address must be {UDP}, not 'statsd:udp'"),
        ({"statsd_address": None}, f"statsd_address must be {UDP}, not None"),
    ],
)
def test_what_is_out_of_its_range(given: dict[str, Any], expected: str) -> None:
    """The error names the option, what it takes, and what was given."""
    assert refusal(**given).startswith(expected)


@pytest.mark.parametrize(
    "given",
    [
        {"id": 0},
        {"id": 1023},
        {"http_address": "", "https_address": ""},
        {"tcp_address": "/run/nsqd.sock"},
        {"msg_timeout": 0.001},
        {"msg_timeout": 900},
        {"max_deflate_level": 1},
        {"max_deflate_level": 9},
        {"max_req_timeout": 0},
        {"statsd_address": "[::1]:65535"},
        {"tls_required": "tcp-https"} | FILES,
        {"tls_min_version": "tls1.3"},
    ],
)
def test_what_is_in_its_range(given: dict[str, Any]) -> None:
    """The ends of a range belong to it."""
    kept = attrs.asdict(NSQDOptions(**given))
    assert given == {name: kept[name] for name in given}


def test_what_is_kept() -> None:
    """Spans are kept as seconds, lists as tuples, paths as texts, percentiles from the largest."""
    options = NSQDOptions(
        msg_timeout=timedelta(minutes=1),
        auth_http_addresses=["a:1"],
        e2e_processing_latency_percentiles=[0.5, 1, 0.9],
        data_path=Path("data"),
        tls_cert=Path("node.crt"),
        tls_key="node.key",
    )
    assert (60.0, ("a:1",), (1, 0.9, 0.5), "data", "node.crt") == (
        options.msg_timeout,
        options.auth_http_addresses,
        options.e2e_processing_latency_percentiles,
        options.data_path,
        options.tls_cert,
    )
    assert options == attrs.evolve(options)


@pytest.mark.parametrize(
    ("policy", "required", "expected"),
    [
        ("", "false", "false"),
        ("require", "false", "true"),
        ("require-verify", "tcp-https", "tcp-https"),
    ],
)
def test_a_policy_for_clients_requires_tls(policy: str, required: Any, expected: str) -> None:
    """To ask for certificates is to require TLS, unless it is said for what."""
    options = NSQDOptions(tls_client_auth_policy=policy, tls_required=required, **FILES)
    assert (expected, expected != "false") == (options.tls_required, options.requires_tls())


def test_the_brokers_options() -> None:
    """A broker takes them, and has the node's id."""
    options = NSQDOptions(
        id=7,
        max_msg_size=100,
        msg_timeout=timedelta(seconds=5),
        max_req_timeout=7,
        e2e_processing_latency_percentiles=(0.5,),
    )
    with Broker(**options.for_broker()) as broker:
        made = broker.options
    assert (7, 100, 5.0, 7, (0.5,)) == (
        made.node_id,
        made.max_msg_size,
        made.msg_timeout,
        made.max_req_timeout,
        made.e2e_processing_latency_percentiles,
    )
