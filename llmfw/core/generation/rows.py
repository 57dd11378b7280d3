"""One batch of prompts while it is being answered, token by token.

Shapes: B rows, T positions, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from llmfw.core.errors import NumericsError
from llmfw.core.generation.caches import ForwardNames, prefill
from llmfw.core.generation.choose import distribution, pick, uniforms
from llmfw.core.generation.encoder import EncoderSide, build_cache
from llmfw.core.generation.sampling import Sampling
from llmfw.core.generation.stopping import finish, hits_stop
from llmfw.core.records import CacheFactory, Completion

Watch = Callable[[int, int], None]
"""Called as ``watch(index of the answer, token)`` as soon as a token is known."""


@dataclass(frozen=True, kw_only=True)
class Request:
    index: int
    ids: list[int]
    seed: int
    limit: int
    """Longest answer, tokens: max_new_tokens, or what the model's context leaves."""
    encoder: list[int] = field(default_factory=list)
    """What the encoder of an encoder-decoder reads; ``ids`` are then what its decoder begins with."""


class Rows:
    """One batch while it is being answered. Rows that have ended leave the batch when it is half empty."""

    def __init__(
        self,
        module: nn.Module,
        names: ForwardNames,
        tokenizer: Any,
        requests: Sequence[Request],
        sampling: Sampling,
        factory: CacheFactory,
        config: Any,
        batch_keys: Sequence[str],
    ) -> None:
        self.module, self.names, self.tokenizer, self.sampling = module, names, tokenizer, sampling
        self.requests, self.factory = requests, factory
        pad = getattr(tokenizer, "pad_token_id", None) or 0  # any valid id: no position ever attends to it
        self.read: EncoderSide | None = None
        if requests[0].encoder:
            self.read = EncoderSide(module, [request.encoder for request in requests], pad)
        self.past = factory.build(config) if self.read is None else build_cache()
        device = next(module.parameters()).device
        lengths = [len(request.ids) for request in requests]
        self.width, self.steps = max(lengths), max(request.limit for request in requests)
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
        logits = self._begin()
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

    def _begin(self) -> Tensor:
        """[B, V] logits of the answers' first tokens."""
        if self.read is not None:
            return self._decode(self.input_ids)
        mask = None if self.mask is None else self.mask[:, : self.width]
        return prefill(
            self.module,
            self.past,
            self.input_ids,
            chunk=self.factory.prefill_chunk,
            mask=mask,
            extra=self.extra,
        )

    def _decode(self, ids: Tensor) -> Tensor:
        """[B, V] logits after the decoder's next tokens [B, T], of an encoder-decoder."""
        assert self.read is not None
        logits: Tensor = self.module(
            decoder_input_ids=ids, past_key_values=self.past, use_cache=True, **self.read.arguments()
        ).logits
        return logits[:, -1]

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
        if self.read is not None:
            return True
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
        if self.read is not None:
            self.read.select(keep)
        return chosen[keep]

    def _forward(self, chosen: Tensor, step: int) -> Tensor:
        if self.read is not None:
            return self._decode(chosen[:, None])
        arguments: dict[str, Any] = {self.names.cache: self.past, "use_cache": True}
        if self.names.positions:
            # rows that have ended go on beside the others: they must not leave the model's context
            arguments["position_ids"] = (self.length + torch.clamp(self.limit, max=step) - 1)[:, None]
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
                    prompt_tokens=len(request.encoder) or len(request.ids),
                    finish=reason,
                    logps=None if logps is None else tuple(logps[row][: len(ids)]),
                )
            )
        return answers
