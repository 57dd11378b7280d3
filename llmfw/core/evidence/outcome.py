"""What one arm brought for one seed, kept beside its run as arm.json from its begin on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from llmfw.core.errors import PluginError
from llmfw.core.evidence.verdict import Value
from llmfw.core.tracking.files import read_json, write_json
from llmfw.core.tracking.journal import decode, encode

FILE = "arm.json"


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """Values by metric, what they cost, and the commit that gave them ("" outside git; ends in + where files
    differed from it).
    """

    seed: int
    arm: str
    status: Literal["RUNNING", "FINISHED", "FAILED"]
    definition: str
    commit: str = ""
    values: Mapping[str, Value] = field(default_factory=dict)
    cost: Mapping[str, Any] = field(default_factory=dict)
    """seconds, tokens trained on, host_gib and gpu_gib (peaks), memory (how they were measured)."""
    error: str = ""


def keep(folder: Path, outcome: Outcome) -> None:
    """Write arm.json, by rename."""
    values = {
        name: [encode(one) for one in value] if isinstance(value, tuple) else encode(value)
        for name, value in outcome.values.items()
    }
    write_json(folder / FILE, {**vars(outcome), "values": values, "cost": dict(outcome.cost)})


def kept_in(folder: Path, definition: str) -> Outcome | None:
    """What an arm of this definition brought that has finished in this folder; None: it hasn't."""
    raw = read_json(folder / FILE)
    if raw is None or raw["status"] != "FINISHED" or raw["definition"] != definition:
        return None
    values: dict[str, Value] = {
        name: tuple(map(decode, value)) if isinstance(value, list) else decode(value)
        for name, value in raw["values"].items()
    }
    return Outcome(**{**raw, "values": values})


def begun_at(folder: Path) -> str | None:
    """The commit at which the arm in this folder was begun; None: it wasn't."""
    raw = read_json(folder / FILE)
    return None if raw is None else str(raw["commit"])


def checked(values: Any, arm: str) -> dict[str, Value]:
    """An arm's values as plain numbers.

    Raises:
        PluginError: they aren't a mapping of names to numbers or lists of them.
    """
    if isinstance(values, Mapping):
        try:
            return {str(name): _number_or_items(value) for name, value in values.items()}
        except (TypeError, ValueError):
            pass
    raise PluginError(
        "EVIDENCE-VALUES", f"arm {arm!r} gave values that aren't numbers by name",
        mend="return {metric: number, or a list with a number an item}",
    )  # fmt: skip


def _number_or_items(value: Any) -> Value:
    if isinstance(value, str):
        raise TypeError
    if isinstance(value, (list, tuple)) or len(getattr(value, "shape", ())) > 0:
        return tuple(float(one) for one in value)
    return float(value)
