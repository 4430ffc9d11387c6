"""What the programs that use an NSQ client have in common: they are asked, and answer, by lines.

Each program is a user of one client library as that is, and knows nothing of nsqlite.  It is told
what to do by lines of JSON; it answers each with the same `n`, and tells what else happens.
"""

import asyncio
import json
import sys
import threading
from collections.abc import Callable
from typing import Any

LOCK = threading.Lock()


def say(**what: Any) -> None:
    """Tell something, as bytes in Latin-1."""
    line = json.dumps(what, default=lambda body: body.decode("latin-1"))
    with LOCK:
        sys.stdout.write(line + "\n")
        sys.stdout.flush()


def tell(name: str, event: str, **what: Any) -> None:
    """Tell what happened to the reader or writer of a name."""
    say(name=name, event=event, **what)


def arguments_of(request: dict[str, Any]) -> dict[str, Any]:
    """Return what goes with a request."""
    return {key: value for key, value in request.items() if key not in {"n", "do"}}


def answer(request: dict[str, Any], value: Any) -> None:
    """Answer a request; an error by its text."""
    if isinstance(value, BaseException):
        say(n=request["n"], error=f"{type(value).__name__}: {value}")
    else:
        say(n=request["n"], value=value)


def read_requests(heard: Callable[[dict[str, Any]], object], ended: Callable[[], object]) -> None:
    """Have a function called for each request, in a thread of its own, and one at their end."""

    def read() -> None:
        for line in sys.stdin:
            heard(json.loads(line))
        ended()

    threading.Thread(target=read, daemon=True).start()


def body_of(text: str) -> bytes:
    """Return the bytes that a text stands for."""
    return text.encode("latin-1")


def numbered(first: int, count: int) -> list[bytes]:
    """Return bodies that say their numbers."""
    return [b"%d" % number for number in range(first, first + count)]


async def serve(program: object) -> None:
    """Have the coroutines of an object do what is asked for, until there is nobody to ask."""
    loop = asyncio.get_running_loop()
    over = asyncio.Event()
    tasks = set()

    async def act(request: dict[str, Any]) -> None:
        try:
            answer(request, await getattr(program, request["do"])(**arguments_of(request)))
        except Exception as error:
            answer(request, error)

    def begin(request: dict[str, Any]) -> None:
        task = loop.create_task(act(request))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    read_requests(
        lambda request: loop.call_soon_threadsafe(begin, request),
        lambda: loop.call_soon_threadsafe(over.set),
    )
    await over.wait()
