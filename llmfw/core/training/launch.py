"""Who started the processes of a run, and what they agree on before they train together.

Either this process starts the others itself (Lightning runs the same command again for each device), or a
launcher has started all of them: torchrun, SLURM's srun, or anything that sets RANK, WORLD_SIZE, LOCAL_RANK,
MASTER_ADDR and MASTER_PORT as torchrun does.
"""

from __future__ import annotations

import json
import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from llmfw.core import errors
from llmfw.core.errors import ConflictError, LlmfwError, ResourceError, UsageError
from llmfw.core.guard import excuse
from llmfw.core.say import process_rank, under_srun
from llmfw.core.schema import TrainerConfig

_WAIT = timedelta(minutes=30)
"""How long a process waits for rank 0 to open the run."""


@dataclass(frozen=True)
class Launch:
    """A launcher and how many processes it started: all in all, and on this machine."""

    name: str
    world: int
    local: int


def launched() -> Launch | None:
    """The launcher that started all processes; None where this process starts the others."""
    env = os.environ
    if "RANK" in env and "WORLD_SIZE" in env:
        name = "torchrun" if "TORCHELASTIC_RUN_ID" in env else "the launcher"
        return Launch(name, int(env["WORLD_SIZE"]), int(env.get("LOCAL_WORLD_SIZE", env["WORLD_SIZE"])))
    if under_srun():
        world = int(env["SLURM_NTASKS"])
        nodes = int(env.get("SLURM_NNODES", "1"))
        return Launch("srun", world, int(env.get("SLURM_NTASKS_PER_NODE", max(1, world // nodes))))
    return None


def check_launch(trainer: TrainerConfig) -> None:
    """Compare what was started with what the settings say.

    Raises:
        ConflictError: WORLD-SIZE, where the launcher started another number of processes.
        UsageError: NO-LAUNCHER, where several machines are asked for and nobody started the others.
    """
    found, wanted = launched(), trainer.devices * trainer.nodes
    if found is None:
        if trainer.nodes > 1:
            raise UsageError(
                "NO-LAUNCHER",
                f"{trainer.nodes} machines are asked for, but only this process was started",
                mend="start the command on each with torchrun --nnodes, or with srun",
                key="trainer.nodes",
            )
        return
    if found.world != wanted:
        local = found.local if found.world % found.local == 0 else found.world
        processes = "1 process" if found.world == 1 else f"{found.world} processes"
        raise ConflictError(
            "WORLD-SIZE",
            f"{found.name} started {processes}, trainer.devices x trainer.nodes is {wanted}",
            mend=f"set trainer.devices={local} trainer.nodes={found.world // local}, or start {wanted}",
            key="trainer.devices",
        )


def check_nested(trainer: TrainerConfig) -> None:
    """Refuse several processes for a run inside another: each would start by running the outer command again.

    Raises:
        ConflictError: NESTED-DEVICES.
    """
    check_launch(trainer)
    if trainer.devices * trainer.nodes > 1:
        raise ConflictError(
            "NESTED-DEVICES",
            "a run inside another (a sweep's, a recipe's) is trained by one process",
            mend="set trainer.devices=1 trainer.nodes=1",
            key="trainer.devices",
        )


def environment() -> Any:
    """Lightning's view of the launcher; None where this process starts the others."""
    from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
    from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment

    if launched() is None:
        return None
    if "RANK" in os.environ:
        return TorchElasticEnvironment()
    return SLURMEnvironment(auto_requeue=False)  # SIGUSR1 means something else here: save and go on


_store: Any = None
_agreed = 0


def _common_store() -> Any:
    """A store that all processes of the launch see; made once, and kept as long as the process lives."""
    global _store
    if _store is None:
        from torch._C._distributed_c10d import TCPStore

        env = environment()
        own = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True" and process_rank() == 0
        launch = launched()
        assert launch is not None
        _store = TCPStore(
            env.main_address, env.main_port, launch.world, is_master=own, timeout=_WAIT, multi_tenant=True,
            wait_for_workers=False,
        )  # fmt: skip
    return _store


def _key() -> str:
    """Where the next agreement stands in the store, which outlives a restart by torchrun."""
    return f"llmfw/{os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}/{_agreed}"


def tell(value: Any) -> None:
    """Rank 0 says ``value`` (json, or an LlmfwError) to the other processes that a launcher started."""
    global _agreed
    found = launched()
    if found is None or found.world == 1:
        return
    if isinstance(value, LlmfwError):
        kept = {name: getattr(value, name) for name in ("code", "what", "mend", "line", "key")}
        value = {"error": type(value).__name__, **kept, "file": str(value.file) if value.file else None}
    _common_store().set(_key(), json.dumps(value))
    _agreed += 1


def hear() -> Any:
    """What rank 0 told.

    Raises:
        LlmfwError: the error that rank 0 told, or RANK-LOST where it told nothing.
    """
    global _agreed
    from torch.distributed import DistError

    try:
        value = json.loads(_common_store().get(_key()))
    except (DistError, RuntimeError) as error:
        raise lost(error) from error
    _agreed += 1
    if isinstance(value, dict) and "error" in value:
        kind = getattr(errors, value.pop("error"), ResourceError)
        raise kind(value.pop("code"), value.pop("what"), **value)
    return value


def lost(error: BaseException) -> ResourceError:
    """What a process reports that waited for one which is gone."""
    return ResourceError(
        "RANK-LOST",
        "another process of the run has ended, and this one can't go on alone",
        mend="see that process's own message; if there is none, it was killed, e.g. for want of memory",
    )


@excuse
def is_loss_of_rank(error: BaseException) -> bool:
    """Whether an exception says that a connection to another process broke."""
    from torch.distributed import DistError

    told = str(error)
    return isinstance(error, DistError) or (
        isinstance(error, RuntimeError) and any(w in told for w in _BROKEN)
    )


_BROKEN = (
    "Connection closed by peer",
    "Connection reset by peer",
    "Broken pipe",
    "gloo/transport",
    "NCCL communicator was aborted",
)


@contextmanager
def one_voice() -> Iterator[None]:
    """Warnings and notes of libraries from rank 0 alone, for the length of the block."""
    if process_rank() == 0:
        yield
        return
    log = logging.getLogger("llmfw")
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(before)
