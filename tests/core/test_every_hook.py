"""Each hook is live: a toy plugin that answers it runs through fit or generate and leaves its trace.

The model is tiny-llama over a byte tokenizer; everything else is the real path.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

import llmfw
from llmfw.core.tracking import read_journal
from tests.toys import installed, sources, write_toy

SMALL = ("model=tiny-llama", "trainer.max_steps=2", "tracking.mlflow=false", "generation.max_new_tokens=4")


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder to work in, with ``rows.jsonl``, and a folder on sys.path for toy distributions."""
    rows = [{"id": f"r{i}", "prompt": f"say {i}", "completion": f"it is {i}"} for i in range(10)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    place = tmp_path / "site"
    place.mkdir()
    monkeypatch.chdir(tmp_path)
    with installed(place):
        yield place


def _toy(site: Path, source: str, name: str = "toy", **more: Any) -> None:
    from llmfw.core import discovery

    write_toy(site, name, source, **more)
    discovery.forget()


def _fit(*overrides: str, **more: Any) -> llmfw.FitResult:
    return llmfw.fit(*SMALL, "data=rows.jsonl", *overrides, plugins=["toy"], **more)


def _class(name: str = "toy") -> Any:
    return sys.modules[f"toy_{name}.plugin"].Toy


def test_a_service_is_built_once_and_shared_and_an_evaluation_uses_it(site: Path):
    _toy(site, sources.SERVICE)
    result = _fit()
    assert result.after["toy/rating"] == 4.0
    assert _class().built == 1
    assert read_journal(result.dir / "journal.jsonl").final("end/toy/rating") == 4.0


def test_a_datamodule_is_trained_on(site: Path):
    _toy(site, sources.DATAMODULE)
    result = llmfw.fit(*SMALL, plugins=["toy"])
    report = read_journal(result.dir / "journal.jsonl").of("data")[0].fields["report"]
    assert (report["splits"]["train"]["samples"], report["splits"]["validation"]["samples"]) == (8, 2)


def test_a_bare_lightning_datamodule_deals_out_its_own_batches_and_that_is_said(
    site: Path, capfd: pytest.CaptureFixture[str]
):
    _toy(site, sources.BARE_DATAMODULE)
    result = llmfw.fit(*SMALL, plugins=["toy"])
    assert result.steps == 2 and result.last["loss"] < result.first["loss"]
    assert "class C" in capfd.readouterr().err
    with pytest.raises(llmfw.LlmfwError, match=r"set trainer\.max_steps"):
        llmfw.fit("model=tiny-llama", "tracking.mlflow=false", "trainer.epochs=1", plugins=["toy"])


def test_transforms_work_on_rows_tokens_units_and_order(site: Path):
    _toy(site, sources.TRANSFORMS)
    result = _fit("trainer.micro_batch=1", "trainer.max_steps=4", "toy.keep=4", "data.validation=null")
    view = read_journal(result.dir / "journal.jsonl")
    ids = [name for event in view.of("consumed") for name in event.fields["sample_ids"]]
    assert ids == ["toy-r3", "toy-r2", "toy-r1", "toy-r0"]
    assert view.final("data/toy/kept") == 4
    (table,) = (result.dir / "tables").glob("toy-kept*")
    assert [row["id"] for row in json.loads(table.read_text())] == ["r0", "r1", "r2", "r3"]


def test_a_sampler_turns_fit_into_rounds_that_are_runs_of_their_own(site: Path):
    _toy(site, sources.SAMPLER)
    result = _fit()
    assert result.rounds == 2
    ledger = json.loads((result.dir / "ledger.json").read_text())
    assert ledger["toy"]["samples"] == 4
    for index in (0, 1):
        told = json.loads((result.dir / "rounds" / f"00{index}" / "run.json").read_text())
        assert (
            told["status"] == "FINISHED"
            and told["parent"] == json.loads((result.dir / "run.json").read_text())["id"]
        )


def test_rounds_over_several_processes_are_refused_before_anything_is_written(site: Path):
    _toy(site, sources.SAMPLER)
    with pytest.raises(llmfw.LlmfwError, match=r"ROUNDS-DEVICES.*'toy'"):
        _fit("trainer.devices=2")
    assert not Path("runs").exists()


def test_rounds_keep_their_checkpoints_apart_in_a_folder_of_the_users(site: Path):
    _toy(site, sources.SAMPLER)
    _fit("checkpoint.dir=kept")
    assert sorted(path.name for path in Path("kept").iterdir()) == ["000", "001"]


def test_a_surgery_trains_and_is_saved_under_lora_and_is_required_on_load(site: Path):
    _toy(site, sources.SURGERY)
    result = _fit("adapter.kind=lora", "optimizer.lr=1e-2")
    saved = load_file(result.final / "surgeries.safetensors")["model.norm.toy_shift"]
    fresh = llmfw.fit(*SMALL, "data=rows.jsonl", "adapter.kind=lora", "trainer.max_steps=0", plugins=["toy"])
    start = load_file(fresh.final / "surgeries.safetensors")["model.norm.toy_shift"]
    assert not saved.equal(start)
    answered = llmfw.generate(["hello"], f"model={result.dir}", "tracking.mlflow=false")
    assert len(answered.completions) == 1 and "toy" in " ".join(answered.notes)


def test_a_loss_takes_the_defaults_place_and_reports_its_metrics(site: Path):
    _toy(site, sources.LOSS)
    doubled = _fit()
    plain = llmfw.fit(*SMALL, "data=rows.jsonl")
    assert doubled.first["loss"] == pytest.approx(2 * plain.first["loss"], rel=1e-6)
    assert doubled.first["toy/logp"] == pytest.approx(-plain.first["loss"], rel=1e-6)


def test_a_metric_of_each_stage_is_fed_and_logged(site: Path):
    _toy(site, sources.METRICS)
    result = _fit()
    assert result.first["toy/worst"] > result.first["loss"] / 2
    assert result.validation["toy/worst"] > 0


def test_a_callback_hears_of_every_optimizer_step(site: Path):
    _toy(site, sources.CALLBACKS)
    _fit("trainer.accumulate=2")
    assert _class().steps == 2


def test_a_kv_cache_with_chunked_prefill_gives_the_plain_answers(site: Path):
    _toy(site, sources.KV_CACHE)
    setting = ("model=tiny-llama", "generation.max_new_tokens=6")
    cached = llmfw.generate(["a longer prompt than four"], *setting, plugins=["toy"])
    assert _class().calls > 0 and max(_class().widths) == 4
    plain = llmfw.generate(["a longer prompt than four"], *setting)
    assert cached.completions[0].ids == plain.completions[0].ids


def test_a_decoder_writes_the_answer(site: Path):
    _toy(site, sources.DECODER)
    answered = llmfw.generate(["hello"], "model=tiny-llama", plugins=["toy"])
    assert answered.texts == ["hi"]


def test_a_command_is_a_verb_of_the_command_line(
    site: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    _toy(site, sources.COMMAND, card='[commands]\n"toy-hello" = "Say hello."\n')
    from llmfw.cli import main

    monkeypatch.setattr(sys, "argv", ["llmfw", "toy-hello", "world"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code and capfd.readouterr().out == "hello world\n"


def test_a_need_is_filled_by_the_one_plugin_that_offers_it_and_that_is_said(site: Path):
    _toy(site, sources.SERVICE, "rater", card='offers = ["Rater"]\n')
    _toy(site, sources.CALLBACKS, card='needs = ["Rater"]\n')
    plan = llmfw.plan(*SMALL, "data=rows.jsonl", plugins=["toy"])
    assert [name for name, _ in plan.plugins] == ["toy", "rater"]
    assert "switched on rater" in " ".join(plan.notes)


def test_a_need_that_nobody_fills_stops_the_run(site: Path):
    _toy(site, sources.CALLBACKS, card='needs = ["Nobody"]\n')
    with pytest.raises(llmfw.LlmfwError, match="needs a plugin that offers Nobody"):
        llmfw.plan(*SMALL, "data=rows.jsonl", plugins=["toy"])
