"""A policy small enough to train in milliseconds, with dropout, and the pieces that a training run is made
of.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import lightning.pytorch as L
import torch
from torch import Tensor, nn

from llmfw.core.batch import Batch, LossOutput
from llmfw.core.checkpoint import CheckpointCallback, SafeCheckpointIO
from llmfw.core.module import TrainModule
from llmfw.core.records import Loss
from llmfw.core.schema import OptimizerConfig
from llmfw.core.training.job import Training

VOCABULARY, WIDTH, ROWS = 11, 8, 3


class ToyModel(nn.Module):
    """Predicts the next token from the present one alone: embedding, dropout, head; a frozen part and a
    buffer beside.
    """

    def __init__(self, dropout: float = 0.0, seed: int = 0) -> None:
        super().__init__()
        self.embed = nn.Embedding(VOCABULARY, WIDTH)
        self.drop = nn.Dropout(dropout)
        self.head = nn.Linear(WIDTH, VOCABULARY)
        self.frozen = nn.Linear(WIDTH, WIDTH)
        self.frozen.requires_grad_(False)
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))
        generator = torch.Generator().manual_seed(seed)
        for parameter in self.parameters():
            parameter.data = torch.randn(parameter.shape, generator=generator) * 0.3

    def forward(self, ids: Tensor) -> Tensor:
        if self.training:
            self.calls += 1
        return self.head(self.drop(self.embed(ids) + self.frozen(self.embed(ids))))


@dataclass
class Toy:
    """What ``build`` returns."""

    module: nn.Module
    companions: Mapping[str, nn.Module] = field(default_factory=dict)


class ToyPolicy:
    """The façade of a ToyModel."""

    def __init__(self, built: Toy, auxiliary: float = 0.0) -> None:
        self.module, self.companions = built.module, built.companions
        self.auxiliary: Tensor | None = None
        self._weight = auxiliary

    def logps(self, batch: Batch) -> Tensor:
        logits = self.module(batch.input_ids).flatten(0, 1)[batch.source]
        if self._weight:
            self.auxiliary = self._weight * self.module.head.weight.square().mean()
        return logits.float().log_softmax(-1).gather(-1, batch.target[:, None])[:, 0]


def cross_entropy(policy: Any, batch: Batch, reference: Any) -> LossOutput:
    logps = policy.logps(batch)
    hits = (logps > -2.0).sum()
    return LossOutput(total=-logps.sum(), metrics={"hits": (hits, batch.tokens)}, details={"logps": logps})


TOKENS = Loss(name="toy", call=cross_entropy, batch_kind="text", unit="tokens")


def batch_of(step: int, index: int, rows: int = ROWS, seed: int = 0) -> Batch:
    """Ragged rows whose content depends on (seed, step, index) alone; no token of row 0's first is
    padding.
    """
    g = torch.Generator().manual_seed(seed * 1_000_003 + step * 101 + index)
    lengths = torch.randint(2, 7, (rows,), generator=g).tolist()
    width = max(lengths)
    ids = torch.randint(1, VOCABULARY, (rows, width), generator=g)
    mask = torch.tensor([[t < n for t in range(width)] for n in lengths])
    places = [(row, t) for row, n in enumerate(lengths) for t in range(n - 1)]
    return Batch(
        kind="text",
        input_ids=ids * mask,
        mask=mask,
        position_ids=torch.arange(width).expand(rows, width).clone(),
        source=torch.tensor([row * width + t for row, t in places]),
        target=torch.stack([ids[row, t + 1] for row, t in places]),
        segment=torch.tensor([row for row, _ in places]),
        position=torch.tensor([t + 1 for _, t in places]),
        length=torch.tensor([n - 1 for n in lengths]),
        sample_ids=tuple(f"s{step}-{index}-{row}" for row in range(rows)),
    )


def split(batch: Batch, parts: int) -> list[Batch]:
    """The rows of one batch, dealt out over ``parts`` micro-batches."""
    rows, width = batch.input_ids.shape
    result = []
    for part in range(parts):
        own = list(range(part, rows, parts))
        picked = [i for i, row in enumerate(batch.segment.tolist()) if row in own]
        index = torch.tensor(picked)
        at = {row: number for number, row in enumerate(own)}
        source = torch.tensor([at[s // width] * width + s % width for s in batch.source[index].tolist()])
        result.append(
            Batch(
                kind="text",
                input_ids=batch.input_ids[own],
                mask=batch.attention_mask[own],
                position_ids=batch.position_ids[own],
                source=source,
                target=batch.target[index],
                segment=torch.tensor([at[s] for s in batch.segment[index].tolist()]),
                position=batch.position[index],
                length=batch.length[own],
                sample_ids=tuple(batch.sample_ids[row] for row in own),
            )
        )
    return result


@dataclass
class Steps:
    """A loader: step s holds ``accumulate`` micro-batches made from (seed, s), dealt over ranks."""

    start: int
    rank: int = 0
    world: int = 1
    accumulate: int = 1
    max_steps: int = 10**9
    served: list[int] = field(default_factory=list)

    def __iter__(self) -> Iterator[list[Batch]]:
        for step in range(self.start, self.max_steps):
            self.served.append(step)
            yield [
                part
                for index in range(self.accumulate)
                for part in [split(batch_of(step, index, rows=2 * ROWS), self.world)[self.rank]]
            ]


class Recorder(L.Callback):
    """Keeps every step's report."""

    def __init__(self) -> None:
        self.reports: list[dict[str, Any]] = []

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.reports.append({**outputs, "batch_idx": batch_idx})

    @property
    def losses(self) -> list[str]:
        return [report["metrics"]["loss"].hex() for report in self.reports]


def training(run_dir: Path, **changes: Any) -> Training:
    """A Training over the toy; ``dropout``, ``accumulate``, ``auxiliary`` are the toy's own, the rest are
    Training's fields.
    """
    dropout, accumulate = changes.pop("dropout", 0.0), changes.pop("accumulate", 1)
    auxiliary = changes.pop("auxiliary", 0.0)
    settings: dict[str, Any] = {
        "build": lambda: Toy(module=ToyModel(dropout)),
        "policy": lambda built: ToyPolicy(built, auxiliary),
        "loss": TOKENS,
        "optimizer": OptimizerConfig(lr=1e-2, schedule="cosine", warmup=2, weight_decay=0.1),
        "groups": groups,
        "loader": lambda start, rank, world: Steps(start, rank, world, accumulate),
        "max_steps": 6,
        "run_dir": run_dir,
        "seed": 7,
    }
    return Training(**{**settings, **changes})


def groups(built: Toy, weight_decay: float) -> list[dict[str, Any]]:
    trained = [p for p in built.module.parameters() if p.requires_grad]
    matrices, vectors = [p for p in trained if p.dim() > 1], [p for p in trained if p.dim() < 2]
    return [{"params": matrices, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]


def trainer_for(
    setup: Training,
    callbacks: Sequence[L.Callback] = (),
    *,
    io: SafeCheckpointIO | None = None,
    **changes: Any,
) -> L.Trainer:
    """A quiet Trainer on one CPU process, stopping by max_steps alone."""
    settings: dict[str, Any] = {
        "max_steps": setup.max_steps,
        "max_epochs": -1,
        "accelerator": "cpu",
        "devices": 1,
        "logger": False,
        "callbacks": list(callbacks),
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "default_root_dir": str(setup.run_dir),
        "num_sanity_val_steps": 0,
        "enable_checkpointing": any(isinstance(c, CheckpointCallback) for c in callbacks),
        "plugins": [io or SafeCheckpointIO()],
    }
    return L.Trainer(**{**settings, **changes})


def fit(
    run_dir: Path,
    *callbacks: L.Callback,
    resume: Path | None = None,
    trainer: Callable[..., L.Trainer] = trainer_for,
    **changes: Any,
) -> tuple[TrainModule, Recorder]:
    """Train the toy; gives the module and every step's report. Keys that Training lacks go to the Trainer."""
    own = set(Training.__dataclass_fields__) | {"dropout", "accumulate", "auxiliary"}
    setup = training(run_dir, **{key: value for key, value in changes.items() if key in own})
    module, recorder = TrainModule(setup), Recorder()
    others = {key: value for key, value in changes.items() if key not in own}
    trainer(setup, [recorder, *callbacks], **others).fit(module, ckpt_path=resume, weights_only=True)
    return module, recorder


def weights(module: TrainModule) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in module.state_dict().items()}


def optimizer_state(module: TrainModule) -> dict[str, Any]:
    return module.trainer.optimizers[0].state_dict()
