"""`nsqlite nsqd`: its flags, configuration and log, and how its process ends."""

import json
import logging
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import attrs
import pytest
from helpers import PATIENCE, Call, bodies
from server.nsqdprocess import Client, Process

import nsqlite
from nsqlite.__main__ import main
from nsqlite.cli.nsqd import (
    DEFAULTS,
    FLAGS,
    IDLE,
    LOGGERS,
    MAX_MSG_TIMEOUT,
    MSG_TIMEOUT,
    NSQFormatter,
    help_lines,
    run_nsqd,
)
from nsqlite.server.nsqd import FILE, NSQD
from nsqlite.server.options import NSQDOptions
from nsqlite.wire.commands import Dpub, Identify, Pub, Rdy, Sub
from nsqlite.wire.frames import MESSAGE, Delivered, delivered

NSQD_FLAGS = """
node-id tcp-address http-address https-address broadcast-address broadcast-tcp-port
broadcast-http-port lookupd-tcp-address data-path mem-queue-size max-bytes-per-file sync-every
sync-timeout msg-timeout max-msg-timeout max-msg-size max-body-size max-req-timeout
max-heartbeat-interval max-rdy-count max-output-buffer-size max-output-buffer-timeout
min-output-buffer-timeout output-buffer-timeout max-channel-consumers queue-scan-worker-pool-max
queue-scan-selection-count e2e-processing-latency-percentile e2e-processing-latency-window-time
tls-cert tls-key tls-root-ca-file tls-client-auth-policy tls-required tls-min-version deflate
max-deflate-level snappy auth-http-address auth-http-request-method http-client-connect-timeout
http-client-request-timeout statsd-address statsd-prefix statsd-interval statsd-mem-stats
statsd-udp-packet-size statsd-exclude-ephemeral topology-region topology-zone enable-experiment
log-level log-prefix verbose worker-id config version
"""
"""The flags of nsqd 1.3 (NSQ semantics §20)."""

LINE = re.compile(
    r"\[nsqd\] \d{4}/\d\d/\d\d \d\d:\d\d:\d\d\.\d{6} (DEBUG|INFO|WARNING|ERROR|FATAL): (.*)"
)

USAGE = "Usage: nsqlite nsqd [flags]; try --help\n"

ONE_TCP = ("--tcp-address=127.0.0.1:0", "--http-address=")

needs_fork = pytest.mark.skipif(sys.platform == "win32", reason="signals are Unix's")


log = logging.getLogger("nsqlite")


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    """Check that the loggers of the process are afterwards what they were before."""

    def found() -> list[object]:
        loggers = map(logging.getLogger, LOGGERS)
        return [(one.handlers[:], one.propagate, one.level) for one in loggers]

    before = found()
    yield
    assert before == found()


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[NSQD]:
    """Have an nsqd only be made, and return those that were."""
    found: list[NSQD] = []

    async def run(node: NSQD) -> None:
        found.append(node)

    monkeypatch.setattr(NSQD, "run", run)
    return found


def chosen(ran: list[NSQD], *flags: str) -> dict[str, Any]:
    """Return the options that differ from the defaults with these flags."""
    assert run_nsqd(flags) == 0
    defaults = attrs.asdict(NSQDOptions())
    made = attrs.asdict(ran.pop().options)
    return {name: value for name, value in made.items() if value != defaults[name]}


def configured(path: Path, text: str) -> str:
    """Write a configuration's file, and return the flag for it."""
    (path / "nsqd.toml").write_text(text, "utf-8")
    return f"--config={path / 'nsqd.toml'}"


def told(capsys: pytest.CaptureFixture[str]) -> list[tuple[str, str]]:
    """Return levels and texts of the log."""
    found = []
    for line in capsys.readouterr().err.splitlines():
        match = LINE.fullmatch(line)
        assert match, line
        found.append((match[1], match[2]))
    return found


def fatal(capsys: pytest.CaptureFixture[str], *flags: str) -> str:
    """Return the last line of the log of an nsqd that cannot start."""
    assert run_nsqd(flags) == 1
    lines = told(capsys)
    assert ["FATAL"] == [level for level, _ in lines if level == "FATAL"]
    level, text = lines[-1]
    assert level == "FATAL"
    return text


# Flags


def test_every_flag_of_nsqd_is_there() -> None:
    """Those of its own besides are few, and every option has one."""
    ours = {"help", "max-connections", "max-connections-per-address", "stop-timeout"}
    ours |= {"handshake-timeout", "own-user-only"}
    assert set(NSQD_FLAGS.split()) | ours == set(FLAGS)
    options = {field.name for field in attrs.fields(NSQDOptions)}
    assert options == {flag.sets for flag in FLAGS.values() if flag.sets}


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("", {}),
        ("-node-id 7", {"id": 7}),
        ("--data-path=/data", {"data_path": "/data"}),
        ("--data-path=/data --data-path=", {}),
        ("-tcp-address /run/t --http-address=", {"tcp_address": "/run/t", "http_address": ""}),
        ("--msg-timeout 1m30s --max-req-timeout=2h", {"msg_timeout": 90, "max_req_timeout": 7200}),
        ("--deflate=false --snappy=0", {"deflate": False, "snappy": False}),
        ("--deflate", {}),
        ("--log-level=WARN --log-prefix=", {"log_level": "warn", "log_prefix": ""}),
        ("--tls-min-version=TLS1.3", {"tls_min_version": "tls1.3"}),
        ("--tls-min-version=", {}),
        ("--auth-http-request-method=POST", {"auth_http_request_method": "post"}),
        (
            "--auth-http-address=a:1 --auth-http-address b:2,c:3",
            {"auth_http_addresses": ("a:1", "b:2", "c:3")},
        ),
        (
            "--e2e-processing-latency-percentile=0.5,1.0 --e2e-processing-latency-percentile=.9",
            {"e2e_processing_latency_percentiles": (1.0, 0.9, 0.5)},
        ),
        ("--lookupd-tcp-address=a:1,", {"nsqlookupd_tcp_addresses": ("a:1",)}),
        ("--mem-queue-size=0 --sync-every=1", {"mem_queue_size": 0, "sync_every": 1}),
        ("--worker-id --verbose", {}),
        ("--max-rdy-count=0x10", {"max_rdy_count": 16}),
    ],
)
def test_flags_set_options(line: str, expected: dict[str, Any], ran: list[NSQD]) -> None:
    """Each sets the option of its name, but for a few."""
    assert expected == chosen(ran, *line.split())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        *(("", "true"), ("=true", "true"), ("=T", "true"), ("=1", "true"), ("=0", "false")),
        *(("=false", "false"), ("=TCP-https", "tcp-https")),
    ],
)
def test_tls_can_be_required(text: str, expected: str, ran: list[NSQD]) -> None:
    """As in nsqd the flag is a switch with a third position."""
    found = chosen(ran, "--tls-cert=c", "--tls-key=k", f"--tls-required{text}")
    assert expected == found.get("tls_required", "false")


def test_a_longer_time_in_flight(ran: list[NSQD], capsys: pytest.CaptureFixture[str]) -> None:
    """As in nsqd it needs no longer one for touches; it is said that there is one, though."""
    assert NSQDOptions().max_msg_timeout == MAX_MSG_TIMEOUT
    assert {"msg_timeout": 1200, "max_msg_timeout": 1200} == chosen(ran, "--msg-timeout=20m")
    notes = [text for level, text in told(capsys) if level == "WARNING"]
    assert "--max-msg-timeout is that of --msg-timeout, which is longer than 15m0s" in notes
    assert {"msg_timeout": 900} == chosen(ran, "--msg-timeout=15m")


def test_a_shorter_limit(ran: list[NSQD], capsys: pytest.CaptureFixture[str]) -> None:
    """As in nsqd a message needs no shorter time in flight; it is said that it has one, though."""
    assert NSQDOptions().msg_timeout == MSG_TIMEOUT
    assert {"msg_timeout": 1, "max_msg_timeout": 1} == chosen(ran, "--max-msg-timeout=1s")
    notes = [text for level, text in told(capsys) if level == "WARNING"]
    assert "--msg-timeout is that of --max-msg-timeout, which is shorter than 1m0s" in notes
    assert {"max_msg_timeout": 60} == chosen(ran, "--max-msg-timeout=1m")
    assert "--max-msg-timeout must be " in fatal(capsys, "--max-msg-timeout=0s")


def test_an_empty_text_can_be_the_default() -> None:
    """What stands for it is what it is."""
    assert DEFAULTS == {name: getattr(NSQDOptions(), name) for name in DEFAULTS}


def test_idle_flags_are_told_once(ran: list[NSQD], capsys: pytest.CaptureFixture[str]) -> None:
    """What has no effect here is accepted, and said."""
    flags = [f"--{name}=1s" if "timeout" in name else f"--{name}=1" for name in IDLE]
    assert run_nsqd([*flags, *flags, "--data-path=/data"]) == 0
    notes = [text for level, text in told(capsys) if level == "WARNING"]
    assert [f"--{name} has no effect here: {FLAGS[name].help}" for name in IDLE] == notes
    assert len(ran) == 1


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (
            "--tpc-address=:1",
            "flag provided but not defined: -tpc-address (did you mean 'tcp-addre",
        ),
        ("--node-id", "flag needs an argument: -node-id"),
        ("--node-id=x", 'invalid value "x" for flag -node-id: parse error'),
        ("--msg-timeout=60", 'invalid value "60" for flag -msg-timeout: parse error'),
        ("--snappy false", "unexpected argument: false (did you mean -snappy=false?)"),
        ("serve", "unexpected argument: serve"),
    ],
)
def test_a_wrong_command_line(line: str, expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    """It gets Go's text, a hint, and status 2, as nsqd's does."""
    assert run_nsqd(line.split()) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(expected)
    assert err.endswith(f"\n{USAGE}")
    assert err.count("\n") == 2


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("--node-id=1024", "--node-id must be a whole number from 0 to 1023, not 1024"),
        (
            "--max-deflate-level=10",
            "--max-deflate-level must be a whole number from 1 to 9, not 10",
        ),
        ("--tcp-address=", "--tcp-address must be a text that is not empty, not ''"),
        ("--log-level=loud", "--log-level must be one of 'debug', 'info', 'warn', 'error', 'fata"),
        ("--tls-required=maybe", "--tls-required must be one of 'false', 'true', 'tcp-https', not"),
        ("--tls-required=", "--tls-required must be one of 'false', 'true', 'tcp-https', not ''"),
        ("--tls-required", "--tls-required must be 'false' where there is no tls_cert and tls_key"),
        (
            "--e2e-processing-latency-percentile=0.5,x",
            "--e2e-processing-latency-percentile must be a number above 0 and at most 1, not 'x'",
        ),
        (
            "--e2e-processing-latency-percentile=2",
            "--e2e-processing-latency-percentile must be a tuple of numbers, each above 0 and at",
        ),
        ("--auth-http-address=", "--auth-http-address must be a list of texts, none of them empty"),
        ("--e2e-processing-latency-percentile=", "--e2e-processing-latency-percentile must be a "),
        ("--tls-cert=/c --tls-key=/k", "failed to build TLS config - open /c: no such file or di"),
    ],
)
def test_a_wrong_option(line: str, expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    """It gets one line, which calls it by its flag, and status 1."""
    assert fatal(capsys, *line.split()).startswith(expected)


def test_an_error_of_what_is_no_flag(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is told as it is."""

    async def run(_: NSQD) -> None:
        raise nsqlite.InvalidOption("path", "x", "short")

    monkeypatch.setattr(NSQD, "run", run)
    assert fatal(capsys) == "path must be short, not 'x'"


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    """It lists every flag in 100 columns, and comes before whatever else is wrong."""
    for flags in (["--help"], ["-h"], ["-snappy", "--h", "--nothing"]):
        assert main(["nsqd", *flags]) == 0
        out, err = capsys.readouterr()
        assert ("\n".join(help_lines()) + "\n", "") == (out, err)
    assert max(map(len, out.splitlines())) <= 100
    assert list(FLAGS) == re.findall(r"^  --([a-z0-9-]+)", out, re.MULTILINE)


def test_the_help_tells_the_defaults() -> None:
    """What stands in brackets is the option's default, where it is a number or switch."""
    defaults = NSQDOptions()
    for flag in FLAGS.values():
        shown = re.search(r"\((\d+|true|false)\)$", flag.help)
        if shown:
            assert shown[1] == str(getattr(defaults, flag.sets)).lower(), flag.name


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    """It has nsqd's form, and nothing is started."""
    assert main(["nsqd", "--version", "--node-id=5000"]) == 0
    found = capsys.readouterr().out
    assert re.fullmatch(
        rf"nsqd v1\.3\.0 \(nsqlite {nsqlite.__version__}, built w/\w+ [\d.]+\)\n", found
    )


# The configuration's file


def test_flags_hold_over_the_file_and_that_over_the_defaults(
    tmp_path: Path, ran: list[NSQD]
) -> None:
    """Each is looked for in this order, lists as a whole."""
    config = configured(
        tmp_path,
        'data_path = "/data"\nid = 5\nmax_rdy_count = 3\nauth_http_addresses = ["a:1", "b:1"]\n',
    )
    expected = {"data_path": "/data", "id": 5, "max_rdy_count": 3}
    found = chosen(ran, config)
    assert expected | {"auth_http_addresses": ("a:1", "b:1")} == found
    found = chosen(ran, config, "--node-id=6", "--auth-http-address=c:1", "--data-path=")
    assert {"id": 6, "max_rdy_count": 3, "auth_http_addresses": ("c:1",)} == found


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('msg_timeout = "1m30s"', {"msg_timeout": 90}),
        ("msg_timeout = 1500", {"msg_timeout": 1.5}),
        ('max_rdy_count = "17"', {"max_rdy_count": 17}),
        ('snappy = "false"', {"snappy": False}),
        ("snappy = false", {"snappy": False}),
        ('http_address = ""', {"http_address": ""}),
        ('log_level = "ERROR"', {"log_level": "error"}),
        ('tls_min_version = ""', {}),
        ("tls_required = false", {}),
        (
            'tls_cert = "c"\ntls_key = "k"\ntls_required = true',
            {"tls_cert": "c", "tls_key": "k", "tls_required": "true"},
        ),
        (
            'tls_cert = "c"\ntls_key = "k"\ntls_required = "tcp-https"',
            {"tls_cert": "c", "tls_key": "k", "tls_required": "tcp-https"},
        ),
        ('auth_http_addresses = "a:1,b:2"', {"auth_http_addresses": ("a:1", "b:2")}),
        ("auth_http_addresses = []", {}),
        ('nsqlookupd_tcp_addresses = ["a:1"]', {"nsqlookupd_tcp_addresses": ("a:1",)}),
        (
            "e2e_processing_latency_percentiles = [0.5, 1]",
            {"e2e_processing_latency_percentiles": (1, 0.5)},
        ),
        (
            'e2e_processing_latency_percentiles = "0.5, 0.9"',
            {"e2e_processing_latency_percentiles": (0.9, 0.5)},
        ),
        ("verbose = true", {}),
    ],
)
def test_keys_of_the_file(
    text: str, expected: dict[str, Any], tmp_path: Path, ran: list[NSQD]
) -> None:
    """They are nsqd's, and so is what they can have."""
    assert expected == chosen(ran, configured(tmp_path, text))


def test_no_file() -> None:
    """An empty path is no path, as in nsqd."""
    assert main(["nsqd", "--config=", "--version"]) == 0


def test_an_empty_path_is_no_file(ran: list[NSQD]) -> None:
    """As in nsqd."""
    assert {} == chosen(ran, "--config=")


DURATION = 'a duration, as "1m30s", or whole milliseconds'

TYPES = {
    "id = true": "id must be a whole number, not True",
    "id = 1.5": "id must be a whole number, not 1.5",
    'id = "x"': "id must be a whole number, not 'x'",
    "tcp_address = 4150": "tcp_address must be a string, not 4150",
    "tcp_address = true": "tcp_address must be a string, not True",
    "deflate = 1": "deflate must be true or false, not 1",
    'deflate = "yes"': "deflate must be true or false, not 'yes'",
    "msg_timeout = 1.5": f"msg_timeout must be {DURATION}, not 1.5",
    'msg_timeout = "60"': f"msg_timeout must be {DURATION}, not '60'",
    "tls_required = 1": 'tls_required must be true, false or "tcp-https", not 1',
    "auth_http_addresses = [1]": "auth_http_addresses must be a list of strings, not [1]",
    "auth_http_addresses = 1": "auth_http_addresses must be a list of strings, not 1",
    'e2e_processing_latency_percentiles = ["0.5"]': (
        "e2e_processing_latency_percentiles must be a list of numbers, not ['0.5']"
    ),
    'e2e_processing_latency_percentiles = "x"': (
        "e2e_processing_latency_percentiles must be a list of numbers, not 'x'"
    ),
    "id = 5\nid = 6": "Cannot overwrite a value",
    "id": "Expected '=' after a key",
}


@pytest.mark.parametrize("text", TYPES)
def test_a_wrong_file(text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It gets one line, with its path and the key."""
    start = f"failed to load config file {tmp_path / 'nsqd.toml'} - {TYPES[text]}"
    assert fatal(capsys, configured(tmp_path, text)).startswith(start)


def test_a_file_that_cannot_be_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It says why."""
    start = "failed to load config file"
    path = tmp_path / "nsqd.toml"
    assert f"{start} {path} - No such file or directory" == fatal(capsys, f"--config={path}")
    assert f"{start} {tmp_path} - Is a directory" == fatal(capsys, f"--config={tmp_path}")
    path.write_bytes(b'log_prefix = "\xff"')
    assert fatal(capsys, f"--config={path}").startswith(f"{start} {path} - 'utf-8' codec can't")
    assert fatal(capsys, configured(tmp_path, "a = " + "[" * 100_000)).startswith(f"{start} {path}")


def test_what_the_file_has_besides(
    tmp_path: Path, ran: list[NSQD], capsys: pytest.CaptureFixture[str]
) -> None:
    """A key that nobody knows, or that has no effect here, is said."""
    text = 'data_path = "/data"\nmax_rdy = 5\nsync_every = 9\nnode-id = 3\nconfig = ""\n[more]\n'
    path = configured(tmp_path, text).partition("=")[2]
    assert {"data_path": "/data", "sync_every": 9} == chosen(ran, f"--config={path}")
    assert [
        f"{path}: unknown option 'max_rdy' (did you mean 'max_rdy_count'?)",
        f"{path}: sync_every has no effect here: each message is written before it is answered",
        f"{path}: unknown option 'node-id'",
        f"{path}: unknown option 'config'",
        f"{path}: unknown option 'more'",
    ] == [text for level, text in told(capsys) if level == "WARNING"]


# What cannot start


def test_no_data_path(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It cannot be locked, where it is none."""
    nothing, file = tmp_path / "nothing", tmp_path / "file"
    file.touch()
    start = "failed to lock data-path:"
    expected = f"{start} {nothing}: there is no such directory"
    assert expected == fatal(capsys, *ONE_TCP, f"--data-path={nothing}")
    assert f"{start} {file}: it is no directory" == fatal(capsys, f"--data-path={file}")


def test_a_data_path_that_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nor where it is not ours to write."""
    monkeypatch.setattr("os.access", lambda *_: False)
    found = fatal(capsys, *ONE_TCP, f"--data-path={tmp_path}")
    assert f"failed to lock data-path: {tmp_path}: permission denied" == found


def test_a_data_path_in_use(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nor where another has it."""
    with nsqlite.Broker(store=nsqlite.SQLite(tmp_path / FILE)):
        found = fatal(capsys, *ONE_TCP, f"--data-path={tmp_path}")
    where = tmp_path / FILE
    assert found.startswith(f"failed to lock data-path: store {where}: it is in use by ")


def test_a_file_that_is_damaged_is_no_problem_of_locks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is told as what it is."""
    (tmp_path / FILE).write_bytes(b"no database" * 1000)
    found = fatal(capsys, *ONE_TCP, f"--data-path={tmp_path}")
    assert found.startswith(f"failed to load metadata - store {tmp_path / FILE}: ")


def test_a_port_in_use(capsys: pytest.CaptureFixture[str]) -> None:
    """It says which address."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        expected = f"listen ({address}) failed - address already in use"
        assert expected == fatal(capsys, f"--tcp-address={address}")
        assert expected == fatal(capsys, ONE_TCP[0], f"--http-address={address}")


def test_without_aiohttp(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line says what to install, and what does without it."""
    monkeypatch.setitem(sys.modules, "aiohttp", None)
    for name in ("nsqlite.server.http", "nsqlite.server.web"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    text = (
        'the HTTP API (http_address="" is none) needs aiohttp, which is not installed:'
        " pip install 'nsqlite[server]'"
    )
    assert text == fatal(capsys, ONE_TCP[0])


# The log


def test_the_log_at_the_start(ran: list[NSQD], capsys: pytest.CaptureFixture[str]) -> None:
    """It begins with version and id, and says where messages are in memory alone."""
    assert run_nsqd(["--node-id=7"]) == 0
    (_, version), *rest = told(capsys)
    assert version.startswith("nsqd v1.3.0 (nsqlite ")
    assert [
        ("INFO", "ID: 7"),
        ("WARNING", "without --data-path all is in memory, and ends with this process"),
        ("INFO", "NSQ: bye"),
    ] == rest
    assert run_nsqd(["--data-path=/data"]) == 0
    assert {"INFO"} == {level for level, _ in told(capsys)}
    assert len(ran) == 2


def test_an_address_that_is_a_path_by_accident(
    ran: list[NSQD], capsys: pytest.CaptureFixture[str]
) -> None:
    """As in nsqd it is the path of a socket; it is said, unless it looks like one."""
    flags = ["--tcp-address=4150", "--http-address=", "--https-address=/run/h", "--data-path=/d"]
    assert run_nsqd(flags) == 0
    text = "--tcp-address: '4150' is the path of a unix socket, as it has no port: <addr>:<port>"
    assert [("WARNING", text)] == [line for line in told(capsys) if line[0] == "WARNING"]
    assert len(ran) == 1


@pytest.mark.parametrize(
    ("level", "expected"),
    [
        ("debug", ["DEBUG", "INFO", "WARNING", "ERROR", "FATAL"]),
        ("info", ["INFO", "WARNING", "ERROR", "FATAL"]),
        ("warn", ["WARNING", "ERROR", "FATAL"]),
        ("error", ["ERROR", "FATAL"]),
        ("fatal", ["FATAL"]),
    ],
)
def test_levels(
    level: str,
    expected: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """They are nsqd's."""

    async def run(_node: NSQD) -> None:
        for number in (10, 20, 30, 40, 50):
            log.log(number, "tea")

    monkeypatch.setattr(NSQD, "run", run)
    assert run_nsqd([f"--log-level={level}"]) == 0
    assert [(one, "tea") for one in expected] == [one for one in told(capsys) if one[1] == "tea"]


def test_what_lies_beneath_has_the_same_form(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What asyncio complains of is a line like the others."""

    async def run(_node: NSQD) -> None:
        logging.getLogger("asyncio").error("tea")

    monkeypatch.setattr(NSQD, "run", run)
    assert run_nsqd(ONE_TCP) == 0
    assert ("ERROR", "tea") in told(capsys)


def test_a_closed_stderr(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is no stderr nothing is written, and the status is the same."""
    monkeypatch.setattr(sys, "stderr", None)
    assert 1 == run_nsqd(["--node-id=-1"])


def test_a_prefix(ran: list[NSQD], capsys: pytest.CaptureFixture[str]) -> None:
    """It stands before each line, and can be empty."""
    for prefix in ("<tea> ", ""):
        assert run_nsqd([f"--log-prefix={prefix}"]) == 0
        lines = capsys.readouterr().err.splitlines()
        assert 4 == len([line for line in lines if re.match(rf"{prefix}\d{{4}}/", line)])
    assert len(ran) == 2


def record(message: str, **given: Any) -> logging.LogRecord:
    made = logging.makeLogRecord({"msg": message, "levelname": "INFO", **given})
    made.created = 1_700_000_000.25
    return made


def test_what_a_client_sent_stays_on_its_line() -> None:
    """Nothing in a text makes a second line, or steers a terminal."""
    line = NSQFormatter("").format(record("a\nb\r\x1b[31m\x85\u2028 \N{HOT BEVERAGE} \\"))
    assert line.endswith(".250000 INFO: a\\nb\\r\\x1b[31m\\x85\\u2028 \N{HOT BEVERAGE} \\")


def test_a_traceback_follows_its_line() -> None:
    """What went wrong inside is told in full."""
    error = RuntimeError("no tea")
    made = record("it failed", exc_info=(RuntimeError, error, None))
    first, second = NSQFormatter("[n] ").format(made).splitlines()
    assert re.fullmatch(r"\[n\] [\d/]+ [\d:]+\.250000 INFO: it failed", first)
    assert second == "RuntimeError: no tea"


# Its process


def messages(client: Client, count: int) -> list[Delivered]:
    """Return the next messages."""
    found: list[Delivered] = []
    while len(found) < count:
        frame = client.frame()
        assert frame is not None, "it was closed"
        if frame[0] == MESSAGE:
            found.append(delivered(frame[1]))
    return found


def stored(path: Path, topic: str = "orders") -> list[bytes]:
    """Return the bodies of all messages that a data path keeps, and finish them."""
    with nsqlite.Broker(store=nsqlite.SQLite(path / FILE)) as broker:
        return bodies(broker.topic(topic).channel("all"))


@needs_fork
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it(number: signal.Signals, tmp_path: Path) -> None:
    """All is stored, clients are let go, and the status is 0."""
    with (
        Process(f"--data-path={tmp_path}", http=True) as server,
        Client(server.tcp_address) as client,
    ):
        assert server.http_address
        assert client.ask(Sub("orders", "billing")) == b"OK"
        client.send(Rdy(1))
        with Client(server.tcp_address) as putter:
            assert putter.ask(Pub("orders", [b"held"])) == b"OK"
            (held,) = messages(client, 1)
            assert putter.ask(Pub("orders", [b"tea"])) == b"OK"
            assert putter.ask(Dpub("orders", 3_000_000, b"later")) == b"OK"
        server.signal(number)
        assert server.status() == 0
        assert client.frame() is None
    assert server.lines[-1].endswith("INFO: NSQ: bye")
    assert all(LINE.fullmatch(line) for line in server.lines)
    with Process(f"--data-path={tmp_path}") as server, Client(server.tcp_address) as client:
        assert client.ask(Sub("orders", "billing")) == b"OK"
        client.send(Rdy(5))
        found = messages(client, 2)
        assert {(b"held", 2), (b"tea", 1)} == {(one.body, one.attempts) for one in found}
        assert held.id in {one.id for one in found}


SLOW = """
import asyncio, sys
from nsqlite.cli import nsqd
from nsqlite.server.tcp import TCPService

async def stop(service):
    nsqd.log.info("held")
    await asyncio.Event().wait()

TCPService.stop = stop
sys.exit(nsqd.run_nsqd(["--tcp-address=127.0.0.1:0", "--http-address=", "--stop-timeout=1h"]))
"""


@needs_fork
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_it_at_once(number: signal.Signals) -> None:
    """Whatever it still does."""
    with subprocess.Popen(  # noqa: S603 - our own interpreter
        [sys.executable, "-W", "error", "-c", SLOW], stderr=subprocess.PIPE, text=True
    ) as process:
        timer = threading.Timer(PATIENCE, process.kill)
        timer.start()
        assert process.stderr is not None
        for text in ("TCP: listening on", "INFO: held"):
            assert any(text in line for line in process.stderr)
            process.send_signal(number)
        assert -number == process.wait()
        timer.cancel()


class Putter:
    """Publishes numbers in a thread of its own until the connection breaks."""

    def __init__(self, address: str, name: str) -> None:
        self.acknowledged: list[bytes] = []
        self.enough = threading.Event()
        self._call = Call(lambda: self._run(address, name))

    def _run(self, address: str, name: str) -> None:
        with Client(address) as client:
            number = 0
            while True:
                batch = [b"%b %d" % (name.encode(), number + one) for one in range(10)]
                number += 10
                try:
                    client.send(Pub("orders", batch))
                except OSError:
                    return
                for body in batch:
                    frame = client.frame()
                    if frame is None:
                        return
                    assert frame[1] == b"OK"
                    self.acknowledged.append(body)
                if number >= 500:
                    self.enough.set()

    def result(self) -> None:
        """Wait for its end."""
        assert self._call.result() is None


def killed_while_clients_publish(path: Path, putters: int) -> int:
    """Kill a server while clients publish; return how many messages it had acknowledged."""
    with Process(f"--data-path={path}", "--log-level=info") as server:
        running = [Putter(server.tcp_address, f"client{n}") for n in range(putters)]
        assert all(putter.enough.wait(PATIENCE) for putter in running)
        server.signal(signal.SIGKILL)
        for putter in running:
            putter.result()
    acknowledged = [body for putter in running for body in putter.acknowledged]
    with Process(f"--data-path={path}") as server:
        server.signal(signal.SIGTERM)
        assert server.status() == 0
    found = stored(path)
    assert set(acknowledged) <= set(found)
    assert len(found) == len(set(found))
    return len(acknowledged)


@needs_fork
def test_kill_9_loses_nothing_acknowledged(tmp_path: Path) -> None:
    """What was answered with OK is there again after a restart, each once."""
    assert killed_while_clients_publish(tmp_path, 3) >= 1500


@needs_fork
@pytest.mark.soak
@pytest.mark.parametrize("turn", range(30))
def test_kill_9_loses_nothing_acknowledged_ever(turn: int, tmp_path: Path) -> None:
    """The same with more clients, again and again."""
    assert killed_while_clients_publish(tmp_path, 2 + turn % 7) >= 1000


@needs_fork
def test_it_serves_without_extras(tmp_path: Path) -> None:
    """TCP needs neither aiohttp nor python-snappy, and clients are told that there is none."""
    program = tmp_path / "bare.py"
    program.write_text(
        "import sys\n"
        "sys.modules.update(dict.fromkeys(('aiohttp', 'snappy', 'prometheus_client')))\n"
        "from nsqlite.__main__ import main\n"
        "sys.exit(main(['nsqd', '--tcp-address=127.0.0.1:0', '--http-address=']))\n",
        "utf-8",
    )
    with ExitStack() as stack:
        process = stack.enter_context(
            subprocess.Popen(  # noqa: S603 - our own interpreter
                [sys.executable, "-W", "error", program], stderr=subprocess.PIPE, text=True
            )
        )
        timer = threading.Timer(PATIENCE, process.kill)
        timer.start()
        stack.callback(timer.cancel)
        stack.callback(process.kill)
        assert process.stderr is not None
        line = next(line for line in process.stderr if "TCP: listening on" in line)
        client = stack.enter_context(Client(line.rpartition(" ")[2].strip()))
        asked = json.dumps({"feature_negotiation": True, "snappy": True}).encode()
        assert json.loads(client.ask(Identify(asked)))["snappy"] is False
        process.send_signal(signal.SIGTERM)
        assert process.wait() == 0
