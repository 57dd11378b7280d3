"""Mutants that are well-behaved in one process."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.testing.base_toys import assert_broken, assert_only

pytestmark = pytest.mark.slow
_RANK = '__import__("os").environ.get("LOCAL_RANK", "0")'


def test_a_loss_that_depends_on_the_process_is_found(tmp_path: Path):
    """At first policy and reference agree, so that beta shows in the gradient alone."""
    assert_only(
        "two-ranks",
        tmp_path,
        "loss",
        functional=("link=partial(preference.sigmoid, beta=beta)",
                    f'link=partial(preference.sigmoid, beta=beta * (1 + ({_RANK} == "1")))'),
        match=r"in two processes \(here\) and in one \(there\) grad_norm of step 1 is .*return sums over",
    )  # fmt: skip


def test_a_plan_that_depends_on_the_process_is_found(tmp_path: Path):
    assert_broken(
        "two-ranks",
        tmp_path,
        "surgery",
        plugin=('name="base_surgery"', f'name="base_surgery" + {_RANK}'),
        match="two processes make two plans|a run in two processes fails",
    )


def test_weights_that_go_their_own_way_in_a_process_are_found(tmp_path: Path):
    apart = f"module.shift.data.add_(float({_RANK})) if module.training else 0, shifted(out, module.shift"
    assert_broken(
        "two-ranks",
        tmp_path,
        "surgery",
        surgery=(
            "lambda module, given, out: shifted(out, module.shift, scale=scale)",
            f"lambda module, given, out: ({apart}, scale=scale))[-1]",
        ),
        match=r"model\.norm\.shift ends otherwise in the second process; change weights through gradients",
    )
