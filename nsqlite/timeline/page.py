"""A timeline as a page: one file that opens from a disk and fetches nothing.

The rule: what a message holds is text in it and never markup or script; the policy in its head lets
the browser run the one script that is in the file, and load nothing.

Next: timeline/timeline.py
"""

import json
import re
from base64 import b64encode
from collections.abc import Iterator
from hashlib import sha256
from html import escape
from importlib.resources import files
from string import Template
from typing import Any, Final

from nsqlite.timeline.drawing import MARGIN, NAMES, SHAPES, Drawing
from nsqlite.timeline.parts import (
    Lane,
    Shown,
    Span,
    Stay,
    Step,
    bounds,
    gap_after,
    notes_after,
    stays_of,
    times,
)
from nsqlite.timeline.text import headline

STRIP: Final = 22
"""How many steps are side by side in print."""

PRINTED: Final = 440
"""Up to how many steps the picture is cut into strips for print."""

STATES: Final = {
    "ready": "ready",
    "in-flight": "in flight",
    "deferred": "deferred",
    "held": "held by its topic",
}
"""What the legend says of lines."""


def as_page(timeline: Shown, title: str) -> str:
    """Return a timeline as a page; see `Timeline.html`."""
    drawing = Drawing(timeline)
    style = _asset("picture.css").replace("SCOPE {", ":root {").replace("SCOPE ", "")
    style += _asset("page.css")  # without a scope: what is used again for print is in none
    script = _asset("page.js")
    start = 0 if timeline.notes else len(timeline.steps)
    return Template(_asset("page.html")).substitute(
        title=escape(title.replace("`", "")),
        heading=_marked(title),
        style=style,
        style_hash=_hash(style),
        script=script,
        script_hash=_hash(script),
        summary=escape(headline(timeline)),
        names=drawing.names(),
        names_width=NAMES,
        lane_names=escape(", ".join(lane.name for lane in timeline.lanes)),
        picture=drawing.picture(),
        width=drawing.width,
        height=drawing.height,
        column=drawing.column,
        cursor_height=drawing.height - 32,
        strips="".join(_strips(timeline, drawing)),
        legend="".join(_legend(timeline)),
        body=" ".join(_classes(timeline)),
        count=len(timeline.steps),
        start=start,
        state="".join(_state(timeline)),
        options="".join(
            f'<option value="{at}">{escape(life.tag)}</option>'
            for at, life in enumerate(timeline.lives)
        ),
        steps="".join(_steps(timeline)),
        data=_embedded(_data(timeline, drawing, start)),
    )


def as_fragment(timeline: Shown) -> str:
    """Return a timeline for a notebook; see `Timeline._repr_html_`."""
    drawing = Drawing(timeline)
    style = _asset("picture.css").replace("SCOPE", ".nsqlite-timeline") + _asset("fragment.css")
    high = drawing.height
    return (
        f'<div class="nsqlite-timeline"><style>{style}</style>'
        f'<p class="summary">{escape(headline(timeline))}</p><div class="scroll">'
        f'<svg class="names" width="{NAMES}" height="{high}">{drawing.names()}</svg>'
        f'<svg class="drawing" width="{drawing.width}" height="{high}">'
        f"{drawing.picture(is_static=True)}</svg></div>"
        f"<details><summary>Steps</summary><ol>{''.join(_steps(timeline))}</ol></details></div>"
    )


def _asset(name: str) -> str:
    return files("nsqlite.timeline").joinpath(name).read_text("utf-8")


def _hash(text: str) -> str:
    """Return how a content security policy names a text."""
    return f"sha256-{b64encode(sha256(text.encode()).digest()).decode()}"


def _embedded(data: Any) -> str:
    """Return data as JSON that can stand in a script element, whatever is in it."""
    text = json.dumps(data, ensure_ascii=True, separators=(",", ":"))
    for one in "<>&":
        text = text.replace(one, f"\\u{ord(one):04x}")
    return text


def _places(timeline: Shown) -> list[Lane]:
    """Return the lanes that have rows in the table of states."""
    return [lane for lane in timeline.lanes if lane.kind != "consumer"]


def _data(timeline: Shown, drawing: Drawing, start: int) -> dict[str, Any]:
    """Return what the script needs besides the page itself."""
    rows = {lane: at for at, lane in enumerate(_places(timeline))}
    return {
        "first": bounds(timeline.steps)[0],
        "count": len(timeline.steps),
        "start": start,
        "margin": MARGIN,
        "column": drawing.column,
        "width": drawing.width,
        "notes": [note.after for note in timeline.notes],
        "places": [[lane.name, lane.kind] for lane in rows],
        "lives": [
            {
                "tag": life.tag,
                "id": life.id,
                "body": life.body,
                "whole": life.is_whole,
                "steps": life.steps,
                "gaps": life.gaps,
            }
            for life in timeline.lives
        ],
        "stays": [
            [at, rows[course.lane], stay.where, stay.begin, stay.end, _holder(stay)]
            for at, life in enumerate(timeline.lives)
            for course in life.courses
            if course.lane in rows
            for stay in course.stays
        ],
        "spans": [
            [
                "a put waits" if span.what == "waits" else span.what,
                rows[span.lane],
                span.begin,
                span.end,
            ]
            for span in timeline.spans
        ],
    }


def _holder(stay: Stay) -> str:
    return stay.lane.name if stay.lane.kind == "consumer" else ""


def _legend(timeline: Shown) -> Iterator[str]:
    kinds = {step.name for step in timeline.steps}
    for kind, shape in SHAPES.items():
        if kind in kinds:
            yield (
                '<li><svg width="18" height="18" viewBox="-9 -9 18 18" aria-hidden="true">'
                f"{shape}</svg>{kind}</li>"
            )
    wheres = {stay.where.replace(" ", "-") for life in timeline.lives for stay in stays_of(life)}
    for where, words in STATES.items():
        if where in wheres:
            yield (
                '<li><svg width="34" height="12" aria-hidden="true">'
                f'<path class="line {where}" d="M1 6H33"/></svg>{words}</li>'
            )
    tags = {life.tag for life in timeline.lives}
    for tag in sorted(tag for tag in tags if f"{tag} (2)" in tags)[:1]:
        yield f"<li>“{escape(tag)} (2)” is the second message that looks like “{escape(tag)}”</li>"


def _steps(timeline: Shown) -> Iterator[str]:
    """Return the steps, and what is missing and said between them, as items of a list."""
    steps = timeline.steps
    yield from _said(timeline, bounds(steps)[0] - 1)
    for step, time in zip(steps, times(steps), strict=True):
        yield _step(step, time)
        yield from _said(timeline, step.number)


def _step(step: Step, time: str) -> str:
    return (
        f'<li data-step="{step.number}" data-kind="{step.kind}" data-time="{time}">'
        f"<span>{step.number}</span><div>{escape(step.text)}</div></li>"
    )


def _said(timeline: Shown, number: int) -> Iterator[str]:
    gap = gap_after(timeline.gaps, number)
    if gap is not None:
        yield f'<li class="lost" data-after="{gap.after}">{gap.text}.</li>'
    for text in notes_after(timeline.notes, number):
        yield f'<li class="said">{_marked(text)}</li>'


def _marked(text: str) -> str:
    """Return a text in which the words between backticks are shown as code."""
    return re.sub(r"`([^`\n]+)`", r"<code>\1</code>", escape(text))


def _state(timeline: Shown) -> Iterator[str]:
    """Return the rows of the table of states in the end, for who runs no script."""
    _, last = bounds(timeline.steps)
    counts = {lane: {"ready": 0, "in flight": 0, "deferred": 0} for lane in _places(timeline)}
    for life in timeline.lives:
        for course in life.courses:
            for stay in course.stays if course.lane in counts else ():
                if _holds(stay, last):
                    counts[course.lane]["ready" if stay.where == "held" else stay.where] += 1
    closed = {span.lane for span in timeline.spans if span.what == "closed" and _holds(span, last)}
    for lane, states in counts.items():
        nothing = "\N{EN DASH}" if lane in closed else "0"
        cells = "".join(f"<td><b>{count or nothing}</b></td>" for count in states.values())
        yield f'<tr><th scope="row">{escape(lane.name)}<small>{lane.kind}</small></th>{cells}</tr>'


def _holds(part: Stay | Span, step: int) -> bool:
    """Return whether a state holds after a step."""
    return part.begin <= step and (part.end is None or part.end > step)


def _classes(timeline: Shown) -> Iterator[str]:
    """Return what the style sheet needs to know."""
    if 0 < len(timeline.steps) <= PRINTED:
        yield "has-strips"
    if timeline.notes:
        yield "lesson"  # what comes next is not shown before its time


def _strips(timeline: Shown, drawing: Drawing) -> Iterator[str]:
    """Return the picture in pieces, one below the other, for print."""
    count = len(timeline.steps)
    if count > PRINTED:
        return  # it would be drawn too often
    for begin in range(0, count, STRIP):
        x = MARGIN + begin * drawing.column if begin else 0
        wide = STRIP * drawing.column + MARGIN
        yield (
            f'<svg viewBox="0 0 {NAMES + wide} {drawing.height}"><use href="#names"/>'
            f'<svg x="{NAMES}" width="{wide}" height="{drawing.height}"'
            f' viewBox="{x} 0 {wide} {drawing.height}"><use href="#all"/></svg></svg>'
        )
