"""What must be, may be and must not be in a file after its process was killed.

The rule: only what the lines of the victim say counts.  An act has happened if it ended, and may
have happened if it began; one is before another if it ended before that began.

What is known of a message in a channel is worked out for it alone, from all acts that touch it; so
the order in which the threads did things need not be known.
"""

import json
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Any, Final

import attrs

from stateful.snapshots import HELD, Seen, SeenTopic

NEVER: Final = math.inf
TOLERANCE: Final = 100_000_000
"""Nanoseconds by which a delay may be off: the wall's clock and the other one are read apart."""

Window = tuple[int, int] | None
"""From when to when a message may be due; None if it is ready."""


@attrs.define(eq=False)
class Act:
    """Something the victim did, or began to do.

    Attributes:
        begin: the line with which it began.
        end: the line with which it ended; `NEVER` if it did not.
        done: whether it went through, as far as is known; a call that raised has not.
    """

    begin: float
    what: str
    topic: str
    channel: str
    keys: list[str]
    delay: float | None
    to: str
    began: int
    end: float = NEVER
    done: bool = True
    returned: Any = None
    ended: int = 0

    def is_before(self, other: "Act") -> bool:
        return self.end < other.begin

    def window(self) -> Window:
        """Return when what it defers is due."""
        if not self.delay:
            return None
        wait = int(self.delay * 1e9)
        return self.began + wait, (self.ended or self.began + 10_000_000_000) + wait


def read(lines: Iterable[str]) -> list[Act]:
    """Return the acts that lines tell of."""
    acts: dict[int, Act] = {}
    for place, line in enumerate(lines):
        kind, *rest = json.loads(line)
        assert kind != "error", rest[0]
        if kind == "b":
            number, what, topic, channel, keys, delay, to, began = rest
            acts[number] = Act(place, what, topic, channel, keys, delay, to, began)
        else:
            act = acts[rest[0]]
            act.end = place
            _, act.done, act.returned, act.ended = rest
    return list(acts.values())


class Story:
    """One life of the victim, beginning with what was in the file.

    Attributes:
        wrong: what is wrong with the file, in words.
    """

    def __init__(
        self,
        base: dict[str, SeenTopic],
        acts: list[Act],
        *,
        interval: bool,
        durable: bool,
        torn: bool = False,
    ) -> None:
        """Take what is known.

        Args:
            base: what was in the file before.
            acts: what the victim did.
            interval: what was put is written late.
            durable: what was delivered is written at once.
            torn: the end of what was written is lost, so nothing is sure but that each act is there
                as a whole, or not at all.
        """
        self.base: Final = base
        self.acts: Final = [act for act in acts if act.done]
        self.refused: Final = [act for act in acts if not act.done]
        self.interval: Final = interval
        self.durable: Final = durable and not torn
        self.torn: Final = torn
        self.flushes: Final = [
            act
            for act in self.acts
            if act.what in ("flush", "close") and act.end < NEVER and not torn
        ]
        self.by_what: Final[dict[str, list[Act]]] = defaultdict(list)
        self.by_place: Final[dict[tuple[str, str, str], list[Act]]] = defaultdict(list)
        for act in self.acts:
            self.by_what[act.what].append(act)
            self.by_place[act.what, act.topic, act.channel].append(act)
        self.start: Final = Act(-1, "put", "", "", [], None, "", 0, end=-1, ended=0)
        self.wrong: list[str] = []

    def find(self, what: str, topic: str, channel: str = "") -> list[Act]:
        return self.by_place[what, topic, channel]

    def is_flushed(self, act: Act) -> bool:
        """Return whether an act that may be written late is written for sure."""
        return any(act.is_before(flush) for flush in self.flushes)

    def is_written(self, act: Act) -> bool:
        """Return whether an act is written for sure: a put at once, but a move late, as a fin."""
        if act is self.start:
            return True
        if act.what == "move":
            return self.is_flushed(act)
        return self.is_flushed(act) if self.interval or self.torn else act.end < NEVER

    # Whether there may have been a pause

    def pauses(self, topic: str) -> Iterator[tuple[float, float]]:
        """Return when a topic may have been paused."""
        if topic == "lonely":
            yield -1, NEVER
        since: float | None = -1 if topic in self.base and self.base[topic].paused else None
        steps = self.find("pause", topic) + self.find("unpause", topic)
        for act in sorted(steps, key=lambda act: act.begin):
            if act.what == "pause" and since is None:
                since = act.begin
            elif act.what == "unpause" and since is not None and act.end < NEVER:
                yield since, act.end
                since = None
        if since is not None:
            yield since, NEVER

    def may_be_held(self, topic: str, begin: float, end: float) -> bool:
        return any(low <= end and begin <= high for low, high in self.pauses(topic))

    # What must and must not be

    def came(self, topic: str, channel: str) -> dict[str, Act]:
        """Return by which act each message came that may be in a channel."""
        known: dict[str, Act] = {}
        if topic in self.base:
            stored = self.base[topic]
            for name, place in stored.channels.items():
                if name == channel or stored.held:
                    known |= {seen.body.decode(): self.start for seen in place.messages.values()}
        for act in self.find("put", topic):
            known |= dict.fromkeys(act.keys, act)
        for act in self.by_what["move"]:
            if act.to in (f"{topic}:", f"{topic}:{channel}"):
                known[act.keys[1]] = act
        return known

    def birth(self, topic: str, channel: str) -> Act:
        """Return by which act a channel came last."""
        return self.births(topic, channel)[-1]

    def births(self, topic: str, channel: str) -> list[Act]:
        """Return by which acts a channel came, with deletions in between."""
        if channel == HELD:
            return [self.start]
        deletions = self.find("delete", topic, channel)
        stored = self.base.get(topic, SeenTopic()).channels
        births = [] if channel not in stored else [self.start]
        for act in self.find("channel", topic, channel):
            if not births or any(births[-1].end < gone.begin < act.begin for gone in deletions):
                births.append(act)
        return births

    def removals(self, topic: str, channel: str, key: str, came: Act) -> list[Act]:
        """Return the acts that may have taken a message away from a channel."""
        name = "" if channel == HELD else channel
        acts = [a for a in self.find("fin", topic, name) if key in a.keys]
        acts += [a for a in self.find("move", topic, name) if a.keys[0] == key]
        wiping = self.find("empty", topic, name) + self.find("delete", topic)
        if self.may_be_held(topic, came.begin, NEVER):
            wiping += self.find("empty", topic)
        return acts + [act for act in wiping if not act.end < came.begin]

    def is_gone(self, act: Act, came: Act) -> bool:
        """Return whether a removal has taken a message away for sure."""
        if act.what == "fin":
            return self.is_flushed(act)
        if act.what == "move":
            return self.is_written(act)
        if self.torn or act.end == NEVER or not came.is_before(act):
            return False
        if act.what == "empty" and act.channel:
            return not self.may_be_held(act.topic, came.begin, act.end)
        return act.what == "delete" or act.topic == "lonely"

    def is_due_there(self, topic: str, channel: str, key: str, came: Act) -> bool:
        """Return whether a message is in a channel for sure, if it came at all."""
        birth = self.birth(topic, channel)
        return (
            birth.is_before(came) or birth is came is self.start or birth is self.start
        ) and not self.removals(topic, channel, key, came)

    def is_too_early(self, topic: str, channel: str, came: Act) -> bool:
        """Return whether a message came before the channel, and was not held for it.

        What is torn may hold the first of several channels that had the name.
        """
        birth = self.births(topic, channel)[0 if self.torn else -1]
        return came.is_before(birth) and not self.may_be_held(topic, came.begin, birth.end)

    # Comparing

    def check(self, seen: dict[str, SeenTopic], now: int) -> list[str]:
        """Return what is wrong with what was found."""
        self.seen = seen
        self.now = now
        if not self.torn:
            self.check_places()
        for topic, stored in seen.items():
            for channel, place in stored.channels.items():
                found = {message.body.decode(): message for message in place.messages.values()}
                if len(found) != len(place.messages):
                    self.wrong.append(f"{topic}:{channel} has a body twice")
                self.check_channel(topic, channel, found)
        self.check_puts()
        self.check_moves()
        return self.wrong

    def check_places(self) -> None:
        """Compare which topics and channels there are, and whether they are paused."""
        for topic in {act.topic for act in self.acts if act.topic}:
            for channel in {act.channel for act in self.acts if act.topic == topic}:
                known = self.base.get(topic)
                if channel and known is not None:
                    there = channel in known.channels
                    paused = there and known.channels[channel].paused
                else:
                    there = known is not None
                    paused = known is not None and known.paused
                self.check_place(topic, channel, there=there, paused=paused)

    def check_place(self, topic: str, channel: str, *, there: bool, paused: bool) -> None:
        steps = [a for a in self.acts if a.topic == topic and channel in ("", a.channel)]
        deletions = [a for a in steps if a.what == "delete" and a.channel == channel]
        makers = [a for a in steps if a.what in ("channel", "topic", "put")]
        states = {there}
        flags = {paused}
        for act in sorted([*makers, *deletions], key=lambda act: act.begin):
            others = makers if act.what == "delete" else deletions
            sure = all(act.is_before(other) or other.is_before(act) for other in others)
            if act.what != "delete":  # it may have found what another is still making
                sure = sure and not any(a.end == NEVER and a.begin < act.end for a in makers)
                sure = sure and (act.what != "put" or self.is_written(act))
            fresh = act.what != "delete"
            states = {fresh} if sure and act.end < NEVER else states | {fresh}
            flags |= {False} if act.what == "delete" else set()
        for act in self.find("pause", topic, channel) + self.find("unpause", topic, channel):
            later = [a for a in steps if a.what in ("pause", "unpause") and act.is_before(a)]
            later = [a for a in later if a.channel == channel]
            flag = act.what == "pause"
            if act.end < NEVER and not any(a.end < NEVER for a in later):
                flags = {flag, *(a.what == "pause" for a in later)}
            elif act.end == NEVER:
                flags.add(flag)
        stored = self.seen.get(topic)
        found: Any = stored if not channel or stored is None else stored.channels.get(channel)
        if (found is not None) not in states:
            self.wrong.append(f"{topic}:{channel} is there: {found is not None}")
        elif found is not None and found.paused not in flags:
            self.wrong.append(f"{topic}:{channel} is paused: {found.paused}")

    def check_channel(self, topic: str, channel: str, found: dict[str, Seen]) -> None:
        came = self.came(topic, channel)
        for key in found.keys() - came.keys():
            self.wrong.append(f"{topic}:{channel} has {key}, which nobody put there")
        for key, act in came.items():
            gone = [
                removal
                for removal in self.removals(topic, channel, key, act)
                if self.is_gone(removal, act)
            ]
            if key not in found:
                lasts = act is not self.start or self.stored(topic, channel, key) is not None
                if lasts and self.is_written(act) and self.is_due_there(topic, channel, key, act):
                    self.wrong.append(f"{topic}:{channel} has lost {key}, from {act}")
                continue
            if gone:
                self.wrong.append(f"{topic}:{channel} has {key} again, which is gone: {gone[0]}")
            elif self.is_too_early(topic, channel, act):
                self.wrong.append(f"{topic}:{channel} has {key}, from before it was made")
            self.check_message(topic, channel, key, found[key], act)

    def check_message(self, topic: str, channel: str, key: str, seen: Seen, came: Act) -> None:
        """Compare the attempts and the delay of a message that is there."""
        old = self.stored(topic, channel, key)
        name = "" if channel == HELD else channel
        low = high = old.attempts if old is not None else 0
        allowed: list[Window] = [came.window()]
        if came is self.start:
            copies = [old] if old is not None else self.copies(topic, key)
            allowed = [None if one.due is None else (one.due, one.due) for one in copies]
        for act in self.touching(topic, name, key):
            sure = self.is_flushed(act)
            if act.what == "get" and act.end == NEVER:
                high += 1
                allowed.append(None)
            elif act.what == "get":
                attempts = next(one[2] for one in act.returned if one[0] == key)
                high = max(high, attempts)
                if sure or self.durable:
                    low = max(low, attempts)
                    allowed = []
                allowed.append(None)
            else:
                allowed = [act.window()] if sure else [*allowed, act.window()]
        if not low <= seen.attempts <= high:
            self.wrong.append(
                f"{topic}:{channel} has {key} with {seen.attempts} attempts, not {low} to {high}"
            )
        if not any(self.fits(seen.due, window) for window in allowed):
            self.wrong.append(f"{topic}:{channel} has {key} due at {seen.due}, not {allowed}")

    def copies(self, topic: str, key: str) -> list[Seen]:
        """Return what the file had of a message in all channels of its topic."""
        names = self.base[topic].channels
        found = [self.stored(topic, name, key) for name in names]
        return [one for one in found if one is not None]

    def stored(self, topic: str, channel: str, key: str) -> Seen | None:
        """Return what the file had of a message in a channel."""
        place = self.base.get(topic, SeenTopic()).channels.get(channel)
        messages = [] if place is None else place.messages.values()
        return next((one for one in messages if one.body.decode() == key), None)

    def touching(self, topic: str, channel: str, key: str) -> list[Act]:
        """Return the gets and reqs that concern a message, in their order."""
        acts = [a for a in self.find("req", topic, channel) if key in a.keys]
        acts += [
            act
            for act in self.find("get", topic, channel)
            if act.end == NEVER or key in [one[0] for one in act.returned]
        ]
        return sorted(acts, key=lambda act: act.begin)

    def fits(self, due: int | None, window: Window) -> bool:
        if window is None:
            return due is None
        low, high = window
        if due is None:
            return low <= self.now + TOLERANCE
        return low - TOLERANCE <= due <= high + TOLERANCE

    # What is all or nothing

    def has(self, topic: str, channel: str, key: str) -> bool:
        place = self.seen.get(topic, SeenTopic()).channels.get(channel)
        messages = [] if place is None else place.messages.values()
        return any(one.body.decode() == key for one in messages)

    def check_puts(self) -> None:
        """Check that every put is in the file in all its channels, or not at all."""
        for act in self.by_what["put"]:
            stored = self.seen.get(act.topic, SeenTopic())
            there = {
                (channel, key): self.has(act.topic, channel, key)
                for channel in stored.channels
                for key in act.keys
                if self.is_due_there(act.topic, channel, key, act)
            }
            if len(set(there.values())) > 1:
                self.wrong.append(f"a put is there in part: {act}, {there}")
        for act in self.refused:
            for channel in self.seen.get(act.topic, SeenTopic()).channels:
                if act.what == "put" and any(self.has(act.topic, channel, k) for k in act.keys):
                    self.wrong.append(f"a put that was refused is there: {act}")

    def check_moves(self) -> None:
        """Check that what was moved is in exactly one of both places."""
        for act in self.by_what["move"]:
            key, new = act.keys
            topic, _, channel = act.to.partition(":")
            names = [channel] if channel else list(self.seen.get(topic, SeenTopic()).channels)
            there = [
                self.has(topic, name, new)
                for name in names
                if self.is_due_there(topic, name, new, act)
            ]
            here = self.has(act.topic, act.channel, key)
            others = [
                other
                for other in self.removals(act.topic, act.channel, key, self.start)
                if other is not act
            ]
            source = self.came(act.topic, act.channel)[key]  # delivered, so it was there
            if (here and any(there)) or len(set(there)) > 1:
                self.wrong.append(f"a move is there in part, or twice: {act}")
            elif not (here or any(there) or others) and there and self.is_written(source):
                self.wrong.append(f"a move has lost its message: {act}")
