"""``models.NAME``: weights, recipes, scripts and endpoints look alike to a plugin."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import llmfw
from llmfw.core.assemble import assemble, settle
from llmfw.core.auxiliary import kind_of
from llmfw.core.errors import LlmfwError, ResourceError, UsageError
from llmfw.core.schema import AuxiliaryConfig
from llmfw.core.tracking import read_record
from tests.toys import installed, write_toy
from tests.toys.server import chat, serving
from tests.toys.sources import HEAD

SMALL = ("model=tiny-llama", "trainer.max_steps=1", "tracking.mlflow=false", "generation.max_new_tokens=4")
RECIPE = "models.critic.fit={model: tiny-llama, data: rows.jsonl, trainer: {max_steps: 2, epochs: null}}"

ASKER = (
    HEAD
    + """
class Toy(Plugin):
    said = []

    @hookimpl
    def llmfw_evaluations(self, run):
        def ask(policy, services):
            critic = run.policy("critic")
            assert critic is run.policy("critic")
            answers = critic.generate(["Hi", "Ho"])
            Toy.said.append((run.identity("critic"), [answer.text for answer in answers], critic))
            return llmfw.EvaluationResult(metrics={"toy/answers": float(len(answers))})
        return [llmfw.Evaluation(name="asks", run=ask, when=("end",))]
"""
)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with rows and a plugin that asks the model called critic."""
    from llmfw.core import discovery

    monkeypatch.setenv("LLMFW_CACHE", str(tmp_path / "cache"))
    rows = [{"id": f"r{i}", "prompt": f"say {i}", "completion": f"it is {i}"} for i in range(10)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    place = tmp_path / "site"
    place.mkdir()
    monkeypatch.chdir(tmp_path)
    with installed(place):
        write_toy(place, "toy", ASKER)
        discovery.forget()
        yield tmp_path


def _fit(*overrides: str, **more: Any) -> llmfw.FitResult:
    return llmfw.fit(*SMALL, "data=rows.jsonl", *overrides, plugins=["toy"], **more)


def _said() -> list[Any]:
    return sys.modules["toy_toy.plugin"].Toy.said


def test_a_preset_answers_frozen_under_its_own_identity(site):
    _fit("models.critic=tiny-llama")
    identity, answers, critic = _said()[-1]
    assert identity.startswith("config:") and len(answers) == 2
    assert not any(parameter.requires_grad for parameter in critic.module.parameters())


def test_a_model_from_its_config_alone_answers(site):
    _fit("models.critic.config={model_type: llama, vocab_size: 320, hidden_size: 16, intermediate_size: 32,"
         " num_hidden_layers: 1, num_attention_heads: 2, num_key_value_heads: 2}")  # fmt: skip
    identity, answers, critic = _said()[-1]
    assert identity.startswith("config:") and len(answers) == 2
    assert critic.module.config.hidden_size == 16


def test_a_runs_folder_answers_as_that_run_does(site):
    llmfw.fit(*SMALL, "data=rows.jsonl", "optimizer.lr=0.1", "run.dir=first")
    _fit("models.critic=first", "run.dir=second")
    identity, answers, _ = _said()[-1]
    same = llmfw.generate(["Hi", "Ho"], "model=first", "generation.max_new_tokens=4")
    assert answers == same.texts
    plan = json.loads((site / "second" / "plan.json").read_text())
    assert plan["facts"]["models"]["critic"]["identity"] == identity


def test_a_script_answers(site):
    (site / "oracle.py").write_text("def answer(prompts):\n    return [f'<{p}>' for p in prompts]\n")
    _fit("models.critic.script=oracle.py:answer")
    assert _said()[-1][1] == ["<Hi>", "<Ho>"]


def test_an_endpoint_answers(site):
    with serving(lambda path, body, headers: chat(body["messages"][0]["content"].upper())) as url:
        _fit(f"models.critic.endpoint={url}", "models.critic.name=m")
    identity, answers, _ = _said()[-1]
    assert answers == ["HI", "HO"]
    assert identity == f"{url} m"


def test_a_recipe_is_trained_once_as_a_nested_run_and_then_kept(site):
    _fit(RECIPE, "run.dir=first")
    (folder,) = [path for path in (site / "cache" / "recipes").iterdir() if path.is_dir()]
    inner, outer = read_record(folder), read_record(site / "first")
    assert (inner.status, inner.parent) == ("FINISHED", outer.id)
    before = (folder / "journal.jsonl").read_bytes()
    first = _said()[-1]
    _fit(RECIPE, "run.dir=second", "optimizer.lr=1e-3")
    assert (folder / "journal.jsonl").read_bytes() == before
    assert _said()[-1][:2] == first[:2]
    assert folder.name == first[0][:32]


def test_another_recipe_is_another_model(site):
    plans = [
        assemble(settle(overrides=[*SMALL, "data=rows.jsonl", word]), "fit").plan
        for word in (RECIPE, RECIPE.replace("max_steps: 2", "max_steps: 3"))
    ]
    identities = [plan.facts["models"]["critic"]["identity"] for plan in plans]
    assert identities[0] != identities[1]
    assert plans[0].fingerprint != plans[1].fingerprint


def test_a_recipe_that_was_killed_goes_on(site):
    """The inner run stops after its first checkpoint; the second outer run finishes it."""
    long = RECIPE.replace("max_steps: 2", "max_steps: 6").replace("}}", "}, checkpoint: {every: 2}}")
    whole = _fit(long, "run.dir=whole")
    assert whole.steps == 1
    (folder,) = [path for path in (site / "cache" / "recipes").iterdir() if path.is_dir()]
    record = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps({**record, "status": "KILLED"}))
    weights = (folder / "final" / "model.safetensors").read_bytes()
    last = folder / "checkpoints" / "step-00000006"
    assert last.is_dir()
    shutil.rmtree(last)
    shutil.rmtree(folder / "final")
    _fit(long, "run.dir=again")
    assert (folder / "final" / "model.safetensors").read_bytes() == weights


def test_a_recipe_is_not_trained_by_one_of_many_processes(site, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ResourceError, match=r"trainer.devices=1 trainer.max_steps=0"):
        _fit(RECIPE)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["models.critic.dtype=bfloat16"], "nothing says which model"),
        (["models.critic=tiny-lama"], r"models.critic.name: no model named 'tiny-lama'; did you mean"),
        (["models.critic.script=oracle.py:answer"], "models.critic.script: there is no such file"),
        (["models.critic.endpoint=here"], "models.critic.endpoint: 'here' is no URL"),
        (["models.critic.endpoint=http://localhost:1/v1"], "models.critic.name: the model's name"),
        (
            ["models.critic.script=a.py:b", "models.critic.endpoint=http://localhost:1/v1"],
            "script and endpoint at once",
        ),
        (
            ["models.critic.script=a.py:b", "models.critic.dtype=bfloat16"],
            "models.critic.dtype: dtype has no effect on a script",
        ),
        (["models.critic=tiny-llama", "models.critic.timeout=3"], "timeout has no effect on weights"),
        (["models.critic.fit={modle: tiny-llama}"], "models.critic.fit.modle"),
        (["models.critic.fit={run: {dir: x}}"], "models.critic.fit.run: run can't be set"),
        (["models.critic.fit={model: nowhere}"], r"models.critic.fit.name: no model named|models.critic.fit"),
    ],
)
def test_what_cannot_be_a_model_is_refused_before_anything_is_loaded(site, words, says):
    with pytest.raises(UsageError, match=says):
        assemble(settle(overrides=[*SMALL, "data=rows.jsonl", *words]), "fit")


def test_a_model_that_nobody_named_is_refused(site):
    with pytest.raises(LlmfwError, match="no auxiliary model 'critic'"):
        _fit()


def test_kinds_are_told_apart():
    assert kind_of("a", AuxiliaryConfig(name="x")) == "weights"
    assert kind_of("a", AuxiliaryConfig(config={"model_type": "llama"})) == "weights"
    assert kind_of("a", AuxiliaryConfig(fit={"data": "x"})) == "recipe"
    assert kind_of("a", AuxiliaryConfig(script="a.py:b")) == "script"
    assert kind_of("a", AuxiliaryConfig(endpoint="http://x", name="m")) == "endpoint"
