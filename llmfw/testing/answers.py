"""Answers of a small model under a plugin's cache or decoder, and what they leave behind in it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

from llmfw.core.generation import Sampling, generate
from llmfw.core.generation.caches import FULL_CACHE, base_model
from llmfw.core.models.policy import decoder_layers, decoder_of
from llmfw.core.open import open_policy
from llmfw.testing.laws import NotApplicable
from llmfw.testing.subject import SMALL

if TYPE_CHECKING:
    from llmfw.core.open import Opened
    from llmfw.core.records import CacheFactory, Completion, Decoder
    from llmfw.testing.subject import Subject


def opened(subject: Subject, *, fresh: bool = False) -> Opened:
    """The kit's model with the plugin's cache or decoder; ``fresh``: one that no law has used yet.

    Its weights are large, so that greedy text doesn't fall into a loop at once.
    """
    plain = subject.settings["model"] == SMALL["model"]
    changed = {"model.config.initializer_range": "0.3"} if plain else {}

    def make() -> Opened:
        return open_policy(subject.assembled(changed, verb="generate"))

    return make() if fresh else subject.once("opened", make)


def prompts(model: Opened, *lengths: int) -> list[list[int]]:
    """Prompts of random token ids, always the same ones; no two begin alike."""
    draw = torch.Generator().manual_seed(1)
    inner: Any = base_model(model.policy.module)
    top = min(256, int(inner.get_input_embeddings().weight.shape[0]))
    return [torch.randint(top, (length,), generator=draw).tolist() for length in lengths]


def answers(
    model: Opened,
    given: Sequence[list[int]],
    *,
    cache: CacheFactory | None = None,
    decoder: Decoder | None = None,
    batch_size: int = 1,
    watch: Callable[[int, int], None] | None = None,
    **sampling: Any,
) -> list[Completion]:
    """Answers to prompts of token ids, greedy unless ``sampling`` says otherwise."""
    policy = model.policy
    return generate(
        policy.module,
        policy.tokenizer,
        given,
        Sampling(**{"max_new_tokens": 8, **sampling}),
        cache=cache,
        decoder=decoder,
        batch_size=batch_size,
        batch_keys=getattr(policy, "batch_keys", ()),
        policy=policy,
        watch=watch,
    )


def decode(model: Opened, prompt: Sequence[int], **sampling: Any) -> list[int]:
    """What the plugin's decoder itself returns, before anybody cuts it."""
    decoder, module = model.plan.one("llmfw_decoder"), model.policy.module
    ids = torch.tensor([list(prompt)], device=next(module.parameters()).device)
    config = base_model(module).config
    with torch.inference_mode():
        new = decoder.generate(model.policy, ids, Sampling(**sampling), lambda: FULL_CACHE.build(config))
    return [int(token) for token in new]


def entries(cache: Any) -> int:
    """Entries of one row that a cache keeps, over all layers."""
    told = getattr(cache, "kept_tokens", None)
    if callable(told):
        return sum(int(count) for count in told())
    keys = [getattr(layer, "keys", None) for layer in cache.layers]
    return sum(int(key.shape[-2]) for key in keys if isinstance(key, torch.Tensor) and key.dim() > 1)


def fingerprint(module: torch.nn.Module) -> dict[str, Any]:
    """What a call may not change of a model: settings, classes, modes, hooks, tensors; and transformers' list
    of attention functions.
    """
    from transformers.modeling_utils import AttentionInterface

    model: Any = base_model(module)
    found: dict[str, Any] = {"attention functions": sorted(AttentionInterface._global_mapping)}
    for name, part in model.named_modules():
        config = getattr(part, "config", None)
        if config is not None and hasattr(config, "to_dict"):
            found[f"config of {name or 'the model'}"] = json.dumps(
                {**config.to_dict(), "attention": config._attn_implementation}, sort_keys=True, default=str
            )
        hooks = [len(part._forward_hooks), len(part._forward_pre_hooks), "forward" in vars(part)]
        found[f"class, mode or hooks of {name or 'the model'}"] = (type(part), part.training, hooks)
    for name, value in model.state_dict().items():
        found[f"tensor {name}"] = float(value.double().sum()), value.data_ptr()
    return found


@contextmanager
def breaking_off(module: torch.nn.Module, *, call: int) -> Iterator[None]:
    """Inside, the model's last layer fails at its ``call``-th forward pass (0: never), and whatever becomes
    of that error ends the block.

    Raises:
        NotApplicable: the block ended before there was a ``call``-th pass.
    """
    count = 0

    def fail(*_: Any) -> None:
        nonlocal count
        count += 1
        if count == call:
            raise RuntimeError("broken off by the conformance kit")

    handle = decoder_layers(decoder_of(base_model(module)))[-1].register_forward_pre_hook(fail)
    try:
        yield
    except Exception:  # the core may have said more about it, in an error of its own
        if not 0 < call <= count:
            raise
    finally:
        handle.remove()
    if count < call:
        raise NotApplicable(f"the model was asked {count} times: there's no middle in which to break off")
