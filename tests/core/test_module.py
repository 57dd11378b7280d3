"""The training step: normalisation, clipping, logging, refusal of what isn't finite, and what a checkpoint
holds.
"""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning.pytorch as L
import pytest
import torch
from lightning.pytorch.plugins import MixedPrecision
from torch import nn
from torchmetrics import SumMetric

from llmfw.core.batch import Batch, LossOutput
from llmfw.core.checkpoint import CheckpointCallback, SafeCheckpointIO
from llmfw.core.errors import CheckpointError, DataError, NumericsError
from llmfw.core.module import TrainModule
from llmfw.core.records import Loss, NamedMetric
from llmfw.core.schema import OptimizerConfig
from llmfw.core.training.job import StepBatch
from llmfw.core.training.optim import schedule
from tests.toys.training import (
    TOKENS,
    Steps,
    Toy,
    ToyModel,
    ToyPolicy,
    batch_of,
    cross_entropy,
    fit,
    split,
    training,
    weights,
)

PLAIN = OptimizerConfig(lr=0.1, schedule="constant", warmup=0, clip=0.0)


class Grads(L.Callback):
    """Gradients as the optimizer sees them."""

    def __init__(self) -> None:
        self.seen: list[dict[str, torch.Tensor]] = []

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        self.seen.append(
            {n: p.grad.detach().clone() for n, p in pl_module.named_parameters() if p.grad is not None}
        )


def one_step(
    run_dir: Path, micro_batches: list[Batch], **changes: Any
) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    grads = Grads()
    _, recorder = fit(
        run_dir, grads, max_steps=1, loader=lambda *_: [micro_batches], optimizer=PLAIN, **changes
    )
    return grads.seen[0], recorder.reports[0]


@pytest.mark.parametrize("parts", [2, 3, 6])
def test_ragged_accumulation_gives_the_gradient_of_the_whole_batch(tmp_path: Path, parts: int) -> None:
    whole = batch_of(0, 0, rows=6)
    expected, report = one_step(tmp_path, [whole])
    found, accumulated = one_step(tmp_path, split(whole, parts))
    assert len({batch.tokens for batch in split(whole, parts)}) > 1, (
        "the parts must differ in size for this to say anything"
    )
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-5, atol=1e-7)
    assert accumulated["metrics"]["loss"] == pytest.approx(report["metrics"]["loss"], rel=1e-6)
    assert accumulated["metrics"]["hits"] == pytest.approx(report["metrics"]["hits"], rel=1e-6)
    assert accumulated["units"] == whole.tokens


def test_the_gradient_is_that_of_the_mean_over_trained_tokens(tmp_path: Path) -> None:
    batch = batch_of(0, 0)
    model = ToyModel()
    (-ToyPolicy(Toy(model)).logps(batch).sum() / batch.tokens).backward()
    found, _ = one_step(tmp_path, [batch])
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            torch.testing.assert_close(found[f"model.{name}"], parameter.grad)


@pytest.mark.parametrize(("unit", "expected"), [("tokens", 21.0), ("sequences", 4.0), ("pairs", 2.0)])
def test_units_are_counted_as_the_loss_says(tmp_path: Path, unit: Any, expected: float) -> None:
    batch = batch_of(3, 0, rows=4)
    _, report = one_step(tmp_path, [batch], loss=replace(TOKENS, unit=unit))
    assert report["units"] == (batch.tokens if unit == "tokens" else expected)


def test_the_models_auxiliary_loss_is_added_once_per_step_and_logged_apart(tmp_path: Path) -> None:
    whole = batch_of(0, 0, rows=6)
    plain, report = one_step(tmp_path, split(whole, 3))
    with_auxiliary, found = one_step(tmp_path, split(whole, 3), auxiliary=0.5)
    head = ToyModel().head.weight
    added = with_auxiliary["model.head.weight"] - plain["model.head.weight"]
    torch.testing.assert_close(added, 0.5 * 2 * head.detach() / head.numel(), rtol=1e-4, atol=1e-7)
    assert found["metrics"]["loss"] == report["metrics"]["loss"]
    assert found["metrics"]["auxiliary_loss"] == pytest.approx(0.5 * head.square().mean().item())


def test_clipping_scales_the_gradient_to_the_largest_norm_and_logs_the_norm_before(tmp_path: Path) -> None:
    def update(clip: float) -> tuple[torch.Tensor, float]:
        optimizer = replace(PLAIN, clip=clip)
        module, recorder = fit(tmp_path, max_steps=1, optimizer=optimizer)
        state = module.trainer.optimizers[0].state_dict()["state"]
        return torch.cat([entry["exp_avg"].flatten() for entry in state.values()]), recorder.reports[0][
            "metrics"
        ]["grad_norm"]

    free, norm = update(0.0)
    clipped, same_norm = update(norm / 4)
    torch.testing.assert_close(
        clipped, free / 4, rtol=1e-4, atol=1e-9
    )  # the first moment is 0.1 of the gradient
    assert norm == same_norm == pytest.approx(free.norm().item() * 10, rel=1e-5)


def test_the_learning_rate_of_each_step_is_the_schedules(tmp_path: Path) -> None:
    config = OptimizerConfig(lr=0.3, schedule="linear", warmup=2)
    _, recorder = fit(tmp_path, max_steps=5, optimizer=config)
    assert [r["metrics"]["lr"] for r in recorder.reports] == [
        0.3 * schedule(step, 5, config) for step in range(5)
    ]


def test_parameters_outside_the_groups_stay_and_trained_ones_move(tmp_path: Path) -> None:
    before = {f"model.{n}": p for n, p in ToyModel().state_dict().items()}
    module, _ = fit(tmp_path)
    after = weights(module)
    assert torch.equal(after["model.frozen.weight"], before["model.frozen.weight"])
    assert not torch.equal(after["model.head.weight"], before["model.head.weight"])


def test_a_model_in_evaluation_mode_is_trained_in_training_mode(tmp_path: Path) -> None:
    module, _ = fit(tmp_path, build=lambda: Toy(ToyModel().eval()))
    assert module.model.calls.item() == 6  # counted in training mode only


def poisoned(where: str, at_step: int) -> Loss:
    """A loss whose value, or whose gradient alone, is NaN for the samples of one step."""

    class NanGradient(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
            return x.clone()

        @staticmethod
        def backward(ctx: Any, grad: torch.Tensor) -> torch.Tensor:
            return grad * math.nan

    def call(policy: Any, batch: Batch, reference: Any) -> LossOutput:
        out = cross_entropy(policy, batch, reference)
        if not batch.sample_ids[0].startswith(f"s{at_step}-1"):
            return out
        return replace(out, total=out.total * math.nan if where == "loss" else NanGradient.apply(out.total))

    return Loss(name="poisoned", call=call, batch_kind="text", unit="tokens")


@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_a_nan_stops_before_the_update_and_names_step_samples_and_last_checkpoint(
    tmp_path: Path, where: str
) -> None:
    checkpoints = CheckpointCallback(tmp_path / "checkpoints", every=2)
    seen: list[dict[str, torch.Tensor]] = []

    class Weights(L.Callback):
        def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
            seen.append(weights(pl_module))

        def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
            seen.append(weights(pl_module))

    with pytest.raises(NumericsError) as caught:
        fit(
            tmp_path,
            checkpoints,
            Weights(),
            loss=poisoned(where, 3),
            accumulate=2,
            newest=lambda: checkpoints.newest,
        )
    assert caught.value.exit_code == 7 and caught.value.code == "NON-FINITE"
    assert (
        "step 4" in str(caught.value)
        and "s3-1-0" in str(caught.value)
        and "step-00000002" in str(caught.value)
    )
    assert ("s3-0-0" in str(caught.value)) == (where == "gradient"), "a bad loss blames its micro-batch alone"
    report = json.loads((tmp_path / "nonfinite-step-4.json").read_text())
    assert report["step"] == 4 and [len(m["sample_ids"]) for m in report["micro_batches"]] == [6, 6]
    assert "model.head.weight" in report["parameters"] and "model.frozen.weight" not in report["parameters"]
    assert len(seen) == 4
    for name, value in seen[-1].items():
        if "calls" not in name:
            assert torch.equal(value, seen[-2][name]), "the weights before the bad step are untouched"


@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_a_step_that_may_be_left_out_changes_nothing_and_a_second_one_ends_the_run(
    tmp_path: Path, where: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Step 4 is left out: weights and moments after it are those after step 3, and later steps go on."""
    seen: list[dict[str, torch.Tensor]] = []

    class State(L.Callback):
        def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
            moments = trainer.optimizers[0].state_dict()["state"]
            flat = {
                f"{place} {name}": value.clone()
                for place, one in moments.items()
                for name, value in one.items()
            }
            seen.append({**weights(pl_module), **flat})

    module, recorder = fit(tmp_path, State(), loss=poisoned(where, 3), accumulate=2, skip_nonfinite=1)
    assert len(recorder.reports) == 6 and module.left_out == 1
    assert "STEP-LEFT-OUT" in capsys.readouterr().err
    for name, value in seen[3].items():
        if "calls" not in name:
            assert torch.equal(value, seen[2][name]), name
    assert not torch.equal(seen[4]["model.head.weight"], seen[3]["model.head.weight"])
    assert (tmp_path / "nonfinite-step-4.json").exists(), "its samples are written down all the same"
    with pytest.raises(NumericsError, match="step 4"):
        fit(tmp_path / "none", loss=poisoned(where, 3), accumulate=2, skip_nonfinite=0)


def test_a_resumed_run_has_no_more_steps_to_leave_out_than_one_that_was_not_stopped(tmp_path: Path) -> None:
    saves = CheckpointCallback(tmp_path / "saved", every=2)
    fit(tmp_path, saves, loss=poisoned("loss", 1), accumulate=2, skip_nonfinite=1, max_steps=2)
    with pytest.raises(NumericsError, match="step 4"):
        fit(
            tmp_path / "again", loss=poisoned("loss", 3), accumulate=2, skip_nonfinite=1,
            resume=tmp_path / "saved" / "step-00000002",
        )  # fmt: skip


def test_a_step_without_a_trained_token_is_refused(tmp_path: Path) -> None:
    batch = batch_of(0, 0)
    none = torch.zeros(0, dtype=torch.int64)
    empty = replace(batch, source=none, target=none, segment=none, position=none)
    with pytest.raises(DataError, match="s0-0-0"):
        fit(tmp_path, loader=lambda *_: [[empty]])


def test_metrics_of_plugins_cover_the_logged_step_alone(tmp_path: Path) -> None:
    rows = NamedMetric(
        name="rows", factory=SumMetric, update=lambda metric, output, batch: metric.update(batch.segments)
    )
    _, recorder = fit(tmp_path, metrics=[rows], accumulate=2, log_every=2)
    assert [report["metrics"].get("rows") for report in recorder.reports] == [
        12.0,
        12.0,
        None,
        12.0,
        None,
        12.0,
    ]


def test_a_metric_that_nothing_was_counted_for_is_left_out(tmp_path: Path) -> None:
    def call(policy: Any, batch: Batch, reference: Any) -> LossOutput:
        return replace(
            cross_entropy(policy, batch, reference),
            metrics={"never": (0.0, 0), "third": (batch.tokens, 3 * batch.tokens)},
        )

    _, recorder = fit(tmp_path, loss=replace(TOKENS, call=call), max_steps=1)
    assert recorder.reports[0]["metrics"]["third"] == pytest.approx(1 / 3)
    assert "never" not in recorder.reports[0]["metrics"]


def test_what_happens_between_steps_does_not_change_the_training(tmp_path: Path) -> None:
    class Draws(L.Callback):
        def on_train_batch_start(self, *_: Any) -> None:
            torch.rand(3)

        def on_train_batch_end(self, *_: Any) -> None:
            torch.rand(5)

    _, plain = fit(tmp_path, dropout=0.5)
    _, drawing = fit(tmp_path, Draws(), dropout=0.5)
    _, other = fit(tmp_path, dropout=0.5, seed=8)
    assert plain.losses == drawing.losses
    assert plain.losses != other.losses, "dropout must matter for this to say anything"


def test_a_plugins_draws_between_steps_are_the_same_after_a_resume(tmp_path: Path) -> None:
    class Draws(L.Callback):
        def __init__(self) -> None:
            self.drawn: list[float] = []

        def on_train_batch_start(self, *_: Any) -> None:
            self.drawn.append(torch.rand(()).item())

    whole, rest = Draws(), Draws()
    fit(tmp_path, whole, CheckpointCallback(tmp_path, every=2))
    fit(tmp_path, rest, resume=tmp_path / "step-00000004")
    assert rest.drawn == whole.drawn[4:]


def float16() -> list[Any]:
    """``16-mixed`` with its gradient scaler; Lightning's own word for it means bfloat16 where there's no
    GPU.
    """
    return [MixedPrecision("16-mixed", "cpu"), SafeCheckpointIO()]


@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true", "16-mixed"])
def test_lightnings_precisions_train_and_clip(tmp_path: Path, precision: str) -> None:
    chosen = {"plugins": float16()} if precision == "16-mixed" else {"precision": precision}
    module, recorder = fit(tmp_path, optimizer=OptimizerConfig(lr=1e-2, clip=1e-3), **chosen)
    _, exact = fit(tmp_path, optimizer=OptimizerConfig(lr=1e-2, clip=1e-3))
    first, wanted = recorder.reports[0]["metrics"], exact.reports[0]["metrics"]
    assert first["loss"] == pytest.approx(wanted["loss"], rel=2e-2)
    assert first["grad_norm"] == pytest.approx(wanted["grad_norm"], rel=5e-2), (
        "the norm is that of unscaled gradients"
    )
    dtype = torch.bfloat16 if precision == "bf16-true" else torch.float32
    assert module.model.head.weight.dtype == dtype
    assert not torch.equal(module.model.head.weight.float(), ToyModel().head.weight)


def test_an_overflowed_float16_gradient_skips_the_update_and_goes_on(tmp_path: Path) -> None:
    before = ToyModel().head.weight.detach()
    after: list[torch.Tensor] = []

    class Weights(L.Callback):
        def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
            after.append(pl_module.model.head.weight.detach().clone())

    def call(policy: Any, batch: Batch, reference: Any) -> LossOutput:
        out = cross_entropy(policy, batch, reference)
        if not batch.sample_ids[0].startswith("s0"):
            return out
        large = (
            1000 * policy.module.head.weight.half().float().sum()
        )  # 65536 * 1000 / units doesn't fit into float16
        return replace(out, total=out.total + large - large.detach())

    _, recorder = fit(tmp_path, Weights(), plugins=float16(), loss=replace(TOKENS, call=call), max_steps=2)
    assert recorder.reports[0]["metrics"]["grad_norm"] == math.inf
    assert torch.equal(after[0], before) and not torch.equal(after[1], before)


def test_a_nan_gradient_stops_a_float16_run_once_the_scale_is_spent(tmp_path: Path) -> None:
    def call(policy: Any, batch: Batch, reference: Any) -> LossOutput:
        out = cross_entropy(policy, batch, reference)
        weight = policy.module.head.weight
        return replace(
            out, total=out.total + (weight.sum() - weight.sum()).sqrt() * 0
        )  # sqrt'(0) * 0 is NaN, its value 0

    with pytest.raises(NumericsError, match="gradient"):
        fit(tmp_path, plugins=float16(), loss=replace(TOKENS, call=call), max_steps=40)


def test_a_checkpoint_holds_what_is_trained_and_buffers_and_nothing_else(tmp_path: Path) -> None:
    fit(tmp_path, CheckpointCallback(tmp_path, every=0))
    state = SafeCheckpointIO().load_checkpoint(tmp_path / "step-00000006")["state_dict"]
    assert set(state) == {"model.embed.weight", "model.head.weight", "model.head.bias", "model.calls"}


def test_tied_weights_are_kept_once_and_stay_tied_after_a_resume(tmp_path: Path) -> None:
    def build() -> Toy:
        model = ToyModel()
        model.head.weight = model.embed.weight
        return Toy(model)

    whole, _ = fit(tmp_path / "whole", build=build)
    fit(tmp_path, CheckpointCallback(tmp_path, every=3), build=build)
    state = SafeCheckpointIO().load_checkpoint(tmp_path / "step-00000003")["state_dict"]
    assert "model.embed.weight" in state and "model.head.weight" not in state
    rest, _ = fit(tmp_path, build=build, resume=tmp_path / "step-00000003")
    assert rest.model.head.weight is rest.model.embed.weight
    assert torch.equal(rest.model.embed.weight, whole.model.embed.weight)


@pytest.mark.parametrize("change", ["other names", "other shapes", "more trained"])
def test_a_checkpoint_of_another_model_is_refused_by_name(tmp_path: Path, change: str) -> None:
    def build() -> Toy:
        model = ToyModel()
        if change == "other names":
            model.extra = nn.Linear(2, 2)
        elif change == "other shapes":
            model.head = nn.Linear(8, 12)
        else:
            model.frozen.requires_grad_(True)
        return Toy(model)

    fit(tmp_path, CheckpointCallback(tmp_path, every=3))
    with pytest.raises(CheckpointError) as caught:
        fit(tmp_path, build=build, resume=tmp_path / "step-00000003")
    assert caught.value.exit_code == 5 and "model." in str(caught.value)


def test_companions_are_trained_saved_and_restored(tmp_path: Path) -> None:
    def build() -> Toy:
        torch.manual_seed(0)
        return Toy(ToyModel(), {"guide": nn.Linear(8, 11)})

    def call(policy: Any, batch: Batch, reference: Any) -> LossOutput:
        embedded = policy.module.embed(batch.input_ids).flatten(0, 1)[batch.source]
        logps = policy.companions["guide"](embedded).log_softmax(-1).gather(-1, batch.target[:, None])
        return LossOutput(total=-logps.sum() + cross_entropy(policy, batch, reference).total)

    def groups(built: Toy, decay: float) -> list[dict[str, Any]]:
        own = [*built.module.parameters(), *built.companions["guide"].parameters()]
        return [{"params": [p for p in own if p.requires_grad], "weight_decay": decay}]

    pieces: dict[str, Any] = {"build": build, "loss": replace(TOKENS, call=call), "groups": groups}
    whole, _ = fit(tmp_path, CheckpointCallback(tmp_path, every=2), **pieces)
    rest, _ = fit(tmp_path, resume=tmp_path / "step-00000004", **pieces)
    assert torch.equal(whole.companions["guide"].weight, rest.companions["guide"].weight)
    assert not torch.equal(whole.companions["guide"].weight, build().companions["guide"].weight)


@pytest.mark.parametrize("accumulate", [1, 3])
def test_a_resumed_run_is_the_run_that_was_not_stopped(tmp_path: Path, accumulate: int) -> None:
    settings: dict[str, Any] = {"dropout": 0.3, "accumulate": accumulate, "max_steps": 8}
    whole, all_steps = fit(tmp_path / "whole", **settings)
    fit(tmp_path, CheckpointCallback(tmp_path, every=3), **settings)  # leaves steps 6 and 8
    rest, last_steps = fit(tmp_path, resume=tmp_path / "step-00000006", **settings)
    assert last_steps.losses == all_steps.losses[6:]
    assert [r["batch_idx"] for r in last_steps.reports] == [6, 7]
    assert [r["sample_ids"] for r in last_steps.reports] == [r["sample_ids"] for r in all_steps.reports[6:]]
    assert last_steps.reports[-1]["metrics"] == all_steps.reports[-1]["metrics"], "counted tokens go on too"
    for name, value in weights(whole).items():
        assert torch.equal(value, weights(rest)[name]), name
    states = [module.trainer.optimizers[0].state_dict() for module in (whole, rest)]
    assert states[0]["param_groups"] == states[1]["param_groups"]
    for index, entry in states[0]["state"].items():
        for key, value in entry.items():
            assert torch.equal(value, states[1]["state"][index][key]), (index, key)


def test_a_finished_run_resumed_with_more_steps_goes_on(tmp_path: Path) -> None:
    constant = OptimizerConfig(lr=1e-2, schedule="constant", warmup=0)
    loader = {"loader": lambda start, rank, world: Steps(start, max_steps=4)}  # ends where the first run ends
    fit(tmp_path, CheckpointCallback(tmp_path, every=0), max_steps=4, optimizer=constant, **loader)
    longer, recorder = fit(tmp_path, resume=tmp_path / "step-00000004", max_steps=6, optimizer=constant)
    whole, _ = fit(tmp_path, max_steps=6, optimizer=constant)
    assert [r["step"] for r in recorder.reports] == [5, 6]
    assert torch.equal(longer.model.head.weight, whole.model.head.weight)


def test_resuming_a_finished_run_trains_nothing(tmp_path: Path) -> None:
    fit(tmp_path, CheckpointCallback(tmp_path, every=0))
    _, recorder = fit(tmp_path, resume=tmp_path / "step-00000006")
    assert recorder.reports == []


def test_the_state_of_the_float16_scaler_survives_a_resume(tmp_path: Path) -> None:
    whole, _ = fit(tmp_path, CheckpointCallback(tmp_path, every=2), plugins=float16())
    whole_scale = whole.trainer.precision_plugin.scaler.state_dict()
    rest, _ = fit(tmp_path, resume=tmp_path / "step-00000004", plugins=float16())
    assert rest.trainer.precision_plugin.scaler.state_dict() == whole_scale
    assert torch.equal(whole.model.head.weight, rest.model.head.weight)


def test_a_step_is_moved_as_one() -> None:
    step = StepBatch(split(batch_of(0, 0), 3)).to("meta")
    assert (
        len(step) == 3
        and all(batch.input_ids.device.type == "meta" for batch in step)
        and step[0].kind == "text"
    )


def test_the_module_is_built_once(tmp_path: Path) -> None:
    built: list[Toy] = []

    def build() -> Toy:
        built.append(Toy(ToyModel()))
        return built[-1]

    module = TrainModule(training(tmp_path, build=build))
    module.configure_model()
    module.configure_model()
    assert len(built) == 1 and module.policy.module is built[0].module
