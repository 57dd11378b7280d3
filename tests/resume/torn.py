"""Kills inside checkpoint writing: every checkpoint is whole afterwards, and none that was durable is gone.

    python -m tests.resume.torn --kills 200 --write     # into tests/resume/outcomes.json

A process writes one checkpoint after the other, in turn at once and in the background, and says of each when
it is durable; another kills it at a random moment of the writing. Only kills that found a half-written
checkpoint count.
"""

from __future__ import annotations

import argparse
import os
import random
import select
import shutil
import signal
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from safetensors.torch import load_file

from llmfw.core.checkpoint import SafeCheckpointIO, checkpoints, step_folder, verify
from llmfw.core.checkpoint.background import Background
from llmfw.core.checkpoint.durable import sweep
from llmfw.core.checkpoint.io import TENSORS
from llmfw.core.checkpoint.manifest import prune
from llmfw.core.errors import CheckpointError
from tests.resume.outcomes import OUT, write

VALUES = 200_000
"""Numbers in a checkpoint's tensor: 0.8 MB, so that writing takes a while."""


@dataclass
class Outcome:
    """What the kills left."""

    kills: int = 0
    """Those that came while a checkpoint was being written."""
    besides: int = 0
    """Those that came between two."""
    torn: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    """Acknowledged as durable, and not there."""
    litter: list[str] = field(default_factory=list)
    """Left in spite of the sweep."""
    swept: int = 0


def state(step: int) -> dict[str, object]:
    """A checkpoint whose numbers say its step."""
    return {"global_step": step, "state_dict": {"weight": torch.full((VALUES,), float(step))}}


def write_for_ever(folder: Path, first: int, background: bool, acknowledge: int) -> None:
    """Checkpoint after checkpoint, two stay; the step goes into the pipe once it's durable."""
    io, beside = SafeCheckpointIO(), Background()
    step = first
    while True:
        path = step_folder(folder, step)

        def durable(step: int = step) -> None:
            os.write(acknowledge, step.to_bytes(4, "little"))
            prune(folder, 2)

        if background:
            beside.wait()
            finish = io.begin(state(step), path)
            beside.start(lambda finish=finish, durable=durable: (finish(), durable()))  # type: ignore[misc]
        else:
            io.save_checkpoint(state(step), path)
            durable()
        step += 1


def trial(folder: Path, first: int, background: bool, chance: random.Random, outcome: Outcome) -> int:
    """One process, killed; gives the newest durable step."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        try:
            write_for_ever(folder, first, background, writer)
        finally:
            os._exit(1)
    os.close(writer)
    acknowledged = first - 1
    begun = None
    until = time.monotonic() + 60.0
    wait = chance.uniform(0.0, 0.03)
    while time.monotonic() < until:
        if select.select([reader], [], [], 0.0002)[0]:
            acknowledged = int.from_bytes(os.read(reader, 4), "little")
        if acknowledged >= first and begun is None:
            begun = time.monotonic() + wait
        if begun is not None and time.monotonic() >= begun:
            break
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    while select.select([reader], [], [], 0)[0] and (raw := os.read(reader, 4)):
        acknowledged = int.from_bytes(raw, "little")
    os.close(reader)
    _look(folder, acknowledged, outcome)
    return max(acknowledged, checkpoints(folder)[0][1].step)


def _look(folder: Path, acknowledged: int, outcome: Outcome) -> None:
    half = list(folder.glob(".staging-*"))
    outcome.kills += bool(half)
    outcome.besides += not half
    for one in sorted(folder.glob("step-*")):
        try:
            step = verify(one).step
            value = load_file(one / TENSORS.format("weights"))["weight"]
            if not bool((value == float(step)).all()):
                outcome.torn.append(f"{one.name}: other numbers")
        except (CheckpointError, OSError, KeyError) as error:
            outcome.torn.append(f"{one.name}: {error}")
    found = [manifest.step for _, manifest in checkpoints(folder)]
    if not found or max(found) < acknowledged:
        outcome.lost.append(f"step {acknowledged}, there are {found}")
    outcome.swept += len(sweep(folder))
    outcome.litter += [path.name for path in folder.glob(".*-*")]


def kills(count: int, seed: int = 0, folder: Path | None = None) -> Outcome:
    """Kill until so many found a half-written checkpoint."""
    place = folder or Path(tempfile.mkdtemp(prefix="llmfw-torn-"))
    chance, outcome, step, number = random.Random(seed), Outcome(), 0, 0
    try:
        while outcome.kills < count and number < 10 * count:
            step = trial(place, step + 1, background=number % 2 == 1, chance=chance, outcome=outcome)
            number += 1
    finally:
        shutil.rmtree(place, ignore_errors=True)
    return outcome


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--write", action="store_true", help=f"write the outcome into {OUT.name}")
    asked = parser.parse_args(argv)
    found = kills(asked.kills)
    print(
        f"{found.kills} kills inside the writing of a checkpoint ({found.besides} more between two): "
        f"{len(found.torn)} torn, {len(found.lost)} lost, {found.swept} leftovers swept"
    )
    if asked.write:
        write("torn", asdict(found))
    return 1 if found.torn or found.lost or found.litter else 0


if __name__ == "__main__":
    raise SystemExit(main())
