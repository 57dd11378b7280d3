"""``llmfw doctor``: what stands in the way of a run on this machine, and how to mend it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from pathlib import Path

import click

from llmfw.verbs.checks import Finding

_MARKS = {
    "ok": ("ok", "green"),
    "note": ("note", "cyan"),
    "warn": ("warn", "yellow"),
    "fail": ("FAIL", "red"),
}


@click.command("doctor")
@click.option("--quick", is_flag=True, help="Import nothing: leave out the check of torch and GPUs.")
@click.option("--json", "as_json", is_flag=True, help="Print the findings as json.")
@click.pass_context
def command(context: click.Context, quick: bool, as_json: bool) -> None:
    """Check versions, hardware, folders, MLflow and plugins.

    Every finding that can be mended says how. The exit code is 2 where something must be mended, else 0.
    """
    found = []
    for finding in examine(quick=quick):
        found.append(finding)
        if not as_json:
            say(finding)
    failed = sum(finding.state == "fail" for finding in found)
    if as_json:
        click.echo(json.dumps([asdict(finding) for finding in found], indent=2))
    else:
        click.echo(
            f"\n{failed} of {len(found)} findings need mending." if failed else "\nNothing hinders a run."
        )
    context.exit(2 if failed else 0)


def say(finding: Finding) -> None:
    """A line for the finding, and one for its mend."""
    word, colour = _MARKS[finding.state]
    click.echo(f"{click.style(word.ljust(4), fg=colour)}  {finding.subject}: {finding.what}")
    if finding.mend:
        click.echo(f"      mend: {finding.mend}")


def examine(*, quick: bool = False) -> Iterator[Finding]:
    """All findings; what must not be imported is looked for first, and then nothing is."""
    from llmfw.core.cache import cache_dir
    from llmfw.verbs import checks

    first = list(checks.compromised())
    yield from first
    poisoned = any(finding.state == "fail" for finding in first)
    yield from _guarded("requirements", checks.requirements)
    if not quick and not poisoned:
        yield from _guarded("torch", checks.torch_and_gpu)
    yield from _guarded("bitsandbytes", checks.bitsandbytes)
    yield from _guarded("threads", checks.threads)
    run_dir, checkpoints, uri, settings = _settings()
    yield from settings
    yield from _guarded("folders", lambda: checks.folders(run_dir, checkpoints, lambda: cache_dir("models")))
    if uri is not None:
        yield from _guarded("mlflow", lambda: checks.mlflow(uri))
    yield from _guarded("plugins", checks.plugins)


def _guarded(subject: str, check: Callable[[], Iterable[Finding]]) -> Iterator[Finding]:
    """A check's findings; a check that itself fails on a broken machine is a finding too."""
    try:
        yield from check()
    except Exception as error:
        what = f"couldn't be checked: {type(error).__name__}: {error}"
        yield Finding("warn", subject, what, "llmfw doctor --quick, and report this line")


def _settings() -> tuple[Path, Path | None, str | None, list[Finding]]:
    """Where runs, checkpoints and numbers go, from the folder's llmfw.yaml if there's one."""
    from llmfw.core.config import load_config
    from llmfw.core.errors import LlmfwError
    from llmfw.core.tracking import resolve_uri
    from llmfw.verbs.options import FOLDER_FILE

    here = [Path(FOLDER_FILE)] if Path(FOLDER_FILE).is_file() else []
    found: list[Finding] = []
    try:
        root = load_config(files=here).root
        found += [Finding("ok", FOLDER_FILE, "can be read")] if here else []
    except LlmfwError as error:
        found.append(Finding("fail", FOLDER_FILE, str(error), error.mend))
        root = load_config().root
    runs = Path(root.run.dir).parent if root.run.dir else Path("runs")
    checkpoints = Path(root.checkpoint.dir) if root.checkpoint.dir else None
    uri = resolve_uri(root.tracking.uri, runs) if root.tracking.mlflow else None
    return runs, checkpoints, uri, found
