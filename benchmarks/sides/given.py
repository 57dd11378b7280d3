"""A plugin whose samples are a file's token ids in the file's order, and a Lightning callback with a clock.

``ours.py`` installs it for its own process. The core makes, lays out and trains the batches as of other data.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback

from benchmarks.sides.clock import Clock
from llmfw import Batch, DataModule, DatasetTransform, Plugin, Row, hookimpl
from llmfw.core.data.examples import Example, TokenSequence

CLOCK: Clock | None = None
"""Of this process, set by ``ours.py``."""


class Given(Plugin):
    """Trains on the samples of ``given.file`` in their order."""

    @dataclass
    class Config:
        """Settings ``given.*``."""

        file: str = field(default="", metadata={"help": "json: a list of steps, each a list of samples"})

    config: Config

    @hookimpl
    def llmfw_datamodule(self, run: Any, tokenizer: Any) -> DataModule:
        """One row of the right form; the samples take its place."""
        return _Rows("prompt" in _samples(self.config.file)[0])

    @hookimpl
    def llmfw_dataset_transforms(self, run: Any, tokenizer: Any) -> Sequence[DatasetTransform]:
        """The samples, and their order."""
        return [
            DatasetTransform(name="samples", stage="units", apply=lambda _: examples(self.config.file)),
            DatasetTransform(name="order", stage="order", apply=lambda found, epoch: range(len(found))),
        ]


class _Rows(DataModule):
    def __init__(self, pairs: bool) -> None:
        self.kind = "preference" if pairs else "completion"  # type: ignore[misc]

    def rows(self, split: str) -> Iterable[Row]:
        """One row for training, none held out."""
        if split != "train":
            return []
        if self.kind == "preference":
            return [{"prompt": "a b c", "chosen": "d e", "rejected": "f g"}]
        return [{"prompt": "a b c", "completion": "d e"}]


def _samples(file: str) -> list[dict[str, Any]]:
    return [sample for step in json.loads(Path(file).read_text()) for sample in step]


def examples(file: str) -> list[Example]:
    """The file's samples as the core's examples; one that occurs twice is two samples."""
    return [_example(number, sample) for number, sample in enumerate(_samples(file))]


def _example(number: int, sample: dict[str, Any]) -> Example:
    if "ids" in sample:
        trained = tuple(map(bool, sample["trained"]))
        prompt = trained.index(True)
        sequence = TokenSequence(tuple(sample["ids"]), trained)
        extra = {"prompt_length": (prompt,)}
        return Example(id=f"sample-{number}", kind="text", sequences=(sequence,), extra=extra)
    prompt = len(sample["prompt"])
    sides = tuple(
        TokenSequence((*sample["prompt"], *sample[side]), (False,) * prompt + (True,) * len(sample[side]))
        for side in ("chosen", "rejected")
    )
    extra = {"prompt_length": (prompt, prompt)}
    return Example(id=f"sample-{number}", kind="preference", sequences=sides, extra=extra)


def callbacks() -> list[Callback]:
    """What Lightning adds to the trainer of a process that keeps the time."""
    return [] if CLOCK is None else [_Steps(CLOCK)]


class _Steps(Callback):
    """Not a plugin's callback: its own time is then nobody's cost."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._work: dict[str, Any] = {}

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """The first step is about to begin."""
        self._clock.begin()

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """Note what is about to go through the model."""
        found = [work(micro_batch) for micro_batch in batch]
        self._work = {name: sum(one[name] for one in found) for name in ("positions", "pairs", "logits")}
        self._work["layouts"] = [one["layout"] for one in found]

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """The step has ended."""
        norm = float(outputs["metrics"]["grad_norm"])
        self._clock.end(float(outputs["loss"]), grad_norm=norm, step=self._work)


def work(batch: Batch) -> dict[str, Any]:
    """Positions, pairs of query and key, and logits of a batch as it's laid out, and the layout's name."""
    rows, width = batch.input_ids.shape
    told = {"positions": rows * width, "logits": batch.tokens}
    if batch.spans is None:
        return told | {"pairs": rows * width * (width + 1) // 2, "layout": "padded"}
    spans = batch.spans.spans
    pairs = 0
    for number, span in enumerate(spans):
        above = batch.spans.line(number)[:-1]
        pairs += len(span) * (len(span) + 1) // 2 + len(span) * sum(len(spans[other]) for other in above)
    shared = any(span.parent is not None for span in spans)
    return told | {"pairs": pairs, "layout": "shared_prompt" if shared else "packed"}
