from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from llmfw.core.errors import CheckpointError
from llmfw.core.models import ReferenceCache, build_model, reference_key, reference_of
from llmfw.core.models.reference_cache import example_key
from llmfw.core.schema import AdapterConfig

LORA = AdapterConfig(kind="lora", r=2)


@pytest.fixture
def pairs(sample):
    return [
        sample("p0", ((5, 9, 2, 31, 8), 3), ((5, 9, 7), 2)),
        sample("p1", ((4, 4), 1), ((4, 1, 1, 1), 1)),
        sample("p2", ((20, 21, 22, 23), 2), ((20, 30), 1)),
    ]


def test_cached_numbers_are_the_references_own_in_collates_order(tiny, pairs, collate, tmp_path) -> None:
    built = build_model(tiny(), LORA, seed=5)
    reference = reference_of(built)
    cache = ReferenceCache(reference_key(built), tmp_path)
    assert cache.fill(pairs, collate, reference.logps, batch_size=2) == 3
    for chosen in (pairs, pairs[1:], [pairs[2], pairs[0]]):
        got = cache.lookup(chosen)
        torch.testing.assert_close(got, reference.logps(collate(chosen)), rtol=0, atol=1e-5)
        assert got.dtype == torch.float32
        assert torch.equal(cache.attach(collate)(chosen).reference_logps, got)


def test_what_is_there_is_not_computed_again_also_by_another_process(tiny, pairs, collate, tmp_path) -> None:
    built = build_model(tiny(), LORA, seed=5)
    reference = reference_of(built)
    calls = []

    def counted(batch):
        calls.append(batch)
        return reference.logps(batch)

    first = ReferenceCache(reference_key(built), tmp_path)
    assert first.fill(pairs[:2], collate, counted) == 2
    second = ReferenceCache(reference_key(built), tmp_path)
    assert len(second) == 2 and second.missing(pairs) == [pairs[2]]
    assert second.fill(pairs, collate, counted, batch_size=1) == 1
    assert second.fill(pairs, collate, counted) == 0 and len(calls) == 2
    assert first.lookup(pairs) is None
    assert first.fill(pairs, collate, counted) == 0 or first.lookup(pairs) is not None


def test_a_kill_between_files_loses_only_what_was_not_written(
    tiny, pairs, collate, tmp_path, monkeypatch
) -> None:
    from llmfw.core.models import reference_cache

    monkeypatch.setattr(reference_cache, "_FLUSH", 1)
    built = build_model(tiny(), LORA, seed=5)
    reference = reference_of(built)
    cache = ReferenceCache(reference_key(built), tmp_path)

    def dies(batch):
        if len(list(cache.folder.glob("part-*"))) == 2:
            raise KeyboardInterrupt
        return reference.logps(batch)

    with pytest.raises(KeyboardInterrupt):
        cache.fill(pairs, collate, dies, batch_size=1)
    (cache.folder / ".part-000002.safetensors.77.tmp").write_bytes(b"torn")
    again = ReferenceCache(reference_key(built), tmp_path)
    assert len(again) == 2 and again.fill(pairs, collate, reference.logps, batch_size=1) == 1
    assert again.lookup(pairs) is not None


def test_the_same_tokens_under_another_id_or_mask_are_told_apart_by_content(sample) -> None:
    one = sample("a", ((1, 2, 3), 1), ((1, 4), 1))
    assert example_key(one) == example_key(replace(one, id="b"))
    assert example_key(one) != example_key(sample("a", ((1, 2, 3), 2), ((1, 4), 1)))
    assert example_key(one) != example_key(sample("a", ((1, 2), 1), ((3, 1, 4), 1)))
    assert example_key(one) != example_key(sample("a", ((1, 4), 1), ((1, 2, 3), 1)))
    assert example_key(one, ["n"]) != example_key(replace(one, extra={"n": 2}), ["n"])


@pytest.mark.parametrize(
    "change", [{"seed": 6}, {"dtype": "bfloat16"}, {"attention": "eager"}, {"precision": "bf16-mixed"}]
)
def test_the_folder_depends_on_weights_dtype_attention_and_precision(tiny, tmp_path, change) -> None:
    plain = reference_key(build_model(tiny(), LORA, seed=5))
    model = replace(tiny(), **{key: change[key] for key in change.keys() & {"dtype", "attention"}})
    other = reference_key(
        build_model(model, LORA, seed=change.get("seed", 5)), precision=change.get("precision", "32-true")
    )
    assert ReferenceCache(plain, tmp_path).folder != ReferenceCache(other, tmp_path).folder
    assert (
        ReferenceCache(plain, tmp_path).folder
        == ReferenceCache(json.loads(json.dumps(plain)), tmp_path).folder
    )


def test_adapter_settings_are_no_part_of_the_key_so_a_sweep_shares_one_cache(tiny) -> None:
    assert reference_key(build_model(tiny(), LORA, seed=5)) == reference_key(
        build_model(tiny(), replace(LORA, r=7, dropout=0.1), seed=5)
    )


def test_the_key_can_be_read_by_people_and_is_checked(tiny, tmp_path) -> None:
    key = reference_key(build_model(tiny(), LORA, seed=5))
    cache = ReferenceCache(key, tmp_path)
    note = cache.folder / "key.json"
    said = json.loads(note.read_text())
    assert said == key and {"base_hash", "dtype", "attention", "precision", "surgeries"} <= said.keys()
    note.write_text(json.dumps(said | {"dtype": "other"}))
    with pytest.raises(CheckpointError, match=r"CACHE-KEY"):
        ReferenceCache(key, tmp_path)


def test_damaged_numbers_are_one_line_and_an_unknown_example_is_named(tiny, pairs, collate, tmp_path) -> None:
    built = build_model(tiny(), LORA, seed=5)
    cache = ReferenceCache(reference_key(built), tmp_path)
    cache.fill(pairs[:1], collate, reference_of(built).logps)
    with pytest.raises(CheckpointError, match=r"CACHE-MISS.*p0, p1"):
        cache.attach(collate)(pairs[:2])
    part = next(cache.folder.glob("part-*"))
    part.write_bytes(part.read_bytes()[:-2])
    with pytest.raises(CheckpointError, match=r"CACHE-DAMAGED.*delete the file"):
        ReferenceCache(reference_key(built), tmp_path)
