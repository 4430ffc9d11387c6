"""What is known of the topics of a file, and what a batch makes of it.

The rule: it is worked out before anything is written, from what was committed last and from the
batch alone.

Next: store/counts.py
"""

from collections.abc import Set as AbstractSet

import attrs

from nsqlite.store.schema import SHARED
from nsqlite.store.storage import GONE, HIGHEST, Batch, Copy, Row, StoredTopic


@attrs.frozen
class Known:
    """What is known of a topic.

    Attributes:
        partition: where its messages are.
        paused: whether it is paused.
        handed: see `StoredTopic`.
        counted: so says the file.
        channels: the numbers of its channels, with their `since`.
    """

    partition: int
    paused: bool = False
    handed: int = 0
    counted: bool = False
    channels: dict[int, int] = attrs.field(factory=dict)

    def uncounted(self) -> "Known":
        """Return the same when something of the topic was written."""
        return attrs.evolve(self, counted=False) if self.counted else self

    @property
    def flows(self) -> bool:
        """Whether what is put is the channels' at once."""
        return bool(self.channels) and not self.paused

    @property
    def upto(self) -> int:
        """Up to which id messages that are meant for all are the channels'."""
        return HIGHEST if self.flows else self.handed


def known_as(topic: StoredTopic, partition: int, channels: dict[int, int]) -> Known:
    """Return what is known of a topic that was read or is written."""
    return Known(partition, topic.paused, topic.handed, topic.counted, channels)


def changed(batch: Batch, topics: dict[int, Known], free: AbstractSet[int]) -> dict[int, Known]:
    """Return what is known after a batch of the topics of which it tells, and that are there then.

    Args:
        batch: what is to be written.
        topics: what is known before it.
        free: the partitions that no topic has.

    Raises:
        KeyError: it has rows or channels of a topic, the number of which this is, that is not
            there.
    """
    new: dict[int, Known] = {}
    left = sorted(free, reverse=True)
    for number, topic in batch.topics.items():
        before = topics.get(number) or Known(left.pop() if left else SHARED)
        new[number] = known_as(topic, before.partition, before.channels)
    for number in _needed(batch) | (_named(batch) & topics.keys()):
        if number not in new and number not in batch.gone_topics:
            new[number] = topics[number].uncounted()
    for number in batch.gone_topics:
        new.pop(number, None)
    for number, channels in _channels(batch, new).items():
        new[number] = attrs.evolve(new[number], channels=channels)
    return new


def _needed(batch: Batch) -> set[int]:
    """Return the topics without which a batch cannot be written, unless they are gone in it."""
    return {*batch.rows, *(channel.topic for channel in batch.channels.values())}


def _named(batch: Batch) -> set[int]:
    """Return the topics of which a batch tells something else, if they are there."""
    return {
        *batch.gone_channels.values(),
        *(number for number, _ in batch.copies),
        *(number for number, _, _ in batch.emptied),
        *batch.unheld,
    }


def _channels(batch: Batch, new: dict[int, Known]) -> dict[int, dict[int, int]]:
    """Return the channels after a batch, with their `since`, of topics that have others then."""
    topics = {*(one.topic for one in batch.channels.values()), *batch.gone_channels.values()}
    channels = {number: {**new[number].channels} for number in topics & new.keys()}
    for number, topic in batch.gone_channels.items():
        channels.get(topic, {}).pop(number, None)
    for number, channel in batch.channels.items():
        if number not in batch.gone_channels:
            channels.get(channel.topic, {})[number] = channel.since
    return channels


@attrs.frozen
class Messages:
    """What a batch tells of the messages of one topic.

    Attributes:
        rows: new ones.
        emptied: after and up to which ids it was emptied.
        copies: what has become of messages, by the numbers of channels that are there, and by id.
        gone: those ids that are gone, by the numbers of channels; None is the topic itself.
        finished: ids of messages that nobody holds, as all have done with them.
    """

    rows: list[Row]
    emptied: list[tuple[int, int]]
    copies: dict[int | None, dict[int, Copy]]
    gone: dict[int | None, AbstractSet[int]]
    finished: set[int]


def messages(batch: Batch, topics: dict[int, Known]) -> dict[int, Messages]:
    """Return what a batch tells of messages, by the numbers of those topics that are there."""
    copies: dict[int, dict[int | None, dict[int, Copy]]] = {}
    for (number, channel), noted in batch.copies.items():
        if number in topics and (channel is None or channel in topics[number].channels):
            copies.setdefault(number, {})[channel] = noted
    emptied: dict[int, list[tuple[int, int]]] = {}
    for number, after, upto in batch.emptied:
        emptied.setdefault(number, []).append((after, upto))
    told = topics.keys() & {*batch.rows, *emptied, *copies}
    return {
        number: _of_topic(
            topics[number],
            batch.rows.get(number, []),
            emptied.get(number, []),
            copies.get(number, {}),
        )
        for number in told
    }


def _of_topic(
    known: Known,
    rows: list[Row],
    emptied: list[tuple[int, int]],
    copies: dict[int | None, dict[int, Copy]],
) -> Messages:
    gone = {channel: _gone(noted) for channel, noted in copies.items()}
    finished = _finished(known, rows, gone)
    left = [row for row in rows if row[0] not in finished]
    return Messages(left, emptied, copies, gone, finished)


def _gone(copies: dict[int, Copy]) -> AbstractSet[int]:
    """Return the ids of copies that are gone."""
    if any(copies.values()):
        return {identity for identity, copy in copies.items() if copy is GONE}
    return copies.keys()


def _finished(known: Known, rows: list[Row], gone: dict[int | None, AbstractSet[int]]) -> set[int]:
    """Return the ids of messages that nobody holds, as all have done with them.

    A message that not all channels held may be finished, too, and is not found here.
    """
    finished = set(gone.get(None, ()))
    if known.channels and known.channels.keys() <= gone.keys():
        first, *others = (gone[channel] for channel in known.channels)
        finished |= set(first).intersection(*others)
    finished.update(row[0] for row in rows if row[3] is not None and row[0] in gone.get(row[3], ()))
    return finished
