"""The test of the architecture: a built-in plugin moves out, and nobody notices.

The commit draws the plugin; ``LLMFW_EVICT=all`` evicts every one.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

import pytest

from llmfw.core.discovery import cards
from tests.drawing import asked_or_drawn
from tests.thirdparty.environment import Environment, build_wheel, copy_core
from tests.thirdparty.evict import CHOICE, built_ins, evict

ROWS = [{"prompt": f"{n}+1=", "completion": str(n + 1)} for n in range(8)]
SMALL = ("model=tiny-llama", "trainer.max_steps=1", "tracking.mlflow=false", "generation.max_new_tokens=4")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


@dataclass(frozen=True)
class Evicted:
    """A plugin, an environment with the rest of llmfw alone, and a folder to work in."""

    name: str
    environment: Environment
    folder: Path


@pytest.fixture(scope="module", params=asked_or_drawn(list(built_ins()), 1, CHOICE))
def evicted(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Evicted:
    """llmfw's wheel without the plugin, installed."""
    place = tmp_path_factory.mktemp(f"without-{request.param}")
    environment = Environment.create(place / "environment")
    environment.install(build_wheel(copy_core(place / "core", without=request.param), place / "dist"))
    return Evicted(request.param, environment, place)


def test_without_it_the_list_has_all_the_others(evicted: Evicted, tmp_path: Path):
    told = evicted.environment.llmfw("plugins", "list", "--json", cwd=tmp_path)
    assert told.returncode == 0, told.stderr
    assert {card["name"] for card in json.loads(told.stdout)} == set(built_ins()) - {evicted.name}
    missing = evicted.environment.run("-c", f"import llmfw.plugins.{evicted.name}", cwd=tmp_path)
    assert "ModuleNotFoundError" in missing.stderr


def test_without_it_a_model_is_still_trained_and_still_answers(evicted: Evicted, tmp_path: Path):
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    fitted = evicted.environment.llmfw("fit", "data=rows.jsonl", "run.dir=run", *SMALL, cwd=tmp_path)
    assert fitted.returncode == 0, fitted.stdout + fitted.stderr
    answered = evicted.environment.llmfw("generate", "1+1=", "model=run", *SMALL[2:], cwd=tmp_path)
    assert answered.returncode == 0, answered.stdout + answered.stderr


def test_without_it_asking_for_it_is_a_usage_error(evicted: Evicted, tmp_path: Path):
    told = evicted.environment.llmfw("fit", "--plugin", evicted.name, *SMALL, cwd=tmp_path)
    assert told.returncode == 2
    (line,) = [line for line in told.stderr.splitlines() if line.startswith("error[")]
    assert evicted.name in line


def test_without_it_those_that_name_it_as_their_baseline_still_plan_and_say_what_is_missing(
    evicted: Evicted, tmp_path: Path
):
    followers = [
        card.name
        for card in cards().values()
        if card.name in built_ins() and card.neutral.get("baseline") == evicted.name
    ]
    for name in followers:
        planned = evicted.environment.llmfw("plan", "--plugin", name, "model=tiny-llama", cwd=tmp_path)
        assert planned.returncode == 0, planned.stderr
        told = evicted.environment.llmfw("plugins", "check", name, "--law", "neutral", "--json", cwd=tmp_path)
        (outcome,) = json.loads(told.stdout)
        assert outcome["status"] == "skipped" and evicted.name in outcome["message"], outcome


def test_as_a_strangers_package_it_passes_its_own_tests_unchanged(evicted: Evicted):
    """What is slow or kills processes is left out: the built-in's run has it. The laws are kept as well."""
    environment, name = evicted.environment, evicted.name
    folder = evict(name, environment, evicted.folder)
    environment.install(build_wheel(folder, evicted.folder / "plugin-dist"))
    listed = environment.llmfw("plugins", "list", cwd=evicted.folder)
    assert re.search(rf"^{name} .*llmfw-{name} 0\.1\.0 ", listed.stdout, re.MULTILINE), listed.stdout
    told = environment.pytest("-m", "not slow and not kill", "-rs", cwd=folder)
    assert told.returncode == 0, told.stdout[-6000:] + told.stderr[-2000:]
    passed = re.search(r"(\d+) passed", told.stdout)
    assert passed is not None and int(passed[1]) > 10
    checked = environment.llmfw("plugins", "check", name, cwd=evicted.folder)
    assert checked.returncode == 0, checked.stdout[-6000:] + checked.stderr[-2000:]
