"""What a run says of its class, of how its last process ended, and who owns a folder."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import pytest

from llmfw.core.failpoints import armed
from llmfw.core.session import how_it_ended
from llmfw.core.tracking import find_run, open_run, read_record, update_record
from llmfw.testing.runner import Runner


def begun(runner: Runner, rows_file: Any) -> Path:
    """A run that failed in its second step, one checkpoint behind it."""
    with armed("train.mid_accum:2:raise"):
        runner(
            "fit", f"data={rows_file()}", "trainer.micro_batch=1", "trainer.accumulate=2", "run.dir=run",
            "checkpoint.every=1",
        ).assert_failed(code=1)  # fmt: skip
    return runner.folder / "run"


def go_on(runner: Runner, *words: str) -> str:
    return (
        runner(
            "fit", f"data={runner.folder}/completion.jsonl", "run.dir=run", "--resume=must",
            "checkpoint.every=1", "trainer.micro_batch=1", "trainer.accumulate=2", *words,
        )
        .assert_ok()
        .messages
    )  # fmt: skip


def test_the_class_is_said_at_the_start_kept_and_said_again_when_the_run_goes_on(
    runner: Runner, rows_file: Any
) -> None:
    run = begun(runner, rows_file)
    record = read_record(run)
    assert record.resume_class == "A" and record.resume_reasons == () and record.conditions["threads"] == "1"
    assert "resume class A: killed and taken up again it ends bit for bit" in go_on(runner)
    told = json.loads(runner("compare", "run", "--json").assert_ok().output)
    assert told["runs"][0]["resume_class"] == "A"


def test_a_run_that_goes_on_with_other_threads_is_of_class_b_from_then_on_and_compare_says_why(
    runner: Runner, rows_file: Any
) -> None:
    begun(runner, rows_file)
    said = go_on(runner, "trainer.threads=2")
    assert "resume class B (threads 1 -> 2): killed and taken up again it sees the same samples" in said
    shown = runner("compare", "run").assert_ok().output
    assert "threads 1 -> 2" in " ".join(shown.split())
    assert read_record(runner.folder / "run").resume_class == "B"


def test_micro_batches_dealt_out_otherwise_are_class_b_too(runner: Runner, rows_file: Any) -> None:
    begun(runner, rows_file)
    runner(
        "fit", f"data={runner.folder}/completion.jsonl", "run.dir=run", "--resume=must", "checkpoint.every=1",
        "trainer.micro_batch=2", "trainer.accumulate=1",
    ).assert_ok()  # fmt: skip
    record = find_run(str(runner.folder / "run"))
    assert record.resume_class == "B"
    assert set(record.resume_reasons) == {"micro_batch 1 -> 2", "accumulate 2 -> 1"}


def test_a_process_that_left_without_a_word_is_named_with_its_step_when_the_run_goes_on(
    tmp_path: Path,
) -> None:
    run = open_run(name="r", folder=tmp_path / "run", runs=tmp_path)
    run.journal.metrics(7, {"loss": 1.0})
    record = read_record(run.dir)
    said = how_it_ended(record)
    assert said is not None
    assert said.startswith(
        f"process {record.pid} on {socket.gethostname()} was killed by signal 9 after step 7"
    )
    assert "out of memory?" in said
    before = update_record(run.dir, boot="another")
    assert str(how_it_ended(before)).endswith("went down with the machine after step 7")
    run.close("KILLED")
    assert how_it_ended(read_record(run.dir)) is None, "it said itself that a signal ended it"


def test_a_second_run_in_one_folder_is_told_whose_it_is_and_since_when(
    runner: Runner, rows_file: Any
) -> None:
    with open_run(name="r", folder=runner.folder / "run", runs=runner.folder) as run:
        failed = runner("fit", f"data={rows_file()}", "run.dir=run", "--resume").assert_failed(
            code="RUN-BUSY"
        )
        record = read_record(run.dir)
    assert failed.exit_code == 9 and failed.error is not None
    for part in (str(record.pid), record.host, record.started):
        assert part in failed.error


def test_of_a_run_that_still_goes_nobody_says_that_it_was_killed(runner: Runner, rows_file: Any) -> None:
    """The one that would take it up once said so, and then that the process owns the folder."""
    folder = begun(runner, rows_file)
    before = read_record(folder)
    words = ("fit", f"data={runner.folder}/completion.jsonl", "run.dir=run", "--resume", "checkpoint.every=1")
    words += ("trainer.micro_batch=1", "trainer.accumulate=2")
    with open_run(name="run", folder=folder, resume=True, fingerprint=before.fingerprint):
        refused = runner(*words).assert_failed(code="RUN-BUSY")
    assert "was killed" not in refused.messages


def test_a_switch_that_would_let_pickles_in_is_said_to_have_no_effect(
    runner: Runner, rows_file: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    done = runner("fit", f"data={rows_file()}", "trainer.max_steps=1").assert_ok()
    assert done.messages.count("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD") == 1
