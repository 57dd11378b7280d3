"""A local model as losses, samplers and evaluations see it."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from llmfw.core.batch import Batch
from llmfw.core.errors import PluginError, UsageError
from llmfw.core.models.adapters import bare
from llmfw.core.models.encoder_decoder import is_encoder_decoder
from llmfw.core.models.head import Head, beginning, find_head, gather_logps
from llmfw.core.models.shards import inside
from llmfw.core.models.spans import Sight, sees_spans
from llmfw.core.records import Completion

_UNKNOWN = object()


class LocalPolicy:
    """The façade of a model in this process. Gradients flow; train or evaluation mode is the caller's choice.

    Shapes: B rows, T positions, N trained tokens, D width.

    Args:
        module: a transformers model, or PEFT's wrapper around one.
        companions: modules beside it, by name.
        tokenizer: for ``generate``.
        batch_keys: names in ``batch.extra`` that the model's forward receives.
    """

    def __init__(
        self,
        module: nn.Module,
        companions: Mapping[str, nn.Module] | None = None,
        tokenizer: Any = None,
        batch_keys: Sequence[str] = (),
    ) -> None:
        self.module = module
        self.companions: Mapping[str, nn.Module] = dict(companions or {})
        self.tokenizer = tokenizer
        self.batch_keys = tuple(batch_keys)
        self.auxiliary: Tensor | None = None
        """The model's own auxiliary loss of the last ``logps`` (a mixture's load balancing), already
        times its coefficient.
        """
        self._head: Any = _UNKNOWN
        self._by_mask = False
        """Whether rows without padding go in with a [T, T] mask: the model takes no spans."""

    def logps(self, batch: Batch) -> Tensor:
        """[N] log-probs of ``batch.target``, float32 (float64 of a float64 model).

        The head sees the N states that predict trained tokens and no other; no [B, T, V] tensor exists.
        """
        return inside(self.module, lambda: self._logps(batch))

    def _logps(self, batch: Batch) -> Tensor:
        head, found = self._predict(batch)
        return gather_logps(found, batch.target) if head is None else head.logps(found, batch.target)

    @torch.no_grad()
    def logps_and_best(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """([N] log-probs as of ``logps``, [N] ids that the model finds most likely there), in one pass."""
        return inside(self.module, lambda: self._logps_and_best(batch))

    def _logps_and_best(self, batch: Batch) -> tuple[Tensor, Tensor]:
        head, found = self._predict(batch)
        if head is None:
            return gather_logps(found, batch.target), found.argmax(-1)
        return head.logps(found, batch.target), head.best(found)

    def _predict(self, batch: Batch) -> tuple[Head | None, Tensor]:
        """(the head, [N, D] states that predict ``batch.target``), or (None, their [N, V] logits)."""
        model = bare(self.module)
        decoder = decoder_of(model)
        inputs = self._inputs(batch, decoder)
        if self._head is _UNKNOWN and batch.input_ids.numel():
            plain = beginning(inputs) if "spans" in inputs else inputs
            self._head = find_head(model, decoder, self._whole(batch, plain))
        head: Head | None = self._head if self._head is not _UNKNOWN else None
        if head is None:
            outputs = model(**self._whole(batch, inputs))
            if self._went_unseen(inputs):
                return self._predict(batch)
            self.auxiliary = router_loss(model, outputs, batch)
            return None, outputs.logits.flatten(0, 1).index_select(0, batch.source)
        outputs = decoder(**self._read(batch, inputs))
        if self._went_unseen(inputs):
            return self._predict(batch)
        self.auxiliary = router_loss(model, outputs, batch)
        return head, outputs[0].flatten(0, 1).index_select(0, batch.source)

    def hidden_states(self, batch: Batch, layer: int) -> Tensor:
        """[B, T, D] states entering decoder layer ``layer`` (from 0), or after the final norm (-1).

        Of an encoder-decoder these are the decoder's rows.
        """
        return inside(self.module, lambda: self._hidden_states(batch, layer))

    def _hidden_states(self, batch: Batch, layer: int) -> Tensor:
        decoder = decoder_of(bare(self.module))
        inputs = self._inputs(batch, decoder)
        if layer == -1:
            last: Tensor = decoder(**self._read(batch, inputs))[0]
            return self._hidden_states(batch, layer) if self._went_unseen(inputs) else last
        layers = decoder_layers(decoder)
        if not 0 <= layer < len(layers):
            raise UsageError(
                "LAYER",
                f"no layer {layer}",
                mend=f"use 0 to {len(layers) - 1}, or -1 for the state after the final norm",
            )
        seen: list[Tensor] = []

        def note(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            seen.append(args[0] if args else kwargs["hidden_states"])

        watch = layers[layer].register_forward_pre_hook(note, with_kwargs=True)
        try:
            decoder(**self._read(batch, inputs))
        finally:
            watch.remove()
        return self._hidden_states(batch, layer) if self._went_unseen(inputs) else seen[0]

    def _went_unseen(self, inputs: Mapping[str, Any]) -> bool:
        """Whether a row's spans reached none of the model's layers; from now on it then gets masks."""
        sight = inputs.get("spans")
        if sight is None or sight.used:
            return False
        self._by_mask = True
        return True

    def generate(self, prompts: Sequence[Any], **sampling: Any) -> list[Completion]:
        """Out of reach: ``llmfw.core.generation.GeneratingPolicy`` around this one generates."""
        raise NotImplementedError("this policy was built without generation")

    def embed(self, texts: Sequence[str]) -> Tensor:
        """[len(texts), D] float32: the final norm's output (of an encoder-decoder: its encoder's) averaged
        over the tokens of a raw text.
        """
        return embed_texts(self, self.tokenizer, texts)

    def _inputs(self, batch: Batch, decoder: nn.Module) -> dict[str, Any]:
        """What the decoder is called with; names that its forward doesn't take are left out where that
        changes nothing.
        """
        inputs: dict[str, Any] = {
            "input_ids": batch.input_ids,
            "position_ids": batch.position_ids,
            "use_cache": False,
        }
        if is_encoder_decoder(bare(self.module).config) != (batch.encoder_ids is not None):
            needs, has = ("no", "an") if batch.encoder_ids is not None else ("an", "no")
            raise PluginError(
                "BATCH-SIDES",
                f"{type(bare(self.module)).__name__} has {needs} encoder, the batch {has} encoder's side",
                mend="build batches with llmfw.core.data: collate, of examples that the run's Encoder made",
            )
        accepted = inspect.signature(decoder.forward).parameters
        open_ended = any(parameter.kind is parameter.VAR_KEYWORD for parameter in accepted.values())
        if batch.spans is not None and open_ended and not self._by_mask and sees_spans(bare(self.module)):
            # a mask of four dimensions is handed through as it is, so no [T, T] mask is made
            inputs["attention_mask"] = batch.input_ids.new_ones((1, 1, 1, 1), dtype=torch.bool)
            inputs["spans"] = Sight(batch.spans, batch.input_ids.device)
        else:
            inputs["attention_mask"] = self._mask(batch)
        if not open_ended:
            if "position_ids" not in accepted and (batch.mask is None or batch.mask.dim() == 4):
                raise UsageError(
                    "LAYOUT",
                    f"{type(decoder).__name__} takes no position ids, which packed rows need",
                    mend="set trainer.layout=padded",
                    key="trainer.layout",
                )
            inputs = {name: value for name, value in inputs.items() if name in accepted}
        if _routes(bare(self.module)):
            inputs["output_router_logits"] = True
        for key in self.batch_keys:
            if key not in batch.extra:
                raise PluginError(
                    "BATCH-KEY",
                    f"a surgery wants {key!r}, the batch has {', '.join(batch.extra) or 'nothing extra'}",
                    mend="let a dataset transform put it into each example's extra",
                )
            inputs[key] = batch.extra[key]
        return inputs

    def _read(self, batch: Batch, inputs: dict[str, Any]) -> dict[str, Any]:
        """The decoder's inputs; of an encoder-decoder with what the encoder makes of the other side."""
        if batch.encoder_ids is None or batch.encoder_mask is None:
            return inputs
        encoder = bare(self.module).get_encoder()
        states = encoder(input_ids=batch.encoder_ids, attention_mask=batch.encoder_mask.long())[0]
        mask = batch.encoder_mask.long()
        if batch.encoder_row is not None and len(batch.encoder_row) != len(states):
            states, mask = states[batch.encoder_row], mask[batch.encoder_row]
        return {**inputs, "encoder_hidden_states": states, "encoder_attention_mask": mask}

    def _whole(self, batch: Batch, inputs: dict[str, Any]) -> dict[str, Any]:
        """What the whole model is called with, for the decoder's ``inputs``."""
        if batch.encoder_ids is None or batch.encoder_mask is None:
            return inputs
        row = batch.encoder_row if batch.encoder_row is not None else slice(None)
        return {
            **{name: value for name, value in inputs.items() if name not in ("input_ids", "attention_mask")},
            "input_ids": batch.encoder_ids[row],
            "attention_mask": batch.encoder_mask[row].long(),
            "decoder_input_ids": inputs["input_ids"],
            "decoder_attention_mask": inputs["attention_mask"],
        }

    def _mask(self, batch: Batch) -> Tensor:
        """[B, T] int64 as transformers has it, or [B, 1, T, T]: bool, but additive for attention that
        adds its mask.
        """
        mask = batch.attention_mask
        if mask.dim() == 2:
            return mask.long()
        if getattr(bare(self.module).config, "_attn_implementation", "sdpa") != "eager":
            return mask
        dtype = next(self.module.parameters()).dtype
        # finite also in float32, in which eager attention takes its softmax: a row of -inf would be NaN
        least = max(torch.finfo(dtype).min, torch.finfo(torch.float32).min)
        return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill_(~mask, least)


def decoder_of(model: Any) -> Any:
    """The part of a transformers model that ends in the last hidden state."""
    found = model.get_decoder() if hasattr(model, "get_decoder") else None
    return found if found is not None and found is not model else model.base_model


def decoder_layers(decoder: Any) -> nn.ModuleList:
    """A decoder's blocks in order.

    Raises:
        UsageError: an architecture that names them in no known way.
    """
    for name in ("layers", "h", "blocks", "block"):
        found = getattr(decoder, name, None)
        if isinstance(found, nn.ModuleList):
            return found
    raise UsageError(
        "LAYER",
        f"{type(decoder).__name__} has no list of layers",
        mend="use another architecture, or layer -1",
    )


def _routes(model: Any) -> bool:
    return bool(getattr(model.config.get_text_config(), "output_router_logits", False))


def router_loss(model: Any, outputs: Any, batch: Batch) -> Tensor | None:
    """The load-balancing loss of a mixture of experts times its coefficient; None where the config
    doesn't ask for one.

    The formula is the architecture's own (Switch Transformer, arXiv 2101.03961, eq. 4 to 6).

    Raises:
        UsageError: an architecture whose formula isn't known here.
    """
    if not _routes(model):
        return None
    if is_encoder_decoder(model.config):
        raise UsageError(
            "ROUTER-LOSS",
            f"the router loss of {type(model).__name__} isn't known",
            mend="set output_router_logits=false in its config",
            key="model.config",
        )
    config = model.config.get_text_config()
    homes = [
        sys.modules[part.__module__] for part in type(model).__mro__
    ]  # a sharded model's class is torch's
    formula = next((f for home in homes if (f := getattr(home, "load_balancing_loss_func", None))), None)
    logits = getattr(outputs, "router_logits", None)
    experts = (
        getattr(model, "num_experts", None)
        or getattr(config, "num_experts", None)
        or getattr(config, "num_local_experts", None)
    )
    top_k = getattr(model, "num_experts_per_tok", None) or getattr(config, "num_experts_per_tok", None)
    if formula is None or not logits or not experts or not top_k:
        raise UsageError(
            "ROUTER-LOSS",
            f"the router loss of {type(model).__name__} isn't known",
            mend="set output_router_logits=false in its config",
            key="model.config",
        )
    loss: Tensor = formula(logits, experts, top_k, batch.token_mask)
    return loss * float(getattr(config, "router_aux_loss_coef", 0.0))


def embed_texts(policy: Any, tokenizer: Any, texts: Sequence[str]) -> Tensor:
    """[len(texts), D] float32: the final norm's output averaged over the tokens of a raw text, without
    gradient. An encoder-decoder's text is read by the encoder.
    """
    rows: list[Tensor] = []
    was_training = [part for part in policy.module.modules() if part.training]
    policy.module.eval()
    device = next(policy.module.parameters()).device
    model = bare(policy.module)
    try:
        with torch.no_grad():
            for text in texts:  # one by one: an embedding must not depend on its neighbours' padding
                batch = _plain_batch(tokenizer(text)["input_ids"], device)
                if is_encoder_decoder(model.config):
                    states = model.get_encoder()(
                        input_ids=batch.input_ids, attention_mask=batch.attention_mask.long()
                    )[0]
                else:
                    states = policy.hidden_states(batch, -1)
                rows.append(states[0].float().mean(0))
    finally:
        for part in was_training:
            part.training = True
    return torch.stack(rows) if rows else torch.empty(0, 0)


def _plain_batch(ids: Sequence[int], device: torch.device) -> Batch:
    none = torch.empty(0, dtype=torch.long, device=device)
    row = torch.tensor([list(ids)], dtype=torch.long, device=device)
    return Batch(
        kind="text",
        input_ids=row,
        mask=torch.ones_like(row, dtype=torch.bool),
        position_ids=torch.arange(row.shape[1], device=device)[None],
        source=none,
        target=none,
        segment=none,
        position=none,
        length=torch.zeros(1, dtype=torch.long, device=device),
        extra={"prompt_length": torch.tensor([row.shape[1]], device=device)},
        sample_ids=("embed",),
    )
