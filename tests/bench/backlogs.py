"""A file in which very many messages wait, left behind by a process that died, and a new one.

The rule: whoever puts ends without closing anything, as if it was killed; whoever drains is another
process, so its memory is its own, and finds nothing of the file in the system's cache.

Next: stalls.py
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import attrs

_PUT = """
import os, sys, nsqlite
path, count = sys.argv[1], int(sys.argv[2])
broker = nsqlite.Broker(store=nsqlite.SQLite(path))
topic = broker.topic("bench")
topic.channel("a")
bodies = [b"x" * 100] * 1000
for _ in range(count // 1000):
    topic.put_many(bodies)
os._exit(0)
"""

_PUT_LATER = """
import os, random, sys, nsqlite
path, count = sys.argv[1], int(sys.argv[2])
broker = nsqlite.Broker(store=nsqlite.SQLite(path), max_req_timeout=1_000_000)
topic = broker.topic("bench")
topic.channel("a")
bodies = [b"x" * 100] * 100
for _ in range(count // 100):
    topic.put_many(bodies, delay=100 + random.random() * 100_000)
os._exit(0)
"""

_PEAK = """
import json, sys, time, nsqlite
from pathlib import Path
path, count = sys.argv[1], int(sys.argv[2])

def peak():  # of this process alone: what `getrusage` says may be of the one that started it
    status = Path("/proc/self/status")
    if status.exists():
        [line] = [line for line in status.read_text().splitlines() if line.startswith("VmHWM")]
        return int(line.split()[1]) * 1024
    import resource
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit

empty = peak()
begin = time.perf_counter()
broker = nsqlite.Broker(store=nsqlite.SQLite(path))
"""

_OPEN_LATER = f"""{_PEAK}
channel = broker.topic("bench").channel("a")
opened = time.perf_counter() - begin
assert channel.deferred_count == count
print(json.dumps(dict(seconds=opened, empty=empty, peak=peak())))
"""

_DRAIN = f"""{_PEAK}
consumer = nsqlite.Consumer(broker.topic("bench").channel("a"))
message = consumer.get(timeout=10)
first = time.perf_counter() - begin
consumer.fin(message)
opened = peak()
get, fin = consumer.get, consumer.fin
begin = time.perf_counter()
for _ in range(count - 1):
    fin(get(timeout=10))
broker.flush()
drained = time.perf_counter() - begin
assert consumer.channel.depth == 0
begin = time.perf_counter()
broker.close()
closed = time.perf_counter() - begin
print(json.dumps(dict(
    first=first, each=drained / count, closed=closed, empty=empty, opened=opened, peak=peak(),
)))
"""


@attrs.frozen(kw_only=True)
class Drained:
    """What came of it.

    Attributes:
        first: seconds from the beginning of the opening until the first `get` returned.
        each: seconds for each message of the rest, all written at the end.
        closed: seconds that closing took.
        empty: the most memory of the process before, in bytes.
        opened: the same when the first message was there.
        peak: the same at the end.
        size: bytes of the files that were found.
    """

    first: float
    each: float
    closed: float
    empty: int
    opened: int
    peak: int
    size: int


def drained(count: int) -> Drained:
    """Fill a file with so many messages in one process, and open and drain it in another."""
    with TemporaryDirectory() as directory:
        path = f"{directory}/bench.db"
        _python(_PUT, path, str(count))
        size = sum(_uncached(file) for file in Path(directory).iterdir())
        return Drained(size=size, **json.loads(_python(_DRAIN, path, str(count))))


@attrs.frozen(kw_only=True)
class Opened:
    """What it took to open a file.

    Attributes:
        seconds: until its topic and channel were there.
        empty: the most memory of the process before, in bytes.
        peak: the same afterwards.
    """

    seconds: float
    empty: int
    peak: int


def opened_with_deferred(count: int) -> Opened:
    """Fill a file with messages that wait for hours, and open it in another process."""
    with TemporaryDirectory() as directory:
        path = f"{directory}/bench.db"
        _python(_PUT_LATER, path, str(count))
        for file in Path(directory).iterdir():
            _uncached(file)
        return Opened(**json.loads(_python(_OPEN_LATER, path, str(count))))


def _uncached(file: Path) -> int:
    """Have the system forget what it has of a file in memory, where it can; return its size."""
    number = os.open(file, os.O_RDONLY)
    try:
        os.fsync(number)
        if sys.platform == "linux":
            os.posix_fadvise(number, 0, 0, os.POSIX_FADV_DONTNEED)
        return os.fstat(number).st_size
    finally:
        os.close(number)


def _python(code: str, *arguments: str) -> str:
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(  # noqa: S603 - our own interpreter and code
        command, check=True, stdout=subprocess.PIPE, text=True
    )
    return done.stdout
