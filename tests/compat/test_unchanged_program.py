"""How a team tests a program on pynsq, as it is, without an NSQ server installed.

The program runs in the test's process, its loop in the test's thread; the nsqd in a thread of its
own.  Where the program has to do something before the test goes on, its loop is run for it.
"""

import asyncio
from collections.abc import Callable, Iterator

import pytest
from helpers import PATIENCE, bodies
from tornado.ioloop import IOLoop, PeriodicCallback

from compat.program_pynsq import Billing
from nsqlite import testing


def run_until(holds: Callable[[], object]) -> None:
    """Run the program's loop until something holds."""
    loop = IOLoop.current()
    look = PeriodicCallback(lambda: loop.stop() if holds() else None, 1)
    late = loop.call_later(PATIENCE, loop.stop)
    look.start()
    loop.start()
    look.stop()
    loop.remove_timeout(late)
    assert holds(), "it does not come to hold"


def is_billed(nsqd: testing.nsqd, count: int) -> bool:
    """Return whether so many orders were read, and none is left."""
    stats = nsqd.broker.topic("orders").channel("billing").stats()
    left = stats.depth + stats.in_flight_count + stats.deferred_count
    return stats.message_count == count and not left


def is_deferred(nsqd: testing.nsqd) -> bool:
    """Return whether an order is to come again."""
    return nsqd.broker.topic("orders").channel("billing").stats().deferred_count == 1


def bills(nsqd: testing.nsqd) -> list[bytes]:
    return sorted(bodies(nsqd.broker.topic("bills").channel("looking")))


@pytest.fixture
def charged() -> list[str]:
    return []


@pytest.fixture
def loop() -> Iterator[IOLoop]:
    """Make a loop for one test, with which all ends that the program has begun."""
    asyncio.set_event_loop(asyncio.new_event_loop())
    loop = IOLoop.current()
    yield loop
    loop.close(all_fds=True)
    asyncio.set_event_loop(None)


@pytest.fixture
def program(nsqd: testing.nsqd, charged: list[str], loop: IOLoop) -> Iterator[Billing]:  # noqa: ARG001 - it is current
    def charge(order: str) -> int:
        charged.append(order)
        if order == "odd" and charged.count(order) == 1:
            raise ConnectionError
        return 10 * len(order)

    nsqd.broker.topic("orders").channel("billing")
    nsqd.broker.topic("bills").channel("looking")
    program = Billing(nsqd.tcp_address, charge)
    run_until(lambda: program.is_ready)
    yield program
    program.close()
    run_until(lambda: len(nsqd.connections) == 1)  # the writer cannot be closed


@pytest.mark.usefixtures("program")
def test_each_order_is_billed(nsqd: testing.nsqd) -> None:
    """What the test puts is read by the program, and what that publishes is in the broker."""
    nsqd.broker.topic("orders").put_many([b"one", b"three"])
    run_until(lambda: is_billed(nsqd, 2))
    assert [b"one: 30", b"three: 50"] == bills(nsqd)


@pytest.mark.usefixtures("program")
def test_an_order_that_fails_comes_again(nsqd: testing.nsqd, charged: list[str]) -> None:
    """What the program requeues it reads again, when its delay is over."""
    nsqd.broker.topic("orders").put(b"odd")
    run_until(lambda: is_deferred(nsqd))
    nsqd.advance(5)
    run_until(lambda: is_billed(nsqd, 1))
    assert ["odd", "odd"] == charged
    assert [b"odd: 30"] == bills(nsqd)


def test_a_bill_that_cannot_be_published_is_tried_again(
    nsqd: testing.nsqd, program: Billing
) -> None:
    """A failed PUB ends the writer's connection; the order comes again, and is billed once."""
    nsqd.faults.fail("PUB", nth=1)
    before = set(nsqd.connections)
    nsqd.broker.topic("orders").put(b"one")
    run_until(lambda: is_deferred(nsqd) and set(nsqd.connections) - before)
    run_until(lambda: program.is_ready)
    nsqd.advance(5)
    run_until(lambda: is_billed(nsqd, 1))
    assert [b"one: 30"] == bills(nsqd)


@pytest.mark.usefixtures("program")
def test_an_order_whose_fin_is_lost_is_billed_twice(nsqd: testing.nsqd, charged: list[str]) -> None:
    """The program is not idempotent, which a minute on a clock moved by hand brings to light."""
    nsqd.faults.lose("FIN", times=1)
    nsqd.broker.topic("orders").put(b"one")
    run_until(lambda: nsqd.faults.injected)
    nsqd.advance(60)
    run_until(lambda: is_billed(nsqd, 1))
    assert ["one", "one"] == charged
    assert [b"one: 30"] * 2 == bills(nsqd)


@pytest.mark.usefixtures("program")
def test_it_answers_heartbeats(nsqd: testing.nsqd) -> None:
    """An hour without a message later it is connected still."""
    before = nsqd.connections

    def have_answered() -> bool:
        return all(connection._last == nsqd.clock.monotonic_ns() for connection in before)

    for _ in range(120):
        nsqd.advance(30)
        run_until(have_answered)
    assert before == nsqd.connections
