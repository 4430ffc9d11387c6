"""Real work on real input: the checksums of a directory's files, by a worker of four threads.

    python examples/checksums.py [DIRECTORY]

Each file of the directory (of the examples, if none is named) is a message of the topic "files"; a
worker reads it and keeps its SHA-256.  One file cannot be read: it was taken away after the list
was made.

Watch what becomes of that one.  The other files are summed while it is tried three times, each
time later; then it is given up, and a dead letter tells which file it was, where it failed and why.
When the file is there again, `redrive` puts the letter back into the channel where it failed, and
the work is complete: the sums are those of a plain loop.

It prints:

    every file but one is summed by 4 threads
    one is given up after 3 attempts in files:sums: FileNotFoundError
    the file is there again; letters put back: 1
    A plain loop gives the same sums.

Next: text_statistics.py
"""

import argparse
import hashlib
import logging
import shutil
import sys
import tempfile
import threading
from pathlib import Path
from typing import NoReturn

import nsqlite

CONCURRENCY = 4


class Sums:
    """The checksums of files, kept by many threads."""

    def __init__(self) -> None:
        """Begin without any."""
        self._lock = threading.Lock()
        self.by_name: dict[str, str] = {}

    def add(self, message: nsqlite.Message[Path]) -> None:
        """Read a message's file and keep its sum; the worker's handler."""
        path = message.body
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        with self._lock:
            self.by_name[path.name] = digest


def plain_loop(paths: list[Path]) -> dict[str, str]:
    """Return the same sums, computed one after the other."""
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def compute(paths: list[Path], lost: Path) -> Sums:
    """Sum the files though one of them is away for a while; tell what happens."""
    sums = Sums()
    broker = nsqlite.Broker()
    files, dead = broker.topic("files"), broker.topic("files.dead")
    channel = files.channel("sums")
    letters = dead.channel("letters")
    worker = nsqlite.Worker(
        channel,
        sums.add,
        concurrency=CONCURRENCY,
        retry=nsqlite.Retry(max_attempts=3, delay=0.02),
        dead_letter=dead,
    )
    away = lost.with_name(f"{lost.name}.away")
    lost.rename(away)
    files.put_many(paths)
    with worker:
        worker.join()
        missing = {path.name for path in paths} - set(sums.by_name)
        assert missing == {lost.name}
        print(f"every file but one is summed by {CONCURRENCY} threads")
        letter = letters.peek()[0].body
        where = f"{letter.topic}:{letter.channel}"
        print(f"one is given up after {letter.attempts} attempts in {where}: {letter.error_type}")

        away.rename(lost)
        count = nsqlite.redrive(letters, broker)
        print(f"the file is there again; letters put back: {count}")
        worker.join()
    broker.close()
    return sums


class Parser(argparse.ArgumentParser):
    """Says in one line what is wrong."""

    def error(self, message: str) -> NoReturn:
        """End the program with status 2."""
        self.exit(2, f"{self.prog}: {message}\n")


def main() -> int:
    """Sum the files of a copy of the directory, and compare with a plain loop."""
    parser = Parser(description="Compute checksums by a worker of four threads.")
    here = Path(__file__).parent
    parser.add_argument("directory", nargs="?", type=Path, default=here)
    directory: Path = parser.parse_args().directory
    try:
        found = sorted(path for path in directory.iterdir() if path.is_file())
    except OSError as error:
        parser.error(f"{str(directory)!r}: {error.strerror}")
    if not found:
        parser.error(f"{str(directory)!r}: there is no file in it")
    logging.getLogger("nsqlite").setLevel(logging.CRITICAL)  # the failures are meant
    with tempfile.TemporaryDirectory() as copy:
        try:
            paths = [Path(shutil.copy(path, copy)) for path in found]
        except OSError as error:
            parser.error(f"{error.filename!r}: {error.strerror}")
        sums = compute(paths, paths[len(paths) // 2])
        same = sums.by_name == plain_loop(paths)
    if not same:
        print(f"{parser.prog}: the sums are not those of a plain loop", file=sys.stderr)
        return 1
    print("A plain loop gives the same sums.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
