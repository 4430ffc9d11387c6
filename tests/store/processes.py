"""What the tests of owners have in common: other processes, and what this one has open."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import pytest

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")


@contextmanager
def another_process(program: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Run a program in a process of its own until the end of the block; it says something first."""
    with subprocess.Popen(  # noqa: S603 - our own interpreter
        [sys.executable, "-W", "error", "-c", program, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert "mine" == said(process)
            yield process
        finally:
            process.kill()


def said(process: subprocess.Popen[str]) -> str:
    """Return the next line that a process says."""
    assert process.stdout is not None
    return process.stdout.readline().strip()


def in_child(call: Callable[[], object]) -> bool:
    """Make a call in a fork, which must come to its end; return whether it returned something."""
    pid = os.fork()
    if pid == 0:  # pragma: no cover - the child's coverage is lost with it
        status = 1
        try:
            status = 2 if call() else 0
        finally:
            os._exit(status)
    _, status = os.waitpid(pid, 0)
    code = os.waitstatus_to_exitcode(status)
    assert code in {0, 2}, "the child has failed"
    return code == 2


def descriptors() -> set[int]:
    """Return the descriptors that are open."""
    return set(filter(_is_open, map(int, os.listdir("/dev/fd"))))  # noqa: PTH208 - no paths


def _is_open(handle: int) -> bool:
    """Say whether a descriptor is open, as that of the listing itself is no more."""
    try:
        os.fstat(handle)
    except OSError:
        return False
    return True


@contextmanager
def few_descriptors(spare: int) -> Iterator[None]:
    """Let the process open only so many more files."""
    import resource  # noqa: PLC0415 - not on Windows

    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    with ExitStack() as stack:
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(descriptors()) + 40, limits[1]))
        stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, limits)
        handles: list[int] = []
        with pytest.raises(OSError, match="Too many open files"):
            while True:
                handles.append(os.open(os.devnull, os.O_RDONLY))
        for handle in handles[spare:]:
            stack.callback(os.close, handle)
        for handle in handles[:spare]:
            os.close(handle)
        yield


@contextmanager
def bound_by_permissions() -> Iterator[None]:
    """Be a user whom permissions bind, if this one is root."""
    mine = os.geteuid()
    if mine == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(mine)
