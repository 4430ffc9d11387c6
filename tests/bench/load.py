"""A load for any nsqd: raw sockets, and bytes that are made before.

The rule: the load must not be what is measured.  What is sent is made before the clock starts and
sent in as few pieces as there are moments to send it; what comes is counted, not parsed; so a
message costs it a tenth of a microsecond in batches, and two system calls alone.  That all has come
as it should is checked at the end.

The sockets block, which costs no event loop.  A server that does not answer for half a minute is
given up.  Nothing here is nsqlite's.

Next: crowds.py
"""

import json
import select
import socket
import time
from collections.abc import Sequence
from itertools import count
from struct import Struct, pack
from types import TracebackType
from typing import Final, Self, TypeAlias

Address: TypeAlias = tuple[str, int]

BODY: Final = b"x" * 200
BATCH: Final = 200
WINDOW: Final = 2500
UNDER_WAY: Final = 4
"""How many batches are not answered yet, at most."""

OK: Final = b"\0\0\0\6\0\0\0\0OK"
HEARTBEAT: Final = b"\0\0\0\x0f\0\0\0\0_heartbeat_"
FRAME: Final = 34 + len(BODY)
FRAME_HEAD: Final = pack(">II", FRAME - 4, 2)
ID: Final = slice(18, 34)
"""Where the id stands in the frame of a message."""

PATIENCE: Final = 30
READ: Final = 1 << 18
LONGEST_BEAT: Final = 60_000
"""The longest interval between heartbeats that nsqd allows, in ms: a run is shorter."""

_ids_in: Final = Struct(f">18x16s{len(BODY)}x").iter_unpack
_numbers: Final = count(1)


class BadAnswer(Exception):
    """A server has not answered as nsqd does."""


def new_topic() -> str:
    """Return a name that was not used before."""
    return f"bench{next(_numbers)}"


def publish(topic: str) -> bytes:
    """Return a PUB of one body."""
    return b"PUB %b\n%b%b" % (topic.encode(), pack(">I", len(BODY)), BODY)


def publish_batch(topic: str) -> bytes:
    """Return an MPUB of so many bodies."""
    bodies = (pack(">I", len(BODY)) + BODY) * BATCH
    head = pack(">II", len(bodies) + 4, BATCH)
    return b"MPUB %b\n%b%b" % (topic.encode(), head, bodies)


def connect(address: Address) -> socket.socket:
    """Return a connection that gives up after a while.

    Python's own time-outs cost a system call each time.
    """
    connection = socket.create_connection(address)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
        connection.setsockopt(socket.SOL_SOCKET, option, pack("ll", PATIENCE, 0))
    return connection


class Client:
    """A connection that has said who it is, and may have subscribed.

    Attributes:
        socket: the connection, which may be used directly.
    """

    def __init__(self, address: Address, *, beat: int = LONGEST_BEAT) -> None:
        """Connect; have a heartbeat each so many milliseconds."""
        self.socket: Final = connect(address)
        body = json.dumps({"client_id": "bench", "heartbeat_interval": beat}).encode()
        self.ask(b"  V2IDENTIFY\n" + pack(">I", len(body)) + body)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection, whatever has not been read."""
        self.socket.close()

    def ask(self, command: bytes) -> None:
        """Send a command and have its OK."""
        self.socket.sendall(command)
        check(self.socket.recv(len(OK), socket.MSG_WAITALL), OK)

    def subscribe(self, topic: str) -> None:
        """Join a channel of the topic, which is made."""
        self.ask(b"SUB %b channel\n" % topic.encode())


def check(answer: bytes, expected: bytes) -> None:
    """See that a server has answered as it should."""
    if answer != expected:
        raise BadAnswer(f"{answer[:200]!r} has come, not {expected[:200]!r}")


# Publishing


class Pipeline:
    """Sends a command again and again, while so many are not answered at most."""

    __slots__ = ("_answered", "_block", "_count", "_left", "_parts", "_size", "_socket", "fileno")

    def __init__(self, client: Client, command: bytes, count: int, under_way: int) -> None:
        """Make what is to be sent."""
        self._socket = client.socket
        self.fileno = client.socket.fileno
        self._size = len(command)
        self._block = memoryview(command * min(under_way, count))
        self._count = count * len(OK)
        self._left = count
        self._answered = 0
        self._parts: list[bytes] = []

    def begin(self) -> None:
        """Send the first."""
        self._left -= len(self._block) // self._size
        self._socket.sendall(self._block)

    def go_on(self) -> bool:
        """Read answers, and send as many commands more; return whether all were answered."""
        data = self._socket.recv(READ)
        self._parts.append(data)
        before = self._answered
        self._answered = after = before + len(data)
        more = after // len(OK) - before // len(OK)
        more = min(more, self._left)
        if more:
            self._left -= more
            self._socket.sendall(self._block[: more * self._size])
        return not data or after >= self._count

    def check(self) -> None:
        """See that nothing but the answers has come."""
        check(b"".join(self._parts), OK * (self._count // len(OK)))


def pipelined(clients: Sequence[Client], command: bytes, count: int, under_way: int) -> float:
    """Send a command so many times over each connection; return the seconds until all is answered.

    Args:
        clients: the connections.
        command: one that is answered with OK.
        count: how often it is sent over each.
        under_way: how many may be unanswered, on each.
    """
    pipelines = [Pipeline(client, command, count, under_way) for client in clients]
    begin = time.perf_counter()
    for pipeline in pipelines:
        pipeline.begin()
    if len(pipelines) == 1:
        [only] = pipelines
        while not only.go_on():
            pass
    else:
        _go_on_all(pipelines)
    elapsed = time.perf_counter() - begin
    for pipeline in pipelines:
        pipeline.check()
    return elapsed


def _go_on_all(pipelines: Sequence[Pipeline]) -> None:
    left = list(pipelines)
    while left:
        readable = select.select(left, (), (), PATIENCE)[0]
        if not readable:
            raise BadAnswer(f"nothing has come for {PATIENCE} s")
        for pipeline in readable:
            if pipeline.go_on():
                left.remove(pipeline)


def echoed(address: Address, frame: bytes, count: int, under_way: int) -> float:
    """Have frames sent back by an echo; return the seconds for so many.

    Args:
        address: of the echo.
        frame: what is sent in one piece: a frame with its size, or several.
        count: how often.
        under_way: how many may not be back yet.
    """
    size = len(frame)
    block = memoryview(frame * under_way)
    left, back = count - under_way, 0
    with connect(address) as connection:
        send, receive = connection.sendall, connection.recv
        begin = time.perf_counter()
        send(block)
        while back < count * size:
            data = receive(READ)
            if not data:
                raise BadAnswer("the connection was closed")
            more = min((back + len(data)) // size - back // size, left)
            back += len(data)
            left -= more
            if more:
                send(block[: more * size])
        elapsed = time.perf_counter() - begin
    check(data[-1:], frame[-1:])
    return elapsed


# Consuming


def consumed(consumer: Client, count: int) -> float:
    """Get and finish messages with a wide window; return the seconds for so many.

    There must be more of them, at least as many as the window and a batch: so nobody waits at the
    end, nsqd for its buffer to be full neither.
    """
    receive, send = consumer.socket.recv, consumer.socket.sendall
    done, rest = 0, b""
    begin = time.perf_counter()
    send(b"RDY %d\n" % WINDOW)
    while done < count:
        data = receive(READ)
        if not data:
            raise BadAnswer("the connection was closed")
        if rest:
            data = rest + data
        frames = len(data) // FRAME
        if not frames:
            rest = data
            continue
        size = frames * FRAME
        names = [name for (name,) in _ids_in(memoryview(data)[:size])]
        last = size - FRAME
        check(data[last : last + len(FRAME_HEAD)], FRAME_HEAD)
        send(b"FIN " + b"\nFIN ".join(names) + b"\n")
        rest = data[size:]
        done += frames
    return (time.perf_counter() - begin) * count / done


def frames(count: int, size: int = len(BODY)) -> bytes:
    """Return frames for an echo."""
    return (pack(">I", size) + b"x" * size) * count


def fill(publisher: Client, topic: str, count: int) -> None:
    """Publish at least so many messages."""
    pipelined([publisher], publish_batch(topic), -(-count // BATCH), UNDER_WAY)


def turns(publisher: Client, consumer: Client, topic: str, count: int) -> float:
    """Publish, get and finish a message, and then the next; return the seconds for so many."""
    command = publish(topic)
    send, receive = publisher.socket.sendall, publisher.socket.recv
    finish, get = consumer.socket.sendall, consumer.socket.recv
    wait = socket.MSG_WAITALL
    consumer.socket.sendall(b"RDY 1\n")
    begin = time.perf_counter()
    for _ in range(count):
        send(command)
        answer = receive(len(OK), wait)
        frame = get(FRAME, wait)
        finish(b"FIN %b\n" % frame[ID])
        if answer != OK or not frame.startswith(FRAME_HEAD):
            raise BadAnswer(f"{answer!r} and {frame[:40]!r} have come")
    return time.perf_counter() - begin


# HTTP


def ping() -> bytes:
    """Return a request for /ping."""
    return b"GET /ping HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"


def post(topic: str) -> bytes:
    """Return a request that publishes one body."""
    head = f"POST /pub?topic={topic} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(BODY)}"
    return b"%b\r\n\r\n%b" % (head.encode(), BODY)


def requested(address: Address, request: bytes, count: int) -> float:
    """Send a request again and again over one connection; return the seconds for so many.

    Each is answered with OK before the next is sent.
    """
    with connect(address) as connection:
        send, receive = connection.sendall, connection.recv
        begin = time.perf_counter()
        for _ in range(count):
            send(request)
            answer = receive(READ)
            while not answer.endswith(b"\r\n\r\nOK"):
                more = receive(READ)
                if not more:
                    raise BadAnswer(f"{answer[:200]!r} has come, not OK")
                answer += more
        elapsed = time.perf_counter() - begin
    if not answer.startswith(b"HTTP/1.1 200 "):
        raise BadAnswer(f"{answer[:200]!r} has come, not OK")
    return elapsed


def delete(address: Address, topic: str) -> None:
    """Delete a topic, with the messages that are left."""
    with connect(address) as connection:
        head = f"POST /topic/delete?topic={topic} HTTP/1.1\r\nHost: 127.0.0.1\r\n"
        connection.sendall(f"{head}Content-Length: 0\r\nConnection: close\r\n\r\n".encode())
        answer = connection.recv(READ)
    if not answer.startswith(b"HTTP/1.1 200 "):
        raise BadAnswer(f"{answer[:200]!r} has come for the deletion of {topic}")
