"""``llmfw config``: what holds, where it came from, and every key there is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from llmfw.cli import run
from llmfw.core.config import load_config
from tests.toys import installed, write_toy

SOURCE = """
from dataclasses import dataclass, field
from llmfw.core.plugin import Plugin

class Toy(Plugin):
    @dataclass
    class Config:
        alpha: float = field(default=0.5, metadata={"help": "weight of the tail, 0 to 1"})
        count: int = field(metadata={"help": "must be given"}, kw_only=True)
"""


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def said(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert run(["config", *words]) == 0
    return capsys.readouterr().out


def test_what_is_printed_is_a_file_that_gives_the_same_settings(tmp_path: Path, capsys):
    words = ["model=tiny-llama", "optimizer.lr=1e-4", "generation.stop=['a: b', yes]", "tracking.tags.a.b=x"]
    Path("again.yaml").write_text(said(capsys, *words))
    assert load_config(files=[Path("again.yaml")]).flat() == load_config(overrides=words).flat()


def test_explain_names_layer_file_line_and_what_is_shadowed(capsys):
    Path("mine.yaml").write_text("optimizer:\n  lr: 1e-3\n")
    lines = said(
        capsys, "--explain", "--config", "mine.yaml", "optimizer.lr=1e-4", "model=tiny-llama"
    ).splitlines()
    assert (
        "optimizer.lr: 0.0001  # command line; shadows 0.001 (file, mine.yaml:2); shadows 2e-05 (defaults)"
        in lines
    )
    preset = next(line for line in lines if line.startswith("model.config.model_type"))
    assert "preset tiny-llama, llmfw/configs/models/tiny-llama.yaml:" in preset
    assert len(lines) == len(load_config(overrides=["model=tiny-llama"]).flat())


def test_diff_prints_what_differs_and_reads_back(capsys):
    text = said(capsys, "--diff", "seed=7", "tracking.tags.a.b=x", "model=tiny-llama", "data.packing=false")
    assert text.startswith("seed: 7\n") and "a.b: x" in text and "packing" not in text
    Path("diff.yaml").write_text(text)
    assert load_config(files=[Path("diff.yaml")]).flat()["tracking.tags.a.b"] == "x"


def test_keys_say_meaning_type_default_and_choices_of_core_and_plugins(tmp_path: Path, capsys):
    write_toy(tmp_path, "toy", SOURCE)
    with installed(tmp_path):
        text = said(capsys, "--keys", "--plugin", "toy", "toy.count=1")
    assert (
        "optimizer.schedule  (constant | linear | cosine | wsd; default cosine)\n    learning rate after"
        in text
    )
    assert "trainer.max_steps  (int | null; default null)" in text
    assert "toy.alpha  (float; default 0.5)\n    weight of the tail, 0 to 1" in text
    assert "toy.count  (int; no default: it must be given)" in text


@pytest.mark.parametrize("words", [[], ["--explain"], ["--diff"], ["--json"]])
def test_secrets_are_hidden_unless_asked_for(capsys, words: list[str]):
    secrets = ["tracking.uri=https://me:xyzzy@host", "tracking.tags.hub_token=plugh"]
    text = said(capsys, *words, *secrets)
    assert "xyzzy" not in text and "plugh" not in text and "host" in text
    text = said(capsys, *words, "--show-secrets", *secrets)
    assert "xyzzy" in text and "plugh" in text


def test_json_is_by_dotted_key(capsys):
    assert json.loads(said(capsys, "--json", "seed=3"))["seed"] == 3
