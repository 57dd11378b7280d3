"""What is sampled is kept where it's right, or weighed by its reward."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from llmfw.core.errors import LlmfwError
from llmfw.core.generation import ScriptedPolicy
from llmfw.core.models.byte_level import byte_tokenizer
from llmfw.core.rounds import Ledger
from llmfw.core.schema import GenerationConfig, Root
from llmfw.core.verifiers import build
from llmfw.plugins.rft.plugin import Rft
from llmfw.plugins.rft.sampler import rejection_sampling
from llmfw.testing import Runner
from tests.toys.runs import run_of

ROWS = [{"id": f"p{n}", "prompt": f"{n} +2", "answer": str(n + 2)} for n in range(2)]
TEXTS = ["Answer: 2", "Answer: 9", "Answer: 3", "Answer: 3"]
"""Two answers to each of the two problems: right, wrong; right, right."""


ON_POLICY: dict[str, Any] = {"gold": False, "start": "last", "temperature": 1.0}


class Known(ScriptedPolicy):
    """A script whose answers have ids and log-probs, as a model's do."""

    def generate(self, prompts: Any, **sampling: Any) -> Any:
        found = super().generate(prompts, **{**sampling, "logps": False})
        ids = [(*one.text.encode(), 260) for one in found]
        return [replace(one, ids=own, logps=(-1.0,) * len(own)) for one, own in zip(found, ids, strict=True)]


def sampled(
    folder: Path,
    texts: list[str],
    rewards: Any = None,
    index: int = 0,
    policy: type[Known] = Known,
    **settings: Any,
) -> Any:
    """The round that these answers make; ``rewards``: what a service gives."""
    service = SimpleNamespace(rewards=lambda rows, responses: rewards)
    run = run_of(services={("Reward", "mine"): service})
    config = Rft.Config(rounds=2, samples=2, reward="mine" if rewards else "", **{**ON_POLICY, **settings})
    ledger, answers = Ledger(folder), iter(texts)
    asked = policy(lambda prompts: [next(answers) for _ in prompts], byte_tokenizer())
    with ledger.sampling(index):
        services = lambda protocol, name: build(protocol, name, None)  # noqa: E731
        return rejection_sampling(config, run)(index, ROWS, asked, services, ledger)


def advantages(found: Any) -> list[float]:
    return [row["extra"]["advantage"] for row in found.records]


def test_right_answers_are_trained_and_wrong_ones_are_not(tmp_path: Path) -> None:
    found = sampled(tmp_path, TEXTS)
    assert [row["completion"] for row in found.records] == ["Answer: 2", "Answer: 3", "Answer: 3"]
    assert found.notes["right"] == 0.75
    once = sampled(tmp_path / "once", TEXTS, unique=True)
    assert [row["completion"] for row in once.records] == ["Answer: 2", "Answer: 3"]


def test_reinforce_weighs_every_answer_by_its_reward_less_the_mean(tmp_path: Path) -> None:
    """Rewards 1 0 1 1, mean 0.75: advantages 0.25 -0.75 0.25 0.25."""
    found = sampled(tmp_path, TEXTS, objective="reinforce")
    assert advantages(found) == [0.25, -0.75, 0.25, 0.25]
    assert found.notes["reward"] == 0.75 and found.notes["dropped"] == 0
    assert found.records[1]["old_logps"] == [-1.0] * len("Answer: 9.")


def test_group_relative_compares_with_the_answers_to_the_same_problem(tmp_path: Path) -> None:
    """1 and 0: mean 0.5, deviation 0.5, so about 1 and -1; 1 and 1: nothing."""
    found = sampled(tmp_path, TEXTS, objective="group_relative")
    assert advantages(found) == pytest.approx([1, -1, 0, 0], abs=1e-3)


def test_a_services_rewards_are_taken_and_what_it_could_not_judge_is_dropped(tmp_path: Path) -> None:
    """-0.3, -1 and 1: mean -0.1; the third has no reward."""
    found = sampled(tmp_path, TEXTS, rewards=[-0.3, -1.0, None, 1.0], objective="reinforce")
    assert advantages(found) == pytest.approx([-0.2, -0.9, 1.1])
    assert found.notes["dropped"] == 0.25


@pytest.mark.parametrize(
    ("objective", "texts", "said"),
    [
        ("group_relative", ["Answer: 2", "Answer: 2", "Answer: 9", "Answer: 9"], "all answers to a problem"),
        ("reinforce", ["Answer: 9"] * 4, "all answers of round 0 have the same reward .the first 0."),
    ],
)
def test_rewards_that_tell_nothing_apart_are_an_error(
    tmp_path: Path, objective: str, texts: list[str], said: str
) -> None:
    with pytest.raises(LlmfwError, match=said) as caught:
        sampled(tmp_path, texts, objective=objective)
    assert caught.value.code == "NO-ADVANTAGE" and caught.value.exit_code == 3


def test_in_a_later_round_they_end_the_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """All right: what there was to learn is learnt."""
    right = ["Answer: 2", "Answer: 2", "Answer: 3", "Answer: 3"]
    assert sampled(tmp_path, right, objective="reinforce", index=1) is None
    assert "note: all answers of round 1 have the same reward (the first 1)" in capsys.readouterr().err


@pytest.mark.parametrize("objective", ["reinforce", "group_relative"])
def test_all_that_makes_samples_another_models_is_refused_at_once(objective: str) -> None:
    run: Any = SimpleNamespace(config=Root(generation=GenerationConfig(top_k=50, top_p=0.9)))
    with pytest.raises(LlmfwError) as caught:
        rejection_sampling(Rft.Config(objective=objective, keep_gold=True), run)
    assert caught.value.code == "OBJECTIVE" and caught.value.exit_code == 2
    assert caught.value.key == "rft.objective"
    assert (
        "set rft.gold=false rft.keep_gold=false rft.start=last rft.temperature=1 generation.top_p=1 "
        "generation.top_k=0; begin" in caught.value.mend
    )


def test_one_setting_that_is_off_is_named_alone() -> None:
    with pytest.raises(LlmfwError, match="set rft.temperature=1; begin"):
        rejection_sampling(Rft.Config(objective="reinforce", gold=False, start="last"), run_of())
    rejection_sampling(Rft.Config(objective="sft", keep_gold=True), run_of())


def retold(folder: Path, others: int) -> Any:
    """A round of 4 answers; so many of them were sampled as a token that no text encodes to."""

    class Retold(Known):
        def generate(self, prompts: Any, **sampling: Any) -> Any:
            found = super().generate(prompts, **sampling)
            swapped = [replace(one, ids=(259, 260), logps=(-1.0, -1.0)) for one in found[:others]]
            return [*swapped, *found[others:]]

    return sampled(folder, TEXTS, policy=Retold, objective="reinforce")


def test_answers_that_training_would_read_as_other_tokens_are_dropped(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Two of four are half of them: nothing is said. Three are more."""
    assert retold(tmp_path / "2", 2).notes["dropped"] == 0.5 and "OTHER-TOKENS" not in caplog.text
    assert retold(tmp_path / "3", 3).notes["dropped"] == 0.75
    assert "warning[OTHER-TOKENS] of 4 answers of round 0 3 are empty, or would be trained" in caplog.text


def test_where_all_are_that_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(LlmfwError, match="of 4 answers of round 0 4 are") as caught:
        retold(tmp_path, 4)
    assert caught.value.code == "OTHER-TOKENS" and caught.value.exit_code == 3


def test_nothing_right_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(LlmfwError, match="0% right") as caught:
        sampled(tmp_path, ["Answer: 9"] * 4)
    assert caught.value.code == "NOTHING-RIGHT"


def test_an_unknown_objective_is_refused(runner: Runner) -> None:
    runner("plan", "--plugin", "rft", "rft.objective=dpo").assert_failed(match="rft.objective", code=2)
