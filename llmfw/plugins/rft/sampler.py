"""Sample, judge, keep the right answers; or reward all of them, and say by how much each is better than its
like.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from llmfw import LlmfwError, Round, Row
from llmfw.core.data import Encoder
from llmfw.core.generation import Attempt, Collected, Rollouts, scored_row, self_training
from llmfw.losses.policy_gradient import advantages

if TYPE_CHECKING:
    from .plugin import Rft


class NoAdvantageError(LlmfwError):
    """Rewards that teach nothing (exit code 3)."""

    exit_code = 3


def rejection_sampling(config: Rft.Config, run: Any) -> Callable[..., Round | None]:
    """The sampler's ``next``.

    Raises (when it's called):
        NoAdvantageError: the first round's rewards teach nothing; in a later one the rounds end.
    """

    def collect(rollouts: Rollouts, rows: Sequence[Row]) -> Collected:
        groups = rollouts.attempt(rows, purpose="sample", samples=config.samples)
        found = Collected(attempts=[attempt for group in groups for attempt in group])
        if config.objective == "sft":
            return found
        weighed = rewarded(found, rewards_of(config.reward, run, found.attempts), rollouts, config.objective)
        if weighed.ends and rollouts.index == config.gold:
            raise NoAdvantageError(
                "NO-ADVANTAGE",
                weighed.ends,
                mend="give more rft.samples, a higher rft.temperature, other problems or a finer reward",
                key="rft.reward",
            )
        return weighed

    return self_training(config, run, collect, logps=config.objective != "sft", name="rft")


def rewards_of(service: str, run: Any, attempts: Sequence[Attempt]) -> list[float | None]:
    """The attempts' rewards: of a service, or 1 for a right one and 0 for a wrong one. None: nobody could
    tell, the attempt is dropped.
    """
    if not service:
        return [None if one.verdict.status == "failed" else float(one.right) for one in attempts]
    given: list[float | None] = run.service("Reward", service).rewards(
        [one.row for one in attempts], [one.text for one in attempts]
    )
    return given


def rewarded(
    found: Collected, rewards: Sequence[float | None], rollouts: Rollouts, objective: str
) -> Collected:
    """The same with the records of all attempts that have a reward, and whose tokens are what was sampled; it
    ends the rounds where no answer is better than its like.
    """
    encoder = Encoder(rollouts.policy.tokenizer, max_length=1 << 30)
    kept = [(one, value) for one, value in zip(found.attempts, rewards, strict=True) if value is not None]
    grouped = objective == "group_relative"
    gains = advantages(
        [value for _, value in kept],
        [str(one.row["id"]) for one, _ in kept],
        baseline="group" if grouped else "mean",
        scale=grouped,
    )
    if kept and not any(gains):
        return Collected(attempts=found.attempts, ends=nothing_told(kept[0][1], rollouts, objective))
    rows = [
        scored_row(one, rollouts.index, encoder, reward=value, advantage=gain)
        for (one, value), gain in zip(kept, gains, strict=True)
    ]
    trained = [row for row in rows if row is not None]
    notes = {
        "reward": sum(value for _, value in kept) / max(1, len(kept)),
        "dropped": 1 - len(trained) / max(1, len(found.attempts)),
    }
    return Collected(attempts=found.attempts, notes=notes, rows=trained)


def nothing_told(reward: float, rollouts: Rollouts, objective: str) -> str:
    """Why rewards that are all the same teach nothing, in words."""
    where = "to a problem " if objective == "group_relative" else ""
    return (
        f"all answers {where}of round {rollouts.index} have the same reward (the first {reward:g}), and "
        f"{objective} learns from differences"
    )
