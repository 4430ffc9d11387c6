"""How long it takes until a server that was just started answers.

The rule: the clock starts before the process does, and stops when a client that has connected then
has the answer to its IDENTIFY; the byte code is there.

What it is compared with is told by its process as well, when it has imported what it should.

Next: rows.py
"""

import subprocess
import sys
import time
from collections import deque
from typing import Final, TypeAlias

from imports import INTERPRETER, environment
from load import Client
from servers import listening
from timing import Run

Command: TypeAlias = tuple[str, ...]

NO_HTTP: Final = "--http-address="
NSQLITE: Final = (*INTERPRETER, "-m", "nsqlite", "nsqd", "--tcp-address=127.0.0.1:0")
WITH_HTTP: Final = (*NSQLITE, "--http-address=127.0.0.1:0")
WITHOUT_HTTP: Final = (*NSQLITE, NO_HTTP)


def answering(command: Command) -> Run:
    """Measure a server until it answers."""
    kinds = ("TCP",) if command[-1] == NO_HTTP else ("TCP", "HTTP")

    def run() -> float:
        begin = time.perf_counter()
        with subprocess.Popen(  # noqa: S603 - our own interpreter
            command, stderr=subprocess.PIPE, text=True, env=environment()
        ) as process:
            assert process.stderr is not None
            log: deque[str] = deque(maxlen=20)
            try:
                Client(listening(process.stderr, log, kinds)["TCP"]).close()
                return time.perf_counter() - begin
            except Exception as error:
                error.add_note(f"{' '.join(command)} has logged:\n{''.join(log)}")
                raise
            finally:
                process.kill()

    return run


def importing(statement: str) -> Run:
    """Measure a process until it has done a statement."""
    code = f"{statement}\nprint(flush=True)\n"

    def run() -> float:
        begin = time.perf_counter()
        with subprocess.Popen(  # noqa: S603 - our own interpreter and code
            [*INTERPRETER, "-c", code], stdout=subprocess.PIPE, env=environment()
        ) as process:
            assert process.stdout is not None
            line = process.stdout.readline()
            elapsed = time.perf_counter() - begin
        if not line:
            sys.exit(f"this cannot be compared with: {statement}")
        return elapsed

    return run
