"""Parameter names as plugin authors know them, and patterns over them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

COMPANIONS = "companions."
COPY = "modules_to_save"
"""In plain names, PEFT's copy of a module that is trained in full: ``lm_head.modules_to_save.weight``."""
_WRAPPED = re.compile(r"\.(base_layer|original_module)(?=\.|$)")
_SCALES = re.compile(r"\.(SCB|weight_format|weight\.(absmax|quant_map|nested_\w+|quant_state\..+))$")


def plain_name(name: str) -> str:
    """A parameter's name without what PEFT puts around it: ``base_model.model.lm_head.base_layer.weight``
    -> ``lm_head.weight``. A copy that is trained in full keeps a mark:
    ``base_model.model.lm_head.modules_to_save.default.weight`` -> ``lm_head.modules_to_save.weight``.
    """
    if name.startswith("base_model.model."):
        name = name.removeprefix("base_model.model.")
    if ".lora_" in name:  # wrappers of several parameters of one module stand in each other
        return name
    return _WRAPPED.sub("", name).replace(f".{COPY}.default.", f".{COPY}.")


def is_quantisation(name: str) -> bool:
    """Whether a name in a state is what bitsandbytes keeps beside a quantised weight: scales and maps."""
    return _SCALES.search(name) is not None


def matches(name: str, patterns: Iterable[str]) -> bool:
    """Whether a plain name fits one of the shell patterns."""
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def unmatched(names: Sequence[str], patterns: Iterable[str]) -> list[str]:
    """Patterns that fit none of the names."""
    return [pattern for pattern in patterns if not any(fnmatchcase(name, pattern) for name in names)]
