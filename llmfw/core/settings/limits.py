"""Plainly wrong numbers and empty names, found before anything is loaded."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from llmfw.core.errors import UsageError
from llmfw.core.schema import Root
from llmfw.core.settings.parallel import wrong_strategy
from llmfw.core.settings.values import WrongValue, shown


@dataclass(frozen=True)
class Range:
    """An interval; ``open`` leaves out the ends named in it ("low", "high")."""

    low: float | None = None
    high: float | None = None
    open: tuple[str, ...] = ()

    def holds(self, value: float) -> bool:
        """Whether a number lies inside."""
        above = self.low is None or (value > self.low if "low" in self.open else value >= self.low)
        below = self.high is None or (value < self.high if "high" in self.open else value <= self.high)
        return above and below

    def __str__(self) -> str:
        low = None if self.low is None else f"{'above' if 'low' in self.open else 'at least'} {self.low:g}"
        high = None if self.high is None else f"{'below' if 'high' in self.open else 'at most'} {self.high:g}"
        return " and ".join(part for part in (low, high) if part)


_COUNT = Range(1)
_NATURAL = Range(0)
_POSITIVE = Range(0, open=("low",))
_SHARE = Range(0, 1)
_BELOW_ONE = Range(0, 1, open=("high",))

RANGES: Mapping[str, Range] = {
    "seed": Range(0, 2**32 - 1),
    "data.max_length": Range(2),
    "data.max_bad_rows": _NATURAL,
    "data.limit": _COUNT,
    "data.workers": Range(0, 1024),
    "data.mix": _POSITIVE,
    "data.shuffle_buffer": _COUNT,
    "tokenizer.vocab_size": Range(2),
    "adapter.r": _COUNT,
    "adapter.alpha": _POSITIVE,
    "adapter.dropout": _BELOW_ONE,
    "optimizer.lr": _NATURAL,
    "optimizer.betas": _BELOW_ONE,
    "optimizer.eps": _POSITIVE,
    "optimizer.weight_decay": _NATURAL,
    "optimizer.warmup": _NATURAL,
    "optimizer.decay": _SHARE,
    "optimizer.min_lr": _SHARE,
    "optimizer.clip": _NATURAL,
    "trainer.max_steps": _NATURAL,  # 0: calibrate, measure and save without training
    "trainer.epochs": _POSITIVE,
    "trainer.micro_batch": _COUNT,
    "trainer.accumulate": _COUNT,
    "trainer.batch": _COUNT,
    "trainer.devices": Range(1, 4096),
    "trainer.nodes": Range(1, 4096),
    "trainer.threads": Range(1, 4096),
    "trainer.validate_every": _NATURAL,
    "trainer.validation_limit": _COUNT,
    "trainer.log_every": _COUNT,
    "trainer.sample_every": _NATURAL,
    "trainer.sample_prompts": _NATURAL,
    "trainer.max_time": _POSITIVE,
    "trainer.early_stopping.patience": _COUNT,
    "trainer.early_stopping.min_delta": _NATURAL,
    "checkpoint.every": _NATURAL,
    "checkpoint.keep": Range(2),
    "generation.max_new_tokens": _COUNT,
    "generation.temperature": _NATURAL,
    "generation.top_p": Range(0, 1, open=("low",)),
    "generation.top_k": _NATURAL,
    "generation.batch_size": _COUNT,
    "evaluation.samples": _COUNT,
    "evaluation.lm_eval_limit": _COUNT,
    "evaluation.lm_eval_shots": _NATURAL,
}
"""Where a number of the core must lie; every number must also be finite."""
ANSWER_METRICS = ("exact_match", "rouge", "bleu", "chrf")
"""Metrics that compare answers to held-out prompts with references."""
_EVALUATION: Mapping[str, tuple[str, ...]] = {
    "evaluation.metrics": ("perplexity", *ANSWER_METRICS),
    "evaluation.when": ("start", "validation", "end"),
}
"""The words that a list may hold."""
_LARGEST = 2**53
"""Whole numbers beyond it aren't exact everywhere (json, schedules)."""
_NOT_EMPTY = (
    "model.name",
    "data.name",
    "tracking.experiment",
    "adapter.target_modules",
    "run.dir",
    "run.name",
)


def check(
    root: Root, place: Callable[[str], tuple[str | None, int | None]] = lambda key: (None, None)
) -> None:
    """Refuse core settings that can't be meant.

    ``place(dotted key)`` is the file and line where a key was set.

    Raises:
        UsageError: the first such setting.
    """
    for wrong in _wrong(root):
        file, line = place(wrong.key)
        raise UsageError(wrong.code, wrong.what, mend=wrong.mend, file=file, line=line, key=wrong.key)


def _wrong(root: Root) -> Iterator[WrongValue]:
    for key, range_ in RANGES.items():
        yield from outside(key, _at(root, key), range_)
    for key in _NOT_EMPTY:
        value = _at(root, key)
        if value is not None and (not value or (isinstance(value, str) and not value.strip())):
            yield WrongValue("CONFIG-RANGE", "the value is empty", f"name one: {key}=...", key)
    if len(root.optimizer.betas) != 2:
        found = len(root.optimizer.betas)
        mend = "write optimizer.betas=[0.9,0.999]"
        yield WrongValue("CONFIG-RANGE", f"{found} numbers where two are expected", mend, "optimizer.betas")
    yield from _share(root.data.validation)
    yield from wrong_strategy(root)
    yield from _contradictions(root)
    for key, words in _EVALUATION.items():
        yield from _words(key, _at(root, key), words)
    for idle in ("lm_eval_path", "lm_eval_limit", "lm_eval_shots", "lm_eval_chat"):
        if not root.evaluation.lm_eval and getattr(root.evaluation, idle) not in (None, False):
            mend = "name tasks (evaluation.lm_eval=[...]), or leave it out"
            yield WrongValue("CONFIG-RANGE", "it does nothing without tasks", mend, f"evaluation.{idle}")
    if "" in root.generation.stop:
        mend = "remove the empty text"
        yield WrongValue(
            "CONFIG-RANGE", "an empty text would end every answer at once", mend, "generation.stop"
        )
    name = root.run.name
    if name is not None and (re.search(r"[/\\\x00-\x1f]", name) or name in (".", "..") or len(name) > 100):
        mend = "use at most 100 characters, without slashes; run.dir chooses another folder"
        yield WrongValue("CONFIG-RANGE", f"{shown('run.name', name)} can't name a folder", mend, "run.name")
    if root.trainer.max_steps is None and root.trainer.epochs is None:
        mend = "set it, or trainer.epochs"
        yield WrongValue("CONFIG-RANGE", "nothing says how long to train", mend, "trainer.max_steps")
    if root.trainer.max_steps is not None and root.trainer.epochs is not None:
        mend = "set one of them to null"
        what = "trainer.max_steps and trainer.epochs are both set"
        yield WrongValue("CONFIG-RANGE", what, mend, "trainer.max_steps")


def _contradictions(root: Root) -> Iterator[WrongValue]:
    """Settings of how a step is computed that exclude one another."""
    trainer = root.trainer
    needs = {"compile": trainer.compile != "none", "recompute": trainer.recompute == "elementwise"}
    for name in [name for name, asked in needs.items() if asked and trainer.fused == "off"]:
        what = f"{getattr(trainer, name)} works on what trainer.fused finds, which is off"
        yield WrongValue("CONFIG-RANGE", what, "set trainer.fused=auto", f"trainer.{name}")


def _share(validation: str | None) -> Iterator[WrongValue]:
    try:
        share = float(validation or 0)
    except ValueError:
        return  # a file
    if not 0 <= share < 1:
        yield WrongValue(
            "CONFIG-RANGE", f"a share of {validation} can't be held out",
            "name a file, or a share of at least 0 and below 1 such as 0.1", "data.validation",
        )  # fmt: skip


def _words(key: str, values: list[str], known: tuple[str, ...]) -> Iterator[WrongValue]:
    for index, value in enumerate(values):
        if value not in known:
            near = get_close_matches(value, known, n=1)
            hint = f"did you mean {near[0]}? " if near else ""
            mend = f"{hint}choose from {', '.join(known)}"
            yield WrongValue("CONFIG-CHOICE", f"{shown(key, value)} is not known here", mend, key)
        elif value in values[:index]:
            yield WrongValue("CONFIG-CHOICE", f"{value} is named twice", "name it once", key)


def outside(key: str, value: Any, range_: Range) -> Iterator[WrongValue]:
    """The errors of a number, or of numbers in a list or mapping, that aren't finite or lie outside."""
    items = list(value.values()) if isinstance(value, dict) else value
    for item in items if isinstance(items, list) else [items]:
        if isinstance(item, bool) or not isinstance(item, (int, float)):
            continue
        if item in (float("inf"), float("-inf")):
            yield WrongValue("CONFIG-RANGE", f"{item} isn't finite", "write a finite number", key)
        elif isinstance(item, int) and abs(item) > _LARGEST:
            yield WrongValue("CONFIG-RANGE", "the number is too large", "write a smaller one", key)
        elif not range_.holds(item):
            yield WrongValue("CONFIG-RANGE", f"{item} is out of range", f"it must be {range_}", key)


def _at(root: Root, key: str) -> Any:
    value: Any = root
    for part in key.split("."):
        value = getattr(value, part)
    return value
