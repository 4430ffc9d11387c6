"""All that happened to a broker, in order, and what its file may hold for it; in plain dicts.

The rule: whatever changes makes a new state, and no state is changed afterwards.

Times are integer nanoseconds since the epoch.
"""

from copy import deepcopy
from typing import Final, TypeAlias

import attrs

from stateful.snapshots import HELD, SECOND, Seen, SeenChannel, SeenTopic

MSG_TIMEOUT: Final = 4 * SECOND
MAX_MSG_TIMEOUT: Final = 8 * SECOND


@attrs.define(eq=False)
class Copy:
    """A message in a channel, or one that a topic holds.

    Attributes:
        plain: it was put without a delay and never waited, so it comes in the order of the ids.
        due: until when it waits.
        attempts: its deliveries.
        returned: how many of them it has come back from.
        deadline: until when it is in flight; None if it is not.
        longest: the last moment to which a touch can stretch that.
    """

    body: bytes
    plain: bool = True
    due: int | None = None
    attempts: int = 0
    returned: int = 0
    deadline: int | None = None
    longest: int = 0

    def is_ready(self, now: int) -> bool:
        return self.deadline is None and (self.due is None or self.due <= now)

    def waits_until(self, now: int) -> int | None:
        return self.due if self.due is not None and self.due > now else None

    def come_back(self, due: int | None) -> None:
        self.deadline = None
        self.due = due
        self.plain = self.plain and due is None
        self.returned = self.attempts


@attrs.define(eq=False)
class Queue:
    """A channel."""

    paused: bool = False
    copies: dict[str, Copy] = attrs.Factory(dict)


@attrs.define(eq=False)
class Stream:
    """A topic and what it holds itself."""

    paused: bool = False
    held: dict[str, Copy] = attrs.Factory(dict)
    queues: dict[str, Queue] = attrs.Factory(dict)

    def take(self, copies: dict[str, Copy]) -> None:
        """Take what was put, and hand on what may be."""
        self.held.update(deepcopy(copies))
        if self.queues and not self.paused:
            for queue in self.queues.values():
                queue.copies.update(deepcopy(self.held))
            self.held.clear()


State: TypeAlias = dict[str, Stream]
"""The topics, by name."""

Counts: TypeAlias = dict[tuple[str, str, str], int]
"""How often a message was delivered, by topic, channel and id."""


@attrs.frozen
class Put:
    """A put: it makes the state after which number of events, and to which topic."""

    event: int
    topic: str
    copies: dict[str, Copy]


class History:
    """What happened to a broker, and how much of it its file has been found to hold.

    Attributes:
        now: the wall's time.
        delivered: how often messages were delivered; and `before`, when the last call returned.
        state: what there is now.
        states: what there was after each event; the first is before any.
        puts: all puts, in order.
        acknowledged: how many of them have returned, where a put waits for the file.
        surely: the file holds at least so many events, as what was told has returned.
        found: the file has been found to hold that many.
    """

    def __init__(self, now: int, *, puts_wait: bool, gets_wait: bool) -> None:
        self.puts_wait: Final = puts_wait
        self.gets_wait: Final = gets_wait
        self.now = now
        self.begin({}, {})

    def begin(self, state: State, seen: dict[str, SeenTopic]) -> None:
        """Begin anew with what was found in a file, and is this state; nothing is in flight."""
        self.state = deepcopy(state)
        for name, stream in self.state.items():
            for channel, queue in stream.queues.items():
                for one, copy in queue.copies.items():
                    copy.attempts = seen[name].channels[channel].messages[one].attempts
                    copy.come_back(copy.waits_until(self.now))
        self.states: list[State] = [deepcopy(self.state)]
        self.puts: list[Put] = []
        self.acknowledged = self.surely = self.found = 0
        self.delivered: Counts = {
            (topic, channel, one): copy.attempts
            for topic, stream in self.state.items()
            for channel, queue in stream.queues.items()
            for one, copy in queue.copies.items()
        }
        self.before = self.delivered.copy()

    # What happens

    def happened(self) -> None:
        """Take note that the state has changed by one event."""
        self.states.append(deepcopy(self.state))

    def put(self, topic: str, copies: dict[str, Copy]) -> None:
        self.state[topic].take(copies)
        self.happened()
        self.puts.append(Put(len(self.states) - 1, topic, copies))

    def deliver(self, topic: str, channel: str, one: str) -> None:
        copy = self.state[topic].queues[channel].copies[one]
        copy.attempts += 1
        copy.due = None
        copy.deadline = self.now + MSG_TIMEOUT
        copy.longest = self.now + MAX_MSG_TIMEOUT
        self.delivered[topic, channel, one] = copy.attempts

    def returned(self, *, surely: bool) -> None:
        """Take note that a call has returned, and whether by that all is in the file."""
        self.before = self.delivered.copy()
        if self.puts_wait:
            self.acknowledged = len(self.puts)
        if surely:
            self.surely = len(self.states) - 1

    # What a file may hold

    def explain(self, seen: dict[str, SeenTopic]) -> State | None:
        """Return what was found in a file, if it may be; None if it may not.

        It is the state after the first events, no fewer than were found there before, with the puts
        that were acknowledged since; or with one more, which has yet to return.
        """
        most = min(self.acknowledged + 1, len(self.puts)) if self.puts_wait else 0
        for events in range(max(self.found, self.surely), len(self.states)):
            for puts in range(self.acknowledged, most + 1):
                state = self.state_after(events, puts)
                if self.is_seen(state, seen, exactly=False):
                    self.found = events
                    return state
        return None

    def explains_all(self, seen: dict[str, SeenTopic]) -> bool:
        """Say whether what was found in a file is all that happened."""
        self.found = len(self.states) - 1
        return self.is_seen(self.state, seen, exactly=True)

    def state_after(self, events: int, puts: int) -> State:
        """Return the state after so many events, with what was put later by so many puts."""
        known = self.states[events]
        later = [put for put in self.puts[:puts] if put.event > events and put.topic in known]
        state = deepcopy(known) if later else known
        for put in later:
            state[put.topic].take(put.copies)
        return state

    def is_seen(self, state: State, seen: dict[str, SeenTopic], *, exactly: bool) -> bool:
        """Say whether a state is what was found."""
        return state.keys() == seen.keys() and all(
            self.is_topic(name, stream, seen[name], exactly=exactly)
            for name, stream in state.items()
        )

    def is_topic(self, name: str, stream: Stream, seen: SeenTopic, *, exactly: bool) -> bool:
        queues = stream.queues or {HELD: Queue()}
        return (
            (stream.paused, len(stream.held)) == (seen.paused, seen.held)
            and queues.keys() == seen.channels.keys()
            and all(
                self.is_channel(
                    (name, one), queue.copies | stream.held, seen.channels[one], exactly=exactly
                )
                and queue.paused == seen.channels[one].paused
                for one, queue in queues.items()
            )
        )

    def is_channel(
        self, place: tuple[str, str], copies: dict[str, Copy], seen: SeenChannel, *, exactly: bool
    ) -> bool:
        """Say whether these are its messages, and what never had to wait in the order of ids."""
        if copies.keys() != seen.messages.keys():
            return False
        plain = [one for one in seen.messages if copies[one].plain]
        return plain == sorted(plain) and all(
            self.is_copy((*place, one), copy, seen.messages[one], exactly=exactly)
            for one, copy in copies.items()
        )

    def is_copy(self, key: tuple[str, str, str], copy: Copy, seen: Seen, *, exactly: bool) -> bool:
        """Say whether a message is as it was found.

        Its deliveries may be counted late, up to when it comes back, unless a get waits for that.
        """
        if (copy.body, copy.waits_until(self.now)) != (seen.body, seen.due):
            return False
        if exactly:
            return copy.attempts == seen.attempts
        least = self.before.get(key, 0) if self.gets_wait else copy.returned
        return least <= seen.attempts <= self.delivered.get(key, 0)
