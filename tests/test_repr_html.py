"""What a notebook shows of a broker, and of what is in it."""

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

import nsqlite
from nsqlite.stats import safely, table
from nsqlite.testing import ManualClock


class Cells(HTMLParser):
    """Reads captions and rows; a page that is not well formed is an error."""

    def __init__(self) -> None:
        super().__init__()
        self.captions: list[str] = []
        self.rows: list[list[str]] = []
        self._open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert {"style"} >= {name for name, _ in attrs}
        self._open.append(tag)
        if tag == "tr":
            self.rows.append([])
        elif tag in {"td", "th"}:
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert tag == self._open.pop()

    def handle_data(self, data: str) -> None:
        if "caption" in self._open:
            self.captions.append(data)
        else:
            self.rows[-1][-1] += data


def read(value: Any) -> tuple[list[str], list[list[str]]]:
    """Return the captions and the rows that a notebook shows."""
    cells = Cells()
    cells.feed(value._repr_html_())
    cells.close()
    assert not cells._open
    return cells.captions, cells.rows


@pytest.fixture
def broker() -> Iterator[nsqlite.Broker]:
    """Return a broker with a bit of everything."""
    options: Any = {"e2e_processing_latency_percentiles": (0.5,)}
    broker = nsqlite.Broker(clock=ManualClock(), **options)
    orders = broker.topic("orders")
    billing, audit = orders.channel("billing"), orders.channel("audit")
    orders.put_many([b"tea", b"<jam>", b"eggs"])
    consumer = nsqlite.Consumer(billing, max_in_flight=5, name="till")
    consumer.get(timeout=0).fin()
    consumer.get(timeout=0).req(delay=1)
    consumer.get(timeout=0)
    audit.pause()
    broker.topic("held").put(b"for later")
    broker.topic("gone").delete()
    yield broker
    consumer.close()


HEAD = ["ready", "in flight", "deferred", "requeued", "timed out", "messages", "consumers", ""]
HELD = ["held", "", "1", "", "", "", "", "1", "", ""]
ORDERS = [
    ["orders", "", "0", "", "", "", "", "3", "", ""],
    ["orders", "audit", "3", "0", "0", "0", "0", "3", "0", "paused"],
    ["orders", "billing", "0", "1", "1", "1", "0", "3", "1", ""],
]
CONSUMERS = [
    ["consumer", "window", "in flight", "messages", "finished", "requeued"],
    ["till", "5", "1", "3", "1", "1"],
]


def test_a_broker(broker: nsqlite.Broker) -> None:
    """It shows its topics and their channels, and not those that are deleted."""
    rows = [["topic", "channel", *HEAD], HELD, *ORDERS]
    assert (["broker: OK"], rows) == read(broker.stats())
    assert ([repr(broker)], rows) == read(broker)
    broker.close()
    assert "<Broker closed topics=2>" == read(broker)[0][0]


def test_a_broker_with_a_store(tmp_path: Path) -> None:
    """To show it loads nothing from its store."""
    path = tmp_path / "jobs.db"
    with nsqlite.Broker(store=nsqlite.SQLite(path)) as broker:
        broker.topic("orders")
        assert 2 == len(read(broker)[1])
    with nsqlite.Broker(store=nsqlite.SQLite(path)) as broker:
        assert 1 == len(read(broker)[1])


def test_a_topic(broker: nsqlite.Broker) -> None:
    """It shows what it holds itself, and its channels, also when it is deleted."""
    topic = broker.topic("orders")
    rows = [["topic", "channel", *HEAD], *ORDERS]
    assert ([repr(topic)], rows) == read(topic)
    assert (["topic"], rows) == read(topic.stats())
    topic.pause()
    assert "paused" == read(topic)[1][1][-1]
    topic.delete()
    assert ["<Topic 'orders' deleted channels=0 depth=0>"] == read(topic)[0]


def test_a_channel(broker: nsqlite.Broker) -> None:
    """It shows its counts and its consumers, also when it is closed."""
    channel = broker.topic("orders").channel("billing")
    rows = [["channel", *HEAD], ORDERS[2][1:], *CONSUMERS]
    assert ([repr(channel), "consumers"], rows) == read(channel)
    assert (["channel", "consumers"], rows) == read(channel.stats())
    assert CONSUMERS == read(channel.stats().clients[0])[1]
    channel.close()
    assert "closed" in read(channel)[0][0]
    assert 2 == len(read(broker.topic("orders").channel("audit"))[1])


def test_a_consumer_without_a_limit() -> None:
    """Where there is no window, there is a dash, and a number where there is no name."""
    consumer = nsqlite.Consumer(nsqlite.Topic("orders").channel("billing"))
    stats = consumer.stats()
    assert [str(stats.client_id), "-", "0", "0", "0", "0"] == read(stats)[1][1]


def test_a_message() -> None:
    """It shows its id, what has become of it, its attempts and its body."""
    topic = nsqlite.Topic("orders", clock=ManualClock())
    consumer = nsqlite.Consumer(topic.channel("billing"))
    identity = topic.put(b"<tea>")
    message = consumer.get(timeout=0)
    facts = [["id", identity], ["state", "in flight"], ["attempts", "1"], ["body", "b'<tea>'"]]
    assert facts == read(message)[1]
    [info] = consumer.channel.in_flight()
    head = ["id", "state", "attempts", "consumer", "due in (s)", "age (s)", "body"]
    row = [identity, "in flight", "1", str(consumer.client_id), "60.000", "0.000", "b'<tea>'"]
    assert [head, row] == read(info)[1]
    message.fin()
    assert ["state", "finished"] == read(message)[1][1]


def test_a_message_that_was_never_delivered() -> None:
    """What cannot be shown as a table is shown by its repr."""
    message = nsqlite.Message[bytes]()
    assert "<pre>&lt;Message never delivered&gt;</pre>" == message._repr_html_()


def test_latencies(broker: nsqlite.Broker) -> None:
    """The time from put to fin is shown in milliseconds, if it is measured."""
    stats = broker.topic("orders").stats().e2e_processing_latency
    captions, [head, row] = read(stats)
    assert (["time from put to fin of 1 messages"], ["of them", "ms"]) == (captions, head)
    assert "50 %" == row[0]
    assert re.fullmatch(r"\d+\.\d{3}", row[1])
    assert 1 == len(read(nsqlite.LatencyStats())[1])


def test_nothing_is_taken_for_markup() -> None:
    """Whatever a text has in it, it is shown as it is."""
    nasty = "</table><script>alert('&')</script>\""
    made = table(nasty, [nasty], [[nasty]])
    assert "<script" not in made
    assert 3 == made.count("&lt;script&gt;")


class Odd:
    """Shows itself by what turns the direction of writing."""

    def __repr__(self) -> str:
        return "a\0\u202eb"


def test_what_cannot_be_printed_is_shown_as_escapes() -> None:
    """No name and no body brings a control character into a notebook."""
    topic = nsqlite.Topic[Any]("orders")
    consumer = nsqlite.Consumer(topic.channel("billing"), name="x\0\u202eabc")
    topic.put(Odd())
    message = consumer.get(timeout=0)
    assert r"x\x00\u202eabc" == read(consumer.channel)[1][3][0]
    assert r"x\x00\u202eabc" == read(consumer.stats())[1][1][0]
    assert ["body", r"a\x00\u202eb"] == read(message)[1][-1]
    assert r"a\x00\u202eb" == read(consumer.channel.in_flight()[0])[1][1][-1]
    message.fin()


def test_to_show_never_raises() -> None:
    """Where a table cannot be made there is the repr."""

    def fail() -> str:
        raise LookupError

    assert "<pre>{&#x27;&lt;&#x27;}</pre>" == safely({"<"}, fail)
