"""Real work on real input: three statistics of a text file, computed side by side.

    python examples/text_statistics.py [FILE]

Each line of the file (of the licence, if none is named) is a message of the topic "lines".  Three
channels get them all: "words" counts the words, "longest" keeps the longest lines, "index" notes on
which lines each word is.  A channel has two competing consumers, each in its own thread and with
its own part of the result; at the end the parts are merged.

Watch three things.  The channels are bounded, so the publisher waits when the consumers fall behind
and a large file does not pile up in memory.  The consumers of "index" fail at the first attempt on
every 7th line; the exception leaves the `with` block of the message, so it is requeued.  And
whatever the threads do, the result is the one of a plain loop: the two are compared.

It prints:

    LICENSE
    lines: 21, requeued: 3
    words: 171, different: 96, most frequent:
        the: 15
        or: 9
        software: 9
    longest lines:
        line 12 has 78 characters: 'The above copyright notice and this perm'
        line 6 has 77 characters: 'of this software and associated document'
        line 19 has 77 characters: 'LIABILITY, WHETHER IN AN ACTION OF CONTR'
    words on the most lines:
        the: 11 lines, from 3, 6, 7, 9, 10 on
        of: 8 lines, from 5, 6, 9, 13, 15 on
        software: 7 lines, from 6, 7, 9, 13, 15 on
    A plain loop gives the same result.

Next: nsqlite/__init__.py
"""

import argparse
import contextlib
import errno
import heapq
import io
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NoReturn, Protocol, Self, TextIO, TypeAlias

import nsqlite

CONSUMERS: Final = 2  # of each channel
MAX_DEPTH: Final = 100  # lines that may be ready in a channel
TOP: Final = 3  # words or lines in a report

Line: TypeAlias = tuple[int, str]  # number and text; NSQ refuses an empty body, a line may be empty


class Statistic(Protocol):
    """Something to compute from lines, in parts."""

    def add(self, number: int, text: str) -> None:
        """Take in a line."""

    def merge(self, part: Self) -> None:
        """Take in all that another one has."""

    def report(self) -> Iterator[str]:
        """Yield lines that sum it up."""


def words(text: str) -> list[str]:
    """Return the words of a line."""
    return re.findall(r"\w+", text.casefold())


@dataclass
class Words:
    """How often there is each word."""

    counts: Counter[str] = field(default_factory=Counter)

    def add(self, number: int, text: str) -> None:  # noqa: ARG002 - a word counts anywhere
        """Take in a line."""
        self.counts.update(words(text))

    def merge(self, part: Self) -> None:
        """Take in all that another one has."""
        self.counts.update(part.counts)

    def report(self) -> Iterator[str]:
        """Yield the most frequent words."""
        yield f"words: {self.counts.total()}, different: {len(self.counts)}, most frequent:"
        for word in heapq.nsmallest(TOP, self.counts, key=lambda word: (-self.counts[word], word)):
            yield f"{word[:40]}: {self.counts[word]}"


@dataclass
class Longest:
    """The longest lines, earlier ones first."""

    lines: list[tuple[int, int, str]] = field(default_factory=list)

    def add(self, number: int, text: str) -> None:
        """Take in a line."""
        self.lines = sorted([*self.lines, (-len(text), number, text)])[:TOP]

    def merge(self, part: Self) -> None:
        """Take in all that another one has."""
        self.lines = sorted(self.lines + part.lines)[:TOP]

    def report(self) -> Iterator[str]:
        """Yield how long they are and how they begin."""
        yield "longest lines:"
        for length, number, text in self.lines:
            yield f"line {number} has {-length} characters: {text[:40]!r}"


@dataclass
class Index:
    """On which lines there is each word."""

    numbers: defaultdict[str, list[int]] = field(default_factory=lambda: defaultdict(list))

    def add(self, number: int, text: str) -> None:
        """Take in a line."""
        for word in set(words(text)):
            self.numbers[word].append(number)

    def merge(self, part: Self) -> None:
        """Take in all that another one has."""
        for word, numbers in part.numbers.items():
            self.numbers[word] = sorted(self.numbers[word] + numbers)

    def report(self) -> Iterator[str]:
        """Yield where the words are that are on most lines."""
        yield "words on the most lines:"
        for word in heapq.nsmallest(TOP, self.numbers, key=lambda w: (-len(self.numbers[w]), w)):
            first = ", ".join(map(str, self.numbers[word][:5]))
            yield f"{word[:40]}: {len(self.numbers[word])} lines, from {first} on"


STATISTICS: Final[Mapping[str, Callable[[], Statistic]]] = {
    "words": Words,
    "longest": Longest,
    "index": Index,
}


class Glitch(Exception):
    """Stands for whatever goes wrong and is all right when tried again."""


def glitch(message: nsqlite.Message[Line]) -> None:
    """Fail at the first attempt on every 7th line."""
    number, _ = message.body
    if number % 7 == 0 and message.attempts == 1:
        raise Glitch


def open_text(path: Path) -> TextIO:
    """Open a text file.

    Raises:
        OSError: it cannot be opened, or is something that may have no end.
    """
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "not a regular file")
    return path.open(encoding="utf-8-sig")


def read(file: TextIO) -> Iterator[Line]:
    """Yield the lines of a file.

    Raises:
        OSError: it cannot be read.
        UnicodeError: it is no text.
    """
    for number, text in enumerate(file, 1):
        if "\0" in text:
            raise UnicodeError
        yield number, text.removesuffix("\n")


def plain_loop(lines: Iterable[Line], results: list[Statistic]) -> Iterator[Line]:
    """Compute the statistics without channels and threads; pass the lines on."""
    for number, text in lines:
        for result in results:
            result.add(number, text)
        yield number, text


def consume(
    topic: nsqlite.Topic[Line],
    consumer: nsqlite.Consumer[Line],
    part: Statistic,
    errors: list[BaseException],
) -> None:
    """Take in lines until the topic is closed; those that fail are requeued."""
    try:
        for message in consumer:
            with contextlib.suppress(Glitch), message:
                if consumer.channel.name == "index":
                    glitch(message)
                part.add(*message.body)
    except BaseException as error:
        errors.append(error)
        topic.close()  # nobody is to wait for this consumer


def compute(topic: nsqlite.Topic[Line], lines: Iterable[Line]) -> list[Statistic]:
    """Compute the statistics, each in a channel with competing consumers."""
    parts = {name: [make() for _ in range(CONSUMERS)] for name, make in STATISTICS.items()}
    errors: list[BaseException] = []
    with ThreadPoolExecutor(CONSUMERS * len(parts)) as pool:
        try:
            for name, shares in parts.items():
                channel = topic.channel(name)
                for part in shares:
                    consumer = nsqlite.Consumer(channel)  # here: a channel may be over very soon
                    pool.submit(consume, topic, consumer, part, errors)
            with contextlib.suppress(nsqlite.Closed):
                for line in lines:
                    topic.put(line)
        finally:
            topic.close(drain=True)
    if errors:
        raise errors[0]
    results = {name: make() for name, make in STATISTICS.items()}
    for name, result in results.items():
        for part in parts[name]:
            result.merge(part)
    return list(results.values())


class Parser(argparse.ArgumentParser):
    """Says in one line what is wrong."""

    def error(self, message: str) -> NoReturn:
        """End the program with status 2."""
        self.exit(2, f"{self.prog}: {message}\n")


def main() -> int:
    """Compute, compare, report; return the exit status."""
    licence = Path(__file__).resolve().parent.parent / "LICENSE"
    parser = Parser(description="Compute statistics of a text file.")
    parser.add_argument("file", nargs="?", type=Path, default=licence, help="default: the licence")
    path: Path = parser.parse_args().file

    topic: nsqlite.Topic[Line] = nsqlite.Topic("lines", max_depth=MAX_DEPTH, when_full="wait")
    expected = [make() for make in STATISTICS.values()]
    try:
        with open_text(path) as file:
            results = compute(topic, plain_loop(read(file), expected))
    except OSError as error:
        parser.error(f"{str(path)!r}: {error.strerror}")
    except UnicodeError:
        parser.error(f"{str(path)!r}: not UTF-8 text")
    if results != expected:
        print(f"{parser.prog}: the result is not the one of a plain loop", file=sys.stderr)
        return 1

    stats = topic.stats()
    requeued = sum(channel.requeue_count for channel in stats.channels)
    print(path.name)
    print(f"lines: {stats.message_count}, requeued: {requeued}")
    for result in results:
        heading, *details = result.report()
        print(heading, *details, sep="\n    ")
    print("A plain loop gives the same result.")
    return 0


if __name__ == "__main__":
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # the words may be in any language
    sys.exit(main())
