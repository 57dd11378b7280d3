"""A run's settings: layers merged, checked and resolved, with the place that each value came from.

Layers, each above the one before: defaults of ``schema`` < ``configs/base.yaml`` < presets of model and data
< plugins' ``config.yaml`` < a saved run's settings < ``--config`` files < the command line.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

from llmfw.core import discovery
from llmfw.core.errors import LlmfwError, PluginError, UsageError
from llmfw.core.guard import owner_named, watch
from llmfw.core.schema import Root
from llmfw.core.settings.interpolation import at, escape, resolve
from llmfw.core.settings.keys import (
    NEEDED,
    Leaf,
    Node,
    Section,
    Table,
    find,
    leaves,
    plain_value,
    root_section,
    section,
)
from llmfw.core.settings.layers import (
    Layer,
    Origin,
    Path_,
    Setting,
    Unknown,
    check_overlays,
    command_line,
    defaults,
    error_at,
    merge,
    named_sections,
    put_aside_tied,
    read,
    settle_mix,
)
from llmfw.core.settings.limits import Range, check, outside
from llmfw.core.settings.strict_yaml import Document, dump, join, load_file
from llmfw.core.settings.suggest import unknown_key
from llmfw.core.settings.values import WrongValue, fit
from llmfw.core.tracking import redact

__all__ = ["Origin", "Resolved", "load_config", "preset_names"]

_KIND = {"saved run": "saved", "file": "file"}


@dataclass(frozen=True, kw_only=True)
class Resolved:
    """A checked configuration.

    ``origin`` maps a dotted key to where its value came from and what it shadows; ``plugin_settings`` maps a
    plugin's name to an instance of its ``Config``.
    """

    root: Root
    plugin_settings: Mapping[str, Any]
    plugin_names: list[str]
    origin: Mapping[str, Origin]
    values: Mapping[str, Any]
    """Every setting, nested, plugins' under their names."""
    keys: Section
    """All settings that this run could have been given."""

    def flat(self) -> dict[str, Any]:
        """Every setting by dotted key, in the schema's order; an empty mapping stands for itself."""
        return _flat(self.values)

    def to_dict(self) -> dict[str, Any]:
        """A copy of the nested settings."""
        copied: dict[str, Any] = plain_value(dict(self.values))
        return copied

    def to_yaml(self, *, redacted: bool = False) -> str:
        """The settings as a file that ``--config`` reads back to the same; ``redacted`` hides secrets."""
        values = escape(self.to_dict())
        return dump(redact(values) if redacted else values)


def preset_names(section: str) -> tuple[str, ...]:
    """Names of the presets; ``section`` is ``models`` or ``data``."""
    folder = files("llmfw") / "configs" / section
    return tuple(sorted(file.name[:-5] for file in folder.iterdir() if file.name.endswith(".yaml")))


def load_config(
    *,
    plugins: Sequence[str] = (),
    no_plugins: Sequence[str] = (),
    files: Sequence[Path] = (),
    overrides: Sequence[str] = (),
    defaults_from: str | None = None,
    base: Mapping[str, Any] | None = None,
) -> Resolved:
    """Merge all layers, check every value, and build the plugins' settings.

    Args:
        plugins, no_plugins: plugins to switch on beside those of ``plugins:`` in files, and to leave out.
        files: ``--config`` files, later ones above.
        overrides: ``KEY=VALUE`` of the command line.
        defaults_from: the plugin whose own defaults hold where two plugins' differ.
        base: settings of a saved run, above presets and plugins' defaults; taken literally, ``${...}`` too.

    Raises:
        UsageError: anything wrong in files or on the command line, with file, line and key.
        ConflictError: two plugins' defaults differ and nothing decides.
        PluginError: a plugin's card, Config or config.yaml breaks a rule.
    """
    core = root_section({})
    documents = [("file", load_file(Path(file))) for file in files]
    if base is not None:
        documents.insert(0, ("saved run", Document(escape(base), None)))
    names = _plugin_names(core, documents, overrides, plugins, no_plugins)
    classes = {name: _config_class(name) for name in names}
    root = root_section(classes)
    installed = [*discovery.cards(), *discovery.broken_cards()]
    unknown = unknown_key(root, names, installed)

    base_file = _package_file("base.yaml")
    layers = [
        defaults(root),
        read(root, load_file(base_file), "base", "base", unknown),
        *_overlays(root, names, unknown),
        *(read(root, document, title, _KIND[title], unknown) for title, document in documents),
        command_line(root, overrides, unknown),
    ]  # fmt: skip
    if plugins or no_plugins:
        listed = Origin(layer="command line", value=names)
        layers[-1].settings.append(Setting(("plugins",), names, listed))
    mixed = settle_mix(layers)
    layers[2:2] = _presets(root, layers, unknown, mixed=mixed)
    if defaults_from is not None and defaults_from not in names:
        on = f"switched on are {', '.join(names)}" if names else "no plugin is switched on"
        raise UsageError(
            "PLUGIN-OFF", f"--defaults-from {defaults_from}, but {on}", mend=f"add --plugin {defaults_from}"
        )
    put_aside_tied(layers, root)
    merged = merge(check_overlays(layers, defaults_from))
    return _resolve(root, merged, classes)


def _package_file(name: str) -> Path:
    with as_file(files("llmfw") / "configs" / name) as path:
        return path


def _plugin_names(
    core: Section,
    documents: Sequence[tuple[str, Document]],
    overrides: Sequence[str],
    added: Sequence[str],
    left_out: Sequence[str],
) -> list[str]:
    leaf = core.keys["plugins"]
    assert isinstance(leaf, Leaf)
    names: list[str] = []
    origin = Origin(layer="defaults")
    for title, document in documents:
        if "plugins" in document.data:
            origin = Origin(layer=title, file=document.file, line=document.lines.get("plugins"))
            try:
                names = fit(leaf, document.data["plugins"], "plugins", document.texts)
            except WrongValue as wrong:
                raise error_at(origin, wrong) from None
    about_plugins = [text for text in overrides if text.split("=")[0].strip() == "plugins"]
    listed = command_line(core, about_plugins, unknown_key(core, (), ()))
    if (setting := listed.get(("plugins",))) is not None:
        names, origin = setting.value, setting.origin
    for name in left_out:
        if name in added:
            raise UsageError(
                "PLUGIN-TWICE", f"--plugin {name} and --no-plugin {name}", mend="keep one of them"
            )
        discovery.card(name)
    names = [name for name in dict.fromkeys([*names, *added]) if name not in left_out]
    for name in names:
        try:
            discovery.card(name)
        except UsageError as error:
            if name in added:
                raise UsageError(error.code, error.what, mend=error.mend, key="--plugin") from None
            raise type(error)(
                error.code, error.what, mend=error.mend, key="plugins", file=origin.file, line=origin.line
            ) from None
    return names


def _config_class(name: str) -> type:
    card = discovery.card(name)
    if name in root_section({}).keys:
        raise PluginError(
            "PLUGIN-NAME",
            f"plugin {name!r} ({card.origin}) has the name of a core setting",
            mend="rename the plugin",
        )
    cls: type = discovery.load_class(card).Config
    with watch(owner_named(name), "its Config", code="PLUGIN-CONFIG"):
        section(cls, name)  # kept: its defaults are made once
    return cls


def _overlays(root: Section, names: Sequence[str], unknown: Unknown) -> list[Layer]:
    found: list[Layer] = []
    for name in names:
        path = discovery.overlay_path(discovery.card(name))
        if path is None:
            continue
        try:
            layer = read(root, load_file(path), name, "plugin", unknown)
        except UsageError as error:
            raise PluginError(
                error.code, f"in the defaults of plugin {name!r}: {error.what}", mend=error.mend,
                file=error.file, line=error.line, key=error.key,
            ) from error  # fmt: skip
        for item in layer.settings:
            if (rule := _forbidden(item.path, name, names)) is not None:
                raise PluginError(
                    "CONFIG-OVERLAY", f"the defaults of plugin {name!r} may not set {rule}",
                    mend="remove the key; the user sets it where it's wanted",
                    file=item.origin.file, line=item.origin.line, key=".".join(item.path),
                )  # fmt: skip
        found.append(layer)
    return found


def _forbidden(path: Path_, owner: str, names: Sequence[str]) -> str | None:
    """What a plugin's defaults may not decide: other plugins, isolation, tracking, whom to trust."""
    if path[0] == "plugins":
        return "which plugins run"
    if path[0] in ("sandbox", "tracking"):
        return f"{path[0]} settings"
    trusted = {"trust_remote_code", "package", "script", "endpoint", "api_key_env"}
    if path[0] in ("model", "models", "data") and trusted & set(path):
        return "whose code, files and servers are trusted"
    return f"settings of plugin {path[0]!r}" if path[0] in names and path[0] != owner else None


def _presets(root: Section, layers: Sequence[Layer], unknown: Unknown, *, mixed: bool) -> list[Layer]:
    """A layer for each model and data set whose final name is that of a preset."""
    merged = merge(layers)
    names: dict[Path_, str] = {}
    for path, node in named_sections(root, layers):
        setting = merged.get((*path, "name"))
        leaf = node.keys["name"]
        assert isinstance(leaf, Leaf)
        names[path] = str(setting.value if setting is not None else leaf.default)
    if any("${" in name for name in names.values()):
        tree = resolve(root, merged)
        names |= {path: str(at(tree, (*path, "name"))) for path, name in names.items() if "${" in name}
    found: list[Layer] = []
    for path, name in names.items():
        section = "data" if path[0] == "data" else "models"
        if name not in preset_names(section) or (mixed and section == "data"):
            continue  # each source of a mixture reads its own preset
        document = load_file(_package_file(f"{section}/{name}.yaml"))
        data: Any = document.data
        for part in reversed(path):
            data = {part: data}
        prefix = ".".join(path)
        moved = Document(
            data, document.file, {f"{prefix}.{key}": line for key, line in document.lines.items()},
            {f"{prefix}.{key}": text for key, text in document.texts.items()},
        )  # fmt: skip
        found.append(read(root, moved, f"preset {name}", "preset", unknown))
    return found


def _resolve(root: Section, merged: Mapping[Path_, Setting], classes: Mapping[str, type]) -> Resolved:
    origins = {".".join(path): setting.origin for path, setting in merged.items()}

    def place(key: str) -> tuple[str | None, int | None]:
        origin = origins.get(key)
        return (origin.file, origin.line) if origin else (None, None)

    _refuse_missing(root, merged)
    tree = _complete(root, resolve(root, merged))
    for key, wrong in _plugin_ranges(root, tree, classes):
        file, line = place(key)
        raise UsageError(wrong.code, wrong.what, mend=wrong.mend, file=file, line=line, key=key)
    core = _instance(Root, {name: value for name, value in tree.items() if name not in classes}, None)
    check(core, place)
    return Resolved(
        root=core,
        plugin_settings={name: _instance(cls, tree[name], name) for name, cls in classes.items()},
        plugin_names=list(core.plugins),
        origin={
            key: origins.get(key, Origin(layer="defaults", value=value)) for key, value in _flat(tree).items()
        },
        values=tree,
        keys=root,
    )


def _refuse_missing(root: Section, merged: Mapping[Path_, Setting]) -> None:
    given = {".".join(path): setting for path, setting in merged.items()}
    absent = [name for name, leaf in leaves(root) if isinstance(leaf, Leaf) and name not in given]
    for name in [*absent, *(name for name, setting in given.items() if setting.value == NEEDED)]:
        node = find(root, name.split("."))
        hint = f" ({node.help})" if isinstance(node, Leaf) and node.help else ""
        origin = given[name].origin if name in given else Origin(layer="defaults")
        raise UsageError(
            "CONFIG-MISSING", "a value is needed", mend=f"set {name}=VALUE{hint}",
            file=origin.file, line=origin.line, key=name,
        )  # fmt: skip


def _complete(node: Node, given: Any) -> Any:
    """Values in the schema's order; mappings that nobody set are empty, entries of tables complete."""
    if isinstance(node, Section):
        return {
            name: _complete(child, given.get(name, {} if not isinstance(child, Leaf) else child.default))
            for name, child in node.keys.items()
        }
    if isinstance(node, Table) and isinstance(node.values, Section):
        return {name: _complete(node.values, part) for name, part in given.items()}
    return given


def _instance(cls: type, tree: Mapping[str, Any], plugin: str | None) -> Any:
    """An instance of a settings dataclass, merged into its OmegaConf structure."""
    from omegaconf import OmegaConf

    def build() -> Any:
        return OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(cls), escape(tree)))

    try:
        if plugin is None:
            return build()
        with watch(
            owner_named(plugin), "its Config", getattr(cls, "__post_init__", None), code="PLUGIN-CONFIG"
        ):
            try:
                return build()
            except (ValueError, AssertionError) as error:
                refused = error
        raise refused
    except LlmfwError:
        raise
    except (ValueError, AssertionError) as error:
        # a Config's __post_init__ refuses the combination
        what = str(error).split("\n")[0] or type(error).__name__
        mend = (
            f"llmfw plugins show {plugin} explains the settings"
            if plugin
            else "llmfw config --keys explains them"
        )
        raise UsageError("CONFIG-RANGE", what, mend=mend, key=plugin) from error


def _plugin_ranges(
    root: Section, tree: Mapping[str, Any], plugins: Iterable[str]
) -> Iterator[tuple[str, WrongValue]]:
    """Numbers outside ``metadata={"minimum": ..., "maximum": ...}`` of a plugin's fields."""
    for name in plugins:
        for key, leaf in leaves(root.keys[name], name):
            if isinstance(leaf, Leaf) and leaf.metadata.keys() & {"minimum", "maximum"}:
                bounds = Range(leaf.metadata.get("minimum"), leaf.metadata.get("maximum"))
                for wrong in outside(key, at(tree, key.split(".")), bounds):
                    yield key, wrong


def _flat(tree: Mapping[str, Any], parent: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        key = join(parent, name)
        flat |= _flat(value, key) if isinstance(value, Mapping) and value else {key: value}
    return flat
