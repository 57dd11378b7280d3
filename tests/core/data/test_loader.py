"""The order of samples is a pure function of (seed, step), for any world size, worker count and restart."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llmfw.core.batch import Batch
from llmfw.core.data import Example, StepLoader, TokenSequence, collate_with, seeded, validation_batches
from llmfw.core.errors import DataError


def _examples(count: int) -> list[Example]:
    """Sample i has 2 + (7 i mod 11) tokens, all but the first trained."""
    made = []
    for number in range(count):
        size = 2 + 7 * number % 11
        sequence = TokenSequence(tuple(range(size)), (False, *[True] * (size - 1)))
        made.append(Example(id=f"s{number}", kind="text", sequences=(sequence,)))
    return made


def _loader(count: int = 23, **changed: Any) -> StepLoader:
    asked = {"micro_batch": 2, "accumulate": 3, "seed": 7, "max_steps": 12} | changed
    return StepLoader(_examples(count), collate_with(0), **asked)


def _ids(step: list[Batch]) -> list[tuple[str, ...]]:
    return [batch.sample_ids for batch in step]


@settings(max_examples=80, deadline=None)
@given(
    count=st.integers(1, 60),
    micro_batch=st.integers(1, 4),
    slots=st.sampled_from([1, 2, 4, 6]),
    seed=st.integers(0, 3),
    grouped=st.booleans(),
)
def test_every_sample_comes_once_an_epoch_and_any_world_sees_the_same_steps(
    count: int, micro_batch: int, slots: int, seed: int, grouped: bool
) -> None:
    """Global batch G = micro_batch * slots, dealt to 1, 2 or 4 processes where they divide the slots."""
    seen: dict[int, list[set[str]]] = {}
    for world in (1, 2, 4):
        if slots % world:
            continue
        loaders = [
            _loader(
                count, micro_batch=micro_batch, accumulate=slots // world, seed=seed, rank=rank, world=world,
                group_by_length=grouped, max_steps=10**6,
            )
            for rank in range(world)
        ]  # fmt: skip
        epoch = loaders[0].steps_per_epoch
        assert epoch == -(-count // (micro_batch * slots))
        for loader in loaders:
            loader.max_steps = 2 * epoch
        steps = list(zip(*loaders, strict=True))
        assert len(steps) == 2 * epoch
        seen[world] = []
        for ranks in steps:
            assert len({len(batches) for batches in ranks}) == 1  # else a collective would wait for ever
            assert 1 <= len(ranks[0]) <= slots // world
            sizes = [len(batch.sample_ids) for batches in ranks for batch in batches]
            assert max(sizes) <= micro_batch
            names = [name for batches in ranks for batch in batches for name in batch.sample_ids]
            assert len(names) == len(set(names))
            seen[world].append(set(names))
        for start in (0, epoch):
            once = [name for names in seen[world][start : start + epoch] for name in names]
            assert sorted(once) == sorted(example.id for example in _examples(count))
        sizes = [len(names) for names in seen[world]]
        assert max(sizes) - min(sizes) <= 1
    assert all(other == seen[1] for other in seen.values())


def test_a_restart_at_any_step_goes_on_as_if_nothing_had_happened() -> None:
    whole = [_ids(step) for step in _loader()]
    assert len(whole) == 12 and len({str(step) for step in whole}) == 12
    for start in range(13):
        assert [_ids(step) for step in _loader(start_step=start)] == whole[start:]
    interrupted = _loader()
    walk = iter(interrupted)
    for _ in range(4):  # step 4 is the first of the second epoch
        next(walk)
    state = json.loads(json.dumps(interrupted.state_dict()))
    assert state == {"step": 4}
    resumed = _loader()
    resumed.load_state_dict(state)
    assert [_ids(step) for step in resumed] == whole[4:]
    assert len(resumed) == 12 and list(resumed) == []


@pytest.mark.slow
def test_workers_change_nothing() -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    alone = list(_loader())
    helped = list(_loader(workers=2))
    assert [_ids(step) for step in alone] == [_ids(step) for step in helped]
    for one, other in zip(alone, helped, strict=True):
        assert all(
            torch.equal(left.input_ids, right.input_ids) for left, right in zip(one, other, strict=True)
        )
    assert torch.equal(before, torch.get_rng_state())  # nothing is drawn from the global generator


def test_seeds_and_epochs_shuffle_differently() -> None:
    def order(seed: int) -> list[str]:
        return [
            name
            for step in _loader(seed=seed, group_by_length=False)
            for batch in step
            for name in batch.sample_ids
        ]

    assert order(1) != order(2)
    assert order(1)[:23] != order(1)[23:46]
    assert sorted(order(1)[:23]) == sorted(order(1)[23:46])


def test_the_order_is_fixed_for_ever() -> None:
    """A golden value: were the hash or the rule to change, runs could no longer be resumed or compared."""
    names = [name for batch in next(iter(_loader(group_by_length=False))) for name in batch.sample_ids]
    assert names == GOLDEN


GOLDEN = ["s5", "s18", "s10", "s7", "s22", "s13"]


def test_grouping_by_length_saves_padding() -> None:
    def padded(grouped: bool) -> int:
        loader = _loader(400, accumulate=1, micro_batch=8, group_by_length=grouped, max_steps=50)
        return sum(batch.input_ids.numel() - batch.real_tokens for step in loader for batch in step)

    assert padded(True) < 0.35 * padded(False)


def test_a_plugins_order_replaces_shuffling_and_must_be_a_permutation() -> None:
    calls = []

    def longest_first(examples: list[Example], epoch: int) -> list[int]:
        calls.append(epoch)
        return sorted(
            range(len(examples)), key=lambda index: (-examples[index].length, index), reverse=bool(epoch)
        )

    loader = _loader(order=longest_first, max_steps=8)
    lengths = [size for step in loader for batch in step for size in (batch.length + 1).tolist()]
    assert lengths[:23] == sorted(lengths[:23], reverse=True) and lengths[23:] == sorted(lengths[23:])
    assert calls == [0, 1]
    for wrong in ([0] * 23, list(range(22)), list(range(1, 24))):
        with pytest.raises(DataError, match="no permutation"):
            next(iter(_loader(order=lambda examples, epoch, wrong=wrong: wrong)))


def test_three_samples_for_four_processes_leave_one_a_shadow() -> None:
    ranks = [
        next(iter(_loader(3, micro_batch=1, accumulate=1, rank=rank, world=4, max_steps=1)))
        for rank in range(4)
    ]
    assert sorted(len(batch.sample_ids) for step in ranks for batch in step) == [0, 1, 1, 1]
    empty = next(batch for step in ranks for batch in step if not batch.sample_ids)
    assert (empty.tokens, empty.segments, empty.input_ids.shape[0]) == (0, 0, 1)


def test_nothing_to_train_on_is_an_error_of_the_data() -> None:
    with pytest.raises(DataError, match="NO-SAMPLES"):
        _loader(0)


def test_random_numbers_of_a_batch_depend_on_its_samples_alone() -> None:
    random.seed(0)
    torch.manual_seed(0)
    states = random.getstate(), torch.get_rng_state()
    draws = []
    for parts in ((7, 0, "a"), (7, 0, "a"), (7, 1, "a"), (7, 0, "b")):
        with seeded(*parts):
            draws.append((random.random(), float(torch.rand(()))))
    assert draws[0] == draws[1] and len(set(draws)) == 3
    assert random.getstate() == states[0] and torch.equal(torch.get_rng_state(), states[1])


def test_validation_goes_through_the_samples_in_order() -> None:
    batches = validation_batches(_examples(7), collate_with(0), micro_batch=2, limit=5)
    assert _ids(batches) == [("s0", "s1"), ("s2", "s3"), ("s4",)]
    ranks = [
        validation_batches(_examples(5), collate_with(0), micro_batch=2, rank=rank, world=2)
        for rank in (0, 1)
    ]
    assert [_ids(batches) for batches in ranks] == [[("s0", "s1"), ("s3",)], [("s2",), ("s4",)]]
    assert len(ranks[0]) == len(ranks[1])
    assert validation_batches([], collate_with(0), micro_batch=2) == []


def test_batches_for_a_gpu_are_pinned_before_they_are_handed_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without workers the loader asks each batch for it; with workers torch's own thread does, which needs a
    GPU to be there.
    """
    asked: list[tuple[str, ...]] = []

    def pin_memory(batch: Batch) -> Batch:
        asked.append(batch.sample_ids)
        return batch

    monkeypatch.setattr(Batch, "pin_memory", pin_memory)
    steps = list(_loader(max_steps=2, pin=True))
    assert asked == [name for step in steps for name in _ids(step)] and len(asked) == 6
    list(_loader(max_steps=2))
    assert len(asked) == 6
    assert _loader(pin=True, workers=1)._workers(range(1)).pin_memory is True
    assert _loader(workers=1)._workers(range(1)).pin_memory is False


@pytest.mark.skipif(not torch.cuda.is_available(), reason="page-locked memory is the GPU driver's")
@pytest.mark.parametrize("workers", [0, 2])
def test_pinned_batches_hold_the_same_tokens(workers: int) -> None:
    found, wanted = list(_loader(pin=True, workers=workers)), list(_loader())
    assert all(batch.input_ids.is_pinned() and batch.target.is_pinned() for step in found for batch in step)
    assert [_ids(step) for step in found] == [_ids(step) for step in wanted]
    for step, other in zip(found, wanted, strict=True):
        assert all(a.input_ids.equal(b.input_ids) for a, b in zip(step, other, strict=True))
