"""A preset's options as a dataclass: what each type of field takes, and what it refuses, by key."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from llmfw.core.data.options import read_options
from llmfw.core.errors import UsageError


@dataclass(frozen=True)
class Options:
    on: bool = False
    count: int = 1
    word: str = "a"
    words: tuple[str, ...] = ()
    numbers: tuple[int, ...] = (1,)
    named: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Nothing:
    """No options."""


@pytest.mark.parametrize(
    ("name", "given", "read"),
    [
        ("on", True, True),
        ("count", 3, 3),
        ("word", "b", "b"),
        ("words", ["b", "c"], ("b", "c")),
        ("numbers", [3, 1], (3, 1)),
        ("numbers", 4, (4,)),
        ("numbers", "2-5", (2, 3, 4, 5)),
        ("numbers", "7-7", (7,)),
        ("named", {"a": [1], "b": {"c": 2}}, {"a": [1], "b": {"c": 2}}),
    ],
)
def test_a_value_of_the_fields_type_is_taken(name: str, given: object, read: object) -> None:
    assert getattr(read_options({name: given}, Options), name) == read


def test_what_is_not_given_keeps_its_default() -> None:
    assert read_options({}, Options) == Options()


@pytest.mark.parametrize(
    ("name", "given", "words"),
    [
        ("on", 1, "true or false"),
        ("count", True, "a whole number"),
        ("count", "3", "a whole number"),
        ("word", 1, "a word"),
        ("words", "b", "a list of words"),
        ("words", ["b", 1], "a list of words"),
        ("numbers", [1, True], "a list of whole numbers, or a range such as 1-5"),
        ("numbers", [1.0], "a list of whole numbers"),
        ("numbers", "5-2", "a list of whole numbers"),
        ("numbers", "1-", "a list of whole numbers"),
        ("numbers", "-3", "a list of whole numbers"),
        ("numbers", "1-9999999", "a list of whole numbers"),
        ("numbers", None, "a list of whole numbers"),
        ("named", [1], "names and values"),
        ("named", {1: 2}, "names and values"),
    ],
)
def test_another_type_is_refused_by_key(name: str, given: object, words: str) -> None:
    with pytest.raises(UsageError) as caught:
        read_options({name: given}, Options)
    assert str(caught.value).startswith(f"error[OPTION] data.options.{name}: expected {words}")
    assert repr(given) in str(caught.value)


def test_an_unknown_name_is_refused_with_the_nearest_one() -> None:
    with pytest.raises(UsageError, match=r"data\.options\.numbr: .* did you mean numbers\?"):
        read_options({"numbr": 1}, Options)
    with pytest.raises(UsageError, match=r"data\.options\.x: this preset has no such option; leave it out"):
        read_options({"x": 1}, Nothing)
