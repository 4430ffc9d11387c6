"""An nsqd: what it serves, what one that cannot start leaves, and how the next one carries on."""

import asyncio
import logging
import socket
import ssl
import sys
import threading
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any

import pytest
import trustme
from aio.loops import begin, in_loop, outcome, turns
from helpers import PATIENCE, Call, bodies
from store.processes import descriptors

import nsqlite
import nsqlite.server
from nsqlite import Broker, Closed, InvalidOption, MissingExtra, StoreError, StoreInUse, aio
from nsqlite.errors import CannotListen
from nsqlite.server import NSQD, NSQDOptions, http
from nsqlite.server.nsqd import FILE, BadDataPath, limits_of
from nsqlite.server.tls import BadTLS
from nsqlite.testing import ManualClock
from nsqlite.wire.commands import Dpub
from server import httpclient
from server.tcpclient import Client

ANY = "127.0.0.1:0"

needs_ipv6 = pytest.mark.skipif(not socket.has_ipv6, reason="there is no IPv6")


def options(**given: Any) -> NSQDOptions:
    """Return options of an nsqd on free ports, without HTTP unless that is asked for."""
    return NSQDOptions(**{"tcp_address": ANY, "http_address": "", "https_address": ""} | given)


def nsqd(**given: Any) -> NSQD:
    return NSQD(options(**given))


def over_http(address: str | None, tls: ssl.SSLContext | None = None) -> httpclient.Client:
    assert address is not None
    return httpclient.Client(address, tls)


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


class Part:
    """A service that tells what happens to it, and can fail."""

    def __init__(self, told: list[str], name: str = "part", *, fails: bool = False) -> None:
        self.told = told
        self.name = name
        self._fails = fails

    async def start(self) -> None:
        self.told.append(f"start {self.name}")
        if self._fails:
            raise RuntimeError("no tea")

    async def stop(self) -> None:
        self.told.append(f"stop {self.name}")


class Certificates:
    """A certificate of localhost, in files."""

    def __init__(self, folder: Path) -> None:
        self.authority = trustme.CA()
        made = self.authority.issue_cert("localhost", "127.0.0.1")
        self.cert, self.key = folder / "cert.pem", folder / "key.pem"
        self.cert.write_bytes(made.cert_chain_pems[0].bytes())
        self.key.write_bytes(made.private_key_pem.bytes())

    @property
    def options(self) -> dict[str, Any]:
        return {"tls_cert": self.cert, "tls_key": self.key}


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return an empty directory, whose path is short enough for a socket's."""
    (tmp_path / "d").mkdir()
    return tmp_path / "d"


def test_the_package_shows_what_is_needed() -> None:
    """These names are the package's."""
    assert nsqlite.server.__all__ == ["NSQD", "NSQDOptions", "Node", "Service"]
    assert nsqlite.server.NSQD is NSQD


# What it serves


@in_loop
async def test_a_message_goes_through() -> None:
    """What one client publishes another one gets, at the address that is told."""
    async with nsqd() as node:
        assert node.tcp_address == f"127.0.0.1:{node.tcp_port}"
        assert (None, 0, None) == (node.http_address, node.http_port, node.https_address)
        async with Client(node) as putter, Client(node) as getter:
            await putter.put("orders", b"tea")
            await getter.subscribe("orders", "billing")
            message = await getter.message()
            assert (1, b"tea") == (message.attempts, message.body)
            assert len(node.connections) == 2
        assert node.health == "OK"
        assert f"<NSQD {node.tcp_address}>" == repr(node)


@in_loop
async def test_the_http_api() -> None:
    """It is at an address of its own, and tells of the node what the node has."""
    async with nsqd(http_address=ANY, broadcast_address="example.org") as node:
        assert node.http_address == f"127.0.0.1:{node.http_port}"
        async with over_http(node.http_address) as client:
            assert (await client.ask("GET", "/ping")).body == b"OK"
            told = (await client.ask("GET", "/info")).json
            port = (await client.ask("GET", "/config/broadcast_tcp_port")).json
    assert (node.version, node.hostname, node.start_time) == (
        told["version"],
        told["hostname"],
        told["start_time"],
    )
    assert told["broadcast_address"] == node.broadcast_address == "example.org"
    assert told["tcp_port"] == port > 0


@in_loop
async def test_every_option_of_nsqd_is_told() -> None:
    """GET /config knows whatever has a flag in nsqd."""
    names = http.PLAIN_OPTIONS | http.TIMES | http.LISTS | set(http.WORDS)
    async with nsqd(http_address=ANY) as node, over_http(node.http_address) as client:
        told = [(await client.ask("GET", f"/config/{name}")).status for name in sorted(names)]
    assert {200} == set(told)


@in_loop
async def test_https(certificates: Certificates) -> None:
    """With a certificate there is HTTPS, besides HTTP or alone."""
    client_tls = certificates.authority
    for plain in ("", ANY):
        given = certificates.options | {"http_address": plain, "https_address": ANY}
        async with nsqd(**given) as node:
            assert (bool(plain), True) == (bool(node.http_address), bool(node.https_address))
            context = ssl.create_default_context()
            client_tls.configure_trust(context)
            async with over_http(node.https_address, context) as client:
                assert (await client.ask("GET", "/ping")).body == b"OK"
            async with Client(node) as client_of_tcp:
                assert (await client_of_tcp.identify(tls_v1=True))["tls_v1"] is True


@in_loop
async def test_tls_can_be_required(certificates: Certificates) -> None:
    """Who has none is refused then, also where a policy for certificates means it."""
    given = certificates.options | {"http_address": ANY, "tls_client_auth_policy": "require-verify"}
    async with nsqd(**given, tls_root_ca_file=str(certificates.cert)) as node:
        async with over_http(node.http_address) as client:
            assert (await client.ask("POST", "/pub?topic=orders", b"tea")).status == 403
        async with Client(node) as client_of_tcp:
            answer = await client_of_tcp.ask(Dpub("orders", 5, b"tea"))
            assert answer.startswith(b"E_INVALID cannot DPUB in current state (TLS required)")


@in_loop
async def test_unix_sockets(folder: Path) -> None:
    """An address can be a path, which goes with the nsqd; there is no port then."""
    given = {"tcp_address": str(folder / "t"), "http_address": str(folder / "h")}
    async with nsqd(**given) as node:
        assert list(given.values()) == [node.tcp_address, node.http_address]
        assert (-1, -1) == (node.tcp_port, node.http_port)
        assert (0, 0) == (node.options.broadcast_tcp_port, node.options.broadcast_http_port)
        async with Client(node) as client:
            await client.put("orders", b"tea")
        async with over_http(node.http_address) as asking:
            assert (await asking.ask("GET", "/ping")).body == b"OK"
    assert [] == names_in(folder)


@needs_ipv6
@in_loop
async def test_ipv6() -> None:
    """An address of IPv6 stands in brackets, given and told."""
    async with nsqd(tcp_address="[::1]:0", http_address="[::1]:0") as node:
        assert (f"[::1]:{node.tcp_port}", f"[::1]:{node.http_port}") == (
            node.tcp_address,
            node.http_address,
        )
        async with Client(node) as client:
            await client.put("orders", b"tea")


@in_loop
async def test_ports_that_clients_are_told() -> None:
    """They are the real ones, unless others are given."""
    async with nsqd(broadcast_tcp_port=7, http_address=ANY) as node:
        found = node.options
    assert (7, True) == (found.broadcast_tcp_port, found.broadcast_http_port > 0)


@in_loop
async def test_statsd() -> None:
    """With an address for it, figures are sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as heard:
        heard.bind(("127.0.0.1", 0))
        heard.setblocking(False)
        clock = ManualClock()
        given = options(statsd_address=f"127.0.0.1:{heard.getsockname()[1]}", statsd_interval=1)
        async with NSQD(given, clock=clock) as node:
            node.broker.topic("orders").put(b"tea")
            clock.advance(1)
            data = await asyncio.get_running_loop().sock_recv(heard, 1 << 16)
    assert b"topic.orders.message_count:1|c" in data


@in_loop
async def test_auth_servers_are_asked() -> None:
    """With an auth server, clients must say a secret."""
    async with (
        nsqd(auth_http_addresses=["127.0.0.1:1"]) as node,
        Client(node) as client,
    ):
        assert (await client.identify())["auth_required"] is True


@in_loop
async def test_snappy_needs_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that asks for it is told whether it is there, and allowed."""
    agreed = []
    for allowed in (True, False, True):
        async with nsqd(snappy=allowed) as node, Client(node) as client:
            agreed.append((await client.identify(snappy=True))["snappy"])
        if not allowed:
            monkeypatch.setitem(sys.modules, "snappy", None)
    assert [True, False, False] == agreed


def test_what_an_identify_may_ask_for() -> None:
    """Times are told in milliseconds."""
    limits = limits_of(options(msg_timeout=1.5, output_buffer_timeout=0.2505, topology_zone="a"))
    assert (1500, 250, 900_000, "a", False) == (
        limits.msg_timeout,
        limits.output_buffer_timeout,
        limits.max_msg_timeout,
        limits.topology_zone,
        limits.tls,
    )


@in_loop
async def test_many_in_one_process() -> None:
    """Each has its own ports, topics and clients."""
    async with AsyncExitStack() as stack:
        nodes = [await stack.enter_async_context(nsqd()) for _ in range(30)]
        assert 30 == len({node.tcp_address for node in nodes})
        for number, node in enumerate(nodes):
            async with Client(node) as client:
                await client.put(f"orders{number}", b"tea")
        assert [[f"orders{n}"] for n in range(30)] == [list(one.broker.topics) for one in nodes]


# A broker of somebody's own


@in_loop
async def test_a_broker_of_your_own_stays_open() -> None:
    """It is served with its options, and what clients held is there again when that ends."""
    clock = ManualClock()
    with Broker(clock=clock, msg_timeout=7, node_id=5, max_msg_size=10) as broker:
        channel = broker.topic("orders").channel("billing")
        node = NSQD(options(msg_timeout=50), broker=broker)
        found = node.options
        assert (7, 5, 10) == (found.msg_timeout, found.id, found.max_msg_size)
        async with node, Client(node) as client:
            assert (broker, clock) == (node.broker, node.clock)
            assert (await client.identify())["msg_timeout"] == 7000
            await client.put("orders", b"tea")
            await client.subscribe("orders", "billing")
            await client.message()
        assert not broker.topic("orders").closed
        clock.advance(7)  # as in nsqd, what a client held comes again when its time is over
        assert [(b"tea", 2)] == [(one.body, one.attempts + 1) for one in channel.peek()]


def test_a_broker_has_its_own_clock_and_path() -> None:
    """To give a second one is refused, and so is a clock that is none."""
    with Broker() as broker:
        with pytest.raises(InvalidOption, match="clock must be None with a broker"):
            NSQD(broker=broker, clock=ManualClock())
        with pytest.raises(InvalidOption, match="data_path must be None with a broker"):
            NSQD(options(data_path="x"), broker=broker)
    with pytest.raises(InvalidOption, match="clock"):
        NSQD(clock="noon")  # type: ignore[arg-type]  # as it says


# Its life


def test_before_it_is_started() -> None:
    """It has no addresses, no clients and no broker."""
    node = NSQD()
    assert (None, 0, None, 0, None) == (
        node.tcp_address,
        node.tcp_port,
        node.http_address,
        node.http_port,
        node.https_address,
    )
    assert not node.connections
    assert repr(node) == "<NSQD not served>"
    with pytest.raises(InvalidOption, match="start"):
        node.broker  # noqa: B018 - it raises
    assert NSQDOptions() == node.options


@in_loop
async def test_start_and_stop_twice() -> None:
    """The second call of each does nothing, and afterwards there are no addresses."""
    node = nsqd(http_address=ANY)
    await asyncio.gather(node.start(), node.start())
    before = node.tcp_address, node.http_address
    await node.start()
    assert before == (node.tcp_address, node.http_address)
    await asyncio.gather(node.stop(), node.stop())
    await node.stop()
    assert (None, 0, None, 0) == (
        node.tcp_address,
        node.tcp_port,
        node.http_address,
        node.http_port,
    )
    with pytest.raises(Closed, match="nsqd is stopped"):
        await node.start()


@in_loop
async def test_stop_before_start(folder: Path) -> None:
    """One that was stopped cannot be started, and opens nothing."""
    node = nsqd(data_path=folder)
    await node.stop()
    with pytest.raises(Closed, match="nsqd is stopped"):
        await node.start()
    with pytest.raises(Closed):
        await node.run()
    assert [] == names_in(folder)


@in_loop
async def test_stop_while_it_starts(folder: Path) -> None:
    """A start that is under way is given up, and leaves nothing."""
    held = asyncio.Event()

    class Held(Part):
        async def start(self) -> None:
            await held.wait()

    node = nsqd(data_path=folder)
    node.add(Held([]))
    starting = await begin(node.start())
    await node.stop()
    assert isinstance(await outcome(starting), Closed)
    async with nsqd(data_path=folder) as another:
        assert another.tcp_address


@in_loop
async def test_a_cancelled_start_leaves_nothing(folder: Path) -> None:
    """As if something could not be started."""

    class Held(Part):
        async def start(self) -> None:
            await asyncio.Event().wait()

    before = descriptors()
    node = nsqd(data_path=folder, http_address=ANY)
    node.add(Held([]))
    starting = await begin(node.start())
    starting.cancel()
    with suppress(asyncio.CancelledError):
        await starting
    assert starting.cancelled()
    assert before == descriptors()
    assert node.tcp_address is None


@in_loop
async def test_services_of_your_own() -> None:
    """They start last, stop first, and can be told how long that may take."""
    told: list[str] = []
    node = nsqd()
    node.add(Part(told, "one"))
    node.add(Part(told, "two"), grace=1)
    async with node:
        assert ["start one", "start two"] == told
        async with Client(node) as client:
            await client.put("orders", b"tea")
    assert ["stop two", "stop one"] == told[2:]


def test_shutdown_from_a_thread() -> None:
    """It makes `run` stop all, and return."""
    found: list[NSQD] = []
    begun = threading.Event()

    class Tells(Part):
        async def start(self) -> None:
            begun.set()

    def program() -> None:
        node = nsqd()
        node.add(Tells([]))
        found.append(node)
        asyncio.run(node.run())

    call = Call(program)
    assert begun.wait(PATIENCE)
    assert found[0].tcp_address
    found[0].shutdown()
    assert call.result() is None
    assert found[0].tcp_address is None


@in_loop
async def test_wait() -> None:
    """It returns when it was shut down, or at once if it was."""
    async with nsqd() as node:
        waiting = await begin(node.wait())
        assert not waiting.done()
        node.shutdown()
        await waiting
        await node.wait()


@in_loop
async def test_clients_that_are_there_do_not_hold_it_up() -> None:
    """It ends with connections open, also such as have said nothing."""
    async with AsyncExitStack() as stack:
        node = await stack.enter_async_context(nsqd(http_address=ANY))
        clients = [await stack.enter_async_context(Client(node)) for _ in range(5)]
        host, port = str(node.tcp_address).split(":")
        _, silent = await asyncio.open_connection(host, int(port))
        stack.callback(silent.close)
        await clients[0].subscribe("orders", "billing")
        await node.stop()
        assert [b""] * 5 == [await client.end() for client in clients]


# What is left of one that cannot start


def fails_at_tcp(given: dict[str, Any], taken: str, _: Path) -> type[Exception]:
    given["tcp_address"] = taken
    return CannotListen


def fails_at_http(given: dict[str, Any], taken: str, _: Path) -> type[Exception]:
    given["http_address"] = taken
    return CannotListen


def fails_at_https(given: dict[str, Any], taken: str, _: Path) -> type[Exception]:
    given["https_address"] = taken
    return CannotListen


def fails_at_a_certificate(given: dict[str, Any], _: str, folder: Path) -> type[Exception]:
    given["tls_cert"] = folder / "nothing"
    return BadTLS


def fails_at_a_policy(given: dict[str, Any], _: str, __: Path) -> type[Exception]:
    given["tls_client_auth_policy"] = "require"
    return BadTLS


def fails_at_no_directory(given: dict[str, Any], _: str, folder: Path) -> type[Exception]:
    given["data_path"] = folder / "nothing"
    return BadDataPath


def fails_at_a_file(given: dict[str, Any], _: str, folder: Path) -> type[Exception]:
    (folder / "file").touch()
    given["data_path"] = folder / "file"
    return BadDataPath


def fails_at_a_foreign_file(given: dict[str, Any], _: str, folder: Path) -> type[Exception]:
    (folder / FILE).write_bytes(b"no database" * 1000)
    given["data_path"] = folder
    return StoreError


def fails_in_a_service(given: dict[str, Any], _: str, __: Path) -> type[Exception]:
    given["fails"] = True
    return RuntimeError


@pytest.mark.parametrize(
    "fail",
    [
        fails_at_tcp,
        fails_at_http,
        fails_at_https,
        fails_at_a_certificate,
        fails_at_a_policy,
        fails_at_no_directory,
        fails_at_a_file,
        fails_at_a_foreign_file,
        fails_in_a_service,
    ],
)
def test_nothing_is_left(
    fail: Callable[[dict[str, Any], str, Path], type[Exception]],
    folder: Path,
    certificates: Certificates,
) -> None:
    """Whatever cannot be had: nothing stays bound, locked, open or running."""
    given = certificates.options | {
        "http_address": ANY,
        "https_address": ANY,
        "tcp_address": str(folder / "t"),
    }
    given["data_path"] = folder

    async def run() -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            expected = fail(given, f"127.0.0.1:{taken.getsockname()[1]}", folder)
            told: list[str] = []
            fails = given.pop("fails", False)
            node = nsqd(**given)
            node.add(Part(told, "first"))
            node.add(Part(told, "second", fails=fails))
            before = descriptors()
            with pytest.raises(expected):
                await node.start()
            await turns()
            assert before == descriptors()
            with pytest.raises(Closed):
                await node.start()
        assert ["start first", "start second", "stop first"] * fails == told
        assert (None, None, None) == (node.tcp_address, node.http_address, node.https_address)
        assert not (folder / "t").exists()

    in_loop(run)()
    if given["data_path"] == folder and fail is not fails_at_a_foreign_file:
        with Broker(store=nsqlite.SQLite(folder / FILE)) as broker:  # it has no owner
            assert {} == broker.topics


@in_loop
async def test_one_data_path_has_one_nsqd(folder: Path) -> None:
    """The second is refused, binds nothing, and disturbs nobody."""
    async with nsqd(data_path=folder) as node, Client(node) as client:
        await client.put("orders", b"tea")
        second = nsqd(data_path=folder)
        with pytest.raises(StoreInUse):
            await second.start()
        await client.put("orders", b"tea")
    async with nsqd(data_path=folder) as node:
        assert node.broker.topic("orders").depth == 2


def test_a_path_that_cannot_be_written(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is refused before anything is made in it."""
    monkeypatch.setattr("os.access", lambda *_: False)
    with pytest.raises(BadDataPath, match=r"/d: permission denied$"):
        asyncio.run(nsqd(data_path=folder).start())
    assert [] == names_in(folder)


@pytest.mark.parametrize(
    ("module", "given", "text"),
    [
        (
            "nsqlite.server.http",
            {"http_address": ANY},
            'the HTTP API (http_address="" is none)',
        ),
        ("aiohttp", {"auth_http_addresses": ["127.0.0.1:1"]}, "an auth server"),
    ],
)
def test_an_extra_that_is_missing(
    module: str, given: Any, text: str, monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    """The error says what to install."""
    monkeypatch.setitem(sys.modules, module, None)
    before = descriptors()
    with pytest.raises(MissingExtra) as info:
        asyncio.run(nsqd(data_path=folder, **given).start())
    needs = "needs aiohttp, which is not installed: pip install 'nsqlite[server]'"
    assert f"{text} {needs}" == str(info.value)
    assert before == descriptors()


def test_tcp_alone_needs_no_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without HTTP, nothing loads aiohttp."""
    monkeypatch.setitem(sys.modules, "nsqlite.server.http", None)
    monkeypatch.setitem(sys.modules, "aiohttp", None)

    @in_loop
    async def run() -> None:
        async with nsqd() as node, Client(node) as client:
            await client.put("orders", b"tea")

    run()


# How the next one carries on


@in_loop
async def test_a_restart_carries_on(folder: Path) -> None:
    """All is there: what was in flight with its id and attempts 2, and what was deferred later."""
    clock = ManualClock()
    node = NSQD(options(data_path=folder), clock=clock)
    async with node, Client(node) as client, Client(node) as getter:
        await client.put("orders", b"held", b"ready")
        await getter.subscribe("orders", "billing")
        held = await getter.message()
        assert await client.ask(Dpub("orders", 30_000, b"later")) == b"OK"
        await client.put("lonely", b"alone")
        node.broker.topic("shut").channel("closed").pause()
        node.broker.topic("off").pause()
    node = NSQD(options(data_path=folder), clock=clock)
    async with node, Client(node) as client:
        topics = node.broker.topics
        assert {"orders", "lonely", "shut", "off"} == set(topics)
        assert (True, False, True) == (
            topics["off"].paused,
            topics["orders"].paused,
            topics["shut"].channel("closed").paused,
        )
        assert [b"alone"] == bodies(topics["lonely"].channel("billing"))
        await client.subscribe("orders", "billing", 10)
        found = {one.body: one for one in [await client.message(), await client.message()]}
        assert (2, held.id) == (found[b"held"].attempts, found[b"held"].id)
        assert held.timestamp == found[b"held"].timestamp
        assert found[b"ready"].attempts == 1
        clock.advance(30)
        later = await client.message()
        assert (b"later", 1) == (later.body, later.attempts)


@pytest.mark.parametrize(("most", "expected"), [(0, 1), (3, 3)])
def test_messages_in_memory_are_bounded(
    most: int, expected: int, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store is told how many; 0 is as 1."""
    told: list[Any] = []
    store = nsqlite.SQLite

    def make(path: str, **given: Any) -> nsqlite.SQLite:
        told.append(given)
        return store(path, **given)

    monkeypatch.setattr("nsqlite.store.sqlite.SQLite", make)

    @in_loop
    async def run() -> None:
        async with nsqd(data_path=folder, mem_queue_size=most) as node, Client(node) as client:
            await client.put("orders", b"tea")

    run()
    assert [{"mem_queue_size": expected}] == told


def test_what_cannot_be_stored_at_the_end(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is logged and lost, and the data path is free all the same."""
    calls: list[bool] = []
    close = aio.close

    async def failing(broker: Broker, *, force: bool = False) -> int:
        calls.append(force)
        if not force:
            raise StoreError("jobs.db", "the disk is full")
        return await close(broker, force=True)

    monkeypatch.setattr(aio, "close", failing)

    @in_loop
    async def run() -> None:
        async with nsqd(data_path=folder):
            pass

    with caplog.at_level(logging.INFO, "nsqlite"):
        run()
        run()
    assert [False, True] * 2 == calls
    text = "NSQ: what was not stored is lost: store jobs.db: the disk is full"
    assert [text] * 2 == [one.message for one in caplog.records if one.levelname == "ERROR"]


# What can be changed


@in_loop
async def test_what_can_be_changed_while_it_runs() -> None:
    """Those are two options; all else, and what is no value, is refused, and nothing changes."""
    log = logging.getLogger("nsqlite")
    before = log.level
    try:
        async with nsqd() as node:
            known = node.options
            node.configure(nsqlookupd_tcp_addresses=["a:1"])
            assert node.options.nsqlookupd_tcp_addresses == ("a:1",)
            assert log.level == before
            node.configure(log_level="warn")
            assert ("warn", logging.WARNING) == (node.options.log_level, log.level)
            with pytest.raises(InvalidOption, match="only log_level, nsqlookupd_tcp_addresses"):
                node.configure(log_level="info", msg_timeout=5)
            with pytest.raises(InvalidOption, match="log_level must be one of"):
                node.configure(log_level="loud", nsqlookupd_tcp_addresses=[])
            assert ("warn", ("a:1",)) == (
                node.options.log_level,
                node.options.nsqlookupd_tcp_addresses,
            )
            assert known.log_level == "info"
    finally:
        log.setLevel(before)
