"""What type checkers say of programs that use nsqlite, and of its public names.

`tests/typing` has programs as users write them.  Each runs, passes `mypy --strict` and pyright's
strict mode, and has a function of mistakes, never called, which these must refuse: a line that ends
in ``# error: call-arg, reportCallIssue`` says with what, mypy's codes first.

mypy and pyright come with the extra `dev`; without them these tests are skipped.  Where
`NSQLITE_TYPING=required` is set, as in CI, they fail instead.
"""

import importlib
import importlib.util
import inspect
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import pytest

import nsqlite

ROOT: Final = Path(nsqlite.__file__).parent.parent
FILES: Final = sorted(Path(__file__).with_name("typing").glob("*.py"))
MARK: Final = re.compile(r"# error: ([\w-]+(?:, [\w-]+)*)$")
PUBLIC: Final = ("nsqlite", "nsqlite.aio", "nsqlite.worker", "nsqlite.store", "nsqlite.testing")
ENVIRONMENT: Final = os.environ | {"MYPYPATH": str(ROOT), "PYTHONPATH": str(ROOT)}


def run(*command: str | Path, folder: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # noqa: S603 - our own interpreter
        [sys.executable, *command],
        capture_output=True,
        check=False,
        cwd=folder,
        encoding="utf-8",
        env=ENVIRONMENT,
        timeout=300,
    )


def require(checker: str) -> None:
    """Skip a test without its checker; fail it where that is required."""
    if importlib.util.find_spec(checker) is None:
        why = f"{checker} is missing: pip install 'nsqlite[dev]'"
        if os.environ.get("NSQLITE_TYPING") == "required":
            pytest.fail(why)
        pytest.skip(why)


def marks(*, of_pyright: bool) -> set[str]:
    """Return the errors that the programs say they have, as ``file:line code``."""
    return {
        f"{path.name}:{number} {code}"
        for path in FILES
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1)
        if (mark := MARK.search(line))
        for code in mark[1].split(", ")
        if code.startswith("report") == of_pyright
    }


def differences(marked: set[str], reported: dict[str, str]) -> str:
    """Return what a checker did not find, and what it found beside."""
    missed = [f"{mark}: not found" for mark in marked - set(reported)]
    more = [f"{report}: {text}" for report, text in reported.items() if report not in marked]
    return "\n".join(sorted(missed + more))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with the programs, as a user's project has them."""
    for path in FILES:
        shutil.copy(path, tmp_path)
    return tmp_path


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_what_is_typed_runs(path: Path) -> None:
    """Each program does without a warning what its types say."""
    done = run("-W", "error", path)
    assert (0, "") == (done.returncode, done.stderr)


def test_every_program_has_mistakes() -> None:
    """Each program says of some lines that mypy, and of some that pyright, must refuse them."""
    for of_pyright in (False, True):
        with_marks = {mark.partition(":")[0] for mark in marks(of_pyright=of_pyright)}
        assert {path.name for path in FILES} == with_marks


def test_mypy_finds_the_mistakes_and_nothing_else(folder: Path) -> None:
    """`mypy --strict` reports what the programs say, line by line."""
    require("mypy")
    options = ("--strict", "--config-file=", "--cache-dir=cache", "--output=json")
    done = run("-m", "mypy", *options, *(path.name for path in FILES), folder=folder)
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert (1, "") == (done.returncode, done.stderr)
    reported = {
        f"{error['file']}:{error['line']} {error['code']}": error["message"]
        for error in found
        if error["severity"] == "error"
    }
    wrong = differences(marks(of_pyright=False), reported)
    assert not wrong, wrong


def test_pyright_finds_the_mistakes_and_nothing_else(folder: Path) -> None:
    """Pyright's strict mode reports what the programs say, line by line."""
    require("pyright")
    (folder / "pyrightconfig.json").write_text('{"typeCheckingMode": "strict"}', "utf-8")
    done = run("-m", "pyright", "--outputjson", "--pythonpath", sys.executable, folder=folder)
    marked = marks(of_pyright=True)
    lines = {mark.partition(" ")[0] for mark in marked}
    reported: dict[str, str] = {}
    for error in json.loads(done.stdout)["generalDiagnostics"]:
        where = f"{Path(error['file']).name}:{error['range']['start']['line'] + 1}"
        if where in lines and error["rule"].startswith("reportUnknown"):
            continue  # of a wrong name the type is not known either
        reported[f"{where} {error['rule']}"] = error["message"]
    wrong = differences(marked, reported)
    assert not wrong, wrong


# The public names


def public_names() -> set[str]:
    """Return the public names, also as the modules have them that define them."""
    names: set[str] = set()
    for module in map(importlib.import_module, PUBLIC):
        for name in module.__all__:
            value = getattr(module, name)
            if inspect.ismodule(value):
                continue
            names.add(f"{module.__name__}.{name}")
            bases = inspect.getmro(value) if inspect.isclass(value) else (value,)
            names |= {f"{base.__module__}.{base.__qualname__}" for base in bases if is_ours(base)}
    return names


def is_ours(value: Any) -> bool:
    home = str(getattr(value, "__module__", ""))
    return home.partition(".")[0] == "nsqlite" and hasattr(value, "__qualname__")


def test_the_type_of_every_public_name_is_known() -> None:
    """`pyright --verifytypes` knows the type of each public name and of all that it shows.

    What it shows are its public attributes, and what these are made of in turn; so an attribute
    without an underscore and without a type is named here though its class is not public.
    """
    require("pyright")
    options = ("--verifytypes", "nsqlite", "--ignoreexternal", "--outputjson")
    done = run("-m", "pyright", *options, "--pythonpath", sys.executable)
    symbols = json.loads(done.stdout)["typeCompleteness"]["symbols"]
    names = public_names()
    shown = [s for s in symbols if any(f"{s['name']}.".startswith(f"{name}.") for name in names)]
    assert len(names) <= len(shown)
    unknown = [symbol["name"] for symbol in shown if not symbol["isTypeKnown"]]
    causes = [
        f"{symbol['name']}: {' '.join(problem['message'].split())}"
        for symbol in symbols
        for problem in symbol["diagnostics"]
        if "partially unknown" not in problem["message"]  # which follows from another cause
    ]
    assert not unknown, "\n".join(
        ["not known:", *unknown, "of which the causes are among:", *causes]
    )
