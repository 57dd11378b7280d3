"""Problems, and scripted actors and critics, that the tests of this folder share."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from llmfw import LlmfwError
from llmfw.core.data import answer_of
from llmfw.core.generation import ScriptedPolicy
from llmfw.core.rounds import Ledger
from llmfw.core.verifiers import build
from llmfw.plugins.critique_loop.plugin import CritiqueLoop
from llmfw.plugins.critique_loop.sampler import critique_loop
from tests.toys import runs

Config = CritiqueLoop.Config


def chain_row(start: int, *operations: tuple[str, int]) -> dict[str, Any]:
    """A row as the preset ``chain-arithmetic`` makes it."""
    value, steps, before = start, [], start
    for sign, operand in operations:
        value = {"+": before + operand, "-": before - operand, "*": before * operand}[sign]
        steps.append(f"{before}{sign}{operand}={value}")
        before = value
    prompt = " ".join([str(start), *(f"{sign}{operand}" for sign, operand in operations)])
    return {
        "id": prompt.replace(" ", ""), "prompt": prompt, "answer": str(value), "solution": steps,
        "level": len(operations),
        "meta": {"start": start, "operations": [list(one) for one in operations], "style": "compact"},
    }  # fmt: skip


ROWS = [chain_row(n, ("+", 2), ("*", 3), ("-", 1)) for n in range(1, 7)]
"""1 +2 *3 -1 to 6 +2 *3 -1: solved by 1+2=3, 3*3=9, 9-1=8, Answer: 8, and so on."""
BY_PROMPT = {row["prompt"]: row for row in ROWS}
WRONG = "Answer: 0"


def row_of(prompt: Any) -> dict[str, Any]:
    return BY_PROMPT[prompt if isinstance(prompt, str) else prompt[0]["content"]]


def is_refinement(prompt: Any) -> bool:
    return not isinstance(prompt, str)


def gold(prompt: Any) -> str:
    return answer_of(row_of(prompt))


def slipped(row: dict[str, Any]) -> str:
    """The row's solution with a wrong second step, carried on."""
    first = row["solution"][0]
    value = int(first.rpartition("=")[2])
    return f"{first}\n{value}*3={value * 3 + 1}\n{value * 3 + 1}-1={value * 3}\nAnswer: {value * 3}"


class Actor:
    """Plays a model: ``answer(prompt, prefix) -> text``; remembers what it's asked."""

    def __init__(self, answer: Callable[[Any, str], str]) -> None:
        self.answer, self.tokenizer = answer, None
        self.asked: list[Any] = []

    @property
    def module(self) -> Any:
        raise NotImplementedError

    def generate(self, prompts: Sequence[Any], *, prefix: Any = "", **sampling: Any) -> Any:
        openings = [prefix] * len(prompts) if isinstance(prefix, str) else list(prefix)
        self.asked += [prompt for prompt in prompts for _ in range(sampling.get("samples", 1))]
        opening = {id(prompt): text for prompt, text in zip(prompts, openings, strict=True)}
        policy = ScriptedPolicy(lambda asked: [self.answer(one, opening[id(one)]) for one in asked])
        return policy.generate(prompts, prefix=prefix, **sampling)


def drawn(p: float, seed: int = 0, *, refined: float | None = None) -> Actor:
    """Right with chance ``p`` at first, and ``refined`` (None: p) when it refines."""
    draw = random.Random(seed)

    def answer(prompt: Any, prefix: str) -> str:
        chance = refined if refined is not None and is_refinement(prompt) else p
        whole = gold(prompt) if draw.random() < chance else slipped(row_of(prompt))
        return whole.removeprefix(prefix) if whole.startswith(prefix) else WRONG

    return Actor(answer)


def follower(response: Callable[[dict[str, Any]], str] = slipped) -> Actor:
    """Wrong at first; it copies its answer, except for the first step that a critique (compact form) calls
    wrong: from there on it calculates anew.
    """

    def answer(prompt: Any, prefix: str) -> str:
        if not is_refinement(prompt):
            return response(row_of(prompt)).removeprefix(prefix)
        said = prompt[-1]["content"]
        return gold(prompt) if "|no|" in said else str(prompt[-2]["content"])

    return Actor(answer)


def run_of(folder: Path, **policies: Any) -> Any:
    """What a sampler sees of a run."""

    def identity(name: str) -> str:
        if name not in policies:
            raise LlmfwError("RUN-POLICY", f"there is no auxiliary model {name!r} yet", mend="set it")
        return name

    return SimpleNamespace(
        seed=7,
        dir=folder,
        policy=lambda name: policies[name],
        identity=identity,
        expect_service=runs.run_of().expect_service,
        expect_policy=runs.run_of(policies=policies).expect_policy,
        config=SimpleNamespace(models={}),
        rows=lambda split: ROWS,
    )


def service(protocol: str, name: str | None = None) -> Any:
    return build(protocol, name or "number", lambda *given: None)


LOOP: dict[str, Any] = {
    "gold": False, "feedback": False, "critic": "oracle", "form": "compact", "rounds": 1, "samples": 4,
}  # fmt: skip
"""One round of the loop and nothing before it."""


def sampled(folder: Path, actor: Any, *, policies: Any = None, **settings: Any) -> tuple[Any, Ledger]:
    """(the first round of the sampler, its ledger)."""
    run = run_of(folder, **(policies or {}))
    make = critique_loop(Config(**{**LOOP, **settings}), run)
    with (ledger := Ledger(folder)).sampling(0):
        found = make(0, ROWS, actor, service, ledger)
    return found, ledger


@pytest.fixture(scope="session")
def roles() -> Any:
    """Everything above: a conftest can't be imported."""
    return SimpleNamespace(**globals())
