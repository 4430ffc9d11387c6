"""Imports point down, the core needs little, and importing it does nothing else."""

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from importlib.util import resolve_name
from pathlib import Path
from typing import Final

import pytest

import nsqlite

PACKAGE: Final = Path(nsqlite.__file__).parent

LAYERS: Final = (
    ("_version", "errors"),
    ("names",),
    ("options",),
    ("clock", "events"),
    ("lock", "timerwheel", "delayqueue"),
    ("ids", "monitor", "origin"),
    ("message",),
    ("waiting", "latency"),
    ("stats", "persistence"),
    ("queue",),
    ("channel", "fanout"),
    ("topic",),
    ("consumer",),
    ("broker",),
    ("",),
    ("aio.waiting",),
    ("aio.consumer", "aio.publish"),
    ("aio",),
    ("worker.backoff", "worker.handler", "worker.failure", "worker.outcome"),
    ("worker.retry", "worker.deadletter", "worker.middleware"),
    ("worker.plan",),
    ("worker.flow_control",),
    ("worker.settling", "worker.stats"),
    ("worker.supervisor",),
    ("worker.threads", "worker.tasks"),
    ("worker.caller",),
    ("worker.worker",),
    ("worker.app",),
    ("worker",),
    ("store.storage", "store.codec", "store.schema", "store.paths", "store.filelocks"),
    ("store.owner", "store.terms", "store.statements", "store.known", "store.wal"),
    ("store.counts", "store.newfile"),
    ("store.writer", "store.backup"),
    ("store.sqlitefile", "store.journal"),
    ("store.flusher", "store.deferred"),
    ("store.backlog",),
    ("store.record", "store.controllines"),
    ("store.operations", "store.attach", "store.tail"),
    ("store.control",),
    ("store.database",),
    ("store.sqlite",),
    ("store",),
    ("wire", "wire.go", "wire.frames", "wire.commands"),
    ("wire.session", "wire.identify", "wire.compression", "wire.authorisation"),
    ("server.node", "server.tls", "server.auth", "server.listener", "server.alarms"),
    ("server.options", "server.publishing", "server.stats"),
    ("server.connection",),
    ("server.tcp",),
    ("server.debug", "server.metrics", "server.statsd", "server.web"),
    ("server.http",),
    ("server.nsqd",),
    ("server",),
    ("timeline.words",),
    ("timeline.parts",),
    ("timeline.replay", "timeline.text", "timeline.drawing"),
    ("timeline.page",),
    ("timeline.timeline",),
    ("timeline.recorder", "timeline.recording"),
    ("timeline",),
    ("testing.leaks", "testing.anyfault"),
    ("testing.bystanders", "testing.memorystorage", "testing.storagecontract"),
    ("testing.idle",),
    ("testing.manualclock",),
    ("testing.memorystore", "testing.faultystorage", "testing.faults", "testing.snapshots"),
    ("testing.brokerfaults",),
    ("testing.history",),
    ("testing.fakebroker",),
    ("testing.simulation.schedule", "testing.simulation.turns"),
    ("testing.simulation.story", "testing.simulation.loop"),
    ("testing.simulation.workers",),
    ("testing.simulation.simulation",),
    ("testing.simulation",),
    ("testing.faultywire",),
    ("testing.address",),
    ("testing.unittesting",),
    ("testing",),
    ("testing.plugin.pytest_nsqlite",),
    ("testing.clients.delivery",),
    ("testing.clients", "testing.clients.pynsq", "testing.clients.gnsq", "testing.clients.ansq"),
    ("cli", "cli.demo", "cli.failure", "cli.lines", "cli.signals", "cli.merge"),
    ("cli.snapshot", "cli.progress", "cli.lesson", "cli.places", "cli.keyboard"),
    ("cli.overview", "cli.check", "cli.pages", "cli.taken", "cli.operate"),
    ("cli.timeline",),
    ("cli.story",),
    ("cli.export", "cli.backup", "cli.run", "cli.goflags"),
    ("cli.nsqd",),
    ("cli.load", "cli.reference", "cli.player"),
    ("cli.manual",),
    ("cli.docs",),
    ("cli.commands",),
    ("__main__",),
)
"""The modules from the bottom up; each imports only from layers below its own."""

CORE: Final = {name for layer in LAYERS[: LAYERS.index(("",)) + 1] for name in layer} - {"stats"}
"""What `import nsqlite` loads; snapshots are loaded when the first one is made."""

LATE: Final = "a type checker must know what is loaded when it is first asked for"

ALLOWED: Final = {
    ("", "aio"): LATE,
    ("", "store.attach"): LATE,
    ("", "server"): LATE,
    ("", "store"): LATE,
    ("", "store.sqlite"): LATE,
    ("", "testing"): LATE,
    ("", "timeline"): LATE,
    ("", "worker"): LATE,
    ("message", "typing_extensions"): "only a type checker needs the default of a type variable",
}
"""Imports that no rule allows, with the reason; they stand under TYPE_CHECKING."""

CORE_NEEDS: Final = {"sortedcontainers"}

STARTERS: Final = {
    "store.control",
    "store.flusher",
    "testing.address",  # a test's nsqd runs beside the test
    "testing.simulation.turns",  # one at a time runs, and none is left after a simulation
    "worker.tasks",
    "worker.threads",
}
"""The modules that may start threads."""

LOOPS: Final = {"aio", "cli", "server", "testing", "worker"}
"""The packages that may import asyncio; of three only where handlers, or a server, run."""

SPANS_AND_DATES: Final = {
    "options": {"timedelta"},  # a number of seconds in another form
    "server.stats": {"UTC", "datetime"},  # writes a moment as a date
    "timeline.words": {"UTC", "datetime"},  # the same
    "cli.timeline": {"UTC", "datetime"},  # reads one
}
"""The modules that may import from `datetime`, and what."""

UNWANTED: Final = {
    "asyncio",
    "concurrent.futures",
    "logging.handlers",
    "multiprocessing",
    "socket",
    "sqlite3",
    "subprocess",
    "typing_extensions",
}
"""What the core neither imports nor causes to be imported."""


def name_of(path: Path) -> str:
    """Return a module's name without the package's, which itself has the empty name."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES: Final = {name_of(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def parsed(name: str) -> ast.Module:
    return ast.parse(MODULES[name].read_text("utf-8"))


def short(module: str) -> str | None:
    """Return a module's name without the package's, None if it is not one of the package."""
    package, _, name = module.partition(".")
    return name if package == "nsqlite" else None


def imported(tree: ast.AST, inside: str) -> Iterator[str]:
    """Go through the full names of what is imported anywhere in a part of a module."""
    is_package = MODULES[inside].name == "__init__.py"
    package = ".".join(["nsqlite", *filter(None, inside.split("."))])
    if not is_package:
        package = package.rpartition(".")[0]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = resolve_name("." * node.level + (node.module or ""), package)
            for alias in node.names:
                full = f"{base}.{alias.name}"
                yield full if short(full) in MODULES else base


def ours(name: str) -> set[str]:
    """Return the modules of the package that one imports, allowed exceptions left out."""
    found = {short(module) for module in imported(parsed(name), name)}
    return {module for module in found if module is not None and (name, module) not in ALLOWED}


def others(name: str) -> set[str]:
    """Return what a module imports from elsewhere, allowed exceptions left out."""
    found = set(imported(parsed(name), name))
    return {m for m in found if short(m) is None and (name, m) not in ALLOWED}


def test_every_module_has_a_layer() -> None:
    """The layers name each module of the package once, and no other."""
    assert sorted(MODULES) == sorted(name for layer in LAYERS for name in layer)


@pytest.mark.parametrize("name", MODULES)
def test_imports_point_down(name: str) -> None:
    """A module imports only from layers below its own, in functions and for types too."""
    ranks = {module: rank for rank, layer in enumerate(LAYERS) for module in layer}
    wrong = {module for module in ours(name) if ranks[module] >= ranks[name]}
    assert set() == wrong


def test_there_is_no_cycle() -> None:
    """The modules can be put in an order in which each comes after those that it imports."""
    order = list(TopologicalSorter({name: ours(name) for name in MODULES}).static_order())
    assert len(MODULES) == len(order)


def test_every_exception_is_needed() -> None:
    """Each allowed exception is an import that is there, under TYPE_CHECKING and nowhere else."""
    found = set()
    for name in MODULES:
        tree = parsed(name)
        for node in ast.walk(tree):
            if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
                for part in node.body:
                    found |= {(name, short(m) or m) for m in imported(part, name)}
                node.body.clear()
        assert not {(name, short(m) or m) for m in imported(tree, name)} & set(ALLOWED)
    assert set(ALLOWED) <= found


def test_the_core_needs_two_packages() -> None:
    """The core imports the standard library and one package more."""
    roots = {module.partition(".")[0] for name in CORE for module in others(name)}
    assert roots - sys.stdlib_module_names == CORE_NEEDS


def test_the_rest_needs_no_more() -> None:
    """What is not of the core imports the standard library, some one of the two, some extras."""
    foreign = {
        (name.partition(".")[0], module.partition(".")[0])
        for name in set(MODULES) - CORE
        for module in others(name)
    }
    assert {
        ("cli", "attrs"),
        ("cli", "pdoc"),
        ("cli", "rich"),
        ("server", "aiohttp"),
        ("server", "attrs"),
        ("server", "prometheus_client"),
        ("stats", "attrs"),
        ("store", "attrs"),
        ("testing", "ansq"),
        ("testing", "attrs"),
        ("testing", "gnsq"),
        ("testing", "hypothesis"),
        ("testing", "nsq"),
        ("testing", "pytest"),
        ("testing", "tornado"),
        ("timeline", "attrs"),
        ("wire", "attrs"),
        ("wire", "snappy"),
        ("worker", "attrs"),
    } == {f for f in foreign if f[1] not in sys.stdlib_module_names}


def test_rich_is_loaded_late() -> None:
    """Only what shows progress imports rich, and only in a function."""
    assert ["cli.progress"] == [
        name for name in MODULES if any(m.partition(".")[0] == "rich" for m in others(name))
    ]
    top = ast.Module(parsed("cli.progress").body, [])
    top.body = [node for node in top.body if not isinstance(node, ast.FunctionDef)]
    assert not [m for m in imported(top, "cli.progress") if m.startswith("rich")]


def test_pdoc_is_loaded_late() -> None:
    """Only what makes pages imports pdoc, and one module imports that, in a function."""
    makers = {"cli.reference", "cli.manual"}
    assert makers == {
        name for name in MODULES if "pdoc" in {m.partition(".")[0] for m in others(name)}
    }
    assert {"cli.docs"} == {name for name in MODULES if ours(name) & makers} - makers
    top = ast.Module(parsed("cli.docs").body, [])
    top.body = [node for node in top.body if not isinstance(node, ast.FunctionDef)]
    assert not {short(m) for m in imported(top, "cli.docs")} & makers


def test_one_module_knows_the_time() -> None:
    """Only the clock imports `time`; what else tells the time is not asked for it."""
    assert ["clock"] == [name for name in MODULES if "time" in others(name)]
    found = {name for name in MODULES if others(name) & {"datetime", "sched", "calendar"}}
    assert set(SPANS_AND_DATES) == found
    for name, wanted in SPANS_AND_DATES.items():
        nodes = [node for node in ast.walk(parsed(name)) if isinstance(node, ast.ImportFrom)]
        taken = {alias.name for node in nodes if node.module == "datetime" for alias in node.names}
        assert wanted == taken
        assert not {"now", "utcnow", "today"} & named(name)


def test_what_is_heavy_is_not_imported() -> None:
    """The core imports none of what is slow, or starts threads, processes or loops."""
    assert [] == [name for name in CORE if others(name) & UNWANTED]


def named(name: str) -> set[str]:
    """Return the names and attributes that a module's code uses, and what it imports by name."""
    nodes = list(ast.walk(parsed(name)))
    imports = [node for node in nodes if isinstance(node, ast.Import | ast.ImportFrom)]
    return {
        *(node.attr for node in nodes if isinstance(node, ast.Attribute)),
        *(node.id for node in nodes if isinstance(node, ast.Name)),
        *(alias.name for node in imports for alias in node.names),
    }


def makes_threads(name: str) -> bool:
    """Return whether a module calls `Thread`, or makes a kind of its own of it."""
    made = [
        *(node.func for node in ast.walk(parsed(name)) if isinstance(node, ast.Call)),
        *(
            one
            for node in ast.walk(parsed(name))
            if isinstance(node, ast.ClassDef)
            for one in node.bases
        ),
    ]
    return any("Thread" == ast.unparse(one).rpartition(".")[2] for one in made)


def test_no_thread_is_started() -> None:
    """Only the workers' runners and the flusher make a thread; nothing a timer or a pool."""
    assert sorted(STARTERS) == sorted(name for name in MODULES if makes_threads(name))
    others_ = {"Timer", "start_new_thread", "ThreadPoolExecutor", "to_thread", "run_in_executor"}
    assert [] == [name for name in MODULES if named(name) & others_]


def test_asyncio_is_needed_in_few_modules() -> None:
    """Only what awaits imports asyncio: nothing of the core, of the workers only what runs them."""
    users = {name for name in MODULES if "asyncio" in {m.partition(".")[0] for m in others(name)}}
    assert {name.partition(".")[0] for name in users} == LOOPS
    runners = {name for name in users if name.startswith("worker")}
    assert {"worker.caller", "worker.tasks"} == runners
    assert {"cli.nsqd"} == {name for name in users if name.startswith("cli")}
    served = {name for name in users if name.startswith("testing")}
    faked = {"testing.faultywire", "testing.idle", "testing.clients.pynsq"}
    simulated = {"testing.simulation.loop", "testing.simulation.workers"}
    ending = {"testing.leaks", "testing.plugin.pytest_nsqlite", "testing.unittesting"}  # of a test
    assert {"testing.address", *ending, *faked, *simulated} == served


def test_one_module_imports_by_name() -> None:
    """Only the package imports modules by their names, those of one list, and a user's the cli."""
    by_name = {"importlib", "importlib.util", "runpy", "pkgutil"}
    assert ["", "cli.run"] == [name for name in MODULES if others(name) & by_name]
    assert {module or name for name, module in nsqlite._LAZY.items()} <= set(MODULES) - CORE


def test_importing_the_core_loads_the_core_only() -> None:
    """In a fresh interpreter `import nsqlite` loads the core, starts nothing and prints nothing."""
    program = (
        "import json, sys, threading\n"
        "before = set(sys.modules)\n"
        "import nsqlite\n"
        "loaded = sorted(set(sys.modules) - before)\n"
        "print(json.dumps([loaded, threading.active_count()]))\n"
    )
    done = subprocess.run(  # noqa: S603 - our own interpreter
        [sys.executable, "-W", "error", "-c", program],
        capture_output=True,
        check=False,
        cwd=PACKAGE.parent,
        text=True,
        timeout=60,
    )
    assert (0, "") == (done.returncode, done.stderr)
    loaded, threads = json.loads(done.stdout)
    assert CORE == {short(module) for module in loaded} - {None}
    assert set() == UNWANTED & set(loaded)
    assert 1 == threads
