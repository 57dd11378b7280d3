"""Whether arms of one seed saw the same samples in the same order."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from llmfw.core.claims import Claim
from llmfw.core.errors import PluginError
from llmfw.core.tracking import read_journal


def consumed(folder: Path) -> list[str] | None:
    """Ids of the samples that a training consumed, in their order; None where it made its own in rounds."""
    if any((folder / "rounds").glob("*/run.json")):
        return None
    events = {
        event.fields["step"]: event.fields for event in read_journal(folder / "journal.jsonl").of("consumed")
    }
    return [name for step in sorted(events) for name in events[step]["sample_ids"]]


def check_order(claim: Claim, seed: int, seen: Sequence[tuple[str, Sequence[str]]], file: Path) -> None:
    """Refuse two arms (name, ids) of which neither saw what the other saw first; a longer training may go on.

    Raises:
        PluginError: with both arms, and the first sample that differs.
    """
    for (old, before), (new, after) in pairwise(seen):
        step = next((n for n, (one, other) in enumerate(zip(before, after)) if one != other), None)
        if step is not None or bool(before) != bool(after):
            where = "one of them saw no data" if step is None else (
                f"sample {step + 1} is {before[step]!r} and {after[step]!r}"
            )  # fmt: skip
            raise PluginError(
                "EVIDENCE-ORDER", f"arms {old!r} and {new!r} of seed {seed} saw different data: {where}",
                mend="give them the same data, or own_data=True where data are what is compared",
                file=file, key=claim.id,
            )  # fmt: skip
