"""With RDY 2 nsqd sends both, one frame after the other, without waiting for a FIN.

It prints:

    order 1
    order 2
    in flight: 2
"""

import contextlib
import logging
import socket

from nsqlite.testing import nsqd
from nsqlite.wire.commands import MAGIC, Mpub, Rdy, Sub
from nsqlite.wire.frames import MESSAGE, Frames, delivered

logging.getLogger("nsqlite").setLevel(logging.ERROR)  # leftovers are meant
frames = Frames()
came: list[str] = []

# A client publishes two messages at once, and is ready for two.
with contextlib.ExitStack() as stack:
    server = stack.enter_context(nsqd())
    address = server.host, server.port
    client = stack.enter_context(socket.create_connection(address))
    orders = Mpub("orders", [b"order 1", b"order 2"])
    client.sendall(MAGIC + orders.encode())
    client.sendall(Sub("orders", "billing").encode() + Rdy(2).encode())
    while len(came) < 2:
        for kind, data in frames.feed(client.recv(4096)):
            if kind == MESSAGE:
                came.append(delivered(data).body.decode())
    print("\n".join(came))
    billing = server.broker.topic("orders").channel("billing")
    print("in flight:", billing.in_flight_count)
