"""The plan: checked, printed and hashed before any weight is read."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

import pytest

from llmfw.core.defaults import Defaults
from llmfw.core.errors import ConflictError, PluginError, ResourceError, UsageError
from llmfw.core.hookspecs import hookimpl
from llmfw.core.manager import PluginManager
from llmfw.core.plan import Plan, global_batch, make_plan
from llmfw.core.plugin import Plugin
from llmfw.core.records import CacheFactory, DatasetTransform, Decoder, Loss, Report, RolloutSampler, Surgery
from llmfw.core.run import Run
from llmfw.core.schema import Root


def _call(policy, batch, reference):
    return None


class Pairs(Plugin):
    @hookimpl
    def llmfw_loss(self, run, tokenizer, model_config):
        return Loss(name="pairs", call=_call, batch_kind="preference", unit="pairs")


def _plan(
    *plugins: tuple[str, Plugin],
    root: Root | None = None,
    kind: str | None = None,
    model_config: object = None,
    **settings,
) -> Plan:
    root = root or Root()
    root.plugins = [name for name, _ in plugins]
    run = Run(root, Path("."), "test")
    flat = {"data.name": "my.jsonl", **settings}
    manager = PluginManager(list(plugins), Defaults(None))
    return make_plan(
        manager, run, None, model_config, verb="fit", settings=flat, data_kind=lambda datamodule: kind
    )


def test_a_preference_loss_over_text_is_a_conflict_that_names_both():
    with pytest.raises(ConflictError) as caught:
        _plan(("pairs", Pairs(None)), kind="text")
    assert "'pairs'" in str(caught.value) and "my.jsonl" in str(caught.value) and caught.value.exit_code == 2


def test_the_default_loss_over_preference_rows_says_which_plugin_to_switch_on():
    with pytest.raises(ConflictError, match="--plugin"):
        _plan(kind="preference")


def test_a_loss_over_rows_of_its_form_is_no_conflict():
    assert _plan(("pairs", Pairs(None)), kind="preference").one("llmfw_loss").name == "pairs"
    assert _plan(kind="messages").one("llmfw_loss").name == "causal_lm"


def test_a_record_of_the_wrong_type_names_plugin_and_hook():
    class Wrong(Plugin):
        @hookimpl
        def llmfw_sampler(self, run):
            return {"next": None}

    with pytest.raises(PluginError, match=r"'wrong' returned dict from llmfw_sampler.*RolloutSampler"):
        _plan(("wrong", Wrong(None)))


def test_a_plural_hook_that_does_not_return_a_list_is_refused():
    class Single(Plugin):
        @hookimpl
        def llmfw_surgeries(self, run, model_config):
            return Surgery(name="x", phase="after_load", apply=lambda model, generator: Report())

    with pytest.raises(PluginError, match="return a list"):
        _plan(("single", Single(None)))


def test_two_orders_of_the_data_are_a_conflict():
    def order(name: str) -> Plugin:
        class Ordered(Plugin):
            @hookimpl
            def llmfw_dataset_transforms(self, run, tokenizer):
                return [DatasetTransform(name=name, stage="order", apply=lambda units, epoch: [])]

        return Ordered(None)

    with pytest.raises(ConflictError, match="'a' and plugin 'b'"):
        _plan(("a", order("one")), ("b", order("two")))


def test_a_surgery_that_refuses_packing_stops_a_run_that_packs():
    class Surgeon(Plugin):
        @hookimpl
        def llmfw_surgeries(self, run, model_config):
            apply = lambda model, generator: Report()  # noqa: E731
            return [Surgery(name="cut", phase="after_load", apply=apply, refuses=("packing",))]

    packed = Root()
    packed.data.packing = True
    assert _plan(("surgeon", Surgeon(None))).many("llmfw_surgeries")[0].name == "cut"
    with pytest.raises(ConflictError, match=r"'surgeon' can't be right with packing"):
        _plan(("surgeon", Surgeon(None)), root=packed)


def test_a_surgery_that_refuses_compiled_regions_stops_a_run_that_compiles():
    class Surgeon(Plugin):
        @hookimpl
        def llmfw_surgeries(self, run, model_config):
            apply = lambda model, generator: Report()  # noqa: E731
            return [Surgery(name="cut", phase="after_load", apply=apply, refuses=("compile",))]

    compiled = Root()
    compiled.trainer.compile = "layers"
    assert _plan(("surgeon", Surgeon(None))).many("llmfw_surgeries")
    with pytest.raises(ConflictError, match=r"'surgeon' can't be right with compiled regions.*compile=none"):
        _plan(("surgeon", Surgeon(None)), root=compiled)


def test_a_surgery_that_refuses_right_padding_trains_on_packed_rows_or_one_at_a_time():
    class Surgeon(Plugin):
        @hookimpl
        def llmfw_surgeries(self, run, model_config):
            apply = lambda model, generator: Report()  # noqa: E731
            return [Surgery(name="cut", phase="after_load", apply=apply, refuses=("right_padding",))]

    single, padded, packed = Root(), Root(), Root()
    single.trainer.layout = padded.trainer.layout = "padded"
    single.trainer.micro_batch, padded.trainer.micro_batch = 1, 2
    assert _plan(("surgeon", Surgeon(None)), root=packed).facts["layouts"] == ["packed"]
    assert _plan(("surgeon", Surgeon(None)), root=single).many("llmfw_surgeries")
    with pytest.raises(ConflictError, match=r"'surgeon' can't be right with rows padded.*micro_batch=1"):
        _plan(("surgeon", Surgeon(None)), root=padded)


def test_a_decoder_that_rewrites_the_cache_refuses_a_plugins_cache():
    class Tree(Plugin):
        @hookimpl
        def llmfw_decoder(self, run, model_config):
            return Decoder(name="tree", generate=_call, refuses=("custom_cache",))

    class Small(Plugin):
        @hookimpl
        def llmfw_kv_cache(self, run, model_config):
            return CacheFactory(name="small", build=lambda config: None)

    assert _plan(("tree", Tree(None))).one("llmfw_decoder").name == "tree"
    with pytest.raises(ConflictError, match="'tree' can't be right with the key-value cache of small"):
        _plan(("tree", Tree(None)), ("small", Small(None)))


def test_with_a_sampler_the_form_of_the_source_rows_is_the_samplers_business():
    class Sampling(Pairs):
        @hookimpl
        def llmfw_sampler(self, run):
            return RolloutSampler(name="s", next=_call, batch_kind="preference")

    assert _plan(("sampling", Sampling(None)), kind="problems").one("llmfw_sampler").name == "s"


class Rounds(Plugin):
    """Its rounds make batches of a kind."""

    def __init__(self, kind: str) -> None:
        super().__init__(None)
        self.kind = kind

    @hookimpl
    def llmfw_sampler(self, run):
        return RolloutSampler(name="rounds_of", next=_call, batch_kind=self.kind)


def test_a_loss_over_rounds_of_another_form_is_a_conflict_that_names_both():
    with pytest.raises(ConflictError) as caught:
        _plan(("pairs", Pairs(None)), ("rounds", Rounds("text")), kind="problems")
    said = str(caught.value)
    assert caught.value.code == "LOSS-ROUNDS" and "plugin 'pairs' (pairs) wants preference" in said
    assert "the rounds of plugin 'rounds' (rounds_of) make text batches" in said
    assert "--no-plugin pairs or --no-plugin rounds" in said


def test_rounds_that_the_default_loss_cant_train_say_that_a_loss_is_missing():
    with pytest.raises(
        ConflictError, match="the default loss .causal_lm. wants text.*make scored.*switch on"
    ):
        _plan(("rounds", Rounds("scored")))
    assert _plan(("rounds", Rounds("text"))).one("llmfw_sampler").batch_kind == "text"


def test_a_plugin_whose_own_two_records_differ_is_told_to_mend_them():
    class Both(Pairs):
        @hookimpl
        def llmfw_sampler(self, run):
            return RolloutSampler(name="s", next=_call)

    with pytest.raises(ConflictError, match="give the sampler's record the batch_kind of its rows"):
        _plan(("both", Both(None)))


def test_a_kind_of_batch_that_doesnt_exist_is_refused():
    with pytest.raises(PluginError, match="batch_kind is 'pairs', not"):
        _plan(("rounds", Rounds("pairs")))


def test_equal_plans_have_equal_hashes_and_any_setting_changes_it():
    first, same, other = (_plan(**{"optimizer.lr": lr}) for lr in (1e-4, 1e-4, 2e-4))
    assert first.hash == same.hash != other.hash
    assert first.fingerprint == same.fingerprint != other.fingerprint


def test_the_fingerprint_ignores_folders_and_tracking():
    first, moved = (_plan(**{"run.dir": place, "tracking.uri": place}) for place in ("a", "b"))
    assert first.fingerprint == moved.fingerprint and first.hash != moved.hash


def test_a_plan_is_json():
    told = json.loads(json.dumps(_plan(("pairs", Pairs(None)), kind="preference").as_dict()))
    loss = told["answers"]["llmfw_loss"][0]
    assert (loss["plugin"], loss["record"], loss["name"]) == ("pairs", "Loss", "pairs")
    assert loss["call"].endswith("._call")


def test_a_runs_settings_are_read_only():
    root = Root()
    run = Run(root, Path("."), "test")
    with pytest.raises(AttributeError, match="read-only"):
        run.config.optimizer.lr = 1.0


def test_the_fingerprint_holds_the_global_batch_and_not_how_it_is_dealt_out():
    """4 = 4 x 1 x 1 x 1 = 1 x 2 x 2 x 1 = 1 x 1 x 2 x 2; 8 isn't 4."""
    splits = [(4, 1, 1, 1, "auto"), (1, 2, 2, 1, "ddp"), (1, 1, 2, 2, "fsdp2"), (4, 2, 1, 1, "auto")]
    names = ("micro_batch", "accumulate", "devices", "nodes", "strategy")
    plans = [_plan(**{f"trainer.{n}": v for n, v in zip(names, split, strict=True)}) for split in splits]
    one, two, four, other = (plan.fingerprint for plan in plans)
    assert one == two == four != other
    assert len({plan.hash for plan in plans}) == 4
    assert [global_batch(plan.settings) for plan in plans] == [4, 4, 4, 8]


def test_an_encoder_decoder_takes_no_plugins_cache_no_decoder_and_no_documents():
    from transformers import AutoConfig

    class Tree(Plugin):
        @hookimpl
        def llmfw_decoder(self, run, model_config):
            return Decoder(name="tree", generate=_call)

    class Sink(Plugin):
        @hookimpl
        def llmfw_kv_cache(self, run, model_config):
            return CacheFactory(name="sink", build=_call)

    t5 = AutoConfig.for_model("t5", decoder_start_token_id=0)
    assert _plan(kind="completion", model_config=t5).one("llmfw_loss").name == "causal_lm"
    with pytest.raises(ConflictError, match=r"decoder of plugin 'tree'.*t5 is an encoder-decoder"):
        _plan(("tree", Tree(None)), model_config=t5)
    with pytest.raises(ConflictError, match=r"key-value cache of plugin 'sink'.*--no-plugin sink"):
        _plan(("sink", Sink(None)), model_config=t5)
    with pytest.raises(ConflictError, match="text rows give its encoder nothing to read"):
        _plan(kind="text", model_config=t5)
    t5.output_router_logits = True
    with pytest.raises(UsageError, match="ROUTER-LOSS"):
        _plan(kind="completion", model_config=t5)


def test_vllm_takes_no_plugins_cache_or_surgery_no_encoder_decoder_and_no_quantised_weights():
    from transformers import AutoConfig

    class Cutter(Plugin):
        @hookimpl
        def llmfw_kv_cache(self, run, model_config):
            return CacheFactory(name="sink", build=_call)

        @hookimpl
        def llmfw_surgeries(self, run, model_config):
            return [Surgery(name="cut", phase="after_load", apply=_call)]

    def asking() -> Root:
        root = Root()
        root.generation.backend = "vllm"
        return root

    with pytest.raises(ConflictError, match=r"BACKEND.*vLLM can't sample with the cache of plugin 'cutter'"):
        _plan(("cutter", Cutter(None)), root=asking())
    with pytest.raises(ConflictError, match="can't sample with an encoder-decoder"):
        _plan(root=asking(), model_config=AutoConfig.for_model("t5", decoder_start_token_id=0))
    quantised = asking()
    quantised.model.quantization = "nf4"
    with pytest.raises(ConflictError, match="can't sample with weights in nf4"):
        _plan(root=quantised)


@pytest.mark.skipif(find_spec("vllm") is not None, reason="vLLM is installed")
def test_vllm_is_refused_by_name_where_it_isnt_installed():
    root = Root()
    root.generation.backend = "vllm"
    with pytest.raises(ResourceError, match=r"PACKAGE.*generation.backend: vLLM isn't installed"):
        _plan(root=root)
