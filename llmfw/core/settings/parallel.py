"""Settings of several processes that can't be together, found when they're read."""

from __future__ import annotations

from collections.abc import Iterator

from llmfw.core.schema import Root
from llmfw.core.settings.values import WrongValue

CODE = "CONFIG-STRATEGY"
DEEPSPEED_OURS = {
    "train_batch_size": "trainer.micro_batch, trainer.accumulate and trainer.devices",
    "train_micro_batch_size_per_gpu": "trainer.micro_batch",
    "gradient_accumulation_steps": "trainer.accumulate",
    "gradient_clipping": "optimizer.clip",
    "optimizer": "the optimizer's keys",
    "scheduler": "optimizer.schedule and optimizer.warmup",
    "bf16": "trainer.precision",
    "fp16": "trainer.precision",
}
"""Keys of DeepSpeed's configuration that our own settings decide, and which do."""


def wrong_strategy(root: Root) -> Iterator[WrongValue]:
    """What a strategy can't be together with; each names the key to change."""
    trainer = root.trainer
    world = trainer.devices * trainer.nodes
    if trainer.deepspeed and trainer.strategy != "deepspeed":
        what = f"it does nothing with trainer.strategy={trainer.strategy}"
        yield WrongValue(CODE, what, "leave it out, or set trainer.strategy=deepspeed", "trainer.deepspeed")
    for key in sorted(set(trainer.deepspeed) & set(DEEPSPEED_OURS)):
        what = f"{key} is decided by {DEEPSPEED_OURS[key]}"
        yield WrongValue(CODE, what, "leave it out of the mapping", "trainer.deepspeed")
    if trainer.strategy == "fsdp2":
        yield from _wrong_with_fsdp2(root)
    if trainer.strategy in ("fsdp2", "deepspeed") and world == 1 and trainer.accelerator == "cpu":
        what = f"{trainer.strategy} shares a model out over processes, and one CPU process is asked for"
        yield WrongValue(CODE, what, "set trainer.devices, or trainer.strategy=auto", "trainer.strategy")


def _wrong_with_fsdp2(root: Root) -> Iterator[WrongValue]:
    trainer = root.trainer
    if trainer.precision == "16-mixed":
        what = "FSDP2 has no gradient scaler, which float16 needs"
        yield WrongValue(CODE, what, "set trainer.precision=bf16-mixed", "trainer.precision")
    if root.model.quantization != "none":
        what = f"{root.model.quantization} weights can't be cut up by FSDP2"
        yield WrongValue(CODE, what, "set trainer.strategy=ddp", "model.quantization")
    if "8bit" in root.optimizer.name:
        what = f"{root.optimizer.name} keeps its state in blocks that FSDP2 would cut"
        yield WrongValue(CODE, what, "set optimizer.name=adamw, or trainer.strategy=ddp", "optimizer.name")
