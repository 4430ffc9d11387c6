"""What happened, as a timeline: a recorder, and what it recorded as text and as a page.

Next: timeline/words.py
"""

from nsqlite.timeline.parts import Course, Gap, GivenUp, Lane, Life, Note, Span, Stay, Step
from nsqlite.timeline.recorder import Recorder
from nsqlite.timeline.recording import Excerpt, Recorded, Recording, Run, read_recording
from nsqlite.timeline.timeline import Timeline

__all__ = [
    "Course",
    "Excerpt",
    "Gap",
    "GivenUp",
    "Lane",
    "Life",
    "Note",
    "Recorded",
    "Recorder",
    "Recording",
    "Run",
    "Span",
    "Stay",
    "Step",
    "Timeline",
    "read_recording",
]
