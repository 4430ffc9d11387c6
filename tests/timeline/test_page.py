"""A timeline as a page, by its content."""

import json
from html.parser import HTMLParser
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from scenes import RUNS, Run, Scene, retried, shared

from nsqlite.timeline import Timeline

EVIL = "</script><script>alert(1)</script><img src=x onerror=alert(1)>"


class Reader(HTMLParser):
    """Reads a page.

    Attributes:
        items: the texts of the items of lists with `data-step`, or the class `said` or `lost`.
        tags: all tags that begin, with their attributes.
        scripts: what is in script elements.
        rows: the cells of the table of states.
    """

    def __init__(self, text: str) -> None:
        super().__init__()
        self.items: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.rows: list[list[str]] = []
        self._inside: list[str] | None = None
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.tags.append((tag, found))
        if tag == "li" and ("data-step" in found or found.get("class") in {"said", "lost"}):
            self.items.append("")
            self._inside = self.items
        elif tag == "script":
            self.scripts.append("")
            self._inside = self.scripts
        elif tag == "tr":
            self.rows.append([])
        elif tag in {"td", "th"}:
            self.rows[-1].append("")
            self._inside = self.rows[-1]

    def handle_endtag(self, tag: str) -> None:
        if tag in {"li", "script", "td", "th"}:
            self._inside = None

    def handle_data(self, data: str) -> None:
        if self._inside is not None:
            self._inside[-1] += data

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [found for name, found in self.tags if name == tag]

    @property
    def data(self) -> Any:
        return json.loads(self.scripts[0])


def listed(timeline: Timeline) -> list[str]:
    return [f"{step.number}{step.text}" for step in timeline.steps]


def test_page_has_every_step() -> None:
    """The page has a list of the steps, with the notes between them, and opens before the first."""
    timeline = retried().timeline([(0, "Watch."), (4, "It <fails>.")])
    page = Reader(timeline.html())
    steps = listed(timeline)
    assert ["Watch.", *steps[:4], "It <fails>.", *steps[4:]] == page.items
    assert [0, 4] == page.data["notes"]
    assert (9, 0) == (page.data["count"], page.data["start"])
    assert {"class": "has-strips lesson"} == page.named("body")[0]


def test_words_between_backticks_are_code() -> None:
    """In the title and the notes they are code, in the name of the window they stand plain."""
    page = retried().timeline([(0, "Watch `<fin>`, and `")]).html("Use `await`")
    assert "<title>Use await</title>" in page
    assert "<h1>Use <code>await</code></h1>" in page
    assert '<li class="said">Watch <code>&lt;fin&gt;</code>, and `</li>' in page


def test_numbered_names_are_explained_once() -> None:
    """The legend says what a number behind a name means, where there is one."""
    scene = Scene()
    scene.topic.put_many(["<tea>"] * 3 + ["jam (2)"])
    legend = "<li>“&lt;tea&gt; (2)” is the second message that looks like “&lt;tea&gt;”</li></ul>"
    page = scene.recorder.timeline().html()
    assert [1, 1] == [page.count(legend), page.count("the second message")]
    assert "the second message" not in retried().timeline().html()


def test_page_has_the_lives() -> None:
    """The script gets where each message was, from which step to which."""
    data = Reader(retried().timeline().html()).data
    assert ["tea"] == [life["tag"] for life in data["lives"]]
    assert [["orders", "topic"], ["billing", "channel"]] == data["places"]
    assert [
        [0, 1, "ready", 3, 4, ""],
        [0, 1, "in flight", 4, 5, "Ann"],
        [0, 1, "deferred", 5, 6, ""],
        [0, 1, "deferred", 6, 7, ""],
        [0, 1, "ready", 7, 8, ""],
        [0, 1, "in flight", 8, 9, "Ann"],
    ] == data["stays"]
    assert 9 == data["start"]
    assert [["gone", 2, 8, None]] == Reader(shared().timeline().html()).data["spans"]


def test_table_without_a_script() -> None:
    """The table of states shows what is there in the end."""
    scene = Scene()
    ann = scene.consumer("billing", "Ann")
    scene.topic.put_many(["tea", "jam", "cake"])
    message = ann.get(timeout=0)
    page = Reader(scene.recorder.timeline().html())
    assert [["orderstopic", "0", "0", "0"], ["billingchannel", "2", "1", "0"]] == page.rows[1:]
    message.fin()
    scene.topic.channel("billing").pause()
    scene.topic.pause()
    scene.topic.put("late")
    page = Reader(scene.recorder.timeline().html())
    assert [["orderstopic", "1", "0", "0"], ["billingchannel", "2", "0", "0"]] == page.rows[1:]


def test_what_is_closed_has_no_count() -> None:
    """Of what was closed the table does not say that nothing is there."""
    scene = Scene()
    scene.topic.channel("billing").close()
    page = Reader(scene.recorder.timeline().html())
    dash = "\N{EN DASH}"
    assert [["orderstopic", "0", "0", "0"], ["billingchannel", dash, dash, dash]] == page.rows[1:]
    assert [["closed", 1, 3, None]] == page.data["spans"]


def test_missing_events() -> None:
    """Where events are missing the steps say so, and the script knows whose life it concerns."""
    timeline = Timeline.of(retried().events[:5], lost=[(0, 1), (4, 3)])
    page = Reader(timeline.html())
    one, three = "event lost here: what happened", "events lost here: what happened"
    assert [
        f"1 {one} meanwhile is not known.",
        *listed(timeline)[:4],
        f"3 {three} meanwhile is not known.",
        listed(timeline)[4],
    ] == page.items
    assert [[4]] == [life["gaps"] for life in page.data["lives"]]


def test_page_fetches_nothing() -> None:
    """Nothing in the page names an address, and its policy allows the one script alone."""
    text = retried().timeline().html()
    page = Reader(text)
    assert [] == [tag for tag, found in page.tags if {"src", "srcset", "style"} & set(found)]
    assert ["#all", "#names"] == sorted({found["href"] or "" for found in page.named("use")})
    assert "http" not in text.replace("http-equiv", "")
    assert "url(" not in text
    policy = page.named("meta")[-1]["content"] or ""
    assert policy.startswith("default-src 'none'; style-src 'sha256-")


def test_bodies_are_text() -> None:
    """What a message or a title holds is nowhere markup."""
    scene = Scene()
    scene.consumer("billing", EVIL).close()
    scene.topic.put(EVIL)
    evil, good = scene.recorder.timeline(), retried().timeline()
    page = Reader(evil.html(EVIL))
    assert 2 == len(page.scripts)
    assert EVIL == page.data["lives"][0]["body"]
    kinds = {tag for tag, _ in Reader(good.html()).tags}
    assert {tag for tag, _ in page.tags} <= kinds
    assert not {name for _, found in page.tags for name in found if name.startswith("on")}
    assert "<script" not in evil._repr_html_()


def test_fragment() -> None:
    """What a notebook shows has the picture and the steps, no script, and no id to clash."""
    timeline = shared().timeline()
    page = Reader(timeline._repr_html_())
    assert listed(timeline) == page.items
    assert 2 == len(page.named("svg"))
    assert [] == page.scripts
    assert [] == [found for _, found in page.tags if "id" in found or "tabindex" in found]


def test_long_timelines_have_no_strips() -> None:
    """A picture of very many steps is printed in one piece."""
    scene = Scene()
    scene.topic.channel("billing")
    scene.topic.put_many(list(range(500)))
    page = Reader(scene.recorder.timeline().html())
    assert [] == page.named("use")
    assert {"class": ""} == page.named("body")[0]


def test_nothing() -> None:
    """Of nothing there is a page, too."""
    page = Reader(Timeline.of([]).html())
    assert ([], 0, []) == (page.items, page.data["count"], page.rows[1:])


@given(RUNS, st.data())
def test_any_run_has_its_page(steps: list[tuple[str, int, Any]], data: st.DataObject) -> None:
    """Of any part of any run the page names each step, and the tags are those of others."""
    events = Run().play(steps).events
    begin = data.draw(st.integers(0, len(events)))
    timeline = Timeline.of(events[begin:])
    page = Reader(timeline.html())
    assert listed(timeline) == page.items
    assert 2 == len(page.scripts)
    assert not page.named("img")
    part = timeline.last(2)
    assert listed(part) == Reader(part._repr_html_()).items
