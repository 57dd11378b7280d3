"""Our answers to lm-eval's requests against those of its own wrapper of transformers models."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from llmfw.core.errors import DataError, ResourceError, UsageError
from llmfw.core.evaluation.harness import PolicyLM
from llmfw.core.evaluation.tasks import check_installed, load_tasks, measure_tasks, told
from llmfw.core.models import build_model
from llmfw.core.policies import policy_over
from llmfw.core.records import CacheFactory
from llmfw.core.schema import AdapterConfig, EvaluationConfig
from tests.core.evaluation.conftest import TASKS

PAIRS = [("say 1 ", "it is 1"), ("", "no context"), ("a", "b"), ("long " * 30, "tail"), ("say 1 ", "never")]


def requests(*arguments: tuple[Any, ...]) -> list[SimpleNamespace]:
    return [SimpleNamespace(args=one) for one in arguments]


def their_model(opened: Any, length: int | None = None) -> Any:
    from lm_eval.models.huggingface import HFLM

    return HFLM(pretrained=opened.policy.module, tokenizer=opened.tokenizer, batch_size=2, max_length=length)


@pytest.mark.parametrize("length", [None, 40])
def test_log_likelihoods_and_greediness_are_those_of_the_harness(opened, length: int | None):
    """With a context of 40 tokens the long pair is cut on the left, and a text takes several windows."""
    ready = opened()
    ours, theirs = PolicyLM(ready.policy, show=False), their_model(ready, length)
    if length is not None:
        ours.max_length = length
    pairs = [(before, text) for before, text in PAIRS if len(text) <= 30]
    # the most likely continuations, so that greediness isn't always false
    greedy = ready.policy.generate(["say 1"], max_new_tokens=3, stop_ids=())[0]
    written = ready.tokenizer.decode(
        ready.policy.generate([ours.tok_encode("say 1")], max_new_tokens=3)[0].ids
    )
    pairs += [("say 1", written)]
    assert greedy.ids
    found, wanted = ours.loglikelihood(requests(*pairs)), theirs.loglikelihood(requests(*pairs))
    for (logp, sure), (their_logp, their_sure) in zip(found, wanted, strict=True):
        assert logp == pytest.approx(their_logp, abs=1e-4) and sure == their_sure
    assert found[-1][1] and not found[0][1]
    texts = [("say it in a few words",), ("x" * 100,), ("short",)]
    rolled = ours.loglikelihood_rolling(requests(*texts))
    assert rolled == pytest.approx(theirs.loglikelihood_rolling(requests(*texts)), abs=1e-3)


def test_written_answers_are_those_of_the_harness(opened):
    ready = opened()
    ours, theirs = PolicyLM(ready.policy, show=False), their_model(ready)
    asked = [
        ("say 1", {"until": ["\n"], "max_gen_toks": 5}),
        ("say something longer 2", {"until": ["2"], "max_gen_toks": 9, "do_sample": False}),
        ("a", {"until": ["\n"], "max_gen_toks": 5}),
    ]
    assert ours.generate_until(requests(*asked)) == theirs.generate_until(requests(*asked))


def test_every_kind_of_task_gives_the_harness_own_metrics(opened, tasks: Path):
    from lm_eval.evaluator import evaluate

    names = [f"own_{name}" for name in TASKS]
    ready = opened(f"evaluation.lm_eval=[{','.join(names)}]", f"evaluation.lm_eval_path={tasks}")
    root = ready.run.config
    found = measure_tasks(root, ready.policy)
    theirs = told(evaluate(their_model(ready), load_tasks(root.evaluation), bootstrap_iters=1000))
    assert found.metrics.keys() == theirs.metrics.keys() and len(found.metrics) == 8
    for name, value in theirs.metrics.items():
        for part in ("value", "low", "high", "n"):
            one, other = (getattr(told_, part, told_) for told_ in (found.metrics[name], value))
            assert one == pytest.approx(other, rel=1e-4), (name, part)
    assert found.metrics["lm_eval/own_choice/acc"].n == 12
    rows = found.tables["lm_eval-own_choice"]
    assert rows[1]["reference"] == "no 2" and {row["acc"] for row in rows} == {0, 1}


def test_the_adapter_and_its_weights_are_measured(opened):
    ready = opened()
    source = ready.assembled.settled.source
    built = build_model(source, AdapterConfig(kind="lora"), seed=1, tokenizer=ready.tokenizer)
    policy = policy_over(ready.assembled, built)
    asked = requests(("say 1 ", "it is 1"))
    ((fresh, _),) = PolicyLM(policy, show=False).loglikelihood(asked)
    with torch.no_grad():
        for name, parameter in built.module.named_parameters():
            if "lora_B" in name:
                parameter.normal_(generator=torch.Generator().manual_seed(1))
    ((trained, _),) = PolicyLM(policy, show=False).loglikelihood(asked)
    assert abs(fresh - trained) > 1e-3


def test_a_key_value_cache_of_a_plugin_is_what_is_measured(opened):
    """Through a cache that keeps everything the figures are those without; one that forgets differs."""
    from transformers import DynamicCache

    def forget(past: Any) -> None:
        for layer in past.layers:
            layer.keys, layer.values = layer.keys[:, :, -2:], layer.values[:, :, -2:]

    ready = opened()
    pairs = requests(("say it in a few words ", "it is 1"), ("b", "cde"))
    plain = PolicyLM(ready.policy, show=False).loglikelihood(pairs)
    for after, same in ((None, True), (forget, False)):
        ready.policy.cache = CacheFactory(
            name="own", build=lambda config: DynamicCache(config=config), prefill_chunk=4, after_prefill=after
        )
        found = PolicyLM(ready.policy, show=False).loglikelihood(pairs)
        assert (found[0][0] == pytest.approx(plain[0][0], abs=1e-4)) is same
        assert found[1] == (pytest.approx(plain[1][0], abs=1e-4), plain[1][1])


def test_what_the_engine_does_not_do_is_refused(opened):
    model = PolicyLM(opened().policy, show=False)
    with pytest.raises(UsageError, match="LM-EVAL-GENERATION.*num_beams=4"):
        model.generate_until(requests(("a", {"until": [], "num_beams": 4})))
    with pytest.raises(UsageError, match="LM-EVAL-GENERATION.*answers of 99999 tokens"):
        model.generate_until(requests(("a", {"until": [], "max_gen_toks": 99999})))


def test_shots_limit_and_chat_template_reach_the_harness(opened, tasks: Path):
    yaml = tasks / "choice.yaml"
    yaml.write_text(yaml.read_text() + "fewshot_split: test\n")
    ready = opened(
        "evaluation.lm_eval=[own_choice]", f"evaluation.lm_eval_path={tasks}", "evaluation.lm_eval_limit=3",
        "evaluation.lm_eval_shots=2", "evaluation.lm_eval_chat=true", "tokenizer.template=chatml",
    )  # fmt: skip
    found = measure_tasks(ready.run.config, ready.policy)
    rows = found.tables["lm_eval-own_choice"]
    assert len(rows) == 3 and found.tables["lm_eval"][0]["shots"] == 2
    assert rows[0]["prompt"].count("<|im_start|>assistant") == 3


def test_absent_folders_and_packages_are_refused_in_one_line(monkeypatch):
    with pytest.raises(UsageError, match="LM-EVAL-PATH"):
        check_installed(EvaluationConfig(lm_eval=["own_choice"], lm_eval_path="nowhere"))
    monkeypatch.setattr("llmfw.core.evaluation.tasks.find_spec", lambda name: None)
    with pytest.raises(ResourceError, match=r"LM-EVAL\].*pip install 'llmfw\[eval\]'"):
        check_installed(EvaluationConfig(lm_eval=["own_choice"]))


def test_data_of_a_hub_that_can_not_be_reached_and_files_that_are_not_there_are_told_apart(tasks: Path):
    hub = tasks / "hub.yaml"
    hub.write_text(
        (tasks / "choice.yaml").read_text().replace("own_choice", "own_hub").replace("json", "a/b", 1)
    )
    with pytest.raises(ResourceError, match="LM-EVAL-DATA.*'own_hub'.*can't be reached"):
        load_tasks(EvaluationConfig(lm_eval=["own_hub"], lm_eval_path=str(tasks)))
    (tasks / "documents.jsonl").unlink()
    with pytest.raises(DataError, match="LM-EVAL-LOAD.*'own_choice' can't be loaded"):
        load_tasks(EvaluationConfig(lm_eval=["own_choice"], lm_eval_path=str(tasks)))
