"""Layers of settings: each becomes a list of single settings with places; later ones shadow earlier ones."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from llmfw.core.errors import ConflictError, UsageError
from llmfw.core.schema import DataConfig
from llmfw.core.settings.keys import NAMED, NEEDED, TIED, Leaf, Node, Section, Table, find
from llmfw.core.settings.strict_yaml import Document, kind_of, parse_value
from llmfw.core.settings.values import WrongValue, fit, shown

Path_ = tuple[str, ...]
Unknown = Callable[[str], tuple[str, str]]
"""Says of a dotted key that doesn't exist what is wrong with it, and how to mend it."""
EXCLUSIVE: tuple[tuple[Path_, Path_], ...] = ((("trainer", "max_steps"), ("trainer", "epochs")),)
"""Of each pair one is set: a layer that sets one puts the other, as set by lower layers, to null."""


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Where a setting's value comes from. ``shadows``: the same key in lower layers, nearest first."""

    layer: str
    file: str | None = None
    line: int | None = None
    value: Any = None
    shadows: tuple[Origin, ...] = ()

    @property
    def place(self) -> str:
        """Layer, file and line as ``llmfw config --explain`` prints them."""
        where = ":".join(str(part) for part in (self.file, self.line) if part is not None)
        return f"{self.layer} {where}" if where else self.layer


@dataclass(frozen=True)
class Setting:
    """One value for one key."""

    path: Path_
    value: Any
    origin: Origin


@dataclass
class Layer:
    """A layer's settings; ``kind`` is defaults, base, preset, plugin, saved, file or command."""

    name: str
    kind: str
    settings: list[Setting] = field(default_factory=list)

    def get(self, path: Path_) -> Setting | None:
        """The setting of exactly this key."""
        return next((item for item in reversed(self.settings) if item.path == path), None)


def error_at(origin: Origin, wrong: WrongValue) -> UsageError:
    """A wrong value as the line that the user reads."""
    return UsageError(
        wrong.code, wrong.what, mend=wrong.mend, file=origin.file, line=origin.line, key=wrong.key
    )


def defaults(root: Section) -> Layer:
    """The lowest layer: what the dataclasses say."""

    def walk(node: Node, path: Path_) -> Iterator[Setting]:
        if isinstance(node, Section):
            for name, child in node.keys.items():
                yield from walk(child, (*path, name))
        elif node.default != NEEDED:
            for below, value in _flatten(node.default) if isinstance(node, Table) else [((), node.default)]:
                yield Setting((*path, *below), value, Origin(layer="defaults", value=value))

    return Layer("defaults", "defaults", list(walk(root, ())))


def read(root: Section, document: Document, name: str, kind: str, unknown: Unknown) -> Layer:
    """A document's settings, each checked against its type; a pair of which one is set is made whole.

    Raises:
        UsageError: an unknown key, a value of another type, or a group where a single value belongs.
    """
    title = f"plugin {name}" if kind == "plugin" else name
    layer = Layer(name, kind, _Reader(document, title, unknown).read(root))
    _fill_exclusive(layer)
    return layer


class _Reader:
    """Walks a document beside the tree of keys."""

    def __init__(self, document: Document, title: str, unknown: Unknown) -> None:
        self.document, self.title, self.unknown = document, title, unknown
        self.found: list[Setting] = []

    def read(self, root: Section) -> list[Setting]:
        self.group(root, self.document.data, ())
        return self.found

    def origin(self, key: str) -> Origin:
        return Origin(layer=self.title, file=self.document.file, line=self.document.lines.get(key))

    def add(self, path: Path_, value: Any, key: str | None = None) -> None:
        origin = dataclasses.replace(self.origin(key or ".".join(path)), value=value)
        self.found.append(Setting(path, value, origin))

    def node(self, node: Node, value: Any, path: Path_) -> None:
        key = ".".join(path)
        if isinstance(node, Leaf):
            self.leaf(node, value, path)
        elif isinstance(value, Mapping):
            if not value and (isinstance(node, Table) or len(path) > 1):
                self.add(path, {})
            self.group(node, value, path)
        elif value is None and self.document.file is not None and self.document.texts.get(key) == "":
            return  # a heading with nothing under it, as when all its lines are comments
        elif isinstance(node, Section) and node.cls in NAMED and _is_word(value):
            self.add((*path, "name"), self.document.texts.get(key, value), key)
        else:
            raise error_at(self.origin(key), _no_single_value(node, value, key))

    def group(self, node: Section | Table, value: Mapping[str, Any], path: Path_) -> None:
        for part, inner in value.items():
            child = node.keys.get(part) if isinstance(node, Section) else node.values
            if child is None:
                raise self.no_such_key((*path, part), inner)
            self.node(child, inner, (*path, part))

    def leaf(self, node: Leaf, value: Any, path: Path_) -> None:
        key = ".".join(path)
        try:
            fitted = fit(node, value, key, self.document.texts)
        except WrongValue as wrong:
            if isinstance(value, Mapping) and value:
                raise self.no_such_key(path, value) from None
            place = self.origin(wrong.key if wrong.key in self.document.lines else key)
            raise error_at(place, wrong) from None
        for below, part in _flatten(fitted) if isinstance(fitted, dict) else [((), fitted)]:
            self.add((*path, *below), part)

    def no_such_key(self, path: Path_, value: Any) -> UsageError:
        """The error of a key that doesn't exist, named as far down as only one key is meant."""
        place = self.origin(".".join(path))
        while isinstance(value, Mapping) and len(value) == 1:
            ((part, value),) = value.items()
            path = (*path, part)
        key = ".".join(path)
        what, mend = self.unknown(key)
        if self.document.file is not None and "." in path[0]:
            group, _, rest = path[0].partition(".")
            what, mend = "dotted keys aren't read in files", f"write {group}: and, indented below it, {rest}:"
        return error_at(place, WrongValue("CONFIG-KEY", what, mend, key))


def _is_word(value: Any) -> bool:
    return isinstance(value, (str, int, float)) and not isinstance(value, bool)


def _no_single_value(node: Node, value: Any, key: str) -> WrongValue:
    got = f"{kind_of(value)} ({shown(key, value)})" if _is_word(value) else kind_of(value)
    if isinstance(node, Section):
        names = list(node.keys)
        some = ", ".join(f"{key}.{name}" for name in names[:4]) + (", ..." if len(names) > 4 else "")
        return WrongValue("CONFIG-TYPE", f"a group of settings can't be {got}", f"set one of {some}", key)
    return WrongValue("CONFIG-TYPE", f"a mapping is expected, not {got}", f"write {key}={{name: value}}", key)


def _flatten(value: Any, path: Path_ = ()) -> Iterator[tuple[Path_, Any]]:
    if isinstance(value, Mapping) and value:
        for name, part in value.items():
            yield from _flatten(part, (*path, name))
    else:
        yield path, dict(value) if isinstance(value, Mapping) else value


def _fill_exclusive(layer: Layer) -> None:
    for pair in EXCLUSIVE:
        found = [layer.get(path) for path in pair]
        given = [item for item in found if item is not None and item.value is not None]
        if len(given) == 2:
            keys = [".".join(path) for path in pair]
            raise error_at(
                given[1].origin,
                WrongValue(
                    "CONFIG-VALUE", f"{keys[0]} and {keys[1]} are both set", "keep one of them", keys[1]
                ),
            )
        if len(given) == 1:
            other = pair[1 - found.index(given[0])]
            if layer.get(other) is None:
                layer.settings.append(Setting(other, None, dataclasses.replace(given[0].origin, value=None)))


def command_line(root: Section, overrides: Sequence[str], unknown: Unknown) -> Layer:
    """The layer of ``KEY=VALUE`` arguments; the last of one key holds.

    Raises:
        UsageError: an argument of another form, besides the errors of ``read``.
    """
    layer = Layer("command line", "command")
    for text in overrides:
        key, equals, written = text.partition("=")
        key = key.strip()
        if any("\ud800" <= letter <= "\udfff" for letter in text):
            raise UsageError("CONFIG-ARGUMENT", f"{text!a} isn't UTF-8", mend="type it in UTF-8")
        if not equals or not key or any(not part for part in key.split(".")):
            raise UsageError(
                "CONFIG-ARGUMENT", f"{text!r} isn't of the form KEY=VALUE",
                mend="write it without spaces, such as trainer.max_steps=20",
            )  # fmt: skip
        document = parse_value(written, key=key)
        path = _split(root, key)
        data: Any = document.data
        for part in reversed(path):
            data = {part: data}
        new = _Reader(Document(data, None, texts=document.texts), layer.name, unknown).read(root)
        again = {item.path for item in new}
        layer.settings = [*(item for item in layer.settings if item.path not in again), *new]
    _fill_exclusive(layer)
    return layer


def _split(root: Section, key: str) -> list[str]:
    """A dotted key in parts; below a table of single values the rest is one key (``team.name``)."""
    parts = key.split(".")
    for count in range(1, len(parts)):
        node = find(root, parts[:count])
        if isinstance(node, Table) and isinstance(node.values, Leaf) and node.values.type is not Any:
            return [*parts[:count], ".".join(parts[count:])]
    return parts


def settle_mix(layers: Sequence[Layer]) -> bool:
    """Decide between ``data.name`` and ``data.mix``: the higher layer holds, and drops the other with what
    belongs to it; True: a mixture.

    Raises:
        UsageError: MIX-NAME, one layer sets both.
    """
    name, mix = ("data", "name"), ("data", "mix")
    own = [layer for layer in layers if layer.kind not in ("defaults", "preset")]
    named = [index for index, layer in enumerate(own) if layer.get(name) is not None]
    mixed = [index for index, layer in enumerate(own) if any(item.path[:2] == mix for item in layer.settings)]
    mixed = [index for index in mixed if own[index].get(mix) is None]  # an empty mapping is no mixture
    if not mixed:
        return False
    if named and named[-1] == mixed[-1] and own[mixed[-1]].kind != "saved":
        setting = own[mixed[-1]].get(name)
        assert setting is not None
        raise UsageError(
            "MIX-NAME", "data.name and data.mix are both set", mend="keep one of them: a mixture's sources "
            "stand in data.mix alone", file=setting.origin.file, line=setting.origin.line, key="data.name",
        )  # fmt: skip
    holds = not named or mixed[-1] >= named[-1]
    tied = {name, *(("data", key) for key in TIED[DataConfig])} if holds else {mix}
    last = mixed[-1] if holds else named[-1]
    for index, layer in enumerate(own[: last + 1]):
        if holds and index == last and layer.kind != "saved":
            continue  # what stands beside the mixture is meant for it
        drop = {name} if holds and layer.kind == "saved" else tied
        layer.settings = [item for item in layer.settings if item.path[:2] not in drop]
    return holds


def put_aside_tied(layers: list[Layer], root: Section) -> None:
    """Drop what belongs to another name: ``data=my.jsonl`` puts a plugin's ``data.options`` aside."""
    for path, node in named_sections(root, layers):
        names = [
            (index, layer.get((*path, "name")))
            for index, layer in enumerate(layers)
            if layer.kind != "preset"
        ]
        given = [(index, item.value) for index, item in names if item is not None]
        if not given:
            continue
        final = given[-1][1]
        since = given[-1][0]
        for index, name in reversed(given):
            if name != final:
                break
            since = index
        aside = {(*path, key) for key in TIED[node.cls]}
        for layer in layers[:since]:
            if layer.kind not in ("defaults", "preset"):
                kept = [item for item in layer.settings if item.path[: len(path) + 1] not in aside]
                layer.settings = kept


def named_sections(root: Section, layers: Iterable[Layer]) -> Iterator[tuple[Path_, Section]]:
    """Sections that have a name: model, data, and each auxiliary model."""
    for name, node in root.keys.items():
        if isinstance(node, Section) and node.cls in NAMED:
            yield (name,), node
        elif isinstance(node, Table) and isinstance(node.values, Section) and node.values.cls in NAMED:
            used = {
                item.path[1]: None
                for layer in layers
                for item in layer.settings
                if item.path[0] == name and item.path[1:]
            }
            for part in used:
                yield (name, part), node.values


def check_overlays(layers: Sequence[Layer], first: str | None) -> list[Layer]:
    """The layers with the overlay of plugin ``first`` above the others'.

    Raises:
        ConflictError: two overlays differ in a key, nothing above them sets it, ``first`` is neither.
    """
    overlays = [layer for layer in layers if layer.kind == "plugin"]
    settled = {
        item.path for layer in layers if layer.kind in ("saved", "file", "command") for item in layer.settings
    }
    seen: dict[Path_, tuple[Layer, Setting]] = {}
    for layer in overlays:
        for item in layer.settings:
            before = seen.setdefault(item.path, (layer, item))
            if before[1].value == item.value or item.path in settled or first in (before[0].name, layer.name):
                continue
            if first is not None and any(other.name == first and other.get(item.path) for other in overlays):
                continue
            key = ".".join(item.path)
            one, two = before[0].name, layer.name
            value = "null" if before[1].value is None else before[1].value
            raise ConflictError(
                "CONFIG-CONFLICT",
                f"{one} sets it to {shown(key, before[1].value)}, {two} to {shown(key, item.value)}",
                mend=f"add --defaults-from {one} or --defaults-from {two}, or set it yourself: {key}={value}",
                file=item.origin.file, line=item.origin.line, key=key,
            )  # fmt: skip
    return sorted(
        layers,
        key=lambda layer: _RANK[layer.kind] + (0.5 if layer.kind == "plugin" and layer.name == first else 0),
    )


_RANK: Mapping[str, float] = {
    "defaults": 0, "base": 1, "preset": 2, "plugin": 3, "saved": 4, "file": 5, "command": 6
}  # fmt: skip


def merge(layers: Sequence[Layer]) -> dict[Path_, Setting]:
    """The settings that hold, each with the origins that it shadows."""
    merged: dict[Path_, Setting] = {}
    inner: set[Path_] = set()
    """Paths that have settings below them."""
    for layer in layers:
        for item in layer.settings:
            above = [item.path[:length] for length in range(1, len(item.path) + 1)]
            replaced = [path for path in above if path in merged]
            if item.path in inner:
                replaced += [
                    path
                    for path in merged
                    if len(path) > len(item.path) and path[: len(item.path)] == item.path
                ]
            lower = [merged.pop(path).origin for path in replaced]
            shadows = tuple(
                part
                for origin in lower
                for part in (dataclasses.replace(origin, shadows=()), *origin.shadows)
            )
            merged[item.path] = dataclasses.replace(
                item, origin=dataclasses.replace(item.origin, shadows=shadows)
            )
            inner.update(above[:-1])
    return merged


def nest(flat: Iterable[tuple[Path_, Any]]) -> dict[str, Any]:
    """Nested mappings from paths."""
    tree: dict[str, Any] = {}
    for path, value in flat:
        inner = tree
        for part in path[:-1]:
            inner = inner.setdefault(part, {})
        inner[path[-1]] = value
    return tree
