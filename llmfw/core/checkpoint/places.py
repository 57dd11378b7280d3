"""Where a run's checkpoints lie: its folder, and a spare one for when that can't be written any more."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from llmfw.core.checkpoint.manifest import log, newest_verified, read_manifest
from llmfw.core.errors import CheckpointError


@dataclass(frozen=True)
class Places:
    """A run's folder of checkpoints, and the spare one, which exists only where it was needed."""

    folder: Path
    spare: Path | None = None

    def newest(self, *, say: Callable[[str], None] = log.warning) -> Path | None:
        """The newest checkpoint of both that verifies, or None where there is none at all.

        Raises:
            CheckpointError: NO-GOOD-CHECKPOINT, where there are checkpoints and all are damaged.
        """
        found, problems = list[Path](), list[CheckpointError]()
        for place in (self.folder, self.spare):
            if place is None or not _ours(place):
                continue
            try:
                newest = newest_verified(place, say=say)
            except CheckpointError as error:
                problems.append(error)
                continue
            found += [newest] if newest else []
        if problems and not found:
            raise problems[0]
        for problem in problems:
            say(f"warning[{problem.code}] {problem.file}: {problem.what}; passed over")
        return max(found, key=lambda one: read_manifest(one).step, default=None)


def spare_for(run: str) -> Path:
    """The spare folder of the run with that id: below the system's folder for temporary files, because the
    run's own may be what can't be written.
    """
    return Path(tempfile.gettempdir()) / f"llmfw-{os.getuid()}-{run[:16]}"


def _ours(place: Path) -> bool:
    """Whether it's there and no other user's: the system's folder for temporary files is everyone's."""
    try:
        return place.stat().st_uid == os.getuid() or not place.is_relative_to(tempfile.gettempdir())
    except OSError:
        return False
