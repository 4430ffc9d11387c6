"""Clients that do not behave: they stop in the middle, do not read, and do not say goodbye.

They are sockets, as no library does that on purpose.
"""

import socket
import ssl
import struct
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import trustme

from compat.clients import PATIENCE, Server, serving, until
from nsqlite.server.connection import STALLED, Connection
from nsqlite.testing import ManualClock

SECURE = b'{"feature_negotiation":true,"tls_v1":true}'
MESSAGE = b"0123456789abcdef" * 1024


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("tls")
    certificate = trustme.CA().issue_cert("127.0.0.1")
    files = {name: str(folder / name) for name in ("tls_cert", "tls_key")}
    certificate.cert_chain_pems[0].write_to_path(files["tls_cert"])
    certificate.private_key_pem.write_to_path(files["tls_key"])
    return files | {"https_address": ""}


@contextmanager
def connected(server: Server, *, secure: bool = False) -> Iterator[socket.socket]:
    """Connect a client; it asks for TLS, and has it, or stops before the handshake."""
    with socket.create_connection(("127.0.0.1", server.port), PATIENCE) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.sendall(b"  V2")
        if secure:
            client.sendall(b"IDENTIFY\n" + struct.pack(">i", len(SECURE)) + SECURE)
            assert b'"tls_v1":true' in client.recv(4096)
        yield client


def secured(client: socket.socket) -> ssl.SSLSocket:
    """Have TLS for a client, who trusts anybody."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    found = context.wrap_socket(client)
    assert b"OK" in found.recv(4096)
    return found


def test_stop_in_a_handshake(tls: dict[str, str]) -> None:
    """A server stops while a client is in the middle of its TLS handshake."""
    with serving(**tls) as server, connected(server, secure=True) as client:
        until(lambda: [one for one in server.connections if one._task])
        server.close()
        assert b"" == client.recv(4096)


def test_stop_with_tls(tls: dict[str, str]) -> None:
    """A server does not wait for the goodbye of a client with TLS, but says its own."""
    with (
        serving(**tls) as server,
        connected(server, secure=True) as client,
        secured(client) as found,
    ):
        server.close()
        assert b"" == found.recv(4096)


@pytest.mark.parametrize("secure", [False, True])
@pytest.mark.parametrize("stalled", [False, True])
def test_stop_with_a_client_that_does_not_read(
    tls: dict[str, str], *, stalled: bool, secure: bool
) -> None:
    """A server stops, whether a client left a little unread, or so much that it gets no more."""
    with (
        serving(**tls) as server,
        connected(server, secure=secure) as plain,
        secured(plain) if secure else plain as client,
    ):
        leave_unread(server, client, stalled=stalled)
        server.close()


def leave_unread(server: Server, client: socket.socket, *, stalled: bool) -> None:
    """Have a client subscribe, and publish until so much waits for it."""
    client.sendall(b"SUB orders billing\nRDY 2500\n")
    until(lambda: server.has_readers(1))
    topic = server.broker.topic("orders")
    if stalled:
        topic.publish([MESSAGE] * 2000)
        until(lambda: is_stalled(server))
    else:
        while not server.call(lambda: unsent(server)):
            topic.put(MESSAGE)


def test_wait_for_the_auth_server(
    monkeypatch: pytest.MonkeyPatch, manual_clock: ManualClock
) -> None:
    """A client that waits for an auth server is kept, and nothing is done over and over."""
    looks: list[Connection] = []
    look = Connection._look

    def counted(one: Connection) -> None:
        looks.append(one)
        look(one)

    monkeypatch.setattr(Connection, "_look", counted)
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        serving(
            auth_http_addresses=[f"127.0.0.1:{silent.getsockname()[1]}"], clock=manual_clock
        ) as server,
        connected(server) as client,
    ):
        client.sendall(b"AUTH\n" + struct.pack(">i", 1) + b"x")
        until(lambda: [one for one in server.connections if one._task])
        manual_clock.advance(30)
        assert b"_heartbeat_" in client.recv(4096)
        manual_clock.advance(70)
        assert b"_heartbeat_" in client.recv(4096)
        seen = len(looks)
        for _ in range(100):  # turns of its loop
            assert 1 == len(server.connections)
        assert len(looks) < seen + 10


def is_stalled(server: Server) -> bool:
    return all(one._held & STALLED for one in server.connections)


def unsent(server: Server) -> int:
    """Return how many bytes wait that the system does not take."""
    (connection,) = server.nsqd.connections
    transport = connection._transport
    assert transport is not None
    return transport.get_write_buffer_size()


@pytest.mark.parametrize("stalled", [False, True])
def test_delete_with_a_client_that_does_not_read(*, stalled: bool) -> None:
    """A connection ends with its channel, even if it has something unread."""
    with serving() as server, connected(server) as client:
        leave_unread(server, client, stalled=stalled)
        server.broker.topics["orders"].channels["billing"].delete()
        until(lambda: not server.connections)
