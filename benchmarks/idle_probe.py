"""One run of ``llmfw`` looked at from outside: what its steps call, import and take. Started by
``idle_plugins``.

    python idle_probe.py count|time WORDS...

Prints a line of json: ``seconds`` or ``calls`` of each step (from the end of the step before to its own end),
``losses``, ``weights`` (a digest), ``plugins`` (installed ones) and ``imported`` (modules of plugins).
"""

from __future__ import annotations

import gc
import hashlib
import json
import sys
import time
from collections import Counter
from pathlib import Path
from types import FrameType
from typing import Any


def place_of(frame: FrameType) -> str:
    """A function by the end of its file's path, so that two copies of a package count alike."""
    path = Path(frame.f_code.co_filename).parts
    return f"{'/'.join(path[-3:])}:{frame.f_code.co_qualname}"


class Probe:
    """Watches a run's steps from their ends: ``TrainModule.on_train_batch_end`` is the last call of one."""

    def __init__(self, counts: bool) -> None:
        self.counts = counts
        self.calls: list[Counter[str]] = []
        self.seconds: list[float] = []
        self._now: Counter[str] = Counter()
        self._begun = 0.0

    def attach(self) -> None:
        """Watch every run of this process."""
        from llmfw.core.module import TrainModule

        original: Any = TrainModule.on_train_batch_end

        def ended(module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
            original(module, outputs, batch, batch_idx)
            sys.setprofile(None)
            now = time.perf_counter()
            if self._begun:
                self.seconds.append(now - self._begun)
                self.calls.append(self._now)
            self._now = Counter()
            if self.counts:
                gc.disable()  # finalizers would be called whenever memory happens to be tidied up
                sys.setprofile(self._note)
            self._begun = time.perf_counter()

        TrainModule.on_train_batch_end = ended  # type: ignore[method-assign]

    def _note(self, frame: FrameType, event: str, argument: Any) -> None:
        if event == "call":
            self._now[place_of(frame)] += 1


def main() -> None:
    """Run and tell."""
    from llmfw.cli import run
    from llmfw.core import discovery
    from llmfw.core.tracking import read_journal

    probe = Probe(counts=sys.argv[1] == "count")
    probe.attach()
    code = run(sys.argv[2:])
    sys.setprofile(None)
    assert code == 0, code
    (folder,) = Path("runs").iterdir()
    weights = hashlib.sha256()
    for file in sorted((folder / "final").glob("*.safetensors")):
        weights.update(file.read_bytes())
    homes = tuple({card.value.partition(":")[0].rpartition(".")[0] for card in discovery.cards().values()})
    told = {
        "plugins": sorted(discovery.cards()),
        "imported": sorted(name for name in sys.modules if name in homes or name.startswith(_inside(homes))),
        "losses": [loss.hex() for _, loss in read_journal(folder / "journal.jsonl").series["loss"]],
        "weights": weights.hexdigest(),
        "seconds": probe.seconds,
        "calls": [dict(sorted(found.items())) for found in probe.calls] if probe.counts else [],
    }
    print(json.dumps(told))


def _inside(homes: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(f"{home}." for home in homes)


if __name__ == "__main__":
    main()
