"""What samples beside our own loop: vLLM, where it's installed; refused by name where it isn't."""

from __future__ import annotations

import json
import os
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

import llmfw
from llmfw.core.errors import LlmfwError
from tests.tested.recorder import note, note_refusal

# vLLM's attention on a CPU knows heads of 32 and up
CONFIG = (
    "model.config={model_type: llama, vocab_size: 261, hidden_size: 128, intermediate_size: 256, "
    "num_hidden_layers: 2, num_attention_heads: 4, num_key_value_heads: 2, max_position_embeddings: 512, "
    "initializer_range: 0.3, pad_token_id: 256, bos_token_id: 257, eos_token_id: 258}"
)
VLLM = "generation.backend=vllm"
PROMPTS = ["Hi", "How are you?", "2+2="]
installed = pytest.mark.skipif(find_spec("vllm") is None, reason="vLLM isn't installed")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty folder, and memory for vLLM's keys and values that a small machine has."""
    monkeypatch.chdir(tmp_path)
    if "VLLM_CPU_KVCACHE_SPACE" not in os.environ:
        monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")


@installed
def test_generate():
    told = {"logps": True, "max_new_tokens": 24}
    own, theirs = (llmfw.generate(PROMPTS, CONFIG, *more, **told).completions for more in ((), (VLLM,)))
    command = "llmfw generate PROMPT generation.backend=vllm"
    pairs = list(zip(own, theirs, strict=True))
    note("backends", "vLLM, greedy", command=command, measure="answers that differ from our own loop's",
         value=sum(one.ids != other.ids for one, other in pairs), bound=0)  # fmt: skip
    far = max(
        float((torch.tensor(one.logps) - torch.tensor(other.logps)).abs().max()) for one, other in pairs
    )
    note("backends", "vLLM, log-probs", command=command, measure="max |difference| to our own loop's, nats",
         value=far, bound=1e-3)  # fmt: skip


@installed
def test_rounds():
    found = llmfw.fit(
        CONFIG, VLLM, "data.options.levels=1", "data.options.largest=4", "data.options.train=12",
        "data.options.validation=4", "rft.rounds=1", "rft.gold_epochs=1", "rft.samples=3", "rft.problems=4",
        "trainer.epochs=1", "generation.max_new_tokens=12", "tracking.mlflow=false", plugins=("rft",),
    )  # fmt: skip
    ledger = json.loads((found.dir / "ledger.json").read_text(encoding="utf-8"))
    note("backends", "vLLM in a round", command=f"llmfw fit --plugin rft {VLLM}",
         measure="|samples in the ledger - samples asked for|",
         value=abs(ledger["sample"]["samples"] - 36), bound=0)  # fmt: skip


@pytest.mark.skipif(find_spec("vllm") is not None, reason="vLLM is installed")
def test_missing():
    with pytest.raises(LlmfwError) as caught:
        llmfw.generate(PROMPTS, "model=tiny-llama", VLLM)
    note_refusal("backends", "vLLM that isn't there", command=f"llmfw generate PROMPT {VLLM}",
                 line=str(caught.value))  # fmt: skip
