"""AuthClient: beside real servers on loopback, in the same loop."""

import asyncio
import json
import socket
import ssl
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from random import Random
from typing import Any
from urllib.parse import parse_qsl

import pytest
import trustme
from aiohttp import web

from nsqlite.errors import MissingExtra
from nsqlite.server.auth import LONGEST_ANSWER, AuthClient, AuthFailed, _by_https
from nsqlite.wire.authorisation import Authorisations

SECRET = b"tea & <secret>"
ALLOWED = {
    "ttl": 60,
    "identity": "shop",
    "authorizations": [{"topic": ".*", "channels": [".*"], "permissions": ["publish"]}],
}

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Server:
    """What a test asks of its server."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.address = f"127.0.0.1:{port}"
        self.asked: list[tuple[str, str, dict[str, Any]]] = []
        self.headers: list[Any] = []


def giving(
    body: Any = ALLOWED, status: int = 200, headers: Mapping[str, str] | None = None
) -> Answer:
    async def answer(_request: web.Request) -> web.Response:
        told = body if isinstance(body, bytes) else json.dumps(body).encode()
        return web.Response(body=told, status=status, headers=headers)

    return answer


@asynccontextmanager
async def serving(
    answer: Answer | None = None, context: ssl.SSLContext | None = None
) -> AsyncIterator[Server]:
    """Serve one answer at every path."""

    async def handle(request: web.Request) -> web.StreamResponse:
        body = await request.text()
        said = json.loads(body) if body else dict(parse_qsl(request.query_string))
        server.asked.append((request.method, request.path, said))
        server.headers.append(request.headers)
        return await (answer or giving())(request)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handle)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
    await site.start()
    server = Server(runner.addresses[0][1])
    try:
        yield server
    finally:
        await runner.cleanup()


def ask(client: AuthClient, secret: bytes = SECRET) -> Awaitable[Authorisations]:
    return client.ask("10.0.0.7", tls=False, common_name="", secret=secret)


async def problem(client: AuthClient) -> str:
    with pytest.raises(AuthFailed) as info:
        await ask(client)
    assert SECRET.decode() not in str(info.value)
    assert "secret" not in str(info.value)
    return str(info.value)


def closed_address() -> str:
    """Return an address at which nobody listens."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{one.getsockname()[1]}"


# What is asked


def test_get() -> None:
    """A query with four keys, at the path that nsqd uses."""

    async def run() -> None:
        async with serving() as server:
            client = AuthClient([server.address])
            found = await client.ask("::1", tls=True, common_name="c 1", secret=SECRET)
            assert ("shop", 60, 1) == (found.identity, found.ttl, found.count)
            await ask(client)
            same = {"secret": "tea & <secret>"}
            assert [
                ("GET", "/auth", same | {"common_name": "c 1", "remote_ip": "::1", "tls": "true"}),
                ("GET", "/auth", same | {"remote_ip": "10.0.0.7", "tls": "false"}),
            ] == server.asked
            assert "application/vnd.nsq; version=1.0" == server.headers[0]["Accept"]

    asyncio.run(run())


def test_any_bytes_are_a_secret() -> None:
    """They come as they are in a query; in JSON what is no UTF-8 cannot."""

    async def run() -> None:
        async with serving(echo) as server:
            with pytest.raises(AuthFailed, match="got response 418"):
                await ask(AuthClient([server.address]), secret=bytes(range(256)))
            assert [bytes(range(256))] == raw
            with pytest.raises(AuthFailed, match="got response 418"):
                await ask(AuthClient([server.address], "post"), secret=b"tea\xff")
            assert ["tea\ufffd"] == server.asked[1][2]["secret"]

    raw: list[bytes] = []

    async def echo(request: web.Request) -> web.Response:
        for key, value in parse_qsl(request.rel_url.raw_query_string, encoding="latin-1"):
            if key == "secret":
                raw.append(value.encode("latin-1"))
        return web.Response(status=418)

    asyncio.run(run())


def test_post() -> None:
    """JSON of lists, as Go writes the values of a form."""

    async def run() -> None:
        async with serving() as server:
            client = AuthClient([server.address], "post")
            assert 1 == (await ask(client)).count
            values = {
                "common_name": [""],
                "remote_ip": ["10.0.0.7"],
                "secret": ["tea & <secret>"],
                "tls": ["false"],
            }
            assert [("POST", "/auth", values)] == server.asked
            assert "application/json" == server.headers[0]["Content-Type"]

    asyncio.run(run())


@pytest.mark.parametrize(("method", "site"), [("get", "1"), ("post", None)])
def test_a_whole_url(method: Any, site: str | None) -> None:
    """An address with `://` is what is asked, also with a query of its own."""

    async def run() -> None:
        async with serving() as server:
            where = f"http://{server.address}/who/may?site=1"
            assert 1 == (await ask(AuthClient([where], method))).count
            _, path, said = server.asked[0]
            assert ("/who/may", site) == (path, said.get("site"))
            assert said["secret"] in ("tea & <secret>", ["tea & <secret>"])

    asyncio.run(run())


# Which server is asked


def test_it_begins_anywhere_and_asks_all() -> None:
    """The first valid answer wins; which one is first, chance decides."""

    async def run() -> None:
        async with (
            serving(giving({"ttl": 1, "identity": "one"})) as one,
            serving(giving({"ttl": 1, "identity": "two"})) as two,
        ):
            client = AuthClient([one.address, two.address], rng=Random(1))
            assert {"one", "two"} == {(await ask(client)).identity for _ in range(20)}
            assert 20 == len(one.asked) + len(two.asked)

    asyncio.run(run())


def test_a_server_that_fails_is_passed_by() -> None:
    """The next one is asked, and only if there is none it is an error, which tells of each."""

    async def run() -> None:
        async with serving(giving(status=500)) as one, serving(giving({"ttl": 0})) as two:
            gone = closed_address()
            bad = (one.address, two.address, gone)
            async with serving() as good:
                for number in range(4):
                    rng = Random(number)
                    assert 1 == (await ask(AuthClient([*bad, good.address], rng=rng))).count
            told = await problem(AuthClient(bad))
            assert sorted(
                [
                    f"failed to auth against {one.address} - got response 500",
                    f"failed to auth against {two.address} - invalid TTL 0 (must be >0)",
                    f"failed to auth against {gone} - ClientConnectorError",
                ]
            ) == sorted(told.split("; "))

    asyncio.run(run())


async def cut_short(request: web.Request) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{")
    request.transport.close()
    return web.Response()


async def endless(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    for _ in range(LONGEST_ANSWER // 65_536 + 1):
        await response.write(bytes(65_536))
    return response


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (giving(status=404), "got response 404"),
        (giving(status=302, headers={"Location": "/other"}), "got response 302"),
        (giving(b"no"), "the answer is no JSON"),
        (giving(b"\x1f\x8b", headers={"Content-Encoding": "gzip"}), "the answer is no JSON"),
        (giving({"ttl": 1, "authorizations": [{"topic": "("}]}), "unable to compile topic"),
        (giving(status=403), "got response 403"),
        (giving(b"no", status=403), "got response 403"),
        (giving([], status=403), "got response 403"),
        (giving({"https_port": "1"}, status=403), "got response 403"),
        (giving({"https_port": 0}, status=403), "got response 403"),
        (giving({"https_port": 65_536}, status=403), "got response 403"),
        (giving(b" " * (LONGEST_ANSWER + 1)), "an answer of more than 1048576 bytes"),
        (endless, "an answer of more than 1048576 bytes"),
        (cut_short, "ClientPayloadError"),
    ],
)
def test_an_answer_that_is_none(answer: Answer, expected: str) -> None:
    """It is told of in a log, without the secret and the server's words."""

    async def run() -> None:
        async with serving(answer) as server:
            assert (
                (await problem(AuthClient([server.address])))
                .partition(" - ")[2]
                .startswith(expected)
            )
            assert 1 == len(server.asked)

    asyncio.run(run())


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("http://", "failed to auth against http:// - InvalidUrlClientError"),
        ("ftp://x/", "failed to auth against ftp://x/ - NonHttpUrlClientError"),
        ("http://me:password@x y/a?key=password", "failed to auth against http://x y/a - "),
    ],
)
def test_an_address_that_is_none(address: str, expected: str) -> None:
    """It is told of without the password that may be in it."""
    told = asyncio.run(problem(AuthClient([address])))
    assert told.startswith(expected)
    assert "password" not in told


def test_a_server_that_does_not_answer() -> None:
    """It is given up after the time that there is, and the next one asked."""

    async def run() -> None:
        over = asyncio.Event()

        async def wait(_request: web.Request) -> web.Response:
            await over.wait()
            return web.Response()

        async with serving(wait) as server, serving() as other:
            client = AuthClient([server.address], request_timeout=0.01)
            assert f"failed to auth against {server.address} - timed out" == await problem(client)
            client = AuthClient([server.address, other.address], request_timeout=0.2)
            assert 1 == (await ask(client)).count
            over.set()

    asyncio.run(run())


# HTTPS


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def contexts(authority: trustme.CA) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Return what a server and its client make connections with."""
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(server)
    client = ssl.create_default_context()
    authority.configure_trust(client)
    return server, client


@pytest.mark.parametrize("method", ["get", "post"])
@pytest.mark.parametrize("user", ["", "me:password@"])
def test_403_with_a_port_for_https(authority: trustme.CA, method: Any, user: str) -> None:
    """The same is asked there, once."""
    here, there = contexts(authority)

    async def run() -> None:
        async with (
            serving(context=here) as safe,
            serving(giving({"https_port": safe.port}, 403)) as plain,
        ):
            where = f"http://{user}{plain.address}/may"
            assert 1 == (await ask(AuthClient([where], method, ssl=there))).count
            assert plain.asked == safe.asked
            assert ("Authorization" in safe.headers[0]) == bool(user)

    asyncio.run(run())


def test_403_by_https_is_an_answer(authority: trustme.CA) -> None:
    """Nothing else is asked then."""
    here, there = contexts(authority)

    async def run() -> None:
        async with serving(giving({"https_port": 1}, 403), here) as safe:
            where = f"https://{safe.address}/auth"
            told = await problem(AuthClient([where], ssl=there))
            assert f"failed to auth against {where} - got response 403" == told

    asyncio.run(run())


def test_https_is_verified(authority: trustme.CA) -> None:
    """A server whose certificate nobody knows is not told the secret."""
    here, _ = contexts(authority)

    async def run() -> None:
        async with serving(context=here) as safe:
            told = await problem(AuthClient([f"https://{safe.address}/auth"]))
            assert told.endswith("ClientConnectorCertificateError")
            assert [] == safe.asked

    asyncio.run(run())


def test_the_port_for_https_at_an_address_of_ipv6() -> None:
    """The address keeps its brackets."""
    assert "https://[::1]:44/a?b=c" == _by_https("http://[::1]:4/a?b=c", b'{"https_port": 44}')


# Without aiohttp


def test_aiohttp_is_an_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who has not installed it is told how to."""
    nothing: Any = None
    monkeypatch.setitem(sys.modules, "aiohttp", nothing)
    with pytest.raises(MissingExtra, match=r"pip install 'nsqlite\[server\]'"):
        AuthClient(["127.0.0.1:4181"])
