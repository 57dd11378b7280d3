"""How often a step makes the host wait for the device: once, for everything that it reads."""

from __future__ import annotations

import json
from typing import Any

import pytest

from llmfw.testing.runner import Runner

WAYS = {
    "supervised": ("completion", ()),
    "dpo": ("preference", ("--plugin", "dpo", "dpo.answers=0", "trainer.reference=auto")),
    "ld_dpo": ("preference", ("--plugin", "ld_dpo", "ld_dpo.answers=0", "trainer.reference=auto")),
}


def _waits(runner: Runner, rows_file: Any, way: str, *words: str) -> list[dict[str, Any]]:
    form, switched = WAYS[way]
    words = (*switched, f"data={rows_file(form)}", "trainer.accumulate=3", "trainer.log_every=1", *words)
    told = json.loads(runner("profile", *words, "--steps=1", "--warmup=1", "--json").assert_ok().output)
    found: list[dict[str, Any]] = told["waits_at"]
    assert told["waits"] == sum(one["times"] for one in found)
    return found


@pytest.mark.parametrize("way", WAYS)
def test_a_step_of_three_micro_batches_reads_once_from_the_device(
    runner: Runner, rows_file: Any, way: str
) -> None:
    """Loss, norm, tokens and every metric in one row, also on a step whose values are logged."""
    ours = [one for one in _waits(runner, rows_file, way) if one["at"].startswith("llmfw/")]
    (one,) = ours
    assert (one["what"], one["times"], one["phase"]) == ("tolist", 1, "clip and checks")


@pytest.mark.parametrize("way", WAYS)
def test_padded_rows_are_read_once_or_twice_a_pass_by_the_models_library(
    runner: Runner, rows_file: Any, way: str
) -> None:
    """transformers looks whether a mask has padding, and once more where it has; three micro-batches, and for
    pairs as many passes of the reference.
    """
    told = _waits(runner, rows_file, way, "trainer.layout=padded")
    others = [one for one in told if not one["at"].startswith("llmfw/")]
    passes = 3 if way == "supervised" else 6
    assert {one["at"].partition(":")[0] for one in others} == {"transformers/masking_utils.py"}
    assert passes <= sum(one["times"] for one in others) <= 2 * passes


def test_the_count_sees_a_metric_that_reads_a_number(
    runner: Runner, rows_file: Any, installed_plugin: Any
) -> None:
    """The negative control: three micro-batches, three reads more."""
    installed_plugin("reads", READS, files={"loss.py": LOSS})
    form, _ = WAYS["supervised"]
    words = ("--plugin", "reads", f"data={rows_file(form)}", "trainer.accumulate=3", "--steps=1", "--json")
    told = json.loads(runner("profile", *words).assert_ok().output)
    own = {one["what"]: one["times"] for one in told["waits_at"] if one["at"].startswith("toy_reads/loss.py")}
    assert own == {"item": 3, "nonzero": 3, "tensor: host to device": 3, "index by truth values": 3}


READS = """
import llmfw
from llmfw import Plugin, hookimpl

class Toy(Plugin):
    @hookimpl
    def llmfw_loss(self, run, tokenizer, model_config):
        from .loss import call
        return llmfw.Loss(name="reads", call=call, batch_kind="text", unit="tokens")
"""
LOSS = """
import torch
from llmfw import LossOutput

def call(policy, batch, reference):
    logps = policy.logps(batch)
    worst = logps.detach().min().item()
    logps.detach().nonzero()
    scale = torch.tensor(1.0, device=logps.device)
    some = logps[logps > worst - 1]
    return LossOutput(total=-(some * scale).sum())
"""
