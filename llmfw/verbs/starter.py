"""The texts that ``llmfw init`` writes: a commented configuration and a README."""

from __future__ import annotations

import json
import math
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

_CHARACTERS_PER_TOKEN = 3.0
"""Fewer than usual, so that the estimate errs on the long side."""
_MEANING = {
    "preference": "a prompt with a chosen and a rejected answer",
    "completion": "a prompt with its completion",
    "messages": "a conversation; the assistant's turns are trained",
    "text": "running text; all of it is trained",
    "problems": "a problem with its answer",
}


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What ``init`` saw and chose. ``groups``: different prompts; ``longest``: a row's tokens, estimated."""

    file: str
    held_out: str | None
    form: str
    rows: int
    groups: int
    longest: int
    plugins: Sequence[str]
    model: str
    problems: Sequence[str] = field(default_factory=list)

    @property
    def micro_batch(self) -> int:
        """Rows side by side; fewer where they're long or come in pairs."""
        return 2 if self.form == "preference" or self.longest > 256 else 4

    @property
    def accumulate(self) -> int:
        """Forward passes per step: about 32 steps in an epoch or more, at most 16 rows a step."""
        return max(1, min(16 // self.micro_batch, self.rows // (32 * self.micro_batch)))

    @property
    def share(self) -> float | None:
        """Held out where no file is: a tenth, more of very few rows, nothing of a single prompt."""
        return None if self.groups < 2 else 0.2 if self.rows < 50 else 0.1

    @property
    def epochs(self) -> int:
        """Passes: more over few rows."""
        return 3 if self.rows < 500 else 1

    @property
    def steps(self) -> int:
        """Optimizer steps of a run, about."""
        held_out = 0 if self.held_out or not self.share else max(1, round(self.share * self.rows))
        return math.ceil((self.rows - held_out) / (self.micro_batch * self.accumulate)) * self.epochs

    @property
    def max_length(self) -> int:
        """Room for the longest row, in steps of 64 and within what a small machine bears."""
        return min(2048, max(128, math.ceil(self.longest / 64) * 64))


def tokens_of(row: Mapping[str, Any]) -> int:
    """Estimated tokens of a row's longest example."""
    answers = [_characters(row[key]) for key in ("chosen", "rejected", "completion") if key in row]
    rest = sum(
        _characters(row[key]) for key in ("prompt", "messages", "text", "solution", "answer") if key in row
    )
    return math.ceil((rest + max(answers, default=0)) / _CHARACTERS_PER_TOKEN)


def _characters(value: Any) -> int:
    if isinstance(value, str):
        return len(value)
    if isinstance(value, Mapping):
        return _characters(value.get("content", "")) + 12  # the template's marks around a message
    return sum(map(_characters, value)) if isinstance(value, list) else 0


def config_text(facts: Facts) -> str:
    """The commented ``llmfw.yaml``."""
    lines = [
        "# Settings of the runs in this folder: every llmfw command that is called here reads this file.",
        "#   llmfw config --explain    where each value comes from",
        "#   llmfw config --keys       every setting, with its meaning and default",
        "# The command line wins over this file: llmfw fit optimizer.lr=1e-5",
    ]
    for setting, comment in _settings(facts):
        if not setting.startswith(" "):
            lines.append("")
        lines += _commented(setting, comment)
    for name in facts.plugins:
        lines += ["", *_plugin_lines(name)]
    return "\n".join(lines) + "\n"


def _settings(facts: Facts) -> Iterator[tuple[str, str]]:
    """Each line of the configuration and what it means."""
    yield f"plugins: {_value(list(facts.plugins))}", "how to train; llmfw plugins lists what is installed"
    yield f"model: {_value(facts.model)}", "a preset, a hub id, a folder, or a run of yours to go on from"
    yield "data:", ""
    yield f"  name: {_value(facts.file)}", f"{facts.rows} rows: {_MEANING[facts.form]}"
    yield _validation(facts)
    yield f"  max_length: {facts.max_length}", f"tokens; the longest row has about {facts.longest}"
    yield "  too_long: drop", "a longer row: drop, error, cut_start or cut_end"
    yield "  on_bad_row: error", "a row that can't be used: error (named by its line) or skip"
    yield "adapter:", ""
    yield "  kind: lora", "train a few added parameters; none: train all"
    yield "  r: 16", "their rank; more learns more and needs more memory"
    yield "optimizer:", ""
    lr = "5e-5" if facts.form == "preference" else "2e-4"
    yield f"  lr: {lr}", "peak learning rate; a tenth of it with adapter.kind: none"
    yield "  warmup: 0.1", "share of the steps over which it rises"
    yield "trainer:", ""
    passes = f"passes over the rows, about {facts.steps} steps; or max_steps: N instead"
    yield f"  epochs: {facts.epochs}", passes
    yield f"  micro_batch: {facts.micro_batch}", "rows in one forward pass; lower it when memory runs out"
    yield f"  accumulate: {facts.accumulate}", "forward passes per step"
    often = max(1, facts.steps // 4)
    yield f"  validate_every: {often}", "steps between looks at the held-out rows; 0: at the end only"
    yield "checkpoint:", ""
    often = max(1, min(50, facts.steps // 2))
    yield f"  every: {often}", "steps between checkpoints; llmfw fit --resume goes on from the newest"
    yield "generation:", ""
    yield "  max_new_tokens: 128", "longest answer, tokens"
    yield "  temperature: 0.0", "0: always the likeliest token"


def _validation(facts: Facts) -> tuple[str, str]:
    if facts.held_out is not None:
        return f"  validation: {_value(facts.held_out)}", "held-out rows: a file, or a share such as 0.1"
    if facts.share is None:
        return "  validation: null", "all rows have one prompt: nothing can be held out"
    return f"  validation: {facts.share}", "share of the rows that is held out, whole prompts; or a file"


def _plugin_lines(name: str) -> Iterator[str]:
    """The plugin's settings, as they are when nobody sets them, as comments."""
    from llmfw.core.discovery import card, load_class, overlay_path
    from llmfw.core.settings.keys import NEEDED, Leaf, leaves, section
    from llmfw.core.settings.strict_yaml import load_file

    overlay = overlay_path(card(name))
    brought = (load_file(overlay).data.get(name) or {}) if overlay else {}
    found = list(leaves(section(load_class(card(name)).Config, name)))
    needed = [key for key, leaf in found if isinstance(leaf, Leaf) and leaf.default == NEEDED]
    yield f"{name}:" if needed else f"# {name}:"
    for key, leaf in found:
        if "." in key:
            continue  # nested settings are in llmfw config --keys
        must = key in needed
        text = f"  {key}: {'???' if must else _value(brought.get(key, leaf.default))}"
        words = f"one of {', '.join(leaf.words)}; " if isinstance(leaf, Leaf) and leaf.words else ""
        yield from _commented(text if must else f"# {text}", f"{words}{leaf.help}")


def _commented(setting: str, comment: str) -> list[str]:
    """A setting with its comment beside it, or above it where the line grew too long."""
    if not comment:
        return [setting]
    if len(setting) <= 34 and len(setting.ljust(34)) + len(comment) <= 108:
        return [f"{setting.ljust(34)}# {comment}"]
    indent = setting[: len(setting) - len(setting.lstrip(" "))]
    return [
        *textwrap.wrap(comment, 100, initial_indent=f"{indent}# ", subsequent_indent=f"{indent}# "),
        setting,
    ]


def _value(value: Any) -> str:
    """A value on one line of YAML."""
    from llmfw.core.settings.strict_yaml import dump, plain

    if isinstance(value, str):
        simple = value.replace("/", "").replace("-", "").replace("_", "").replace(".", "").isalnum()
        return value if simple and plain(value) == value and not value.startswith("-") else json.dumps(value)
    text = dump({"x": value}).removeprefix("x:").strip()
    return json.dumps(value, ensure_ascii=True) if "\n" in text else text


def readme_text(facts: Facts) -> str:
    """The README: what lies here and what to type."""
    with_plugins = f" with {' and '.join(facts.plugins)}" if facts.plugins else ""
    show = "".join(
        f"    {f'llmfw plugins show {name}'.ljust(28)}# its idea, equation and settings\n"
        for name in facts.plugins
    )
    bad = "".join(f"- {text}\n" for text in facts.problems)
    problems = f"\n## Rows that can't be used\n{bad}" if bad else ""
    return f"""# Training on {facts.file}

`llmfw.yaml` holds the settings: {facts.rows} rows of `{facts.file}` ({_MEANING[facts.form]}) train
`{facts.model}`{with_plugins}. Every llmfw command that is called in this folder reads it.

    llmfw data inspect          # the rows as the model sees them, and which tokens are trained
    llmfw plan                  # what a run would do; no weight is read
    llmfw fit                   # train; about {facts.steps} steps
    llmfw compare               # the runs side by side, and report.html with the curves
    llmfw ui                    # the same in MLflow's pages

Change a setting in `llmfw.yaml`, or for one run on the command line, and compare again:

    llmfw fit optimizer.lr=1e-5 run.name=slower
    llmfw compare

A run that was stopped goes on where it was: `llmfw fit --resume`. Each run has a folder under `runs/` with
its settings, its numbers and, in `final/`, what it trained. Talk to it by naming that folder:

    llmfw chat model=runs/NAME
    llmfw generate model=runs/NAME --prompt "..."

## When something is wrong
    llmfw doctor                # versions, hardware, folders, MLflow
    llmfw config --explain      # where each setting comes from
{show}{problems}"""
