"""Guards of topics without the topics, for their tests."""

from nsqlite.guard import Guard

REENTERED = (
    "{}() was called by a signal handler or destructor inside another call on the same"
    " topic, and cannot answer there: set a flag and call it later"
)


def path(_: object) -> None:
    """Stand for a topic's short path."""


def other_path(_: object) -> None:
    """Stand for a topic's path while somebody waits."""


def calm() -> Guard:
    """Return the guard of a topic with a channel, where all is calm."""
    guard = Guard()
    guard.short_path = path
    guard.waiting_path = other_path
    guard.run(lambda: None)
    return guard


def state(guard: Guard) -> tuple[bool, bool, bool, bool]:
    """Return whether the lock is owned, it is busy, on the alert, and has no short path."""
    return guard.lock.owned(), guard.busy, guard.alert, guard.push is None


CALM = (False, False, False, False)
