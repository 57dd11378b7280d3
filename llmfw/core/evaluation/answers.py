"""Answers to held-out prompts, compared with what the rows say: exact match, ROUGE, BLEU, chrF."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from llmfw.callbacks.intervals import share_interval
from llmfw.core.data import answer_of, form_of
from llmfw.core.errors import DataError
from llmfw.core.evaluation import overlap
from llmfw.core.evaluation.progress import batches, counted
from llmfw.core.generation import context_length, encode_prompt, prompt_of
from llmfw.core.records import Completion, Estimate, EvaluationResult, Row
from llmfw.core.run import Run
from llmfw.core.say import say
from llmfw.core.verifiers.match import final_answer, matches

_OVERLAP = {"rouge": overlap.rouge, "bleu": overlap.bleu, "chrf": overlap.chrf}


@dataclass(frozen=True, kw_only=True)
class Question:
    """A held-out prompt, the whole text that answers it, and the final answer where the row names one."""

    id: str
    prompt: Any
    reference: str
    final: str | None = None


def answers(run: Run, names: Sequence[str], policy: Any) -> EvaluationResult:
    """The metrics ``names`` of the answers to ``evaluation.samples`` held-out prompts, written once for all
    of them, greedily, with the run's max_new_tokens and stop texts.

    95% intervals: Wilson's for exact match, else bootstrap over answers; the table ``answers`` has each.
    """
    config = run.config
    asked = questions(run.rows("validation"), config.data.kind)
    asked = fitting(policy, asked, config.evaluation.samples)
    if config.generation.temperature > 0:
        say("note: the answers that are measured are greedy, whatever generation.temperature says")
    return compared(names, asked, answered(policy, asked, show=config.trainer.progress))


def questions(rows: Sequence[Row], kind: str | None = None) -> list[Question]:
    """The rows' prompts and references, the first row of each prompt.

    The reference is the completion, the last trained message, the chosen answer of a pair, or a problem's
    solution with its answer.

    Raises:
        DataError: rows of running text ask nothing.
    """
    found: list[Question] = []
    seen: list[Any] = []
    for row in rows:
        prompt = prompt_of(row)
        key = prompt if isinstance(prompt, str) else str(prompt)
        if key in seen:
            continue
        seen.append(key)
        final = None
        form = form_of(row, kind)
        if form == "problems":
            reference, final = answer_of(row), str(row["answer"])
        else:
            reference = _said(row, form)
        found.append(
            Question(id=str(row.get("id", len(found))), prompt=prompt, reference=reference, final=final)
        )
    return found


def _said(row: Row, form: str) -> str:
    if form == "messages":
        prompt = prompt_of(row)
        return str(row["messages"][len(prompt)]["content"])
    answer = row["chosen" if form == "preference" else "completion"]
    if isinstance(answer, str):
        return answer
    spoken = [message["content"] for message in answer if message["role"] == "assistant"]
    return str(spoken[-1] if spoken else answer[-1]["content"])


def fitting(policy: Any, asked: Sequence[Question], count: int) -> list[Question]:
    """The first ``count`` questions that leave room for an answer in the model's context.

    Raises:
        DataError: there is none.
    """
    limit = context_length(policy.module)
    kept: list[Question] = []
    left_out = 0
    for question in asked:
        if len(kept) == count:
            break
        if limit is not None and len(encode_prompt(policy.tokenizer, question.prompt)) >= limit:
            left_out += 1
        else:
            kept.append(question)
    if left_out:
        say(f"note: {left_out} held-out prompts are longer than the model's context of {limit} tokens")
    if not kept:
        raise DataError(
            "NOTHING-TO-EVALUATE",
            f"no held-out prompt fits into the model's context of {limit} tokens"
            if left_out
            else "no held-out row asks anything",
            mend="give shorter prompts in data.validation" if left_out else "set data.validation",
            key="data.validation",
        )
    return kept


def answered(policy: Any, asked: Sequence[Question], *, show: bool = True) -> list[Completion]:
    """Greedy answers in the order of the questions, telling how far it is."""
    lengths = [len(encode_prompt(policy.tokenizer, question.prompt)) for question in asked]
    order = sorted(range(len(asked)), key=lambda index: -lengths[index])
    told: dict[int, Completion] = {}
    size = getattr(policy, "batch_size", 8)
    for part in counted(batches(order, size), "answers", len, show=show):
        prompts = [asked[index].prompt for index in part]
        told |= dict(zip(part, policy.generate(prompts, temperature=0.0, samples=1), strict=True))
    return [told[index] for index in range(len(asked))]


def compared(names: Sequence[str], asked: Sequence[Question], told: Sequence[Completion]) -> EvaluationResult:
    """The metrics and the table of these answers."""
    texts = [completion.text.strip() for completion in told]
    references = [question.reference.strip() for question in asked]
    metrics: dict[str, float | Estimate] = {}
    columns: dict[str, list[float]] = {}
    if "exact_match" in names:
        hits = [hit(question, text) for question, text in zip(asked, texts, strict=True)]
        metrics["exact_match"] = share_interval(sum(hits), len(hits))
        columns["exact_match"] = [float(one) for one in hits]
    for name in names:
        if name in _OVERLAP:
            estimates, scores = _OVERLAP[name](texts, references)
            metrics |= estimates
            columns |= scores
    metrics["answer_tokens"] = sum(completion.tokens for completion in told) / len(told)
    metrics["answers_unfinished"] = sum(completion.finish == "length" for completion in told) / len(told)
    table = [
        {
            "id": question.id,
            "prompt": prompt_text(question.prompt),
            "reference": question.reference if question.final is None else question.final,
            "answer": completion.text,
            **{name: values[index] for name, values in columns.items()},
        }
        for index, (question, completion) in enumerate(zip(asked, told, strict=True))
    ]
    return EvaluationResult(metrics=metrics, tables={"answers": table})


def hit(question: Question, text: str) -> bool:
    """Whether an answer is the reference; of a problem only the final answers are compared."""
    if question.final is None:
        return matches(text, question.reference)
    return matches(final_answer(text), question.final)


def prompt_text(prompt: Any) -> str:
    """A prompt as one text, for tables."""
    if isinstance(prompt, str):
        return prompt
    return "\n".join(f"{message['role']}: {message['content']}" for message in prompt)
