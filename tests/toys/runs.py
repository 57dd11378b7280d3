"""A real run in which a test plays the services and models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from llmfw.core.manager import Answer
from llmfw.core.records import Row, Service
from llmfw.core.run import Run
from llmfw.core.schema import AuxiliaryConfig, Root

Named = Mapping[tuple[str, str], Any]
"""(protocol, name) -> what stands behind it."""


def run_of(
    folder: Path = Path("."),
    *,
    seed: int = 7,
    services: Named | None = None,
    policies: Mapping[str, Any] | None = None,
    rows: Mapping[str, Sequence[Row]] | None = None,
) -> Run:
    """A run as hooks and records see it. ``policies`` are its auxiliary models (``models.NAME``), each with
    its name for an identity; ``services`` are offered beside the core's own.
    """
    models = dict(policies or {})
    root = Root(seed=seed)
    root.models = {name: AuxiliaryConfig(name=name) for name in models}
    run = Run(root, folder, "test")
    run._offer(
        [
            Answer("toys", Service(protocol=protocol, name=name, factory=lambda given=given: given))
            for (protocol, name), given in (services or {}).items()
        ]
    )
    run._provide(
        rows={split: list(own) for split, own in rows.items()} if rows else None,
        open_policy=models.__getitem__,
    )
    run._know({name: name for name in models})
    return run
