"""The lines of a control socket: what is sent comes out, and what is none is told of."""

import os
import socket
import struct
from collections.abc import Iterator
from typing import Any

import pytest

import nsqlite
from nsqlite import errors
from nsqlite.store import controllines
from nsqlite.store.codec import Coder, Undecodable, checked_codec
from nsqlite.store.controllines import (
    JSONLines,
    NotJSON,
    body_of,
    described,
    error_of,
    fields_of,
    peer_uid,
    problem_of,
    refuse_unknown,
    require_own_user,
)

JSON = Coder(checked_codec("json"))
PLAIN = Coder(None)


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, JSONLines]]:
    """Return both ends of a connection, the second one as a line."""
    one, other = socket.socketpair()
    with one, JSONLines(other) as line:
        yield one, line


def test_objects_come_out_as_they_were_sent(ends: tuple[socket.socket, JSONLines]) -> None:
    """However they are cut into pieces; and after the last one comes the end."""
    one, line = ends
    JSONLines(one).send({"call": "put", "body": "é\n"})
    one.sendall(b'{"call": ')
    assert {"call": "put", "body": "é\n"} == line.receive()
    one.sendall(b'"stats"}\n{"cut')
    assert {"call": "stats"} == line.receive()
    line.shut(socket.SHUT_RD)
    line.shut(socket.SHUT_RD)
    assert line.receive() is None
    one.close()
    line.shut(socket.SHUT_RDWR)  # when it is gone already, nothing happens
    line.close()
    line.shut(socket.SHUT_RDWR)


def test_an_end_that_does_not_read_what_it_was_sent() -> None:
    """It is gone, as one that has said so."""
    one, other = socket.socketpair()
    with JSONLines(other) as line:
        line.send({})
        one.close()
        assert line.receive() is None


@pytest.mark.parametrize(
    ("sent", "problem"),
    [
        (b"tea\n", "a line is no JSON"),
        (b"\xff\n", "a line is no JSON"),
        (b"[" * 100_000 + b"\n", "a line is no JSON"),
        (b"[]\n", r"a line must be an object, not \[\]"),
        (b"x" * 1001, "a line has more than 1000 bytes"),
    ],
    ids=["text", "bytes", "deep", "list", "long"],
)
def test_garbage_is_told_of(
    ends: tuple[socket.socket, JSONLines],
    monkeypatch: pytest.MonkeyPatch,
    sent: bytes,
    problem: str,
) -> None:
    """What is no line of JSON, no object, or too long."""
    if "1000" in problem:
        monkeypatch.setattr(controllines, "LONGEST_LINE", 1000)
    one, line = ends
    one.sendall(sent)
    with pytest.raises(NotJSON, match=problem):
        line.receive()


@pytest.mark.parametrize(
    "error",
    [
        nsqlite.Full("orders:billing", 2, 1),
        nsqlite.Closed("the broker"),
        nsqlite.InvalidName("topic", "a b"),
        nsqlite.InvalidMessage("the body is empty", 3),
        nsqlite.InvalidOption("delay", -1, "0 or more"),
        nsqlite.StoreFull("jobs.db", "the disk is full"),
        nsqlite.TooManyConsumers("orders", "billing", 3),
        nsqlite.NotInFlight("135950b844800000", "answered"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_is_raised_anew(
    ends: tuple[socket.socket, JSONLines], error: nsqlite.NSQLiteError
) -> None:
    """It has the same class, facts and text at the other end."""
    one, line = ends
    JSONLines(one).send(problem_of(error))
    found = error_of(line.receive(), "jobs.db")
    assert (type(error), error.args, str(error)) == (type(found), found.args, str(found))


@pytest.mark.parametrize(
    ("told", "text"),
    [
        (problem_of(KeyError("x")), "its owner has failed: KeyError: 'x'"),
        ({"kind": "Later", "facts": ["new"]}, "its owner has failed: new"),
        ({"kind": "SystemExit", "facts": ["x"]}, "its owner has failed: x"),
        ({"kind": "Full", "facts": []}, "an error that nobody can read: {'kind'"),
        ({"kind": "", "facts": []}, "an error that nobody can read"),
        ({}, "an error that nobody can read: {}"),
        (None, "an error that nobody can read: None"),
        ({"kind": 3, "facts": ["x"]}, "an error that nobody can read"),
    ],
)
def test_what_is_no_error_of_ours(told: Any, text: str) -> None:
    """It is told of as the store's."""
    found = error_of(told, "jobs.db")
    assert type(found) is nsqlite.StoreError
    assert text in str(found)


@pytest.mark.parametrize("body", [b"tea", b"\xff", {"cake": [1, None]}, "é"])
def test_bodies_come_back(body: object) -> None:
    """Bytes with or without a codec, others with theirs."""
    assert body == body_of(fields_of(body, JSON), JSON)
    unknown = body_of({"body": "1", "codec": "json"}, PLAIN)
    assert isinstance(unknown, Undecodable)
    with pytest.raises(
        nsqlite.InvalidMessage,
        match="into this store: the store was opened",
    ):
        refuse_unknown(unknown)
    assert b"tea" == refuse_unknown(b"tea")


@pytest.mark.parametrize(
    "fields",
    [
        {},
        None,
        "body",
        [],
        {"body": 3},
        {"body": "\ud800"},
        {"body_base64": "x"},
        {"body_base64": None},
    ],
)
def test_what_is_no_body(fields: object) -> None:
    """It is told of with what was given."""
    with pytest.raises(nsqlite.InvalidMessage, match="is no body"):
        body_of(fields, PLAIN)


def test_bodies_are_described() -> None:
    """A dead letter with its fields, and what no codec keeps by its repr."""
    letter = nsqlite.DeadLetter(
        body={"a": 1}, topic="t", channel="c", id="1", attempts=2, error="no", timestamp=3
    )
    told = described(letter, JSON)
    assert ('{"a":1}', "json", "no", 2) == (
        told["body"],
        told["codec"],
        told["letter"]["error"],
        told["letter"]["attempts"],
    )
    assert {"repr": "{1}"} == described({1}, JSON)


def test_the_other_ends_user_is_asked_for(
    ends: tuple[socket.socket, JSONLines], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As Linux tells it, or as macOS and the BSDs do; another user is refused, the system's not."""
    one, _ = ends
    assert os.geteuid() == peer_uid(one)

    class Other:
        """A socket of macOS."""

        def getsockopt(self, level: int, option: int, size: int) -> bytes:
            assert (0, 1, 76) == (level, option, size)
            return struct.pack("Ii", 0, 4711).ljust(size, b"\0")

    other: Any = Other()
    with monkeypatch.context() as patch:
        patch.delattr(socket, "SO_PEERCRED", raising=False)
        assert 4711 == peer_uid(other)
    with monkeypatch.context() as patch:
        patch.setattr(controllines, "peer_uid", lambda _connection: 4711)
        with pytest.raises(PermissionError, match="another user's"):
            require_own_user(one)
        patch.setattr(os, "geteuid", lambda: 4711)
        require_own_user(one)
        patch.setattr(controllines, "peer_uid", lambda _connection: 0)
        require_own_user(one)


def test_every_error_can_be_told() -> None:
    """There is no error of ours whose facts are not its arguments, but for those of one process."""
    local = {"Empty", "WindowFull", "ClockStandsStill"}
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type)]
    ours = [kind for kind in kinds if issubclass(kind, nsqlite.NSQLiteError)]
    assert len(ours) > 15
    assert local < {kind.__name__ for kind in ours}
