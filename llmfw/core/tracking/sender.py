"""Brings one run's state into MLflow, call by call."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from llmfw.core.errors import BusyError
from llmfw.core.failpoints import failpoint
from llmfw.core.tracking.feed import Cursor, Feed
from llmfw.core.tracking.files import read_json, try_lock
from llmfw.core.tracking.record import RunRecord, Status, read_record, update_record
from llmfw.core.tracking.redaction import redact_text
from llmfw.core.tracking.remote import FOLDER_TAG, PARENT_TAG, RUN_TAG, Gone, Remote

BATCH = 500
"""Values in one request; MLflow takes 1000."""
LONGEST_PARAM = 500
"""Characters of a param or a tag; older servers take no more. The whole config is an artefact."""

LOCKED = "database is locked"
"""What sqlite says while another process writes; it passes."""

_ARTIFACTS = (
    "config.yaml", "plan.json", "cards.json", "environment.json", "git.diff", "report.html", "costs.json",
    "evidence.json",
)  # fmt: skip
_FOLDERS = ("tables", "evaluations")


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
            started = milliseconds(record.created)
            run = remote.create(record.name, {**self._tags, **_tags(record)}, started)
            failpoint("mlflow.mid_sync")
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
        """Send the values and params that haven't arrived."""
        remote = self._connected()
        self._feed.read()
        if len(self._feed):
            if not self._cursor.sending:
                self._cursor.sending = True
                self._save()
            while batch := self._feed.batch(BATCH):
                remote.log(self._run, batch)
                failpoint("mlflow.mid_sync")
                self._feed.acknowledge(batch)
        if self._feed.offset != self._cursor.offset or self._cursor.sending:
            self._cursor.offset, self._cursor.sending = self._feed.offset, False
            self._save()
        self._send_params(remote)
        self._link_parent(remote)

    def send_files(self) -> None:
        """Send new and changed files; they come last, because a store for files may fail alone."""
        remote = self._connected()
        for path in run_files(self._folder):
            name = path.relative_to(self._folder).as_posix()
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            if self._cursor.artifacts.get(name) != digest:
                remote.artifact(self._run, path, None if path.parent == self._folder else path.parent.name)
                self._cursor.artifacts[name] = digest
                self._save()

    def end(self, status: Status, ended: str | None) -> None:
        """Close the MLflow run."""
        remote = self._connected()
        if self._feed.superseded:
            remote.log(self._run, tags={"llmfw.superseded_values": str(self._feed.superseded)})
        remote.end(self._run, status, milliseconds(ended) if ended else int(time.time() * 1000))
        self._cursor.status = status
        self._save()

    def reopen(self) -> None:
        """The run is RUNNING, so an earlier end no longer holds."""
        if self._cursor.status:
            self._cursor.status = ""
            self._save()

    def _connected(self) -> Remote:
        if self._remote is None:
            raise RuntimeError("connect first")
        return self._remote

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
        wanted = {key: shorten(value) for key, value in self._feed.params.items()}
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
                tags={"llmfw.changed_params": shorten(", ".join(f"{key}={wanted[key]}" for key in changed))},
            )
            self._params.update({key: wanted[key] for key in changed})

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


def own_sync(folder: Path) -> int:
    handle = try_lock(folder / ".mlflow.lock")
    if handle is None:
        raise BusyError(
            "SYNC-BUSY", "another process is sending this run to MLflow", file=folder, mend="wait for it"
        )
    return handle


def run_files(folder: Path) -> list[Path]:
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
        "llmfw.resume_class": record.resume_class,
        "mlflow.source.name": f"llmfw {record.verb}",
        "mlflow.source.type": "LOCAL",
        "mlflow.source.git.commit": git.get("commit", ""),
        "mlflow.source.git.branch": git.get("branch", ""),
        "llmfw.git.dirty": str(git["dirty"]).lower() if "dirty" in git else "",
        "llmfw.parent_id": record.parent or "",
    }
    return {key: shorten(value, 5000) for key, value in found.items() if value}


def milliseconds(when: str) -> int:
    return int(datetime.fromisoformat(when).timestamp() * 1000)


def shorten(text: str, most: int = LONGEST_PARAM) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def reason(error: BaseException) -> str:
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
    return shorten(text, 160)
