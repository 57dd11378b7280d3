"""Where a run's numbers go: its own journal first, MLflow told from it; comparing runs afterwards.

Public names are loaded on first use; only ``JournalLogger`` imports Lightning,
only the sending process imports MLflow.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmfw.core.lazy import door

if TYPE_CHECKING:
    from llmfw.core.tracking.comparison import Comparison, compare
    from llmfw.core.tracking.folder import RunFolder, open_run
    from llmfw.core.tracking.journal import Journal
    from llmfw.core.tracking.logger import JournalLogger
    from llmfw.core.tracking.pick import named_run, pick_runs
    from llmfw.core.tracking.reader import Event, JournalView, read_journal
    from llmfw.core.tracking.record import (
        RUNS,
        RunRecord,
        Status,
        find_resumable,
        find_run,
        list_runs,
        read_record,
        reap,
        update_record,
    )
    from llmfw.core.tracking.redaction import redact, redact_text
    from llmfw.core.tracking.remote import resolve_uri
    from llmfw.core.tracking.replay import run_folder, sync_run, unsent
    from llmfw.core.tracking.report import write_report
    from llmfw.core.tracking.surroundings import environment
    from llmfw.core.tracking.sync import MlflowSync

_HOME = {
    "comparison": ("Comparison", "compare"),
    "folder": ("RunFolder", "open_run"),
    "journal": ("Journal",),
    "logger": ("JournalLogger",),
    "pick": ("named_run", "pick_runs"),
    "reader": ("Event", "JournalView", "read_journal"),
    "record": (
        "RUNS", "RunRecord", "Status", "find_resumable", "find_run", "list_runs", "read_record", "reap",
        "update_record",
    ),
    "redaction": ("redact", "redact_text"),
    "remote": ("resolve_uri",),
    "report": ("write_report",),
    "surroundings": ("environment",),
    "replay": ("run_folder", "sync_run", "unsent"),
    "sync": ("MlflowSync",),
}  # fmt: skip

__all__ = [
    "RUNS",
    "Comparison",
    "Event",
    "Journal",
    "JournalLogger",
    "JournalView",
    "MlflowSync",
    "RunFolder",
    "RunRecord",
    "Status",
    "compare",
    "environment",
    "find_resumable",
    "find_run",
    "list_runs",
    "named_run",
    "open_run",
    "pick_runs",
    "read_journal",
    "read_record",
    "reap",
    "redact",
    "redact_text",
    "resolve_uri",
    "run_folder",
    "sync_run",
    "unsent",
    "update_record",
    "write_report",
]

__getattr__, __dir__ = door(__name__, _HOME)
