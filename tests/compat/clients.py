"""The other end of `driving`: a program with an NSQ client, as the tests see it; and its server."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

import nsqlite
from nsqlite.clock import Clock
from nsqlite.server import NSQD, NSQDOptions
from nsqlite.server.connection import Connection

T = TypeVar("T")

TESTS = Path(__file__).parent.parent
PATIENCE = 60.0
"""Real seconds after which a test gives up."""


def started(program: str, *arguments: str) -> "subprocess.Popen[str]":
    """Start a program of this folder."""
    return subprocess.Popen(  # noqa: S603 - our own interpreter
        [sys.executable, "-m", f"compat.{program}", *arguments],
        cwd=TESTS,
        env=os.environ | {"PYTHONPATH": str(TESTS), "PYTHONDONTWRITEBYTECODE": "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


class Client:
    """A program that uses an NSQ client."""

    def __init__(self, library: str, *arguments: str) -> None:
        """Start it.

        Args:
            library: "pynsq", "ansq" or "gnsq".
            arguments: for the program.
        """
        self.library = library
        self._answers: dict[int, SimpleQueue[dict[str, Any]]] = {}
        self._events: dict[tuple[str, str], SimpleQueue[dict[str, Any]]]
        self._events = defaultdict(SimpleQueue)
        self.process = started(f"{library}client", *arguments)
        self._logged: list[str] = []
        self._readers = [
            threading.Thread(target=self._hear, daemon=True),
            threading.Thread(
                target=lambda: self._logged.extend(self.process.stderr or ()), daemon=True
            ),
        ]
        for reader in self._readers:
            reader.start()

    def _hear(self) -> None:
        for line in self.process.stdout or ():
            told = json.loads(line)
            if "n" in told:
                self._answers[told["n"]].put(told)
            else:
                self._events[told["name"], told["event"]].put(told)

    def begin(self, do: str, name: str, *arguments: Any, **more: Any) -> int:
        """Ask for something, and return the number of that."""
        names = ARGUMENTS[do]
        number = len(self._answers)
        self._answers[number] = SimpleQueue()
        request = dict(zip(names, arguments, strict=True)) | more
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"n": number, "do": do, "name": name} | request) + "\n")
        self.process.stdin.flush()
        return number

    def end(self, number: int) -> Any:
        """Return the answer to what was asked for; an error as its text."""
        try:
            told = self._answers[number].get(timeout=PATIENCE)
        except Empty:
            raise AssertionError(f"{self.library} does not answer: {self.log}") from None
        return told["value"] if "value" in told else told["error"]

    def ask(self, do: str, name: str, *arguments: Any, **more: Any) -> Any:
        """Ask for something, and return the answer."""
        return self.end(self.begin(do, name, *arguments, **more))

    def next(self, name: str, event: str = "message") -> dict[str, Any]:
        """Return what is told next of an event."""
        try:
            return self._events[name, event].get(timeout=PATIENCE)
        except Empty:
            raise AssertionError(f"{self.library} hears of no {event}: {self.log}") from None

    def message(self, name: str) -> tuple[str, int]:
        """Return the body of the next message that a reader has, and its attempts."""
        told = self.next(name)
        return told["body"], told["attempts"]

    def count(self, name: str, event: str = "message") -> int:
        """Return how many events there are that nobody has asked for yet."""
        return self._events[name, event].qsize()

    @property
    def log(self) -> str:
        """The last lines that it has logged."""
        return "".join(self._logged[-20:])

    def kill(self, number: signal.Signals = signal.SIGKILL) -> None:
        """Send it a signal."""
        self.process.send_signal(number)

    def close(self) -> None:
        """End it."""
        self.process.kill()
        self.process.wait()
        for reader in self._readers:
            reader.join(PATIENCE)
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            assert pipe is not None
            with suppress(BrokenPipeError):
                pipe.close()


ARGUMENTS = {
    "writer": ("port",),
    "pub": ("topic", "body"),
    "mpub": ("topic", "bodies"),
    "dpub": ("topic", "delay", "body"),
    "flood": ("topic", "first", "count"),
    "reader": ("port", "topic", "channel", "window"),
    "http": ("port", "call", "arguments"),
    "fin": ("body",),
    "req": ("body", "delay"),
    "touch": ("body",),
}
"""What each request takes behind the name."""


class Server:
    """nsqlite as nsqd, in a thread of its own."""

    def __init__(self, *, clock: Clock | None = None, port: int = 0, **options: Any) -> None:
        """Start it.

        Args:
            clock: what it takes the time from.
            port: where its clients connect; 0 for any that is free.
            options: others of `NSQDOptions`.
        """
        address = f"127.0.0.1:{port}"
        given = {"http_address": "", "tcp_address": address} | options
        self.nsqd = NSQD(NSQDOptions(**given), clock=clock)
        self._begun = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()))
        self._thread.start()
        assert self._begun.wait(PATIENCE)
        self.port = self.nsqd.tcp_port
        self.broker = self.nsqd.broker

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        async with self.nsqd:
            self._begun.set()
            await self.nsqd.wait()

    def call(self, call: Callable[[], T]) -> T:
        """Return what a function returns that is called in its loop."""

        async def called() -> T:
            return call()

        return asyncio.run_coroutine_threadsafe(called(), self._loop).result(PATIENCE)

    @property
    def connections(self) -> list[Connection]:
        """Those that are open."""
        return self.call(lambda: list(self.nsqd.connections))

    def channel(self, topic: str = "orders", channel: str = "billing") -> nsqlite.ChannelStats:
        """Return what is told of a channel, which is there."""
        return self.broker.topics[topic].channels[channel].stats()

    def is_done(self, count: int, topic: str = "orders", channel: str = "billing") -> bool:
        """Say whether a channel has had so many messages, and none is left."""
        told = self.channel(topic, channel)
        left = told.depth + told.in_flight_count + told.deferred_count
        return told.message_count == count and not left

    def has_readers(self, count: int = 1, topic: str = "orders", channel: str = "billing") -> bool:
        """Say whether a channel has so many readers, all of them with a window."""
        found = self.broker.topics.get(topic)
        if found is None or channel not in found.channels:
            return False
        readers = found.channels[channel].stats().clients
        return len(readers) == count and all(reader.ready_count for reader in readers)

    def close(self) -> None:
        """End it; once more does no harm."""
        self.nsqd.shutdown()
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive(), "the server does not stop"


@contextmanager
def running(library: str, *arguments: str) -> Iterator[Client]:
    """Run a program with a client until the end of the block."""
    client = Client(library, *arguments)
    try:
        yield client
    finally:
        client.close()


def until(holds: Callable[[], object]) -> None:
    """Wait until something holds."""
    limit = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < limit, "it does not come to hold"
        time.sleep(0.002)


@contextmanager
def serving(**options: Any) -> Iterator[Server]:
    """Serve until the end of the block."""
    server = Server(**options)
    try:
        yield server
    finally:
        server.close()
