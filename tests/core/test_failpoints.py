"""Failpoints act at the hit they name and nowhere else."""

from __future__ import annotations

from collections import Counter

import pytest

from llmfw.core import failpoints
from llmfw.core.errors import UsageError
from llmfw.core.failpoints import Failpoint, armed, failpoint, planned


def test_the_named_hit_acts_and_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(failpoints, "_reached", Counter())
    monkeypatch.setenv("LLMFW_FAILPOINT", "val.mid:2:raise, ckpt.mid_write:1:kill")
    failpoint("val.mid")
    failpoint("train.mid_accum")
    with pytest.raises(Failpoint):
        failpoint("val.mid")
    failpoint("val.mid")


@pytest.mark.parametrize("value", [None, "", " , "])
def test_nothing_planned_does_nothing(monkeypatch: pytest.MonkeyPatch, value: str | None) -> None:
    monkeypatch.delenv("LLMFW_FAILPOINT", raising=False)
    if value is not None:
        monkeypatch.setenv("LLMFW_FAILPOINT", value)
    for name in failpoints.NAMES:
        failpoint(name)


@pytest.mark.parametrize(
    "text", ["nowhere:1:kill", "val.mid", "val.mid:0:kill", "val.mid:x:kill", "val.mid:1:explode"]
)
def test_a_plan_that_would_never_act_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="LLMFW_FAILPOINT"):
        planned(text)


def test_a_plan_is_read_by_name() -> None:
    assert planned("val.mid:3:raise,ckpt.mid_write:1:sleep") == {
        "val.mid": (3, "raise"),
        "ckpt.mid_write": (1, "sleep"),
    }


def test_an_armed_block_counts_anew_and_leaves_the_environment_as_it_was(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("LLMFW_FAILPOINT", "ckpt.mid_write:1:kill")
    for _ in range(2):
        with armed("val.mid:1:raise"), pytest.raises(Failpoint):
            failpoint("val.mid")
    failpoint("val.mid")
    assert failpoints.os.environ["LLMFW_FAILPOINT"] == "ckpt.mid_write:1:kill"
