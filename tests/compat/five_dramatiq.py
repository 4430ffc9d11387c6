"""Five tests of a program on dramatiq, with its StubBroker, as its guide has them.

Run on demand: `pytest tests/compat/five_dramatiq.py`, with dramatiq installed.
"""

import time
from collections.abc import Iterator
from unittest.mock import Mock

import dramatiq
import pytest
from dramatiq.brokers.stub import StubBroker

broker = StubBroker()
dramatiq.set_broker(broker)
broker.emit_after("process_boot")  # else nothing watches the time limit
charge = Mock()


@dramatiq.actor(queue_name="orders", max_retries=2, min_backoff=100, time_limit=100)
def bill(order: str) -> None:
    charge(order)


def place(order: str) -> None:
    bill.send(order)


@pytest.fixture
def stub_broker() -> StubBroker:
    broker.flush_all()
    charge.reset_mock(side_effect=True)
    return broker


@pytest.fixture
def stub_worker() -> Iterator[dramatiq.Worker]:
    worker = dramatiq.Worker(broker, worker_timeout=100)
    worker.start()
    yield worker
    worker.stop()


def test_published(stub_broker: StubBroker) -> None:
    place("one")
    sent = stub_broker.queues["orders"].queue
    assert [dramatiq.Message.decode(message).args for message in sent] == [("one",)]


def test_retried_after_a_delay(stub_broker: StubBroker, stub_worker: dramatiq.Worker) -> None:
    charge.side_effect = [ConnectionError, None]
    begun = time.monotonic()
    place("one")
    stub_broker.join("orders", fail_fast=False)
    stub_worker.join()
    assert charge.call_count == 2
    assert time.monotonic() - begun >= 0.1


def test_dead_lettered(stub_broker: StubBroker, stub_worker: dramatiq.Worker) -> None:
    charge.side_effect = ConnectionError
    place("one")
    stub_broker.join("orders", fail_fast=False)
    stub_worker.join()
    assert [letter.args for letter in stub_broker.dead_letters] == [("one",)]


def test_timed_out_and_redelivered(stub_broker: StubBroker, stub_worker: dramatiq.Worker) -> None:
    charge.side_effect = lambda _order: time.sleep(1.5 if charge.call_count == 1 else 0)
    place("one")
    stub_broker.join("orders", fail_fast=False)
    stub_worker.join()
    assert charge.call_count == 2


def test_fail_fast(stub_broker: StubBroker, stub_worker: dramatiq.Worker) -> None:  # noqa: ARG001 - it works
    charge.side_effect = ConnectionError
    place("one")
    with pytest.raises(ConnectionError):
        stub_broker.join("orders")
