"""When checkpoints are written, how many stay, and what happens when writing fails or the run breaks."""

from __future__ import annotations

import shutil
import time
from collections import Counter
from pathlib import Path
from typing import Any

import lightning.pytorch as L
import pytest
from lightning.pytorch.loggers.logger import Logger

from llmfw.core.checkpoint import CheckpointCallback, Places, SafeCheckpointIO, verify
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
    """Can't write some steps into a folder (None: into any)."""

    def __init__(self, steps: set[int], code: str = "CHECKPOINT-WRITE", folder: Path | None = None) -> None:
        self.steps, self.code, self.folder = steps, code, folder

    def _refuse(self, checkpoint: Any, path: Any) -> None:
        if checkpoint["global_step"] in self.steps and self.folder in (None, Path(path).parent):
            raise ResourceError(self.code, "read-only file system", mend="x")

    def save_checkpoint(self, checkpoint: Any, path: Any, storage_options: Any = None) -> None:
        self._refuse(checkpoint, path)
        super().save_checkpoint(checkpoint, path, storage_options)

    def begin(self, checkpoint: Any, path: Any) -> Any:
        finish = super().begin(checkpoint, path)

        def late() -> None:
            try:
                self._refuse(checkpoint, path)
            except ResourceError:
                shutil.rmtree(next(Path(path).parent.glob(".staging-*")))
                raise
            finish()

        return late


@pytest.mark.parametrize("background", [False, True], ids=["at once", "in the background"])
def test_a_folder_that_cannot_be_written_any_more_gives_way_to_the_spare_one_aloud(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, background: bool
) -> None:
    """In the background the failure of step 3 shows a step later at the latest, and that step is saved."""
    places = Places(tmp_path / "own", tmp_path / "spare")
    io = FailsAt(set(range(3, 7)), folder=places.folder)
    callback = CheckpointCallback(places, every=1, background=background)
    _, recorder = fit(tmp_path, callback, plugins=[io])
    assert len(recorder.reports) == 6
    assert names(places.folder) == ["step-00000001", "step-00000002"]
    assert names(tmp_path / "spare")[-1] == "step-00000006"
    assert (tmp_path / "spare").stat().st_mode & 0o777 == 0o700
    told = [record.message for record in caplog.records if "training goes on" in record.message]
    assert len(told) == 1 and str(tmp_path / "spare") in told[0]
    assert places.newest() == tmp_path / "spare" / "step-00000006"


@pytest.mark.parametrize("background", [False, True], ids=["at once", "in the background"])
@pytest.mark.parametrize(
    ("steps", "code", "last"),
    [({2, 3}, "CHECKPOINT-WRITE", 2), ({2}, "DISK-FULL", 2), ({6}, "CHECKPOINT-WRITE", 6)],
    ids=["nor the spare one", "a full disk", "the last one"],
)
def test_a_save_that_must_not_fail_ends_the_run(
    tmp_path: Path, steps: set[int], code: str, last: int, background: bool
) -> None:
    """In the background it ends it at most one step later."""
    seen: list[int] = []

    class Count(L.Callback):
        def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
            seen.append(trainer.global_step)

    places = Places(tmp_path / "own", tmp_path / "spare")
    callback = CheckpointCallback(places, every=1, background=background)
    with pytest.raises(ResourceError) as caught:
        fit(tmp_path, callback, Count(), plugins=[FailsAt(steps, code)])
    assert caught.value.exit_code == 6 and last <= seen[-1] <= last + background
    assert places.newest() is not None


def test_in_the_background_an_older_checkpoint_stays_until_the_new_one_is_durable(tmp_path: Path) -> None:
    """Step 2's flush is held until the test has looked; the save of step 3 waits for it."""
    seen: list[list[str]] = []

    class Slow(SafeCheckpointIO):
        def begin(self, checkpoint: Any, path: Any) -> Any:
            finish = super().begin(checkpoint, path)

            def late() -> None:
                seen.append([name for name in names(tmp_path / "own") if not name.startswith(".")])
                time.sleep(0.2)
                finish()

            return late

    callback = CheckpointCallback(tmp_path / "own", every=1, background=True)
    fit(tmp_path, callback, plugins=[Slow()], max_steps=4)
    assert seen == [
        [],
        ["step-00000001"],
        ["step-00000001", "step-00000002"],
        ["step-00000002", "step-00000003"],
    ]
    assert names(tmp_path / "own") == ["step-00000003", "step-00000004"]
    assert callback.newest == tmp_path / "own" / "step-00000004"


def test_what_is_staged_for_the_background_is_the_state_of_its_step(tmp_path: Path) -> None:
    """The weights move on while step 2 waits to be flushed: what is written is step 2 nevertheless."""

    class Slow(SafeCheckpointIO):
        def begin(self, checkpoint: Any, path: Any) -> Any:
            finish = super().begin(checkpoint, path)
            return lambda: (time.sleep(0.2), finish())[1]

    fit(tmp_path / "whole", CheckpointCallback(tmp_path / "whole", every=2, keep=9))
    fit(tmp_path, CheckpointCallback(tmp_path / "own", every=2, keep=9, background=True), plugins=[Slow()])
    for step in (2, 4, 6):
        one, other = (
            verify(folder / f"step-{step:08d}").files for folder in (tmp_path / "whole", tmp_path / "own")
        )
        assert {n: d for n, d in one.items() if n.endswith("safetensors")} == {
            n: d for n, d in other.items() if n.endswith("safetensors")
        }


def test_a_poll_that_asks_to_save_is_obeyed_at_the_steps_end(tmp_path: Path) -> None:
    class Asks(L.Callback):
        def setup(self, trainer: Any, pl_module: TrainModule, stage: str) -> None:
            pl_module.polls["save"] = lambda: trainer.global_step == 3

    io = Saves()
    fit(tmp_path, Asks(), CheckpointCallback(tmp_path, every=0), plugins=[io])
    assert io.steps == [3, 6]


def test_a_checkpoint_that_grows_old_is_followed_by_another_at_the_steps_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Steps take 4 minutes here: the first is 12 minutes old after step 3, which is past 10, and so on."""
    now = [1000.0]
    monkeypatch.setattr("llmfw.core.checkpoint.callback.time.monotonic", lambda: now[0])

    class Slow(L.Callback):
        def on_train_batch_start(self, *_: Any) -> None:
            now[0] += 240.0

    io = Saves()
    fit(tmp_path, Slow(), CheckpointCallback(tmp_path, every=0, minutes=10.0), plugins=[io], max_steps=8)
    assert io.steps == [3, 6, 8]


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
