"""Compiled regions: equal to eager kernels, one graph each at any length, refused where they can't be."""

import re
import shutil
from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._dynamo.utils import counters

from llmfw.core.errors import ResourceError, UsageError
from llmfw.core.models import regions
from llmfw.core.models.adapters import bare
from llmfw.core.models.build import BuiltModel, build_model
from llmfw.core.models.fused_build import ready_to_train
from llmfw.core.models.policy import LocalPolicy
from llmfw.core.models.reference import reference_of
from llmfw.core.schema import AdapterConfig, TrainerConfig

LORA = AdapterConfig(kind="lora", r=2, target_modules=["all-linear"])
REGIONS = 6
needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler on PATH")


def ready(model: Any, adapter: AdapterConfig | None = None, **settings: Any) -> BuiltModel:
    built = build_model(model, adapter, seed=1)
    built.module.train()
    return ready_to_train(built, TrainerConfig(**settings))


def trained(built: BuiltModel, batch: Any) -> tuple[Tensor, dict[str, Tensor]]:
    built.module.zero_grad()
    logps = LocalPolicy(built.module).logps(batch)
    loss = (logps * torch.linspace(0.5, 1.5, len(logps))).sum()
    loss.backward()
    parameters = built.module.named_parameters()
    return loss.detach(), {name: p.grad.clone() for name, p in parameters if p.grad is not None}


def row(batch_of: Any, length: int) -> Any:
    ids = torch.randint(3, 36, (length,), generator=torch.Generator().manual_seed(length)).tolist()
    return batch_of([(tuple(ids), 1)])


@needs_compiler
def test_ten_lengths_make_one_graph_a_region_and_the_numbers_of_eager_mode(tiny, batch_of, capsys) -> None:
    """Also with an adapter, in evaluation mode, for a copy as the reference, and with elementwise
    recomputation: nothing of these is part of a graph.
    """
    plain, compiled = ready(tiny()), ready(tiny(), compile="layers")
    torch._dynamo.reset()
    counters.clear()
    for length in (17, 18, 20, 25, 31, 32, 33, 40, 47, 60):
        loss, grads = trained(compiled, row(batch_of, length))
        expected, wanted = trained(plain, row(batch_of, length))
        assert abs(loss - expected) <= 1e-5 * abs(expected)
        assert grads.keys() == wanted.keys()
        for name in wanted:
            assert (grads[name] - wanted[name]).norm() <= 1e-4 * wanted[name].norm() + 1e-7, name
    graphs = counters["stats"]["unique_graphs"]
    assert REGIONS <= graphs <= 2 * REGIONS  # queries and keys have other numbers of heads
    assert not counters["graph_break"]
    said = capsys.readouterr().err
    assert (
        len(re.findall(r"^compiled \w+ of \[tokens, [0-9, ]+\] in [0-9.]+ s$", said, re.MULTILINE)) == graphs
    )

    adapted, eager = ready(tiny(), LORA, compile="layers", recompute="elementwise"), ready(tiny(), LORA)
    loss, grads = trained(adapted, row(batch_of, 29))
    expected, wanted = trained(eager, row(batch_of, 29))
    assert abs(loss - expected) <= 1e-5 * abs(expected) and grads.keys() == wanted.keys()
    reference = reference_of(compiled, "copy")
    compiled.module.eval()
    held_out = row(batch_of, 37)
    assert torch.equal(reference.logps(held_out), LocalPolicy(compiled.module).logps(held_out))
    assert counters["stats"]["unique_graphs"] == graphs


@needs_compiler
def test_names_and_short_answers_are_those_of_eager_mode(tiny) -> None:
    """Answers are made token by token, below the size at which a compiled kernel is called at all."""
    plain, compiled = ready(tiny()), ready(tiny(), compile="layers")
    assert list(plain.module.state_dict()) == list(compiled.module.state_dict())
    ids = torch.tensor([[5, 9, 2, 31]])
    said = [
        built.module.eval().generate(ids, max_new_tokens=6, do_sample=False, pad_token_id=0)
        for built in (plain, compiled)
    ]
    assert torch.equal(*said)


def test_without_a_compiler_there_is_one_line_that_says_so(tiny, monkeypatch) -> None:
    from torch._inductor import cpp_builder
    from torch._inductor.exc import InvalidCxxCompiler

    def absent() -> str:
        raise InvalidCxxCompiler

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(cpp_builder, "get_cpp_compiler", absent)
    with pytest.raises(ResourceError, match=r"error\[COMPILE\].*C\+\+ compiler.*trainer.compile=none"):
        ready(tiny(), compile="layers")


def test_a_compilers_own_error_becomes_one_line() -> None:
    def crooked(x: Tensor) -> Tensor:
        torch._dynamo.graph_break()
        return x

    with pytest.raises(ResourceError, match=r"error\[COMPILE\]") as caught:
        regions.Region(crooked)(torch.ones(40, 7))
    assert "\n" not in str(caught.value)


def test_a_model_with_nothing_to_compile_is_refused(tiny) -> None:
    model = deepcopy(tiny())
    model.config = {"model_type": "gpt2", "n_embd": 16, "n_layer": 1, "n_head": 2, "vocab_size": 40}
    with pytest.raises(UsageError, match=r"error\[COMPILE\].*GPT2"):
        ready(model, compile="layers")
    assert bare(ready(model).module).config.model_type == "gpt2"
