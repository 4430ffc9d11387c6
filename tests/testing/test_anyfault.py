"""What all faults have: when they strike, and their end."""

from typing import Any

import pytest

from nsqlite import InvalidOption
from nsqlite.testing.anyfault import AnyFault, AnyFaults, Chance


def made(seed: int = 0, **options: Any) -> AnyFault:
    """Return a fault that is set."""
    faults: AnyFaults[AnyFault, str] = AnyFaults(seed)
    fault = AnyFault(faults, "spill")
    fault._choose(options, Chance)
    return faults._add(fault)


def struck(fault: AnyFault, count: int) -> list[int]:
    """Return which of so many things are struck, counted from 1."""
    hits = []
    for at in range(1, count + 1):
        if fault._is_due():
            fault.count += 1
            hits.append(at)
    return hits


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [1, 2, 3, 4, 5]),
        ({"nth": 2}, [2]),
        ({"times": 2}, [1, 2]),
        ({"probability": 0.0}, []),
        ({"probability": 1.0}, [1, 2, 3, 4, 5]),
        ({"nth": 2, "times": 1}, [2]),
    ],
)
def test_a_fault_strikes_what_was_chosen(options: dict[str, Any], expected: list[int]) -> None:
    """It strikes all, only the n-th, or no more than so many."""
    assert expected == struck(made(**options), 5)


def test_chance_has_a_seed() -> None:
    """The same seed strikes the same things, another one others."""
    found = [struck(made(seed, probability=0.3), 50) for seed in (1, 1, 2)]
    assert found[0] == found[1] != found[2]


def test_a_seed_is_a_number() -> None:
    """Nothing else is drawn from."""
    with pytest.raises(InvalidOption, match="seed must be a whole number, not 'x'"):
        AnyFaults("x")  # type: ignore[arg-type]  # on purpose


def test_each_fault_has_a_chance_of_its_own() -> None:
    """The second one that is set is not struck like the first."""
    faults: AnyFaults[AnyFault, str] = AnyFaults()
    both = [AnyFault(faults, "spill"), AnyFault(faults, "spill")]
    for fault in both:
        fault._choose({"probability": 0.5}, Chance)
    assert struck(both[0], 50) != struck(both[1], 50)


def test_a_fault_ends() -> None:
    """With its block, when it is removed, or when all are cleared."""
    fault = made()
    faults = fault._faults
    with fault:
        assert (fault,) == faults.active
    assert not faults.active
    faults._add(fault)
    fault.remove()
    assert not faults.active
    faults._add(fault)
    faults.clear()
    assert not faults.active
    assert not faults.injected


def test_it_shows_what_it_does() -> None:
    """A fault its name and count, the faults their names."""
    fault = made()
    assert "<Fault 'spill' count=0>" == repr(fault)
    assert "<AnyFaults ['spill']>" == repr(fault._faults)


def test_what_cannot_be_chosen_is_refused() -> None:
    """With what can be."""
    with pytest.raises(InvalidOption, match="option must be one of nth, probability, times"):
        made(client_id="a")
    with pytest.raises(InvalidOption, match="probability must be a number from 0 to 1, not 2"):
        made(probability=2)
    with pytest.raises(InvalidOption, match="probability must be a number from 0 to 1, not '1'"):
        made(probability="1")
