"""Whole runs on a tiny model: the round table, the neutral setting, other people's data, the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file

import llmfw
from llmfw.core.errors import LlmfwError
from llmfw.plugins.agentrefine.commands import group
from llmfw.plugins.agentrefine.environments import open_suites
from llmfw.plugins.agentrefine.evaluations import is_unseen
from llmfw.plugins.agentrefine.functional import ARMS
from llmfw.plugins.agentrefine.plugin import AgentRefine
from llmfw.plugins.agentrefine.rows import Options, ScriptedWorld
from llmfw.testing import plugin_module

SMALL = (
    "model=tiny-llama", "model.config.hidden_size=32", "model.config.intermediate_size=32",
    "trainer.max_steps=2", "trainer.epochs=null", "trainer.micro_batch=2", "trainer.progress=false",
    "trainer.threads=1", "trainer.layout=padded", "optimizer.lr=0.01", "optimizer.warmup=0.05",
    "optimizer.schedule=cosine", "tracking.mlflow=false", "generation.max_new_tokens=4",
    "checkpoint.every=0",
)  # fmt: skip
WORLD = ("data.options.train=6", "data.options.validation=2")


def fit(folder: Path, *words: str, plugins: tuple[str, ...] = ("agentrefine",), play: str = '""') -> Any:
    own = (f"agentrefine.environments={play}",) if plugins else ()
    return llmfw.fit(*SMALL, *own, *words, f"run.dir={folder}", plugins=list(plugins))


def weights(result: Any) -> dict[str, torch.Tensor]:
    return load_file(result.final / "model.safetensors")


def test_a_run_has_one_round_and_its_table_says_what_was_trained(tmp_path: Path) -> None:
    found = fit(tmp_path / "run", *WORLD, "agentrefine.episodes=1", "agentrefine.max_turns=1",
                play="held_in,forced")  # fmt: skip
    assert found.rounds == 1
    (line,) = found.by_round
    rows = [m["kind"] for row in ScriptedWorld(Options(
        train=6, names="fixed", rooms=2, boxes=2, items=1, treats=0.0, shut=0.25, choice=3)).rows("train")
        for m in row["messages"] if m["role"] == "assistant"]  # fmt: skip
    assert line["records"] == 6 and line["turns"] == pytest.approx(len(rows) / 6)
    assert line["turns/error"] == pytest.approx(rows.count("error") / len(rows))
    assert line["turns/trained"] == pytest.approx(1 - rows.count("error") / len(rows))
    assert line["coverage"] == 1.0
    assert {"episodes/held_in/success", "episodes/forced/first_repeat"} <= set(found.after)


def test_the_neutral_arm_is_plain_fine_tuning_bit_for_bit_and_the_others_are_not(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    rows = ScriptedWorld(Options(train=8)).rows("train")
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = (f"data={file}", "data.options={}", "data.validation=0")
    plain = weights(fit(tmp_path / "plain", *data, plugins=()))
    for arm in ARMS:
        ours = weights(fit(tmp_path / arm, *data, f"agentrefine.arm={arm}"))
        same = all(torch.equal(ours[name], plain[name]) for name in plain)
        assert same == (arm == "erroneous_loss"), arm


def test_plain_dialogues_without_kinds_stop_with_one_line(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    chat = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]
    file.write_text("".join(json.dumps({"messages": chat, "id": str(n)}) + "\n" for n in range(4)))
    with pytest.raises(LlmfwError, match=r"error\[TURN-KIND\].*has no kind; mark each"):
        fit(tmp_path / "run", f"data={file}", "data.options={}", "data.validation=0")


def test_a_wrong_arm_option_or_environment_stops_before_anything_is_loaded(tmp_path: Path) -> None:
    for word, said in (
        ("agentrefine.arm=none", "no_refinement_data"),
        ("data.options.trian=3", "no option 'trian'"),
        ("agentrefine.environments=alfworld", "'alfworld' is no environment"),
    ):
        with pytest.raises(LlmfwError, match=said):
            llmfw.plan(*SMALL, word, plugins=["agentrefine"])


def test_the_choices_of_the_setting_are_the_arms() -> None:
    assert tuple(AgentRefine.Config.__dataclass_fields__["arm"].metadata["choices"]) == ARMS


def call(*words: str) -> Any:
    return CliRunner().invoke(group, list(words))


def test_trajectories_are_built_checked_and_converted(tmp_path: Path) -> None:
    turns, rows, made = (str(tmp_path / name) for name in ("turns.jsonl", "rows.jsonl", "made.jsonl"))
    assert call("build", "--out", turns, "--count", "4", "--turns").exit_code == 0
    assert call("check", turns).output == "accepted 4\n"
    assert call("convert", turns, "--out", rows, "--source", "rules").output.startswith("4 rows in")
    assert call("build", "--out", made, "--count", "4").exit_code == 0
    converted = [json.loads(line) for line in Path(rows).read_text().splitlines()]
    built = [json.loads(line) for line in Path(made).read_text().splitlines()]
    assert [row["messages"] for row in converted] == [row["messages"] for row in built]


def test_a_broken_trajectory_is_named_and_left_out(tmp_path: Path) -> None:
    file, out = tmp_path / "turns.jsonl", tmp_path / "rows.jsonl"
    call("build", "--out", str(file), "--count", "3", "--turns")
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    del lines[1]["turns"][2]["Thought"]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    told = call("check", str(file))
    assert f"{file}:2: train-1: turn: turn 3 has no 'Thought' of type str (2 turns hold)\n" in told.output
    assert told.output.endswith("accepted 2, turn 1\n") and told.exit_code == 3
    assert "2 rows in" in call("convert", str(file), "--out", str(out)).output
    file.write_text('{"turns": []}\n')
    error = call("check", str(file)).exception
    assert (
        isinstance(error, LlmfwError) and error.line == 1 and "no object with script and turns" in str(error)
    )


def test_a_scripts_faults_are_told_with_their_lines_and_its_trajectory_is_left_out(tmp_path: Path) -> None:
    file, out = tmp_path / "turns.jsonl", tmp_path / "rows.jsonl"
    call("build", "--out", str(file), "--count", "3", "--turns")
    first, second, third = (json.loads(line) for line in file.read_text().splitlines())
    second["script"]["Available Actions"]["look"] = {"verification code": "(l+)+ook", "parameters": {}}
    third["script"]["Available Actions"]["look"] = {"verification code": "lok", "parameters": {}}
    file.write_text("\n" + "".join(json.dumps(line) + "\n" for line in (first, second, third)))
    told = call("check", str(file))
    assert f"{file}:3: train-1: script: 'look': the expression '(l+)+ook' may take for ever" in told.output
    assert f"{file}:4: train-2: script: 'look' doesn't match the verification code of 'look'" in told.output
    assert told.output.endswith("script 2, accepted 1\n") and told.exit_code == 3
    assert call("convert", str(file), "--out", str(out)).output.endswith("2 trajectories left out\n")


@pytest.mark.parametrize(
    ("text", "said"),
    [(b"", "holds no trajectory"), (b"\n \n", "holds no trajectory"), (b"\xff\xfe{", "no object with script"),
     (b"[" * 100_000, "no object with script"), (b"[1]", "no object with script")],
)  # fmt: skip
def test_a_file_without_a_trajectory_is_one_clear_line(tmp_path: Path, text: bytes, said: str) -> None:
    file = tmp_path / "turns.jsonl"
    file.write_bytes(text)
    error = call("check", str(file)).exception
    assert isinstance(error, LlmfwError) and error.exit_code == 3 and said in str(error)


def test_the_unseen_episodes_are_those_that_readme_and_claims_name() -> None:
    """Six suites: held_out and P1 to P5; the trained words, the world's own and the forced mistake aren't."""
    reproduce = plugin_module("agentrefine", "reproduce")
    suites = open_suites("held_in,held_out,perturbed,forced", 1, Options())
    unseen = [one.name for one in suites if is_unseen(one)]
    assert unseen == ["held_out", *(f"perturbed/P{n}" for n in range(1, 6))]
    assert "held_out, perturbed/P1, P2, P3, P4 and P5)" in reproduce.CLAIMS[0].statement
    readme = Path(reproduce.__file__).with_name("README.md").read_text(encoding="utf-8")
    assert "six suites together: held_out, perturbed/P1, P2, P3, P4 and P5, each" in readme


def test_claims_have_arms_of_equal_tokens_that_differ_by_their_labels_alone() -> None:
    reproduce = plugin_module("agentrefine", "reproduce")
    assert [claim.id for claim in reproduce.CLAIMS] == [f"agentrefine.{n}" for n in range(1, 8)]
    tested = [claim for claim in reproduce.CLAIMS if not claim.not_tested]
    for size in ("smoke", "small", "full"):
        found = reproduce.arms(tested[0], 11, size)
        base = found.pop(reproduce.BASE)
        assert set(found) == set(ARMS) and base.settings["data.options.error_rate"] == 0.0
        assert base.settings["agentrefine.environments"] == '""', "what nobody looks at isn't played"
        assert not base.after and all(arm.after == reproduce.BASE for arm in found.values())
        own = ("agentrefine.arm", "data.options.train", "trainer.max_steps")
        rest = [{k: v for k, v in arm.settings.items() if k not in own} for arm in found.values()]
        for arm in found.values():
            read = arm.settings["trainer.max_steps"] * arm.settings["trainer.micro_batch"]
            assert arm.settings["data.options.train"] == read, "each dialogue is read once"
        assert all(one == rest[0] for one in rest)
        assert all({*claim.arms, *claim.controls} == set(ARMS) for claim in tested)
    small = reproduce.arms(tested[0], 11, "small")
    del small[reproduce.BASE]
    tokens = [arm.settings["trainer.max_steps"] * reproduce.length(name) for name, arm in small.items()]
    assert max(tokens) / min(tokens) < 1.01
    assert (
        reproduce.length("full")
        == reproduce.length("erroneous_loss")
        > reproduce.length("no_refinement_data")
    )
