"""A timeline in a terminal."""

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scenes import RUNS, Run, Scene, retried, shared

import nsqlite
from nsqlite.timeline import Timeline
from nsqlite.timeline.text import columns
from nsqlite.timeline.text import cut as columns_cut

RETRIED = """\
9 steps from 1970-01-01 00:00:00 UTC.

          orders    billing   Ann
 1   0.0  created                       topic orders is created
 2        ──────────▸created            channel billing of topic orders is
                                        created

» Ann will fail once.

 3        ●tea ─────▸tea                tea is published to topic orders:
                    │                   billing gets it
 4                  ├─────────▸tea      tea is delivered to Ann, attempt 1
 5   1.0            ◂tea ─────↺         Ann requeues tea: it waits for 5 s in
                    ┊                   billing
 6                  ◷tea                tea is deferred in channel billing: it
                    ┊                   is due in 5 s
 7   6.0            ○tea                tea is due: it is ready in channel
                    │                   billing
 8                  ├─────────▸tea #2   tea is delivered to Ann, attempt 2
 9                            ✓tea      Ann finishes tea: it is gone from
                                        billing

● published  ▸ delivered  ✓ finished  ↺ requeued  ◷ deferred  ○ due
#2 attempt 2
"""

SHARED = """\
12 steps from 1970-01-01 00:00:00 UTC.
Each sentence stands below its step; from 94 columns on it stands
beside it.

          orders    billing   Ann      Bob      audit     Eve
 1   0.0  created
          topic orders is created
 2        ──────────▸created
          channel billing of topic orders is created
 3        ──────────────────────────────────────▸created
          channel audit of topic orders is created
 4        ●tea ─────▸tea ───────────────────────▸tea
          tea is published to topic orders: billing and audit get it
 5                  ├─────────▸tea              │
          tea is delivered to Ann, attempt 1
 6                            ┃                 ├─────────▸tea
          tea is delivered to Eve, attempt 1
 7                            ┃                           ✓tea
          Eve finishes tea: it is gone from audit
 8                            ┃                 deleted
          channel audit is deleted
 9   5.0                      ◆tea
          Ann touches tea: it has 10 s from now
10  15.0            ◂tea ─────!
          Ann has not answered tea in time: it is ready again in
          billing
11                  ├──────────────────▸tea #2
          tea is delivered to Bob, attempt 2
12                                     ✓tea
          Bob finishes tea: it is gone from billing

● published  ▸ delivered  ✓ finished  ◆ touched  ! timed out
#2 attempt 2
"""

ASCII = """\
4 steps from 1970-01-01 00:00:00 UTC.

          orders    billing
 1   0.0  created              topic orders is created
 2        ---------->created   channel billing of topic
                               orders is created
 3        *t? ------>t?        t? is published to topic
                    |          orders: billing gets it
 4                  paused     channel billing is paused: it
                    |          delivers nothing

* published
"""


def test_retry_with_sentences() -> None:
    """Where there is room each row ends with its sentence."""
    assert RETRIED == retried().timeline([(2, "Ann will fail once.")]).text() + "\n"


def test_sentences_below() -> None:
    """Where there is little room a sentence stands below its row, and it is said how to widen."""
    assert SHARED == shared().timeline().text(70) + "\n"


def test_ascii() -> None:
    """What an encoding lacks is shown in ASCII."""
    scene = Scene()
    scene.consumer("billing", "Åsa")
    scene.topic.put("té")
    scene.topic.channel("billing").pause()
    assert ASCII == scene.recorder.timeline().text(60, encoding="ascii") + "\n"


def test_wide_characters() -> None:
    """A character that takes two columns is counted as two."""
    scene = Scene()
    scene.consumer("billing", "Ann")
    scene.topic.put("漢字")
    rows = scene.recorder.timeline().text(60).splitlines()
    assert "          orders    billing" == rows[2]
    assert " 3        ●漢字 ────▸漢字      漢字 is published to topic" == rows[6]
    assert "…" == columns_cut("漢字", 2)
    assert "漢…" == columns_cut("漢字", 3)


def test_options() -> None:
    """A width below 40 and an encoding that nobody knows are errors."""
    timeline = retried().timeline()
    with pytest.raises(nsqlite.InvalidOption) as caught:
        timeline.text(39)
    assert "width must be a whole number of at least 40, not 39" == str(caught.value)
    for wrong in ("latin-99", None):
        encoding: Any = wrong
        with pytest.raises(nsqlite.InvalidOption) as caught:
            timeline.text(encoding=encoding)
        assert f"encoding must be the name of an encoding, not {wrong!r}" == str(caught.value)


def test_many_lanes_go_into_several_tables() -> None:
    """Lanes that do not fit side by side follow below, each under its topic and channel."""
    scene = Scene()
    crowd = [
        scene.consumer(channel, f"{channel[0]}{number}")
        for channel, count in (("billing", 4), ("audit", 4), ("mail", 9))
        for number in range(count)
    ]
    scene.topic.put_many(list(range(9)))
    taken = [consumer.get(timeout=0) for consumer in crowd]
    other = nsqlite.Topic[str]("refunds", clock=scene.clock, observers=[scene.recorder])
    other.put("late")
    taken[0].fin()
    heads = [
        line.split()
        for line in scene.recorder.timeline().text(70).splitlines()
        if line.lstrip().startswith(("orders", "refunds")) and "created" not in line
    ]
    assert [
        ["orders", "billing", "b0", "b1", "b2", "b3"],
        ["orders", "audit", "a0", "a1", "a2", "a3"],
        ["orders", "mail", "m0", "m1", "m2", "m3"],
        ["orders", "mail", "m4", "m5", "m6", "m7"],
        ["orders", "mail", "m8"],
        ["refunds"],
    ] == heads


@pytest.mark.parametrize("consumers", [1, 2, 3])
@pytest.mark.parametrize("width", [40, 60, 80, 120])
def test_every_sentence_is_there(consumers: int, width: int) -> None:
    """However many lanes there are, each sentence is, and in the width that is told, beside."""
    scene = Scene()
    for channel in ("billing", "audit"):
        for number in range(consumers):
            scene.consumer(channel, f"{channel}{number}")
    scene.topic.put("tea")
    timeline = scene.recorder.timeline()
    text = timeline.text(width)
    assert max(map(columns, text.splitlines())) <= width
    for step in timeline.steps:
        assert step.text.split()[-1] in text
    flat = " ".join(text.split())
    wider = re.search(r"from (\d+) columns on it stands", flat)
    if wider is not None:
        assert all(step.text in flat for step in timeline.steps)
        assert "Each sentence" in timeline.text(int(wider[1]) - 1)
        assert "Each sentence" not in timeline.text(int(wider[1]))


def test_nothing_is_shown_of_nothing() -> None:
    """Without a step it is said that there is none, and what a teacher says."""
    assert "nothing was recorded." == Timeline.of([]).text()
    assert "nothing was recorded.\n\n» Look.\n" == Timeline.of([], [(0, "Look.")]).text()
    part = Timeline.of(retried().events, forgotten=2).between(2, 3)
    assert "no steps here; 9 earlier steps not shown; 2 older events not kept." == part.text()


def test_missing_events() -> None:
    """Where events are missing a line says so, in which no lane goes on."""
    timeline = Timeline.of(retried().events[:4], lost=[(3, 340), (4, 1)])
    assert [
        "",
        "── 340 events lost here: what happened meanwhile is not known ──",
        "",
        " 4                  ├─────────▸tea      tea is delivered to Ann, attempt 1",
        "",
        "── 1 event lost here: what happened meanwhile is not known ──",
        "",
    ] == timeline.text(100).splitlines()[6:13]


@given(RUNS, st.integers(40, 160), st.data())
def test_every_step_has_its_row(
    steps: list[tuple[str, int, Any]], width: int, data: st.DataObject
) -> None:
    """Of any part of any run each step has a row, and none is wider than the terminal."""
    events = Run().play(steps).events
    begin = data.draw(st.integers(0, len(events)))
    timeline = Timeline.of(events[begin:], [(0, "begin"), (len(events) - begin, "end " * 40)])
    lines = timeline.text(width).splitlines()
    assert [] == [line for line in lines if columns(line) > width]
    numbers = {line.split()[0] for line in lines if line.strip()}
    assert {str(step.number) for step in timeline.steps} <= numbers
    assert timeline.text(width, encoding="ascii").isascii()


def test_wide_characters_and_line_ends_in_what_is_said() -> None:
    """A note keeps its lines; wide characters in it, and in sentences, take two columns."""
    scene = Scene()
    scene.topic.put("漢字" * 20)
    timeline = scene.recorder.timeline([(1, "漢" * 100), (2, "It prints:\n1\n2")])
    for width in (40, 100):
        lines = timeline.text(width).splitlines()
        assert [] == [line for line in lines if columns(line) > width]
        at = lines.index("» It prints:")
        assert ["» 1", "» 2"] == lines[at + 1 : at + 3]
