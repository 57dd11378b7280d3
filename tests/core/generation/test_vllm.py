"""vLLM as what samples: greedy answers are the engine's own, seeds, ends, log-probs and resuming hold, and
where it can't be used it's refused by name.

What needs vLLM itself is skipped where it isn't installed.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

import pytest
import torch

from llmfw.core.errors import ResourceError
from llmfw.core.generation import Sampling, generate
from llmfw.core.generation.vllm import VllmBackend, require_vllm
from tests.core.generation.conftest import tiny_llama

PROMPTS = ["Name a river.", "Hi", "What is the longest word that you know?", "2+2="]
installed = pytest.mark.skipif(find_spec("vllm") is None, reason="vLLM isn't installed")
missing = pytest.mark.skipif(find_spec("vllm") is not None, reason="vLLM is installed")


@pytest.fixture(scope="module")
def model():
    # vLLM's attention on a CPU knows heads of 32 and up
    return tiny_llama(hidden_size=128, num_hidden_layers=2, attention_dropout=0.0)


@pytest.fixture(scope="module")
def backend(model) -> Iterator[VllmBackend]:
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
    made = VllmBackend(model, batch_size=4)
    yield made
    made.close()


def asked(model: Any, tokenizer: Any, sampling: Sampling, backend: Any = None, **more: Any) -> list[Any]:
    return generate(model, tokenizer, more.pop("prompts", PROMPTS), sampling, backend=backend, **more)


@installed
def test_greedy_answers_equal_the_engines_own_token_for_token(model, tokenizer, backend):
    sampling = Sampling(max_new_tokens=24, logps=True)
    ours, theirs = (asked(model, tokenizer, sampling, one) for one in (None, backend))
    for own, other in zip(ours, theirs, strict=True):
        assert (own.ids, own.text, own.finish) == (other.ids, other.text, other.finish)
        assert own.prompt_tokens == other.prompt_tokens
        torch.testing.assert_close(torch.tensor(own.logps), torch.tensor(other.logps), atol=1e-3, rtol=0)


@installed
def test_stop_tokens_and_stop_strings_end_answers_as_in_the_engine(model, tokenizer, backend):
    free = asked(model, tokenizer, Sampling(max_new_tokens=24))
    token, text = free[0].ids[5], free[1].text[4:6]
    sampling = Sampling(max_new_tokens=24, stop_ids=(token,), stop=(text,))
    ours, theirs = (asked(model, tokenizer, sampling, one) for one in (None, backend))
    assert [(one.ids, one.text, one.finish) for one in ours] == [
        (one.ids, one.text, one.finish) for one in theirs
    ]
    assert {ours[0].finish, ours[1].finish} == {"stop"}


@installed
def test_a_sample_doesnt_depend_on_what_else_is_in_the_batch(model, tokenizer, backend):
    sampling = Sampling(max_new_tokens=16, temperature=1.0, samples=3, seed=5)
    ids = ["a", "b", "c", "d"]
    together = asked(model, tokenizer, sampling, backend, ids=ids)
    alone = asked(model, tokenizer, sampling, backend, prompts=PROMPTS[2:3], ids=ids[2:3])
    assert [one.ids for one in alone] == [one.ids for one in together[6:9]]
    assert len({one.ids for one in together}) == len(together)
    other = asked(model, tokenizer, sampling.but(seed=6), backend, ids=ids)
    assert [one.ids for one in other] != [one.ids for one in together]


@installed
def test_answers_that_are_known_arent_asked_for_again(model, tokenizer, backend):
    sampling = Sampling(max_new_tokens=8)
    whole = asked(model, tokenizer, sampling, backend)
    told: list[int] = []
    again = asked(
        model, tokenizer, sampling, backend, known={1: whole[1]}, done=lambda index, _: told.append(index)
    )
    assert again == whole
    assert sorted(told) == [0, 2, 3]


@installed
def test_every_token_is_shown_as_soon_as_it_is_known(model, tokenizer, backend):
    seen: dict[int, list[int]] = {}
    found = asked(
        model, tokenizer, Sampling(max_new_tokens=8), backend,
        watch=lambda index, token: seen.setdefault(index, []).append(token),
    )  # fmt: skip
    assert seen == {index: list(one.ids) for index, one in enumerate(found)}


@installed
def test_weights_that_have_changed_are_read_again(tokenizer):
    model = tiny_llama(hidden_size=128, num_hidden_layers=1, attention_dropout=0.0)
    backend, sampling = VllmBackend(model, batch_size=4), Sampling(max_new_tokens=12)
    before = asked(model, tokenizer, sampling, backend)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.5)
    after = asked(model, tokenizer, sampling, backend)
    backend.close()
    assert [one.ids for one in after] == [one.ids for one in asked(model, tokenizer, sampling)]
    assert [one.ids for one in after] != [one.ids for one in before]


@installed
def test_an_adapter_is_merged_into_the_copy_and_stays_on_the_model(tokenizer):
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(3)
    plain = tiny_llama(hidden_size=128, num_hidden_layers=1, attention_dropout=0.0)
    model = get_peft_model(
        plain, LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    )
    kept = copy.deepcopy(model.state_dict())
    backend, sampling = VllmBackend(model.eval(), batch_size=4), Sampling(max_new_tokens=12)
    found = asked(model, tokenizer, sampling, backend)
    backend.close()
    assert [one.ids for one in found] == [one.ids for one in asked(model, tokenizer, sampling)]
    assert all(torch.equal(value, kept[name]) for name, value in model.state_dict().items())


@missing
def test_without_the_package_it_is_refused_by_name():
    with pytest.raises(ResourceError, match="vLLM isn't installed") as caught:
        require_vllm()
    assert caught.value.key == "generation.backend"
    assert "transformers" in str(caught.value)
