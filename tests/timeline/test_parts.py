"""What a timeline consists of."""

from scenes import retried

from nsqlite.timeline import Lane
from nsqlite.timeline.parts import notes_after, times


def test_kinds_of_lanes() -> None:
    """A lane is a topic's, a channel's or a consumer's."""
    lanes = retried().timeline().lanes
    assert ["topic", "channel", "consumer"] == [lane.kind for lane in lanes]
    assert Lane("orders", "billing", None, "billing") == lanes[1]


def test_step_has_what_its_event_has() -> None:
    """A step's kind and time are its event's; its lanes are where it begins and leads to."""
    delivered = retried().timeline().steps[3]
    assert ("delivered", 0.0) == (delivered.kind, delivered.time)
    assert ["billing", "Ann"] == [lane.name for lane in delivered.lanes]


def test_times() -> None:
    """The times of steps count from the first, all with as many decimals as tell them apart."""
    steps = retried().timeline().steps
    assert ["0.0", "1.0", "6.0"] == sorted(set(times(steps)))
    assert [] == times(())


def test_notes_after() -> None:
    """Notes stand after a step, in their order."""
    notes = retried().timeline([(2, "b"), (1, "a"), (2, "c")]).notes
    assert [["a"], ["b", "c"], []] == [notes_after(notes, number) for number in (1, 2, 3)]
