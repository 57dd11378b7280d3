"""Every place where a plugin may speak, in the order in which a run reaches it. This page is the contract.

The name tells the cardinality: a singular noun has one owner (two are a conflict), a plural noun takes many
    answers.
Build hooks return records (``llmfw.core.records``) and must be pure: no weights, no files, no random numbers,
so that the plan exists before anything is loaded. Returning None means: nothing to say.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import pluggy

if TYPE_CHECKING:
    from lightning.pytorch import Callback

    from llmfw.core import records as r
    from llmfw.core.run import Run

PROJECT = "llmfw"
API_VERSION = 1
"""Raised when a hook's meaning changes; a plugin's card names the range it was written for."""

hookimpl = pluggy.HookimplMarker(PROJECT)
_mark = pluggy.HookspecMarker(PROJECT)
Cardinality = Literal["one", "many"]
CARDINALITY: dict[str, Cardinality] = {}
_F = TypeVar("_F", bound=Callable[..., Any])


def _spec(cardinality: Cardinality) -> Callable[[_F], _F]:
    def declare(function: _F) -> _F:
        CARDINALITY[function.__name__] = cardinality
        return _mark(function)

    return declare


one, many = _spec("one"), _spec("many")


@many
def llmfw_commands() -> Sequence[r.Command] | None:
    """Verbs of the command line. The card's ``commands`` table must name them, so that ``llmfw --help``
    imports nothing.
    """


@many
def llmfw_services(run: Run) -> Sequence[r.Service] | None:
    """Objects that other plugins and the core ask for by protocol: executors, verifiers, rewards, raters,
    scorers.
    """


@one
def llmfw_datamodule(run: Run, tokenizer: Any) -> Any | None:
    """The source of rows: a ``llmfw.DataModule`` (write ``rows(split)`` only), or a bare LightningDataModule
    (resume class C).
    """


@many
def llmfw_dataset_transforms(run: Run, tokenizer: Any) -> Sequence[r.DatasetTransform] | None:
    """Steps of the data path, over rows, tokenised examples, packed units, or their order."""


@one
def llmfw_sampler(run: Run) -> r.RolloutSampler | None:
    """Self-generated data: turns ``fit`` into rounds of sampling and training."""


@many
def llmfw_surgeries(run: Run, model_config: Any) -> Sequence[r.Surgery] | None:
    """Changes of the architecture."""


@one
def llmfw_loss(run: Run, tokenizer: Any, model_config: Any) -> r.Loss | None:
    """The training loss; by default the cross entropy of a causal language model."""


@many
def llmfw_evaluations(run: Run) -> Sequence[r.Evaluation] | None:
    """Measurements of the policy before, during or after training; by default the held-out loss, and what the
    ``evaluation`` settings name.
    """


@many
def llmfw_metrics(run: Run, stage: Literal["train", "validation"]) -> Sequence[r.NamedMetric] | None:
    """Metrics of a stage beyond those that the loss returns itself."""


@many
def llmfw_callbacks(run: Run) -> Sequence[Callback] | None:
    """Lightning callbacks; their state must be json or tensors."""


@one
def llmfw_kv_cache(run: Run, model_config: Any) -> r.CacheFactory | None:
    """The key-value cache of generation; by default transformers' own."""


@one
def llmfw_decoder(run: Run, model_config: Any) -> r.Decoder | None:
    """The way tokens are generated; by default one token at a time from the model's own distribution."""
