"""What ``llmfw evaluate`` measured, kept: beside the run whose weights it measured, or as a run of its own.

A run's folder gets ``evaluations/TIME.json``, tables, and a line in its journal under the stage ``evaluate``;
an evaluation of any other model is a run with the verb ``evaluate``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from llmfw.core.assemble import Assembled
from llmfw.core.data import content_hash, stable_hash
from llmfw.core.errors import LlmfwError
from llmfw.core.measure import Measured, flatten, write_tables
from llmfw.core.say import say
from llmfw.core.session import open_session
from llmfw.core.tracking import Journal, read_record, sync_run
from llmfw.core.tracking.evaluations import FOLDER, STAGE, key_of
from llmfw.core.tracking.files import read_json, try_lock, unlock, write_json
from llmfw.core.tracking.record import now

_CONDITIONS = (
    "data.max_length", "data.too_long", "trainer.validation_limit", "generation.max_new_tokens",
    "generation.temperature", "generation.top_p", "generation.top_k", "generation.stop", "evaluation.samples",
    "evaluation.lm_eval_limit", "evaluation.lm_eval_shots", "evaluation.lm_eval_chat",
)  # fmt: skip
"""Settings without which two figures of one metric can't be compared."""
_SAME = ("run.", "tracking.", "evaluation.", "model.", "trainer.progress")
"""Beginnings of settings that don't say under what a run's own weights were measured."""
Keep = Callable[[Mapping[str, float], Measured], Path | None]
"""(held-out values, what evaluations found) -> the folder where they're kept, None: they aren't."""


@dataclass(frozen=True, kw_only=True)
class Weights:
    """Whose weights are measured: a run's folder, and which of its weights."""

    run: Path
    name: str
    """``final``, or the checkpoint's name."""
    step: int


def weights_of(assembled: Assembled) -> Weights | None:
    """The run that wrote the weights, where they lie in its folder; None: a model of another origin, or
    ``run.dir`` or ``run.name`` ask for a run of its own.
    """
    source, wanted = assembled.settled.source, assembled.resolved.root.run
    folder = source.folder
    if folder is None or source.manifest is None or wanted.dir is not None or wanted.name is not None:
        return None
    for run in folder.parents[:2]:
        own = folder == run / "final" or folder.parent == run / "checkpoints"
        if own and (run / "run.json").is_file():
            return Weights(run=run, name=folder.name, step=int(source.manifest.get("step", 0)))
    return None


@contextmanager
def keeping(assembled: Assembled, rows: list[Any] | None) -> Iterator[Keep]:
    """Gives the function that keeps what is measured inside the block.

    Args:
        rows: the held-out rows; None: none were looked at.

    A run that another process is working on, or that can't be written, keeps nothing: a note says so.
    """
    weights = weights_of(assembled)
    if weights is None:
        with open_session(assembled, "never") as session:
            say(f"run {session.dir}   (evaluation; --no-save keeps none)")
            journal = session.journal

            def keep_own(validation: Mapping[str, float], measured: Measured) -> Path | None:
                if journal is None:
                    return None  # not the main process
                entry = _entry(assembled, rows, validation, measured, _model_name(assembled), 0, {})
                _write(session.dir, journal, entry, measured, STAGE)
                return session.dir

            yield keep_own
        return
    _say_if_busy(weights.run)

    def keep(validation: Mapping[str, float], measured: Measured) -> Path | None:
        return _keep_beside(assembled, weights, rows, validation, measured)

    yield keep


def _say_if_busy(run: Path) -> None:
    try:
        lock = try_lock(run / ".lock", tries=3)
    except OSError:
        return  # said at the end, with the reason
    if lock is None:
        say(f"note: {run} is being worked on: what is measured is kept only if that has ended by then")
    else:
        unlock(lock)


def _keep_beside(
    assembled: Assembled,
    weights: Weights,
    rows: list[Any] | None,
    validation: Mapping[str, float],
    measured: Measured,
) -> Path | None:
    run = weights.run
    saved = (read_json(run / "plan.json") or {}).get("settings", {})
    changed = {
        key: value
        for key, value in assembled.resolved.flat().items()
        if not key.startswith(_SAME) and key in _measuring(assembled) and saved.get(key, value) != value
    }
    entry = _entry(assembled, rows, validation, measured, weights.name, weights.step, changed)
    stage = STAGE if not changed else f"{STAGE}-{entry['key'][:8]}"
    try:
        lock = try_lock(run / ".lock", tries=10)
        if lock is None:
            raise BlockingIOError("another process is working on it")
        try:
            with Journal(run / "journal.jsonl") as journal:
                _write(run, journal, entry, measured, stage)
        finally:
            unlock(lock)
    except (LlmfwError, OSError) as error:
        why = error.what if isinstance(error, LlmfwError) else error.strerror or str(error)
        say(f"warning: {run} can't keep what was measured ({why}); it's printed only")
        return None
    _tell_mlflow(assembled, run)
    return run


def _measuring(assembled: Assembled) -> set[str]:
    """Keys that bear on a measurement: data, generation, tokenizer and what plugins are set to."""
    sections = (
        "data.",
        "generation.",
        "tokenizer.",
        *(f"{name}." for name in assembled.resolved.plugin_names),
    )
    return {
        key
        for key in assembled.resolved.flat()
        if key.startswith(sections) or key in ("plugins", "trainer.validation_limit", "trainer.reference")
    }


def _tell_mlflow(assembled: Assembled, run: Path) -> None:
    if not assembled.resolved.root.tracking.mlflow or not read_record(run).mlflow.get("uri"):
        return
    try:
        sync_run(run)
    except LlmfwError as error:
        say(f"warning: MLflow hasn't got it ({error.what}); send it later with: llmfw sync {run}")


def _model_name(assembled: Assembled) -> str:
    return str(assembled.resolved.root.model.name)


def _entry(
    assembled: Assembled,
    rows: list[Any] | None,
    validation: Mapping[str, float],
    measured: Measured,
    weights: str,
    step: int,
    changed: Mapping[str, Any],
) -> dict[str, Any]:
    """What evaluations/TIME.json says."""
    flat = assembled.resolved.flat()
    conditions: dict[str, Any] = {key: flat.get(key) for key in _CONDITIONS}
    if rows is not None:
        conditions["held-out rows"] = f"{stable_hash(*(content_hash(row) for row in rows)):016x}"
    plugins = {key: value for key, value in changed.items() if key.partition(".")[0] in _plugins(assembled)}
    return {
        "version": 1,
        "time": now(),
        "weights": weights,
        "step": step,
        "data": (", ".join(assembled.run.config.data.mix) or flat.get("data.name"))
        if rows is not None
        else None,
        "conditions": conditions,
        "changed": dict(changed),
        "key": key_of(conditions, plugins),
        "metrics": {**validation, **flatten(measured.metrics)},
        "tables": {name: [dict(row) for row in rows] for name, rows in measured.tables.items()},
        "seconds": measured.seconds,
        "plan": assembled.plan.hash,
        "versions": assembled.plan.facts.get("versions", {}),
    }


def _plugins(assembled: Assembled) -> set[str]:
    return {"plugins", *assembled.resolved.plugin_names}


def _write(folder: Path, journal: Journal, entry: Mapping[str, Any], measured: Measured, stage: str) -> None:
    """The entry first: what the journal tells of is then on disk."""
    place = folder / FOLDER
    place.mkdir(exist_ok=True)
    stamp = f"{datetime.now().astimezone():%Y%m%d-%H%M%S}"
    taken = [stamp, *(f"{stamp}-{number}" for number in range(2, 1000))]
    name = next(one for one in taken if not (place / f"{one}.json").exists())
    write_json(place / f"{name}.json", {**entry, "stage": stage})
    write_tables(measured, folder, stage)  # the newest; the entries have all
    if entry["metrics"]:
        journal.metrics(entry["step"], entry["metrics"], stage=stage)
    journal.event(
        "evaluated", durable=True, when=stage, step=entry["step"], seconds=measured.seconds,
        file=os.path.join(FOLDER, f"{name}.json"), changed=dict(entry["changed"]),
    )  # fmt: skip
