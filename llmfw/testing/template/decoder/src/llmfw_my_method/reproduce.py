"""The method's claims, and the runs that decide them: ``llmfw reproduce my_method``."""

from __future__ import annotations

from functools import partial
from typing import Any

from llmfw import Arm, Claim, Workspace

TOKENS = {"smoke": 32, "small": 128, "full": 512}

CLAIMS = (
    Claim(
        id="my_method.1",
        statement="Over a text that repeats itself a forward pass brings more than one token.",
        paper="Table 1: 2.0 to 2.6 times as fast; here passes are counted, not seconds",
        metric="tokens_per_pass",
        effect=0.2,
        unit="tokens",
        arms=("greedy", "lookup"),
        seeds={"smoke": (1, 2), "small": (1, 2, 3), "full": (1, 2, 3, 4, 5)},
    ),
)


def tiny_llama(seed: int, positions: int) -> Any:
    """A Llama of two layers with weights that the seed draws, over 32 tokens."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=32,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=positions,
        initializer_range=0.5,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model: Any = LlamaForCausalLM(config)
    return model.eval()


def tokens_per_pass(workspace: Workspace, *, length: int) -> dict[str, float]:
    """New tokens per forward pass of a tiny model, whose weights the seed draws, and the texts' checksum."""
    import torch
    from transformers import DynamicCache

    from llmfw.core.generation import Sampling

    from .decoder import generate

    class Policy:
        module = tiny_llama(workspace.seed, positions=1024)

    passes = 0

    def counted() -> None:
        nonlocal passes
        passes += 1

    with torch.inference_mode():
        new = generate(
            Policy(),
            torch.tensor([[1, 2, 3, 4, 5] * 4]),
            Sampling(max_new_tokens=TOKENS[workspace.size]),
            lambda: DynamicCache(config=Policy.module.config),
            ngram=3,
            length=length,
            counted=counted,
        )
    return {"tokens_per_pass": len(new) / passes, "sum_of_ids": float(sum(new))}


def arms(claim: Claim, seed: int, size: str) -> dict[str, Arm]:
    """One by one, and with guesses."""
    return {
        "greedy": Arm(about="one by one", run=partial(tokens_per_pass, length=0)),
        "lookup": Arm(about="up to 8 guessed", run=partial(tokens_per_pass, length=8)),
    }
