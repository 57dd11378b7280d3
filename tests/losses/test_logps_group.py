"""A vocabulary shared out over processes: two and three ranks against one, in float64, in every gradient."""

from __future__ import annotations

import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from tests.losses.shards import CASES, CUTS, solve

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module", params=[2, 3])
def ranks(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> list[dict[str, Tensor]]:
    """What each rank saved."""
    world: int = request.param
    folder = tmp_path_factory.mktemp(f"world{world}")
    command = [sys.executable, "-m", "tests.losses.shards"]
    started = [
        subprocess.Popen(
            [*command, str(rank), str(world), str(folder)], cwd=ROOT, stderr=subprocess.PIPE, text=True
        )
        for rank in range(world)
    ]
    for process in started:
        _, said = process.communicate(timeout=300)
        assert process.returncode == 0, said
    return [load_file(folder / f"{rank}.safetensors") for rank in range(world)]


@pytest.mark.parametrize("name", list(CASES))
def test_shards_equal_the_whole(ranks: list[dict[str, Tensor]], name: str) -> None:
    """Log-probs and the gradients of states and A are the same everywhere, of the others shards."""
    want = solve(CASES[name], *CUTS[1], None)
    assert set(want) == {key.partition(".")[2] for key in ranks[0] if key.startswith(f"{name}.")}
    for kind, value in want.items():
        shards = [rank[f"{name}.{kind}"] for rank in ranks]
        if kind in ("logps", "hidden", "A"):
            for shard in shards:
                torch.testing.assert_close(shard, value, rtol=0, atol=1e-12)
        else:
            cuts = CUTS[len(ranks)]
            assert [len(shard) for shard in shards] == [b - a for a, b in pairwise(cuts)]
            torch.testing.assert_close(torch.cat(shards), value, rtol=0, atol=1e-12)


def test_a_target_that_is_nobodys_word_is_an_error_on_all_ranks(ranks: list[dict[str, Tensor]]) -> None:
    assert [int(rank["errors"]) for rank in ranks] == [2] * len(ranks)
