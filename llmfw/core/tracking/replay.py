"""Tells MLflow what it missed of runs that have ended, or that they were killed; finds a run's folder."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from llmfw.core.errors import BusyError, LlmfwError, UsageError
from llmfw.core.tracking.feed import Cursor, Feed
from llmfw.core.tracking.files import read_json, unlock
from llmfw.core.tracking.record import RUNS, list_runs, read_record, reap
from llmfw.core.tracking.redaction import HIDDEN, redact_text
from llmfw.core.tracking.remote import FOLDER_TAG, prepare, resolve_uri
from llmfw.core.tracking.sender import Sender, own_sync, reason, run_files


def sync_run(run_dir: str | Path, uri: str | None = None, experiment: str | None = None) -> int:
    """Send what MLflow hasn't got of a run that has ended, and its status. Returns how many items that were.

    Raises:
        BusyError: the run is still going on and sends by itself.
        UsageError: the store isn't known, or can't be reached.
    """
    folder = Path(run_dir).absolute()
    record = reap(read_record(folder))
    if record.status == "RUNNING":
        raise BusyError(
            "RUN-BUSY",
            f"the run goes on (process {record.pid} on {record.host}) and sends by itself",
            file=folder,
            mend="wait for its end",
        )
    stored = record.mlflow.get("uri", "")
    target = uri or (stored if stored and HIDDEN not in stored else resolve_uri(None, folder.parent))
    place = experiment or record.mlflow.get("experiment") or "llmfw"
    elsewhere = bool(stored) and redact_text(target) != stored
    count = unsent(folder, record.status)
    if not count and not elsewhere:
        return 0
    prepare(patient=True)
    lock = own_sync(folder)
    try:
        sender = Sender(folder, target, place)
        sender.connect(alive=False)
        sender.send()
        sender.end(record.status, record.ended)
        sender.send_files()
    except LlmfwError:
        raise
    except Exception as error:
        raise UsageError(
            "MLFLOW",
            f"MLflow at {redact_text(target)} can't be told ({reason(error)})",
            mend="start the server, then repeat; --uri names another one",
        ) from error
    finally:
        unlock(lock)
    return count


def unsent(run_dir: Path, status: str) -> int:
    """How many values, params and files of a run MLflow hasn't acknowledged, and 1 for its status."""
    cursor = Cursor.read(run_dir)
    feed = Feed(run_dir)
    feed.read(cursor.offset)
    feed.acknowledge_all()
    feed.read()
    files = [path.relative_to(run_dir).as_posix() for path in run_files(run_dir)]
    return (
        len(feed)
        + (0 if cursor.run_id else len(feed.params))
        + sum(name not in cursor.artifacts for name in files)
        + (cursor.status != status)
    )


def run_folder(mlflow_run_id: str, uri: str | None = None, runs: Path = RUNS) -> Path:
    """The folder of the run that MLflow knows by this id: from our own records, else from MLflow's tag.

    Raises:
        UsageError: nobody knows it, or its folder is gone.
    """
    for record in list_runs(runs):
        if record.mlflow.get("run_id") == mlflow_run_id:
            return record.dir
    prepare()
    target = resolve_uri(uri, runs)
    try:
        from mlflow.tracking import MlflowClient

        named = MlflowClient(tracking_uri=target).get_run(mlflow_run_id).data.tags.get(FOLDER_TAG)
    except Exception as error:
        raise UsageError(
            "MLFLOW-RUN",
            f"no run {mlflow_run_id!r} at {redact_text(target)} ({reason(error)})",
            mend="name the run's folder",
        ) from error
    if named is None or not (Path(named) / "run.json").is_file():
        raise UsageError(
            "MLFLOW-RUN",
            f"MLflow's run {mlflow_run_id!r} has no folder here",
            file=named,
            mend="name a run's folder",
        )
    return Path(named)


def bury(runs: Path, uri: str) -> None:
    """Tell MLflow of runs that were killed, so that none is RUNNING for ever."""
    for record in list_runs(runs)[:50]:
        told = read_json(record.dir / "mlflow.cursor.json") or {}
        if (
            record.status == "KILLED"
            and told.get("run_id")
            and told.get("status") != "KILLED"
            and record.mlflow.get("uri") == redact_text(uri)
        ):
            with suppress(LlmfwError):
                sync_run(record.dir, uri)
