"""`python -m nsqlite docs`: the documents and the API reference as pages that need no network.

The rule: nothing is overwritten or removed but what this command has written, and nobody has
changed since.

What was written is listed in the directory itself, with checksums.  The list is written before the
pages, so that one that was not finished can be told from what somebody else has put there.

Next: cli/run.py
"""

import hashlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from nsqlite.cli.failure import CommandFailed, NotInstalled, why

LIST: Final = "nsqlite-docs.sha256"
"""The list of what was written, as `sha256sum --check` reads it."""


def write_docs(directory: str) -> int:
    """Write the pages into a directory, in the place of those that an earlier call has written.

    Args:
        directory: one that is empty, that this has written, or that is not there yet.

    Returns:
        How many pages there are.

    Raises:
        NotInstalled: there is nothing to make pages with.
        CommandFailed: the directory has other files in it, or cannot be written.
    """
    pages = {name: text.encode() for name, text in _pages().items()}
    try:
        _replace(Path(directory), pages)
    except OSError as error:
        raise CommandFailed(f"{directory} cannot be written: {why(error)}") from None
    return len(pages)


def _pages() -> dict[str, str]:
    """Make the pages.

    Raises:
        NotInstalled: the extra is not there.
    """
    try:
        from nsqlite.cli.manual import pages  # noqa: PLC0415 - an extra, and slow to load
    except ImportError:
        text = "needs pdoc, which is not installed: pip install 'nsqlite[docs]'"
        raise NotInstalled(text) from None
    return pages()


def _replace(directory: Path, pages: Mapping[str, bytes]) -> None:
    """Write files into a directory in the place of earlier ones.

    Raises:
        CommandFailed: there are others.
        OSError: it cannot be read or written.
    """
    earlier = list(_files(directory)) if os.path.lexists(directory) else []
    _check(directory, earlier)
    for path in earlier:
        if path.name != LIST:  # which stays until there is another
            path.unlink()
    directory.mkdir(parents=True, exist_ok=True)
    sums = [f"{hashlib.sha256(data).hexdigest()}  {name}\n" for name, data in pages.items()]
    (directory / LIST).write_text("".join(sums), "utf-8")
    for name, data in pages.items():
        path = directory / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)


def _check(directory: Path, earlier: list[Path]) -> None:
    """Make sure that what is in a directory was written by this command.

    Raises:
        CommandFailed: a file was not, or has been changed.
    """
    listed = _listed(directory)
    for path in earlier:
        name = path.relative_to(directory).as_posix()
        if name != LIST and (name not in listed or listed[name] != _sum(path)):
            what = "was changed" if name in listed else "is in the way"
            raise CommandFailed(f"{path} {what}: remove it, or name another directory")


def _listed(directory: Path) -> dict[str, str]:
    """Return the checksums of what was written, by name; none where nothing was."""
    try:
        lines = (directory / LIST).read_text("utf-8", "replace").splitlines()
    except FileNotFoundError:
        return {}
    return {name: checksum for checksum, _, name in (line.partition("  ") for line in lines)}


def _sum(path: Path) -> str | None:
    """Return a file's checksum, None for what is no file."""
    if path.is_symlink() or not path.is_file():
        return None
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _files(directory: Path) -> Iterator[Path]:
    """Go through all that is in a directory and its folders, but for folders.

    Raises:
        OSError: it is no directory, or cannot be read.
    """
    for entry in sorted(directory.iterdir()):
        if entry.is_dir() and not entry.is_symlink():
            yield from _files(entry)
        else:
            yield entry
