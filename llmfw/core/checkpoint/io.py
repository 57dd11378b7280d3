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
from typing import Any, TypeVar

from lightning.fabric.plugins.io.checkpoint_io import CheckpointIO
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from llmfw.core.checkpoint.durable import publish, remove, stage
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
_T = TypeVar("_T")
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


@dataclass(frozen=True, kw_only=True)
class _Writing:
    """One checkpoint on its way to the disk."""

    target: Path
    step: int
    text: str
    """The state as json."""
    tensors: TensorFiles
    files: Files

    @property
    def need(self) -> int:
        """Bytes, about."""
        tensors = sum(tensor.nbytes for named in self.tensors.values() for tensor in named.values())
        return tensors + len(self.text) + self.files.size + _MARGIN

    def fill(self) -> Path:
        """Write every file into a staged folder. What follows needs nothing of the training any more."""
        failpoint("ckpt.before_write")
        self.target.parent.mkdir(parents=True, exist_ok=True)
        if shutil.disk_usage(self.target.parent).free < self.need:
            raise OSError(errno.ENOSPC, "too little space left for the checkpoint")
        folder = stage(self.target)
        try:
            if self.files.write is not None:
                self.files.write(folder)
            failpoint("ckpt.mid_write")
            for stem, named in sorted(self.tensors.items()):
                save_file(named, folder / TENSORS.format(stem))
            (folder / STATE).write_text(self.text, encoding="utf-8")
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        return folder

    def finish(self, folder: Path) -> None:
        """Add the manifest, make all of it durable, and give it its name."""
        try:
            digests = {
                file.relative_to(folder).as_posix(): file_digest(file)
                for file in folder.rglob("*")
                if file.is_file()
            }
            manifest = Manifest(step=self.step, files=digests, about=self.files.about)
            (folder / NAME).write_text(manifest.to_json(), encoding="utf-8")
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        publish(folder, self.target)

    def refused(self, error: Exception) -> ResourceError:
        """What to tell of a failure."""
        if self.full(error):
            free = shutil.disk_usage(self.target.parent).free
            return ResourceError(
                "DISK-FULL",
                f"need {self.need / 1e6:.1f} MB, {free / 1e6:.1f} MB free",
                mend="free space or set checkpoint.dir",
                file=self.target.parent,
            )
        reason = getattr(error, "strerror", None) or str(error)
        return ResourceError(
            "CHECKPOINT-WRITE",
            f"the checkpoint can't be written ({reason})",
            mend="make the folder writable or set checkpoint.dir",
            file=self.target.parent,
        )

    @staticmethod
    def full(error: Exception) -> bool:
        """Whether a disk is."""
        return getattr(error, "errno", None) in _FULL or "No space left" in str(error)


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
        writing = _writing(checkpoint, Path(path))
        if writing is not None:
            _twice(writing, lambda: writing.finish(writing.fill()))

    def begin(self, checkpoint: dict[str, Any], path: Any) -> Callable[[], None]:
        """Write the files of ``checkpoint`` into a staged folder, where a training that goes on can't change
        them; what is returned makes them durable and gives them the name ``path``, in any thread.

        Both raise as ``save_checkpoint``.
        """
        writing = _writing(checkpoint, Path(path))
        if writing is None:
            return lambda: None
        folder = _twice(writing, writing.fill)

        def finish() -> None:
            try:
                writing.finish(folder)
            except (OSError, SafetensorError) as error:
                raise writing.refused(error) from error

        return finish

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


def _writing(checkpoint: dict[str, Any], target: Path) -> _Writing | None:
    """None where it's there already."""
    step = int(checkpoint["global_step"])
    if target.exists() and _already(target, step):
        return None
    tree, tensors = encode({key: value for key, value in checkpoint.items() if key != FILES})
    text = json.dumps(tree, allow_nan=False, separators=(",", ":"))
    files: Files = checkpoint.get(FILES, Files())
    return _Writing(target=target, step=step, text=text, tensors=tensors, files=files)


def _twice(writing: _Writing, work: Callable[[], _T]) -> _T:
    """Do it; on a full disk once more without the older checkpoints.

    Raises:
        ResourceError: DISK-FULL, CHECKPOINT-WRITE.
    """
    for spares in (True, False):
        try:
            return work()
        except (OSError, SafetensorError) as error:
            if writing.full(error) and spares:
                prune(writing.target.parent, keep=1)
                continue
            raise writing.refused(error) from error
    raise AssertionError("the second try returns or raises")
