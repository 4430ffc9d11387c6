"""What nsqd tells of itself: keys and types, filters, and the text to the space."""

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from nsqlite import Broker, Consumer, StoreFull, __version__
from nsqlite.options import SECOND
from nsqlite.server.stats import (
    MEMORY,
    Wanted,
    as_text,
    collect,
    health_of,
    memory,
    resident_bytes,
    rfc3339,
    version_line,
)
from nsqlite.testing import FaultyStore, MemoryStore
from server.daemons import START, Client, Daemon

TOPIC: Final = (
    "topic_name channels depth backend_depth message_count message_bytes paused"
    " e2e_processing_latency"
)
CHANNEL: Final = (
    "channel_name depth backend_depth in_flight_count deferred_count message_count requeue_count"
    " timeout_count client_count clients paused e2e_processing_latency"
)
CLIENT: Final = (
    "client_id hostname version remote_address state ready_count in_flight_count message_count"
    " finish_count requeue_count connect_ts sample_rate deflate snappy user_agent topology_zone"
    " topology_region tls tls_cipher_suite tls_version tls_negotiated_protocol"
    " tls_negotiated_protocol_is_mutual"
)


@pytest.fixture
def daemon() -> Daemon:
    """Make a daemon with two topics, a client that consumes and publishes, and one that is idle."""
    daemon = Daemon()
    orders = daemon.broker.topic("orders")
    consumer = Consumer(orders.channel("billing"))
    orders.channel("audit").pause()
    daemon.broker.topic("alarms").pause()
    orders.put_many([b"tea", b"milk"])
    daemon.clock.advance(0.25)
    consumer.get(timeout=0).fin()
    daemon.connections += [
        Client(consumer.client_id, {"orders": 2, "alarms": 3}),
        Client(),
        Client(pub_counts={"alarms": 1}),
    ]
    keep.append(consumer)
    return daemon


keep: list[Consumer[Any]] = []


@pytest.fixture(autouse=True)
def forget() -> Iterator[None]:
    """Keep the consumers of a test as long as it runs."""
    yield
    keep.clear()


def names(told: dict[str, Any]) -> dict[str, list[str]]:
    """Return the topics and channels that are told of."""
    return {
        topic["topic_name"]: [channel["channel_name"] for channel in topic["channels"]]
        for topic in told["topics"]
    }


# As JSON's data


def test_the_keys_are_nsqds_in_its_order(daemon: Daemon) -> None:
    """At every level, memory and producers among them."""
    told = collect(daemon)
    assert ["version", "health", "start_time", "topics", "memory", "producers"] == list(told)
    assert ("1.3.0", "OK", START) == (told["version"], told["health"], told["start_time"])
    assert {"alarms": [], "orders": ["audit", "billing"]} == names(told)
    assert {TOPIC} == {" ".join(topic) for topic in told["topics"]}
    assert {CHANNEL} == {" ".join(channel) for channel in told["topics"][1]["channels"]}
    assert list(MEMORY) == list(told["memory"])


def test_clients_stand_in_their_channels_and_producers_apart(daemon: Daemon) -> None:
    """A producer is told with all its topics; one that does both stands in both places."""
    told = collect(daemon)
    audit, billing = told["topics"][1]["channels"]
    assert ([], 0) == (audit["clients"], audit["client_count"])
    assert ([daemon.connections[0].stats()], 1) == (billing["clients"], billing["client_count"])
    both = [{"topic": "orders", "count": 2}, {"topic": "alarms", "count": 3}]
    assert [both, [{"topic": "alarms", "count": 1}]] == [
        one["pub_counts"] for one in told["producers"]
    ]


def test_a_consumer_of_this_process_is_a_client_too() -> None:
    """With every key of one, its name as its id, and no address."""
    daemon = Daemon()
    channel = daemon.broker.topic("orders").channel("billing")
    with Consumer(channel, name="mailer"), Consumer(channel, max_in_flight=7) as nameless:
        named, other = collect(daemon)["topics"][0]["channels"][0]["clients"]
    assert CLIENT == " ".join(named) == " ".join(other)
    assert ("mailer", 2500) == (named["client_id"], named["ready_count"])
    assert (str(nameless.client_id), 7) == (other["client_id"], other["ready_count"])
    assert ("node.example", f"in-process:{nameless.client_id}", f"nsqlite/{__version__}") == (
        other["hostname"],
        other["remote_address"],
        other["user_agent"],
    )


def test_without_clients(daemon: Daemon) -> None:
    """Lists of clients are null, producers too; the counts stay right."""
    told = collect(daemon, Wanted(clients=False))
    billing = told["topics"][1]["channels"][1]
    assert (None, 1, None) == (billing["clients"], billing["client_count"], told["producers"])


def test_without_memory(daemon: Daemon) -> None:
    """The key is left out."""
    assert "memory" not in collect(daemon, Wanted(memory=False))


def test_a_topic_alone(daemon: Daemon) -> None:
    """Producers are all told of, with what they publish there."""
    told = collect(daemon, Wanted(topic="orders"))
    assert {"orders": ["audit", "billing"]} == names(told)
    counts = [{"topic": "orders", "count": 2}]
    assert counts == told["topics"][0]["channels"][1]["clients"][0]["pub_counts"]
    assert counts == told["producers"][0]["pub_counts"]
    assert "pub_counts" not in told["producers"][1]


def test_a_channel_alone(daemon: Daemon) -> None:
    """Topics that lack it are left out."""
    assert {"orders": ["audit"]} == names(collect(daemon, Wanted(channel="audit")))
    assert {} == names(collect(daemon, Wanted(topic="alarms", channel="audit")))


def test_an_unknown_topic(daemon: Daemon) -> None:
    """Topics and producers are null."""
    told = collect(daemon, Wanted(topic="nothing"))
    assert (None, None) == (told["topics"], told["producers"])


def test_nothing_there() -> None:
    """No topics is an empty list, no producers is null."""
    told = collect(Daemon())
    assert ([], None) == (told["topics"], told["producers"])


def test_health_names_no_file() -> None:
    """What a store says is told in general; what topics say is told as it is."""
    broken: list[bool] = []

    def fault(point: str) -> None:
        if broken and point.startswith("before write"):
            raise StoreFull("/secret/jobs.db", "the disk is full")

    with Broker(store=FaultyStore(MemoryStore(), fault)) as broker:
        daemon = Daemon(broker)
        topic = broker.topic("orders")
        topic.channel("billing")
        assert "OK" == health_of(daemon)
        broken.append(True)
        with pytest.raises(StoreFull):
            topic.put(b"tea")
        assert "/secret/jobs.db" in broker.health
        assert "NOK - the store cannot be written" == collect(daemon)["health"]
        broken.clear()


# Memory


def test_memory_is_told() -> None:
    """What Python knows is above 0, what it does not know is 0."""
    told = memory()
    assert told["heap_in_use_bytes"] > 1_000_000
    assert told["heap_objects"] > 10_000
    assert told["gc_total_runs"] > 0
    assert 0 <= told["heap_idle_bytes"] == told["heap_released_bytes"]
    assert {0} == {told[name] for name in MEMORY[4:8]}


def test_what_linux_tells_of_memory(tmp_path: Path) -> None:
    """What is resident and was at most; 0 for what is not told."""
    status = tmp_path / "status"
    status.write_text("Name:\tpython\nVmHWM:\t    3000 kB\nVmRSS:\t    2000 kB\n")
    assert (2_048_000, 3_072_000) == resident_bytes(status)
    status.write_text("Name:\tpython\n")
    assert (0, 0) == resident_bytes(status)


@pytest.mark.parametrize(("platform", "unit"), [("linux", 1024), ("darwin", 1)])
def test_memory_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, platform: str, unit: int
) -> None:
    """Only the highest is known, in bytes or kilobytes."""
    monkeypatch.setattr(sys, "platform", platform)
    resource: Any = pytest.importorskip("resource")
    told, highest = resident_bytes(tmp_path / "none")
    assert told == highest
    assert 0 < told <= resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def test_memory_where_nobody_tells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then it is 0."""
    monkeypatch.setitem(sys.modules, "resource", None)
    assert (0, 0) == resident_bytes(tmp_path / "none")


# As text


@pytest.fixture
def zone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Be in the zone of UTC for the time of a test."""
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.usefixtures("zone")
def test_the_text_of_nothing() -> None:
    """Head, memory, and that there is nothing."""
    told = collect(Daemon())
    told["memory"] = dict.fromkeys(MEMORY, 7)
    figures = "".join(f"   {name}{' ' * (25 - len(name))}\t7\n" for name in MEMORY)
    python = ".".join(map(str, sys.version_info[:3]))
    assert (
        f"nsqd v1.3.0 (built w/python{python})\n"
        "start_time 2023-11-14T22:13:20Z\n"
        "uptime 1m1.5s\n"
        "\n"
        "Health: OK\n"
        "\n"
        f"Memory:\n{figures}"
        "\n"
        "Topics: None\n"
        "\n"
        "Producers: None\n"
    ) == as_text(told, START * SECOND + 61_500_000_000)


@pytest.mark.usefixtures("zone")
def test_the_text_of_all(daemon: Daemon) -> None:
    """Topics, channels and clients to the space; without memory, if that is not wanted."""
    with Consumer(daemon.broker.topic("alarms").channel("x")):
        told = collect(daemon, Wanted(memory=False))
    text = as_text(told, (START + 3723) * SECOND)
    producer = "[V2 worker-1.example:4321 pynsq/1.0] msgs: "
    number = told["topics"][0]["channels"][0]["clients"][0]["client_id"]
    agent = f"[V2 node.example:{number} nsqlite/{__version__}]"
    assert (
        "\nHealth: OK\n"
        "\n"
        "Topics:\n"
        "*P [alarms         ] depth: 0     be-depth: 0     msgs: 0        e2e%: 0.0ns, 0.0ns\n"
        "      [x                        ] depth: 0     be-depth: 0     inflt: 0    def: 0   "
        " re-q: 0     timeout: 0     msgs: 0        e2e%: 0.0ns, 0.0ns\n"
        f"        {agent} state: 3 inflt: 0    rdy: 2500 fin: 0        re-q: 0       "
        " msgs: 0        connected: 1h2m3s\n"
        "\n"
        "   [orders         ] depth: 0     be-depth: 0     msgs: 2        e2e%: 247.6ms, 247.6ms\n"
        "   *P [audit                    ] depth: 2     be-depth: 0     inflt: 0    def: 0   "
        " re-q: 0     timeout: 0     msgs: 2        e2e%: 0.0ns, 0.0ns\n"
        "      [billing                  ] depth: 1     be-depth: 0     inflt: 0    def: 0   "
        " re-q: 0     timeout: 0     msgs: 2        e2e%: 247.6ms, 247.6ms\n"
        f"        {producer}5        topics: orders=2,alarms=3 connected: 1h2m3s\n"
        "\n"
        "Producers:\n"
        f"   {producer}5        topics: orders=2,alarms=3 connected: 1h2m3s\n"
        f"   {producer}1        topics: alarms=1 connected: 1h2m3s\n"
    ) == text[text.index("\nHealth") :]


@pytest.mark.usefixtures("zone")
def test_a_client_of_a_unix_socket() -> None:
    """It has no port."""
    daemon = Daemon(clients=[Client(pub_counts={"orders": 1}, remote_address="@")])
    text = as_text(collect(daemon), START * SECOND)
    assert "   [V2 worker-1.example: pynsq/1.0] msgs: 1        topics: orders=1" in text


@pytest.mark.parametrize(
    ("ns", "expected"),
    [
        (0.0, "0.0ns"),
        (1_000.0, "1000.0ns"),
        (1_001.0, "1.0us"),
        (1_550_000.0, "1.6ms"),
        (2_000_000_000.0, "2.0s"),
    ],
)
def test_the_text_of_a_latency(daemon: Daemon, ns: float, expected: str) -> None:
    """One decimal, and a unit that is changed when it is exceeded."""
    told = collect(daemon)
    told["topics"][0]["e2e_processing_latency"] = {
        "count": 1,
        "percentiles": [{"quantile": 0.5, "value": ns}],
    }
    assert f"e2e%: {expected}\n" in as_text(told, START * SECOND)


def test_a_clock_that_was_set_back() -> None:
    """Nothing has lasted less than no time."""
    daemon = Daemon(clients=[Client(pub_counts={"orders": 1})])
    text = as_text(collect(daemon), (START - 5) * SECOND)
    assert "\nuptime 0s\n" in text
    assert "connected: 0s\n" in text


@pytest.mark.usefixtures("zone")
def test_a_moment_in_another_zone(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is told as it is there, with the distance."""
    assert "2023-11-14T22:13:20Z" == rfc3339(START)
    monkeypatch.setenv("TZ", "CET-1")
    time.tzset()
    assert "2023-11-14T23:13:20+01:00" == rfc3339(START)


def test_a_version_is_told_with_what_it_runs_on() -> None:
    """As Go's programs do."""
    assert version_line("1.3.0").startswith("nsqd v1.3.0 (built w/python3.")
