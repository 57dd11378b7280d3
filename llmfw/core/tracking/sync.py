"""Tells MLflow what the journal says, beside the training or later. Training never waits for it."""

from __future__ import annotations

import hashlib
import logging
import os
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from llmfw.core.errors import BusyError, LlmfwError, UsageError
from llmfw.core.tracking.feed import Cursor, Feed
from llmfw.core.tracking.files import read_json
from llmfw.core.tracking.folder import (
    RunRecord,
    Status,
    list_runs,
    read_record,
    reap,
    try_lock,
    update_record,
)
from llmfw.core.tracking.redaction import HIDDEN, redact_text
from llmfw.core.tracking.remote import FOLDER_TAG, PARENT_TAG, RUN_TAG, Gone, Remote, prepare, resolve_uri

_log = logging.getLogger("llmfw.tracking")

BATCH = 500
"""Values in one request; MLflow takes 1000."""
LONGEST_PARAM = 500
"""Characters of a param or a tag; older servers take no more. The whole config is an artefact."""

_ARTIFACTS = ("config.yaml", "plan.json", "cards.json", "environment.json", "git.diff", "report.html")
_FOLDERS = ("tables",)
_SLOWEST = 60.0


class Sender:
    """Brings one run's state into MLflow, call by call; every call may fail and be made again."""

    def __init__(
        self, folder: Path, uri: str, experiment: str, tags: Mapping[str, str] | None = None
    ) -> None:
        self._folder, self._uri, self._experiment = folder, uri, experiment
        self._tags = dict(tags or {})
        self._cursor = Cursor.read(folder)
        self._feed = Feed(folder)
        self._remote: Remote | None = None
        self._run = ""
        self._params: dict[str, str] = {}
        self._parent_known = False

    def connect(self, *, alive: bool) -> None:
        """Find or make the MLflow run; ``alive`` marks it RUNNING."""
        remote = self._remote or Remote(self._uri, self._experiment)
        record = read_record(self._folder)
        run = self._known(remote, record)
        fresh = run is None
        if run is None:
            self._cursor = Cursor()
            started = _milliseconds(record.created)
            run = remote.create(record.name, {**self._tags, **_tags(record)}, started)
        status, self._params = remote.check(run)
        if run != self._cursor.run_id:
            self._cursor = Cursor(run_id=run, sending=not fresh)
        if alive and status != "RUNNING":
            remote.begin(run)
        self._catch_up(remote, run)
        update_record(
            self._folder,
            mlflow={"uri": redact_text(self._uri), "experiment": self._experiment, "run_id": run},
        )
        self._save()
        self._remote, self._run = remote, run

    def send(self) -> None:
        """Send everything that hasn't arrived: values, params, files."""
        if self._remote is None:
            raise RuntimeError("connect first")
        self._link_parent(self._remote)
        self._feed.read()
        if len(self._feed):
            if not self._cursor.sending:
                self._cursor.sending = True
                self._save()
            while batch := self._feed.batch(BATCH):
                self._remote.log(self._run, batch)
                self._feed.acknowledge(batch)
        if self._feed.offset != self._cursor.offset or self._cursor.sending:
            self._cursor.offset, self._cursor.sending = self._feed.offset, False
            self._save()
        self._send_params(self._remote)
        self._send_files(self._remote)

    def end(self, status: Status, ended: str | None) -> None:
        """Close the MLflow run."""
        if self._remote is None:
            raise RuntimeError("connect first")
        if self._feed.superseded:
            self._remote.log(self._run, tags={"llmfw.superseded_values": str(self._feed.superseded)})
        self._remote.end(self._run, status, _milliseconds(ended) if ended else int(time.time() * 1000))
        self._cursor.status = status
        self._save()

    def reopen(self) -> None:
        """The run is RUNNING, so an earlier end no longer holds."""
        if self._cursor.status:
            self._cursor.status = ""
            self._save()

    def _known(self, remote: Remote, record: RunRecord) -> str | None:
        """The MLflow run that this run already has."""
        same_store = (
            record.mlflow.get("uri") == redact_text(self._uri)
            and record.mlflow.get("experiment") == self._experiment
        )
        if same_store and record.mlflow.get("run_id"):
            with suppress(Gone):
                remote.check(record.mlflow["run_id"])
                return record.mlflow["run_id"]
        # a process may have died between making the run and writing its id down
        return remote.find(record.id)

    def _catch_up(self, remote: Remote, run: str) -> None:
        """Learn what MLflow has, where the cursor alone can't tell."""
        self._feed = Feed(self._folder)
        self._feed.read(self._cursor.offset)
        self._feed.acknowledge_all()
        self._feed.read()
        if self._cursor.sending or self._feed.rewound:
            feed = Feed(self._folder)
            feed.adopt(remote.values(run))
            feed.read()
            self._feed = feed

    def _send_params(self, remote: Remote) -> None:
        wanted = {key: _short(value) for key, value in self._feed.params.items()}
        new = {key: value for key, value in wanted.items() if key not in self._params}
        items = list(new.items())
        for start in range(0, len(items), 100):
            part = dict(items[start : start + 100])
            remote.log(self._run, params=part)
            self._params.update(part)
        # MLflow's params can't change; what a resumed run set otherwise is told in a tag
        changed = sorted(key for key, value in wanted.items() if self._params.get(key, value) != value)
        if changed:
            remote.log(
                self._run,
                tags={"llmfw.changed_params": _short(", ".join(f"{key}={wanted[key]}" for key in changed))},
            )
            self._params.update({key: wanted[key] for key in changed})

    def _send_files(self, remote: Remote) -> None:
        for path in _files(self._folder):
            name = path.relative_to(self._folder).as_posix()
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            if self._cursor.artifacts.get(name) != digest:
                remote.artifact(self._run, path, None if path.parent == self._folder else path.parent.name)
                self._cursor.artifacts[name] = digest
                self._save()

    def _link_parent(self, remote: Remote) -> None:
        if self._parent_known:
            return
        parent = read_record(self._folder).parent
        found = remote.find(parent) if parent else None
        if found:
            remote.log(self._run, tags={PARENT_TAG: found})
        self._parent_known = parent is None or found is not None

    def _save(self) -> None:
        self._cursor.write(self._folder)


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
        self.uri = resolve_uri(uri, runs or Path("runs"))
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
                lock = lock if lock >= 0 else _own_sync(self._folder)
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
                self._failure, wait = None, self._interval
                if not buried and not last:
                    buried = True
                    _bury(self._folder.parent, self.uri)
            except Exception as error:
                self._note(error)
                wait = min(max(1.0, 2 * wait), _SLOWEST)
                if isinstance(error, Gone):
                    sender = None
            finally:
                self.ready.set()
            if last:
                break
            self._wake.wait(wait)
        if lock >= 0:
            os.close(lock)

    def _note(self, error: Exception) -> None:
        reason = _reason(error)
        if self._failure is None and not self._finishing.is_set():
            _log.warning(
                "MLflow at %s can't be told (%s); the run goes on, its journal keeps every value",
                redact_text(self.uri),
                reason,
            )
        self._failure = reason


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
    prepare()
    lock = _own_sync(folder)
    try:
        sender = Sender(folder, target, place)
        sender.connect(alive=False)
        sender.send()
        sender.end(record.status, record.ended)
    except LlmfwError:
        raise
    except Exception as error:
        raise UsageError(
            "MLFLOW",
            f"MLflow at {redact_text(target)} can't be told ({_reason(error)})",
            mend="start the server, then repeat; --uri names another one",
        ) from error
    finally:
        os.close(lock)
    return count


def unsent(run_dir: Path, status: str) -> int:
    """How many values, params and files of a run MLflow hasn't acknowledged, and 1 for its status."""
    cursor = Cursor.read(run_dir)
    feed = Feed(run_dir)
    feed.read(cursor.offset)
    feed.acknowledge_all()
    feed.read()
    files = [path.relative_to(run_dir).as_posix() for path in _files(run_dir)]
    return (
        len(feed)
        + (0 if cursor.run_id else len(feed.params))
        + sum(name not in cursor.artifacts for name in files)
        + (cursor.status != status)
    )


def run_folder(mlflow_run_id: str, uri: str | None = None, runs: Path = Path("runs")) -> Path:
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
            f"no run {mlflow_run_id!r} at {redact_text(target)} ({_reason(error)})",
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


def _bury(runs: Path, uri: str) -> None:
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


def _own_sync(folder: Path) -> int:
    handle = try_lock(folder / ".mlflow.lock")
    if handle is None:
        raise BusyError(
            "SYNC-BUSY", "another process is sending this run to MLflow", file=folder, mend="wait for it"
        )
    return handle


def _files(folder: Path) -> list[Path]:
    named = [folder / name for name in _ARTIFACTS if (folder / name).is_file()]
    return named + [path for name in _FOLDERS for path in sorted((folder / name).glob("*.json"))]


def _tags(record: RunRecord) -> dict[str, str]:
    from llmfw import __version__

    facts = read_json(record.dir / "environment.json") or {}
    git = facts.get("git") or {}
    found = {
        RUN_TAG: record.id,
        FOLDER_TAG: str(record.dir),
        "llmfw.version": __version__,
        "llmfw.verb": record.verb,
        "llmfw.plugins": ",".join(record.plugins),
        "llmfw.fingerprint": record.fingerprint,
        "mlflow.source.name": f"llmfw {record.verb}",
        "mlflow.source.type": "LOCAL",
        "mlflow.source.git.commit": git.get("commit", ""),
        "mlflow.source.git.branch": git.get("branch", ""),
        "llmfw.git.dirty": str(git["dirty"]).lower() if "dirty" in git else "",
        "llmfw.parent_id": record.parent or "",
    }
    return {key: _short(value, 5000) for key, value in found.items() if value}


def _milliseconds(when: str) -> int:
    return int(datetime.fromisoformat(when).timestamp() * 1000)


def _short(text: str, most: int = LONGEST_PARAM) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def _reason(error: BaseException) -> str:
    """The cause in a few words: clients wrap it in five layers of their own."""
    text = " ".join(redact_text(str(error)).split()) or type(error).__name__
    link: BaseException | None = error
    while link is not None:
        if isinstance(link, ConnectionRefusedError):
            return "connection refused"
        if "Timeout" in type(link).__name__:
            return "no answer in time"
        if "NameResolution" in type(link).__name__:
            return "its host is unknown"
        link = link.__cause__ or link.__context__
    for words in (
        "database is locked",
        "database or disk is full",
        "readonly database",
        "unable to open database file",
    ):
        if words in text:
            return words
    return _short(text, 160)
