"""``llmfw sandbox serve`` and ``batch``: many programs, for other processes and from files."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, NoReturn

import click

if TYPE_CHECKING:
    from .batch import Progress
    from .pool import Runs

_EVERY = 10.0
"""Seconds between two lines of progress where nobody watches."""


def service_commands(
    sandbox_options: Callable[[Callable[..., Any]], Callable[..., Any]],
) -> list[click.Command]:
    """The commands, with the options that say how programs are held (level, binds, phrase)."""
    return [click.command("serve")(_serve_options(sandbox_options(serve))),
            click.command("batch")(_batch_options(sandbox_options(batch)))]  # fmt: skip


def _options(*options: Callable[..., Any]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def add(function: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            function = option(function)
        return function

    return add


_cache_options = _options(
    click.option(
        "--cache/--no-cache", "cache", default=False, show_default=True,
        help="Keep results on disk, and take them from there.",
    ),
    click.option(
        "--cache-folder", type=click.Path(file_okay=False, path_type=Path),
        help="Where. [default: $LLMFW_SANDBOX_CACHE, or llmfw's cache]",
    ),
)  # fmt: skip
_jobs = click.option(
    "--jobs", type=click.IntRange(1), help="Programs at once. [default: the processors less one]"
)
_serve_options = _options(
    click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen at."),
    click.option(
        "--port", type=click.IntRange(0, 65535), default=8020, show_default=True, help="0: a free one."
    ),
    _jobs,
    click.option("--waiting", type=click.IntRange(0), help="Programs that may wait. [default: four a job]"),
    click.option(
        "--token-file", type=click.Path(dir_okay=False, path_type=Path),
        help="A file with the token that clients must send. [default: $LLMFW_SANDBOX_TOKEN]",
    ),
    click.option(
        "--most-seconds", type=click.FloatRange(min=0, min_open=True), default=600.0, show_default=True,
        help="CPU time that a request may ask for, s; six times that of wall time.",
    ),
    click.option(
        "--most-memory", type=click.IntRange(1), default=1 << 16, show_default=True,
        help="MiB that a request may ask for.",
    ),
    click.option(
        "--grace", type=click.FloatRange(0), default=30.0, show_default=True,
        help="Seconds for what runs when it's stopped.",
    ),
    _cache_options,
)  # fmt: skip
_batch_options = _options(
    click.argument("requests", metavar="IN.jsonl", type=click.Path(path_type=Path)),
    click.argument("results", metavar="OUT.jsonl", type=click.Path(path_type=Path)),
    _jobs,
    _cache_options,
    click.option("--strict", is_flag=True, help="Stop at the first bad line."),
)


def serve(
    host: str,
    port: int,
    jobs: int | None,
    waiting: int | None,
    token_file: Path | None,
    most_seconds: float,
    most_memory: int,
    grace: float,
    **more: Any,
) -> None:
    """Run programs for others, over HTTP.

    POST /run takes a request and answers with a result, POST /batch a list; a browser finds a page to try
    programs on. Off this machine's own address a token is needed. SIGTERM and Ctrl-C let what runs end, for
    --grace seconds at most; a second one doesn't wait. It ends with exit code 143 or 130.
    """
    from .gate import token_from
    from .service import Service
    from .wire import BOUNDS

    limits = replace(BOUNDS.limits, seconds=most_seconds, wall=6 * most_seconds, memory=most_memory)
    service = Service(
        _runs(more), host=host, port=port, jobs=jobs, waiting=waiting, token=token_from(token_file),
        bounds=replace(BOUNDS, limits=limits),
    )  # fmt: skip
    stop: SimpleQueue[None] = SimpleQueue()  # what a signal's handler may use
    with _signals(lambda: stop.put(None)) as caught:
        service.start()
        held = service.pool.sandbox.isolation.backend
        told = f"{service.url}, {service.pool.jobs} at once, {service.pool.waiting} may wait, held by {held}"
        click.echo(f"listening on {told}", err=True)
        stop.get()
        running = service.pool.running + service.pool.queued
        click.echo(f"stopping: {running} to end within {grace:g} s; again to leave at once", err=True)
        ended = service.stop(grace)
        done = service.pool.done.total()
        left = "" if ended else "; some were cut off"
        click.echo(f"stopped: {done} requests carried out{left}", err=True)
    _leave(128 + caught[0], clean=ended)


def batch(requests: Path, results: Path, jobs: int | None, strict: bool, **more: Any) -> None:
    """Run the requests of a file, one JSON object a line, and write a line for each result.

    Results come in the order in which they end, each with its request's id, or line number where it has
    none. Whatever stops it, the same command goes on from there: requests whose results are in OUT.jsonl
    don't run again. Lines that can't be carried out are named in the end (exit code 2).
    """
    from .batch import Batch
    from .pool import Pool

    runs = _runs(more)
    show = _Shown()
    work = Batch(requests, results, Pool(runs, jobs), strict=strict, tell=show)
    with _signals(work.stop) as caught:
        progress = work.run()
    show.end(progress)
    if hits := getattr(runs, "hits", 0):
        click.echo(f"{hits} from the cache", err=True)
    for error in sorted(progress.bad, key=lambda one: one.line or 0):
        click.echo(str(error), err=True)
    if caught:
        what = f"stopped by {signal.Signals(caught[0]).name}, {progress.left} left"
        click.echo(f"error[INTERRUPTED] {what}; the same command goes on from there", err=True)
        _leave(128 + caught[0], clean=not work.pool.running)
    if progress.bad:
        raise click.exceptions.Exit(2)


def _runs(more: dict[str, Any]) -> Runs:
    from .executor import Sandbox

    sandbox = Sandbox(more["level"], binds=more["binds"], phrase=more["phrase"])
    if not more["cache"]:
        return sandbox
    from .cache import Cached

    return Cached(sandbox, more["cache_folder"], also=more["binds"])


@contextmanager
def _signals(stop: Callable[[], None]) -> Iterator[Sequence[int]]:
    """Call ``stop`` at SIGTERM and SIGINT, and leave at a second one. -> The signals that came."""
    caught: list[int] = []

    def hear(number: int, frame: Any) -> None:
        caught.append(number)
        if len(caught) > 1:
            os._exit(128 + number)  # sandboxes die with their parent
        stop()

    before = {one: signal.signal(one, hear) for one in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield caught
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)


def _leave(code: int, *, clean: bool) -> NoReturn:
    """End with an exit code; where programs still run, without waiting for them."""
    if clean:
        raise click.exceptions.Exit(code)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


class _Shown:
    """Progress on standard error: one line that changes, or now and then a line where nobody watches."""

    def __init__(self) -> None:
        self._live = sys.stderr.isatty()
        self._last = time.monotonic() - (_EVERY if self._live else 0)

    def __call__(self, progress: Progress) -> None:
        now = time.monotonic()
        if now - self._last < (0.2 if self._live else _EVERY):
            return
        self._last = now
        click.echo(f"\r\x1b[K{progress}" if self._live else str(progress), err=True, nl=not self._live)

    def end(self, progress: Progress) -> None:
        """The last line."""
        click.echo(f"\r\x1b[K{progress}" if self._live else str(progress), err=True)
