"""When checkpoints are written, how many stay, and what happens when writing fails or the run breaks."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import lightning.pytorch as L
import pytest
from lightning.pytorch.loggers.logger import Logger

from llmfw.core.checkpoint import CheckpointCallback, SafeCheckpointIO, newest_verified, verify
from llmfw.core.errors import NumericsError, PluginError, ResourceError
from llmfw.core.module import TrainModule
from tests.toys.training import ToyModel, fit, optimizer_state, trainer_for, training, weights


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name.startswith((".", "step-")))


class Saves(SafeCheckpointIO):
    """Remembers the steps that were written."""

    def __init__(self) -> None:
        self.steps: list[int] = []

    def save_checkpoint(self, checkpoint: Any, path: Any, storage_options: Any = None) -> None:
        super().save_checkpoint(checkpoint, path, storage_options)
        self.steps.append(checkpoint["global_step"])


@pytest.mark.parametrize(
    ("every", "steps"), [(0, [6]), (1, [1, 2, 3, 4, 5, 6]), (2, [2, 4, 6]), (4, [4, 6]), (9, [6])]
)
def test_saves_fall_on_multiples_and_on_the_last_step(tmp_path: Path, every: int, steps: list[int]) -> None:
    io = Saves()
    fit(tmp_path, CheckpointCallback(tmp_path, every=every), plugins=[io], accumulate=3)
    assert io.steps == steps


@pytest.mark.parametrize(("keep", "left"), [(1, 2), (2, 2), (3, 3), (99, 6)])
def test_the_newest_stay_and_never_fewer_than_two(tmp_path: Path, keep: int, left: int) -> None:
    fit(tmp_path, CheckpointCallback(tmp_path, every=1, keep=keep))
    assert names(tmp_path) == [f"step-{step:08d}" for step in range(7 - left, 7)]


def test_a_resumed_run_does_not_write_its_first_step_again(tmp_path: Path) -> None:
    fit(tmp_path, CheckpointCallback(tmp_path, every=2))
    io = Saves()
    fit(tmp_path, CheckpointCallback(tmp_path, every=2), plugins=[io], resume=tmp_path / "step-00000004")
    assert io.steps == [6]


def test_loggers_are_flushed_before_a_checkpoint_counts(tmp_path: Path) -> None:
    order: list[str] = []

    class Journal(Logger):
        name, version = "journal", "0"

        def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
            order.append(f"log {step}")

        def log_hyperparams(self, *_: Any, **__: Any) -> None: ...

        def save(self) -> None:
            order.append("flush")

    class Io(SafeCheckpointIO):
        def save_checkpoint(self, checkpoint: Any, path: Any, storage_options: Any = None) -> None:
            order.append(f"save {checkpoint['global_step']}")
            super().save_checkpoint(checkpoint, path, storage_options)

    fit(tmp_path, CheckpointCallback(tmp_path, every=2), plugins=[Io()], logger=Journal(), max_steps=2)
    assert order[order.index("log 1") :][:4] == ["log 1", "log 2", "flush", "save 2"]


class Breaks(L.Callback):
    """Fails at one step, between two updates."""

    def __init__(self, step: int, error: BaseException) -> None:
        self.step, self.error = step, error

    def on_train_batch_start(self, trainer: Any, *_: Any) -> None:
        if trainer.global_step == self.step:
            raise self.error


def test_an_unexpected_error_between_updates_keeps_the_steps_done(tmp_path: Path) -> None:
    whole, all_steps = fit(tmp_path / "whole", dropout=0.3)
    with pytest.raises(ZeroDivisionError):
        fit(
            tmp_path,
            CheckpointCallback(tmp_path, every=2),
            Breaks(3, ZeroDivisionError("a plugin's bug")),
            dropout=0.3,
        )
    assert names(tmp_path) == ["step-00000002", "step-00000003"]
    rest, last_steps = fit(tmp_path, resume=tmp_path / "step-00000003", dropout=0.3)
    assert last_steps.losses == all_steps.losses[3:] and last_steps.reports[0]["batch_idx"] == 3
    assert all((value == weights(whole)[name]).all() for name, value in weights(rest).items())


def test_numbers_that_are_not_finite_add_no_checkpoint(tmp_path: Path) -> None:
    error = NumericsError("NON-FINITE", "x", mend="y")
    with pytest.raises(NumericsError):
        fit(tmp_path, CheckpointCallback(tmp_path, every=2), Breaks(3, error))
    assert names(tmp_path) == ["step-00000002"]


def test_an_error_inside_an_update_saves_nothing(tmp_path: Path) -> None:
    class Tears(L.Callback):
        def on_train_start(self, trainer: Any, pl_module: Any) -> None:
            optimizer = trainer.optimizers[0]
            real = optimizer.step

            def step(*args: Any, **kwargs: Any) -> Any:
                result = real(*args, **kwargs)
                if trainer.global_step == 3:
                    raise ZeroDivisionError
                return result

            optimizer.step = step

    with pytest.raises(ZeroDivisionError):
        fit(tmp_path, CheckpointCallback(tmp_path, every=2), Tears())
    assert names(tmp_path) == ["step-00000002"]


class FailsAt(SafeCheckpointIO):
    def __init__(self, steps: set[int], code: str = "CHECKPOINT-WRITE") -> None:
        self.steps, self.code = steps, code

    def save_checkpoint(self, checkpoint: Any, path: Any, storage_options: Any = None) -> None:
        if checkpoint["global_step"] in self.steps:
            raise ResourceError(self.code, "read-only file system", mend="x")
        super().save_checkpoint(checkpoint, path, storage_options)


def test_one_failed_save_is_a_warning_and_training_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    _, recorder = fit(tmp_path, CheckpointCallback(tmp_path, every=1), plugins=[FailsAt({2, 4})])
    assert len(recorder.reports) == 6 and names(tmp_path) == ["step-00000005", "step-00000006"]
    assert sum("training goes on" in record.message for record in caplog.records) == 2


@pytest.mark.parametrize(
    ("steps", "code", "last"),
    [({2, 3}, "CHECKPOINT-WRITE", 3), ({2}, "DISK-FULL", 2), ({6}, "CHECKPOINT-WRITE", 6)],
    ids=["twice running", "a full disk", "the last one"],
)
def test_a_save_that_must_not_fail_ends_the_run(
    tmp_path: Path, steps: set[int], code: str, last: int
) -> None:
    seen: list[int] = []

    class Count(L.Callback):
        def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
            seen.append(trainer.global_step)

    with pytest.raises(ResourceError) as caught:
        fit(tmp_path, CheckpointCallback(tmp_path, every=1), Count(), plugins=[FailsAt(steps, code)])
    assert caught.value.exit_code == 6 and seen[-1] == last
    assert newest_verified(tmp_path) is not None


def test_a_poll_that_asks_to_save_is_obeyed_at_the_steps_end(tmp_path: Path) -> None:
    class Asks(L.Callback):
        def setup(self, trainer: Any, pl_module: TrainModule, stage: str) -> None:
            pl_module.polls["save"] = lambda: trainer.global_step == 3

    io = Saves()
    fit(tmp_path, Asks(), CheckpointCallback(tmp_path, every=0), plugins=[io])
    assert io.steps == [3, 6]


def test_stopping_early_saves_the_step_it_stops_at(tmp_path: Path) -> None:
    class Stops(L.Callback):
        def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
            trainer.should_stop = trainer.global_step == 4

    fit(tmp_path, Stops(), CheckpointCallback(tmp_path, every=0))
    assert names(tmp_path) == ["step-00000004"]


def test_a_plugins_state_that_is_no_json_is_refused_by_its_name(tmp_path: Path) -> None:
    class Careless(L.Callback):
        def state_dict(self) -> dict[str, Any]:
            return {"model": ToyModel()}

    with pytest.raises(PluginError, match="Careless"):
        fit(tmp_path, Careless(), CheckpointCallback(tmp_path, every=1))


def test_litter_is_swept_and_the_newest_is_known_before_the_first_step(tmp_path: Path) -> None:
    fit(tmp_path, CheckpointCallback(tmp_path, every=3))
    (tmp_path / ".staging-step-00000009-x").mkdir()
    callback = CheckpointCallback(tmp_path, every=3)
    setup = training(tmp_path)
    callback.setup(trainer_for(setup, [callback]), TrainModule(setup), "fit")
    assert (
        names(tmp_path) == ["step-00000003", "step-00000006"]
        and callback.newest == tmp_path / "step-00000006"
    )


def test_the_weights_can_be_written_and_read_by_the_models_own_door(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    def save(built: Any, folder: Path) -> None:
        save_file(
            {n: p.detach() for n, p in built.module.named_parameters() if p.requires_grad},
            folder / "model.safetensors",
        )

    def load(built: Any, folder: Path) -> None:
        for name, value in load_file(folder / "model.safetensors").items():
            built.module.get_parameter(name).data.copy_(value)

    pieces: dict[str, Any] = {
        "save": save,
        "load": load,
        "about": lambda built: {"kind": "full"},
        "dropout": 0.2,
    }
    whole, all_steps = fit(tmp_path, CheckpointCallback(tmp_path, every=2), **pieces)
    manifest = verify(tmp_path / "step-00000004")
    assert "model.safetensors" in manifest.files and manifest.about == {"kind": "full"}
    state = SafeCheckpointIO().load_checkpoint(tmp_path / "step-00000004")["state_dict"]
    assert set(state) == {"model.calls"}, "weights are kept once"
    rest, last_steps = fit(tmp_path, resume=tmp_path / "step-00000004", **pieces)
    assert last_steps.losses == all_steps.losses[4:]
    assert Counter(str(optimizer_state(whole))) == Counter(str(optimizer_state(rest)))
