"""Scenes with a topic, channels and consumers, recorded, for what shows timelines."""

from typing import Any, Final

from hypothesis import strategies as st

import nsqlite
from nsqlite.testing import ManualClock
from nsqlite.timeline import Recorder


class Scene:
    """A topic on a manual clock that begins at 0, and what is recorded of it."""

    def __init__(self, **options: Any) -> None:
        self.clock: Final = ManualClock(start=0)
        self.recorder: Final = Recorder()
        self.topic: Final[nsqlite.Topic[Any]] = nsqlite.Topic(
            "orders", clock=self.clock, observers=[self.recorder], **options
        )

    def consumer(self, channel: str, name: str | None, **options: Any) -> nsqlite.Consumer[Any]:
        return nsqlite.Consumer(self.topic.channel(channel), name=name, **options)


def retried() -> Recorder:
    """Record a message that is requeued for later, and finished at the second attempt."""
    scene = Scene()
    ann = scene.consumer("billing", "Ann")
    scene.topic.put("tea")
    tea = ann.get(timeout=0)
    scene.clock.advance(1)
    tea.req(delay=5)
    scene.clock.advance(5)
    ann.get(timeout=0).fin()
    return scene.recorder


def shared() -> Recorder:
    """Record fan-out to two channels, a touch, a time-out, and a channel that is deleted."""
    scene = Scene(msg_timeout=10)
    ann, bob = scene.consumer("billing", "Ann"), scene.consumer("billing", "Bob")
    eve = scene.consumer("audit", "Eve")
    scene.topic.put("tea")
    late = ann.get(timeout=0)
    eve.get(timeout=0).fin()
    scene.topic.channel("audit").delete()
    scene.clock.advance(5)
    late.touch()
    scene.clock.advance(10)
    bob.get(timeout=0).fin()
    return scene.recorder


BODIES: Final = st.one_of(
    st.text(max_size=30),
    st.binary(max_size=30),
    st.sampled_from(["</script><b>", "a" * 60, None, 7, "\x1b[31m", "漢字漢字漢字漢字"]),
)
"""What messages may hold."""

RUNS: Final = st.lists(
    st.tuples(
        st.sampled_from(
            [
                "put",
                "later",
                "take",
                "fin",
                "req",
                "wait",
                "touch",
                "move",
                "pause",
                "go on",
                "stop",
                "start",
                "empty",
                "delete",
                "channel",
                "leave",
                "discard",
                "full",
            ]
        ),
        st.integers(0, 3),
        BODIES,
    ),
    max_size=40,
)
"""What may be done to a topic, in this order."""


class Run(Scene):
    """A topic to which anything is done."""

    def __init__(self) -> None:
        super().__init__(msg_timeout=5)
        self._held: list[nsqlite.Message[Any]] = []
        self._consumers: list[nsqlite.Consumer[Any]] = []

    def play(self, steps: list[tuple[str, int, Any]]) -> Recorder:
        for what, number, body in steps:
            try:
                self.do(what, number, body)
            except nsqlite.NSQLiteError:
                pass  # it came too late, or there was nothing to be done
        return self.recorder

    def channel(self, number: int) -> nsqlite.Channel[Any]:
        when_full: Any = ("wait", "raise", "drop oldest")[number % 3]
        return self.topic.channel(f"channel{number % 3}", max_depth=3, when_full=when_full)

    def do(self, what: str, number: int, body: Any) -> None:  # noqa: C901, PLR0912 - a list of deeds
        held = self._held[number % len(self._held)] if self._held else None
        match what:
            case "put":
                self.topic.put(body, timeout=0)
            case "full":
                self.topic.put_many([body] * (number + 1), timeout=0.5)
            case "later":
                self.topic.put(body, delay=number + 0.5)
            case "take" if self._consumers:
                consumer = self._consumers[number % len(self._consumers)]
                self._held.append(consumer.get(timeout=0))
            case "fin" if held is not None:
                held.fin()
            case "req" if held is not None:
                held.req(delay=number)
            case "touch" if held is not None:
                held.touch()
            case "move" if held is not None:
                held._consumer.move(held, self.topic)
            case "wait":
                self.clock.advance(number)
            case "pause":
                self.channel(number).pause()
            case "go on":
                self.channel(number).unpause()
            case "stop":
                self.topic.pause()
            case "start":
                self.topic.unpause()
            case "empty":
                (self.topic if number == 3 else self.channel(number)).empty()
            case "delete":
                self.channel(number).delete()
            case "channel":
                name = f"{body}"[:5] if number % 2 else None
                window = None if number < 2 else 1
                self._consumers.append(
                    nsqlite.Consumer(self.channel(number), name=name, max_in_flight=window or 100)
                )
            case "leave" if self._consumers:
                self._consumers.pop(number % len(self._consumers)).close()
            case "discard":
                for message in self.channel(number).peek(1):
                    self.channel(number).discard(message.id)
