"""The source can be read from its first file to its last: each docstring names the next."""

import ast
import re
from pathlib import Path
from typing import Final

import nsqlite

PACKAGE: Final = Path(nsqlite.__file__).parent
FILES: Final = sorted(path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py"))
THE_END: Final = "the end"


def docstring(name: str) -> str:
    return ast.get_docstring(ast.parse((PACKAGE / name).read_text("utf-8"))) or ""


def following(name: str) -> str:
    """Return what the last line of a file's docstring names."""
    last = docstring(name).rpartition("\n")[2]
    match = re.fullmatch(r"Next: (.+)", last)
    assert match, f"the docstring of {name} ends with {last!r}"
    return match[1]


def chain() -> list[str]:
    """Return the files in their order."""
    names = ["__init__.py"]
    while (name := following(names[-1])) != THE_END:
        assert name not in names, f"{names[-1]} leads back to {name}"
        names.append(name)
    return names


def imported(name: str) -> set[str]:
    """Return the files that a file imports something from by their module's name."""
    tree = ast.parse((PACKAGE / name).read_text("utf-8"))
    modules = {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    paths = {module.removeprefix("nsqlite.").replace(".", "/") + ".py" for module in modules}
    return paths & set(FILES)


def test_the_chain_goes_through_every_file() -> None:
    """From the package's first file to the end every file is named once."""
    assert sorted(chain()) == FILES


def test_every_docstring_names_one_file() -> None:
    """A docstring says what comes next once, in its last line, after an empty one."""
    for name in FILES:
        lines = docstring(name).split("\n")
        nexts = [line for line in lines if line.strip().startswith("Next:")]
        assert ([lines[-1]], "") == (nexts, lines[-2]), name


def test_a_file_comes_after_those_that_it_rests_on() -> None:
    """A reader has read what a module imports; only those that begin a folder come before."""
    names = chain()
    for place, name in enumerate(names):
        if not Path(name).name.startswith("__"):
            assert imported(name) <= set(names[:place]), name
