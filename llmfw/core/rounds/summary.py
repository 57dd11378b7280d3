"""A round in one line: what it was made of, what it cost, what it brought."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from llmfw.core.rounds.carry_out import RoundState
from llmfw.core.rounds.ledger import Ledger
from llmfw.core.tracking.files import read_json, write_json

SUMMARY = "summary.json"
"""The file of a round's folder that holds its line."""


def summarise(
    state: RoundState, ledger: Ledger, trained: Mapping[str, float], measured: Mapping[str, float]
) -> dict[str, float | str]:
    """The round's line, which its folder keeps: start, records, the notes, tokens and seconds that its
    sampling took (``sampled/...``), the last training loss, and what was measured after it.
    """
    found: dict[str, float | str] = {"start": state.start, "records": float(len(state.records))}
    found |= state.notes
    found |= {f"sampled/{name}": value for name, value in ledger.total(state.index).items()}
    if "loss" in trained:
        found["training loss"] = trained["loss"]
    found |= measured
    write_json(state.folder / SUMMARY, found)
    return found


def summaries(folder: Path) -> tuple[dict[str, float | str], ...]:
    """The lines of the rounds in a run's folder, in order."""
    files = sorted((folder / "rounds").glob(f"*/{SUMMARY}"))
    lines = ((int(file.parent.name), read_json(file)) for file in files)
    return tuple({"round": float(index), **line} for index, line in lines if line)
