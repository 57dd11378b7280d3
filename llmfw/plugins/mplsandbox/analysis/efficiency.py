"""Time and memory of each case as the sandbox counted them, and how time grows with the input."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace

from ..executor import Sandbox
from ..records import Case, Request, Stage
from ..values import plain
from .parse import Parsed
from .records import Finding
from .table import Analyser

_NOTABLE = 0.1
"""Seconds of CPU from which on growth is measured: shorter runs are mostly start-up."""


def size(case: Case) -> int:
    """Bytes of a case's input."""
    if case.args or case.kwargs:
        return len(
            json.dumps([[plain(one) for one in case.args], {k: plain(v) for k, v in case.kwargs.items()}])
        )
    return len(case.stdin if isinstance(case.stdin, bytes) else case.stdin.encode("utf-8", "surrogatepass"))


def growth(sizes: Sequence[int], seconds: Sequence[float]) -> float | None:
    """The exponent e for which seconds grow like size^e, by least squares on logarithms.

    The fastest case stands for start-up and is taken off; None where there's too little to see: fewer than
    two cases that run clearly longer than it, or none that takes a tenth of a second more.
    """
    if not sizes or max(seconds) - min(seconds) < _NOTABLE:
        return None
    base = min(seconds)
    points = [
        (math.log(n), math.log(s - base))
        for n, s in zip(sizes, seconds, strict=True)
        if n > 0 and s > base + 0.02
    ]
    middle = sum(x for x, _ in points) / max(1, len(points))
    spread = sum((x - middle) ** 2 for x, _ in points)
    if len(points) < 2 or spread < 0.1:
        return None
    return sum((x - middle) * y for x, y in points) / spread


def usage(sandbox: Sandbox, request: Request, analyser: Analyser) -> Parsed:
    """Run the request as it is and say what each case took."""
    asked = request if request.cases or request.mode != "stdin" else replace(request, cases=(Case(),))
    result = sandbox.run(asked)
    cases = asked.cases or (Case(),)
    metrics: dict[str, float] = {}
    if result.compile is not None:
        metrics |= {"compile seconds": result.compile.usage.cpu}
    for index, stage in enumerate(result.cases):
        metrics[f"case {index} seconds"] = stage.usage.cpu
        metrics[f"case {index} MiB"] = _memory(stage)
    metrics |= {
        "seconds": sum(stage.usage.cpu for stage in result.cases),
        "slowest seconds": max((stage.usage.cpu for stage in result.cases), default=0.0),
        "MiB": max(map(_memory, result.cases), default=0.0),
    }
    told = [
        {"input bytes": size(case), "seconds": stage.usage.cpu, "wall seconds": stage.usage.wall,
         "MiB": _memory(stage), "verdict": stage.verdict}
        for case, stage in zip(cases, result.cases)
    ]  # fmt: skip
    ended = [
        (size(case), stage.usage.cpu)
        for case, stage in zip(cases, result.cases)
        if stage.verdict in ("OK", "WA")
    ]
    findings: list[Finding] = []
    exponent = growth([n for n, _ in ended], [s for _, s in ended])
    if exponent is not None:
        metrics["growth exponent"] = exponent
        findings.append(
            Finding(
                tool=analyser.tool, category="efficiency", rule="growth", severity="info",
                message=f"CPU time grows about like the input's size to the power of {exponent:.1f}",
            )
        )  # fmt: skip
    return Parsed(findings=tuple(findings), metrics=metrics, artefacts={"cases": json.dumps(told)})


def _memory(stage: Stage) -> float:
    return max(stage.usage.memory, stage.usage.largest)
