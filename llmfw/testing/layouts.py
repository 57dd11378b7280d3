"""A few samples alone in their rows, and side by side in each layout that a model may meet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from llmfw.core.batch import Batch
from llmfw.core.data import Example, collate, pack, prepare
from llmfw.core.generation.caches import forward_names

if TYPE_CHECKING:
    from llmfw.core.assemble import Assembled

_SAMPLES = 3


def samples(assembled: Assembled) -> list[Example]:
    """The first samples of the run's data that differ in length, each as one row of text; of a pair the
    first answer.
    """
    prepared = prepare(
        assembled.run.config,
        assembled.tokenizer,
        assembled.transforms,
        assembled.plan.one("llmfw_datamodule"),
        assembled.sides,
    )
    found: dict[int, Example] = {}
    for example in prepared.head(64):
        sequence = example.sequences[0]
        extra = {
            name: value[0] if isinstance(value, tuple) else value for name, value in example.extra.items()
        }
        if any(sequence.trained):
            found.setdefault(
                len(sequence), Example(id=example.id, kind="text", sequences=(sequence,), extra=extra)
            )
    return list(found.values())[:_SAMPLES]


def layouts(examples: Sequence[Example], pad_id: int, module: Any) -> tuple[list[Batch], dict[str, Batch]]:
    """Each sample as a batch of its own, and the layouts of all by name: right_padding, left_padding (of
    models whose rows may be padded so) and packing (not of encoder-decoders). Trained tokens stand in the
    same order in all.
    """
    together = collate(examples, pad_id)
    found = {"right_padding": together}
    if forward_names(module).padding:
        found["left_padding"] = on_the_left(together)
    if not any(example.sequences[0].encoder for example in examples):
        found["packing"] = collate(pack(examples, sum(example.length for example in examples)), pad_id)
    return [collate([example], pad_id) for example in examples], found


def on_the_left(batch: Batch) -> Batch:
    """The batch with each row's padding before its tokens."""
    width = batch.input_ids.shape[1]
    shift = width - batch.attention_mask.sum(1)
    columns = (torch.arange(width)[None] - shift[:, None]) % width
    return replace(
        batch,
        input_ids=batch.input_ids.gather(1, columns),
        mask=batch.attention_mask.gather(1, columns),
        position_ids=batch.position_ids.gather(1, columns),
        source=batch.source + shift[batch.source // width],
    )
