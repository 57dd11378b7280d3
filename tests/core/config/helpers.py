"""Toy plugins with settings, and what the tests of settings share."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmfw.core.config import load_config
from llmfw.core.errors import LlmfwError, UsageError

SOURCE = """
from dataclasses import dataclass, field
from typing import Any, Literal
from llmfw.core.plugin import Plugin

class Toy(Plugin):
    @dataclass
    class Config:
        alpha: float = field(default=0.5, metadata={"help": "weight of the tail", "minimum": 0, "maximum": 1})
        mode: Literal["both", "one"] = "both"
        word: str = field(default="a", metadata={"choices": ("a", "b")})
        sizes: list[int] = field(default_factory=lambda: [1, 2])
        notes: dict[str, Any] = field(default_factory=dict)
"""


STRICT = """
from dataclasses import dataclass
from llmfw.core.plugin import Plugin

class Toy(Plugin):
    @dataclass
    class Config:
        needed: int
        other: int = 1

        def __post_init__(self):
            if self.other > self.needed:
                raise ValueError("other is larger than needed")
"""


def file(folder: Path, text: str, name: str = "my.yaml") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def refused(expected: type[LlmfwError] = UsageError, **layers: object) -> LlmfwError:
    with pytest.raises(expected) as caught:
        load_config(**layers)
    assert "\n" not in str(caught.value)
    return caught.value
