"""Auxiliary models that were opened: each kind behind one name, answering as its source does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import llmfw
from llmfw.core.assemble import assemble, settle
from llmfw.core.auxiliary import open_auxiliary
from llmfw.core.errors import LlmfwError
from llmfw.core.open import open_policy
from tests.tested.recorder import note, note_refusal
from tests.toys.server import of_policy, serving

SMALL = ("model=tiny-llama", "trainer.max_steps=2", "tracking.mlflow=false", "generation.max_new_tokens=6")
PROMPTS = ["Hi", "How are you?"]
DIFFERENT = "answers that differ from the source's own"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty folder with rows and a cache of its own."""
    monkeypatch.setenv("LLMFW_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    rows = [{"id": f"r{i}", "prompt": f"say {i}", "completion": f"it is {i}"} for i in range(10)]
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def _open(*words: str) -> Any:
    assembled = assemble(settle(overrides=[*SMALL, "data=rows.jsonl", *words]), "fit")
    return open_auxiliary(assembled, "critic")


def _texts(policy: Any) -> list[str]:
    return [answer.text for answer in policy.generate(PROMPTS)]


def _differing(policy: Any, expected: list[str]) -> float:
    return float(sum(one != other for one, other in zip(_texts(policy), expected, strict=True)))


def test_weights():
    own = llmfw.generate(PROMPTS, "model=tiny-llama", "generation.max_new_tokens=6").texts
    note("auxiliary", "weights of a preset", command="llmfw plan models.critic=tiny-llama",
         measure=DIFFERENT, value=_differing(_open("models.critic=tiny-llama"), own), bound=0)  # fmt: skip


def test_a_run():
    run = llmfw.fit(*SMALL, "data=rows.jsonl", "adapter.kind=lora", "optimizer.lr=0.05", "run.dir=trained")
    own = llmfw.generate(PROMPTS, f"model={run.dir}", "generation.max_new_tokens=6").texts
    critic = _open("models.critic=trained")
    note("auxiliary", "a LoRA run's folder", command="llmfw plan models.critic=RUN",
         measure=DIFFERENT, value=_differing(critic, own), bound=0)  # fmt: skip
    opened = open_policy(assemble(settle(overrides=["model=trained"]), "generate")).policy
    difference = float((critic.embed(PROMPTS) - opened.embed(PROMPTS)).abs().max())
    note("auxiliary", "embeddings of a LoRA run", command="llmfw plan models.critic=RUN",
         measure="max |difference| to the run's own", value=difference, bound=0)  # fmt: skip


def test_a_recipe():
    recipe = "{model: tiny-llama, data: rows.jsonl, trainer: {max_steps: 2, epochs: null}}"
    critic = _open(f"models.critic.fit={recipe}")
    same = llmfw.fit("model=tiny-llama", "data=rows.jsonl", "trainer.max_steps=2", "tracking.mlflow=false")
    opened = open_policy(assemble(settle(overrides=[f"model={same.dir}"]), "generate")).policy
    pairs = zip(critic.module.parameters(), opened.module.parameters(), strict=True)
    difference = max(float((one - other).abs().max()) for one, other in pairs)
    command = f"llmfw plan 'models.critic.fit={recipe}'".replace("rows.jsonl", "FILE")
    note("auxiliary", "a recipe", command=command, measure="max |weight difference| to the run by hand",
         value=difference, bound=0)  # fmt: skip


def test_a_script():
    Path("oracle.py").write_text("def answer(prompts):\n    return [text.upper() for text in prompts]\n")
    differing = _differing(_open("models.critic.script=oracle.py:answer"), [text.upper() for text in PROMPTS])
    note("auxiliary", "a script", command="llmfw plan models.critic.script=FILE.py:answer",
         measure=DIFFERENT, value=differing, bound=0)  # fmt: skip


def test_an_endpoint():
    own = open_policy(assemble(settle(overrides=["model=tiny-llama"]), "generate")).policy
    command = "llmfw plan models.critic.endpoint=http://localhost:8000/v1 models.critic.name=MODEL"
    expected = [answer.text for answer in own.generate(PROMPTS, max_new_tokens=6)]
    with serving(of_policy(own)) as url:
        critic = _open(f"models.critic.endpoint={url}", "models.critic.name=m")
        note("auxiliary", "an OpenAI-compatible endpoint", command=command, measure=DIFFERENT,
             value=_differing(critic, expected), bound=0)  # fmt: skip
        difference = float((critic.embed(PROMPTS) - own.embed(PROMPTS)).abs().max())
        assert isinstance(critic.embed(PROMPTS), torch.Tensor)
    note("auxiliary", "embeddings of an endpoint", command=command,
         measure="max |difference| to the served model's", value=difference, bound=1e-6)  # fmt: skip


@pytest.mark.parametrize(
    ("case", "word"),
    [
        ("no such model", "models.critic=tiny-lama"),
        ("two kinds at once", "models.critic={script: a.py:b, endpoint: http://localhost:1/v1}"),
        ("a key without effect", "models.critic={script: a.py:b, dtype: bfloat16}"),
        ("a server without a model", "models.critic.endpoint=http://localhost:8000/v1"),
    ],
)
def test_refusals(case: str, word: str):
    with pytest.raises(LlmfwError) as caught:
        _open(word)
    note_refusal("auxiliary", case, command=f"llmfw plan '{word}'", line=str(caught.value))
