"""Running an app from the command line: how it is found, with which broker, and how it ends."""

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import nsqlite
from nsqlite.__main__ import main
from nsqlite.cli.failure import CommandFailed
from nsqlite.cli.run import find_app, open_broker
from nsqlite.timeline import read_recording

SHOP = """
import nsqlite

app = nsqlite.App()
seen = []

@app.handler("orders", "billing")
def bill(message):
    seen.append(message.body)
    {what}
"""

NO_APP = "is no nsqlite.App, nor a function without arguments that returns one: it is of"

SCRIPT = "import sys, nsqlite.__main__; sys.exit(nsqlite.__main__.main())"
"""What the installed command does."""

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Folder:
    """The current directory, with modules in it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, name: str, text: str) -> None:
        """Write a module, which is imported anew."""
        file = self.path / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(text, "utf-8")

    def shop(self, what: str = "app.stop()") -> None:
        """Write a shop, whose handler does something."""
        self.write("shop.py", SHOP.format(what=what))

    def put(self, body: object = "tea") -> str:
        """Put a message into a file, and return the file."""
        path = str(self.path / "jobs.db")
        with open_broker(path, "json") as broker:
            broker.topic("orders").put(body)
        return path

    def bodies(self) -> list[Any]:
        """Return what is left in the file."""
        with open_broker(str(self.path / "jobs.db"), "json") as broker:
            return [info.body for info in broker.topic("orders").channel("billing").peek()]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Folder]:
    """Give an empty current directory; what is imported from it is forgotten."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path.copy())
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    before = set(sys.modules)
    yield Folder(tmp_path)
    for name in set(sys.modules) - before:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


def failure(*arguments: str, capsys: pytest.CaptureFixture[str]) -> tuple[object, str]:
    """Return the status and stderr of a command that fails."""
    with pytest.raises(SystemExit) as ending:
        main(["run", *arguments])
    return ending.value.code, capsys.readouterr().err


# What is run


def test_an_app_is_found(folder: Folder) -> None:
    """It is an attribute, one of an attribute, or what a function without arguments returns."""
    folder.shop()
    folder.write("web/__init__.py", "")
    folder.write("web/main.py", "import shop\n\ndef make(more=1):\n    return shop.app\n")
    app = find_app("shop", "app")
    assert isinstance(app, nsqlite.App)
    assert app is find_app("web.main", "make")
    assert app is find_app("web.main", "shop.app")


def test_the_current_directory_is_looked_in_once(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It comes first unless it is there already, as where Python was called with -m."""
    folder.shop()
    here = str(folder.path)
    for path, expected in ((["x"], [here, "x"]), (["x", here], ["x", here])):
        monkeypatch.setattr(sys, "path", path.copy())
        find_app("shop", "app")
        assert expected == sys.path


@pytest.mark.parametrize(
    ("module", "text"),
    [
        ("shpo", "there is no module 'shpo' (did you mean 'shop'?)"),
        ("shpo.main", "there is no module 'shpo' (did you mean 'shop'?)"),
        ("shop.py", "there is no module 'shop.py' (did you mean 'shop'?)"),
        ("web.mian", "there is no module 'web.mian' (did you mean 'web.main'?)"),
        ("qxzvw", "there is no module 'qxzvw'"),
    ],
)
def test_a_module_that_is_not_there(folder: Folder, module: str, text: str) -> None:
    """It is told in one line, with the nearest that there is."""
    folder.shop()
    folder.write("web/__init__.py", "")
    folder.write("web/main.py", "")
    with pytest.raises(CommandFailed) as info:
        find_app(module, "app")
    assert text == str(info.value)


@pytest.mark.parametrize(
    ("attribute", "text"),
    [
        ("ap", "shop has no 'ap' (did you mean 'app'?)"),
        ("qxzvw", "shop has no 'qxzvw'"),
        ("app.wrokers", "shop.app has no 'wrokers' (did you mean 'workers'?)"),
        ("seen", f"shop.seen {NO_APP} 'list'"),
        ("bill", f"shop.bill {NO_APP} 'function'"),
    ],
)
def test_an_app_that_is_not_there(folder: Folder, attribute: str, text: str) -> None:
    """An attribute that there is not, or is no app, is told in one line."""
    folder.shop()
    with pytest.raises(CommandFailed) as info:
        find_app("shop", attribute)
    assert text == str(info.value)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        (
            "import nowhere_to_be_found",
            "ModuleNotFoundError: No module named 'nowhere_to_be_found'",
        ),
        ("import nsqlite.nothing", "ModuleNotFoundError: No module named 'nsqlite.nothing'"),
        ("raise ModuleNotFoundError('no name')", "ModuleNotFoundError: no name"),
        ("open('nowhere')", "FileNotFoundError: [Errno 2] No such file or directory: 'nowhere'"),
        ("def app():\n    raise BrokenPipeError('gone')", "BrokenPipeError: gone"),
        ("def app():\n    raise LookupError(3)", "LookupError: 3"),
    ],
)
def test_what_the_program_raises_is_shown(
    folder: Folder, text: str, error: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """An error of the module, or of the function that makes the app, has its traceback."""
    folder.write("shop.py", text)
    status, err = failure("shop:app", capsys=capsys)
    assert 1 == status
    assert err.startswith("Traceback (most recent call last):\n")
    assert err.endswith(f"{error}\n")
    assert 'shop.py", line ' in err


@pytest.mark.parametrize("text", ["shop", "shop:", ":app", "", "./shop:app", "shop:app:x", "a b:c"])
def test_what_names_no_app(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    """What is not MODULE:APP is a wrong call, as an unknown codec or level is."""
    prog = "python -m nsqlite run: argument"
    told = f"{prog} MODULE:APP: {text!r} is not MODULE:APP, as shop:app is; try --help\n"
    assert (2, told) == failure(text, capsys=capsys)
    assert 2 == failure("shop:app", "--codec", "xml", capsys=capsys)[0]
    assert 2 == failure("shop:app", "--log-level", "loud", capsys=capsys)[0]


# With which broker


def test_a_broker_in_memory(folder: Folder) -> None:
    """Without a file the broker is in memory, and nothing is written."""
    folder.write("shop.py", "import nsqlite\napp = nsqlite.App()\napp.handler('a', 'b')(print)\n")
    folder.write("stopped.py", "from shop import app\n\napp.stop()\n")
    assert 0 == main(["run", "stopped:app"])
    assert ["shop.py", "stopped.py"] == sorted(path.name for path in folder.path.iterdir())


def test_a_broker_with_a_file(folder: Folder) -> None:
    """The handlers get what is in the file, and the file is closed at the end."""
    folder.shop()
    path = folder.put({"item": "tea"})
    assert 0 == main(["run", "shop:app", "--store", path])
    assert [{"item": "tea"}] == sys.modules["shop"].seen
    assert [] == folder.bodies()


def test_a_codec(folder: Folder) -> None:
    """Bodies are written with the codec that was chosen, or are bytes without one."""
    for codec, body in (("pickle", {1, 2}), ("json", {"a": 1}), ("none", b"tea")):
        path = str(folder.path / f"{codec}.db")
        for _ in range(2):
            with open_broker(path, codec) as broker:
                broker.topic("orders").put(body)
        with open_broker(path, codec) as broker:
            messages = nsqlite.Consumer(broker.topic("orders").channel("billing")).get_many(9)
            assert [body, body] == [message.body for message in messages]
    broker = open_broker(str(folder.path / "none.db"), "none")
    with broker, pytest.raises(nsqlite.InvalidMessage):
        broker.topic("orders").put({"a": 1})


def test_a_file_in_use(folder: Folder, capsys: pytest.CaptureFixture[str]) -> None:
    """What is wrong with the file is told in one line; no worker has run."""
    folder.shop()
    path = folder.put()
    with nsqlite.Broker(store=nsqlite.SQLite(path)):
        with pytest.raises(nsqlite.StoreInUse) as info:
            nsqlite.Broker(store=nsqlite.SQLite(path))
        told = failure("shop:app", "--store", path, capsys=capsys)
    assert (1, f"python -m nsqlite run: {info.value} (after waiting 5 s)\n") == told
    assert ["tea"] == folder.bodies()


# With a recording


def test_what_happens_is_recorded(folder: Folder) -> None:
    """With --record it is written to a file, from where a file of messages is opened."""
    folder.shop()
    path = folder.put()
    record = folder.path / "jobs.rec"
    arguments = ["--record", str(record), "--record-size", "0.01"]
    assert 0 == main(["run", "shop:app", "--store", path, *arguments])
    [run] = read_recording(record).runs
    assert run.closed
    assert {"created", "delivered", "finished"} <= {event.kind for event in run.events}


def test_a_recording_that_cannot_be_made(
    folder: Folder, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is told in one line, and nothing has run; a wrong size is a wrong call."""
    folder.shop()
    path = folder.put()
    text = f"recording {path}: it is no recording of nsqlite"
    arguments = ("shop:app", "--record", path)
    assert (1, f"python -m nsqlite run: {text}\n") == failure(*arguments, capsys=capsys)
    assert ["tea"] == folder.bodies()
    prefix = "python -m nsqlite run: argument --record-size:"
    told = f"{prefix} '0.001' is less than 4096 bytes; try --help\n"
    assert (2, told) == failure("shop:app", "--record-size", "0.001", capsys=capsys)
    told = f"{prefix} 'x' is no number of MiB; try --help\n"
    assert (2, told) == failure("shop:app", "--record-size", "x", capsys=capsys)
    text = "--record-size is of the file that --record names; try --help"
    told = f"python -m nsqlite run: {text}\n"
    assert (2, told) == failure("shop:app", "--record-size", "5", capsys=capsys)


@pytest.mark.parametrize(
    ("store", "record"),
    [("a.db", "./a.db"), ("a.1", "a"), ("link", "a.db"), ("a.db", "a.db-wal")],
)
def test_a_recording_into_the_store(
    folder: Folder, store: str, record: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where a file of the recording would be one of the store's, neither is made."""
    folder.shop()
    (folder.path / "link").symlink_to("a.db")
    text = f"--store {store} and --record {record} would write the same file: name another one"
    told = failure("shop:app", "--store", store, "--record", record, capsys=capsys)
    assert (1, f"python -m nsqlite run: {text}\n") == told
    assert ["link", "shop.py"] == sorted(path.name for path in folder.path.iterdir())


def test_the_last_moments_of_a_killed_program(
    folder: Folder, capsys: pytest.CaptureFixture[str]
) -> None:
    """After `kill -9` the recording shows what its handler was at."""
    folder.shop("import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    path, record = folder.put("the last tea"), str(folder.path / "jobs.rec")
    done = subprocess.run(  # noqa: S603 - our own interpreter
        [sys.executable, "-m", "nsqlite", "run", "shop:app", "--store", path, "--record", record],
        capture_output=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(Path(nsqlite.__file__).parent.parent)},
        timeout=60,
    )
    assert -signal.SIGKILL == done.returncode
    assert 0 == main(["timeline", record, "--width", "100"])
    out = capsys.readouterr().out
    assert "not closed: it was killed, or is running" in " ".join(out.split())
    assert "the last tea" in out
    [event] = [one for one in read_recording(record).events if one.kind == nsqlite.Kind.DELIVERED]
    assert event.id
    assert 0 == main(["story", record, event.id])
    ending = "In billing it was in flight, with orders:billing, when this record ended."
    assert ending == capsys.readouterr().out.splitlines()[-1]


# How it ends


@pytest.mark.parametrize(
    ("what", "text"),
    [
        (
            "app.broker.topics['orders'].channels['billing'].delete()",
            "worker 'orders:billing' is over: channel 'billing' of topic 'orders' is deleted",
        ),
        (
            "app.broker.topics['orders'].close()",
            "worker 'orders:billing' is over: channel 'billing' of topic 'orders' is closed",
        ),
    ],
)
def test_a_worker_that_has_ended(
    folder: Folder, what: str, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A worker that ended by itself ends the command, with why in one line."""
    folder.shop(what)
    path = folder.put()
    status, err = failure("shop:app", "--store", path, capsys=capsys)
    assert (1, f"python -m nsqlite run: {text}\n") == (status, err)


def test_an_app_without_handlers(folder: Folder, capsys: pytest.CaptureFixture[str]) -> None:
    """What an app refuses is one line."""
    folder.write("shop.py", "import nsqlite\napp = nsqlite.App()\n")
    text = "handlers must be at least one, declared with @app.handler(topic, channel), not []"
    assert (1, f"python -m nsqlite run: {text}\n") == failure("shop:app", capsys=capsys)


def test_an_exit_of_a_handler_is_that_of_the_command(
    folder: Folder, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`sys.exit(3)` in a handler ends the command with status 3; the message is not lost."""
    monkeypatch.setattr(threading, "excepthook", lambda _told: None)
    folder.shop("raise SystemExit(3)")
    path = folder.put()
    assert (3, "") == failure("shop:app", "--store", path, capsys=capsys)
    assert ["tea"] == folder.bodies()


@pytest.mark.parametrize("code", ["", "0"])
def test_an_exit_of_a_handler_is_no_end_that_was_asked_for(
    folder: Folder, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, code: str
) -> None:
    """`sys.exit()` leaves the work undone, so the command has failed."""
    monkeypatch.setattr(threading, "excepthook", lambda _told: None)
    folder.shop(f"raise SystemExit({code})")
    path = folder.put()
    status, err = failure("shop:app", "--store", path, capsys=capsys)
    assert (1, "python -m nsqlite run: a handler has ended it by SystemExit\n") == (status, err)
    assert ["tea"] == folder.bodies()


def test_the_signals_are_the_apps_while_it_runs(folder: Folder) -> None:
    """A signal stops the handlers at work gracefully, and is then what it was before."""
    before = [signal.getsignal(number) for number in SIGNALS]
    folder.write("helper.py", "import signal, threading\nmain = threading.main_thread().ident\n")
    folder.shop(f"import helper; helper.signal.pthread_kill(helper.main, {SIGNALS[1].value})")
    path = folder.put()
    assert 0 == main(["run", "shop:app", "--store", path])
    assert ["tea"] == sys.modules["shop"].seen
    assert before == [signal.getsignal(number) for number in SIGNALS]
    assert [] == folder.bodies()


@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize("how", [("-m", "nsqlite"), ("-c", SCRIPT)], ids=["module", "script"])
def test_a_process_that_a_signal_ends(
    folder: Folder, number: signal.Signals, how: tuple[str, ...]
) -> None:
    """It logs to stderr, finishes what it works on, and ends with status 0."""
    folder.shop("print('begun', flush=True); import sys; sys.stdin.readline(); print('done')")
    path = folder.put()
    environment = {**os.environ, "PYTHONPATH": str(Path(nsqlite.__file__).parent.parent)}
    with subprocess.Popen(  # noqa: S603 - our own interpreter
        [sys.executable, "-W", "error", *how, "run", "shop:app", "--store", path],
        encoding="utf-8",
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert "begun\n" == process.stdout.readline()
        process.send_signal(number)
        out, err = process.communicate("go on\n", timeout=60)
    assert (0, "done\n") == (process.returncode, out)
    started = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} INFO nsqlite: orders:billing: started bill in"
    assert re.match(started, err), err
    assert [] == folder.bodies()
