"""The documents of the package as pages of HTML: the guide, what NSQ does, and the API reference.

The rule: the pages need nothing but each other.  They load neither a script nor a style from
elsewhere, and every link between them leads somewhere.

It needs `pdoc`, the extra `nsqlite[docs]`, and is only imported where pages are made.

Next: cli/docs.py
"""

import inspect
import re
from collections.abc import Mapping
from importlib.resources import as_file, files
from types import ModuleType
from typing import Final

from pdoc import render
from pdoc.doc import Module

import nsqlite
from nsqlite.cli.reference import modules

DOCUMENTS: Final = {
    "guide": "Guide",
    "semantics": "Semantics",
    "wire": "Wire protocol",
    "http": "HTTP API",
}
"""The documents that lie in the package as Markdown, with their titles."""

SIGN: Final = "\N{SECTION SIGN}"

NAMES: Final = "semantics|client|wire|startup|http"
"""How the parts of the documents are called."""

CITATION: Final = re.compile(rf"NSQ\s+({NAMES})\s+{SIGN}\d+(?:(?:,|\s+and)\s+{SIGN}\d+)*")
"""How docstrings and the guide cite sections, one or several of a part."""


def pages() -> dict[str, str]:
    """Return the text of each page by its file's name, where `/` parts the folders."""
    with as_file(files("nsqlite.cli").joinpath("templates")) as templates:
        render.configure(
            docformat="google", search=False, show_source=False, template_directory=templates
        )
        all_modules = modules()
        made = {"index.html": _page("index", "nsqlite", _index(all_modules), all_modules)}
        for name, title in DOCUMENTS.items():
            text = files("nsqlite").joinpath(f"{name}.md").read_text("utf-8")
            made[f"{name}.html"] = _page(name, title, text, all_modules)
        for name, module in all_modules.items():
            made[f"{name.replace('.', '/')}.html"] = render.html_module(module, all_modules)
    return _cited({name: _plain(page) for name, page in made.items()})


def _plain(page: str) -> str:
    """Take out what is no identity, since it is there twice, and what marks a type variable."""
    return re.sub(r'(?<=<h6) id="[^"]*"', "", page).replace('<span class="o">~</span>', "")


def _page(name: str, title: str, text: str, all_modules: Mapping[str, Module]) -> str:
    """Render a document, in which the public names are links."""
    page = render.env.get_template("page.html.jinja2").render(
        title=title, text=text, module=Module(ModuleType(name)), all_modules=all_modules
    )
    return re.sub(r'(href="\w+)\.md\b', r"\1.html", page)


def _index(all_modules: Mapping[str, Module]) -> str:
    """Write the first page: what there is to read, and every public name."""
    parts = [
        f"# nsqlite {nsqlite.__version__}\n",
        "A message queue inside your Python process, with NSQ's topics, channels and guarantees.\n",
        "- [The guide](guide.html): what you can do with it, and what it promises.",
        "- [The semantics](semantics.html): what NSQ does, and where nsqlite differs.",
        "- [The wire protocol](wire.html): what nsqd and its clients say to each other.",
        "- [The HTTP API](http.html): what nsqd answers, and where nsqlite differs.",
        "- The API reference, a page for each module:\n",
    ]
    for name, module in all_modules.items():
        place = f"{name.replace('.', '/')}.html"
        parts += [f"## [{name}]({place})\n", "| | |", "|---|---|"]
        parts += [
            f"| [{member}]({place}#{member}) | {_first(entry.docstring)} |"
            for member, entry in module.members.items()
        ]
        parts.append("")
    return "\n".join(parts)


def _first(text: str) -> str:
    """Return the first sentence of a docstring, for a table."""
    paragraph = " ".join(inspect.cleandoc(text).partition("\n\n")[0].split())
    return re.split(r"(?<=\.)\s", paragraph)[0].replace("|", "\\|")


def _cited(made: dict[str, str]) -> dict[str, str]:
    """Let what cites a section of another page lead there."""
    sections = {
        citation: f"{name}.html#{identity}"
        for name in DOCUMENTS
        for identity, citation in re.findall(
            rf'<h2 id="([^"]+)">(NSQ \w+ {SIGN}\d+)\.', made[f"{name}.html"]
        )
    }

    def linked(name: str) -> str:
        up = "../" * name.count("/")

        def link(match: re.Match[str]) -> str:
            def place(one: re.Match[str]) -> str:
                target = sections[f"NSQ {match[1]} {one[1]}"]
                here = target.startswith(f"{name}#")
                return one[0] if here else f'<a href="{up}{target}">{one[0]}</a>'

            return re.sub(rf"(?:NSQ\s+\w+\s+)?({SIGN}\d+)", place, match[0])

        return CITATION.sub(link, made[name])

    return {name: linked(name) for name in made}
