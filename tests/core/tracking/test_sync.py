"""MLflow gets every value exactly once, whatever fails, and the run never waits for it."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from llmfw.core.errors import BusyError, UsageError
from llmfw.core.tracking import (
    Journal,
    MlflowSync,
    list_runs,
    open_run,
    read_journal,
    read_record,
    run_folder,
    sync_run,
    unsent,
    update_record,
)
from llmfw.core.tracking.feed import CURSOR, Feed, fit_name
from llmfw.core.tracking.worker import Worker
from tests.core.tracking.support import (
    client,
    closed_port,
    expected,
    mlflow_runs,
    train,
    until,
    values,
)


def test_a_run_arrives_whole_with_params_tags_files_and_status(runs: Path, store: str) -> None:
    run = open_run(
        name="whole",
        runs=runs,
        plugins=["ld_dpo", "frames"],
        fingerprint="abc",
        config={"seed": 3, "note": "x" * 9000, "odd key?": 1},
        config_yaml="seed: 3\n",
        plan={"verb": "fit"},
        cards={"ld_dpo": {}},
    )
    (run.dir / "tables").mkdir()
    (run.dir / "tables" / "margins.json").write_text("[]")
    sync = MlflowSync(run.dir, None, "mine", runs=runs, tags={"purpose": "test"}, interval=0.05)
    sync.start()
    train(run.journal, range(1, 1501))
    run.journal.metrics(1500, {"odd": math.nan, "../up": 1.0})
    run.close("FINISHED")
    assert sync.finish("FINISHED", timeout=60) == 0
    [found] = mlflow_runs(store)
    assert found.info.status == "FINISHED"
    assert found.info.run_name == "whole"
    assert found.data.params["seed"] == "3"
    assert len(found.data.params["note"]) == 500
    assert found.data.params["odd key_"] == "1"
    tags = found.data.tags
    assert tags["llmfw.plugins"] == "ld_dpo,frames"
    assert tags["llmfw.run_dir"] == str(run.dir)
    assert tags["purpose"] == "test"
    assert tags["llmfw.run_id"] == run.record.id
    got = values(store, found.info.run_id)
    assert math.isnan(got.pop("odd")[0][1])
    assert got.pop("___up") == [(1500, 1.0)]
    assert got == expected(range(1, 1501))
    names = {item.path for item in client(store).list_artifacts(found.info.run_id)}
    assert {"config.yaml", "plan.json", "cards.json", "environment.json", "tables"} <= names
    assert (runs / "mlartifacts").is_dir()
    assert not (runs.parent / "mlruns").exists()
    assert read_record(run.dir).mlflow == {"uri": store, "experiment": "mine", "run_id": found.info.run_id}
    assert run_folder(found.info.run_id, runs=runs) == run.dir


@pytest.mark.parametrize("status", ["FAILED", "KILLED"])
def test_an_unlucky_run_says_so_in_mlflow(runs: Path, store: str, status: str) -> None:
    run = open_run(name="r", runs=runs)
    sync = MlflowSync(run.dir, store, interval=0.05)
    sync.start()
    run.close(status)
    assert sync.finish(status, timeout=60) == 0
    assert mlflow_runs(store)[0].info.status == status


KILLED_RUN = """
import os, signal, sys, time
from pathlib import Path
from llmfw.core.tracking import MlflowSync, open_run, unsent
runs, uri, how = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
def write(first, last):
    for step in range(first, last + 1):
        run.journal.metrics(step, {"loss": 1 / step, "rewards/margins": step / 7})
run = open_run(name="victim", runs=runs, fingerprint="f", config={"seed": 1})
write(1, 10)
# created: between MLflow's making of the run and our writing its id down;
# unacknowledged: after the second batch arrived, before the cursor says so
place = {"created": "mlflow.mid_sync:1:kill", "unacknowledged": "mlflow.mid_sync:3:kill"}.get(how)
if place:
    os.environ["LLMFW_FAILPOINT"] = place
sync = MlflowSync(run.dir, uri, interval=0.05)
sync.start()
if how != "created":
    while unsent(run.dir, ""):
        time.sleep(0.01)
if how == "unacknowledged":
    write(11, 12)
while place and sync._process.poll() is None:
    time.sleep(0.01)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("how", ["idle", "created", "unacknowledged"])
def test_a_killed_and_resumed_run_is_one_mlflow_run_with_every_step_once(
    runs: Path, store: str, how: str
) -> None:
    """Killed after step 10 (or in the middle of telling MLflow), resumed from step 7, ended at step 15."""
    done = subprocess.run([sys.executable, "-c", KILLED_RUN, str(runs), store, how], check=False, timeout=120)
    assert done.returncode == -signal.SIGKILL
    [record] = list_runs(runs)
    assert record.status == "KILLED"
    assert len(mlflow_runs(store)) == 1
    run = open_run(name="victim", folder=record.dir, resume=True, config={"seed": 1})
    run.journal.rewind(7)
    sync = MlflowSync(run.dir, store, interval=0.05)
    sync.start()
    until(lambda: mlflow_runs(store)[0].info.status == "RUNNING")
    train(run.journal, range(8, 16))
    run.close("FINISHED")
    assert sync.finish("FINISHED", timeout=60) == 0
    [found] = mlflow_runs(store)
    assert found.info.status == "FINISHED"
    assert values(store, found.info.run_id) == expected(range(1, 16))
    assert "llmfw.superseded_values" not in found.data.tags


def test_values_that_were_rewound_before_they_were_sent_are_sent_when_they_come_again(
    runs: Path, store: str
) -> None:
    """Steps 11 and 12 never reach MLflow; the next process rewinds to 7 and dies at once; the third computes
    them again.
    """
    run = open_run(name="r", runs=runs)
    for first, last, silent in ((1, 10, 12), (8, 7, 7), (8, 15, 15)):
        if first != 1:
            run = open_run(name="r", folder=run.dir, resume=True)
            run.journal.rewind(7)
        sync = MlflowSync(run.dir, store, interval=0.05)
        sync.start()
        train(run.journal, range(first, last + 1))
        assert sync.finish("KILLED", timeout=60) == 0
        train(run.journal, range(last + 1, silent + 1))
        run.close("KILLED")
    assert values(store, mlflow_runs(store)[0].info.run_id) == expected(range(1, 16))


def test_a_resumed_run_that_computes_other_values_adds_no_second_point_and_says_so(
    runs: Path, store: str
) -> None:
    run = open_run(name="r", runs=runs)
    sync = MlflowSync(run.dir, store, interval=0.05)
    sync.start()
    train(run.journal, range(1, 6))
    run.close("KILLED")
    assert sync.finish("KILLED", timeout=60) == 0
    run = open_run(name="r", folder=run.dir, resume=True)
    run.journal.rewind(3)
    run.journal.metrics(4, {"loss": 99.0})
    run.journal.metrics(5, {"loss": 1 / 5})
    sync = MlflowSync(run.dir, store, interval=0.05)
    sync.start()
    run.close("FINISHED")
    assert sync.finish("FINISHED", timeout=60) == 0
    [found] = mlflow_runs(store)
    assert values(store, found.info.run_id)["loss"] == expected(range(1, 6))["loss"]
    assert found.data.tags["llmfw.superseded_values"] == "1"
    assert read_journal(run.record.journal).series["loss"][3] == (4, 99.0)


def test_a_lost_cursor_brings_no_value_twice(runs: Path, store: str) -> None:
    run = open_run(name="r", runs=runs)
    sync = MlflowSync(run.dir, store, interval=0.05)
    sync.start()
    train(run.journal, range(1, 6))
    run.close("FINISHED")
    assert sync.finish("FINISHED", timeout=60) == 0
    (run.dir / CURSOR).unlink()
    assert sync_run(run.dir) > 0
    (run.dir / CURSOR).write_text('{"offset": -5, "params": "no list", "run_id": 7')
    sync_run(run.dir)
    assert len(mlflow_runs(store)) == 1
    assert values(store, mlflow_runs(store)[0].info.run_id) == expected(range(1, 6))


def test_a_run_deleted_in_mlflow_is_made_anew_by_a_later_sync(runs: Path, store: str) -> None:
    run = open_run(name="r", runs=runs)
    sync = MlflowSync(run.dir, store, interval=0.05)
    sync.start()
    train(run.journal, range(1, 6))
    run.close("FINISHED")
    assert sync.finish("FINISHED", timeout=60) == 0
    [old] = mlflow_runs(store)
    client(store).delete_run(old.info.run_id)
    (run.dir / CURSOR).unlink()
    sync_run(run.dir)
    [new] = mlflow_runs(store)
    assert new.info.run_id != old.info.run_id
    assert values(store, new.info.run_id) == expected(range(1, 6))


def test_a_killed_run_is_told_to_mlflow_at_once_by_the_process_that_outlives_it(
    runs: Path, store: str
) -> None:
    command = [sys.executable, "-c", KILLED_RUN, str(runs), store, "idle"]
    assert subprocess.run(command, check=False, timeout=120).returncode == -signal.SIGKILL
    until(lambda: mlflow_runs(store)[0].info.status == "KILLED")
    [record] = list_runs(runs)
    assert unsent(record.dir, "KILLED") == 0


def test_a_run_whose_lock_is_let_go_after_its_pipe_is_told_as_killed(runs: Path, store: str) -> None:
    """A killed process's files are closed one after another: the sender may see its pipe go first."""
    run = open_run(name="r", runs=runs)
    task = {"folder": str(run.dir), "uri": store, "experiment": "e", "tags": {}, "interval": 1.0, "pid": 1}
    threading.Timer(0.5, os.close, [run._lock]).start()
    assert Worker(task)._orphaned() == "KILLED"


def test_the_next_run_tells_mlflow_of_a_run_that_was_killed_together_with_its_sender(
    runs: Path, store: str
) -> None:
    command = [sys.executable, "-c", KILLED_RUN, str(runs), store, "unacknowledged"]
    assert subprocess.run(command, check=False, timeout=120).returncode == -signal.SIGKILL
    assert [found.info.status for found in mlflow_runs(store)] == ["RUNNING"]
    run = open_run(name="next", runs=runs)
    sync = MlflowSync(run.dir, store, interval=0.05)
    sync.start()
    until(lambda: sorted(found.info.status for found in mlflow_runs(store)) == ["KILLED", "RUNNING"])
    run.close("FINISHED")
    assert sync.finish("FINISHED", timeout=60) == 0


def test_a_sender_that_dies_in_the_middle_is_replaced_at_the_end(
    runs: Path, store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed after its first batch arrived; the second one is told at the end and sends the rest."""
    monkeypatch.setenv("LLMFW_FAILPOINT", "mlflow.mid_sync:2:kill")
    run = open_run(name="r", runs=runs)
    train(run.journal, range(1, 11))
    sync = MlflowSync(run.dir, store, interval=0.05)
    sync.start()
    until(lambda: sync._process is not None and sync._process.poll() is not None)
    monkeypatch.delenv("LLMFW_FAILPOINT")
    train(run.journal, range(11, 21))
    run.close("FINISHED")
    assert sync.finish("FINISHED", timeout=60) == 0
    [found] = mlflow_runs(store)
    assert found.info.status == "FINISHED"
    assert values(store, found.info.run_id) == expected(range(1, 21))


def test_the_address_of_the_store_is_no_argument_that_others_can_read(runs: Path) -> None:
    uri = closed_port().replace("//", "//me:the-password@")
    run = open_run(name="r", runs=runs)
    sync = MlflowSync(run.dir, uri, interval=0.05)
    sync.start()
    assert sync._process is not None
    assert "the-password" not in Path(f"/proc/{sync._process.pid}/cmdline").read_text()
    run.close("FINISHED")
    sync.finish("FINISHED", timeout=10)


def test_a_sender_leaves_no_log_where_it_had_nothing_to_say(runs: Path, store: str) -> None:
    run = open_run(name="r", runs=runs)
    sync = MlflowSync(run.dir, store, interval=0.05)
    sync.start()
    run.close("FINISHED")
    assert sync.finish("FINISHED", timeout=60) == 0
    assert not (run.dir / "mlflow.log").exists()


def test_a_process_that_cannot_be_started_costs_a_warning_only(
    runs: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    run = open_run(name="r", runs=runs)
    sync = MlflowSync(run.dir, interval=0.05)
    sync.start()
    run.close("FINISHED")
    assert sync.finish("FINISHED", timeout=10) > 0
    assert "can't be started" in caplog.text


def test_rounds_are_nested_runs(runs: Path, store: str) -> None:
    outer = open_run(name="outer", runs=runs)
    inner = open_run(name="round-0", folder=outer.dir / "rounds" / "0", parent=outer.record.id)
    syncs = [MlflowSync(run.dir, store, interval=0.05) for run in (inner, outer)]
    for sync, run in zip(syncs, (inner, outer)):
        sync.start()
        until(lambda run=run: unsent(run.dir, "") == 0)
        run.close("FINISHED")
        assert sync.finish("FINISHED", timeout=60) == 0
    # the round came first, so its parent was unknown then
    sync_again = open_run(name="round-0", folder=inner.dir, resume=True)
    later = MlflowSync(inner.dir, store, interval=0.05)
    later.start()
    sync_again.close("FINISHED")
    assert later.finish("FINISHED", timeout=60) == 0
    found = {item.info.run_name: item for item in mlflow_runs(store)}
    assert found["round-0"].data.tags["mlflow.parentRunId"] == found["outer"].info.run_id
    assert [record.name for record in list_runs(runs)] == ["outer"]


def test_a_run_that_still_goes_on_is_left_to_itself(runs: Path) -> None:
    with open_run(name="r", runs=runs) as run, pytest.raises(BusyError):
        sync_run(run.dir)


def test_passwords_of_a_tracking_server_are_told_to_nobody(
    runs: Path, caplog: pytest.LogCaptureFixture
) -> None:
    uri = closed_port().replace("//", "//me:the-password@")
    run = open_run(name="r", runs=runs)
    sync = MlflowSync(run.dir, uri, interval=0.05)
    sync.start()
    run.close("FINISHED")
    assert sync.finish("FINISHED", timeout=10) > 0
    assert "the-password" not in caplog.text
    assert "the-password" not in "".join(path.read_text() for path in run.dir.iterdir() if path.is_file())


def test_the_environment_variable_names_the_store(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/elsewhere.db")
    run = open_run(name="r", runs=runs)
    sync = MlflowSync(run.dir, interval=0.05)
    sync.start()
    run.close("FINISHED")
    assert sync.finish("FINISHED", timeout=60) == 0
    assert not (runs / "mlflow.db").exists()
    [found] = mlflow_runs(f"sqlite:///{tmp_path}/elsewhere.db")
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    update_record(run.dir, mlflow={})
    assert run_folder(found.info.run_id, f"sqlite:///{tmp_path}/elsewhere.db", runs) == run.dir


def test_an_unknown_mlflow_id_is_one_line(runs: Path, store: str) -> None:
    with pytest.raises(UsageError, match="no run 'beef'"):
        run_folder("beef", store, runs)


def test_two_processes_never_send_one_run_at_once(runs: Path, store: str) -> None:
    with open_run(name="r", runs=runs) as run:
        pass
    from llmfw.core.tracking.files import try_lock

    handle = try_lock(run.dir / ".mlflow.lock")
    assert handle is not None
    with pytest.raises(BusyError):
        sync_run(run.dir, store)
    os.close(handle)
    assert sync_run(run.dir, store) > 0


def test_what_is_rewound_before_it_was_sent_is_never_sent(tmp_path: Path) -> None:
    with Journal(tmp_path / "journal.jsonl") as journal:
        train(journal, range(1, 6))
        journal.rewind(3)
        journal.metrics(4, {"loss": 4.5})
    feed = Feed(tmp_path)
    feed.read()
    assert {(point.key, point.step): point.value for point in feed.batch(100) if point.step > 3} == {
        ("loss", 4): 4.5
    }
    assert len(feed.batch(2)) == 2


@pytest.mark.parametrize(
    ("name", "fit"),
    [
        ("rewards/margins", "rewards/margins"),
        ("acc@5", "acc_5"),
        ("../x", "___x"),
        ("/x", "_x"),
        ("a//b", "a__b"),
        (".", "_"),
        ("", "_"),
        ("ä", "_"),
        ("a" * 300, "a" * 250),
        ("x/", "x_"),
        ("a b:c", "a b:c"),
    ],
)
def test_names_are_fitted_to_what_mlflow_takes(name: str, fit: str) -> None:
    from mlflow.utils.validation import _validate_metric_name

    assert fit_name(name) == fit
    _validate_metric_name(fit_name(name))
