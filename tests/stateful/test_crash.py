"""A process that is killed at any moment leaves a file in which all is as promised.

A victim (victim.py) works on a file in five threads and tells before and after each act; it is
killed, what is in the file is found out (snapshots.py) and compared with what it told (story.py).
Then the next victim goes on with the same file, for several generations.

More kills, with other seeds each time:

    NSQLITE_KILLS=1000 pytest -m soak tests/stateful/test_crash.py
"""

import itertools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Final

import pytest

from stateful.snapshots import SeenTopic, copy_store, take_snapshot
from stateful.story import Act, Story, read

VICTIM: Final = Path(__file__).parent / "victim.py"
GENERATIONS: Final = 3
KILLS: Final = 30
MANY_KILLS: Final = int(os.environ.get("NSQLITE_KILLS", "300"))

POINTS: Final = ("before write", "after write", "before", "after", "statement")


class Generations:
    """One file, and the victims that work on it one after the other."""

    def __init__(self, path: Path, seed: int) -> None:
        self.path = path
        self.seed = seed
        self.chance = random.Random(seed)
        self.seen: dict[str, SeenTopic] = {}
        self.ids: set[str] = set()
        self.first = 0
        self.kills = 0

    def orders(self) -> dict[str, Any]:
        """Choose how the next victim works, and how it dies."""
        chance = self.chance
        orders: dict[str, Any] = {
            "seed": chance.randrange(10**9),
            "acts": 400,
            "first": self.first,
            "msg_timeout": chance.choice([60, 60, 0.02]),
            "store": {
                "sync": chance.choice(["normal", "normal", "full", "interval"]),
                "attempts": chance.choice(["late", "durable"]),
                "mem_queue_size": chance.choice([1, 10, 10_000]),
                "sync_every": chance.choice([10, 2500]),
                "sync_timeout": chance.choice([0.002, 0.2, 100]),
            },
        }
        if chance.random() < 0.5:
            orders["at"] = chance.choice(POINTS)
            orders["fuse"] = chance.randrange(1, 300)
        return orders

    def live(self) -> None:
        """Let one victim live and die, and look at what it leaves."""
        orders = self.orders()
        acts = self.run(orders, self.chance.randrange(10, 1500))
        self.first += sum(len(act.keys) for act in acts if act.what == "put") + 100
        self.seen = self.look(orders, acts)

    def run(self, orders: dict[str, Any], most: int | None = None) -> list[Act]:
        """Run a victim until it is dead; return what it told.

        Args:
            orders: what it is told.
            most: after how many lines it is killed.
        """
        lines = []
        with subprocess.Popen(  # noqa: S603 - our own file
            [sys.executable, VICTIM, self.path, json.dumps(orders)],
            stdout=subprocess.PIPE,
            encoding="utf-8",
        ) as victim:
            for line in victim.stdout or ():
                lines.append(line)
                if len(lines) == most:
                    victim.kill()
        acts = read(lines)
        assert victim.returncode in (0, -signal.SIGKILL)
        self.kills += victim.returncode < 0
        self.check_ids(acts)
        return acts

    def look(self, orders: dict[str, Any], acts: list[Act]) -> dict[str, SeenTopic]:
        """Compare the file with what a victim told; return what is in it."""
        copy = copy_store(self.path, self.path.with_name("copy"))
        return self.compare(copy, orders, acts, torn=False)

    def tear(self, orders: dict[str, Any], acts: list[Act]) -> None:
        """Compare the file without the end of its log, as a loss of power may leave it."""
        copy = copy_store(self.path, self.path.with_name("torn"))
        log = Path(f"{copy}-wal")
        if log.exists():
            os.truncate(log, self.chance.randrange(log.stat().st_size + 1))
        self.compare(copy, orders, acts, torn=True)

    def compare(
        self, copy: Path, orders: dict[str, Any], acts: list[Act], *, torn: bool
    ) -> dict[str, SeenTopic]:
        now = time.time_ns()
        seen = take_snapshot(copy, now)
        store = orders["store"]
        story = Story(
            self.seen,
            acts,
            interval=store["sync"] == "interval",
            durable=store["attempts"] == "durable",
            torn=torn,
        )
        wrong = story.check(seen, now)
        assert [] == wrong, (self.seed, torn, orders, wrong[:5])
        return seen

    def check_ids(self, acts: list[Act]) -> None:
        """Check that no id came twice."""
        for act in acts:
            if act.what in ("put", "move") and act.returned:
                ids = act.returned if isinstance(act.returned, list) else [act.returned]
                assert not self.ids.intersection(ids), "an id came twice"
                self.ids.update(ids)


def kill_many(directory: Path, kills: int, seed: int) -> None:
    done = 0
    while done < kills:
        path = directory / str(seed)
        path.mkdir()
        file = Generations(path / "file", seed)
        for _ in range(GENERATIONS):
            file.live()
        done += file.kills
        seed += 1


def lose_power(directory: Path, times: int, seed: int) -> None:
    """Kill one victim, and look at its file with as many different ends of its log missing."""
    file = Generations(directory / "file", seed)
    orders = {**file.orders(), "at": "after", "fuse": 400}
    acts = file.run(orders)
    for _ in range(times):
        file.tear(orders, acts)


def test_killed_process_leaves_what_was_promised(tmp_path: Path) -> None:
    """Whenever a process is killed, what it acknowledged is there, and nothing is there in part."""
    kill_many(tmp_path, KILLS, seed=1)


@pytest.mark.parametrize("seed", range(3))
def test_lost_end_of_the_log_leaves_nothing_in_part(tmp_path: Path, seed: int) -> None:
    """Where the log ends too early, each act before is there as a whole, and none behind."""
    lose_power(tmp_path, 5, seed)


@pytest.mark.soak
def test_many_killed_processes_leave_what_was_promised(tmp_path: Path) -> None:
    """However often processes are killed, what they acknowledged is there, and nothing in part."""
    kill_many(tmp_path, MANY_KILLS, seed=time.time_ns() // 1_000_000_000)


@pytest.mark.soak
@pytest.mark.parametrize("at", ["before write", "after write", "before tidy", "statement"])
@pytest.mark.parametrize("sync", ["normal", "interval"])
@pytest.mark.parametrize("attempts", ["late", "durable"])
def test_kill_at_each_point_leaves_what_was_promised(
    tmp_path: Path, at: str, sync: str, attempts: str
) -> None:
    """A process that dies at its first, second, third, ... write leaves what it acknowledged."""
    for fuse in itertools.count(1):
        directory = tmp_path / str(fuse)
        directory.mkdir()
        file = Generations(directory / "file", fuse)
        orders = {**file.orders(), "seed": 7, "acts": 60, "msg_timeout": 60, "at": at, "fuse": fuse}
        late = 0.001 if at == "before tidy" else 100
        orders["store"] |= {"sync": sync, "attempts": attempts, "sync_timeout": late}
        acts = file.run(orders)
        file.look(orders, acts)
        shutil.rmtree(directory)
        if not file.kills:
            break
    assert fuse > 1


@pytest.mark.soak
def test_many_lost_ends_of_logs_leave_nothing_in_part(tmp_path: Path) -> None:
    """Wherever the log ends, each act before is there as a whole, and none behind."""
    begin = time.time_ns() // 1_000_000_000
    for seed in range(begin, begin + 20):
        directory = tmp_path / str(seed)
        directory.mkdir()
        lose_power(directory, 30, seed)
