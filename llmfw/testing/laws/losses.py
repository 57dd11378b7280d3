"""Laws of losses, and of a plugin's mathematics beside its slow reference."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from llmfw.testing.cases import asked, cases, flat
from llmfw.testing.laws import NotApplicable, broken, law
from llmfw.testing.loss_calls import Bench, Given, bench, close, pairs, parts_apart

if TYPE_CHECKING:
    from llmfw.core.batch import Batch, LossOutput
    from llmfw.testing.pairs import Pair
    from llmfw.testing.subject import Subject

_PRECISIONS = ((torch.float64, 1e-10), (torch.float32, 1e-5))
_LAYOUT_PRECISIONS = ((torch.float64, 1e-9), (torch.float32, 1e-5))
_CORES = {"loss", "grad_norm", "lr", "tokens", "epoch", "auxiliary_loss"}
"""Names of metrics that are the core's."""


# --- the mathematics ----------------------------------------------------------------------------------------


@law("reference-agrees")
def reference_agrees(subject: Subject) -> None:
    """functional.py gives the values and gradients of reference.py, within 1e-10 in float64 and 1e-5 in
    float32, also for answers of one token, of none, and of equal lengths.
    """
    functional, reference = subject.module("functional"), subject.module("reference")
    if functional is None or reference is None:
        raise NotApplicable("it has no functional.py with a reference.py beside it")
    for case in cases(subject):
        for dtype, tolerance in _PRECISIONS:
            ours, grads = asked(getattr(functional, case.function), case, dtype)
            theirs, wanted = asked(getattr(reference, case.function), case, dtype)
            compared = [("value", one, other) for one, other in zip(ours, theirs, strict=True)]
            compared += [
                (f"gradient of {name}", grads.get(name, torch.zeros_like(grad)), grad)
                for name, grad in wanted.items()
            ]
            for what, one, other in compared:
                apart = _apart(one, other)
                if not apart <= tolerance:
                    raise broken(
                        f"{case.function} ({case.about}, {dtype}): the {what} is {apart:.3g} from the "
                        "reference's",
                        mend="work out by hand which of the two is wrong",
                    )


def _apart(one: Tensor, other: Tensor) -> float:
    """The largest difference, relative to the larger of 1 and the value; inf where shapes differ."""
    if one.shape != other.shape:
        return math.inf
    if not one.numel():
        return 0.0
    a, b = one.detach().double(), other.detach().double()
    apart = ((a - b).abs() / b.abs().clamp(min=1)).nan_to_num(nan=math.inf)
    return float(apart.masked_fill(a == b, 0.0).max())  # a mask's -inf is itself


@law("gradcheck", "loss")
def gradcheck(subject: Subject) -> None:
    """The gradients of the mathematics are its derivatives, measured in float64: of functional.py, or of the
    loss itself with respect to the log-probs where there's none.
    """
    functional = subject.module("functional")
    if hasattr(functional, "loss") or hasattr(subject.module("reference"), "conformance_cases"):
        smooth = [case for case in cases(subject) if any(map(_floats, case.arguments.values()))]
        if not smooth:
            raise NotApplicable("no case has an argument that could be differentiated by")
        for case in smooth:
            fixed = {k: v for k, v in case.arguments.items() if not _floats(v)}
            names = [k for k, v in case.arguments.items() if _floats(v)]
            function = partial(getattr(functional, case.function), **fixed)
            _derivatives(
                lambda *given, f=function, n=names: tuple(flat(f(**dict(zip(n, given))))),
                [case.arguments[name] for name in names],
                f"{case.function} ({case.about})",
            )
        return
    found = bench(subject)
    batch = found.batch(pairs((2, 3, 2), (1, 1, 2)))
    _derivatives(
        lambda logps: found.call(batch, Given(found.policy, logps)).total,
        [found.policy.logps(batch)],
        "the loss",
    )


def _floats(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point()


def _derivatives(function: Any, inputs: list[Tensor], what: str) -> None:
    leaves = tuple(value.detach().double().requires_grad_() for value in inputs)
    try:
        torch.autograd.gradcheck(function, leaves, fast_mode=True)
    except RuntimeError as error:
        told = " ".join(str(error).split())
        raise broken(
            f"{what}: {told[:300]}",
            mend="mend the backward pass; a detach() that the paper asks for is exempted in the card, with "
            "that reason",
        ) from error


# --- the loss on batches ------------------------------------------------------------------------------------


@law("layout", "loss")
def layout(subject: Subject) -> None:
    """Padding on either side, more columns, packing, shared prompts and the samples' order leave the loss and
    its metrics as they are, within 1e-9 in float64 and 1e-5 in float32.
    """
    for dtype, tolerance in _LAYOUT_PRECISIONS:
        found = bench(subject, dtype)
        samples = pairs()
        with torch.no_grad():
            want = found.call(found.batch(samples))
            others = {name: found.batch(samples, name) for name in found.layouts}
            others["samples in reverse"] = found.batch(samples[::-1])
            for name, batch in others.items():
                _same_numbers(found.call(batch), want, tolerance, f"{name} ({dtype})")


def _same_numbers(got: LossOutput, want: LossOutput, tolerance: float, where: str) -> None:
    numbers: list[tuple[str, Any, Any]] = [("the total", got.total, want.total)]
    for name, (total, count) in want.metrics.items():
        if name not in got.metrics:
            raise broken(f"{where}: there is no metric {name}", mend="log the same names for every batch")
        numbers += [
            (f"{name}'s sum", got.metrics[name][0], total),
            (f"{name}'s count", got.metrics[name][1], count),
        ]
    for what, one, other in numbers:
        if not close(one, other, tolerance):
            raise broken(
                f"{where}: {what} is {float(one):.6g}, with padding on the right {float(other):.6g}",
                mend="work on policy.logps(batch) with batch.segment, position and length: they are alike in "
                "every layout",
            )


@law("swap", "loss")
def swap(subject: Subject) -> None:
    """Exchanging the chosen and rejected answers negates every pair's margin: those of details['margin'], or
    of the metric rewards/margins for each pair alone.
    """
    found, samples = bench(subject), pairs()
    if found.loss.batch_kind != "preference":
        raise NotApplicable("it isn't a loss over pairs")
    with torch.no_grad():
        margins = _margins(found, samples)
        swapped = _margins(found, [pair.swapped for pair in samples])
    sums = [abs(a + b) for a, b in zip(margins, swapped, strict=True)]
    worst = sums.index(max(sums))
    if not sums[worst] <= 1e-9 * max(1.0, *map(abs, margins)):
        raise broken(
            f"margin and swapped margin differ by {sums[worst]:.3g} in size "
            f"({margins[worst]:.6g} and {swapped[worst]:.6g})",
            mend="take the margin as the chosen side's score minus the rejected side's, of the same function",
        )


def _margins(found: Bench, samples: Sequence[Pair]) -> list[float]:
    """One a pair; a metric is a sum, in which those of several pairs could make up for each other."""
    together = found.call(found.batch(samples))
    if "margin" in together.details:
        return [float(value) for value in together.details["margin"]]
    if "rewards/margins" in together.metrics:
        apart = [found.call(found.batch([pair])) for pair in samples]
        return [float(output.metrics["rewards/margins"][0]) for output in apart]
    raise NotApplicable("it tells no margin: neither details['margin'] nor the metric rewards/margins")


@law("frozen-reference", "loss")
def frozen_reference(subject: Subject) -> None:
    """No gradient reaches the reference model; a policy that is its own reference has a finite loss and
    gradient.
    """
    found = bench(subject)
    if not found.loss.needs_reference:
        raise NotApplicable("its loss asks for no reference")
    batch, module = found.batch(pairs()), found.reference.module
    module.zero_grad(set_to_none=True)
    _backward(found, batch)
    reached = [name for name, p in module.named_parameters() if p.grad is not None and bool(p.grad.any())]
    module.zero_grad(set_to_none=True)
    if reached:
        raise broken(
            f"a gradient reaches {len(reached)} weights of the reference, e.g. {reached[0]}",
            mend="ask the reference under torch.no_grad()",
        )
    total, grads = _backward(found, batch, reference=found.policy)
    if not (total.isfinite() and all(bool(grad.isfinite().all()) for grad in grads)):
        raise broken(
            f"a policy that is its own reference has the loss {float(total):.6g}, or a gradient that isn't "
            "finite",
            mend="subtract before you divide, take roots or logarithms",
        )


def _backward(found: Bench, batch: Batch, **given: Any) -> tuple[Tensor, list[Tensor]]:
    """The total and the gradients of the policy's weights, which are cleared again."""
    module = found.policy.module
    total = found.call(batch, **given).total
    total.backward()  # type: ignore[no-untyped-call]
    grads = [p.grad for p in module.parameters() if p.grad is not None]
    module.zero_grad(set_to_none=True)
    return total.detach(), grads


@law("masked-tokens", "loss")
def masked_tokens(subject: Subject) -> None:
    """A token without label gets no gradient: it's exactly zero at the states that predict no trained
    token.
    """
    from llmfw.core.models.adapters import bare
    from llmfw.core.models.policy import decoder_of

    found = bench(subject)
    batch, seen = found.batch(pairs()), list[Tensor]()

    def note(module: Any, given: Any, output: Any) -> None:
        if output[0].requires_grad and output[0].shape[:2] == batch.input_ids.shape:
            output[0].retain_grad()
            seen.append(output[0])

    handle = decoder_of(bare(found.policy.module)).register_forward_hook(note)
    try:
        _backward(found, batch)
    finally:
        handle.remove()
    grads = [states.grad.flatten(0, 1) for states in seen if states.grad is not None]
    if not grads:
        raise NotApplicable("no gradient flows through the states of the model's tokens")
    free = torch.ones(batch.input_ids.numel(), dtype=torch.bool)
    free[batch.source] = False
    for grad in grads:
        if bool(grad[free].any()):
            worst = float(grad[free].abs().max())
            raise broken(
                f"a state that predicts no trained token gets a gradient of up to {worst:.3g}",
                mend="work on policy.logps(batch), or on the positions in batch.source alone",
            )


@law("unit", "loss")
def unit(subject: Subject) -> None:
    """LossOutput.total is a sum over the declared unit: a batch's total is that of its parts, and a batch of
    nothing adds exactly 0.
    """
    apart, found = parts_apart(subject), bench(subject)
    if apart:
        raise broken(
            apart, mend=f"sum over the {found.loss.unit}; the core divides by their number in the whole step"
        )
    nothing = _nothing(found.batch(pairs()[:1]))
    none = torch.zeros(0, dtype=torch.float64, requires_grad=True)
    total = found.call(nothing, Given(found.policy, none)).total.detach()
    if float(total) != 0.0:
        raise broken(
            f"the total of a batch without any sample is {float(total):.6g}",
            mend="let the total of nothing be 0 (a sum is, a mean isn't): a process may have no sample left",
        )


def _nothing(batch: Batch) -> Batch:
    """The batch without its samples: rows, but nothing that is trained."""
    none = torch.zeros(0, dtype=torch.int64)
    extra = {name: value[:1] for name, value in batch.extra.items()}
    return replace(
        batch, source=none, target=none, segment=none, position=none, length=none, sample_ids=(), extra=extra
    )


@law("finite", "loss")
def finite(subject: Subject) -> None:
    """Extreme log-probs, of -10,000 nats a token or of 0, give a finite loss and a finite gradient."""
    found = bench(subject, torch.float32)
    batch = found.batch(pairs())
    first = batch.segment < batch.segments // 2
    low, zero = torch.full((batch.tokens,), -1e4), torch.zeros(batch.tokens)
    extremes = {
        "all -10,000": low,
        "all 0": zero,
        "the first half of the answers -10,000, the others 0": torch.where(first, low, zero),
        "the first half of the answers 0, the others -10,000": torch.where(first, zero, low),
    }
    for about, values in extremes.items():
        logps = values.clone().requires_grad_()
        total = found.call(batch, Given(found.policy, logps)).total
        (grad,) = torch.autograd.grad(total, logps, allow_unused=True)
        sound = grad is None or bool(grad.isfinite().all())
        if not (bool(total.isfinite()) and sound):
            raise broken(
                f"log-probs {about}: the loss is {float(total.detach()):.6g}, its gradient is "
                f"{'finite' if sound else 'not finite'}",
                mend="use logsigmoid, log1p, logsumexp or a clamp in place of log and exp of large numbers",
            )


@law("metrics", "loss")
def metrics(subject: Subject) -> None:
    """The loss's metrics have plain names (``rewards/margins``) that aren't the core's, are pairs (sum,
    count) without gradient, and are finite.
    """
    found = bench(subject)
    mend = "return metrics={NAME: (sum, count)} of detached numbers; the core divides over the whole step"
    for name, value in found.call(found.batch(pairs())).metrics.items():
        if not re.fullmatch(r"[a-z0-9_]+(/[a-z0-9_]+)*", name) or name in _CORES:
            raise broken(
                f"{name!r} is no name for a metric of a loss"
                + (": the core has it" if name in _CORES else ""),
                mend="use lower-case words joined by _ and /",
            )
        if not isinstance(value, tuple) or len(value) != 2:
            raise broken(f"{name} is {value!r}", mend=mend)
        if any(isinstance(part, Tensor) and part.requires_grad for part in value):
            raise broken(f"{name} carries a gradient, which keeps the graph in memory", mend=mend)
        total, count = map(float, value)
        if not math.isfinite(total) or not math.isfinite(count) or count < 0:
            raise broken(f"{name} is ({total}, {count})", mend=mend)
