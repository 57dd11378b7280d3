"""Whatever a checkpoint dictionary holds comes back the same, or is refused by its place."""

from __future__ import annotations

import json
import math
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from llmfw.core.checkpoint.encoding import decode, encode
from llmfw.core.errors import CheckpointError, PluginError


def round_trip(value: Any) -> Any:
    tree, files = encode({"state": value})
    text = json.dumps(tree, allow_nan=False)
    return decode(json.loads(text), lambda stem, name: files[stem][name])["state"]


def told(value: Any) -> Any:
    """Its repr; a set's members one by one, as equal sets may show them in different orders."""
    return sorted(map(repr, value)) if isinstance(value, set | frozenset) else repr(value)


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        0,
        -(2**70),
        0.1 + 0.2,
        "",
        "ü\ud800\u2028",
        [],
        [1, [2.0, None]],
        (),
        (1, ("a", [])),
        {},
        {"a": {"b": 1}},
        {1: "int key", (2, "x"): "tuple key", None: 0},
        {"$tuple": [1]},
        {"$": 1, "plain": 2},
        {"True": 1, True: 2},
        OrderedDict([("b", 1), ("a", 2)]),
        {3, "x"},
        frozenset({1, 2}),
        b"\x00\xff",
        math.inf,
        -math.inf,
        [1, True, 1.0],
    ],
)
def test_values_come_back_with_their_types(value: Any) -> None:
    back = round_trip(value)
    assert back == value and type(back) is type(value)
    assert told(back) == told(value), "True is not 1, 1.0 is not 1, and order is kept where there is one"


def test_nan_and_the_sign_of_zero_survive() -> None:
    assert math.isnan(round_trip(math.nan)) and math.copysign(1, round_trip(-0.0)) == -1


@pytest.mark.parametrize(
    "tensor",
    [
        torch.tensor(3.5, dtype=torch.float64),
        torch.zeros(0, 3),
        torch.arange(6).reshape(2, 3).T,
        torch.tensor([True, False]),
        torch.tensor([math.nan, -0.0], dtype=torch.bfloat16),
        torch.ones(2, dtype=torch.uint8),
        torch.nn.Parameter(torch.ones(1)),
    ],
    ids=lambda t: f"{t.dtype}{tuple(t.shape)}",
)
def test_tensors_come_back_bit_for_bit(tensor: torch.Tensor) -> None:
    back = round_trip({"deep": [tensor]})["deep"][0]
    assert back.dtype == tensor.dtype and back.shape == tensor.shape
    assert (
        back.contiguous().view(-1).view(torch.uint8).tolist()
        == tensor.detach().contiguous().view(-1).view(torch.uint8).tolist()
    )


def test_two_names_for_one_memory_are_written_apart() -> None:
    shared = torch.arange(4.0)
    _, files = encode({"state_dict": {"a": shared, "b": shared, "c": shared[:2]}})
    pointers = {tensor.untyped_storage().data_ptr() for tensor in files["weights"].values()}
    assert len(pointers) == 3 and set(files["weights"]) == {"a", "b", "c"}


def test_places_that_look_alike_do_not_collide() -> None:
    one, two = torch.zeros(1), torch.ones(1)
    back = round_trip({"a": {"b": one}, "a.b": two})
    assert back["a"]["b"].item() == 0 and back["a.b"].item() == 1


def test_weights_optimizer_and_the_rest_go_into_files_of_their_own() -> None:
    t = torch.zeros(1)
    _, files = encode(
        {
            "state_dict": {"model.w": t},
            "optimizer_states": [{"state": {0: {"step": t}}}],
            "callbacks": {"X": t},
        }
    )
    assert {stem: list(named) for stem, named in files.items()} == {
        "weights": ["model.w"],
        "optimizer": ["optimizer_states.0.state.0.step"],
        "state": ["callbacks.X"],
    }


class Callback:
    pass


@pytest.mark.parametrize(
    "value",
    [
        Callback(),
        Callback,
        len,
        Path("x"),
        np.float64(1),
        np.zeros(2),
        1j,
        torch.float32,
        torch.zeros(2).to_sparse(),
        range(3),
    ],
)
def test_anything_else_is_refused_with_its_place(value: Any) -> None:
    with pytest.raises(PluginError) as caught:
        encode({"callbacks": {"MyCallback": {"history": [0, value]}}})
    assert caught.value.exit_code == 4 and caught.value.key == "callbacks.MyCallback.history.1"


def test_a_state_that_refers_to_itself_is_refused() -> None:
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(PluginError, match="itself"):
        encode({"x": loop})


@pytest.mark.parametrize(
    "tree",
    [
        {"$exec": "x"},
        {"$tuple": 3},
        {"$tensor": "weights"},
        {"$tensor": 5},
        {"$float": "1e999"},
        {"$bytes": "***"},
        {"$dict": [[1]]},
        {"$set": [[1]]},
        {"$tuple": [], "more": 1},
        {"$dict": [[[1], 2]]},
        {"$ordered": None},
    ],
)
def test_json_that_encode_does_not_write_is_refused(tree: Any) -> None:
    with pytest.raises(CheckpointError) as caught:
        decode({"a": tree}, lambda stem, name: {}[name])
    assert caught.value.code == "CHECKPOINT-FORMAT"
