"""How long an import takes in a new interpreter, beyond what the interpreter itself takes.

The rule: the byte code is there.  The unmeasured first turn compiles it into a cache of the
benchmark's own, whatever the environment says about writing byte code.

It is the processor time of the processes, where the system tells it.

Next: builders.py
"""

import atexit
import os
import subprocess
import sys
import time
from tempfile import TemporaryDirectory
from typing import Final

from timing import Run

OURS = "import nsqlite"
THEIRS = "import queue, threading, attrs, sortedcontainers"

_CACHE = TemporaryDirectory()
atexit.register(_CACHE.cleanup)

INTERPRETER: Final = (sys.executable, "-X", f"pycache_prefix={_CACHE.name}")
"""What starts an interpreter that finds byte code in the benchmark's own cache."""


def process(statement: str) -> Run:
    """Measure a process that does a statement, less one that does nothing, started just before."""

    def run() -> float:
        nothing = _interpret("pass")
        return _interpret(statement) - nothing

    return run


def _interpret(code: str) -> float:
    """Return the seconds that an interpreter takes from its start to its end."""
    command = [*INTERPRETER, "-c", code]
    begin = _clock()
    subprocess.run(command, check=True, env=environment())  # noqa: S603 - our own code
    return _clock() - begin


def environment() -> dict[str, str]:
    """Return the environment in which an interpreter keeps the byte code."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


if sys.platform == "win32":
    _clock = time.perf_counter
else:
    from resource import RUSAGE_CHILDREN, getrusage

    def _clock() -> float:
        used = getrusage(RUSAGE_CHILDREN)
        return used.ru_utime + used.ru_stime
