"""Rounds that are killed in each of their phases end as the others: records, answers, counts, weights."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from llmfw.core.proof.facts import compare
from llmfw.core.tracking import read_journal
from tests.resume.trials import Warm, run

pytestmark = pytest.mark.kill

ARGS = [
    *("--plugin", "rft", "model=tiny-llama", "data=chain-arithmetic"),
    *(
        "data.options.levels=1",
        "data.options.largest=5",
        "data.options.train=24",
        "data.options.validation=4",
    ),
    *("rft.gold_epochs=10", "rft.rounds=2", "rft.samples=4", "rft.problems=4", "rft.keep_gold=true"),
    *("optimizer.lr=1e-2", "trainer.micro_batch=8", "trainer.epochs=1", "checkpoint.every=3"),
    *("generation.max_new_tokens=16", "tracking.mlflow=false", "trainer.progress=false"),
]
KILLS = [
    "loop.before_round:1:kill",
    "ckpt.mid_write:2:kill",  # the training on the solutions
    "loop.before_done:1:kill",
    "loop.after_round:1:kill",
    "loop.mid_generate:9:kill",  # the first sampling
    "loop.after_generate_before_score:1:kill",
    "ckpt.before_rename:1:kill",  # the training of round 1
    "loop.before_done:1:kill",
    "loop.before_round:3:kill",
    "loop.mid_generate:3:kill",  # the second sampling
]


@pytest.fixture(scope="module")
def warm() -> Iterator[Warm]:
    server = Warm()
    yield server
    server.close()


def counts(folder: Path) -> dict[str, dict[str, float]]:
    """The ledger without its seconds."""
    told = json.loads((folder / "ledger.json").read_text())
    return {
        purpose: {name: number for name, number in row.items() if name != "seconds"}
        for purpose, row in told.items()
    }


def records(folder: Path) -> list[Any]:
    return [json.loads(file.read_text()) for file in sorted(folder.glob("rounds/*/round.json"))]


def test_a_kill_in_every_phase_of_the_rounds_changes_and_repeats_nothing(warm: Warm, tmp_path: Path) -> None:
    """24 problems by 4 answers in each of two rounds: 192, each written down once."""
    whole = run(warm, tmp_path / "whole", ARGS, []).folder
    ran = run(warm, tmp_path / "killed", ARGS, KILLS)
    assert ran.kills == len(KILLS)
    for finding in compare(whole, ran.folder, "A"):
        assert finding.equal, f"{finding.what}: {finding.said}"
    assert records(ran.folder) == records(whole) and len(records(whole)) == 3
    assert counts(ran.folder) == counts(whole)
    assert counts(whole)["sample"] | {"tokens": 0} == {"prompts": 48, "samples": 192, "tokens": 0}
    for index in ("001", "002"):
        lines = (ran.folder / "rounds" / index / "sampling.jsonl").read_text().splitlines()
        told = [json.loads(line) for line in lines]
        generated = [(one["call"], one["at"]) for one in told if "at" in one]
        assert len(generated) == len(set(generated)) == 96


def test_a_round_that_is_trained_but_not_marked_so_is_only_told_again(warm: Warm, tmp_path: Path) -> None:
    """The kill comes between its training and ``done.json``: its journal and its line stay as they were."""
    words = [*ARGS, "rft.rounds=1", "rft.gold_epochs=1", "rft.samples=1"]
    command = ["fit", *words, f"run.dir={tmp_path / 'run'}", "--resume"]
    assert warm.launch(command, tmp_path, failpoint="loop.before_done:1:kill") == -signal.SIGKILL
    place = tmp_path / "run" / "rounds" / "000"
    kept = {name: (place / name).read_bytes() for name in ("journal.jsonl", "summary.json", "run.json")}
    assert not (place / "done.json").exists()
    assert warm.launch(command, tmp_path) == 0, (tmp_path / "log.txt").read_text()[-2000:]
    assert {name: (place / name).read_bytes() for name in kept} == kept
    told = read_journal(tmp_path / "run" / "journal.jsonl").series
    assert [step for step, _ in told["round/training loss"]] == [1, 2]
    assert told["round/training loss"][0][1] == json.loads(kept["summary.json"])["training loss"]


def test_a_kill_while_programs_are_judged_changes_nothing(warm: Warm, tmp_path: Path) -> None:
    """What the tiny model writes is no program, so only solutions are trained; each answer is run once."""
    words = [*ARGS, "--plugin", "mplsandbox", "rft.verifier=program", "rft.rounds=1"]
    whole = run(warm, tmp_path / "whole", words, []).folder
    ran = run(warm, tmp_path / "killed", words, ["sandbox.mid_call:7:kill", "sandbox.mid_call:20:kill"])
    assert ran.kills == 2
    for finding in compare(whole, ran.folder, "A"):
        assert finding.equal, f"{finding.what}: {finding.said}"
    assert records(ran.folder) == records(whole) and counts(ran.folder) == counts(whole)
