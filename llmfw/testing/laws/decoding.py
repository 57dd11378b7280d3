"""Laws of key-value caches and decoders.

That a cache with room for everything equals the full one, and a decoder without guesses the plain one, is
said by ``neutral``.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from llmfw.core.errors import LlmfwError, PluginError
from llmfw.core.models.rng import global_state, private_rng, same_state
from llmfw.core.open import Opened
from llmfw.core.records import CacheFactory, Decoder
from llmfw.testing.answers import (
    answers,
    breaking_off,
    decode,
    entries,
    fingerprint,
    opened,
    prompts,
)
from llmfw.testing.laws import NotApplicable, broken, law
from llmfw.testing.subject import Subject

_LENGTHS = (48, 192, 768)
"""Lengths of prompts, tokens; the first over which a budget says something is taken."""
_NEW = 24


def _cache(model: Opened) -> CacheFactory:
    found: CacheFactory | None = model.plan.one("llmfw_kv_cache")
    if found is None:
        raise NotApplicable("it brings no cache under the kit's settings")
    return found


def _decoder(model: Opened) -> Decoder:
    found: Decoder | None = model.plan.one("llmfw_decoder")
    if found is None:
        raise NotApplicable("it brings no decoder under the kit's settings")
    return found


def _kept(factory: CacheFactory) -> tuple[CacheFactory, list[Any]]:
    """The factory, and the list to which each cache that it builds is added."""
    made: list[Any] = []

    def build(config: Any) -> Any:
        made.append(factory.build(config))
        return made[-1]

    return replace(factory, build=build), made


def _tight(model: Opened, factory: CacheFactory) -> int:
    """Length of a prompt that is longer than the budget has room for, tokens."""
    layers = model.policy.module.config.get_text_config().num_hidden_layers
    for length in _LENGTHS:
        if factory.budget is None or factory.budget(length, 0) < layers * length:
            return length
    raise broken(
        f"its budget has room for all of a prompt of {_LENGTHS[-1]} tokens, so the kit never sees it at work",
        mend="set a smaller one under [conformance.settings]",
    )


@law("budget", "kv_cache")
def budget(subject: Subject) -> None:
    """After a prompt and after each new token the cache keeps no more entries than ``CacheFactory.budget``
    says."""
    model = opened(subject)
    factory, made = _kept(_cache(model))
    allowed = factory.budget
    if allowed is None:
        raise NotApplicable("its CacheFactory states no budget")
    length, steps = _tight(model, factory), 0

    def watch(index: int, token: int) -> None:
        nonlocal steps
        held, most = entries(made[-1]), allowed(length, steps)
        if held > most:
            raise broken(
                f"after a prompt of {length} tokens and {steps} new ones the cache keeps {held} entries, "
                f"its budget is {most}",
                mend="evict in after_prefill and at each update, or let CacheFactory.budget say what is true",
            )
        steps += 1

    answers(model, prompts(model, length), cache=factory, max_new_tokens=_NEW, watch=watch)


@law("restored", "kv_cache", "decoder")
def restored(subject: Subject) -> None:
    """After a call, and after an error in the middle of one, the model's settings, attention, hooks and
    tensors are what they were."""
    model = opened(subject, fresh=True)
    module = model.policy.module
    cache, decoder = model.plan.one("llmfw_kv_cache"), model.plan.one("llmfw_decoder")
    if cache is None and decoder is None:
        raise NotApplicable("it brings neither a cache nor a decoder under the kit's settings")
    before = fingerprint(module)
    for moment, call in (("a call", 0), ("an error in the middle of a call", 2)):
        with breaking_off(module, call=call):
            answers(model, prompts(model, 20), cache=cache, decoder=decoder)
        after = fingerprint(module)
        changed = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
        if changed:
            raise broken(
                f"after {moment} another {changed[0]} is left",
                mend="undo it in a finally block, or change a copy",
            )


@law("chunked-prefill", "kv_cache")
def chunked_prefill(subject: Subject) -> None:
    """A prompt read in chunks of any length gives the same tokens, unless ``refuses`` names
    ``chunked_prefill``."""
    model = opened(subject)
    factory = _cache(model)
    if "chunked_prefill" in factory.refuses:
        raise NotApplicable("it refuses chunked_prefill")
    given = prompts(model, _tight(model, factory), 17)
    wanted = [answer.ids for answer in answers(model, given, cache=factory)]
    for chunk in (None, 7, 16):
        found = [answer.ids for answer in answers(model, given, cache=replace(factory, prefill_chunk=chunk))]
        if found != wanted:
            size = "in one pass" if chunk is None else f"{chunk} tokens at a time"
            raise broken(
                f"a prompt that is read {size} gets another answer than with prefill_chunk="
                f"{factory.prefill_chunk}",
                mend="evict in after_prefill, when all was read; or name chunked_prefill in refuses",
            )


@law("batch-rows", "kv_cache")
def batch_rows(subject: Subject) -> None:
    """With ``batched`` each row of a batch is answered as if it were alone, also once others have left."""
    model = opened(subject)
    factory = _cache(model)
    if not factory.batched:
        raise NotApplicable("it is not batched: each prompt has a cache of its own")
    given = prompts(model, *[_tight(model, factory)] * 3)
    free = answers(model, given, cache=factory, max_new_tokens=_NEW)
    # two rows end early, so that the third goes on in a smaller batch
    stops = tuple(answer.ids[3 + row] for row, answer in enumerate(free[:2]))
    for stop_ids in ((), stops):
        alone, together = (
            answers(model, given, cache=factory, max_new_tokens=_NEW, batch_size=size, stop_ids=stop_ids)
            for size in (1, 3)
        )
        for row, (left, right) in enumerate(zip(alone, together, strict=True)):
            if left.ids != right.ids:
                raise broken(
                    f"row {row} of a batch is answered otherwise than alone"
                    + (" once other rows have left" if stop_ids else ""),
                    mend="let no row look at another, drop rows in batch_select_indices; or batched=False",
                )


@law("long-answers", "kv_cache")
def long_answers(subject: Subject) -> None:
    """Past the budget generation goes on, gives the same tokens each time, and the cache still counts every
    token that was read."""
    model = opened(subject)
    factory, made = _kept(_cache(model))
    length, steps = _tight(model, factory), 0

    def watch(index: int, token: int) -> None:
        nonlocal steps
        told = int(made[-1].get_seq_length())
        if told != length + steps:
            raise broken(
                f"after {length + steps} tokens get_seq_length() says {told}",
                mend="count what update() receives: positions are taken from there",
            )
        steps += 1

    given = prompts(model, length)
    first = answers(model, given, cache=factory, max_new_tokens=2 * _NEW, watch=watch)
    again = answers(model, given, cache=factory, max_new_tokens=2 * _NEW)
    if first[0].ids != again[0].ids:
        raise broken("the same prompt gets another answer", mend="keep nothing from one cache to the next")


@law("greedy-parity", "decoder")
def greedy_parity(subject: Subject) -> None:
    """At temperature 0 a decoder gives the tokens that the model gives one by one, the stop token included;
    one that means to give others is exempted with its reason."""
    model = opened(subject)
    decoder = _decoder(model)
    given = prompts(model, 1, 12, 33)
    stop = answers(model, given, max_new_tokens=_NEW)[1].ids[9]
    for stop_ids in ((), (stop,)):
        wanted = answers(model, given, max_new_tokens=_NEW, stop_ids=stop_ids)
        found = answers(model, given, decoder=decoder, max_new_tokens=_NEW, stop_ids=stop_ids)
        for own, plain in zip(found, wanted, strict=True):
            if own.ids != plain.ids:
                same = next(
                    (n for n, (a, b) in enumerate(zip(own.ids, plain.ids, strict=False)) if a != b),
                    min(len(own.ids), len(plain.ids)),
                )
                raise broken(
                    f"after {same} equal tokens of {len(plain.ids)} the answer to a prompt of "
                    f"{plain.prompt_tokens} goes another way than the model's own greedy one",
                    mend="accept a drafted token only where it's the model's own choice",
                )


@law("respects-limits", "decoder")
def respects_limits(subject: Subject) -> None:
    """A decoder itself returns 1 to ``max_new_tokens`` ids of the vocabulary, and none after a stop token."""
    model = opened(subject)
    _decoder(model)
    size = int(model.policy.module.get_input_embeddings().weight.shape[0])
    (prompt,) = prompts(model, 20)
    for limit in (1, 2, 7):
        found = decode(model, prompt, max_new_tokens=limit)
        if not 1 <= len(found) <= limit:
            raise broken(
                f"{len(found)} tokens were returned where max_new_tokens is {limit}",
                mend="cut the last draft",
            )
        if not all(0 <= token < size for token in found):
            raise broken(f"{max(found)} is no id of {size}", mend="return ids of the model's vocabulary")
    free = decode(model, prompt, max_new_tokens=_NEW)
    stop = free[min(5, len(free) - 1)]
    found = decode(model, prompt, max_new_tokens=_NEW, stop_ids=(stop,))
    if stop not in found or found.index(stop) != len(found) - 1:
        past = len(found) - 1 - found.index(stop) if stop in found else 0
        raise broken(
            f"{past} tokens follow a stop token" if past else "the stop token itself is missing",
            mend="end with the first of sampling.stop_ids, that token included",
        )


@law("decoder-deterministic", "decoder")
def decoder_deterministic(subject: Subject) -> None:
    """Tokens that are drawn depend on ``sampling.seed`` alone: not on the global generators, which are left
    as they were."""
    model = opened(subject)
    decoder = _decoder(model)
    found = []
    for seed in (1, 2):
        with private_rng(seed):
            state = global_state()
            try:
                told = answers(
                    model, prompts(model, 12), decoder=decoder, max_new_tokens=_NEW, temperature=1.0, seed=3
                )
            except PluginError:
                raise  # it fell over; who draws nothing says so in an error of another kind
            except LlmfwError as error:
                raise NotApplicable(f"it draws nothing: {error}") from error
            untouched = same_state(state, global_state())
        found.append(told[0].ids)
        if not untouched:
            break
    if found[0] != found[-1] or not untouched:
        what = "changes a global generator" if not untouched else "gives other tokens for the same seed"
        raise broken(
            f"at temperature 1 the decoder {what}",
            mend="draw with llmfw.core.generation: uniforms and pick, seeded by sampling.seed",
        )
