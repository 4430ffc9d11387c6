"""Commands as tests compare them: by what they are, too, as each of them is a tuple."""

from nsqlite.wire.commands import Command


class Exact(list[Command]):
    """Commands that are equal to others of the same kinds only."""

    __hash__ = None

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, list)
            and list.__eq__(self, other)
            and list(map(type, self)) == list(map(type, other))
        )
