"""A recorder keeps the newest events."""

import nsqlite
from nsqlite.timeline import Recorder


def test_recorder_keeps_the_newest() -> None:
    """What is more than it was told to keep goes, the oldest first, and is counted."""
    topic = nsqlite.Topic("orders")
    recorder = Recorder(most=2)
    topic.observe(recorder)
    topic.put_many([b"1", b"2", b"3"])
    assert [b"2", b"3"] == [event.body for event in recorder.events]
    assert repr(recorder) == "<Recorder events=2 forgotten=1>"
    recorder.clear()
    assert repr(recorder) == "<Recorder events=0 forgotten=0>"
