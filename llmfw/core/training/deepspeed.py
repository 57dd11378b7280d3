"""DeepSpeed: the configuration that our settings amount to, and why a run here can't use it.

A step of this core looks at the gradients of all its micro-batches before it changes a weight (the guard
against values that aren't finite, the logged norm), and a checkpoint holds whole tensors that any number of
processes can load. DeepSpeed's engine takes gradients out of ``parameter.grad`` as they arrive, clips and
updates inside its own ``step``, and keeps the optimizer's state as pieces of its own. Lightning's strategy
hands all of that to the engine and, with manual optimization, has it take every backward pass for a whole
step. So it's refused, and the configuration can be handed on: ``llmfw config --deepspeed`` prints it for a
trainer that is built on DeepSpeed.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from typing import Any

from llmfw.core.errors import ConflictError, ResourceError
from llmfw.core.schema import Root

_DEFAULTS: Mapping[int, Mapping[str, Any]] = {
    0: {},
    1: {"reduce_scatter": True, "overlap_comm": True},
    2: {"reduce_scatter": True, "overlap_comm": True, "contiguous_gradients": True},
    3: {
        "overlap_comm": True,
        "contiguous_gradients": True,
        "stage3_gather_16bit_weights_on_model_save": True,
    },
}
"""By ZeRO stage: what is worth switching on. Offloading stays off unless the mapping asks for it."""


def deepspeed_config(root: Root) -> dict[str, Any]:
    """DeepSpeed's configuration of a run: batch sizes, clipping, arithmetic and AdamW from our settings,
    ZeRO-2 unless ``trainer.deepspeed`` names another stage; what the mapping says beside that is taken over.

    The learning rate is the peak: our schedule is a function of the step, which DeepSpeed doesn't have.
    """
    trainer, optimizer = root.trainer, root.optimizer
    given = dict(trainer.deepspeed)
    zero = dict(given.pop("zero_optimization", None) or {})
    stage = int(zero.pop("stage", 2))
    world = trainer.devices * trainer.nodes
    return {
        "train_batch_size": trainer.micro_batch * trainer.accumulate * world,
        "train_micro_batch_size_per_gpu": trainer.micro_batch,
        "gradient_accumulation_steps": trainer.accumulate,
        "gradient_clipping": float(optimizer.clip),
        "bf16": {"enabled": trainer.precision.startswith("bf16")},
        "fp16": {"enabled": trainer.precision.startswith("16")},
        "optimizer": {
            "type": "AdamW",
            "params": {
                "lr": optimizer.lr,
                "betas": list(optimizer.betas),
                "eps": optimizer.eps,
                "weight_decay": optimizer.weight_decay,
            },
        },
        "zero_optimization": {"stage": stage, **_DEFAULTS.get(stage, {}), **zero},
        **given,
    }


def refuse_deepspeed() -> None:
    """Say what stands in the way of ``trainer.strategy=deepspeed``.

    Raises:
        ConflictError: DEEPSPEED, always in the end; first where there is no GPU.
        ResourceError: PACKAGE, where the package is absent.
    """
    import torch

    key = "trainer.strategy"
    if not torch.cuda.is_available():
        raise ConflictError(
            "DEEPSPEED", "DeepSpeed needs GPUs, and there is none", mend="set trainer.strategy=fsdp2", key=key
        )
    if importlib.util.find_spec("deepspeed") is None:
        raise ResourceError(
            "PACKAGE", "DeepSpeed isn't installed", mend="pip install 'llmfw[deepspeed]'", key=key
        )
    raise ConflictError(
        "DEEPSPEED",
        "DeepSpeed keeps gradients and optimizer state to itself, and a step here looks at them first",
        mend="set trainer.strategy=fsdp2, which shards as ZeRO-3 does; for another trainer llmfw config "
        "--deepspeed prints the configuration",
        key=key,
    )
