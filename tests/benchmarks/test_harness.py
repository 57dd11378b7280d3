"""What is made of what sides told; and our own sides, each a real process on the same files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks import dpo_step, flops, harness, record, sft_step, tasks
from benchmarks.harness import Side, Task

QUIET = dpo_step.QUIET


def test_rates_count_real_tokens_of_the_timed_steps_alone(pairs: Task, told):
    """The four pairs have 2 * prompt + both answers: 31, 18, 20 and 36 tokens; two steps of half a second."""
    assert pairs.tokens == 31 + 18 + 20 + 36
    assert told(pairs, "ours", 0.5).rates == [pytest.approx(105.0)]


def test_the_ratio_of_speeds_is_that_of_the_medians(pairs: Task, told):
    found = harness.speed_row(
        "case", told(pairs, "ours", 0.5, 1.0, 0.25), told(pairs, "peer", 1.0, 1.0, 4.0), goal=("at least", 2)
    )
    assert found["ratio"] == pytest.approx(2.0) and found["met"] and found["repetitions"] == 3
    assert found["ours_spread"] == [pytest.approx(52.5), pytest.approx(210.0)]
    assert found["ours_step_seconds"] == 0.5 and found["peer_step_seconds"] == 1.0


def test_memory_is_compared_where_it_counts(pairs: Task, told):
    small, large = told(pairs, "ours", 1.0), told(pairs, "peer", 1.0, peak_gib=6.0)
    assert harness.memory_row("case", small, large, goal=("at most", 0.25))["met"]
    on_gpu = replace(pairs, device="cuda")
    with_gpu = told(on_gpu, "ours", 1.0, gpu_gib=8.0), told(on_gpu, "peer", 1.0, gpu_gib=4.0)
    assert harness.memory_row("case", *with_gpu)["ratio"] == 2.0


def test_differences_are_relative_and_held_against_their_bounds(pairs: Task, told):
    mine = told(pairs, "ours", 1.0)
    theirs = told(pairs, "peer", 1.0, losses=[0.7, 0.5, 0.5], grad_norm=2.0001)
    loss, gradient = harness.difference_rows("case", mine, theirs, loss=1e-4, gradient=1e-3)
    assert loss["judged"] == pytest.approx(0.1 / 0.6) and not loss["met"]
    assert gradient["judged"] == pytest.approx(5e-5, rel=1e-3) and gradient["met"]


def test_the_roofline_is_the_useful_work_over_the_machines_own_rate(pairs: Task, told):
    """Two steps of half a second for 30 GFLOP at 60 GFLOP/s: a half. The peer takes twice as long."""
    found = harness.roofline_row(
        "case", told(pairs, "ours", 0.5), [59e9, 60e9, 61e9], 30e9, told(pairs, "peer", 1.0)
    )
    assert found["ours"] == pytest.approx(0.5) and found["peer"] == pytest.approx(0.25)
    assert found["gemm_gflops"] == 60.0 and found["useful_gflop"] == 30.0


def test_the_flop_ratio_counts_padded_rows_against_the_layout_that_was_run(pairs: Task, told):
    live = told(pairs, "ours", 1.0)
    shape = flops.shape_of(pairs.model)
    ours = 2 * flops.training(shape, flops.Work(20, 60, 10), reference=True, logits_again=True)
    theirs = sum(
        flops.training(
            shape, flops.padded(step, 2, all_logits=True), reference=True, logits_again=True
        )
        for step in pairs.timed
    )  # fmt: skip
    assert dpo_step.flop_ratio(pairs, live) == pytest.approx(theirs / ours)


def test_a_dpo_case_has_the_rows_that_its_goals_ask_for(pairs: Task, told):
    mine = (dpo_step.INSTALLED, dpo_step.LIVE, dpo_step.RECOMPUTED)
    found = {side.name: told(pairs, side.name, 0.5) for side in mine}
    peers = (dpo_step.TRL_LIVE, dpo_step.TRL_CACHED, dpo_step.TRL_CHECKPOINTED)
    found |= {side.name: told(pairs, side.name, 2.0, peak_gib=4.0) for side in peers}
    rows = dpo_step.rows_of(dpo_step.CASES["ragged"], pairs, found, [60e9])
    by_case = {row["case"]: row for row in rows}
    assert len(by_case) == len(rows)
    installed = by_case["CHAMP pairs, ragged: as installed"]
    assert installed["ratio"] == pytest.approx(4.0) and installed["met"]
    assert installed["ours_reference_seconds"] == 0.25
    memory = by_case["CHAMP pairs, ragged: peak memory, as installed"]
    assert memory["ratio"] == pytest.approx(0.375) and memory["met"]
    beyond = by_case["CHAMP pairs, ragged: memory beyond what was loaded before step 1"]
    assert (beyond["ours"], beyond["peer"]) == (0.5, 3.0)
    rows = dpo_step.rows_of(dpo_step.CASES["prompt"], pairs, found, [60e9])
    (equal,) = [row for row in rows if row["goal"] == 0.9]
    assert equal["ours"] == pytest.approx(4.0 / equal["flop_ratio"]) and equal["speed_ratio"] == 4.0


def test_the_overhead_is_met_within_a_percent_or_within_its_interval(texts: Task, told):
    """Pairs of 1.02 and 1.00, 0.99 and 1.00, 1.03 and 1.00: 2% at the median, an interval around 0."""
    raw = told(texts, "raw", 1.0, 1.0, 1.0)
    noisy = sft_step.overhead_row(told(texts, "ours", 1.02, 0.99, 1.03), raw)
    assert noisy["judged"] == pytest.approx(0.02) and noisy["inside_interval"] and noisy["met"]
    slow = sft_step.overhead_row(told(texts, "ours", 1.05, 1.051, 1.049), raw)
    assert slow["judged"] == pytest.approx(0.05) and not slow["inside_interval"] and not slow["met"]
    assert slow["interval"][0] == pytest.approx(0.0475, abs=1e-3)
    once = sft_step.overhead_row(told(texts, "ours", 1.05), told(texts, "raw", 1.0))
    assert once["interval"] == [None, None] and not once["met"]


def test_the_packed_case_is_held_against_every_side_and_its_goal(texts: Task, told):
    names = [side.name for side in sft_step.CASES["packed"]]
    found = {name: told(texts, name, 1.0) for name in names[1:]} | {names[0]: told(texts, names[0], 0.5)}
    rows = sft_step.rows_of("packed", texts, found, [60e9])
    assert len({row["case"] for row in rows}) == len(rows)
    assert {row["peer_name"] for row in rows} == set(names[1:])
    (goal,) = [row for row in rows if row["goal"] == 1.8]
    assert goal["peer_name"] == "llmfw, padded" and goal["ratio"] == pytest.approx(2.0) and goal["met"]
    few = {name: found[name] for name in ("llmfw, packed", "llmfw, padded")}
    grouped = sft_step.rows_of("grouped", texts, few, [60e9])
    assert [row["goal"] for row in grouped if row["unit"] == "tokens/s"] == [None]
    assert rows[-1]["kind"] == grouped[-1]["kind"] == "roofline"


def test_champs_pairs_are_cut_and_keep_their_prompts_apart():
    pairs = tasks.champ_pairs(4, longest=200)
    assert len(pairs) == 4
    for pair in pairs:
        lengths = flops.lengths(pair)
        assert max(lengths) <= 200 and min(len(pair[key]) for key in pair) > 0
    assert any(max(flops.lengths(pair)) == 200 for pair in pairs)


def test_a_warm_up_is_the_first_step_again_or_all_of_them():
    samples: list[dict[str, Any]] = [{"ids": [number], "trained": [0]} for number in range(4)]
    assert tasks.in_steps(samples, 2, warmup=2) == [samples[:2]] * 3 + [samples[2:]]
    assert tasks.in_steps(samples, 2, warmup=None) == [samples[:2], samples[2:]] * 2
    with pytest.raises(ValueError, match="can't be dealt out"):
        tasks.in_steps(samples, 3)


def test_a_side_that_fails_says_why(texts: Task, tmp_path: Path, tiny: Path):
    texts = replace(texts, model=tiny)
    broken = Side(name="ours", program="ours", settings=("no.such_key=1",))
    with pytest.raises(RuntimeError, match="no.such_key"):
        harness.run(broken, texts, tmp_path)


@pytest.mark.slow
def test_our_side_and_the_raw_loop_take_the_same_steps(texts: Task, tiny: Path):
    texts = replace(texts, model=tiny)
    ours = Side(name="ours", program="ours", settings=(*sft_step.QUIET, "trainer.layout=padded"))
    packed = Side(name="packed", program="ours", settings=(*sft_step.QUIET, "trainer.layout=packed"))
    found, rates = harness.interleave(texts, (ours, packed, sft_step.RAW), 1, gemm_size=64)
    assert len(rates) == 2 and min(rates) > 1e6
    runs = {name: one.runs[0] for name, one in found.items()}
    for name, run in runs.items():
        assert len(run["losses"]) == 3 and len(run["seconds"]) == 2, name
        assert run["losses"] == pytest.approx(runs["raw torch loop"]["losses"], rel=1e-6)
        assert run["grad_norm"] == pytest.approx(runs["raw torch loop"]["grad_norm"], rel=1e-5)
        assert 0.1 < run["loaded_gib"] <= run["peak_gib"] and run["first_step_seconds"] > 0
    assert [step["positions"] for step in runs["ours"]["steps"]] == [28, 28, 40]
    assert [step["positions"] for step in runs["packed"]["steps"]] == [23, 23, 27]
    assert [step["logits"] for step in runs["packed"]["steps"]] == [16, 16, 19]
    assert {layout for step in runs["packed"]["steps"] for layout in step["layouts"]} == {"packed"}


@pytest.mark.slow
def test_our_layouts_and_references_take_the_same_dpo_steps(pairs: Task, tmp_path: Path, tiny: Path):
    """Padded, a step has 4 rows of 17 or 21 tokens; a shared prompt leaves no work but what is needed."""
    pairs = replace(pairs, model=tiny)
    runs = {
        settings: harness.run(
            Side(name="-".join(settings), program="ours", plugins=("dpo",), settings=(*QUIET, *keys)),
            pairs, tmp_path,
        )
        for settings, keys in {
            ("padded", "live"): ("trainer.layout=padded", "trainer.reference=copy"),
            ("shared", "live"): ("trainer.layout=shared_prompt", "trainer.reference=copy"),
            ("shared", "cached"): ("trainer.layout=shared_prompt", "trainer.reference=cache"),
        }.items()
    }  # fmt: skip
    first = runs["padded", "live"]
    for run in runs.values():
        assert run["losses"] == pytest.approx(first["losses"], rel=1e-5)
        assert run["grad_norm"] == pytest.approx(first["grad_norm"], rel=1e-4)
    assert runs["shared", "cached"]["reference_seconds"] > 0
    assert "reference_seconds" not in first
    assert [step["positions"] for step in first["steps"]] == [4 * 17, 4 * 17, 4 * 21]
    shared = runs["shared", "live"]["steps"]
    needed = [flops.needed(step) for step in pairs.batches]
    assert [flops.Work(s["positions"], s["pairs"], s["logits"]) for s in shared] == needed
    assert harness.spent(
        harness.Measured(Side(name="ours", program="ours"), pairs, [runs["shared", "live"]]),
        reference=True, logits_again=False,
    ) == pytest.approx(harness.useful(pairs, reference=True))  # fmt: skip


def made(name: str) -> None:
    if record.environment(name) is None:
        pytest.skip(f"the environment of {name} isn't made: python -m benchmarks.sft_step")


@pytest.mark.peers
@pytest.mark.slow
@pytest.mark.parametrize(
    "settings", [{}, {"precompute_ref_log_probs": True}, {"gradient_checkpointing": True}]
)
def test_trl_takes_the_same_dpo_steps(pairs: Task, tmp_path: Path, tiny: Path, settings: dict[str, Any]):
    made("trl")
    pairs = replace(pairs, model=tiny)
    theirs = harness.run(dpo_step.trl("trl", **settings), pairs, tmp_path)
    live = Side(name="ours", program="ours", plugins=("dpo",), settings=(*QUIET, "trainer.reference=copy"))
    ours = harness.run(live, pairs, tmp_path)
    assert theirs["losses"] == pytest.approx(ours["losses"], rel=1e-5)
    assert theirs["grad_norm"] == pytest.approx(ours["grad_norm"], rel=1e-4)
    assert ("reference_seconds" in theirs) == bool(settings.get("precompute_ref_log_probs"))


@pytest.mark.peers
@pytest.mark.slow
@pytest.mark.parametrize(
    "side", [sft_step.TRL, sft_step.TRL_FREE, sft_step.LITGPT], ids=lambda side: side.name
)
def test_peers_take_the_raw_loops_steps(texts: Task, tmp_path: Path, tiny: Path, side: Side):
    """LitGPT clips nothing and ties nothing: its first loss alone is the raw loop's."""
    made(str(side.environment))
    texts = replace(texts, model=tiny)
    theirs, raw = harness.run(side, texts, tmp_path), harness.run(sft_step.RAW, texts, tmp_path)
    assert len(theirs["seconds"]) == 2 and len(theirs["losses"]) == 3
    assert theirs["losses"][0] == pytest.approx(raw["losses"][0], rel=1e-6)
    if side is not sft_step.LITGPT:
        assert theirs["losses"] == pytest.approx(raw["losses"], rel=1e-5)
        assert theirs["grad_norm"] == pytest.approx(raw["grad_norm"], rel=1e-4)
