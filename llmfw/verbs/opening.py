"""What the verbs that ask a model share: opening it, telling prompts from settings, writing files whole."""

from __future__ import annotations

import os
import re
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import click

from llmfw.core.errors import ResourceError, UsageError

if TYPE_CHECKING:
    from llmfw.core.assemble import Verb
    from llmfw.core.open import Opened

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
"""C0 and C1 but for tab and newline."""
_SETTING = re.compile(r"[A-Za-z_][\w-]*(\.[\w-]+)*=")


def open_model(verb: Verb, layers: dict[str, Any]) -> Opened:
    """The model that ``model=`` names, with its plugins, ready to answer; says what it switched on."""
    from llmfw.core.assemble import assemble, settle
    from llmfw.core.open import open_policy
    from llmfw.core.say import say

    if verb in ("evaluate", "validate") and (found := settings_of_run(layers["overrides"])):
        run, layers["base"] = found
        say(f"note: data and plugins are those of run {run}; --config and KEY=VALUE change them")
    assembled = assemble(settle(**layers), verb)
    for note in assembled.plan.notes:
        say(f"note: {note}")
    return open_policy(assembled)


_OF_RUN = ("plugins", "seed", "models", "tokenizer", "data", "trainer", "generation")
"""Sections of a saved run under which its weights are measured again, beside those of its plugins."""


def settings_of_run(overrides: Sequence[str]) -> tuple[Path, dict[str, Any]] | None:
    """(folder, settings) of the run whose weights ``model=`` names among the overrides; else None.

    They are the run's data, plugins, sampling and the like, but not its model: that is what was saved.
    """
    from llmfw.core.models import resolve_model
    from llmfw.core.strict_yaml import load_file

    named = [word.partition("=") for word in overrides]
    models = [value for key, _, value in named if key.strip() in ("model", "model.name")]
    folder = resolve_model(models[-1]).folder if models and models[-1] else None
    for run in folder.parents[:2] if folder else ():
        if (run / "run.json").is_file() and (run / "config.yaml").is_file():
            saved = load_file(run / "config.yaml").data
            plugins = saved.get("plugins") or []
            return run, {key: _literal(saved[key]) for key in (*_OF_RUN, *plugins) if key in saved}
    return None


def _literal(value: Any) -> Any:
    """A saved value as it was meant: a file escapes ``${``."""
    if isinstance(value, str):
        return value.replace("\\${", "${")
    if isinstance(value, list):
        return [_literal(one) for one in value]
    if isinstance(value, dict):
        return {key: _literal(one) for key, one in value.items()}
    return value


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
        handle, staged = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    except OSError as error:
        raise _unwritable(path, error) from error
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(staged, 0o644)
        os.replace(staged, path)
    except BaseException as error:
        with suppress(OSError):
            os.unlink(staged)
        if isinstance(error, OSError):
            raise _unwritable(path, error) from error
        raise


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
