"""Listening sockets: what an address means, what cannot be listened on, and what is left behind."""

import resource
import socket
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from store.processes import descriptors

from nsqlite import CannotListen
from nsqlite.server.listener import (
    MOST_FILES,
    address_of,
    host_and_port,
    joined,
    listen,
    port_of,
    raise_open_files_limit,
)
from nsqlite.store.controllines import require_own_user

needs_ipv6 = pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="there is no IPv6")


@pytest.fixture(autouse=True)
def nothing_is_left_open() -> Iterator[None]:
    """Check that each test leaves open what was open before."""
    before = descriptors()
    yield
    assert before == descriptors()


def refusal(address: str) -> CannotListen:
    with pytest.raises(CannotListen) as info:
        listen(address)
    assert address == info.value.address
    return info.value


def ask(listening: socket.socket) -> None:
    """Connect, and check that the connection is accepted."""
    with socket.socket(listening.family, socket.SOCK_STREAM) as asking:
        asking.connect(listening.getsockname())
        accepted, _ = listening.accept()
        accepted.close()


# Addresses


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("127.0.0.1:4150", ("127.0.0.1", "4150")),
        ("localhost:http", ("localhost", "http")),
        (":4150", ("", "4150")),
        (":", ("", "")),
        ("[::1]:4150", ("::1", "4150")),
        ("[fe80::1%eth0]:0", ("fe80::1%eth0", "0")),
        ("", None),
        ("nsqd.sock", None),
        ("/run/nsqd.sock", None),
        ("/run/nsqd:4150", None),
        ("./a:b", None),
        ("::1", None),
        ("[::1]", None),
        ("[::1]4150", None),
        ("[::1:4150", None),
        ("::1]:4150", None),
        ("[[::1]]:4150", None),
        ("host:[4150]", None),
    ],
)
def test_an_address_is_host_and_port_or_a_path(
    address: str, expected: tuple[str, str] | None
) -> None:
    """What has not the form of host and port is the path of a unix socket."""
    assert expected == host_and_port(address)


@pytest.mark.parametrize(
    ("host", "expected"), [("127.0.0.1", "127.0.0.1:1"), ("::1", "[::1]:1"), ("h", "h:1")]
)
def test_host_and_port_are_one_text(host: str, expected: str) -> None:
    """An address of IPv6 stands in brackets."""
    assert expected == joined(host, 1)


# TCP


@pytest.mark.parametrize("address", ["127.0.0.1:0", "127.0.0.1:", "localhost:0"])
def test_any_free_port(address: str) -> None:
    """Port 0, or none, is a port that is free; the real one is told."""
    with listen(address) as listening:
        assert f"127.0.0.1:{port_of(listening)}" == address_of(listening)
        assert port_of(listening) > 0
        assert not listening.getblocking()
        ask(listening)


@needs_ipv6
def test_an_address_of_ipv6() -> None:
    """Brackets hold an address of IPv6."""
    with listen("[::1]:0") as listening:
        assert f"[::1]:{port_of(listening)}" == address_of(listening)
        ask(listening)


@needs_ipv6
def test_all_addresses() -> None:
    """Without a host it listens on all addresses, those of IPv4 among them."""
    with listen(":0") as listening:
        assert f"[::]:{port_of(listening)}" == address_of(listening)
        with socket.create_connection(("127.0.0.1", port_of(listening))):
            listening.accept()[0].close()


def test_all_addresses_where_there_is_no_ipv6(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a socket has one family only, all are those of IPv4."""
    monkeypatch.setattr(socket, "has_dualstack_ipv6", lambda: False)
    with listen(":0") as listening:
        assert f"0.0.0.0:{port_of(listening)}" == address_of(listening)


def test_an_address_in_use() -> None:
    """It is told in nsqd's words."""
    with listen("127.0.0.1:0") as listening:
        address = address_of(listening)
        text = f"listen ({address}) failed - address already in use"
        assert text == str(refusal(address))


def test_an_address_that_was_in_use_a_moment_ago() -> None:
    """A port whose last connections are not forgotten yet can be listened on again."""
    with listen("127.0.0.1:0") as listening:
        address = address_of(listening)
        with socket.create_connection(("127.0.0.1", port_of(listening))) as asking:
            listening.accept()[0].close()  # the end that closes first is the one that waits
            assert b"" == asking.recv(1)
    with listen(address) as listening:
        assert address == address_of(listening)


@pytest.mark.parametrize(
    ("address", "problem"),
    [
        ("127.0.0.1:65536", "there is no port 65536"),
        ("192.0.2.1:0", "cannot assign requested address"),
        (f"{'a' * 70}:0", None),  # no name of a host
        ("127.0.0.1:nsqd-x", None),  # no name of a port
    ],
)
def test_an_address_that_cannot_be_had(address: str, problem: str | None) -> None:
    """What the system does not have is told in its words."""
    found = refusal(address).problem
    assert found == (problem or found)
    assert found[0].islower()


# Unix sockets


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give a path that is short enough for a socket."""
    monkeypatch.chdir(tmp_path)
    return Path("nsqd.sock")


def test_a_unix_socket(path: Path) -> None:
    """It is its user's alone, has no port, tells who connects, and its path goes with it."""
    listening = listen(str(path))
    assert ("nsqd.sock", -1) == (address_of(listening), port_of(listening))
    assert 0o600 == stat.S_IMODE(path.stat().st_mode)
    assert not listening.getblocking()
    with socket.socket(socket.AF_UNIX) as asking:
        asking.connect(str(path))
        accepted, _ = listening.accept()
        require_own_user(accepted)
        accepted.close()
    listening.close()
    assert not path.exists()
    listening.close()


def test_a_unix_socket_that_was_left(path: Path) -> None:
    """One that nobody listens on is replaced."""
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    with listen(str(path)) as listening:
        ask(listening)


def test_a_unix_socket_in_use(path: Path) -> None:
    """One that somebody listens on is left alone, also if its backlog is full."""
    text = "listen (nsqd.sock) failed - address already in use"
    with listen(str(path), backlog=0) as listening, socket.socket(socket.AF_UNIX) as asking:
        assert text == str(refusal(str(path)))
        listening.accept()[0].close()
        asking.connect(str(path))
        assert text == str(refusal(str(path)))
        assert text == str(refusal(str(path)))
        assert path.exists()


def test_a_path_that_is_no_socket(path: Path) -> None:
    """A file is left alone."""
    path.write_text("tea")
    assert "address already in use" == refusal(str(path)).problem
    assert "tea" == path.read_text()


def test_a_path_that_is_anothers_by_now(path: Path) -> None:
    """What has taken the place of a socket, or has removed it, is left alone."""
    listening = listen(str(path))
    path.unlink()
    path.write_text("tea")
    listening.close()
    assert "tea" == path.read_text()
    path.unlink()
    listening = listen(str(path))
    path.unlink()
    listening.close()


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ("x" * 200, "AF_UNIX path too long"),
        ("nowhere/nsqd.sock", "no such file or directory"),
        ("", None),
        ("\0", None),
    ],
)
def test_a_path_that_cannot_be_had(path: Path, given: str, problem: str | None) -> None:
    """What the system does not take is told in its words."""
    found = refusal(given).problem
    assert found == (problem or found)
    assert not path.exists()


def test_a_system_without_unix_sockets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there are none, an address that is no host and port says so."""
    monkeypatch.delattr(socket, "AF_UNIX")
    expected = "it is no host and port, and this system's Python has no unix sockets"
    assert expected == refusal("nsqd.sock").problem


# Open files


class Limit:
    """The limit of open files, as a system has it."""

    def __init__(self, soft: int, hard: int, most: int) -> None:
        self.limit = soft, hard
        self.most = most

    def get(self, _kind: int) -> tuple[int, int]:
        return self.limit

    def set(self, _kind: int, limit: tuple[int, int]) -> None:
        if limit[0] > self.most or limit[0] < 0:
            raise ValueError
        self.limit = limit


@pytest.mark.parametrize(
    ("soft", "hard", "most", "expected"),
    [
        (256, 4096, 9999, 4096),
        (4096, 4096, 9999, 4096),
        (256, resource.RLIM_INFINITY, 1 << 20, MOST_FILES),
        (MOST_FILES, resource.RLIM_INFINITY, 1 << 20, MOST_FILES),
        (resource.RLIM_INFINITY, resource.RLIM_INFINITY, 0, resource.RLIM_INFINITY),
        (65536, resource.RLIM_INFINITY, 1 << 20, 65536),
        (256, 4096, 0, 256),
    ],
)
def test_the_limit_of_open_files(
    monkeypatch: pytest.MonkeyPatch, soft: int, hard: int, most: int, expected: int
) -> None:
    """It is raised as far as the system lets it, and what it was and is is told."""
    limit = Limit(soft, hard, most)
    monkeypatch.setattr(resource, "getrlimit", limit.get)
    monkeypatch.setattr(resource, "setrlimit", limit.set)
    assert (soft, expected) == raise_open_files_limit()
    assert (expected, hard) == limit.limit


def test_a_system_without_a_limit_of_open_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is no such limit, nothing is done."""
    monkeypatch.setitem(sys.modules, "resource", None)
    assert None is raise_open_files_limit()
