"""The weights that a training leaves."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llmfw.core.assemble import Assembled
from llmfw.core.checkpoint import Manifest
from llmfw.core.checkpoint.durable import remove, staged
from llmfw.core.checkpoint.manifest import NAME as MANIFEST
from llmfw.core.checkpoint.manifest import file_digest
from llmfw.core.models import save_weights
from llmfw.core.module import TrainModule
from llmfw.core.training.train import manifest_of


def save_final(
    assembled: Assembled, module: TrainModule, folder: Path, step: int, held: Mapping[str, Any] | None = None
) -> None:
    """Weights, tokenizer and manifest as one durable folder; an older one is replaced. ``held``: from
    ``module.whole_weights()``.
    """
    if folder.exists():
        remove(folder)
    with staged(folder) as place:
        save_weights(module.built, place, held)
        files = {
            str(file.relative_to(place)): file_digest(file) for file in place.rglob("*") if file.is_file()
        }
        manifest = Manifest(step=step, files=files, about=manifest_of(assembled, module.built))
        (place / MANIFEST).write_text(manifest.to_json(), encoding="utf-8")
