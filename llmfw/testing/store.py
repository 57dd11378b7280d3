"""A place for MLflow runs that ends with the test, and what stands in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, kw_only=True)
class StoredRun:
    """One run as MLflow tells it."""

    id: str
    name: str
    status: str
    parent: str | None
    """The id of the run that it's nested in."""
    params: Mapping[str, str]
    metrics: Mapping[str, float]
    """The last value of each."""
    tags: Mapping[str, str]


@dataclass(frozen=True)
class Store:
    """An sqlite file of MLflow's, ``tracking.uri`` for runs that should be told to it."""

    file: Path

    @property
    def uri(self) -> str:
        """What ``tracking.uri`` is set to."""
        return f"sqlite:///{self.file}"

    def runs(self) -> list[StoredRun]:
        """Every run, the oldest first."""
        client = self._client()
        experiments = [one.experiment_id for one in client.search_experiments()]
        found = client.search_runs(experiments, order_by=["attributes.start_time ASC"])
        return [_stored(run) for run in found]

    def history(self, run: str, metric: str) -> list[tuple[int, float]]:
        """(step, value) of every point of a run's metric."""
        points = self._client().get_metric_history(run, metric)
        return sorted((int(point.step), float(point.value)) for point in points)

    def artifacts(self, run: str, folder: str | None = None) -> list[str]:
        """Names of the files and folders that a run logged."""
        return [str(one.path) for one in self._client().list_artifacts(run, folder)]

    def _client(self) -> Any:
        from mlflow.tracking import MlflowClient

        return MlflowClient(tracking_uri=self.uri)


def _stored(run: Any) -> StoredRun:
    return StoredRun(
        id=run.info.run_id,
        name=run.info.run_name,
        status=run.info.status,
        parent=run.data.tags.get("mlflow.parentRunId"),
        params=dict(run.data.params),
        metrics=dict(run.data.metrics),
        tags=dict(run.data.tags),
    )
