"""Clients of NSQ as they are, from PyPI, against nsqlite as nsqd: pynsq, ansq and gnsq.

Each runs in a process of its own, so none of nsqlite's modules is near it; the server's time is
moved by hand where it can be, while the client's goes on.
"""

import json
import re
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import trustme
from helpers import Call

import nsqlite
from compat.clients import PATIENCE, Client, Server, running, serving, until
from nsqlite.options import SECOND
from nsqlite.testing import ManualClock

LIBRARIES = ("pynsq", "ansq", "gnsq")

TIMEOUT = 10
"""Seconds until a message times out, less than the 30 from heartbeat to heartbeat."""

WITH_LAYERS = [
    (library, layers)
    for library in ("pynsq", "gnsq")  # ansq has none
    for layers in (("snappy",), ("deflate",), ("tls",), ("tls", "snappy"), ("tls", "deflate"))
]


@pytest.fixture(params=LIBRARIES)
def client(request: pytest.FixtureRequest) -> Iterator[Client]:
    with running(request.param) as client:
        yield client


def write(client: Client, server: Server, name: str = "writer", **options: Any) -> None:
    """Have a client connect a writer."""
    assert client.ask("writer", name, server.port, **options) is None
    client.next(name, "ready")


def read(client: Client, server: Server, name: str = "reader", **options: Any) -> None:
    """Have a client begin to read orders for billing."""
    window = options.pop("window", 10)
    asked = client.ask("reader", name, server.port, "orders", "billing", window, **options)
    assert asked is None


def read_some(client: Client, server: Server, **options: Any) -> None:
    """Have a client begin to read, and finish one message; its window is open then."""
    read(client, server, keep=True, **options)
    client.ask("pub", "writer", "orders", "the first")
    assert ("the first", 1) == client.message("reader")
    client.ask("fin", "reader", "the first")
    until(lambda: server.is_done(1))
    until(lambda: server.channel().clients[0].ready_count == 10)


def test_publish_and_consume(client: Client, manual_clock: ManualClock) -> None:
    """PUB, MPUB and DPUB are taken, and come as they were published, the last when it is due."""
    with serving(clock=manual_clock) as server:
        write(client, server)
        assert "OK" == client.ask("pub", "writer", "orders", "\x00\n\xff one")
        assert "OK" == client.ask("mpub", "writer", "orders", ["two", "three"])
        assert "OK" == client.ask("dpub", "writer", "orders", 5000, "four")
        read(client, server)
        told = [client.next("reader") for _ in range(3)]
        assert ["\x00\n\xff one", "two", "three"] == [one["body"] for one in told]
        assert {1} == {one["attempts"] for one in told}
        assert {manual_clock.time_ns()} == {one["timestamp"] for one in told}
        assert 3 == len({one["id"] for one in told})
        until(lambda: server.channel().in_flight_count == 0)
        manual_clock.advance(4.999)
        assert 1 == server.channel().deferred_count
        manual_clock.advance(0.001)
        assert ("four", 1) == client.message("reader")
        until(lambda: server.is_done(4))


def test_requeue(client: Client, manual_clock: ManualClock) -> None:
    """What is requeued comes again: at once, or when its delay is over, with one attempt more."""
    with serving(clock=manual_clock) as server:
        write(client, server)
        read_some(client, server)
        client.ask("mpub", "writer", "orders", ["now", "later"])
        assert {("now", 1), ("later", 1)} == {client.message("reader") for _ in range(2)}
        client.ask("req", "reader", "later", 3000, backoff=False)
        client.ask("req", "reader", "now", 0, backoff=False)
        assert ("now", 2) == client.message("reader")
        until(lambda: server.channel().deferred_count == 1)
        manual_clock.advance(3)
        assert ("later", 2) == client.message("reader")
        client.ask("fin", "reader", "now")
        client.ask("fin", "reader", "later")
        until(lambda: server.is_done(3))
        assert 2 == server.channel().requeue_count


@pytest.mark.parametrize("library", ["pynsq", "gnsq"])  # ansq has no backoff
def test_backoff(library: str) -> None:
    """A reader that backs off closes its window, tries one message, and opens it again."""
    with running(library) as client, serving() as server:
        write(client, server)
        read(client, server, keep=True)
        client.ask("pub", "writer", "orders", "bad")
        assert ("bad", 1) == client.message("reader")
        client.ask("req", "reader", "bad", 0, backoff=True)
        assert ("bad", 2) == client.message("reader")
        client.ask("fin", "reader", "bad")
        bodies = [f"good {number}" for number in range(10)]
        client.ask("mpub", "writer", "orders", bodies)
        for body in bodies:
            assert (body, 1) == client.message("reader")
            client.ask("fin", "reader", body)
        until(lambda: server.is_done(11))
        until(lambda: server.channel().clients[0].ready_count == 10)


def test_touch_and_timeout(client: Client, manual_clock: ManualClock) -> None:
    """What is not answered times out and comes again; a touch puts that off."""
    with serving(clock=manual_clock, msg_timeout=TIMEOUT) as server:
        write(client, server)
        read_some(client, server, msg_timeout=TIMEOUT)
        client.ask("mpub", "writer", "orders", ["slow", "touched"])
        assert {("slow", 1), ("touched", 1)} == {client.message("reader") for _ in range(2)}
        manual_clock.advance(TIMEOUT - 1)
        client.ask("touch", "reader", "touched")
        until(lambda: {TIMEOUT, 1} == {one.due_in for one in in_flight(server)})
        manual_clock.advance(1)
        assert ("slow", 2) == client.message("reader")
        assert 1 == server.channel().timeout_count
        client.ask("fin", "reader", "touched")
        client.ask("fin", "reader", "slow")
        until(lambda: server.is_done(3))


def test_late_answer(client: Client, manual_clock: ManualClock) -> None:
    """An answer to what has timed out is refused, and the reader goes on."""
    with serving(clock=manual_clock, msg_timeout=TIMEOUT) as server:
        write(client, server)
        client.ask("pub", "writer", "orders", "slow")
        read(client, server, keep=True, msg_timeout=TIMEOUT)
        told = client.next("reader")
        channel = server.broker.topics["orders"].channels["billing"]
        channel.pause()
        manual_clock.advance(TIMEOUT)
        until(lambda: server.channel().depth == 1)
        client.ask("fin", "reader", "slow")
        text = f"FIN {told['id']} failed ID not in flight"
        if client.library == "ansq":  # it logs what it is told
            until(lambda: text in client.log)
        else:
            assert text in client.next("reader", "error")["text"]
        channel.unpause()
        assert ("slow", 2) == client.message("reader")
        client.ask("fin", "reader", "slow")
        until(lambda: server.is_done(1))


def in_flight(server: Server) -> list[nsqlite.MessageInfo]:
    return server.broker.topics["orders"].channels["billing"].in_flight()


def test_heartbeats_of_the_server(client: Client, manual_clock: ManualClock) -> None:
    """A client answers five heartbeats, and is kept; when it answers no more it is let go."""
    with serving(clock=manual_clock) as server:
        write(client, server)
        read(client, server)
        until(lambda: server.has_readers(1, "orders", "billing"))
        for _ in range(5):
            manual_clock.advance(30)
            until(lambda: have_answered(server))
        for name in ("writer", "reader"):
            for _ in range(5):
                client.next(name, "heartbeat")
        for _ in range(3):  # more than a client can say nothing for, and it has no time to answer
            manual_clock.advance(70)
            until(lambda: have_answered(server))
        assert 2 == len(server.connections)
        client.kill(signal.SIGSTOP)
        manual_clock.advance(30)
        assert 2 == len(server.connections)

        def are_gone() -> bool:
            # as often as answers were on their way when the client was stopped
            manual_clock.advance(30)
            return not server.connections

        until(are_gone)


def have_answered(server: Server) -> bool:
    """Say whether every client has said something since its last heartbeat was due."""
    now = server.broker.clock.monotonic_ns()
    return all(now - connection._last < 30 * SECOND for connection in server.connections)


def test_heartbeats_in_real_time() -> None:
    """All clients are kept over several intervals of a second, the shortest there is."""
    with ExitStack() as stack:
        server = stack.enter_context(serving())
        clients = [stack.enter_context(running(library)) for library in LIBRARIES]
        for client in clients:
            write(client, server, heartbeat=1)
            read(client, server, heartbeat=1)
        for client in clients:
            for name in ("writer", "reader"):
                for _ in range(3):
                    client.next(name, "heartbeat")
        assert 2 * len(clients) == len(server.connections)
        clients[0].ask("pub", "writer", "orders", "still here")
        until(lambda: server.is_done(1))


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The files of TLS: a certificate, its key, and that of who has signed it."""
    folder = tmp_path_factory.mktemp("tls")
    signer = trustme.CA()
    certificate = signer.issue_cert("127.0.0.1")
    files = {name: str(folder / name) for name in ("tls_cert", "tls_key", "authority")}
    certificate.cert_chain_pems[0].write_to_path(files["tls_cert"])
    certificate.private_key_pem.write_to_path(files["tls_key"])
    signer.cert_pem.write_to_path(files["authority"])
    return files


@pytest.mark.parametrize(("library", "layers"), WITH_LAYERS)
def test_compression_and_tls(library: str, layers: tuple[str, ...], tls: dict[str, str]) -> None:
    """Behind TLS and compression all is as without."""
    files = {"tls_cert": tls["tls_cert"], "tls_key": tls["tls_key"]}
    options: dict[str, Any] = dict.fromkeys(layers, True)
    if "tls" in layers:
        options["tls"] = tls["authority"]
    with running(library) as client, serving(https_address="", **files) as server:
        write(client, server, **options)
        read(client, server, window=100, **options)
        bodies = [f"{number} " * (number % 300) + "." for number in range(1000)]
        assert "OK" == client.ask("mpub", "writer", "orders", bodies)
        assert list(range(500)) == client.ask("flood", "writer", "orders", 0, 500)
        found = [client.message("reader")[0] for _ in range(1500)]
        assert Counter(bodies + [str(number) for number in range(500)]) == Counter(found)
        until(lambda: server.is_done(1500))
        for connection in server.connections:
            identity = connection.identity
            layered = (identity.tls, identity.snappy, identity.deflate)
            assert tuple(layer in layers for layer in ("tls", "snappy", "deflate")) == layered


class AuthServer(BaseHTTPRequestHandler):
    """Lets who knows the secret publish and read orders."""

    asked: list[dict[str, list[str]]] = []  # noqa: RUF012 - all of one server's

    def do_GET(self) -> None:
        """Answer."""
        query = parse_qs(urlsplit(self.path).query)
        self.asked.append(query)
        known = query["secret"] == ["sesame"]
        body = json.dumps(
            {
                "ttl": 3600,
                "identity": "shop",
                "identity_url": "",
                "authorizations": [
                    {
                        "topic": "^orders$",
                        "channels": [".*"],
                        "permissions": ["publish", "subscribe"],
                    }
                ]
                if known
                else [],
            }
        ).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Log nothing."""


@pytest.fixture
def auth() -> Iterator[str]:
    """The address of an auth server."""
    with HTTPServer(("127.0.0.1", 0), AuthServer) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize("library", ["pynsq", "gnsq"])
def test_auth(library: str, auth: str) -> None:
    """Who says the secret may do what the auth server says, and nothing else.

    ansq 0.3 sends AUTH, but nothing after it, as it never learns that it is authorised.
    """
    with running(library) as client, serving(auth_http_addresses=[auth]) as server:
        write(client, server, secret="sesame")  # noqa: S106
        read(client, server, secret="sesame")  # noqa: S106
        assert "OK" == client.ask("pub", "writer", "orders", "allowed")
        assert ("allowed", 1) == client.message("reader")
        assert "shop" in str(client.next("writer", "auth"))
        assert "shop" in str(client.next("reader", "auth"))
        said = client.ask("pub", "writer", "others", "not allowed")
        assert 'AUTH failed for PUB on "others" ""' in said
        assert "others" not in server.broker.topics


def test_restart(client: Client, tmp_path: Path) -> None:
    """After a restart on the same data all comes that was not finished, and clients come back."""
    arguments = ("20",) if client.library == "pynsq" else ()
    with running(client.library, *arguments) as other:
        with serving(data_path=str(tmp_path)) as server:
            port = server.port
            write(other, server)
            read(other, server, window=1, keep=True)
            assert "OK" == other.ask("mpub", "writer", "orders", ["one", "two", "three"])
            told = other.next("reader")
        with serving(data_path=str(tmp_path), port=port) as server:
            again = [other.next("reader")]
            other.ask("fin", "reader", again[0]["body"])
            for _ in range(2):
                again.append(other.next("reader"))
                other.ask("fin", "reader", again[-1]["body"])
            assert {("one", 2), ("two", 1), ("three", 1)} == {
                (one["body"], one["attempts"]) for one in again
            }
            assert told["id"] in {one["id"] for one in again}
            until(lambda: not server.channel().in_flight_count)
            until(lambda: other.ask("pub", "writer", "orders", "four") == "OK")
            assert ("four", 1) == other.message("reader")


@pytest.mark.soak
def test_restart_in_real_time(tmp_path: Path) -> None:
    """The reader of pynsq comes back after its 15 s."""
    with running("pynsq") as client:
        with serving(data_path=str(tmp_path)) as server:
            read(client, server)
            until(lambda: server.has_readers(1))
            port = server.port
        with serving(data_path=str(tmp_path), port=port) as server:
            server.broker.topic("orders").put(b"again")
            assert ("again", 1) == client.message("reader")


@pytest.mark.soak
@pytest.mark.parametrize("library", ["pynsq", "gnsq"])  # ansq waits for what nobody will answer
def test_restarts_under_load(library: str, tmp_path: Path) -> None:
    """What was taken before one of many restarts comes, and as it was."""
    taken: list[int] = []
    with running(library) as client:
        for turn in range(20):
            with serving(data_path=str(tmp_path)) as server:
                write(client, server, f"writer{turn}")
                flood = Call(partial(publish_until_lost, client, f"writer{turn}", 100_000 * turn))
                until(partial(has_more, server, 500 + 300 * turn))
            taken += flood.result()
    assert len(taken) > 20_000
    with serving(data_path=str(tmp_path)) as server, running("pynsq") as other:
        read(other, server, window=500)
        missing = set(taken)
        while missing:
            missing.discard(int(other.message("reader")[0]))


@pytest.mark.parametrize("library", ["pynsq", "gnsq"])
def test_killed_server(library: str, tmp_path: Path) -> None:
    """What the command `nsqlite nsqd` took comes after it was killed, and is finished for good."""
    with running(library) as client:
        with commanded(tmp_path) as (command, port):
            client.ask("writer", "writer", port)
            client.next("writer", "ready")
            flood = Call(partial(publish_until_lost, client, "writer", 0))
            client.ask("reader", "reader", port, "orders", "billing", 100)
            found = {client.message("reader")[0] for _ in range(1000)}
            command.kill()
            taken = set(map(str, flood.result()))
        assert len(taken) > 500
        with commanded(tmp_path) as (command, port):
            client.ask("reader", "another", port, "orders", "billing", 100)
            while not taken <= found:
                found.add(client.message("another")[0])
            command.send_signal(signal.SIGTERM)
            assert 0 == command.wait(PATIENCE)


@contextmanager
def commanded(folder: Path) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """Run `nsqlite nsqd` in a folder until the end of the block; tell its port."""
    command = [
        sys.executable,
        "-m",
        "nsqlite",
        "nsqd",
        "--http-address=",
        "--data-path",
        str(folder),
    ]
    with subprocess.Popen(  # noqa: S603 - our own interpreter
        [*command, "--tcp-address=127.0.0.1:0"], stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        try:
            for line in process.stderr:
                if found := re.search(r"TCP: listening on 127\.0\.0\.1:(\d+)", line):
                    break
            assert found
            reader = threading.Thread(target=process.stderr.read)
            reader.start()
            yield process, int(found[1])
        finally:
            process.kill()
        reader.join()


def publish_until_lost(client: Client, name: str, first: int) -> list[int]:
    """Publish numbers until the server is gone; return those that were taken."""
    taken: list[int] = []
    while True:
        found = client.ask("flood", name, "orders", first, 500)
        taken += found
        first += 500
        if len(found) < 500:
            return taken


def has_more(server: Server, count: int) -> bool:
    """Say whether the server was given so many messages since it began."""
    topic = server.broker.topics.get("orders")
    return topic is not None and topic.stats().message_count >= count


@pytest.mark.parametrize("durable", [False, True])
def test_much_with_several_readers(client: Client, tmp_path: Path, *, durable: bool) -> None:
    """20,000 messages: each comes to one of the readers of a channel, and none is lost."""
    with serving(data_path=str(tmp_path) if durable else None) as server:
        write(client, server)
        names = ["first", "second", "third"]
        for name in names:
            read(client, server, name, window=200)
        until(lambda: server.has_readers(3))
        asked = [client.begin("flood", "writer", "orders", 5000 * part, 5000) for part in range(4)]
        for part, number in enumerate(asked):
            assert list(range(5000 * part, 5000 * part + 5000)) == client.end(number)
        until(lambda: server.is_done(20000))
        shares = [reader.message_count for reader in server.channel().clients]
        assert 20000 == sum(shares)
        assert all(shares)
        until(lambda: sum(client.count(name) for name in names) == 20000)
        counts = [(name, client.count(name)) for name in names]
        found = Counter(client.message(name)[0] for name, count in counts for _ in range(count))
        assert Counter(map(str, range(20000))) == found


def test_big(client: Client) -> None:
    """A message as big as can be comes whole; one that is bigger is refused, and nobody else is."""
    with serving() as server:
        write(client, server)
        read(client, server)
        big = "0123456789abcdef" * 65536
        assert "OK" == client.ask("pub", "writer", "orders", big)
        assert (big, 1) == client.message("reader")
        assert "OK" == client.ask("mpub", "writer", "orders", [big[1:], big[2:], big[3:]])
        assert [(big[1:], 1), (big[2:], 1), (big[3:], 1)] == [
            client.message("reader") for _ in range(3)
        ]
        said = client.ask("pub", "writer", "orders", big + "!")
        assert "PUB message too big 1048577 > 1048576" in said
        until(lambda: server.is_done(4))
        write(client, server, "another")
        assert "OK" == client.ask("pub", "another", "orders", "small")
        assert ("small", 1) == client.message("reader")


def test_http_of_ansq() -> None:
    """The HTTP client of ansq publishes, looks and operates."""
    with running("ansq") as client, serving(http_address="127.0.0.1:0") as server:

        def call(name: str, *arguments: str) -> Any:
            return client.ask("http", "http", server.nsqd.http_port, name, arguments)

        assert "OK" == call("ping")
        assert server.nsqd.tcp_port == call("info")["tcp_port"]
        assert "" == call("create_topic", "orders")
        assert "" == call("create_channel", "orders", "billing")
        assert "OK" == call("pub", "orders", "one")
        assert "OK" == call("mpub", "orders", "two", "three")
        for name in ("topic_pause", "topic_unpause"):
            assert "" == call(name, "orders")
        (topic,) = call("stats")["topics"]
        assert ("orders", 3) == (topic["topic_name"], topic["channels"][0]["depth"])
        read(client, server)
        assert ["one", "two", "three"] == [client.message("reader")[0] for _ in range(3)]
        (topic,) = call("stats")["topics"]
        assert ["ansq/0.3.0"] == [one["user_agent"] for one in topic["channels"][0]["clients"]]
        assert "" == call("delete_topic", "orders")
        assert "TOPIC_NOT_FOUND" in call("delete_topic", "orders")


def test_http_of_gnsq() -> None:
    """The same of gnsq's, which knows batches of bytes, too."""
    with running("gnsq") as client, serving(http_address="127.0.0.1:0") as server:

        def call(name: str, *arguments: Any, **more: Any) -> Any:
            return client.ask("http", "http", server.nsqd.http_port, name, arguments, **more)

        assert "OK" == call("ping")
        assert server.nsqd.tcp_port == call("info")["tcp_port"]
        call("create_topic", "orders")
        call("create_channel", "orders", "billing")
        call("pause_channel", "orders", "billing")
        assert "OK" == call("publish", "orders", "one")
        assert "OK" == call("publish", "orders", "later", defer=3600000)
        assert "OK" == call("multipublish", "orders", ["two", "three"])
        assert "OK" == call("multipublish", "orders", ["f\nour"], binary=True)
        (topic,) = call("stats")["topics"]
        channel = topic["channels"][0]
        assert (4, 1) == (channel["depth"], channel["deferred_count"])
        call("unpause_channel", "orders", "billing")
        read(client, server)
        found = [client.message("reader")[0] for _ in range(4)]
        assert ["one", "two", "three", "f\nour"] == found
        call("empty_channel", "orders", "billing")
        call("delete_channel", "orders", "billing")
        assert "404" in call("delete_channel", "orders", "billing")


def test_killed_reader(client: Client, manual_clock: ManualClock) -> None:
    """What a killed reader held comes to another when it has timed out."""
    with serving(clock=manual_clock, msg_timeout=TIMEOUT) as server, running("pynsq") as other:
        write(other, server)
        read(client, server, keep=True, window=5, msg_timeout=TIMEOUT)
        until(lambda: server.has_readers(1))
        bodies = [str(number) for number in range(10)]
        other.ask("mpub", "writer", "orders", bodies)
        held = {client.message("reader")[0]}
        client.kill()
        until(lambda: len(server.connections) == 1)
        count = server.channel().in_flight_count
        assert count
        read(other, server, msg_timeout=TIMEOUT)
        first = [other.message("reader") for _ in range(10 - count)]
        manual_clock.advance(TIMEOUT)
        second = [other.message("reader") for _ in range(count)]
        assert Counter(bodies) == Counter(body for body, _ in first + second)
        assert {2} == {attempts for _, attempts in second}
        assert held <= {body for body, _ in second}
        until(lambda: server.is_done(10))


def test_killed_writer(client: Client, tmp_path: Path) -> None:
    """What is taken of a writer that is killed is there once; others do not feel it."""
    with serving(data_path=str(tmp_path)) as server, running("pynsq") as other:
        write(client, server)
        read(other, server, window=100)
        client.begin("flood", "writer", "orders", 0, 100_000)
        first = other.message("reader")
        client.kill()
        write(other, server)
        until(lambda: len(server.connections) == 2)
        assert "OK" == other.ask("pub", "writer", "orders", "the last")
        found = [first[0]]
        while found[-1] != "the last":
            found.append(other.message("reader")[0])
        assert list(map(str, range(len(found) - 1))) == sorted(found[:-1], key=int)
