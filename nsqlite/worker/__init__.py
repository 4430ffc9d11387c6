"""Workers: handlers in threads or tasks, with backoff, a limit of attempts and dead letters.

    >>> import nsqlite
    >>> topic = nsqlite.Topic("orders")
    >>> channel = topic.channel("billing")
    >>> id = topic.put(b"order 1")
    >>> bodies = []
    >>> with nsqlite.Worker(channel, lambda message: bodies.append(message.body)) as worker:
    ...     worker.join()
    True
    >>> bodies
    [b'order 1']

Next: worker/backoff.py
"""

from nsqlite.worker.app import App, Running
from nsqlite.worker.backoff import Backoff
from nsqlite.worker.deadletter import DeadLetter, redrive
from nsqlite.worker.handler import Handler
from nsqlite.worker.middleware import Middleware, logged, timed
from nsqlite.worker.outcome import Drop, Outcome, Requeue, TakeOver
from nsqlite.worker.plan import WorkerOptions
from nsqlite.worker.retry import Retry
from nsqlite.worker.stats import AtWork, WorkerStats
from nsqlite.worker.worker import Worker

__all__ = [
    "App",
    "AtWork",
    "Backoff",
    "DeadLetter",
    "Drop",
    "Handler",
    "Middleware",
    "Outcome",
    "Requeue",
    "Retry",
    "Running",
    "TakeOver",
    "Worker",
    "WorkerOptions",
    "WorkerStats",
    "logged",
    "redrive",
    "timed",
]
