"""What is measured of a training's plugins, and where the figures go."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from llmfw.core.assemble import Assembled
from llmfw.core.costs import Spent, parts_of, series_of
from llmfw.core.costs.meter import Meter, Surgical, Watched, sampled_steps
from llmfw.core.manager import DEFAULTS
from llmfw.core.models import BuiltModel
from llmfw.core.models.names import COMPANIONS, plain_name
from llmfw.core.plan import Plan
from llmfw.core.records import DatasetTransform, NamedMetric, RolloutSampler
from llmfw.core.schema import TrainerConfig
from llmfw.core.session import Session
from llmfw.core.tracking import read_journal

EVENT = "costs"
"""A journal's events with what one step cost, part by part."""
SPENT = "spent"
"""Those with what a part took outside of steps."""


def meter_of(plan: Plan, trainer: TrainerConfig, steps: int, session: Session) -> Meter | None:
    """The meter of a training of ``steps`` steps; None where no plugin has a part in its steps.

    A resumed run goes on with the samples that its journal has.
    """
    watched = _watched(plan, trainer, steps)
    surgeries = plan.answers.get("llmfw_surgeries")
    if not (watched.loss or watched.callbacks or watched.metrics or surgeries) or steps == 0:
        return None
    samples: list[Mapping[str, Any]] = []
    if session.journal is not None and session.resumed:
        session.journal.flush()
        samples += [event.fields for event in read_journal(session.dir / "journal.jsonl").of(EVENT)]

    def tell(sample: Mapping[str, Any]) -> None:
        samples.append(sample)
        if session.journal is not None:
            session.journal.event(EVENT, **sample)
            session.journal.metrics(sample["step"], series_of(parts_of(samples)))

    return Meter(sampled_steps(steps, trainer.log_every), watched, tell)


def timed_transforms(assembled: Assembled) -> list[tuple[str, DatasetTransform]]:
    """The plan's transforms; what they take is noted with the run."""
    spent = assembled.run._spent
    return [
        (plugin, replace(one, apply=spent.timed(plugin, f"transform/{one.name}", one.apply)))
        for plugin, one in assembled.transforms
    ]


def timed_sampler(assembled: Assembled, sampler: RolloutSampler) -> RolloutSampler:
    """The sampler; what its rounds' records take is noted with the run."""
    plugin = assembled.plan.owner("llmfw_sampler") or DEFAULTS
    timed = assembled.run._spent.timed(plugin, f"sampler/{sampler.name}", sampler.next)
    return replace(sampler, next=timed)


def timed_metrics(assembled: Assembled) -> list[NamedMetric]:
    """The metrics of validation; what those of plugins take is noted with the run."""
    spent = assembled.run._spent
    found: list[NamedMetric] = []
    for plugin, metric in assembled.plan.answers.get("llmfw_metrics/validation", ()):
        found.append(metric if plugin == DEFAULTS else _timed_metric(spent, plugin, metric))
    return found


def _timed_metric(spent: Spent, plugin: str, metric: NamedMetric) -> NamedMetric:
    part = f"metric/{metric.name}"

    def factory() -> Any:
        state = metric.factory()
        vars(state)["compute"] = spent.timed(plugin, part, state.compute)
        return state

    return replace(metric, factory=factory, update=spent.timed(plugin, part, metric.update))


def note_spent(assembled: Assembled, session: Session) -> None:
    """Write down what plugins took outside of steps since the last call."""
    for told in assembled.run._spent.take():
        if session.journal is not None:
            session.journal.event(SPENT, **told)


def callbacks_of(plan: Plan) -> list[tuple[str, Any]]:
    """(plugin, callback) of those that plugins bring."""
    return [(one.plugin, one.value) for one in _of_plugins(plan, "llmfw_callbacks")]


def _watched(plan: Plan, trainer: TrainerConfig, steps: int) -> Watched:
    owner = plan.owner("llmfw_loss")
    every = trainer.log_every
    logged = sum(step % every == 0 or step in (1, steps) for step in range(1, steps + 1))
    return Watched(
        loss=None if owner == DEFAULTS else owner,
        reference="its log-probs were computed before step 1" if trainer.reference == "cache" else "",
        callbacks=callbacks_of(plan),
        metrics={one.value.name: one.plugin for one in _of_plugins(plan, "llmfw_metrics/train")},
        metrics_often=logged / steps if steps else 1.0,
        surgeries=surgical,
    )


def _of_plugins(plan: Plan, hook: str) -> list[Any]:
    return [answer for answer in plan.answers.get(hook, ()) if answer.plugin != DEFAULTS]


def surgical(built: BuiltModel) -> Sequence[Surgical]:
    """What each surgery left in a built model: modules and tensors that weren't there before."""
    tensors = _tensors(built)
    early = [one.surgery.name for one in built.reports if one.surgery.phase == "before_load"]
    found = []
    for one in built.reports:
        own = [tensors[name] for name in one.added if name in tensors]
        own += [value for part in one.made for value in part.buffers(recurse=False)]
        for companion in one.report.companions.values():
            own += [*companion.parameters(), *companion.buffers()]
        notes = []
        if one.changed:
            notes.append(f"with the base's own work inside {_some(one.changed)} that it changed")
        if len(early) > 1 and one.surgery.name in early:
            others = ", ".join(name for name in early if name != one.surgery.name)
            notes.append(f"together with {others}: the config tells only what all of them added")
        found.append(
            Surgical(
                plugin=one.plugin,
                name=one.surgery.name,
                made=one.made,
                changed=one.changed,
                tensors=own,
                note="; ".join(notes),
            )
        )
    return found


def _tensors(built: BuiltModel) -> dict[str, Tensor]:
    """Parameters and buffers by their plain names; companions' are reached through the reports."""
    model: nn.Module = built.module
    named = (*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False))
    return {plain_name(name): value for name, value in named if not name.startswith(COMPANIONS)}


def _some(modules: Sequence[nn.Module]) -> str:
    kinds = sorted({type(module).__name__ for module in modules})
    return f"{len(modules)} modules ({', '.join(kinds[:3])})" if len(modules) > 1 else f"a {kinds[0]}"
