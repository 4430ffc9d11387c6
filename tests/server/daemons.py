"""A daemon without sockets, for tests of what tells of one."""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from nsqlite import Broker, InvalidOption
from nsqlite.testing import ManualClock

START = 1_700_000_000


class Reader(NamedTuple):
    """A client's consumer, by its number."""

    client_id: int


class Client:
    """A client whose connection is not there."""

    def __init__(
        self,
        consumer: int | None = None,
        pub_counts: Mapping[str, int] | None = None,
        remote_address: str = "10.0.0.7:4321",
    ) -> None:
        self.consumer = None if consumer is None else Reader(consumer)
        self.pub_counts = pub_counts or {}
        self._remote_address = remote_address

    def stats(self) -> dict[str, Any]:
        told: dict[str, Any] = {
            "client_id": "worker-1",
            "hostname": "worker-1.example",
            "version": "V2",
            "remote_address": self._remote_address,
            "state": 3 if self.consumer else 0,
            "ready_count": 5,
            "in_flight_count": 1,
            "message_count": 4,
            "finish_count": 2,
            "requeue_count": 1,
            "connect_ts": START,
            "sample_rate": 0,
            "deflate": False,
            "snappy": False,
            "user_agent": "pynsq/1.0",
            "topology_zone": "",
            "topology_region": "",
        }
        if self.pub_counts:
            told["pub_counts"] = [
                {"topic": topic, "count": count} for topic, count in self.pub_counts.items()
            ]
        return told | {
            "tls": False,
            "tls_cipher_suite": "",
            "tls_version": "",
            "tls_negotiated_protocol": "",
            "tls_negotiated_protocol_is_mutual": False,
        }


class Daemon:
    """What a daemon tells of itself, around a broker in memory on a manual clock."""

    def __init__(
        self,
        broker: Broker | None = None,
        clients: Iterable[Client] = (),
        clock: ManualClock | None = None,
    ) -> None:
        self.clock = clock or ManualClock(START)
        self.broker = broker or Broker(
            clock=self.clock, e2e_processing_latency_percentiles=(0.99, 0.5)
        )
        self.connections = list(clients)
        self.hostname = "node.example"
        self.broadcast_address = "node.example"
        self.version = "1.3.0"
        self.start_time = START
        self.ill = ""
        self.http_port = 4151
        self.tcp_port = 4150
        self.https_address: str | None = None
        self.options: Any = None

    @property
    def health(self) -> str:
        return self.ill or self.broker.health

    def configure(self, **changes: Any) -> None:
        if changes.get("nsqlookupd_tcp_addresses") == ("refused",):
            raise InvalidOption("nsqlookupd_tcp_addresses", changes, "other addresses")
        vars(self.options).update(changes)
