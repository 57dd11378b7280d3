"""The engine against transformers' own generate, and its promises about batches, seeds, ends and modes."""

from __future__ import annotations

import pytest
import torch
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaForCausalLM,
    MambaConfig,
    MambaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedTokenizerFast,
)

from llmfw.core.errors import NumericsError, PluginError, UsageError
from llmfw.core.generation import Sampling, encode_prompt, generate
from llmfw.core.records import Completion, Decoder
from tests.core.generation.conftest import tiny_llama

PROMPTS = [
    "Name a river.",
    "Hi",
    "What is the longest word that you know, and who told you about it?",
    "2+2=",
    "Sing!",
]


def greedy_by_transformers(model, ids: list[int], length: int, stop: tuple[int, ...] = ()) -> list[int]:
    row = torch.tensor([ids])
    eos = list(stop) or None
    model.generation_config.eos_token_id = eos
    new = model.generate(
        row, attention_mask=torch.ones_like(row), max_new_tokens=length, do_sample=False, pad_token_id=256
    )
    return new[0, len(ids) :].tolist()


def test_greedy_answers_of_a_padded_batch_equal_transformers_one_by_one(model: LlamaForCausalLM, tokenizer):
    answers = generate(model, tokenizer, PROMPTS, Sampling(max_new_tokens=24))
    for prompt, answer in zip(PROMPTS, answers, strict=True):
        ids = encode_prompt(tokenizer, prompt)
        assert list(answer.ids) == greedy_by_transformers(model, ids, 24)
        assert (answer.prompt_tokens, answer.finish) == (len(ids), "length")


def test_rows_that_stop_early_leave_the_batch_and_the_others_go_on_as_if_alone(model, tokenizer):
    free = generate(model, tokenizer, PROMPTS, Sampling(max_new_tokens=30))
    # end-of-turn tokens chosen so that answers 0 to 3 stop at four different moments
    stop = tuple(free[row].ids[at] for row, at in ((0, 3), (1, 9), (2, 14), (3, 20)))
    answers = generate(model, tokenizer, PROMPTS, Sampling(max_new_tokens=30, stop_ids=stop))
    for prompt, answer in zip(PROMPTS, answers, strict=True):
        assert list(answer.ids) == greedy_by_transformers(model, encode_prompt(tokenizer, prompt), 30, stop)
    assert len({len(answer.ids) for answer in answers}) >= 3
    ended = [answer for answer in answers if answer.finish == "stop"]
    assert len(ended) >= 4 and all(answer.ids[-1] in stop for answer in ended)


@pytest.mark.parametrize("name", ["sliding window", "learned positions", "recurrent"])
def test_other_architectures_answer_as_in_transformers(name: str, tokenizer: PreTrainedTokenizerFast):
    torch.manual_seed(0)
    common = {"vocab_size": 260, "bos_token_id": None, "eos_token_id": None, "pad_token_id": 256}
    if name == "sliding window":
        model = MistralForCausalLM(
            MistralConfig(
                hidden_size=32,
                intermediate_size=64,
                num_hidden_layers=2,
                num_attention_heads=4,
                num_key_value_heads=2,
                sliding_window=16,
                initializer_range=0.3,
                **common,
            )
        )
    elif name == "learned positions":
        model = GPT2LMHeadModel(
            GPT2Config(n_embd=32, n_layer=2, n_head=4, n_positions=256, initializer_range=0.3, **common)
        )
    else:
        model = MambaForCausalLM(
            MambaConfig(hidden_size=32, num_hidden_layers=2, state_size=8, initializer_range=0.3, **common)
        )
    model.eval()
    answers = generate(model, tokenizer, [*PROMPTS, "Lo"], Sampling(max_new_tokens=20))
    for prompt, answer in zip([*PROMPTS, "Lo"], answers, strict=True):
        assert list(answer.ids) == greedy_by_transformers(model, encode_prompt(tokenizer, prompt), 20)


def test_a_lora_model_answers_as_its_merged_twin(tokenizer):
    from peft import LoraConfig, get_peft_model

    lora = get_peft_model(tiny_llama(), LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False))
    through_peft = generate(lora, tokenizer, PROMPTS, Sampling(max_new_tokens=20))
    merged = lora.merge_and_unload()
    assert [a.ids for a in through_peft] == [
        a.ids for a in generate(merged, tokenizer, PROMPTS, Sampling(max_new_tokens=20))
    ]
    assert (
        through_peft[0].ids != generate(tiny_llama(), tokenizer, PROMPTS, Sampling(max_new_tokens=20))[0].ids
    )


def test_a_sample_depends_on_seed_id_and_index_not_on_its_neighbours(model, tokenizer):
    sampling = Sampling(max_new_tokens=15, temperature=0.9, top_p=0.95, seed=3, samples=2)
    together = generate(model, tokenizer, PROMPTS, sampling, ids=list("abcde"), batch_size=4)
    turned = generate(model, tokenizer, PROMPTS[::-1], sampling, ids=list("edcba"), batch_size=3)
    alone = generate(model, tokenizer, [PROMPTS[2]], sampling, ids=["c"])
    assert [a.ids for a in together[4:6]] == [a.ids for a in alone] == [a.ids for a in turned[4:6]]
    assert [a.ids for a in together[0:2]] == [a.ids for a in turned[8:10]]


def test_seeds_ids_and_sample_indices_all_change_the_draw(model, tokenizer):
    sampling = Sampling(max_new_tokens=15, temperature=1.5, samples=2)
    first = generate(model, tokenizer, ["Hi"], sampling, ids=["x"])
    assert first[0].ids != first[1].ids
    assert first[0].ids != generate(model, tokenizer, ["Hi"], sampling, ids=["y"])[0].ids
    assert first[0].ids != generate(model, tokenizer, ["Hi"], sampling.but(seed=1), ids=["x"])[0].ids
    assert [a.ids for a in first] == [a.ids for a in generate(model, tokenizer, ["Hi"], sampling, ids=["x"])]


def test_samples_asked_for_in_two_calls_are_those_of_one(model, tokenizer):
    sampling = Sampling(max_new_tokens=15, temperature=1.5, samples=5)
    whole = generate(model, tokenizer, ["Hi"], sampling, ids=["x"])
    parts = [
        *generate(model, tokenizer, ["Hi"], sampling.but(samples=2), ids=["x"]),
        *generate(model, tokenizer, ["Hi"], sampling.but(samples=3, first=2), ids=["x"]),
    ]
    assert [a.ids for a in parts] == [a.ids for a in whole] and len({a.ids for a in whole}) == 5


def test_a_shorter_sampled_answer_is_the_beginning_of_a_longer_one(model, tokenizer):
    sampling = Sampling(max_new_tokens=30, temperature=1.0)
    long = generate(model, tokenizer, ["Hi"], sampling)[0].ids
    assert generate(model, tokenizer, ["Hi"], sampling.but(max_new_tokens=7))[0].ids == long[:7]


def test_generating_leaves_the_global_generator_alone(model, tokenizer):
    before = torch.get_rng_state()
    generate(model, tokenizer, PROMPTS, Sampling(max_new_tokens=5, temperature=1.0))
    assert torch.equal(before, torch.get_rng_state())


def test_log_probs_are_the_models_own_whatever_the_sampling(model, tokenizer):
    answers = generate(
        model, tokenizer, PROMPTS[:3], Sampling(max_new_tokens=12, temperature=0.7, top_k=5, logps=True)
    )
    for prompt, answer in zip(PROMPTS, answers):
        ids = encode_prompt(tokenizer, prompt)
        with torch.no_grad():
            logits = model(torch.tensor([[*ids, *answer.ids]])).logits[0, len(ids) - 1 : -1]
        wanted = logits.log_softmax(-1).gather(-1, torch.tensor(answer.ids)[:, None])[:, 0]
        assert answer.logps is not None
        assert torch.allclose(torch.tensor(answer.logps), wanted, atol=1e-4)


def test_without_being_asked_there_are_no_log_probs(model, tokenizer):
    assert generate(model, tokenizer, ["Hi"], Sampling(max_new_tokens=3))[0].logps is None


def test_the_end_of_turn_token_stays_in_the_ids_and_out_of_the_text(model, tokenizer):
    free = generate(model, tokenizer, ["Hi"], Sampling(max_new_tokens=12))[0]
    stop = free.ids[6]
    answer = generate(model, tokenizer, ["Hi"], Sampling(max_new_tokens=12, stop_ids=(stop,)))[0]
    end = free.ids.index(stop)
    assert answer.ids == free.ids[: end + 1] and answer.finish == "stop"
    assert answer.text == tokenizer.decode(free.ids[:end])


def test_a_stop_string_ends_the_text_before_it_and_the_ids_with_it(model, tokenizer):
    free = generate(model, tokenizer, PROMPTS, Sampling(max_new_tokens=40))
    row, stop = next(  # two ASCII characters that stand side by side somewhere after the first five tokens
        (row, tokenizer.decode(answer.ids[at : at + 2]))
        for row, answer in enumerate(free)
        for at in range(5, 35)
        if tokenizer.decode(answer.ids[at : at + 2]).isascii()
    )
    answers = generate(model, tokenizer, PROMPTS, Sampling(max_new_tokens=40, stop=(stop,)))
    assert answers[row].text == free[row].text.partition(stop)[0]
    assert tokenizer.decode(answers[row].ids).endswith(stop) and answers[row].finish == "stop"
    assert answers[row].ids == free[row].ids[: len(answers[row].ids)]


def test_an_answer_never_outgrows_the_models_context(tokenizer):
    model = tiny_llama(max_position_embeddings=40)
    answer = generate(model, tokenizer, [[1] * 35, [1] * 10], Sampling(max_new_tokens=10))
    assert [(len(a.ids), a.finish) for a in answer] == [(5, "length"), (10, "length")]


def test_a_row_at_the_end_of_the_context_does_not_disturb_a_short_one_beside_it(tokenizer):
    """Learned positions end with the context: 4 of 64 are left to the first answer, the second has all 30."""
    torch.manual_seed(0)
    model = GPT2LMHeadModel(
        GPT2Config(vocab_size=260, n_embd=32, n_layer=2, n_head=4, n_positions=64, initializer_range=0.3)
    ).eval()
    prompts = [[*range(60)], [*range(10)], [*range(20, 30)]]
    answers = generate(model, tokenizer, prompts, Sampling(max_new_tokens=30))
    assert [len(answer.ids) for answer in answers] == [4, 30, 30]
    for prompt, answer in zip(prompts, answers, strict=True):
        assert list(answer.ids) == greedy_by_transformers(model, prompt, len(answer.ids))


def test_a_prompt_that_fills_the_context_is_refused_by_number(tokenizer):
    with pytest.raises(UsageError, match="prompt 2 has 40 tokens, the model's context 40"):
        generate(tiny_llama(max_position_embeddings=40), tokenizer, [[1], [1] * 40], Sampling())


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_scores_that_are_not_finite_stop_the_answer(temperature: float, model, tokenizer):
    with torch.no_grad():
        model.lm_head.weight[5] = torch.nan
    with pytest.raises(NumericsError, match="token 1 of an answer"):
        generate(model, tokenizer, ["Hi"], Sampling(temperature=temperature))


def test_every_submodule_gets_its_mode_back_also_after_an_error(model, tokenizer):
    model.train()
    model.model.layers[1].eval()
    modes = [part.training for part in model.modules()]
    dropped = generate(model, tokenizer, ["Hi"], Sampling(max_new_tokens=10))
    assert [part.training for part in model.modules()] == modes
    assert dropped[0].ids == generate(model.eval(), tokenizer, ["Hi"], Sampling(max_new_tokens=10))[0].ids

    model.train()

    def interrupt(index: int, token: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        generate(model, tokenizer, ["Hi"], Sampling(max_new_tokens=10), watch=interrupt)
    assert all(part.training for part in model.modules())


def test_training_goes_on_after_generating(model, tokenizer):
    model.train()
    model.gradient_checkpointing_enable()
    model.enable_input_require_grads()
    generate(model, tokenizer, ["Hi"], Sampling(max_new_tokens=3))
    loss = model(input_ids=torch.ones(1, 4, dtype=torch.long), labels=torch.ones(1, 4, dtype=torch.long)).loss
    loss.backward()
    assert model.lm_head.weight.grad is not None


def test_a_watcher_sees_every_token_of_every_answer_in_order(model, tokenizer):
    seen: dict[int, list[int]] = {}
    free = generate(model, tokenizer, PROMPTS, Sampling(max_new_tokens=20))
    sampling = Sampling(max_new_tokens=20, stop_ids=(free[0].ids[4],))
    answers = generate(
        model,
        tokenizer,
        PROMPTS,
        sampling,
        watch=lambda index, token: seen.setdefault(index, []).append(token),
    )
    assert seen == {index: list(answer.ids) for index, answer in enumerate(answers)}


def test_a_prefix_is_read_but_not_returned(model, tokenizer):
    ids = encode_prompt(tokenizer, "Hi")
    whole = generate(model, tokenizer, [ids], Sampling(max_new_tokens=10))[0]
    rest = generate(model, tokenizer, [[*ids, *whole.ids[:4]]], Sampling(max_new_tokens=6))[0]
    assert rest.ids == whole.ids[4:]
    spelt = generate(model, tokenizer, ["Hi"], Sampling(max_new_tokens=3), prefix="It is")[0]
    assert spelt.prompt_tokens == len(ids) + 5
    assert (
        spelt.ids
        == generate(model, tokenizer, [[*ids, *tokenizer("It is")["input_ids"]]], Sampling(max_new_tokens=3))[
            0
        ].ids
    )


def test_no_prompts_give_no_answers(model, tokenizer):
    assert generate(model, tokenizer, [], Sampling()) == []


def test_prefixes_or_ids_of_another_number_than_the_prompts_are_refused(model, tokenizer):
    with pytest.raises(UsageError, match="1 prompts came with 2 prefixes"):
        generate(model, tokenizer, ["Hi"], Sampling(), prefix=["a", "b"])
    with pytest.raises(UsageError, match="1 prompts came with 2 ids"):
        generate(model, tokenizer, ["Hi"], Sampling(), ids=[1, 2])


def test_surgeries_that_ask_for_the_prompts_length_are_told_once(tokenizer):
    told: list[torch.Tensor] = []

    class Told(LlamaForCausalLM):
        def forward(self, *args, prompt_length=None, **kwargs):
            if prompt_length is not None:
                told.append(prompt_length)
            return super().forward(*args, **kwargs)

    model = Told(tiny_llama().config).eval()
    generate(model, tokenizer, [[1, 2, 3], [4, 5]], Sampling(max_new_tokens=4), batch_keys=("prompt_length",))
    assert [length.tolist() for length in told] == [[3, 2]]


def constant_decoder(tokens: list[int], seen: list[object] | None = None) -> Decoder:
    def answer(policy, input_ids, sampling, cache):
        if seen is not None:
            seen.append((input_ids.tolist(), sampling, cache()))
        return tokens

    return Decoder(name="constant", generate=answer)


def test_a_decoder_is_asked_prompt_by_prompt_and_cut_at_the_end_of_turn(model, tokenizer):
    seen: list[object] = []
    sampling = Sampling(max_new_tokens=9, stop_ids=(259,), samples=2, temperature=1.0)
    answers = generate(
        model, tokenizer, [[1, 2], [3]], sampling, decoder=constant_decoder([64, 65, 259, 66], seen)
    )
    assert [a.ids for a in answers] == [(64, 65, 259)] * 4
    assert [(a.text, a.finish) for a in answers] == [("ab", "stop")] * 4
    assert [prompt for prompt, _, _ in seen] == [[[1, 2]], [[1, 2]], [[3]], [[3]]]
    assert len({s.seed for _, s, _ in seen}) == 4  # every answer has random numbers of its own
    assert len({id(cache) for _, _, cache in seen}) == 4


@pytest.mark.parametrize("tokens", [[], [1] * 10])
def test_a_decoder_that_returns_nothing_or_too_much_is_named(tokens: list[int], model, tokenizer):
    with pytest.raises(PluginError, match="decoder constant returned"):
        generate(model, tokenizer, ["Hi"], Sampling(max_new_tokens=9), decoder=constant_decoder(tokens))


def test_log_probs_from_a_decoder_are_refused(model, tokenizer):
    with pytest.raises(UsageError, match="decoder constant gives no log-probs"):
        generate(model, tokenizer, ["Hi"], Sampling(logps=True), decoder=constant_decoder([1]))


def test_a_backend_is_asked_for_what_isnt_known_and_the_loop_for_nothing(model, tokenizer):
    class Echo:
        """Answers each request with its own prompt's last token."""

        def run(self, requests, tokenizer, sampling, done, watch):
            for request in reversed(requests):
                ids = (request.ids[-1],)
                text = tokenizer.decode(list(ids))
                told = Completion(text=text, ids=ids, prompt_tokens=len(request.ids), finish="stop")
                done(request.index, told)

    known = {1: Completion(text="kept", ids=(1,), prompt_tokens=2, finish="stop")}
    told: list[int] = []
    found = generate(
        model, tokenizer, ["ab", "cd"], Sampling(samples=2), prefix="x", backend=Echo(), known=known,
        done=lambda index, answer: told.append(index),
    )  # fmt: skip
    assert [one.text for one in found] == ["x", "kept", "x", "x"]
    assert told == [3, 2, 0]
