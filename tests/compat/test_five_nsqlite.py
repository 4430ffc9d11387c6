"""Five tests of a program on nsqlite, with the fixtures of its plugin.

`five_dramatiq.py` and `five_pubsub.py` have the same five of programs on dramatiq and on Google
Cloud Pub/Sub; `test_comparison.py` compares them.
"""

from collections.abc import Callable
from unittest.mock import Mock

import pytest

import nsqlite
from nsqlite.testing import FakeBroker

app = nsqlite.App()
charge = Mock()
retry = nsqlite.Retry(max_attempts=3, delay=5, jitter=False)


@app.handler("orders", "billing", retry=retry, dead_letter="orders.dead")
def bill(message: nsqlite.Message) -> None:
    charge(message.body)


def place(broker: nsqlite.Broker, order: bytes) -> None:
    broker.topic("orders").put(order)


@pytest.fixture
def shop(fake_broker: FakeBroker, run_app: Callable[[nsqlite.App], nsqlite.App]) -> FakeBroker:
    charge.reset_mock(side_effect=True)
    run_app(app)
    return fake_broker


def test_published(shop: FakeBroker) -> None:
    place(shop, b"one")
    shop.history.assert_published("orders", body=b"one", n=1)


def test_retried_after_a_delay(shop: FakeBroker) -> None:
    charge.side_effect = [ConnectionError, None]
    place(shop, b"one")
    assert shop.run_until_idle() == 5
    assert charge.call_count == 2


def test_dead_lettered(shop: FakeBroker) -> None:
    charge.side_effect = ConnectionError
    place(shop, b"one")
    shop.run_until_idle()
    shop.history.assert_dead("orders", body=b"one", n=1)


def test_timed_out_and_redelivered(shop: FakeBroker) -> None:
    place(shop, b"one")
    nsqlite.Consumer(shop.topic("orders").channel("billing")).get(timeout=0)
    assert shop.run_until_idle() == 60
    assert charge.call_count == 1


def test_fail_fast(shop: FakeBroker) -> None:
    charge.side_effect = ConnectionError
    place(shop, b"one")
    with pytest.raises(ConnectionError):
        shop.run_until_idle(raise_first=True)
