"""The sampling engine: many prompts, one forward pass a token, random numbers that belong to the request.

Over transformers' own cache of full attention a batch is kept full: rows that end make room for waiting
prompts, and a prompt with several answers is read once. Anything else is dealt out in fixed batches.

Greedy answers equal ``model.generate(do_sample=False)`` token for token in float32. Penalties and other
processors that a model's generation config may ask for are not applied.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from itertools import groupby
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn

from llmfw.core.data.text import TextTokenizer
from llmfw.core.errors import PluginError, UsageError
from llmfw.core.generation.batches import EncoderBatch, FixedBatch, RunningBatch, full_layers
from llmfw.core.generation.caches import (
    FULL_CACHE,
    attention_of,
    base_model,
    context_length,
    forward_names,
)
from llmfw.core.generation.encoder import refuse_plugins
from llmfw.core.generation.prompts import Prompt, encode_prompt, encode_sides
from llmfw.core.generation.rows import Backend, Batch, Done, Request, Rows, Watch, missing
from llmfw.core.generation.sampling import Sampling, request_seed
from llmfw.core.generation.stopping import finish
from llmfw.core.models.encoder_decoder import Sides, sides_of
from llmfw.core.records import CacheFactory, Completion, Decoder


def generate(
    module: nn.Module,
    tokenizer: Any,
    prompts: Sequence[Prompt],
    sampling: Sampling,
    *,
    prefix: str | Sequence[str] = "",
    ids: Sequence[str | int] | None = None,
    cache: CacheFactory | None = None,
    decoder: Decoder | None = None,
    model_config: Any = None,
    batch_size: int = 8,
    batch_keys: Sequence[str] = (),
    policy: Any = None,
    watch: Watch | None = None,
    known: Mapping[int, Completion] | None = None,
    done: Done | None = None,
    backend: Backend | None = None,
) -> list[Completion]:
    """Answers to ``prompts`` in their order; the ``sampling.samples`` answers of a prompt stand side by side.

    Args:
        prompts: strings, message lists or token-id lists; see ``encode_prompt`` (``encode_sides`` of an
            encoder-decoder, whose prompts may be padded: they are read once, and masked).
        prefix: beginning of the answer, one for all or one a prompt; not part of the returned text and ids.
        ids: names of the prompts that random numbers are drawn for; default: their indices.
        cache: default: transformers' own. Any other gets no padding: its batches hold prompts of one length.
        decoder: default: one token at a time from the model's distribution.
        model_config: what ``cache.build`` receives; default: the module's.
        batch_size: answers side by side.
        batch_keys: what surgeries want to be told in the first forward pass; known is ``prompt_length``
            ([B] int64, tokens).
        policy: what a decoder receives; default: an object with ``module`` and ``companions`` alone.
        watch: called with (index in the returned list, token) as soon as a token is known.
        known: answers that are there already, by index in the returned list: they are only put in place, and
            the others are those that would have come beside them.
        done: called with (index, answer) as soon as an answer is complete; not for known ones.
        backend: what answers in place of the loop here; it knows no cache, decoder or encoder-decoder.

    Errors:
        UsageError: a prompt that is empty or longer than the model's context; log-probs from a decoder; a
            known answer to none of the prompts.
        NumericsError: logits that aren't finite.
        PluginError: a decoder that returned no or too many tokens.
        ConflictError: a cache or decoder of a plugin over an encoder-decoder.
    """
    if decoder is not None and sampling.logps:
        raise UsageError(
            "DECODER-LOGPS",
            f"decoder {decoder.name} gives no log-probs",
            mend="leave logps or the decoder out",
        )
    if batch_size < 1:
        raise UsageError(
            "SAMPLING", f"{batch_size} is no batch size", mend="give 1 or more", key="generation.batch_size"
        )
    model: Any = base_model(module)
    config = model.config if model_config is None else model_config
    sides = sides_of(model.config, getattr(model, "generation_config", None))
    if sides is not None:
        refuse_plugins(model.config.model_type, cache, decoder)
    requests = _requests(tokenizer, prompts, prefix, ids, sampling, context_length(module), sides)
    answers, total = dict(known or {}), len(requests)
    requests = [requests[index] for index in missing(total, known)]

    def take(index: int, answer: Completion) -> None:
        answers[index] = answer
        if done is not None:
            done(index, answer)

    if backend is not None:
        backend.run(requests, tokenizer, sampling, take, watch)
        return [answers[index] for index in range(total)]
    factory = cache or FULL_CACHE
    with evaluating(module), torch.inference_mode(), attention_of(module, factory):
        if decoder is not None:
            policy = policy or SimpleNamespace(module=module, companions={})
            for request in requests:
                past = partial(factory.build, config)
                take(request.index, _decode(decoder, policy, tokenizer, request, sampling, past, watch))
        else:
            pad = getattr(tokenizer, "pad_token_id", None) or 0  # any valid id: nothing ever attends to it
            for group, batch in _dealt(requests, module, pad, factory, config, batch_size, batch_keys):
                Rows(batch, tokenizer, sampling, take, watch).run(group, batch_size)
    return [answers[index] for index in range(total)]


def _dealt(
    requests: Sequence[Request],
    module: nn.Module,
    pad: int,
    factory: CacheFactory,
    config: Any,
    size: int,
    batch_keys: Sequence[str],
) -> Iterator[tuple[Sequence[Request], Batch]]:
    """Requests and the batch that answers them: longest prompts first, so that a batch too big for the memory
    fails at once and not after an hour, and equal prompts side by side.
    """
    if not requests:
        return
    if requests[0].encoder:
        # the encoder's rows may be padded, the decoder's never are: nearly all begin with one token
        by_opening = sorted(requests, key=lambda request: (-len(request.ids), -len(request.encoder)))
        for group in _cut(by_opening, size, padding=False):
            yield group, EncoderBatch(module, pad)
        return
    first: dict[tuple[int, ...], int] = {}
    places = [first.setdefault(tuple(request.ids), request.index) for request in requests]
    paired = sorted(zip(places, requests, strict=True), key=lambda pair: (-len(pair[1].ids), pair[0]))
    ordered = [request for _, request in paired]
    names = forward_names(module)
    plain = factory.build is FULL_CACHE.build and factory.attention is None
    # a surgery that is told of the first forward pass's rows counts on meeting the same ones afterwards
    alone = plain and factory.after_prefill is None and not batch_keys
    layers = full_layers(config) if alone and names.padding else None
    if layers is not None:
        longest = max(request.limit for request in requests)
        yield ordered, RunningBatch(
            module, names, pad, layers=layers, size=min(size, len(requests)), longest=longest,
            chunk=factory.prefill_chunk,
        )  # fmt: skip
        return
    for group in _cut(ordered, size if plain or factory.batched else 1, padding=plain and names.padding):
        yield group, FixedBatch(module, names, pad, factory, config, shared=alone, batch_keys=batch_keys)


def _cut(ordered: Sequence[Request], size: int, *, padding: bool) -> Iterator[list[Request]]:
    """Batches; without padding their prompts have one length."""
    groups = [ordered] if padding else [
        list(group) for _, group in groupby(ordered, key=lambda request: len(request.ids))
    ]  # fmt: skip
    for group in groups:
        for start in range(0, len(group), size):
            yield list(group[start : start + size])


def _requests(
    tokenizer: Any,
    prompts: Sequence[Prompt],
    prefix: str | Sequence[str],
    ids: Sequence[str | int] | None,
    sampling: Sampling,
    context: int | None,
    sides: Sides | None,
) -> list[Request]:
    prefixes = [prefix] * len(prompts) if isinstance(prefix, str) else list(prefix)
    names: list[str | int] = list(range(len(prompts))) if ids is None else list(ids)
    for what, given in (("prefixes", prefixes), ("ids", names)):
        if len(given) != len(prompts):
            raise UsageError(
                "GENERATE", f"{len(prompts)} prompts came with {len(given)} {what}", mend="give one a prompt"
            )
    requests: list[Request] = []
    text = TextTokenizer(tokenizer)
    for number, (prompt, opening, name) in enumerate(zip(prompts, prefixes, names, strict=True)):
        read: list[int] = []
        if sides is None:
            encoded = encode_prompt(text, prompt, opening)
        else:
            read, encoded = encode_sides(text, prompt, sides, opening)
        room = sampling.max_new_tokens if context is None else min(
            sampling.max_new_tokens, context - len(encoded)
        )  # fmt: skip
        if room < 1 or (context is not None and len(read) > context):
            raise UsageError(
                "PROMPT-TOO-LONG",
                f"prompt {number + 1} has {len(read) or len(encoded)} tokens, the model's context {context}",
                mend="shorten it, or take a model with a longer context",
            )
        for sample in sampling.numbers:
            seed = request_seed(sampling.seed, name, sample)
            requests.append(Request(index=len(requests), ids=encoded, seed=seed, limit=room, encoder=read))
    return requests


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Dropout off; afterwards every submodule is in the mode in which it was, also on error."""
    training = [submodule for submodule in module.modules() if submodule.training]
    module.eval()
    try:
        yield
    finally:
        for submodule in training:
            submodule.training = True


def _decode(
    decoder: Decoder,
    policy: Any,
    tokenizer: Any,
    request: Request,
    sampling: Sampling,
    cache: Callable[[], Any],
    watch: Watch | None,
) -> Completion:
    device = next(policy.module.parameters()).device
    own = replace(sampling, seed=request.seed, max_new_tokens=request.limit)
    ids = [
        int(token)
        for token in decoder.generate(policy, torch.tensor([request.ids], device=device), own, cache)
    ]
    if not 1 <= len(ids) <= request.limit:
        raise PluginError(
            "DECODER-LENGTH",
            f"decoder {decoder.name} returned {len(ids)} tokens where 1 to {request.limit} were asked for",
            mend="obey sampling.max_new_tokens",
        )
    text, kept, reason = finish(tokenizer, ids, sampling)
    for token in kept if watch else ():
        watch(request.index, token)  # type: ignore[misc]  # the loop is empty without it
    return Completion(text=text, ids=kept, prompt_tokens=len(request.ids), finish=reason)
