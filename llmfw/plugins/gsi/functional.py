"""How much of a gold solution an attempt is shown, and how a hint is worded (arXiv 2411.00750). Plain Python.

Guided attempts are numbered from 1; help grows with the attempts, then begins anew.
"""

from __future__ import annotations

from collections.abc import Sequence

FRACTIONS = (0.2, 0.4, 0.6, 0.8, 0.8)
"""Shares of a gold solution's tokens that successive attempts begin with."""


def lines_shown(attempt: int, lines: int) -> int:
    """Of a solution of ``lines`` lines: 1, 2, ... lines - 1, once more lines - 1, and from 1 again; never the
    last line, so of a single line nothing.

    Of 4: 1 2 3 3 1 2 3 3 ...
    """
    return min((attempt - 1) % lines + 1, lines - 1)


def share_shown(attempt: int) -> float:
    """0.2, 0.4, 0.6, 0.8, 0.8, and from 0.2 again."""
    return FRACTIONS[(attempt - 1) % len(FRACTIONS)]


def written(text: Sequence[str]) -> list[str]:
    """The lines, blank ones put to the line before them (at the beginning to the one behind), so that each
    says something; joined they are the same text.
    """
    found: list[str] = []
    for line in text:
        if found and not (line.strip() and found[-1].strip()):
            found[-1] += line
        else:
            found.append(line)
    return found


def lines(text: str) -> int:
    """How many lines of a text say something; at least 1."""
    return max(1, len(written(text.splitlines())))


def first_lines(solution: Sequence[str], attempt: int) -> str:
    """The lines that an attempt begins with; may be empty. Each comes with its line break; a blank one isn't
    counted.
    """
    told = written(solution)
    return "".join(told[: lines_shown(attempt, len(told))])


def first_tokens(text: str, pieces: Sequence[str], attempt: int) -> str:
    """The beginning of ``text`` that an attempt is given, cut between tokens.

    ``pieces``: the text of the first 1, 2, ... tokens. Where a cut falls into a character the piece isn't a
    beginning of the text; then the longest shorter one that is.
    """
    count = int(share_shown(attempt) * len(pieces))
    return next((pieces[at - 1] for at in range(count, 0, -1) if text.startswith(pieces[at - 1])), "")


def with_answer(question: str, answer: str) -> str:
    """The question with the answer's value on its line: answer-driven guidance."""
    return f"{question} (The answer is {answer}.)"


def with_rationale(question: str, rationale: str) -> str:
    """The question with a reference solution: rationale-driven guidance."""
    return (
        f"{question}\n\nA reference solution:\n{rationale}\n\n"
        "Write a complete solution of your own, step by step, in the same form."
    )


def to_teacher(question: str, response: str, answer: str) -> str:
    """What a teacher is asked about a student's last response: interactive guidance."""
    return (
        f"Question:\n{question}\n\nA student's solution:\n{response}\n\nThe correct answer is {answer}.\n\n"
        "Say in a few sentences where the student's solution goes wrong and how that step should be done. "
        "Do not write the whole solution."
    )


def to_student(explanation: str) -> str:
    """What the student is told after its own response: interactive guidance. Where a teacher says nothing
    it's asked to look for itself.
    """
    told = explanation.strip() or "Go through this solution again and look for a mistake."
    return f"{told}\n\nWrite the complete solution again, with this put right."


def overlap(text: str, reference: str, n: int = 3) -> float:
    """Jaccard similarity of the word ``n``-grams of two texts, 0 to 1; 1 where neither has any."""
    one, other = _grams(text, n), _grams(reference, n)
    return len(one & other) / len(one | other) if one | other else 1.0


def _grams(text: str, n: int) -> set[tuple[str, ...]]:
    words = text.split()
    return {tuple(words[at : at + n]) for at in range(len(words) - n + 1)}
