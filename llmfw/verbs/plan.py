"""``llmfw plan``: what a run would do, printed before any weight is read."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from llmfw.verbs.options import run_options

if TYPE_CHECKING:
    from llmfw.core.plan import Plan

_TITLES = {
    "llmfw_services": "services",
    "llmfw_datamodule": "data module",
    "llmfw_dataset_transforms": "dataset transforms",
    "llmfw_sampler": "sampler",
    "llmfw_surgeries": "surgeries",
    "llmfw_loss": "loss",
    "llmfw_evaluations": "evaluations",
    "llmfw_metrics/train": "metrics (train)",
    "llmfw_metrics/validation": "metrics (validation)",
    "llmfw_callbacks": "callbacks",
    "llmfw_kv_cache": "kv cache",
    "llmfw_decoder": "decoder",
}


@click.command("plan")
@run_options
@click.option("--json", "as_json", is_flag=True, help="Print the plan as json.")
@click.option(
    "--full", is_flag=True, help="Print every setting, not only those that differ from the core's defaults."
)
def command(as_json: bool, full: bool, **layers: Any) -> None:
    """Print what a run would do: plugins, every hook's answer, settings and the plan's hash. Reads no
    weights.
    """
    from llmfw.core.assemble import assemble, settle

    plan = assemble(settle(**layers), "plan").plan
    if as_json:
        click.echo(
            json.dumps(
                {**plan.as_dict(), "hash": plan.hash, "fingerprint": plan.fingerprint}, indent=2, default=str
            )
        )
        return
    print_plan(plan, full=full)


def print_plan(plan: Plan, *, full: bool = False) -> None:
    """The plan as tables."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    table = Table(title="plan", title_justify="left", show_edge=False, pad_edge=False)
    for name in ("question", "answer", "by"):
        table.add_column(name, overflow="fold")
    for hook, title in _TITLES.items():
        for answer in plan.answers.get(hook, ()):
            record = answer.value
            table.add_row(title, Text(describe(record)), Text(answer.plugin))
    for name, facts in plan.facts.get("models", {}).items():
        identity = str(facts["identity"])
        shown = identity if facts["kind"] == "endpoint" else identity[:24]
        table.add_row("auxiliary model", Text(f"{name}: {facts['kind']} {shown}"), Text("models." + name))
    console.print(table)
    for name, origin in plan.plugins:
        console.print(Text(f"plugin {name}  ({origin})"))
    for note in plan.notes:
        console.print(Text(f"note: {note}"))
    settings = plan.settings if full else changed(plan)
    for key, value in settings.items():
        console.print(Text(f"  {key} = {json.dumps(value, ensure_ascii=False)}"))
    console.print(Text(f"plan {plan.hash[:16]}   fingerprint {plan.fingerprint[:16]}"))


def changed(plan: Plan) -> dict[str, Any]:
    """Settings that differ from the core's defaults, and all settings of plugins."""
    from llmfw.core.config import load_config

    defaults = load_config().flat()
    return {
        key: value for key, value in plan.settings.items() if key not in defaults or defaults[key] != value
    }


def describe(record: Any) -> str:
    """A record in a few words: its name, and what matters beside it."""
    name = getattr(record, "name", None)
    name = name() if callable(name) else name or type(record).__name__
    parts = [
        f"{word} {getattr(record, key)}"
        for key, word in (
            ("protocol", "as"),
            ("stage", "over"),
            ("phase", "in phase"),
            ("batch_kind", "over batches of kind"),
            ("prefill_chunk", "prefill"),
        )
        if getattr(record, key, None)
    ]
    if getattr(record, "needs_reference", False):
        parts.append("with a reference model")
    if getattr(record, "when", None):
        parts.append("at " + ", ".join(record.when))
    return " ".join([name, *parts])
