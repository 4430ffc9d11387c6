"""Events, gone through once, and what they mean for lanes, messages and channels.

The rule: each event becomes one step, in its order.  What no event tells follows from those that
do: who gets what is published, what a pause or a deletion takes with it.  What was before the first
event is not known but where an event follows from it: what is finished was in flight before.  What
is moved is where it was until its new place is told.

Next: timeline/text.py
"""

from collections.abc import Callable, Container, Iterable, Sequence
from typing import Final, NamedTuple, TypeAlias

import attrs

from nsqlite.events import Event, Kind
from nsqlite.timeline.parts import (
    BEFORE,
    Course,
    Ending,
    Gap,
    GivenUp,
    Lane,
    Life,
    Span,
    Stay,
    Step,
    Unusual,
    Where,
    letter_of,
    text_of,
)
from nsqlite.timeline.words import EXACT, label, listed, number, plain, span

Place: TypeAlias = tuple[str, str | None]
"""A topic, and one of its channels or None for what the topic itself holds."""

ANSWERED: Final = frozenset(
    {Kind.FINISHED, Kind.REQUEUED, Kind.TOUCHED, Kind.TIMED_OUT, Kind.RETURNED}
)
"""What happens to messages in flight alone."""

OVER: Final = frozenset({Kind.DELETED, Kind.CLOSED})


class Meaning(NamedTuple):
    """What an event means."""

    text: str
    source: Lane | None = None
    targets: tuple[Lane, ...] = ()
    is_given_up: bool = False


class _Sent(NamedTuple):
    """A dead letter, and what it is in its own topic."""

    topic: str
    id: str | None
    letter: GivenUp


@attrs.define(eq=False)
class _Message:
    """A message, as far as it is known by now."""

    id: str
    topic: str
    tag: str
    body: str
    is_whole: bool = False
    stays: dict[str | None, list[Stay]] = attrs.Factory(dict)
    steps: list[int] = attrs.Factory(list)
    gaps: list[int] = attrs.Factory(list)


@attrs.define(eq=False)
class _Open:
    """A stay that has not ended."""

    where: Where
    lane: Lane
    begin: int
    attempts: int | None
    due: float | None

    def stay(self, end: int | None, ending: Ending = "told") -> Stay:
        return Stay(self.where, self.lane, self.begin, end, self.attempts, self.due, ending)


@attrs.define(eq=False)
class _Wait:
    """A put that waits for room."""

    begin: int
    time: float
    count: int
    left: int


class Replay:
    """Goes through the events of a record.

    Attributes:
        steps: what they became.
        gaps: where others are missing.
    """

    def __init__(self, events: Sequence[Event], topic: str | None, lost: Sequence[Gap]) -> None:
        """Go through all of them, or those of one topic; of others it notes the dead letters."""
        self.steps: Final[list[Step]] = []
        self.gaps: Final[list[Gap]] = []
        self._letters: Final = _letters(events)
        self._lanes: Final[dict[tuple[str, str | None, int | None], Lane]] = {}
        self._channels: Final[dict[str, list[str]]] = {}
        self._paused: Final[dict[Place, int]] = {}
        self._over: Final[dict[Place, tuple[Unusual, int]]] = {}
        self._waits: Final[dict[str, list[_Wait]]] = {}
        self._spans: Final[list[Span]] = []
        self._messages: Final[dict[tuple[str, str], _Message]] = {}
        self._open: Final[dict[Place, dict[str, _Open]]] = {}
        self._times: Final[dict[str, int]] = {}
        self._moves: Final = _moves(
            [event for event in events if topic in {None, event.topic}], self._letters
        )
        self._moving: Final[dict[int, tuple[Place, str]]] = {}
        self._number = 0
        self._known_since = BEFORE
        self._since: Final[dict[Place, int]] = {}
        self._meanings: Final[dict[Kind, Callable[[Event], Meaning]]] = {
            Kind.CREATED: self._created,
            Kind.PUBLISHED: self._published,
            Kind.DELIVERED: self._delivered,
            Kind.FINISHED: self._finished,
            Kind.REQUEUED: self._requeued,
            Kind.TOUCHED: self._touched,
            Kind.TIMED_OUT: self._timed_out,
            Kind.RETURNED: self._returned,
            Kind.DEFERRED: self._deferred,
            Kind.DUE: self._fell_due,
            Kind.DROPPED: self._dropped,
            Kind.DISCARDED: self._discarded,
            Kind.WAITING: self._waited,
            Kind.REFUSED: self._refused,
            Kind.WINDOW_FULL: self._window_full,
            Kind.PAUSED: self._pause,
            Kind.UNPAUSED: self._unpause,
            Kind.EMPTIED: self._emptied,
            Kind.DELETED: self._ended,
            Kind.CLOSED: self._ended,
        }
        begin = 0
        for gap in lost:
            self._take_all(events[begin : gap.after], topic)
            self._lose(gap.count)
            begin = gap.after
        self._take_all(events[begin:], topic)

    # What comes of it

    def lanes(self) -> tuple[Lane, ...]:
        """Return topics as they came, under each its channels, under these their consumers."""
        places: dict[Place, int] = {}
        for lane in self._lanes.values():
            places.setdefault((lane.topic, None), len(places))
            places.setdefault((lane.topic, lane.channel), len(places))

        def order(lane: Lane) -> tuple[int, int, int]:
            topic, channel = places[lane.topic, None], places[lane.topic, lane.channel]
            return topic, channel, -1 if lane.client_id is None else lane.client_id

        return tuple(sorted(self._lanes.values(), key=order))

    def lives(self) -> tuple[Life, ...]:
        """Return what became of the messages, in the order in which they are first told of."""
        for place, opened in self._open.items():
            for name, one in opened.items():
                self._messages[place[0], name].stays[place[1]].append(one.stay(None))
        return tuple(self._life(message) for message in self._messages.values())

    def _life(self, message: _Message) -> Life:
        topic = message.topic
        return Life(
            message.id,
            topic,
            message.tag,
            message.body,
            message.is_whole,
            tuple(
                Course(self._lane(topic, channel), tuple(stays))
                for channel, stays in message.stays.items()
            ),
            tuple(message.steps),
            tuple(message.gaps),
        )

    def spans(self) -> tuple[Span, ...]:
        """Return the unusual states, in the order in which they began."""
        spans = list(self._spans)
        spans += [
            Span("paused", self._lane(*at), begin, None) for at, begin in self._paused.items()
        ]
        spans += [
            Span(what, self._lane(*at), begin, None) for at, (what, begin) in self._over.items()
        ]
        for topic, waits in self._waits.items():
            spans += [Span("waits", self._lane(topic), wait.begin, None) for wait in waits]
        return tuple(sorted(spans, key=lambda span: span.begin))

    # Going through

    def _take_all(self, events: Sequence[Event], topic: str | None) -> None:
        """Make steps of events between which none is missing, or of those of one topic."""
        events = [event for event in events if topic in {None, event.topic}]
        self._look_ahead(events)
        for event in events:
            self._take(event)

    def _look_ahead(self, events: Sequence[Event]) -> None:
        """Find out what was there, or paused, before: what is used before it is made."""
        seen: set[Place] = set()
        pauses: set[Place] = set()
        for event in events:
            place = event.topic, event.channel
            if place not in seen and event.kind != Kind.CREATED:
                self._add_channel(event)
            seen.add(place)
            if event.kind in {Kind.PAUSED, Kind.UNPAUSED} and place not in pauses:
                pauses.add(place)
                if event.kind == Kind.UNPAUSED:
                    self._paused[place] = self._known_since

    def _add_channel(self, event: Event) -> None:
        """Take note of the channel of an event, if it is about one and this is not known."""
        channels = self._channels.setdefault(event.topic, [])
        if event.channel is not None and event.channel not in channels:
            channels.append(event.channel)

    def _lose(self, count: int) -> None:
        """End all that is known to be so, as the next events are missing."""
        if self.gaps and self.gaps[-1].after == self._number:  # between, those of other topics
            count += self.gaps.pop().count
        self.gaps.append(Gap(self._number, count))
        self._known_since = end = self._number + 1
        for place, name in self._moving.values():  # that it has left is known
            self._leave(place, name, end)
        self._moving.clear()
        for place in self._open:
            for name in self._leave_all(place, end, "lost"):
                gaps = self._messages[place[0], name].gaps
                gaps += [self._number] if self._number not in gaps else []
        for place in list(self._paused):
            self._end_pause(place, end)
        for topic, waits in self._waits.items():
            for wait in waits:
                self._end_span("waits", (topic, None), wait.begin, end)
        self._waits.clear()

    def _take(self, event: Event) -> None:
        """Make a step of an event."""
        self._number += 1
        topic, channel, name = event.topic, event.channel, event.id
        self._lane(topic)
        self._lane(topic, channel)
        place = topic, channel
        if place in self._over and event.kind not in OVER:
            what, begin = self._over.pop(place)
            self._since[place] = self._number
            self._end_span(what, place, begin, self._number)
        tag = ""
        if name is not None:
            message = self._message(event, name)
            message.steps.append(self._number)
            tag = message.tag
        told = self._meanings[Kind(event.kind)](event)
        step = Step(
            self._number, event, told.source, told.targets, tag, told.text, told.is_given_up
        )
        self.steps.append(step)

    def _message(self, event: Event, name: str) -> _Message:
        message = self._messages.get((event.topic, name))
        if message is None:
            letter = letter_of(event.body)
            text = f"message {name[-4:]}" if event.body is None else label(event.body)
            if letter is not None:
                text = label(f"letter of {letter.body}")
            times = self._times[text] = self._times.get(text, 0) + 1
            tag = text if times == 1 else f"{text} ({times})"
            message = _Message(name, event.topic, tag, text_of(event.body))
            if self.gaps and event.kind != Kind.PUBLISHED:
                message.gaps.append(self.gaps[-1].after)
            self._messages[event.topic, name] = message
        return message

    def _lane(
        self,
        topic: str,
        channel: str | None = None,
        client_id: int | None = None,
        name: str | None = None,
    ) -> Lane:
        key = topic, channel, client_id
        lane = self._lanes.get(key)
        if lane is None:
            if client_id is not None:
                name = f"consumer {client_id}" if name is None else plain(name)
            lane = Lane(topic, channel, client_id, name or channel or topic)
            self._lanes[key] = lane
        return lane

    def _here(self, event: Event) -> Lane:
        """Return the lane of an event's channel or topic."""
        return self._lane(event.topic, event.channel)

    def _consumer(self, event: Event) -> Lane:
        """Return the lane of an event's consumer; the channel's if it names none."""
        return self._lane(event.topic, event.channel, event.client_id, event.consumer)

    def _tag(self, event: Event) -> str:
        return self._messages[event.topic, event.id or ""].tag if event.id else "a message"

    # Where messages are

    def _put(self, event: Event, name: str, where: Where, lane: Lane) -> None:
        """Have a message be somewhere from now on."""
        self._leave((event.topic, lane.channel), name, self._number)
        stays = self._open.setdefault((event.topic, lane.channel), {})
        due = event.due if where in {"deferred", "in flight"} else None
        stays[name] = _Open(where, lane, self._number, event.attempts, due)

    def _leave(self, place: Place, name: str, end: int, ending: Ending = "told") -> None:
        """Have a message be no longer where it is in a channel, or with its topic."""
        stays = self._messages[place[0], name].stays.setdefault(place[1], [])
        one = self._open.get(place, {}).pop(name, None)
        if one is not None:
            stays.append(one.stay(end, ending))

    def _move(self, event: Event, where: Where | None, lane: Lane, before: Where) -> None:
        """Have the event's message be elsewhere, or nowhere; before it, it was where it says."""
        name = event.id
        if name is None:
            return
        place = event.topic, event.channel
        opened = self._open.setdefault(place, {})
        if name not in opened:
            stays = self._messages[event.topic, name].stays.get(event.channel, [])
            last = (stays[-1].end or BEFORE) if stays else BEFORE
            begin = max(last, self._known_since, self._since.get(place, BEFORE))
            holder = self._consumer(event) if before == "in flight" else self._here(event)
            opened[name] = _Open(before, holder, begin, event.attempts, None)
        if where is None:
            self._leave(place, name, self._number)
        else:
            self._put(event, name, where, lane)

    def _leave_all(self, place: Place, end: int, ending: Ending = "told") -> list[str]:
        """Have no message be in a place any more; return which were."""
        names = list(self._open.get(place, ()))
        for name in names:
            self._leave(place, name, end, ending)
        return names

    def _receivers(self, topic: str) -> list[str]:
        """Return the channels that get at once what is published."""
        return [] if (topic, None) in self._paused else self._channels.get(topic, [])

    def _hand_on(self, event: Event) -> str:
        """Have the channels get what the topic held; return who got how much, in words."""
        place = event.topic, None
        channels = self._receivers(event.topic)
        held = self._open.get(place, {})
        if not channels or not held:
            return ""
        for name, one in list(held.items()):
            for channel in channels if one.where == "held" else ():
                self._put(event, name, "ready", self._lane(event.topic, channel))
            self._leave(place, name, self._number)
        return f"; {_get(channels)} what the topic held"

    # What each kind of event means

    def _created(self, event: Event) -> Meaning:
        here = self._here(event)
        if event.channel is None:
            return Meaning(f"topic {event.topic} is created", None, (here,))
        self._add_channel(event)
        rest = self._hand_on(event)
        text = f"channel {event.channel} of topic {event.topic} is created{rest}"
        return Meaning(text, self._lane(event.topic), (here,))

    def _published(self, event: Event) -> Meaning:
        name = event.id or ""
        here = self._here(event)
        self._messages[event.topic, name].is_whole = True
        if self._number in self._moving:
            self._leave(*self._moving.pop(self._number), self._number)
        tag = self._tag(event)
        if (letter := letter_of(event.body)) is not None:
            tag = f"{tag}, message {letter.id} of topic {letter.topic},"
        if event.channel is not None:
            self._put(event, name, "ready", here)
            return Meaning(f"{tag} is moved to {self._name(event)} alone", None, (here,))
        channels = self._receivers(event.topic)
        waited = self._end_wait(event)
        text = f"{tag} is published to topic {event.topic}{waited}"
        if event.due is not None:
            return Meaning(f"{text}, with a delay of {span(event.due - event.time)}", None, (here,))
        if not channels:
            self._put(event, name, "held", here)
            why = "is paused" if (event.topic, None) in self._paused else "has no channel yet"
            return Meaning(f"{text}, which {why} and holds it", None, (here,))
        lanes = [self._lane(event.topic, channel) for channel in channels]
        for lane in lanes:
            self._put(event, name, "ready", lane)
        return Meaning(f"{text}: {_get(channels)} it", None, (here, *lanes))

    def _delivered(self, event: Event) -> Meaning:
        consumer = self._consumer(event)
        self._move(event, "in flight", consumer, "ready")
        text = f"{self._tag(event)} is delivered to {self._who(event)}, attempt {event.attempts}"
        return Meaning(text, self._here(event), (consumer,))

    def _finished(self, event: Event) -> Meaning:
        here, consumer = self._here(event), self._consumer(event)
        arrival = self._moves.get(self._number)
        if arrival is None:
            self._move(event, None, here, "in flight")
        else:  # it is nowhere else yet
            self._move(event, "in flight", consumer, "in flight")
            self._moving[arrival] = (event.topic, event.channel), event.id or ""
        found = self._letters.get((event.topic, event.channel, event.id))
        return Meaning(
            self._how_it_ends(event, found, arrival), consumer, is_given_up=found is not None
        )

    def _how_it_ends(self, event: Event, found: _Sent | None, arrival: int | None) -> str:
        who, tag = self._who(event), self._tag(event)
        if found is not None:
            letter = found.letter
            return (
                f"{who} gives up {tag} after attempt {letter.attempts}: {letter.error};"
                f" it goes to topic {found.topic} as message {found.id}"
            )
        home = None if arrival is None else letter_of(event.body)
        if home is not None:
            return f"{who} puts {tag} back into channel {home.channel} of topic {home.topic}"
        return f"{who} finishes {tag}: it is gone from {event.channel}"

    def _requeued(self, event: Event) -> Meaning:
        self._move(
            event, "ready" if event.due is None else "deferred", self._here(event), "in flight"
        )
        what = "it is ready again"
        if event.due is not None:
            what = f"it waits for {span(event.due - event.time)}"
        text = f"{self._who(event)} requeues {self._tag(event)}: {what} in {event.channel}"
        return Meaning(text, self._consumer(event), (self._here(event),))

    def _touched(self, event: Event) -> Meaning:
        consumer = self._consumer(event)
        self._move(event, "in flight", consumer, "in flight")
        text = f"{self._who(event)} touches {self._tag(event)}"
        if event.due is not None:
            text = f"{text}: it has {span(event.due - event.time)} from now"
        return Meaning(text, consumer)

    def _timed_out(self, event: Event) -> Meaning:
        self._move(event, "ready", self._here(event), "in flight")
        text = (
            f"{self._who(event)} has not answered {self._tag(event)} in time:"
            f" it is ready again in {event.channel}"
        )
        return Meaning(text, self._consumer(event), (self._here(event),))

    def _returned(self, event: Event) -> Meaning:
        self._move(event, "ready", self._here(event), "in flight")
        text = (
            f"{self._who(event)} gives {self._tag(event)} back:"
            f" it is ready again in {event.channel}, before the others"
        )
        return Meaning(text, self._consumer(event), (self._here(event),))

    def _deferred(self, event: Event) -> Meaning:
        here = self._here(event)
        if event.id is not None:
            self._put(event, event.id, "deferred", here)
        text = f"{self._tag(event)} is deferred in {self._name(event)}"
        if event.due is not None:
            text = f"{text}: it is due in {span(event.due - event.time)}"
        return Meaning(text, here)

    def _fell_due(self, event: Event) -> Meaning:
        here = self._here(event)
        self._move(event, "held" if event.channel is None else "ready", here, "deferred")
        return Meaning(f"{self._tag(event)} is due: it is ready in {self._name(event)}", here)

    def _dropped(self, event: Event) -> Meaning:
        return self._taken_out(event, "is dropped from", ", which has no room")

    def _discarded(self, event: Event) -> Meaning:
        return self._taken_out(event, "is taken out of", " by its id")

    def _taken_out(self, event: Event, how: str, why: str) -> Meaning:
        here = self._here(event)
        self._move(event, None, here, "held" if event.channel is None else "ready")
        return Meaning(f"{self._tag(event)} {how} {self._name(event)}{why}", here)

    def _waited(self, event: Event) -> Meaning:
        here = self._here(event)
        wait = _Wait(self._number, event.time, event.count, event.count)
        self._waits.setdefault(event.topic, []).append(wait)
        what = number(event.count, "message")
        return Meaning(f"a put of {what} to topic {event.topic} waits for room", None, (here,))

    def _end_wait(self, event: Event) -> str:
        """Take one off the put that has waited longest; return how long it did, in words."""
        waits = self._waits.get(event.topic)
        if not waits or event.due is not None:
            return ""
        wait = waits[0]
        wait.left -= 1
        if wait.left == 0:
            self._end_span("waits", (event.topic, None), waits.pop(0).begin, self._number)
        return f" after its put has waited{_for(event.time - wait.time)}"

    def _refused(self, event: Event) -> Meaning:
        waits = self._waits.get(event.topic, [])
        one = next((wait for wait in waits if wait.left == wait.count == event.count), None)
        waited = ""
        if one is not None:
            waits.remove(one)
            self._end_span("waits", (event.topic, None), one.begin, self._number)
            waited = f" after it has waited{_for(event.time - one.time)}"
        what = number(event.count, "message")
        text = f"a put of {what} to topic {event.topic} is refused{waited}: there is no room"
        return Meaning(text, None, (self._here(event),))

    def _window_full(self, event: Event) -> Meaning:
        most = number(event.count, "message")
        return Meaning(f"{self._who(event)} gets no more: it holds {most}", self._consumer(event))

    def _pause(self, event: Event) -> Meaning:
        self._paused.setdefault((event.topic, event.channel), self._number)
        what = "hands on" if event.channel is None else "delivers"
        return Meaning(f"{self._name(event)} is paused: it {what} nothing", self._here(event))

    def _unpause(self, event: Event) -> Meaning:
        self._end_pause((event.topic, event.channel), self._number)
        rest = self._hand_on(event) if event.channel is None else ""
        return Meaning(f"{self._name(event)} goes on{rest}", self._here(event))

    def _emptied(self, event: Event) -> Meaning:
        self._leave_all((event.topic, event.channel), self._number)
        lost = number(event.count, "message")
        return Meaning(f"{self._name(event)} is emptied of {lost}", self._here(event))

    def _ended(self, event: Event) -> Meaning:
        place = event.topic, event.channel
        is_closed = event.kind == Kind.CLOSED
        self._leave_all(place, self._number, "closed" if is_closed else "told")
        if event.channel in (channels := self._channels.get(event.topic, [])):
            channels.remove(event.channel)
        self._end_pause(place, self._number)
        self._over.setdefault(place, ("closed" if is_closed else "gone", self._number))
        text = f"{self._name(event)} is {event.kind}"
        if event.count:
            text = f"{text} with {number(event.count, 'message')}"
        return Meaning(text, self._here(event))

    def _end_pause(self, place: Place, end: int) -> None:
        """Have a place be paused no longer, if it is."""
        begin = self._paused.pop(place, None)
        if begin is not None:
            self._end_span("paused", place, begin, end)

    def _end_span(self, what: Unusual, place: Place, begin: int, end: int) -> None:
        self._spans.append(Span(what, self._lane(*place), begin, end))

    # Names

    def _name(self, event: Event) -> str:
        """Return what the event is about besides a message: its channel or topic."""
        return f"topic {event.topic}" if event.channel is None else f"channel {event.channel}"

    def _who(self, event: Event) -> str:
        """Return who has the event's message, in words."""
        if event.client_id is None:
            return f"a consumer of {event.channel}"
        lane = self._consumer(event)
        return lane.name if event.consumer is not None else f"{lane.name} of {event.channel}"


def _get(channels: list[str]) -> str:
    """Return that channels get something, in words."""
    return f"{listed(channels)} {'gets' if len(channels) == 1 else 'get'}"


def _for(seconds: float) -> str:
    """Return how long something took, in words; nothing if the clock has not moved."""
    return f" {span(seconds)}" if seconds > EXACT else ""


def _letters(events: Iterable[Event]) -> dict[tuple[str, str | None, str | None], _Sent]:
    """Return what was given up, by its topic, channel and id.

    Each topic tells its own events, so a letter may be told before its message is, or after.
    """
    found: dict[tuple[str, str | None, str | None], _Sent] = {}
    for event in events:
        letter = letter_of(event.body) if event.kind == Kind.PUBLISHED else None
        if letter is not None:
            sent = _Sent(event.topic, event.id, letter)
            found.setdefault((letter.topic, letter.channel, letter.id), sent)
    return found


def _moves(
    events: Iterable[Event], letters: Container[tuple[str, str | None, str | None]]
) -> dict[int, int]:
    """Return which steps finish a message that a later one publishes elsewhere, and that one.

    So it is with what becomes a dead letter, and with a letter that is put back where it failed.
    """
    moves: dict[int, int] = {}
    leaving: dict[tuple[str | None, ...], list[int]] = {}
    for at, event in enumerate(events, 1):
        letter = letter_of(event.body)
        if event.kind == Kind.FINISHED:
            if (event.topic, event.channel, event.id) in letters:
                leaving.setdefault((event.topic, event.channel, event.id), []).append(at)
            elif letter is not None:
                home = letter.topic, letter.channel, None, letter.body
                leaving.setdefault(home, []).append(at)
        elif event.kind == Kind.PUBLISHED:
            keys: list[tuple[str | None, ...]] = []
            if letter is not None:
                keys.append((letter.topic, letter.channel, letter.id))
            if event.channel is not None:
                keys.append((event.topic, event.channel, None, text_of(event.body)))
            moves |= {leaving[key].pop(): at for key in keys if leaving.get(key)}
    return moves


def replay(events: Iterable[Event], topic: str | None = None, lost: Sequence[Gap] = ()) -> Replay:
    """Return what events mean, all or those of one topic.

    Args:
        events: what an observer heard.
        topic: of this one alone.
        lost: after how many of the events others are missing, in their order.
    """
    return Replay(tuple(events), topic, lost)
