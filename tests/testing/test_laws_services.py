"""Mutants of a service: each breaks one law, and that one alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.testing.base_toys import assert_only, mutant, outcomes
from tests.toys.executor import SOURCE, USABLE

_FACTORY = "factory=partial(Length, self.config.unit)"
_EXECUTOR = {
    "card": ('offers = ["Rater"]', 'offers = ["CodeExecutor"]'),
    "plugin": [
        ('protocol="Rater"', 'protocol="CodeExecutor"'),
        ("from .rater import Length", "from .executor import Sandbox"),
        (_FACTORY, "factory=Sandbox"),
        ("from functools import partial\n", ""),
    ],
}


def test_an_object_that_is_built_with_the_plan_is_found(tmp_path: Path):
    assert_only(
        "service-protocol",
        tmp_path,
        "service",
        plugin=[
            (
                "        return [Service(",
                "        built = Length(self.config.unit)\n        return [Service(",
            ),
            (_FACTORY, "factory=lambda: built"),
        ],
        match="Rater 'base_service' is there before it's asked for: its factory gives one object",
    )


def test_a_thread_that_is_started_with_the_plan_is_found(tmp_path: Path):
    started = (
        "        import threading\n"
        "        import time\n\n"
        "        threading.Thread(target=time.sleep, args=(60,), daemon=True).start()\n"
        "        return [Service("
    )
    name = mutant(tmp_path, "service", plugin=("        return [Service(", started))
    found = outcomes(tmp_path, name, only=["service-protocol"])["service-protocol"]
    assert not found.good and "making the plan left 1 more threads; do it in the factory" in found.message


def test_a_factory_that_builds_nothing_is_found(tmp_path: Path):
    assert_only(
        "service-protocol",
        tmp_path,
        "service",
        plugin=(_FACTORY, "factory=lambda: print(end='', *[Length(self.config.unit)][:0])"),
        match="the factory of Rater 'base_service' built nothing",
    )


def test_an_executor_without_the_protocols_method_is_found(tmp_path: Path):
    plugin = [change for change in _EXECUTOR["plugin"] if "Sandbox" not in change[1]][:1]
    name = mutant(tmp_path, "service", card=_EXECUTOR["card"], plugin=plugin)
    found = outcomes(tmp_path, name, only=["service-protocol"])["service-protocol"]
    assert not found.good and "Length isn't a CodeExecutor" in found.message


@pytest.mark.skipif(not USABLE, reason="the executor has to be started as root, with util-linux")
def test_an_executor_that_holds_everything_back_keeps_every_law(tmp_path: Path):
    found = outcomes(tmp_path, mutant(tmp_path, "service", executor=SOURCE, **_EXECUTOR))
    assert not {one.law: one.message for one in found.values() if not one.good}
    assert found["executor-limits"].status == "passed"


@pytest.mark.skipif(not USABLE, reason="the executor has to be started as root, with util-linux")
def test_an_executor_with_a_hole_is_found(tmp_path: Path):
    assert_only(
        "executor-limits",
        tmp_path,
        "service",
        executor=SOURCE.replace('"--net", ', ""),
        match=r"base_service: network: it reached a port of this machine; isolate programs",
        **_EXECUTOR,
    )
