"""An asyncio server that sends back what it gets: the yardstick for what a message costs at least.

The rule: each read is cut into frames, a size and so many bytes, each as bytes of its own; they are
joined and written once a read.

So a message that goes through it costs two trips through the system's sockets, a share of a turn of
the event loop, and its cutting; nothing is known of any protocol.  How many frames are under way,
how large they are, and in how large pieces they are sent is as in the row that is compared with it.

It is a process of its own, and says on stderr where it listens, as nsqd does.

Next: bare.py
"""

import asyncio
import sys
from collections.abc import Callable
from struct import Struct
from typing import Final

_size_at: Final = Struct(">I").unpack_from


class Echo(asyncio.Protocol):
    """A connection."""

    def __init__(self) -> None:
        """Begin."""
        self._rest = b""
        self._transport: asyncio.WriteTransport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep where to write to."""
        assert isinstance(transport, asyncio.WriteTransport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Cut a read, and send it back."""
        if self._rest:
            data = self._rest + data
        at, size = 0, len(data)
        frames = []
        while size - at >= 4:
            end = at + 4 + _size_at(data, at)[0]
            if end > size:
                break
            frames.append(data[at:end])
            at = end
        self._rest = data[at:]
        if frames:
            self._transport.write(b"".join(frames))


async def serve(protocol: Callable[[], asyncio.Protocol]) -> None:
    """Listen until the process is killed."""
    server = await asyncio.get_running_loop().create_server(protocol, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    print(f"TCP: listening on {host}:{port}", file=sys.stderr)
    print(f"HTTP: listening on {host}:{port}", file=sys.stderr, flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(Echo))
