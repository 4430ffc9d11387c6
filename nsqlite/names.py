"""Topic and channel names: NSQ's rule, and what makes a name ephemeral (NSQ semantics §2).

The rule: no object exists under a name that nsqd would refuse.

Next: options.py
"""

import re
from typing import Final

from nsqlite.errors import InvalidName

MAX_LENGTH: Final = 64
"""The longest name in characters, ``#ephemeral`` counted."""

_FORM = re.compile(r"[.a-zA-Z0-9_-]+(#ephemeral)?")


def check_name(kind: str, name: object) -> str:
    """Return the name if NSQ allows it.

    Args:
        kind: ``"topic"`` or ``"channel"``, for the error's text.
        name: what the user gave, of any type.

    Raises:
        InvalidName: it is not a str, is empty or too long, or has a character not allowed.
    """
    if not isinstance(name, str) or not is_name(name):
        raise InvalidName(kind, name)
    return name


def is_name(text: str) -> bool:
    """Return whether NSQ allows a text as the name of a topic or channel."""
    return len(text) <= MAX_LENGTH and _FORM.fullmatch(text) is not None


def is_ephemeral(name: str) -> bool:
    """Return whether a topic or channel of this name vanishes with its last user."""
    return name.endswith("#ephemeral")
