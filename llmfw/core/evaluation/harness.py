"""A policy as the language-model evaluation harness (lm-eval) asks it: our log-probs and our engine answer.

So what is measured is the model with its adapter, surgeries, key-value cache and decoder. Encoding,
truncation on the left and rolling windows are those of the harness's own wrapper of transformers models.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from itertools import groupby
from typing import Any

import torch
from lm_eval.api.model import TemplateLM
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from llmfw.core.batch import Batch
from llmfw.core.data import Example, TokenSequence, collate, pad_id_of
from llmfw.core.errors import UsageError
from llmfw.core.evaluation.progress import Teller, batches, counted
from llmfw.core.generation import FULL_CACHE, attention_of, context_length, prefill
from llmfw.core.generation.engine import evaluating
from llmfw.core.generation.sampling import special_ids

_USUAL_LENGTH = 2048
"""Tokens of context for models without a limit, as the harness has it."""
_USUAL_ANSWER = 256
_LENGTHS = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")
_KNOWN = {*_LENGTHS, "until", "do_sample", "temperature", "top_p", "top_k"}

Scored = tuple[float, bool]
"""(log-probability of a continuation in nats, whether greedy decoding would write it)."""


class PolicyLM(TemplateLM):  # type: ignore[misc]  # the package has no types
    """A GeneratingPolicy; asked in one process."""

    def __init__(self, policy: Any, *, show: bool = True) -> None:
        super().__init__()
        self.policy, self.tokenizer, self.show = policy, policy.tokenizer, show
        self.max_length = context_length(policy.module) or _USUAL_LENGTH
        self._device = next(policy.module.parameters()).device

    @property
    def eot_token_id(self) -> int:
        """The end-of-text token."""
        return int(self.tokenizer.eos_token_id)

    @property
    def prefix_token_id(self) -> int:
        """What precedes a text without context: BOS, else the end-of-text token."""
        bos = self.tokenizer.bos_token_id
        if bos is None and self.tokenizer.eos_token_id is None:
            raise UsageError(
                "LM-EVAL-TOKENIZER",
                "the tokenizer has neither a first nor a last token, before which texts could be scored",
                mend="take a tokenizer with bos_token or eos_token",
                key="tokenizer.name",
            )
        return self.eot_token_id if bos is None else int(bos)

    @property
    def tokenizer_name(self) -> str:
        """A name for the harness's caches."""
        return str(self.tokenizer.name_or_path).replace("/", "__")

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **kwargs: Any) -> list[int]:
        """Token ids; the tokenizer's own BOS unless the text already begins with it."""
        if add_special_tokens is None and self.tokenizer.bos_token:
            add_special_tokens = False if string.startswith(self.tokenizer.bos_token) else None
        given = {} if add_special_tokens is None else {"add_special_tokens": add_special_tokens}
        return list(self.tokenizer.encode(string, **given))

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """The messages as one text."""
        return str(
            self.tokenizer.apply_chat_template(
                chat_history,
                tokenize=False,
                add_generation_prompt=add_generation_prompt,
                continue_final_message=not add_generation_prompt,
            )
        )

    def loglikelihood(self, requests: list[Any], disable_tqdm: bool = False) -> list[Scored]:
        """(log-probability, greedy) of each request's continuation after its context."""
        found: list[Scored] = super().loglikelihood(requests, disable_tqdm=True)
        return found

    def loglikelihood_rolling(self, requests: list[Any], disable_tqdm: bool = False) -> list[float]:
        """The log-probability of each whole text, every token once, in windows of the model's context."""
        windows = [
            (index, *make_disjoint_window(window))
            for index, request in enumerate(requests)
            for window in get_rolling_token_windows(
                self.tok_encode(request.args[0]), self.prefix_token_id, self.max_length, 1
            )
        ]
        scores = self._loglikelihood_tokens([(None, before, text) for _, before, text in windows])
        sums = [0.0] * len(requests)
        for (index, _, _), (logp, _) in zip(windows, scores, strict=True):
            sums[index] += logp
        return sums

    def _loglikelihood_tokens(
        self, requests: Sequence[tuple[Any, list[int], list[int]]], **kwargs: Any
    ) -> list[Scored]:
        order = sorted(range(len(requests)), key=lambda i: -len(requests[i][1]) - len(requests[i][2]))
        alone = self.policy.cache not in (None, FULL_CACHE)
        parts = batches(order, 1 if alone else self.policy.batch_size)
        found: dict[int, Scored] = {}
        with evaluating(self.policy.module), torch.inference_mode():
            for part in counted(parts, "log-likelihoods", len, show=self.show):
                chosen = [(requests[index][1], requests[index][2]) for index in part]
                scores = [self._cached(*chosen[0])] if alone else self._batched(chosen)
                found |= dict(zip(part, scores, strict=True))
        return [found[index] for index in range(len(requests))]

    def _batched(self, pairs: Sequence[tuple[list[int], list[int]]]) -> list[Scored]:
        batch = self._batch(pairs).to(self._device)
        logps, best = self.policy.logps_and_best(batch)
        sizes = batch.length.tolist()
        return [
            (float(logp.double().sum()), bool(same.all()))
            for logp, same in zip(logps.split(sizes), (best == batch.target).split(sizes), strict=True)
        ]

    def _batch(self, pairs: Sequence[tuple[list[int], list[int]]]) -> Batch:
        """A batch whose trained tokens are the continuations; their last tokens are predicted, but not read,
        so that a row of the context's length and one more fits.
        """
        rows = [(before + text)[-(self.max_length + 1) :] for before, text in pairs]
        examples = [
            Example(
                id=str(index),
                kind="text",
                sequences=(TokenSequence(tuple(row[:-1]), (False,) * (len(row) - 1)),),
                extra={"prompt_length": (len(row) - len(text),)},
            )
            for index, (row, (_, text)) in enumerate(zip(rows, pairs, strict=True))
        ]
        batch = collate(examples, pad_id_of(self.tokenizer))
        width = batch.input_ids.shape[1]
        spots = [
            (index * width + len(row) - len(text) - 1 + place, token, index, place + 1)
            for index, (row, (_, text)) in enumerate(zip(rows, pairs, strict=True))
            for place, token in enumerate(text)
        ]
        source, target, segment, position = torch.tensor(spots, dtype=torch.int64).unbind(1)
        length = torch.tensor([len(text) for _, text in pairs], dtype=torch.int64)
        return replace(batch, source=source, target=target, segment=segment, position=position, length=length)

    def _cached(self, before: list[int], text: list[int]) -> Scored:
        """The same through the policy's key-value cache: the context is read in as a prompt is, then the
        continuation token by token, as it would be written.
        """
        policy, factory = self.policy, self.policy.cache
        row = (before + text)[-(self.max_length + 1) :]
        context = torch.tensor([row[: len(row) - len(text)]], device=self._device)
        wants = "prompt_length" in getattr(policy, "batch_keys", ())
        extra = {"prompt_length": torch.tensor([context.shape[1]], device=self._device)} if wants else {}
        total, greedy = 0.0, True
        with attention_of(policy.module, factory):
            past = factory.build(policy.module.config)
            logits = prefill(policy.module, past, context, chunk=factory.prefill_chunk, extra=extra)
            if factory.after_prefill is not None:
                factory.after_prefill(past)
            for place, token in enumerate(text):
                logps = torch.log_softmax(logits[0].float(), -1)
                total += float(logps[token])
                greedy &= int(logps.argmax()) == token
                if place + 1 < len(text):
                    step = torch.tensor([[token]], device=self._device)
                    logits = prefill(policy.module, past, step, seen=context.shape[1] + place)
        return total, greedy

    def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[str]:
        """The engine's answers, each up to its request's stop texts.

        Raises:
            UsageError: a task asks for a way of generation that the engine doesn't have.
        """
        keys = [str(sorted(request.args[1].items(), key=str)) for request in requests]
        order = sorted(range(len(requests)), key=lambda index: keys[index])
        found: dict[int, str] = {}
        groups = groupby(order, key=lambda index: keys[index])
        with closing(Teller("answers", len(requests), show=self.show)) as teller:
            for _, group in groups:
                found |= self._written(requests, list(group), teller)
        return [found[index] for index in range(len(requests))]

    def _written(self, requests: list[Any], members: list[int], teller: Teller) -> dict[int, str]:
        """Answers to the requests of one group, which share their settings."""
        found: dict[int, str] = {}
        sampling = self._sampling(requests[members[0]].args[1])
        room = self.max_length - sampling["max_new_tokens"]
        if room < 1:
            raise UsageError(
                "LM-EVAL-GENERATION",
                f"a task wants answers of {sampling['max_new_tokens']} tokens, the model's context has "
                f"{self.max_length}",
                mend="take a model with a longer context, or set max_gen_toks in the task",
                key="evaluation.lm_eval",
            )
        prompts = {index: self.tok_encode(requests[index].args[0])[-room:] for index in members}
        members.sort(key=lambda index: -len(prompts[index]))
        for part in batches(members, self.policy.batch_size):
            told = self.policy.generate(
                [prompts[index] for index in part], ids=[str(index) for index in part], **sampling
            )
            found |= {index: answer.text for index, answer in zip(part, told, strict=True)}
            teller.add(len(part))
        return found

    def _sampling(self, asked: dict[str, Any]) -> dict[str, Any]:
        """A task's ``generation_kwargs`` as settings of the engine."""
        unknown = [key for key, value in asked.items() if key not in _KNOWN and value not in (None, False, 1)]
        if unknown:
            raise UsageError(
                "LM-EVAL-GENERATION",
                f"a task sets {unknown[0]}={asked[unknown[0]]!r} for its answers, which isn't done here",
                mend=f"leave it out of the task's generation_kwargs; known are {', '.join(sorted(_KNOWN))}",
                key="evaluation.lm_eval",
            )
        lengths = [int(asked[key]) for key in _LENGTHS if asked.get(key) is not None]
        until = asked.get("until") or []
        until = [until] if isinstance(until, str) else list(until)
        special = special_ids(self.tokenizer)
        marks = {text: self.tokenizer.convert_tokens_to_ids(text) for text in until}
        ends = {token for token in marks.values() if token in special}
        heat = float(asked.get("temperature") or 0.0)
        return {
            "max_new_tokens": lengths[0] if lengths else _USUAL_ANSWER,
            "temperature": (heat or 1.0) if asked.get("do_sample", heat > 0) else 0.0,
            "top_p": float(asked.get("top_p") or 1.0),
            "top_k": int(asked.get("top_k") or 0),
            "stop": tuple(text for text, token in marks.items() if token not in special),
            "stop_ids": tuple(sorted({*self.policy.sampling.stop_ids, *ends})),
            "samples": 1,
            "logps": False,
        }
