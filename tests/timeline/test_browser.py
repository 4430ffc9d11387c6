"""Pages of timelines in a real browser: headless Chromium, clicked through.

It comes with Debian's packages `chromium` and `chromium-driver`; without them these tests are
skipped.  Where `NSQLITE_BROWSER=required` is set, as in CI, they fail instead.
"""

import base64
import importlib.util
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

import nsqlite
from nsqlite.testing import ManualClock
from nsqlite.timeline import Recorder, Timeline

if TYPE_CHECKING:
    from selenium.webdriver import Chrome
    from selenium.webdriver.remote.webelement import WebElement

FLAGS: Final = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
EVIL: Final = "</script><img src=x onerror=\"document.title='evil'\">"


def missing() -> str:
    """Return what is missing, in words; empty if nothing is."""
    wanted = [name for name in ("chromium", "chromedriver") if shutil.which(name) is None]
    if importlib.util.find_spec("selenium") is None:
        wanted.append("selenium")
    return ", ".join(wanted)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator["Chrome"]:
    """Start a browser for all tests of this file."""
    if lacks := missing():
        why = f"{lacks} missing: apt-get install chromium chromium-driver, pip install selenium"
        if os.environ.get("NSQLITE_BROWSER") == "required":
            pytest.fail(why)
        pytest.skip(why)
    from selenium.webdriver import Chrome, ChromeOptions  # noqa: PLC0415 - it may be missing
    from selenium.webdriver.chrome.service import Service  # noqa: PLC0415 - the same

    options = ChromeOptions()
    for flag in FLAGS:
        options.add_argument(flag)
    options.add_argument(f"--user-data-dir={tmp_path_factory.mktemp('chromium')}")
    options.binary_location = shutil.which("chromium") or ""
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    chrome = Chrome(options=options, service=Service(shutil.which("chromedriver")))
    chrome.get("about:blank")  # in place of the page that a new browser fetches
    yield chrome
    chrome.quit()


def scene() -> Timeline:
    """Return a time-out, a deferral, a pause, and a put that waits in vain."""
    clock = ManualClock(start=0)
    recorder = Recorder()
    topic = nsqlite.Topic("orders", clock=clock, msg_timeout=10, observers=[recorder])
    billing = topic.channel("billing", max_depth=2)
    ann = nsqlite.Consumer(billing, name="Ann")
    bob = nsqlite.Consumer(billing, name="Bob")
    topic.put("tea")
    late = ann.get(timeout=0)
    clock.advance(5)
    late.touch()
    clock.advance(10)
    bob.get(timeout=0).req(delay=3)
    clock.advance(3)
    billing.pause()
    topic.put(EVIL)
    with pytest.raises(nsqlite.Full):
        topic.put("too much", timeout=0)
    billing.unpause()
    for consumer in (ann, bob):
        consumer.get(timeout=0).fin()
    return recorder.timeline()


class Page:
    """An open page.

    Attributes:
        timeline: what it shows.
    """

    def __init__(self, chrome: "Chrome", timeline: Timeline, path: Path) -> None:
        self.timeline = timeline
        self._chrome = chrome
        path.write_text(timeline.html("Orders"), "utf-8")
        self.log("browser")
        self.log("performance")
        chrome.get(path.as_uri())

    def one(self, selector: str) -> "WebElement":
        return self._chrome.find_element("css selector", selector)

    def all(self, selector: str) -> "list[WebElement]":
        return self._chrome.find_elements("css selector", selector)

    def click(self, selector: str) -> None:
        self.one(selector).click()

    def press(self, keys: str, selector: str = "body") -> None:
        self.one(selector).send_keys(keys)

    def run(self, script: str) -> Any:
        return self._chrome.execute_script(f"return {script}")

    def state(self) -> list[str]:
        return [" ".join(row.text.split()) for row in self.all("#state tbody tr")]

    @property
    def sentence(self) -> str:
        return self.one("#sentence").text

    @property
    def position(self) -> str:
        return self.one("#position").text

    def size(self, width: int, height: int = 900) -> None:
        """Have the window's inside be so wide and high."""
        self.command(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )

    def dark(self, scheme: str) -> None:
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.command("Emulation.setEmulatedMedia", features=features)

    def command(self, name: str, **options: Any) -> Any:
        return self._chrome.execute_cdp_cmd(name, options)

    def log(self, name: str) -> list[dict[str, str]]:
        """Return what has been logged since the last call."""
        chrome: Any = self._chrome
        entries: list[dict[str, str]] = chrome.get_log(name)
        return entries

    def errors(self) -> list[str]:
        return [entry["message"] for entry in self.log("browser")]

    def requests(self) -> list[str]:
        """Return what it has asked for that is not the file itself."""
        messages = [json.loads(entry["message"])["message"] for entry in self.log("performance")]
        urls = [
            message["params"]["request"]["url"]
            for message in messages
            if message["method"] == "Network.requestWillBeSent"
        ]
        return [url for url in urls if not url.startswith(("file:", "chrome"))]


@pytest.fixture
def page(browser: "Chrome", tmp_path: Path) -> Iterator[Page]:
    """Open the page of the scene."""
    page = Page(browser, scene(), tmp_path / "page.html")
    page.size(1280)
    page.dark("light")
    yield page
    assert [] == page.errors()
    assert [] == page.requests()
    assert "Orders" == browser.title


def test_page_opens_at_its_end(page: Page) -> None:
    """Without notes all steps are shown at first, and the last one is the current."""
    steps = page.timeline.steps
    assert [step.text for step in steps] == [
        li.text.split("\n", 1)[1] for li in page.all("#steps li")
    ]
    assert f"{len(steps)} of {len(steps)}" == page.position
    assert page.sentence.endswith(steps[-1].text)
    assert page.one("#next").get_property("disabled") is True


def test_buttons_step(page: Page) -> None:
    """The buttons go to the first and the last step, and one forward and back."""
    steps = page.timeline.steps
    page.click("#first")
    assert "Before the first step." == page.sentence
    assert 0 == page.run("document.getElementById('steps').scrollTop")
    for step in steps[:4]:
        page.click("#next")
        assert page.sentence == f"{step.time:.1f} s {step.text}"
    assert "4 of" in page.position
    assert ["orders topic 0 0", "billing channel 0 1 tea (Ann) 0"] == page.state()
    page.click("#back")
    assert ["orders topic 0 0", "billing channel 1 tea 0 0"] == page.state()
    assert steps[2].text in page.one("#steps [aria-current]").text
    page.click("#last")
    assert f"{len(steps)} of {len(steps)}" == page.position


def test_keys_step(page: Page) -> None:
    """Arrows, Home and End step; so does the slider when it has the focus."""
    from selenium.webdriver.common.keys import Keys  # noqa: PLC0415 - it may be missing

    count = len(page.timeline.steps)
    for key, place in (
        (Keys.HOME, 0),
        (Keys.ARROW_RIGHT, 1),
        (Keys.ARROW_RIGHT, 2),
        (Keys.ARROW_LEFT, 1),
        (Keys.END, count),
    ):
        page.press(key)
        assert f"{place} of {count}" == page.position
    page.press(Keys.ARROW_LEFT, "#slider")
    assert f"{count - 1} of {count}" == page.position


def test_play_and_pause(page: Page) -> None:
    """Play goes from the beginning to the end and stops; the space bar pauses it."""
    from selenium.webdriver.support.ui import WebDriverWait  # noqa: PLC0415 - it may be missing

    wait: Any = WebDriverWait(page, 20, poll_frequency=0.02)
    count = len(page.timeline.steps)
    page.run("(document.getElementById('speed').value = '200')")
    page.click("#play")
    assert "Pause" == page.one("#play").get_attribute("aria-label")
    wait.until(lambda page: page.position == f"2 of {count}")
    page.press(" ")
    assert "Play" == page.one("#play").get_attribute("aria-label")
    page.press(" ")
    wait.until(lambda page: page.position == f"{count} of {count}")
    assert "Play" == page.one("#play").get_attribute("aria-label")


def test_message_tells_its_story(page: Page) -> None:
    """A click on a message, Enter on it, and the list of messages tell its story."""
    from selenium.webdriver.common.keys import Keys  # noqa: PLC0415 - it may be missing

    tea = page.timeline.lives[0]
    story = [page.timeline.steps[number - 1].text for number in tea.steps]

    def told() -> list[str]:
        return [li.text.split("\n", 1)[1] for li in page.all("#story li")]

    page.click(".life[data-life='0'] .mark")
    assert story == told()
    page.click("#story li")
    assert page.sentence.endswith(story[0])
    page.press(Keys.ESCAPE)
    assert [] == told()
    page.press(Keys.ENTER, ".life[data-life='0']")
    assert story == told()
    page.press(Keys.ESCAPE)
    page.click("#message option[value='1']")
    assert EVIL in page.one("#story pre").text
    assert 1 == len(page.all(".life.chosen"))


def test_what_is_missing_or_closed_is_told(browser: "Chrome", tmp_path: Path) -> None:
    """A story says where events are missing; the table counts nothing of what is closed."""
    recorder = Recorder()
    topic = nsqlite.Topic("orders", observers=[recorder])
    topic.channel("billing")
    topic.put("tea")
    topic.close()
    timeline = Timeline.of(recorder.events, lost=[(3, 5)])
    page = Page(browser, timeline, tmp_path / "page.html")
    page.click("#message option[value='0']")
    lost = "5 events lost here: what happened meanwhile is not known."
    assert [timeline.steps[2].text, lost] == [
        li.text.rpartition("\n")[2] for li in page.all("#story li")
    ]
    dash = "\N{EN DASH}"
    state = [f"orders topic, closed {dash} {dash}", f"billing channel, closed {dash} {dash} {dash}"]
    assert state == page.state()


def test_unusual_states_are_told(page: Page) -> None:
    """The table says of a channel that it is paused, at the steps where it is."""
    paused = next(step for step in page.timeline.steps if step.kind == "paused")
    page.click(f"#steps li[data-step='{paused.number}']")
    assert page.state()[1].startswith("billing channel, paused 1 tea")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_page_fits(page: Page, width: int, scheme: str) -> None:
    """On a desktop and a phone nothing but the picture scrolls sideways; controls are in reach."""
    page.size(width)
    page.dark(scheme)
    assert page.run("document.documentElement.scrollWidth") <= width
    for name in ("first", "back", "play", "next", "last", "slider"):
        box = page.one(f"#{name}").rect
        assert 0 <= box["x"]
        assert box["x"] + box["width"] <= width
        assert box["height"] >= 44
    page.click("#first")
    assert "0 of" in page.position
    ground = page.run("getComputedStyle(document.body).backgroundColor")
    assert {"light": "rgb(238, 241, 245)", "dark": "rgb(14, 18, 23)"}[scheme] == ground
    if folder := os.environ.get("NSQLITE_SHOTS"):
        shot = page.command("Page.captureScreenshot")
        Path(folder, f"{width}-{scheme}.png").write_bytes(base64.b64decode(shot["data"]))


BROKEN: Final = """(() => {
  const broken = [], range = document.createRange();
  const texts = document.createTreeWalker(document.getElementById("state"), NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) for (const word of texts.currentNode.data.matchAll(/\\S+/g)) {
    range.setStart(texts.currentNode, word.index);
    range.setEnd(texts.currentNode, word.index + word[0].length);
    if (range.getClientRects().length > 1) broken.push(word[0]);
  }
  return broken;
})()"""
"""The words of the table of states that stand on more than one line."""


@pytest.mark.parametrize("width", [1280, 1000, 390])
def test_table_breaks_no_word(browser: "Chrome", tmp_path: Path, width: int) -> None:
    """However long names are, the table scrolls in its box, and no word of it is broken."""
    recorder = Recorder()
    topic = nsqlite.Topic("measurements", clock=ManualClock(), observers=[recorder])
    consumer = nsqlite.Consumer(topic.channel("dashboard#ephemeral"), name="observatory_of_padua")
    topic.put_many([f"temperature_{number}" for number in range(9)])
    consumer.get(timeout=0).req(delay=9)
    consumer.get(timeout=0)
    page = Page(browser, recorder.timeline(), tmp_path / "long.html")
    page.size(width)
    assert [] == page.run(BROKEN)
    assert page.run("document.documentElement.scrollWidth") <= width


def test_page_prints(page: Page) -> None:
    """In print there are all steps, no controls and the state in the end; a PDF comes of it."""
    page.click("#first")
    when = page.one("#state-when")
    page.run("dispatchEvent(new Event('beforeprint'))")
    assert f"after step {len(page.timeline.steps)}" == when.text
    page.run("dispatchEvent(new Event('afterprint'))")
    assert "before the first step" == when.text
    page.command("Emulation.setEmulatedMedia", media="print")
    assert not page.one("#controls").is_displayed()
    assert all(li.is_displayed() for li in page.all("#steps li"))
    assert page.one(".strips svg").is_displayed()
    page.command("Emulation.setEmulatedMedia", media="")
    pdf = base64.b64decode(page.command("Page.printToPDF", preferCSSPageSize=True)["data"])
    assert pdf.startswith(b"%PDF")
    if folder := os.environ.get("NSQLITE_SHOTS"):
        Path(folder, "print.pdf").write_bytes(pdf)


def test_lesson_begins_at_its_beginning(page: Page, browser: "Chrome", tmp_path: Path) -> None:
    """With notes a page opens before the first step and shows each note in its place."""
    timeline = Timeline.of(
        [step.event for step in page.timeline.steps],
        [(0, "Watch <tea>."), (3, "It prints:\n1\n2"), (3, "Who `gets` it?"), (3, "Bob.")],
    )
    count = "addEventListener('transitionrun', () => window.moved = (window.moved ?? 0) + 1)"
    page.command("Page.addScriptToEvaluateOnNewDocument", source=count)
    lesson = Page(browser, timeline, tmp_path / "lesson.html")
    assert "Watch <tea>." == lesson.one("#note").text
    assert page.run("window.moved ?? 0") == 0  # else what is to come would be seen at first
    assert not lesson.one("#steps [data-step='1']").is_displayed()
    lesson.click("#next")
    assert not lesson.one("#note").is_displayed()
    lesson.click("#message option[value='0']")
    assert [False] == [li.is_displayed() for li in lesson.all("#story [data-step='3']")]
    lesson.click("#next")
    lesson.click("#next")
    assert "It prints:\n1\n2" == lesson.one("#note").text
    assert lesson.one("#story [data-step='3']").is_displayed()
    lesson.click("#next")
    assert "It prints:\n1\n2\nWho gets it?" == lesson.one("#note").text
    assert "gets" == lesson.one("#note code").text
    assert [True, False] == [li.is_displayed() for li in lesson.all("#steps .said")[-2:]]
    lesson.click("#next")
    assert "It prints:\n1\n2\nWho gets it?\nBob." == lesson.one("#note").text
    assert f"3 of {len(timeline.steps)}" == lesson.position
    lesson.click("#next")
    assert f"4 of {len(timeline.steps)}" == lesson.position
    assert 0 < page.run("window.moved")


def test_page_without_scripts(page: Page) -> None:
    """Without JavaScript there are the picture, the steps and the state in the end."""
    page.command("Emulation.setScriptExecutionDisabled", value=True)
    try:
        page.command("Page.reload")
        assert len(page.timeline.steps) == len(page.all("#steps li"))
        assert 2 == len(page.all("#state tbody tr"))
        assert not page.one("#controls").is_displayed()
    finally:
        page.command("Emulation.setScriptExecutionDisabled", value=False)


def test_long_timeline_stays_usable(browser: "Chrome", tmp_path: Path) -> None:
    """Of 2,000 steps each is shown, and a step takes no time that one would notice."""
    recorder = Recorder()
    topic = nsqlite.Topic("orders", clock=ManualClock(), observers=[recorder])
    consumer = nsqlite.Consumer(topic.channel("billing"))
    topic.put_many([str(number) for number in range(666)])
    for _ in range(666):
        consumer.get(timeout=0).fin()
    page = Page(browser, recorder.timeline(), tmp_path / "long.html")
    page.click("#first")
    page.click("#next")
    assert "1 of 2000" == page.position
    assert 2000 == len(page.all("#steps li"))
    took = page.run(
        "(() => { const begin = performance.now();"
        " for (let n = 0; n < 10; n++) document.getElementById('next').click();"
        " document.body.offsetWidth; return (performance.now() - begin) / 10; })()"
    )
    assert took < 250
    page.click("#message option[value='600']")
    seen = page.run(
        "(() => { const life = document.querySelector('.life.chosen'),"
        " line = life.querySelector('.line').getBoundingClientRect(),"
        " box = document.getElementById('scroll').getBoundingClientRect();"
        " return box.left <= line.right && line.left <= box.right"
        " && box.top <= line.top && line.bottom <= box.bottom; })()"
    )
    assert seen
    assert [] == page.errors()
