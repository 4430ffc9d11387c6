"""The commands, as they are called."""

import json
import sys
from pathlib import Path

import pytest
from storefiles import change, fill, told_of, write

import nsqlite
from nsqlite.__main__ import main
from nsqlite.store.schema import VERSION


def failed(*arguments: str, capsys: pytest.CaptureFixture[str]) -> str:
    """Return the line with which a command fails."""
    with pytest.raises(SystemExit) as ending:
        main(arguments)
    out, err = capsys.readouterr()
    assert (1, "") == (ending.value.code, out)
    assert err.endswith("\n")
    assert 1 == err.count("\n")
    return err.removesuffix("\n")


def test_inspect(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`inspect` prints a table, with --json an object."""
    path = tmp_path / "jobs.db"
    fill(path)
    assert 0 == main(["inspect", str(path)])
    out, err = capsys.readouterr()
    assert ("topic   channel", "") == (out.splitlines()[3][:15], err)
    assert 0 == main(["inspect", str(path), "--json"])
    assert str(path) == json.loads(capsys.readouterr().out)["file"]


def test_export_and_import(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`export` and `import` copy a file, and `import` says what it has imported."""
    path, out, new = (str(tmp_path / name) for name in ("jobs.db", "out", "new.db"))
    fill(Path(path))
    assert 0 == main(["export", path, "-o", out])
    assert 0 == main(["import", new, "--in", out, "--no-progress"])
    assert ("4 topics, 5 channels, 12 messages\n", "") == capsys.readouterr()
    assert told_of(Path(path)) == told_of(Path(new))
    assert 0 == main(["export", path])
    assert Path(out).read_text("ascii") == capsys.readouterr().out


def test_backup(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`backup` copies a file and says how large the copy is; it replaces nothing."""
    path, copy = tmp_path / "jobs.db", tmp_path / "copy.db"
    fill(path)
    assert 0 == main(["backup", str(path), str(copy)])
    assert (f"{copy.stat().st_size} bytes\n", "") == capsys.readouterr()
    assert told_of(path) == told_of(copy)
    text = f"store {copy}: {copy} is there already: remove it, or name another file"
    expected = f"python -m nsqlite backup: {text}"
    assert expected == failed("backup", str(path), str(copy), capsys=capsys)


def test_failures_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What a command cannot do is one line on stderr that names the command, and status 1."""
    path = tmp_path / "jobs.db"
    prefix = "python -m nsqlite"
    for name in ("inspect", "export"):
        expected = f"{prefix} {name}: store {path}: there is no such file"
        assert expected == failed(name, str(path), capsys=capsys)
    source = write(tmp_path / "in", {"nsqlite": 1}, {})
    expected = f"{prefix} import: line 2: kind is missing"
    assert expected == failed("import", str(path), "-i", str(source), capsys=capsys)
    fill(path)
    change(path, "PRAGMA user_version = 99")
    for name in ("inspect", "export", "import"):
        text = f"a later nsqlite wrote it (version 99; this one knows {VERSION})"
        assert f"{prefix} {name}: store {path}: {text}" == failed(
            name, str(path), *(["-i", str(source)] if name == "import" else []), capsys=capsys
        )


def test_progress_without_rich(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """--progress without rich is a line that names what to install."""
    path = tmp_path / "jobs.db"
    fill(path)
    monkeypatch.setitem(sys.modules, "rich.console", None)
    text = "--progress needs rich, which is not installed: pip install 'nsqlite[cli]'"
    assert f"python -m nsqlite export: {text}" == failed(
        "export", str(path), "--progress", capsys=capsys
    )


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["inspect"], " inspect: the following arguments are required: FILE; try --help\n"),
        (["inspect", "a", "b"], ": unrecognized arguments: b; try --help\n"),
        (["export", "a", "-o"], " export: argument -o/--out: expected one argument; try --help\n"),
        (["import", "a", "--prog"], ": unrecognized arguments: --prog; try --help\n"),
    ],
)
def test_bad_arguments_get_one_line(
    arguments: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Bad arguments of a command get one line, and status 2."""
    with pytest.raises(SystemExit) as ending:
        main(arguments)
    assert 2 == ending.value.code
    assert ("", f"python -m nsqlite{expected}") == capsys.readouterr()


def test_a_failure_is_one_line_whatever_a_file_is_called(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The end of a line in a file's name does not end the line that tells of it."""
    path = str(tmp_path / "a\nb")
    shown = path.replace("\n", "\\n")
    expected = f"python -m nsqlite inspect: store {shown}: there is no such file"
    assert expected == failed("inspect", path, capsys=capsys)


@pytest.mark.parametrize("name", ["guide", "semantics", "wire", "http"])
def test_a_document_is_shown(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The commands that are called as a document print it, as the package carries it."""
    document = Path(nsqlite.__file__).with_name(f"{name}.md").read_text("utf-8")
    assert 0 == main([name])
    assert (document, "") == capsys.readouterr()


@pytest.mark.parametrize("name", ["inspect", "export", "import", "backup"])
def test_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Each command has a help of its own."""
    with pytest.raises(SystemExit) as ending:
        main([name, "--help"])
    assert 0 == ending.value.code
    out, err = capsys.readouterr()
    assert out.startswith(f"usage: python -m nsqlite {name} [-h] ")
    assert "the file of a broker's store" in out
    assert "" == err
