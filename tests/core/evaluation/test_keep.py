"""Where ``llmfw evaluate`` keeps what it measured, and what ``compare`` makes of it."""

from __future__ import annotations

import contextlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import llmfw
from llmfw.core.evaluation import keep
from llmfw.core.tracking import open_run, read_journal, read_record
from llmfw.core.tracking.comparison import Comparison, compare
from llmfw.core.tracking.pick import named_run, pick_runs
from llmfw.core.tracking.terminal import chosen, tables
from tests.core.evaluation.conftest import ROWS

QUIET = ("trainer.progress=false", "tracking.mlflow=false")
DATA = ("data=rows.jsonl", "data.validation=0.3", "generation.max_new_tokens=6")
METRICS = ("evaluation.metrics=[perplexity,exact_match]", "evaluation.samples=4")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of two steps with a checkpoint at each."""
    place = tmp_path_factory.mktemp("trained")
    with contextlib.chdir(place):
        Path("rows.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in ROWS))
        llmfw.fit(
            "model=tiny-llama", *DATA, *QUIET, "trainer.max_steps=2", "checkpoint.every=1", "run.dir=run"
        )
    return place / "run"


@pytest.fixture
def run(here: Path, trained: Path) -> Path:
    """A copy of it."""
    shutil.copytree(trained, here / "runs" / "a")
    return here / "runs" / "a"


def measured(*words: str) -> llmfw.EvaluateResult:
    return llmfw.evaluate(*words, *METRICS, *QUIET, save=True)


def test_a_run_is_measured_by_its_own_evaluations(here: Path):
    Path("rows.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in ROWS))
    asked = ("evaluation.metrics=[perplexity,exact_match]", "evaluation.samples=3", "evaluation.when=[end]")
    trained = llmfw.fit("model=tiny-llama", *DATA, *QUIET, *asked, "trainer.max_steps=1", "run.dir=run")
    told = llmfw.evaluate("model=run", *QUIET)
    assert told.metrics.keys() == trained.after.keys() and "exact_match" in told.metrics
    again = told.metrics["perplexity"].value
    assert again == pytest.approx(trained.after["perplexity"].value, rel=1e-5)


def found(*names: str) -> Comparison:
    return compare(pick_runs(names)[0])


def row(comparison: Comparison, name: str) -> tuple[float | None, ...]:
    (metric,) = [metric for metric in comparison.metrics if metric.name == name]
    return metric.final


def entries(run: Path) -> list[dict[str, Any]]:
    found = [json.loads(path.read_text()) for path in (run / "evaluations").glob("*.json")]
    return sorted(found, key=lambda entry: entry["time"])


def test_what_is_measured_of_a_run_lies_in_its_folder_and_journal_and_leaves_its_status(run: Path):
    before, status = read_journal(run / "journal.jsonl"), read_record(run)
    told = measured("model=runs/a")
    assert told.kept is not None and told.kept.resolve() == run.resolve()
    (entry,) = entries(run)
    assert (entry["weights"], entry["step"], entry["changed"], entry["stage"]) == ("final", 2, {}, "evaluate")
    assert entry["metrics"]["exact_match/n"] == 4 and len(entry["tables"]["answers"]) == 4
    view = read_journal(run / "journal.jsonl")
    assert view.series["evaluate/loss"] == [(2, told.validation["loss"])]
    assert view.series["evaluate/perplexity"][0][1] == told.metrics["perplexity"].value  # type: ignore[union-attr]
    assert view.series["validation/loss"] == before.series["validation/loss"] and not view.damaged
    assert read_record(run) == status and view.last_step == before.last_step
    assert (run / "tables" / "answers-evaluate.json").is_file()


def test_compare_shows_it_beside_a_model_that_was_never_trained(run: Path):
    own = measured("model=runs/a")
    base = measured("model=tiny-llama", *DATA)
    assert base.kept is not None and base.kept.name.endswith("-evaluate-tiny-llama")
    assert read_record(base.kept).verb == "evaluate" and read_record(base.kept).status == "FINISHED"
    both = found()  # what a plain `llmfw compare` picks
    assert [side.record.verb for side in both.sides] == ["fit", "evaluate"]
    assert row(both, "evaluate/loss") == (own.validation["loss"], base.validation["loss"])
    perplexity = next(metric for metric in both.metrics if metric.name == "evaluate/perplexity")
    assert perplexity.direction == "min" and perplexity.low[0] is not None and perplexity.delta[1] is not None
    assert perplexity in chosen(both)
    assert not any(item.key.startswith(("trainer.", "evaluation.")) for item in both.settings)
    assert not any("different" in caution for caution in both.cautions)
    assert any(
        note.startswith("A was measured at") and "final on rows.jsonl" in note for note in both.afterwards
    )
    told = json.loads(json.dumps(both.to_dict()))
    assert told["runs"][1]["verb"] == "evaluate" and told["runs"][0]["evaluations"][0]["weights"] == "final"
    assert len(list(tables(both, chosen(both)))) > 4


def test_equal_measurements_are_all_kept_and_the_newest_is_shown_and_said(run: Path, monkeypatch):
    measured("model=runs/a")
    before = found("a")
    measured("model=runs/a")
    assert len(entries(run)) == 2
    after = found("a")
    assert row(after, "evaluate/loss") == row(before, "evaluate/loss")
    assert [note for note in after.afterwards if "the newest of 2 equal measurements" in note]


def test_other_settings_make_rows_of_their_own_that_say_which(run: Path):
    measured("model=runs/a")
    measured("model=runs/a", "generation.max_new_tokens=3")
    other = found("a")
    names = {metric.name for metric in other.metrics}
    assert {"evaluate/perplexity [1]", "evaluate/perplexity [2]", "evaluate/exact_match [2]"} <= names
    assert any("generation.max_new_tokens=3" in note for note in other.afterwards)
    assert "[2] means generation.max_new_tokens 3" in other.afterwards
    stages = [entry["stage"] for entry in entries(run)]
    assert stages[0] == "evaluate" and stages[1].startswith("evaluate-")
    assert f"{stages[1]}/perplexity" in read_journal(run / "journal.jsonl").series


def test_a_checkpoint_is_a_row_of_its_own(run: Path):
    measured("model=runs/a")
    measured("model=runs/a/checkpoints/step-00000001")
    names = {metric.name for metric in found("a").metrics}
    assert {"evaluate/loss", "evaluate/loss at step 1"} <= names


def test_a_run_that_another_process_works_on_is_measured_and_not_touched(run: Path, capsys):
    with open_run(name="a", folder=run, resume=True):
        told = measured("model=runs/a")
    said = capsys.readouterr().err
    assert told.kept is None and told.validation["loss"] > 0
    assert "is being worked on" in said and "can't keep what was measured" in said
    assert not (run / "evaluations").exists()
    assert not any(name.startswith("evaluate") for name in read_journal(run / "journal.jsonl").series)


def test_a_run_that_can_not_be_written_is_measured_all_the_same(run: Path, monkeypatch, capsys):
    def refuse(path: Path, tries: int = 1) -> int:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(keep, "try_lock", refuse)
    assert measured("model=runs/a").kept is None
    assert "can't keep what was measured (Permission denied)" in capsys.readouterr().err


def test_a_folder_or_name_of_ones_own_makes_a_run_of_its_own_also_of_a_runs_weights(run: Path):
    told = measured("model=runs/a", "run.dir=elsewhere")
    assert told.kept == Path("elsewhere") and not (run / "evaluations").exists()
    assert named_run("elsewhere").verb == "evaluate"
    assert entries(Path("elsewhere"))[0]["metrics"]["loss"] == told.validation["loss"]


def test_without_save_nothing_is_written(run: Path):
    before = sorted(path for path in Path().rglob("*"))
    llmfw.evaluate("model=runs/a", *METRICS, *QUIET)
    assert sorted(path for path in Path().rglob("*")) == before


def test_a_resumed_run_forgets_what_was_measured_of_later_steps(run: Path):
    measured("model=runs/a")
    with open_run(name="a", folder=run, resume=True) as owned:
        owned.journal.rewind(1)
    assert "evaluate/loss" not in read_journal(run / "journal.jsonl").series
