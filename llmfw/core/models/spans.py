"""Attention over a row without padding: each span sees its own line, and nothing else is computed.

transformers' models look an attention function up by their config's name for it and hand it what their
forward was called with; a row's spans reach ours as the keyword ``spans``.

Shapes: T positions of the row, H heads, D width of a head, Q queries and K keys of one run.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any, Final

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS, AttentionInterface

from llmfw.core.batch import Spans
from llmfw.core.models.varlen import Ragged, ragged, varlen_usable, with_varlen

PREFIX: Final = "llmfw_"
"""Before the name of the implementation that ours stands for."""
_STANDS_FOR: Final = frozenset({"sdpa", "flash_attention_2", "flash_attention_3"})
"""Attention implementations that ours computes the same as, and may take the place of."""


@dataclass(frozen=True)
class Run:
    """Consecutive queries, and the stretches of keys that they see; of the last stretch causally, and the
    last query stands with the last key.
    """

    start: int
    stop: int
    keys: tuple[tuple[int, int], ...]

    @property
    def key_count(self) -> int:
        return sum(stop - start for start, stop in self.keys)

    @property
    def alone(self) -> bool:
        """Whether it sees itself, and nothing before it."""
        return self.keys == ((self.start, self.stop),)

    def __len__(self) -> int:
        return self.stop - self.start


def runs_of(spans: Spans) -> tuple[Run, ...]:
    """The attention calls that a row needs: a span that directly follows the whole line before it is one run
    with it, so a prompt and its first answer are a single causal call.
    """
    found: list[Run] = []
    run_of: dict[int, int] = {}
    for index, span in enumerate(spans.spans):
        if not len(span):
            continue
        last = None if span.parent is None else run_of.get(span.parent)
        follows = span.parent is not None and spans.spans[span.parent].stop == span.start
        if last is not None and follows and len(found[last].keys) == 1:
            start, ((first, _),) = found[last].start, found[last].keys
            found[last] = Run(start, span.stop, ((first, span.stop),))
            run_of[index] = last
            continue
        stretches: list[tuple[int, int]] = []
        for other in (spans.spans[step] for step in spans.line(index)):
            if stretches and stretches[-1][1] == other.start:
                stretches[-1] = (stretches[-1][0], other.stop)
            elif len(other):
                stretches.append((other.start, other.stop))
        run_of[index] = len(found)
        found.append(Run(span.start, span.stop, tuple(stretches)))
    return tuple(found)


def alike(runs: Sequence[Run]) -> tuple[tuple[Run, int], ...]:
    """(a run, how many of its kind lie side by side from it on): of the same length, each of them alone."""
    found: list[tuple[Run, int]] = []
    for run in runs:
        first, count = found[-1] if found else (run, 0)
        if count and first.alone and run.alone and len(first) == len(run):
            found[-1] = (first, count + 1)
        else:
            found.append((run, 1))
    return tuple(found)


class Sight:
    """A row's spans as the attention function wants them; made once a batch, used by every layer."""

    def __init__(self, spans: Spans, device: torch.device) -> None:
        self.runs = runs_of(spans)
        self.device = device
        self.calls = alike(self.runs)
        """What is computed at once: runs of one length are the rows of a batch."""
        self.asking = tuple(len(run) * count for run, count in self.calls)
        """Queries of each call: they lie one after another."""
        stretches = [
            run.keys if count == 1 else ((run.start, run.start + len(run) * count),)
            for run, count in self.calls
        ]
        edges = sorted({edge for call in stretches for stretch in call for edge in stretch})
        place = {edge: number for number, edge in enumerate(edges)}
        self.pieces = tuple(stop - start for start, stop in pairwise(edges))
        """Keys, cut wherever a stretch of some call begins or ends."""
        self.seen = tuple(
            tuple(slice(place[start], place[stop]) for start, stop in call) for call in stretches
        )
        """Of each call: which pieces it sees."""
        self.used = False
        """Whether an attention layer has asked."""
        self._masks: dict[tuple[int, int, int | None], Tensor | None] = {}
        self._ragged: Ragged | None = None

    def mask(self, run: Run, window: int | None) -> Tensor | None:
        """[Q, K] bool; None: plainly causal, as many keys as queries, no farther apart than ``window``."""
        queries, keys = len(run), run.key_count
        reach = window if window is not None and keys > window else None
        if queries == keys and reach is None:
            return None
        place = (queries, keys, reach)
        if place not in self._masks:
            sees = torch.ones(queries, keys, dtype=torch.bool, device=self.device).tril(keys - queries)
            if reach is not None:
                sees = sees.triu(keys - queries - reach + 1)
            self._masks[place] = sees
        return self._masks[place]

    @property
    def ragged(self) -> Ragged:
        """The same for a kernel that takes rows of any lengths."""
        if self._ragged is None:
            self._ragged = ragged(self.runs, self.device)
        return self._ragged


def attention_over_spans(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    spans: Sight,
    dropout: float = 0.0,
    scaling: float | None = None,
    sliding_window: int | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """[1, H, T, D] queries, keys and values of one row -> ([1, T, H, D], None), as transformers' own. The
    model's mask says nothing here.

    On a GPU in 16 bits one call of a kernel for ragged rows; else a call of scaled_dot_product_attention for
    each run, or for several of one length.

    Raises:
        ValueError: an argument that would change the scores in a way that isn't known here.
    """
    unknown = [name for name in ("softcap", "position_bias", "s_aux") if kwargs.get(name) is not None]
    if unknown:
        raise ValueError(f"attention over spans doesn't know {', '.join(unknown)}")
    if query.shape[0] != 1:
        raise ValueError(f"spans describe one row, not {query.shape[0]}")
    spans.used = True
    if not dropout and varlen_usable(query):
        return with_varlen(query, key, value, spans.ragged, scaling=scaling, window=sliding_window), None
    # split, as the gradient of a slice is as long as the row, once for every slice
    keys, values = (
        torch.split_with_sizes(key, spans.pieces, 2),
        torch.split_with_sizes(value, spans.pieces, 2),
    )
    parts = [
        sdpa_attention_forward(
            module,
            _rows(asking, count),
            _rows(_joined(keys, seen), count),
            _rows(_joined(values, seen), count),
            spans.mask(run, sliding_window),
            dropout=dropout,
            scaling=scaling,
            is_causal=True,
        )[0].reshape(1, len(run) * count, query.shape[1], -1)
        for (run, count), seen, asking in zip(
            spans.calls, spans.seen, torch.split_with_sizes(query, spans.asking, 2), strict=True
        )
    ]
    return (parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)), None


def _rows(stretch: Tensor, count: int) -> Tensor:
    """[1, H, count * L, D] -> [count, H, L, D], without a copy."""
    _, heads, tokens, width = stretch.shape
    return stretch.view(heads, count, tokens // count, width).transpose(0, 1)


def _joined(pieces: Sequence[Tensor], seen: Sequence[slice]) -> Tensor:
    """[1, H, K, D]: the pieces [1, H, k, D] that are seen, in order."""
    found = [piece for stretch in seen for piece in pieces[stretch]]
    return found[0] if len(found) == 1 else torch.cat(found, dim=2)


def configs_of(model: nn.Module) -> list[Any]:
    """Every config that a transformers model's layers read, sub-configs included, each once."""
    found: dict[int, Any] = {}

    def add(config: Any) -> None:
        if config is None or id(config) in found:
            return
        found[id(config)] = config
        for key in getattr(config, "sub_configs", ()):
            add(getattr(config, key, None))

    for part in model.modules():
        if isinstance(part, PreTrainedModel):
            add(part.config)
    return list(found.values())


def sees_spans(model: Any) -> bool:
    """Let a transformers model's attention be ours from now on, where it can be; whether it is.

    It can where the implementation is one that ours stands for and the model's code looks it up by name.
    Calls without spans then go where they went before. It stays so, because a backward pass that recomputes
    a layer looks the function up again.
    """
    if not hasattr(model, "config") or not hasattr(model, "_can_set_attn_implementation"):
        return False
    wanted = {getattr(config, "_attn_implementation", None) for config in configs_of(model)}
    if all(isinstance(name, str) and name.startswith(PREFIX) for name in wanted):
        return True
    parts = [part for part in model.modules() if isinstance(part, PreTrainedModel)]
    if not wanted <= _STANDS_FOR or not all(part._can_set_attn_implementation() for part in parts):
        return False
    for config in configs_of(model):
        config._attn_implementation_internal = _registered(config._attn_implementation)
    return True


def _registered(stands_for: str) -> str:
    """The name under which transformers finds our function, and its own masks for calls without spans."""
    name = PREFIX + stands_for
    if name not in AttentionInterface._global_mapping:
        own = ALL_ATTENTION_FUNCTIONS[stands_for]
        ALL_ATTENTION_FUNCTIONS.register(name, partial(_either, own))
        ALL_MASK_ATTENTION_FUNCTIONS.register(name, ALL_MASK_ATTENTION_FUNCTIONS[stands_for])
    return name


def _either(own: Any, *args: Any, spans: Sight | None = None, **kwargs: Any) -> Any:
    if spans is None:
        return own(*args, **kwargs)
    return attention_over_spans(*args, spans=spans, **kwargs)


@contextmanager
def as_computed(module: nn.Module, device: torch.device) -> Iterator[None]:
    """On a CPU a model whose attention needs a GPU uses sdpa inside the block: a model may be tried there
    before it moves.
    """
    configs = configs_of(module) if device.type == "cpu" else []
    needy = [one for one in configs if "flash" in str(getattr(one, "_attn_implementation", ""))]
    before = [one._attn_implementation_internal for one in needy]
    try:
        for one in needy:
            one._attn_implementation_internal = "sdpa"
        yield
    finally:
        for one, name in zip(needy, before, strict=True):
            one._attn_implementation_internal = name
