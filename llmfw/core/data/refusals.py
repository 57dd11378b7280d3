"""Data settings that can't be together, or with plugins or a model: refused before anything is read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from llmfw.core.data.packing import packing_refusal
from llmfw.core.errors import ConflictError, LlmfwError, UsageError
from llmfw.core.records import DatasetTransform
from llmfw.core.schema import DataConfig, Root


@dataclass(frozen=True, kw_only=True)
class Around:
    """What stands around the data of a run. Owners are plugins; None: the core."""

    transforms: Sequence[tuple[str, DatasetTransform]] = ()
    source: str | None = None
    sampler: str | None = None
    needs_reference: bool = False
    trains: bool = True
    model_config: Any = None


def refuse_settings(root: Root, around: Around) -> None:
    """Refuse data settings that would be wrong, or without effect.

    Raises:
        ConflictError: with a plugin, a model, or another setting.
        UsageError: a setting that would have no effect.
    """
    data = root.data
    for what in (_mixture(data, around), _streaming(root, around), _idle(data)):
        if what is not None:
            raise what
    if data.packing and around.trains and around.model_config is not None:
        why = packing_refusal(around.model_config, root.model.attention)
        if why is not None:
            mend = "set model.attention=sdpa" if why.startswith("attention ") else "set data.packing=false"
            raise ConflictError(
                "PACKING-MODEL", f"packed rows would train wrongly: {why}", mend=mend, key="data.packing"
            )


def _mixture(data: DataConfig, around: Around) -> LlmfwError | None:
    if not data.mix:
        return None
    if around.source is not None:
        return ConflictError(
            "MIX-SOURCE",
            f"plugin {around.source!r} brings its own rows, so data.mix has no effect",
            mend=f"leave one of them out (--no-plugin {around.source})",
            key="data.mix",
        )
    for owner, transform in around.transforms:
        if transform.stage == "order":
            return ConflictError(
                "MIX-ORDER",
                f"the order that plugin {owner!r} brings ({transform.name}) can't keep the sources' weights",
                mend=f"leave one of them out (--no-plugin {owner})",
                key="data.mix",
            )
    return None


def _streaming(root: Root, around: Around) -> LlmfwError | None:
    if not root.data.streaming:
        return None
    if around.sampler is not None:
        return ConflictError(
            "STREAM-ROUNDS",
            f"the rounds of plugin {around.sampler!r} need all rows at hand",
            mend="set data.streaming=false",
            key="data.streaming",
        )
    for owner, transform in around.transforms:
        return ConflictError(
            "STREAM-TRANSFORM",
            f"transform {transform.name!r} of plugin {owner!r} needs all {transform.stage} at hand"
            if transform.stage != "order"
            else f"the order that plugin {owner!r} brings ({transform.name}) needs all samples at hand",
            mend=f"set data.streaming=false (or --no-plugin {owner})",
            key="data.streaming",
        )
    if root.data.deduplicate:
        return ConflictError(
            "STREAM-DEDUPLICATE",
            "finding rows that were seen before needs all of them at hand",
            mend="write the file anew once (llmfw data convert), or set data.streaming=false",
            key="data.deduplicate",
        )
    if not around.trains:
        return None
    if root.trainer.max_steps is None:
        return UsageError(
            "STREAM-STEPS",
            "a stream has no length, so epochs can't be counted",
            mend="set trainer.max_steps=N",
            key="trainer.max_steps",
        )
    if around.needs_reference and root.trainer.reference == "cache":
        return ConflictError(
            "STREAM-CACHE",
            "the cache of reference log-probs is filled before training, from all samples",
            mend="set trainer.reference=auto, or data.streaming=false",
            key="trainer.reference",
        )
    return None


def _idle(data: DataConfig) -> LlmfwError | None:
    plain = DataConfig()
    if data.mix_until != plain.mix_until and (not data.mix or data.streaming):
        why = "with data.streaming: a stream has no epochs" if data.mix else "without data.mix"
        return UsageError("MIX-UNTIL", f"it has no effect {why}", mend="leave it out", key="data.mix_until")
    if data.shuffle_buffer != plain.shuffle_buffer and not data.streaming:
        return UsageError(
            "STREAM-OFF",
            "it has no effect without data.streaming",
            mend="leave it out, or set data.streaming=true",
            key="data.shuffle_buffer",
        )
    return None
