"""nsqd's endpoints: every answer and every error in its order, with a store and without."""

import asyncio
import logging
import ssl
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any, Final

import pytest
import trustme
from aio.loops import in_loop

import nsqlite
from nsqlite import Broker, Consumer, StoreFull
from nsqlite.options import SECOND
from nsqlite.server.http import HTTPService, option_of, split
from nsqlite.server.web import Problem
from nsqlite.testing import FaultyStore, ManualClock, MemoryStore
from nsqlite.testing.faultystorage import Fault
from server.daemons import START, Client, Daemon
from server.httpclient import Client as HTTPClient
from server.httpclient import Reply

MAX_MSG: Final = 100
MAX_BODY: Final = 1000

OPTIONS: Final[dict[str, Any]] = {
    "id": 7,
    "tcp_address": "127.0.0.1:4150",
    "http_address": "127.0.0.1:4151",
    "https_address": "127.0.0.1:4152",
    "broadcast_address": "node.example",
    "broadcast_tcp_port": 0,
    "broadcast_http_port": 0,
    "nsqlookupd_tcp_addresses": (),
    "data_path": "",
    "mem_queue_size": 10000,
    "max_bytes_per_file": 104857600,
    "sync_every": 2500,
    "sync_timeout": 2.0,
    "msg_timeout": 60.0,
    "max_msg_timeout": 900.0,
    "max_msg_size": MAX_MSG,
    "max_body_size": MAX_BODY,
    "max_req_timeout": 3600.0,
    "max_heartbeat_interval": 60.0,
    "max_rdy_count": 2500,
    "max_output_buffer_size": 65536,
    "max_output_buffer_timeout": 30.0,
    "min_output_buffer_timeout": 0.025,
    "output_buffer_timeout": 0.25,
    "max_channel_consumers": 0,
    "queue_scan_worker_pool_max": 4,
    "queue_scan_selection_count": 20,
    "e2e_processing_latency_percentiles": (0.99, 0.5),
    "e2e_processing_latency_window_time": 600.0,
    "tls_cert": "",
    "tls_key": "",
    "tls_root_ca_file": "",
    "tls_client_auth_policy": "",
    "tls_required": "false",
    "tls_min_version": "tls1.2",
    "deflate": True,
    "max_deflate_level": 6,
    "snappy": False,
    "auth_http_addresses": (),
    "auth_http_request_method": "get",
    "http_client_connect_timeout": 2.0,
    "http_client_request_timeout": 5.0,
    "statsd_address": "",
    "statsd_prefix": "nsq.%s",
    "statsd_interval": 60.0,
    "statsd_mem_stats": True,
    "statsd_udp_packet_size": 508,
    "statsd_exclude_ephemeral": False,
    "topology_region": "eu",
    "topology_zone": "eu-1",
    "enable_experiment": (),
    "log_level": "info",
    "log_prefix": "[nsqd] ",
}


class Scene:
    """A daemon that is served, and a client of it."""

    def __init__(self, daemon: Daemon, service: HTTPService, client: HTTPClient) -> None:
        self.daemon = daemon
        self.broker = daemon.broker
        self.service = service
        self.get = self._ask("GET", client)
        self.post = self._ask("POST", client)
        self.put = self._ask("PUT", client)
        self.client = client

    def _ask(self, method: str, client: HTTPClient) -> Callable[..., Any]:
        async def ask(path: str, body: bytes | None = None, head: str = "") -> Reply:
            return await client.ask(method, path, body, head)

        return ask

    def bodies(self, name: str = "orders") -> list[bytes]:
        """Return what a topic holds that has a channel."""
        return [info.body for info in self.broker.topic(name).channel("billing").peek(100)]


def daemon_of(broker: Broker | None = None, **options: Any) -> Daemon:
    """Return a daemon that can be configured."""
    daemon = Daemon(broker)
    daemon.options = SimpleNamespace(**(OPTIONS | options))
    return daemon


@asynccontextmanager
async def serving(
    broker: Broker | None = None, tls: ssl.SSLContext | None = None, **options: Any
) -> AsyncIterator[Scene]:
    """Have a daemon served for the time of a block."""
    daemon = daemon_of(broker, **options)
    service = HTTPService(daemon, "127.0.0.1:0", tls)
    await service.start()
    try:
        assert service.address is not None
        async with HTTPClient(service.address) as client:
            yield Scene(daemon, service, client)
    finally:
        await service.stop()


@asynccontextmanager
async def stored(fault: Fault = lambda _: None) -> AsyncIterator[Scene]:
    """Have a daemon with a store served for the time of a block."""
    with Broker(store=FaultyStore(MemoryStore(), fault)) as broker:
        async with serving(broker) as scene:
            yield scene


class Disk:
    """A disk that can be full.

    Attributes:
        full: it is.
        writers: the threads that have written.
    """

    def __init__(self) -> None:
        self.full = False
        self.writers: set[int] = set()

    def __call__(self, point: str) -> None:
        if point.startswith("before write"):
            self.writers.add(threading.get_ident())
            if self.full:
                raise StoreFull("/secret/jobs.db", "the disk is full")


# Errors, each with those before it passed


LONG: Final = b"x" * (MAX_MSG + 1)
LONGER: Final = b"x" * (MAX_BODY + 1)
CHUNKS: Final = "Transfer-Encoding: chunked\r\n"

ERRORS: Final[list[tuple[str, str, bytes | None, int, str]]] = [
    ("POST", "/pub?%", LONG, 413, "MSG_TOO_BIG"),
    ("POST", "/pub?%", b"", 400, "MSG_EMPTY"),
    ("POST", "/pub?%", None, 400, "MSG_EMPTY"),
    ("POST", "/pub?%", b"tea", 400, "INVALID_REQUEST"),
    ("POST", "/pub?topic=a&x=%zz", b"tea", 400, "INVALID_REQUEST"),
    ("POST", "/pub", b"tea", 400, "MISSING_ARG_TOPIC"),
    ("POST", "/pub?Topic=orders", b"tea", 400, "MISSING_ARG_TOPIC"),
    ("POST", "/pub?topic", b"tea", 400, "INVALID_TOPIC"),
    ("POST", "/pub?topic=a+b&defer=x", b"tea", 400, "INVALID_TOPIC"),
    ("POST", f"/pub?topic={'x' * 65}", b"tea", 400, "INVALID_TOPIC"),
    ("POST", "/pub?topic=a%0a", b"tea", 400, "INVALID_TOPIC"),
    ("POST", "/pub?topic=orders&defer=", b"tea", 400, "INVALID_DEFER"),
    ("POST", "/pub?topic=orders&defer=soon", b"tea", 400, "INVALID_DEFER"),
    ("POST", "/pub?topic=orders&defer=1.5", b"tea", 400, "INVALID_DEFER"),
    ("POST", "/pub?topic=orders&defer=-1", b"tea", 400, "INVALID_DEFER"),
    ("POST", "/pub?topic=orders&defer=1_0", b"tea", 400, "INVALID_DEFER"),
    ("POST", "/pub?topic=orders&defer=3600001", b"tea", 400, "INVALID_DEFER"),
    ("POST", f"/pub?topic=orders&defer={'9' * 5000}", b"tea", 400, "INVALID_DEFER"),
    ("POST", "/mpub?%", LONGER, 413, "BODY_TOO_BIG"),
    ("POST", "/mpub?%", b"tea", 400, "INVALID_REQUEST"),
    ("POST", "/mpub", b"tea", 400, "MISSING_ARG_TOPIC"),
    ("POST", "/mpub?topic=$&binary=true", b"tea", 400, "INVALID_TOPIC"),
    ("POST", "/mpub?topic=orders", b"tea\n" + LONG, 413, "MSG_TOO_BIG"),
    ("POST", "/mpub?topic=orders&binary=1", b"tea", 413, "BAD_BODY"),
    ("POST", "/mpub?topic=orders&binary=1", b"", 413, "BAD_BODY"),
    ("POST", "/mpub?topic=orders&binary=1", b"\0\0\0\0", 413, "BAD_BODY"),
    ("POST", "/mpub?topic=orders&binary=1", b"\xff\xff\xff\xff", 413, "BAD_BODY"),
    ("POST", "/mpub?topic=orders&binary=1", b"\0\0\0\xc8", 413, "BAD_BODY"),
    ("POST", "/mpub?topic=orders&binary=1", b"\0\0\0\xc7", 413, "BAD_MESSAGE"),
    ("POST", "/mpub?topic=orders&binary=1", b"\0\0\0\1\0\0\0", 413, "BAD_MESSAGE"),
    ("POST", "/mpub?topic=orders&binary=1", b"\0\0\0\1\0\0\0\0", 413, "BAD_MESSAGE"),
    ("POST", "/mpub?topic=orders&binary=1", b"\0\0\0\1\xff\xff\xff\xff", 413, "BAD_MESSAGE"),
    ("POST", "/mpub?topic=orders&binary=1", b"\0\0\0\1\0\0\0\4tea", 413, "BAD_MESSAGE"),
    ("POST", "/mpub?topic=orders&binary=1", b"\0\0\0\2\0\0\0\3tea", 413, "BAD_MESSAGE"),
    ("POST", "/mpub?topic=orders&binary=1", b"\0\0\0\1\0\0\0\x65" + LONG, 413, "BAD_MESSAGE"),
    ("POST", "/mpub?topic=orders&binary=", b"tea", 413, "BAD_BODY"),
    ("POST", "/topic/create?%", None, 400, "INVALID_REQUEST"),
    ("POST", "/topic/create", None, 400, "MISSING_ARG_TOPIC"),
    ("POST", "/topic/create?topic=$", None, 400, "INVALID_TOPIC"),
    ("POST", "/topic/delete?%", None, 400, "INVALID_REQUEST"),
    ("POST", "/topic/delete", None, 400, "MISSING_ARG_TOPIC"),
    ("POST", "/topic/delete?topic=$", None, 404, "TOPIC_NOT_FOUND"),
    ("POST", "/topic/delete?topic=none", None, 404, "TOPIC_NOT_FOUND"),
    ("POST", "/topic/empty?%", None, 400, "INVALID_REQUEST"),
    ("POST", "/topic/empty", None, 400, "MISSING_ARG_TOPIC"),
    ("POST", "/topic/empty?topic=$", None, 400, "INVALID_TOPIC"),
    ("POST", "/topic/empty?topic=none", None, 404, "TOPIC_NOT_FOUND"),
    *(
        row
        for what in ("pause", "unpause")
        for row in (
            ("POST", f"/topic/{what}?%", None, 400, "INVALID_REQUEST"),
            ("POST", f"/topic/{what}", None, 400, "MISSING_ARG_TOPIC"),
            ("POST", f"/topic/{what}?topic=$", None, 404, "TOPIC_NOT_FOUND"),
            ("POST", f"/topic/{what}?topic=none", None, 404, "TOPIC_NOT_FOUND"),
        )
    ),
    *(
        row
        for what in ("create", "delete", "empty", "pause", "unpause")
        for row in (
            ("POST", f"/channel/{what}?%", None, 400, "INVALID_REQUEST"),
            ("POST", f"/channel/{what}", None, 400, "MISSING_ARG_TOPIC"),
            ("POST", f"/channel/{what}?topic=$", None, 400, "INVALID_ARG_TOPIC"),
            ("POST", f"/channel/{what}?topic=none", None, 400, "MISSING_ARG_CHANNEL"),
            ("POST", f"/channel/{what}?topic=none&channel=$", None, 400, "INVALID_ARG_CHANNEL"),
            ("POST", f"/channel/{what}?topic=none&channel=x", None, 404, "TOPIC_NOT_FOUND"),
        )
    ),
    *(
        ("POST", f"/channel/{what}?topic=orders&channel=x", None, 404, "CHANNEL_NOT_FOUND")
        for what in ("delete", "empty", "pause", "unpause")
    ),
    ("GET", "/stats?%", None, 400, "INVALID_REQUEST"),
    ("GET", "/config/none", None, 400, "INVALID_OPTION"),
    ("GET", "/config/max_msg_size_", None, 400, "INVALID_OPTION"),
    ("GET", "/config/__class__", None, 400, "INVALID_OPTION"),
    ("PUT", "/config/none", None, 413, "INVALID_VALUE"),
    ("PUT", "/config/none", LONG, 413, "INVALID_VALUE"),
    ("PUT", "/config/none", b"x", 400, "INVALID_OPTION"),
    ("PUT", "/config/max_msg_size", b"5", 400, "INVALID_OPTION"),
    ("PUT", "/config/log_level", b"loud", 400, "INVALID_VALUE"),
    ("PUT", "/config/log_level", b"\xff", 400, "INVALID_VALUE"),
    ("PUT", "/config/log_level", b'"info"', 400, "INVALID_VALUE"),
    ("PUT", "/config/nsqlookupd_tcp_addresses", b"a:1", 400, "INVALID_VALUE"),
    ("PUT", "/config/nsqlookupd_tcp_addresses", b'"a:1"', 400, "INVALID_VALUE"),
    ("PUT", "/config/nsqlookupd_tcp_addresses", b"[1]", 400, "INVALID_VALUE"),
    ("PUT", "/config/nsqlookupd_tcp_addresses", b"[" * 99, 400, "INVALID_VALUE"),
    ("PUT", "/config/nsqlookupd_tcp_addresses", b'["refused"]', 400, "INVALID_VALUE"),
]


@pytest.mark.parametrize(("method", "path", "body", "status", "code"), ERRORS)
def test_errors(method: str, path: str, body: bytes | None, status: int, code: str) -> None:
    """Each has its status and code, nothing is published, and the connection goes on."""

    @in_loop
    async def run() -> None:
        async with serving() as scene:
            scene.broker.topic("orders").channel("billing")
            reply = await scene.client.ask(method, path, body)
            assert (status, {"message": code}) == (reply.status, reply.json)
            assert "application/json; charset=utf-8" == reply.headers["content-type"]
            assert "nsq; version=1.0" == reply.headers["x-nsq-content-type"]
            assert [] == scene.bodies()
            assert 200 == (await scene.get("/ping")).status

    run()


@pytest.mark.parametrize(
    ("path", "body", "code"),
    [
        ("/pub?topic=orders", LONG, "MSG_TOO_BIG"),
        ("/mpub?topic=orders", LONGER, "BODY_TOO_BIG"),
        ("/mpub?topic=orders&binary=1", LONGER, "BODY_TOO_BIG"),
        ("/config/log_level", LONG, "INVALID_VALUE"),
    ],
)
def test_bodies_without_a_size_that_are_too_big(path: str, body: bytes, code: str) -> None:
    """They are as bad as those that have one."""

    @in_loop
    async def run() -> None:
        async with serving() as scene:
            method = "PUT" if "config" in path else "POST"
            text = f"{method} {path} HTTP/1.1\r\nHost: nsqd\r\n{CHUNKS}\r\n{len(body):x}\r\n"
            scene.client.send(text.encode() + body + b"\r\n0\r\n\r\n")
            reply = await scene.client.reply()
            assert (413, {"message": code}) == (reply.status, reply.json)
            assert 200 == (await scene.get("/ping")).status

    run()


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/pub?topic=orders", 500, "INTERNAL_ERROR"),
        ("/mpub?topic=orders", 500, "INTERNAL_ERROR"),
        ("/mpub?topic=orders&binary=1", 413, "BAD_MESSAGE"),
    ],
)
def test_bodies_that_end_too_early(path: str, status: int, code: str) -> None:
    """They are errors of the server, as in nsqd; of one with sizes it is known what is missing."""

    @in_loop
    async def run() -> None:
        async with serving() as scene:
            text = f"POST {path} HTTP/1.1\r\nHost: nsqd\r\nContent-Length: 20\r\n\r\n"
            scene.client.send(text.encode() + b"\0\0\0\1\0\0\0\3te")
            scene.client.writer.write_eof()
            reply = await scene.client.reply()
            assert (status, {"message": code}) == (reply.status, reply.json)

    run()


# Publishing


@in_loop
async def test_a_message_is_published() -> None:
    """To a topic that is made for it; the parameters are those of the path alone."""
    async with serving() as scene:
        form = "Content-Type: application/x-www-form-urlencoded\r\n"
        reply = await scene.post("/pub?topic=orders&topic=other", b"topic=alarms", form)
        assert (200, "OK", "text/plain; charset=utf-8") == (
            reply.status,
            reply.text,
            reply.headers["content-type"],
        )
        assert "nsq; version=1.0" == reply.headers["x-nsq-content-type"]
        assert 200 == (await scene.post("/pub?topic=orders", b"x" * MAX_MSG)).status
        assert [b"topic=alarms", b"x" * MAX_MSG] == scene.bodies()
        assert ["orders"] == list(scene.broker.topics)


@pytest.mark.parametrize("defer", ["5000", "%2B5000", "3600000", "0", "-0"])
def test_a_message_is_published_for_later(defer: str) -> None:
    """In milliseconds; 0 is at once."""

    @in_loop
    async def run() -> None:
        async with serving() as scene:
            channel = scene.broker.topic("orders").channel("billing")
            reply = await scene.post(f"/pub?topic=orders&defer={defer}", b"tea")
            assert (200, "OK") == (reply.status, reply.text)
            wait = int(defer.replace("%2B", "")) / 1000
            assert ([] if wait else [None]) == [info.due_in for info in channel.peek()]
            assert ([wait] if wait else []) == [info.due_in for info in channel.deferred()]

    run()


@in_loop
async def test_a_bad_delay_has_made_the_topic() -> None:
    """As in nsqd."""
    async with serving() as scene:
        await scene.post("/pub?topic=orders&defer=x", b"tea")
        assert ["orders"] == list(scene.broker.topics)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"tea\nmilk", [b"tea", b"milk"]),
        (b"\n\ntea\n\nmilk\r\n\n", [b"tea", b"milk\r"]),
        (b"\n", []),
        (b"", []),
        (b"x" * MAX_MSG + b"\n", [b"x" * MAX_MSG]),
        (b"x\n" * (MAX_BODY // 2), [b"x"] * 100),
    ],
)
@pytest.mark.parametrize("binary", ["", "&binary=false", "&binary=0"])
def test_lines_are_published(body: bytes, expected: list[bytes], binary: str) -> None:
    """A message each, but for empty ones."""

    @in_loop
    async def run() -> None:
        async with serving() as scene:
            reply = await scene.post(f"/mpub?topic=orders{binary}", body)
            assert (200, "OK") == (reply.status, reply.text)
            assert expected == scene.bodies()

    run()


@pytest.mark.parametrize("binary", ["true", "1", "yes", "FALSE", ""])
def test_messages_with_sizes_are_published(binary: str, caplog: pytest.LogCaptureFixture) -> None:
    """Whatever is no word for no means them; what is no word for yes is logged."""

    @in_loop
    async def run() -> None:
        async with serving() as scene:
            body = b"\0\0\0\2\0\0\0\3tea\0\0\0\4mi\nkmore"
            reply = await scene.post(f"/mpub?topic=orders&binary={binary}", body)
            assert (200, "OK") == (reply.status, reply.text)
            assert [b"tea", b"mi\nk"] == scene.bodies()

    with caplog.at_level(logging.WARNING, "nsqlite"):
        run()
    wanted = [f'deprecated value "{binary}" used for /mpub binary param']
    assert ([] if binary in {"true", "1"} else wanted) == [
        one.getMessage() for one in caplog.records
    ]


def test_as_many_messages_as_fit() -> None:
    """A body of the largest size with the smallest messages is in order."""
    body = b"\0\0\0\xc7" + b"\0\0\0\1x" * 199
    assert [b"x"] * 199 == split(body, MAX_MSG, MAX_BODY)
    with pytest.raises(Problem, match="BAD_BODY"):
        split(b"\0\0\0\xc8" + b"\0\0\0\1x" * 200, MAX_MSG, MAX_BODY)


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/pub?topic=orders", 503, "EXITING"),
        ("/pub?topic=orders&defer=5", 503, "EXITING"),
        ("/pub?topic=new", 503, "EXITING"),
        ("/mpub?topic=orders", 503, "EXITING"),
        ("/topic/create?topic=new", 503, "EXITING"),
        ("/topic/pause?topic=orders", 503, "EXITING"),
        ("/channel/create?topic=orders&channel=new", 503, "EXITING"),
        ("/channel/pause?topic=orders&channel=billing", 503, "EXITING"),
    ],
)
@pytest.mark.parametrize("kind", ["memory", "store"])
def test_a_broker_that_is_closed(path: str, status: int, code: str, kind: str) -> None:
    """Nothing can be published or changed."""

    @in_loop
    async def run() -> None:
        async with stored() if kind == "store" else serving() as scene:
            scene.broker.topic("orders").channel("billing")
            scene.broker.close()
            reply = await scene.post(path, b"tea")
            assert (status, {"message": code}) == (reply.status, reply.json)

    run()


@in_loop
async def test_what_a_topic_of_the_program_refuses() -> None:
    """A topic may be stricter than the daemon; one that is full takes nothing."""
    async with serving() as scene:
        topic = scene.broker.topic("orders", max_msg_size=3, max_req_timeout=1)
        channel = topic.channel("billing", max_depth=1)
        for path, body, status, code in (
            ("/pub?topic=orders", b"milk", 413, "MSG_TOO_BIG"),
            ("/pub?topic=orders&defer=2000", b"tea", 400, "INVALID_DEFER"),
            ("/mpub?topic=orders", b"tea\ntea", 503, "EXITING"),
        ):
            reply = await scene.post(path, body)
            assert (status, {"message": code}) == (reply.status, reply.json)
        assert 0 == channel.depth


# Topics and channels


@in_loop
async def test_topics_are_made_paused_emptied_and_deleted() -> None:
    """Each is answered with nothing; done twice, it is fine, but for deleting."""
    async with serving() as scene:

        async def all_well(path: str) -> None:
            for _ in range(2):
                reply = await scene.post(path)
                assert (200, b"", None) == (
                    reply.status,
                    reply.body,
                    reply.headers.get("content-type"),
                )

        await all_well("/topic/create?topic=orders")
        topic = scene.broker.topic("orders")
        topic.put(b"tea")
        await all_well("/topic/pause?topic=orders")
        assert topic.paused
        await all_well("/topic/unpause?topic=orders")
        assert not topic.paused
        await all_well("/topic/empty?topic=orders")
        assert 0 == topic.depth
        await all_well("/channel/create?topic=orders&channel=billing")
        channel = topic.channels["billing"]
        topic.put(b"tea")
        await all_well("/channel/pause?topic=orders&channel=billing")
        assert channel.paused
        await all_well("/channel/unpause?topic=orders&channel=billing")
        assert not channel.paused
        await all_well("/channel/empty?topic=orders&channel=billing")
        assert 0 == channel.depth
        for path, code in (
            ("/channel/delete?topic=orders&channel=billing", "CHANNEL_NOT_FOUND"),
            ("/topic/delete?topic=orders", "TOPIC_NOT_FOUND"),
        ):
            assert 200 == (await scene.post(path)).status
            assert {"message": code} == (await scene.post(path)).json
        assert {} == dict(scene.broker.topics)


@in_loop
async def test_a_topic_that_goes_meanwhile() -> None:
    """It is not found."""
    async with stored() as scene:
        topic = scene.broker.topic("orders")
        channel = topic.channel("billing")
        database: Any = scene.broker._persistence
        send = database.send

        def delete_first(task: Callable[[], object], on_done: Any) -> None:
            place.delete()
            send(task, on_done)

        database.send = delete_first
        for place, path, code in (  # noqa: B007 - the first is for the function above
            (channel, "/channel/pause?topic=orders&channel=billing", "CHANNEL_NOT_FOUND"),
            (topic, "/topic/pause?topic=orders", "TOPIC_NOT_FOUND"),
        ):
            reply = await scene.post(path)
            assert (404, {"message": code}) == (reply.status, reply.json)


# With a store


@in_loop
async def test_what_is_answered_is_stored() -> None:
    """Messages, topics, channels and pauses; and it is the store's thread that writes."""
    disk = Disk()
    store = MemoryStore()
    with Broker(store=FaultyStore(store, disk)) as broker:
        async with serving(broker) as scene:
            for path, body in (
                ("/pub?topic=orders", b"tea"),
                ("/pub?topic=orders&defer=5000", b"later"),
                ("/mpub?topic=orders", b"milk\ncake"),
                ("/pub?topic=tail%23ephemeral", b"tea"),
                ("/topic/create?topic=alarms", None),
                ("/topic/pause?topic=alarms", None),
                ("/channel/create?topic=alarms&channel=mail", None),
                ("/channel/pause?topic=alarms&channel=mail", None),
                ("/topic/create?topic=gone", None),
                ("/topic/delete?topic=gone", None),
            ):
                assert 200 == (await scene.post(path, body)).status
            store.crash()
    assert disk.writers
    assert threading.get_ident() not in disk.writers
    with Broker(store=store) as broker:
        assert ["alarms", "orders"] == sorted(broker.topics)
        assert broker.topics["alarms"].paused
        assert broker.topics["alarms"].channels["mail"].paused
        assert 4 == broker.topics["orders"].depth


@in_loop
async def test_topics_that_only_the_store_has_yet() -> None:
    """They are known to every endpoint."""
    store = MemoryStore()
    for path, status in (
        ("/topic/pause?topic=orders", 200),
        ("/topic/pause?topic=none", 404),
        ("/channel/empty?topic=orders&channel=billing", 200),
        ("/stats?topic=orders", 200),
        ("/metrics", 200),
    ):
        with Broker(store=store) as broker:
            broker.topic("orders").channel("billing")
        with Broker(store=store) as broker:
            async with serving(broker) as scene:
                method = "GET" if path.startswith(("/stats", "/metrics")) else "POST"
                reply = await scene.client.ask(method, path)
                assert (path, status) == (path, reply.status)
                assert status == 404 or not reply.body or "orders" in reply.text


@in_loop
async def test_topics_that_nobody_can_read_any_more() -> None:
    """The broker is closed before anybody has asked for them."""
    store = MemoryStore()
    with Broker(store=store) as broker:
        broker.topic("orders")
    with Broker(store=store) as broker:
        async with serving(broker) as scene:
            broker.close()
            reply = await scene.get("/stats")
            assert (503, {"message": "EXITING"}) == (reply.status, reply.json)
            assert 200 == (await scene.get("/ping")).status


def test_a_store_that_cannot_be_written(caplog: pytest.LogCaptureFixture) -> None:
    """Nothing is published or changed for good; the log tells why, the answers name no file."""
    disk = Disk()

    @in_loop
    async def run() -> None:
        async with stored(disk) as scene:
            scene.broker.topic("orders").channel("billing")
            scene.broker.topic("alarms")
            disk.full = True
            for path, status, code in (
                ("/pub?topic=orders", 503, "EXITING"),
                ("/pub?topic=orders&defer=5", 503, "EXITING"),
                ("/mpub?topic=orders", 503, "EXITING"),
                ("/pub?topic=new", 503, "EXITING"),
                ("/topic/pause?topic=alarms", 500, "INTERNAL_ERROR"),
                ("/channel/empty?topic=orders&channel=billing", 500, "INTERNAL_ERROR"),
            ):
                reply = await scene.post(path, b"tea")
                assert (status, {"message": code}) == (reply.status, reply.json)
            ping = await scene.get("/ping")
            assert (500, "NOK - the store cannot be written") == (ping.status, ping.text)
            assert "text/plain; charset=utf-8" == ping.headers["content-type"]
            assert "x-nsq-content-type" not in ping.headers
            assert ping.text == (await scene.get("/stats?format=json")).json["health"]
            assert "/secret" not in (await scene.get("/stats")).text
            disk.full = False
            assert 200 == (await scene.post("/pub?topic=orders", b"milk")).status
            assert [b"milk"] == scene.bodies()

    with caplog.at_level(logging.ERROR, "nsqlite"):
        run()
    told = [record.getMessage() for record in caplog.records]
    assert "HTTP: messages were not published: store /secret/jobs.db: the disk is full" in told
    assert "HTTP: a topic could not be changed: store /secret/jobs.db: the disk is full" in told


@in_loop
async def test_others_are_answered_while_one_waits_for_the_store() -> None:
    """The loop is never held up."""
    held, go_on = threading.Event(), threading.Event()

    def hold(point: str) -> None:
        if point.startswith("before write") and held.is_set():
            go_on.wait(20)

    async with stored(hold) as scene:
        scene.broker.topic("orders").channel("billing")
        held.set()
        assert scene.service.address is not None
        async with HTTPClient(scene.service.address) as other:
            publishing = asyncio.ensure_future(other.ask("POST", "/pub?topic=orders", b"tea"))
            for path in ("/ping", "/stats", "/info"):
                assert 200 == (await scene.get(path)).status
            assert not publishing.done()
            go_on.set()
            assert 200 == (await publishing).status


# What it tells of itself


@in_loop
async def test_ping() -> None:
    """It is answered with a text, and without NSQ's header."""
    async with serving() as scene:
        reply = await scene.get("/ping?x=%")
        assert (200, "OK", "text/plain; charset=utf-8") == (
            reply.status,
            reply.text,
            reply.headers["content-type"],
        )
        assert "x-nsq-content-type" not in reply.headers


@in_loop
async def test_info() -> None:
    """Its keys are nsqd's, in its order; times are in nanoseconds."""
    async with serving() as scene:
        scene.daemon.tcp_port = -1
        reply = await scene.get("/info")
        assert (
            b'{"version":"1.3.0","broadcast_address":"node.example","hostname":"node.example",'
            b'"http_port":4151,"tcp_port":-1,"start_time":1700000000,'
            b'"max_heartbeat_interval":60000000000,"max_output_buffer_size":65536,'
            b'"max_output_buffer_timeout":30000000000,"max_deflate_level":6,'
            b'"topology_zone":"eu-1","topology_region":"eu"}'
        ) == reply.body
        assert "application/json; charset=utf-8" == reply.headers["content-type"]


@in_loop
async def test_stats() -> None:
    """As text, or as JSON if that is asked for."""
    async with serving() as scene:
        scene.broker.topic("orders").channel("billing")
        scene.daemon.connections.append(Client(pub_counts={"orders": 1}))
        text = await scene.get("/stats")
        assert "text/plain; charset=utf-8" == text.headers["content-type"]
        assert text.text.startswith("nsqd v1.3.0 (built w/python")
        assert "\nuptime 0s\n" in text.text
        assert "\nMemory:\n" in text.text
        assert (await scene.get("/stats?format=JSON")).text.startswith("nsqd v")
        reply = await scene.get("/stats?format=json")
        assert "application/json; charset=utf-8" == reply.headers["content-type"]
        assert b'{"version":"1.3.0","health":"OK","start_time":1700000000,"topics":[{"topic_' in (
            reply.body
        )


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("true", True),
        ("1", True),
        ("false", False),
        ("0", False),
        ("", True),
        ("no", True),
        ("FALSE", True),
    ],
)
def test_what_is_wanted_of_stats(value: str, expected: bool) -> None:
    """Whatever is no word for no is yes."""

    @in_loop
    async def run() -> None:
        async with serving() as scene:
            scene.broker.topic("orders").channel("billing")
            scene.broker.topic("alarms")
            query = f"format=json&include_clients={value}&include_mem={value}&channel=billing"
            told = (await scene.get(f"/stats?{query}")).json
            assert expected == ("memory" in told)
            [topic] = told["topics"]
            assert ([] if expected else None) == topic["channels"][0]["clients"]
            told = (await scene.get(f"/stats?{query}&topic=none")).json
            assert (None, None) == (told["topics"], told["producers"])

    run()


@in_loop
async def test_metrics() -> None:
    """In Prometheus's form, as often as they are asked for."""
    async with serving() as scene:
        for name in ("orders", "alarms"):
            scene.broker.topic(name)
            reply = await scene.get("/metrics")
            assert f'nsq_topic_depth{{topic="{name}"}} 0.0\n' in reply.text
        assert "text/plain; version=0.0.4; charset=utf-8" == reply.headers["content-type"]
        assert "x-nsq-content-type" not in reply.headers
        reply = await scene.get("/metrics", None, "Accept: application/openmetrics-text\r\n")
        assert reply.headers["content-type"].startswith("application/openmetrics-text")


# Options


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("id", b"7"),
        ("tcp_address", b"127.0.0.1:4150"),
        ("log_prefix", b"[nsqd] "),
        ("data_path", b""),
        ("deflate", b"true"),
        ("snappy", b"false"),
        ("max_msg_size", b"100"),
        ("msg_timeout", b"60000000000"),
        ("min_output_buffer_timeout", b"25000000"),
        ("log_level", b"2"),
        ("tls_required", b"0"),
        ("tls_min_version", b"771"),
        ("nsqlookupd_tcp_addresses", b"[]"),
        ("e2e_processing_latency_percentiles", b"[0.99,0.5]"),
    ],
)
def test_options_are_told(name: str, expected: bytes) -> None:
    """Texts as they are, all else as JSON."""

    @in_loop
    async def run() -> None:
        async with serving() as scene:
            reply = await scene.get(f"/config/{name}")
            assert (200, expected) == (reply.status, reply.body)
            is_text = isinstance(OPTIONS[name], str) and name not in {
                "log_level",
                "tls_required",
                "tls_min_version",
            }
            kind = "text/plain" if is_text else "application/json"
            wanted = f"{kind}; charset=utf-8" if expected else None
            assert wanted == reply.headers.get("content-type")

    run()


def test_every_option_is_told() -> None:
    """Each that nsqd has a flag for."""
    for name in OPTIONS:
        option_of(SimpleNamespace(**OPTIONS), name)


@pytest.mark.parametrize(
    ("name", "body", "expected", "told"),
    [
        ("log_level", b"debug", "debug", b"1"),
        ("log_level", b"WARN", "warn", b"3"),
        ("log_level", b"fatal", "fatal", b"5"),
        ("nsqlookupd_tcp_addresses", b'["a:4160", "b:4160"]', ("a:4160", "b:4160"), None),
        ("nsqlookupd_tcp_addresses", b"[]", (), b"[]"),
        ("nsqlookupd_tcp_addresses", b"null", (), b"[]"),
    ],
)
def test_two_options_can_be_set(name: str, body: bytes, expected: Any, told: bytes | None) -> None:
    """The answer is the new value."""

    @in_loop
    async def run() -> None:
        async with serving(nsqlookupd_tcp_addresses=("old:1",)) as scene:
            reply = await scene.put(f"/config/{name}", body)
            assert (200, told or b'["a:4160","b:4160"]') == (reply.status, reply.body)
            assert expected == getattr(scene.daemon.options, name)

    run()


# Its inside


@in_loop
async def test_its_inside() -> None:
    """The pages are texts; what Python cannot tell is answered all the same."""
    async with serving() as scene:
        for name, begin in (
            ("", "/debug/pprof/\n"),
            ("goroutine", "thread MainThread\n"),
            ("threadcreate", "MainThread\n"),
            ("heap", "heap_objects"),
            ("symbol", "num_symbols: 0\n"),
            ("cmdline", ""),
            ("block", "Python has nothing to show here"),
            ("profile", "Python has nothing to show here"),
        ):
            reply = await scene.get(f"/debug/pprof/{name}")
            assert (200, "text/plain; charset=utf-8") == (
                reply.status,
                reply.headers["content-type"],
            )
            assert reply.text.startswith(begin)
            assert "x-nsq-content-type" not in reply.headers
        assert 200 == (await scene.post("/debug/pprof/symbol", b"0x1")).status
        assert "/debug/pprof/" == (await scene.get("/debug/pprof")).headers["location"]


@in_loop
async def test_what_go_can_be_told() -> None:
    """A rate of its block profile is checked and ignored; garbage is collected."""
    async with serving() as scene:
        for path, status, text in (
            ("rate=5", 200, ""),
            ("rate=-1", 200, ""),
            ("rate=x", 400, 'invalid block rate : strconv.Atoi: parsing "x": invalid syntax'),
            ("", 400, 'invalid block rate : strconv.Atoi: parsing "": invalid syntax'),
        ):
            reply = await scene.put(f"/debug/setblockrate?{path}")
            assert (status, text) == (reply.status, reply.text)
        assert (200, b"") == (await scene.post("/debug/freememory"))[::2]


# TLS


@pytest.mark.parametrize(
    ("required", "address", "expected"),
    [
        ("true", "127.0.0.1:4152", b'{"message": "TLS_REQUIRED", "https_port": 4152}'),
        ("true", None, b'{"message": "TLS_REQUIRED", "https_port": 0}'),
        ("tcp-https", None, None),
        ("false", None, None),
    ],
)
def test_tls_can_be_required(required: str, address: str | None, expected: bytes | None) -> None:
    """Whatever is asked for without it is refused, and the port with it told."""

    @in_loop
    async def run() -> None:
        async with serving(tls_required=required) as scene:
            scene.daemon.https_address = address
            reply = await scene.get("/ping")
            if expected is None:
                assert 200 == reply.status
            else:
                assert (403, expected) == (reply.status, reply.body)
                assert "nsq; version=1.0" == reply.headers["x-nsq-content-type"]
                assert 403 == (await scene.get("/none")).status

    run()


@in_loop
async def test_what_comes_through_tls_is_welcome() -> None:
    """Where it is required, too."""
    authority = trustme.CA()
    here, there = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    authority.issue_cert("127.0.0.1").configure_cert(here)
    authority.configure_trust(there)
    service = HTTPService(daemon_of(tls_required="true"), "127.0.0.1:0", here)
    assert "HTTPS" == service.name
    await service.start()
    assert service.address is not None
    async with HTTPClient(service.address, there) as client:
        assert "OK" == (await client.ask("GET", "/ping")).text
    await service.stop()


# Its life


@in_loop
async def test_binding_and_serving() -> None:
    """Its address is known when it listens."""
    service = HTTPService(daemon_of(), "127.0.0.1:0", max_connections=1)
    assert ("HTTP", None, 0) == (service.name, service.address, service.port)
    service.bind()
    assert f"127.0.0.1:{service.port}" == service.address
    await service.start()
    async with HTTPClient(service.address) as client, HTTPClient(service.address) as other:
        assert "OK" == (await client.ask("GET", "/ping")).text
        assert b"" == await other.rest()
    await service.stop()
    assert 0 == service.port


@in_loop
async def test_a_consumer_gets_what_was_published() -> None:
    """With what is told of it in stats."""
    clock = ManualClock(START)
    with Broker(clock=clock) as broker:
        async with serving(broker) as scene:
            consumer = Consumer(broker.topic("orders").channel("billing"), name="mailer")
            await scene.post("/pub?topic=orders", b"tea")
            message = consumer.get(timeout=0)
            assert (b"tea", START * SECOND) == (message.body, message.timestamp)
            told = (await scene.get("/stats?format=json")).json["topics"][0]["channels"][0]
            assert (1, "mailer") == (told["in_flight_count"], told["clients"][0]["client_id"])
            consumer.close()


def test_errors_of_the_library_are_values() -> None:
    """What `configure` refuses is no valid value."""
    assert issubclass(nsqlite.InvalidOption, ValueError)
