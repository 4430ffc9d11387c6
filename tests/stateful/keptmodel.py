"""A slow, obvious broker that is kept, in plain dicts, to compare the real one with.

The rule: all that a file may be found to hold after a crash is written out: one image for every
moment since all was last written for sure.  What is written at once is put into each of them.

Times are integer nanoseconds since the epoch.
"""

from collections.abc import Iterator
from copy import deepcopy
from typing import Any, Final, TypeAlias

import attrs

from stateful.snapshots import HELD, SECOND, Seen, SeenChannel, SeenTopic

MSG_TIMEOUT: Final = 4 * SECOND
MAX_MSG_TIMEOUT: Final = 8 * SECOND


@attrs.define(eq=False)
class Copy:
    """A message in a channel, or one that a topic holds.

    Attributes:
        plain: it was put without a delay, and neither moved to this channel alone.
        due: until when it waits.
        deadline: until when it is in flight; None if it is not.
        longest: the last moment to which a touch can stretch that.
    """

    id: str
    body: bytes
    plain: bool = True
    attempts: int = 0
    due: int | None = None
    deadline: int | None = None
    longest: int = 0

    def is_ready(self, now: int) -> bool:
        return self.deadline is None and (self.due is None or self.due <= now)

    def is_waiting(self, now: int) -> bool:
        return self.deadline is None and not self.is_ready(now)


@attrs.define(eq=False)
class Queue:
    """A channel."""

    name: str
    paused: bool = False
    copies: dict[str, Copy] = attrs.Factory(dict)


@attrs.define(eq=False)
class Stream:
    """A topic and what it holds itself."""

    name: str
    paused: bool = False
    held: dict[str, Copy] = attrs.Factory(dict)
    channels: dict[str, Queue] = attrs.Factory(dict)

    def hand_on(self) -> None:
        """Give the channels what the topic holds, if it may."""
        if self.channels and not self.paused:
            for queue in self.channels.values():
                queue.copies.update(deepcopy(self.held))
            self.held.clear()


Image: TypeAlias = dict[str, Stream]
"""The topics that are kept, by name."""


def is_kept(name: str) -> bool:
    return not name.endswith("#ephemeral")


class KeptModel:
    """A broker with a file.

    Attributes:
        topics: what there is now.
        images: what the file may hold.
        now: the wall's time.
    """

    def __init__(self, now: int, *, interval: bool, durable: bool) -> None:
        """Begin with an empty file."""
        self.interval: Final = interval
        self.durable: Final = durable
        self.now = now
        self.topics: dict[str, Stream] = {}
        self.images: list[Image] = [{}]

    # The file

    def image(self) -> Image:
        """Return what would be found if all were written now."""
        image = {name: deepcopy(stream) for name, stream in self.topics.items() if is_kept(name)}
        for stream in image.values():
            for name in list(stream.channels):
                if not is_kept(name):
                    del stream.channels[name]
                    stream.hand_on()
            for queue in stream.channels.values():
                for copy in queue.copies.values():
                    copy.deadline = None
        return image

    def passed(self) -> None:
        """Take note that something happened, of which the file may hear soon."""
        self.images.append(self.image())

    def written(self) -> None:
        """Take note that all is written."""
        self.images = [self.image()]

    def find(self, seen: dict[str, SeenTopic]) -> Image | None:
        """Return the image that was seen, if any was; None if the file holds anything else."""
        for image in reversed(self.images):
            if seen == self.look(image):
                return image
        return None

    def look(self, image: Image) -> dict[str, SeenTopic]:
        """Return what is seen of an image."""
        found = {}
        for name, stream in image.items():
            topic = SeenTopic(stream.paused, len(stream.held))
            for queue in stream.channels.values() or [Queue(HELD)]:
                copies = {**stream.held, **queue.copies}
                topic.channels[queue.name] = SeenChannel(
                    queue.paused, {copy.id: self.seen(copy) for copy in copies.values()}
                )
            found[name] = topic
        return found

    def seen(self, copy: Copy) -> Seen:
        due = copy.due if copy.due is not None and copy.due > self.now else None
        return Seen(copy.body, copy.attempts, due)

    def reopen(self, image: Image) -> None:
        """Go on with what was in the file."""
        self.topics = deepcopy(image)
        self.images = [image]

    # Puts

    def put(self, stream: Stream, ids: list[str], bodies: list[bytes], due: int | None) -> None:
        """Publish messages; with a file that hears of it at once, in every image."""
        pairs = zip(ids, bodies, strict=True)
        copies = [Copy(one, body, due is None, due=due) for one, body in pairs]
        self.receive(stream, copies)
        if is_kept(stream.name) and not self.interval:
            for image in self.images:
                self.receive(image[stream.name], copies)
        self.passed()

    def receive(self, stream: Stream, copies: list[Copy]) -> None:
        for copy in copies:
            stream.held[copy.id] = deepcopy(copy)
        stream.hand_on()

    # Consumers

    def deliver(self, stream: Stream, queue: Queue, copy: Copy, timeout: int) -> None:
        """Deliver a message, which is counted."""
        copy.attempts += 1
        copy.due = None
        copy.deadline = self.now + timeout
        copy.longest = self.now + MAX_MSG_TIMEOUT
        kept = is_kept(stream.name) and is_kept(queue.name)
        if self.durable and kept:
            self.count(stream.name, queue.name, copy)
        self.passed()

    def count(self, stream: str, queue: str, copy: Copy) -> None:
        """Have a delivery in the file, and so the message; other things may still be late."""
        images = []
        for image in self.images:
            there = image.get(stream)
            known = there and there.channels.get(queue)
            if known and copy.id in known.copies:
                known.copies[copy.id].attempts = copy.attempts
                images.append(image)
        self.images = images

    def touch(self, copy: Copy, timeout: int) -> None:
        copy.deadline = min(self.now + timeout, copy.longest)

    def fin(self, queue: Queue, ids: list[str]) -> None:
        for one in ids:
            del queue.copies[one]
        self.passed()

    def req(self, copy: Copy, delay: int) -> None:
        copy.deadline = None
        copy.due = self.now + delay if delay else None
        self.passed()

    def move_to_topic(self, queue: Queue, copy: Copy, to: Stream, new: str) -> None:
        del queue.copies[copy.id]
        self.receive(to, [Copy(new, copy.body)])
        self.passed()

    def move_to_channel(self, queue: Queue, copy: Copy, place: Queue, new: str) -> None:
        del queue.copies[copy.id]
        place.copies[new] = Copy(new, copy.body, plain=False)
        self.passed()

    # Time

    def advance(self, step: int) -> None:
        self.now += step
        for _, _, copy in self.copies():
            if copy.deadline is not None and copy.deadline <= self.now:
                copy.deadline = None

    # Looking

    def copies(self) -> Iterator[tuple[Stream, Queue, Copy]]:
        for stream in self.topics.values():
            for queue in stream.channels.values():
                for copy in queue.copies.values():
                    yield stream, queue, copy

    def flying(self) -> list[tuple[Stream, Queue, Copy]]:
        return [place for place in self.copies() if place[2].deadline is not None]

    def rows(self) -> dict[str, set[int]]:
        """Return the messages that are worth a row, by topic."""
        rows = {}
        for name, stream in self.image().items():
            ids = set(stream.held).union(*(queue.copies for queue in stream.channels.values()))
            if ids:
                rows[name] = {int(one, 16) for one in ids}
        return rows

    def counts(self, queue: Queue) -> tuple[int, int, int]:
        """Return how many messages of a channel are ready, in flight and deferred."""
        copies = queue.copies.values()
        return (
            sum(copy.is_ready(self.now) for copy in copies),
            sum(copy.deadline is not None for copy in copies),
            sum(copy.is_waiting(self.now) for copy in copies),
        )

    def next_plain(self, queue: Queue) -> str | None:
        """Return the id of the first message that was never delivered and never waited."""
        fresh = [one for one, copy in queue.copies.items() if copy.plain and not copy.attempts]
        return min(fresh, default=None)


def any_of(things: list[Any], pick: int) -> Any:
    """Return one of some things."""
    return things[pick % len(things)]
