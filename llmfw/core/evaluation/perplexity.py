"""How well a model predicts held-out rows: perplexity, and bits per byte, which compare across tokenizers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from llmfw.core.data import Example, TextTokenizer, pad_id_of
from llmfw.core.evaluation.bootstrap import estimate
from llmfw.core.evaluation.progress import batches, counted
from llmfw.core.generation import score_examples
from llmfw.core.records import EvaluationResult
from llmfw.core.run import Run


def perplexity(run: Run, policy: Any) -> EvaluationResult:
    """exp of the mean negative log-likelihood per trained token of the held-out rows, each token counted
    once: a long row weighs more than a short one.

    Rows are masked and cut as in training, but stand alone (never packed); of a pair the chosen answer
    counts. Intervals: bootstrap over rows. ``bits_per_byte`` divides by the UTF-8 bytes of the same
    tokens' text; control tokens (an end of turn) are predicted too, but have no bytes.
    """
    config, tokenizer = run.config, policy.tokenizer
    examples = documents(run._held_out[: config.trainer.validation_limit])
    size = config.trainer.micro_batch
    order = sorted(range(len(examples)), key=lambda index: -examples[index].length)
    scores: dict[int, tuple[float, int]] = {}
    for part in counted(batches(order, size), "perplexity", len, show=config.trainer.progress):
        chunk = [examples[index] for index in part]
        told = score_examples(policy, chunk, pad_id=pad_id_of(tokenizer), batch_size=size)
        scores |= {index: (score.logp, score.tokens) for index, (score,) in zip(part, told, strict=True)}
    sizes = [text_bytes(tokenizer, example) for example in examples]
    return EvaluationResult(metrics=figures([scores[index] for index in range(len(examples))], sizes))


def documents(examples: Sequence[Example]) -> list[Example]:
    """One example for each text of these: the members of packed rows, and the chosen answers of pairs."""
    found: list[Example] = []
    for example in examples:
        ids = example.sample_ids if example.packed else (example.id,)
        for index, (name, sequence) in enumerate(zip(ids, example.sequences, strict=False)):
            extra: dict[str, Any] = {
                key: (value[index],) if isinstance(value, tuple) else value
                for key, value in example.extra.items()
            }
            found.append(Example(id=name, kind="text", sequences=(sequence,), extra=extra))
    return found


def text_bytes(tokenizer: Any, example: Example) -> int:
    """UTF-8 bytes of what an example trains, control tokens left out."""
    text = TextTokenizer(tokenizer)
    ids = [token for token in example.sequences[0].trained_ids if token not in text.special_ids]
    return len(text.decode(ids).encode("utf-8", "surrogatepass"))


def figures(scores: Sequence[tuple[float, int]], sizes: Sequence[int]) -> Mapping[str, Any]:
    """Metrics from each row's (log-probability in nats, tokens) and bytes."""
    columns = torch.tensor(
        [[-logp, tokens, size] for (logp, tokens), size in zip(scores, sizes, strict=True)],
        dtype=torch.float64,
    )
    bits = estimate(columns, lambda sums: sums[:, 0] / math.log(2) / sums[:, 2].clamp(min=1))
    return {
        "perplexity": estimate(columns, lambda sums: (sums[:, 0] / sums[:, 1]).exp()),
        "bits_per_byte": bits,
        "perplexity_tokens": float(columns[:, 1].sum()),
        "perplexity_bytes": float(columns[:, 2].sum()),
    }
