"""The sampling engine: many prompts, one forward pass a token, random numbers that belong to the request.

Greedy answers equal ``model.generate(do_sample=False)`` token for token in float32. Penalties and other
processors that a model's generation config may ask for are not applied.

Shapes: B rows, T positions, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import groupby
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from llmfw.core.data.text import TextTokenizer
from llmfw.core.errors import NumericsError, PluginError, UsageError
from llmfw.core.generation.caches import (
    FULL_CACHE,
    ForwardNames,
    attention_of,
    base_model,
    context_length,
    forward_names,
    prefill,
)
from llmfw.core.generation.choose import distribution, pick, uniforms
from llmfw.core.generation.prompts import Prompt, encode_prompt
from llmfw.core.generation.sampling import Sampling, request_seed
from llmfw.core.generation.stopping import finish, hits_stop
from llmfw.core.records import CacheFactory, Completion, Decoder

Watch = Callable[[int, int], None]
"""Called as ``watch(index of the answer, token)`` as soon as a token is known."""


@dataclass(frozen=True, kw_only=True)
class _Request:
    index: int
    ids: list[int]
    seed: int
    limit: int
    """Longest answer, tokens: max_new_tokens, or what the model's context leaves."""


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
) -> list[Completion]:
    """Answers to ``prompts`` in their order; the ``sampling.samples`` answers of a prompt stand side by side.

    Args:
        prompts: strings, message lists or token-id lists; see ``encode_prompt``.
        prefix: beginning of the answer, one for all or one a prompt; not part of the returned text and ids.
        ids: names of the prompts that random numbers are drawn for; default: their indices.
        cache: default: transformers' own. Any other gets no padding: its batches hold prompts of one length.
        decoder: default: one token at a time from the model's distribution.
        model_config: what ``cache.build`` receives; default: the module's.
        batch_size: answers side by side.
        batch_keys: what surgeries want to be told in the first forward pass; known is ``prompt_length``
            ([B] int64, tokens).
        policy: what a decoder receives; default: an object with ``module`` and ``companions`` alone.

    Errors:
        UsageError: a prompt that is empty or longer than the model's context; log-probs from a decoder.
        NumericsError: logits that aren't finite.
        PluginError: a decoder that returned no or too many tokens.
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
    config = base_model(module).config if model_config is None else model_config
    requests = _requests(tokenizer, prompts, prefix, ids, sampling, context_length(module))
    factory = cache or FULL_CACHE
    answers: list[Completion | None] = [None] * len(requests)
    with evaluating(module), torch.inference_mode(), attention_of(module, factory):
        if decoder is not None:
            policy = policy or SimpleNamespace(module=module, companions={})
            for request in requests:
                answers[request.index] = _decode(
                    decoder, policy, tokenizer, request, sampling, lambda: factory.build(config), watch
                )
        else:
            names = forward_names(module)
            plain = factory.build is FULL_CACHE.build and factory.attention is None
            size = batch_size if plain or factory.batched else 1
            for batch in _batches(requests, size, padding=plain and names.padding):
                rows = _Rows(module, names, tokenizer, batch, sampling, factory, config, batch_keys)
                for request, answer in zip(batch, rows.run(watch), strict=True):
                    answers[request.index] = answer
    return [answer for answer in answers if answer is not None]


def _requests(
    tokenizer: Any,
    prompts: Sequence[Prompt],
    prefix: str | Sequence[str],
    ids: Sequence[str | int] | None,
    sampling: Sampling,
    context: int | None,
) -> list[_Request]:
    prefixes = [prefix] * len(prompts) if isinstance(prefix, str) else list(prefix)
    names: list[str | int] = list(range(len(prompts))) if ids is None else list(ids)
    for what, given in (("prefixes", prefixes), ("ids", names)):
        if len(given) != len(prompts):
            raise UsageError(
                "GENERATE", f"{len(prompts)} prompts came with {len(given)} {what}", mend="give one a prompt"
            )
    requests: list[_Request] = []
    text = TextTokenizer(tokenizer)
    for number, (prompt, opening, name) in enumerate(zip(prompts, prefixes, names, strict=True)):
        encoded = encode_prompt(text, prompt, opening)
        room = (
            sampling.max_new_tokens
            if context is None
            else min(sampling.max_new_tokens, context - len(encoded))
        )
        if room < 1:
            raise UsageError(
                "PROMPT-TOO-LONG",
                f"prompt {number + 1} has {len(encoded)} tokens, the model's context {context}",
                mend="shorten it, or take a model with a longer context",
            )
        for sample in range(sampling.samples):
            seed = request_seed(sampling.seed, name, sample)
            requests.append(_Request(index=len(requests), ids=encoded, seed=seed, limit=room))
    return requests


def _batches(requests: Sequence[_Request], size: int, *, padding: bool) -> Iterator[list[_Request]]:
    """Longest prompts first, so that a batch too big for the memory fails at once and not after an hour."""
    ordered = sorted(requests, key=lambda request: -len(request.ids))
    groups = (
        [ordered]
        if padding
        else [list(group) for _, group in groupby(ordered, key=lambda request: len(request.ids))]
    )
    for group in groups:
        for start in range(0, len(group), size):
            yield group[start : start + size]


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
    request: _Request,
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


class _Rows:
    """One batch while it is being answered. Rows that have ended leave the batch when it is half empty."""

    def __init__(
        self,
        module: nn.Module,
        names: ForwardNames,
        tokenizer: Any,
        requests: Sequence[_Request],
        sampling: Sampling,
        factory: CacheFactory,
        config: Any,
        batch_keys: Sequence[str],
    ) -> None:
        self.module, self.names, self.tokenizer, self.sampling = module, names, tokenizer, sampling
        self.requests, self.factory = requests, factory
        self.past = factory.build(config)
        device = next(module.parameters()).device
        lengths = [len(request.ids) for request in requests]
        self.width, self.steps = max(lengths), max(request.limit for request in requests)
        pad = getattr(tokenizer, "pad_token_id", None) or 0  # any valid id: no position ever attends to it
        rows = [[pad] * (self.width - len(request.ids)) + request.ids for request in requests]
        self.input_ids = torch.tensor(rows, dtype=torch.long, device=device)
        self.length = torch.tensor(lengths, device=device)
        self.limit = torch.tensor([request.limit for request in requests], device=device)
        # without padding no mask at all: kernels are then free to skip it, and custom caches never see one
        self.mask: Tensor | None = None
        if min(lengths) < self.width:
            columns = torch.arange(self.width + self.steps, device=device)
            self.mask = columns[None] >= (self.width - self.length)[:, None]
        self.extra = {"prompt_length": self.length} if "prompt_length" in batch_keys else {}
        self.stop_ids = torch.tensor(sampling.stop_ids, dtype=torch.long, device=device)
        self.uniform = (
            None if sampling.greedy else uniforms([request.seed for request in requests], self.steps)
        )
        self.tokens = torch.zeros(len(requests), self.steps, dtype=torch.long, device=device)
        self.logps = (
            torch.zeros(len(requests), self.steps, dtype=torch.float32, device=device)
            if sampling.logps
            else None
        )
        self.written: list[list[int]] = [[] for _ in requests]
        self.live = torch.arange(len(requests), device=device)
        """[rows still in the batch] which request each of them answers."""
        self.done = torch.zeros(len(requests), dtype=torch.bool, device=device)

    def run(self, watch: Watch | None) -> list[Completion]:
        """Answers of the batch, in the order of its requests."""
        mask = None if self.mask is None else self.mask[:, : self.width]
        logits = prefill(
            self.module,
            self.past,
            self.input_ids,
            chunk=self.factory.prefill_chunk,
            mask=mask,
            extra=self.extra,
        )
        if self.factory.after_prefill is not None:
            self.factory.after_prefill(self.past)
        step = 0
        while True:
            chosen, sound = self._choose(logits.float(), step)
            self.tokens[self.live, step] = chosen
            before = self.done.tolist() if watch or self.sampling.stop else []
            self.done = self.done | torch.isin(chosen, self.stop_ids) | (step + 1 >= self.limit)
            if before:
                self._look(before, chosen, watch)
            # the only wait for the device in a step
            remaining, unsound = torch.stack([(~self.done).sum(), (~sound & ~self.done).sum()]).tolist()
            if unsound:
                raise NumericsError(
                    "GENERATION-NAN",
                    f"the model's scores for token {step + 1} of an answer aren't finite",
                    mend="look at the training's loss and gradient norms, or set model.dtype=float32",
                    key="model",
                )
            step += 1
            if remaining == 0:
                return self._completions()
            if 2 * remaining <= len(self.live) and self._can_drop():
                chosen = self._drop(chosen)
            logits = self._forward(chosen, step)

    def _choose(self, logits: Tensor, step: int) -> tuple[Tensor, Tensor]:
        best, chosen = logits.max(-1)
        sound = torch.isfinite(best)
        if self.uniform is not None:
            # drawn on the CPU: the same random numbers give the same tokens whatever the device
            scores = logits.cpu().nan_to_num()
            sampling = self.sampling
            probabilities, ids = distribution(
                scores, temperature=sampling.temperature, top_k=sampling.top_k, top_p=sampling.top_p
            )
            chosen = pick(probabilities, ids, self.uniform[self.live.cpu(), step]).to(logits.device)
        if self.logps is not None:
            self.logps[self.live, step] = torch.log_softmax(logits, -1).gather(-1, chosen[:, None])[:, 0]
        return chosen, sound

    def _look(self, before: list[bool], chosen: Tensor, watch: Watch | None) -> None:
        """What needs text or a listener: row by row, and only when asked for."""
        ended = list(before)
        for row, (token, index) in enumerate(zip(chosen.tolist(), self.live.tolist(), strict=True)):
            if before[row]:
                continue
            if watch:
                watch(self.requests[index].index, token)
            if self.sampling.stop:
                self.written[index].append(token)
                ended[row] = hits_stop(self.tokenizer, self.written[index], self.sampling.stop)
        self.done = self.done | torch.tensor(ended, device=self.done.device)

    def _can_drop(self) -> bool:
        # a layer with a recurrent state inherits a method that forgets that state
        layers = getattr(self.past, "layers", [None])
        return not any(getattr(self.past, "is_linear", [])) and all(
            hasattr(layer, "batch_select_indices") for layer in layers
        )

    def _drop(self, chosen: Tensor) -> Tensor:
        keep = (~self.done).nonzero()[:, 0]
        self.past.batch_select_indices(keep)
        self.live, self.done, self.limit, self.length = (
            self.live[keep],
            self.done[keep],
            self.limit[keep],
            self.length[keep],
        )
        self.mask = None if self.mask is None else self.mask[keep]
        return chosen[keep]

    def _forward(self, chosen: Tensor, step: int) -> Tensor:
        arguments: dict[str, Any] = {self.names.cache: self.past, "use_cache": True}
        if self.names.positions:
            arguments["position_ids"] = (self.length + step - 1)[:, None]
        if self.mask is not None:
            arguments["attention_mask"] = self.mask[:, : self.width + step]
        logits: Tensor = self.module(input_ids=chosen[:, None], **arguments).logits
        return logits[:, -1]

    def _completions(self) -> list[Completion]:
        rows = self.tokens.tolist()
        logps = None if self.logps is None else self.logps.tolist()
        answers = []
        for row, request in enumerate(self.requests):
            text, ids, reason = finish(self.tokenizer, rows[row][: request.limit], self.sampling)
            answers.append(
                Completion(
                    text=text,
                    ids=ids,
                    prompt_tokens=len(request.ids),
                    finish=reason,
                    logps=None if logps is None else tuple(logps[row][: len(ids)]),
                )
            )
        return answers
