"""Broken plugins: unused they cost at most a warning, used they end the command with code 4 and one line that
names plugin, distribution, hook, file and line.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from llmfw import cli
from llmfw.core import discovery
from tests.toys import installed, write_toy
from tests.toys.broken import CLASS, USED, Broken, hook

SMALL = ["model=tiny-llama", "data=rows.jsonl", "tracking.mlflow=false", "trainer.max_steps=1"]


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder to work in, with ``rows.jsonl``, and a folder of installed distributions."""
    rows = [{"id": f"r{i}", "prompt": f"say {i}", "completion": f"it is {i}"} for i in range(10)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    place = tmp_path / "site"
    place.mkdir()
    monkeypatch.chdir(tmp_path)
    with installed(place):
        yield place


def install(site: Path, name: str, broken: Broken) -> None:
    write_toy(site, name, broken.source, card=broken.card)
    discovery.forget()


def told(capfd: pytest.CaptureFixture[str]) -> list[str]:
    return [line for line in capfd.readouterr().err.splitlines() if line.strip()]


def line_of(site: Path, name: str, piece: str) -> int:
    lines = (site / f"toy_{name}" / "plugin.py").read_text().splitlines()
    return next(number for number, line in enumerate(lines, start=1) if piece in line)


def check_line(line: str, site: Path, name: str, broken: Broken) -> None:
    assert line.startswith(f"error[{broken.code}] ")
    for word in (name, *broken.words):
        assert word in line
    if broken.line is not None:
        assert f"toy_{name}/plugin.py:{line_of(site, name, broken.line)}: " in line
        assert f"plugin {name!r} (toy-{name} 1.0)" in line


@pytest.mark.parametrize("name", USED)
def test_used_it_ends_with_code_4_and_one_line(site: Path, capfd, name: str):
    install(site, name, USED[name])
    assert cli.run(["plan", "--plugin", name, *SMALL]) == 4
    lines = told(capfd)
    assert len(lines) == 1, lines
    check_line(lines[0], site, name, USED[name])
    assert not Path("runs").exists()


@pytest.mark.parametrize("name", USED)
def test_unused_it_costs_a_warning_at_most(site: Path, capfd, name: str):
    install(site, name, USED[name])
    for words in (["plan", *SMALL], ["plugins", "list"], ["--help"]):
        assert cli.run(words) == 0
        lines = told(capfd)
        assert len(lines) == (1 if USED[name].seen and words[0] != "--help" else 0), (words, lines)
        assert all(line.startswith("warning: ") and name in line for line in lines)
    assert f"toy_{name}.plugin" not in sys.modules


def test_all_of_them_unused_leave_fit_and_doctor_whole(site: Path, capfd):
    for name, broken in USED.items():
        install(site, name, broken)
    duplicate(site)
    misnamed(site)
    assert cli.run(["fit", *SMALL]) == 0
    warned = [line for line in told(capfd) if line.startswith("warning: ")]
    assert len(warned) == 1 and "twin" in warned[0] and "llmfw plugins list says why" in warned[0]
    assert cli.run(["plugins", "list"]) == 0
    seen = [name for name, broken in USED.items() if broken.seen] + ["twin", "ghost_module", "spaces"]
    lines = told(capfd)
    assert len(lines) == len(seen) - 1  # a module that isn't there is seen when it's imported
    assert cli.run(["doctor", "--quick"]) == 0


def duplicate(site: Path) -> None:
    """One name over two distributions."""
    write_toy(site, "twin", hook("pass"))
    info = site / "other_twin-2.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: other-twin\nVersion: 2.0\n")
    (info / "entry_points.txt").write_text("[llmfw.plugins]\ntwin = other_twin.plugin:Toy\n")
    discovery.forget()


def misnamed(site: Path) -> None:
    """Entry points that lead nowhere, of a distribution without a version."""
    info = site / "ghosts-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: ghosts\n")
    (info / "entry_points.txt").write_text(
        "[llmfw.plugins]\nghost_module = no_such_module.plugin:Toy\nspaces = not a module!\n"
    )
    discovery.forget()


@pytest.mark.parametrize(
    ("name", "code", "words"),
    [
        ("twin", "PLUGIN-TWICE", ("toy-twin 1.0", "other-twin 2.0", "entry_points.txt")),
        (
            "ghost_module",
            "PLUGIN-IMPORT",
            ("ghosts of no version", "ModuleNotFoundError", "entry_points.txt"),
        ),
        ("spaces", "CARD", ("ghosts of no version", "entry_points.txt")),
    ],
)
def test_a_distribution_that_is_wrong_is_named_with_its_entry_points(site: Path, capfd, name, code, words):
    duplicate(site)
    misnamed(site)
    assert cli.run(["plan", "--plugin", name, *SMALL]) == 4
    (line,) = told(capfd)
    assert line.startswith(f"error[{code}]") and all(word in line for word in (name, *words))


def test_a_torn_list_of_entry_points_of_a_stranger_hides_nobody(site: Path, capfd):
    write_toy(site, "whole", hook("pass"))
    info = site / "stranger-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: stranger\nVersion: 1.0\n")
    (info / "entry_points.txt").write_bytes(b"[llmfw.plugins]\n\xff\xfe\n")
    discovery.forget()
    assert cli.run(["plugins", "list"]) == 0
    assert "whole" in capfd.readouterr().out


CALLBACK = """
    @hookimpl
    def llmfw_callbacks(self, run):
        from lightning.pytorch import Callback
        class Counts(Callback):
            def on_train_batch_end(self, trainer, module, outputs, batch, index):
                {act}
        return [Counts()]
"""


def dividing(hook: str, given: str, who: str) -> Broken:
    """A plugin whose hook gives a record, a function of which divides by zero."""
    source = f"{CLASS}    @hookimpl\n    def {hook}:\n        return {given}\n"
    words = (f"{who} ({hook.partition('(')[0]})", "ZeroDivisionError")
    return Broken(source, "PLUGIN-RAISED", words, "1 / 0")


WHILE_TRAINING = {
    "loss_raises": Broken(
        hook("pass").replace("    return llmfw.LossOutput", "    1 / 0\n    return llmfw.LossOutput"),
        "PLUGIN-RAISED", ("call of Loss 'toy' (llmfw_loss)", "ZeroDivisionError"), "1 / 0",
    ),
    "loss_exits": Broken(
        hook("pass").replace("    return llmfw.LossOutput", "    raise SystemExit(0)\n    return 1"),
        "PLUGIN-RAISED", ("call of Loss 'toy' (llmfw_loss)", "SystemExit: 0"), "raise SystemExit",
    ),
    "callback_raises": Broken(
        CLASS + CALLBACK.format(act="1 / 0"),
        "PLUGIN-RAISED", ("Counts.on_train_batch_end", "ZeroDivisionError"), "1 / 0",
    ),
    "callback_exits": Broken(
        CLASS + CALLBACK.format(act="raise SystemExit(0)"),
        "PLUGIN-RAISED", ("Counts.on_train_batch_end", "SystemExit"), "raise SystemExit",
    ),
    "callback_interrupts": Broken(
        CLASS + CALLBACK.format(act="raise KeyboardInterrupt"),
        "PLUGIN-RAISED", ("Counts.on_train_batch_end", "KeyboardInterrupt"), "raise Keyboard",
    ),
    "transform_raises": dividing(
        "llmfw_dataset_transforms(self, run, tokenizer)",
        "[llmfw.DatasetTransform(name='t', stage='rows', apply=lambda rows: 1 / 0)]",
        "transform 't'",
    ),
    "rows_raise": Broken(
        CLASS.replace(
            "class Toy",
            "class Rows(llmfw.DataModule):\n    kind = 'completion'\n    def rows(self, split):\n"
            "        yield {'prompt': 'a', 'completion': 'b'}\n        1 / 0\n\nclass Toy",
        )
        + "    @hookimpl\n    def llmfw_datamodule(self, run, tokenizer):\n        return Rows()\n",
        "PLUGIN-RAISED", ("Rows.rows", "ZeroDivisionError"), "1 / 0",
    ),
    "sampler_raises": dividing(
        "llmfw_sampler(self, run)",
        "llmfw.RolloutSampler(name='s', next=lambda *_: 1 / 0)",
        "next of RolloutSampler 's'",
    ),
    "surgery_raises": dividing(
        "llmfw_surgeries(self, run, model_config)",
        "[llmfw.Surgery(name='s', phase='after_load', apply=lambda model, g: 1 / 0)]",
        "surgery 's', phase after_load",
    ),
    "layer_raises": Broken(
        CLASS + "    @hookimpl\n    def llmfw_surgeries(self, run, model_config):\n"
        "        def apply(model, generator):\n"
        "            def slow(module, inputs, output):\n                1 / 0\n"
        "            model.model.norm.register_forward_hook(slow)\n"
        "            return llmfw.Report(changed=('model.norm',))\n"
        "        return [llmfw.Surgery(name='s', phase='after_load', apply=apply)]\n",
        "PLUGIN-RAISED", ("slow", "ZeroDivisionError"), "                1 / 0",
    ),
    "evaluation_raises": dividing(
        "llmfw_evaluations(self, run)",
        "[llmfw.Evaluation(name='e', run=lambda policy, services: 1 / 0)]",
        "run of Evaluation 'e'",
    ),
    "metric_raises": dividing(
        "llmfw_metrics(self, run, stage)",
        "[llmfw.NamedMetric(name='m', factory=lambda: 1 / 0, update=print)]",
        "factory of NamedMetric 'm'",
    ),
    "service_raises": Broken(
        CLASS + "    @hookimpl\n    def llmfw_services(self, run):\n"
        "        return [llmfw.Service(protocol='P', name='s', factory=lambda: 1 / 0)]\n"
        "    @hookimpl\n    def llmfw_evaluations(self, run):\n"
        "        return [llmfw.Evaluation(name='e', run=lambda policy, services: services('P'))]\n",
        "PLUGIN-RAISED", ("factory of Service 's' (llmfw_services)", "ZeroDivisionError"), "1 / 0",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", WHILE_TRAINING)
def test_while_training_the_run_is_closed_as_failed_and_keeps_the_traceback(site: Path, capfd, name: str):
    broken = WHILE_TRAINING[name]
    install(site, name, broken)
    assert cli.run(["fit", "--plugin", name, *SMALL]) == 4
    lines = [line for line in told(capfd) if line.startswith("error[")]
    assert len(lines) == 1, lines
    check_line(lines[0], site, name, broken)
    (run,) = Path("runs").iterdir()
    assert json.loads((run / "run.json").read_text())["status"] == "FAILED"
    assert f"toy_{name}/plugin.py" in (run / "crash.txt").read_text()


@pytest.mark.parametrize(
    ("name", "source", "words"),
    [
        (
            "decoder_raises",
            CLASS + "    @hookimpl\n    def llmfw_decoder(self, run, model_config):\n"
            "        return llmfw.Decoder(name='d', generate=lambda *_: 1 / 0)\n",
            "generate of Decoder 'd' (llmfw_decoder)",
        ),
        (
            "cache_raises",
            CLASS + "    @hookimpl\n    def llmfw_kv_cache(self, run, model_config):\n"
            "        return llmfw.CacheFactory(name='c', build=lambda config: 1 / 0)\n",
            "build of CacheFactory 'c' (llmfw_kv_cache)",
        ),
    ],
)  # fmt: skip
def test_while_generating_the_plugin_is_named(site: Path, capfd, name: str, source: str, words: str):
    broken = Broken(source, "PLUGIN-RAISED", (words, "ZeroDivisionError"), "1 / 0")
    install(site, name, broken)
    assert cli.run(["generate", "--plugin", name, "--prompt", "hello", "model=tiny-llama"]) == 4
    lines = [line for line in told(capfd) if line.startswith("error[")]
    assert len(lines) == 1
    check_line(lines[0], site, name, broken)


def in_a_process(site: Path, name: str, verb: str, **variables: str) -> tuple[int, list[str], float]:
    environment = {**os.environ, "PYTHONPATH": str(site), **variables}
    start = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "llmfw", verb, "--plugin", name, *SMALL],
        env=environment, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    return done.returncode, [line for line in done.stderr.splitlines() if line], time.monotonic() - start


DEADLY = {
    "import_leaves": Broken(
        "import os; os._exit(0)", "PLUGIN-EXIT", ("its import", "os._exit(0)"), "os._exit"
    ),
    "import_swallows": Broken(
        "import os\ntry:\n    os._exit(0)\nexcept Exception:\n    pass\n" + hook("pass"),
        "PLUGIN-EXIT", ("its import", "os._exit(0)"), "os._exit",
    ),
    "import_kills": Broken(
        "import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "PLUGIN-EXIT", ("its import", "os.kill"),
        "os.kill",
    ),
    "import_becomes": Broken(
        "import os; os.execlp('true', 'true')", "PLUGIN-EXIT", ("its import", "os.execv"), "os.execlp"
    ),
    "hook_leaves": Broken(hook("import os; os._exit(0)"), "PLUGIN-EXIT", ("llmfw_loss",), "os._exit"),
    "thread_leaves": Broken(
        hook(
            "import os, threading, time\n        threading.Thread(target=lambda: os._exit(0)).start()\n"
            "        time.sleep(30)"
        ),
        "PLUGIN-EXIT", ("os._exit(0)",), "os._exit",
    ),
    "thread_is_the_exit": Broken(
        "import os, threading, time\nthreading.Thread(target=os._exit, args=[0]).start()\ntime.sleep(30)\n",
        "PLUGIN-EXIT", ("its import", "os._exit(0)"), None,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", DEADLY)
def test_a_way_out_of_the_process_is_closed(site: Path, name: str):
    install(site, name, DEADLY[name])
    code, lines, _ = in_a_process(site, name, "plan")
    assert code == 4 and len(lines) == 1, (code, lines)
    check_line(lines[0], site, name, DEADLY[name])


@pytest.mark.parametrize("act", ["import os; os._exit(0)", "import os; os.abort()"])
def test_a_callback_cant_end_the_process_either(site: Path, act: str):
    broken = Broken(CLASS + CALLBACK.format(act=act), "PLUGIN-EXIT", ("Counts.on_train_batch_end",), act)
    install(site, "leaver", broken)
    code, lines, _ = in_a_process(site, "leaver", "fit")
    lines = [line for line in lines if line.startswith("error[")]
    assert code == 4 and len(lines) == 1, (code, lines)
    check_line(lines[0], site, "leaver", broken)
    (run,) = Path("runs").iterdir()
    assert json.loads((run / "run.json").read_text())["status"] == "FAILED"


HANGS = {
    "sleeps": "import time; time.sleep(100)",
    "computes": "while True: pass",
    "waits": "import threading; held = threading.Lock(); held.acquire(); held.acquire()",
}


@pytest.mark.parametrize("how", HANGS)
def test_an_import_that_hangs_is_warned_of_then_ended_and_named(site: Path, how: str):
    broken = Broken(HANGS[how], "PLUGIN-HANGS", ("its import", "for 1 s", "LLMFW_PLUGIN_SECONDS"), HANGS[how])
    install(site, how, broken)
    code, lines, seconds = in_a_process(site, how, "plan", LLMFW_PLUGIN_SECONDS="0.2")
    assert code == 4 and len(lines) == 2, (code, lines)
    assert lines[0].startswith("warning: ") and "for 0.2 s" in lines[0] and "plugin.py:1" in lines[0]
    check_line(lines[1], site, how, broken)
    assert seconds < 30


def test_a_hook_that_hangs_is_ended_and_named(site: Path):
    broken = Broken(
        hook("import time; time.sleep(100)"), "PLUGIN-HANGS", ("llmfw_loss", "for 1 s"), "time.sleep"
    )
    install(site, "sleeper", broken)
    code, lines, _ = in_a_process(site, "sleeper", "plan", LLMFW_PLUGIN_SECONDS="1")
    assert code == 4 and len(lines) == 1, (code, lines)
    check_line(lines[0], site, "sleeper", broken)


def test_a_factory_that_hangs_inside_a_run_closes_it_as_failed(site: Path):
    source = CLASS + (
        "    @hookimpl\n    def llmfw_metrics(self, run, stage):\n"
        "        return [llmfw.NamedMetric(name='m', factory=slow, update=print)]\n\n"
        "def slow():\n    import time; time.sleep(100)\n"
    )
    broken = Broken(source, "PLUGIN-HANGS", ("factory of NamedMetric 'm' (llmfw_metrics)",), "time.sleep")
    install(site, "slow", broken)
    code, lines, _ = in_a_process(site, "slow", "fit", LLMFW_PLUGIN_SECONDS="1")
    assert code == 4 and lines[-1].startswith("error[PLUGIN-HANGS]")
    check_line(lines[-1], site, "slow", broken)
    (run,) = Path("runs").iterdir()
    told = json.loads((run / "run.json").read_text())
    assert told["status"] == "FAILED" and told["ended"]
    assert json.loads((run / "journal.jsonl").read_text().splitlines()[-1])["status"] == "FAILED"
    assert "time.sleep(100)" in (run / "crash.txt").read_text()


def test_a_limit_that_is_no_number_is_refused(site: Path, capfd, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("LLMFW_PLUGIN_SECONDS", "soon")
    write_toy(site, "fine", hook("pass"))
    discovery.forget()
    assert cli.run(["plan", "--plugin", "fine", *SMALL]) == 2
    (line,) = told(capfd)
    assert line.startswith("error[PLUGIN-SECONDS] LLMFW_PLUGIN_SECONDS: 'soon'")


def test_outside_a_run_a_layer_cant_end_the_process_either(site: Path):
    source = CLASS + (
        "    @hookimpl\n    def llmfw_surgeries(self, run, model_config):\n"
        "        def apply(model, generator):\n"
        "            def leave(module, inputs, output):\n                import os; os._exit(0)\n"
        "            model.model.norm.register_forward_hook(leave)\n"
        "            return llmfw.Report(changed=('model.norm',))\n"
        "        return [llmfw.Surgery(name='s', phase='after_load', apply=apply)]\n"
    )
    broken = Broken(source, "PLUGIN-EXIT", ("leave", "os._exit(0)"), "os._exit")
    install(site, "leaver", broken)
    code, lines, _ = in_a_process(site, "leaver", "evaluate")
    lines = [line for line in lines if line.startswith("error[")]
    assert code == 4 and len(lines) == 1, (code, lines)
    check_line(lines[0], site, "leaver", broken)


def test_a_plugins_own_verb_may_end_with_a_code_of_its_own(site: Path, capfd):
    source = CLASS + (
        "    @hookimpl\n    def llmfw_commands(self):\n"
        "        def factory():\n            import click\n"
        "            return click.Command('leave', callback=lambda: exit(3))\n"
        "        return [llmfw.Command(name='leave', help='Leave.', factory=factory)]\n"
    )
    write_toy(site, "leaver", source, card='[commands]\nleave = "Leave."\n')
    discovery.forget()
    assert cli.run(["leave"]) == 3 and told(capfd) == []


@pytest.mark.parametrize(
    ("change", "code", "piece"),
    [
        (("def factory():", "def factory():\n            1 / 0"), "PLUGIN-RAISED", "1 / 0"),
        (
            ("return [llmfw", "raise SystemExit(0)\n        return [llmfw"),
            "PLUGIN-RAISED",
            "raise SystemExit",
        ),
        (("name='leave', help", "name='other', help"), "PLUGIN-COMMAND", "@hookimpl"),
        (("factory=factory", "factory='no'"), "PLUGIN-COMMAND", "@hookimpl"),
        (("return click.Command", "return str"), "PLUGIN-RAISED", "return str"),
    ],
)
def test_a_verb_that_cant_be_had_names_its_plugin(site: Path, capfd, change, code: str, piece: str):
    source = CLASS + (
        "    @hookimpl\n    def llmfw_commands(self):\n"
        "        def factory():\n            import click\n"
        "            return click.Command('leave', callback=print)\n"
        "        return [llmfw.Command(name='leave', help='Leave.', factory=factory)]\n"
    ).replace(*change)
    broken = Broken(source, code, ("llmfw_commands",), piece, card='[commands]\nleave = "Leave."\n')
    install(site, "verb", broken)
    assert cli.run(["--help"]) == 0 and told(capfd) == []
    assert cli.run(["leave"]) == 4
    (line,) = told(capfd)
    check_line(line, site, "verb", broken)
