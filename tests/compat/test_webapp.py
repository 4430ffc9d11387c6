"""A web app with background jobs is killed and stopped in the middle: no upload is lost.

Starlette and uvicorn serve it in a process of its own; what comes is real HTTP.
"""

import itertools
import os
import re
import signal
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


class Server:
    """A running web app."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        """Wait until it serves."""
        self.process = process
        said: list[str] = []
        assert process.stderr is not None
        for line in process.stderr:
            said.append(line)
            match = re.search(r"running on http://127.0.0.1:(\d+)", line)
            if match:
                self.port = int(match[1])
                break
        else:
            raise AssertionError("".join(said))
        # what it says is read, so that it need not wait; and can be shown
        self.said = said
        self._reader = threading.Thread(target=lambda: said.extend(process.stderr or ()))
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
def served(folder: Path) -> Iterator[Server]:
    """Serve the app until the end of the block."""
    command = [sys.executable, "-W", "error", "-m", "uvicorn", "webapp:app", "--port", "0"]
    environment = os.environ | {
        "STORE": str(folder / "uploads.db"),
        "RESULTS": str(folder / "results"),
        "PYTHONPATH": os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")]),
    }
    with subprocess.Popen(  # noqa: S603 - our own app
        command, env=environment, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            yield Server(process)
        finally:
            process.kill()


class Visitor:
    """Uploads one thing after the other, until the server is gone.

    Attributes:
        tried: what was sent.
        acknowledged: what was answered with 202.
    """

    def __init__(self, server: Server, numbers: Iterator[int], enough: int) -> None:
        """Begin, in a thread."""
        self.tried: list[int] = []
        self.acknowledged: list[int] = []
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
                response.read()
                assert response.status in {202, 500, 503}
                if response.status == 202:
                    self.acknowledged.append(number)
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
