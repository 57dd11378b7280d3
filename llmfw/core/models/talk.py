"""Keeps libraries from talking over our own output while they load, save and wrap models."""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def waiting(description: str) -> Iterator[Callable[[str], None]]:
    """A bar on the terminal while the block runs; gives a function that changes what it says."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(file=sys.stderr), transient=False) as progress:
        task = progress.add_task(description, total=None)
        yield lambda text: progress.update(task, description=text)
        progress.update(task, total=1, completed=1)


_HANDLED = ("`tie_word_embeddings=True` and a tied layer", "fan_in_fan_out is set to")
"""What PEFT warns of and we see to: a merge parts ties; the layer's type tells which way round it is."""


@contextmanager
def quiet() -> Iterator[None]:
    """No progress bars of transformers and no notes that are meant for their own developers, within the
    block.
    """
    from transformers.utils import logging as bars

    talk: Any = bars
    shown = talk.is_progress_bar_enabled()
    kernels = logging.getLogger("bitsandbytes.backends.cpu.ops")
    level = kernels.level
    # on processors with AVX512-BF16 it would fetch a kernel from the hub, and complains where it can't
    kernels.setLevel(logging.ERROR)
    talk.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*", category=FutureWarning)
            for said in _HANDLED:
                warnings.filterwarnings("ignore", message=f".*{said}.*", category=UserWarning)
            yield
    finally:
        kernels.setLevel(level)
        if shown:
            talk.enable_progress_bar()
