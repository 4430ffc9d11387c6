"""Bodies, spans of time and names in plain words."""

from typing import Any

import pytest
from hypothesis import given
from scenes import BODIES

from nsqlite.timeline import words


@pytest.mark.parametrize(
    ("body", "label"),
    [
        (b"order 1", "order 1"),
        ("order 1", "order 1"),
        (bytearray(b"order 1"), "order 1"),
        (b"\xff\x00", r"b'\xff\x00'"),
        ({"order": 1}, "{'order': 1}"),
        ("", "(empty)"),
        ("a\n  b", r"a\n b"),
        ("\x1b[31mred", r"\x1b[31mred"),
        ("a\u202eb", r"a\u202eb"),
        ("a" * 30, "a" * 23 + "…"),
        ("é" * 150, "é" * 23 + "…"),
    ],
)
def test_label(body: Any, label: str) -> None:
    """A label has a few characters of the body, in one line, and nothing that cannot be shown."""
    assert label == words.label(body)


def test_long_text_is_cut_between_characters() -> None:
    """Bytes that are text are shown as such, wherever they are cut."""
    assert "a" + "é" * 150 == words.plain(("a" + "é" * 150).encode())
    assert "a" + "漢" * 198 + "…" == words.plain(("a" + "漢" * 500).encode())


@given(BODIES)
def test_what_is_shown_can_be_printed(body: Any) -> None:
    """Whatever a body is, what is shown of it is short and can be printed."""
    assert words.plain(body).isprintable()
    assert 1 <= len(words.label(body)) <= words.LONGEST


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (0.0000994, "99 µs"),
        (0.0001, "0.1 ms"),
        (0.0099, "9.9 ms"),
        (0.01, "0.01 s"),
        (-5, "5 s"),
        (59.96, "1 min"),
        (119.7, "2 min"),
        (3599.8, "1 h"),
        (86399.9, "1 d"),
        (90000, "1 d 1 h"),
    ],
)
def test_span(seconds: float, text: str) -> None:
    """A span of time is told in the unit that suits it, and the next smaller one."""
    assert text == words.span(seconds)


def test_numbers_and_names() -> None:
    """One is singular, and of many names the last are counted."""
    assert ["1 step", "1,000 steps"] == [words.number(count, "step") for count in (1, 1000)]
    names = ["a", "b", "c", "d", "e"]
    assert ["a", "a and b", "a, b, c and 2 more"] == [
        words.listed(names[:count]) for count in (1, 2, 5)
    ]


def test_moments() -> None:
    """A moment is a date, or how long after the beginning it is."""
    assert "2023-11-14 22:13:20 UTC" == words.date(1.7e9)
    assert "100000000000000000000 s" == words.date(1e20)
    assert ["2.5", "3:02.5", "1:00:00.0"] == [words.offset(s, 1) for s in (2.5, 182.5, 3600)]
    assert [1, 3, 6, 3] == [
        words.decimals(spans) for spans in ([0, 2.5], [0, 2.505], [0.000001], [0.000001, 100])
    ]
    assert "1:00.0" == words.offset(59.99, 1)
