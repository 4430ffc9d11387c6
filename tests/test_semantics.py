"""The document of NSQ's semantics: what cites it finds its section, and what it lists is there."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import nsqlite
from nsqlite.testing import ManualClock

PACKAGE: Final = Path(nsqlite.__file__).parent
README: Final = Path(__file__).parent.parent / "README.md"
GUIDE: Final = PACKAGE / "guide.md"
DOCUMENT: Final = (PACKAGE / "semantics.md").read_text("utf-8")
HEADINGS: Final = re.findall(r"^## (NSQ \w+ §\d+)\. \S", DOCUMENT, re.MULTILINE)
CITATION: Final = re.compile(r"(?:(NSQ\s+(?:semantics|client))\s+)?(§\d*)")


def citations(text: str) -> Iterator[tuple[str, str]]:
    """Go through what a text cites: the document, empty if it is not named, and the section."""
    for document, section in CITATION.findall(text):
        yield re.sub(r"\s+", " ", document), section


def options(*parts: str) -> dict[str, str]:
    """Return the options of tables, and what the documents says is their default."""
    rows = [
        re.match(r"\| `(\w+)` \| [^|]+ \| ([^|]+) \|", line)
        for line in "\n".join(parts).split("\n")
    ]
    return {row[1]: row[2] for row in rows if row}


def section(name: str) -> str:
    """Return a section's text."""
    return DOCUMENT.split(f"\n## {name}. ")[1].split("\n## ")[0]


def keys(value: Any) -> set[str]:
    """Return all keys in a value of dicts and lists."""
    if isinstance(value, dict):
        return set(value).union(*map(keys, value.values()))
    return set().union(*map(keys, value)) if isinstance(value, list) else set()


def test_the_sections_are_numbered() -> None:
    """Each section has a heading that is its citation, in the order of the numbers."""
    assert [f"NSQ semantics §{n}" for n in range(1, 25)] == HEADINGS[:24]
    assert [f"NSQ client §{n}" for n in range(1, 10)] == HEADINGS[24:]
    assert len(HEADINGS) == DOCUMENT.count("\n## ")


def test_every_citation_has_its_section() -> None:
    """Whatever the package, its documents and the tests cite is a section of the document."""
    files = [README, GUIDE, *PACKAGE.rglob("*.py"), *Path(__file__).parent.rglob("*.py")]
    files.remove(Path(__file__))
    cited = {f"{d} {s}" for path in files for d, s in citations(path.read_text("utf-8"))}
    assert set() == cited - set(HEADINGS)
    assert "NSQ semantics §9" in cited
    assert "NSQ client §4" in cited


def test_the_document_cites_itself() -> None:
    """Where the document names a section alone, it is one of the same part."""
    semantics, clients = DOCUMENT.split("\n# What NSQ's clients do\n")
    for part, text in (("NSQ semantics", semantics), ("NSQ client", clients)):
        assert {f"{d or part} {s}" for d, s in citations(text)} <= set(HEADINGS)


def test_the_options_and_their_defaults() -> None:
    """Section 20 lists all options with their defaults, and those of a store."""
    of_topics, of_stores = section("NSQ semantics §20").split("\nOptions of a store:\n")
    defaults = nsqlite.Topic("orders").options
    names = nsqlite.TopicOptions.__optional_keys__
    expected = {name: getattr(defaults, name) for name in names}
    listed = {name: eval(value, {}) for name, value in options(of_topics).items()}  # noqa: S307 - our own
    assert expected == listed
    assert nsqlite.store.StoreOptions.__optional_keys__ == set(options(of_stores))


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
    names = set(re.findall(r"nsqlite\.(\w+)", DOCUMENT))
    assert names <= set(nsqlite.__all__)
    assert "SQLite" in names
