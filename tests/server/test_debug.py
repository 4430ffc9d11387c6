"""What a daemon shows of its inside, and that no file is named."""

import asyncio
import gc
import threading
import tracemalloc
import weakref
from collections.abc import Callable

import pytest
from aio.loops import in_loop, turns

import nsqlite
from nsqlite.server import debug


@in_loop
async def test_stacks_of_threads_and_tasks() -> None:
    """Each with modules, functions and lines, the innermost first; a task with what it awaits."""
    over = threading.Event()
    thread = threading.Thread(target=over.wait, name="waits")
    thread.start()

    async def inner() -> None:
        await asyncio.Event().wait()

    async def outer() -> None:
        await inner()

    task = asyncio.create_task(outer(), name="sleeper")
    await turns()
    shown = debug.stacks()
    over.set()
    thread.join()
    task.cancel()
    assert "    nsqlite.server.debug.stacks:" in shown.partition("thread MainThread\n")[2]
    waits = shown[shown.index("thread waits") :]
    assert "    threading.Event.wait:" in waits
    sleeper = shown[shown.index("task sleeper") :].splitlines()
    assert ["asyncio.locks.Event.wait", "inner", "outer"] == [
        line.strip().rpartition(":")[0].rpartition("<locals>.")[2] for line in sleeper[1:4]
    ]
    assert "/" not in shown


def test_names_of_threads() -> None:
    """A line for each."""
    assert "MainThread\n" in debug.threads()


def test_memory_that_nobody_traces() -> None:
    """Then only the figures are told."""
    shown = debug.heap()
    assert shown.startswith("heap_objects             \t")
    assert "-X tracemalloc" in shown


def test_memory_that_is_traced() -> None:
    """The lines that have asked for most are told, by the names of their modules."""
    tracemalloc.start()
    try:
        kept = [bytes(1_000_000)]
        nameless = eval("[bytes(n) for n in (2_000_000,)]")  # noqa: S307 - a line without a file
        shown = debug.heap()
    finally:
        tracemalloc.stop()
    assert 2 == len([*kept, *nameless])
    assert f"  {__name__}:" in shown
    assert "  <string>:1\n" in shown
    assert "/" not in shown


def test_pages() -> None:
    """The index has all; what Python cannot tell says so."""
    assert debug.index().startswith("/debug/pprof/\n\nblock        nothing: Python")
    assert "num_symbols: 0\n" == debug.symbol()
    assert "Python has nothing to show here: see /debug/pprof/\n" == debug.nothing()
    assert "/" not in debug.cmdline()


@pytest.mark.parametrize(
    "text", ["0", "-1", "+7", "007", "9223372036854775807", "-9223372036854775808"]
)
def test_rates(text: str) -> None:
    """An integer of 64 bits is one."""
    debug.checked_rate(text)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", 'parsing "": invalid syntax'),
        ("fast", 'parsing "fast": invalid syntax'),
        ("1_0", 'parsing "1_0": invalid syntax'),
        ("9223372036854775808", 'parsing "9223372036854775808": value out of range'),
        ("-9223372036854775809", 'parsing "-9223372036854775809": value out of range'),
        ("1" * 5000, f'parsing "{"1" * 5000}": value out of range'),
    ],
)
def test_what_is_no_rate(text: str, problem: str) -> None:
    """It is told in Go's words."""
    with pytest.raises(ValueError, match="Atoi") as refused:
        debug.checked_rate(text)
    assert f"strconv.Atoi: {problem}" == str(refused.value)


def test_garbage_is_collected() -> None:
    """What nobody can reach is gone."""

    def ring() -> Callable[[], object]:
        topic: nsqlite.Topic[object] = nsqlite.Topic("orders")
        known = weakref.ref(topic)
        topic.put([topic])
        return known

    gc.disable()
    try:
        known = ring()
        debug.free_memory()
        assert known() is None
    finally:
        gc.enable()
