"""Sweeps that were run: a grid, a search, and the reference cache that they share."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import llmfw
from llmfw.core.errors import LlmfwError
from llmfw.core.sweep.run import sweep
from llmfw.core.tracking import pick_runs
from llmfw.core.tracking.comparison import compare
from tests.tested.recorder import note, note_refusal

SMALL = ("model=tiny-llama", "trainer.max_steps=2", "trainer.progress=false", "tracking.mlflow=false")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty folder with pairs, and a cache of its own."""
    monkeypatch.setenv("LLMFW_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    pairs = [
        {"id": f"p{i}", "prompt": f"say {i}", "chosen": f"it is {i}", "rejected": f"no, {i + 1}, I think"}
        for i in range(12)
    ]
    Path("pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in pairs))


def test_a_grid_over_ld_dpo(capsys: pytest.CaptureFixture[str]):
    command = "llmfw sweep --plugin ld_dpo data=FILE ld_dpo.alpha=0.0,1.0"
    result = sweep([*SMALL, "data=pairs.jsonl", "ld_dpo.alpha=0.0,1.0"], plugins=["ld_dpo"])
    computed = capsys.readouterr().err.count("reference log-probs: computing")
    note("sweep", "reference cache of a grid", command=command,
         measure="times the reference log-probs were computed", value=computed, bound=1)  # fmt: skip
    words = (*SMALL, "data=pairs.jsonl", "trainer.reference=cache", "ld_dpo.alpha=1.0")
    alone = llmfw.fit(*words, plugins=["ld_dpo"])
    difference = abs((result.trials[1].value or 0.0) - alone.validation["loss"])
    note("sweep", "a grid's run", command=command,
         measure="|held-out loss difference| to the same run alone", value=difference, bound=0)  # fmt: skip
    keys = [one.key for one in compare(pick_runs([str(result.dir)])[0], None).settings]
    others = len(set(keys) - {"ld_dpo.alpha"})
    note("sweep", "compare over a sweep", command="llmfw compare SWEEP",
         measure="settings shown beside the swept key", value=others, bound=0)  # fmt: skip


@pytest.mark.parametrize("sampler", ["random", "tpe"])
def test_a_search(sampler):
    words = ["data=pairs.jsonl", "optimizer.lr=log(1e-5..1e-2)"]
    result = sweep([*SMALL, *words], plugins=["dpo"], sampler=sampler, trials=2)
    assert result.best is not None
    options = f"--plugin dpo --sampler {sampler} --trials 2"
    command = f"llmfw sweep {options} 'optimizer.lr=log(1e-5..1e-2)' data=FILE"
    note("sweep", f"a search ({sampler})", command=command, measure="best held-out loss",
         value=result.best.value or 0.0)  # fmt: skip


@pytest.mark.parametrize(
    ("case", "words"),
    [
        ("nothing to sweep", ["seed=1"]),
        ("a range in a grid", ["optimizer.lr=1e-5..1e-4"]),
        ("a mistyped key", ["optimizer.rl=1,2"]),
    ],
)
def test_refusals(case, words):
    with pytest.raises(LlmfwError) as caught:
        sweep([*SMALL, "data=pairs.jsonl", *words], plugins=["dpo"])
    note_refusal("sweep", case, command=f"llmfw sweep {' '.join(words)}", line=str(caught.value))
