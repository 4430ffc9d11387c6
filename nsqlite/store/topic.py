"""A topic that is kept: what `put` returned for is in the store, and shown only then.

The rule: reserve, store, show.  Room and ids are reserved under the topic's lock; the store is
written without it; then what was stored is shown to the channels under the lock, in the order in
which it was reserved.  So no disk is waited for under a lock, and nothing is delivered that was not
stored.

Next: store/clerk.py
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any, Final, Protocol, Unpack

from nsqlite.backlog import Deferral
from nsqlite.channel import Channel
from nsqlite.errors import (
    Closed,
    InvalidMessage,
    InvalidOption,
    NSQLiteError,
    Reentered,
    StoreError,
)
from nsqlite.fanout import FanOut
from nsqlite.flow import Moved
from nsqlite.guid import BLOCK
from nsqlite.lock import Section, insist
from nsqlite.message import Message, Record, T
from nsqlite.names import check_name, is_ephemeral
from nsqlite.options import ChannelOptions, Options, TopicOptions
from nsqlite.publisher import batch_of
from nsqlite.shelf import Told
from nsqlite.stats import TopicStats
from nsqlite.store.cabinet import Cabinet
from nsqlite.store.channel import KeptChannel
from nsqlite.store.fanout import KeptFanOut
from nsqlite.store.letter import Letter
from nsqlite.store.shelf import Shelf
from nsqlite.store.store import Found, Row, StoredTopic, name_of
from nsqlite.topic import Home, Topic

NO_LIMIT: Final = 1 << 62


class Office(Protocol):
    """What a topic needs of the keeper of its store.

    Attributes:
        lock: held by whoever writes.
        many: there is much that should go along with the next write.
        crowded: several puts shared the last commit.
        queue: the letters that were reserved and are not settled.
        now_shown: what was reserved is shown at once, and written later.
        mem_queue_size: how many ready messages of a channel are held in memory.
        counts: deliveries are counted before `get` returns.
        sync_every: of so many changes the store hears at once.
    """

    lock: Section
    many: bool
    crowded: bool
    queue: deque[Letter]
    now_shown: bool
    mem_queue_size: int
    counts: bool
    sync_every: int

    @property
    def over(self) -> bool:
        """Whether the store cannot be used."""
        ...

    def leave(self) -> None:
        """Release the lock, if the calling thread holds it."""
        ...

    def require_open(self) -> None:
        """Check that the store can be used."""
        ...

    def require_owner(self) -> None:
        """Check that this is no child of a fork."""
        ...

    def flush(self) -> None:
        """Write all that is not written; blocks."""
        ...

    def confirm_soon(self) -> None:
        """Have all written soon, by the store's thread."""
        ...

    def encode(self, body: Any) -> tuple[Any, bytes, str | None]:
        """Return a body as it will come back, its bytes and what made them."""
        ...

    def record(self, found: Found) -> Record[Any]:
        """Return what was read as a record."""
        ...

    def next_channel(self) -> int:
        """Return a number that no channel has."""
        ...

    def read_all(self, topic: int, shelf: Shelf) -> list[Found]:
        """Return what a shelf has in the file in order."""
        ...

    def read_apart(self, topic: int, shelf: Shelf) -> list[Found]:
        """Return what a shelf has in the file apart."""
        ...

    def stir(self, topic: "KeptTopic[Any]", *, many: bool = False) -> None:
        """Take note that there is something to be written."""
        ...

    def confirm(self) -> None:
        """Have written what was decided so far."""
        ...

    def write(self, letter: Letter) -> None:
        """Have a letter written and shown; blocks."""
        ...

    def write_row(self, number: int, row: Row) -> None:
        """Write a message; the lock is held."""
        ...

    def adopt(self, letter: Letter) -> None:
        """Have the store's thread bring a letter to its end, if it was reserved."""
        ...

    def put_first(self, letter: Letter) -> None:
        """Have a letter written and shown before all others; the lock is held."""
        ...

    def hurry(self) -> None:
        """Have what is reserved written soon, by the store's thread."""
        ...

    def want(self, topic: "KeptTopic[Any]", shelf: Shelf) -> None:
        """Have a page read soon."""
        ...

    def send(self, errand: Callable[[], object], told: Told) -> None:
        """Have something done by the store's thread."""
        ...

    def fetch(self, topic: "KeptTopic[Any]", shelf: Shelf) -> None:
        """Read a page; blocks."""
        ...

    def settle(self, topic: "KeptTopic[Any]", shelf: Shelf, messages: list[Message[Any]]) -> None:
        """Have deliveries counted; blocks."""
        ...


class KeptTopic(Topic[T]):
    """A topic of a broker with a store; see `nsqlite.Topic`.

    `close` throws nothing away: what the topic and its channels hold is there when the file is
    opened again.  A body that is not bytes goes through the store's codec, and what is delivered is
    what comes back from it.

    Threads: as for `Topic`, but a put inside another call of the same thread raises `Reentered`.
    """

    kept = True

    __slots__ = ("_cabinet", "_home", "_office", "_settled", "_sleeping", "_stored")

    def __init__(
        self,
        name: str,
        stored: StoredTopic,
        office: Office,
        home: Home,
        **options: Unpack[TopicOptions],
    ) -> None:
        """Begin with what is kept of it; `Broker.topic` is the way to it."""
        self._office: Final = office
        self._home: Final = home  # which so lives as long as anything of it is used
        self._settled: Final[deque[Letter]] = deque()
        self._stored: Final = stored
        self._sleeping: dict[str, tuple[str, list[tuple[Record[T], int | None]]]] = {}
        super().__init__(name, home=home, **options)
        self._fan.paused = stored.paused
        held = self._cabinet.held
        held.capacity = 0 if self._fan.held.limit is None else NO_LIMIT
        found = office.read_apart(stored.number, held) if stored.held else []
        apart = [(office.record(one), one[2]) for one in found]
        self._fan.held.beyond = stored.held - len(apart)
        self._restore(self._fan.held, apart)
        self._guard.run(self.changed)

    def _shelf(self, number: int | None, name: str, since: str) -> Shelf:
        return Shelf((number, name), self, self._clock, self._guard, since)

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

    def _unwritten(self) -> Iterator[Row]:
        """Go through what is shown and may not be written yet."""
        for letter in list(self._office.queue):
            if letter.topic is self:
                yield from letter.rows
        for name, (body, timestamp) in self._cabinet.pending.items():
            yield int(name, 16), timestamp, None, None, None, body

    def _restore(self, flow: Any, apart: list[tuple[Record[T], int | None]]) -> None:
        """Bring into memory what does not come in order."""
        now = self._now()
        wall = self._wall()
        for record, due in apart:
            if due is None:
                flow.ready.append(record)
            else:
                flow.defer([Deferral(record)], now + due - wall)

    # Putting

    def put(self, body: T, delay: float | None = None, timeout: float | None = None) -> str:
        """See `Topic.put`; it returns when the message is stored, as `sync` says.

        Raises:
            StoreError: the message, or with `sync="interval"` what was put before, could not be
                stored; nothing was put anywhere.
        """
        if body.__class__ is bytes and delay is None and timeout is None:
            name = self._put_at_once(body)  # type: ignore[arg-type]  # bytes, as the line above found
            if name is not None:
                return name
        letter = self._draft([body], None)
        self._store(letter, delay, timeout)
        return letter.names[0]

    def _put_at_once(self, body: bytes) -> str | None:
        """Reserve, store and show a message if nobody else is putting, and all is calm.

        Returns:
            Its id; None if the long way is to be taken, and then nothing has changed.
        """
        office = self._office
        if office.many or not 0 < len(body) <= self._max_size or office.lock.owned():
            return None
        if not self._cabinet.written:
            return None
        if office.now_shown:
            return self._put_and_show(office, body)
        name = None
        try:
            # Who must wait reserves first, so that whoever writes next writes for all who wait.
            alone = not office.crowded and office.lock.attempt()
            if alone and not (office.queue or self._settled):
                name = self._put_alone(office, body)
        finally:
            insist(office.leave)
        if name is not None and self._guard.wary:
            self._guard.settle()
        return name

    def _put_and_show(self, office: Office, body: bytes) -> str | None:
        """Reserve and show a message, and have it stored later; see `_put_at_once`."""
        guard = self._guard
        ids = self._ids
        if not self._has_stirred(office):
            return None
        with self._lock:
            now = self._wall()
            if now >= ids.until or ids.used == BLOCK:
                ids.renew(now)
            push = guard.push
            if push is None or self._settled:
                return None
            used = ids.used
            ids.used = used + 1
            prefix = ids.prefix
            suffix = ids.suffixes[used]
            # One piece, up to the call that follows:
            self._bytes += len(body)
            self._cabinet.pending[prefix + suffix] = body, now
            push((body, now, prefix, suffix, 0))
        return prefix + suffix

    def _has_stirred(self, office: Office) -> bool:
        """Have what is pending written in time; return whether there is room for more."""
        count = len(self._cabinet.pending)
        if not count:
            self.stir()
        elif count == office.sync_every:
            office.confirm_soon()
        return not (self._is_behind() or office.over)

    def _is_behind(self) -> bool:
        """Say whether too much is shown and not written yet."""
        waiting = len(self._cabinet.pending) + len(self._office.queue)
        return waiting >= 2 * self._office.sync_every

    def _put_alone(self, office: Office, body: bytes) -> str | None:
        guard = self._guard
        ids = self._ids
        with self._lock:
            now = self._wall()
            if now >= ids.until or ids.used == BLOCK:
                ids.renew(now)
            if guard.push is None:
                return None
            if not self._cabinet.stirred:
                self.stir()
            used = ids.used
            ids.used = used + 1
            self._unused += 1
            prefix = ids.prefix
            suffix = ids.suffixes[used]
        name = prefix + suffix
        record: Record[Any] = (body, now, prefix, suffix, 0)
        row = (int(name, 16), now, None, None, None, body)
        try:
            office.write_row(self._stored.number, row)
            with self._lock:
                push = guard.push
                if push is None:
                    guard.perform(self._show_record, record, len(body))
                else:
                    push(record)
                    self._unused -= 1
                    self._bytes += len(body)
        except StoreError:
            raise
        except BaseException:
            insist(partial(self._show_later, record, row))
            raise
        return name

    def _show_record(self, record: Record[T], size: int) -> None:
        """Show a message that was stored, the long way."""
        if self._over != "deleted":
            super()._admit([record], size, None)

    def _show_later(self, record: Record[T], row: Row) -> None:
        """Have a message shown that was written, unless it is; before all that was reserved since.

        It is written again, which does no harm.  The keeper's lock is held.
        """
        if record[2] + record[3] > self._cabinet.held.top:
            letter = Letter(self, [(record[0], row[5], None)])
            letter.records = [record]
            letter.rows = [row]
            letter.size = len(row[5])
            self._office.put_first(letter)

    def put_many(
        self, bodies: Iterable[T], *, delay: float | None = None, timeout: float | None = None
    ) -> list[str]:
        """See `Topic.put_many`; it returns when all are stored, in one transaction.

        Raises:
            StoreError: they could not be stored; nothing was put anywhere.
        """
        batch = batch_of(bodies)
        if not batch:
            return super().put_many(batch)
        letter = self._draft(batch, None)
        self._store(letter, delay, timeout)
        return letter.names

    def draft(
        self, bodies: list[T], told: Callable[[], object]
    ) -> tuple[list[Record[T]], int, Callable[[], list[str]]]:
        """See `Publisher.draft`."""
        letter = self._draft(bodies, told)
        return letter, letter.size, partial(concluded, letter)

    def hurry(self) -> bool:
        """See `Publisher.hurry`."""
        if not self._office.now_shown:
            self._office.hurry()
            return True
        if self._is_behind():
            self._office.confirm_soon()
            return True
        return False

    def waits(self) -> bool:
        """See `Publisher.waits`."""
        return not self._office.now_shown or self._is_behind()

    def _draft(
        self, bodies: list[T], told: Callable[[], object] | None, only: int | None = None
    ) -> Letter:
        """Check and encode bodies; needs no lock.

        Raises:
            InvalidMessage: one of them is refused.
            Reentered: called inside another call.
        """
        if self._office.lock.owned():
            raise Reentered("put")
        self._office.require_open()
        if self._office.now_shown and told is None and self._is_behind():
            self._office.flush()
        drafts = []
        size = 0
        for index, body in enumerate(bodies):
            place = None if len(bodies) == 1 else index
            size += self._size(body, place)
            draft = self._encode(body, place)
            if len(draft[1]) > self._max_size:
                raise self._bad_size(len(draft[1]), place)
            drafts.append(draft)
        letter = Letter(self, drafts, told, only)
        letter.size = size
        return letter

    def _encode(self, body: T, index: int | None) -> tuple[Any, bytes, str | None]:
        try:
            return self._office.encode(body)
        except InvalidMessage as error:
            if index is None:
                raise
            raise InvalidMessage(error.problem, index) from error

    def _store(self, letter: Letter, delay: float | None, timeout: float | None) -> None:
        """Reserve, store and show a letter, waiting for room if need be; takes the locks.

        A letter that a signal leaves half way is brought to its end by the store's thread.
        """
        try:
            self._send(letter, letter.size, delay, timeout)
            self._office.write(letter)
        except BaseException:
            self._office.adopt(letter)
            raise

    def _admit(
        self,
        records: list[Record[T]],
        size: int,
        due: int | None,
        moved: Moved | None = None,
    ) -> None:
        """Reserve: give a letter that was judged its ids and its place among the others."""
        if not isinstance(records, Letter):
            super()._admit(records, size, due, moved)
            return
        letter = records
        bodies = [draft[0] for draft in letter.drafts]
        self._mint_into(letter.records, letter.names, bodies)
        shelf = self._cabinet.held
        wall = None if due is None else shelf.wall(due)
        letter.rows = [
            (int(record[2] + record[3], 16), record[1], wall, letter.only, draft[2], draft[1])
            for record, draft in zip(letter.records, letter.drafts, strict=True)
        ]
        letter.due = due
        if due is None and letter.only is None:
            self._speak_for(letter)
        if not self._cabinet.stirred:
            self.stir()
        queue = self._office.queue
        # One piece, up to the call that completes it:
        if moved is not None:
            letter.moved = moved
            moved[0].leaving = moved[1]
        queue.append(letter)
        if self._office.now_shown:
            self._settled.append(letter)
            self.show_settled()

    def _speak_for(self, letter: Letter) -> None:
        """Keep room for a letter in the queues that are bounded."""
        letter.bounded = tuple(flow for flow in self._fan.targets() if flow.limit is not None)
        for flow in letter.bounded:
            flow.reserved += len(letter)

    # Showing

    def settle_letter(self, letter: Letter) -> None:
        """Take note that a letter is written or refused; needs no lock, and shows nothing yet."""
        if not letter.settled:
            letter.settled = True  # one piece with the next line
            self._settled.append(letter)

    def show(self) -> None:
        """Show what is settled; takes the lock."""
        if self._settled:
            self._guard.run(self.show_settled)

    def show_settled(self) -> None:
        """Show what is settled, in order.  May be made twice."""
        settled = self._settled
        while settled:
            self._show(settled[0])
            settled.popleft()

    def _show(self, letter: Letter) -> None:
        bounded, letter.bounded = letter.bounded, ()
        for flow in bounded:
            flow.reserved -= len(letter)
        if letter.error is not None:
            self._cancel(letter)
        elif letter.only is not None:
            self._show_alone(letter)
        elif self._over == "deleted":
            letter.shown = True
        elif not letter.shown:
            super()._admit(letter.records, letter.size, letter.due)
            letter.shown = True

    def _show_alone(self, letter: Letter) -> None:
        for channel in self._channels.values():
            if isinstance(channel, KeptChannel) and channel.number == letter.only:
                if not letter.shown:
                    self._bytes += letter.size
                channel.show(letter)
        fan = self._fan
        assert isinstance(fan, KeptFanOut)
        fan.count_alone(letter.names[0])
        letter.shown = True

    def _cancel(self, letter: Letter) -> None:
        if not letter.shown:
            letter.shown = True
            self._fan.room()

    # Moving

    def prepare(self, body: T, moved: Moved) -> tuple[Callable[[], None], Callable[[], str]]:
        """See `Publisher.prepare`; message and body change places in one transaction.

        Raises:
            InvalidOption: the message is kept by another store.
        """
        return self._prepare(self._draft_move(body, moved, None), moved)

    def prepare_alone(
        self, body: Any, moved: Moved, channel: KeptChannel[Any]
    ) -> tuple[Callable[[], None], Callable[[], str]]:
        """See `Channel.prepare`."""
        letter = self._draft_move(body, moved, channel.number)

        def publish() -> None:
            channel._require_open()
            if not channel._is_open:
                raise self._guard.refuse(Closed(channel._title))
            self._admit(letter, letter.size, None, moved)

        return publish, partial(self._conclude, letter)

    def _draft_move(self, body: Any, moved: Moved, only: int | None) -> Letter:
        shelf = moved[0].shelf
        if shelf is not None and not self._is_ours(shelf):
            expected = "a topic or channel of the same store: put there, then finish here"
            raise InvalidOption("to", self, expected)
        return self._draft([body], None, only)

    def _is_ours(self, shelf: object) -> bool:
        return isinstance(shelf, Shelf) and shelf.is_of(self._office)

    def _prepare(
        self, letter: Letter, moved: Moved
    ) -> tuple[Callable[[], None], Callable[[], str]]:
        def publish() -> None:
            self._try_last(letter, letter.size, None, moved)

        return publish, partial(self._conclude, letter)

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
            StoreError: it cannot be read or written.
        """
        check_name("channel", name)
        if name in self._channels and self._over is None:
            return super().channel(name, **options)
        self._office.require_open()
        channel = self._wake(name, options)
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
                return super().channel(name, **options)
            except _Stale:
                continue

    def _make_channel(self, name: str, options: Options) -> Channel[T]:
        if is_ephemeral(name):
            return super()._make_channel(name, options)
        cabinet = self._cabinet
        shelf = cabinet.shelves.get(name)
        top, apart = self._sleeping.pop(name, ("", []))
        if shelf is None:
            shelf = self._shelf(self._office.next_channel(), name, cabinet.held.since)
            cabinet.shelves[name] = shelf
            self.stir()
        elif shelf.top != top:
            raise self._guard.refuse(_Stale())
        channel: KeptChannel[T] = KeptChannel((self.name, name), options, self._clock, self, shelf)
        flow = channel._flow
        shelf.capacity = self._office.mem_queue_size if flow.limit is None else NO_LIMIT
        flow.beyond = max(0, shelf.asleep - len(apart))
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

    def changed(self) -> None:
        """See `TopicCore`."""
        for name, channel in self._channels.items():
            if channel._over == "deleted":
                self._cabinet.remove(name)
                self.stir()
        super().changed()

    def _shut(self, how: str) -> int:
        count = 0
        if how == "deleted":
            self._cabinet.deleted = True
            count = sum(shelf.asleep for shelf in self._cabinet.shelves.values())
        self.stir()
        return count + super()._shut(how)

    def _mend(self) -> None:
        super()._mend()
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

    @property
    def cabinet(self) -> Cabinet:
        """What the store keeps of it."""
        return self._cabinet

    def stir(self, *, many: bool = False) -> None:
        """Take note that there is something to be written."""
        self._cabinet.stirred = True
        self._office.stir(self, many=many)

    def emptied(self, shelf: Shelf, before: str) -> None:
        """Take note that a shelf was emptied."""
        if shelf.number is None:
            self._cabinet.emptied.append((before, shelf.top))
        else:
            self._cabinet.unheld = True
        self.stir()

    def confirm(self) -> None:
        """Have written what was decided so far; in an event loop, soon."""
        if not self._lock.owned():
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

    def send(self, errand: Callable[[], object], told: Told) -> None:
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


def concluded(letter: Letter) -> list[str]:
    """Return the ids of a letter that is settled, or raise why it was refused."""
    if letter.error is not None:
        raise letter.error
    return letter.names
