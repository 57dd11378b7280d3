"""``llmfw sweep``: what it prints, as a table and as json."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from llmfw.core.errors import UsageError
from llmfw.verbs import sweep


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.chdir(tmp_path)
    rows = [{"prompt": f"{n}+1", "completion": f"the sum is {n + 1}"} for n in range(12)]
    Path("rows.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return ["model=tiny-llama", "data=rows.jsonl", "trainer.max_steps=1", "tracking.mlflow=false"]


def said(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    sweep.command.main(arguments, standalone_mode=False)
    return capsys.readouterr().out


def test_the_table_has_the_best_first_and_the_next_commands(settings, capsys):
    out = said([*settings, "optimizer.lr=1e-6,1e-1"], capsys)
    rows = [line for line in out.splitlines() if line.lstrip().startswith("00")]
    assert [row.split()[0] for row in rows] == ["001", "000"]
    (folder,) = Path("runs").glob("*-sweep-fit")
    assert f"llmfw compare {folder}" in out
    assert f"llmfw evaluate model={folder / 'trials' / '001'}" in out


def test_json_has_every_trial(settings, capsys):
    found = json.loads(said([*settings, "seed=1,2", "--json"], capsys))
    assert [trial["settings"] for trial in found["trials"]] == [{"seed": "1"}, {"seed": "2"}]
    assert found["best"] in found["trials"]
    assert found["metric"] == "validation/loss"


def test_a_mistyped_word_is_told_before_anything_is_loaded(capsys):
    with pytest.raises(UsageError, match="no range"):
        sweep.command.main(["optimizer.lr=3..1"], standalone_mode=False)
