"""`nsqlite nsqd`: a stand-in for nsqd, with nsqd's own flags, configuration and log.

The rule: a flag holds over the configuration's file, and that over the default; what has no effect
here is accepted and said, so that whatever starts nsqd can start this.

Next: cli/lesson.py
"""

import asyncio
import logging
import re
import sys
import tomllib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from platform import python_implementation, python_version
from typing import Any, Final, NamedTuple

from nsqlite._version import __version__
from nsqlite.cli.failure import say, why
from nsqlite.cli.goflags import READERS, BadFlag, HelpAsked, Kind, number, parse, switch
from nsqlite.errors import InvalidOption, NSQLiteError, StoreError, StoreInUse, shown
from nsqlite.options import nearest
from nsqlite.wire.identify import NSQ_VERSION

log: Final = logging.getLogger("nsqlite")

NOT_HERE: Final = ""
"""Stands for the option of a flag that has no effect."""


class Flag(NamedTuple):
    """A flag of nsqd."""

    name: str
    kind: Kind
    help: str
    option: str | None = None
    """Which option it sets; None for that of its own name, `NOT_HERE` for none."""
    several: bool = False
    """It may be given again, or hold several with commas between."""

    @property
    def sets(self) -> str:
        """The option that it sets, empty for none."""
        return self.name.replace("-", "_") if self.option is None else self.option

    @property
    def key(self) -> str:
        """What it is called in a configuration's file."""
        return self.sets or self.name.replace("-", "_")


_TEXT, _WHOLE, _TIME, _SWITCH = Kind.TEXT, Kind.WHOLE, Kind.DURATION, Kind.SWITCH

PERCENTILES: Final = "e2e_processing_latency_percentiles"

GROUPS: Final[dict[str, tuple[Flag, ...]]] = {
    "General": (
        Flag("config", _TEXT, "a TOML file with these options, '-' as '_'", NOT_HERE),
        Flag("version", _SWITCH, "print the version", NOT_HERE),
        Flag("help", _SWITCH, "print this", NOT_HERE),
        Flag("data-path", _TEXT, "a directory for the messages (none, in memory)"),
        Flag("stop-timeout", _TIME, "how long each part may take to end (5s)"),
        Flag("node-id", _WHOLE, "0 to 1023, part of message ids (of the host's name)", "id"),
    ),
    "Addresses": (
        Flag("tcp-address", _TEXT, "<addr>:<port> or a unix socket (127.0.0.1:4150)"),
        Flag("http-address", _TEXT, 'the same for HTTP; "" for none (127.0.0.1:4151)'),
        Flag("https-address", _TEXT, "the same for HTTPS, with TLS (127.0.0.1:4152)"),
        Flag("broadcast-address", _TEXT, "where clients are told to find it (the host's name)"),
        Flag("broadcast-http-port", _WHOLE, "the HTTP port that statsd is told (the real one)"),
        Flag("topology-region", _TEXT, "where the node is"),
        Flag("topology-zone", _TEXT, "where in its region"),
    ),
    "Messages": (
        Flag("msg-timeout", _TIME, "until an unanswered message comes again (1m0s)"),
        Flag("max-msg-timeout", _TIME, "the most that touches make of it (15m0s)"),
        Flag("max-req-timeout", _TIME, "the longest delay (1h0m0s)"),
        Flag("mem-queue-size", _WHOLE, "of a channel in memory, with a data path (10000)"),
        Flag("max-msg-size", _WHOLE, "bytes of a message (1048576)"),
        Flag("max-body-size", _WHOLE, "bytes of a command's body (5242880)"),
    ),
    "Clients": (
        Flag("max-connections", _WHOLE, "clients of an address, 0 for any number (65536)"),
        Flag("max-connections-per-address", _WHOLE, "clients of one IP address (0, any number)"),
        Flag("handshake-timeout", _TIME, "how long a client's first bytes may take (5s)"),
        Flag("own-user-only", _SWITCH, "on a unix socket only this user's clients (false)"),
        Flag("max-channel-consumers", _WHOLE, "consumers of a channel (0, any number)"),
        Flag("max-rdy-count", _WHOLE, "the largest window (2500)"),
        Flag("max-heartbeat-interval", _TIME, "the longest that a client may ask for (1m0s)"),
        Flag("deflate", _SWITCH, "let clients compress by deflate (true)"),
        Flag("max-deflate-level", _WHOLE, "1 to 9 (6)"),
        Flag("snappy", _SWITCH, "the same by snappy, with python-snappy (true)"),
        Flag("max-output-buffer-size", _WHOLE, "negotiated, without effect (65536)"),
        Flag("max-output-buffer-timeout", _TIME, "negotiated, without effect (30s)"),
        Flag("min-output-buffer-timeout", _TIME, "negotiated, without effect (25ms)"),
        Flag("output-buffer-timeout", _TIME, "negotiated, without effect (250ms)"),
    ),
    "TLS": (
        Flag("tls-cert", _TEXT, "the file of the certificate"),
        Flag("tls-key", _TEXT, "the file of its key"),
        Flag("tls-root-ca-file", _TEXT, "the file of those that clients' are signed by"),
        Flag("tls-client-auth-policy", _TEXT, "require or require-verify"),
        Flag("tls-required", Kind.WORD, "true, false or tcp-https (false)"),
        Flag("tls-min-version", _TEXT, "tls1.0 to tls1.3 (tls1.2)"),
    ),
    "Authorisation": (
        Flag("auth-http-address", _TEXT, "<addr>:<port> or a URL", "auth_http_addresses", True),
        Flag("auth-http-request-method", _TEXT, "get or post (get)"),
        Flag("http-client-connect-timeout", _TIME, "of requests to it (2s)"),
        Flag("http-client-request-timeout", _TIME, "of requests to it (5s)"),
    ),
    "Statistics and log": (
        Flag("statsd-address", _TEXT, "<addr>:<port> of a statsd"),
        Flag("statsd-prefix", _TEXT, "what stands before all names (nsq.%s)"),
        Flag("statsd-interval", _TIME, "how often (1m0s)"),
        Flag("statsd-mem-stats", _SWITCH, "send memory, too (true)"),
        Flag("statsd-udp-packet-size", _WHOLE, "bytes of a datagram (508)"),
        Flag("statsd-exclude-ephemeral", _SWITCH, "leave ephemeral ones out (false)"),
        Flag(
            "e2e-processing-latency-percentile",
            _TEXT,
            "above 0 to 1, with commas between",
            PERCENTILES,
            True,
        ),
        Flag("e2e-processing-latency-window-time", _TIME, "over how long (10m0s)"),
        Flag("log-level", _TEXT, "debug, info, warn, error or fatal (info)"),
        Flag("log-prefix", _TEXT, "what stands before each line ([nsqd] )"),
    ),
    "Accepted, without effect here": (
        Flag("lookupd-tcp-address", _TEXT, "nothing registers", "nsqlookupd_tcp_addresses", True),
        Flag("broadcast-tcp-port", _WHOLE, "only lookupd is told it"),
        Flag("max-bytes-per-file", _WHOLE, "there is one file"),
        Flag("sync-every", _WHOLE, "each message is written before it is answered"),
        Flag("sync-timeout", _TIME, "the same"),
        Flag("queue-scan-worker-pool-max", _WHOLE, "nothing is scanned"),
        Flag("queue-scan-selection-count", _WHOLE, "nothing is scanned"),
        Flag("enable-experiment", _TEXT, "there are none", several=True),
        Flag("worker-id", _SWITCH, "nor in nsqd: --node-id", NOT_HERE),
        Flag("verbose", _SWITCH, "nor in nsqd: --log-level", NOT_HERE),
    ),
}
"""The flags, as the help shows them."""

FLAGS: Final = {flag.name: flag for group in GROUPS.values() for flag in group}

NO_OPTIONS: Final = ("config", "version", "help")

KINDS: Final = {flag.name: flag.kind for flag in FLAGS.values() if flag.name != "help"}

IDLE: Final = tuple(flag.name for flag in GROUPS["Accepted, without effect here"])


def run_nsqd(arguments: Sequence[str]) -> int:
    """Run an nsqd until SIGINT or SIGTERM, and return the exit status.

    Args:
        arguments: the command line, without ``nsqd``.
    """
    try:
        given = parse(arguments, KINDS)
    except HelpAsked:
        say("\n".join(help_lines()))
        return 0
    except BadFlag as problem:
        print(f"{problem}\nUsage: nsqlite nsqd [flags]; try --help", file=sys.stderr)
        return 2
    told = dict(given)
    if told.get("version"):
        say(version_line())
        return 0
    with _logged("[nsqd] ") as form:
        problem_found = _failure(given, told.get("config"), form)
        if problem_found is not None:
            log.critical("%s", problem_found)
    return 0 if problem_found is None else 1


def _failure(given: list[tuple[str, Any]], config: str | None, form: "NSQFormatter") -> str | None:
    """Run an nsqd, and return why it could not be run, None if it could."""
    from nsqlite.server.nsqd import BadDataPath  # noqa: PLC0415 - other commands need no server

    try:
        _serve(given, config, form)
    except (BadDataPath, StoreInUse) as error:
        return f"failed to lock data-path: {error}"
    except StoreError as error:
        return f"failed to load metadata - {error}"
    except InvalidOption as error:
        return _by_its_flag(error)
    except (NSQLiteError, _BadConfig) as error:
        return str(error)
    return None


def _by_its_flag(error: InvalidOption) -> str:
    """Return what is wrong with an option, which is called as its flag."""
    names = [flag.name for flag in FLAGS.values() if flag.sets == error.option]
    if type(error) is not InvalidOption or not names:
        return str(error)
    return f"--{names[0]} must be {error.expected}, not {shown(error.value)}"


def _serve(given: list[tuple[str, Any]], config: str | None, form: "NSQFormatter") -> None:
    """Run an nsqd with the options that were given.

    Raises:
        _BadConfig: the configuration's file cannot be read.
        NSQLiteError: the options are wrong, or it cannot start.
    """
    from nsqlite.server.listener import raise_open_files_limit  # noqa: PLC0415 - as above
    from nsqlite.server.nsqd import LEVELS, NSQD  # noqa: PLC0415 - the same
    from nsqlite.server.options import NSQDOptions  # noqa: PLC0415 - the same

    notes: list[str] = []
    chosen = {**_from_file(config, notes), **_from_flags(given, notes)}
    _fit_timeouts(chosen, notes)
    options = NSQDOptions(**chosen)
    form.prefix = options.log_prefix
    log.setLevel(LEVELS[options.log_level])
    log.info("%s", version_line())
    log.info("ID: %d", options.id)
    for note in notes:
        log.warning("%s", note)
    for flag in ("tcp-address", "http-address", "https-address"):
        _look_at_address(flag, getattr(options, FLAGS[flag].sets))
    if options.data_path is None:
        log.warning("without --data-path all is in memory, and ends with this process")
    raise_open_files_limit()
    asyncio.run(NSQD(options).run())
    log.info("NSQ: bye")


def _look_at_address(flag: str, address: str) -> None:
    """Say that an address is a path, if it does not look like one."""
    from nsqlite.server.listener import host_and_port  # noqa: PLC0415 - as above

    if address and "/" not in address and host_and_port(address) is None:
        text = "--%s: %r is the path of a unix socket, as it has no port: <addr>:<port>"
        log.warning(text, flag, address)


def _fit_timeouts(chosen: dict[str, Any], notes: list[str]) -> None:
    """Have messages no longer in flight than is allowed, which nsqd does not look at."""
    if "max_msg_timeout" not in chosen and chosen.get("msg_timeout", 0) > MAX_MSG_TIMEOUT:
        chosen["max_msg_timeout"] = chosen["msg_timeout"]
        _note(notes, "--max-msg-timeout is that of --msg-timeout, which is longer than 15m0s")
    if "msg_timeout" not in chosen and 0 < chosen.get("max_msg_timeout", 0) < MSG_TIMEOUT:
        chosen["msg_timeout"] = chosen["max_msg_timeout"]
        _note(notes, "--msg-timeout is that of --max-msg-timeout, which is shorter than 1m0s")


MSG_TIMEOUT: Final = 60.0
"""What a message has by default, in seconds."""

MAX_MSG_TIMEOUT: Final = 900.0
"""What touches make of it by default."""


def version_line() -> str:
    """Return the version in nsqd's form."""
    python = f"{python_implementation()} {python_version()}"
    return f"nsqd v{NSQ_VERSION} (nsqlite {__version__}, built w/{python})"


def help_lines() -> Iterator[str]:
    """Return the help, in groups."""
    yield "Usage: nsqlite nsqd [flags]"
    yield ""
    yield "A stand-in for nsqd.  Flags: -a x, -a=x, --a x or --a=x; a switch -a or -a=false."
    for group, flags in GROUPS.items():
        yield ""
        yield f"{group}:"
        yield from map(_help_line, flags)


def _help_line(flag: Flag) -> str:
    takes = {Kind.SWITCH: "", Kind.WORD: "[=value]"}.get(flag.kind, f" {flag.kind.value}")
    return f"  --{flag.name + takes:<44} {flag.help}"


# Options


class _BadConfig(Exception):
    """The configuration's file is refused; the text says why."""


def _from_flags(given: Iterable[tuple[str, Any]], notes: list[str]) -> dict[str, Any]:
    """Return the options that the flags set."""
    chosen: dict[str, Any] = {}
    for name, value in given:
        flag = FLAGS[name]
        if name in IDLE:
            _note(notes, f"--{name} has no effect here: {flag.help}")
        if not flag.sets:
            continue
        if flag.several:
            chosen[flag.sets] = (*chosen.get(flag.sets, ()), *_parts(flag, value))
        else:
            chosen[flag.sets] = _translated(flag, value)
    return chosen


def _note(notes: list[str], text: str) -> None:
    """Have something said once."""
    if text not in notes:
        notes.append(text)


def _parts(flag: Flag, text: str) -> Iterator[Any]:
    """Return the values that a flag has which takes several.

    Raises:
        InvalidOption: one is no number where there must be one.
    """
    for part in (part.strip() for part in text.split(",")):
        if flag.sets != PERCENTILES:
            if part or flag.name not in IDLE:  # no auth server is not the same as an empty one
                yield part
            continue
        try:
            yield number(part)
        except ValueError:
            raise InvalidOption(flag.sets, part, "a number above 0 and at most 1") from None


def _translated(flag: Flag, value: Any) -> Any:
    """Return a value as the options have it."""
    if flag.sets == "tls_required":
        try:
            return str(switch(value)).lower()
        except ValueError:
            return value.lower()
    if flag.sets in {"log_level", "auth_http_request_method", "tls_min_version"}:
        value = value.lower()
    return DEFAULTS[flag.sets] if not value and flag.sets in DEFAULTS else value


DEFAULTS: Final[dict[str, str | None]] = {"data_path": None, "tls_min_version": "tls1.2"}
"""What an empty text stands for."""


def _from_file(path: str | None, notes: list[str]) -> dict[str, Any]:
    """Return the options that a configuration's file sets.

    Raises:
        _BadConfig: it cannot be read, or a value is of the wrong type.
    """
    if not path:
        return {}
    try:
        told = tomllib.loads(Path(path).read_text("utf-8"))
    except OSError as error:
        raise _BadConfig(f"failed to load config file {path} - {why(error)}") from None
    except (ValueError, RecursionError) as error:
        raise _BadConfig(f"failed to load config file {path} - {error}") from None
    known = {flag.key: flag for flag in FLAGS.values() if flag.name not in NO_OPTIONS}
    chosen: dict[str, Any] = {}
    for key, value in told.items():
        flag = known.get(key)
        if flag is None:
            _note(notes, f"{path}: unknown option {key!r}{nearest(key, known)}")
            continue
        if flag.name in IDLE:
            _note(notes, f"{path}: {key} has no effect here: {flag.help}")
        if flag.sets:
            chosen[flag.sets] = _configured(path, flag, value)
    return chosen


def _configured(path: str, flag: Flag, value: Any) -> Any:
    """Return the value of a configuration's file as the options have it.

    As in nsqd a text is read as that of a flag is, and a whole number for a duration is one of
    milliseconds.

    Raises:
        _BadConfig: it is of the wrong type.
    """
    try:
        return _several(flag, value) if flag.several else _translated(flag, _one(flag.kind, value))
    except ValueError:
        wanted = WANTED[flag.kind]
        if flag.several:
            wanted = f"a list of {'numbers' if flag.sets == PERCENTILES else 'strings'}"
        problem = f"{flag.key} must be {wanted}, not {shown(value)}"
        raise _BadConfig(f"failed to load config file {path} - {problem}") from None


def _one(kind: Kind, value: Any) -> Any:
    """Return a value as a flag has it.

    Raises:
        ValueError: it is of the wrong type, or no text of the kind.
    """
    if isinstance(value, str):
        return READERS[kind](value)
    if isinstance(value, bool):
        if kind in {Kind.SWITCH, Kind.WORD}:
            return READERS[kind](str(value).lower())
    elif isinstance(value, int) and kind in {Kind.WHOLE, Kind.DURATION}:
        return value if kind is Kind.WHOLE else value / 1000
    raise ValueError(value)


def _several(flag: Flag, value: Any) -> tuple[Any, ...]:
    """Return what a flag has that takes several.

    Raises:
        ValueError: it is of the wrong type.
    """
    if isinstance(value, str):
        return tuple(_parts(flag, value))
    wanted = (int, float) if flag.sets == PERCENTILES else str
    fits = isinstance(value, list) and all(isinstance(one, wanted) for one in value)
    if not fits:
        raise ValueError(value)
    return tuple(value)


WANTED: Final = {
    Kind.TEXT: "a string",
    Kind.WORD: 'true, false or "tcp-https"',
    Kind.WHOLE: "a whole number",
    Kind.SWITCH: "true or false",
    Kind.DURATION: 'a duration, as "1m30s", or whole milliseconds',
}
"""What a configuration's file may have for a flag."""


# The log


CONTROL: Final = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")
"""What would break a line, or steer a terminal: a client may have sent it."""


class NSQFormatter(logging.Formatter):
    """Lines as nsqd's: prefix, local time with microseconds, level, text on one line.

    Attributes:
        prefix: what each line begins with.
    """

    def __init__(self, prefix: str) -> None:
        super().__init__()
        self.prefix = prefix

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of a record; a traceback follows it."""
        level = "FATAL" if record.levelname == "CRITICAL" else record.levelname
        stamp = self.formatTime(record, "%Y/%m/%d %H:%M:%S")
        micros = int(record.created % 1 * 1_000_000)
        message = CONTROL.sub(lambda found: repr(found[0])[1:-1], record.getMessage())
        text = f"{self.prefix}{stamp}.{micros:06} {level}: {message}"
        return f"{text}\n{self.formatException(record.exc_info)}" if record.exc_info else text


@contextmanager
def _logged(prefix: str) -> Iterator[NSQFormatter]:
    """Have what is logged in the block written as nsqd writes it; then all is as it was."""
    form = NSQFormatter(prefix)
    handler = logging.NullHandler() if sys.stderr is None else logging.StreamHandler()
    handler.setFormatter(form)
    loggers = [logging.getLogger(name) for name in LOGGERS]
    before = log.level
    for logger in loggers:
        logger.addHandler(handler)
    try:
        yield form
    finally:
        log.setLevel(before)
        for logger in loggers:
            logger.removeHandler(handler)


LOGGERS: Final = (log.name, "asyncio", "aiohttp")
"""Whose records are written: nsqlite's, and what those beneath it have to complain of."""
