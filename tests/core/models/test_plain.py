"""Comparing what two models say, and loading folders without llmfw."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from llmfw.core.errors import CheckpointError
from llmfw.core.models import build_model
from llmfw.core.models.plain import (
    NEW_TOKENS,
    Answers,
    ask,
    compare,
    digest,
    load_plain,
    load_plain_adapter,
    rounding_bound,
)

PROMPTS = [[5, 9, 2], [7]]


def _answers(*rows: list[float], tokens: list[int] | None = None) -> Answers:
    return Answers(logits=[torch.tensor([row]) for row in rows], tokens=[tokens or [1] for _ in rows])


def test_the_largest_difference_over_all_prompts_counts():
    """|1 - 1.5| = 0.5 in the first prompt, |-2 - -2.25| = 0.25 in the second; two positions."""
    found = compare(_answers([1.0, 0.0], [-2.0, 1.0]), _answers([1.5, 0.0], [-2.25, 1.0]), 0.5)
    assert (found.difference, found.positions, found.prompts, found.tokens_equal) == (0.5, 2, 2, True)
    assert found.holds
    assert not compare(_answers([1.0]), _answers([1.5]), 0.25).holds
    assert compare(_answers([1.0]), _answers([9.0]), None).holds


def test_no_number_and_another_shape_never_hold():
    lost = compare(_answers([1.0]), _answers([math.nan]), None)
    assert math.isnan(lost.difference) and not lost.holds
    other = compare(_answers([1.0, 2.0]), _answers([1.0]), 1e9)
    assert other.difference == math.inf and not other.holds


def test_other_tokens_are_told():
    assert not compare(_answers([1.0]), _answers([1.0], tokens=[2]), 0.0).tokens_equal


def test_the_bound_of_a_dtype_grows_with_the_logits():
    """0.25 of the largest logit, 3."""
    assert rounding_bound("bfloat16", _answers([1.0, -3.0]).scale) == 0.75


def test_a_digest_sees_one_bit_and_leaves_out_what_it_is_told_to(tiny):
    module = build_model(tiny(), train=False).module
    before = digest(module, "float32")
    assert digest(module, "float32") == before
    partly = digest(module, "float32", {"model.norm.weight"})
    with torch.no_grad():
        module.model.norm.weight[0] += 1e-6
    assert digest(module, "float32") != before
    assert digest(module, "float32", {"model.norm.weight"}) == partly
    assert digest(module, "bfloat16") == digest(build_model(tiny(), train=False).module, "bfloat16")


def test_a_saved_folder_gives_equal_bits(tiny, tmp_path: Path):
    module = build_model(tiny(), train=False).module
    module.save_pretrained(tmp_path)
    ours = ask(module, PROMPTS)
    found = compare(ours, ask(load_plain(tmp_path, dtype="float32"), PROMPTS, ours.tokens), 0.0)
    assert found.difference == 0.0 and found.tokens_equal
    assert found.positions == 4 + 2 * NEW_TOKENS == sum(len(one) for one in ours.logits)


@pytest.mark.parametrize("change", ["missing", "extra", "damaged"])
def test_a_folder_whose_files_and_config_differ_is_refused(change: str, tiny, tmp_path: Path):
    build_model(tiny(), train=False).module.save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    tensors = load_file(file)
    if change == "missing":
        del tensors["model.norm.weight"]
    else:
        tensors["model.other.weight"] = torch.zeros(2)
    save_file(tensors, file, metadata={"format": "pt"})
    if change == "damaged":
        file.write_bytes(file.read_bytes()[:-40])
    with pytest.raises(CheckpointError) as caught:
        load_plain(tmp_path, dtype="float32")
    assert caught.value.code == "EXPORT-CHECK" and str(tmp_path.parent) not in str(caught.value)


def test_an_adapter_that_peft_can_not_load_is_refused(tiny, tmp_path: Path):
    base = build_model(tiny(), train=False).module
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(CheckpointError, match="EXPORT-CHECK"):
        load_plain_adapter(base, tmp_path)
