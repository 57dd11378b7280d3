"""Surgeries: applied phase by phase, each with its own generator, each answerable for what it did."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from torch import nn

from llmfw.core.errors import ConflictError, PluginError
from llmfw.core.guard import answering, owner_named
from llmfw.core.models.names import COMPANIONS, is_quantisation, matches, plain_name, unmatched
from llmfw.core.models.rng import generator_of, global_state, same_state
from llmfw.core.records import Report, Surgery

_RESERVED = ("model", "adapter_model", "surgeries", "optimizer", "trainer", "state")
"""Names of files in a checkpoint that are not companions."""
Named = tuple[str, Surgery]
"""A surgery and the plugin that wants it."""


@dataclass(frozen=True, kw_only=True)
class Done:
    """One surgery after it was applied. ``added`` are the plain names of the tensors that weren't there
    before, ``made`` the modules; ``changed`` are those of the base that do something else now, as far as
    their class, their forward or their hooks tell, and those that the report names.
    """

    plugin: str
    surgery: Surgery
    report: Report
    added: tuple[str, ...] = ()
    made: tuple[nn.Module, ...] = ()
    changed: tuple[nn.Module, ...] = ()
    seed: int = 0


@dataclass(kw_only=True)
class Theatre:
    """Applies surgeries in the user's order and keeps what they did. ``done`` ones, restored with a
    checkpoint, aren't done again.

    A surgery draws from ``seeds[its name]`` where that's given, else from ``seed``.
    """

    seed: int
    seeds: Mapping[str, int] = field(default_factory=dict)
    surgeries: Sequence[Named] = ()
    done: list[Done] = field(default_factory=list)
    companions: dict[str, nn.Module] = field(default_factory=dict)

    def __post_init__(self) -> None:
        seen: dict[str, str] = {}
        for plugin, surgery in self.surgeries:
            if surgery.name in seen:
                raise ConflictError(
                    "SURGERY-NAME",
                    f"plugins {seen[surgery.name]!r} and {plugin!r} both have a surgery {surgery.name!r}",
                    mend=f"switch one off (--no-plugin {plugin})",
                )
            seen[surgery.name] = plugin

    def has(self, phase: str) -> bool:
        """Whether a surgery of that phase is to be done."""
        return any(surgery.phase == phase for _, surgery in self.surgeries)

    def operate(self, phase: str, target: Any) -> None:
        """Apply the surgeries of a phase to the config (``before_load``) or the model.

        Raises:
            PluginError: a surgery that raises, draws from a global generator, answers no Report, or did
            nothing though its
                settings aren't neutral; the message names the plugin.
        """
        over = {one.surgery.name for one in self.done}
        for plugin, surgery in self.surgeries:
            if surgery.phase != phase or surgery.name in over:
                continue
            # by identity, not by name: a tensor that moved within the model is still the base's
            before = {} if phase == "before_load" else _state_by_identity(target)
            ways = {} if phase == "before_load" else _ways(target)
            report = self._apply(plugin, surgery, target)
            after = {} if phase == "before_load" else _state_by_identity(target)
            added = tuple(
                sorted(name for key, (_, names) in after.items() if key not in before for name in names)
            )
            made, changed = ((), ()) if phase == "before_load" else _modules_touched(target, ways, report)
            self.done.append(
                Done(
                    plugin=plugin,
                    surgery=surgery,
                    report=report,
                    added=added,
                    made=made,
                    changed=changed,
                    seed=self._seed(surgery),
                )
            )
            for name, companion in report.companions.items():
                self._accept(plugin, surgery, name, companion)

    def note_added_before_load(self, added: Sequence[str], module: nn.Module) -> None:
        """Credit tensors that only the changed config has, and the modules of the loaded model that hold
        them, to the surgeries of phase ``before_load``.
        """
        new = set(added)
        owns = {
            part: {
                plain_name(f"{name}.{own}" if name else own) in new
                for own, _ in part.named_parameters(recurse=False)
            }
            for name, part in module.named_modules()
        }
        made = tuple(part for part, found in owns.items() if found == {True})
        changed = tuple(part for part, found in owns.items() if found == {True, False})
        self.done = [
            replace(one, added=tuple(sorted(added)), made=made, changed=changed)
            if one.surgery.phase == "before_load"
            else one
            for one in self.done
        ]

    def _seed(self, surgery: Surgery) -> int:
        return self.seeds.get(surgery.name, self.seed)

    def _apply(self, plugin: str, surgery: Surgery, target: Any) -> Report:
        who = f"surgery {surgery.name!r} of plugin {plugin!r}"
        state = global_state()
        what = f"surgery {surgery.name!r}, phase {surgery.phase} (llmfw_surgeries)"
        with answering(owner_named(plugin), what, surgery.apply):
            report = surgery.apply(target, generator_of(self._seed(surgery), surgery.name))
        if not same_state(state, global_state()):
            raise PluginError(
                "SURGERY-RANDOM",
                f"{who} changed a global random generator",
                mend="draw from the generator that apply receives",
            )
        if not isinstance(report, Report):
            raise PluginError(
                "SURGERY-REPORT",
                f"{who} answered {type(report).__name__}, not a Report",
                mend="return llmfw.Report(...)",
            )
        if not report.changed and not report.companions and not surgery.neutral:
            raise PluginError(
                "SURGERY-IDLE",
                f"{who} changed nothing",
                mend="mend its settings or its patterns, or say neutral=True where that's meant",
            )
        return report

    def _accept(self, plugin: str, surgery: Surgery, name: str, companion: Any) -> None:
        who = f"surgery {surgery.name!r} of plugin {plugin!r}"
        if not isinstance(companion, nn.Module):
            raise PluginError(
                "COMPANION", f"companion {name!r} of {who} is no torch module", mend="give an nn.Module"
            )
        taken = name in self.companions or name in _RESERVED
        if taken or not name.isidentifier():
            what = "is already taken" if taken else "is no identifier"
            raise PluginError(
                "COMPANION", f"the name {name!r} of a companion of {who} {what}", mend="name it otherwise"
            )
        self.companions[name] = companion


def state_names(module: nn.Module) -> set[str]:
    """Plain names of everything that a module's state holds."""
    return {plain_name(name) for name in module.state_dict(keep_vars=True) if not is_quantisation(name)}


def _state_by_identity(module: nn.Module) -> dict[int, tuple[object, list[str]]]:
    """Tensors of a state with their plain names; the tensors are held, so that no identity is used twice."""
    found: dict[int, tuple[object, list[str]]] = {}
    for name, value in module.state_dict(keep_vars=True).items():
        if is_quantisation(name):  # made anew at each call
            continue
        found.setdefault(id(value), (value, []))[1].append(plain_name(name))
    return found


Way = tuple[nn.Module, tuple[Any, ...]]


def _ways(module: nn.Module) -> dict[int, Way]:
    """What every module does: its class, a forward of its own, its hooks. The modules are held, so that no
    identity is used twice.
    """
    return {id(part): (part, _way(part)) for part in module.modules()}


def _way(part: nn.Module) -> tuple[Any, ...]:
    hooks = (tuple(part._forward_hooks), tuple(part._forward_pre_hooks))
    return type(part), vars(part).get("forward"), *hooks


def _modules_touched(
    module: nn.Module, before: Mapping[int, Way], report: Report
) -> tuple[tuple[nn.Module, ...], tuple[nn.Module, ...]]:
    """(new modules, companions' included; modules that were there and do something else now)."""
    named, changed = set(report.changed), []
    companions = [
        part for one in report.companions.values() if isinstance(one, nn.Module) for part in one.modules()
    ]
    for name, part in module.named_modules():
        if id(part) in before and (plain_name(name) in named or _way(part) != before[id(part)][1]):
            changed.append(part)
    made = [part for part in (*module.modules(), *companions) if id(part) not in before]
    return tuple({id(part): part for part in made}.values()), tuple(changed)


def all_parameters(
    module: nn.Module, companions: Mapping[str, nn.Module], *, tied: bool = False
) -> dict[str, nn.Parameter]:
    """Every parameter by its plain name; companions' under ``companions.NAME.``. With ``tied`` one
    parameter may have two names.
    """
    found = {
        plain_name(name): parameter for name, parameter in module.named_parameters(remove_duplicate=not tied)
    }
    for companion in sorted(companions):
        for name, parameter in companions[companion].named_parameters():
            found[f"{COMPANIONS}{companion}.{name}"] = parameter
    return found


def wake(done: Sequence[Done], parameters: Mapping[str, nn.Parameter]) -> tuple[str, ...]:
    """Make what surgeries name as trainable require gradients again; returns its names.

    Raises:
        PluginError: a pattern of ``trainable``, ``no_weight_decay`` or ``rank_local`` that matches no
        parameter.
    """
    names = list(parameters)
    for one in done:
        who = f"surgery {one.surgery.name!r} of plugin {one.plugin!r}"
        if one.surgery.neutral and not one.report.changed and not one.report.companions:
            continue
        for key in ("trainable", "no_weight_decay", "rank_local"):
            lost = unmatched(names, getattr(one.surgery, key))
            if lost:
                raise PluginError(
                    "SURGERY-PATTERN",
                    f"{who}: {key} pattern {lost[0]!r} matches no parameter",
                    mend="use names of the model without PEFT's prefixes, or companions.NAME.*",
                )
    patterns = [pattern for one in done for pattern in one.surgery.trainable]
    woken = tuple(name for name in names if matches(name, patterns))
    for name in woken:
        parameters[name].requires_grad_(True)
    return woken


def chosen(done: Sequence[Done], key: str, names: Sequence[str]) -> tuple[str, ...]:
    """Names that the surgeries' patterns under ``key`` (``no_weight_decay``, ``rank_local``) match."""
    patterns = [pattern for one in done for pattern in getattr(one.surgery, key)]
    return tuple(name for name in names if matches(name, patterns))
