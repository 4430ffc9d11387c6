"""The documents of what NSQ does: what cites them finds its section, what they list is there."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import attrs
import pytest

import nsqlite
from nsqlite.testing import ManualClock
from nsqlite.wire import commands, frames
from nsqlite.wire.session import Session, SessionLimits

PACKAGE: Final = Path(nsqlite.__file__).parent
README: Final = Path(__file__).parent.parent / "README.md"
GUIDE: Final = PACKAGE / "guide.md"
DOCUMENT: Final = (PACKAGE / "semantics.md").read_text("utf-8")
WIRE: Final = (PACKAGE / "wire.md").read_text("utf-8")
HTTP: Final = (PACKAGE / "http.md").read_text("utf-8")
DOCUMENTS: Final = {"semantics": DOCUMENT, "wire": WIRE, "http": HTTP}
PARTS: Final = {
    "semantics": {"NSQ semantics": 24, "NSQ client": 9},
    "wire": {"NSQ wire": 11, "NSQ startup": 4},
    "http": {"NSQ http": 10},
}
"""The parts of each document, and how many sections they have."""

HEADING: Final = re.compile(r"^## (NSQ \w+ §\d+)\. \S", re.MULTILINE)
HEADINGS: Final = frozenset(HEADING.findall("".join(DOCUMENTS.values())))
CITATION: Final = re.compile(
    r"(?:(NSQ\s+(?:semantics|client|wire|startup|http))\s+)?(§\d*(?:(?:,|\s+and)\s+§\d+)*)"
)


def citations(text: str) -> Iterator[tuple[str, str]]:
    """Go through what a text cites: the part, empty if it is not named, and the section."""
    for part, sections in CITATION.findall(text):
        for one in re.findall(r"§\d*", sections):
            yield re.sub(r"\s+", " ", part), one


def options(*parts: str) -> dict[str, str]:
    """Return the options of tables, and what the documents says is their default."""
    rows = [
        re.match(r"\| `(\w+)` \| [^|]+ \| ([^|]+) \|", line)
        for line in "\n".join(parts).split("\n")
    ]
    return {row[1]: row[2] for row in rows if row}


def section(name: str, document: str = DOCUMENT) -> str:
    """Return a section's text."""
    return document.split(f"\n## {name}. ")[1].split("\n## ", maxsplit=1)[0]


def keys(value: Any) -> set[str]:
    """Return all keys in a value of dicts and lists."""
    if isinstance(value, dict):
        return set(value).union(*map(keys, value.values()))
    return set().union(*map(keys, value)) if isinstance(value, list) else set()


@pytest.mark.parametrize("name", DOCUMENTS)
def test_the_sections_are_numbered(name: str) -> None:
    """Each section has a heading that is its citation, in the order of the numbers."""
    expected = [
        f"{part} §{number + 1}" for part, count in PARTS[name].items() for number in range(count)
    ]
    assert expected == HEADING.findall(DOCUMENTS[name])
    assert len(expected) == DOCUMENTS[name].count("\n## ")


def test_every_citation_has_its_section() -> None:
    """Whatever the package, its documents and the tests cite is a section of a document."""
    files = [README, GUIDE, *PACKAGE.rglob("*.py"), *Path(__file__).parent.rglob("*.py")]
    files.remove(Path(__file__))
    cited = {f"{d} {s}" for path in files for d, s in citations(path.read_text("utf-8"))}
    assert set() == cited - HEADINGS
    assert cited >= {"NSQ semantics §9", "NSQ client §4", "NSQ wire §4", "NSQ wire §6"}


def test_a_list_of_sections_is_of_one_part() -> None:
    """Behind the name of a part several sections can be cited."""
    text = "NSQ wire §1, §4 and\n§12 (NSQ\nhttp §2), §3"
    expected = [("NSQ wire", "§1"), ("NSQ wire", "§4"), ("NSQ wire", "§12")]
    assert [*expected, ("NSQ http", "§2"), ("", "§3")] == list(citations(text))


@pytest.mark.parametrize("name", DOCUMENTS)
def test_the_document_cites_itself(name: str) -> None:
    """Where a document names a section alone, it is one of the same part."""
    texts = re.split(r"^# .*$", DOCUMENTS[name], flags=re.MULTILINE)[1:]
    for part, text in zip(PARTS[name], texts, strict=True):
        assert {f"{d or part} {s}" for d, s in citations(text)} <= HEADINGS


def test_the_options_and_their_defaults() -> None:
    """Section 20 lists all options with their defaults, and those of a store."""
    of_topics, _, rest = section("NSQ semantics §20").partition("\nOptions of a store:\n")
    of_stores = rest.partition("\nOptions of a server")[0]
    defaults = nsqlite.Topic("orders").options
    names = nsqlite.TopicOptions.__optional_keys__
    expected = {name: getattr(defaults, name) for name in names}
    listed = {name: eval(value, {}) for name, value in options(of_topics).items()}  # noqa: S307 - our own
    assert expected == listed
    assert nsqlite.store.StoreOptions.__optional_keys__ == set(options(of_stores))


def test_the_options_of_a_server() -> None:
    """Section 20 lists all options of a server, and their defaults where they have a row."""
    whole = section("NSQ semantics §20")
    table = whole.partition("\nOptions of a server")[2]
    fields = {field.name for field in attrs.fields(nsqlite.server.NSQDOptions)}
    cells = re.findall(r"^\| (`[^|]+) \|", table, re.MULTILINE)
    assert set() == {name for cell in cells for name in re.findall(r"`(\w+)`", cell)} - fields
    assert set() == fields - set(re.findall(r"`(\w+)`", whole))
    defaults = nsqlite.server.NSQDOptions()
    for name, value in options(table).items():
        if re.fullmatch(r"[\d.:]+", value):
            assert str(getattr(defaults, name)).removesuffix(".0") == value


def test_the_keys_of_statistics() -> None:
    """Section 21 names every key that statistics have."""
    percentiles = (0.5,)
    with nsqlite.Broker(
        clock=ManualClock(), e2e_processing_latency_percentiles=percentiles
    ) as broker:
        nsqlite.Consumer(broker.topic("orders").channel("billing"))
        named = set(re.findall(r"`(\w+)`", section("NSQ semantics §21")))
        assert set() == keys(broker.stats().to_dict()) - named


def test_every_name_of_the_package_is_one() -> None:
    """What the document calls by the package's name is there."""
    names = set(re.findall(r"nsqlite\.(\w+)", "".join(DOCUMENTS.values())))
    assert names <= {*nsqlite.__all__, "server"}
    assert "SQLite" in names


def examples(sign: str) -> bytes:
    """Return what the examples show that is sent in one direction."""
    text = section("NSQ wire §10", WIRE)
    blocks = "".join(re.findall(r"^```\n(.*?)^```", text, re.MULTILINE | re.DOTALL))
    shown = re.findall(rf"^{sign} ([^<>]+)", blocks, re.MULTILINE)
    return b"".join(map(bytes.fromhex, shown))


def test_the_examples_of_commands() -> None:
    """What the document shows of a client is what `encode` writes, and what a server reads."""
    identify = b'{"client_id":"c1","hostname":"h1","feature_negotiation":true}'
    name = "135950b8448f8005"
    shown: list[Any] = [
        commands.Identify(identify),
        commands.Sub("t", "ch"),
        commands.Rdy(100),
        commands.Nop(),
        commands.Pub("t", [b"hi"]),
        commands.Dpub("t", 1500, b"hi"),
        commands.Mpub("t", [b"a", b"bcd"]),
        commands.Fin([name]),
        commands.Req(name, 0),
        commands.Touch(name),
        commands.Cls(),
    ]
    written = b"".join([commands.MAGIC, *(command.encode() for command in shown)])
    assert written + commands.Auth(b"secret").encode() == examples(">")
    session = Session(SessionLimits())
    session.feed(written)
    assert shown == list(session.commands())


def test_the_examples_of_frames() -> None:
    """What the document shows of a server is what it writes."""
    name = b"135950b8448f8005"
    errors = [
        b"E_FIN_FAILED FIN %b failed ID not in flight" % name,
        b"E_INVALID invalid command ASDF",
        b"E_BAD_PROTOCOL",
    ]
    shown = [
        frames.OK,
        frames.HEARTBEAT,
        frames.message_head(2, 1700000000000000000, 1, name) + b"hi",
        *(frames.frame(frames.ERROR, error) for error in errors),
        frames.CLOSE_WAIT,
    ]
    assert b"".join(shown) == examples("<")


def test_every_error_is_told() -> None:
    """Each code of an error that the server's modules know is in the document."""
    code = re.compile(r"\bE_[A-Z_]+[A-Z]\b")
    sources = [*(PACKAGE / "wire").glob("*.py"), *(PACKAGE / "server").glob("*.py")]
    codes = {found for path in sources for found in code.findall(path.read_text("utf-8"))}
    assert "E_BAD_TOPIC" in codes
    assert codes <= set(code.findall(section("NSQ wire §9", WIRE)))
