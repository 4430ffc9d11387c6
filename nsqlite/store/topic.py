"""A topic that is kept: its channels, what moves between them, and how it is steered.

The rule: what was decided is in the store when the call returns; what is closed stays there, and
what is deleted is gone from it.

How it takes messages: putting.py.

Next: store/clerk.py
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final, Unpack

from nsqlite.channel import Channel
from nsqlite.errors import (
    Closed,
    InvalidOption,
    NSQLiteError,
)
from nsqlite.fanout import FanOut
from nsqlite.message import Message, Record, T
from nsqlite.names import check_name, is_ephemeral
from nsqlite.options import ChannelOptions, Options, TopicOptions
from nsqlite.queue import NO_LIMIT, Moved, OnDone
from nsqlite.stats import TopicStats
from nsqlite.store.cabinet import Cabinet
from nsqlite.store.channel import KeptChannel
from nsqlite.store.fanout import KeptFanOut
from nsqlite.store.letter import Letter
from nsqlite.store.office import Office
from nsqlite.store.putting import Putting
from nsqlite.store.shelf import Shelf
from nsqlite.store.store import StoredTopic, name_of
from nsqlite.topic import Home


class KeptTopic(Putting[T]):
    """A topic of a broker with a store; see `nsqlite.Topic`.

    `close` throws nothing away: what the topic and its channels hold is there when the file is
    opened again.  A body that is not bytes goes through the store's codec, and what is delivered is
    what comes back from it.

    Threads: as for `Topic`, but a put inside another call of the same thread raises `Reentered`.
    """

    _kept = True

    __slots__ = ("_home", "_sleeping")

    def __init__(
        self,
        name: str,
        stored: StoredTopic,
        office: Office,
        home: Home,
        **options: Unpack[TopicOptions],
    ) -> None:
        """Begin with what is kept of it; `Broker.topic` is the way to it."""
        self._office = office
        self._home: Final = home  # which so lives as long as anything of it is used
        self._settled = []
        self._stored = stored
        self._sleeping: dict[str, tuple[str, list[tuple[Record[T], int | None]]]] = {}
        super().__init__(name, home=home, **options)
        self._fan.paused = stored.paused
        held = self._cabinet.held
        held.capacity = 0 if self._fan.held.limit is None else NO_LIMIT
        found = office.read_apart(stored.number, held) if stored.held else []
        apart = [(office.record(one), one[2]) for one in found]
        self._fan.held.backend_depth = stored.held - len(apart)
        self._restore(self._fan.held, apart)
        with self._monitor.lock:
            self._monitor.perform(self._changed)  # whoever owns it has the observers told

    def _shelf(self, number: int | None, name: str, since: str) -> Shelf:
        return Shelf((number, name), self, self._clock, self._monitor, since)

    def _make_fan(self) -> FanOut[T]:
        stored = self._stored
        held = self._shelf(None, "", name_of(stored.handed))
        held.top = name_of(stored.last)
        held.paused = stored.paused
        self._cabinet = Cabinet(stored.number, self.name, held)
        for known in stored.channels:
            shelf = self._shelf(known.number, known.name, name_of(known.since))
            shelf.top = held.since
            shelf.paused = known.paused
            shelf.asleep = known.held
            self._cabinet.shelves[known.name] = shelf
        fan: KeptFanOut[T] = KeptFanOut(self.name, self.options, self._clock, self._cabinet)
        fan.read = self._read_held
        return fan

    def _read_held(self) -> list[Record[T]]:
        held = self._cabinet.held
        found = {one[0]: one for one in self._office.read_all(self._cabinet.number, held)}
        since, top = int(held.since, 16), int(held.top, 16)
        for row in self._unwritten():
            if since < row[0] <= top and row[2] is None and row[3] is None:
                found[row[0]] = (row[0], row[1], None, row[4], row[5], 0)
        return [self._office.record(found[identity]) for identity in sorted(found)]

    def _restore(self, flow: Any, apart: list[tuple[Record[T], int | None]]) -> None:
        """Bring into memory what does not come in order."""
        now = self._now()
        wall = self._wall()
        for record, due in apart:
            if due is None:
                flow.ready.append(record)
            else:
                flow.defer([record], now + due - wall)

    # Moving

    def _prepare(self, body: T, moved: Moved) -> tuple[Callable[[], None], Callable[[], str]]:
        """See `Topic._prepare`; message and body change places in one transaction.

        Raises:
            InvalidOption: the message is kept by another store.
        """
        letter = self._draft_move(body, moved, None)

        def publish() -> None:
            self._try_last(letter, letter.size, None, moved)

        return publish, partial(self._conclude, letter)

    def prepare_alone(
        self, body: Any, moved: Moved, channel: KeptChannel[Any]
    ) -> tuple[Callable[[], None], Callable[[], str]]:
        """See `Channel._prepare`."""
        letter = self._draft_move(body, moved, channel.number)

        def publish() -> None:
            channel._require_open()
            if not channel._is_open:
                raise self._monitor.refuse(Closed(channel._title))
            self._admit(letter, letter.size, None, moved)

        return publish, partial(self._conclude, letter)

    def _draft_move(self, body: Any, moved: Moved, only: int | None) -> Letter:
        shelf = moved[0].persistence
        if shelf is not None and not self._is_ours(shelf):
            expected = "a topic or channel of the same store: put there, then finish here"
            raise InvalidOption("to", self, expected)
        return self._compose([body], None, only)

    def _is_ours(self, shelf: object) -> bool:
        return isinstance(shelf, Shelf) and shelf.is_of(self._office)

    def _conclude(self, letter: Letter) -> str:
        try:
            self._office.write(letter)
        except BaseException:
            self._office.adopt(letter)
            raise
        return letter.names[0]

    # Channels

    def channel(self, name: str, **options: Unpack[ChannelOptions]) -> Channel[T]:
        """See `Topic.channel`; it is in the store when this returns.

        A channel that the file had before gets its options from the first call that names it.

        Raises:
            StoreError: it cannot be read; or not be written, and then it is there all the same, and
                is written before whatever is put next.
        """
        check_name("channel", name)
        if name in self._channels and self._over is None:
            channel = super().channel(name, **options)
        else:
            self._office.require_open()
            channel = self._wake(name, options)
        with self._lock:
            unwritten = self._cabinet.is_unwritten()
        if unwritten:
            self.confirm()
        return channel

    def _wake(self, name: str, options: ChannelOptions) -> Channel[T]:
        while True:
            shelf = self._cabinet.shelves.get(name)
            if shelf is not None and name not in self._channels:
                top = shelf.top
                found = self._office.read_apart(self._cabinet.number, shelf) if shelf.asleep else []
                self._sleeping[name] = top, [(self._office.record(one), one[2]) for one in found]
            try:
                channel = super().channel(name, **options)
            except _Stale:
                continue
            self._sleeping.pop(name, None)
            return channel

    def _make_channel(self, name: str, options: Options) -> Channel[T]:
        if is_ephemeral(name):
            return super()._make_channel(name, options)
        cabinet = self._cabinet
        shelf = cabinet.shelves.get(name)
        top, apart = self._sleeping.get(name, ("", []))
        if shelf is None:
            apart = []
            shelf = self._shelf(self._office.next_channel(), name, cabinet.held.since)
            cabinet.shelves[name] = shelf
            self.decide()
        elif shelf.top != top:
            raise self._monitor.refuse(_Stale())
        channel: KeptChannel[T] = KeptChannel((self.name, name), options, self._clock, self, shelf)
        flow = channel._queue
        shelf.capacity = self._office.mem_queue_size if flow.limit is None else NO_LIMIT
        flow.backend_depth = max(0, shelf.asleep - len(apart))
        shelf.asleep = 0
        shelf.counted = self._office.counts
        shelf.cursor = shelf.since
        shelf.flow = flow
        shelf.alone = {record[2] + record[3] for record, _ in apart if record[2] + record[3] > top}
        self._restore(flow, apart)
        shelf.look()
        return channel

    @property
    def channels(self) -> Mapping[str, Channel[T]]:
        """See `Topic.channels`; those that the file had get the topic's options now."""
        self._wake_all()
        return super().channels

    def _wake_all(self) -> None:
        if self._over is None:
            for name in set(self._cabinet.shelves) - set(self._channels):
                self.channel(name)

    def stats(self) -> TopicStats:
        """See `Topic.stats`."""
        self._wake_all()
        return super().stats()

    def _is_idle(self) -> bool:
        sleeping = (
            shelf.asleep
            for name, shelf in self._cabinet.shelves.items()
            if name not in self._channels
        )
        return super()._is_idle() and not any(sleeping)

    def _changed(self) -> None:
        """See `Topic`."""
        for name, channel in self._channels.items():
            if channel._over == "deleted":
                self._cabinet.remove(name)
                self.decide()
        super()._changed()

    def _shut(self, how: str) -> int:
        count = 0
        if how == "deleted":
            self._cabinet.deleted = True
            count = sum(shelf.asleep for shelf in self._cabinet.shelves.values())
        self.decide()
        return count + super()._shut(how)

    def _recover(self) -> None:
        super()._recover()
        if self._office.now_shown:
            self.take_up()
        self.show_settled()

    # Steering

    def pause(self) -> None:
        """See `Topic.pause`; it is in the store when this returns."""
        self._office.require_owner()
        super().pause()
        self.confirm()

    def unpause(self) -> None:
        """See `Topic.unpause`; it is in the store when this returns."""
        self._office.require_owner()
        super().unpause()
        self.confirm()

    def empty(self) -> int:
        """See `Topic.empty`; it is in the store when this returns."""
        self._office.require_owner()
        count = super().empty()
        self.confirm()
        return count

    def delete(self) -> int:
        """See `Topic.delete`; it is in the store when this returns."""
        self._office.require_owner()
        count = super().delete()
        self.confirm()
        return count

    def close(self, *, drain: bool = False) -> int:
        """See `Topic.close`; nothing is thrown away."""
        count = super().close(drain=drain)
        self.confirm()
        return count

    # For the shelves, channels and the keeper

    def accounts(self) -> int:
        """Return how many accounts of it were taken."""
        return self._cabinet.taken

    def emptied(self, shelf: Shelf, before: str) -> None:
        """Take note that a shelf was emptied."""
        if shelf.number is None:
            self._cabinet.emptied.append((before, shelf.top))
        else:
            self._cabinet.unheld = True
        self.decide()

    def confirm(self) -> None:
        """Have written what was decided so far; in an event loop, soon."""
        self._office.confirm()

    def require_owner(self) -> None:
        """Check that this is no child of a fork."""
        self._office.require_owner()

    def want(self, shelf: Shelf) -> None:
        """Have a page read soon."""
        self._office.want(self, shelf)

    def fetch(self, shelf: Shelf) -> None:
        """Read a page; blocks."""
        self._office.fetch(self, shelf)

    def read_ahead(self, shelf: Shelf) -> None:
        """Read a page if the calling thread may wait for it."""
        self._office.read_ahead(self, shelf)

    def send(self, errand: Callable[[], object], told: OnDone) -> None:
        """Have something done by the store's thread."""
        self._office.send(errand, told)

    def settle(self, shelf: Shelf, messages: list[Message[Any]]) -> None:
        """Have deliveries counted; blocks."""
        self._office.settle(self, shelf, messages)

    def is_of(self, office: object) -> bool:
        """Say whether it is kept by this keeper."""
        return office is self._office


class _Stale(NSQLiteError):
    """What was read of a channel is not all any more."""
