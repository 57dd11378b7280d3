"""Verifiers and rewards as a run gives them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from llmfw.core.errors import CanaryError, ConflictError, UsageError
from llmfw.core.manager import Answer
from llmfw.core.records import Reward, Service, Verdict, Verifier
from llmfw.core.run import Run
from llmfw.core.schema import Root
from llmfw.core.verifiers import BUILT_IN, names

ROW = {"id": "q1", "prompt": "1 + 1?", "answer": "2"}


class Yes:
    """Says right to everything."""

    def verify(self, rows: Any, responses: Any) -> list[Verdict]:
        return [Verdict(status="right") for _ in responses]


def run(*services: Service) -> Run:
    made = Run(Root(), Path("."), "test")
    made._offer([Answer("mine", service) for service in services])
    return made


@pytest.mark.parametrize("name", ["number", "math", "string", "option"])
def test_a_run_without_plugins_has_the_cores_verifiers_and_rewards(name: str):
    one, row = run(), {**ROW, "answer": "B" if name == "option" else "2"}
    verifier, reward = one.service("Verifier", name), one.service("Reward", name)
    assert isinstance(verifier, Verifier) and isinstance(reward, Reward)
    assert one.service("Verifier", name) is verifier and reward.verifier is verifier
    responses = [f"Answer: {row['answer']}", "Answer: C"]
    assert [verdict.right for verdict in verifier.verify([row] * 2, responses)] == [True, False]
    assert reward.rewards([row] * 2, responses) == [1.0, 0.0]


def test_programs_are_run_by_the_executor_that_a_plugin_offers(local: Any):
    one = run(Service(protocol="CodeExecutor", name="local", factory=lambda: local))
    assert one.service("Reward", "program").rewards([ROW], ["print(2)"]) == [1.0]
    with pytest.raises(UsageError, match="no plugin of this run offers CodeExecutor"):
        run().service("Verifier", "program")


def test_a_plugins_verifier_has_canaries_too():
    one = run(Service(protocol="Verifier", name="yes", factory=Yes))
    with pytest.raises(CanaryError, match="'yes'"):
        one.service("Verifier").verify([ROW], ["3"])


def test_without_a_name_plugins_are_meant():
    one = run(Service(protocol="Verifier", name="yes", factory=Yes))
    assert one.service("Verifier") is one.service("Verifier", "yes")
    two = run(*(Service(protocol="Verifier", name=name, factory=Yes) for name in ("yes", "sure")))
    with pytest.raises(ConflictError, match="2 names: yes, sure"):
        two.service("Verifier")


def test_where_no_plugin_offers_one_the_cores_are_named():
    with pytest.raises(UsageError, match="by name: number, math, string, option, reasoning_gym, program"):
        run().service("Verifier")
    with pytest.raises(UsageError, match="no plugin of this run offers Verifier named 'maths'"):
        run().service("Verifier", "maths")
    with pytest.raises(UsageError, match=r"did you mean Verifier\?"):
        run().service("Verifer", "math")


@pytest.mark.parametrize("protocol", ["Verifier", "Reward"])
def test_a_plugin_can_not_stand_in_for_one_of_the_cores(protocol: str):
    with pytest.raises(ConflictError, match=f"plugin mine offers {protocol} 'math', which is the core's own"):
        run(Service(protocol=protocol, name="math", factory=Yes))


def test_every_verifier_has_a_reward():
    assert names("Verifier") == names("Reward") and len(BUILT_IN) == 2 * len(names("Verifier"))


def test_nothing_heavy_is_imported_before_it_is_asked_for():
    code = (
        "import sys, llmfw.core.verifiers;"
        "sys.exit(bool({'sympy', 'torch', 'math_verify', 'reasoning_gym'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_documented_plugin_works():
    """The example of docs/verifiers.md: as many words as the row's answer has."""
    page = (Path(__file__).parents[3] / "docs" / "verifiers.md").read_text(encoding="utf-8")
    code = page.split("```python\n")[-1].split("```")[0]
    space: dict[str, Any] = {}
    exec(compile(code, "verifiers.md", "exec"), space)
    one = run(*space["Mine"](None).llmfw_services(None))
    verdicts = one.service("Verifier").verify(
        [{**ROW, "answer": "two words"}] * 2, ["three words here", "one"]
    )
    assert [verdict.status for verdict in verdicts] == ["right", "wrong"]
