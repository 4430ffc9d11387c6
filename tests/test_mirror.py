"""Each module has its test file, and each test file its module."""

import ast
from pathlib import Path
from typing import Final

import nsqlite

PACKAGE: Final = Path(nsqlite.__file__).parent
TESTS: Final = Path(__file__).parent

ELSEWHERE: Final = {
    "__init__.py": "test_init.py",  # the same name without underscores
    "__main__.py": "test_main.py",  # the same
    "_version.py": "test_init.py",  # one constant, which the package shows
    "aio/__init__.py": "aio/test_contract.py",  # nothing but names, those of the other face
    "cli/__init__.py": "cli/test_demo.py",  # nothing but a docstring
    "store/__init__.py": "store/test_sqlite.py",  # nothing but names
    "worker/__init__.py": "worker/test_app.py",  # nothing but names
    "wire/__init__.py": "wire/test_go.py",  # nothing but a docstring
    "server/__init__.py": "server/test_nsqd.py",  # nothing but names
    "timeline/__init__.py": "timeline/test_recorder.py",  # nothing but names
    "testing/__init__.py": "testing/test_manualclock.py",  # nothing but names
    "testing/simulation/__init__.py": "testing/simulation/test_simulation.py",  # nothing but names
    "testing/clients/__init__.py": "testing/clients/test_delivery.py",  # nothing but names
}
"""Modules whose tests stand in another file, with the reason."""

WITHOUT_A_MODULE: Final = {
    "test_bench.py": "the benchmarks",
    "test_examples.py": "the examples",
    "test_layers.py": "what imports what",
    "test_mirror.py": "the test files",
    "test_notebook.py": "the notebook of the examples",
    "test_readme.py": "the README and the guide",
    "test_reading_order.py": "the order of the source",
    "test_repr_html.py": "what a notebook shows of all that has a table",
    "test_semantics.py": "the documents of what NSQ does",
    "test_surface.py": "the public names of all modules",
    "server/test_authorising.py": "AUTH, where connections, auth servers and their answers meet",
    "server/test_upgrades.py": "TLS and compression, where they meet connections",
    "timeline/test_browser.py": "pages of timelines in a real browser",
    "store/test_acknowledged.py": "what a store has promised, where its modules meet",
    "test_typing.py": "what type checkers say of programs that use it",
}
"""Test files that belong to no module, with what they are about."""

FOLDERS: Final = {
    "compat": "with other programs, in processes of their own",
    "stateful": "whole brokers: beside a model, under signals and forks, in many threads",
}
"""Folders whose test files belong to no module, with what they are about."""


def relative(folder: Path, pattern: str) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob(pattern))


def mirror_of(module: str) -> str:
    """Return where the tests of a module stand if it is no exception."""
    path = Path(module)
    return (path.parent / f"test_{path.name}").as_posix()


def test_every_module_has_its_test_file() -> None:
    """The tests of a module are in a file of its name at the same path, but for a few."""
    modules = relative(PACKAGE, "*.py")
    wanted = [ELSEWHERE.get(module) or mirror_of(module) for module in modules]
    assert [] == [name for name in wanted if not (TESTS / name).is_file()]


def test_every_test_file_has_its_module() -> None:
    """A test file is that of a module, or one of a few that belong to none."""
    modules = relative(PACKAGE, "*.py")
    mirrored = {mirror_of(module) for module in modules} | set(ELSEWHERE.values())
    files = {name for name in relative(TESTS, "test_*.py") if name.split("/")[0] not in FOLDERS}
    assert set(WITHOUT_A_MODULE) == files - mirrored
    assert [] == [
        name for name in FOLDERS if not (TESTS / name).is_dir() or (PACKAGE / name).exists()
    ]


def test_every_exception_is_a_module() -> None:
    """No exception is left of a module that has gone, or has a test file of its own."""
    assert set(ELSEWHERE) <= set(relative(PACKAGE, "*.py"))
    assert [] == [module for module in ELSEWHERE if (TESTS / mirror_of(module)).is_file()]


def test_packages_below_hold_no_code() -> None:
    """The packages of the package hold a docstring, imports and the list of their names."""
    for module in relative(PACKAGE, "*/__init__.py"):
        _docstring, *rest = ast.parse((PACKAGE / module).read_text("utf-8")).body
        for node in rest:
            names = ast.unparse(node).startswith("__all__ = ")
            assert names or isinstance(node, ast.Import | ast.ImportFrom), module
