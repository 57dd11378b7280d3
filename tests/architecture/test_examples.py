"""The example of each hook, as docs/hooks.md shows it, does what it says."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from llmfw.core.defaults import Defaults
from llmfw.core.hookspecs import CARDINALITY
from llmfw.core.manager import PluginManager
from llmfw.core.plan import make_plan
from llmfw.core.rounds import Ledger
from llmfw.core.run import Run
from llmfw.core.schema import Root
from tests.architecture.conftest import ROOT
from tests.core.generation.conftest import byte_tokenizer, tiny_llama

FOLDER = ROOT / "docs" / "examples"


def example(hook: str) -> Any:
    """The example's module."""
    path = FOLDER / f"{hook.removeprefix('llmfw_')}.py"
    spec = importlib.util.spec_from_file_location(f"example_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def answers(hook: str, **settings: Any) -> list[Any]:
    """The records that a plan with the example alone holds for its hook."""
    plugin_class = example(hook).Example
    plugin = plugin_class(plugin_class.Config(**settings))
    manager = PluginManager([("example", plugin)], Defaults(None))
    if hook == "llmfw_commands":
        return [answer.value for answer in manager.many(hook)]
    root = Root(plugins=["example"])
    plan = make_plan(manager, Run(root, Path("."), "example"), None, None, verb="fit", settings={})
    key = f"{hook}/train" if hook == "llmfw_metrics" else hook
    return [answer.value for answer in plan.answers[key] if answer.plugin == "example"]


def test_each_hook_has_one_example_and_there_are_no_others():
    assert {path.stem for path in FOLDER.glob("*.py")} == {
        hook.removeprefix("llmfw_") for hook in CARDINALITY
    }


@pytest.mark.parametrize("hook", CARDINALITY)
def test_an_example_answers_its_hook_in_at_most_forty_lines(hook: str):
    assert answers(hook)
    text = (FOLDER / f"{hook.removeprefix('llmfw_')}.py").read_text()
    assert text.count("\n") <= 40


def test_the_command_greets():
    from click.testing import CliRunner

    (command,) = answers("llmfw_commands")
    assert CliRunner().invoke(command.factory(), ["Ada"]).output == "hello Ada\n"


def test_the_service_judges_the_last_number():
    (service,) = answers("llmfw_services")
    judge = service.factory()
    assert judge("first 3, so it is 12.", "12") and not judge("12, no: 3", "12") and not judge("none", "12")


def test_the_datamodule_has_a_hundred_sums():
    (source,) = answers("llmfw_datamodule")
    assert len(source.rows("train")) == 100 and {"prompt": "7+5=", "completion": "12"} in source.rows("train")


def test_the_transforms_drop_repeats_and_put_short_examples_first():
    from llmfw.core.data.examples import Example, TokenSequence

    rows, order = answers("llmfw_dataset_transforms")
    done = rows.apply([{"prompt": "a"}, {"prompt": "b"}, {"prompt": "a"}])
    assert [row["prompt"] for row in done.items] == ["a", "b"] and done.metrics == {"repeats": 1}
    long, short = (
        Example(str(n), "text", (TokenSequence((1,) * n, (False,) + (True,) * (n - 1)),)) for n in (5, 2)
    )
    assert order.apply([long, short], 0) == [1, 0]


def test_the_sampler_keeps_what_is_right_for_two_rounds(tmp_path: Path):
    from llmfw.core.generation import ScriptedPolicy

    (sampler,) = answers("llmfw_sampler")
    policy = ScriptedPolicy(lambda prompts: [str(n % 2) for n in range(len(prompts))])
    ledger = Ledger(tmp_path)
    rows = [{"prompt": "zero?", "answer": "0"}, {"prompt": "two?", "answer": "2"}]
    with ledger.sampling(0):
        first = sampler.next(0, rows, policy, None, ledger)
    assert first.records == [{"prompt": "zero?", "completion": "0"}] * 2 and first.notes == {"right": 0.25}
    assert ledger.of("sampling")["samples"] == 8
    assert sampler.next(2, rows, policy, None, ledger) is None


def test_the_surgery_changes_nothing_before_its_gates_are_trained():
    import torch

    (surgery,) = answers("llmfw_surgeries")
    model = tiny_llama()
    ids = torch.tensor([[1, 2, 3, 4]])
    before = model(ids).logits
    report = surgery.apply(model, None)
    assert torch.equal(model(ids).logits, before)
    gates = [name for name, _ in model.named_parameters() if name.endswith("self_attn.gate")]
    assert list(report.changed) == gates and len(gates) == model.config.num_hidden_layers
    with torch.no_grad():
        dict(model.named_parameters())[gates[0]].fill_(0.5)
    assert not torch.equal(model(ids).logits, before)


def test_the_loss_is_cross_entropy_at_gamma_zero_and_counts_sure_tokens_less_above():
    """Tokens of probability 1/2 and 1/4, gamma 1: 1/2 ln 2 + 3/4 ln 4 = 2 ln 2."""
    from types import SimpleNamespace

    import torch

    logps = torch.tensor([0.5, 0.25], dtype=torch.float64).log()
    policy, batch = SimpleNamespace(logps=lambda batch: logps), SimpleNamespace(tokens=2)
    (plain,), (focal,) = answers("llmfw_loss"), answers("llmfw_loss", gamma=1.0)
    assert torch.equal(plain.call(policy, batch, None).total, -logps.sum())
    assert torch.allclose(
        focal.call(policy, batch, None).total, 2 * torch.tensor(2.0, dtype=torch.float64).log()
    )


def test_the_evaluation_tables_the_answers():
    from llmfw.core.generation import ScriptedPolicy

    (evaluation,) = answers("llmfw_evaluations")
    told = evaluation.run(ScriptedPolicy(lambda prompts: ["Rhine", "4"]), None)
    assert told.metrics == {"answers/characters": 3.0}
    assert told.tables["answers"][1] == {"prompt": "2+2=", "answer": "4"}


def test_the_metric_averages_tokens_per_sample():
    from types import SimpleNamespace

    (named,) = answers("llmfw_metrics")
    metric = named.factory()
    for tokens in (4, 8):
        named.update(metric, None, SimpleNamespace(tokens=tokens, sample_ids=("a", "b")))
    assert float(metric.compute()) == 3.0


def test_the_callback_remembers_across_a_resume():
    (callback,) = answers("llmfw_callbacks")
    for loss in (1.0, 3.0, 2.0):
        callback.on_train_batch_end(None, None, {"loss": loss}, None, 0)
    (again,) = answers("llmfw_callbacks")
    again.load_state_dict(callback.state_dict())
    assert again.largest == 3.0


@pytest.mark.parametrize("hook", ["llmfw_kv_cache", "llmfw_decoder"])
def test_the_cache_and_the_decoder_answer_like_the_engine_alone(hook: str):
    from llmfw.core.generation import Sampling, generate

    (record,) = answers(hook)
    model, tokenizer = tiny_llama(), byte_tokenizer()
    prompts = [
        "Hi",
        "a prompt of more than sixty-four bytes, so that it is read in several passes, not in one",
    ]
    sampling = Sampling(max_new_tokens=12)
    alone = generate(model, tokenizer, prompts, sampling)
    given = generate(
        model, tokenizer, prompts, sampling, **{hook.removeprefix("llmfw_").removeprefix("kv_"): record}
    )
    assert [answer.ids for answer in given] == [answer.ids for answer in alone]


def test_the_readmes_plugin_is_a_whole_one():
    """Its decoder ends every answer at once: one token, no text."""
    from llmfw.core.generation import Sampling, generate

    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (code,) = [block.split("```")[0] for block in readme.split("```python\n")[1:] if "(Plugin)" in block]
    names: dict[str, Any] = {}
    exec(code, names)
    decoder = names["Quiet"](None).llmfw_decoder(None, None)
    model, tokenizer = tiny_llama(), byte_tokenizer()
    (answer,) = generate(model, tokenizer, ["Hi"], Sampling(stop_ids=(257,)), decoder=decoder)
    assert answer.ids == (257,) and answer.text == ""
