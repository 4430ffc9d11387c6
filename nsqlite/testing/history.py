"""What a broker's topics and channels have done, for a test to look at and to assert.

The rule: a look changes nothing, but that what is due by now happens where it is asked what is left
(`assert_idle`).

A failed assertion says what was expected, what came nearest, all there was of that kind, what
faults have struck, and how it ended, as a timeline.

Next: testing/fakebroker.py
"""

import re
import warnings
import weakref
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final, Self, TypeAlias

from nsqlite.broker import Broker
from nsqlite.channel import Channel
from nsqlite.errors import InvalidOption, shown
from nsqlite.events import Event, Kind
from nsqlite.options import nearest, whole
from nsqlite.testing.snapshots import snapshot
from nsqlite.timeline.recorder import Recorder
from nsqlite.topic import Topic

if TYPE_CHECKING:
    from nsqlite.worker.deadletter import DeadLetter

__unittest = True  # in a failed assertion unittest shows no line of a module that has it

MOST: Final = 10
"""So many events of a kind, and so many of the last ones, are shown when an assertion fails."""

MOST_LINES: Final = 40
"""So many lines of what is left are shown by `assert_idle`."""

_PLACES: Final = {"published": "to", "dead": "of"}

MOST_TEXT: Final = 2000
"""So many characters of a body are compared to show the nearest."""

LIKE: Final = 0.8
"""From here on a name is nearly another one: ``oders`` is ``orders``, ``orders.dead`` is not."""

TopicName: TypeAlias = Topic[Any] | str
"""A topic's name, or the topic itself."""

ChannelName: TypeAlias = Channel[Any] | str
"""A channel's name, or the channel itself, which is that of its topic alone."""

ANY: Final[Any] = object()
"""What anything fits."""


class Events(tuple[Event, ...]):
    """Events, the oldest first; printed as a timeline."""

    __slots__ = ()

    @property
    def bodies(self) -> list[Any]:
        """The bodies of their messages."""
        return [event.body for event in self]

    @property
    def ids(self) -> list[str | None]:
        """The ids of their messages."""
        return [event.id for event in self]

    @property
    def attempts(self) -> list[int | None]:
        """How often each had been delivered by then."""
        return [event.attempts for event in self]

    def __repr__(self) -> str:
        """Show them, a line for each."""
        return "\n".join(map(str, self)) or "no events"


class History:
    """What has happened in a broker or a topic; `FakeBroker.history` is one.

        >>> import nsqlite
        >>> topic = nsqlite.Topic("orders")
        >>> history = History.of(topic)
        >>> id = topic.put(b"order 1")
        >>> history.published("orders").bodies
        [b'order 1']
        >>> found = history.assert_published("orders", body=b"order 1", n=1)

    What is asserted of a body, an error or a number of attempts is compared by `==`; a function is
    called with it and says whether it fits, and a compiled regular expression is searched for in
    it.  What is not said fits in any case.  The assertions return what they found.

    Threads: any.

    Attributes:
        recorder: what keeps the events; the oldest are forgotten beyond its `most`, and then the
            assertions that something did not happen, or not more often, fail.
    """

    def __init__(self, recorder: Recorder, what: Broker | Topic[Any] | None = None) -> None:
        """Look at what a recorder keeps.

        Args:
            recorder: it observes `what`, or is filled in another way.
            what: the broker or topic, for `assert_idle` and for the names that there are.
        """
        self.recorder: Final = recorder
        self._what: Final = None if what is None else weakref.ref(what)

    @classmethod
    def of(cls, what: Broker | Topic[Any]) -> Self:
        """Begin to record what happens in a broker or a topic."""
        if not isinstance(what, Broker | Topic):
            raise InvalidOption("what", what, "a Broker or a Topic")
        history = cls(Recorder(), what)
        what.observe(history.recorder)
        return history

    # What happened

    @property
    def events(self) -> Events:
        """All that is kept."""
        return Events(self.recorder.events)

    def published(self, topic: TopicName | None = None) -> Events:
        """Return what was published to a topic, also by a move; None for all topics."""
        return self._of(Kind.PUBLISHED, topic, None)

    def delivered(
        self, topic: TopicName | None = None, channel: ChannelName | None = None
    ) -> Events:
        """Return the deliveries; None for all topics, or channels."""
        return self._of(Kind.DELIVERED, topic, channel)

    def finished(
        self, topic: TopicName | None = None, channel: ChannelName | None = None
    ) -> Events:
        """Return what was finished, also by a move."""
        return self._of(Kind.FINISHED, topic, channel)

    def requeued(
        self, topic: TopicName | None = None, channel: ChannelName | None = None
    ) -> Events:
        """Return what was requeued."""
        return self._of(Kind.REQUEUED, topic, channel)

    def timed_out(
        self, topic: TopicName | None = None, channel: ChannelName | None = None
    ) -> Events:
        """Return what has timed out."""
        return self._of(Kind.TIMED_OUT, topic, channel)

    def deferred(
        self, topic: TopicName | None = None, channel: ChannelName | None = None
    ) -> Events:
        """Return what was deferred, by a put or a requeue."""
        return self._of(Kind.DEFERRED, topic, channel)

    def dead(
        self, topic: TopicName | None = None, channel: ChannelName | None = None
    ) -> "list[DeadLetter]":
        """Return the dead letters that workers have put into dead-letter topics.

        What a worker without one gives up is finished, and no dead letter.

        Args:
            topic: where the messages failed, or the dead-letter topic; None for all.
            channel: where they failed; None for all.
        """
        from nsqlite.worker.deadletter import DeadLetter  # noqa: PLC0415 - loaded when it is used

        name, (of, own) = _topic_name(topic), _channel_names(channel)
        return [
            event.body
            for event in self.published()
            if isinstance(event.body, DeadLetter)
            and name in {None, event.body.topic, event.topic}
            and of in {None, event.body.topic}
            and own in {None, event.body.channel}
        ]

    def _of(self, kind: Kind, topic: TopicName | None, channel: ChannelName | None) -> Events:
        name, (of, own) = _topic_name(topic), _channel_names(channel)
        if None not in {name, of} and name != of:
            raise InvalidOption("channel", channel, f"one of topic {name!r}")
        return Events(
            event
            for event in self.recorder.events
            if event.kind == kind
            and (name or of) in {None, event.topic}
            and own in {None, event.channel}
        )

    # What is asserted

    def assert_published(
        self, topic: TopicName, *, body: Any = ANY, n: int | None = None
    ) -> Events:
        """Assert that messages were published to a topic.

        Args:
            topic: its name.
            body: what their body is to be; see the class.
            n: how many of these there are to be; None for one or more.

        Raises:
            AssertionError: it is not so.
        """
        __tracebackhide__ = True
        return Events(self._find(Kind.PUBLISHED, (topic, None), n, body=body))

    def assert_delivered(
        self,
        topic: TopicName,
        channel: ChannelName | None = None,
        *,
        body: Any = ANY,
        attempts: Any = ANY,
        n: int | None = None,
    ) -> Events:
        """Assert that messages were delivered; each delivery counts.

        Args:
            topic: the topic's name.
            channel: the channel's; None for all.
            body: what their body is to be; see the class.
            attempts: how often they are to have been delivered by then, this time counted.
            n: how many of these there are to be; None for one or more.

        Raises:
            AssertionError: it is not so.
        """
        __tracebackhide__ = True
        return Events(self._find(Kind.DELIVERED, (topic, channel), n, body=body, attempts=attempts))

    def assert_finished(
        self,
        topic: TopicName,
        channel: ChannelName | None = None,
        *,
        body: Any = ANY,
        attempts: Any = ANY,
        n: int | None = None,
    ) -> Events:
        """Assert that messages were finished; see `assert_delivered`."""
        __tracebackhide__ = True
        return Events(self._find(Kind.FINISHED, (topic, channel), n, body=body, attempts=attempts))

    def assert_requeued(
        self,
        topic: TopicName,
        channel: ChannelName | None = None,
        *,
        body: Any = ANY,
        attempts: Any = ANY,
        n: int | None = None,
    ) -> Events:
        """Assert that messages were requeued; see `assert_delivered`."""
        __tracebackhide__ = True
        return Events(self._find(Kind.REQUEUED, (topic, channel), n, body=body, attempts=attempts))

    def assert_timed_out(
        self,
        topic: TopicName,
        channel: ChannelName | None = None,
        *,
        body: Any = ANY,
        attempts: Any = ANY,
        n: int | None = None,
    ) -> Events:
        """Assert that messages have timed out; see `assert_delivered`."""
        __tracebackhide__ = True
        return Events(self._find(Kind.TIMED_OUT, (topic, channel), n, body=body, attempts=attempts))

    def assert_dead(
        self,
        topic: TopicName,
        channel: ChannelName | None = None,
        *,
        body: Any = ANY,
        error: Any = ANY,
        attempts: Any = ANY,
        n: int | None = None,
    ) -> "list[DeadLetter]":
        """Assert that messages became dead letters; see `dead`.

        Args:
            topic: where they failed, or the dead-letter topic.
            channel: where they failed; None for all.
            body: what their own body is to be; see the class.
            error: what the last error is to have said of itself.
            attempts: how often they are to have been delivered.
            n: how many of these there are to be; None for one or more.

        Raises:
            AssertionError: it is not so.
        """
        __tracebackhide__ = True
        where = topic, channel
        return self._find("dead", where, n, body=body, error=error, attempts=attempts)

    def assert_nothing_published(self, topic: TopicName | None = None) -> None:
        """Assert that nothing was published to a topic; None for all topics.

        That nobody has made the topic is fine, and may be what the test is about; but if there is
        one whose name is nearly the same, a warning asks whether that is meant.

        Raises:
            AssertionError: something was.
        """
        __tracebackhide__ = True
        name = _topic_name(topic)
        found = self.published(name)
        if found:
            where = "" if name is None else f" to {name}"
            were = "1 was" if len(found) == 1 else f"{len(found)} were"
            text = f"nothing was to be published{where}, but {were}"
            raise self._failed(text, _listed("published", found))
        self._require_all("nothing was published")
        for text in () if name is None else self._mistakes(name, None):
            warnings.warn(text, UserWarning, stacklevel=2)

    def assert_idle(self) -> None:
        """Assert that nothing is held, and nothing ready, in flight or deferred in any channel.

        What is due by now happens first.

        Raises:
            AssertionError: it is not so.
            InvalidOption: it is not known of which broker or topic this is the history.
        """
        __tracebackhide__ = True
        what = self._home
        if what is None:
            raise InvalidOption(
                "history", self, "one of a broker that is there: History.of(broker)"
            )
        topics = snapshot(what)
        left = list(_left(topics["topics"]))
        if left:
            raise self._failed(
                f"not idle: {'; '.join(left)}", _cut(str(topics).split("\n"), MOST_LINES)
            )

    @property
    def _home(self) -> Broker | Topic[Any] | None:
        """The broker or topic, if it is known and still there."""
        return None if self._what is None else self._what()

    # How it failed

    def _find(
        self,
        what: str,
        given: tuple[TopicName, ChannelName | None],
        n: int | None,
        **wanted: Any,
    ) -> list[Any]:
        """Return those that fit, if they are as many as is wanted; called by what the test calls.

        Raises:
            AssertionError: they are not.
        """
        __tracebackhide__ = True
        found = self.dead(*given) if what == "dead" else self._of(Kind(what), *given)
        where = str(_topic_name(given[0])), _channel_names(given[1])[1]
        if n is not None:
            whole("n", n, 0)
        said = {name: value for name, value in wanted.items() if value is not ANY}
        fitting = [one for one in found if _is_fit(one, said)]
        if len(fitting) == n:
            self._require_all(f"there are no more than {n} {what}")
        for text in self._mistakes(*where) if not found and n == 0 else ():
            warnings.warn(text, UserWarning, stacklevel=3)
        if len(fitting) == n or (n is None and fitting):
            return fitting
        place = f"{_PLACES.get(what, 'in')} {'/'.join(filter(None, where))}"
        many = "at least 1" if n is None else f"exactly {n}"
        which = " and ".join(f"{name} {_words(value)}" for name, value in said.items())
        text = f"expected {many} {what} {place}{which and f' with {which}'}, found {len(fitting)}"
        raise self._failed(
            f"{text} of {len(found)}" if said else text,
            self._unknown(*where),
            () if fitting else _nearest(found, said),
            _listed(f"{what} {place}", found),
            self._elsewhere(what, where[0], said),
            self._hints(what, *where) if len(fitting) < (n or 1) else (),
        )

    def _require_all(self, what: str) -> None:
        """Fail where what is no more known may be otherwise."""
        __tracebackhide__ = True
        if self.recorder.forgotten:
            text = "the recorder has forgotten events: clear() it before it is full"
            raise self._failed(f"it cannot be told whether {what}: {text}")

    def _failed(self, text: str, *parts: Iterable[str]) -> AssertionError:
        """Return the error that tells what did happen; each part is a few lines."""
        events = self.recorder.events
        ending = list(_listed("last events", events, last=True))
        if self.recorder.forgotten:
            ending.append(f"  ({self.recorder.forgotten} older ones were forgotten)")
        blocks = ["\n".join(part) for part in (*parts, self._struck(), self._spared(), ending)]
        return AssertionError("\n\n".join([text, *filter(None, blocks)]))

    def _mistakes(self, topic: str, channel: str | None) -> Iterator[str]:
        """Say of a name that there is none such, if there is one that is nearly the same."""
        from difflib import get_close_matches  # noqa: PLC0415 - only where a test may be wrong

        for text, name, names in self._missing(topic, channel):
            for near in get_close_matches(name, names, 1, LIKE):
                yield f"{text} (did you mean {near!r}?)"

    def _unknown(self, topic: str, channel: str | None) -> Iterator[str]:
        """Say of a name that there is none such."""
        if not self.recorder.forgotten:  # what is gone may have named it
            for text, name, names in self._missing(topic, channel):
                yield f"{text}{nearest(name, names)}"

    def _missing(self, topic: str, channel: str | None) -> Iterator[tuple[str, str, set[str]]]:
        """Return what is to be said of a name that there is not, the name, and those there are."""
        events = self.recorder.events
        topics = {event.topic for event in events}
        if topic not in topics:
            yield f"there is no topic {topic!r}", topic, topics
            return
        channels = {event.channel for event in events if event.topic == topic and event.channel}
        if channel is not None and channel not in channels:
            yield f"topic {topic!r} has no channel {channel!r}", channel, channels

    def _elsewhere(self, what: str, topic: str, said: dict[str, Any]) -> Iterator[str]:
        """Say in which other topics the same was."""
        if said and what != "dead":
            fitting = [event for event in self._of(Kind(what), None, None) if _is_fit(event, said)]
            others = Counter(event.topic for event in fitting if event.topic != topic)
            if others:
                counts = ", ".join(f"{name!r} ({count})" for name, count in sorted(others.items()))
                yield f"the same in other topics: {counts}"

    def _hints(self, what: str, topic: str, channel: str | None) -> Iterator[str]:
        """Say why the workers of a fake broker may not have done what was expected."""
        broker: Any = self._home
        workers = getattr(broker, "_workers", ())
        some = [one for one in workers if _is_of(one.channel, topic, channel)]
        if some and broker.mode == "captured":
            yield from filter(None, map(_waiting, dict.fromkeys(one.channel for one in some)))
        for one in some:
            if what == "dead" and one._plan.dead_letter is None:
                yield f"worker {one.name!r} has no dead_letter: what it gives up is finished"

    def _struck(self) -> Iterator[str]:
        """Say what faults have struck."""
        faults = getattr(self._home, "faults", None)
        if faults is not None and faults.injected:
            yield "faults that struck:"
            yield from (f"  {line}" for line in _cut(faults.replay().split("\n"), MOST))

    def _spared(self) -> Iterator[str]:
        """Say which faults are set and have struck nothing, and of which names there are none."""
        faults = getattr(self._home, "faults", None)
        idle = [] if faults is None else [one for one in faults.active if not one.count]
        if idle:
            yield "faults that have not struck:"
        for fault in idle:
            why = (
                ""
                if fault._topic is None
                else "; ".join(self._unknown(fault._topic, fault._channel))
            )
            yield f"  {fault._line(fault._nth)}{why and f': {why}'}"

    def __repr__(self) -> str:
        """Show how many events it has of each kind."""
        counts = Counter(str(event.kind) for event in self.recorder.events)
        kinds = ", ".join(f"{kind}: {count}" for kind, count in counts.items())
        return f"<History {kinds or 'nothing has happened'}>"


def _topic_name(given: object) -> str | None:
    """Return the name of a topic; None for all.

    Raises:
        InvalidOption: it is neither a name nor a topic.
    """
    if isinstance(given, Topic):
        return given.name
    if given is None or isinstance(given, str):
        return given
    raise InvalidOption("topic", given, "the name of a topic, or the topic")


def _channel_names(given: object) -> tuple[str | None, str | None]:
    """Return the names of a channel's topic, if that is known, and of the channel; None for all.

    Raises:
        InvalidOption: it is neither a name nor a channel.
    """
    if isinstance(given, Channel):
        return given._queue.names
    if given is None or isinstance(given, str):
        return None, given
    raise InvalidOption("channel", given, "the name of a channel, or the channel")


def _is_of(channel: Channel[Any], topic: str, name: str | None) -> bool:
    """Return whether a channel is the one of this name, or of this topic."""
    of, own = channel._queue.names
    return of == topic and name in {None, own}


def _waiting(channel: Channel[Any]) -> str:
    """Say what a captured worker was not yet called with; empty if there is nothing."""
    counts = {"ready": channel.depth, "deferred": channel.deferred_count}
    left = ", ".join(f"{count} {word}" for word, count in counts.items() if count)
    topic, name = channel._queue.names
    return left and f"{left} in {topic}/{name}: its handler was not called; see run_until_idle()"


def _is_fit(one: Any, said: dict[str, Any]) -> bool:
    """Return whether an event or a dead letter has all that is said."""
    return all(_fits(getattr(one, name), wanted) for name, wanted in said.items())


def _fits(actual: Any, wanted: Any) -> bool:
    """Return whether a value is as it is wanted; see `History`."""
    if isinstance(wanted, re.Pattern):
        is_text = isinstance(actual, type(wanted.pattern))
        return is_text and wanted.search(actual) is not None
    if wanted == actual:
        return True
    return _asks(wanted) and bool(wanted(actual))


def _words(wanted: Any) -> str:
    """Say what is wanted."""
    if isinstance(wanted, re.Pattern):
        return f"that matches {wanted.pattern!r}"
    name = getattr(wanted, "__name__", None)
    return f"as {name} says" if callable(wanted) and name else shown(wanted)


def _nearest(found: Sequence[Any], said: dict[str, Any]) -> Iterator[str]:
    """Show how what came nearest differs from what was wanted."""
    from difflib import SequenceMatcher, ndiff  # noqa: PLC0415 - only where a test fails
    from pprint import pformat  # noqa: PLC0415 - see above

    plain = {name: one for name, one in said.items() if not isinstance(one, re.Pattern)}
    name, wanted = next(((name, one) for name, one in plain.items() if not _asks(one)), ("", None))
    if not (name and found):
        return
    text = pformat(wanted)
    others = [pformat(getattr(one, name)) for one in found]
    best = max(others, key=lambda other: SequenceMatcher(None, text, other[:MOST_TEXT]).ratio())
    yield f"the nearest {name} (- wanted, + found):"
    lines = ndiff(text[:MOST_TEXT].split("\n"), best[:MOST_TEXT].split("\n"))
    yield from (f"  {line.rstrip()}" for line in lines)


def _asks(wanted: Any) -> bool:
    """Return whether what is wanted is a question, not a value."""
    return callable(wanted) and not isinstance(wanted, type)


def _listed(title: str, found: Sequence[Any], *, last: bool = False) -> Iterator[str]:
    """Show events or dead letters, the first or the last ones, if there are any."""
    if found:
        yield f"{title} ({len(found)}):"
        some = found[-MOST:] if last else found[:MOST]
        cut = f"  ... and {len(found) - len(some)} more"
        lines = [f"  {one if isinstance(one, Event) else _letter(one)}" for one in some]
        if len(some) < len(found):
            lines = [cut, *lines] if last else [*lines, cut]
        yield from lines


def _letter(letter: "DeadLetter") -> str:
    """Show a dead letter in a line."""
    error = f"{letter.error_type}: {letter.error}" if letter.error_type else letter.error
    of = f"{letter.topic}/{letter.channel}"
    return f"{shown(letter.body)} of {of}, attempts={letter.attempts}, {shown(error)}"


def _left(topics: dict[str, Any]) -> Iterator[str]:
    """Say what is left where."""
    for name, topic in topics.items():
        if topic["depth"]:
            yield f"topic {name} holds {topic['depth']}"
        for of, channel in topic["channels"].items():
            counts = {"ready": "depth", "in flight": "in_flight", "deferred": "deferred"}
            some = [f"{channel[key]} {word}" for word, key in counts.items() if channel[key]]
            if some:
                yield f"{name}/{of} has {', '.join(some)}"


def _cut(lines: Sequence[str], most: int) -> list[str]:
    """Return the first lines, with how many more there are."""
    more = len(lines) - most
    return [*lines[:most], f"... and {more} more"] if more > 0 else list(lines)
