"""Comparing runs: what differs, what came out, and what speaks against it."""

from __future__ import annotations

import io
import json
import math
from pathlib import Path

import pytest
from rich.console import Console

from llmfw.core.errors import UsageError
from llmfw.core.tracking import compare, list_runs, pick_runs, update_record
from llmfw.core.tracking.comparison import Comparison, Metric, direction
from llmfw.core.tracking.report import side_by_side
from llmfw.core.tracking.terminal import chosen, duration, number, signed, tables
from tests.core.tracking.making import DATA, make_run


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    return tmp_path / "runs"


def metric(found: Comparison, name: str) -> Metric:
    return next(item for item in found.metrics if item.name == name)


def printed(found: Comparison, width: int = 160) -> str:
    console = Console(file=io.StringIO(), width=width)
    for part in tables(found, chosen(found)):
        console.print(part)
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_only_settings_that_differ_are_listed_and_where_the_run_lives_is_none_of_them(runs: Path) -> None:
    make_run(runs, "a", config={**DATA, "run.name": "a", "tracking.uri": None})
    make_run(
        runs, "b", config={**DATA, "run.name": "b", "tracking.uri": "x", "ld_dpo.alpha": 1.0, "dpo.beta": 0.1}
    )
    found = compare(list_runs(runs))
    assert [(item.key, item.values) for item in found.settings] == [
        ("dpo.beta", (None, 0.1)),
        ("ld_dpo.alpha", (0.5, 1.0)),
    ]


def test_the_oldest_run_is_the_baseline_and_deltas_are_final_minus_its_final(runs: Path) -> None:
    """Losses end at 0.5 and 0.375: the delta is -0.125."""
    make_run(runs, "old", series={"loss": [(1, 0.75), (2, 0.5)]})
    make_run(runs, "new", series={"loss": [(1, 0.75), (2, 0.375)]})
    found = compare(list_runs(runs))
    assert [side.record.name for side in found.sides] == ["old", "new"]
    assert found.baseline == 0
    loss = metric(found, "loss")
    assert loss.delta == (None, -0.125)
    assert loss.first == (0.75, 0.75)
    other = compare(list_runs(runs), baseline=found.sides[1].record)
    assert metric(other, "loss").delta == (0.125, None)


def test_the_best_value_follows_the_direction_and_ignores_what_is_not_finite(runs: Path) -> None:
    points = [(1, 3.0), (2, 1.0), (3, math.nan), (4, -math.inf), (5, 2.0), (6, 1.0)]
    make_run(runs, "a", series={"loss": points, "rewards/margins": points, "lr": points})
    found = compare(list_runs(runs))
    assert metric(found, "loss").best == ((1.0, 2),)
    assert metric(found, "rewards/margins").best == ((3.0, 1),)
    assert metric(found, "lr").best == (None,)


@pytest.mark.parametrize(
    ("name", "better"),
    [
        ("loss", "min"),
        ("validation/loss", "min"),
        ("aux_loss", "min"),
        ("end/perplexity", "min"),
        ("error_rate", "min"),
        ("rewards/accuracies", "max"),
        ("rewards/accuracies/rejected_longer", "max"),
        ("end/exact_match", "max"),
        ("rewards_weighted/margins", "max"),
        ("end/pass@1", "max"),
        ("math_accuracy", "max"),
        ("rougeL", "max"),
        ("rewards/chosen", None),
        ("logps/chosen", None),
        ("lr", None),
        ("grad_norm", None),
        ("length/margin_correlation", None),
        ("rewards/accuracies/n", None),
        ("lossless", None),
        ("generated/length_mean", None),
    ],
)
def test_the_direction_is_read_off_the_name(name: str, better: str | None) -> None:
    assert direction(name) == better


def test_estimates_are_one_row_with_interval_and_sample_size(runs: Path) -> None:
    name = "validation/rewards/accuracies"
    make_run(
        runs,
        "a",
        series={
            name: [(9, 0.5)],
            f"{name}/low": [(9, 0.25)],
            f"{name}/high": [(9, 0.75)],
            f"{name}/n": [(9, 40.0)],
        },
    )
    found = compare(list_runs(runs))
    assert [item.name for item in found.metrics] == [name]
    row = metric(found, name)
    assert (row.low, row.high, row.count) == ((0.25,), (0.75,), (40.0,))
    assert "0.5 [0.25, 0.75] n=40" in printed(found)


def test_values_before_training_stand_in_the_row_of_those_after_it(runs: Path) -> None:
    make_run(
        runs,
        "a",
        series={"start/generated/length_mean": [(0, 200.0)], "end/generated/length_mean": [(8, 150.0)]},
    )
    found = compare(list_runs(runs))
    assert [item.name for item in found.metrics] == ["end/generated/length_mean"]
    assert metric(found, "end/generated/length_mean").first == (200.0,)
    assert "200 → 150" in printed(found)


def test_a_metric_that_one_run_lacks_is_a_dash_and_has_no_delta(runs: Path) -> None:
    make_run(runs, "a", series={"loss": [(1, 1.0)]})
    make_run(runs, "b", series={"loss": [(1, 1.0)], "other_loss": [(1, 2.0)]})
    row = metric(compare(list_runs(runs)), "other_loss")
    assert row.final == (None, 2.0)
    assert row.delta == (None, None)


def test_equal_numbers_are_said_to_be_equal_bit_for_bit(runs: Path) -> None:
    """The neutral setting's claim: c differs from a in the last bit of one value."""
    points = [(1, 0.7), (2, 0.1 + 0.2)]
    make_run(runs, "a", series={"loss": points, "time/step": [(1, 5.0)]})
    make_run(runs, "b", series={"loss": points, "rewards": points, "time/step": [(1, 6.0)]})
    make_run(runs, "c", series={"loss": [(1, 0.7), (2, 0.3)]})
    found = compare(list_runs(runs))
    assert found.twins == (None, "A", None)
    assert "same numbers as A, bit for bit" in printed(found)


def test_versions_plugins_and_commits_that_differ_are_listed(runs: Path) -> None:
    records = [make_run(runs, "a"), make_run(runs, "b", plugins={"ld_dpo": "llmfw 0.2.0"})]
    path = records[1].dir / "environment.json"
    facts = json.loads(path.read_text())
    facts["packages"]["torch"] = "9.9"
    facts["packages"]["zzz"] = "1.0"
    facts["git"] = {"commit": "f" * 40, "dirty": True}
    path.write_text(json.dumps(facts))
    found = {item.key: item.values for item in compare(records).versions}
    assert found["ld_dpo"] == ("llmfw 0.1.0", "llmfw 0.2.0")
    assert found["torch"][1] == "9.9"
    assert found["zzz"] == (None, "1.0")
    assert found["commit"][1] == "ffffffffffff"
    assert list(found).index("torch") < list(found).index("zzz")


def said(runs: Path) -> str:
    return "\n".join(compare(list_runs(runs)).cautions)


def test_runs_that_are_alike_but_for_the_plugins_setting_get_the_caution_of_one_seed_only(runs: Path) -> None:
    make_run(runs, "a", config={**DATA, "optimizer.lr": 1})
    make_run(runs, "b", config={**DATA, "optimizer.lr": 2})
    assert said(runs) == "one seed each: repeat with other seeds before you call a small difference an effect"


@pytest.mark.parametrize(
    ("change", "caution"),
    [
        ({"data": "other"}, "different data (its settings are the same, so a file has changed)"),
        ({"data": "other", "config": {**DATA, "data.limit": 5}}, "different data (see the settings)"),
        ({"config": {**DATA, "seed": 2}}, "the seeds differ"),
        ({"config": {**DATA, "model.name": "large"}}, "different models"),
        ({"series": {"loss": [(1, 0.7)]}}, "different numbers of steps (A 2, B 1)"),
        ({"status": "FAILED"}, "B is FAILED"),
        ({"status": "KILLED"}, "B is KILLED"),
        ({"plugins": {"dpo": "llmfw 0.1.0"}}, "losses belong to different plugins"),
        ({"config": {**DATA, "ld_dpo.alpha": 1.0}}, "ld_dpo.alpha may change what the loss measures"),
        (
            {"fingerprint": "a", "series": {"loss": [(1, 0.7), (2, 0.6)]}},
            "A and B have the same settings, but not the same numbers",
        ),
    ],
)
def test_what_speaks_against_a_comparison_is_said(runs: Path, change: dict, caution: str) -> None:
    make_run(runs, "a")
    make_run(runs, "b", **change)
    assert caution in said(runs)
    assert caution in " ".join(printed(compare(list_runs(runs))).split())


def test_a_damaged_line_is_told(runs: Path) -> None:
    record = make_run(runs, "a")
    record.journal.write_bytes(record.journal.read_bytes() + b"\x00\x00\n")
    assert "A: 1 lines of its journal are damaged" in said(runs)


def test_markup_in_names_and_values_is_shown_as_it_is(runs: Path) -> None:
    make_run(runs, "[red]x[/red] [/nonsense]", config={**DATA, "a": "[bold]"})
    make_run(runs, "b", config={**DATA, "a": "[/bold]"})
    text = printed(compare(list_runs(runs)), width=250)
    assert "[red]x[/red] [/nonsense]" in text
    assert "[/bold]" in text


def test_json_holds_everything_as_plain_json(runs: Path) -> None:
    make_run(runs, "a", series={"loss": [(1, 1.0), (2, math.nan)]})
    make_run(runs, "b", series={"loss": [(1, math.inf)]})
    text = json.dumps(compare(list_runs(runs)).to_dict(), allow_nan=False)
    held = json.loads(text)
    assert held["metrics"][0]["final"] == ["NaN", "Infinity"]
    assert held["baseline"] == "A"
    assert [run["name"] for run in held["runs"]] == ["a", "b"]


def test_runs_without_plan_environment_or_with_spoilt_files_can_be_compared(runs: Path) -> None:
    record = make_run(runs, "a", tables={"good": [{"x": 1}]})
    (record.dir / "plan.json").write_text("[1, 2")
    (record.dir / "environment.json").write_text('{"packages": 3, "hardware": [], "git": "x"}')
    (record.dir / "tables" / "bad.json").write_text("{")
    (record.dir / "tables" / "odd.json").write_text('{"a": 1}')
    make_run(runs, "b")
    side = compare(list_runs(runs)).sides[0]
    assert side.plugins == {"ld_dpo": ""}
    assert side.tables["bad"] == [{"note": "this file is damaged"}]
    assert "odd" not in side.tables


def test_no_run_and_too_many_runs_are_refused(runs: Path) -> None:
    with pytest.raises(UsageError, match="no run to compare"):
        compare([])
    for index in range(21):
        make_run(runs, f"r{index}")
    with pytest.raises(UsageError, match="21 runs"):
        compare(list_runs(runs))


def test_without_a_wish_the_newest_that_share_the_newest_ones_model_and_data_are_taken(runs: Path) -> None:
    make_run(runs, "other", config={**DATA, "data.name": "other.jsonl"})
    names = [f"r{index}" for index in range(7)]
    for name in names:
        make_run(runs, name)
    make_run(runs, "empty", series={"": []})
    going = make_run(runs, "going", config={**DATA, "data.name": "new"})
    update_record(going.dir, status="RUNNING", host="elsewhere", boot="elsewhere")
    found, left = pick_runs(runs=runs)
    assert [record.name for record in found] == names[:1:-1]
    assert left.startswith("4 more runs were left out")


def test_last_and_experiment_choose_whatever_was_trained(runs: Path) -> None:
    for name, place in (("a", "x"), ("b", "y"), ("c", "x")):
        make_run(runs, name, config={**DATA, "data.name": name, "tracking.experiment": place})
    assert [record.name for record in pick_runs(last=2, runs=runs)[0]] == ["c", "b"]
    assert [record.name for record in pick_runs(experiment="x", runs=runs)[0]] == ["c", "a"]
    with pytest.raises(UsageError, match="'z'"):
        pick_runs(experiment="z", runs=runs)
    with pytest.raises(UsageError, match="no run with values"):
        pick_runs(runs=runs / "nowhere")
    with pytest.raises(UsageError, match="one by one"):
        pick_runs(["a"], last=2, runs=runs)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1.0, "1"),
        (0.000123456, "0.0001235"),
        (12345.678, "1.235e+04"),
        (1234.0, "1234"),
        (-0.5, "-0.5"),
        (None, "–"),
        (math.nan, "NaN"),
        (math.inf, "∞"),
        (-math.inf, "-∞"),
        (1e300, "1e+300"),
    ],
)
def test_numbers_have_four_digits_that_count(value: float | None, text: str) -> None:
    assert number(value) == text


def test_differences_have_a_sign_and_times_are_read_easily() -> None:
    assert [signed(value) for value in (0.5, -0.25, 0.0)] == ["+0.5", "-0.25", "±0"]
    assert [duration(seconds) for seconds in (0.4, 61, 3661.2)] == ["0:00:00", "0:01:01", "1:01:01"]


def test_tables_of_equal_length_are_put_side_by_side() -> None:
    """The prompt is the same in both, the answer isn't."""
    one = [{"prompt": "p", "answer": "x"}, {"prompt": "q", "answer": "y"}]
    two = [{"prompt": "p", "answer": "x"}, {"prompt": "q", "answer": "z"}]
    assert side_by_side([("A", one), ("B", two)]) == (
        ["prompt", "answer · A", "answer · B"],
        [["p", "x", "x"], ["q", "y", "z"]],
    )
    assert side_by_side([("A", one), ("B", two[:1])]) == (
        ["run", "prompt", "answer"],
        [["A", "p", "x"], ["A", "q", "y"], ["B", "p", "x"]],
    )
