"""Sums of what was measured, worked out by hand; which steps are measured; peaks of memory; the clock."""

from __future__ import annotations

import mmap
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from llmfw.core.costs import Cost, Part, parts_of, peak_memory, read_cost, series_of
from llmfw.core.costs.clock import Clock, saved_bytes
from llmfw.core.costs.memory import _CLEAR
from llmfw.core.costs.meter import MOST_SAMPLES, Meter, Watched, sampled_steps
from tests.toys import training

CPU = torch.device("cpu")


def test_a_part_is_the_mean_of_its_steps_and_a_plugin_the_sum_of_its_parts():
    """Loss: (2 + 4) / 2 = 3 ms of steps of (10 + 20) / 2 = 15 ms, a fifth; the larger of its sizes. The
    metric is asked on one of the two steps, 8 ms, and on a quarter of all: 2 ms a step, a tenth of 20 ms.
    """
    samples = [
        {"step": 2, "ms": 10.0, "parts": [{"plugin": "a", "name": "loss", "ms": 2.0, "gib": 0.5}]},
        {
            "step": 4,
            "ms": 20.0,
            "parts": [
                {"plugin": "a", "name": "loss", "ms": 4.0, "gib": 0.25},
                {"plugin": "b", "name": "surgery/s", "ms": None, "gib": 1.0, "note": "n"},
                {"plugin": "a", "name": "metric/m", "ms": 8.0, "gib": 0.0, "often": 0.25},
            ],
        },
    ]
    spent = [{"plugin": "a", "name": "evaluation/e", "seconds": seconds} for seconds in (1.0, 2.5)]
    parts = parts_of(samples, spent)
    assert parts == (
        Part(plugin="a", name="loss", ms=3.0, share=0.2, gib=0.5, samples=2),
        Part(plugin="a", name="metric/m", ms=2.0, share=0.1, gib=0.0, samples=1),
        Part(plugin="a", name="evaluation/e", seconds=3.5),
        Part(plugin="b", name="surgery/s", gib=1.0, samples=1, note="n"),
    )
    assert series_of(parts) == {
        "plugin/a/ms": 5.0, "plugin/a/gib": 0.5, "plugin/a/loss/ms": 3.0, "plugin/a/loss/gib": 0.5,
        "plugin/a/metric/m/ms": 2.0, "plugin/a/metric/m/gib": 0.0,
        "plugin/b/gib": 1.0, "plugin/b/surgery/s/gib": 1.0,
    }  # fmt: skip


def test_a_run_without_costs_json_or_with_a_damaged_one_has_an_empty_cost(tmp_path: Path):
    assert read_cost(tmp_path) == Cost()
    (tmp_path / "costs.json").write_text('{"tokens": 3, "parts": [{"plugin": "a"}]}')
    assert read_cost(tmp_path) == Cost()
    (tmp_path / "costs.json").write_text('{"tokens": 3, "new_one": 1, "train_seconds": 1.5}')
    assert read_cost(tmp_path).tokens_per_second == 2.0


@pytest.mark.parametrize(
    ("max_steps", "log_every", "expected"),
    [
        (0, 1, set()),
        (1, 1, {1}),
        (2, 1, {2}),
        (5, 1, {2, 3, 4, 5}),
        (40, 10, {2, 3, 10, 20, 30, 40}),
    ],
)
def test_early_steps_are_measured_and_logged_ones(max_steps: int, log_every: int, expected: set[int]):
    assert sampled_steps(max_steps, log_every) == expected


def test_a_long_run_is_measured_seldom_and_all_along():
    """Ten of the 997 steps after the third, in the middle of each tenth."""
    steps = sorted(sampled_steps(1000, 1))
    assert len(steps) == MOST_SAMPLES and steps[:3] == [2, 3, 53] and steps[-1] == 951


@pytest.fixture
def tick(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """A clock that stands until it's told to go on."""
    now = [0.0]
    monkeypatch.setattr(Clock, "now", lambda self: now[0])

    def on(seconds: float) -> None:
        now[0] += seconds

    return on


def test_a_regions_time_is_its_own_and_not_that_of_regions_inside(tick: Callable[[float], None]):
    """loss 1, in it the policy 2, in that a surgery 4, in that the base 8, then the loss again 16."""
    clock, loss, surgery = Clock(CPU), ("p", "loss"), ("p", "surgery/s")
    clock.call(
        loss,
        lambda: (
            tick(1),
            clock.call(None, lambda: (tick(2), clock.call(surgery, lambda: (
                tick(4), clock.call(None, tick, 8))))),
            tick(16),
        ),
    )  # fmt: skip
    tick(32)
    assert clock.seconds == {loss: 17, surgery: 4}


def test_what_a_reference_calls_is_the_references(tick: Callable[[float], None]):
    reference = ("p", "reference")
    clock = Clock(CPU, [reference])
    clock.call(
        reference, lambda: (tick(1), clock.call(("p", "surgery/s"), tick, 2), clock.call(None, tick, 4))
    )
    assert clock.seconds == {reference: 7}


def test_a_region_ends_where_its_function_fails(tick: Callable[[float], None]):
    clock = Clock(CPU)

    def fail() -> None:
        tick(1)
        raise ValueError

    with pytest.raises(ValueError):
        clock.call(("p", "loss"), fail)
    tick(2)
    assert clock.seconds == {("p", "loss"): 1}


class Slow(torch.autograd.Function):
    """Times two; its backward pass takes as long as ``tick`` is told."""

    @staticmethod
    def forward(ctx: Any, values: torch.Tensor, tick: Any, seconds: float) -> torch.Tensor:
        ctx.tick, ctx.seconds = tick, seconds
        return values * 2

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        ctx.tick(ctx.seconds)
        return gradients[0] * 2, None, None


def test_the_backward_pass_of_a_part_is_that_of_what_was_computed_in_its_region(
    tick: Callable[[float], None],
):
    """Backward: 5 of the loss's node, 3 of the policy's that belong to nobody, 7 of the surgery's."""
    clock, loss, surgery = Clock(CPU), ("p", "loss"), ("p", "surgery/s")
    weight = torch.ones(4, requires_grad=True)

    def policy() -> torch.Tensor:
        inner = clock.call(surgery, Slow.apply, weight, tick, 7.0)
        return Slow.apply(inner, tick, 3.0)

    total = clock.forward(loss, lambda: Slow.apply(clock.call(None, policy), tick, 5.0).sum())
    plain = torch.autograd.grad(total, weight, retain_graph=True)[0]
    tick(-15.0)
    for part, node in clock.made_here(total):
        clock.time_backward(part, node)
    total.backward()
    assert clock.seconds == {loss: 5, surgery: 7} and weight.grad is not None and weight.grad.equal(plain)


def test_saved_bytes_count_each_stretch_of_memory_once_and_nothing_that_is_there_anyway():
    """exp keeps its result, the first product keeps the mask, the second the first and exp's result again:
    three stretches of 6 x 4 bytes. The parameter and a tensor of the batch don't count.
    """
    weight, batch = torch.ones(6, requires_grad=True), torch.ones(6)
    mask = torch.full((6,), 2.0)
    grown = (weight * batch).exp()
    total = (grown * mask.requires_grad_(False) * grown).sum()
    nodes, waiting = [], [total.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is not None:
            nodes.append(node)
            waiting += [other for other, _ in node.next_functions]
    assert saved_bytes(nodes, [batch]) == 3 * 6 * 4
    assert saved_bytes(nodes, []) == 4 * 6 * 4


@pytest.mark.skipif(sys.platform != "linux" or not _CLEAR.exists(), reason="Linux resets peaks of memory")
def test_a_peak_is_that_of_its_own_stretch_and_an_outer_one_knows_those_of_inner_ones():
    with peak_memory() as outer:
        with peak_memory() as first:
            _fill(96)
        with peak_memory() as second:
            pass
    assert first.reset and second.reset and outer.reset
    assert first.host and second.host and outer.host and first.before
    assert first.host - first.before > 90 * 2**20
    assert second.host < first.host - 60 * 2**20 and outer.host >= first.host
    assert "while the run lasted" in first.how and outer.gpu is None


@pytest.mark.skipif(sys.platform != "linux" or not _CLEAR.exists(), reason="Linux resets peaks of memory")
def test_what_comes_after_a_stretch_does_not_raise_its_peak():
    with peak_memory() as ended:
        pass
    _fill(96)
    assert ended.host and ended.before and ended.host - ended.before < 60 * 2**20


def _fill(mib: int) -> None:
    """Hold that much of memory for a moment; asked of the system, which gets it back at once."""
    with mmap.mmap(-1, mib * 2**20) as held:
        held.write(b"x" * len(held))


def test_where_a_peak_can_not_be_reset_it_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("llmfw.core.costs.memory._CLEAR", tmp_path / "none" / "clear_refs")
    with peak_memory() as peak:
        pass
    assert peak.host and "can't be reset here" in peak.how


def _calls(step: int, meter: Meter | None, folder: Path) -> int:
    """Python functions called from the begin of a step to that of the next but one."""
    count, counting = [0], [False]

    def count_calls(frame: Any, event: str, argument: Any) -> None:
        count[0] += event == "call" and counting[0]

    class Watch(training.L.Callback):
        def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, index: int) -> None:
            counting[0] = trainer.global_step + 1 == step

    sys.setprofile(count_calls)
    try:
        training.fit(folder, Watch(), meter=meter, max_steps=6)
    finally:
        sys.setprofile(None)
    return count[0]


def test_a_step_that_is_not_measured_makes_no_call_more(tmp_path: Path):
    """Step 4 of 6, beside measured steps 2 and 6, makes as many as without a meter; step 2 makes more."""
    told: list[Any] = []
    meter = Meter(frozenset({2, 6}), Watched(loss="p"), told.append)
    _calls(4, None, tmp_path / "warm")
    plain, beside = (_calls(4, one, tmp_path / str(index)) for index, one in enumerate((None, meter)))
    assert beside == plain > 100
    assert [sample["step"] for sample in told] == [2, 6]
    again = Meter(frozenset({2, 6}), Watched(loss="p"), told.append)
    assert _calls(2, again, tmp_path / "measured") > plain + 20
