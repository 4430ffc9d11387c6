"""The side of a topic that is kept which takes messages: reserve, store, show.

The rule: room and ids are reserved under the topic's lock; the store is written without it; then
what was stored is shown to the channels under the lock, in the order in which it was reserved.  So
no disk is waited for under a lock, and nothing is delivered that was not stored.

Next: store/topic.py
"""

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import repeat
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final

from nsqlite.errors import InvalidMessage, StoreError
from nsqlite.lock import ensure
from nsqlite.message import Record, T
from nsqlite.queue import Moved, OnDone
from nsqlite.store.cabinet import Cabinet
from nsqlite.store.channel import KeptChannel
from nsqlite.store.fanout import KeptFanOut
from nsqlite.store.letter import Draft, Letter
from nsqlite.store.office import Office
from nsqlite.store.shelf import Shelf
from nsqlite.store.store import Row, StoredTopic
from nsqlite.topic import (
    AT_ONCE,
    WAITS_ELSEWHERE,
    Topic,
    batch_of,
    check_done,
    report,
)

BODY: Final = itemgetter(0)
DATA: Final = itemgetter(1)
CODEC: Final = itemgetter(2)
"""Of a draft."""

TIMESTAMP: Final = itemgetter(1)
"""Of a record."""


class Putting(Topic[T]):
    """What puts into a topic that is kept; `KeptTopic` is the whole of it."""

    __slots__ = ("_cabinet", "_office", "_settled", "_stored")

    if TYPE_CHECKING:
        _cabinet: Cabinet
        _office: Office
        _settled: list[Letter]
        _stored: StoredTopic

    @property
    def cabinet(self) -> Cabinet:
        """What the store keeps of it."""
        return self._cabinet

    def stir(self, *, many: bool = False) -> None:
        """Take note that there is something to be written."""
        self._cabinet.stirred = True
        self._office.stir(self, many=many)

    def decide(self) -> None:
        """Take note of what is to be written before, or with, whatever is put from now on."""
        self._cabinet.decided = True
        self.stir()

    def put(self, body: T, delay: float | None = None, timeout: float | None = None) -> str:
        """See `Topic.put`; it returns when the message is stored, as `sync` says.

        Raises:
            StoreError: the message, or with `sync="interval"` what was put before, could not be
                stored; nothing was put anywhere.
        """
        at_once = timeout is None or timeout is AT_ONCE or timeout is WAITS_ELSEWHERE
        if body.__class__ is bytes and delay is None and at_once:
            name = self._put_at_once(body)  # type: ignore[arg-type]  # bytes, as the line above found
            if name is not None:
                return name
        letter = self._compose([body], None)
        return letter.names[0] if self._store(letter, delay, timeout) else ""

    def _put_at_once(self, body: bytes) -> str | None:
        """Reserve, store and show a message if nobody else is putting, and all is calm.

        Returns:
            Its id; None if the long way is to be taken, and then nothing has changed.
        """
        office = self._office
        if office.many or not 0 < len(body) <= self._max_size or office.lock.owned():
            return None
        if not self._cabinet.written or self._cabinet.decided:
            return None
        if office.now_shown:
            return self._put_and_show(office, body)
        name = None
        try:
            try:
                # Who must wait reserves first, so that whoever writes next writes for all who wait.
                alone = not office.crowded and office.lock.attempt()
                if alone and not (office.queue or self._settled):
                    name = self._put_alone(office, body)
            finally:
                ensure(office.leave)
        except BaseException:
            ensure(office.leave)  # a signal may strike as `ensure` begins
            raise
        if name is not None and self._monitor.after:
            self._monitor.settle()
        return name

    def _put_and_show(self, office: Office, body: bytes) -> str | None:
        """Reserve and show a message, and have it stored later; see `_put_at_once`."""
        ids = self._ids
        if self._is_behind() or office.over:
            return None
        with self._lock:
            now = self._wall()
            if self._path() is None or self._settled:
                return None
            if not self._cabinet.stirred:
                self.stir()
            prefix, suffix = ids.take(now)
            name = prefix + suffix
            row = (int(name, 16), now, None, None, None, body)
            push = self._path()  # again, since a handler may have come in meanwhile
            if push is None or self._settled:
                return None
            # One piece, up to the call that follows:
            self._fan.accepted += 1
            self._fan.size += len(body)
            self._cabinet.pending[name] = row
            record: Record[Any] = (body, now, prefix, suffix, 0)
            try:
                push(record)
            except BaseException:
                ensure(partial(self._show_rest, record))
                raise
        return name

    def _path(self) -> Callable[[Record[T]], None] | None:
        """Return what shows a message with no more to do; None if there is more."""
        fan = self._fan
        assert isinstance(fan, KeptFanOut)
        return fan.path()

    def _show_rest(self, record: Record[T]) -> None:
        """Show a message to the channels that have not got it.  May be made twice."""
        fan = self._fan
        assert isinstance(fan, KeptFanOut)
        fan.show_rest(record)

    def _is_behind(self) -> bool:
        """Say whether too much is shown and not written yet; have it written before that."""
        office = self._office
        waiting = len(self._cabinet.pending)
        if office.queue:
            waiting += sum(map(len, office.queue.copy()))
        if waiting >= office.sync_every:
            office.confirm_soon()
        return waiting >= 2 * office.sync_every

    def _put_alone(self, office: Office, body: bytes) -> str | None:
        monitor = self._monitor
        ids = self._ids
        with self._lock:
            now = self._wall()
            if self._path() is None or office.queue or self._settled:
                return None
            if not self._cabinet.stirred:
                self.stir()
            prefix, suffix = ids.take(now)
        name = prefix + suffix
        record: Record[Any] = (body, now, prefix, suffix, 0)
        row = (int(name, 16), now, None, None, None, body)
        try:
            office.write_row(self._stored.number, row)
            with self._lock:
                push = self._path()
                if push is None:
                    monitor.perform(self._show_record, record, len(body))
                else:
                    push(record)
                    self._fan.accepted += 1
                    self._fan.size += len(body)
        except StoreError:
            raise
        except BaseException:
            ensure(partial(self._show_later, record, row))
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
        batch = batch_of(bodies, "put_many")
        if not batch:
            return super().put_many(batch)
        letter = self._compose(batch, None)
        return letter.names if self._store(letter, delay, timeout) else []

    def publish(self, bodies: Iterable[T], on_done: OnDone | None = None) -> None:
        """See `Topic.publish`."""
        batch = batch_of(bodies, "publish")
        check_done(on_done)
        if on_done is None or not batch or self._office.now_shown:
            self.put_many(batch, timeout=AT_ONCE)
            if on_done is not None:
                report(on_done, None)
            return
        letter = self._compose(batch, lambda: report(on_done, letter.error))
        self._monitor.run(self._try_last, letter, letter.size, None)
        self._office.hurry()

    def _draft(
        self, bodies: list[T], told: Callable[[], object]
    ) -> tuple[list[Record[T]], int, Callable[[], list[str]]]:
        """See `Topic._draft`."""
        letter = self._compose(bodies, told)
        return letter, letter.size, partial(concluded, letter)

    def _hurry(self) -> bool:
        """See `Topic._hurry`."""
        if self._office.now_shown:
            return False
        self._office.hurry()
        return True

    def _waits(self) -> bool:
        """See `Topic._waits`."""
        return not self._office.now_shown or self._is_behind() or bool(self._unread())

    def _lags(self) -> bool:
        """See `Topic._lags`."""
        return self._office.now_shown or bool(self._unread())

    def _catch_up(self) -> None:
        """See `Topic._catch_up`."""
        if self._office.now_shown:
            self._office.flush()
        self._bring_in()

    def _unread(self) -> list[Shelf]:
        """Return the shelves of bounded channels that are in the file in part; needs no lock."""
        flows = self._fan.queues
        shelves = [
            flow.persistence for flow in flows if flow.backend_depth and flow.limit is not None
        ]
        return [shelf for shelf in shelves if isinstance(shelf, Shelf)]

    def _bring_in(self) -> None:
        """Read what bounded channels hold into memory: what a put may drop must be there; blocks.

        Raises:
            StoreError: it cannot be read.
        """
        while shelves := self._unread():
            self._office.fetch(self, shelves[0])

    def _compose(
        self, bodies: list[T], told: Callable[[], object] | None, only: int | None = None
    ) -> Letter:
        """Check and encode bodies; needs no lock.

        Raises:
            InvalidMessage: one of them is refused.
            Reentered: called inside another call.
        """
        self._office.require_free("put")
        self._office.require_open()
        if self._office.now_shown and told is None and self._is_behind():
            self._office.flush()
        if told is None:
            self._bring_in()
        drafts = self._plain(bodies) or self._coded(bodies)
        letter = Letter(self, drafts, told, only)
        letter.size = sum(len(body) for body in bodies if isinstance(body, bytes))
        return letter

    def _plain(self, bodies: list[Any]) -> list[Draft]:
        """Return bodies as drafts if all are bytes of a right size, as nearly always; else none."""
        if set(map(type, bodies)) == {bytes}:
            sizes = list(map(len, bodies))
            if min(sizes) > 0 and max(sizes) <= self._max_size:
                return list(zip(bodies, bodies, repeat(None)))
        return []

    def _coded(self, bodies: list[T]) -> list[Draft]:
        """Return bodies as drafts, each checked and encoded.

        Raises:
            InvalidMessage: one of them is refused.
        """
        drafts = []
        for index, body in enumerate(bodies):
            place = None if len(bodies) == 1 else index
            self._size(body, place)
            draft = self._encode(body, place)
            if len(draft[1]) > self._max_size:
                raise self._bad_size(len(draft[1]), place)
            drafts.append(draft)
        return drafts

    def _encode(self, body: T, index: int | None) -> Draft:
        try:
            return self._office.encode(body)
        except InvalidMessage as error:
            if index is None:
                raise
            raise InvalidMessage(error.problem, index) from error

    def _store(self, letter: Letter, delay: float | None, timeout: float | None) -> bool:
        """Reserve, store and show a letter, waiting for room if need be; takes the locks.

        Returns False if it was not to wait for room, and would have to.

        A letter that a signal leaves half way is brought to its end by the store's thread.
        """
        limit = None if timeout is None else self._limit(timeout)
        due = None if delay is None else self._due(delay)
        try:
            if not self._send(letter, letter.size, due, limit):
                return False
            self._office.write(letter)
        except BaseException:
            self._office.adopt(letter)
            raise
        return True

    def _admit(
        self,
        records: list[Record[T]],
        size: int,
        due: int | None,
        moved: Moved | None = None,
    ) -> None:
        """Reserve: give a letter that was judged its ids and its place among the others."""
        assert isinstance(records, Letter)
        letter = records
        letter.size = size
        drafts = letter.drafts
        self._add_records(letter.records, letter.names, list(map(BODY, drafts)))
        wall = None if due is None else self._cabinet.held.wall(due)
        letter.rows = list(
            zip(
                map(int, letter.names, repeat(16)),
                map(TIMESTAMP, letter.records),
                repeat(wall),
                repeat(letter.only),
                map(CODEC, drafts),
                map(DATA, drafts),
            )
        )
        letter.due = due
        if due is None and letter.only is None:
            self._speak_for(letter)
        if not self._cabinet.stirred:
            self.stir()
        queue = self._office.queue
        if moved is not None:
            letter.leave(moved)
        # One piece, up to the call that completes it:
        if moved is not None:
            left, messages = moved
            messages[0]._consumer._allowed += 1
            left.leaving = messages
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
        letter.settled = True  # one piece with what follows
        if not letter.shown:
            self._settled.append(letter)

    def show(self) -> None:
        """Show what is settled; takes the lock."""
        if self._settled:
            self._monitor.run(self.show_settled)

    def show_settled(self) -> None:
        """Show what is settled, in order.  May be made twice."""
        settled = self._settled
        while settled:
            self._show(settled[0])
            self._monitor.discard(settled.pop(0))  # its bodies are forgotten after the lock

    def take_up(self) -> None:
        """See to what a signal has kept from being shown at once.  May be made twice."""
        known = set(map(id, self._settled.copy()))
        for letter in self._office.queue.copy():
            if letter.topic is self and not letter.shown and id(letter) not in known:
                self._settled.append(letter)

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
                channel.show(letter)
        fan = self._fan
        assert isinstance(fan, KeptFanOut)
        fan.count_alone(letter.names[0])
        letter.shown = True

    def _cancel(self, letter: Letter) -> None:
        if not letter.shown:
            letter.shown = True
            self._fan.room()

    def _unwritten(self) -> Iterator[Row]:
        """Go through what is shown and may not be written yet."""
        for letter in self._office.queue.copy():
            if letter.topic is self:
                yield from letter.rows
        yield from self._cabinet.pending.values()


def concluded(letter: Letter) -> list[str]:
    """Return the ids of a letter that is settled, or raise why it was refused."""
    if letter.error is not None:
        raise letter.error
    return letter.names
