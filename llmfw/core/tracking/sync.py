"""Tells MLflow what the journal says, beside the training or later. Training never waits for it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from llmfw.core.errors import BusyError, LlmfwError, UsageError
from llmfw.core.tracking.feed import Cursor, Feed
from llmfw.core.tracking.files import read_json, unlock
from llmfw.core.tracking.record import RUNS, Status, list_runs, read_record, reap, update_record
from llmfw.core.tracking.redaction import HIDDEN, redact_text
from llmfw.core.tracking.remote import FOLDER_TAG, prepare, resolve_uri
from llmfw.core.tracking.sender import Sender, own_sync, reason, run_files

_log = logging.getLogger("llmfw.tracking")
_SLOWEST = 60.0


class MlflowSync:
    """A daemon thread that tails the run's journal. ``start`` and ``finish`` are all that a run calls.

    Nothing is lost where MLflow is down, slow, frozen or locked: the journal keeps it, and ``llmfw sync``
    sends it later.
    """

    def __init__(
        self,
        run_dir: str | Path,
        uri: str | None = None,
        experiment: str = "llmfw",
        *,
        runs: Path | None = None,
        tags: Mapping[str, str] | None = None,
        interval: float = 2.0,
    ) -> None:
        self._folder = Path(run_dir).absolute()
        self.uri = resolve_uri(uri, runs or RUNS)
        self._experiment, self._tags, self._interval = experiment, tags, interval
        self._wake = threading.Event()
        self._finishing = threading.Event()
        self.ready = threading.Event()
        """Set when MLflow was imported, or can't be. Processes forked before that may inherit a half-held
        import lock.
        """
        self._status: Status = "FINISHED"
        self._failure: str | None = None
        self._thread = threading.Thread(target=self._work, name="llmfw-mlflow", daemon=True)

    def start(self) -> None:
        """Begin; returns at once."""
        prepare()
        # a later `llmfw sync` must know where to, also if MLflow is never reached
        known = read_record(self._folder).mlflow
        if known.get("uri") != redact_text(self.uri) or known.get("experiment") != self._experiment:
            update_record(self._folder, mlflow={"uri": redact_text(self.uri), "experiment": self._experiment})
        self._thread.start()

    def finish(self, status: Status, timeout: float = 10.0) -> int:
        """Send what is left and close the MLflow run; never takes longer than ``timeout`` seconds.

        Returns:
            How many values, files and so on MLflow hasn't got; a warning then names the command that sends
            them.
        """
        self._status = status
        self._finishing.set()
        self._wake.set()
        if self._thread.ident is not None:
            self._thread.join(timeout)
        left = unsent(self._folder, status)
        if left:
            _log.warning(
                "MLflow at %s has not got %d items of this run (%s); they are kept; send them with: "
                "llmfw sync %s",
                redact_text(self.uri),
                left,
                self._failure or "it did not answer in time",
                self._folder,
            )
        return left

    def _work(self) -> None:
        wait = self._interval
        sender: Sender | None = None
        lock = -1
        buried = False
        while True:
            last = self._finishing.is_set()
            try:
                lock = lock if lock >= 0 else own_sync(self._folder)
                if sender is None:
                    made = Sender(self._folder, self.uri, self._experiment, self._tags)
                    made.reopen()
                    _import_mlflow()
                    self.ready.set()
                    made.connect(alive=True)
                    sender = made
                sender.send()
                if last:
                    sender.end(self._status, None)
                sender.send_files()
                self._failure, wait = None, self._interval
                if not buried and not last:
                    buried = True
                    bury(self._folder.parent, self.uri)
            except BusyError:
                pass  # `llmfw sync` is at it, or another run tells that this one was killed; soon done
            except Exception as error:
                # what arrived isn't known now; connecting again finds out
                sender = None
                self._note(reason(error))
                wait = min(max(1.0, 2 * wait), _SLOWEST)
            finally:
                self.ready.set()
            if last:
                break
            self._wake.wait(wait)
        if lock >= 0:
            unlock(lock)

    def _note(self, why: str) -> None:
        if self._failure is None and not self._finishing.is_set():
            _log.warning(
                "MLflow at %s can't be told (%s); the run goes on, its journal keeps every value",
                redact_text(self.uri),
                why,
            )
        self._failure = why


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


def _import_mlflow() -> None:
    import mlflow.tracking  # noqa: F401  # about two seconds; here, so that no caller pays for it
