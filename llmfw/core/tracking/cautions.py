"""What speaks against reading the differences between runs as the plugin's doing."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

from llmfw.core.tracking.evaluations import STAGE
from llmfw.core.tracking.record import SPLIT
from llmfw.core.tracking.sides import Side, same_numbers


def cautions(sides: Sequence[Side], differing: Collection[str]) -> list[str]:
    """One sentence each; ``differing`` names the settings that aren't the same in all runs."""
    trained = [side for side in sides if side.record.verb != STAGE]
    found = list(_each(sides))
    if trained:
        found += [*_apart(trained, differing), *_losses(trained, differing), *_chance(trained, differing)]
    return found


def _each(sides: Sequence[Side]) -> Iterator[str]:
    for side in sides:
        if side.record.status != "FINISHED":
            yield f"{side.label} is {side.record.status}, so its last values aren't those of a whole run"
        if side.view.damaged:
            yield f"{side.label}: {len(side.view.damaged)} lines of its journal are damaged and left out"
        if not side.view.series:
            yield f"{side.label} has no values"
        moved = [reason for reason in side.record.resume_reasons if " -> " in reason]
        if moved:
            yield f"{side.label} was taken up under other conditions ({', '.join(moved)}): rounded otherwise"
        if side.stopped_by:
            yield f"{side.label} stopped before its last step ({side.stopped_by})"


def _apart(sides: Sequence[Side], differing: Collection[str]) -> Iterator[str]:
    if len({side.data for side in sides}) > 1:
        told = any(key.startswith(("data.", "tokenizer.", "plugins")) for key in differing)
        why = "see the settings" if told else "its settings are the same, so a file has changed"
        yield f"the runs saw different data ({why})"
    if {"model.name", "model.revision"}.intersection(differing):
        yield "the runs began with different models"
    if "seed" in differing:
        yield "the seeds differ, so part of a difference is chance"
    steps = [f"{side.label} {side.view.last_step}" for side in sides]
    if len({side.view.last_step for side in sides}) > 1:
        yield f"the runs have different numbers of steps ({', '.join(steps)})"


def _losses(sides: Sequence[Side], differing: Collection[str]) -> Iterator[str]:
    owners = {side.loss for side in sides}
    own = tuple(f"{owner}." for owner in owners if owner)
    changed = sorted(key for key in differing if own and key.startswith(own))
    if len(owners) > 1:
        yield "the losses belong to different plugins: what is called loss may be different quantities"
    elif changed:
        names = ", ".join(changed[:3])
        yield f"{names} may change what the loss measures: rather compare margins and accuracies"


def _chance(sides: Sequence[Side], differing: Collection[str]) -> Iterator[str]:
    for index, side in enumerate(sides):
        prints = side.record.fingerprint
        twin = next((old for old in sides[:index] if prints and old.record.fingerprint == prints), None)
        if twin is None or {twin.record.status, side.record.status} != {"FINISHED"}:
            continue
        if not same_numbers(side, twin) and not set(SPLIT) & set(differing):
            yield f"{twin.label} and {side.label} have the same settings, but not the same numbers"
    if len({side.record.fingerprint for side in sides}) > 1 and "seed" not in differing:
        yield "one seed each: repeat with other seeds before you call a small difference an effect"
