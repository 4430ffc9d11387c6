"""What is agreed on with a store."""

from datetime import timedelta
from typing import Any

import pytest

from nsqlite import InvalidOption, SQLite
from nsqlite.store import Codec, StoreOptions
from nsqlite.store.codec import KNOWN
from nsqlite.store.terms import DEFAULTS, Terms, agree


def test_the_defaults() -> None:
    """What is not given is as the docstring of the options says."""
    assert agree({}) == Terms(
        sync="normal",
        attempts="late",
        sync_every=2500,
        sync_timeout=200_000_000,
        mem_queue_size=10_000,
        mem_queue_bytes=64 * 1024 * 1024,
        codec=None,
    )


def test_each_option_has_a_default() -> None:
    """The options that a type checker knows are those that have defaults."""
    assert set(DEFAULTS) == set(StoreOptions.__annotations__)
    documented = [
        line.split(":")[0].strip() for line in (StoreOptions.__doc__ or "").splitlines()[2:]
    ]
    assert set(DEFAULTS) <= set(documented)


def test_all_options() -> None:
    """What is given is agreed on; seconds become nanoseconds, and names what they name."""
    mine = Codec("mine", str.encode, bytes.decode)
    assert agree(
        {
            "sync": "full",
            "attempts": "durable",
            "sync_every": 1,
            "sync_timeout": 0.000_000_001,
            "mem_queue_size": 1,
            "mem_queue_bytes": 2,
            "codec": mine,
        }
    ) == Terms(
        sync="full",
        attempts="durable",
        sync_every=1,
        sync_timeout=1,
        mem_queue_size=1,
        mem_queue_bytes=2,
        codec=mine,
    )
    assert KNOWN["pickle"] is agree({"codec": "pickle"}).codec
    assert "interval" == agree({"sync": "interval"}).sync


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("sync", "never"),
        ("sync", True),
        ("sync", None),
        ("attempts", "never"),
        ("sync_every", 0),
        ("sync_every", 1.5),
        ("sync_every", True),
        ("sync_timeout", 0),
        ("sync_timeout", -1),
        ("sync_timeout", float("nan")),
        ("sync_timeout", "1"),
        ("mem_queue_size", 0),
        ("mem_queue_size", "many"),
        ("mem_queue_bytes", 0),
        ("mem_queue_bytes", 0.5),
        ("codec", "yaml"),
    ],
)
def test_out_of_range(name: str, value: object) -> None:
    """An option that is out of its range is refused, by the store too."""
    options: Any = {name: value}
    with pytest.raises(InvalidOption) as info:
        agree(options)
    assert name == info.value.option
    assert value is info.value.value
    with pytest.raises(InvalidOption):
        SQLite("jobs.db", **options)


def test_words_are_told() -> None:
    """A word that is none of an option's is refused with those that are."""
    wrong: Any = {"sync": "off"}
    with pytest.raises(InvalidOption) as info:
        agree(wrong)
    assert str(InvalidOption("sync", "off", "'full' or 'normal' or 'interval'")) == str(info.value)


def test_an_unknown_option() -> None:
    """What is no option is refused with those that are."""
    wrong: Any = {"fsync": True}
    with pytest.raises(InvalidOption) as info:
        agree(wrong)
    known = "attempts, codec, mem_queue_bytes, mem_queue_size, sync, sync_every, sync_timeout"
    expected = str(InvalidOption("option of a store", "fsync", f"one of {known}"))
    assert expected == str(info.value)


def test_a_timedelta() -> None:
    """A time can be a `timedelta`, also how long to wait for the file."""
    minute = timedelta(minutes=1)
    assert agree({"sync_timeout": 60}) == agree({"sync_timeout": minute})
    assert 60_000_000_000 == SQLite("jobs.db", wait=minute, sync_timeout=minute)._patience
