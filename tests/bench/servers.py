"""The servers that are compared, each a process: nsqlite's nsqd, the yardsticks, and Go's nsqd.

The rule: they are started with the same options, on a port that the system chooses, and tell in
their log where they listen; all are killed at the end.

Go's nsqd needs a directory in any case; if nothing is to be stored, it has room for all messages in
memory, and if all is to be stored for none: so it does what nsqlite does.

Next: starts.py
"""

import os
import re
import subprocess
import sys
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Thread
from typing import IO, Final

import attrs
from load import Address

HERE: Final = Path(__file__).parent
NSQLITE: Final = (sys.executable, "-m", "nsqlite", "nsqd")
ECHO: Final = (sys.executable, str(HERE / "echo.py"))
BARE: Final = (sys.executable, str(HERE / "bare.py"))
ADDRESSES: Final = ("--tcp-address=127.0.0.1:0", "--http-address=127.0.0.1:0")
ENOUGH: Final = 1_000_000
"""More messages than a run leaves in memory."""

_LISTENS: Final = re.compile(r"\b(TCP|HTTP): listening on (.+):(\d+)")


@attrs.frozen
class Server:
    """A process that serves.

    Attributes:
        process: its number.
        tcp: where it speaks nsqd's protocol.
        http: where it speaks HTTP.
    """

    process: int
    tcp: Address
    http: Address

    def processor_time(self) -> float:
        """Return the seconds that it had the processor, to a hundredth or so."""
        fields = Path(f"/proc/{self.process}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def memory(self) -> int:
        """Return how many bytes of memory it has."""
        lines = Path(f"/proc/{self.process}/status").read_text().splitlines()
        [line] = [line for line in lines if line.startswith("VmRSS:")]
        return int(line.split()[1]) * 1024


@contextmanager
def on_one_processor() -> Iterator[None]:
    """Keep this process, and those that are started meanwhile, on one processor."""
    if sys.platform != "linux":
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(before)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextmanager
def serving(*command: str) -> Iterator[Server]:
    """Start a server, and kill it at the end."""
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:  # noqa: S603
        assert process.stderr is not None
        log: deque[str] = deque(maxlen=20)
        reader = Thread(target=log.extend, args=(process.stderr,))
        try:
            found = listening(process.stderr, log, ("TCP", "HTTP"))
            reader.start()
            yield Server(process.pid, found["TCP"], found["HTTP"])
        except Exception as error:
            error.add_note(f"{' '.join(command)} has logged:\n{''.join(log)}")
            raise
        finally:
            process.kill()
            if reader.ident is not None:
                reader.join()


def listening(lines: IO[str], log: deque[str], kinds: tuple[str, ...]) -> dict[str, Address]:
    """Read a server's log until it has told where it listens for all of these."""
    found: dict[str, Address] = {}
    while not found.keys() >= set(kinds):
        line = lines.readline()
        log.append(line)
        if not line:
            raise RuntimeError("a server has ended before it listened")
        match = _LISTENS.search(line)
        if match:
            found[match[1]] = (match[2], int(match[3]))
    return found


@contextmanager
def nsqlite() -> Iterator[Server]:
    """Serve nsqlite's nsqd, in memory."""
    with serving(*NSQLITE, *ADDRESSES, f"--mem-queue-size={ENOUGH}") as server:
        yield server


@contextmanager
def stored_nsqlite() -> Iterator[Server]:
    """Serve nsqlite's nsqd with a store."""
    with (
        TemporaryDirectory() as directory,
        serving(*NSQLITE, *ADDRESSES, f"--data-path={directory}") as server,
    ):
        yield server


@contextmanager
def echo() -> Iterator[Server]:
    """Serve the echo."""
    with serving(*ECHO) as server:
        yield server


@contextmanager
def bare() -> Iterator[Server]:
    """Serve what is nsqd in form only."""
    with serving(*BARE) as server:
        yield server


@contextmanager
def go_nsqd(path: str, *, stored: bool = False) -> Iterator[Server]:
    """Serve Go's nsqd."""
    room = f"--mem-queue-size={0 if stored else ENOUGH}"
    with (
        TemporaryDirectory() as directory,
        serving(path, *ADDRESSES, f"--data-path={directory}", room) as server,
    ):
        yield server
