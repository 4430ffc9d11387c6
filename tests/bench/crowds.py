"""Very many consumers, all of which wait: what they cost a server that has nothing to do for them.

The rule: they are real connections, each subscribed to the one channel with RDY 1, and answer their
heartbeats; so the server's memory, processor time and deliveries are those that it would have.

The process needs a file for each, and so does the server: the limit of both is raised as far as it
goes.

Next: servers.py
"""

import json
import selectors
import socket
import time
from struct import pack
from types import TracebackType
from typing import Final, Self

from load import (
    FRAME,
    FRAME_HEAD,
    HEARTBEAT,
    ID,
    LONGEST_BEAT,
    OK,
    PATIENCE,
    Address,
    BadAnswer,
    Client,
    check,
    connect,
    publish,
)

SPARE: Final = 200
"""Files that are needed for other things."""


def raise_limit() -> int:
    """Have as many open files as the system allows, here and in what is started from now on.

    Returns:
        How many consumers there can be.
    """
    import resource  # noqa: PLC0415 - not everywhere

    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return 1_000_000 if hard == resource.RLIM_INFINITY else hard - SPARE


class Crowd:
    """So many consumers of one channel."""

    def __init__(
        self, address: Address, topic: str, count: int, *, beat: int = LONGEST_BEAT, over: float = 0
    ) -> None:
        """Connect them.

        Args:
            address: of the server.
            topic: what they subscribe to.
            count: how many.
            beat: their interval between heartbeats, in milliseconds.
            over: spread the connecting, and so the heartbeats, over so many seconds.
        """
        identity = json.dumps({"client_id": "bench", "heartbeat_interval": beat}).encode()
        self._hello: Final = b"".join(
            (
                b"  V2IDENTIFY\n",
                pack(">I", len(identity)) + identity,
                b"SUB %b channel\nRDY 1\n" % topic.encode(),
            )
        )
        self._publish: Final = publish(topic)
        self._address: Final = address
        self._selector: Final = selectors.DefaultSelector()
        begin = time.perf_counter()
        for number in range(count):
            early = begin + over * number / count - time.perf_counter()
            if early > 0:
                time.sleep(early)
            self._join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for key in list(self._selector.get_map().values()):
            assert isinstance(key.fileobj, socket.socket)
            key.fileobj.close()
        self._selector.close()

    def _join(self) -> None:
        consumer = connect(self._address)
        consumer.sendall(self._hello)
        check(consumer.recv(2 * len(OK), socket.MSG_WAITALL), OK * 2)
        self._selector.register(consumer, selectors.EVENT_READ, consumer)

    def _read(self, timeout: float) -> list[tuple[socket.socket, bytes]]:
        """Return what has come for whom."""
        ready = self._selector.select(timeout)
        return [(key.data, key.data.recv(FRAME)) for key, _ in ready]

    def watch(self, seconds: float) -> int:
        """Answer heartbeats for some time; return how many there were."""
        beats = 0
        end = time.perf_counter() + seconds
        while (left := end - time.perf_counter()) > 0:
            for consumer, data in self._read(left):
                check(data, HEARTBEAT)
                consumer.sendall(b"NOP\n")
                beats += 1
        return beats

    def deliveries(self, publisher: Client, count: int) -> float:
        """Publish a message, have whoever gets it finish it, and then the next.

        Returns:
            The seconds for so many.
        """
        begin = time.perf_counter()
        for _ in range(count):
            publisher.ask(self._publish)
            while not self._finish():
                pass
        return time.perf_counter() - begin

    def _finish(self) -> bool:
        """Finish what has come; return whether it was the message, and not heartbeats alone."""
        found = False
        read = self._read(PATIENCE)
        if not read:
            raise BadAnswer("a message was not delivered")
        for consumer, data in read:
            if data == HEARTBEAT:
                consumer.sendall(b"NOP\n")
            else:
                check(data[: len(FRAME_HEAD)], FRAME_HEAD)
                consumer.sendall(b"FIN %b\n" % data[ID])
                found = True
        return found
