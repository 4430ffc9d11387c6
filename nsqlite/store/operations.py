"""What can be done to a broker by whoever is not in its program: put, look, steer.

The rule: a request names its call and arguments, and its result can be told in JSON; so it is the
same whether it comes over a control socket or from a command that has the file open itself.

Nothing is made that is not there, but by `put`: a topic, if that is asked for.

Next: store/tail.py
"""

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from nsqlite.broker import Broker
from nsqlite.channel import Channel
from nsqlite.errors import InvalidOption
from nsqlite.options import nearest
from nsqlite.stats import MessageInfo
from nsqlite.store.codec import Coder
from nsqlite.store.controllines import body_of, described, refuse_unknown
from nsqlite.topic import Topic

FEW: Final = 20
"""Names that an error lists."""

PARTIAL: Final = frozenset({"redrive", "empty", "delete"})
"""The calls of which a part may be done where the broker is closed meanwhile."""


class Operations:
    """The operations of one broker.

    Threads: any.

    Attributes:
        broker: returns the broker, or raises what there is to say if it is gone.
        coder: makes bodies of what is put, and bytes of what is shown.
    """

    def __init__(self, broker: Callable[[], Broker], coder: Coder) -> None:
        """Take what returns the broker, or raises what there is to say if it is gone."""
        self.broker: Final = broker
        self.coder: Final = coder
        self._calls: Final[dict[str, Callable[..., Any]]] = {
            call.__name__: call
            for call in (
                self.ping,
                self.put,
                self.peek,
                self.find,
                self.discard,
                self.redrive,
                self.pause,
                self.unpause,
                self.empty,
                self.delete,
                self.stats,
            )
        }

    def perform(self, request: Mapping[str, Any]) -> Any:
        """Do what a request asks for, and return its result.

        Raises:
            InvalidOption: there is no such call, or it has other arguments.
            NSQLiteError: the call was refused.
        """
        arguments = dict(request)
        name = arguments.pop("call", None)
        call = self._calls.get(name) if isinstance(name, str) else None
        if call is None:
            raise InvalidOption("call", name, f"one of {', '.join(self._calls)}")
        try:
            inspect.signature(call).bind(**arguments)
        except TypeError as error:
            raise InvalidOption(f"arguments of {name}", arguments, f"others: {error}") from None
        return call(**arguments)

    def ping(self) -> None:
        """Do nothing."""
        self.broker()

    def put(
        self,
        topic: str,
        bodies: Any,
        delay: float | None = None,
        timeout: float | None = None,
        *,
        create: bool = False,
    ) -> list[str]:
        """Put messages into a topic, all or none, and return their ids.

        Args:
            topic: its name.
            bodies: a list of bodies, each as `controllines.fields_of` tells of it.
            delay: how much later they are delivered.
            timeout: how long to wait for room in a bounded channel; None for ever.
            create: make the topic if it is not there.

        Raises:
            InvalidOption: there is no such topic, or it is no list.
            NSQLiteError: see `Topic.put_many`.
        """
        if not isinstance(bodies, list):
            raise InvalidOption("bodies", bodies, "a list")
        decoded = [refuse_unknown(body_of(body, self.coder)) for body in bodies]
        found = self.broker()._reach(topic) if create else self._topic(topic)
        return found.put_many(decoded, delay=delay, timeout=timeout)

    def peek(self, topic: str, channel: str, count: int = 10) -> list[dict[str, Any]]:
        """Return the first messages of a channel: those that are ready, then what is due first."""
        found = self._channel(topic, channel)
        messages = found.peek(count)
        messages = [*messages, *found.deferred(count - len(messages))]
        return [self._told(info) for info in messages]

    def find(self, topic: str, id: str) -> dict[str, dict[str, Any]]:  # noqa: A002 - NSQ's word for it
        """Return where a message is, by the names of channels; see `Topic.find`."""
        places = self._topic(topic).find(id)
        return {name: self._told(info) for name, info in places.items()}

    def discard(self, topic: str, channel: str, id: str) -> bool:  # noqa: A002 - NSQ's word for it
        """Take a message out of a channel; return whether it was there."""
        return self._channel(topic, channel).discard(id)

    def redrive(self, topic: str, channel: str) -> int:
        """Put dead letters back to where they failed; return how many."""
        from nsqlite.worker.deadletter import redrive  # noqa: PLC0415 - loads all of the workers

        return redrive(self._channel(topic, channel), self.broker())

    def pause(self, topic: str, channel: str | None = None) -> None:
        """Have a channel, or a topic, deliver nothing."""
        self._place(topic, channel).pause()

    def unpause(self, topic: str, channel: str | None = None) -> None:
        """Have it go on."""
        self._place(topic, channel).unpause()

    def empty(self, topic: str, channel: str | None = None) -> int:
        """Drop what is in it; return how many messages."""
        return self._place(topic, channel).empty()

    def delete(self, topic: str, channel: str | None = None) -> int:
        """Delete it; return how many messages are gone."""
        return self._place(topic, channel).delete()

    def stats(self) -> dict[str, Any]:
        """Return nsqd's counters; see `Broker.stats`."""
        return self.broker().stats().to_dict()

    def _topic(self, name: Any) -> Topic[Any]:
        broker = self.broker()
        found = broker._find(name)
        if found is None:
            raise missing("topic", name, broker._names())
        return found

    def _channel(self, topic: Any, name: Any) -> Channel[Any]:
        channels = self._topic(topic).channels
        if not isinstance(name, str) or name not in channels:
            raise missing(f"channel of topic {topic!r}", name, channels)
        return channels[name]

    def _place(self, topic: str, channel: str | None) -> Topic[Any] | Channel[Any]:
        return self._topic(topic) if channel is None else self._channel(topic, channel)

    def _told(self, info: MessageInfo) -> dict[str, Any]:
        """Return a message as fields."""
        return {
            "id": info.id,
            "state": info.state,
            "attempts": info.attempts,
            "age": info.age,
            "due_in": info.due_in,
            "client_id": info.client_id,
            **described(info.body, self.coder),
        }


def missing(kind: str, name: Any, there: Iterable[str]) -> InvalidOption:
    """Return the error of a name that nothing has: it lists a few names, or offers the nearest."""
    names = sorted(there)
    if len(names) <= FEW:
        known = f"one of {', '.join(names)}" if names else "one that is there, and there is none"
        return InvalidOption(kind, name, known)
    near = nearest(name, names) if isinstance(name, str) else ""
    return InvalidOption(kind, name, f"one of the {len(names)} that are there{near}")
