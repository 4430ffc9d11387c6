"""A timeline as SVG: lanes, lines and marks, looked at as XML."""

from typing import Any
from xml.etree import ElementTree as ET

from hypothesis import given
from hypothesis import strategies as st
from scenes import RUNS, Run, Scene, retried, shared

from nsqlite.events import Kind
from nsqlite.timeline import Timeline
from nsqlite.timeline.drawing import SHAPES, Drawing
from nsqlite.timeline.parts import GIVEN_UP


def picture(timeline: Timeline) -> ET.Element:
    return ET.fromstring(f"<svg>{Drawing(timeline).picture()}</svg>")  # noqa: S314 - our own


def titles(root: ET.Element) -> list[str]:
    """Return what the marks say, in the order of their steps."""
    found = [
        (int(mark.attrib["data-step"]), mark.findtext("title") or "")
        for mark in root.iter("g")
        if mark.attrib.get("class", "").startswith("mark")
    ]
    return [text for _, text in sorted(found)]


def lines(root: ET.Element, life: int) -> list[str]:
    group = root.find(f"g[@data-life='{life}']")
    assert group is not None
    return [
        path.attrib["class"].removeprefix("line ")
        for path in group.iter("path")
        if path.attrib["class"].startswith("line ")
    ]


def test_every_kind_has_a_shape_of_its_own() -> None:
    """No two kinds of events look the same, so no colour is needed to tell them."""
    assert {*Kind, GIVEN_UP} == set(SHAPES)
    assert len(set(SHAPES.values())) == len(SHAPES)


def test_names_of_the_lanes() -> None:
    """Each lane has its name, lower than the one before."""
    names = ET.fromstring(f"<svg>{Drawing(shared().timeline()).names()}</svg>")  # noqa: S314
    assert ["orders", "billing", "Ann", "Bob", "audit", "Eve"] == [
        text.text for text in names.iter("text")
    ]
    heights = [float(text.attrib["y"]) for text in names.iter("text")]
    assert sorted(set(heights)) == heights


def test_lifelines() -> None:
    """A message has a line for each state, of its own style, and a mark for each step."""
    timeline = retried().timeline()
    root = picture(timeline)
    assert ["ready", "in-flight", "deferred", "deferred", "ready", "in-flight"] == lines(root, 0)
    assert [f"{step.number}. {step.text}" for step in timeline.steps] == titles(root)
    assert ["0.0", "1.0", "6.0"] == [
        text.text for text in root.iter("text") if text.attrib.get("class") == "time"
    ]
    assert ["1 s later", "5 s later"] == [
        gap.findtext("title") for gap in root.iterfind("g[@class='gap']")
    ]


def test_how_long_it_took_is_written_where_there_is_room() -> None:
    """Words for the time between two steps stand only where they are no wider than a column."""
    scene = Scene()
    for seconds in (0.000003, 9, 630):
        scene.clock.advance(seconds)
        scene.topic.put("tea")
    gaps = picture(scene.recorder.timeline()).findall("g[@class='gap']")
    assert [("3 µs later", "3 µs"), ("9 s later", "9 s"), ("10 min 30 s later", None)] == [
        (gap.findtext("title"), gap.findtext("text")) for gap in gaps
    ]


def test_unusual_states() -> None:
    """A deleted channel is drawn as such from then on."""
    spans = picture(shared().timeline()).findall("g[@class='span gone']")
    assert ["audit: gone"] == [span.findtext("title") for span in spans]


def test_closed_is_not_gone() -> None:
    """What was closed is drawn as closed, as a file may have its messages still."""
    scene = Scene()
    scene.topic.close()
    spans = picture(scene.recorder.timeline()).findall("g[@class='span closed']")
    assert ["orders: closed"] == [span.findtext("title") for span in spans]


def test_missing_events() -> None:
    """Where events are missing there is a mark, and the lines of messages end there."""
    root = picture(Timeline.of(retried().events[:5], lost=[(4, 3)]))
    [gap] = root.findall("g[@class='lost']")
    assert "3 events lost here: what happened meanwhile is not known" == gap.findtext("title")
    mark = gap.find("path")
    assert mark is not None
    x = mark.attrib["d"].partition(" ")[0].removeprefix("M")
    ends = [
        path.attrib["d"]
        for path in root.iter("path")
        if path.attrib.get("class") == "line in-flight"
    ]
    assert [True, False] == [end.endswith(f"H{x}") for end in ends]


def test_marks_of_a_lane_have_their_line() -> None:
    """No line of a message runs through the mark or the word of its lane; apart they share one."""
    scene = Scene()
    ann = scene.consumer("billing", "Ann")
    scene.topic.put("1")
    ann.channel.pause()
    ann.channel.unpause()
    for number in range(2, 5):
        ann.get(timeout=0).fin()
        scene.topic.put(str(number))
    root = picture(scene.recorder.timeline())
    marks = [
        mark.attrib["transform"].split()[1].rstrip(")")
        for mark in root.iterfind("g[@class='mark lane']")
        if mark.findtext("text") in {"paused", "unpaused"}
    ]
    heights = [
        path.attrib["d"].split()[1].partition("H")[0]
        for path in root.iter("path")
        if path.attrib["class"] == "line ready"
    ]
    own, other = "96.6", "122.6"
    assert ([own, own], [other, own, own, own]) == (marks, heights)


def test_what_was_before() -> None:
    """A line that began before the part begins at its edge, with a mark."""
    root = picture(retried().timeline().last(5))
    earlier = [path for path in root.iter("path") if path.attrib.get("class") == "earlier"]
    assert ["M4"] == [path.attrib["d"].split()[0] for path in earlier]


def test_many_messages_share_a_line() -> None:
    """A lane is no higher than twelve lines; the last is that of all the others."""
    scene = Scene()
    scene.topic.channel("billing")
    scene.topic.put_many([str(number) for number in range(500)])
    drawing = Drawing(scene.recorder.timeline())
    assert "others" in drawing.names()
    assert 'tabindex="0"' not in drawing.picture()
    assert drawing.height < 500
    assert 500 == len(ET.fromstring(f"<svg>{drawing.picture()}</svg>").findall("g[@data-life]"))  # noqa: S314


def test_times_do_not_overlap() -> None:
    """Where columns are narrow, and each step has a time of its own, some times are left out."""
    scene = Scene()
    for number in range(500):
        scene.topic.put(str(number))
        scene.clock.advance(0.001)
    root = picture(scene.recorder.timeline())
    times = [text for text in root.iter("text") if text.attrib.get("class") == "time"]
    assert 251 == len(times)
    assert 499 == len(root.findall("g[@class='gap']"))
    assert [] == list(root.iterfind("g[@class='gap']/text"))


def test_nothing() -> None:
    """Of nothing there is a picture, too."""
    assert "<svg />" == ET.tostring(picture(Timeline.of([])), "unicode")


@given(RUNS, st.data())
def test_every_step_has_its_mark(steps: list[tuple[str, int, Any]], data: st.DataObject) -> None:
    """Of any part of any run each step is marked, and what messages hold is text."""
    events = Run().play(steps).events
    begin = data.draw(st.integers(0, len(events)))
    timeline = Timeline.of(events[begin:])
    told = [f"{step.number}. {step.text}" for step in timeline.steps]
    assert told == titles(picture(timeline))
    part = timeline.last(3)
    assert [f"{step.number}. {step.text}" for step in part.steps] == titles(picture(part))
