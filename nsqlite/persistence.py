"""The port of a store: what the core needs of whatever keeps its messages.

The rule: None stands for a broker in memory, and everything else is the same with a store and
without.  The core calls a store at three points:

- a put is reserved under the topic's lock, stored without it, and then shown under it again, in
  the order of reservation (`PendingWrite`);
- what changes is noted under the lock, in the order in which it happens, and written later;
- what a queue does not hold in memory is read page by page, without the lock.

Which channels get a put is decided when it is reserved: a channel gets the messages with an id
above the last one that was given when it was made or emptied.

Next: queue.py
"""

from collections.abc import Callable, Container, Iterable, MutableSequence, Sequence
from typing import Any, Final, Generic, Protocol, TypeAlias

from nsqlite.clock import Semaphore
from nsqlite.errors import NSQLiteError
from nsqlite.events import Kind
from nsqlite.message import Message, Record, T
from nsqlite.monitor import Monitor

OnDone: TypeAlias = Callable[[BaseException | None], object]
"""Hears that something was done, or why it could not be."""

Draft: TypeAlias = tuple[Any, bytes, str | None]
"""A body as it will come back, its bytes, and the name of the codec that made them."""


class PendingWrite(Generic[T]):
    """The messages of a put on their way into a store.

        reserved --written--> settled --shown--> in the channels
                    |
                    `--refused--> settled, with an error --> as if it had never been

    Attributes:
        topic: what the store has of the topic.
        bodies: as they will come back.
        codes: their bytes, each with the name of the codec that made them; None if all are bytes.
        size: the sum of the lengths of those that are bytes.
        on_done: called when it is settled and shown, for who does not block; by any thread.
        records: the messages, once it is reserved; empty again once they are shown.
        names: their ids.
        rows: what is to be written of them.
        appends: what would have brought it to its channels when it was reserved, if it is one.
        due: until when they wait, on the clock's monotonic scale; None if they do not.
        flowing: the topic handed its messages on when it was reserved.
        bounded: where room is reserved: queues, as long as it is.
        queued: it is, or was, in the commit queue.
        semaphore: what its put sleeps on; None as long as it does not.
        settled: it is written, or refused.
        told: `on_done` is, or was, among those to be called.
        error: why it was refused.
    """

    # To set all of them for each message would cost a put 0.5 us.
    on_done: Callable[[], object] | None = None
    appends: Sequence[Any] = ()
    due: int | None = None
    flowing: bool = False
    bounded: tuple[Any, ...] = ()
    queued: bool = False
    semaphore: Semaphore | None = None
    settled: bool = False
    told: bool = False
    error: NSQLiteError | None = None

    def __init__(
        self,
        topic: "TopicPersistence",
        bodies: Sequence[Any],
        codes: Sequence[tuple[bytes, str | None]] | None,
        size: int,
        on_done: Callable[[], object] | None = None,
    ) -> None:
        """Begin as what is not reserved yet."""
        self.topic: Final = topic
        self.bodies: Final = bodies
        self.codes: Final = codes
        self.size: Final = size
        self.records: list[Record[T]] = []
        self.names: list[str] = []
        self.rows: list[Any] = []
        if on_done is not None:
            self.on_done = on_done

    def __len__(self) -> int:
        """Count the messages."""
        return len(self.bodies)

    def first(self) -> str:
        """Return the id of the first message, once it is reserved."""
        return self.names[0]

    def conclude(self) -> list[str]:
        """Return the ids of what is settled, or raise why it was refused."""
        if self.error is not None:
            raise self.error
        return self.names


class QueuePersistence(Protocol):
    """What a queue needs of a store.  The topic's lock is held, unless a method says otherwise.

    Attributes:
        counted: the store counts each delivery before `get` returns; see `settle`.
    """

    counted: bool

    def bind(self, queue: Any) -> None:
        """Keep a queue, which is new: fill it with what the store has of it; needs no lock."""
        ...

    def fit(self) -> None:
        """Take note that the queue's limit may have changed."""
        ...

    # What happens is noted

    def hear(self, kind: Kind, record: Record[Any] | None, due: int | None) -> None:
        """Take note of what happened to the queue or to a message of it.

        Args:
            kind: what happened.
            record: the message as it is now, None where the queue is meant.
            due: until when it waits, on the clock's monotonic scale; None if it does not.
        """
        ...

    def delivered(self, messages: Sequence[Message[Any]], due: int) -> None:
        """Take note of deliveries, of which it does not matter until when they may be held."""
        ...

    def finished(self, messages: Sequence[Message[Any]]) -> None:
        """Take note that messages were finished."""
        ...

    def note(self, entry: object) -> None:
        """Take note of what `TopicPersistence.entry` has returned.  Made twice, it is once."""
        ...

    def put_away(self) -> None:
        """Take note that the queue ends, and its messages stay in the store."""
        ...

    # Messages come in

    def takes(self, records: Sequence[Record[Any]]) -> bool:
        """Return whether messages of one put are for this queue."""
        ...

    def room(self) -> int:
        """Return how many messages that come next it has in memory; 0 if they go to the file."""
        ...

    def take(self, records: Sequence[Record[Any]]) -> None:
        """Take messages that are ready, behind all others, unless they are not for this queue.

        Those that have no room in memory stay in the file.  Made twice with the same list, it
        takes them once.
        """
        ...

    def later(
        self, due: int, records: Sequence[Record[Any]]
    ) -> MutableSequence[Record[Any]] | None:
        """Return where messages go that wait, if that is the file alone.

        That is so if the file has others that wait, and none for longer; it may make room in memory
        first, so that it is.  Whoever adds them counts them in `Queue.backend_deferred`.

        Args:
            due: until when they wait, as it was or will be noted.
            records: the messages.
        """
        ...

    def take_over_deferred(self, other: "QueuePersistence") -> None:
        """Take what waits in the file of another queue, which hands all on; it comes first.

        Made twice, it is once.
        """
        ...

    def take_over(self, other: "QueuePersistence") -> None:
        """Take what another queue, which hands all on, has in the file.  Made twice, it is once."""
        ...

    # Pages are read

    def look(self) -> None:
        """Have the next page read soon if little is left in memory, or little that waits."""
        ...

    def read_ahead(self) -> None:
        """Bring what comes next into memory if little is left there; may block.

        It does nothing where the calling thread must not block, and raises nothing.  Takes the
        lock.
        """
        ...

    def fetch(self) -> None:
        """Bring what comes next from the store into memory; blocks, and takes the lock.

        Raises:
            StoreError: it cannot be read; nothing has changed.
        """
        ...

    def load(self) -> None:
        """Bring all of a queue into memory, for a put may have to drop it; blocks, takes the lock.

        Raises:
            StoreError: it cannot be read.
        """
        ...

    def hold_all(self) -> None:
        """Have all in memory from now on, what waits too, for an ephemeral channel; as `load`."""
        ...

    def find(self, name: str) -> "tuple[Record[Any], int | None] | None":
        """Return a message by its id that lies in the store, and until when it waits; blocks.

        It may have come into memory already, or leave it by now.  Takes the lock.

        Raises:
            StoreError: it cannot be read.
        """
        ...

    def discard(self, name: str, from_memory: Callable[[], bool | None]) -> bool:
        """Take out a message by its id that lies in the store alone; blocks, and takes the lock.

        Args:
            name: its id.
            from_memory: called under the lock, to take it out of memory; returns None if it has not
                come there.

        Returns:
            Whether it was taken out.

        Raises:
            StoreError: it cannot be read, and nothing has changed; or not be written.
        """
        ...

    def send(self, task: Callable[[], object], on_done: OnDone) -> None:
        """Have something that blocks, as `fetch`, done by the store's thread; takes no lock.

        Args:
            task: what is to be done.
            on_done: called afterwards, by that thread.
        """
        ...

    def settle(self, messages: list[Message[Any]]) -> None:
        """Have deliveries counted in the store; blocks, and takes the lock.

        Raises:
            StoreError: it cannot be written; the messages are back in the queue, as they were.
        """
        ...


class TopicPersistence(Protocol):
    """What a topic needs of a store.

    Attributes:
        paused: the topic was paused when it was opened.
        late: what is put is shown at once, and written later.
        last: the highest id that was given to a message of it.
        note: takes note of a message that is shown before it is written: the topic's number, the
            id, how many channels that are kept get it, the timestamp, the codec and the bytes; C
            code, so that it is one piece with what shows it; `stir` is to follow.
        reserve: puts a pending write that is prepared behind all that is to be written; C code, so
            that it is one piece with what is decided by it.
        settled: what is settled and not shown yet, in order; who shows it takes it out.
        longest: bytes of the longest body that the store can keep.
        share: bytes of the longest body that counts like any other in what is held in memory.
    """

    paused: bool
    late: bool
    last: str
    share: int
    note: Callable[[Any], None]
    reserve: Callable[[PendingWrite[Any]], None]
    settled: list[PendingWrite[Any]]

    @property
    def longest(self) -> int:
        """See the class."""
        ...

    @property
    def held(self) -> QueuePersistence:
        """What keeps what the topic itself holds."""
        ...

    def attach(self, monitor: Monitor, show: Callable[[], None]) -> None:
        """Belong to a topic that is being made; called first.

        Args:
            monitor: the topic's.
            show: shows what is settled; takes the lock.
        """
        ...

    # For the journal

    @property
    def number(self) -> int:
        """The topic's number in the store."""
        ...

    @property
    def name(self) -> str:
        """The topic's name."""
        ...

    @property
    def deleted(self) -> bool:
        """Whether the topic is no more."""
        ...

    def settle(self, pending: PendingWrite[Any]) -> None:
        """Take note that a put is written or refused; shows nothing yet, and takes no lock."""
        ...

    def show(self) -> None:
        """Show what is settled; takes the lock."""
        ...

    # Any thread, without the lock

    def require_ready(self) -> None:
        """Check that something can be put.

        Raises:
            StoreInUse: this is the child of a fork.
            Closed: the broker is.
            Reentered: the calling thread holds the store's lock.
        """
        ...

    def encode(self, body: Any) -> Draft:
        """Return a body as it will come back, its bytes, and the name of what made them.

        Raises:
            InvalidMessage: it cannot be kept.
        """
        ...

    def write(self, pending: PendingWrite[Any]) -> None:
        """Wait until a put that was reserved is settled, or write it; blocks."""
        ...

    def adopt(self, pending: PendingWrite[Any]) -> None:
        """Have a put that its caller leaves brought to its end, if it was reserved."""
        ...

    def hurry(self) -> None:
        """Have what is reserved written soon, by the store's thread."""
        ...

    def write_if_brief(self) -> None:
        """Write what is reserved if that takes but a moment, else do as `hurry` does."""
        ...

    def stir(self) -> None:
        """Have the message that was noted written when that is due."""
        ...

    def is_behind(self) -> bool:
        """Return whether so much is shown and not written that a put has to wait for that.

        Raises:
            StoreInUse: this is the child of a fork.
            Closed: the broker is.
        """
        ...

    def flush(self) -> None:
        """Write all that happened so far; blocks.

        Raises:
            StoreError: it could not be written; it is tried again.
        """
        ...

    def require_owner(self) -> None:
        """Check that this is no child of a fork.

        Raises:
            StoreInUse: it is.
        """
        ...

    def confirm(self) -> None:
        """Have written what was decided so far; in an event loop or inside another call, soon.

        Raises:
            StoreError: it could not be written; it has taken effect, and is tried again.
        """
        ...

    def keeps(self, other: QueuePersistence | None) -> bool:
        """Return whether another queue is kept by the same store, or by none."""
        ...

    # Under the lock

    def channels(self) -> Iterable[tuple[str, bool, QueuePersistence]]:
        """Return the channels that it has: name, whether it is paused, and what keeps it."""
        ...

    def add_channel(self, name: str) -> QueuePersistence:
        """Take note of a new channel; return what keeps it."""
        ...

    def remove_channel(self, name: str) -> None:
        """Take note that a channel is no more."""
        ...

    def enqueue(self, pending: PendingWrite[Any]) -> None:
        """Put what was reserved behind all that is to be written."""
        ...

    def prepare_plain(self, pending: PendingWrite[Any], record: Record[Any]) -> str:
        """Have all of one message that is ready in a pending write; return its id."""
        ...

    def entry(
        self,
        pending: PendingWrite[Any],
        only: QueuePersistence | None = None,
        moved: tuple[QueuePersistence | None, Sequence[Message[Any]]] | None = None,
        count: int = 0,
    ) -> object:
        """Return what is to be noted of messages that are shown before they are written.

        Args:
            pending: the messages, with their records.
            only: the only channel that they are for.
            moved: the messages that are finished by this, and what keeps the queue they leave.
            count: how many channels that are kept get them, ready.
        """
        ...

    def unshown(self) -> list[PendingWrite[Any]]:
        """Return what is reserved and not shown yet, in order."""
        ...

    def flow(self, *, flowing: bool) -> None:
        """Take note of whether the topic hands its messages on, and of all that led to it.

        It ends whatever pauses the topic, or makes or deletes a channel.  What was given while it
        did so, or is handed on as it begins to, is the channels'.
        """
        ...

    def end(self, how: str) -> None:
        """Take note that the topic is closed or deleted."""
        ...

    def note_all(self, *, paused: bool, channels: Container[str]) -> None:
        """Note again how topic and channels are, since a signal may have struck a change.

        Args:
            paused: the topic is paused.
            channels: the names of its channels.
        """
        ...
