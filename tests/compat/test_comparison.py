"""The same five tests with nsqlite, dramatiq's StubBroker and pytest-pubsub: how long each is.

Lines are those of the body of a function as `ruff format` leaves it, and one for its ``def``, so
that annotations do not count; imports and docstrings count nowhere.
"""

import ast
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

import nsqlite

HERE = Path(__file__).parent
GUIDE = Path(nsqlite.__file__).with_name("guide.md")

PROGRAMS = ("test_five_nsqlite.py", "five_dramatiq.py", "five_pubsub.py")

TITLES = {
    "test_published": "published",
    "test_retried_after_a_delay": "retried after a delay",
    "test_dead_lettered": "dead-lettered",
    "test_timed_out_and_redelivered": "timed out and redelivered",
    "test_fail_fast": "fail fast",
}

TABLE = """\
| Lines of | nsqlite | dramatiq | pytest-pubsub |
|---|---|---|---|
| published | 3 | 4 | 4 |
| retried after a delay | 5 | 8 | cannot |
| dead-lettered | 5 | 6 | cannot |
| timed out and redelivered | 5 | 6 | cannot |
| fail fast | 5 | 5 | 6 |
| fixtures of one's own | 4 | 9 | 5 |
"""
"""What the guide shows."""


def functions(program: str) -> list[ast.FunctionDef]:
    tree = ast.parse((HERE / program).read_text("utf-8"))
    return [node for node in tree.body if isinstance(node, ast.FunctionDef)]


def lines_of(function: ast.FunctionDef) -> int:
    last = function.body[-1].end_lineno
    assert last is not None
    return 1 + last - function.body[0].lineno + 1


def lines_by_test(program: str) -> dict[str, int]:
    """Return the lines of each test."""
    return {one.name: lines_of(one) for one in functions(program) if one.name.startswith("test_")}


def fixtures_of(program: str) -> int:
    """Return the lines of all fixtures."""
    return sum(
        lines_of(one)
        for one in functions(program)
        if any(ast.unparse(decorator) == "pytest.fixture" for decorator in one.decorator_list)
    )


def row(title: str, cells: list[object]) -> str:
    return f"| {' | '.join([title, *map(str, cells)])} |\n"


def table() -> str:
    """Return the table as it is."""
    lines = [lines_by_test(program) for program in PROGRAMS]
    rows = [
        row(title, [one.get(name, "cannot") for one in lines]) for name, title in TITLES.items()
    ]
    head = TABLE.splitlines(keepends=True)[:2]
    return "".join([*head, *rows, row("fixtures of one's own", list(map(fixtures_of, PROGRAMS)))])


def test_the_table_is_as_the_programs_are() -> None:
    """The table counts what stands in the three files, and the guide has that table."""
    assert TABLE == table()
    guide = GUIDE.read_text("utf-8")
    assert TABLE in guide or "StubBroker" not in guide


def test_none_is_shorter() -> None:
    """Each test takes no more lines than the shorter of the others, if there is one."""
    ours, *others = map(lines_by_test, PROGRAMS)
    for name, lines in ours.items():
        assert lines <= min(one[name] for one in others if name in one), name
    assert list(TITLES) == list(ours)


@pytest.mark.parametrize(
    ("program", "module"), [("five_dramatiq.py", "dramatiq"), ("five_pubsub.py", "pytest_pubsub")]
)
def test_the_others_pass(program: str, module: str) -> None:
    """What is counted works, where it is installed."""
    if find_spec(module) is None:
        pytest.skip(f"{module} is not installed; its tests are only counted")
    options = ["-q", "--noconftest", "-p", "no:cacheprovider", "-c", os.devnull]
    command = [sys.executable, "-m", "pytest", *options, str(HERE / program)]
    subprocess.run(command, check=True, timeout=60)  # noqa: S603 - our own interpreter
