"""What is due, in order: a wheel of two levels, pages and ticks.

The rule: nothing is due before its deadline, nor later than one tick after it, and what falls into
the same tick comes out in the order in which it went in.

Time is cut into ticks of `resolution` nanoseconds, and a deadline is due at the end of its tick.
What is far away lies in pages of many ticks, unordered: a page is a dict of items with the moments
at which they are due, and a `SortedDict` keeps the pages in order.  When the first item of a page
is due, the page is opened: its items are sorted.  Nearly every timer is cancelled before
that, and nearly all new ones fall into a page that is there; what is due at `NEVER` or later lies
in a page that is never opened.  So:

    add      one dict look-up and one insertion: O(1); a new page O(log pages)
    cancel   one dict deletion: O(1)
    due?     compare with `next_due`: O(1)
    expire   O(log n) for each item, by one sort of its page
    len      O(pages)

    >>> wheel = TimerWheel(resolution=10)
    >>> page = wheel.add("tea", deadline=31)
    >>> wheel.next_due
    40
    >>> wheel.expire(39)
    []
    >>> wheel.expire(40)
    ['tea']

Next: delayqueue.py
"""

from collections.abc import Hashable, Iterator
from operator import itemgetter
from typing import Final, Generic, TypeAlias, TypeVar, cast

from sortedcontainers import SortedDict

from nsqlite.clock import NEVER
from nsqlite.options import whole

H = TypeVar("H", bound=Hashable)

TICKS: Final = 64
"""How many ticks a page has by default."""

_DUE: Final = itemgetter(0)


class Page(dict[H, int]):
    """Items that are due in one span of time, each with the moment at which it is.

    Items are added to it, and taken out again, as to any dict, once `TimerWheel.page` was asked for
    the moment.

    Attributes:
        start: where the span begins.
        end: where it ends.
        first: no item is due before this, but for those that `TimerWheel` has opened.
        open: whether items may still be added.
        kept_until: the owner's: until when it may add items without asking for the page again.
    """

    __slots__ = ("end", "first", "kept_until", "open", "start")

    def __init__(self, start: int, end: int, first: int) -> None:
        """Begin empty."""
        super().__init__()
        self.start: Final = start
        self.end: Final = end
        self.first: int = first
        self.open: bool = True
        self.kept_until: int = -NEVER

    def in_order(self) -> list[H]:
        """Return the items, the earliest first, and what is due together as it was added."""
        dues = self.values()
        if min(dues) == max(dues):
            return list(self)
        return sorted(self, key=self.__getitem__)


Run: TypeAlias = tuple[Page[H], list[tuple[int, H]]]
"""A page that was opened, and what was in it with the moments, the next one last."""


class TimerWheel(Generic[H]):
    """Items with deadlines.  An item can be in a page once.

    Threads: one at a time; the owner's lock protects it.

    Attributes:
        resolution: the length of a tick, in whatever integer unit the deadlines have.
        next_due: nothing is due before this; `NEVER` if there is nothing.  What was due then may
            have been cancelled meanwhile.
        stale: what `until` has met that was cancelled since its page was opened; the caller drops
            it, since a destructor may be user code.
    """

    __slots__ = ("_pages", "_runs", "_span", "_whole", "next_due", "resolution", "stale")

    def __init__(self, resolution: int, span: int | None = None) -> None:
        """Make an empty wheel.

        Args:
            resolution: the length of a tick.
            span: the length of a page, a tick at least; by default 64 ticks.

        Raises:
            InvalidOption: one of them is no whole number, or too small.
        """
        whole("resolution", resolution, 1)
        self.resolution: Final = resolution
        self._span: Final = TICKS * resolution if span is None else whole("span", span, resolution)
        self.next_due: int = NEVER
        self._pages: SortedDict[int, Page[H]] | None = None  # made when it is first needed
        self._runs: list[Run[H]] = []  # the pages that were opened, with what was in them
        self.stale: list[H] = []
        self._whole = True  # False while, and if a signal threw something while, `_pages` changes

    def due(self, deadline: int) -> int:
        """Return when a deadline is due: at the end of its tick."""
        return deadline + -deadline % self.resolution

    def page(self, due: int) -> Page[H]:
        """Return the page for items that are due at a moment, which `due` has returned.

        It is made if it is not there.  From here on `next_due` counts with such an item.
        """
        pages = self._ordered()
        start = due - due % self._span
        page = pages.get(start)
        if due < self.next_due:  # noqa: PLR1730 - no call here: from now on nobody sleeps past it
            self.next_due = due  # before the page is there
        if page is None:
            page = Page(start, start + self._span, due)
            self._whole = False
            pages[start] = page
            self._whole = True
        elif due < page.first:
            page.first = due
        return page

    def add(self, item: H, deadline: int) -> Page[H]:
        """Add an item and return its page, which `cancel` needs."""
        due = self.due(deadline)
        page = self.page(due)
        page[item] = due
        return page

    def cancel(self, item: H, page: Page[H]) -> None:
        """Take an item out before it is due.

        Raises:
            KeyError: it is not in that page; nothing has changed.
        """
        del page[item]
        if not page:
            self.drop(page)

    def drop(self, page: Page[H]) -> None:
        """Clear away a page that is empty, and to which nobody adds any more."""
        pages = self._ordered()
        if pages.get(page.start) is page:
            page.open = False
            self._whole = False
            del pages[page.start]
            self._whole = True
            self._set_next()

    def _ordered(self) -> "SortedDict[int, Page[H]]":
        """Return the pages in order; order them anew if a signal has interrupted a change."""
        pages = self._pages
        if pages is None or not self._whole:
            # The dict in a SortedDict is whole though its order may not be.
            pages = self._pages = SortedDict({} if pages is None else _plain(pages))
            self._whole = True
            self._set_next()
        return pages

    def _set_next(self) -> None:
        pages = self._pages
        first: int = pages.peekitem(0)[1].first if pages else NEVER
        self.next_due = min([NEVER, first, *(order[-1][0] for _, order in self._runs if order)])

    def until(self, now: int) -> Iterator[tuple[H, int, Page[H]]]:
        """Go through what is due at `now`, the earliest first: item, moment and page.

        The caller takes each item out of its page.  If it stops early, what is left, and only that,
        comes again the next time.
        """
        if self.next_due > now:
            return
        self._open(now)
        while (run := self._next_run()) is not None and run[1][-1][0] <= now:
            page, order = run
            due, item = order[-1]
            if page.get(item) == due:
                yield item, due, page
            else:
                self.stale.append(item)
            order.pop()  # last, so that an interrupted caller finds it again
        self._runs = [run for run in self._runs if run[1]]
        self._set_next()

    def _next_run(self) -> Run[H] | None:
        """Return the run that has what is due next, of several the one that was opened first."""
        first = None
        for run in self._runs:
            order = run[1]
            if order and (first is None or order[-1][0] < first[1][-1][0]):
                first = run
        return first

    def whole(self, now: int) -> Page[H] | None:
        """Return the page that comes next if all of it is due at `now`.

        The caller takes all items out and drops the page.
        """
        if self.next_due > now or self._runs:
            return None
        pages = self._ordered()
        if not pages:  # `until` was interrupted with the last item
            return None
        page: Page[H] = pages.peekitem(0)[1]
        if page.first > now or page.kept_until > now or not page or max(page.values()) > now:
            return None
        return page

    def _open(self, now: int) -> None:
        """Sort what is in the pages of which something is due.  Idempotent."""
        pages = self._ordered()
        while pages:
            page: Page[H] = pages.peekitem(0)[1]
            if page.first > now:
                return
            kept = page.kept_until > now
            order = [(due, item) for item, due in page.items() if due <= now or not kept]
            if order:
                order.reverse()  # so that what is due together keeps its order
                order.sort(key=_DUE, reverse=True)
                self._runs.append((page, order))
            if kept:
                page.first = self.due(now + 1)  # what is still to come is due then or later
                return
            page.open = False
            self._whole = False
            del pages[page.start]
            self._whole = True

    def expire(self, now: int) -> list[H]:
        """Take out all that is due at `now`, the earliest first."""
        items = []
        for item, _, page in self.until(now):
            del page[item]
            items.append(item)
        self.stale.clear()
        return items

    def clear(self) -> list[H]:
        """Take out everything that is ever due, the earliest first."""
        return self.expire(NEVER - 1)

    def pages(self) -> list[Page[H]]:
        """Return the pages that may hold something."""
        waiting = () if self._pages is None else _plain(self._pages).values()
        if not self._runs:
            return list(waiting)
        opened = (page for page, _ in self._runs.copy())
        return list({id(page): page for page in (*opened, *waiting)}.values())

    def pairs(self) -> Iterator[tuple[int, H]]:
        """Go through the items with the moments at which they are due, the earliest first."""
        found = [(due, item) for page in self.pages() for item, due in page.items()]
        found.sort(key=_DUE)
        return iter(found)

    def __iter__(self) -> Iterator[H]:
        """Go through the items, the earliest first."""
        return (item for _, item in self.pairs())

    def __len__(self) -> int:
        """Count the items."""
        return sum(map(len, self.pages()))

    def __bool__(self) -> bool:
        """Return whether there is an item."""
        return any(page for page, _ in self._runs) or (
            self._pages is not None and any(dict.values(cast("dict[int, object]", self._pages)))
        )

    def next_filled(self) -> int:
        """Return when the next item is due, `NEVER` if there is none; O(items of a page)."""
        if self.next_due == NEVER:
            return NEVER
        first = NEVER
        for page, order in self._runs:
            alive = (due for due, item in reversed(order) if page.get(item) == due)
            first = min(first, next(alive, NEVER))
        for page in self._ordered().values():
            if page.start >= first:
                break
            first = min(first, min(page.values(), default=NEVER))
        return first

    def _check(self) -> None:
        """Check what must always hold."""
        starts = list(self._ordered())
        assert starts == sorted(starts)
        assert self.next_due <= self.next_filled()
        known = {(due, id(page), id(item)) for page, order in self._runs for due, item in order}
        pages = self._ordered()
        for start, page in pages.items():
            assert start == page.start
            for item, due in page.items():
                assert start <= due < start + self._span
                assert page.first <= due or (due, id(page), id(item)) in known
        for page, _ in self._runs:
            if pages.get(page.start) is not page:
                for item, due in page.items():
                    assert (due, id(page), id(item)) in known


def _plain(pages: "SortedDict[int, Page[H]]") -> dict[int, Page[H]]:
    """Return pages in no order, which is right in the middle of a change too."""
    return dict(dict.items(cast("dict[int, Page[H]]", pages)))
