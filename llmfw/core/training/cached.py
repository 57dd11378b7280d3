"""Why a run's reference log-probs would be found in the cache, or not; nothing is computed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from llmfw.core.assemble import Assembled
from llmfw.core.cache.entries import Entry, entries, read_key
from llmfw.core.data import prepare
from llmfw.core.errors import UsageError
from llmfw.core.models import build_model
from llmfw.core.policies import surgeries_of
from llmfw.core.training.references import cache_of, needed
from llmfw.core.training.train import Job, sample_ids, total_steps


@dataclass(frozen=True, kw_only=True)
class Explained:
    """The cache that a run would use."""

    name: str
    """Of its folder, which needn't exist."""
    key: Mapping[str, Any]
    model: str
    exists: bool
    needed: int | None
    """Samples whose log-probs the run asks for; None: rounds make their own."""
    missing: int | None
    """Those that would be computed."""
    tokens: int
    """Tokens of the missing ones."""
    nearest: Entry | None = None
    """Where it doesn't exist: the cache whose key differs in the fewest parts."""
    differs: Mapping[str, tuple[Any, Any]] | None = None
    """The parts of the key that differ there: name -> (this run's, that cache's)."""


def explain(assembled: Assembled) -> Explained:
    """What the run's reference is cached under. Reads the data and the weights, as the run itself would.

    Raises:
        UsageError: NO-REFERENCE, the run's loss asks for no reference.
    """
    root = assembled.run.config
    loss = assembled.plan.one("llmfw_loss")
    if not loss.needs_reference:
        raise UsageError(
            "NO-REFERENCE", f"the loss {loss.name!r} asks for no reference, so nothing of it is cached",
            mend="name a plugin whose loss compares with a reference (llmfw plugins lists them)",
        )  # fmt: skip
    source, tokenizer = assembled.settled.source, assembled.tokenizer
    built = build_model(source, root.adapter, surgeries_of(assembled), root.seed, tokenizer=tokenizer)
    there = {entry.name: entry for entry in _caches()}
    cache = cache_of(assembled, built, make=False)
    name = cache.folder.name
    examples = _examples(assembled)
    missing = None if examples is None else cache.missing(examples)
    tokens = sum(len(one.ids) for example in missing or () for one in example.sequences)
    nearest, differs = (None, None) if name in there else _nearest(cache.key, list(there.values()))
    return Explained(
        name=name,
        key=cache.key,
        model=built.model.name,
        exists=name in there,
        needed=None if examples is None else len(examples),
        missing=None if missing is None else len(missing),
        tokens=tokens,
        nearest=nearest,
        differs=differs,
    )


def _examples(assembled: Assembled) -> list[Any] | None:
    """The examples whose log-probs the run asks for; None where a sampler's rounds make them."""
    if assembled.plan.one("llmfw_sampler") is not None:
        return None
    source = assembled.plan.one("llmfw_datamodule")
    prepared = prepare(
        assembled.run.config, assembled.tokenizer, assembled.transforms, source, assembled.sides
    )
    nobody = cast(Any, None)  # a run's folder and its signals: nothing is run here
    job = Job(
        assembled=assembled,
        prepared=prepared,
        session=nobody,
        source=assembled.settled.source,
        at_start=lambda module: None,
        watch=nobody,
    )
    limit = assembled.run.config.trainer.validation_limit
    return needed(prepared, sample_ids(job, total_steps(job)), limit)


def _caches() -> list[Entry]:
    return [entry for entry in entries() if entry.kind == "reference"]


def _nearest(
    key: Mapping[str, Any], there: list[Entry]
) -> tuple[Entry | None, Mapping[str, tuple[Any, Any]] | None]:
    found: list[tuple[int, float, Entry, Mapping[str, tuple[Any, Any]]]] = []
    for entry in there:
        other, _ = read_key(entry.paths[0])
        parts = {
            part: (key.get(part), other.get(part))
            for part in dict.fromkeys((*key, *other))
            if key.get(part) != other.get(part)
        }
        if other:
            found.append((len(parts), -entry.used, entry, parts))
    if not found:
        return None, None
    best = min(found, key=lambda one: one[:2])
    return best[2], best[3]
