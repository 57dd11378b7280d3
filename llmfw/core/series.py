"""A run of runs: one parent, and children that are trained one after another in folders below it.

with open_series(verb="sweep", name="sweep-mine", fingerprint=..., tracking=root.tracking) as parent:
    child = run_child(parent, "trials/000", lambda *words: settle(overrides=[*mine, *words]))

The parent's series.json lists the children that have ended, in their order. After a kill the same calls, with
``resume=True`` at the parent, go on within the child that was running and train no other child again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from llmfw.core.assemble import Settled, assemble
from llmfw.core.errors import CheckpointError, Interrupted, LlmfwError
from llmfw.core.fit import FitResult, fit, result_of
from llmfw.core.measure import flatten
from llmfw.core.schema import TrackingConfig
from llmfw.core.session import Resume, Session, kept
from llmfw.core.tracking import find_resumable, open_run, read_journal, read_record
from llmfw.core.tracking.files import read_json, write_json

FILE = "series.json"
REFERENCE = "trainer.reference"
"""The key that says how a loss comes by its reference."""


@dataclass(frozen=True, kw_only=True)
class Child:
    """A run of the series that has ended; ``result`` is None where it failed."""

    place: str
    """Its folder below the parent's."""
    dir: Path
    status: Literal["FINISHED", "FAILED"]
    result: FitResult | None = None
    error: str | None = None
    """One line, where it failed."""
    seconds: float = 0.0
    """Of all processes that worked on it."""


@contextmanager
def open_series(
    *,
    verb: str,
    name: str,
    fingerprint: str,
    tracking: TrackingConfig,
    folder: Path | None = None,
    resume: bool = False,
    plugins: Sequence[str] = (),
    config: Mapping[str, Any] | None = None,
    config_yaml: str | None = None,
) -> Iterator[Session]:
    """The parent run, open for the length of the block and closed with what became of it.

    Args:
        fingerprint: of everything that decides the children; only a run with an equal one is gone on with.
        folder: the run's folder; None: ``runs/TIME-NAME``, and with ``resume`` the newest unfinished run.
        config, config_yaml: what all children have in common, for run.json's neighbours and MLflow.

    Raises:
        CheckpointError: ``resume``, and there is no unfinished run with this fingerprint.
        BusyError, UsageError, ResourceError: the folder is another run's, or can't be written.
    """
    found = find_resumable(fingerprint, folder) if resume else None
    if resume and found is None:
        raise CheckpointError(
            "NOTHING-TO-RESUME", f"there is no unfinished {verb} with these settings",
            mend="start it without --resume",
        )  # fmt: skip
    with _opened(
        found.dir if found else folder,
        tracking,
        resume=found is not None,
        name=name,
        verb=verb,
        plugins=plugins,
        fingerprint=fingerprint,
        config=config,
        config_yaml=config_yaml,
    ) as session:
        yield session


@contextmanager
def open_child(
    parent: Session,
    place: str,
    *,
    name: str,
    verb: str,
    fingerprint: str,
    tracking: TrackingConfig,
    plugins: Sequence[str] = (),
    config: Mapping[str, Any] | None = None,
) -> Iterator[Session]:
    """A child that is no training, open for the length of the block; noted in series.json where it finishes.

    Raises:
        BusyError, UsageError, ResourceError: the folder is another run's, or can't be written.
    """
    folder, start = parent.dir / place, time.monotonic()
    with _opened(
        folder,
        tracking,
        resume=(folder / "run.json").exists(),
        name=name,
        verb=verb,
        plugins=plugins,
        fingerprint=fingerprint,
        parent=parent.id,
        config=config,
    ) as session:
        yield session
    _noted(parent, place, start, status="FINISHED")


@contextmanager
def _opened(
    folder: Path | None, tracking: TrackingConfig, *, resume: bool, **about: Any
) -> Iterator[Session]:
    owned = open_run(folder=folder, resume=resume, **about)
    session = Session(dir=owned.dir, journal=owned.journal, resumed=resume, id=owned.record.id)
    with kept(owned, session, tracking):
        yield session


def run_child(
    parent: Session,
    place: str,
    settle_with: Callable[..., Settled],
    *,
    name: str | None = None,
    catch: tuple[type[Exception], ...] = (LlmfwError,),
) -> Child:
    """Train one child in ``parent.dir / place`` and note it in series.json once it has ended.

    A child that was interrupted goes on from its newest checkpoint; one that has finished isn't run again,
    but read from its folder; one that failed is tried again.

    Args:
        settle_with: called with the words that name the folder (``run.dir=... run.name=...``), gives the
            child's configuration.
        name: the run's name; None: the last part of ``place``.
        catch: errors that end the child as failed; others, and interruptions, pass through.
    """
    folder, start = parent.dir / place, time.monotonic()
    words = (f"run.dir={folder}", f"run.name={name or folder.name}")
    try:
        if is_done(folder):
            result = result_of(folder)
        else:
            begun = (folder / "run.json").exists()
            settled = settle_with(*words)
            how: Resume = "auto" if begun else "never"
            result = fit(assemble(settled, "fit", resume=how), resume=how, parent=parent)
    except Interrupted:
        raise
    except catch as error:
        return _noted(parent, place, start, status="FAILED", error=line_of(error))
    return _noted(parent, place, start, status="FINISHED", result=result)


def line_of(error: BaseException) -> str:
    """What ended a child, in one line."""
    return str(error) if isinstance(error, LlmfwError) else f"{type(error).__name__}: {error}"


def _noted(parent: Session, place: str, start: float, **ended: Any) -> Child:
    folder = parent.dir / place
    child = Child(place=place, dir=folder, seconds=_seconds(folder, start), **ended)
    note(parent, child)
    return child


def reference_words(base: Settled) -> tuple[list[str], list[str]]:
    """(settings, notes) with which several runs share one computation of their reference's log-probs; none
    where no loss wants a reference, somebody chose how to come by it, or that is how it's done anyway.
    """
    if base.resolved.root.trainer.reference == "cache":
        return [], []
    if base.resolved.origin[REFERENCE].layer in ("command line", "file"):
        return [], []
    loss = assemble(base, "fit").plan.one("llmfw_loss")
    if not getattr(loss, "needs_reference", False):
        return [], []
    note = f"{REFERENCE}=cache: one computation of the reference's log-probs serves every run"
    return [f"{REFERENCE}=cache"], [note]


def figures_of(result: FitResult) -> dict[str, float]:
    """Every figure of a run by one name: the last training metrics, evaluations at the end, held-out metrics
    as ``validation/NAME``; of estimates also NAME/low, NAME/high and NAME/n.
    """
    held_out = {f"validation/{name}": value for name, value in result.validation.items()}
    return {**result.last, **flatten(result.after), **held_out}


def is_done(folder: Path) -> bool:
    """Whether the run in a child's folder has finished."""
    return (folder / "run.json").is_file() and read_record(folder).status == "FINISHED"


def note(parent: Session, child: Child) -> None:
    """Write a child into series.json, by rename; one with the same place is replaced."""
    told = {entry["place"]: entry for entry in children_of(parent.dir)}
    told[child.place] = {
        "place": child.place, "status": child.status, "error": child.error, "seconds": round(child.seconds, 3)
    }  # fmt: skip
    write_json(parent.dir / FILE, {"children": list(told.values())})


def children_of(folder: Path) -> list[dict[str, Any]]:
    """What series.json of a run says of its children that have ended (place, status, error, seconds)."""
    return list((read_json(folder / FILE) or {}).get("children", ()))


def _seconds(folder: Path, start: float) -> float:
    """As the child's journal has it; of one that has none, since ``start``."""
    journal = folder / "journal.jsonl"
    return read_journal(journal).seconds if journal.is_file() else time.monotonic() - start
