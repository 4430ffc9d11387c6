"""Statistics: frozen snapshots in nsqd's words (NSQ semantics §21)."""

import json
from collections import Counter
from typing import Any, Final

import attrs
import pytest
from attrs.exceptions import FrozenInstanceError

from nsqlite import (
    Broker,
    BrokerStats,
    ChannelStats,
    ClientStats,
    Consumer,
    MessageInfo,
    TopicStats,
    __version__,
)
from nsqlite.stats import LatencyStats, latency_stats
from nsqlite.testing import ManualClock

# nsqd's keys, as it lists them: what means nothing in one process has an x before it.

NODE: Final = "version health start_time topics xmemory xproducers"
TOPIC: Final = (
    "topic_name channels depth backend_depth message_count message_bytes paused"
    " e2e_processing_latency"
)
CHANNEL: Final = (
    "channel_name depth backend_depth in_flight_count deferred_count message_count"
    " xzone_local_msg_count xregion_local_msg_count xglobal_msg_count requeue_count timeout_count"
    " client_count clients paused e2e_processing_latency"
)
CLIENT: Final = (
    "client_id xhostname xversion xremote_address state ready_count in_flight_count message_count"
    " xzone_local_msg_count xregion_local_msg_count xglobal_msg_count finish_count requeue_count"
    " connect_ts xsample_rate xdeflate xsnappy xuser_agent xauthed xauth_identity"
    " xauth_identity_url xtopology_zone xtopology_region xpub_counts xtls xtls_cipher_suite"
    " xtls_version xtls_negotiated_protocol xtls_negotiated_protocol_is_mutual"
)

OURS: Final = ["dropped_count", "name"]
"""Fields that nsqd does not have."""

NO_LATENCY: Final = {"count": 0, "percentiles": None}

CLIENT_STATS: Final = ClientStats(
    client_id=7,
    ready_count=5,
    in_flight_count=1,
    message_count=2,
    finish_count=3,
    requeue_count=4,
    connect_ts=1_700_000_000,
)
CHANNEL_STATS: Final = ChannelStats(
    channel_name="billing",
    depth=1,
    in_flight_count=2,
    deferred_count=3,
    message_count=4,
    requeue_count=5,
    timeout_count=6,
    client_count=1,
    clients=(CLIENT_STATS,),
    paused=False,
    e2e_processing_latency=LatencyStats(),
    dropped_count=7,
)
TOPIC_STATS: Final = TopicStats(
    topic_name="orders",
    channels=(CHANNEL_STATS,),
    depth=1,
    message_count=2,
    message_bytes=3,
    paused=False,
    e2e_processing_latency=LatencyStats(count=1, percentiles=((0.99, 5.0),)),
    dropped_count=4,
)
BROKER_STATS: Final = BrokerStats(version="0.1", start_time=1, topics=(TOPIC_STATS,))

ALL: Final[list[tuple[Any, str]]] = [
    (BROKER_STATS, NODE),
    (TOPIC_STATS, TOPIC),
    (CHANNEL_STATS, CHANNEL),
    (CLIENT_STATS, CLIENT),
]


def ours(keys: str) -> list[str]:
    return [key for key in keys.split() if not key.startswith("x")]


def busy_broker() -> tuple[Broker, Consumer[Any]]:
    """Return a broker in which something of everything has happened, and its consumer."""
    clock = ManualClock(1_700_000_000)
    broker = Broker(clock=clock, e2e_processing_latency_percentiles=(0.5, 0.99), msg_timeout=10)
    topic = broker.topic("orders")
    consumer = Consumer(topic.channel("billing"), max_in_flight=5)
    idle = topic.channel("audit")
    idle.pause()
    topic.put_many([b"1", b"22", b"333"])
    topic.put(b"4444", delay=60)
    first, second, _ = consumer.get_many(3, timeout=0)
    clock.advance(2)
    first.fin()
    second.req(delay=30)
    clock.advance(8)
    paused = broker.topic("empty")
    paused.pause()
    return broker, consumer


# As nsqd shows them


@pytest.mark.parametrize(("stats", "keys"), ALL, ids=lambda case: type(case).__name__)
def test_the_keys_are_nsqds(stats: Any, keys: str) -> None:
    """A dict has nsqd's keys in nsqd's order and nothing else."""
    assert ours(keys) == list(stats.to_dict())


@pytest.mark.parametrize(("stats", "keys"), ALL, ids=lambda case: type(case).__name__)
def test_the_fields_are_nsqds(stats: Any, keys: str) -> None:
    """A snapshot's fields are named as nsqd's keys; a few are added at the end."""
    names = [field.name for field in attrs.fields(type(stats)) if field.name not in OURS]
    assert [key for key in ours(keys) if key != "state"] == names


@pytest.mark.parametrize(("stats", "keys"), ALL, ids=lambda case: type(case).__name__)
def test_a_dict_has_the_snapshots_values(stats: Any, keys: str) -> None:
    """Numbers, names and flags are in the dict as they are in the snapshot."""
    plain = {key: getattr(stats, key) for key in ours(keys) if hasattr(stats, key)}
    plain = {key: value for key, value in plain.items() if type(value) in (int, bool, str)}
    found = stats.to_dict() | ({"client_id": 7} if stats is CLIENT_STATS else {})
    assert found | plain == found
    assert len(plain) >= 3


def test_a_dict_nests_its_parts() -> None:
    """A dict of a broker holds those of its topics, channels, consumers and latencies."""
    found = BROKER_STATS.to_dict()
    assert [TOPIC_STATS.to_dict()] == found["topics"]
    assert [CHANNEL_STATS.to_dict()] == found["topics"][0]["channels"]
    assert [CLIENT_STATS.to_dict()] == found["topics"][0]["channels"][0]["clients"]
    assert NO_LATENCY == found["topics"][0]["channels"][0]["e2e_processing_latency"]


def test_a_client_is_subscribed_and_has_a_text_for_a_number() -> None:
    """A consumer's dict has nsqd's state of a subscribed client, and its number as text."""
    found = CLIENT_STATS.to_dict()
    assert ("7", 3, 5) == (found["client_id"], found["state"], found["ready_count"])


def test_no_window_is_nsqds_largest() -> None:
    """A consumer without a window has nsqd's largest in the dict."""
    assert 2500 == attrs.evolve(CLIENT_STATS, ready_count=None).to_dict()["ready_count"]


def test_a_dict_can_be_sent() -> None:
    """What `to_dict` returns is plain: JSON gives the same back."""
    broker, _consumer = busy_broker()
    found = broker.stats().to_dict()
    assert found == json.loads(json.dumps(found))


# What they say


def test_a_busy_broker_counts() -> None:
    """A snapshot of a broker in which all has happened says what nsqd would."""
    broker, consumer = busy_broker()
    found = broker.stats().to_dict()
    latency = found["topics"][1]["e2e_processing_latency"]
    assert [0.99, 0.5] == [pair["quantile"] for pair in latency["percentiles"]]
    assert all(abs(pair["value"] / 2e9 - 1) < 0.01 for pair in latency["percentiles"])
    assert 1 == latency["count"]
    none = {
        "count": 0,
        "percentiles": [{"quantile": 0.99, "value": 0.0}, {"quantile": 0.5, "value": 0.0}],
    }
    assert {
        "version": __version__,
        "health": "OK",
        "start_time": 1_700_000_000,
        "topics": [
            {
                "topic_name": "empty",
                "channels": [],
                "depth": 0,
                "backend_depth": 0,
                "message_count": 0,
                "message_bytes": 0,
                "paused": True,
                "e2e_processing_latency": none,
            },
            {
                "topic_name": "orders",
                "channels": [
                    {
                        "channel_name": "audit",
                        "depth": 3,
                        "backend_depth": 0,
                        "in_flight_count": 0,
                        "deferred_count": 1,
                        "message_count": 4,
                        "requeue_count": 0,
                        "timeout_count": 0,
                        "client_count": 0,
                        "clients": [],
                        "paused": True,
                        "e2e_processing_latency": none,
                    },
                    {
                        "channel_name": "billing",
                        "depth": 1,
                        "backend_depth": 0,
                        "in_flight_count": 0,
                        "deferred_count": 2,
                        "message_count": 4,
                        "requeue_count": 1,
                        "timeout_count": 1,
                        "client_count": 1,
                        "clients": [
                            {
                                "client_id": str(consumer.client_id),
                                "state": 3,
                                "ready_count": 5,
                                "in_flight_count": 0,
                                "message_count": 3,
                                "finish_count": 1,
                                "requeue_count": 1,
                                "connect_ts": 1_700_000_000,
                            }
                        ],
                        "paused": False,
                        "e2e_processing_latency": latency,
                    },
                ],
                "depth": 0,
                "backend_depth": 0,
                "message_count": 4,
                "message_bytes": 10,
                "paused": False,
                "e2e_processing_latency": latency,
            },
        ],
    } == found


def test_a_snapshot_never_changes() -> None:
    """A snapshot is frozen, all the way down, and what happens later does not change it."""
    broker, _consumer = busy_broker()
    before = broker.stats()
    text = str(before)
    broker.topic("orders").put(b"later")
    assert text == str(before)
    assert before != broker.stats()
    hash(before)
    for stats, _ in [*ALL, (MessageInfo(id="", state="ready", body=b"", attempts=0, age=0.0), "")]:
        with pytest.raises(FrozenInstanceError):
            stats.depth = 1


# Latencies


def test_latencies_are_off_by_default() -> None:
    """Without percentiles a report is nsqd's: nothing counted and null."""
    assert LatencyStats() == latency_stats((), Counter({5: 3}))
    assert NO_LATENCY == LatencyStats().to_dict()


def test_percentiles_come_highest_first() -> None:
    """Percentiles are in descending order, whatever order they were asked for in."""
    found = latency_stats((0.5, 1.0, 0.9), Counter({0: 3, 1: 2}))
    assert LatencyStats(count=5, percentiles=((1.0, 1.0), (0.9, 1.0), (0.5, 0.0))) == found
    assert {
        "count": 5,
        "percentiles": [
            {"quantile": 1.0, "value": 1.0},
            {"quantile": 0.9, "value": 1.0},
            {"quantile": 0.5, "value": 0.0},
        ],
    } == found.to_dict()


# As text


def test_a_client_is_a_line() -> None:
    """A consumer's text is a line with nsqd's labels."""
    assert "[consumer 7] inflt: 1 rdy: 5 fin: 3 re-q: 4 msgs: 2" == str(CLIENT_STATS)


def test_a_client_with_a_name_shows_it() -> None:
    """A consumer with a name is shown by that instead of its number."""
    text = str(attrs.evolve(CLIENT_STATS, name="till"))
    assert "[consumer till] inflt: 1 rdy: 5 fin: 3 re-q: 4 msgs: 2" == text
    text = str(attrs.evolve(CLIENT_STATS, name="a\n\u202eb"))
    assert r"[consumer a\n\u202eb] inflt: 1 rdy: 5 fin: 3 re-q: 4 msgs: 2" == text


def test_no_window_is_a_dash() -> None:
    """The text of a consumer without a window has a dash for it."""
    text = str(attrs.evolve(CLIENT_STATS, ready_count=None))
    assert "[consumer 7] inflt: 1 rdy: - fin: 3 re-q: 4 msgs: 2" == text


@pytest.mark.parametrize(("paused", "mark"), [(False, ""), (True, "*P ")])
def test_a_channel_has_its_consumers_below(*, paused: bool, mark: str) -> None:
    """A channel's text is a line, marked if it is paused, and one for each consumer."""
    assert [
        f"{mark}[billing] depth: 1 inflt: 2 def: 3 re-q: 5 timeout: 6 msgs: 4",
        "   [consumer 7] inflt: 1 rdy: 5 fin: 3 re-q: 4 msgs: 2",
    ] == str(attrs.evolve(CHANNEL_STATS, paused=paused)).split("\n")


@pytest.mark.parametrize(("paused", "mark"), [(False, ""), (True, "*P ")])
def test_a_topic_has_its_channels_below(*, paused: bool, mark: str) -> None:
    """A topic's text is a line, marked if it is paused, and more for each channel."""
    assert [
        f"{mark}[orders] depth: 1 msgs: 2",
        "   [billing] depth: 1 inflt: 2 def: 3 re-q: 5 timeout: 6 msgs: 4",
        "      [consumer 7] inflt: 1 rdy: 5 fin: 3 re-q: 4 msgs: 2",
    ] == str(attrs.evolve(TOPIC_STATS, paused=paused)).split("\n")


def test_a_broker_has_its_topics_below_each_other() -> None:
    """A broker's text is that of its topics, or says that there are none."""
    other = attrs.evolve(TOPIC_STATS, topic_name="others", channels=())
    both = attrs.evolve(BROKER_STATS, topics=(TOPIC_STATS, other))
    assert f"{TOPIC_STATS}\n[others] depth: 1 msgs: 2" == str(both)
    assert "no topics" == str(attrs.evolve(BROKER_STATS, topics=()))
