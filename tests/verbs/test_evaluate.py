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
    evaluated = json.loads(said(evaluate.command, ["--json", *settings], capsys))
    assert evaluated == {"validation": validated, "metrics": {}, "tables": {}}


def test_without_json_it_is_a_table(settings, capsys):
    assert "loss" in said(validate.command, settings, capsys)


@pytest.mark.parametrize("verb", [validate, evaluate])
def test_where_nothing_is_held_out_it_says_so(verb, settings, capsys):
    with pytest.raises(DataError, match=r"held out.*data\.validation"):
        said(verb.command, [*settings, "data.validation=null"], capsys)


def test_an_estimate_is_printed_with_its_interval_and_number(capsys):
    print_metrics("t", {"accuracy": Estimate(value=0.5, low=0.25, high=0.75, n=12), "plain": 1.0})
    out = capsys.readouterr().out
    assert "0.25 to 0.75" in out and "12" in out and "plain" in out


def test_long_texts_of_a_table_are_cut_and_markup_in_them_is_plain_text(capsys):
    print_rows("t", [{"answer": "[red]x[/red] " + "y" * 200, "tokens": 3}])
    out = capsys.readouterr().out
    assert "[red]" in out and "…" in out and "y" * 100 not in out
