"""Unknown keys and wrong values are refused in one line; right ones keep their types."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmfw.core.config import load_config
from llmfw.core.errors import PluginError, UsageError
from tests.core.config.helpers import SOURCE, file, refused
from tests.toys import installed, write_toy


def one(key: str, override: str, **layers: object) -> object:
    return load_config(overrides=[override], **layers).flat()[key]


@pytest.mark.parametrize(
    ("key", "mend"),
    [
        ("first.alhpa", "did you mean first.alpha?"),
        ("optimizer.lrr", "did you mean optimizer.lr?"),
        ("optimizr.lr", "did you mean optimizer.lr?"),
        ("lr", "did you mean optimizer.lr?"),
        ("learning_rate", "did you mean optimizer.lr?"),
        ("trainer.max_step", "did you mean trainer.max_steps?"),
        ("trainer.early_stopping.patince", "did you mean trainer.early_stopping.patience?"),
        ("optimiser", "did you mean optimizer?"),
        (
            "tokenizer.xyzzy",
            "tokenizer has tokenizer.name, tokenizer.template, tokenizer.train, tokenizer.vocab_size",
        ),
        ("xyzzy", "llmfw config --keys lists them"),
        ("seed.x", "write seed=VALUE"),
        ("optimizer.lr.x", "write optimizer.lr=VALUE"),
        ("second.alpha", "add --plugin second"),
        ("secnd.alpha", "if it's meant, add --plugin second and write second.alpha"),
        ("second", "add --plugin second"),
    ],
)
def test_an_unknown_key_is_refused_with_what_may_be_meant(site: Path, key: str, mend: str):
    error = refused(plugins=["first"], overrides=[f"{key}=1"])
    assert (error.code, error.key) == ("CONFIG-KEY", key)
    assert error.mend == mend


def test_a_key_of_an_installed_plugin_that_is_off_is_called_so(site: Path, tmp_path: Path):
    error = refused(files=[file(tmp_path, "seed: 1\n\nsecond:\n  alpha: 1\n")])
    assert "installed but not switched on" in error.what
    assert (error.line, error.key) == (3, "second.alpha")


@pytest.mark.parametrize(
    ("override", "code", "words"),
    [
        ("optimizer.lr=fast", "CONFIG-TYPE", "a number is expected, not text ('fast')"),
        ("optimizer.lr=true", "CONFIG-TYPE", "a number is expected, not a boolean"),
        ("optimizer.lr=.nan", "CONFIG-TYPE", "not a number (NaN)"),
        ("optimizer.lr=.inf", "CONFIG-RANGE", "isn't finite"),
        ("optimizer.lr=-1", "CONFIG-RANGE", "it must be at least 0"),
        ("optimizer.lr=null", "CONFIG-TYPE", "null"),
        ("trainer.micro_batch=1.5", "CONFIG-TYPE", "a whole number or auto is expected, not a number (1.5)"),
        ("trainer.micro_batch=4.0", "CONFIG-TYPE", "write trainer.micro_batch=4"),
        ("trainer.micro_batch=010", "CONFIG-TYPE", "a whole number or auto is expected, not text ('010')"),
        ("trainer.micro_batch=0", "CONFIG-RANGE", "at least 1"),
        ("trainer.max_steps=12:30:00", "CONFIG-TYPE", "a whole number"),
        ("data.packing=yes", "CONFIG-TYPE", "write data.packing=true or data.packing=false"),
        ("data.packing=1", "CONFIG-TYPE", "true or false"),
        ("run.name=true", "CONFIG-TYPE", "put it in quotes"),
        ("adapter.kind=lroa", "CONFIG-CHOICE", "did you mean lora?"),
        ("trainer.precision=64", "CONFIG-CHOICE", "choose one of 32-true"),
        ("first.mode=none", "CONFIG-CHOICE", "choose one of both, one"),
        ("first.word=c", "CONFIG-CHOICE", "choose one of a, b"),
        ("first.alpha=1.5", "CONFIG-RANGE", "at least 0 and at most 1"),
        ("first.sizes=3", "CONFIG-TYPE", "write first.sizes=[3]"),
        ("first.sizes=[a]", "CONFIG-TYPE", "first.sizes[0]"),
        ("adapter=lora", "CONFIG-TYPE", "set one of adapter.kind"),
        ("adapter.target_modules=all-linear", "CONFIG-TYPE", "write adapter.target_modules=[all-linear]"),
        ("tracking.tags=x", "CONFIG-TYPE", "a mapping is expected"),
        ("optimizer.betas=[0.9]", "CONFIG-RANGE", "two are expected"),
        ("optimizer.betas=[0.9,1.0]", "CONFIG-RANGE", "below 1"),
        ("checkpoint.keep=1", "CONFIG-RANGE", "at least 2"),
        ("data.validation=1.5", "CONFIG-RANGE", "share"),
        ("run.name=a/b", "CONFIG-RANGE", "folder"),
        ("seed=4294967296", "CONFIG-RANGE", "out of range"),
        ("seed=99999999999999999999", "CONFIG-RANGE", "too large"),
        ("trainer.max_steps=", "CONFIG-VALUE", "trainer.max_steps=null"),
        ("trainer.max_steps", "CONFIG-ARGUMENT", "KEY=VALUE"),
        ("=3", "CONFIG-ARGUMENT", "KEY=VALUE"),
        ("a..b=3", "CONFIG-ARGUMENT", "KEY=VALUE"),
        ("run.name=[", "CONFIG-VALUE", "can't be parsed"),
        ("model.name=!!python/name:os.system", "CONFIG-VALUE", "tag"),
        ("model=null", "CONFIG-TYPE", "a group of settings can't be null"),
        ("model.name=???", "CONFIG-MISSING", "a value is needed"),
    ],
)
def test_a_wrong_value_is_refused_in_one_line(site: Path, override: str, code: str, words: str):
    error = refused(plugins=["first"], overrides=[override])
    assert (error.code, error.exit_code) == (code, 2)
    assert words in str(error)


NASTY = [
    "",
    "null",
    "1e400",
    "9" * 5000,
    "a" * 5000,
    "\udcff",
    "\x00",
    "[",
    "{a: {b: [c]}}",
    "${seed}",
    "${model}",
]


NASTY += ["${..seed}", "\\${x}", "???", "[${seed}]", "-1", ".nan", "yes", "[]", "{}", "*a", "!!x y", "{1: 2}"]


ODD_KEYS = [
    "",
    ".",
    "a..b",
    "model",
    "models.a",
    "models.a.config.x",
    "plugins",
    "seed.x",
    "data.options",
    "${a}",
]


ODD_KEYS += ["tracking.tags.x.y", "model.config.x", "\udcff", "x\ny", "optimizer.betas[0]", "model.__class__"]


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from([*load_config().flat(), *ODD_KEYS]),
            st.sampled_from(NASTY) | st.text(max_size=8),
        ),
        min_size=1,
        max_size=3,
    )
)
def test_any_override_is_a_setting_or_a_refusal_in_one_line(pairs: list[tuple[str, str]]):
    refusals: list[str] = []
    try:
        load_config(overrides=[f"{key}={value}" for key, value in pairs]).to_yaml()
    except UsageError as error:
        refusals.append(str(error))
    assert all(
        "\n" not in line and line.startswith("error[CONFIG-") for line in refusals if "PLUGIN" not in line
    )


def test_a_wrong_value_in_a_file_is_named_by_file_line_and_key(tmp_path: Path):
    path = file(tmp_path, "trainer:\n  early_stopping:\n    mode: mid\n")
    assert str(refused(files=[path])).startswith(
        f"error[CONFIG-CHOICE] {path}:3:trainer.early_stopping.mode: "
    )
    path = file(tmp_path, "seed: 1\noptimizer:\n  lr: -1e-5\n")
    assert str(refused(files=[path])).startswith(f"error[CONFIG-RANGE] {path}:3:optimizer.lr: ")
    path = file(tmp_path, "generation:\n  stop:\n  - a\n  - [b]\n")
    assert str(refused(files=[path])).startswith(f"error[CONFIG-TYPE] {path}:4:generation.stop[1]: ")


def test_numbers_stand_as_written_where_text_is_wanted():
    assert one("model.revision", "model.revision=123e456") == "123e456"
    assert one("run.name", "run.name=010") == "010"
    assert one("run.name", "run.name=1e-5") == "1e-5"
    assert one("data.validation", "data.validation=0.20") == "0.20"
    assert one("generation.stop", "generation.stop=[1.0, yes]") == ["1.0", "yes"]


def test_a_whole_number_serves_as_a_float_and_stays_one_as_an_int():
    values = load_config(overrides=["optimizer.lr=1", "seed=7"]).flat()
    assert (type(values["optimizer.lr"]), type(values["seed"])) == (float, int)


def test_a_setting_without_a_default_is_asked_for(site: Path):
    error = refused(plugins=["strict"])
    assert (error.code, error.key) == ("CONFIG-MISSING", "strict.needed")


def test_what_a_plugins_config_refuses_is_a_usage_error(site: Path):
    error = refused(plugins=["strict"], overrides=["strict.needed=2", "strict.other=3"])
    assert (error.what, error.key, error.exit_code) == ("other is larger than needed", "strict", 2)


def test_a_config_of_types_that_settings_cant_have_is_a_plugin_error(site: Path):
    write_toy(site, "odd", SOURCE.replace("sizes: list[int]", "sizes: set[int]"))
    write_toy(
        site,
        "bare",
        "from llmfw.core.plugin import Plugin\nclass Toy(Plugin):\n    class Config:\n        a = 1\n",
    )
    write_toy(site, "model", SOURCE)
    with installed(site):
        for name in ("odd", "bare", "model"):
            assert refused(PluginError, plugins=[name]).exit_code == 4


KINDS = """
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any, Literal
from llmfw.core.plugin import Plugin

class Colour(Enum):
    RED = 1
    BLUE = 2

@dataclass
class Inner:
    a: int = 1
    b: list[float] = field(default_factory=lambda: [1.0])

class Toy(Plugin):
    @dataclass
    class Config:
        colour: Colour = Colour.RED
        path: Path | None = None
        pair: tuple[int, float] = (1, 2.0)
        many: tuple[int, ...] = (1,)
        inner: Inner = field(default_factory=lambda: Inner(a=5))
        table: dict[str, Inner] = field(default_factory=dict)
        word: Literal["x", "y"] | None = None
        mix: int | str = 3
        lists: dict[str, list[int]] = field(default_factory=lambda: {"k": [1]})
        bare: list = field(default_factory=list)
"""


def test_every_kind_of_setting_reaches_the_plugin_with_its_type(site: Path, tmp_path: Path):
    write_toy(site, "kinds", KINDS)
    with installed(site):
        plain = load_config(plugins=["kinds"]).plugin_settings["kinds"]
        assert (plain.colour.name, plain.pair, plain.inner.a, plain.lists) == ("RED", (1, 2.0), 5, {"k": [1]})
        overrides = [
            "colour=BLUE",
            "path=/a",
            "pair=[2,3]",
            "many=[1,2,3]",
            "inner.a=2",
            "table.q.a=9",
            "word=y",
        ]
        overrides += ["mix=abc", "lists={z: [3]}", "bare=[1, {x: yes}]"]
        resolved = load_config(plugins=["kinds"], overrides=[f"kinds.{text}" for text in overrides])
        found = resolved.plugin_settings["kinds"]
        assert (found.colour.name, found.path, found.pair, found.many) == (
            "BLUE",
            Path("/a"),
            (2, 3.0),
            (1, 2, 3),
        )
        assert (found.inner.a, found.inner.b, found.table["q"].a, found.table["q"].b) == (2, [1.0], 9, [1.0])
        assert (found.word, found.mix, found.bare) == ("y", "abc", [1, {"x": "yes"}])
        assert found.lists == {"k": [1], "z": [3]}
        again = load_config(files=[file(tmp_path, resolved.to_yaml())])
        assert again.flat() == resolved.flat()
        for wrong in (
            "colour=GREEN",
            "pair=[1]",
            "many=[a]",
            "inner=3",
            "table.q.c=1",
            "word=z",
            "mix=[1]",
            "bare=1",
        ):
            assert refused(plugins=["kinds"], overrides=[f"kinds.{wrong}"]).key.startswith("kinds.")


def test_a_dotted_key_in_a_file_says_how_to_write_it(tmp_path: Path):
    error = refused(files=[file(tmp_path, "optimizer.lr: 1\n")])
    assert "optimizer" in error.mend and "indent" in error.mend
