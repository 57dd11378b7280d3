"""``llmfw doctor``: what hinders a run, read before anything is imported."""

from __future__ import annotations

import json
import socket
import sqlite3
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from llmfw.cli import run
from llmfw.verbs import checks
from tests.toys import installed, write_toy


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LLMFW_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


def findings(capsys, *words: str, code: int = 0) -> dict[str, dict[str, str]]:
    assert run(["doctor", "--quick", "--json", *words]) == code
    return {item["subject"]: item for item in json.loads(capsys.readouterr().out)}


def distribution(site: Path, name: str, version: str) -> None:
    info = site / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")


def test_a_good_machine_passes_without_importing_anything_heavy(tmp_path: Path):
    program = """
import sys
from llmfw.cli import run
code = run(["doctor", "--quick"])
heavy = [name for name in ("torch", "lightning", "mlflow", "transformers") if name in sys.modules]
assert not heavy, heavy
sys.exit(code)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Nothing hinders a run." in done.stdout


@pytest.mark.parametrize(
    ("name", "version"), [("lightning", "2.6.2"), ("lightning", "2.6.3"), ("pytorch-lightning", "2.6.3")]
)
def test_a_forged_release_is_refused_from_its_metadata(tmp_path: Path, monkeypatch, capsys, name, version):
    distribution(tmp_path / "site", name, version)
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    found = findings(capsys, code=2)[name]
    assert found["state"] == "fail" and version in found["what"] and "pip uninstall" in found["mend"]


def test_a_version_outside_the_requirements_is_named_with_the_command_that_mends_it(
    tmp_path, monkeypatch, capsys
):
    distribution(tmp_path / "site", "omegaconf", "1.0")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    found = findings(capsys, code=2)["omegaconf"]
    assert found["state"] == "fail" and found["mend"].startswith("pip install 'omegaconf>=")


def test_an_unreachable_server_is_found_and_a_reachable_one_answers(monkeypatch, capsys):
    class Healthy(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/health" else 404)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Healthy)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://me:xyzzy@127.0.0.1:{server.server_port}")
    found = findings(capsys)["mlflow"]
    assert found["state"] == "ok" and "xyzzy" not in found["what"]
    server.shutdown()
    server.server_close()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound but not listening: a connection is refused
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{taken.getsockname()[1]}")
        found = findings(capsys, code=2)["mlflow"]
    assert found["state"] == "fail" and "tracking.uri" in found["mend"]


def test_a_tracking_file_that_is_no_database_is_found(tmp_path: Path):
    path = tmp_path / "a.db"
    path.write_text("no database at all, but long enough to be read as a header of one" * 20)
    (found,) = checks.mlflow(f"sqlite:///{path}")
    assert found.state == "fail"
    path.unlink()
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE t (x)")
    (found,) = checks.mlflow(f"sqlite:///{path}")
    assert found.state == "ok"


def test_settings_of_the_folder_are_read_and_their_errors_are_findings(tmp_path: Path, capsys):
    Path("llmfw.yaml").write_text("tracking:\n  mlflow: false\nrun:\n  dir: elsewhere/run\n")
    found = findings(capsys)
    assert "mlflow" not in found and found["llmfw.yaml"]["state"] == "ok"
    Path("llmfw.yaml").write_text("seed: x\n")
    assert "llmfw.yaml:1:seed" in findings(capsys, code=2)["llmfw.yaml"]["what"]


def test_a_folder_that_cant_be_made_is_found(tmp_path: Path, capsys):
    Path("llmfw.yaml").write_text("run:\n  dir: /proc/nowhere/run\n")
    found = findings(capsys, code=2)["runs"]
    assert found["state"] == "fail" and "run.dir" in found["mend"]


def test_more_threads_than_cores_are_warned_of(monkeypatch, capsys):
    monkeypatch.setenv("OMP_NUM_THREADS", "4096")
    assert findings(capsys)["threads"]["mend"].startswith("export OMP_NUM_THREADS=")


def test_plugins_with_broken_cards_other_contracts_and_taken_verbs_are_warned_of(tmp_path: Path, capsys):
    write_toy(tmp_path, "unread", "", card="kinds = [\n")
    write_toy(tmp_path, "old", "", card="api = [0, 0]\n")
    write_toy(tmp_path, "thief", "", card='[commands]\nfit = "Taken."\n')
    with installed(tmp_path):
        found = findings(capsys)
    assert {found[f"plugin {name}"]["state"] for name in ("unread", "old", "thief")} == {"warn"}
    assert "'fit'" in found["plugin thief"]["what"]
