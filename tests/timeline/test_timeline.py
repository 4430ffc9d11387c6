"""A timeline, its parts, and the story of a message."""

from typing import Any

import pytest
from scenes import Scene, retried, shared

from nsqlite import InvalidOption, Kind
from nsqlite.timeline import Timeline
from nsqlite.timeline.timeline import NOTES

OF: Any = Timeline.of
NOTHING: Any = Timeline.of([])
NOTE = "a pair, after how many events and a str"
MOMENT = "a number of seconds since the epoch"

STORY = """\
message {id} of topic orders: tea
     3. at   0.0 s  tea is published to topic orders: billing gets it
     4. at   0.0 s  tea is delivered to Ann, attempt 1
     5. at   1.0 s  Ann requeues tea: it waits for 5 s in billing
     6. at   1.0 s  tea is deferred in channel billing: it is due in 5 s
     7. at   6.0 s  tea is due: it is ready in channel billing
     8. at   6.0 s  tea is delivered to Ann, attempt 2
     9. at   6.0 s  Ann finishes tea: it is gone from billing
In billing it is gone."""


def test_story() -> None:
    """A story has the steps of one message, and where it is in the end."""
    timeline = retried().timeline()
    life = timeline.lives[0]
    assert STORY.format(id=life.id) == timeline.story(life.id)


def test_story_of_a_part() -> None:
    """A part's story says what is missing, and a record's what is not known."""
    recorder = retried()
    name = recorder.events[-1].id or ""
    assert [
        f"message {name} of topic orders: tea",
        "Of its 7 steps this part has 3.",
        "     7. at   0.0 s  tea is due: it is ready in channel billing",
    ] == recorder.timeline().last(3).story(name).splitlines()[:3]
    assert [
        f"message {name} of topic orders: tea",
        "What happened to it before this record began is not known.",
        "     1. at   0.0 s  tea is deferred in channel billing: it is due in 5 s",
        "In billing it was deferred when this record ended.",
    ] == Timeline.of(recorder.events[5:6]).story(name).splitlines()


def test_story_tells_who_has_it() -> None:
    """A story ends with who has the message in each channel."""
    scene = Scene()
    ann = scene.consumer("billing", "Ann")
    scene.topic.channel("audit")
    name = scene.topic.put("tea")
    message = ann.get(timeout=0)
    timeline = scene.recorder.timeline()
    assert "in flight" == message.state
    assert [
        "In billing it was in flight, with Ann, when this record ended.",
        "In audit it was ready when this record ended.",
    ] == timeline.story(name).splitlines()[-2:]


def test_story_across_a_gap() -> None:
    """Where events are missing a story says so, and claims nothing of what follows."""
    scene = Scene()
    ann = scene.consumer("billing", "Ann")
    first, second, third = scene.topic.put_many(["tea", "jam", "cake"])
    ann.get(timeout=0).fin()
    ann.get(timeout=0)
    events = scene.recorder.events[2:]
    given = Kind.DELIVERED
    assert ["published"] * 3 + ["delivered", "finished", "delivered"] == [e.kind for e in events]
    back = events[5]._replace(kind=given, id=third, body="cake", attempts=7, time=9.0)
    timeline = Timeline.of([*events, back], lost=[(6, 3)])
    lost = "        3 events lost here: what happened meanwhile is not known."
    unknown = "what became of it is not known."
    assert "In billing it is gone." == timeline.story(first).splitlines()[-1]
    assert lost not in timeline.story(first)
    assert [
        "     6. at   0.0 s  jam is delivered to Ann, attempt 1",
        lost,
        f"In billing it was in flight, with Ann, when events were lost; {unknown}",
    ] == timeline.story(second).splitlines()[2:]
    assert [
        "     3. at   0.0 s  cake is published to topic orders: billing gets it",
        lost,
        "     7. at   9.0 s  cake is delivered to Ann, attempt 7",
        "In billing it was in flight, with Ann, when this record ended.",
    ] == timeline.story(third).splitlines()[1:]


def test_story_that_begins_in_a_gap() -> None:
    """Of a message that is first told of after missing events it is said that they are missing."""
    events = retried().events
    timeline = Timeline.of([*events[:2], *events[4:]], lost=[(2, 2)])
    assert [
        "What happened to it before this record began is not known.",
        "        2 events lost here: what happened meanwhile is not known.",
        "     3. at   1.0 s  Ann requeues tea: it waits for 5 s in billing",
    ] == timeline.story(events[4].id or "").splitlines()[1:4]


def test_story_of_what_was_closed() -> None:
    """What was closed may have its messages still, so they are not said to be gone."""
    scene = Scene()
    scene.topic.channel("billing")
    name = scene.topic.put("tea")
    scene.topic.close()
    timeline = scene.recorder.timeline()
    assert "In billing it was ready when that was closed." == timeline.story(name).splitlines()[-1]


def test_unknown_id() -> None:
    """An id that no message has is an error, which names the nearest."""
    timeline = retried().timeline()
    known = timeline.lives[0].id
    with pytest.raises(InvalidOption) as caught:
        timeline.story(known[:-1])
    assert (
        f"id must be the id of a message of this timeline, which has 1 (did you mean {known!r}?),"
        f" not {known[:-1]!r}"
    ) == str(caught.value)


def test_note_out_of_place() -> None:
    """A note must stand after an event that is there."""
    with pytest.raises(
        InvalidOption, match=r"^a note's place must be a whole number from 0 to 9, not 10$"
    ):
        retried().timeline([(10, "too late")])


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: OF(5), "events must be several Events, not 5"),
        (lambda: OF("a"), "event must be an Event, as an observer hears, not 'a'"),
        (lambda: OF([], 5), f"notes must be {NOTES}, not 5"),
        (lambda: OF([], ["x"]), f"note must be {NOTE}, not 'x'"),
        (lambda: OF([], [(0, 5)]), f"note must be {NOTE}, not (0, 5)"),
        (lambda: OF([], [(0,)]), f"note must be {NOTE}, not (0,)"),
        (lambda: OF([], topic=5), "topic must be a str or None, not 5"),
        (lambda: NOTHING.html(5), "title must be a str, not 5"),
        (lambda: NOTHING.between("a", 1), f"start must be {MOMENT}, not 'a'"),
        (lambda: NOTHING.between(1, float("nan")), f"end must be {MOMENT}, not nan"),
        (lambda: NOTHING.between(True, 1), f"start must be {MOMENT}, not True"),
        (
            lambda: NOTHING.last("a"),
            "seconds must be a finite number of seconds, at least 0, not 'a'",
        ),
    ],
)
def test_wrong_arguments(call: Any, text: str) -> None:
    """What is of the wrong kind is refused by name."""
    with pytest.raises(InvalidOption) as caught:
        call()
    assert text == str(caught.value)


def test_parts_know_what_was_before() -> None:
    """A part keeps the numbers, the lanes that it needs, and what its messages went through."""
    timeline = shared().timeline([(0, "first"), (8, "then"), (12, "last")])
    part = timeline.between(5, 14.9)
    assert [9] == [step.number for step in part.steps]
    assert "Ann touches tea: it has 10 s from now" == part.steps[0].text
    assert ["orders", "billing", "Ann", "audit"] == [lane.name for lane in part.lanes]
    assert 8 == part.earlier
    assert timeline.lives == part.lives
    assert ["then"] == [note.text for note in part.notes]
    assert timeline == timeline.last(100)
    assert timeline == timeline.between(0, 100)


def test_latest_steps() -> None:
    """A part may be asked for by how many steps it has."""
    timeline = retried().timeline()
    count = len(timeline.steps)
    part = timeline.latest(2)
    assert [count - 1, count] == [step.number for step in part.steps]
    assert count - 2 == part.earlier
    assert timeline == timeline.latest(count + 1)
    assert ((), 0) == (Timeline.of([]).latest(1).steps, Timeline.of([]).latest(1).earlier)
    with pytest.raises(InvalidOption, match=r"^most must be a whole number of at least 1, not 0$"):
        timeline.latest(0)


def test_part_while_a_clock_went_back() -> None:
    """A part has no gaps, though the clock may have gone back in between."""
    events = retried().events
    late = [event._replace(time=[10.0, 20.0, 5.0, 20.0][at]) for at, event in enumerate(events[:4])]
    timeline = Timeline.of(late)
    assert [2, 3, 4] == [step.number for step in timeline.between(15, 25).steps]
    assert [1] == [step.number for step in timeline.between(8, 15).steps]


def test_parts_without_a_step() -> None:
    """A part may have nothing."""
    timeline = retried().timeline()
    nothing = timeline.between(2, 3)
    assert ((), ()) == (nothing.steps, nothing.lives)
    assert nothing == nothing.last(3)
    assert "no steps here; 9 earlier steps not shown." == str(nothing)
    assert "nothing was recorded." == str(Timeline.of([]))


def test_forgotten_events_are_counted() -> None:
    """A recorder tells its timeline how many events are gone."""
    recorder = retried()
    short = type(recorder)(most=2)
    for event in recorder.events:
        short(event)
    timeline = short.timeline()
    assert (7, 0) == (timeline.forgotten, timeline.earlier)
    assert "2 steps from 1970-01-01 00:00:06 UTC; 7 older events not kept." in str(timeline)


def test_lost_events_are_counted() -> None:
    """A part knows what is missing in it, and tells that from what it does not show."""
    events = retried().events
    timeline = Timeline.of(events, lost=[(6, 3), (2, 1), (6, 1)], forgotten=5)
    assert [(2, 1), (6, 4)] == [(gap.after, gap.count) for gap in timeline.gaps]
    assert (
        "9 steps from 1970-01-01 00:00:00 UTC; 5 older events not kept; 5 events lost."
        == (timeline.text(200).splitlines()[0])
    )
    part = timeline.latest(3)
    told = "6 earlier steps not shown; 5 older events not kept; 4 events lost."
    assert f"3 steps from 1970-01-01 00:00:06 UTC; {told}" == part.text(200).splitlines()[0]
    assert [] == list(timeline.latest(2).gaps)


@pytest.mark.parametrize(
    ("lost", "text"),
    [
        (
            5,
            "lost must be several pairs, each after how many events and how many are missing there",
        ),
        ([5], "lost must be a pair, after how many events and how many are missing"),
        ([(10, 1)], "a lost event's place must be a whole number from 0 to 9"),
        ([(1, 0)], "lost events must be a whole number of at least 1"),
    ],
)
def test_lost_events_that_are_none(lost: Any, text: str) -> None:
    """What tells of missing events are pairs of numbers, within the events."""
    with pytest.raises(InvalidOption) as caught:
        Timeline.of(retried().events, lost=lost)
    assert text == str(caught.value).rpartition(", not ")[0]


def test_repr() -> None:
    """A timeline shows in a line how much it has, and as text of 80 columns."""
    timeline = retried().timeline()
    assert "<Timeline steps=9 lanes=3 messages=1>" == repr(timeline)
    assert timeline.text(80) == str(timeline)


def test_views() -> None:
    """It shows itself as text, as a page and in a notebook."""
    timeline = retried().timeline()
    assert "<title>Tea</title>" in timeline.html("Tea")
    assert timeline._repr_html_().startswith('<div class="nsqlite-timeline">')


def test_notebook_gets_the_last_steps() -> None:
    """A notebook, which keeps all that it was shown, gets no more than 300 steps."""
    scene = Scene()
    scene.topic.put_many(list(range(400)))
    text = scene.recorder.timeline()._repr_html_()
    assert "300 steps from 1970-01-01 00:00:00 UTC; 101 earlier steps not shown." in text
    assert 300 == text.count("<li data-step=")
