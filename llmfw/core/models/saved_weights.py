"""Which weights of a run are meant: the final ones, else the newest good checkpoint, or those of a step."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from llmfw.core.checkpoint import checkpoints, newest_verified, verify
from llmfw.core.errors import CheckpointError, UsageError
from llmfw.core.models.source import MANIFEST, read_manifest
from llmfw.core.tracking import RUNS, read_record, run_folder
from llmfw.core.tracking.files import read_json
from llmfw.core.tracking.record import reap

_MLFLOW_ID = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True, kw_only=True)
class SavedWeights:
    """What ``model.name`` is to be. ``folder`` and ``run`` are None where a model's name means no run."""

    name: str
    folder: Path | None = None
    run: Path | None = None
    step: int | None = None
    note: str = ""
    """What was chosen without being asked for."""


def find_weights(name: str, step: int | None = None, *, runs: Path = RUNS) -> SavedWeights:
    """The weights that a name and a step mean; what llmfw saved is verified, file by file.

    Args:
        name: a run's folder or its name under ``runs``, a checkpoint, ``final``, an MLflow run id, or any
            other name of a model.
        step: of a run: that checkpoint.

    Raises:
        UsageError: a step of something that is no run.
        CheckpointError: no such checkpoint, or a damaged one.
    """
    place = _place(name, runs)
    if place is None or not (place / "run.json").is_file():
        if step is not None:
            raise UsageError(
                "EXPORT-STEP",
                f"{name!r} is no folder of a run",
                mend="name a run, or leave --step out",
                key="--step",
            )
        if place is None or not (place / MANIFEST).is_file():
            return SavedWeights(name=name)
        return _verified(place, _run_of(place))
    if step is not None:
        return _verified(_of_step(place, step), place)
    final = _final(place)
    if final is not None:
        return _verified(final, place)
    newest = newest_verified(_checkpoints(place))
    if newest is None:
        raise CheckpointError(
            "NO-CHECKPOINT", "the run has saved no weights yet", file=place,
            mend="let it reach a checkpoint, or name another run",
        )  # fmt: skip
    status = reap(read_record(place)).status.lower()
    found = _verified(newest, place)
    what = "goes on" if status == "running" else f"has not reached its end ({status})"
    return SavedWeights(
        name=found.name, folder=found.folder, run=place, step=found.step,
        note=f"the run {what}: these are the weights of its newest checkpoint, step {found.step}",
    )  # fmt: skip


def _place(name: str, runs: Path) -> Path | None:
    for place in (Path(name).expanduser(), runs / name):
        if place.exists():
            return place.absolute()
    return Path(run_folder(name)).absolute() if _MLFLOW_ID.fullmatch(name) else None


def _verified(folder: Path, run: Path | None) -> SavedWeights:
    """Compare every file with the manifest's hash; a manifest of another origin may have none."""
    told = read_manifest(folder)
    step = verify(folder).step if "files" in told else None
    return SavedWeights(name=str(folder), folder=folder, run=run, step=step)


def _run_of(folder: Path) -> Path | None:
    return next((place for place in folder.parents[:2] if (place / "run.json").is_file()), None)


def _final(run: Path) -> Path | None:
    """The final weights; of a run in rounds those of the last one that was trained."""
    if (run / "final" / MANIFEST).is_file():
        return run / "final"
    rounds = sorted(place.parent for place in run.glob("rounds/*/done.json"))
    done = [place / "final" for place in rounds if (place / "final" / MANIFEST).is_file()]
    return done[-1] if done else None


def _checkpoints(run: Path) -> Path:
    settings = (read_json(run / "plan.json") or {}).get("settings") or {}
    elsewhere = settings.get("checkpoint.dir")
    return Path(elsewhere) if elsewhere else run / "checkpoints"


def _of_step(run: Path, step: int) -> Path:
    found = {manifest.step: folder for folder, manifest in checkpoints(_checkpoints(run))}
    final = _final(run)
    if final is not None:
        found.setdefault(int(read_manifest(final).get("step", -1)), final)
    if step not in found:
        known = ", ".join(str(one) for one in sorted(found)) or "none"
        raise CheckpointError(
            "EXPORT-STEP", f"the run has no weights of step {step}", file=run, key="--step",
            mend=f"name one that it kept: {known}",
        )  # fmt: skip
    return found[step]
