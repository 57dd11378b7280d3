"""Lightning's strategies as the settings ask for them: one process, DDP, FSDP2.

All of them write the same checkpoint: whole tensors, under the names that one process gives them.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import torch
from lightning.pytorch.strategies import DDPStrategy, ModelParallelStrategy, ParallelStrategy, Strategy
from torch import Tensor
from torch.optim import Optimizer

from llmfw.core.errors import ConflictError, UsageError
from llmfw.core.models.shards import fill, like, whole, whole_state
from llmfw.core.plan import Plan
from llmfw.core.schema import Root, TrainerConfig
from llmfw.core.training.processes import Launcher

_PATIENCE = timedelta(hours=6)
"""How long a process waits for the others, who may be answering prompts or writing a checkpoint. A process
that has died ends the wait at once."""


def check_strategy(plan: Plan, root: Root) -> None:
    """Refuse what a strategy can't do right, before any weight is read. What the settings alone tell is
    refused when they're read (``llmfw.core.settings.parallel``, ``llmfw.core.training.combinations``).

    Raises:
        ConflictError: STRATEGY-SURGERY, a surgery whose parameters differ between processes under FSDP2.
        UsageError: DEVICES, more GPUs than there are.
    """
    trainer = root.trainer
    if trainer.strategy == "fsdp2":
        for answer in plan.answers.get("llmfw_surgeries", ()):
            if answer.value.rank_local:
                raise ConflictError(
                    "STRATEGY-SURGERY",
                    f"surgery {answer.value.name!r} of plugin {answer.plugin!r} keeps parameters that differ "
                    "between processes; FSDP2 would cut them up",
                    mend="set trainer.strategy=ddp",
                    key="trainer.strategy",
                )
    present = torch.cuda.device_count() if trainer.accelerator != "cpu" else 0
    if (trainer.accelerator == "gpu" or present) and present < trainer.devices:
        raise UsageError(
            "DEVICES",
            f"{trainer.devices} GPUs are asked for, this machine has {present}",
            mend=f"set trainer.devices={present}" if present else "set trainer.accelerator=cpu",
            key="trainer.devices",
        )


def strategy_of(trainer: TrainerConfig) -> Strategy | str:
    """What Lightning's Trainer gets as its strategy."""
    world = trainer.devices * trainer.nodes
    if trainer.strategy == "fsdp2":
        return ShardedStrategy(world)
    if world == 1 and trainer.strategy == "auto":
        return "auto"
    return ReplicatedStrategy(timeout=_PATIENCE)


class ReplicatedStrategy(DDPStrategy):
    """DDP, whose processes are started and watched over by us."""

    def _configure_launcher(self) -> None:
        assert self.cluster_environment is not None
        self._launcher = Launcher(self.cluster_environment, self.num_processes, self.num_nodes)


class ShardedStrategy(ModelParallelStrategy):
    """FSDP2 over all processes, with checkpoints that any other number of processes can load."""

    def __init__(self, world: int) -> None:
        super().__init__(data_parallel_size=world, tensor_parallel_size=1, timeout=_PATIENCE)

    def _configure_launcher(self) -> None:
        assert self.cluster_environment is not None
        self._launcher = Launcher(self.cluster_environment, self.num_processes, self.num_nodes)

    @property
    def mesh(self) -> Any:
        """The processes among which parameters are shared out."""
        return self.device_mesh["data_parallel"]

    @property
    def lightning_restore_optimizer(self) -> bool:
        """The checkpoint's optimizer state comes through ``load_optimizer_state_dict``."""
        return True

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """What the module keeps in a checkpoint's dictionary, whole on rank 0."""
        module: Any = self.lightning_module
        kept = set(module.kept_names())
        state = whole_state(module, lambda name, _: name in kept, keep=self.is_global_zero)
        return {name: state[name] for name in kept}

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        """Fill each process's pieces; TrainModule has compared names and shapes."""
        assert self.lightning_module is not None
        own = self.lightning_module.state_dict(keep_vars=True)
        for name, value in checkpoint["state_dict"].items():
            fill(own[name], value)

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """The optimizer's state with whole tensors on rank 0, gathered one after another."""
        inner: Any = getattr(optimizer, "_optimizer", optimizer)
        state: dict[str, Any] = inner.state_dict()
        rows: dict[Any, dict[str, Any]] = {}
        for index, entry in state["state"].items():
            rows[index] = {name: self._whole(value) for name, value in entry.items()}
        return {**state, "state": rows}

    def _whole(self, value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        full = whole(value)
        return full if self.is_global_zero else torch.empty(0)

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        """Hand each process its pieces of every state that is shaped as its parameter is."""
        for optimizer, saved in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            parameters = [p for group in optimizer.param_groups for p in group["params"]]
            indices = [index for group in saved["param_groups"] for index in group["params"]]
            of = dict(zip(indices, parameters, strict=True))
            rows = {
                index: {
                    name: like(value, of[index])
                    if isinstance(value, Tensor) and value.shape == of[index].shape and value.dim() > 0
                    else value
                    for name, value in entry.items()
                }
                for index, entry in saved["state"].items()
            }
            optimizer.load_state_dict({**saved, "state": rows})

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:
        """The dictionary of our own folder format; every process reads it."""
        return ParallelStrategy.load_checkpoint(self, checkpoint_path, weights_only=weights_only)
