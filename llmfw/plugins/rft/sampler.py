"""Sample, judge, keep the right answers; or reward all of them, and say by how much each is better than its
like.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from llmfw import LlmfwError, Round, Row
from llmfw.core.data import Encoder
from llmfw.core.generation import Attempt, Collected, Rollouts, scored_row, self_training
from llmfw.losses.policy_gradient import advantages

if TYPE_CHECKING:
    from .plugin import Rft

_log = logging.getLogger(__name__)


class ObjectiveError(LlmfwError):
    """Settings that don't go with an objective (exit code 2)."""

    exit_code = 2


class NoAdvantageError(LlmfwError):
    """Rewards that teach nothing (exit code 3)."""

    exit_code = 3


class OtherTokensError(LlmfwError):
    """Answers that would be trained as other tokens than were sampled (exit code 3)."""

    exit_code = 3


def rejection_sampling(config: Rft.Config, run: Any) -> Callable[..., Round | None]:
    """The sampler's ``next``.

    Raises:
        ObjectiveError: settings that don't go with ``config.objective``.
        UsageError: a verifier that nobody offers.

    Raises (when it's called):
        NoAdvantageError: the first round's rewards teach nothing; in a later one the rounds end.
        OtherTokensError: of no answer the sampled tokens can be trained.
    """
    if config.objective != "sft":
        check_on_policy(config, run.config.generation)

    def collect(rollouts: Rollouts, rows: Sequence[Row]) -> Collected:
        groups = rollouts.attempt(rows, purpose="sample", samples=config.samples)
        found = Collected(attempts=[attempt for group in groups for attempt in group])
        if config.objective == "sft":
            return found
        weighed = rewarded(found, rewards_of(config.reward, run, found.attempts), rollouts, config.objective)
        if weighed.ends and rollouts.index == 0:
            raise NoAdvantageError(
                "NO-ADVANTAGE",
                weighed.ends,
                mend="give more rft.samples, a higher rft.temperature, other problems or a finer reward",
                key="rft.reward",
            )
        return weighed

    return self_training(config, run, collect, logps=config.objective != "sft", name="rft")


def check_on_policy(config: Rft.Config, generation: Any) -> None:
    """Refuse what makes a round's records no samples, with their log-probs, of the model that is trained.

    Raises:
        ObjectiveError: OBJECTIVE, with all that is to be changed.
    """
    wanted = {
        "rft.gold=false": not config.gold,
        "rft.keep_gold=false": not config.keep_gold,
        "rft.start=last": config.start == "last",
        "rft.temperature=1": config.temperature == 1,
        "generation.top_p=1": generation.top_p == 1,
        "generation.top_k=0": generation.top_k == 0,
    }
    off = [setting for setting, right in wanted.items() if not right]
    if off:
        raise ObjectiveError(
            "OBJECTIVE",
            f"{config.objective} learns from samples of the very model that it trains, with their log-probs",
            mend=f"set {' '.join(off)}; begin with a model that solves some problems (model=...)",
            key="rft.objective",
        )


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

    Raises:
        OtherTokensError: OTHER-TOKENS, no answer would be trained as the tokens that were sampled.
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
    check_tokens(len(kept), len(trained), rollouts.index)
    notes = {
        "reward": sum(value for _, value in kept) / max(1, len(kept)),
        "dropped": 1 - len(trained) / max(1, len(found.attempts)),
    }
    return Collected(attempts=found.attempts, notes=notes, rows=trained)


def check_tokens(rewarded: int, trained: int, index: int) -> None:
    """Tell where most answers are lost because their texts are other tokens in training, or empty.

    Raises:
        OtherTokensError: OTHER-TOKENS, all of them are.
    """
    lost = (
        f"of {rewarded} answers of round {index} {rewarded - trained} are empty, or would be trained as "
        "other tokens than were sampled"
    )
    if rewarded and not trained:
        raise OtherTokensError(
            "OTHER-TOKENS",
            lost,
            mend="train with the chat template and tokenizer that samples, or set rft.objective=sft",
            key="rft.objective",
        )
    if 2 * trained < rewarded:
        _log.warning("warning[OTHER-TOKENS] %s; they aren't trained", lost)


def nothing_told(reward: float, rollouts: Rollouts, objective: str) -> str:
    """Why rewards that are all the same teach nothing, in words."""
    where = "to a problem " if objective == "group_relative" else ""
    return (
        f"all answers {where}of round {rollouts.index} have the same reward (the first {reward:g}), and "
        f"{objective} learns from differences"
    )
