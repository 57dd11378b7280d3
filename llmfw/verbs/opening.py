"""What the verbs that ask a model share: opening it, telling prompts from settings, writing files whole."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import click

from llmfw.core.disk import replacing
from llmfw.core.errors import ResourceError, UsageError

if TYPE_CHECKING:
    from llmfw.core.assemble import Assembled, Verb
    from llmfw.core.open import Opened

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
"""C0 and C1 but for tab and newline."""
_SETTING = re.compile(r"[A-Za-z_][\w-]*(\.[\w-]+)*=")


def open_model(verb: Verb, layers: dict[str, Any]) -> Opened:
    """The model that ``model=`` names, with its plugins, ready to answer; says what it switched on."""
    from llmfw.core.open import open_policy

    return open_policy(assemble_model(verb, layers))


def assemble_model(verb: Verb, layers: dict[str, Any]) -> Assembled:
    """Everything about the model that ``model=`` names but its weights; says what was switched on."""
    from llmfw.core.assemble import assemble, settle
    from llmfw.core.say import say

    assembled = assemble(settle(measuring=verb in ("evaluate", "validate"), **layers), verb)
    for note in assembled.plan.notes:
        say(f"note: {note}")
    return assembled


def split_words(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """(prompts, settings) of a command line: a word that begins with ``NAME=`` or ``NAME.KEY=`` is one."""
    settings = [word for word in words if _SETTING.match(word)]
    return [word for word in words if not _SETTING.match(word)], settings


def check_out(out: Path, suffixes: Sequence[str], *, source: Path | None = None) -> None:
    """Refuses, before anything is computed, an output file that couldn't be written.

    Raises:
        UsageError: wrong suffix, no such folder, a folder that can't be written to, or the input itself.
    """
    problem = ""
    mend = "name another file"
    if out.suffix not in suffixes:
        problem, mend = f"{out.suffix or 'no suffix'} says no known format", f"use {' or '.join(suffixes)}"
    elif out.is_dir():
        problem = "this is a folder"
    elif not out.parent.is_dir():
        problem, mend = "there is no such folder", f"make it: mkdir -p {out.parent}"
    elif not os.access(out.parent, os.W_OK):
        problem, mend = "its folder can't be written to", "name a file elsewhere, or change the permissions"
    elif source is not None and out.exists() and out.samefile(source):
        problem = "this is the input itself"
    if problem:
        raise UsageError("OUT", problem, mend=mend, file=out, key="--out")


@contextmanager
def whole_file(path: Path) -> Iterator[IO[bytes]]:
    """A file that bears its name only once it's complete; what bore it before stays until then.

    Raises:
        ResourceError: the disk is full or the folder went away.
    """
    try:
        with replacing(path) as file:
            yield file
    except OSError as error:
        raise _unwritable(path, error) from error


def tell(text: str) -> None:
    """Writes a part of an answer to standard output at once.

    In a terminal control characters become a sign: what a model says must not move the cursor, change the
    title or press keys.
    """
    if text and sys.stdout.isatty():
        text = _CONTROL.sub("\N{REPLACEMENT CHARACTER}", text)
    if text:
        click.echo(text, nl=False)
        sys.stdout.flush()


def _unwritable(path: Path, error: OSError) -> ResourceError:
    return ResourceError(
        "OUT",
        f"it can't be written ({error.strerror or error})",
        mend="free space, or name a file elsewhere",
        file=path,
    )
