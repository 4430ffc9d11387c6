r"""Deflate and Snappy, as a connection has them for all that it sends and receives (NSQ wire §6).

The rule: what was compressed can be decompressed by the other end at once, and nothing that it
sends takes more memory at a time than its reader allows.

    >>> here, there = Deflate(6), Deflate(6)
    >>> b"".join(there.decompress(here.compress(b"NOP\n"), 65_536))
    b'NOP\n'

Both keep what is no whole piece yet, and what a reader has left: the next call goes on with it.

Next: wire/authorisation.py
"""

import zlib
from collections.abc import Iterator
from typing import Any, Final, Protocol

from nsqlite.errors import MissingExtra

BLOCK: Final = 65_536
"""Bytes of which one chunk of Snappy is made at the most."""

_LONGEST_CHUNK: Final = 4 + 32 + BLOCK + BLOCK // 6
"""Bytes in a chunk behind its head: a checksum, and what Snappy makes of a block at the worst."""

_HEAD: Final = 4
_CHECKSUM: Final = 4
_COMPRESSED: Final = 0x00
_PLAIN: Final = 0x01
_SKIPPABLE: Final = 0x80
_IDENTIFIER: Final = 0xFF
_IDENTITY: Final = b"\xff\x06\x00\x00sNaPpY"


class BadCompression(Exception):
    """What the other end sent is not compressed as agreed; the connection ends with that."""


class Compression(Protocol):
    """A layer of a connection, in both directions."""

    def compress(self, data: bytes) -> bytes:
        """Return what is sent for some bytes: all that the other end needs to have them."""
        ...

    def decompress(self, data: bytes, limit: int) -> Iterator[bytes]:
        """Go through what was received, in pieces.

        Args:
            data: what came.
            limit: bytes of a piece at the most.

        Raises:
            BadCompression: it is not compressed as agreed; the pieces before were good.
        """
        ...


class Deflate:
    """Deflate without a head (RFC 1951), one stream for the whole connection."""

    def __init__(self, level: int) -> None:
        """Take how hard to compress, 1 to 9."""
        self._compressor: Final = zlib.compressobj(level, zlib.DEFLATED, -zlib.MAX_WBITS)
        self._decompressor: Final = zlib.decompressobj(-zlib.MAX_WBITS)
        self._rest = b""  # what came and was not looked at

    def compress(self, data: bytes) -> bytes:
        """Return what is sent for some bytes; see `Compression`."""
        if not data:
            return b""
        return self._compressor.compress(data) + self._compressor.flush(zlib.Z_SYNC_FLUSH)

    def decompress(self, data: bytes, limit: int) -> Iterator[bytes]:
        """Go through what was received; see `Compression`."""
        decompressor = self._decompressor
        self._rest += data
        is_full = False
        while self._rest or is_full:
            if decompressor.eof:
                raise BadCompression("bytes behind the end of the stream")
            try:
                piece = decompressor.decompress(self._rest, limit)
            except zlib.error as error:
                raise BadCompression(str(error)) from None
            self._rest = decompressor.unconsumed_tail or decompressor.unused_data
            is_full = len(piece) == limit and not decompressor.eof  # there may be more inside
            if piece:
                yield piece


class Snappy:
    """Snappy in its framing format: chunks with checksums, behind an identifier."""

    def __init__(self) -> None:
        """Begin both streams.

        Raises:
            MissingExtra: python-snappy is not installed.
        """
        snappy = _loaded()
        self._compressor: Final[Any] = snappy.StreamCompressor()
        self._decompressor: Final[Any] = snappy.StreamDecompressor()
        self._received: Final = bytearray()  # what came and is not decompressed
        self._is_identified = False

    def compress(self, data: bytes) -> bytes:
        """Return what is sent for some bytes; see `Compression`."""
        made: bytes = self._compressor.add_chunk(data) if data else b""
        return made

    def decompress(self, data: bytes, limit: int) -> Iterator[bytes]:
        """Go through what was received; see `Compression`.

        A piece has at least all of one chunk, which can be 65,536 bytes, whatever the limit.
        """
        received = self._received
        received += data
        while end := self._end_of_run(limit):
            run = bytes(received[:end])
            del received[:end]
            try:
                piece = self._decompressor.decompress(run)
            except Exception as error:  # its kind depends on what python-snappy is made of
                raise BadCompression(str(error)) from None
            if piece:
                yield piece

    def _end_of_run(self, limit: int) -> int:
        """Return where the whole chunks end that make no more than the limit, or one chunk."""
        received = self._received
        end = size = 0
        while end + _HEAD <= len(received):
            length = int.from_bytes(received[end + 1 : end + _HEAD], "little")
            behind = end + _HEAD + length
            if length <= _LONGEST_CHUNK and behind > len(received):
                break
            try:
                size += self._size(received[end : min(behind, end + 16)], length)
            except BadCompression:
                if end:  # first what came before
                    break
                raise
            if size > limit and end:
                break
            end = behind
        return end

    def _size(self, chunk: bytearray, length: int) -> int:
        """Check the beginning of a chunk, and return how many bytes it will make."""
        kind = chunk[0]
        if length > _LONGEST_CHUNK:
            raise BadCompression(f"a chunk of {length} bytes")
        if kind == _IDENTIFIER:
            if chunk != _IDENTITY:
                raise BadCompression("a stream identifier that is none")
            self._is_identified = True
            return 0
        if not self._is_identified:
            raise BadCompression("no stream identifier")
        if kind >= _SKIPPABLE:
            return 0
        if kind > _PLAIN:
            raise BadCompression(f"a chunk of the unknown kind {kind}")
        if length < _CHECKSUM:
            raise BadCompression("a chunk without a checksum")
        size = length - _CHECKSUM if kind == _PLAIN else _told_size(chunk[_HEAD + _CHECKSUM :])
        if size > BLOCK:
            raise BadCompression(f"a chunk that makes {size} bytes")
        return size


def _told_size(block: bytearray) -> int:
    """Return the size that the beginning of a compressed block tells."""
    size = 0
    for place, byte in enumerate(block[:5]):  # seven bits a byte, until one below 128
        size |= (byte & 0x7F) << 7 * place
        if byte < 0x80:  # noqa: PLR2004 - the eighth bit
            return size
    raise BadCompression("a chunk without its size")


def has_snappy() -> bool:
    """Say whether python-snappy is installed; it is loaded then."""
    try:
        _loaded()
    except MissingExtra:
        return False
    return True


def _loaded() -> Any:
    """Return the module of python-snappy.

    Raises:
        MissingExtra: there is none.
    """
    try:
        import snappy  # noqa: PLC0415 - an extra
    except ImportError:
        raise MissingExtra("snappy", "python-snappy", "snappy") from None
    return snappy
