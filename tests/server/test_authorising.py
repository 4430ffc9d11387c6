"""AUTH on real connections: what is asked, when, and what may be done then (NSQ wire §4, §8)."""

import asyncio
import gc
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import pytest
from aio.loops import turns, until
from aiohttp import web
from helpers import PATIENCE
from rawclient import Encoded

from nsqlite.server import NSQD, NSQDOptions
from nsqlite.server.auth import AuthClient, AuthFailed
from nsqlite.store.sqlite import SQLite
from nsqlite.wire.authorisation import Authorisations
from nsqlite.wire.commands import (
    Auth,
    Cls,
    Dpub,
    Fin,
    Identify,
    Mpub,
    Nop,
    Pub,
    Rdy,
    Req,
    Sub,
    Touch,
)
from nsqlite.wire.frames import MESSAGE, delivered
from server.wireclient import (
    OK,
    Authority,
    Client,
    Served,
    error,
    harmless,
    serving,
)

SECRET: Final = b"tea & <cake> \xff"

MAY_ALL: Final = {"topic": ".*", "channels": [".*"], "permissions": ["subscribe", "publish"]}

WAYS: Final = ["close", "reset", "half_close"]

ASKS: Final[list[Encoded]] = [
    Sub("t", "c"),
    Pub("t", [b"x"]),
    Mpub("t", [b"x"]),
    Dpub("t", 5, b"x"),
]

each_checked = pytest.mark.parametrize("command", ASKS, ids=lambda one: one.__class__.__name__)


def answer(*entries: dict[str, Any], ttl: int = 60, **more: Any) -> Authorisations:
    told = {"ttl": ttl, "identity": "shop", "authorizations": list(entries)} | more
    return Authorisations.parse(json.dumps(told).encode())


ALL: Final = answer(MAY_ALL)


class Asked:
    """An auth server by hand: it gives its answers in order, the last one again and again.

    Attributes:
        asked: what it was asked, each time.
        gate: it answers while this is set.
        given_up: how often nobody waited for the answer any more.
    """

    def __init__(self, *answers: Authorisations | Exception) -> None:
        self.answers = list(answers) or [ALL]
        self.asked: list[tuple[str, bool, str, bytes]] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.given_up = 0

    async def ask(
        self, remote_ip: str, *, tls: bool, common_name: str, secret: bytes
    ) -> Authorisations:
        self.asked.append((remote_ip, tls, common_name, secret))
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.given_up += 1
            raise
        found = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(found, Exception):
            raise found
        return found


@pytest.fixture(autouse=True)
def discreet(caplog: pytest.LogCaptureFixture) -> Any:
    """See to it that no log tells of a secret, nor of a fault."""
    caplog.set_level(logging.DEBUG)
    yield
    text = caplog.text + repr([one.__dict__ for one in caplog.records])
    for form in (SECRET.decode("latin-1"), "cake", "tea"):
        assert form not in text
    caplog.records[:] = [one for one in caplog.records if one.levelno > logging.DEBUG]
    assert harmless(caplog)


def run(main: Callable[[], Awaitable[None]]) -> None:
    async def whole() -> None:
        async with asyncio.timeout(3 * PATIENCE):
            await main()

    asyncio.run(whole())


async def authorised(served: Served, layers: str = "") -> Client:
    """Return a client that has told its secret."""
    client = await served.client(layers)
    await client.send(Auth(SECRET))
    kind, data = await client.frame()
    assert 0 == kind, data
    return client


# What AUTH itself answers


@pytest.mark.parametrize(
    ("sent", "text"),
    [
        (b"AUTH now\n\0\0\0\1x", "E_INVALID AUTH invalid number of parameters"),
        (b"AUTH \n\0\0\0\1x", "E_INVALID AUTH invalid number of parameters"),
        (b"AUTH\n\0\0\0", "E_BAD_BODY AUTH failed to read body size"),
        (b"AUTH\n\0\0\4\1x", "E_BAD_BODY AUTH body too big 1025 > 1024"),
        (b"AUTH\n\0\0\0\0", "E_BAD_BODY AUTH invalid body size 0"),
        (b"AUTH\n\xff\xff\xff\xff", "E_BAD_BODY AUTH invalid body size -1"),
        (b"AUTH\n\0\0\0\2x", "E_BAD_BODY AUTH failed to read body"),
    ],
)
def test_an_auth_that_is_none(sent: bytes, text: str) -> None:
    """It is refused before anybody is asked."""

    async def main() -> None:
        asked = Asked()
        async with serving(auth=asked, max_body_size=1024) as served:
            client = await served.raw()
            await client.send(sent)
            client.half_close()
            assert [error(text)] == await client.rest()
        assert [] == asked.asked

    run(main)


def test_auth_after_sub() -> None:
    """It comes before."""

    async def main() -> None:
        async with serving(auth=Asked()) as served:
            client = await authorised(served)
            await client.send(Sub("t", "c"), Auth(SECRET))
            assert [OK, error("E_INVALID cannot AUTH in current state")] == await client.rest()
        async with serving() as served:
            client = await served.raw()
            await client.send(Sub("t", "c"), Auth(SECRET))
            assert [OK, error("E_INVALID cannot AUTH in current state")] == await client.rest()

    run(main)


def test_auth_without_auth_servers() -> None:
    """It is refused, and what needs it elsewhere needs nothing."""

    async def main() -> None:
        async with serving() as served:
            client = await served.client()
            assert not client.reply["auth_required"]
            await client.send(Pub("t", [b"x"]), Auth(SECRET))
            assert [OK, error("E_AUTH_DISABLED AUTH disabled")] == await client.rest()

    run(main)


def test_the_answer() -> None:
    """It tells who the client is, and how many entries there are."""

    async def main() -> None:
        found = answer(MAY_ALL, MAY_ALL, identity="a & b", identity_url="http://who")
        asked = Asked(found)
        async with serving(auth=asked) as served:
            client = await served.client()
            assert client.reply["auth_required"]
            await client.send(Auth(SECRET))
            told = rb'{"identity":"a \u0026 b","identity_url":"http://who","permission_count":2}'
            assert (0, told) == await client.frame()
            stats = served.connection(client).stats()
            assert stats["authed"]
            assert ("a & b", "http://who") == (stats["auth_identity"], stats["auth_identity_url"])
        assert [("127.0.0.1", False, "", SECRET)] == asked.asked

    run(main)


def test_an_answer_that_names_nobody() -> None:
    """What it does not tell is not told of the client, either."""

    async def main() -> None:
        async with serving(auth=Asked(answer(MAY_ALL, identity=""))) as served:
            client = await authorised(served)
            stats = served.connection(client).stats()
            assert stats["authed"]
            assert not {"auth_identity", "auth_identity_url"} & set(stats)

    run(main)


def test_twice() -> None:
    """The second AUTH is refused, also one that was sent while the first was still asked for."""

    async def main() -> None:
        asked = Asked()
        async with serving(auth=asked) as served:
            client = await served.raw()
            await client.send(Auth(SECRET), Auth(SECRET))
            assert error("E_INVALID AUTH already set") == (await client.rest())[1]
        assert 1 == len(asked.asked)

    run(main)


def test_no_entries() -> None:
    """A client that may do nothing is told so."""

    async def main() -> None:
        async with serving(auth=Asked(answer())) as served:
            client = await served.raw()
            await client.send(Auth(SECRET), Nop(), Pub("t", [b"x"]))
            text = "E_UNAUTHORIZED AUTH no authorizations found"
            assert [error(text)] == await client.rest()
            assert 0 == served.depth("t")

    run(main)


def test_no_valid_answer(caplog: pytest.LogCaptureFixture) -> None:
    """The client is not told why; the log is."""

    async def main() -> None:
        async with serving(auth=Asked(AuthFailed("server 7 said no"))) as served:
            client = await served.raw()
            await client.send(Auth(SECRET), Pub("t", [b"x"]))
            assert [error("E_AUTH_FAILED AUTH failed")] == await client.rest()
            assert 0 == served.depth("t")
            await served.until_over(client)
        assert "AUTH failed: server 7 said no" in caplog.text

    run(main)


def test_an_asker_with_a_fault(caplog: pytest.LogCaptureFixture) -> None:
    """The connection ends, and the log says what has happened, but no secret."""

    async def main() -> None:
        async with serving(auth=Asked(ZeroDivisionError("by chance"))) as served:
            client = await served.raw()
            await client.send(Auth(SECRET), Pub("t", [b"x"]))
            assert [] == await client.rest()
            await served.until_over(client)
            assert 0 == served.depth("t")

    run(main)
    assert "by chance" in caplog.text
    caplog.records[:] = [one for one in caplog.records if not one.exc_info]


# Who has not told a secret


@each_checked
def test_auth_comes_first(command: Encoded) -> None:
    """What is checked is refused without it, after IDENTIFY, too."""

    async def main() -> None:
        asked = Asked()
        async with serving(auth=asked) as served:
            client = await served.client()
            await client.send(command)
            name = command.__class__.__name__.upper()
            text = f"E_AUTH_FIRST AUTH required before {name}"
            assert [error(text)] == await client.rest()
            assert "t" not in served.broker._topics
        assert [] == asked.asked

    run(main)


@pytest.mark.parametrize("announces", [True, False])
def test_an_mpub_is_judged_before_its_body(announces: bool) -> None:
    """Its line is enough, whatever the limits of the service say; not so a PUB's or DPUB's."""

    async def main() -> None:
        async with serving(auth=Asked(), announces=announces) as served:
            client = await served.raw()
            await client.send(b"MPUB t\n")
            text = "E_AUTH_FIRST AUTH required before MPUB"
            assert [error(text)] == await client.rest()
            client = await served.raw()
            await client.send(b"MPUB t\n\0\0\0\0")  # a body that is none is not even looked at
            assert [error(text)] == await client.rest()
            for line in (b"PUB t\n", b"DPUB t 1\n"):
                client = await served.raw()
                await client.send(line, b"\0\0\0\2x")
                await turns(20)
                assert not client.has()
                await client.send(b"y")
                name = line.split(b" ", 1)[0].decode()
                text = f"E_AUTH_FIRST AUTH required before {name}"
                assert [error(text)] == await client.rest()
                text = "E_AUTH_FIRST AUTH required before MPUB"

    run(main)


def test_what_is_wrong_by_itself_is_so_first() -> None:
    """Names, sizes and states are judged before what a client may do."""

    async def main() -> None:
        async with serving(auth=Asked()) as served:
            for sent, text in [
                (b"SUB t\n", "E_INVALID SUB insufficient number of parameters"),
                (b"SUB t! c\n", 'E_BAD_TOPIC SUB topic name "t!" is not valid'),
                (b"SUB t c!\n", 'E_BAD_CHANNEL SUB channel name "c!" is not valid'),
                (b"PUB t\n\0\0\0\0", "E_BAD_MESSAGE PUB invalid message body size 0"),
                (b"DPUB t x\n", "E_INVALID DPUB could not parse timeout x"),
                (b"MPUB t!\n", 'E_BAD_TOPIC E_BAD_TOPIC MPUB topic name "t!" is not valid'),
                (b"RDY 1\n", "E_INVALID cannot RDY in current state"),
            ]:
                client = await served.raw()
                await client.send(sent)
                assert [error(text)] == await client.rest()

    run(main)


def test_what_is_not_checked() -> None:
    """NOP and IDENTIFY need no secret."""

    async def main() -> None:
        async with serving(auth=Asked()) as served:
            client = await served.raw()
            await client.send(Nop(), Identify(b"{}"), Nop(), Auth(SECRET), Pub("t", [b"x"]))
            first, _, last = await client.frames(3)
            assert (OK, OK) == (first, last)

    run(main)


# What a client may do


def entry(topic: str, channels: list[str], *permissions: str) -> dict[str, Any]:
    return {"topic": topic, "channels": channels, "permissions": list(permissions)}


@pytest.mark.parametrize(
    ("told", "subscribes", "publishes"),
    [
        (entry(".*", [".*"], "subscribe", "publish"), True, True),
        (entry(".*", [".*"], "subscribe"), True, False),
        (entry(".*", [".*"], "publish"), False, True),
        (entry(".*", [".*"]), False, False),
        (entry("^other$", [".*"], "subscribe", "publish"), False, False),
        (entry("op", [".*"], "subscribe", "publish"), True, True),
        (entry("^op", [".*"], "subscribe", "publish"), False, False),
        (entry(".*", [], "subscribe", "publish"), False, False),
        (entry(".*", ["^chan$"], "subscribe", "publish"), True, False),
        (entry(".*", ["no", "han"], "subscribe", "publish"), True, False),
        (entry(".*", ["^$"], "subscribe", "publish"), False, True),
        (entry(".*", [""], "subscribe", "publish"), True, True),
        (entry(".*", ["^no$", "x*"], "subscribe", "publish"), True, True),
    ],
)
def test_what_an_entry_allows(told: dict[str, Any], subscribes: bool, publishes: bool) -> None:
    """A topic and a channel must match, for who publishes the channel without a name."""

    async def main() -> None:
        async with serving(auth=Asked(answer(told))) as served:
            for command in (
                Sub("topic", "chan"),
                Pub("topic", [b"x", b"y"]),
                Mpub("topic", [b"x"]),
                Dpub("topic", 1, b"x"),
            ):
                client = await authorised(served)
                await client.send(command)
                name = command.__class__.__name__.upper()
                channel = "chan" if name == "SUB" else ""
                before = served.depth("topic")
                if subscribes if name == "SUB" else publishes:
                    assert OK == await client.frame()
                else:
                    text = f'E_UNAUTHORIZED AUTH failed for {name} on "topic" "{channel}"'
                    assert [error(text)] == await client.rest()
                    assert served.depth("topic") == before
                client.close()
            assert ("topic" in served.broker._topics) == (subscribes or publishes)

    run(main)


def test_one_of_several_entries_is_enough() -> None:
    """None takes away what another gives."""

    async def main() -> None:
        found = answer(
            entry("^a$", [], "publish"), entry("^a$", [".*"], "publish"), MAY_ALL | {"topic": "^b$"}
        )
        async with serving(auth=Asked(found)) as served:
            client = await authorised(served)
            await client.send(Pub("a", [b"x"]), Pub("b", [b"x"]), Sub("b", "c"), Pub("c", [b"x"]))
            text = 'E_UNAUTHORIZED AUTH failed for PUB on "c" ""'
            assert [OK, OK, OK, error(text)] == await client.rest()

    run(main)


def test_each_topic_of_many_is_judged() -> None:
    """A run of PUBs is judged for its topic, though they are done together."""

    async def main() -> None:
        found = answer(entry("^mine$", [".*"], "publish"))
        async with serving(auth=Asked(found)) as served:
            client = await authorised(served)
            await client.send(Pub("mine", [b"x"] * 50), Pub("yours", [b"x"]), Pub("mine", [b"y"]))
            text = 'E_UNAUTHORIZED AUTH failed for PUB on "yours" ""'
            assert [OK] * 50 + [error(text)] == await client.rest()
            assert (50, 0) == (served.depth("mine"), served.depth("yours"))

    run(main)


# What holds for a time


@each_checked
def test_the_answer_is_too_old(command: Encoded) -> None:
    """The next command that is checked has the server asked again, with the same secret."""

    async def main() -> None:
        asked = Asked(answer(MAY_ALL, ttl=10), answer(MAY_ALL, ttl=20))
        async with serving(auth=asked) as served:
            client = await authorised(served)
            served.clock.advance(9.999999999)
            await client.send(Pub("u", [b"x"]))
            assert OK == await client.frame()
            assert 1 == len(asked.asked)
            served.clock.advance(0.000000001)
            await client.send(Nop(), command, Pub("u", [b"y"]))
            assert [OK, OK] == await client.frames(2)
            assert [("127.0.0.1", False, "", SECRET)] * 2 == asked.asked
            served.clock.advance(19)
            await client.send(Pub("u", [b"z"]))
            assert OK == await client.frame()
            assert 2 == len(asked.asked)
            assert 3 == served.depth("u")

    run(main)


def test_what_asks_nobody_again() -> None:
    """RDY, FIN, REQ, TOUCH, CLS and NOP are done however old the answer is."""

    async def main() -> None:
        asked = Asked()
        async with serving(auth=asked) as served:
            client = await authorised(served)
            await client.send(Sub("t", "c"), Rdy(1), Pub("t", [b"x"]))
            found = await client.frames(3)
            name = next(delivered(data).id.decode() for kind, data in found if kind == MESSAGE)
            served.clock.advance(59)
            await client.send(Nop(), Touch(name))
            await until(lambda: served.connection(client)._last == served.clock.monotonic_ns())
            served.clock.advance(20)
            await client.send(Touch(name), Rdy(2), Req(name, 0))
            while (frame := await client.frame())[0] != MESSAGE:
                pass
            await client.send(Fin([delivered(frame[1]).id.decode()]), Nop(), Cls())
            while (frame := await client.frame()) != (0, b"CLOSE_WAIT"):
                assert b"_heartbeat_" == frame[1]
            assert 1 == len(asked.asked)

    run(main)


@each_checked
def test_asked_again_without_an_answer(command: Encoded) -> None:
    """The connection ends, and the command is not done."""

    async def main() -> None:
        asked = Asked(ALL, AuthFailed("gone"))
        async with serving(auth=asked) as served:
            client = await authorised(served)
            served.clock.advance(60)
            await client.send(command, Pub("u", [b"x"]))
            found = await client.rest()
            assert [error("E_AUTH_FAILED AUTH failed")] == found[-1:]
            assert OK not in found
            assert not {"t", "u"} & set(served.broker._topics)

    run(main)


@each_checked
@pytest.mark.parametrize("entries", [[], [entry("^u$", [".*"], "publish", "subscribe")]])
def test_asked_again_with_less(command: Encoded, entries: list[Any]) -> None:
    """What was allowed before is so no more."""

    async def main() -> None:
        async with serving(auth=Asked(ALL, answer(*entries))) as served:
            client = await authorised(served)
            served.clock.advance(60)
            await client.send(command)
            name = command.__class__.__name__.upper()
            channel = "c" if name == "SUB" else ""
            text = f'E_UNAUTHORIZED AUTH failed for {name} on "t" "{channel}"'
            assert [error(text)] == (await client.rest())[-1:]
            assert 0 == served.depth("t")

    run(main)


def test_an_mpub_in_pieces_is_judged_once() -> None:
    """An answer that becomes too old while its body comes is asked for at the next command."""

    async def main() -> None:
        asked = Asked()
        async with serving(auth=asked) as served:
            client = await authorised(served)
            data = Mpub("t", [b"x" * 100] * 10).encode()
            await client.send(data[:300])
            await until(lambda: "t" in served.broker._topics)
            served.clock.advance(60)
            await client.send(data[300:])
            while await client.frame() != OK:
                pass
            assert (1, 10) == (len(asked.asked), served.depth("t"))
            await client.send(data[:9])
            await until(lambda: len(asked.asked) == 2)
            await client.send(data[9:])
            assert OK == await client.frame()

    run(main)


# While the server asks


MANY: Final[list[Encoded]] = [
    Auth(SECRET),
    Nop(),
    Pub("t", [bytes([number]) for number in range(100)]),
    Mpub("t", [b"m1", b"m2"]),
    Dpub("t", 0, b"d"),
    Sub("t", "c"),
    Rdy(200),
    Pub("t", [b"last"]),
]


@pytest.mark.parametrize("layers", ["", "deflate", "snappy"])
@pytest.mark.parametrize("step", [0, 7])
def test_what_stands_behind_auth_waits(layers: str, step: int) -> None:
    """It is done when the server has answered, all of it, in order, and not before."""

    async def main() -> None:
        asked = Asked()
        asked.gate.clear()
        async with serving(auth=asked) as served:
            client = await served.client(layers)
            data = client.wrapped(b"".join(one.encode() for one in MANY))
            sent = asyncio.create_task(client.put(data, step))
            await until(lambda: asked.asked)
            await turns(20)
            assert 0 == served.depth("t")
            assert not client.has()
            other = await served.client()
            await other.send(Nop(), Identify(b"{}"))
            assert OK == await other.frame()
            await sent
            assert 1 == len(asked.asked)
            asked.gate.set()
            found = await client.frames(1 + 100 + 1 + 1 + 1 + 1 + 104)
            assert b"permission_count" in found[0][1]
            assert [OK] * 103 == found[1:104]
            bodies = [delivered(data).body for kind, data in found if kind == MESSAGE]
            assert [bytes([n]) for n in range(100)] + [b"m1", b"m2", b"d", b"last"] == bodies

    run(main)


def test_messages_are_delivered_while_it_is_asked_again() -> None:
    """So are heartbeats; the answers alone wait."""

    async def main() -> None:
        asked = Asked()
        async with serving(auth=asked) as served:
            client = await authorised(served)
            await client.send(Sub("t", "c"), Rdy(10))
            assert OK == await client.frame()
            served.clock.advance(29)
            await client.send(Nop())
            await until(lambda: served.connection(client)._last == served.clock.monotonic_ns())
            served.clock.advance(31)
            while (await client.frame())[1] != b"_heartbeat_":
                pass
            asked.gate.clear()
            await client.send(Pub("u", [b"x"]))
            await until(lambda: len(asked.asked) == 2)
            served.broker.topic("t").put(b"meanwhile")
            while (frame := await client.frame())[0] != MESSAGE:
                assert b"_heartbeat_" == frame[1]
            for _ in range(5):
                served.clock.advance(30)
                while (await client.frame())[1] != b"_heartbeat_":
                    pass
            await turns(20)
            assert not served.is_over(client), "it is the server that keeps silent"
            asked.gate.set()
            while (frame := await client.frame()) != OK:
                pass
            assert 1 == served.depth("u")

    run(main)


@pytest.mark.skipif(not hasattr(asyncio, "eager_task_factory"), reason="no eager tasks before 3.12")
@pytest.mark.parametrize("layers", ["deflate", "tls+snappy"])
@pytest.mark.parametrize("waits", [False, True])
def test_in_a_loop_of_eager_tasks(tmp_path: Path, layers: str, waits: bool) -> None:
    """Upgrades and AUTH are no different where a loop begins each task at once."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_task_factory(getattr(asyncio, "eager_task_factory"))  # noqa: B009 - not in 3.11
        authority = Authority(tmp_path)
        asked = Asked()
        store = SQLite(str(tmp_path / "store.db"))
        async with serving(auth=asked, tls=authority.server(), store=store) as served:
            client = await served.client(layers, authority.client())
            if waits:
                asked.gate.clear()
            await client.send(Auth(SECRET), Pub("t", [b"x"]), Dpub("t", 5, b"x"))
            await until(lambda: asked.asked)
            asked.gate.set()
            assert [OK, OK] == (await client.frames(3))[1:]

    run(main)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("behind", [[], [Pub("t", [b"x"])]])
@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("layers", ["", "deflate"])
def test_the_client_goes_while_it_is_asked(
    way: str, behind: list[Encoded], fails: bool, layers: str
) -> None:
    """Its connection is over when the answer is there, at the latest."""

    async def main() -> None:
        asked = Asked(AuthFailed("no") if fails else ALL)
        asked.gate.clear()
        async with serving(auth=asked) as served:
            client = await served.client(layers)
            await client.send(Auth(SECRET), *behind)
            await until(lambda: asked.asked)
            getattr(client, way)()
            await turns(20)
            asked.gate.set()
            await served.until_over(client)
            if way == "half_close":
                found = await client.rest()
                assert len(behind) + 1 == len(found) or fails
                assert (0 if fails else len(behind)) == served.depth("t")

    run(main)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("again", [False, True])
def test_the_client_goes_by_tls(tmp_path: Path, way: str, again: bool) -> None:
    """The same with a layer that hears of it at once, and that has no half-close."""

    async def main() -> None:
        authority = Authority(tmp_path)
        asked = Asked()
        async with serving(auth=asked, tls=authority.server()) as served:
            client = await served.client("tls", authority.client())
            if again:
                await client.send(Auth(SECRET))
                await client.frame()
                served.clock.advance(60)
            asked.gate.clear()
            await client.send(Pub("t", [b"x"]) if again else Auth(SECRET))
            await until(lambda: len(asked.asked) == 1 + again)
            await client.put(client.good_bye())
            getattr(client, way)()
            await turns(20)
            asked.gate.set()
            await served.until_over(client)

    run(main)


@pytest.mark.parametrize("again", [False, True])
def test_all_at_once_with_the_end_of_tls(tmp_path: Path, again: bool) -> None:
    """A client that ends TLS in the same breath hears nothing more, and nothing more is done."""

    async def main() -> None:
        authority = Authority(tmp_path)
        asked = Asked()
        async with serving(auth=asked, tls=authority.server()) as served:
            client = await served.client("tls", authority.client())
            if again:
                await client.send(Auth(SECRET))
                await client.frame()
                served.clock.advance(60)
            command = Pub("t", [b"x"]) if again else Auth(SECRET)
            data = client.wrapped(command.encode() + Pub("t", [b"y"]).encode())
            await client.put(data + client.good_bye())
            await served.until_over(client)
            assert 1 + again == len(asked.asked)
            assert 0 == served.depth("t")

    run(main)


@pytest.mark.parametrize("layers", ["", "snappy", "tls", "tls+deflate"])
@pytest.mark.parametrize("again", [False, True])
def test_a_service_that_stops_while_it_asks(tmp_path: Path, layers: str, again: bool) -> None:
    """It waits for no answer."""

    async def main() -> None:
        authority = Authority(tmp_path)
        asked = Asked()
        async with serving(auth=asked, tls=authority.server()) as served:
            client = await served.client(layers, authority.client())
            if again:
                await client.send(Auth(SECRET))
                await client.frame()
                served.clock.advance(60)
            asked.gate.clear()
            await client.send(Pub("t", [b"x"]) if again else Auth(SECRET), Pub("t", [b"y"]))
            await until(lambda: len(asked.asked) == 1 + again)
            await served.service.stop()
            assert served.is_over(client)
            await until(lambda: asked.given_up)
            assert OK not in await client.rest()
            assert 0 == served.depth("t")

    run(main)


@pytest.mark.parametrize("again", [False, True])
def test_with_a_store(tmp_path: Path, again: bool) -> None:
    """What has to be made in a store after the server has answered is made before it is done."""

    async def main() -> None:
        asked = Asked()
        store = SQLite(str(tmp_path / "store.db"))
        async with serving(auth=asked, store=store) as served:
            client = await authorised(served)
            if again:
                served.clock.advance(60)
            await client.send(Mpub("t", [b"x"]), Pub("u", [b"y", b"z"]), Dpub("v", 0, b"d"))
            await client.send(Sub("w", "c"), Pub("t", [b"last"]))
            while (found := await client.frame())[1] == b"_heartbeat_":
                pass
            assert [OK] * 6 == [found, *await client.frames(5)]
            assert (2, 2, 1) == (served.depth("t"), served.depth("u"), served.depth("v"))
            assert (1 + again) == len(asked.asked)

    run(main)


def test_an_mpub_into_a_broker_that_is_closed() -> None:
    """Its answer tells, not its being announced."""

    async def main() -> None:
        async with serving(auth=Asked()) as served:
            client = await authorised(served)
            served.broker.close()
            await client.send(Mpub("t", [b"x"]))
            assert [error("E_MPUB_FAILED MPUB failed exiting")] == await client.rest()

    run(main)


# Secrets


def test_nothing_shows_a_secret() -> None:
    """Neither a connection, nor a command, nor what stats tell."""

    async def main() -> None:
        async with serving(auth=Asked()) as served:
            client = await authorised(served)
            ours = served.connection(client)
            shown = [repr(ours), repr(Auth(SECRET)), str(Auth(SECRET)), repr(ours.stats())]
            shown += [repr(ours._session), repr(served.service), repr(ours.authorisations)]
            assert [] == [one for one in shown if "tea" in one or "cake" in one]

    run(main)


def test_debugging_shows_no_secret() -> None:
    """A loop that is debugged logs callbacks that take long; none of them has the secret."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_debug(True)
        loop.slow_callback_duration = 0
        try:
            async with serving(auth=Asked(AuthFailed("no"))) as served:
                client = await served.raw()
                await client.send(Auth(SECRET))
                await client.rest()
                await served.until_over(client)
        finally:
            loop.set_debug(False)
            gc.collect()

    run(main)


# With a real auth server


class Server:
    """An auth server on loopback."""

    def __init__(self) -> None:
        self.asked: list[dict[str, str]] = []
        self.body = json.dumps({"ttl": 60, "identity": "shop", "authorizations": [MAY_ALL]})
        self.status = 200
        self.gate = asyncio.Event()
        self.gate.set()
        self.address = ""

    async def handle(self, request: web.Request) -> web.Response:
        self.asked.append(dict(request.query))
        await self.gate.wait()
        return web.Response(text=self.body, status=self.status)


@asynccontextmanager
async def answering() -> AsyncIterator[Server]:
    server = Server()
    app = web.Application()
    app.router.add_get("/auth", server.handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    server.address = f"127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield server
    finally:
        server.gate.set()
        await runner.cleanup()


def test_a_real_server() -> None:
    """It is asked by HTTP for the client's secret, and again when its answer is too old."""

    async def main() -> None:
        async with (
            answering() as server,
            serving(auth=AuthClient([server.address])) as served,
        ):
            client = await served.raw()
            await client.send(Auth(b"tea & <cake>"), Pub("t", [b"x"]), Sub("t", "c"))
            found = await client.frames(3)
            told = b'{"identity":"shop","identity_url":"","permission_count":1}'
            assert [(0, told), OK, OK] == found
            served.clock.advance(60)
            await client.send(Mpub("t", [b"x"]))
            while await client.frame() != OK:
                pass
            secret = {"secret": "tea & <cake>"}
            expected = {"common_name": "", "remote_ip": "127.0.0.1", "tls": "false"} | secret
            assert [expected] * 2 == server.asked

    run(main)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ("{}", 200),
        ("", 200),
        ("tea", 200),
        ('{"ttl": 0, "authorizations": []}', 200),
        ('{"ttl": 1, "authorizations": [{"topic": "(", "permissions": []}]}', 200),
        ('{"ttl": 1, "authorizations": [{"topic": "", "permissions": ["dance"]}]}', 200),
        ('{"ttl": 1, "authorizations": []}', 500),
        ('{"ttl": 1, "authorizations": []}', 403),
    ],
)
def test_a_real_server_that_answers_badly(body: str, status: int) -> None:
    """The client hears that AUTH has failed, and no more."""

    async def main() -> None:
        async with answering() as server:
            server.body, server.status = body, status
            async with serving(auth=AuthClient([server.address])) as served:
                client = await served.raw()
                await client.send(Auth(SECRET))
                assert [error("E_AUTH_FAILED AUTH failed")] == await client.rest()

    run(main)


def test_a_real_server_that_does_not_answer() -> None:
    """It is waited for as long as was said; others are served meanwhile."""

    async def main() -> None:
        async with answering() as server:
            asker = AuthClient([server.address], request_timeout=0.05)
            async with serving(auth=asker) as served:
                server.gate.clear()
                client = await served.raw()
                await client.send(Auth(SECRET))
                assert [error("E_AUTH_FAILED AUTH failed")] == await client.rest()

    run(main)


def test_a_service_that_stops_while_a_real_server_is_asked() -> None:
    """Nothing of the request is left."""

    async def main() -> None:
        async with (
            answering() as server,
            serving(auth=AuthClient([server.address])) as served,
        ):
            server.gate.clear()
            client = await served.raw()
            await client.send(Auth(SECRET))
            await until(lambda: server.asked)
            await served.service.stop()
            assert [] == await client.rest()

    run(main)


def test_an_nsqd_with_auth_servers() -> None:
    """Its options make all that it takes: clients are told, MPUBs judged before their bodies."""

    async def main() -> None:
        async with answering() as server:
            options = NSQDOptions(
                tcp_address="127.0.0.1:0",
                http_address="",
                auth_http_addresses=(server.address,),
            )
            async with NSQD(options) as nsqd:
                client = await Client.connect(nsqd.tcp_port)
                assert (await client.identify())["auth_required"]
                await client.send(b"MPUB t\n")
                text = "E_AUTH_FIRST AUTH required before MPUB"
                assert [error(text)] == await client.rest()
                client = await Client.connect(nsqd.tcp_port)
                await client.send(Auth(b"tea"), b"MPUB t\n")
                assert b"permission_count" in (await client.frame())[1]
                await until(lambda: "t" in nsqd.broker._topics)
                client.close()

    run(main)
