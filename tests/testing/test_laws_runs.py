"""Each law of runs is broken by a toy that does one thing wrong, and by that law alone."""

from __future__ import annotations

from pathlib import Path

from tests.testing.base_toys import Change, assert_broken, assert_only, mutant, outcomes, texts

CALLBACK = '''
    @hookimpl
    def llmfw_callbacks(self, run: Any) -> Any:
        """Away from the neutral setting, a callback."""
        from lightning.pytorch import Callback

        class Meddling(Callback):
            count = 0
BODY
        return [Meddling()] if self.config.early != 1.0 else []

    @hookimpl
    def llmfw_loss('''
SCALE = """
            def on_before_optimizer_step(self, trainer, module, optimizer):
                for parameter in module.parameters():
                    if parameter.grad is not None:
                        parameter.grad.mul_(FACTOR)
"""


def callback(body: str) -> Change:
    """The toy loss with a callback whose methods are ``body``; what it keeps is lost unless it says so."""
    return "\n    @hookimpl\n    def llmfw_loss(", CALLBACK.replace("BODY", body)


def test_a_run_that_fails_is_told_once_and_not_by_every_law_that_needs_one(tmp_path: Path):
    body = """
            def on_train_start(self, trainer, module):
                raise RuntimeError("no patience")
"""
    assert_only("runs", tmp_path, "loss", match="RuntimeError: no patience", plugin=callback(body))


def test_two_runs_of_equal_settings_that_differ(tmp_path: Path):
    """A factor from the run's folder, so from nothing that the settings say of the numbers."""
    factor = "__import__('random').Random(trainer.default_root_dir).uniform(0.9, 1.1)"
    change = callback(SCALE.replace("FACTOR", factor))
    assert_only("deterministic", tmp_path, "loss", match="grad_norm of step 1 is .* apart", plugin=change)


def test_a_neutral_setting_that_is_not_the_baseline(tmp_path: Path):
    change = ("beta=self.config.beta)", "beta=self.config.beta * 1.001)")
    assert_only("neutral", tmp_path, "loss", match="isn't its baseline .*loss of step", plugin=change)


def test_the_weights_of_a_surgery_count_at_its_neutral_setting(tmp_path: Path):
    """The last norm's weight is halved, which nobody is told."""
    change = ("        shift = torch", "        norm.weight.data *= 0.5\n        shift = torch")
    report = ('changed=("model.norm.shift",)', 'changed=("model.norm.shift", "model.norm.weight")')
    assert_broken("neutral", tmp_path, "surgery", match="isn't its baseline", surgery=[change, report])


SUMS = """
[neutral]
baseline = "plain supervised fine-tuning"
exact = true

[neutral.settings]
limit = 3
"""


def test_a_source_of_rows_is_compared_with_a_file_of_its_rows(tmp_path: Path):
    """Six sums are trained on and two are held out; then with a callback that doubles the gradient."""
    sources = texts("datamodule")
    card = sources["card.toml"] + SUMS
    outcome = outcomes(
        tmp_path / "good", mutant(tmp_path / "good", "datamodule", card=card), only=["neutral"]
    )
    assert outcome["neutral"].status == "passed"
    body = SCALE.replace("FACTOR", "2.0")
    change = CALLBACK.replace("BODY", body).replace("if self.config.early != 1.0 else []", "")
    plugin = ("\n    @hookimpl\n    def llmfw_datamodule(", change.replace("llmfw_loss", "llmfw_datamodule"))
    match = "isn't its baseline"
    assert_broken("neutral", tmp_path / "bad", "datamodule", match=match, card=card, plugin=plugin)


def test_a_neutral_setting_that_takes_another_way(tmp_path: Path):
    change = (
        "chosen = objective(early=self.config.early, beta=self.config.beta)",
        "from llmfw.losses.preference import dpo\n\n"
        "        own = objective(early=self.config.early, beta=self.config.beta)\n"
        "        chosen = dpo(beta=self.config.beta) if self.config.early == 1.0 else own",
    )
    match = r"none of its functions runs \(weights\)"
    assert_only("neutral-runs-the-method", tmp_path, "loss", match=match, plugin=change)


def test_a_neutral_setting_at_which_the_method_returns_early(tmp_path: Path):
    change = (
        "    return preference.choose(position <= 2, early, 1.0)",
        "    if early == 1.0:\n        return preference.every_token(position, length, partner_length)\n"
        "    return preference.choose(position <= 2, early, 1.0)",
    )
    match = r"weights returns from functional.py:\d+"
    assert_broken("neutral-runs-the-method", tmp_path, "loss", match=match, functional=change)


def test_defaults_at_which_nothing_happens(tmp_path: Path):
    """No token is early: the weights are 1 whatever the setting says."""
    assert_only(
        "effect", tmp_path, "loss", match="nothing differs from a run with dpo",
        functional=("position <= 2", "position <= 0"), reference=("in (1, 2)", "in ()"),
    )  # fmt: skip


def test_what_a_callback_counts_and_does_not_keep_is_missed_at_a_resume(tmp_path: Path):
    """Gradients are multiplied by 1, 2, 3 ...; after a resume by 1 again."""
    body = SCALE.replace("FACTOR", "self.count + 1") + (
        "\n            def on_train_batch_end(self, *given):\n                self.count += 1\n"
    )
    assert_only("resume", tmp_path, "loss", match="of step 3 is", plugin=callback(body))


def test_what_depends_on_the_number_of_micro_batches(tmp_path: Path):
    body = SCALE.replace("FACTOR", "self.count") + (
        "\n            def on_train_batch_start(self, trainer, module, batch, index):\n"
        "                self.count = len(batch)\n"
    )
    match = r"micro-batches of 2 x 2 \(here\) .* grad_norm of step 1"
    assert_only("accumulation", tmp_path, "loss", match=match, plugin=callback(body))


KEEPING = """
            def on_train_batch_end(self, *given):
                self.count += 1

            def state_dict(self):
                return {"count": KEPT}
"""


def test_a_state_that_is_kept_and_not_taken_over(tmp_path: Path):
    change = callback(KEEPING.replace("KEPT", "self.count"))
    assert_only(
        "state", tmp_path, "loss", match="loaded {'count': 3} has the state {'count': 0}", plugin=change
    )


def test_a_state_that_is_neither_json_nor_a_tensor(tmp_path: Path):
    change = callback(KEEPING.replace("KEPT", "object()"))
    assert_broken("state", tmp_path, "loss", match="can't hold builtins.object", plugin=change)


def test_a_note_of_the_plugin_that_is_neither_json_nor_a_tensor(tmp_path: Path):
    body = """
            def on_train_batch_end(self, *given):
                plugin.note = object()
"""
    change = callback(body)
    change = (change[0], change[1].replace("class Meddling", "plugin = self\n\n        class Meddling"))
    assert_broken("state", tmp_path, "loss", match="self.note of the plugin is object", plugin=change)
