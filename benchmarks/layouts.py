"""What a batch's layout costs: padded rows, one row span by span, one row under a block mask, shared prompts.

    python -m benchmarks.layouts    # some minutes; writes results/layouts.json

One forward and backward pass of log-probs over random weights in SmolLM2's shape with a third of its layers
(the layers' work is alike, the head is whole), float32, on the CPU. The ways alternate; a row holds medians.
``seconds`` of ours against those of the other way: the ratio says how many times as long ours takes.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from benchmarks import record
from llmfw.core.batch import Batch
from llmfw.core.data import Example, TokenSequence, collate
from llmfw.core.models import LocalPolicy

LAYERS, VOCABULARY = 10, 49152
REPETITIONS = 5


def model() -> Any:
    """SmolLM2's shape with ``LAYERS`` layers, random weights."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=576, intermediate_size=1536, num_hidden_layers=LAYERS,
        num_attention_heads=9, num_key_value_heads=3, tie_word_embeddings=True, max_position_embeddings=8192,
    )  # fmt: skip
    return LlamaForCausalLM._from_config(config, attn_implementation="sdpa").train()


def pairs(lengths: Sequence[tuple[int, int, int]]) -> list[Example]:
    """Pairs of (prompt, chosen, rejected) tokens."""
    draw = torch.Generator().manual_seed(0)

    def ids(count: int) -> tuple[int, ...]:
        return tuple(torch.randint(VOCABULARY, (count,), generator=draw).tolist())

    found = []
    for number, (prompt, *answers) in enumerate(lengths):
        begin = ids(prompt)
        sides = tuple(
            TokenSequence((*begin, *ids(count)), (False,) * prompt + (True,) * count) for count in answers
        )
        found.append(Example(id=str(number), kind="preference", sequences=sides))
    return found


def under_a_mask(batch: Batch) -> Batch:
    """The same row with the [T, T] mask that its spans mean."""
    return replace(batch, mask=batch.attention_mask, spans=None)


Ways = dict[str, Batch]


def cases() -> dict[str, tuple[str, Ways]]:
    """Case -> (the way that is ours, every way's batch)."""
    found: dict[str, tuple[str, Ways]] = {}
    ragged = [(60, 300, 90), (110, 40, 250), (35, 120, 180), (80, 60, 30)]
    equal = [(64, 192, 192)] * 3
    short = [(8, 24, 24)] * 16
    long = [(128, 1920, 1920)]
    for name, lengths in {"ragged": ragged, "equal": equal, "many short": short, "long": long}.items():
        examples = pairs(lengths)
        packed = collate(examples, 0, layout="packed")
        ways = {"padded": collate(examples, 0), "packed": packed, "block mask": under_a_mask(packed)}
        found[f"packed, {name}"] = ("packed", ways)
    for share in (0, 2, 5, 10, 20, 40):
        prompt = 1000 * share // 100
        answer = (1000 - 2 * prompt) // 2
        examples = pairs([(prompt, answer, answer)] if prompt else [(1, 500, 500)])
        ways = {layout: collate(examples, 0, layout=layout) for layout in ("packed", "shared_prompt")}  # type: ignore[arg-type]
        ways["tree mask"] = under_a_mask(ways["shared_prompt"])
        found[f"shared prompt, saves {share}% of 1,000 positions"] = ("shared_prompt", ways)
    return found


def medians(policy: LocalPolicy, ways: Ways, repetitions: int) -> dict[str, float]:
    """Seconds of a forward and backward pass by way."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for repetition in range(repetitions + 1):
        for name, batch in ways.items():
            policy.module.zero_grad(set_to_none=False)
            seconds[name].append(_timed(lambda batch=batch: policy.logps(batch).sum().backward()))
        if not repetition:
            seconds = {name: [] for name in ways}
    return {name: statistics.median(values) for name, values in seconds.items()}


def _timed(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def main(results: Path = record.RESULTS, repetitions: int = REPETITIONS) -> Path:
    """Measure every case, write the result, print a line per row."""
    policy, rows = LocalPolicy(model()), []
    for case, (ours, ways) in cases().items():
        found = medians(policy, ways, repetitions)
        for name, seconds in found.items():
            if name != ours:
                rows.append(
                    record.row(
                        f"{case}, against {name}", ours=found[ours], unit="s", repetitions=repetitions,
                        peer=seconds, peer_name=name,
                        positions={way: batch.input_ids.numel() for way, batch in ways.items()},
                    )
                )  # fmt: skip
                record.tell(rows[-1:])
    settings = {"threads": torch.get_num_threads(), "layers": LAYERS, "vocabulary": VOCABULARY}
    path = record.write("layouts", rows, versions={}, folder=results, settings=settings)
    print(f"wrote {path.name}")
    return path


if __name__ == "__main__":
    main(*(Path(folder) for folder in sys.argv[1:2]))
