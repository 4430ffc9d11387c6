"""`nsqlite.attach`: the topics of a store that another process has open.

The rule: what a call here returned for was done there, and is as durable as if it had been made
there; and an error says whether it was done, was not, or may have been.

Next: store/database.py
"""

import os
import socket
import struct
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from types import TracebackType
from typing import Any, Final, Self

from nsqlite.clock import SYSTEM
from nsqlite.errors import InvalidMessage, NoOwner, StoreError, Unanswered
from nsqlite.message import Uncopyable
from nsqlite.names import check_name
from nsqlite.options import SECOND, Seconds, as_seconds, nanoseconds
from nsqlite.stats import MessageInfo
from nsqlite.store.codec import Codec, Coder, checked_codec
from nsqlite.store.controllines import (
    VERSION,
    JSONLines,
    NotJSON,
    address,
    body_of,
    error_of,
    fields_of,
    has_sockets,
    require_own_user,
)
from nsqlite.store.paths import checked_path, full_path
from nsqlite.topic import batch_of

CONNECTING: Final = 5.0
"""Seconds that an owner has to take a connection, and to answer besides what its answer needs."""

IDLE: Final = 8
"""Connections that are kept for the next calls."""


class Attached(Uncopyable):
    """The broker of a store that another process of this user has open; see `attach`.

    As a context manager it closes its connections at the end of the block.

    Threads: any, for all methods; calls that are made at the same time have connections of their
    own.  A call blocks until the owner has answered: in asyncio, let a thread make it
    (`await asyncio.to_thread(topic.put, body)`).  After a fork the child connects anew.

    Every call raises:
        NoOwner: no process of this user answers for the file, or it is closing it; nothing was
            done.
        Unanswered: the owner went away before it answered, or took too long; or closed the store in
            the middle of what is not done all or none.
        StoreError: the owner has another version; nothing was done.
        NSQLiteError: what the call raises in the owner, which names the same facts.

    Attributes:
        path: where the file is.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        codec: str | Codec | None = None,
        timeout: Seconds = 30.0,
    ) -> None:
        """See `attach`."""
        self._idle: deque[tuple[int, JSONLines]] = deque()  # with the process that has opened them
        self.path: Final = checked_path(path)
        self._where: Final = full_path(self.path)
        self._coder: Final = Coder(checked_codec(codec))
        self._timeout: Final = nanoseconds("timeout", timeout, above=True) / SECOND

    def topic(self, name: str) -> "AttachedTopic":
        """Return a topic of the owner's; asks nobody.

        Raises:
            InvalidName: the name breaks NSQ's rule.
        """
        check_name("topic", name)
        return AttachedTopic(self, name)

    def connect(self) -> None:
        """Check that the owner answers, as every call does."""
        self.perform({"call": "ping"})

    def stats(self) -> dict[str, Any]:
        """Return nsqd's counters, with nsqd's keys; see `BrokerStats.to_dict`."""
        result: dict[str, Any] = self.perform({"call": "stats"})
        return result

    def events(
        self,
        topic: str | None = None,
        channel: str | None = None,
        kinds: Iterable[str] | None = None,
    ) -> Iterator[dict[str, Any]]:
        """Yield what happens, as fields, until the owner closes the store.

        The fields are those of `nsqlite.Event`, the body as in an export, and `line`, the event as
        text.  `missed` alone tells how many were left out there, since they came too fast.

        Args:
            topic: of this one alone.
            channel: of this one alone.
            kinds: of these kinds alone.

        Raises:
            NoOwner: the owner went away, and has not closed the store.
            InvalidName, InvalidOption: there can be no such topic, channel or kind.
        """
        wanted = None if kinds is None else list(kinds)
        request = {"call": "tail", "topic": topic, "channel": channel, "kinds": wanted}
        line = self._connect(timeout=None)
        with line:
            line.send(request)
            answer = line.receive()
            if answer is not None:
                self._result(answer)
            yield from self._each_event(line)

    def _each_event(self, line: JSONLines) -> Iterator[dict[str, Any]]:
        event = line.receive()
        while event is not None and "end" not in event:
            yield event
            event = line.receive()
        if event is None:
            raise NoOwner(self.path, "its owner went away")

    def perform(self, request: Mapping[str, Any]) -> Any:
        """Ask the owner for one of `store.operations.Operations`, and return its result."""
        for line in self._lines():
            if _is_sent(line, request):
                return self._ended(line)
        raise NoOwner(self.path, "its owner went away")

    def close(self) -> None:
        """Close the connections that no call is using.  Later calls open others."""
        while self._idle:
            self._idle.pop()[1].close()

    __del__ = close

    def _lines(self) -> Iterator[JSONLines]:
        """Go through the connections to try: those that no call is using, then a new one."""
        while (line := self._take_idle()) is not None:
            yield line
        yield self._connect(self._timeout + CONNECTING)

    def _take_idle(self) -> JSONLines | None:
        """Take a connection that no call is using, None if there is none."""
        with suppress(IndexError):
            while True:
                pid, line = self._idle.pop()
                if pid == os.getpid():
                    return line
                line.close()  # the parent's
        return None

    def _ended(self, line: JSONLines) -> Any:
        """Wait for the answer, and let others have the connection."""
        begin = SYSTEM.monotonic_ns()
        try:
            answer = line.receive()
        except BaseException as error:
            line.close()
            waited = (SYSTEM.monotonic_ns() - begin) / SECOND
            if isinstance(error, TimeoutError) and waited > self._timeout:
                problem = "its owner did not answer in time: it may do it yet, or have done it"
            elif isinstance(error, NotJSON):
                problem = f"its owner gave no answer that can be read: {error}"
            else:
                raise  # as a signal handler has
            raise Unanswered(self.path, problem) from None
        if answer is None:
            line.close()
            raise Unanswered(self.path, "its owner went away: it may have done it, or not")
        if len(self._idle) < IDLE:
            self._idle.append((os.getpid(), line))
        else:
            line.close()
        return self._result(answer)

    def _result(self, answer: dict[str, Any]) -> Any:
        if "error" in answer:
            raise error_of(answer["error"], self.path)
        return answer.get("result")

    def _connect(self, timeout: float | None) -> JSONLines:
        """Open a connection.

        Raises:
            NoOwner: nobody listens.
            StoreError: who listens is another user's, or of another version.
        """
        if not has_sockets():
            raise NoOwner(self.path, "this system has no unix sockets")
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        line = JSONLines(connection)
        try:
            limit_connect(connection)
            connection.connect(address(self._where))
            connection.settimeout(CONNECTING)
            if os.geteuid() != 0:  # root may ask anybody's
                require_own_user(connection)
            self._check_greeting(line.receive())
            connection.settimeout(timeout)
        except BaseException as error:
            line.close()
            if isinstance(error, OSError | NotJSON):
                raise NoOwner(self.path, _why_not(error)) from None
            raise
        return line

    def _check_greeting(self, greeting: dict[str, Any] | None) -> None:
        """Check that who answers speaks as this does.

        Raises:
            NoOwner: it has gone away.
            StoreError: it does not.
        """
        if greeting is None:
            raise NoOwner(self.path, "its owner is closing it")
        if greeting.get("nsqlite") != "control" or greeting.get("version") != VERSION:
            problem = (
                f"its owner speaks version {greeting.get('version')} of the control protocol, and"
                f" this process {VERSION}: let both have the same version of nsqlite"
            )
            raise StoreError(self.path, problem)

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

    def __repr__(self) -> str:
        """Show the path."""
        return f"<Attached to {self.path!r}>"


class _Place:
    """A topic or channel of a broker that this process is attached to."""

    def __init__(self, home: Attached, topic: str, channel: str | None) -> None:
        self._home: Final = home
        self._names: Final = {"topic": topic, "channel": channel}

    def _perform(self, call: str, **arguments: Any) -> Any:
        return self._home.perform({"call": call, **self._names, **arguments})

    def _info(self, told: dict[str, Any]) -> MessageInfo:
        """Return what the owner tells of a message."""
        names = ("id", "state", "attempts", "age", "client_id", "due_in")
        fields = {name: told.get(name) for name in names}
        return MessageInfo(body=_body_of(told, self._home._coder), **fields)  # type: ignore[arg-type]  # as the owner made them

    def pause(self) -> None:
        """Have it deliver nothing, as `Topic.pause` and `Channel.pause` do."""
        self._perform("pause")

    def unpause(self) -> None:
        """Have it go on."""
        self._perform("unpause")

    def empty(self) -> int:
        """Drop what is in it, and return how many messages."""
        count: int = self._perform("empty")
        return count

    def delete(self) -> int:
        """Delete it, and return how many messages are gone."""
        count: int = self._perform("delete")
        return count


class AttachedTopic(_Place):
    """A topic of a broker that this process is attached to.

    It is made by the first `put`; what else is done to it needs it to be there.  What its methods
    raise is told by `Attached`.

    Attributes:
        name: its name.
    """

    def __init__(self, home: Attached, name: str) -> None:
        """Made by `Attached.topic`."""
        super().__init__(home, name, None)
        self.name: Final = name

    def channel(self, name: str) -> "AttachedChannel":
        """Return a channel of it; asks nobody, and makes none.

        Raises:
            InvalidName: the name breaks NSQ's rule.
        """
        check_name("channel", name)
        return AttachedChannel(self._home, self.name, name)

    def put(self, body: Any, *, delay: Seconds | None = None) -> str:
        """Publish a message, as `Topic.put` does in the owner, and return its id.

        It waits as that does: until the message is as safe as the store's `sync` says, and while a
        bounded channel has no room, but for no longer than `attach` was told.
        """
        return self.put_many([body], delay=delay)[0]

    def put_many(self, bodies: Iterable[Any], *, delay: Seconds | None = None) -> list[str]:
        """Publish messages, all or none, as `Topic.put_many` does in the owner; return their ids.

        Raises:
            InvalidMessage: a body is not bytes, and there is no codec; or it is not the owner's.
        """
        coder = self._home._coder
        batch = batch_of(bodies, "put_many")
        request = {
            "call": "put",
            "topic": self.name,
            "bodies": [_fields_of(body, coder, index) for index, body in enumerate(batch)],
            "delay": None if delay is None else as_seconds(delay),
            "timeout": self._home._timeout,
            "create": True,
        }
        ids: list[str] = self._home.perform(request)
        return ids

    def find(self, id: str) -> dict[str, MessageInfo]:  # noqa: A002 - NSQ's word for it
        """Return where a message is, by the names of channels; see `Topic.find`."""
        found = self._home.perform({"call": "find", "topic": self.name, "id": id})
        return {name: self._info(told) for name, told in found.items()}

    def __repr__(self) -> str:
        """Show its name and where it is."""
        return f"<AttachedTopic {self.name!r} of {self._home.path!r}>"


class AttachedChannel(_Place):
    """A channel of a broker that this process is attached to; it must be there.

    What its methods raise is told by `Attached`.

    Attributes:
        name: its name.
        topic_name: its topic's.
    """

    def __init__(self, home: Attached, topic: str, name: str) -> None:
        """Made by `AttachedTopic.channel`."""
        super().__init__(home, topic, name)
        self.name: Final = name
        self.topic_name: Final = topic

    def peek(self, n: int = 10) -> list[MessageInfo]:
        """Return its first messages: those that are ready, then those that are due first."""
        return [self._info(told) for told in self._perform("peek", count=n)]

    def find(self, id: str) -> MessageInfo | None:  # noqa: A002 - NSQ's word for it
        """Return where a message is, None if it is not here; see `Channel.find`."""
        found = self._home.perform({"call": "find", "topic": self.topic_name, "id": id})
        return self._info(found[self.name]) if self.name in found else None

    def discard(self, id: str) -> bool:  # noqa: A002 - NSQ's word for it
        """Take a message out that is ready or deferred; return whether it was there."""
        is_out: bool = self._perform("discard", id=id)
        return is_out

    def redrive(self) -> int:
        """Put the dead letters in it back to where they failed; return how many.

        See `nsqlite.redrive`.
        """
        count: int = self._perform("redrive")
        return count

    def __repr__(self) -> str:
        """Show its name and where it is."""
        return f"<AttachedChannel {self.topic_name}:{self.name} of {self._home.path!r}>"


def attach(
    path: str | os.PathLike[str], *, codec: str | Codec | None = None, timeout: Seconds = 30.0
) -> Attached:
    """Act on a store that another process of this user has open, and let it have what is put.

        with nsqlite.attach("jobs.db", codec="json") as jobs:
            jobs.topic("mails").put({"to": "ann@example.org"})

    The owner has opened it with `SQLite(path, control=True)`, or is `nsqlite run`.  Nobody is asked
    before the first call, so it does not matter who starts first.  Messages are consumed in the
    owner alone.

    Args:
        path: the store's file.
        codec: for bodies that are not bytes: the owner's, by the same name.
        timeout: seconds that a put waits for room in a bounded channel, after which it raises
            `Full`; and that any answer is waited for, with 5 besides.

    Raises:
        InvalidOption: an argument is out of its range, or the path no path of a file.
        StoreError: where the path leads cannot be told.
    """
    return Attached(path, codec=codec, timeout=timeout)


def _is_sent(line: JSONLines, request: Mapping[str, Any]) -> bool:
    """Send a request; return whether the other end is there to get it, or close the connection."""
    try:
        line.send(request)
    except (BrokenPipeError, ConnectionResetError):
        line.close()
        return False
    except BaseException:
        line.close()
        raise
    return True


def _why_not(error: Exception) -> str:
    """Return in words why there is nobody."""
    if isinstance(error, FileNotFoundError | ConnectionRefusedError):
        return (
            "no process listens for it: open it with nsqlite.SQLite(path, control=True), or by"
            " `nsqlite run`"
        )
    if isinstance(error, TimeoutError | BlockingIOError):
        return f"its owner has not taken a connection for {CONNECTING:g} s"
    return f"its control socket cannot be used: {error}"


def limit_connect(connection: socket.socket) -> None:
    """Have the system wait for no longer than `CONNECTING` until a connection is taken.

    With a timeout of Python's it would not wait at all where many connect at a time.
    """
    limit = struct.pack("ll", int(CONNECTING), 0)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)


def _fields_of(body: Any, coder: Coder, index: int) -> dict[str, Any]:
    """Return a body of a batch as fields.

    Raises:
        InvalidMessage: it cannot be kept; the error has its place.
    """
    try:
        return fields_of(body, coder)
    except InvalidMessage as error:
        raise InvalidMessage(error.problem, index) from None


def _body_of(told: dict[str, Any], coder: Coder) -> Any:
    """Return the body of a message that the owner tells of."""
    if "letter" in told:
        from nsqlite.worker.deadletter import DeadLetter  # noqa: PLC0415 - loads all of the workers

        return DeadLetter(body=body_of(told, coder), **told["letter"])
    return told["repr"] if "repr" in told else body_of(told, coder)


__all__ = ["Attached", "AttachedChannel", "AttachedTopic", "attach"]
