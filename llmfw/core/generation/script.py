"""A function of the user's own that plays a model: ``models.NAME.script=FILE.py:FUNCTION``."""

from __future__ import annotations

import hashlib
import importlib.util
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from llmfw.core.errors import UsageError
from llmfw.core.generation.prompts import Prompt

Answer = Callable[[Sequence[Prompt]], Sequence[str]]


def script_file(script: str, key: str | None = None) -> tuple[Path, str]:
    """(file, function's name) of ``FILE.py:FUNCTION``; the file is there.

    Raises:
        UsageError: another form, or no such file.
    """
    name, colon, function = script.rpartition(":")
    path = Path(name).expanduser()
    if not colon or path.suffix != ".py" or not function.isidentifier():
        raise UsageError(
            "SCRIPT", f"{script!r} names no function in a file", mend="write FILE.py:FUNCTION", key=key
        )
    if not path.is_file():
        raise UsageError("SCRIPT", "there is no such file", mend="mend the path", file=path, key=key)
    return path.absolute(), function


def script_hash(script: str, key: str | None = None) -> str:
    """SHA-256 of the file's text and the function's name: what the script's answers depend on."""
    path, function = script_file(script, key)
    return hashlib.sha256(path.read_bytes() + f"\0{function}".encode()).hexdigest()


def load_script(script: str, key: str | None = None) -> Answer:
    """The function, its file run as the user's own code, in this process.

    Raises:
        UsageError: the file can't be run (its line is named), or has no such function.
    """
    path, function = script_file(script, key)
    spec = importlib.util.spec_from_file_location(f"llmfw_script_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise _failed(error, path, key, "running it") from error
    found = getattr(module, function, None)
    if not callable(found):
        there = [name for name, value in vars(module).items() if callable(value) and name[0] != "_"]
        raise UsageError(
            "SCRIPT", f"the file has no function {function!r}",
            mend=f"name one of: {', '.join(there) or 'none is there'}", file=path, key=key,
        )  # fmt: skip

    def answer(prompts: Sequence[Prompt]) -> Sequence[str]:
        try:
            texts = found(list(prompts))
        except (Exception, SystemExit) as error:
            raise _failed(error, path, key, f"{function}()") from error
        if isinstance(texts, str) or not all(isinstance(text, str) for text in texts):
            raise UsageError(
                "SCRIPT", f"{function}() answered with something else than a list of texts",
                mend="return one string a prompt", file=path, key=key,
            )  # fmt: skip
        return list(texts)

    return answer


def _failed(error: BaseException, path: Path, key: str | None, where: str) -> UsageError:
    lines: list[Any] = [
        frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)
    ]
    line = error.lineno if isinstance(error, SyntaxError) else lines[-1] if lines else None
    return UsageError(
        "SCRIPT", f"{where} raised {type(error).__name__}: {error}", mend="mend the script",
        file=path, line=line, key=key,
    )  # fmt: skip
