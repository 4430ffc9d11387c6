"""A connection, over real sockets: what a client sends is done, and what it is to get it gets.

Time is moved by hand; what sockets do is awaited.
"""

import asyncio
import json
import logging
import random
import socket
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any, Final

import pytest
from aio.loops import in_loop, turns, until

import nsqlite
from nsqlite import Broker, aio
from nsqlite.server import connection as module
from nsqlite.server.connection import CHUNK, HIGH_WATER, STALLED
from nsqlite.testing import ManualClock
from nsqlite.wire.commands import (
    MAGIC,
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
from nsqlite.wire.identify import Limits
from server.clients import Anybody, Client, Place, served

UNKNOWN: Final = "0123456789abcdef"


def fin(name: bytes) -> Fin:
    return Fin([name.decode()])


# Saying who one is


@in_loop
async def test_identify_negotiates() -> None:
    """A client that negotiates is told what holds, in nsqd's words and order."""
    async with served() as place:
        client = await place.connect()
        body = b'{"client_id":"c1","hostname":"h1","feature_negotiation":true,"msg_timeout":5000}'
        await client.send(Identify(body))
        assert (
            b'{"max_rdy_count":2500,"version":"1.3.0","max_msg_timeout":900000,"msg_timeout":5000,'
            b'"tls_v1":false,"deflate":false,"deflate_level":6,"max_deflate_level":6,"snappy":false,'
            b'"sample_rate":0,"auth_required":false,"output_buffer_size":16384,'
            b'"output_buffer_timeout":250,"topology_region":"","topology_zone":""}'
        ) == await client.answer()
        await client.subscribe(window=3)
        stats = (await place.connection(client)).stats()
        assert ("c1", "h1", 3, 3) == (
            stats["client_id"],
            stats["hostname"],
            stats["state"],
            stats["ready_count"],
        )


@in_loop
async def test_identify_without_negotiation() -> None:
    """A client that does not negotiate is told OK, and what it asked for holds."""
    async with served() as place:
        client = await place.connect()
        await client.send(Identify(b'{"msg_timeout":1000}'))
        await client.ok()
        await client.send(Identify(b"null"))
        await client.ok()
        assert 1000 == (await place.connection(client)).identity.msg_timeout


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"[]", "E_BAD_BODY IDENTIFY failed to decode JSON body"),
        (b'{"heartbeat_interval":1}', "E_BAD_BODY IDENTIFY heartbeat interval (1) is invalid"),
        (
            b'{"feature_negotiation":true,"deflate":true,"snappy":true}',
            "E_IDENTIFY_FAILED cannot enable both deflate and snappy compression",
        ),
    ],
)
@in_loop
async def test_identify_is_refused(body: bytes, text: str) -> None:
    """What cannot hold ends the connection."""
    async with served() as place:
        client = await place.connect()
        await client.send(Identify(body), Nop())
        assert text == await client.refused()


@in_loop
async def test_stats_of_who_has_not_said_who_it_is() -> None:
    """A client that does not say who it is is known by its address."""
    async with served() as place:
        client = await place.connect()
        await client.publish(b"a", b"b")
        await client.publish(b"c", topic="other")
        await client.send(Pub("t", [b"d"]))
        await client.ok()
        stats = (await place.connection(client)).stats()
        assert ("127.0.0.1", "127.0.0.1") == (stats["client_id"], stats["hostname"])
        assert client.address == stats["remote_address"]
        assert (0, 0, 0) == (stats["state"], stats["ready_count"], stats["message_count"])
        assert place.clock.time_ns() // 10**9 == stats["connect_ts"]
        assert [{"topic": "other", "count": 1}, {"topic": "t", "count": 3}] == stats["pub_counts"]


@in_loop
async def test_auth_is_refused_where_nobody_can_be_asked() -> None:
    """Without auth servers a secret is no use."""
    async with served() as place:
        client = await place.connect()
        await client.send(b"AUTH\n\0\0\0\x01s")
        assert "E_AUTH_DISABLED AUTH disabled" == await client.refused()


@in_loop
async def test_what_is_written_is_sent_at_once() -> None:
    """No frame waits for the client to confirm the one before."""
    async with served() as place:
        transport = (await place.connection(await place.connect()))._transport
        assert transport is not None
        sock = transport.get_extra_info("socket")
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


# Publishing


@in_loop
async def test_what_is_published_is_there() -> None:
    """PUB, MPUB and DPUB are answered, and a consumer gets their messages."""
    async with served() as place:
        consumer = await place.consumer(10)
        client = await place.connect()
        await client.send(Pub("t", [b"a", b"b"]), Mpub("t", [b"c", b"d"]), Dpub("t", 0, b"e"))
        await client.ok(4)
        found = await consumer.messages(5)
        assert [b"a", b"b", b"c", b"d", b"e"] == [message.body for message in found]
        assert {1} == {message.attempts for message in found}
        assert 5 == len({message.id for message in found})
        assert {place.clock.time_ns()} == {message.timestamp for message in found}
        await consumer.finish(*found)
        await consumer.quiet()
        assert (0, 0) == (place.channel.depth, place.channel.in_flight_count)


@in_loop
async def test_a_topic_holds_what_nobody_reads_yet() -> None:
    """What is published before the first SUB waits for that."""
    async with served() as place:
        client = await place.connect()
        await client.publish(b"early")
        consumer = await place.consumer()
        assert b"early" == (await consumer.message()).body


@in_loop
async def test_a_batch_that_is_refused_makes_its_topic_and_puts_nothing() -> None:
    """An MPUB makes its topic before it is looked at, as in nsqd, and is all or nothing."""
    async with served() as place:
        client = await place.connect()
        await client.send(b"MPUB made\n\0\0\0\x20\0\0\0\x02\0\0\0\x01x\0\0\0\0")
        assert "E_BAD_MESSAGE MPUB invalid message(1) body size 0" == await client.refused()
        assert 0 == place.broker.topics["made"].depth


@in_loop
async def test_a_topic_that_was_deleted_is_made_anew() -> None:
    """A client goes on publishing after its topic was deleted, into a new one."""
    async with served() as place:
        client = await place.connect()
        await client.publish(b"a", b"b")
        place.broker.topic("t").delete()
        await client.publish(b"c")
        assert 1 == place.broker.topic("t").depth
        await client.publish(b"x", topic="u")
        await client.publish(b"d")
        assert 2 == place.broker.topic("t").depth


@pytest.mark.parametrize(
    ("command", "text"),
    [
        (Pub("t", [b"x"]), "E_PUB_FAILED PUB failed exiting"),
        (Mpub("t", [b"x", b"y"]), "E_MPUB_FAILED MPUB failed exiting"),
        (Dpub("t", 0, b"x"), "E_DPUB_FAILED DPUB failed exiting"),
        (Pub("new", [b"x"]), "E_PUB_FAILED PUB failed exiting"),
        (Mpub("new", [b"x", b"y"]), "E_MPUB_FAILED MPUB failed exiting"),
        (Dpub("new", 0, b"x"), "E_DPUB_FAILED DPUB failed exiting"),
        (Sub("t", "c"), "E_SUB_FAILED SUB failed exiting"),
        (Sub("new", "c"), "E_SUB_FAILED SUB failed exiting"),
    ],
)
@in_loop
async def test_what_comes_when_the_broker_is_closed(command: Any, text: str) -> None:
    """When the broker is closed nothing can be published or subscribed to."""
    async with served() as place:
        client = await place.connect()
        await client.publish(b"x")
        place.broker.close()
        await client.send(command)
        assert text == await client.refused()


@in_loop
async def test_a_batch_that_cannot_be_begun_is_told_at_its_end() -> None:
    """What is wrong with a topic of an MPUB is told when all of that has been read."""
    async with served(auth=Anybody()) as place:
        client = await place.connect()
        await client.authorise()
        await client.send(Mpub("t", [b"x"]))
        await client.ok()
        stats = (await place.connection(client)).stats()
        assert stats["authed"]
        assert "auth_identity_url" not in stats
        place.broker.close()
        await client.send(Mpub("new", [b"x"]))
        assert "E_MPUB_FAILED MPUB failed exiting" == await client.refused()


@pytest.mark.parametrize("when_full", ["raise", "wait"])
@pytest.mark.parametrize("command", [Pub("t", [b"y"]), Mpub("t", [b"y"]), Dpub("t", 0, b"y")])
@in_loop
async def test_a_channel_that_is_full(command: Any, when_full: str) -> None:
    """Where an app has bounded a channel, what finds no room is refused: no client holds up all."""
    async with served() as place:
        place.broker.topic("t").channel("c", max_depth=1, when_full=when_full)
        client = await place.connect()
        await client.publish(b"x")
        await client.send(command)
        name = type(command).__name__.upper()
        error = await client.refused()
        assert error.startswith(f"E_{name}_FAILED {name} failed ")
        assert "max_depth=1" in error
        assert 1 == place.channel.depth


@in_loop
async def test_a_publisher_may_be_a_consumer() -> None:
    """A client gets what it publishes itself, on the same connection, also after CLS."""
    async with served() as place:
        client = await place.consumer(2)
        await client.send(Pub("t", [b"mine"]))
        await client.ok()
        message = await client.message()
        assert b"mine" == message.body
        await client.send(Cls())
        assert b"CLOSE_WAIT" == await client.answer()
        await client.send(Pub("t", [b"more"]), fin(message.id))
        await client.ok()
        await client.quiet()
        assert (1, 0) == (place.channel.depth, place.channel.in_flight_count)


# Windows


@in_loop
async def test_no_more_is_in_flight_than_the_window_allows() -> None:
    """RDY is a window: what is finished makes room for as much, and no more than that."""
    async with served() as place:
        client = await place.consumer(3)
        await client.publish(*(b"%d" % number for number in range(10)))
        held = await client.messages(3)
        await client.quiet()
        await client.finish(*held[:2])
        held = held[2:] + await client.messages(2)
        await client.quiet()
        await client.send(Rdy(5))
        held += await client.messages(2)
        await client.quiet()
        await client.send(Rdy(1))
        await client.finish(*held[:4])
        await client.quiet()
        assert 1 == (await place.connection(client)).stats()["in_flight_count"]
        await client.finish(held[4])
        assert b"7" == (await client.message()).body
        await client.quiet()


@in_loop
async def test_a_window_of_nothing() -> None:
    """With RDY 0, as at first, nothing comes; what is in flight can be finished."""
    async with served() as place:
        client = await place.consumer(None)
        await client.publish(b"a", b"b", b"c")
        await client.quiet()
        await client.send(b"RDY\n")  # stands for 1
        first = await client.message()
        await client.send(Rdy(0))
        await client.finish(first)
        await client.quiet()
        await client.send(Rdy(2))
        assert [b"b", b"c"] == await client.bodies(2)


@in_loop
async def test_after_cls_nothing_comes() -> None:
    """After CLS a client finishes what it has, and gets no more; RDY is ignored."""
    async with served() as place:
        client = await place.consumer(2)
        await client.publish(b"a", b"b", b"c")
        first, second = await client.messages(2)
        await client.send(Cls(), fin(first.id), Rdy(5), b"RDY x\n")
        assert b"CLOSE_WAIT" == await client.answer()
        connection = await place.connection(client)
        assert (4, 0) == (connection.state, connection.stats()["ready_count"])
        await client.send(Req(second.id.decode(), 0))
        await client.quiet()
        assert (2, 0) == (place.channel.depth, place.channel.in_flight_count)
        assert 1 == place.channel.stats().client_count
        await client.send(Cls())
        assert "E_INVALID cannot CLS in current state" == await client.refused()
        await until(lambda: not place.channel.stats().client_count)


@in_loop
async def test_nobody_starves() -> None:
    """Messages that come one by one go to equal consumers in turn."""
    async with served() as place:
        consumers = [await place.consumer(2500) for _ in range(4)]
        publisher = await place.connect()
        for number in range(20):
            await publisher.publish(b"%d" % number)
        for consumer in consumers:
            found = await consumer.messages(5)
            await consumer.finish(*found)
            await consumer.quiet()
        assert 0 == place.channel.in_flight_count


@pytest.mark.parametrize("batch", [4, 5, 20, 100])
@in_loop
async def test_nobody_starves_by_batches(batch: int) -> None:
    """Messages that come many at a time go to all of equal consumers, each time."""
    async with served() as place:
        consumers = [await place.consumer(2500) for _ in range(4)]
        publisher = await place.connect()
        for _ in range(10):
            await publisher.publish(*[b"x"] * batch)
            await until(lambda: 0 == place.channel.depth)
        counts = [
            (await place.connection(consumer)).stats()["message_count"] for consumer in consumers
        ]
        assert 10 * batch == sum(counts)
        assert max(counts) - min(counts) <= 10


@in_loop
async def test_who_was_told_and_takes_nothing_holds_up_nobody() -> None:
    """A consumer of the process that leaves messages to others does not keep the loop busy."""
    async with served() as place:
        app = nsqlite.Consumer(place.channel)
        client = await place.consumer(2500)
        app.when_ready(lambda: None)
        await client.quiet()
        await (await place.connect()).publish(*[b"x"] * 10)
        assert 10 == len(await client.messages(10))
        connection = await place.connection(client)
        await until(lambda: connection._waiting)
        await turns()
        assert connection._waiting
        app.close()


@in_loop
async def test_a_batch_is_shared_by_windows() -> None:
    """A batch goes to several consumers if their windows are small, and all of it goes."""
    async with served() as place:
        consumers = [await place.consumer(5) for _ in range(4)]
        publisher = await place.connect()
        await publisher.publish(*(b"%d" % number for number in range(20)))
        found = [body for consumer in consumers for body in await consumer.bodies(5)]
        assert sorted(b"%d" % number for number in range(20)) == sorted(found)


@in_loop
async def test_consumers_of_window_one_take_turns() -> None:
    """Twenty messages reach four consumers that finish one after the other, each of them some."""
    async with served() as place:
        consumers = [await place.consumer(1) for _ in range(4)]
        publisher = await place.connect()
        await publisher.publish(*(b"%d" % number for number in range(20)))
        found: Counter[int] = Counter()

        async def consume(number: int, client: Client) -> None:
            while True:
                message = await client.message()
                found[number] += 1
                await client.finish(message)

        tasks = [asyncio.ensure_future(consume(*each)) for each in enumerate(consumers)]
        await until(lambda: sum(found.values()) == 20)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert 4 == len(found)


@in_loop
async def test_two_channels_get_each_message() -> None:
    """Each channel gets a copy, under the same id."""
    async with served() as place:
        one, other = await place.consumer(channel="one"), await place.consumer(channel="other")
        await one.publish(b"x")
        first, second = await one.message(), await other.message()
        assert first == second
        await one.finish(first)
        await other.send(Req(second.id.decode(), 0))
        assert second._replace(attempts=2) == await other.message()


@in_loop
async def test_many_messages_come_in_order() -> None:
    """More messages than are taken at once come in their order, each once."""
    async with served() as place:
        client = await place.consumer(2500)
        expected = [b"%d" % number for number in range(5000)]
        await client.publish(*expected)
        found: list[bytes] = []
        while len(found) < len(expected):
            message = await client.message()
            found.append(message.body)
            await client.finish(message)
        assert expected == found


# Answers


@in_loop
async def test_req_without_delay_comes_again() -> None:
    """What is requeued comes again, with its id and time, the attempts counted."""
    async with served() as place:
        client = await place.consumer()
        await client.publish(b"x")
        first = await client.message()
        await client.send(Req(first.id.decode(), 0))
        assert first._replace(attempts=2) == await client.message()
        stats = (await place.connection(client)).stats()
        assert (1, 2, 1, 0) == tuple(
            stats[f"{name}_count"] for name in ("requeue", "message", "in_flight", "finish")
        )


@in_loop
async def test_req_with_a_delay_comes_again_when_it_is_due() -> None:
    """A delay is kept to the millisecond; meanwhile there is room for others."""
    async with served() as place:
        client = await place.consumer()
        await client.publish(b"x", b"y")
        first = await client.message()
        await client.send(Req(first.id.decode(), 1500))
        second = await client.message()
        assert b"y" == second.body
        await client.finish(second)
        await client.quiet()
        await place.advance(1.499)
        await client.quiet()
        await place.advance(0.001)
        assert 2 == (await client.message()).attempts


@pytest.mark.parametrize("delay", [5001, 2**63, 2**64 - 1])
@in_loop
async def test_req_with_too_long_a_delay(delay: int) -> None:
    """A delay that is too long is made the longest that there may be."""
    clock = ManualClock()
    with Broker(clock=clock, max_req_timeout=5.0) as broker:
        async with served(broker) as place:
            client = await place.consumer()
            await client.publish(b"x")
            first = await client.message()
            await client.send(Req(first.id.decode(), delay))
            await client.quiet()
            await place.advance(4.999)
            await client.quiet()
            await place.advance(0.001)
            assert 2 == (await client.message()).attempts


@in_loop
async def test_dpub_comes_when_it_is_due() -> None:
    """A deferred message comes to the millisecond, to a consumer that waits."""
    async with served() as place:
        client = await place.consumer()
        await client.send(Dpub("t", 1500, b"hi"))
        await client.ok()
        assert 1 == place.channel.deferred_count
        await place.advance(1.499)
        await client.quiet()
        await place.advance(0.001)
        assert b"hi" == (await client.message()).body


@pytest.mark.parametrize("name", ["FIN", "REQ", "TOUCH"])
@in_loop
async def test_what_is_not_in_flight_cannot_be_answered(name: str) -> None:
    """An id that nobody has, is answered already or is not one's own is an error, no end."""
    async with served() as place:
        client, other = await place.consumer(), await place.consumer()
        await client.publish(b"x")
        message = await client.message()
        suffix = " 0" if name == "REQ" else ""
        failed = f"E_{name}_FAILED {name} %s failed %s"

        async def answer(who: Client, which: str) -> str:
            await who.send(f"{name} {which}{suffix}\n".encode("latin-1"))
            return await who.error()

        mine = message.id.decode()
        assert failed % (UNKNOWN, "ID not in flight") == await answer(client, UNKNOWN)
        assert failed % ("\xff" * 16, "ID not in flight") == await answer(client, "\xff" * 16)
        assert failed % (mine, "client does not own message") == await answer(other, mine)
        await client.finish(message)
        assert failed % (mine, "ID not in flight") == await answer(client, mine)
        assert failed % (mine, "ID not in flight") == await answer(other, mine)
        await client.quiet()
        await other.quiet()


@in_loop
async def test_fins_of_which_some_fail() -> None:
    """Of many FINs in one read those that can be done are done, and each other one is told."""
    async with served() as place:
        client = await place.consumer(9)
        await client.publish(b"a", b"b", b"c")
        a, b, c = [message.id.decode() for message in await client.messages(3)]
        await client.send(Fin([a, UNKNOWN, b, a, c]))
        assert f"E_FIN_FAILED FIN {UNKNOWN} failed ID not in flight" == await client.error()
        assert f"E_FIN_FAILED FIN {a} failed ID not in flight" == await client.error()
        await client.quiet()
        assert 0 == place.channel.in_flight_count


@in_loop
async def test_whose_a_message_is_after_its_time() -> None:
    """A message that timed out and went to another client is that one's, and then nobody's."""
    async with served() as place:
        first = await place.consumer(1, msg_timeout=1000)
        await first.publish(b"x")
        name = (await first.message()).id
        await first.send(Rdy(0))
        other = await place.consumer()
        await place.advance(1)
        assert 2 == (await other.message()).attempts
        await first.send(fin(name))
        text = f"E_FIN_FAILED FIN {name.decode()} failed "
        assert text + "client does not own message" == await first.error()
        await other.send(fin(name), fin(name))
        assert text + "ID not in flight" == await other.error()
        await other.quiet()


@in_loop
async def test_what_an_app_holds_is_another_client_s() -> None:
    """What a consumer of the same process holds is not in flight for a client."""
    async with served() as place:
        client = await place.consumer(0)
        app = nsqlite.Consumer(place.channel)
        await client.publish(b"x")
        message = app.get(timeout=0)
        await client.send(Fin([message.id]))
        assert f"E_FIN_FAILED FIN {message.id} failed ID not in flight" == await client.error()
        message.fin()


# Time


@in_loop
async def test_heartbeats_come_to_everybody() -> None:
    """Each client gets a heartbeat every 30 s, whatever else it does, and lives if it answers."""
    async with served() as place:
        consumer, publisher = await place.consumer(5), await place.connect()
        silent = await place.connect()
        for _ in range(3):
            await place.advance(29)
            await publisher.publish(b"x")
            await consumer.finish(await consumer.message())
            await silent.quiet()
            await place.beat(consumer, publisher, silent, seconds=1)


@in_loop
async def test_a_heartbeat_interval_of_one_s_own() -> None:
    """A client may ask for heartbeats at other times."""
    async with served() as place:
        client = await place.connect()
        assert "1.3.0" == (await client.identify(heartbeat_interval=1000))["version"]
        other = await place.connect()
        for _ in range(29):
            await client.send(Nop())
            await place.advance(0.5)
            await client.quiet()
            await place.advance(0.5)
            await client.heartbeat()
        await other.quiet()
        await place.advance(1)
        await client.heartbeat()
        await place.advance(0.999)
        await other.heartbeat()
        await place.advance(0.001)
        await client.over()
        await other.quiet()


@in_loop
async def test_heartbeats_may_be_off() -> None:
    """Without heartbeats there is no deadline, and no subscription."""
    async with served() as place:
        client = await place.connect()
        await client.identify(heartbeat_interval=-1)
        await place.advance(3600)
        await client.quiet()
        await client.send(Sub("t", "c"))
        assert "E_INVALID cannot SUB with heartbeats disabled" == await client.refused()


@pytest.mark.parametrize("sent", [b"", b"  V"])
@in_loop
async def test_who_does_not_begin_is_left(sent: bytes) -> None:
    """A client has five seconds for the magic bytes."""
    async with served() as place:
        client = await place.connect(magic=sent)
        await place.advance(4.999)
        assert 1 == len(place.service.connections)
        await place.advance(0.001)
        await client.over()
        assert [] == list(place.service.connections)


@pytest.mark.parametrize("sent", [MAGIC, MAGIC + b"NO", MAGIC + b"NOP\n"])
@in_loop
async def test_who_says_nothing_is_left(sent: bytes) -> None:
    """A client that says nothing for two intervals is left."""
    async with served() as place:
        client = await place.connect(magic=sent)
        connection = await place.connection(client)
        await place.advance(30)
        await client.heartbeat()
        await place.advance(29.999)
        assert connection in place.service.connections
        await place.advance(0.001)
        await client.over()
        assert [] == list(place.service.connections)


@in_loop
async def test_who_sends_a_body_for_ever_is_left() -> None:
    """Bytes are no sign of life, commands are."""
    async with served() as place:
        client = await place.connect()
        await client.send(b"PUB t\n\0\0\0\x30")
        connection = await place.connection(client)
        for number in range(6):
            pending = connection._session.pending
            await client.send(b"x")
            await until(lambda: connection._session.pending != pending)  # noqa: B023 - at once
            await place.advance(10)
            if number == 2:
                await client.heartbeat()
        await client.over()


@in_loop
async def test_each_command_is_a_sign_of_life() -> None:
    """A client that does something need not answer heartbeats by NOP."""
    async with served() as place:
        client = await place.consumer(1)
        for number in range(1, 8):
            await client.send(Rdy(number))
            connection = await place.connection(client)
            await until(lambda: connection.stats()["ready_count"] == number)  # noqa: B023
            await place.advance(20)
        for _ in range(4):
            await client.heartbeat()
        await client.quiet()


@in_loop
async def test_the_clock_may_be_moved_by_another_thread() -> None:
    """What is due is done in the loop, whoever moves the clock; beats that were missed are one."""
    async with served() as place:
        client = await place.connect()
        await client.identify(heartbeat_interval=1000)
        clock = place.clock
        assert isinstance(clock, ManualClock)
        for _ in range(3):
            await asyncio.to_thread(clock.advance, 1)
            await client.heartbeat()
            await client.quiet()
        await asyncio.to_thread(clock.advance, 1.7)
        await client.heartbeat()
        await client.quiet()
        await asyncio.to_thread(clock.advance, 0.2)
        await turns()
        await client.quiet()
        await asyncio.to_thread(clock.advance, 0.1)
        await client.heartbeat()
        await client.quiet()


@in_loop
async def test_who_is_slow_on_a_clock_that_is_moved_by_hand(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """When a test moves the clock by an hour, clients have real time to answer."""
    over: list[Callable[[], object]] = []

    def call_later(delay: float, callback: Callable[..., object], *args: Any) -> None:
        assert delay == module.GRACE
        over.append(partial(callback, *args))

    async def pass_time() -> None:
        while over:
            over.pop()()
        await turns()

    monkeypatch.setattr(asyncio.get_running_loop(), "call_later", call_later)
    with Broker(clock=ManualClock()) as broker:
        async with served(broker) as place:
            client, silent = await place.connect(), await place.connect()
            late, never = await place.connect(magic=b""), await place.connect(magic=b"")
            await place.advance(10)
            await late.send(MAGIC)
            await late.quiet()
            await pass_time()
            await never.over()
            assert 3 == len(place.service.connections)
            await place.advance(3590)
            for one in (client, late, silent):
                for _ in range(120):
                    await one.heartbeat()
            await client.quiet()
            await late.quiet()
            await pass_time()
            await silent.over()
            assert 2 == len(place.service.connections)
            await client.quiet()


@in_loop
async def test_a_message_that_nobody_answers_comes_again() -> None:
    """A time-out makes room in a window of one, so that the same client gets it again."""
    async with served() as place:
        client = await place.consumer(1)
        await client.publish(b"x")
        first = await client.message()
        await place.beat(client)
        await place.advance(29.999)
        await client.quiet()
        await place.advance(0.001)
        assert {b"_heartbeat_", first.id} == {
            data if kind == 0 else data[10:26]
            for kind, data in [await client.frame(), await client.frame()]
        }
        assert 1 == place.channel.stats().timeout_count
        await client.send(fin(first.id))
        await client.quiet()
        assert 0 == place.channel.in_flight_count


@in_loop
async def test_a_client_has_a_time_out_of_its_own() -> None:
    """A client may ask for other time-outs than the node has."""
    async with served() as place:
        short, long = (
            await place.consumer(1, msg_timeout=1000),
            await place.consumer(1, msg_timeout=2000),
        )
        await short.publish(b"a", b"b")
        first, second = await short.message(), await long.message()
        await place.advance(1)
        assert first._replace(attempts=2) == await short.message()
        await long.quiet()
        await place.advance(1)
        assert {first.id, second.id} == {
            (await short.message()).id,
            (await long.message()).id,
        }


@in_loop
async def test_touch_gives_the_whole_time_again() -> None:
    """A touch counts from now, and so often until the most that there may be."""
    clock = ManualClock()
    with Broker(clock=clock, max_msg_timeout=3.0, msg_timeout=2.0) as broker:
        limits = Limits(max_msg_timeout=3000, msg_timeout=2000)
        async with served(broker, limits=limits) as place:
            client = await place.consumer(1)
            await client.publish(b"x")
            name = (await client.message()).id.decode()
            await place.advance(1.5)
            await client.send(Touch(name))
            await client.quiet()
            await place.advance(1.4)
            await client.send(Touch(name))
            await client.quiet()
            await place.advance(0.099)
            await client.quiet()
            await place.advance(0.001)
            assert 2 == (await client.message()).attempts


# What happens to a channel


@in_loop
async def test_a_channel_may_be_paused() -> None:
    """While a channel is paused nothing comes, and what is answered is done."""
    async with served() as place:
        client = await place.consumer(2)
        await client.publish(b"a")
        first = await client.message()
        place.channel.pause()
        await client.publish(b"b")
        await client.send(Req(first.id.decode(), 0))
        await client.quiet()
        assert 2 == place.channel.depth
        place.channel.unpause()
        assert [b"a", b"b"] == sorted(await client.bodies(2))


@in_loop
async def test_a_topic_may_be_paused() -> None:
    """While a topic is paused nothing comes."""
    async with served() as place:
        client = await place.consumer(2)
        place.broker.topic("t").pause()
        await client.publish(b"a")
        await client.quiet()
        place.broker.topic("t").unpause()
        assert [b"a"] == await client.bodies(1)


@in_loop
async def test_empty_makes_room() -> None:
    """What was in flight when a channel is emptied counts no more, and cannot be answered."""
    async with served() as place:
        client = await place.consumer(1)
        await client.publish(b"a", b"b")
        first = await client.message()
        assert 2 == place.channel.empty()
        await client.publish(b"c")
        assert b"c" == (await client.message()).body
        await client.finish(first)
        error = f"E_FIN_FAILED FIN {first.id.decode()} failed ID not in flight"
        assert error == await client.error()


ENDS: Final[dict[str, Callable[[Place], object]]] = {
    "a channel is deleted": lambda place: place.channel.delete(),
    "a channel is closed": lambda place: place.channel.close(),
    "a topic is deleted": lambda place: place.broker.topic("t").delete(),
    "a topic is closed": lambda place: place.broker.topic("t").close(),
    "the broker is closed": lambda place: place.broker.close(),
}


@pytest.mark.parametrize("window", [0, 1])
@pytest.mark.parametrize("elsewhere", [False, True])
@pytest.mark.parametrize("name", ENDS)
@in_loop
async def test_the_end_of_a_channel_closes_its_clients(
    name: str, elsewhere: bool, window: int
) -> None:
    """Whoever had subscribed is closed without an error, and nobody else."""
    async with served() as place:
        client = await place.consumer(window)
        other = await place.consumer(channel="other", topic="other")
        if elsewhere:
            await asyncio.to_thread(ENDS[name], place)
        else:
            ENDS[name](place)
        await client.over()
        if "broker" in name:
            await other.over()
        else:
            await other.quiet()
        if "deleted" in name:
            again = await place.consumer()
            await again.publish(b"x")
            assert b"x" == (await again.message()).body


@in_loop
async def test_a_channel_of_the_same_name_is_another_one() -> None:
    """Who subscribes right after a channel was deleted stays, whoever is closed for that."""
    async with served() as place:
        old = await place.consumer()
        new = await place.connect()
        place.channel.delete()
        await new.subscribe(window=1)
        await old.over()
        await new.publish(b"x")
        assert b"x" == (await new.message()).body


@in_loop
async def test_a_channel_drains() -> None:
    """A channel that is closed when it is empty gives out all, and then its clients are closed."""
    async with served() as place:
        client = await place.consumer(1)
        await client.publish(b"a", b"b")
        place.channel.close(drain=True)
        for _ in range(2):
            await client.finish(await client.message())
        await client.over()


@in_loop
async def test_no_more_consumers_than_a_channel_may_have() -> None:
    """A channel may have a limit of consumers; who leaves makes room."""
    with Broker(clock=ManualClock(), max_channel_consumers=1) as broker:
        async with served(broker) as place:
            first = await place.consumer()
            second = await place.connect()
            await second.send(Sub("t", "c"))
            error = "E_SUB_FAILED SUB failed consumers for t:c exceeds limit of 1"
            assert error == await second.refused()
            first.close()
            await until(lambda: not place.channel.stats().client_count)
            await place.consumer()


@in_loop
async def test_an_ephemeral_channel_goes_with_its_last_client() -> None:
    """An ephemeral channel, and an ephemeral topic with it, is gone when nobody reads it."""
    async with served() as place:
        name = "t#ephemeral"
        one = await place.consumer(topic=name, channel="c#ephemeral")
        two = await place.consumer(topic=name, channel="c#ephemeral")
        assert ["c#ephemeral"] == list(place.broker.topic(name).channels)
        one.close()
        await until(lambda: 1 == len(place.service.connections))
        await two.quiet()
        assert ["c#ephemeral"] == list(place.broker.topic(name).channels)
        two.reset()
        await until(lambda: name not in place.broker.topics)


@in_loop
async def test_sub_finds_a_channel_that_has_just_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    """When a channel goes in the moment in which it is joined, a new one is joined."""
    async with served() as place:
        client = await place.connect()
        real = aio.Consumer
        struck: list[Any] = []

        def joined(channel: Any, **options: Any) -> Any:
            if not struck:
                struck.append(channel)
                place.broker.topic("t").delete()
            return real(channel, **options)

        monkeypatch.setattr(aio, "Consumer", joined)
        await client.subscribe(window=1)
        await client.publish(b"x")
        assert b"x" == (await client.message()).body
        assert struck[0].closed


# Ends of connections


@pytest.mark.parametrize("how", ["close", "reset", "shutdown"])
@in_loop
async def test_what_a_client_leaves_stays_in_flight(how: str) -> None:
    """What a client had when it went comes to another when its time is over, attempts counted."""
    async with served() as place:
        client = await place.consumer(2, msg_timeout=5000)
        await client.publish(b"a", b"b")
        left = await client.messages(2)
        if how == "shutdown":
            client.socket.shutdown(socket.SHUT_WR)
            await client.over()
        else:
            getattr(client, how)()
        await until(lambda: not place.service.connections)
        other = await place.consumer(5)
        await place.advance(4.999)
        await other.quiet()
        assert 2 == place.channel.in_flight_count
        await place.advance(0.001)
        again = await other.messages(2)
        assert {one.id for one in left} == {one.id for one in again}
        assert {2} == {one.attempts for one in again}
        name = again[0].id.decode()
        await other.send(fin(again[0].id), fin(again[0].id))
        assert f"E_FIN_FAILED FIN {name} failed ID not in flight" == await other.error()


@in_loop
async def test_what_comes_behind_an_error_is_not_done() -> None:
    """Commands before an error are answered; it, and the end, follow; the rest is read off."""
    async with served() as place:
        client = await place.connect()
        await client.send(Pub("t", [b"a"]), b"ASDF\n", Pub("t", [b"b"]))
        await client.ok()
        assert "E_INVALID invalid command ASDF" == await client.error()
        await client.over()
        await client.send(Pub("t", [b"c"]), bytes(100_000))
        await client.over()
        assert 1 == place.broker.topic("t").depth
        assert 1 == len(place.service.connections)
        client.close()
        await until(lambda: not place.service.connections)


@in_loop
async def test_an_error_is_seen_by_who_keeps_sending() -> None:
    """A client that sends more than a buffer holds sees the error, and no reset."""
    async with served() as place:
        client = await place.connect()
        more = asyncio.ensure_future(client.send(b"ASDF\n", bytes(20_000_000)))
        assert "E_INVALID invalid command ASDF" == await client.error()
        await client.over()
        await more


@in_loop
async def test_who_does_not_close_after_an_error_is_closed() -> None:
    """After an error a client has a second to close."""
    async with served() as place:
        client = await place.connect()
        await client.send(b"\n")
        assert "E_INVALID invalid command " == await client.error()
        await client.over()
        await place.advance(0.999)
        assert 1 == len(place.service.connections)
        await place.advance(0.001)
        await until(lambda: not place.service.connections)


@in_loop
async def test_who_has_failed_takes_no_more_messages() -> None:
    """After an error a consumer is one no more, though it has not closed yet."""
    async with served() as place:
        failed = await place.consumer(1)
        await failed.send(b"ASDF\n")
        await failed.error()
        other = await place.consumer(5)
        await other.publish(b"a", b"b")
        assert [b"a", b"b"] == await other.bodies(2)
        assert 1 == place.channel.stats().client_count
        assert 2 == len(place.service.connections)


@pytest.mark.parametrize(
    ("sent", "texts"),
    [
        (b"", []),
        (b"  V", []),
        (MAGIC, []),
        (MAGIC + b"PUB t", []),
        (MAGIC + b"PUB t\n", ["E_BAD_MESSAGE PUB failed to read message body size"]),
        (
            MAGIC + Pub("t", [b"a"]).encode() + b"PUB t\n\0\0\0\x02x",
            ["OK", "E_BAD_MESSAGE PUB failed to read message body"],
        ),
        (MAGIC + Pub("t", [b"a"]).encode(), ["OK"]),
        (MAGIC + Pub("t", [b"a", b"b"]).encode() + b"NOP\n", ["OK", "OK"]),
        (MAGIC + b"ASDF\n", ["E_INVALID invalid command ASDF"]),
        (b"GET / HTTP/1.1\r\n\r\n", ["E_BAD_PROTOCOL"]),
        (MAGIC + b"x" * 20_000, []),
    ],
)
@in_loop
async def test_who_sends_no_more(sent: bytes, texts: list[str]) -> None:
    """A client that has said all gets its answers, and is closed without any more waiting."""
    async with served() as place:
        client = await place.connect(magic=sent)
        client.socket.shutdown(socket.SHUT_WR)
        for text in texts:
            assert text == (await client.frame())[1].decode()
        await client.over()
        await until(lambda: not place.service.connections)


@in_loop
async def test_who_reads_no_more_before_the_end() -> None:
    """A client that resets in the middle of everything leaves nothing."""
    async with served() as place:
        client = await place.consumer(2500)
        await client.publish(*[bytes(1000)] * 3000)
        await client.message()
        await client.send(b"ASDF\n")
        client.reset()
        await until(lambda: not place.service.connections)


# Clients that do not read


BODY: Final = bytes(100_000)


async def stalled(place: Place, *, since: float = 0) -> Client:
    """Return a consumer that does not read what is for it, which is more than fits.

    Args:
        place: where.
        since: how many seconds after its last command it stops to read.
    """
    client = await place.connect(small=True)
    await client.identify(msg_timeout=900_000)
    await client.subscribe(window=2500)
    publisher = await place.connect()
    await client.quiet()
    await place.advance(since)
    for _ in range(15):
        await publisher.publish(*[BODY] * 10)
    connection = await place.connection(client)
    await until(lambda: connection._held & STALLED)
    return client


def buffered(connection: module.Connection) -> int:
    assert connection._transport is not None
    return connection._transport.get_write_buffer_size() + sum(map(len, connection._out))


@in_loop
async def test_who_does_not_read_takes_no_memory_and_holds_up_nobody() -> None:
    """What waits for a client that does not read is bounded; others are served."""
    async with served() as place:
        client = await stalled(place)
        connection = await place.connection(client)
        assert buffered(connection) <= HIGH_WATER + CHUNK + 2 * len(BODY)
        other = await place.consumer(1)
        first = await other.message()
        assert BODY == first.body
        await other.finish(first)
        await other.message()
        await other.publish(b"last")
        assert buffered(connection) <= HIGH_WATER + CHUNK + 2 * len(BODY)


@in_loop
async def test_who_reads_again_gets_all_of_it() -> None:
    """A client that has not read for a while gets the rest, in order, when it does."""
    async with served() as place:
        client = await stalled(place)
        await place.advance(20)
        found = [await client.message() for _ in range(150)]
        assert {BODY} == {message.body for message in found}
        assert 150 == len({message.id for message in found})
        await client.finish(*found)
        await client.quiet()


@in_loop
async def test_who_does_not_read_for_long_is_left() -> None:
    """A client that reads nothing for a heartbeat's interval is left, and loses nothing."""
    async with served() as place:
        client = await stalled(place, since=10)
        connection = await place.connection(client)
        await place.advance(49)
        assert connection in place.service.connections
        await place.advance(1)
        await until(lambda: connection not in place.service.connections)
        stats = place.channel.stats()
        assert stats.depth > 0
        assert 150 == stats.depth + stats.in_flight_count


@in_loop
async def test_what_a_stalled_client_was_told_of_goes_to_another() -> None:
    """A message that is ready for a client that does not read is another's."""
    async with served() as place:
        client = await stalled(place)
        connection = await place.connection(client)
        left = place.channel.depth
        other = await place.consumer(2500)
        await other.messages(left)
        for number in range(5):
            await other.send(Pub("t", [b"%d" % number]))
            kinds = dict([await other.frame(), await other.frame()])
            assert kinds[0] == b"OK"
            assert kinds[2].endswith(b"%d" % number)
        assert connection._held & STALLED


@in_loop
async def test_who_waits_and_does_not_read_passes_its_turn_on() -> None:
    """A client that waits for messages and does not read its answers is passed over."""
    async with served() as place:
        client = await place.connect(small=True)
        await client.subscribe(window=5)
        connection = await place.connection(client)
        other = await place.consumer(5)
        command = Pub("u#ephemeral", [b"x"] * 1000).encode()
        sending = asyncio.ensure_future(client.send(command * 1000))
        await until(lambda: connection._held & STALLED)
        for number in range(3):
            await (await place.connect()).publish(b"%d" % number)
            assert b"%d" % number == (await other.message()).body
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)


@in_loop
async def test_who_reads_no_answers_is_read_no_more() -> None:
    """A publisher that does not read its answers is heard no more until it does."""
    async with served() as place:
        client = await place.connect(small=True)
        connection = await place.connection(client)
        command = Pub("t#ephemeral", [b"x"] * 1000).encode()
        sent = 0

        async def publish() -> None:
            nonlocal sent
            while True:
                await client.send(command)
                sent += 1000

        task = asyncio.ensure_future(publish())
        await until(lambda: connection._held & STALLED)
        assert buffered(connection) <= 2 * HIGH_WATER + 10 * (1 << 18)
        for _ in range(1000):
            await client.ok()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert sent > 1000


@in_loop
async def test_silence_does_not_count_while_a_client_is_not_heard() -> None:
    """What a client says while it is not read, as it does not read, is no silence."""
    async with served() as place:
        client = await stalled(place)
        connection = await place.connection(client)
        await place.advance(25)
        await client.messages(150)
        await until(lambda: not connection._held)
        await place.advance(40)
        await client.heartbeat()
        await client.heartbeat()
        await client.quiet()


# Other bodies, other threads


@in_loop
async def test_what_an_app_puts_from_a_thread_comes_to_a_client() -> None:
    """A put in another thread of the process is heard in the loop, at once."""
    async with served() as place:
        clients = [await place.consumer(1) for _ in range(3)]
        topic = place.broker.topic("t")
        for number in range(9):
            client = clients[number % 3]
            await asyncio.to_thread(topic.put, b"%d" % number)
            message = await client.message()
            assert b"%d" % number == message.body
            await client.finish(message)
            await client.quiet()


@in_loop
async def test_bodies_of_an_app_are_text_or_json() -> None:
    """What is not bytes is UTF-8 or JSON for a client; what is neither is left, and logged."""
    async with served() as place:
        client = await place.consumer(10)
        topic = place.broker.topic("t")
        topic.put_many(["tea \u2615", {"a": [1, None]}, bytearray(b"raw"), 7, "\ud800"])
        found = await client.bodies(5)
        assert "tea \u2615".encode() == found[0]
        assert {"a": [1, None]} == json.loads(found[1])
        assert [b"raw", b"7", b"?"] == found[2:]


@in_loop
async def test_a_body_that_cannot_be_sent(caplog: pytest.LogCaptureFixture) -> None:
    """A body that is no JSON stays in flight, and the others come."""
    async with served() as place:
        client = await place.consumer(10)
        place.broker.topic("t").put_many([b"a", object(), b"b"])
        assert [b"a", b"b"] == await client.bodies(2)
        await client.quiet()
        assert 3 == place.channel.in_flight_count
    assert "a message cannot be sent" in caplog.text


# Sampling


@pytest.mark.parametrize("rate", [1, 20, 99])
@in_loop
async def test_a_sample_is_what_was_asked_for(rate: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client gets so many percent of the messages; the others are gone, and count nowhere."""
    monkeypatch.setattr(module, "random", random.Random(7).random)
    async with served() as place:
        client = await place.consumer(100, sample_rate=rate)
        publisher = await place.connect()
        await publisher.publish(*[b"%d" % number for number in range(5000)])
        connection = await place.connection(client)
        got: list[bytes] = []

        async def consume() -> None:
            while True:
                message = await client.message()
                got.append(message.body)
                await client.finish(message)

        task = asyncio.ensure_future(consume())
        await until(lambda: not (place.channel.depth or place.channel.in_flight_count))
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert abs(len(got) - 50 * rate) < 120
        stats = connection.stats()
        assert (len(got), rate) == (stats["message_count"], stats["sample_rate"])
        assert len(got) == stats["finish_count"]
        assert 5000 - len(got) == connection.sampled


@in_loop
async def test_a_client_that_gets_no_sample_is_no_dead_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A batch of which nothing is for the client is gone, and what follows is looked at."""
    monkeypatch.setattr(module, "random", iter([0.9] * 500 + [0.001] * 500).__next__)
    async with served() as place:
        client = await place.consumer(2500, sample_rate=1)
        await client.publish(*[b"%d" % number for number in range(501)])
        assert b"500" == (await client.message()).body
        assert (0, 1) == (place.channel.depth, place.channel.in_flight_count)


# What may not happen, and does


@in_loop
async def test_a_client_that_has_gone_cannot_be_told_so() -> None:
    """Where the system will not close one direction both are closed."""

    def refuse() -> None:
        raise OSError("not connected")

    async with served() as place:
        client = await place.connect()
        transport: Any = (await place.connection(client))._transport
        transport.write_eof = refuse
        await client.send(b"x" * 20_000)
        await client.over()
        await until(lambda: not place.service.connections)


@in_loop
async def test_what_is_not_compressed_ends_a_compressed_connection() -> None:
    """What cannot be decompressed ends the connection without a word."""
    async with served() as place:
        client = await place.connect()
        await client.compress()
        await client.quiet()
        client.layer = None
        await client.send(b"\xff" * 100)
        await client.over()


@in_loop
async def test_a_fault_ends_one_connection(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A bug shows in the log, ends the connection it came up in, and tells the client nothing."""

    def fail(*_: object) -> None:
        raise RuntimeError("a bug")

    async with served() as place:
        client, other = await place.connect(), await place.consumer()
        monkeypatch.setitem(module._ACTS, Nop, fail)
        await client.quiet()
        await client.send(Nop())
        await client.over()
        await other.quiet()
    assert "a bug" in caplog.text


@in_loop
async def test_logs_tell_of_clients(caplog: pytest.LogCaptureFixture) -> None:
    """The log has nsqd's lines, and why a connection was closed."""
    caplog.set_level(logging.INFO, "nsqlite")
    async with served() as place:
        client = await place.connect()
        await client.quiet()
        await place.advance(60)
        await client.heartbeat()
        await client.over()
    assert f"TCP: new client({client.address})" in caplog.messages
    closing = f"client({client.address}): closing: it has said nothing for two heartbeats"
    assert closing in caplog.messages
    assert f"TCP: closed client({client.address})" in caplog.messages
