"""The dtype of new tensors, for a while."""

from __future__ import annotations

import pytest
import torch

from llmfw.core.training.dtypes import default_dtype


def test_new_tensors_are_of_the_dtype_inside_and_of_the_old_one_after_a_failure() -> None:
    found: list[torch.dtype] = []

    def fail() -> None:
        with default_dtype(torch.float64):
            found.append(torch.ones(1).dtype)
            raise ValueError

    with pytest.raises(ValueError, match="^$"):
        fail()
    assert [*found, torch.ones(1).dtype] == [torch.float64, torch.float32]
