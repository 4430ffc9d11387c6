"""nsqd on real sockets: NSQ's TCP and HTTP protocols for a broker.

    import asyncio
    from nsqlite.server import NSQD, NSQDOptions

    asyncio.run(NSQD(NSQDOptions(data_path="/var/lib/nsqd")).run())

From a shell it is `nsqlite nsqd`; in a test, `nsqlite.testing.nsqd`.  The HTTP API and AUTH need
the extra ``nsqlite[server]``, compression by snappy ``nsqlite[snappy]``; with ``http_address=""``
and without auth servers nothing is needed.

Next: server/alarms.py
"""

from nsqlite.server.node import Node, Service
from nsqlite.server.nsqd import NSQD
from nsqlite.server.options import NSQDOptions

__all__ = ["NSQD", "NSQDOptions", "Node", "Service"]
