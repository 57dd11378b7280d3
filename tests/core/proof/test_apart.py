"""Differing bits and values of two folders of tensors, worked out by hand."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from llmfw.core.proof.apart import Apart, apart


def folders(tmp_path: Path, one: dict[str, Tensor], other: dict[str, Tensor]) -> tuple[Path, Path]:
    for name, tensors in (("one", one), ("other", other)):
        (tmp_path / name / "below").mkdir(parents=True)
        save_file(tensors, tmp_path / name / "below" / "weights.safetensors")
    return tmp_path / "one", tmp_path / "other"


def test_the_same_tensors_have_no_bit_in_which_they_differ(tmp_path: Path) -> None:
    weights = {"a": torch.arange(6.0).view(2, 3), "b": torch.tensor([float("nan")], dtype=torch.bfloat16)}
    found = apart(*folders(tmp_path, weights, weights))
    assert found == Apart(tensors=2, elements=7) and found.equal and found.within(0.0)


def test_bits_are_counted_and_the_largest_difference_is_relative_to_the_largest_value(tmp_path: Path) -> None:
    """1.0 is 0x3F800000 and 1.5 is 0x3FC00000: one bit. 4.0 is 0x40800000, 5.0 is 0x40A00000: one bit.
    Differences are 0.5 and 1, the largest value is 4: 0.25.
    """
    found = apart(*folders(tmp_path, {"w": torch.tensor([1.0, 4.0])}, {"w": torch.tensor([1.5, 5.0])}))
    assert (found.bits, found.largest, found.first) == (2, 0.25, "below/weights.safetensors: w")
    assert not found.equal and found.within(0.25) and not found.within(0.2)


def test_the_sign_of_zero_is_a_bit_and_no_difference_of_values(tmp_path: Path) -> None:
    found = apart(*folders(tmp_path, {"w": torch.tensor([0.0])}, {"w": torch.tensor([-0.0])}))
    assert (found.bits, found.largest, found.equal, found.within(0.0)) == (1, 0.0, False, True)


def test_a_value_that_is_not_finite_on_one_side_is_infinitely_far(tmp_path: Path) -> None:
    found = apart(*folders(tmp_path, {"w": torch.tensor([1.0])}, {"w": torch.tensor([float("inf")])}))
    assert found.largest == float("inf") and not found.within(1e9)


@pytest.mark.parametrize(
    ("one", "other", "first"),
    [
        ({"a": torch.zeros(1)}, {"a": torch.zeros(1), "b": torch.zeros(1)}, "below/weights.safetensors: b"),
        ({"a": torch.zeros(1)}, {"a": torch.zeros(2)}, "a is torch.float32 [1] and torch.float32 [2]"),
        ({"a": torch.zeros(1)}, {"a": torch.zeros(1, dtype=torch.float64)}, "torch.float64"),
    ],
)
def test_tensors_of_other_names_or_forms_are_named_and_within_nothing(
    tmp_path: Path, one: dict[str, Tensor], other: dict[str, Tensor], first: str
) -> None:
    found = apart(*folders(tmp_path, one, other))
    assert first in found.first and not found.equal and not found.within(float("inf"))


def test_a_missing_file_and_empty_folders_are_no_agreement(tmp_path: Path) -> None:
    one, other = folders(tmp_path, {"a": torch.zeros(1)}, {"a": torch.zeros(1)})
    save_file({"b": torch.zeros(1)}, other / "more.safetensors")
    assert apart(one, other).first == "more.safetensors"
    (tmp_path / "empty").mkdir()
    assert not apart(tmp_path / "empty", tmp_path / "empty").equal
