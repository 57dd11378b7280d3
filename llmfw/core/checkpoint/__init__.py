"""Durable checkpoints: written whole or not at all, verified before they are read, never a pickle.

A checkpoint is a folder ``step-00000010/`` of safetensors and json with a ``manifest.json`` that holds a
SHA-256 of every file. Reading manifests needs neither torch nor Lightning; the names that do are imported
when first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmfw.core.checkpoint.durable import probe_writable
from llmfw.core.checkpoint.manifest import (
    Manifest,
    checkpoints,
    newest_verified,
    read_manifest,
    step_folder,
    verify,
)
from llmfw.core.checkpoint.places import Places, spare_for
from llmfw.core.lazy import door

if TYPE_CHECKING:
    from llmfw.core.checkpoint.callback import CheckpointCallback
    from llmfw.core.checkpoint.io import SafeCheckpointIO

__all__ = [
    "CheckpointCallback",
    "Manifest",
    "Places",
    "SafeCheckpointIO",
    "checkpoints",
    "newest_verified",
    "probe_writable",
    "read_manifest",
    "spare_for",
    "step_folder",
    "verify",
]

__getattr__, _ = door(__name__, {"callback": ("CheckpointCallback",), "io": ("SafeCheckpointIO",)})
