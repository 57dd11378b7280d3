"""Long texts in pieces, short samples side by side in one row, and which models can't have such rows.

A packed row keeps its members apart: each has its own positions, and attends to itself alone.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

from llmfw.core.data.examples import Example, TokenSequence

_ATTENTION: Final = ("sdpa", "eager", "flash_attention_2", "flash_attention_3")
"""Implementations that keep the samples of a row apart, by spans or by a mask of [B, 1, T, T]."""
_LAYERS: Final = frozenset({"full_attention", "sliding_attention", "chunked_attention"})
"""Kinds of layers (transformers' ``layer_types``) in which tokens meet by attention only."""


def pack(examples: Sequence[Example], max_length: int) -> list[Example]:
    """Join samples of one sequence into units of at most ``max_length`` tokens, best fit, longest first.

    Each sample goes where the least room is left over; units stand in the order of their first members in
    ``examples``. Members keep their own positions and don't see each other (``collate`` gives a
    block-diagonal mask). An example longer than ``max_length`` makes a unit of its own.
    """
    for example in examples:
        if len(example.sequences) != 1:
            raise ValueError(f"example {example.id}: a {example.kind} sample can't be packed")
        if example.sequences[0].encoder:
            raise ValueError(f"example {example.id}: rows of an encoder-decoder can't be packed")
    units: list[list[int]] = []
    rooms: dict[int, list[int]] = {}  # room left -> units that have it
    having = 0  # bit r is set where some unit has room r: the least room >= size is one shift away
    for index in sorted(range(len(examples)), key=lambda index: (-examples[index].length, index)):
        size = examples[index].length
        fitting = having >> size
        if fitting:
            room = size + (fitting & -fitting).bit_length() - 1
            unit = rooms[room].pop()
            if not rooms[room]:
                having &= ~(1 << room)
            units[unit].append(index)
        else:
            room, unit = max_length, len(units)
            units.append([index])
        left = room - size
        if left > 0:
            rooms.setdefault(left, []).append(unit)
            having |= 1 << left
    return [_unit([examples[index] for index in sorted(unit)]) for unit in sorted(units, key=min)]


def _unit(members: list[Example]) -> Example:
    names = {name for member in members for name in member.extra}
    extra: dict[str, Any] = {}
    for name in sorted(names):
        values = (member.extra.get(name, 0) for member in members)
        extra[name] = tuple(value[0] if isinstance(value, tuple) else value for value in values)
    ids = tuple(member.id for member in members)
    return Example(
        id="+".join(ids),
        kind=members[0].kind,
        sequences=tuple(member.sequences[0] for member in members),
        extra=extra,
        members=ids,
        source=members[0].source,
    )


def split_long(example: Example, max_length: int) -> list[Example]:
    """A text in consecutive pieces of at most ``max_length`` tokens, named ``ID#1``, ``ID#2`` ...

    Every token stands in exactly one piece. A piece's first token isn't trained, as nothing in its row
    precedes it; a piece that would train nothing (one token is left over, say) is left out.
    """
    if example.length <= max_length:
        return [example]
    (whole,) = example.sequences
    pieces: list[Example] = []
    for number, start in enumerate(range(0, len(whole), max_length), start=1):
        flags = (False, *whole.trained[start + 1 : start + max_length])
        if any(flags):
            piece = TokenSequence(whole.ids[start : start + max_length], flags)
            extra = {**example.extra, "prompt_length": (flags.index(True),)}
            pieces.append(replace(example, id=f"{example.id}#{number}", sequences=(piece,), extra=extra))
    return pieces


def packing_refusal(model_config: Any, attention: str) -> str | None:
    """Why a model can't train on packed rows as it does on single ones, read off its class; None: it can.

    What the class doesn't tell is found before step 1 (``llmfw.core.training.packed``).
    """
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

    name = getattr(model_config, "model_type", type(model_config).__name__)
    if getattr(model_config, "is_encoder_decoder", False):
        return f"{name} is an encoder-decoder"
    if attention not in _ATTENTION:
        return f"attention {attention!r} takes no mask that keeps packed samples apart"
    if getattr(model_config, "alibi", False):
        return f"{name} reads positions off the row (ALiBi), which packed samples share"
    other = sorted(set(getattr(model_config, "layer_types", None) or ()) - _LAYERS)
    if other:
        return f"{name} has layers ({', '.join(other)}) that carry a state from one sample into the next"
    try:
        found = MODEL_FOR_CAUSAL_LM_MAPPING[type(model_config)]
    except KeyError:
        return None
    model_class: Any = found[0] if isinstance(found, (tuple, list)) else found
    if getattr(model_class, "_is_stateful", False):
        return f"{name} carries a state from one sample into the next"
    takes = inspect.signature(model_class.forward).parameters
    missing = [key for key in ("attention_mask", "position_ids") if key not in takes]
    return f"{name} takes no {' and no '.join(missing)}" if missing else None
