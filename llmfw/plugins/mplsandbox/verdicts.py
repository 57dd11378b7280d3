"""From what became of a job to a verdict, and from verdicts to a reward."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from .isolation.job import End, Outcome
from .records import Result, Stage, Usage, Verdict

ORDER: tuple[Verdict, ...] = ("OK", "WA", "OLE", "TLE", "MLE", "RE", "SV", "CE", "IE")
"""From best to worst; the worst case is the request's verdict."""
_LIMITS: Mapping[str, tuple[Verdict, str]] = {
    "memory": ("MLE", "memory"),
    "cpu": ("TLE", "CPU time"),
    "wall": ("TLE", "wall time"),
    "processes": ("SV", "processes"),
    "disk": ("SV", "disk"),
    "stopped": ("OLE", "output"),
}
_SIGNALS: Mapping[int, tuple[Verdict, str]] = {
    signal.SIGXCPU: ("TLE", "CPU time"),
    signal.SIGXFSZ: ("SV", "disk"),
    signal.SIGSYS: ("SV", "a forbidden system call"),
}
REWARDS: Mapping[Verdict, float] = {
    "OK": 1.0, "WA": -0.3, "RE": -0.6, "TLE": -0.6, "MLE": -0.6, "OLE": -0.6, "SV": -0.6, "CE": -1.0,
}  # fmt: skip
"""The paper's four levels; every limit counts as a runtime error."""


def stage_of(outcome: Outcome, end: End | None, *, failed: Verdict = "RE") -> Stage:
    """What became of one command.

    Args:
        end: the command's; None: it never began.
        failed: the verdict of an exit code other than 0, ``CE`` for a compiler.
    """
    texts: dict[str, Any] = {
        "stdout": outcome.stdout.decode("utf-8", "replace"),
        "stderr": outcome.stderr.decode("utf-8", "replace"),
        "outputs": outcome.outputs,
    }
    if end is None:
        if outcome.overflow:
            return Stage(verdict="OLE", detail="output", **texts)
        if outcome.broken:
            return Stage(verdict="SV", detail=f"it ended its own sandbox: {outcome.broken}", **texts)
        return Stage(verdict="IE", detail=outcome.trouble or "its command never began", **texts)
    usage = Usage(wall=end.wall, cpu=end.cpu, memory=end.memory, largest=end.largest, tasks=end.tasks)
    ended = os.waitstatus_to_exitcode(end.status)
    told: dict[str, Any] = {
        **texts,
        "usage": usage,
        "code": ended if ended >= 0 and not end.why else None,
        "signal": -ended if ended < 0 and not end.why else None,
    }
    if not end.started:
        return Stage(verdict="IE", detail="its limits couldn't be set", **told)
    if outcome.overflow:
        return Stage(verdict="OLE", detail="output", **told)
    if end.why:
        verdict, detail = _LIMITS[end.why]
        return Stage(verdict=verdict, detail=detail, **told)
    if ended < 0:
        verdict, detail = _SIGNALS.get(-ended, (failed, f"signal {_name(-ended)}"))
        return Stage(verdict=verdict, detail=detail, **told)
    if ended:
        return Stage(verdict=failed, detail=f"exit code {ended}", **told)
    if outcome.refused:
        path, why = next(iter(outcome.refused.items()))
        return Stage(verdict="SV", detail=f"output file {path}: {why}", **told)
    return Stage(verdict="OK", **told)


def _name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return str(number)


def worst(verdicts: Sequence[Verdict]) -> Verdict:
    """The worst of them; of none ``OK``."""
    return max(verdicts, key=ORDER.index, default="OK")


def reward(
    result: Result,
    *,
    shape: Literal["levels", "binary", "interpolated"] = "levels",
    levels: Mapping[Verdict, float] = REWARDS,
) -> float | None:
    """The reward of a result; None where the sandbox failed: such a sample is dropped, not punished.

    Args:
        shape: ``levels``: of the worst case (the paper's r: 1, -0.3, -0.6, -1). ``binary``: 1 or 0.
            ``interpolated``: -0.3 + 1.3 times the share of accepted cases, where the worst is a wrong answer.
        levels: reward of each verdict.
    """
    if result.verdict == "IE" or any(case.verdict == "IE" for case in result.cases):
        return None
    if shape == "binary":
        return float(result.verdict == "OK")
    low, high = levels["WA"], levels["OK"]
    if shape == "interpolated" and result.verdict in ("OK", "WA"):
        return low + (high - low) * result.pass_rate
    return levels[result.verdict]
