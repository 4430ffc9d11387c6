"""Flags in Go's forms: what its parser takes, what it refuses, and in which words."""

import math
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nsqlite.cli.goflags import BadFlag, HelpAsked, Kind, number, parse, switch, whole

KINDS = {
    "name": Kind.TEXT,
    "size": Kind.WHOLE,
    "after": Kind.DURATION,
    "v": Kind.SWITCH,
    "tls": Kind.WORD,
}


def refusal(*arguments: str) -> str:
    with pytest.raises(BadFlag) as info:
        parse(arguments, KINDS)
    return str(info.value)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("", []),
        ("-name x", [("name", "x")]),
        ("-name=x", [("name", "x")]),
        ("--name x", [("name", "x")]),
        ("--name=x", [("name", "x")]),
        ("--name=", [("name", "")]),
        ("--name==x", [("name", "=x")]),
        ("--name=a=b", [("name", "a=b")]),
        ("--name -v", [("name", "-v")]),
        ("--name -- -v", [("name", "--"), ("v", True)]),
        ("--name - -v", [("name", "-"), ("v", True)]),
        ("-name -h", [("name", "-h")]),
        ("-v", [("v", True)]),
        ("--v=false", [("v", False)]),
        ("-v=0 -v", [("v", False), ("v", True)]),
        ("-v --", [("v", True)]),
        ("--", []),
        ("-tls", [("tls", "true")]),
        ("--tls=tcp-https", [("tls", "tcp-https")]),
        ("--tls= -v", [("tls", ""), ("v", True)]),
        ("-size 5 --size=6", [("size", 5), ("size", 6)]),
        ("-size -5", [("size", -5)]),
        ("-after 1m30s", [("after", 90.0)]),
        ("-after=250ms", [("after", 0.25)]),
        ("-after 0", [("after", 0.0)]),
        ("-after -1s", [("after", -1.0)]),
    ],
)
def test_what_go_takes(line: str, expected: list[Any]) -> None:
    """A flag has one dash or two, and its value stands behind it or behind =."""
    assert expected == parse(line.split(), KINDS)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("-x", "flag provided but not defined: -x"),
        ("--x=5", "flag provided but not defined: -x"),
        ("--nmae=5", "flag provided but not defined: -nmae (did you mean 'name'?)"),
        ("---v", "bad flag syntax: ---v"),
        ("-=v", "bad flag syntax: -=v"),
        ("--=v", "bad flag syntax: --=v"),
        ("-name", "flag needs an argument: -name"),
        ("-v --size", "flag needs an argument: -size"),
        ("-size x", 'invalid value "x" for flag -size: parse error'),
        ("-size=", 'invalid value "" for flag -size: parse error'),
        ("-size 9223372036854775808", "{value} for flag -size: value out of range"),
        ("-after 5", 'invalid value "5" for flag -after: parse error'),
        ("-after=1d", 'invalid value "1d" for flag -after: parse error'),
        ('-after="', r'invalid value "\"" for flag -after: parse error'),
        ("-v=yes", 'invalid boolean value "yes" for -v: parse error'),
        ("-v=", 'invalid boolean value "" for -v: parse error'),
        ("x", "unexpected argument: x"),
        ("-", "unexpected argument: -"),
        ("-v x -name y", "unexpected argument: x (did you mean -v=x?)"),
        ("-v false", "unexpected argument: false (did you mean -v=false?)"),
        ("-tls tcp-https", "unexpected argument: tcp-https (did you mean -tls=tcp-https?)"),
        ("-name x y", "unexpected argument: y"),
        ("-name x -- -v", "unexpected argument: -v"),
    ],
)
def test_what_go_refuses(line: str, expected: str) -> None:
    """The words are Go's, but for what is no flag, which Go ignores with all that follows."""
    value = f'invalid value "{line.rpartition(" ")[2]}"'
    assert expected.format(value=value) == refusal(*line.split())


def test_an_empty_argument() -> None:
    """It is a value, or no flag."""
    assert [("name", "")] == parse(["-name", ""], KINDS)
    assert refusal("") == "unexpected argument: "


@pytest.mark.parametrize("line", ["-h", "--help", "-help=x", "-v -h --nothing", "--h -size=x"])
def test_help(line: str) -> None:
    """It is asked for by what no flag is called, and what follows does not matter."""
    with pytest.raises(HelpAsked):
        parse(line.split(), KINDS)


def test_a_flag_for_help() -> None:
    """Where a flag is called so, it is one."""
    assert [("h", True)] == parse(["-h"], {"h": Kind.SWITCH})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0", 0),
        ("-0", 0),
        ("+5", 5),
        ("1_000", 1000),
        ("0x1F", 31),
        ("-0X_1f", -31),
        ("0b101", 5),
        ("0B1_0", 2),
        ("0o17", 15),
        ("0O17", 15),
        ("017", 15),
        ("0_7", 7),
        ("00", 0),
        ("0x" + "0" * 5000 + "1", 1),
        ("9223372036854775807", (1 << 63) - 1),
        ("-9223372036854775808", -1 << 63),
        ("0x7fffffffffffffff", (1 << 63) - 1),
    ],
)
def test_whole_numbers(text: str, expected: int) -> None:
    """They are read to the base that they begin with."""
    assert expected == whole(text)


@pytest.mark.parametrize(
    "text",
    [
        *("", "+", "-", "x", "5x", " 5", "5 ", "5\n", "1__0", "_1", "1_", "08", "0_8", "0x", "0b2"),
        *("0b", "0o8", "0x_", "--5", "1.0", "1e3", "NaN", "٥", "0_", "+-5", "0__7"),  # noqa: RUF001
    ],
)
def test_no_whole_numbers(text: str) -> None:
    """What Python's own reader would take and Go's does not is refused, too."""
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        whole(text)
    assert "parse error" in refusal(f"-size={text}")


@pytest.mark.parametrize(
    "text",
    [
        *("9223372036854775808", "-9223372036854775809", "0x8000000000000000", "9" * 9999),
        "0b1" + "0" * 63,
    ],
)
def test_whole_numbers_beyond_64_bits(text: str) -> None:
    """They are out of range, however long they are."""
    assert f'invalid value "{text}" for flag -size: value out of range' == refusal("-size", text)


@given(st.integers(-1 << 63, (1 << 63) - 1), st.sampled_from(["", "#x", "#b", "#o"]))
def test_each_number_of_64_bits_has_its_forms(wanted: int, form: str) -> None:
    """Whatever Go writes is read again."""
    assert wanted == whole(format(wanted, form))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        *(("0.5", 0.5), (".5", 0.5), ("5.", 5.0), ("+1e-2", 0.01), ("1_0.5_0", 10.5)),
        *(("inf", math.inf), ("-Infinity", -math.inf), ("1E2", 100.0), ("-0", 0.0)),
    ],
)
def test_numbers(text: str, expected: float) -> None:
    """They are read as Go reads them."""
    assert expected == number(text)


def test_no_number() -> None:
    """NaN is read as one, and a number beyond 64 bits is refused."""
    assert math.isnan(number("nAn"))
    for text in ("", ".", "e5", " 1", "1 ", "1__0", "_1", "+nan", "٥", "1e", "1e400"):  # noqa: RUF001
        with pytest.raises(ValueError, match=f"^{re.escape(text)}$|could not convert"):
            number(text)


def test_switches() -> None:
    """Six texts mean yes, six no, and nothing else is one."""
    yes = ("1", "t", "T", "TRUE", "true", "True")
    no = ("0", "f", "F", "FALSE", "false", "False")
    assert [True] * 6 + [False] * 6 == [switch(text) for text in yes + no]
    for text in ("", "yes", "tRUE", " true"):
        with pytest.raises(ValueError, match=f"^{text}$"):
            switch(text)
