"""``llmfw config``: the settings that hold, where each came from, and every key there is."""

from __future__ import annotations

import json
import os
from collections.abc import Container, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from llmfw.verbs.options import run_options

if TYPE_CHECKING:
    from llmfw.core.config import Origin, Resolved
    from llmfw.core.settings.keys import Leaf, Section, Table


@click.command("config")
@run_options
@click.option("--explain", is_flag=True, help="Say of each value which layer, file and line it came from.")
@click.option(
    "--diff", is_flag=True, help="Only values that differ from the core's and the plugins' defaults."
)
@click.option("--keys", is_flag=True, help="List every key with its meaning, type, default and choices.")
@click.option("--json", "as_json", is_flag=True, help="Print the settings as json, by dotted key.")
@click.option(
    "--deepspeed", is_flag=True, help="Print the DeepSpeed configuration that they amount to, as json."
)
@click.option("--show-secrets", is_flag=True, help="Print passwords and tokens too.")
def command(
    explain: bool, diff: bool, keys: bool, as_json: bool, deepspeed: bool, show_secrets: bool, **layers: Any
) -> None:
    """Print the settings that a run with the same arguments would have, as YAML that --config reads.

    Layers, later ones win: the core's defaults, presets of model and data, plugins' own defaults, --config
    files, the command line.
    """
    if sum((explain, keys, as_json, deepspeed)) > 1 or ((keys or deepspeed) and diff):
        raise click.UsageError("choose one of --explain, --keys, --json, --deepspeed")
    from llmfw.core.config import load_config

    resolved = load_config(**layers)
    if keys:
        for line in describe_keys(resolved.keys):
            click.echo(line)
    elif explain:
        for line in explained(resolved, only_changed=diff, show_secrets=show_secrets):
            click.echo(line)
    elif deepspeed:
        from llmfw.core.training.deepspeed import deepspeed_config

        click.echo(json.dumps(deepspeed_config(resolved.root), indent=2))
    elif as_json:
        click.echo(json.dumps(shown(resolved, only_changed=diff, show_secrets=show_secrets), indent=2))
    elif diff:
        click.echo(differing(resolved, show_secrets=show_secrets), nl=False)
    else:
        click.echo(resolved.to_yaml(redacted=not show_secrets), nl=False)


def shown(resolved: Resolved, *, only_changed: bool, show_secrets: bool) -> dict[str, Any]:
    """Settings by dotted key as they may be printed."""
    from llmfw.core.tracking import redact

    flat = resolved.flat()
    if only_changed:
        flat = {key: value for key, value in flat.items() if changed(resolved.origin[key], value)}
    return flat if show_secrets else redact(flat)


def differing(resolved: Resolved, *, show_secrets: bool) -> str:
    """What differs from the defaults, as YAML."""
    from llmfw.core.settings.interpolation import escape
    from llmfw.core.settings.strict_yaml import dump
    from llmfw.core.tracking import redact

    tree = _filtered(resolved.to_dict(), shown(resolved, only_changed=True, show_secrets=True))
    tree = escape(tree if show_secrets else redact(tree))
    return dump(tree) if tree else "# nothing differs from the defaults\n"


def changed(origin: Origin, value: Any) -> bool:
    """Whether a value isn't the default of its dataclass."""
    lowest = origin.shadows[-1] if origin.shadows else origin
    return lowest.layer != "defaults" or lowest.value != value


def explained(resolved: Resolved, *, only_changed: bool = False, show_secrets: bool = False) -> Iterator[str]:
    """A line for each setting: value, place, and what it shadows."""
    from llmfw.core.tracking import redact

    values = shown(resolved, only_changed=only_changed, show_secrets=show_secrets)
    for key, value in values.items():
        origin = resolved.origin[key]
        shadows = [
            (shadow, shadow.value if show_secrets else redact({key: shadow.value})[key])
            for shadow in origin.shadows
        ]
        beneath = "".join(f"; shadows {_text(old)} ({place(shadow)})" for shadow, old in shadows)
        yield f"{key}: {_text(value)}  # {place(origin)}{beneath}"


def place(origin: Origin) -> str:
    """A layer with its file, shortened to how it's seen from here, and line."""
    if origin.file is None:
        return origin.layer
    file = Path(origin.file)
    here = os.path.relpath(file) if file.is_absolute() else str(file)
    name = here if not here.startswith("..") else _in_package(file)
    return f"{origin.layer}, {name}:{origin.line}" if origin.line else f"{origin.layer}, {name}"


def _in_package(file: Path) -> str:
    """A file of an installed package by its place in it, another one by its full path."""
    parts = file.parts
    return "/".join(parts[parts.index("llmfw") :]) if "llmfw" in parts else str(file)


def describe_keys(root: Section) -> Iterator[str]:
    """Two lines for each setting: key, type and default; meaning."""
    from llmfw.core.settings.keys import Table, leaves, type_name

    for name, node in leaves(root):
        yield f"{name}  ({type_name(node)}; {_default(node)})"
        if node.help:
            yield f"    {node.help}"
        if isinstance(node, Table) and name == "models":
            yield "    models.NAME=MODEL, or models.NAME.KEY=VALUE"


def _default(node: Leaf | Table) -> str:
    from llmfw.core.settings.keys import NEEDED

    return "no default: it must be given" if node.default == NEEDED else f"default {_text(node.default)}"


def _filtered(tree: Mapping[str, Any], keys: Container[str], parent: str = "") -> dict[str, Any]:
    """The part of nested settings whose dotted keys are among ``keys``."""
    kept: dict[str, Any] = {}
    for name, value in tree.items():
        key = f"{parent}.{name}" if parent else name
        if isinstance(value, dict) and value:
            if below := _filtered(value, keys, key):
                kept[name] = below
        elif key in keys:
            kept[name] = value
    return kept


def _text(value: Any) -> str:
    """A value on one line, as the command line takes it."""
    return value if isinstance(value, str) and value else json.dumps(value, ensure_ascii=False)
