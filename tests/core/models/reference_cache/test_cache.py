"""The cache as its users see it: the reference's own numbers, in order, computed once."""

from __future__ import annotations

import json
from functools import partial
from multiprocessing.reduction import ForkingPickler

import pytest
import torch

from llmfw.core.errors import CheckpointError, NumericsError
from llmfw.core.models import ReferenceCache, reference_key


def test_cached_numbers_are_the_references_own_in_collates_order(
    built, reference, pairs, collate, tmp_path
) -> None:
    cache = ReferenceCache(reference_key(built), tmp_path)
    filled = cache.fill(pairs, collate, reference.logps, budget=16)
    assert (filled.samples, filled.tokens) == (3, 8 + 6 + 6) and filled.seconds > 0
    for chosen in (pairs, pairs[1:], [pairs[2], pairs[0]]):
        got = cache.lookup(chosen)
        torch.testing.assert_close(got, reference.logps(collate(chosen)), rtol=0, atol=1e-5)
        assert got.dtype == torch.float32 and not got.is_inference()
        assert torch.equal(cache.attach(collate)(chosen).reference_logps, got)


def test_what_is_there_is_not_computed_again(built, reference, pairs, collate, tmp_path) -> None:
    calls = []

    def counted(batch):
        calls.append(batch)
        return reference.logps(batch)

    first = ReferenceCache(reference_key(built), tmp_path)
    assert first.fill(pairs[:2], collate, counted).samples == 2
    second = ReferenceCache(reference_key(built), tmp_path)
    assert len(second) == 2 and second.missing(pairs) == [pairs[2]] and pairs[1] in second
    assert second.fill(pairs, collate, counted).samples == 1
    assert second.fill(pairs, collate, counted).samples == 0 and len(calls) == 2
    assert first.lookup(pairs) is None
    assert first.fill(pairs, collate, counted).samples == 0 and len(calls) == 2
    assert first.lookup(pairs) is not None


def test_the_pass_runs_in_inference_mode_and_what_comes_of_it_may_enter_a_graph(
    built, reference, pairs, collate, tmp_path
) -> None:
    seen = []

    def watched(batch):
        seen.append(torch.is_inference_mode_enabled())
        return reference.logps(batch)

    cache = ReferenceCache(reference_key(built), tmp_path)
    cache.fill(pairs, collate, watched)
    assert seen and all(seen)
    weight = torch.ones(10, requires_grad=True)
    (weight * cache.attach(collate)(pairs).reference_logps).sum().backward()
    assert torch.equal(weight.grad, cache.lookup(pairs))


def test_a_batch_builder_goes_to_another_process_with_its_cache(
    built, reference, pairs, collate, tmp_path
) -> None:
    cache = ReferenceCache(reference_key(built), tmp_path)
    cache.fill(pairs, collate, reference.logps)
    attached = ForkingPickler.loads(ForkingPickler.dumps(cache.attach(partial(len))))
    assert torch.equal(attached._cache.lookup(pairs), cache.lookup(pairs))
    assert attached.fills_reference


def test_the_key_can_be_read_by_people_and_is_checked(built, tmp_path) -> None:
    key = reference_key(built)
    cache = ReferenceCache(key, tmp_path, about={"model": "tiny"})
    note = cache.folder / "key.json"
    said = json.loads(note.read_text())
    assert said == {"key": key, "about": {"model": "tiny"}}
    note.write_text(json.dumps({**said, "key": {**key, "dtype": "other"}}))
    with pytest.raises(CheckpointError, match=r"CACHE-KEY"):
        ReferenceCache(key, tmp_path)


def test_an_unknown_example_is_named(built, reference, pairs, collate, tmp_path) -> None:
    cache = ReferenceCache(reference_key(built), tmp_path)
    cache.fill(pairs[:1], collate, reference.logps)
    with pytest.raises(CheckpointError, match=r"CACHE-MISS.*p0, p1"):
        cache.attach(collate)(pairs[:2])


def test_a_log_prob_that_is_no_number_is_never_kept(built, pairs, collate, tmp_path) -> None:
    cache = ReferenceCache(reference_key(built), tmp_path)
    with pytest.raises(NumericsError, match=r"REFERENCE-NAN.*p0"):
        cache.fill(pairs[:1], collate, lambda batch: torch.full((3,), float("nan")))
    assert len(ReferenceCache(reference_key(built), tmp_path)) == 0


def test_a_cache_that_can_only_be_read_serves(built, reference, pairs, collate, tmp_path) -> None:
    filled = ReferenceCache(reference_key(built), tmp_path)
    filled.fill(pairs, collate, reference.logps)
    before = sorted(filled.folder.rglob("*"))
    for path in before:
        path.chmod(0o444)
    filled.folder.chmod(0o555)
    try:
        cache = ReferenceCache(reference_key(built), tmp_path)
        assert cache.fill(pairs, collate, reference.logps).samples == 0
        assert torch.equal(cache.lookup(pairs), filled.lookup(pairs))
    finally:
        filled.folder.chmod(0o755)
    assert sorted(filled.folder.rglob("*")) == before
