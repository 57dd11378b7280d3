"""Launchers are told by their variables; what they started must be what the settings say."""

from __future__ import annotations

import json
import logging
import warnings
from typing import Any

import pytest
from torch.distributed import DistNetworkError

from llmfw.core.errors import BusyError, ConflictError, LlmfwError, UsageError
from llmfw.core.schema import TrainerConfig
from llmfw.core.training import launch
from llmfw.core.training.launch import Launch, check_launch, launched

TORCHRUN = {
    "RANK": "3",
    "WORLD_SIZE": "4",
    "LOCAL_RANK": "1",
    "LOCAL_WORLD_SIZE": "2",
    "TORCHELASTIC_RUN_ID": "none",
}
SRUN = {"SLURM_NTASKS": "8", "SLURM_PROCID": "5", "SLURM_NNODES": "2", "SLURM_JOB_NAME": "train"}


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """No launcher's variables."""
    for name in (*TORCHRUN, *SRUN, "SLURM_NTASKS_PER_NODE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("variables", "found"),
    [
        ({}, None),
        ({"LOCAL_RANK": "1", "WORLD_SIZE": "2"}, None),  # started by Lightning from a process of ours
        (TORCHRUN, Launch("torchrun", 4, 2)),
        ({"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0"}, Launch("the launcher", 2, 2)),
        (SRUN, Launch("srun", 8, 4)),
        ({**SRUN, "SLURM_JOB_NAME": "bash"}, None),  # a shell in an allocation
        ({**SRUN, **TORCHRUN}, Launch("torchrun", 4, 2)),  # torchrun inside an allocation
    ],
)
def test_the_launcher_is_told_by_its_variables(
    variables: dict[str, str], found: Any, monkeypatch: pytest.MonkeyPatch
):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert launched() == found


def test_what_was_started_must_be_what_the_settings_say(monkeypatch: pytest.MonkeyPatch):
    check_launch(TrainerConfig(devices=4))
    with pytest.raises(UsageError, match="NO-LAUNCHER"):
        check_launch(TrainerConfig(nodes=2))
    for name, value in TORCHRUN.items():
        monkeypatch.setenv(name, value)
    check_launch(TrainerConfig(devices=2, nodes=2))
    with pytest.raises(ConflictError) as caught:
        check_launch(TrainerConfig(devices=2))
    assert "torchrun started 4 processes" in str(caught.value)
    assert "set trainer.devices=2 trainer.nodes=2, or start 2" in str(caught.value)


def test_a_run_inside_another_is_of_one_process():
    launch.check_nested(TrainerConfig())
    with pytest.raises(ConflictError, match="NESTED-DEVICES"):
        launch.check_nested(TrainerConfig(devices=2))


class Store(dict[str, bytes]):
    """A store in this process."""

    set = dict.__setitem__

    def get(self, key: str) -> Any:  # type: ignore[override]
        if key not in self:
            raise DistNetworkError("gone")
        return self[key]


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Store:
    """What two processes under torchrun share."""
    for name, value in TORCHRUN.items():
        monkeypatch.setenv(name, value)
    found = Store()
    monkeypatch.setattr(launch, "_common_store", lambda: found)
    monkeypatch.setattr(launch, "_agreed", 0)
    return found


def test_the_others_hear_what_rank_0_tells_and_its_errors_are_raised_there_too(
    store: Store, monkeypatch: pytest.MonkeyPatch
):
    error = BusyError("RUN-BUSY", "another owns it", mend="wait", file="runs/a")
    launch.tell({"folder": "runs/a", "resumed": False})
    launch.tell(error)
    assert all(json.loads(value) for value in store.values())
    monkeypatch.setattr(launch, "_agreed", 0)
    assert launch.hear() == {"folder": "runs/a", "resumed": False}
    with pytest.raises(BusyError) as caught:
        launch.hear()
    assert str(caught.value) == str(error) and caught.value.exit_code == 9
    with pytest.raises(LlmfwError, match="RANK-LOST"):
        launch.hear()


def test_a_broken_connection_is_told_from_other_failures():
    assert launch.is_loss_of_rank(RuntimeError("[gloo/transport/tcp/pair.cc:1] Connection closed by peer"))
    assert launch.is_loss_of_rank(DistNetworkError("no answer"))
    assert not launch.is_loss_of_rank(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    assert not launch.is_loss_of_rank(ValueError("Broken pipe"))


@pytest.mark.parametrize(("rank", "heard"), [("0", True), ("1", False)])
def test_libraries_speak_from_rank_0_alone(rank: str, heard: bool, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("RANK", rank)
    before = logging.getLogger("llmfw").level
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with launch.one_voice():
            warnings.warn("a library's own", stacklevel=1)
            assert logging.getLogger("llmfw.core.x").isEnabledFor(logging.WARNING) is heard
    assert bool(caught) is heard and logging.getLogger("llmfw").level == before
