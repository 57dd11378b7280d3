"""Surgeries done on a model of the kit with everything noted that they do to its tensors."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from llmfw.core.models.build import BuiltModel, build_model
from llmfw.core.models.names import is_quantisation, matches, plain_name
from llmfw.core.models.rng import global_state, private_rng, same_state
from llmfw.core.policies import surgeries_of
from llmfw.core.records import Report, Surgery
from llmfw.testing.laws import NotApplicable

if TYPE_CHECKING:
    from llmfw.core.assemble import Assembled
    from llmfw.testing.subject import Subject


@dataclass(kw_only=True)
class Operation:
    """One call of a surgery's ``apply``."""

    surgery: Surgery
    target: Any
    """The config in phase ``before_load``, else the model."""
    report: Report = field(default_factory=Report)
    held: Mapping[str, Tensor] = field(default_factory=dict)
    """The very tensors that the model held before, by plain name."""
    before: Mapping[str, Tensor] = field(default_factory=dict)
    """Their values then."""
    after: Mapping[str, Tensor] = field(default_factory=dict)
    """The tensors that it held afterwards."""
    foreign_draws: bool = False
    """Random numbers were drawn from a generator that is neither the given one nor global, and the given one
    was never asked."""
    global_draws: bool = False
    """A global generator was left in another state."""

    def names(self, name: str) -> bool:
        """Whether the report or a ``trainable`` pattern names this tensor."""
        changed = self.report.changed
        return any(name == one or name.startswith(f"{one}.") for one in changed) or matches(
            name, self.surgery.trainable
        )

    @property
    def added(self) -> list[str]:
        """Names of tensors that the model didn't hold before, under any name."""
        known = {id(value) for value in self.held.values()}
        return [name for name, value in self.after.items() if id(value) not in known]


class _Draws(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes whether a random operation drew from a generator that is neither ``given`` nor global."""

    def __init__(self, given: torch.Generator) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.given, self.foreign = given, False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        generator = kwargs.get("generator")
        if torch.Tag.nondeterministic_seeded in func.tags and generator is not None:
            # each call sees another object for one generator: its state tells it
            self.foreign |= not torch.equal(generator.get_state(), self.given.get_state())
        return func(*args, **kwargs)


def state_of(module: nn.Module) -> dict[str, Tensor]:
    """The tensors that a module's state holds, by plain name: the very ones."""
    return {
        plain_name(name): value
        for name, value in module.state_dict(keep_vars=True).items()
        if isinstance(value, Tensor) and not is_quantisation(name)
    }


def planned(subject: Subject, adapter: str | None = None) -> Assembled:
    """The kit's run of the plugin before weights are read, whether or not it trains; ``adapter``: another
    ``adapter.kind``.
    """
    return subject.assembled({} if adapter is None else {"adapter.kind": adapter}, verb="plan")


def surgeries(subject: Subject, adapter: str | None = None) -> list[Surgery]:
    """The plugin's surgeries under the kit's settings.

    Raises:
        NotApplicable: it has none, or they change nothing on purpose there.
    """
    assembled = planned(subject, adapter)
    found = [surgery for _, surgery in surgeries_of(assembled) if not surgery.neutral]
    if not found:
        raise NotApplicable("its surgeries change nothing under the kit's settings")
    return found


def operate(
    subject: Subject, *, adapter: str | None = None, around: int = 0
) -> tuple[BuiltModel, list[Operation]]:
    """A model built with the plugin's surgeries, and what each of them did.

    Args:
        adapter: another ``adapter.kind``.
        around: seed of the global generators while a surgery is applied; they're as before afterwards.
    """
    assembled = planned(subject, adapter)
    root, done = assembled.run.config, list[Operation]()

    def noted(surgery: Surgery) -> Callable[[Any, Any], Report]:
        def apply(target: Any, generator: Any) -> Report:
            one = Operation(surgery=surgery, target=target)
            done.append(one)
            if isinstance(target, nn.Module):
                one.held = state_of(target)
                one.before = {name: value.detach().clone() for name, value in one.held.items()}
            with private_rng(around), _Draws(generator) as draws:
                random.seed(around)
                state, given = global_state(), generator.get_state()
                one.report = surgery.apply(target, generator)
                one.global_draws = not same_state(state, global_state())
            one.foreign_draws = draws.foreign and torch.equal(given, generator.get_state())
            if isinstance(target, nn.Module):
                one.after = state_of(target)
            return one.report

        return apply

    named = [(plugin, replace(surgery, apply=noted(surgery))) for plugin, surgery in surgeries_of(assembled)]
    source = assembled.settled.source
    built = build_model(source, root.adapter, named, root.seed, tokenizer=assembled.tokenizer)
    return built, [one for one in done if not one.surgery.neutral]
