"""A whole run: resumed, tracked, over several processes, with and without a cached reference."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

import llmfw
from llmfw.core.errors import BusyError, CheckpointError, UsageError
from llmfw.core.tracking import open_run, read_journal, read_record

TINY = ("model=tiny-llama", "trainer.progress=false")
QUIET = (*TINY, "tracking.mlflow=false")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in, with supervised rows and preference pairs."""
    monkeypatch.chdir(tmp_path)
    rows = [{"id": f"r{i}", "prompt": f"say {i}", "completion": f"it is {i}"} for i in range(20)]
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    pairs = [
        {
            "id": f"p{i}",
            "prompt": f"say {i}",
            "chosen": f"it is {i}",
            "rejected": f"no, it is {i + 1}, I think",
        }
        for i in range(12)
    ]
    Path("pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in pairs))
    return tmp_path


def _llmfw(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "llmfw.cli", *words]
    return subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, **environment}, timeout=300
    )


def _weights(result: llmfw.FitResult | Path) -> dict[str, object]:
    folder = result if isinstance(result, Path) else result.final
    (file,) = folder.glob("*model.safetensors")
    return load_file(file)


def _same(left: dict, right: dict) -> bool:
    return left.keys() == right.keys() and all(left[name].equal(right[name]) for name in left)


@pytest.mark.kill
def test_a_killed_run_goes_on_to_the_same_weights_and_values_as_one_that_was_not(here: Path):
    settings = (*QUIET, "data=rows.jsonl", "trainer.max_steps=12", "checkpoint.every=4", "adapter.kind=lora",
                "adapter.dropout=0.1", "trainer.accumulate=2")  # fmt: skip
    whole = llmfw.fit(*settings, "run.dir=whole")
    killed = _llmfw("fit", *settings, "run.dir=cut", LLMFW_FAILPOINT="train.mid_accum:11:kill")
    assert killed.returncode == -9
    resumed = llmfw.fit(*settings, "run.dir=cut", resume="must")
    assert _same(_weights(whole), _weights(resumed))
    series = [read_journal(result.dir / "journal.jsonl").digest() for result in (whole, resumed)]
    assert series[0] == series[1]
    consumed = [
        [event.fields["sample_ids"] for event in read_journal(result.dir / "journal.jsonl").of("consumed")]
        for result in (whole, resumed)
    ]
    assert len(consumed[0]) == 12 and consumed[0] == consumed[1]


def test_resume_must_fails_where_there_is_nothing_and_auto_starts_afresh_and_says_so(
    capfd: pytest.CaptureFixture[str],
):
    settings = (*QUIET, "data=rows.jsonl", "trainer.max_steps=1")
    with pytest.raises(CheckpointError, match="NOTHING-TO-RESUME") as caught:
        llmfw.fit(*settings, resume="must")
    assert caught.value.exit_code == 5 and not Path("runs").exists()
    assert llmfw.fit(*settings, resume="auto").steps == 1
    assert "starting afresh" in capfd.readouterr().err


def test_a_run_whose_data_has_changed_is_not_resumed():
    settings = (*QUIET, "data=rows.jsonl", "trainer.max_steps=4", "checkpoint.every=1", "run.dir=run")
    stopped = _llmfw("fit", *settings, LLMFW_FAILPOINT="ckpt.before_write:3:raise")
    assert stopped.returncode != 0 and read_record(Path("run")).status == "FAILED"
    with Path("rows.jsonl").open("a") as rows:
        rows.write('{"id": "new", "prompt": "say more", "completion": "more"}\n')
    with pytest.raises(CheckpointError, match="DATA-CHANGED"):
        llmfw.fit(*settings, resume="auto")


def test_a_folder_that_another_run_owns_is_refused():
    with open_run(name="other", folder=Path("run")), pytest.raises(BusyError) as caught:
        llmfw.fit(*QUIET, "data=rows.jsonl", "run.dir=run", "trainer.max_steps=1")
    assert caught.value.exit_code == 9 and str(os.getpid()) in str(caught.value)


def test_a_folder_that_can_not_be_written_is_refused_before_anything_is_read():
    with pytest.raises(UsageError) as caught:
        llmfw.fit(*QUIET, "data=rows.jsonl", "run.dir=/proc/llmfw", "trainer.max_steps=1")
    assert "/proc/llmfw" in str(caught.value) and "run.dir" in str(caught.value)


def test_an_unreachable_mlflow_stops_nothing_and_loses_nothing():
    result = llmfw.fit(*TINY, "data=rows.jsonl", "trainer.max_steps=2", "tracking.uri=http://127.0.0.1:9")
    assert result.steps == 2 and result.unsent > 0
    assert len(read_journal(result.dir / "journal.jsonl").series["loss"]) == 2


def test_a_run_leaves_the_environment_as_it_was():
    before = dict(os.environ)
    llmfw.fit(*QUIET, "data=rows.jsonl", "trainer.max_steps=0")
    with pytest.raises(UsageError):
        llmfw.fit(*QUIET, "data=rows.jsonl", "trainer.max_steps=0", "run.dir=/proc/llmfw")
    left = {name: value for name, value in os.environ.items() if name.startswith("LLMFW_")}
    assert left == {name: value for name, value in before.items() if name.startswith("LLMFW_")}


def test_a_failed_run_says_so_and_keeps_its_traceback():
    with pytest.raises(llmfw.LlmfwError, match="NON-FINITE") as caught:
        llmfw.fit(*QUIET, "data=rows.jsonl", "trainer.max_steps=3", "optimizer.lr=1e30", "optimizer.clip=0",
                  "optimizer.warmup=0", "run.dir=run")  # fmt: skip
    assert caught.value.exit_code == 7 and read_record(Path("run")).status == "FAILED"
    assert "NON-FINITE" in Path("run/crash.txt").read_text()


def test_no_steps_at_all_measure_and_save_the_model_as_it_is():
    result = llmfw.fit(*QUIET, "data=rows.jsonl", "trainer.max_steps=0")
    assert result.steps == 0 and result.validation["loss"] > 0
    answered = llmfw.generate(["hello"], f"model={result.final}", max_new_tokens=3)
    assert answered.texts == llmfw.generate(["hello"], "model=tiny-llama", max_new_tokens=3).texts


def test_a_cached_reference_gives_the_numbers_of_the_live_one_and_serves_a_sweep(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
):
    monkeypatch.setenv("LLMFW_CACHE", str(tmp_path / "cache"))
    settings = (*QUIET, "data=pairs.jsonl", "trainer.max_steps=3", "adapter.kind=lora", "ld_dpo.answers=0")
    live = llmfw.fit(*settings, plugins=["ld_dpo"])
    cached = llmfw.fit(*settings, "trainer.reference=cache", plugins=["ld_dpo"])
    assert "computing" in capfd.readouterr().err
    llmfw.fit(*settings, "trainer.reference=cache", "ld_dpo.alpha=0.25", plugins=["ld_dpo"])
    assert "computing" not in capfd.readouterr().err
    assert cached.last["loss"] == pytest.approx(live.last["loss"], abs=1e-6)
    assert cached.validation["loss"] == pytest.approx(live.validation["loss"], abs=1e-6)


@pytest.mark.parametrize("plugin", [None, "ld_dpo"])
def test_every_layout_and_split_into_micro_batches_trains_the_same(plugin: str | None):
    """Loss, gradient norm and held-out loss agree to 1e-5 with padded rows of four samples."""
    data = "pairs" if plugin else "rows"
    settings = [*QUIET, f"data={data}.jsonl", "trainer.max_steps=3"]
    settings += ["ld_dpo.answers=0"] if plugin else []
    plugins = [plugin] if plugin else []
    whole = ("trainer.micro_batch=4", "trainer.accumulate=1")
    split = ("trainer.micro_batch=1", "trainer.accumulate=4")
    cases = {"padded": whole, "packed": whole, "packed split": split}
    cases |= {"shared_prompt": whole, "shared_prompt split": split} if plugin else {}
    found = {}
    for case, micro in cases.items():
        layout = case.partition(" ")[0]
        result = llmfw.fit(*settings, f"trainer.layout={layout}", *micro, plugins=plugins)
        view = read_journal(result.dir / "journal.jsonl")
        assert view.of("layout")[-1].fields["layout"] == layout
        found[case] = [dict(view.series[name]) for name in ("loss", "grad_norm", "validation/loss")]
    for case, series in found.items():
        for ours, padded in zip(series, found["padded"], strict=True):
            assert ours == pytest.approx(padded, rel=1e-5), case


@pytest.mark.parametrize("plugin", [None, "ld_dpo"])
def test_two_processes_train_the_same_as_one(plugin: str | None):
    settings = [
        *QUIET,
        f"data={'pairs' if plugin else 'rows'}.jsonl",
        "trainer.max_steps=3",
        "trainer.threads=1",
    ]
    settings += ["--plugin", plugin, "ld_dpo.answers=0", "adapter.kind=lora"] if plugin else []
    one = _llmfw("fit", *settings, "trainer.micro_batch=4", "trainer.layout=padded", "run.dir=one")
    assert one.returncode == 0, one.stderr
    two = _llmfw("fit", *settings, "trainer.micro_batch=2", "trainer.devices=2", "trainer.strategy=ddp",
                 "trainer.accelerator=cpu", "run.dir=two")  # fmt: skip
    assert two.returncode == 0, two.stderr
    views = [read_journal(Path(place) / "journal.jsonl") for place in ("one", "two")]
    for name in ("loss", "grad_norm", "validation/loss"):
        left, right = (dict(view.series[name]) for view in views)
        assert left.keys() == right.keys()
        assert all(left[step] == pytest.approx(right[step], rel=1e-5) for step in left)
    assert [e.fields["sample_ids"] for e in views[0].of("consumed")] == [
        e.fields["sample_ids"] for e in views[1].of("consumed")
    ]
