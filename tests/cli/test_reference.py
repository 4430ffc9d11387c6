"""The entries of the API reference: every public name has one, and nothing else has."""

import importlib
import inspect
from enum import Enum

import pytest
import test_surface
from pdoc.doc import Class, Doc, Function, Module

import nsqlite
from nsqlite.cli.reference import MADE_ELSEWHERE, OPAQUE, modules

REFERENCE = modules()


def entry(module: str, name: str) -> Doc[object]:
    return REFERENCE[module].members[name]


@pytest.mark.parametrize("name", test_surface.MODULES)
def test_every_public_name_has_an_entry(name: str) -> None:
    """A module's entries are the names of its `__all__`, each with a text."""
    module = importlib.import_module(name)
    assert sorted(module.__all__) == list(REFERENCE[name].members)
    assert [] == [n for n, found in REFERENCE[name].members.items() if not found.docstring]


def test_the_module_without_a_list() -> None:
    """Of the events' module one name is public that is not in the package."""
    assert ["LIFE_CYCLE"] == list(REFERENCE["nsqlite.events"].members)
    assert len(test_surface.MODULES) + 1 == len(REFERENCE)


@pytest.mark.parametrize("cls", test_surface.public_classes(), ids=str)
def test_a_class_shows_its_public_members(cls: type) -> None:
    """Members are those of the list of public names; each is documented but an enum's."""
    found = next(
        member
        for module in REFERENCE.values()
        for member in module.members.values()
        if isinstance(member, Class) and member.obj is cls
    )
    shown = {member.name: member for member in found.own_members}
    made = shown.pop("__init__", None)
    assert test_surface.members_of(cls) == list(shown)
    assert not found.inherited_members
    assert "Attributes:" not in found.docstring
    if not issubclass(cls, Enum):
        assert [] == [name for name, member in shown.items() if not member.docstring]
    assert made is None or not made.docstring.startswith("Method generated")


def test_the_lists_of_the_surface_are_these() -> None:
    """What nobody calls, and what is only passed on, are those of the public surface."""
    assert set(test_surface.MADE_ELSEWHERE) == set(MADE_ELSEWHERE)
    assert set(test_surface.OPAQUE) == set(OPAQUE)


def test_a_private_base_is_not_shown() -> None:
    """What a private base has is shown where it is public, and the base is not."""
    consumer = entry("nsqlite.aio", "Consumer")
    assert isinstance(consumer, Class)
    assert [] == consumer.bases
    assert "fin" in [member.name for member in consumer.own_members]
    error = entry("nsqlite", "StoreFull")
    assert isinstance(error, Class)
    assert [("nsqlite.errors", "StoreError")] == [base[:2] for base in error.bases]


def test_a_name_of_two_modules_is_told_once() -> None:
    """What a module only passes on refers to where it is told."""
    assert "The same as `nsqlite.App`." == entry("nsqlite.worker", "App").docstring
    assert entry("nsqlite", "worker").docstring.startswith("The module `nsqlite.worker`. Workers:")


def test_options_are_called_by_their_class() -> None:
    """Options that are passed on are shown as the class that lists them."""
    topic = entry("nsqlite", "Topic")
    assert isinstance(topic, Class)
    function = topic.members["channel"]
    assert isinstance(function, Function)
    assert nsqlite.ChannelOptions is function.signature.parameters["options"].annotation
    assert function.signature.return_annotation is not inspect.Signature.empty


def test_the_text_of_options_is_complete() -> None:
    """What is said of a key over two lines, or in a base, is told whole."""
    options = entry("nsqlite", "TopicOptions")
    assert isinstance(options, Class)
    expected = 'what a put does then: ``"wait"``, ``"raise"``, ``"drop newest"`` or'
    assert f'{expected} ``"drop oldest"`` ("wait").' == options.members["when_full"].docstring


def test_the_order_of_the_source_is_left_out() -> None:
    """A module's text is without its last line, which is for readers of the source."""
    assert [] == [m.modulename for m in REFERENCE.values() if "Next:" in m.docstring]
    assert isinstance(REFERENCE["nsqlite"], Module)
