"""AdamW and its learning-rate schedule: a pure function of the optimizer step, so there is no scheduler state
to lose.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from llmfw.core.errors import UsageError
from llmfw.core.models.quantize import require_bitsandbytes
from llmfw.core.models.talk import quiet
from llmfw.core.say import say
from llmfw.core.schema import OptimizerConfig

MIN_8BIT = 4096
"""Parameters with fewer elements keep moments of 32 bits in 8-bit optimizers (bitsandbytes' own limit)."""


def warmup_steps(total: int, config: OptimizerConfig) -> int:
    """Optimizer steps of warm-up: ``warmup`` itself, or that share of ``total`` (rounded, halves up) where
    it's below 1.
    """
    return int(config.warmup) if config.warmup >= 1 else int(config.warmup * total + 0.5)


def schedule(step: int, total: int, config: OptimizerConfig) -> float:
    """Factor of the peak learning rate for optimizer step ``step`` (0-based) of ``total``.

    Warm-up over w steps: (step + 1) / (w + 1), so that step w has the peak and no step has zero. After it,
    with x = (step - w) / (total - w) in [0, 1):
    constant 1; linear m + (1 - m)(1 - x); cosine m + (1 - m)(1 + cos(pi x)) / 2, with m = ``min_lr``;
    wsd: 1 until the last d = ``decay`` x total steps, then linear from 1 to m over those d
    (arXiv:2404.06395). m itself would be reached at step ``total``, which isn't taken.
    """
    warmup = warmup_steps(total, config)
    if step < warmup:
        return (step + 1) / (warmup + 1)
    floor, name = config.min_lr, config.schedule
    if name == "constant":
        return 1.0
    start = warmup if name != "wsd" else max(warmup, total - max(1, int(config.decay * total + 0.5)))
    progress = min(max((step - start) / max(total - start, 1), 0.0), 1.0)
    if name in ("linear", "wsd"):
        return floor + (1 - floor) * (1 - progress)
    if name == "cosine":
        return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * progress))
    raise UsageError(
        "CONFIG-VALUE",
        f"unknown schedule {name!r}",
        mend="use constant, linear, cosine or wsd",
        key="optimizer.schedule",
    )


def check_optimizer(config: OptimizerConfig) -> None:
    """Refuse settings that can't train.

    Raises:
        UsageError: CONFIG-VALUE, naming the key.
    """
    rules: dict[str, tuple[bool, str]] = {
        "lr": (config.lr > 0 and math.isfinite(config.lr), "a number above 0"),
        "betas": (
            len(config.betas) == 2 and all(0 <= beta < 1 for beta in config.betas),
            "two numbers in [0, 1)",
        ),
        "eps": (config.eps > 0 and math.isfinite(config.eps), "a number above 0"),
        "weight_decay": (
            config.weight_decay >= 0 and math.isfinite(config.weight_decay),
            "a number of at least 0",
        ),
        "warmup": (
            config.warmup >= 0 and math.isfinite(config.warmup),
            "a share below 1, or a number of steps",
        ),
        "decay": (0 < config.decay <= 1, "a share in (0, 1]"),
        "min_lr": (0 <= config.min_lr <= 1, "a share in [0, 1]"),
        "clip": (config.clip >= 0, "a number of at least 0"),
    }
    for key, (holds, wanted) in rules.items():
        if not holds:
            raise UsageError(
                "CONFIG-VALUE",
                f"{getattr(config, key)!r} can't be used",
                mend=f"set {wanted}",
                key=f"optimizer.{key}",
            )


def named_groups(
    groups: Iterable[Mapping[str, Any]], named_parameters: Iterable[tuple[str, nn.Parameter]]
) -> list[dict[str, Any]]:
    """The parameter groups with every parameter under its name, which the optimizer's state then carries.

    Raises:
        UsageError: NOTHING-TO-TRAIN, where the groups hold no parameter that needs a gradient.
    """
    names = {id(parameter): name for name, parameter in named_parameters}
    result = []
    for group in groups:
        members = [p[1] if isinstance(p, tuple) else p for p in group["params"]]
        trained = [(names[id(p)], p) for p in members if p.requires_grad]
        if trained:
            result.append({**group, "params": trained})
    if not result:
        raise UsageError(
            "NOTHING-TO-TRAIN",
            "no parameter is trainable",
            mend="set adapter.kind=lora, or train the model itself",
        )
    return result


def build_optimizer(
    groups: Sequence[Mapping[str, Any]], config: OptimizerConfig, *, scaled: bool = False
) -> torch.optim.Optimizer:
    """AdamW over ``groups`` (keys: params, weight_decay), fused where every parameter's device has such a
    kernel; or bitsandbytes' with moments in 8 bits (arXiv 2110.02861).

    ``scaled``: a gradient scaler is in use; a fused step would unscale inside, after the norm was looked at.

    Raises:
        UsageError: CONFIG-VALUE, naming the key.
        ResourceError: BITSANDBYTES, where the package is absent.
    """
    check_optimizer(config)
    parameters: list[Tensor] = [
        p[1] if isinstance(p, tuple) else p for group in groups for p in group["params"]
    ]
    if config.name != "adamw":
        return _eight_bits(groups, parameters, config)
    fused = not scaled and all(p.device.type in ("cpu", "cuda") and p.is_floating_point() for p in parameters)
    return torch.optim.AdamW(
        [dict(group) for group in groups],
        lr=config.lr,
        betas=(config.betas[0], config.betas[1]),
        eps=config.eps,
        weight_decay=config.weight_decay,
        fused=fused or None,
    )


def _eight_bits(
    groups: Sequence[Mapping[str, Any]], parameters: Sequence[Tensor], config: OptimizerConfig
) -> torch.optim.Optimizer:
    require_bitsandbytes("optimizer.name")
    with quiet():
        from bitsandbytes.optim import AdamW8bit, PagedAdamW8bit

    small = sum(1 for p in parameters if p.numel() < MIN_8BIT)
    paged = config.name == "paged_adamw8bit"
    say(
        f"{config.name}: moments in 8 bits for {len(parameters) - small} of {len(parameters)} parameters; "
        f"those below {MIN_8BIT} elements keep 32 bits"
    )
    if paged and all(p.device.type == "cpu" for p in parameters):
        say("warning: paged_adamw8bit pages between GPU and host memory; on the CPU it is adamw8bit")
        paged = False
    made: torch.optim.Optimizer = (PagedAdamW8bit if paged else AdamW8bit)(
        [dict(group) for group in groups],
        lr=config.lr,
        betas=(config.betas[0], config.betas[1]),
        eps=config.eps,
        weight_decay=config.weight_decay,
        min_8bit_size=MIN_8BIT,
    )
    return made


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Give every group the learning rate of the step to come."""
    for group in optimizer.param_groups:
        group["lr"] = lr
