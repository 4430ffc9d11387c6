"""What a storage is to those who write one: the calls, and what they carry.

The rule: `write` is all or nothing, and what it returned for survives what the store promises to
survive.  A batch that is written twice has the same effect as one written once.

A storage knows nothing of time, threads, locks or consumers: the journal calls it from one thread
at a time, except that what reads messages, `copy_log` and `backup` may be called beside the rest.

It keeps rows:

    topic    number, name, paused, handed
    channel  number, topic, name, paused, since
    message  topic, id, timestamp, due, only, codec, data     once, however many channels hold it
    copy     channel, id, attempts, due, or gone              only where it is not plainly ready

Who holds a message follows from the rows and from nothing else:

- a channel holds the messages of its topic with an id above `since` for which it has no copy that
  is gone: those meant for it `only`, and those meant for all, but while the topic is paused just
  those up to `handed`;
- the topic itself holds those above `handed` while it is paused or has no channel, but for those
  meant for one channel `only`;
- a message that nobody holds is to be forgotten.

How many these are is counted from the rows; to do so takes long where they are many, so a topic
whose last batch said so (`counted`) has its counts from there.

Next: store/codec.py
"""

from operator import itemgetter
from typing import Final, Protocol, TypeAlias

import attrs

GONE: Final = None
"""The copy of a channel that has done with a message."""

Copy: TypeAlias = tuple[int, int | None] | None
"""Deliveries so far, and until when it waits (nanoseconds since the epoch); `GONE`.

None for the latter leaves an earlier one as it is: what had to wait once stays apart."""

HIGHEST: Final = (1 << 63) - 1
"""The highest id that there can be, and the latest moment."""

LONGEST: Final = 999_000_000
"""Bytes of the longest body that every storage can keep."""

FIRST: Final = (-(1 << 63), 0)
"""What `Storage.read_deferred` is given as `behind` for the first page."""

Row: TypeAlias = tuple[int, int, int | None, int | None, str | None, bytes]
"""A message: id, timestamp, due (both in nanoseconds since the epoch), the number of the only
channel it is meant for, the codec that made the bytes, and the bytes."""

Found: TypeAlias = tuple[int, int, int | None, str | None, bytes, int, bool]
"""A message of a channel: id, timestamp, due, codec, bytes, deliveries so far, and whether it is
intact, as far as the storage can tell."""


PAGE_BYTES: Final = 1 << 20
"""When the bodies of a page have so many bytes, it has all but one more message; see `cut`."""

_DATA: Final = itemgetter(4)
"""Returns the bytes of a message that was found."""


def cut(found: list[Found], limit: int) -> tuple[list[Found], bool]:
    """Return what has room in a page, and whether there is more.

    Args:
        found: what was found, perhaps more than that.
        limit: how many there may be.
    """
    size = 0
    for count, data in enumerate(map(_DATA, found)):
        if count == limit or size >= PAGE_BYTES:
            return found[:count], True
        size += len(data)
    return found, False


def page_of(found: list[Found], limit: int) -> list[Found]:
    """Return what a storage returns of all that it has found: what `cut` needs; see `Storage.read`.

    Args:
        found: what was found.
        limit: how many there may be; -1 for all.
    """
    return found if limit < 0 else found[: min(limit, len(cut(found, limit)[0]) + 1)]


@attrs.define(kw_only=True)
class StoredChannel:
    """A channel as it is kept.

    Attributes:
        number: 1 or more, and never that of another channel that the store has or had.
        topic: the topic's number.
        name: its name.
        paused: whether it is paused.
        since: it holds no message with an id up to this.
        held: how many messages it holds; see `StoredTopic.counted`.
    """

    number: int
    topic: int
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
        handed: the id up to which its messages were handed to the channels.  It says nothing while
            the topic has a channel and is not paused: then all were.
        held: how many messages the topic itself holds.
        counted: `held` is exact, here and in the topic's channels.  In a batch: as of this batch,
            after which nothing was written of the topic.  Any other batch with anything of the
            topic, and any row or attempts written besides, makes it False in the storage.
    """

    number: int
    name: str
    paused: bool = False
    handed: int = 0
    held: int = 0
    counted: bool = False


@attrs.define
class Batch:
    """What is to be written in one piece: what has changed, as it is after all that happened.

    What is gone goes first, which frees its names; then topics, channels, rows, what was emptied,
    copies.  It may tell of a topic or channel that is gone in the same batch: that is left out.

    Attributes:
        topics: topics that are new or have changed.
        channels: channels that are new or have changed.
        gone_channels: the numbers of channels that are no more, with the topic's.
        gone_topics: the numbers of topics that are no more, with all their channels.
        rows: new messages, by the topic's number.
        copies: what has become of messages in channels, by the numbers of topic and channel and
            then by id; what the topic itself held has None for the channel.  A message may be new
            in this batch; if it is gone in every channel that holds it, it need not be written.
        emptied: what topics held and nobody is to get: a topic's number, and after and up to which
            id; but for messages meant for one channel alone.
        unheld: the numbers of topics in which there may be messages that nobody holds.
        highest: no message that was ever put has a higher id; 0 says nothing.
        now: the time when something was requeued last, as far as this tells of it; 0 says nothing.
        drift: how much the wall's time is ahead of the one that `now` and whatever waits are told
            in, since it was set while the storage was open; None says nothing.
    """

    topics: dict[int, StoredTopic] = attrs.Factory(dict)
    channels: dict[int, StoredChannel] = attrs.Factory(dict)
    gone_channels: dict[int, int] = attrs.Factory(dict)
    gone_topics: dict[int, None] = attrs.Factory(dict)
    rows: dict[int, list[Row]] = attrs.Factory(dict)
    copies: dict[tuple[int, int | None], dict[int, Copy]] = attrs.Factory(dict)
    emptied: list[tuple[int, int, int]] = attrs.Factory(list)
    unheld: set[int] = attrs.Factory(set)
    highest: int = 0
    now: int = 0
    drift: int | None = None


class Storage(Protocol):
    """An open storage.

    Every method raises `StoreError` where the storage fails, and has then changed nothing.
    """

    def load(self) -> tuple[list[StoredTopic], list[StoredChannel]]:
        """Return the topics and channels, by their numbers; called once, first.

        Their counts are right only where `counted` says so: nothing is counted here.
        """
        ...

    def count(self, topic: int) -> tuple[int, dict[int, int]]:
        """Return how many messages a topic itself holds, and each of its channels, by number.

        They are counted from the rows, unless the topic is `counted`; the calling thread is the
        one that writes.
        """
        ...

    def highest(self) -> tuple[int, int, int]:
        """Return the highest numbers that a topic and a channel ever had, and the highest id.

        0 if there was none.
        """
        ...

    def last(self, topic: int) -> int:
        """Return the highest id of the messages that a topic has; 0 if it has none."""
        ...

    def set_clock(self, now: int) -> None:
        """Take note of the wall's time, before anything is read apart.

        First all that waits does so until `drift` later, and `now` counts as that much later, which
        makes the drift 0: then it is told in the wall's time again.

        Where the clock was set back no wait is to become longer than what was asked for.  If `now`
        is before the highest `Batch.now`, all copies that wait do so until that much earlier, and
        `now` counts as the highest.  A message that waits, and has a later timestamp, counts from
        then on as put now, with the same delay.
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
            limit: how many at most, and no more than what `cut` needs; -1 for all.

        Returns:
            Those that are neither deferred nor apart and for which the channel has no copy that is
            gone: the ids tell what it holds of them.
        """
        ...

    def read_deferred(
        self,
        topic: int,
        channel: int | None,
        between: tuple[int, int],
        behind: tuple[int, int],
        limit: int,
    ) -> list[Found]:
        """Return the messages that wait, or had to wait, for a time, in the order of due and id.

        Args:
            topic: the topic's number.
            channel: the channel's; None for what the topic itself holds.
            between: only ids above the first of these and up to the other; but those meant for the
                channel alone may be above that.
            behind: only those behind this due and id.
            limit: how many at most, and no more than what `cut` needs; -1 for all.
        """
        ...

    def count_deferred(self, topic: int, channel: int | None, between: tuple[int, int]) -> int:
        """Return how many `read_deferred` would return of all."""
        ...

    def read_apart(self, topic: int, channel: int | None, after: int, upto: int) -> list[Found]:
        """Return the messages of a channel that come neither in the order of ids nor of times.

        These are those meant for it alone which never had to wait, and those that are damaged so
        that it cannot be told until when they wait.

        Args:
            topic: the topic's number.
            channel: the channel's; None for what the topic itself holds.
            after: only ids above this.
            upto: only ids up to this, but for those meant for the channel alone.
        """
        ...

    def find(self, topic: int, channel: int | None, identity: int) -> list[Found]:
        """Return a message by its id, if it is there and not meant for another channel alone.

        Args:
            topic: the topic's number.
            channel: the channel's; None for what the topic itself holds.
            identity: the id.

        Returns:
            The message, unless the channel's copy of it is gone; whether it is the channel's, or
            the topic's still, the ids tell.
        """
        ...

    def alone(self, topic: int, channel: int, above: int) -> list[int]:
        """Return the ids above one of the messages that are meant for a channel alone."""
        ...

    def copy_log(self) -> None:
        """Do what keeps it small and may take long; called beside the writes."""
        ...

    def copy_all(self) -> None:
        """Do what keeps it small at once, if more is written than `copy_log` can follow.

        Called between the writes.
        """
        ...

    def tidy(self) -> bool:
        """Do a little of what keeps it small; called between the writes.

        Returns:
            Whether there is more to do.
        """
        ...

    def backup(self, path: str) -> None:
        """Write a copy of all that was written, as of one moment, to a new file; may take long."""
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
