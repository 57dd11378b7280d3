"""Runs the toy in two gloo processes, once for each case; every rank writes what it saw. Started by
tests/core/test_ranks.py.

    python -m tests.toys.two_processes FOLDER
"""

from __future__ import annotations

import json
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning.pytorch as L
import torch
from safetensors.torch import save_file

from llmfw.callbacks import Signals, Validation
from llmfw.core.batch import Batch, LossOutput
from llmfw.core.checkpoint import CheckpointCallback
from llmfw.core.errors import LlmfwError
from llmfw.core.training.validation import validate
from tests.toys.training import TOKENS, Recorder, batch_of, cross_entropy, fit, split, weights

STEPS = 4


class Kick(L.Callback):
    """Rank 1, and it alone, gets SIGTERM in its second step."""

    def on_train_batch_start(self, trainer: Any, *_: Any) -> None:
        if trainer.global_rank == 1 and trainer.global_step == 1:
            os.kill(os.getpid(), signal.SIGTERM)


def nan_on_rank_1(policy: Any, batch: Batch, reference: Any) -> LossOutput:
    out = cross_entropy(policy, batch, reference)
    mine = os.environ.get("LOCAL_RANK") == "1" and batch.sample_ids[0].startswith("s2")
    return replace(out, total=out.total * float("nan") if mine else out.total)


def names_on_rank_1(policy: Any, batch: Batch, reference: Any) -> LossOutput:
    out = cross_entropy(policy, batch, reference)
    return replace(out, metrics={"mine": (batch.tokens, 1)}) if os.environ.get("LOCAL_RANK") == "1" else out


def measure(module: Any) -> dict[str, float]:
    trainer = module.trainer
    mine = split(batch_of(99, 0, rows=6), trainer.world_size)[trainer.global_rank]
    found = validate(module.policy, TOKENS, None, [mine], shared=trainer.world_size > 1)
    return {**found.metrics, "units": found.units}


def case(name: str, folder: Path, *callbacks: L.Callback, **changes: Any) -> None:
    settings = {"max_steps": STEPS, "accumulate": 2, "devices": 2, "strategy": "ddp", **changes}
    recorder = Recorder()
    result: dict[str, Any] = {"error": None}
    try:
        module, _ = fit(folder / name, recorder, *callbacks, **settings)
        save_file(weights(module), folder / f"{name}-{rank()}.safetensors")
        result["validation"] = module.latest_validation
    except LlmfwError as error:
        result["error"] = [type(error).__name__, str(error), error.exit_code]
    result["reports"] = [
        {k: r[k] for k in ("step", "metrics", "units", "tokens", "sample_ids")} for r in recorder.reports
    ]
    (folder / f"{name}-{rank()}.json").write_text(json.dumps(result))


def rank() -> int:
    return int(os.environ.get("LOCAL_RANK", "0"))


def cases(folder: Path, **changes: Any) -> None:
    def checkpoints(name: str) -> CheckpointCallback:
        return CheckpointCallback(folder / name, every=2, keep=9)

    case("plain", folder, Validation(measure, every=3), checkpoints("plain"), **changes)
    case(
        "resumed", folder, Validation(measure, every=3), resume=folder / "plain" / "step-00000002", **changes
    )
    local: dict[str, Any] = {"rank_local": lambda built: ["model.head.bias"]}
    case("local", folder, checkpoints("local"), **local, **changes)
    case("local-resumed", folder, resume=folder / "local" / "step-00000002", **local, **changes)
    case("nan", folder, loss=replace(TOKENS, call=nan_on_rank_1), **changes)
    case("names", folder, loss=replace(TOKENS, call=names_on_rank_1), **changes)
    case("signal", folder, Kick(), checkpoints("signal"), Signals(), **changes)


if __name__ == "__main__":
    torch.set_num_threads(1)
    cases(Path(sys.argv[1]))
