"""Programs that a model wrote for the tasks, and what choosing among them by their visible tests brings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from statistics import mean

import llmfw
from llmfw import Workspace

from ..best_of import best_of
from ..executor import Sandbox
from ..records import Limits, Request
from .tasks import TASKS, Task

MODEL = "smollm2-135m"
_LIMITS = Limits(seconds=2, memory=256)


@dataclass(frozen=True)
class Scale:
    """How much is sampled."""

    tasks: int
    samples: int
    """Programs per task."""
    tokens: int
    """Of a program at most."""
    model: str = MODEL


SCALES: Mapping[str, Scale] = {
    "smoke": Scale(tasks=2, samples=2, tokens=4, model="tiny-llama"),
    "small": Scale(tasks=30, samples=8, tokens=96),
    "full": Scale(tasks=30, samples=32, tokens=160),
}


@cache
def programs(scale: Scale, seed: int) -> tuple[tuple[str, ...], ...]:
    """Each task's programs; sampled once a process, since they are the same for all who choose among them."""
    tasks = TASKS[: scale.tasks]
    answers = llmfw.generate(
        [task.prompt for task in tasks], f"model={scale.model}",
        prefix=[opening(task) for task in tasks], ids=[task.name for task in tasks], seed=seed,
        samples=scale.samples, max_new_tokens=scale.tokens, temperature=0.8, top_p=0.95,
        stop=("```",), batch_size=32,
    ).completions  # fmt: skip
    codes = [f"{tasks[at // scale.samples].head}{answer.text}" for at, answer in enumerate(answers)]
    return tuple(tuple(codes[at : at + scale.samples]) for at in range(0, len(codes), scale.samples))


def opening(task: Task) -> str:
    """How every answer begins: the function's first line in a code block."""
    return f"```python\n{task.head}"


def request_for(task: Task, *, hidden: bool) -> Request:
    """The visible or the hidden tests of a task."""
    cases = task.hidden if hidden else task.visible
    return Request(
        code="", lang="python", mode="call", entry_point=task.name, cases=cases, limits=_LIMITS, id=task.name
    )


def pass_at_1(where: Workspace) -> Mapping[str, list[float]]:
    """The share of a task's programs that pass all hidden tests: what taking one at random brings."""
    return _told([mean(_right(task, codes)) for task, codes in _written(where)])


def first_of(where: Workspace) -> Mapping[str, list[float]]:
    """Whether the first program passes all hidden tests."""
    return _told([_right(task, codes[:1])[0] for task, codes in _written(where)])


def most_frequent(where: Workspace) -> Mapping[str, list[float]]:
    """Whether the program that was written most often passes: choosing without any test."""
    chosen = [(task, max(codes, key=lambda one: codes.count(one))) for task, codes in _written(where)]
    return _told([_right(task, [code])[0] for task, code in chosen])


def best_of_n(where: Workspace) -> Mapping[str, list[float]]:
    """Whether the program that the visible tests like best passes all hidden ones."""
    found = []
    for task, codes in _written(where):
        choice = best_of(Sandbox(), codes, request_for(task, hidden=False))
        found += _right(task, [codes[choice.index]])
    return _told(found)


def pass_at_n(where: Workspace) -> Mapping[str, list[float]]:
    """Whether any program passes: what the best choice could bring."""
    return _told([max(_right(task, codes)) for task, codes in _written(where)])


def _written(where: Workspace) -> list[tuple[Task, tuple[str, ...]]]:
    scale = SCALES[where.size]
    return list(zip(TASKS[: scale.tasks], programs(scale, where.seed), strict=True))


def _right(task: Task, codes: Sequence[str]) -> list[float]:
    """1 for each program that passes all hidden tests; equal programs run once.

    Raises:
        RuntimeError: the sandbox couldn't judge one.
    """
    request = request_for(task, hidden=True)
    each = list(dict.fromkeys(codes))
    found = dict(zip(each, Sandbox().run_many(replace(request, code=one) for one in each)))
    broken = [result for result in found.values() if result.verdict == "IE"]
    if broken:
        raise RuntimeError(f"the sandbox failed in task {task.name}: {broken[0].cases[0].detail}")
    return [float(found[code].verdict == "OK") for code in codes]


def _told(values: list[float]) -> Mapping[str, list[float]]:
    return {"hidden_pass": values}
