"""``llmfw ablate``: with and without each plugin, the same in all else, and the difference."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import click

from llmfw.verbs.options import run_options

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

    from llmfw.core.ablate import Ablation, Arm, Difference


class Seeds(click.ParamType):  # type: ignore[type-arg]  # generic for the type checker alone
    """Whole numbers with commas between them."""

    name = "seeds"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, ...]:
        """The numbers, each once."""
        try:
            return tuple(dict.fromkeys(int(part) for part in str(value).split(",")))
        except ValueError:
            self.fail(f"{value!r} is no list of whole numbers such as 1,2,3", param, ctx)


@click.command("ablate")
@run_options
@click.option(
    "--seeds", type=Seeds(), metavar="1,2,3",
    help="Train both sides for each seed and give the difference's 95% interval; default: the one set.",
)  # fmt: skip
@click.option(
    "--resume", is_flag=True, help="Go on with the newest unfinished ablation of the same settings."
)
@click.option("--all", "everything", is_flag=True, help="Show every figure, not only the telling ones.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as json on standard output.")
def command(
    seeds: tuple[int, ...] | None, resume: bool, everything: bool, as_json: bool, **layers: Any
) -> None:
    """Train with a plugin and without it, everything else the same: settings, seed, data order, reference.

    Without it its own settings are gone and all others stay as they were with it. Where its card names an
    installed baseline, that stands in for it. Of several plugins each is left out in turn. The runs are
    children of one MLflow run, and llmfw compare ABLATION puts them side by side.

    \b
    llmfw ablate --plugin NAME
    llmfw ablate --plugin NAME --plugin OTHER trainer.max_steps=50 --seeds 1,2,3
    """
    words = layers.pop("overrides")
    from llmfw.core.ablate import ablate, check_plugins

    check_plugins(layers["plugins"])
    if any(word.partition("=")[0].strip() == "seed" for word in words) and seeds:
        raise click.UsageError("--seeds and seed=... say the same thing: leave one out")
    found = ablate(words, seeds=seeds or (), resume=resume, **layers)
    if as_json:
        click.echo(as_text(found))
    else:
        _print(found, everything)


def as_text(found: Ablation) -> str:
    """The result as json: arms with their runs' figures, and the differences."""
    import json
    from dataclasses import asdict

    from llmfw.core.tracking.journal import encode

    def plain(one: Difference) -> dict[str, Any]:
        told = {"name": one.name, "with": one.with_it, "without": one.without}
        apart = one.difference
        told |= {"difference": None, "low": None, "high": None} if apart is None else {
            "difference": apart.value, "low": apart.low, "high": apart.high
        }  # fmt: skip
        return {key: encode(value) if isinstance(value, float) else value for key, value in told.items()}

    document = {
        "dir": str(found.dir),
        "seeds": list(found.seeds),
        "same_order": found.same_order,
        "order": found.order,
        "mlflow": dict(found.mlflow),
        "arms": [
            {
                "name": arm.name,
                "left_out": arm.left_out,
                "instead": arm.instead,
                "plugins": arm.plugins,
                "runs": {
                    str(seed): {"dir": str(result.dir), "cost": asdict(result.cost)}
                    for seed, result in found.results[arm.name].items()
                },
            }
            for arm in found.arms
        ],
        "differences": {arm.name: [plain(one) for one in found.differences(arm)] for arm in found.arms[1:]},
        "costs": {arm.name: [plain(one) for one in found.costs(arm)] for arm in found.arms[1:]},
        "parts": [asdict(part) for part in found.parts],
        "cautions": list(found.cautions),
    }
    return json.dumps(document, indent=2, default=str)


def _print(found: Ablation, everything: bool) -> None:
    import sys

    from rich.console import Console
    from rich.text import Text

    from llmfw.verbs.costs import parts_table

    # a pipe or a file has no width of its own
    wide = not sys.stdout.isatty()
    console = Console(soft_wrap=True, width=160) if wide else Console(soft_wrap=True)
    for arm in found.arms[1:]:
        for table in _tables(found, arm, everything):
            console.print(table)
            console.print()
    if found.parts:
        console.print(parts_table(found.parts))
        console.print()
    for caution in found.cautions:
        console.print(Text(f"! {caution}", style="yellow"))
    console.print(Text(f"data     {found.order}"))
    console.print(Text(f"ablation {found.dir}"))
    if found.mlflow.get("run_id"):
        console.print(Text(f"mlflow   {found.mlflow['run_id']} in {found.mlflow.get('uri', '')}"))
    console.print("next:")
    console.print(Text(f"  llmfw compare {found.dir}"))


def _tables(found: Ablation, arm: Arm, everything: bool) -> Iterator[RenderableType]:
    from rich.text import Text

    from llmfw.core.tracking.comparison import direction

    against = f", {arm.instead} in its place" if arm.instead else ""
    seeds = f"seed {found.seeds[0]}" if len(found.seeds) == 1 else f"means over {len(found.seeds)} seeds"
    figures = sorted(found.differences(arm), key=lambda one: found.rank(one.name))
    shown = [one for one in figures if everything or found.is_telling(one.name)]
    marks = {"min": "↓", "max": "↑", None: " "}
    rows = [(f"{marks[direction(one.name)]} {one.name}", one, direction(one.name)) for one in shown]
    yield _table(f"with and without {arm.left_out}{against} ({seeds})", rows, len(found.seeds))
    if len(shown) < len(figures):
        yield Text(f"{len(figures) - len(shown)} more figures: --all", style="dim")
    costs = found.costs(arm)
    better = {one.name: "max" if one.name == "tokens/s" else "min" for one in costs}
    yield _table("cost of a run", [(one.name, one, better[one.name]) for one in costs], len(found.seeds))


def _table(title: str, rows: Sequence[tuple[str, Difference, str | None]], seeds: int) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title, title_justify="left", show_edge=False)
    table.add_column("", no_wrap=True)
    for name in ("with", "without", "difference", *(("95% interval",) if seeds > 1 else ())):
        table.add_column(name, justify="right", no_wrap=True)
    for name, one, better in rows:
        table.add_row(Text(name), _number(one.with_it), _number(one.without), *_apart(one, better, seeds > 1))
    return table


def _apart(one: Difference, better: str | None, several: bool) -> Iterator[Any]:
    """The difference, green where it speaks for the plugin and red where against it, and its interval."""
    from rich.text import Text

    from llmfw.core.tracking.terminal import signed

    apart = one.difference
    if apart is None or math.isnan(apart.value):
        yield from ["–", "–"] if several else ["–"]
        return
    sure = not several or apart.low > 0 or apart.high < 0
    good = better is not None and (apart.value < 0) == (better == "min")
    style = "" if better is None or apart.value == 0 or not sure else ("green" if good else "red")
    yield Text(signed(apart.value), style=style)
    if several:
        yield f"{_number(apart.low)} to {_number(apart.high)}"


def _number(value: float | None) -> str:
    from llmfw.core.tracking.terminal import number

    return number(value)
