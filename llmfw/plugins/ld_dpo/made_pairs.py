"""The experiment over made pairs: a tiny model learns to write, then each loss trains the same weights."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import llmfw
from llmfw import Arm

from . import synthetic

if TYPE_CHECKING:  # it brings torch
    from llmfw import FitResult


@dataclass(frozen=True)
class Scale:
    """How much is drawn and trained."""

    sizes: synthetic.Sizes
    sft_steps: int
    steps: int
    """Of preference training, 16 pairs each."""
    greedy: int
    """Held-out prompts answered greedily."""
    sampled: int
    """Held-out prompts answered by sampling."""


SCALES: Mapping[str, Scale] = {
    "smoke": Scale(
        synthetic.Sizes(texts=64, pairs=32, held_out=24), sft_steps=2, steps=2, greedy=2, sampled=4
    ),
    "small": Scale(
        synthetic.Sizes(texts=6400, pairs=1280, held_out=600), sft_steps=200, steps=80, greedy=32, sampled=300
    ),
    "full": Scale(
        synthetic.Sizes(texts=6400, pairs=2560, held_out=2000),
        sft_steps=200,
        steps=160,
        greedy=64,
        sampled=1000,
    ),
}
BETA = 0.1
LR = 3e-4
"""Chosen, as beta and the number of steps, by looking at DPO alone with pilot seeds; see the README."""
LONGEST = 40
"""Tokens of an answer at most; 26 is the longest that the pairs show."""
_TRAINING: Mapping[str, Any] = {
    "model": "tiny-llama",
    "adapter.kind": "none",
    "trainer.threads": 1,  # so small a model is no faster with more
    "checkpoint.every": 0,
    "generation.max_new_tokens": LONGEST,
    "generation.batch_size": 300,
}


def sft(seed: int, scale: Scale) -> Arm:
    """The model before it has seen a pair."""
    return Arm(
        about="the model before preference training",
        prepare=partial(_texts, seed, scale),
        settings={
            **_TRAINING,
            "trainer.epochs": None,
            "trainer.max_steps": scale.sft_steps,
            "trainer.micro_batch": 32,
            "optimizer.lr": 6e-3,
            "data.group_by_length": False,
        },
        values=partial(_sampled, seed, scale),
        own_data=True,
    )


def arm(about: str, plugin: str, settings: Mapping[str, Any], seed: int, scale: Scale) -> Arm:
    """Preference training from the weights of ``sft``."""
    return Arm(
        about=about,
        plugins=(plugin,),
        prepare=partial(_pairs, seed, scale),
        settings={
            **_TRAINING,
            "data.options": {},
            "trainer.max_steps": scale.steps,
            "trainer.micro_batch": 16,
            "trainer.validation_limit": None,
            "trainer.reference": "copy",
            "optimizer.lr": LR,
            f"{plugin}.beta": BETA,
            f"{plugin}.answers": scale.greedy,
            **settings,
        },
        after="sft",
        values=partial(_measured, seed, scale),
    )


def _texts(seed: int, scale: Scale, folder: Path) -> Mapping[str, Any]:
    return {"data": str(synthetic.write(folder, seed, scale.sizes)["texts"]), "data.validation": "0.05"}


def _pairs(seed: int, scale: Scale, folder: Path) -> Mapping[str, Any]:
    files = synthetic.write(folder, seed, scale.sizes)
    return {"data": str(files["pairs"]), "data.validation": str(files["held_out"])}


def _measured(seed: int, scale: Scale, result: FitResult) -> dict[str, float]:
    return {
        **_sampled(seed, scale, result),
        "correlation_size": abs(result.validation["length/margin_correlation"]),
    }


def _sampled(seed: int, scale: Scale, result: FitResult) -> dict[str, float]:
    """Length and quality of answers drawn at temperature 1; the same draws for all arms.

    All prompts mean the same here, so greedy answers hardly differ from each other: sampled ones tell finer.
    """
    prompts = [row["prompt"] for row in synthetic.rows(seed, scale.sizes)["held_out"][: scale.sampled]]
    answers = llmfw.generate(
        prompts, f"model={result.final}", max_new_tokens=LONGEST, temperature=1.0, batch_size=len(prompts)
    ).completions
    qualities = [synthetic.quality(answer.text) for answer in answers]
    known = [quality for quality in qualities if quality is not None]
    return {
        "sampled_tokens": statistics.fmean(len(answer.ids) for answer in answers),
        "sampled_cut_off": statistics.fmean(answer.finish == "length" for answer in answers),
        "sampled_well_formed": len(known) / len(answers),
        "sampled_quality": statistics.fmean(known) if known else 0.0,
    }
