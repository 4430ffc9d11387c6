"""What a store is to those who write one: the calls, and what they carry.

The rule: `write` is all or nothing, and what it returned for survives what the store promises to
survive.  A batch that is written twice has the same effect as one written once.

A store knows nothing of time, threads, locks or consumers: the `Keeper` calls it from one thread at
a time, except that `read`, `read_apart` and `copy_log` may be called beside the rest.

It keeps rows:

    topic    number, name, paused, handed, last, held
    channel  number, topic, name, paused, since, held
    message  topic, id, timestamp, due, only, codec, data     once, however many channels hold it
    copy     channel, id, attempts, due, or gone              only where it is not plainly ready

A channel holds the messages of its topic with an id above `since` for which it has no copy that is
gone, and which are not meant for another one `only`.  A topic itself holds those above `handed`
while it is paused or has no channel.  A message that nobody holds is to be forgotten.

Next: store/codec.py
"""

from typing import Final, Protocol, TypeAlias

import attrs

GONE: Final = None
"""The copy of a channel that has done with a message."""

Copy: TypeAlias = tuple[int, int | None] | None
"""Deliveries so far, and until when it waits (nanoseconds since the epoch); `GONE`.

None for the latter leaves an earlier one as it is: what had to wait once stays apart."""

Row: TypeAlias = tuple[int, int, int | None, int | None, str | None, bytes]
"""A message: id, timestamp, due (both in nanoseconds since the epoch), the number of the only
channel it is meant for, the codec that made the bytes, and the bytes."""

Found: TypeAlias = tuple[int, int, int | None, str | None, bytes, int]
"""A message of a channel: id, timestamp, due, codec, bytes, deliveries so far."""


@attrs.define(kw_only=True)
class StoredChannel:
    """A channel as it is kept.

    Attributes:
        number: 1 or more, and never that of another channel that the store has or had.
        name: its name.
        paused: whether it is paused.
        since: it holds no message with an id up to this.
        held: how many messages it holds; in a batch, of those up to the topic's `last`.
    """

    number: int
    name: str
    paused: bool = False
    since: int = 0
    held: int = 0


@attrs.define(kw_only=True)
class StoredTopic:
    """A topic as it is kept.

    Attributes:
        number: 1 or more, and never that of another topic that the store has or had.
        name: its name.
        paused: whether it is paused.
        handed: the id up to which its messages were handed to the channels.
        last: no message that it ever had has a higher id; in a batch, none that is counted.
        held: how many messages are above `handed`; in a batch, of those up to `last`.
        channels: its channels.
    """

    number: int
    name: str
    paused: bool = False
    handed: int = 0
    last: int = 0
    held: int = 0
    channels: list[StoredChannel] = attrs.Factory(list)


@attrs.define
class Batch:
    """What is to be written in one piece.

    What is gone goes first, which frees its names; then topics, rows, what was emptied, copies.

    Attributes:
        topics: topics as they are now, with their channels; new ones are made.
        gone_channels: the numbers of channels that are no more, with the topic's.
        gone_topics: the numbers of topics that are no more.
        rows: new messages, by the topic's number.
        copies: what has become of messages in channels, by the numbers of topic and channel and
            then by id; what the topic itself held has None for the channel.
        emptied: what topics held and nobody is to get: a topic's number, and after and up to which
            id; but for messages meant for one channel alone.
        unheld: the numbers of topics in which there may be messages that nobody holds.
    """

    topics: list[StoredTopic] = attrs.Factory(list)
    gone_channels: list[tuple[int, int]] = attrs.Factory(list)
    gone_topics: list[int] = attrs.Factory(list)
    rows: list[tuple[int, list[Row]]] = attrs.Factory(list)
    copies: list[tuple[int, int | None, dict[int, Copy]]] = attrs.Factory(list)
    emptied: list[tuple[int, int, int]] = attrs.Factory(list)
    unheld: set[int] = attrs.Factory(set)


class Storage(Protocol):
    """An open store.

    Every method raises `StoreError` where the store fails, and has then changed nothing.
    """

    def load(self) -> list[StoredTopic]:
        """Return the topics and channels, their counts exact; called once, first."""
        ...

    def highest(self) -> tuple[int, int, int]:
        """Return the highest numbers that a topic and a channel ever had, and an id's.

        The last one is at least that of the messages of topics that are no more; 0 if there was
        none.
        """
        ...

    def write_row(self, number: int, row: Row) -> None:
        """Write a new message of a topic: the shortest batch."""
        ...

    def write_rows(self, number: int, rows: list[Row]) -> None:
        """Write new messages of a topic, all or none: a batch of nothing else, made short."""
        ...

    def write_attempts(self, number: int, channel: int, copies: list[tuple[int, int]]) -> None:
        """Write how often messages of a channel were delivered, by id, but for those gone already.

        Args:
            number: the topic's.
            channel: the channel's.
            copies: ids, and deliveries so far; an earlier `due` stays.
        """
        ...

    def write(self, batch: Batch) -> None:
        """Write a batch, all or nothing."""
        ...

    def read(
        self, topic: int, channel: int | None, after: int, upto: int, limit: int
    ) -> list[Found]:
        """Return messages that are ready, in the order of their ids.

        Args:
            topic: the topic's number.
            channel: the channel's; None for what the topic itself holds.
            after: only ids above this.
            upto: only ids up to this.
            limit: how many at most; -1 for all.

        Returns:
            Those that the channel holds and that are not apart.
        """
        ...

    def read_apart(self, topic: int, channel: int | None, after: int, upto: int) -> list[Found]:
        """Return the messages of a channel or topic that do not come in the order of their ids.

        These are those that wait, or had to wait, for a time, and those meant for it alone.

        Args:
            topic: the topic's number.
            channel: the channel's; None for what the topic itself holds.
            after: only ids above this.
            upto: only ids up to this, but for those meant for the channel alone.
        """
        ...

    def copy_log(self) -> None:
        """Do what keeps it small and may take long; called beside the writes."""
        ...

    def tidy(self) -> bool:
        """Do a little of what keeps it small; called between the writes.

        Returns:
            Whether there is more to do.
        """
        ...

    def close(self) -> None:
        """Close it for good; whoever opens it next finds all that was written."""
        ...

    def abandon(self) -> None:
        """In the child of a fork: let go of it without touching it."""
        ...


def name_of(number: int) -> str:
    """Return an id in its 16 characters."""
    return f"{number:016x}"
