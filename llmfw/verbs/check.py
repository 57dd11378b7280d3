"""``llmfw check``: tests of a run's own parts, on its own settings and data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from llmfw.verbs.options import run_options, words_of

if TYPE_CHECKING:
    from rich.table import Table

    from llmfw.core.proof.loss import LossCheck


@click.group("check")
def command() -> None:
    """Test a run's own parts, on its own settings and data; nothing is trained."""


@command.command("loss")
@run_options
@click.option("--json", "as_json", is_flag=True, help="Print the figures as json on standard output.")
@click.option("--processes", is_flag=True, help="Also run the step for real, with one process and with two.")
def loss(processes: bool, as_json: bool, **layers: Any) -> None:
    """Compare loss and gradients of the first step however its samples are dealt out.

    Into micro-batches of any size, over two processes, with and without padding the gradient must be the
    same; of preference pairs, a step down it must raise the margin of chosen over rejected answers. Exit
    code 7 where it isn't so.
    """
    from llmfw.core.assemble import assemble, settle

    settled = settle(**layers)
    from llmfw.core.proof.loss import check_loss

    assembled = assemble(settled, "fit")
    found = check_loss(assembled)
    if processes:
        from dataclasses import replace

        from llmfw.core.proof.processes import two_processes
        from llmfw.core.say import say

        way = two_processes(words_of(**layers), assembled.run.config.trainer)
        if way is None:
            say("note: two processes can't share a step of an odd number of samples: none were started")
        found = replace(found, ways=(*found.ways, *([way] if way else [])))
    if as_json:
        import json
        from dataclasses import asdict

        click.echo(json.dumps(asdict(found), indent=2))
    else:
        _print(found)
    found.insist()


def _print(found: LossCheck) -> None:
    from rich.console import Console
    from rich.text import Text

    console = Console(soft_wrap=True)
    console.print(table(found))
    said = f"loss {found.name} (sum over {found.unit}), {len(found.samples)} samples, in {found.dtype}"
    console.print(Text(f"{said}; up to {found.tolerance:.0e} is rounding"))
    if found.margin is not None:
        rises = "rises" if found.margin > 0 else "doesn't rise"
        console.print(
            Text(f"margin of chosen over rejected {rises} down the gradient: {found.margin:.3g} nats a step")
        )


def table(found: LossCheck) -> Table:
    """One row for each way to deal the samples out."""
    from rich.table import Table
    from rich.text import Text

    told = Table(title="against micro-batches as the run has them", title_justify="left", show_edge=False)
    told.add_column("")
    for name in ("loss apart", "gradient apart"):
        told.add_column(name, justify="right")
    for name in ("", "most in"):
        told.add_column(name)
    for way in found.ways:
        verdict = Text("same" if way.held else "DIFFERS", style="green" if way.held else "red")
        told.add_row(way.what, f"{way.apart:.1e}", f"{way.gradient:.1e}", verdict, way.where)
    return told
