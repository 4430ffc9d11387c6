"""What is sent to statsd: names, deltas, datagrams, and when."""

import asyncio
import logging
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest
from aio.loops import in_loop, turns

import nsqlite
from nsqlite.server.statsd import StatsdService, datagrams, prefix_of
from nsqlite.testing import ManualClock
from server.daemons import START, Daemon


class Sink(asyncio.DatagramProtocol):
    """A statsd that keeps what it gets."""

    def __init__(self) -> None:
        self.got: asyncio.Queue[bytes] = asyncio.Queue()

    def datagram_received(self, data: bytes, addr: Any) -> None:  # noqa: ARG002 - asyncio's
        self.got.put_nowait(data)


def options(address: str = "", **others: Any) -> Any:
    """Return the options of a daemon."""
    given = {
        "statsd_address": address,
        "statsd_prefix": "nsq.%s",
        "statsd_interval": 60.0,
        "statsd_mem_stats": False,
        "statsd_udp_packet_size": 508,
        "statsd_exclude_ephemeral": False,
        "broadcast_http_port": 0,
    }
    return SimpleNamespace(**(given | others))


class Scene:
    """A daemon that sends to a sink."""

    def __init__(self, sink: Sink, address: str, **others: Any) -> None:
        self.clock = ManualClock(START)
        self.daemon = Daemon(clock=self.clock)
        self.daemon.options = options(address, **others)
        self.sink = sink
        self.service = StatsdService(self.daemon)

    async def push(self, seconds: float = 60) -> str:
        """Move on, and return what is sent then."""
        self.clock.advance(seconds)
        return (await self.sink.got.get()).decode()


@asynccontextmanager
async def scene(**others: Any) -> AsyncIterator[Scene]:
    """Have a service run for the time of a block."""
    transport, sink = await asyncio.get_running_loop().create_datagram_endpoint(
        Sink, local_addr=("127.0.0.1", 0)
    )
    port = transport.get_extra_info("sockname")[1]
    made = Scene(sink, f"127.0.0.1:{port}", **others)
    await made.service.start()
    try:
        yield made
    finally:
        await made.service.stop()
        transport.close()


@in_loop
async def test_what_is_sent() -> None:
    """Counters as deltas, gauges as they are, under nsqd's names."""
    async with scene(statsd_udp_packet_size=8192) as made:
        topic = made.daemon.broker.topic("orders")
        with nsqlite.Consumer(topic.channel("billing")) as consumer:
            topic.put_many([b"tea", b"milk"])
            made.clock.advance(1)
            consumer.get(timeout=0).fin()
            lines = (await made.push(59)).splitlines()
        at = "nsq.node_example_4151.topic.orders"
        assert [
            f"{at}.message_count:2|c",
            f"{at}.message_bytes:7|c",
            f"{at}.depth:0|g",
            f"{at}.backend_depth:0|g",
        ] == lines[:4]
        assert [f"{at}.e2e_processing_latency_99", f"{at}.e2e_processing_latency_50"] == [
            line.partition(":")[0] for line in lines[4:6]
        ]
        assert [
            f"{at}.channel.billing.message_count:2|c",
            f"{at}.channel.billing.requeue_count:0|c",
            f"{at}.channel.billing.timeout_count:0|c",
            f"{at}.channel.billing.depth:1|g",
            f"{at}.channel.billing.backend_depth:0|g",
            f"{at}.channel.billing.in_flight_count:0|g",
            f"{at}.channel.billing.deferred_count:0|g",
            f"{at}.channel.billing.clients:1|g",
        ] == lines[6:14]
        assert f"{at}.channel.billing.e2e_processing_latency_50" == lines[15].partition(":")[0]
        assert 16 == len(lines)


@in_loop
async def test_counters_are_sent_once() -> None:
    """The next push has what came since; a topic that was made again begins at 0."""
    async with scene(statsd_udp_packet_size=8192) as made:
        topic = made.daemon.broker.topic("orders")
        topic.put_many([b"tea", b"milk"])
        assert "orders.message_count:2|c\n" in await made.push()
        topic.put(b"cake")
        assert "orders.message_count:1|c\n" in await made.push()
        topic.delete()
        made.daemon.broker.topic("orders").put_many([b"tea", b"milk"])
        assert "orders.message_count:2|c\n" in await made.push()


@in_loop
async def test_memory_is_sent() -> None:
    """If that is wanted; the collections are a counter."""
    async with scene(statsd_mem_stats=True, statsd_prefix="") as made:
        text = await made.push()
        assert [
            "mem.heap_objects",
            "mem.heap_idle_bytes",
            "mem.heap_in_use_bytes",
            "mem.heap_released_bytes",
            "mem.gc_pause_usec_100",
            "mem.gc_pause_usec_99",
            "mem.gc_pause_usec_95",
            "mem.next_gc_bytes",
            "mem.gc_runs",
        ] == [line.partition(":")[0] for line in text.splitlines()]
        assert text.endswith("|c\n")
        assert "mem.gc_pause_usec_100:0|g\n" in text


@in_loop
async def test_what_is_ephemeral_can_be_left_out() -> None:
    """Topics and channels."""
    async with scene(statsd_exclude_ephemeral=True, statsd_udp_packet_size=8192) as made:
        made.daemon.broker.topic("orders").channel("tail#ephemeral")
        made.daemon.broker.topic("trace#ephemeral").channel("x")
        text = await made.push()
        assert ".topic.orders.depth" in text
        assert "#ephemeral" not in text


@in_loop
async def test_datagrams_are_spread() -> None:
    """Evenly over the interval but a second, and the next push is on time."""
    async with scene(statsd_interval=10, statsd_prefix="", statsd_udp_packet_size=190) as made:
        for name in ("a", "b", "c"):
            made.daemon.broker.topic(name)
        parts = [await made.push(10)]
        await turns()
        assert made.sink.got.empty()
        parts += [await made.push(3), await made.push(3)]
        assert ["topic.a.", "topic.b.", "topic.c."] == [part[:8] for part in parts]
        assert max(map(len, parts)) <= 190
        made.clock.advance(3.5)
        await turns()
        assert made.sink.got.empty()
        assert parts[0] == await made.push(0.5)


@in_loop
async def test_nothing_to_send() -> None:
    """Then nothing is sent."""
    async with scene() as made:
        made.clock.advance(60)
        await turns(20)
        assert made.sink.got.empty()
        made.daemon.broker.topic("orders")
        assert "orders" in await made.push()


@in_loop
async def test_the_end_in_the_middle() -> None:
    """What is left of a push is not sent, and nothing after it."""
    async with scene(statsd_interval=10) as made:
        for name in ("a", "b", "c"):
            made.daemon.broker.topic(name).channel("x")
        await made.push(10)
        await made.service.stop()
        made.clock.advance(60)
        await turns(20)
        assert made.sink.got.empty()


@in_loop
async def test_the_end_before_the_address_is_known() -> None:
    """The look-up is given up."""
    async with scene() as made:
        made.daemon.broker.topic("orders")
        made.clock.advance(60)
        await made.service.stop()
        await turns(20)
        assert made.sink.got.empty()


@pytest.mark.parametrize("address", ["", "127.0.0.1:", "127.0.0.1:99999", "no.such.host.invalid:1"])
def test_an_address_that_is_none(address: str, caplog: pytest.LogCaptureFixture) -> None:
    """It is logged once, and tried again."""

    @in_loop
    async def run() -> None:
        async with scene() as made:
            made.daemon.broker.topic("orders")
            right = made.daemon.options
            made.daemon.options = options(address)
            for _ in range(2):
                made.clock.advance(60)
                assert made.service._task is not None
                await made.service._task
            made.daemon.options = right
            assert "orders" in await made.push()

    with caplog.at_level(logging.WARNING, "nsqlite"):
        run()
    [record] = caplog.records
    assert record.getMessage().startswith(f"STATSD: cannot send to {address}: ")


def test_an_address_where_nobody_is(caplog: pytest.LogCaptureFixture) -> None:
    """What the system says of it is logged once."""

    @in_loop
    async def run() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as nobody:
            nobody.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{nobody.getsockname()[1]}"
        daemon = Daemon()
        daemon.options = options(address, statsd_udp_packet_size=40)
        daemon.broker.topic("orders")
        service = StatsdService(daemon)
        await service.start()
        for seconds in (60, 20, 20, 20):
            daemon.clock.advance(seconds)
            await turns(20)
        await service.stop()

    with caplog.at_level(logging.WARNING, "nsqlite"):
        run()
    [record] = caplog.records
    assert record.getMessage().endswith("Connection refused")


@pytest.mark.parametrize(
    ("prefix", "address", "port", "expected"),
    [
        ("nsq.%s", "node.example", 0, "nsq.node_example_4151."),
        ("nsq.%s.", "10.0.0.1", 9000, "nsq.10_0_0_1_9000."),
        ("%s", "::1", 0, "[__1]_4151."),
        ("nsq", "node", 0, "nsq."),
        ("", "node", 0, ""),
    ],
)
def test_prefixes(prefix: str, address: str, port: int, expected: str) -> None:
    """The address of the daemon without dots and colons, and a dot at the end."""
    daemon = Daemon()
    daemon.broadcast_address = address
    daemon.options = options(statsd_prefix=prefix, broadcast_http_port=port)
    assert expected == prefix_of(daemon)


def test_lines_as_datagrams() -> None:
    """As full as they can be; a line that is too long is alone."""
    assert [b"abcd", b"efg", b"hijklm", b"n"] == datagrams(
        [b"ab", b"cd", b"efg", b"hijklm", b"n"], 4
    )
    assert [] == datagrams([], 4)
