"""A web app with background jobs is killed and stopped in the middle: no upload is lost.

Starlette and uvicorn serve it in a process of its own; what comes is real HTTP.
"""

import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPException
from pathlib import Path

from helpers import bodies

import nsqlite

HERE = Path(__file__).parent
PATIENCE = 60.0


class Program:
    """A running program.

    Attributes:
        port: where it serves, if it does.
        said: the lines that it has said.
    """

    port = 0

    def __init__(self, process: subprocess.Popen[str]) -> None:
        """Read what it says, so that it need not wait for that, and it can be shown."""
        self.process = process
        self.said: list[str] = []
        self._reader = threading.Thread(target=lambda: self.said.extend(process.stderr or ()))
        self._reader.start()

    def connect(self) -> HTTPConnection:
        """Return a connection to it."""
        return HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)

    def end(self, number: signal.Signals) -> int:
        """Send it a signal, and return its status."""
        self.process.send_signal(number)
        status = self.process.wait(PATIENCE)
        self._reader.join(PATIENCE)
        return status


@contextmanager
def started(folder: Path, *command: str, handle: int | None = None) -> Iterator[Program]:
    """Run a module of Python until the end of the block."""
    environment = os.environ | {
        "STORE": str(folder / "uploads.db"),
        "RESULTS": str(folder / "results"),
        "PYTHONPATH": os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")]),
    }
    with subprocess.Popen(  # noqa: S603 - our own app
        [sys.executable, "-W", "error", "-m", *command],
        env=environment,
        stderr=subprocess.PIPE,
        pass_fds=[] if handle is None else [handle],
        text=True,
    ) as process:
        try:
            yield Program(process)
        finally:
            process.kill()


@contextmanager
def served(folder: Path, app: str = "webapp:app", *options: str) -> Iterator[Program]:
    """Serve an app until the end of the block."""
    # it can be connected to before the program listens, which would not say when it does
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # else 40 ms an answer
        handle = str(listener.fileno())
        command = ["uvicorn", app, "--fd", handle, "--log-level", "warning", *options]
        with started(folder, *command, handle=listener.fileno()) as server:
            server.port = listener.getsockname()[1]
            listener.close()  # so that whoever waits there hears of the end of the program
            yield server


class Visitor:
    """Uploads one thing after the other, until the server is gone.

    Attributes:
        tried: what was sent.
        acknowledged: what was answered with 202.
        processes: which have said that they answered.
    """

    def __init__(self, server: Program, numbers: Iterator[int], enough: int) -> None:
        """Begin, in a thread."""
        self.tried: list[int] = []
        self.acknowledged: list[int] = []
        self.processes: set[int] = set()
        self.has_enough = threading.Event()
        self._server = server
        self._numbers = numbers
        self._enough = enough
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        connection = self._server.connect()
        try:
            while True:
                number = next(self._numbers)
                self.tried.append(number)
                connection.request("POST", f"/uploads/{number}")
                response = connection.getresponse()
                answer = json.loads(response.read() or "{}")
                assert response.status in {202, 503}  # the owner may not be there yet
                if response.status == 202:
                    self.acknowledged.append(number)
                    self.processes.add(answer.get("process", 0))
                if len(self.acknowledged) == self._enough:
                    self.has_enough.set()
        except (OSError, HTTPException):
            pass  # the server is gone
        finally:
            connection.close()
            self.has_enough.set()

    def join(self) -> None:
        """Wait for its end."""
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()


def test_all_uploads_are_accounted_for(tmp_path: Path) -> None:
    """SIGKILL, SIGTERM: what was answered with 202 is done, or is a dead letter; once restarted."""
    numbers = itertools.count()
    visitors: list[Visitor] = []
    for number, statuses in ((signal.SIGKILL, {-9}), (signal.SIGTERM, {0, -15})):
        with served(tmp_path) as server:
            now = [Visitor(server, numbers, 150) for _ in range(3)]
            for visitor in now:
                assert visitor.has_enough.wait(PATIENCE)
            assert server.end(number) in statuses, server.said
            for visitor in now:
                visitor.join()
                assert len(visitor.acknowledged) >= 150
            visitors += now
    with served(tmp_path) as server:
        connection = server.connect()
        connection.request("GET", "/wait")
        assert 200 == connection.getresponse().status
        connection.close()
        assert server.end(signal.SIGTERM) in {0, -15}, server.said
    acknowledged = {number for visitor in visitors for number in visitor.acknowledged}
    tried = {number for visitor in visitors for number in visitor.tried}
    done = Counter(map(int, (tmp_path / "results").read_text("ascii").split()))
    store = nsqlite.SQLite(tmp_path / "uploads.db", codec="json")
    with nsqlite.Broker(store=store) as broker:
        assert 0 == broker.topic("uploads").channel("resize").depth
        letters = bodies(broker.topic("uploads.dead").channel("letters"))
    dead = Counter(letter.body["number"] for letter in letters)
    assert acknowledged <= set(done) | set(dead) <= tried
    assert {9} == {number % 10 for number in dead}
    assert not set(done) & set(dead)
    assert {1} == set(dead.values())  # in one place or the other


def test_several_processes_put_through_the_owner(tmp_path: Path) -> None:
    """What two processes of a server have answered for is in the one file, whose owner works."""
    numbers = itertools.count()
    command = ["nsqlite", "run", "webapp:jobs", "--store", str(tmp_path / "uploads.db")]
    with started(tmp_path, *command) as owner:
        with served(tmp_path, "attachedapp:app", "--workers", "2") as server:
            visitors = [Visitor(server, numbers, 100) for _ in range(4)]
            for visitor in visitors:
                assert visitor.has_enough.wait(PATIENCE)
            assert server.end(signal.SIGTERM) in {0, -15}, server.said
            for visitor in visitors:
                visitor.join()
        assert 0 == owner.end(signal.SIGTERM), owner.said
    acknowledged = {number for visitor in visitors for number in visitor.acknowledged}
    assert len(acknowledged) >= 400
    store = nsqlite.SQLite(tmp_path / "uploads.db", codec="json")
    with nsqlite.Broker(store=store) as broker:
        left = [one["number"] for one in bodies(broker.topic("uploads").channel("resize"))]
        letters = bodies(broker.topic("uploads.dead").channel("letters"))
    done = list(map(int, (tmp_path / "results").read_text("ascii").split()))
    dead = [letter.body["number"] for letter in letters]
    assert acknowledged <= {*done, *dead, *left}
    assert len(done) + len(dead) + len(left) == len({*done, *dead, *left})  # each once
