"""How long an import takes in a new interpreter.

The rule: the byte code is there.  The unmeasured first turn compiles it into a cache of the
benchmark's own, whatever the environment says about writing byte code.

Next: stores.py
"""

import os
import subprocess
import sys
import time

from timing import Run

OURS = "import nsqlite"
THEIRS = "import queue, threading, attrs, sortedcontainers"

_TIMED = """
import time
begin = time.perf_counter()
{}
print(time.perf_counter() - begin)
"""


def whole(statement: str, cache: str) -> Run:
    """Measure an interpreter that makes an import, from its start to its end."""

    def run() -> float:
        begin = time.perf_counter()
        _interpret(statement, cache)
        return time.perf_counter() - begin

    return run


def statement_alone(statement: str, cache: str) -> Run:
    """Measure the import statement alone, inside a new interpreter."""
    return lambda: float(_interpret(_TIMED.format(statement), cache))


def _interpret(code: str, cache: str) -> str:
    command = [sys.executable, "-X", f"pycache_prefix={cache}", "-c", code]
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    done = subprocess.run(  # noqa: S603 - our own interpreter and code
        command, check=True, capture_output=True, text=True, env=kept
    )
    return done.stdout
