"""A client over a real socket: an nsqd for a test, whose time and faults the test decides.

The client knows NSQ's protocol and nothing else of nsqlite; pynsq or go-nsq would do in its place.
The nsqd runs in a thread, on a free port, and its clock is moved by hand.

Watch the FIN: it is lost, so the message comes again when its time is over.  This handler is right,
since it remembers what it has billed.

It prints:

    published: OK
    attempt 1 of order 1: billed
    a minute later
    attempt 2 of order 1: billed already
    in flight: 0

Next: checksums.py
"""

import socket

import nsqlite
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


with nsqlite.testing.nsqd(clock=nsqlite.testing.ManualClock()) as nsqd:
    with socket.create_connection((nsqd.host, nsqd.port)) as client:
        client.sendall(MAGIC)
        print("published:", ask(Pub("orders", [b"order 1"])).decode())
        ask(Sub("orders", "billing"))
        nsqd.faults.lose("FIN", times=1)
        bill_next()
        nsqd.advance(60)
        print("a minute later")
        bill_next()
        nsqd.settle()
    print("in flight:", nsqd.broker.topic("orders").channel("billing").in_flight_count)
