"""Which attacks a sandbox holds."""

from __future__ import annotations

from collections.abc import Mapping

from llmfw import Workspace

from ..attacks import attacks, carry_out
from ..executor import Sandbox

EVERY: Mapping[str, int] = {"smoke": 5, "small": 1, "full": 1}
"""One attack of so many is run."""


def held(backend: str, where: Workspace) -> Mapping[str, list[float]]:
    """1 for each attack that a backend of level strict holds.

    Raises:
        SandboxUnavailable: this machine can't run it.
    """
    chosen = attacks()[:: EVERY[where.size]]
    return {"held": [float(not one.wrong) for one in carry_out(Sandbox(name=backend), chosen)]}
