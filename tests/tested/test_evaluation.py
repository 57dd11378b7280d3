"""Evaluations that were run: each figure against one made by hand or by another package, and refusals."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import sacrebleu
import torch
from rouge_score.rouge_scorer import RougeScorer

import llmfw
from llmfw.core.assemble import assemble, settle
from llmfw.core.errors import LlmfwError
from llmfw.core.evaluation.harness import PolicyLM
from llmfw.core.evaluation.tasks import load_tasks, measure_tasks, told
from llmfw.core.open import open_policy
from llmfw.core.tracking.comparison import compare
from llmfw.core.tracking.pick import pick_runs
from tests.core.evaluation.conftest import TASKS, write_tasks
from tests.tested.recorder import note, note_refusal

QUIET = ("model=tiny-llama", "trainer.progress=false", "tracking.mlflow=false")
DATA = ("data=rows.jsonl", "data.validation=held.jsonl", "generation.max_new_tokens=26")
TRAINED = (
    "trainer.max_steps=60", "trainer.micro_batch=6", "optimizer.lr=0.01", "optimizer.schedule=constant",
    "checkpoint.every=0", "run.dir=run",
)  # fmt: skip
APART = "|difference| to"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run that has learnt enough for its answers to overlap with the references."""
    place = tmp_path_factory.mktemp("evaluation")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        write_tasks(place / "tasks")
        for name, numbers in (("rows", range(12)), ("held", range(3, 9))):
            rows = [{"prompt": f"say {n}", "completion": said_of(n)} for n in numbers]
            Path(f"{name}.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
        llmfw.fit(*QUIET, *DATA, *TRAINED)
    return place


@pytest.fixture(autouse=True)
def here(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(trained)


def said_of(n: int) -> str:
    return f"{n} is {'odd' if n % 2 else 'even'} and it is small"


def evaluated(*words: str, save: bool = False) -> llmfw.EvaluateResult:
    return llmfw.evaluate("model=run", *QUIET[1:], *words, save=save)


def answers(found: llmfw.EvaluateResult) -> tuple[list[str], list[str]]:
    rows = found.tables["answers"]
    return [row["answer"].strip() for row in rows], [row["reference"] for row in rows]


def apart(name: str, found: llmfw.EvaluateResult, independent: float) -> float:
    value: Any = found.metrics[name]
    return abs(getattr(value, "value", value) - independent)


def test_perplexity_and_bits_per_byte():
    """From the model's own logits, row by row."""
    found = evaluated("evaluation.metrics=[perplexity]")
    opened = open_policy(assemble(settle(overrides=["model=run"]), "generate"))
    nats = tokens = size = 0.0
    for n in range(3, 9):
        messages = [
            {"role": "user", "content": f"say {n}"},
            {"role": "assistant", "content": said_of(n)},
        ]
        template = opened.tokenizer.apply_chat_template
        before = template(messages[:1], tokenize=False, add_generation_prompt=True)
        after = template(messages, tokenize=False).removeprefix(before).rstrip("\n")  # up to the end of turn
        asked, said = (
            opened.tokenizer(text, add_special_tokens=False)["input_ids"] for text in (before, after)
        )
        logits = opened.policy.module(input_ids=torch.tensor([[*asked, *said]])).logits[0]
        logps = torch.log_softmax(logits.double(), -1)[len(asked) - 1 : -1]
        nats -= float(logps.gather(1, torch.tensor([said]).T).sum())
        tokens, size = tokens + len(said), size + len(messages[1]["content"])
    command = "llmfw evaluate model=RUN evaluation.metrics=[perplexity]"
    value = apart("perplexity", found, math.exp(nats / tokens))
    note("evaluation", "perplexity", command=command, measure=f"{APART} exp(mean of the logits' own)",
         value=value, bound=1e-4)  # fmt: skip
    value = apart("bits_per_byte", found, nats / math.log(2) / size)
    note(
        "evaluation",
        "bits per byte",
        command=command,
        measure=f"{APART} the logits' own",
        value=value,
        bound=1e-5,
    )


def test_exact_match():
    found = evaluated("evaluation.metrics=[exact_match]")
    texts, references = answers(found)
    share = sum(text == reference for text, reference in zip(texts, references, strict=True)) / len(texts)
    note("evaluation", "exact match", command="llmfw evaluate model=RUN evaluation.metrics=[exact_match]",
         measure=f"{APART} a count by hand", value=apart("exact_match", found, share), bound=0)  # fmt: skip


def rouge_score(name: str, texts: Sequence[str], references: Sequence[str]) -> float:
    pairs = zip(references, texts, strict=True)
    return sum(RougeScorer([name]).score(*pair)[name].fmeasure for pair in pairs) / len(texts)


INDEPENDENT = {
    "rouge1": ("rouge", "rouge-score", lambda t, r: rouge_score("rouge1", t, r)),
    "rouge2": ("rouge", "rouge-score", lambda t, r: rouge_score("rouge2", t, r)),
    "rougeL": ("rouge", "rouge-score", lambda t, r: rouge_score("rougeL", t, r)),
    "bleu": (
        "bleu",
        "sacreBLEU",
        lambda t, r: sacrebleu.corpus_bleu(t, [r], smooth_method="none").score / 100,
    ),
    "chrf": ("chrf", "sacreBLEU", lambda t, r: sacrebleu.corpus_chrf(t, [r], eps_smoothing=True).score / 100),
}


@pytest.mark.parametrize("name", INDEPENDENT)
def test_overlap(name: str):
    metric, package, figure = INDEPENDENT[name]
    found = evaluated(f"evaluation.metrics=[{metric}]")
    texts, references = answers(found)
    wanted = figure(texts, references)
    assert 0 < wanted < 1, texts
    note("evaluation", name, command=f"llmfw evaluate model=RUN evaluation.metrics=[{metric}]",
         measure=f"{APART} {package}", value=apart(name, found, wanted), bound=1e-6)  # fmt: skip


def test_a_problems_final_answer():
    rows = [{"prompt": f"say {n}", "answer": f"{n}.0", "solution": [f"it is {n}"]} for n in range(4)]
    Path("problems.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    from llmfw.core.evaluation.answers import compared, questions
    from llmfw.core.records import Completion

    texts = ["Answer: 0", "so\nAnswer: 1.00", "2", "Answer: 4"]
    told_ = [Completion(text=text, ids=(1,), prompt_tokens=1, finish="stop") for text in texts]
    found = compared(("exact_match",), questions(rows), told_)
    share: Any = found.metrics["exact_match"]
    note("evaluation", "exact match of problems: final answers, as numbers",
         command="llmfw evaluate model=RUN data=FILE evaluation.metrics=[exact_match]",
         measure=f"{APART} 3 of 4 by hand", value=abs(share.value - 0.75), bound=0)  # fmt: skip


@pytest.mark.parametrize("kind", TASKS)
def test_lm_eval(kind: str):
    from lm_eval.evaluator import evaluate
    from lm_eval.models.huggingface import HFLM

    words = ("model=run", f"evaluation.lm_eval=[own_{kind}]", "evaluation.lm_eval_path=tasks", *QUIET[1:])
    opened = open_policy(assemble(settle(overrides=list(words)), "evaluate"))
    root = opened.run.config
    found = measure_tasks(root, opened.policy).metrics
    theirs = HFLM(pretrained=opened.policy.module, tokenizer=opened.tokenizer, batch_size=4)
    wanted = told(evaluate(theirs, load_tasks(root.evaluation), bootstrap_iters=1000)).metrics
    value = max(
        abs(getattr(found[name], "value", found[name]) - getattr(one, "value", one))
        / max(1.0, abs(getattr(one, "value", one)))
        for name, one in wanted.items()
    )
    note("evaluation", f"lm-eval, a task of kind {_kind(kind)}",
         command=f"llmfw evaluate model=RUN evaluation.lm_eval=[own_{kind}] evaluation.lm_eval_path=DIR",
         measure="max relative |difference| of metrics to lm-eval's own transformers model",
         value=value, bound=1e-4)  # fmt: skip


def _kind(task: str) -> str:
    return TASKS[task].split("output_type: ")[1].split()[0]


def test_lm_eval_log_likelihoods():
    from types import SimpleNamespace

    from lm_eval.models.huggingface import HFLM

    opened = open_policy(assemble(settle(overrides=["model=run", *QUIET[1:]]), "generate"))
    asked = [SimpleNamespace(args=(f"say {n} ", f"it is {n}")) for n in range(9)]
    theirs = HFLM(pretrained=opened.policy.module, tokenizer=opened.tokenizer, batch_size=4)
    pairs = zip(
        PolicyLM(opened.policy, show=False).loglikelihood(asked), theirs.loglikelihood(asked), strict=True
    )
    note("evaluation", "lm-eval, log-likelihoods",
         command="llmfw evaluate model=RUN evaluation.lm_eval=[own_choice] evaluation.lm_eval_path=DIR",
         measure="max |difference| in nats to lm-eval's own transformers model",
         value=max(abs(one[0] - other[0]) for one, other in pairs), bound=1e-4)  # fmt: skip


def test_evaluated_after_the_run_and_compared():
    run = evaluated("evaluation.metrics=[perplexity]", save=True)
    base = llmfw.evaluate(*QUIET, *DATA, "evaluation.metrics=[perplexity]", save=True)
    records = pick_runs(["run", str(base.kept)])[0]
    shown = {metric.name: metric.final for metric in compare(records).metrics}
    wanted = [one.metrics["perplexity"].value for one in (run, base)]  # type: ignore[union-attr]
    value = max(abs(one - other) for one, other in zip(shown["evaluate/perplexity"], wanted, strict=True))
    note("evaluation", "measured after the run, beside a model that wasn't trained",
         command="llmfw compare RUN DIR", measure="max |difference| to what was measured",
         value=value, bound=0)  # fmt: skip


REFUSED = {
    "an unknown metric": ["evaluation.metrics=[rogue]"],
    "a metric without held-out rows": [
        "evaluation.metrics=[rouge]", "data=rows.jsonl", "data.validation=null",
    ],
    "answers compared over running text": [
        "evaluation.metrics=[bleu]", "data=texts.jsonl", "data.validation=0.5",
    ],
    "lm-eval, a task that isn't known": ["evaluation.lm_eval=[own_choise]", "evaluation.lm_eval_path=tasks"],
    "lm-eval, a task whose data must come from a hub that can't be reached": [
        "evaluation.lm_eval=[own_hub]", "evaluation.lm_eval_path=tasks",
    ],
    "lm-eval, a folder without tasks named": ["evaluation.lm_eval_path=tasks"],
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case: str):
    Path("texts.jsonl").write_text('{"text": "one"}\n{"text": "two"}\n')
    hub = (
        Path("tasks/choice.yaml")
        .read_text()
        .replace("own_choice", "own_hub")
        .replace("json", "owner/name", 1)
    )
    Path("tasks/hub.yaml").write_text(hub)
    with pytest.raises(LlmfwError) as caught:
        llmfw.evaluate(*QUIET, *REFUSED[case])
    shown = [
        word.replace("=tasks", "=DIR").replace("texts.jsonl", "FILE").replace("rows.jsonl", "FILE")
        for word in REFUSED[case]
    ]
    note_refusal("evaluation", case, command=f"llmfw evaluate {' '.join(shown)}", line=str(caught.value))
