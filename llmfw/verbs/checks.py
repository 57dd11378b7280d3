"""What ``llmfw doctor`` looks at; everything is read from metadata before anything is imported."""

from __future__ import annotations

import json
import os
import platform
import shutil
import socket
import sqlite3
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

State = Literal["ok", "note", "warn", "fail"]
COMPROMISED = {"lightning": ("2.6.2", "2.6.3"), "pytorch-lightning": ("2.6.2", "2.6.3")}
"""Releases that stole credentials when they were imported (GHSA-w37p-236h-pfx3)."""
_NEEDED_GB, _WANTED_GB = 1, 10


@dataclass(frozen=True)
class Finding:
    """One line of the report; ``mend`` is a command or a step, wherever something can be mended."""

    state: State
    subject: str
    what: str
    mend: str | None = None


def installed(name: str) -> str | None:
    """The installed version of a distribution, from its metadata."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def compromised() -> Iterator[Finding]:
    """Releases that must never be imported."""
    for name, versions in COMPROMISED.items():
        found = installed(name)
        if found in versions:
            yield Finding(
                "fail", name,
                f"{found} is forged: it steals credentials when it's imported (GHSA-w37p-236h-pfx3)",
                "pip uninstall -y lightning pytorch-lightning && pip install 'lightning>=2.6.4'; "
                "if it was ever imported, replace every password and token that this machine knew",
            )  # fmt: skip
        elif found is not None and name == "lightning":
            yield Finding("ok", name, f"{found}, not one of the compromised releases")


def requirements() -> Iterator[Finding]:
    """Python and every distribution that llmfw needs, against its own metadata."""
    from packaging.requirements import Requirement
    from packaging.specifiers import SpecifierSet

    try:
        about = metadata.metadata("llmfw")
        wanted = metadata.requires("llmfw") or []
    except metadata.PackageNotFoundError:
        yield Finding("warn", "llmfw", "isn't installed as a distribution", "pip install -e .")
        return
    python = platform.python_version()
    if python in SpecifierSet(about["Requires-Python"] or "", prereleases=True):
        yield Finding("ok", "python", python)
    else:
        what = f"{python}, but llmfw needs {about['Requires-Python']}"
        yield Finding("fail", "python", what, "make the virtual environment with a newer Python")
    good = 0
    for text in wanted:
        requirement = Requirement(text)
        extra = requirement.marker is not None and "extra" in str(requirement.marker)
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": "demo"}):
            continue
        found = installed(requirement.name)
        plain = f"'{requirement.name}{requirement.specifier}'"
        if found is None and extra:
            yield Finding(
                "note",
                requirement.name,
                "isn't installed; the data of the demo needs it",
                "pip install 'llmfw[demo]'",
            )
        elif found is None:
            yield Finding("fail", requirement.name, "isn't installed", f"pip install {plain}")
        elif found in COMPROMISED.get(requirement.name, ()):
            continue  # said already, and louder
        elif not requirement.specifier.contains(found, prereleases=True):
            what = f"{found} is installed, but {requirement.specifier} is needed"
            yield Finding("fail", requirement.name, what, f"pip install {plain}")
        else:
            good += 1
    yield Finding("ok", "requirements", f"{good} distributions fit")


def torch_and_gpu() -> Iterator[Finding]:
    """The build of torch against the hardware; torch is imported in a process of its own, which may die."""
    version = installed("torch")
    if version is None:
        return
    gpus = _gpus()
    program = (
        "import json, torch; print(json.dumps({'cuda': torch.version.cuda, 'gpus': torch.cuda.device_count() "
        "if torch.cuda.is_available() else 0, 'threads': torch.get_num_threads()}))"
    )
    try:
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=180)
    except subprocess.TimeoutExpired:
        yield Finding(
            "warn", "torch", f"{version} took over 3 minutes to import", "try again on an idle machine"
        )
        return
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        how = f"signal {-done.returncode}" if done.returncode < 0 else last
        yield Finding(
            "fail", "torch", f"{version} can't be imported: {how}", "pip install --force-reinstall torch"
        )
        return
    said = json.loads(done.stdout.strip().splitlines()[-1])
    build = f"built for CUDA {said['cuda']}" if said["cuda"] else "built for the CPU"
    yield Finding("ok", "torch", f"{version}, {build}, {said['threads']} threads")
    if said["gpus"]:
        yield Finding("ok", "gpu", f"{said['gpus']} usable: {', '.join(gpus) or 'unnamed'}")
    elif gpus and not said["cuda"]:
        yield Finding(
            "warn", "gpu", f"{', '.join(gpus)}: this build of torch can't use it",
            f"pip install --force-reinstall torch=={version.partition('+')[0]}",
        )  # fmt: skip
    elif gpus:
        yield Finding(
            "warn", "gpu", f"{', '.join(gpus)}: torch finds no usable GPU", "check the driver: nvidia-smi"
        )
    else:
        yield Finding("note", "gpu", "none: training runs on the CPU")


def _gpus() -> list[str]:
    if shutil.which("nvidia-smi") is None:
        return []
    command = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return [line.strip() for line in done.stdout.splitlines() if line.strip()] if done.returncode == 0 else []


def bitsandbytes() -> Iterator[Finding]:
    """Quantised models need it."""
    found = installed("bitsandbytes")
    if found is None:
        yield Finding(
            "note", "bitsandbytes", "isn't installed; quantised models need it", "pip install bitsandbytes"
        )
    else:
        yield Finding("ok", "bitsandbytes", found)


def threads() -> Iterator[Finding]:
    """CPU threads: a resumed run is the same to the bit only with as many as before."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    asked = os.environ.get("OMP_NUM_THREADS")
    if asked and asked.isdigit() and int(asked) > cores:
        what = f"OMP_NUM_THREADS={asked}, but this process may use {cores} cores"
        yield Finding("warn", "threads", what, f"export OMP_NUM_THREADS={cores}")
    else:
        yield Finding("ok", "threads", f"{cores} cores" + (f", OMP_NUM_THREADS={asked}" if asked else ""))
    if os.environ.get("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"):
        yield Finding(
            "warn", "environment",
            "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD is set; llmfw doesn't heed it, other programs do",
            "unset TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD",
        )  # fmt: skip


def folders(run_dir: Path, checkpoints: Path | None, cache: Callable[[], Path]) -> Iterator[Finding]:
    """Where runs and cached models go: writable, and with room."""
    from llmfw.core.errors import LlmfwError

    places = [("runs", run_dir), *([("checkpoints", checkpoints)] if checkpoints else [])]
    try:
        places.append(("cache", cache()))
    except LlmfwError as error:
        yield Finding("fail", "cache", error.what, f"{error.mend} (export LLMFW_CACHE=FOLDER)")
    for subject, folder in places:
        there = folder.absolute()
        while not there.exists():
            there = there.parent
        try:
            with tempfile.TemporaryFile(dir=there) as probe:
                probe.write(b"x" * 4096)
                probe.flush()
                os.fsync(probe.fileno())
        except OSError as error:
            key = (
                "LLMFW_CACHE" if subject == "cache" else "run.dir" if subject == "runs" else "checkpoint.dir"
            )
            what = f"{there} can't be written: {error.strerror or error}"
            yield Finding("fail", subject, what, f"chmod u+rwx '{there}', or set {key} to another folder")
            continue
        free = shutil.disk_usage(there).free / 1e9
        what = f"{there} is writable, {free:.1f} GB free"
        if free < _WANTED_GB:
            state: State = "fail" if free < _NEEDED_GB else "warn"
            yield Finding(state, subject, what, f"free space: du -sh '{there}'/* | sort -h")
        else:
            yield Finding("ok", subject, what)


def mlflow(uri: str) -> Iterator[Finding]:
    """Whether the tracking store answers; MLflow itself isn't imported."""
    from llmfw.core.tracking import redact_text

    shown = redact_text(uri)
    local = "or leave MLflow out: tracking.mlflow=false (the run's own journal is always written)"
    scheme = urlsplit(uri).scheme if "://" in uri else "file"
    if scheme == "sqlite":
        path = Path(uri.removeprefix("sqlite:///"))
        folder = path.parent
        while not folder.exists():
            folder = folder.parent
        problem = None if os.access(folder, os.W_OK) else f"{folder} can't be written"
        if path.exists():
            try:
                database = sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True, timeout=2)
                database.execute("PRAGMA schema_version").fetchone()
                database.close()
            except sqlite3.Error as error:
                problem = str(error)
        if problem:
            yield Finding(
                "fail", "mlflow", f"{shown}: {problem}", f"set tracking.uri to another file, {local}"
            )
        else:
            yield Finding(
                "ok", "mlflow", f"{shown} ({'there' if path.exists() else 'made by the first run'})"
            )
    elif scheme in ("http", "https"):
        yield _server(uri, shown, local)
    elif scheme == "file":
        folder = Path(uri.removeprefix("file://"))
        while not folder.exists():
            folder = folder.parent
        if os.access(folder, os.W_OK):
            yield Finding("ok", "mlflow", f"{shown} is writable")
        else:
            yield Finding(
                "fail", "mlflow", f"{shown} can't be written", f"set tracking.uri to another folder, {local}"
            )
    else:
        yield Finding("note", "mlflow", f"{shown}: stores of this kind aren't checked")


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: object) -> None:
        return None


def _server(uri: str, shown: str, local: str) -> Finding:
    parts = urlsplit(uri)
    mend = f"start the server, or set tracking.uri (MLFLOW_TRACKING_URI) to a running one, {local}"
    try:
        port = parts.port or (443 if parts.scheme == "https" else 80)
        with socket.create_connection((parts.hostname or "", port), timeout=3):
            pass
        host = parts.netloc.rpartition("@")[2]
        opener = urllib.request.build_opener(_NoRedirect)
        url = f"{parts.scheme}://{host}{parts.path.rstrip('/')}/health"
        with opener.open(url, timeout=5) as answer:
            return Finding("ok", "mlflow", f"{shown} answers ({answer.status})")
    except urllib.error.HTTPError as error:
        if error.code in (401, 403):
            return Finding("note", "mlflow", f"{shown} answers and wants credentials ({error.code})")
        return Finding(
            "warn", "mlflow", f"{shown} answers /health with {error.code}", "check that this is MLflow"
        )
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
        return Finding("fail", "mlflow", f"{shown} can't be reached: {reason}", mend)


def plugins() -> Iterator[Finding]:
    """Installed plugins: cards that can be read, written for this contract, with verbs that are free."""
    from llmfw.core.discovery import cards, unusable
    from llmfw.verbs import ALIASES, CORE

    found = cards()
    for name, error in unusable().items():
        what = f"{error.what} ({error.file})" if error.file else error.what
        yield Finding("warn", f"plugin {name}", what, error.mend)
    owners: dict[str, str] = {}
    for card in found.values():
        for verb in card.commands:
            if verb in CORE or verb in ALIASES or verb in owners:
                taken = f"plugin {owners[verb]}'s" if verb in owners else "the core's"
                what = f"its verb {verb!r} is {taken}"
                yield Finding("warn", f"plugin {card.name}", what, f"pip uninstall {card.distribution}")
            owners.setdefault(verb, card.name)
    yield Finding("ok", "plugins", f"{len(found)} readable: {', '.join(found) or 'none'}")
