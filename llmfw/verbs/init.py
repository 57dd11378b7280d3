"""``llmfw init``: from a file of one's own rows to a commented configuration that ``fit`` runs."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from llmfw.verbs.options import FOLDER_FILE, complete_plugins

if TYPE_CHECKING:
    from llmfw.verbs.starter import Facts

_READMES = ("README.md", "README-llmfw.md")
"""The second where the folder has a README of its own."""
_ROWS_READ = 20_000


@click.command("init")
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False), default=Path("."))
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Rows to train on; default: the folder's jsonl file.",
)
@click.option(
    "--plugin",
    "plugins",
    multiple=True,
    metavar="NAME",
    shell_complete=complete_plugins,
    help="How to train; default: a baseline for preference rows, else none.",
)
@click.option(
    "--model", default="smollm2-135m", show_default=True, metavar="NAME", help="Preset, hub id or folder."
)
def command(folder: Path, data: Path | None, plugins: tuple[str, ...], model: str) -> None:  # fmt: skip
    """Write a commented llmfw.yaml and a README for your own data.

    The rows' form is read off their keys: prompt+chosen+rejected, prompt+completion, messages, text, or
    prompt+answer. Nothing that is there is overwritten.
    """
    from llmfw.core.config import load_config
    from llmfw.core.errors import UsageError
    from llmfw.verbs.starter import config_text, readme_text

    readme = check_free(folder)
    facts = look(folder, data, list(plugins), model)
    text = config_text(facts)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / FOLDER_FILE
    write_new(path, text)
    try:
        load_config(files=[path])
    except UsageError as error:
        if error.code != "CONFIG-MISSING":
            path.unlink()
            raise
        click.echo(f"warning: {error}", err=True)
    write_new(readme, readme_text(facts))
    click.echo(f"{facts.rows} {facts.form} rows in {facts.file}, the longest about {facts.longest} tokens")
    for problem in facts.problems[:5]:
        click.echo(f"warning: {problem}", err=True)
    click.echo(f"wrote {path} and {readme}\n\nnext:")
    if folder.resolve() != Path.cwd():
        click.echo(f"  cd {folder}")
    for line, meaning in (
        ("llmfw data inspect", "look at the rows as the model sees them"),
        ("llmfw fit", "train, as llmfw.yaml says"),
        ("llmfw compare", "the runs side by side"),
    ):
        click.echo(f"  {line.ljust(20)}# {meaning}")


def check_free(folder: Path) -> Path:
    """The README's path.

    Raises:
        UsageError: a file that would be written is there already.
    """
    from llmfw.core.errors import UsageError

    for path in (folder / FOLDER_FILE, folder / _READMES[1]):
        if path.exists() or path.is_symlink():
            raise UsageError(
                "INIT-EXISTS", "is there already, and init overwrites nothing", file=path,
                mend="edit it, move it away, or name another folder: llmfw init FOLDER --data FILE",
            )  # fmt: skip
    first = folder / _READMES[0]
    return folder / _READMES[1] if first.exists() or first.is_symlink() else first


def look(folder: Path, data: Path | None, plugins: list[str], model: str) -> Facts:
    """What the data is, and how it should be trained on.

    Raises:
        DataError: no data file, several, or none of its rows can be used.
        UsageError: a plugin that isn't installed, or preference rows without a plugin for them.
    """
    from llmfw.core import discovery
    from llmfw.core.errors import UsageError
    from llmfw.verbs.starter import Facts, tokens_of

    train, held_out = find_data(folder, data)
    form, rows, problems = read(train)
    if form == "preference" and not plugins:
        able = [card.name for card in discovery.cards().values() if "loss" in card.kinds and not card.neutral]
        if not able:  # a card without a neutral setting is that of a baseline
            raise UsageError(
                "INIT-PLUGIN", "preference rows need a plugin with a preference loss", key="--plugin",
                mend="install one, then name it: --plugin NAME (llmfw plugins list)",
            )  # fmt: skip
        plugins = able[:1]
    for name in plugins:
        card = discovery.card(name)
        if "fit" not in card.verbs:
            raise UsageError(
                "NOTHING-TO-FIT", f"plugin {name!r} trains nothing", mend="leave it out", key="--plugin"
            )
    groups = len({str(row.get("prompt", row["id"])) for row in rows})
    return Facts(
        file=os.path.relpath(train, folder),
        held_out=None if held_out is None else os.path.relpath(held_out, folder),
        form=form, rows=len(rows), groups=groups, longest=max(map(tokens_of, rows)), plugins=plugins,
        model=model, problems=problems,
    )  # fmt: skip


def find_data(folder: Path, given: Path | None) -> tuple[Path, Path | None]:
    """The file of training rows, and that of held-out rows where one is named so."""
    from llmfw.core.data.files import READERS, data_files, folder_files
    from llmfw.core.errors import DataError

    if given is None and (not folder.is_dir() or not folder_files(folder)):
        raise DataError(
            "NO-DATA", f"the folder holds no data file ({', '.join(READERS)})", file=folder,
            mend="put one there, or name one: llmfw init --data FILE",
        )  # fmt: skip
    train, held_out = data_files(str(given or folder))
    if len(train) > 1:
        names = ", ".join(file.name for file in train[:6]) + (", ..." if len(train) > 6 else "")
        raise DataError(
            "INIT-SEVERAL", f"the folder holds several data files: {names}", file=given or folder,
            mend="name the one to train on: llmfw init --data FILE (or call them train and validation)",
        )  # fmt: skip
    return train[0], held_out[0] if held_out else None


def read(file: Path) -> tuple[str, Sequence[dict[str, object]], list[str]]:
    """(form, rows, problems) of a file's first rows; a row that can't be used is a problem, not an error."""
    from itertools import islice

    from llmfw.core.data.reader import BadRows, ReadCounts, check_rows, located
    from llmfw.core.errors import DataError

    bad = BadRows(skip=True, limit=_ROWS_READ)
    form, rows = check_rows(islice(located([file], bad, ReadCounts()), _ROWS_READ), bad)
    if not rows:
        first = f": {bad.messages[0]}" if bad.messages else ""
        raise DataError("NO-ROWS", f"no row can be used{first}", mend="mend the file", file=file)
    problems = list(bad.messages)
    if bad.count:
        problems.insert(0, f"{bad.count} rows can't be used; mend them, or set data.on_bad_row: skip")
    return form, rows, problems


def write_new(path: Path, text: str) -> None:
    """Write a file that must not exist yet.

    Raises:
        UsageError: it exists by now, or can't be written.
    """
    from llmfw.core.errors import UsageError

    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        what = f"can't be written: {error.strerror or error}"
        raise UsageError("INIT-WRITE", what, mend="check the folder's permissions", file=path) from error
