from llmfw import CacheFactory, Plugin, hookimpl


def build(model_config):
    from transformers import DynamicCache

    return DynamicCache(config=model_config)


class Example(Plugin):
    @hookimpl
    def llmfw_kv_cache(self, run, model_config):
        # the model's own cache, filled 64 prompt tokens at a time: less memory for the attention of long
        # prompts
        return CacheFactory(name="chunked", build=build, prefill_chunk=64, batched=True)
