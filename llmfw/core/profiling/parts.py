"""Which modules of a model are its embedding, attention, feed-forward layers and norms, by their names."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from torch import nn

_MIXING = re.compile(r"(?i)attention$|attn$|^attn|attention_?\d*$")
_MLP = re.compile(r"(?i)^mlp|mlp$|feed_?forward|^ffn$|moe|experts?$|ff$|densereludense")
_OTHER_MIXING = re.compile(r"(?i)mixer|mamba|ssm|recurrent|conv$")
_NORM = re.compile(r"(?i)norm")


def kind_of(name: str, module: nn.Module) -> str | None:
    """embedding, norms, attention, mixer or mlp by a module's name in its parent and its class; None: none
    of them.
    """
    words = (name, type(module).__name__)
    if isinstance(module, nn.Embedding):
        return "embedding"
    if _NORM.search(words[1]) or isinstance(module, (nn.LayerNorm, nn.RMSNorm)):
        return "norms"
    if any(_MIXING.search(word) for word in words):
        return "attention"
    if any(_MLP.search(word) for word in words):
        return "mlp"
    if any(_OTHER_MIXING.search(word) for word in words):
        return "mixer"
    return None


def parts_of(decoder: Any) -> Iterator[tuple[nn.Module, str]]:
    """(module, part) inside a decoder: the outermost module of each part, and every norm and embedding.

    A module that was compiled on its own is one part, "compiled layers": looking into it would break it up.
    """
    return _parts(decoder, inside=None)


def compiled(module: nn.Module) -> bool:
    """Whether ``torch.compile`` has this module's forward."""
    return getattr(module, "_compiled_call_impl", None) is not None or hasattr(module, "_orig_mod")


def _parts(module: nn.Module, inside: str | None) -> Iterator[tuple[nn.Module, str]]:
    for name, child in module.named_children():
        if compiled(child):
            yield child, "compiled layers"
            continue
        kind = kind_of(name, child)
        if kind in ("norms", "embedding") or (kind is not None and inside is None):
            assert kind is not None
            yield child, kind
            if kind not in ("norms", "embedding"):
                yield from _parts(child, inside=kind)
        else:
            yield from _parts(child, inside=inside)
