"""``llmfw predict``: one line out for every row in: a completion, a log-probability, or a pair's scores."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal

import click

from llmfw.core.errors import DataError, LlmfwError
from llmfw.verbs.opening import check_out, open_model, whole_file
from llmfw.verbs.options import run_options

if TYPE_CHECKING:
    from llmfw.core.data.formats import RowError
    from llmfw.core.data.reader import BadRows

What = Literal["completion", "logprob", "score"]
Line = dict[str, Any]

COLUMNS: dict[What, dict[str, str]] = {
    "completion": {
        "id": "string",
        "completion": "string",
        "finish": "string",
        "tokens": "int64",
        "prompt_tokens": "int64",
        "error": "string",
    },
    "logprob": {"id": "string", "logprob": "double", "mean": "double", "tokens": "int64", "error": "string"},
    "score": {
        "id": "string",
        "margin": "double",
        "chosen": "double",
        "rejected": "double",
        "chosen_tokens": "int64",
        "rejected_tokens": "int64",
        "error": "string",
    },
}
"""Columns of each output in their order; in jsonl a line leaves out what it doesn't have."""


@dataclass(frozen=True, kw_only=True)
class Predicted:
    """What was written."""

    out: Path
    rows: int
    bad: int
    first_error: str | None = None


@click.command("predict")
@run_options
@click.option(
    "--data",
    "data_file",
    required=True,
    type=click.Path(path_type=Path),
    help="Rows: a file (.jsonl, .json, .parquet, .csv ...).",
)
@click.option(
    "--out",
    required=True,
    type=click.Path(path_type=Path),
    help="Output: .jsonl or .parquet; replaced if it exists.",
)
@click.option(
    "--what",
    type=click.Choice(["completion", "logprob", "score"]),
    default="completion",
    show_default=True,
    help="completion: an answer to the prompt. logprob: log-probability of the row's own answer in nats "
    "(sum, mean a token, tokens). score: of a pair, chosen, rejected and their difference (margin).",
)
def command(data_file: Path, out: Path, what: What, **layers: Any) -> None:
    """Answer or score every row of a file: llmfw predict model=runs/... --data in.jsonl --out out.jsonl

    The output has one line for each row, in the order of rows, and appears whole, at the end. A row that
    can't be used ends the command (exit code 3); with data.on_bad_row=skip it becomes a line with "error",
    up to data.max_bad_rows of them.
    """
    check_out(out, (".jsonl", ".parquet"), source=data_file)
    opened = open_model("predict", layers)
    settings = opened.run.config.data
    origin = opened.assembled.resolved.origin["data.kind"]
    done = predict(
        opened.policy,
        data_file,
        out,
        what,
        # the kind of a preset's rows says nothing of those of --data
        kind=None if origin.layer.startswith("preset") else settings.kind,
        skip_bad=settings.on_bad_row == "skip",
        max_bad=settings.max_bad_rows,
        limit=settings.limit,
        progress=_progress,
    )
    note = f"{done.rows} rows written to {done.out}"
    if done.bad:
        note += f"; {done.bad} of them with an error, the first: {done.first_error}"
    click.echo(note, err=True)


def predict(
    policy: Any,
    data: Path,
    out: Path,
    what: What = "completion",
    *,
    kind: str | None = None,
    skip_bad: bool = False,
    max_bad: int = 100,
    limit: int | None = None,
    progress: Callable[[Iterator[list[Line]], int], Iterator[list[Line]]] | None = None,
) -> Predicted:
    """Write one line of ``out`` for each row of ``data``, in its order.

    Raises:
        DataError: no rows, or one that can't be used (with ``skip_bad``: more than ``max_bad``).
    """
    rows = _Rows(policy, data, what, kind, skip_bad, max_bad, limit)
    windows = rows.windows()
    if progress is not None:
        windows = progress(windows, rows.total)
    with whole_file(out) as file:
        write = _parquet if out.suffix == ".parquet" else _jsonl
        write(file, windows, what)
        if not rows.read:  # inside: nothing then gets the file's name
            raise DataError("NO-ROWS", "there are no rows in it", file=data, mend="give at least one row")
    return Predicted(
        out=out, rows=rows.read, bad=rows.bad.count, first_error=next(iter(rows.bad.messages), None)
    )


class _Rows:
    """Reads, answers and keeps in order: a window of rows at a time, batches of like length inside it."""

    def __init__(
        self,
        policy: Any,
        data: Path,
        what: What,
        kind: str | None,
        skip_bad: bool,
        max_bad: int,
        limit: int | None,
    ) -> None:
        from llmfw.core.data import Encoder
        from llmfw.core.data.reader import BadRows, data_files, row_count
        from llmfw.core.data.text import TextTokenizer
        from llmfw.core.generation import context_length

        files, _ = data_files(str(data))
        if len(files) > 1:
            raise DataError(
                "PREDICT-SEVERAL",
                f"this means {len(files)} files",
                file=data,
                key="--data",
                mend="name one of them",
            )
        self.data = files[0]
        self.policy, self.what, self.kind, self.limit = policy, what, kind, limit
        self.text = TextTokenizer(policy.tokenizer)
        self.context = context_length(policy.module)
        self.sides = policy.sides
        self.encoder = Encoder(self.text, self.context or 2**31, "error", self.sides)
        self.bad: BadRows = BadRows(skip=skip_bad, limit=max_bad)
        self.read = 0
        self.total = min(row_count(self.data), limit or 2**62)

    def windows(self) -> Iterator[list[Line]]:
        """Output lines, in order."""
        size = 32 * int(self.policy.batch_size)
        located = islice(self._located(), self.limit)
        while window := list(islice(located, size)):
            self.read += len(window)
            yield self._answer([self._prepare(place, row) for place, row in window])

    def _located(self) -> Iterator[tuple[str, object]]:
        """(place, row), with a RowError in the place of a line that isn't JSON."""
        from llmfw.core.data.reader import BadRows, ReadCounts, located

        unread: list[tuple[str, RowError]] = []

        class Kept(BadRows):
            def refuse(self, place: str | None, problem: RowError) -> None:
                unread.append((str(place), problem))

        for place, row in located([self.data], Kept(), ReadCounts()):
            yield from unread
            unread.clear()
            yield place, row
        yield from unread

    def _prepare(self, place: str, row: object) -> tuple[str | None, Any]:
        """(id, what the policy needs), or (id, the problem)."""
        from llmfw.core.data.formats import RowError, canonical, content_hash

        name: str | None = None
        try:
            if isinstance(row, RowError):
                raise row
            if not isinstance(row, dict):
                raise RowError("the row is not an object", mend="make every line a JSON object")
            name = str(row["id"]) if row.get("id") is not None else content_hash(row)
            return name, self._needed(row, canonical)
        except RowError as problem:
            return name, self._refuse(place, problem)
        except LlmfwError as error:
            return name, self._refuse(place, RowError(error.what, mend=error.mend, key=error.key))

    def _needed(self, row: Line, canonical: Callable[..., tuple[Any, Line]]) -> Any:
        from llmfw.core.data.formats import RowError
        from llmfw.core.generation import ids_read, prompt_of

        if self.what == "completion":
            ids = ids_read(self.text, prompt_of(row), self.sides)
            if self.context is not None and len(ids) >= self.context + (self.sides is not None):
                raise RowError(
                    f"the prompt has {len(ids)} tokens, the model's context {self.context}",
                    key="prompt",
                    mend="shorten it",
                )
            return ids
        form, checked = canonical(row, self.kind)
        if self.what == "score" and form != "preference":
            raise RowError(
                f"this is a {form} row, a score needs chosen and rejected", mend="use --what logprob"
            )
        if self.what == "logprob" and form == "preference":
            raise RowError("this is a pair, it has two answers", mend="use --what score")
        return self.encoder.encode(form, checked)

    def _refuse(self, place: str, problem: RowError) -> DataError:
        """Raises, or counts and gives what the line shall say."""
        self.bad.refuse(place, problem)
        return DataError("BAD-ROW", problem.what, file=place, key=problem.key, mend=problem.mend)

    def _answer(self, prepared: Sequence[tuple[str | None, Any]]) -> list[Line]:
        good = [(name, needed) for name, needed in prepared if not isinstance(needed, DataError)]
        lines = iter(self._complete(good) if self.what == "completion" else self._score(good))
        return [
            {"id": name, "error": str(needed)} if isinstance(needed, DataError) else next(lines)
            for name, needed in prepared
        ]

    def _complete(self, good: Sequence[tuple[str | None, Any]]) -> Iterator[Line]:
        answers = self.policy.generate([ids for _, ids in good], ids=[name for name, _ in good])
        for (name, _), answer in zip(good, answers, strict=True):
            yield {
                "id": name,
                "completion": answer.text,
                "finish": answer.finish,
                "tokens": answer.tokens,
                "prompt_tokens": answer.prompt_tokens,
            }

    def _score(self, good: Sequence[tuple[str | None, Any]]) -> Iterator[Line]:
        from llmfw.core.data import pad_id_of
        from llmfw.core.generation import score_examples

        examples = [example for _, example in good]
        pad = pad_id_of(self.policy.tokenizer)
        scores = score_examples(self.policy, examples, pad_id=pad, batch_size=self.policy.batch_size)
        for (name, _), score in zip(good, scores, strict=True):
            if self.what == "logprob":
                (only,) = score
                yield {"id": name, "logprob": only.logp, "mean": only.mean, "tokens": only.tokens}
            else:
                chosen, rejected = score
                yield {
                    "id": name,
                    "margin": chosen.logp - rejected.logp,
                    "chosen": chosen.logp,
                    "rejected": rejected.logp,
                    "chosen_tokens": chosen.tokens,
                    "rejected_tokens": rejected.tokens,
                }


def _jsonl(file: IO[bytes], windows: Iterator[list[Line]], what: What) -> None:
    for window in windows:
        for line in window:
            file.write(f"{json.dumps(line, ensure_ascii=False, allow_nan=False)}\n".encode())


def _parquet(file: IO[bytes], windows: Iterator[list[Line]], what: What) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    schema = pa.schema([(name, pa.type_for_alias(kind)) for name, kind in COLUMNS[what].items()])
    with parquet.ParquetWriter(file, schema) as writer:
        for window in windows:
            writer.write_table(pa.Table.from_pylist(window, schema=schema))


def _progress(windows: Iterator[list[Line]], total: int) -> Iterator[list[Line]]:
    """The windows, with a bar on standard error where that is a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=total)
        for window in windows:
            bar.advance(task, len(window))
            yield window
