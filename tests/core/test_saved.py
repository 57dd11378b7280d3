"""What a saved run hands on to whoever measures it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from llmfw.core.models import resolve_model
from llmfw.core.models.source import as_model
from llmfw.core.saved import settings_of_run
from llmfw.testing.distributions import look_again
from llmfw.testing.runner import Runner


def _run(folder: Path, settings: dict) -> Path:
    (folder / "final").mkdir(parents=True)
    (folder / "run.json").write_text("{}")
    (folder / "config.yaml").write_text(yaml.safe_dump(settings))
    return folder / "final"


def test_a_run_brings_its_evaluations_data_and_models(tmp_path: Path):
    settings = {
        "evaluation": {"metrics": ["perplexity"], "lm_eval": ["arc"]},
        "data": {"name": "rows.jsonl"},
        "models": {"critic": {"name": "tiny-llama"}},
        "model": {"name": "not taken"},
    }
    found = settings_of_run(_run(tmp_path / "run", settings))
    assert found is not None
    _, kept, gone = found
    assert kept == {key: settings[key] for key in ("evaluation", "data", "models")}
    assert gone == []


def test_a_run_cannot_say_whom_to_trust(tmp_path: Path):
    """Scripts, servers, code of a repository and of tasks: the run's folder may come from someone else."""
    settings = {
        "evaluation": {"metrics": ["perplexity"], "lm_eval": ["mine"], "lm_eval_path": "tasks"},
        "models": {
            "judge": {"endpoint": "http://far.example/v1", "name": "m", "api_key_env": "KEY"},
            "oracle": {"script": "oracle.py:answer"},
            "coded": {"name": "owner/name", "trust_remote_code": True},
            "critic": {
                "fit": {
                    "model": {"name": "owner/name", "trust_remote_code": True},
                    "models": {"inner": {"script": "inner.py:answer"}},
                }
            },
        },
    }
    found = settings_of_run(_run(tmp_path / "run", settings))
    assert found is not None
    _, kept, gone = found
    assert kept["evaluation"] == {"metrics": ["perplexity"]}
    assert kept["models"] == {
        "coded": {"name": "owner/name"},
        "critic": {"fit": {"model": {"name": "owner/name"}, "models": {}}},
    }
    assert sorted(gone) == [
        "evaluation.lm_eval_path", "models.coded.trust_remote_code",
        "models.critic.fit.model.trust_remote_code", "models.critic.fit.models.inner.script",
        "models.judge.endpoint", "models.oracle.script",
    ]  # fmt: skip


def test_a_manifest_cannot_give_trust():
    assert as_model({"name": "owner/name", "trust_remote_code": True}).trust_remote_code is False
    assert resolve_model("tiny-llama").model.trust_remote_code is False


GATES = Path(__file__).parents[2] / "docs" / "examples" / "surgeries.py"


def test_weights_whose_plugin_is_not_installed_name_the_command_that_installs_it(
    runner: Runner, rows_file: Any, installed_plugin: Callable[..., Path], tmp_path: Path
) -> None:
    installed_plugin("gates", GATES.read_text().replace("class Example", "class Toy"))
    run = runner("fit", "--plugin", "gates", f"data={rows_file()}", "trainer.max_steps=1").assert_ok().run
    assert run is not None
    shutil.rmtree(tmp_path / "site-packages")
    look_again()
    failed = runner("generate", "1 + 1", f"model={run}").assert_failed(code="MODEL-PLUGIN")
    assert failed.exit_code == 5 and failed.error is not None
    assert "plugin 'gates'" in failed.error and "; pip install " in failed.error
