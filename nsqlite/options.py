"""Options with NSQ's names, defaults and ranges, checked once (NSQ semantics §20).

The rule: an option that was accepted is in its range, and every number of seconds was checked here
before it became nanoseconds.  A bool, a NaN and an infinity are no numbers of seconds; a
`timedelta` is as good as the seconds that it has, which is what is kept and shown of it.

Options can be given to a broker, a topic and a channel; the nearest wins.

Next: clock.py
"""

from collections.abc import Iterable, Mapping
from typing import (
    TYPE_CHECKING,
    Any,
    Final,
    ForwardRef,
    Literal,
    NamedTuple,
    TypeAlias,
    TypedDict,
    Unpack,
    get_args,
)

from nsqlite.errors import InvalidOption

if TYPE_CHECKING:
    from datetime import timedelta as Timedelta  # noqa: N812 - `ForwardRef` looks here for the other name
else:  # the same, for a program that has not loaded `datetime`
    Timedelta = ForwardRef("timedelta", module="datetime")

Seconds: TypeAlias = float | Timedelta
"""What delays and timeouts are given as: a number of seconds, or a `datetime.timedelta`."""

SECOND: Final = 1_000_000_000
MILLISECOND: Final = SECOND // 1000
_INFINITY: Final = float("inf")
LONGEST: Final = 9_000_000_000  # 285 years; nanoseconds beyond it would not fit 63 bits
DAY: Final = 86_400.0
MOST_HANDLED: Final = 100_000
"""How many messages one call works on in the caller at most, unless it is told otherwise: more are
taken for work that never ends, as that of a handler which puts to its own channel each time."""

CENTURY: Final = 36_525 * DAY
"""The longest delay that there can be: by the wall's time it ends within the 63 bits of a store."""

WhenFull = Literal["wait", "raise", "drop newest", "drop oldest"]
"""What a put does at a queue that has reached `max_depth`."""


def as_seconds(value: Seconds) -> float:
    """Return a `timedelta` as seconds, and anything else as it is; it checks nothing."""
    kind = value.__class__
    if kind is float or kind is int:
        return value  # type: ignore[return-value]  # as the line above found
    from datetime import timedelta  # noqa: PLC0415 - no program without it has one

    return value.total_seconds() if isinstance(value, timedelta) else value


def nanoseconds(
    option: str,
    value: object,
    low: float = 0,
    high: float = _INFINITY,
    *,
    above: bool = False,
) -> int:
    """Return a number of seconds in integer nanoseconds.

    Args:
        option: the name, for the error.
        value: what the user gave: an int, a float or a `timedelta`.
        low: the least allowed, in seconds.
        high: the most allowed, in seconds.
        above: whether `low` itself is out of range.

    Raises:
        InvalidOption: it is no finite number, or out of the range; it names the seconds.
    """
    kind = value.__class__
    if kind is int or kind is float or (kind is not bool and isinstance(value, int | float)):
        number: float = value  # type: ignore[assignment]  # as the line above found
        enough = low < number if above else low <= number
        if enough and number <= high and number != _INFINITY:
            return max(round(min(number, LONGEST) * SECOND), 1 if above else 0)
    seconds: object = as_seconds(value)  # type: ignore[arg-type]  # or no time at all
    if seconds is not value:
        return nanoseconds(option, seconds, low, high, above=above)
    start = f"above {low:g}" if above else f"at least {low:g}"
    end = "" if high > LONGEST else f" and at most {high:.15g}"
    raise InvalidOption(option, value, f"a finite number of seconds, {start}{end}")


def timeout_ns(value: object) -> int | None:
    """Return the timeout of a blocking call in nanoseconds, None for one that waits for ever."""
    if value is None:
        return None
    if value.__class__ is int and value == 0:  # as nearly always
        return 0
    return nanoseconds("timeout", value)


def whole(option: str, value: object, low: int, high: int | None = None) -> int:
    """Return the value if it is an int from `low` to `high` (None: no upper limit).

    Raises:
        InvalidOption: it is not.
    """
    if (
        isinstance(value, int)
        and not isinstance(value, bool)
        and low <= value
        and (high is None or value <= high)
    ):
        return value
    limit = f"of at least {low}" if high is None else f"from {low} to {high}"
    raise InvalidOption(option, value, f"a whole number {limit}")


def unknown_option(kind: str, name: str, known: Iterable[str]) -> InvalidOption:
    """Return the error for an option that nobody knows; it offers the nearest known one."""
    names = sorted(known)
    return InvalidOption(kind, name, f"one of {', '.join(names)}{nearest(name, names)}")


def nearest(name: str, known: Iterable[str]) -> str:
    """Return the end of an error's text: which known name may be meant; empty if none is near."""
    from difflib import get_close_matches  # noqa: PLC0415 - errors may be slow, importing must not

    names = {one.lower(): one for one in known}
    near = get_close_matches(str(name).lower(), names, 1)
    return f" (did you mean {names[near[0]]!r}?)" if near else ""


class ChannelOptions(TypedDict, total=False):
    """The options that can be given to a channel, and so to a topic and a broker too.

    msg_timeout: seconds until an unanswered message is delivered again (60).
    max_msg_timeout: the most that touches can make of it in one delivery (900).
    max_req_timeout: the longest delay of a requeue or put, at most a century (366 days).
    max_channel_consumers: consumers a channel takes, 0 for no limit (0).
    max_depth: ready messages the queue takes, None for no limit (None).
    when_full: what a put does then: ``"wait"``, ``"raise"``, ``"drop newest"`` or
        ``"drop oldest"`` ("wait").
    resolution: seconds in a tick of the timer wheel, None for the clock's own (None; 0.01).
    e2e_processing_latency_percentiles: which to report, each above 0 and at most 1 (none).
    e2e_processing_latency_window_time: over how many seconds (600).
    """

    msg_timeout: Seconds
    max_msg_timeout: Seconds
    max_req_timeout: Seconds
    max_channel_consumers: int
    max_depth: int | None
    when_full: WhenFull
    resolution: Seconds | None
    e2e_processing_latency_percentiles: tuple[float, ...]
    e2e_processing_latency_window_time: Seconds


class TopicOptions(ChannelOptions, total=False):
    """The options that can be given to a topic or a broker.

    max_msg_size: the most bytes of a bytes body (1 MiB).
    node_id: 0 to 1023, part of every message id (0).
    """

    max_msg_size: int
    node_id: int


class Options(NamedTuple):
    """A complete set of options; made by `make_options`, which checks them.

    The fields are those of `TopicOptions`, all times as seconds.  It is no attrs class since
    it would be the only one that `import nsqlite` needs, and attrs takes a quarter of that.
    """

    msg_timeout: float = 60.0
    max_msg_timeout: float = 900.0
    max_req_timeout: float = 366 * DAY
    max_channel_consumers: int = 0
    max_depth: int | None = None
    when_full: WhenFull = "wait"
    resolution: float | None = None
    e2e_processing_latency_percentiles: tuple[float, ...] = ()
    e2e_processing_latency_window_time: float = 600.0
    max_msg_size: int = 1048576
    node_id: int = 0


DEFAULTS: Final = Options()
"""What holds where nothing is given."""


def make_options(
    base: Options, also: tuple[str, ...] = (), /, **given: Unpack[TopicOptions]
) -> Options:
    """Return `base` with the given options in their place, all of them checked.

    Args:
        base: the options where none is given.
        also: what else the caller takes, for the error of one that is unknown.
        given: the options.

    Raises:
        InvalidOption: one is unknown, of the wrong type or out of its range; the text names it,
            its value and the range.
    """
    if not given:
        return base  # which was checked when it was made
    for name in given:
        if name not in _NAMES:
            raise unknown_option("option", name, (*_NAMES, *also))
    options = base._replace(**_as_kept(given))
    nanoseconds("max_msg_timeout", options.max_msg_timeout, above=True)
    if "msg_timeout" not in given and options.max_msg_timeout < options.msg_timeout:
        known = f"{options.msg_timeout:g}, which is msg_timeout"
        raise InvalidOption("max_msg_timeout", options.max_msg_timeout, f"at least {known}")
    nanoseconds("msg_timeout", options.msg_timeout, high=options.max_msg_timeout, above=True)
    nanoseconds("max_req_timeout", options.max_req_timeout, high=CENTURY)
    nanoseconds(
        "e2e_processing_latency_window_time",
        options.e2e_processing_latency_window_time,
        above=True,
    )
    if options.resolution is not None:
        nanoseconds("resolution", options.resolution, 1e-9, 1)
    whole("max_channel_consumers", options.max_channel_consumers, 0)
    whole("max_msg_size", options.max_msg_size, 1)
    whole("node_id", options.node_id, 0, 1023)
    if options.max_depth is not None:
        whole("max_depth", options.max_depth, 1)
    if options.when_full not in get_args(WhenFull):
        allowed = " or ".join(map(repr, get_args(WhenFull)))
        raise InvalidOption("when_full", options.when_full, allowed)
    _check_percentiles(options.e2e_processing_latency_percentiles)
    return options


_NAMES: Final = frozenset(Options._fields)

_TIMES: Final = frozenset(
    {
        "msg_timeout",
        "max_msg_timeout",
        "max_req_timeout",
        "resolution",
        "e2e_processing_latency_window_time",
    }
)


def _as_kept(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return options as `Options` keeps them: times as seconds, percentiles as a tuple."""
    kept = {name: as_seconds(value) if name in _TIMES else value for name, value in given.items()}
    percentiles = kept.get("e2e_processing_latency_percentiles")
    if isinstance(percentiles, list):
        kept["e2e_processing_latency_percentiles"] = tuple(percentiles)
    return kept


def _check_percentiles(values: object) -> None:
    option = "e2e_processing_latency_percentiles"
    if isinstance(values, tuple | list):
        for value in values:
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 1:
                break
        else:
            return
    raise InvalidOption(option, values, "a tuple of numbers, each above 0 and at most 1")


def require_same(options: Options, given: ChannelOptions, what: str) -> None:
    """Check that what was given for something that exists is what it has.

    Raises:
        InvalidOption: a value differs.
    """
    for option, value in _as_kept(given).items():
        existing = getattr(options, option)
        if existing != value:
            raise InvalidOption(option, value, f"{existing!r}, as {what} has it")
