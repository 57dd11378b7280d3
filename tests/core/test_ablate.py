"""With and without a plugin: what stays the same, what goes, what stands in, and what can't be left out."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

import llmfw
from llmfw.core import failpoints
from llmfw.core.ablate import Ablation, Difference, _difference, ablate
from llmfw.core.errors import LlmfwError, UsageError
from llmfw.core.tracking import pick_runs, read_journal, read_record
from llmfw.core.tracking.comparison import compare
from llmfw.core.tracking.pick import natural_baseline
from tests.toys import installed, write_toy
from tests.toys.preference import PREFERENCE
from tests.toys.sources import CALLBACKS, LOSS, SERVICE, SURGERY, TRANSFORMS

TINY = ("model=tiny-llama", "trainer.progress=false", "tracking.mlflow=false", "adapter.kind=none",
        "trainer.max_steps=2", "trainer.micro_batch=2", "optimizer.lr=0.01")  # fmt: skip


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder with rows, pairs and toy plugins of several kinds."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LLMFW_CACHE", str(tmp_path / "cache"))
    rows = [{"id": f"r{i}", "prompt": f"say {i}", "completion": f"it is {i}"} for i in range(10)]
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    pairs = [
        {"id": f"p{i}", "prompt": f"say {i}", "chosen": f"it is {i}", "rejected": f"no, {i + 1}, I think"}
        for i in range(10)
    ]
    Path("pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in pairs))
    site = tmp_path / "site"
    write_toy(site, "shift", SURGERY, overlay="trainer: {micro_batch: 3}\noptimizer: {weight_decay: 0.25}\n")
    write_toy(site, "heavy", LOSS)
    write_toy(site, "order", TRANSFORMS)
    write_toy(site, "count", CALLBACKS)
    write_toy(site, "rater", SERVICE, card='kinds = ["service"]\noffers = ["Rater"]\n')
    write_toy(site, "needy", CALLBACKS, card='needs = ["Rater"]\n')
    write_toy(site, "answers", CALLBACKS, card='verbs = ["generate"]\n')
    write_toy(site, "base", PREFERENCE)
    write_toy(site, "bent", PREFERENCE.replace("twist", "bend"), card="""
        kinds = ["loss"]
        [neutral]
        baseline = "base"
        [neutral.settings]
        bend = 1.0
    """)  # fmt: skip
    write_toy(site, "alone", PREFERENCE, card='kinds = ["loss"]\n[neutral]\nbaseline = "nowhere"\n')
    with installed(site):
        yield tmp_path


def run(*words: str, **layers: object) -> Ablation:
    return ablate([*TINY, *words], **layers)  # type: ignore[arg-type]


def settings(result: llmfw.FitResult) -> dict[str, object]:
    return dict(read_journal(result.dir / "journal.jsonl").params)


def test_without_a_plugin_only_its_own_settings_are_gone():
    """Its defaults for the core's keys stay in force, the command line stands above them."""
    found = run("data=rows.jsonl", "shift.scale=0.5", plugins=["shift"])
    ours, theirs = (found.results[name][42] for name in ("with", "without"))
    apart = {
        key: (value, settings(theirs).get(key))
        for key, value in settings(ours).items()
        if settings(theirs).get(key) != value and not key.startswith("run.")
    }
    assert apart == {"plugins": (["shift"], []), "shift.scale": (0.5, None)}
    assert settings(theirs)["optimizer.weight_decay"] == 0.25 and settings(theirs)["trainer.micro_batch"] == 2
    assert found.same_order is True and "same samples in the same order" in found.order
    assert [part.name for part in found.parts] == ["surgery/shift"] and theirs.cost.parts == ()
    # a plain fit with the same words is the same run, bit for bit
    plain = llmfw.fit(*TINY, "data=rows.jsonl", "optimizer.weight_decay=0.25")
    assert plain.last["loss"] == theirs.last["loss"] != ours.last["loss"]


def test_the_children_are_nested_runs_and_the_parent_keeps_what_they_are_and_the_differences():
    found = run("data=rows.jsonl", plugins=["shift"])
    parent = read_record(found.dir)
    assert (parent.verb, parent.status, parent.plugins) == ("ablate", "FINISHED", ("shift",))
    for name in ("with", "without"):
        child = read_record(found.dir / name)
        assert child.parent == parent.id and child.name == name
    told = json.loads((found.dir / "ablation.json").read_text())
    assert [arm["runs"] for arm in told["arms"]] == [{"42": "with"}, {"42": "without"}]
    apart = {one.name: one for one in found.differences(found.arms[1])}
    ours, theirs = (found.results[name][42].last["loss"] for name in ("with", "without"))
    assert apart["loss"].difference.value == ours - theirs and math.isnan(apart["loss"].difference.low)
    assert read_journal(found.dir / "journal.jsonl").final("difference/loss") == ours - theirs


def test_the_baseline_that_the_card_names_stands_in_with_what_both_call_alike():
    """scale is a setting of both; bend is the one at which they become one, and the baseline has no such key.
    The reference's log-probs are computed once, for both.
    """
    found = run("data=pairs.jsonl", "bent.scale=3.0", plugins=["bent"])
    without = found.arms[1]
    assert (without.instead, without.plugins) == ("base", ["base"])
    told = settings(found.results["without"][42])
    assert (told["base.scale"], told["base.twist"], told["trainer.reference"]) == (3.0, 0.5, "cache")
    assert found.same_order is True
    # the two losses are one function here: equal to the last bit
    assert found.results["with"][42].last["loss"] == found.results["without"][42].last["loss"]
    assert any("another quantity" in caution for caution in found.cautions)


def test_of_several_plugins_each_is_left_out_in_turn():
    found = run("data=rows.jsonl", plugins=["shift", "heavy"])
    assert [(arm.name, arm.plugins) for arm in found.arms] == [
        ("with", ["shift", "heavy"]), ("without-shift", ["heavy"]), ("without-heavy", ["shift"]),
    ]  # fmt: skip
    final = {name: runs[42].last["loss"] for name, runs in found.results.items()}
    assert len(set(final.values())) == 3
    journal = read_journal(found.dir / "journal.jsonl")
    assert journal.final("difference/heavy/loss") == final["with"] - final["without-heavy"]


def test_several_seeds_give_an_interval_of_the_paired_differences():
    found = run("data=rows.jsonl", plugins=["shift"], seeds=(1, 2, 3))
    assert {run.dir.parent.name for run in found.results["with"].values()} == {"seed-1", "seed-2", "seed-3"}
    apart = next(one for one in found.differences(found.arms[1]) if one.name == "loss").difference
    assert apart is not None and apart.n == 3 and apart.low <= apart.value <= apart.high
    assert apart.low < apart.high and not [one for one in found.cautions if "one seed" in one]


def test_a_difference_is_worked_out_by_hand():
    """Differences 1, 2, 3: mean 2, standard error 1 / sqrt(3), t of 2 degrees of freedom 4.3027."""
    ours, theirs = ([{"x": value} for value in values] for values in ((2.0, 4.0, 6.0), (1.0, 2.0, 3.0)))
    found = _difference("x", ours, theirs)
    assert (found.with_it, found.without, found.difference.value) == (4.0, 2.0, 2.0)
    assert found.difference.high - 2 == pytest.approx(4.3027 / math.sqrt(3), rel=1e-4)
    lone = _difference("y", [{"y": 1.0}], [{}])
    assert lone == Difference(name="y", with_it=1.0, without=None, difference=None)


def test_small_differences_of_large_figures_keep_their_interval():
    """Differences 1e9, 1e9 + 1, 1e9 + 2: deviation 1, though their squares agree in every digit kept."""
    found = _difference("x", [{"x": 1e9 + extra} for extra in (0.0, 1.0, 2.0)], [{"x": 0.0}] * 3).difference
    assert found is not None and found.value == 1e9 + 1
    assert found.high - found.value == pytest.approx(4.3027 / math.sqrt(3), rel=1e-4)


def test_other_data_are_told():
    """The transform turns the order round and keeps 4 rows."""
    found = run("data=rows.jsonl", plugins=["order"])
    assert found.same_order is False and found.order in found.cautions and "different data" in found.order


def test_an_interrupted_ablation_goes_on_where_it_stood(monkeypatch: pytest.MonkeyPatch):
    """The second run fails at its first checkpoint; the first isn't trained again."""
    monkeypatch.setattr(failpoints, "_reached", Counter())
    monkeypatch.setenv("LLMFW_FAILPOINT", "train.mid_accum:3:raise")
    words = ("data=rows.jsonl", "run.dir=both", "trainer.accumulate=2")
    with pytest.raises(Exception, match="train.mid_accum"):
        run(*words, plugins=["shift"])
    assert read_record(Path("both")).status == "FAILED"
    assert read_record(Path("both/with")).status == "FINISHED"
    monkeypatch.delenv("LLMFW_FAILPOINT")
    before = Path("both/with/journal.jsonl").read_bytes()
    found = run(*words, plugins=["shift"], resume=True)
    assert Path("both/with/journal.jsonl").read_bytes() == before
    assert read_record(found.dir).status == "FINISHED" and found.same_order


@pytest.mark.parametrize(
    ("plugins", "code", "told"),
    [
        ([], "ABLATE", "--plugin NAME"),
        (["answers"], "ABLATE", "llmfw generate --plugin answers"),
        (["alone"], "LOSS-DATA", "without plugin 'alone'"),
    ],
)
def test_what_can_not_be_left_out_is_refused_before_anything_runs(plugins: list[str], code: str, told: str):
    data = "pairs.jsonl" if plugins == ["alone"] else "rows.jsonl"
    with pytest.raises(LlmfwError) as caught:
        run(f"data={data}", plugins=plugins)
    assert caught.value.code == code and told in str(caught.value) and not Path("runs").exists()


def test_a_plugin_that_another_needs_is_not_left_out_alone():
    with pytest.raises(UsageError, match="needy needs what it offers") as caught:
        run("data=rows.jsonl", plugins=["rater", "needy"])
    assert caught.value.code == "ABLATE" and not Path("runs").exists()


def test_compare_puts_the_runs_side_by_side_against_the_one_without():
    found = run("data=rows.jsonl", plugins=["shift"])
    records, left_out = pick_runs([str(found.dir)])
    assert {record.name for record in records} == {"with", "without"} and left_out == ""
    baseline = natural_baseline([str(found.dir)])
    assert baseline is not None and baseline.name == "without"
    shown = compare(records, baseline)
    assert shown.sides[shown.baseline].record.name == "without"
    assert {item.key for item in shown.settings} == {"plugins", "shift.scale"}
    costs = {metric.name: metric for metric in shown.metrics if metric.name.startswith(("plugin/", "cost/"))}
    assert costs["cost/train_seconds"].direction == "min" and costs["plugin/shift/ms"].direction == "min"
    assert costs["cost/tokens"].direction is None
    assert all(best is None for metric in costs.values() for best in metric.best)
    # by itself it isn't listed, nor are its runs
    llmfw.fit(*TINY, "data=rows.jsonl", "run.name=alone")
    assert [record.name for record in pick_runs(last=5)[0]] == ["alone"]


def test_of_several_plugins_the_run_with_all_of_them_is_what_the_others_are_compared_with():
    found = run("data=rows.jsonl", plugins=["shift", "count"])
    baseline = natural_baseline([str(found.dir)])
    assert baseline is not None and baseline.name == "with" and natural_baseline([]) is None


def test_claims_that_were_run_again_stand_for_their_runs(tmp_path: Path):
    """An arm that is a function leaves no journal and isn't shown."""
    from llmfw.core.assemble import settle
    from llmfw.core.schema import TrackingConfig
    from llmfw.core.series import Child, note, open_series, run_child

    with open_series(
        verb="reproduce",
        name="claims",
        fingerprint="f",
        tracking=TrackingConfig(mlflow=False),
        folder=Path("claims"),
    ) as parent:
        run_child(parent, "seed-1/base", lambda *more: settle(overrides=[*TINY, "data=rows.jsonl", *more]))
        (parent.dir / "seed-1" / "function").mkdir()
        place = "seed-1/function"
        note(parent, Child(place=place, dir=parent.dir / place, status="FINISHED"))
    assert [record.name for record in pick_runs(["claims"])[0]] == ["base"]
