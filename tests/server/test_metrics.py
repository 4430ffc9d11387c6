"""What Prometheus is told."""

import prometheus_client
from prometheus_client.parser import text_string_to_metric_families

import nsqlite
from nsqlite.server.metrics import Metrics
from nsqlite.testing import ManualClock
from server.daemons import START, Client, Daemon


def figures(text: str) -> dict[str, float]:
    """Return every figure by its name and labels."""
    return {
        f"{sample.name}{sorted(sample.labels.items())}": sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def busy() -> str:
    """Return what is told of a daemon in which something of everything has happened."""
    clock = ManualClock(START)
    daemon = Daemon(clients=[Client(pub_counts={"orders": 2}), Client()], clock=clock)
    orders = daemon.broker.topic("orders")
    billing = orders.channel("billing")
    daemon.broker.topic("alarms").pause()
    orders.put_many([b"1", b"22", b"333", b"4444"])
    orders.put(b"later", delay=60)
    with nsqlite.Consumer(billing, max_in_flight=4) as consumer:
        first, second, _, _ = consumer.get_many(4, timeout=0)
        clock.advance(2)
        first.fin()
        second.req()
        clock.advance(59)
        return Metrics(daemon).answer()[0].decode()


def test_the_figures_of_topics_and_channels() -> None:
    """Those of `/stats`, with labels."""
    at = "[('channel', 'billing'), ('topic', 'orders')]"
    orders, alarms = "[('topic', 'orders')]", "[('topic', 'alarms')]"
    quantiles = [
        f"nsq_channel_e2e_processing_latency_seconds[('channel', 'billing'), ('quantile', '{q}'),"
        " ('topic', 'orders')]"
        for q in ("0.99", "0.5")
    ]
    found = figures(busy())
    latencies = [found.pop(name) for name in quantiles]
    assert [2.0, 2.0] == [round(value, 0) for value in latencies]
    assert {
        "nsq_healthy[]": 1.0,
        "nsq_start_time_seconds[]": float(START),
        "nsq_producers[]": 1.0,
        f"nsq_topic_depth{alarms}": 0.0,
        f"nsq_topic_depth{orders}": 0.0,
        f"nsq_topic_backend_depth{alarms}": 0.0,
        f"nsq_topic_backend_depth{orders}": 0.0,
        f"nsq_topic_paused{alarms}": 1.0,
        f"nsq_topic_paused{orders}": 0.0,
        f"nsq_topic_messages_total{alarms}": 0.0,
        f"nsq_topic_messages_total{orders}": 5.0,
        f"nsq_topic_bytes_total{alarms}": 0.0,
        f"nsq_topic_bytes_total{orders}": 15.0,
        f"nsq_channel_depth{at}": 4.0,
        f"nsq_channel_backend_depth{at}": 0.0,
        f"nsq_channel_in_flight{at}": 0.0,
        f"nsq_channel_deferred{at}": 0.0,
        f"nsq_channel_clients{at}": 1.0,
        f"nsq_channel_paused{at}": 0.0,
        f"nsq_channel_messages_total{at}": 5.0,
        f"nsq_channel_requeues_total{at}": 1.0,
        f"nsq_channel_timeouts_total{at}": 2.0,
    } == found


def test_the_form_is_prometheus_own() -> None:
    """Its text, or that of OpenMetrics if that is asked for."""
    daemon = Daemon()
    text, kind = Metrics(daemon).answer()
    assert "text/plain; version=0.0.4; charset=utf-8" == kind
    assert text.startswith(b"# HELP nsq_healthy 1 if nsqd is well\n# TYPE nsq_healthy gauge\n")
    text, kind = Metrics(daemon).answer("application/openmetrics-text; version=1.0.0")
    assert kind.startswith("application/openmetrics-text")
    assert text.endswith(b"# EOF\n")


def test_what_is_not_well_is_told() -> None:
    """As 0."""
    daemon = Daemon()
    daemon.ill = "NOK - put to orders waits for room"
    assert 0.0 == figures(Metrics(daemon).answer()[0].decode())["nsq_healthy[]"]


def test_no_registry_but_its_own_is_used() -> None:
    """Prometheus's global one knows nothing of it."""
    Metrics(Daemon())
    assert b"nsq_" not in prometheus_client.generate_latest()
