"""bitsandbytes' linear layers whose output is a function of weights, input and autocast alone.

Its own switch layout and kernel between training and evaluation on the CPU (4 bits: the weight is packed anew
in place at the first evaluation; 8 bits: inputs are quantised in evaluation only), so that a policy in
training and its reference would differ; and they remember the dtype of the first input they see.
"""

from __future__ import annotations

from typing import Any

import bitsandbytes
import torch
from bitsandbytes.nn import Int8Params, Linear4bit, Linear8bitLt, Params4bit
from torch import Tensor, nn


class Nf4Linear(Linear4bit):  # type: ignore[misc]  # bitsandbytes has no types
    """A frozen linear layer in 4-bit normal floats with double quantisation (arXiv 2305.14314)."""

    def forward(self, x: Tensor) -> Tensor:
        """[..., in] -> [..., out], in the dtype that torch's own linear layer would answer in."""
        x = x.to(_dtype(x))
        bias = None if self.bias is None else self.bias.to(x.dtype)
        out: Tensor = bitsandbytes.matmul_4bit(x, self.weight, bias=bias, quant_state=self.weight.quant_state)
        return out


class Int8Linear(Linear8bitLt):  # type: ignore[misc]  # as above
    """A frozen linear layer in int8, a scale for each row (arXiv 2208.07339); on GPUs inputs are quantised
    too, but for outliers.
    """

    def forward(self, x: Tensor) -> Tensor:
        """[..., in] -> [..., out], in the dtype that torch's own linear layer would answer in."""
        x = x.to(_dtype(x))
        self.state.is_training = True
        if self.weight.CB is not None and self.weight.SCB is not None:
            self.init_8bit_state()
        elif self.weight.CB is not None:  # moved after its first use: the scales are in the state already
            self.state.CB, self.state.SCB = self.weight.CB, self.state.SCB.to(x.device)
            self.weight.CB = None
        bias = None if self.bias is None else self.bias.to(x.dtype)
        out: Tensor = bitsandbytes.matmul(x, self.weight, bias=bias, state=self.state)
        return out


def nf4_layer(weight: Tensor, bias: nn.Parameter | None) -> Nf4Linear:
    """A layer that holds ``weight`` ([out, in]) in 4 bits, on the CPU."""
    made = Nf4Linear(weight.shape[1], weight.shape[0], bias=False, quant_type="nf4", device="meta")
    parameter: Any = Params4bit(
        weight.detach().contiguous(), requires_grad=False, quant_type="nf4", module=made
    )
    made.weight = parameter.to("cpu")
    made.bias = bias
    return made


def int8_layer(weight: Tensor, bias: nn.Parameter | None) -> Int8Linear:
    """A layer that holds ``weight`` ([out, in]) in 8 bits, on the CPU."""
    made = Int8Linear(
        weight.shape[1], weight.shape[0], bias=False, has_fp16_weights=False, threshold=6.0, device="meta"
    )
    parameter: Any = Int8Params(weight.detach().contiguous(), requires_grad=False, has_fp16_weights=False)
    made.weight = parameter.to("cpu")
    made.bias = bias
    return made


def _dtype(x: Tensor) -> torch.dtype:
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype
