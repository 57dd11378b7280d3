"""What the processes of a run tell each other in a step: units, numbers, answers, and one gradient norm."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.distributed.tensor import DTensor

from llmfw.core.errors import CheckpointError, PluginError
from llmfw.core.models.shards import piece


def world() -> int:
    """Number of processes of the run."""
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


def gather_objects(value: Any) -> list[Any]:
    """Every process's value, in the order of ranks."""
    if world() == 1:
        return [value]
    values: list[Any] = [None] * world()
    distributed.all_gather_object(values, value)
    return values


def total(value: float, device: torch.device) -> Tensor | float:
    """The sum over processes; a float32 tensor where there are several, so that nothing waits for the
    device.
    """
    if world() == 1:
        return value
    summed = torch.full((), value, dtype=torch.float32, device=device)
    distributed.all_reduce(summed)
    return summed


class Polls:
    """Questions (was there a signal, is the time over) that every step asks on every rank.

    Register the same names on every rank before training starts.
    """

    def __init__(self) -> None:
        self._questions: dict[str, Callable[[], bool]] = {}
        self._answers: dict[str, bool] = {}

    def __setitem__(self, name: str, question: Callable[[], bool]) -> None:
        self._questions[name] = question

    def __len__(self) -> int:
        return len(self._questions)

    def ask(self) -> list[float]:
        """This rank's answers, 1 or 0, in the order of names."""
        return [float(self._questions[name]()) for name in sorted(self._questions)]

    def settle(self, rows: Sequence[Sequence[float]]) -> None:
        """Take every rank's answers; yes is what any of them said."""
        columns = zip(*rows, strict=True)
        self._answers = {name: any(c) for name, c in zip(sorted(self._questions), columns, strict=True)}

    def agreed(self, name: str) -> bool:
        """The answer that all ranks share; with one process, as of now."""
        if world() == 1:
            question = self._questions.get(name)
            return question is not None and question()
        return self._answers.get(name, False)


class Names:
    """Metric names in one order on every rank; where there are several, the first step fixes them."""

    def __init__(self, loss: str) -> None:
        self._loss = loss
        self._fixed: tuple[str, ...] | None = None

    def agreed(self, names: tuple[str, ...]) -> tuple[str, ...]:
        """The names of this step on all ranks.

        Raises:
            PluginError: METRIC-NAMES, where a later step brings a new one.
        """
        if world() == 1:
            return names
        if self._fixed is None:
            self._fixed = tuple(sorted(set().union(*gather_objects(names))))
        new = sorted(set(names) - set(self._fixed))
        if new:
            raise PluginError(
                "METRIC-NAMES",
                f"loss {self._loss!r} gave new metrics ({', '.join(new)}) after the first step",
                mend="return the same names for every batch, with count 0 where there's nothing to say",
            )
        return self._fixed


def read(values: Sequence[Tensor | float], device: torch.device) -> list[float]:
    """The values as numbers, with one wait for the device at most: what the host knows isn't sent there."""
    far = [isinstance(value, Tensor) and value.device.type == device.type for value in values]
    held = [value.double() for value, there in zip(values, far) if there and isinstance(value, Tensor)]
    told = iter(torch.stack(held).tolist() if held else ())
    return [next(told) if there else float(value) for value, there in zip(values, far)]


def gather_rows(values: Sequence[Tensor | float], device: torch.device) -> list[list[float]]:
    """One row of numbers per rank; the step's one wait for the device."""
    if world() == 1:
        return [read(values, device)]
    row = torch.stack(
        [
            value.to(device, torch.float64)
            if isinstance(value, Tensor)
            else torch.full((), value, dtype=torch.float64, device=device)
            for value in values
        ]
    )
    rows = [torch.empty_like(row) for _ in range(world())]
    distributed.all_gather(rows, row)
    gathered: list[list[float]] = torch.stack(rows).tolist()
    return gathered


def gradient_norm(grads: Mapping[str, Tensor], rank_local: Sequence[str]) -> Tensor:
    """L2 norm of all gradients (by parameter name). Squares of what a process holds alone (its own
    parameters, its pieces of sharded ones) are summed over processes; other gradients are the same on all."""
    local = set(rank_local)
    own = [piece(g) for name, g in grads.items() if name in local or isinstance(g, DTensor)]
    if world() == 1 or not (rank_local or own):
        return torch.nn.utils.get_total_norm([piece(g) for g in grads.values()])
    shared = [g for name, g in grads.items() if name not in local and not isinstance(g, DTensor)]
    device = next(iter(grads.values())).device if grads else torch.device("cpu")
    norms = [torch.nn.utils.get_total_norm(found).to(device) for found in (shared, own)]
    squares = norms[1].square()
    distributed.all_reduce(squares)
    return (norms[0].square() + squares).sqrt()


def clip_gradients(parameters: Iterable[nn.Parameter], limit: float, norm: Tensor) -> None:
    """Scale gradients in place so that their norm, which is ``norm`` now, is at most ``limit``."""
    found = list(parameters)
    sharded = [p for p in found if isinstance(p.grad, DTensor)]
    torch.nn.utils.clip_grads_with_norm_((p for p in found if not isinstance(p.grad, DTensor)), limit, norm)
    factor = torch.clamp(limit / (norm + 1e-6), max=1.0)  # as torch has it
    for parameter in sharded:
        assert parameter.grad is not None
        piece(parameter.grad).mul_(factor)


def average_replicas(parameters: Iterable[nn.Parameter]) -> None:
    """Average the gradients of parameters that every process holds whole beside a sharded model, in place;
    one that no process has a gradient for keeps none."""
    whole = [p for p in parameters if p.requires_grad and not isinstance(p, DTensor)]
    if world() == 1 or not whole:
        return
    has = torch.tensor([float(p.grad is not None) for p in whole], device=whole[0].device)
    distributed.all_reduce(has)
    for parameter, count in zip(whole, has.tolist(), strict=True):
        if not count:
            continue
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        distributed.all_reduce(parameter.grad)
        parameter.grad.div_(world())


def local_state(checkpoint: Mapping[str, Any], names: Sequence[str]) -> list[dict[str, Any]]:
    """What each rank's own parameters hold, in the order of ranks: weights and optimizer state by name. Every
    rank calls this with its own checkpoint dictionary."""
    own: dict[str, Any] = {}
    for name in names:
        index, state = _optimizer_entry(checkpoint, name)
        weight = checkpoint["state_dict"][name].detach().cpu().clone()
        own[name] = {"weight": weight, "optimizer": {k: v.cpu() for k, v in state.get(index, {}).items()}}
    return gather_objects(own)


def take_local_state(checkpoint: Mapping[str, Any], names: Sequence[str], rank: int) -> None:
    """Put a rank's own parameters back into a checkpoint dictionary that rank 0 wrote.

    Raises:
        CheckpointError: CHECKPOINT-RANKS, where another number of processes wrote it, or other names are
        local.
    """
    saved = checkpoint.get("ranks", [])
    if len(saved) != world() or any(set(own) != set(names) for own in saved):
        raise CheckpointError(
            "CHECKPOINT-RANKS",
            f"parameters that each process owns were saved by {len(saved)} processes, this run has {world()}",
            mend=f"resume with trainer.devices={len(saved)} and the same plugins",
        )
    for name, own in saved[rank].items():
        index, state = _optimizer_entry(checkpoint, name)
        checkpoint["state_dict"][name] = own["weight"]
        state[index] = own["optimizer"]


def _optimizer_entry(checkpoint: Mapping[str, Any], name: str) -> tuple[int | None, dict[Any, Any]]:
    """The optimizer's index of a parameter (None where it isn't trained), and the optimizer's state."""
    (optimizer,) = checkpoint["optimizer_states"]
    index = {
        n: i for group in optimizer["param_groups"] for n, i in zip(group["param_names"], group["params"])
    }
    return index.get(name), optimizer["state"]
