"""Several processes over one cache: each example computed once; one that is killed loses one part at most."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from llmfw.core.models import ReferenceCache, reference_key
from llmfw.core.models.reference_cache import filling
from llmfw.core.models.reference_cache.parts import PATTERN, Part

pytestmark = pytest.mark.kill
BUDGET = 16
"""Positions: two of the forty pairs."""


@pytest.fixture
def begin(built, reference, collate, tmp_path: Path) -> Callable[..., Any]:
    """Starts a process that fills the cache and writes down the name of each sample it computes."""
    torch.set_num_threads(1)

    def work(name: str, samples: list[Any], seconds: float, pause: float) -> None:
        filling._SECONDS = seconds
        log = (tmp_path / name).open("a")

        def slow(batch: Any) -> torch.Tensor:
            time.sleep(pause)
            return reference.logps(batch)

        def noted(members: Any) -> Any:
            log.write("".join(f"{one.id}\n" for one in members))
            log.flush()
            return collate(members)

        ReferenceCache(reference_key(built), tmp_path).fill(samples, noted, slow, budget=BUDGET)

    def begin(name: str, samples: list[Any], *, seconds: float = 0.1, pause: float = 0.02) -> Any:
        process = multiprocessing.get_context("fork").Process(
            target=work, args=(name, samples, seconds, pause)
        )
        process.start()
        return process

    return begin


def names(tmp_path: Path, *logs: str) -> list[str]:
    return [
        line for log in logs if (tmp_path / log).exists() for line in (tmp_path / log).read_text().split()
    ]


def wait_for(what: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not what():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_two_processes_share_the_work_and_compute_each_example_once(
    begin, built, reference, many, collate, tmp_path
) -> None:
    """Each wants thirty of the forty pairs, twenty of them both."""
    both = [begin("one", many[:30]), begin("two", many[10:])]
    for process in both:
        process.join(120)
    assert [process.exitcode for process in both] == [0, 0]
    assert sorted(names(tmp_path, "one", "two")) == sorted(one.id for one in many)
    assert names(tmp_path, "one") and names(tmp_path, "two")
    cache = ReferenceCache(reference_key(built), tmp_path)
    assert len(cache) == 40
    torch.testing.assert_close(cache.lookup(many), reference.logps(collate(many)), rtol=0, atol=1e-5)


def test_four_processes_that_want_the_same_share_it_too(begin, many, tmp_path) -> None:
    four = [begin(str(number), many, pause=0.05) for number in range(4)]
    for process in four:
        process.join(120)
    assert [process.exitcode for process in four] == [0] * 4
    assert sorted(names(tmp_path, "0", "1", "2", "3")) == sorted(one.id for one in many)
    assert sum(bool(names(tmp_path, str(number))) for number in range(4)) >= 2


def test_a_kill_costs_one_part_and_the_others_take_over(
    begin, built, reference, many, collate, tmp_path
) -> None:
    """Killed with some parts on disk and a claim in hand, while another waits for just these examples."""
    killed = begin("killed", many, seconds=0.2, pause=0.03)
    folder = ReferenceCache(reference_key(built), tmp_path).folder
    wait_for(lambda: len(list(folder.glob(PATTERN))) >= 3)
    wait_for(lambda: bool(list((folder / ".claims").glob("*.keys"))))
    os.kill(killed.pid, signal.SIGKILL)
    killed.join()
    assert killed.exitcode == -signal.SIGKILL
    sizes = [len(Part(path).keys) for path in folder.glob(PATTERN)]
    lost = len(names(tmp_path, "killed")) - sum(sizes)
    claimed = sum(path.stat().st_size // 32 for path in (folder / ".claims").glob("*.keys"))
    assert 0 <= lost <= claimed < 40 - sum(sizes) + 1
    (folder / ".part-torn.safetensors.77.tmp").write_bytes(b"torn")
    second = begin("second", many, pause=0)
    second.join(120)
    assert second.exitcode == 0 and len(names(tmp_path, "second")) == 40 - sum(sizes)
    cache = ReferenceCache(reference_key(built), tmp_path)
    torch.testing.assert_close(cache.lookup(many), reference.logps(collate(many)), rtol=0, atol=1e-5)
    assert not list((folder / ".claims").iterdir())


def test_who_waits_for_a_claim_takes_it_over_when_its_owner_dies(begin, built, many, tmp_path) -> None:
    """One claims all and computes slowly; the other has nothing left to take, until the first is killed."""
    first = begin("first", many[:2], pause=60)
    wait_for(lambda: bool(names(tmp_path, "first")))
    second = begin("second", many[:2], pause=0)
    time.sleep(0.5)
    assert second.is_alive() and not names(tmp_path, "second")
    os.kill(first.pid, signal.SIGKILL)
    first.join()
    second.join(60)
    assert second.exitcode == 0 and sorted(names(tmp_path, "second")) == ["m0", "m1"]
    assert len(ReferenceCache(reference_key(built), tmp_path)) == 2
