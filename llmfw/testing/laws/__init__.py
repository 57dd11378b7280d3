"""The laws that every plugin keeps, chosen by the kinds on its card.

A law is a function of one ``Subject``: its docstring states the law, it raises ``Violation`` where the law is
broken, and ``NotApplicable`` where the plugin has nothing that the law speaks of.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llmfw.core.discovery import KINDS as KINDS

if TYPE_CHECKING:
    from llmfw.testing.subject import Subject

_HOMES = (
    "general", "sources", "documents", "runs", "losses", "data", "surgeries", "operated", "decoding",
    "services", "processes", "company", "traces",
)  # fmt: skip
"""Modules of this package that hold laws, in the order in which they are checked."""


class Violation(AssertionError):
    """A law is broken; the message says by what, and what to change."""


class NotApplicable(Exception):
    """The law has nothing to look at; counted as a skip, with its reason."""


@dataclass(frozen=True, kw_only=True)
class Law:
    """One law. ``kinds`` empty: of every plugin."""

    id: str
    statement: str
    kinds: tuple[str, ...]
    check: Callable[[Subject], None]


_LAWS: dict[str, Law] = {}


def law(id: str, *kinds: str) -> Callable[[Callable[[Subject], None]], Callable[[Subject], None]]:
    """Make a function a law with a stable id, for plugins of these kinds (none named: for all)."""

    def register(check: Callable[[Subject], None]) -> Callable[[Subject], None]:
        assert id not in _LAWS and check.__doc__ and set(kinds) <= set(KINDS)
        _LAWS[id] = Law(id=id, statement=" ".join(check.__doc__.split()), kinds=kinds, check=check)
        return check

    return register


def laws() -> tuple[Law, ...]:
    """Every law, in the order in which they are checked."""
    for home in _HOMES:
        importlib.import_module(f"{__name__}.{home}")
    return tuple(_LAWS.values())


def broken(what: str, *, mend: str) -> Violation:
    """The exception to raise."""
    return Violation(f"{what}; {mend}")
