"""The class of a run: what it promises, what it hangs on, and that it never grows better."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from llmfw.core.exactness import Exactness, conditions, exactness_of, recorded, taken_up
from llmfw.core.schema import Root

PLAN: Any = None
"""No class hangs on the plan itself."""


def root(**changes: Any) -> Root:
    made = Root()
    return replace(made, **{part: replace(getattr(made, part), **values) for part, values in changes.items()})


def test_on_a_cpu_with_deterministic_kernels_a_run_is_of_class_a() -> None:
    found = exactness_of(PLAN, root(trainer={"accelerator": "cpu"}))
    assert found == Exactness(grade="A") and "bit for bit" in str(found)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"trainer": {"accelerator": "cpu", "deterministic": False}}, "trainer.deterministic=false"),
        ({"trainer": {"accelerator": "cpu", "compile": "layers"}}, "trainer.compile=layers"),
        ({"trainer": {"accelerator": "cpu"}, "model": {"quantization": "nf4"}}, "model.quantization=nf4"),
        ({"trainer": {"accelerator": "cpu"}, "optimizer": {"name": "adamw8bit"}}, "optimizer.name=adamw8bit"),
    ],
)
def test_what_may_round_otherwise_makes_it_class_b_and_is_named(changes: dict[str, Any], reason: str) -> None:
    found = exactness_of(PLAN, root(**changes))
    assert found.grade == "B" and len(found.reasons) == 1 and found.reasons[0].startswith(reason)
    assert reason in str(found)


def test_data_without_a_position_are_class_c_whatever_else_holds() -> None:
    found = exactness_of(PLAN, root(trainer={"deterministic": False}), stateless="plugin 'x'")
    assert found == Exactness(grade="C", reasons=("plugin 'x' keeps no position",))


def test_conditions_name_threads_processor_build_and_what_the_environment_switches(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MKL_CBWR", "COMPATIBLE")
    settings = {"trainer.micro_batch": 2, "trainer.accumulate": 3}
    found = conditions(root(trainer={"accelerator": "cpu", "threads": 3}), settings)
    assert found["threads"] == "3" and found["micro_batch"] == "2" and found["accumulate"] == "3"
    assert found["MKL_CBWR"] == "COMPATIBLE"
    assert {"processor", "instructions", "torch build"} <= found.keys() and "device" not in found
    assert found == conditions(root(trainer={"accelerator": "cpu", "threads": 3}), settings)


def test_other_conditions_make_a_resumed_run_class_b_for_good() -> None:
    promised, two, one = Exactness(grade="A"), {"threads": "2"}, {"threads": "1"}
    assert taken_up(promised, two, two).grade == "A"
    moved = taken_up(promised, two, one)
    assert moved == Exactness(grade="B", reasons=("threads 2 -> 1",))
    assert taken_up(promised, one, one, moved) == moved, "what changed once isn't forgotten"
    back = taken_up(promised, one, two, moved)
    assert back == Exactness(grade="B", reasons=("threads 2 -> 1", "threads 1 -> 2"))
    assert taken_up(promised, two, {**two, "MKL_CBWR": "AVX2"}).reasons == ("MKL_CBWR unset -> AVX2",)


def test_a_run_that_noted_no_conditions_counts_as_begun_under_the_present_ones() -> None:
    assert recorded("", ()) is None and recorded("B", ["x"]) == Exactness(grade="B", reasons=("x",))
    assert taken_up(Exactness(grade="A"), {}, {"threads": "1"}, recorded("", ())).grade == "A"


def test_class_c_stays_class_c_under_other_conditions() -> None:
    worst = Exactness(grade="C", reasons=("the stream keeps no position",))
    assert taken_up(worst, {"threads": "2"}, {"threads": "1"}).grade == "C"
