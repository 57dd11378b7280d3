"""Parameter names as plugin authors know them, and patterns over them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

COMPANIONS = "companions."
_WRAPPED = re.compile(r"\.(base_layer|modules_to_save\.default|original_module)(?=\.|$)")


def plain_name(name: str) -> str:
    """A parameter's name without what PEFT puts around it: ``base_model.model.lm_head.base_layer.weight``
    -> ``lm_head.weight``.
    """
    if name.startswith("base_model.model."):
        name = name.removeprefix("base_model.model.")
    return _WRAPPED.sub("", name)


def matches(name: str, patterns: Iterable[str]) -> bool:
    """Whether a plain name fits one of the shell patterns."""
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def unmatched(names: Sequence[str], patterns: Iterable[str]) -> list[str]:
    """Patterns that fit none of the names."""
    return [pattern for pattern in patterns if not any(fnmatchcase(name, pattern) for name in names)]
