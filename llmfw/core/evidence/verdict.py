"""What the values of arms say about a claim: intervals and verdicts, by rules that were fixed beforehand.

A difference is (method - baseline) of one seed, turned round where lower is better, so that a positive one is
in the paper's favour. The interval is Student's t of the differences over seeds, or a bootstrap over items.

greater      reproduced: interval above 0 and mean >= effect; opposite: interval below 0;
             not reproduced: interval inside +-effect
equivalent   reproduced: interval inside +-effect; opposite: wholly outside
not_worse    reproduced: lower end above -effect; opposite: upper end below -effect
level        the method's own values: reproduced: interval at the level or above; opposite: below it

Everything else is inconclusive. Both ends of "inside" count as inside.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

from llmfw.callbacks.intervals import t_interval
from llmfw.core.claims import Kind
from llmfw.core.records import Estimate

Verdict = Literal["reproduced", "opposite", "not reproduced", "inconclusive", "failed", "not tested"]
VERDICTS: tuple[str, ...] = get_args(Verdict)
Value = float | tuple[float, ...]
"""Of one seed: a number, or one number an item."""
EXACT = 3
"""Instances that an exact result (no variance at all) has to repeat over."""


@dataclass(frozen=True, kw_only=True)
class Rule:
    """What of a claim decides."""

    kind: Kind
    effect: float
    higher: bool = True
    items: bool = False


@dataclass(frozen=True, kw_only=True)
class Judged:
    """A verdict, and what it rests on. ``differences`` are per seed; of a level there are none."""

    verdict: Verdict
    why: str
    differences: Mapping[str, Value] = field(default_factory=dict)
    spread: Estimate | None = None
    """Mean and 95% interval of the differences (of a level: of the method's own values)."""


def spread(values: Sequence[Value]) -> Estimate:
    """Mean of one value a seed with its 95% t interval; of one value an item with a bootstrap over items,
    each averaged over the seeds first.

    ``n`` counts seeds, or items. Below two the bounds are NaN. Sums are exact: equal values have no variance.
    """
    if any(isinstance(value, tuple) for value in values):
        return _over_items(values)
    numbers = [value for value in values if isinstance(value, (int, float))]
    n = len(numbers)
    if not n or not all(map(math.isfinite, numbers)):
        return Estimate(value=math.nan, low=math.nan, high=math.nan, n=n)
    exact = [float(number) for number in numbers]
    return t_interval(n, statistics.mean(exact), statistics.stdev(exact) if n > 1 else math.nan)


def _over_items(values: Sequence[Value]) -> Estimate:
    from llmfw.core.evaluation.bootstrap import mean

    rows = [value for value in values if isinstance(value, tuple)]
    averaged = [statistics.mean(map(float, column)) for column in zip(*rows, strict=True)]
    if not all(map(math.isfinite, averaged)):
        return Estimate(value=math.nan, low=math.nan, high=math.nan, n=len(averaged))
    return mean(averaged)


def differences(baseline: Mapping[str, Value], method: Mapping[str, Value], higher: bool) -> dict[str, Value]:
    """Seed -> (method - baseline), item by item where there are items, of the seeds that both have; turned
    round where lower is better.
    """
    sign = 1.0 if higher else -1.0

    def difference(old: Value, new: Value) -> Value:
        if isinstance(old, tuple) and isinstance(new, tuple):
            return tuple(sign * (b - a) for a, b in zip(old, new, strict=True))
        assert not isinstance(old, tuple) and not isinstance(new, tuple)
        return sign * (new - old)

    return {seed: difference(baseline[seed], method[seed]) for seed in by_number(baseline) if seed in method}


def by_number(seeds: Mapping[str, object]) -> list[str]:
    """Seeds in the order of their numbers."""
    return sorted(seeds, key=int)


def judge(rule: Rule, arms: Sequence[tuple[str, Mapping[str, Value]]]) -> Judged:
    """The verdict over arms that have run: (baseline, method), of a level (method,), each (name, seed ->
    value).

    A value that isn't a number is a failure, never a success.
    """
    for name, values in arms:
        if fault := _fault(rule, values):
            return Judged(verdict="failed", why=f"arm {name}: {fault}")
    _, method = arms[-1]
    if rule.kind == "level":
        sign = 1.0 if rule.higher else -1.0
        judged: Mapping[str, Value] = {
            seed: tuple(sign * one for one in value) if isinstance(value, tuple) else sign * value
            for seed, value in method.items()
        }
        found = Judged(verdict="inconclusive", why="", spread=spread([method[s] for s in by_number(method)]))
    else:
        _, baseline = arms[0]
        uneven = [s for s in by_number(baseline) if s in method and _count(baseline[s]) != _count(method[s])]
        if uneven:
            return Judged(verdict="failed", why=f"seed {uneven[0]}: the two arms have unequally many items")
        judged = differences(baseline, method, rule.higher)
        found = Judged(
            verdict="inconclusive", why="", differences=judged,
            spread=spread([judged[seed] for seed in by_number(judged)]),
        )  # fmt: skip
    verdict, why = _verdict(rule, judged)
    return Judged(verdict=verdict, why=why, differences=found.differences, spread=found.spread)


def _fault(rule: Rule, values: Mapping[str, Value]) -> str:
    """What is wrong with an arm's values; "" where they can be judged."""
    for seed in by_number(values):
        value = values[seed]
        if rule.items != isinstance(value, tuple):
            wanted, given = ("one value an item", "one") if rule.items else ("one value", "one an item")
            return f"the claim wants {wanted}, seed {seed} gave {given}"
        numbers = value if isinstance(value, tuple) else (value,)
        if not all(map(math.isfinite, numbers)):
            return f"seed {seed} gave a value that isn't finite"
    counts = {_count(value) for value in values.values()}
    return "its seeds have unequally many items" if len(counts) > 1 else ""


def _count(value: Value) -> int:
    return len(value) if isinstance(value, tuple) else 1


def _verdict(rule: Rule, judged: Mapping[str, Value]) -> tuple[Verdict, str]:
    """The verdict over signed values, and why."""
    known = spread([judged[seed] for seed in by_number(judged)])
    what = "items" if rule.items else "seeds"
    if known.n < 2:
        return "inconclusive", f"{known.n} of {what}: an interval needs two"
    if known.low == known.high and known.n < EXACT:
        return "inconclusive", f"no variance over {known.n} {what}: an exact result needs {EXACT}"
    verdict = _by_kind(rule, known)
    return verdict, _reason(rule, verdict)


def _by_kind(rule: Rule, known: Estimate) -> Verdict:
    low, high, effect = known.low, known.high, rule.effect
    if rule.kind == "level":
        level = effect if rule.higher else -effect
        return "reproduced" if low >= level else "opposite" if high < level else "inconclusive"
    if rule.kind == "not_worse":
        return "reproduced" if low > -effect else "opposite" if high < -effect else "inconclusive"
    inside = low >= -effect and high <= effect
    if rule.kind == "equivalent":
        outside = low > effect or high < -effect
        return "reproduced" if inside else "opposite" if outside else "inconclusive"
    if low > 0 and known.value >= effect:
        return "reproduced"
    if high < 0:
        return "opposite"
    return "not reproduced" if inside else "inconclusive"


_WHY: Mapping[tuple[Kind, Verdict], str] = {
    ("greater", "reproduced"): "the interval is above 0 and the mean is at least {effect}",
    ("greater", "opposite"): "the interval is below 0",
    ("greater", "not reproduced"): "the interval lies within +-{effect}",
    ("greater", "inconclusive"): "the interval is neither above 0 with a mean of at least {effect}, nor below"
    " 0, nor within +-{effect}",
    ("equivalent", "reproduced"): "the interval lies within +-{effect}",
    ("equivalent", "opposite"): "the interval lies outside +-{effect}",
    ("equivalent", "inconclusive"): "the interval crosses a border of +-{effect}",
    ("not_worse", "reproduced"): "the interval is above -{effect}",
    ("not_worse", "opposite"): "the interval is below -{effect}",
    ("not_worse", "inconclusive"): "the interval holds -{effect}",
    ("level", "reproduced"): "the interval is on the right side of {effect}",
    ("level", "opposite"): "the interval is on the wrong side of {effect}",
    ("level", "inconclusive"): "the interval holds {effect}",
}


def _reason(rule: Rule, verdict: Verdict) -> str:
    return _WHY[rule.kind, verdict].format(effect=f"{rule.effect:g}")
