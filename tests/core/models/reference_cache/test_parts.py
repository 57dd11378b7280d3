"""The files of a cache: mapped, not read; whole; damage is one line."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from llmfw.core.errors import CheckpointError
from llmfw.core.models import ReferenceCache
from llmfw.core.models.reference_cache.parts import PATTERN, Part, write_part


def entry(number: int, *lengths: int) -> tuple[bytes, list[torch.Tensor]]:
    return bytes([number]) * 32, [torch.full((length,), float(number)) for length in lengths]


def resident(path: Path) -> tuple[int, int]:
    """(bytes of this process's mapping of a file that are in memory, those of them that are its own copy)."""
    rss = own = 0
    inside = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        word = line.split()[0]
        if not word.endswith(":"):
            inside = line.endswith(str(path))
        elif inside and word in ("Rss:", "Anonymous:"):
            size = int(line.split()[1]) * 1024
            rss, own = (rss + size, own) if word == "Rss:" else (rss, own + size)
    return rss, own


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel tells of mappings under /proc only on Linux")
def test_a_lookup_reads_what_it_needs_and_not_the_file(tmp_path: Path) -> None:
    """64 entries of 400,000 numbers are 102 MB: one of them is 1/64 of it, but the kernel maps what it holds
    of the file in pieces of 2 MB. All of them are the control.
    """
    path = write_part(tmp_path, [entry(number, 300_000, 100_000) for number in range(64)])
    part = Part(path)
    assert [float(one[0]) for one in part.numbers(33)] == [33.0, 33.0]
    rss, own = resident(path)
    assert 0 < rss < path.stat().st_size * 0.1 and own == 0
    for row in range(64):
        assert all(bool((one == row).all()) for one in part.numbers(row))
    rss, own = resident(path)
    assert rss > path.stat().st_size * 0.9 and own == 0


def test_numbers_come_back_sequence_by_sequence_also_where_nothing_is_trained(tmp_path: Path) -> None:
    part = Part(write_part(tmp_path, [entry(1, 3, 0), entry(2, 0, 0), entry(3, 2)]))
    assert part.keys == [bytes([n]) * 32 for n in (1, 2, 3)]
    assert [one.tolist() for one in part.numbers(0)] == [[1.0] * 3, []]
    assert [one.tolist() for one in part.numbers(1)] == [[], []]
    assert [one.tolist() for one in part.numbers(2)] == [[3.0, 3.0]]


def test_equal_entries_become_one_file(tmp_path: Path) -> None:
    assert write_part(tmp_path, [entry(1, 3)]) == write_part(tmp_path, [entry(1, 3)])
    write_part(tmp_path, [entry(2, 3)])
    assert len(list(tmp_path.glob(PATTERN))) == 2


@pytest.mark.parametrize("damage", ["cut", "empty", "text", "index bit", "missing index"])
def test_a_damaged_part_is_one_line_that_names_it(tmp_path: Path, damage: str) -> None:
    path = write_part(tmp_path, [entry(1, 3), entry(2, 4)])
    raw = bytearray(path.read_bytes())
    if damage == "cut":
        raw = raw[:-2]
    elif damage == "empty":
        raw = bytearray()
    elif damage == "text":
        raw = bytearray(b"<html>not found</html>")
    elif damage == "index bit":
        raw[raw.index(bytes([2]) * 32)] ^= 1
    else:
        raw = bytearray(bytes(raw).replace(b'"index"', b'"xedni"'))
    path.write_bytes(raw)
    with pytest.raises(CheckpointError) as caught:
        Part(path)
    assert str(caught.value).startswith(f"error[CACHE-DAMAGED] {path}: ")
    assert "delete the file: its numbers are computed again" in str(caught.value)
    assert "\n" not in str(caught.value) and caught.value.exit_code == 5


def test_a_flipped_bit_in_a_number_is_found_when_it_is_looked_up(tmp_path: Path) -> None:
    """1.0 is 00 00 80 3f; the four of entry 2 begin after entry 1's."""
    path = write_part(tmp_path, [entry(1, 3), entry(2, 4)])
    raw = bytearray(path.read_bytes())
    raw[raw.index(torch.full((4,), 2.0).numpy().tobytes()) + 1] ^= 64
    path.write_bytes(raw)
    part = Part(path)
    assert [one.tolist() for one in part.numbers(0)] == [[1.0] * 3]
    with pytest.raises(CheckpointError, match=rf"CACHE-DAMAGED.*{path.name}"):
        part.numbers(1)


def test_without_the_damaged_part_its_entries_are_missing_and_no_others(
    built, reference, pairs, collate, tmp_path
) -> None:
    from llmfw.core.models import reference_key

    cache = ReferenceCache(reference_key(built), tmp_path)
    cache.fill(pairs[:1], collate, reference.logps)
    cache.fill(pairs, collate, reference.logps)
    whole = cache.lookup(pairs)
    first = next(path for path in cache.folder.glob(PATTERN) if len(Part(path).keys) == 1)
    first.write_bytes(b"torn")  # no mapping of it is looked at from here on
    with pytest.raises(CheckpointError, match=rf"CACHE-DAMAGED.*{first.name}"):
        ReferenceCache(reference_key(built), tmp_path)
    first.unlink()
    again = ReferenceCache(reference_key(built), tmp_path)
    assert again.missing(pairs) == pairs[:1]
    again.fill(pairs, collate, reference.logps)
    assert torch.equal(again.lookup(pairs), whole)
