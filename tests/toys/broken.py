"""Plugins that are broken in every way we know; each is called after its breakage."""

from __future__ import annotations

from dataclasses import dataclass

from tests.toys.sources import HEAD

CLASS = HEAD + "\nclass Toy(Plugin):\n"
LOSS = """
    @hookimpl
    def llmfw_loss(self, run, tokenizer, model_config):
        {before}
        return llmfw.Loss(name="toy", call=call, batch_kind="text", unit="tokens")

def call(policy, batch, reference):
    return llmfw.LossOutput(total=-policy.logps(batch).sum())
"""


@dataclass(frozen=True)
class Broken:
    """``code`` and ``words`` are what the error says when the plugin is used; ``line`` is a piece of the line
    of plugin.py that it points at (None: another file); ``seen`` says that it's seen without an import.
    """

    source: str
    code: str
    words: tuple[str, ...]
    line: str | None
    card: str | None = ""
    seen: bool = False


def hook(before: str) -> str:
    """A plugin with a loss, whose hook does something first."""
    return CLASS + LOSS.format(before=before)


def top(statement: str) -> str:
    """A plugin with a loss, whose module does something first."""
    return statement + "\n" + hook("pass")


def record(**changes: str) -> str:
    """A plugin whose loss has other fields."""
    source = hook("pass")
    for name, value in changes.items():
        start = source.index(f"{name}=", source.index("llmfw.Loss("))
        stop = min(i for i in (source.find(",", start), source.find(")", start)) if i > 0)
        source = source[:start] + f"{name}={value}" + source[stop:]
    return source


def thief(statement: str, word: str, line: str | None = None) -> Broken:
    """Takes something in its hook."""
    return Broken(hook(statement), "PLUGIN-THIEF", ("llmfw_loss", word, "put back"), line or statement)


HOOK = "def llmfw_loss"
USED = {
    "import_error": Broken(
        top("import no_such_library"),
        "PLUGIN-IMPORT",
        ("its import", "ModuleNotFoundError"),
        "import no_such",
    ),
    "syntax_error": Broken(
        hook("pass") + "\ndef broken(:\n", "PLUGIN-IMPORT", ("its import", "SyntaxError"), "def broken"
    ),
    "import_raises": Broken(top("1 / 0"), "PLUGIN-IMPORT", ("its import", "ZeroDivisionError"), "1 / 0"),
    "import_exits": Broken(
        top("raise SystemExit(0)"), "PLUGIN-IMPORT", ("its import", "SystemExit: 0"), "raise SystemExit"
    ),
    "import_interrupts": Broken(
        top("raise KeyboardInterrupt"), "PLUGIN-IMPORT", ("KeyboardInterrupt",), "raise Keyboard"
    ),
    "import_base": Broken(
        top("class Odd(BaseException): pass\nraise Odd('x')"), "PLUGIN-IMPORT", ("Odd: x",), "raise Odd"
    ),
    "import_seeds": Broken(
        top("import random; random.seed(0)"), "PLUGIN-THIEF", ("its import", "Python's random"), "random.seed"
    ),
    "no_class": Broken(HEAD, "PLUGIN-IMPORT", ("has no Toy",), ""),
    "no_plugin": Broken("class Toy: pass", "PLUGIN-CLASS", ("llmfw.Plugin",), "class Toy"),
    "no_hook": Broken(CLASS + "    pass", "PLUGIN-SILENT", ("answers no hook",), ""),
    "config_is_none": Broken(CLASS + "    Config = int\n" + LOSS, "PLUGIN-CONFIG", ("no dataclass",), None),
    "config_default": Broken(
        HEAD
        + "import dataclasses\nclass Toy(Plugin):\n    @dataclass\n    class Config:\n"
        + "        sizes: list[int] = dataclasses.field(default_factory=lambda: 1 / 0)\n"
        + LOSS.format(before="pass"),
        "PLUGIN-CONFIG",
        ("its Config", "ZeroDivisionError"),
        "sizes:",
    ),
    "config_exits": Broken(
        CLASS + "    @dataclass\n    class Config:\n        size: int = 1\n        def __post_init__(self):\n"
        "            raise SystemExit(0)\n" + LOSS.format(before="pass"),
        "PLUGIN-CONFIG",
        ("its Config", "SystemExit"),
        "raise SystemExit",
    ),
    "init_raises": Broken(
        CLASS + "    def __init__(self, config):\n        raise SystemExit(0)\n" + LOSS.format(before="pass"),
        "PLUGIN-RAISED",
        ("its __init__", "SystemExit: 0"),
        "raise SystemExit",
    ),
    "registration": Broken(
        CLASS + "    def __dir__(self):\n        raise SystemExit(0)\n" + LOSS.format(before="pass"),
        "PLUGIN-RAISED",
        ("its registration", "SystemExit"),
        "raise SystemExit",
    ),
    "misspelt_hook": Broken(
        hook("pass").replace("llmfw_loss", "llmfw_los"),
        "PLUGIN-HOOK",
        ("llmfw_los,", "llmfw_loss?"),
        "@hookimpl",
    ),
    "misspelt_prefix": Broken(
        hook("pass").replace("llmfw_loss", "lmfw_loss"),
        "PLUGIN-HOOK",
        ("lmfw_loss,", "llmfw_loss?"),
        "@hookimpl",
    ),
    "unmarked_hook": Broken(
        hook("pass") + "\nToy.llmfw_sampler = lambda self, run: None\n",
        "PLUGIN-HOOK",
        ("llmfw_sampler", "mark"),
        "Toy.llmfw_sampler",
    ),
    "wrong_argument": Broken(
        hook("pass").replace("tokenizer, model", "tokeniser, model"),
        "PLUGIN-HOOK",
        ("llmfw_loss", "'tokeniser'", "did you mean tokenizer?"),
        "@hookimpl",
    ),
    "hook_raises": Broken(hook("1 / 0"), "PLUGIN-RAISED", ("llmfw_loss", "ZeroDivisionError"), "1 / 0"),
    "hook_exits": Broken(
        hook("raise SystemExit(0)"), "PLUGIN-RAISED", ("llmfw_loss", "SystemExit: 0"), "raise SystemExit"
    ),
    "hook_interrupts": Broken(
        hook("raise KeyboardInterrupt"), "PLUGIN-RAISED", ("llmfw_loss", "KeyboardInterrupt"), "raise Keyb"
    ),
    "hook_generates": Broken(
        CLASS + "    @hookimpl\n    def llmfw_evaluations(self, run):\n        yield 1\n",
        "PLUGIN-RECORD",
        ("generator", "llmfw_evaluations", "list"),
        "@hookimpl",
    ),
    "no_record": Broken(
        hook("return {'name': 'toy'}"), "PLUGIN-RECORD", ("dict", "llmfw_loss", "llmfw.Loss"), "@hookimpl"
    ),
    "other_record": Broken(
        hook("return llmfw.Report()"), "PLUGIN-RECORD", ("Report", "llmfw_loss", "llmfw.Loss"), "@hookimpl"
    ),
    "unknown_unit": Broken(
        record(unit='"token"'),
        "PLUGIN-RECORD",
        ("llmfw_loss", "unit is 'token'", "tokens, sequences"),
        "@hookimpl",
    ),
    "unknown_kind": Broken(
        record(batch_kind='"texts"'), "PLUGIN-RECORD", ("llmfw_loss", "batch_kind is 'texts'"), "@hookimpl"
    ),
    "nameless": Broken(record(name="7"), "PLUGIN-RECORD", ("llmfw_loss", "name is 7, not text"), "@hookimpl"),
    "no_function": Broken(
        record(call="'call'"), "PLUGIN-RECORD", ("llmfw_loss", "call is 'call', not a function"), "@hookimpl"
    ),
    "unknown_stage": Broken(
        CLASS + "    @hookimpl\n    def llmfw_dataset_transforms(self, run, tokenizer):\n"
        "        return [llmfw.DatasetTransform(name='t', stage='row', apply=list)]\n",
        "PLUGIN-RECORD",
        ("llmfw_dataset_transforms", "stage is 'row'"),
        "@hookimpl",
    ),
    "unknown_phase": Broken(
        CLASS + "    @hookimpl\n    def llmfw_surgeries(self, run, model_config):\n"
        "        return [llmfw.Surgery(name='s', phase='after', apply=print, refuses='packing')]\n",
        "PLUGIN-RECORD",
        ("llmfw_surgeries", "phase is 'after'"),
        "@hookimpl",
    ),
    "word_for_a_tuple": Broken(
        CLASS + "    @hookimpl\n    def llmfw_surgeries(self, run, model_config):\n"
        "        return [llmfw.Surgery(name='s', phase='after_load', apply=print, refuses='packing')]\n",
        "PLUGIN-RECORD",
        ("llmfw_surgeries", "refuses is 'packing', not a tuple of"),
        "@hookimpl",
    ),
    "no_callback": Broken(
        CLASS + "    @hookimpl\n    def llmfw_callbacks(self, run):\n        return [print]\n",
        "PLUGIN-RECORD",
        ("llmfw_callbacks", "Lightning callbacks"),
        "@hookimpl",
    ),
    "no_datamodule": Broken(
        CLASS + "    @hookimpl\n    def llmfw_datamodule(self, run, tokenizer):\n        return [1]\n",
        "PLUGIN-RECORD",
        ("llmfw_datamodule", "llmfw.DataModule"),
        "@hookimpl",
    ),
    "seeds_python": thief("import random; random.seed(0)", "Python's random numbers"),
    "seeds_numpy": thief("import numpy; numpy.random.seed(0)", "numpy's random numbers"),
    "seeds_torch": thief("import torch; torch.manual_seed(0)", "torch's random numbers"),
    "draws_torch": thief("import torch; torch.randn(3)", "torch's random numbers"),
    "takes_threads": thief(
        "import torch; torch.set_num_threads(torch.get_num_threads() + 1)", "thread count"
    ),
    "takes_dtype": thief("import torch; torch.set_default_dtype(torch.float64)", "default dtype"),
    "takes_gradients": thief("import torch; torch.set_grad_enabled(False)", "gradient mode"),
    "takes_folder": thief("import os; os.chdir('/')", "the working folder"),
    "takes_variables": thief("import os; os.environ['OMP_NUM_THREADS'] = '7'", "environment variables"),
    "takes_signals": thief("import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)", "signal handlers"),
    "takes_output": thief("import sys, io; sys.stderr = io.StringIO()", "standard output"),
    "takes_warnings": thief("import warnings; warnings.simplefilter('ignore')", "warnings' filters"),
    "other_api": Broken(
        hook("pass"), "PLUGIN-API", ("hooks 7 to 8",), None, card="api = [7, 8]\n", seen=True
    ),
    "torn_card": Broken(hook("pass"), "CARD", ("card.toml", "unreadable"), None, card="kinds = [", seen=True),
    "wrong_card": Broken(hook("pass"), "CARD", ("card.toml", "kinds"), None, card="kinds = 3\n", seen=True),
}
"""Broken when it's imported, built or asked, so that no run begins."""
