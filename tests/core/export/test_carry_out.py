"""Exports of runs whose surroundings have changed: data gone, plugin gone, run still going on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import llmfw
from llmfw.core.tracking import read_journal
from llmfw.core.tracking.files import try_lock, unlock
from tests.toys import installed, sources, write_toy

SMALL = ("model=tiny-llama", "data=rows.jsonl", "trainer.max_steps=1", "tracking.mlflow=false",
         "trainer.progress=false", "run.dir=run")  # fmt: skip


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    rows = [{"id": f"r{i}", "prompt": f"say {i}", "completion": f"it is {i}"} for i in range(10)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_run_whose_data_are_gone_is_compared_on_fixed_texts_and_that_is_said(here: Path):
    llmfw.fit(*SMALL)
    (here / "rows.jsonl").unlink()
    result = llmfw.export("run", "out")
    assert (result.difference, result.asked, result.prompts) == (0.0, "fixed texts", 4)
    assert any("fixed texts are compared" in line for line in result.notes)


def test_a_run_whose_loss_came_from_a_plugin_that_is_gone_is_exported_all_the_same(here: Path):
    (here / "site").mkdir()
    write_toy(here / "site", "toy", sources.LOSS)
    with installed(here / "site"):
        llmfw.fit(*SMALL, plugins=["toy"])
    result = llmfw.export("run", "out")
    assert result.difference == 0.0 and any("PLUGIN-UNKNOWN" in line for line in result.notes)
    assert "Plugin `toy` (toy-toy 1.0)" in (here / "out" / "README.md").read_text()


def test_the_journal_of_a_run_that_goes_on_is_not_touched(here: Path):
    llmfw.fit(*SMALL)
    journal = here / "run" / "journal.jsonl"
    before, numbers = journal.read_bytes(), read_journal(journal).digest()
    lock = try_lock(here / "run" / ".lock")
    assert lock is not None
    try:
        llmfw.export("run", "first")
    finally:
        unlock(lock)
    assert journal.read_bytes() == before
    llmfw.export("run", "second")
    (event,) = read_journal(journal).of("exported")
    assert (event.fields["folder"], event.fields["difference"]) == ("second", 0.0)
    assert read_journal(journal).digest() == numbers


def test_an_interrupted_export_leaves_nothing(here: Path, monkeypatch: pytest.MonkeyPatch):
    from llmfw.core.export import carry_out

    def interrupted(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(carry_out, "describe", interrupted)
    with pytest.raises(KeyboardInterrupt):
        llmfw.export("tiny-llama", "out")
    assert [path.name for path in here.iterdir()] == ["rows.jsonl"]


def test_the_record_holds_the_hash_of_every_file(here: Path):
    from llmfw.core.checkpoint.manifest import file_digest

    result = llmfw.export("tiny-llama", "out")
    record = json.loads((here / "out" / "llmfw-export.json").read_text())
    assert set(record["files"]) == set(result.files) - {"llmfw-export.json"}
    for name, told in record["files"].items():
        assert file_digest(here / "out" / name) == (told["sha256"], told["bytes"])
    assert record["check"]["difference"] == 0.0 and str(here) not in json.dumps(record)
