"""A model behind an OpenAI-compatible server, over real HTTP."""

from __future__ import annotations

import threading

import pytest
import torch

from llmfw.core.errors import LlmfwError, ResourceError, UsageError
from llmfw.core.generation import Endpoint, EndpointPolicy, GeneratingPolicy, Sampling
from llmfw.core.models.policy import LocalPolicy
from tests.toys.server import chat, of_policy, serving

SAMPLING = Sampling(max_new_tokens=6)


def _policy(url: str, **more: object) -> EndpointPolicy:
    settings = {"retries": 0, "timeout": 10, **more}
    return EndpointPolicy(Endpoint(url=url, model="m", **settings), SAMPLING)


@pytest.fixture
def local(model, tokenizer) -> GeneratingPolicy:
    return GeneratingPolicy(
        LocalPolicy(model, tokenizer=tokenizer), tokenizer, Sampling(max_new_tokens=6, stop_ids=(259,))
    )


def test_a_served_model_answers_as_it_does_here(local):
    prompts = ["Hi", [{"role": "user", "content": "Ho"}]]
    here = local.generate(prompts, logps=True)
    with serving(of_policy(local)) as url:
        policy = _policy(url)
        there = policy.generate(prompts, logps=True)
        assert [answer.text for answer in there] == [answer.text for answer in here]
        assert [answer.finish for answer in there] == [answer.finish for answer in here]
        assert [answer.tokens for answer in there] == [len(answer.ids) for answer in here]
        assert [answer.ids for answer in there] == [(), ()], "their ids are the server's own"
        for one, other in zip(there, here, strict=True):
            assert one.logps == pytest.approx(other.logps, abs=1e-4)  # the server answers one by one
        assert policy.usage.prompt_tokens == sum(answer.prompt_tokens for answer in here)
        assert policy.usage.generated_tokens == sum(len(answer.ids) for answer in here)
        texts = ["one", "two and more"]
        assert torch.allclose(policy.embed(texts), local.embed(texts))


def test_samples_stand_beside_their_prompt_and_each_has_a_seed_of_its_own():
    seen: list[tuple[str, int]] = []
    lock = threading.Lock()

    def answer(path, body, headers):
        with lock:
            seen.append((body["messages"][0]["content"], body["seed"]))
        return chat(f"{body['messages'][0]['content']}:{body['seed']}")

    with serving(answer) as url:
        once = _policy(url).generate(["a", "b"], samples=3, temperature=1.0)
        again = _policy(url).generate(["b"], ids=[1], samples=3, temperature=1.0)
        last = _policy(url).generate(["b"], ids=[1], samples=1, first=2, temperature=1.0)
    assert [text.text[0] for text in once] == ["a", "a", "a", "b", "b", "b"]
    assert len(set(seen[:6])) == 6
    assert [text.text for text in again] == [text.text for text in once[3:]]
    assert last[0].text == once[5].text, "the third of three, asked for alone"
    assert all(0 <= seed < 2**31 for _, seed in seen)


def test_settings_reach_the_server_and_unknown_ones_are_refused():
    bodies = []

    def answer(path, body, headers):
        bodies.append(body)
        return chat("x")

    with serving(answer) as url:
        policy = _policy(url)
        policy.generate(["a"], max_new_tokens=9, temperature=0.5, top_p=0.9, top_k=3, stop=["END"])
        policy.generate(["a"])
        with pytest.raises(UsageError, match="no setting called max_tokens"):
            policy.generate(["a"], max_tokens=3)
    kept = {key: bodies[0][key] for key in ("model", "max_tokens", "temperature", "top_p", "top_k", "stop")}
    assert kept == {
        "model": "m", "max_tokens": 9, "temperature": 0.5, "top_p": 0.9, "top_k": 3, "stop": ["END"],
    }  # fmt: skip
    assert "top_k" not in bodies[1] and "stop" not in bodies[1] and "logprobs" not in bodies[1]


def test_a_key_is_sent_as_a_bearer_token(monkeypatch):
    heads = []
    monkeypatch.setenv("MY_KEY", "s3cret")
    with serving(lambda path, body, headers: (heads.append(headers), chat("x"))[1]) as url:
        _policy(url, api_key_env="MY_KEY").generate(["a"])
        _policy(url).generate(["a"])
    assert heads[0]["Authorization"] == "Bearer s3cret"
    assert "Authorization" not in heads[1]


def test_a_busy_server_is_asked_again():
    calls = []

    def answer(path, body, headers):
        calls.append(path)
        return chat("there") if len(calls) == 3 else (503, "loading")

    with serving(answer) as url:
        policy = EndpointPolicy(Endpoint(url=url, model="m", retries=3, timeout=10), SAMPLING)
        assert policy.generate(["a"])[0].text == "there"
    assert len(calls) == 3


@pytest.mark.parametrize(
    ("reply", "kind", "says"),
    [
        ((401, "who?"), UsageError, "api_key_env"),
        ((404, "no such model"), UsageError, "no such model"),
        ((400, "bad temperature"), UsageError, "bad temperature"),
        ((500, "broken"), ResourceError, "answered 500"),
        ((302, ""), UsageError, "answered 302"),
        ((200, "<html>"), ResourceError, "another form"),
        ((200, {"choices": []}), ResourceError, "another form"),
        ((200, "[1]"), ResourceError, "another form"),
    ],
)
def test_what_a_server_says_instead_of_an_answer_becomes_one_line(reply, kind, says):
    told = pytest.raises(LlmfwError, match=says)
    with serving(lambda path, body, headers: reply) as url, told as caught:
        _policy(url).generate(["a"])
    assert isinstance(caught.value, kind)
    assert "\n" not in str(caught.value)


def test_a_server_that_is_not_there_is_named():
    with pytest.raises(ResourceError, match="out of reach"):
        _policy("http://127.0.0.1:9/v1").generate(["a"])


@pytest.mark.parametrize(
    ("url", "more", "says"),
    [
        ("localhost:8000", {}, "no URL"),
        ("ftp://host/v1", {}, "no URL"),
        ("http://user:pass@host/v1", {}, "password"),
        ("http://host/v1", {"api_key_env": "NOT_THERE"}, "no NOT_THERE"),
        ("http://far.example/v1", {"api_key_env": "PATH"}, "open line"),
        ("http://host/v1", {"timeout": 0}, "can't be waited"),
        ("http://host/v1", {"retries": -1}, "can't be made"),
    ],
)
def test_an_endpoint_that_cannot_be_asked_is_refused_before_it_is(url, more, says):
    with pytest.raises(UsageError, match=says):
        _policy(url, **more)


def test_what_the_protocol_cannot_carry_is_refused():
    policy = _policy("http://127.0.0.1:9/v1")
    with pytest.raises(UsageError, match="beginning of an answer"):
        policy.generate(["a"], prefix="The answer")
    with pytest.raises(UsageError, match="not token ids"):
        policy.generate([[1, 2, 3]])
    for ask in (lambda: policy.module, lambda: policy.logps(None), lambda: policy.hidden_states(None, 0)):
        with pytest.raises(NotImplementedError):
            ask()


def test_functions_are_sent_as_the_protocol_has_them():
    seen: list[dict] = []

    def answer(path, body, headers):
        seen.append(body)
        return chat("ok")

    call = {"type": "function", "function": {"name": "add", "arguments": {"a": 1}}}
    tool = {"type": "function", "function": {"name": "add"}}
    prompt = [
        {"role": "user", "content": "1+1?", "tools": [tool]},
        {"role": "assistant", "content": "", "tool_calls": [call], "loss": False},
        {"role": "tool", "content": "2"},
    ]
    with serving(answer) as url:
        _policy(url).generate([prompt])
    (body,) = seen
    assert body["tools"] == [tool]
    asked, called, result = body["messages"]
    assert asked == {"role": "user", "content": "1+1?"} and "loss" not in called
    assert called["tool_calls"][0]["function"]["arguments"] == '{"a": 1}'
    assert result["tool_call_id"] == called["tool_calls"][0]["id"]
