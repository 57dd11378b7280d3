"""Arguments for a plugin's mathematics: what ``functional.py`` and ``reference.py`` are both asked.

``reference.py`` may offer ``conformance_cases()``, which yields pairs (NAME, {argument: value}): both modules
have a function NAME, and answer alike. Floating tensors among the values are cast to the precision under
check and get gradients; an answer is a tensor, or a tuple, list or dict of tensors.

Without it the function is ``loss``, and its arguments are told by their names: ``logps`` and ``reference``
([N] log-probs of the trained tokens), ``segment`` and ``position`` ([N] int64), ``length`` ([S] int64), as
``llmfw.core.batch`` has them. Arguments with a default keep it, or have the value of the plugin's setting of
the same name, at its default and at the neutral setting.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from llmfw.testing.laws import NotApplicable, broken

if TYPE_CHECKING:
    from llmfw.testing.subject import Subject

PAIRS = (
    [(1, 1, 1)],
    [(2, 5, 3)],
    [(2, 3, 5), (1, 4, 4), (3, 1, 9)],
    [(1, 0, 3), (1, 2, 0)],
)
"""(prompt, chosen, rejected) lengths: of one token, equal, unequal, empty; one pair and several."""
TEXTS = ([1], [4], [3, 3], [2, 0, 5])
"""Trained tokens of each segment."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """One question to both modules; ``about`` tells it in messages."""

    function: str
    arguments: Mapping[str, Any]
    about: str


def cases(subject: Subject) -> list[Case]:
    """The plugin's cases.

    Raises:
        NotApplicable: it has no mathematics of its own that could be asked.
        Violation: arguments that nobody names.
    """
    return subject.once("cases", lambda: _cases(subject))


def _cases(subject: Subject) -> list[Case]:
    functional, reference = subject.module("functional"), subject.module("reference")
    offered = getattr(reference, "conformance_cases", None)
    if functional is not None and offered is not None:
        return [
            Case(function=name, arguments=dict(given), about=f"case {number}")
            for number, (name, given) in enumerate(offered(), 1)
        ]
    function = getattr(functional, "loss", None)
    if function is None:
        raise NotApplicable("no function `loss` in functional.py, and no conformance_cases in reference.py")
    variants = _settings(subject, function)
    return [
        Case(function="loss", arguments={**tensors, **settings}, about=_about(lengths, settings))
        for lengths, tensors in _tensors(subject, function)
        for settings in variants
    ]


def _about(lengths: Sequence[Any], settings: Mapping[str, Any]) -> str:
    told = ", ".join(f"{name}={value}" for name, value in settings.items())
    return f"lengths {list(lengths)}" + (f", {told}" if told else "")


def _tensors(subject: Subject, function: Callable[..., Any]) -> Iterable[tuple[Any, dict[str, Tensor]]]:
    loss = subject.plan().one("llmfw_loss")
    paired = loss.batch_kind == "preference"
    counts = [[pair[side] for side in (1, 2) for pair in pairs] for pairs in PAIRS] if paired else TEXTS
    for lengths, told in zip(counts, PAIRS if paired else TEXTS, strict=True):
        yield told, _chosen(function, _laid_out(lengths))


def _laid_out(counts: Sequence[int]) -> dict[str, Tensor]:
    draw, tokens = torch.Generator().manual_seed(0), sum(counts)
    values = -3 * torch.rand(2, tokens, generator=draw, dtype=torch.float64)
    return {
        "logps": values[0],
        "reference": values[1],
        "segment": torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts)),
        "position": torch.tensor([at for count in counts for at in range(1, count + 1)], dtype=torch.int64),
        "length": torch.tensor(counts),
    }


def _chosen(function: Callable[..., Any], known: Mapping[str, Tensor]) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for name, parameter in inspect.signature(function).parameters.items():
        if name in known:
            found[name] = known[name]
        elif parameter.default is parameter.empty and parameter.kind is not parameter.VAR_KEYWORD:
            raise broken(
                f"nobody knows the argument {name!r} of functional.loss",
                mend=f"name it as one of {', '.join(known)}, give it a default, or write conformance_cases() "
                "in reference.py",
            )
    return found


def _settings(subject: Subject, function: Callable[..., Any]) -> list[dict[str, Any]]:
    """What the function's defaults, the plugin's and the neutral setting say of its arguments."""
    settings = {
        name: parameter.default
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.default is not parameter.empty
    }
    found = [settings]
    for changed in ({}, subject.neutral or {}):
        config = vars(subject.assembled(changed).resolved.plugin_settings[subject.name])
        told = settings | {name: value for name, value in config.items() if name in settings}
        if told not in found:
            found.append(told)
    return found


def asked(
    function: Callable[..., Any], case: Case, dtype: torch.dtype
) -> tuple[list[Tensor], dict[str, Tensor]]:
    """(the answer's tensors, gradients by argument) of one function; a sum with unequal weights is what is
    differentiated.
    """
    given = {
        name: value.detach().to(dtype).requires_grad_()
        if isinstance(value, Tensor) and value.is_floating_point()
        else value
        for name, value in case.arguments.items()
    }
    leaves = {
        name: value for name, value in given.items() if isinstance(value, Tensor) and value.requires_grad
    }
    answer = flat(function(**given))
    signals = [
        (value * torch.linspace(1, 2, value.numel(), dtype=value.dtype).reshape(value.shape)).sum()
        for value in answer
        if value.requires_grad
    ]
    if not signals:
        return answer, {}
    found = torch.autograd.grad(torch.stack(signals).sum(), list(leaves.values()), allow_unused=True)
    grads = {
        name: torch.zeros_like(leaf) if grad is None else grad
        for (name, leaf), grad in zip(leaves.items(), found)
    }
    return answer, grads


def flat(answer: Any) -> list[Tensor]:
    """The tensors of an answer, in order."""
    if isinstance(answer, Tensor):
        return [answer]
    parts = answer.values() if isinstance(answer, Mapping) else answer
    return [tensor for part in parts for tensor in flat(part)]
