"""Whether arms of one seed saw the same samples in the same order."""

from __future__ import annotations

from collections.abc import Sequence
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


def apart(seen: Sequence[tuple[str, Sequence[str]]], *, whole: bool = False) -> tuple[str, str, str] | None:
    """Two arms (name, ids) of which neither saw what the other saw first, and where they differ; None: there
    are none. A longer training may go on, unless the ``whole`` of it counts.
    """
    # whatever agrees with the longest agrees with each other; of neighbours a short one would hide the rest
    most = max(range(len(seen)), key=lambda at: len(seen[at][1]))
    for at in range(len(seen)):
        (old, before), (new, after) = (seen[one] for one in sorted((at, most)))
        step = next((n for n, (one, other) in enumerate(zip(before, after)) if one != other), None)
        if step is not None:
            where = f"sample {step + 1} is {before[step]!r} and {after[step]!r}"
        elif bool(before) != bool(after):
            where = "one of them saw no data"
        elif whole and len(before) != len(after):
            where = f"{len(before)} samples and {len(after)}"
        else:
            continue
        return old, new, where
    return None


def check_order(claim: Claim, seed: int, seen: Sequence[tuple[str, Sequence[str]]], file: Path) -> None:
    """Refuse arms that saw different data.

    Raises:
        PluginError: with both arms, and the first sample that differs.
    """
    if found := apart(seen):
        old, new, where = found
        raise PluginError(
            "EVIDENCE-ORDER", f"arms {old!r} and {new!r} of seed {seed} saw different data: {where}",
            mend="give them the same data, or own_data=True where data are what is compared",
            file=file, key=claim.id,
        )  # fmt: skip
