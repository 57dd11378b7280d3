"""Does the model notice a wrong step and mend it, and does it leave right steps alone?

A held-out solution is forced up to a step: once with that step made wrong (never by the model itself), once
as it is. What the model does then is measured by its next line's probability and by its greedy answer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from llmfw import Estimate, Evaluation, EvaluationResult, Row
from llmfw.callbacks import mean_interval, share_interval
from llmfw.core.data import Encoder, canonical, first_wrong_step, pad_id_of, stable_hash
from llmfw.core.generation import AnswerScore, prompt_of, score_examples

from .annotate import begins, is_chain
from .perturb import perturbed
from .solution import DELIMITER, beginning, behind, lines_of, steps_of

if TYPE_CHECKING:
    from llmfw import Completion

    from .settings import Settings

_SCORED = 32
"""Answers whose probability is taken at a time; they are short."""
Metrics = dict[str, float | Estimate]


@dataclass(frozen=True, kw_only=True)
class Forced:
    """A held-out problem and what an answer to it is made to begin with: ``before``, the step, ``behind``."""

    row: Row
    before: str
    wrong: str
    right: str
    behind: str = DELIMITER

    def begun(self, name: str) -> str:
        """The answer's beginning with the step ``wrong`` or ``right``."""
        return self.before + self.step(name)

    def step(self, name: str) -> str:
        """The step ``wrong`` or ``right``, with what stands behind it."""
        return (self.wrong if name == "wrong" else self.right) + self.behind


def corrects(config: Settings, run: Any) -> list[Evaluation]:
    """Two evaluations over the first ``s3c_math.problems`` held-out problems; [] where that is 0.

    ``corrections``, greedy answers at the end. ``forced/...``, after a wrong step: ``recovered``, the share
    that ends right, ``reflects``, the share whose next line begins with the mark. ``right/...``, after the
    right step in its place: ``solved``, and ``reflects``, the trigger rate. ``answers/...`` of free answers:
    ``corrections`` and ``tokens`` of one; of chains the shares ``needless`` (the first line taken back was
    right), ``fixed`` (it was wrong, and the answer is right) and ``broken`` (it was right, and the answer is
    wrong).

    ``step_likelihoods``, at start and end: ``forced/mark_logp`` and ``right/mark_logp``, nats, of the mark as
    the next line's beginning, ``mark_ratio``, the first less the second; ``forced/wrong_nll`` and
    ``right/nll``, nats a token of the wrong and the right step.
    """
    if not config.problems:
        return []
    parts = (config, run.rows, run.seed)
    return [
        Evaluation(name="corrections", run=partial(_corrections, *parts)),
        Evaluation(name="step_likelihoods", run=partial(_likelihoods, *parts), when=("start", "end")),
    ]


Rows = Callable[[str], Sequence[Row]]


def _cases(config: Settings, rows: Rows, seed: int) -> tuple[list[Row], list[Forced]]:
    held_out = list(rows("validation"))[: config.problems]
    return held_out, [case for row in held_out if (case := forced(row, seed)) is not None]


def _corrections(config: Settings, rows: Rows, seed: int, policy: Any, services: Any) -> EvaluationResult:
    held_out, cases = _cases(config, rows, seed)
    judge, metrics, tables = services("Verifier", config.verifier), Metrics(), {}
    if cases:
        metrics, tables["forced"] = _after_steps(policy, judge, cases, config.mark)
    if held_out:
        metrics |= _free(policy, judge, held_out, config.mark)
    return EvaluationResult(metrics=metrics, tables=tables)


def _likelihoods(config: Settings, rows: Rows, seed: int, policy: Any, services: Any) -> EvaluationResult:
    _, cases = _cases(config, rows, seed)
    if not cases:
        return EvaluationResult()
    told = {name: [case.begun(name) for case in cases] for name in ("wrong", "right")}
    owners = [case.row for case in cases]
    marks = {
        name: [one.logp for one in _scores(policy, owners, [(text, config.mark) for text in begun])]
        for name, begun in told.items()
    }
    nll = {name: _scores(policy, owners, [(case.before, case.step(name)) for case in cases]) for name in told}
    gaps = [one - other for one, other in zip(marks["wrong"], marks["right"], strict=True)]
    return EvaluationResult(
        metrics={
            "forced/mark_logp": _mean(marks["wrong"]),
            "right/mark_logp": _mean(marks["right"]),
            "mark_ratio": _mean(gaps),
            "forced/wrong_nll": _per_token(nll["wrong"]),
            "right/nll": _per_token(nll["right"]),
        }
    )


def forced(row: Row, seed: int) -> Forced | None:
    """A problem's step, drawn uniformly among those that can be made wrong, and its wrong version; None where
    none can be (no number in it).
    """
    steps = steps_of(row)
    order = sorted(range(len(steps)), key=lambda at: stable_hash("forced", seed, row["id"], at))
    for at in order:
        found = perturbed(row, steps, at, ("forced", seed), 1)
        if found:
            return Forced(
                row=row, before=beginning(row, at), wrong=found[0], right=steps[at],
                behind=behind(lines_of(row)[at]),
            )  # fmt: skip
    return None


def _after_steps(
    policy: Any, judge: Any, cases: Sequence[Forced], mark: str
) -> tuple[Metrics, list[dict[str, Any]]]:
    rows = [case.row for case in cases]
    hits, reflects, answers = {}, {}, {}
    for name in ("wrong", "right"):
        begun = [case.begun(name) for case in cases]
        answers[name] = _go_on(policy, rows, begun)
        hits[name] = _right(judge, rows, begun, answers[name])
        reflects[name] = [begins(answer.text, mark) for answer in answers[name]]
    table = [
        {
            "id": str(case.row["id"]), "before": case.before, "wrong": case.wrong, "right": case.right,
            "goes_on": answer.text, "recovered": hit,
        }
        for case, answer, hit in zip(cases, answers["wrong"], hits["wrong"], strict=True)
    ]  # fmt: skip
    return {
        "forced/recovered": _share(hits["wrong"]),
        "forced/reflects": _share(reflects["wrong"]),
        "right/solved": _share(hits["right"]),
        "right/reflects": _share(reflects["right"]),
    }, table


def _free(policy: Any, judge: Any, rows: Sequence[Row], mark: str) -> Metrics:
    answers = _go_on(policy, rows, [""] * len(rows))
    hits = _right(judge, rows, [""] * len(rows), answers)
    taken_back = [sum(begins(line, mark) for line in answer.text.split(DELIMITER)) for answer in answers]
    metrics: Metrics = {
        "answers/corrections": sum(taken_back) / len(rows),
        "answers/tokens": sum(answer.tokens for answer in answers) / len(rows),
    }
    if all(is_chain(row) for row in rows):
        first = [first_taken_back(row, answer.text, mark) for row, answer in zip(rows, answers, strict=True)]
        metrics |= {
            "answers/needless": _share([one == "right" for one in first]),
            "answers/fixed": _share([one == "wrong" and hit for one, hit in zip(first, hits, strict=True)]),
            "answers/broken": _share(
                [one == "right" and not hit for one, hit in zip(first, hits, strict=True)]
            ),
        }
    return metrics


def first_taken_back(row: Row, answer: str, mark: str) -> str | None:
    """Whether the first line that an answer to a chain takes back was ``right`` or ``wrong``; ``later``: an
    earlier line was wrong already; None: it takes none back. Blank lines don't count.
    """
    lines = [line for line in answer.split(DELIMITER) if line.strip()]
    at = next((index for index, line in enumerate(lines) if begins(line, mark)), None)
    if not at:
        return None
    found = first_wrong_step(row, lines[:at])
    return "right" if found is None else "wrong" if found == at - 1 else "later"


def _go_on(policy: Any, rows: Sequence[Row], begun: Sequence[str]) -> list[Completion]:
    prompts = [prompt_of(row) for row in rows]
    answers: list[Completion] = policy.generate(prompts, prefix=list(begun), temperature=0.0, samples=1)
    return answers


def _right(
    judge: Any, rows: Sequence[Row], begun: Sequence[str], answers: Sequence[Completion]
) -> list[bool]:
    verdicts = judge.verify(rows, [text + one.text for text, one in zip(begun, answers, strict=True)])
    return [v.right and one.finish == "stop" for v, one in zip(verdicts, answers, strict=True)]


def _scores(policy: Any, rows: Sequence[Row], parts: Sequence[tuple[str, str]]) -> list[AnswerScore]:
    """Of each (given, scored) text behind a row's prompt the score of the second."""
    encoder = Encoder(policy.tokenizer, max_length=1 << 30)
    examples = []
    for row, (given, said) in zip(rows, parts, strict=True):
        spans = [[len(given), len(given) + len(said)]]
        form, checked = canonical({"prompt": row["prompt"], "completion": given + said, "spans": spans})
        examples.append(encoder.encode(form, checked))
    whole = [example for example in examples if example is not None]
    pad = pad_id_of(policy.tokenizer)
    return [found[0] for found in score_examples(policy, whole, pad_id=pad, batch_size=_SCORED)]


def _share(hits: Sequence[bool]) -> Estimate:
    return share_interval(sum(hits), len(hits))


def _mean(values: Sequence[float]) -> Estimate:
    return mean_interval(len(values), sum(values), sum(value * value for value in values))


def _per_token(scores: Sequence[AnswerScore]) -> float:
    return -sum(one.logp for one in scores) / sum(one.tokens for one in scores)
