"""Five tests of a program on Google Cloud Pub/Sub, with pytest-pubsub, as far as it can do them.

It knows neither delays, nor dead letters, nor time: an acknowledgement's deadline never passes.

Run on demand: `pytest tests/compat/five_pubsub.py`, with pytest-pubsub installed.
"""

from unittest.mock import Mock

import pytest
from pytest_pubsub.message import MockMessage
from pytest_pubsub.publisher import MockPublisherClient
from pytest_pubsub.subscriber import MockSubscriberClient

TOPIC = "projects/shop/topics/orders"
BILLING = "projects/shop/subscriptions/billing"
charge = Mock()


def bill(message: MockMessage) -> None:
    charge(message.data)
    message.ack()


def place(publisher: MockPublisherClient, order: bytes) -> None:
    publisher.publish(TOPIC, order)


@pytest.fixture
def publisher(
    mock_publisher_client: MockPublisherClient, mock_subscriber_client: MockSubscriberClient
) -> MockPublisherClient:
    mock_publisher_client.create_topic(name=TOPIC)
    mock_subscriber_client.create_subscription(name=BILLING, topic=TOPIC)
    charge.reset_mock(side_effect=True)
    return mock_publisher_client


def test_published(
    publisher: MockPublisherClient, mock_subscriber_client: MockSubscriberClient
) -> None:
    place(publisher, b"one")
    pulled = mock_subscriber_client.pull(subscription=BILLING, max_messages=10)
    assert [received.message.data for received in pulled.received_messages] == [b"one"]


def test_fail_fast(
    publisher: MockPublisherClient, mock_subscriber_client: MockSubscriberClient
) -> None:
    charge.side_effect = ConnectionError
    place(publisher, b"one")
    pulled = mock_subscriber_client.pull(subscription=BILLING)
    with pytest.raises(ConnectionError):
        bill(pulled.received_messages[0].message)
