"""Options: names, defaults and ranges (NSQ semantics §20), and numbers of seconds."""

import inspect
import math
import re
import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any, Final, get_args, get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nsqlite import Broker, InvalidOption, Topic
from nsqlite.options import (
    _TIMES,
    DEFAULTS,
    SECOND,
    ChannelOptions,
    Options,
    TopicOptions,
    WhenFull,
    as_seconds,
    make_options,
    nanoseconds,
    nearest,
    require_same,
    timeout_ns,
    whole,
)

NO_NUMBERS: Final[list[object]] = [
    math.nan,
    math.inf,
    -math.inf,
    True,
    False,
    "1",
    b"1",
    [1],
    (1,),
    1j,
    Decimal(1),
    Fraction(1),
    object,
]
"""What is no number of seconds, nor a whole number."""

POSITIVE: Final = "a finite number of seconds, above 0"
POLICIES: Final = "'wait' or 'raise' or 'drop newest' or 'drop oldest'"
FRACTIONS: Final = "a tuple of numbers, each above 0 and at most 1"

BAD: Final[dict[str, tuple[str, list[object]]]] = {
    "msg_timeout": (f"{POSITIVE} and at most 900", [0, -1, -0.0, 900.1, 1e300, None, *NO_NUMBERS]),
    "max_msg_timeout": (POSITIVE, [0, -1, -0.0, None, *NO_NUMBERS]),
    "max_req_timeout": (
        "a finite number of seconds, at least 0 and at most 3155760000",
        [-1, -0.001, 3155760001, 1e300, None, *NO_NUMBERS],
    ),
    "max_channel_consumers": (
        "a whole number of at least 0",
        [-1, 0.0, 1.5, None, *NO_NUMBERS],
    ),
    "max_depth": ("a whole number of at least 1", [0, -1, 1.0, 1.5, *NO_NUMBERS]),
    "when_full": (
        POLICIES,
        ["", "drop", "Wait", " wait", b"wait", None, True, 0, math.nan, ["wait"], {}],
    ),
    "resolution": (
        "a finite number of seconds, at least 1e-09 and at most 1",
        [0, -1, 1e-10, 1.001, *NO_NUMBERS],
    ),
    "e2e_processing_latency_percentiles": (
        FRACTIONS,
        [
            (0,),
            (1.001,),
            (-0.5,),
            (0.5, 2),
            (math.nan,),
            (math.inf,),
            (True,),
            ("0.5",),
            (None,),
            0.5,
            "0.5",
            {0.5},
            {0.5: 1},
            None,
            True,
        ],
    ),
    "e2e_processing_latency_window_time": (POSITIVE, [0, -1, None, *NO_NUMBERS]),
    "max_msg_size": ("a whole number of at least 1", [0, -1, 1.0, 1048576.0, None, *NO_NUMBERS]),
    "node_id": ("a whole number from 0 to 1023", [-1, 1024, 1.0, None, *NO_NUMBERS]),
}
"""For each option: its range in words, and values that it does not take."""

GOOD: Final[dict[str, list[object]]] = {
    "msg_timeout": [60, 0.001, 900, 900.0],
    "max_msg_timeout": [60, 60.5, 1e300],
    "max_req_timeout": [0, 0.0, 3600, 3155760000],
    "max_channel_consumers": [0, 1, 10**30],
    "max_depth": [None, 1, 10**30],
    "when_full": ["wait", "raise", "drop newest", "drop oldest"],
    "resolution": [None, 1e-9, 1, 0.1],
    "e2e_processing_latency_percentiles": [(), (1,), (0.99, 0.5), (1e-9, 1.0)],
    "e2e_processing_latency_window_time": [1e-9, 600, 1e300],
    "max_msg_size": [1, 10**30],
    "node_id": [0, 1023],
}
"""For each option: values that it takes, the ends of its range among them."""

BAD_ONES: Final = [(option, value) for option, (_, values) in BAD.items() for value in values]
GOOD_ONES: Final = [(option, value) for option, values in GOOD.items() for value in values]


def made(base: Options = DEFAULTS, /, **given: Any) -> Options:
    return make_options(base, **given)


def documented(options: type) -> list[tuple[str, str]]:
    """Return the names in a docstring with what stands in the brackets at the end of each."""
    lines = re.sub(r"\n {4}", " ", inspect.getdoc(options) or "")
    return re.findall(r"^(\w+): .*\(([^()]*)\)\.$", lines, re.MULTILINE)


# Options


def test_the_cases_cover_every_option() -> None:
    """Each option has bad and good values in this file."""
    names = sorted(Options._fields)
    assert (names, names) == (sorted(BAD), sorted(GOOD))


def test_what_is_typed_is_what_is_made() -> None:
    """The options that type a call are those that are made; those that are times take more."""
    made = get_type_hints(Options)
    takes = {name: kind | timedelta if name in _TIMES else kind for name, kind in made.items()}
    assert takes == get_type_hints(TopicOptions)


def test_no_option_is_required() -> None:
    """Every option may be left out."""
    assert (frozenset(), frozenset()) == (
        TopicOptions.__required_keys__,
        ChannelOptions.__required_keys__,
    )


def test_a_channel_takes_all_but_two() -> None:
    """Only the size of a message and the node are the topic's alone."""
    assert {"max_msg_size", "node_id"} == (
        TopicOptions.__optional_keys__ - ChannelOptions.__optional_keys__
    )


def test_every_option_is_explained() -> None:
    """The two docstrings together explain each option, once and in order."""
    names = [name for options in (ChannelOptions, TopicOptions) for name, _ in documented(options)]
    assert list(Options._fields) == names


def test_the_defaults_are_nsqs() -> None:
    """Where NSQ has the option, its default is NSQ's, but for an hour as the longest delay."""
    assert DEFAULTS._asdict() == {
        "msg_timeout": 60,
        "max_msg_timeout": 15 * 60,
        "max_req_timeout": 366 * 24 * 60 * 60,
        "max_channel_consumers": 0,
        "max_depth": None,
        "when_full": "wait",
        "resolution": None,
        "e2e_processing_latency_percentiles": (),
        "e2e_processing_latency_window_time": 10 * 60,
        "max_msg_size": 1 << 20,
        "node_id": 0,
    }


def test_the_defaults_are_explained() -> None:
    """Each explanation ends with the default."""
    explained = dict(documented(ChannelOptions) + documented(TopicOptions))
    assert explained == {
        "msg_timeout": "60",
        "max_msg_timeout": "900",
        "max_req_timeout": "366 days",
        "max_channel_consumers": "0",
        "max_depth": "None",
        "when_full": '"wait"',
        "resolution": "None; 0.01",
        "e2e_processing_latency_percentiles": "none",
        "e2e_processing_latency_window_time": "600",
        "max_msg_size": "1 MiB",
        "node_id": "0",
    }


def test_options_are_frozen() -> None:
    """A set of options cannot be changed."""
    with pytest.raises(AttributeError):
        DEFAULTS.msg_timeout = 1  # type: ignore[misc]  # frozen


@pytest.mark.parametrize(("option", "value"), GOOD_ONES)
def test_a_good_value_is_kept(option: str, value: object) -> None:
    """A value in the range is kept in the user's unit; everything else is as in the base."""
    base = made(msg_timeout=1, node_id=7)
    options = made(base, **{option: value})
    assert base._asdict() | {option: value} == options._asdict()


@pytest.mark.parametrize(("option", "value"), BAD_ONES)
def test_a_bad_value_is_refused(option: str, value: object) -> None:
    """A value of the wrong type or out of the range is refused with option, value and range."""
    expected = BAD[option][0]
    with pytest.raises(InvalidOption) as info:
        made(**{option: value})
    assert f"{option} must be {expected}, not {value!r}" == str(info.value)
    error = info.value
    assert (option, expected) == (error.option, error.expected)
    assert error.value is value


@pytest.mark.parametrize(("option", "value"), BAD_ONES)
def test_topics_and_brokers_refuse_it_too(option: str, value: object) -> None:
    """What makes a topic, alone or of a broker, a channel or a broker refuses a bad value."""
    given: Any = {option: value}
    broker = Broker()
    topic = broker.topic("orders")
    calls: list[Callable[[], object]] = [
        lambda: Broker(**given),
        lambda: Topic("a", **given),
        lambda: broker.topic("a", **given),
    ]
    if option in ChannelOptions.__optional_keys__:
        calls.append(lambda: topic.channel("a", **given))
    for call in calls:
        with pytest.raises(InvalidOption) as info:
            call()
        assert f"{option} must be {BAD[option][0]}, not {value!r}" == str(info.value)
    assert (["orders"], []) == (list(broker.topics), list(topic.channels))


def test_an_unknown_option_is_refused() -> None:
    """A name that is no option is refused with those that are, in order."""
    with pytest.raises(InvalidOption) as info:
        made(msg_time_out=1)
    known = (
        "e2e_processing_latency_percentiles, e2e_processing_latency_window_time,"
        " max_channel_consumers, max_depth, max_msg_size, max_msg_timeout, max_req_timeout,"
        " msg_timeout, node_id, resolution, when_full"
    )
    offer = "(did you mean 'msg_timeout'?)"
    assert f"option must be one of {known} {offer}, not 'msg_time_out'" == str(info.value)
    with pytest.raises(InvalidOption) as info:
        made(colour=1)
    assert f"option must be one of {known}, not 'colour'" == str(info.value)


def test_a_topics_option_is_none_of_a_channels() -> None:
    """A channel refuses an option that only a topic has, with those that it takes."""
    known = (
        "e2e_processing_latency_percentiles, e2e_processing_latency_window_time,"
        " max_channel_consumers, max_depth, max_msg_timeout, max_req_timeout,"
        " msg_timeout, resolution, when_full"
    )
    given: Any = {"node_id": 1}
    with pytest.raises(InvalidOption) as info:
        Topic("orders").channel("billing", **given)
    assert f"channel option must be one of {known}, not 'node_id'" == str(info.value)


def test_a_timeout_must_fit_the_longest() -> None:
    """The longest time-out bounds the other one; the option that was given is the one named."""
    with pytest.raises(InvalidOption) as info:
        made(max_msg_timeout=30)
    assert "max_msg_timeout must be at least 60, which is msg_timeout, not 30" == str(info.value)
    with pytest.raises(InvalidOption) as info:
        made(max_msg_timeout=30, msg_timeout=40)
    assert f"msg_timeout must be {POSITIVE} and at most 30, not 40" == str(info.value)
    assert made(max_msg_timeout=30, msg_timeout=30).msg_timeout == 30


def test_the_nearest_name_may_be_in_other_letters() -> None:
    """Capitals are easily mistaken."""
    assert " (did you mean 'FIN'?)" == nearest("fin", {"FIN", "REQ"})


def test_the_nearest_option_wins() -> None:
    """A topic begins with the broker's options and a channel with the topic's."""
    broker = Broker(msg_timeout=1, max_depth=1, node_id=1)
    topic = broker.topic("orders", msg_timeout=2, max_req_timeout=2)
    options = topic.channel("billing", msg_timeout=3).options
    assert (3, 2, 1) == (options.msg_timeout, options.max_req_timeout, options.max_depth)
    assert (2, 1) == (topic.options.msg_timeout, topic.options.node_id)
    assert 1 == broker.options.msg_timeout


def test_a_list_of_percentiles_becomes_a_tuple() -> None:
    """A list of percentiles is as good as a tuple, and changing it later changes nothing."""
    percentiles = [0.5, 0.99]
    given: Any = {"e2e_processing_latency_percentiles": percentiles}
    options = made(**given)
    percentiles.clear()
    assert (0.5, 0.99) == options.e2e_processing_latency_percentiles


@pytest.mark.parametrize("option", sorted(_TIMES))
def test_a_timedelta_is_kept_as_seconds(option: str) -> None:
    """An option that is a time takes a `timedelta`, has the seconds, and is the same as these."""
    given: Any = {option: timedelta(milliseconds=500)}
    broker = Broker(msg_timeout=0.5)
    topic = broker.topic("orders", **given)
    seconds = getattr(topic.options, option)
    assert (0.5, float) == (seconds, type(seconds))
    assert topic is broker.topic("orders", **given)
    given = {option: seconds}
    assert topic is broker.topic("orders", **given)


def test_a_bad_timedelta_is_refused_as_its_seconds() -> None:
    """Out of the range it is refused like the same number, which the error names."""
    with pytest.raises(InvalidOption) as info:
        made(msg_timeout=timedelta(minutes=-1))
    assert f"msg_timeout must be {POSITIVE} and at most 900, not -60.0" == str(info.value)


# What exists already


def test_what_exists_may_be_asked_for_anew() -> None:
    """Options that say what a thing already has are fine, and so are none."""
    options = made(msg_timeout=5, max_depth=3)
    require_same(options, {}, "channel 'billing'")
    require_same(options, {"msg_timeout": 5.0, "max_depth": 3}, "channel 'billing'")


def test_what_exists_does_not_change() -> None:
    """An option that differs from what a thing has is refused with what it has."""
    with pytest.raises(InvalidOption) as info:
        require_same(made(msg_timeout=5), {"msg_timeout": 6}, "channel 'billing'")
    assert "msg_timeout must be 5, as channel 'billing' has it, not 6" == str(info.value)


def test_a_list_of_percentiles_is_the_same_as_a_tuple() -> None:
    """What exists with percentiles may be asked for with a list of them, time and again."""
    given: Any = {"e2e_processing_latency_percentiles": [0.5]}
    broker = Broker()
    topic = broker.topic("orders", **given)
    channel = topic.channel("billing", **given)
    assert topic is broker.topic("orders", **given)
    assert channel is topic.channel("billing", **given)


# Seconds


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0, 0),
        (0.0, 0),
        (1, SECOND),
        (2.5, 2_500_000_000),
        (0.1, 100_000_000),
        (1e-9, 1),
        (0.4e-9, 0),
        (3600, 3600 * SECOND),
        (1e300, 9_000_000_000 * SECOND),
        (10**400, 9_000_000_000 * SECOND),
    ],
)
def test_seconds_become_nanoseconds(value: float, expected: int) -> None:
    """A number of seconds becomes the nearest number of nanoseconds, of 285 years at most."""
    assert expected == nanoseconds("delay", value)
    assert type(nanoseconds("delay", value)) is int


@given(st.floats(0, 9e9))
def test_seconds_are_exact(value: float) -> None:
    """What comes out is a nanosecond or less off, or what a float cannot tell."""
    assert math.isclose(nanoseconds("delay", value), value * SECOND, rel_tol=1e-15, abs_tol=0.5)


@pytest.mark.parametrize("value", [*NO_NUMBERS, None, -1, -1e-300], ids=repr)
def test_seconds_are_finite_numbers(value: object) -> None:
    """What is no finite number of at least 0 is no number of seconds."""
    with pytest.raises(InvalidOption) as info:
        nanoseconds("delay", value)
    expected = "a finite number of seconds, at least 0"
    assert f"delay must be {expected}, not {value!r}" == str(info.value)


@pytest.mark.parametrize(
    ("value", "low", "high", "above", "words"),
    [
        (0, 0, math.inf, True, "above 0"),
        (1, 2, math.inf, False, "at least 2"),
        (4, 2, 3.5, False, "at least 2 and at most 3.5"),
        (2, 2, 3.5, True, "above 2 and at most 3.5"),
    ],
)
def test_seconds_have_a_range(
    value: float, low: float, high: float, *, above: bool, words: str
) -> None:
    """A number out of its range is refused with the range."""
    with pytest.raises(InvalidOption) as info:
        nanoseconds("delay", value, low, high, above=above)
    assert f"delay must be a finite number of seconds, {words}, not {value!r}" == str(info.value)


@pytest.mark.parametrize(("value", "above"), [(2, False), (3.5, False), (2.001, True), (3.5, True)])
def test_the_ends_of_a_range_belong_to_it(value: float, *, above: bool) -> None:
    """Both ends are allowed, the lower one unless the number must be above it."""
    assert round(value * SECOND) == nanoseconds("delay", value, 2, 3.5, above=above)


@pytest.mark.parametrize(
    ("value", "expected"), [(None, None), (0, 0), (1.5, 1_500_000_000), (1e300, 9 * 10**18)]
)
def test_no_timeout_waits_for_ever(value: float | None, expected: int | None) -> None:
    """A timeout is a number of seconds, or None for one that never comes."""
    assert expected == timeout_ns(value)


@pytest.mark.parametrize("value", [*NO_NUMBERS, -1], ids=repr)
def test_a_bad_timeout_is_refused(value: object) -> None:
    """What is neither None nor a number of seconds is no timeout."""
    with pytest.raises(InvalidOption) as info:
        timeout_ns(value)
    expected = "a finite number of seconds, at least 0"
    assert f"timeout must be {expected}, not {value!r}" == str(info.value)


# Whole numbers


@pytest.mark.parametrize(("value", "high"), [(1, None), (10**30, None), (1, 3), (3, 3)])
def test_a_whole_number_is_returned(value: int, high: int | None) -> None:
    """A whole number in the range comes back as it is."""
    assert value == whole("n", value, 1, high)


@pytest.mark.parametrize(
    ("value", "high", "words"),
    [
        (0, None, "of at least 1"),
        (0, 3, "from 1 to 3"),
        (4, 3, "from 1 to 3"),
        *[(value, 3, "from 1 to 3") for value in [None, 1.0, *NO_NUMBERS]],
    ],
    ids=repr,
)
def test_a_whole_number_has_a_range(value: object, high: int | None, words: str) -> None:
    """What is no int, or is out of the range, is refused with the range."""
    with pytest.raises(InvalidOption) as info:
        whole("n", value, 1, high)
    assert f"n must be a whole number {words}, not {value!r}" == str(info.value)


def test_the_policies_are_four() -> None:
    """The type of `when_full` lists what the error lists."""
    assert " or ".join(map(repr, get_args(WhenFull))) == POLICIES


def test_above_nothing_is_a_nanosecond_at_least() -> None:
    """A time that must not be nothing is not rounded to nothing."""
    assert (1, 0) == (nanoseconds("msg_timeout", 1e-12, above=True), nanoseconds("delay", 1e-12))


def test_an_endless_number() -> None:
    """A number too large for a float is as good as for ever, and errors can show it."""
    options = make_options(DEFAULTS, max_msg_timeout=10**400)
    with pytest.raises(
        InvalidOption, match="msg_timeout must be a finite number of seconds, above 0"
    ):
        make_options(options, msg_timeout=-1)


# A timedelta


@pytest.mark.parametrize("seconds", [0, 0.000_001, 0.25, 1, 86400.5, 366 * 86400, -1, -0.5, 10**11])
def test_a_timedelta_is_as_good_as_its_seconds(seconds: float) -> None:
    """It becomes the same nanoseconds, or is refused with the same words."""

    def outcome(value: object, **options: Any) -> object:
        try:
            return nanoseconds("delay", value, **options)
        except InvalidOption as error:
            return str(error).removesuffix(".0")

    span = timedelta(seconds=seconds)
    assert seconds == as_seconds(span)
    for options in ({}, {"above": True}, {"low": 0.5, "high": 100_000}):
        assert outcome(seconds, **options) == outcome(span, **options)


@pytest.mark.parametrize("value", [1, 0.5, True, "1", None, Decimal(1)], ids=repr)
def test_what_is_no_timedelta_is_left_to_others(value: Any) -> None:
    """Anything else comes back as it is."""
    assert as_seconds(value) is value


def test_a_timeout_can_be_a_timedelta() -> None:
    """None of it is no wait, and a negative one is refused."""
    assert [0, 90 * SECOND] == [timeout_ns(timedelta(0)), timeout_ns(timedelta(minutes=1.5))]
    with pytest.raises(InvalidOption) as info:
        timeout_ns(timedelta(seconds=-1))
    assert "timeout must be a finite number of seconds, at least 0, not -1.0" == str(info.value)


def test_it_costs_no_import() -> None:
    """To import the package, and to use it with numbers, does not load `datetime`."""
    program = """
import sys, nsqlite
topic = nsqlite.Topic("orders", msg_timeout=5, max_req_timeout=60.0, when_full="raise")
consumer = nsqlite.Consumer(topic.channel("billing"))
topic.put(b"1", delay=1e-9)
consumer.get(timeout=1.0).req(0.5)
assert "datetime" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)  # noqa: S603 - our own interpreter
