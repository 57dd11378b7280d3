"""The command line: what it imports, how it fails, which verbs it has."""

from __future__ import annotations

import errno
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import click
import pytest

from llmfw import cli
from tests.toys import installed, write_toy

HEAVY = ("torch", "transformers", "lightning", "mlflow", "peft", "datasets", "pyarrow", "plotly")
VERB = """
import click, llmfw
from llmfw import Plugin, hookimpl

class Toy(Plugin):
    @hookimpl
    def llmfw_commands(self):
        def factory():
            @click.command("greet")
            @click.argument("name")
            def greet(name):
                if name == "nobody":
                    raise RuntimeError("nobody is there")
                click.echo(f"hello {name}")
            return greet
        return [llmfw.Command(name="greet", help="Say hello.", factory=factory)]
"""
CARD = '[commands]\ngreet = "Say hello."\n'


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder of its own, because a crash leaves its traceback in the current one."""
    monkeypatch.chdir(tmp_path)


def failing(monkeypatch: pytest.MonkeyPatch, error: BaseException, name: str = "doctor") -> None:
    """Let a verb fail with ``error``."""

    @click.command(name)
    def command() -> None:
        raise error

    monkeypatch.setattr(cli, "_core_command", lambda verb: command)


def lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return capsys.readouterr().err.splitlines()


def test_help_plugins_config_and_mistyped_keys_import_nothing_heavy_and_help_no_verb():
    program = f"""
import sys
from llmfw.cli import run
codes = [run(["--help"]), run([]), run(["--version"])]
assert not [name for name in sys.modules if name.startswith("llmfw.verbs.")], "a verb was imported"
codes += [run(["plugins"]), run(["config"]), run(["config", "--keys"]), run(["completion", "bash"])]
wrong = [run([verb, "optimizer.lrr=1"]) for verb in ("fit", "plan", "config")]
heavy = [name for name in {HEAVY!r} if name in sys.modules]
assert not heavy, heavy
assert codes == [0] * 7 and wrong == [2] * 3, (codes, wrong)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "fit" in done.stdout and "chat" in done.stdout


@pytest.mark.parametrize("verb", cli.CORE)
def test_every_verb_of_the_table_has_a_module(verb: str):
    assert importlib.util.find_spec(f"llmfw.verbs.{verb}") is not None


def test_train_is_fit(capsys: pytest.CaptureFixture[str]):
    assert cli.run(["train", "--help"]) == 0
    assert "--resume" in capsys.readouterr().out


def test_verbs_with_settings_say_where_the_keys_are_listed(capsys: pytest.CaptureFixture[str]):
    assert cli.run(["fit", "--help"]) == 0
    assert "llmfw config --keys" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "code", "line"),
    [
        (["fti"], 2, "error[USAGE] there is no verb 'fti'; did you mean fit?"),
        (
            ["seed=3"],
            2,
            "error[USAGE] there is no verb 'seed=3'; settings stand behind a verb",
        ),
        (["config", "--keys", "--json"], 2, "error[USAGE] choose one of"),
        (["config", "--nonsense"], 2, "error[USAGE] No such option"),
        (["completion", "tcsh"], 2, "error[USAGE] Invalid value for"),
        (["--nonsense"], 2, "error[USAGE] No such option"),
        (["config", "optimizer.lrr=1"], 2, "error[CONFIG-KEY] optimizer.lrr: no such setting; did you mean"),
        (
            ["config", "--plugin", "nowhere"],
            2,
            "error[PLUGIN-UNKNOWN] --plugin: no plugin 'nowhere'",
        ),
        (["config", "--config", "none.yaml"], 2, "error[CONFIG-FILE] none.yaml: can't be read"),
    ],
)
def test_a_wrong_command_line_is_one_line_and_code_2(
    capsys: pytest.CaptureFixture[str], words: list[str], code: int, line: str
):
    assert cli.run(words) == code
    (said,) = lines(capsys)
    assert said.startswith(line)


def test_a_bug_is_one_line_its_traceback_is_kept(
    monkeypatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
):
    failing(monkeypatch, KeyError("oh\nno"))
    assert cli.run(["doctor"]) == 1
    (line,) = lines(capsys)
    assert line.startswith("error[BUG] KeyError: ") and "llmfw-crash.txt" in line
    assert "Traceback" in (tmp_path / "llmfw-crash.txt").read_text()


def test_a_bug_inside_a_run_is_kept_in_the_runs_folder(monkeypatch, capsys, tmp_path: Path):
    error = ValueError("broken")
    error.run_dir = tmp_path / "runs" / "a"
    error.run_dir.mkdir(parents=True)
    failing(monkeypatch, error)
    assert cli.run(["doctor"]) == 1
    assert "runs/a/crash.txt" in lines(capsys)[0]
    assert "ValueError: broken" in (error.run_dir / "crash.txt").read_text()
    assert not (tmp_path / "llmfw-crash.txt").exists()


@pytest.mark.parametrize("words", [["--debug", "doctor"], ["doctor", "--debug"]])
def test_debug_shows_the_traceback_before_the_line(monkeypatch, capsys, words: list[str]):
    from llmfw.core.errors import DataError

    failing(monkeypatch, DataError("ROW", "a row is wrong", mend="mend it", file="x.jsonl", line=3))
    assert cli.run(words) == 3
    said = lines(capsys)
    assert said[0].startswith("Traceback") and said[-1] == "error[ROW] x.jsonl:3: a row is wrong; mend it"
    assert cli.run(["doctor"]) == 3
    assert len(lines(capsys)) == 1


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (KeyboardInterrupt(), 130, "error[INTERRUPTED]"),
        (click.Abort(), 130, "error[INTERRUPTED]"),
        (MemoryError(), 6, "error[MEMORY]"),
        (
            OSError(errno.ENOSPC, "No space left on device", "/data/x"),
            6,
            "error[DISK-FULL] /data/x: No space left",
        ),
        (
            PermissionError(errno.EACCES, "Permission denied", "/proc/x"),
            2,
            "error[PERMISSION] /proc/x: Permission",
        ),
        (EOFError("truncated"), 1, "error[BUG] EOFError"),
        (BrokenPipeError(errno.EPIPE, "a worker died"), 1, "error[BUG] BrokenPipeError"),
    ],
)
def test_other_failures_have_their_code_and_one_line(
    monkeypatch, capsys, error: BaseException, code: int, line: str
):
    failing(monkeypatch, error)
    assert cli.run(["doctor"]) == code
    said = [part for part in lines(capsys) if part]
    assert len(said) == 1 and said[0].startswith(line)


def test_a_reader_that_goes_away_ends_it_quietly():
    command = f"{sys.executable} -m llmfw.cli config --keys | head -n 1; echo ${{PIPESTATUS[0]}}"
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, env=environment)
    assert done.stderr == ""
    assert done.stdout.splitlines()[-1] in ("0", "141")


def test_plugins_bring_verbs_that_help_shows_without_importing_them(tmp_path: Path, capsys):
    write_toy(tmp_path, "greeter", VERB, card=CARD)
    with installed(tmp_path):
        assert cli.run(["--help"]) == 0
        assert "greet" in capsys.readouterr().out
        assert "toy_greeter.plugin" not in sys.modules
        assert cli.run(["greet", "world"]) == 0
        assert capsys.readouterr().out == "hello world\n"


def test_what_a_plugins_verb_raises_is_the_plugins_error(tmp_path: Path, capsys):
    write_toy(tmp_path, "greeter", VERB, card=CARD)
    with installed(tmp_path):
        assert cli.run(["greet", "nobody"]) == 4
        (line,) = lines(capsys)
        assert "toy-greeter 1.0" in line and "nobody is there" in line and "plugin.py:13" in line
        assert cli.run(["greet"]) == 2


@pytest.mark.parametrize(
    ("source", "code"),
    [
        (VERB.replace("def factory():", "raise SystemExit(0)\n        def factory():"), "PLUGIN-RAISED"),
        (VERB.replace('name="greet"', 'name="other"'), "PLUGIN-COMMAND"),
        ("raise SystemExit(0)", "PLUGIN-IMPORT"),
    ],
)
def test_a_verb_that_cant_be_built_is_the_plugins_error(tmp_path: Path, capsys, source: str, code: str):
    write_toy(tmp_path, "greeter", source, card=CARD)
    with installed(tmp_path):
        assert cli.run(["greet", "world"]) == 4
        assert lines(capsys)[0].startswith(f"error[{code}]")


def test_two_plugins_with_one_verb_are_a_conflict_and_core_verbs_cant_be_taken(tmp_path: Path, capsys):
    write_toy(tmp_path, "greeter", VERB, card=CARD)
    write_toy(tmp_path, "waver", VERB, card=CARD)
    write_toy(tmp_path, "thief", VERB, card='[commands]\nplugins = "Taken."\n')
    with installed(tmp_path):
        assert cli.run(["greet", "world"]) == 2
        assert "'greeter'" in (line := lines(capsys)[0]) and "'waver'" in line
        assert cli.run(["plugins"]) == 0
        assert "thief" in capsys.readouterr().out


def completed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], line: str) -> list[str]:
    """What bash's script would get for a line."""
    words = line.split()
    monkeypatch.setenv("_LLMFW_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_WORDS", line)
    monkeypatch.setenv("COMP_CWORD", str(len(words) if line.endswith(" ") else len(words) - 1))
    assert cli.run([]) == 0
    return [answer.partition(",")[2] for answer in capsys.readouterr().out.splitlines() if answer]


@pytest.mark.parametrize(
    ("line", "answers"),
    [
        ("llmfw comp", ["compare", "completion"]),
        ("llmfw config optimizer.sch", ["optimizer.schedule="]),
        ("llmfw config optimizer.schedule=co", ["optimizer.schedule=constant", "optimizer.schedule=cosine"]),
        ("llmfw config data.packing=", ["data.packing=true", "data.packing=false"]),
        (
            "llmfw config model=tiny",
            [f"model=tiny-{name}" for name in ("lfm2", "llama", "mamba", "math", "mixtral")],
        ),
        ("llmfw config --plugin gree", ["greeter"]),
        ("llmfw config --plugin greeter greeter.", ["greeter.size="]),
        ("llmfw config greeter.", []),
    ],
)
def test_verbs_plugins_keys_and_words_are_completed(
    tmp_path: Path, monkeypatch, capsys, line: str, answers: list[str]
):
    config = "    @dataclass\n    class Config:\n        size: int = 1\n\n    @hookimpl"
    source = "from dataclasses import dataclass\n" + VERB.replace("    @hookimpl", config)
    write_toy(tmp_path, "greeter", source, card=CARD)
    with installed(tmp_path):
        assert completed(monkeypatch, capsys, line) == answers


def test_bash_continues_a_key_and_replaces_only_what_stands_behind_the_equals_sign(tmp_path: Path):
    from llmfw.verbs.completion import script

    program = (
        script("bash")
        + """
ask() { COMP_LINE="$1"; COMP_POINT=${#1}; _llmfw_completion llmfw; printf '%s|' "${COMPREPLY[@]}"; echo; }
llmfw() { :; }
"""
        + f'env() {{ command env "${{@:1:$#-1}}" {sys.executable} -m llmfw.cli; }}\n'
        + "ask 'llmfw config optimizer.sch'\nask 'llmfw config optimizer.schedule=co'\nask 'llmfw conf'\n"
    )
    done = subprocess.run(["bash", "-c", program], capture_output=True, text=True)
    assert done.stdout.splitlines() == ["optimizer.schedule=|", "constant |cosine |", "config |"], done.stderr


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_has_a_script(shell: str, capsys):
    assert cli.run(["completion", shell]) == 0
    assert "_LLMFW_COMPLETE" in capsys.readouterr().out


def test_the_folders_llmfw_yaml_is_used_and_said_unless_another_file_is_named(tmp_path: Path, capsys):
    Path("llmfw.yaml").write_text("seed: 7\n")
    Path("other.yaml").write_text("run:\n  name: x\n")
    assert cli.run(["config", "--json"]) == 0
    said = capsys.readouterr()
    assert json.loads(said.out)["seed"] == 7 and "llmfw.yaml" in said.err
    assert cli.run(["config", "--json", "--config", "other.yaml"]) == 0
    said = capsys.readouterr()
    assert json.loads(said.out)["seed"] == 42 and said.err == ""
