"""`inspect --check`: what is damaged is told, and what is whole is not."""

import sqlite3
from pathlib import Path

import pytest
from storefiles import fill

import nsqlite
from nsqlite.__main__ import main
from nsqlite.cli import check


@pytest.fixture
def path(tmp_path: Path) -> Path:
    found = tmp_path / "jobs.db"
    fill(found)
    return found


def change(path: Path, *statements: str) -> None:
    connection = sqlite3.connect(path)
    for statement in statements:
        connection.execute(statement)
    connection.commit()
    connection.close()


def told(path: Path, capsys: pytest.CaptureFixture[str]) -> tuple[list[str], str]:
    """Return the lines of a check that finds something, and the last word."""
    with pytest.raises(SystemExit) as ended:
        main(["inspect", "--check", str(path)])
    captured = capsys.readouterr()
    assert ended.value.code
    return captured.out.splitlines(), str(ended.value.code) + captured.err


def test_a_whole_file(
    path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every message is read, page by page, and counted; also while the file is in use."""
    monkeypatch.setattr(check, "PAGE", 3)
    main(["inspect", "--check", str(path)])
    assert "no damage found; 13 messages, 0 without a checksum\n" == capsys.readouterr().out
    with nsqlite.Broker(store=nsqlite.SQLite(path, checksums=False)) as broker:
        broker.topic("orders").put(b"more")
        main(["inspect", "--check", str(path)])
    assert "no damage found; 14 messages, 1 without a checksum\n" == capsys.readouterr().out


@pytest.mark.parametrize(
    ("statement", "problem"),
    [
        (
            "UPDATE messages_1 SET data = x'00' WHERE data = x'ff00'",
            "of topic 'orders' is not what",
        ),
        ("UPDATE messages_1 SET due = due + 1 WHERE due > 0", "of topic 'orders' is not what"),
        ("UPDATE messages_1 SET timestamp = 'x' WHERE data = x'ff00'", "is not what was put"),
        ("UPDATE messages_1 SET id = -7 WHERE data = x'ff00'", "message -7 of topic 'orders'"),
        ("UPDATE messages_1 SET topic = 99 WHERE data = x'ff00'", "belongs to topic 99, which"),
        ("UPDATE channel SET topic = 99 WHERE name = 'late'", "channel 'late' belongs to topic 99"),
        ("UPDATE topic SET partition = 99 WHERE name = 'empty'", "in table 99, which is not there"),
    ],
)
def test_what_is_damaged(
    path: Path, capsys: pytest.CaptureFixture[str], statement: str, problem: str
) -> None:
    """It is told in a line, and the status is 1."""
    change(path, statement)
    [line], last = told(path, capsys)
    assert problem in line
    assert f"{path} is damaged: restore it from a backup" in last


def test_an_index_that_lacks_a_message(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A deferred message that the index does not know would never be delivered."""
    change(path, "PRAGMA writable_schema = 1", "DELETE FROM sqlite_master WHERE name = 'apart_1'")
    change(path, "UPDATE messages_1 SET due = due + 1 WHERE due > 0")
    lines, _ = told(path, capsys)
    assert any(line.startswith("SQLite: ") for line in lines)


def test_pages_that_cannot_be_read(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Where it cannot go on it says so."""
    with path.open("r+b") as file:
        file.seek(100)
        file.write(b"\xff" * 4000)
    _, last = told(path, capsys)
    assert "damaged" in last
    assert "restore it from a backup" in last


def test_it_is_json_or_a_check(path: Path) -> None:
    """Not both."""
    with pytest.raises(SystemExit):
        main(["inspect", "--check", "--json", str(path)])
