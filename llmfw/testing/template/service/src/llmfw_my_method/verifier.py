"""The service itself: an object with the protocol's one method."""

from __future__ import annotations

from .functional import last_number, same


class LastNumber:
    """Judges an answer by its last number; the protocol ``AnswerVerifier``: (answer, expected) -> bool."""

    def __init__(self, tolerance: float) -> None:
        self._tolerance = tolerance

    def __call__(self, answer: str, expected: str) -> bool:
        """Whether the answer is right. Without a number in ``expected`` the two texts must be equal."""
        wanted = last_number(expected)
        if wanted is None:
            return answer.strip() == expected.strip()
        given = last_number(answer)
        return given is not None and same(given, wanted, tolerance=self._tolerance)
