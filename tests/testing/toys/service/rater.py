"""The rater."""

from __future__ import annotations


class Length:
    """A point for each ``unit`` characters."""

    def __init__(self, unit: int) -> None:
        self.unit = unit

    def __call__(self, text: str) -> float:
        """Points of a text."""
        return len(text) / self.unit
