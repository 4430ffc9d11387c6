"""Speed and memory, as ratios measured in one run.

How to run it, with the Python that nsqlite is installed in:

    python tests/bench                  everything: about five minutes
    python tests/bench one flight       some rows
    python tests/bench --quick          small counts, a few seconds: shows that it works, no more
    python tests/bench huge             row opening with ten million messages: minutes, and 2 GB
    python tests/bench/versions.py DIR  the core beside that of another checkout: see there

How to read it.  Each line compares our figure (`ours`) with another one (`theirs`); times are for
one message.  The two are run in turns.  `median` is the median of the ratios of these pairs: below
1, ours is less.  It is judged by `must`: `ok` or `MISS`; `hope` is where it should go.  A `note` is
not judged.  `least` is the least of the ratios, and `best` the ratio of our fastest run to their
fastest: where it is far from the median, the machine was busy and the row should be run again.
`threads`, `bridge`, `worker`, `import` and all from `store` to `stall` are measured in real time,
the rest in processor time.

    one       keeps its messages in flight and finishes the oldest; the `Queue` has as many in it,
              and the loop around it keeps as many
    flight    is the same with more; the note tells what the collector adds on the way there
    deferred  judges the wheel; the notes are a longer span, and the whole way through a topic
    memory    judges our figure itself, in bytes
    store     and those that follow keep their messages in a file, which is made anew for each run
              where temporary files are: set TMPDIR to measure another disk.  What is written late
              is written before the run ends
    commits   is the time for each message of one thread or of eight together; the notes are how
              many share a commit, and what the disk alone takes
    shared    judges the size of the file
    opening   judges the seconds until a file that a killed process left behind has given its first
              message, and the most memory of the process that drains it; its notes are the speed,
              and `huge`, which is measured only if it is named
    stall     judges the longest time between two rounds of an event loop, the median of some runs,
              without the time in which other programs had the processor; the note is the worst of
              all with it
    wheel     is a table of its own: see wheels.py

The exit status is 0 when everything was measured, whatever came out, and 2 for bad arguments.

Next: timing.py
"""

import argparse
import os
import platform
import sys
from typing import NoReturn

import rows
import storerows
import wheels
from table import HEAD
from timing import FULL, QUICK, Scale

ROWS = {**rows.ROWS, **storerows.ROWS, **storerows.ON_DEMAND}
ALL = (*rows.ROWS, *storerows.ROWS, "wheel")
NAMES = (*ROWS, "wheel")


class Parser(argparse.ArgumentParser):
    """A parser that says what is wrong in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\n")


def main(arguments: list[str]) -> None:
    """Measure the rows that were asked for and print each as soon as it is known."""
    parser = Parser(prog="tests/bench", description="Measure speed and memory.", allow_abbrev=False)
    parser.add_argument("--quick", action="store_true", help="small counts: see that it works")
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(NAMES))
    options = parser.parse_args(arguments)
    for name in options.names:
        if name not in NAMES:
            parser.error(f"there is no row {name!r}; the rows are {', '.join(NAMES)}")
    run(QUICK if options.quick else FULL, options.names or ALL)


def run(scale: Scale, names: list[str] | tuple[str, ...]) -> None:
    """Print the tables."""
    python = f"{platform.python_implementation()} {platform.python_version()}"
    print(f"{python}, {os.cpu_count()} processors, {scale.pairs} pairs of short runs")
    chosen = [name for name in ROWS if name in names]
    if chosen:
        print(HEAD, flush=True)
    for name in chosen:
        for line in ROWS[name](scale):
            print(line, flush=True)
    if "wheel" in names:
        for text in wheels.lines(scale):
            print(text, flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
