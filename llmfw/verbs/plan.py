"""``llmfw plan``: what a run would do, printed before any weight is read."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from llmfw.verbs.options import run_options

if TYPE_CHECKING:
    from llmfw.core.estimate.estimate import Estimate
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
@click.option(
    "--estimate",
    "estimated",
    is_flag=True,
    help="Prepare the data and predict the run's peak of memory and its seconds a step.",
)
def command(as_json: bool, full: bool, estimated: bool, **layers: Any) -> None:
    """Print what a run would do: plugins, every hook's answer, settings and the plan's hash. Reads no
    weights.
    """
    from llmfw.core.assemble import assemble, settle

    assembled = assemble(settle(**layers), "plan")
    plan, found = assembled.plan, None
    if estimated:
        from llmfw.core.estimate.estimate import estimate

        found = estimate(assembled)
    if as_json:
        told = {**plan.as_dict(), "hash": plan.hash, "fingerprint": plan.fingerprint}
        if found is not None:
            told["estimate"] = found.to_json()
        click.echo(json.dumps(told, indent=2, default=str))
        return
    print_plan(plan, full=full)
    if found is not None:
        print_estimate(found)


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


def print_estimate(found: Estimate) -> None:
    """What the run will cost, as tables; each prediction with how far it may be off."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(soft_wrap=True)
    memory = Table(
        title="memory of a process at its peak", title_justify="left", show_edge=False, pad_edge=False
    )
    memory.add_column("part")
    memory.add_column("GiB", justify="right")
    for part, size in found.peak.parts.items():
        if size:
            memory.add_row(_PARTS.get(part, part), f"{size / 2**30:.3f}")
    console.print()
    console.print(memory)
    for line in estimate_lines(found):
        console.print(Text(line))


_PARTS = {
    "optimizer": "optimizer's state",
    "reference": "reference model",
    "head": "head (chunks, its gradient)",
    "buckets": "DDP's buckets",
    "slack": "allocator's slack",
    "base": "libraries and data",
}


def estimate_lines(found: Estimate) -> list[str]:
    """The estimate in sentences, one a line."""
    from llmfw.core.estimate.estimate import TIME_UNCERTAINTY
    from llmfw.core.estimate.memory import UNCERTAINTY

    rows, length = found.largest
    where = "on a GPU" if found.device == "cuda" else f"in {found.machine.threads} threads"
    processes = "" if found.processes == 1 else f" x {found.processes} processes"
    seconds, percent = found.seconds, TIME_UNCERTAINTY * 100
    return [
        f"step        {found.samples:.4g} samples ({found.micro_batch} x {found.accumulate}{processes}), "
        f"{found.tokens:,.0f} tokens in {found.positions:,.0f} positions; {found.trained:,} parameters train",
        f"largest     micro-batch of {rows} x {length} positions",
        f"peak        {_gib(found.peak.total)} +-{UNCERTAINTY * 100:.0f}% ({_gib(found.peak.low)} to "
        f"{_gib(found.peak.high)}); {_gib(found.room.bytes)} {found.room.how}"
        + ("" if found.fits else ": it may not fit"),
        f"time        {seconds.step:.3g} s a step +-{percent:.0f}% "
        f"({seconds.step * (1 - TIME_UNCERTAINTY):.3g} to {seconds.step * (1 + TIME_UNCERTAINTY):.3g} s), "
        f"mean {seconds.mean:.3g} s; {found.steps} steps: {_span(seconds.total)}, without validation, "
        "generation and checkpoints",
        f"work        {found.flops / 1e9:,.4g} GFLOP a step, {found.utilisation:.0%} of this machine's "
        f"{found.machine.gemm / 1e9:,.4g} GFLOP/s of matrix products {where}",
        *(f"note: {note}" for note in found.notes),
    ]


def _gib(size: int) -> str:
    return f"{size / 2**30:.2f} GiB"


def _span(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.3g} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60:02d} min"


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
