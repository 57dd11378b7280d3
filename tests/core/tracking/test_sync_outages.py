"""A tracking server that is down, frozen or locked costs the run nothing, and loses nothing."""

from __future__ import annotations

import logging
import os
import signal
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from llmfw.core.errors import UsageError
from llmfw.core.tracking import (
    MlflowSync,
    open_run,
    read_journal,
    sync_run,
    unsent,
)
from tests.core.tracking.support import (
    closed_port,
    expected,
    free_port,
    frozen_server,
    mlflow_runs,
    serve,
    train,
    until,
    values,
)
from tests.disks import needs_mounts, on_small_disk


@pytest.mark.parametrize("kind", ["closed", "frozen"])
def test_a_server_that_is_down_or_frozen_costs_nothing_and_a_later_sync_brings_everything_once(
    runs: Path, store: str, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    run = open_run(name="r", runs=runs, config={"seed": 1})
    with (
        frozen_server() if kind == "frozen" else _just(closed_port()) as uri,
        caplog.at_level(logging.WARNING, "llmfw"),
    ):
        sync = MlflowSync(run.dir, uri, interval=0.05)
        begun = time.monotonic()
        sync.start()
        assert time.monotonic() - begun < 1
        assert train(run.journal, range(1, 301)) < 1
        until(lambda: "can't be told" in caplog.text)
        run.close("FINISHED")
        begun = time.monotonic()
        left = sync.finish("FINISHED", timeout=5)
        assert time.monotonic() - begun < 12
    # 600 values, 1 param, environment.json and (inside a git tree) git.diff, the status
    assert left >= 603
    assert read_journal(run.record.journal).series == expected(range(1, 301))
    told = [record.getMessage() for record in caplog.records if record.name == "llmfw.tracking"]
    assert len(told) == 2
    assert all("\n" not in line for line in told)
    assert f"llmfw sync {run.dir}" in told[-1]
    assert unsent(run.dir, "FINISHED") == left
    assert sync_run(run.dir, store) == left
    [found] = mlflow_runs(store)
    assert found.info.status == "FINISHED"
    assert values(store, found.info.run_id) == expected(range(1, 301))
    assert found.data.params == {"seed": "1"}
    assert sync_run(run.dir) == 0
    assert values(store, found.info.run_id) == expected(range(1, 301))
    assert unsent(run.dir, "FINISHED") == 0


@contextmanager
def _just(value: str) -> Iterator[str]:
    yield value


def test_a_locked_database_holds_nothing_up_and_is_caught_up_with(runs: Path, store: str) -> None:
    """Another program holds the sqlite file exclusively from before the start until the run is half over."""
    run = open_run(name="r", runs=runs)
    with closing(sqlite3.connect(runs / "mlflow.db", isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        sync = MlflowSync(run.dir, store, interval=0.05)
        sync.start()
        assert train(run.journal, range(1, 51)) < 1
        until(lambda: sync._failure == "database is locked")
        assert unsent(run.dir, "FINISHED") > 100
        other.execute("ROLLBACK")
    assert train(run.journal, range(51, 101)) < 1
    run.close("FINISHED")
    assert sync.finish("FINISHED", timeout=60) == 0
    assert values(store, mlflow_runs(store)[0].info.run_id) == expected(range(1, 101))


def test_a_database_locked_to_the_end_keeps_finish_within_its_timeout(runs: Path, store: str) -> None:
    run = open_run(name="r", runs=runs)
    sync = MlflowSync(run.dir, store, interval=0.05)
    sync.start()
    until(lambda: unsent(run.dir, "") == 0)
    with closing(sqlite3.connect(runs / "mlflow.db", isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        train(run.journal, range(1, 51))
        run.close("FINISHED")
        begun = time.monotonic()
        assert sync.finish("FINISHED", timeout=2) > 0
        assert time.monotonic() - begun < 10
    sync_run(run.dir)
    [found] = mlflow_runs(store)
    assert values(store, found.info.run_id) == expected(range(1, 51))
    assert found.info.status == "FINISHED"


def test_a_database_that_is_free_again_within_the_time_given_at_the_end_is_waited_for(
    runs: Path, store: str
) -> None:
    run = open_run(name="r", runs=runs)
    sync = MlflowSync(run.dir, store, interval=0.05)
    with closing(sqlite3.connect(runs / "mlflow.db", isolation_level=None, check_same_thread=False)) as other:
        other.execute("BEGIN EXCLUSIVE")
        sync.start()
        train(run.journal, range(1, 11))
        until(lambda: sync._failure == "database is locked")
        run.close("FINISHED")
        later = threading.Timer(5, lambda: other.execute("ROLLBACK"))
        later.start()
        assert sync.finish("FINISHED", timeout=60) == 0
        later.join()
    assert values(store, mlflow_runs(store)[0].info.run_id) == expected(range(1, 11))


FULL_DISK = """
import sys
from pathlib import Path
from llmfw.core.tracking import MlflowSync, open_run, unsent
from tests.core.tracking.support import expected, mlflow_runs, train, until, values

disk, runs = Path(sys.argv[1]), Path(sys.argv[2])
store = f"sqlite:///{disk / 'mlflow.db'}"
run = open_run(name="r", runs=runs)
sync = MlflowSync(run.dir, store, interval=0.05)
sync.start()
until(lambda: unsent(run.dir, "") == 0)
with (disk / "others").open("wb", buffering=0) as file:
    try:
        while True:
            file.write(b"0" * 4096)
    except OSError:
        pass
print("longest wait below 1 s:", train(run.journal, range(1, 4001)) < 1)
until(lambda: sync._failure is not None)
print("told:", sync._failure)
(disk / "others").unlink()
run.close("FINISHED")
print("left:", sync.finish("FINISHED", timeout=60))
print("whole:", values(store, mlflow_runs(store)[0].info.run_id) == expected(range(1, 4001)))
"""


@pytest.mark.slow
@needs_mounts
def test_a_store_on_a_full_disk_costs_nothing_and_has_everything_once_there_is_room(tmp_path: Path) -> None:
    child = on_small_disk(tmp_path, FULL_DISK, "8m", str(tmp_path / "runs"))
    assert "longest wait below 1 s: True" in child.stdout, child.stderr
    assert "full" in child.stdout.partition("told: ")[2].splitlines()[0]
    assert "left: 0" in child.stdout and "whole: True" in child.stdout


def test_a_sync_to_a_server_that_is_down_is_one_line_with_exit_code_2(runs: Path) -> None:
    with open_run(name="r", runs=runs) as run:
        pass
    with pytest.raises(UsageError, match="connection refused") as caught:
        sync_run(run.dir, closed_port())
    assert caught.value.exit_code == 2


@pytest.mark.slow
def test_a_server_frozen_in_the_middle_of_a_run_and_thawed_later_has_every_value_once(
    runs: Path, store: str
) -> None:
    """A real ``mlflow server``, stopped with SIGSTOP after the first values arrived."""
    port = free_port()
    runs.mkdir()
    server, uri = serve(runs, port), f"http://127.0.0.1:{port}"
    try:
        run = open_run(name="r", runs=runs)
        sync = MlflowSync(run.dir, uri, interval=0.05)
        sync.start()
        train(run.journal, range(1, 51))
        until(lambda: unsent(run.dir, "") == 0, seconds=60)
        os.killpg(server.pid, signal.SIGSTOP)
        assert train(run.journal, range(51, 101)) < 1
        time.sleep(3)
        run.close("FINISHED")
        begun = time.monotonic()
        assert sync.finish("FINISHED", timeout=8) >= 100
        assert time.monotonic() - begun < 20
        os.killpg(server.pid, signal.SIGCONT)
        assert sync_run(run.dir) >= 0
        [found] = mlflow_runs(uri)
        assert values(uri, found.info.run_id) == expected(range(1, 101))
        assert found.info.status == "FINISHED"
    finally:
        os.killpg(server.pid, signal.SIGCONT)
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()
