"""What each part of a plugin costs, in real runs of a plugin whose parts take known times."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

import llmfw
from llmfw.core import failpoints
from llmfw.core.costs import Part, read_cost
from llmfw.core.tracking import read_journal
from tests.core.costs.toys import SLOW
from tests.toys import installed, write_toy

QUIET = ("model=tiny-llama", "trainer.progress=false", "tracking.mlflow=false", "adapter.kind=none",
         "trainer.micro_batch=2", "data=rows.jsonl")  # fmt: skip


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder with rows of one length, and the slow plugin."""
    monkeypatch.chdir(tmp_path)
    rows = [{"id": f"r{i}", "prompt": f"say {i}", "completion": f"it is {i}"} for i in range(10)]
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    write_toy(tmp_path / "site", "slow", SLOW)
    with installed(tmp_path / "site"):
        yield tmp_path


def by_name(result: llmfw.FitResult) -> dict[str, Part]:
    return {part.name: part for part in result.cost.parts}


def test_every_part_has_its_own_time_and_its_own_bytes():
    """Two micro-batches a step. Loss: 2 x (20 ms forward + 15 ms backward), and exp keeps N float32 numbers
    of a micro-batch. Surgery: Gate sleeps 10 ms in each of 2 forward passes of the policy (those of the
    reference are the reference's) and adds 3 + 5 float32 numbers. Callback: 3 ms in each of its two hooks of
    a step. Metric: 2 x 4 ms update, 4 ms compute, 7 float64 numbers. Reference: Gate's 10 ms in 2 passes.
    """
    result = llmfw.fit(*QUIET, "trainer.max_steps=3", "trainer.accumulate=2", "trainer.reference=copy",
                       plugins=["slow"])  # fmt: skip
    found = by_name(result)
    assert found["loss"].ms >= 70 and found["surgery/gate"].ms >= 20 and found["reference"].ms >= 20
    assert found["callback/Slow"].ms >= 6 and found["metric/toy/counts"].ms >= 12
    # the model's own work is nobody's, and nobody's sleep is counted twice
    step = found["loss"].ms / found["loss"].share
    assert sum(part.ms for part in found.values() if part.ms) < step + found["callback/Slow"].ms
    assert found["surgery/gate"].gib * 2**30 == (3 + 5) * 4
    assert found["metric/toy/counts"].gib * 2**30 == 7 * 8
    # "it is 3" is seven bytes and the end of the turn; two rows a micro-batch
    trained = {event.fields["step"] for event in read_journal(result.dir / "journal.jsonl").of("costs")}
    assert trained == {2, 3} and found["loss"].samples == 2
    assert found["loss"].gib * 2**30 == 4 * 2 * _trained_tokens(result)


def _trained_tokens(result: llmfw.FitResult) -> int:
    """Of one row, as the report on the data has them; all rows are alike."""
    (event,) = read_journal(result.dir / "journal.jsonl").of("data")
    report = event.fields["report"]
    tokens = {split["trained"] / split["samples"] for split in report["splits"].values()}
    assert len(tokens) == 1
    return int(tokens.pop())


def test_what_is_done_now_and_then_is_told_in_seconds_of_the_run():
    """The callback's on_train_start 30 ms, the transform 20 ms, the service 20 ms inside the evaluation, the
    metric at the one validation: two updates and a compute, 4 ms each.
    """
    result = llmfw.fit(*QUIET, "trainer.max_steps=2", "data.validation=0.3", plugins=["slow"])
    found = by_name(result)
    assert found["callback/Slow"].seconds >= 0.03 and found["transform/keep"].seconds >= 0.02
    assert found["evaluation/rate"].seconds >= found["service/Rater/length"].seconds >= 0.02
    assert found["metric/toy/counts"].seconds >= 0.012


def test_costs_are_in_the_folder_and_in_the_journal_and_no_training_metrics():
    result = llmfw.fit(*QUIET, "trainer.max_steps=3", plugins=["slow"])
    assert read_cost(result.dir) == result.cost
    journal = read_journal(result.dir / "journal.jsonl")
    own = {name: value for name, value in by_name(result).items() if value.ms is not None}
    for name, part in own.items():
        assert journal.final(f"plugin/slow/{name}/ms") == part.ms
    assert journal.final("plugin/slow/ms") == pytest.approx(sum(part.ms for part in own.values()))
    assert journal.final("plugin/slow/gib") == pytest.approx(sum(p.gib or 0.0 for p in own.values()))
    assert journal.final("cost/tokens") == result.cost.tokens == result.last["tokens"]
    assert result.cost.seconds > result.cost.train_seconds > 0.2
    assert not [name for name in result.last if name.startswith(("plugin/", "cost/"))]


@pytest.mark.parametrize(
    ("plugins", "precision"), [(["slow"], "32-true"), (["slow"], "bf16-mixed"), ([], "32-true")]
)
def test_measuring_changes_no_number(plugins: list[str], precision: str, monkeypatch: pytest.MonkeyPatch):
    """The same run with every step measured and with none: losses, weights, held-out values, bit for bit."""
    from safetensors.torch import load_file

    from llmfw.core.training import measuring

    words = (*QUIET, "trainer.max_steps=4", "trainer.accumulate=2", "data.validation=0.3")
    words = (*(word for word in words if not word.startswith("adapter")), "adapter.kind=lora",
             "adapter.dropout=0.1", f"trainer.precision={precision}")  # fmt: skip
    runs = []
    for steps in (frozenset({1, 2, 3, 4}), frozenset[int]()):
        monkeypatch.setattr(measuring, "sampled_steps", lambda *_, steps=steps: steps)
        runs.append(llmfw.fit(*words, f"run.dir=run-{len(steps)}", plugins=plugins))
    views = [read_journal(run.dir / "journal.jsonl") for run in runs]
    assert views[0].digest() == views[1].digest() and len(views[0].series["loss"]) == 4
    assert [len(view.of("costs")) for view in views] == [4 if plugins else 0, 0]
    weights = [{file.name: load_file(file) for file in run.final.glob("*.safetensors")} for run in runs]
    assert weights[0].keys() == weights[1].keys() != set()
    for file, tensors in weights[0].items():
        assert all(value.equal(weights[1][file][name]) for name, value in tensors.items())


def test_without_a_plugin_nothing_is_measured_but_the_run_as_a_whole():
    result = llmfw.fit(*QUIET, "trainer.max_steps=3")
    assert result.cost.parts == () and result.cost.tokens > 0
    journal = read_journal(result.dir / "journal.jsonl")
    assert not journal.of("costs") and not [name for name in journal.series if name.startswith("plugin/")]


def test_a_resumed_run_goes_on_with_the_samples_that_count(monkeypatch: pytest.MonkeyPatch):
    """Stopped at the checkpoint of step 6, gone on from that of step 4: what was measured at 5 is measured
    again, what was measured before stays; tokens and seconds are those of the steps that count.
    """
    words = (*QUIET, "trainer.max_steps=8", "checkpoint.every=2", "run.dir=run")
    monkeypatch.setattr(failpoints, "_reached", Counter())
    monkeypatch.setenv("LLMFW_FAILPOINT", "ckpt.before_write:3:raise")
    with pytest.raises(failpoints.Failpoint):
        llmfw.fit(*words, plugins=["slow"])
    monkeypatch.delenv("LLMFW_FAILPOINT")
    shutil.rmtree("run/checkpoints/step-00000006")  # written once the failure was known
    result = llmfw.fit(*words, plugins=["slow"], resume="must")
    journal = read_journal(result.dir / "journal.jsonl")
    assert [event.fields["step"] for event in journal.of("costs")] == [2, 3, 4, 5, 6, 7, 8]
    assert [event.fields["step"] for event in journal.events if event.undone and event.kind == "costs"] == [5]
    assert by_name(result)["loss"].samples == 7
    whole = llmfw.fit(*words[:-1], "run.dir=whole", plugins=["slow"])
    assert result.cost.tokens == whole.cost.tokens > 0
    assert result.cost.train_seconds == pytest.approx(sum(
        value for _, value in journal.series["time/step_seconds"]), rel=1e-6)  # fmt: skip


def test_rounds_add_up():
    from tests.toys.sources import SAMPLER

    write_toy(Path("site"), "rounds", SAMPLER)
    llmfw.core.discovery.forget()
    result = llmfw.fit(*QUIET, "trainer.max_steps=2", "data.validation=0.2",
                       plugins=["rounds", "slow"])  # fmt: skip
    assert result.rounds == 2
    each = [read_journal(path) for path in sorted(result.dir.glob("rounds/*/journal.jsonl"))]
    tokens = [view.of("trained")[-1].fields["tokens"] for view in each]
    assert len(tokens) == 2 and result.cost.tokens == sum(tokens) > 0
    found = by_name(result)
    assert found["sampler/toy"].seconds > 0 and found["loss"].samples == 2 and found["loss"].ms >= 35
    assert read_journal(result.dir / "journal.jsonl").final("plugin/slow/loss/ms") == found["loss"].ms
