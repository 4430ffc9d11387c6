"""Listening sockets: a TCP address, or the path of a unix socket, as nsqd's options name them.

The rule: what cannot be listened on leaves nothing behind, and the path of a unix socket goes with
the socket.

An address is host and port if it has the form of that, as `127.0.0.1:4150`, `[::1]:4150` or `:4150`
(all of the machine's addresses); port 0 is any free one.  All else is a path.  A unix socket is its
user's alone.  One that a killed process has left is replaced; one that somebody listens on is not.

Next: server/tls.py
"""

import os
import socket
import stat
from pathlib import Path
from typing import Final

from nsqlite.errors import CannotListen

BACKLOG: Final = 1024
"""Connections that wait to be accepted; the system may allow fewer."""

MOST_FILES: Final = 10_240
"""Open files that macOS allows where it says that there is no limit."""

_LAST_PORT: Final = 65_535


class _UnixListener(socket.socket):
    """A unix socket whose path is removed when it is closed, unless that is another's by then."""

    made: os.stat_result | None = None

    def close(self) -> None:
        """Close it, and remove its path."""
        made, self.made = self.made, None
        if made is not None:
            _remove(self.getsockname(), made)
        super().close()


def listen(address: str, *, backlog: int = BACKLOG) -> socket.socket:
    """Return a socket that listens and does not block; it is the caller's to close.

    Args:
        address: host and port, or the path of a unix socket; see above.
        backlog: how many connections may wait to be accepted.

    Raises:
        CannotListen: it is in use, or the system does not have it or allow it.
    """
    where = host_and_port(address)
    try:
        if where is None:
            return _listen_unix(address, backlog)
        return _listen_tcp(*where, backlog)
    except UnicodeError:  # of whose text each version of Python has its own
        raise CannotListen(address, "no host can have this name") from None
    except (OSError, ValueError) as error:  # the second: no such port, or no name of a file
        raise CannotListen(address, _in_words(error)) from None


def host_and_port(address: str) -> tuple[str, str] | None:
    """Return the two parts of a TCP address, None if it is the path of a unix socket.

    The form is Go's, in which an address of IPv6 stands in brackets; but with a slash it is a path.
    """
    host, colon, port = address.rpartition(":")
    if not colon or "/" in address:
        return None
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        return None
    return None if {"[", "]"} & {*host, *port} else (host, port)


def address_of(listening: socket.socket) -> str:
    """Return where a socket listens: `127.0.0.1:4150`, `[::1]:4150`, or a path."""
    name = listening.getsockname()
    return name if isinstance(name, str) else joined(name[0], name[1])


def joined(host: str, port: int) -> str:
    """Return host and port as one text, in which an address of IPv6 stands in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def port_of(listening: socket.socket) -> int:
    """Return the port of a socket, -1 if it has none, as NSQ has it for a unix socket."""
    name = listening.getsockname()
    return -1 if isinstance(name, str) else int(name[1])


def raise_open_files_limit() -> tuple[int, int] | None:
    """Let this process have as many open files as the system allows it, as nsqd does.

    Returns:
        How many it could have before, and how many it can have now; None where no such limit is
        known, as on Windows.
    """
    try:
        import resource  # noqa: PLC0415 - Windows has none
    except ImportError:
        return None
    endless = resource.RLIM_INFINITY
    before, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    for wanted in (most, MOST_FILES):
        if before == endless or (wanted != endless and wanted <= before):
            break
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))
        except (ValueError, OSError):  # macOS takes no "unlimited", though it says so
            continue
        return before, wanted
    return before, before


# TCP


def _listen_tcp(host: str, port: str, backlog: int) -> socket.socket:
    number = _checked_port(port)
    if not host and socket.has_dualstack_ipv6():
        return _made(("::", number), socket.AF_INET6, backlog, dual=True)
    found = socket.getaddrinfo(
        host or "0.0.0.0",  # noqa: S104 - all addresses were asked for
        number,
        type=socket.SOCK_STREAM,
        flags=socket.AI_PASSIVE,
    )
    family, _, _, _, name = min(found, key=lambda one: one[0] != socket.AF_INET)  # as Go
    return _made(name, family, backlog)


def _checked_port(port: str) -> int | str:
    """Return the number of a port, or its name, which the system is to know.

    Raises:
        ValueError: there is no such port.
    """
    if not (port.isascii() and port.isdigit()):
        return port or 0
    number = int(port)
    if number > _LAST_PORT:
        raise ValueError(f"there is no port {number}")
    return number


def _made(
    name: tuple[object, ...], family: int, backlog: int, *, dual: bool = False
) -> socket.socket:
    """Return a socket that listens there, also where one was closed a moment ago."""
    made = socket.create_server(
        name,
        family=family,
        backlog=backlog,
        dualstack_ipv6=dual,
    )
    made.setblocking(False)
    return made


# Unix sockets


def _listen_unix(path: str, backlog: int) -> socket.socket:
    if not hasattr(socket, "AF_UNIX"):
        raise ValueError("it is no host and port, and this system's Python has no unix sockets")
    _remove_left(path)
    made = _UnixListener(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        made.bind(path)
        made.made = os.lstat(path)
        Path(path).chmod(0o600)  # before anybody can connect
        made.setblocking(False)
        made.listen(backlog)
    except BaseException:
        made.close()
        raise
    return made


def _remove_left(path: str) -> None:
    """Remove the socket that a killed process has left; what else is there is left alone."""
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return
    if stat.S_ISSOCK(found.st_mode) and not _is_heard(path):
        _remove(path, found)


def _is_heard(path: str) -> bool:
    """Say whether somebody listens on a unix socket, or may."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asking:
        asking.setblocking(False)
        try:
            asking.connect(path)
        except ConnectionRefusedError:
            return False
        except OSError:  # its backlog is full, or it is another user's
            pass
    return True


def _remove(path: str, made: os.stat_result) -> None:
    """Remove a path, unless something else is there by now, or nothing."""
    try:
        if os.path.samestat(os.lstat(path), made):
            Path(path).unlink()
    except OSError:
        pass


def _in_words(error: OSError | ValueError) -> str:
    """Return what the system said, as Go has it, which begins small."""
    number = getattr(error, "errno", None)
    if number is None or isinstance(error, socket.gaierror):
        text = getattr(error, "strerror", None) or str(error)
    else:
        text = os.strerror(number)  # without what Python's socket adds to it
    return text if text[1:2].isupper() else f"{text[:1].lower()}{text[1:]}"
