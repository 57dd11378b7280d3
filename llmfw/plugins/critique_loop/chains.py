"""Answer, critique, refinement at test time: K chains side by side, or one that goes on for rounds; and what
was generated for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from llmfw import Row, Verifier
from llmfw.core.generation import prompt_of

from .asking import Messages, fits, to_critic, to_refine
from .critics import Critic, criticised, read
from .grammar import Critique, Form
from .settings import CritiqueLoopConfig


@dataclass(frozen=True)
class Said:
    """A response, judged. ``tokens``: generated for it, its critique included; ``critique`` is the one that
    it answers, None for a first answer or one that couldn't be read.
    """

    text: str
    answer: str | None
    right: bool
    tokens: int
    words: str = ""
    critique: Critique | None = None


@dataclass
class Course:
    """One chain: the first answer, then a refinement a round (or the same response once more, where none was
    asked for).
    """

    row: Row
    said: list[Said] = field(default_factory=list)

    @property
    def tokens(self) -> int:
        """Generated, all calls."""
        return sum(one.tokens for one in self.said)


@dataclass(frozen=True)
class Roles:
    """Who acts at test time. ``temperature`` is the actor's; a critic is greedy."""

    actor: Any
    critic: Critic
    judge: Verifier
    form: Form
    config: CritiqueLoopConfig
    temperature: float
    seed: int


def answers(roles: Roles, rows: Sequence[Row], samples: int, mark: str) -> list[list[Said]]:
    """For each row its first answers."""
    given = roles.actor.generate(
        [prompt_of(row) for row in rows],
        temperature=roles.temperature,
        samples=samples,
        seed=roles.seed,
        ids=[f"{mark}/{row['id']}" for row in rows],
    )
    found = judged(roles.judge, [row for row in rows for _ in range(samples)], given)
    return [found[at : at + samples] for at in range(0, len(found), samples)]


def courses(roles: Roles, rows: Sequence[Row], chains: int, rounds: int, mark: str) -> list[list[Course]]:
    """For each row ``chains`` courses of ``rounds`` rounds."""
    begun = answers(roles, rows, chains, mark)
    found = [[Course(row, [said]) for said in group] for row, group in zip(rows, begun, strict=True)]
    flat = [(course, at) for group in found for at, course in enumerate(group)]
    for number in range(rounds):
        _further(roles, flat, f"{mark}/{number}")
    return found


def _further(roles: Roles, courses: Sequence[tuple[Course, int]], mark: str) -> None:
    """Criticise each course's last response and refine it."""
    config = roles.config
    prompts = [to_critic(course.row, course.said[-1].text, roles.form) for course, _ in courses]
    short = [at for at, prompt in enumerate(prompts) if fits(roles.critic.policy, prompt)]

    def generate(policy: Any, asked: Sequence[Messages], **sampling: Any) -> list[Any]:
        return list(policy.generate(asked, **sampling)) if asked else []

    said = dict(
        zip(
            short,
            criticised(roles.critic, [prompts[at] for at in short], generate, config.critique_tokens),
            strict=True,
        )
    )
    refined: list[tuple[int, Messages]] = []
    for at, (course, _) in enumerate(courses):
        last = course.said[-1]
        words = said[at].text if at in said else ""
        critique = read(roles.critic, words, roles.form)
        spent = said[at].tokens if at in said else 0
        course.said.append(replace(last, tokens=spent, words=words, critique=critique))
        prompt = to_refine(course.row, last.text, words, roles.form)
        if at in said and _wanted(config.refine, critique, last) and fits(roles.actor, prompt):
            refined.append((at, prompt))
    if not refined:
        return
    given = roles.actor.generate(
        [prompt for _, prompt in refined],
        temperature=roles.temperature,
        samples=1,
        seed=roles.seed,
        ids=[f"{mark}/{courses[at][0].row['id']}/{courses[at][1]}" for at, _ in refined],
    )
    texts = judged(roles.judge, [courses[at][0].row for at, _ in refined], given)
    for (at, _), new in zip(refined, texts, strict=True):
        said_of = courses[at][0].said
        spent, words = said_of[-1].tokens, said_of[-1].words
        said_of[-1] = replace(new, tokens=new.tokens + spent, words=words, critique=said_of[-1].critique)


def _wanted(refine: str, critique: Critique | None, last: Said) -> bool:
    if refine == "flagged":
        return critique is not None and not (critique.correct and critique.first_error is None)
    return refine == "all" or not last.right


def judged(judge: Verifier, rows: Sequence[Row], given: Sequence[Any]) -> list[Said]:
    """Completions with their verdicts; one that was cut is never right."""
    verdicts = judge.verify(rows, [one.text for one in given])
    return [
        Said(one.text, verdict.answer, verdict.right and one.finish == "stop", one.tokens)
        for one, verdict in zip(given, verdicts, strict=True)
    ]
