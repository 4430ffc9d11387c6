"""What passes over a control socket: a line of JSON for each request, and one for its answer.

The rule: a line says all of its request; whoever cannot read one ends the connection.

    owner    {"nsqlite": "control", "version": 1, "pid": 4711}
    client   {"call": "put", "topic": "orders", "bodies": [{"body": "order 1"}], "delay": 2.5}
    owner    {"result": ["135950b844800000"]}
    client   {"call": "discard", "topic": "orders", "channel": "billing", "id": "tea"}
    owner    {"error": {"kind": "InvalidOption", "facts": ["id", "tea", "16 hex digits"]}}

A body is `body` if its bytes are UTF-8, else `body_base64`, with `codec` if one has made them.  The
answer to `tail` is followed by a line for each event, and by one with `end` when the owner closes.

Next: store/operations.py
"""

import base64
import json
import os
import socket
import struct
from collections.abc import Mapping
from typing import Any, Final, Self

import attrs

from nsqlite import errors
from nsqlite.errors import InvalidMessage, NSQLiteError, StoreError, shown
from nsqlite.store.codec import Coder, Undecodable, is_letter

VERSION: Final = 1
"""The number of what is told above."""

LONGEST_LINE: Final = 256 << 20
"""Bytes in the longest line that is read."""

CHUNK: Final = 1 << 16
"""Bytes that are received at a time."""

_ENDING: Final = "-control"


class NotJSON(ValueError):
    """What came is no line of JSON with an object in it; its text says why."""


def address(where: str) -> str:
    """Return the path of the socket beside a store's file."""
    return where + _ENDING


def has_sockets() -> bool:
    """Say whether this system's Python has unix sockets; that of Windows has none."""
    return hasattr(socket, "AF_UNIX")


def peer_uid(connection: socket.socket) -> int:
    """Return the user that the process at the other end had when it connected, or listened.

    Raises:
        OSError: the system does not tell.
    """
    if hasattr(socket, "SO_PEERCRED"):
        found = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        return int(struct.unpack("3i", found)[1])
    # SOL_LOCAL and LOCAL_PEERCRED of macOS and the BSDs: a version, the user, and groups.
    found = connection.getsockopt(0, 1, 76)
    return int(struct.unpack_from("Ii", found)[1])


def require_own_user(connection: socket.socket) -> None:
    """Check that at the other end is a process of this user, or the system's.

    Raises:
        PermissionError: it is another's.
        OSError: the system does not tell.
    """
    if peer_uid(connection) not in {os.geteuid(), 0}:
        raise PermissionError("the process at its other end is another user's")


class JSONLines:
    """One end of a connection.

    Threads: one at a time may send, and one receive; any may call `shut`.
    """

    def __init__(self, connection: socket.socket) -> None:
        """Take the socket, which is closed with this."""
        self._connection: Final = connection
        self._read: Final = bytearray()  # what came and is no whole line yet

    def send(self, told: Mapping[str, Any]) -> None:
        """Send an object.

        Raises:
            InvalidMessage: it is too long; nothing is sent.
            OSError: it cannot be sent.
        """
        line = json.dumps(told, default=shown).encode()
        if len(line) > LONGEST_LINE:
            problem = f"{len(line)} bytes are too much for one request or answer"
            raise InvalidMessage(f"{problem}, which takes {LONGEST_LINE}: ask for less at a time")
        self._connection.sendall(line + b"\n")

    def receive(self) -> dict[str, Any] | None:
        """Wait for an object; None if the other end is gone.

        Raises:
            NotJSON: what comes is none.
            OSError: nothing can be received.
        """
        line = self._receive_line()
        if line is None:
            return None
        try:
            found = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise NotJSON(f"a line is no JSON: {error}") from None
        if not isinstance(found, dict):
            raise NotJSON(f"a line must be an object, not {shown(found)}")
        return found

    def _receive_line(self) -> bytes | None:
        """Wait for the end of a line; a last one that is cut off was never asked for."""
        read = self._read
        known = 0  # bytes in which there is no end
        while (end := read.find(b"\n", known)) < 0:
            known = len(read)
            if known > LONGEST_LINE:
                raise NotJSON(f"a line has more than {LONGEST_LINE} bytes")
            try:
                more = self._connection.recv(CHUNK)
            except ConnectionResetError:
                return None
            if not more:
                return None
            read += more
        line = bytes(read[:end])
        del read[: end + 1]
        return line

    def shut(self, how: int) -> None:
        """End what is received, or all, also where another thread waits for it."""
        try:
            self._connection.shutdown(how)
        except OSError:  # the other end did so
            pass

    def close(self) -> None:
        """Close it; in the child of a fork this ends nothing for the parent."""
        self._connection.close()

    def __enter__(self) -> Self:
        """Begin a block that closes it."""
        return self

    def __exit__(self, *error: object) -> None:
        """Close it."""
        self.close()


def problem_of(error: Exception) -> dict[str, Any]:
    """Return an error for the other end, which raises it anew."""
    if isinstance(error, NSQLiteError):
        return {"kind": type(error).__name__, "facts": list(error.args)}
    return {"kind": "", "facts": [f"{type(error).__name__}: {error}"]}


def error_of(told: Any, where: str) -> NSQLiteError:
    """Return what the other end has told of by `problem_of`."""
    try:
        kind = getattr(errors, told["kind"], None)
        if isinstance(kind, type) and issubclass(kind, NSQLiteError):
            return kind(*told["facts"])
        problem = f"its owner has failed: {told['facts'][0]}"
    except (TypeError, KeyError, IndexError):
        problem = f"its owner has told of an error that nobody can read: {shown(told)}"
    return StoreError(where, problem)


def fields_of(body: Any, coder: Coder) -> dict[str, Any]:
    """Return a body as fields: `body` or `body_base64`, and `codec` if one has made it.

    Raises:
        InvalidMessage: the codec refuses it.
    """
    _, data, codec = coder.encode(body)
    return in_json(data, codec)


def in_json(data: bytes, codec: str | None) -> dict[str, str]:
    """Return the bytes of a body as fields; see `fields_of`."""
    try:
        fields = {"body": data.decode()}
    except UnicodeDecodeError:
        fields = {"body_base64": base64.b64encode(data).decode("ascii")}
    return fields if codec is None else {**fields, "codec": codec}


def body_of(fields: Any, coder: Coder) -> Any:
    """Return the body that fields tell of; one of another codec is an `Undecodable`.

    Raises:
        InvalidMessage: they tell of none.
    """
    try:
        codec = fields.get("codec")
        if "body" in fields:
            data = fields["body"].encode()
        else:
            data = base64.b64decode(fields["body_base64"], validate=True)
    except (TypeError, KeyError, AttributeError, ValueError):
        raise InvalidMessage(f"{shown(fields)} is no body") from None
    return coder.decode(None if codec is None else str(codec), data)


def described(body: Any, coder: Coder) -> dict[str, Any]:
    """Return a body to be looked at: its fields, and of a dead letter `letter`, which has its own.

    What no codec keeps, as in a topic that is in memory only, is told by its `repr`.
    """
    if is_letter(body):
        letter = attrs.asdict(body, recurse=False, filter=lambda field, _: field.name != "body")
        return {"letter": letter} | described(body.body, coder)
    try:
        return fields_of(body, coder)
    except InvalidMessage:
        return {"repr": shown(body)}


def refuse_unknown(body: Any) -> Any:
    """Return a body, unless it is of a codec that is not the store's.

    Raises:
        InvalidMessage: it is.
    """
    if isinstance(body, Undecodable):
        raise InvalidMessage(
            f"a body of codec {body.codec!r} cannot be put into this store: {body.problem}"
        )
    return body


def greeting() -> dict[str, Any]:
    """Return the first line of an owner."""
    return {"nsqlite": "control", "version": VERSION, "pid": os.getpid()}
