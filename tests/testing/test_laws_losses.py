"""Each law of losses is broken by a toy that does one thing wrong, and by that law alone."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tests.testing.base_toys import assert_broken, assert_only, mutant, outcomes

BENT = '''
def bent(call):
    """The loss, and then something else."""
    from dataclasses import replace

    def other(policy, batch, reference):
        out = call(policy, batch, reference)
        BODY

    return other


def weights('''


def bent(*body: str) -> dict[str, Any]:
    """Changes that make the toy's loss end with these lines, away from the neutral setting."""
    return {
        "functional": ("def weights(", BENT.replace("BODY", "\n        ".join(body)).lstrip()),
        "plugin": [
            ("import objective", "import bent, objective"),
            (
                "call=preference_loss(chosen)",
                "call=preference_loss(chosen)\n            if self.config.early == 1.0\n"
                "            else bent(preference_loss(chosen))",
            ),
        ],
    }


def test_a_reference_that_says_otherwise(tmp_path: Path):
    match = r"lengths \[\(2, 5, 3\)\].*float64\): the value is .* from the reference's"
    assert_only("reference-agrees", tmp_path, "loss", match=match, reference=("in (1, 2)", "in (1,)"))


def test_an_argument_that_nobody_knows(tmp_path: Path):
    """The law that differentiates has nothing to look at then, and says the same."""
    change = ("    length: Tensor,\n    early", "    length: Tensor,\n    mood: Tensor,\n    early")
    name = mutant(tmp_path, "loss", functional=change)
    for outcome in outcomes(tmp_path, name, only=["reference-agrees", "gradcheck"]).values():
        assert outcome.status == "failed"
        assert "nobody knows the argument 'mood' of functional.loss" in outcome.message


def test_a_plugin_may_bring_its_own_cases(tmp_path: Path):
    """Twice ``square``; functional.py has it wrong below zero."""
    cases = (
        "def conformance_cases():\n"
        "    for sign in (1.0, -1.0):\n"
        "        yield 'square', {'x': sign * torch.ones(3, dtype=torch.float64)}\n\n\n"
        "def square(x):\n    return {'square': x * x}\n\n\ndef loss("
    )
    wrong = "def square(x):\n    return {'square': x * x.clamp(min=0)}\n\n\ndef weights("
    assert_broken(
        "reference-agrees", tmp_path, "loss", match=r"square \(case 2, torch.float64\): the value is 1 from",
        reference=("def loss(", cases), functional=("def weights(", wrong),
    )  # fmt: skip


def test_a_gradient_that_is_no_derivative(tmp_path: Path):
    """Half of the log-probs is detached, in the reference too: both agree, and both are wrong."""
    assert_only(
        "gradcheck", tmp_path, "loss", match=r"loss \(lengths \[\(1, 1, 1\)\].*Jacobian mismatch",
        functional=("(chosen, logps,", "(chosen, 0.5 * logps + 0.5 * logps.detach(),"),
        reference=("(logps[i] -", "(0.5 * logps[i] + 0.5 * logps[i].detach() -"),
    )  # fmt: skip


def test_cases_may_have_no_argument_to_differentiate_by_and_answers_of_minus_infinity(tmp_path: Path):
    """``mask`` is of whole numbers, and hides by -inf, as masks of attention do."""
    mask = "def mask(n):\n    return torch.full((n, n), float('-inf')).triu(1)\n\n\n"
    cases = "def conformance_cases():\n    yield 'mask', {'n': 3}\n\n\n"
    name = mutant(
        tmp_path,
        "loss",
        functional=("def weights(", f"import torch\n\n\n{mask}def weights("),
        reference=("def loss(", f"{cases}{mask}def loss("),
    )
    found = outcomes(tmp_path, name, only=["reference-agrees", "gradcheck"])
    assert {law: one.status for law, one in found.items()} == {
        "reference-agrees": "passed", "gradcheck": "skipped",
    }, found  # fmt: skip


def test_without_a_functional_the_loss_itself_is_differentiated(tmp_path: Path):
    source = '''
"""A loss in one file."""

from llmfw import Loss, LossOutput, Plugin, hookimpl


class Toy(Plugin):
    @hookimpl
    def llmfw_loss(self, run, tokenizer, model_config):
        def call(policy, batch, reference):
            logps = policy.logps(batch)
            return LossOutput(total=-(logps * logps.exp().detach()).sum())

        return Loss(name="focal", call=call, batch_kind="text", unit="tokens")
'''
    name = mutant(
        tmp_path, "loss", plugin=source, card='name = "base_loss"\nsummary = "x"\nkinds = ["loss"]\n',
        functional=None, reference=None, reproduce=None,
    )  # fmt: skip
    laws = ["gradcheck", "layout", "masked-tokens", "unit", "finite", "metrics", "swap", "frozen-reference"]
    found = outcomes(tmp_path, name, only=laws)
    assert {law: found[law].status for law in laws} == {
        "gradcheck": "failed", "layout": "passed", "masked-tokens": "passed", "unit": "passed",
        "finite": "passed", "metrics": "passed", "swap": "skipped", "frozen-reference": "skipped",
    }  # fmt: skip
    assert "the loss: " in found["gradcheck"].message


@pytest.mark.parametrize(
    ("condition", "match"),
    [
        ("batch.attention_mask.dim() == 4", "packed .*the total is"),
        ("batch.attention_mask.dim() == 2 and not batch.attention_mask[:, 0].all()", "left .*the total is"),
        ("batch.input_ids.shape[1] > 12", "wide .*the total is"),
        ("batch.sample_ids[:1] > batch.sample_ids[-1:]", "samples in reverse .*the total is"),
    ],
)
def test_a_loss_that_depends_on_the_layout(tmp_path: Path, condition: str, match: str):
    change = bent(f"return replace(out, total=out.total * (2 if {condition} else 1))")
    name = mutant(tmp_path, "loss", **change)
    found = outcomes(tmp_path, name, only=["layout"])["layout"]
    assert found.status == "failed" and re.search(match, found.message), found


def test_of_all_laws_only_one_speaks_of_packed_rows(tmp_path: Path):
    change = bent("return replace(out, total=out.total * (2 if batch.attention_mask.dim() == 4 else 1))")
    assert_only("layout", tmp_path, "loss", match="packed", **change)


def test_a_margin_with_an_offset(tmp_path: Path):
    change = bent('return replace(out, details={**out.details, "margin": out.details["margin"] + 0.1})')
    assert_only("swap", tmp_path, "loss", match="differ by 0.2 in size", **change)


def test_margins_that_make_up_for_each_other_in_a_metric(tmp_path: Path):
    """Four pairs are off by 0.1, -0.1, 0.1, -0.1, so that their sum is right; there are no details."""
    change = bent(
        'margin, (_, count) = out.details["margin"], out.metrics["rewards/margins"]',
        "signs = [1 - 2 * (pair % 2) for pair in range(len(margin))]",
        "total = sum(value + 0.1 * sign for value, sign in zip(margin, signs))",
        'return replace(out, details={}, metrics={**out.metrics, "rewards/margins": (total, count)})',
    )
    assert_broken("swap", tmp_path, "loss", match="differ by 0.2 in size", **change)


def test_a_gradient_for_the_reference(tmp_path: Path):
    """Of value 0."""
    change = bent(
        "theirs = reference.logps(batch).sum()",
        "return replace(out, total=out.total + theirs - theirs.detach())",
    )
    assert_only(
        "frozen-reference", tmp_path, "loss", match="a gradient reaches .* of the reference", **change
    )


def test_a_gradient_for_a_prompt(tmp_path: Path):
    """Of value 0, over all real tokens."""
    change = bent(
        "mask = batch.attention_mask",
        "mask = mask if mask.dim() == 2 else mask[:, 0].any(-1)",
        "size = (policy.hidden_states(batch, -1) * mask[..., None]).square().sum()",
        "return replace(out, total=out.total + 1e-3 * (size - size.detach()))",
    )
    assert_only("masked-tokens", tmp_path, "loss", match="gets a gradient of up to", **change)


def test_a_mean_in_place_of_a_sum(tmp_path: Path):
    """Over 4 pairs, and over 1 and 3; the law of accumulation leaves it to this one."""
    change = bent("return replace(out, total=out.total / max(1, len(batch.sample_ids)))")
    assert_only("unit", tmp_path, "loss", match="the total of 4 samples is .*sum over the pairs", **change)


def test_a_total_of_nothing_that_is_something(tmp_path: Path):
    change = bent("return replace(out, total=out.total + (0.5 if not batch.tokens else 0.0))")
    assert_broken("unit", tmp_path, "loss", match="batch without any sample is 0.5", **change)


def test_a_logarithm_that_overflows(tmp_path: Path):
    naive = (
        "def naive(difference, gap, *, beta):\n    import torch\n\n"
        "    return -torch.log(torch.sigmoid(beta * difference))\n\n\ndef weights("
    )
    link = "link=partial(preference.sigmoid if early == 1.0 else naive, beta=beta)"
    change = [("def weights(", naive), ("link=partial(preference.sigmoid, beta=beta)", link)]
    match = "log-probs all -10,000: the loss is inf, its gradient is not finite"
    assert_only("finite", tmp_path, "loss", match=match, functional=change)


@pytest.mark.parametrize(
    ("metric", "match"),
    [
        ('"Rewards Gap": (0.0, 1)', "'Rewards Gap' is no name"),
        ('"gap": (out.total, 1)', "gap carries a gradient"),
    ],
)
def test_metrics_that_can_not_be_averaged_or_read(tmp_path: Path, metric: str, match: str):
    change = bent(f"return replace(out, metrics={{**out.metrics, {metric}}})")
    assert_only("metrics", tmp_path, "loss", match=match, **change)
