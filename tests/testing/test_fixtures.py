"""The fixtures that plugin authors opt into."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from llmfw.core.batch import Batch
from llmfw.core.errors import ConflictError
from llmfw.testing.models import PRESETS, tiny_model
from llmfw.testing.pairs import tiny_llama as narrow_llama
from llmfw.testing.runner import Runner
from llmfw.testing.store import Store

PLUGIN = """
from dataclasses import dataclass, field
import llmfw

class Toy(llmfw.Plugin):
    @dataclass
    class Config:
        scale: float = field(default=2.0, metadata={"help": "the loss is multiplied by it"})

    @llmfw.hookimpl
    def llmfw_loss(self, run, tokenizer, model_config):
        def call(policy, batch, reference):
            return llmfw.LossOutput(total=-self.config.scale * policy.logps(batch).sum())
        return llmfw.Loss(name="scaled", call=call, batch_kind="text", unit="tokens")
"""


def batch_losses(model: Any, batch: Batch) -> torch.Tensor:
    """Minus log-probs of the trained tokens [N], by the model's own forward."""
    if batch.attention_mask.dim() == 4:
        mask = torch.zeros(batch.attention_mask.shape).masked_fill(~batch.attention_mask, -torch.inf)
        mask[mask.isinf().all(-1)] = 0.0
    else:
        mask = batch.attention_mask
    logits = model(
        input_ids=batch.input_ids, attention_mask=mask, position_ids=batch.position_ids, use_cache=False
    ).logits.flatten(0, 1)
    return -logits[batch.source].log_softmax(-1).gather(-1, batch.target[:, None])[:, 0]


@pytest.mark.parametrize("kind", ["text", "scored", "preference"])
def test_a_batch_means_the_same_in_every_layout(
    kind: str,
    text_batch: Callable[..., Batch],
    scored_batch: Callable[..., Batch],
    preference_batch: Callable[..., Batch],
):
    make = {"text": text_batch, "scored": scored_batch, "preference": preference_batch}[kind]
    model = narrow_llama()
    first = make("right")
    wanted = batch_losses(model, first)
    assert first.kind == kind and len(wanted) == first.tokens and len(first.sample_ids) == 3
    for layout in ("left", "packed", *(["shared_prompt"] if kind == "preference" else [])):
        other = make(layout)
        assert torch.equal(other.target, first.target) and torch.equal(other.segment, first.segment)
        assert torch.allclose(batch_losses(model, other), wanted, atol=1e-5), layout


def test_a_scored_batch_carries_a_reward_a_sample(scored_batch: Callable[..., Batch]):
    assert scored_batch().extra["reward"].tolist() == [0.0, 0.5, 1.0]


@pytest.mark.parametrize("preset", PRESETS)
def test_a_tiny_model_is_the_same_each_time_and_draws_nothing_global(preset: str):
    before = torch.get_rng_state()
    one, two, other = tiny_model(preset), tiny_model(preset), tiny_model(preset, seed=1)
    assert torch.equal(torch.get_rng_state(), before)
    ids = torch.tensor([[72, 105, 33]])
    assert torch.equal(one(ids).logits, two(ids).logits)
    assert not torch.equal(one(ids).logits, other(ids).logits)
    assert one(ids).logits.shape == (1, 3, 261) and sum(p.numel() for p in one.parameters()) < 200_000


def test_tiny_models_come_as_fixtures(tiny_llama, tiny_mixtral, tiny_mamba, byte_tokenizer):
    types = [model.config.model_type for model in (tiny_llama, tiny_mixtral, tiny_mamba)]
    assert types == ["llama", "mixtral", "mamba"]
    assert byte_tokenizer("Hi")["input_ids"] == [72, 105]


@pytest.mark.parametrize("preset", PRESETS)
def test_a_tiny_model_trains_and_answers_by_its_name(preset: str, runner: Runner, rows_file):
    result = runner("fit", f"data={rows_file()}", f"model={preset}", "trainer.max_steps=2").assert_ok()
    assert len(result.losses) == 2 and result.run is not None
    told = runner("generate", "1 + 1?", f"model={result.run}").assert_ok()
    assert told.run is None and told.losses == []


def test_a_result_tells_losses_plan_and_artifacts(runner: Runner, rows_file, installed_plugin):
    """The toy doubles the loss of the first step, which is the same model's over the same rows."""
    installed_plugin("scaled", PLUGIN)
    rows = f"data={rows_file()}"
    plain, doubled = runner("fit", rows).assert_ok(), runner("fit", "--plugin", "scaled", rows).assert_ok()
    assert len(plain.losses) == len(doubled.losses) == 3
    assert doubled.losses[0] == pytest.approx(2 * plain.losses[0], rel=1e-6)
    assert plain.series("grad_norm") and plain.series("nothing") == []
    assert doubled.plan["answers"]["llmfw_loss"][0]["plugin"] == "scaled"
    assert {"journal.jsonl", "final/model.safetensors"} <= doubled.artifacts.keys()
    planned = runner("plan", "--plugin", "scaled", rows, "--json").assert_ok()
    assert planned.plan["answers"] == doubled.plan["answers"] and planned.artifacts == {}


def test_a_failure_is_asserted_by_code_and_words(runner: Runner, rows_file):
    failed = runner("fit", f"data={rows_file()}", "optimizer.lrr=1")
    failed.assert_failed("did you mean optimizer.lr", code="CONFIG-KEY").assert_failed(code=2)
    for wrong in ({"match": "something else"}, {"code": "DATA"}, {"code": 3}):
        with pytest.raises(AssertionError):
            failed.assert_failed(**wrong)
    with pytest.raises(AssertionError, match="exit code 2 of llmfw fit"):
        failed.assert_ok()
    with pytest.raises(AssertionError, match="ended well"):
        runner("plugins").assert_ok().assert_failed()


def test_a_process_of_its_own_says_the_same(runner: Runner):
    done = runner.process("plugins", "show", "nobody").assert_failed(
        "no plugin 'nobody'", code="PLUGIN-UNKNOWN"
    )
    assert done.error == runner("plugins", "show", "nobody").error


def test_the_words_of_a_call_stand_above_the_runners_settings(runner: Runner, rows_file):
    done = runner("plan", f"data={rows_file()}", "trainer.max_steps=7", "--json").assert_ok()
    assert done.plan["settings"]["trainer.max_steps"] == 7


def test_an_installed_plugin_is_gone_after_the_test(tmp_path: Path):
    from llmfw.core import discovery

    assert "scaled" not in discovery.cards()


def test_a_manager_knows_only_what_it_is_given(isolated_manager: Any):
    import llmfw

    class One(llmfw.Plugin):
        @llmfw.hookimpl
        def llmfw_sampler(self, run):
            return llmfw.RolloutSampler(name="one", next=lambda *_: None)

    class Two(One):
        pass

    answer = isolated_manager(One(None)).one("llmfw_sampler", run=None)
    assert (answer.plugin, answer.value.name) == ("one", "one")
    with pytest.raises(ConflictError, match="'one'.*'two'"):
        isolated_manager(One(None), Two(None)).one("llmfw_sampler", run=None)


def test_the_store_tells_a_runs_parameters_metrics_and_files(runner: Runner, mlflow_store: Store, rows_file):
    done = runner(
        "fit",
        f"data={rows_file()}",
        "tracking.mlflow=true",
        f"tracking.uri={mlflow_store.uri}",
        "run.name=mine",
    ).assert_ok()
    (run,) = mlflow_store.runs()
    assert (run.name, run.status, run.parent) == ("mine", "FINISHED", None)
    assert run.params["trainer.max_steps"] == "3" and run.metrics["loss"] == pytest.approx(done.losses[-1])
    assert [value for _, value in mlflow_store.history(run.id, "loss")] == pytest.approx(done.losses)
    assert mlflow_store.artifacts(run.id)
