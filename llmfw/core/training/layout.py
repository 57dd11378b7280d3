"""How a run's samples lie in its batches: what may be, what pays, and whether this model keeps samples apart.

What settings, plugins and a model's class allow is known with the plan; what the model does is asked of the
model itself, and what pays is read off the data, both before step 1.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, get_args

from llmfw.core.batch import Batch, Layout
from llmfw.core.data import Example, collate, packing_refusal
from llmfw.core.data.batches import common_prompt
from llmfw.core.errors import ConflictError, UsageError
from llmfw.core.records import Policy
from llmfw.core.say import say
from llmfw.core.schema import Root
from llmfw.core.training.packed import refuse_leaks, refuse_windows

if TYPE_CHECKING:
    from llmfw.core.plan import Plan

SHARED_PAYS = 0.05
"""Share of a batch's positions that a common prompt has to save before it's worth the further attention
calls (benchmarks/layouts.py).
"""
KEY = "trainer.layout"


@dataclass(frozen=True)
class Layouts:
    """The layouts that a run may have, best first, and why it can't have the others."""

    allowed: tuple[Layout, ...]
    why_not: dict[str, str] = field(default_factory=dict)

    def note(self) -> str | None:
        """What a plan says of it; None where nothing stands in the way of the best."""
        if not self.why_not:
            return None
        reasons = "; ".join(f"not {name.replace('_', ' ')}: {why}" for name, why in self.why_not.items())
        return f"layout {self.allowed[0].replace('_', ' ')} ({reasons})"


def layouts_of(plan: Plan, root: Root, model_config: Any) -> Layouts:
    """What settings, plugins and the model's class allow a run.

    Raises:
        ConflictError: the layout that was asked for is refused, or contradicts ``data.packing``.
        UsageError: a shared prompt is asked for, and the loss wants no pairs.
    """
    loss, wanted, packing = plan.one("llmfw_loss"), root.trainer.layout, root.data.packing
    pairs = loss is not None and loss.batch_kind == "preference"
    if wanted == "shared_prompt" and not pairs:
        raise UsageError(
            "LAYOUT", "only preference pairs have a prompt to share", key=KEY, mend=f"set {KEY}=packed"
        )
    if packing and wanted not in ("auto", "packed"):
        raise ConflictError(
            "LAYOUT", f"{wanted} rows and data.packing contradict each other", key=KEY, mend=f"set {KEY}=auto"
        )
    refused = {
        refusal: f"surgery {answer.value.name!r} of plugin {answer.plugin!r} can't be right with it"
        for answer in plan.answers.get("llmfw_surgeries", ())
        for refusal in answer.value.refuses
    }
    why_not: dict[str, str] = {}
    reason = refused.get("packing") or packing_refusal(model_config, root.model.attention)
    if reason:
        why_not["packed"] = reason
    if pairs:
        if reason or "shared_prompt" in refused:
            why_not["shared_prompt"] = refused.get("shared_prompt") or str(reason)
        elif _routes(model_config):
            why_not["shared_prompt"] = "the router's loss would count a prompt once instead of twice"
    if wanted in why_not:
        raise ConflictError(
            "LAYOUT", f"{wanted} rows would train wrongly: {why_not[wanted]}", key=KEY, mend=f"set {KEY}=auto"
        )
    if wanted != "auto":
        return Layouts((_layout(wanted),))
    allowed = [_layout(name) for name in ("shared_prompt",) if pairs and name not in why_not]
    allowed += [_layout(name) for name in ("packed",) if name not in why_not]
    if not allowed or not (packing or "right_padding" in refused):
        allowed.append("padded")
    return Layouts(tuple(allowed), why_not)


def _routes(model_config: Any) -> bool:
    """Whether the model adds a loss over its router's choices."""
    text = model_config.get_text_config() if hasattr(model_config, "get_text_config") else model_config
    return bool(getattr(text, "output_router_logits", False))


def _layout(name: str) -> Layout:
    found: Layout = next(one for one in get_args(Layout) if one == name)
    return found


class Layer:
    """Builds a run's batches; which layout they have is settled once the model is there."""

    def __init__(self, pad_id: int = 0, layout: Layout = "padded") -> None:
        self.pad_id, self.layout = pad_id, layout

    def __call__(self, examples: Sequence[Example]) -> Batch:
        return collate(examples, self.pad_id, layout=self.layout)


def settle(layouts: Layouts, policy: Policy, examples: Sequence[Example], layer: Layer, longest: int) -> str:
    """Give ``layer`` the first layout that is right in this model and pays; what there is to say of it.

    ``longest``: tokens of the longest sample, which may not be among ``examples``.

    A layout that was asked for by name isn't left for another.

    Raises:
        ConflictError: PACKING-LEAK, PACKING-MODEL or PACKING-WINDOW, where the model fails on the layout that
            was asked for.
    """
    told: list[str] = []
    for layout in layouts.allowed:
        layer.layout = layout
        if layout == "padded" or not examples:
            break
        if layout == "shared_prompt":
            saved = shared_share(examples)
            shown = f"{saved:.0%} of the positions are a prompt's second copy"
            if saved < SHARED_PAYS and len(layouts.allowed) > 1:
                told.append(f"shared prompts wouldn't pay: {shown}")
                continue
            told.append(shown)
        try:
            refuse_windows(policy, longest)
            refuse_leaks(policy, examples, partial(collate, pad_id=layer.pad_id, layout=layout))
        except ConflictError as error:
            if len(layouts.allowed) == 1:
                raise
            say(f"warning: batches aren't {layout.replace('_', ' ')}: {error.what}")
            continue
        break
    return f"layout {layer.layout.replace('_', ' ')}" + (f" ({'; '.join(told)})" if told else "")


def shared_share(examples: Iterable[Example]) -> float:
    """Share of the positions of packed pairs that sharing the prompts saves, 0 to 1."""
    positions = saved = 0
    for example in examples:
        if example.kind == "preference":
            positions += sum(map(len, example.sequences))
            saved += common_prompt(*example.sequences)
    return saved / positions if positions else 0.0
