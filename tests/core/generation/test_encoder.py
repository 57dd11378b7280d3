"""Encoder-decoders that write: transformers' own tokens, whatever stands beside a prompt in its batch."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from llmfw.core.errors import ConflictError, UsageError
from llmfw.core.generation import GeneratingPolicy, Sampling, encode_sides, generate, ids_read, score_examples
from llmfw.core.models import LocalPolicy, Sides
from llmfw.core.models.byte_level import byte_tokenizer
from llmfw.core.records import CacheFactory, Decoder
from tests.toys.encoder_decoder import BART, MT5, PEGASUS, T5, bart_tokenizer, make

IDS = {"pad_token_id": 256, "bos_token_id": 257, "eos_token_id": 258, "decoder_start_token_id": 256}
PROMPTS = ["hello", "a", "what is it, then?", "zz top"]
ENDS = (258, *range(40))
"""Many ends, so that answers are of many lengths."""


@pytest.fixture(scope="module", params=["t5", "mt5", "bart", "pegasus"])
def model(request: pytest.FixtureRequest) -> Any:
    config = {"t5": T5, "mt5": MT5, "bart": BART, "pegasus": PEGASUS}[request.param]
    return make({**config, **IDS, "forced_eos_token_id": None}, wide=0.3)


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    """Bytes without a chat template."""
    plain = byte_tokenizer()
    plain.chat_template = None
    return plain


def _theirs(model: Any, tokenizer: Any, prompt: str, ends: tuple[int, ...], **more: Any) -> list[int]:
    ids = torch.tensor([tokenizer(prompt)["input_ids"]])
    found = model.generate(
        input_ids=ids, attention_mask=torch.ones_like(ids), do_sample=False, num_beams=1,
        max_new_tokens=20, eos_token_id=list(ends), **more,
    )  # fmt: skip
    return found[0, 1:].tolist()


def test_greedy_answers_are_transformers_own_in_one_padded_batch(model: Any, tokenizer: Any):
    answers = generate(model, tokenizer, PROMPTS, Sampling(max_new_tokens=20, stop_ids=ENDS))
    assert [list(answer.ids) for answer in answers] == [
        _theirs(model, tokenizer, prompt, ENDS) for prompt in PROMPTS
    ]
    assert [answer.prompt_tokens for answer in answers] == [5, 1, 17, 6]


def test_samples_belong_to_their_prompt_and_not_to_its_batch(model: Any, tokenizer: Any):
    drawn = Sampling(
        max_new_tokens=16, stop_ids=ENDS, temperature=1.0, top_p=0.95, seed=3, samples=3, logps=True
    )
    together = generate(model, tokenizer, PROMPTS, drawn, ids=PROMPTS, batch_size=12)
    alone = generate(model, tokenizer, PROMPTS[::-1], drawn, ids=PROMPTS[::-1], batch_size=1)
    turned = [alone[(3 - at // 3) * 3 + at % 3] for at in range(12)]
    assert [one.ids for one in together] == [other.ids for other in turned]
    assert len({len(one.ids) for one in together}) > 2  # rows left the batch at different steps
    for one, other in zip(together, turned, strict=True):
        assert one.logps == pytest.approx(other.logps, abs=1e-4)


def test_the_log_probs_of_an_answer_are_those_that_training_gives_it(model: Any, tokenizer: Any):
    from llmfw.core.data import Example, TokenSequence

    (answer,) = generate(model, tokenizer, ["hello"], Sampling(max_new_tokens=8, logps=True))
    row = TokenSequence((256, *answer.ids), (False, *[True] * len(answer.ids)), tuple(b"hello"))
    policy = LocalPolicy(model, tokenizer=tokenizer)
    ((score,),) = score_examples(policy, [Example(id="a", kind="text", sequences=(row,))])
    assert score.logp == pytest.approx(sum(answer.logps), abs=1e-4)


def test_a_given_beginning_is_gone_on_from(model: Any, tokenizer: Any):
    """A beginning of two tokens for one row, none for the other: each goes on as if it were alone."""
    sampling = Sampling(max_new_tokens=12)
    read = torch.tensor([list(b"hello")])
    whole = model.generate(
        input_ids=read, decoder_input_ids=torch.tensor([[256, *b"ab"]]), do_sample=False,
        attention_mask=torch.ones_like(read), max_new_tokens=12, eos_token_id=[999],
    )[0, 3:].tolist()  # fmt: skip
    first, second = generate(model, tokenizer, ["hello", "a"], sampling, prefix=["ab", ""])
    assert list(first.ids) == whole
    assert second.ids == generate(model, tokenizer, ["a"], sampling)[0].ids


def test_a_forced_first_token_stands_before_the_answer(tokenizer: Any):
    """A translator's language: transformers writes it as the first token, we begin behind it."""
    model = make({**BART, **IDS, "forced_eos_token_id": None}, wide=0.3)
    model.generation_config.forced_bos_token_id = 77
    (answer,) = generate(model, tokenizer, ["hello"], Sampling(max_new_tokens=19, stop_ids=(258,)))
    theirs = _theirs(model, tokenizer, "hello", (258,))
    assert theirs == [77, *answer.ids]


def test_token_ids_are_read_as_they_are(model: Any, tokenizer: Any):
    sampling = Sampling(max_new_tokens=6)
    one, other = generate(model, tokenizer, ["hello", list(b"hello")], sampling)
    assert one.ids == other.ids


def test_the_policy_says_its_sides_and_watches(model: Any, tokenizer: Any):
    policy = GeneratingPolicy(LocalPolicy(model, tokenizer=tokenizer), tokenizer, Sampling(max_new_tokens=5))
    assert policy.sides.start == 256
    seen: list[tuple[int, int]] = []
    answers = policy.generate(["hello", "a"], watch=lambda index, token: seen.append((index, token)))
    for index, answer in enumerate(answers):
        assert tuple(token for at, token in seen if at == index) == answer.ids
    assert policy.usage.prompt_tokens == 6


def test_positions_bound_prompt_and_answer_apart():
    """16 positions: a prompt of 16 and, after the start token, 15 tokens of an answer; 17 are too many."""
    model = make({**BART, **IDS, "max_position_embeddings": 16, "forced_eos_token_id": None}, wide=0.3)
    plain = byte_tokenizer()
    plain.chat_template = None
    (answer,) = generate(model, plain, ["x" * 16], Sampling(max_new_tokens=40))
    assert len(answer.ids) == 15 and answer.finish == "length"
    with pytest.raises(UsageError, match="PROMPT-TOO-LONG"):
        generate(model, plain, ["x" * 17], Sampling(max_new_tokens=4))


def test_caches_and_decoders_of_plugins_are_refused(model: Any, tokenizer: Any):
    cache = CacheFactory(name="sink", build=lambda config: None)
    decoder = Decoder(name="tree", generate=lambda *_: [1])
    with pytest.raises(ConflictError, match="cache sink is for decoder-only models"):
        generate(model, tokenizer, ["a"], Sampling(), cache=cache)
    with pytest.raises(ConflictError, match="decoder tree is for decoder-only models"):
        generate(model, tokenizer, ["a"], Sampling(), decoder=decoder)


def test_both_sides_of_a_prompt_are_those_of_training():
    """BART's marks: <s> 261 and </s> 262 around what is read; before a given beginning stands <s> alone."""
    bart, sides = bart_tokenizer(), Sides(start=262)
    assert encode_sides(bart, "hi", sides) == ([261, *b"hi", 262], [262])
    assert encode_sides(bart, "hi", sides, "it") == ([261, *b"hi", 262], [262, 261, *b"it"])
    forced = Sides(start=262, forced=261)
    assert encode_sides(bart, "hi", forced) == ([261, *b"hi", 262], [262, 261])
    assert encode_sides(bart, "hi", forced, "it")[1] == [262, 261, *b"it"]
    assert ids_read(bart, "hi", sides) == [261, *b"hi", 262] and ids_read(bart, "hi") == [261, *b"hi"]
    with pytest.raises(UsageError, match="EMPTY-PROMPT"):
        encode_sides(byte_tokenizer(), [], Sides(start=256))
    with pytest.raises(UsageError, match="NO-TEMPLATE"):
        encode_sides(bart, [{"role": "user", "content": "hi"}], sides)
