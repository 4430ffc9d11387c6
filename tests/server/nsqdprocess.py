"""`nsqlite nsqd` in a process of its own, which tells in its log what it does."""

import signal
import socket
import subprocess
import sys
import threading
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

from helpers import PATIENCE

from nsqlite.wire.commands import MAGIC
from nsqlite.wire.frames import Frames

LISTENING = ": listening on "


class Process:
    """A server's process, for the time of a block; killed at its end."""

    def __init__(self, *flags: str, http: bool = False) -> None:
        """Start it on free ports, and wait until it serves."""
        self.lines: list[str] = []
        self.tcp_address = ""
        self.http_address = ""
        http_address = "127.0.0.1:0" if http else ""
        self._process = subprocess.Popen(  # noqa: S603 - our own interpreter
            [
                *(sys.executable, "-W", "error", "-m", "nsqlite", "nsqd"),
                *("--tcp-address=127.0.0.1:0", f"--http-address={http_address}", *flags),
            ],
            stderr=subprocess.PIPE,
            text=True,
        )
        # what waits for a line that does not come ends with the process
        self._timer = threading.Timer(PATIENCE, self._process.kill)
        self._timer.start()

    def __enter__(self) -> Self:
        self.tcp_address = self.until("TCP: listening on ").rpartition(" ")[2]
        for line in self.lines:
            if "HTTP: listening on " in line:
                self.http_address = line.rpartition(" ")[2]
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._timer.cancel()
        self._process.kill()
        self._process.wait()
        if self._process.stderr is not None:
            self._process.stderr.close()

    def until(self, text: str) -> str:
        """Return the next line of the log that holds a text."""
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self.lines.append(line.rstrip("\n"))
            if text in line:
                return self.lines[-1]
        raise AssertionError("\n".join(["it has ended:", *self.lines]))

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self._process.send_signal(number)

    def status(self) -> int:
        """Return how it has ended, when it has; read the rest of its log."""
        assert self._process.stderr is not None
        self.lines += self._process.stderr.read().splitlines()
        return self._process.wait(PATIENCE)


class Client:
    """A connection that blocks, for the time of a block."""

    def __init__(self, address: str) -> None:
        host, _, port = address.rpartition(":")
        self._socket = socket.create_connection((host, int(port)), timeout=PATIENCE)
        self._frames = Frames()
        self._found: list[tuple[int, bytes]] = []
        self._socket.sendall(MAGIC)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._socket.close()

    def send(self, *commands: Any) -> None:
        """Send commands."""
        self._socket.sendall(b"".join(command.encode() for command in commands))

    def frame(self) -> tuple[int, bytes] | None:
        """Return the next frame, its type and data; None at the end."""
        while not self._found:
            data = b""
            with suppress(ConnectionError):
                data = self._socket.recv(1 << 16)
            if not data:
                return None
            self._found += self._frames.feed(data)
        return self._found.pop(0)

    def ask(self, *commands: Any) -> bytes:
        """Send commands, and return what the next frame holds."""
        self.send(*commands)
        frame = self.frame()
        assert frame is not None, "it was closed"
        return frame[1]
