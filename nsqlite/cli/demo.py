"""A story of six messages, told as a timeline.

The rule: what it tells has happened.  Each line of the timeline is an event that an observer heard
from a real topic, or the answer to a real call; only the headings are written by hand.  The clock
is moved by hand, so nobody waits and the story is the same each time.

Next: cli/failure.py
"""

from collections.abc import Callable, Iterator
from typing import Final

from nsqlite import Consumer, Event, Kind, NotInFlight, Topic
from nsqlite.testing import ManualClock

BEGINNING: Final = """\
nsqlite: a message queue inside your process, with the semantics of NSQ

                    +--> channel billing --> consumers Ann and Bob
    topic orders ---+
                    +--> channel audit ----> consumer Eve

Times are in seconds.  The clock is moved by hand, so nobody has to wait."""

HEAD: Final = "    time  message  event      channel  consumer"

NOTES: Final = {
    Kind.PUBLISHED: "to topic {topic}",
    Kind.DEFERRED: "until {due:.1f}",
    Kind.DUE: "ready now",
    Kind.DELIVERED: "attempt {attempts}, in flight",
    Kind.FINISHED: "gone from {channel}",
    Kind.REQUEUED: "ready again",
    Kind.TIMED_OUT: "no answer in time, ready again",
    Kind.DELETED: "the story goes on without it",
}
"""What is said of each kind of event that the story has."""


class Story:
    """A topic with two channels and three consumers, and what happens to them.

    Attributes:
        clock: the story's time, which begins with 0.
        lines: what has happened and is not told yet.
    """

    def __init__(self) -> None:
        """Set the scene; nothing has happened yet."""
        self.clock: Final = ManualClock(start=0)
        self.lines: Final[list[str]] = []
        self.topic: Final[Topic[str]] = Topic("orders", clock=self.clock, msg_timeout=10)
        self.billing: Final = self.topic.channel("billing")
        self.audit: Final = self.topic.channel("audit")
        self.ann: Final = Consumer(self.billing)
        self.bob: Final = Consumer(self.billing)
        self.eve: Final = Consumer(self.audit)
        self._names: Final[dict[int | None, str]] = {
            None: "",
            self.ann.client_id: "Ann",
            self.bob.client_id: "Bob",
            self.eve.client_id: "Eve",
        }
        self.topic.observe(self.hear)

    def hear(self, event: Event) -> None:
        """Note down an event."""
        text = NOTES[event.kind].format(
            topic=event.topic, channel=event.channel, attempts=event.attempts, due=event.due
        )
        who = self._names[event.client_id]
        self.note(event.kind, event.body or "", event.channel or "", who, text)

    def note(self, what: str, body: str, channel: str, who: str, text: str) -> None:
        """Note down what happens now."""
        time = self.clock.time()
        self.lines.append(f"{time:8.1f}  {body:<7}  {what:<9}  {channel:<7}  {who:<8}  {text}")


def fan_out(story: Story) -> None:
    """Have both channels get a message, and end the second one."""
    story.topic.put("tea")
    tea = story.ann.get(timeout=0)
    copy = story.eve.get(timeout=0)
    story.clock.advance(0.5)
    copy.fin()
    story.clock.advance(0.5)
    tea.fin()
    story.audit.delete()


def compete(story: Story) -> None:
    """Have two consumers share a channel."""
    story.topic.put_many(["bread", "jam"])
    bread = story.ann.get(timeout=0)
    jam = story.bob.get(timeout=0)
    story.clock.advance(1)
    jam.fin()
    story.clock.advance(1)
    bread.fin()


def requeue(story: Story) -> None:
    """Have a consumer fail."""
    story.topic.put("eggs")
    eggs = story.ann.get(timeout=0)
    story.clock.advance(1)
    eggs.req()
    eggs = story.bob.get(timeout=0)
    story.clock.advance(1)
    eggs.fin()


def time_out(story: Story) -> None:
    """Have a consumer answer too late."""
    story.topic.put("rice")
    late = story.ann.get(timeout=0)
    story.clock.advance(10)
    rice = story.bob.get(timeout=0)
    story.clock.advance(1)
    try:
        late.fin()
    except NotInFlight as error:
        story.note("refused", late.body, "billing", "Ann", f"fin came too late: {error.reason}")
    rice.fin()


def defer(story: Story) -> None:
    """Publish a message for later."""
    story.topic.put("cake", delay=2.5)
    story.clock.advance(2.5)
    cake = story.bob.get(timeout=0)
    story.clock.advance(1)
    cake.fin()


SCENES: Final[dict[str, Callable[[Story], None]]] = {
    "Fan out: the topic gives each message to every channel.": fan_out,
    "Competing consumers: a channel gives each message to one of its consumers.": compete,
    "Requeue: a message whose work failed is delivered again.": requeue,
    "Time-out: so is a message that is not answered within 10 seconds.": time_out,
    "Deferral: a message can be published for later.": defer,
}
"""What is shown, in this order."""


def tell() -> Iterator[str]:
    """Play the scenes and yield the lines that tell of them."""
    story = Story()
    yield BEGINNING
    for number, (heading, play) in enumerate(SCENES.items(), 1):
        yield f"\n{number}. {heading}\n"
        yield HEAD
        play(story)
        yield from story.lines
        story.lines.clear()
    stats = story.billing.stats()
    finished = sum(client.finish_count for client in stats.clients)
    yield (
        f"\nIn the end: {stats.message_count} messages in channel billing, {finished} finished,"
        f" {stats.requeue_count} requeue, {stats.timeout_count} time-out, depth {stats.depth}."
    )
