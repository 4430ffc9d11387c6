"""`backup`: what it says, and what it refuses."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from storefiles import fill, told_of

import nsqlite
from nsqlite.cli.backup import backup

STUCK = """
import sys
from nsqlite.__main__ import main

def wait(event, _details):
    if event == "os.link":
        print("there", flush=True)
        sys.stdin.read()

sys.addaudithook(wait)
sys.exit(main(sys.argv[1:]))
"""
"""Runs a command that waits before a file gets its name."""


def test_it_copies_a_file_in_use(tmp_path: Path) -> None:
    """The copy of a file that is in use has all that is in it."""
    path, copy = tmp_path / "jobs.db", tmp_path / "copy.db"
    fill(path)
    with nsqlite.Broker(store=nsqlite.SQLite(path, codec="json")) as broker:
        broker.topic("orders").put(b"more")
        broker.flush()
        size = backup(str(path), str(copy), wanted=None)
        assert size == copy.stat().st_size
        assert told_of(path) == told_of(copy)


def test_it_shows_how_far_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The bar counts the bytes."""
    path = tmp_path / "jobs.db"
    fill(path)
    size = backup(str(path), str(tmp_path / "copy.db"), wanted=True)
    assert f"{size:,} bytes" in capsys.readouterr().err


def test_what_is_not_there_is_told(tmp_path: Path) -> None:
    """A file that is not there is told, and no copy made."""
    path = tmp_path / "jobs.db"
    with pytest.raises(nsqlite.StoreError) as caught:
        backup(str(path), str(tmp_path / "copy.db"), wanted=None)
    assert f"store {path}: there is no such file" == str(caught.value)
    assert [] == list(tmp_path.iterdir())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_no_signal_leaves_a_copy(tmp_path: Path, number: signal.Signals) -> None:
    """What ends it before the last step leaves no copy; but for a kill no part of one either."""
    path, copy = tmp_path / "jobs.db", tmp_path / "copy.db"
    fill(path)
    with subprocess.Popen(  # noqa: S603 - our own interpreter
        [sys.executable, "-c", STUCK, "backup", str(path), str(copy)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        assert b"there\n" == process.stdout.readline()
        process.send_signal(number)
        process.stdin.close()  # if the signal came as it began to read, nothing else wakes it
        process.wait(60)
    assert process.returncode in (-number, 130)
    left = ["copy.db-partial"] if number == signal.SIGKILL else []
    assert left == [one.name for one in tmp_path.iterdir() if one.name.startswith("copy")]
    backup(str(path), str(copy), wanted=None)
    assert ["copy.db"] == [one.name for one in tmp_path.iterdir() if one.name.startswith("copy")]
    assert told_of(path) == told_of(copy)
