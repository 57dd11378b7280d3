"""The golden order of one run: which hooks are asked, and when each record's function is called."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

import llmfw
from tests.toys import installed, write_toy

SOURCE = (Path(__file__).parent / "toy_everywhere.py").read_text(encoding="utf-8")
SETTINGS = (
    "model=tiny-llama",
    "tracking.mlflow=false",
    "trainer.max_steps=2",
    "trainer.micro_batch=2",
    "trainer.validate_every=1",
)

PLAN = """\
hook llmfw_services
hook llmfw_datamodule
hook llmfw_dataset_transforms
hook llmfw_sampler
hook llmfw_surgeries
hook llmfw_loss
hook llmfw_evaluations
hook llmfw_metrics(train)
hook llmfw_metrics(validation)
hook llmfw_callbacks
hook llmfw_kv_cache
hook llmfw_decoder
"""
DATA = """\
rows of train
rows of validation
transform rows
transform tokens
transform units
"""
BUILD = """\
surgery before_load
surgery after_load
surgery after_adapters
"""
EVALUATE = """\
evaluation
decoder
cache built
"""
TRAIN = f"""\
{BUILD}callback fit start
transform order
calibrate
{EVALUATE}loss
metric of train
loss
metric of validation
callback step end
loss
metric of train
callback step end
callback fit end
loss
metric of validation
{EVALUATE}"""
ROUNDS = f"""\
{BUILD}sampler round 0
service built
transform rows
transform tokens
transform units
{TRAIN}{BUILD}sampler round 1
"""


@pytest.fixture
def trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Runs one fit with the toy; the trace it leaves."""
    write_toy(tmp_path, "everywhere", SOURCE)
    monkeypatch.chdir(tmp_path)

    def run(*settings: str) -> str:
        llmfw.fit(*SETTINGS, *settings, plugins=["everywhere"])
        return "".join(f"{line}\n" for line in sys.modules["toy_everywhere.plugin"].TRACE)

    with installed(tmp_path):
        yield run


def test_a_plan_asks_every_hook_once_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write_toy(tmp_path, "everywhere", SOURCE)
    monkeypatch.chdir(tmp_path)
    with installed(tmp_path):
        llmfw.plan(*SETTINGS, plugins=["everywhere"])
        assert PLAN.splitlines() == sys.modules["toy_everywhere.plugin"].TRACE


def test_the_golden_order_of_a_run(trace):
    assert trace() == PLAN + DATA + TRAIN


def test_the_golden_order_of_a_run_in_rounds(trace):
    assert trace("everywhere.rounds=1") == PLAN + DATA + ROUNDS
