"""What hooks are given: services and models that records will ask for can be missed before anything loads."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from llmfw.core.errors import ConflictError, UsageError
from llmfw.core.run import Run
from llmfw.core.verifiers import BUILT_IN, NEEDED, build
from tests.toys.runs import run_of

REWARD = SimpleNamespace(rewards=lambda rows, responses: [0.0] * len(rows))


def never() -> Any:
    raise AssertionError("it was built")


def test_what_is_offered_may_be_expected_and_is_not_built_by_it() -> None:
    run = run_of(services={("Reward", "mine"): REWARD})
    run._services[("Reward", "mine")].value.__dict__["factory"] = never
    run.expect_service("Reward", "mine")
    run.expect_service("Reward")
    run.expect_service("Verifier", "number")
    assert run._built == {}


def test_a_service_that_nobody_offers_is_refused_by_the_setting_that_names_it() -> None:
    run = run_of()
    with pytest.raises(UsageError, match=r"rft.verifier: .*no plugin.*Verifier named 'nubmer'.*number, math"):
        run.expect_service("Verifier", "nubmer", key="rft.verifier")
    with pytest.raises(UsageError, match="offers CodeExecuter; did you mean CodeExecutor") as caught:
        run_of(services={("CodeExecutor", "box"): None}).expect_service("CodeExecuter")
    assert caught.value.code == "SERVICE" and caught.value.exit_code == 2


def test_of_several_one_has_to_be_named() -> None:
    run = run_of(services={("Judge", "a"): REWARD, ("Judge", "b"): REWARD})
    run.expect_service("Judge", "b")
    with pytest.raises(ConflictError, match=r"toy.judge: .*under 2 names: a, b; ask for one by name"):
        run.expect_service("Judge", key="toy.judge")


def test_what_a_verifier_of_the_core_needs_itself_is_expected_with_it() -> None:
    with pytest.raises(UsageError, match=r"rft.verifier: .*CodeExecutor, and Verifier 'program' needs one"):
        run_of().expect_service("Verifier", "program", key="rft.verifier")
    run_of(services={("CodeExecutor", "box"): None}).expect_service("Verifier", "program")


@pytest.mark.parametrize("key", sorted(BUILT_IN))
def test_the_table_of_needs_says_what_each_verifier_and_reward_asks_for(key: tuple[str, str]) -> None:
    """Each is built; what it asks of the run is in the table, and nothing else."""
    asked: list[str] = []

    def service(protocol: str, name: str | None = None) -> Any:
        if protocol == "Verifier":
            assert name is not None
            return build(protocol, name, service)
        asked.append(protocol)
        return SimpleNamespace(run=None)

    build(*key, service)
    assert asked == ([NEEDED[key]] if key in NEEDED else [])


def test_a_model_that_no_setting_names_is_refused_with_those_that_there_are() -> None:
    run: Run = run_of(policies={"critic": None, "judge": None})
    run.expect_policy("judge", setting="gsi.teacher")
    with pytest.raises(
        UsageError, match=r"gsi.teacher: no auxiliary model 'teacher' \(critic, judge\)"
    ) as error:
        run.expect_policy("teacher", setting="gsi.teacher")
    assert error.value.code == "NO-MODEL" and error.value.exit_code == 2
    with pytest.raises(UsageError, match=r"models.teacher: .*none are named\); set models.teacher.name"):
        run_of().expect_policy("teacher")
