"""The notebook of the examples: it runs in a kernel, and shows what is kept in it.

After a change that is meant, run it and write its outputs anew:

    python tests/test_notebook.py

nbclient and ipykernel come with the extra `dev`; without them it is skipped.  Where
`NSQLITE_NOTEBOOK=required` is set, as in CI, it fails instead.
"""

import importlib
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import pytest

import nsqlite

ROOT: Final = Path(nsqlite.__file__).parent.parent
NOTEBOOK: Final = Path(__file__).parent.parent / "examples" / "notebook.ipynb"
NEEDED: Final = ("nbclient", "ipykernel")


def executed(path: Path) -> dict[str, Any]:
    """Run a notebook in a kernel of its own, and return it with its outputs."""
    nbformat = importlib.import_module("nbformat")
    nbclient = importlib.import_module("nbclient")
    notebook = nbformat.read(path, as_version=4)
    metadata = dict(notebook.metadata)
    client = nbclient.NotebookClient(notebook, timeout=60, record_timing=False)
    client.execute()
    notebook.metadata = metadata  # without the version of this Python
    found: dict[str, Any] = json.loads(nbformat.writes(notebook))
    return found


def outputs(notebook: dict[str, Any]) -> dict[str, Any]:
    """Return what the cells show, by what is in them."""
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    return {"".join(cell["source"]): cell["outputs"] for cell in cells}


def test_the_notebook_shows_what_it_says() -> None:
    """Run from its first cell to its last, it shows what is kept in it."""
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        why = f"{missing[0]} is missing: pip install 'nsqlite[dev]'"
        if os.environ.get("NSQLITE_NOTEBOOK") == "required":
            pytest.fail(why)
        pytest.skip(why)
    done = subprocess.run(  # noqa: S603 - our own interpreter, without what pytest has set up
        [sys.executable, __file__, "--show"],
        capture_output=True,
        check=False,
        encoding="utf-8",
        env=os.environ | {"PYTHONPATH": str(ROOT), "PYTHONUTF8": "1"},
        timeout=120,
    )
    assert 0 == done.returncode, done.stderr
    kept = json.loads(NOTEBOOK.read_text("utf-8"))
    assert outputs(kept) == outputs(json.loads(done.stdout))


if __name__ == "__main__":
    text = json.dumps(executed(NOTEBOOK), indent=1, ensure_ascii=False) + "\n"
    if sys.argv[1:] == ["--show"]:
        sys.stdout.write(text)
    else:
        NOTEBOOK.write_text(text, "utf-8")
