"""What a daemon tells Prometheus under `/metrics`.

The rule: the figures are those of `/stats`, under names and in units as Prometheus has them: in
seconds and bytes, counters with `_total` at their end, with a label for the topic and one for the
channel.

Nothing is counted for it, and no registry but its own is used: who scrapes pays for it.

Next: server/statsd.py
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.exposition import generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics import exposition as openmetrics

from nsqlite.options import SECOND
from nsqlite.server.stats import StatsSource, Wanted, collect

Names = Mapping[str, tuple[str, str]]
"""The names of figures, with the keys of `/stats` that have them, and what each is."""

TOPIC: Final[Names] = {
    "depth": ("depth", "messages that a topic holds itself, being paused or without channels"),
    "backend_depth": ("backend_depth", "how many of them are on the disk alone"),
    "paused": ("paused", "1 if the topic is paused"),
}

TOPIC_COUNTS: Final[Names] = {
    "messages": ("message_count", "messages published"),
    "bytes": ("message_bytes", "bytes of their bodies"),
}

CHANNEL: Final[Names] = {
    "depth": ("depth", "messages that are ready to be delivered"),
    "backend_depth": ("backend_depth", "how many of them are on the disk alone"),
    "in_flight": ("in_flight_count", "messages that were delivered and not answered yet"),
    "deferred": ("deferred_count", "messages that wait for their time"),
    "clients": ("client_count", "consumers"),
    "paused": ("paused", "1 if the channel is paused"),
}

CHANNEL_COUNTS: Final[Names] = {
    "messages": ("message_count", "messages that the channel got from its topic"),
    "requeues": ("requeue_count", "requeues that consumers asked for"),
    "timeouts": ("timeout_count", "deliveries that were not answered in time"),
}

Places = dict[tuple[str, ...], Mapping[str, Any]]
"""Topics or channels by their labels."""

LABELS: Final = ("topic", "channel")

PLAIN: Final = "text/plain; version=0.0.4; charset=utf-8"
"""The content type of Prometheus's text."""


class Metrics:
    """The figures of one daemon."""

    def __init__(self, daemon: StatsSource) -> None:
        """Make them."""
        self._daemon: Final = daemon
        self._registry: Final = CollectorRegistry(auto_describe=False)
        self._registry.register(self)

    def answer(self, accept: str = "") -> tuple[bytes, str]:
        """Return the figures of the moment in the form that is asked for, and its content type.

        Args:
            accept: the header of the request.
        """
        if "application/openmetrics-text" in accept:
            text: bytes = openmetrics.generate_latest(self._registry)  # type: ignore[no-untyped-call]  # it has no types
            return text, openmetrics.CONTENT_TYPE_LATEST
        return generate_latest(self._registry), PLAIN

    def collect(self) -> Iterator[Metric]:
        """Return the figures of the moment; for the registry."""
        told = collect(self._daemon, Wanted(memory=False))
        yield GaugeMetricFamily("nsq_healthy", "1 if nsqd is well", value=told["health"] == "OK")
        yield GaugeMetricFamily(
            "nsq_start_time_seconds", "when nsqd was started", value=told["start_time"]
        )
        yield GaugeMetricFamily(
            "nsq_producers", "connections that have published", value=len(told["producers"] or ())
        )
        topics: Places = {(topic["topic_name"],): topic for topic in told["topics"]}
        channels: Places = {
            (*labels, channel["channel_name"]): channel
            for labels, topic in topics.items()
            for channel in topic["channels"]
        }
        yield from _gauges("topic", TOPIC, topics)
        yield from _counters("topic", TOPIC_COUNTS, topics)
        yield from _gauges("channel", CHANNEL, channels)
        yield from _counters("channel", CHANNEL_COUNTS, channels)
        yield _latencies(channels)


def _labels(what: str) -> tuple[str, ...]:
    return LABELS[: LABELS.index(what) + 1]


def _gauges(what: str, names: Names, places: Places) -> Iterator[Metric]:
    for name, (key, text) in names.items():
        metric = GaugeMetricFamily(f"nsq_{what}_{name}", text, labels=_labels(what))
        for labels, place in places.items():
            metric.add_metric(labels, place[key])
        yield metric


def _counters(what: str, names: Names, places: Places) -> Iterator[Metric]:
    for name, (key, text) in names.items():
        metric = CounterMetricFamily(f"nsq_{what}_{name}", text, labels=_labels(what))
        for labels, place in places.items():
            metric.add_metric(labels, place[key])
        yield metric


def _latencies(channels: Places) -> Metric:
    """Return the times from publishing to FIN, of the quantiles that the daemon was told."""
    metric = GaugeMetricFamily(
        "nsq_channel_e2e_processing_latency_seconds",
        "time from publishing to FIN over the last minutes",
        labels=(*LABELS, "quantile"),
    )
    for labels, channel in channels.items():
        for one in channel["e2e_processing_latency"]["percentiles"] or ():
            metric.add_metric((*labels, f"{one['quantile']:g}"), one["value"] / SECOND)
    return metric
