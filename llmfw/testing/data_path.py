"""A plugin's data path outside a run: what its transforms were given, and what they answered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llmfw.core.assemble import Assembled
    from llmfw.core.data import Prepared
    from llmfw.core.records import DatasetTransform
    from llmfw.testing.subject import Subject


def ready(assembled: Assembled, folder: Path) -> Assembled:
    """The same, with what functions inside records may ask for: the run's folder and auxiliary models."""
    from llmfw.core.auxiliary import open_auxiliary

    folder.mkdir(parents=True, exist_ok=True)
    assembled.run.dir = folder
    assembled.run._provide(open_policy=lambda name: open_auxiliary(assembled, name))
    return assembled


def prepared_of(
    assembled: Assembled, transforms: Sequence[tuple[str, DatasetTransform]] | None = None
) -> Prepared:
    """The run's data, through its transforms or these."""
    from llmfw.core.data import prepare

    chosen = assembled.transforms if transforms is None else transforms
    source = assembled.plan.one("llmfw_datamodule")
    return prepare(assembled.run.config, assembled.tokenizer, chosen, source, assembled.sides)


@dataclass(frozen=True, kw_only=True)
class Applied:
    """One call of a transform: what went in before and after the call, and what came out."""

    transform: DatasetTransform
    given: list[Any]
    left: list[Any]
    """``given`` as the transform left it."""
    answer: Any

    @property
    def items(self) -> list[Any]:
        """The rows or examples that came out."""
        return list(getattr(self.answer, "items", self.answer))

    @property
    def told(self) -> tuple[Mapping[str, float], Mapping[str, Sequence[Mapping[str, Any]]]]:
        """Metrics and tables of the answer; none of a plain list."""
        return getattr(self.answer, "metrics", {}), getattr(self.answer, "tables", {})


def applied(subject: Subject) -> list[Applied]:
    """The calls of the plugin's transforms of rows, tokens and units in a run's data path."""
    return subject.once("transforms", lambda: _apply(subject))


def _apply(subject: Subject) -> list[Applied]:
    assembled, calls = ready(subject.assembled(), subject.folder / "transforms"), list[Applied]()

    def watched(transform: DatasetTransform) -> DatasetTransform:
        def apply(items: list[Any]) -> Any:
            before = deepcopy(items)
            answer = transform.apply(items)
            calls.append(Applied(transform=transform, given=before, left=deepcopy(items), answer=answer))
            return answer

        return replace(transform, apply=apply) if transform.stage != "order" else transform

    prepared_of(assembled, [(owner, watched(each)) for owner, each in assembled.transforms])
    return calls


def orders(subject: Subject) -> tuple[list[DatasetTransform], list[Any]]:
    """The plugin's order, if it brings one, and the examples that it orders."""

    def make() -> tuple[list[DatasetTransform], list[Any]]:
        assembled = ready(subject.assembled(), subject.folder / "transforms")
        found = [each for _, each in assembled.transforms if each.stage == "order"]
        return found, prepared_of(assembled).train if found else []

    return subject.once("order", make)
