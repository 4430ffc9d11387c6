"""What is due, in order: a wheel of ticks.

The rule: nothing is due before its deadline, nor later than one tick after it, and what falls into
the same tick comes out in the order in which it went in.

Time is cut into ticks of `resolution` nanoseconds.  A deadline falls into the first tick that ends
at or after it, and is due when that tick has ended.  A `SortedDict` keeps the ticks that exist in
order; a tick is a dict of what is due in it.  Nearly every timer is cancelled, and nearly all new
ones fall into a tick that is there, so:

    add      one dict look-up and one insertion: O(1); a new tick O(log ticks)
    cancel   one dict deletion: O(1)
    due?     compare with `next_due`: O(1)
    len      O(ticks)
    bool     O(1), and one step more for each tick that was emptied meanwhile

    >>> wheel = TimerWheel(resolution=10)
    >>> tick = wheel.add("tea", deadline=31)
    >>> wheel.next_due
    40
    >>> wheel.expire(39)
    []
    >>> wheel.expire(40)
    ['tea']

Next: message.py
"""

from collections.abc import Hashable, Iterator
from typing import Final, Generic, TypeVar, cast

from sortedcontainers import SortedDict

from nsqlite.clock import NEVER
from nsqlite.options import whole

H = TypeVar("H", bound=Hashable)


class Tick(dict[H, None]):
    """What is due at one moment, in the order in which it came.

    Attributes:
        due: the moment.
    """

    __slots__ = ("due",)

    def __init__(self, due: int) -> None:
        """Begin empty."""
        super().__init__()
        self.due: Final = due


class TimerWheel(Generic[H]):
    """Items with deadlines.  An item can be in a tick once.

    Threads: one at a time; the owner's lock protects it.

    Attributes:
        resolution: the length of a tick, in whatever integer unit the deadlines have.
        next_due: when the next tick that exists is due, `NEVER` if there is none.  That tick may
            have been emptied meanwhile; `expire` clears it away.
    """

    __slots__ = ("_ticks", "_whole", "next_due", "resolution")

    def __init__(self, resolution: int) -> None:
        """Make an empty wheel.

        Raises:
            InvalidOption: the resolution is no whole number of at least 1.
        """
        whole("resolution", resolution, 1)
        self.resolution: Final = resolution
        self.next_due = NEVER
        self._ticks: SortedDict[int, Tick[H]] = SortedDict()
        self._whole = True  # False while, and if a signal threw something while, it is changed

    def tick(self, deadline: int) -> Tick[H]:
        """Return the tick that a deadline falls into; it is made if it is not there.

        Items are added to it, and taken out again, as to any dict.
        """
        resolution = self.resolution
        due = -(-deadline // resolution) * resolution
        tick = self._order().get(due)
        if tick is None:
            tick = Tick(due)
            self._whole = False
            if due < self.next_due:  # noqa: PLR1730 - no call: from here on nobody sleeps past it
                self.next_due = due
            self._ticks[due] = tick
            self._whole = True
        return tick

    def add(self, item: H, deadline: int) -> Tick[H]:
        """Add an item and return its tick, which `cancel` needs."""
        tick = self.tick(deadline)
        tick[item] = None
        return tick

    def cancel(self, item: H, tick: Tick[H]) -> None:
        """Take an item out before it is due.

        Raises:
            KeyError: it is not in that tick; nothing has changed.
        """
        del tick[item]
        if not tick:
            self.drop(tick)

    def drop(self, tick: Tick[H]) -> None:
        """Clear away a tick that is empty."""
        order = self._order()
        if order.get(tick.due) is tick:
            self._whole = False
            del order[tick.due]
            self.next_due = order.peekitem(0)[0] if order else NEVER
            self._whole = True

    def _order(self) -> SortedDict[int, Tick[H]]:
        """Return the ticks in order; order them anew if a signal has interrupted a change."""
        if not self._whole:
            # The dict in a SortedDict is whole though its order may not be.
            ticks = self._plain()
            self._ticks = SortedDict(ticks)
            self.next_due = min(ticks, default=NEVER)
            self._whole = True
        return self._ticks

    def _plain(self) -> dict[int, Tick[H]]:
        """Return the ticks in no order, which is right in the middle of a change too."""
        return dict(list(dict.items(cast("dict[int, Tick[H]]", self._ticks))))

    def next_filled(self) -> int:
        """Return when the next tick that holds something is due, `NEVER` if there is none."""
        return next((due for due, tick in self._order().items() if tick), NEVER)

    def first_due(self, now: int) -> Tick[H] | None:
        """Return the next tick if it is due at `now`; empty or not, it is still to be dropped.

        It may be None though `next_due` had promised one, if a signal had interrupted a change.
        """
        order = self._order()
        return order.peekitem(0)[1] if self.next_due <= now else None

    def expire(self, now: int) -> list[H]:
        """Take out all that is due at `now`, the earliest first."""
        items: list[H] = []
        while (tick := self.first_due(now)) is not None:
            items.extend(tick)
            tick.clear()
            self.drop(tick)
        return items

    def clear(self) -> list[H]:
        """Take out everything, the earliest first."""
        return self.expire(NEVER - 1)

    def ticks(self) -> Iterator[Tick[H]]:
        """Go through the ticks, the earliest first."""
        return iter(self._order().values())

    def pairs(self) -> Iterator[tuple[Tick[H], H]]:
        """Go through the items with their ticks, the earliest first."""
        return ((tick, item) for tick in self._order().values() for item in tick)

    def __iter__(self) -> Iterator[H]:
        """Go through the items, the earliest first."""
        return (item for tick in self._order().values() for item in tick)

    def __len__(self) -> int:
        """Count the items."""
        return sum(map(len, dict.values(cast("dict[int, Tick[H]]", self._ticks))))

    def __bool__(self) -> bool:
        """Return whether there is an item."""
        return self.next_filled() != NEVER

    def _check(self) -> None:
        """Check what must always hold."""
        dues = list(self._order())
        assert dues == sorted(dues)
        assert self.next_due == (dues[0] if dues else NEVER)
        for due, tick in self._ticks.items():
            assert due == tick.due
            assert due % self.resolution == 0
