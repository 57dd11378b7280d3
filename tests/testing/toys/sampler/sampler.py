"""The records of a round."""

from __future__ import annotations

from typing import Any

from llmfw import Policy, Round, Row


def next_round(
    index: int, rows: list[Row], policy: Policy, services: Any, ledger: Any, *, own: int
) -> Round | None:
    """The rows, then the model's answers to the first ``own`` prompts; one round."""
    if index == 1:
        return None
    prompts = [row["prompt"] for row in rows[:own]]
    answers = ledger.generate(policy, prompts, purpose="own")
    made = [
        {"id": f"own-{number}", "prompt": prompt, "completion": f"{answer.text}!"}
        for number, (prompt, answer) in enumerate(zip(prompts, answers))
    ]
    return Round(records=[*rows, *made], notes={"own": float(len(made))})
