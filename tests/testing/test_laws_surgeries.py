"""Mutants of a surgery: each breaks one law of surgeries, and that one alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmfw.core import plan
from tests.testing.base_toys import assert_only, mutant, outcomes

_DRAW = "shift = torch.randn(norm.weight.shape, generator=generator).to(norm.weight)"
_HOOK = "norm.register_forward_hook(lambda module, given, out: shifted(out, module.shift, scale=scale))"
_REPORT = 'return Report(changed=("model.norm.shift",))'


def test_a_weight_that_is_changed_without_a_word_is_found(tmp_path: Path):
    silent = f"{_DRAW}\n        model.model.layers[0].mlp.up_proj.weight.data.mul_(1 + scale)"
    assert_only(
        "untouched-weights",
        tmp_path,
        "surgery",
        surgery=(_DRAW, silent),
        match=r"doesn't name model\.layers\.0\.mlp\.up_proj\.weight, which moved by .*name it in Report",
    )


def test_a_frozen_weight_that_a_forward_pass_moves_is_found(tmp_path: Path):
    """Under LoRA the base is frozen; a norm grows by 1e-4 of itself in each of three steps."""
    moving = (
        "if module.training and scale and not module.weight.requires_grad:\n"
        "        module.weight.data.mul_(1.0001)\n    return shifted(out, module.shift, scale=scale)"
    )
    assert_only(
        "untouched-weights",
        tmp_path,
        "surgery",
        surgery=[
            (_HOOK, "norm.register_forward_hook(lambda module, given, out: after(module, out, scale))"),
            ("def add_shift", f"def after(module, out, scale):\n    {moving}\n\n\ndef add_shift"),
        ],
        match=r"model\.norm\.weight is frozen, but a training under LoRA moved it by 3\.0e-04",
    )


def test_a_surgery_that_is_done_twice_is_found(tmp_path: Path):
    assert_only(
        "twice-is-once",
        tmp_path,
        "surgery",
        surgery=('if not hasattr(norm, "shift"):', "if True:"),
        match="applied once more, changed tensors; look first whether it was done",
    )


def test_a_second_hook_over_untouched_tensors_is_found_by_the_outputs(tmp_path: Path):
    again = f"    {_HOOK.replace('        ', '    ')}\n    {_REPORT}"
    assert_only(
        "twice-is-once",
        tmp_path,
        "surgery",
        surgery=[(f"        {_HOOK}\n", ""), (f"    {_REPORT}", again)],
        match="applied once more, changed outputs",
    )


def test_a_generator_of_ones_own_making_is_found(tmp_path: Path):
    own = _DRAW.replace("generator=generator", "generator=torch.Generator().manual_seed(0)")
    assert_only(
        "own-generator",
        tmp_path,
        "surgery",
        surgery=(_DRAW, own),
        match="from a generator of its own making",
    )


def test_a_global_generator_that_is_put_back_is_found_by_its_state(tmp_path: Path):
    """Runs of it can't be resumed either: how a generator stands when a model is built depends on the run."""
    forked = f"with torch.random.fork_rng():\n            {_DRAW.replace(', generator=generator', '')}"
    name = mutant(tmp_path, "surgery", surgery=(_DRAW, forked))
    found = outcomes(tmp_path, name, only=["own-generator"])["own-generator"]
    assert not found.good and "model.norm.shift" in found.message
    assert "depends on the state of the global generators" in found.message


def test_a_name_in_the_report_that_is_not_there_is_found(tmp_path: Path):
    assert_only(
        "reports-truly",
        tmp_path,
        "surgery",
        surgery=(_REPORT, 'return Report(changed=("model.norm.shfit",))'),
        match=r"reports that it changed 'model\.norm\.shfit', which isn't there",
    )


def test_an_addition_without_a_word_is_found(tmp_path: Path):
    silent = f'{_DRAW}\n        norm.register_buffer("extra", torch.zeros(3))'
    assert_only(
        "reports-truly",
        tmp_path,
        "surgery",
        surgery=(_DRAW, silent),
        match=r"added model\.norm\.extra without a word",
    )


@pytest.mark.parametrize(
    "refusal", ["packing", "right_padding", "quantised", "custom_cache", "chunked_prefill"]
)
def test_a_refusal_that_a_plan_passes_over_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refusal: str
):
    """The core keeps the refusal; with its check taken out there is a plan, and the law says so."""
    wiring = (
        '                name="base_surgery",',
        f'                name="base_surgery", refuses=("{refusal}",),',
    )
    name = mutant(tmp_path, "surgery", plugin=wiring)
    assert outcomes(tmp_path, name, only=["refusals-hold"])["refusals-hold"].status == "passed"
    monkeypatch.setattr(plan, "_check_refusals", lambda *given: None)
    found = outcomes(tmp_path, name, only=["refusals-hold"])["refusals-hold"]
    assert found.status == "failed" and f"it refuses {refusal}, but there is a plan with it" in found.message


def test_a_surgery_that_goes_by_columns_is_found(tmp_path: Path):
    columns = "module.shift * torch.arange(out.shape[1])[:, None]"
    assert_only(
        "refusals-hold",
        tmp_path,
        "surgery",
        surgery=(_HOOK, _HOOK.replace("module.shift", columns)),
        match=r"under left_padding a sample's log-probs differ by .*go by position_ids",
    )
