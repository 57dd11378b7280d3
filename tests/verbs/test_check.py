"""``llmfw check loss``: a sum over units passes, a mean of a micro-batch and a wrong sign don't."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from llmfw.testing.runner import Runner

PAIRS = ("--plugin", "dpo", "dpo.answers=0", "trainer.reference=auto")
PLUGIN = """
from llmfw import Loss, LossOutput, Plugin, hookimpl


def call(policy, batch, reference):
    logps = policy.logps(batch)
    {body}


class Toy(Plugin):
    @hookimpl
    def llmfw_loss(self, run, tokenizer, model_config):
        return Loss(name="mine", call=call, batch_kind="{kind}", unit="{unit}")
"""
SUMS = "return LossOutput(total=-logps.sum())"
MEANS = "return LossOutput(total=-logps.mean())"
MARGIN = """import torch
    found = torch.zeros(batch.segments, dtype=logps.dtype).index_add(0, batch.segment, logps)
    chosen, rejected = found.chunk(2)
    return LossOutput(total={sign}torch.nn.functional.logsigmoid(chosen - rejected).sum())"""


@pytest.mark.parametrize(
    "more", [(), ("adapter.kind=lora", "adapter.dropout=0.2"), ("trainer.layout=padded",)]
)
def test_dpo_has_one_gradient_however_its_pairs_are_dealt_out_and_it_raises_the_margin(
    runner: Runner, rows_file: Any, more: tuple[str, ...]
) -> None:
    data = rows_file("preference")
    words = (*PAIRS, f"data={data}", "trainer.micro_batch=2", "trainer.accumulate=2", *more)
    told = json.loads(runner("check", "loss", *words, "--json").assert_ok().output)
    ways = {way["what"]: way for way in told["ways"]}
    assert {"sample by sample", "all samples at once", "two processes' shares, summed up"} <= ways.keys()
    assert ("padded rows" in ways) == (more != ("trainer.layout=padded",))
    assert told["dtype"] == "float64" and told["margin"] > 0 and len(told["samples"]) == 4
    assert all(way["held"] and way["gradient"] < 1e-6 and way["apart"] < 1e-6 for way in ways.values()), ways


def test_supervised_training_has_one_gradient_and_no_margin(runner: Runner, rows_file: Any) -> None:
    done = runner("check", "loss", f"data={rows_file()}", "trainer.accumulate=3").assert_ok()
    assert "margin" not in done.output and "same" in done.output and "DIFFERS" not in done.output


def plugin(
    installed_plugin: Callable[..., Any], body: str, *, kind: str = "text", unit: str = "tokens"
) -> None:
    installed_plugin("mine", PLUGIN.format(body=body, kind=kind, unit=unit))


def test_a_sum_over_tokens_passes_and_a_mean_of_a_micro_batch_is_exit_code_seven(
    runner: Runner, rows_file: Any, installed_plugin: Callable[..., Any]
) -> None:
    words = ("--plugin", "mine", f"data={rows_file()}", "trainer.micro_batch=2", "trainer.accumulate=2")
    plugin(installed_plugin, MEANS)
    failed = runner("check", "loss", *words).assert_failed("sample by sample", code=7)
    assert failed.error is not None and "LOSS-DEALT" in failed.error and "DIFFERS" in failed.output


def test_a_sum_over_tokens_of_a_plugins_own_passes(
    runner: Runner, rows_file: Any, installed_plugin: Callable[..., Any]
) -> None:
    plugin(installed_plugin, SUMS)
    runner("check", "loss", "--plugin", "mine", f"data={rows_file()}", "trainer.accumulate=2").assert_ok()


@pytest.mark.parametrize("sign", ["-", ""], ids=["right", "wrong"])
def test_a_preference_loss_with_the_wrong_sign_is_found_by_its_margin(
    runner: Runner, rows_file: Any, installed_plugin: Callable[..., Any], sign: str
) -> None:
    """At its start the loss of both signs is ln 2 a pair: its value tells nothing."""
    plugin(installed_plugin, MARGIN.format(sign=sign), kind="preference", unit="pairs")
    done = runner(
        "check", "loss", "--plugin", "mine", f"data={rows_file('preference')}", "trainer.accumulate=2"
    )
    if sign:
        assert "rises" in done.assert_ok().output
    else:
        done.assert_failed("margin", code="LOSS-MARGIN")


@pytest.mark.slow
def test_two_real_processes_have_the_loss_and_the_gradient_of_one(runner: Runner, rows_file: Any) -> None:
    words = (*PAIRS, f"data={rows_file('preference')}", "trainer.micro_batch=2")
    told = json.loads(runner("check", "loss", *words, "--processes", "--json").assert_ok().output)
    last = told["ways"][-1]
    assert last["what"].startswith("two processes (DDP)") and last["held"] and last["gradient"] < 1e-5


def test_rounds_are_refused_as_they_make_their_own_data(
    runner: Runner, rows_file: Any, installed_plugin: Callable[..., Any]
) -> None:
    from tests.verbs.test_profile import SAMPLER

    installed_plugin("rounds", SAMPLER)
    runner("check", "loss", "--plugin", "rounds", f"data={rows_file()}").assert_failed(code="ONLY-IN-ROUNDS")
