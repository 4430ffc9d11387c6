"""What is agreed on with a store: when it writes, what it counts, how much is held in memory.

The rule: an option that was accepted is in its range.

Next: store/schema.py
"""

from typing import Any, Final, Literal, TypedDict, get_args

import attrs

from nsqlite.errors import InvalidOption
from nsqlite.options import Seconds, nanoseconds, whole
from nsqlite.store.codec import Codec, checked_codec

Sync = Literal["full", "normal", "interval"]
"""What `put` waits for: that the message survives a loss of power; the death of the process; or for
nothing."""

Attempts = Literal["late", "durable"]
"""When a delivery is counted in the store: late, or before `get` returns."""


class StoreOptions(TypedDict, total=False):
    """The options of every store.

    sync: what `put` waits for: ``"full"``, ``"normal"`` or ``"interval"`` ("normal").
    attempts: when deliveries are counted: ``"late"`` or ``"durable"`` ("late").
    sync_every: of so many changes the store hears at once, about; a put counts as two (2500).
    sync_timeout: seconds after which it hears of any change (0.2).
    mem_queue_size: so many messages of a channel that are ready are held in memory, and as many
        that are deferred (10000).
    mem_queue_bytes: of which the bodies have so many bytes, about (64 MiB).
    codec: what keeps bodies that are not bytes: ``"json"``, ``"pickle"`` (which runs whatever code
        the file tells it to: only for files that nobody else can write), or a `Codec` (None).
    """

    sync: Sync
    attempts: Attempts
    sync_every: int
    sync_timeout: Seconds
    mem_queue_size: int
    mem_queue_bytes: int
    codec: str | Codec | None


@attrs.frozen(kw_only=True)
class Terms:
    """A complete set of options; made by `agree`.

    Attributes:
        sync_timeout: in nanoseconds.
    """

    sync: Sync
    attempts: Attempts
    sync_every: int
    sync_timeout: int
    mem_queue_size: int
    mem_queue_bytes: int
    codec: Codec | None


DEFAULTS: Final[dict[str, Any]] = {
    "sync": "normal",
    "attempts": "late",
    "sync_every": 2500,
    "sync_timeout": 0.2,
    "mem_queue_size": 10_000,
    "mem_queue_bytes": 64 << 20,
    "codec": None,
}


def agree(given: StoreOptions) -> Terms:
    """Return the terms that the options mean.

    Raises:
        InvalidOption: one is unknown or out of its range.
    """
    for name in given:
        if name not in DEFAULTS:
            known = ", ".join(sorted(DEFAULTS))
            raise InvalidOption("option of a store", name, f"one of {known}")
    chosen = {**DEFAULTS, **given}
    _one_of("sync", chosen["sync"], get_args(Sync))
    _one_of("attempts", chosen["attempts"], get_args(Attempts))
    return Terms(
        sync=chosen["sync"],
        attempts=chosen["attempts"],
        sync_every=whole("sync_every", chosen["sync_every"], 1),
        sync_timeout=nanoseconds("sync_timeout", chosen["sync_timeout"], above=True),
        mem_queue_size=whole("mem_queue_size", chosen["mem_queue_size"], 1),
        mem_queue_bytes=whole("mem_queue_bytes", chosen["mem_queue_bytes"], 1),
        codec=checked_codec(chosen["codec"]),
    )


def _one_of(option: str, value: object, known: tuple[str, ...]) -> None:
    if value not in known:
        raise InvalidOption(option, value, " or ".join(map(repr, known)))
