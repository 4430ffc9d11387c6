"""Speed and memory, as ratios measured in one run.

How to run it, with the Python that nsqlite is installed in:

    python tests/bench                  the rows of the core: about five minutes
    python tests/bench put fanout       some groups of rows
    python tests/bench put/one          one row
    python tests/bench --quick          small counts, some seconds: shows that it works, no more
    python tests/bench store            the same with a store: see below
    python tests/bench server           nsqd's protocols on sockets: see below
    python tests/bench/versions.py DIR  the core beside that of another checkout: see there
    python tests/bench/survivors.py     what `kill -9` leaves, in nsqlite and in huey: see there

How to read it.  Each line compares our figure (`ours`) with another one (`theirs`), the medians of
some runs; times are for one message, or for one copy or hop where the row says so.  The two are run
in turns.  `median` is the median of the ratios of these pairs: below 1, ours is less.  It is judged
by `must`: `ok` or `MISS`; `hope` is where it should go.  A `note` is not judged.  `least` is the
least of the ratios, and `best` the ratio of our fastest run to their fastest: where it is far from
the median, the machine was busy and the row should be run again.  Rows of threads are judged by
`best`, and so are figures that are compared with nothing, of which it is the least.  What waits for
threads or a disk is measured in real time, the rest in processor time.  "So" means: as
the row or the comparison that is named before, but for what follows.

    put       one message at a time, and what may be unusual about it
    batch     a thousand at a time
    fanout    to several channels
    threads   from one thread to others
    await     in an event loop: what is there already, and gets that wait
    worker    a handler that does nothing, in threads and in a task, and what is written by hand
    delay     deferred messages until they are ready, on a clock with ticks of 10 ms that is moved
              in one jump; the notes are the same looked at in each tick, which costs a look for
              each of 6,000 or 360,000 ticks besides
    due       a million that are due at once: the call that finds it, which has the lock meanwhile
    empty     gets that find nothing
    memory    bytes; `topic` too, and what making and finding topics takes
    import    a process that imports nsqlite, less one that does nothing
    build     what those who build on the core use: notes

Only if they are named:

    other     what earlier versions reached and must not lose
    store     and `durable`, `waiting`, `storemany`, `interval`, `commits`, `shared`, `opening`,
              `later`, `stall`; `stores` are all of these.  They keep their messages in a file,
              which is made anew for each run where temporary files are: set TMPDIR to measure
              another disk.  What is written late is written before the run ends
    commits   is the time for each message of one thread or of eight together; the notes are how
              many share a commit, and what the disk alone takes
    shared    judges the size of the file
    opening   judges the seconds until a file that a killed process left behind has given its first
              message, and the most memory of the process that drains it; its notes are the speed;
              `huge` is the same with ten million messages: minutes, and 2 GB
    later     judges the seconds that it takes to open a file in which messages wait for hours, and
              the memory
    stall     judges the longest time between two rounds of an event loop, the median of some runs,
              without the time in which other programs had the processor; the note is the worst of
              all with it
    wheel     is a table of its own: see wheels.py
    server    `python -m nsqlite nsqd`, beside an asyncio echo (see echo.py), one that does as nsqd
              but keeps no messages (see bare.py), and with `--nsqd PATH` Go's nsqd.  The bounds are
              those of rates: 1.25 is 0.8 of the other's rate.  Each server is a process, and so is
              the load (see load.py).  Where little is under way, all are kept on one processor,
              but for `--spread` (see serverrows.py).  Some minutes
    server/mpub, mpub-4, sub, pub, pub-10, deep, turn, ping, post
              what a message or request takes
    server/store-mpub, store-sub, store-deep, store-pub
              the same with a store; with `--nsqd PATH` beside Go's nsqd with no room in memory
    server/crowd, idle
              consumers that wait: what a delivery takes among them, and what the server takes of a
              processor and of memory.  Linux, and 10,000 open files
    server/start
              a process until it answers

The exit status is 0 when everything was measured, whatever came out, and 2 for bad arguments.

Next: timing.py
"""

import argparse
import os
import platform
import shutil
import sys
from collections.abc import Iterator
from typing import NoReturn

import rows
import serverrows
import storerows
import wheels
from serverrows import Setting
from table import HEAD, Line
from timing import FULL, QUICK

STORES = {**storerows.ROWS, **storerows.ON_DEMAND}
NAMES = (*rows.GROUPS, "stores", *STORES, "wheel", "server")
SINGLE = (*rows.ROWS, *serverrows.ROWS)


class Parser(argparse.ArgumentParser):
    """A parser that says what is wrong in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\n")


def main(arguments: list[str]) -> None:
    """Measure the rows that were asked for and print each as soon as it is known."""
    parser = Parser(prog="tests/bench", description="Measure speed and memory.", allow_abbrev=False)
    parser.add_argument("--quick", action="store_true", help="small counts: see that it works")
    parser.add_argument("--nsqd", metavar="PATH", help="compare with this nsqd of Go's, too")
    parser.add_argument("--spread", action="store_true", help="use all processors in each row")
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(NAMES))
    options = parser.parse_args(arguments)
    for name in options.names:
        if name not in NAMES and name not in SINGLE:
            known = ", ".join(row for row in SINGLE if row.startswith(name.partition("/")[0] + "/"))
            parser.error(f"there is no row {name!r}; the rows are {known or ', '.join(NAMES)}")
    if options.nsqd is not None and not shutil.which(options.nsqd):
        parser.error(f"{options.nsqd!r} is no program")
    scale = QUICK if options.quick else FULL
    run(Setting(scale=scale, go_nsqd=options.nsqd, spread=options.spread), options.names)


def run(setting: Setting, names: list[str]) -> None:
    """Print the tables."""
    scale = setting.scale
    python = f"{platform.python_implementation()} {platform.python_version()}"
    print(f"{python}, {os.cpu_count()} processors, {scale.pairs} pairs of short runs")
    if names != ["wheel"]:
        print(HEAD, flush=True)
    for line in lines(setting, names):
        print(line, flush=True)
    if "wheel" in names:
        for text in wheels.lines(scale):
            print(text, flush=True)


def lines(setting: Setting, names: list[str]) -> Iterator[Line]:
    """Measure what was named, in the order of the table; the core if nothing was."""
    scale = setting.scale
    for row in rows.ROWS.values():
        if row.name in names or row.group in names or (not names and row not in rows.OTHERS):
            yield row.line(scale)
    for name, measure in STORES.items():
        if name in names or ("stores" in names and name in storerows.ROWS):
            yield from measure(scale)
    for name, measuring in serverrows.ROWS.items():
        if name in names or "server" in names:
            yield from measuring(name, setting)


if __name__ == "__main__":
    main(sys.argv[1:])
