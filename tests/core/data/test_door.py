"""The public door: every name is there, and torch comes only with what needs it."""

from __future__ import annotations

import subprocess
import sys

import pytest

import llmfw.core.data as door


def test_every_public_name_is_loaded_and_documented() -> None:
    for name in door.__all__:
        assert getattr(door, name).__doc__ or isinstance(getattr(door, name), str), name
    assert callable(door.collate) and callable(door.prepare)  # not the modules of some such name


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'colate'"):
        _ = door.colate


@pytest.mark.parametrize(
    "names", ["DataModule", "prepare, Encoder, audit, Example", "canonical, BadRows, split_rows"]
)
def test_rows_and_tokens_need_no_torch(names: str) -> None:
    code = f"import sys; from llmfw.core.data import {names}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
