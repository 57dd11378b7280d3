"""Blocks of a stream that worker processes tokenise, in the order in which one process would."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from llmfw.core.data.stream import Block, SourceStream


class _Blocks(IterableDataset[Block]):
    def __init__(self, stream: SourceStream, start: tuple[int, int]) -> None:
        self.stream, self.start = stream, start

    def __iter__(self) -> Iterator[Block]:
        info = get_worker_info()
        assert info is not None
        return self.stream.blocks(self.start, info.id, info.num_workers)


def blocks_by_workers(stream: SourceStream, start: tuple[int, int], workers: int) -> Iterator[Block]:
    """The blocks from ``start`` on: worker k of n tokenises blocks k, k + n, ..., and they come in turn."""
    loader: DataLoader[Any] = DataLoader(
        _Blocks(stream, start),
        batch_size=None,
        num_workers=workers,
        collate_fn=_as_is,
        generator=torch.Generator().manual_seed(stream.settings.seed),
        worker_init_fn=_one_thread,
    )
    return iter(loader)


def _as_is(block: Any) -> Any:
    return block


def _one_thread(worker: int) -> None:
    torch.set_num_threads(1)
