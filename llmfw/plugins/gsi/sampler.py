"""Guided self-improvement: problems that have too few right answers are asked again, with help."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from llmfw import Round, Row
from llmfw.core.data import answer_of
from llmfw.core.generation import Attempt, Collected, Rollouts, prompt_of, self_training

from .functional import (
    first_lines,
    first_tokens,
    overlap,
    to_student,
    to_teacher,
    with_answer,
    with_rationale,
)

if TYPE_CHECKING:
    from .plugin import Gsi

Ask = tuple[list[Any], list[str]]
"""Prompts and beginnings of answers, one each per problem."""
Groups = dict[str, list[Attempt]]
"""A problem's id -> its attempts so far."""


def guided(config: Gsi.Config, run: Any) -> Callable[..., Round | None]:
    """The sampler's ``next``."""

    def collect(rollouts: Rollouts, rows: Sequence[Row]) -> Collected:
        groups: Groups = {
            str(row["id"]): attempts
            for row, attempts in zip(
                rows, rollouts.attempt(rows, purpose="sample", samples=config.samples), strict=True
            )
        }
        begun = sum(not _enough(groups[str(row["id"])], config.min_correct) for row in rows)
        for attempt in range(1, config.max_resample + 1):
            hard = [row for row in rows if not _enough(groups[str(row["id"])], config.min_correct)]
            if not hard:
                break
            prompts, prefixes = ask(config, run, rollouts, hard, groups, attempt)
            again = rollouts.attempt(
                hard,
                purpose="resample" if config.strategy == "none" else "guided",
                first=config.samples + attempt - 1,
                prompts=prompts,
                prefixes=prefixes,
            )
            for row, made in zip(hard, again, strict=True):
                groups[str(row["id"])] += made
        every = [attempt for row in rows for attempt in groups[str(row["id"])]]
        notes = told(config, rows, groups, begun)
        return Collected(attempts=every, notes=notes, masked=config.mask_prefix)

    return self_training(config, run, collect, name="gsi")


def _enough(attempts: Sequence[Attempt], wanted: int) -> bool:
    return sum(attempt.right for attempt in attempts) >= wanted


def ask(
    config: Gsi.Config, run: Any, rollouts: Rollouts, rows: Sequence[Row], groups: Groups, attempt: int
) -> Ask:
    """What the strategy asks about these problems in guided attempt number ``attempt``."""
    plain, nothing = [prompt_of(row) for row in rows], [""] * len(rows)
    if config.strategy == "state_reset":
        return plain, [beginning(config, rollouts.policy.tokenizer, row, attempt) for row in rows]
    if config.strategy in ("answer", "rationale"):
        return [
            hinted(config.strategy, prompt, row) for prompt, row in zip(plain, rows, strict=True)
        ], nothing
    if config.strategy == "interactive":
        return interactive(run.policy(config.teacher), rollouts, rows, groups), nothing
    return plain, nothing


def hinted(strategy: str, prompt: Any, row: Row) -> Any:
    """The prompt with the gold answer or solution in its last text; the row's own stays as it is."""
    text = _text(prompt)
    told = (
        with_answer(text, str(row["answer"]))
        if strategy == "answer"
        else with_rationale(text, answer_of(row))
    )
    return told if isinstance(prompt, str) else [*prompt[:-1], {**prompt[-1], "content": told}]


def beginning(config: Gsi.Config, tokenizer: Any, row: Row, attempt: int) -> str:
    """The part of the gold solution that the answer begins with: lines where it has several, else tokens."""
    solution = row.get("solution") or answer_of(row)
    lines = solution.split("\n") if isinstance(solution, str) else [str(step) for step in solution]
    if config.schedule == "lines" or (config.schedule == "auto" and len(lines) > 1):
        return first_lines(lines, attempt)
    text = "\n".join(lines)
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    return first_tokens(text, [tokenizer.decode(ids[: at + 1]) for at in range(len(ids))], attempt)


def interactive(teacher: Any, rollouts: Rollouts, rows: Sequence[Row], groups: Groups) -> list[Any]:
    """For each problem a conversation: the question, the student's last wrong response, the teacher's
    explanation of it.
    """
    last = [_last_wrong(groups[str(row["id"])]) for row in rows]
    questions = [_text(prompt_of(row)) for row in rows]
    answers = rollouts.ledger.generate(
        teacher,
        [
            to_teacher(question, said, str(row["answer"]))
            for question, said, row in zip(questions, last, rows, strict=True)
        ],
        purpose="teacher",
        temperature=1.0,
        top_p=0.95,
        seed=rollouts.seed,
        ids=[f"teacher/{rollouts.index}/{row['id']}/{len(groups[str(row['id'])])}" for row in rows],
    )
    return [
        [
            *_messages(prompt_of(row)),
            {"role": "assistant", "content": said or "..."},
            {"role": "user", "content": to_student(answer.text.strip())},
        ]
        for row, said, answer in zip(rows, last, answers, strict=True)
    ]


def _last_wrong(attempts: Sequence[Attempt]) -> str:
    wrong = [attempt.text for attempt in attempts if not attempt.right]
    return wrong[-1] if wrong else attempts[-1].text


def _text(prompt: Any) -> str:
    return prompt if isinstance(prompt, str) else str(prompt[-1]["content"])


def _messages(prompt: Any) -> list[dict[str, Any]]:
    return [{"role": "user", "content": prompt}] if isinstance(prompt, str) else list(prompt)


def told(config: Gsi.Config, rows: Sequence[Row], groups: Groups, begun: int) -> dict[str, float]:
    """What guidance cost and brought: ``guided/share`` of the kept answers, ``guided/rescued`` problems that
    came to enough right answers by it, of ``guided/needed``; ``guided/per_rescue`` generations;
    ``per_kept`` generations per kept answer; how far kept guided answers copy the gold solution.
    """
    every = [attempt for attempts in groups.values() for attempt in attempts]
    helped = [attempt for attempt in every if attempt.number >= config.samples]
    kept = [attempt for attempt in every if attempt.right]
    kept_helped = [attempt for attempt in helped if attempt.right]
    rescued = begun - sum(not _enough(groups[str(row["id"])], config.min_correct) for row in rows)
    found = {
        "per_kept": len(every) / max(1, len(kept)),
        "guided/needed": float(begun),
        "guided/rescued": float(rescued),
        "guided/generations": float(len(helped)),
        "guided/share": len(kept_helped) / max(1, len(kept)),
    }
    if rescued:
        found["guided/per_rescue"] = len(helped) / rescued
    if kept_helped:
        copied = [overlap(attempt.text, answer_of(attempt.row)) for attempt in kept_helped]
        found["guided/overlap"] = sum(copied) / len(copied)
        given = [len(attempt.prefix) / max(1, len(attempt.text)) for attempt in kept_helped]
        found["guided/given"] = sum(given) / len(given)
    return found
