"""Cuts of the power at any moment of a store's life, and what is found in its file then.

The rule: with `sync="full"` all that was acknowledged is there.  Otherwise the file holds what
happened up to some moment: who sees a put sees all puts that returned before that one began.

A victim (victim.py) works on a file while all that SQLite does to it, and all that the victim
tells, is recorded in one order (recorder.py).  A moment of the record is chosen, a disk as it may
be after a loss of power then is made (disk.py), opened as anybody opens a file, and compared with
what had been told (story.py).  Then the next victim goes on with one of these disks.

    python -m stateful.powercut cuts NUMBER [SEED]      in the directory of the tests
    python -m stateful.powercut replay LIFE MOMENT SEED
"""

import json
import logging
import os
import pickle
import random
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import attrs

import nsqlite
from nsqlite.store import wal
from stateful import victim
from stateful.disk import Disk
from stateful.recorder import Begin, Mark, Record, Recorder, Write, require
from stateful.snapshots import PARTS, SeenTopic, take_snapshot
from stateful.story import Act, Story, read

THREADS: Final = 5
ROUNDS: Final = 30
"""How often each thread of a victim does something."""

SIZES: Final = (0, 0, 10, 500, 3000)
"""Bytes by which bodies are longer than they need be: some fill more than a page."""

LOG_LIMIT: Final = 40_000
"""Bytes of SQLite's log from which on it is copied into the file, so that this happens often."""

LIVES: Final = 5
CUTS: Final = 40
"""How often the power is cut in one life, where nothing else is said; and in how many, one after
the other."""

PROBE: Final = "probe"
OWNER: Final = "-owner"
"""What the name of the owner's lock ends in, which is on the disk before SQLite writes anything; it
is not SQLite's, so it is not in a record."""

SYNCS: Final = ("full", "normal", "interval")


# The victim


class Victim(victim.Victim):
    """One whose messages are of all sizes, and whose threads keep step: none runs far ahead."""

    def __init__(self, path: str, orders: dict[str, Any]) -> None:
        """See `victim.py`."""
        super().__init__(path, orders)
        self.sizes: Final = random.Random(orders["seed"])
        self.barrier: Final = threading.Barrier(THREADS)

    def key(self) -> str:
        return f"{super().key()}:{'x' * self.sizes.choice(SIZES)}"

    def work(self, step: Callable[[random.Random], None], chance: random.Random) -> None:
        """Do something in each round, but what is rarely done in every third one only."""
        try:
            for number in range(self.orders["acts"]):
                self.barrier.wait()
                if step != self.steer or number % 3 == 0:
                    step(chance)
        except BaseException:
            victim.tell("error", traceback.format_exc()[-3000:])
            os._exit(1)


def be_victim(path: str, orders: str, target: str) -> None:
    """Work on a file as told, and store the record of it."""
    recorder = Recorder(path)
    recorder.install()

    def tell(*line: Any) -> None:
        recorder.mark(json.dumps(line))
        if line[0] == "error":
            os.write(2, str(line[1]).encode())

    vars(victim)["tell"] = tell
    vars(wal)["LIMIT"] = LOG_LIMIT
    logging.getLogger("nsqlite").addHandler(victim.Alarm())
    Victim(path, json.loads(orders)).run()
    Path(target).write_bytes(pickle.dumps(recorder.records))


# What it leaves


@attrs.define
class Life:
    """A victim's life.

    Attributes:
        orders: what it was told.
        base: what its file held before.
        files: the file then, and what lay beside it, by what comes after its name.
        records: what happened.
        left: the file as it was left, and what lay beside it.
        promise: the `sync` whose promise is to be kept.
        lying: its disk does nothing when it is to sync.
    """

    orders: dict[str, Any]
    base: dict[str, SeenTopic]
    files: dict[str, bytes]
    records: list[Record]
    left: dict[str, bytes]
    promise: str
    lying: bool = False

    def acts(self, moment: int) -> list[Act]:
        """Return what was told up to a moment."""
        return read(record.line for record in self.records[:moment] if isinstance(record, Mark))

    def moments(self, chance: random.Random, number: int) -> list[int]:
        """Choose moments, half of them when something happens but a write to SQLite's log."""
        rare = [
            place
            for place, record in enumerate(self.records)
            if isinstance(record, Begin)
            and not (isinstance(record.act, Write) and record.act.file.startswith("-wal"))
        ]
        chosen = [chance.choice(rare) + chance.randint(0, 2) for _ in range(number // 2)]
        chosen += [chance.randrange(len(self.records) + 1) for _ in range(number - len(chosen))]
        return sorted(chosen)


def lay_out(files: dict[str, bytes], path: Path) -> None:
    """Write a file and what lies beside it."""
    for part, content in files.items():
        Path(f"{path}{part}").write_bytes(content)


def pick_up(path: Path) -> dict[str, bytes]:
    """Read a file and what lies beside it."""
    parts = {part: Path(f"{path}{part}") for part in PARTS}
    return {part: file.read_bytes() for part, file in parts.items() if file.exists()}


def live(orders: dict[str, Any], base: dict[str, SeenTopic], files: dict[str, bytes]) -> Life:
    """Have a victim live to its end.

    Args:
        orders: what it is told.
        base: what the file holds.
        files: the file, and what lies beside it; none, if it is to be made.
    """
    with directory() as place:
        path, target = place / "file", place / "record"
        lay_out(files, path)
        subprocess.run(  # noqa: S603 - our own file
            [sys.executable, __file__, "victim", path, json.dumps(orders), target],
            check=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        records = pickle.loads(target.read_bytes())  # noqa: S301 - our own
        promise = orders["store"]["sync"]
        return Life(orders, base, files, records, pick_up(path), promise)


@contextmanager
def directory() -> Iterator[Path]:
    """Have a directory for a while, in memory if there is such a place: no real disk is needed."""
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # noqa: S108 - a new one in it
    with TemporaryDirectory(dir=memory) as name:
        yield Path(name)


# The judgement


class PrefixStory(Story):
    """What must be in a file that may lack what happened last."""

    def __init__(
        self, base: dict[str, SeenTopic], acts: list[Act], seen: dict[str, SeenTopic]
    ) -> None:
        """Take what is known, and find out when the last put that is there began."""
        super().__init__(base, acts, interval=False, durable=False, torn=True)
        there = {
            message.body.decode()
            for topic in seen.values()
            for channel in topic.channels.values()
            for message in channel.messages.values()
        }
        puts = [act for act in self.by_what["put"] if there.intersection(act.keys)]
        self.horizon: Final = max((act.begin for act in puts), default=-1)

    def is_written(self, act: Act) -> bool:
        """Return whether an act is written for sure: it was told before that put began.

        What is written late, a move or the end of a message, is never sure.
        """
        return act is self.start or (act.what != "move" and act.end < self.horizon)


@attrs.frozen
class Cut:
    """A loss of power.

    Attributes:
        moment: when: what comes before it in the record has happened.
        seed: what becomes of the rest.
        files: what is in the files then.
        seen: what was found there.
        wrong: what is wrong with it, in words.
    """

    moment: int
    seed: int
    files: dict[str, bytes]
    seen: dict[str, SeenTopic]
    wrong: list[str]


def cut(life: Life, moments: list[int], seed: int) -> Iterator[Cut]:
    """Cut the power at some moments of a life.

    Args:
        life: whose.
        moments: when, in their order.
        seed: what becomes of what is not safe then.
    """
    disk = Disk(life.files, lying=life.lying)
    done = 0
    for moment in moments:
        for record in life.records[done:moment]:
            disk.take(record)
        done = moment
        files = {OWNER: b"", **disk.lose_power(random.Random(f"{seed} {moment}"))}
        seen, wrong = examine(life, moment, files)
        yield Cut(moment, seed, files, seen, wrong)


def put_one(path: Path) -> str:
    """Open a file and put something into a topic of its own; return its id."""
    with nsqlite.Broker(store=nsqlite.SQLite(path)) as broker:
        broker._check()
        return broker.topic(PROBE).put(b"probe")


def examine(
    life: Life, moment: int, files: dict[str, bytes]
) -> tuple[dict[str, SeenTopic], list[str]]:
    """Open a file after a loss of power; return what is in it, and what is wrong with that."""
    acts = life.acts(moment)
    try:
        with directory() as place:
            lay_out(files, place / "file")
            if moment % 4 == 0:
                probe(place / "file", acts)
            now = time.time_ns()
            seen = take_snapshot(place / "file", now)
        seen.pop(PROBE, None)
        return seen, judge(life, acts, seen, now)
    except Exception as error:  # what is in a damaged file may be anything
        return {}, [f"{type(error).__name__}: {error}"]


def probe(path: Path, acts: list[Act]) -> None:
    """Open a file, put something into a topic of its own, and find it there later."""
    with nsqlite.Broker(store=nsqlite.SQLite(path)) as broker:
        broker._check()
        identity = broker.topic(PROBE).put(b"probe")
    assert not any(identity in (act.returned or ()) for act in acts), "an id came twice"
    with nsqlite.Broker(store=nsqlite.SQLite(path)) as broker:
        consumer = nsqlite.Consumer(broker.topic(PROBE).channel("any"))
        assert identity == consumer.get(timeout=0).id


def judge(life: Life, acts: list[Act], seen: dict[str, SeenTopic], now: int) -> list[str]:
    """Return what is wrong with what was found in a file."""
    if life.promise == "full":
        durable = life.orders["store"]["attempts"] == "durable"
        story = Story(life.base, acts, interval=False, durable=durable)
    else:
        story = PrefixStory(life.base, acts, seen)
    return story.check(seen, now)


# Many cuts


class Wrong(AssertionError):
    """A file does not hold what it must."""


def choose_orders(chance: random.Random, first: int, store: dict[str, Any]) -> dict[str, Any]:
    """Choose how a victim works.

    Args:
        chance: what chooses.
        first: the number of its first message.
        store: how it opens its file, as far as that is not to be chosen.
    """
    chosen = {
        "sync": chance.choice(SYNCS),
        "attempts": chance.choice(["late", "durable"]),
        "mem_queue_size": chance.choice([1, 10, 10_000]),
        "sync_every": chance.choice([10, 2500]),
        "sync_timeout": chance.choice([0.002, 0.02, 0.2]),
    }
    seed = chance.randrange(10**9)
    patience = {"msg_timeout": chance.choice([60, 60, 0.02])}
    return {"seed": seed, "acts": ROUNDS, "first": first, "store": chosen | store, **patience}


def complaint(life: Life, one: Cut, keep: Path) -> str:
    """Store a life in which something went wrong; say what, and how to see it again."""
    keep.write_bytes(pickle.dumps(life))
    again = f"python -m stateful.powercut replay {keep} {one.moment} {one.seed}"
    return "\n".join(
        [f"again: {again}", str(life.orders), *(wrong[:500] for wrong in one.wrong[:5])]
    )


def check(life: Life, moments: list[int], seed: int, keep: Path) -> list[Cut]:
    """Cut the power at some moments of a life.

    Args:
        life: whose.
        moments: when, in their order.
        seed: what becomes of what is not safe then.
        keep: where the life is stored if something is wrong.

    Raises:
        Wrong: a file does not hold what it must.
    """
    cuts = []
    for one in cut(life, moments, seed):
        if one.wrong:
            raise Wrong(complaint(life, one, keep))
        cuts.append(one)
    return cuts


def check_lives(number: int, cuts: int, seed: int, keep: Path, **store: Any) -> None:
    """Cut the power in the lives of victims, each of which goes on with what a cut has left.

    Args:
        number: how many victims.
        cuts: how often in each life.
        seed: what they do, when it is cut, and what becomes of it.
        keep: where a life is stored in which something is wrong.
        store: how they open their file, as far as that is not to be chosen.

    Raises:
        Wrong: a file does not hold what it must.
    """
    chance = random.Random(seed)
    files: dict[str, bytes] = {}
    base: dict[str, SeenTopic] = {}
    first = 0
    for _ in range(number):
        life = live(choose_orders(chance, first, store), base, files)
        first += sum(len(act.keys) for act in life.acts(len(life.records))) + 100
        done = check(life, life.moments(chance, cuts), seed, keep)
        chosen = chance.choice(done)
        files, base = chosen.files, chosen.seen


# The commands


def cut_and_count(number: str, seed: str = "") -> None:
    """Cut the power so often, more or less; print how that goes."""
    begin = int(seed) if seed else time.time_ns() // 1_000_000_000
    with directory() as place:
        require(place)
    for done in range(0, int(number), LIVES * CUTS):
        print(f"{done} cuts, now those of seed {begin}", flush=True)
        check_lives(LIVES, CUTS, begin, Path("powercut.life"))
        begin += 1
    print("nothing was lost")


def replay(life: str, moment: str, seed: str) -> None:
    """Cut the power once again at a moment of a life; print what is wrong then."""
    stored: Life = pickle.loads(Path(life).read_bytes())  # noqa: S301 - our own
    for one in cut(stored, [int(moment)], int(seed)):
        print({part: len(content) for part, content in one.files.items()})
        print(*(wrong[:500] for wrong in one.wrong or ["nothing is wrong"]), sep="\n")


COMMANDS: Final[dict[str, Callable[..., None]]] = {
    "victim": be_victim,
    "cuts": cut_and_count,
    "replay": replay,
}

if __name__ == "__main__":
    COMMANDS[sys.argv[1]](*sys.argv[2:])
