"""What a row becomes: token sequences with a mask of the trained tokens. Torch-free, so that workers and
caches stay light.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Number = int | float
Extra = Number | tuple[Number, ...] | tuple[tuple[float, ...], ...]
"""One number, one per sequence, or for each sequence one per trained token."""
ExampleKind = Literal["text", "preference", "scored"]


@dataclass(frozen=True, slots=True)
class TokenSequence:
    """Token ids, and for each whether it's trained. The first token is never trained: nothing predicts it.

    Of an encoder-decoder ``ids`` are the decoder's row; ``encoder`` is what its encoder reads, else empty.
    """

    ids: tuple[int, ...]
    trained: tuple[bool, ...]
    encoder: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not self.ids or len(self.ids) != len(self.trained):
            raise ValueError(
                f"{len(self.ids)} ids and {len(self.trained)} flags; need as many, and at least one"
            )
        if self.trained[0]:
            raise ValueError("the first token of a sequence can't be trained: no position precedes it")

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def tokens(self) -> int:
        """Tokens of both sides."""
        return len(self.ids) + len(self.encoder)

    @property
    def trained_ids(self) -> tuple[int, ...]:
        """The trained tokens, in order."""
        return tuple(token for token, flag in zip(self.ids, self.trained, strict=True) if flag)


@dataclass(frozen=True, slots=True)
class Example:
    """One sample, tokenised.

    ``sequences``: a preference has two, chosen and rejected; a text or scored sample has one; a packed unit
    has one per member, and ``members`` holds their ids. ``extra`` maps a name to one number, to a tuple with
    one number per sequence (``prompt_length``: tokens before the first trained one), or to a tuple with, per
    sequence, a tuple of one number per trained token (``old_logps``).
    """

    id: str
    kind: ExampleKind
    sequences: tuple[TokenSequence, ...]
    extra: Mapping[str, Extra] = field(default_factory=dict)
    members: tuple[str, ...] = ()
    source: str = ""
    """Which source of a mixture it is of; empty without one."""

    def __post_init__(self) -> None:
        wanted = 2 if self.kind == "preference" else len(self.members) or 1
        if len(self.sequences) != wanted:
            raise ValueError(
                f"example {self.id}: {len(self.sequences)} sequences; a {self.kind} sample has {wanted}"
            )

    @property
    def packed(self) -> bool:
        """Whether several samples share one row."""
        return bool(self.members)

    @property
    def sample_ids(self) -> tuple[str, ...]:
        """The ids of the samples inside."""
        return self.members or (self.id,)

    @property
    def length(self) -> int:
        """Positions of the longest row that this example needs (of either side), tokens."""
        lengths = [max(len(sequence), len(sequence.encoder)) for sequence in self.sequences]
        return sum(lengths) if self.packed else max(lengths)

    @property
    def trained_lengths(self) -> tuple[int, ...]:
        """Trained tokens of each sequence."""
        return tuple(sum(sequence.trained) for sequence in self.sequences)
