"""What ends a command: one line for the user, and status 1.

The rule: what a user can mend is told in a line that says how, and never with a traceback.

Next: cli/lines.py
"""


class CommandFailed(Exception):
    """A command cannot do what it was asked for; its text is the line."""


def why(error: OSError) -> str:
    """Return what the system said, in words."""
    return error.strerror or str(error)
