"""``llmfw profile``: the run's own first steps, measured and thrown away."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llmfw.testing.runner import Runner

PAIRS = ("preference", ("--plugin", "dpo", "dpo.answers=0"))
WAYS = {"supervised": ("completion", ()), "pairs": PAIRS}
SETTINGS = {
    "plain": ("trainer.accumulate=3", "trainer.reference=auto"),
    "lora, dropout, checkpointing": (
        "adapter.kind=lora", "adapter.dropout=0.1", "trainer.recompute=layers",
        "trainer.accumulate=2", "trainer.reference=auto",
    ),
    "cached reference": ("trainer.reference=cache", "trainer.micro_batch=2"),
    "bf16": ("trainer.precision=bf16-mixed", "trainer.reference=auto"),
}  # fmt: skip


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
@pytest.mark.parametrize("way", WAYS)
def test_the_profiled_steps_are_the_runs_first_ones_bit_for_bit(
    runner: Runner, rows_file: Any, way: str, settings: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """2 + 2 x 2 + 2 steps: however a step was watched, its loss is that of ``fit``."""
    monkeypatch.setenv("LLMFW_CACHE", str(runner.folder / "cache"))
    form, switched = WAYS[way]
    words = (*switched, f"data={rows_file(form)}", *settings, "trainer.max_steps=8")
    trained = runner("fit", *words).assert_ok()
    told = json.loads(runner("profile", *words, "--steps=2", "--json").assert_ok().output)
    assert len(trained.losses) == 8
    assert told["losses"] == trained.losses


def test_a_profile_leaves_two_files_and_nothing_else(runner: Runner, rows_file: Any, tmp_path: Path) -> None:
    data = rows_file("completion")
    before = set(tmp_path.rglob("*"))
    runner("profile", f"data={data}", "tracking.mlflow=true", "--steps=1", "--warmup=1").assert_ok()
    out = tmp_path / "profile"
    assert set(tmp_path.rglob("*")) - before == {out, out / "trace.json", out / "profile.json"}
    runner("fit", f"data={data}", "--resume=must").assert_failed(code="NOTHING-TO-RESUME")


def test_shares_add_up_and_every_part_of_a_step_has_a_row(runner: Runner, rows_file: Any) -> None:
    words = ("--plugin", "dpo", "dpo.answers=0", f"data={rows_file('preference')}", "trainer.reference=auto")
    done = runner("profile", *words, "trainer.accumulate=2", "--steps=2").assert_ok()
    told = json.loads((runner.folder / "profile" / "profile.json").read_text())
    rows = {(row["group"], row["part"]): row for row in told["phases"]}
    assert sum(row["share"] for row in rows.values()) == pytest.approx(1.0)
    parts = ("embedding", "attention", "mlp", "norms", "head")
    for group in ("forward", "reference", "backward"):
        assert all(rows[group, part]["ms"] > 0 for part in parts), group
    for group in ("data wait", "clip and checks", "optimizer", "logging"):
        assert rows[group, ""]["ms"] > 0, group
    # two layers, two micro-batches: attention goes forward four times, the reference's as often
    assert rows["forward", "attention"]["calls"] == rows["reference", "attention"]["calls"] == 4
    assert rows["forward", "mlp"]["gflop"] > 0 and rows["optimizer", ""]["gflop"] == 0
    # without recomputation, products of a backward pass are twice those of the forward pass
    ratio = rows["backward", "mlp"]["gflop"] / rows["forward", "mlp"]["gflop"]
    assert ratio == pytest.approx(2.0)
    for words in ("where a step's time goes", "backward", "attention", "GFLOP/s", "GiB", "tokens/s", "waits"):
        assert words in done.output, done.output


def test_recomputed_activations_are_a_phase_of_their_own(runner: Runner, rows_file: Any) -> None:
    words = (f"data={rows_file('completion')}", "trainer.recompute=layers", "--steps=1", "--json")
    told = json.loads(runner("profile", *words).assert_ok().output)
    rows = {(row["group"], row["part"]): row for row in told["phases"]}
    again, first = rows["recomputed forward", "mlp"], rows["forward", "mlp"]
    assert again["calls"] == first["calls"] == 2
    # two of three products: nobody needs what the last one gives, so it isn't made again
    assert again["gflop"] == pytest.approx(first["gflop"] * 2 / 3)


def test_the_trace_names_the_phases_beside_the_operations(runner: Runner, rows_file: Any) -> None:
    runner("profile", f"data={rows_file('completion')}", "--steps=1", "--out=here").assert_ok()
    events = json.loads((runner.folder / "here" / "trace.json").read_text())["traceEvents"]
    phases = [event for event in events if event.get("cat") == "phase"]
    names = {event["name"] for event in phases}
    assert {"forward: attention", "backward: mlp", "optimizer", "data wait", "the rest"} <= names
    (step,) = [event for event in events if event.get("name") == "llmfw/step" and event.get("cat") != "phase"]
    assert sum(event["dur"] for event in phases) <= step["dur"]
    # the track lies on the operations' clock: products of the forward pass fall into its phases
    regions = [event for event in events if event.get("name") == "llmfw/forward/mlp"]
    mlp = [event for event in phases if event["name"] == "forward: mlp"]
    assert len(regions) == len(mlp) == 2
    for region, phase in zip(sorted(regions, key=_at), sorted(mlp, key=_at), strict=True):
        assert abs(region["ts"] - phase["ts"]) < 2000  # microseconds


def _at(event: dict[str, Any]) -> float:
    return float(event["ts"])


SAMPLER = """
import llmfw
from llmfw import Plugin, hookimpl

class Toy(Plugin):
    @hookimpl
    def llmfw_sampler(self, run):
        return llmfw.RolloutSampler(name="toy", next=lambda index, rows, policy, services, ledger: None)
"""


def test_what_cannot_be_profiled_is_said_in_one_line(
    runner: Runner, rows_file: Any, installed_plugin: Any
) -> None:
    data = f"data={rows_file('completion')}"
    installed_plugin("rounds", SAMPLER)
    refused = runner("profile", "--plugin", "rounds", data)
    refused.assert_failed("rounds.*makes its data in rounds", code="ONLY-IN-ROUNDS")
    installed_plugin(
        "answers", "from llmfw import Plugin\nclass Toy(Plugin): pass\n", card='verbs = ["generate"]'
    )
    runner("profile", "--plugin", "answers", data).assert_failed("llmfw generate", code="NOTHING-TO-FIT")
    runner("profile", data, "trainer.devices=2").assert_failed(code="PROFILE-DEVICES")
    runner("profile", data, "trainer.max_steps=0").assert_failed(code="NOTHING-TO-PROFILE")
    runner("profile", "data=absent.jsonl").assert_failed("absent.jsonl")
    runner("profile", data, "--steps=0").assert_failed(code="USAGE")
    assert not (runner.folder / "profile").exists()
