"""``llmfw ui``: MLflow's own pages over the runs of this folder, on this machine only."""

from __future__ import annotations

import ipaddress
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import click

from llmfw.core.errors import LlmfwError, UsageError

PORT = 5000
SLOWEST_START = 120.0
"""Seconds until the server must answer; on a busy machine its imports alone take half a minute."""


@click.command("ui")
@click.option(
    "--port",
    type=click.IntRange(1, 65535),
    default=PORT,
    show_default=True,
    help="TCP port; the default moves on if it's taken.",
)
@click.option("--uri", help="MLflow store; default: $MLFLOW_TRACKING_URI, else sqlite in runs/mlflow.db.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--allow-remote",
    is_flag=True,
    help="Let --host be an address that other machines reach. MLflow asks nobody for a password.",
)
@click.pass_context
def command(context: click.Context, port: int, uri: str | None, host: str, allow_remote: bool) -> None:
    """Open MLflow's pages on this machine; Ctrl-C stops them."""
    from llmfw.core.tracking import RUNS, redact_text, resolve_uri

    store = resolve_uri(uri, RUNS)
    if store.startswith(("http://", "https://")):
        click.echo(f"MLflow runs already: {redact_text(store)}")
        return
    if not allow_remote and not is_loopback(host):
        raise UsageError(
            "UI-HOST", f"{host} can be reached from other machines, and MLflow asks nobody for a password",
            mend="leave --host out, or add --allow-remote if you mean it",
        )  # fmt: skip
    _check_store(store)
    fixed = context.get_parameter_source("port") is not click.core.ParameterSource.DEFAULT
    serve(store, host, free_port(host, port, fixed=fixed))


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches the address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def free_port(host: str, port: int, *, fixed: bool) -> int:
    """The port, or (unless ``fixed``) the next free one of the twenty behind it.

    Raises:
        UsageError: all are taken, or the address isn't this machine's.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for candidate in range(port, port + 1 if fixed else min(port + 20, 65536)):
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, candidate))
                return candidate
            except socket.gaierror as error:
                raise UsageError("UI-HOST", f"{host!r} is no address", mend="leave --host out") from error
            except PermissionError as error:
                raise UsageError(
                    "UI-PORT", f"port {candidate} needs more rights", mend="choose one above 1023"
                ) from error
            except OSError:
                continue
    raise UsageError("UI-PORT", f"port {port} on {host} is taken", mend="choose another with --port")


def serve(store: str, host: str, port: int) -> None:
    """Run MLflow's server until Ctrl-C.

    Raises:
        UsageError: it didn't start.
    """
    tell_of_dead_runs(store)
    shown = f"[{host}]" if ":" in host else host
    with tempfile.TemporaryFile() as log, _server(store, host, port, log) as process:
        click.echo("MLflow is starting ...", err=True)
        try:
            _wait(process, host, port, log)
            click.echo(f"MLflow: http://{shown}:{port}   (Ctrl-C stops it)")
            process.wait()
        except KeyboardInterrupt:
            click.echo("\nMLflow stopped.")
            return
        raise UsageError(
            "UI-ENDED", f"MLflow's server ended by itself: {_tail(log)}", mend="see mlflow server --help"
        )


def tell_of_dead_runs(store: str) -> None:
    """Runs that were killed shouldn't be shown as running."""
    from llmfw.core.tracking import RUNS
    from llmfw.core.tracking.replay import bury

    try:
        bury(RUNS, store)
    except (LlmfwError, OSError) as error:
        click.echo(f"warning: {error}", err=True)


def _check_store(store: str) -> None:
    path = Path(store.removeprefix("sqlite:///"))
    if store.startswith("sqlite:///") and not path.exists():
        raise UsageError(
            "NO-STORE",
            "no run has been tracked here yet",
            file=path,
            mend="train one (llmfw fit), or name a store with --uri",
        )


@contextmanager
def _server(store: str, host: str, port: int, log: IO[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    """The server in a session of its own, so that Ctrl-C reaches us first and all its workers end with it."""
    from llmfw.core.tracking import RUNS

    command = [
        sys.executable, "-m", "mlflow", "server", "--backend-store-uri", store, "--default-artifact-root",
        (RUNS / "mlartifacts").absolute().as_uri(), "--host", host, "--port", str(port), "--workers", "1",
    ]  # fmt: skip
    # it's there to be looked at: no background jobs
    environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    process = subprocess.Popen(
        command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True, env=environment
    )
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        yield process
    finally:
        signal.signal(signal.SIGTERM, before)
        _stop(process)


def _interrupt(number: int, frame: Any) -> None:
    raise KeyboardInterrupt


def _stop(process: subprocess.Popen[bytes]) -> None:
    for number, patience in ((signal.SIGTERM, 5.0), (signal.SIGKILL, 5.0)):
        try:
            os.killpg(process.pid, number)
            process.wait(patience)
        except (ProcessLookupError, subprocess.TimeoutExpired):
            continue


def _wait(process: subprocess.Popen[bytes], host: str, port: int, log: IO[bytes]) -> None:
    end = time.monotonic() + SLOWEST_START
    while process.poll() is None and time.monotonic() < end:
        try:
            with socket.create_connection((host, port), timeout=1):
                return
        except OSError:
            time.sleep(0.2)
    raise UsageError(
        "UI-START", f"MLflow's server did not start: {_tail(log)}", mend="see mlflow server --help"
    )


def _tail(log: IO[bytes]) -> str:
    log.seek(max(0, log.seek(0, os.SEEK_END) - 2000))
    lines = [line.strip() for line in log.read().decode(errors="replace").splitlines() if line.strip()]
    return lines[-1][:300] if lines else "it said nothing"
