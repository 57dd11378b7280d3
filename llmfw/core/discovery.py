"""Which plugins are installed: their cards are read from disk, their code is imported only when a run names
them.
"""

from __future__ import annotations

import importlib
import importlib.util
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from llmfw.core.errors import ConflictError, PluginError
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


def _read(entry: EntryPoint) -> Card:
    distribution = entry.dist.name if entry.dist else "unknown"
    version = entry.dist.version if entry.dist else "0"
    folder = _folder(entry)
    known: dict[str, Any] = {
        "name": entry.name,
        "value": entry.value,
        "distribution": distribution,
        "version": version,
        "folder": folder,
    }
    if folder is None:
        summary = (entry.dist.metadata["Summary"] if entry.dist else None) or ""
        return Card(**known, summary=summary)
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


@cache
def _entries() -> tuple[tuple[EntryPoint, ...], tuple[tuple[str, str], ...]]:
    """Entry points by name (first distribution wins) and the names that a second distribution also claims."""
    found: dict[str, EntryPoint] = {}
    twice: list[tuple[str, str]] = []
    for entry in entry_points(group=GROUP):
        first = found.setdefault(entry.name, entry)
        if first is not entry and (first.value, first.dist and first.dist.name) != (
            entry.value,
            entry.dist and entry.dist.name,
        ):
            twice.append(
                (entry.name, f"{first.dist and first.dist.name} and {entry.dist and entry.dist.name}")
            )
    return tuple(found.values()), tuple(twice)


@cache
def _all() -> tuple[dict[str, Card], dict[str, PluginError]]:
    cards: dict[str, Card] = {}
    broken: dict[str, PluginError] = {}
    for entry in sorted(_entries()[0], key=lambda entry: entry.name):
        try:
            cards[entry.name] = _read(entry)
        except PluginError as error:
            broken[entry.name] = error
    return cards, broken


def cards() -> dict[str, Card]:
    """Every installed plugin with a readable card, by name."""
    return dict(_all()[0])


def broken_cards() -> dict[str, PluginError]:
    """Installed plugins whose card can't be read; harmless until they are named."""
    return dict(_all()[1])


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
    for twice, owners in _entries()[1]:
        if twice == name:
            raise ConflictError(
                "PLUGIN-TWICE",
                f"plugin {name!r} comes from {owners}",
                mend="uninstall one of them",
                key="plugins",
            )
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
    """Import the plugin. Whatever goes wrong in it, SystemExit included, is a PluginError that names it."""
    module_name, _, attribute = card.value.partition(":")
    try:
        found = getattr(importlib.import_module(module_name), attribute)
    except (Exception, SystemExit) as error:
        place = place_of(error)
        raise PluginError(
            "PLUGIN-IMPORT",
            f"plugin {card.name!r} ({card.origin}) can't be imported: {type(error).__name__}: {error}",
            mend="mend or uninstall the plugin",
            file=place[0],
            line=place[1],
        ) from error
    if not (isinstance(found, type) and issubclass(found, Plugin)):
        raise PluginError(
            "PLUGIN-CLASS",
            f"{card.value} of {card.origin} isn't a subclass of llmfw.Plugin",
            mend="derive the class from llmfw.Plugin",
        )
    return found


def place_of(error: BaseException) -> tuple[str | None, int | None]:
    """File and line where an error arose: of the innermost frame, or of the syntax error itself."""
    if isinstance(error, SyntaxError):
        return error.filename, error.lineno
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return (trace.tb_frame.f_code.co_filename, trace.tb_lineno) if trace else (None, None)
