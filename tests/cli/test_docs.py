"""`docs`: where the pages are written, and what is left alone."""

import hashlib
import sys
from pathlib import Path

import pytest

from nsqlite.__main__ import main
from nsqlite.cli import manual
from nsqlite.cli.docs import LIST, write_docs
from nsqlite.cli.failure import CommandFailed

PAGES = {"index.html": "<p>first</p>", "nsqlite.html": "ü", "nsqlite/aio.html": "aio"}


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Have few pages to write, which a test may change."""
    pages = dict(PAGES)
    monkeypatch.setattr(manual, "pages", lambda: pages)
    return pages


def content(directory: Path) -> dict[str, str]:
    """Return the text of all files but the list."""
    files = [path for path in directory.rglob("*") if path.is_file() and path.name != LIST]
    return {path.relative_to(directory).as_posix(): path.read_text("utf-8") for path in files}


def refused(directory: Path) -> str:
    """Return why nothing is written."""
    with pytest.raises(CommandFailed) as caught:
        write_docs(str(directory))
    return str(caught.value)


def test_the_pages_are_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`docs` writes all pages into a new directory and says where to begin."""
    directory = tmp_path / "new" / "docs"
    assert 0 == main(["docs", str(directory)])
    pages = manual.pages()
    assert pages == content(directory)
    assert (f"{len(pages)} pages: open {directory}/index.html\n", "") == capsys.readouterr()


@pytest.mark.usefixtures("few")
def test_the_directory_has_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where none is named, the directory is nsqlite-docs."""
    monkeypatch.chdir(tmp_path)
    assert 0 == main(["docs"])
    assert content(tmp_path / "nsqlite-docs") == PAGES


@pytest.mark.usefixtures("few")
def test_the_list_has_checksums(tmp_path: Path) -> None:
    """What was written is listed as sha256sum has it."""
    assert 3 == write_docs(str(tmp_path))
    for line in (tmp_path / LIST).read_text("utf-8").splitlines():
        checksum, name = line.split("  ")
        assert checksum == hashlib.sha256((tmp_path / name).read_bytes()).hexdigest()


def test_earlier_pages_are_replaced(tmp_path: Path, few: dict[str, str]) -> None:
    """A later call replaces its own pages, and removes those that there are no more."""
    write_docs(str(tmp_path))
    del few["nsqlite/aio.html"]
    few["index.html"] = "second"
    (tmp_path / "nsqlite.html").unlink()
    assert 2 == write_docs(str(tmp_path))
    assert few == content(tmp_path)


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize("name", ["notes.txt", "nsqlite.html", "nsqlite/aio.html"])
def test_a_foreign_file_is_left_alone(tmp_path: Path, name: str) -> None:
    """Where a file is that this did not write, nothing is written."""
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("mine")
    problem = f"{path} is in the way: remove it, or name another directory"
    assert problem == refused(tmp_path)
    assert {name: "mine"} == content(tmp_path)
    assert not (tmp_path / LIST).exists()


@pytest.mark.usefixtures("few")
def test_a_file_beside_the_pages_is_left_alone(tmp_path: Path) -> None:
    """A file that somebody has put beside the pages keeps them all as they are."""
    write_docs(str(tmp_path))
    (tmp_path / "notes.txt").write_text("mine")
    assert f"{tmp_path}/notes.txt is in the way: " in refused(tmp_path)
    assert {**PAGES, "notes.txt": "mine"} == content(tmp_path)


@pytest.mark.usefixtures("few")
def test_a_changed_page_is_left_alone(tmp_path: Path) -> None:
    """A page that somebody has changed is not overwritten."""
    write_docs(str(tmp_path))
    (tmp_path / "index.html").write_text("mine")
    problem = f"{tmp_path}/index.html was changed: remove it, or name another directory"
    assert problem == refused(tmp_path)
    assert {**PAGES, "index.html": "mine"} == content(tmp_path)


@pytest.mark.usefixtures("few")
def test_a_link_is_no_page(tmp_path: Path) -> None:
    """A link in the place of a page, or of their folder, leads to what is not touched."""
    outside = tmp_path / "outside"
    directory = tmp_path / "docs"
    write_docs(str(outside))
    write_docs(str(directory))
    (directory / "index.html").unlink()
    (directory / "index.html").symlink_to(outside / "index.html")
    assert f"{directory}/index.html was changed: " in refused(directory)
    (directory / "index.html").unlink()
    (directory / "nsqlite/aio.html").unlink()
    (directory / "nsqlite").rmdir()
    (directory / "nsqlite").symlink_to(outside / "nsqlite")
    assert f"{directory}/nsqlite is in the way: " in refused(directory)
    assert PAGES == content(outside)


@pytest.mark.usefixtures("few")
def test_what_is_no_directory_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file or a broken link in the place of the directory gets one line and status 1."""
    file, link = tmp_path / "file", tmp_path / "link"
    file.write_text("mine")
    link.symlink_to(tmp_path / "nowhere")
    below = file / "docs"
    for path, text in (
        (file, "Not a directory"),
        (link, "No such file or directory"),
        (below, "Not a directory"),
    ):
        with pytest.raises(SystemExit) as ending:
            main(["docs", str(path)])
        assert 1 == ending.value.code
        assert (
            "",
            f"python -m nsqlite docs: {path} cannot be written: {text}\n",
        ) == capsys.readouterr()
    assert "mine" == file.read_text()


def test_without_pdoc_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without the extra the command says which one it is, with status 2, and writes nothing."""
    monkeypatch.setitem(sys.modules, "nsqlite.cli.manual", None)
    with pytest.raises(SystemExit) as ending:
        main(["docs", str(tmp_path / "docs")])
    assert 2 == ending.value.code
    text = "needs pdoc, which is not installed: pip install 'nsqlite[docs]'"
    assert ("", f"python -m nsqlite docs: {text}\n") == capsys.readouterr()
    assert [] == list(tmp_path.iterdir())
