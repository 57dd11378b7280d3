"""``llmfw profile``: where a training step's time goes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from llmfw.verbs.options import run_options

if TYPE_CHECKING:
    from rich.table import Table

    from llmfw.core.profiling.report import Profile


@click.command("profile")
@run_options
@click.option(
    "--steps",
    type=click.IntRange(1),
    default=5,
    show_default=True,
    help="Steps that are timed; as many more run unwatched, in turn with them.",
)
@click.option(
    "--warmup", type=click.IntRange(1), default=2, show_default=True, help="Steps before the first of them."
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("profile"),
    show_default=True,
    help="Folder for trace.json, which Perfetto opens, and profile.json.",
)
@click.option("--waits", is_flag=True, help="List every place where the host waits for the device.")
@click.option("--json", "as_json", is_flag=True, help="Print the figures as json on standard output.")
def command(steps: int, warmup: int, out: Path, waits: bool, as_json: bool, **layers: Any) -> None:
    """Train a few real steps of a run and show where their time goes. Nothing of them is kept.

    The steps are the run's first ones, with its data, plugins and settings. Held-out loss, samples and
    checkpoints are left out: they come between some steps.
    """
    from llmfw.core.assemble import assemble, settle

    settled = settle(**layers)
    os.environ.setdefault(
        "KINETO_LOG_LEVEL", "99"
    )  # torch's tracer tells of itself; read when torch is loaded
    from llmfw.core.profiling.carry_out import profile

    found = profile(assemble(settled, "fit"), steps=steps, warmup=warmup, out=out)
    if as_json:
        import json
        from dataclasses import asdict

        click.echo(json.dumps(asdict(found), indent=2, ensure_ascii=False))
        return
    _print(found, waits=waits)


def _print(found: Profile, *, waits: bool) -> None:
    from rich.console import Console
    from rich.text import Text

    console = Console(soft_wrap=True)
    console.print(phases_table(found))
    console.print()
    for line in lines(found):
        console.print(Text(line))
    console.print()
    console.print(operators_table(found))
    if waits and found.waits_at:
        console.print()
        console.print(waits_table(found))
    console.print(Text(f"trace    {found.trace} (open it in https://ui.perfetto.dev)"))


def lines(found: Profile) -> Iterator[str]:
    """The step as a whole, a line a fact."""
    yield (
        f"step     {found.step_ms:.4g} ms, {found.tokens_per_second:,.0f} tokens/s "
        f"({found.tokens:,.0f} tokens in {found.positions:,.0f} positions; {found.device}, "
        f"{found.threads} threads, precision {found.precision})"
    )
    yield (
        f"watching {found.overhead:+.1%} time a token: {found.timed_ms:.4g} ms a watched step, "
        f"medians of {found.steps} steps each way"
    )
    yield (
        f"products {found.gflop:,.3g} GFLOP a step, {found.gemm_share:.1%} of this machine's measured "
        f"{found.gemm_rate / 1e9:,.0f} GFLOP/s"
    )
    gpu = f", {found.gpu_gib:.2f} GiB on the GPU" if found.gpu_gib is not None else ""
    if found.host_gib is not None:
        yield f"memory   {found.host_gib:.2f} GiB resident at its peak{gpu}"
    told = sum(found.synchronizations.values())
    by_cuda = f"; CUDA tells of {told}" if found.synchronizations else ""
    yield f"waits    the host reads from the device or sends to it {found.waits} times a step{by_cuda}"


def phases_table(found: Profile) -> Table:
    """A row a phase; groups of more than one part have a line of their own."""
    from rich.table import Table

    title = f"{found.name}: where a step's time goes"
    table = Table(title=title, title_justify="left", show_edge=False, pad_edge=False)
    table.add_column("phase", no_wrap=True)
    for name in ("ms", "share", "calls", "GFLOP", "of GEMM rate"):
        table.add_column(name, justify="right", no_wrap=True)
    groups = dict.fromkeys(row.group for row in found.phases)
    for group in groups:
        members = [row for row in found.phases if row.group == group]
        gflop = sum(row.gflop for row in members)
        if len(members) > 1:
            whole = sum(row.ms for row in members)
            table.add_row(group, f"{whole:.4g}", f"{sum(row.share for row in members):.1%}", "", _some(gflop))
        for row in members:
            name = f"  {row.part}" if len(members) > 1 else row.name
            rate = f"{row.rate:.0%}" if row.rate is not None else ""
            calls = f"{row.calls:,.0f}" if row.calls else ""
            table.add_row(name, f"{row.ms:.4g}", f"{row.share:.1%}", calls, _some(row.gflop), rate)
    return table


def operators_table(found: Profile) -> Table:
    """The operations that took the most time of their own, in the traced step."""
    from rich.table import Table
    from rich.text import Text

    table = Table(title="operations, one step", title_justify="left", show_edge=False, pad_edge=False)
    table.add_column("operation", overflow="fold")
    for name in ("ms", "calls"):
        table.add_column(name, justify="right", no_wrap=True)
    for one in found.operators:
        table.add_row(Text(one["name"][:80]), f"{one['ms']:.4g}", f"{one['calls']:,}")
    return table


def waits_table(found: Profile) -> Table:
    """Every place where the host waits for the device."""
    from rich.table import Table
    from rich.text import Text

    table = Table(
        title="waits for the device, one step", title_justify="left", show_edge=False, pad_edge=False
    )
    for name in ("what", "at", "phase"):
        table.add_column(name, overflow="fold")
    table.add_column("times", justify="right", no_wrap=True)
    for one in found.waits_at:
        table.add_row(one["what"], Text(one["at"]), one["phase"], f"{one['times']:,}")
    for place, times in found.synchronizations.items():
        table.add_row("CUDA", Text(place), "", f"{times:,}")
    return table


def _some(gflop: float) -> str:
    return f"{gflop:.3g}" if gflop else ""
