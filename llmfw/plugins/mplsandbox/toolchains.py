"""What each language runs with here: its row of the table, and the version that its tools tell."""

from __future__ import annotations

import shlex
from threading import Lock
from typing import Any

from llmfw import LlmfwError

from .languages import Language, language, languages
from .pool import Runs
from .records import Case, Isolation, Limits, Request

_LIMITS = Limits(seconds=20, wall=60, memory=2048, processes=256, disk=64, files=1024)
_told: dict[tuple[Isolation, str], str] = {}
_locks: dict[str, Lock] = {}
_guard = Lock()


class ToolchainError(LlmfwError):
    """A language's tools don't say which version they are (exit code 8)."""

    exit_code = 8


def toolchain_version(sandbox: Runs, lang_id: str) -> str:
    """The first line that a language's tools say of their version, and that of another language's runtime
    where they need it; asked inside the sandbox, once a process.

    Raises:
        LanguageError: there's no such language, or its tools aren't here.
        ToolchainError: TOOLCHAIN, they fail.
    """
    lang = language(lang_id).insist()
    key = (sandbox.isolation, lang.id)
    with _guard:
        lock = _locks.setdefault(lang.id, Lock())
    with lock:
        if key not in _told:
            _told[key] = _ask(sandbox, lang)
    others = (one for one in languages().values() if one.version[0] in lang.needs and one.id != lang.id)
    runtime = next(others, None)
    return _told[key] if runtime is None else f"{_told[key]}; {toolchain_version(sandbox, runtime.id)}"


def _ask(sandbox: Runs, lang: Language) -> str:
    words = lang.words(lang.version, "", 256)
    code = "".join(f"export {key}={shlex.quote(value)}\n" for key, value in lang.environ().items())
    result = sandbox.run(
        Request(code=f"{code}exec {shlex.join(words)}", lang="bash", cases=[Case()], limits=_LIMITS)
    )
    stage = result.cases[0] if result.cases else result.compile
    lines = (stage.stdout + "\n" + stage.stderr).splitlines() if stage is not None else []
    line = next((one.strip() for one in lines if one.strip()), "")
    if result.verdict != "OK" or not line:
        why = f"{result.verdict} {stage.detail if stage else ''} {line}".strip()
        raise ToolchainError(
            "TOOLCHAIN", f"{shlex.join(lang.version)} says no version: {why}",
            mend=f"install {' '.join(lang.packages)} anew", key=lang.id,
        )  # fmt: skip
    return line


def language_rows(sandbox: Runs | None = None) -> list[dict[str, Any]]:
    """Every language: names, whether its tools are here, what brings them; with a sandbox their versions."""
    rows: list[dict[str, Any]] = []
    for one in languages().values():
        missing = list(one.missing())
        row = {
            "id": one.id, "name": one.name, "aliases": list(one.aliases), "here": not missing,
            "missing": missing, "packages": list(one.packages),
        }  # fmt: skip
        if sandbox is not None:
            row["version"] = "" if missing else _version(sandbox, one.id)
        rows.append(row)
    return rows


def _version(sandbox: Runs, lang_id: str) -> str:
    try:
        return toolchain_version(sandbox, lang_id)
    except ToolchainError as error:
        return error.what
