"""A program as a team has it: it uses pynsq, and knows nothing of nsqlite or of tests.

It reads orders, and publishes a bill for each of them; what fails is tried again after 5 seconds.
"""

import sys
from collections.abc import Callable
from typing import Any

import nsq
from tornado.ioloop import IOLoop


class Billing:
    """Reads ``orders`` on ``billing``, and writes to ``bills``."""

    def __init__(self, address: str, charge: Callable[[str], int]) -> None:
        self._charge = charge
        self._writer = nsq.Writer([address], reconnect_interval=0.05)
        self._reader = nsq.Reader(
            topic="orders",
            channel="billing",
            nsqd_tcp_addresses=[address],
            message_handler=self._bill,
            max_in_flight=10,
        )

    def _bill(self, message: Any) -> None:
        message.enable_async()
        order = message.body.decode()
        try:
            amount = self._charge(order)
        except ConnectionError:
            message.requeue(delay=5, backoff=False)
            return
        bill = f"{order}: {amount}".encode()
        self._writer.pub("bills", bill, lambda _, data: self._published(message, data))

    def _published(self, message: Any, data: object) -> None:
        if data == b"OK":
            message.finish()
        else:
            message.requeue(delay=5, backoff=False)

    @property
    def is_ready(self) -> bool:
        """Whether both are connected."""
        return bool(self._writer.conns and self._reader.conns)

    def close(self) -> None:
        self._reader.close()


def main() -> None:
    """Run until it is told to stop."""
    Billing(sys.argv[1], lambda order: 10 * len(order))
    IOLoop.current().start()
