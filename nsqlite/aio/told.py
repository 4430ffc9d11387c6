"""What a task awaits, which another thread does.

The rule: the loop is told by `call_soon_threadsafe` alone; who gave up waiting hears nothing.

Next: aio/lookout.py
"""

from asyncio import AbstractEventLoop, Future, get_running_loop
from collections.abc import Callable
from typing import Final

from nsqlite.shelf import Shelf


class Told:
    """Something that will be told, once, by any thread.

    Attributes:
        future: done when it was told.
    """

    __slots__ = ("_loop", "future")

    def __init__(self) -> None:
        """Begin untold, in the running loop."""
        self._loop: Final[AbstractEventLoop] = get_running_loop()
        self.future: Final[Future[None]] = self._loop.create_future()

    def tell(self, problem: BaseException | None = None) -> None:
        """Tell that it is done, or why it could not be.

        Raises:
            RuntimeError: the loop is closed, so nobody waits.
        """
        self._loop.call_soon_threadsafe(self._take, problem)

    def _take(self, problem: BaseException | None) -> None:
        if self.future.done():  # whoever waited was cancelled
            return
        if problem is None:
            self.future.set_result(None)
        else:
            self.future.set_exception(problem)


async def by_store(shelf: Shelf, errand: Callable[[], object]) -> None:
    """Have something done by the store's thread, and wait for it.

    Cancellation:
        It is done all the same.
    """
    told = Told()
    shelf.send(errand, told.tell)
    await told.future
