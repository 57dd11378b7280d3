"""The run's model without weights: its architecture, surgeries and adapter, built inside a ghost."""

from __future__ import annotations

from contextlib import redirect_stderr
from dataclasses import dataclass, replace
from io import StringIO
from typing import Any

import torch

from llmfw.core.assemble import Assembled
from llmfw.core.batch import Batch
from llmfw.core.errors import LlmfwError, UsageError
from llmfw.core.estimate.ghost import Ghost
from llmfw.core.models import LocalPolicy, build_model, parameter_groups, reference_of
from llmfw.core.models.adapters import bare
from llmfw.core.models.encoder_decoder import auto_class
from llmfw.core.models.fused_build import ready_to_train
from llmfw.core.models.head import candidates
from llmfw.core.policies import surgeries_of
from llmfw.core.training.optim import MIN_8BIT, build_optimizer

KEY = "trainer.micro_batch"
_BLOCK = 256
"""Elements that share one scale in bitsandbytes' 8-bit moments (arXiv 2110.02861, section 2.1)."""


@dataclass(frozen=True, kw_only=True)
class Blank:
    """A model of which only the shapes exist, ready for a step."""

    built: Any
    policy: LocalPolicy
    reference: LocalPolicy | None
    optimizer: Any
    """None where its state is known by a formula alone (8-bit moments)."""
    trained: tuple[torch.nn.Parameter, ...]
    state: int
    """Bytes of the optimizer's state where ``optimizer`` is None."""


def refuse(what: str, mend: str, key: str) -> UsageError:
    """The error of a run that can't be estimated."""
    return UsageError("ESTIMATE", f"can't estimate {what}", mend=mend, key=key)


def check_estimable(assembled: Assembled) -> None:
    """Refuse runs of which nothing is known beforehand.

    Raises:
        UsageError: ESTIMATE, naming the setting.
    """
    root, plan = assembled.run.config, assembled.plan
    if root.model.quantization != "none":
        raise refuse(
            f"a base in {root.model.quantization}: its kernels can't be followed without weights",
            "set trainer.micro_batch by hand, or model.quantization=none",
            "model.quantization",
        )
    if root.trainer.strategy in ("fsdp2", "deepspeed"):
        raise refuse(
            f"trainer.strategy={root.trainer.strategy}: what each process holds is decided while it runs",
            "set trainer.micro_batch by hand, or trainer.strategy=ddp",
            "trainer.strategy",
        )
    if plan.one("llmfw_sampler") is not None:
        owner = plan.owner("llmfw_sampler")
        raise refuse(
            f"the rounds of plugin {owner!r}: what is trained on is made while it runs",
            "set trainer.micro_batch by hand",
            "plugins",
        )


def build_blank(assembled: Assembled, ghost: Ghost) -> Blank:
    """Model, reference and optimizer of a run, in the order in which training makes them; no weight is read.

    Raises:
        UsageError: ESTIMATE, where a surgery or the architecture looks at weights.
    """
    root = assembled.run.config
    loss = assembled.plan.one("llmfw_loss")
    with ghost, ghost.kind("weights"):
        built = _build(assembled)
        policy = _with_head(LocalPolicy(built.module, built.companions, None, built.batch_keys))
    reference = None
    with ghost, ghost.kind("reference"):
        if loss.needs_reference and root.trainer.reference != "cache":
            reference = _with_head(reference_of(built, root.trainer.reference))
    if root.trainer.precision == "bf16-true":
        with ghost, ghost.kind("weights"):
            built.module.to(torch.bfloat16)
    for part in (built.module, *built.companions.values()):
        part.train()
        for value in (*part.parameters(), *part.buffers()):
            ghost.mark(value, "weights")
    groups = parameter_groups(built, root.optimizer.weight_decay)
    trained = tuple(
        parameter
        for group in groups
        for parameter in (item[1] if isinstance(item, tuple) else item for item in group["params"])
        if parameter.requires_grad
    )
    whole = root.optimizer.name == "adamw"
    optimizer = (
        build_optimizer(groups, root.optimizer, scaled=root.trainer.precision == "16-mixed")
        if whole
        else None
    )
    return Blank(
        built=built,
        policy=policy,
        reference=reference,
        optimizer=optimizer,
        trained=trained,
        state=0 if whole else sum(map(eight_bits, trained)),
    )


def eight_bits(parameter: torch.nn.Parameter) -> int:
    """Bytes of a parameter's two 8-bit moments and their scales; of small ones 32 bits each."""
    size = parameter.numel()
    return 8 * size if size < MIN_8BIT else 2 * (size + 4 * -(-size // _BLOCK))


def _build(assembled: Assembled) -> Any:
    root = assembled.run.config
    plain = replace(root.trainer, compile="none")  # what is compiled is told as if it weren't
    try:
        with redirect_stderr(StringIO()):  # what is fused is said when it's trained
            built = build_model(
                assembled.settled.source, root.adapter, surgeries_of(assembled), root.seed, load=blank_module
            )
            return ready_to_train(built, plain)
    except LlmfwError:
        raise
    except Exception as error:  # what reads weights meets tensors without values, whatever it raises
        said = " ".join(str(error).split())[:120]
        raise refuse(
            f"this model without its weights ({type(error).__name__}: {said})",
            "set trainer.micro_batch by hand",
            KEY,
        ) from error


def blank_module(source: Any, config: Any) -> Any:
    """The architecture of a run's model on the device that is torch's default now, no file read."""
    dtype = torch.float32 if source.kind == "scratch" else getattr(torch, source.model.dtype)
    made = auto_class(config).from_config(config, dtype=dtype, attn_implementation=source.model.attention)
    return made.eval()


def _with_head(policy: LocalPolicy) -> LocalPolicy:
    """The head that the model's config speaks of: which of the candidates is right changes no size."""
    found = candidates(bare(policy.module))
    capped = [head for head in found if head.softcap is not None]
    policy._head = next(iter(capped or found), None)
    return policy


def ghostly(batch: Batch, ghost: Ghost) -> Batch:
    """A batch whose floating-point tensors are ghosts; whole numbers and masks stay as they are."""
    return batch._map(lambda value: ghost.of(value) if value.is_floating_point() else value)
