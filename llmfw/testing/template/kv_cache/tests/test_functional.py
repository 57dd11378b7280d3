"""What is kept, against the slow oracle and by hand."""

from __future__ import annotations

import pytest
import torch

from llmfw.testing import plugin_module

functional = plugin_module("my_method", "functional")
reference = plugin_module("my_method", "reference")


@pytest.mark.parametrize("length", [0, 1, 3, 4, 5, 20])
@pytest.mark.parametrize(("sinks", "recent"), [(0, 1), (2, 2), (4, 1), (1, 100)])
def test_functional_equals_the_oracle(length: int, sinks: int, recent: int) -> None:
    states = torch.randn(2, 3, length, 4)
    got, want = (module.kept(states, sinks=sinks, recent=recent) for module in (functional, reference))
    assert torch.equal(got, want)
    assert got.shape[-2] == min(length, sinks + recent)


def test_five_positions_by_hand() -> None:
    """One sink and two recent ones of 0 1 2 3 4: 0 3 4."""
    states = torch.arange(5.0)[None, None, :, None]
    assert functional.kept(states, sinks=1, recent=2).flatten().tolist() == [0.0, 3.0, 4.0]
