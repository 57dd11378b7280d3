"""Preference losses that know nothing of layouts: token weights, sums over segments, a margin, a link.

Shapes: N trained tokens laid end to end, S segments (completions), P = S / 2 pairs; the segments of a batch
are ordered [all chosen; all rejected], so pair p owns segments p and P + p. Log-probs in nats.

A method is an ``Objective``, made of small functions: ``weights(position, length, partner_length) -> [N]``
says how much each token counts (position is 1-based within its completion, the lengths are those of its own
completion and of the other side), and ``link(difference, gap) -> [P]`` turns each pair's difference of
scores into a loss. Padded, packed and shared-prompt batches call the same functions.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from llmfw.core.batch import Batch, LossOutput
from llmfw.core.errors import ConflictError
from llmfw.core.records import Policy
from llmfw.losses.common import check_choice as check_choice
from llmfw.losses.common import check_setting as check_setting
from llmfw.losses.common import reference_logps
from llmfw.losses.common import segment_sums as segment_sums

Weights = Callable[[Tensor, Tensor, Tensor], Tensor]
Link = Callable[[Tensor, Tensor], Tensor]


# How much a token counts


def choose(condition: Tensor, yes: float, no: float) -> Tensor:
    """``yes`` where the condition holds, else ``no``; float64, to be rounded once (to the log-probs')."""
    wide = torch.float32 if condition.device.type == "mps" else torch.float64
    return torch.full(condition.shape, no, dtype=wide, device=condition.device).masked_fill_(condition, yes)


def every_token(position: Tensor, length: Tensor, partner_length: Tensor) -> Tensor:
    """All tokens count alike: the plain sum."""
    return torch.ones_like(position, dtype=torch.get_default_dtype())


def shared_length(position: Tensor, length: Tensor, partner_length: Tensor) -> Tensor:
    """As many tokens as the shorter side has count, the rest does not."""
    return choose(position <= torch.minimum(length, partner_length), 1.0, 0.0)


def in_order(batch: Batch) -> Tensor:
    """[N] each token's own position, 1-based."""
    return batch.position


def shuffled_positions(batch: Batch, *, seed: int) -> Tensor:
    """[N] positions in an order drawn for each completion from (seed, sample id, side) alone."""
    pairs, orders = batch.segments // 2, []
    for segment, length in enumerate(batch.length.tolist()):
        side, pair = divmod(segment, pairs)
        name = f"{seed}\0{side}\0{batch.sample_ids[pair]}".encode()
        draw = torch.Generator().manual_seed(
            int.from_bytes(hashlib.sha256(name).digest()[:8], "big", signed=True)
        )
        orders.append(torch.randperm(length, generator=draw) + 1)
    return torch.cat(orders or [batch.position.cpu()]).to(batch.position.device)


# From tokens to pairs


def split_pairs(values: Tensor) -> tuple[Tensor, Tensor]:
    """[S] -> (chosen [P], rejected [P])."""
    if values.shape[0] % 2:
        raise ValueError(f"pairs need an even number of segments, not {values.shape[0]}")
    pairs = values.shape[0] // 2
    return values[:pairs], values[pairs:]


def partner(values: Tensor) -> Tensor:
    """[S] -> [S]: what the other side of each segment's pair has."""
    chosen, rejected = split_pairs(values)
    return torch.cat([rejected, chosen])


def margins(values: Tensor) -> Tensor:
    """[S] -> [P]: chosen minus rejected."""
    chosen, rejected = split_pairs(values)
    return chosen - rejected


# Links: from a pair's difference of scores (nats, [P]) and of lengths (tokens, [P]) to its loss [P]


def sigmoid(difference: Tensor, gap: Tensor, *, beta: float) -> Tensor:
    """DPO: -log sigmoid(beta * difference), arXiv 2305.18290."""
    return -F.logsigmoid(beta * difference)


def ipo(difference: Tensor, gap: Tensor, *, beta: float) -> Tensor:
    """IPO: (difference - 1 / (2 beta))^2, arXiv 2310.12036; the scores are means over tokens."""
    return (difference - 0.5 / beta).square()


def length_bonus(difference: Tensor, gap: Tensor, *, beta: float, bonus: float) -> Tensor:
    """R-DPO: -log sigmoid(beta * difference + bonus * gap), arXiv 2403.19159."""
    return -F.logsigmoid(beta * difference + bonus * gap)


def target_margin(difference: Tensor, gap: Tensor, *, beta: float, gamma: float) -> Tensor:
    """SimPO: -log sigmoid(beta * difference - gamma), arXiv 2405.14734; the scores are mean log-probs."""
    return -F.logsigmoid(beta * difference - gamma)


# Methods


@dataclass(frozen=True, kw_only=True)
class Objective:
    """One preference loss.

    ``beta`` turns nats into rewards. ``reference_weights`` None: the reference is weighted as the policy is.
    ``per_token``: scores are means over the completion's tokens. ``reference`` False: none is used.

    Raises:
        UsageError: beta not above 0.
        ConflictError: token weights together with ``per_token``: no paper says what to divide by.
    """

    beta: float
    link: Link
    weights: Weights = every_token
    reference_weights: Weights | None = None
    positions: Callable[[Batch], Tensor] = in_order
    per_token: bool = False
    reference: bool = True

    def __post_init__(self) -> None:
        check_setting("beta", self.beta, above=0.0)
        if self.per_token and not self.plain:
            raise ConflictError(
                "LOSS-WEIGHTS",
                "token weights and a length-normalised loss (ipo, simpo) are undefined together",
                mend="choose a loss over sums, such as sigmoid",
            )

    @property
    def plain(self) -> bool:
        """Whether every token counts alike, for policy and reference."""
        return self.weights is every_token and self.reference_weights in (None, every_token)


def dpo(*, beta: float) -> Objective:
    """Direct preference optimisation (arXiv 2305.18290)."""
    return Objective(beta=beta, link=partial(sigmoid, beta=beta))


def identity_po(*, beta: float) -> Objective:
    """IPO (arXiv 2310.12036), over mean log-ratios as TRL has it."""
    return Objective(beta=beta, link=partial(ipo, beta=beta), per_token=True)


def r_dpo(*, beta: float, bonus: float) -> Objective:
    """R-DPO (arXiv 2403.19159): a margin bonus for the longer chosen side."""
    return Objective(beta=beta, link=partial(length_bonus, beta=beta, bonus=bonus))


def simpo(*, beta: float, gamma: float) -> Objective:
    """SimPO (arXiv 2405.14734): mean log-probs, a target margin, no reference."""
    link = partial(target_margin, beta=beta, gamma=gamma)
    return Objective(beta=beta, link=link, per_token=True, reference=False)


def sampo(*, beta: float, seed: int) -> Objective:
    """SamPO: on the longer side as many random tokens as the shorter one has; the same in the reference."""
    link = partial(sigmoid, beta=beta)
    return Objective(
        beta=beta, link=link, weights=shared_length, positions=partial(shuffled_positions, seed=seed)
    )


# The loss


def scores(
    objective: Objective,
    logps: Tensor,
    reference: Tensor | None,
    *,
    segment: Tensor,
    position: Tensor,
    length: Tensor,
) -> Tensor:
    """[S] the completions' weighted log-ratios (log-probs if there is no reference): sums or means, in nats.

    Each token's terms are subtracted before they are summed: a policy that is its reference scores exactly 0.
    """
    lengths = (length[segment], partner(length)[segment])
    weights = objective.weights(position, *lengths).to(logps.dtype)
    values = logps * weights
    if reference is not None:
        if objective.reference_weights is not None:
            weights = objective.reference_weights(position, *lengths).to(logps.dtype)
        values = values - reference.to(logps.dtype) * weights
    sums = segment_sums(values, segment, length.shape[0])
    return sums / length.clamp(min=1) if objective.per_token else sums


def pair_losses(
    objective: Objective,
    logps: Tensor,
    reference: Tensor | None,
    *,
    segment: Tensor,
    position: Tensor,
    length: Tensor,
) -> Tensor:
    """[P] losses from [N] log-probs of policy and reference (left unread where the objective uses none)."""
    given = reference if objective.reference else None
    found = scores(objective, logps, given, segment=segment, position=position, length=length)
    return objective.link(margins(found), margins(length).to(found.dtype))


def preference_loss(objective: Objective) -> Callable[[Policy, Batch, Policy | None], LossOutput]:
    """The ``call`` of a ``Loss`` record over ``preference`` batches, with unit ``pairs``.

    Logged, as sums and counts: ``rewards/*`` and ``logps/*`` with every token counted alike, comparable
    between all settings; where the loss weighs tokens also ``rewards_weighted/*`` and ``logps_weighted/*``,
    what it really sees; ``rewards/accuracies/chosen_longer``, ``/rejected_longer`` and ``/equal_length``,
    over the pairs of that kind; ``length/chosen``, ``length/rejected`` (tokens), ``length/equal`` (share).
    Details, [P]: ``margin`` (of the rewards), ``weighted_margin`` (what the link sees, times beta) and
    ``length_gap`` (chosen minus rejected, tokens).
    """

    def call(policy: Policy, batch: Batch, reference: Policy | None) -> LossOutput:
        logps = policy.logps(batch)
        given = reference_logps(batch, reference) if objective.reference else None
        where = {"segment": batch.segment, "position": objective.positions(batch), "length": batch.length}
        gap = margins(batch.length)
        found = scores(objective, logps, given, **where)
        total = objective.link(margins(found), gap.to(found.dtype)).sum()
        with torch.no_grad():
            seen = found.detach()
            plain = seen
            if not objective.plain:
                unweighted = Objective(beta=objective.beta, link=objective.link)
                plain = scores(unweighted, logps.detach(), given, **where)
            metrics = _rewards("rewards", objective.beta * plain)
            metrics |= _sums("logps", segment_sums(logps.detach(), batch.segment, batch.segments))
            metrics |= _sums("length", batch.length)
            metrics["length/equal"] = ((gap == 0).sum(), gap.shape[0])
            won = margins(plain) > 0
            for name, kind in (
                ("chosen_longer", gap > 0),
                ("rejected_longer", gap < 0),
                ("equal_length", gap == 0),
            ):
                metrics[f"rewards/accuracies/{name}"] = ((won & kind).sum(), kind.sum())
            if not objective.plain:
                metrics |= _rewards("rewards_weighted", objective.beta * seen)
                weighted = scores(objective, logps.detach(), None, **where)
                metrics |= _sums("logps_weighted", weighted)
        details = {
            "margin": objective.beta * margins(plain),
            "weighted_margin": objective.beta * margins(seen),
            "length_gap": gap,
        }
        return LossOutput(total=total, metrics=metrics, details=details)

    return call


Metrics = dict[str, tuple[Tensor | float, Tensor | float]]


def _sums(name: str, values: Tensor) -> Metrics:
    chosen, rejected = split_pairs(values)
    return {
        f"{name}/chosen": (chosen.sum(), len(chosen)),
        f"{name}/rejected": (rejected.sum(), len(rejected)),
    }


def _rewards(name: str, values: Tensor) -> Metrics:
    margin = margins(values)
    return _sums(name, values) | {
        f"{name}/margins": (margin.sum(), len(margin)),
        f"{name}/accuracies": ((margin > 0).sum(), len(margin)),
    }
