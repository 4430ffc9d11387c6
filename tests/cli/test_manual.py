"""The pages: each is there, nothing is loaded from elsewhere, and every link leads somewhere."""

import posixpath
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

import nsqlite
from nsqlite.cli.manual import DOCUMENTS, pages
from nsqlite.cli.reference import PAGES as MODULES
from nsqlite.cli.reference import names_of

PAGES = pages()


class Page(HTMLParser):
    """What a page links to, what it loads, and what can be linked to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.identities: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name == "id":
                self.identities.append(value or "")
            elif name in ("href", "src", "srcset", "data", "action"):
                (self.links if (tag, name) == ("a", "href") else self.loaded).append(value or "")


FOUND = {name: Page(text) for name, text in PAGES.items()}


def page_of(module: str) -> str:
    return f"{module.replace('.', '/')}.html"


def test_the_pages() -> None:
    """There is a first page, one for each document, and one for each public module."""
    modules = [page_of(module.__name__) for module in MODULES]
    assert ["index.html", *(f"{name}.html" for name in DOCUMENTS), *modules] == list(PAGES)


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_every_public_name_has_its_entry(module: object) -> None:
    """Each public name has its place in its module's page, and a link from the first page."""
    name = page_of(module.__name__)  # type: ignore[attr-defined]
    names = names_of(module)  # type: ignore[arg-type]
    assert names
    assert set() == set(names) - set(FOUND[name].identities)
    assert set() == {f"{name}#{public}" for public in names} - set(FOUND["index.html"].links)


@pytest.mark.parametrize("name", PAGES)
def test_every_link_leads_somewhere(name: str) -> None:
    """A link within the pages is one to a page that there is, and to a place in it."""
    for link in FOUND[name].links:
        if link.startswith("https://"):
            continue
        path, _, place = link.partition("#")
        target = posixpath.normpath(posixpath.join(posixpath.dirname(name), path)) if path else name
        assert target in FOUND, link
        assert not place or place in FOUND[target].identities, link


@pytest.mark.parametrize("name", PAGES)
def test_nothing_is_loaded(name: str) -> None:
    """A page loads nothing: no script, style, font or picture from elsewhere."""
    assert [] == FOUND[name].loaded
    assert "<script" not in PAGES[name]
    assert "@import" not in PAGES[name]
    assert set() == {url[:4] for url in re.findall(r"url\([\"']?([^)]*)", PAGES[name])} - {"data"}


@pytest.mark.parametrize("name", PAGES)
def test_every_place_is_there_once(name: str) -> None:
    """No two places of a page have the same identity."""
    identities = FOUND[name].identities
    assert len(identities) == len(set(identities))


def test_the_documents_are_there_whole() -> None:
    """The sections of the documents are those of the files in the package."""
    for name in DOCUMENTS:
        text = Path(nsqlite.__file__).with_name(f"{name}.md").read_text("utf-8")
        assert len(re.findall(r"^## ", text, re.MULTILINE)) == PAGES[f"{name}.html"].count("<h2 id")


def test_citations_lead_to_the_semantics() -> None:
    """What cites a section of the semantics leads there, from a page in a folder, too."""
    place = "semantics.html#nsq-semantics-9-in-flight"
    assert place.partition("#")[2] in FOUND["semantics.html"].identities
    assert any(link.startswith("semantics.html#nsq-s") for link in FOUND["nsqlite.html"].links)
    worker = FOUND["nsqlite/worker.html"].links + FOUND["nsqlite/aio.html"].links
    assert any(link.startswith("../semantics.html#nsq-") for link in worker)


def test_citations_lead_to_the_other_documents() -> None:
    """Documents cite each other; what one cites of itself is no link to a page."""
    of_wire, of_http = FOUND["wire.html"].links, FOUND["http.html"].links
    assert "wire.html#nsq-wire-4-commands" in of_http
    assert any(link.startswith("semantics.html#nsq-semantics-17-") for link in of_wire)
    assert not any(link.startswith("wire.html#") for link in of_wire)


def test_names_in_the_guide_are_links() -> None:
    """Whoever reads the guide comes from a name to its entry."""
    assert any(link.startswith("nsqlite.html#") for link in FOUND["guide.html"].links)
