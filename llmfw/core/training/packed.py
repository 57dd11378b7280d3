"""Do samples in one row stay apart in this model? Asked of the model itself, before step 1."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from llmfw.core.batch import Batch
from llmfw.core.data import Example, TokenSequence, collate
from llmfw.core.data.examples import Number
from llmfw.core.errors import ConflictError
from llmfw.core.models.adapters import bare
from llmfw.core.models.spans import as_computed, sees_spans
from llmfw.core.records import Policy
from llmfw.core.training.validation import evaluating

Collate = Callable[[Sequence[Example]], Batch]
_PROMPT, _ANSWER = 8, 16
"""Tokens of the samples that are tried, at most."""
_ROUNDING = {torch.float32: 5e-6, torch.float64: 5e-6}
_ROUNDING_HALF = 2e-2
"""Largest change of a sample's log-probs, as a share of the other one's own, that is rounding (of experts'
sums, say; attention alone gives 0), by the weights' type.
"""
_APART = {torch.float32: 1e-3, torch.float64: 1e-3}
_APART_HALF = 0.3
"""Largest difference between a token's log-prob in one row with others and alone, in nats, by the weights'
type: kernels differ in their rounding, a wrong position or a lost prompt moves more.
"""


def leak(policy: Policy, examples: Sequence[Example], collate_one_row: Collate) -> tuple[float, float]:
    """(how far other tokens in one sample move the log-probs of the next, as a share of how far they move
    its own; how far log-probs in one row are from those of the samples alone, nats).
    """
    first, second = _pair_of(examples)
    other = _changed(first)
    device = next((p.device for p in policy.module.parameters()), torch.device("cpu"))
    with evaluating(policy.module, *policy.companions.values()), as_computed(policy.module, device):
        one, two = (
            _logps(policy, collate_one_row(_together(begins, second, examples[0])), device)
            for begins in (first, other)
        )
        alone = torch.cat(
            [_logps(policy, collate([one], 0), device) for one in _apart(first, second, examples[0])]
        )
    own = slice(0, sum(first.trained))
    rest = slice(own.stop, None)
    moved = [float((one[part] - two[part]).abs().max()) for part in (own, rest)]
    return moved[1] / max(moved[0], 1e-12), float((one - alone).abs().max())


def refuse_leaks(policy: Policy, examples: Sequence[Example], collate_one_row: Collate) -> None:
    """Stop where a model lets samples of one row see each other, or computes them otherwise than alone,
    whatever its class says of itself.

    Raises:
        ConflictError: PACKING-LEAK; PACKING-MODEL, where the model fails on such a row.
    """
    name = type(policy.module).__name__
    try:
        found, difference = leak(policy, examples, collate_one_row)
    except (RuntimeError, TypeError, ValueError, IndexError) as error:  # whatever its forward raises
        raise ConflictError(
            "PACKING-MODEL",
            f"{name} fails on samples in one row: {type(error).__name__}: {error}",
            mend="set trainer.layout=padded",
            key="trainer.layout",
        ) from error
    kind = next((p.dtype for p in policy.module.parameters() if p.is_floating_point()), torch.float32)
    what = ""
    if found > _ROUNDING.get(kind, _ROUNDING_HALF):
        what = (
            f"other words in the first move the second's log-probs by {found:.1e} of what they move its own"
        )
    elif difference > _APART.get(kind, _APART_HALF):
        what = f"log-probs differ by {difference:.1e} nats from those of the samples alone"
    if what:
        raise ConflictError(
            "PACKING-LEAK",
            f"{name} doesn't keep the samples of one row apart: {what}",
            mend="set trainer.layout=padded",
            key="trainer.layout",
        )


def refuse_windows(policy: Policy, longest: int) -> None:
    """Stop where samples are longer than a layer looks back and attention over one row wouldn't know it: a
    mask of ours has no window, and attention over spans has no chunks.

    Raises:
        ConflictError: PACKING-WINDOW.
    """
    model: Any = bare(policy.module)
    config = model.config.get_text_config()
    chunk = config.attention_chunk_size if "chunked_attention" in _layer_types(config) else None
    window = None if sees_spans(model) else getattr(config, "sliding_window", None)
    reach = min((value for value in (chunk, window) if value), default=None)
    if reach is not None and longest > reach:
        raise ConflictError(
            "PACKING-WINDOW",
            f"samples have up to {longest} tokens, and layers of {type(model).__name__} look back {reach}: "
            "only padded rows keep to that here",
            mend="set model.attention=sdpa" if chunk is None else "set trainer.layout=padded",
            key="trainer.layout",
        )


def _layer_types(config: Any) -> Sequence[str]:
    return getattr(config, "layer_types", None) or ()


def _pair_of(examples: Sequence[Example]) -> tuple[TokenSequence, TokenSequence]:
    """Two short sequences with a common prompt, of the first example's tokens."""
    ids = examples[0].sequences[0].ids
    ids = ids * (1 + 2 * (_PROMPT + _ANSWER) // len(ids))
    prompt, count = ids[:_PROMPT], len(ids[:_PROMPT])
    answers = ids[count : count + _ANSWER], ids[count + _ANSWER : count + 2 * _ANSWER - 3]
    first, second = (
        TokenSequence((*prompt, *answer), (False,) * count + (True,) * len(answer)) for answer in answers
    )
    if first.ids[count] == second.ids[count]:
        second = _changed(second)
    return first, second


def _changed(sequence: TokenSequence) -> TokenSequence:
    """The sequence with other tokens where it's trained."""
    pairs = zip(sequence.ids, sequence.trained, strict=True)
    ids = (token if not trained else token - 1 if token else 1 for token, trained in pairs)
    return TokenSequence(tuple(ids), sequence.trained)


def _together(first: TokenSequence, second: TokenSequence, like: Example) -> list[Example]:
    extra = {name: (value, value) for name, value in _extra(like).items()}
    return [Example(id="pair", kind="preference", sequences=(first, second), extra=extra)]


def _apart(first: TokenSequence, second: TokenSequence, like: Example) -> list[Example]:
    return [
        Example(id=name, kind="text", sequences=(one,), extra=_extra(like))
        for name, one in (("first", first), ("second", second))
    ]


def _extra(like: Example) -> dict[str, Number]:
    """What a surgery may want to read of a sample, as the first one has it."""
    first = {name: value[0] if isinstance(value, tuple) else value for name, value in like.extra.items()}
    plain = {name: value for name, value in first.items() if not isinstance(value, tuple)}
    return {**plain, "prompt_length": _PROMPT}


def _logps(policy: Policy, batch: Batch, device: torch.device) -> Tensor:
    return policy.logps(batch.to(device)).detach().double()
