"""``llmfw verify``: a killed run ends as one that wasn't, and a checkpoint is whole: see for yourself."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from llmfw.verbs.options import run_options, words_of

if TYPE_CHECKING:
    from rich.table import Table

    from llmfw.core.proof.resume import Verdict


@click.group("verify")
def command() -> None:
    """Prove what is promised: exact resume of your own command line, and whole checkpoints."""


@command.command("resume")
@run_options
@click.option(
    "--kills", type=click.IntRange(1), default=3, show_default=True, help="SIGKILLs in the second run."
)
@click.option("--seed", type=int, default=0, show_default=True, help="Draws the moments of the kills.")
@click.option(
    "--folder", type=click.Path(path_type=Path, file_okay=False), default=Path("verify"), show_default=True,
    help="Both runs, their logs and a store of MLflow's go there; it must be empty.",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print the verdict as json on standard output.")
def resume(kills: int, seed: int, folder: Path, as_json: bool, **layers: Any) -> None:
    """Train twice, once untouched, once killed at random moments and taken up again; compare both bit by bit.

    Takes what `llmfw fit` takes. Compared are weights, optimizer, states of random generators, callbacks and
    data, every value of every metric, the samples of each step, the steps that were lost, and what MLflow
    knows. Exit code 5 where something that the run's resume class promises isn't so.
    """
    from llmfw.core.assemble import settle
    from llmfw.core.proof.resume import verify_resume
    from llmfw.core.say import say

    settle(**layers)  # a mistyped key is told at once
    verdict = verify_resume(words_of(**layers), folder=folder, kills=kills, seed=seed, tell=say)
    if as_json:
        import json
        from dataclasses import asdict

        click.echo(json.dumps({**asdict(verdict), "held": verdict.held}, indent=2, default=str))
    else:
        _print(verdict)
    verdict.insist()


@command.command("checkpoint")
@click.argument("folder", type=click.Path(path_type=Path))
def checkpoint(folder: Path) -> None:
    """Compare every file of a checkpoint, or of all of a run's checkpoints, with its manifest."""
    from llmfw.core.checkpoint import verify

    found = checkpoints_of(folder)
    for one in found:
        manifest = verify(one)
        size = sum(length for _, length in manifest.files.values())
        click.echo(
            f"{one}: step {manifest.step}, {len(manifest.files)} files, {size / 1e6:.1f} MB, all as written"
        )


def checkpoints_of(folder: Path) -> list[Path]:
    """The checkpoint that a folder is, or those below it: of a run, with its rounds and its final weights."""
    from llmfw.core.checkpoint.manifest import NAME
    from llmfw.core.errors import CheckpointError

    if (folder / NAME).is_file() or folder.is_file():
        return [folder]
    found = sorted(path.parent for path in folder.rglob(NAME) if not path.parent.name.startswith("."))
    if not found:
        raise CheckpointError(
            "CHECKPOINT-MISSING",
            "no checkpoint is there",
            mend="name a run's folder or a checkpoint's",
            file=folder,
        )
    return found


def _print(verdict: Verdict) -> None:
    from rich.console import Console
    from rich.text import Text

    console = Console(soft_wrap=True)
    console.print(table(verdict))
    for line in lines(verdict):
        console.print(Text(line))


def table(verdict: Verdict) -> Table:
    """One row for each thing that was compared."""
    from rich.table import Table
    from rich.text import Text

    found = Table(title="untouched and killed", title_justify="left", show_edge=False)
    for name in ("", "equal", "promised", "figures"):
        found.add_column(name)
    for one in verdict.findings:
        style = "green" if one.held else "red"
        found.add_row(
            one.what,
            "yes" if one.equal else "no",
            Text("kept" if one.held else "broken", style=style),
            Text(one.said),
        )
    return found


def lines(verdict: Verdict) -> list[str]:
    """What was done, and what it says."""
    came = ", ".join(map(str, verdict.kills)) or "none"
    late = f"; {verdict.missed} came too late" if verdict.missed else ""
    why = f" ({'; '.join(verdict.reasons)})" if verdict.reasons else ""
    return [
        f"kills    {len(verdict.kills)} (steps done when they came: {came}{late})",
        f"class    {verdict.grade}{why}",
        f"folder   {verdict.folder}",
        f"verdict  {'kept' if verdict.held else 'broken'}: {verdict.steps} steps, {verdict.seconds:.0f} s",
    ]
