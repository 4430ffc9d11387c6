"""A loss of power at any moment leaves a file in which all is as promised.

A victim works on a file while all that SQLite does to it is recorded; then disks as they may be
after a loss of power are made of that, opened, and compared with what it told (powercut.py).

More cuts, with other seeds each time:

    NSQLITE_CUTS=10000 pytest -m soak tests/stateful/test_powercut.py

What goes wrong says how to see it again.
"""

import os
import random
import re
import sqlite3
import time
from contextlib import closing
from functools import cache
from pathlib import Path
from typing import Final

import attrs
import pytest

from stateful import powercut
from stateful.disk import Disk
from stateful.powercut import CUTS, LIVES, Life, Wrong
from stateful.recorder import NAME, Begin, Recorder, Sync

FEW_CUTS: Final = 25
MANY_CUTS: Final = int(os.environ.get("NSQLITE_CUTS", "3000"))


pytestmark = pytest.mark.usefixtures("recordable")


@cache
def one_life(sync: str) -> Life:
    """Have a victim live that writes its file as told, and often."""
    store = {"sync": sync, "sync_timeout": 0.002}
    return powercut.live(powercut.choose_orders(random.Random(1), 0, store), {}, {})


def cut_until_noticed(life: Life, keep: Path) -> str:
    """Cut the power until something is wrong; return what that is."""
    with pytest.raises(Wrong) as wrong:
        powercut.check(life, life.moments(random.Random(1), 300), 1, keep)
    return str(wrong.value)


@pytest.mark.parametrize(("sync", "lives"), [("full", 2), ("normal", 1), ("interval", 1)])
def test_loss_of_power_leaves_what_was_promised(tmp_path: Path, sync: str, lives: int) -> None:
    """Whenever there is no power any more, what was acknowledged for good is there as a whole."""
    powercut.check_lives(lives, FEW_CUTS, 1, tmp_path / "life", sync=sync)


@pytest.mark.soak
def test_many_losses_of_power_leave_what_was_promised(tmp_path: Path) -> None:
    """However often there is no power any more, what was acknowledged for good is there."""
    begin = time.time_ns() // 1_000_000_000
    for seed in range(begin, begin + -(-MANY_CUTS // (LIVES * CUTS))):
        powercut.check_lives(LIVES, CUTS, seed, tmp_path / "life")


# That the harness sees what it is to see


def test_the_record_is_what_was_done(tmp_path: Path) -> None:
    """What was recorded, done again, gives the same files, while they are open and at the end."""
    path = tmp_path / "file"
    recorder = Recorder(os.path.realpath(path))
    recorder.install(default=False)
    uri = f"{path.as_uri()}?vfs={NAME}"
    with closing(sqlite3.connect(uri, uri=True, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("CREATE TABLE number (number)")
        connection.executemany("INSERT INTO number VALUES (?)", [(n,) for n in range(100)])
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.execute("DELETE FROM number")
        assert {"", "-wal"} == powercut.pick_up(path).keys()
        assert powercut.pick_up(path) == done_again(recorder)
    recorder.uninstall()
    assert {""} == powercut.pick_up(path).keys()
    assert powercut.pick_up(path) == done_again(recorder)


def done_again(recorder: Recorder) -> dict[str, bytes]:
    disk = Disk({})
    for record in recorder.records:
        disk.take(record)
    return disk.now()


def test_a_life_has_what_is_worth_a_cut() -> None:
    """A victim puts, copies SQLite's log into its file several times, and closes it."""
    life = one_life("full")
    acts = [record.act for record in life.records if isinstance(record, Begin)]
    synced = [act.file.partition("#")[0] for act in acts if isinstance(act, Sync)]
    assert synced.count("-wal") > 50
    assert synced.count("") > 5
    assert {"put", "move", "fin", "req", "get", "close"} <= {
        act.what for act in life.acts(len(life.records))
    }


@pytest.mark.parametrize("sync", ["full", "normal", "interval"])
def test_a_disk_that_does_not_sync_is_noticed(tmp_path: Path, sync: str) -> None:
    """Without syncs the promise is not kept, of any of them."""
    cut_until_noticed(attrs.evolve(one_life(sync), lying=True), tmp_path / "life")


def test_full_promises_more_than_normal(tmp_path: Path) -> None:
    """A store that does not sync each commit does not keep the promise of one that does."""
    cut_until_noticed(attrs.evolve(one_life("normal"), promise="full"), tmp_path / "life")


def test_a_hole_is_noticed() -> None:
    """Without syncs a put may be lost, but not one before another put that is there."""
    life = one_life("normal")
    end = len(life.records)
    seen, wrong = powercut.examine(life, end, life.left)
    assert [] == wrong
    for topic in seen.values():
        for channel in topic.channels.values():
            oldest = sorted(channel.messages)[: len(channel.messages) // 2]
            for identity in oldest:
                del channel.messages[identity]
    told = powercut.judge(life, life.acts(end), seen, time.time_ns())
    assert any("has lost" in one for one in told)


def test_what_is_wrong_can_be_seen_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A complaint names the command that shows the same thing once more."""
    life = attrs.evolve(one_life("full"), lying=True)
    text = cut_until_noticed(life, tmp_path / "life")
    found = re.match(r"again: python -m stateful\.powercut replay (\S+) (\d+) (\d+)\n", text)
    assert found is not None
    powercut.replay(*found.groups())
    told = capsys.readouterr().out.splitlines()
    assert named(text.splitlines()[2]) == named(told[1])


def named(text: str) -> str:
    """Return a text without the directory of a file, which is another one each time."""
    return re.sub(r"/\S+/file", "file", text)
