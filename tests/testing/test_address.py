"""A real NSQ address for a test: its life, its time, and what goes wrong in it."""

import asyncio
import gc
import logging
import statistics
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
from helpers import PATIENCE
from rawclient import RawClient
from store.stores import until

import nsqlite
from nsqlite import Broker, Closed, Consumer, InvalidOption, NSQLiteError, Reentered
from nsqlite.errors import ClockStandsStill
from nsqlite.testing import FaultyStore, ManualClock, MemoryStore, address, nsqd
from nsqlite.wire.commands import Dpub, Nop, Pub
from nsqlite.wire.frames import MESSAGE, RESPONSE

BEAT = (RESPONSE, b"_heartbeat_")
NAME = "nsqlite.testing.nsqd"
FILES = Path("/proc/self/fd")


@pytest.fixture
def server(manual_clock: ManualClock) -> Iterator[nsqd]:
    with nsqd(clock=manual_clock) as server:
        yield server


@pytest.fixture
def client(server: nsqd) -> Iterator[RawClient]:
    with RawClient(server.tcp_address) as client:
        client.identify("a")
        yield client


def threads() -> int:
    """Return how many nsqds run in threads of their own."""
    return len([one for one in threading.enumerate() if one.name == NAME])


# Its life


def test_it_is_a_real_address() -> None:
    """A client publishes and consumes there, and the test sees it in the broker."""
    with nsqd() as server, RawClient(server.tcp_address) as client:
        assert f"{server.host}:{server.port}" == server.tcp_address
        assert client.pub(b"1") == b"OK"
        client.sub()
        message = client.message()
        channel = server.broker.topic("orders").channel("billing")
        assert (b"1", 1) == (message.body, channel.in_flight_count)
        client.fin(message)
        server.settle()
        assert 0 == channel.in_flight_count
    assert 0 == threads()


def test_what_the_test_puts_is_delivered(server: nsqd, client: RawClient) -> None:
    """A message that the test puts into the broker reaches the client."""
    client.sub()
    server.broker.topic("orders").put(b"1")
    assert b"1" == client.message().body


def test_it_runs_in_the_callers_loop() -> None:
    """In an `async with` it has no thread, and the same attributes."""

    async def run() -> None:
        async with nsqd() as server:
            assert 0 == threads()
            reader, writer = await asyncio.open_connection(server.host, server.port)
            writer.write(b"  V2" + Pub("orders", [b"1"]).encode())
            await server.settled()
            assert 1 == server.broker.topic("orders").depth
            assert 1 == len(server.connections)
            assert 1 == server.disconnect()
            with pytest.raises(ConnectionError):
                while await reader.read(100):
                    pass
                raise ConnectionError
            writer.close()
        assert "over" in repr(server)

    asyncio.run(run())


def test_it_has_an_http_address() -> None:
    """It has one if it is asked for, and says so if it is not."""
    with nsqd(http=True) as server:
        url = f"http://{server.http_address}"
        urlopen(f"{url}/pub?topic=orders", b"1", PATIENCE).close()  # noqa: S310 - our own server
        assert 1 == server.broker.topic("orders").depth
    with nsqd() as server:
        text = "http must be True for an HTTP address, which takes long to load, not False"
        with pytest.raises(InvalidOption, match=text):
            _ = server.http_address


def test_it_keeps_messages_and_comes_back(tmp_path: Path) -> None:
    """With a data path another one carries on, at the same address if that is asked for."""
    with nsqd(data_path=tmp_path) as server, RawClient(server.tcp_address) as client:
        client.pub(b"1")
        client.sub()
        before = client.message()
        place = server.tcp_address
    with nsqd(data_path=str(tmp_path), tcp_address=place) as server:
        assert place == server.tcp_address
        with RawClient(place) as client:
            client.sub()
            message = client.message()
            assert (before.id, 2) == (message.id, message.attempts)


def test_it_serves_a_broker_that_is_there(manual_clock: ManualClock) -> None:
    """A broker that it is given stays open, and has its own clock."""
    with Broker(clock=manual_clock) as broker:
        with nsqd(broker=broker) as server, RawClient(server.tcp_address) as client:
            assert broker is server.broker
            assert manual_clock is server.clock
            client.pub(b"1")
        assert 1 == broker.topic("orders").depth
        with pytest.raises(InvalidOption, match="clock"):
            nsqd(broker=broker, clock=manual_clock)


def test_it_takes_the_options_of_nsqd() -> None:
    """An option holds, and one that cannot be is refused before anything is opened."""
    with nsqd(max_msg_size=10) as server, RawClient(server.tcp_address) as client:
        assert client.pub(b"12345678901").startswith(b"E_BAD_MESSAGE PUB message too big 11 > 10")
    with pytest.raises(InvalidOption, match="msg_timeout"):
        nsqd(msg_timeout=-1)
    with pytest.raises(InvalidOption, match=r"\(did you mean 'max_rdy_count'\?\), not 'max_rdy'$"):
        nsqd(max_rdy=3)
    with pytest.raises(InvalidOption) as error:
        nsqd(data_pth="jobs")
    assert 1 == str(error.value).count("data_path, ")
    with pytest.raises(
        InvalidOption, match=r"^broker must be a Broker, or None for its own, not 5$"
    ):
        nsqd(broker=5)  # type: ignore[arg-type]


def test_one_that_cannot_start_leaves_nothing() -> None:
    """What cannot be is raised where it is entered, in a thread or a loop."""

    async def enter(place: str) -> None:
        async with nsqd(tcp_address=place):
            pass

    with nsqd() as first:
        second = nsqd(tcp_address=first.tcp_address)
        with pytest.raises(NSQLiteError, match="in use"):
            second.__enter__()
        assert 1 == threads()
        with pytest.raises(NSQLiteError, match="in use"):
            asyncio.run(enter(first.tcp_address))


def test_it_is_used_once() -> None:
    """It has no address before its block, and no second block."""
    server = nsqd()
    assert repr(server) == "<nsqlite.testing.nsqd not started>"
    looks: list[Callable[[], object]] = [
        lambda: server.port,
        lambda: server.host,
        lambda: server.tcp_address,
        lambda: server.connections,
        server.settle,
    ]
    for look in looks:
        with pytest.raises(Closed, match="not started"):
            look()
    with server:
        assert repr(server) == f"<nsqlite.testing.nsqd {server.tcp_address}>"
    with pytest.raises(Closed, match="used already"):
        server.__enter__()
    with pytest.raises(Closed, match="over"):
        server.disconnect()


def test_a_start_that_is_interrupted_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """An interrupt while it starts has the thread end."""
    server = nsqd()

    def interrupt() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(server._begun, "wait", interrupt)
    with pytest.raises(KeyboardInterrupt):
        server.__enter__()
    until(lambda: not threads())


def test_a_test_that_dies_does_not_keep_the_interpreter() -> None:
    """A program that never leaves the block ends all the same."""
    program = (
        "import sys, nsqlite.testing\n"
        "loaded = {'asyncio', 'aiohttp', 'ssl'} & set(sys.modules)\n"
        "nsqlite.testing.nsqd().__enter__()\n"
        "sys.exit(repr(loaded))\n"
    )
    done = subprocess.run(  # noqa: S603 - our own interpreter
        [sys.executable, "-W", "error", "-c", program],
        capture_output=True,
        check=False,
        text=True,
        timeout=PATIENCE,
    )
    assert (1, "set()\n") == (done.returncode, done.stderr)


def test_connections_are_seen_and_closed(server: nsqd) -> None:
    """A test sees who is connected, and can close one, or all."""
    with ExitStack() as stack:
        clients = [stack.enter_context(RawClient(server.tcp_address)) for _ in "123"]
        for client, name in zip(clients, "aab", strict=True):
            client.identify(name)
        assert ["a", "a", "b"] == [one.identity.client_id for one in server.connections]
        assert 2 == server.disconnect("a")
        assert clients[0].is_over()
        assert clients[1].is_over()
        assert clients[2].pub(b"1") == b"OK"
        assert 1 == server.disconnect()
        assert clients[2].is_over()


# How much it takes


def test_it_starts_and_stops_at_once() -> None:
    """An address is there within 10 ms of asking; the limit here is for a busy machine."""
    starts, stops = [], []
    for _ in range(30):
        begun = time.perf_counter()
        with nsqd():
            starts.append(time.perf_counter() - begun)
            begun = time.perf_counter()
        stops.append(time.perf_counter() - begun)
    assert statistics.median(starts) < 0.1
    assert statistics.median(stops) < 0.1


def test_it_stops_at_once_with_open_connections() -> None:
    """A hundred clients, each with a message in flight, do not hold it up."""
    server = nsqd().__enter__()
    with ExitStack() as stack:
        for _ in range(100):
            client = stack.enter_context(RawClient(server.tcp_address))
            client.pub(b"1")
            client.sub()
            client.message()
        begun = time.perf_counter()
        server.__exit__(None, None, None)
        assert time.perf_counter() - begun < 0.5


def test_tens_run_at_once() -> None:
    """Thirty in one process have addresses of their own."""
    with ExitStack() as stack:
        servers = [stack.enter_context(nsqd()) for _ in range(30)]
        assert 30 == len({server.tcp_address for server in servers})
        for server in servers:
            with RawClient(server.tcp_address) as client:
                client.pub(b"1")
        assert [1] * 30 == [server.broker.topic("orders").depth for server in servers]
    assert 0 == threads()


@pytest.mark.skipif(not FILES.is_dir(), reason="this system tells of no files")
def test_hundreds_in_a_row_leave_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """Two hundred leave no thread, file, filter or memory."""

    def run(times: int) -> None:
        for _ in range(times):
            with nsqd() as server, RawClient(server.tcp_address) as client:
                client.pub(b"1")
                client.sub()
                client.message()
        gc.collect()

    def kept() -> tuple[int, int, int]:
        return (
            threading.active_count(),
            len(list(FILES.iterdir())),
            len(logging.getLogger("nsqlite").filters),
        )

    caplog.set_level(logging.CRITICAL, "nsqlite")  # it keeps what is logged
    run(20)
    before = kept()
    tracemalloc.start()
    try:
        run(10)
        least, _ = tracemalloc.get_traced_memory()
        run(170)
        most, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert before == kept()
    assert most - least < 1_000_000  # one alone has 256 KiB to read into


# Time


def test_heartbeats_come_in_their_time(server: nsqd, client: RawClient) -> None:
    """Each is on its way when the clock has been moved, whatever the step."""
    server.advance(29.9)
    assert [] == client.waiting()
    server.advance(0.1)
    assert [BEAT] == client.waiting()
    client.send(Nop())
    server.advance(90)
    assert [BEAT] * 3 == client.waiting()


def test_time_outs_come_in_their_time(server: nsqd, client: RawClient) -> None:
    """A message is delivered again at each time-out on the way."""
    client.pub(b"1")
    client.sub()
    client.message()
    server.advance(180)
    found = [data for kind, data in client.waiting() if kind == MESSAGE]
    assert [2, 3, 4] == [int.from_bytes(data[8:10], "big") for data in found]


def test_a_deferred_message_comes_in_its_time(server: nsqd, client: RawClient) -> None:
    """It is on its way when its delay is over, not before."""
    client.sub()
    assert b"OK" == client.ask(Dpub("orders", 5000, b"1"))
    server.advance(4.999)
    assert [] == client.waiting()
    server.advance(0.001)
    assert b"1" == client.message().body


def test_what_was_sent_comes_before_the_move(server: nsqd, client: RawClient) -> None:
    """A FIN that was sent before the clock is moved is in time, each time."""
    client.sub(100)
    for _ in range(50):
        server.broker.topic("orders").put(b"1")
        client.fin(client.message())
        server.advance(60)
        client.waiting()
        client.send(Nop())
    assert 0 == server.broker.topic("orders").channel("billing").stats().timeout_count


def test_settle_covers_the_store(tmp_path: Path) -> None:
    """What was sent is stored, answered and delivered after it."""
    with nsqd(data_path=tmp_path) as server, RawClient(server.tcp_address) as client:
        client.sub(1000)
        for _ in range(20):
            client.send(Pub("orders", [b"1"] * 10))
            server.settle()
            assert 20 == len(client.waiting())
        client.send(Dpub("orders", 1000, b"1"))
        server.settle()
        assert [(RESPONSE, b"OK")] == client.waiting()
        server.broker.close()
        server.settle()


def test_settle_does_not_wait_for_what_cannot_be_stored() -> None:
    """A store that fails has been told to the client, and not to who waits."""
    broken = False

    def fault(point: str) -> None:
        if broken and point.startswith("before write"):
            raise nsqlite.StoreFull("jobs.db", "the disk is full")

    with (
        Broker(store=FaultyStore(MemoryStore(), fault)) as broker,
        nsqd(broker=broker) as server,
        RawClient(server.tcp_address) as client,
    ):
        client.pub(b"1")
        broken = True
        client.send(Pub("orders", [b"2"]))
        server.settle()
        assert [b"E_PUB_FAILED PUB failed the store cannot be written"] == [
            data for _, data in client.waiting()
        ]
        broken = False


def test_settle_ends_in_a_loop_that_never_rests() -> None:
    """Where other tasks go on and on it waits for no more than some rounds."""

    async def run() -> None:
        async def spin() -> None:
            while True:  # noqa: ASYNC110 - it is to have something to do
                await asyncio.sleep(0)

        spinning = asyncio.ensure_future(spin())
        async with nsqd() as server:
            await server.settled()
        spinning.cancel()

    asyncio.run(run())


def test_settle_goes_round_in_any_loop() -> None:
    """In a loop that does not tell what it has to do it goes round a few times."""

    class Loop(asyncio.SelectorEventLoop):
        def __getattribute__(self, name: str) -> Any:
            if name == "_ready" and sys._getframe(1).f_globals["__name__"] == address.__name__:
                raise AttributeError(name)
            return super().__getattribute__(name)

    async def run() -> None:
        async with nsqd() as server:
            _, writer = await asyncio.open_connection(server.host, server.port)
            writer.write(b"  V2" + Pub("orders", [b"1"]).encode())
            await server.settled()
            assert 1 == server.broker.topic("orders").depth
            writer.close()

    with asyncio.Runner(loop_factory=Loop) as runner:
        runner.run(run())


def test_what_cannot_be_moved_is_not(server: nsqd) -> None:
    """The system's clock, and a time that is none, are refused."""
    with pytest.raises(InvalidOption, match="seconds"):
        server.advance(-1)
    with nsqd() as other, pytest.raises(InvalidOption, match="clock must be a ManualClock"):
        other.advance(1)


def test_its_own_loop_must_not_wait_for_it(manual_clock: ManualClock) -> None:
    """There one awaits instead, as the error says."""

    async def run() -> None:
        async with nsqd(clock=manual_clock) as server:
            calls: list[Callable[[], None]] = [server.settle, lambda: server.advance(1)]
            for call in calls:
                with pytest.raises(Reentered, match=r"await settled\(\)"):
                    call()
            manual_clock.advance(1)
            await server.settled()

    asyncio.run(run())


# The clock's other users


def test_an_idle_nsqd_leaves_nobody_waiting_for_ever() -> None:
    """A wait that nobody ends is told so, and the nsqd is not taken for one that hangs."""
    clock = ManualClock(patience=0.1)
    with nsqd(clock=clock) as server, RawClient(server.tcp_address) as client:
        client.identify("a")
        server.settle()
        consumer = Consumer(server.broker.topic("orders").channel("billing"))
        with pytest.raises(ClockStandsStill) as caught:
            consumer.get(timeout=5)
        assert () == caught.value.elsewhere


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("connected", [False, True])
def test_an_idle_nsqd_holds_no_clock_back(count: int, *, connected: bool) -> None:
    """One that only waits for its sockets lets a clock jump at once."""
    clock = ManualClock(patience=PATIENCE, autojump=True)
    with ExitStack() as stack:
        servers = [stack.enter_context(nsqd(clock=clock)) for _ in range(count)]
        if connected:
            for server in servers:
                stack.enter_context(RawClient(server.tcp_address)).identify("a")
        consumer = Consumer(servers[0].broker.topic("orders").channel("billing"))
        begun = time.perf_counter()
        with pytest.raises(nsqlite.Empty):
            consumer.get(timeout=5)
        assert time.perf_counter() - begun < PATIENCE / 4


def test_an_nsqd_is_no_user_of_another_clock() -> None:
    """One that is busy with its own clock does not hold another one back."""
    clock = ManualClock(patience=PATIENCE, autojump=True)
    topic = nsqlite.Topic("orders", clock=clock)
    consumer = Consumer(topic.channel("billing"))
    with nsqd():
        begun = time.perf_counter()
        for _ in range(20):
            with pytest.raises(nsqlite.Empty):
                consumer.get(timeout=5)
        assert time.perf_counter() - begun < PATIENCE / 4


def test_its_thread_tells_where_it_is() -> None:
    """It rests where it waits for its sockets; before and after its life it is nowhere."""
    thread = address._Thread(lambda: None, ManualClock())
    assert thread.where() == "nowhere"
    assert thread.at_rest is None
    with nsqd() as server:
        assert server._thread
        until(lambda: server._thread and server._thread.at_rest)
        assert "in selectors line" in server._thread.where()
    assert server._thread.where() == "nowhere"


# What goes wrong


def fail(server: nsqd, error: Exception) -> None:
    """Have a callback of the loop raise."""

    def call() -> None:
        raise error

    assert server._loop
    server._loop.call_soon_threadsafe(call)
    server.settle()


def test_an_error_is_raised_at_the_end() -> None:
    """What a callback of its loop raises is raised when the block is left."""
    error = ValueError("wrong")
    with pytest.raises(ValueError, match="wrong") as caught, nsqd() as server:
        fail(server, error)
    assert error is caught.value


def test_several_errors_are_raised_together() -> None:
    """They are one group."""
    with pytest.raises(ExceptionGroup) as caught, nsqd() as server:
        fail(server, ValueError("one"))
        fail(server, KeyError("two"))
    assert [ValueError, KeyError] == [type(one) for one in caught.value.exceptions]


def test_an_error_is_added_to_that_of_the_block() -> None:
    """A test that fails already is told of it in a note."""
    with pytest.raises(AssertionError) as caught, nsqd() as server:
        fail(server, ValueError("wrong"))
        raise AssertionError
    assert ["in the nsqd: ValueError: wrong"] == caught.value.__notes__


def test_what_the_loop_complains_of_is_raised() -> None:
    """A complaint without an exception is one, too."""
    with pytest.raises(RuntimeError, match="it is odd"), nsqd() as server:
        assert server._loop
        server._loop.call_soon_threadsafe(
            server._loop.call_exception_handler, {"message": "it is odd"}
        )
        server.settle()


def test_what_a_client_does_is_no_error() -> None:
    """A client that goes, or that is reset, fails no test; a system without files does."""
    with nsqd() as server:
        fail(server, ConnectionResetError())
        fail(server, OSError(107, "not connected"))
    with pytest.raises(OSError, match="too many"), nsqd() as server:
        fail(server, OSError(24, "too many files"))


class _Failing:
    name = "failing"

    async def start(self) -> None:
        pass

    async def stop(self) -> None:
        raise ValueError("it cannot stop")


@pytest.mark.parametrize("in_loop", [False, True])
def test_an_error_that_was_logged_is_raised(*, in_loop: bool) -> None:
    """What the nsqd has caught and logged is raised, too; what others log is not."""

    async def run() -> None:
        async with failing:
            logging.getLogger("nsqlite").error("not the nsqd's", exc_info=KeyError())

    failing = nsqd()
    failing._nsqd.add(_Failing())
    with pytest.raises(ValueError, match="it cannot stop"):
        if in_loop:
            asyncio.run(run())
        else:
            with failing:
                logging.getLogger("nsqlite").error("not the nsqd's", exc_info=KeyError())


def test_an_error_of_the_node_is_raised() -> None:
    """An nsqd that fails as a whole fails its test."""
    with pytest.raises(ValueError, match="all is lost"), nsqd() as server:
        server._nsqd._node.fail(ValueError("all is lost"))


def test_a_thread_that_does_not_end_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    """The test goes on, and is told where the thread is."""
    monkeypatch.setattr(address, "STOPPING", 0.05)
    over = threading.Event()
    entered = threading.Event()

    def block() -> None:
        entered.set()
        over.wait(PATIENCE)

    server = nsqd()
    server.__enter__()
    assert server._loop
    server._loop.call_soon_threadsafe(block)
    assert entered.wait(PATIENCE)
    with pytest.raises(TimeoutError, match="does not end: its thread is in threading line"):
        server.__exit__(None, None, None)
    over.set()
    until(lambda: not threads())


def test_a_call_of_what_is_over_is_told() -> None:
    """A call that comes when the loop has ended, and one that fails in the loop, raise."""
    with nsqd() as server:
        with pytest.raises(ZeroDivisionError):
            server._do(lambda: 1 // 0, "division")
        server._nsqd.shutdown()
        until(lambda: not threads())
        with pytest.raises(Closed, match="the loop of disconnect is closed"):
            server.disconnect()
