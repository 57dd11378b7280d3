"""What a user may have meant by a key that doesn't exist."""

from __future__ import annotations

from collections.abc import Callable, Collection
from difflib import SequenceMatcher, get_close_matches

from llmfw.core.settings.keys import Leaf, Section, find, leaves

ELSEWHERE = {
    "learning_rate": ("optimizer.lr",),
    "batch_size": ("trainer.micro_batch", "trainer.accumulate", "generation.batch_size"),
    "per_device_train_batch_size": ("trainer.micro_batch",),
    "train_batch_size": ("trainer.micro_batch", "trainer.accumulate"),
    "gradient_accumulation_steps": ("trainer.accumulate",),
    "accumulate_grad_batches": ("trainer.accumulate",),
    "max_grad_norm": ("optimizer.clip",),
    "gradient_clip_val": ("optimizer.clip",),
    "num_train_epochs": ("trainer.epochs",),
    "max_epochs": ("trainer.epochs",),
    "num_epochs": ("trainer.epochs",),
    "steps": ("trainer.max_steps",),
    "warmup_ratio": ("optimizer.warmup",),
    "warmup_steps": ("optimizer.warmup",),
    "lr_scheduler_type": ("optimizer.schedule",),
    "output_dir": ("run.dir",),
    "logging_dir": ("run.dir",),
    "logging_steps": ("trainer.log_every",),
    "save_steps": ("checkpoint.every",),
    "save_total_limit": ("checkpoint.keep",),
    "eval_steps": ("trainer.validate_every",),
    "max_seq_length": ("data.max_length",),
    "max_seq_len": ("data.max_length",),
    "cutoff_len": ("data.max_length",),
    "dataset": ("data.name",),
    "dataset_name": ("data.name",),
    "train_file": ("data.name",),
    "validation_file": ("data.validation",),
    "model_name_or_path": ("model.name",),
    "base_model": ("model.name",),
    "chat_template": ("tokenizer.template",),
    "lora_rank": ("adapter.r",),
    "lora_r": ("adapter.r",),
    "lora_alpha": ("adapter.alpha",),
    "lora_dropout": ("adapter.dropout",),
    "lora_target": ("adapter.target_modules",),
    "fp16": ("trainer.precision",),
    "bf16": ("trainer.precision",),
    "report_to": ("tracking.mlflow",),
    "tracking_uri": ("tracking.uri",),
    "experiment_name": ("tracking.experiment",),
}
"""Names under which other programs have our settings."""


def unknown_key(
    root: Section, on: Collection[str], installed: Collection[str]
) -> Callable[[str], tuple[str, str]]:
    """A function that says of a dotted key what is wrong with it and how to mend it.

    ``on`` are the plugins of this run, ``installed`` all plugins.
    """

    def explain(key: str) -> tuple[str, str]:
        first, *rest = key.split(".")
        off = [name for name in installed if name not in on]
        if first in off:
            return (
                f"the key belongs to plugin {first!r}, which is installed but not switched on",
                f"add --plugin {first}",
            )
        node = find(root, key.split(".")[:-1])
        if isinstance(node, Leaf) or (isinstance(find(root, [first]), Leaf) and rest):
            owner = key.rsplit(".", 1)[0] if isinstance(node, Leaf) else first
            return f"{owner} is a single value, it has no settings of its own", f"write {owner}=VALUE"
        near = near_keys(root, key)
        if first not in root.keys:
            plugins = get_close_matches(first, off, n=1, cutoff=0.6)
            if plugins and not (near and _alike(first, near[0].split(".")[0]) >= _alike(first, plugins[0])):
                return (
                    f"no such setting; plugin {plugins[0]!r} is installed but not switched on",
                    f"if it's meant, add --plugin {plugins[0]} and write {'.'.join([plugins[0], *rest])}",
                )
        if near:
            return "no such setting", f"did you mean {' or '.join(near)}?"
        group = root.keys.get(first)
        if isinstance(group, Section):
            names = ", ".join(f"{first}.{name}" for name in group.keys)
            return "no such setting", f"{first} has {names}" if names else f"{first} has no settings"
        return "no such setting", "llmfw config --keys lists them"

    return explain


def near_keys(root: Section, key: str) -> list[str]:
    """At most three existing keys that ``key`` may mean, the nearest first."""
    known = [name for name, _ in leaves(root)]
    group, _, last = key.rpartition(".")
    exact = [name for name in known if name.rpartition(".")[2] == last]
    foreign = [name for name in ELSEWHERE.get(last, ()) if name in known]
    if foreign or (exact and not group):
        return list(dict.fromkeys([*foreign, *exact]))[:3]
    if not group:
        groups = [name for name, node in root.keys.items() if isinstance(node, Section)]
        if near := get_close_matches(key, groups, n=1, cutoff=0.75):
            return near
    scores = {name: _score(group, last, name) for name in known}
    best = max(scores.values())
    near = [name for name in sorted(known, key=lambda name: -scores[name]) if scores[name] >= best - 0.08]
    return near[:3] if best >= 0.72 else []


def _score(group: str, last: str, name: str) -> float:
    """Likeness of a key and a known name: of their last parts, more where the group is the same."""
    known_group, _, known_last = name.rpartition(".")
    if group == known_group:
        return min(1.0, 0.15 + _alike(last, known_last))
    return max(_alike(f"{group}.{last}", name) - 0.1, 0.95 * _alike(last, known_last))


def _alike(one: str, other: str) -> float:
    return SequenceMatcher(None, one, other).ratio()
