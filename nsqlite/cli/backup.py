"""`python -m nsqlite backup`: a copy of a store's file.

The rule: nothing is copied of which nothing could be said.

Next: cli/taken.py
"""

from pathlib import Path

from nsqlite.cli.failure import opened_stdout
from nsqlite.cli.progress import progress
from nsqlite.store.backup import copy_file, require_file


def backup(path: str, copy: str, *, wanted: bool | None) -> int:
    """Copy a file, which may be in use.

    Args:
        path: the file.
        copy: the copy; a file that is there already is left alone.
        wanted: whether to show how far it is; None leaves it to the terminal.

    Returns:
        The size of the copy in bytes.

    Raises:
        CommandFailed: it is to be shown how far it is, and cannot be.
        StoreError: see `copy_file`.
        OSError: stdout is closed.
    """
    opened_stdout()
    require_file(path)
    about = Path(path).stat().st_size
    with progress("backup", "bytes", about, wanted) as tell:
        told = 0

        def hear(copied: int, _total: int) -> None:
            nonlocal told
            tell(copied - told)
            told = copied

        return copy_file(path, copy, hear)
