"""Two processes put into the store of a third, which is killed and started again."""

import subprocess
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

from helpers import bodies
from store.processes import another_process, said

import nsqlite

OWNER = """
import sys, nsqlite
with nsqlite.Broker(store=nsqlite.SQLite(sys.argv[1], control=True)) as broker:
    broker.topic("orders").channel("billing")
    print("mine", flush=True)
    sys.stdin.readline()
"""

PUTTER = """
import sys, nsqlite
path, name = sys.argv[1:]
topic = nsqlite.attach(path).topic("orders")
print("mine", flush=True)
number, left = 0, None
while left != 0:
    number += 1
    try:
        topic.put(f"{name}{number}".encode())
    except nsqlite.StoreError as lost:
        print(type(lost).__name__, number, flush=True)
        assert left is None, lost
        sys.stdin.readline()
        left = 200
    else:
        print("put", number, flush=True)
        left = None if left is None else left - 1
"""


def tell(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("go on\n")
    process.stdin.flush()


def test_what_was_put_through_an_owner_that_is_killed(tmp_path: Path) -> None:
    """What a put returned for is there once; what had no owner is not; the rest may be, once."""
    path = str(tmp_path / "jobs.db")
    acknowledged: set[str] = set()
    refused: set[str] = set()
    with ExitStack() as stack:
        owner = stack.enter_context(another_process(OWNER, path))
        putters = {name: stack.enter_context(another_process(PUTTER, path, name)) for name in "ab"}
        for name, process in putters.items():
            acknowledged.update(name + said(process).removeprefix("put ") for _ in range(300))
        owner.kill()
        for name, process in putters.items():
            while (line := said(process)).startswith("put "):
                acknowledged.add(name + line.removeprefix("put "))
            kind, number = line.split()
            assert kind in {"NoOwner", "Unanswered"}
            refused.update([name + number] if kind == "NoOwner" else [])
        owner = stack.enter_context(another_process(OWNER, path))
        for process in putters.values():
            tell(process)
        for name, process in putters.items():
            acknowledged.update(name + said(process).removeprefix("put ") for _ in range(200))
            assert "" == said(process)
            assert 0 == process.wait()
        tell(owner)
        assert 0 == owner.wait()
    with nsqlite.Broker(store=nsqlite.SQLite(path)) as broker:
        channel = broker.topic("orders").channel("billing")
        found = Counter(body.decode() for body in bodies(channel))
    assert {1} == set(found.values())
    assert acknowledged <= set(found)
    assert not refused & set(found)
    assert len(set(found) - acknowledged) <= 2
