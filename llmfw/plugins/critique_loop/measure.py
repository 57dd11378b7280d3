"""What courses of answer, critique and refinement are worth: accuracy before and after, verdicts, leaks,
votes and passes against the tokens generated. Plain numbers.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from statistics import fmean
from typing import Any

from llmfw import Estimate, LlmfwError
from llmfw.callbacks.intervals import share_interval
from llmfw.callbacks.problems import majority

from .chains import Course, Said
from .functional import change, sizes
from .leaks import leaks
from .steps import located, wrong_steps

NAME = "critiqued"


def before_and_after(courses: Sequence[Course]) -> dict[str, float | Estimate]:
    """Of courses of one round, one a problem: accuracy first and refined (with 95% intervals), their
    difference and its parts (``i_to_c``, ``c_to_i``, shares of all problems); the same by level;
    ``acc_dis``, the share of critiques whose verdict is right (an unread one is wrong); ``unparsed``;
    ``first_error_hit`` over answers with a wrong step, where the steps' truth is known; ``leak``, the share
    of critiques that say the gold answer; ``tokens``, all that was generated for a problem.
    """
    found = _changed(courses, NAME)
    levels: dict[str, list[Course]] = defaultdict(list)
    for course in courses:
        if "level" in course.row:
            levels[str(course.row["level"])].append(course)
    for level, own in sorted(levels.items()):
        found |= {
            name: value
            for name, value in _changed(own, f"{NAME}/level/{level}").items()
            if not name.endswith(("i_to_c", "c_to_i"))
        }
    pairs = [(course, course.said[0], course.said[1]) for course in courses]
    told = [new.critique.correct == old.right for _, old, new in pairs if new.critique is not None]
    n = max(1, len(pairs))
    found[f"{NAME}/acc_dis"] = sum(told) / n
    found[f"{NAME}/unparsed"] = 1 - len(told) / n
    found[f"{NAME}/leak"] = sum(leaks(new.words, str(one.row["answer"])) for one, _, new in pairs) / n
    found[f"{NAME}/tokens"] = sum(course.tokens for course in courses) / n
    return found | _hits(courses)


def _changed(courses: Sequence[Course], name: str) -> dict[str, float | Estimate]:
    first = [course.said[0].right for course in courses]
    refined = [course.said[-1].right for course in courses]
    found = change(first, refined)
    return {
        f"{name}/first": share_interval(sum(first), len(first)),
        f"{name}/refined": share_interval(sum(refined), len(refined)),
        f"{name}/delta": found.delta,
        f"{name}/i_to_c": found.gained,
        f"{name}/c_to_i": found.lost,
    }


def _hits(courses: Sequence[Course]) -> dict[str, float | Estimate]:
    hits = []
    for course in courses:
        text, critique = course.said[0].text, course.said[1].critique
        try:
            at = wrong_steps(course.row, text)
        except LlmfwError:  # the rows are no chains
            return {}
        if at is not None:
            hits.append(critique is not None and located(critique, text) == at)
    return {f"{NAME}/first_error_hit": share_interval(sum(hits), len(hits))} if hits else {}


def table(courses: Sequence[Course], refine: str) -> list[dict[str, Any]]:
    """A line a problem: first answer, critique, refinement; ``refine`` says which answers were refined."""
    return [
        {
            "id": course.row["id"], "level": str(course.row.get("level", "")),
            "first": course.said[0].text, "first_right": course.said[0].right,
            "critique": course.said[1].words, "refined": course.said[1].text,
            "refined_right": course.said[1].right, "tokens": course.tokens, "refine": refine,
        }
        for course in courses
    ]  # fmt: skip


def side_by_side(groups: Sequence[Sequence[Course]], most: int) -> list[dict[str, Any]]:
    """K chains side by side: of the last responses of each problem's first 1, 2, 4 ... K chains."""
    return _curve("parallel", [[(one.said[-1], one.tokens) for one in group] for group in groups], most)


def one_behind_another(courses: Sequence[Course], most: int, *, only_final: bool) -> list[dict[str, Any]]:
    """One chain for 1, 2, 4 ... K rounds: of its refinements so far, or of the last of them alone."""
    groups = []
    for course in courses:
        begun = course.said[0].tokens
        tokens = [one.tokens + (begun if at == 0 else 0) for at, one in enumerate(course.said[1:])]
        groups.append(list(zip(course.said[1:], tokens, strict=True)))
    return _curve("sequential", groups, most, only_final=only_final)


def plain(groups: Sequence[Sequence[Said]], most: int) -> list[dict[str, Any]]:
    """As many answers without critiques."""
    return _curve("plain", [[(said, said.tokens) for said in group] for group in groups], most)


def _curve(
    mode: str, groups: Sequence[Sequence[tuple[Said, int]]], most: int, *, only_final: bool = False
) -> list[dict[str, Any]]:
    lines = []
    for k in sizes(most):
        firsts = [group[:k] for group in groups]
        counted = [group[-1:] if only_final else group for group in firsts]
        lines.append(
            {
                "mode": mode,
                "k": k,
                "tokens": fmean(sum(tokens for _, tokens in group) for group in firsts),
                "accuracy": fmean(fmean(said.right for said, _ in group) for group in counted),
                "maj": fmean(voted([said for said, _ in group]) for group in counted),
                "pass": fmean(any(said.right for said, _ in group) for group in counted),
            }
        )
    return lines


def voted(said: Sequence[Said]) -> bool:
    """Whether the most frequent answer is right. Responses without one don't vote; of equals the earliest
    wins.
    """
    return majority([one.answer for one in said], [one.right for one in said])


def gain(lines: Sequence[dict[str, Any]], k: int, what: str = "maj") -> float:
    """How much better K critiqued chains are than plain answers that cost as many tokens; between two sizes
    of the plain curve its value is drawn as a line, beyond its ends it stays as it is.
    """
    mine = next(line for line in lines if line["mode"] == "parallel" and line["k"] == k)
    curve = sorted((line["tokens"], line[what]) for line in lines if line["mode"] == "plain")
    return float(mine[what] - between(curve, mine["tokens"]))


def between(curve: Sequence[tuple[float, float]], at: float) -> float:
    """The value of a curve of (place, value) at a place, linearly; at the ends as it is there."""
    below = [point for point in curve if point[0] <= at]
    above = [point for point in curve if point[0] > at]
    if not below or not above:
        return (below or above)[-1 if below else 0][1]
    (left, low), (right, high) = below[-1], above[0]
    return low + (high - low) * (at - left) / (right - left)
