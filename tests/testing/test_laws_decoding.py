"""Mutants of a cache and of a decoder: each breaks one law, and that one alone."""

from __future__ import annotations

from pathlib import Path

from tests.testing.base_toys import assert_only, mutant, outcomes

_BUILD = "return Cache(layers=[Layer() for _ in range(model_config.num_hidden_layers)])"
_EVICT = "    for layer in cache.layers:\n"
_SEEN = "        return self.seen\n"
_READ = "self.seen += key_states.shape[-2]\n"
_EARLY = (
    "        if 1 < key_states.shape[-2] < self.seen:\n"
    "            self.keys, self.values = self.keys[:, :, -3:], self.values[:, :, -3:]\n"
)
"""Half of a first chunk goes before the second is read."""


def test_a_cache_that_keeps_more_than_its_budget_is_found(tmp_path: Path):
    """2 layers of 12 entries (a quarter of 48) are 24; one entry less is stated for each."""
    assert_only(
        "budget",
        tmp_path,
        "kv_cache",
        plugin=("budget=share)) + new)", "budget=share)) + new - 1)"),
        match="after a prompt of 48 tokens and 0 new ones the cache keeps 24 entries, its budget is 22",
    )


def test_a_budget_that_never_binds_is_found(tmp_path: Path):
    """With room for 4096 tokens nothing that the kit asks for is ever evicted."""
    large = "(lambda prompt, new: layers * 4096)"
    found = outcomes(
        tmp_path,
        mutant(
            tmp_path,
            "kv_cache",
            plugin=("lambda prompt, new: layers * (len(kept(prompt, budget=share)) + new)", large),
        ),
        only=["budget"],
    )["budget"]
    assert not found.good and "room for all of a prompt of 768 tokens" in found.message


def test_a_budget_is_counted_where_the_cache_says_that_its_entries_lie(tmp_path: Path):
    telling = (
        "found = Cache(layers=[Layer() for _ in range(model_config.num_hidden_layers)])\n"
        "    found.kept_tokens = lambda: [1000 for layer in found.layers]\n"
        "    return found"
    )
    assert_only(
        "budget", tmp_path, "kv_cache", cache=(_BUILD, telling), match="keeps 2000 entries, its budget is 24"
    )


def test_a_cache_that_marks_the_models_settings_is_found(tmp_path: Path):
    assert_only(
        "restored",
        tmp_path,
        "kv_cache",
        cache=(_BUILD, f"model_config.toy_mark = True\n    {_BUILD}"),
        match=r"after a call another config of .* is left; undo it in a finally block",
    )


def test_a_decoder_that_undoes_nothing_after_an_error_is_found(tmp_path: Path):
    hooked = (
        "handle = policy.module.model.norm.register_forward_hook(lambda module, given, out: out)\n"
        "    prompt, new = input_ids[0].tolist(), []\n"
    )
    assert_only(
        "restored",
        tmp_path,
        "decoder",
        decoder=[
            ("prompt, new = input_ids[0].tolist(), []\n", hooked),
            ("    return new\n", "    handle.remove()\n    return new\n"),
        ],
        match=r"after an error in the middle of a call another class, mode or hooks of model\.norm is left",
    )


def test_a_cache_that_evicts_between_chunks_is_found(tmp_path: Path):
    """A first chunk of which only half is left changes what the next one sees."""
    assert_only(
        "chunked-prefill",
        tmp_path,
        "kv_cache",
        cache=(_READ, _READ + _EARLY),
        match=r"a prompt that is read 7 tokens at a time gets another answer than with prefill_chunk=None",
    )


def test_a_cache_that_may_not_be_filled_in_chunks_says_so(tmp_path: Path):
    name = mutant(
        tmp_path,
        "kv_cache",
        cache=(_READ, _READ + _EARLY),
        plugin=(
            "            batched=True,",
            '            batched=True,\n            refuses=("chunked_prefill",),',
        ),
    )
    assert outcomes(tmp_path, name, only=["chunked-prefill"])["chunked-prefill"].status == "skipped"


def test_a_cache_whose_rows_choose_together_is_found(tmp_path: Path):
    """What is kept goes by the sizes of keys, summed over the rows."""
    chosen = "chosen = torch.tensor(kept(layer.keys.shape[-2], budget=budget))"
    together = (
        f"{chosen}\n"
        "        sizes = layer.keys.norm(dim=-1).sum((0, 1))\n"
        "        chosen = sizes.topk(len(chosen)).indices.sort().values"
    )
    assert_only(
        "batch-rows",
        tmp_path,
        "kv_cache",
        cache=(chosen, together),
        match="row . of a batch is answered otherwise than alone; let no row look at another",
    )


def test_a_cache_that_forgets_how_much_it_has_read_is_found(tmp_path: Path):
    """12 of 48 entries are left, and taken for the tokens that were read."""
    assert_only(
        "long-answers",
        tmp_path,
        "kv_cache",
        cache=(_SEEN, "        return self.keys.shape[-2] if self.is_initialized else 0\n"),
        match=r"after 48 tokens get_seq_length\(\) says 12; count what update\(\) receives",
    )


def test_a_decoder_that_takes_guesses_for_granted_is_found(tmp_path: Path):
    assert_only(
        "greedy-parity",
        tmp_path,
        "decoder",
        decoder=("if token != chosen[n]), len(guess))", "if token != chosen[n] and n), len(guess))"),
        match="the answer to a prompt of .* goes another way than the model's own greedy one",
    )


def test_a_decoder_that_goes_on_after_a_stop_token_is_found(tmp_path: Path):
    """The engine cuts what follows, so nobody else notices."""
    assert_only(
        "respects-limits",
        tmp_path,
        "decoder",
        decoder=("return bool(new) and new[-1] in stop_ids", "return len(new) > 1 and new[-2] in stop_ids"),
        match="1 tokens follow a stop token; end with the first of",
    )


def test_a_decoder_that_draws_from_a_global_generator_is_found(tmp_path: Path):
    """Over greedy answers, of which it says nothing, at temperature 1 it puts a token of its own first."""
    drawn = "    return [*torch.randint(9, (int(sampling.temperature),)).tolist(), *new][: len(new)]\n"
    assert_only(
        "decoder-deterministic",
        tmp_path,
        "decoder",
        decoder=("    return new\n", drawn),
        match="at temperature 1 the decoder changes a global generator; draw with",
    )


def test_a_decoder_that_falls_over_when_it_is_to_draw_is_found(tmp_path: Path):
    """It doesn't refuse: an error of its own kind is a refusal, and the law has nothing to look at."""
    for place, error, status, words in (
        ("falls", "1 / 0", "failed", "ZeroDivisionError"),
        (
            "refuses",
            "raise LlmfwError('GREEDY', 'only greedy', mend='ask so')",
            "skipped",
            "it draws nothing",
        ),
    ):
        drawn = (
            f"    if sampling.temperature:\n        from llmfw import LlmfwError\n        {error}\n"
            "    return new\n"
        )
        name = mutant(tmp_path / place, "decoder", decoder=("    return new\n", drawn))
        (told,) = outcomes(tmp_path / place, name, only=["decoder-deterministic"]).values()
        assert told.status == status and words in told.message, told


def test_a_decoder_whose_draws_depend_on_more_than_the_seed_is_found(tmp_path: Path):
    drawn = (
        "    before = torch.get_rng_state()\n"
        "    first = torch.randint(9, (int(sampling.temperature),)).tolist()\n"
        "    torch.set_rng_state(before)\n"
        "    return [*first, *new][: len(new)]\n"
    )
    assert_only(
        "decoder-deterministic",
        tmp_path,
        "decoder",
        decoder=("    return new\n", drawn),
        match="gives other tokens for the same seed",
    )
