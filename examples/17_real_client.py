"""A real client: NSQ's protocol over a real socket.

The client knows NSQ's protocol and nothing else of nsqlite; pynsq or go-nsq would do in its place.
The nsqd runs in a thread, on a free port, and its clock is moved by hand.

Watch the FIN: it is lost, so the message comes again when its time is over.  This handler is right,
since it remembers what it has billed.

It prints:

    published: OK
    attempt 1 of order 1: billed
    attempt 2 of order 1: billed already
    in flight: 0

Try it:

1. Publish two orders at once (MPUB) with RDY 2.  Does the second one wait for a FIN?
2. Disconnect the client while it holds the message.  When does the next client get it?

Next: 18_threads.py
"""

import contextlib
import socket

from nsqlite.testing import ManualClock, nsqd
from nsqlite.wire.commands import MAGIC, Fin, Pub, Rdy, Sub
from nsqlite.wire.frames import MESSAGE, RESPONSE, Frames, delivered

frames = Frames()
billed: set[bytes] = set()


def ask(command: Pub | Sub | Rdy, kind: int = RESPONSE) -> bytes:
    """Send a command, and return the next frame of a kind."""
    client.sendall(command.encode())
    while True:
        for found, data in frames.feed(client.recv(4096)):
            if found == kind:
                return data


def bill_next() -> None:
    """Take a message, send its bill unless that was sent, and finish it."""
    message = delivered(ask(Rdy(1), MESSAGE))
    done = "billed already" if message.id in billed else "billed"
    billed.add(message.id)
    print(f"attempt {message.attempts} of {message.body.decode()}: {done}")
    client.sendall(Fin([message.id.decode()]).encode())
    server.settle()  # until it has come


# An nsqd on a free port, and a client with a TCP connection to it; closed at the end.
stack = contextlib.ExitStack()
server = stack.enter_context(nsqd(clock=ManualClock()))
address = server.host, server.port
client = stack.enter_context(socket.create_connection(address))
client.sendall(MAGIC)

# The client publishes, and subscribes to a channel.
print("published:", ask(Pub("orders", [b"order 1"])).decode())
ask(Sub("orders", "billing"))

# It bills the order, but its FIN is lost on the way.  Does nsqd think that the order is done?
server.faults.lose("FIN", times=1)
bill_next()

# A minute later the message times out.  Will the customer get a second bill?
server.advance(60)
bill_next()
billing = server.broker.topic("orders").channel("billing")
print("in flight:", billing.in_flight_count)
stack.close()
