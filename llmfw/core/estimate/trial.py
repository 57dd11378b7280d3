"""One real step with weights drawn at random: whether a device takes it is seen, not predicted."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING, Any

import torch

from llmfw.core.determinism import pinned
from llmfw.core.estimate.batches import work_of
from llmfw.core.estimate.blank import blank_module
from llmfw.core.estimate.trace import AUTOCAST
from llmfw.core.models import LocalPolicy, build_model, parameter_groups, reference_of
from llmfw.core.models.fused_build import ready_to_train
from llmfw.core.policies import surgeries_of
from llmfw.core.training.optim import build_optimizer

if TYPE_CHECKING:
    from llmfw.core.estimate.estimate import Estimator


def trial_step(estimator: Estimator, micro_batch: int, accumulate: int) -> None:
    """Two micro-batches of the largest kind with an update after each, then everything is let go.

    The second one finds the optimizer's state in memory, as every step but a run's first does.

    Raises:
        torch.OutOfMemoryError: the device has too little memory.
    """
    root, device = estimator.root, torch.device(estimator.device)
    batch = work_of(estimator.source, micro_batch, accumulate).largest.to(device)
    try:
        with pinned(root.trainer):
            _steps(estimator, batch, device)
    finally:
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()


def _steps(estimator: Estimator, batch: Any, device: torch.device) -> None:
    assembled, root = estimator.assembled, estimator.root
    loss = assembled.plan.one("llmfw_loss")

    def load(source: Any, config: Any) -> Any:
        with device:
            return blank_module(source, config)

    built = build_model(assembled.settled.source, root.adapter, surgeries_of(assembled), root.seed, load=load)
    built = ready_to_train(built, root.trainer)
    for part in (built.module, *built.companions.values()):
        part.to(device).train()
    reference = None
    if loss.needs_reference and root.trainer.reference != "cache":
        reference = reference_of(built, root.trainer.reference)
    if root.trainer.precision == "bf16-true":
        built.module.to(torch.bfloat16)
    policy = LocalPolicy(built.module, built.companions, None, built.batch_keys)
    optimizer = build_optimizer(parameter_groups(built, root.optimizer.weight_decay), root.optimizer)
    dtype = AUTOCAST.get(root.trainer.precision)
    for _ in range(2):
        with torch.autocast(device.type, dtype=dtype, enabled=dtype is not None):
            objective = loss.call(policy, batch, reference).total
        objective.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
