"""Asks the auth servers what a client may do, over HTTP (NSQ wire §8).

The rule: the first valid answer wins, from whichever server; a secret goes to the servers that were
named and to nobody else, so redirects are not followed, and no error tells of it.

aiohttp, which the extra `nsqlite[server]` brings, is loaded when a client is made.

Next: server/publishing.py
"""

import json
import re
from collections.abc import Sequence
from random import Random
from ssl import SSLContext
from types import ModuleType
from typing import Any, Final, Literal
from urllib.parse import urlencode, urlsplit, urlunsplit

from nsqlite._version import __version__
from nsqlite.errors import MissingExtra
from nsqlite.wire.authorisation import Authorisations, BadAuthorisation
from nsqlite.wire.go import compact_json

LONGEST_ANSWER: Final = 1 << 20
"""Bytes in the longest answer that is read."""

_OK: Final = 200
_FORBIDDEN: Final = 403
_PORTS: Final = 65_535

_HEADERS: Final = {
    "Accept": "application/vnd.nsq; version=1.0",
    "Accept-Encoding": "identity",  # so that an answer is no longer than what is read
    "User-Agent": f"nsqlite/{__version__}",
}

_USER: Final = re.compile(r"(?<=://)[^/?#]*@")


class AuthFailed(Exception):
    """No auth server has answered validly; the text says of each why, and is for a log only."""


class AuthClient:
    """Asks auth servers.

        client = AuthClient(["auth.example:4181"])
        allowed = await client.ask("10.0.0.7", tls=True, common_name="", secret=b"tea")

    Loops: any; nothing is kept between two calls, so there is nothing to close.
    """

    def __init__(
        self,
        addresses: Sequence[str],
        method: Literal["get", "post"] = "get",
        connect_timeout: float = 2.0,
        request_timeout: float = 5.0,
        ssl: SSLContext | None = None,
        *,
        rng: Random | None = None,
    ) -> None:
        """Take what servers there are, and how they are asked.

        Args:
            addresses: one at least; `host:port`, or with a `://` the whole URL of what is asked.
            method: ``"get"``, with a query, or ``"post"``, with JSON.
            connect_timeout: seconds until a connection to one of them must stand.
            request_timeout: seconds until the whole answer of one must be there.
            ssl: what connections by HTTPS are made with; None for Python's own.
            rng: says which one is asked first; None for any.

        Raises:
            MissingExtra: aiohttp is not installed.
        """
        self._addresses: Final = tuple(addresses)
        self._method: Final = method
        self._ssl: Final = True if ssl is None else ssl
        self._rng: Final = rng or Random()  # noqa: S311 - it spreads requests, no more
        self._aiohttp: Final[Any] = _loaded()
        self._timeout: Final = self._aiohttp.ClientTimeout(
            total=request_timeout, sock_connect=connect_timeout
        )

    async def ask(
        self, remote_ip: str, *, tls: bool, common_name: str, secret: bytes
    ) -> Authorisations:
        """Return what a client may do, as the first server says that answers validly.

        Args:
            remote_ip: where the client is.
            tls: whether its connection has TLS.
            common_name: that of its certificate, "" if there is none.
            secret: what it sent with AUTH.

        Raises:
            AuthFailed: none of the servers has answered validly.
        """
        asked: dict[str, str | bytes] = {
            "common_name": common_name,
            "remote_ip": remote_ip,
            "secret": secret,
            "tls": "true" if tls else "false",
        }
        start = self._rng.randrange(len(self._addresses))
        problems = []
        async with self._aiohttp.ClientSession(
            headers=_HEADERS,
            timeout=self._timeout,
            auto_decompress=False,
            cookie_jar=self._aiohttp.DummyCookieJar(),
        ) as session:
            for address in self._addresses[start:] + self._addresses[:start]:
                try:
                    return await self._ask_one(session, address, asked)
                except (BadAuthorisation, _Failure) as error:
                    problems.append(f"failed to auth against {_nameless(address)} - {error}")
        raise AuthFailed("; ".join(problems))

    async def _ask_one(
        self, session: Any, address: str, asked: dict[str, str | bytes]
    ) -> Authorisations:
        """Return what one server answers."""
        endpoint = address if "://" in address else f"http://{address}/auth"
        status, answer = await self._request(session, endpoint, asked)
        if status == _FORBIDDEN and not endpoint.startswith("https"):
            status, answer = await self._request(session, _by_https(endpoint, answer), asked)
        if status != _OK:
            raise _Failure(f"got response {status}")
        return Authorisations.parse(answer)

    async def _request(
        self, session: Any, endpoint: str, asked: dict[str, str | bytes]
    ) -> tuple[int, bytes]:
        """Ask, and return the status and body of the answer."""
        options: dict[str, Any] = {"allow_redirects": False, "ssl": self._ssl}
        if self._method == "post":
            options["data"] = compact_json({key: [_text(asked[key])] for key in asked})
            options["headers"] = {"Content-Type": "application/json"}
        else:
            endpoint += ("&" if "?" in endpoint else "?") + urlencode(asked)
        try:
            async with session.request(self._method, endpoint, **options) as response:
                return response.status, await _body(response)
        except TimeoutError:
            raise _Failure("timed out") from None
        except (self._aiohttp.ClientError, ValueError, OSError) as error:
            # not its text, in which the URL may be, with the secret
            raise _Failure(type(error).__name__) from None


class _Failure(Exception):
    """One server has not answered as it should."""


async def _body(response: Any) -> bytes:
    """Return the body of an answer, if it is not too long."""
    found = b""
    async for piece in response.content.iter_chunked(1 << 16):
        found += piece
        if len(found) > LONGEST_ANSWER:
            raise _Failure(f"an answer of more than {LONGEST_ANSWER} bytes")
    return found


def _by_https(endpoint: str, answer: bytes) -> str:
    """Return the same endpoint by HTTPS, at the port that an answer of 403 tells."""
    try:
        port = json.loads(answer)["https_port"]
    except (ValueError, RecursionError, TypeError, KeyError):
        port = None
    if port.__class__ is not int or not 0 < port <= _PORTS:
        raise _Failure(f"got response {_FORBIDDEN}")
    parts = urlsplit(endpoint)
    user, at, _ = parts.netloc.rpartition("@")
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    return urlunsplit(parts._replace(scheme="https", netloc=f"{user}{at}{host}:{port}"))


def _text(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.decode("utf-8", "replace")


def _nameless(address: str) -> str:
    """Return an address without a user's name, password and query."""
    return _USER.sub("", address).partition("?")[0]


def _loaded() -> ModuleType:
    """Return aiohttp.

    Raises:
        MissingExtra: it is not installed.
    """
    try:
        import aiohttp  # noqa: PLC0415 - an extra, and slow to load
    except ImportError:
        raise MissingExtra("an auth server", "aiohttp", "server") from None
    return aiohttp
