"""Lightning's way into the journal."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping
from typing import Any

from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.pytorch.loggers.logger import Logger

from llmfw.core.tracking.journal import Journal
from llmfw.core.tracking.redaction import redact


class JournalLogger(Logger):
    """Writes what Lightning logs into the journal. No state: a resumed run calls ``Journal.rewind``."""

    def __init__(self, journal: Journal | None, name: str = "llmfw") -> None:
        super().__init__()
        self._journal = journal
        self._name = name

    @property
    def name(self) -> str:
        """The run's name."""
        return self._name

    @property
    def version(self) -> str:
        """The run folder's name."""
        return self._journal.path.parent.name if self._journal else ""

    @property
    def save_dir(self) -> str | None:
        """The run's folder."""
        return str(self._journal.path.parent) if self._journal else None

    @property
    def root_dir(self) -> str | None:
        """The run's folder."""
        return self.save_dir

    @property
    def log_dir(self) -> str | None:
        """The run's folder."""
        return self.save_dir

    @property
    @rank_zero_experiment
    def experiment(self) -> Journal | None:
        """The journal."""
        return self._journal

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """One line per call; Lightning's own counter of epochs is left out."""
        values = {name: value for name, value in metrics.items() if name != "epoch"}
        if self._journal is not None and values:
            self._journal.metrics(step or 0, values)

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Params of the run, secrets taken out."""
        if self._journal is not None:
            values = vars(params) if isinstance(params, Namespace) else params
            self._journal.event("params", values=redact(dict(values)))

    @rank_zero_only
    def save(self) -> None:
        """Flush to the disk."""
        if self._journal is not None:
            self._journal.flush(durable=True)

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Flush to the disk; the journal stays open, because evaluations come after the training."""
        self.save()
