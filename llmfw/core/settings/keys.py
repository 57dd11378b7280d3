"""What settings there are: dataclasses read into a tree of keys."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from functools import cache
from pathlib import Path
from typing import Any, Literal, Union

from llmfw.core.errors import PluginError
from llmfw.core.schema import AuxiliaryConfig, DataConfig, ModelConfig, Root
from llmfw.core.settings.strict_yaml import join

NAMED: tuple[type, ...] = (ModelConfig, AuxiliaryConfig, DataConfig)
"""Sections that a plain name stands for: ``model=NAME`` is ``model.name=NAME``."""
TIED: Mapping[type, tuple[str, ...]] = {
    ModelConfig: ("revision", "config", "package"),
    AuxiliaryConfig: ("revision", "config", "package"),
    DataConfig: ("options", "package", "kind", "split_key"),
}
"""Keys that belong to the section's name: another name in a higher layer puts those of lower layers aside."""


NEEDED = "???"
"""The default of a setting that the user must give; as a value it's refused."""


@dataclass(frozen=True)
class Leaf:
    """One setting; ``type`` is the field's annotation."""

    type: Any
    default: Any = NEEDED
    help: str = ""
    choices: tuple[str, ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)

    @property
    def optional(self) -> bool:
        """Whether null is a value."""
        return type(None) in typing.get_args(self.type) or self.type is Any

    @property
    def words(self) -> tuple[str, ...]:
        """The closed choices, also those of a Literal or an Enum."""
        if self.choices:
            return self.choices
        kinds = typing.get_args(self.type) if is_union(self.type) else (self.type,)
        found = [
            str(word)
            for kind in kinds
            if typing.get_origin(kind) is Literal
            for word in typing.get_args(kind)
        ]
        found += [
            word.name for kind in kinds if isinstance(kind, type) and issubclass(kind, Enum) for word in kind
        ]
        return tuple(found)


@dataclass(frozen=True)
class Table:
    """A mapping whose keys the user chooses."""

    values: Leaf | Section
    default: Mapping[str, Any] = field(default_factory=dict)
    help: str = ""


@dataclass(frozen=True)
class Section:
    """A group of settings, from one dataclass."""

    cls: type
    keys: Mapping[str, Leaf | Section | Table]
    help: str = ""


Node = Leaf | Section | Table


@cache
def section(cls: type, owner: str | None = None) -> Section:
    """The keys of a dataclass; ``owner`` is the plugin that it belongs to, for messages.

    Raises:
        PluginError: a plugin's Config is no dataclass, or a field has a type that settings can't have.
    """
    try:
        if not dataclasses.is_dataclass(cls):
            raise TypeError(f"{cls.__name__} is no dataclass")
        hints = typing.get_type_hints(cls)
        keys = {
            item.name: _node(hints[item.name], item, owner) for item in dataclasses.fields(cls) if item.init
        }
    except (NameError, TypeError) as error:
        if owner is None:
            raise
        raise PluginError(
            "PLUGIN-CONFIG", f"the Config of plugin {owner!r} can't be read: {error}",
            mend="make it a dataclass of bool, int, float, str, list, dict, Literal and dataclasses",
            key=owner,
        ) from error  # fmt: skip
    return Section(cls, keys, (cls.__doc__ or "").strip().split("\n")[0])


def _node(kind: Any, item: dataclasses.Field[Any], owner: str | None) -> Node:
    help_text = str(item.metadata.get("help", ""))
    kind = _BARE.get(kind, kind)
    default = item.default if item.default_factory is dataclasses.MISSING else item.default_factory()
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return _with_defaults(section(kind, owner), default)
    default = NEEDED if default is dataclasses.MISSING else plain_value(default)
    if typing.get_origin(kind) is dict:
        of_key, of_value = typing.get_args(kind)
        if of_key is not str:
            raise TypeError(f"{item.name}: the keys of a dict are text")
        table = default if isinstance(default, dict) else {}
        if dataclasses.is_dataclass(of_value) and isinstance(of_value, type):
            return Table(section(of_value, owner), table, help_text)
        _supported(of_value, item.name)
        return Table(Leaf(of_value), table, help_text)
    _supported(kind, item.name)
    return Leaf(kind, default, help_text, tuple(item.metadata.get("choices", ())), item.metadata)


_BARE: Mapping[Any, Any] = {list: list[Any], dict: dict[str, Any]}


def _with_defaults(node: Section, instance: Any) -> Section:
    """The section with the values of an instance as defaults."""
    if instance is dataclasses.MISSING:
        return node
    keys: dict[str, Node] = {}
    for name, child in node.keys.items():
        value = getattr(instance, name)
        if isinstance(child, Section):
            keys[name] = _with_defaults(child, value)
        else:
            keys[name] = dataclasses.replace(child, default=plain_value(value))
    return dataclasses.replace(node, keys=keys)


def is_union(kind: Any) -> bool:
    """Whether an annotation is a union."""
    return typing.get_origin(kind) in (Union, types.UnionType)


def _supported(kind: Any, name: str) -> None:
    origin = typing.get_origin(kind)
    if kind in (Any, bool, int, float, str, Path, type(None)) or origin is Literal:
        return
    if is_union(kind) or origin in (list, tuple) or origin is dict:
        for part in typing.get_args(kind):
            if part is not Ellipsis:
                _supported(part, name)
        return
    if isinstance(kind, type) and issubclass(kind, Enum):
        return
    raise TypeError(f"{name} has type {getattr(kind, '__name__', kind)}")


def root_section(plugins: Mapping[str, type]) -> Section:
    """All settings of a run: the core's, and under each plugin's name its own."""
    core = section(Root)
    return Section(Root, {**core.keys, **{name: section(cls, name) for name, cls in plugins.items()}})


def leaves(node: Node, parent: str = "") -> Iterator[tuple[str, Leaf | Table]]:
    """Every setting below a node with its dotted key; a mapping with free keys counts as one."""
    if not isinstance(node, Section):
        yield parent, node
        return
    for name, child in node.keys.items():
        yield from leaves(child, join(parent, name))


def find(node: Node, path: Sequence[str]) -> Node | None:
    """The node at a path, None where there's none; below free keys anything goes."""
    for part in path:
        if isinstance(node, Section):
            child = node.keys.get(part)
            if child is None:
                return None
            node = child
        elif isinstance(node, Table):
            node = node.values
        elif node.type is not Any:
            return None
    return node


def plain_value(value: Any) -> Any:
    """A default as YAML would hold it."""
    if isinstance(value, Enum):
        return value.name
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, (list, tuple)):
        return [plain_value(item) for item in value]
    if isinstance(value, dict):
        return {key: plain_value(item) for key, item in value.items()}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {item.name: plain_value(getattr(value, item.name)) for item in dataclasses.fields(value)}
    return value


def type_name(leaf: Leaf | Table) -> str:
    """A setting's type as ``llmfw config --keys`` prints it."""
    if isinstance(leaf, Table):
        return "mapping"
    if leaf.words:
        plain = [one_type_name(part) for part in typing.get_args(leaf.type) if part in (bool, int, float)]
        return " | ".join([*plain, *leaf.words]) + (" | null" if leaf.optional else "")
    return one_type_name(leaf.type)


def one_type_name(kind: Any) -> str:
    """An annotation in a user's words."""
    if is_union(kind):
        return " | ".join(one_type_name(part) for part in typing.get_args(kind))
    names = {Any: "any", type(None): "null", str: "text", Path: "path"}
    if kind in names:
        return names[kind]
    if typing.get_origin(kind) is Literal:
        return " | ".join(str(word) for word in typing.get_args(kind))
    if typing.get_origin(kind) in (list, tuple):
        inner = [one_type_name(part) for part in typing.get_args(kind) if part is not Ellipsis]
        return f"list of {inner[0] if len(set(inner)) == 1 else ', '.join(inner)}"
    return getattr(kind, "__name__", str(kind))
