"""Go's forms: each as Go's own documentation and source tell it."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nsqlite.wire.go import compact_json, decimal, duration, duration_text, quoted

SECOND = 1_000_000_000
LEAST, MOST = -(1 << 63), (1 << 63) - 1


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", '""'),
        ("orders", '"orders"'),
        (b"orders", '"orders"'),
        ('a"b\\c', r'"a\"b\\c"'),
        ("\a\b\f\n\r\t\v", r'"\a\b\f\n\r\t\v"'),
        ("\0\x1f\x7f", r'"\x00\x1f\x7f"'),
        ("é 日本 😀", '"é 日本 😀"'),
        ("\xa0\x80\xad", r'"\u00a0\u0080\u00ad"'),
        ("\u2028\ufeff\ue000", r'"\u2028\ufeff\ue000"'),
        ("\U000e0001", r'"\U000e0001"'),
        ("\ufffd", '"\ufffd"'),
        (b"tea\xff", r'"tea\xff"'),
        (b"\xe2\x82", r'"\xe2\x82"'),
        (b"\xed\xa0\x80", r'"\xed\xa0\x80"'),
        (b"\xc3\xa9\xc3", r'"é\xc3"'),
        ("\ud800", r'"\ufffd"'),
        ("\udcff", r'"\xff"'),
    ],
)
def test_quoted(text: bytes | str, expected: str) -> None:
    """Printable characters stay, all others are escaped."""
    assert expected == quoted(text)


@pytest.mark.parametrize(
    ("param", "expected"),
    [
        (b"", 0),
        (b"0", 0),
        (b"007", 7),
        (b"2500", 2500),
        (b"18446744073709551615", (1 << 64) - 1),
        (b"18446744073709551616", 0),
        (b"18446744073709551617", 1),
        (b"1" * 16_000, int("1" * 64) % (1 << 64)),
        (b"-1", None),
        (b"+1", None),
        (b"1 ", None),
        (b"1_0", None),
        (b"0x1", None),
        (b"1.0", None),
        ("１".encode(), None),  # noqa: RUF001 - a digit, but none of ASCII
        (b"\xb2", None),
    ],
)
def test_decimal(param: bytes, expected: int | None) -> None:
    """Digits only, and modulo 2**64 when there are too many."""
    assert expected == decimal(param)


@given(st.integers(0, 1 << 200))
def test_decimal_wraps(number: int) -> None:
    """Whatever the number, what is left are its last 64 bits."""
    assert number % (1 << 64) == decimal(str(number).encode())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0", 0),
        ("-0", 0),
        ("+0", 0),
        ("0s", 0),
        ("5s", 5 * SECOND),
        ("+5s", 5 * SECOND),
        ("-5s", -5 * SECOND),
        ("1h2m3.5s", 3723_500_000_000),
        ("250ms", 250_000_000),
        ("1us", 1_000),
        ("1µs", 1_000),
        ("1μs", 1_000),  # the Greek letter
        ("17ns", 17),
        ("0.9ns", 0),
        (".5s", SECOND // 2),
        ("5.s", 5 * SECOND),
        ("1m1m", 120 * SECOND),
        ("0.3333333333333333333h", 1200 * SECOND - 1),
        ("0.830103483285477580700h", 2988_372_539_827),
        ("9007199.254740993ms", 9007199254740),
        ("00000000000000000000000000001s", SECOND),
        ("9223372036854775807ns", MOST),
        ("9223372036854775.807us", MOST),
        ("-9223372036854775808ns", LEAST),
        ("2562047h47m16.854775807s", MOST),
    ],
)
def test_duration(text: str, expected: int) -> None:
    """Numbers with units, one behind the other."""
    assert expected == duration(text)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", 'time: invalid duration ""'),
        ("-", 'time: invalid duration "-"'),
        ("3", 'time: missing unit in duration "3"'),
        ("1s3", 'time: missing unit in duration "1s3"'),
        ("1..s", 'time: missing unit in duration "1..s"'),
        ("--1s", 'time: invalid duration "--1s"'),
        ("s", 'time: invalid duration "s"'),
        (".", 'time: invalid duration "."'),
        (".s", 'time: invalid duration ".s"'),
        ("1 s", 'time: unknown unit " s" in duration "1 s"'),
        ("1d", 'time: unknown unit "d" in duration "1d"'),
        ("1S\n", 'time: unknown unit "S\\n" in duration "1S\\n"'),
        ("１s", 'time: invalid duration "１s"'),  # noqa: RUF001 - no digit of ASCII
        ("9223372036854775808ns", 'time: invalid duration "9223372036854775808ns"'),
        ("-9223372036854775809ns", 'time: invalid duration "-9223372036854775809ns"'),
        ("3000000h", 'time: invalid duration "3000000h"'),
        ("9" * 5000 + "s", f'time: invalid duration "{"9" * 5000}s"'),
    ],
)
def test_what_is_no_duration(text: str, problem: str) -> None:
    """The error says what is wrong, in Go's words."""
    with pytest.raises(ValueError, match="time: ") as info:
        duration(text)
    assert problem == str(info.value)


@pytest.mark.parametrize(
    ("ns", "expected"),
    [
        (0, "0s"),
        (1, "1ns"),
        (1_100, "1.1µs"),
        (2_200_000, "2.2ms"),
        (250_000_000, "250ms"),
        (3_300_000_000, "3.3s"),
        (4 * 60 * SECOND + 5 * SECOND, "4m5s"),
        (4 * 60 * SECOND + 5 * SECOND + 1_000_000, "4m5.001s"),
        (3600 * SECOND, "1h0m0s"),
        (5 * 3600 * SECOND + 6 * 60 * SECOND + 7 * SECOND + 1_000_000, "5h6m7.001s"),
        (-90 * SECOND, "-1m30s"),
        (MOST, "2562047h47m16.854775807s"),
        (LEAST, "-2562047h47m16.854775808s"),
    ],
)
def test_duration_text(ns: int, expected: str) -> None:
    """The form of Go's `Duration.String`."""
    assert expected == duration_text(ns)


@given(st.integers(LEAST, MOST))
def test_a_duration_and_its_text(ns: int) -> None:
    """What is written is read as the same."""
    assert ns == duration(duration_text(ns))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"b": 1, "a": [True, None, "x"]}, '{"b":1,"a":[true,null,"x"]}'),
        ((1, 2.5, ()), "[1,2.5,[]]"),
        ("<a> & b", r'"\u003ca\u003e \u0026 b"'),
        ("\u2028\u2029é😀", '"\\u2028\\u2029é😀"'),
        ('"\\\n\r\t\b\f\x01\x7f', '"\\"\\\\\\n\\r\\t\\b\\f\\u0001\x7f"'),
        ("half \ud800", r'"half \ufffd"'),
        ({"value": 1234567.0}, '{"value":1234567}'),
        ([1e20, 1.2345678901234567e20, 1e21, -3.0, 0.99], None),
        (12345678901234567890, "12345678901234567890"),
    ],
)
def test_compact_json(value: Any, expected: str | None) -> None:
    """No spaces, no markup, whole numbers without a point."""
    if expected is None:
        expected = "[100000000000000000000,123456789012345670000,1e+21,-3,0.99]"
    assert expected.encode() == compact_json(value)


@pytest.mark.parametrize("value", [float("nan"), [float("inf")]])
def test_what_json_cannot_say(value: Any) -> None:
    """A NaN or an infinity is refused."""
    with pytest.raises(ValueError, match="JSON"):
        compact_json(value)


# text of whole characters, and integers that a float can hold
TEXT = st.text(st.characters(codec="utf-8"))
NUMBERS = st.integers(-(1 << 53), 1 << 53) | st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXT,
    lambda inner: st.lists(inner) | st.dictionaries(TEXT, inner),
)


@given(VALUES)
def test_json_says_the_same(value: Any) -> None:
    """What is written is JSON of the same value."""
    assert value == json.loads(compact_json(value), parse_int=float)
