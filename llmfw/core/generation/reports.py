"""Measurements of what a model writes that any plugin or run may want."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from llmfw.core.generation.prompts import Prompt
from llmfw.core.generation.sampling import Sampling
from llmfw.core.records import EvaluationResult

_SHOWN = 400
"""Characters of a text in the table."""


def generated_length(
    policy: Any,
    prompts: Sequence[Prompt],
    sampling: Sampling | None = None,
    *,
    name: str = "generated",
    show: int = 5,
) -> EvaluationResult:
    """How long the policy's answers are, in tokens (the end-of-turn token counts).

    Metrics: NAME/length_mean, NAME/length_median, NAME/limit_share (share of answers cut off at the limit),
    NAME/n. Table NAME: the first ``show`` questions and answers. With a limit_share above 0 the mean is a
    lower bound.

    Args:
        sampling: what replaces the policy's own settings (its stop ids stay where ``sampling`` names none).
    """
    changes: dict[str, Any] = {}
    if sampling is not None:
        changes = {key: getattr(sampling, key) for key in Sampling.__dataclass_fields__}
        if not sampling.stop_ids:
            del changes["stop_ids"]
    answers = policy.generate(list(prompts), **changes)
    if not answers:
        return EvaluationResult(metrics={f"{name}/n": 0.0})
    lengths = [answer.tokens for answer in answers]
    samples = len(answers) // len(prompts)
    rows = [
        {
            "prompt": _text(prompts[index // samples])[:_SHOWN],
            "answer": answer.text[:_SHOWN],
            "tokens": answer.tokens,
            "finish": answer.finish,
        }
        for index, answer in enumerate(answers[:show])
    ]
    metrics = {
        f"{name}/length_mean": statistics.fmean(lengths),
        f"{name}/length_median": float(statistics.median(lengths)),
        f"{name}/limit_share": statistics.fmean(answer.finish == "length" for answer in answers),
        f"{name}/n": float(len(answers)),
    }
    return EvaluationResult(metrics=metrics, tables={name: rows})


def _text(prompt: Prompt) -> str:
    if isinstance(prompt, str):
        return prompt
    last = prompt[-1]
    return f"{len(prompt)} tokens" if isinstance(last, int) else str(last["content"])
