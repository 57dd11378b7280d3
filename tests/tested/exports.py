"""What the tests of exports have in common: settings of small runs, and how a case is noted."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import llmfw
from llmfw.core.errors import LlmfwError
from tests.tested.recorder import note, note_refusal

QUIET = ("trainer.progress=false", "tracking.mlflow=false", "trainer.max_steps=2", "optimizer.lr=1e-2")
TINY = ("model=tiny-llama", "data=rows.jsonl")
LORA = (*TINY, "adapter.kind=lora")
T5 = (
    "data=rows.jsonl",
    "model.config={model_type: t5, vocab_size: 261, d_model: 32, d_kv: 8, d_ff: 64, num_layers: 2, "
    "num_heads: 4}",
)
MEASURE = "max |logit difference| to the model in llmfw"

Fit = Callable[..., Path]


def noted(case: str, result: llmfw.ExportResult, options: str = "", bound: float = 0.0) -> None:
    """Note an export's own check; greedy tokens have to be equal too."""
    assert result.tokens_equal and result.prompts
    command = " ".join(f"llmfw export RUN --out DIR {options}".split())
    note("export", case, command=command, measure=MEASURE, value=result.difference, bound=bound)


def refused(case: str, options: str, call: Callable[[], Any], **shorter: Path) -> LlmfwError:
    """Note a refusal; paths become FILE, RUN, DIR."""
    with pytest.raises(LlmfwError) as caught:
        call()
    line = str(caught.value)
    for word, path in shorter.items():
        line = line.replace(str(path), word)
    note_refusal("export", case, command=" ".join(f"llmfw export RUN --out DIR {options}".split()), line=line)
    return caught.value
