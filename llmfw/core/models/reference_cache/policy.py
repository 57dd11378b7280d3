"""The reference's façade once its log-probs are on disk: no model is kept for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from torch import Tensor

from llmfw.core.batch import Batch
from llmfw.core.errors import UsageError


class CachedPolicy:
    """Gives the log-probs that a batch carries; whatever else is asked of it needs the model, and is refused.

    Raises:
        UsageError: REFERENCE-CACHED, from any other question.
    """

    module: Any = None

    def __init__(self, tokenizer: Any = None) -> None:
        self.tokenizer = tokenizer
        self.companions: Mapping[str, Any] = {}
        self.auxiliary: Tensor | None = None

    def logps(self, batch: Batch) -> Tensor:
        """[N] float32, as the cache has them."""
        if batch.reference_logps is None:
            _refuse("log-probs of a batch that wasn't cached")
        return batch.reference_logps

    def hidden_states(self, batch: Batch, layer: int) -> Tensor:
        """Refused."""
        _refuse("hidden states")

    def generate(self, prompts: Sequence[Any], **sampling: Any) -> list[Any]:
        """Refused."""
        _refuse("answers")

    def embed(self, texts: Sequence[str]) -> Tensor:
        """Refused."""
        _refuse("embeddings")


def _refuse(what: str) -> NoReturn:
    raise UsageError(
        "REFERENCE-CACHED",
        f"the reference is asked for {what}, but only its log-probs are kept",
        mend="set trainer.reference=auto",
        key="trainer.reference",
    )
