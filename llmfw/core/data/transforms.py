"""Plugins' transforms of rows, tokens, units and order: applied, and checked for what they return."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from llmfw.core.data.examples import Example
from llmfw.core.data.formats import PLACE, Form
from llmfw.core.data.order import Order
from llmfw.core.data.reader import BadRows, check_rows
from llmfw.core.data.report import DataReport
from llmfw.core.errors import DataError, PluginError
from llmfw.core.guard import answering, owner_named
from llmfw.core.records import DatasetTransform, Row, Transformed

Transforms = Sequence[tuple[str, DatasetTransform]]
"""(plugin, transform), in the order in which the user lists plugins."""
_HOOK = "llmfw_dataset_transforms"


def transform_rows(
    transforms: Transforms, rows: dict[str, list[Row]], form: Form, report: DataReport, label: str = ""
) -> None:
    """Let the transforms of stage ``rows`` change ``rows``, which maps a split to its rows.

    ``label``: the source of a mixture that the rows are of.
    """
    for owner, transform in transforms:
        if transform.stage == "rows":
            for split in transform.splits:
                changed = _apply(owner, transform, split, rows.get(split, []), report, label)
                rows[split] = _recheck(changed, owner, transform, form)


def transform_examples(
    transforms: Transforms,
    stage: str,
    examples: dict[str, list[Example]],
    report: DataReport,
    label: str = "",
) -> None:
    """Let the transforms of stage ``tokens`` or ``units`` change ``examples``, which maps a split to its
    examples.
    """
    for owner, transform in transforms:
        if transform.stage == stage:
            for split in transform.splits:
                examples[split] = _apply(owner, transform, split, examples[split], report, label)
                _check_ids(examples[split], owner, transform)


def order_of(transforms: Transforms) -> Order | None:
    """The order that a plugin brings, if one does."""
    found = [(owner, transform) for owner, transform in transforms if transform.stage == "order"]
    if not found:
        return None
    owner, transform = found[0]
    return _NamedOrder(owner, transform)


def _apply(
    owner: str, transform: DatasetTransform, split: str, items: list[Any], report: DataReport, label: str
) -> list[Any]:
    """The transform's answer, checked not to be empty; errors name plugin and transform."""
    if not items:
        return items
    answer = _guarded(owner, transform, transform.apply, items)
    if isinstance(answer, Transformed):
        of = f"/{label}" if label else ""
        at = ("data" if split == "train" else f"data/{split}") + of
        report.metrics.update(
            {f"{at}/{owner}/{name}": float(value) for name, value in answer.metrics.items()}
        )
        report.tables.update(
            {f"{owner}/{name}/{split}{of}": list(rows) for name, rows in answer.tables.items()}
        )
        answer = answer.items
    changed: list[Any] = _guarded(owner, transform, list, answer)
    where = ", ".join(part for part in (transform.stage, split, label) if part)
    report.transforms.append(f"{owner}/{transform.name} ({where}): {len(items)} -> {len(changed)}")
    if not changed:
        raise DataError(
            "TRANSFORM-EMPTY",
            f"plugin {owner!r}: transform {transform.name!r} left none of {len(items)} {transform.stage} "
            f"of the {split} split",
            mend=f"loosen the settings of {owner}, or leave it out",
        )
    return changed


def _guarded(owner: str, transform: DatasetTransform, call: Callable[..., Any], *arguments: Any) -> Any:
    with answering(owner_named(owner), f"transform {transform.name!r} ({_HOOK})", transform.apply):
        return call(*arguments)


def _recheck(rows: list[Any], owner: str, transform: DatasetTransform, form: Form) -> list[Row]:
    """Rows of a transform are checked like those of a file; they may be new, but not of another form."""
    who = f"plugin {owner!r}, transform {transform.name!r}"
    located = [
        ((row.get(PLACE) if isinstance(row, dict) else None) or f"row {number}", row)
        for number, row in enumerate(rows, 1)
    ]
    try:
        return check_rows(located, BadRows(), form)[1]
    except DataError as error:
        raise PluginError(
            "TRANSFORM", f"{who} returned a row that can't be used: {error}", mend="mend the plugin"
        ) from error


def _check_ids(examples: Sequence[Any], owner: str, transform: DatasetTransform) -> None:
    seen: set[str] = set()
    for example in examples:
        if not isinstance(example, Example):
            what = f"returned {type(example).__name__}, not an Example"
        elif example.id in seen:
            what = f"returned two samples with the id {example.id}"
        else:
            seen.add(example.id)
            continue
        raise PluginError(
            "TRANSFORM",
            f"plugin {owner!r}, transform {transform.name!r} {what}",
            mend="mend the plugin: ids stay unique",
        )


@dataclass(frozen=True)
class _NamedOrder:
    owner: str
    transform: DatasetTransform

    def __call__(self, examples: list[Example], epoch: int) -> Sequence[int]:
        return list(_guarded(self.owner, self.transform, self.transform.apply, examples, epoch))
