"""A surgeon's training, watched from inside: what its parameters were, what gradients reached them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch import Callback
from torch import Tensor

from llmfw.core.fit import fit
from llmfw.core.manager import Answer
from llmfw.core.models.names import matches
from llmfw.core.models.surgery import all_parameters
from llmfw.core.training.validation import evaluating

if TYPE_CHECKING:
    from llmfw.core.batch import Batch
    from llmfw.core.fit import FitResult
    from llmfw.core.models.build import BuiltModel
    from llmfw.testing.subject import Subject


class Watcher(Callback):
    """Notes every parameter by its plain name when training begins, and what each step's gradients are."""

    def __init__(self) -> None:
        self.built: BuiltModel | None = None
        self.policy: Any = None
        self.batch: Batch | None = None
        self.start: dict[str, Tensor] = {}
        self.awake: set[str] = set()
        self.gradients: list[dict[str, Tensor | None]] = []

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Weights before the first step."""
        self.built, self.policy = pl_module.built, pl_module.policy
        self.start = {name: value.detach().clone() for name, value in self._parameters().items()}
        self.awake = {name for name, value in self._parameters().items() if value.requires_grad}

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """The micro-batch by which outputs are compared later."""
        if self.batch is None:
            self.batch = batch[0]

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        """Gradients of a whole step, before they are clipped."""
        self.gradients.append(
            {
                name: None if value.grad is None else value.grad.detach().clone()
                for name, value in self._parameters().items()
                if name in self.awake
            }
        )

    def _parameters(self) -> dict[str, Any]:
        assert self.built is not None
        return dict(all_parameters(self.built.module, self.built.companions, tied=True))


@dataclass(frozen=True, kw_only=True)
class Watched:
    """A finished training. ``built`` and ``policy`` hold the weights that it ended with."""

    result: FitResult
    start: Mapping[str, Tensor]
    """Parameters before the first step, by plain name."""
    awake: frozenset[str]
    """Names of those that required gradients then."""
    gradients: tuple[Mapping[str, Tensor | None], ...]
    """Of each step, the gradients of the ``awake`` ones."""
    built: BuiltModel
    policy: Any
    batch: Batch
    """The first micro-batch of the run."""
    end: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def trainable(self) -> list[str]:
        """Names that a surgery's ``trainable`` matches."""
        patterns = [pattern for one in self.built.reports for pattern in one.surgery.trainable]
        return [name for name in self.start if matches(name, patterns)]

    def moved(self, name: str) -> bool:
        """Whether a parameter isn't what it was, in any bit."""
        return not torch.equal(self.start[name], self.end[name])


def outputs(policy: Any, batch: Batch) -> Tensor:
    """[N] log-probs of a batch's trained tokens, in evaluation mode."""
    with evaluating(policy.module, *policy.companions.values()):
        found: Tensor = policy.logps(batch)
    return found


def watched(subject: Subject, adapter: str | None = None) -> Watched:
    """The kit's run of the plugin with a watcher in it; ``adapter``: another ``adapter.kind``.

    Raises:
        NotApplicable: it trains nothing, or doesn't run at all (the law ``runs`` says why).
    """
    subject.trained_well()
    return subject.once(f"watched/{adapter}", lambda: _watch(subject, adapter))


def _watch(subject: Subject, adapter: str | None) -> Watched:
    folder: Path = subject.folder / "watched" / str(adapter)
    changed = {} if adapter is None else {"adapter.kind": adapter}
    assembled = subject.assembled({**changed, "run.dir": str(folder), "checkpoint.every": "2"})
    watcher, plan = Watcher(), assembled.plan
    callbacks = (*plan.answers["llmfw_callbacks"], Answer(subject.name, watcher))
    watching = replace(plan, answers={**plan.answers, "llmfw_callbacks": callbacks})
    result = fit(replace(assembled, plan=watching))
    assert watcher.built is not None and watcher.batch is not None
    return Watched(
        result=result,
        start=watcher.start,
        awake=frozenset(watcher.awake),
        gradients=tuple(watcher.gradients),
        built=watcher.built,
        policy=watcher.policy,
        batch=watcher.batch,
        end={name: value.detach().clone() for name, value in watcher._parameters().items()},
    )
