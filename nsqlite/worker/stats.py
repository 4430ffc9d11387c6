"""What a worker tells of itself.

The rule: a snapshot never changes; all times are seconds.

Next: worker/supervisor.py
"""

from typing import Literal

import attrs

WorkerState = Literal["new", "running", "stopping", "stopped"]
"""Not started yet; at work; told to stop, with handlers that have not ended; at its end."""


@attrs.frozen(kw_only=True)
class AtWork:
    """A message that a handler works on.

    Attributes:
        id: the message's.
        attempts: how often it was delivered, this time included.
        seconds: for how long the handler has had it.
        late: whether that is longer than `time_limit`.
        slot: the name of the thread or task.
    """

    id: str
    attempts: int
    seconds: float
    late: bool
    slot: str


@attrs.frozen(kw_only=True)
class WorkerStats:
    """What a worker has done so far, and what it does now.

    Attributes:
        name: the worker's.
        state: what it is at.
        processed: for how many messages its handler was called and has come to an end.
        failed: how often the handler raised what is no decision.
        retried: how often a message was put back, to be tried again.
        given_up: how many messages were given up.
        at_work: what its handlers work on now.
        held_back_for: for how many seconds it takes nothing, 0 if it is not held back.
        held_back_by: why, in words; empty if nothing has held it back since it went on.
    """

    name: str
    state: WorkerState
    processed: int = 0
    failed: int = 0
    retried: int = 0
    given_up: int = 0
    at_work: tuple[AtWork, ...] = ()
    held_back_for: float = 0.0
    held_back_by: str = ""
