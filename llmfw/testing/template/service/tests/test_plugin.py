"""The service, as those who ask for it get it."""

from __future__ import annotations

import pytest

import llmfw
from llmfw.testing import plugin_module


@pytest.mark.parametrize(
    ("answer", "expected", "right"),
    [
        ("So it is 1,200.", "1200", True),
        ("1201", "1200", False),
        ("I do not know", "1200", False),
        (" yes ", "yes", True),
        ("no", "yes", False),
    ],
)
def test_an_answer_is_judged_by_its_last_number(answer: str, expected: str, right: bool) -> None:
    plugin = plugin_module("my_method", "plugin").MyMethod
    (service,) = plugin(plugin.Config()).llmfw_services(run=None)
    assert service.protocol == "AnswerVerifier"
    assert service.factory()(answer, expected) is right


def test_the_plan_names_the_service() -> None:
    made = llmfw.plan("model=tiny-llama", "data=champ-problems", plugins=["my_method"])
    (answer,) = made.answers["llmfw_services"]
    assert (answer.plugin, answer.value.protocol) == ("my_method", "AnswerVerifier")


def test_a_negative_tolerance_is_refused_before_anything_is_loaded() -> None:
    with pytest.raises(llmfw.LlmfwError, match=r"my_method\.tolerance"):
        llmfw.plan("model=tiny-llama", "my_method.tolerance=-1", plugins=["my_method"])
