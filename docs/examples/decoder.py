from llmfw import Decoder, Plugin, hookimpl


def one_by_one(policy, input_ids, sampling, cache):
    """The most likely token, one forward pass each, without a cache: slow, and right."""
    import torch

    ids, new = input_ids, []
    while len(new) < sampling.max_new_tokens:
        token = int(policy.module(input_ids=ids).logits[0, -1].argmax())
        new.append(token)
        if token in sampling.stop_ids:
            break
        ids = torch.cat([ids, torch.tensor([[token]], device=ids.device)], dim=1)
    return new


class Example(Plugin):
    @hookimpl
    def llmfw_decoder(self, run, model_config):
        return Decoder(name="one_by_one", generate=one_by_one, refuses=("custom_cache",))
