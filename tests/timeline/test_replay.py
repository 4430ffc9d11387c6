"""What events mean: where messages are, and what no event tells."""

from math import inf
from pathlib import Path
from typing import Any

import pytest
from helpers import Call
from hypothesis import given
from hypothesis import strategies as st
from scenes import RUNS, Run, Scene

import nsqlite
from nsqlite.events import Event, Kind
from nsqlite.testing import FakeBroker
from nsqlite.timeline import Life, Recorder, Recording, Timeline, read_recording
from nsqlite.timeline.drawing import SHAPES
from nsqlite.timeline.parts import GIVEN_UP, stays_of
from nsqlite.worker.deadletter import DeadLetter, letter_of
from nsqlite.worker.failure import Failure


def stays(life: Life) -> list[tuple[str, str, int, int | None]]:
    return [
        (stay.where, stay.lane.name, stay.begin, stay.end)
        for course in life.courses
        for stay in course.stays
    ]


def texts(scene: Scene) -> list[str]:
    return [step.text for step in scene.recorder.timeline().steps]


def test_topic_holds_what_no_channel_gets() -> None:
    """What is published without a channel is the topic's until the first channel is made."""
    scene = Scene()
    scene.topic.put("tea")
    scene.topic.put("cake", delay=3)
    scene.topic.channel("billing")
    timeline = scene.recorder.timeline()
    assert [
        "topic orders is created",
        "tea is published to topic orders, which has no channel yet and holds it",
        "cake is published to topic orders, with a delay of 3 s",
        "cake is deferred in topic orders: it is due in 3 s",
        "channel billing of topic orders is created; billing gets what the topic held",
        "cake is deferred in channel billing: it is due in 3 s",
    ] == texts(scene)
    tea, cake = timeline.lives
    assert [("held", "orders", 2, 5), ("ready", "billing", 5, None)] == stays(tea)
    assert [("deferred", "orders", 4, 5), ("deferred", "billing", 6, None)] == stays(cake)


def test_pause_of_a_topic() -> None:
    """A paused topic holds what is published, and hands it on when it goes on."""
    scene = Scene()
    scene.topic.channel("billing")
    scene.topic.pause()
    scene.topic.put("tea")
    scene.topic.unpause()
    assert [
        "topic orders is paused: it hands on nothing",
        "tea is published to topic orders, which is paused and holds it",
        "topic orders goes on; billing gets what the topic held",
    ] == texts(scene)[2:]
    assert [("paused", 3, 5)] == [
        (span.what, span.begin, span.end) for span in scene.recorder.timeline().spans
    ]


def test_pause_before_two_channels() -> None:
    """What a topic held goes to all its channels."""
    scene = Scene()
    scene.topic.pause()
    for name in ("billing", "audit"):
        scene.topic.channel(name)
    scene.topic.put("tea")
    scene.topic.unpause()
    assert "topic orders goes on; billing and audit get what the topic held" == texts(scene)[-1]


def test_put_that_waits() -> None:
    """A put that waits is a span until its message is published, or the put refused."""
    scene = Scene()
    channel = scene.topic.channel("billing", max_depth=1)
    consumer = nsqlite.Consumer(channel)
    scene.topic.put("tea")
    waiting = Call(lambda: scene.topic.put("jam"))
    while Kind.WAITING not in {event.kind for event in scene.recorder.events}:
        pass
    scene.clock.advance(2)
    consumer.get(timeout=0)
    waiting.result()
    with pytest.raises(nsqlite.Full):
        scene.topic.put("cake", timeout=0)
    assert "a put of 1 message to topic orders waits for room" == texts(scene)[3]
    assert (
        "jam is published to topic orders after its put has waited 2 s: billing gets it"
        in texts(scene)
    )
    assert "a put of 1 message to topic orders is refused: there is no room" == texts(scene)[-1]
    assert [("waits", 4, 6)] == [
        (span.what, span.begin, span.end) for span in scene.recorder.timeline().spans
    ]


def event(kind: Kind, time: float = 0, **fields: Any) -> Event:
    return Event(kind, time, "orders", **fields)


def test_put_that_waits_in_vain() -> None:
    """A refusal ends the wait of a put of as many messages; one that is not told of goes on."""
    timeline = Timeline.of(
        [
            event(Kind.WAITING, count=2),
            event(Kind.WAITING, count=1),
            event(Kind.REFUSED, 3, count=2),
        ]
    )
    assert (
        "a put of 2 messages to topic orders is refused after it has waited 3 s: there is no room"
        == timeline.steps[-1].text
    )
    assert [("waits", 1, 3), ("waits", 2, None)] == [
        (span.what, span.begin, span.end) for span in timeline.spans
    ]


def test_batch_that_waits() -> None:
    """The wait of a batch ends with the last of its messages; a deferred message waits for none."""
    timeline = Timeline.of(
        [
            event(Kind.WAITING, count=2),
            event(Kind.PUBLISHED, 1, id="1", body="cake", due=5),
            event(Kind.PUBLISHED, 2, id="2", body="tea"),
            event(Kind.PUBLISHED, 2, id="3", body="jam"),
        ]
    )
    assert [("waits", 1, 4)] == [(one.what, one.begin, one.end) for one in timeline.spans]


def test_a_put_that_waited_while_no_time_passed() -> None:
    """Where the clock has not moved it is told that a put has waited, and not for how long."""
    timeline = Timeline.of(
        [
            event(Kind.WAITING),
            event(Kind.PUBLISHED, id="1", body="tea"),
            event(Kind.WAITING),
            event(Kind.REFUSED),
        ]
    )
    waited = "tea is published to topic orders after its put has waited, which has no channel yet"
    assert [
        f"{waited} and holds it",
        "a put of 1 message to topic orders is refused after it has waited: there is no room",
    ] == [timeline.steps[1].text, timeline.steps[3].text]


def test_record_that_begins_in_the_middle() -> None:
    """What is answered was in flight before the record, what is delivered ready, and so on."""
    fields: dict[str, Any] = {"channel": "billing", "attempts": 1}
    ann: dict[str, Any] = {"client_id": 1, "consumer": "Ann"}
    timeline = Timeline.of(
        [
            event(Kind.FINISHED, id="1", body="tea", **fields, **ann),
            event(Kind.DELIVERED, id="2", body="jam", **fields, client_id=2),
            event(Kind.DUE, id="3", body="cake", channel="billing"),
            event(Kind.UNPAUSED),
            event(Kind.TOUCHED, id="1", body="tea", **fields),
            event(Kind.PAUSED, channel="billing"),
            event(Kind.DELETED, channel="billing", count=2),
            event(Kind.CREATED, channel="billing"),
            event(Kind.EMPTIED, channel="billing", count=0),
            event(Kind.DROPPED, body=None, id="0123456789"),
            event(Kind.CLOSED, count=0),
        ],
        forgotten=9,
    )
    tea, jam, cake, dropped = timeline.lives
    assert [
        ("in flight", "Ann", 0, 1),
        ("in flight", "billing", 1, 5),
        ("in flight", "billing", 5, 7),
    ] == stays(tea)
    assert [("ready", "billing", 0, 2), ("in flight", "consumer 2", 2, 7)] == stays(jam)
    assert [("deferred", "billing", 0, 3), ("ready", "billing", 3, 7)] == stays(cake)
    assert ("message 6789", False) == (dropped.tag, dropped.is_whole)
    assert [("paused", 0, 4), ("paused", 6, 7), ("gone", 7, 8), ("closed", 11, None)] == [
        (span.what, span.begin, span.end) for span in timeline.spans
    ]
    assert [
        "Ann finishes tea: it is gone from billing",
        "jam is delivered to consumer 2 of billing, attempt 1",
        "cake is due: it is ready in channel billing",
        "topic orders goes on",
        "a consumer of billing touches tea",
        "channel billing is paused: it delivers nothing",
        "channel billing is deleted with 2 messages",
        "channel billing of topic orders is created",
        "channel billing is emptied of 0 messages",
        "message 6789 is dropped from topic orders, which has no room",
        "topic orders is closed",
    ] == [step.text for step in timeline.steps]


def test_what_did_not_begin_does_not_end() -> None:
    """What goes on twice was paused once, and a topic that goes on was not if it never paused."""
    timeline = Timeline.of([event(Kind.UNPAUSED), event(Kind.UNPAUSED)])
    assert [("paused", 0, 1)] == [(one.what, one.begin, one.end) for one in timeline.spans]


def test_record_that_goes_on_after_a_gap() -> None:
    """Where events are missing all states end; what follows tells what there was since then."""
    tea: dict[str, Any] = {"channel": "billing", "id": "1", "body": "tea"}
    timeline = Timeline.of(
        [
            event(Kind.CREATED),
            event(Kind.CREATED, channel="billing"),
            event(Kind.PUBLISHED, id="1", body="tea"),
            event(Kind.PAUSED, channel="billing"),
            event(Kind.WAITING, count=1),
            event(Kind.CREATED)._replace(topic="mails"),
            event(Kind.CREATED, channel="billing"),
            event(Kind.REQUEUED, **tea, client_id=1),
            event(Kind.UNPAUSED, channel="billing"),
            event(Kind.PUBLISHED, id="2", body="jam"),
        ],
        topic="orders",
        lost=[(5, 2), (6, 1)],
    )
    assert [(5, 3)] == [(gap.after, gap.count) for gap in timeline.gaps]
    tea_life, jam = timeline.lives
    assert [
        ("ready", "billing", 3, 6),
        ("in flight", "consumer 1", 6, 7),
        ("ready", "billing", 7, None),
    ] == stays(tea_life)
    assert ["lost", "told", "told"] == [
        stay.ending for course in tea_life.courses for stay in course.stays
    ]
    assert ((5,), ()) == (tea_life.gaps, jam.gaps)
    assert [("ready", "billing", 9, None)] == stays(jam)
    assert [("paused", 4, 6), ("waits", 5, 6), ("paused", 6, 8)] == [
        (span.what, span.begin, span.end) for span in timeline.spans
    ]
    assert "jam is published to topic orders: billing gets it" == timeline.steps[-1].text


def test_a_gap_of_several_places() -> None:
    """A message that was in several channels when events were lost tells of them once."""
    scene = Scene()
    for name in ("billing", "audit"):
        scene.topic.channel(name)
    scene.topic.put("tea")
    timeline = Timeline.of(scene.recorder.events, lost=[(4, 1)])
    assert [(4,)] == [life.gaps for life in timeline.lives]


def test_what_is_open_again() -> None:
    """After a topic was closed and opened its messages are told of since it is open again."""
    tea: dict[str, Any] = {"channel": "billing", "id": "1", "body": "tea"}
    timeline = Timeline.of(
        [
            event(Kind.CREATED, channel="billing"),
            event(Kind.PUBLISHED, id="1", body="tea"),
            event(Kind.CLOSED, channel="billing", count=0),
            event(Kind.CREATED, channel="billing"),
            event(Kind.CREATED),
            event(Kind.DELIVERED, **tea, client_id=1),
        ]
    )
    [life] = timeline.lives
    assert [
        ("ready", "billing", 2, 3),
        ("ready", "billing", 4, 6),
        ("in flight", "consumer 1", 6, None),
    ] == stays(life)
    assert [("closed", 3, 4)] == [(span.what, span.begin, span.end) for span in timeline.spans]


def test_rare_events() -> None:
    """Whatever happens to a message is told in a sentence, by who has done it."""
    scene = Scene()
    ann = scene.consumer("billing", "Ann", max_in_flight=1)
    scene.topic.put_many(["tea", "jam"])
    tea = ann.get(timeout=0)
    with pytest.raises(nsqlite.WindowFull):
        ann.get(timeout=0)
    tea.req()
    channel = scene.topic.channel("billing")
    channel.discard(channel.peek()[0].id)
    ann.get(timeout=0)
    ann.close()
    assert {
        "Ann requeues tea: it is ready again in billing",
        "jam is taken out of channel billing by its id",
        "Ann gives tea back: it is ready again in billing, before the others",
    } <= set(texts(scene))
    timeline = Timeline.of(
        [
            event(Kind.WINDOW_FULL, channel="billing", client_id=1, consumer="Ann", count=1),
            event(Kind.PUBLISHED, channel="billing", id="1", body="tea", attempts=0),
            event(Kind.DEFERRED, channel="billing"),
            event(Kind.DUE, channel="billing"),
        ]
    )
    assert [
        "Ann gets no more: it holds 1 message",
        "tea is moved to channel billing alone",
        "a message is deferred in channel billing",
        "a message is due: it is ready in channel billing",
    ] == [step.text for step in timeline.steps]


@pytest.mark.parametrize("is_late", [False, True])
def test_message_that_is_given_up(is_late: bool) -> None:
    """It is told by what became of it, whether its letter is told of before or after it."""
    letter = DeadLetter(
        body="tea",
        topic="orders",
        channel="billing",
        id="1",
        attempts=3,
        error="burnt",
        timestamp=0,
        error_type="ValueError",
    )
    told = [
        event(Kind.FINISHED, id="1", body="tea", channel="billing", client_id=1, consumer="Ann"),
        Event(Kind.PUBLISHED, 0, "dead", id="2", body=letter),
    ]
    gives_up = "Ann gives up tea after attempt 3: ValueError: burnt; it goes to topic dead as"
    becomes = "letter of tea, message 1 of topic orders, is published to topic dead"
    texts = [f"{gives_up} message 2", f"{becomes}, which has no channel yet and holds it"]
    timeline = Timeline.of(reversed(told) if is_late else told)
    assert set(texts) == {step.text for step in timeline.steps}
    assert texts[:1] == [step.text for step in Timeline.of(told, topic="orders").steps]
    assert "In billing it is gone: it was given up." == timeline.story("1").splitlines()[-1]
    torn = Timeline.of([step.event for step in timeline.steps], lost=[(1, 2)])
    assert "In billing it is gone: it was given up." == torn.story("1").splitlines()[-1]
    assert "✗tea" in timeline.text()
    assert timeline.text().endswith("● published  ✗ given up")
    assert f"{SHAPES[GIVEN_UP]}</svg>given up</li>" in timeline.html()
    [life] = Timeline.of(told, topic="dead").lives
    assert (
        "dead letter of message 1 of topic orders, given up in billing after attempt 3:"
        " ValueError: burnt; its body: tea"
    ) == life.body


@pytest.mark.parametrize("is_recorded", [False, True])
def test_what_is_moved_is_always_somewhere(tmp_path: Path, *, is_recorded: bool) -> None:
    """Dead letters, those of letters, and both ways back: after each step it is in one channel."""
    recorder = Recorder()
    broker = FakeBroker()
    broker.observe(recorder)
    with Recording(tmp_path / "moves.rec") as recording:
        broker.observe(recording)
        kitchen, letters, lost = (
            broker.topic(name).channel("all") for name in ("orders", "dead", "lost")
        )
        broker.topic("orders").put(b"soap")
        for channel, to in ((kitchen, "dead"), (letters, "lost")):
            with nsqlite.Consumer(channel) as consumer:
                message = consumer.get(timeout=0)
                letter = letter_of(message, channel, Failure("ValueError", "no food"))
                consumer.move(message, broker.topic(to), letter)
        assert [1, 1] == [nsqlite.redrive(dead, broker) for dead in (lost, letters)]
    recorded = read_recording(tmp_path / "moves.rec").events
    timeline = Timeline.of(recorded if is_recorded else recorder.events)
    told = [stay for life in timeline.lives for stay in stays_of(life)]
    begin = next(step.number for step in timeline.steps if step.kind == Kind.PUBLISHED)
    count = [
        sum(stay.begin <= step.number < (stay.end or inf) for stay in told)
        for step in timeline.steps[begin - 1 :]
    ]
    assert [1] * len(count) == count
    assert [
        "puts letter of dead letter o… back into channel all of topic dead",
        "puts letter of soap (2) back into channel all of topic orders",
    ] == [step.text.partition(" of all ")[2] for step in timeline.steps if " back " in step.text]
    broker.close()


def test_messages_that_look_the_same_are_numbered() -> None:
    """Each message has a tag of its own."""
    scene = Scene()
    scene.topic.put_many(["tea", "tea", "jam", "tea"])
    tags = [life.tag for life in scene.recorder.timeline().lives]
    assert ["tea", "tea (2)", "jam", "tea (3)"] == tags


def test_lanes_stand_below_what_they_belong_to() -> None:
    """Below a topic are its channels, below each of them its consumers, as they were made."""
    scene = Scene()
    bob, eve, ann = (
        scene.consumer(*names)
        for names in (("billing", "Bob"), ("audit", "Eve"), ("billing", "Ann"))
    )
    scene.topic.put_many(["tea", "jam"])
    for consumer in (ann, bob, eve):
        consumer.get(timeout=0)
    lanes = scene.recorder.timeline().lanes
    assert ["orders", "billing", "Bob", "Ann", "audit", "Eve"] == [lane.name for lane in lanes]


@given(RUNS, st.data())
def test_steps_are_the_events(steps: list[tuple[str, int, Any]], data: st.DataObject) -> None:
    """Of any run, and any part of one, each event is a step, and each life without a gap."""
    events = Run().play(steps).events
    begin = data.draw(st.integers(0, len(events)))
    end = data.draw(st.integers(begin, len(events)))
    timeline = Timeline.of(events[begin:end])
    assert events[begin:end] == tuple(step.event for step in timeline.steps)
    for life in timeline.lives:
        for course in life.courses:
            assert all(stay.end for stay in course.stays[:-1])
            for one, next_one in zip(course.stays, course.stays[1:], strict=False):
                assert (one.end or 0) <= next_one.begin


@given(RUNS)
def test_what_is_there_in_the_end(steps: list[tuple[str, int, Any]]) -> None:
    """Of a whole record the lives that have not ended are what the channels hold."""
    run = Run()
    timeline = run.play(steps).timeline()
    found: dict[tuple[str, str], int] = {}
    for life in timeline.lives:
        for course in life.courses:
            for stay in course.stays:
                if stay.end is None:
                    key = course.lane.name, stay.where
                    found[key] = found.get(key, 0) + 1
    expected: dict[tuple[str, str], int] = {}
    for channel in run.topic.stats().channels:
        expected[channel.channel_name, "ready"] = channel.depth
        expected[channel.channel_name, "in flight"] = channel.in_flight_count
        expected[channel.channel_name, "deferred"] = channel.deferred_count
    held = {key: count for key, count in found.items() if key[0] != "orders"}
    assert {key: count for key, count in expected.items() if count} == held
