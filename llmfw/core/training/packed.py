"""Do packed samples stay apart in this model? Asked of the model itself, before step 1."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from llmfw.core.data import Example, TokenSequence, collate_with, pack
from llmfw.core.errors import ConflictError
from llmfw.core.records import Policy
from llmfw.core.training.validation import evaluating

_LENGTH = 24
"""Tokens of each of the two samples that are tried."""
_ROUNDING = {torch.float32: 5e-6, torch.float64: 5e-6}
_ROUNDING_HALF = 2e-2
"""Largest change of the second sample's log-probs, as a share of the first one's own, that is rounding (of
experts' sums, say; attention alone gives 0), by the weights' type.
"""


def leak(policy: Policy, examples: Sequence[Example], pad_id: int) -> float | None:
    """How far other tokens in one packed sample move the log-probs of the next, as a share of how far they
    move its own; 0 where samples don't see each other, None where no two samples are packed.
    """
    unit = next((example for example in examples if len(example.sequences) > 1 and example.packed), None)
    if unit is None:
        return None
    first, second = (_short(sequence) for sequence in unit.sequences[:2])
    other = TokenSequence(tuple(token - 1 if token else 1 for token in first.ids), first.trained)
    collate = collate_with(pad_id)
    device = next((p.device for p in policy.module.parameters()), torch.device("cpu"))
    found: list[torch.Tensor] = []
    with evaluating(policy.module, *policy.companions.values()):
        for begins in (first, other):
            pair = [
                Example(id=name, kind="text", sequences=(sequence,), extra={"prompt_length": (1,)})
                for name, sequence in (("a", begins), ("b", second))
            ]
            batch = collate(pack(pair, len(first) + len(second))).to(device)
            logps = policy.logps(batch).detach().double()
            order = [batch.segment == int(batch.sample_ids.index(name)) for name in ("a", "b")]
            found.append(torch.stack([torch.zeros_like(logps).where(~mask, logps) for mask in order]))
    moved = (found[0] - found[1]).abs().amax(dim=1)
    return float(moved[1] / moved[0].clamp_min(1e-12))


def refuse_leaks(policy: Policy, examples: Sequence[Example], pad_id: int) -> None:
    """Stop where a model lets packed samples see each other, whatever its class says of itself.

    Raises:
        ConflictError: PACKING-LEAK; PACKING-MODEL, where the model fails on a packed row.
    """
    try:
        found = leak(policy, examples, pad_id)
    except (RuntimeError, TypeError, ValueError, IndexError) as error:  # whatever its forward raises
        raise ConflictError(
            "PACKING-MODEL",
            f"{type(policy.module).__name__} fails on a packed row: {type(error).__name__}: {error}",
            mend="set data.packing=false",
            key="data.packing",
        ) from error
    kind = next((p.dtype for p in policy.module.parameters() if p.is_floating_point()), torch.float32)
    if found is not None and found > _ROUNDING.get(kind, _ROUNDING_HALF):
        raise ConflictError(
            "PACKING-LEAK",
            f"{type(policy.module).__name__} lets packed samples see each other: other words in the first "
            f"move the second's log-probs by {found:.1e} of what they move its own",
            mend="set data.packing=false",
            key="data.packing",
        )


def _short(sequence: TokenSequence) -> TokenSequence:
    ids = sequence.ids[-_LENGTH:]
    return TokenSequence(ids, (False, *[True] * (len(ids) - 1)))
