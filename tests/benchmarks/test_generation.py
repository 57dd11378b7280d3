"""What of a side's answers is counted, how they are compared, and every side on a small model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from benchmarks import generation
from benchmarks.generation import Told, Work


def test_an_answer_is_counted_up_to_its_end_and_without_what_a_batch_writes_behind_it():
    assert generation.ended([5, 6, 9, 0, 0], ends=(9, 8)) == [5, 6, 9]
    assert generation.ended([5, 6, 7], ends=(9,)) == [5, 6, 7]


def test_fixed_batches_are_alive_as_long_as_their_rows_write():
    """Lengths 4 and 1, then 3: 8 of the 2 * 4 + 3 steps of their rows are needed."""
    assert generation.alive([4, 1, 3], 2) == pytest.approx(8 / 11)
    assert generation.alive([3, 3, 3], 2) == 1.0


def test_a_peers_row_holds_the_ratio_of_medians_and_how_ragged_the_lengths_are():
    work = Work(prompts=[[1], [2]], limit=4, ends=(9,), pad=0, batch_size=2)
    told = {
        "ours": Told([10.0, 40.0, 30.0], [[1, 2, 9], [3]]),
        "theirs": Told([10.0, 10.0, 20.0], [[1, 2, 9], [4]]),
    }
    (row,) = generation.rows_of("case", work, told)
    assert (row["ours"], row["peer"], row["ratio"], row["met"]) == (30.0, 10.0, 3.0, True)
    assert (row["mean_length"], row["longest"], row["shortest"]) == (2, 3, 1)
    assert row["alive_in_fixed_batches"] == pytest.approx(4 / 6) and row["equal_answers"] == 0.5


def test_every_side_answers_a_small_model_alike(tmp_path: Path):
    """Greedy, all sides write the same tokens; drawn ones are others, of the same number of answers."""
    threads = torch.get_num_threads()
    words = ["--model", "tiny-llama", "--cases", "questions", "samples", "--prompts", "5", "--limit", "12"]
    words += ["--batch-size", "4", "--samples", "2", "--repetitions", "1", "--threads", str(threads)]
    told = json.loads(generation.main([*words, "--out", str(tmp_path)]).read_text())
    assert [row["case"].partition(",")[0] for row in told["rows"]] == ["questions"] * 2 + ["samples"] * 2
    assert [row["equal_answers"] for row in told["rows"]] == [1, 1, None, None]
    assert all(row["ours"] > 0 and row["peer"] > 0 and 1 <= row["longest"] <= 12 for row in told["rows"])
    assert told["settings"]["model"] == "tiny-llama"
