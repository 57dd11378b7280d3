"""Verifiers and rewards that the core offers by itself: ``run.service("Verifier", "math")``.

A verifier judges responses to ``problems`` rows (``llmfw.Verifier``), a reward says what they're worth
(``llmfw.Reward``). Each is imported when it's first asked for.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any

from llmfw.core.errors import CanaryError as CanaryError
from llmfw.core.verifiers.canaries import checked as checked
from llmfw.core.verifiers.rewards import VerdictReward as VerdictReward

_VERIFIERS: Mapping[str, str] = {
    "number": "llmfw.core.verifiers.number:build",
    "math": "llmfw.core.verifiers.symbolic:build",
    "string": "llmfw.core.verifiers.string:build",
    "option": "llmfw.core.verifiers.option:build",
    "reasoning_gym": "llmfw.core.verifiers.gym:build",
    "program": "llmfw.core.verifiers.program:build",
}
BUILT_IN: Mapping[tuple[str, str], str] = {
    **{("Verifier", name): place for name, place in _VERIFIERS.items()},
    **{("Reward", name): "llmfw.core.verifiers.rewards:VerdictReward" for name in _VERIFIERS},
}
"""(protocol, name) -> ``module:factory``. A verifier's factory takes the run's ``service``, a reward's the
verifier of the same name.
"""

NEEDED: Mapping[tuple[str, str], str] = {
    (protocol, "program"): "CodeExecutor" for protocol in ("Verifier", "Reward")
}
"""(protocol, name) -> the protocol of a service that it asks for itself, from a plugin."""


def build(protocol: str, name: str, service: Callable[..., Any]) -> Any:
    """One of ``BUILT_IN``; a verifier judges every batch together with canaries.

    Raises:
        ResourceError: it needs a package that isn't installed.
        UsageError: it needs a service that no plugin offers.
    """
    module, _, factory = BUILT_IN[protocol, name].partition(":")
    make = getattr(importlib.import_module(module), factory)
    return checked(protocol, name, make(service if protocol == "Verifier" else service("Verifier", name)))


def names(protocol: str) -> list[str]:
    """What the core offers of a protocol."""
    return [name for offered, name in BUILT_IN if offered == protocol]
