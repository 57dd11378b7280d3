"""The experiment over real pairs: SmolLM2-135M-Instruct with LoRA, right against wrong answers."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import llmfw
from llmfw import Arm, Workspace

from . import synthetic

if TYPE_CHECKING:  # it brings torch
    from llmfw import FitResult


MODEL = "smollm2-135m"
"""The overlay's model."""


@dataclass(frozen=True)
class Scale:
    """How much is read, trained and answered."""

    steps: int
    """Of two pairs each."""
    lengths: str = "chosen_longer"
    max_length: int = 384
    """Tokens of prompt and answer; pairs of which one side has more aren't used."""
    held_out: float = 0.4
    """Share of the pairs that are held out, by whole problems: rather many, for the sake of their prompts."""
    prompts: int = 32
    """Held-out prompts that are answered greedily, at most."""
    longest: int = 256
    """Tokens of such an answer at most."""
    measured: int = 8
    """Held-out pairs whose margins are measured."""
    made: synthetic.Sizes | None = None
    """Take made pairs of this many and a tiny model instead."""
    settings: Mapping[str, Any] = field(default_factory=dict)


SCALES: Mapping[str, Scale] = {
    "smoke": Scale(
        steps=2, prompts=2, longest=8, measured=4, made=synthetic.Sizes(texts=0, pairs=8, held_out=4),
        settings={"model": "tiny-llama"},
    ),
    "small": Scale(steps=20),
    "full": Scale(
        steps=200, lengths="natural", max_length=512, held_out=0.3, prompts=100, longest=512, measured=200
    ),
}  # fmt: skip


def arm(about: str, plugin: str, settings: Mapping[str, Any], scale: Scale) -> Arm:
    """One loss, trained as the plugin's own overlay says but for what stands here."""
    return Arm(
        about=about,
        plugins=(plugin,),
        prepare=partial(_pairs, scale),
        settings={
            "data.options": {},
            "data.max_length": scale.max_length,
            "optimizer.lr": 2e-4,  # twice the overlay's: a few steps have to move something
            "trainer.max_steps": scale.steps,
            "trainer.validation_limit": scale.measured,
            f"{plugin}.answers": 0,
            **scale.settings,
            **settings,
        },
        values=partial(_answered, scale),
    )


def untrained(scale: Scale) -> Arm:
    """The model as it is published; seeds are nothing to it."""
    return Arm(about="before training, on the same prompts", run=partial(_untrained, scale))


def _untrained(scale: Scale, where: Workspace) -> Mapping[str, list[float]]:
    held_out = _pairs(scale, where.dir)["data.validation"]
    return _answers(scale, str(scale.settings.get("model", MODEL)), held_out)


def _pairs(scale: Scale, folder: Path) -> Mapping[str, Any]:
    """Both splits as files, so that the prompts to answer are those of the file that is held out."""
    if scale.made is not None:
        files = synthetic.write(folder, 0, scale.made)
        return {"data": str(files["pairs"]), "data.validation": str(files["held_out"])}
    words = ["data=champ-preferences", f"model={MODEL}", f"data.max_length={scale.max_length}"]
    words += [f"data.options.lengths={scale.lengths}", f"data.validation={scale.held_out}"]
    words += ["--split", "--force", "--out", str(folder)]
    made = subprocess.run(
        [sys.executable, "-m", "llmfw", "data", "convert", *words],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if made.returncode != 0:
        raise RuntimeError(made.stderr.strip())
    return {"data": str(folder / "train.jsonl"), "data.validation": str(folder / "validation.jsonl")}


def _answered(scale: Scale, result: FitResult) -> Mapping[str, list[float]]:
    plan = json.loads((result.dir / "plan.json").read_text(encoding="utf-8"))
    return _answers(scale, str(result.final), plan["settings"]["data.validation"])


def _answers(scale: Scale, model: str, held_out: str) -> Mapping[str, list[float]]:
    """Tokens of the greedy answer to each different prompt of a file, and whether it was cut off."""
    lines = Path(held_out).read_text(encoding="utf-8").splitlines()
    prompts = list(dict.fromkeys(json.loads(line)["prompt"] for line in lines))[: scale.prompts]
    answers = llmfw.generate(
        prompts, f"model={model}", max_new_tokens=scale.longest, temperature=0.0, batch_size=len(prompts)
    ).completions
    return {
        "answer_tokens": [float(len(answer.ids)) for answer in answers],
        "cut_off": [float(answer.finish == "length") for answer in answers],
    }
