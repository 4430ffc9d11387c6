"""Codecs: how a body that is not bytes becomes bytes, and comes back.

The rule: a consumer gets what comes back from the bytes, also while the message has never been out
of memory; so what a codec does to a body is seen at once and not after a restart.

`bytes` need no codec.  A dead letter is kept by any codec that keeps its body.

Next: store/terms.py
"""

import json
import pickle
from collections.abc import Callable
from typing import Any, Final

import attrs

from nsqlite.errors import InvalidMessage, InvalidOption, shown

_LONGEST: Final = 32

LETTER: Final = "letter"
"""The name under which dead letters are kept."""


KNOWN: Final[dict[str, "Codec"]] = {}
"""The codecs that have a name of their own; nobody else's may have it from then on."""


@attrs.frozen
class Codec:
    """Two functions of your own, and the name under which the store knows them.

    Attributes:
        name: 1 to 32 characters; kept with each body, so that nothing else reads it.
        encode: makes bytes of a body; what it raises fails the put.
        decode: makes the body of the bytes.

    Raises:
        InvalidOption: the name is none or another's, or one of the two no function.
    """

    name: str
    encode: Callable[[Any], bytes]
    decode: Callable[[bytes], Any]

    def __attrs_post_init__(self) -> None:
        """Check what was given."""
        name: object = self.name
        plain = isinstance(name, str) and name.isascii() and 1 <= len(name) <= _LONGEST
        taken = (*KNOWN, LETTER)
        if not plain or name in taken:
            expected = f"of 1 to {_LONGEST} ASCII characters and none of {', '.join(taken)}"
            raise InvalidOption("the name of a codec", name, expected)
        for option, function in (("encode", self.encode), ("decode", self.decode)):
            if not callable(function):
                raise InvalidOption(option, function, "a function of one argument")


def _to_json(body: Any) -> bytes:
    return json.dumps(body, separators=(",", ":"), allow_nan=False).encode()


def _to_pickle(body: Any) -> bytes:
    return pickle.dumps(body, protocol=5)


KNOWN["json"] = Codec("json", _to_json, json.loads)
KNOWN["pickle"] = Codec("pickle", _to_pickle, pickle.loads)


@attrs.frozen
class Undecodable:
    """The body of a message that its codec cannot make any more.

    It is delivered like any other, so that nothing is lost and a worker makes a dead letter of it.

    Attributes:
        codec: the name of the codec that made the bytes; with "damaged " before it, or before
            "bytes" where no codec made them, if they are not what was put.
        data: the bytes.
        problem: why they cannot be read, in words.
    """

    codec: str
    data: bytes
    problem: str


DAMAGED: Final = "damaged "
"""How the name of a codec begins that made other bytes than there are now."""


IS_DAMAGED: Final = "its checksum is wrong: the file is damaged"

WAS_DAMAGED: Final = "it was damaged before it was moved, or imported, to where it is"


def damaged(name: str | None) -> str:
    """Return what stands for a codec, or none, whose bytes are damaged; so they stay, if moved."""
    if name is not None and name.startswith(DAMAGED):
        return name
    return f"{DAMAGED}{name or 'bytes'}"


def checked_codec(given: object) -> Codec | None:
    """Return the codec that was given, by name or as itself.

    Raises:
        InvalidOption: it is neither.
    """
    if given is None or isinstance(given, Codec):
        return given
    if isinstance(given, str) and given in KNOWN:
        return KNOWN[given]
    expected = f"one of {', '.join(map(repr, KNOWN))}, or an nsqlite.store.Codec"
    raise InvalidOption("codec", given, expected)


class Coder:
    """Bodies to bytes and back, with the codec that a store was given.

    Threads: any; the codec is called without a topic's lock.
    """

    __slots__ = ("_codec",)

    def __init__(self, codec: Codec | None) -> None:
        """Take the codec, None if only bytes are to be kept."""
        self._codec: Final = codec

    def encode(self, body: Any) -> tuple[Any, bytes, str | None]:
        """Return a body as it will come back, its bytes, and the name of what made them.

        Raises:
            InvalidMessage: it cannot be kept; nothing has changed.
        """
        if body.__class__ is bytes:
            return body, body, None
        if is_letter(body):
            return self._encode_letter(body)
        if isinstance(body, Undecodable):
            return body, body.data, body.codec
        codec = self._codec
        if codec is None:
            kind = type(body).__name__
            problem = f"a store without a codec keeps bytes, not {kind}: give it codec='json'"
            raise InvalidMessage(problem)
        try:
            data = codec.encode(body)
            back = codec.decode(data)
        except Exception as error:
            problem = f"codec {codec.name!r} cannot keep {shown(body)}: {shown(error)}"
            raise InvalidMessage(problem) from error
        if not isinstance(data, bytes):
            problem = f"codec {codec.name!r} made {type(data).__name__} of a body, not bytes"
            raise InvalidMessage(problem)
        return back, data, codec.name

    def decode(self, name: str | None, data: bytes, *, intact: bool = True) -> Any:
        """Return the body that these bytes are; an `Undecodable` if that cannot be.

        Args:
            name: of what made the bytes; None if they are the body.
            data: the bytes.
            intact: they are as they were written, as far as anybody can tell.
        """
        if not intact:
            name = damaged(name)
        if name is None:
            return data
        if name.startswith(DAMAGED):
            return Undecodable(name, data, WAS_DAMAGED if intact else IS_DAMAGED)
        codec = self._codec
        try:
            if name == LETTER:
                return self._decode_letter(data)
            if codec is not None and codec.name == name:
                return codec.decode(data)
        except Exception as error:
            return Undecodable(name, data, shown(error))
        return Undecodable(name, data, f"the store was opened without codec={name!r}")

    def _encode_letter(self, letter: Any) -> tuple[Any, bytes, str | None]:
        body, data, name = self.encode(letter.body)
        fields = attrs.asdict(letter, recurse=False, filter=lambda field, _: field.name != "body")
        head = json.dumps({"codec": name, **fields}).encode()
        return attrs.evolve(letter, body=body), head + b"\n" + data, LETTER

    def _decode_letter(self, data: bytes) -> Any:
        from nsqlite.worker.deadletter import DeadLetter  # noqa: PLC0415 - loads all of the workers

        head, _, rest = data.partition(b"\n")
        fields = json.loads(head)
        body = self.decode(fields.pop("codec"), rest)
        known = (field.name for field in attrs.fields(DeadLetter))
        return DeadLetter(body=body, **{name: fields[name] for name in known if name in fields})


def is_letter(body: object) -> bool:
    """Say whether a body is a dead letter, without loading the workers."""
    kind = type(body)
    return kind.__name__ == "DeadLetter" and kind.__module__ == "nsqlite.worker.deadletter"
