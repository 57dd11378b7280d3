"""A solution as segments of known kinds: its text, its record, what of it is trained. Plain Python.

Every segment but the last ends with a newline, and the blank lines behind it, which belong to it: the newline
behind a wrong step is as masked as the step, and the first character of the reflection is trained (arXiv
2409.01524 doesn't say; the boundary is ours).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal, get_args

from .errors import SolutionError
from .solution import behind, in_place_of

Kind = Literal["step", "wrong", "reflect", "improve"]
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)


@dataclass(frozen=True)
class Segment:
    """A piece of a solution. ``text`` has its newline; ``step_idx`` counts the gold lines from 0.

    Raises:
        SolutionError: SEGMENT: no such kind, or nothing in it.
    """

    type: Kind
    text: str
    step_idx: int

    def __post_init__(self) -> None:
        if self.type not in KINDS or not self.text.strip():
            raise SolutionError(
                "SEGMENT",
                f"a segment of kind {self.type!r} with the text {self.text!r} can't be written",
                mend=f"give a text, and one of {', '.join(KINDS)}",
                key="segments",
            )


def gold(lines: Sequence[str]) -> list[Segment]:
    """The segments of a plain solution, which has these lines (``solution.lines_of``)."""
    return [Segment("step", line, at) for at, line in enumerate(lines)]


def with_repair(
    lines: Sequence[str], repairs: Mapping[int, tuple[str, str, str]], *, reflections: bool = True
) -> list[Segment]:
    """A solution in which some steps are first written wrong, then taken back, then done right.

    Args:
        repairs: a step's index -> (wrong step, reflection, improvement), each a text without newline; what
            stands around the gold step stands around them.
        reflections: whether the reflection is written; without it the improvement follows the wrong step.
    """
    found: list[Segment] = []
    for segment in gold(lines):
        at = segment.step_idx
        if at not in repairs:
            found.append(segment)
            continue
        wrong, reflection, improvement = repairs[at]
        found.append(Segment("wrong", in_place_of(segment.text, wrong), at))
        if reflections:
            found.append(Segment("reflect", reflection + behind(segment.text), at))
        found.append(Segment("improve", in_place_of(segment.text, improvement), at))
    return found


def with_retry(
    lines: Sequence[str], attempt: Sequence[str], at: int, reflection: str, *, reflections: bool = True
) -> list[Segment]:
    """A whole attempt that goes wrong at step ``at``, then a reflection, then the whole gold solution: the
    coarser correction that the paper compares with. All of the attempt is of kind ``wrong``.

    Args:
        attempt: all of its lines, from the first to the last, without newlines.
    """
    layout = [in_place_of(line, text) for line, text in zip(lines[: at + 1], attempt, strict=False)]
    layout += [text + behind(lines[at]) for text in attempt[at + 1 :]]
    found = [Segment("wrong", line, min(index, at)) for index, line in enumerate(layout)]
    if reflections:
        found.append(Segment("reflect", reflection + behind(lines[at]), at))
    return [*found, *(Segment("improve", one.text, one.step_idx) for one in gold(lines))]


def text_of(segments: Sequence[Segment]) -> str:
    """The completion: the segments' texts one behind the other."""
    return "".join(segment.text for segment in segments)


def trained_spans(segments: Sequence[Segment]) -> list[list[int]]:
    """[from, to) characters of the completion that are trained, ascending, neighbours joined: all but those
    of wrong segments. A trained last segment trains the end of the turn too (to = length + 1).

    The mask m_t is 1 on step, reflect, improve and the end of the turn, 0 on wrong.
    """
    found: list[list[int]] = []
    at = 0
    for segment in segments:
        stop = at + len(segment.text)
        if segment.type != "wrong":
            if found and found[-1][1] == at:
                found[-1][1] = stop
            else:
                found.append([at, stop])
        at = stop
    if found and found[-1][1] == at:
        found[-1][1] = at + 1
    return found


def repaired(segments: Sequence[Segment]) -> str:
    """The solution that is left without wrong steps and reflections: for display, and to check records."""
    return text_of([segment for segment in segments if segment.type in ("step", "improve")])


def to_record(segments: Sequence[Segment]) -> list[dict[str, Any]]:
    """The segments as json."""
    return [asdict(segment) for segment in segments]


def from_record(told: Sequence[Mapping[str, Any]]) -> list[Segment]:
    """The segments that ``to_record`` wrote.

    Raises:
        SolutionError: SEGMENT, also where a key is missing.
    """
    try:
        return [Segment(one["type"], str(one["text"]), int(one["step_idx"])) for one in told]
    except (KeyError, TypeError, ValueError):
        raise SolutionError(
            "SEGMENT",
            "a segment is an object with type, text and step_idx",
            mend="give each of them",
            key="segments",
        ) from None


def normal(text: str) -> str:
    """A step without white space: what candidates are compared by."""
    return "".join(text.split())
