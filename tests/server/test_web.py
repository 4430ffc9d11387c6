"""HTTP as NSQ's daemons speak it: routing, forms of answers, bodies, bad requests, and the end."""

import asyncio
import logging
import socket
import ssl
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import trustme
from aio.loops import in_loop, turns
from helpers import PATIENCE

import nsqlite
from nsqlite.clock import SYSTEM
from nsqlite.server.web import (
    MOST_UNREAD,
    SLOWEST,
    Call,
    CutShort,
    Endpoint,
    Problem,
    Typed,
    Web,
    query_of,
)
from nsqlite.testing import ManualClock
from server.httpclient import Client

HOST = b"Host: nsqd\r\n"
JSON = "application/json; charset=utf-8"
TEXT = "text/plain; charset=utf-8"


class Endpoints:
    """What the servers of these tests answer.

    Attributes:
        held: is set when a request waits.
        go_on: has it go on.
    """

    def __init__(self) -> None:
        self.held = asyncio.Event()
        self.go_on = asyncio.Event()

    def all(self) -> list[Endpoint]:
        return [
            Endpoint("GET", "/text", self.text),
            Endpoint("POST", "/text", self.text),
            Endpoint("GET", "/plain", self.text, plain=True),
            Endpoint("GET", "/bytes", self.raw),
            Endpoint("GET", "/json", self.json),
            Endpoint("GET", "/typed", self.typed),
            Endpoint("POST", "/nothing", self.nothing),
            Endpoint("POST", "/echo", self.echo),
            Endpoint("POST", "/part", self.part),
            Endpoint("POST", "/large", self.large),
            Endpoint("GET", "/much", self.much),
            Endpoint("POST", "/hold", self.hold),
            Endpoint("POST", "/hold/echo", self.hold_and_echo),
            Endpoint("GET", "/query", self.query),
            Endpoint("GET", "/failed", self.failed),
            Endpoint("GET", "/failed/plain", self.failed, plain=True),
            Endpoint("GET", "/broken", self.broken),
            Endpoint("GET", "/folder/", self.text),
            Endpoint("GET", "/config/:opt", self.value),
        ]

    async def text(self, _: Call) -> str:
        return "OK"

    async def raw(self, _: Call) -> bytes:
        return b"\xff"

    async def json(self, _: Call) -> dict[str, Any]:
        return {"text": "<&>", "list": [1, None]}

    async def typed(self, _: Call) -> Typed:
        return Typed(b"<p>", "text/html")

    async def nothing(self, _: Call) -> None:
        return None

    async def echo(self, call: Call) -> bytes:
        return await call.body(1000, "TOO_BIG")

    async def part(self, call: Call) -> bytes:
        try:
            await call.body(1000, "TOO_BIG")
        except CutShort as cut:
            return cut.part
        return b"whole"

    async def much(self, _: Call) -> bytes:
        return bytes(100_000_000)

    async def large(self, call: Call) -> dict[str, int]:
        return {"size": len(await call.body(10 * SLOWEST, "TOO_BIG"))}

    async def hold(self, _: Call) -> str:
        self.held.set()
        await self.go_on.wait()
        return "held"

    async def hold_and_echo(self, call: Call) -> bytes:
        await self.hold(call)
        return await self.echo(call)

    async def query(self, call: Call) -> dict[str, str]:
        return {**call.query, **call.query}

    async def failed(self, _: Call) -> None:
        raise Problem(418, 'a "CODE"')

    async def broken(self, _: Call) -> None:
        raise RuntimeError("/secret/path")

    async def value(self, call: Call) -> str:
        return f"value {call.value}"


@asynccontextmanager
async def serving(address: str = "127.0.0.1:0", **options: Any) -> AsyncIterator[Web]:
    """Have a server run for the time of a block."""
    options.setdefault("clock", SYSTEM)
    endpoints = options.pop("endpoints", None) or Endpoints()
    web = Web(address, endpoints.all(), **options)
    await web.start()
    try:
        yield web
    finally:
        await web.stop()


@asynccontextmanager
async def connected(**options: Any) -> AsyncIterator[Client]:
    """Have a server, and a client of it, for the time of a block."""
    async with serving(**options) as web:
        assert web.address is not None
        async with Client(web.address) as client:
            yield client


# The forms of answers


@in_loop
async def test_the_forms_of_answers() -> None:
    """Text, bytes and JSON under their content types; nothing has none; all have NSQ's header."""
    async with connected() as client:
        found = {
            path: await client.ask(method, path)
            for method, path in (
                ("GET", "/text"),
                ("GET", "/bytes"),
                ("GET", "/json"),
                ("GET", "/typed"),
                ("POST", "/nothing"),
            )
        }
    assert {
        "/text": (200, TEXT, b"OK"),
        "/bytes": (200, TEXT, b"\xff"),
        "/json": (200, JSON, b'{"text":"\\u003c\\u0026\\u003e","list":[1,null]}'),
        "/typed": (200, "text/html", b"<p>"),
        "/nothing": (200, None, b""),
    } == {
        path: (reply.status, reply.headers.get("content-type"), reply.body)
        for path, reply in found.items()
    }
    for reply in found.values():
        assert "nsq; version=1.0" == reply.headers["x-nsq-content-type"]
        assert "server" not in reply.headers
        assert "date" in reply.headers
    assert "0" == found["/nothing"].headers["content-length"]


@in_loop
async def test_what_is_none_of_nsqs_api_lacks_its_header() -> None:
    """And its problems are texts."""
    async with connected() as client:
        good = await client.ask("GET", "/plain")
        bad = await client.ask("GET", "/failed/plain")
    assert (200, TEXT, "OK") == (good.status, good.headers["content-type"], good.text)
    assert (418, TEXT, 'a "CODE"') == (bad.status, bad.headers["content-type"], bad.text)
    assert not {"x-nsq-content-type", "server"} & {*good.headers, *bad.headers}


@in_loop
async def test_a_problem_is_told_as_json() -> None:
    """With its status, and NSQ's header."""
    async with connected() as client:
        reply = await client.ask("GET", "/failed")
    assert (418, JSON, '{"message":"a \\"CODE\\""}') == (
        reply.status,
        reply.headers["content-type"],
        reply.text,
    )
    assert "x-nsq-content-type" in reply.headers


def test_what_breaks_is_logged_and_not_told(caplog: pytest.LogCaptureFixture) -> None:
    """The answer has a code, the log what was raised; the connection goes on."""

    @in_loop
    async def run() -> None:
        async with connected() as client:
            reply = await client.ask("GET", "/broken")
            assert (500, {"message": "INTERNAL_ERROR"}) == (reply.status, reply.json)
            assert "secret" not in str(reply)
            assert 200 == (await client.ask("GET", "/text")).status

    run()
    [record] = [one for one in caplog.records if one.levelno >= logging.WARNING]
    assert "HTTP: GET /broken failed" == record.getMessage()
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], RuntimeError)


def test_requests_are_logged_for_who_debugs(caplog: pytest.LogCaptureFixture) -> None:
    """With status, address and time, as nsqd does."""

    @in_loop
    async def run() -> None:
        async with connected() as client:
            await client.ask("GET", "/failed?a=b")

    with caplog.at_level(logging.INFO, "nsqlite"):
        run()
    lines = [record.getMessage().rstrip("0123456789") for record in caplog.records]
    assert ["HTTP: listening on 127.0.0.1:", "HTTP: closing 127.0.0.1:"] == lines
    caplog.clear()
    with caplog.at_level(logging.DEBUG, "nsqlite"):
        run()
    lines = [record.getMessage() for record in caplog.records if record.levelno == logging.DEBUG]
    assert any(line.startswith("418 GET /failed?a=b (127.0.0.1) ") for line in lines)


# Routing


@pytest.mark.parametrize(
    ("method", "path", "status", "text", "allow"),
    [
        ("GET", "/", 404, "NOT_FOUND", None),
        ("GET", "/none", 404, "NOT_FOUND", None),
        ("GET", "/config/", 404, "NOT_FOUND", None),
        ("GET", "/config/a/b", 404, "NOT_FOUND", None),
        ("POST", "/none", 404, "NOT_FOUND", None),
        ("OPTIONS", "/none", 404, "NOT_FOUND", None),
        ("CONNECT", "/text", 404, "NOT_FOUND", None),
        ("POST", "/json", 405, "METHOD_NOT_ALLOWED", "GET, OPTIONS"),
        ("DELETE", "/text", 405, "METHOD_NOT_ALLOWED", "GET, OPTIONS, POST"),
        ("PUT", "/config/x", 405, "METHOD_NOT_ALLOWED", "GET, OPTIONS"),
        ("PATCH", "/nothing", 405, "METHOD_NOT_ALLOWED", "OPTIONS, POST"),
        ("POST", "/json/", 404, "NOT_FOUND", None),
    ],
)
def test_where_nothing_is(
    method: str, path: str, status: int, text: str, allow: str | None
) -> None:
    """An unknown path is 404, a wrong method 405 with those that are right."""

    @in_loop
    async def run() -> None:
        async with connected() as client:
            reply = await client.ask(method, path)
        assert (status, {"message": text}, allow) == (
            reply.status,
            reply.json,
            reply.headers.get("allow"),
        )
        assert (JSON, "nsq; version=1.0") == (
            reply.headers["content-type"],
            reply.headers["x-nsq-content-type"],
        )

    run()


@in_loop
async def test_a_head_is_a_wrong_method() -> None:
    """Its answer has no body, and the connection goes on."""
    async with connected() as client:
        reply = await client.ask("HEAD", "/text")
        assert (405, "GET, OPTIONS, POST", "32") == (
            reply.status,
            reply.headers["allow"],
            reply.headers["content-length"],
        )
        assert "OK" == (await client.ask("GET", "/text")).text


@pytest.mark.parametrize(
    ("path", "allow"), [("/text", "GET, OPTIONS, POST"), ("/config/x", "GET, OPTIONS"), ("*", None)]
)
def test_options(path: str, allow: str | None) -> None:
    """They are answered with the methods, and nothing else."""

    @in_loop
    async def run() -> None:
        async with connected() as client:
            reply = await client.ask("OPTIONS", path)
        assert (200, b"", allow) == (reply.status, reply.body, reply.headers.get("allow"))
        assert not {"content-type", "x-nsq-content-type"} & set(reply.headers)

    run()


@pytest.mark.parametrize(
    ("method", "path", "status", "where"),
    [
        ("GET", "/text/", 301, "/text"),
        ("GET", "/TEXT", 301, "/text"),
        ("GET", "/Text/?a=1&b=<2>", 301, "/text?a=1&b=<2>"),
        ("POST", "/text/?topic=x", 307, "/text?topic=x"),
        ("GET", "/folder", 301, "/folder/"),
        ("GET", "/FOLDER/", 301, "/folder/"),
        ("GET", "/none/../text", 301, "/text"),
        ("GET", "//text", 301, "/text"),
        ("GET", "/Config/Some%20Thing", 301, "/config/Some%20Thing"),
        ("GET", "/config/x/", 301, "/config/x"),
    ],
)
def test_which_path_was_meant(method: str, path: str, status: int, where: str) -> None:
    """A slash too many or too few, and a wrong case, are sent to the right one, with the query."""

    @in_loop
    async def run() -> None:
        async with connected() as client:
            reply = await client.ask(method, path)
        assert (status, where) == (reply.status, reply.headers["location"])
        assert "x-nsq-content-type" not in reply.headers
        if method == "GET":
            shown = where.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
            assert f'<a href="{shown}">Moved Permanently</a>.\n\n' == reply.text
            assert "text/html; charset=utf-8" == reply.headers["content-type"]
        else:
            assert (b"", None) == (reply.body, reply.headers.get("content-type"))

    run()


@in_loop
async def test_paths_may_be_escaped_or_absolute() -> None:
    """What is meant is the same; the value of a parameter is what it stands for."""
    async with connected() as client:
        assert "OK" == (await client.ask("GET", "/te%78t")).text
        assert "OK" == (await client.ask("GET", "http://nsqd/text?x")).text
        assert "value a b" == (await client.ask("GET", "/config/a%20b")).text


# Queries


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", {}),
        ("&&", {}),
        ("topic", {"topic": ""}),
        ("topic=", {"topic": ""}),
        ("topic=a=b", {"topic": "a=b"}),
        ("topic=a&topic=b", {"topic": "a"}),
        ("=x", {"": "x"}),
        ("to%70ic=%41+b", {"topic": "A b"}),
        ("topic=%23ephemeral", {"topic": "#ephemeral"}),
        ("topic=%ff", {"topic": "\udcff"}),
    ],
)
def test_queries(text: str, expected: dict[str, str]) -> None:
    """The first value of each name, as it was meant."""
    assert expected == query_of(text)


@pytest.mark.parametrize("text", ["a=%", "a=%2", "a=%zz", "%g1", "a=b;c=d", "a=b&%"])
def test_what_is_no_query(text: str) -> None:
    """It is refused as a whole."""
    with pytest.raises(Problem) as refused:
        query_of(text)
    assert (400, "INVALID_REQUEST") == (refused.value.status, refused.value.code)


@in_loop
async def test_the_query_of_a_request() -> None:
    """It is had as often as it is wanted; one that is none is the request's problem."""
    async with connected() as client:
        assert {"a": "1"} == (await client.ask("GET", "/query?a=1")).json
        reply = await client.ask("GET", "/query?a=%")
        assert (400, {"message": "INVALID_REQUEST"}) == (reply.status, reply.json)


# Bodies


@in_loop
async def test_bodies() -> None:
    """Whole, in pieces, in chunks, without one, and as they were sent, also if they are packed."""
    async with connected() as client:
        assert b"tea" == (await client.ask("POST", "/echo", b"tea")).body
        assert b"" == (await client.ask("POST", "/echo")).body
        assert (
            b"\x1f\x8b"
            == (await client.ask("POST", "/echo", b"\x1f\x8b", "Content-Encoding: gzip\r\n")).body
        )
        client.send(b"POST /echo HTTP/1.1\r\n" + HOST + b"Content-Length: 6\r\n\r\ntea")
        await turns(20)
        client.send(b"tea")
        assert b"teatea" == (await client.reply()).body
        client.send(b"POST /echo HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n")
        client.send(b"3\r\ntea\r\n4;x=y\r\nmilk\r\n0\r\n\r\n")
        assert b"teamilk" == (await client.reply()).body


@in_loop
async def test_a_body_that_is_too_big_by_its_size() -> None:
    """It is refused before it is read; what is little is read off."""
    async with connected() as client:
        reply = await client.ask("POST", "/echo", b"x" * 1001)
        assert (413, {"message": "TOO_BIG"}, False) == (reply.status, reply.json, reply.closes)
        assert b"x" * 1000 == (await client.ask("POST", "/echo", b"x" * 1000)).body


@in_loop
async def test_a_body_that_turns_out_to_be_too_big() -> None:
    """In chunks, too."""
    async with connected() as client:
        client.send(b"POST /echo HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n")
        client.send(b"3e8\r\n%b\r\n1\r\ny\r\n0\r\n\r\n" % (b"x" * 1000))
        reply = await client.reply()
        assert (413, {"message": "TOO_BIG"}, False) == (reply.status, reply.json, reply.closes)
        assert 200 == (await client.ask("GET", "/text")).status


@pytest.mark.parametrize("size", [100_000, MOST_UNREAD])
def test_a_body_that_nobody_reads(size: int) -> None:
    """If it is short it is read off, and the connection is kept."""

    @in_loop
    async def run() -> None:
        async with connected() as client:
            reply = await client.ask("POST", "/nothing", b"x" * size)
            assert (200, False) == (reply.status, reply.closes)
            assert 200 == (await client.ask("GET", "/text")).status

    run()


@pytest.mark.parametrize(
    "head",
    [
        b"Content-Length: 1000000000\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n100000\r\n",
    ],
)
def test_a_long_body_that_nobody_reads(head: bytes) -> None:
    """The connection is closed behind the answer, which the client still gets."""

    @in_loop
    async def run() -> None:
        async with connected() as client:
            client.send(b"POST /nothing HTTP/1.1\r\n" + HOST + head + b"x" * (2 * MOST_UNREAD))
            reply = await client.reply()
            assert (200, True) == (reply.status, reply.closes)

    run()


@in_loop
async def test_a_body_that_is_cut_short() -> None:
    """It is told as an internal error, as by nsqd; an endpoint can take what there is."""
    for path, status, body in (
        ("/echo", 500, b'{"message":"INTERNAL_ERROR"}'),
        ("/part", 200, b"tea"),
        ("/nothing", 200, b""),
    ):
        async with connected() as client:
            head = f"POST {path} HTTP/1.1\r\nHost: nsqd\r\nContent-Length: 9\r\n\r\ntea"
            client.send(head.encode())
            client.writer.write_eof()
            reply = await client.reply()
            assert (status, body, True) == (reply.status, reply.body, reply.closes)
            assert b"" == await client.rest()


@in_loop
async def test_a_body_that_is_cut_short_while_it_is_read() -> None:
    """It is no other."""
    async with connected() as client:
        client.send(b"POST /part HTTP/1.1\r\n" + HOST + b"Content-Length: 9\r\n\r\ntea")
        await turns(20)
        client.writer.write_eof()
        reply = await client.reply()
        assert (200, b"tea") == (reply.status, reply.body)
        assert b"" == await client.rest()


@in_loop
async def test_a_bad_chunk() -> None:
    """It is an internal error, as by nsqd, and the end of the connection."""
    async with connected() as client:
        client.send(b"POST /echo HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n")
        client.send(b"3\r\ntea\r\n")
        await turns(20)
        client.send(b"zz\r\n")
        reply = await client.reply()
        assert (500, {"message": "INTERNAL_ERROR"}, True) == (
            reply.status,
            reply.json,
            reply.closes,
        )


# 100 Continue


def asking(path: str, size: int) -> bytes:
    """Return the head of a request whose client waits for a word."""
    text = f"POST {path} HTTP/1.1\r\nHost: nsqd\r\nContent-Length: {size}\r\n"
    return f"{text}Expect: 100-continue\r\n\r\n".encode()


@in_loop
async def test_a_client_is_told_to_go_on() -> None:
    """When its body is wanted."""
    async with connected() as client:
        client.send(asking("/echo", 3))
        assert 100 == (await client.reply()).status
        client.send(b"tea")
        reply = await client.reply()
        assert (200, b"tea", False) == (reply.status, reply.body, reply.closes)


@pytest.mark.parametrize(
    ("path", "size", "status"),
    [("/echo", 1001, 413), ("/none", 3, 404), ("/json", 3, 405), ("/nothing", 3, 200)],
)
def test_a_client_is_not_told_to_go_on(path: str, size: int, status: int) -> None:
    """Where its body is not wanted; it may send it or not, so the connection ends."""

    @in_loop
    async def run() -> None:
        async with connected() as client:
            client.send(asking(path, size))
            reply = await client.reply()
            assert (status, True) == (reply.status, reply.closes)

    run()


@in_loop
async def test_other_expectations() -> None:
    """An unknown one is refused, one without a body or of an old client is left alone."""
    async with connected() as client:
        assert 200 == (await client.ask("POST", "/echo", b"", "Expect: 100-continue\r\n")).status
        reply = await client.ask("POST", "/echo", b"tea", "Expect: tea\r\n")
        assert (417, b"", True) == (reply.status, reply.body, reply.closes)
    async with connected() as client:
        client.send(b"POST /echo HTTP/1.0\r\nExpect: tea\r\nContent-Length: 3\r\n\r\ntea")
        assert b"\r\n\r\ntea" in await client.rest()


@in_loop
async def test_a_client_that_is_gone_before_it_is_told_to_go_on() -> None:
    """It is told nothing."""
    endpoints = Endpoints()
    async with connected(endpoints=endpoints) as client:
        client.send(asking("/hold/echo", 3))
        await endpoints.held.wait()
        linger = struct.pack("ii", 1, 0)  # which makes it a reset
        made = client.writer.get_extra_info("socket")
        made.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        client.writer.transport.abort()
        await turns(20)
        endpoints.go_on.set()
        await turns(20)
        assert b"" == await client.rest()


# Connections


@in_loop
async def test_requests_one_behind_the_other() -> None:
    """They are answered in order, also if the client has sent them all at once and ended."""
    async with connected() as client:
        client.send(b"POST /echo HTTP/1.1\r\n" + HOST + b"Content-Length: 3\r\n\r\nteaGET /js")
        assert b"tea" == (await client.reply()).body
        client.send(b"on HTTP/1.1\r\n" + HOST + b"\r\n")
        assert 200 == (await client.reply()).status
        client.send(b"GET /text HTTP/1.1\r\n" + HOST + b"\r\n")
        client.writer.write_eof()
        assert "OK" == (await client.reply()).text
        assert b"" == await client.rest()


@in_loop
async def test_old_clients() -> None:
    """HTTP/1.0 is answered, and the connection kept only if that is asked for."""
    async with connected() as client:
        client.send(b"GET /text HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
        assert "keep-alive" == (await client.reply()).headers["connection"]
        client.send(b"GET /text HTTP/1.0\r\n\r\n")
        assert "OK" == (await client.reply()).text
        assert b"" == await client.rest()


@in_loop
async def test_a_client_that_wants_to_end() -> None:
    """Its connection is closed behind the answer."""
    async with connected() as client:
        reply = await client.ask("GET", "/text", None, "Connection: close\r\n")
        assert (200, True) == (reply.status, reply.closes)
        assert b"" == await client.rest()


@in_loop
async def test_a_client_that_comes_and_goes() -> None:
    """One that says nothing, and one that is idle, are let go at once."""
    async with serving() as web:
        assert web.address is not None
        async with Client(web.address) as silent:
            silent.writer.write_eof()
            assert b"" == await silent.rest()
        async with Client(web.address) as idle:
            await idle.ask("GET", "/text")
            idle.writer.write_eof()
            assert b"" == await idle.rest()


@pytest.mark.parametrize(
    ("request_", "status", "text"),
    [
        (
            b"GET /text HTTP/1.1\r\n\r\n",
            400,
            b"400 Bad Request: missing required Host header",
        ),
        (b"garbage\r\n\r\n", 400, b"400 Bad Request"),
        (b"GET /\r\n\r\n", 400, b"400 Bad Request"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400, b"400 Bad Request"),
        (
            b"GET /text HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: gzip\r\n\r\n",
            501,
            b"Unsupported transfer encoding",
        ),
        (
            b"GET /text HTTP/1.1\r\n" + HOST + b"X: " + b"x" * 20_000 + b"\r\n\r\n",
            431,
            b"431 Request Header Fields Too Large",
        ),
        (
            b"GET /" + b"x" * 20_000 + b" HTTP/1.1\r\n" + HOST + b"\r\n",
            431,
            b"431 Request Header Fields Too Large",
        ),
    ],
)
def test_what_is_no_request(
    request_: bytes, status: int, text: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """It is answered with a text, the connection closed, and nothing logged but for debugging."""

    @in_loop
    async def run() -> None:
        async with connected() as client:
            client.send(request_)
            reply = await client.reply()
            assert (status, text, TEXT) == (reply.status, reply.body, reply.headers["content-type"])
            assert not {"server", "x-nsq-content-type"} & set(reply.headers)
            assert b"" == await client.rest()

    with caplog.at_level(logging.DEBUG, "nsqlite"):
        run()
    assert [] == [record for record in caplog.records if record.levelno > logging.INFO]


@in_loop
async def test_a_client_of_aiohttp() -> None:
    """It keeps its connection."""
    async with serving() as web, aiohttp.ClientSession(f"http://{web.address}") as session:
        for _ in range(3):
            async with session.post("/echo", data=b"tea") as reply:
                assert b"tea" == await reply.read()
        async with session.get("/TEXT/", allow_redirects=True) as reply:
            assert (200, "/text") == (reply.status, reply.url.path)


@in_loop
async def test_there_may_be_too_many_connections() -> None:
    """Those beyond the limit are closed at once; there is room again when one ends."""
    async with serving(max_connections=1) as web:
        assert web.address is not None
        async with Client(web.address) as first:
            await first.ask("GET", "/text")
            async with Client(web.address) as second:
                assert b"" == await second.rest()
            await first.ask("GET", "/text", None, "Connection: close\r\n")
            assert b"" == await first.rest()
        await turns()
        async with Client(web.address) as third:
            assert 200 == (await third.ask("GET", "/text")).status


# Patience


@asynccontextmanager
async def watched() -> AsyncIterator[tuple[Client, ManualClock, Endpoints]]:
    """Have a server whose patience is measured by hand, and a client of it."""
    clock = ManualClock()
    endpoints = Endpoints()
    async with connected(clock=clock, endpoints=endpoints) as client:
        yield client, clock, endpoints


@in_loop
async def test_a_client_that_says_nothing() -> None:
    """It is given up at the second look."""
    async with watched() as (client, clock, _):
        await turns(20)
        clock.advance(15)
        client.send(b"GET /te")
        await turns(20)
        clock.advance(14.9)
        client.send(b"xt HTTP/1.1\r\n" + HOST + b"\r\n")
        assert 200 == (await client.reply()).status
    async with watched() as (client, clock, _):
        await turns(20)
        clock.advance(30)
        assert b"" == await client.rest()


@in_loop
async def test_a_client_that_sends_the_head_of_a_request_bit_by_bit() -> None:
    """Bits do not count; with the first request, and with a later one."""
    for begin in (b"", b"GET /text HTTP/1.1\r\n" + HOST + b"\r\n"):
        async with watched() as (client, clock, _):
            client.send(begin)
            if begin:
                await client.reply()
            for _ in range(30):
                client.send(b"G")
                await turns(5)
                clock.advance(1)
            assert b"" == await client.rest()


@in_loop
async def test_a_client_whose_body_comes_slowly() -> None:
    """It has to bring so much between two looks."""
    async with watched() as (client, clock, _):
        client.send(large(4 * SLOWEST))
        for _ in range(4):
            client.send(b"x" * SLOWEST)
            await arrival(client)
            clock.advance(15)
        assert {"size": 4 * SLOWEST} == (await client.reply()).json


@in_loop
async def test_a_client_whose_body_comes_too_slowly() -> None:
    """It is given up."""
    async with watched() as (client, clock, _):
        client.send(large(4 * SLOWEST) + b"x" * SLOWEST)
        await arrival(client)
        clock.advance(15)
        client.send(b"x" * (SLOWEST - 1))
        await arrival(client)
        clock.advance(15)
        assert b"" == await client.rest()


def large(size: int) -> bytes:
    """Return the head of a request with so large a body."""
    return f"POST /large HTTP/1.1\r\nHost: nsqd\r\nContent-Length: {size}\r\n\r\n".encode()


async def arrival(client: Client) -> None:
    """Return when what was sent has come."""
    await client.writer.drain()
    await turns(50)


@in_loop
async def test_a_client_that_is_idle_or_waits() -> None:
    """It is not given up: it has done what it had to."""
    async with watched() as (client, clock, endpoints):
        await client.ask("GET", "/text")
        clock.advance(3000)
        client.send(b"POST /hold HTTP/1.1\r\n" + HOST + b"\r\n")
        await endpoints.held.wait()
        clock.advance(3000)
        endpoints.go_on.set()
        assert "held" == (await client.reply()).text


@in_loop
async def test_a_client_that_ended_in_the_middle() -> None:
    """Half a head is waited for no longer than a second; what was asked is answered."""
    async with watched() as (client, clock, endpoints):
        client.send(b"GET /te")
        client.writer.write_eof()
        await turns(20)
        clock.advance(1)
        assert b"" == await client.rest()
    async with watched() as (client, clock, endpoints):
        client.send(b"POST /hold HTTP/1.1\r\n" + HOST + b"\r\n")
        await endpoints.held.wait()
        client.writer.write_eof()
        await turns(20)
        clock.advance(100)
        endpoints.go_on.set()
        assert "held" == (await client.reply()).text
        assert b"" == await client.rest()


# Refusing all


@in_loop
async def test_all_can_be_refused() -> None:
    """Also what is not there, and what has a body."""
    async with connected(refuse=lambda: b'{"message": "NO"}') as client:
        for method, path, body in (("GET", "/none", None), ("POST", "/echo", b"tea")):
            reply = await client.ask(method, path, body)
            assert (403, b'{"message": "NO"}', JSON) == (
                reply.status,
                reply.body,
                reply.headers["content-type"],
            )
            assert "x-nsq-content-type" in reply.headers


def test_what_breaks_elsewhere_is_not_told_either(caplog: pytest.LogCaptureFixture) -> None:
    """It is logged, and the connection ends."""

    @in_loop
    async def run() -> None:
        async with connected(refuse=broken) as client:
            reply = await client.ask("GET", "/text")
            assert (500, {"message": "INTERNAL_ERROR"}, True) == (
                reply.status,
                reply.json,
                reply.closes,
            )

    def broken() -> bytes:
        raise RuntimeError("/secret/path")

    run()
    assert ["HTTP: a request has failed"] == [
        one.getMessage() for one in caplog.records if one.levelno >= logging.WARNING
    ]


# Its life


@in_loop
async def test_listening_and_serving_are_two_steps() -> None:
    """Who connects between them waits; each step made twice is made once."""
    web = Web("127.0.0.1:0", Endpoints().all(), SYSTEM)
    assert (None, 0) == (web.address, web.port)
    web.bind()
    web.bind()
    assert web.address == f"127.0.0.1:{web.port}"
    async with Client(web.address) as client:
        client.send(b"GET /text HTTP/1.1\r\n" + HOST + b"\r\n")
        await turns(20)
        await web.start()
        await web.start()
        assert "OK" == (await client.reply()).text
        await web.stop()
        await web.stop()
        assert b"" == await client.rest()
    assert web.address is None


@in_loop
async def test_what_listens_only_is_closed_too() -> None:
    """Nobody can connect after that; and it can be started again."""
    web = Web("127.0.0.1:0", Endpoints().all(), SYSTEM)
    web.bind()
    where = ("127.0.0.1", web.port)
    await web.stop()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(where, PATIENCE)
    await web.start()
    assert web.port
    await web.stop()


@in_loop
async def test_an_address_that_is_taken() -> None:
    """It cannot be had, and nothing is open."""
    async with serving() as web:
        assert web.address is not None
        other = Web(web.address, Endpoints().all(), SYSTEM)
        with pytest.raises(nsqlite.CannotListen, match="address already in use"):
            await other.start()
        assert other.address is None
        await other.stop()


@in_loop
async def test_a_start_that_is_cancelled() -> None:
    """It leaves nothing open."""
    web = Web("127.0.0.1:0", Endpoints().all(), SYSTEM)
    web.bind()
    where = ("127.0.0.1", web.port)
    starting = asyncio.create_task(web.start())
    await asyncio.sleep(0)
    assert starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert web.address is None
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(where, PATIENCE)


@in_loop
async def test_the_end_waits_for_nobody() -> None:
    """Idle and silent clients, requests under way, half bodies and unread answers are cut off."""
    before = asyncio.all_tasks()
    endpoints = Endpoints()
    web = Web("127.0.0.1:0", endpoints.all(), SYSTEM)
    await web.start()
    assert web.address is not None
    clients = [Client(web.address) for _ in range(6)]
    for client in clients:
        await client.__aenter__()
    idle, held, half, unread, much, _ = clients
    await idle.ask("GET", "/text")
    held.send(b"POST /hold HTTP/1.1\r\n" + HOST + b"\r\n")
    half.send(b"POST /echo HTTP/1.1\r\n" + HOST + b"Content-Length: 9\r\n\r\ntea")
    unread.send(b"POST /nothing HTTP/1.1\r\n" + HOST + b"Content-Length: 999999\r\n\r\n")
    much.send(b"GET /much HTTP/1.1\r\n" + HOST + b"\r\n")
    await endpoints.held.wait()
    await turns(20)
    begun = SYSTEM.monotonic_ns()
    await web.stop()
    took = SYSTEM.monotonic_ns() - begun
    for client in clients:
        client.writer.transport.abort()
    await turns(20)
    assert before == asyncio.all_tasks()
    assert took < 1_000_000_000  # some hundredths, but the machine may be busy


@in_loop
async def test_a_unix_socket(tmp_path: Path) -> None:
    """It has no port, and goes with the server."""
    path = tmp_path / "http.sock"
    async with serving(str(path)) as web:
        assert (str(path), -1) == (web.address, web.port)
        async with Client(str(path)) as client:
            assert "OK" == (await client.ask("GET", "/text")).text
    assert not path.exists()


@in_loop
async def test_tls() -> None:
    """The same through TLS; a client that ends is let go, one that speaks none cannot come in."""
    authority = trustme.CA()
    here, there = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    authority.issue_cert("127.0.0.1").configure_cert(here)
    authority.configure_trust(there)
    async with serving(tls=here) as web:
        assert web.address is not None
        assert "HTTPS" == web.name
        async with Client(web.address, there) as client:
            assert "OK" == (await client.ask("GET", "/text")).text
        async with Client(web.address) as plain:
            plain.send(b"GET /text HTTP/1.1\r\n" + HOST + b"\r\n")
            assert b"HTTP" not in await plain.rest()
