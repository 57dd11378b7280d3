"""Settings become Lightning's strategies and DeepSpeed's configuration; what can't be right is refused."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from llmfw.core.errors import ConflictError, ResourceError, UsageError
from llmfw.core.schema import OptimizerConfig, Root, TrainerConfig
from llmfw.core.settings.limits import check
from llmfw.core.training import deepspeed
from llmfw.core.training.combinations import check_combinations
from llmfw.core.training.deepspeed import deepspeed_config, refuse_deepspeed
from llmfw.core.training.strategies import ReplicatedStrategy, ShardedStrategy, check_strategy, strategy_of

NOTHING: Any = SimpleNamespace(answers={})


def root(**trainer: Any) -> Root:
    return Root(trainer=TrainerConfig(max_steps=1, epochs=None, **trainer))


def test_each_name_is_a_strategy():
    assert strategy_of(TrainerConfig()) == "auto"
    assert isinstance(strategy_of(TrainerConfig(devices=2)), ReplicatedStrategy)
    assert isinstance(strategy_of(TrainerConfig(nodes=2)), ReplicatedStrategy)
    assert isinstance(strategy_of(TrainerConfig(strategy="ddp")), ReplicatedStrategy)
    sharded = strategy_of(TrainerConfig(strategy="fsdp2", devices=2, nodes=3))
    assert isinstance(sharded, ShardedStrategy) and sharded._data_parallel_size == 6
    assert sharded.lightning_restore_optimizer


def test_more_gpus_than_there_are_are_refused(monkeypatch: pytest.MonkeyPatch):
    check_strategy(NOTHING, root(devices=2, accelerator="cpu"))
    with pytest.raises(UsageError, match="DEVICES"):
        check_strategy(NOTHING, root(accelerator="gpu"))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    check_strategy(NOTHING, root())
    with pytest.raises(UsageError, match="set trainer.devices=1"):
        check_strategy(NOTHING, root(devices=2))


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"deepspeed": {"zero_optimization": {"stage": 3}}}, "trainer.deepspeed"),
        ({"strategy": "deepspeed", "deepspeed": {"bf16": {"enabled": True}}}, "trainer.deepspeed"),
        ({"strategy": "fsdp2", "devices": 2, "precision": "16-mixed"}, "trainer.precision"),
        ({"strategy": "fsdp2", "accelerator": "cpu"}, "trainer.strategy"),
    ],
)
def test_settings_that_can_not_be_together_are_refused_when_they_are_read(changes: dict[str, Any], key: str):
    with pytest.raises(UsageError) as caught:
        check(root(**changes))
    assert caught.value.code == "CONFIG-STRATEGY" and caught.value.key == key


def test_the_deepspeed_configuration_is_exact():
    """Global batch 3 x 2 x 4 = 24."""
    config = Root(
        optimizer=OptimizerConfig(lr=1e-4, betas=[0.9, 0.95], eps=1e-6, weight_decay=0.1, clip=0.5),
        trainer=TrainerConfig(
            micro_batch=3, accumulate=2, devices=4, precision="bf16-mixed", strategy="deepspeed",
            deepspeed={"zero_optimization": {"stage": 3, "overlap_comm": False,
                                             "offload_optimizer": {"device": "cpu"}}, "steps_per_print": 10},
        ),
    )  # fmt: skip
    assert deepspeed_config(config) == {
        "train_batch_size": 24,
        "train_micro_batch_size_per_gpu": 3,
        "gradient_accumulation_steps": 2,
        "gradient_clipping": 0.5,
        "bf16": {"enabled": True},
        "fp16": {"enabled": False},
        "optimizer": {
            "type": "AdamW",
            "params": {"lr": 1e-4, "betas": [0.9, 0.95], "eps": 1e-6, "weight_decay": 0.1},
        },
        "zero_optimization": {
            "stage": 3,
            "overlap_comm": False,
            "contiguous_gradients": True,
            "stage3_gather_16bit_weights_on_model_save": True,
            "offload_optimizer": {"device": "cpu"},
        },
        "steps_per_print": 10,
    }
    assert deepspeed_config(Root())["zero_optimization"]["stage"] == 2
    assert config.trainer.deepspeed["zero_optimization"]["stage"] == 3, "the settings stay as they are"


def test_training_with_deepspeed_is_refused_for_the_reason_that_holds(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConflictError, match="needs GPUs"):
        check_combinations(root(strategy="deepspeed", devices=2), training=True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(deepspeed.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ResourceError, match=r"llmfw\[deepspeed\]"):
        refuse_deepspeed()
    monkeypatch.setattr(deepspeed.importlib.util, "find_spec", lambda name: object())
    with pytest.raises(ConflictError, match="keeps gradients"):
        refuse_deepspeed()
