"""Faults: which of the things that come they strike."""

from typing import Any

import pytest

from nsqlite import InvalidOption
from nsqlite.testing import Faults, ManualClock


def made(**options: Any) -> Faults:
    return Faults(ManualClock(start=100), **options)


def struck(faults: Faults, count: int, what: str = "FIN") -> list[int]:
    """Return which of so many things are struck, counted from 1."""
    return [at for at in range(1, count + 1) if faults._hit(what, 1, "")]


def test_the_first_fault_strikes() -> None:
    """Of two that could strike the same, the first one does, and the second when that is over."""
    faults = made()
    first, second = faults.lose("FIN", times=1), faults.delay("FIN", 1)
    assert [1, 2] == struck(faults, 2)
    assert (1, 1) == (first.count, second.count)


def test_a_fault_is_for_one_client() -> None:
    """One that names a client strikes no other."""
    faults = made()
    faults.lose("FIN", client_id="a")
    hits = [faults._hit("FIN", 1, client_id) is not None for client_id in ("", "a", "b")]
    assert [False, True, False] == hits


def test_a_fault_is_for_the_next_connection() -> None:
    """It strikes on the connection that is made next, and on no other."""
    faults = made()
    faults._met(1)
    faults.lose("FIN", next_connection=True)
    assert faults._hit("FIN", 1, "") is None
    faults._met(2)
    faults._met(3)
    hits = [faults._hit("FIN", number, "") is not None for number in (1, 2, 3)]
    assert [False, True, False] == hits


def test_a_drop_counts_each_connection() -> None:
    """Each connection is dropped after its own frames."""
    faults = made()
    faults.drop(after=2)
    hits = [faults._hit("sent", number, "") is not None for number in (1, 2, 1, 1, 2)]
    assert [False, False, True, False, True] == hits


def test_a_slow_connection_stays_slow() -> None:
    """What is read slowly is so until the fault is removed, and told once."""
    faults = made()
    fault = faults.slow(10, times=1)
    assert [10, 10, 0] == [faults._rate(number, "") for number in (1, 1, 2)]
    assert 1 == len(faults.injected)
    fault.remove()
    assert 0 == faults._rate(1, "")


def test_a_fault_is_removed() -> None:
    """It strikes until it is removed, by a call, at the end of a block, or with all others."""
    faults = made()
    fault = faults.lose("FIN")
    with faults.lose("REQ") as other:
        assert [fault, other] == list(faults.active)
    assert [fault] == list(faults.active)
    fault.remove()
    fault.remove()
    assert [] == struck(faults, 2)
    faults.cut()
    faults.refuse()
    faults.clear()
    assert not faults.active


def test_what_was_struck_is_told() -> None:
    """It is told what was struck, where, and when."""
    faults = made()
    faults.lose("FIN", nth=2)
    faults.cut()
    struck(faults, 2)
    faults._hit("message", 7, "a")
    assert [("lose FIN", "FIN", 1, "", 100.0), ("cut", "message", 7, "a", 100.0)] == list(
        faults.injected
    )


def test_they_show_what_they_do() -> None:
    """A fault shows its name and count, and all of them their names."""
    faults = made()
    fault = faults.lose("OK")
    faults.drop(after=1)
    assert repr(fault) == "<Fault 'lose OK' count=0>"
    assert repr(faults) == "<Faults ['lose OK', 'drop']>"


@pytest.mark.parametrize(
    ("call", "arguments", "options", "text"),
    [
        ("lose", ["FUN"], {}, r"what must be one of .*\(did you mean 'FIN'\?\), not 'FUN'"),
        ("fail", ["FIN"], {}, "what must be one of DPUB, MPUB, PUB.*not 'FIN'"),
        ("cut", ["FIN"], {}, "what must be one of CLOSE_WAIT, OK, .*not 'FIN'"),
        ("lose", ["FIN"], {"nht": 1}, r"option must be one of .*\(did you mean 'nth'\?\)"),
        ("lose", ["FIN"], {"nth": 0}, "nth must be a whole number of at least 1, not 0"),
        ("lose", ["FIN"], {"times": 0}, "times must be a whole number of at least 1, not 0"),
        ("lose", ["FIN"], {"probability": 2}, "probability must be a number from 0 to 1, not 2"),
        ("delay", ["FIN", -1], {}, "seconds must be .*, not -1"),
        ("drop", [], {"after": 0}, "after must be a whole number of at least 1, not 0"),
        ("slow", [0], {}, "bytes_per_second must be a number above 0, not 0"),
        ("refuse", [], {"client_id": "a"}, "client_id must be left out: nobody has said it yet"),
    ],
)
def test_what_cannot_be_is_refused(
    call: str, arguments: list[Any], options: dict[str, Any], text: str
) -> None:
    """A fault that cannot be is refused, and is not set."""
    faults = made()
    with pytest.raises(InvalidOption, match=text):
        getattr(faults, call)(*arguments, **options)
    assert not faults.active
