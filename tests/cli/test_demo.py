"""The story that `python -m nsqlite` tells."""

import re

from nsqlite.cli.demo import NOTES, SCENES, Story, tell


def rows(text: str) -> list[str]:
    """Return the lines of the timeline."""
    return re.findall(r"^ +\d+\.\d  .*$", text, re.MULTILINE)


STORY = "\n".join(tell())


def test_it_is_the_same_each_time() -> None:
    """The story does not depend on the time, nor on consumers made before."""
    assert "\n".join(tell()) == STORY


def test_it_fits_any_terminal() -> None:
    """The story has at most 88 columns of ASCII, and no line ends in blanks."""
    assert STORY.isascii()
    assert max(map(len, STORY.splitlines())) <= 88
    assert [line for line in STORY.splitlines() if line != line.rstrip()] == []


def test_every_kind_of_event_that_is_explained_happens() -> None:
    """The timeline has each kind of event that there is a note for."""
    assert {kind for kind in NOTES if not any(f"  {kind}  " in row for row in rows(STORY))} == set()


def test_time_never_goes_back() -> None:
    """The time column goes from 0 upwards."""
    times = [float(row.split()[0]) for row in rows(STORY)]
    assert times[0] == 0
    assert times == sorted(times)


def test_a_message_that_times_out_is_delivered_again() -> None:
    """The time-out is told step by step, the late answer included."""
    story = Story()
    SCENES["Time-out: so is a message that is not answered within 10 seconds."](story)
    assert story.lines == [
        "     0.0  rice     published                     to topic orders",
        "     0.0  rice     delivered  billing  Ann       attempt 1, in flight",
        "    10.0  rice     timed out  billing  Ann       no answer in time, ready again",
        "    10.0  rice     delivered  billing  Bob       attempt 2, in flight",
        "    11.0  rice     refused    billing  Ann       fin came too late: timed out",
        "    11.0  rice     finished   billing  Bob       gone from billing",
    ]


def test_scenes_leave_nothing_behind() -> None:
    """After each scene every message is finished."""
    story = Story()
    for play in SCENES.values():
        play(story)
        assert story.topic.idle


def test_nothing_is_lost() -> None:
    """The last line gives the true sum: six messages, each finished."""
    assert STORY.splitlines()[-1] == (
        "In the end: 6 messages in channel billing, 6 finished, 1 requeue, 1 time-out, depth 0."
    )
    assert sum(" finished   billing " in row for row in rows(STORY)) == 6
