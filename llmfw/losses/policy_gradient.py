"""Losses over completions with rewards: REINFORCE with a baseline, clipped ratios, a pull to the reference.

Shapes: N trained tokens laid end to end, S segments (completions). Log-probs in nats.

Advantages are made where all answers to a prompt are at hand, which is when they are sampled, not in a batch:
``advantages`` turns rewards and groups into them. The loss is a sum over tokens, or over completions
(``per_sequence``: each completion's mean over its tokens), which the core divides by their number in the
whole step.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from typing import Literal

import torch
from torch import Tensor

from llmfw.core.batch import Batch, LossOutput
from llmfw.core.errors import ConflictError
from llmfw.core.records import Policy
from llmfw.losses.common import check_choice, check_setting, reference_logps, segment_sums

Baseline = Literal["none", "mean", "group", "leave_one_out"]
BASELINES = ("none", "mean", "group", "leave_one_out")


def advantages(
    rewards: Sequence[float],
    groups: Sequence[Hashable],
    *,
    baseline: Baseline = "group",
    scale: bool = False,
    epsilon: float = 1e-4,
) -> list[float]:
    """One advantage per reward, in order: the reward minus a baseline.

    Args:
        groups: what each reward's prompt is; the answers to one prompt are a group.
        baseline: ``none``: 0; ``mean`` of all rewards (REINFORCE); ``group``: of the group's (GRPO, arXiv
            2402.03300, eq. 3; unscaled as in arXiv 2503.20783); ``leave_one_out``: mean of the others of the
            group (RLOO, arXiv 2402.14740), 0 for a group of one.
        scale: divide by the group's standard deviation (of the population) plus ``epsilon``; by that of all
            rewards where the baseline is none or mean. A group of equal rewards has advantages of 0.

    Raises:
        ValueError: rewards and groups aren't as many.
        UsageError: another baseline.
    """
    check_choice("baseline", baseline, BASELINES)
    if len(rewards) != len(groups):
        raise ValueError(f"{len(rewards)} rewards and {len(groups)} groups")
    whole = baseline in ("none", "mean")
    members: dict[Hashable, list[int]] = defaultdict(list)
    for index, group in enumerate(groups):
        members[None if whole else group].append(index)
    found = [0.0] * len(rewards)
    for indices in members.values():
        own = [rewards[index] for index in indices]
        mean = math.fsum(own) / len(own)
        deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in own) / len(own))
        for index, value in zip(indices, own, strict=True):
            if baseline == "none":
                under = 0.0
            elif baseline == "leave_one_out":
                under = (math.fsum(own) - value) / (len(own) - 1) if len(own) > 1 else value
            else:
                under = mean
            found[index] = value - under
            if scale and found[index]:
                found[index] /= deviation + epsilon
    return found


def surrogate(logps: Tensor, old: Tensor, advantage: Tensor, *, clip: float | None) -> Tensor:
    """[N] minus the objective of each token; ``advantage`` [N] is its completion's.

    With r = exp(logp - old): -min(r A, clamp(r, 1 - clip, 1 + clip) A), arXiv 1707.06347, eq. 7; without a
    clip -r A. Where ``old`` is the log-prob itself, detached, r is 1 and the gradient is REINFORCE's,
    -A grad logp.
    """
    ratio = (logps - old).exp()
    if clip is None:
        return -ratio * advantage
    return -torch.minimum(ratio * advantage, ratio.clamp(1 - clip, 1 + clip) * advantage)


def reference_gap(logps: Tensor, reference: Tensor) -> Tensor:
    """[N] estimates of KL(policy || reference) at the sampled tokens: exp(d) - d - 1 with d = reference -
    logp; never negative, unbiased under the policy (arXiv 2402.03300, eq. 4).
    """
    difference = reference.to(logps.dtype) - logps
    return difference.exp() - difference - 1


def policy_gradient_loss(
    *, clip: float | None = None, beta: float = 0.0, per_sequence: bool = False
) -> Callable[[Policy, Batch, Policy | None], LossOutput]:
    """The ``call`` of a ``Loss`` record over ``scored`` batches.

    The batch's ``extra`` has ``advantage`` [S], or else ``reward`` [S] stands for it, and, where the
    policy that sampled isn't the present one, ``old_logps`` [N]; without these the ratio is 1.

    Args:
        clip: bound of the ratio, above 0 and below 1; None: no bound.
        beta: weight of ``reference_gap``; 0 asks for no reference.
        per_sequence: unit ``sequences`` (each completion's mean over its tokens, arXiv 2402.03300); otherwise
            unit ``tokens`` (every token counts alike, arXiv 2503.14476).

    Logged: ``reward``, ``advantage``, ``ratio``, ``clipped`` (share of tokens whose gradient the clip has
    taken away), ``kl`` (nats per token, where there's a reference), ``length``.

    Raises:
        UsageError: a setting outside its range.
    """
    check_setting("beta", beta, low=0.0)
    if clip is not None:
        check_setting("clip", clip, above=0.0, high=1.0)

    def call(policy: Policy, batch: Batch, reference: Policy | None) -> LossOutput:
        logps = policy.logps(batch)
        score = batch.extra.get("advantage", batch.extra.get("reward"))
        if score is None or score.shape[0] != batch.segments:
            raise ConflictError(
                "LOSS-REWARD",
                "the loss wants a reward for each completion, and the batch has none",
                mend="give the rows a reward, or choose another loss",
            )
        old = batch.extra.get("old_logps")
        old = logps.detach() if old is None else old.to(logps.dtype)
        advantage = score.to(logps.dtype)[batch.segment]
        values = surrogate(logps, old, advantage, clip=clip)
        metrics: dict[str, tuple[Tensor | float, Tensor | float]] = {}
        if beta:
            gap = reference_gap(logps, reference_logps(batch, reference))
            values = values + beta * gap
            metrics["kl"] = (gap.detach().sum(), batch.tokens)
        total = values.sum()
        if per_sequence:
            total = (segment_sums(values, batch.segment, batch.segments) / batch.length.clamp(min=1)).sum()
        with torch.no_grad():
            ratio = (logps - old).exp()
            metrics |= {
                "advantage": (score.sum(), batch.segments),
                "length": (batch.length.sum(), batch.segments),
                "ratio": (ratio.sum(), batch.tokens),
            }
            if "reward" in batch.extra:
                metrics["reward"] = (batch.extra["reward"].sum(), batch.segments)
            if clip is not None:
                gone = torch.where(advantage > 0, ratio > 1 + clip, (ratio < 1 - clip) & (advantage < 0))
                metrics["clipped"] = (gone.sum(), batch.tokens)
        return LossOutput(total=total, metrics=metrics)

    return call
