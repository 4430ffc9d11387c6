"""After its time-out: nsqd does not take back what a client held whose connection has ended.

It prints:

    the first client holds order 1
    disconnected: ready 0, in flight 1
    a minute later: ready 1, in flight 0
    the next client gets order 1, attempt 2
"""

import logging
import socket

from nsqlite.testing import ManualClock, nsqd
from nsqlite.wire.commands import MAGIC, Rdy, Sub
from nsqlite.wire.frames import MESSAGE, Frames, delivered

logging.getLogger("nsqlite").setLevel(logging.ERROR)  # leftovers are meant


def get(client: socket.socket) -> tuple[str, int]:
    """Subscribe, and return the first message's body and attempts."""
    frames = Frames()
    client.sendall(MAGIC + Sub("orders", "billing").encode())
    client.sendall(Rdy(1).encode())
    while True:
        for kind, data in frames.feed(client.recv(4096)):
            if kind == MESSAGE:
                message = delivered(data)
                return message.body.decode(), message.attempts


def show(what: str) -> None:
    """Print what was done, and where the message is."""
    ready, in_flight = billing.depth, billing.in_flight_count
    print(f"{what}: ready {ready}, in flight {in_flight}")


with nsqd(clock=ManualClock()) as server:
    orders = server.broker.topic("orders")
    billing = orders.channel("billing")
    orders.put(b"order 1")
    address = server.host, server.port

    # A client gets the message, and is disconnected.
    with socket.create_connection(address) as first:
        print("the first client holds", get(first)[0])
        server.disconnect()
    server.settle()  # until it has noticed
    show("disconnected")

    # Only the clock can bring it back.
    server.advance(60)
    show("a minute later")
    with socket.create_connection(address) as second:
        body, attempts = get(second)
        print(f"the next client gets {body}, attempt {attempts}")
