"""nsqlite: a message queue inside your process, with the semantics of NSQ.

    >>> import nsqlite
    >>> topic = nsqlite.Topic("orders")
    >>> consumer = nsqlite.Consumer(topic.channel("billing"))
    >>> id = topic.put(b"order 1")
    >>> with consumer.get() as message:
    ...     message.body
    b'order 1'

A topic copies each message to all its channels; a channel gives each of its messages to one of its
consumers; what a consumer does not finish is delivered again.

Times are in seconds.  A `datetime.timedelta` can be given wherever seconds can; what is told is a
float.  `due` is always a moment, on the scale of the time beside it; how long it is until then is
`due_in`.

`python -m nsqlite guide` shows the guide.  What is cited as "NSQ semantics §9", "NSQ wire §4" or
"NSQ http §2" is in documents of this package, too: `python -m nsqlite semantics`, `wire` and `http`
show them, with "NSQ client" in the first and "NSQ startup" in the second.

Public are the names of this package and of `nsqlite.aio`, `nsqlite.worker`, `nsqlite.store`,
`nsqlite.server`, `nsqlite.timeline` and `nsqlite.testing`, and `nsqlite.events.LIFE_CYCLE`.  The
other modules are what these are made of, to be read and not to be built on.

To read the source, begin with errors.py and follow the last line of each docstring.

Next: _version.py
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from nsqlite._version import __version__
from nsqlite.broker import Broker
from nsqlite.channel import Channel
from nsqlite.clock import Clock
from nsqlite.consumer import Consumer
from nsqlite.errors import (
    CannotListen,
    ClockOutOfRange,
    ClockStandsStill,
    Closed,
    Empty,
    Full,
    InvalidMessage,
    InvalidName,
    InvalidOption,
    MissingExtra,
    NoOwner,
    NotAsyncio,
    NotCopyable,
    NotInFlight,
    NSQLiteError,
    RecordingError,
    Reentered,
    StillBusy,
    StoreDamaged,
    StoreError,
    StoreForeign,
    StoreFull,
    StoreInUse,
    TooManyConsumers,
    Unanswered,
    WindowFull,
)
from nsqlite.events import Event, Kind, Observer
from nsqlite.message import Message, State
from nsqlite.options import ChannelOptions, Seconds, TopicOptions, WhenFull
from nsqlite.timerwheel import TimerWheel
from nsqlite.topic import Topic

if TYPE_CHECKING:
    from nsqlite import aio, server, store, testing, timeline, worker
    from nsqlite.stats import (
        BrokerStats,
        ChannelStats,
        ClientStats,
        LatencyStats,
        MessageInfo,
        TopicStats,
    )
    from nsqlite.store.attach import Attached, AttachedChannel, AttachedTopic, attach
    from nsqlite.store.sqlite import SQLite
    from nsqlite.worker import (
        App,
        Backoff,
        DeadLetter,
        Drop,
        Requeue,
        Retry,
        TakeOver,
        Worker,
        redrive,
    )

__all__ = [
    "App",
    "Attached",
    "AttachedChannel",
    "AttachedTopic",
    "Backoff",
    "Broker",
    "BrokerStats",
    "CannotListen",
    "Channel",
    "ChannelOptions",
    "ChannelStats",
    "ClientStats",
    "Clock",
    "ClockOutOfRange",
    "ClockStandsStill",
    "Closed",
    "Consumer",
    "DeadLetter",
    "Drop",
    "Empty",
    "Event",
    "Full",
    "InvalidMessage",
    "InvalidName",
    "InvalidOption",
    "Kind",
    "LatencyStats",
    "Message",
    "MessageInfo",
    "MissingExtra",
    "NSQLiteError",
    "NoOwner",
    "NotAsyncio",
    "NotCopyable",
    "NotInFlight",
    "Observer",
    "RecordingError",
    "Reentered",
    "Requeue",
    "Retry",
    "SQLite",
    "Seconds",
    "State",
    "StillBusy",
    "StoreDamaged",
    "StoreError",
    "StoreForeign",
    "StoreFull",
    "StoreInUse",
    "TakeOver",
    "TimerWheel",
    "TooManyConsumers",
    "Topic",
    "TopicOptions",
    "TopicStats",
    "Unanswered",
    "WhenFull",
    "WindowFull",
    "Worker",
    "__version__",
    "aio",
    "attach",
    "redrive",
    "server",
    "store",
    "testing",
    "timeline",
    "worker",
]

_LAZY = {
    "App": "worker",
    "Attached": "store.attach",
    "AttachedChannel": "store.attach",
    "AttachedTopic": "store.attach",
    "Backoff": "worker",
    "BrokerStats": "stats",
    "ChannelStats": "stats",
    "ClientStats": "stats",
    "DeadLetter": "worker",
    "Drop": "worker",
    "LatencyStats": "stats",
    "MessageInfo": "stats",
    "Requeue": "worker",
    "Retry": "worker",
    "SQLite": "store.sqlite",
    "TakeOver": "worker",
    "TopicStats": "stats",
    "Worker": "worker",
    "aio": "",
    "attach": "store.attach",
    "redrive": "worker",
    "server": "",
    "store": "",
    "testing": "",
    "timeline": "",
    "worker": "",
}
"""What is loaded when it is first asked for: modules, and what is in a module."""


if not TYPE_CHECKING:  # pragma: no branch - a type checker reads the names above, and no others

    def __getattr__(name: str) -> Any:
        """Load what the core can do without."""
        if name in _LAZY:
            module = import_module(f"nsqlite.{_LAZY[name] or name}")
            return getattr(module, name) if _LAZY[name] else module
        # Python adds the nearest of the names that `__dir__` returns.
        raise AttributeError(f"module 'nsqlite' has no attribute {name!r}")


def __dir__() -> list[str]:
    """Name also what is not loaded yet."""
    return sorted({*globals(), *_LAZY})
