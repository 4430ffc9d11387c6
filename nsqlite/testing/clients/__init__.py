"""Handlers that were written for another NSQ client, called without a socket: pynsq, gnsq, ansq.

The rule: a handler gets the client's own kind of message, and what it does, returns or raises means
what it means in that client, decided by the client's own code where it has any.

Each is a module of its own, since importing one imports its client:

    from nsqlite.testing.clients import pynsq

    message = pynsq.message(b"order 1", attempts=2)  # no broker at all
    pynsq.handler(bill)(message)
    assert message.answer.state == "finished"

    nsqlite.Worker(channel, pynsq.handler(bill), **OPTIONS)  # with a broker

Next: testing/clients/delivery.py
"""

from nsqlite.testing.clients.delivery import OPTIONS, Answer

__all__ = ["OPTIONS", "Answer"]
