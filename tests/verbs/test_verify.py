"""``llmfw verify``: real runs, really killed; and what it says where the promise is broken."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from llmfw.core.errors import CheckpointError, UsageError
from llmfw.core.proof.facts import Finding, compare
from llmfw.core.proof.resume import Verdict, verify_resume
from llmfw.testing.runner import Runner
from llmfw.verbs.options import words_of
from tests.resume.trials import LORA, write_data
from tests.toys.sources import SAMPLER

WORDS = ("model=tiny-llama", "trainer.micro_batch=2", "optimizer.lr=1e-3", "generation.max_new_tokens=4")


@pytest.fixture(scope="module")
def verified(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """One real verification: preference pairs under LoRA, accumulation, MLflow, three kills."""
    folder = tmp_path_factory.mktemp("verify")
    pairs = write_data(folder / "data")["pairs"]
    done = Runner(folder).process(
        *("verify", "resume", "--plugin", "dpo", "dpo.answers=0", f"data={pairs}", *WORDS, *LORA),
        *("trainer.accumulate=2", "trainer.max_steps=8", "checkpoint.every=3", "--seed=1", "--json"),
    ).assert_ok()  # fmt: skip
    return folder / "verify", json.loads(done.output)


@pytest.mark.slow
@pytest.mark.kill
def test_a_run_with_a_plugin_is_the_same_after_three_kills_in_every_fact(
    verified: tuple[Path, dict[str, Any]],
) -> None:
    folder, told = verified
    assert told["held"] and told["grade"] == "A" and told["steps"] == 8
    assert len(told["kills"]) + told["missed"] == 3 and told["kills"]
    found = {one["what"]: one for one in told["findings"]}
    assert all(one["equal"] for one in found.values()), found
    assert {
        "weights",
        "metric series",
        "samples of each step",
        "MLflow",
        "steps computed again",
    } <= found.keys()
    assert "8 steps, 27 samples, 0 steps differ" in found["samples of each step"]["said"]
    assert "one run, FINISHED" in found["MLflow"]["said"]
    assert max(told["lost"], default=0) <= 3
    record = json.loads((folder / "killed" / "run.json").read_text())
    assert record["resume_class"] == "A" and record["conditions"]["threads"]


@pytest.mark.slow
@pytest.mark.kill
def test_a_single_flipped_bit_a_wrong_sample_and_a_wrong_value_are_each_found(
    verified: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    """A comparison that can't fail is worth nothing: each change is made in a copy of the killed run."""
    folder, _ = verified

    def differing(change: Any) -> set[str]:
        shutil.rmtree(tmp_path / "copy", ignore_errors=True)
        shutil.copytree(folder / "killed", tmp_path / "copy")
        change(tmp_path / "copy")
        return {one.what for one in compare(folder / "whole", tmp_path / "copy", "A") if not one.equal}

    def bit(run: Path) -> None:
        file = next((run / "final").glob("*.safetensors"))
        tensors = load_file(file)
        next(iter(tensors.values())).view(-1).view(torch.int32)[0] ^= 1
        save_file(tensors, file)

    def text(old: str, new: str) -> Any:
        def change(run: Path) -> None:
            file = run / "journal.jsonl"
            kept = file.read_text()
            assert old in kept
            file.write_text(kept.replace(old, new))

        return change

    line = next(
        one for one in (folder / "killed" / "journal.jsonl").read_text().splitlines() if '"consumed"' in one
    )
    sample = json.loads(line)["sample_ids"][0]
    assert differing(lambda run: None) == set()
    assert differing(bit) == {"weights"}
    assert differing(text(f'"{sample}"', '"another"')) == {"samples of each step"}
    assert differing(text('"lr":0.001', '"lr":0.0011')) == {"metric series"}


def verdict(**changes: Any) -> Verdict:
    told: dict[str, Any] = {
        "folder": Path("verify"), "grade": "A", "reasons": (), "steps": 10, "kills": (0, 4), "missed": 0,
        "lost": (2,), "every": 3, "seconds": 1.0,
        "findings": (Finding(what="weights", equal=True, held=True, said="0 bits differ"),),
    }  # fmt: skip
    return Verdict(**{**told, **changes})


def test_a_broken_promise_is_exit_code_five_and_names_the_first_difference() -> None:
    verdict().insist()
    broken = Finding(what="optimizer", equal=False, held=False, said="3 bits differ")
    with pytest.raises(CheckpointError, match=r"RESUME-DIFFERS.*optimizer: 3 bits differ") as caught:
        verdict(findings=(*verdict().findings, broken)).insist()
    assert caught.value.exit_code == 5


def test_a_run_that_no_kill_met_proves_nothing() -> None:
    with pytest.raises(CheckpointError, match="VERIFY-NO-KILL"):
        verdict(kills=(), missed=3).insist()


@pytest.mark.parametrize("word", ["run.dir=x", "checkpoint.dir=x", "tracking.uri=x", "--resume"])
def test_settings_that_verifying_decides_are_refused(tmp_path: Path, word: str) -> None:
    with pytest.raises(UsageError, match="VERIFY-SETTING"):
        verify_resume([word], folder=tmp_path / "verify")


def test_a_folder_that_holds_something_is_refused(tmp_path: Path) -> None:
    (tmp_path / "note").write_text("mine")
    with pytest.raises(UsageError, match="VERIFY-FOLDER"):
        verify_resume([], folder=tmp_path)
    assert (tmp_path / "note").read_text() == "mine"


def test_a_mistyped_key_is_told_before_anything_runs(runner: Runner) -> None:
    runner("verify", "resume", "trainer.max_stepz=3").assert_failed("max_steps", code=2)
    assert not (runner.folder / "verify").exists()


@pytest.mark.slow
@pytest.mark.kill
def test_a_terminated_verification_leaves_no_training_behind(tmp_path: Path) -> None:
    """The run stands in a session of its own, so that it can be killed as a whole: it once went on alone."""
    log = tmp_path / "verify" / "whole.log"
    command = [sys.executable, "-m", "llmfw", "verify", "resume", f"data={write_data(tmp_path)['answers']}"]
    process = subprocess.Popen(
        [*command, *WORDS, "trainer.max_steps=100000"], cwd=tmp_path, stderr=subprocess.PIPE, text=True
    )
    try:
        until = time.monotonic() + 120
        while not (log.exists() and "layout" in log.read_text()) and time.monotonic() < until:
            time.sleep(0.1)
        (run,) = training_in(tmp_path)
        process.terminate()
        _, told = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 143
    assert told.splitlines()[-1] == (
        "error[INTERRUPTED] stopped by SIGTERM; remove verify and verify again when you like"
    )
    assert training_in(tmp_path) == [], f"{run} goes on"


def training_in(folder: Path) -> list[int]:
    """Processes that run ``llmfw fit`` in this folder."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            words = (place / "cmdline").read_bytes().split(b"\0")
            if b"fit" in words and b"run.dir=verify/whole" in words and (place / "cwd").resolve() == folder:
                found.append(int(place.name))
    return found


@pytest.mark.slow
@pytest.mark.kill
def test_a_sampler_killed_in_its_rounds_gives_the_same_records_and_weights(
    tmp_path: Path, installed_plugin: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed_plugin("rounds", SAMPLER)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site-packages"))
    data = write_data(tmp_path / "data")["answers"]
    done = Runner(tmp_path).process(
        *("verify", "resume", "--plugin", "rounds", f"data={data}", *WORDS),
        *("trainer.max_steps=3", "checkpoint.every=1", "--kills=3", "--seed=4", "--json"),
    ).assert_ok()  # fmt: skip
    told = json.loads(done.output)
    assert told["held"] and told["steps"] == 6 and told["kills"], told
    found = {one["what"]: one for one in told["findings"]}
    for place in ("rounds/000", "rounds/001"):
        assert "2 records, 0 differ" in found[f"{place}: records"]["said"]
        assert found[f"{place}: weights"]["equal"] and found[f"{place}: samples of each step"]["equal"]
    assert all(one["equal"] for one in found.values()), found


@pytest.mark.slow
def test_a_run_that_fails_by_itself_is_told_as_such(runner: Runner) -> None:
    done = runner("verify", "resume", "data=nowhere.jsonl", *WORDS).assert_failed(
        "nowhere", code="VERIFY-RUN"
    )
    assert done.exit_code == 3, "the run's own"


def test_options_become_the_words_of_fit_again() -> None:
    words = words_of(
        plugins=("a", "b"), no_plugins=("c",), files=(Path("x.yaml"),), defaults_from="a", overrides=["k=v"]
    )
    assert words == [
        *("--plugin", "a", "--plugin", "b", "--no-plugin", "c", "--config", "x.yaml"),
        *("--defaults-from", "a", "k=v"),
    ]


@pytest.mark.slow
def test_checkpoints_of_a_run_are_verified_and_a_damaged_one_is_exit_code_five(
    runner: Runner, rows_file: Any
) -> None:
    run = runner("fit", f"data={rows_file()}", "trainer.max_steps=2", "checkpoint.every=1").assert_ok().run
    assert run is not None
    said = runner("verify", "checkpoint", str(run)).assert_ok().output
    assert said.count("all as written") == 3, "two checkpoints and the final weights"
    file = run / "checkpoints" / "step-00000002" / "training.json"
    file.write_text(file.read_text().replace("2", "3", 1))
    runner("verify", "checkpoint", str(run)).assert_failed("training.json", code=5)
    runner("verify", "checkpoint", str(run / "checkpoints" / "step-00000001")).assert_ok()
    runner("verify", "checkpoint", str(runner.folder / "nothing")).assert_failed(code="CHECKPOINT-MISSING")
