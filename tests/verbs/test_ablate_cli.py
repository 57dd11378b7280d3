"""``llmfw ablate``: what it prints, as tables and as json; the table of costs after a fit."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from llmfw.core.costs import Cost, Part
from llmfw.core.errors import UsageError
from llmfw.verbs import ablate, compare, fit
from llmfw.verbs.costs import line_of, memory, parts_table
from tests.toys import installed, write_toy
from tests.toys.sources import SURGERY


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    monkeypatch.chdir(tmp_path)
    rows = [{"prompt": f"{n}+1", "completion": f"the sum is {n + 1}"} for n in range(12)]
    Path("rows.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    write_toy(tmp_path / "site", "shift", SURGERY)
    with installed(tmp_path / "site"):
        yield ["--plugin", "shift", "model=tiny-llama", "data=rows.jsonl", "trainer.max_steps=2",
               "adapter.kind=none", "tracking.mlflow=false", "run.dir=both"]  # fmt: skip


def said(command: click.Command, arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    command.main(arguments, standalone_mode=False)
    return capsys.readouterr().out


def row_of(out: str, name: str) -> list[str]:
    """The cells of the row that begins so."""
    (row,) = [line for line in out.splitlines() if line.lstrip(" ↓↑").startswith(f"{name} ")]
    return [cell.strip() for cell in row.split("│")]


def test_the_tables_show_figures_costs_and_parts_and_the_next_command(settings, capsys):
    out = said(ablate.command, settings, capsys)
    assert "with and without shift (seed 42)" in out
    name, ours, theirs, apart = row_of(out, "validation/loss")
    assert name == "↓ validation/loss" and float(ours) - float(theirs) == pytest.approx(
        float(apart), abs=2e-3
    )
    for cost in ("tokens/s", "seconds in steps", "seconds overall", "host GiB, peak"):
        assert float(row_of(out, cost)[1]) > 0
    assert "with the base's own work" in out and row_of(out, "shift surgery/shift")[4].endswith("B")
    assert "same samples in the same order" in out and "! one seed" in out
    assert "llmfw compare both" in out and "more figures: --all" in out
    shown = said(compare.command, ["both", "--no-report"], capsys)
    assert "baseline" in next(line for line in shown.splitlines() if "both/without" in line)


def test_json_has_arms_differences_and_costs(settings, capsys):
    found = json.loads(said(ablate.command, [*settings, "--seeds", "1,2", "--json"], capsys))
    assert [arm["name"] for arm in found["arms"]] == ["with", "without"] and found["seeds"] == [1, 2]
    assert found["same_order"] is True and set(found["arms"][0]["runs"]) == {"1", "2"}
    loss = next(one for one in found["differences"]["without"] if one["name"] == "loss")
    assert loss["difference"] == pytest.approx(loss["with"] - loss["without"])
    assert loss["low"] <= loss["difference"] <= loss["high"]
    assert [part["name"] for part in found["parts"]] == ["surgery/shift"]


@pytest.mark.parametrize("words", [["--seeds", "1,x"], ["--seeds", "1,2", "seed=3"]])
def test_seeds_that_can_not_be_meant_are_refused(settings, words: list[str]):
    with pytest.raises(click.UsageError):
        ablate.command.main([*settings, *words], standalone_mode=False)


def test_a_plugin_that_is_not_installed_is_told_at_once():
    with pytest.raises(UsageError, match="nonesuch"):
        ablate.command.main(["--plugin", "nonesuch"], standalone_mode=False)


def test_a_fit_ends_with_what_it_cost(settings, capsys):
    out = said(fit.command, settings, capsys)
    assert "what plugins cost" in out and row_of(out, "shift surgery/shift")[1]
    (line,) = [line for line in out.splitlines() if line.startswith("cost ")]
    assert "tokens in" in line and "tokens/s" in line and "overall" in line


def test_a_cost_in_one_line():
    cost = Cost(tokens=12_000, train_seconds=6.0, seconds=90.5, host_gib=1.5, gpu_gib=0.25)
    assert line_of(cost) == (
        "12,000 tokens in 6 s of steps (2,000 tokens/s), 90.5 s overall, 1.5 GiB at its peak, "
        "256 MiB on the GPU"
    )
    assert line_of(Cost(seconds=2.0)) == "2 s overall"
    assert [memory(size / 2**30) for size in (0, 584, 2048, 3 * 2**20)] == ["0 B", "584 B", "2 KiB", "3 MiB"]


def test_many_parts_of_a_kind_stand_in_one_row():
    from io import StringIO

    from rich.console import Console

    parts = [Part(plugin="p", name=f"metric/m{n}", seconds=0.5) for n in range(4)]
    parts.append(Part(plugin="p", name="loss", ms=2.0, share=0.25, gib=0.0, samples=3))
    told = StringIO()
    Console(file=told, width=160).print(parts_table(parts))
    assert row_of(told.getvalue(), "p 4 metrics")[3] == "2"
    assert row_of(told.getvalue(), "p loss")[1:5] == ["2", "25.0%", "", "0 B"]
    assert "steps measured: 3" in told.getvalue()
