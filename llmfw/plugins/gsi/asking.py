"""How a problem is asked again: as before, with a hint, a begun answer, or a teacher's explanation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llmfw import LlmfwError, Row
from llmfw.core.data import answer_of
from llmfw.core.generation import Attempt, Rollouts, prompt_of

from .functional import (
    first_lines,
    first_tokens,
    to_student,
    to_teacher,
    with_answer,
    with_rationale,
    written,
)

if TYPE_CHECKING:
    from .plugin import Gsi

Groups = dict[str, list[Attempt]]
"""A problem's id -> its attempts so far."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """Prompts and beginnings of answers, one each per problem. ``unexplained``: empty explanations."""

    prompts: list[Any]
    prefixes: list[str]
    unexplained: int = 0


class NoSolutionError(LlmfwError):
    """A problem without the solution that would be shown (exit code 3)."""

    exit_code = 3


def shows_solutions(config: Gsi.Config) -> bool:
    """Whether problems that need help are shown their gold solution."""
    return helps(config) and config.strategy in ("state_reset", "rationale")


def helps(config: Gsi.Config) -> bool:
    """Whether any problem is ever asked again."""
    return config.min_correct > 0 and config.max_resample > 0


def refuse_unsolved(rows: Sequence[Row], strategy: str) -> None:
    """Refuse problems without a solution; what is no problem at all isn't looked at.

    Raises:
        NoSolutionError: NO-SOLUTION.
    """
    for row in rows:
        if "answer" in row and not solution_lines(row):
            raise NoSolutionError(
                "NO-SOLUTION",
                f"problem {row.get('id')!r} has no solution, and {strategy} shows a part of it or all",
                mend="give every problem its solution, or set gsi.strategy to answer, interactive or none",
                key="gsi.strategy",
            )


def solution_lines(row: Row) -> list[str]:
    """The gold solution's lines, or its steps, with their line breaks, none of them blank; [] without one."""
    solution = row.get("solution") or ""
    lines = (
        solution.splitlines(keepends=True)
        if isinstance(solution, str)
        else [f"{step}\n" for step in solution]
    )
    return written(lines) if "".join(lines).strip() else []


def ask(
    config: Gsi.Config, run: Any, rollouts: Rollouts, rows: Sequence[Row], groups: Groups, attempt: int
) -> Asked:
    """What the strategy asks about these problems in guided attempt number ``attempt``."""
    plain, nothing = [prompt_of(row) for row in rows], [""] * len(rows)
    if config.strategy == "state_reset":
        begun = [beginning(config, rollouts.policy.tokenizer, row, attempt) for row in rows]
        return Asked(prompts=plain, prefixes=begun)
    if config.strategy in ("answer", "rationale"):
        told = [hinted(config.strategy, prompt, row) for prompt, row in zip(plain, rows, strict=True)]
        return Asked(prompts=told, prefixes=nothing)
    if config.strategy == "interactive":
        said = explanations(run.policy(config.teacher), rollouts, rows, groups)
        talks = [
            conversation(prompt, last_wrong(groups[str(row["id"])]), text)
            for prompt, row, text in zip(plain, rows, said, strict=True)
        ]
        return Asked(prompts=talks, prefixes=nothing, unexplained=sum(not text for text in said))
    return Asked(prompts=plain, prefixes=nothing)


def hinted(strategy: str, prompt: Any, row: Row) -> Any:
    """The prompt with the gold answer or solution in its question; the row's own stays as it is."""
    text = question_of(prompt)
    told = (
        with_answer(text, str(row["answer"]))
        if strategy == "answer"
        else with_rationale(text, answer_of(row))
    )
    if isinstance(prompt, str):
        return told
    at = _place(prompt)
    return [*prompt[:at], {**prompt[at], "content": told}, *prompt[at + 1 :]]


def beginning(config: Gsi.Config, tokenizer: Any, row: Row, attempt: int) -> str:
    """The part of the gold solution that the answer begins with: lines where it has several, else tokens."""
    lines = solution_lines(row)
    if config.schedule == "lines" or (config.schedule == "auto" and len(lines) > 1):
        return first_lines(lines, attempt)
    text = "".join(lines).rstrip()
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    return first_tokens(text, [tokenizer.decode(ids[: at + 1]) for at in range(len(ids))], attempt)


def explanations(teacher: Any, rollouts: Rollouts, rows: Sequence[Row], groups: Groups) -> list[str]:
    """What the teacher says about each problem's last wrong response."""
    answers = rollouts.ledger.generate(
        teacher,
        [
            to_teacher(question_of(prompt_of(row)), last_wrong(groups[str(row["id"])]), str(row["answer"]))
            for row in rows
        ],
        purpose="teacher",
        temperature=1.0,
        top_p=0.95,
        seed=rollouts.seed,
        ids=[f"teacher/{rollouts.index}/{row['id']}/{len(groups[str(row['id'])])}" for row in rows],
    )
    return [answer.text.strip() for answer in answers]


def conversation(prompt: Any, said: str, explanation: str) -> list[dict[str, Any]]:
    """The question, the student's response, the teacher's explanation of it.

    A prompt that ends with the beginning of an answer goes on with the response.
    """
    asked = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else list(prompt)
    if asked[-1]["role"] == "assistant":
        said = asked.pop()["content"] + said
    return [
        *asked,
        {"role": "assistant", "content": said or "..."},
        {"role": "user", "content": to_student(explanation)},
    ]


def last_wrong(attempts: Sequence[Attempt]) -> str:
    """The last wrong response, or the last one where all were right."""
    wrong = [attempt.text for attempt in attempts if not attempt.right]
    return wrong[-1] if wrong else attempts[-1].text


def question_of(prompt: Any) -> str:
    """The text of a prompt's question."""
    return prompt if isinstance(prompt, str) else str(prompt[_place(prompt)]["content"])


def _place(messages: Sequence[Any]) -> int:
    """Where the question stands: the user's last message."""
    asked = [place for place, message in enumerate(messages) if message["role"] == "user"]
    return asked[-1] if asked else len(messages) - 1
