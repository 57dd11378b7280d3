"""Lightning's CheckpointIO over durable folders: tensors in safetensors, the rest in json, nothing
pickled.
"""

from __future__ import annotations

import errno
import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lightning.fabric.plugins.io.checkpoint_io import CheckpointIO
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from llmfw.core.checkpoint.durable import remove, staged
from llmfw.core.checkpoint.encoding import TensorFiles, decode, encode
from llmfw.core.checkpoint.manifest import NAME, Manifest, file_digest, prune, read_manifest, verify
from llmfw.core.errors import CheckpointError, ResourceError
from llmfw.core.failpoints import failpoint

STATE = "training.json"
TENSORS = "training-{}.safetensors"
"""A companion's file is NAME.safetensors with an identifier for NAME, so the dash keeps these apart."""
FILES, FOLDER = "llmfw.files", "llmfw.folder"
"""Keys of the checkpoint dictionary: a ``Files`` on the way out, the folder's path on the way in; neither is
stored.
"""
_FULL = (errno.ENOSPC, errno.EDQUOT)
_MARGIN = 1024 * 1024  # bytes of manifest, folder entries and rounding to blocks


@dataclass(frozen=True, kw_only=True)
class Files:
    """What a module wants in its checkpoint's folder beside the dictionary.

    ``write(folder)`` makes files of its own there, about ``size`` bytes; ``about`` are json keys of the
    manifest.
    """

    write: Callable[[Path], None] | None = None
    size: int = 0
    about: Mapping[str, Any] = field(default_factory=dict)


class SafeCheckpointIO(CheckpointIO):
    """Writes a checkpoint folder whole or not at all, and loads it only after every file was verified."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None
    ) -> None:
        """Write ``checkpoint`` as the folder ``path``; a folder of that name that verifies at the same step
        stays.

        Raises:
            ResourceError: DISK-FULL after a second try with older spares pruned, or CHECKPOINT-WRITE.
            PluginError: STATE-TYPE, where a state is neither json-like nor a tensor.
        """
        target, step = Path(path), int(checkpoint["global_step"])
        files: Files = checkpoint.get(FILES, Files())
        if target.exists() and _already(target, step):
            return
        tree, tensors = encode({key: value for key, value in checkpoint.items() if key != FILES})
        text = json.dumps(tree, allow_nan=False, separators=(",", ":"))
        need = (
            sum(t.nbytes for named in tensors.values() for t in named.values())
            + len(text)
            + files.size
            + _MARGIN
        )
        failpoint("ckpt.before_write")
        for spares in (True, False):
            try:
                target.parent.mkdir(parents=True, exist_ok=True)
                if shutil.disk_usage(target.parent).free < need:
                    raise OSError(errno.ENOSPC, "too little space left for the checkpoint")
                self._write(target, step, text, tensors, files)
                return
            except (OSError, SafetensorError) as error:
                full = getattr(error, "errno", None) in _FULL or "No space left" in str(error)
                if full and spares:
                    prune(target.parent, keep=1)
                    continue
                raise _refusal(target, error, need, full) from error

    def _write(self, target: Path, step: int, text: str, tensors: TensorFiles, files: Files) -> None:
        with staged(target) as folder:
            if files.write is not None:
                files.write(folder)
            failpoint("ckpt.mid_write")
            for stem, named in sorted(tensors.items()):
                save_file(named, folder / TENSORS.format(stem))
            (folder / STATE).write_text(text, encoding="utf-8")
            digests = {
                file.relative_to(folder).as_posix(): file_digest(file)
                for file in folder.rglob("*")
                if file.is_file()
            }
            manifest = Manifest(step=step, files=digests, about=files.about)
            (folder / NAME).write_text(manifest.to_json(), encoding="utf-8")

    def load_checkpoint(
        self, path: Any, map_location: Any | None = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """The checkpoint dictionary, tensors on the CPU (or on ``map_location``), after verification.

        Raises:
            CheckpointError: where the folder is missing, damaged, or not of this format.
        """
        folder = Path(path)
        manifest = verify(folder)
        device = "cpu" if map_location is None or callable(map_location) else str(map_location)
        tensors: dict[str, dict[str, Tensor]] = {}

        def tensor(stem: str, name: str) -> Tensor:
            if stem not in tensors:
                file = TENSORS.format(stem)
                if file not in manifest.files:
                    raise KeyError(file)
                tensors[stem] = load_file(folder / file, device=device)
            return tensors[stem][name]

        try:
            if STATE not in manifest.files:
                raise KeyError(STATE)
            checkpoint = decode(json.loads((folder / STATE).read_text(encoding="utf-8")), tensor)
        except (OSError, ValueError, KeyError, RecursionError, SafetensorError) as error:
            raise CheckpointError(
                "CHECKPOINT-FORMAT",
                f"its state can't be read ({type(error).__name__}: {error})",
                mend="use the llmfw that wrote it",
                file=folder,
            ) from None
        if not isinstance(checkpoint, dict) or checkpoint.get("global_step") != manifest.step:
            raise CheckpointError(
                "CHECKPOINT-FORMAT",
                "state and manifest name different steps",
                mend="use another checkpoint",
                file=folder,
            )
        return {**checkpoint, FOLDER: str(folder)}

    def remove_checkpoint(self, path: Any) -> None:
        """Delete a checkpoint."""
        if Path(path).is_dir():
            remove(Path(path))


def _already(target: Path, step: int) -> bool:
    try:
        return read_manifest(target).step == step and verify(target).step == step
    except CheckpointError:
        return False


def _refusal(target: Path, error: Exception, need: int, full: bool) -> ResourceError:
    if full:
        free = shutil.disk_usage(target.parent).free
        return ResourceError(
            "DISK-FULL",
            f"need {need / 1e6:.1f} MB, {free / 1e6:.1f} MB free",
            mend="free space or set checkpoint.dir",
            file=target.parent,
        )
    reason = getattr(error, "strerror", None) or str(error)
    return ResourceError(
        "CHECKPOINT-WRITE",
        f"the checkpoint can't be written ({reason})",
        mend="make the folder writable or set checkpoint.dir",
        file=target.parent,
    )
