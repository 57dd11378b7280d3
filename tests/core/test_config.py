"""Layers of settings: what holds, where it came from, and what is refused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmfw.core.config import Resolved, load_config
from llmfw.core.errors import ConflictError, LlmfwError, PluginError, UsageError
from tests.toys import installed, write_toy

SOURCE = """
from dataclasses import dataclass, field
from typing import Any, Literal
from llmfw.core.plugin import Plugin

class Toy(Plugin):
    @dataclass
    class Config:
        alpha: float = field(default=0.5, metadata={"help": "weight of the tail", "minimum": 0, "maximum": 1})
        mode: Literal["both", "one"] = "both"
        word: str = field(default="a", metadata={"choices": ("a", "b")})
        sizes: list[int] = field(default_factory=lambda: [1, 2])
        notes: dict[str, Any] = field(default_factory=dict)
"""
STRICT = """
from dataclasses import dataclass
from llmfw.core.plugin import Plugin

class Toy(Plugin):
    @dataclass
    class Config:
        needed: int
        other: int = 1

        def __post_init__(self):
            if self.other > self.needed:
                raise ValueError("other is larger than needed")
"""


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Path]:
    """Toy plugins: ``first`` and ``second`` with overlays, ``strict`` with a setting that has no default."""
    folder = tmp_path / "site"
    common = "optimizer:\n  lr: {lr}\ntrainer:\n  {length}\n"
    write_toy(
        folder,
        "first",
        SOURCE,
        overlay=common.format(lr="1e-4", length="max_steps: 10") + "first:\n  alpha: 0.25\n",
    )
    write_toy(folder, "second", SOURCE, overlay=common.format(lr="2e-4", length="max_steps: 10"))
    write_toy(folder, "strict", STRICT)
    with installed(folder):
        yield folder


def file(folder: Path, text: str, name: str = "my.yaml") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def refused(expected: type[LlmfwError] = UsageError, **layers: object) -> LlmfwError:
    with pytest.raises(expected) as caught:
        load_config(**layers)
    assert "\n" not in str(caught.value)
    return caught.value


def one(key: str, override: str, **layers: object) -> object:
    return load_config(overrides=[override], **layers).flat()[key]


def test_later_layers_shadow_earlier_ones_and_remember_them(site: Path, tmp_path: Path):
    low = file(tmp_path, "optimizer:\n  lr: 3e-4\n", "low.yaml")
    high = file(tmp_path, "# top\noptimizer:\n  clip: 0\n  lr: 4e-4\n", "high.yaml")
    resolved = load_config(plugins=["first"], files=[low, high], overrides=["optimizer.lr=5e-4"])
    origin = resolved.origin["optimizer.lr"]
    assert resolved.root.optimizer.lr == 5e-4
    assert origin.layer == "command line"
    assert [(shadow.layer, shadow.value, shadow.line) for shadow in origin.shadows] == [
        ("file", 4e-4, 4), ("file", 3e-4, 2), ("plugin first", 1e-4, 2), ("defaults", 2e-5, None),
    ]  # fmt: skip
    assert origin.shadows[0].file == str(high)


def test_settings_of_plugins_are_instances_of_their_config(site: Path):
    resolved = load_config(
        plugins=["first"], overrides=["first.sizes=[3]", "first.notes={a: {b: 1}}", "first.mode=one"]
    )
    config = resolved.plugin_settings["first"]
    assert type(config).__name__ == "Config"
    assert (config.alpha, config.sizes, config.notes, config.mode) == (0.25, [3], {"a": {"b": 1}}, "one")
    assert resolved.flat()["first.notes.a.b"] == 1
    assert resolved.plugin_names == resolved.root.plugins == ["first"]


def test_plugins_come_from_files_and_the_command_line_in_order_and_can_be_left_out(
    site: Path, tmp_path: Path
):
    listed = file(tmp_path, "plugins: [second, first]\noptimizer: {lr: 1e-3}\n")
    assert load_config(files=[listed]).plugin_names == ["second", "first"]
    assert load_config(files=[listed], no_plugins=["second"]).plugin_names == ["first"]
    more = load_config(files=[listed], plugins=["strict", "first"], overrides=["strict.needed=2"])
    assert more.plugin_names == ["second", "first", "strict"]
    assert load_config(overrides=["plugins=[first]"]).plugin_names == ["first"]
    assert load_config(plugins=["first"]).origin["plugins"].layer == "command line"
    assert load_config(files=[listed]).origin["plugins"].line == 1


def test_an_unknown_plugin_is_refused_with_its_place_and_near_names(site: Path, tmp_path: Path):
    error = refused(files=[file(tmp_path, "seed: 1\nplugins: [frist]\n")])
    assert (error.code, error.line, error.key, error.exit_code) == ("PLUGIN-UNKNOWN", 2, "plugins", 2)
    assert "first" in error.mend
    assert refused(plugins=["nowhere"]).key == "--plugin"
    assert refused(no_plugins=["nowhere"]).code == "PLUGIN-UNKNOWN"
    assert refused(plugins=["first"], no_plugins=["first"]).code == "PLUGIN-TWICE"


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
        ("tokenizer.xyzzy", "tokenizer has tokenizer.name, tokenizer.template"),
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
        ("trainer.micro_batch=1.5", "CONFIG-TYPE", "a whole number is expected, not a number (1.5)"),
        ("trainer.micro_batch=4.0", "CONFIG-TYPE", "write trainer.micro_batch=4"),
        ("trainer.micro_batch=010", "CONFIG-TYPE", "a whole number is expected, not text ('010')"),
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


def test_a_name_stands_for_its_section(tmp_path: Path):
    path = file(tmp_path, "model: tiny-llama\ndata:\n  name: other.jsonl\n")
    resolved = load_config(files=[path], overrides=["data=my file #1.jsonl", "models.critic=runs/a"])
    assert (resolved.root.model.name, resolved.root.data.name) == ("tiny-llama", "my file #1.jsonl")
    assert resolved.root.models["critic"].name == "runs/a"
    assert resolved.origin["model.name"].line == 1
    assert resolved.origin["models.critic.dtype"].layer == "defaults"


def test_a_preset_is_a_layer_below_files(tmp_path: Path):
    path = file(tmp_path, "model:\n  name: tiny-llama\n  config:\n    hidden_size: 32\n")
    resolved = load_config(files=[path])
    assert resolved.flat()["model.config.model_type"] == "llama"
    assert resolved.origin["model.config.model_type"].layer == "preset tiny-llama"
    origin = resolved.origin["model.config.hidden_size"]
    assert (origin.value, origin.layer, origin.shadows[0].layer) == (32, "file", "preset tiny-llama")


def test_an_auxiliary_model_may_be_a_preset_too():
    resolved = load_config(overrides=["models.judge=tiny-llama", "models.judge.dtype=bfloat16"])
    assert resolved.root.models["judge"].config["model_type"] == "llama"
    assert resolved.root.models["judge"].dtype == "bfloat16"


def test_no_path_outside_the_presets_is_taken_for_one():
    assert load_config(overrides=["model=../models/tiny-llama"]).root.model.config == {}


def test_what_belongs_to_a_data_set_goes_when_another_is_named(site: Path, tmp_path: Path):
    write_toy(
        site, "picky", SOURCE, overlay="data:\n  name: champ-preferences\n  options: {lengths: natural}\n"
    )
    with installed(site):

        def data(*overrides: str) -> object:
            return load_config(plugins=["picky"], overrides=overrides).root.data

        assert data().options["lengths"] == "natural" and data().split_key == "problem"
        assert data("data=champ-preferences").options["lengths"] == "natural"
        other = data("data=my.jsonl")
        assert (other.options, other.package, other.kind, other.split_key) == ({}, {}, None, None)
        assert data("data=my.jsonl", "data.options.x=1").options == {"x": 1}
        saved = file(tmp_path, load_config(plugins=["picky"]).to_yaml())
        again = load_config(files=[saved], overrides=["data=my.jsonl"]).root.data
        assert (again.options, again.split_key, again.validation) == ({}, None, "0.2")


def test_free_mappings_merge_key_by_key_and_an_empty_one_clears(tmp_path: Path):
    path = file(tmp_path, "tracking:\n  tags: {a: x, b: y}\n")
    assert load_config(files=[path], overrides=["tracking.tags.b=z"]).root.tracking.tags == {
        "a": "x",
        "b": "z",
    }
    assert load_config(files=[path], overrides=["tracking.tags={}"]).root.tracking.tags == {}
    dotted = load_config(overrides=["tracking.tags.team.name=x"])
    assert dotted.root.tracking.tags == {"team.name": "x"}


def test_steps_put_epochs_to_null_and_the_other_way_round(site: Path, tmp_path: Path):
    plain = load_config().root.trainer
    assert (plain.max_steps, plain.epochs) == (None, 1.0)
    steps = load_config(plugins=["first"]).root.trainer
    assert (steps.max_steps, steps.epochs) == (10, None)
    epochs = load_config(plugins=["first"], overrides=["trainer.epochs=2"])
    assert (epochs.root.trainer.max_steps, epochs.root.trainer.epochs) == (None, 2.0)
    assert epochs.origin["trainer.max_steps"].layer == "command line"


def test_steps_and_epochs_in_one_layer_are_refused(tmp_path: Path):
    assert "both set" in refused(overrides=["trainer.epochs=2", "trainer.max_steps=3"]).what
    path = file(tmp_path, "trainer:\n  max_steps: 3\n  epochs: 1\n")
    assert refused(files=[path]).line == 3
    nothing = refused(overrides=["trainer.epochs=null"])
    assert nothing.what == "nothing says how long to train"


def test_two_plugins_that_differ_are_a_conflict_that_names_both_and_the_way_out(site: Path):
    error = refused(ConflictError, plugins=["first", "second"])
    assert (error.code, error.key) == ("CONFIG-CONFLICT", "optimizer.lr")
    assert "first" in error.what and "second" in error.what
    assert "--defaults-from first or --defaults-from second" in error.mend


def test_a_conflict_of_plugins_is_settled_by_the_user(site: Path, tmp_path: Path):
    both = ["first", "second"]
    assert load_config(plugins=both, overrides=["optimizer.lr=1"]).root.optimizer.lr == 1
    assert load_config(plugins=both, files=[file(tmp_path, "optimizer: {lr: 2}")]).root.optimizer.lr == 2
    assert load_config(plugins=both, defaults_from="first").root.optimizer.lr == 1e-4
    assert load_config(plugins=both, defaults_from="second").root.optimizer.lr == 2e-4
    assert refused(plugins=["first"], defaults_from="second").code == "PLUGIN-OFF"


def test_one_plugin_counting_steps_and_another_epochs_are_a_conflict(site: Path):
    write_toy(site, "third", SOURCE, overlay="trainer:\n  epochs: 1\n")
    with installed(site):
        assert refused(ConflictError, plugins=["first", "third"]).key in (
            "trainer.max_steps",
            "trainer.epochs",
        )


@pytest.mark.parametrize(
    ("overlay", "key"),
    [
        ("plugins: [first]", "plugins"),
        ("sandbox: {level: unsafe}", "sandbox.level"),
        ("tracking: {uri: 'http://elsewhere'}", "tracking.uri"),
        ("model: {trust_remote_code: true}", "model.trust_remote_code"),
        ("models: {judge: {trust_remote_code: true}}", "models.judge.trust_remote_code"),
        ("model: {package: {distribution: other}}", "model.package.distribution"),
        ("data: {package: {distribution: other}}", "data.package.distribution"),
        ("first: {alpha: 1}", "first.alpha"),
        ("optimizer: {rate: 1}", "optimizer.rate"),
        ("optimizer: {lr: fast}", "optimizer.lr"),
    ],
)
def test_what_a_plugins_defaults_may_not_set_is_the_plugins_fault(site: Path, overlay: str, key: str):
    write_toy(site, "greedy", SOURCE, overlay=f"# defaults\n{overlay}\n")
    with installed(site):
        error = refused(PluginError, plugins=["first", "greedy"], overrides=["optimizer.lr=1"])
    assert (error.exit_code, error.line, error.key) == (4, 2, key)
    assert "greedy" in error.what


def test_a_saved_runs_settings_lie_between_plugins_and_files(site: Path, tmp_path: Path):
    base = {"plugins": ["first"], "optimizer": {"lr": 3e-4, "clip": 2.0}, "first": {"alpha": 0.75}}
    path = file(tmp_path, "optimizer: {clip: 5}\n")
    resolved = load_config(base=base, files=[path])
    assert (resolved.root.optimizer.lr, resolved.root.optimizer.clip) == (3e-4, 5.0)
    assert resolved.plugin_settings["first"].alpha == 0.75
    assert resolved.origin["optimizer.lr"].layer == "saved run"
    assert base["optimizer"] == {"lr": 3e-4, "clip": 2.0}


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


def test_a_heading_with_nothing_under_it_sets_nothing(tmp_path: Path):
    path = file(tmp_path, "optimizer:\n  # lr: 1\nmodels:\nseed: 3\n")
    assert load_config(files=[path]).root.seed == 3
    assert refused(files=[file(tmp_path, "optimizer: null\n")]).code == "CONFIG-TYPE"
    assert refused(files=[file(tmp_path, "seed:\n")]).what == "the value is empty"


def test_a_dotted_key_in_a_file_says_how_to_write_it(tmp_path: Path):
    error = refused(files=[file(tmp_path, "optimizer.lr: 1\n")])
    assert "optimizer" in error.mend and "indent" in error.mend


class TestInterpolation:
    """``${key}`` repeats another setting and does nothing else."""

    def test_a_setting_may_repeat_another_with_its_type(self, site: Path):
        overrides = ["optimizer.lr=0.25", "first.alpha=${optimizer.lr}", "run.name=lr-${optimizer.lr}"]
        flat = load_config(plugins=["first"], overrides=overrides).flat()
        assert (flat["first.alpha"], flat["run.name"]) == (0.25, "lr-0.25")

    def test_a_preset_is_found_through_it(self):
        resolved = load_config(overrides=["model=tiny-llama", "models.judge=${model.name}"])
        assert resolved.root.models["judge"].config["model_type"] == "llama"

    @pytest.mark.parametrize(
        "text",
        [
            "${oc.env:HOME}",
            "${oc.decode:x}",
            "${env:HOME}",
            "x${oc.env:A,b}",
            "${a b}",
            "${",
            "${a${b}}",
            "${}",
        ],
    )
    def test_resolvers_and_other_forms_are_refused(self, tmp_path: Path, text: str):
        error = refused(files=[file(tmp_path, f"run:\n  name: '{text}'\n")])
        assert (error.code, error.line, error.key) == ("CONFIG-INTERPOLATION", 2, "run.name")

    def test_an_unknown_key_is_refused_with_near_ones(self):
        error = refused(overrides=["run.name=${optimizer.lrr}"])
        assert (error.code, error.mend) == ("CONFIG-INTERPOLATION", "did you mean optimizer.lr?")

    @pytest.mark.parametrize(
        "pair", [["run.name=${run.dir}", "run.dir=${run.name}"], ["run.name=${run.name}"]]
    )
    def test_a_circle_is_refused(self, pair: list[str]):
        assert refused(overrides=pair).code == "CONFIG-INTERPOLATION"

    def test_a_value_of_another_type_is_refused(self):
        error = refused(overrides=["optimizer.lr=${model.name}"])
        assert (error.code, error.key) == ("CONFIG-TYPE", "optimizer.lr")
        assert refused(overrides=["seed=\\${x}"]).code == "CONFIG-TYPE"
        assert refused(overrides=["data.packing=${seed}"]).code == "CONFIG-TYPE"
        assert refused(overrides=["run.name=${model}"]).code == "CONFIG-TYPE"

    def test_the_characters_themselves_are_written_with_a_backslash(self, tmp_path: Path):
        resolved = load_config(overrides=["generation.stop=['\\${x}']", "run.name=a\\${b}"])
        assert (resolved.root.generation.stop, resolved.root.run.name) == (["${x}"], "a${b}")
        again = load_config(files=[file(tmp_path, resolved.to_yaml())])
        assert again.flat() == resolved.flat()


TEXTS = (
    st.text(alphabet=st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=12)
    .map(str.strip)
    .filter(bool)
)


SCALARS = st.none() | st.booleans() | TEXTS


@settings(max_examples=40, deadline=None)
@given(
    st.fixed_dictionaries(
        {
            "seed": st.integers(0, 2**32 - 1),
            "optimizer": st.fixed_dictionaries({"lr": st.floats(0, 1), "betas": st.just([0.5, 0.25])}),
            "generation": st.fixed_dictionaries({"stop": st.lists(TEXTS, max_size=3)}),
            "tracking": st.fixed_dictionaries({"tags": st.dictionaries(TEXTS, TEXTS, max_size=3)}),
            "model": st.fixed_dictionaries({"config": st.dictionaries(TEXTS, SCALARS, max_size=3)}),
            "data": st.fixed_dictionaries({"limit": st.none() | st.integers(1, 9), "packing": st.booleans()}),
        }
    )
)
def test_resolved_settings_written_out_and_read_back_are_the_same(tmp_path_factory, base: dict):
    first = load_config(base=base)
    path = tmp_path_factory.mktemp("again") / "a.yaml"
    path.write_text(first.to_yaml(), encoding="utf-8")
    assert load_config(files=[path]).to_dict() == first.to_dict()
    given_keys = [(key, inner) for key, part in base.items() if key != "seed" for inner in part]
    assert all(first.to_dict()[key][inner] == base[key][inner] for key, inner in given_keys)


def test_settings_written_out_hide_secrets_on_request():
    resolved = load_config(
        overrides=["tracking.uri=http://me:xyzzy@host:5000", "tracking.tags.hub_token=plugh"]
    )
    text = resolved.to_yaml(redacted=True)
    assert "xyzzy" not in text and "plugh" not in text and "host:5000" in text
    assert "me:xyzzy@" in resolved.to_yaml() and "plugh" in resolved.to_yaml()


def test_every_setting_has_an_origin_and_copies_dont_touch_the_original(site: Path):
    resolved: Resolved = load_config(plugins=["first", "strict"], overrides=["strict.needed=2"])
    assert resolved.origin.keys() == resolved.flat().keys()
    resolved.to_dict()["optimizer"]["betas"].append(3)
    assert resolved.to_dict()["optimizer"]["betas"] == [0.9, 0.999]
