"""A process that is killed at any moment leaves a file in which all is as promised.

A victim (victim.py) works on a file in five threads and tells before and after each act; it is
killed, what is in the file is found out (snapshots.py) and compared with what it told (story.py).
Then the next victim goes on with the same file, for several generations.

More kills, with other seeds each time:

    NSQLITE_KILLS=1000 pytest -m soak tests/stateful/test_crash.py
"""

import json
import os
import random
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
        lines = self.run(orders, self.chance.randrange(10, 1500))
        acts = read(lines)
        self.check_ids(acts)
        self.first += sum(len(act.keys) for act in acts if act.what == "put") + 100
        now = time.time_ns()
        seen = take_snapshot(copy_store(self.path, self.path.with_name("copy")), now)
        store = orders["store"]
        story = Story(
            self.seen,
            acts,
            interval=store["sync"] == "interval",
            durable=store["attempts"] == "durable",
        )
        wrong = story.check(seen, now)
        assert [] == wrong, (self.seed, orders, wrong[:5])
        self.seen = seen

    def run(self, orders: dict[str, Any], most: int) -> list[str]:
        """Run a victim until it is dead; return the lines that it wrote."""
        lines = []
        with subprocess.Popen(  # noqa: S603 - our own file
            [sys.executable, VICTIM, self.path, json.dumps(orders)],
            stdout=subprocess.PIPE,
            encoding="utf-8",
        ) as victim:
            assert victim.stdout is not None
            for line in victim.stdout:
                lines.append(line)
                if len(lines) == most:
                    victim.kill()
        self.kills += victim.returncode < 0
        told = any(line.startswith('["error"') for line in lines)
        assert victim.returncode in (0, -9) or told
        if lines and not lines[-1].endswith("\n"):
            lines.pop()
        return lines

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


def test_killed_process_leaves_what_was_promised(tmp_path: Path) -> None:
    """Whenever a process is killed, what it acknowledged is there, and nothing is there in part."""
    kill_many(tmp_path, KILLS, seed=1)


@pytest.mark.soak
def test_many_killed_processes_leave_what_was_promised(tmp_path: Path) -> None:
    """However often processes are killed, what they acknowledged is there, and nothing in part."""
    kill_many(tmp_path, MANY_KILLS, seed=time.time_ns() // 1_000_000_000)
