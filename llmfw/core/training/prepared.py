"""A run's data: prepared, shown, looked at before step 1, and written down."""

from __future__ import annotations

from lightning.pytorch import LightningDataModule

from llmfw.core.assemble import Assembled
from llmfw.core.auxiliary import open_auxiliary
from llmfw.core.data import DataReport, Prepared, audit, prepare
from llmfw.core.errors import CheckpointError, DataError
from llmfw.core.measure import Measured, write_down
from llmfw.core.recipes import train_recipes
from llmfw.core.say import is_main_process, say, show
from llmfw.core.session import Session
from llmfw.core.tracking import read_journal
from llmfw.core.training.measuring import timed_transforms

AUDITED = 64
"""Training samples whose masks are looked at before step 1."""


def make_ready(assembled: Assembled, session: Session) -> Prepared:
    """Train the recipes of auxiliary models, prepare the data, and let plugins ask the run for both."""
    train_recipes(assembled, session)
    prepared = prepare_data(assembled, session)
    assembled.run._provide(
        rows=prepared.rows,
        held_out=prepared.validation,
        open_policy=lambda name: open_auxiliary(assembled, name),
    )
    return prepared


def prepare_data(assembled: Assembled, session: Session) -> Prepared:
    """The run's data, shown, audited and written down; a resumed run finds what it began with.

    Raises:
        DataError: data that can't be used, or masks that are wrong.
        CheckpointError: a resumed run's data has changed.
    """
    source = assembled.plan.one("llmfw_datamodule")
    if isinstance(source, LightningDataModule):
        say("note: a bare LightningDataModule deals out its own batches: a resumed run is of class C")
        report = DataReport(source=type(source).__name__)
        return Prepared(
            train=[], validation=[], rows={"train": [], "validation": []}, report=report, form="text"
        )
    prepared = prepare(
        assembled.run.config, assembled.tokenizer, timed_transforms(assembled), source, assembled.sides
    )
    _same_data(session, prepared)
    if is_main_process():
        show(prepared.report)
    _audit(assembled, prepared)
    if session.journal is not None and not session.resumed:
        told = Measured(metrics=prepared.report.metrics, tables=prepared.report.tables)
        write_down(told, session.journal, session.dir, step=0, when="data")
    return prepared


def _audit(assembled: Assembled, prepared: Prepared) -> None:
    """Look at the first samples' masks before anything is trained on them.

    Raises:
        DataError: a mask that trains nothing, a double BOS, or control tokens that are trained.
    """
    findings = audit(prepared.head(AUDITED), assembled.tokenizer, max_length=prepared.max_length)
    wrong = [finding for finding in findings if finding.severity == "error"]
    if wrong:
        raise DataError(
            "MASK", f"{len(wrong)} of the first samples' masks are wrong, e.g. {wrong[0]}",
            file=prepared.report.source, mend="look at them with: llmfw data inspect",
        )  # fmt: skip
    if findings:
        say(f"note: {len(findings)} of the first samples' masks look odd, e.g. {findings[0]}")


def _same_data(session: Session, prepared: Prepared) -> None:
    """A resumed run must find the tokens that it began with."""
    if session.journal is None:
        return
    if session.resumed:
        begun = read_journal(session.dir / "journal.jsonl").of("data")
        if begun and begun[-1].fields["fingerprint"] != prepared.fingerprint:
            raise CheckpointError(
                "DATA-CHANGED", "the data isn't what the run began with", file=session.dir,
                mend="restore the data, or start a new run without --resume",
            )  # fmt: skip
    session.journal.event("data", fingerprint=prepared.fingerprint, report=prepared.report.to_dict())


def tell_streamed(session: Session, prepared: Prepared, steps: int) -> None:
    """What was read and trained on while training, by source."""
    if prepared.stream is None or session.journal is None:
        return
    report = prepared.report
    report.take_streamed(prepared.stream.told(steps))
    session.journal.event("streamed", report=report.to_dict())
    show(report.streamed_table())
