"""The reference model: the same weights with the adapter off, or a frozen copy."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from copy import deepcopy
from typing import Any, Literal

import torch
from torch import Tensor, nn

from llmfw.core.batch import Batch
from llmfw.core.errors import UsageError
from llmfw.core.models.adapters import is_adapted
from llmfw.core.models.build import BuiltModel
from llmfw.core.models.policy import LocalPolicy

How = Literal["auto", "adapter_off", "copy", "cache"]


class FrozenPolicy(LocalPolicy):
    """A policy that never trains: no gradients, evaluation mode during each call (the mode before is put
    back).

    ``adapter_off`` takes PEFT's adapter out for the length of each call.
    """

    def __init__(
        self,
        module: nn.Module,
        companions: Mapping[str, nn.Module] | None = None,
        tokenizer: Any = None,
        batch_keys: Sequence[str] = (),
        *,
        adapter_off: bool = False,
    ) -> None:
        super().__init__(module, companions, tokenizer, batch_keys)
        self._adapter_off = adapter_off

    def logps(self, batch: Batch) -> Tensor:
        """[N] log-probs of ``batch.target``, without gradient."""
        with self.still():
            found = super().logps(batch)
            self.auxiliary = None
            return found

    def hidden_states(self, batch: Batch, layer: int) -> Tensor:
        """[B, T, D] states entering ``layer``, without gradient."""
        with self.still():
            return super().hidden_states(batch, layer)

    @contextmanager
    def still(self) -> Iterator[None]:
        """No gradients, evaluation mode, adapter off where asked for; all as before afterwards, also on
        error.
        """
        modes = [(part, part.training) for part in self.module.modules() if part.training]
        off: AbstractContextManager[Any] = nullcontext()
        if self._adapter_off:
            wrapper: Any = self.module
            off = wrapper.disable_adapter()
        try:
            for part, _ in modes:
                part.training = False
            with torch.no_grad(), off:
                yield
        finally:
            for part, mode in modes:
                part.training = mode


def reference_of(built: BuiltModel, how: How | str = "auto") -> FrozenPolicy:
    """The model as it is before training; to be made before the first step.

    ``adapter_off`` costs no memory, ``copy`` that of a second model; ``auto`` takes the first where it is
    right. ``cache`` costs none either: it's the model itself, to fill a ``ReferenceCache`` with before the
    first step, and no reference any more after that.

    Raises:
        UsageError: ``adapter_off`` without an adapter, or where surgeries train parameters inside the
        model: with the
            adapter off it would still not be the model that training began from.
    """
    inside = [name for name in built.trainable if not name.startswith("companions.")]
    able = is_adapted(built.module) and not inside and built.kind == "adapter"
    if how == "adapter_off" and not able:
        what = f"surgeries train {inside[0]}" if inside else "nothing is switched off without an adapter"
        raise UsageError(
            "REFERENCE",
            f"the adapter-off model isn't the reference: {what}",
            mend="set trainer.reference=copy",
            key="trainer.reference",
        )
    if how == "adapter_off" or (how != "copy" and able):
        return FrozenPolicy(
            built.module, built.companions, built.tokenizer, built.batch_keys, adapter_off=True
        )
    if how == "cache":
        return frozen_policy(built)
    # companions are copied in one go with the model: they may hold parts of it
    module, companions = deepcopy((built.module, dict(built.companions)))
    for part in (module, *companions.values()):
        part.requires_grad_(False)
        part.eval()
    return FrozenPolicy(module, companions, built.tokenizer, built.batch_keys)


def frozen_policy(built: BuiltModel) -> FrozenPolicy:
    """An auxiliary model's façade: the model as it stands, never trained."""
    return FrozenPolicy(built.module, built.companions, built.tokenizer, built.batch_keys)
