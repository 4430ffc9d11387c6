"""A broker: names to topics; options, clock and observers for all of them.

The rule: there is one topic under a name, and no two messages of a broker have the same id.

The broker's lock guards its names alone and is never held while a topic does something.

Next: aio/__init__.py
"""

import os
import weakref
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from types import MappingProxyType, TracebackType
from typing import TYPE_CHECKING, Any, ClassVar, Final, Protocol, Self, TypeVar, Unpack

from nsqlite._version import __version__
from nsqlite.clock import Clock, checked_clock
from nsqlite.errors import Closed, InvalidOption, StoreInUse
from nsqlite.events import Observer, Subscription, all_observers, subscription
from nsqlite.ids import GuidFactory
from nsqlite.lock import make_lock
from nsqlite.message import Uncopyable
from nsqlite.names import check_name
from nsqlite.options import (
    DEFAULTS,
    SECOND,
    Seconds,
    TopicOptions,
    make_options,
    require_same,
    timeout_ns,
)
from nsqlite.origin import note
from nsqlite.persistence import TopicPersistence
from nsqlite.topic import Topic

if TYPE_CHECKING:
    from nsqlite.stats import BrokerStats


R = TypeVar("R")


class Persistence(Protocol):
    """What a broker needs of an open store."""

    @property
    def where(self) -> str:
        """The store in words."""
        ...

    @property
    def health(self) -> str:
        """``"OK"``, or ``"NOK - "`` and why it could not be written last."""
        ...

    def names(self) -> Iterable[str]:
        """Return the topics that it has and that were not asked for yet."""
        ...

    def topic(
        self,
        name: str,
        home: object,
        clock: Clock,
        known: Callable[[], R | None],
        make: Callable[[TopicPersistence | None], R],
    ) -> R:
        """Have a topic made, with what the store has of it; see `nsqlite.store.Database`."""
        ...

    def serve(self, broker: "Broker") -> None:
        """Let other processes act on the broker, if that was asked for; called once, last.

        The broker is not kept alive by that.
        """
        ...

    def flush(self) -> None:
        """Write all that happened so far; blocks."""
        ...

    def backup(self, path: str) -> None:
        """Write a copy of it to a new file; blocks."""
        ...

    async def run(self, task: Callable[[], object], call: str) -> None:
        """Have something that blocks done by its thread, and await that; see `Database.run`."""
        ...

    def prepare_close(self) -> None:
        """Write everything, so that it can be closed; blocks."""
        ...

    def close(self, *, force: bool = False, wait: bool = True) -> None:
        """Write everything and close it."""
        ...

    def forsake(self) -> None:
        """Close it, without waiting for that."""
        ...


class Store(Protocol):
    """What a broker needs of a store, which keeps its messages; `nsqlite.SQLite` is one."""

    def open(self, factory: GuidFactory) -> Persistence:
        """Open it; the ids that it has seen are not given again."""
        ...


class Broker(Uncopyable):
    """Topics by name, as one nsqd has them.

    As a context manager, plain or asynchronous, it closes itself at the end of the block.  In a
    loop `nsqlite.aio.join`, `flush` and `close` wait for it.

    Threads: any, for all methods.

    Attributes:
        clock: what its topics take the time from.
        options: what holds for its topics where they are given nothing else.
    """

    _own_options: ClassVar[tuple[str, ...]] = ("clock", "observers", "store")  # not of its topics

    def __init__(
        self,
        *,
        clock: Clock | None = None,
        observers: Iterable[Observer] = (),
        store: Store | None = None,
        **options: Unpack[TopicOptions],
    ) -> None:
        """Make a broker, with the topics of its store or without any.

        Args:
            clock: what its topics take the time from; the system's by default.
            observers: who hears of the events of all topics from the first on.
            store: what keeps its messages, as `nsqlite.SQLite("jobs.db")`; None has them in memory
                alone.
            options: see `nsqlite.options.TopicOptions`.

        Raises:
            InvalidOption: an option is unknown or out of its range, an observer no function, the
                clock no clock or the store no store.
            StoreError: the store cannot be opened.
        """
        self.options: Final = make_options(DEFAULTS, self._own_options, **options)
        self.clock: Clock = checked_clock(clock)
        self._factory: Final = GuidFactory(self.options.node_id)
        self._start_time: Final = self.clock.time_ns() // SECOND
        self._lock: Final = make_lock(rank=0)
        self._topics: Final[dict[str, Topic[Any]]] = {}
        self._observers: tuple[Subscription, ...] = all_observers(observers)
        self._made = 0  # topics since the deleted ones were forgotten; a rough count will do
        self._closed = False
        self._persistence: Final = None if store is None else _opened(store, self._factory)
        if self._persistence is not None:
            self._finalizer: Final = weakref.finalize(self, self._persistence.forsake)
            self._finalizer.atexit = False
            self._persistence.serve(self)
        note(self)

    def topic(self, name: str, **options: Unpack[TopicOptions]) -> Topic[Any]:
        """Get a topic, or create it.

        Args:
            name: 1 to 64 characters (NSQ semantics §2).
            options: what is to differ from the broker's options, for a topic that is created.

        Raises:
            InvalidName: the name breaks NSQ's rule; nothing has changed.
            InvalidOption: an option is out of its range, or the topic exists and has another value;
                nothing has changed.
            Closed: the broker is closed.
            StoreError: its store cannot be read or written.
        """
        topic = self._topics.get(name) if name.__class__ is str else None
        is_gone = topic is None or topic._over == "deleted"
        if topic is None or options or self._closed or is_gone or not topic._named:
            check_name("topic", name)
            wanted = make_options(self.options, **options)
            if self._closed:
                raise Closed("the broker")
            if topic is None or is_gone:
                topic = self._make(name, options, named=True)
            if not topic._named:
                topic._monitor.run(topic._set_options, wanted)
                topic._load()
            require_same(topic.options, options, f"topic {name!r}")
        return topic

    def _reach(self, name: str) -> Topic[Any]:
        """Get a topic, or create it, with options that are for the program to say that names it.

        Raises:
            InvalidName, Closed, StoreError: see `topic`.
        """
        topic = self._find(name)
        if topic is None:
            check_name("topic", name)
            if self._closed:
                raise Closed("the broker")
            topic = self._make(name, {}, named=False)
        return topic

    def _find(self, name: object) -> Topic[Any] | None:
        """Get a topic if there is one, also if only the store has it yet."""
        topic = self._live(name)
        if topic is not None:
            return topic
        if isinstance(name, str) and not self._closed and name in self._stored_names():
            return self._make(name, {}, named=False)
        return None

    def _live(self, name: object) -> Topic[Any] | None:
        """Get a topic if it is there, and not only in the store."""
        topic = self._topics.get(name) if isinstance(name, str) else None
        return None if topic is None or topic._over == "deleted" else topic

    def _stored_names(self) -> Iterable[str]:
        """Return the names of the topics that only the store has yet."""
        return () if self._persistence is None else self._persistence.names()

    def _names(self) -> Iterable[str]:
        """Return the names of all topics, those that only the store has yet among them."""
        self._forget_deleted()
        return {*self._topics, *self._stored_names()}

    def _make(self, name: str, options: TopicOptions, *, named: bool) -> Topic[Any]:
        """Make a topic; what is only looked at takes its options later, when it is named."""

        def make(kept: TopicPersistence | None) -> Topic[Any]:
            topic = self._new_topic(name, kept, options)
            topic._named = named
            try:
                return self._add(topic)
            except BaseException:
                self._disown(topic)
                raise

        if self._persistence is None:
            topic = make(None)
        else:
            known = partial(self._live, name)
            topic = self._persistence.topic(name, self, self.clock, known, make)
        topic._load()
        self._tell_of(topic)
        return topic

    def _new_topic(
        self, name: str, kept: TopicPersistence | None, options: TopicOptions
    ) -> Topic[Any]:
        """Return a new topic, with what a store has of it."""
        return Topic(name, home=self, persistence=kept, **options)

    def _add(self, new: Topic[Any]) -> Topic[Any]:
        """Own a topic that was made, unless there is one of its name; return whichever it is."""
        name = new.name
        with self._lock:
            new._monitor.observe(self._observers)
            # One piece, without a call in which a signal handler could do the same:
            known = name in self._topics and self._topics[name]._over != "deleted"
            if not known and not self._closed:
                self._topics[name] = new
            topic = None if self._closed else self._topics[name]
        if topic is None:
            raise Closed("the broker")
        return topic

    def _disown(self, new: Topic[Any]) -> None:
        """Let go of a topic that was not made to the end."""
        name = new.name
        if name in self._topics and self._topics[name] is new:
            del self._topics[name]

    def _tell_of(self, new: Topic[Any]) -> None:
        """Tell that a topic was created."""
        new._monitor.settle()
        self._made += 1
        if self._made > len(self._topics) // 2:  # so that forgetting costs a topic little
            self._forget_deleted()

    @property
    def topics(self) -> Mapping[str, Topic[Any]]:
        """The topics by name: a read-only copy of the moment.

        Those of the store that nobody has asked for have the broker's options until somebody does.
        """
        self._forget_deleted()
        if not self._closed:
            for name in self._stored_names():
                self._make(name, {}, named=False)
        return MappingProxyType(self._topics.copy())

    def _forget_deleted(self) -> None:
        """Let go of the topics that were deleted; takes the lock."""
        self._made = 0
        for name, topic in self._topics.copy().items():
            if topic._over == "deleted":
                with self._lock:
                    # One piece, as above:
                    if name in self._topics and self._topics[name] is topic:
                        del self._topics[name]

    def observe(
        self, callback: Observer, *, kinds: Iterable[str] | None = None
    ) -> Callable[[], None]:
        """Call a function with every event of every topic, also of those created later.

        Events are in order for each topic; those of two topics can be told at the same time, by two
        threads.  See `Topic.observe`.

        Returns:
            A function that ends it.

        Raises:
            InvalidOption: the callback is no function, or a kind is none.
        """
        told = subscription(callback, kinds)
        with self._lock:
            self._observers = (*self._observers, told)
            topics = list(self._topics.values())
        for topic in topics:
            topic._watch(told)

        def stop() -> None:
            with self._lock:
                self._observers = tuple(known for known in self._observers if known is not told)
                topics = list(self._topics.values())
            for topic in topics:
                topic._forget(told)

        return stop

    def stats(self) -> "BrokerStats":
        """Return a snapshot of all counters; each topic's is one piece."""
        from nsqlite.stats import BrokerStats  # noqa: PLC0415 - keeps importing fast

        topics = self.topics
        return BrokerStats(
            version=__version__,
            health=self.health,
            start_time=self._start_time,
            topics=tuple(topics[name].stats() for name in sorted(topics)),
        )

    def join(self, timeout: Seconds | None = None) -> bool:
        """Wait until every topic is idle, as `Topic.join` says.

        Returns:
            False if the timeout passed first.

        Raises:
            Closed: a topic was closed or deleted meanwhile.
            InvalidOption: the timeout is negative or no finite number.
        """
        limit = timeout_ns(timeout)
        begin = self.clock.monotonic_ns()
        while busy := [topic for topic in self.topics.values() if not topic.idle]:
            left = None
            if limit is not None:
                left = max(0, limit - (self.clock.monotonic_ns() - begin)) / SECOND
            if not busy[0].join(left):
                return False
        return True

    def close(self, *, drain: bool = False, force: bool = False) -> int:
        """Close every topic; see `Topic.close`.  No topic can be had or created after that.

        With a store nothing is thrown away: everything is written, and the store is closed.  With
        `drain` it stays open until the next `close`.  If it is called in the middle of another call
        of the same thread, it does not wait for all this.

        Args:
            drain: first deliver what is there.
            force: close the store even if something cannot be written, which is then lost and
                logged.

        Returns:
            How many messages were thrown away; they are logged as a warning.

        Raises:
            StoreError: something cannot be written.  Nothing is closed, and the broker can still be
                used: finishing messages makes room on a full disk.
        """
        persistence = self._persistence
        wait = not any(topic._lock.owned() for topic in self._topics.copy().values())
        if persistence is not None and wait and not (drain or force or self._closed):
            persistence.prepare_close()
        with self._lock:
            self._closed = True
            topics = list(self._topics.values())
        thrown = sum(topic._end(drain=drain) for topic in topics)
        if persistence is not None and not drain:
            persistence.close(force=force, wait=wait)
            self._finalizer.detach()  # it would hold the store, which may know this broker
        return thrown

    def backup(self, path: str | os.PathLike[str]) -> None:
        """Write a copy of all that happened so far to a new file, while the broker goes on.

        The copy is a complete file: open it like any other.  A copy made by other means while the
        file is open is not a backup.

        Args:
            path: where the copy is to be; there must be nothing yet.

        Raises:
            InvalidOption: the broker has no store.
            StoreError: it cannot be written, or there is a file; no part of a copy is left.
        """
        if self._persistence is None:
            raise InvalidOption("store", None, "a store: what is in memory alone has no backup")
        self._persistence.backup(os.fspath(path))

    @property
    def health(self) -> str:
        """``"OK"``, or ``"NOK - "`` and what is wrong, as nsqd has it.

        That is why the store could not be written last, and which topics have a put that waits for
        room for 10 s or longer, and in which channel.
        """
        kept = "OK" if self._persistence is None else self._persistence.health
        waiting = [topic for topic in self._topics.copy().values() if topic._monitor.putters]
        waits = "; ".join(filter(None, (one._monitor.read(one._long_wait) for one in waiting)))
        if not waits:
            return kept
        return f"NOK - {waits}" if kept == "OK" else f"{kept}; {waits}"

    def flush(self) -> None:
        """Write all that happened so far to the store, if there is one, and wait for that.

        Raises:
            StoreError: it could not be written; it is tried again.
        """
        if self._persistence is not None:
            self._persistence.flush()

    def __enter__(self) -> Self:
        """Begin a block that closes it."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close it."""
        self.close()

    async def _close_async(self, *, drain: bool = False, force: bool = False) -> int:
        """See `nsqlite.aio.close`."""
        persistence = self._persistence
        if persistence is None or drain:
            return self.close(drain=drain)  # which does not block
        thrown: list[int] = []
        try:
            await persistence.run(lambda: thrown.append(self.close(force=force)), "close")
        except (Closed, StoreInUse):  # it has no thread any more, or, after a fork, none here
            return self.close(force=force)
        return thrown[0]

    async def __aenter__(self) -> Self:
        """Begin a block that closes it."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close it, and let the loop go on meanwhile; see `nsqlite.aio.close`."""
        await self._close_async()

    def __repr__(self) -> str:
        """Show its state, how many topics it has, and where they are kept."""
        kind = type(self).__name__
        if not hasattr(self, "_persistence"):  # an option was refused, and the traceback shows it
            return f"<{kind} not made>"
        state = "closed" if self._closed else "open"
        kept = "" if self._persistence is None else f" in {self._persistence.where}"
        return f"<{kind} {state} topics={len(self._topics)}{kept}>"

    def _repr_html_(self) -> str:
        """Show it in a notebook: a table of the topics that are in memory, and their channels."""
        from nsqlite.stats import safely  # noqa: PLC0415 - keeps importing fast

        return safely(self, self._as_html)

    def _as_html(self) -> str:
        from nsqlite.stats import topics_table  # noqa: PLC0415 - keeps importing fast

        topics = [topic for name in sorted(self._topics.copy()) if (topic := self._live(name))]
        return topics_table(repr(self), [topic.stats() for topic in topics])

    def _check(self) -> None:
        """Check what must always hold, in all topics."""
        for topic in self.topics.values():
            topic._check()


def _opened(store: object, factory: GuidFactory) -> Persistence:
    """Return what keeps the topics in a store.

    Raises:
        InvalidOption: it is no store.
        StoreError: it cannot be opened.
    """
    opened = getattr(store, "open", None)
    if isinstance(store, type) or not callable(opened):
        raise InvalidOption("store", store, 'a store, as nsqlite.SQLite("jobs.db") is')
    persistence: Persistence = opened(factory)
    return persistence
