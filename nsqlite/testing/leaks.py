"""What a test leaves behind: messages in flight, calls that wait, what runs and what is open.

The rule: only what was made meanwhile counts, each with the line of the program that made it; and
watching keeps nothing alive but what would be gone, without a word, before anybody looks.

Next: testing/simulation/__init__.py
"""

import atexit
import gc
import sys
import threading
import warnings
import weakref
from collections.abc import Callable, Iterable, Iterator
from functools import partial, wraps
from types import FrameType, TracebackType
from typing import Any, Final, NamedTuple, Never, TypeVar

from nsqlite import origin
from nsqlite.broker import Broker
from nsqlite.channel import Channel
from nsqlite.consumer import AnyConsumer
from nsqlite.errors import Closed, InvalidOption, shown
from nsqlite.message import Message
from nsqlite.options import unknown_option
from nsqlite.origin import Place, look_at_threads, place_of
from nsqlite.topic import Topic

X = TypeVar("X")
F = TypeVar("F", bound=Callable[..., Any])

__unittest = True  # in a failed assertion unittest shows no line of a module that has it

KINDS: Final = ("messages", "waits", "workers", "stores", "servers", "brokers")
"""What can be left behind."""

USUAL: Final = frozenset(KINDS) - {"brokers"}
"""What counts unless another choice is made: a broker in memory needs no close to be forgotten."""

SELF_TOLD: Final = frozenset({"workers", "stores"})
"""What warns by itself at the end of a program."""

ENDING: Final = 1.0
"""Real seconds for a thread to end whose call was ended."""


class Leak(NamedTuple):
    """Something that was left behind.

    Attributes:
        kind: one of `KINDS`.
        text: what it is, and where it was made.
        place: where that was.
    """

    kind: str
    text: str
    place: Place


def chosen(leaks: bool | str | Iterable[str]) -> frozenset[str]:
    """Return the kinds of what counts; see `no_leaks`."""
    if isinstance(leaks, bool):
        return USUAL if leaks else frozenset()
    known = (*KINDS, "all", "none")
    names = _names(leaks)
    if not all(isinstance(name, str) for name in names):
        raise InvalidOption("leaks", leaks, f"True, False or names of {', '.join(sorted(known))}")
    for name in names:
        if name not in known:
            raise unknown_option("leaks", name, known)
    return frozenset(KINDS if "all" in names else names) - {"none"}


def _names(leaks: Any) -> list[Any]:
    if isinstance(leaks, str):
        return leaks.replace(",", " ").split()
    return list(leaks if isinstance(leaks, Iterable) else [leaks])


def told(leaks: list[Leak]) -> str:
    """Return what was left behind as text: the kinds, and a line for each."""
    kinds = dict.fromkeys(leak.kind for leak in leaks)
    lines = [f"  {leak.kind}: {leak.text}" for leak in leaks]
    return "\n".join([f"left behind: {', '.join(kinds)}", *lines])


class Tracker:
    """Takes note of what is made, and finds what of it is unfinished.

    Threads: what is made in any thread is noted; all else is for one.
    """

    def __init__(self, kinds: frozenset[str]) -> None:
        """Make it; nothing is noted before `begin`.

        Args:
            kinds: what counts.
        """
        self.kinds: Final = kinds
        self._made: Final[dict[weakref.ref[Any], Place]] = {}
        self._kept: Final[list[Broker]] = []
        self._held: list[AnyConsumer[Any]] = []
        self._found: Final[list[Leak]] = []
        self._only: Broker | None = None  # what is looked at; None for all

    def begin(self) -> None:
        """Take note from now on."""
        if "messages" in self.kinds:
            gc.callbacks.append(self._collect)
        self.resume()

    def pause(self) -> None:
        """Take no note of what is made next."""
        origin.watchers.remove(self._note)

    def resume(self) -> None:
        """Take note again."""
        origin.watchers.append(self._note)

    def end(self) -> list[Leak]:
        """Take no more note; return what is left behind, and stop and close that."""
        if self._note in origin.watchers:
            self.pause()
        if "messages" in self.kinds:
            gc.callbacks.remove(self._collect)
        return list(dict.fromkeys(self._found + self._look_and_clean()))  # a loop may stay open

    def end_broker(self, broker: Broker) -> None:
        """Do the same with what is of a broker that is about to be closed, which would hide it."""
        self._only = broker
        self._found.extend(self._look_and_clean())
        self._only = None

    def end_loop(self, loop: Any) -> None:
        """Find the tasks and workers of a loop that is about to be closed, which would end them."""
        waits = self._if_counted("waits", self._waits)
        workers = self._if_counted("workers", self._workers)
        own = [pair for pair in workers if getattr(pair[0]._runner, "_loop", None) is loop]
        self._found.extend(wait.leak() for wait in waits if wait.loop is loop)
        self._found.extend(_worker_leak(*pair) for pair in own)

    def _note(self, made: Any, place: Place) -> None:
        self._made[weakref.ref(made, self._made.pop)] = place
        if isinstance(made, Broker) and _kind_of(made) in self.kinds:
            self._kept.append(made)  # garbage is closed at once, and is a leak all the same

    def _collect(self, phase: str, _: object) -> None:
        """Keep what holds messages from being collected, which would tell nobody.

        It is called at any instruction, so it takes no lock.
        """
        holders = [one for one, _ in self._living(AnyConsumer) if one._held > 0]
        self._held = holders if phase == "start" else []

    def _living(self, kind: type[X]) -> list[tuple[X, Place]]:
        """Return what was made of a kind and is not garbage, and where it was made."""
        known = [(made(), place) for made, place in self._made.copy().items()]
        return [(one, place) for one, place in known if isinstance(one, kind) and self._is_in(one)]

    def _is_in(self, made: Any) -> bool:
        """Return whether something is to be looked at."""
        channel = getattr(made, "channel", None)
        parent = channel._parent if isinstance(channel, Channel) else made
        return self._only in {None, getattr(parent, "_home", None)}

    def _if_counted(self, kind: str, find: Callable[[], list[X]]) -> list[X]:
        """Return what is found of a kind; nothing if that does not count."""
        return find() if kind in self.kinds else []

    # What is unfinished

    def look(self) -> list[Leak]:
        """Return what is unfinished."""
        if not self._made:
            return []
        finders: dict[str, Callable[[], list[Leak]]] = {
            "messages": lambda: _messages(self._consumers()),
            "waits": lambda: [wait.leak() for wait in self._waits()],
            "workers": lambda: [_worker_leak(*pair) for pair in self._workers()],
            "stores": lambda: self._open_brokers("stores"),
            "servers": lambda: [
                Leak("servers", f"{server!r}, not stopped, made at {place}", place)
                for server, place in self._servers()
            ],
            "brokers": lambda: self._open_brokers("brokers"),
        }
        return [leak for kind in KINDS for leak in self._if_counted(kind, finders[kind])]

    def _consumers(self) -> list[tuple[AnyConsumer[Any], Place]]:
        """Return the consumers but those of workers that run, which answer for themselves."""
        own = {id(worker._runner.supervisor.consumer) for worker, _ in self._workers()}
        return [(one, place) for one, place in self._living(AnyConsumer) if id(one) not in own]

    def _workers(self) -> list[tuple[Any, Place]]:
        """Return the workers that run."""
        module = sys.modules.get("nsqlite.worker.worker")
        workers = [] if module is None else self._living(module.Worker)
        return [(worker, place) for worker, place in workers if worker.running]

    def _servers(self) -> list[tuple[Any, Place]]:
        """Return the servers that serve."""
        module = sys.modules.get("nsqlite.server.nsqd")
        servers = [] if module is None else self._living(module.NSQD)
        return [(server, place) for server, place in servers if server.tcp_address is not None]

    def _open_brokers(self, kind: str) -> list[Leak]:
        return [
            Leak(kind, f"{broker!r}, not closed, made at {place}", place)
            for broker, place in self._living(Broker)
            if _kind_of(broker) == kind and not broker._closed
        ]

    def _waits(self) -> list["_Wait"]:
        """Return the calls that wait."""
        gets = [
            _Wait(f"get of {one!r}", place, one.close, waiter)
            for one, place in self._consumers()
            for waiter in one._monitor.read(one._queue.waiters.everybody)
            if waiter.owner is one and waiter.hand
        ]
        others = [
            _Wait(f"{call} of {topic!r}", place, topic.close, waiter)
            for topic, place in self._living(Topic)
            for call, waiter in topic._monitor.read(_callers, topic)
        ]
        waits = [wait for wait in (*gets, *others) if not wait.is_woken]
        stacks = _stacks(waits) if waits else []
        for wait in waits:
            wait.find(stacks)
        return waits

    def _look_and_clean(self) -> list[Leak]:
        """Return what is unfinished, and stop and close it."""
        found = self.look()
        if found:
            self._clean()
        return found

    def _clean(self) -> None:
        waits = self._if_counted("waits", self._waits)
        workers = self._if_counted("workers", self._workers)
        servers = self._if_counted("servers", self._servers)
        for worker, _ in workers:
            worker.stop(0)
        ends = [wait.end for wait in waits]
        consumers = self._if_counted("messages", self._consumers)
        ends += [one.close for one, _ in consumers if one._held > 0]
        _end(ends, [wait.thread for wait in waits if wait.thread is not None])
        for server, _ in servers:
            server.shutdown()
        for broker in self._kept:
            if self._only is None:
                broker.close(force=True)


class _Wait:
    """A call that waits.

    Attributes:
        end: ends it.
        thread: the thread that waits, None if that is not known or a task does.
    """

    def __init__(self, what: str, made: Place, end: Callable[[], object], waiter: Any) -> None:
        self.end: Final = end
        self.thread: threading.Thread | None = None
        self._what: Final = what
        self._made: Final = made
        self._waiter: Final = waiter
        self._who = "a task"
        self._place: Place | None = None

    @property
    def loop(self) -> Any:
        """The loop of the task that waits, None if a thread does."""
        return getattr(self._waiter, "loop", None)

    @property
    def is_woken(self) -> bool:
        """Whether it has an answer, and its thread is about to go on."""
        semaphore = getattr(self._waiter, "semaphore", None)
        return semaphore is not None and not semaphore.locked()

    def find(self, stacks: "list[_Stack]") -> None:
        """Find out who waits, and where."""
        for stack in stacks:
            if any(_has(frame, self._waiter) for frame in stack.frames):
                self._who, self.thread = stack.who, stack.thread
                self._place = next(filter(None, map(place_of, stack.frames)), None)

    def leak(self) -> Leak:
        at = "" if self._place is None else f" at {self._place}"
        text = f"{self._who} waits{at} in {self._what}, made at {self._made}"
        return Leak("waits", text, self._place or self._made)


class _Stack(NamedTuple):
    """What a thread or a task is at, the innermost frame first."""

    who: str
    thread: threading.Thread | None
    frames: list[FrameType]


def _stacks(waits: list[_Wait]) -> list[_Stack]:
    """Return the stacks of all other threads, and of the tasks of loops in which calls wait."""
    threads = look_at_threads(_thread_stacks)
    loops = {wait.loop for wait in waits} - {None}
    return threads + [stack for loop in loops for stack in _tasks(loop)]


def _thread_stacks(frames: dict[int, FrameType]) -> list[_Stack]:
    return [
        _Stack(f"thread {thread.name!r}", thread, list(_up(frames.get(thread.ident or 0))))
        for thread in threading.enumerate()
        if thread is not threading.current_thread()
    ]


def _tasks(loop: Any) -> list[_Stack]:
    """Return the stacks of the tasks of a loop."""
    import asyncio  # noqa: PLC0415 - only where something waits in a loop

    return [
        _Stack(f"task {task.get_name()!r}", None, list(_in(task.get_coro()))[::-1])
        for task in asyncio.all_tasks(loop)
    ]


def _up(frame: FrameType | None) -> Iterator[FrameType]:
    """Go from the innermost frame of a thread outwards."""
    while frame is not None:
        yield frame
        frame = frame.f_back


def _in(coroutine: Any) -> Iterator[FrameType]:
    """Go from a coroutine to what it awaits."""
    while (frame := getattr(coroutine, "cr_frame", None)) is not None:
        yield frame
        coroutine = coroutine.cr_await


def _has(frame: FrameType, value: object) -> bool:
    """Return whether a frame of nsqlite has something as one of its variables."""
    is_own = str(frame.f_globals.get("__name__")).startswith("nsqlite.")
    return is_own and any(one is value for one in frame.f_locals.values())


def _callers(topic: Topic[Any]) -> list[tuple[str, object]]:
    """Return the calls of put and join that wait.  The lock is held."""
    monitor = topic._monitor
    return [*(("put", one) for one in monitor.putters), *(("join", one) for one in monitor.joins)]


def _kind_of(broker: Broker) -> str:
    return "brokers" if broker._persistence is None else "stores"


def _worker_leak(worker: Any, place: Place) -> Leak:
    return Leak("workers", f"{worker!r}, made at {place}", place)


def _messages(consumers: Iterable[tuple[AnyConsumer[Any], Place]]) -> list[Leak]:
    """Return the messages in flight of some consumers."""
    return [
        Leak("messages", f"{_shown(message, one)}, made at {place}", place)
        for one, place in consumers
        if one._held > 0
        for message in one._monitor.read(_held, one)
    ]


def _held(consumer: AnyConsumer[Any]) -> list[Message[Any]]:
    """Return what a consumer was given and has not answered.  The lock is held."""
    queue = consumer._queue
    mine = [one for one in queue.timeouts if one._consumer is consumer]
    return [message for message in mine if message not in queue.waiters.handed]


def _shown(message: Message[Any], consumer: AnyConsumer[Any]) -> str:
    body = shown(message.body)
    return f"{message.id} with {body}, attempt {message.attempts}, in flight in {consumer!r}"


def _end(ends: Iterable[Callable[[], object]], threads: Iterable[threading.Thread]) -> None:
    """End calls, and wait for their threads, which need say nothing of that."""
    before = threading.excepthook
    threading.excepthook = lambda args: None if args.exc_type is Closed else before(args)
    try:
        _call(ends)
        _call(partial(thread.join, ENDING) for thread in threads)
    finally:
        threading.excepthook = before


def _call(calls: Iterable[Callable[[], object]]) -> None:
    for call in calls:
        call()


class no_leaks:  # noqa: N801 - a context manager that reads as a call, as `contextlib.suppress`
    """Raise at the end of the block if what was made in it leaves something behind.

        >>> import nsqlite
        >>> with no_leaks("brokers"), nsqlite.Broker() as broker:
        ...     orders = broker.topic("orders")

    These are messages in flight, threads and tasks that wait in get, put or join, workers that run,
    brokers with a store that are open, and servers that serve.  It is told where each was made, and
    then stopped or closed.  Where the block raises already, it is told in a note.

    A broker in memory needs no close to be forgotten, and counts only if that is asked for.

    ``@no_leaks()`` at a function, or a coroutine function, has each call looked at.  In a coroutine
    function the block is a plain ``with``, too.

    Threads: one; what other threads make meanwhile counts, too.
    """

    def __init__(self, leaks: bool | str | Iterable[str] = True) -> None:  # noqa: FBT002 - as `leaks=` of a mark
        """Make it; nothing is noted before the block.

        Args:
            leaks: what counts: True for the above, False for nothing; or the names of kinds, apart
                from each other or in one string: "messages", "waits", "workers", "stores",
                "servers", "brokers" (those in memory), "all", "none".

        Raises:
            InvalidOption: there is no such kind.
        """
        self._kinds: Final = chosen(leaks)
        self._trackers: Final[list[Tracker]] = []  # of the blocks that are open

    def __call__(self, function: F) -> F:
        """Return a function of which each call is such a block.

        Raises:
            InvalidOption: its call does not do what it is for: it is a generator function, or a
                class.
        """
        import inspect  # noqa: PLC0415 - only who decorates has it

        is_generator = inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function)
        if is_generator or isinstance(function, type) or not callable(function):
            expected = "a plain or a coroutine function (elsewhere write `with no_leaks():` inside)"
            raise InvalidOption("function", function, expected)

        def call(*args: Any, **kwargs: Any) -> Any:
            with self:
                return function(*args, **kwargs)

        async def call_async(*args: Any, **kwargs: Any) -> Any:
            with self:
                return await function(*args, **kwargs)

        return wraps(function)(call_async if inspect.iscoroutinefunction(function) else call)  # type: ignore[return-value]

    def __aenter__(self) -> Never:
        """Refuse ``async with``.

        Raises:
            TypeError: always.
        """
        raise TypeError("no_leaks() is for a plain `with`, in a coroutine function, too")

    __aexit__ = __aenter__  # else it would not come to that error

    def __enter__(self) -> None:
        """Begin to take note."""
        self._trackers.append(Tracker(self._kinds))
        self._trackers[-1].begin()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Raise an `AssertionError` if something is left behind; see the class."""
        __tracebackhide__ = True
        found = self._trackers.pop().end()
        if found and error is None:
            raise AssertionError(told(found))
        if found and error is not None:
            error.add_note(told(found))


def track() -> Callable[[], None]:
    """Warn at the end of the program of what was made from now on and is left behind then.

    A `ResourceWarning` is shown by ``python -X dev`` or ``-W default``.  Open stores and running
    workers warn without this, too; with it their warnings say where they were made.

    Returns:
        A function that ends it.
    """
    tracker = Tracker(USUAL - SELF_TOLD)
    tracker.resume()

    def warn() -> None:
        for leak in tracker.look():
            path, line = leak.place
            warnings.warn_explicit(f"left behind: {leak.text}", ResourceWarning, path, line)

    def stop() -> None:
        tracker.pause()
        atexit.unregister(warn)

    atexit.register(warn)
    return stop
