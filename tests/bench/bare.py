"""An nsqd in form only: what an asyncio program in Python can reach at best.

The rule: each read is cut into the commands of nsqd's protocol by a plain loop, each body and each
id as bytes of its own; the answers are joined and written once a read.  Nothing is checked, and
nothing is kept of a message but that there is one more.

So what is compared with it costs as much for the sockets, the event loop and the cutting; the rest
is what a queue costs: names and limits that are checked, messages that are kept with their ids,
times and attempts, and deadlines.  In particular:

    MPUB   the bodies of a batch are cut out, and one frame answers it
    PUB    the body is cut out, and one frame answers it
    FIN    the id is cut out, and a frame with this id and a body of 200 bytes is the next message,
           while there are more
    RDY    as many frames of messages as it says are sent, or as there are
    HTTP   the requests of a read are counted by the ends of their heads, and each is answered with
           the same ready bytes

Next: load.py
"""

import asyncio
from collections import defaultdict
from struct import Struct
from typing import Final

import attrs
from echo import serve

BODY: Final = b"x" * 200
OK: Final = b"\0\0\0\6\0\0\0\0OK"
CLOSE_WAIT: Final = b"\0\0\0\x0e\0\0\0\0CLOSE_WAIT"
HEAD: Final = Struct(">IIqH").pack(30 + len(BODY), 2, 1_700_000_000_000_000_000, 1)
NAME: Final = b"0123456789abcdef"
HTTP_OK: Final = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\nOK"

_size_at: Final = Struct(">I").unpack_from
_sizes_at: Final = Struct(">II").unpack_from


@attrs.define
class Queue:
    """What is known of a topic.

    Attributes:
        depth: how many messages were published and not delivered.
        window: how many more its consumer may get.
        consumer: the one that has asked for messages last.
    """

    depth: int = 0
    window: int = 0
    consumer: asyncio.WriteTransport | None = None


class Bare(asyncio.Protocol):
    """A connection."""

    def __init__(self, topics: defaultdict[bytes, Queue]) -> None:
        """Begin."""
        self._topics = topics
        self._queue = Queue()
        self._rest = b""
        self._transport: asyncio.WriteTransport
        self._answers: list[bytes] = []
        self._commands = {
            b"FIN ": self._finishes,
            b"PUB ": self._publishes,
            b"MPUB": self._batch,
            b"RDY ": self._ready,
            b"SUB ": self._subscribe,
            b"IDEN": self._identify,
            b"  V2": lambda _, at: at + 4,
            b"CLS\n": self._close,
            b"NOP\n": lambda _, at: at + 4,
            b"GET ": self._requests,
            b"POST": self._requests,
        }

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep where to write to."""
        assert isinstance(transport, asyncio.WriteTransport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Cut a read, and answer all that was in it."""
        if self._rest:
            data = self._rest + data
        at, size = 0, len(data)
        while size - at >= 4:
            after = self._commands[data[at : at + 4]](data, at)
            if after == at:
                break
            at = after
        self._rest = data[at:]
        if self._answers:
            self._transport.write(b"".join(self._answers))
            self._answers.clear()

    # Each takes what begins at a place, and returns where the next begins: the same if it is cut

    def _finishes(self, data: bytes, at: int) -> int:
        names = []
        size = len(data)
        while size - at >= 21 and data.startswith(b"FIN ", at):
            names.append(data[at + 4 : at + 20])
            at += 21
        queue = self._queue
        queue.window += len(names)
        count = min(queue.depth, queue.window)
        answer = self._answers.extend
        for name in names[:count]:
            answer((HEAD, name, BODY))
        queue.window -= count
        queue.depth -= count
        return at

    def _publishes(self, data: bytes, at: int) -> int:
        bodies = []
        line = data[at : data.find(b"\n", at) + 1]
        if not line:
            return at
        size, length = len(data), len(line)
        while data.startswith(line, at):
            begin = at + length + 4
            if begin > size:
                break
            end = begin + _size_at(data, begin - 4)[0]
            if end > size:
                break
            bodies.append(data[begin:end])
            at = end
        self._answers += [OK] * len(bodies)
        self._published(line[4:-1], len(bodies))
        return at

    def _batch(self, data: bytes, at: int) -> int:
        end = data.find(b"\n", at)
        begin = end + 9
        if end < 0 or len(data) < begin:
            return at
        total, count = _sizes_at(data, end + 1)
        if len(data) < end + 5 + total:
            return at
        bodies = []
        place = begin
        for _ in range(count):
            body_end = place + 4 + _size_at(data, place)[0]
            bodies.append(data[place + 4 : body_end])
            place = body_end
        self._answers.append(OK)
        self._published(data[at + 5 : end], len(bodies))
        return place

    def _published(self, topic: bytes, count: int) -> None:
        queue = self._topics[topic]
        queue.depth += count
        if queue.window and queue.consumer is not None:
            self._deliver(queue, queue.consumer)

    def _deliver(self, queue: Queue, consumer: asyncio.WriteTransport) -> None:
        count = min(queue.depth, queue.window)
        if count:
            consumer.write((HEAD + NAME + BODY) * count)
            queue.window -= count
            queue.depth -= count

    def _ready(self, data: bytes, at: int) -> int:
        end = data.find(b"\n", at)
        if end < 0:
            return at
        self._queue.window = int(data[at + 4 : end])
        self._queue.consumer = self._transport
        self._deliver(self._queue, self._transport)
        return end + 1

    def _subscribe(self, data: bytes, at: int) -> int:
        end = data.find(b"\n", at)
        if end < 0:
            return at
        self._queue = self._topics[data[at:end].split()[1]]
        self._answers.append(OK)
        return end + 1

    def _identify(self, data: bytes, at: int) -> int:
        begin = data.find(b"\n", at) + 5
        if begin < 5 or len(data) < begin:
            return at
        end: int = begin + _size_at(data, begin - 4)[0]
        if len(data) < end:
            return at
        self._answers.append(OK)
        return end

    def _close(self, data: bytes, at: int) -> int:  # noqa: ARG002 - as the others
        self._answers.append(CLOSE_WAIT)
        return at + 4

    def _requests(self, data: bytes, at: int) -> int:
        self._answers += [HTTP_OK] * data.count(b"\r\n\r\n", at)
        return len(data)


if __name__ == "__main__":
    found: defaultdict[bytes, Queue] = defaultdict(Queue)
    asyncio.run(serve(lambda: Bare(found)))
