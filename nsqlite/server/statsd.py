"""What a daemon sends to statsd: the figures of `/stats`, over UDP (NSQ semantics §22).

The rule: no datagram is larger than the option says, unless a single line is; and what was counted
since the last push is sent once.

Each interval the datagrams of one push are spread evenly over all of it but a second, so that a
large daemon sends no burst that a network would drop.

A counter that is smaller than before, as that of a topic which was deleted and made again, counts
from 0.

Next: server/debug.py
"""

import asyncio
import logging
from asyncio import DatagramTransport
from collections.abc import Iterator, Mapping
from typing import Any, Final, Protocol

from nsqlite.names import is_ephemeral
from nsqlite.options import SECOND, Seconds, as_seconds
from nsqlite.server.alarms import LoopAlarm
from nsqlite.server.stats import StatsSource, Wanted, collect, memory

log: Final = logging.getLogger("nsqlite")

TOPIC_COUNTERS: Final = ("message_count", "message_bytes")
TOPIC_GAUGES: Final = ("depth", "backend_depth")
CHANNEL_COUNTERS: Final = ("message_count", "requeue_count", "timeout_count")
CHANNEL_GAUGES: Final = {
    "depth": "depth",
    "backend_depth": "backend_depth",
    "in_flight_count": "in_flight_count",
    "deferred_count": "deferred_count",
    "clients": "client_count",
}
"""Names for statsd, with the keys of `/stats`."""

Counters = dict[str, int]
"""What counters stood at, by their names."""


class Options(Protocol):
    """The options that matter here; times are in seconds."""

    @property
    def statsd_address(self) -> str:
        """Where to send, ``host:port``."""
        ...

    @property
    def statsd_prefix(self) -> str:
        """What stands before all names; ``%s`` is the daemon's address."""
        ...

    @property
    def statsd_interval(self) -> Seconds:
        """How often."""
        ...

    @property
    def statsd_mem_stats(self) -> bool:
        """Send memory, too."""
        ...

    @property
    def statsd_udp_packet_size(self) -> int:
        """How many bytes a datagram has at most."""
        ...

    @property
    def statsd_exclude_ephemeral(self) -> bool:
        """Leave ephemeral topics and channels out."""
        ...

    @property
    def broadcast_http_port(self) -> int:
        """The port that clients are told; 0 for the real one."""
        ...


class Daemon(StatsSource, Protocol):
    """What is sent of."""

    @property
    def options(self) -> Options:
        """Its options; they may change."""
        ...


class StatsdService:
    """Sends to statsd, from `start` until `stop`; a service of a node.

    Attributes:
        name: what a log calls it.
    """

    name: Final = "STATSD"

    def __init__(self, daemon: Daemon) -> None:
        """Begin with nothing sent."""
        self._daemon: Final = daemon
        self._counters: Counters = {}
        self._alarm: LoopAlarm | None = None
        self._task: asyncio.Task[None] | None = None
        self._transport: DatagramTransport | None = None
        self._unsent: list[bytes] = []
        self._pause = 0
        self._due = 0
        self._failed = False

    async def start(self) -> None:
        """Begin to send, after the first interval."""
        self._due = self._daemon.clock.monotonic_ns()
        self._wait()

    async def stop(self) -> None:
        """End; what is left of a push is not sent."""
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        self._close()

    def _wait(self) -> None:
        """Wait for the next interval."""
        interval = round(as_seconds(self._daemon.options.statsd_interval) * SECOND)
        self._due = max(self._due + interval, self._daemon.clock.monotonic_ns())
        self._alarm_at(self._due, self._begin)

    def _alarm_at(self, moment: int, callback: Any) -> None:
        self._alarm = LoopAlarm(self._daemon.clock, asyncio.get_running_loop(), moment, callback)

    def _begin(self) -> None:
        """Begin a push: find the address, which may take a while."""
        self._task = asyncio.get_running_loop().create_task(self._push())

    async def _push(self) -> None:
        """Begin to send a push, or leave it out if there is nowhere to send it."""
        options = self._daemon.options
        host, _, port = options.statsd_address.rpartition(":")
        loop = asyncio.get_running_loop()
        try:
            self._transport, _ = await loop.create_datagram_endpoint(
                lambda: _Receiver(self), remote_addr=(host.strip("[]"), int(port))
            )
        except (OSError, ValueError, OverflowError) as error:  # no such host, or no such port
            self.fail(error)
            self._wait()
            return
        log.debug("STATSD: pushing stats to %s", options.statsd_address)
        self._unsent = datagrams(self._lines(), options.statsd_udp_packet_size)
        span = max(0, round(as_seconds(options.statsd_interval) * SECOND) - SECOND)
        self._pause = span // max(1, len(self._unsent))
        self._send()

    def _send(self) -> None:
        """Send a datagram, and wait until the next one is due."""
        if self._unsent and self._transport is not None:
            self._transport.sendto(self._unsent.pop(0))
        if self._unsent:
            self._alarm_at(self._daemon.clock.monotonic_ns() + self._pause, self._send)
        else:
            self._close()
            self._wait()

    def _close(self) -> None:
        transport, self._transport = self._transport, None
        self._unsent = []
        if transport is not None:
            transport.close()

    def fail(self, error: Exception) -> None:
        """Have it logged once that nothing can be sent."""
        if not self._failed:
            self._failed = True
            address = self._daemon.options.statsd_address
            log.warning("STATSD: cannot send to %s: %s", address, error)

    def _lines(self) -> list[bytes]:
        """Return what is to be sent of the moment."""
        daemon = self._daemon
        options = daemon.options
        told = collect(daemon, Wanted(clients=False, memory=False))
        push = _Push(prefix_of(daemon), self._counters)
        for topic in told["topics"]:
            if not (options.statsd_exclude_ephemeral and is_ephemeral(topic["topic_name"])):
                push.add_topic(topic, leave_out=options.statsd_exclude_ephemeral)
        if options.statsd_mem_stats:
            push.add_memory(memory())
        self._counters = push.counters
        return push.lines


class _Receiver(asyncio.DatagramProtocol):
    """Hears of what could not be sent."""

    def __init__(self, service: StatsdService) -> None:
        self._service: Final = service

    def error_received(self, exc: Exception) -> None:
        """Take note that nobody is there."""
        self._service.fail(exc)


class _Push:
    """The lines of one push.

    Attributes:
        lines: what is sent.
        counters: what all counters stand at.
    """

    def __init__(self, prefix: str, before: Mapping[str, int]) -> None:
        self.lines: Final[list[bytes]] = []
        self.counters: Final[Counters] = {}
        self._prefix: Final = prefix
        self._before: Final = before

    def add_topic(self, topic: Mapping[str, Any], *, leave_out: bool) -> None:
        """Add a topic and its channels."""
        name = f"topic.{topic['topic_name']}"
        for key in TOPIC_COUNTERS:
            self._count(f"{name}.{key}", topic[key])
        for key in TOPIC_GAUGES:
            self._gauge(f"{name}.{key}", topic[key])
        self._add_latencies(name, topic)
        for channel in topic["channels"]:
            if not (leave_out and is_ephemeral(channel["channel_name"])):
                self._add_channel(f"{name}.channel.{channel['channel_name']}", channel)

    def _add_channel(self, name: str, channel: Mapping[str, Any]) -> None:
        for key in CHANNEL_COUNTERS:
            self._count(f"{name}.{key}", channel[key])
        for title, key in CHANNEL_GAUGES.items():
            self._gauge(f"{name}.{title}", channel[key])
        self._add_latencies(name, channel)

    def _add_latencies(self, name: str, place: Mapping[str, Any]) -> None:
        for one in place["e2e_processing_latency"]["percentiles"] or ():
            percent = f"{one['quantile'] * 100:.0f}"
            self._gauge(f"{name}.e2e_processing_latency_{percent}", int(one["value"]))

    def add_memory(self, figures: Mapping[str, int]) -> None:
        """Add memory."""
        for key, value in figures.items():
            if key == "gc_total_runs":
                self._count("mem.gc_runs", value)
            else:
                self._gauge(f"mem.{key}", value)

    def _count(self, name: str, value: int) -> None:
        """Add by how much a counter has risen."""
        before = self._before.get(name, 0)
        self.counters[name] = value
        self._add(name, value - before if value >= before else value, "c")

    def _gauge(self, name: str, value: int) -> None:
        self._add(name, value, "g")

    def _add(self, name: str, value: int, kind: str) -> None:
        self.lines.append(f"{self._prefix}{name}:{value}|{kind}\n".encode())


def prefix_of(daemon: Daemon) -> str:
    """Return what stands before all names, with a dot at its end unless it is empty."""
    options = daemon.options
    host = daemon.broadcast_address
    where = f"[{host}]" if ":" in host else host
    where = f"{where}:{options.broadcast_http_port or daemon.http_port}"
    prefix = options.statsd_prefix.replace("%s", where.replace(".", "_").replace(":", "_"))
    return prefix if not prefix or prefix.endswith(".") else f"{prefix}."


def datagrams(lines: list[bytes], size: int) -> list[bytes]:
    """Return lines as datagrams, each as full as it can be."""
    return [b"".join(part) for part in _parts(lines, size)]


def _parts(lines: list[bytes], size: int) -> Iterator[list[bytes]]:
    part: list[bytes] = []
    used = 0
    for line in lines:
        if part and used + len(line) > size:
            yield part
            part, used = [], 0
        part.append(line)
        used += len(line)
    if part:
        yield part
