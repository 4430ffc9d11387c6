"""The owner's end of a control socket: other processes of its user act on its broker through it.

The rule: a request is carried out by a thread of its connection, as if the owner's program had made
the call; and an answer is sent only when it is done.

The socket lies beside the file, as `<file>-control`.  It is its user's alone (mode 0600), and who
connects is asked for by the system: nobody else's process gets a word.  It is there as long as the
owner is; one that a killed owner has left is replaced by the next.

Next: store/attach.py
"""

import logging
import os
import selectors
import socket
import stat
import threading
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Final

from nsqlite.clock import SYSTEM
from nsqlite.errors import Closed, InvalidMessage, NoOwner, NSQLiteError, StoreError, Unanswered
from nsqlite.events import Event
from nsqlite.options import SECOND
from nsqlite.store.controllines import (
    JSONLines,
    NotJSON,
    address,
    described,
    greeting,
    problem_of,
    require_own_user,
)
from nsqlite.store.operations import PARTIAL, Operations
from nsqlite.store.paths import told
from nsqlite.store.tail import Tail

log: Final = logging.getLogger("nsqlite")

GRACE: Final = 1.0
"""Seconds that answers have to be sent when the owner closes."""

BACKLOG: Final = 1024
"""Connections that wait to be accepted; the system may allow fewer."""


class Control:
    """Listens on the control socket of a store, from `start` until `stop`.

    Threads: any may call `stop`, also a signal handler.
    """

    def __init__(self, where: str, operations: Operations) -> None:
        """Make the socket.

        Args:
            where: the store's file, which this process owns.
            operations: what can be asked for.

        Raises:
            StoreError: it cannot be made.
        """
        self._where: Final = where
        self._operations: Final = operations
        self._path: Final = address(where)
        self._over: Final = threading.Event()
        self._connections: Final[dict[_Connection, None]] = {}
        self._closing: Final = ExitStack()  # what is open
        try:
            self._waker, self._woken = socket.socketpair()
            self._closing.callback(self._waker.close)
            self._closing.callback(self._woken.close)
            self._waker.setblocking(False)
            self._listener: Final = self._closing.enter_context(listener(where, self._path))
            self._made: Final = os.lstat(self._path)
            self._selector: Final = self._closing.enter_context(selectors.DefaultSelector())
            self._selector.register(self._listener, selectors.EVENT_READ)
            self._selector.register(self._woken, selectors.EVENT_READ)
        except BaseException:
            self._closing.close()
            raise
        name = f"nsqlite control {where}"
        self._thread: Final = _Thread(name, self._listen)

    def start(self) -> None:
        """Start to listen.

        Raises:
            RuntimeError: there are too many threads; nothing is open then.
        """
        try:
            self._thread.start()
        except BaseException:
            self._closing.close()
            raise

    def stop(self) -> None:
        """Take no more connections and requests, and do not wait; made twice, it is once.

        A signal may throw out of it: it is to be made again then.
        """
        with suppress(OSError):  # it is gone already
            if os.path.samestat(os.lstat(self._path), self._made):  # else it is another owner's
                Path(self._path).unlink()
        self._over.set()
        with suppress(OSError):
            self._waker.send(b"\0")

    def wait(self) -> None:
        """Wait for its end, after `stop`: until answers to what was asked are sent, or `GRACE`."""
        self._thread.join()

    def abandon(self) -> None:
        """In the child of a fork: let go of what is the parent's."""
        self._over.set()
        for one in (self._listener, self._waker, self._woken):
            one.close()
        for connection in self._connections:
            connection.line.close()

    # The thread that listens

    def _listen(self) -> None:
        while not self._over.is_set():
            self._selector.select()
            if not self._over.is_set():
                self._accept()
        self._end_connections()
        self._closing.close()

    def _accept(self) -> None:
        """Take a connection, if its process is our user's."""
        try:
            accepted, _ = self._listener.accept()
        except OSError as error:  # too many open files, for one
            log.warning("%s: a connection cannot be accepted: %s", self._path, error)
            self._over.wait(GRACE)  # it would come back at once
            return
        connection = _Connection(self, JSONLines(accepted))
        self._connections[connection] = None
        try:
            require_own_user(accepted)
            connection.thread.start()
        except (OSError, RuntimeError) as error:  # the system does not tell, or too many threads
            log.warning("%s: a connection was refused: %s", self._path, error)
            del self._connections[connection]
            connection.line.close()

    def _end_connections(self) -> None:
        """Let each connection send its answer, and end it."""
        connections = list(self._connections)
        for connection in connections:
            connection.line.shut(socket.SHUT_RD)
        _join(connections)
        for connection in connections:
            connection.line.shut(socket.SHUT_RDWR)
        _join(connections)

    # The threads of connections

    def serve(self, connection: "_Connection") -> None:
        """Answer the requests of a connection, until that ends."""
        with connection.line as line:
            try:
                line.send(greeting())
                self._serve_each(connection)
            except NotJSON as problem:
                log.warning("%s: a connection was ended: %s", self._path, problem)
            except OSError:
                pass  # the other end is gone
            finally:
                self._connections.pop(connection, None)

    def _serve_each(self, connection: "_Connection") -> None:
        """See `serve`."""
        line = connection.line
        while (request := line.receive()) is not None:
            if request.get("call") == "tail":
                self._tail(line, request)
                break
            connection.thread.at_rest = False
            self._reply(line, request)
            connection.thread.at_rest = True

    def _reply(self, line: JSONLines, request: Mapping[str, Any]) -> None:
        """Carry a request out, and send its answer, or that this would be too long."""
        answer = self._answer(request)
        try:
            line.send(answer)
        except InvalidMessage as error:
            line.send({"error": problem_of(error)})

    def _answer(self, request: Mapping[str, Any]) -> dict[str, Any]:
        try:
            return {"result": self._perform(request)}
        except NSQLiteError as error:
            return {"error": problem_of(error)}
        except Exception as error:
            log.exception("%s: a request has failed", self._path)
            return {"error": problem_of(error)}

    def _perform(self, request: Mapping[str, Any]) -> Any:
        """Do what is asked for, and return its result.

        Raises:
            NoOwner: the broker is closed, and nothing was done.
            Unanswered: it is closed, and a part may be done.
            NSQLiteError: see `Operations.perform`.
        """
        broker = self._operations.broker()
        try:
            return self._operations.perform(request)
        except Closed:
            if not broker._closed:
                raise
        if request["call"] in PARTIAL:
            raise Unanswered(self._where, "its owner is closing it: a part may be done")
        raise NoOwner(self._where, "its owner is closing it")

    def _tail(self, line: JSONLines, request: Mapping[str, Any]) -> None:
        """Send events until the other end is gone, or takes no more, or this ends."""
        with ExitStack() as stack:
            try:
                tail = Tail(request.get("topic"), request.get("channel"))
                broker = self._operations.broker()
                stack.callback(broker.observe(tail.hear, kinds=request.get("kinds")))
                del broker
                watcher = _Thread(self._thread.name, _await_end, line, tail)
                watcher.start()
            except (NSQLiteError, RuntimeError) as error:
                line.send({"error": problem_of(error)})
                return
            stack.callback(watcher.join)
            stack.callback(line.shut, socket.SHUT_RDWR)  # which ends it
            line.send({"result": None})
            self._send_each(line, tail)
            line.send({"end": True})

    def _send_each(self, line: JSONLines, tail: Tail) -> None:
        while (found := tail.take()) is not None:
            for one in found:
                line.send({"missed": one} if isinstance(one, int) else self._told(one))

    def _told(self, event: Event) -> dict[str, Any]:
        """Return an event as fields."""
        fields = {name: value for name, value in event._asdict().items() if name != "body"}
        if event.id is not None:
            fields |= described(event.body, self._operations.coder)
        return {**fields, "line": str(event)}


class _Thread(threading.Thread):
    """A thread of a control socket; a daemon, since a program that does not close must still end.

    Attributes:
        at_rest: whether it does nothing unless it is asked; a manual clock does not wait for it.
    """

    at_rest = True

    def __init__(self, name: str, target: Callable[..., object], *given: object) -> None:
        super().__init__(target=target, args=given, name=name, daemon=True)


class _Connection:
    """A connection and its thread."""

    def __init__(self, control: Control, line: JSONLines) -> None:
        self.line: Final = line
        self.thread: Final = _Thread(control._thread.name, control.serve, self)


def _join(connections: list[_Connection]) -> None:
    """Wait for the ends of connections, for `GRACE` in all."""
    end = SYSTEM.monotonic_ns() + round(GRACE * SECOND)
    for connection in connections:
        connection.thread.join(max(0, end - SYSTEM.monotonic_ns()) / SECOND)


def _await_end(line: JSONLines, tail: Tail) -> None:
    """Wait until the other end of a connection is gone, and end what is sent to it."""
    with suppress(OSError, NotJSON):
        _read_on(line)
    tail.end()


def _read_on(line: JSONLines) -> None:
    while line.receive() is not None:
        pass  # it has nothing to say


def listener(where: str, path: str) -> socket.socket:
    """Return a socket that listens, for this user alone.

    Raises:
        StoreError: it cannot be made.
    """
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _remove_left(where, path)
        made.bind(path)
        Path(path).chmod(0o600)
        made.listen(BACKLOG)
    except OSError as error:
        made.close()
        if "path too long" in str(error):
            raise StoreError(where, too_long(path)) from None
        raise told(where, f"its control socket {path} cannot be made", error) from None
    except BaseException:
        made.close()
        raise
    return made


def _remove_left(where: str, path: str) -> None:
    """Remove the socket that an owner has left that was killed: there is one owner at a time."""
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        problem = f"{path} is there and is no socket: remove it, or open without control"
        raise StoreError(where, problem)
    Path(path).unlink()


def too_long(path: str) -> str:
    """Return what is wrong with a path that is too long for a socket."""
    size = len(os.fsencode(path))
    return (
        f"the path of its control socket has {size} bytes, and the system takes about 100: put the"
        " file nearer to the root, or open it without control"
    )
