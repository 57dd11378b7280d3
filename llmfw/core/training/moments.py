"""Evaluations at their moments of a training: one process asks the whole model, all know what it said."""

from __future__ import annotations

from llmfw.core.assemble import Assembled
from llmfw.core.manager import DEFAULTS
from llmfw.core.measure import Measured, has_evaluations, merged, run_evaluations
from llmfw.core.models.shards import is_sharded
from llmfw.core.module import TrainModule
from llmfw.core.records import When
from llmfw.core.training.turns import for_all


def measured_at(assembled: Assembled, module: TrainModule, *moments: When) -> dict[When, Measured]:
    """The evaluations of these moments, each run once, by the main process for all; {}: there are none."""
    plan, run, policy = assembled.plan, assembled.run, module.policy
    assert policy is not None
    if not any(has_evaluations(plan, when) for when in moments):
        return {}

    def work() -> dict[When, Measured]:
        results = run_evaluations(plan, run, policy, moments)
        for answer, _, seconds in results:
            if answer.plugin != DEFAULTS:
                run._spent.add(answer.plugin, f"evaluation/{answer.value.name}", seconds)
        return {when: merged(results, when) for when in moments}

    with module.whole():
        return for_all(work, everywhere=is_sharded(policy.module))
