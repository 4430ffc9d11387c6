"""What nsqd tells of itself: topics, channels, clients and memory, as JSON's data and as text.

The rule: the keys, their order, their types and every space are nsqd's, and nothing that is told
names a file of this machine.

What differs in the figures:

- `pub_counts` lists every topic that a client publishes to; nsqd lists one of them;
- `clients` has the consumers of this process, too, where a program serves the broker that it uses.

Memory is told by Python's nearest figures: `heap_objects` is how many blocks its allocator has
given out, `heap_in_use_bytes` what is resident of the process, and `heap_idle_bytes` and
`heap_released_bytes` how much that is below its highest.  `gc_total_runs` counts the collections of
all generations.  Python does not measure its pauses, and does not plan a collection by bytes: these
figures are 0.

Next: server/metrics.py
"""

import gc
import sys
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol

from nsqlite._version import __version__
from nsqlite.broker import Broker
from nsqlite.clock import Clock
from nsqlite.options import MILLISECOND, SECOND
from nsqlite.stats import ChannelStats, ClientStats, TopicStats
from nsqlite.wire.go import duration_text

MEMORY: Final = (
    "heap_objects",
    "heap_idle_bytes",
    "heap_in_use_bytes",
    "heap_released_bytes",
    "gc_pause_usec_100",
    "gc_pause_usec_99",
    "gc_pause_usec_95",
    "next_gc_bytes",
    "gc_total_runs",
)
"""The keys of memory, in nsqd's order."""

UNSTORED: Final = "NOK - the store cannot be written"
"""What is told where the store says more, which names its file."""


class Reader(Protocol):
    """What is known here of a client's consumer."""

    @property
    def client_id(self) -> int:
        """Its number in its channel's stats."""
        ...


class Client(Protocol):
    """What is known here of a client's connection."""

    @property
    def consumer(self) -> Reader | None:
        """What it gets messages with; None if it has not subscribed."""
        ...

    @property
    def pub_counts(self) -> Mapping[str, int]:
        """How many messages it has published, by topic."""
        ...

    def stats(self) -> dict[str, Any]:
        """Return what is told of it, with nsqd's keys in nsqd's order."""
        ...


class StatsSource(Protocol):
    """What is told of: a daemon."""

    @property
    def broker(self) -> Broker:
        """Its topics."""
        ...

    @property
    def connections(self) -> Iterable[Client]:
        """The open ones."""
        ...

    @property
    def clock(self) -> Clock:
        """What it takes the time from."""
        ...

    @property
    def hostname(self) -> str:
        """The name of its machine."""
        ...

    @property
    def broadcast_address(self) -> str:
        """Where clients find it."""
        ...

    @property
    def http_port(self) -> int:
        """Its real port: -1 for a unix socket, 0 if it has none."""
        ...

    @property
    def version(self) -> str:
        """The version of NSQ that it is for its clients."""
        ...

    @property
    def health(self) -> str:
        """`Broker.health`."""
        ...

    @property
    def start_time(self) -> int:
        """Since when it runs, in whole seconds since the epoch."""
        ...


class Wanted(NamedTuple):
    """What is asked for.

    Attributes:
        topic: the only topic that is told of; empty for all.
        channel: the only channel; topics that do not have it are left out; empty for all.
        clients: tell of clients.
        memory: tell of memory.
    """

    topic: str = ""
    channel: str = ""
    clients: bool = True
    memory: bool = True


ALL: Final = Wanted()


def collect(daemon: StatsSource, wanted: Wanted = ALL) -> dict[str, Any]:
    """Return what `/stats` tells as JSON's data.

    A store that has topics which nobody asked for yet is read for that.
    """
    topics = _topics(daemon.broker, wanted)
    told: dict[str, Any] = {
        "version": daemon.version,
        "health": health_of(daemon),
        "start_time": daemon.start_time,
        "topics": None if topics is None else _told_topics(daemon, wanted, topics),
    }
    if wanted.memory:
        told["memory"] = memory()
    told["producers"] = None if topics is None else _producers(daemon, wanted)
    return told


def health_of(daemon: StatsSource) -> str:
    """Return ``OK``, or ``NOK - `` and what is wrong, without the names of files."""
    health = daemon.health
    return UNSTORED if health.startswith("NOK - store ") else health


def _topics(broker: Broker, wanted: Wanted) -> tuple[TopicStats, ...] | None:
    """Return the topics that are told of, None if there is none of the name."""
    if not wanted.topic:
        return broker.stats().topics
    found = broker._find(wanted.topic)
    return None if found is None else (found.stats(),)


def _told_topics(
    daemon: StatsSource, wanted: Wanted, topics: Iterable[TopicStats]
) -> list[dict[str, Any]]:
    """Return topics as data."""
    clients = {
        client.consumer.client_id: client
        for client in daemon.connections
        if client.consumer is not None
    }
    told = []
    for topic in topics:
        channels = [one for one in topic.channels if wanted.channel in {"", one.channel_name}]
        if channels or not wanted.channel:
            told.append(
                topic.to_dict()
                | {"channels": [_told_channel(daemon, wanted, one, clients) for one in channels]}
            )
    return told


def _told_channel(
    daemon: StatsSource, wanted: Wanted, channel: ChannelStats, clients: Mapping[int, Client]
) -> dict[str, Any]:
    """Return a channel as data."""
    if not wanted.clients:
        return channel.to_dict() | {"clients": None}
    told = []
    for reader in channel.clients:
        client = clients.get(reader.client_id)
        told.append(
            _own_consumer(daemon, reader) if client is None else _told_client(client, wanted)
        )
    return channel.to_dict() | {"clients": told}


def _told_client(client: Client, wanted: Wanted) -> dict[str, Any]:
    """Return a client as data, with what it publishes to the topics that are told of."""
    told = client.stats()
    if wanted.topic and "pub_counts" in told:
        counts = [one for one in told["pub_counts"] if one["topic"] == wanted.topic]
        if counts:
            told["pub_counts"] = counts
        else:
            del told["pub_counts"]
    return told


def _own_consumer(daemon: StatsSource, reader: ClientStats) -> dict[str, Any]:
    """Return a consumer of this process as data, as if it were a client."""
    counts = reader.to_dict()
    return {
        "client_id": reader.name or counts["client_id"],
        "hostname": daemon.hostname,
        "version": "V2",
        "remote_address": f"in-process:{reader.client_id}",
        **{key: value for key, value in counts.items() if key != "client_id"},
        "sample_rate": 0,
        "deflate": False,
        "snappy": False,
        "user_agent": f"nsqlite/{__version__}",
        "topology_zone": "",
        "topology_region": "",
        "tls": False,
        "tls_cipher_suite": "",
        "tls_version": "",
        "tls_negotiated_protocol": "",
        "tls_negotiated_protocol_is_mutual": False,
    }


def _producers(daemon: StatsSource, wanted: Wanted) -> list[dict[str, Any]] | None:
    """Return the clients that have published, None if there is none."""
    if not wanted.clients:
        return None
    told = [_told_client(client, wanted) for client in daemon.connections if client.pub_counts]
    return told or None


def memory() -> dict[str, int]:
    """Return what is known of this process's memory, with nsqd's keys; see the module."""
    resident, highest = resident_bytes()
    below = max(0, highest - resident)
    runs = sum(generation["collections"] for generation in gc.get_stats())
    figures = (sys.getallocatedblocks(), below, resident, below, 0, 0, 0, 0, runs)
    return dict(zip(MEMORY, figures, strict=True))


def resident_bytes(status: Path = Path("/proc/self/status")) -> tuple[int, int]:
    """Return how many bytes of this process are resident, and were at most.

    Args:
        status: what the system tells of it, if it is Linux.

    Returns:
        The highest for both where the system tells no more; 0 where it tells nothing.
    """
    try:
        lines = status.read_text("ascii").splitlines()
    except OSError:
        highest = _highest_bytes()
        return highest, highest
    told = dict(line.partition(":")[::2] for line in lines)
    return _kilobytes(told.get("VmRSS", "")), _kilobytes(told.get("VmHWM", ""))


def _kilobytes(text: str) -> int:
    """Return the bytes of a figure like ``1234 kB``."""
    return int(text.split(maxsplit=1)[0]) * 1024 if text else 0


def _highest_bytes() -> int:
    """Return how many bytes of this process were resident at most; 0 if nobody knows."""
    try:
        import resource  # noqa: PLC0415 - Windows has none
    except ImportError:
        return 0
    highest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return highest if sys.platform == "darwin" else highest * 1024


# As text


def as_text(told: Mapping[str, Any], now_ns: int) -> str:
    """Return what was collected as nsqd's text.

    Args:
        told: what `collect` has returned.
        now_ns: the wall's time.
    """
    parts = [
        f"{version_line(told['version'])}\n",
        f"start_time {rfc3339(told['start_time'])}\n",
        f"uptime {duration_text(max(0, now_ns - told['start_time'] * SECOND))}\n",
        f"\nHealth: {told['health']}\n",
    ]
    if "memory" in told:
        parts.append("\nMemory:\n")
        parts += [f"   {name:<25}\t{value}\n" for name, value in told["memory"].items()]
    topics = told["topics"] or ()
    parts.append("\nTopics:" if topics else "\nTopics: None\n")
    parts += [_topic_text(topic, now_ns) for topic in topics]
    producers = told["producers"] or ()
    parts.append("\nProducers:\n" if producers else "\nProducers: None\n")
    parts += [f"   {_client_text(client, now_ns)}\n" for client in producers]
    return "".join(parts)


def version_line(version: str) -> str:
    """Return a version as nsqd tells it, with what it runs on."""
    return f"nsqd v{version} (built w/python{sys.version.split()[0]})"


def rfc3339(seconds: int) -> str:
    """Return a moment since the epoch in this machine's zone, as ``2006-01-02T15:04:05Z``."""
    text = datetime.fromtimestamp(seconds, UTC).astimezone().isoformat()
    return text.removesuffix("+00:00") + "Z" if text.endswith("+00:00") else text


def _topic_text(topic: Mapping[str, Any], now_ns: int) -> str:
    """Return the lines of a topic and its channels, after an empty one."""
    paused = "*P " if topic["paused"] else "   "
    line = (
        f"\n{paused}[{topic['topic_name']:<15}] depth: {topic['depth']:<5}"
        f" be-depth: {topic['backend_depth']:<5} msgs: {topic['message_count']:<8}"
        f" e2e%: {_latency_text(topic)}\n"
    )
    return "".join([line, *(_channel_text(channel, now_ns) for channel in topic["channels"])])


def _channel_text(channel: Mapping[str, Any], now_ns: int) -> str:
    """Return the lines of a channel and its clients."""
    paused = "   *P " if channel["paused"] else "      "
    line = (
        f"{paused}[{channel['channel_name']:<25}] depth: {channel['depth']:<5}"
        f" be-depth: {channel['backend_depth']:<5} inflt: {channel['in_flight_count']:<4}"
        f" def: {channel['deferred_count']:<4} re-q: {channel['requeue_count']:<5}"
        f" timeout: {channel['timeout_count']:<5} msgs: {channel['message_count']:<8}"
        f" e2e%: {_latency_text(channel)}\n"
    )
    clients = channel["clients"] or ()
    return "".join([line, *(f"        {_client_text(one, now_ns)}\n" for one in clients)])


def _client_text(client: Mapping[str, Any], now_ns: int) -> str:
    """Return a client in a line: what it publishes if it does, else what it consumes."""
    _, colon, port = client["remote_address"].rpartition(":")
    name = f"{client['hostname']}:{port if colon else ''} {client['user_agent']}"
    seconds = max(0, now_ns // SECOND - client["connect_ts"])
    connected = duration_text(seconds * SECOND)
    counts = client.get("pub_counts")
    if counts:
        topics = ",".join(f"{one['topic']}={one['count']}" for one in counts)
        total = sum(one["count"] for one in counts)
        return f"[V2 {name:<21}] msgs: {total:<8} topics: {topics} connected: {connected}"
    return (
        f"[V2 {name:<21}] state: {client['state']} inflt: {client['in_flight_count']:<4}"
        f" rdy: {client['ready_count']:<4} fin: {client['finish_count']:<8}"
        f" re-q: {client['requeue_count']:<8} msgs: {client['message_count']:<8}"
        f" connected: {connected}"
    )


def _latency_text(place: Mapping[str, Any]) -> str:
    """Return the percentiles of a topic or channel."""
    percentiles = place["e2e_processing_latency"]["percentiles"] or ()
    return ", ".join(_short(one["value"]) for one in percentiles)


def _short(ns: float) -> str:
    """Return a time with one decimal, in the unit that fits."""
    for unit, size in (("s", SECOND), ("ms", MILLISECOND), ("us", 1_000)):
        if ns > size:
            return f"{ns / size:.1f}{unit}"
    return f"{ns:.1f}ns"
