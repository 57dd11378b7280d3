"""Columns that stand ready, rows that replace others, columns that go: numbers small enough to look at."""

from __future__ import annotations

import pytest
import torch

from llmfw.core.generation.columns import Columns


@pytest.fixture
def held() -> Columns:
    """Two rows over three columns, row 0 of three tokens, row 1 of two; four columns are spare."""
    cache = Columns(layers=1, rows=2, spare=4)
    past = cache.reading([0, 1], [0, 1], 3, torch.device("cpu"))
    states = torch.tensor([[1.0, 2, 3], [0, 4, 5]])[:, None, :, None]
    past.update(states, -states, 0)
    cache.trim(3)
    return cache


def test_a_step_writes_into_spare_columns_and_moves_only_when_there_are_none(held: Columns):
    (layer,) = held.columns
    buffer = layer.buffers[0]
    for number in range(4):
        keys, _ = held.update(torch.full((2, 1, 1, 1), 6.0 + number), torch.zeros(2, 1, 1, 1), 0)
    assert layer.buffers[0] is buffer and keys[0, 0, :, 0].tolist() == [1, 2, 3, 6, 7, 8, 9]
    held.trim(5)
    keys, _ = held.update(torch.full((2, 1, 1, 1), 10.0), torch.zeros(2, 1, 1, 1), 0)
    assert layer.buffers[0] is not buffer and layer.buffers[0].shape == (2, 1, 9, 1)
    assert keys[:, 0, :, 0].tolist() == [[3, 6, 7, 8, 9, 10], [5, 6, 7, 8, 9, 10]]


def test_nothing_is_left_of_the_row_that_a_prompt_replaces(held: Columns):
    """NaN times 0 is NaN: attention's mask alone would not keep it out."""
    held.columns[0].buffers[0][0] = torch.nan
    past = held.reading([0], [0], 2, torch.device("cpu"))
    past.update(torch.tensor([8.0, 9])[None, None, :, None], torch.zeros(1, 1, 2, 1), 0)
    assert held.layers[0].keys[:, 0, :, 0].tolist() == [[0, 8, 9], [0, 4, 5]]


def test_a_row_is_repeated_from_its_prompt_alone(held: Columns):
    """Row 1 began with 4, the 5 is an answer's token: row 0 becomes a second row of the prompt 4."""
    held.repeat(1, held=2, length=1, into=[0])
    assert held.layers[0].keys[:, 0, :, 0].tolist() == [[0, 0, 4], [0, 4, 5]]


def test_dropped_rows_free_their_memory(held: Columns):
    held.batch_select_indices(torch.tensor([1]))
    assert held.columns[0].buffers[0].shape == (1, 1, 7, 1)
    keys, _ = held.update(torch.full((1, 1, 1, 1), 6.0), torch.zeros(1, 1, 1, 1), 0)
    assert keys[0, 0, :, 0].tolist() == [0, 4, 5, 6] and held.get_seq_length() == 4


def test_a_prompt_longer_than_all_columns_makes_room_in_front(held: Columns):
    past = held.reading([0], [0], 5, torch.device("cpu"))
    past.update(torch.arange(5.0)[None, None, :, None], torch.zeros(1, 1, 5, 1), 0)
    assert held.layers[0].keys[:, 0, :, 0].tolist() == [[0, 1, 2, 3, 4], [0, 0, 0, 4, 5]]
