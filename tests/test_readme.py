"""The README and the guide: what they show runs and prints what they say, and links lead there."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

import nsqlite

ROOT: Final = Path(__file__).parent.parent
README: Final = ROOT / "README.md"
GUIDE: Final = Path(nsqlite.__file__).with_name("guide.md")
DOCUMENTS: Final = [GUIDE.with_name(f"{name}.md") for name in ("semantics", "wire", "http")]
BLOCKS: Final = [
    pytest.param(code, id=f"{path.stem}-{number}")
    for path in (README, GUIDE)
    for number, code in enumerate(
        re.findall(r"^```python\n(.*?)^```", path.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    )
]


def places(path: Path) -> set[str]:
    """Return what a link to a place in a document can name: its headings, as on a page."""
    headings = re.findall(r"^#+ (.+)$", path.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


PYNSQ: Final = ("-W", "ignore:There is no current event loop:DeprecationWarning")
"""What tornado does for pynsq, of which CPython 3.12 warns."""


@pytest.mark.parametrize("code", BLOCKS)
def test_code_runs(code: str, tmp_path: Path) -> None:
    """Each block runs alone, without a warning, and prints what its comments say.

    One that takes a fixture is run by pytest.  One that imports what does not come with the package
    runs where that is installed.
    """
    arguments = ["-c", code]
    if re.search(r"def test_\w+\((fake_broker|nsqd)", code):
        file = tmp_path / "test_it.py"
        file.write_text(code)
        (tmp_path / "pytest.ini").write_text("[pytest]")
        arguments = ["-m", "pytest", "-q", "-p", "no:asyncio", "-p", "no:cacheprovider", str(file)]
    for library in re.findall(r"^import (ansq|nsq)\b", code, re.MULTILINE):
        pytest.importorskip(library)
    done = subprocess.run(  # noqa: S603 - our own code
        [sys.executable, "-W", "error", *(PYNSQ if "import nsq " in code else ()), *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    for line in re.findall(r"print\(.*\)  # (.*)$", code, re.MULTILINE):
        assert line in done.stdout.splitlines()


def test_there_is_code_early() -> None:
    """The first code stands before line 25."""
    lines = README.read_text(encoding="utf-8").splitlines()
    assert lines.index("```python") < 24


def test_the_readme_is_short() -> None:
    """The README has fewer than 300 lines; what is more belongs into the guide."""
    assert len(README.read_text("utf-8").splitlines()) < 300


def test_the_two_commands() -> None:
    """There are two commands, each one line: one works, one tests."""
    text = README.read_text(encoding="utf-8")
    commands = re.findall(r"^python3 -m venv \.venv && .*$", text, re.MULTILINE)
    assert ["text_statistics.py", "pytest -q"] == [
        command.split("/")[-1].removeprefix("python -m ") for command in commands
    ]


@pytest.mark.parametrize("path", [README, GUIDE, *DOCUMENTS], ids=lambda path: path.stem)
def test_every_link_leads_somewhere(path: Path) -> None:
    """A link to a file leads to one that is there, and to a heading in it."""
    for link in re.findall(r"\]\(([^)]+)\)", path.read_text("utf-8")):
        if link.startswith("https://"):
            continue
        name, _, place = link.partition("#")
        target = path.parent / name if name else path
        assert target.is_file(), link
        assert not place or place in places(target), link


@pytest.mark.parametrize("path", [README, GUIDE], ids=lambda path: path.stem)
def test_every_name_of_the_package_is_one(path: Path) -> None:
    """What is called by the package's name is there."""
    names = set(re.findall(r"\bnsqlite\.([A-Za-z]\w+)", path.read_text("utf-8")))
    assert names - set(nsqlite.__all__) <= {"events", "server"}
