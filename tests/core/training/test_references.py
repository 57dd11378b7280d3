"""Where a training's reference log-probs come from: once for all losses, shared by ranks, in the run's own
arithmetic.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

import llmfw
from llmfw.core.cache import cache_dir
from llmfw.core.errors import UsageError
from llmfw.core.models import FrozenPolicy
from llmfw.core.models.reference_cache import Filled, State
from llmfw.core.models.reference_cache.parts import PATTERN, Part
from llmfw.core.models.reference_cache.policy import CachedPolicy
from llmfw.core.tracking import read_journal
from llmfw.core.training import references

QUIET = (
    "model=tiny-llama", "data=pairs.jsonl", "trainer.progress=false", "tracking.mlflow=false",
    "trainer.max_steps=3", "trainer.micro_batch=2", "trainer.accumulate=1", "data.validation=held.jsonl",
    "trainer.accelerator=cpu", "checkpoint.every=100",
)  # fmt: skip
CACHED = (*QUIET, "trainer.reference=cache")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LLMFW_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    pairs = [
        {"id": f"p{i}", "prompt": f"say {i}", "chosen": f"it is {i}", "rejected": f"no, {i + 1}, I think"}
        for i in range(16)
    ]
    lines = [json.dumps(row) + "\n" for row in pairs]
    Path("pairs.jsonl").write_text("".join(lines[:12]))
    Path("held.jsonl").write_text("".join(lines[12:]))
    return tmp_path


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Counts the reference's forward passes, and the samples in them."""
    found: Counter[str] = Counter()
    logps = FrozenPolicy.logps

    def counted(self: FrozenPolicy, batch: Any) -> torch.Tensor:
        found["passes"] += 1
        found["samples"] += len(batch.sample_ids)
        return logps(self, batch)

    monkeypatch.setattr(FrozenPolicy, "logps", counted)
    return found


def fit(*words: str, plugin: str = "ld_dpo") -> Any:
    return llmfw.fit(*words, f"{plugin}.answers=0", plugins=[plugin])


def entries() -> Counter[bytes]:
    """How many parts hold each entry, over all caches."""
    return Counter(key for path in cache_dir("reference").rglob(PATTERN) for key in Part(path).keys)


@pytest.mark.slow
def test_one_computation_serves_alpha_beta_losses_layouts_and_batch_sizes(passes) -> None:
    """Three steps of two pairs and four held-out pairs are ten samples. Cut at 9 * 4 = 36 bytes of 40 or more
    they are others.
    """
    fit(*CACHED)
    assert passes["samples"] == 10 and set(entries().values()) == {1} and len(entries()) == 10
    first = dict(passes)
    for words in (
        ("ld_dpo.alpha=0.1",),
        ("ld_dpo.beta=0.7",),
        ("trainer.layout=padded",),
        ("trainer.layout=packed",),
        ("trainer.micro_batch=1", "trainer.accumulate=2"),
        ("adapter.kind=lora",),
    ):
        fit(*CACHED, *words)
        assert dict(passes) == first, words
    fit(*CACHED, plugin="dpo")
    assert dict(passes) == first
    fit(*CACHED, "trainer.precision=bf16-mixed")
    assert passes["samples"] == 20 and len(list(cache_dir("reference").iterdir())) == 2
    fit(*CACHED, "data.max_length=9", "data.too_long=cut_end")
    assert passes["samples"] == 30 and len(list(cache_dir("reference").iterdir())) == 2


@pytest.mark.parametrize("words", [(), ("adapter.kind=lora",), ("trainer.precision=bf16-mixed",)], ids=str)
def test_cached_is_as_live_in_the_runs_own_precision_and_layout(words) -> None:
    """At step 1 the policy is its reference, so the loss is ln 2; in another arithmetic it wouldn't be."""
    live, cached = fit(*QUIET, *words), fit(*CACHED, *words)
    close = 2e-3 if words == ("trainer.precision=bf16-mixed",) else 1e-6
    for found in (live, cached):
        assert found.first["loss"] == pytest.approx(0.6931472, abs=close)
    assert cached.last["loss"] == pytest.approx(live.last["loss"], abs=close)
    assert cached.validation["loss"] == pytest.approx(live.validation["loss"], abs=close)


def test_what_it_took_is_written_down_and_no_model_is_kept(capfd) -> None:
    first = fit(*CACHED, "adapter.kind=none")
    told = capfd.readouterr().err
    assert "reference log-probs: computing 10 of 10 samples, once" in told and "tokens/s)" in told
    (event,) = read_journal(first.dir / "journal.jsonl").of("reference")
    assert (event.fields["needed"], event.fields["missing"], event.fields["samples"]) == (10, 10, 10)
    assert event.fields["tokens"] > 100 and event.fields["seconds"] > 0
    part = next(part for part in first.cost.parts if part.name == "reference")
    assert part.seconds == pytest.approx(event.fields["seconds"]) and part.gib == 0
    again = fit(*CACHED, "adapter.kind=none")
    assert "computing" not in capfd.readouterr().err
    assert not read_journal(again.dir / "journal.jsonl").of("reference")
    assert again.last["loss"] == first.last["loss"]


@pytest.mark.slow
def test_two_ranks_share_the_computation_and_train_as_one_process_does(monkeypatch) -> None:
    one = fit(*CACHED, "run.dir=one", "trainer.micro_batch=4")
    before = entries()
    words = [*CACHED, "run.dir=two", "trainer.devices=2", "trainer.strategy=ddp", "ld_dpo.answers=0"]
    env = {**os.environ, "LLMFW_CACHE": str(Path("other").absolute())}
    told = subprocess.run(
        [sys.executable, "-m", "llmfw", "fit", "--plugin", "ld_dpo", *words],
        env=env, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert told.returncode == 0, told.stderr
    monkeypatch.setenv("LLMFW_CACHE", env["LLMFW_CACHE"])
    assert entries() == before and set(before.values()) == {1}
    (event,) = read_journal(Path("two/journal.jsonl")).of("reference")
    assert event.fields["samples"] == event.fields["missing"] == event.fields["needed"] == len(before)
    two = dict(read_journal(Path("two/journal.jsonl")).series["loss"])
    assert two[3] == pytest.approx(one.last["loss"], rel=1e-5)


def test_a_process_that_comes_late_writes_down_what_the_others_computed(monkeypatch) -> None:
    """This process finds the cache full; another found 10 samples missing and computed them in 2 s."""
    fit(*CACHED)
    other = (10, Filled(samples=10, tokens=300, seconds=2.0))
    monkeypatch.setattr(references, "gather_objects", lambda mine: [mine, other])
    late = fit(*CACHED)
    (event,) = read_journal(late.dir / "journal.jsonl").of("reference")
    told = {name: event.fields[name] for name in ("needed", "missing", "samples", "tokens", "seconds")}
    assert told == {"needed": 10, "missing": 10, "samples": 10, "tokens": 300, "seconds": 2.0}


def test_a_reference_of_which_only_log_probs_are_kept_answers_nothing_else() -> None:
    policy = CachedPolicy()
    batch: Any = SimpleNamespace(reference_logps=torch.ones(3))
    assert torch.equal(policy.logps(batch), torch.ones(3)) and policy.module is None
    for ask in (
        lambda: policy.logps(SimpleNamespace(reference_logps=None)),  # type: ignore[arg-type]
        lambda: policy.hidden_states(batch, 0),
        lambda: policy.generate(["x"]),
        lambda: policy.embed(["x"]),
    ):
        with pytest.raises(UsageError, match=r"REFERENCE-CACHED\] trainer.reference: .*reference=auto"):
            ask()


def test_buffers_that_inference_mode_left_become_ordinary_ones() -> None:
    part = nn.Linear(2, 2)
    with torch.inference_mode():
        part.register_buffer("made", torch.ones(2))
    part.register_buffer("kept", kept := torch.ones(2))
    references._thaw(nn.Sequential(part))
    assert not part.made.is_inference() and part.kept is kept
    part.made.add_(1)
    assert part.made.tolist() == [2.0, 2.0]


def test_a_long_filling_says_how_far_it_is_and_how_long_it_will_take(capfd) -> None:
    """5,000 of 20,000 tokens in 100 s are 50 tokens/s; the rest takes 300 s, or 5 min."""
    told = references._Told()
    told(State(samples=1, left=9, tokens=10, tokens_left=90, seconds=1.0))
    told(State(samples=10, left=30, tokens=5_000, tokens_left=15_000, seconds=100.0))
    told(State(samples=11, left=29, tokens=5_500, tokens_left=14_500, seconds=110.0))
    assert capfd.readouterr().err == "reference log-probs: 30 samples left, 50 tokens/s, about 5 min to go\n"
    assert references._time(59) == "59 s" and references._time(2 * 3600 + 300) == "2 h 05 min"
