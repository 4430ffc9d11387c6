"""What a client sends: commands as objects, and as bytes (NSQ wire §4).

The rule: what `Session` reads of `encode` is the command again; so a client and a server cannot
differ.

Next: wire/session.py
"""

from struct import pack
from typing import Final, NamedTuple, TypeAlias

MAGIC: Final = b"  V2"
"""What a client begins with."""


class Identify(NamedTuple):
    """Who the client is, and what it asks for."""

    body: bytes
    """JSON."""

    def encode(self) -> bytes:
        """Return it as bytes."""
        return b"IDENTIFY\n%b" % _sized(self.body)


class Auth(NamedTuple):
    """What the client is known by to the auth server."""

    secret: bytes

    def __repr__(self) -> str:
        """Show nothing of the secret."""
        return f"Auth(secret=<{len(self.secret)} bytes>)"

    def encode(self) -> bytes:
        """Return it as bytes."""
        return b"AUTH\n%b" % _sized(self.secret)


class Sub(NamedTuple):
    """Join a channel."""

    topic: str
    channel: str

    def encode(self) -> bytes:
        """Return it as bytes."""
        return f"SUB {self.topic} {self.channel}\n".encode()


class Rdy(NamedTuple):
    """Set the window."""

    window: int
    """How many messages may be unanswered."""

    def encode(self) -> bytes:
        """Return it as bytes."""
        return b"RDY %d\n" % self.window


class Fin(NamedTuple):
    """Finish messages; several stand for as many commands in a row."""

    ids: list[str]
    """Of 16 characters, each one byte."""

    def encode(self) -> bytes:
        """Return it as bytes."""
        return b"".join(b"FIN %b\n" % name.encode("latin-1") for name in self.ids)


class Req(NamedTuple):
    """Requeue a message."""

    id: str
    delay: int
    """In milliseconds."""

    def encode(self) -> bytes:
        """Return it as bytes."""
        return b"REQ %b %d\n" % (self.id.encode("latin-1"), self.delay)


class Touch(NamedTuple):
    """Ask for the whole time of a message again."""

    id: str

    def encode(self) -> bytes:
        """Return it as bytes."""
        return b"TOUCH %b\n" % self.id.encode("latin-1")


class Cls(NamedTuple):
    """Send no more messages."""

    def encode(self) -> bytes:
        """Return it as bytes."""
        return b"CLS\n"


class Nop(NamedTuple):
    """Nothing, as an answer to a heartbeat."""

    def encode(self) -> bytes:
        """Return it as bytes."""
        return b"NOP\n"


class Pub(NamedTuple):
    """Publish messages, each with an answer of its own: as many commands in a row."""

    topic: str
    bodies: list[bytes]

    def encode(self) -> bytes:
        """Return it as bytes."""
        line = f"PUB {self.topic}\n".encode()
        return b"".join(line + _sized(body) for body in self.bodies)


class Mpub(NamedTuple):
    """Publish messages, all of them or none, with one answer."""

    topic: str
    bodies: list[bytes]

    def encode(self) -> bytes:
        """Return it as bytes."""
        batch = b"".join(map(_sized, self.bodies))
        head = pack(">II", len(batch) + 4, len(self.bodies))
        return b"MPUB %b\n%b%b" % (self.topic.encode(), head, batch)


class MpubBegun(NamedTuple):
    """An MPUB has begun: what it asks for is looked at before its bodies are (NSQ wire §4)."""

    topic: str


class Dpub(NamedTuple):
    """Publish a message that is delivered later."""

    topic: str
    delay: int
    """In milliseconds."""
    body: bytes

    def encode(self) -> bytes:
        """Return it as bytes."""
        return b"DPUB %b %d\n%b" % (self.topic.encode(), self.delay, _sized(self.body))


class Refusal(NamedTuple):
    """What a client sent cannot be done; the connection ends with that."""

    text: bytes
    """The data of the error frame; empty where the connection ends without one."""


Command: TypeAlias = (
    Identify
    | Auth
    | Sub
    | Rdy
    | Fin
    | Req
    | Touch
    | Cls
    | Nop
    | Pub
    | Mpub
    | MpubBegun
    | Dpub
    | Refusal
)


def _sized(body: bytes) -> bytes:
    return pack(">I", len(body)) + body
