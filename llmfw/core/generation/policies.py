"""Policies that answer: a local model with the engine attached, and a function that plays a model.

Both look like ``llmfw.core.records.Policy`` with ``embed`` beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from llmfw.core.batch import Batch
from llmfw.core.errors import PluginError
from llmfw.core.generation.caches import base_model
from llmfw.core.generation.engine import generate
from llmfw.core.generation.prompts import Prompt, encode_prompt
from llmfw.core.generation.rows import Backend, Done, Watch, missing
from llmfw.core.generation.sampling import Sampling
from llmfw.core.models.encoder_decoder import Sides, sides_of
from llmfw.core.models.policy import embed_texts
from llmfw.core.records import CacheFactory, Completion, Decoder


@dataclass
class Usage:
    """Tokens that a policy has read and written since it was made."""

    calls: int = 0
    prompt_tokens: int = 0
    generated_tokens: int = 0

    def add(self, answers: Sequence[Completion], known: Container[int] = ()) -> None:
        """Counts one call's answers but for those that were known before, given by their indices."""
        answers = [answer for index, answer in enumerate(answers) if index not in known]
        self.calls += 1
        self.prompt_tokens += sum(answer.prompt_tokens for answer in answers)
        self.generated_tokens += sum(answer.tokens for answer in answers)


class GeneratingPolicy:
    """A ``LocalPolicy`` that also generates, with the run's sampling settings, cache and decoder."""

    def __init__(
        self,
        policy: Any,
        tokenizer: Any,
        sampling: Sampling,
        *,
        cache: CacheFactory | None = None,
        decoder: Decoder | None = None,
        batch_size: int = 8,
        backend: Backend | None = None,
    ) -> None:
        self._policy, self.tokenizer, self.sampling = policy, tokenizer, sampling
        self.cache, self.decoder, self.batch_size = cache, decoder, batch_size
        self.backend = backend
        self.usage = Usage()

    @property
    def module(self) -> Any:
        """The transformers model (or PEFT model)."""
        return self._policy.module

    @property
    def sides(self) -> Sides | None:
        """How an encoder-decoder's rows are laid out; None for a decoder-only model."""
        model: Any = base_model(self.module)
        return sides_of(model.config, getattr(model, "generation_config", None))

    @property
    def companions(self) -> Mapping[str, Any]:
        """Modules that surgeries put beside the model."""
        companions: Mapping[str, Any] = self._policy.companions
        return companions

    def __getattr__(self, name: str) -> Any:
        if name == "_policy":  # not yet set: copying and unpickling look names up on an empty object
            raise AttributeError(name)
        return getattr(self._policy, name)

    def logps(self, batch: Batch) -> Tensor:
        """[N] float32 log-probs of the trained tokens."""
        result: Tensor = self._policy.logps(batch)
        return result

    def hidden_states(self, batch: Batch, layer: int) -> Tensor:
        """[B, T, D] states entering ``layer`` (-1: after the final norm)."""
        result: Tensor = self._policy.hidden_states(batch, layer)
        return result

    def generate(
        self,
        prompts: Sequence[Prompt],
        *,
        prefix: str | Sequence[str] = "",
        ids: Sequence[str | int] | None = None,
        batch_size: int | None = None,
        watch: Watch | None = None,
        known: Mapping[int, Completion] | None = None,
        done: Done | None = None,
        **sampling: Any,
    ) -> list[Completion]:
        """Answers; further keywords are settings of ``Sampling`` that replace the run's in this call."""
        answers = generate(
            self.module,
            self.tokenizer,
            prompts,
            self.sampling.but(**sampling),
            prefix=prefix,
            ids=ids,
            cache=self.cache,
            decoder=self.decoder,
            batch_size=batch_size or self.batch_size,
            policy=self,
            watch=watch,
            known=known,
            done=done,
            batch_keys=getattr(self._policy, "batch_keys", ()),
            backend=self.backend,
        )
        self.usage.add(answers, known or ())
        return answers

    def embed(self, texts: Sequence[str]) -> Tensor:
        """[len(texts), D] float32: the final norm's output averaged over the tokens of a raw text."""
        return embed_texts(self, self.tokenizer, texts)


class TextPolicy:
    """What only answers: no weights here, so no log-probs of batches and no layers."""

    _kind = "this policy"

    def __init__(self, tokenizer: Any = None) -> None:
        self.tokenizer = tokenizer
        self.usage = Usage()

    @property
    def module(self) -> Any:
        """Out of reach."""
        raise self._lacks("module")

    @property
    def companions(self) -> Mapping[str, Any]:
        """None."""
        return {}

    def logps(self, batch: Batch) -> Tensor:
        """Out of reach."""
        raise self._lacks("log-probs of batches")

    def hidden_states(self, batch: Batch, layer: int) -> Tensor:
        """Out of reach."""
        raise self._lacks("hidden states")

    def embed(self, texts: Sequence[str]) -> Tensor:
        """Out of reach."""
        raise self._lacks("embeddings")

    def _lacks(self, what: str) -> NotImplementedError:
        return NotImplementedError(f"{self._kind} has no {what}")


class ScriptedPolicy(TextPolicy):
    """A function that plays a model: an oracle, a noisy oracle, a canned dialogue.

    Args:
        answer: ``answer(prompts) -> texts``, one a prompt. It sees the prompts as they were given.
        tokenizer: counts tokens and fills ``Completion.ids``; without one both stay empty.
    """

    _kind = "a scripted policy"

    def __init__(self, answer: Callable[[Sequence[Prompt]], Sequence[str]], tokenizer: Any = None) -> None:
        super().__init__(tokenizer)
        self._answer = answer

    def generate(
        self,
        prompts: Sequence[Prompt],
        *,
        prefix: str | Sequence[str] = "",
        ids: Sequence[str | int] | None = None,
        batch_size: int | None = None,
        watch: Watch | None = None,
        known: Mapping[int, Completion] | None = None,
        done: Done | None = None,
        **sampling: Any,
    ) -> list[Completion]:
        """The function's texts, ``samples`` of them a prompt; no other setting means anything here."""
        settings = Sampling().but(**sampling)
        answers, total = dict(known or {}), len(prompts) * settings.samples
        open_ones = missing(total, known)
        asked = [prompts[index // settings.samples] for index in open_ones]
        texts = list(self._answer(asked)) if asked else []
        if len(texts) != len(asked):
            raise PluginError(
                "SCRIPTED-POLICY",
                f"the function answered {len(asked)} prompts with {len(texts)} texts",
                mend="return one text a prompt",
            )
        openings = [prefix] * len(prompts) if isinstance(prefix, str) else list(prefix)
        for index, prompt, text in zip(open_ones, asked, texts, strict=True):
            written: tuple[int, ...] = ()
            read = 0
            if self.tokenizer is not None:
                written = tuple(self.tokenizer(text, add_special_tokens=False)["input_ids"])
                read = len(encode_prompt(self.tokenizer, prompt, openings[index // settings.samples]))
            answers[index] = Completion(text=text, ids=written, prompt_tokens=read, finish="stop")
            if done is not None:
                done(index, answers[index])
        found = [answers[index] for index in range(total)]
        self.usage.add(found, known or ())
        return found
