"""The method's claims, and the runs that decide them: ``llmfw reproduce my_method``."""

from __future__ import annotations

from functools import partial
from typing import Any

from llmfw import Arm, Claim, Workspace

TOKENS = {"smoke": 64, "small": 256, "full": 1024}

CLAIMS = (
    Claim(
        id="my_method.1",
        statement="Of a long text at most 20 positions are held, where the full cache holds all.",
        paper="Figure 10: memory that doesn't grow with the text",
        metric="share_held",
        direction="lower",
        effect=0.5,
        unit="share of the text's positions",
        arms=("full", "bounded"),
        controls=("recent_only",),
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


def share_held(workspace: Workspace, *, sinks: int, recent: int) -> dict[str, float]:
    """Positions that the first layer holds after a text, over the text's, and how far the next token's
    distribution is from the full cache's (total variation, 0 to 1).
    """
    import torch

    from .cache import after_prefill, build

    length = TOKENS[workspace.size]
    model = tiny_llama(workspace.seed, positions=2 * length)
    ids = torch.randint(32, (1, length), generator=torch.Generator().manual_seed(workspace.seed))
    cache = build(model.config, sinks=sinks, recent=recent)
    with torch.inference_mode():
        model(ids[:, :16], past_key_values=cache)
        after_prefill(cache)
        for start in range(16, length - 1, 16):
            model(ids[:, start : min(start + 16, length - 1)], past_key_values=cache)
        logits = model(ids[:, -1:], past_key_values=cache).logits[0, -1]
        full = model(ids).logits[0, -1]
    first: Any = cache.layers[0]
    away = 0.5 * (logits.softmax(-1) - full.softmax(-1)).abs().sum()
    return {"share_held": first.held / length, "distance": float(away)}


def arms(claim: Claim, seed: int, size: str) -> dict[str, Arm]:
    """All positions, four sinks and sixteen recent ones, and twenty recent ones alone."""
    return {
        "full": Arm(about="all positions", run=partial(share_held, sinks=0, recent=10**6)),
        "bounded": Arm(about="4 sinks, 16 recent", run=partial(share_held, sinks=4, recent=16)),
        "recent_only": Arm(about="20 recent", run=partial(share_held, sinks=0, recent=20)),
    }
