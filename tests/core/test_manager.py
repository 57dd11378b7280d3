"""Registration and calling of plugins."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from llmfw.core.defaults import Defaults
from llmfw.core.errors import ConflictError, PluginError
from llmfw.core.hookspecs import hookimpl
from llmfw.core.manager import PluginManager
from llmfw.core.plugin import Plugin
from llmfw.core.records import Evaluation, Loss
from llmfw.core.schema import Root


def _loss(name: str) -> Loss:
    return Loss(name=name, call=lambda policy, batch, reference: None, batch_kind="text", unit="tokens")


class First(Plugin):
    @hookimpl
    def llmfw_loss(self, run, tokenizer, model_config):
        return _loss("first")

    @hookimpl
    def llmfw_evaluations(self, run):
        return [
            Evaluation(name="a", run=lambda policy, services: None),
            Evaluation(name="b", run=lambda policy, services: None),
        ]


class Second(Plugin):
    @hookimpl
    def llmfw_evaluations(self, run):
        return [Evaluation(name="c", run=lambda policy, services: None)]


RUN = SimpleNamespace(config=Root())


def _ask(manager: PluginManager):
    return manager.one("llmfw_loss", run=None, tokenizer=None, model_config=None)


def test_a_plugin_takes_the_place_of_the_default_owner():
    assert _ask(PluginManager([], Defaults(None))).value.name == "causal_lm"
    answer = _ask(PluginManager([("first", First(None))], Defaults(None)))
    assert (answer.plugin, answer.value.name) == ("first", "first")


def test_two_owners_of_a_singular_hook_are_a_conflict_that_names_both_and_their_distributions():
    manager = PluginManager(
        [("one", First(None)), ("two", First(None))],
        Defaults(None),
        {"one": "dist-one 1.0", "two": "dist-two 2.0"},
    )
    with pytest.raises(ConflictError) as caught:
        _ask(manager)
    for word in ("'one'", "dist-one 1.0", "'two'", "dist-two 2.0", "llmfw_loss"):
        assert word in str(caught.value)
    assert caught.value.exit_code == 2


def test_plural_hooks_answer_in_the_order_in_which_the_user_lists_plugins():
    forward = PluginManager([("first", First(None)), ("second", Second(None))], Defaults(None))
    backward = PluginManager([("second", Second(None)), ("first", First(None))], Defaults(None))
    names = [
        [answer.value.name for answer in m.many("llmfw_evaluations", run=RUN)] for m in (forward, backward)
    ]
    assert names == [["a", "b", "c"], ["c", "a", "b"]]


def test_two_records_of_one_name_are_a_conflict():
    class Twin(Plugin):
        @hookimpl
        def llmfw_evaluations(self, run):
            return [Evaluation(name="a", run=lambda policy, services: None)]

    manager = PluginManager([("first", First(None)), ("twin", Twin(None))], Defaults(None))
    with pytest.raises(ConflictError, match=r"'first'.*'twin'.*named 'a'"):
        manager.many("llmfw_evaluations", run=RUN)


def test_a_misspelt_hook_is_refused_with_the_nearest_name():
    class Typo(Plugin):
        @hookimpl
        def llmfw_los(self, run):
            return None

    with pytest.raises(PluginError, match="did you mean llmfw_loss"):
        PluginManager([("typo", Typo(None))], Defaults(None))


def test_an_argument_that_the_hook_does_not_have_is_refused():
    class Extra(Plugin):
        @hookimpl
        def llmfw_sampler(self, run, weights):
            return None

    with pytest.raises(PluginError) as caught:
        PluginManager([("extra", Extra(None))], Defaults(None))
    assert "'extra'" in str(caught.value) and caught.value.exit_code == 4


@pytest.mark.parametrize("word", ["tryfirst", "trylast", "wrapper"])
def test_private_ordering_is_refused(word: str):
    def answer(self, run):
        return (yield) if word == "wrapper" else []

    pushy = type("Pushy", (Plugin,), {"llmfw_evaluations": hookimpl(**{word: True})(answer)})
    with pytest.raises(PluginError, match=word):
        PluginManager([("pushy", pushy(None))], Defaults(None))


def test_a_plugin_that_answers_no_hook_is_refused():
    with pytest.raises(PluginError, match="answers no hook"):
        PluginManager([("mute", Plugin(None))], Defaults(None))


@pytest.mark.parametrize("failure", [ValueError("boom"), SystemExit(0)])
def test_an_error_inside_a_plugin_names_plugin_hook_and_place(failure: BaseException):
    class Broken(Plugin):
        @hookimpl
        def llmfw_evaluations(self, run):
            raise failure

    manager = PluginManager([("broken", Broken(None))], Defaults(None), {"broken": "dist 1.0"})
    with pytest.raises(PluginError) as caught:
        manager.many("llmfw_evaluations", run=RUN)
    text = str(caught.value)
    assert "'broken' (dist 1.0)" in text and "llmfw_evaluations" in text and "test_manager.py" in text
    assert caught.value.exit_code == 4


def test_properties_of_a_plugin_are_not_evaluated_at_registration():
    class Lazy(First):
        @property
        def expensive(self):
            raise AssertionError("evaluated")

    PluginManager([("lazy", Lazy(None))], Defaults(None))
