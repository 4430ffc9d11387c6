"""Signals at every place of a call where CPython can let one in, one place after the other.

The rule: a strike is a signal, run by CPython's own check, and never an imitation of one.

*Where signals come in.*  A signal that has arrived is only noted.  Its Python handler runs when the
interpreter next looks: as a function begins (RESUME), as a loop goes round (JUMP_BACKWARD and, in
3.11, its kin) and when a call of C code has returned (CALL and its kin).  `CHECKS` names them.
Some C code looks by itself: the arithmetic of long integers, so `//` of nanoseconds is a place, and
every repr (`MAY_LOOK`).  The tests fail if they find another one.

*How one is struck.*  A first run of the call notes every instruction, in order.  Then, for each
moment that matters, the scene is made anew and the call is made again; a trace function that counts
the instructions has a signal noted right before the one of that moment, and stops tracing.  It does
so by reading a property whose getter is C code: reading an attribute is no place where CPython
looks, nor is returning.  So the next to look is the call that is tried, at whichever place CPython
does; the handler runs there, what it throws starts from there, and the exception tables decide as
they would for a user.  (An exception thrown by a trace function starts one instruction later; at
the end of a `with` or `try` another handler may be responsible there.)

*Which moments matter.*  A signal noted before an instruction that does not look stays noted, which
is the same as one noted before the next instruction.  So these are enough: the moments before an
instruction that looks, and those before the last one in a frame until another frame goes on (for
the C code in between looks at its end).  `strike(..., all_moments=True)` takes each and every one;
a test compares what both find.

*What it cannot see.*  C code that waits looks by itself when a signal wakes it up (as
`lock.acquire` does); a scene may put a function of its own in place of that (`strike_also`).  What
a handler throws into a finaliser or a callback of a weak reference goes nowhere, as in CPython.
The collector is off, so what is garbage in cycles is not destroyed inside a call.  CPython 3.11
replaces calls that it has seen often by quick ones, some of which do not look (`len`,
`list.append`), so code is made new before each run; in later versions tracing itself hinders that.
"""

import _thread
import dis
import gc
import os
import signal
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache, lru_cache, partial
from types import CodeType, FrameType, FunctionType
from typing import Any, Final, Generic, TypeVar

import attrs
import sortedcontainers  # type: ignore[import-untyped, unused-ignore]  # its stubs are optional

import nsqlite

S = TypeVar("S")

CHECKS: Final = frozenset(
    name
    for name in dis.opmap
    if name in {"RESUME", "CALL", "CALL_KW", "CALL_FUNCTION_EX", "JUMP_BACKWARD"}
    or name.startswith("POP_JUMP_BACKWARD")
)
"""The instructions at which CPython looks for signals; not all exist in each version."""

MAY_LOOK: Final = frozenset(
    {
        "BINARY_OP",  # `*`, `//` and `%` of integers beyond 30 bits
        "FORMAT_VALUE",  # the text of such integers, and every repr
        "FORMAT_SIMPLE",
        "FORMAT_WITH_SPEC",
        "CONVERT_VALUE",
        "PRECALL",  # makes a call in CPython 3.11, once it was made quick
    }
)
"""Those whose C code may look by itself."""

_SIGNAL: Final = signal.SIGTERM
_PLACES: Final = CHECKS | MAY_LOOK
_ROOTS: Final = tuple(
    os.path.dirname(str(package.__file__)) + os.sep  # noqa: PTH120 - a prefix of co_filename
    for package in (nsqlite, sortedcontainers)
)


class Struck(nsqlite.NSQLiteError):
    """Thrown by a signal handler, which may as well be an error of nsqlite that it let pass."""


def throw() -> None:
    """Be the handler of a signal that breaks off what it comes into."""
    raise Struck


class _Arrival(int):
    """The number of a signal, and how it arrives without that anybody looks."""

    now = property(_thread.interrupt_main)


_ARRIVAL: Final = _Arrival(_SIGNAL)


_also: Final[set[CodeType]] = set()


def strike_also(function: Any) -> Any:
    """Have a function of a test struck too, which stands for C code that looks for signals."""
    _also.add(function.__code__)
    return function


@cache
def _ours(code: CodeType) -> bool:
    """Return whether code is the package's, or of the containers that it is built on."""
    return code.co_filename.startswith(_ROOTS) or code in _also


@cache
def _instructions(code: CodeType) -> dict[int, str]:
    """Return the names of the instructions by their offsets; of prefixes that of what they extend.

    An operation that is no place where a signal can come in has no name.
    """
    found: dict[int, str] = {}
    prefixes: list[int] = []
    for instruction in dis.get_instructions(code):
        name = instruction.opname
        if name == "BINARY_OP" and instruction.argrepr[0] not in "*/%":
            name = ""
        for offset in (*prefixes, instruction.offset):
            found[offset] = name
        prefixes = [*prefixes, instruction.offset] if name == "EXTENDED_ARG" else []
    return found


def place_of(frame: FrameType) -> str:
    """Return where a frame is: function, line and instruction."""
    code = frame.f_code
    offsets = _instructions(code)
    name = offsets[max(offset for offset in offsets if offset <= frame.f_lasti)]
    module = os.path.basename(code.co_filename)  # noqa: PTH119 - the frame has a string
    return f"{module}:{frame.f_lineno} {code.co_qualname} {name}"


@attrs.define(eq=False)
class Run(Generic[S]):
    """What came of one call.

    Attributes:
        scene: what it was made on.
        place: where the signal came in, None if it did not or not in our code.
        value: what the call returned.
        error: what it raised.
    """

    scene: S
    place: str | None = None
    value: Any = None
    error: BaseException | None = None

    @property
    def outcome(self) -> str:
        """How it ended, in a word."""
        return "returned" if self.error is None else type(self.error).__name__


@attrs.define(eq=False)
class _Watch:
    """A trace function that counts instructions; until it has one of them struck, if it is to.

    Attributes:
        moment: before which instruction the signal arrives, None if it does not.
        count: the instructions so far.
        seen: for each of them its frame's number, its name, and where it is; not for a strike.
    """

    moment: int | None
    count: int = 0
    frames: int = 0
    seen: list[tuple[int, str, tuple[CodeType, int]]] = attrs.Factory(list)
    codes: set[CodeType] = attrs.Factory(set)

    def begin(self, frame: FrameType, event: str, _arg: object) -> Any:
        """Trace each instruction of a frame."""
        if event != "call":
            return None
        trace = self._noting() if self.moment is None else self._counting
        frame.f_trace = trace  # or CPython 3.13.0 does not heed the next line
        frame.f_trace_opcodes = True
        frame.f_trace_lines = False
        return trace

    def _noting(self) -> Any:
        self.frames += 1
        number = self.frames

        def note(frame: FrameType, event: str, _arg: object) -> Any:
            if event == "opcode":
                code = frame.f_code
                self.codes.add(code)
                name = _instructions(code)[frame.f_lasti]
                self.seen.append((number, name, (code, frame.f_lasti)))
            return note

        return note

    def _counting(self, _frame: FrameType, event: str, _arg: object) -> Any:
        if event == "opcode":
            if self.count == self.moment:
                sys.settrace(None)
                _ = _ARRIVAL.now  # the last thing here at which anything could look is above
                return None
            self.count += 1
        return self._counting

    def moments(self, often: int) -> list[int]:
        """Return before which of the instructions that were noted a signal makes a difference."""
        found = []
        times = Counter[object]()
        for moment, (frame, name, where) in enumerate(self.seen):
            after, following, then = self.seen[min(moment + 1, len(self.seen) - 1)]
            looks = name in _PLACES and (name, following) != ("PRECALL", "CALL")
            leaves = frame != after
            if (looks or leaves) if _ours(where[0]) else (leaves and _ours(then[0])):
                way = where, then[0]  # a call can lead to other functions the next time
                times[way] += 1
                if times[way] <= often:
                    found.append(moment)
        return found


def _cold(code: CodeType) -> CodeType:
    """Return code that CPython 3.11 has not yet made quick."""
    inner = (_cold(each) if isinstance(each, CodeType) else each for each in code.co_consts)
    return code.replace(co_consts=tuple(inner))


@lru_cache(1)
def _functions(modules: int) -> list[FunctionType]:  # noqa: ARG001 - what is loaded later counts
    """Return the functions of the package, but closures; to look for them takes 25 ms."""
    return [
        it
        for it in gc.get_objects()
        if isinstance(it, FunctionType) and _ours(it.__code__) and it.__closure__ is None
    ]


def _forget(lost: Any, hook: Callable[[Any], object]) -> None:
    """Let go of what was thrown into a finaliser, if it was ours."""
    if not isinstance(lost.exc_value, Struck):
        hook(lost)


def _run(
    scene: S,
    call: Callable[[S], object],
    watch: _Watch,
    hit: Callable[[], object],
    warm: list[FunctionType],
) -> Run[S]:
    """Make a call under a trace function."""
    run = Run(scene)

    def handle(_signum: int, frame: FrameType | None) -> None:
        sys.settrace(None)
        assert frame is not None
        if _ours(frame.f_code):
            run.place = place_of(frame)
            hit()

    for function in warm:
        function.__code__ = _cold(function.__code__)
    sys._getframe().f_trace_opcodes = True  # or CPython 3.12 does not tell of instructions at all
    traced_by = sys.gettrace()
    hook, sys.unraisablehook = sys.unraisablehook, lambda lost: _forget(lost, hook)
    before = signal.signal(_SIGNAL, handle)
    try:
        sys.settrace(watch.begin)
        run.value = call(scene)
        sys.settrace(None)  # a signal that has arrived is handled here at the latest, to no effect
    except BaseException as error:
        run.error = error
    finally:
        sys.settrace(None)
        signal.signal(_SIGNAL, before)
        sys.unraisablehook = hook
        sys.settrace(traced_by)
    return run


def strike(
    fresh: Callable[[], S],
    call: Callable[[S], object],
    hit: Callable[[S], object] = lambda _scene: throw(),
    *,
    drop: Callable[[S], object] = lambda _scene: None,
    often: int = sys.maxsize,
    all_moments: bool = False,
) -> Iterator[Run[S]]:
    """Make a call on fresh scenes, each time struck at another place; first of all not at all.

    Args:
        fresh: makes a scene, always the same.
        call: makes the one call that is struck; it does on each scene the same.
        hit: the handler of the signal.
        drop: takes a scene that is not yielded.
        often: how often an instruction that is passed again and again is struck.
        all_moments: try each moment, also where that can make no difference.

    Yields:
        What came of each run, before the next scene is made.  Those that were not struck (for a
        signal that arrives at the very end) are left out, but for the first.
    """
    drop(_run(fresh(), call, _Watch(None), lambda: None, []).scene)  # now what is cached is
    watch = _Watch(None)
    collects = gc.isenabled()
    gc.disable()
    try:
        yield _run(fresh(), call, watch, lambda: None, [])
        warm: list[FunctionType] = []
        if sys.version_info < (3, 12):
            warm = [it for it in _functions(len(sys.modules)) if it.__code__ in watch.codes]
        for moment in range(len(watch.seen)) if all_moments else watch.moments(often):
            scene = fresh()
            run = _run(scene, call, _Watch(moment), partial(hit, scene), warm)
            if run.place is None:
                drop(scene)
            else:
                yield run
    finally:
        if collects:
            gc.enable()
