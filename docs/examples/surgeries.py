from llmfw import Plugin, Report, Surgery, hookimpl


def add_gates(model, generator):
    """A learned scale on each block's attention output, 1 at first: the model is unchanged until it is
    trained. Done twice, it changes nothing the second time.
    """
    import torch

    changed = []
    for number, layer in enumerate(model.get_decoder().layers):
        if not hasattr(layer.self_attn, "gate"):
            layer.self_attn.register_parameter("gate", torch.nn.Parameter(torch.ones(1)))
            layer.self_attn.register_forward_hook(lambda block, given, out: (out[0] * block.gate, *out[1:]))
        changed.append(f"model.layers.{number}.self_attn.gate")
    return Report(changed=tuple(changed))


class Example(Plugin):
    @hookimpl
    def llmfw_surgeries(self, run, model_config):
        gates = ("*.self_attn.gate",)  # trained and saved under LoRA too; no weight decay
        return [
            Surgery(name="gates", phase="after_load", apply=add_gates, trainable=gates, no_weight_decay=gates)
        ]
