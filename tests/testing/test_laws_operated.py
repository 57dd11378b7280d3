"""Mutants of a surgery whose model trains badly, is saved badly, or comes back as another."""

from __future__ import annotations

from pathlib import Path

from tests.testing.base_toys import assert_only

_HOOK = "norm.register_forward_hook(lambda module, given, out: shifted(out, module.shift, scale=scale))"
_NAMED = '                trainable=("model.norm.shift",),'
_REPORT = 'return Report(changed=("model.norm.shift",))'


def test_a_parameter_that_gets_no_gradient_is_found(tmp_path: Path):
    assert_only(
        "gradients-flow",
        tmp_path,
        "surgery",
        surgery=(_HOOK, _HOOK.replace("module.shift", "module.shift.detach()")),
        match=r"model\.norm\.shift gets no gradient in step 1; let the forward pass use the parameter itself",
    )


def test_a_parameter_whose_gradient_is_always_zero_is_found(tmp_path: Path):
    dead = "module.shift.detach() + 0 * module.shift"
    assert_only(
        "gradients-flow",
        tmp_path,
        "surgery",
        surgery=(_HOOK, _HOOK.replace("module.shift", dead)),
        match=r"the gradient of model\.norm\.shift is zero in all 3 steps",
    )


def test_a_parameter_that_is_put_to_sleep_under_lora_is_found(tmp_path: Path):
    """A second surgery, after the adapters; the core wakes what the first names, its callback doesn't."""
    callback = (
        "    @hookimpl\n    def llmfw_callbacks(self, run: Any) -> Any:\n"
        "        from lightning.pytorch import Callback\n\n"
        "        class Sleep(Callback):\n"
        "            def on_fit_start(self, trainer: Any, pl_module: Any) -> None:\n"
        "                for name, value in pl_module.named_parameters():\n"
        '                    if "base_layer" in str(list(pl_module.state_dict())) and "shift" in name:\n'
        "                        value.requires_grad_(False)\n\n"
        "        return [Sleep()]\n\n"
        "    @hookimpl\n    def llmfw_surgeries"
    )
    assert_only(
        "trains-under-lora",
        tmp_path,
        "surgery",
        plugin=("    @hookimpl\n    def llmfw_surgeries", callback),
        match=r"model\.norm\.shift is asleep under LoRA",
    )


def test_a_parameter_that_stands_still_under_lora_alone_is_found(tmp_path: Path):
    still = (
        "shifted(out, module.shift.detach() + 0 * module.shift if lora(model) else module.shift, scale=scale)"
    )
    lora = 'def lora(model):\n    return any("lora" in name for name, _ in model.named_modules())\n\n\n'
    assert_only(
        "trains-under-lora",
        tmp_path,
        "surgery",
        surgery=[
            (_HOOK, _HOOK.replace("shifted(out, module.shift, scale=scale)", still)),
            ("def add_shift", f"{lora}def add_shift"),
        ],
        match=r"model\.norm\.shift moves in a training without an adapter, but stands still under LoRA",
    )


def test_a_parameter_that_no_adapter_checkpoint_holds_is_found(tmp_path: Path):
    hide = (
        f"{_HOOK}\n"
        "        def hide(module, state, prefix, metadata):\n"
        '            if any("lora" in name for name, _ in model.named_modules()):\n'
        '                state.pop(prefix + "shift", None)\n'
        "        norm.register_state_dict_post_hook(hide)"
    )
    assert_only(
        "saved-with-adapter",
        tmp_path,
        "surgery",
        surgery=(_HOOK, hide),
        match=r"model\.norm\.shift is not in final/ of a run under LoRA; let the module's state_dict hold it",
    )


def test_a_model_that_comes_back_as_another_is_found(tmp_path: Path):
    """What it computes from a base weight when applied is another number once training has moved that
    weight; a resumed run begins from the base again, so it doesn't notice.
    """
    noted = f"norm.first = model.model.embed_tokens.weight.detach().sum()\n        {_HOOK}"
    assert_only(
        "round-trip",
        tmp_path,
        "surgery",
        surgery=[
            (_HOOK, noted.replace("module.shift", "module.shift * (1 + module.first / 100)")),
        ],
        match=r"the model loaded from final/ gives log-probs that differ by up to .*persistent buffers",
    )


def test_a_surgery_that_is_needed_and_says_it_is_not_is_found(tmp_path: Path):
    assert_only(
        "advice-without",
        tmp_path,
        "surgery",
        plugin=(_NAMED, f"{_NAMED}\n                required_on_load=False,"),
        match=r"loading without the plugin says .*WEIGHTS-NAMES.*not '--plugin base_surgery'; leave required",
    )


def test_weights_that_load_without_the_plugin_but_answer_otherwise_are_found(tmp_path: Path):
    """A norm that is only scaled holds no tensor of the surgery, so the folder loads as a plain model."""
    scaled = "norm.register_forward_hook(lambda module, given, out: out * (1 + scale))"
    assert_only(
        "advice-without",
        tmp_path,
        "surgery",
        surgery=[
            (
                'if not hasattr(norm, "shift"):\n        shift',
                'if not hasattr(norm, "done"):\n        norm.done',
            ),
            ('norm.register_parameter("shift", torch.nn.Parameter(shift))\n        ', ""),
            (_HOOK, scaled),
            (_REPORT, 'return Report(changed=("model.norm",))'),
        ],
        plugin=[
            (_NAMED, "                required_on_load=False,"),
            ('                no_weight_decay=("model.norm.shift",),\n', ""),
        ],
        match=r"without the plugin the saved weights load, but log-probs are off by up to",
    )
