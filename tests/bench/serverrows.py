"""The rows about nsqd's address: what is compared with what, and what it must come to.

The rule: what is measured is real time, from the first byte that is sent to the last answer; the
servers of a line run beside each other, and are loaded in turns.

Where little is under way, the time is that of waking up: if the system has server and load on two
processors, each of which falls asleep meanwhile, a round trip takes three times as long as on one,
and it changes its mind.  So in these rows all processes are kept on one processor, unless
`--spread` is said.

A bound is told as the least part of the other's rate, as rates are what servers are known by.

Next: wheels.py
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, nullcontext
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, TypeAlias

import attrs
import crowds
import load
import servers
import starts
from load import BATCH, FRAME, UNDER_WAY, WINDOW, Client
from servers import Server
from table import Bound, Line, Unit, ratio_line
from timing import Run, Scale, compare

DEEP: Final = 100
CROWD: Final = 10
"""How many publish at once, where several do."""

TICK: Final = 0.5
"""Seconds by which heartbeats may be late, at the most."""

BEAT: Final = 30
"""Seconds between two heartbeats, as clients have them by default."""

Load: TypeAlias = Callable[[Server, Scale], float]
"""Loads a server, and returns the seconds for each message or request."""

Serving: TypeAlias = Callable[[], AbstractContextManager[Server]]
"""Starts a server."""


@attrs.frozen(kw_only=True)
class Setting:
    """What all rows have in common.

    Attributes:
        scale: how much is done.
        go_nsqd: the path of Go's nsqd, if there is one.
        spread: the system may run the processes wherever it likes.
    """

    scale: Scale
    go_nsqd: str | None
    spread: bool

    def processors(self) -> AbstractContextManager[None]:
        """Return in which context servers are started and loaded, where little is under way."""
        return nullcontext() if self.spread else servers.on_one_processor()


def of_rate(must: float, hope: float) -> Bound:
    """Return what must be reached of another's rate, as a bound of times."""
    return Bound(1 / must, 1 / hope)


# How a server is loaded


def _published(
    command: Callable[[str], bytes], under_way: int, connections: int, count: int, server: Server
) -> float:
    """Publish to a new topic that has a channel; return the seconds for all."""
    topic = load.new_topic()
    with ExitStack() as stack:
        stack.enter_context(Client(server.tcp)).subscribe(topic)
        clients = [stack.enter_context(Client(server.tcp)) for _ in range(connections)]
        elapsed = load.pipelined(clients, command(topic), count, under_way)
    load.delete(server.http, topic)
    return elapsed


def batches(connections: int) -> Load:
    """Publish in batches."""

    def run(server: Server, scale: Scale) -> float:
        count = scale.sent // BATCH // connections
        publish = load.publish_batch
        elapsed = _published(publish, UNDER_WAY, connections, count, server)
        return elapsed / (count * BATCH * connections)

    return run


def singles(under_way: int, connections: int = 1) -> Load:
    """Publish one by one."""

    def run(server: Server, scale: Scale) -> float:
        count = scale.sent // (20 if under_way == 1 else 4) // connections
        elapsed = _published(load.publish, under_way, connections, count, server)
        return elapsed / (count * connections)

    return run


def consuming(server: Server, scale: Scale) -> float:
    """Get and finish what was published before."""
    topic = load.new_topic()
    with Client(server.tcp) as consumer, Client(server.tcp) as publisher:
        consumer.subscribe(topic)
        load.fill(publisher, topic, scale.sent + 2 * WINDOW)
        elapsed = load.consumed(consumer, scale.sent)
    load.delete(server.http, topic)
    return elapsed / scale.sent


def turns(server: Server, scale: Scale) -> float:
    """Publish, get and finish one at a time."""
    topic = load.new_topic()
    count = scale.sent // 40
    with Client(server.tcp) as consumer, Client(server.tcp) as publisher:
        consumer.subscribe(topic)
        elapsed = load.turns(publisher, consumer, topic, count)
    load.delete(server.http, topic)
    return elapsed / count


def pings(server: Server, scale: Scale) -> float:
    """Ask how it is."""
    count = scale.sent // 40
    return load.requested(server.http, load.ping(), count) / count


def posts(server: Server, scale: Scale) -> float:
    """Publish by HTTP."""
    topic = load.new_topic()
    count = scale.sent // 40
    with Client(server.tcp) as consumer:
        consumer.subscribe(topic)
        elapsed = load.requested(server.http, load.post(topic), count)
    load.delete(server.http, topic)
    return elapsed / count


def echoing(frame: bytes, messages: int, under_way: int) -> Load:
    """Have an echo send frames back.

    Args:
        frame: what is sent in one piece.
        messages: how many frames that is.
        under_way: how many pieces may not be back.
    """

    def run(server: Server, scale: Scale) -> float:
        count = max(scale.sent // messages, under_way)
        return load.echoed(server.tcp, frame, count, under_way) / (count * messages)

    return run


# The rows whose servers are loaded in turns


@attrs.frozen(kw_only=True)
class Loaded:
    """A row: a load, and what is said of it.

    Attributes:
        work: what is done.
        load: does it.
        go: what must be kept beside Go's nsqd; None for a note.
        echo: what the echo does, if it is compared with that.
        must: what must be kept beside the echo.
        few: little is under way.
        stored: there is a store.
    """

    work: str
    load: Load
    go: Bound | None = None
    echo: Load | None = None
    must: Bound | None = None
    few: bool = False
    stored: bool = False

    def others(self, go_nsqd: str | None) -> Iterator[tuple[str, Serving, Load, Bound | None]]:
        """Return what it is compared with: its name, what starts and loads it, and the bound."""
        if self.echo is not None:
            yield "asyncio echo", servers.echo, self.echo, self.must
        if self.stored:
            yield "so, not stored", servers.nsqlite, self.load, None
        else:
            yield "asyncio, no queue", servers.bare, self.load, None
        if go_nsqd is not None:
            serving = partial(servers.go_nsqd, go_nsqd, stored=self.stored)
            yield "Go's nsqd", serving, self.load, self.go


LOADED: Final = {
    "mpub": Loaded(
        work="MPUB, 200 of 200 bytes, 4 under way",
        load=batches(1),
        go=of_rate(0.8, 1),
        echo=echoing(load.frames(BATCH), BATCH, UNDER_WAY),
        must=of_rate(0.6, 0.75),
    ),
    "mpub-4": Loaded(work="so, 4 connections", load=batches(4)),
    "sub": Loaded(
        work="SUB, RDY 2500, each finished",
        load=consuming,
        go=of_rate(0.7, 1),
        echo=echoing(load.frames(1, FRAME - 4), 1, WINDOW),
        must=of_rate(0.35, 0.45),
    ),
    "pub": Loaded(work="PUB, one at a time", load=singles(1), go=of_rate(0.75, 1), few=True),
    "pub-10": Loaded(work="so, 10 connections", load=singles(1, CROWD), few=True),
    "deep": Loaded(
        work="PUB, 100 under way",
        load=singles(DEEP),
        go=of_rate(2.5, 4),
        echo=echoing(load.frames(1), 1, DEEP),
        must=of_rate(0.28, 0.4),
        few=True,
    ),
    "turn": Loaded(
        work="PUB, delivered, FIN, in turn", load=turns, go=of_rate(0.35, 0.6), few=True
    ),
    "ping": Loaded(work="GET /ping, one connection", load=pings, go=of_rate(0.2, 0.3), few=True),
    "post": Loaded(work="POST /pub, one connection", load=posts, go=of_rate(0.2, 0.3), few=True),
}


def _stored(name: str, go: Bound) -> Loaded:
    row = LOADED[name]
    return attrs.evolve(row, work=f"{row.work}, stored", go=go, echo=None, stored=True)


STORED: Final = {
    "store-mpub": _stored("mpub", of_rate(0.6, 0.9)),
    "store-sub": _stored("sub", of_rate(0.5, 0.7)),
    "store-deep": _stored("deep", of_rate(1, 2)),
    "store-pub": _stored("pub", of_rate(0.25, 0.4)),
}


def loaded(row: Loaded, name: str, setting: Setting) -> Iterator[Line]:
    """Load nsqlite and each of the others in turns."""
    scale = setting.scale
    ours = servers.stored_nsqlite if row.stored else servers.nsqlite
    for text, serving, other_load, bound in row.others(setting.go_nsqd):
        with (
            setting.processors() if row.few else nullcontext(),
            ours() as mine,
            serving() as other,
        ):
            first, second = partial(row.load, mine, scale), partial(other_load, other, scale)
            result = compare(first, second, scale.store_pairs)
        yield ratio_line(name, row.work, text, result, bound=bound)


# Consumers that wait


def crowd(name: str, setting: Setting) -> Iterator[Line]:
    """Deliver a message while very many wait for one, and while one does."""
    scale, go_nsqd = setting.scale, setting.go_nsqd
    many = min(scale.consumers, crowds.raise_limit())
    kinds: list[tuple[str, Serving, Bound | None]]
    kinds = [("", servers.nsqlite, Bound(4, 2))]
    if go_nsqd is not None:
        kinds.append((", Go", partial(servers.go_nsqd, go_nsqd), None))
    for kind, serving, bound in kinds:
        with ExitStack() as stack:
            stack.enter_context(setting.processors())
            among, alone = (
                _delivering(stack, stack.enter_context(serving()), count, scale)
                for count in (many, 1)
            )
            result = compare(among, alone, scale.store_pairs)
        work = f"PUB, delivered, FIN, {many:,} wait{kind}"
        yield ratio_line(name, work, "1 waits", result, bound=bound)


def _delivering(stack: ExitStack, server: Server, waiting: int, scale: Scale) -> Run:
    """Return what publishes to a channel where so many wait, until the stack is closed."""
    topic = load.new_topic()
    crowd = stack.enter_context(crowds.Crowd(server.tcp, topic, waiting))
    publisher = stack.enter_context(Client(server.tcp))
    count = scale.sent // 200
    return lambda: crowd.deliveries(publisher, count) / count


def idle(name: str, setting: Setting) -> Iterator[Line]:
    """Have consumers wait, and answer heartbeats: the processor time, and the memory for each."""
    if not Path("/proc/self/stat").exists():
        return
    scale, go_nsqd = setting.scale, setting.go_nsqd
    most = crowds.raise_limit()
    kinds: list[tuple[str, Serving, bool]]
    kinds = [("", servers.nsqlite, True)]
    if go_nsqd is not None:
        kinds.append((", Go", partial(servers.go_nsqd, go_nsqd), False))
    for kind, serving, judged in kinds:
        for count, share in ((scale.consumers // 10, 0.0025), (scale.consumers, 0.015)):
            with serving() as server:
                found = _idle(server, min(count, most), scale)
            work = f"{min(count, most):,} wait, a heartbeat each {BEAT} s{kind}"
            bound = Bound(share, share) if judged else None
            yield _figure(name, work, found.share, "%", bound)
            yield _figure(name, f"so, one after the other{kind}", found.spread, "%", None)
            work = f"the memory for each of {min(count, most):,}{kind}"
            bound = Bound(12 << 10, 8 << 10) if judged else None
            yield _figure(name, work, found.memory, "B", bound)


@attrs.frozen
class Idle:
    """What consumers cost that wait.

    Attributes:
        share: of a processor, in all, where they have connected together, and so do heartbeats.
        spread: the same where both are spread evenly; what this costs more is waking up.
        memory: bytes for each.
    """

    share: float
    spread: float
    memory: float


def _idle(server: Server, count: int, scale: Scale) -> Idle:
    """Watch a server over one interval of heartbeats, which is shorter than it is usually.

    What the server needs with nobody there does not become less with fewer heartbeats, the rest
    does.
    """
    topic = load.new_topic()
    with crowds.Crowd(server.tcp, topic, 20):
        pass
    with crowds.Crowd(server.tcp, topic, 0) as nobody:
        alone = _share(server, nobody, scale)
    before = server.memory()
    beat = scale.beat * 1000
    with crowds.Crowd(server.tcp, topic, count, beat=beat) as waiting:
        memory = (server.memory() - before) / count
        together = _share(server, waiting, scale, at_least=count // 2)
    with crowds.Crowd(server.tcp, topic, count, beat=beat, over=scale.beat) as waiting:
        spread = _share(server, waiting, scale, at_least=count // 2)
    share, evenly = (alone + (used - alone) * scale.beat / BEAT for used in (together, spread))
    return Idle(share, evenly, memory)


def _share(server: Server, waiting: crowds.Crowd, scale: Scale, *, at_least: int = 0) -> float:
    """Return the share of a processor that a server has while these wait."""
    before = server.processor_time()
    seconds = scale.beat + TICK  # all have had one by then
    beats = waiting.watch(seconds)
    if beats < at_least:
        raise load.BadAnswer(f"{beats} heartbeats have come, not {at_least} at least")
    return (server.processor_time() - before) / seconds


def _figure(name: str, work: str, ours: float, unit: Unit, bound: Bound | None) -> Line:
    return Line(name=name, work=work, ours=ours, unit=unit, judged=ours, bound=bound, absolute=True)


# The beginning


def start(name: str, setting: Setting) -> Iterator[Line]:
    """Start a process until it answers."""
    kinds: list[tuple[str, starts.Command, Bound | None]] = [
        ("with HTTP", starts.WITH_HTTP, Bound(1.6, 1.6)),
        ("without HTTP", starts.WITHOUT_HTTP, Bound(0.9, 0.9)),
    ]
    with TemporaryDirectory() as directory:
        if setting.go_nsqd is not None:
            go_nsqd = (setting.go_nsqd, *servers.ADDRESSES, f"--data-path={directory}")
            kinds.append(("Go's", go_nsqd, None))
        for kind, command, bound in kinds:
            ours, theirs = starts.answering(command), starts.importing("import aiohttp")
            result = compare(ours, theirs, setting.scale.pairs)
            work = f"a process until it answers, {kind}"
            yield ratio_line(name, work, "import aiohttp", result, bound=bound, unit="ms")


Measuring: TypeAlias = Callable[[str, Setting], Iterator[Line]]
"""Measures a row by its name."""

ROWS: Final[dict[str, Measuring]] = {
    **{f"server/{name}": partial(loaded, row) for name, row in {**LOADED, **STORED}.items()},
    "server/crowd": crowd,
    "server/idle": idle,
    "server/start": start,
}
