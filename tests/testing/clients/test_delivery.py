"""What carries a client's answers to a message of nsqlite."""

import importlib
import sys
from types import SimpleNamespace
from typing import Any

import pytest

import nsqlite
from nsqlite.errors import InvalidMessage, InvalidOption, MissingExtra, StillBusy
from nsqlite.server.tcp import TCPService
from nsqlite.testing import FakeBroker, ManualClock
from nsqlite.testing.clients import OPTIONS, Answer
from nsqlite.testing.clients.delivery import Delivery, body_of


def delivered(body: object = b"order 1", *, clock: ManualClock | None = None) -> nsqlite.Message:
    topic = nsqlite.Topic[object]("orders", clock=clock or ManualClock())
    consumer = nsqlite.Consumer(topic.channel("billing"))
    topic.put(body)
    return consumer.get(timeout=0)


def test_there_is_no_answer_at_first() -> None:
    """A message is in flight until its client answers; a worker leaves it so."""
    delivery = Delivery(None)
    assert Answer() == delivery.answer
    assert isinstance(delivery.result(), nsqlite.TakeOver)


def test_an_answer_takes_effect_at_once() -> None:
    """FIN, REQ and TOUCH are done when the client gives them."""
    clock = ManualClock()
    message = delivered(clock=clock)
    clock.advance(59)
    Delivery(message).touch()
    clock.advance(59)
    assert "in flight" == message.state
    Delivery(message).requeue(2500, backoff=True)
    assert "requeued" == message.state
    message = delivered()
    Delivery(message).finish()
    assert "finished" == message.state


def test_an_answer_is_told() -> None:
    """What was answered can be seen, and a worker is told of it."""
    delivery = Delivery(None)
    delivery.touch()
    delivery.requeue(2500, backoff=False)
    assert Answer(state=nsqlite.State.REQUEUED, delay=2.5, touches=1) == delivery.answer
    outcome = delivery.result()
    assert isinstance(outcome, nsqlite.Requeue)
    assert (2.5, False) == (outcome.delay, outcome.backoff)
    delivery.finish()
    assert delivery.result() is None


def test_what_was_raised_goes_on() -> None:
    """A worker, or a test, gets what the client has caught."""
    delivery = Delivery(None)
    delivery.error = LookupError("order 1")
    with pytest.raises(LookupError, match="order 1"):
        delivery.result()


def test_an_answer_that_comes_too_late_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """As over a socket, its handler hears nothing of it."""
    clock = ManualClock()
    message = delivered(clock=clock)
    delivery = Delivery(message)
    assert not delivery.is_timed_out
    clock.advance(60)
    assert delivery.is_timed_out
    delivery.finish()
    assert [f"message {message.id}: ID not in flight (timed out)"] == caplog.messages


@pytest.mark.parametrize("delay", [1.5, -1, "5", None])
def test_a_delay_is_a_whole_number_of_milliseconds(delay: object) -> None:
    """What a connection would not survive is refused, and the message left in flight."""
    message = delivered()
    with pytest.raises(InvalidOption, match=r"^time_ms must be "):
        Delivery(message).requeue(delay, backoff=True)
    assert "in flight" == message.state


def test_a_message_without_a_broker_can_be_late() -> None:
    """A test says whether it has timed out."""
    assert Delivery(None, timed_out=True).is_timed_out
    assert not Delivery(None).is_timed_out


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (bytearray(b"order 1"), b"order 1"),
        ("\N{SNOWMAN}", b"\xe2\x98\x83"),
        ({"order": 1}, b'{"order":1}'),
    ],
)
def test_a_body_is_what_the_server_sends(body: object, expected: bytes) -> None:
    """Text is sent as UTF-8, and what else is not bytes as JSON."""
    assert expected == body_of(delivered(body))
    assert expected == TCPService.encode(SimpleNamespace(_to_json=None), body)  # type: ignore[arg-type]


def test_a_body_that_cannot_be_sent() -> None:
    """It is refused, and a worker that so comes to no end says why."""
    with pytest.raises(InvalidMessage):
        body_of(delivered({1}))
    with FakeBroker() as broker:
        topic = broker.topic("orders")
        topic.put({1})
        worker = nsqlite.Worker(topic.channel("billing"), body_of, **OPTIONS)
        with worker, pytest.raises(StillBusy) as caught:
            broker.run_until_idle()
    [note] = caught.value.__notes__
    assert "the handler of worker 'orders:billing' has raised InvalidMessage" in note


@pytest.mark.parametrize(
    ("body", "attempts", "expected"),
    [
        ("x", 1, "body must be bytes, as NSQ's clients get them, not 'x'"),
        (None, 1, "body must be bytes, as NSQ's clients get them, not None"),
        (b"x", "a", "attempts must be a whole number of at least 1, not 'a'"),
    ],
)
@pytest.mark.parametrize("client", ["pynsq", "gnsq", "ansq"])
def test_a_message_of_no_broker_is_checked(
    client: str, body: Any, attempts: Any, expected: str
) -> None:
    """Its body is bytes, as it comes from a socket."""
    module = importlib.import_module(f"nsqlite.testing.clients.{client}")
    with pytest.raises(InvalidOption) as caught:
        module.message(body, attempts=attempts)
    assert expected == str(caught.value)


def test_the_options_leave_it_to_the_client() -> None:
    """A worker with them gives nothing up, touches nothing, and backs off."""
    retry = OPTIONS["retry"]
    assert (0, False) == (retry.max_attempts, OPTIONS["auto_touch"])
    assert retry.backoff is not None


@pytest.mark.parametrize(
    ("client", "module"), [("pynsq", "nsq"), ("gnsq", "gnsq"), ("ansq", "ansq.tcp.types")]
)
def test_a_client_that_is_missing_is_named(
    client: str, module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error says what to install."""
    name = f"nsqlite.testing.clients.{client}"
    monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.delitem(sys.modules, name, raising=False)
    expected = (
        f"a handler of {client} needs {client}, which is not installed:"
        " pip install 'nsqlite[clients]'"
    )
    with pytest.raises(MissingExtra) as caught:
        importlib.import_module(name)
    assert expected == str(caught.value)
