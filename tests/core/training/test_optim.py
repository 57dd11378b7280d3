"""The learning-rate schedule by hand, and which parameters AdamW gets."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from llmfw.core.checkpoint import SafeCheckpointIO
from llmfw.core.errors import UsageError
from llmfw.core.schema import OptimizerConfig
from llmfw.core.training.optim import build_optimizer, check_optimizer, named_groups, schedule, warmup_steps

NONE = OptimizerConfig(warmup=0)


def factors(total: int, **changes: Any) -> list[float]:
    return [schedule(step, total, replace(NONE, **changes)) for step in range(total)]


def test_warm_up_rises_in_equal_parts_and_reaches_the_peak_after_its_last_step() -> None:
    """w = 3: 1/4, 2/4, 3/4, then the peak."""
    assert factors(6, schedule="constant", warmup=3) == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]


def test_linear_falls_by_equal_parts_and_would_be_zero_after_the_last_step() -> None:
    """w = 1, total 5: 1/2, then 1 - (s - 1)/4 for s = 1..4."""
    assert factors(5, schedule="linear", warmup=1) == [0.5, 1.0, 0.75, 0.5, 0.25]


def test_cosine_has_its_half_way_point_at_half() -> None:
    """No warm-up, total 4: (1 + cos(pi s / 4)) / 2 = 1, .8536, .5, .1464."""
    root = math.sqrt(0.5)
    assert factors(4, schedule="cosine") == pytest.approx([1.0, (1 + root) / 2, 0.5, (1 - root) / 2])


def test_the_floor_lifts_the_end_and_keeps_the_peak() -> None:
    """m = 0.2, linear, total 4: 1, .8, .6, .4."""
    assert factors(4, schedule="linear", min_lr=0.2) == pytest.approx([1.0, 0.8, 0.6, 0.4])
    assert schedule(4, 4, replace(NONE, schedule="cosine", min_lr=0.2)) == pytest.approx(0.2)


def test_wsd_is_level_and_then_falls_over_its_last_share() -> None:
    """w = 2, total 10, decay 0.4: two steps of warm-up, four at the peak, then 1, .75, .5, .25."""
    expected = [1 / 3, 2 / 3, 1, 1, 1, 1, 1, 0.75, 0.5, 0.25]
    assert factors(10, schedule="wsd", warmup=2, decay=0.4) == pytest.approx(expected)


def test_wsd_whose_decay_covers_everything_is_linear_after_warm_up() -> None:
    assert factors(6, schedule="wsd", warmup=2, decay=1.0) == factors(6, schedule="linear", warmup=2)


@pytest.mark.parametrize("name", ["constant", "linear", "cosine", "wsd"])
@pytest.mark.parametrize("warmup", [0, 0.1, 0.99, 1, 7, 100])
@pytest.mark.parametrize("total", [1, 2, 7])
def test_every_step_of_every_schedule_learns_something(name: str, warmup: float, total: int) -> None:
    assert all(0 < factor <= 1 for factor in factors(total, schedule=name, warmup=warmup))


def test_a_warm_up_longer_than_the_run_never_reaches_the_peak() -> None:
    """w = 9, total 3: 1/10, 2/10, 3/10."""
    assert factors(3, schedule="cosine", warmup=9) == pytest.approx([0.1, 0.2, 0.3])


@pytest.mark.parametrize(
    ("warmup", "total", "steps"),
    [(0.1, 1, 0), (0.1, 4, 0), (0.1, 5, 1), (0.1, 25, 3), (0.5, 3, 2), (1, 3, 1), (7, 3, 7), (0, 9, 0)],
)
def test_a_share_of_warm_up_is_rounded_and_a_count_is_taken_as_it_is(
    warmup: float, total: int, steps: int
) -> None:
    assert warmup_steps(total, OptimizerConfig(warmup=warmup)) == steps


def test_a_step_beyond_the_end_stays_at_the_floor() -> None:
    assert schedule(50, 10, replace(NONE, schedule="linear", min_lr=0.3)) == pytest.approx(0.3)


@pytest.mark.parametrize(
    "bad",
    [
        {"lr": 0.0},
        {"lr": -1.0},
        {"lr": math.nan},
        {"betas": [0.9]},
        {"betas": [0.9, 1.0]},
        {"eps": 0.0},
        {"weight_decay": -0.1},
        {"warmup": -1.0},
        {"decay": 0.0},
        {"min_lr": 1.5},
        {"clip": -1.0},
    ],
)
def test_settings_that_cannot_train_are_refused_by_key(bad: dict[str, Any]) -> None:
    with pytest.raises(UsageError) as caught:
        check_optimizer(OptimizerConfig(**bad))
    assert caught.value.key == f"optimizer.{next(iter(bad))}" and caught.value.exit_code == 2


def test_frozen_parameters_are_left_out_and_names_go_into_the_state() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    model[0].requires_grad_(False)
    groups = named_groups(
        [{"params": list(model.parameters()), "weight_decay": 0.5}], model.named_parameters()
    )
    optimizer = build_optimizer(groups, OptimizerConfig())
    (group,) = optimizer.state_dict()["param_groups"]
    assert group["param_names"] == ["1.weight", "1.bias"] and group["weight_decay"] == 0.5


def test_nothing_to_train_is_an_error() -> None:
    model = nn.Linear(2, 2).requires_grad_(False)
    with pytest.raises(UsageError, match="no parameter is trainable"):
        named_groups([{"params": list(model.parameters())}], model.named_parameters())


def test_the_fused_update_equals_adamw_by_hand() -> None:
    """g = 2, lr .1, betas .9/.999, decay .5: p (1 - lr wd) - lr g / (|g| + eps), as both bias corrections
    cancel at step 1.
    """
    weight = nn.Parameter(torch.tensor([3.0]))
    config = OptimizerConfig(lr=0.1, eps=1e-8)
    optimizer = build_optimizer([{"params": [("w", weight)], "weight_decay": 0.5}], config)
    assert optimizer.defaults["fused"] is True
    weight.grad = torch.tensor([2.0])
    optimizer.step()
    assert weight.item() == pytest.approx(3.0 * (1 - 0.1 * 0.5) - 0.1)


@pytest.mark.parametrize("name", ["adamw8bit", "paged_adamw8bit"])
def test_a_small_parameter_keeps_32_bits_in_an_8_bit_optimizer_and_moves_as_in_adamw(
    name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """The numbers of the test above."""
    weight = nn.Parameter(torch.tensor([3.0]))
    config = OptimizerConfig(name=name, lr=0.1, eps=1e-8)
    optimizer = build_optimizer([{"params": [("w", weight)], "weight_decay": 0.5}], config)
    weight.grad = torch.tensor([2.0])
    optimizer.step()
    assert weight.item() == pytest.approx(3.0 * (1 - 0.1 * 0.5) - 0.1)
    assert optimizer.state[weight]["state1"].dtype == torch.float32
    said = capfd.readouterr().err
    assert "8 bits for 0 of 1 parameters" in said
    assert ("warning: paged_adamw8bit" in said) is (name == "paged_adamw8bit")


def test_a_large_parameters_moments_take_a_byte_each_and_are_restored_bit_for_bit(tmp_path: Path) -> None:
    """64 x 64 = 4096: 4096 bytes a moment, a float32 scale for each 256: 16 of them."""

    def grads(step: int) -> torch.Tensor:
        return torch.randn(64, 64, generator=torch.Generator().manual_seed(step))

    def fresh() -> tuple[nn.Parameter, torch.optim.Optimizer]:
        weight = nn.Parameter(torch.ones(64, 64))
        groups = [{"params": [("w", weight)], "weight_decay": 0.1}]
        return weight, build_optimizer(groups, OptimizerConfig(name="adamw8bit", lr=0.01))

    def steps(weight: nn.Parameter, optimizer: torch.optim.Optimizer, span: range) -> None:
        for step in span:
            weight.grad = grads(step)
            optimizer.step()

    whole, optimizer = fresh()
    steps(whole, optimizer, range(6))
    state = optimizer.state[whole]
    assert state["state1"].dtype == state["state2"].dtype == torch.uint8 and state["state1"].nbytes == 4096
    assert state["absmax1"].shape == (16,)
    first, optimizer = fresh()
    steps(first, optimizer, range(3))
    SafeCheckpointIO().save_checkpoint(
        {"global_step": 3, "optimizer_states": [optimizer.state_dict()]}, tmp_path / "step-3"
    )
    loaded = SafeCheckpointIO().load_checkpoint(tmp_path / "step-3")
    resumed, optimizer = fresh()
    with torch.no_grad():
        resumed.copy_(first)
    optimizer.load_state_dict(loaded["optimizer_states"][0])
    steps(resumed, optimizer, range(3, 6))
    assert torch.equal(resumed, whole)
    assert all(
        torch.equal(optimizer.state[resumed][name], state[name])
        for name in ("state1", "state2", "absmax1", "absmax2")
    )
