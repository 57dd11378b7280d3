"""A tiny model whose programs have many mistakes, and what training it on the sandbox's rewards changes.

A problem is a chain of operations on a number that a program is to read and print (``n +5 *3``). The texts
from which the model learns to write have mistakes of set shares: most don't compile, some fail, some print
another number.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

import llmfw
from llmfw import Arm

from ..executor import Sandbox
from ..records import Case, Limits, Request

if TYPE_CHECKING:  # it brings torch
    from llmfw import FitResult

MISTAKES: Mapping[str, float] = {"CE": 0.4, "RE": 0.25, "WA": 0.25}
FEW: Mapping[str, float] = {"CE": 0.3, "RE": 0.1, "WA": 0.1}
"""Verdict -> the share of the texts whose program gets it; the rest is right."""
INPUTS = (2, 7)
_LONGEST = 80
"""Bytes of a program at most; 62 is the longest that the texts show."""
_LIMITS = Limits(seconds=2, memory=256)


@dataclass(frozen=True)
class Scale:
    """How much is drawn and trained."""

    texts: int
    steps: int
    """On the texts, 16 each."""
    problems: int
    held_out: int
    rounds: int
    samples: int = 8
    longest: int = 3
    """Operations of a chain at most."""
    mistakes: Mapping[str, float] = field(default_factory=lambda: MISTAKES)


SCALES: Mapping[str, Scale] = {
    "smoke": Scale(texts=80, steps=150, problems=8, held_out=4, rounds=1, samples=4, longest=1, mistakes=FEW),
    "small": Scale(texts=3200, steps=400, problems=64, held_out=64, rounds=4),
    "full": Scale(texts=3200, steps=400, problems=128, held_out=256, rounds=8),
}
Chain = tuple[tuple[str, int], ...]


def chains(seed: int, count: int, longest: int = 3) -> list[Chain]:
    """Different chains of one to ``longest`` operations."""
    random, found = Random(f"mplsandbox chains {seed}"), dict[Chain, None]()
    while len(found) < count:
        length = random.randint(1, longest)
        found[tuple((random.choice("+-*"), random.randint(2, 9)) for _ in range(length))] = None
    return list(found)


def prompt(chain: Chain) -> str:
    """``n +5 *3``"""
    return " ".join(["n", *(f"{sign}{operand}" for sign, operand in chain)])


def program(chain: Chain, mistake: str = "", random: Random | None = None) -> str:
    """The program for a chain, right or with one mistake that has this verdict (CE, RE or WA)."""
    lines = ["n=int(input())", *(f"n=n{sign}{operand}" for sign, operand in chain), "print(n)"]
    draw = random or Random(0)
    at = draw.randint(1, len(chain))
    sign, operand = chain[at - 1]
    if mistake == "CE":
        place = draw.choice((0, at, len(lines) - 1))
        lines[place] = lines[place][:-1]  # a bracket or the operand is missing
    elif mistake == "RE":
        lines[at] = f"n=m{sign}{operand}"
    elif mistake == "WA":
        lines[at] = f"n=n{sign}{operand - 1}"
    return "\n".join(lines)


def result(chain: Chain, value: int) -> int:
    """What the program prints for an input."""
    for sign, operand in chain:
        value = {"+": value + operand, "-": value - operand, "*": value * operand}[sign]
    return value


def texts(seed: int, scale: Scale) -> list[dict[str, Any]]:
    """Programs with their shares of mistakes, for any chains but those held out."""
    asked = chains(seed, scale.held_out + scale.problems, scale.longest)
    held_out, random = set(asked[: scale.held_out]), Random(f"mplsandbox texts {seed}")
    open_to_all = [one for one in chains(seed + 1, scale.texts // 4, scale.longest) if one not in held_out]
    found = []
    for number in range(scale.texts):
        chain = open_to_all[number % len(open_to_all)]
        shares = {**scale.mistakes, "": 1 - sum(scale.mistakes.values())}
        mistake = random.choices(list(shares), list(shares.values()))[0]
        found.append(
            {"id": f"t{number}", "prompt": prompt(chain), "completion": program(chain, mistake, random)}
        )
    return found


def problem(chain: Chain) -> dict[str, Any]:
    """A chain with its tests, as a row."""
    tests = [{"stdin": f"{value}\n", "expected": str(result(chain, value))} for value in INPUTS]
    return {
        "id": prompt(chain).replace(" ", ""), "prompt": prompt(chain), "answer": tests[0]["expected"],
        "solution": program(chain), "tests": tests, "level": len(chain),
    }  # fmt: skip


def arms(seed: int, size: str) -> Mapping[str, Arm]:
    """The model before, and after rounds of rewards by levels or by pass or fail."""
    scale = SCALES[size]
    common = {"trainer.threads": 1, "checkpoint.every": 0, "generation.max_new_tokens": _LONGEST}
    values = partial(_values, seed, scale)
    rewarded = {
        "rft.objective": "group_relative", "rft.reward": "mplsandbox", "rft.verifier": "program",
        "rft.gold": False, "rft.start": "last", "rft.keep_gold": False, "rft.rounds": scale.rounds,
        "rft.samples": scale.samples, "rft.temperature": 1.0, "rft.problems": 0,
        "data.options": {}, "trainer.epochs": 1, "trainer.micro_batch": 32, "optimizer.lr": 1e-4,
    }  # fmt: skip
    return {
        "before": Arm(
            about="the model before any reward",
            prepare=partial(_texts_file, seed, scale),
            settings={
                **common, "model": "tiny-math", "trainer.epochs": None, "trainer.max_steps": scale.steps,
                "trainer.micro_batch": 16, "optimizer.lr": 4e-3,
            },
            values=values,
            own_data=True,
        ),
        **{
            shape: Arm(
                about=f"{scale.rounds} rounds of rewards: {about}",
                plugins=("rft", "mplsandbox"),
                prepare=partial(_problems_files, seed, scale),
                settings={**common, **rewarded, "mplsandbox.reward": shape},
                after="before",
                values=values,
                own_data=True,
            )
            for shape, about in (("levels", "four levels"), ("binary", "pass or fail"))
        },
    }  # fmt: skip


def _texts_file(seed: int, scale: Scale, folder: Path) -> Mapping[str, Any]:
    return {"data": _write(folder / "texts.jsonl", texts(seed, scale)), "data.validation": "0.05"}


def _problems_files(seed: int, scale: Scale, folder: Path) -> Mapping[str, Any]:
    asked = chains(seed, scale.held_out + scale.problems, scale.longest)
    held_out, trained = asked[: scale.held_out], asked[scale.held_out :]
    return {
        "data": _write(folder / "problems.jsonl", map(problem, trained)),
        "data.validation": _write(folder / "held_out.jsonl", map(problem, held_out)),
    }


def _write(file: Path, rows: Any) -> str:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(file)


def _values(seed: int, scale: Scale, trained: FitResult) -> Mapping[str, float]:
    """Of programs sampled for held-out problems the shares that don't compile, fail, print something else and
    are right; the same draws for all arms.

    Raises:
        RuntimeError: the sandbox couldn't judge one.
    """
    asked = chains(seed, scale.held_out, scale.longest)
    answers = llmfw.generate(
        [prompt(chain) for chain in asked], f"model={trained.final}", ids=[prompt(one) for one in asked],
        seed=seed, samples=scale.samples, max_new_tokens=_LONGEST, temperature=1.0, batch_size=64,
    ).completions  # fmt: skip
    told: Counter[str] = Counter()
    for number, chain in enumerate(asked):
        own = answers[number * scale.samples : (number + 1) * scale.samples]
        told += _verdicts(chain, [one.text for one in own])
    named = {"CE": "compile_errors", "RE": "runtime_errors", "WA": "wrong", "OK": "passed"}
    return {name: told[verdict] / len(answers) for verdict, name in named.items()}


def _verdicts(chain: Chain, codes: Sequence[str]) -> Counter[str]:
    cases = [Case(stdin=f"{value}\n", expected=str(result(chain, value))) for value in INPUTS]
    request = Request(code="", lang="python", cases=cases, limits=_LIMITS)
    found: Counter[str] = Counter(
        one.verdict for one in Sandbox().run_many(replace(request, code=code) for code in codes)
    )
    if found["IE"]:
        raise RuntimeError(f"the sandbox failed on {prompt(chain)}")
    return found
