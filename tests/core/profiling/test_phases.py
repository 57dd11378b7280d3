"""Phases: every moment in exactly one, also those of autograd's thread of work."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from llmfw.core.profiling import phases as module
from llmfw.core.profiling.phases import BACKWARD, FORWARD, RECOMPUTED, REST, Phases, Timed
from llmfw.core.profiling.trace import MARK, name_of, track

CPU = torch.device("cpu")


@pytest.fixture
def tick(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Lets milliseconds pass; nothing else does."""
    now = [0]
    monkeypatch.setattr(module.time, "perf_counter_ns", lambda: now[0])

    def pass_by(milliseconds: int) -> None:
        now[0] += milliseconds * 1_000_000

    return pass_by


def _ms(told: Timed) -> dict[tuple[str, str], float]:
    return {phase: round(seconds * 1e3, 6) for phase, seconds in told.phases.items() if seconds}


def test_time_counts_for_the_innermost_phase_and_adds_up(tick: Callable[[int], None]) -> None:
    """1 ms of the rest, 2 of data, 4 of the loss around 8 of attention in it, 16 of the rest: 31 in all."""
    phases = Phases(CPU)
    phases.begin()
    tick(1)
    with phases.over(("data wait", "")):
        tick(2)
    phases.enter((FORWARD, "loss"))
    tick(3)
    phases.part("attention")
    tick(8)
    phases.leave()
    tick(1)
    phases.leave()
    tick(16)
    told = phases.end()
    assert _ms(told) == {
        REST: 17.0, ("data wait", ""): 2.0, (FORWARD, "loss"): 4.0, (FORWARD, "attention"): 8.0,
    }  # fmt: skip
    assert told.seconds == pytest.approx(0.031)
    assert told.calls == {("data wait", ""): 1, (FORWARD, "loss"): 1, (FORWARD, "attention"): 1}


def test_a_phase_ends_where_its_function_fails(tick: Callable[[int], None]) -> None:
    phases = Phases(CPU)
    phases.begin()

    def fails() -> None:
        tick(5)
        raise KeyError

    with pytest.raises(KeyError):
        phases.around(("optimizer", ""), fails)()
    tick(1)
    assert _ms(phases.end()) == {("optimizer", ""): 5.0, REST: 1.0}


class _Slow(torch.autograd.Function):
    @staticmethod
    def forward(ctx, value, tick, milliseconds):  # type: ignore[no-untyped-def]
        ctx.tick, ctx.milliseconds = tick, milliseconds
        return value * 2

    @staticmethod
    def backward(ctx, gradient):  # type: ignore[no-untyped-def]
        ctx.tick(ctx.milliseconds)
        return gradient * 2, None, None


def test_a_backward_pass_is_told_apart_by_where_its_nodes_were_made(tick: Callable[[int], None]) -> None:
    """Backward of attention 7 ms, of the feed-forward layer 5, of the loss 3; the gradient is 2 x 2 x 2."""
    weight = torch.tensor(3.0, requires_grad=True)
    phases = Phases(CPU)
    phases.begin()
    with phases.over((FORWARD, "loss")):
        with phases.over((FORWARD, "attention")):
            hidden = _Slow.apply(weight, tick, 7)
        with phases.over((FORWARD, "mlp")):
            hidden = _Slow.apply(hidden, tick, 5)
        total = _Slow.apply(hidden, tick, 3)
    phases.backward(total, lambda objective: objective.backward())
    told = phases.end()
    assert _ms(told) == {(BACKWARD, "attention"): 7.0, (BACKWARD, "mlp"): 5.0, (BACKWARD, "loss"): 3.0}
    assert weight.grad is not None and weight.grad.item() == 8.0


def test_what_a_backward_pass_computes_again_is_a_phase_of_its_own(tick: Callable[[int], None]) -> None:
    """The part runs once forward (2 ms) and once more, inside the backward pass (2 ms)."""
    layer = nn.Linear(2, 2)
    phases = Phases(CPU)

    def part(value: torch.Tensor) -> torch.Tensor:
        phases.part("mlp")
        tick(2)
        try:
            return layer(value).tanh()
        finally:
            phases.leave()

    phases.begin()
    with phases.over((FORWARD, "loss")):
        value = torch.ones(1, 2, requires_grad=True)
        total = torch.utils.checkpoint.checkpoint(part, value, use_reentrant=False).sum()
    phases.backward(total, lambda objective: objective.backward())
    told = _ms(phases.end())
    assert told == {(FORWARD, "mlp"): 2.0, (RECOMPUTED, "mlp"): 2.0}


def test_the_track_lies_on_the_traces_clock() -> None:
    """The step begins at 500 us of the trace; its phases begin 0, 2 and 3 ms later and end at 7 ms."""
    turns = [(10_000_000, REST), (12_000_000, ("optimizer", "")), (13_000_000, REST), (17_000_000, REST)]
    events = [{"name": "other", "ts": 1.0, "dur": 2.0}, {"name": MARK, "ts": 500.0, "dur": 7000.0}]
    found = [(e["name"], e["ts"], e["dur"]) for e in track(events, Timed(turns=turns)) if e["ph"] == "X"]
    assert found == [
        ("the rest", 500.0, 2000.0), ("optimizer", 2500.0, 1000.0), ("the rest", 3500.0, 4000.0),
    ]  # fmt: skip
    assert track([], Timed(turns=turns)) == []
    assert name_of((BACKWARD, "mlp")) == "backward: mlp"
