"""evidence.json: the values of every arm and seed, and what follows from them.

{"plugin", "claims": [ENTRY], "command", "commit", "versions", "machine", "date"}, and of each claim and size
an ENTRY {"id", "statement", "paper", "metric", "unit", "kind", "direction", "effect", "items", "size",
"arms": {name: {"about", "role", "values": {seed: value}, "commits": {seed: commit}, "definitions": {seed:
digest}, "mean", "interval"}}, "differences": {"values", "mean", "interval", "n"}, "controls": {name: method
minus control, likewise}, "verdict", "why", "failures": {arm: {seed: error}}, "cost": {arm: {seed: {...}}},
"settings": [those of the command line that its trainings had]}.

Means, intervals, differences and verdicts follow from the rest: ``settle`` writes them, ``faults`` says where
a file's differ. A number that isn't finite is a word, as in the journal.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from llmfw.core.claims import Claim, Size
from llmfw.core.errors import DataError
from llmfw.core.evidence.marks import FILE
from llmfw.core.evidence.outcome import Outcome
from llmfw.core.evidence.stated import told
from llmfw.core.evidence.verdict import Rule, Value, by_number, differences, judge, spread
from llmfw.core.records import Estimate
from llmfw.core.tracking.files import read_json
from llmfw.core.tracking.journal import decode, encode

_TOLERANCE = 1e-9
"""Relative difference that another machine's arithmetic may make."""


def entry_of(
    claim: Claim, size: Size, outcomes: Sequence[Outcome], abouts: Mapping[str, str]
) -> dict[str, Any]:
    """What evidence.json says of a claim at a size, from what its arms brought.

    An arm that failed, or that has no such metric, is a failure; ``abouts`` are the arms' lines for tables.
    """
    entry = {
        key: value for key, value in told(claim).items() if key not in ("arms", "controls", "not_tested")
    }
    if claim.not_tested:
        return entry | {"size": None, "arms": {}, "verdict": "not tested", "why": claim.not_tested}
    roles = dict(zip(reversed(claim.arms), ("method", "baseline"))) | dict.fromkeys(claim.controls, "control")
    arms: dict[str, Any] = {}
    failures: dict[str, dict[str, str]] = {}
    cost: dict[str, Any] = {}
    for name in (*claim.arms, *claim.controls):
        mine = sorted((one for one in outcomes if one.arm == name), key=lambda one: one.seed)
        found = {str(one.seed): one for one in mine if claim.metric in one.values}
        for one in mine:
            if claim.metric not in one.values:
                failures.setdefault(name, {})[str(one.seed)] = one.error or _lacks(claim.metric, one)
        arms[name] = {
            "about": abouts.get(name, ""),
            "role": roles[name],
            "values": {seed: _to_json(one.values[claim.metric]) for seed, one in found.items()},
            "commits": {seed: one.commit for seed, one in found.items()},
            "definitions": {seed: one.definition for seed, one in found.items()},
        }
        cost[name] = {seed: dict(one.cost) for seed, one in found.items()}
    return settle(entry | {"size": size, "arms": arms, "failures": failures, "cost": cost})


def settle(entry: Mapping[str, Any]) -> dict[str, Any]:
    """The entry with everything that follows from its values: means, intervals, differences, verdict."""
    if not entry["arms"]:
        return dict(entry)
    rule = rule_of(entry)
    values = {name: values_of(arm) for name, arm in entry["arms"].items()}
    roles = {arm["role"]: name for name, arm in entry["arms"].items() if arm["role"] != "control"}
    judged_arms = [roles[role] for role in ("baseline", "method") if role in roles]
    arms = {
        name: {**arm, **_spread_json(spread(_in_order(values[name])))} for name, arm in entry["arms"].items()
    }
    judged = judge(rule, [(name, values[name]) for name in judged_arms])
    verdict, why = judged.verdict, judged.why
    failed = [name for name in judged_arms if entry.get("failures", {}).get(name)]
    if failed:
        seed, error = next(iter(entry["failures"][failed[0]].items()))
        verdict, why = "failed", f"arm {failed[0]}, seed {seed}: {error}"
    found = None
    if judged.differences and judged.spread is not None:
        found = _differences_json(judged.differences, judged.spread)
    method = values[roles["method"]]
    controls = {
        name: _against(values[name], method, rule)
        for name, arm in entry["arms"].items()
        if arm["role"] == "control"
    }
    return {
        **entry, "arms": arms, "differences": found, "controls": controls, "verdict": verdict, "why": why
    }  # fmt: skip


def _against(control: Mapping[str, Value], method: Mapping[str, Value], rule: Rule) -> dict[str, Any]:
    """Method minus a control, as json."""
    try:
        found = differences(control, method, rule.higher)
    except (ValueError, AssertionError):  # unequally many items: they can't be paired
        found = {}
    return _differences_json(found, spread(_in_order(found)))


def faults(evidence: Mapping[str, Any]) -> list[str]:
    """What in an evidence.json doesn't follow from its raw values, each with claim and place."""
    found = []
    for entry in evidence["claims"]:
        wanted = settle(entry)
        for path, old, new in _unequal(entry, wanted, ""):
            found.append(f"{entry['id']} ({entry['size']}){path}: says {old!r}, the values give {new!r}")
    return found


def rule_of(entry: Mapping[str, Any]) -> Rule:
    """What of an entry decides its verdict."""
    return Rule(
        kind=entry["kind"], effect=float(entry["effect"]), higher=entry["direction"] == "higher",
        items=bool(entry["items"]),
    )  # fmt: skip


def values_of(arm: Mapping[str, Any]) -> dict[str, Value]:
    """Seed -> value of an arm in evidence.json."""
    return {
        seed: tuple(map(decode, value)) if isinstance(value, list) else decode(value)
        for seed, value in arm["values"].items()
    }


def read_evidence(folder: Path) -> dict[str, Any] | None:
    """evidence.json of a folder; None where there's none.

    Raises:
        DataError: it's damaged.
    """
    file = folder / FILE
    if not file.exists():
        return None
    found = read_json(file)
    if found is None or not isinstance(found.get("claims"), list):
        raise DataError(
            "EVIDENCE-FILE",
            "this is no evidence of claims",
            mend="take it from git again, or remove it",
            file=file,
        )
    return found


def _lacks(metric: str, outcome: Outcome) -> str:
    from difflib import get_close_matches

    near = get_close_matches(metric, outcome.values, n=4, cutoff=0.4) or sorted(outcome.values)[:6]
    return f"it has no metric {metric!r} (but {', '.join(near) or 'none at all'})"


def _in_order(values: Mapping[str, Value]) -> list[Value]:
    return [values[seed] for seed in by_number(values)]


def _to_json(value: Value) -> Any:
    return [encode(one) for one in value] if isinstance(value, tuple) else encode(value)


def _spread_json(found: Estimate) -> dict[str, Any]:
    return {"mean": encode(found.value), "interval": [encode(found.low), encode(found.high)]}


def _differences_json(values: Mapping[str, Value], found: Estimate) -> dict[str, Any]:
    return {
        "values": {seed: _to_json(values[seed]) for seed in by_number(values)},
        **_spread_json(found),
        "n": found.n,
    }


def _unequal(old: Any, new: Any, path: str) -> Iterator[tuple[str, Any, Any]]:
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in [*new, *(key for key in old if key not in new)]:
            yield from _unequal(old.get(key), new.get(key), f"{path}.{key}")
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for n, (one, other) in enumerate(zip(old, new)):
            yield from _unequal(one, other, f"{path}[{n}]")
    elif isinstance(old, float) and isinstance(new, float):
        if not math.isclose(old, new, rel_tol=_TOLERANCE, abs_tol=_TOLERANCE):
            yield path, old, new
    elif old != new:
        yield path, old, new
