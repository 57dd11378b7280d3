"""``llmfw evaluate`` and ``validate`` over the random tiny model and rows of one's own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from llmfw.core.errors import DataError
from llmfw.core.records import Estimate
from llmfw.verbs import evaluate, validate
from llmfw.verbs.evaluate import print_metrics, print_rows

ROWS = [{"prompt": f"{n}+1", "completion": f"the sum is {n + 1}"} for n in range(6)]


@pytest.fixture
def settings(tmp_path: Path, monkeypatch) -> list[str]:
    monkeypatch.chdir(tmp_path)
    for name, rows in (("train", ROWS[:4]), ("held", ROWS[4:])):
        (tmp_path / f"{name}.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return ["model=tiny-llama", "data=train.jsonl", "data.validation=held.jsonl", "seed=5"]


def said(command, arguments: list[str], capsys) -> str:
    command.main(arguments, standalone_mode=False)
    return capsys.readouterr().out


def test_the_held_out_loss_is_the_mean_over_the_trained_tokens_of_held_out_rows(settings, capsys):
    from llmfw.core.data import Encoder
    from llmfw.core.generation import score_examples
    from llmfw.verbs.opening import open_model

    found = json.loads(said(validate.command, ["--json", *settings], capsys))
    opened = open_model("validate", {"overrides": settings})
    encoder = Encoder(opened.tokenizer, 500)
    examples = [encoder.encode("completion", {"id": row["prompt"], **row}) for row in ROWS[4:]]
    scores = [score for (score,) in score_examples(opened.policy, examples)]
    mean = -sum(score.logp for score in scores) / sum(score.tokens for score in scores)
    assert found["loss"] == pytest.approx(mean, abs=1e-4)


def test_evaluate_has_the_same_held_out_loss_and_a_place_for_evaluations(settings, capsys):
    validated = json.loads(said(validate.command, ["--json", *settings], capsys))
    evaluated = json.loads(said(evaluate.command, ["--json", "--no-save", *settings], capsys))
    assert {key: evaluated[key] for key in ("validation", "metrics", "tables", "kept", "model")} == {
        "validation": validated,
        "metrics": {},
        "tables": {},
        "kept": None,
        "model": "tiny-llama",
    }
    assert not Path("runs").exists()


def test_without_json_it_is_a_table(settings, capsys):
    assert "loss" in said(validate.command, settings, capsys)


@pytest.mark.parametrize("verb", [validate, evaluate])
def test_where_nothing_is_held_out_it_says_so(verb, settings, capsys):
    with pytest.raises(DataError, match=r"held out.*data\.validation"):
        said(verb.command, [*settings, "data.validation=null"], capsys)


def test_an_estimate_is_printed_with_its_interval_and_number(capsys):
    print_metrics("t", {"accuracy": Estimate(value=0.5, low=0.25, high=0.75, n=12), "plain": 1.0})
    estimated = capsys.readouterr().out
    assert "0.25 to 0.75" in estimated and "12" in estimated and "plain" in estimated
    flat = {"accuracy": 0.5, "accuracy/low": 0.25, "accuracy/high": 0.75, "accuracy/n": 12.0, "plain": 1.0}
    print_metrics("t", flat)
    assert capsys.readouterr().out == estimated


def test_long_texts_of_a_table_are_cut_and_markup_in_them_is_plain_text(capsys):
    print_rows("t", [{"answer": "[red]x[/red] " + "y" * 200, "tokens": 3}])
    out = capsys.readouterr().out
    assert "[red]" in out and "…" in out and "y" * 100 not in out


def test_a_runs_weights_are_measured_on_the_runs_own_data_with_its_plugins(
    tmp_path: Path, monkeypatch, capsys
):
    """What fit printed of the held-out pairs is what evaluate finds again, from the run's folder alone."""
    from llmfw.cli import run
    from llmfw.core.tracking import read_journal

    monkeypatch.chdir(tmp_path)
    pairs = [{"prompt": f"{n}+1?", "chosen": f"the sum is {n}", "rejected": "no"} for n in range(6)]
    (tmp_path / "pairs.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in pairs))
    trained = [
        "--plugin",
        "dpo",
        "model=tiny-llama",
        "data=pairs.jsonl",
        "data.validation=0.34",
        "dpo.beta=0.7",
        "trainer.max_steps=2",
        "optimizer.lr=0.01",
        "tracking.mlflow=false",
        "run.dir=runs/a",
        "generation.max_new_tokens=4",
    ]
    assert run(["fit", *trained]) == 0, capsys.readouterr().err
    capsys.readouterr()
    wanted = read_journal(tmp_path / "runs/a/journal.jsonl").series["validation/loss"][-1][1]
    for place in ("runs/a", "runs/a/final", "runs/a/checkpoints/step-00000002"):
        assert run(["validate", "--json", f"model={place}"]) == 0
        out, err = capsys.readouterr()
        assert json.loads(out)["loss"] == pytest.approx(wanted, abs=1e-5)
        assert "are those of run" in err
    assert run(["validate", "--json", "model=runs/a", "dpo.beta=0.1"]) == 0
    assert json.loads(capsys.readouterr().out)["loss"] != pytest.approx(wanted, abs=1e-4)
    assert (
        run(["evaluate", "model=runs/a", "data.validation=null", "--no-plugin", "dpo"]) == 2
    )  # pairs need a loss
