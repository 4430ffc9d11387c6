"""What a disk may hold after a loss of power, worked out from a record of what was done to it.

The rule: what a sync that has ended covers is there.  Of the rest each sector holds what it held at
some moment since; a file's size, a name that was given or removed, likewise.

A sync covers what had ended when it began.  So the order in which the rest reaches the disk is
free, a write may get there in part, and where a file has grown, but what was written there is lost,
there are zeros or rubbish.  Within a sector a write never harms its neighbours: SQLite counts on
that, too (`SQLITE_IOCAP_POWERSAFE_OVERWRITE`).
"""

import random
from collections.abc import Callable, Iterator, Mapping
from typing import Final, TypeAlias

import attrs

from stateful.recorder import (
    Act,
    Begin,
    End,
    Link,
    Record,
    Sync,
    SyncDirectory,
    Truncate,
    Unlink,
    Write,
)

SECTOR: Final = 512
RUBBISH: Final = b"\xa5"

Fate: TypeAlias = Callable[[random.Random, int], list[float]]
"""Says for so many acts, in their order, how much of each has reached the disk, from 0 to 1."""


def _all(_: random.Random, acts: int) -> list[float]:
    return [1] * acts


def _none(_: random.Random, acts: int) -> list[float]:
    return [0] * acts


def _first(chance: random.Random, acts: int) -> list[float]:
    """Have the first ones reach it, the last of them in part."""
    there = chance.randrange(acts + 1)
    return [1 if place < there else 0.5 if place == there else 0 for place in range(acts)]


def _some(chance: random.Random, acts: int) -> list[float]:
    """Have each one reach it, or not."""
    likely = chance.choice([0.1, 0.5, 0.9])
    return [float(chance.random() < likely) for _ in range(acts)]


def _torn(chance: random.Random, acts: int) -> list[float]:
    """Have a part of each one reach it."""
    return [chance.choice([0.1, 0.5, 0.9, 0.99])] * acts


def _but_one(chance: random.Random, acts: int) -> list[float]:
    """Have all but one of the last ones reach it."""
    lost = acts - chance.randint(1, 8)
    return [chance.choice([0, 0.5]) if place == lost else 1 for place in range(acts)]


def _last(chance: random.Random, acts: int) -> list[float]:
    """Have only the last ones reach it."""
    lost = acts - chance.randint(1, 8)
    return [float(place >= lost) for place in range(acts)]


FATES: Final[tuple[Fate, ...]] = (_all, _none, _first, _some, _torn, _but_one, _last)


@attrs.define(eq=False)
class _Open:
    """An act that is not yet known to be on the disk.

    Attributes:
        act: what it is.
        ended: whether it is done.
        covered: of a sync, what is on the disk once it is done.
    """

    act: Act
    ended: bool = False
    covered: "list[_Open]" = attrs.Factory(list)

    def covers(self, other: "_Open") -> bool:
        match self.act, other.act:
            case Sync(file), Write() | Truncate() as act:
                return other.ended and act.file == file
            case SyncDirectory(), Link() | Unlink():
                return other.ended
        return False


@attrs.define
class _Files:
    """Files, and the names they have."""

    contents: dict[str, bytearray]
    names: dict[str, str]
    filling: bytes = b"\0"

    def copy(self, filling: bytes) -> "_Files":
        """Return the same files; where they grow, and nothing is written, there is the filling."""
        contents = {file: bytearray(content) for file, content in self.contents.items()}
        return _Files(contents, dict(self.names), filling)

    def do(self, act: Act) -> None:
        match act:
            case Write(file, offset, data):
                self.grow(file, offset)
                self.of(file)[offset : offset + len(data)] = data
            case Truncate(file, size):
                del self.of(file)[size:]
                self.grow(file, size)
            case Link(name, file):
                self.names[name] = file
            case Unlink(name):
                self.names.pop(name, None)

    def by_name(self) -> dict[str, bytes]:
        return {name: bytes(self.of(file)) for name, file in self.names.items()}

    def of(self, file: str) -> bytearray:
        return self.contents.setdefault(file, bytearray())

    def grow(self, file: str, size: int) -> None:
        content = self.of(file)
        content.extend(self.filling * (size - len(content)))


class Disk:
    """A disk, from its files at the beginning on."""

    def __init__(self, files: Mapping[str, bytes], *, lying: bool = False) -> None:
        """Take the files that are there.

        Args:
            files: what is in them, by name.
            lying: no sync has any effect.
        """
        contents = {name: bytearray(content) for name, content in files.items()}
        self._safe: Final = _Files(contents, {name: name for name in files})
        self._lying: Final = lying
        self._begun: Final[dict[int, _Open]] = {}
        self._unsafe: list[_Open] = []

    def take(self, record: Record) -> None:
        """Have something happen."""
        match record:
            case Begin(number, act):
                begun = self._begun[number] = _Open(act)
                if isinstance(act, Sync | SyncDirectory):
                    begun.covered = [one for one in self._unsafe if begun.covers(one)]
                else:
                    self._unsafe.append(begun)
            case End(number, succeeded):
                begun = self._begun.pop(number)
                begun.ended = True
                if not succeeded:
                    self._unsafe = [one for one in self._unsafe if one is not begun]
                elif not self._lying:
                    self._settle(begun.covered)

    def _settle(self, covered: list[_Open]) -> None:
        """Have on the disk what a sync covers."""
        for one in covered:
            self._safe.do(one.act)
        done = set(covered)
        self._unsafe = [one for one in self._unsafe if one not in done]

    def now(self) -> dict[str, bytes]:
        """Return what is in the files as long as there is power, by name."""
        files = self._safe.copy(b"\0")
        for one in self._unsafe:
            files.do(one.act)
        return files.by_name()

    def lose_power(self, chance: random.Random) -> dict[str, bytes]:
        """Return what may be in the files if there is no power from now on, by name.

        The disk itself goes on as if nothing had happened.
        """
        files = self._safe.copy(chance.choice([b"\0", RUBBISH]))
        acts = [one.act for one in self._unsafe]
        shares = chance.choice(FATES)(chance, len(acts))
        for act in _survivors(acts, shares, chance):
            files.do(act)
        if chance.random() < 0.5:
            for file, size in self._sizes().items():
                files.grow(file, size)
        return files.by_name()

    def _sizes(self) -> dict[str, int]:
        """Return the sizes of files that all acts together would have, where there are any."""
        sizes: dict[str, int] = {}
        for one in self._unsafe:
            match one.act:
                case Write(file, offset, data):
                    known = sizes.get(file, len(self._safe.of(file)))
                    sizes[file] = max(known, offset + len(data))
                case Truncate(file, size):
                    sizes[file] = size
        return sizes


def _survivors(acts: list[Act], shares: list[float], chance: random.Random) -> Iterator[Act]:
    """Go through the parts of acts that have reached the disk.

    A sector gets there as a whole, so what was written to it before has got there, too.
    """
    last: dict[tuple[str, int], int] = {}
    pieces = [_pieces(act) for act in acts]
    for place, share in enumerate(shares):
        for piece in pieces[place]:
            if isinstance(piece, Write) and chance.random() < share:
                last[piece.file, piece.offset // SECTOR] = place
    for place, share in enumerate(shares):
        for piece in pieces[place]:
            if isinstance(piece, Write):
                if place <= last.get((piece.file, piece.offset // SECTOR), -1):
                    yield piece
            elif chance.random() < share:
                yield piece


def _pieces(act: Act) -> list[Act]:
    """Return an act sector by sector, if it writes to sectors."""
    if not isinstance(act, Write):
        return [act]
    file, offset, data = act
    starts = [0, *range(SECTOR - offset % SECTOR, len(data), SECTOR)]
    ends = [*starts[1:], len(data)]
    return [
        Write(file, offset + start, data[start:end])
        for start, end in zip(starts, ends, strict=True)
    ]
