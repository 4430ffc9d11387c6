"""Running an app from the command line: `nsqlite run shop:app --store jobs.db`.

The rule: what is wrong with the call is told in one line; what the program's own code raises is
shown as Python shows it; and a broker is opened only when there is an app to run.

Next: cli/goflags.py
"""

import importlib
import logging
import os
import pkgutil
import sys
import traceback
from argparse import ArgumentTypeError
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, Final, Literal

from nsqlite.broker import Broker
from nsqlite.cli.failure import CommandFailed, WrongCall
from nsqlite.errors import NSQLiteError
from nsqlite.events import Observer
from nsqlite.options import nearest
from nsqlite.store.controllines import has_sockets
from nsqlite.store.newfile import BESIDE
from nsqlite.store.sqlite import SQLite
from nsqlite.timeline.recording import SIZE, Recording
from nsqlite.worker.app import App
from nsqlite.worker.handler import accepts

log: Final = logging.getLogger("nsqlite")

CODECS: Final[dict[str, Literal["json", "pickle"] | None]] = {
    "json": "json",
    "pickle": "pickle",
    "none": None,
}
"""What `--codec` takes, and what a store is given for it."""

LEVELS: Final = ("debug", "info", "warning", "error")
"""What `--log-level` takes."""

PATIENCE: Final = 5.0
"""Seconds to wait for a file that the program before, or a command, still has."""

FORMAT: Final = "%(asctime)s %(levelname)s %(name)s: %(message)s"
"""A line of the log."""


def reference(text: str) -> tuple[str, str]:
    """Return the module and the attribute that ``MODULE:APP`` names; for `argparse`.

    Raises:
        ArgumentTypeError: it has another form.
    """
    module, _, attribute = text.partition(":")
    if not all(part.isidentifier() for part in (*module.split("."), *attribute.split("."))):
        raise ArgumentTypeError(f"{text!r} is not MODULE:APP, as shop:app is")
    return module, attribute


def run_app(
    module: str,
    attribute: str,
    *,
    store: str | None,
    codec: str,
    log_level: str,
    record: str | None,
    record_size: int | None,
) -> None:
    """Run an app until SIGINT or SIGTERM.

    Args:
        module: where the app is; looked for in the current directory, too.
        attribute: its name there, with dots; or that of a function which returns it.
        store: the file of the broker's store, None for a broker in memory.
        codec: one of `CODECS`.
        log_level: one of `LEVELS`; the log goes to stderr, unless the module sets that up itself.
        record: the file of a recording of what happens; None for none.
        record_size: how many bytes it may have; None for what is usual.

    Raises:
        WrongCall: there is a size without a recording.
        CommandFailed: there is no such app, the files cannot be used, or a worker has ended by
            itself, also by a `SystemExit` that says that all is well.
        SystemExit: the program's own code has raised while it was imported or made the app, which
            was shown.
        BaseException: what a handler raised that is no `Exception`.
    """
    if record is None and record_size is not None:
        raise WrongCall("--record-size is of the file that --record names; try --help")
    if store is not None and record is not None:
        _require_two(store, record)
    app = find_app(module, attribute)
    logging.basicConfig(level=log_level.upper(), format=FORMAT)  # unless the module has done so
    if store is None:
        log.info("without --store the messages are in memory: they end with this process")
    try:
        app._require_handlers()
        with (
            recorded(record, record_size) as observers,
            open_broker(store, codec, observers) as broker,
        ):
            app.run(broker)
    except NSQLiteError as error:
        raise CommandFailed(str(error)) from None
    except SystemExit as ending:
        if ending.code:
            raise
        raise CommandFailed("a handler has ended it by SystemExit") from None


def _require_two(store: str, record: str) -> None:
    """Check that a recording is written beside the store, and not into it.

    Raises:
        CommandFailed: one of its files would be that of the store.
    """
    taken = {f"{os.path.realpath(store)}{ending}" for ending in ("", *BESIDE, "-owner")}
    if taken & {os.path.realpath(f"{record}{half}") for half in ("", ".1")}:
        text = f"--store {store} and --record {record} would write the same file: name another one"
        raise CommandFailed(text)


@contextmanager
def recorded(path: str | None, size: int | None) -> Iterator[Sequence[Observer]]:
    """Open a recording if there is to be one, and close it at the end.

    Returns:
        The observers that a broker is given.

    Raises:
        RecordingError: it cannot be written.
    """
    if path is None:
        yield ()
        return
    with Recording(path, size=SIZE if size is None else size) as recording:
        yield (recording,)


def open_broker(path: str | None, codec: str, observers: Sequence[Observer] = ()) -> Broker:
    """Return the broker that an app is run with; it listens for other processes, if it has a file.

    Raises:
        StoreError: the file cannot be opened.
        InvalidOption: the path is none of a file.
    """
    if path is None:
        return Broker(observers=observers)
    store = SQLite(path, codec=CODECS[codec], control=has_sockets(), wait=PATIENCE)
    return Broker(store=store, observers=observers)


def find_app(module: str, attribute: str) -> App:
    """Import a module, and return its app.

    Raises:
        CommandFailed: there is no such module or attribute, with the nearest that there is; or it
            is no app, nor a function that returns one.
        SystemExit: the program's own code has raised, which was shown.
    """
    directory = str(Path.cwd())
    if directory not in sys.path:  # called with -m it is there
        sys.path.insert(0, directory)
    with _shown():
        found: Any = _imported(module)
        where = module
        for name in attribute.split("."):
            if not hasattr(found, name):
                raise CommandFailed(f"{where} has no {name!r}{nearest(name, dir(found))}")
            found, where = getattr(found, name), f"{where}.{name}"
        if callable(found) and accepts(found, 0):
            found = found()
    if not isinstance(found, App):
        expected = "no nsqlite.App, nor a function without arguments that returns one"
        raise CommandFailed(f"{where} is {expected}: it is of {type(found).__qualname__!r}")
    return found


def _imported(name: str) -> ModuleType:
    """Import a module.

    Raises:
        CommandFailed: there is none of this name, or no package that it is to be in.
        Exception: what the module raised, as where it imports what is not there.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing = error.name
        if missing is None or not f"{name}.".startswith(f"{missing}."):
            raise
    raise CommandFailed(f"there is no module {missing!r}{nearest(missing, _modules(missing))}")


def _modules(name: str) -> list[str]:
    """Return the modules that there are where one was looked for."""
    parent = name.rpartition(".")[0]
    if not parent:
        return [module.name for module in pkgutil.iter_modules()]
    path = getattr(sys.modules.get(parent), "__path__", ())
    return [parent, *(f"{parent}.{module.name}" for module in pkgutil.iter_modules(path))]


@contextmanager
def _shown() -> Iterator[None]:
    """Show what the program's own code raises, and end with status 1.

    Raises:
        CommandFailed: it is ours.
        SystemExit: an exception was shown.
    """
    try:
        yield
    except CommandFailed:
        raise
    except Exception:
        traceback.print_exc()
        raise SystemExit(1) from None
