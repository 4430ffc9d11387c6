"""The README: what it shows runs, and prints what it says."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

README = Path(__file__).parent.parent / "README.md"
BLOCKS = re.findall(
    r"^```python\n(.*?)^```", README.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
)


@pytest.mark.parametrize("code", BLOCKS, ids=range(len(BLOCKS)))
def test_code_runs(code: str) -> None:
    """Each block runs alone, without a warning, and prints what its comments say."""
    done = subprocess.run(  # noqa: S603 - the README's own code
        [sys.executable, "-W", "error", "-c", code],
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


def test_the_two_commands() -> None:
    """There are two commands, each one line: one works, one tests."""
    text = README.read_text(encoding="utf-8")
    commands = re.findall(r"^python3 -m venv \.venv && .*$", text, re.MULTILINE)
    assert ["text_statistics.py", "pytest -q"] == [
        command.split("/")[-1].removeprefix("python -m ") for command in commands
    ]
