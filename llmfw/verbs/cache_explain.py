"""``llmfw cache explain``: a cached thing in words, or the reference log-probs that a run would look for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import click

from llmfw.verbs.options import run_options

if TYPE_CHECKING:
    from llmfw.core.cache.entries import Entry
    from llmfw.core.training.cached import Explained

_PARTS = {
    "base_hash": "weights",
    "architecture": "architecture",
    "dtype": "dtype",
    "quantization": "quantisation",
    "precision": "precision",
    "attention": "attention",
    "surgeries": "surgeries",
    "batch_keys": "batch keys",
    "torch": "torch",
    "transformers": "transformers",
    "format": "format",
}
"""Parts of a reference's key, in words."""


@click.command("explain")
@run_options
def explain_command(overrides: list[str], **layers: Any) -> None:
    """Explain a cached thing by its NAME (or KIND/NAME, or its beginning), or say which reference log-probs a
    run with these settings would find, and why not the others.

    \b
    llmfw cache explain NAME
    llmfw cache explain --plugin NAME model=tiny-llama data=pairs.jsonl
    """
    from llmfw.core.errors import UsageError

    names = [word for word in overrides if "=" not in word]
    settings = [word for word in overrides if "=" in word]
    asked = bool(settings or layers["plugins"])
    if bool(names) == asked:
        raise UsageError(
            "USAGE", "names don't go with a run's settings" if names else "nothing to explain",
            mend="llmfw cache explain NAME, or llmfw cache explain --plugin PLUGIN KEY=VALUE...",
        )  # fmt: skip
    if asked:
        from llmfw.core.assemble import assemble, settle
        from llmfw.core.training.cached import explain

        lines = of_run(explain(assemble(settle(overrides=settings, **layers), "plan")))
    else:
        from llmfw.core.cache.entries import entries, named

        lines = (line for entry in named(names, entries()) for line in of_entry(entry))
    for line in lines:
        click.echo(line)


def of_entry(entry: Entry) -> Iterator[str]:
    """A cached thing in words."""
    from llmfw.core.cache.entries import read_key
    from llmfw.core.cache.words import KINDS, parts_of
    from llmfw.verbs.cache import ago
    from llmfw.verbs.costs import memory

    yield f"{entry.label}: {entry.about}"
    yield f"  kind          {KINDS.get(entry.kind, 'brought by a plugin')}"
    if entry.kind == "reference":
        key, about = read_key(entry.paths[0])
        yield f"  model         {about.get('model', 'unknown')}"
        yield from _words(key)
        files, samples, tokens = parts_of(entry.paths[0])
        yield f"  numbers       {samples} samples, {tokens:,} trained tokens, in {files} files"
    yield f"  size          {memory(entry.size / 2**30)}"
    yield f"  last used     {ago(entry.used)}"
    shown = entry.paths[0] if len(entry.paths) == 1 else entry.paths[0].parent
    yield f"  place         {shown}"


def of_run(told: Explained) -> Iterator[str]:
    """What a run would look for, and what it would find."""
    state = "exists" if told.exists else "doesn't exist yet"
    yield f"reference log-probs of this run: reference/{told.name} ({state})"
    yield f"  model         {told.model}"
    yield from _words(told.key)
    if told.needed is None:
        yield "  samples       made by the run's rounds, so it isn't known what they will need"
    elif told.missing:
        yield f"  samples       {told.missing} of {told.needed} would be computed ({told.tokens:,} tokens)"
    else:
        yield f"  samples       all {told.needed} are there: nothing would be computed"
    if told.nearest is not None and told.differs is not None:
        yield f"nearest: {told.nearest.label}, {told.nearest.about}"
        for part, (ours, theirs) in told.differs.items():
            yield f"  {_PARTS.get(part, part)}: {_value(part, ours)} here, {_value(part, theirs)} there"


def _words(key: Mapping[str, Any]) -> Iterator[str]:
    for part in [*_PARTS, *(name for name in key if name not in _PARTS)]:
        if part in key:
            yield f"  {_PARTS.get(part, part):<12}  {_value(part, key[part])}"


def _value(part: str, value: Any) -> str:
    if value is None:
        return "not told"
    if part == "surgeries":
        return ", ".join(
            f"{plugin} {name} (seed {seed}, changed {changed[:8]}, settings {settings[:8]})"
            for plugin, name, seed, changed, settings in value
        ) or "none"  # fmt: skip
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return f"sha256 {value[:16]}" if part in ("base_hash", "architecture") else str(value)
