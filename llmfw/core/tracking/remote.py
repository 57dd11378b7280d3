"""The calls to MLflow, with short time-outs and no retries; never made by the training process."""

from __future__ import annotations

import logging
import os
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, nullcontext
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from llmfw.core.tracking.feed import Point
from llmfw.core.tracking.files import turn

RUN_TAG = "llmfw.run_id"
FOLDER_TAG = "llmfw.run_dir"
PARENT_TAG = "mlflow.parentRunId"

_SETTINGS = {
    # a request that isn't answered is given up soon and made again later, from the journal
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "2",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_ARTIFACT_UPLOAD_DOWNLOAD_TIMEOUT": "10",
    # models are never loaded from MLflow here; this keeps it so
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    "MLFLOW_CONFIGURE_LOGGING": "false",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}


def resolve_uri(uri: str | None, runs: Path) -> str:
    """The store: ``uri``, else $MLFLOW_TRACKING_URI, else sqlite in ``runs/mlflow.db``."""
    return uri or os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{(runs / 'mlflow.db').absolute()}"


def prepare(*, patient: bool = False) -> None:
    """Set MLflow's switches where the user hasn't, before its import. ``patient``: nobody waits."""
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, "30" if patient and name.endswith("REQUEST_TIMEOUT") else value)


class Gone(Exception):
    """MLflow doesn't know the run (any more)."""


class Remote:
    """One MLflow store and one experiment in it. Any method may raise anything that MLflow raises."""

    def __init__(self, uri: str, experiment: str) -> None:
        from mlflow.tracking import MlflowClient

        for name in (
            "alembic",
            "mlflow.store.db.utils",
            "mlflow.store.tracking.sqlalchemy_store",
            "mlflow.utils.rest_utils",
        ):
            # failures come back as exceptions and are told in one line; these print tracebacks beside that
            logging.getLogger(name).setLevel(logging.CRITICAL)
        _probe(uri)
        with _alone(uri):
            self._client = MlflowClient(tracking_uri=uri)
            self.experiment = self._experiment(uri, experiment)

    def _experiment(self, uri: str, name: str) -> str:
        from mlflow.exceptions import MlflowException

        found = self._client.get_experiment_by_name(name)
        if found is None:
            try:
                return str(self._client.create_experiment(name, artifact_location=_artifacts_beside(uri)))
            except MlflowException:
                # another run may have made it meanwhile
                found = self._client.get_experiment_by_name(name)
                if found is None:
                    raise
        if found.lifecycle_stage == "deleted":
            raise ValueError(
                f"experiment {name!r} was deleted; restore it or set tracking.experiment to another"
            )
        return str(found.experiment_id)

    def find(self, run: str) -> str | None:
        """MLflow's id of our run."""
        found = self._client.search_runs(
            [self.experiment], filter_string=f"tags.`{RUN_TAG}` = '{run}'", max_results=1
        )
        return str(found[0].info.run_id) if found else None

    def create(self, name: str, tags: Mapping[str, str], start: int) -> str:
        """A new run; ``start`` in milliseconds."""
        made = self._client.create_run(self.experiment, start_time=start, tags=dict(tags), run_name=name)
        return str(made.info.run_id)

    def check(self, run: str) -> tuple[str, dict[str, str]]:
        """(status, params) of a run; Gone where it doesn't exist or was deleted."""
        from mlflow.exceptions import MlflowException

        try:
            found = self._client.get_run(run)
        except MlflowException as error:
            if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                raise Gone from error
            raise
        if found.info.lifecycle_stage == "deleted":
            raise Gone
        return str(found.info.status), dict(found.data.params)

    def values(self, run: str) -> dict[tuple[str, int], float]:
        """Every value that MLflow has of a run."""
        keys = self._client.get_run(run).data.metrics
        return {
            (key, int(point.step)): float(point.value)
            for key in keys
            for point in self._client.get_metric_history(run, key)
        }

    def log(
        self,
        run: str,
        points: Sequence[Point] = (),
        params: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        """Send at most 1000 values, 100 params and 100 tags."""
        from mlflow.entities import Metric, Param, RunTag

        self._client.log_batch(
            run,
            metrics=[Metric(point.key, point.value, point.wall, point.step) for point in points],
            params=[Param(key, value) for key, value in (params or {}).items()],
            tags=[RunTag(key, value) for key, value in (tags or {}).items()],
        )

    def artifact(self, run: str, path: Path, folder: str | None) -> None:
        """Send a file."""
        self._client.log_artifact(run, str(path), folder)

    def begin(self, run: str) -> None:
        """Mark a run as RUNNING again."""
        self._client.update_run(run, status="RUNNING")

    def end(self, run: str, status: str, when: int) -> None:
        """Close a run; ``when`` in milliseconds."""
        self._client.set_terminated(run, status, end_time=when)

    def folder(self, run: str) -> str | None:
        """The folder that a run's tag names."""
        value: Any = self._client.get_run(run).data.tags.get(FOLDER_TAG)
        return None if value is None else str(value)


def _sqlite(uri: str) -> Path | None:
    return Path(unquote(uri.removeprefix("sqlite:///"))).absolute() if uri.startswith("sqlite:///") else None


def _probe(uri: str) -> None:
    """Fail at once where a sqlite file can't be written now; MLflow would try for most of an hour."""
    path = _sqlite(uri)
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(path, timeout=2.0, isolation_level=None)) as database:
            database.execute("BEGIN IMMEDIATE")
            database.execute("ROLLBACK")


@contextmanager
def _alone(uri: str) -> Iterator[None]:
    """One process at a time opens a sqlite store: MLflow lets two of them make the tables of a new one."""
    path = _sqlite(uri)
    with nullcontext() if path is None else turn(path.with_name(f".{path.name}.lock")):
        yield


def _artifacts_beside(uri: str) -> str | None:
    """Artefacts of a sqlite store lie beside it, not in the present folder; a server decides for itself."""
    path = _sqlite(uri)
    return None if path is None else (path.parent / "mlartifacts").as_uri()
