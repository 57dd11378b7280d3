"""Evaluations inside a training: moments, what is refused before weights are read, several processes."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

import llmfw
from llmfw.core.errors import DataError, LlmfwError, UsageError
from llmfw.core.tracking import read_journal

TINY = ("model=tiny-llama", "trainer.progress=false", "tracking.mlflow=false")
ROWS = ("data=rows.jsonl", "data.validation=0.3", "generation.max_new_tokens=4", "evaluation.samples=3")


def test_every_moment_has_its_values_and_the_answers_are_written_once_for_all_metrics(monkeypatch):
    from llmfw.core.evaluation import answers

    calls: list[int] = []
    real = answers.answered

    def counted(policy, asked, **options):
        calls.append(len(asked))
        return real(policy, asked, **options)

    monkeypatch.setattr(answers, "answered", counted)
    result = llmfw.fit(
        *TINY, *ROWS, "trainer.max_steps=4", "trainer.validate_every=2", "optimizer.lr=0.01",
        "evaluation.metrics=[perplexity,exact_match,rouge,bleu,chrf]",
        "evaluation.when=[start,validation,end]",
    )  # fmt: skip
    assert calls == [3, 3, 3]  # before step 1, at step 2, and at the end once for both moments
    series = read_journal(result.dir / "journal.jsonl").series
    steps = {
        name: [step for step, _ in series[f"{name}/perplexity"]] for name in ("start", "validation", "end")
    }
    assert steps == {"start": [0], "validation": [2, 4], "end": [4]}
    end = series["end/perplexity"][-1][1]
    assert end == series["validation/perplexity"][-1][1] < series["start/perplexity"][0][1]
    assert result.after["perplexity"].value == end and result.validation["rougeL"] >= 0  # type: ignore[union-attr]
    names = sorted(path.name for path in (result.dir / "tables").glob("answers*"))
    assert names == ["answers-end.json", "answers-start.json", "answers-validation.json"]
    row = json.loads((result.dir / "tables" / names[0]).read_text())[0]
    assert {"prompt", "reference", "answer", "exact_match", "rougeL", "bleu", "chrf"} <= row.keys()


def test_the_perplexity_of_supervised_rows_is_exp_of_their_held_out_loss():
    result = llmfw.fit(
        *TINY, *ROWS, "trainer.max_steps=1", "evaluation.metrics=[perplexity]", "data.packing=true"
    )
    assert result.after["perplexity"].value == pytest.approx(math.exp(result.validation["loss"]), rel=1e-5)  # type: ignore[union-attr]


def test_training_may_stop_early_by_an_evaluation():
    result = llmfw.fit(
        *TINY, *ROWS, "trainer.max_steps=9", "trainer.validate_every=1", "evaluation.metrics=[exact_match]",
        "evaluation.when=[validation]", "trainer.early_stopping.metric=validation/exact_match",
        "trainer.early_stopping.mode=max", "trainer.early_stopping.patience=2",
    )  # fmt: skip
    assert result.stopped_by == "early_stopping" and result.steps == 3


def test_preference_pairs_are_measured_by_their_chosen_answers():
    pairs = [
        {"id": f"p{n}", "prompt": f"say {n}", "chosen": f"it is {n}", "rejected": "no"} for n in range(12)
    ]
    Path("pairs.jsonl").write_text("".join(f"{json.dumps(pair)}\n" for pair in pairs))
    result = llmfw.fit(
        *TINY, "data=pairs.jsonl", "data.validation=0.3", "trainer.max_steps=1",
        "generation.max_new_tokens=4", "evaluation.metrics=[perplexity,chrf]", "dpo.answers=0",
        plugins=["dpo"],
    )  # fmt: skip
    assert result.after["perplexity"].n == result.after["chrf"].n == 4  # type: ignore[union-attr]
    rows = json.loads((result.dir / "tables" / "answers-end.json").read_text())
    assert {row["reference"] for row in rows} <= {pair["chosen"] for pair in pairs}


REFUSED = {
    "an unknown metric": (["evaluation.metrics=[bleue]"], UsageError, "CONFIG-CHOICE.*did you mean bleu"),
    "an unknown moment": (["evaluation.when=[finish]"], UsageError, "CONFIG-CHOICE.*start, validation, end"),
    "a metric twice": (["evaluation.metrics=[bleu,bleu]"], UsageError, "CONFIG-CHOICE.*named twice"),
    "nothing held out": (
        ["evaluation.metrics=[rouge]", "data.validation=null"], DataError, "NOTHING-HELD-OUT.*set data.val",
    ),
    "answers of running text": (
        ["evaluation.metrics=[rouge]", "data=texts.jsonl"], UsageError, "EVALUATION-FORM.*perplexity",
    ),
    "a folder without its tasks": (
        ["evaluation.lm_eval_path=."], UsageError, "CONFIG-RANGE.*does nothing without tasks",
    ),
    "a task whose file isn't there": (
        ["evaluation.lm_eval=[own_broken]", "evaluation.lm_eval_path=tasks"], DataError, "LM-EVAL-LOAD",
    ),
}  # fmt: skip


@pytest.mark.parametrize("verb", ["fit", "evaluate"])
@pytest.mark.parametrize("case", REFUSED)
def test_what_can_not_be_measured_is_refused_before_weights_are_read(
    case: str, verb: str, tasks, monkeypatch
):
    words, kind, line = REFUSED[case]
    broken = (tasks / "choice.yaml").read_text().replace("own_choice", "own_broken")
    (tasks / "broken.yaml").write_text(broken.replace("documents", "nowhere"))
    Path("texts.jsonl").write_text("".join(f'{{"text": "a text, number {n}"}}\n' for n in range(9)))

    def read(*_: object, **__: object) -> None:
        raise AssertionError("weights were read")

    monkeypatch.setattr("llmfw.core.training.train.build_model", read)
    monkeypatch.setattr("llmfw.core.open.build_model", read)
    words = [*TINY, *ROWS, *words, *(["trainer.max_steps=1"] if verb == "fit" else [])]
    with pytest.raises(kind, match=line) as caught:
        getattr(llmfw, verb)(*words)
    assert "\n" not in str(caught.value) and caught.value.exit_code in (2, 3)


def test_tasks_of_lm_eval_need_no_data_and_run_in_a_training_too(tasks: Path):
    words = (
        "evaluation.lm_eval=[own_choice]",
        f"evaluation.lm_eval_path={tasks}",
        "evaluation.lm_eval_limit=4",
    )
    alone = llmfw.evaluate(*TINY, *words)
    assert not alone.validation and alone.metrics["lm_eval/own_choice/acc"].n == 4  # type: ignore[union-attr]
    result = llmfw.fit(*TINY, *ROWS, *words, "trainer.max_steps=1")
    assert "end/lm_eval/own_choice/acc" in read_journal(result.dir / "journal.jsonl").series


def test_a_task_of_an_encoder_decoder_is_refused(tasks: Path):
    from tests.toys import encoder_decoder as toys

    words = ("evaluation.lm_eval=[own_choice]", f"evaluation.lm_eval_path={tasks}")
    with pytest.raises(LlmfwError, match="LM-EVAL-MODEL"):
        llmfw.evaluate(f"model.config={toys.written(toys.T5)}", "tokenizer.name=byte", *words)


def test_answers_and_perplexity_of_an_encoder_decoder_are_measured():
    from tests.toys import encoder_decoder as toys

    found = llmfw.evaluate(
        f"model.config={toys.written(toys.T5)}", *TINY[1:], *ROWS, "evaluation.metrics=[perplexity,chrf]"
    )
    loss = math.log(found.metrics["perplexity"].value)  # type: ignore[union-attr]
    assert loss == pytest.approx(found.validation["loss"], rel=1e-5)
    assert len(found.tables["answers"]) == 3


def _two(*words: str) -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable, "-m", "llmfw.cli", "fit", *TINY, *ROWS, "trainer.accelerator=cpu",
        "trainer.threads=1", "trainer.devices=2", "trainer.micro_batch=2", *words,
    ]  # fmt: skip
    return subprocess.run(command, capture_output=True, text=True, env=os.environ, timeout=240)


@pytest.mark.parametrize("strategy", ["ddp", "fsdp2"])
def test_two_processes_measure_as_one_does_and_agree_on_stopping_by_it(strategy: str):
    words = (
        "trainer.max_steps=6", "trainer.validate_every=1", "evaluation.metrics=[perplexity,exact_match]",
        "evaluation.when=[start,validation,end]", "trainer.early_stopping.metric=validation/exact_match",
        "trainer.early_stopping.mode=max", "trainer.early_stopping.patience=2",
    )  # fmt: skip
    one = llmfw.fit(*TINY, *ROWS, *words, "trainer.micro_batch=4", "trainer.threads=1", "run.dir=one")
    two = _two(*words, f"trainer.strategy={strategy}", "run.dir=two")
    assert two.returncode == 0, two.stderr
    views = [read_journal(Path(place) / "journal.jsonl") for place in ("one", "two")]
    assert one.steps == 3 and [view.last_step for view in views] == [3, 3]
    for name in ("start/perplexity", "validation/perplexity", "end/perplexity", "validation/exact_match"):
        left, right = (dict(view.series[name]) for view in views)
        assert left.keys() == right.keys()
        assert all(left[step] == pytest.approx(right[step], rel=1e-4) for step in left)


def test_a_failure_while_the_main_process_measures_ends_the_others_too():
    rows = [{"prompt": f"{n} " * 5000, "completion": "x"} for n in range(8)]
    Path("long.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    failing = _two(
        "trainer.max_steps=2", "evaluation.metrics=[exact_match]", "evaluation.when=[start]", "run.dir=run",
        "data=long.jsonl", "data.too_long=cut_start", "trainer.strategy=ddp",
    )  # fmt: skip
    assert failing.returncode == 3, failing.stderr
    assert "error[NOTHING-TO-EVALUATE]" in failing.stderr
