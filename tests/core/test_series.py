"""A run of runs: children that are trained once, gone on with after a stop, and read back."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import lightning.pytorch as L
import pytest

import llmfw
from llmfw.core.assemble import settle
from llmfw.core.errors import CheckpointError, Interrupted
from llmfw.core.fit import result_of
from llmfw.core.schema import TrackingConfig
from llmfw.core.series import children_of, figures_of, open_series, reference_words, run_child
from llmfw.core.tracking import read_record
from tests.toys import installed, write_toy
from tests.toys.preference import PREFERENCE
from tests.toys.sources import LOSS, SAMPLER, SERVICE

SMALL = ("model=tiny-llama", "trainer.max_steps=2", "trainer.progress=false", "tracking.mlflow=false",
         "data=rows.jsonl")  # fmt: skip
OFF = TrackingConfig(mlflow=False)


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder with rows, and a cache of its own."""
    monkeypatch.setenv("LLMFW_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    rows = [{"id": f"r{i}", "prompt": f"say {i}", "completion": f"it is {i}"} for i in range(20)]
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


def children(parent: Any, rates: tuple[str, ...], told: list[str] | None = None) -> list[Any]:
    found = []
    for rate in rates:

        def settled(*words: str, rate: str = rate) -> Any:
            if told is not None:
                told.append(rate)
            return settle(overrides=[*SMALL, f"optimizer.lr={rate}", *words])

        found.append(run_child(parent, f"children/{rate}", settled))
    return found


def opened(**more: Any) -> Any:
    return open_series(verb="sweep", name="few", fingerprint="f" * 64, tracking=OFF, **more)


@contextmanager
def stopped() -> Iterator[Any]:
    """A parent that ends in a failure once the block has been carried out."""
    with suppress(ValueError), opened() as parent:
        yield parent
        raise ValueError


def test_children_are_nested_and_noted_as_each_ends():
    with opened() as parent:
        first, second = children(parent, ("1e-3", "1e-2"))
        assert [entry["place"] for entry in children_of(parent.dir)] == ["children/1e-3", "children/1e-2"]
    assert read_record(parent.dir).status == "FINISHED"
    assert {read_record(child.dir).parent for child in (first, second)} == {parent.id}
    by_hand = llmfw.fit(*SMALL, "optimizer.lr=1e-2")
    assert second.result.validation == by_hand.validation


def test_a_finished_child_is_read_back_and_not_trained_again():
    told: list[str] = []
    with stopped() as parent:
        (first,) = children(parent, ("1e-3",), told)
    with opened(resume=True) as again:
        assert again.dir == parent.dir
        (read,) = children(again, ("1e-3",), told)
    assert told == ["1e-3"]
    assert figures_of(read.result) == figures_of(first.result)
    assert read.result.before == first.result.before
    assert read.result == first.result


class _Kick(L.Callback):
    """SIGTERM once, in the second step of the second child."""

    done = False

    def on_train_batch_start(self, trainer: Any, *_: Any) -> None:
        if trainer.default_root_dir.endswith("1e-2") and trainer.global_step == 1 and not _Kick.done:
            _Kick.done = True
            os.kill(os.getpid(), signal.SIGTERM)


def test_a_stop_within_a_child_is_gone_on_with_there(monkeypatch):
    from llmfw.core.training import train

    with opened() as whole:
        wanted = children(whole, ("1e-3", "1e-2"))
    callbacks = train._callbacks
    monkeypatch.setattr(train, "_callbacks", lambda *given: [_Kick(), *callbacks(*given)])
    with pytest.raises(Interrupted), opened() as parent:
        children(parent, ("1e-3", "1e-2"))
    assert read_record(parent.dir).status == "KILLED"
    with opened(resume=True) as again:
        found = children(again, ("1e-3", "1e-2"))
    assert [child.result.validation for child in found] == [child.result.validation for child in wanted]


def test_a_failure_is_noted_with_its_line_and_tried_again_when_resumed():
    with stopped() as parent:
        child = run_child(parent, "a", lambda *words: settle(overrides=[*SMALL, "data=none.jsonl", *words]))
        assert child.result is None
        assert "none.jsonl" in child.error
    assert children_of(parent.dir)[0]["status"] == "FAILED"
    with opened(resume=True) as again:
        child = run_child(again, "a", lambda *words: settle(overrides=[*SMALL, *words]))
    assert [entry["status"] for entry in children_of(parent.dir)] == ["FINISHED"]
    with pytest.raises(CheckpointError, match="no unfinished sweep"), opened(resume=True):
        pass


def test_a_result_read_from_its_folder_has_evaluations_and_rounds_too(tmp_path):
    write_toy(tmp_path / "site", "service", SERVICE)
    write_toy(tmp_path / "site", "sampler", SAMPLER)
    with installed(tmp_path / "site"):
        result = llmfw.fit(*SMALL, plugins=["service"])
        assert "toy/rating" in result.after
        assert result_of(result.dir) == result
        rounds = llmfw.fit(*SMALL, plugins=["sampler"])
        assert rounds.rounds == 2
        assert result_of(rounds.dir) == rounds


def test_estimates_are_put_together_again(tmp_path):
    source = """
    import llmfw
    class Toy(llmfw.Plugin):
        @llmfw.hookimpl
        def llmfw_evaluations(self, run):
            def rate(policy, services):
                value = llmfw.Estimate(value=0.5, low=0.25, high=0.75, n=4)
                return llmfw.EvaluationResult(metrics={"toy/share": value, "toy/plain": 2.0})
            return [llmfw.Evaluation(name="toy", run=rate)]
    """
    write_toy(tmp_path / "site", "estimates", source)
    with installed(tmp_path / "site"):
        result = llmfw.fit(*SMALL, plugins=["estimates"])
    assert result_of(result.dir).after == result.after
    assert set(result.after) == {"toy/share", "toy/plain"}


def test_runs_share_their_references_log_probs_unless_somebody_chose(tmp_path):
    """A loss that wants none gets none; a file's word and the command line's hold."""
    rows = [{"id": f"p{i}", "prompt": "say", "chosen": "yes", "rejected": f"no {i}"} for i in range(4)]
    Path("pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    Path("own.yaml").write_text("trainer: {reference: copy}\n")
    write_toy(tmp_path / "site", "pref", PREFERENCE)
    write_toy(tmp_path / "site", "told", PREFERENCE, overlay="trainer: {reference: cache}\n")
    write_toy(tmp_path / "site", "heavy", LOSS)

    def words(plugin: str, *more: str, **layers: Any) -> tuple[list[str], list[str]]:
        data = "rows.jsonl" if plugin == "heavy" else "pairs.jsonl"
        chosen = [*SMALL[:-1], f"data={data}", *more]
        return reference_words(settle(plugins=(plugin,), overrides=chosen, **layers))

    with installed(tmp_path / "site"):
        added, (note,) = words("pref")
        assert added == ["trainer.reference=cache"] and note.startswith("trainer.reference=cache: one")
        assert words("pref", "trainer.reference=copy") == ([], [])
        assert words("pref", files=[Path("own.yaml")]) == ([], [])
        assert words("told") == words("heavy") == ([], [])
