"""HTTP as NSQ's daemons speak it, on aiohttp: what all their endpoints have in common.

The rule: an answer tells one of NSQ's codes, and never a stack, a file or what an exception said;
and of a body no more is held in memory than an endpoint takes.

An endpoint returns what it has to say, or raises `Problem`:

    None         200, empty
    text, bytes  200, as it is
    Typed        200, as it is, under a content type of its own
    all else     200, as JSON
    Problem      its status, and `{"message":"CODE"}`

There is one route, behind which paths are told apart here, as nsqd's router does it: what methods a
path has, which other path was meant, and what is answered where there is none.

A client that asks for `100 Continue` gets it when the body is begun to be read; so what is refused
without a look at the body is refused before it is sent.

A client that is slow is given up: one that says nothing, that takes long to send the head of a
request, or whose body comes too slowly.  Each connection is looked at now and then, so that a
request pays nothing for that.

Next: server/http.py
"""

import asyncio
import html
import logging
import posixpath
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterable, Mapping
from enum import Enum
from functools import partial
from typing import Any, Final, NamedTuple
from urllib.parse import quote, unquote_to_bytes

from aiohttp import HttpVersion10, web
from aiohttp.http_exceptions import LineTooLong
from aiohttp.typedefs import Handler as RouteHandler
from aiohttp.typedefs import Middleware

from nsqlite.clock import Clock
from nsqlite.options import SECOND
from nsqlite.server.alarms import LoopAlarm
from nsqlite.server.listener import BACKLOG, address_of, listen, port_of
from nsqlite.wire.go import compact_json, duration_text

log: Final = logging.getLogger("nsqlite")

CONTENT_TYPE: Final = "Content-Type"
TEXT: Final = {CONTENT_TYPE: "text/plain; charset=utf-8"}
JSON: Final = {CONTENT_TYPE: "application/json; charset=utf-8"}
NSQ: Final = {"X-Nsq-Content-Type": "nsq; version=1.0"}
"""What is said in the head of an answer."""

PATIENCE: Final = 15 * SECOND
"""How often a connection is looked at; what is as it was at the last look is given up."""

IDLE: Final = 3600.0
"""Seconds that a client may be idle between two requests; nsqd lets it be for ever."""

SLOWEST: Final = 1 << 16
"""Bytes of a body that have to come between two looks, unless it ends."""

MOST_UNREAD: Final = 1 << 18
"""Bytes of a body that are read off, so that the connection can be kept, if nobody has read it."""

LINGER: Final = 2.0
"""Seconds for which what a client still sends is read off before its connection is closed."""

HANDSHAKE: Final = 5.0
"""Seconds that a TLS handshake may take."""

LONGEST_LINE: Final = 1 << 14
"""Bytes of a request's first line, or of a header."""

GRACE: Final = 0.01
"""Seconds that requests have when the server ends."""

HEX: Final = frozenset("0123456789abcdefABCDEF")


class End(Enum):
    """How a body has ended."""

    WHOLE = "whole"
    TOO_LONG = "too long"
    BROKEN = "broken"


class Problem(Exception):
    """What an endpoint answers if it cannot do what was asked for.

    Attributes:
        status: HTTP's.
        code: NSQ's, or a text.
    """

    def __init__(self, status: int, code: str) -> None:
        super().__init__(status, code)
        self.status = status
        self.code = code


class CutShort(Exception):
    """A body ended before its end, or was no body.

    Attributes:
        part: what came of it.
    """

    def __init__(self, part: bytes) -> None:
        super().__init__(part)
        self.part = part


class Typed(NamedTuple):
    """An answer with a content type of its own."""

    data: bytes
    content_type: str


class Call:
    """A request, for its endpoint.

    Attributes:
        request: as aiohttp has it.
        value: what stands in the path for a parameter; empty without one.
    """

    __slots__ = ("_continues", "_query", "request", "value")

    def __init__(self, request: web.BaseRequest, value: str = "") -> None:
        """Begin."""
        self.request: Final = request
        self.value: Final = value
        self._query: dict[str, str] | None = None
        self._continues = "Expect" in request.headers and request.content_length != 0

    @property
    def query(self) -> Mapping[str, str]:
        """The parameters; of one that is given twice the first value.

        Raises:
            Problem: they are none.
        """
        if self._query is None:
            self._query = query_of(self.request.rel_url.raw_query_string)
        return self._query

    @property
    def unasked(self) -> bool:
        """Whether the client waits for a word before it sends the body."""
        return self._continues

    async def body(self, limit: int, code: str) -> bytes:
        """Return the body.

        Args:
            limit: bytes that it may have.
            code: what is answered if it has more.

        Raises:
            Problem: it has more; it is not read to its end then.
            CutShort: it ended too early.
        """
        request = self.request
        size = request.content_length
        if size is not None and size > limit:
            raise Problem(413, code)
        if self._continues:
            self._continues = False
            if request.transport is not None:
                request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        parts, end = await read(request, limit)
        if end is End.TOO_LONG:
            raise Problem(413, code)
        data = parts[0] if len(parts) == 1 else b"".join(parts)
        if end is End.BROKEN:
            raise CutShort(data)
        return data


Handler = Callable[[Call], Awaitable[Any]]


class Endpoint(NamedTuple):
    """What is done under a path.

    Attributes:
        method: how it is asked for.
        path: its path; ``:name`` as its last part stands for any value.
        call: what is done.
        plain: it is none of NSQ's API: its errors are texts, and its answers lack NSQ's header.
    """

    method: str
    path: str
    call: Handler
    plain: bool = False


class Answer(web.Response):
    """An answer that does not say what the server is made of."""

    async def _prepare_headers(self) -> None:
        """Add the headers that every answer has, but one."""
        await super()._prepare_headers()
        self.headers.popall("Server", None)


class Table:
    """Paths, their methods, and what is done.

    A folder with a parameter is written in small letters.
    """

    def __init__(self, endpoints: Iterable[Endpoint]) -> None:
        """Take note of endpoints."""
        self._paths: Final[dict[str, dict[str, Endpoint]]] = {}
        for endpoint in endpoints:
            self._paths.setdefault(endpoint.path, {})[endpoint.method] = endpoint
        self._folded: Final = {path.lower(): path for path in self._paths}

    def find(self, path: str) -> tuple[Mapping[str, Endpoint], str]:
        """Return what is under a path, by methods, and the value of its parameter."""
        found = self._paths.get(path)
        if found is not None:
            return found, ""
        folder, _, value = path.rpartition("/")
        parameter = self._parameter(folder) if value else ""
        return (self._paths[parameter], value) if parameter else ({}, "")

    def _parameter(self, folder: str) -> str:
        """Return the path with a parameter that stands in a folder; empty if there is none."""
        begin = f"{folder}/:"
        return next((path for path in self._paths if path.startswith(begin)), "")

    def meant(self, method: str, path: str) -> str:
        """Return the path that was meant by one that differs in a slash or in case.

        Returns:
            Empty if there is none that takes the method.
        """
        clean = posixpath.normpath(f"/{path.lstrip('/')}")
        for fixed in (clean, f"{clean}/"):
            known = self._folded.get(fixed.lower(), "")
            if known and method in self._paths[known]:
                return known
        folder, _, value = clean.rpartition("/")
        parameter = self._parameter(folder.lower())
        if value and method in self._paths.get(parameter, ()):
            return f"{parameter.rpartition('/')[0]}/{value}"
        return ""


class Web:
    """A server with one address, from `start` until `stop`; a service of a node.

    Attributes:
        name: what a log calls it.
        clock: what the patience with slow clients is measured by.
        tls: for HTTPS; None for HTTP.
    """

    def __init__(
        self,
        address: str,
        endpoints: Iterable[Endpoint],
        clock: Clock,
        *,
        tls: ssl.SSLContext | None = None,
        refuse: Callable[[], bytes | None] = lambda: None,
        max_connections: int = 0,
    ) -> None:
        """Make it; nothing is open yet.

        Args:
            address: host and port, or the path of a unix socket.
            endpoints: what is under which path.
            clock: what the patience with slow clients is measured by.
            tls: for HTTPS.
            refuse: returns the JSON with which any request is forbidden, if it is.
            max_connections: how many there may be at once, 0 for any number; those beyond it are
                closed at once.
        """
        self.name: Final = "HTTP" if tls is None else "HTTPS"
        self.clock: Final = clock
        self._given: Final = address
        self._table: Final = Table(endpoints)
        self.tls: Final = tls
        self._refuse: Final = refuse
        self._most: Final = max_connections
        self._socket: socket.socket | None = None
        self._server: asyncio.Server | None = None
        self._runner: web.AppRunner | None = None
        self._connections: Final[dict[Connection, None]] = {}

    @property
    def address(self) -> str | None:
        """Where it listens, None where it does not."""
        return None if self._socket is None else address_of(self._socket)

    @property
    def port(self) -> int:
        """Its port: -1 for a unix socket, 0 where it does not listen."""
        return 0 if self._socket is None else port_of(self._socket)

    def bind(self) -> None:
        """Listen: who connects waits until `start`.  A second call does nothing.

        Raises:
            CannotListen: the address cannot be had.
        """
        if self._socket is None:
            self._socket = listen(self._given)
            log.info("%s: listening on %s", self.name, self.address)

    async def start(self) -> None:
        """Serve whoever connects.  A second call does nothing.

        Raises:
            CannotListen: the address cannot be had; nothing is open then.
        """
        if self._runner is None:
            self.bind()
            try:
                await self._serve()
            except BaseException:
                await self.stop()
                raise

    async def _serve(self) -> None:
        assert self._socket is not None
        loop = asyncio.get_running_loop()
        app = web.Application(middlewares=[self._middleware()])
        app.router.add_route("*", "/{path:.*}", self._handle, expect_handler=_expect)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=GRACE)
        await self._runner.setup()
        assert self._runner.server is not None
        self._server = await loop.create_server(
            partial(Connection, self, self._runner.server, loop),
            sock=self._socket,
            backlog=BACKLOG,
            ssl=self.tls,
            ssl_handshake_timeout=None if self.tls is None else HANDSHAKE,
            start_serving=False,  # or a start that is cancelled could not stop it
        )
        await self._server.start_serving()

    async def stop(self) -> None:
        """Close all; requests that are being answered are not waited for."""
        made, self._socket = self._socket, None
        if made is None:
            return
        log.info("%s: closing %s", self.name, address_of(made))
        server, self._server = self._server, None
        if server is not None:
            server.close()
        made.close()
        for connection in list(self._connections):
            connection.drop_unread()
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()  # which ends all connections and their requests

    # For the connections

    def opened(self, connection: "Connection") -> bool:
        """Take note of a connection; return False if there are too many."""
        if 0 < self._most <= len(self._connections):
            return False
        self._connections[connection] = None
        return True

    def closed(self, connection: "Connection") -> None:
        """Take note that a connection is over."""
        self._connections.pop(connection, None)

    # Requests

    def _middleware(self) -> Middleware:
        """Return what has everything answered, also what no route can match, as ``OPTIONS *``."""

        @web.middleware
        async def answer(
            request: web.Request,
            handler: RouteHandler,  # noqa: ARG001 - aiohttp's
        ) -> web.StreamResponse:
            return await self._handle(request)

        return answer

    async def _handle(self, request: web.Request) -> web.Response:
        """Answer a request."""
        connection = connection_of(request)
        connection.begin()
        begun = self.clock.monotonic_ns() if log.isEnabledFor(logging.DEBUG) else 0
        try:
            answer = await self._answer(request)
        finally:
            connection.rest()
        if begun:
            took = duration_text(self.clock.monotonic_ns() - begun)
            line = (answer.status, request.method, request.raw_path, request.remote, took)
            log.debug("%d %s %s (%s) %s", *line)
        return answer

    async def _answer(self, request: web.Request) -> Answer:
        """Return what is answered."""
        refusal = self._refuse()
        if refusal is not None:
            return await _settled(
                Call(request), Answer(body=refusal, status=403, headers=JSON | NSQ)
            )
        if request.version < HttpVersion10:
            answer = Answer(body=b"400 Bad Request", status=400, headers=TEXT)
            answer.force_close()
            return answer
        path = request.path
        methods, value = self._table.find(path)
        endpoint = methods.get(request.method)
        call = Call(request, value)
        if endpoint is None:
            return await _settled(call, self._elsewhere(request, path, methods))
        try:
            answer = said(await endpoint.call(call), plain=endpoint.plain)
        except Problem as problem:
            answer = told(problem, plain=endpoint.plain)
        except CutShort:
            answer = told(Problem(500, "INTERNAL_ERROR"))
        except Exception:
            log.exception("%s: %s %s failed", self.name, request.method, path)
            answer = told(Problem(500, "INTERNAL_ERROR"))
        return await _settled(call, answer)

    def _elsewhere(
        self, request: web.Request, path: str, methods: Mapping[str, Endpoint]
    ) -> Answer:
        """Return what is answered where nothing is to be done."""
        method = request.method
        if method == "OPTIONS" and path == "*":
            return Answer()
        meant = self._table.meant(method, path)
        if meant:
            return _redirect(request, meant)
        if not methods or method == "CONNECT":
            return told(Problem(404, "NOT_FOUND"))
        allow = {"Allow": ", ".join(sorted({*methods, "OPTIONS"}))}
        if method == "OPTIONS":
            return Answer(headers=allow)
        answer = told(Problem(405, "METHOD_NOT_ALLOWED"))
        answer.headers.update(allow)
        return answer


class Connection(web.RequestHandler):
    """A client's connection, which is closed if it takes too long.

    Attributes:
        reading: the body that is waited for; None if none is.
        broken: a body was not whole, so nothing can come behind it.
    """

    __slots__ = (
        "_alarm",
        "_begun",
        "_busy",
        "_ended",
        "_heard",
        "_known",
        "_last",
        "_web",
        "broken",
        "reading",
    )

    def __init__(self, web_: Web, server: web.Server, loop: asyncio.AbstractEventLoop) -> None:
        """Make it; for `loop.create_server`."""
        super().__init__(
            server,
            loop=loop,
            logger=log,
            access_log=None,  # type: ignore[arg-type]  # as aiohttp itself has it
            auto_decompress=False,
            keepalive_timeout=IDLE,
            lingering_time=LINGER,
            max_line_size=LONGEST_LINE,
            max_field_size=LONGEST_LINE,
        )
        self._web: Final = web_
        self._alarm: LoopAlarm | None = None
        self._begun = 0  # requests
        self._busy = False  # one is being answered
        self._heard = 0  # pieces that came
        self._known = 0  # how many of them belong to requests that are answered
        self._ended = False  # no more will come
        self._last: tuple[int, int] | None = None  # what was waited for at the last look
        self.reading: Any = None
        self.broken: bool = False

    # From the loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin, if the server has room."""
        super().connection_made(transport)
        if self._web.opened(self):
            self._watch()
        else:
            self.force_close()

    def connection_lost(self, exc: BaseException | None) -> None:
        """End."""
        super().connection_lost(exc)
        self._web.closed(self)
        self._rest()

    def data_received(self, data: bytes) -> None:
        """Take what came."""
        self._heard += 1
        super().data_received(data)
        if self.reading is not None:
            self._cut_short()

    def eof_received(self) -> bool:  # type: ignore[override]  # asyncio looks at what is returned
        """Answer what was asked for, and end; a body that is not whole has ended."""
        if self._web.tls is not None or not (self._busy or self._heard != self._known):
            return False
        self._ended = True
        self.close()
        self._cut_short()
        self._rest()
        self._watch(SECOND)
        return True

    # From the server

    def begin(self) -> None:
        """Take note that a request is being answered."""
        self._begun += 1
        self._busy = True

    def rest(self) -> None:
        """Take note that it is answered."""
        self._busy = False
        self._known = self._heard

    def await_body(self, content: Any) -> None:
        """Take note that a body is waited for."""
        self.reading = content
        self._cut_short()

    def _cut_short(self) -> None:
        """End a body of which no more can come.

        What is behind it cannot have been read; so if something has, it is what aiohttp answers to
        a bad chunk, of which it does not tell who reads the body.
        """
        content = self.reading
        if content is not None and (self._ended or self._messages) and not content.is_eof():
            self.broken = True
            content.feed_eof()

    def drop_unread(self) -> None:
        """Close at once if the client does not read."""
        transport = self.transport
        if transport is not None and transport.get_write_buffer_size():
            transport.abort()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 400,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Return what is answered to no request, or where this server has failed, and end."""
        if status == 400:  # noqa: PLR2004 - HTTP's number, as the others below
            log.debug("%s: a bad request from %s: %s", self._web.name, request.remote, message)
            status, text = _refusal(exc, message or "")
            answer = Answer(body=text, status=status, headers=TEXT)
        else:
            log.error("%s: a request has failed", self._web.name, exc_info=exc)
            answer = told(Problem(500, "INTERNAL_ERROR"))
        answer.force_close()
        return answer

    # Patience

    def _watch(self, patience: int = PATIENCE) -> None:
        clock = self._web.clock
        moment = clock.monotonic_ns() + patience
        self._alarm = LoopAlarm(clock, self._loop, moment, self._look)

    def _rest(self) -> None:
        """Look no more."""
        if self._alarm is not None:
            self._alarm.cancel()

    def _look(self) -> None:
        """Give up a client that has brought nothing since the last look, or is gone."""
        awaited = self._awaited()
        if awaited is not None and (awaited == self._last or self._ended):
            log.debug("%s: a client was too slow", self._web.name)
            self.force_close()
            return
        self._last = awaited
        self._watch()

    def _awaited(self) -> tuple[int, int] | None:
        """Return for what is waited, by numbers that change as it comes; None for nothing."""
        if self.reading is not None:
            return self._begun, self.reading.total_bytes // SLOWEST
        if self._busy or (self._begun and self._heard == self._known):
            return None  # the client waits for us, or is idle
        return self._begun, -1


def connection_of(request: web.BaseRequest) -> Connection:
    """Return the connection over which a request came."""
    connection: Any = request.protocol
    return connection  # type: ignore[no-any-return]  # a server has no others


async def read(request: web.BaseRequest, limit: int) -> tuple[list[bytes], End]:
    """Return a body as it comes, and how it has ended; the connection is watched meanwhile.

    Args:
        request: whose body it is.
        limit: bytes after which no more is read.
    """
    connection = connection_of(request)
    content = request.content
    parts: list[bytes] = []
    connection.await_body(content)
    try:
        if not await _read_parts(content, limit, parts):
            return parts, End.TOO_LONG
    except (web.RequestPayloadError, OSError):
        connection.broken = True
        content.feed_eof()  # or aiohttp would read on, and log what it finds
    finally:
        connection.reading = None
    return parts, End.BROKEN if connection.broken else End.WHOLE


async def _read_parts(content: Any, limit: int, parts: list[bytes]) -> bool:
    """Read a body to its end; return False if it is longer than the limit."""
    while part := await content.readany():
        limit -= len(part)
        if limit < 0:
            return False
        parts.append(part)
    return True


async def _expect(request: web.Request) -> web.StreamResponse | None:
    """Refuse what a client expects if it is not known; `Call.body` says that it may go on."""
    if request.version >= (1, 1) and request.headers["Expect"].lower() != "100-continue":
        answer = Answer(status=417)
        answer.force_close()
        return answer
    return None


async def _settled(call: Call, answer: Answer) -> Answer:
    """Read off what nobody has read of a body, or have the connection closed behind the answer."""
    request = call.request
    content = request.content
    if content.at_eof():
        if connection_of(request).broken:
            answer.force_close()
        return answer
    size = request.content_length
    if call.unasked or (size is not None and size - content.total_bytes > MOST_UNREAD):
        answer.force_close()
        return answer
    _, end = await read(request, MOST_UNREAD)
    if end is not End.WHOLE:
        answer.force_close()
    return answer


def said(result: Any, *, plain: bool = False) -> Answer:
    """Return what an endpoint has to say as an answer."""
    headers = {} if plain else NSQ
    if result is None:
        return Answer(headers=headers)
    if isinstance(result, Typed):
        return Answer(body=result.data, headers=headers | {CONTENT_TYPE: result.content_type})
    if isinstance(result, str | bytes):
        data = result if isinstance(result, bytes) else result.encode()
        return Answer(body=data, headers=headers | TEXT if data else headers)
    return Answer(body=compact_json(result), headers=headers | JSON)


def told(problem: Problem, *, plain: bool = False) -> Answer:
    """Return a problem as an answer."""
    if plain:
        return Answer(body=problem.code.encode(), status=problem.status, headers=TEXT)
    body = compact_json({"message": problem.code})
    return Answer(body=body, status=problem.status, headers=NSQ | JSON)


def _redirect(request: web.Request, path: str) -> Answer:
    """Return where else a request should go."""
    where = quote(path)
    query = request.rel_url.raw_query_string
    if query:
        where = f"{where}?{query}"
    if request.method != "GET":
        return Answer(status=307, headers={"Location": where})
    body = f'<a href="{html.escape(where)}">Moved Permanently</a>.\n\n'
    headers = {"Location": where, CONTENT_TYPE: "text/html; charset=utf-8"}
    return Answer(body=body.encode(), status=301, headers=headers)


def _refusal(error: BaseException | None, message: str) -> tuple[int, bytes]:
    """Return the status and text for what is no request, as Go's server has them."""
    if isinstance(error, LineTooLong):
        return 431, b"431 Request Header Fields Too Large"
    if "Transfer-Encoding" in message:
        return 501, b"Unsupported transfer encoding"
    if "Host" in message:
        return 400, b"400 Bad Request: missing required Host header"
    return 400, b"400 Bad Request"


def query_of(text: str) -> dict[str, str]:
    """Return the first value of each parameter of a query.

    Raises:
        Problem: it is none.
    """
    found: dict[str, str] = {}
    for part in text.split("&"):
        if part:
            name, _, value = part.partition("=")
            if "%" in part or "+" in part or ";" in part:
                name, value = _unescaped(name), _unescaped(value)
            found.setdefault(name, value)
    return found


def _unescaped(text: str) -> str:
    """Return a part of a query as it was meant.

    Raises:
        Problem: it is not escaped as it must be.
    """
    pieces = text.split("%")[1:]
    if ";" in text or not all(len(one) > 1 and HEX.issuperset(one[:2]) for one in pieces):
        raise Problem(400, "INVALID_REQUEST")
    return unquote_to_bytes(text.replace("+", " ")).decode("utf-8", "surrogateescape")
