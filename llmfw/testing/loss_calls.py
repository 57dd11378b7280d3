"""A plugin's loss, called on small batches by a tiny model: what laws of losses look at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from llmfw.testing.pairs import Pair, lay_out, random_pairs

if TYPE_CHECKING:
    from llmfw.core.assemble import Assembled
    from llmfw.core.batch import Batch, LossOutput
    from llmfw.core.data import Example
    from llmfw.core.records import Loss, Policy
    from llmfw.testing.subject import Subject

LENGTHS = [(3, 6, 2), (2, 2, 5), (4, 4, 4), (1, 1, 1)]
"""(prompt, chosen, rejected) tokens; of texts (prompt, answer, not used)."""


@dataclass(frozen=True, kw_only=True)
class Bench:
    """The loss of a run, with a policy and another model as its reference. ``extras``: names and values that
    the run's own samples carry beside their tokens; ``refused``: layouts that some surgery can't bear.
    """

    loss: Loss
    policy: Policy
    reference: Policy
    extras: Mapping[str, Any]
    refused: frozenset[str]
    pad_id: int

    def call(self, batch: Batch, policy: Any = None, reference: Any = None) -> LossOutput:
        """The loss's answer; the reference only where it's asked for."""
        given = (reference or self.reference) if self.loss.needs_reference else None
        answer: LossOutput = self.loss.call(policy or self.policy, batch, given)
        return answer

    def batch(self, pairs: Sequence[Pair], layout: str = "right") -> Batch:
        """The samples in a layout: right, left, wide (more columns than needed), packed, shared_prompt."""
        if self.loss.batch_kind != "preference":
            return self._texts(pairs, layout)
        how: Any = "right" if layout == "wide" else layout
        batch = lay_out(pairs, how, extra_columns=5 if layout == "wide" else 0, pad_id=self.pad_id)
        prompts = torch.tensor([len(pair.prompt) for pair in pairs] * 2)
        others = {name: torch.tensor([value] * len(prompts)) for name, value in self.extras.items()}
        return replace(batch, extra={"prompt_length": prompts, **others})

    def _texts(self, pairs: Sequence[Pair], layout: str) -> Batch:
        from llmfw.core.data import collate, pack
        from llmfw.testing.layouts import on_the_left

        examples = [self._example(pair) for pair in pairs]
        if layout == "packed":
            examples = pack(examples, sum(example.length for example in examples))
        batch = collate(examples, self.pad_id, pad_to_multiple=16 if layout == "wide" else 1)
        return on_the_left(batch) if layout == "left" else batch

    def _example(self, pair: Pair) -> Example:
        from llmfw.core.data import Example, TokenSequence

        flags = (False,) * len(pair.prompt) + (True,) * len(pair.chosen)
        sequence = TokenSequence((*pair.prompt, *pair.chosen), flags)
        extra = {"prompt_length": len(pair.prompt), **self.extras}
        kind: Any = self.loss.batch_kind
        return Example(id=pair.id, kind=kind, sequences=(sequence,), extra=extra)

    @property
    def layouts(self) -> tuple[str, ...]:
        """The layouts beside right padding in which the loss may be met."""
        from llmfw.core.generation.caches import forward_names

        found = ["wide"]
        if forward_names(self.policy.module).padding:
            found.append("left")
        if "packing" not in self.refused:
            found.append("packed")
        if "shared_prompt" not in self.refused and self.loss.batch_kind == "preference":
            found.append("shared_prompt")
        return tuple(found)


def bench(subject: Subject, dtype: torch.dtype = torch.float64) -> Bench:
    """The plugin's loss at its defaults over models in ``dtype``."""
    return subject.once(f"bench/{dtype}", lambda: _bench(subject, dtype))


def _bench(subject: Subject, dtype: torch.dtype) -> Bench:
    from llmfw.testing.data_path import prepared_of, ready

    assembled = ready(subject.assembled(), subject.folder / "bench")
    surgeries = assembled.plan.many("llmfw_surgeries")
    sample = prepared_of(assembled).train[0]
    extras = {
        name: value[0] if isinstance(value, tuple) else value
        for name, value in sample.extra.items()
        if name != "prompt_length"
    }
    return Bench(
        loss=assembled.plan.one("llmfw_loss"),
        policy=_policy(assembled, 1, dtype),
        reference=_policy(assembled, 2, dtype),
        extras=extras,
        refused=frozenset(refusal for surgery in surgeries for refusal in surgery.refuses),
        pad_id=assembled.tokenizer.pad_token_id,
    )


def _policy(assembled: Assembled, seed: int, dtype: torch.dtype) -> Policy:
    """The run's model with noise in every weight, so that its log-probs differ from token to token."""
    from llmfw.core.models import build_model
    from llmfw.core.policies import policy_over, surgeries_of

    root = assembled.run.config
    built = build_model(
        assembled.settled.source,
        root.adapter,
        surgeries_of(assembled),
        root.seed,
        tokenizer=assembled.tokenizer,
    )
    draw = torch.Generator().manual_seed(seed)
    for module in (built.module, *built.companions.values()):
        module.to(dtype).eval()
        for parameter in module.parameters():
            noise = 0.3 * torch.randn(parameter.shape, generator=draw, dtype=torch.float64)
            parameter.data += noise.to(dtype)
    return policy_over(assembled, built)


def pairs(*lengths: tuple[int, int, int]) -> list[Pair]:
    """Samples of random tokens; without ``lengths`` four of different shapes."""
    return random_pairs(lengths or LENGTHS, vocabulary=200)


class Given:
    """A policy whose log-probs are given; all else is the model's."""

    def __init__(self, policy: Policy, logps: Tensor) -> None:
        self._policy, self._logps = policy, logps

    def __getattr__(self, name: str) -> Any:
        return getattr(self._policy, name)

    def logps(self, batch: Batch) -> Tensor:
        """[N] what was given."""
        return self._logps


def close(one: Tensor | float, other: Tensor | float, tolerance: float) -> bool:
    """Whether two numbers agree within ``tolerance`` of the larger of 1 and their size."""
    a, b = float(one), float(other)
    return abs(a - b) <= tolerance * max(1.0, abs(a), abs(b))


def parts_apart(subject: Subject) -> str | None:
    """How the total of a batch parts from the sum over its parts; None: they agree."""
    found = bench(subject)
    samples = pairs()
    with torch.no_grad():
        whole = float(found.call(found.batch(samples)).total)
        parts = [float(found.call(found.batch(part)).total) for part in (samples[:1], samples[1:])]
    if close(whole, sum(parts), 1e-9):
        return None
    return f"the total of {len(samples)} samples is {whole:.6g}, that of its parts {sum(parts):.6g}"
