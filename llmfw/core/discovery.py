"""Which plugins are installed: their cards are read from disk, their code is imported only when a run names
them.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import tomllib
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import EntryPoint, distributions, entry_points
from pathlib import Path
from typing import Any

from llmfw.core.errors import PluginError
from llmfw.core.guard import IMPORTING, Owner, know, place_of_module, told, watch
from llmfw.core.plugin import Plugin

GROUP = "llmfw.plugins"
KINDS = ("loss", "sampler", "datamodule", "transform", "surgery", "kv_cache", "decoder", "service")
"""What a plugin may be; a card may name several."""
_KEYS = frozenset(
    "name summary kinds api verbs paper neutral commands needs offers conflicts_with conformance".split()
)
_NEUTRAL = frozenset("baseline exact tolerance settings".split())
_CONFORMANCE = frozenset("xfail settings".split())


@dataclass(frozen=True, kw_only=True)
class Card:
    """What a plugin says of itself before it's imported; fields as in ``card.toml``."""

    name: str
    value: str
    """Entry point, ``module:Class``."""
    distribution: str
    version: str
    folder: Path | None
    """Where card.toml, config.yaml and README.md lie; None for a one-file plugin."""
    summary: str = ""
    kinds: tuple[str, ...] = ()
    """Some of ``KINDS``; empty: read off the hooks."""
    api: tuple[int, int] = (1, 1)
    """First and last contract version that the plugin was written for."""
    verbs: tuple[str, ...] = ("fit", "generate")
    """Core verbs that make sense with the plugin alone."""
    paper: Mapping[str, Any] = field(default_factory=dict)
    neutral: Mapping[str, Any] = field(default_factory=dict)
    """``baseline``, and the ``settings`` at which the plugin equals it: bit for bit where ``exact``, else
    within ``tolerance``.
    """
    commands: Mapping[str, str] = field(default_factory=dict)
    """Verb of the command line -> one line of help; at most one."""
    needs: tuple[str, ...] = ()
    """Service protocols that some plugin must offer."""
    offers: tuple[str, ...] = ()
    conflicts_with: tuple[str, ...] = ()
    xfail: Mapping[str, str] = field(default_factory=dict)
    """Conformance check -> reason why it can't hold."""
    conformance: Mapping[str, Any] = field(default_factory=dict)
    """Settings, KEY -> value, under which the conformance kit runs the plugin."""

    @property
    def origin(self) -> str:
        """Distribution and version, as error messages name them."""
        return f"{self.distribution} {self.version}"


def _folder(entry: EntryPoint) -> Path | None:
    """The folder of the plugin's module, found without importing any part of it."""
    top, *rest = entry.module.split(".")
    spec = importlib.util.find_spec(top)
    if spec is None or not spec.submodule_search_locations:
        return None
    for location in spec.submodule_search_locations:
        folder = Path(location, *rest[:-1])
        if (folder / "card.toml").is_file():
            return folder
    return None


def _origin(entry: EntryPoint) -> tuple[str, str]:
    """Distribution and version, also of one whose metadata says neither."""
    return _metadata(entry, "Name") or "unknown", _metadata(entry, "Version") or "of no version"


def _metadata(entry: EntryPoint, key: str) -> str | None:
    metadata = entry.dist.metadata if entry.dist else None
    return metadata[key] if metadata is not None and key in metadata else None


def _place(entry: EntryPoint) -> Path | None:
    """The file that names the plugin, for messages."""
    folder = getattr(entry.dist, "_path", None)  # importlib.metadata has no public name for it
    return Path(folder) / "entry_points.txt" if folder is not None else None


def _read(entry: EntryPoint) -> Card:
    distribution, version = _origin(entry)
    folder = _folder(entry)
    known: dict[str, Any] = {
        "name": entry.name,
        "value": entry.value,
        "distribution": distribution,
        "version": version,
        "folder": folder,
    }
    if folder is None:
        return Card(**known, summary=_metadata(entry, "Summary") or "")
    file = folder / "card.toml"
    try:
        text = tomllib.loads(file.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise PluginError(
            "CARD", f"plugin {entry.name!r} has an unreadable card: {error}", mend="mend the TOML", file=file
        ) from error
    _check(text, entry.name, file)
    api = text.get("api", [1, 1])
    lists: dict[str, Any] = {
        key: tuple(text[key])
        for key in ("kinds", "verbs", "needs", "offers", "conflicts_with")
        if key in text
    }
    return Card(
        **known,
        **lists,
        summary=text.get("summary", ""),
        api=(api[0], api[-1]),
        paper=text.get("paper", {}),
        neutral=text.get("neutral", {}),
        commands=text.get("commands", {}),
        xfail=text.get("conformance", {}).get("xfail", {}),
        conformance=text.get("conformance", {}).get("settings", {}),
    )


def _check(text: Mapping[str, Any], name: str, file: Path) -> None:
    """Raise PluginError where a card says what no card can say."""

    def known(found: Mapping[str, Any], keys: frozenset[str], place: str = "") -> None:
        for key in sorted(set(found) - keys):
            mend = f"use one of {', '.join(sorted(keys))}"
            raise PluginError("CARD", f"unknown key {key!r}", mend=mend, file=file, key=f"{place}{key}")

    def table(key: str, check: Callable[[Any], bool] = lambda value: True, of: str = "") -> Mapping[str, Any]:
        found: Any = text
        for part in key.split("."):
            found = found.get(part, {})
        if not isinstance(found, dict):
            raise PluginError("CARD", f"{found!r} is no table", mend=f"write [{key}]", file=file, key=key)
        for inner, value in found.items():
            if not check(value):
                place = f"{key}.{inner}"
                raise PluginError("CARD", f"{value!r} isn't {of}", mend=f"give {of}", file=file, key=place)
        return found

    known(text, _KEYS)
    if text.get("name") != name:
        raise PluginError(
            "CARD",
            f"the card's name {text.get('name')!r} isn't the entry point's {name!r}",
            mend="make them equal",
            file=file,
            key="name",
        )
    if not isinstance(summary := text.get("summary", ""), str):
        raise PluginError("CARD", f"{summary!r} isn't a text", mend="give a line", file=file, key="summary")
    for key in ("kinds", "verbs", "needs", "offers", "conflicts_with"):
        words = text.get(key, [])
        if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
            mend = f'write {key} = ["...", "..."]'
            raise PluginError("CARD", f"{words!r} isn't a list of words", mend=mend, file=file, key=key)
    for kind in text.get("kinds", []):
        if kind not in KINDS:
            mend = f"use some of {', '.join(KINDS)}"
            raise PluginError("CARD", f"unknown kind {kind!r}", mend=mend, file=file, key="kinds")
    api = text.get("api", [1, 1])
    whole = isinstance(api, list) and len(api) in (1, 2) and {type(one) for one in api} == {int}
    if not whole or api[0] > api[-1]:
        mend = "give the first and last version of the hooks that it was written for, [1, 1]"
        raise PluginError("CARD", f"{api!r} is no range of versions", mend=mend, file=file, key="api")
    table("paper")
    if (count := len(table("commands", lambda value: isinstance(value, str), "a line of help"))) > 1:
        mend = "a plugin owns at most one verb"
        raise PluginError("CARD", f"{count} commands", mend=mend, file=file, key="commands")
    neutral = table("neutral")
    known(neutral, _NEUTRAL, "neutral.")
    baseline = neutral.get("baseline")
    if table("neutral.settings", _plain, "a plain value") and not (isinstance(baseline, str) and baseline):
        what, mend = "the neutral settings have no baseline", "name what they equal"
        raise PluginError("CARD", what, mend=mend, file=file, key="neutral.baseline")
    if not isinstance(exact := neutral.get("exact", False), bool):
        what, mend = f"{exact!r} is neither true nor false", "say which"
        raise PluginError("CARD", what, mend=mend, file=file, key="neutral.exact")
    tolerance = neutral.get("tolerance", 1.0)
    number = isinstance(tolerance, (int, float)) and not isinstance(tolerance, bool)
    if not (number and tolerance > 0) or (exact and "tolerance" in neutral):
        what = f"the tolerance is {tolerance!r} and exact is {str(exact).lower()}"
        mend = "give a number above 0, or exact = true without a tolerance"
        raise PluginError("CARD", what, mend=mend, file=file, key="neutral.tolerance")
    known(table("conformance"), _CONFORMANCE, "conformance.")
    reason = "a reason in words"
    table("conformance.xfail", lambda value: isinstance(value, str) and bool(value.strip()), reason)
    table("conformance.settings", _plain, 'a plain value (a dotted key stands in quotes: "trainer.threads")')


def _plain(value: Any) -> bool:
    return isinstance(value, (str, int, float, bool))


def _installed() -> Iterator[EntryPoint]:
    """Entry points of the group; a distribution whose list of them can't be read has none."""
    try:
        yield from entry_points(group=GROUP)
        return
    except Exception:  # one torn file of anybody's would hide all others
        found = list(distributions())
    for distribution in found:
        with suppress(Exception):
            yield from distribution.entry_points.select(group=GROUP)


@cache
def _entries() -> tuple[tuple[EntryPoint, ...], Mapping[str, PluginError]]:
    """Entry points by name (first distribution wins) and an error for names that a second one claims too."""
    found: dict[str, EntryPoint] = {}
    twice: dict[str, PluginError] = {}
    for entry in _installed():
        first = found.setdefault(entry.name, entry)
        if (first.value, _origin(first)[0]) != (entry.value, _origin(entry)[0]):
            owners = " and ".join(" ".join(_origin(one)) for one in (first, entry))
            twice[entry.name] = PluginError(
                "PLUGIN-TWICE",
                f"plugin {entry.name!r} comes from {owners}",
                mend="uninstall one of them",
                file=_place(entry),
            )
    return tuple(found.values()), twice


@cache
def _all() -> tuple[dict[str, Card], dict[str, PluginError]]:
    cards: dict[str, Card] = {}
    broken: dict[str, PluginError] = {}
    for entry in sorted(_entries()[0], key=lambda entry: entry.name):
        try:
            cards[entry.name] = _read(entry)
        except PluginError as error:
            broken[entry.name] = error
        except Exception as error:  # metadata and folders of all kinds of wrongness
            broken[entry.name] = PluginError(
                "CARD",
                f"plugin {entry.name!r} ({' '.join(_origin(entry))}) can't be read: {told(error)}",
                mend="mend its entry point, NAME = package.module:Class, or uninstall it",
                file=_place(entry),
            )
    return cards, broken


def cards() -> dict[str, Card]:
    """Every installed plugin with a readable card, by name."""
    return dict(_all()[0])


def broken_cards() -> dict[str, PluginError]:
    """Installed plugins whose card can't be read; harmless until they are named."""
    return dict(_all()[1])


def unusable() -> dict[str, PluginError]:
    """Installed plugins that can be seen to be broken without importing them: a card that can't be read, a
    name that two distributions claim, another version of the hooks.
    """
    known, broken = _all()
    wrong = {card.name: error for card in known.values() if (error := _misfit(card)) is not None}
    return {**broken, **wrong, **_entries()[1]}


def unusable_line(switched_on: Collection[str] = ()) -> str | None:
    """One line about those of them that aren't switched on; None where there are none."""
    found = {name: error for name, error in unusable().items() if name not in switched_on}
    if len(found) > 1:
        return f"warning: plugins {', '.join(found)} can't be used (llmfw plugins list says why)"
    return next((f"warning: {error}" for error in found.values()), None)


def _misfit(card: Card) -> PluginError | None:
    from llmfw.core.hookspecs import API_VERSION

    if card.api[0] <= API_VERSION <= card.api[1]:
        return None
    return PluginError(
        "PLUGIN-API",
        f"plugin {card.name!r} ({card.origin}) was written for hooks {card.api[0]} to {card.api[1]}, "
        f"this is {API_VERSION}",
        mend="install a version of it that fits",
        file=card.folder / "card.toml" if card.folder else None,
        key="api",
    )


def forget() -> None:
    """Look at the installed distributions afresh (after an install in this process)."""
    _entries.cache_clear()
    _all.cache_clear()


def card(name: str) -> Card:
    """The card of an installed plugin; errors name the nearest installed ones."""
    from difflib import get_close_matches

    from llmfw.core.errors import UsageError

    known, broken = _all()
    if name in broken:
        raise broken[name]
    if name in _entries()[1]:
        raise _entries()[1][name]
    if name not in known:
        near = get_close_matches(name, known, n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(near)}?" if near else f"installed are {', '.join(known) or 'none'}"
        raise UsageError(
            "PLUGIN-UNKNOWN",
            f"no plugin {name!r} is installed",
            mend=f"{hint} (llmfw plugins list)",
            key="plugins",
        )
    return known[name]


def overlay_path(card: Card) -> Path | None:
    """The plugin's ``config.yaml``: settings that make it run sensibly with no other argument."""
    path = card.folder / "config.yaml" if card.folder else None
    return path if path is not None and path.is_file() else None


def load_class(card: Card) -> type[Plugin]:
    """Import the plugin. Whatever goes wrong in it, SystemExit included, is a PluginError that names it.

    Raises:
        PluginError: PLUGIN-API, PLUGIN-IMPORT, PLUGIN-CLASS, and those of ``guard.watch``.
    """
    if (misfit := _misfit(card)) is not None:
        raise misfit
    module_name, _, attribute = card.value.partition(":")
    owner = owner_of(card)
    named = [_place(entry) for entry in _entries()[0] if entry.name == card.name]
    place = (str(named[0]) if named and named[0] else None, None)
    with watch(owner, "its import", code="PLUGIN-IMPORT", place=place, times=IMPORTING):
        found: Any = importlib.import_module(module_name)
        for part in attribute.split("."):
            if not hasattr(found, part):
                file, line = place_of_module(module_name)
                raise PluginError(
                    "PLUGIN-IMPORT",
                    f"{owner.title} has no {attribute or 'class'} in {module_name}",
                    mend="mend the entry point, NAME = package.module:Class",
                    file=file,
                    line=line,
                )
            found = getattr(found, part)
        if isinstance(found, type) and issubclass(found, Plugin):
            return found
    file, line = place_of_module(module_name)
    raise PluginError(
        "PLUGIN-CLASS",
        f"{card.value} of {owner.title} isn't a subclass of llmfw.Plugin",
        mend="derive the class from llmfw.Plugin",
        file=file,
        line=line,
    )


def owner_of(card: Card) -> Owner:
    """The plugin with the files that are its own: its folder, else its package, else its one file."""
    top, *rest = card.value.partition(":")[0].split(".")
    roots: list[str] = []
    if card.folder is not None:
        roots.append(f"{card.folder}{os.sep}")
    with suppress(ImportError, ValueError):
        spec = importlib.util.find_spec(top)
        if spec is not None and spec.submodule_search_locations and top != __name__.split(".")[0]:
            roots += [f"{location}{os.sep}" for location in spec.submodule_search_locations]
        elif spec is not None and not rest and spec.origin is not None:
            roots.append(spec.origin)
    return know(Owner(card.name, card.origin, tuple(dict.fromkeys(roots))))
